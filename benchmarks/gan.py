"""Measures what the parts of a training step cost, spectral norm, and the Fréchet distance by eigenvalues against SciPy's matrix root: ratios of times of one run.

    python benchmarks/gan.py

The calls take turns, on one thread; of each the fastest of several laps counts.
"""

import numpy as np
import torch
from scipy.linalg import sqrtm
from timing import fastest, line  # first: it sets the number of threads
from torch.nn.utils import parametrize

from mmcourse.gan import (
    Discriminator,
    Generator,
    density_coverage,
    frechet_distance,
    train_gan,
)
from mmcourse.measure import seeded


def scipy_frechet(a, b):
    a, b = a.numpy(), b.numpy()
    ca, cb = np.cov(a.T), np.cov(b.T)
    return (
        ((a.mean(0) - b.mean(0)) ** 2).sum()
        + np.trace(ca)
        + np.trace(cb)
        - 2 * np.trace(sqrtm(ca @ cb)).real
    )


def plain(d):  # the same weights without the norm
    for m in d.modules():
        if parametrize.is_parametrized(m):
            parametrize.remove_parametrizations(m, "weight")
    return d


def main():
    torch.set_num_threads(1)
    with seeded(0):
        g, d, images, y = (
            Generator(),
            Discriminator(),
            torch.rand(64, 28, 28),
            torch.randint(10, (64,)),
        )
        bare, z = plain(Discriminator()), torch.randn(64, 64)
        a, b = (
            torch.randn(1000, 64, dtype=torch.float64),
            torch.randn(1000, 64, dtype=torch.float64),
        )
    step = lambda net, *x: lambda: net(*x).sum().backward()
    line(
        "discriminator with spectral norm against without, forward and backward",
        *fastest(step(d, images, y), step(bare, images, y)),
    )
    line(
        "generator against discriminator, the same batch",
        *fastest(step(g, z, y), step(d, images, y)),
    )
    train = lambda batch: (
        lambda: train_gan(
            images, y, steps=4, batch_size=batch, generator=g, discriminator=d
        )
    )
    line(
        "four training steps with batches of 64 against 32",
        *fastest(train(64), train(32), repeats=3),
    )
    assert abs(frechet_distance(a, b) - scipy_frechet(a, b)) < 1e-6
    line(
        "Fréchet distance of 1,000 rows by eigenvalues against scipy.linalg.sqrtm",
        *fastest(lambda: frechet_distance(a, b), lambda: scipy_frechet(a, b)),
    )
    line(
        "density and coverage against the Fréchet distance",
        *fastest(lambda: density_coverage(a, b), lambda: frechet_distance(a, b)),
    )


if __name__ == "__main__":
    main()
