"""Laws of shared gradients, of the uncertainty weights and of surgery over random shapes; the split, the labels, the table of results, and everything a caller can get wrong."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.measure import seeded
from mmcourse.multitask import (
    TASKS,
    UNKNOWN,
    FusedTrunk,
    MultiTask,
    ReverseGradient,
    Uncertainty,
    best_log_var,
    conflict,
    cosines,
    keep_labels,
    listener,
    own_rate,
    pcgrad,
    probe,
    profiled,
    project,
    random_weights,
    repeat_known,
    right,
    spoken_tasks,
    steer,
    surgery,
    task_gradients,
    task_losses,
    train_tasks,
    weighted,
    within_voices,
)
from mmcourse.store import data_path

torch.set_num_threads(1)
seeds = st.integers(0, 2**31 - 1)


def toy(seed=0, tasks=("a", "b", "c"), n=32, d=5, classes=4):
    "A small shared model and data of the same kind."
    with seeded(seed):
        model = MultiTask(
            nn.Sequential(nn.Linear(d, 7), nn.Tanh()),
            {t: nn.Linear(7, classes) for t in tasks},
        )
        return model, (
            torch.randn(n, d),
            {t: torch.randint(classes, (n,)) for t in tasks},
        )


def rows(seed, T, P):
    return torch.randn(
        T, P, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


# --- one trunk, several heads


@given(seeds, st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_the_trunks_gradient_is_the_sum_and_a_heads_its_own(seed, T):
    model, (x, y) = toy(seed, tuple("abcd"[:T]))
    losses = task_losses(model(x), y)
    g = task_gradients(losses, model.trunk.parameters())
    heads = {
        t: torch.autograd.grad(l, list(model.heads[t].parameters()), retain_graph=True)
        for t, l in losses.items()
    }
    sum(losses.values()).backward()
    whole = torch.cat([p.grad.reshape(-1) for p in model.trunk.parameters()])
    assert g.shape == (T, whole.numel())
    torch.testing.assert_close(g.sum(0), whole)
    for t, own in heads.items():
        for a, p in zip(own, model.heads[t].parameters()):
            torch.testing.assert_close(a, p.grad)


def test_a_parameter_that_a_task_does_not_use_has_no_gradient_from_it():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    assert task_gradients({"a": a.sum(), "b": (2 * b).sum()}, [a, b]).tolist() == [
        [1, 1, 0, 0, 0],
        [0, 0, 2, 2, 2],
    ]


def test_forward_is_trunk_then_head():
    model, (x, _) = toy(3)
    for t, y in model(x).items():
        assert torch.equal(y, model.heads[t](model.trunk(x)))


def test_one_head_is_audio_net():
    from mmcourse.classifiers import AudioNet

    with seeded(0):
        net, x = AudioNet().eval(), torch.rand(3, 20, 30) * -40
    one = listener(["digit"]).eval()
    one.trunk.load_state_dict(
        {k: v for k, v in net.state_dict().items() if not k.startswith("head")}
    )
    one.heads["digit"].load_state_dict(net.head.state_dict())
    assert torch.equal(one(x)["digit"], net(x))


def test_listeners_of_one_seed_are_alike():
    a, b, c = (listener(seed=s) for s in (1, 1, 2))
    same = lambda p, q: all(
        torch.equal(x, y) for x, y in zip(p.parameters(), q.parameters())
    )
    assert same(a, b) and not same(a, c)


@pytest.mark.parametrize(
    "heads,error,says",
    [
        ({}, ValueError, "heads: expected at least one"),
        ([nn.Linear(2, 2)], TypeError, "heads: expected a dict"),
        ({"a": 3}, TypeError, r"heads\['a'\]: expected a module"),
        (None, TypeError, "heads"),
    ],
)
def test_bad_heads(heads, error, says):
    with pytest.raises(error, match=says):
        MultiTask(nn.Identity(), heads)


def test_unknown_tasks():
    with pytest.raises(ValueError, match=r"tasks: expected some of .* got \['age'\]"):
        listener(["digit", "age"])
    assert set(listener(["age"], heads={"age": nn.Linear(128, 3)}).heads) == {"age"}


# --- losses and labels


@given(seeds, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_unknown_labels_are_passed_over(seed, share):
    g = torch.Generator().manual_seed(seed)
    o, y = torch.randn(12, 3, generator=g), torch.randint(3, (12,), generator=g)
    known = torch.rand(12, generator=g) >= share
    l = task_losses({"t": o}, {"t": torch.where(known, y, UNKNOWN)})["t"]
    want = F.cross_entropy(o[known], y[known]) if known.any() else torch.zeros(())
    torch.testing.assert_close(l, want)


def test_no_label_no_gradient_and_no_nan():
    o = torch.randn(4, 3, requires_grad=True)
    task_losses({"t": o}, {"t": torch.full((4,), UNKNOWN)})["t"].backward()
    assert torch.equal(o.grad, torch.zeros(4, 3))


@pytest.mark.parametrize(
    "targets,says",
    [
        ({}, "targets: expected one for each of"),
        ({"t": torch.zeros(3).long()}, r"targets\['t'\]: expected shape \(4,\)"),
        (
            {"t": torch.tensor([0, 1, 2, 3])},
            r"targets\['t'\]: expected classes from 0 to 2",
        ),
        (
            {"t": torch.tensor([0, 1, 2, -1])},
            r"expected classes from 0 to 2 or UNKNOWN, got -1",
        ),
    ],
)
def test_bad_targets(targets, says):
    with pytest.raises(ValueError, match=says):
        task_losses({"t": torch.zeros(4, 3)}, targets)


@given(seeds, st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_kept_labels_are_few_balanced_and_right(seed, n):
    y = torch.randint(5, (60,), generator=torch.Generator().manual_seed(seed))
    few = keep_labels({"t": y, "u": y}, "t", n, seed=seed)
    known = few["t"] != UNKNOWN
    assert known.sum() == n and torch.equal(few["t"][known], y[known]) and few["u"] is y
    have, left = torch.bincount(y, minlength=5), torch.bincount(y[known], minlength=5)
    assert all(
        left[c] == have[c] or left[c] >= left.max() - 1 for c in range(5)
    )  # level, unless a class has no more
    assert torch.equal(few["t"], keep_labels({"t": y, "u": y}, "t", n, seed=seed)["t"])


@pytest.mark.parametrize(
    "task,n,says",
    [
        ("v", 1, "task: expected one of"),
        ("t", 0, "n: expected 1 to 4"),
        ("t", 5, "n: expected 1 to 4"),
    ],
)
def test_bad_scarcity(task, n, says):
    with pytest.raises(ValueError, match=says):
        keep_labels({"t": torch.zeros(4).long()}, task, n)


@given(seeds, st.integers(1, 20), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_known_rows_come_again_and_no_others(seed, n, times):
    y = torch.randint(3, (20,), generator=torch.Generator().manual_seed(seed))
    targets = keep_labels({"t": y, "u": y}, "t", n, seed=seed)
    x, more = repeat_known((torch.arange(20), targets), "t", times)
    assert len(x) == len(more["u"]) == 20 + n * times and torch.equal(
        x[:20], torch.arange(20)
    )
    count = torch.bincount(x, minlength=20)
    assert count.tolist() == [
        1 + times if k else 1 for k in (targets["t"] != UNKNOWN).tolist()
    ]
    assert torch.equal(more["u"], y[x]) and torch.equal(more["t"], targets["t"][x])


@pytest.mark.parametrize(
    "targets,task,times,says",
    [
        ({"t": torch.zeros(3).long()}, "v", 1, "task: expected one of"),
        ({"t": torch.zeros(3).long()}, "t", -1, "times: expected"),
        ({"t": torch.zeros(3).long()}, "t", 1.5, "times: expected"),
        (
            {"t": torch.full((3,), UNKNOWN)},
            "t",
            1,
            r"targets\['t'\]: expected at least one known",
        ),
    ],
)
def test_bad_repeats(targets, task, times, says):
    with pytest.raises(ValueError, match=says):
        repeat_known((torch.zeros(3), targets), task, times)


# --- the split within voices


@given(seeds, st.integers(1, 6), st.integers(1, 5), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_every_voice_is_on_all_sides_and_no_clip_on_two(seed, voices, digits, clips):
    order = np.random.default_rng(seed).permutation(voices * digits * clips)
    d, v = (
        np.repeat(np.tile(np.arange(digits), voices), clips)[order],
        np.repeat(np.arange(voices), digits * clips)[order],
    )
    split = within_voices(d, v, seed=seed)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(len(d)))
    held = np.concatenate([split["valid"], split["test"]])
    assert sorted(zip(v[held], d[held])) == [
        (a, b) for a in range(voices) for b in range(digits)
    ]  # one clip of each
    assert (
        np.bincount(v[split["valid"]], minlength=voices).tolist()
        == [-(-digits // 2)] * voices
    )


@pytest.mark.parametrize(
    "labels,voices,says",
    [
        ([], [], "labels, voices: expected two columns"),
        ([0, 0], [1], "of one length"),
        ([0, 0, 1], [0, 0, 0], "labels: expected two clips or more"),
        ([[0, 0]], [[0, 0]], "two columns"),
    ],
)
def test_bad_columns(labels, voices, says):
    with pytest.raises(ValueError, match=says):
        within_voices(labels, voices)


@pytest.fixture(scope="module")
def data():
    return spoken_tasks()


def test_spoken_tasks_measure_what_they_say(data):
    (x, y) = data["train"]
    assert (
        x.shape == (2580, 20, 51)
        and set(y) == set(TASKS)
        and {t: int(v.max()) + 1 for t, v in y.items()} == TASKS
        and all((v.bincount() > 0).all() for v in y.values())
    )
    for split, n in (("valid", 300), ("test", 570)):
        assert len(data[split]["new"][0]) == n and set(data[split]["new"][1]) == {
            "digit",
            "parity",
        }
        assert (
            len(data[split]["known"][0]) == 270
            and data[split]["known"][1]["voice"].bincount().tolist() == [5] * 54
        )
    for _, t in (data["train"], data["valid"]["new"], data["test"]["new"]):
        assert torch.equal(t["parity"], t["digit"] % 2)
    seen = {m.numpy().tobytes() for m in x}
    assert not any(
        m.numpy().tobytes() in seen
        for split in ("valid", "test")
        for part in data[split].values()
        for m in part[0]
    )


# --- balances


@given(st.floats(1e-3, 1e3), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_the_best_log_variance_is_best(loss, off):
    balance, L = Uncertainty(["t"]), {"t": torch.tensor(loss)}
    with torch.no_grad():
        balance.log_var.copy_(best_log_var(loss))
        best = balance(L).item()
        balance.log_var += off
        assert balance(L).item() >= best - 1e-4
    assert best == pytest.approx(profiled(L).item(), abs=1e-4)
    with torch.no_grad():
        balance.log_var.copy_(best_log_var(loss))
    (g,) = torch.autograd.grad(balance(L), balance.log_var)
    assert g.item() == pytest.approx(0, abs=1e-5) and balance.weights()[
        "t"
    ] == pytest.approx(1 / (2 * loss), rel=1e-4)


@given(seeds, st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_profiled_has_no_units_and_the_sum_has(seed, factor):
    model, (x, y) = toy(seed)

    def push(balance, f):
        l = task_losses(model(x), y)
        return torch.cat(
            [
                g.reshape(-1)
                for g in torch.autograd.grad(
                    balance(l | {"a": l["a"] * f}), list(model.trunk.parameters())
                )
            ]
        )

    torch.testing.assert_close(
        push(profiled, 1.0), push(profiled, factor), rtol=1e-4, atol=1e-6
    )
    if abs(math.log(factor)) > 0.1:
        assert (push(weighted, 1.0) - push(weighted, factor)).norm() > 1e-3


def test_uncertainty_learns_with_fit():
    model, train = toy(1)
    balance = Uncertainty("abc")
    train_tasks(
        model, train, balance, epochs=400, optimizer=own_rate(balance.parameters(), 0.2)
    )
    assert model.balance is balance
    with torch.no_grad():
        losses = task_losses(model(train[0]), train[1])
    assert all(
        abs(s - best_log_var(l)) < 0.3 for s, l in zip(balance.log_var, losses.values())
    )


def test_uncertainty_counts_a_gaussian_exactly():
    y, f, s = (
        torch.randn(3, dtype=torch.float64),
        torch.randn(3, dtype=torch.float64),
        torch.tensor(-1.3, dtype=torch.float64),
    )
    want = -torch.distributions.Normal(f, (s / 2).exp()).log_prob(y) - 0.5 * math.log(
        2 * math.pi
    )
    torch.testing.assert_close(torch.exp(-s) * (y - f) ** 2 / 2 + s / 2, want)


def test_a_started_uncertainty_stands_at_its_best_and_has_no_units():
    model, (x, y) = toy(4)
    losses, pushes = task_losses(model(x), y), []
    for factor in (1.0, 100.0):
        balance, l = Uncertainty("abc"), losses | {"a": factor * losses["a"]}
        balance.start(l)
        torch.testing.assert_close(balance(l), profiled(l))
        torch.testing.assert_close(
            balance.log_var.detach(),
            best_log_var(torch.stack([l[t].detach() for t in "abc"])),
        )
        pushes.append(
            torch.cat(
                [
                    g.reshape(-1)
                    for g in torch.autograd.grad(
                        balance(l), list(model.trunk.parameters()), retain_graph=True
                    )
                ]
            )
        )
    torch.testing.assert_close(*pushes)


def test_uncertainty_wants_its_own_tasks():
    with pytest.raises(
        ValueError, match=r"losses: expected one for each of \('a', 'b'\)"
    ):
        Uncertainty("ab")({"a": torch.ones(())})


@pytest.mark.parametrize("loss", [0.0, -1.0, math.nan, math.inf, [1.0, 0.0]])
def test_bad_losses(loss):
    with pytest.raises(ValueError, match="loss: expected positive"):
        best_log_var(loss)


def test_profiled_survives_a_loss_of_zero():
    l = torch.zeros((), requires_grad=True)
    profiled({"t": l}).backward()
    assert l.grad == 0


def test_weights_weigh():
    l = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert (
        weighted(l) == 5
        and weighted(l, {"a": 10.0}) == 23
        and weighted(l, {"a": 0.0, "b": 0.0}) == 0
    )


def test_random_weights_add_up_to_the_number_of_tasks_and_repeat():
    one = {t: torch.ones(()) for t in "abc"}
    a, b = random_weights(3), random_weights(3)
    assert a(one).item() == pytest.approx(3, rel=1e-5)
    l = {"a": torch.tensor(1.0), "b": torch.tensor(5.0)}
    a, first = random_weights(4), random_weights(4)
    draws = [a(l).item() for _ in range(200)]
    assert (
        draws[0] == first(l).item()
        and len(set(draws)) > 190
        and min(draws) > 2
        and max(draws) < 10
        and np.mean(draws) == pytest.approx(6, abs=0.5)
    )


def test_own_rate_moves_what_it_should():
    a, b = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    opt = own_rate([b], 0.5, torch.optim.SGD)(
        [{"params": [a], "weight_decay": 0.0}, {"params": [b], "weight_decay": 0.0}],
        lr=0.1,
    )
    (a.sum() + b.sum()).backward()
    opt.step()
    torch.testing.assert_close(a.detach(), torch.full((2, 2), 0.9))
    torch.testing.assert_close(b.detach(), torch.full((2,), 0.5))
    assert sum(len(g["params"]) for g in opt.param_groups) == 2


# --- gradients that fight


@given(seeds, st.integers(1, 5), st.integers(2, 9), st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_cosines_lie_between_their_bounds_and_have_no_length(seed, T, P, factor):
    g = rows(seed, T, P)
    c = cosines(g)
    assert c.shape == (T, T) and c.abs().max() <= 1 + 1e-9
    torch.testing.assert_close(c.diagonal(), torch.ones(T, dtype=torch.float64))
    torch.testing.assert_close(c, c.T)
    torch.testing.assert_close(cosines(factor * g), c)
    torch.testing.assert_close(cosines(g, -g), -c)


def test_a_zero_gradient_has_no_direction():
    assert cosines(torch.tensor([[0.0, 0], [1, 1]])).tolist() == [
        [0, 0],
        [0, pytest.approx(1)],
    ]


@given(seeds, st.integers(2, 9))
@settings(max_examples=100, deadline=None)
def test_after_projection_no_conflict_is_left(seed, P):
    g, h = rows(seed, 2, P)
    p = project(g, h)
    assert p @ h >= -1e-9 and p.norm() <= g.norm() + 1e-9
    if g @ h >= 0:
        assert torch.equal(p, g)
    else:
        torch.testing.assert_close(p @ h, torch.zeros((), dtype=torch.float64))
        torch.testing.assert_close(project(p, h), p)
    assert torch.equal(project(g, torch.zeros_like(h)), g)


@given(seeds, st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_surgery_on_two_hurts_neither(seed, P):
    g = rows(seed, 2, P)
    step = pcgrad(g, torch.Generator().manual_seed(0))
    assert (g @ step >= -1e-9).all()
    if g[0] @ g[1] >= 0:
        torch.testing.assert_close(step, g.sum(0))


def test_surgery_on_three_may_hurt_one():
    "The law is for two; the paper claims no more."
    hurt = sum(
        (
            rows(s, 3, 3) @ pcgrad(rows(s, 3, 3), torch.Generator().manual_seed(s))
            < -1e-6
        )
        .any()
        .item()
        for s in range(300)
    )
    assert hurt > 0


def test_surgery_of_agreement_is_the_sum():
    g = rows(0, 4, 6).abs()
    torch.testing.assert_close(pcgrad(g, torch.Generator()), g.sum(0))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_steering_changes_the_gradient_and_not_the_value(seed):
    model, (x, y) = toy(seed)
    params = list(model.trunk.parameters())
    loss = sum(task_losses(model(x), y).values())
    change = rows(seed, 1, sum(p.numel() for p in params))[0].float()
    old, new = (
        torch.cat(
            [g.reshape(-1) for g in torch.autograd.grad(l, params, retain_graph=True)]
        )
        for l in (loss, steer(loss, params, change))
    )
    torch.testing.assert_close(new, old + change, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(steer(loss, params, change), loss)


def test_surgery_trains_heads_by_their_own_loss_and_rests_without_gradients():
    model, (x, y) = toy(5)
    params = list(model.trunk.parameters())
    balance = surgery(params, seed=2)
    losses = task_losses(model(x), y)
    want = pcgrad(task_gradients(losses, params), torch.Generator().manual_seed(2))
    head = torch.autograd.grad(losses["a"], model.heads["a"].weight, retain_graph=True)[
        0
    ]
    balance(losses).backward()
    torch.testing.assert_close(torch.cat([p.grad.reshape(-1) for p in params]), want)
    torch.testing.assert_close(model.heads["a"].weight.grad, head)
    with torch.no_grad():
        assert balance(task_losses(model(x), y)) == sum(
            task_losses(model(x), y).values()
        )


def test_conflict_of_a_task_with_its_copy_and_its_opposite():
    model, (x, y) = toy(2, ("a", "b"), n=400, classes=2)
    model.heads["b"].load_state_dict(
        {k: v.clone() for k, v in model.heads["a"].state_dict().items()}
    )
    same = conflict(model, (x, {"a": y["a"], "b": y["a"]}), batch_size=100)
    assert (
        same["between"][0, 1].item() == pytest.approx(1, abs=1e-5)
        and (same["within"] <= 1 + 1e-6).all()
        and same["within"].shape == (2,)
    )
    model.heads["b"].load_state_dict(
        {k: v.flip(0) for k, v in model.heads["a"].state_dict().items()}
    )  # its classes swapped, asked with the old labels
    swapped = conflict(model, (x, {"a": y["a"], "b": 1 - y["a"]}), batch_size=100)
    assert swapped["between"][0, 1].item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(
        conflict(model, (x, y), batch_size=100, seed=3)["between"],
        conflict(model, (x, y), batch_size=100, seed=3)["between"],
    )
    assert not model.training


# --- forgetting on purpose


@given(seeds, st.floats(0, 10))
@settings(max_examples=30, deadline=None)
def test_reversal_is_the_identity_up_and_minus_the_strength_down(seed, strength):
    x = rows(seed, 3, 4).requires_grad_()
    g = rows(seed + 1, 3, 4)
    y = ReverseGradient(strength)(x)
    assert torch.equal(y, x)
    torch.testing.assert_close(torch.autograd.grad(y, x, g)[0], -strength * g)


@pytest.mark.parametrize("strength", [-1.0, math.inf, math.nan])
def test_bad_strength(strength):
    with pytest.raises(ValueError, match="strength: expected"):
        ReverseGradient(strength)


def test_a_probe_finds_what_is_there_and_not_what_is_not():
    with seeded(0):
        y, noise = torch.randint(3, (300,)), torch.randn(300, 4)
    model = MultiTask(nn.Identity(), {"t": nn.Linear(7, 3)})
    there, absent = (
        torch.cat([noise, F.one_hot(y, 3)], 1),
        torch.cat([noise, torch.zeros(300, 3)], 1),
    )
    assert probe(model, (there[:200], y[:200]), (there[200:], y[200:])) > 0.95
    assert probe(model, (absent[:200], y[:200]), (absent[200:], y[200:])) < 0.55


# --- training, and both at once


def test_training_learns_repeats_and_takes_the_models_tasks_alone():
    with seeded(0):
        x = torch.randn(256, 5)
    y = {
        "a": (x[:, 0] > 0).long(),
        "b": (x[:, 1] > 0).long(),
        "not asked": (x[:, 2] > 0).long(),
    }
    made = [toy(s, ("a", "b"), classes=2)[0] for s in (0, 0)]
    for m in made:
        train_tasks(m, (x, y), epochs=15, lr=0.03)
    assert all(
        torch.equal(p, q) for p, q in zip(made[0].parameters(), made[1].parameters())
    )
    hits = right(
        made[0],
        {
            "p": (x[:50], {"a": y["a"][:50]}),
            "q": (x[50:], {"b": y["b"][50:], "c": y["a"][50:]}),
        },
    )
    assert (
        set(hits) == {"a", "b"}
        and hits["a"].shape == (50,)
        and hits["a"].float().mean() > 0.9
        and hits["b"].float().mean() > 0.9
    )


def test_fused_trunk_reads_every_modality():
    with seeded(0):
        trunk, x = (
            FusedTrunk(
                {"p": nn.Linear(3, 4), "q": nn.Linear(2, 5)}, {"p": 4, "q": 5}, out=6
            ),
            {"p": torch.randn(7, 3), "q": torch.randn(7, 2)},
        )
    z = trunk(x)
    assert z.shape == (7, 6) and z.min() >= 0
    for m in x:
        assert not torch.equal(trunk(x | {m: x[m] + 1}), z)
    with pytest.raises(ValueError, match="dims: expected"):
        FusedTrunk({"p": nn.Linear(3, 4)}, {"q": 4})


# --- the table of results


def test_the_table_of_results_is_whole():
    found = json.loads(data_path("results/multitask.json").read_text(encoding="utf-8"))
    n, size = found["about"]["seeds"], {"digit": 570, "parity": 570, "voice": 270}
    assert n >= 3 and found["runs"].keys() == found["right"].keys()
    for name, runs in found["runs"].items():
        assert len(runs) == n
        for t, counts in found["right"][name].items():
            c = np.array([int(k) for k in counts])
            assert len(c) == size[t] and c.max() <= n
            assert c.sum() / n / len(c) == pytest.approx(
                np.mean([r["test"][t] for r in runs]), abs=1e-9
            )
