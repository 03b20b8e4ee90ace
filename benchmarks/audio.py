"""Log-mel spectrograms and MFCCs of 500 clips: one call of mmcourse against librosa.

    python benchmarks/audio.py

librosa is called clip by clip, and once with the whole batch. Its batch counts a range
of 80 dB from the loudest clip, so only clip by clip gives the same numbers as ours. All
on one thread, in turns; the largest difference comes first, for speed means nothing
without it.
"""

from functools import partial

from timing import fastest, line  # first: it sets the threads

# isort: split
import librosa
import numpy as np
import torch

from mmcourse.audio import log_mel, mfcc, preprocess_audio
from mmcourse.datasets import SR, spoken_digits

CLIPS = 500
OPTIONS = {"sr": SR, "n_fft": 256, "hop_length": 80, "n_mels": 40}


def librosa_mel(y):
    return librosa.power_to_db(librosa.feature.melspectrogram(y=y, **OPTIONS))


librosa_mfcc = partial(librosa.feature.mfcc, n_mfcc=13, **OPTIONS)


def one_by_one(function, clips):
    return np.stack([function(y=y) for y in clips])


def main():
    torch.set_num_threads(1)
    d = spoken_digits("train")
    clips = [x[:n] for x, n in zip(d["audio"][:CLIPS], d["length"], strict=False)]
    clips = preprocess_audio(clips)
    print(f"{CLIPS} clips of a second; torch {torch.__version__}, librosa")
    print(f"{librosa.__version__}, one thread")
    for ours, theirs in ((log_mel, librosa_mel), (mfcc, librosa_mfcc)):
        name = ours.__name__
        off = abs(ours(clips).numpy() - one_by_one(theirs, clips)).max()
        print(f"{name}: largest difference {off:.0e}")
        runs = [partial(ours, clips), partial(one_by_one, theirs, clips)]
        mine, single, batch = fastest(*runs, partial(theirs, y=clips))
        line(f"{name} : librosa, clip by clip", mine, single)
        line(f"{name} : librosa, the whole batch", mine, batch)


if __name__ == "__main__":
    main()
