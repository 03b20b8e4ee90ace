"""What spectral norm and the parts of a training step cost, and the Fréchet distance by
eigenvalues against SciPy's matrix root: ratios of times of one run.

    python benchmarks/gan.py

The calls take turns, on one thread; of each the fastest of several laps counts.
"""

from functools import partial

import numpy as np
import torch
from scipy.linalg import sqrtm
from timing import fastest, line  # sets the number of threads
from torch.nn.utils import parametrize

from mmcourse.duel import earth_mover
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
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return apart + np.trace(ca + cb) - 2 * np.trace(sqrtm(ca @ cb)).real


def without_norm(d):
    "The same weights, no longer normalised."
    for m in d.modules():
        if parametrize.is_parametrized(m):
            parametrize.remove_parametrizations(m, "weight")
    return d


def there_and_back(net, *inputs):
    net(*inputs).sum().backward()


def main():
    torch.set_num_threads(1)
    with seeded(0):
        g, d, bare = Generator(), Discriminator(), without_norm(Discriminator())
        images, y = torch.rand(64, 28, 28), torch.randint(10, (64,))
        noise = torch.randn(64, 64)
        a, b = torch.randn(2, 1000, 64, dtype=torch.float64)
    judge = partial(there_and_back, d, images, y)
    line(
        "discriminator with spectral norm against without, forward and backward",
        *fastest(judge, partial(there_and_back, bare, images, y)),
    )
    line(
        "generator against discriminator, the same batch",
        *fastest(partial(there_and_back, g, noise, y), judge),
    )
    train = partial(train_gan, images, y, steps=4, generator=g, discriminator=d)
    line(
        "four training steps with batches of 64 against 32",
        *fastest(partial(train, batch_size=64), partial(train, batch_size=32)),
    )
    assert abs(frechet_distance(a, b) - scipy_frechet(a, b)) < 1e-6
    ours = partial(frechet_distance, a, b)
    line(
        "Fréchet distance of 1,000 rows by eigenvalues against scipy.linalg.sqrtm",
        *fastest(ours, partial(scipy_frechet, a, b)),
    )
    for measure in (density_coverage, earth_mover):
        name = f"{measure.__name__} against the Fréchet distance"
        line(name, *fastest(partial(measure, a, b), ours, repeats=3))


if __name__ == "__main__":
    main()
