"""`fit` against a loop written out in torch, exact resume in a fresh process, and everything a caller can get wrong."""

import json
import math
import os
import random
import struct
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

from mmcourse import checkpoint as C
from mmcourse.checkpoint import (
    CheckpointError,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from mmcourse.measure import (
    confusion,
    nll,
    over_seeds,
    paired_bootstrap,
    seeded,
    sign_test,
)
from mmcourse.training import (
    accuracy,
    batches,
    cosine,
    evaluating,
    fit,
    hits,
    jitter,
    param_groups,
    predict,
    seed_everything,
    take,
    tree_map,
    warmup_cosine,
)

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)


def problem(n=90, d=6, classes=3):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(n, d, generator=g)
    return x, (x @ torch.randn(d, classes, generator=g)).argmax(1)


X, Y = problem()
TRAIN, VALID = (X[:70], Y[:70]), (X[70:], Y[70:])


def net(seed=1, dropout=0.3):
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(6, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(16, 3),
        )


def wobble(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)


def wobble_global(x, generator):
    return (
        x
        + float(np.random.rand()) * 0.1
        + random.random() * 0.1
        + 0.01 * torch.randn(1)
    )  # an augmentation that ignores its generator


def same(a, b):
    return all(
        torch.equal(u, v)
        for u, v in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def weights(m):
    return {k: v.clone() for k, v in m.state_dict().items()}


# --- the loop


def test_fit_equals_a_loop_written_out():
    ours, theirs = net(dropout=0), net(dropout=0)
    h = fit(
        ours,
        TRAIN,
        epochs=3,
        batch_size=20,
        lr=0.01,
        weight_decay=0.1,
        schedule=warmup_cosine,
        clip=0.5,
        seed=4,
    )
    decays, rest = (
        [p for p in theirs.parameters() if p.ndim > 1],
        [p for p in theirs.parameters() if p.ndim < 2],
    )
    opt = torch.optim.AdamW(
        [{"params": decays, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0}],
        lr=0.01,
    )
    sched, g, losses = (
        torch.optim.lr_scheduler.LambdaLR(opt, lambda i: warmup_cosine(i, 12)),
        torch.Generator().manual_seed(4),
        [],
    )
    for _ in range(3):
        total = 0
        for rows in torch.randperm(70, generator=g).tensor_split(4):
            loss = F.cross_entropy(theirs(X[rows]), Y[rows])
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            opt.step()
            sched.step()
            total += loss.item() * len(rows)
        losses.append(total / 70)
    assert all(
        torch.allclose(a, b, atol=1e-6)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values())
    )
    assert h.train_loss == pytest.approx(losses, rel=1e-5) and h.lr == pytest.approx(
        [0.01 * warmup_cosine(i, 12) for i in (3, 7, 11)]
    )


def test_it_learns():
    m = net()
    h = fit(m, TRAIN, VALID, epochs=40, batch_size=10, lr=0.02)
    assert accuracy(m, TRAIN) > 0.9 and h.train_loss[-1] < h.train_loss[0] / 2


def test_same_seed_same_weights_whatever_the_caller_drew():
    a, b, c = net(), net(), net()
    kw = {"epochs": 2, "augment": wobble_global, "batch_size": 16}
    torch.rand(3)
    fit(a, TRAIN, **kw)
    np.random.rand(7)
    random.random()
    fit(b, TRAIN, **kw)
    fit(c, TRAIN, seed=1, **kw)
    assert same(a, b) and not same(a, c)


def test_the_callers_dice_are_left_alone():
    def roll():
        return (
            torch.rand(2).tolist(),
            np.random.rand(2).tolist(),
            np.random.randn(),
            random.random(),
            random.gauss(0, 1),
        )

    def begin():
        seed_everything(3)
        np.random.randn()
        random.gauss(0, 1)  # with a spare normal in both

    begin()
    expected = roll()
    begin()
    fit(net(), TRAIN, VALID, epochs=1, augment=wobble_global)
    over_seeds(lambda s: torch.rand(1), range(2))
    assert roll() == expected


