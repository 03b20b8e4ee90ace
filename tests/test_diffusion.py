"Noise and back: laws, numbers by hand, and diffusers' own steps and block."

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.diffusion import (
    DiTBlock,
    Told,
    ToldBlock,
    UNet,
    best_guess,
    ddim_step,
    ddpm_step,
    flow_loss,
    flow_times,
    follow,
    guided,
    level_at,
    linear_betas,
    noised,
    on_line,
    signal_left,
    spaced,
    time_features,
    understood,
    walk_back,
)
from mmcourse.measure import seeded
from mmcourse.studio import DiT, as_guesser, log_likelihood, paint, steered, train_flow


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# noise
def test_betas_and_what_is_left_by_hand():
    betas = linear_betas(3, 0.1, 0.3)
    torch.testing.assert_close(betas, torch.tensor([0.1, 0.2, 0.3]))
    wanted = torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])
    torch.testing.assert_close(signal_left(betas), wanted)
    assert len(linear_betas()) == 1000 and signal_left(linear_betas())[-1] < 1e-4


def test_many_small_steps_are_one():
    betas, x = linear_betas(50, 0.01, 0.1), torch.full((50_000,), 0.7)
    for k, beta in enumerate(betas):
        x = (1 - beta).sqrt() * x + beta.sqrt() * normal(50_000, seed=k)
    left = signal_left(betas)[-1]
    assert abs(x.mean() - 0.7 * left.sqrt()) < 0.02
    assert abs(x.var() - (1 - left)) < 0.02


def test_noised_by_hand_and_row_by_row():
    x, noise = torch.tensor([[2.0], [2.0]]), torch.tensor([[10.0], [10.0]])
    left = torch.tensor([[0.64], [0.36]])
    wanted = torch.tensor([[1.6 + 6.0], [1.2 + 8.0]])
    torch.testing.assert_close(noised(x, noise, left), wanted)


@given(st.floats(0.05, 0.95), st.sampled_from(["noise", "picture", "v"]))
@settings(max_examples=20, deadline=None)
def test_every_kind_of_guess_means_the_same(left, kind):
    x0, noise, left = normal(3, 4), normal(3, 4, seed=1), torch.tensor(left)
    x, a, b = noised(x0, noise, left), left.sqrt(), (1 - left).sqrt()
    said = {"noise": noise, "picture": x0, "v": a * noise - b * x0}[kind]
    got = understood(said, x, left, kind)
    torch.testing.assert_close(got[0], x0, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got[1], noise, atol=1e-5, rtol=1e-4)


# the best guess
def test_the_best_guess_of_one_heap_by_hand():
    "x0 ~ N(2, 0.5²), x = 0.6 x0 + 0.8 ε: a line through the mean."
    x, p = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    slope = 0.6 * 0.25 / (0.36 * 0.25 + 0.64)
    wanted = 2 + slope * (1.0 - 1.2)
    torch.testing.assert_close(best_guess(x, 0.6, 0.8, p, 0.5).item(), wanted)


def test_the_best_guess_is_the_mean_of_what_was_there():
    "By simulation: the mean of the data whose noisy place is near."
    points, sd, a, b = torch.tensor([[-1.0], [1.0]]), 0.2, 0.7, 0.5
    pick = torch.randint(2, (400_000,), generator=torch.Generator().manual_seed(0))
    x0 = points[pick, 0] + sd * normal(400_000, seed=1)
    x = a * x0 + b * normal(400_000, seed=2)
    for at in (-0.5, 0.1, 0.6):
        here = (x - at).abs() < 0.02
        guess = best_guess(torch.tensor([[at]]), a, b, points, sd).item()
        assert abs(guess - x0[here].mean()) < 0.03


def test_with_little_noise_a_finite_set_is_copied():
    points = normal(30, 5)
    near = 0.999 * points + 0.01 * normal(30, 5, seed=1)
    torch.testing.assert_close(best_guess(near, 0.999, 0.01, points), points)
    far = best_guess(normal(4, 5, seed=2), 0.0, 1.0, points)
    torch.testing.assert_close(far, points.mean(0).expand(4, 5), atol=1e-5, rtol=0)


# walks
LEVELS = st.tuples(st.floats(0.02, 0.9), st.floats(1.02, 1.1))


