"""Gradients, softmax regression, calibration and the two frameworks over random shapes and seeds; the laws of the interface; everything a caller can get wrong."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse import classifiers as C
from mmcourse.checkpoint import CheckpointError, read_tensors
from mmcourse.measure import seeded
from mmcourse.store import data_path
from mmcourse.training import fit, predict

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
shapes = st.fixed_dictionaries(
    {
        "n": st.integers(1, 40),
        "c": st.integers(2, 12),
        "seed": st.integers(0, 2**31 - 1),
        "size": st.sampled_from([0.1, 1.0, 10.0, 100.0]),
    }
)
fast = settings(max_examples=25, deadline=None)


def made(n, c, seed, size):
    "Logits and labels."
    rng = np.random.default_rng(seed)
    return torch.tensor(size * rng.standard_normal((n, c))), torch.tensor(
        rng.integers(c, size=n)
    )


def probs(n, c, seed, size):
    z, y = made(n, c, seed, size)
    return z.softmax(1).numpy(), y.numpy()


# --- softmax and its gradient


@given(shapes)
@fast
def test_softmax_and_gradient_equal_torch(s):
    z, y = made(**s)
    torch.testing.assert_close(C.softmax(z), z.softmax(1))
    torch.testing.assert_close(C.softmax(z + 1000), z.softmax(1), atol=1e-9, rtol=1e-6)
    F.cross_entropy(w := z.clone().requires_grad_(), y).backward()
    torch.testing.assert_close(C.cross_entropy_grad(z, y), w.grad)
    assert (
        C.cross_entropy_grad(z, y).sum(1).abs().max() < 1e-9
    )  # what one class gains the others lose


@pytest.mark.parametrize(
    "bad, error",
    [
        ([1.0, 2.0], TypeError),
        (torch.tensor([1, 2]), TypeError),
        (torch.zeros(2, 0), ValueError),
        (torch.tensor(1.0), ValueError),
        (torch.tensor([float("nan"), 1.0]), ValueError),
        (torch.tensor([[float("inf"), 1.0]]), ValueError),
    ],
)
def test_softmax_refuses(bad, error):
    with pytest.raises(error, match="^z: "):
        C.softmax(bad)


BAD_LABELS = [
    ([0, 1, 10], ValueError),
    ([0, -1, 1], ValueError),
    ([0, 1], ValueError),
    ([0.0, 1.0, 2.0], ValueError),
    ([[0], [1], [2]], ValueError),
    ([], ValueError),
    ("012", TypeError),
    ([0, None, 1], TypeError),
]


@pytest.mark.parametrize("labels, error", BAD_LABELS)
def test_labels_are_named(labels, error):
    with pytest.raises(error, match="^labels: "):
        C.cross_entropy_grad(torch.zeros(3, 10), labels)
    with pytest.raises(error, match="^labels: |as many targets as inputs"):
        C.train_image_classifier(torch.zeros(3, 1, 28, 28), labels)
    with pytest.raises(error, match="^labels: "):
        C.brier(np.full((3, 10), 0.1), labels)


# --- softmax regression


@pytest.mark.parametrize("seed", range(4))
def test_regression_equals_scikit_learn(seed):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    n, d, c, strength = (
        int(rng.integers(40, 200)),
        int(rng.integers(1, 20)),
        int(rng.integers(3, 8)),
        float(10 ** rng.uniform(-2, 1)),
    )
    x, y = (
        rng.standard_normal((n, d)),
        np.concatenate([np.arange(c), rng.integers(c, size=n - c)]),
    )
    W, b = C.softmax_regression(x, y, C=strength, classes=c, tol=1e-8, steps=2000)
    ref = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(W.T, ref.coef_, atol=1e-3)
    np.testing.assert_allclose(
        C.softmax(torch.tensor(x @ W + b)).numpy(), ref.predict_proba(x), atol=1e-3
    )


def test_regression_gradient_is_zero_at_the_answer():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), rng.integers(4, size=60)
    W, b = C.softmax_regression(x, y, C=2.0, classes=4, tol=1e-9, steps=2000)
    w, v = (torch.tensor(t, requires_grad=True) for t in (W, b))
    (
        F.cross_entropy(torch.tensor(x) @ w + v, torch.tensor(y), reduction="sum")
        + (w**2).sum() / 4
    ).backward()
    assert w.grad.abs().max() < 1e-4 and v.grad.abs().max() < 1e-4


@pytest.mark.parametrize(
    "x, C_, says",
    [
        (np.zeros((3, 2, 2)), 1.0, "x: expected"),
        (np.full((3, 2), np.nan), 1.0, "x: expected finite"),
        (np.zeros((0, 2)), 1.0, "x: expected at least"),
        (np.zeros((3, 2)), 0.0, "C: expected"),
        (np.zeros((3, 2)), float("nan"), "C: expected"),
        (np.zeros((3, 2)), -1.0, "C: expected"),
    ],
)
def test_regression_refuses(x, C_, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        C.softmax_regression(x, [0, 1, 2], C=C_)


# --- features


def test_counts_are_those_of_a_loop():
    ids = torch.randint(0, 8, (20, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        C.counts(ids, 7),
        torch.tensor([[float((row == k).sum()) for k in range(1, 8)] for row in ids]),
    )


def test_text_features_pass_over_unknown_words():
    assert (
        C.extract_text_features(
            [["a", "b"], ["x"], []], {"a": 1, "b": 2, "a b": 3}
        ).shape[0]
        == 3
    )
    ids = C.extract_text_features([["a", "q"], ["x"], []], {"a": 5})
    assert ids.tolist() == [[5], [0], [0]] and ids.dtype == torch.int64


@pytest.mark.parametrize(
    "f, bad, error, says",
    [
        (lambda x: C.extract_text_features(x, {}), "odd", TypeError, "texts: "),
        (lambda x: C.extract_text_features(x, {}), [], ValueError, "texts: "),
        (
            lambda x: C.extract_text_features(x, {}),
            [["odd"], "odd"],
            TypeError,
            r"texts\[1\]: ",
        ),
        (C.extract_image_features, np.zeros((28, 28)), ValueError, "images: "),
        (C.extract_image_features, np.zeros((0, 28, 28)), ValueError, "images: "),
        (
            C.extract_image_features,
            np.full((1, 28, 28), np.nan),
            ValueError,
            "images: ",
        ),
        (C.extract_audio_features, np.zeros(8000), ValueError, "waves: "),
        (C.extract_audio_features, np.zeros((0, 8000)), ValueError, "waves: "),
        (C.extract_audio_features, np.full((1, 800), np.inf), ValueError, "waves: "),
        (C.extract_audio_features, ["a"], TypeError, "waves: "),
        (C.clean_features, "video", ValueError, "modality: "),
    ],
)
def test_features_refuse(f, bad, error, says):
    with pytest.raises(error, match=f"^{says}"):
        f(bad)


# --- torch and Keras


def inputs(modality, n, g):
    if modality == "text":
        return torch.randint(0, 30, (n, 9), generator=g)
    if modality == "image":
        return torch.randn(n, 1, 28, 28, generator=g)
    return -60 * torch.rand(n, 20, 51, generator=g)


NETS = {
    "text": (lambda: C.TextNet(29), lambda: C.keras_text_net(29)),
    "image": (C.ImageNet28, C.keras_image_net),
    "audio": (C.AudioNet, C.keras_audio_net),
}


@pytest.mark.parametrize("modality", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_weights_the_same_answers(modality, seed):
    ours, theirs = NETS[modality]
    g = torch.Generator().manual_seed(seed)
    x = inputs(modality, int(torch.randint(2, 9, (), generator=g)), g)
    with seeded(seed):
        a, b = ours(), theirs()
    with torch.no_grad():
        for _ in range(3):
            a.train()(x)  # norms with statistics of their own
    b.set_weights(C.keras_weights(a.eval()))
    torch.testing.assert_close(
        predict(C.as_module(b), x), predict(a, x), atol=2e-4, rtol=1e-4
    )
    np.testing.assert_allclose(
        b.predict(x.numpy(), verbose=0), predict(a, x).numpy(), atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_one_step_of_training_moves_both_alike(modality):
    ours, theirs = NETS[modality]
    with seeded(0):
        a, b, x = (
            ours(),
            theirs(),
            inputs(modality, 16, torch.Generator().manual_seed(0)),
        )
    for m in a.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    b.set_weights(C.keras_weights(a))
    for layer in b.layers:
        if type(layer).__name__ == "Dropout":
            layer.rate = 0.0
    k, y = C.as_module(b), torch.arange(16) % 10
    for net in (a, k):
        fit(
            net,
            (x, y),
            epochs=1,
            batch_size=16,
            lr=0.1,
            optimizer=torch.optim.SGD,
            weight_decay=0.0,
        )
    torch.testing.assert_close(predict(k, x), predict(a, x), atol=5e-3, rtol=5e-3)
    assert len(C.keras_weights(a)) == len(b.get_weights())


def test_dropout_and_norms_follow_the_mode():
    with seeded(0):
        net, x = C.as_module(C.keras_image_net()), torch.randn(8, 1, 28, 28)
    means = [
        w.numpy().copy() if hasattr(w, "numpy") else np.array(w)
        for w in net.model.get_weights()
    ]
    assert torch.equal(net.eval()(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))  # dropout
    assert any(
        not np.array_equal(a, b) for a, b in zip(means, net.model.get_weights())
    )  # running means


@pytest.mark.parametrize("bad", [None, "net", lambda x: x, 3])
def test_no_network(bad):
    with pytest.raises(TypeError, match="^net: "):
        C.as_module(bad)
    with pytest.raises(TypeError, match="^net: "):
        C.train_audio_classifier(torch.zeros(3, 20, 51), [0, 1, 2], net=lambda: bad)


def test_weights_of_an_unknown_layer():
    with pytest.raises(TypeError, match="^net: "):
        C.keras_weights(nn.LSTM(2, 3))


def toy(n=160):  # pictures: a bright block at one of ten places
    g = torch.Generator().manual_seed(0)
    y = torch.randint(10, (n,), generator=g)
    x = 0.3 * torch.randn(n, 1, 28, 28, generator=g)
    for i, d in enumerate(y.tolist()):
        x[i, 0, 5 * (d // 5) + 4 : 5 * (d // 5) + 8, 5 * (d % 5) : 5 * (d % 5) + 4] += 3
    return x, y.numpy()


@pytest.mark.parametrize(
    "net", [C.ImageNet28, C.keras_image_net], ids=["torch", "Keras"]
)
def test_one_interface(net):
    x, y = toy()
    model, again = (
        C.train_image_classifier(x[:120], y[:120], net=net, epochs=6, seed=1)
        for _ in range(2)
    )
    p = model.predict_proba(x)
    assert (
        p.shape == (160, 10)
        and np.allclose(p.sum(1), 1)
        and np.array_equal(p.argmax(1), model.predict(x))
        and model.predict(x).dtype == np.int64
    )
    assert (model.predict(x[120:]) == y[120:]).mean() > 0.8
    np.testing.assert_allclose(
        again.predict_proba(x), p, atol=1e-5
    )  # the same seed, the same network
    other = C.train_image_classifier(x[:120], y[:120], net=net, epochs=6, seed=2)
    assert abs(other.predict_proba(x) - p).max() > 1e-3
    C.calibrate(model, x[120:], y[120:])
    assert float(model.temperature) != 1 and np.array_equal(
        model.predict(x), p.argmax(1)
    )
    copy = C.Classifier(C.as_module(net())).eval()
    if hasattr(copy.net, "model"):
        copy.net.model.set_weights(model.net.model.get_weights())
    else:
        copy.net.load_state_dict(model.net.state_dict())
    assert np.array_equal(copy.predict(x), model.predict(x))


def test_text_and_linear_classifiers_learn():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 10
    ids = torch.cat([y[:, None] + 1, torch.randint(11, 30, (300, 3), generator=g)], 1)
    model = C.train_text_classifier(ids[:200], y[:200], epochs=12)
    assert (model.predict(ids[200:]) == y[200:].numpy()).mean() > 0.8
    linear = C.train_linear_classifier(
        ids[:200], y[:200].numpy(), embed=lambda t: C.counts(t, 29)
    )
    assert (linear.predict(ids[200:]) == y[200:].numpy()).mean() > 0.9


# --- calibration


@given(shapes, st.integers(1, 30))
@fast
def test_reliability_adds_up(s, bins):
    p, y = probs(**s)
    r = C.reliability(p, y, bins)
    keep = r["count"] > 0
    assert r["count"].sum() == len(y) and len(r["edges"]) == bins + 1
    assert np.isclose(
        (r["count"] * np.nan_to_num(r["accuracy"])).sum(), (p.argmax(1) == y).sum()
    )
    assert np.isclose(
        (r["count"] * np.nan_to_num(r["confidence"])).sum(), p.max(1).sum()
    )
    assert (r["confidence"][keep] >= r["edges"][:-1][keep] - 1e-9).all() and (
        r["confidence"][keep] <= r["edges"][1:][keep] + 1e-9
    ).all()
    assert (
        0 <= C.calibration_error(p, y, 1) <= C.calibration_error(p, y, bins) + 1e-9
    )  # one bin: gaps cancel
    assert np.isclose(
        C.calibration_error(p, y, 1), abs(p.max(1).mean() - (p.argmax(1) == y).mean())
    )


@given(shapes)
@fast
def test_brier_equals_a_loop(s):
    p, y = probs(**s)
    assert (
        np.isclose(
            C.brier(p, y),
            np.mean(
                [
                    sum((q[c] - (c == d)) ** 2 for c in range(len(q)))
                    for q, d in zip(p, y)
                ]
            ),
        )
        and 0 <= C.brier(p, y) <= 2
    )


@given(shapes)
@fast
def test_temperature_equals_scipy(s):
    from scipy.optimize import minimize_scalar

    s = s | {"n": s["n"] + 20, "size": min(s["size"], 10.0)}
    z, y = made(**s)
    y = torch.where(
        torch.arange(len(z)) % 3 > 0, z.argmax(1), y
    )  # often, not always, right
    loss = lambda t: F.cross_entropy(z / t, y).item()
    T = C.fit_temperature(z, y)
    best = minimize_scalar(
        lambda t: loss(np.exp(t)),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert T * 1.0001 >= 0.05 and T <= 20 * 1.0001
    assert loss(T) <= best.fun + 1e-8


def test_temperature_undoes_a_temperature():
    rng = np.random.default_rng(0)
    z = 2 * rng.standard_normal((20_000, 5))
    y = (torch.tensor(z).softmax(1).numpy().cumsum(1) > rng.random((20_000, 1))).argmax(
        1
    )
    assert (
        abs(C.fit_temperature(z, y) - 1) < 0.05
        and abs(C.fit_temperature(z * 4, y) - 4) < 0.2
        and abs(C.fit_temperature(z / 3, y) - 1 / 3) < 0.02
    )


def test_temperature_at_the_end_of_its_range():
    z = torch.eye(4) * 3
    assert np.isclose(
        C.fit_temperature(z, torch.arange(4)), 0.05, rtol=1e-3
    )  # always right: as sure as allowed
    assert np.isclose(
        C.fit_temperature(z, (torch.arange(4) + 1) % 4), 20, rtol=1e-3
    )  # always wrong: as unsure as allowed


@pytest.mark.parametrize(
    "bad, says",
    [
        (np.full((3, 10), 0.2), "add up"),
        (np.full(3, 0.1), r"\(N, classes\)"),
        (np.full((3, 10), np.nan), "finite"),
        (np.zeros((0, 10)), "at least"),
        (np.eye(3) * 2 - 1, "add up"),
    ],
)
def test_no_probabilities(bad, says):
    for f in (C.reliability, C.calibration_error, C.brier):
        with pytest.raises(ValueError, match=f"^probs: .*{says}"):
            f(bad, [0, 1, 2])


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, "ten", None])
def test_no_bins(bins):
    with pytest.raises(ValueError, match="^bins: "):
        C.reliability(np.full((3, 10), 0.1), [0, 1, 2], bins)


@pytest.mark.parametrize(
    "bad", [np.zeros(3), np.full((3, 10), np.nan), np.zeros((0, 10))]
)
def test_no_logits(bad):
    with pytest.raises(ValueError, match="^logits: "):
        C.fit_temperature(bad, [0, 1, 2])


# --- the shipped weights


@pytest.mark.parametrize("modality, floor", [("image", 0.975), ("audio", 0.915)])
def test_shipped_weights_do_what_the_card_says(modality, floor):
    models, data = (
        C.read_classifiers(data_path("classifiers.safetensors"), modality),
        C.clean_features(modality),
    )
    scores = [(m.predict(data["test"][0]) == data["test"][1]).mean() for m in models]
    assert len(models) == 3 and np.mean(scores) > floor
    about = read_tensors(data_path("classifiers.safetensors"))[1]
    np.testing.assert_allclose(
        [(m.predict(data["valid"][0]) == data["valid"][1]).mean() for m in models],
        about["valid"][modality],
        atol=0.01,
    )


def test_shipped_weights_refuse(tmp_path):
    with pytest.raises(ValueError, match="^modality: "):
        C.read_classifiers(data_path("classifiers.safetensors"), "text")
    whole = Path(data_path("classifiers.safetensors")).read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:-100] + bytes(100))
    with pytest.raises(CheckpointError):
        C.read_classifiers(tmp_path / "x.safetensors", "image")


def test_import_is_light():
    code = 'import sys, mmcourse.classifiers; print([m for m in ("keras", "librosa", "sklearn", "matplotlib", "scipy", "nltk") if m in sys.modules])'
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout
    assert out.strip() == "[]"
