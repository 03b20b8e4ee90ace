"Fusions against scikit-learn, SciPy and brute force; laws of pools; what is learnt."

import itertools
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression

from mmcourse.decision_fusion import (
    ARTICLE,
    FLOOR,
    centred_logs,
    cluster_models,
    effective_number,
    fuse_clusters,
    fuse_product,
    fuse_weighted,
    group_weights,
    learn_pool,
    learn_powers,
    learn_weights,
    logs,
    mean_of,
    normalise_logs,
    pool_score,
    simplex,
    stack,
    temper,
    truth_correlation,
    vote,
)
from mmcourse.opinions import (
    cluster_shares,
    partitions,
    shuffle_within,
    squares_saved,
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
some = settings(max_examples=30, deadline=None)


def made(m, n, c, sharp, seed):
    "Probabilities (m, n, c), weights (m,), a mask (m, n), labels (n,), a generator."
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(c, sharp), (m, n))
    mask = rng.random((m, n)) < 0.7
    return p, rng.uniform(0.1, 3, m), mask, rng.integers(c, size=n), rng


def skilled(rng, m=3, n=300, c=5, skill=2.0, noise=1.5):
    "Models that know something: logits that favour the truth, in noise of their own."
    y = rng.integers(c, size=n)
    l = skill * np.eye(c)[y] + noise * rng.standard_normal((m, n, c))
    return np.exp(log_softmax(l, -1)), y


def two_clusters(p, weights=None, mask=None):
    return fuse_clusters(p, 2, mask)


def close(a, b, atol=1e-10):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


FUSIONS = [fuse_weighted, fuse_product, vote, two_clusters]
every = pytest.mark.parametrize("fuse", FUSIONS)


# laws of all fusions
@every
@given(shapes)
@some
def test_laws(fuse, s):
    p, w, mask, _, rng = made(**s)
    fused = fuse(p, w, mask)
    assert fused.shape == p.shape[1:] and fused.min() >= 0
    close(fused.sum(1), 1)
    order = rng.permutation(len(p))
    close(fuse(p[order], w[order], mask[order]), fused)  # the order of models
    for n in range(p.shape[1]):  # a batch is its rows, and what is not there is not
        k = mask[:, n]
        alone = fuse(p[k, n : n + 1], w[k])[0] if k.any() else 1 / p.shape[2]
        close(fused[n], alone)
    close(fuse(np.where(mask[..., None], p, np.nan), w, mask), fused)
    names = "abcde"[: len(p)]
    named = [dict(zip(names, x)) for x in (p, w, mask)]
    close(fuse(*named), fused)
    close(fuse({"none": None} | named[0], {"none": 5} | named[1], named[2]), fused)


@pytest.mark.parametrize("fuse", [fuse_weighted, fuse_product, two_clusters])
def test_one_model_alone_is_itself(fuse):
    p = made(1, 5, 4, 1.0, 0)[0]
    close(fuse(p), p[0])


# the average and the vote
def test_average_is_the_articles_line():
    p = made(3, 7, 10, 1.0, 0)[0]
    named = dict(zip(("text", "image", "audio"), p))
    assert ARTICLE == {"text": 0.3, "image": 0.5, "audio": 0.2}
    close(fuse_weighted(named, ARTICLE), 0.3 * p[0] + 0.5 * p[1] + 0.2 * p[2])
    without = named | {"image": None}
    close(fuse_weighted(without, ARTICLE), 0.6 * p[0] + 0.4 * p[2])
    close(fuse_weighted(p, [6, 10, 4]), fuse_weighted(named, ARTICLE))


def test_of_nothing_all_classes_alike():
    p = made(2, 3, 4, 1.0, 0)[0]
    for fuse in FUSIONS:
        close(fuse(p, None, np.zeros((2, 3), bool)), np.full((3, 4), 0.25))
    close(mean_of(p, np.zeros((2, 3))), 0.25 * np.ones((3, 4)))


class Lookup(ClassifierMixin, BaseEstimator):
    "An estimator whose features are row numbers of what it says."

    def __init__(self, p=None):
        self.p = p

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return self.p[X[:, 0]]

    def predict(self, X):
        return self.predict_proba(X).argmax(1)


