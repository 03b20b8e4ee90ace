"""Fusions against scikit-learn's, and all partitions against the k-means algorithm.

    python benchmarks/decision_fusion.py

Predictions are drawn: 3 models (5 for clusters), 1,000 examples, 10 classes, and the
results are compared first. Scikit-learn's estimators check their input and encode
labels; its k-means clusters one example at a time, ours all of them at once.
"""

from timing import fastest, line  # first: it sets the number of threads

# isort: split
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import VotingClassifier

from mmcourse.decision_fusion import (
    fuse_clusters,
    fuse_product,
    fuse_weighted,
    learn_pool,
    learn_weights,
    simplex,
    stack,
    vote,
)

N = 1000


class Lookup(ClassifierMixin, BaseEstimator):
    "An estimator whose features are row numbers of what it says."

    def __init__(self, p=None):
        self.p = p

    def fit(self, X, y):
        self.classes_ = np.arange(self.p.shape[1])
        return self

    def predict_proba(self, X):
        return self.p[X[:, 0]]

    def predict(self, X):
        return self.predict_proba(X).argmax(1)


def one_by_one(p, k):
    "k-means on each example, from one start."
    out = []
    for n in range(p.shape[1]):
        labels = KMeans(k, n_init=1, random_state=0).fit(p[:, n]).labels_
        out.append(np.mean([p[labels == g, n].mean(0) for g in set(labels)], 0))
    return np.array(out)


def main():
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=N)
    l = 1.5 * np.eye(10)[y] + rng.standard_normal((5, N, 10))
    five = np.exp(l) / np.exp(l).sum(2, keepdims=True)
    p, X, w = five[:3], np.arange(N)[:, None], [0.3, 0.5, 0.2]
    parts = [(str(i), Lookup(q)) for i, q in enumerate(p)]
    soft = VotingClassifier(parts, voting="soft", weights=w).fit(X, y)
    hard = VotingClassifier(parts, voting="hard", weights=w).fit(X, y)
    np.testing.assert_allclose(soft.predict_proba(X), fuse_weighted(p, w), atol=1e-12)
    assert (hard.predict(X) == vote(p, w).argmax(1)).all()
    times = fastest(lambda: fuse_weighted(p, w), lambda: soft.predict_proba(X))
    line("average: ours : scikit-learn", *times)
    times = fastest(lambda: vote(p, w), lambda: hard.predict(X))
    line("vote: ours : scikit-learn", *times)
    times = fastest(lambda: fuse_product(p, w), lambda: fuse_weighted(p, w))
    line("product : average", *times)
    times = fastest(
        lambda: learn_weights(p, y),
        lambda: [(fuse_weighted(p, g).argmax(1) == y).sum() for g in simplex(3, 20)],
        repeats=3,
    )
    line("learn_weights : 231 averages", *times)
    times = fastest(lambda: learn_pool(p, y), lambda: stack(p, y), repeats=2)
    line("learn_pool : stack", *times)
    few = five[:, :100]
    same = abs(fuse_clusters(few, 3) - one_by_one(few, 3)).max(1) < 1e-6
    times = fastest(
        lambda: fuse_clusters(few, 3), lambda: one_by_one(few, 3), repeats=3
    )
    line(f"clusters, equal on {same.mean():.0%}: all partitions : k-means", *times)


if __name__ == "__main__":
    main()
