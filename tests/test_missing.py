"Chapter 18: laws of the pool, the gate and the shares; what trains on what; the bar."

import json
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from conftest import refused
from mmcourse import missing as M
from mmcourse import noise_levels as grids
from mmcourse.checkpoint import read_tensors, shipped_state
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.feature_fusion import modality_dropout
from mmcourse.measure import nll, paired_bootstrap, seeded
from mmcourse.store import data_path
from mmcourse.training import evaluating, fit, predict, warmup_cosine

seeds = st.integers(0, 2**32 - 1)
some = settings(deadline=None, max_examples=30)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def random_says(seed, B=6, C=5, names=MODALITIES):
    g = gen(seed)
    return {m: (3 * torch.randn(B, C, generator=g)).log_softmax(1) for m in names}


@pytest.fixture(scope="module")
def weights():
    return read_tensors(data_path("missing.safetensors"))


@pytest.fixture(scope="module")
def grid(weights):
    return grids.noise_grid("valid", 30, weights[1]["stats"])


@pytest.fixture(scope="module")
def runs():
    path = data_path("results/missing.json")
    return json.loads(path.read_text(encoding="utf-8"))["runs"]


# --- the pool


@some
@given(seeds, st.integers(1, 8), st.integers(2, 11))
def test_pool_without_trust_is_bayes_rule(seed, B, C):
    says = random_says(seed, B, C)
    p = math.prod(s.double().exp() for s in says.values())
    wanted = p / p.sum(1, keepdim=True)
    assert_close(M.pool(says).double().exp(), wanted, rtol=1e-4, atol=1e-6)


@some
@given(seeds)
def test_trust_is_an_exponent(seed):
    says, g = random_says(seed), gen(seed)
    trust = {m: 3 * torch.rand(6, generator=g) for m in ("text", "audio")}
    power = trust | {"image": torch.ones(6)}
    p = math.prod(s.double().exp() ** power[m][:, None] for m, s in says.items())
    wanted = p / p.sum(1, keepdim=True)
    assert_close(M.pool(says, trust).double().exp(), wanted, rtol=1e-4, atol=1e-6)


@some
@given(seeds)
def test_what_is_masked_or_not_trusted_has_no_influence(seed):
    says = random_says(seed)
    here = {m: torch.rand(6, generator=gen(seed + k)) < 0.5 for k, m in enumerate(says)}
    spoilt = {m: torch.where(here[m][:, None], s, math.nan) for m, s in says.items()}
    pooled = M.pool(says, mask=here)
    assert_close(M.pool(spoilt, mask=here), pooled)
    assert_close(M.pool(spoilt, {m: h.float() for m, h in here.items()}), pooled)
    nobody = ~torch.stack([*here.values()]).any(0)
    assert_close(pooled[nobody], torch.full((int(nobody.sum()), 5), -math.log(5)))
    only = {m: s for m, s in says.items() if m != "image"}
    gone = {"image": torch.zeros(6, dtype=torch.bool)}
    assert_close(M.pool(says, mask=gone), M.pool(only))


@some
@given(seeds)
def test_pool_does_not_know_order(seed):
    says, order = random_says(seed), torch.randperm(5, generator=gen(seed))
    pooled = M.pool(says)
    assert_close(M.pool(dict(reversed(says.items()))), pooled)
    turned = {m: s[:, order] for m, s in says.items()}
    assert_close(M.pool(turned), pooled[:, order])
    rows = [M.pool({m: s[k : k + 1] for m, s in says.items()}) for k in range(6)]
    assert_close(torch.cat(rows), pooled)


def test_pool_survives_certainty():
    sure, other = torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.1, 0.9]]).log()
    assert M.pool({"a": sure, "b": other}).isfinite().all()
    torn = M.pool({"a": sure, "b": sure.flip(1)}).exp()
    assert_close(torn, torch.tensor([[0.5, 0.5]]))


def test_pool_refuses_a_misspelt_name():
    says, ones = random_says(0), torch.ones(6)
    refused(M.pool, says, {"sound": ones}, name="trust, mask")
    refused(M.pool, says, None, {"sound": ones > 0}, name="trust, mask")


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(2, 5), st.integers(2, 6), st.floats(0.2, 5))
def test_calibrated_product_never_loses_to_its_best_expert(seed, C, K, spread):
    "The theorem, exactly: all inputs of a small world are enumerated."
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(spread * np.ones(K), C), rng.dirichlet(np.ones(K), C)  # P(x|y)
    truth = np.einsum("yi,yj->ijy", p, q).reshape(K * K, C) / C
    first, second = (torch.tensor((r / r.sum(0)).T + 1e-300).log() for r in (p, q))
    says = {"p": first.repeat_interleave(K, 0), "q": second.repeat(K, 1)}
    answer = M.pool(says).argmax(1).numpy()
    both = np.take_along_axis(truth, answer[:, None], 1).sum()
    assert both >= max(p.max(0).sum(), q.max(0).sum()) / C - 1e-9