def test_average_and_vote_are_scikit_learns():
    p, y = skilled(np.random.default_rng(0))
    rows, w = np.arange(len(y))[:, None], [0.3, 0.5, 0.25]
    parts = [(str(i), Lookup(q)) for i, q in enumerate(p)]
    soft = VotingClassifier(parts, voting="soft", weights=w).fit(rows, y)
    hard = VotingClassifier(parts, voting="hard", weights=w).fit(rows, y)
    close(soft.predict_proba(rows), fuse_weighted(p, w))
    assert (hard.predict(rows) == vote(p, w).argmax(1)).all()
    close(vote(p[:, :1], w)[0].sum(), 1)


def test_vote_by_hand():
    p = [[[0.6, 0.4]], [[0.1, 0.9]], [[0.3, 0.7]]]
    close(vote(p), [[1 / 3, 2 / 3]])
    close(vote(p, [2, 1, 0]), [[2 / 3, 1 / 3]])


# the product
@given(shapes)
@some
def test_product_is_bayes_rule(s):
    "Views drawn from tables p(x|c): the product of posteriors is that of all."
    rng = made(**s)[-1]
    prior = rng.dirichlet(np.full(s["c"], 5.0))
    tables = rng.dirichlet(np.full(4, 2.0), (s["m"], s["c"]))
    x = rng.integers(4, size=(s["m"], s["n"]))
    likelihood = np.stack([t[:, i].T for t, i in zip(tables, x)])
    joint = prior * likelihood
    single = joint / joint.sum(-1, keepdims=True)
    exact = prior * likelihood.prod(0)
    exact /= exact.sum(-1, keepdims=True)
    close(fuse_product(single, prior=prior), exact, 1e-6)
    close(fuse_product(single, mask=np.zeros(x.shape), prior=prior)[0], prior)


def test_product_by_hand():
    p = np.array([[[0.5, 0.5]], [[0.8, 0.2]]])
    close(fuse_product(p), [[0.8, 0.2]])
    close(fuse_product(p, [1, 2]), [[16 / 17, 1 / 17]])
    close(fuse_product(p, [3, 0]), [[0.5, 0.5]])
    rain = fuse_product([[[0.3, 0.7]]] * 2, prior=[0.1, 0.9])
    odds = 1 / 9 * ((3 / 7) / (1 / 9)) ** 2
    close(rain[0, 0], odds / (1 + odds))


def test_product_survives_sure_opponents():
    p = np.array([[[1.0, 0]], [[0, 1.0]]])
    close(fuse_product(p, [20, 20]), [[0.5, 0.5]])
    assert logs(np.zeros(1)) == np.log(FLOOR) and np.isfinite(fuse_product(p)).all()


