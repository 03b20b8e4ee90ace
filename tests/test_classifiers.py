"Gradients, softmax regression, networks in two libraries, temperatures: all by value."

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from conftest import refused
from mmcourse import classifiers as C
from mmcourse import shipped
from mmcourse.audio import standardise_mel
from mmcourse.checkpoint import CheckpointError, read_tensors
from mmcourse.datasets import mnist, spoken_digits
from mmcourse.keras_weights import to_keras
from mmcourse.measure import seeded
from mmcourse.pipeline import load_features
from mmcourse.store import data_path
from mmcourse.training import count_parameters, fit, predict

ROOT = Path(__file__).resolve().parent.parent
fast = settings(max_examples=25, deadline=None)
sizes = st.integers(1, 40), st.integers(2, 12), st.integers(0, 2**31 - 1)
scales = st.sampled_from([0.1, 1.0, 10.0, 100.0])


def made(n, c, seed, scale):
    "Logits and labels."
    rng = np.random.default_rng(seed)
    z = torch.tensor(scale * rng.standard_normal((n, c)))
    return z, torch.tensor(rng.integers(c, size=n))


# --- softmax and its gradient


@fast
@given(*sizes, scales)
def test_softmax_and_its_gradient_are_torchs(n, c, seed, scale):
    z, y = made(n, c, seed, scale)
    assert_close(C.softmax(z), z.softmax(1))
    assert_close(C.softmax(z + 1000), z.softmax(1), atol=1e-9, rtol=1e-6)
    w = z.clone().requires_grad_()
    F.cross_entropy(w, y).backward()
    assert_close(C.cross_entropy_grad(z, y), w.grad)


def test_softmax_of_several_axes():
    z = torch.tensor([[[0.0, 0.0], [1e4, 0.0]]])
    assert C.softmax(z).tolist() == [[[0.5, 0.5], [1.0, 0.0]]]


# --- softmax regression


def problem(seed):
    rng = np.random.default_rng(seed)
    n, d, c = (int(rng.integers(*ends)) for ends in ((40, 200), (1, 20), (3, 8)))
    y = np.concatenate([np.arange(c), rng.integers(c, size=n - c)])
    return rng.standard_normal((n, d)), y, c, float(10 ** rng.uniform(-2, 1))


@pytest.mark.parametrize("seed", range(4))
def test_regression_is_scikit_learns(seed):
    from sklearn.linear_model import LogisticRegression

    x, y, c, strength = problem(seed)
    W, b = C.softmax_regression(x, y, C=strength, classes=c, tol=1e-8, steps=2000)
    ref = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(W.T, ref.coef_, atol=1e-3)
    p = C.softmax(torch.tensor(x @ W + b)).numpy()
    np.testing.assert_allclose(p, ref.predict_proba(x), atol=1e-3)


def test_regression_loss_and_gradient_are_torchs():
    x, y, c, strength = problem(7)
    ones = np.hstack([x, np.ones((len(x), 1))])
    w = np.random.default_rng(0).standard_normal(ones.shape[1] * c)
    loss, grad = C.regression_loss(w, ones, np.eye(c)[y], strength)
    W = torch.tensor(w.reshape(-1, c), requires_grad=True)
    z = torch.tensor(ones) @ W
    penalty = W[:-1].square().sum() / (2 * strength)
    wanted = F.cross_entropy(z, torch.tensor(y)) + penalty / len(x)
    wanted.backward()
    assert abs(loss - wanted.item()) < 1e-9
    np.testing.assert_allclose(grad, W.grad.numpy().ravel(), atol=1e-9)


def test_regression_stops_when_told():
    x, y, c, _ = problem(3)
    few = C.softmax_regression(x, y, classes=c, steps=1)[0]
    many = C.softmax_regression(x, y, classes=c)[0]
    assert abs(few - many).max() > 1e-3


REGRESSION = [
    ({"x": np.zeros((3, 2, 2))}, "x"),
    ({"x": np.full((3, 2), np.nan)}, "x"),
    ({"x": np.zeros((0, 2))}, "x"),
    ({"C": 0.0}, "C"),
    ({"C": -1.0}, "C"),
    ({"labels": [0, 1]}, "labels"),
    ({"labels": [0, 1, 10]}, "labels"),
    ({"labels": [0, -1, 1]}, "labels"),
    ({"labels": [0.5, 1, 2]}, "labels"),
]


@pytest.mark.parametrize("bad, name", REGRESSION)
def test_regression_refuses(bad, name):
    given = {"x": np.zeros((3, 2)), "labels": [0, 1, 2]} | bad
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        C.softmax_regression(given.pop("x"), given.pop("labels"), **given)


