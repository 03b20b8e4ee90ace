"Embeddings: scikit-learn, autograd, laws, and training on text whose answer is known."

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from torch.nn.functional import logsigmoid

from mmcourse.embedding import (
    SkipGram,
    adagrad_rows,
    analogy,
    bag,
    doc_vector,
    idf,
    keep_chance,
    nearest_words,
    negative_sampling_grad,
    negative_sampling_loss,
    neighbours,
    noise,
    pair_weights,
    pca,
    ppmi,
    sigmoid,
    skipgram_pairs,
    text_blocks,
    tf_idf,
    train_skipgram,
    unit,
    window_grad,
)


def close(a, b, tol=1e-12):
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# documents
def test_document_by_hand():
    vectors = {"a": [1, 0], "b": np.array([0.5, 2]), "c": [9, 9]}
    weights = {"a": 2, "b": 1.0, "d": 5}
    close(doc_vector(["a", "b", "a", "c", "d"], weights, vectors), [4.5, 2])
    assert doc_vector(["c", "x"], weights, vectors).tolist() == [0, 0]


def test_document_is_weighted_counts(rng):
    words = list("abcde")
    e, w, row = rng.standard_normal((5, 3)), rng.random(5), [0, 3, 3, 4]
    tokens = [words[i] for i in row]
    ours = doc_vector(tokens, dict(zip(words, w)), dict(zip(words, e)))
    close(ours, bag([row], 5)[0] @ (w[:, None] * e))


def test_bag_by_hand():
    assert bag([[0, 2, 0], []], 4).tolist() == [[2, 0, 1, 0], [0, 0, 0, 0]]


def test_tf_idf_is_scikit_learns(rng):
    for _ in range(20):
        draws = [rng.integers(0, 8, rng.integers(1, 20)) for _ in range(6)]
        texts = [" ".join("abcdefgh"[i] for i in draw) for draw in draws]
        theirs = TfidfVectorizer(token_pattern=r"\S+").fit(texts)
        place = theirs.vocabulary_
        counts = bag([[place[w] for w in t.split()] for t in texts], len(place))
        close(idf(counts), theirs.idf_)
        close(tf_idf(counts, idf(counts)), theirs.transform(texts).toarray())
        new = theirs.transform(["a h x"]).toarray()  # words it has not met
        known = [place[w] for w in "ah" if w in place]
        close(tf_idf(bag([known], len(place)), idf(counts)), new)


def test_unit():
    assert unit(np.array([[3.0, 4], [0, 0]])).tolist() == [[0.6, 0.8], [0, 0]]
    assert unit(np.array([-5.0])).tolist() == [-1]


# pairs
@pytest.mark.parametrize("window", [1, 2, 5, 12])
@pytest.mark.parametrize("row", [[], [3], [0, 1, 0, 2, 4, 4, 1]])
def test_pairs_are_all_neighbours(row, window):
    c, o = skipgram_pairs(row, window)
    wanted = [
        (a, b)
        for i, a in enumerate(row)
        for j, b in enumerate(row)
        if 0 < abs(i - j) <= window
    ]
    assert sorted(zip(c.tolist(), o.tolist())) == sorted(wanted)


def test_the_nearest_pairs_come_first():
    c, o = skipgram_pairs(range(4), 2)
    assert abs(c - o).tolist() == [1] * 6 + [2] * 4


def test_noise_and_keeping_by_hand():
    close(noise([1, 16, 0]), [1 / 9, 8 / 9, 0])
    close(noise([1, 3], power=1), [0.25, 0.75])
    close(keep_chance([4, 96], 1e-4), [0.05, (1e-4 / 0.96) ** 0.5])
    assert keep_chance([1, 1], 1).tolist() == [1, 1]
    assert keep_chance([0, 1])[0] == 1


# gradients
def test_sigmoid_without_overflow():
    close(sigmoid(np.array([0, np.log(3)])), [0.5, 0.75])
    assert sigmoid(np.array([-1e4, 1e4])).tolist() == [0, 1]


@pytest.mark.parametrize("scale", [0.1, 1, 30])
@pytest.mark.parametrize("B, K, d", [(1, 1, 1), (4, 5, 3), (3, 2, 6)])
def test_loss_and_gradient_are_autograds(rng, B, K, d, scale):
    arrays = [scale * rng.standard_normal(s) for s in ((B, d), (B, d), (B, K, d))]
    v, u, z = (torch.tensor(a, requires_grad=True) for a in arrays)
    no = torch.einsum("bd,bkd->bk", v, z)
    loss = -(logsigmoid((v * u).sum(1)) + logsigmoid(-no).sum(1)).mean()
    loss.backward()
    close(negative_sampling_loss(*arrays), loss.item(), 1e-10)
    for grad, leaf in zip(negative_sampling_grad(*arrays), (v, u, z)):
        close(grad, leaf.grad, 1e-9)


