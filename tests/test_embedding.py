"Embedding: parity with scikit-learn and autograd over random inputs, the laws of pairs and vectors, training on text whose answer is known, bad input."

import os
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from torch.nn.functional import logsigmoid

from mmcourse import embedding
from mmcourse.embedding import (
    analogy,
    bag,
    doc_vector,
    idf,
    keep_chance,
    library_words,
    negative_sampling_grad,
    negative_sampling_loss,
    neighbours,
    noise,
    pca,
    ppmi,
    skipgram_pairs,
    tf_idf,
    train_skipgram,
    unit,
    window_grad,
)

many = settings(max_examples=2000, deadline=None)
seeds = st.integers(0, 2**32 - 1)
REFUSED = ValueError, TypeError


def refused(f, *args, error=REFUSED, name, **kwargs):
    "The message; it must begin with the argument's name, be one line, and say what is wanted and what came."
    with pytest.raises(error) as caught:
        f(*args, **kwargs)
    message = str(caught.value)
    assert (
        re.match(name + r"(\[.*?\])?: expected", message)
        and "\n" not in message
        and "got" in message
    ), message


# ------------------------------------------------------------------------------------------------------------------------ documents, weights
def test_tf_idf_is_scikit_learns_vectorizer():
    rng = np.random.default_rng(0)
    for _ in range(200):
        texts = [
            " ".join(
                rng.choice(
                    list("abcdefgh"), rng.integers(1, 20), p=np.arange(1, 9) / 36
                )
            )
            for _ in range(rng.integers(1, 12))
        ]
        theirs = TfidfVectorizer(token_pattern=r"\S+").fit(texts)
        places = theirs.vocabulary_
        counts = bag([[places[w] for w in t.split()] for t in texts], len(places))
        weights = idf(counts)
        assert abs(weights - theirs.idf_).max() < 1e-12
        assert (
            abs(tf_idf(counts, weights) - theirs.transform(texts).toarray()).max()
            < 1e-12
        )
        new = " ".join(
            rng.choice(list("abcdefghxy"), 9)
        )  # words that training has not met
        assert (
            abs(
                tf_idf(
                    bag([[places[w] for w in new.split() if w in places]], len(places)),
                    weights,
                )
                - theirs.transform([new]).toarray()
            ).max()
            < 1e-12
        )


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_tf_idf_is_scikit_learns_transformer(seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.choice([0.1, 1, 30]), rng.integers(1, 9, 2)).astype(
        float
    )  # words without a document, documents without a word
    ref = TfidfTransformer().fit(counts)
    assert (
        abs(idf(counts) - ref.idf_).max() < 1e-12
        and abs(tf_idf(counts, idf(counts)) - ref.transform(counts).toarray()).max()
        < 1e-12
    )


@many
@given(seeds)
def test_document_laws(seed):
    rng = np.random.default_rng(seed)
    V, d = rng.integers(1, 6, 2)
    words, e, w = (
        [f"w{i}" for i in range(V)],
        rng.standard_normal((V, d)),
        rng.standard_normal(V),
    )
    row = rng.integers(0, V, rng.integers(0, 8))
    vectors, weights = dict(zip(words, e)), dict(zip(words, w))
    x = doc_vector([words[i] for i in row], weights, vectors)
    assert x.shape == (d,) and np.allclose(x, (bag([row], V) @ (w[:, None] * e))[0])
    assert np.allclose(
        x, doc_vector([words[i] for i in row[::-1]] + ["unknown"], weights, vectors)
    )
    del weights["w0"]  # no weight counts zero
    assert np.allclose(
        doc_vector([words[i] for i in row], weights, vectors),
        sum((w[i] * e[i] for i in row if i), np.zeros(d)),
    )


def test_unit():
    assert unit([[3, 4], [0, 0]]).tolist() == [[0.6, 0.8], [0, 0]]
    assert (
        np.allclose(unit([1e308, 1e308]), 0.5**0.5)
        and np.allclose(unit([3e-320, 4e-320]), [0.6, 0.8], rtol=1e-3)
        and unit([-5.0]).tolist() == [-1]
    )


