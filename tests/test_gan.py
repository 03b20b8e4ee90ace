"The game's closed forms, spectral norm against torch, networks, training, measures."

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.testing import assert_close

from conftest import refused
from mmcourse.checkpoint import CheckpointError, read_tensors
from mmcourse.duel import (
    average_into,
    earth_mover,
    endless,
    on_circle,
    ring,
    ring_report,
)
from mmcourse.gan import (
    Discriminator,
    Generator,
    best_discriminator,
    conv_norm,
    density_coverage,
    earth_on_a_line,
    fidelity,
    frechet_distance,
    game_value,
    gan_round,
    gradient_penalty,
    hinge_discriminator,
    hinge_generator,
    js_divergence,
    load_gan,
    load_reader,
    logistic_discriminator,
    minimax_generator,
    move,
    nearest,
    non_saturating_generator,
    play_ring,
    power_iteration,
    sample_digits,
    train_gan,
)
from mmcourse.judging import (
    one_picture,
    photocopies,
    pixel_gaussians,
    reader_features,
    train_reader,
)
from mmcourse.measure import seeded
from mmcourse.store import data_path

some = settings(max_examples=30, deadline=None)
seeds, size = st.integers(0, 2**31 - 1), st.integers(1, 6)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(shape, generator=gen(seed), dtype=torch.float64)


def made(seed, n=20, classes=10):  # pictures and labels
    rng = gen(seed)
    images = torch.rand(n, 28, 28, generator=rng)
    return images, torch.randint(classes, (n,), generator=rng)


def densities(seed, n=50):  # with dx = 1 both integrate to 1
    p, q = torch.rand(2, n, generator=gen(seed), dtype=torch.float64).pow(4)
    return p / p.sum(), q / q.sum()


# --- the game


@some
@given(seeds)
def test_the_value_of_the_game_is_twice_js_less_log_four(seed):
    p, q = densities(seed)
    value = game_value(best_discriminator(p, q), p, q, 1.0)
    js = js_divergence(p, q, 1.0)
    assert abs(value - (2 * js - math.log(4))) < 1e-9
    assert 0 < js < math.log(2) and abs(js - js_divergence(q, p, 1.0)) < 1e-12
    assert js_divergence(p, p, 1.0).abs() < 1e-12


@some
@given(seeds, st.floats(0.01, 3))
def test_no_discriminator_is_paid_more_than_the_best(seed, by):
    p, q = densities(seed)
    D = best_discriminator(p, q)
    other = (torch.logit(D, 1e-9) + by * normal(seed, 50)).sigmoid()
    assert game_value(other, p, q, 1.0) < game_value(D, p, q, 1.0)


def test_the_step_of_the_grid_counts():
    p, q = densities(0)
    D = best_discriminator(p, q)
    assert_close(game_value(D, p, q, 0.5), game_value(D, p, q, 1.0) / 2)
    assert_close(js_divergence(p, q, 0.5), js_divergence(p, q, 1.0) / 2)


def test_what_never_meets():
    p, q = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    assert abs(js_divergence(p, q, 1.0) - math.log(2)) < 1e-6
    assert best_discriminator(p, q).tolist() == [1.0, 0.0, 0.5]
    assert game_value(best_discriminator(p, q), p, q, 1.0) == 0
    assert game_value(1 - best_discriminator(p, q), p, q, 1.0) < -80  # and finite
    assert game_value(1 - best_discriminator(p, q), p, q, 1.0).isfinite()


@some
@given(seeds)
def test_losses_are_the_logarithms_that_they_claim(seed):
    real, fake = normal(seed, 2, 9) * 3
    D, G = real.sigmoid(), fake.sigmoid()
    paid = D.log().mean() + (1 - G).log().mean()
    assert_close(logistic_discriminator(real, fake), -paid)
    assert_close(minimax_generator(fake), (1 - G).log().mean())
    assert_close(non_saturating_generator(fake), -G.log().mean())