@given(LEVELS, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_ddim_with_all_dice_is_ddpm(levels, seed):
    left, after = torch.tensor(levels[0]), torch.tensor(levels[0] * levels[1])
    x, x0, z = normal(3, 4, 2, seed=seed)
    ours = ddim_step(x, x0, left, after, eta=1.0, z=z)
    wanted = ddpm_step(x, x0, left, after, z)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


def test_the_last_step_is_the_guess():
    x, x0, z = normal(3, 4, 2)
    one = torch.ones(())
    torch.testing.assert_close(ddpm_step(x, x0, torch.tensor(0.3), one, z), x0)
    torch.testing.assert_close(ddim_step(x, x0, torch.tensor(0.3), one), x0)


def test_ddpm_draws_what_bayes_says():
    "x0 known: two levels drawn forwards, and the nearer one given the farther one."
    left, after, n = torch.tensor(0.3), torch.tensor(0.6), 400_000
    near = after.sqrt() * 1.5 + (1 - after).sqrt() * normal(n)
    kept = left / after
    far = kept.sqrt() * near + (1 - kept).sqrt() * normal(n, seed=1)
    here = (far - 0.4).abs() < 0.01
    x, x0 = torch.full((n,), 0.4), torch.full((n,), 1.5)
    drawn = ddpm_step(x, x0, left, after, normal(n, seed=2))
    assert abs(drawn.mean() - near[here].mean()) < 0.03
    assert abs(drawn.std() - near[here].std()) < 0.03


def test_levels_are_visited_from_the_last_one():
    assert spaced(4, 1000) == [999, 749, 499, 249] and spaced(2, 10) == [9, 4]


def test_the_flows_times():
    torch.testing.assert_close(flow_times(4), torch.tensor([1, 0.75, 0.5, 0.25, 0]))
    shifted = flow_times(2, 3.0)
    torch.testing.assert_close(shifted, torch.tensor([1.0, 1.5 / 2, 0]))


def test_euler_by_hand_and_all_places_come_back():
    path = follow(lambda x, t: t[:, None] * x, torch.ones(1, 1), flow_times(2))
    wanted = [1.0, 1 - 0.5 * 1, 0.5 - 0.5 * 0.5 * 0.5]
    assert [round(p.item(), 6) for p in path] == [round(w, 6) for w in wanted]


def test_a_flow_and_a_diffusion_that_walk_the_same_levels_are_one():
    points = normal(6, 3, seed=5)

    def field(x, t):
        a, b = 1 - t[0].item(), t[0].item()
        return (x - best_guess(x, a, b, points, 0.3)) / b

    def guess(x, left):
        return best_guess(x, left.sqrt(), (1 - left).sqrt(), points, 0.3)

    x, times = normal(20, 3), flow_times(7, 2.0)
    flow = follow(field, x, times)[-1]
    levels = level_at(times[:-1])
    torch.testing.assert_close(walk_back(guess, x, levels), flow, atol=1e-4, rtol=1e-4)
    translated = walk_back(as_guesser(field), x, levels)
    torch.testing.assert_close(translated, flow, atol=1e-4, rtol=1e-4)


def test_dice_are_thrown_only_where_asked():
    def guess(x, left):
        return 0.5 * x

    x, levels = normal(4, 2), torch.tensor([0.1, 0.5])
    rng = torch.Generator()
    a, b = [walk_back(guess, x, levels, generator=rng.manual_seed(s)) for s in (0, 1)]
    assert torch.equal(a, b)
    how = {"eta": 1.0, "generator": rng}
    rng.manual_seed(0)
    c = walk_back(guess, x, levels, **how)
    assert not torch.allclose(c, walk_back(guess, x, levels, **how))


@given(
    steps=st.sampled_from([2, 5, 10, 20, 50]),
    kind=st.sampled_from(["noise", "picture", "v"]),
    eta=st.sampled_from([0.0, 0.5, 1.0]),
    high=st.floats(0.01, 0.03),
)
@settings(max_examples=15, deadline=None)
def test_ddim_and_ddpm_are_diffusers(steps, kind, eta, high):
    diffusers = pytest.importorskip("diffusers")
    theirs = {"noise": "epsilon", "picture": "sample", "v": "v_prediction"}
    options = {"clip_sample": False, "timestep_spacing": "trailing"}
    options |= {"beta_end": high, "prediction_type": theirs[kind]}
    left = signal_left(linear_betas(1000, 1e-4, high))
    levels = [*left[spaced(steps)], torch.ones(())]
    for name in ("DDIM", "DDPM"):
        scheduler = getattr(diffusers, f"{name}Scheduler")(**options)
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == spaced(steps)
        x = normal(2, 3, 4)
        for k, t in enumerate(scheduler.timesteps):
            now, after = levels[k], levels[k + 1]
            a, b = now.sqrt(), (1 - now).sqrt()
            said = {"noise": b * x, "picture": a * x, "v": torch.tanh(x)}[kind]
            x0 = understood(said, x, now, kind)[0]
            how = {"generator": torch.Generator().manual_seed(k)}
            z = normal(2, 3, 4, seed=k)
            if name == "DDIM":
                how["eta"] = eta
                ours = ddim_step(x, x0, now, after, eta=eta, z=z)
            else:
                ours = ddpm_step(x, x0, now, after, z)
            wanted = scheduler.step(said, t, x, **how).prev_sample
            torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
            x = ours


@given(st.integers(1, 30), st.floats(0.5, 5))
@settings(max_examples=15, deadline=None)
def test_the_flow_is_diffusers(steps, shift):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)])
    times = flow_times(steps, shift)
    torch.testing.assert_close(times, scheduler.sigmas, atol=1e-6, rtol=1e-5)
    x = normal(2, 5)
    ours = follow(lambda x, t: torch.sin(3 * x) * t[:, None], x, times)
    for k, t in enumerate(scheduler.timesteps):
        said = torch.sin(3 * x) * times[k]
        x = scheduler.step(said, t, x).prev_sample
        torch.testing.assert_close(ours[k + 1], x, atol=1e-5, rtol=1e-5)
    noisy = scheduler.scale_noise(x, scheduler.timesteps[:1], normal(2, 5, seed=1))
    line = on_line(x, normal(2, 5, seed=1), times[:1].expand(2))
    torch.testing.assert_close(line, noisy, atol=1e-5, rtol=1e-5)


