"Attacks and defences: by hand, by law, and as the Adversarial Robustness Toolbox does."

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.attack import (
    FromPixels,
    Hearing,
    Rounded,
    Saturated,
    Smoothed,
    certified_radius,
    certify,
    clip_range,
    clopper_pearson,
    fgsm,
    input_gradient,
    lengths,
    margin_loss,
    noise_harm,
    noise_of_size,
    pgd,
    pgd_harm,
    project,
    resists,
    rewrite_attack,
    rewrites,
    sign_harm,
    snr_radius,
    steepest,
    train_robust,
    vote_counts,
)
from mmcourse.attack_tools import (
    Fused,
    bar_of_ink,
    in_free_cell,
    in_letters,
    one_input,
    toolbox_attack,
)
from mmcourse.hints import candidates, hints
from mmcourse.measure import seeded
from mmcourse.training import mlp


def net(seed=0, classes=3):
    with seeded(seed):
        layers = nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten()
        model = nn.Sequential(*layers, nn.Linear(4 * 36, classes))
    return model.eval().requires_grad_(False)


def batch(seed=0, n=5):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 6, 6, generator=g)
    return x, torch.randint(3, (n,), generator=g)


# the gradient and its direction
def test_each_gradient_is_an_examples_own():
    model, (x, y) = net(), batch()
    together = input_gradient(model, x, y)
    alone = [input_gradient(model, x[i : i + 1], y[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))
    h = torch.zeros_like(x)
    h[2, 0, 3, 1] = 1e-2  # the middle of two values is the slope, by hand
    loss = [
        nn.functional.cross_entropy(model(x + s * h), y, reduction="sum")
        for s in (1, -1)
    ]
    assert together[2, 0, 3, 1].item() == pytest.approx(
        (loss[0] - loss[1]).item() / 0.02, abs=1e-3
    )


def test_the_gradient_works_where_gradients_are_off():
    model, (x, y) = net(), batch()
    with torch.no_grad():
        found = input_gradient(model, x, y)
    torch.testing.assert_close(found, input_gradient(model, x, y))


@given(st.sampled_from(["linf", "l2"]), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_no_other_change_of_the_same_size_helps_more(norm, seed):
    g = torch.Generator().manual_seed(seed)
    grad = torch.randn(3, 7, generator=g)
    best = (steepest(grad, norm) * grad).sum(1)
    for _ in range(20):
        other = noise_of_size(grad, 1.0, norm, g)
        assert (best >= (other * grad).sum(1) - 1e-5).all()


def test_the_steepest_direction_by_hand():
    g = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    assert steepest(g).tolist() == [[1, -1], [0, 0]]
    torch.testing.assert_close(steepest(g, "l2"), torch.tensor([[0.6, -0.8], [0, 0]]))


# the ball
def test_a_projection_by_hand():
    d = torch.tensor([[3.0, 4.0], [0.3, -0.4]])
    torch.testing.assert_close(project(d, 1.0), torch.tensor([[1.0, 1.0], [0.3, -0.4]]))
    torch.testing.assert_close(
        project(d, 1.0, "l2"), torch.tensor([[0.6, 0.8], [0.3, -0.4]])
    )
    each = torch.tensor([[2.5], [0.05]])
    torch.testing.assert_close(
        project(d, each, "l2"), torch.tensor([[1.5, 2.0], [0.03, -0.04]])
    )


@given(st.sampled_from(["linf", "l2"]), st.floats(0.01, 3), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_projecting_twice_is_projecting_once(norm, eps, seed):
    d = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(seed))
    once = project(d, eps, norm)
    torch.testing.assert_close(project(once, eps, norm), once)
    size = once.abs().max() if norm == "linf" else lengths(once).max()
    assert size <= eps * (1 + 1e-5)


# attacks
@given(
    st.sampled_from(["linf", "l2"]),
    st.floats(0.01, 0.5),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_an_attack_stays_in_its_ball_and_in_the_picture(
    norm, eps, steps, targeted, random, seed
):
    model, (x, y) = net(seed), batch(seed)
    g = torch.Generator().manual_seed(seed) if random else None
    z = pgd(model, x, y, eps, norm=norm, steps=steps, targeted=targeted, start=g)
    d = z - x
    size = d.abs().max() if norm == "linf" else lengths(d).max()
    assert size <= eps + 1e-6
    assert z.min() >= -1e-6 and z.max() <= 1 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_full_step_of_pgd_is_fgsm(norm):
    model, (x, y) = net(), batch()
    for targeted in (False, True):
        how = {"norm": norm, "targeted": targeted}
        once = pgd(model, x, y, 0.2, steps=1, step=1.0, **how)
        torch.testing.assert_close(once, fgsm(model, x, y, 0.2, **how))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_up_and_down(norm):
    model, (x, y) = net(), batch()
    eps = 0.1 if norm == "linf" else 0.5

    def loss(z):
        return nn.functional.cross_entropy(model(z), y).item()

    up = pgd(model, x, y, eps, norm=norm)
    down = pgd(model, x, y, eps, norm=norm, targeted=True)
    noise = (x + noise_of_size(x, eps, norm, torch.Generator())).clamp(0, 1)
    assert loss(down) < loss(x) < loss(up) and loss(noise) < loss(up)


def test_pgd_finds_the_corner_of_a_linear_model():
    w = torch.tensor([[1.0, -2.0, 0.5, 0.0]])

    def line(x):
        return torch.cat([x @ w.T, -x @ w.T], 1)

    x = torch.full((1, 4), 0.5)
    z = pgd(line, x, torch.tensor([0]), 0.1, steps=5)
    torch.testing.assert_close(z, torch.tensor([[0.4, 0.6, 0.4, 0.5]]))


def test_what_may_not_change_does_not():
    model, (x, y) = net(), batch()
    where = torch.zeros_like(x)
    where[:, :, :2] = 1
    for start in (None, torch.Generator()):
        z = pgd(model, x, y, 0.2, where=where, start=start)
        assert torch.equal(z[:, :, 2:], x[:, :, 2:]) and (z != x).any()


def test_each_example_has_its_own_strength():
    model, (x, y) = net(), batch()
    eps = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]).view(-1, 1, 1, 1)
    z = pgd(model, x, y, eps, norm="l2", bounds=(-9, 9), steps=10)
    torch.testing.assert_close(lengths(z - x), eps, rtol=1e-4, atol=1e-6)


def test_an_example_resists_only_if_it_survives_every_attack():
    model, (x, y) = net(), batch(n=40)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:3] = (y[:3] + 1) % 3  # wrong before: never counted
    found = resists(model, x, y, 0.05, restarts=4, steps=3)
    assert not found[:3].any() and found.any()
    g, left = torch.Generator().manual_seed(0), torch.arange(40) > 2
    for _ in range(4):
        z = pgd(model, x, y, 0.05, steps=3, start=g)
        left &= model(z).argmax(1) == y
    assert torch.equal(found, left)