# --- shares


def game(seed, n, shape=()):
    rng = np.random.default_rng(seed)
    return {s: rng.normal(size=shape) for s in grids.subsets(tuple("abcdef"[:n]))}


@some
@given(seeds, st.integers(1, 5))
def test_shapley_is_the_mean_over_orders(seed, n):
    v, players = game(seed, n, (2, 3)), tuple("abcdef"[:n])
    share, orders = M.shapley(v), [*permutations(players)]
    for i in players:
        added = 0
        for order in orders:
            before = tuple(sorted(order[: order.index(i)]))
            added = added + v[tuple(sorted((*before, i)))] - v[before]
        np.testing.assert_allclose(share[i], added / len(orders), atol=1e-12)
    np.testing.assert_allclose(sum(share.values()), v[players] - v[()], atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_shapley_gives_nothing_for_nothing_and_equals_the_same(seed):
    u = game(seed, 4)
    idle = {s: u[tuple(p for p in s if p != "d")] for s in u}
    assert abs(M.shapley(idle)["d"]) < 1e-12
    names = {"a": "b", "b": "a"}
    swapped = {s: u[tuple(sorted(names.get(p, p) for p in s))] for s in u}
    even = M.shapley({s: u[s] + swapped[s] for s in u})
    assert abs(even["a"] - even["b"]) < 1e-12


def test_subsets():
    assert grids.subsets(("a", "b")) == [(), ("a",), ("b",), ("a", "b")]
    assert len(grids.subsets()) == 8 and grids.subsets()[-1] == MODALITIES


# --- measures of noise


@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(0.01, 3), st.floats(-2, 2), st.floats(-0.1, 0.1))
def test_pixel_noise_is_the_noise_that_was_added(seed, sigma, grey, slope):
    rows, columns = torch.arange(28.0)[:, None], torch.arange(28.0)
    smooth = (grey + slope * rows - slope * columns).expand(3, 1, 28, 28)  # any plane
    assert M.pixel_noise(smooth).max() < 1e-4
    noise = sigma * torch.randn(64, 1, 28, 28, generator=gen(seed))
    assert abs(M.pixel_noise(smooth[:1] + noise).mean() / sigma - 1) < 0.05


@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(1, 20))
def test_loudness_range_is_in_decibels(seed, size):
    near = {"rtol": 1e-3, "atol": 1e-3}
    x = -30 - size * torch.rand(4, 20, 51, generator=gen(seed))
    assert_close(M.loudness_range(x - 5), M.loudness_range(x), **near)
    steps = torch.full((1, 20, 50), -10.0)
    steps[:, :, 25:] = -10 - size
    assert_close(M.loudness_range(steps), torch.tensor([float(size)]), **near)
    padded = torch.cat([steps, torch.full((1, 20, 30), -60.0)], 2)
    assert_close(M.loudness_range(padded), M.loudness_range(steps))
    assert M.loudness_range(torch.full((2, 20, 51), -60.0)).eq(0).all()


def test_measures_follow_the_noise(grid):
    seen = {
        m: torch.stack([M.quality({m: x})[m].median() for x in grid[m]])
        for m in ("image", "audio")
    }
    assert (seen["image"].diff()[:3] > 0).all()
    assert (seen["audio"].diff()[:3] < 0).all()
    ids = torch.tensor([[4, 2, 0], [0, 0, 0]])
    assert M.quality({"text": ids})["text"].tolist() == [[2], [0]]


# --- data


def test_grid_is_three_views(weights, grid):
    assert [len(grid[m]) for m in MODALITIES] == [1, 5, 5]
    i, a = grids.DEFAULT
    again = grids.noise_grid("valid", 30, weights[1]["stats"])
    assert_close(again["audio"][a], grid["audio"][a])
    raw = three_views(
        "valid", 30, image_noise=grids.IMAGE_NOISE[i], snr_db=grids.SNR_DB[a]
    )
    data = M.preprocess_data(raw, weights[1]["stats"])
    _, image, audio = grids.extract_features(data)
    assert_close(grid["image"][i], image)
    assert_close(grid["audio"][a], audio)
    assert grid["label"].tolist() == list(raw["label"])
    assert not torch.equal(grid["image"][0], grid["image"][4])