# learning
def test_a_line_from_data_to_noise():
    x, noise = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    got = on_line(x, noise, torch.tensor([0.25, 1.0]))
    assert torch.equal(got[:, 0, 0, 0], torch.tensor([0.25, 1.0]))


def test_the_loss_of_the_best_answer_is_what_nobody_can_know():
    "Data are 0: the velocity is the noise, x / t."
    data, told = torch.zeros(4000, 2), torch.ones(4000, 1, dtype=torch.long)
    with seeded(0):
        best = flow_loss(lambda x, t, told: x / t[:, None], data, told)
        nothing = flow_loss(lambda x, t, told: torch.zeros_like(x), data, told)
    assert best < 1e-9 and abs(nothing - 1) < 0.05


def test_some_rows_are_told_nothing():
    seen = []

    def net(x, t, told):
        seen.append(told)
        return x

    told = torch.tensor([[3, 2]]).repeat(5000, 1)
    with seeded(0):
        flow_loss(net, torch.zeros(5000, 1), told, forget=0.2)
    empty = (seen[0] == 0).all(1)
    assert abs(empty.float().mean() - 0.2) < 0.03
    assert torch.equal(seen[0][~empty], told[~empty])


def test_times_are_sigmoids_of_normal_numbers():
    seen = []

    def net(x, t, told):
        seen.append(t.logit())
        return x

    with seeded(0):
        flow_loss(net, torch.zeros(20_000, 1), torch.ones(20_000, 1, dtype=torch.long))
    assert abs(seen[0].mean()) < 0.03 and abs(seen[0].std() - 1) < 0.03


class Affine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x, t, told):
        return self.layer(torch.cat([x, t[:, None]], 1))


def test_training_learns_repeats_itself_and_averages():
    data, told = torch.full((64, 2), 3.0), torch.ones(64, 1, dtype=torch.long)

    def run(seed, **options):
        with seeded(0):
            net, losses = Affine(), []
        keep = {"on_step": lambda step, loss: losses.append(loss)}
        mean = train_flow(
            net, data, told, steps=200, lr=0.05, seed=seed, **keep | options
        )
        return net, mean, losses

    net, mean, losses = run(0)
    assert len(losses) == 200 and sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert not torch.equal(net.layer.weight, mean.layer.weight)
    again = run(0)[1].layer.weight
    assert torch.equal(mean.layer.weight, again)
    assert not torch.equal(mean.layer.weight, run(1)[1].layer.weight)
    net, last, _ = run(0, ema=0.0)
    assert torch.equal(net.layer.weight, last.layer.weight)