def test_dice_are_put_back_after_an_error():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError), seeded(5):
        torch.rand(9)
        1 / 0
    assert torch.equal(torch.rand(1), expected)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(2, 3)

    def forward(self, x):
        x, z = (x["image"], x["audio"]) if isinstance(x, dict) else x
        return self.a(x) + self.b(z)


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": X, "audio": X[:, :2]},
        (X, X[:, :2]),
        {"image": X.numpy(), "audio": X[:, :2].numpy()},
    ],
    ids=["dict", "tuple", "arrays"],
)
def test_inputs_of_several_parts(inputs):
    with seeded(0):
        m = Pair()
    h = fit(m, (inputs, Y), (inputs, Y.numpy()), epochs=3, batch_size=32)
    assert (
        len(h) == 3
        and h.valid_accuracy[-1] == pytest.approx(accuracy(m, (inputs, Y)))
        and predict(m, inputs).shape == (90, 3)
    )
    with seeded(0):
        twin = Pair()
    fit(twin, ({"image": X, "audio": X[:, :2]}, Y), epochs=3, batch_size=32)
    assert same(m, twin)


def test_several_outputs_and_losses():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(6, 4)

        def forward(self, x):
            h = self.f(x)
            return {"class": h[:, :3], "size": h[:, 3]}

    loss = lambda out, y: (
        F.cross_entropy(out["class"], y["class"]) + F.mse_loss(out["size"], y["size"])
    )
    data, m = (X, {"class": Y, "size": X[:, 0]}), Two()
    h = fit(m, data, data, epochs=2, loss=loss)
    assert (
        all(map(math.isnan, h.valid_accuracy))
        and h.valid_loss[1] < h.valid_loss[0]
        and h.best == 1
    )
    assert {k: v.shape for k, v in predict(m, X, batch_size=7).items()} == {
        "class": (90, 3),
        "size": (90,),
    }
    share = lambda out, y: hits(out["class"], y["class"]).float().mean()
    assert (
        0
        <= fit(
            m,
            data,
            data,
            epochs=1,
            loss=loss,
            metric=share,
            monitor="accuracy",
            keep_best=True,
        ).valid_accuracy[0]
        <= 1
    )
    with pytest.raises(FloatingPointError, match="epoch 1: validation accuracy is nan"):
        fit(m, data, data, loss=loss, monitor="accuracy")


def test_one_logit_and_soft_targets():
    m = nn.Linear(6, 1)
    y = (X[:, 0] > 0).float()[:, None]
    h = fit(
        m, (X, y), (X, y), epochs=30, lr=0.1, loss=F.binary_cross_entropy_with_logits
    )
    assert (
        h.valid_accuracy[-1] > 0.9 and accuracy(m, (X, y[:, 0])) == h.valid_accuracy[-1]
    )
    soft = F.one_hot(Y, 3).float()
    with seeded(0):
        a, b = (torch.manual_seed(i) and nn.Linear(6, 3) for i in (1, 1))
    assert (
        fit(a, (X, Y), (X, Y), epochs=3).valid_accuracy
        == fit(b, (X, soft), (X, soft), epochs=3).valid_accuracy
    )


def test_small_integers_will_do_as_targets():
    fit(net(), (X, Y.numpy().astype(np.uint8)), epochs=1)
    assert 0 <= accuracy(net(), (X, Y.int())) <= 1


def test_label_smoothing_and_frozen_parts():
    m = net()
    m[0].requires_grad_(False)
    before = weights(m)
    fit(m, TRAIN, epochs=2, loss=partial(F.cross_entropy, label_smoothing=0.1))
    assert torch.equal(before["0.weight"], m[0].weight) and not torch.equal(
        before["4.weight"], m[4].weight
    )


def test_clip_bounds_the_step():
    m = nn.Linear(6, 3)
    before = weights(m)
    fit(
        m,
        (1000 * X, Y),
        epochs=1,
        batch_size=90,
        lr=1.0,
        optimizer=torch.optim.SGD,
        weight_decay=0,
        clip=0.25,
    )
    assert math.sqrt(
        sum(((before[k] - v) ** 2).sum() for k, v in m.state_dict().items())
    ) == pytest.approx(0.25, rel=1e-3)