# the Adversarial Robustness Toolbox
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("steps", [None, 1, 2, 3, 7, 20])
def test_equal_to_the_toolbox(norm, targeted, steps):
    pytest.importorskip("art")
    model, (x, y) = net(), batch()
    how = {"norm": norm, "targeted": targeted}
    for eps in (0.05, 0.4):
        theirs = toolbox_attack(model, x, y, eps, steps=steps, **how)
        if steps is None:
            ours = fgsm(model, x, y, eps, **how)
        else:
            ours = pgd(model, x, y, eps, steps=steps, step=1 / 8, **how)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("norm", "theirs"), [("linf", np.inf), ("l2", 2)])
def test_equal_to_the_toolboxs_numpy(norm, theirs):
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescentNumpy
    from art.estimators.classification import PyTorchClassifier

    model, (x, y) = net(), batch()
    wrapped = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 6, 6),
        nb_classes=3,
        clip_values=(0, 1),
        device_type="cpu",
    )
    for k in (1, 4, 10):
        attack = ProjectedGradientDescentNumpy(
            wrapped, norm=theirs, eps=0.3, eps_step=0.05, max_iter=k, verbose=False
        )
        found = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
        ours = pgd(model, x, y, 0.3, norm=norm, steps=k, step=1 / 6)
        torch.testing.assert_close(ours, found, rtol=0, atol=1e-6)