def test_times_become_waves_as_in_diffusers():
    t = torch.tensor([0.0, 0.001, 0.7])
    got = time_features(t, 8)
    assert torch.equal(got[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(got[1, [0, 4]], torch.tensor([math.cos(1), math.sin(1)]))
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    how = {"flip_sin_to_cos": True, "downscale_freq_shift": 0}
    wanted = embeddings.get_timestep_embedding(1000 * t, 8, **how)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


# likelihood
def test_the_likelihood_of_a_normal_flow():
    "Data N(0, 0.3²) in two dimensions: the field is a known multiple of x."
    sd = 0.3

    def field(x, t):
        t = t[:, None]
        return (t - (1 - t) * sd**2) / ((1 - t) ** 2 * sd**2 + t**2) * x

    x = sd * normal(50, 2)
    exact = -x.square().sum(1) / (2 * sd**2) - math.log(math.tau * sd**2)
    got = log_likelihood(field, x, torch.linspace(0, 1, 2001))
    torch.testing.assert_close(got, exact, atol=0.02, rtol=0)


# guidance
def test_guidance_by_hand():
    told, untold = torch.tensor([2.0]), torch.tensor([1.0])
    assert [guided(told, untold, g).item() for g in (0, 1, 3)] == [1.0, 2.0, 4.0]


# networks
def shaken(net):
    for p in net.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    return net.eval()


@given(
    heads=st.integers(1, 4),
    width=st.integers(1, 6),
    tokens=st.integers(1, 6),
    eps=st.sampled_from([1e-6, 1e-5]),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_the_block_is_diffusers(heads, width, tokens, eps, seed):
    attention = pytest.importorskip("diffusers.models.attention")
    d = heads * width * 2
    torch.manual_seed(seed)
    theirs = attention.BasicTransformerBlock(
        d,
        heads,
        d // heads,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=7,
        attention_bias=True,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
        norm_eps=eps,
    ).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    names = {
        "told": theirs.norm1.linear,
        "attend.to_q": theirs.attn1.to_q,
        "attend.to_k": theirs.attn1.to_k,
        "attend.to_v": theirs.attn1.to_v,
        "attend.out": theirs.attn1.to_out[0],
        "mlp.0": theirs.ff.net[0].proj,
        "mlp.2": theirs.ff.net[2],
    }
    ours = DiTBlock(d, heads, eps=eps)
    for name, layer in names.items():
        ours.get_submodule(name).load_state_dict(layer.state_dict())
    x, t, y = (
        torch.randn(3, tokens, d),
        torch.tensor([0, 5, 990]),
        torch.tensor([1, 0, 6]),
    )
    c = F.silu(theirs.norm1.emb(t, y, hidden_dtype=x.dtype)).detach()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    one, two = ours(a, c), theirs(b, timestep=t, class_labels=y)
    scale = 1 + two.abs().max()
    torch.testing.assert_close(one / scale, two / scale, atol=1e-5, rtol=0)
    up = torch.randn_like(one)
    (one * up).sum().backward()
    (two * up).sum().backward()
    pairs = [(a.grad, b.grad)]
    for name, layer in names.items():
        part = ours.get_submodule(name)
        pairs += [
            (part.weight.grad, layer.weight.grad),
            (part.bias.grad, layer.bias.grad),
        ]
    for mine, their in pairs:
        scale = 1 + their.abs().max()
        torch.testing.assert_close(mine / scale, their / scale, atol=1e-4, rtol=0)


def test_a_new_block_and_new_networks_do_nothing():
    x, c = normal(2, 3, 8), normal(2, 8, seed=1)
    assert torch.equal(DiTBlock(8, 2)(x, c), x)
    pictures, t = normal(2, 1, 28, 28), torch.tensor([0.2, 0.9])
    told = torch.tensor([[1], [2]])
    for net in (UNet(width=8, d=16), DiT(d=16, heads=2, depth=1)):
        said = net(pictures, t, told)  # the last layer's bias alone
        assert torch.equal(said, net(0 * pictures, 0 * t, 0 * told))


MAKERS = {
    "unet": lambda **size: UNet(5, width=8, d=16, **size),
    "dit": lambda **size: DiT(5, d=16, heads=2, depth=2, **size),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", [{}, {"channels": 3, "size": 32}])
def test_every_input_counts_and_rows_do_not_meet(kind, size):
    with seeded(0):
        net = shaken(MAKERS[kind](**size))
    x, t = normal(3, *net.shape), torch.tensor([0.1, 0.5, 0.9])
    told = torch.tensor([[1, 2], [3, 0], [0, 0]])
    y = net(x, t, told)
    assert y.shape == x.shape
    one = torch.cat(
        [net(x[i : i + 1], t[i : i + 1], told[i : i + 1]) for i in range(3)]
    )
    torch.testing.assert_close(y, one, atol=1e-5, rtol=1e-4)
    for other in (
        net(x + 0.5 * normal(*x.shape, seed=3), t, told),
        net(x, t.flip(0), told),
        net(x, t, told.flip(0)),
    ):
        assert not torch.allclose(y[0], other[0], atol=1e-4)
    swapped = net(x, t, told.flip(1))
    torch.testing.assert_close(y, swapped, atol=1e-5, rtol=1e-4)  # words are summed


def test_a_told_block_by_its_equation():
    "Told nothing it is two plain convolutions; a scale of -1 shuts the second."
    with seeded(0):
        block = shaken(ToldBlock(8, 16, 4))
    x, c = normal(2, 8, 6, 6), torch.zeros(2, 4)
    new = ToldBlock(8, 8, 4)
    torch.testing.assert_close(new(x, c), x + new.conv2.bias[:, None, None])
    block.told.bias.data.zero_()
    h = block.conv1(F.silu(block.norm1(x)))
    wanted = block.short(x) + block.conv2(F.silu(block.norm2(h)))
    torch.testing.assert_close(block(x, c), wanted)
    block.told.bias.data[:16] = -1
    bias = block.conv2.bias[None, :, None, None]
    torch.testing.assert_close(block(x, c), block.short(x) + bias)
    block.told.bias.data[16:] = 20  # what the second convolution then hears
    wanted = block.short(x) + block.conv2(torch.full_like(h, 20))
    torch.testing.assert_close(block(x, c), wanted)


def test_a_u_net_goes_down_and_up_and_has_a_shortcut():
    with seeded(0):
        net = shaken(UNet(5, width=8, d=16))
    heard, kept = {}, {}
    net.coarse[1].register_forward_hook(lambda m, i, o: kept.update(low=o))
    net.fine.register_forward_hook(lambda m, i, o: kept.update(fine=o))
    net.up.register_forward_hook(lambda m, i, o: heard.update(up=i[0], high=o))
    net.join.register_forward_hook(lambda m, i, o: heard.update(join=i[0]))
    x, t, told = normal(2, 1, 28, 28), torch.tensor([0.2, 0.9]), torch.ones(2, 1)
    net(x, t, told.long()).sum().backward()
    four = kept["low"].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert kept["low"].shape == (2, 16, 7, 7) and torch.equal(heard["up"], four)
    both = torch.cat([heard["high"], kept["fine"]], 1)
    assert torch.equal(heard["join"], both)
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_pixels_find_their_way_back():
    "An embedding that copies, blocks that do nothing: what goes in comes out."
    net = DiT(channels=2, size=8, p=4, d=32, heads=2, depth=1)
    torch.nn.init.zeros_(net.places)
    net.norm = torch.nn.Identity()
    for layer in (net.embed, net.last):
        layer.weight.data = torch.eye(32)
        layer.bias.data.zero_()
    x = normal(2, 2, 8, 8)
    said = net(x, torch.ones(2), torch.ones(2, 1, dtype=torch.long))
    torch.testing.assert_close(said, x)


def test_told_nothing_is_time_alone():
    with seeded(0):
        told = Told(4, 6)
    t, nothing = torch.tensor([0.3]), torch.tensor([[0, 0]])
    wanted = F.silu(told.time(time_features(t, 64)))
    torch.testing.assert_close(told(t, nothing), wanted)
    pair = told(t, torch.tensor([[2, 4]]))
    sums = told.words.weight[2] + told.words.weight[4]
    alone = F.silu(told.time(time_features(t, 64)) + sums)
    torch.testing.assert_close(pair, alone)


# painting
@pytest.fixture(scope="module")
def painter():
    with seeded(1):
        return shaken(UNet(5, width=8, d=16))


def test_painting_is_a_guided_walk(painter):
    told = torch.tensor([[1], [4], [2]])
    got = paint(painter, told, steps=3, guidance=3.0, seed=7)
    x = normal(3, 1, 28, 28, seed=7)
    with torch.no_grad():
        for t, after in ((1.0, 2 / 3), (2 / 3, 1 / 3), (1 / 3, 0.0)):
            when = torch.full((3,), t)
            u, none = painter(x, when, told), painter(x, when, 0 * told)
            x = x + (after - t) * (none + 3.0 * (u - none))
    torch.testing.assert_close(got, ((x + 1) / 2).clamp(0, 1), atol=1e-4, rtol=0)
    assert got.min() >= 0 and got.max() <= 1 and not got.requires_grad


def test_words_pull_between_two_times_alone(painter):
    told, x = torch.tensor([[3], [1]]), normal(2, 1, 28, 28, seed=5)
    when = torch.tensor([0.75, 0.75])
    with torch.no_grad():
        u, none = painter(x, when, told), painter(x, when, 0 * told)
        for between in ((0, 1), (0.75, 1), (0.5, 0.75)):
            how = {"told": told, "guidance": 3.0, "between": between}
            got = steered(painter, x, when, **how)
            torch.testing.assert_close(got, none + 3.0 * (u - none))
        for between in ((0.0, 0.7), (0.8, 1.0)):
            how["between"] = between
            assert torch.equal(steered(painter, x, when, **how), u)
    two = paint(painter, told, steps=2, guidance=3.0, between=(0.4, 0.9), seed=5)
    with torch.no_grad():
        x = x - painter(x, torch.ones(2), told) / 2
        half = torch.full((2,), 0.5)
        u, none = painter(x, half, told), painter(x, half, 0 * told)
    x = x - (none + 3 * (u - none)) / 2
    torch.testing.assert_close(two, ((x + 1) / 2).clamp(0, 1), atol=1e-4, rtol=0)


def test_many_pictures_are_as_few(painter):
    told = torch.arange(150)[:, None] % 5 + 1
    many = paint(painter, told, steps=1, seed=3)
    assert many.shape == (150, 1, 28, 28)
    x = normal(150, 1, 28, 28, seed=3)[140:]
    with torch.no_grad():
        u = steered(painter, x, torch.ones(10), told=told[140:], guidance=2.0)
    wanted = ((x - u + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(many[140:], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("told", "steps", "why"),
    [
        ([[6]], 2, "ids: expected tokens 0 to 5, got 6"),
        ([[-1]], 2, "ids: expected tokens 0 to 5, got -1"),
        ([1, 2], 2, "ids"),
        ([[1]], 0, "steps"),
    ],
)
def test_what_cannot_be_painted_is_named(painter, told, steps, why):
    with pytest.raises(ValueError, match=why):
        paint(painter, torch.tensor(told), steps=steps)


# portraits
def test_names_of_portraits():
    from mmcourse.portraits import is_portrait

    yes = "man", "woman: red hair, dark skin tone", "mage", "old man: light skin tone"
    no = (
        "man running",
        "red heart",
        "hair",
        "dark skin tone",
        "",
        "family: man, boy, boy",
    )
    assert all(map(is_portrait, yes)) and not any(map(is_portrait, no))


def test_words_become_numbers_and_unknown_ones_are_named():
    from mmcourse.portraits import portrait_words, word_numbers

    words = portrait_words()
    got = word_numbers(["woman: red hair, medium-dark skin tone", "man"])
    said = [[words[k - 1] for k in row if k] for row in got.tolist()]
    assert said == [["woman", "red", "hair", "medium-dark"], ["man"]]
    for wrong in (["man riding a whale"], [""]):
        with pytest.raises(ValueError, match="names: expected words of portraits"):
            word_numbers(wrong)


def test_test_names_are_made_of_words_that_training_has():
    from mmcourse.portraits import portraits, word_bags

    people, bags = portraits(), word_bags(pairs=False)
    train = torch.tensor(people["split"] == "train")
    assert (bags[train].sum(0) > 0).all() and len(people["name"]) > 700
    both = {*people["picture"][train].tolist()} & {*people["picture"][~train].tolist()}
    assert not both


def test_ranks_count_who_is_nearer():
    from mmcourse.portraits import portrait_ranks, portraits

    people = portraits()
    x = people["pixels"]
    assert portrait_ranks(x[:50], range(50)).eq(1).all()
    far = torch.cdist(x[:1].flatten(1), x.flatten(1))[0]
    other = int(far.argmax())
    assert portrait_ranks(x[:1], [other])[0] > 700


def test_sums_of_words_fit_what_they_learnt():
    from mmcourse.portraits import linear_portraits, portraits, word_neighbours

    people = portraits()
    train = [i for i, s in enumerate(people["split"]) if s == "train"][:40]
    got = linear_portraits(train, ridge=1e-3)
    assert (got - people["pixels"][train]).abs().mean() < 0.02
    assert torch.equal(word_neighbours(train[:5]), people["pixels"][train[:5]])


def test_hair_is_taken_apart_and_found():
    from mmcourse.portraits import hair_found, hair_of, portraits, same_but_hair

    got = [hair_of(n) for n in ("woman dark skin tone red hair", "man bald", "mage")]
    wanted = [("woman dark skin tone", "red hair"), ("man", "bald"), ("mage", "")]
    assert got == wanted
    people = portraits()
    rows = [i for i, n in enumerate(people["name"]) if hair_of(n)[1] == "red hair"]
    same = same_but_hair(rows)
    assert (same.sum(1) == 5).all() and same[range(len(rows)), rows].all()
    for row, i in zip(same_but_hair(rows, ("red hair", "white hair")), rows):
        names = {people["name"][j] for j in row.nonzero()[:, 0].tolist()}
        name = people["name"][i]
        assert names == {name, name.replace("red", "white")}
    painted = people["pixels"][rows]
    assert hair_found(painted, rows)["nearest drawing (%)"] == 100
    white = [
        people["name"].index(people["name"][i].replace("red", "white")) for i in rows
    ]
    assert hair_found(people["pixels"][white], rows)["nearest drawing (%)"] == 0


def test_copies_are_nearest_to_training():
    import numpy as np

    from mmcourse.datasets import mnist
    from mmcourse.studio import nearest_is_training

    train, test = [torch.as_tensor(mnist(s)["image"][:30]) for s in ("train", "test")]
    assert nearest_is_training(train) == 100 and nearest_is_training(test) == 0
    both = torch.cat([train[:1], test])
    assert np.isclose(nearest_is_training(both), 100 / 31)


def test_who_copies_is_lost_on_new_digits():
    from mmcourse.studio import copier_loss

    assert copier_loss("train") < 0.1 and copier_loss("test") > 1


def test_one_noise_for_all(painter):
    told = torch.tensor([[1], [2], [1]])
    got = paint(painter, told, steps=1, seed=4, one_noise=True)
    assert torch.equal(got[0], got[2]) and not torch.equal(got[0], got[1])
    torch.testing.assert_close(got[:1], paint(painter, told[:1], steps=1, seed=4))


def test_sharpness_by_hand():
    from mmcourse.portraits import sharpness

    x = torch.zeros(1, 1, 2, 2)
    x[0, 0, 0, 0] = 1.0
    assert sharpness(x).item() == 0.5


def test_what_ships_is_whole():
    from mmcourse.portraits import load_painter, reference
    from mmcourse.store import data_path

    assert data_path("diffusion.safetensors").stat().st_size <= 1_000_000
    assert load_painter().shape == (1, 28, 28) and not load_painter().training
    assert load_painter("portraits").shape == (3, 32, 32)
    assert set(reference("block")) > {"x", "c", "y"}
    for wrong in (load_painter, reference):
        with pytest.raises(ValueError, match="of: expected"):
            wrong("cats")


def test_a_damaged_file_is_refused(tmp_path):
    from mmcourse.checkpoint import CheckpointError
    from mmcourse.portraits import load_painter
    from mmcourse.store import data_path

    whole = data_path("diffusion.safetensors").read_bytes()
    path = tmp_path / "diffusion.safetensors"
    path.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError):
        load_painter(path=path)
