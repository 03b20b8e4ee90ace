"""Processor time of each stage of the pipeline, of a training, and of worker processes.

    python benchmarks/pipeline.py

Examples per second of each stage on one core, the best of five; then the seconds of one
epoch of batches with and without worker processes.
"""

from functools import partial
from time import perf_counter, process_time

import timing  # noqa: F401  first: it sets the threads

# isort: split
import torch
from torch.utils.data import DataLoader

from mmcourse.audio import preprocess_audio
from mmcourse.datasets import three_views
from mmcourse.image import preprocess_image
from mmcourse.pipeline import (
    Views,
    collate,
    columns,
    extract_modality,
    load_features,
    normalize_data,
    preprocess_data,
    view_loader,
)
from mmcourse.text import preprocess_text

N = 1000


def rate(f, times=5):
    "Examples a second."
    best = float("inf")
    for _ in range(times):
        since = process_time()
        f()
        best = min(best, process_time() - since)
    return N / best


def epoch_seconds(views, workers):
    since = perf_counter()
    list(DataLoader(views, 64, collate_fn=collate, num_workers=workers))
    return perf_counter() - since


def main():
    torch.set_num_threads(1)
    raw = three_views("train", N)
    lists, ready = columns(raw), preprocess_data(raw)
    views = Views(load_features(three_views, N)["train"])
    stages = {
        "draw the views": partial(three_views, "train", N),
        "text: tokenise": partial(preprocess_text, lists["text"]),
        "image: as MNIST": partial(preprocess_image, lists["image"]),
        "audio: trim and level": partial(preprocess_audio, lists["audio"]),
        "normalise": partial(normalize_data, ready, ready["stats"]),
        "text: numbers": partial(extract_modality, "text", ready),
        "audio: log-mel": partial(extract_modality, "audio", ready),
        "batches": lambda: list(view_loader(views, shuffle=True)),
    }
    for name, f in stages.items():
        print(f"{name:24} {rate(f):10,.0f} examples a second")
    for workers in (0, 2):
        seconds = min(epoch_seconds(views, workers) for _ in range(3))
        print(f"one epoch of batches, {workers} workers: {1000 * seconds:.0f} ms")


if __name__ == "__main__":
    main()
