"`fit` against a loop written out in torch, going on exactly, and bad input."

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.checkpoint import CheckpointError, write_tensors
from mmcourse.datasets import mnist
from mmcourse.measure import hits, nll, seeded
from mmcourse.store import data_path, kept_runs
from mmcourse.training import (
    History,
    Recipe,
    accuracy,
    batches,
    cosine,
    count_parameters,
    descend,
    evaluating,
    fit,
    jitter,
    mlp,
    param_groups,
    predict,
    take,
    train_epoch,
    tree_map,
    update,
    warmup_cosine,
)

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
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def wobble_global(x, generator):
    "An augmentation that ignores its generator."
    return x + 0.1 * np.random.rand() + 0.1 * random.random() + 0.01 * torch.randn(1)


def weights(m):
    return {k: v.clone() for k, v in m.state_dict().items()}


def same(a, b):
    a, b = (x if isinstance(x, dict) else x.state_dict() for x in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- downhill


def test_descend_follows_the_formula():
    path = descend(lambda w: 2 * w, torch.tensor([1.0, -4.0]), lr=0.25, steps=3)
    assert torch.equal(
        path, torch.tensor([[1.0, -4], [0.5, -2], [0.25, -1], [0.125, -0.5]])
    )


def test_update_is_one_plain_step_and_returns_the_loss_before_it():
    m = net(dropout=0)
    twin = net(dropout=0)
    loss = F.cross_entropy(twin(X), Y)
    grads = torch.autograd.grad(loss, list(twin.parameters()))
    opt = torch.optim.SGD(m.parameters(), lr=0.5)
    for p in m.parameters():
        p.grad = torch.full_like(p, 9.0)  # left by somebody else
    assert update(m, X, Y, opt) == pytest.approx(loss.item(), abs=1e-6)
    for p, q, g in zip(m.parameters(), twin.parameters(), grads):
        assert torch.allclose(p, q - 0.5 * g, atol=1e-6)


@pytest.mark.parametrize("clip,length", [(0.25, 0.25), (1e9, None)])
def test_clip_bounds_the_step(clip, length):
    m = nn.Linear(6, 3)
    before = torch.cat([p.detach().flatten() for p in m.parameters()])
    opt = torch.optim.SGD(m.parameters(), lr=1.0)
    update(m, 1000 * X, Y, opt, clip=clip)
    after = torch.cat([p.detach().flatten() for p in m.parameters()])
    moved = (after - before).norm().item()
    assert moved == pytest.approx(length, rel=1e-3) if length else moved > 10


def test_update_refuses_a_loss_that_is_not_finite_before_it_moves():
    m = net()
    before = weights(m[0])
    opt = torch.optim.SGD(m.parameters(), lr=1.0)
    with pytest.raises(FloatingPointError, match="the loss is (nan|inf)"):
        update(m, X * math.inf, Y, opt)
    assert same(m[0], before)


def test_train_epoch_meets_each_row_once_at_its_rate_and_weighs_batches_by_size():
    seen, m = [], nn.Linear(6, 3)

    def augment(x, generator):
        seen.append((x.clone(), generator, m.training))
        return x

    m.eval()
    opt = torch.optim.SGD(m.parameters(), lr=0.0)
    order, g = [torch.tensor([4, 1]), torch.tensor([7])], torch.Generator()
    options = {"augment": augment, "generator": g}
    loss = train_epoch(m, (X, Y), opt, order, **options)
    assert torch.equal(seen[0][0], X[[4, 1]]) and torch.equal(seen[1][0], X[[7]])
    assert all(h is g and mode for _, h, mode in seen)
    rows = [4, 1, 7]
    assert loss == pytest.approx(F.cross_entropy(m(X[rows]), Y[rows]).item(), rel=1e-6)


def test_factors_scale_the_first_rate_and_not_the_last_one():
    m = nn.Linear(6, 3)
    before = m.bias.detach().clone()
    opt = torch.optim.SGD(m.parameters(), lr=0.5)

    def loss(z, y):  # its gradient by the bias is one
        return z.sum() / len(z)

    order = [torch.arange(3)] * 3
    train_epoch(m, (X, Y), opt, order, loss=loss, factors=[0.1, 1.0, 0.4])
    assert torch.allclose(m.bias, before - 0.5 * 1.5)
    assert opt.param_groups[0]["lr"] == 0.2


# --- fit


def test_fit_equals_a_loop_written_out():
    ours, theirs = net(dropout=0), net(dropout=0)
    options = {"epochs": 3, "batch_size": 20, "lr": 0.01, "weight_decay": 0.1}
    h = fit(ours, TRAIN, schedule=warmup_cosine, clip=0.5, seed=4, **options)
    decays = [p for p in theirs.parameters() if p.ndim > 1]
    rest = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": decays, "weight_decay": 0.1}]
    groups += [{"params": rest, "weight_decay": 0}]
    opt = torch.optim.AdamW(groups, lr=0.01)
    rates = torch.optim.lr_scheduler.LambdaLR(opt, partial(warmup_cosine, steps=12))
    g, losses = torch.Generator().manual_seed(4), []
    for _ in range(3):
        total = 0
        for rows in torch.randperm(70, generator=g).tensor_split(4):
            loss = F.cross_entropy(theirs(X[rows]), Y[rows])
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            opt.step()
            rates.step()
            total += loss.item() * len(rows)
        losses.append(total / 70)
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()):
        assert torch.allclose(a, b, atol=1e-6)
    assert h.train_loss == pytest.approx(losses, rel=1e-5)
    assert h.lr == pytest.approx([0.01 * warmup_cosine(i, 12) for i in (3, 7, 11)])