# ------------------------------------------------------------------------------------------------------------------------------------- pairs
@many
@given(st.lists(st.integers(0, 4), max_size=9), st.integers(1, 12))
def test_pairs_are_all_neighbours(row, window):
    c, o = skipgram_pairs(row, window)
    assert c.dtype == o.dtype == np.int64
    assert sorted(zip(c.tolist(), o.tolist())) == sorted(
        (a, b)
        for i, a in enumerate(row)
        for j, b in enumerate(row)
        if 0 < abs(i - j) <= window
    )


def test_noise_and_keeping():
    assert (
        np.allclose(noise([1, 16, 0]), [1 / 9, 8 / 9, 0])
        and np.allclose(noise([1, 3], 1), [0.25, 0.75])
        and np.isclose(noise([1e300, 1e300]).sum(), 1)
    )
    assert (
        np.allclose(keep_chance([4, 96], 1e-4), [0.05, (1e-4 / 0.96) ** 0.5])
        and keep_chance([1, 1], 1).tolist() == [1, 1]
        and keep_chance([0, 1])[0] == 1
    )


# --------------------------------------------------------------------------------------------------------------------------------- gradients
@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from([0.1, 1, 30, 1000]))
def test_loss_and_gradient_are_autograds(seed, scale):
    rng = np.random.default_rng(seed)
    B, K, d = rng.integers(1, 5, 3)
    arrays = [scale * rng.standard_normal(s) for s in ((B, d), (B, d), (B, K, d))]
    v, u, z = (torch.tensor(a, requires_grad=True) for a in arrays)
    loss = (
        -logsigmoid((v * u).sum(1))
        - logsigmoid(-torch.einsum("bd,bkd->bk", v, z)).sum(1)
    ).mean()
    loss.backward()
    assert np.isclose(negative_sampling_loss(*arrays), loss.item(), rtol=1e-10)
    assert negative_sampling_loss(v, u, z) == negative_sampling_loss(
        *arrays
    )  # tensors will do
    for g, t in zip(negative_sampling_grad(*arrays), (v, u, z)):
        assert g.shape == t.shape and np.allclose(
            g, t.grad.numpy(), rtol=1e-9, atol=1e-12 * scale
        )


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_window_gradient_is_autograds(seed):
    rng = np.random.default_rng(seed)
    B, T, J, d = rng.integers(1, 6, 4)
    k, m = (
        float(rng.integers(1, 9)),
        rng.random((B, T, T)) * (rng.random((B, T, T)) < 0.5),
    )
    arrays = [rng.standard_normal(s) for s in ((B, T, d), (B, T, d), (J, d))]
    v, u, z = (torch.tensor(a, requires_grad=True) for a in arrays)
    pair = (
        -logsigmoid(torch.einsum("btd,bsd->bts", v, u))
        - k / J * logsigmoid(-torch.einsum("btd,jd->btj", v, z)).sum(2)[:, :, None]
    )
    (torch.tensor(m) * pair).sum().backward()
    for g, t in zip(window_grad(*arrays, m, k), (v, u, z)):
        assert np.allclose(g, t.grad.numpy(), atol=1e-11)


def test_step_adds_up_repeated_rows():
    w, seen, g = (
        np.zeros((4, 2), np.float32),
        np.zeros(4, np.float32),
        np.array([[1, 1], [2, 2], [1, 1]], np.float32),
    )
    embedding._step(w, seen, np.array([3, 1, 3]), g, np.float32(0.5))
    assert seen.tolist() == [0, 4, 0, 4] and np.allclose(
        w, [[0, 0], [-0.5, -0.5], [0, 0], [-0.5, -0.5]]
    )
    embedding._step(w, seen, np.array([3]), g[:1], np.float32(0.5))
    assert np.allclose(w[3], -0.5 - 0.5 / 5**0.5) and seen[3] == 5


def test_blocks_hold_each_word_once():
    rng = np.random.default_rng(0)
    for n in (1, 5, 64, 65, 200):
        text, place = rng.permutation(n), rng.integers(0, 9, n)
        x, p = embedding._blocks(text, place, 64, rng)
        assert x.shape == p.shape and x.shape[1] == 64 and len(x) == -(-n // 64)
        assert sorted(zip(x[p >= 0], p[p >= 0])) == sorted(zip(text, place))


# ---------------------------------------------------------------------------------------------------------------------------------- training
def two_topics(seed):  # words 0 to 9 keep company with each other, and so do 10 to 19
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 10, 30) + 10 * (i % 2) for i in range(200)]