def test_window_gradient_is_autograds(rng):
    k, m = 3.0, rng.random((2, 5, 5))
    arrays = [rng.standard_normal(s) for s in ((2, 5, 3), (2, 5, 3), (4, 3))]
    v, u, z = (torch.tensor(a, requires_grad=True) for a in arrays)
    yes = logsigmoid(torch.einsum("btd,bsd->bts", v, u))
    no = k / 4 * logsigmoid(-torch.einsum("btd,jd->btj", v, z)).sum(2, keepdim=True)
    (torch.tensor(m) * -(yes + no)).sum().backward()
    for grad, leaf in zip(window_grad(*arrays, m, k), (v, u, z)):
        close(grad, leaf.grad, 1e-11)


def test_pair_weights_by_hand():
    m = pair_weights(2, 5)
    assert m.dtype == np.float32
    assert m[0].tolist() == [0, 1, 0.5, 0, 0]
    assert m[2].tolist() == [0.5, 1, 0, 1, 0.5]
    assert (m == m.T).all()
    assert pair_weights(5).shape == (64, 64)


def test_adagrad_adds_up_repeated_rows():
    w, seen = np.zeros((4, 2)), np.zeros(4)
    g = np.array([[1.0, 3], [2, 2], [1, 1]])
    adagrad_rows(w, seen, np.array([3, 1, 3]), g, 0.5)
    assert seen.tolist() == [0, 4, 0, 10]  # (2² + 4²)/2
    close(w[1], [-0.5, -0.5], 1e-6)
    close(w[3], -0.5 * np.array([2, 4]) / 10**0.5, 1e-6)
    adagrad_rows(w, seen, np.array([1]), np.array([[2.0, 2]]), 0.5)
    close(w[1], -0.5 - 1 / 8**0.5, 1e-6)
    assert w[[0, 2]].tolist() == [[0, 0], [0, 0]]


def test_a_step_is_adagrad_on_both_tables(rng):
    model = SkipGram(6, 3, rng)
    model.u[:] = rng.standard_normal((6, 3))
    x, z = np.array([[0, 1, 1], [2, 3, 0]]), np.array([4, 1])
    m, v, u = rng.random((2, 3, 3)), model.v.copy(), model.u.copy()
    gv, gu, gz = window_grad(v[x], u[x], u[z], m, 2)
    seen = np.zeros((2, 6), np.float32)
    adagrad_rows(v, seen[0], x.ravel(), gv.reshape(6, 3), 0.1)
    both = np.concatenate([gu.reshape(6, 3), gz])
    adagrad_rows(u, seen[1], np.array([*x.ravel(), *z]), both, 0.1)
    model.step(x, z, m, 2, 0.1)
    for ours, wanted in ((model.v, v), (model.u, u), (model.seen, seen)):
        close(ours, wanted, 1e-6)