def test_one_speaker_is_one_name(weights):
    speaker = grids.noise_grid("test", 60, weights[1]["stats"])["speaker"]
    voice = three_views("test", 60)["voice"]
    assert ((speaker == "slt") == np.array(["slt" in v for v in voice])).all()
    assert (speaker == "slt").any()


def test_noisy_copies(weights):
    stats = weights[1]["stats"]
    clean = three_views("train", 40, image_noise=0, snr_db=math.inf)
    part = {k: clean[k] for k in ("image", "audio", "length")}
    made, again, other = (M.noisy_copies(part, stats, 3, seed=s) for s in (0, 0, 1))
    assert made["image"].shape == (40, 3, 1, 28, 28)
    assert made["audio"].shape == (40, 3, 20, 51)
    assert_close(made["audio"], again["audio"])
    assert not torch.equal(made["audio"], other["audio"])
    base = grids.noise_grid("train", 40, stats)
    quiet = {"image": made["noise"] == 0, "audio": made["snr_db"] == math.inf}
    for m, where in quiet.items():
        n, k = where.nonzero(as_tuple=True)
        assert 0 < len(n) < 120
        assert torch.allclose(made[m][n, k], base[m][0][n], atol=1e-3)
    seen = M.quality({"image": made["image"].flatten(0, 1)})["image"][:, 0]
    levels = made["noise"].flatten().float()
    assert torch.corrcoef(torch.stack([seen, levels.clamp(max=0.6)]))[0, 1] > 0.8
    assert made["noise"].max() <= 2 and made["noise"][made["noise"] > 0].min() >= 0.1
    for bad in (0, 1.5, True):
        refused(M.noisy_copies, part, stats, bad, name="copies")


def test_one_copy_is_one_of_them():
    x = torch.arange(24.0).view(4, 3, 2)
    drawn = torch.stack([M.one_copy(x, gen(seed)) for seed in range(40)])
    place = (drawn - x[:, 0]) / 2  # which copy each is
    assert (place == place[..., :1]).all()
    assert all(set(place[:, b, 0].tolist()) == {0, 1, 2} for b in range(4))


# --- joint training


def little(noise, n=48, copies=3):
    "Features of a few examples; the copies differ much."
    g, y = gen(0), torch.arange(n) % 10
    shape = [n, copies] if noise else [n]
    x = {
        "text": torch.randint(1, 9, (n, 4), generator=g),
        "image": torch.randn(*shape, 1, 28, 28, generator=g),
        "audio": -60 * torch.rand(*shape, 20, 16, generator=g),
    }
    return x, y


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_joint_training_is_a_fit_with_these_batches(noise, dropout):
    "Copies are drawn with `noise` and only then; modalities hidden with `dropout`."
    x, y = little(noise)

    def augment(inputs, generator):
        x, mask = inputs
        if noise:
            image = M.one_copy(x["image"], generator)
            x = {
                "text": x["text"],
                "image": image,
                "audio": M.one_copy(x["audio"], generator),
            }
        return x, modality_dropout(mask, dropout, generator) if dropout else mask

    options = {"epochs": 2, "lr": 4e-3, "weight_decay": 0.05, "seed": 5}
    with seeded(5):
        wanted = M.joint_model(9)
    mask = {m: torch.ones(len(y), dtype=torch.bool) for m in MODALITIES}
    fit(wanted, ((x, mask), y), schedule=warmup_cosine, augment=augment, **options)
    how = {"noise": noise, "dropout": dropout, "epochs": 2, "seed": 5}
    got = M.train_joint(x, y, 9, **how)
    for k, w in wanted.state_dict().items():
        assert_close(got.state_dict()[k], w)


def test_batches_are_made_harder_in_two_ways():
    x, _ = little(noise=True)
    mask = {m: torch.ones(48, dtype=torch.bool) for m in MODALITIES}
    views, same = M.harder((x, mask), gen(0), noise=True, dropout=0.0)
    assert views["image"].shape == (48, 1, 28, 28) and same == mask
    assert torch.equal(views["text"], x["text"])
    as_is, hidden = M.harder((x, mask), gen(0), noise=False, dropout=0.5)
    assert as_is == x
    assert not torch.stack([*hidden.values()]).all()