def test_decay_pulls_matrices_alone():
    m = net()
    with_, without = param_groups(m, 0.1)
    assert with_["weight_decay"] == 0.1 and {p.ndim for p in with_["params"]} == {2}
    assert without["weight_decay"] == 0 and {p.ndim for p in without["params"]} == {1}
    assert sum(len(g["params"]) for g in (with_, without)) == len(list(m.parameters()))


def test_keep_best_and_patience():
    m, seen = net(), []
    h = fit(
        m,
        TRAIN,
        VALID,
        epochs=60,
        lr=0.3,
        batch_size=10,
        patience=4,
        keep_best=True,
        on_epoch=lambda h: seen.append(weights(m)),
    )
    assert len(h) < 60 and h.stale == 4 and h.best == int(np.argmin(h.valid_loss))
    assert all(torch.equal(v, seen[h.best][k]) for k, v in m.state_dict().items())
    a = fit(net(), TRAIN, VALID, epochs=8, monitor="accuracy")
    assert a.best == int(np.argmax(a.valid_accuracy))
    torch.manual_seed(0)
    m = nn.Linear(6, 3)  # an accuracy that is merely equalled is no improvement
    still = fit(
        m,
        TRAIN,
        VALID,
        lr=1e-30,
        weight_decay=0,
        optimizer=torch.optim.SGD,
        monitor="accuracy",
        patience=2,
    )
    assert still.best == 0 and len(still) == 3


def test_on_epoch_stops():
    assert (
        len(fit(net(), TRAIN, epochs=9, on_epoch=lambda h: len(h) == 2)) == 2
        and len(fit(net(), TRAIN, epochs=3, on_epoch=lambda h: None)) == 3
    )


def test_history_without_validation():
    h = fit(net(), TRAIN, epochs=2)
    assert (
        h.valid_loss == []
        and h.best is None
        and h.stale == 0
        and len(h.seconds) == len(h.lr) == 2
    )


def test_a_lone_last_example_does_no_harm():
    fit(
        net(), (X[:33], Y[:33]), epochs=1, batch_size=32
    )  # batch norm cannot train on one


# --- what a caller can get wrong


@pytest.mark.parametrize(
    "data,says",
    [
        (X, r"train: expected a pair \(inputs, targets\), got Tensor"),
        ((X,), "got 1 parts"),
        (None, "got NoneType"),
        ({"image": X, "label": Y}, "got a dict with 'image', 'label'"),
        ((X, Y[:5]), "train: expected as many targets as inputs, got 5 and 90"),
        (
            ({"image": X, "audio": X[:4]}, Y),
            r"train inputs: expected as many rows in every part, got 90 in train inputs\['image'\], 4 in train inputs\['audio'\]",
        ),
        ((X[:0], Y[:0]), "train inputs: expected at least one example, got none"),
        (({}, Y), "train inputs: expected at least one tensor, got an empty dict"),
        (
            (X * torch.nan, Y),
            "train inputs: expected finite numbers, got 540 that are not, the first in row 0",
        ),
        (
            (torch.where(torch.arange(90)[:, None] == 7, torch.inf, X), Y),
            "got 6 that are not, the first in row 7",
        ),
        ((X, Y + torch.nan), "train targets: expected finite numbers"),
        (
            (["a"] * 90, Y),
            "train inputs: expected a tensor, an array, or a tuple or dict of them, got list",
        ),
        (({"text": ["a"] * 90}, Y), r"train inputs\['text'\]: expected a tensor"),
        (
            (np.array(["a"] * 90), Y),
            "expected numbers, got an array of <U1; encode text first",
        ),
        (
            (X, torch.tensor(3)),
            "train targets: expected one row for each example, got a single number",
        ),
        ((X, None), "train targets: expected a tensor"),
        (((X, (X, [1])), Y), r"inputs\[1\]\[1\]"),
    ],
)
def test_bad_data_is_named(data, says):
    before = weights(m := net())
    with pytest.raises(ValueError, match=says):
        fit(m, data)
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


def test_bad_validation_data_is_named():
    with pytest.raises(ValueError, match="valid inputs: expected at least one example"):
        fit(net(), TRAIN, (X[:0], Y[:0]))