def test_counts_are_those_of_a_loop():
    ids = torch.randint(0, 8, (20, 6), generator=torch.Generator().manual_seed(0))
    rows = [[float((row == k).sum()) for k in range(1, 8)] for row in ids]
    assert C.counts(ids, 7).tolist() == rows


def test_a_matrix_behind_the_interface():
    x, y, c, _ = problem(1)
    x = torch.tensor(x).float()
    y = y % 10
    model = C.train_linear_classifier(x, y, embed=lambda t: t.flatten(1), C=0.3)
    W, b = C.softmax_regression(x.numpy(), y, C=0.3)
    p = C.softmax(torch.tensor(x.numpy() @ W + b)).numpy()
    np.testing.assert_allclose(model.predict_proba(x), p, atol=1e-3)
    assert not model.training


# --- networks


def by_hand(net, x):
    "A convolution, its norm and a ReLU, three times over time."
    convs = [m for m in net.body if isinstance(m, nn.Conv1d)]
    norms = [m for m in net.body if isinstance(m, nn.BatchNorm1d)]
    for i, (conv, norm) in enumerate(zip(convs, norms)):
        x = F.relu(norm(F.conv1d(F.pad(x, (2, 2)), conv.weight)))
        if i < 2:
            x = F.max_pool1d(x, 2)
    return x


def test_audio_net_by_hand():
    g = torch.Generator().manual_seed(0)
    x = -60 * torch.rand(4, 20, 51, generator=g)
    net = C.AudioNet()
    net.train()(x)  # norms with statistics of their own
    net.eval()
    h = by_hand(net, standardise_mel(x))
    both = torch.cat([h.mean(2), h.max(2).values], 1)
    assert_close(net(x), net.head[1](both))


def test_text_net_sums_embeddings_and_passes_over_zeros():
    net = C.TextNet(9).eval()
    ids = torch.tensor([[3, 5, 0, 0], [5, 0, 3, 0]])
    a, b = net(ids)
    assert_close(a, b)  # neither order nor place counts
    summed = net.embed.weight[3] + net.embed.weight[5]
    assert_close(net.head(summed), a)
    assert not net.embed.weight[0].any()


def test_sizes():
    "The shipped weights fit these and no others."
    makers = {
        C.ImageNet28: 114_410,
        C.AudioNet: 49_034,
        shipped.VoiceNet: 133_170,
        shipped.WideVoiceNet: 285_450,
    }
    assert {make: count_parameters(make()) for make in makers} == makers
    x = torch.zeros(2, 20, 40)
    assert shipped.VoiceNet().eval()(x).shape == C.AudioNet().eval()(x).shape == (2, 10)


@pytest.mark.parametrize("make", [C.AudioNet, shipped.VoiceNet])
def test_loudness_does_not_count(make):
    with seeded(0):
        net, x = make().eval(), 20 * torch.randn(3, 20, 51)
    assert_close(net(x), net(2 * x), atol=1e-3, rtol=1e-3)


# --- Keras


