"""Laws of augmentations over random shapes and seeds, and the promise that a generator
sees its training pictures alone."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from conftest import refused
from mmcourse.augmentation import (
    Carrying,
    add_white_noise,
    augment_digit,
    beta_shares,
    blend,
    carried_loss,
    chain,
    cutmix,
    fit_pairs,
    from_pool,
    gan_pool,
    inside_clip,
    mixup,
    on_inputs,
    one_hot,
    random_delay,
    rectangle,
    reword,
    subset_per_class,
    synonyms,
    train_arms,
    training_hints,
    word_dropout,
    wordings,
)
from mmcourse.convolution import DigitCNN
from mmcourse.datasets import candidates, hints, mnist
from mmcourse.hints import NOUNS, grammar, parse, phrases
from mmcourse.image import augment_image
from mmcourse.measure import seeded
from mmcourse.store import data_path
from mmcourse.training import accuracy, fit, warmup_cosine

seeds = st.integers(0, 2**31 - 1)
exact = {"atol": 1e-12, "rtol": 0}


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def digits(split="train", n=None):
    d = mnist(split)
    return torch.tensor(d["image"])[:n], torch.tensor(d["label"])[:n]


# --- mixing


@given(seeds, st.sampled_from([mixup, cutmix]), st.floats(0.01, 50))
@settings(max_examples=60, deadline=None)
def test_mixing_keeps_label_mass_shape_and_its_input(seed, mix, alpha):
    g = gen(seed)
    x, t = torch.rand(8, 6, 7, generator=g), torch.rand(8, 5, generator=g).softmax(1)
    before = x.clone(), t.clone()
    mx, mt = mix((x, t), gen(seed), alpha=alpha)
    assert mx.shape == x.shape and mt.shape == t.shape
    assert_close(mt.sum(1), torch.ones(8))
    assert mx.min() >= x.min() - 1e-6 and mx.max() <= x.max() + 1e-6
    assert torch.equal(x, before[0]) and torch.equal(t, before[1])
    again = mix((x, t), gen(seed), alpha=alpha)
    assert torch.equal(mx, again[0]) and torch.equal(mt, again[1])


@given(seeds, st.integers(2, 8), st.integers(2, 29), st.integers(2, 29))
@settings(max_examples=60, deadline=None)
def test_cutmix_area_is_the_label_share_exactly(seed, B, H, W):
    "Each picture is its own number, so that its pixels can be counted."
    own = torch.arange(B, dtype=torch.float64)
    x = own.view(B, 1, 1).expand(B, H, W).clone()
    mx, mt = cutmix((x, torch.eye(B, dtype=torch.float64)), gen(seed))
    counted = torch.stack([(mx == b).double().mean((1, 2)) for b in range(B)], 1)
    assert_close(counted, mt, **exact)


def test_cutmix_pastes_a_rectangle_and_usually_something():
    x = torch.arange(64.0).view(64, 1, 1).expand(64, 9, 11).clone()
    mx, _ = cutmix((x, torch.eye(64)), gen())
    foreign = mx != x
    rows, columns = foreign.any(2), foreign.any(1)
    assert torch.equal(foreign, rows[:, :, None] & columns[:, None, :])
    assert 40 < foreign.flatten(1).any(1).sum() < 64


@given(seeds, st.floats(0.05, 5))
@settings(max_examples=40, deadline=None)
def test_mixup_mixes_inputs_and_targets_alike(seed, alpha):
    x = torch.eye(7, dtype=torch.float64)
    assert_close(*mixup((x, x), gen(seed), alpha=alpha))


def test_mixup_uses_its_alpha():
    x = torch.arange(2.0).repeat(4000)[:, None]
    for alpha in (0.4, 3.0):
        mx, _ = mixup((x, one_hot(torch.zeros(8000).long())), gen(), alpha=alpha)
        inner = mx[(mx > 0) & (mx < 1)].numpy()  # rows with a partner of the other kind
        assert 3000 < len(inner) < 5000
        assert stats.kstest(inner, stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_proportions_are_beta_and_of_the_generator():
    lam = beta_shares(5000, 0.7, gen(1))
    assert stats.kstest(lam.numpy(), stats.beta(0.7, 0.7).cdf).pvalue > 0.001
    assert torch.equal(lam, beta_shares(5000, 0.7, gen(1)))
    assert not torch.equal(lam, beta_shares(5000, 0.7, gen(2)))


def test_rectangles_have_the_area_that_is_drawn_unless_they_stick_out():
    area = rectangle((28, 28), torch.full((4000,), 0.25), gen()).float().mean((1, 2))
    assert area.max() == 0.25 and area.min() < 0.1
    assert (area == 0.25).float().mean() > 0.2
    assert rectangle((9, 9), torch.zeros(50), gen()).sum() == 0
    wide = rectangle((10, 40), torch.full((4000,), 0.25), gen())
    assert wide.sum(1).amax() == 5 and wide.sum(2).amax() == 20


def test_rectangles_lie_anywhere():
    "Every pixel is inside about as often as a middle that is drawn evenly says."
    r = rectangle((8, 8), torch.full((20_000,), 0.25), gen()).float().mean(0)
    assert_close(r, r.T, atol=0.02, rtol=0)
    assert r[4, 4] > 0.22 and r.min() > 0.05


def test_blend_is_the_formula():
    x, lam, other = torch.rand(5, 3, 2), torch.rand(5), torch.tensor([1, 0, 4, 2, 3])
    for b in range(5):
        row = lam[b] * x[b] + (1 - lam[b]) * x[other[b]]
        assert_close(blend(x, lam, other)[b], row)


def test_one_hot_is_all_of_one_class():
    t = one_hot(torch.tensor([2, 0]), 3)
    assert t.tolist() == [[0, 0, 1], [1, 0, 0]] and t.dtype == torch.float32


# --- composing and training


def test_chain_runs_from_left_to_right():
    def more(x, generator):
        return x + 1

    def twice(x, generator):
        return 2 * x

    x = torch.ones(3, 1)
    assert chain(more, twice)(x, gen()).eq(4).all()
    assert chain(twice, more)(x, gen()).eq(3).all()
    assert torch.equal(chain()(x, gen()), x)


def test_another_hand_is_chapter_03_without_the_channel():
    x = torch.rand(4, 28, 28)
    wanted = augment_image(x[:, None], gen(3))[:, 0]
    assert torch.equal(augment_digit(x, gen(3)), wanted)
    a, b = on_inputs(augment_digit)((x, "targets"), gen(3))
    assert torch.equal(a, wanted) and b == "targets"


def test_no_augmentation_touches_the_global_dice():
    x = torch.rand(6, 28, 28)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for f in (on_inputs(augment_digit), mixup, cutmix, from_pool(x, torch.arange(6))):
        f((x, one_hot(torch.arange(6))), gen())
    random_delay(x[:, 0], gen())
    add_white_noise(x[:, 0], gen())
    word_dropout(torch.ones(2, 3, dtype=torch.long), gen())
    reword(["a prime number"], gen())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_fit_pairs_without_augmentation_is_fit():
    data, nets = subset_per_class(digits(), 3), []
    for run in (fit, fit_pairs):
        with seeded(0):
            net = DigitCNN()
        run(net, data, epochs=3, seed=0)
        nets.append(net(data[0]))
    assert_close(*nets, atol=1e-4, rtol=1e-4)


def test_targets_arrive_at_the_loss_as_augmented():
    def to_class_2(batch, generator):
        return batch[0], one_hot(torch.full((len(batch[0]),), 2), 4)

    with seeded(0):
        net, x = torch.nn.Linear(3, 4), torch.randn(64, 3)
    data = x, torch.zeros(64, dtype=torch.long)
    fit_pairs(net, data, augment=to_class_2, classes=4, epochs=60, lr=0.1)
    assert (net(x).argmax(1) == 2).all()


def test_the_loss_is_linear_in_the_targets():
    net = torch.nn.Linear(3, 4)
    logits, t = Carrying(net)((torch.randn(5, 3), torch.rand(5, 4).softmax(1)))
    wanted = -(t * logits.log_softmax(1)).sum(1).mean()
    assert_close(carried_loss((logits, t), None), wanted)


def test_arms_start_alike_and_get_the_steps_asked_for():
    "An arm is what `fit_pairs` makes of the same seed; 40 rows are two batches."
    train, test = subset_per_class(digits(), 4), digits("test", 100)
    arms = {"nothing": None, "again": None, "mixed": mixup}
    got = train_arms(train, {"t": test}, arms, seed=3, steps=60, lr=2e-3)
    with seeded(3):
        net = DigitCNN()
    options = {"batch_size": 32, "lr": 2e-3, "weight_decay": 0.05, "seed": 3}
    fit_pairs(net, train, epochs=30, schedule=warmup_cosine, **options)
    assert got["nothing"] == got["again"] == {"t": accuracy(net, test)}
    assert list(got) == list(arms)
    assert got["mixed"] != got["nothing"] and got["nothing"]["t"] > 0.4


# --- subsets


@given(seeds, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_subsets_have_as_many_of_each_class_as_asked(seed, k):
    y = torch.arange(60) % 6
    x, t = subset_per_class((torch.arange(60.0)[:, None], y), k, seed)
    assert t.bincount().tolist() == [k] * 6 and len(x.unique()) == 6 * k
    assert torch.equal(y[x[:, 0].long()], t)


def test_another_seed_is_another_choice():
    a, b = (subset_per_class(digits(), 5, seed)[0] for seed in (0, 1))
    assert not torch.equal(a, b)
    assert torch.equal(a, subset_per_class(digits(), 5)[0])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None, 3])
def test_bad_sizes(k):
    "Class 1 has two rows."
    data = torch.rand(6, 2), torch.tensor([0, 0, 0, 1, 1, 0])
    refused(subset_per_class, data, k, name="per_class")


# --- sound


@given(seeds, st.floats(-20, 40))
@settings(max_examples=30, deadline=None)
def test_noise_has_the_level_asked_for_and_stays_inside_the_clip(seed, dB):
    x = torch.randn(3, 400, generator=gen(seed)).double()
    x *= torch.tensor([0.01, 1.0, 30.0])[:, None]  # each clip has its own power
    x[:, :50] = 0
    x[:, 100:120] = 0  # a pause is part of a clip
    x[:, 300:] = 0
    noise = add_white_noise(x, gen(seed), low=dB, high=dB) - x
    snr = 10 * (x.square().sum(1) / noise.square().sum(1)).log10()
    assert_close(snr, torch.full((3,), dB).double(), atol=1e-4, rtol=1e-4)
    assert noise[:, :50].eq(0).all() and noise[:, 300:].eq(0).all()
    assert noise[:, 100:120].ne(0).any()


def test_levels_are_drawn_evenly():
    x = torch.ones(3000, 20)
    noise = add_white_noise(x, gen(), low=5, high=25) - x
    snr = 10 * (20 / noise.square().sum(1)).log10()
    uniform = stats.uniform(5, 20).cdf
    assert stats.kstest(snr.numpy(), uniform).pvalue > 0.001


def test_silence_stays_silent():
    assert add_white_noise(torch.zeros(2, 30), gen()).eq(0).all()
    assert not inside_clip(torch.zeros(2, 30)).any()


def test_a_clip_reaches_from_its_first_to_its_last_sample():
    x = torch.tensor([[0.0, 1, 0, 2, 0], [0, 0, 0, 0, 3], [1, 0, 0, 0, 0]])
    wanted = [[0, 1, 1, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]
    assert inside_clip(x).int().tolist() == wanted


@given(seeds, st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_a_delay_moves_and_fills(seed, by):
    x = torch.rand(5, 40, generator=gen(seed)) + 1
    for a, b in zip(x, random_delay(x, gen(seed), by=by)):
        late = int((b == 0).sum())
        assert late <= round(by * 40)
        assert torch.equal(b[late:], a[: 40 - late]) and b[:late].eq(0).all()


def test_delays_reach_from_none_to_the_most():
    late = (random_delay(torch.ones(500, 20), gen(), by=0.2) == 0).sum(1)
    assert late.unique().tolist() == [0, 1, 2, 3, 4]


# --- text


def test_synonyms_are_symmetric_true_of_the_same_digits_and_of_one_kind():
    P = phrases()
    assert set(synonyms()) == set(range(len(P)))
    for i, same in synonyms().items():
        assert i in same and all(synonyms()[j] == same for j in same)
        assert len({(P[j].kind, P[j].truth) for j in same}) == 1
    texts = {P[i].text: {P[j].text for j in same} for i, same in synonyms().items()}
    below = {"below five", "under five", "less than five", "smaller than five"}
    assert texts["below five"] == below and texts["prime"] == {"prime"}


def test_wordings_keep_every_truth_of_the_grammar_and_stay_in_training():
    others = {h.parts for s in ("valid", "test") for h in grammar(s)}
    assert not training_hints() & others
    several = 0
    for h in grammar("train")[::7]:
        ways = wordings(h.parts)
        assert ways[0] == h.parts and len(set(ways)) == len(ways)
        several += len(ways) > 1
        for parts in ways:
            truths = (phrases()[i].truth for i in parts)
            assert frozenset.intersection(*truths) == h.truth and parts not in others
    assert several > 100


def test_a_hint_of_another_split_has_one_wording_of_its_own():
    h = grammar("test")[0]
    assert wordings(h.parts)[0] == h.parts
    assert set(wordings(h.parts)[1:]) <= training_hints()


def test_rewording_changes_what_it_may():
    texts = hints("train", 300, 3)["text"]
    others = {h.parts for s in ("valid", "test") for h in grammar(s)}
    again = reword(texts, gen(1))
    assert all(candidates(a) == candidates(b) for a, b in zip(texts, again))
    assert not {parse(t) for t in again} & others
    assert again == reword(texts, gen(1)) != reword(texts, gen(2))
    assert sum(parse(a) != parse(b) for a, b in zip(texts, again)) > 100
    same = reword(texts, gen(1), phrases_too=False)
    assert [parse(t) for t in same] == [parse(t) for t in texts]
    assert sum(a != b for a, b in zip(texts, same)) > 250
    for word in (*NOUNS, "PICK", "Pick", "secret"):
        assert any(word in t for t in same)


def test_what_is_no_hint_is_refused():
    refused(reword, ["a cat"], gen(), name="text")


@given(seeds, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_word_dropout_leaves_words_in_place_and_one_at_least(seed, p):
    length = torch.randint(0, 8, (6, 1), generator=gen(seed + 1))
    ids = torch.randint(1, 9, (6, 7), generator=gen(seed)) * (torch.arange(7) < length)
    out = word_dropout(ids, gen(seed), p=p)
    assert ((out == ids) | (out == 0)).all()
    assert torch.equal((out > 0).any(1), (ids > 0).any(1))
    assert p > 0 or torch.equal(out, ids)


def test_word_dropout_drops_its_share():
    ids = torch.ones(400, 50, dtype=torch.long)
    for p, options in ((0.1, {}), (0.3, {"p": 0.3})):
        share = (word_dropout(ids, gen(), **options) == 0).float().mean()
        assert abs(share - p) < 0.01
    assert (word_dropout(ids, gen(), p=1.0) > 0).sum(1).eq(1).all()


# --- generated pictures


def test_the_generator_sees_no_picture_outside_its_training_set():
    "Every other picture becomes noise: the pool stays the same to the last bit."
    x, y = digits()
    rows = subset_per_class((torch.arange(len(y)), y), 4, 7)[0]
    assert len(rows) == 40
    assert torch.equal(subset_per_class((x, y), 4, 7)[0], x[rows])
    other = torch.rand(x.shape, generator=gen(1))
    other[rows] = x[rows]
    brief = {"steps": 8, "per_class": 3, "width": 4, "seed": 7}
    pool = gan_pool(subset_per_class((x, y), 4, 7), **brief)
    again = gan_pool(subset_per_class((other, y), 4, 7), **brief)
    assert torch.equal(pool[0], again[0]) and torch.equal(pool[1], again[1])
    assert pool[1].bincount().tolist() == [3] * 10
    inside = x.clone()
    inside[rows[0]] = 0  # the test can fail: one of its own pictures counts
    changed = gan_pool(subset_per_class((inside, y), 4, 7), **brief)
    assert not torch.equal(pool[0], changed[0])


def test_the_pool_is_drawn_for_the_classes_there_are():
    x, y = digits(n=200)
    few = x[y < 3], y[y < 3]
    images, labels = gan_pool(few, per_class=2, steps=2, width=4)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and images.shape == (6, 28, 28)
    assert images.min() >= 0 and images.max() <= 1
    other = gan_pool(few, per_class=2, steps=2, width=4, seed=1)
    assert not torch.equal(images, other[0])


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_generated_pictures_come_in_the_share_and_class_asked_for(share):
    "Classes 0 and 1 have two pictures each, class 2 none."
    y = torch.arange(3000) % 3
    pool = torch.tensor([1.0, 2, 3, 4])[:, None, None].expand(4, 2, 2)
    exchange = from_pool(pool, torch.tensor([0, 1, 1, 0]), share=share)
    out, t = exchange((torch.zeros(3000, 2, 2), one_hot(y, 3)), gen())
    v = out[:, 0, 0]
    assert torch.equal(t, one_hot(y, 3)) and (v[y == 2] == 0).all()
    for c, own in ((0, (1, 4)), (1, (2, 3))):
        counts = [(v[y == c] == p).float().mean().item() for p in own]
        assert counts == pytest.approx([share / 2] * 2, abs=0.04)
    assert abs((v[y < 2] > 0).float().mean() - share) < 0.04


# --- the table


def test_the_table_is_complete():
    "Seeds count from 0, arms of a study are the same, accuracies are no round numbers."
    file = data_path("results/augmentation_study.json")
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    names = {key.rpartition("/")[0] for key in runs}
    image = {f"image/{k}" for k in (10, 20, 50, 100)}
    rare = {"rare/10", "rare/20", "rare alone/10"}
    mixing = {f"mixing/{k}" for k in (20, 60, 180)}
    other = {"why/10", "hands/10", "text/20", "text/100"}
    assert names >= image | rare | mixing | other | {"sound/400"}
    for name in names:
        own = [key for key in runs if key.rpartition("/")[0] == name]
        assert len(own) >= 3 and f"{name}/{len(own) - 1}" in runs
        assert len({tuple(runs[key]["scores"]) for key in own}) == 1