def test_training_finds_planted_topics():
    for seed in range(3):
        w, c = train_skipgram(two_topics(seed), 22, dim=8, t=1, seed=seed)
        e = unit(w[:20])
        near = (e @ e.T - 2 * np.eye(20)).argmax(1)
        assert w.shape == c.shape == (22, 8) and w.dtype == c.dtype == np.float32
        assert ((near < 10) == (np.arange(20) < 10)).all()
        score = w @ c.T
        assert (
            abs(score[:10, :10].mean() - np.log(2 / 5)) < 0.1
            and score[:10, 10:20].mean() < -3
        )  # PMI - ln K [Levy and Goldberg 2014]: friends meet twice as often as chance would have it
        before, _ = train_skipgram(two_topics(seed), 22, dim=8, epochs=0, seed=seed)
        assert (
            (w[20:] == before[20:]).all()
            and (c[20:] == 0).all()
            and (w[:20] != before[:20]).all()
        )  # words that never occur stay


def test_windows_end_where_a_text_ends():
    "Two words in every other row: if windows ran on, 0 would have 2 and 3 for neighbours as often as 1."
    rows = [np.array([0, 1]), np.array([2, 3])] * 800
    w, c = train_skipgram(rows, 4, dim=6, t=1, negatives=2, epochs=8, seed=0)
    s = w @ c.T
    assert (
        s[0].argmax() == 1
        and s[1].argmax() == 0
        and s[2].argmax() == 3
        and s[3].argmax() == 2
        and s[0, 1] > s[0, [2, 3]].max() + 1
    )


def test_training_repeats_and_depends_on_the_seed():
    rows = two_topics(0)[:20]
    a, b, other = (
        train_skipgram(rows, 20, dim=4, epochs=1, seed=s)[0] for s in (1, 1, 2)
    )
    assert (a == b).all() and (a != other).any()


def test_training_is_stable_at_any_rate():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for lr in (1e-3, 1, 30):
            assert np.isfinite(
                train_skipgram(two_topics(0)[:20], 20, dim=4, lr=lr)[0]
            ).all()
        assert np.isfinite(
            train_skipgram([[0, 1]], 2, dim=1, t=1e-12)[0]
        ).all()  # all words thinned out


# ------------------------------------------------------------------------------------------------------------------- neighbours, counts, maps
@many
@given(seeds)
def test_neighbour_laws(seed):
    rng = np.random.default_rng(seed)
    V, d = rng.integers(3, 9), rng.integers(1, 4)
    words, e = [f"w{i}" for i in range(V)], rng.standard_normal((V, d))
    found = neighbours("w1", words, e, k=V)
    cosine = unit(e) @ unit(e)[1]
    assert [w for w, _ in found] == [
        words[i] for i in (-cosine).argsort(kind="stable") if i != 1
    ] and all(abs(cosine[words.index(w)] - s) < 1e-12 for w, s in found)
    assert found[:2] == neighbours("w1", words, e, k=2)
    scaled = neighbours(
        "w1", words, e * rng.uniform(0.1, 9, (V, 1)), k=V
    )  # lengths do not matter
    assert np.allclose([s for _, s in scaled], [s for _, s in found])
    solved = analogy("w0", "w1", "w2", words, e, k=V)
    assert sorted(w for w, _ in solved) == sorted(words[3:]) and [
        s for _, s in solved
    ] == sorted((s for _, s in solved), reverse=True)
    assert np.allclose(
        [s for w, s in solved],
        [
            (unit(e)[1] - unit(e)[0] + unit(e)[2]) @ unit(e)[words.index(w)]
            for w, _ in solved
        ],
    )


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_ppmi_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    m = rng.poisson(1, (V := rng.integers(1, 6), V)).astype(float)
    m[0, 0] += 1
    got, q = ppmi(m), m.sum(0) ** 0.75 / (m.sum(0) ** 0.75).sum()
    for c in range(V):
        for o in range(V):
            assert np.isclose(
                got[c, o],
                max(0, np.log(m[c, o] / (m[c].sum() * q[o]))) if m[c, o] else 0,
            )


