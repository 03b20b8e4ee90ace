"""Examples per second of every stage of the pipeline, and of the project's three networks that it feeds: processor time on one core, best of five, in one run.

python benchmarks/pipeline.py
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import time

import numpy as np
import torch

from mmcourse import project
from mmcourse.audio import log_mel, preprocess_audio
from mmcourse.datasets import three_views
from mmcourse.image import preprocess_image
from mmcourse.pipeline import (
    Views,
    columns,
    normalize_data,
    preprocess_data,
    view_loader,
)
from mmcourse.text import preprocess_text

N = 1000


def rate(f, times=5):  # examples per second
    best = np.inf
    for _ in range(times):
        since = time.process_time()
        f()
        best = min(best, time.process_time() - since)
    return N / best


def main():
    torch.set_num_threads(1)
    raw = three_views("train", N)
    got, ready = columns(raw), preprocess_data(raw)
    views, features = Views(ready, raw["label"]), project.extract_features(ready)
    stages = {
        "draw the views": lambda: three_views("train", N),
        "text: tokenise": lambda: preprocess_text(got["text"]),
        "image: as MNIST": lambda: preprocess_image(got["image"]),
        "audio: trim and level": lambda: preprocess_audio(got["audio"]),
        "normalise": lambda: normalize_data(ready, ready["stats"]),
        "audio: log-mel": lambda: log_mel(ready["audio"], n_mels=20, hop=160),
        "draw and collate batches": lambda: list(view_loader(views, shuffle=True)),
    }
    model = rate(lambda: project.train_model(*features, raw["label"], epochs=1), 3)
    for name, f in stages.items():
        print(
            f"{name:28} {(r := rate(f)):9,.0f} / s  {r / model:6.1f} times the three networks, training"
        )
    print(f"{'the three networks, training':28} {model:9,.0f} / s")


if __name__ == "__main__":
    main()