def test_prior_is_looked_at():
    p = made(2, 3, 4, 1.0, 0)[0]
    for wrong in ([0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [-1, 1, 0.5, 0.5]):
        with pytest.raises(ValueError, match="prior"):
            fuse_product(p, prior=wrong)


def test_exponents_that_add_up_to_one_are_externally_bayesian():
    "News before pooling is news after pooling [Genest 1984]; not so for the mean."
    p, w, _, _, rng = made(3, 6, 4, 1.0, 0)
    w, news = w / w.sum(), rng.random(4)

    def update(q):
        return q * news / (q * news).sum(-1, keepdims=True)

    close(fuse_product(update(p), w), update(fuse_product(p, w)), 1e-9)
    assert abs(fuse_weighted(update(p), w) - update(fuse_weighted(p, w))).max() > 0.01


@given(shapes)
@some
def test_logs_are_normalised_as_scipys(s):
    l = 900 * made(**s)[-1].standard_normal((2, s["n"], s["c"]))
    close(normalise_logs(l), log_softmax(l, -1), 1e-9)


# learning weights
@pytest.mark.parametrize("m, steps", [(1, 3), (2, 4), (3, 20), (4, 5)])
def test_simplex_is_complete(m, steps):
    grid = simplex(m, steps)
    assert grid.shape == (comb(steps + m - 1, m - 1), m) and grid.min() >= 0
    close(grid.sum(1), 1)
    close(grid * steps, np.rint(grid * steps))
    assert len(np.unique(grid.round(9), axis=0)) == len(grid)


@pytest.mark.parametrize("seed", range(3))
def test_no_weights_of_the_grid_are_better(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, n=120)
    mask = rng.random((3, 120)) < 0.7
    for k in (None, mask):
        right = [(fuse_weighted(p, w, k).argmax(1) == y).sum() for w in simplex(3, 10)]
        w = learn_weights(p, y, k, steps=10)
        assert (fuse_weighted(p, w, k).argmax(1) == y).sum() == max(right)
        close(w.sum(), 1)


def test_of_equally_good_weights_the_middle():
    p = np.array([[[0.9, 0.1]], [[0.8, 0.2]]])  # all weights are right
    close(learn_weights(p, [0], steps=4), [0.5, 0.5])


def test_the_usual_grid_has_steps_of_a_twentieth():
    p, y = skilled(np.random.default_rng(0))
    w = learn_weights(p, y)
    close(w, learn_weights(p, y, steps=20))
    close(20 * w, np.rint(20 * w))


LEARN = [learn_weights, learn_pool, learn_powers]


@pytest.mark.parametrize("learn", LEARN)
def test_learnt_numbers_have_names_and_absent_models_have_none(learn):
    p, y = skilled(np.random.default_rng(1), n=80)
    w = learn({"a": p[0], "b": None, "c": p[2]}, y)
    assert list(w) == ["a", "b", "c"] and w["b"] == 0 and w["a"] > 0
    close(learn(p[[0, 2]], y), [w["a"], w["c"]], 1e-5)


@pytest.mark.parametrize("learn", [*LEARN, stack, truth_correlation])
def test_labels_are_looked_at(learn):
    p = skilled(np.random.default_rng(1), n=80)[0]
    for wrong in (np.zeros(79, int), np.full(80, 5), np.full(80, 0.5)):
        with pytest.raises((ValueError, TypeError), match="labels"):
            learn(p, wrong)


# pools
@pytest.mark.parametrize("seed", range(3))
def test_slope_is_autograds(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng, n=50)
    a = torch.tensor(rng.uniform(0, 2, 3), requires_grad=True)
    l = torch.einsum("m,mnc->nc", a, torch.tensor(logs(p)))
    score = -torch.nn.functional.cross_entropy(l, torch.tensor(y))
    score.backward()
    ours, slope = pool_score(a.detach().numpy(), logs(p), y)
    close(ours, score.item())
    close(slope, a.grad.numpy())


@pytest.mark.parametrize("seed", range(3))
def test_pool_is_on_top_of_its_hill(seed):
    rng = np.random.default_rng(seed)
    p, y = skilled(rng)
    mask = rng.random((3, 300)) < 0.7
    for k in (None, mask):
        log_p = logs(p) * (1 if k is None else k[..., None])
        a = learn_pool(p, y, k)
        assert abs(pool_score(a, log_p, y)[1]).max() < 1e-4
        fused = np.log(fuse_product(p, a, k)[range(300), y]).mean()
        close(fused, pool_score(a, log_p, y)[0], 1e-9)


def test_pool_has_an_end():
    p = np.array([[[0.52, 0.48], [0.49, 0.51]]])
    close(learn_pool(p, [0, 1]), [20.0])
    close(learn_pool(p, [0, 1], largest=3.0), [3.0])


@pytest.mark.parametrize("T", [0.5, 2.0])
def test_a_power_takes_a_temperature_back(T):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 20_000)
    y = (rng.random(20_000)[:, None] > p.cumsum(1)).sum(1)  # p says the truth
    said = temper([p], [1 / T])
    close(learn_powers(said, y), [T], 0.05 * T)
    close(temper(said, [T])[0], p, 1e-6)


def test_each_power_is_learnt_alone_where_the_model_is_there():
    rng = np.random.default_rng(2)
    p, y = skilled(rng, n=200)
    mask = rng.random((3, 200)) < 0.6
    for m, power in enumerate(learn_powers(p, y, mask)):
        k = mask[m]
        close(power, learn_pool(p[m : m + 1, k], y[k])[0], 1e-6)


def test_tempering_keeps_form_and_order():
    p = made(2, 6, 5, 1.0, 0)[0]
    named = {"a": p[0], "none": None, "b": p[1]}
    out = temper(named, {"a": 0.5, "none": 0, "b": 2})
    assert list(out) == ["a", "none", "b"] and out["none"] is None
    close(out["a"], np.sqrt(p[0]) / np.sqrt(p[0]).sum(1, keepdims=True))
    assert (out["b"].argsort(1) == p[1].argsort(1)).all()
    close(temper(p, [1, 1]), p)


