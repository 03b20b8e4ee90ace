"Laws of shared gradients, of weights by uncertainty and of surgery; splits and labels."

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.classifiers import AudioNet
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
    pcgrad,
    probe,
    profiled,
    project_off,
    questions,
    repeat_known,
    right,
    sound_model,
    spoken_tasks,
    steer,
    surgery,
    task_gradients,
    task_losses,
    train_tasks,
    weighted,
    within_voices,
)

torch.set_num_threads(1)
seeds = st.integers(0, 2**31 - 1)
cases = settings(max_examples=30, deadline=None)


def toy(seed=0, tasks="abc", n=32, d=5, classes=4):
    "A small shared model and data of the same kind."
    with seeded(seed):
        trunk = nn.Sequential(nn.Linear(d, 7), nn.Tanh())
        model = MultiTask(trunk, {t: nn.Linear(7, classes) for t in tasks})
        return model, (
            torch.randn(n, d),
            {t: torch.randint(classes, (n,)) for t in tasks},
        )


def draw(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def flat_gradient(loss, params):
    parts = torch.autograd.grad(loss, params, retain_graph=True)
    return torch.cat([g.flatten() for g in parts])


# --- one trunk, several heads


@cases
@given(seeds, st.integers(1, 4))
def test_the_trunks_gradient_is_the_sum_and_a_heads_its_own(seed, T):
    model, (x, y) = toy(seed, "abcd"[:T])
    losses = task_losses(model(x), y)
    params = list(model.trunk.parameters())
    g = task_gradients(losses, params)
    total = sum(losses.values())
    assert g.shape == (T, sum(p.numel() for p in params))
    torch.testing.assert_close(g.sum(0), flat_gradient(total, params))
    for i, (task, loss) in enumerate(losses.items()):
        torch.testing.assert_close(g[i], flat_gradient(loss, params))
        own = list(model.heads[task].parameters())
        torch.testing.assert_close(flat_gradient(total, own), flat_gradient(loss, own))


def test_a_parameter_that_a_task_does_not_use_has_no_gradient_from_it():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    g = task_gradients({"a": a.sum(), "b": (2 * b).sum()}, [a, b])
    assert g.tolist() == [[1, 1, 0, 0, 0], [0, 0, 2, 2, 2]]


def test_forward_is_trunk_then_head():
    model, (x, _) = toy(3)
    logits = model(x)
    assert list(logits) == ["a", "b", "c"]
    for task, o in logits.items():
        assert torch.equal(o, model.heads[task](model.trunk(x)))


def test_one_head_is_audio_net():
    with seeded(0):
        net, x = AudioNet().eval(), torch.rand(3, 20, 30) * -40
    one = sound_model(["digit"]).eval()
    one.trunk.body.load_state_dict(net.body.state_dict())
    one.heads["digit"].load_state_dict(net.head.state_dict())
    assert torch.equal(one(x)["digit"], net(x))


def test_sound_models_have_the_heads_that_were_asked_for():
    a, b, c = (sound_model(seed=s).state_dict() for s in (1, 1, 2))
    key = "heads.voice.1.weight"
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a[key], c[key])
    head = nn.Linear(32, 3)
    made = sound_model(["parity"], heads={"age": head}, width=16)
    assert made.heads["age"] is head
    o = made(torch.rand(2, 20, 30) * -40)
    assert {t: tuple(v.shape) for t, v in o.items()} == {
        "parity": (2, 2),
        "age": (2, 3),
    }
    assert sound_model()(torch.rand(2, 20, 30) * -40)["voice"].shape == (2, 54)


# --- losses and labels


@cases
@given(seeds, st.floats(0, 1))
def test_unknown_labels_are_passed_over(seed, share):
    g = torch.Generator().manual_seed(seed)
    o, y = torch.randn(12, 3, generator=g), torch.randint(3, (12,), generator=g)
    known = torch.rand(12, generator=g) >= share
    loss = task_losses({"t": o}, {"t": torch.where(known, y, UNKNOWN), "u": y})["t"]
    want = F.cross_entropy(o[known], y[known]) if known.any() else torch.zeros(())
    torch.testing.assert_close(loss, want)