def test_trunk_gives_features():
    nets = {M.TextNet(9): 64, M.ImageNet28(): 64, M.AudioNet(): 128}
    inputs = torch.ones(2, 3).long(), torch.ones(2, 1, 28, 28), torch.ones(2, 20, 16)
    for (net, d), x in zip(nets.items(), inputs):
        assert M.trunk(net).eval()(x).shape == (2, d)


def test_joint_hits_are_predictions(grid):
    with seeded(0):
        model = M.joint_model(int(grid["text"][0].max()))
    hits = M.joint_hits(model, grid)
    x = {"text": grid["text"][0], "image": grid["image"][1], "audio": grid["audio"][3]}
    for s in (("audio",), ("text", "image"), MODALITIES):
        mask = {m: torch.full((30,), m in s) for m in MODALITIES}
        right = predict(model, (x, mask)).argmax(1) == grid["label"]
        assert torch.equal(hits[s][1, 3], right)
    assert grids.accuracies(hits)[MODALITIES].shape == (5, 5)


# --- tables


def test_pool_hits_are_pool_at_each_point():
    g, sizes = gen(3), zip(MODALITIES, (1, 3, 4))
    says = {m: torch.randn(n, 50, 10, generator=g).log_softmax(2) for m, n in sizes}
    trust = {m: torch.rand(s.shape[:2], generator=g) * 2 for m, s in says.items()}
    y = torch.randint(10, (50,), generator=g)
    hits, plain = M.pool_hits(says, y, trust), M.pool_hits(says, y)
    for s in grids.subsets()[1:]:
        for i in range(3):
            for a in range(4):
                at = {m: {"text": 0, "image": i, "audio": a}[m] for m in s}
                here = {m: says[m][k] for m, k in at.items()}
                trusted = {m: trust[m][k] for m, k in at.items()}
                right = M.pool(here, trusted).argmax(1) == y
                assert torch.equal(hits[s][i, a], right)
                assert torch.equal(plain[s][i, a], M.pool(here).argmax(1) == y)


def test_the_best_single_expert():
    alone = {
        "text": torch.tensor([0.5]),
        "image": torch.tensor([0.9, 0.2]),
        "audio": torch.tensor([0.6, 0.3, 0.1]),
    }
    best = grids.best_single(alone)
    assert best["image", "audio"].tolist() == pytest.approx(
        np.array([[0.9] * 3, [0.6, 0.3, 0.2]])
    )
    assert_close(best["text",], torch.full((2, 3), 0.5))
    assert_close(best[MODALITIES][1], torch.tensor([0.6, 0.5, 0.5]))
    above = grids.margins({s: b + 0.01 for s, b in best.items()}, best)
    assert set(above) == {s for s in grids.subsets() if len(s) > 1}
    assert_close(above[MODALITIES], torch.ones(2, 3))


def test_above_best_takes_the_chosen_opponent_and_counts_groups():
    g, groups = gen(0), np.repeat(np.arange(8), 5)
    alone = {
        m: torch.rand(2, n, 40, generator=g) < 0.5
        for m, n in (("image", 2), ("audio", 3))
    }
    alone["text"] = torch.rand(2, 1, 40, generator=g) < 0.5
    fused = {("image", "audio"): torch.rand(2, 2, 3, 40, generator=g) < 0.7}
    chosen = {"text": [0.9], "image": [0.6, 0.1], "audio": [0.5, 0.7, 0.2]}
    found = grids.above_best(fused, alone, chosen, groups)["image", "audio"]
    rivals = [["image", "audio", "image"], ["audio"] * 3]
    for i in range(2):
        for a in range(3):
            m = rivals[i][a]
            rival = alone[m][:, {"image": i, "audio": a}[m]]
            wanted = paired_bootstrap(
                fused["image", "audio"][:, i, a], rival, groups, n=1000
            )
            np.testing.assert_allclose(found[i, a], wanted)


# --- the gate and the model


def nonsense(n=1500, classes=4):
    "Two experts that are always sure, and wrong as often as their noise says."
    g, y = gen(0), torch.randint(classes, (n,), generator=gen(1))
    noise = {m: torch.rand(n, 1, generator=g) for m in "ab"}
    says = {}
    for m in "ab":
        wrong = torch.rand(n, generator=g) < noise[m][:, 0]
        top = torch.where(wrong, torch.randint(classes, (n,), generator=g), y)
        says[m] = (6 * torch.nn.functional.one_hot(top, classes).float()).log_softmax(1)
    return noise, says, y