def test_gradients_where_the_discriminator_is_sure():
    s = torch.full((4,), -200.0, requires_grad=True)
    losses = minimax_generator, non_saturating_generator, hinge_generator
    grads = [torch.autograd.grad(loss(s), s)[0].tolist() for loss in losses]
    assert grads == [[0.0] * 4, [-0.25] * 4, [-0.25] * 4]


def test_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-4.0, 1.0])
    assert hinge_discriminator(real, fake).item() == 0.5 + 1.0
    assert hinge_generator(real).item() == -1.0


# --- a round


def test_a_round_is_two_kinds_of_steps():
    "With plain steps: the discriminator's at the old m, then m's at the new weights."
    m, w = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.5))
    sgd = [torch.optim.SGD([v], 0.1) for v in (m, w)]
    real, z = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([0.1, 0.2, -0.3])
    steps = {"moves": (2, 1), "loss": minimax_generator}
    gan_round(lambda z: m + z, lambda x: w * x, *sgd, lambda: real, lambda: z, **steps)
    v = torch.tensor(0.5)
    for _ in range(2):
        fake = 2 + z
        slope = -((-v * real).sigmoid() * real).mean()
        v = v - 0.1 * (slope + ((v * fake).sigmoid() * fake).mean())
    assert_close(w.detach(), v)
    assert_close(m.detach(), 2 + 0.1 * (v * (2 + z)).sigmoid().mean() * v)


def test_the_discriminators_step_leaves_the_generator_alone():
    g, d = nn.Linear(1, 1), nn.Linear(1, 1)
    sgd = [torch.optim.SGD([*g.parameters(), *d.parameters()], 0.1) for _ in range(2)]
    before = g.weight.item()
    batch = [lambda: torch.ones(2, 1)] * 2
    gan_round(g, d, *sgd, *batch, moves=(1, 0))
    assert g.weight.item() == before
    gan_round(g, d, *sgd, *batch)
    assert g.weight.item() != before


def test_a_loss_that_is_not_finite_is_refused():
    w = nn.Parameter(torch.ones(1))
    for bad in (math.nan, math.inf):
        with pytest.raises(FloatingPointError, match="loss"):
            move(torch.optim.SGD([w], 0.1), (bad * w).sum())
    assert w.item() == 1


# --- earth


@some
@given(seeds, st.integers(1, 30))
def test_the_earth_movers_distance_is_scipys(seed, n):
    a, b = normal(seed, n), 2 * normal(seed + 1, n) + 1
    assert_close(earth_on_a_line(a, b).item(), wasserstein_distance(a, b))
    assert_close(earth_mover(a[:, None], b[:, None]), wasserstein_distance(a, b))


@some
@given(seeds)
def test_the_best_pairs_of_points(seed):
    a, b = normal(seed, 7, 2), normal(seed + 1, 7, 2)
    moved = earth_mover(a, b[torch.randperm(7, generator=gen(seed))])
    assert_close(moved, earth_mover(b, a))
    assert moved <= (a - b).norm(dim=1).mean().item() + 1e-12
    assert_close(earth_mover(a, a + torch.tensor([3.0, 4.0])), 5.0)


def test_the_penalty_is_of_the_slope_between_the_data():
    steep = nn.Linear(3, 1)
    with torch.no_grad():
        steep.weight.copy_(torch.tensor([[3.0, 0, 4.0]]))
    real, fake = torch.randn(2, 6, 3)
    assert_close(gradient_penalty(steep, real, fake).item(), 16.0)
    seen = []

    def curved(x):
        seen.append(x)
        return (x**2).sum(1, keepdim=True)

    with seeded(0):
        got = gradient_penalty(curved, torch.zeros(500, 1), torch.ones(500, 1))
    x = seen[0].detach()
    assert x.min() >= 0 and x.max() <= 1 and x.std() > 0.2
    assert_close(got, (2 * x - 1).square().mean())


def test_the_penalty_has_a_gradient():
    layer = nn.Linear(2, 1)
    gradient_penalty(layer, torch.rand(4, 2), torch.rand(4, 2)).backward()
    off = layer.weight.detach().norm() - 1
    assert_close(layer.weight.grad, 2 * off * F.normalize(layer.weight.detach()))