def pictures(n, seed=0):
    return torch.randn(n, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def both(seed):
    "The image network in torch and in Keras, with the same weights."
    with seeded(seed):
        ours, theirs = C.ImageNet28(), C.keras_image_net()
    with torch.no_grad():
        for _ in range(3):
            ours.train()(pictures(8, seed))  # norms with statistics of their own
    return ours.eval(), to_keras(ours, theirs)


@pytest.mark.parametrize("seed", range(2))
def test_the_same_weights_the_same_answers(seed):
    ours, theirs = both(seed)
    x = pictures(5, seed + 9)
    wanted = predict(ours, x)
    assert_close(predict(C.as_module(theirs), x), wanted, atol=2e-4, rtol=1e-4)
    alone = theirs.predict(x.numpy(), verbose=0)
    np.testing.assert_allclose(alone, wanted.numpy(), atol=2e-4, rtol=1e-4)


def test_one_step_of_training_moves_both_alike():
    ours, theirs = both(0)
    for m in ours.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    for layer in theirs.layers:
        if type(layer).__name__ == "Dropout":
            layer.rate = 0.0
    nets, data = (ours, C.as_module(theirs)), (pictures(16), torch.arange(16) % 10)
    sgd = {"optimizer": torch.optim.SGD, "weight_decay": 0.0, "lr": 0.1}
    for net in nets:
        fit(net, data, epochs=1, batch_size=16, **sgd)
    first, second = (predict(net, data[0]) for net in nets)
    assert_close(second, first, atol=5e-3, rtol=5e-3)


def norms(model):
    return [x for x in model.layers if type(x).__name__ == "BatchNormalization"]


def test_each_default_is_put_back_by_itself():
    plain, pads = C.keras_image_net(), C.keras_image_net(padding="same")
    assert plain.count_params() == pads.count_params() == 114_410 + 2 * (16 + 32)
    kinds = [type(x).__name__ for x in pads.layers]
    assert "ZeroPadding2D" not in kinds
    assert [x.padding for x in pads.layers if hasattr(x, "strides")] == ["same"] * 2
    assert {n.epsilon for n in norms(plain)} == {1e-5}
    assert {n.momentum for n in norms(plain)} == {0.9}
    other = C.keras_image_net(epsilon=1e-3, momentum=0.99)
    assert {n.epsilon for n in norms(other)} == {1e-3}
    assert {n.momentum for n in norms(other)} == {0.99}


def dense_weights(model):
    layers = [x for x in model.layers if hasattr(x, "kernel")]
    return [[np.asarray(w) for w in x.get_weights()] for x in layers]


def test_weights_start_as_torchs_do():
    with seeded(0):
        ours = dense_weights(C.keras_image_net())
        other = dense_weights(C.keras_image_net(start=lambda inputs: {}))
    for layer, inputs in zip(ours, (25, 400, 1568, 64)):
        for w in layer:
            assert 0.6 * inputs**-0.5 < abs(w).max() <= inputs**-0.5 * (1 + 1e-6)
    assert not any(bias.any() for _, bias in other)
    assert other[2][0].std() > 2 * ours[2][0].std()  # Glorot draws larger ones


def test_dropout_and_norms_follow_the_mode():
    with seeded(0):
        net, x = C.as_module(C.keras_image_net()), pictures(8)
        before = [np.array(w) for w in net.model.get_weights()]
        assert torch.equal(net.eval()(x), net(x))
        net.train()
        assert not torch.equal(net(x), net(x))
    after = net.model.get_weights()
    assert any((a != b).any() for a, b in zip(before, after))  # running means


@pytest.mark.parametrize("bad", [None, "net", len, 3])
def test_no_network(bad):
    refused(C.as_module, bad, name="net", error=TypeError)
    train = partial(C.train_audio_classifier, torch.zeros(3, 20, 51), [0, 1, 2])
    refused(train, net=lambda: bad, name="net", error=TypeError)


# --- one interface


def toy(n=160):
    "Pictures of a bright block at one of ten places."
    g = torch.Generator().manual_seed(0)
    y = torch.randint(10, (n,), generator=g)
    x = 0.3 * torch.randn(n, 1, 28, 28, generator=g)
    for i, d in enumerate(y.tolist()):
        row, column = 5 * (d // 5) + 4, 5 * (d % 5)
        x[i, 0, row : row + 4, column : column + 4] += 3
    return x, y.numpy()


@pytest.mark.parametrize("net", [C.ImageNet28, C.keras_image_net])
def test_one_interface(net):
    x, y = toy()
    train = partial(C.train_image_classifier, x[:120], y[:120], net=net, epochs=6)
    model, again, other = train(seed=1), train(seed=1), train(seed=2)
    p = model.predict_proba(x)
    np.testing.assert_allclose(p.sum(1), 1)
    assert np.array_equal(p.argmax(1), model.predict(x))
    assert model.predict(x).dtype == np.int64
    assert (model.predict(x[120:]) == y[120:]).mean() > 0.8
    np.testing.assert_allclose(again.predict_proba(x), p, atol=1e-5)
    assert abs(other.predict_proba(x) - p).max() > 1e-3


def test_calibrating_changes_how_sure_and_not_what():
    x, y = toy()
    model = C.train_image_classifier(x[:120], y[:120], epochs=6)
    p, z = model.predict_proba(x), predict(model, x)
    assert C.calibrate(model, x[120:], y[120:]) is model
    T = float(model.temperature)
    assert abs(T - C.fit_temperature(z[120:], y[120:])) < 1e-6 and T != 1
    assert np.array_equal(model.predict(x), p.argmax(1))
    np.testing.assert_allclose(model.predict_proba(x), (z / T).softmax(1), atol=1e-5)
    C.calibrate(model, x[120:], y[120:])  # starts from the logits, not from its last
    assert abs(float(model.temperature) - T) < 1e-6


def test_text_and_audio_classifiers_learn():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 10
    ids = torch.cat([y[:, None] + 1, torch.randint(11, 30, (300, 3), generator=g)], 1)
    model = C.train_text_classifier(ids[:200], y[:200], epochs=12)
    assert (model.predict(ids[200:]) == y[200:].numpy()).mean() > 0.8
    assert model.net.embed.num_embeddings == int(ids.max()) + 1
    mel = torch.full((300, 20, 12), -60.0) + torch.rand(300, 20, 12, generator=g)
    mel[torch.arange(300), 2 * y] = 0.0  # one loud band
    model = C.train_audio_classifier(mel[:200], y[:200], epochs=4)
    assert (model.predict(mel[200:]) == y[200:].numpy()).mean() > 0.8


def test_options_reach_the_loop():
    x, y = toy(40)
    seen = []
    options = {"on_epoch": lambda h: seen.append(h.lr[-1]), "lr": 1e-5}
    C.train_image_classifier(x, y, epochs=3, schedule=lambda s, n: 0.5, **options)
    assert seen == [5e-6] * 3


BAD_LABELS = [[0, 1, 10], [0, -1, 1], [0.5, 1, 2], [[0], [1], [2]], [], "012"]


@pytest.mark.parametrize("bad", BAD_LABELS)
def test_labels_are_named(bad):
    train = partial(C.train_image_classifier, torch.zeros(3, 1, 28, 28))
    with pytest.raises((ValueError, TypeError), match="^labels: "):
        train(bad)
    with pytest.raises((ValueError, TypeError), match="^labels: "):
        C.fit_temperature(np.zeros((3, 10)), bad)


# --- temperature


@fast
@given(*sizes, st.sampled_from([0.1, 1.0, 10.0]))
def test_temperature_is_scipys(n, c, seed, scale):
    from scipy.optimize import minimize_scalar

    z, y = made(n + 20, c, seed, scale)
    often = torch.arange(len(z)) % 3 > 0
    y = torch.where(often, z.argmax(1), y)  # often, not always, right

    def loss(log_t):
        return F.cross_entropy(z / np.exp(log_t), y).item()

    T, ends = C.fit_temperature(z, y), (np.log(0.05), np.log(20))
    best = minimize_scalar(loss, ends, ends, method="bounded", options={"xatol": 1e-10})
    assert T * 1.0001 >= 0.05 and T <= 20 * 1.0001
    assert loss(np.log(T)) <= best.fun + 1e-8


def test_temperature_undoes_a_temperature():
    rng = np.random.default_rng(0)
    z = 2 * rng.standard_normal((20_000, 5))
    p = torch.tensor(z).softmax(1).numpy()
    y = (p.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    for scale in (1, 4, 1 / 3):
        assert abs(C.fit_temperature(z * scale, y) / scale - 1) < 0.06


def test_temperature_at_the_ends_of_its_range():
    z, y = torch.eye(4) * 3, torch.arange(4)
    assert np.isclose(C.fit_temperature(z, y), 0.05, rtol=1e-3)  # always right
    assert np.isclose(C.fit_temperature(z, (y + 1) % 4), 20, rtol=1e-3)  # never
    assert np.isclose(C.fit_temperature(z, y, low=0.5), 0.5, rtol=1e-3)


@pytest.mark.parametrize("bad", [np.zeros(3), np.full((3, 10), np.nan), []])
def test_no_logits(bad):
    refused(C.fit_temperature, bad, [0, 1, 2], name="logits", error=ValueError)


# --- the shipped weights

FILE = data_path("classifiers.safetensors")
LOADERS = {"image": (mnist, 0.98), "audio": (spoken_digits, 0.91)}


@pytest.mark.parametrize("modality", LOADERS)
def test_shipped_weights_do_what_the_card_says(modality):
    load, floor = LOADERS[modality]
    view, models = load_features(load), shipped.read_classifiers(FILE, modality)
    right = {}
    for split in ("valid", "test"):
        x, y = view[split]["features"][modality], view[split]["label"].numpy()
        right[split] = [(m.predict(x) == y).mean() for m in models]
    assert len(models) == 3 and np.mean(right["test"]) > floor
    said = read_tensors(FILE)[1]["valid"][modality]
    np.testing.assert_allclose(right["valid"], said, atol=0.01)
    assert all(float(m.temperature) != 1 for m in models)


def test_shipped_weights_refuse(tmp_path):
    refused(shipped.read_classifiers, FILE, "text", name="modality", error=ValueError)
    damaged = tmp_path / "x.safetensors"
    damaged.write_bytes(Path(FILE).read_bytes()[:-100] + bytes(100))
    with pytest.raises(CheckpointError):
        shipped.read_classifiers(damaged, "image")


def test_import_is_light():
    heavy = ["keras", "librosa", "sklearn", "matplotlib", "scipy", "nltk"]
    code = f"import sys, mmcourse.classifiers; print({{*{heavy}}} & {{*sys.modules}})"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, env=env, check=True)
    assert out.stdout.strip() == "set()"
