"""Fusions against scikit-learn, SciPy and brute force over random shapes and seeds, the laws of pools, and everything a caller can get wrong."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mmcourse import decision_fusion as D
from mmcourse.decision_fusion import (
    ambiguity,
    cluster_models,
    effective_number,
    fuse_clusters,
    fuse_product,
    fuse_weighted,
    group_weights,
    learn_mixture,
    learn_pool,
    learn_powers,
    learn_weights,
    n_partitions,
    partitions,
    pool_score,
    predict_accuracy,
    shuffle_within,
    simplex,
    stack,
    temper,
    truth_correlation,
    vote,
)

shapes = st.fixed_dictionaries(
    {
        "m": st.integers(1, 5),
        "n": st.integers(1, 6),
        "c": st.integers(2, 6),
        "sharp": st.sampled_from([0.05, 0.5, 1.0, 20.0]),
        "seed": st.integers(0, 2**31 - 1),
    }
)
many = settings(max_examples=30, deadline=None)


def made(m, n, c, sharp, seed):
    "Probabilities (m, n, c), weights (m,), a mask (m, n), labels (n,), the generator."
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.full(c, sharp), (m, n)),
        rng.uniform(0.1, 3, m),
        rng.random((m, n)) < 0.7,
        rng.integers(c, size=n),
        rng,
    )


def skilled(rng, m=3, n=300, c=5, skill=2.0, noise=1.5):
    "Models that know something: logits that favour the truth, in noise of their own."
    y = rng.integers(c, size=n)
    return D._softmax(skill * np.eye(c)[y] + noise * rng.standard_normal((m, n, c))), y


FUSIONS = {
    "weighted": fuse_weighted,
    "product": fuse_product,
    "vote": vote,
    "clusters": lambda p, w=None, mask=None: fuse_clusters(p, 2, mask),
}
WEIGHTED = {k: FUSIONS[k] for k in ("weighted", "product", "vote")}
close = lambda a, b, atol=1e-10: np.testing.assert_allclose(a, b, rtol=0, atol=atol)

# --- laws of all fusions


@pytest.mark.parametrize("name", FUSIONS)
@given(shapes)
@many
def test_outputs_are_distributions(name, s):
    p, w, mask, _, _ = made(**s)
    for q in (FUSIONS[name](p, w), FUSIONS[name](p, w, mask)):
        assert q.shape == p.shape[1:] and q.dtype == np.float64 and q.min() >= 0
        close(q.sum(1), 1)


@pytest.mark.parametrize("name", FUSIONS)
@given(shapes)
@many
def test_the_order_of_models_does_not_matter(name, s):
    p, w, mask, _, rng = made(**s)
    o = rng.permutation(len(p))
    close(FUSIONS[name](p[o], w[o], mask[o]), FUSIONS[name](p, w, mask))


@pytest.mark.parametrize("name", FUSIONS)
@given(shapes)
@many
def test_what_is_masked_cannot_be_heard(name, s):
    "Not even if it is no probability at all."
    p, w, mask, _, rng = made(**s)
    other = np.where(
        mask[..., None], p, rng.choice([np.nan, np.inf, -3.0, 7.0], p.shape)
    )
    close(FUSIONS[name](other, w, mask), FUSIONS[name](p, w, mask), 0)
    if mask[:, 0].any():
        close(
            FUSIONS[name](p, w, mask)[:1],
            FUSIONS[name](p[mask[:, 0], :1], w[mask[:, 0]]),
        )


@pytest.mark.parametrize("name", FUSIONS)
@given(shapes)
@many
def test_nothing_there_says_nothing(name, s):
    p, w, mask, _, _ = made(**s)
    mask[:, -1] = False
    close(FUSIONS[name](p, w, mask)[-1], 1 / p.shape[2])


@pytest.mark.parametrize("name", ["weighted", "product", "clusters"])
@given(shapes)
@many
def test_one_model_alone_is_itself(name, s):
    p, w, _, _, _ = made(**s)
    p = np.maximum(p, 1e-9)
    p /= p.sum(2, keepdims=True)  # above the floor
    close(FUSIONS[name](p[:1]), p[0])
    close(FUSIONS[name]({"a": None, "b": p[0], "c": None}), p[0])
    only = np.zeros((len(p), p.shape[1]), bool)
    only[-1] = True
    close(FUSIONS[name](p, None, only), p[-1])


@pytest.mark.parametrize("name", FUSIONS)
@given(shapes)
@many
def test_a_dict_an_array_and_tensors_are_the_same(name, s):
    p, w, mask, _, _ = made(**s)
    names = [f"model {i}" for i in range(len(p))]
    want = FUSIONS[name](p, w, mask)
    close(
        FUSIONS[name](dict(zip(names, p)), dict(zip(names, w)), dict(zip(names, mask))),
        want,
        0,
    )
    close(FUSIONS[name](torch.tensor(p), torch.tensor(w), torch.tensor(mask)), want, 0)
    close(
        FUSIONS[name](
            dict(zip(names, torch.tensor(p, dtype=torch.float32))), list(w), list(mask)
        ),
        want,
        1e-4 if name != "vote" else 1,
    )
    more = {"absent": None} | dict(
        zip(names, p)
    )  # a name that has no model changes nothing
    close(
        FUSIONS[name](
            more,
            {"absent": 5.0} | dict(zip(names, w)),
            {"absent": np.ones(p.shape[1], bool)} | dict(zip(names, mask)),
        ),
        want,
    )


@given(shapes, st.floats(1e-6, 1e6))
@many
def test_only_ratios_of_weights_count_in_a_mean(s, factor):
    p, w, mask, _, _ = made(**s)
    for fuse in (fuse_weighted, vote):
        close(fuse(p, factor * w, mask), fuse(p, w, mask))


@given(shapes)
@many
def test_weights_of_what_is_there_add_up_to_one(s):
    p, w, mask, _, _ = made(**s)
    for n in range(p.shape[1]):
        there = mask[:, n]
        if there.any():
            close(fuse_weighted(p, w, mask)[n], w[there] @ p[there, n] / w[there].sum())


# --- laws of the product


@given(shapes)
@many
def test_product_is_the_product(s):
    p, w, _, _, rng = made(**s | {"sharp": 1.0})
    p = p.clip(1e-3)
    p /= p.sum(2, keepdims=True)
    prior = rng.dirichlet(np.full(p.shape[2], 5.0)).clip(1e-3)
    prior /= prior.sum()
    q = prior * ((p / prior) ** w[:, None, None]).prod(0)
    close(fuse_product(p, w, prior=prior), q / q.sum(1, keepdims=True))


@given(shapes)
@many
def test_bayes_rule_for_independent_views(s):
    "Three tables p(x|c), drawn independently: the product of the posteriors is the posterior of all."
    _, _, _, _, rng = made(**s)
    prior, tables = (
        rng.dirichlet(np.full(s["c"], 2.0)) + 1e-3,
        rng.dirichlet(np.ones(4), (s["m"], s["c"])) + 1e-4,
    )
    prior /= prior.sum()
    likelihood = np.stack([t[:, rng.integers(4, size=s["n"])].T for t in tables])
    posterior = lambda l: prior * l / (prior * l).sum(-1, keepdims=True)
    close(
        fuse_product(posterior(likelihood), prior=prior), posterior(likelihood.prod(0))
    )


@given(shapes)
@many
def test_who_knows_nothing_leaves_the_product_as_it_is(s):
    p, w, _, _, _ = made(**s)
    uniform = np.full((1, *p.shape[1:]), 1 / p.shape[2])
    close(fuse_product(np.concatenate([p, uniform]), [*w, 3.0]), fuse_product(p, w))
    if abs(p[0] - 1 / p.shape[2]).max() > 0.1:
        assert (
            abs(fuse_weighted(np.concatenate([p[:1], uniform])) - p[0]).max() > 0.01
        )  # the mean is moved


@given(shapes)
@many
def test_product_is_externally_bayesian(s):
    "Genest 1984: exponents that add up to 1; news before or after pooling."
    p, w, _, _, rng = made(**s | {"sharp": 1.0})
    L, w = rng.uniform(0.05, 1, p.shape[2]), w / w.sum()
    p = p.clip(1e-3)
    p /= p.sum(2, keepdims=True)
    update = lambda p: p * L / (p * L).sum(-1, keepdims=True)
    close(fuse_product(update(p), w), update(fuse_product(p, w)))


def test_mean_is_not_externally_bayesian():
    p, L = np.array([[[0.9, 0.1]], [[0.2, 0.8]]]), np.array([0.1, 0.9])
    update = lambda p: p * L / (p * L).sum(-1, keepdims=True)
    assert abs(fuse_weighted(update(p)) - update(fuse_weighted(p))).max() > 0.05


def test_product_of_sure_opponents_is_finite():
    q = fuse_product(np.array([[[1.0, 0, 0]], [[0, 1.0, 0]]]), [20.0, 20.0])
    close(q, [[0.5, 0.5, 0]])
    close(
        fuse_product(np.array([[[1.0, 0]]]), [0.0]), 0.5
    )  # an exponent of 0 is silence


def test_of_nothing_the_prior():
    p = np.array([[[0.5, 0.5]]])
    close(fuse_product(p, mask=[[False]], prior=[0.3, 0.7]), [[0.3, 0.7]])
    close(
        fuse_product(np.array([[[0.3, 0.7]]] * 3), prior=[0.3, 0.7]), [[0.3, 0.7]]
    )  # who repeats the prior adds nothing


# --- identities


@given(shapes)
@many
def test_error_of_the_mean_is_mean_error_less_ambiguity(s):
    p, w, mask, y, _ = made(**s)
    for args in ((p, y), (p, y, w), (p, y, w, mask)):
        average, members, spread = ambiguity(*args)
        close(average, members - spread, 1e-12)
        assert spread.min() >= 0
        close(
            average,
            ((fuse_weighted(p, *args[2:]) - np.eye(p.shape[2])[y]) ** 2).sum(1),
            1e-12,
        )


@given(shapes)
@many
def test_effective_number(s):
    p, _, _, _, rng = made(**s)
    m, r = len(p), rng.uniform(0, 1)
    close(
        effective_number(np.full((m, m), r) + (1 - r) * np.eye(m)),
        m / (1 + (m - 1) * r),
        1e-9,
    )
    close(effective_number(np.ones((m, m))), 1)


def test_truth_correlation_is_numpys():
    p, y = skilled(np.random.default_rng(0))
    close(
        truth_correlation(p, y),
        np.corrcoef([[q[n, c] for n, c in enumerate(y)] for q in p]),
    )


@pytest.mark.parametrize("seed", range(3))
def test_shuffling_keeps_each_model_and_cuts_the_ties(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, 1, 4000)
    p = np.concatenate([p, p])  # a copy
    q = shuffle_within(p, y, rng)
    for a, b in zip(p, q):
        for c in range(5):
            close(np.sort(a[y == c], 0), np.sort(b[y == c], 0), 1e-12)
    assert (
        truth_correlation(p, y)[0, 1] > 0.999
        and abs(truth_correlation(q, y)[0, 1]) < 0.06
    )


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_predicted_at_both_ends_and_between(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, 3, 3000)
    accuracy = lambda p: (p.mean(0).argmax(1) == y).mean()
    copies, strangers = predict_accuracy(p[[0, 0, 0]], y), predict_accuracy(p, y)
    assert (
        abs(copies["predicted"] - accuracy(p[[0]])) < 1e-9
        and copies["independent"] > copies["single"] + 0.05
        and abs(copies["effective"] - 1) < 1e-9
    )
    assert (
        abs(strangers["predicted"] - accuracy(p)) < 0.02
        and strangers["effective"] > 2.8
    )
    assert (
        abs(predict_accuracy(p[[0, 0, 1]], y)["predicted"] - accuracy(p[[0, 0, 1]]))
        < 0.05
    )
    assert predict_accuracy(p, y, seed=1) == predict_accuracy(p, y, seed=1)


# --- learnt


def test_simplex_is_every_point_once():
    for m, steps in itertools.product((1, 2, 3, 4), (1, 2, 5, 20)):
        w = simplex(m, steps)
        assert (
            len(w)
            == D.comb(steps + m - 1, m - 1)
            == len({tuple(x) for x in w.round(9)})
            and w.min() >= 0
        )
        close(w.sum(1), 1)
        close(w * steps, np.rint(w * steps))


@pytest.mark.parametrize("seed", range(3))
def test_no_weights_of_the_grid_are_better(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, 3, 80)
    mask = rng.random((3, 80)) < 0.7
    for k in (None, mask):
        hits = lambda w: (fuse_weighted(p, w, k).argmax(1) == y).sum()
        w = learn_weights(p, y, k, steps=10)
        close(w.sum(), 1)
        assert hits(w) == max(map(hits, simplex(3, 10)))


def test_learnt_weights_keep_the_names_and_leave_out_who_is_not_there():
    p, y = skilled(np.random.default_rng(1))
    for learn in (learn_weights, learn_mixture, learn_pool, learn_powers):
        w = learn({"a": p[0], "b": None, "c": p[2]}, y)
        assert (
            list(w) == ["a", "b", "c"]
            and w["b"] == 0
            and w["a"] > 0
            and all(type(x) is float for x in w.values())
        )
        close([w["a"], w["c"]], learn(p[[0, 2]], y), 1e-6)
        assert learn(p, y).shape == (3,)


@pytest.mark.parametrize("seed", range(4))
def test_mixture_is_the_best_and_knows_it(seed):
    "Cover's condition, and SciPy finds nothing better."
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, 4, 120, skill=1.0)
    score = lambda w: np.log(fuse_weighted(p, w)[range(120), y]).mean()
    w = learn_mixture(p, y)
    close(w.sum(), 1)
    q = p[:, range(120), y]
    assert (q / (w @ q)).mean(1).max() <= 1 + 2e-6
    ref = max(
        -minimize(
            lambda x: -score(x),
            rng.dirichlet(np.ones(4)),
            bounds=[(1e-9, 1)] * 4,
            method="L-BFGS-B",
        ).fun
        for _ in range(3)
    )
    assert score(w) > ref - 2e-6
    for v in rng.dirichlet(np.ones(4), 50):
        assert score(v) <= score(w) + 2e-6


@pytest.mark.parametrize("seed", range(3))
def test_mixture_with_holes_climbs(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, 3, 100)
    mask = rng.random((3, 100)) < 0.6
    score = lambda w: np.log(fuse_weighted(p, w, mask)[range(100), y]).mean()
    path = [score(learn_mixture(p, y, mask, steps=k)) for k in (0, 1, 2, 5, 20, 200)]
    assert all(b >= a - 1e-12 for a, b in zip(path, path[1:])) and path[-1] > path[0]
    w = learn_mixture(p, y, mask, steps=5000)
    for i in range(3):  # it has stopped on top: no weight can be moved with profit
        for factor in (0.98, 1.02):
            assert score(w * np.where(np.arange(3) == i, factor, 1)) <= score(w) + 1e-9


@given(shapes)
@many
def test_gradient_of_the_pool_is_autograds(s):
    p, w, _, y, _ = made(**s)
    log_p, a = torch.tensor(D._log(p)), torch.tensor(w, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        torch.einsum("m,mnc->nc", a, log_p), torch.tensor(y)
    )
    loss.backward()
    score, slope = pool_score(w, log_p.numpy(), y)
    close(slope, -a.grad.numpy(), 1e-8)
    close(score, -loss.item(), 1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_pool_is_the_best_of_its_kind(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, 3, 200)
    mask = None if seed % 2 else rng.random((3, 200)) < 0.7
    score = lambda a: np.log(fuse_product(p, a, mask)[range(200), y]).mean()
    a = learn_pool(p, y, mask)
    for b in [np.ones(3), *(a * rng.uniform(0.7, 1.4, 3) for _ in range(30))]:
        assert score(b) <= score(a) + 1e-9


@pytest.mark.parametrize("T", [0.4, 1.0, 2.5])
def test_one_model_pool_is_temperature_scaling(T):
    "Labels are drawn from the model's own probabilities; sharpened or flattened by T, the power brings them back."
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(4), 20_000)
    y = (rng.random(20_000)[:, None] > p.cumsum(1)).sum(1).clip(max=3)
    said = temper(p[None], [T])
    a = learn_powers(said, y)
    assert abs(a[0] * T - 1) < 0.05
    close(a, learn_pool(said, y), 1e-9)
    close(temper(said, [1 / T])[0], p, 2e-5)  # the floor under tiny probabilities


@given(shapes)
@many
def test_tempering_keeps_the_order_and_1_changes_nothing(s):
    p, w, _, _, _ = made(**s | {"sharp": 1.0})
    names = list("abcde")[: len(p)]
    close(temper(p, np.ones(len(p))), p, 1e-9)
    q = temper(dict(zip(names, p)), dict(zip(names, w)))
    assert list(q) == names and all(
        (q[k].argsort(1) == x.argsort(1)).all() for k, x in zip(names, p)
    )
    close(
        fuse_product(q), fuse_product(p, w), 1e-7
    )  # calibrate, then multiply: exponents


def test_a_pool_sees_through_copies():
    p, y = skilled(np.random.default_rng(0), 2, 2000)
    a, b = learn_pool(p, y), learn_pool(p[[0, 0, 0, 1]], y)
    close([b[:3].sum(), b[3]], a, 1e-3)


def test_a_model_that_is_always_right_has_a_finite_exponent():
    y = np.arange(20) % 4
    assert 1 <= learn_pool((0.2 / 4 + 0.8 * np.eye(4)[y])[None], y)[0] <= 20


# --- the field's libraries


class Lookup(ClassifierMixin, BaseEstimator):
    "An estimator whose features are row numbers."

    def __init__(self, p=None):
        self.p = p

    def fit(self, X, y):
        self.classes_ = np.arange(self.p.shape[1])
        return self

    def predict_proba(self, X):
        return self.p[X[:, 0]]

    def predict(self, X):
        return self.predict_proba(X).argmax(1)


@pytest.mark.parametrize("seed", range(5))
def test_equals_sklearns_voting(seed):
    rng = np.random.default_rng(seed)
    m, c = rng.integers(1, 5), rng.integers(2, 7)
    p, w = rng.dirichlet(np.ones(c), (m, 60)), rng.uniform(0.1, 2, m)
    X, y = np.arange(60)[:, None], np.arange(60) % c
    parts = [(f"m{i}", Lookup(q)) for i, q in enumerate(p)]
    close(
        VotingClassifier(parts, voting="soft", weights=w).fit(X, y).predict_proba(X),
        fuse_weighted(p, w),
        1e-12,
    )
    for weights in (w, None):
        np.testing.assert_array_equal(
            VotingClassifier(parts, voting="hard", weights=weights)
            .fit(X, y)
            .predict(X),
            vote(p, weights).argmax(1),
        )


@pytest.mark.parametrize("seed", range(3))
def test_equals_sklearns_stacking(seed):
    p, y = skilled(np.random.default_rng(seed), 3, 200, 4)
    centred = FunctionTransformer(
        lambda x: (
            np.log(x).reshape(len(x), 3, 4)
            - np.log(x).reshape(len(x), 3, 4).mean(2, keepdims=True)
        ).reshape(len(x), 12)
    )
    X = np.arange(200)[:, None]
    ref = StackingClassifier(
        [(f"m{i}", Lookup(q).fit(X, y)) for i, q in enumerate(p)],
        make_pipeline(centred, LogisticRegression(C=0.1, max_iter=2000)),
        cv="prefit",
        stack_method="predict_proba",
    ).fit(X[:150], y[:150])
    ours = stack(p[:, :150], y[:150], strengths=(0.1,))
    close(ours(p[:, 150:]), ref.predict_proba(X[150:]), 1e-4)


def test_stacking_learns_what_no_pool_can():
    "Model b says the class after the right one: a pool of any exponents is misled."
    rng = np.random.default_rng(0)
    p, y = skilled(rng, 2, 600, 4)
    p[1] = np.roll(p[1], 1, 1)
    s = stack(p[:, :300], y[:300])
    right = lambda q: (q.argmax(1) == y[300:]).mean()
    assert (
        right(s(p[:, 300:]))
        > right(fuse_product(p[:, 300:], learn_pool(p[:, :300], y[:300]))) + 0.05
    )


def test_stacking_with_holes_and_unseen_classes():
    p, y = skilled(np.random.default_rng(0), 3, 200, 5)
    keep = y < 4  # class 4 never comes in training
    named = dict(zip("abc", p[:, keep]))
    mask = {"b": np.arange(keep.sum()) % 2 == 0}
    s = stack(named, y[keep], mask)
    q = s({"c": p[2], "a": p[0]})  # another order, one absent
    close(q, s({"a": p[0], "b": None, "c": p[2]}), 0)
    close(q, s({"a": p[0], "b": p[1], "c": p[2]}, {"b": np.zeros(200, bool)}), 0)
    close(q.sum(1), 1)
    assert q.shape == (200, 5) and (q[:, 4] == 0).all()
    with pytest.raises(ValueError, match="probs: expected some of the models"):
        s({"d": p[0]})
    with pytest.raises(ValueError, match="expected 5 classes, got 4"):
        s({"a": p[0][:, :4] / p[0][:, :4].sum(1, keepdims=True)})


def test_stacking_chooses_its_penalty_on_held_out_examples():
    rng = np.random.default_rng(0)
    p, y = skilled(rng, 3, 150, 5, skill=0.3)
    assert (
        stack(p, y, strengths=(1e-4, 100.0)).strength == 1e-4
    )  # hardly anything can be learnt here


# --- clusters


def brute(
    p, k
):  # (M, C): the best value over all labellings with at most k labels, cluster means averaged
    best, outs = np.inf, []
    for g in itertools.product(range(k), repeat=len(p)):
        parts = [p[np.array(g) == j] for j in set(g)]
        inertia = sum(((q - q.mean(0)) ** 2).sum() for q in parts)
        out = np.mean([q.mean(0) for q in parts], 0)
        if inertia < best - 1e-9:
            best, outs = inertia, []
        if inertia < best + 1e-9:
            outs.append((len(parts), out))
    return best, outs


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31 - 1))
@settings(max_examples=40, deadline=None)
def test_clusters_equal_brute_force(m, k, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(4), (m, 2))
    for n in range(2):
        fewest = min(len_ for len_, _ in brute(p[:, n], k)[1])
        close(
            fuse_clusters(p, k)[n],
            next(o for l, o in brute(p[:, n], k)[1] if l == fewest),
        )


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_finds_nothing_better(seed):
    p = np.random.default_rng(seed).dirichlet(np.full(5, 0.7), (6, 15))
    for n in range(15):
        ref = KMeans(3, n_init=20, random_state=0).fit(p[:, n])
        groups = partitions(6, 3)
        saved = D._scores(groups, (p[:, n] @ p[:, n].T)[None])[0]
        ours = (p[:, n] ** 2).sum() - saved.max()
        assert ours <= ref.inertia_ + 1e-9
        if ref.inertia_ - ours < 1e-9:
            close(
                fuse_clusters(p[:, n : n + 1], 3)[0],
                np.mean([p[ref.labels_ == g, n].mean(0) for g in range(3)], 0),
                1e-6,
            )


def distinct(
    p,
):  # no two models so near on any example that they count as copies: apart by more than the 1e-9 in squares under which partitions are equally good
    apart = ((p[:, None] - p[None]) ** 2).sum(3)  # (M, M, N)
    return (apart[~np.eye(len(p), dtype=bool)] > 1e-8).all()


def test_near_copies_count_as_copies():
    p = np.array([[0.7, 0.3], [0.7 + 1e-5, 0.3 - 1e-5], [0.2, 0.8]])[:, None]
    for k in (2, 3):
        close(fuse_clusters(p, k), (p[:2].mean(0) + p[2]) / 2, 1e-12)
    p[1] = p[0] + [1e-3, -1e-3]
    close(fuse_clusters(p, 3), fuse_weighted(p), 1e-12)


@given(shapes)
@example(
    {"m": 4, "n": 2, "c": 2, "sharp": 1.0, "seed": 177560}
)  # two models 2e-5 apart
@many
def test_ends_of_clustering(s):
    p, _, _, _, _ = made(**s | {"sharp": 1.0})
    assume(distinct(p))
    for k in (1, len(p), len(p) + 3):
        close(fuse_clusters(p, k), fuse_weighted(p), 1e-7)


@given(shapes, st.integers(1, 3))
@many
def test_copies_count_once_if_there_are_clusters_enough(s, copies):
    p, _, _, _, _ = made(**s | {"m": 3, "sharp": 1.0})
    assume(distinct(p))
    for k in (3, 4, 9):
        close(
            fuse_clusters(np.concatenate([p, *[p[:1]] * copies]), k),
            fuse_weighted(p),
            1e-7,
        )


def test_weighted_by_size_it_is_the_average():
    p = np.random.default_rng(0).dirichlet(np.ones(4), (5, 1))
    for g in partitions(5, 3):
        close(
            sum((g == j).sum() / 5 * p[g == j, 0].mean(0) for j in set(g)),
            p[:, 0].mean(0),
            1e-12,
        )


def test_of_equally_good_partitions_the_mean():
    p = np.eye(3)[
        :, None
    ]  # three models, each sure of another class: any two may pair up
    close(fuse_clusters(p, 2), 1 / 3)


def test_partitions_are_all_and_each_once():
    bell = {1: 1, 2: 2, 3: 5, 4: 15, 5: 52, 6: 203}
    for m, b in bell.items():
        for k in range(1, m + 2):
            g = partitions(m, k)
            assert (
                len(g) == n_partitions(m, k) == len({tuple(x) for x in g})
                and g.max() < k
                and (g[:, 0] == 0).all()
            )
            assert (np.maximum.accumulate(g, 1)[:, :-1] + 1 >= g[:, 1:]).all() and (
                np.diff(g.max(1)) >= 0
            ).all()
        assert n_partitions(m, m) == b
    assert n_partitions(9, 3) == 3281 and n_partitions(5, 2) == 16


@pytest.mark.parametrize("seed", range(3))
def test_models_of_a_kind_are_grouped(seed):
    rng = np.random.default_rng(seed)
    base, y = skilled(rng, 3, 200)
    p = temper(base[[0, 1, 0, 2, 0]], np.ones(5)) * 0.95 + 0.05 * rng.dirichlet(
        np.ones(5), (5, 200)
    )
    g = cluster_models(dict(zip("abcde", p)), 3)
    assert g["a"] == g["c"] == g["e"] and len(set(g.values())) == 3
    w = group_weights(g)
    close([w["a"], w["c"], w["e"], w["b"], w["d"]], [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 3])
    close(group_weights(cluster_models(p, 3)), list(w.values()))


def test_a_crowd_no_longer_outvotes():
    rng = np.random.default_rng(0)
    p, y = skilled(rng, 3, 2000)
    bad, _ = skilled(rng, 1, 2000)  # says something, but not about these labels
    crowd = np.concatenate([np.repeat(bad, 4, 0), p])
    right = lambda q: (q.argmax(1) == y).mean()
    assert right(fuse_clusters(crowd, 4)) > right(fuse_weighted(crowd)) + 0.1


def test_and_agreement_is_punished():
    p = np.array(
        [[[0.7, 0.3, 0]], [[0.7, 0.3, 0]], [[0.1, 0.9, 0]]]
    )  # two of three say class 0
    assert fuse_weighted(p)[0].argmax() == 0 and fuse_clusters(p, 2)[0].argmax() == 1


# --- what a caller can get wrong

P = np.full((4, 3), 1 / 3)
BAD = {
    "labels": (np.array([1, 2, 0, 1]), ValueError, "labels cannot be averaged"),
    "three axes": (P[None], ValueError, "expected (N, classes)"),
    "no rows": (P[:0], ValueError, "expected (N, classes)"),
    "no classes": (P[:, :0], ValueError, "expected (N, classes)"),
    "sums": (2 * P, ValueError, "add up to 1"),
    "negative": (P * [3, 3, -3], ValueError, "add up to 1"),
    "nan": (P * np.nan, ValueError, "add up to 1"),
    "inf": (P * np.inf, ValueError, "add up to 1"),
    "text": ("seven", (TypeError, ValueError), "expected"),
    "texts": (np.array([["a", "b"]] * 4), TypeError, "expected (N, classes)"),
    "complex": (P * 1j, TypeError, "expected (N, classes)"),
    "ragged": ([[0.5, 0.5], [1.0]], ValueError, "equal length"),
    "a number": (0.5, (TypeError, ValueError), "expected"),
    "an object": (object(), (TypeError, ValueError), "expected"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", FUSIONS)
def test_no_probabilities(name, bad):
    p, error, says = BAD[bad]
    for order in ({"image": p, "text": P}, {"text": P, "image": p}):
        with pytest.raises(error, match="image") as e:
            FUSIONS[name](order)
        assert says in str(e.value)


@pytest.mark.parametrize("name", FUSIONS)
def test_no_predictions_of_one_shape(name):
    fuse = FUSIONS[name]
    for p in ({"a": P, "b": P[:3]}, {"a": P, "b": np.full((4, 2), 0.5)}):
        with pytest.raises(ValueError, match="expected one shape"):
            fuse(p)
    for p in ({}, {"a": None}, [], [None, None]):
        with pytest.raises(
            ValueError, match="probs: expected the predictions of one model at least"
        ):
            fuse(p)
    for p in (None, 3, "text", 1.5):
        with pytest.raises(TypeError, match="probs: expected a dict"):
            fuse(p)
    with pytest.raises(ValueError, match=r"probs\[0\]: expected \(N, classes\)"):
        fuse(P)  # one model's, without its axis
    with pytest.raises(ValueError, match=r"probs\[1\]"):
        fuse([P, 2 * P])


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize(
    "w",
    [
        [1, 2],
        [1, 2, 3, 4],
        [1, -1, 1],
        [np.nan, 1, 1],
        [np.inf, 1, 1],
        ["a", "b", "c"],
        "abc",
        [[1, 2, 3]],
        1.0,
        {"a": 1, "b": 1},
        object(),
    ],
)
def test_bad_weights(name, w):
    with pytest.raises((TypeError, ValueError), match="weights"):
        WEIGHTED[name](dict(zip("abc", [P] * 3)), w)


def test_weights_all_zero():
    for fuse in (fuse_weighted, vote):
        with pytest.raises(
            ValueError, match="weights: expected 3 numbers from 0, not all 0"
        ):
            fuse([P] * 3, [0, 0, 0])
    close(fuse_product([P * [2.4, 0.3, 0.3]] * 3, [0, 0, 0]), 1 / 3)


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize(
    "mask",
    [
        {"a": [True] * 3},
        {"a": [1, 0, 1, 1]},
        {"a": [1.0, 0, 1, 1]},
        {"b": [[True] * 4]},
        {"a": "yes!"},
        {"a": True},
        np.ones((3, 4), bool),
        np.ones((2, 4)),
        [True] * 2,
    ],
)
def test_bad_mask(name, mask):
    with pytest.raises((TypeError, ValueError), match="mask"):
        FUSIONS[name]({"a": P, "b": P}, None, mask)


@pytest.mark.parametrize(
    "prior",
    [
        [0.5, 0.5],
        [1.0, 0, 0],
        [0.5, 0.5, 0.5],
        [np.nan, 0.5, 0.5],
        "abc",
        [0.6, 0.6, -0.2],
        [[1 / 3] * 3],
    ],
)
def test_bad_prior(prior):
    with pytest.raises((TypeError, ValueError), match="prior"):
        fuse_product([P], prior=prior)


@pytest.mark.parametrize(
    "learn",
    [
        learn_weights,
        learn_mixture,
        learn_pool,
        learn_powers,
        stack,
        ambiguity,
        truth_correlation,
        predict_accuracy,
        lambda p, y: shuffle_within(p, y, np.random.default_rng(0)),
    ],
)
@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 2],
        [0, 1, 2, 3],
        [-1, 0, 1, 2],
        [0.0, 1, 2, 0],
        ["a", "b", "c", "a"],
        [[0, 1, 2, 0]],
        [],
        None,
        [0, 1, np.nan, 2],
    ],
)
def test_bad_labels(learn, y):
    with pytest.raises((TypeError, ValueError), match="labels"):
        learn(np.random.default_rng(0).dirichlet(np.ones(3), (2, 4)), y)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None, "2"])
def test_bad_k(k):
    for f in (fuse_clusters, cluster_models):
        with pytest.raises(ValueError, match="k: expected a whole number from 1"):
            f([P, P], k)


def test_too_many_models_to_cluster():
    for f in (fuse_clusters, cluster_models):
        with pytest.raises(
            ValueError, match="12 models fall into at most 4 clusters in 700,075 ways"
        ):
            f([P] * 12, 4)
    with pytest.raises(ValueError, match=r"None for \['b'\]"):
        cluster_models({"a": P, "b": None}, 2)


def test_other_bad_input():
    for bad in ((0, 5), (3, 0), (30, 30)):
        with pytest.raises(ValueError, match="m, steps"):
            simplex(*bad)
    for R in (
        np.ones((2, 3)),
        np.eye(2) * 2,
        [[1, 0.5], [0.2, 1]],
        [[1, 2], [2, 1]],
        np.ones(3),
    ):
        with pytest.raises(ValueError, match="correlation"):
            effective_number(R)
    with pytest.raises(ValueError, match="correlation"):
        effective_number([[1, np.nan], [np.nan, 1]])
    with pytest.raises(ValueError, match="deviations"):
        truth_correlation([P, P], [0, 1, 2, 0])
    with pytest.raises(ValueError, match="two models or more"):
        truth_correlation(
            np.random.default_rng(0).dirichlet(np.ones(3), (1, 4)), [0, 1, 2, 0]
        )
    with pytest.raises(ValueError, match="two classes and 10 examples"):
        stack([P], [0, 1, 2, 0])
    with pytest.raises(ValueError, match="groups"):
        group_weights([])
    with pytest.raises(ValueError, match="powers|weights"):
        temper([P], [1, 2])


def test_arguments_are_left_as_they_were():
    p, w, mask, y, _ = made(3, 40, 4, 1.0, 0)
    before = [x.copy() for x in (p, w, mask, y)]
    for fuse in FUSIONS.values():
        fuse(p, w, mask)
    for learn in (learn_weights, learn_mixture, learn_pool, learn_powers, stack):
        learn(p, y, mask)
    for a, b in zip(before, (p, w, mask, y)):
        np.testing.assert_array_equal(a, b)


def test_the_article():
    "4.3.4, its backslashes away and its labels made probabilities."
    with pytest.raises(SyntaxError):
        compile(r"f = 0.3 \* a", "article", "exec")
    text, image, audio = np.random.default_rng(0).dirichlet(np.ones(10), (3, 7))
    close(
        fuse_weighted({"text": text, "image": image, "audio": audio}, D.ARTICLE),
        0.3 * text + 0.5 * image + 0.2 * audio,
        1e-12,
    )