# --- the ring


def test_ring_report_counts_heaps_and_good_points():
    heaps, good = ring_report(ring(4000, gen(1)))
    assert heaps == 8 and good > 0.98
    one = on_circle(torch.zeros(100))
    assert_close(one[0], torch.tensor([1.0, 0]))
    assert_close(on_circle(torch.tensor([0.25]))[0], torch.tensor([0.0, 1]))
    assert ring_report(one) == (1, 1.0)
    assert ring_report(torch.cat([one, 9 * one])) == (1, 0.5)
    rare = torch.cat([one, one, on_circle(torch.full((1,), 0.5))])
    assert ring_report(rare)[0] == 1  # half a per cent is no heap
    assert ring_report(ring(400, gen(0), modes=5), modes=5)[0] == 5
    circle = ring_report(on_circle(torch.rand(4000, generator=gen(0))))
    assert circle[0] == 8 and abs(circle[1] - 0.51) < 0.03


def test_play_ring_is_the_same_for_the_same_seed_and_other_moves_matter():
    a, b, c = [play_ring(s, rounds=3) for s in (0, 0, 1)]
    assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == (1000, 2)
    assert not torch.equal(a, play_ring(0, rounds=3, moves=(1, 2)))
    assert not a.requires_grad


# --- spectral norm


@some
@given(size, size, seeds)
def test_power_iteration_finds_the_largest_singular_value_from_below(i, j, seed):
    W, u = normal(seed, i, j), normal(seed + 1, i)
    exact = torch.linalg.matrix_norm(W, 2)
    few, (many, u, v) = power_iteration(W, u)[0], power_iteration(W, u, 300)
    assert few <= many + 1e-9 and exact * 0.97 <= many <= exact + 1e-9
    assert_close(u.norm(), torch.ones(()).double())
    assert_close(torch.dot(u, W @ v), many)


@pytest.mark.parametrize("seed", range(3))
def test_spectral_norm_equals_torch_step_by_step(seed):
    with seeded(seed):
        layer = nn.Conv2d(2, 5, 3)
    W = layer.weight.detach().flatten(1).clone()
    normed = spectral_norm(layer).train()
    kept = normed.parametrizations.weight[0]
    v = kept._v.clone()
    for _ in range(3):
        theirs = normed.weight.detach().flatten(1)
        sigma, v, u = power_iteration(W.T, v)
        assert_close(W / sigma, theirs)
        assert_close(u, kept._u)
        assert_close(v, kept._v)


@pytest.mark.parametrize("m,stride,padding", [(4, 2, 1), (3, 2, 1), (3, 1, 0)])
def test_the_norm_of_a_convolution_is_its_matrix(m, stride, padding):
    "Column by column: the layer without its bias, applied to each single pixel."
    with seeded(m):
        layer = nn.Conv2d(2, 3, m, stride, padding)
    pixels = torch.eye(2 * 36).view(-1, 2, 6, 6)
    A = F.conv2d(pixels, layer.weight.detach(), None, stride, padding).flatten(1).T
    exact = torch.linalg.matrix_norm(A, 2).item()
    found = conv_norm(layer, (2, 6, 6), 300)
    assert exact * 0.98 < found < exact * 1.0001
    kernel = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()
    patches = math.ceil(m / stride)  # that a pixel lies in, each way
    assert found < patches * kernel + 1e-4


def test_every_matrix_of_the_discriminator_is_bounded():
    with seeded(0):
        d = Discriminator(width=4)
    images, y = made(0, 4)
    for _ in range(60):
        d(images, y)
    normed = [m for m in d.modules() if hasattr(m, "parametrizations")]
    assert len(normed) == 5
    for m in normed:
        assert torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2) < 1.05


# --- the networks