# sounds
def test_a_radius_in_decibels():
    waves = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    found = snr_radius(waves, 20)
    torch.testing.assert_close(found, torch.tensor([[0.5], [0.1]]))
    assert 20 * math.log10(5 / snr_radius(waves, 33.0)[0, 0]) == pytest.approx(33)


def test_a_clip_goes_from_its_first_sample_to_its_last():
    waves = torch.tensor([[0, 0, 0.1, 0, -0.2, 0], [0.0] * 6, [0.3, 0, 0, 0, 0, 0.1]])
    wanted = [[0, 0, 1, 1, 1, 0], [0] * 6, [1] * 6]
    assert clip_range(waves).tolist() == wanted


def test_a_wave_has_a_gradient():
    class Mean(nn.Module):
        def forward(self, mel):
            return mel.mean(2)[:, :3]

    g = torch.Generator().manual_seed(0)
    waves = torch.zeros(2, 8000)
    waves[:, 1000:5000] = 0.1 * torch.randn(2, 4000, generator=g)
    found = input_gradient(Hearing(Mean()), waves, torch.tensor([0, 1]))
    assert found.isfinite().all() and found[:, 1500:4500].abs().max() > 0


# sentences
def test_a_rewriting_means_the_same_and_names_nothing():
    data = hints("test", 40)
    for text, label in zip(data["text"], data["label"].tolist()):
        found = rewrites(text, label)
        assert len(set(found)) == len(found) >= 30
        for other in found[::17]:
            assert candidates(other) == candidates(text)


def test_the_costliest_sentence_is_found():
    text = "Pick an even number below five."

    def says(texts):  # the longer, the surer of another digit
        n = torch.tensor([float(len(t)) for t in texts])
        return torch.stack([-n if d == 4 else n * 0 for d in range(10)], 1)

    found = rewrites(text, 4)
    assert len(rewrite_attack(says, text, 4)) == max(map(len, found))
    few = rewrite_attack(says, text, 4, budget=3, rng=np.random.default_rng(0))
    assert few in found


# fused models
def experts():
    class Reads(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            return x.float().flatten(1)[:, :3] * self.by

    nets = nn.ModuleDict(
        {m: Reads(b) for m, b in zip(("text", "image", "audio"), (1, 2, 0.1))}
    )
    inputs = {
        "text": torch.tensor([[1, 0, 2], [0, 3, 0]]),
        "image": torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)),
        "audio": torch.zeros(2, 8000),
    }
    inputs["audio"][:, 100:7000] = 0.1 * torch.randn(2, 6900)
    return nets, inputs


def test_fusions_by_hand():
    nets, inputs = experts()
    made = {
        k: Fused(nets, kind=k, scale=(0.5, 2.0))
        for k in ("product", "mean", "majority")
    }
    x = made["mean"].features(inputs)
    torch.testing.assert_close(x["image"], (inputs["image"] - 0.5) / 2)
    p = torch.stack([nets[m](x[m]).softmax(1) for m in x])
    product = p.prod(0) / p.prod(0).sum(1, keepdim=True)
    torch.testing.assert_close(made["product"](inputs).exp(), product)
    torch.testing.assert_close(made["mean"](inputs).exp(), p.mean(0))
    votes = torch.stack([(p.argmax(2) == c).sum(0) for c in range(3)], 1)
    torch.testing.assert_close(made["majority"](inputs).floor(), votes.float())
    assert made["mean"].alone("image")(inputs["image"]).equal(nets["image"](x["image"]))


def test_one_input_changes_and_the_others_stay():
    nets, inputs = experts()
    model = Fused(nets, kind="product", scale=(0.0, 1.0))
    say = one_input(model, inputs, "image")
    assert torch.equal(say(inputs["image"]), model(inputs))
    other = 1 - inputs["image"]
    assert torch.equal(say(other), model(inputs | {"image": other}))