def test_no_label_no_gradient_and_no_nan():
    o = torch.randn(4, 3, requires_grad=True)
    task_losses({"t": o}, {"t": torch.full((4,), UNKNOWN)})["t"].backward()
    assert torch.equal(o.grad, torch.zeros(4, 3))


def test_right_counts_known_labels_alone():
    model = MultiTask(nn.Identity(), {"t": nn.Identity(), "u": nn.Identity()})
    x = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    y = {"t": torch.tensor([0, UNKNOWN, 1, 1]), "u": torch.full((4,), UNKNOWN)}
    found = right(model, (x, y))
    assert found["t"].tolist() == [True, False, True]
    assert found["u"].tolist() == []


def test_questions_leave_the_unknown_unknown():
    digit = torch.tensor([0, 7, UNKNOWN])
    y = questions(digit, torch.tensor([5, UNKNOWN, 3]))
    assert y["parity"].tolist() == [0, 1, UNKNOWN]
    assert y["digit"] is digit
    assert y["voice"].tolist() == [5, UNKNOWN, 3]


@cases
@given(seeds, st.integers(1, 60))
def test_kept_labels_are_few_level_and_right(seed, n):
    y = torch.randint(5, (60,), generator=torch.Generator().manual_seed(seed))
    few = keep_labels({"t": y, "u": y}, "t", n, seed=seed)
    known = few["t"] != UNKNOWN
    assert known.sum() == n
    assert few["u"] is y
    assert torch.equal(few["t"][known], y[known])
    have, left = torch.bincount(y, minlength=5), torch.bincount(y[known], minlength=5)
    for c in range(5):  # level, unless a class has no more
        assert left[c] == have[c] or left[c] >= left.max() - 1
    again = keep_labels({"t": y}, "t", n, seed=seed)
    assert torch.equal(few["t"], again["t"])


def test_other_seeds_keep_other_labels():
    y = {"t": torch.arange(60) % 5}
    a, b = (keep_labels(y, "t", 10, seed=s)["t"] for s in (0, 1))
    assert not torch.equal(a, b)


@cases
@given(seeds, st.integers(1, 20), st.integers(0, 5))
def test_known_rows_come_again_and_no_others(seed, n, times):
    y = torch.randint(3, (20,), generator=torch.Generator().manual_seed(seed))
    targets = keep_labels({"t": y, "u": y}, "t", n, seed=seed)
    x, more = repeat_known((torch.arange(20), targets), "t", times)
    assert torch.equal(x[:20], torch.arange(20))
    known = targets["t"] != UNKNOWN
    assert torch.equal(torch.bincount(x, minlength=20), 1 + times * known)
    assert torch.equal(more["u"], y[x])
    assert torch.equal(more["t"], targets["t"][x])


# --- the splits