@pytest.mark.parametrize(
    "options,says",
    [
        ({"epochs": 0}, "epochs: expected a positive integer, got 0"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": -1}, "batch_size"),
        ({"patience": 0}, "patience"),
        ({"lr": 0}, "lr: expected a positive number, got 0"),
        ({"lr": math.nan}, "lr"),
        ({"lr": "fast"}, "lr"),
        ({"clip": -1}, "clip"),
        ({"weight_decay": -1}, "weight_decay: expected a number from 0, got -1"),
        ({"seed": 0.5}, "seed: expected an integer"),
        ({"monitor": "f1"}, "monitor: expected 'loss' or 'accuracy', got 'f1'"),
        ({"keep_best": True}, "valid: expected validation data"),
        ({"patience": 2}, "valid: expected validation data"),
        ({"optimizer": "adam"}, "optimizer: expected a function of"),
        (
            {"optimizer": torch.optim.SGD(net().parameters(), lr=0.1)},
            "optimizer: expected a function of .*got SGD",
        ),
    ],
)
def test_bad_options_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        fit(net(), TRAIN, **options)


def test_nothing_to_train():
    with pytest.raises(
        ValueError, match="model: expected at least one parameter to train"
    ):
        fit(net().requires_grad_(False), TRAIN)


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(
        FloatingPointError,
        match=r"epoch 1, step 2 of 7: the loss is (nan|inf); a smaller lr",
    ):
        fit(net(), TRAIN, batch_size=10, lr=1e30, optimizer=torch.optim.SGD)
    bad_on_validation = lambda o, y: (
        F.cross_entropy(o, y) * (1 if o.requires_grad else math.nan)
    )
    with pytest.raises(FloatingPointError, match="epoch 1: validation loss is nan"):
        fit(net(), TRAIN, VALID, loss=bad_on_validation)


# --- asking


def test_predict_is_the_same_in_any_batches():
    m = net()
    whole = predict(m, X)
    assert torch.allclose(
        predict(m, X, batch_size=7), whole, atol=1e-6
    ) and torch.allclose(whole, m.eval()(X), atol=1e-6)


def test_modes_come_back():
    m = net().train()
    m[1].eval()
    predict(m, X)
    assert (
        [c.training for c in m] == [True, False, True, True, True]
        and m.training
        and torch.is_grad_enabled()
    )
    with pytest.raises(ZeroDivisionError), evaluating(m):
        1 / 0
    assert m.training and torch.is_grad_enabled()


def test_fit_leaves_evaluation_mode():
    m = net()
    fit(m, TRAIN, epochs=1)
    assert not any(c.training for c in m.modules())


@pytest.mark.parametrize(
    "inputs,says",
    [
        (X[:0], "inputs: expected at least one example"),
        (X * torch.inf, "inputs: expected finite"),
        (["a"], "inputs: expected a tensor"),
        ({"a": X, "b": X[:3]}, r"90 in inputs\['a'\], 3 in inputs\['b'\]"),
    ],
)
def test_predict_refuses(inputs, says):
    with pytest.raises(ValueError, match=says):
        predict(net(), inputs)


@given(
    st.integers(2, 6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60),
)
@settings(max_examples=40, deadline=None)
def test_confusion_equals_sklearn(c, pairs):
    from sklearn.metrics import confusion_matrix

    y, g = np.array([p[0] % c for p in pairs]), np.array([p[1] % c for p in pairs])
    assert (
        confusion(y, g, c).numpy() == confusion_matrix(y, g, labels=range(c))
    ).all() and confusion(torch.tensor(y), torch.tensor(g)).sum() == len(y)


@pytest.mark.parametrize(
    "y,g,c",
    [([0], [0, 1], None), ([], [], None), ([0, -1], [0, 0], None), ([0, 3], [0, 1], 3)],
)
def test_confusion_refuses(y, g, c):
    with pytest.raises(ValueError, match="(targets|guesses): expected"):
        confusion(y, g, c)


def test_nll_equals_sklearn():
    from sklearn.metrics import log_loss

    z = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 4
    assert nll(z, y) == pytest.approx(
        log_loss(y, z.double().softmax(1)), rel=1e-5
    ) and nll(z.numpy(), y.numpy()) == pytest.approx(nll(z, y))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
@settings(max_examples=60, deadline=None)
def test_sign_test_equals_scipy(pairs):
    from scipy.stats import binomtest

    a, b = np.array(pairs).T
    n = int((a != b).sum())
    assert sign_test(a, b) == pytest.approx(
        binomtest(int((a & ~b).sum()), n).pvalue if n else 1.0
    )


def test_bootstrap():
    rng = np.random.default_rng(0)
    hard = rng.random(800)
    a, b = hard < 0.9, hard < 0.85
    d, low, high = paired_bootstrap(a, b)
    se = (a * 1.0 - b).std() / math.sqrt(800)
    assert d == pytest.approx(a.mean() - b.mean()) and (low, high) == pytest.approx(
        (d - 1.96 * se, d + 1.96 * se), abs=0.15 * se
    )
    assert (
        paired_bootstrap(a, a) == (0, 0, 0)
        and paired_bootstrap(b, a)[0] == -d
        and paired_bootstrap(np.stack([a, b]).mean(0), b)[0] == pytest.approx(d / 2)
    )
    for bad in ((a, b[:5]), ([], [])):
        with pytest.raises(ValueError, match="^(a|a, b): expected"):
            paired_bootstrap(*bad)


def test_bootstrap_covers_the_truth():
    rng, inside = np.random.default_rng(1), 0
    for i in range(200):
        u = rng.random(300)
        _, low, high = paired_bootstrap(
            u < 0.8, (u < 0.75) ^ (rng.random(300) < 0.05), n=600, seed=i
        )
        inside += low <= 0.8 - (0.75 * 0.95 + 0.25 * 0.05) <= high
    assert 0.89 < inside / 200 < 0.99


# --- small parts


@given(st.integers(1, 300), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_batches_are_a_partition(n, size, seed):
    parts = batches(n, size, torch.Generator().manual_seed(seed))
    lengths = [len(p) for p in parts]
    assert (
        sorted(torch.cat(parts).tolist()) == list(range(n))
        and len(parts) == math.ceil(n / size)
        and max(lengths) <= size
        and max(lengths) - min(lengths) <= 1
    )


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_schedules_stay_in_range(steps, warmup, floor):
    for f in (
        partial(cosine, floor=floor),
        partial(warmup_cosine, warmup=warmup, floor=floor),
    ):
        v = [f(i, steps) for i in range(steps)]
        assert all(0 <= x <= 1 + 1e-9 for x in v)
        top = int(np.argmax(v))
        assert v[top] == pytest.approx(1) and all(
            a >= b - 1e-9 for a, b in zip(v[top:], v[top + 1 :])
        )
    assert cosine(steps, steps, floor) == pytest.approx(floor)


@pytest.mark.parametrize("steps", [10, 97])
def test_schedules_equal_torch(steps):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    s = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps, eta_min=0.1)
    for i in range(steps):
        assert opt.param_groups[0]["lr"] == pytest.approx(
            cosine(i, steps, 0.1), abs=1e-6
        )
        opt.step()
        s.step()


@given(st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_jitter_is_a_roll(by, seed):
    def generator():
        return torch.Generator().manual_seed(seed)

    x, (dy, dx) = (
        torch.rand(5, 8, 6, generator=generator()),
        torch.randint(-by, by + 1, (2, 5, 1), generator=generator()),
    )
    y = jitter(x, generator(), by=by)
    for i in range(5):
        assert torch.equal(y[i], x[i].roll((-dy[i].item(), -dx[i].item()), (0, 1)))


def test_each_and_take():
    data = {
        "a": torch.arange(4),
        "b": (torch.arange(8).reshape(4, 2), {"c": torch.arange(4.0)}),
    }
    got = take(data, torch.tensor([3, 0]))
    assert tree_map(torch.Tensor.tolist, got) == {
        "a": [3, 0],
        "b": ([[6, 7], [0, 1]], {"c": [3, 0]}),
    } and tree_map(len, data) == {"a": 4, "b": (4, {"c": 4})}


def test_over_seeds_isolates():
    def run(seed):
        return seed, torch.rand(2).tolist(), random.random(), np.random.rand()

    first = over_seeds(run, (3, 8))
    torch.rand(5)
    random.random()
    assert (
        first == over_seeds(run, (3, 8))
        and first[0][1] != first[1][1]
        and [r[0] for r in first] == [3, 8]
    )
    assert over_seeds(run, [-1]) == over_seeds(run, [-1])


# --- checkpoints

OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "SGD": torch.optim.SGD,
    "Adagrad": torch.optim.Adagrad,
    "RMSprop": partial(torch.optim.RMSprop, momentum=0.5, centered=True),
    "NAdam": torch.optim.NAdam,
    "AMSGrad": partial(torch.optim.Adam, amsgrad=True),
}


@pytest.mark.parametrize("augment", [None, wobble, wobble_global])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_is_exact(name, augment, tmp_path):
    kw = {
        "epochs": 5,
        "lr": 0.01,
        "batch_size": 16,
        "optimizer": OPTIMIZERS[name],
        "schedule": warmup_cosine,
        "augment": augment,
        "keep_best": True,
        "clip": 1.0,
    }
    path, through, half, after = tmp_path / "run.safetensors", net(), net(), net(seed=9)
    h = fit(through, TRAIN, VALID, **kw)
    fit(half, TRAIN, VALID, **kw, checkpoint=path, on_epoch=lambda h: len(h) == 2)
    g = fit(after, TRAIN, VALID, **kw, checkpoint=path)
    assert same(through, after) and (
        h.train_loss,
        h.valid_loss,
        h.valid_accuracy,
        h.lr,
        h.best,
    ) == (g.train_loss, g.valid_loss, g.valid_accuracy, g.lr, g.best)


SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
from test_training import *
kw = dict(epochs=4, lr=.01, batch_size=16, optimizer=OPTIMIZERS[{name!r}], schedule=warmup_cosine, augment=wobble, keep_best=True)
m = net()
fit(m, TRAIN, VALID, **kw, checkpoint={path!r}, on_epoch=lambda h: len(h) == {stop} and os._exit(9))
write_tensors({out!r}, m.state_dict(), dict())
"""


@pytest.mark.parametrize("name", ["AdamW", "momentum"])
def test_going_on_in_a_fresh_process_is_exact(name, tmp_path):
    def process(stop):
        script = SCRIPT.format(
            root=str(ROOT / "tests"),
            name=name,
            path=str(tmp_path / "run.safetensors"),
            out=str(tmp_path / "end.safetensors"),
            stop=stop,
        )
        return subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    assert process(stop=2).returncode == 9 and [p.name for p in tmp_path.iterdir()] == [
        "run.safetensors"
    ]
    last = process(stop=0)
    assert last.returncode == 0, last.stderr
    m = net()
    fit(
        m,
        TRAIN,
        VALID,
        epochs=4,
        lr=0.01,
        batch_size=16,
        optimizer=OPTIMIZERS[name],
        schedule=warmup_cosine,
        augment=wobble,
        keep_best=True,
    )
    saved, _ = read_tensors(tmp_path / "end.safetensors")
    assert all(torch.equal(v, saved[k]) for k, v in m.state_dict().items())


def test_a_finished_run_is_not_run_again(tmp_path):
    kw = {
        "epochs": 30,
        "lr": 0.3,
        "batch_size": 10,
        "patience": 2,
        "keep_best": True,
        "checkpoint": tmp_path / "c.safetensors",
    }
    a, b = net(), net(seed=2)
    h = fit(a, TRAIN, VALID, **kw)
    before = kw["checkpoint"].read_bytes()
    assert (
        len(h) < 30
        and fit(b, TRAIN, VALID, **kw).train_loss == h.train_loss
        and same(a, b)
        and kw["checkpoint"].read_bytes() == before
    )


def test_more_epochs_without_a_schedule(tmp_path):
    path, a, b = tmp_path / "c.safetensors", net(), net()
    fit(a, TRAIN, epochs=2, checkpoint=path)
    h = fit(a, TRAIN, epochs=4, checkpoint=path)
    fit(b, TRAIN, epochs=4)
    assert len(h) == 4 and same(a, b)


@pytest.mark.parametrize(
    "change,says",
    [
        ({"lr": 0.02}, "lr is 0.01 there, 0.02 here"),
        ({"seed": 1}, "seed is 0 there, 1 here"),
        ({"batch_size": 8}, "batch_size"),
        ({"weight_decay": 0.0}, "weight_decay"),
        ({"epochs": 9}, "epochs is 2 there, 9 here"),
        ({"schedule": None}, "schedule is cosine there, none here"),
        ({"augment": wobble}, "augment is none there, wobble here"),
        ({"optimizer": torch.optim.SGD}, "optimizer is AdamW there, SGD here"),
        (
            {"loss": partial(F.cross_entropy, label_smoothing=0.1)},
            r"loss is cross_entropy there, cross_entropy\(label_smoothing=0.1\) here",
        ),
    ],
)
def test_another_run_is_refused(change, says, tmp_path):
    kw = {
        "epochs": 2,
        "lr": 0.01,
        "schedule": cosine,
        "checkpoint": tmp_path / "c.safetensors",
    }
    fit(net(), TRAIN, **kw)
    before = weights(m := net(seed=3))
    with pytest.raises(
        CheckpointError, match=r"c\.safetensors: belongs to another run: .*" + says
    ):
        fit(m, TRAIN, **kw | change)
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


def test_other_data_are_refused(tmp_path):
    kw = {"epochs": 2, "checkpoint": tmp_path / "c.safetensors"}
    fit(net(), TRAIN, **kw)
    with pytest.raises(CheckpointError, match="train data is"):
        fit(net(), (TRAIN[0] + 1e-6, TRAIN[1]), **kw)
    with pytest.raises(CheckpointError, match="valid data is 0 there"):
        fit(net(), TRAIN, VALID, **kw)


def saved(path, **kw):
    m = net()
    save_checkpoint(
        path,
        m,
        torch.optim.AdamW(m.parameters()),
        about={"x": 1},
        **kw,
    )
    return m


def test_save_and_load(tmp_path):
    state = torch.Generator().manual_seed(3).get_state()
    m, twin = (
        saved(
            p := tmp_path / "new" / "c.safetensors",
            rng={"g": state},
            best=net(seed=4).state_dict(),
        ),
        net(seed=8),
    )
    got = load_checkpoint(p, twin)
    assert (
        same(m, twin)
        and got["about"] == {"x": 1}
        and torch.equal(got["best"]["4.bias"], net(seed=4)[4].bias)
    )
    g = torch.Generator()
    g.set_state(got["rng"]["g"])
    assert torch.rand(1, generator=g) == torch.rand(
        1, generator=torch.Generator().manual_seed(3)
    )
    assert load_checkpoint(p, twin)["about"] == {"x": 1}


@pytest.mark.parametrize(
    "other,says",
    [
        (lambda: nn.Linear(6, 16), "'weight' is missing there"),
        (lambda: nn.Sequential(nn.Linear(6, 16)), "is unknown here; .*and [0-9]+ more"),
        (
            lambda: net().double(),
            r"'0.weight' is \(16, 6\) torch.float32 there, \(16, 6\) torch.float64 here",
        ),
        (
            lambda: nn.Sequential(nn.Linear(7, 16), *net()[1:]),
            r"'0.weight' is \(16, 6\) torch.float32 there, \(16, 7\) torch.float32 here",
        ),
    ],
)
def test_another_model_is_refused(other, says, tmp_path):
    saved(p := tmp_path / "c.safetensors")
    before = weights(m := other())
    with pytest.raises(
        CheckpointError, match="c.safetensors: does not fit the model: .*" + says
    ):
        load_checkpoint(p, m)
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


def test_another_optimizer_is_refused(tmp_path):
    saved(p := tmp_path / "c.safetensors")
    before = weights(m := net(seed=7))
    with pytest.raises(CheckpointError, match="optimizer is AdamW there, SGD here"):
        load_checkpoint(p, m, torch.optim.SGD(m.parameters(), lr=0.1))
    with pytest.raises(CheckpointError, match=r"hold \[6\] there, \[2, 4\] here"):
        load_checkpoint(p, m, torch.optim.AdamW(param_groups(m, 0.1)))
    save_checkpoint(p, m)
    with pytest.raises(CheckpointError, match="no optimizer is saved there"):
        load_checkpoint(p, m, torch.optim.AdamW(m.parameters()))
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b'{"a": 1}',
        b"\x00" * 100,
        b"PK\x03\x04" * 20,
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_files_of_another_kind(data, tmp_path):
    (p := tmp_path / "c.safetensors").write_bytes(data)
    with pytest.raises(
        CheckpointError,
        match="c.safetensors: (not a whole safetensors file|expected the format mmcourse.training/1, got none)",
    ):
        load_checkpoint(p, net())


def test_no_file(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="nowhere.safetensors: no such checkpoint"
    ):
        load_checkpoint(tmp_path / "nowhere.safetensors", net())


def test_a_file_cut_anywhere_is_refused(tmp_path):
    saved(p := tmp_path / "c.safetensors")
    whole = p.read_bytes()
    for n in [*range(0, 40), *range(40, len(whole), 97), len(whole) - 1]:
        p.write_bytes(whole[:n])
        with pytest.raises(CheckpointError, match="c.safetensors"):
            read_tensors(p)


CHANGED = {}


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_one_changed_bit_is_noticed(tmp_path_factory, where, bit):
    if not CHANGED:
        saved(p := tmp_path_factory.mktemp("bits") / "c.safetensors")
        CHANGED.update(path=p, whole=p.read_bytes(), read=read_tensors(p))
    data = bytearray(CHANGED["whole"])
    data[int(where * len(data))] ^= 1 << bit
    CHANGED["path"].write_bytes(data)
    try:
        tensors, about = read_tensors(CHANGED["path"])
    except CheckpointError as e:
        assert "c.safetensors" in str(e)
    else:  # a bit that means nothing, such as padding
        assert about == CHANGED["read"][1] and all(
            torch.equal(tensors[k], v) for k, v in CHANGED["read"][0].items()
        )


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    saved(p := tmp_path / "c.safetensors")
    before = p.read_bytes()
    monkeypatch.setattr(
        C.os,
        "replace",
        lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(p, net(seed=5))
    assert p.read_bytes() == before and [q.name for q in tmp_path.iterdir()] == [
        "c.safetensors"
    ]


def test_the_file_is_plain_safetensors(tmp_path):
    from safetensors.torch import load_file

    m = saved(p := tmp_path / "c.safetensors")
    raw = p.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + n])
    assert header["__metadata__"]["format"] == "mmcourse.training/1" and torch.equal(
        load_file(p)["model.4.bias"], m[4].bias
    )


@pytest.mark.parametrize(
    "t",
    [
        torch.tensor(3),
        torch.zeros(0, 2),
        torch.tensor([True]),
        torch.arange(6).reshape(2, 3).T,
        torch.rand(3).bfloat16(),
        torch.rand(3).half(),
        torch.tensor([math.nan, -0.0]),
    ],
    ids=["number", "empty", "bool", "transposed", "bfloat16", "half", "nan"],
)
def test_any_tensor_goes_round(t, tmp_path):
    write_tensors(
        p := tmp_path / "t.safetensors", {"t": t, "tied": t}, {"n": [1, math.inf]}
    )
    got, about = read_tensors(p)
    assert (
        got["t"].dtype == t.dtype
        and got["t"].shape == t.shape
        and torch.equal(got["t"].nan_to_num(), t.nan_to_num())
        and about["n"] == [1, math.inf]
    )


def test_tied_weights_and_extra_state(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    kw = {"epochs": 2, "checkpoint": tmp_path / "c.safetensors"}
    data = X[:, :4], Y
    a, b = Tied(), Tied()
    fit(a, data, **kw)
    fit(b, data, **kw)
    assert same(a, b) and b.a.weight is b.b.weight


def test_import_needs_no_heavy_library():
    code = 'import sys, mmcourse.training; print(sorted(m for m in ("keras", "matplotlib", "sklearn", "librosa", "scipy", "IPython") if m in sys.modules))'
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        == "[]"
    )
