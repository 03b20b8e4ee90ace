"""Measures softmax regression by hand against scikit-learn's, the temperature by hand against SciPy's, and training in Keras against torch: ratios of times of one run.

    python benchmarks/classifiers.py

Interleaved, the minimum of several repeats, one thread.
"""

import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "torch")
import numpy as np
import torch
import torch.nn.functional as F
from timing import fastest, line  # first: it sets the number of threads

from mmcourse import classifiers as C
from mmcourse.measure import seeded


def main():
    from scipy.optimize import minimize_scalar
    from sklearn.linear_model import LogisticRegression

    warnings.filterwarnings("ignore", "lbfgs failed to converge")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1000, 200)), rng.integers(10, size=1000)
    line(
        "softmax regression by hand against scikit-learn, the same tolerance",
        *fastest(
            lambda: C.softmax_regression(x, y, C=0.01, tol=1e-5),
            lambda: LogisticRegression(C=0.01, tol=1e-5, max_iter=300).fit(x, y),
        ),
    )
    z, t = torch.tensor(3 * rng.standard_normal((1000, 10))), torch.tensor(y)
    line(
        "a temperature by halving against SciPy",
        *fastest(
            lambda: C.fit_temperature(z, t),
            lambda: minimize_scalar(
                lambda v: F.cross_entropy(z / np.exp(v), t).item(),
                bounds=(-3, 3),
                method="bounded",
            ),
        ),
    )
    with seeded(0):
        ids, image, mel = (
            torch.randint(1, 500, (256, 20)),
            torch.randn(256, 1, 28, 28),
            -60 * torch.rand(256, 20, 51),
        )
    for train, data, ours, theirs in (
        (C.train_text_classifier, ids, C.TextNet, C.keras_text_net),
        (C.train_image_classifier, image, C.ImageNet28, C.keras_image_net),
        (C.train_audio_classifier, mel, C.AudioNet, C.keras_audio_net),
    ):
        line(
            f"{train.__name__}: Keras on torch against torch",
            *fastest(
                *[
                    lambda net=net: train(data, y[:256], net=net, epochs=2)
                    for net in (theirs, ours)
                ]
            ),
        )


if __name__ == "__main__":
    main()