@cases
@given(seeds, st.integers(1, 6), st.integers(1, 5), st.integers(2, 4))
def test_every_voice_is_on_all_sides_and_no_clip_on_two(seed, voices, digits, clips):
    order = np.random.default_rng(seed).permutation(voices * digits * clips)
    d = np.repeat(np.tile(np.arange(digits), voices), clips)[order]
    v = np.repeat(np.arange(voices), digits * clips)[order]
    split = {k: r.numpy() for k, r in within_voices(d, v, seed=seed).items()}
    rows = np.concatenate(list(split.values()))
    assert sorted(rows) == list(range(len(d)))
    held = np.concatenate([split["valid"], split["test"]])
    pairs = sorted(zip(v[held], d[held]))
    assert pairs == [(a, b) for a in range(voices) for b in range(digits)]
    on_valid = np.bincount(v[split["valid"]], minlength=voices)
    assert on_valid.tolist() == [-(-digits // 2)] * voices


def test_another_seed_holds_out_other_clips():
    d, v = np.repeat(np.arange(4), 6), np.tile([0, 1], 12)
    a, b = (within_voices(d, v, seed=s)["train"] for s in (0, 1))
    assert not torch.equal(a, b)


@pytest.fixture(scope="module")
def data():
    return spoken_tasks()


def test_spoken_tasks_measure_what_they_say(data):
    x, y = data["train"]
    assert x.shape == (2580, 20, 51)
    assert {t: int(v.max()) + 1 for t, v in y.items()} == TASKS
    assert all((v.bincount() > 0).all() for v in y.values())
    for split, n in (("valid", 300), ("test", 570)):
        x, y = data[split]
        assert x.shape == (n + 270, 20, 51)
        new = torch.arange(n + 270) < n
        assert torch.equal(y["digit"] != UNKNOWN, new)
        assert torch.equal(y["parity"] != UNKNOWN, new)
        assert torch.equal(y["voice"] != UNKNOWN, ~new)
        assert y["voice"][~new].bincount().tolist() == [5] * 54
        assert torch.equal(y["parity"][new], y["digit"][new] % 2)


def test_no_clip_of_training_is_tested(data):
    seen = {m.numpy().tobytes() for m in data["train"][0]}
    for split in ("valid", "test"):
        assert not any(m.numpy().tobytes() in seen for m in data[split][0])


# --- balances


@cases
@given(st.floats(1e-3, 1e3), st.floats(-3, 3))
def test_the_best_log_variance_is_best(loss, off):
    balance, losses = Uncertainty(["t"]), {"t": torch.tensor(loss)}
    balance.start(losses)
    best = balance(losses)
    assert best.item() == pytest.approx(profiled(losses).item(), abs=1e-4)
    assert balance.weights()["t"] == pytest.approx(1 / (2 * loss), rel=1e-4)
    (g,) = torch.autograd.grad(best, balance.log_var)
    assert g.item() == pytest.approx(0, abs=1e-5)
    balance.log_var.data += off
    assert balance(losses) >= best - 1e-4


def test_uncertainty_by_hand():
    balance = Uncertainty("ab")
    balance.log_var.data = torch.tensor([0.0, math.log(4)])
    losses = {"b": torch.tensor(2.0), "a": torch.tensor(3.0)}  # in another order
    assert balance(losses).item() == pytest.approx(3 + 2 / 4 + math.log(4) / 2)
    assert balance.weights() == {"a": 1.0, "b": pytest.approx(0.25)}


@cases
@given(seeds, st.floats(0.01, 100))
def test_the_product_has_no_units_and_the_sum_has(seed, factor):
    model, (x, y) = toy(seed)
    params = list(model.trunk.parameters())

    def push(balance, f):
        losses = task_losses(model(x), y)
        return flat_gradient(balance(losses | {"a": f * losses["a"]}), params)

    torch.testing.assert_close(
        push(profiled, 1.0), push(profiled, factor), rtol=1e-4, atol=1e-6
    )
    if abs(math.log(factor)) > 0.1:
        assert (push(weighted, 1.0) - push(weighted, factor)).norm() > 1e-3


def test_a_started_uncertainty_has_no_units():
    model, (x, y) = toy(4)
    losses, pushes = task_losses(model(x), y), []
    for factor in (1.0, 100.0):
        balance, changed = Uncertainty("abc"), losses | {"a": factor * losses["a"]}
        balance.start(changed)
        torch.testing.assert_close(balance(changed), profiled(changed))
        params = list(model.trunk.parameters())
        pushes.append(flat_gradient(balance(changed), params))
    torch.testing.assert_close(*pushes)


def test_uncertainty_learns_with_the_model():
    model, train = toy(1)
    balance = Uncertainty("abc")
    train_tasks(model, train, balance, epochs=400, lr=0.05)
    assert model.balance is balance
    with torch.no_grad():
        losses = task_losses(model(train[0]), train[1])
    for s, loss in zip(balance.log_var, losses.values()):
        assert abs(s - best_log_var(loss)) < 0.3


def test_the_product_survives_a_loss_of_zero():
    loss = torch.zeros((), requires_grad=True)
    profiled({"t": loss}).backward()
    assert loss.grad == 0


def test_weights_weigh():
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert weighted(losses) == 5
    assert weighted(losses, {"a": 10.0}) == 23
    assert weighted(losses, {"a": 0.0, "b": 0.0}) == 0


# --- gradients that fight


@cases
@given(seeds, st.integers(1, 5), st.integers(2, 9), st.floats(1e-6, 1e6))
def test_cosines_have_bounds_and_no_length(seed, T, P, factor):
    g = draw(seed, T, P)
    c = cosines(g)
    assert c.shape == (T, T)
    assert c.abs().max() <= 1 + 1e-9
    torch.testing.assert_close(c.diagonal(), torch.ones(T, dtype=torch.float64))
    torch.testing.assert_close(cosines(factor * g), c)
    torch.testing.assert_close(cosines(g, -g[:1]), -c[:, :1])


def test_cosines_by_hand():
    c = cosines(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), torch.tensor([[2.0, 0.0]]))
    assert c.flatten().tolist() == [0, pytest.approx(math.sqrt(0.5))]


@cases
@given(seeds, st.integers(2, 9))
def test_after_projection_no_conflict_is_left(seed, P):
    g, h = draw(seed, 2, P)
    p = project_off(g, h)
    assert p @ h >= -1e-9
    assert p.norm() <= g.norm() + 1e-9
    if g @ h >= 0:
        assert torch.equal(p, g)
    else:
        torch.testing.assert_close(p @ h, torch.zeros((), dtype=torch.float64))
        along = F.normalize(h, dim=0)
        torch.testing.assert_close(p, g - (g @ along) * along)
    assert torch.equal(project_off(g, torch.zeros_like(h)), g)


@cases
@given(seeds, st.integers(2, 9))
def test_surgery_on_two_hurts_neither(seed, P):
    g = draw(seed, 2, P)
    step = pcgrad(g, torch.Generator().manual_seed(0))
    assert (g @ step >= -1e-9).all()
    want = project_off(g[0], g[1]) + project_off(g[1], g[0])
    torch.testing.assert_close(step, want)


def test_surgery_on_three_may_hurt_one_and_depends_on_the_order():
    hurt, steps = 0, set()
    apart = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.6]])
    for seed in range(200):
        g = draw(seed, 3, 3)
        step = pcgrad(g, torch.Generator().manual_seed(seed))
        hurt += (g @ step < -1e-6).any().item()
        again = pcgrad(apart, torch.Generator().manual_seed(seed))
        steps.add(tuple(again.numpy().round(5)))
    assert hurt > 0
    assert len(steps) == 8  # two orders for each of three