@settings(max_examples=10, deadline=None)
@given(size, st.integers(1, 9), st.integers(2, 12), st.integers(1, 6), seeds)
def test_shapes_and_ranges(B, z, classes, width, seed):
    with seeded(seed):
        g, d = Generator(z, classes, width).eval(), Discriminator(classes, width)
        y = torch.randint(classes, (B,))
        pictures = g(torch.randn(B, z), y)
    assert pictures.shape == (B, 28, 28) and d(pictures, y).shape == (B,)
    assert pictures.min() >= 0 and pictures.max() <= 1


def test_discriminator_is_a_projection():
    "The class enters the score as the product of its vector with the features."
    with seeded(0):
        d = Discriminator(width=4).eval()
    images, y = made(1, 3)[0], torch.tensor([0, 4, 9])
    h, E = d.body(2 * images[:, None] - 1), d.of_class.weight
    apart = d(images, y) - d(images, (y + 1) % 10)
    want = ((E[y] - E[(y + 1) % 10]) * h).sum(1)
    assert_close(apart, want, atol=1e-5, rtol=1e-4)
    assert_close(d(images, y), d.score(h)[:, 0] + (E[y] * h).sum(1))


def test_the_norm_belongs_to_the_class():
    with seeded(0):
        g = Generator(width=4)
        x, y = 5 + 3 * torch.randn(6, 8, 7, 7), torch.arange(6)
    layer = g.norm1
    plain = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    parts = layer.scale.weight[y], layer.shift.weight[y]
    scale, shift = [v[:, :, None, None] for v in parts]
    assert_close(layer(x, y), plain * scale + shift, atol=1e-2, rtol=1e-2)
    assert abs(layer.scale.weight.mean() - 1) < 0.1 > abs(layer.shift.weight.mean())


def test_the_class_changes_the_picture():
    with seeded(0):
        g = Generator(width=4).eval()
    z = torch.randn(1, 64, generator=gen(0)).expand(2, 64)
    a, b = g(z, torch.tensor([3, 5]))
    assert (a - b).abs().max() > 0.01


def test_samples_depend_on_seed_and_not_on_company():
    with seeded(0):
        g = Generator(width=4)
    y = torch.arange(300) % 10
    a = sample_digits(g, y, seed=3)
    assert torch.equal(a, sample_digits(g, y.tolist(), seed=3))
    assert not torch.equal(a, sample_digits(g, y, seed=4))
    assert g.training and not a.requires_grad
    assert_close(a[:7], sample_digits(g, y[:7], seed=3))
    with torch.no_grad():
        z = torch.randn(300, 64, generator=gen(3))
        assert_close(a[260:], g.eval()(z, y)[260:])


# --- training


@pytest.fixture
def small():
    with seeded(0):
        return {
            "generator": Generator(width=3),
            "discriminator": Discriminator(width=3),
        }


def same(m, n):
    pairs = zip(m.state_dict().values(), n.state_dict().values())
    return all(torch.equal(v, w) for v, w in pairs)


def test_same_seed_same_weights_and_the_arguments_are_left_alone(small):
    images, y = made(0)
    before = {k: v.clone() for k, v in small["generator"].state_dict().items()}
    brief = {"steps": 3, "batch_size": 8} | small
    with seeded(5):
        torch.randn(3)
        a = train_gan(images, y, **brief)
    b, c = [train_gan(images.numpy(), y.numpy(), seed=s, **brief) for s in (0, 1)]
    assert same(a.generator, b.generator) and same(a.discriminator, b.discriminator)
    assert not same(a.generator, c.generator)
    now = small["generator"].state_dict()
    assert all(torch.equal(v, before[k]) for k, v in now.items())
    names = {"discriminator", "generator", "real", "fake"}
    assert {k: len(v) for k, v in a.history.items()} == dict.fromkeys(names, 3)
    assert not a.generator.training and not a.discriminator.training
    assert all(p.requires_grad for p in a.discriminator.parameters())