STREAM = {
    "train_loss": [1.229536, 1.146288],
    "valid_loss": [1.207633, 1.211312],
    "bias": [-0.181738, 0.091323, 0.082405],
}


def test_the_random_stream_is_the_one_that_shipped_results_were_trained_with():
    "These numbers come from the first edition of `fit`."
    m = net()
    options = {"epochs": 2, "batch_size": 16, "augment": wobble, "seed": 3}
    h = fit(m, TRAIN, VALID, schedule=cosine, **options)
    assert h.train_loss == pytest.approx(STREAM["train_loss"], rel=1e-4)
    # The bias before batch normalisation has no gradient but rounding, of which Adam
    # makes whole steps; validation sees them, as the running mean lags behind.
    assert h.valid_loss == pytest.approx(STREAM["valid_loss"], rel=1e-3)
    assert m[4].bias.tolist() == pytest.approx(STREAM["bias"], rel=1e-3)


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
        np_, py = np.random.rand(2).tolist(), random.gauss(0, 1)
        return torch.rand(2).tolist(), np_, np.random.randn(), random.random(), py

    with seeded(3):
        expected = roll()
    with seeded(3):
        fit(net(), TRAIN, VALID, epochs=1, augment=wobble_global)
        assert roll() == expected


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
        m, twin = Pair(), Pair()
    twin.load_state_dict(m.state_dict())
    h = fit(m, (inputs, Y), (inputs, Y.numpy()), epochs=3, batch_size=32)
    assert h.valid_accuracy[-1] == pytest.approx(accuracy(m, (inputs, Y)))
    assert predict(m, inputs).shape == (90, 3)
    fit(twin, ({"image": X, "audio": X[:, :2]}, Y), epochs=3, batch_size=32)
    assert same(m, twin)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(6, 4)

    def forward(self, x):
        h = self.f(x)
        return {"class": h[:, :3], "size": h[:, 3]}


def both(out, y):
    return F.cross_entropy(out["class"], y["class"]) + F.mse_loss(
        out["size"], y["size"]
    )


def share(out, y):
    return hits(out["class"], y["class"]).float().mean()


def test_several_outputs_and_losses():
    data, m = (X, {"class": Y, "size": X[:, 0]}), Two()
    h = fit(m, data, data, epochs=2, loss=both)
    assert all(map(math.isnan, h.valid_accuracy))
    assert h.valid_loss[1] < h.valid_loss[0] and h.best == 1
    shapes = {k: tuple(v.shape) for k, v in predict(m, X, batch_size=7).items()}
    assert shapes == {"class": (90, 3), "size": (90,)}
    h = fit(m, data, data, epochs=1, loss=both, metric=share, monitor="accuracy")
    assert h.valid_accuracy == [pytest.approx(share(predict(m, X), data[1]).item())]
    with pytest.raises(FloatingPointError, match="validation accuracy is nan"):
        fit(m, data, data, loss=both, monitor="accuracy")


