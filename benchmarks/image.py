"""Resizing N pictures by two matrix products against Pillow one by one, and pictures a second through `preprocess_image`.

Run on demand: `python benchmarks/image.py`. Interleaved repeats, the minimum of each; one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from time import perf_counter

import numpy as np
from PIL import Image, ImageDraw

from mmcourse.image import preprocess_image, resize_batch


def interleaved(*functions, repeats: int = 9) -> list:  # seconds
    "The shortest of several runs of each function, taken in turns."
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for i, f in enumerate(functions):
            start = perf_counter()
            f()
            best[i] = min(best[i], perf_counter() - start)
    return best


def against_pillow(n: int, old: tuple, new: tuple):
    "One line: our batch, Pillow on floats (the same numbers), Pillow on bytes (rounded)."
    x = np.random.default_rng(0).random((n, *old), np.float32)
    floats, small = (
        [Image.fromarray(a) for a in x],
        [Image.fromarray(np.uint8(255 * a)) for a in x],
    )
    pillow = lambda pictures: np.stack(
        [np.asarray(p.resize(new[::-1], Image.Resampling.BILINEAR)) for p in pictures]
    )
    assert np.abs(resize_batch(x, new) - pillow(floats)).max() < 1e-5
    ours, theirs, rounded = interleaved(
        lambda: resize_batch(x, new), lambda: pillow(floats), lambda: pillow(small)
    )
    print(
        f"{n:4} × {old[0]}×{old[1]} -> {new[0]}×{new[1]}: ours {1e3 * ours:7.1f} ms, Pillow on floats {1e3 * theirs:7.1f} ms ({ours / theirs:.2f}), on bytes {1e3 * rounded:7.1f} ms ({ours / rounded:.2f})"
    )


def sheet(side: int) -> np.ndarray:  # (side, side) uint8
    picture = Image.new("L", (side, side), 255)
    ImageDraw.Draw(picture).line(
        [
            (0.25 * side, 0.2 * side),
            (0.75 * side, 0.2 * side),
            (0.45 * side, 0.85 * side),
        ],
        fill=0,
        width=side // 14,
    )
    return np.asarray(picture)


if __name__ == "__main__":
    print(
        "resize_batch (seconds of ours over seconds of Pillow: below 1, ours is faster)"
    )
    for n, old, new in (
        (1000, (28, 28), (14, 14)),
        (1000, (28, 28), (56, 56)),
        (200, (128, 128), (32, 32)),
        (200, (32, 32), (128, 128)),
        (20, (427, 640), (224, 224)),
        (1, (427, 640), (28, 28)),
    ):
        against_pillow(n, old, new)
    print("preprocess_image")
    for side in (100, 300, 1000):
        photos = [sheet(side)] * 20
        (t,) = interleaved(lambda: preprocess_image(photos), repeats=3)
        print(f"  photos of {side}×{side}: {len(photos) / t:.0f} a second")