def test_the_first_step_by_hand(small):
    "One step: hinge losses, Adam, and an average that keeps a tenth of the old."
    images, y = made(0, 8)
    gan = train_gan(images, y, steps=1, batch_size=8, lr=0.01, **small)
    g, d = small["generator"], small["discriminator"]
    start = [p.detach().clone() for p in g.parameters()]
    with seeded(0):
        to_d, to_g = [
            torch.optim.Adam(n.parameters(), 0.01, (0.0, 0.9)) for n in (d, g)
        ]
        rows = torch.randperm(8, generator=gen(0))
        fake = g(torch.randn(8, 64), y[rows])
        both = torch.cat([images[rows], fake.detach()])
        real_score, fake_score = d(both, y[rows].repeat(2)).chunk(2)
        loss = hinge_discriminator(real_score, fake_score)
        assert_close(gan.history["discriminator"], [loss.item()])
        assert_close(gan.history["real"], [real_score.mean().item()])
        assert_close(gan.history["fake"], [fake_score.mean().item()])
        loss.backward()
        to_d.step()
        loss = -d(fake, y[rows]).mean()
        assert_close(gan.history["generator"], [loss.item()])
        loss.backward()
        to_g.step()
    for old, new, kept in zip(start, g.parameters(), gan.generator.parameters()):
        assert_close(kept, 0.1 * old + 0.9 * new, atol=1e-5, rtol=1e-4)


def test_the_learning_rate_falls_over_the_second_half(small, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def noted(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    train_gan(*made(0), steps=4, batch_size=4, lr=0.1, **small)
    assert np.allclose(rates[::2], [0.1, 0.1, 0.1, 0.05]) and rates[::2] == rates[1::2]


def test_global_random_state_is_left_alone(small):
    with seeded(1):
        a = torch.rand(3)
    with seeded(1):
        train_gan(*made(0), steps=1, batch_size=4, **small)
        assert torch.equal(a, torch.rand(3))


def test_on_step_can_stop_and_sees_the_averaged_generator(small):
    seen = []

    def stop(step, g):
        seen.append((step, g.training))
        return step == 2

    gan = train_gan(*made(0), steps=9, batch_size=4, on_step=stop, **small)
    assert seen == [(1, False), (2, False)] and len(gan.history["real"]) == 2


def test_augment_sees_real_and_forged_and_carries_the_gradient(small):
    images, y = made(0)
    calls = []

    def darker(x, noise):
        calls.append((len(x), x.requires_grad, isinstance(noise, torch.Generator)))
        return x * 0.5

    def cut_off(x, noise):  # no gradient comes through
        return x.detach() + 0 * x

    brief = {"steps": 2, "batch_size": 4} | small
    gan = train_gan(images, y, augment=darker, **brief)
    assert calls == [(8, False, True), (4, True, True)] * 2
    assert gan.history != train_gan(images, y, **brief).history
    cut = train_gan(images, y, augment=cut_off, **brief).generator
    for v, w in zip(cut.parameters(), small["generator"].parameters()):
        assert_close(v, w)


def test_it_learns_which_class_is_which():
    "Class 0 has its ink on the left, class 1 on the right."
    y = torch.arange(64) % 2
    side = (torch.arange(28) // 14 == y[:, None])[:, None, :]  # (64, 1, 28)
    images = torch.rand(64, 1, 1, generator=gen(1)) * side * torch.ones(28, 1)
    with seeded(0):
        nets = {"generator": Generator(8, 2, 4), "discriminator": Discriminator(2, 4)}
    g = train_gan(images, y, steps=150, batch_size=32, ema=0.9, **nets).generator
    for c in (0, 1):
        halves = sample_digits(g, [c] * 20).split(14, dim=2)
        ink = [half.mean().item() for half in halves]
        assert ink[c] > 2 * ink[1 - c]


def test_few_images_fill_a_batch(small):
    gan = train_gan(*made(0, 3), steps=1, batch_size=8, **small)
    assert len(gan.history["real"]) == 1


@some
@given(st.integers(1, 20), st.integers(1, 30), seeds)
def test_endless_meets_every_row_before_any_again(n, batch, seed):
    stream, rows = endless(n, batch, gen(seed)), []
    while len(rows) < 3 * n:
        rows += next(stream).tolist()
    assert all(sorted(rows[i : i + n]) == list(range(n)) for i in range(0, 3 * n, n))


def test_average_into_moves_weights_and_copies_counts():
    a, b = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        b.weight.fill_(3.0), b.running_mean.fill_(1.0), b.num_batches_tracked.fill_(7)
    average_into(a, b, 0.75)
    assert a.weight.tolist() == [1.5, 1.5] and a.running_mean.tolist() == [0.25, 0.25]
    assert a.num_batches_tracked == 7 and b.weight.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.empty(0, 28, 28)},
        {"images": torch.full((20, 28, 28), math.nan)},
        {"images": torch.rand(20, 1, 28, 28)},
        {"images": torch.rand(20, 28, 28) * 255},
        {"images": torch.rand(20, 28, 28) - 0.5},
        {"images": "digits"},
        {"labels": torch.full((20,), 10)},
        {"labels": torch.zeros(19).long()},
        {"labels": torch.rand(20)},
        {"steps": 0},
        {"steps": 1.5},
        {"batch_size": 1},
        {"ema": 1.5},
        {"ema": "much"},
        {"lr": -0.1},
        {"lr": math.nan},
        {"seed": "x"},
    ],
)
def test_train_gan_refuses(change, small):
    images, y = made(0)
    given = {"images": images, "labels": y, "steps": 1, "batch_size": 4} | small
    refused(train_gan, **(given | change), name=next(iter(change)))