def test_ppmi_of_tiny_counts():
    assert np.isfinite(ppmi([[1e-300, 0], [0, 1]])).all()


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_pca_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    n, d = rng.integers(2, 12), rng.integers(1, 7)
    x = rng.standard_normal((n, d)) * rng.uniform(0.5, 3, d) + 5
    k = int(rng.integers(1, min(n, d) + 1))
    y, ref = pca(x, k), PCA(k, svd_solver="full").fit_transform(x)
    assert y.shape == (n, k) and np.allclose(abs(y), abs(ref), atol=1e-8)
    assert (y.max(0) >= -y.min(0) - 1e-9).all() and np.allclose(y.mean(0), 0, atol=1e-9)
    assert np.allclose(
        abs(pca(x * 1e200, k)) / 1e200, abs(y), atol=1e-8
    )  # of two equal entries either may be the largest


# ------------------------------------------------------------------------------------------------------------------------------------- library
def test_library_words():
    found = library_words()
    assert (
        len(found) > 300
        and sum(map(len, found.values())) > 700_000
        and {"textwrap.py", "email/message.py", "topics/if"} <= set(found)
    )
    assert not any(
        "test" in k.split("/")[:-1] or "site-packages" in k for k in found
    ) and found["textwrap.py"][:4] == ["text", "wrapping", "and", "filling"]
    assert all(re.fullmatch("[a-z]{2,}", w) for w in found["topics/if"])


def test_library_without_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "__file__", str(tmp_path / "os.py"))
    with pytest.raises(FileNotFoundError, match="library: expected the sources"):
        library_words()


# ----------------------------------------------------------------------------------------------------------------------------------- bad input
M, EYE = np.ones((2, 3)), np.eye(3)
Z = np.ones((2, 4, 3))


@pytest.mark.parametrize(
    "f,args,name",
    [
        (doc_vector, ("odd", {}, {"a": [1]}), "tokens"),
        (doc_vector, ([1], {}, {"a": [1]}), "tokens"),
        (doc_vector, (["a"], [1], {"a": [1]}), "weights"),
        (doc_vector, (["a"], {"a": "x"}, {"a": [1]}), "weights"),
        (doc_vector, (["a"], {"a": np.nan}, {"a": [1]}), "weights"),
        (doc_vector, (["a"], {}, {}), "vectors"),
        (doc_vector, (["a"], {}, [1]), "vectors"),
        (doc_vector, (["a"], {}, {"a": 1}), "vectors"),
        (doc_vector, (["a"], {}, {"a": [1], "b": [1, 2]}), "vectors"),
        (bag, ("odd", 3), "rows"),
        (bag, ([], 3), "rows"),
        (bag, ([[3]], 3), "rows"),
        (bag, ([[-1]], 3), "rows"),
        (bag, ([None], 3), "rows"),
        (bag, ([[1.5]], 3), "rows"),
        (bag, ([[0]], 0), "n"),
        (bag, ([[0]], 2.0), "n"),
        (bag, ([[0]] * 2, 2**28), "n"),
        (idf, ("odd",), "counts"),
        (idf, ([1, 2],), "counts"),
        (idf, (-M,), "counts"),
        (idf, (M * np.nan,), "counts"),
        (idf, (np.zeros((0, 3)),), "counts"),
        (tf_idf, (M, [1, 2]), "weights"),
        (tf_idf, (M, 1), "weights"),
        (tf_idf, (M[0], [1]), "counts"),
        (unit, (3,), "x"),
        (unit, ("odd",), "x"),
        (skipgram_pairs, ("odd",), "row"),
        (skipgram_pairs, ([[1]],), "row"),
        (skipgram_pairs, ([1], 0), "window"),
        (skipgram_pairs, ([1], 1.5), "window"),
        (negative_sampling_loss, (M[0], M, Z), "v"),
        (negative_sampling_loss, (M, EYE, Z), "u"),
        (negative_sampling_loss, (M, M, M), "z"),
        (negative_sampling_grad, (M, M, Z[:1]), "z"),
        (negative_sampling_grad, (M * np.inf, M, Z), "v"),
        (noise, ([0, 0],), "count"),
        (noise, ([-1, 2],), "count"),
        (noise, (EYE,), "count"),
        (noise, ([1], 0), "power"),
        (noise, ([1], "1"), "power"),
        (keep_chance, ([1], -1), "t"),
        (keep_chance, ([1], True), "t"),
        (keep_chance, ([1], np.nan), "t"),
        (neighbours, ("x", ["a", "b", "c"], EYE), "word"),
        (neighbours, (1, ["a", "b", "c"], EYE), "word"),
        (neighbours, ("a", "abc", EYE), "words"),
        (neighbours, ("a", ["a", "b"], EYE), "vectors"),
        (neighbours, ("a", ["a"], [1]), "vectors"),
        (analogy, ("x", "a", "b", ["a", "b", "c"], EYE), "a"),
        (analogy, ("a", "x", "b", ["a", "b", "c"], EYE), "b"),
        (analogy, ("a", "b", None, ["a", "b", "c"], EYE), "c"),
        (ppmi, (M,), "pairs"),
        (ppmi, (-EYE,), "pairs"),
        (ppmi, (0 * EYE,), "pairs"),
        (ppmi, ([1],), "pairs"),
        (pca, ([1, 2],), "x"),
        (pca, (M, 3), "k"),
        (pca, (M, 0), "k"),
        (pca, ("odd",), "x"),
        (pca, (M * np.nan,), "x"),
    ],
)
def test_refused(f, args, name):
    refused(f, *args, name=name)