def test_surgery_of_agreement_is_the_sum():
    g = draw(0, 4, 6).abs()
    torch.testing.assert_close(pcgrad(g, torch.Generator()), g.sum(0))


@cases
@given(seeds)
def test_steering_changes_the_gradient_and_not_the_value(seed):
    model, (x, y) = toy(seed)
    params = list(model.trunk.parameters())
    loss = sum(task_losses(model(x), y).values())
    change = draw(seed, sum(p.numel() for p in params)).float()
    steered = steer(loss, params, change)
    torch.testing.assert_close(steered, loss)
    want = flat_gradient(loss, params) + change
    got = flat_gradient(steered, params)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_surgery_moves_the_trunk_and_leaves_heads_their_own_loss():
    model, (x, y) = toy(5)
    params = list(model.trunk.parameters())
    losses = task_losses(model(x), y)
    want = pcgrad(task_gradients(losses, params), torch.Generator().manual_seed(2))
    total = surgery(params, seed=2)(losses)
    torch.testing.assert_close(total, sum(losses.values()))
    torch.testing.assert_close(flat_gradient(total, params), want)
    head = [model.heads["a"].weight]
    own = flat_gradient(losses["a"], head)
    torch.testing.assert_close(flat_gradient(total, head), own)


def test_conflict_of_a_task_with_its_copy():
    model, (x, y) = toy(2, "ab", n=512, classes=2)
    model.heads["b"].load_state_dict(model.heads["a"].state_dict())
    same = conflict(model, (x, {"a": y["a"], "b": y["a"]}))
    torch.testing.assert_close(same["between"], torch.ones(2, 2))
    assert same["within"].shape == (2,)
    assert same["within"][0] == same["within"][1]
    assert same["within"].max() < 0.99
    opposite = conflict(model, (x, {"a": y["a"], "b": 1 - y["a"]}))
    assert opposite["between"][0, 1] < 0.5
    assert not model.training