@pytest.mark.parametrize("labels", [[], [10], [-1], [0.5], [[1]]])
def test_sample_digits_refuses(labels):
    refused(sample_digits, Generator(width=2), labels, name="labels")


# --- measuring


def by_loops(real, fake, k):  # density, coverage as the paper writes them
    hits = []
    for i, x in enumerate(real):
        others = [(x - r).norm().item() for n, r in enumerate(real) if n != i]
        radius = sorted(others)[k - 1]
        hits.append([(x - y).norm().item() <= radius for y in fake])
    return sum(map(sum, hits)) / (k * len(fake)), sum(map(any, hits)) / len(real)


@some
@given(st.integers(3, 12), st.integers(1, 9), st.integers(1, 4), seeds)
def test_density_and_coverage_as_the_paper_has_them(n, m, f, seed):
    real, fake = normal(seed, n, f), 1.5 * normal(seed + 1, m, f)
    k = 1 + seed % (n - 1)
    assert density_coverage(real, fake, k=k) == pytest.approx(by_loops(real, fake, k))


def test_density_and_coverage_of_copies_far_ones_and_one_repeated():
    real = normal(0, 60, 3)
    assert density_coverage(real, real)[1] == 1.0
    assert density_coverage(real, real + 1000) == (0.0, 0.0)
    assert density_coverage(real, real[:1].expand(500, 3))[1] < 0.4
    line = torch.arange(10.0)[:, None]
    assert density_coverage(line, line, k=1) == (2.8, 1.0)
    assert density_coverage(line, torch.full((50, 1), 4.2), k=1) == (2.0, 0.2)


@some
@given(size, seeds)
def test_frechet_equals_scipys_matrix_root(f, seed):
    a, b = [normal(seed + s, 40, f) @ normal(seed + 9, f, f) + s for s in (0, 1)]
    ca, cb = [np.cov(v.T.numpy()).reshape(f, f) for v in (a, b)]
    root = np.trace(sqrtm(ca @ cb)).real
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    want = apart + np.trace(ca) + np.trace(cb) - 2 * root
    near = 1e-5 * (1 + np.trace(ca) + np.trace(cb))
    assert frechet_distance(a, b) == pytest.approx(want, abs=near)


@some
@given(seeds)
def test_frechet_is_symmetric_zero_for_itself_and_does_not_see_rotations(seed):
    a, b = normal(seed, 30, 4), 2 + normal(seed + 1, 30, 4)
    Q = torch.linalg.qr(normal(seed + 2, 4, 4))[0]
    d = frechet_distance(a, b)
    assert 0 <= frechet_distance(a, a) < 1e-9
    assert d == pytest.approx(frechet_distance(b, a))
    assert d == pytest.approx(frechet_distance(a @ Q, b @ Q))
    assert frechet_distance(a, a + 3) == pytest.approx(9 * 4)