@pytest.mark.parametrize(
    "kw,name",
    [
        ({"dim": 0}, "dim"),
        ({"dim": "8"}, "dim"),
        ({"window": 0}, "window"),
        ({"window": 61}, "window"),
        ({"negatives": 0}, "negatives"),
        ({"epochs": -1}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"lr": 0}, "lr"),
        ({"lr": "1"}, "lr"),
        ({"lr": np.nan}, "lr"),
        ({"t": 0}, "t"),
        ({"t": None}, "t"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
    ],
)
def test_training_refuses(kw, name):
    refused(train_skipgram, [[0, 1, 2]], 3, **kw, name=name)


@pytest.mark.parametrize(
    "rows,n,name",
    [
        ([], 3, "rows"),
        ([[0, 3]], 3, "rows"),
        ([[0], [1]], 3, "rows"),
        ("odd", 3, "rows"),
        ([[0, 1]], 0, "n"),
        ([[0, 1]], 2**28, "dim"),
    ],
)
def test_training_refuses_rows(rows, n, name):
    refused(train_skipgram, rows, n, name=name)


def test_neighbours_k():
    refused(neighbours, "a", ["a", "b", "c"], EYE, k=0, name="k")


# ------------------------------------------------------------------------------------------------------------------------------------ fuzzing
ITEM = st.one_of(
    st.integers(-2, 4),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=2),
    st.binary(max_size=2),
    st.just(np.zeros((2, 2))),
    st.just([]),
    st.just(np.uint64(2**63)),
    st.just({"a": [1.0]}),
    st.just(torch.ones(2, 2)),
)
THING = st.one_of(
    ITEM,
    st.lists(st.one_of(ITEM, st.lists(ITEM, max_size=2)), max_size=3),
    st.lists(
        st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=3
    ),
    st.just(np.zeros((0, 2))),
    st.just(np.array([[1e308, -1e308]] * 2)),
    st.sampled_from(
        [
            ["a", "b"],
            {"a": 1, "b": 2.0},
            {"a": [1, 2], "b": [3, 4]},
            "a",
            np.ones((2, 2)),
            np.ones((2, 1, 2)),
            [[0, 1], [1, 1, 0]],
            2,
            5,
        ]
    ),
)
FUZZED = [
    (doc_vector, 3),
    (bag, 2),
    (idf, 1),
    (tf_idf, 2),
    (unit, 1),
    (skipgram_pairs, 2),
    (negative_sampling_loss, 3),
    (negative_sampling_grad, 3),
    (noise, 2),
    (keep_chance, 2),
    (neighbours, 3),
    (analogy, 5),
    (ppmi, 1),
    (pca, 2),
    (train_skipgram, 2),
]


@pytest.mark.filterwarnings("ignore")
@many
@given(st.tuples(*[THING] * 5))
def test_anything(args):
    "Each function on the same arguments, as many as it takes."
    for f, n in FUZZED:
        if (
            f in (bag, train_skipgram)
            and isinstance(args[1], (int, np.integer))
            and args[1] > 10**4
        ):
            continue  # memory for nothing
        try:
            f(*args[:n], **({"dim": 2, "epochs": 1} if f is train_skipgram else {}))
        except REFUSED as e:
            assert re.match(
                r"\w+(\[.*\])?: expected .*got", str(e)
            ) and "\n" not in str(e), (f, e)
