"""Log-mel spectrograms and MFCCs of 500 clips: one call of mmcourse against librosa clip by clip, both on one thread.

    python benchmarks/audio.py

Rounds alternate, so that whatever else the machine does hits both; the ratio is that of the medians. The largest difference of the results comes first: speed means nothing without it.
"""

import os

for name in (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
):
    os.environ[name] = "1"

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import librosa
import numpy as np
import torch

from mmcourse.audio import log_mel, mfcc, preprocess_audio
from mmcourse.datasets import SR, spoken_digits

CLIPS, ROUNDS = 500, 7
OPTIONS = {"sr": SR, "n_fft": 256, "hop_length": 80, "n_mels": 40}


def seconds(f):
    start = perf_counter()
    result = f()
    return perf_counter() - start, result


def compare(name, ours, theirs):
    ours(), theirs()  # librosa compiles on its first call
    mine, other = zip(*((seconds(ours), seconds(theirs)) for _ in range(ROUNDS)))
    far = np.abs(mine[0][1].numpy() - np.stack(other[0][1])).max()
    mine, other = ([t for t, _ in runs] for runs in (mine, other))
    print(
        f"{name:8} largest difference {far:.0e} | one call {1e3 * median(mine):4.0f} ms, librosa clip by clip {1e3 * median(other):4.0f} ms | {median(other) / median(mine):.1f} times as fast"
        f" (rounds: {min(o / m for m, o in zip(mine, other)):.1f} to {max(o / m for m, o in zip(mine, other)):.1f})"
    )


def main():
    torch.set_num_threads(1)
    spoken = spoken_digits("train")
    clips = preprocess_audio(
        [x[:n] for x, n in zip(spoken["audio"][:CLIPS], spoken["length"])]
    )
    print(
        f"{CLIPS} clips of one second at {SR} Hz, float32; {ROUNDS} rounds; torch {torch.__version__}, librosa {librosa.__version__}, one thread"
    )
    compare(
        "log_mel",
        lambda: log_mel(clips),
        lambda: [
            librosa.power_to_db(librosa.feature.melspectrogram(y=y, **OPTIONS))
            for y in clips
        ],
    )
    compare(
        "mfcc",
        lambda: mfcc(clips),
        lambda: [librosa.feature.mfcc(y=y, n_mfcc=13, **OPTIONS) for y in clips],
    )


if __name__ == "__main__":
    main()
