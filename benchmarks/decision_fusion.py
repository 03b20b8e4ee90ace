"""Measures fusions against scikit-learn's, expectation maximisation against SciPy, and all partitions against Lloyd's algorithm: ratios of times of one run.

    python benchmarks/decision_fusion.py

Interleaved, the minimum of several repeats, one thread. Predictions are drawn: 3 models (5 for clusters), 1,000 examples, 10 classes.
"""

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import VotingClassifier
from timing import fastest, line  # first: it sets the number of threads

from mmcourse.decision_fusion import (
    fuse_clusters,
    fuse_product,
    fuse_weighted,
    learn_mixture,
    learn_pool,
    learn_weights,
    simplex,
    stack,
    vote,
)


class Lookup(ClassifierMixin, BaseEstimator):
    def __init__(self, p=None):
        self.p = p

    def fit(self, X, y):
        self.classes_ = np.arange(self.p.shape[1])
        return self

    def predict_proba(self, X):
        return self.p[X[:, 0]]

    def predict(self, X):
        return self.predict_proba(X).argmax(1)


def main():
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=1000)
    l = 1.5 * np.eye(10)[y] + rng.standard_normal((5, 1000, 10))
    five = np.exp(l) / np.exp(l).sum(2, keepdims=True)
    p, X, w = five[:3], np.arange(1000)[:, None], [0.3, 0.5, 0.2]
    parts = [(f"m{i}", Lookup(q)) for i, q in enumerate(p)]
    soft, hard = (
        VotingClassifier(parts, voting=v, weights=w).fit(X, y) for v in ("soft", "hard")
    )
    line(
        "fuse_weighted against VotingClassifier, soft",
        *fastest(lambda: fuse_weighted(p, w), lambda: soft.predict_proba(X)),
    )
    line(
        "vote against VotingClassifier, hard",
        *fastest(lambda: vote(p, w), lambda: hard.predict(X)),
    )
    line(
        "fuse_product against fuse_weighted",
        *fastest(lambda: fuse_product(p, w), lambda: fuse_weighted(p, w)),
    )
    score = lambda x: -np.log(fuse_weighted(p, x)[range(1000), y]).mean()
    line(
        "learn_mixture (EM) against L-BFGS-B on the same score",
        *fastest(
            lambda: learn_mixture(p, y),
            lambda: minimize(
                score, np.ones(3), bounds=[(1e-6, 1)] * 3, method="L-BFGS-B"
            ),
            repeats=3,
        ),
    )
    line(
        "learn_weights against one fuse_weighted a grid point",
        *fastest(
            lambda: learn_weights(p, y),
            lambda: [fuse_weighted(p, g).argmax(1) == y for g in simplex(3, 20)],
            repeats=3,
        ),
    )
    line(
        "learn_pool against stack",
        *fastest(lambda: learn_pool(p, y), lambda: stack(p, y), repeats=2),
    )
    for k in (2, 3):
        line(
            f"fuse_clusters, 5 models, k = {k}, against KMeans with ten starts (scaled up)",
            *(
                t * f
                for t, f in zip(
                    fastest(
                        lambda: fuse_clusters(five, k),
                        lambda: [
                            KMeans(k, n_init=10, random_state=0).fit(five[:, n])
                            for n in range(20)
                        ],
                        repeats=3,
                    ),
                    (1, 50),
                )
            ),
        )


if __name__ == "__main__":
    main()