# what models have in common
def test_correlation_is_of_the_truths_probability():
    p, y = skilled(np.random.default_rng(3))
    by_hand = [[row[c] for row, c in zip(q, y)] for q in p]
    close(truth_correlation(p, y), np.corrcoef(by_hand))


def test_effective_number_of_copies_and_of_strangers():
    close(effective_number(np.ones((4, 4))), 1)
    close(effective_number(np.eye(4)), 4)
    close(effective_number(0.5 * np.ones((3, 3)) + 0.5 * np.eye(3)), 1.5)


def test_shuffling_keeps_what_a_model_says_of_a_class():
    rng = np.random.default_rng(0)
    p, y = skilled(rng, m=2, n=4000)
    p[1] = p[0]  # a copy
    mixed = shuffle_within(p, y, rng)
    for c in range(5):
        for new, old in zip(mixed[:, y == c], p[:, y == c]):
            close(np.sort(new, 0), np.sort(old, 0))
    assert abs(truth_correlation(mixed, y)[0, 1]) < 0.1
    assert truth_correlation(p, y)[0, 1] > 0.999


# stacking
def test_stacking_is_scikit_learns_on_the_same_logarithms():
    p, y = skilled(np.random.default_rng(0), m=2, n=200)
    l = np.log(p)
    x = (l - l.mean(2, keepdims=True)).swapaxes(0, 1).reshape(200, -1)
    close(centred_logs(p), x)
    ref = LogisticRegression(C=0.1, max_iter=2000).fit(x, y)
    close(stack(p, y, strengths=(0.1,))(p), ref.predict_proba(x), 1e-4)


def test_stacking_chooses_by_examples_that_it_has_not_seen():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), (3, 60))  # nothing to learn: the tighter the better
    y = np.arange(60) % 4
    assert stack(p, y, strengths=(1e-4, 100.0)).net.C == 1e-4


@pytest.mark.parametrize(
    ("skill", "noise", "best"), [(0.5, 2, 0.01), (2, 1.5, 0.1), (3, 0.5, 1.0)]
)
def test_stacking_is_freer_where_there_is_more_to_learn(skill, noise, best):
    p, y = skilled(np.random.default_rng(0), skill=skill, noise=noise)
    strength = stack(p, y).net.C
    assert strength == best


def test_a_rare_class_is_no_noise(recwarn):
    "One example of the last class: no fold can both learn it and judge it."
    p, y = skilled(np.random.default_rng(0), n=150, c=4)
    y = np.where(y == 3, 0, y)
    y[0] = 3
    fuse = stack(p, y)
    assert np.isfinite(fuse(p)).all() and fuse.net.classes_.tolist() == [0, 1, 2, 3]
    assert not recwarn.list
    with pytest.raises(ValueError, match="strengths: expected at least one input"):
        stack(p, y, strengths=())


def test_stacking_by_name_with_holes_and_unseen_classes():
    p, y = skilled(np.random.default_rng(0), n=150, c=4)
    p = np.concatenate([p, np.full((3, 150, 1), 1e-3)], 2) / 1.001
    named = dict(zip("abc", p))
    fuse = stack(named, y)
    out = fuse({"c": p[2], "a": p[0]})
    close(out, fuse({"a": p[0], "b": None, "c": p[2]}))
    close(out, fuse(named, mask={"b": np.zeros(150, bool)}))
    assert fuse.names == ["a", "b", "c"] and fuse.classes == 5
    assert out.shape == (150, 5) and (out[:, 4] == 0).all()
    close(out.sum(1), 1)


# clusters
def brute(p, k):  # (M, C): least squares within, fewest clusters, mean of the means
    best = []
    for row in partitions(len(p), k):
        parts = [p[row == g] for g in range(row.max() + 1)]
        within = sum(((q - q.mean(0)) ** 2).sum() for q in parts)
        best.append((within, len(parts), np.mean([q.mean(0) for q in parts], 0)))
    least = min(w for w, _, _ in best)
    good = [(n, mean) for w, n, mean in best if w < least + 1e-9]
    fewest = min(n for n, _ in good)
    return np.mean([mean for n, mean in good if n == fewest], 0)