def test_frechet_in_one_dimension():
    "Means and deviations apart: (3 - 0)² + (2 - 1)²."
    a = torch.tensor([[-1.0], [0], [1]])
    assert frechet_distance(a, 2 * a + 3) == pytest.approx(9 + 1)


@some
@given(st.integers(1, 8), st.integers(1, 8), seeds)
def test_nearest_is_the_smallest_of_all(n, m, seed):
    a, b = normal(seed, n, 3, 2), normal(seed + 1, m, 3, 2)
    d, rows = nearest(a, b)
    every = (a[:, None] - b[None]).flatten(2).norm(dim=2)
    assert_close(d, every.min(1).values)
    assert torch.equal(rows, every.argmin(1))


def test_nearest_sees_small_distances():
    some, tiny = torch.rand(600, 28, 28, generator=gen(0)), torch.zeros(28, 28)
    tiny[0, 0] = 1e-3
    d, rows = nearest(some + tiny, some)
    assert torch.equal(rows, torch.arange(600))
    assert_close(d, torch.full((600,), 1e-3), atol=1e-5, rtol=0)


class Half(nn.Module):  # says class 1 for bright pictures, 0 for dark ones
    def forward(self, x):
        return torch.stack([0.5 - x.mean((1, 2)), x.mean((1, 2)) - 0.5], 1)


def test_fidelity_counts_what_the_reader_says():
    images = torch.tensor([0.0, 1, 1, 0])[:, None, None].expand(4, 28, 28)
    assert fidelity(images, [0, 1, 0, 0], Half()) == 0.75
    refused(fidelity, images, [0, 1, 0], Half(), name="labels")


# --- readers and cheats


def test_a_reader_reads_what_it_was_taught_and_its_features_make_its_logits():
    y = torch.arange(40) % 10
    images = torch.zeros(40, 28, 28)
    for i, c in enumerate(y):
        images[i, 2 * c : 2 * c + 4] = 1
    r = train_reader(images, y, epochs=25, varied=False)
    assert fidelity(images, y, r) > 0.9 and not r.training
    with torch.no_grad():
        assert_close(r.head(reader_features(r, images)), r(images))
    assert reader_features(r, images).shape == (40, 64)


def test_the_cheats_do_as_they_say():
    y = torch.tensor([7, 7, 7, 1, 1])
    copies = photocopies(y, seed=2)
    assert not torch.equal(copies, photocopies(y)) and len(copies.unique(dim=0)) == 5
    again = one_picture(y)
    assert len(again.unique(dim=0)) == 2 and torch.equal(again[0], again[2])
    clouds = pixel_gaussians(y)
    assert clouds.min() == 0 and clouds.max() <= 1 and len(clouds.unique(dim=0)) == 5
    reader = load_reader()
    assert fidelity(copies, y, reader) == fidelity(again, y, reader) == 1


# --- what is shipped


def test_shipped_generator_writes_what_is_asked():
    y = torch.arange(500) % 10
    images = sample_digits(load_gan(), y, seed=7)
    assert fidelity(images, y, load_reader()) > 0.95
    assert images.std(0).mean() > 0.1  # and not one picture over and over


def test_shipped_reader_reads_real_test_digits():
    from mmcourse.datasets import mnist

    d = mnist("test")
    assert fidelity(torch.tensor(d["image"]), d["label"], load_reader()) > 0.97


def test_the_file_is_small_verified_and_says_how_it_was_made(tmp_path):
    path = data_path("gan.safetensors")
    assert path.stat().st_size < 1_000_000
    about = read_tensors(path)[1]
    assert all(k in about for k in ("generator", "seed", "steps", "torch"))
    broken = bytearray(path.read_bytes())
    broken[-100] ^= 1
    (tmp_path / "gan.safetensors").write_bytes(broken)
    for load in (load_gan, load_reader):
        with pytest.raises(CheckpointError, match="damaged"):
            load(tmp_path / "gan.safetensors")
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none.safetensors")