def test_within_is_the_mean_over_pairs_of_batches():
    model, (x, y) = toy(6, "ab", n=40)
    found = conflict(model, (x, y), batch_size=10, seed=3)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    g = []
    for rows in order.split(10):
        losses = task_losses(model(x[rows]), {t: v[rows] for t, v in y.items()})
        g.append(task_gradients(losses, model.trunk.parameters()))
    pairs = [F.cosine_similarity(g[i], g[j]) for i in range(4) for j in range(i)]
    torch.testing.assert_close(found["within"], torch.stack(pairs).mean(0))
    between = torch.stack([F.cosine_similarity(b[0], b[1], dim=0) for b in g])
    torch.testing.assert_close(found["between"][0, 1], between.mean())


# --- forgetting on purpose


@cases
@given(seeds, st.floats(0, 10))
def test_reversal_is_the_identity_up_and_minus_the_strength_down(seed, strength):
    x, g = draw(seed, 3, 4).requires_grad_(), draw(seed + 1, 3, 4)
    y = ReverseGradient(strength)(x)
    assert torch.equal(y, x)
    torch.testing.assert_close(torch.autograd.grad(y, x, g)[0], -strength * g)


def test_a_probe_finds_what_is_there_and_not_what_is_not():
    with seeded(0):
        y, noise = torch.randint(3, (300,)), torch.randn(300, 4)
    there = torch.cat([100 + noise, 1e-3 * F.one_hot(y, 3)], 1)  # on any scale
    absent = torch.cat([noise, torch.zeros(300, 3)], 1)
    for x, low, high in ((there, 0.95, 1), (absent, 0, 0.55)):
        share = probe(nn.Identity(), (x[:200], y[:200]), (x[200:], y[200:]))
        assert low <= share <= high


# --- training, and both at once


def test_training_learns_repeats_and_takes_the_models_tasks_alone():
    with seeded(0):
        x = torch.randn(256, 5)
    y = {"a": (x[:, 0] > 0).long(), "b": (x[:, 1] > 0).long()}
    y["not asked"] = torch.full((256,), 9)
    made = [toy(0, "ab", classes=2)[0] for _ in range(3)]
    for model, seed in zip(made, (0, 0, 1)):
        train_tasks(model, (x, y), epochs=15, lr=0.03, seed=seed)
    one, same, other = (m.trunk[0].weight for m in made)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    for found in right(made[0], (x, y)).values():
        assert found.double().mean() > 0.9


def test_a_task_of_no_weight_is_not_learnt():
    with seeded(0):
        x = torch.randn(256, 5)
    y = {"a": (x[:, 0] > 0).long(), "b": (x[:, 1] > 0).long()}
    model, _ = toy(0, "ab", classes=2)
    train_tasks(model, (x, y), lambda l: weighted(l, {"b": 0.0}), epochs=15, lr=0.03)
    found = right(model, (x, y))
    assert found["a"].double().mean() > 0.9
    assert found["b"].double().mean() < 0.8


def test_fused_trunk_reads_every_modality():
    with seeded(0):
        encoders = {"p": nn.Linear(3, 4), "q": nn.Linear(2, 5)}
        trunk = FusedTrunk(encoders, {"p": 4, "q": 5}, out=6)
        x = {"p": torch.randn(7, 3), "q": torch.randn(7, 2)}
    z = trunk(x)
    assert z.shape == (7, 6)
    assert z.min() == 0
    for m in x:
        assert not torch.equal(trunk(x | {m: x[m] + 1}), z)