@given(shapes, st.integers(1, 5))
@some
def test_clusters_are_those_of_brute_force(s, k):
    p = made(**s)[0]
    for fused, q in zip(fuse_clusters(p, k), p.swapaxes(0, 1)):
        close(fused, brute(q, k), 1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_finds_nothing_better(seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(4), (6, 5))
    groups = partitions(6, 3)
    saved = squares_saved(groups, np.einsum("mnc,jnc->nmj", p, p))
    for n in range(5):
        ref = KMeans(3, n_init=20, random_state=0).fit(p[:, n])
        ours = (p[:, n] ** 2).sum() - saved[n].max()
        assert ours <= ref.inertia_ + 1e-9
        if ref.inertia_ < ours + 1e-9:
            means = [p[ref.labels_ == g, n].mean(0) for g in range(3)]
            close(fuse_clusters(p[:, n : n + 1], 3)[0], np.mean(means, 0), 1e-6)


def test_copies_count_once_and_agreement_is_punished():
    p = np.array([[[0.7, 0.3]], [[0.7, 0.3]], [[0.1, 0.9]]])
    close(fuse_clusters(p, 2), [[0.4, 0.6]])
    close(fuse_clusters(p, 9), [[0.4, 0.6]])
    close(cluster_shares(p, 2)[:, 0], [0.25, 0.25, 0.5])
    close(fuse_clusters(p, 1), p.mean(0))


def test_of_equally_good_partitions_the_mean():
    p = np.eye(3)[:, None]  # any two of the three are equally far apart
    close(fuse_clusters(p, 2), [[1 / 3] * 3])


def test_cluster_arguments_are_looked_at():
    p = made(2, 3, 4, 1.0, 0)[0]
    for wrong in (0, 1.5, True):
        with pytest.raises((ValueError, TypeError), match="k: expected"):
            fuse_clusters(p, wrong)
        with pytest.raises((ValueError, TypeError), match="k: expected"):
            cluster_models(p, wrong)
    for f in (fuse_clusters, cluster_models):
        with pytest.raises(ValueError, match="models: expected .* 9, got 10"):
            f(np.repeat(p, 5, 0), 2)
    close(fuse_clusters(np.repeat(p[:1], 9, 0), 2), p[0])  # nine are not too many
    assert cluster_models(np.repeat(p[:1], 9, 0), 1).tolist() == [0] * 9
    assert cluster_models(np.repeat(p[:1], 9, 0), 2).tolist() == [0] * 9
    assert cluster_models(p[:1], 1).tolist() == [0]  # nor is one too few


@pytest.mark.parametrize("seed", range(3))
def test_models_of_a_kind_are_grouped(seed):
    rng = np.random.default_rng(seed)
    p, _ = skilled(rng)
    near = 0.9 * p[:1] + 0.1 * rng.dirichlet(np.ones(5), 300)
    named = dict(zip("abcd", [p[0], p[1], near[0], p[2]]))
    groups = cluster_models(named, 3)
    assert groups == {"a": 0, "b": 1, "c": 0, "d": 2}
    assert cluster_models(np.stack([*named.values()]), 3).tolist() == [0, 1, 0, 2]
    weights = group_weights(groups)
    assert list(weights) == list("abcd")
    close(list(weights.values()), [1 / 6, 1 / 3, 1 / 6, 1 / 3])
    close(group_weights([4, 4, 4, 7]), [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_arguments_are_left_as_they_were():
    p, w, mask, y, _ = made(3, 40, 4, 1.0, 0)
    y = np.arange(40) % 4
    before = [x.copy() for x in (p, w, mask, y)]
    for fuse in FUSIONS:
        fuse(p, w, mask)
    for learn in (*LEARN, stack):
        learn(p, y, mask)
    shuffle_within(p, y, np.random.default_rng(0))
    for x, old in zip((p, w, mask, y), before):
        assert (x == old).all()


def test_a_pool_and_groups_see_through_a_crowd():
    "Four copies of a bad model outvote three good ones, unless somebody counts."
    rng = np.random.default_rng(0)
    p, y = skilled(rng, n=600, skill=1.2)
    bad, _ = skilled(rng, m=1, n=600)
    crowd = np.concatenate([p, np.repeat(bad, 4, 0)])

    def right(q):
        return (q.argmax(1) == y).mean()

    plain = right(fuse_weighted(crowd))
    grouped = group_weights(cluster_models(crowd, 4))
    assert right(fuse_weighted(crowd, grouped)) > plain + 0.1
    assert right(fuse_product(crowd, learn_pool(crowd, y))) > plain + 0.1
    pairs = itertools.combinations(range(3, 7), 2)
    assert all(grouped[i] == grouped[j] for i, j in pairs)
