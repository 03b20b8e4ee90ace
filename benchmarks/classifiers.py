"""Chapter 12 by hand against libraries: ratios of times of one run.

    python benchmarks/classifiers.py

Softmax regression against scikit-learn's, a temperature against SciPy's, and training
in Keras on torch against torch. The runs take turns; the least of several counts.
"""

import warnings
from functools import partial

import numpy as np
import torch
from timing import fastest, line  # first: it sets the number of threads

from mmcourse import classifiers as C
from mmcourse.measure import nll


def main():
    from scipy.optimize import minimize_scalar
    from sklearn.linear_model import LogisticRegression

    warnings.filterwarnings("ignore", "lbfgs failed to converge")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1000, 200)), rng.integers(10, size=1000)
    ours = partial(C.softmax_regression, x, y, C=0.01, tol=1e-5)
    reference = LogisticRegression(C=0.01, tol=1e-5, max_iter=300)
    both = fastest(ours, partial(reference.fit, x, y))
    line("softmax regression by hand against scikit-learn, the same tolerance", *both)

    z, t = torch.tensor(3 * rng.standard_normal((1000, 10))), torch.tensor(y)
    ours = partial(C.fit_temperature, z, t)
    search = partial(minimize_scalar, lambda v: nll(z / np.exp(v), t), (-1, 1))
    line("a temperature by halving against SciPy", *fastest(ours, search))

    pictures = torch.tensor(rng.standard_normal((256, 1, 28, 28)), dtype=torch.float32)
    train = partial(C.train_image_classifier, pictures, y[:256], epochs=2)
    nets = C.keras_image_net, C.ImageNet28
    both = fastest(*[partial(train, net=net) for net in nets])
    line("training the image network: Keras on torch against torch", *both)


if __name__ == "__main__":
    main()