def test_an_untrained_gate_is_the_product_and_a_trained_one_is_better():
    noise, says, y = nonsense()
    everything = {m: torch.ones(len(y), dtype=torch.bool) for m in "ab"}
    with torch.no_grad():
        assert_close(M.TrustGate(noise)((noise, says, everything)), M.pool(says))
    gate = M.train_gate(noise, says, y, epochs=30)
    trained = predict(gate, (noise, says, everything))
    right = [(z.argmax(1) == y).double().mean() for z in (trained, M.pool(says))]
    assert nll(trained, y) < nll(M.pool(says), y) - 0.1 and right[0] > right[1] + 0.03
    trust = gate.trust({m: torch.tensor([[0.05], [0.95]]) for m in "ab"})
    assert all((t > 0).all() and t[0] > 1.5 * t[1] for t in trust.values())
    alone = predict(gate, (noise, says, everything | {"b": ~everything["b"]}))
    assert_close(alone.argmax(1), says["a"].argmax(1))


def test_a_gate_learns_with_inputs_hidden():
    noise, says, _ = nonsense(64)
    mask = {m: torch.ones(64, dtype=torch.bool) for m in "ab"}
    measured, said, hidden = M.hide_some((noise, says, mask), gen(0))
    assert measured is noise and said is says
    there = torch.stack([*hidden.values()])
    assert there.any(0).all() and not there.all()


def test_what_is_measured_is_put_on_a_scale():
    q = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    out = M.Standard(q)(q)
    assert_close(out[:, 0], torch.tensor([-1.0, 1.0]) / math.sqrt(2))
    assert not out[:, 1].any()  # no spread, no division by zero


def test_missing_is_missing(weights, grid):
    model = M.load_trusted(weights[0], 0)
    x = {"text": grid["text"][0], "image": grid["image"][1], "audio": grid["audio"][2]}
    here = {m: torch.arange(30) % k > 0 for m, k in zip(MODALITIES, (2, 3, 4))}
    other = {}
    for m, h in here.items():
        column = h.view(-1, *[1] * (x[m].ndim - 1))
        other[m] = torch.where(column, x[m], x[m].flip(0))
    assert_close(predict(model, (other, here)), predict(model, (x, here)))
    two = {m: x[m] for m in ("text", "image")}
    absent = {m: torch.full((30,), m != "audio") for m in MODALITIES}
    all_there = {m: absent[m] for m in two}
    assert_close(predict(model, (two, all_there)), predict(model, (x, absent)))
    refused(model, ({"smell": x["image"]}, None), name="features")
    lonely = {"text": model.experts["text"]}
    refused(M.TrustedExperts, lonely, model.gate, name="experts")


def test_the_module_is_the_pool_on_the_grid(weights, grid):
    model = M.load_trusted(weights[0], 1)
    says, trust = (
        grids.grid_log_probs(model.experts, grid),
        M.trust_grid(model.gate, grid),
    )
    hits = M.pool_hits(says, grid["label"], trust)
    x = {"text": grid["text"][0], "image": grid["image"][4], "audio": grid["audio"][1]}
    mask = {m: torch.ones(30, dtype=torch.bool) for m in MODALITIES}
    said = predict(model, (x, mask)).argmax(1)
    assert torch.equal(hits[MODALITIES][4, 1], said == grid["label"])
    with evaluating(model.gate):
        own = model.gate.trust(M.quality({"image": grid["image"][4]}))["image"]
    assert_close(trust["image"][4], own)


# --- what ships


def test_shipped_weights_are_the_recorded_models(weights, runs):
    tensors, about = weights
    test, seed = grids.noise_grid("test", 1000, about["stats"]), about["seeds"][-1]
    model = M.load_trusted(tensors, seed)
    says, trust = (
        grids.grid_log_probs(model.experts, test),
        M.trust_grid(model.gate, test),
    )
    found = grids.accuracies(M.pool_hits(says, test["label"], trust))
    recorded = runs[f"all levels/{seed}"]
    assert (
        abs(found[MODALITIES][grids.DEFAULT] - recorded["default"]["gate on quality"])
        < 0.01
    )
    pairs = torch.stack([a for s, a in found.items() if len(s) > 1]).mean()
    assert abs(pairs - recorded["grid"]["gate on quality"]) < 0.005
    plain = grids.load_experts(tensors, 0, "plain")
    assert {*plain} == {*MODALITIES}
    joint = M.joint_model(len(about["stats"]["grams"]))
    joint.load_state_dict(shipped_state(tensors, "0.joint."))
    acc = grids.accuracies(M.joint_hits(joint, test))[MODALITIES][grids.DEFAULT]
    assert abs(acc - runs["one level/0"]["default"]["joint"]) < 0.01
