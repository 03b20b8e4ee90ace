"""The game's closed forms, spectral norm against torch, the metrics on cases that can be counted by hand, training, and everything a caller can get wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from mmcourse.checkpoint import CheckpointError
from mmcourse.gan import (
    Discriminator,
    Generator,
    average_into,
    best_discriminator,
    check_images,
    check_labels,
    density_coverage,
    endless,
    fidelity,
    frechet,
    frechet_distance,
    game_value,
    hinge_discriminator,
    hinge_generator,
    js_divergence,
    load_gan,
    load_reader,
    logistic_discriminator,
    minimax_generator,
    nearest,
    non_saturating_generator,
    play_ring,
    power_iteration,
    reader_features,
    ring,
    ring_report,
    sample_digits,
    slerp,
    train_gan,
    train_reader,
)
from mmcourse.measure import seeded

torch.set_num_threads(1)
seeds = st.integers(0, 2**31 - 1)


def made(seed, n=20, classes=10):  # pictures and labels
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 28, 28, generator=rng), torch.randint(
        classes, (n,), generator=rng
    )


# --- the game


def densities(seed, n=50):
    rng = torch.Generator().manual_seed(seed)
    p, q = torch.rand(2, n, generator=rng, dtype=torch.float64).pow(4)
    return p / p.sum(), q / q.sum()  # with dx = 1 both integrate to 1


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_value_of_the_game_is_twice_js_less_log_four(seed):
    p, q = densities(seed)
    value, js = (
        game_value(best_discriminator(p, q), p, q, 1.0),
        js_divergence(p, q, 1.0),
    )
    assert (
        abs(value - (2 * js - math.log(4))) < 1e-9
        and -1e-12 <= js <= math.log(2) + 1e-12
    )


@given(seeds, st.floats(0.01, 3))
@settings(max_examples=50, deadline=None)
def test_no_discriminator_is_paid_more_than_the_best(seed, by):
    p, q = densities(seed)
    D = best_discriminator(p, q)
    with seeded(seed):
        other = (torch.logit(D, 1e-9) + by * torch.randn_like(D)).sigmoid()
    assert game_value(other, p, q, 1.0) < game_value(D, p, q, 1.0)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_js_is_symmetric_and_zero_only_for_equals(seed):
    p, q = densities(seed)
    assert abs(
        js_divergence(p, q, 1.0) - js_divergence(q, p, 1.0)
    ) < 1e-12 and js_divergence(p, p, 1.0).abs() < 1e-12 < js_divergence(p, q, 1.0)


def test_js_of_what_never_meets_is_log_two_and_a_half_is_said_where_nothing_is():
    p, q = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    assert abs(js_divergence(p, q, 1.0) - math.log(2)) < 1e-6
    assert best_discriminator(p, q).tolist() == [1.0, 0.0, 0.5]


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_losses_are_the_logarithms_that_they_claim(seed):
    with seeded(seed):
        real, fake = torch.randn(2, 9, dtype=torch.float64) * 3
    D, G = real.sigmoid(), fake.sigmoid()
    assert torch.allclose(
        logistic_discriminator(real, fake), -(D.log().mean() + (1 - G).log().mean())
    )
    assert torch.allclose(
        minimax_generator(fake), (1 - G).log().mean()
    ) and torch.allclose(non_saturating_generator(fake), -G.log().mean())


def test_gradients_where_the_discriminator_is_sure():
    s = torch.full((4,), -20.0, requires_grad=True)
    grad = lambda loss: torch.autograd.grad(loss(s), s)[0].abs().max().item()
    assert (
        grad(minimax_generator) < 1e-8
        and grad(non_saturating_generator) > 0.24
        and grad(hinge_generator) == 0.25
    )


def test_hinge_by_hand():
    assert (
        hinge_discriminator(torch.tensor([2.0, 0.0]), torch.tensor([-4.0, 1.0])).item()
        == 0.5 + 1.0
    )
    assert hinge_generator(torch.tensor([2.0, 0.0])).item() == -1.0


# --- the ring


def test_ring_report_counts_heaps_and_good_points():
    points = ring(4000, torch.Generator().manual_seed(1))
    heaps, good = ring_report(points)
    assert heaps == 8 and good > 0.98
    one = torch.tensor([[1.0, 0.0]]).expand(100, 2)
    assert (
        ring_report(one) == (1, 1.0)
        and ring_report(torch.cat([one, 9 * one])) == (1, 0.5)
        and ring_report(ring(400, torch.Generator().manual_seed(0), modes=5), modes=5)[
            0
        ]
        == 5
    )


def test_play_ring_is_the_same_for_the_same_seed():
    a, b, c = (play_ring(s, rounds=3) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == (1000, 2)
    for name in ("rounds", "generator_steps", "discriminator_steps", "batch_size"):
        with pytest.raises(ValueError, match=name):
            play_ring(**{"rounds": 1, name: 0})


# --- spectral norm


@given(st.integers(1, 6), st.integers(1, 6), seeds)
@settings(max_examples=40, deadline=None)
def test_power_iteration_finds_the_largest_singular_value_from_below(i, j, seed):
    with seeded(seed):
        W, u = (
            torch.randn(i, j, dtype=torch.float64),
            torch.randn(i, dtype=torch.float64),
        )
    exact = torch.linalg.matrix_norm(W, 2)
    few, many = power_iteration(W, u, 1)[0], power_iteration(W, u, 200)[0]
    assert few <= many + 1e-9 and exact * 0.97 <= many <= exact + 1e-9


@pytest.mark.parametrize("seed", range(4))
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
        torch.testing.assert_close(W / sigma, theirs)
        torch.testing.assert_close(u, kept._u)
        torch.testing.assert_close(v, kept._v)


def test_power_iteration_refuses_what_does_not_fit():
    for W, u in ((torch.ones(3), torch.ones(3)), (torch.ones(3, 2), torch.ones(2))):
        with pytest.raises(ValueError, match="W, u"):
            power_iteration(W, u)


def test_every_matrix_of_the_discriminator_is_bounded():
    with seeded(0):
        d = Discriminator(width=4)
    images, y = made(0, 4)
    for _ in range(60):
        d(images, y)
    for name, m in d.named_modules():
        if hasattr(m, "parametrizations"):
            assert torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2) < 1.05, (
                name
            )


# --- the networks


@given(
    st.integers(1, 5), st.integers(1, 9), st.integers(2, 12), st.integers(1, 6), seeds
)
@settings(max_examples=15, deadline=None)
def test_shapes_and_ranges(B, z, classes, width, seed):
    with seeded(seed):
        g, d = Generator(z, classes, width).eval(), Discriminator(classes, width)
        y = torch.randint(classes, (B,))
        pictures = g(torch.randn(B, z), y)
        assert (
            pictures.shape == (B, 28, 28)
            and pictures.min() >= 0
            and pictures.max() <= 1
            and d(pictures, y).shape == (B,)
        )


def test_discriminator_is_a_projection():
    "The class enters the score as the product of its vector with the features, and no other way."
    with seeded(0):
        d = Discriminator(width=4).eval()
    images, _ = made(1, 3)
    y = torch.tensor([0, 4, 9])
    h = d.body(2 * images[:, None] - 1)
    torch.testing.assert_close(
        d(images, y) - d(images, (y + 1) % 10),
        ((d.of_class.weight[y] - d.of_class.weight[(y + 1) % 10]) * h).sum(1),
        atol=1e-5,
        rtol=1e-4,
    )


def test_the_class_changes_the_picture():
    with seeded(0):
        g = Generator(width=4).eval()
    z = torch.randn(1, 64).expand(2, 64)
    a, b = g(z, torch.tensor([3, 5]))
    assert (a - b).abs().max() > 0.01


def test_samples_depend_on_seed_and_not_on_company():
    with seeded(0):
        g = Generator(width=4)
    y = torch.arange(300) % 10
    a = sample_digits(g, y, seed=3)
    assert torch.equal(a, sample_digits(g, y.tolist(), seed=3)) and not torch.equal(
        a, sample_digits(g, y, seed=4)
    )
    assert g.training and not a.requires_grad
    torch.testing.assert_close(a[:7], sample_digits(g, y[:7], seed=3))


# --- training

small = {"generator": Generator(width=3), "discriminator": Discriminator(width=3)}


def test_same_seed_same_weights_and_the_arguments_are_left_alone():
    images, y = made(0)
    before = {k: v.clone() for k, v in small["generator"].state_dict().items()}
    with seeded(5):
        torch.randn(3)
        a = train_gan(images, y, steps=3, batch_size=8, **small)
    b, c = (
        train_gan(images.numpy(), y.numpy(), steps=3, batch_size=8, seed=s, **small)
        for s in (0, 1)
    )
    same = lambda m, n: all(
        torch.equal(v, w)
        for v, w in zip(m.state_dict().values(), n.state_dict().values())
    )
    assert (
        same(a.generator, b.generator)
        and same(a.discriminator, b.discriminator)
        and not same(a.generator, c.generator)
    )
    assert all(
        torch.equal(v, before[k]) for k, v in small["generator"].state_dict().items()
    )
    assert {k: len(v) for k, v in a.history.items()} == {
        "discriminator": 3,
        "generator": 3,
        "real": 3,
        "fake": 3,
    }
    assert (
        not a.generator.training
        and not a.discriminator.training
        and all(p.requires_grad for p in a.discriminator.parameters())
    )


def test_global_random_state_is_left_alone():
    images, y = made(0)
    torch.manual_seed(1)
    a = torch.rand(3)
    torch.manual_seed(1)
    train_gan(images, y, steps=1, batch_size=4, **small)
    assert torch.equal(a, torch.rand(3))


def test_on_step_can_stop_and_sees_the_averaged_generator():
    images, y = made(0)
    seen = []

    def stop(step, g):
        seen.append((step, g.training))
        return step == 2

    gan = train_gan(images, y, steps=9, batch_size=4, on_step=stop, **small)
    assert seen == [(1, False), (2, False)] and len(gan.history["real"]) == 2


def test_augment_sees_real_and_forged_and_carries_the_gradient():
    images, y = made(0)
    calls = []

    def augment(x, generator):
        calls.append((len(x), x.requires_grad, isinstance(generator, torch.Generator)))
        return x * 0.5

    gan = train_gan(images, y, steps=2, batch_size=4, augment=augment, **small)
    assert calls == [(8, False, True), (4, True, True)] * 2
    plain = train_gan(images, y, steps=2, batch_size=4, **small)
    assert gan.history != plain.history
    cut = train_gan(
        images,
        y,
        steps=2,
        batch_size=4,
        augment=lambda x, g: x.detach() * 1 + 0 * x,
        **small,
    ).generator  # no gradient comes through
    assert all(
        torch.equal(v, w)
        for v, w in zip(cut.parameters(), small["generator"].parameters())
    )


def test_it_learns_which_class_is_which():
    "Class 0 has its ink on the left, class 1 on the right: a few steps must tell them apart."
    y = torch.arange(64) % 2
    with seeded(1):
        images = (
            torch.rand(64, 1, 1)
            * (torch.arange(28) // 14 == y[:, None])[:, None, :]
            * torch.ones(28, 1)
        )  # (64, 28, 28)
    with seeded(0):
        g, d = Generator(8, 2, 4), Discriminator(2, 4)
    g = train_gan(
        images, y, steps=150, batch_size=32, generator=g, discriminator=d, ema=0.9
    ).generator
    left, right = (
        sample_digits(g, [c] * 20)[:, :, half].mean().item()
        for c, half in ((0, slice(0, 14)), (1, slice(14, 28)))
    )
    others = [
        sample_digits(g, [c] * 20)[:, :, half].mean().item()
        for c, half in ((1, slice(0, 14)), (0, slice(14, 28)))
    ]
    assert left > 2 * others[0] and right > 2 * others[1], (left, right, others)


def test_few_images_fill_a_batch():
    images, y = made(0, 3)
    assert (
        len(train_gan(images, y, steps=1, batch_size=8, **small).history["real"]) == 1
    )


@given(st.integers(1, 20), st.integers(1, 30), seeds)
@settings(max_examples=40, deadline=None)
def test_endless_meets_every_row_before_any_again(n, batch, seed):
    stream, rows = endless(n, batch, torch.Generator().manual_seed(seed)), []
    while len(rows) < 3 * n:
        rows += next(stream).tolist()
    assert all(sorted(rows[i : i + n]) == list(range(n)) for i in range(0, 3 * n, n))


def test_average_into_is_the_moving_average():
    a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    want = 0.75 * a.weight.detach() + 0.25 * b.weight.detach()
    average_into(a, b, 0.75)
    torch.testing.assert_close(a.weight.detach(), want)


@pytest.mark.parametrize(
    "change, error, name",
    [
        ({"images": torch.empty(0, 28, 28)}, ValueError, "images"),
        ({"images": torch.full((20, 28, 28), math.nan)}, ValueError, "images"),
        ({"images": torch.full((20, 28, 28), math.inf)}, ValueError, "images"),
        ({"images": torch.rand(20, 1, 28, 28)}, ValueError, "images"),
        ({"images": torch.rand(20, 27, 28)}, ValueError, "images"),
        ({"images": torch.rand(20, 28, 28) * 255}, ValueError, "images"),
        ({"images": "digits"}, TypeError, "images"),
        ({"labels": torch.full((20,), 10)}, ValueError, "labels"),
        ({"labels": torch.full((20,), -1)}, ValueError, "labels"),
        ({"labels": torch.zeros(19).long()}, ValueError, "labels"),
        ({"labels": torch.rand(20)}, ValueError, "labels"),
        ({"labels": torch.zeros(20, 1).long()}, ValueError, "labels"),
        ({"labels": []}, ValueError, "labels"),
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 1.5}, ValueError, "steps"),
        ({"steps": True}, ValueError, "steps"),
        ({"batch_size": 1}, ValueError, "batch_size"),
        ({"ema": 1.0}, ValueError, "ema"),
        ({"ema": "much"}, ValueError, "ema"),
        ({"lr": 0.0}, ValueError, "lr"),
        ({"lr": math.nan}, ValueError, "lr"),
        ({"seed": "x"}, ValueError, "seed"),
        ({"discriminator": Discriminator(5, 3)}, ValueError, "discriminator"),
    ],
)
def test_train_gan_refuses(change, error, name):
    images, y = made(0)
    with pytest.raises(error, match=f"^{name}"):
        train_gan(
            **{
                **{"images": images, "labels": y, "steps": 1, "batch_size": 4},
                **small,
                **change,
            }
        )


def test_a_loss_that_is_not_finite_is_noticed():
    images, y = made(0)
    with pytest.raises(FloatingPointError, match="step 1"):
        train_gan(
            images, y, steps=2, batch_size=4, augment=lambda x, g: x * math.nan, **small
        )


@pytest.mark.parametrize("labels", [[], [10], [-1], [0.5], [[1]]])
def test_sample_digits_refuses(labels):
    with pytest.raises(ValueError, match="labels"):
        sample_digits(Generator(width=2), labels)


def test_networks_refuse_what_does_not_fit():
    g, d, y = Generator(width=2), Discriminator(width=2), torch.zeros(2).long()
    for z in (torch.zeros(2, 63), torch.zeros(64), torch.zeros(2, 64).long(), None):
        with pytest.raises(ValueError, match="^z"):
            g(z, y)
    for images in (
        torch.zeros(2, 1, 28, 28),
        torch.zeros(2, 28, 27),
        torch.zeros(2, 28, 28).long(),
    ):
        with pytest.raises(ValueError, match="^images"):
            d(images, y)
    for call in (
        lambda: g(torch.zeros(3, 64), y),
        lambda: d(torch.zeros(3, 28, 28), y),
    ):
        with pytest.raises(ValueError, match="^labels"):
            call()


# --- measuring


def by_loops(real, fake, k):  # density, coverage as the paper writes them
    hits = [[False] * len(fake) for _ in real]
    for i, x in enumerate(real):
        radius = sorted((x - r).norm().item() for n, r in enumerate(real) if n != i)[
            k - 1
        ]
        for j, y in enumerate(fake):
            hits[i][j] = (x - y).norm().item() <= radius
    return sum(map(sum, hits)) / (k * len(fake)), sum(map(any, hits)) / len(real)


@given(st.integers(3, 12), st.integers(1, 9), st.integers(1, 4), seeds)
@settings(max_examples=50, deadline=None)
def test_density_and_coverage_as_the_paper_has_them(n, m, f, seed):
    with seeded(seed):
        real, fake = (
            torch.randn(n, f, dtype=torch.float64),
            1.5 * torch.randn(m, f, dtype=torch.float64),
        )
    k = 1 + seed % (n - 1)
    assert density_coverage(real, fake, k=k) == pytest.approx(by_loops(real, fake, k))


def test_density_and_coverage_of_copies_far_ones_and_one_repeated():
    with seeded(0):
        real = torch.randn(60, 3)
    assert density_coverage(real, real)[1] == 1.0 and density_coverage(
        real, real + 1000
    ) == (0.0, 0.0)
    assert density_coverage(real, real[:1].expand(500, 3))[1] < 0.4


@pytest.mark.parametrize(
    "a, b, k, name",
    [
        (torch.empty(0, 3), torch.ones(2, 3), 1, "real"),
        (torch.rand(9, 3), torch.full((2, 3), math.nan), 1, "fake"),
        (torch.rand(9, 3), torch.rand(9, 2), 1, "real, fake"),
        (torch.rand(9), torch.rand(9), 1, "real"),
        (torch.rand(5, 3), torch.rand(5, 3), 5, "k"),
        (torch.rand(5, 3), torch.rand(5, 3), 0, "k"),
        (torch.rand(5, 3), torch.rand(5, 3), True, "k"),
    ],
)
def test_density_coverage_refuses(a, b, k, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        density_coverage(a, b, k=k)


@given(st.integers(1, 6), seeds)
@settings(max_examples=40, deadline=None)
def test_frechet_equals_scipys_matrix_root(f, seed):
    with seeded(seed):
        a, b = (
            torch.randn(40, f, dtype=torch.float64)
            @ torch.randn(f, f, dtype=torch.float64)
            + s
            for s in (0, 1)
        )
    ca, cb = (np.cov(v.T.numpy()).reshape(f, f) for v in (a, b))
    want = (
        ((a.mean(0) - b.mean(0)) ** 2).sum().item()
        + np.trace(ca)
        + np.trace(cb)
        - 2 * np.trace(sqrtm(ca @ cb)).real
    )
    assert frechet_distance(a, b) == pytest.approx(
        want, abs=1e-5 * (1 + np.trace(ca) + np.trace(cb))
    )


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_frechet_is_symmetric_zero_for_itself_and_does_not_see_rotations(seed):
    with seeded(seed):
        a, b, Q = (
            torch.randn(30, 4, dtype=torch.float64),
            2 + torch.randn(30, 4, dtype=torch.float64),
            torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0],
        )
    d = frechet_distance(a, b)
    assert frechet_distance(a, a) < 1e-9 and d == pytest.approx(
        frechet_distance(b, a)
    ) == pytest.approx(frechet_distance(a @ Q, b @ Q))
    assert frechet_distance(a, a + 3) == pytest.approx(9 * 4)


def test_frechet_in_one_dimension_and_without_spread():
    t = lambda *v: torch.tensor(v, dtype=torch.float64)
    assert frechet(t(0), t([4.0]), t(3), t([1.0])) == pytest.approx(9 + 1)
    assert frechet(
        t(0, 0),
        torch.zeros(2, 2, dtype=torch.float64),
        t(1, 0),
        torch.zeros(2, 2, dtype=torch.float64),
    ) == pytest.approx(1)


@pytest.mark.parametrize(
    "a, b",
    [
        (torch.rand(1, 3), torch.rand(5, 3)),
        (torch.rand(5, 3), torch.rand(5, 2)),
        (torch.rand(5), torch.rand(5)),
        (torch.full((5, 3), math.inf), torch.rand(5, 3)),
        (torch.empty(0, 3), torch.rand(5, 3)),
    ],
)
def test_frechet_distance_refuses(a, b):
    with pytest.raises(ValueError, match="^a"):
        frechet_distance(a, b)


@given(st.integers(1, 8), st.integers(1, 8), seeds)
@settings(max_examples=30, deadline=None)
def test_nearest_is_the_smallest_of_all(n, m, seed):
    with seeded(seed):
        a, b = torch.rand(n, 3, 2), torch.rand(m, 3, 2)
    d, k = nearest(a, b)
    all_ = (a[:, None] - b[None]).flatten(2).norm(dim=2)
    torch.testing.assert_close(d, all_.min(1).values, atol=1e-5, rtol=1e-4)
    assert torch.equal(k, all_.argmin(1))


@pytest.mark.parametrize(
    "a, b",
    [
        (torch.empty(0, 2), torch.rand(3, 2)),
        (torch.rand(3, 2), torch.rand(3, 3)),
        (torch.rand(3), torch.rand(3)),
        (torch.full((1, 2), math.nan), torch.rand(3, 2)),
    ],
)
def test_nearest_refuses(a, b):
    with pytest.raises(ValueError, match="^a"):
        nearest(a, b)


def test_fidelity_counts_what_the_reader_says():
    class Half(nn.Module):  # says class 1 for bright pictures, 0 for dark ones
        def forward(self, x):
            return torch.stack([0.5 - x.mean((1, 2)), x.mean((1, 2)) - 0.5], 1)

    images = torch.stack(
        [
            torch.zeros(28, 28),
            torch.ones(28, 28),
            torch.ones(28, 28),
            torch.zeros(28, 28),
        ]
    )
    assert fidelity(images, [0, 1, 0, 0], Half()) == 0.75
    for bad in ([0, 1, 0], [0, 1, 0, 10], []):
        with pytest.raises(ValueError, match="labels"):
            fidelity(images, bad, Half())
    with pytest.raises(ValueError, match="images"):
        fidelity(images[:0], [], Half())


def test_reader_reads_what_it_was_taught_and_its_features_make_its_logits():
    y = torch.arange(40) % 10
    images = torch.zeros(40, 28, 28)
    for i, c in enumerate(y):
        images[i, 2 * c : 2 * c + 4] = 1
    r = train_reader(images, y, epochs=25)
    assert fidelity(images, y, r) > 0.9
    with torch.no_grad():
        torch.testing.assert_close(r.head(reader_features(r, images)), r(images))
    assert reader_features(r, images).shape == (40, 64)


@given(seeds, st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_slerp_starts_ends_and_stays_on_the_sphere(seed, f):
    with seeded(seed):
        a, b = nn.functional.normalize(torch.randn(2, f, dtype=torch.float64), dim=1)
    path = slerp(a, b, torch.linspace(0, 1, 7, dtype=torch.float64))
    torch.testing.assert_close(path[[0, -1]], torch.stack([a, b]), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        path.norm(dim=1), torch.ones(7, dtype=torch.float64), atol=1e-3, rtol=0
    )
    turns = nn.functional.cosine_similarity(path[1:], path[:-1]).clamp(-1, 1).acos()
    assert turns.max() - turns.min() < 1e-3


def test_slerp_of_the_same_direction_and_what_it_refuses():
    a, t = torch.tensor([2.0, 0]), torch.tensor([0.0, 0.5, 1])
    assert slerp(a, 2 * a, t).tolist() == [[2.0, 0], [3.0, 0], [4.0, 0]]
    for b in (-a, torch.zeros(2), torch.ones(3)):
        with pytest.raises(ValueError, match="^a, b"):
            slerp(a, b, t)


# --- what is shipped


def test_shipped_generator_writes_what_is_asked():
    y = torch.arange(500) % 10
    images = sample_digits(load_gan(), y, seed=7)
    assert fidelity(images, y, load_reader()) > 0.95
    assert images.std(0).mean() > 0.1  # and not one picture over and over


def test_shipped_reader_reads_real_test_digits():
    from mmcourse.datasets import mnist

    d = mnist("test")
    assert fidelity(d["image"], d["label"], load_reader()) > 0.97


def test_the_file_is_small_verified_and_says_how_it_was_made(tmp_path):
    from mmcourse.checkpoint import read_tensors
    from mmcourse.store import data_path

    path = data_path("gan.safetensors")
    assert path.stat().st_size < 3_000_000
    about = read_tensors(path)[1]
    assert (
        about["fidelity"] > 0.97
        and len(about["live"]["fidelity"]) >= 3
        and np.mean(about["live"]["fidelity"]) > 0.85
        and {"seed", "steps", "seconds", "torch"} <= set(about)
    )
    broken = bytearray(path.read_bytes())
    broken[-100] ^= 1
    (tmp_path / "gan.safetensors").write_bytes(broken)
    with pytest.raises(CheckpointError, match="damaged"):
        load_gan(tmp_path / "gan.safetensors")
    with pytest.raises(FileNotFoundError):
        load_reader(tmp_path / "none.safetensors")


def test_checks_leave_good_input_as_it_is():
    images, y = made(0)
    assert (
        torch.equal(check_images(images), images)
        and torch.equal(check_labels(y.numpy()), y)
        and check_labels([3, 1]).dtype == torch.int64
    )
