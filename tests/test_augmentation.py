"""Laws of augmentations over random shapes and seeds, the promise that a generator sees its training pictures alone, and everything a caller can get wrong."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmcourse.augmentation import (
    Bag,
    Carrying,
    Ear,
    Words,
    as_mel,
    blend,
    carried_loss,
    chain,
    compare,
    confident,
    cutmix,
    delayed,
    dropped,
    few,
    fit_pairs,
    gan_pool,
    generated,
    hand,
    hissing,
    image_arms,
    interval,
    mixup,
    on_inputs,
    rare_classes,
    rectangle,
    rephrased,
    sign_flip,
    soft,
    sometimes,
    sound_arms,
    striped,
    synonyms,
    text_arms,
    with_channel,
    wordings,
)
from mmcourse.convolution import DigitCNN
from mmcourse.datasets import candidates, grammar, hints, mnist, parse, phrases
from mmcourse.image import augment_image
from mmcourse.measure import seeded
from mmcourse.store import data_path
from mmcourse.training import fit

torch.set_num_threads(1)
gen = lambda seed=0: torch.Generator().manual_seed(seed)
seeds = st.integers(0, 2**31 - 1)


def pairs(seed, B=8, C=5, shape=(6, 7)):
    g = gen(seed)
    return torch.rand(B, *shape, generator=g), torch.rand(B, C, generator=g).softmax(1)


def digits(split="train", n=None):
    d = mnist(split)
    return torch.tensor(d["image"])[:n], torch.tensor(d["label"])[:n]


# --- mixing

sizes = st.fixed_dictionaries(
    {
        "seed": seeds,
        "B": st.integers(1, 9),
        "C": st.integers(1, 6),
        "shape": st.tuples(st.integers(1, 30), st.integers(1, 30)),
    }
)


@given(sizes, st.sampled_from([mixup, cutmix]), st.floats(0.01, 50))
@settings(max_examples=120, deadline=None)
def test_mixing_keeps_label_mass_shape_and_its_input(s, mix, alpha):
    x, t = pairs(**s)
    before = x.clone(), t.clone()
    mx, mt = mix((x, t), gen(s["seed"]), alpha=alpha)
    assert mx.shape == x.shape and mt.shape == t.shape
    torch.testing.assert_close(mt.sum(1), torch.ones(len(t)))
    assert mt.min() >= 0 and mx.min() >= x.min() - 1e-6 and mx.max() <= x.max() + 1e-6
    assert torch.equal(x, before[0]) and torch.equal(t, before[1])
    again = mix((x, t), gen(s["seed"]), alpha=alpha)
    assert torch.equal(mx, again[0]) and torch.equal(mt, again[1])


@given(seeds, st.integers(2, 8), st.tuples(st.integers(2, 29), st.integers(2, 29)))
@settings(max_examples=100, deadline=None)
def test_cutmix_area_is_the_label_share_exactly(seed, B, shape):
    x = (
        torch.arange(B, dtype=torch.float64).view(B, 1, 1).expand(B, *shape).clone()
    )  # each picture is its own number
    mx, mt = cutmix((x, torch.eye(B, dtype=torch.float64)), gen(seed))
    for row, t in zip(mx, mt):
        torch.testing.assert_close(
            torch.stack([(row == b).double().mean() for b in range(B)]),
            t,
            atol=1e-12,
            rtol=0,
        )


def test_cutmix_on_colour_pictures_pastes_all_channels():
    x = torch.stack([torch.full((3, 8, 8), float(i)) for i in range(4)])
    mx, mt = cutmix((x, torch.eye(4)), gen(2))
    assert (mx == mx[:, :1]).all() and (mt > 0).sum(1).max() == 2


@given(seeds, st.floats(0.05, 5))
@settings(max_examples=50, deadline=None)
def test_mixup_mixes_inputs_and_targets_alike(seed, alpha):
    x = torch.eye(7, dtype=torch.float64)
    mx, mt = mixup(
        (x, x), gen(seed), alpha=alpha
    )  # input = target: still so afterwards
    torch.testing.assert_close(mx, mt)


def test_mixup_proportions_are_beta():
    x = torch.arange(2.0).repeat(4000)[:, None]
    mx, mt = mixup((x.double(), soft([0, 1] * 4000, 2).double()), gen(), alpha=0.4)
    inner = mx[(mx > 0) & (mx < 1)].numpy()  # rows whose partner was of the other kind
    assert (
        3000 < len(inner) < 5000
        and stats.kstest(inner, stats.beta(0.4, 0.4).cdf).pvalue > 0.001
    )


def test_rectangles_have_the_area_that_is_drawn_unless_they_stick_out():
    r = rectangle(4000, (28, 28), torch.full((4000,), 0.25), gen())
    area = r.float().mean((1, 2))
    assert (
        area.max() == 0.25 and area.min() < 0.1 and (area == 0.25).float().mean() > 0.2
    )
    assert rectangle(50, (9, 9), torch.zeros(50), gen()).sum() == 0


def test_blend_is_the_formula():
    x, lam, other = torch.rand(5, 3, 2), torch.rand(5), torch.tensor([1, 0, 4, 2, 3])
    for b in range(5):
        torch.testing.assert_close(
            blend(x, lam, other)[b], lam[b] * x[b] + (1 - lam[b]) * x[other[b]]
        )


# --- composing


def test_chain_runs_from_left_to_right():
    f, g = (lambda x, _: x + 1), (lambda x, _: 2 * x)
    x = torch.ones(3, 1)
    assert (
        chain(f, g)(x, gen()).eq(4).all()
        and chain(g, f)(x, gen()).eq(3).all()
        and torch.equal(chain()(x, gen()), x)
    )


@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_sometimes_changes_whole_rows_of_whatever_kind(p):
    n = 2000
    batch = {
        "x": torch.zeros(n, 2, 3),
        "t": (torch.zeros(n, dtype=torch.long), ["a"] * n),
    }
    flip = lambda b, g: {
        "x": b["x"] + 1,
        "t": (b["t"][0] + 1, [s.upper() for s in b["t"][1]]),
    }
    out = sometimes(flip, p)(batch, gen())
    hit = out["t"][0].bool()
    assert (
        torch.equal(out["x"].flatten(1).all(1), hit)
        and torch.equal(out["x"].flatten(1).any(1), hit)
        and [s == "A" for s in out["t"][1]] == hit.tolist()
    )
    assert abs(hit.float().mean() - p) < 0.05


def test_hand_is_chapter_03_without_the_channel():
    x = torch.rand(4, 28, 28)
    assert torch.equal(hand(x, gen(3)), augment_image(x[:, None], gen(3))[:, 0])


def test_no_augmentation_touches_the_global_dice():
    x = torch.rand(6, 28, 28)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for f in (
        on_inputs(hand),
        mixup,
        cutmix,
        sometimes(mixup),
        generated(x, torch.arange(6)),
    ):
        f((x, soft(torch.arange(6))), gen())
    (
        delayed(x[:, 0], gen()),
        hissing(x[:, 0], gen()),
        dropped(torch.ones(2, 3, dtype=torch.long), gen()),
    )
    assert (
        torch.equal(torch.get_rng_state(), before[0])
        and (np.random.get_state()[1] == before[1]).all()
    )


def test_fit_pairs_without_augmentation_is_fit():
    data, nets = few(digits(), 3), []
    for run in (fit, fit_pairs):
        with seeded(0):
            net = DigitCNN()
        run(net, data, epochs=3, seed=0)
        nets.append(net(data[0]))
    torch.testing.assert_close(*nets, atol=1e-4, rtol=1e-4)


def test_targets_arrive_at_the_loss_as_augmented():
    seen = []
    to_class_2 = lambda b, g: (b[0], soft(torch.full((len(b[0]),), 2)))
    with seeded(0):
        net = torch.nn.Linear(3, 10)
    fit_pairs(
        net,
        (torch.randn(64, 3), torch.zeros(64, dtype=torch.long)),
        augment=to_class_2,
        epochs=60,
        lr=0.1,
    )
    assert (net(torch.randn(20, 3)).argmax(1) == 2).all()
    logits, t = Carrying(net)((torch.zeros(1, 3), soft([4])))
    torch.testing.assert_close(
        carried_loss((logits, t), None), -logits.log_softmax(1)[0, 4]
    )


# --- sound


@given(seeds, st.floats(-20, 40))
@settings(max_examples=40, deadline=None)
def test_noise_has_the_level_that_is_asked_for_and_stays_inside_the_clip(seed, dB):
    x = torch.randn(3, 400, generator=gen(seed), dtype=torch.float64)
    x[:, :50] = 0
    x[:, 300:] = 0
    noise = hissing(x, gen(seed), low=dB, high=dB) - x
    torch.testing.assert_close(
        10 * ((x**2).sum(1) / (noise**2).sum(1)).log10(),
        torch.full((3,), dB, dtype=torch.float64),
    )
    assert noise[:, :50].eq(0).all() and noise[:, 300:].eq(0).all()


def test_silence_stays_silent():
    assert hissing(torch.zeros(2, 30), gen()).eq(0).all()


@given(seeds, st.floats(0, 1), st.sampled_from([(40,), (3, 20)]))
@settings(max_examples=40, deadline=None)
def test_a_delay_moves_and_fills(seed, by, shape):
    x = torch.rand(5, *shape, generator=gen(seed)) + 1
    out, T = delayed(x, gen(seed), by=by, fill=-60.0), shape[-1]
    for a, b in zip(x, out):
        assert any(
            torch.equal(
                b, torch.cat([torch.full_like(a[..., :s], -60), a[..., : T - s]], -1)
            )
            for s in range(round(by * T) + 1)
        )


def test_spectrograms_go_from_minus_60_to_0():
    mel = as_mel(torch.randn(3, 8000, generator=gen()))
    assert (
        mel.shape == (3, 20, 51) and mel.min() >= -60 and mel.amax((1, 2)).eq(0).all()
    )


def test_stripes_do_not_reach_where_nothing_is():
    mel = torch.full((40, 20, 30), -60.0)
    mel[:, :, 5:20] = -20 * torch.rand(40, 20, 15)
    out = striped(mel, gen())
    assert (
        out[:, :, :5].eq(-60).all()
        and out[:, :, 20:].eq(-60).all()
        and (out != mel).any()
    )


# --- text


def test_synonyms_are_symmetric_true_of_the_same_digits_and_of_one_kind():
    P = phrases()
    for i, same in synonyms().items():
        assert i in same and all(synonyms()[j] == same for j in same)
        assert len({(P[j].kind, P[j].truth) for j in same}) == 1
    texts = {P[i].text: {P[j].text for j in same} for i, same in synonyms().items()}
    assert {"below five", "under five", "less than five", "smaller than five"} == texts[
        "below five"
    ] and texts["prime"] == {"prime"}


def test_rewording_keeps_every_truth_of_the_grammar_and_stays_in_training():
    held_out = {h.parts for s in ("valid", "test") for h in grammar(s)}
    for h in grammar("train")[::7]:
        for parts in wordings(h.parts):
            assert (
                frozenset.intersection(*(phrases()[i].truth for i in parts)) == h.truth
                and parts not in held_out
            )
    texts = hints("train", 500, 3)["text"]
    again = rephrased(texts, gen(1))
    assert (
        all(candidates(a) == candidates(b) for a, b in zip(texts, again))
        and not {parse(t) for t in again} & held_out
    )
    assert sum(a != b for a, b in zip(texts, again)) > 400 and again == rephrased(
        texts, gen(1)
    )


@given(seeds, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_word_dropout_leaves_words_in_place_and_one_at_least(seed, p):
    ids = torch.randint(1, 9, (6, 7), generator=gen(seed)) * (
        torch.arange(7) < torch.randint(0, 8, (6, 1), generator=gen(seed + 1))
    )
    out = dropped(ids, gen(seed), p=p)
    assert ((out == ids) | (out == 0)).all() and torch.equal(
        (out > 0).any(1), (ids > 0).any(1)
    )
    if p == 0:
        assert torch.equal(out, ids)


def test_word_dropout_drops_its_share():
    ids = torch.ones(400, 50, dtype=torch.long)
    assert abs((dropped(ids, gen(), p=0.2) == 0).float().mean() - 0.2) < 0.01


def test_words():
    w = Words(["an odd number", "Below FIVE"])
    ids = w(["below five", "an odd zebra", "zebra"])
    assert (
        ids.dtype == torch.int64
        and (ids > 0).sum(1).tolist() == [2, 2, 0]
        and torch.equal(w(["BELOW five"])[0], ids[0])
    )


# --- generated pictures


def test_the_generator_sees_no_picture_outside_its_training_set():
    "Every other picture becomes noise, or goes away: the pool stays the same to the last bit."
    x, y = digits()
    rows = few((torch.arange(len(y)), y), 4, 7)[0]
    assert len(rows) == 40 and torch.equal(few((x, y), 4, 7)[0], x[rows])
    other = torch.rand(x.shape, generator=gen(1))
    other[rows] = x[rows]
    brief = {"steps": 8, "per_class": 3, "width": 4, "seed": 7}
    pool = gan_pool(few((x, y), 4, 7), **brief)
    again = gan_pool(few((other, y), 4, 7), **brief)
    assert torch.equal(pool[0], again[0]) and torch.equal(pool[1], again[1])
    inside = x.clone()
    inside[rows[0]] = 0  # the test can fail: one of its own pictures counts
    assert not torch.equal(pool[0], gan_pool(few((inside, y), 4, 7), **brief)[0])


def test_rare_classes_show_the_generator_a_few_rare_pictures_only():
    data, brief = (
        {"train": digits(), "valid": digits("valid")},
        {"steps": 4, "width": 4},
    )
    train, tests, pool = rare_classes(data, 3, 5, **brief)
    rare = tests["valid"][1].unique()
    assert len(rare) == 5 and set(pool[1].tolist()) == set(rare.tolist())
    for c in range(10):
        mine = train[0][train[1] == c]
        assert (
            len(mine.unique(dim=0)) == (3 if c in rare else 350)
            and len(mine) >= 350 - 3
        )
    x, y = data["train"]
    seen = {row.numpy().tobytes() for row in train[0]}
    kept = torch.tensor([row.numpy().tobytes() in seen for row in x])
    other = torch.where(kept[:, None, None], x, torch.rand(x.shape, generator=gen()))
    assert torch.equal(
        pool[0], rare_classes(data | {"train": (other, y)}, 3, 5, **brief)[2][0]
    )


def test_no_arm_of_the_study_uses_test_pictures_for_training():
    x, y = digits()
    train = few((x, y), 2, 0)
    pool = gan_pool(train, steps=3, per_class=2, width=4)
    noise = {"test": (torch.rand(50, 28, 28), torch.arange(50) % 10)}
    a = compare(train, {"test": digits("test", 200)}, image_arms(pool), steps=6)
    b = compare(
        train, noise | {"again": digits("test", 200)}, image_arms(pool), steps=6
    )
    assert {k: v["test"] for k, v in a.items()} == {k: v["again"] for k, v in b.items()}


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_generated_pictures_come_in_the_share_and_class_asked_for(share):
    y = torch.arange(3000) % 3
    x, pool, labels = (
        torch.zeros(3000, 2, 2),
        torch.tensor([1.0, 2, 3, 4])[:, None, None].expand(4, 2, 2),
        torch.tensor([0, 1, 1, 0]),
    )  # none for class 2
    out, t = generated(pool, labels, share=share)((x, soft(y, 3)), gen())
    v = out[:, 0, 0]
    assert torch.equal(t, soft(y, 3)) and (v[y == 2] == 0).all()
    assert set(v[y == 0].tolist()) <= {0, 1, 4} and set(v[y == 1].tolist()) <= {0, 2, 3}
    assert abs((v[y < 2] > 0).float().mean() - share) < 0.04


def test_confident_keeps_what_is_believed_and_one_of_each_class():
    net = torch.nn.Linear(3, 3, bias=False)
    net.weight.data = 10 * torch.eye(3)
    x, y = torch.eye(3).repeat(3, 1), torch.tensor([0, 1, 2, 0, 1, 1, 0, 0, 0])
    kx, ky = confident(net, (x, y), least=0.9)
    assert (kx.argmax(1) == ky).all() and len(ky) == 6 and set(ky.tolist()) == {0, 1, 2}
    kx, ky = confident(net, (x, (y + 1) % 3), least=1.0)
    assert set(ky.tolist()) == {0, 1, 2}


# --- few, statistics


@given(seeds, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_few_takes_as_many_of_each_class_as_asked(seed, k):
    y = torch.arange(60) % 6
    x, t = few((torch.arange(60.0)[:, None], y), k, seed)
    assert (
        t.bincount().tolist() == [k] * 6
        and len(x.unique()) == 6 * k
        and torch.equal(y[x[:, 0].long()], t)
    )


def test_another_seed_is_another_choice():
    assert not torch.equal(few(digits(), 5, 0)[0], few(digits(), 5, 1)[0])


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_sign_flip_is_enumeration(d):  # whole numbers: ties are exact
    means = [
        abs(sum(s * v for s, v in zip(signs, d)))
        for signs in itertools.product((1, -1), repeat=len(d))
    ]
    assert sign_flip(d) == np.mean([m >= abs(sum(d)) for m in means])


def test_sign_flip_has_the_level_it_claims():
    rng = np.random.default_rng(0)
    assert (
        0.02
        < np.mean([sign_flip(rng.standard_normal(8)) <= 0.05 for _ in range(1000)])
        < 0.07
    )


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=30).filter(
        lambda v: np.std(v) > 1e-3
    ),
    st.floats(0.5, 0.99),
)
@settings(max_examples=40, deadline=None)
def test_interval_is_scipys(v, level):
    mean, low, high = interval(v, level)
    np.testing.assert_allclose(
        (low, high),
        stats.t.interval(level, len(v) - 1, np.mean(v), stats.sem(v)),
        rtol=1e-6,
        atol=1e-9,
    )
    assert abs(mean - np.mean(v)) < 1e-9


# --- arms, small networks, the table


def test_sound_and_text_arms_train_their_networks():
    x, y = torch.randn(20, 1600, generator=gen()), torch.arange(20) % 10
    assert (
        compare((x, y), {"t": (as_mel(x), y)}, sound_arms(), make=Ear, steps=2).keys()
        == sound_arms().keys()
    )
    texts, words = hints("train", 20)["text"], Words(hints("train", 200)["text"])
    got = compare(
        (torch.arange(20), y),
        {"t": (words(texts), y)},
        text_arms(texts, words),
        make=lambda: Bag(len(words.known)),
        steps=2,
    )
    assert got.keys() == text_arms(texts, words).keys() and all(
        0 <= v["t"] <= 1 for v in got.values()
    )


def test_the_table_says_how_it_was_made_and_is_complete():
    study = json.loads(
        data_path("results/augmentation_study.json").read_text(encoding="utf-8")
    )
    assert study["command"].startswith(
        "python data/make_augmentation_study.py"
    ) and study["versions"].keys() >= {"python", "torch", "numpy"}
    assert abs(study["seconds"] - sum(r["seconds"] for r in study["runs"])) < 1
    for name, ks in {
        "image": (10, 20, 50, 100),
        "hands": (10,),
        "rare": (10, 20),
        "sound": (20,),
        "text": (20, 100),
    }.items():
        for k in ks:
            runs = [
                r for r in study["runs"] if (r["study"], r["per_class"]) == (name, k)
            ]
            assert [r["seed"] for r in runs] == list(range(len(runs))) and len(
                runs
            ) >= 5
            assert (
                all(
                    0 < v[s] < 1
                    for r in runs
                    for v in r["scores"].values()
                    for s in ("valid", "test")
                )
                and len({tuple(r["scores"]) for r in runs}) == 1
            )


# --- bad input

X, T = torch.rand(4, 28, 28), soft([0, 1, 2, 3])
BAD_X = [
    (None, TypeError),
    ("odd", TypeError),
    (np.zeros((4, 28, 28)), TypeError),
    (torch.zeros(4, 28, 28, dtype=torch.long), TypeError),
    (torch.zeros(0, 28, 28), ValueError),
    (torch.full((4, 28, 28), float("nan")), ValueError),
    (torch.full((4, 28, 28), float("inf")), ValueError),
    (torch.tensor(1.0), (TypeError, ValueError)),
]


def refused(error, name, f, *args, **kwargs):
    with pytest.raises(error) as e:
        f(*args, **kwargs)
    assert (
        str(e.value).startswith(name)
        and "expected" in str(e.value)
        and "got" in str(e.value)
        and "\n" not in str(e.value)
    ), str(e.value)


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("x,error", BAD_X)
def test_mixing_bad_inputs(mix, x, error):
    with pytest.raises(error) as e:
        mix((x, T[: len(x)] if isinstance(x, torch.Tensor) and x.ndim else T), gen())
    assert str(e.value).split(":")[0] in (
        "x",
        "batch",
        "targets",
    ) and "expected" in str(e.value)


@pytest.mark.parametrize(
    "t,error",
    [
        (torch.arange(4), TypeError),
        (torch.rand(4), TypeError),
        (torch.rand(3, 10), (TypeError, ValueError)),
        (2 * T, ValueError),
        (torch.full((4, 10), float("nan")), ValueError),
        (T - 0.1, ValueError),
        (None, TypeError),
    ],
)
@pytest.mark.parametrize(
    "f", [mixup, cutmix, on_inputs(hand), generated(X, torch.arange(4))]
)
def test_bad_targets(f, t, error):
    with pytest.raises(error) as e:
        f((X, t), gen())
    assert str(e.value).split(":")[0] in ("targets", "batch") and "expected" in str(
        e.value
    )


@pytest.mark.parametrize(
    "f",
    [mixup, cutmix, generated(X, torch.arange(4)), sometimes(mixup)],
)
@pytest.mark.parametrize("g", [None, 0, np.random.default_rng(0)])
def test_bad_generator(f, g):
    refused(TypeError, "generator", f, (X, T), g)


@pytest.mark.parametrize("f", [mixup, cutmix, on_inputs(hand)])
@pytest.mark.parametrize("batch", [X, None, (X,), [X, T], {"x": X}])
def test_bad_pairs(f, batch):
    refused(TypeError, "batch", f, batch, gen())


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf"), None, True, "1"])
def test_bad_alpha(alpha):
    refused(ValueError, "alpha", mixup, (X, T), gen(), alpha=alpha)
    refused(ValueError, "alpha", cutmix, (X, T), gen(), alpha=alpha)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), None, ".5", True])
def test_bad_chances(p):
    refused(ValueError, "p", sometimes, hand, p)
    refused(ValueError, "p", dropped, torch.ones(2, 2, dtype=torch.long), gen(), p=p)
    refused(ValueError, "share", generated, X, torch.arange(4), share=p)
    refused(ValueError, "by", delayed, X, gen(), by=p)


def test_bad_functions():
    refused(TypeError, "augments[1]", chain, hand, None)
    refused(TypeError, "augment", sometimes, 3)
    refused(TypeError, "augment", on_inputs, "hand")
    refused(TypeError, "augment", with_channel, None)
    refused(ValueError, "augment", sometimes(lambda x, g: x[:, :3]), X, gen())
    refused(ValueError, "x", hand, X[0], gen())
    refused(TypeError, "batch", sometimes(hand), "odd", gen())


@pytest.mark.parametrize("x,error", BAD_X)
def test_bad_sound(x, error):
    with pytest.raises(error, match="^x: expected"):
        delayed(x, gen())
    with pytest.raises((TypeError, ValueError), match="^x: expected"):
        hissing(x, gen())


def test_bad_levels():
    refused(ValueError, "high", hissing, torch.rand(2, 9), gen(), low=10.0, high=0.0)
    refused(ValueError, "low", hissing, torch.rand(2, 9), gen(), low=float("nan"))


@pytest.mark.parametrize(
    "texts,error,name",
    [
        ("odd", TypeError, "texts"),
        ([], TypeError, "texts"),
        (None, TypeError, "texts"),
        (["a cat"], ValueError, "text"),
        ([""], ValueError, "text"),
    ],
)
def test_bad_texts(texts, error, name):
    refused(error, name, rephrased, texts, gen())


@pytest.mark.parametrize(
    "ids,error",
    [
        (None, TypeError),
        (torch.rand(2, 3), TypeError),
        (torch.ones(3, dtype=torch.long), ValueError),
        (torch.ones(0, 3, dtype=torch.long), ValueError),
        (-torch.ones(2, 3, dtype=torch.long), ValueError),
        (torch.ones(2, 2, dtype=torch.bool), TypeError),
    ],
)
def test_bad_ids(ids, error):
    refused(error, "ids", dropped, ids, gen())


@pytest.mark.parametrize("y", [[], [-1], [10], [0.5], [[1]]])
def test_bad_labels(y):
    refused(ValueError, "labels", soft, y)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None, 351])
def test_bad_sizes(k):
    refused(ValueError, "per_class", few, digits(), k)


@pytest.mark.parametrize(
    "d,error",
    [
        ([], ValueError),
        ([float("nan")], ValueError),
        ([[1.0]], ValueError),
        ("odd", TypeError),
        (list(range(21)), ValueError),
    ],
)
def test_bad_differences(d, error):
    refused(error, "differences", sign_flip, d)


def test_bad_values():
    refused(ValueError, "values", interval, [1.0])
    refused(ValueError, "values", interval, [1.0, float("inf")])
    refused(ValueError, "level", interval, [1.0, 2.0], 1.5)


def test_bad_pools():
    with pytest.raises(ValueError, match="^pool"):
        generated(X, torch.arange(3))
    with pytest.raises(ValueError, match="^pool"):
        generated(torch.full((4, 2), float("nan")), torch.arange(4))
    with pytest.raises(ValueError, match="^train"):
        gan_pool((torch.zeros(0, 28, 28), torch.zeros(0)))
    with pytest.raises(ValueError, match="^images"):
        gan_pool((2 * torch.ones(20, 28, 28), torch.arange(20) % 10), steps=1)