# training
def test_blocks_keep_words_with_their_texts(rng):
    rows = [np.arange(10 * i, 10 * i + 7) for i in range(5)]
    kept = np.ones(50)
    x, home = text_blocks(rows, kept, rng, size=8)
    assert x.shape == home.shape == (4, 8)  # 35 words; three are left out
    assert (x // 10 == home).all()
    assert len(np.unique(x)) == 32
    again, _ = text_blocks(rows, kept, rng, size=8)
    assert (again != x).any()  # it begins elsewhere
    kept[:20] = 0
    x, home = text_blocks(rows, kept, rng, size=7)
    assert set(x.ravel() // 10) == set(home.ravel()) == {2, 3, 4}
    order = np.roll(np.concatenate(rows[2:]), -np.flatnonzero(x.ravel() == 20)[0])
    assert x.ravel().tolist() in [np.roll(order, k).tolist() for k in range(21)]


def two_topics():  # words 0 to 9 keep company with each other, and so do 10 to 19
    rng = np.random.default_rng(0)
    return [rng.integers(0, 10, 30) + 10 * (i % 2) for i in range(200)]


@pytest.fixture(scope="module")
def trained():
    return train_skipgram(two_topics(), 22, dim=8, epochs=5, t=1, seed=0)


def test_training_finds_topics(trained):
    v, u = trained
    assert v.shape == u.shape == (22, 8) and v.dtype == u.dtype == np.float32
    e = unit(v[:20])
    near = (e @ e.T - 2 * np.eye(20)).argmax(1)
    assert ((near < 10) == (np.arange(20) < 10)).all()


def test_training_finds_pmi(trained):
    "Friends meet twice as often as chance would have it [Levy and Goldberg 2014]."
    score = trained[0] @ trained[1].T
    assert abs(score[:10, :10].mean() - np.log(2 / 5)) < 0.1
    assert score[:10, 10:20].mean() < -3


def test_words_that_never_occur_stay(trained):
    v, u = train_skipgram(two_topics(), 22, dim=8, epochs=0, t=1, seed=0)
    assert (abs(v) <= 1 / 16).all() and not u.any()
    assert (trained[0][20:] == v[20:]).all() and not trained[1][20:].any()
    assert (trained[0][:20] != v[:20]).all()


def test_vectors_have_64_numbers_unless_told_otherwise():
    v, u = train_skipgram(two_topics()[:20], 22, t=1)
    assert v.shape == u.shape == (22, 64)


def test_windows_end_where_a_text_ends():
    "If windows ran on, 0 would have 2 and 3 for neighbours as often as 1."
    rows = [np.array([0, 1]), np.array([2, 3])] * 800
    v, u = train_skipgram(rows, 4, dim=6, t=1, negatives=2, epochs=8)
    score = v @ u.T
    assert score.argmax(1).tolist() == [1, 0, 3, 2]
    assert score[0, 1] > score[0, [2, 3]].max() + 1


def test_training_repeats_and_depends_on_the_seed():
    rows = two_topics()[:20]
    a, b, other = (
        train_skipgram(rows, 20, dim=4, epochs=1, t=1, seed=seed)[0]
        for seed in (1, 1, 2)
    )
    assert (a == b).all() and (a != other).any()


def test_frequent_words_are_thinned():
    "Less text is left, so the vectors have moved less."
    rows = [np.array([0] * 9 + [1])] * 1000
    v, _ = train_skipgram(rows, 2, dim=2, epochs=1, t=1)
    w, _ = train_skipgram(rows, 2, dim=2, epochs=1, t=1e-3)
    assert 0 < abs(w).max() < 0.7 * abs(v).max()


# neighbours, counts, maps
WORDS = ["a", "b", "c", "d", "e"]


def test_nearest_words_by_hand():
    score = np.array([0.5, 3, 2, 3, -1])
    assert nearest_words(score, WORDS, {1}, 2) == [("d", 3), ("c", 2)]
    assert nearest_words(score, WORDS, set(), 2) == [("b", 3), ("d", 3)]


def test_neighbours_do_not_see_lengths(rng):
    e = rng.standard_normal((5, 3))
    found = neighbours("b", WORDS, e, k=4)
    cosine = {w: unit(e)[i] @ unit(e)[1] for i, w in enumerate(WORDS) if w != "b"}
    assert [w for w, _ in found] == sorted(cosine, key=cosine.get, reverse=True)
    close([s for _, s in found], [cosine[w] for w, _ in found])
    stretched = neighbours("b", WORDS, e * rng.uniform(0.1, 9, (5, 1)), k=4)
    close([s for _, s in stretched], [s for _, s in found])
    assert len(neighbours("b", WORDS * 3, np.tile(e, (3, 1)))) == 8


def test_analogy_is_its_definition(rng):
    e = rng.standard_normal((7, 3))
    words, n = [*WORDS, "f", "g"], unit(e)
    score = n @ (n[1] - n[0] + n[2])
    found = analogy("a", "b", "c", words, e, k=4)
    wanted = sorted(range(3, 7), key=lambda i: -score[i])
    assert [w for w, _ in found] == [words[i] for i in wanted]
    close([s for _, s in found], score[wanted])
    assert len(analogy("a", "b", "c", words * 3, np.tile(e, (3, 1)))) == 5


def test_unknown_words():
    with pytest.raises(ValueError, match="'x' is not in list"):
        neighbours("x", WORDS, np.eye(5))


def test_ppmi_is_its_definition(rng):
    m = rng.poisson(1, (5, 5)).astype(float)
    m[0] = [0, 0, 0, 0, 9]
    q = m.sum(0) ** 0.75 / (m.sum(0) ** 0.75).sum()
    got = ppmi(m)
    for c in range(5):
        for o in range(5):
            pmi = np.log(m[c, o] / (m[c].sum() * q[o])) if m[c, o] else 0
            close(got[c, o], max(0, pmi))


@pytest.mark.filterwarnings("error")
def test_ppmi_of_a_word_that_is_never_met():
    m = np.diag([2.0, 2, 0])
    wanted = np.log(np.diag([2.0, 2, 1]) + 1 - np.eye(3))
    close(ppmi(m), wanted)


def test_pca_is_scikit_learns(rng):
    x = rng.standard_normal((12, 5)) * [3, 1, 2, 0.5, 1] + 5
    for k in (1, 2, 4):
        y = pca(x, k)
        assert y.shape == (12, k)
        close(abs(y), abs(PCA(k, svd_solver="full").fit_transform(x)), 1e-8)
    assert pca(x).shape == (12, 2)