def test_a_joint_model_has_no_expert():
    assert Fused(nn.Identity(), kind="joint", scale=(0, 1)).alone("image") is None
    with pytest.raises(ValueError, match="kind"):
        Fused(nn.Identity(), kind="sum", scale=(0, 1))


# training
def small_task():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.rand(200, 1, 4, 4, generator=g) * 0.2 + 0.4
    x[:, 0, 0, 0] = 0.35 + 0.3 * y  # strong
    x[:, 0, 1:] += 0.02 * (2 * y - 1)[:, None, None]  # many weak ones
    return x, y


def test_adversarial_training_helps_under_attack():
    x, y = small_task()
    left = {}
    for name, harm in {"noise": sign_harm(0.08), "pgd": pgd_harm(0.08, 5)}.items():
        with seeded(0):
            model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        train_robust(model, x, y, harm, epochs=30, lr=3e-2)
        assert not model.training
        left[name] = resists(model, x, y, 0.08).float().mean()
    assert left["pgd"] > left["noise"] + 0.05


def test_harms_have_the_size_that_they_say():
    x, y = batch()
    g = torch.Generator().manual_seed(0)
    model = net()
    assert (pgd_harm(0.1)(model, x, y, g) - x).abs().max() <= 0.1 + 1e-6
    signs = sign_harm(0.1)(model, 0.5 + 0 * x, y, g) - 0.5
    torch.testing.assert_close(signs.abs(), torch.full_like(x, 0.1))
    big = torch.zeros(50, 1, 20, 20)
    assert noise_harm(0.3)(model, big, y, g).std().item() == pytest.approx(
        0.3, rel=0.05
    )


# certificates
def test_the_bound_is_scipys():
    from scipy.stats import binomtest

    for k, n, alpha in ((5, 10, 0.05), (99, 100, 0.001), (100, 100, 0.01), (0, 9, 0.1)):
        test = binomtest(k, n, alternative="greater")
        low = test.proportion_ci(1 - alpha, "exact").low
        assert clopper_pearson(k, n, alpha) == pytest.approx(low, abs=1e-12)


def test_a_radius_by_hand():
    assert certified_radius(1000, 1000, 0.5, 0.001) == pytest.approx(1.2316, abs=1e-3)
    assert certified_radius(400, 1000, 0.5, 0.001) == 0
    assert certified_radius(510, 1000, 0.5, 0.001) == 0  # not certain enough
    ratio = certified_radius(90, 100, 1.0, 0.01) / certified_radius(90, 100, 0.25, 0.01)
    assert ratio == pytest.approx(4)


def test_the_certificate_of_a_half_space_is_its_distance():
    w = torch.tensor([0.6, 0.8])

    class Half(nn.Module):  # the worst case of the proof: equality
        def forward(self, x):
            side = x.flatten(1) @ w
            return torch.stack([side, -side], 1)

    x = torch.tensor([[0.5, 0.5]])  # 0.7 from the border
    top, radius = certify(Half(), x, 0.5, n=20000, alpha=1e-3)
    assert top == 0 and 0.66 < radius <= 0.7


def test_votes_are_counted_once_each():
    counts = vote_counts(net(), batch(n=1)[0], 0.5, 1234, torch.Generator(), batch=500)
    assert counts.sum() == 1234 and len(counts) == 3


def test_the_mean_opinion_is_a_log_probability():
    x, _ = batch()
    p = Smoothed(net(), 0.3, 6)(x).exp()
    assert p.shape == (5, 3)
    torch.testing.assert_close(p.sum(1), torch.ones(5))
    calm = Smoothed(net(), 0.0, 2)(x).exp()
    torch.testing.assert_close(calm, net()(x).softmax(1))