def test_one_logit_and_soft_targets():
    m, y = nn.Linear(6, 1), (X[:, 0] > 0).float()[:, None]
    loss = F.binary_cross_entropy_with_logits
    h = fit(m, (X, y), (X, y), epochs=30, lr=0.1, loss=loss)
    assert h.valid_accuracy[-1] > 0.9
    assert accuracy(m, (X, y[:, 0])) == h.valid_accuracy[-1]
    with seeded(0):
        a, b = nn.Linear(6, 3), nn.Linear(6, 3)
    b.load_state_dict(a.state_dict())
    soft = F.one_hot(Y, 3).float()
    hard = fit(a, (X, Y), (X, Y), epochs=3).valid_accuracy
    assert hard == fit(b, (X, soft), (X, soft), epochs=3).valid_accuracy


def test_small_integers_will_do_as_targets():
    a, b = net(), net()
    fit(a, (X, Y.numpy().astype(np.uint8)), epochs=1)
    fit(b, (X, Y), epochs=1)
    assert same(a, b) and accuracy(a, (X, Y.int())) == accuracy(b, (X, Y))


def test_label_smoothing_and_frozen_parts():
    m, plain = net(), net()
    m[0].requires_grad_(False)
    plain[0].requires_grad_(False)
    before = weights(m)
    fit(m, TRAIN, epochs=2, loss=partial(F.cross_entropy, label_smoothing=0.1))
    fit(plain, TRAIN, epochs=2)
    assert torch.equal(before["0.weight"], m[0].weight)
    assert not torch.equal(plain[4].weight, m[4].weight)


