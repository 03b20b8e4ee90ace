"""Resizing a batch by two matrix products against Pillow, one by one; and how many
photos a second `preprocess_image` reads.

    python benchmarks/image.py

One thread; runs take turns, the shortest of several counts.
"""

import numpy as np
from PIL import Image, ImageDraw
from timing import fastest, line

from mmcourse.image import preprocess_image, resize_batch

CASES = [
    (1000, (28, 28), (14, 14)),
    (1000, (28, 28), (56, 56)),
    (200, (128, 128), (32, 32)),
    (200, (32, 32), (128, 128)),
    (20, (427, 640), (224, 224)),
    (1, (427, 640), (28, 28)),
]


def in_pillow(pictures: list, size: tuple) -> np.ndarray:
    how = size[::-1], Image.Resampling.BILINEAR
    return np.stack([np.asarray(p.resize(*how)) for p in pictures])


def against_pillow(n: int, old: tuple, new: tuple):
    "Pillow on floats gives the same numbers, on bytes it rounds."
    x = np.random.default_rng(0).random((n, *old))
    floats = [Image.fromarray(a.astype(np.float32)) for a in x]
    small = [Image.fromarray(np.uint8(255 * a)) for a in x]
    assert np.abs(resize_batch(x, new) - in_pillow(floats, new)).max() < 1e-5
    ours, theirs, rounded = fastest(
        lambda: resize_batch(x, new),
        lambda: in_pillow(floats, new),
        lambda: in_pillow(small, new),
    )
    case = f"{n} pictures, {old[0]}×{old[1]} to {new[0]}×{new[1]}"
    line(f"{case}, against Pillow on floats", ours, theirs)
    line(f"{case}, against Pillow on bytes", ours, rounded)


def sheet(side: int) -> np.ndarray:  # (side, side) uint8
    "A seven on paper."
    picture = Image.new("L", (side, side), 255)
    points = np.array([(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]) * side
    ImageDraw.Draw(picture).line(
        [tuple(p) for p in points], fill=0, width=max(1, side // 14)
    )
    return np.asarray(picture)


if __name__ == "__main__":
    for case in CASES:
        against_pillow(*case)
    for side in (100, 300, 1000):
        photos = [sheet(side)] * 20
        (seconds,) = fastest(lambda p=photos: preprocess_image(p), repeats=3)
        print(f"photos of {side}×{side}: {len(photos) / seconds:.0f} a second")
