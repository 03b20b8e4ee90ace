"""Chapter 18: laws of the pool, the gate and the shares; measures of noise against noise that was added; the shipped results against the bar."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmcourse.checkpoint import read_tensors
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.measure import nll, seeded
from mmcourse.missing import (
    DEFAULT,
    IMAGE_NOISE,
    SNR_DB,
    TrustedExperts,
    TrustGate,
    best_single,
    confidence,
    held_voices,
    joint_grid,
    joint_model,
    load_experts,
    load_results,
    load_trusted,
    loudness_range,
    margins,
    measure,
    noise_grid,
    noisy_copies,
    one_copy,
    opinions,
    over_best,
    pixel_noise,
    pool,
    pool_grid,
    shapley,
    shapley_by_orders,
    singles,
    subsets,
    train_expert,
    train_gate,
    trust_grid,
)
from mmcourse.store import data_path
from mmcourse.training import predict

seeds = st.integers(0, 2**32 - 1)


def random_says(seed: int, B: int = 6, C: int = 5, names: tuple = MODALITIES) -> dict:
    g = torch.Generator().manual_seed(seed)
    return {m: (3 * torch.randn(B, C, generator=g)).log_softmax(1) for m in names}


@pytest.fixture(scope="module")
def weights():
    return read_tensors(data_path("missing.safetensors"))


@pytest.fixture(scope="module")
def grid(weights):
    return noise_grid("valid", 30, weights[1]["stats"])


# the pool


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 8), st.integers(2, 11))
def test_pool_without_trust_is_bayes_rule(seed, B, C):
    says = random_says(seed, B, C)
    p = math.prod(s.double().exp() for s in says.values())
    assert_close(
        pool(says).double().exp(), p / p.sum(1, keepdim=True), rtol=1e-4, atol=1e-6
    )


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_what_is_masked_or_not_trusted_has_no_influence(seed):
    says = random_says(seed)
    here = {
        m: torch.rand(6, generator=torch.Generator().manual_seed(seed + k)) < 0.5
        for k, m in enumerate(MODALITIES)
    }
    spoilt = {m: torch.where(here[m][:, None], s, math.nan) for m, s in says.items()}
    assert_close(pool(spoilt, mask=here), pool(says, mask=here))
    assert_close(
        pool(says, {m: h.float() for m, h in here.items()}), pool(says, mask=here)
    )
    nobody = ~torch.stack([*here.values()]).any(0)
    assert_close(
        pool(says, mask=here)[nobody], torch.full((int(nobody.sum()), 5), -math.log(5))
    )


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_pool_does_not_know_order(seed):
    says, order = (
        random_says(seed),
        torch.randperm(5, generator=torch.Generator().manual_seed(seed)),
    )
    assert_close(pool(dict(reversed(says.items()))), pool(says))
    assert_close(pool({m: s[:, order] for m, s in says.items()}), pool(says)[:, order])
    assert_close(
        torch.cat([pool({m: s[k : k + 1] for m, s in says.items()}) for k in range(6)]),
        pool(says),
    )


def test_pool_survives_certainty():
    sure = torch.tensor([[0.0, -math.inf]])
    assert pool({"a": sure, "b": torch.tensor([[0.1, 0.9]]).log()}).isfinite().all()
    assert_close(pool({"a": sure, "b": sure.flip(1)}).exp(), torch.tensor([[0.5, 0.5]]))


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(2, 5), st.integers(2, 6), st.floats(0.2, 5))
def test_calibrated_product_never_loses_to_its_best_expert(seed, C, K, spread):
    "The theorem, exactly: all inputs of a small world are enumerated, and `pool` answers."
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(spread * np.ones(K), C), rng.dirichlet(np.ones(K), C)  # P(x|y)
    truth = np.einsum("yi,yj->ijy", p, q).reshape(K * K, C) / C
    said = lambda r: torch.tensor((r / r.sum(0)).T + 1e-300).log()
    answer = pool(
        {"p": said(p).repeat_interleave(K, 0), "q": said(q).repeat(K, 1)}
    ).argmax(1)
    both = np.take_along_axis(truth, answer.numpy()[:, None], 1).sum()
    assert both >= max(p.max(0).sum(), q.max(0).sum()) / C - 1e-9


@pytest.mark.parametrize(
    "how, error, name",
    [
        ({"log_probs": {}}, TypeError, "log_probs"),
        ({"log_probs": [1]}, TypeError, "log_probs"),
        (
            {"log_probs": {"a": torch.ones(2, 3, dtype=torch.int64)}},
            TypeError,
            "log_probs\\['a'\\]",
        ),
        ({"log_probs": {"a": torch.zeros(3)}}, ValueError, "log_probs\\['a'\\]"),
        ({"log_probs": {"a": torch.zeros(0, 3)}}, ValueError, "log_probs\\['a'\\]"),
        (
            {"log_probs": {"a": torch.zeros(2, 3), "b": torch.zeros(2, 4)}},
            ValueError,
            "log_probs",
        ),
        (
            {"log_probs": {"a": torch.full((2, 3), math.nan)}},
            ValueError,
            "log_probs\\['a'\\]",
        ),
        ({"log_probs": {"a": torch.ones(2, 3)}}, ValueError, "log_probs\\['a'\\]"),
        (
            {
                "log_probs": {"a": torch.zeros(2, 3)},
                "trust": {"a": torch.tensor([1.0, -1])},
            },
            ValueError,
            "trust\\['a'\\]",
        ),
        (
            {
                "log_probs": {"a": torch.zeros(2, 3)},
                "trust": {"a": torch.tensor([1.0, math.inf])},
            },
            ValueError,
            "trust\\['a'\\]",
        ),
        (
            {"log_probs": {"a": torch.zeros(2, 3)}, "trust": {"b": torch.ones(2)}},
            ValueError,
            "trust",
        ),
        (
            {"log_probs": {"a": torch.zeros(2, 3)}, "mask": {"a": torch.ones(2)}},
            TypeError,
            "mask\\['a'\\]",
        ),
        (
            {
                "log_probs": {"a": torch.zeros(2, 3)},
                "mask": {"a": torch.ones(3, dtype=torch.bool)},
            },
            ValueError,
            "mask\\['a'\\]",
        ),
        (
            {"log_probs": {"a": torch.zeros(2, 3)}, "mask": torch.ones(2)},
            TypeError,
            "mask",
        ),
    ],
)
def test_pool_names_what_is_wrong(how, error, name):
    with pytest.raises(error, match=f"^{name}: expected"):
        pool(**how)


# shares


def game(seed: int, n: int, shape: tuple = ()) -> dict:
    rng, names = np.random.default_rng(seed), tuple("abcdef"[:n])
    return {s: rng.normal(size=shape) for s in subsets(names)}


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 5))
def test_shapley_by_subsets_is_by_orders_and_shares_the_whole_gain(seed, n):
    v = game(seed, n, (2, 3))
    share, other = shapley(v), shapley_by_orders(v)
    for i in share:
        np.testing.assert_allclose(share[i], other[i], atol=1e-12)
    np.testing.assert_allclose(
        sum(share.values()), v[tuple("abcdef"[:n])] - v[()], atol=1e-12
    )


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_shapley_axioms(seed):
    u, v = game(seed, 4), game(seed + 1, 4)
    both = shapley({s: 2 * u[s] + v[s] for s in u})
    for i, x in both.items():
        assert abs(x - 2 * shapley(u)[i] - shapley(v)[i]) < 1e-12  # additive
    idle = {s: u[tuple(p for p in s if p != "d")] for s in u}
    assert abs(shapley(idle)["d"]) < 1e-12  # one who adds nothing
    swap = lambda s: tuple(sorted({"a": "b", "b": "a"}.get(p, p) for p in s))
    even = shapley({s: u[s] + u[swap(s)] for s in u})
    assert abs(even["a"] - even["b"]) < 1e-12  # equals get equal shares


@pytest.mark.parametrize(
    "value, error",
    [
        ({}, ValueError),
        ([], TypeError),
        ({(): 0.0}, ValueError),
        ({(): 0.0, ("a",): 1.0, ("b",): 1.0}, ValueError),
        ({(): math.nan, ("a",): 1.0}, ValueError),
        ({"": 0.0, "a": 1.0}, TypeError),
        (
            {(): 0.0, ("a",): 1.0, ("a", "b"): 1.0, ("b", "a"): 1.0, ("b",): 0.0},
            ValueError,
        ),
    ],
)
def test_shapley_names_what_is_wrong(value, error):
    for f in (shapley, shapley_by_orders):
        with pytest.raises(error, match="^value: expected"):
            f(value)


# measures of noise


@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(0.01, 3), st.floats(-2, 2), st.floats(-0.1, 0.1))
def test_pixel_noise_is_the_noise_that_was_added(seed, sigma, grey, slope):
    g = torch.Generator().manual_seed(seed)
    smooth = (
        grey + slope * torch.arange(28.0)[:, None] - slope * torch.arange(28.0)
    )  # any plane
    assert pixel_noise(smooth.expand(3, 1, 28, 28)).max() < 1e-4
    assert (
        abs(
            pixel_noise(smooth + sigma * torch.randn(64, 1, 28, 28, generator=g)).mean()
            / sigma
            - 1
        )
        < 0.05
    )


@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(1, 20))
def test_loudness_range_is_in_decibels(seed, size):
    x = -30 - size * torch.rand(
        4, 20, 51, generator=torch.Generator().manual_seed(seed)
    )
    assert_close(
        loudness_range(x - 5), loudness_range(x), rtol=1e-3, atol=1e-3
    )  # louder or fainter, the range stays
    steps = torch.full((1, 20, 50), -10.0)
    steps[:, :, 25:] = -10 - size
    assert_close(
        loudness_range(steps), torch.tensor([float(size)]), rtol=1e-3, atol=1e-3
    )
    padded = torch.cat([steps, torch.full((1, 20, 30), -60.0)], 2)
    assert_close(loudness_range(padded), loudness_range(steps))
    assert loudness_range(torch.full((2, 20, 51), -60.0)).eq(0).all()


def test_measures_follow_the_noise(grid):
    seen = {
        m: torch.stack([measure({m: x})[m].median() for x in grid[m]])
        for m in ("image", "audio")
    }
    assert (
        (seen["image"].diff()[:3] > 0).all()
        and (seen["audio"].diff() < 0).all()
        and seen["audio"][0] > 3 * seen["audio"][3]
    )


# data


def test_grid_is_three_views(weights, grid):
    assert [len(grid[m]) for m in MODALITIES] == [1, 5, 5]
    again = noise_grid(
        "valid",
        30,
        weights[1]["stats"],
        image_noise=(IMAGE_NOISE[DEFAULT[0]],),
        snr_db=(SNR_DB[DEFAULT[1]],),
    )
    assert_close(again["image"][0], grid["image"][DEFAULT[0]])
    assert_close(again["audio"][0], grid["audio"][DEFAULT[1]])
    assert_close(again["text"][0], grid["text"][0])
    assert (torch.as_tensor(three_views("valid", 30)["label"]) == grid["label"]).all()


def test_grid_refuses_no_levels(weights):
    with pytest.raises(ValueError, match="^image_noise, snr_db"):
        noise_grid("valid", 3, weights[1]["stats"], snr_db=())
    with pytest.raises(ValueError, match="split"):
        noise_grid("dev", 3, weights[1]["stats"])


def test_noisy_copies(weights):
    stats, clean = (
        weights[1]["stats"],
        three_views("train", 40, image_noise=0, snr_db=math.inf),
    )
    part = {k: clean[k] for k in ("image", "audio", "length")}
    made, again, other = (noisy_copies(part, stats, 3, seed=s) for s in (0, 0, 1))
    assert made["image"].shape == (40, 3, 1, 28, 28) and made["audio"].shape[:2] == (
        40,
        3,
    )
    assert_close(made["audio"], again["audio"])
    assert not torch.equal(made["audio"], other["audio"])
    base = noise_grid("train", 40, stats, image_noise=(0.0,), snr_db=(math.inf,))
    for m, clean_level in (
        ("image", made["noise"] == 0),
        ("audio", made["snr_db"] == math.inf),
    ):
        n, k = clean_level.nonzero(as_tuple=True)
        assert (
            len(n)
            and len(n) < 120
            and torch.allclose(made[m][n, k], base[m][0][n], atol=1e-3)
        )
    one = one_copy(made["image"], torch.Generator().manual_seed(0))
    assert (one[:, None] == made["image"]).flatten(2).all(2).any(1).all()
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="^copies"):
            noisy_copies(part, stats, bad)


def test_held_voices():
    voice = np.repeat([f"v{k}" for k in range(12)], 5)
    held = held_voices(voice, 3)
    assert (
        held.sum() == 15
        and not {*voice[held]} & {*voice[~held]}
        and (held == held_voices(voice, 3)).all()
    )
    for bad in (0, 12):
        with pytest.raises(ValueError, match="^n: expected"):
            held_voices(voice, bad)
    with pytest.raises(ValueError, match="^modality"):
        train_expert("smell", torch.zeros(4, 2), torch.zeros(4))


# tables


def test_pool_grid_is_pool_at_each_point():
    g = torch.Generator().manual_seed(3)
    says = {
        m: (2 * torch.randn(n, 50, 10, generator=g)).log_softmax(2)
        for m, n in zip(MODALITIES, (1, 3, 4))
    }
    trust, y = (
        {m: torch.rand(s.shape[:2], generator=g) * 2 for m, s in says.items()},
        torch.randint(10, (50,), generator=g),
    )
    acc = pool_grid(says, y, trust)
    for s in subsets()[1:]:
        for i in range(3):
            for a in range(4):
                at = {m: {"text": 0, "image": i, "audio": a}[m] for m in s}
                want = (
                    (
                        pool(
                            {m: says[m][k] for m, k in at.items()},
                            {m: trust[m][k] for m, k in at.items()},
                        ).argmax(1)
                        == y
                    )
                    .double()
                    .mean()
                )
                assert_close(acc[s][i, a], want)
    own = singles(acc)
    assert {m: len(v) for m, v in own.items()} == dict(zip(MODALITIES, (1, 3, 4)))
    best = best_single(own)
    assert all(abs(best[m,] - acc[m,]).max() == 0 for m in MODALITIES)
    assert_close(
        best["image", "audio"], torch.maximum(own["image"][:, None], own["audio"][None])
    )
    assert_close(
        margins(acc, best)["image", "audio"],
        100 * (acc["image", "audio"] - best["image", "audio"]),
    )
    better = {m: v + 0.1 for m, v in own.items()}
    assert_close(
        margins(acc, best_single(own, better))[MODALITIES],
        margins(acc, best)[MODALITIES] - 10,
    )
    assert_close(
        over_best([acc, acc], [acc, acc])[MODALITIES], margins(acc, best)[MODALITIES]
    )


def test_joint_grid_is_predict(grid):
    with seeded(0):
        model = joint_model(int(grid["text"][0].max()))
    acc, n = joint_grid(model, grid), 30
    for s in (("audio",), ("text", "image"), MODALITIES):
        x, mask = (
            {
                "text": grid["text"][0],
                "image": grid["image"][1],
                "audio": grid["audio"][3],
            },
            {m: torch.full((n,), m in s) for m in MODALITIES},
        )
        assert_close(
            acc[s][1, 3],
            (predict(model, (x, mask)).argmax(1) == grid["label"]).double().mean(),
        )


# the gate and the model


def test_an_untrained_gate_is_the_product_and_a_trained_one_is_better():
    g = torch.Generator().manual_seed(0)
    n, y = 1500, torch.randint(4, (1500,), generator=g)
    noise = {
        m: torch.rand(n, 1, generator=g) for m in "ab"
    }  # share of the time an expert talks nonsense, at full confidence
    top = {
        m: torch.where(
            torch.rand(n, generator=g) < noise[m][:, 0],
            torch.randint(4, (n,), generator=g),
            y,
        )
        for m in "ab"
    }
    says = {
        m: (6 * torch.nn.functional.one_hot(t, 4).float()).log_softmax(1)
        for m, t in top.items()
    }
    everything = {m: torch.ones(n, dtype=torch.bool) for m in "ab"}
    with torch.no_grad():
        assert_close(TrustGate(noise)((noise, says, everything)), pool(says))
    gate = train_gate(noise, says, y, epochs=30)
    trained = predict(gate, (noise, says, everything))
    assert (
        nll(trained, y) < nll(pool(says), y) - 0.1
        and (trained.argmax(1) == y).double().mean()
        > (pool(says).argmax(1) == y).double().mean() + 0.03
    )
    trust = gate.trust({m: torch.tensor([[0.05], [0.95]]) for m in "ab"})
    assert all((t > 0).all() and t[0] > 1.5 * t[1] for t in trust.values())
    assert {m: c.shape for m, c in confidence(says).items()} == dict.fromkeys(
        "ab", (n, 2)
    )


def test_missing_is_missing(weights, grid):
    model = load_trusted(weights[0], 0)
    x = {"text": grid["text"][0], "image": grid["image"][1], "audio": grid["audio"][2]}
    here = {m: torch.arange(30) % k > 0 for m, k in zip(MODALITIES, (2, 3, 4))}
    other = {
        m: torch.where(h.view(-1, *[1] * (x[m].ndim - 1)), x[m], x[m].flip(0))
        for m, h in here.items()
    }
    assert_close(predict(model, (other, here)), predict(model, (x, here)))
    absent = {m: torch.full((30,), m != "audio") for m in MODALITIES}
    assert_close(
        predict(
            model,
            (
                {m: x[m] for m in ("text", "image")},
                {m: absent[m] for m in ("text", "image")},
            ),
        ),
        predict(model, (x, absent)),
    )
    with pytest.raises(ValueError, match="^features"):
        model(({}, None))
    with pytest.raises(ValueError, match="^features"):
        model(({"smell": x["image"]}, None))
    with pytest.raises(ValueError, match="^experts"):
        TrustedExperts({"text": model.experts["text"]}, model.gate)


def test_shipped_weights_are_the_recorded_models(weights):
    tensors, about = weights
    grid, run = (
        noise_grid("test", 1000, about["stats"], image_noise=(0.2,), snr_db=(3.0,)),
        load_results("test")["noisy gate"][1],
    )
    model = load_trusted(tensors, 1)
    says = opinions(model.experts, grid)
    acc = pool_grid(says, grid["label"], trust_grid(model.gate, grid, says))
    for s in subsets()[1:]:
        assert abs(acc[s].item() - run[s][DEFAULT].item()) < 0.006
    for kind in ("plain", "noisy"):
        assert {*load_experts(tensors, 0, kind)} == {*MODALITIES}
    with pytest.raises(ValueError, match="^tensors"):
        load_experts(tensors, 9, "noisy")
    with pytest.raises(ValueError, match="^split"):
        load_results("train")


def test_the_bar():
    "On unseen voices: never half a point below the best single modality, 15 points above at the default; joint training is far below somewhere."
    table = load_results("test")
    assert all(
        len(table[k]) == 5
        for k in ("concatenation", "plain product", "noisy product", "noisy gate")
    )
    bar = over_best(table["noisy gate"], table["plain product"], table["noisy product"])
    assert min(m.min() for m in bar.values()) > -0.5 and bar[MODALITIES][DEFAULT] > 15
    for name in ("concatenation", "gated fusion", "plain product"):
        assert (
            min(
                m.min()
                for m in over_best(
                    table[name], table["plain product"], table["noisy product"]
                ).values()
            )
            < -10
        )