def test_decay_pulls_matrices_alone():
    m = net()
    decays, rest = param_groups(m, 0.1)
    assert decays["weight_decay"] == 0.1 and {p.ndim for p in decays["params"]} == {2}
    assert rest["weight_decay"] == 0 and {p.ndim for p in rest["params"]} == {1}
    assert len(decays["params"]) + len(rest["params"]) == len(list(m.parameters()))
    assert len(param_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1
    with pytest.raises(ValueError, match="model: expected at least one parameter"):
        fit(net().requires_grad_(False), TRAIN)


def test_keep_best_and_patience():
    m, seen = net(), []
    options = {"epochs": 60, "lr": 0.3, "batch_size": 10, "patience": 4}
    look = {"keep_best": True, "on_epoch": lambda h: seen.append(weights(m))}
    h = fit(m, TRAIN, VALID, **options, **look)
    assert len(h) < 60 and h.stale == 4 and h.best == int(np.argmin(h.valid_loss))
    assert same(m, seen[h.best])
    last, seen[:] = net(), []
    options["on_epoch"] = lambda h: seen.append(weights(last))
    fit(last, TRAIN, VALID, **options)
    assert same(last, seen[-1])  # without keep_best: the last weights
    a = fit(net(), TRAIN, VALID, epochs=8, monitor="accuracy")
    assert a.best == int(np.argmax(a.valid_accuracy))


def test_an_accuracy_that_is_merely_equalled_is_no_improvement():
    options = {"lr": 1e-30, "weight_decay": 0, "optimizer": torch.optim.SGD}
    options |= {"monitor": "accuracy", "patience": 2}
    h = fit(nn.Linear(6, 3), TRAIN, VALID, **options)
    assert h.best == 0 and len(h) == 3


def test_on_epoch_stops():
    assert len(fit(net(), TRAIN, epochs=9, on_epoch=lambda h: len(h) == 2)) == 2
    assert len(fit(net(), TRAIN, epochs=3, on_epoch=lambda h: None)) == 3


def test_history_without_validation():
    h = fit(net(), TRAIN, epochs=2)
    assert h.valid_loss == [] and h.best is None and h.stale == 0
    assert len(h.seconds) == len(h.lr) == 2 and h.lr == [1e-3, 1e-3]
    assert History(train_loss=[3, 2, 4], best=1).stale == 1


def test_validation_is_asked_without_dropout_and_without_learning():
    m = net(dropout=0.5)
    h = fit(m, TRAIN, VALID, epochs=1)
    expected = F.cross_entropy(m(VALID[0]), VALID[1]).item()
    assert h.valid_loss == [pytest.approx(expected, rel=1e-5)]
    assert h.valid_accuracy == [accuracy(m, VALID)]


def test_a_lone_last_example_does_no_harm():
    "Batch norm cannot train on one example."
    h = fit(net(), (X[:33], Y[:33]), epochs=1, batch_size=32)
    assert math.isfinite(h.train_loss[0])


def test_the_choices_are_those_of_the_recipe():
    import inspect

    names = inspect.signature(fit).parameters
    assert set(Recipe.__dataclass_fields__) < set(names)
    assert names["lr"].default == Recipe().lr
    with pytest.raises(TypeError, match="'epoch'"):
        fit(net(), TRAIN, epoch=3)


# --- what a caller gets wrong


@pytest.mark.parametrize(
    "data,says",
    [
        (X, r"train: expected a pair \(inputs, targets\), got Tensor"),
        ((X, Y[:5]), "train: expected as many targets as inputs, got 5 and 90"),
        ((X * torch.nan, Y), "train inputs: expected finite values"),
        ((X, None), "train targets: expected numbers, got NoneType"),
    ],
)
def test_bad_data_is_named(data, says):
    m = net()
    before = weights(m)
    with pytest.raises((ValueError, TypeError), match=says):
        fit(m, data)
    with pytest.raises((ValueError, TypeError), match=says.replace("train", "valid")):
        fit(m, TRAIN, data)
    assert same(m, before)


@pytest.mark.parametrize(
    "options,says",
    [
        ({"epochs": 0}, "epochs: expected a whole number from 1, got 0"),
        ({"epochs": 1.5}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": math.nan}, "lr: expected a finite number"),
        ({"lr": -1}, "lr: expected a number from 0"),
        ({"seed": 0.5}, "seed: expected a whole number"),
        ({"monitor": "f1"}, "monitor: expected one of"),
        ({"keep_best": True}, "valid: expected data"),
        ({"patience": 2}, "valid: expected data"),
    ],
)
def test_bad_options_are_named(options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        fit(net(), TRAIN, **options)


def test_a_validation_loss_that_is_not_finite_is_named():
    def loss(out, y):
        return F.cross_entropy(out, y) * (1 if out.requires_grad else math.nan)

    with pytest.raises(FloatingPointError, match="validation loss is nan"):
        fit(net(), TRAIN, VALID, loss=loss)


# --- asking


def test_predict_is_the_same_in_any_batches():
    m = net()
    whole = predict(m, X)
    assert torch.allclose(predict(m, X, batch_size=7), whole, atol=1e-6)
    assert torch.allclose(whole, m.eval()(X), atol=1e-6)
    assert not whole.requires_grad
    with pytest.raises(ValueError, match=r"90 in inputs\['a'\], 3 in inputs\['b'\]"):
        predict(m, {"a": X, "b": X[:3]})


def test_modes_come_back():
    m = net().train()
    m[1].eval()
    predict(m, X)
    assert [c.training for c in m] == [True, False, True, True, True] and m.training
    with pytest.raises(ZeroDivisionError), evaluating(m):
        assert not any(c.training for c in m.modules())
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert m.training and torch.is_grad_enabled()


def test_fit_leaves_evaluation_mode():
    m = net()
    fit(m, TRAIN, epochs=1)
    assert not any(c.training for c in m.modules())


def test_accuracy_counts():
    m = nn.Identity()
    z = torch.tensor([[1.0, 0], [0, 1], [3, 2], [0, 5]])
    assert accuracy(m, (z, [0, 1, 1, 1]), batch_size=3) == 0.75


# --- small parts


def test_mlp_and_its_parameters():
    m = mlp(12, 5, 3, dropout=0.25)
    assert m(torch.zeros(2, 3, 4)).shape == (2, 3) and m[3].p == 0.25
    assert count_parameters(m) == 12 * 5 + 5 + 5 * 3 + 3
    m[1].requires_grad_(False)
    assert count_parameters(m) == 18 and count_parameters(m, trainable=False) == 83


@given(st.integers(1, 300), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_batches_are_a_partition(n, size, seed):
    parts = batches(n, size, torch.Generator().manual_seed(seed))
    sizes = [len(p) for p in parts]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(n))
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
    assert len(parts) == math.ceil(n / size)


def test_batches_are_shuffled():
    a, b = (torch.cat(batches(50, 9, torch.Generator().manual_seed(s))) for s in (0, 1))
    assert not torch.equal(a, b) and not torch.equal(a, torch.arange(50))


@pytest.mark.parametrize("steps", [10, 97])
def test_schedules_equal_torch(steps):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    lib = torch.optim.lr_scheduler
    climb = max(1, round(0.1 * steps))
    parts = [lib.LambdaLR(opt, lambda i: (i + 1) / climb)]
    parts += [lib.CosineAnnealingLR(opt, T_max=steps - climb)]
    theirs, rates = lib.SequentialLR(opt, parts, [climb]), []
    for _ in range(steps):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        theirs.step()
    ours = [warmup_cosine(i, steps) for i in range(steps)]
    assert ours == pytest.approx(rates, abs=1e-6)


def test_schedules_by_hand():
    assert [cosine(i, 4) for i in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert cosine(2, 4, floor=0.2) == pytest.approx(0.6)
    assert warmup_cosine(0, 10, warmup=0.5) == 0.2
    assert warmup_cosine(4, 10, warmup=0.5) == warmup_cosine(5, 10, warmup=0.5) == 1
    assert warmup_cosine(0, 1) == 1  # a run of one step
    assert warmup_cosine(9, 10, 0.0, floor=0.5) > 0.5


@given(st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_jitter_is_a_roll(by, seed):
    x = torch.rand(4, 5, 7)
    got = jitter(x, torch.Generator().manual_seed(seed), by)
    for a, b in zip(x, got):
        shifts = [(i, j) for i in range(-by, by + 1) for j in range(-by, by + 1)]
        assert any(torch.equal(b, a.roll(s, (0, 1))) for s in shifts)


def test_jitter_shifts_each_image_its_own_way_in_both_directions():
    x = torch.rand(1, 6, 6).repeat(200, 1, 1)
    got = jitter(x, torch.Generator().manual_seed(0))
    assert len({tuple(t.flatten().tolist()) for t in got}) == 9
    assert torch.equal(got, jitter(x, torch.Generator().manual_seed(0)))


def test_tree_map_and_take():
    data = {"a": torch.arange(4), "b": (torch.arange(8).reshape(4, 2), {"c": X[:4]})}
    got = take(data, torch.tensor([3, 0]))
    assert got["a"].tolist() == [3, 0] and got["b"][0].tolist() == [[6, 7], [0, 1]]
    both = tree_map(lambda *t: torch.cat(t), data, got)
    assert both["a"].tolist() == [0, 1, 2, 3, 3, 0] and both["b"][1]["c"].shape == (
        6,
        6,
    )


# --- going on


OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
}
GOING = {"epochs": 4, "lr": 0.01, "batch_size": 16, "schedule": warmup_cosine}


@pytest.mark.parametrize("augment", [None, wobble, wobble_global])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_is_exact(name, augment, tmp_path):
    kw = GOING | {"optimizer": OPTIMIZERS[name], "augment": augment, "keep_best": True}
    path, m, twin, through = tmp_path / "c.safetensors", net(), net(), net()
    h = fit(through, TRAIN, VALID, **kw)
    fit(m, TRAIN, VALID, **kw, checkpoint=path, on_epoch=lambda h: len(h) == 2)
    assert not same(m, through)
    k = fit(twin, TRAIN, VALID, **kw, checkpoint=path)
    assert same(twin, through)
    for name in ("train_loss", "valid_loss", "valid_accuracy", "lr", "best"):
        assert getattr(h, name) == getattr(k, name)


SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
from test_training import *
m = net()
kw = GOING | {{"augment": wobble}}
stop = lambda h: len(h) == 2 and os._exit(9)
fit(m, TRAIN, VALID, **kw, checkpoint={path!r}, on_epoch=stop if {kill} else None)
write_tensors({out!r}, m.state_dict(), {{}})
"""


def test_going_on_in_a_fresh_process_is_exact(tmp_path):
    from mmcourse.checkpoint import read_tensors

    path, out = str(tmp_path / "c.safetensors"), str(tmp_path / "out.safetensors")
    known = {"tests": str(Path(__file__).parent), "path": path, "out": out}
    for kill, status in ((True, 9), (False, 0)):
        code = SCRIPT.format(kill=kill, **known)
        done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ))
        assert done.returncode == status
    through = net()
    fit(through, TRAIN, VALID, **GOING, augment=wobble)
    assert same(through, read_tensors(out)[0])


def test_a_finished_run_is_not_run_again(tmp_path):
    path, m, twin = tmp_path / "c.safetensors", net(), net()
    h = fit(m, TRAIN, epochs=2, checkpoint=path)
    before = path.read_bytes()
    k = fit(twin, TRAIN, epochs=2, checkpoint=path)
    assert same(m, twin) and h == k and path.read_bytes() == before


def test_more_epochs_without_a_schedule(tmp_path):
    path, m, through = tmp_path / "c.safetensors", net(), net()
    fit(m, TRAIN, epochs=2, checkpoint=path)
    fit(m, TRAIN, epochs=4, checkpoint=path)
    fit(through, TRAIN, epochs=4)
    assert same(m, through)


@pytest.mark.parametrize(
    "change,says",
    [
        ({"lr": 0.02}, "lr is 0.01 there, 0.02 here"),
        ({"seed": 1}, "seed is 0 there, 1 here"),
        ({"epochs": 5}, "epochs is 4 there, 5 here"),
        ({"schedule": cosine}, "schedule is warmup_cosine there, cosine here"),
        ({"augment": wobble}, "augment is None there, wobble here"),
        ({"clip": 1.0}, "clip is None there, 1.0 here"),
        (
            {"loss": partial(F.cross_entropy, label_smoothing=0.1)},
            "label_smoothing=0.1",
        ),
    ],
)
def test_another_run_is_refused(change, says, tmp_path):
    path, m = tmp_path / "c.safetensors", net()
    fit(m, TRAIN, VALID, **GOING, checkpoint=path, on_epoch=lambda h: True)
    other = net(seed=5)
    before = weights(other)
    with pytest.raises(CheckpointError, match=f"belongs to another run: .*{says}"):
        fit(other, TRAIN, VALID, **GOING | change, checkpoint=path)
    assert same(other, before)


@pytest.mark.parametrize("part", ["train", "valid"])
def test_other_data_are_refused(part, tmp_path):
    path = tmp_path / "c.safetensors"
    fit(net(), TRAIN, VALID, epochs=1, checkpoint=path)
    changed = X.clone()
    changed[{"train": 3, "valid": 80}[part], 2] += 1e-6
    train, valid = (changed[:70], Y[:70]), (changed[70:], Y[70:])
    with pytest.raises(CheckpointError, match=f"{part} data is"):
        fit(net(), train, valid, epochs=2, checkpoint=path)


def test_a_file_that_is_no_run_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    write_tensors(path, {"w": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="belongs to another run"):
        fit(net(), TRAIN, epochs=1, checkpoint=path)


def test_weights_that_are_tied_stay_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    with seeded(0):
        a, b = Tied(), Tied()
    kw = {"epochs": 2, "checkpoint": tmp_path / "c.safetensors"}
    fit(a, (X[:, :4], Y), **kw)
    fit(b, (X[:, :4], Y), **kw)
    assert same(a, b) and b.a.weight is b.b.weight


# --- the study of the chapter

USUAL = {"lr": 0.01, "schedule": warmup_cosine}


def digits(split):
    d = mnist(split)
    return torch.tensor(d["image"]), torch.tensor(d["label"])


@pytest.mark.parametrize(
    "arm, choices",
    [
        ("rate/2/0.003", {"lr": 0.003, "epochs": 2}),
        ("schedule/climb and cosine/5/0.01", USUAL | {"epochs": 5}),
        ("stop/stopped early", {"lr": 0.03, "patience": 2, "keep_best": True}),
        ("shift/shifted/10", USUAL | {"augment": jitter}),
    ],
)
def test_what_is_stored_comes_out_again(arm, choices):
    with seeded(0):
        model = mlp()
    history = fit(model, digits("train"), digits("valid"), batch_size=100, **choices)
    stored = kept_runs("training", arm)[0]
    if isinstance(stored, float):
        assert history.valid_accuracy[-1] == pytest.approx(stored, abs=0.02)
        return
    images, labels = digits("test")
    logits = predict(model, images)
    before = torch.tensor([h == "1" for h in stored["hits"]])
    assert (hits(logits, labels) != before).float().mean() < 0.02
    assert nll(logits, labels) == pytest.approx(stored["nll"], abs=0.03)
    assert len(history) == pytest.approx(stored["epochs"], abs=2)


def test_the_study_is_complete():
    names = json.loads(data_path("results/training.json").read_text("utf-8"))["runs"]
    arms = {name.rpartition("/")[0] for name in names}
    counts = Counter(arm.split("/")[0] for arm in arms)
    leak = {"clean": 1, "again": 1, "leaky": 1}
    assert counts == {"rate": 14, "schedule": 8, "stop": 3, "shift": 4} | leak
    for arm in arms:
        n = 3 if arm.startswith(("rate", "shift")) else 5
        assert [name for name in names if name.rpartition("/")[0] == arm] == [
            f"{arm}/{seed}" for seed in range(n)
        ]