# defences that hide
def test_rounding_hides_its_gradient_and_bpda_shows_it():
    model, (x, y) = net(), batch()
    hidden, shown = Rounded(model, 4), Rounded(model, 4, honest=False)
    torch.testing.assert_close(hidden(x), shown(x))
    levels = (x * 3).round() / 3
    torch.testing.assert_close(hidden(x), model(levels))
    assert (input_gradient(hidden, x, y) == 0).all()
    torch.testing.assert_close(
        input_gradient(shown, x, y), input_gradient(model, levels, y)
    )


def test_a_flat_loss_hides_and_a_margin_does_not():
    model, (x, _) = net(), batch()
    y = model(x).argmax(1)
    flat = Saturated(model, 1e6)
    assert torch.equal(flat(x).argmax(1), y)
    assert (input_gradient(flat, x, y) == 0).all()
    g = input_gradient(flat, x, y, margin_loss)
    wanted = 1e6 * input_gradient(model, x, y, margin_loss)
    torch.testing.assert_close(g, wanted, rtol=1e-3, atol=1.0)


def test_a_margin_by_hand():
    logits = torch.tensor([[2.0, 5.0, 1.0], [3.0, -1.0, 0.0]])
    assert margin_loss(logits, torch.tensor([1, 0])).item() == -3 - 3
    assert margin_loss(logits, torch.tensor([0, 2])).item() == 3 + 3
    assert margin_loss(logits, torch.tensor([0, 2]), reduction="mean").item() == 3


def test_pixels_are_scaled_before_the_network():
    model = FromPixels(nn.Identity(), 0.2, 0.5)
    assert model(torch.tensor([0.2, 0.7])).tolist() == pytest.approx([0, 1])


# tools
def test_a_bar_has_the_ink_of_the_word():
    for word in ("no", "tiger", "panda"):
        ink = in_letters(word)
        assert ink.shape == (32, 32) and 5 < ink.sum() < 400
        bar = bar_of_ink(ink)
        assert bar.sum().item() == pytest.approx(ink.sum().item(), abs=1e-3)
        assert bar.max() <= 1
    assert in_letters("no", 9, 16).shape == (16, 16)


def test_ink_goes_into_a_cell_that_is_free():
    from mmcourse.scenes import make_scenes

    scenes = make_scenes(12, "test")
    canvas = torch.as_tensor(scenes["image"])
    marked = in_free_cell(canvas, scenes["things"], [torch.ones(16, 16)] * 12)
    for a, b, shown in zip(canvas, marked, scenes["things"]):
        changed = (a != b).any(0).unfold(0, 16, 16).unfold(1, 16, 16).flatten(2).any(2)
        assert changed.sum() == 1
        assert not any(changed[t.row, t.column] for t in shown)


@pytest.mark.parametrize("call", [steepest, lambda g, n: project(g, 1.0, n)])
def test_an_unknown_norm_is_refused(call):
    with pytest.raises(ValueError, match="norm"):
        call(torch.ones(2, 3), "l1")


def test_the_shipped_networks_are_what_was_measured():
    from mmcourse.checkpoint import read_tensors, shipped_state
    from mmcourse.classifiers import ImageNet28
    from mmcourse.datasets import mnist
    from mmcourse.pipeline import moments
    from mmcourse.store import data_path, kept_runs

    tensors, _ = read_tensors(data_path("attack.safetensors"))
    digits = mnist("test")
    x, y = (
        torch.tensor(digits["image"])[:100, None],
        torch.tensor(digits["label"])[:100],
    )
    scale = moments(mnist("train")["image"])
    for how in ("clean", "noise", "PGD"):
        model = ImageNet28()
        model.load_state_dict(shipped_state(tensors, f"{how}."))
        model = FromPixels(model, *scale).eval()
        kept = kept_runs("attack", f"effort/{how}")[0]["steps 10"][:100]
        found = resists(model, x, y, 0.2, steps=10)
        same = [int(c) == int(f) for c, f in zip(kept, found)]
        assert np.mean(same) >= 0.95  # int8 rounds the weights
    flat = mlp(784, 128)
    flat.load_state_dict(shipped_state(tensors, "mlp."))
    assert (FromPixels(flat, *scale).eval()(x).argmax(1) == y).float().mean() > 0.85
