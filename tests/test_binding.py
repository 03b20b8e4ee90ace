"One space: laws of its parts, numbers by hand, pairs that keep apart what they must."

import json
from itertools import combinations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import refused
from mmcourse.binding import (
    Space,
    bind,
    class_opinions,
    digit_nets,
    nearest_digit,
    vectors,
)
from mmcourse.checkpoint import read_tensors, shipped_state
from mmcourse.decision_fusion import fuse_product
from mmcourse.digit_pairs import (
    ROUTES,
    digit_pairs,
    mates,
    naming_frames,
    own_partner,
    pair_rows,
    pair_views,
    retrieved,
)
from mmcourse.measure import seeded
from mmcourse.store import data_path, kept_runs


@pytest.fixture(scope="module")
def views():
    return pair_views()


def small(**options):
    "Three linear encoders from sizes of their own into four dimensions."
    sizes = {"image": 5, "audio": 3, "text": 6}
    with seeded(0):
        nets = {m: torch.nn.Linear(n, 4) for m, n in sizes.items()}
        return Space(nets, **options)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# the space
def test_vectors_have_length_one_and_come_from_the_encoder_asked_for():
    space, x = small(), normal(600, 3)
    v = vectors(space, "audio", x)
    torch.testing.assert_close(v, F.normalize(space.nets["audio"](x), dim=1))
    assert v.shape == (600, 4) and not v.requires_grad and not space.training
    torch.testing.assert_close(v.norm(dim=1), torch.ones(600))


@pytest.mark.parametrize("tau", [0.05, 0.3, 1.0])
def test_the_scale_is_one_over_the_temperature(tau):
    assert small(temperature=tau).log_scale.exp().item() == pytest.approx(1 / tau)


def test_the_encoders_of_digits_end_in_one_size(views):
    nets = digit_nets(views["grams"], d=7)
    assert set(nets) == {"image", "audio", "text"}
    space = Space(nets)
    for m in nets:
        assert vectors(space, m, views[m]["test"][0][:3]).shape == (3, 7)
    weights = [{*map(id, net.parameters())} for net in nets.values()]
    assert all(a.isdisjoint(b) for a, b in combinations(weights, 2))


# training
PAIRS = {
    ("image", "text"): (normal(9, 5), normal(9, 6, seed=1)),
    ("image", "audio"): (normal(7, 5, seed=2), normal(7, 3, seed=3)),
}


def test_the_first_loss_is_the_sum_over_kinds_of_pairs():
    space, wanted = small(temperature=0.2), 0
    for (a, b), (x, y) in PAIRS.items():
        u, w = space(a, x), space(b, y)
        right = torch.arange(len(x))
        z = u @ w.T / 0.2
        wanted += (F.cross_entropy(z, right) + F.cross_entropy(z.T, right)) / 2
    losses = bind(space, PAIRS, steps=1, size=9)  # every pair is in the batch
    assert losses == [pytest.approx(wanted.item(), rel=1e-5)]


def test_training_repeats_itself_and_the_seed_matters():
    runs = [bind(small(), PAIRS, steps=5, size=4, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2] and len(runs[0]) == 5


def test_what_meets_nothing_does_not_learn():
    space = small()
    before = {k: v.clone() for k, v in space.state_dict().items()}
    bind(space, {("image", "text"): PAIRS["image", "text"]}, steps=3, size=4)
    for k, v in space.state_dict().items():
        kept = "audio" in k or k == "log_scale"
        assert torch.equal(v, before[k]) == kept, k


def test_the_temperature_moves_only_if_it_may():
    for learnt in (False, True):
        space = small(temperature=0.1, learnt=learnt)
        start = space.log_scale.item()
        bind(space, PAIRS, steps=3, size=4)
        assert (space.log_scale.item() != start) == learnt


def test_a_bridge_of_ones_own():
    "Three codes of the same five things; two never meet and agree afterwards."
    eye = torch.eye(6)[:5]
    pairs = {
        ("image", "text"): (torch.eye(5), eye),
        ("image", "audio"): (torch.eye(5), torch.eye(5)[[1, 2, 3, 4, 0]]),
    }
    with seeded(0):
        sizes = {"image": 5, "text": 6, "audio": 5}
        space = Space({m: torch.nn.Linear(n, 8) for m, n in sizes.items()})
    bind(space, pairs, steps=150, size=5, lr=0.03)
    said = nearest_digit(
        space, ("audio", pairs["image", "audio"][1]), ("text", eye), torch.arange(5)
    )
    assert said.tolist() == [0, 1, 2, 3, 4]


# who finds whom
def test_the_digit_of_the_nearest_by_hand():
    space = Space({m: torch.nn.Identity() for m in ("audio", "text")})
    asked = torch.tensor([[1.0, 0.1], [0.1, 1.0], [-3.0, 0.0]])
    among = torch.tensor([[0.0, 9.0], [0.5, 0.0], [-1.0, -0.2], [7.0, 7.0]])
    digits = torch.tensor([4, 8, 6, 2])
    said = nearest_digit(space, ("audio", asked), ("text", among), digits)
    assert said.tolist() == [8, 4, 6]


def test_where_the_own_partner_stands_by_hand():
    digits = torch.tensor([1, 1, 1, 5, 5])
    u = torch.eye(5)
    w = torch.tensor(
        [
            [0.9, 0.8, 0.0, 0, 0],  # first for 0; second to none for 1
            [0.1, 0.7, 0.0, 0, 0],
            [0.2, 0.0, 0.5, 0, 0],
            [0.0, 0.0, 9.0, 1, 2],
            [0.0, 0.0, 9.0, 0, 1],
        ]
    )
    places = [0, 1 / 2, 0, 0, 1]  # within the digit; other digits do not count
    assert own_partner(u, w, digits) == pytest.approx(100 * np.mean(places))


# sums
@given(st.integers(1, 4), st.integers(2, 6), st.floats(0.1, 20), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_sum_of_vectors_is_a_product_of_opinions(n, c, scale, seed):
    u, w, classes = (
        normal(k, 5, seed=seed + i).double() for i, k in enumerate((n, n, c))
    )
    both = torch.stack([class_opinions(x, classes, scale) for x in (u, w)])
    wanted = both.prod(0)
    wanted = wanted / wanted.sum(1, keepdim=True)
    found = class_opinions(u + w, classes, scale)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-6)
    if both.min() > 1e-11:  # chapter 15 lets no model rule a class out for ever
        fused = fuse_product(both.double().numpy())
        np.testing.assert_allclose(found.numpy(), fused, atol=1e-4)


def test_a_stand_in_by_hand():
    same = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])
    other = torch.tensor([[0.0, 2, 0], [0, 0, 2], [5, 0, 0]])
    v = torch.tensor([[1.0, 0], [0, 1]])
    half = 0.5**0.5
    two = torch.tensor([[0, half, half], [5 / 29**0.5, 0, 2 / 29**0.5]])
    torch.testing.assert_close(retrieved(v, same, other, 2), two)
    one = torch.tensor([[0.0, 1, 0], [1, 0, 0]])
    torch.testing.assert_close(retrieved(v, same, other, 1), one)


# pairs
def test_no_frame_is_in_two_splits():
    parts = [set(naming_frames(s)) for s in ("train", "valid", "test")]
    assert all(a.isdisjoint(b) for a, b in combinations(parts, 2))
    assert sum(map(len, parts)) == 350 and min(map(len, parts)) > 40
    assert all(f.count("{}") == 1 for part in parts for f in part)


def test_mates_have_the_digit_and_are_used_evenly():
    digits, others = torch.tensor([3, 3, 3, 3, 3, 8]), torch.tensor([8, 3, 3, 0])
    rows = mates(digits, others, np.random.default_rng(0))
    assert torch.equal(others[rows], digits)
    assert sorted(rows[:5].bincount(minlength=3)[1:].tolist()) == [2, 3]


@pytest.mark.parametrize(("n", "seed"), [(10, 0), (100, 1), (1500, 2), (1750, 3)])
def test_pairs_keep_apart_what_they_must(views, n, seed):
    rows = pair_rows(views, n, seed)
    y = {m: views[m]["train"][1] for m in ("image", "audio", "text")}
    for (a, b), (i, j) in rows.items():
        assert len(i) == len(j) == n and torch.equal(y[a][i], y[b][j])
    seen, heard = rows["image", "text"][0], rows["image", "audio"][0]
    assert len(set(seen.tolist())) == n and not set(seen.tolist()) & set(heard.tolist())
    assert torch.equal(rows["audio", "text"][0], rows["image", "audio"][1])
    if n >= 100:  # rows come in class order: all digits must be in both heaps
        assert all(len(y["image"][heap].unique()) == 10 for heap in (seen, heard))
    assert ("audio", "text") not in ROUTES["bridged"]


def test_one_heap_is_the_same_pictures(views):
    rows = pair_rows(views, 50, one_heap=True)
    assert torch.equal(rows["image", "text"][0], rows["image", "audio"][0])


def test_features_stand_in_the_rows_of_their_pairs(views):
    rows, pairs = pair_rows(views, 20, 4), digit_pairs(views, 20, 4)
    for (a, b), (x, y) in pairs.items():
        i, j = rows[a, b]
        assert torch.equal(x, views[a]["train"][0][i])
        assert torch.equal(y, views[b]["train"][0][j])


def test_no_voice_is_in_two_splits(views):
    parts = [set(views["voice"][s]) for s in ("train", "valid", "test")]
    assert all(a.isdisjoint(b) for a, b in combinations(parts, 2))


@pytest.mark.parametrize("n", [9, 1751, 2.5, "ten", None])
def test_a_number_of_pairs_that_cannot_be_is_refused(views, n):
    refused(pair_rows, views, n, name="n")


def test_texts_of_another_kind_are_refused():
    refused(pair_views, "poems", name="text")
    refused(naming_frames, "exam", name="split")


# what was kept
def test_what_ships_finds_what_the_study_says(views):
    file = data_path("binding.safetensors")
    assert file.stat().st_size < 1_000_000
    tensors, about = read_tensors(file)
    space = Space(digit_nets(about["grams"]))
    space.load_state_dict(shipped_state(tensors, ""))
    kept = kept_runs("binding", "bound/bridged")[0]
    assert space.log_scale.exp().item() == pytest.approx(1 / kept["temperature"], 1e-3)
    for a, b in (("audio", "text"), ("image", "text")):
        (x, y), (z, w) = views[a]["test"], views[b]["test"]
        hits = (nearest_digit(space, (a, x), (b, z), w) == y).float().mean().item()
        assert abs(hits - kept[f"{a} {b}"]["share"]) < 0.02


def test_kept_shares_are_those_of_their_hits():
    text = data_path("results/binding.json").read_text("utf-8")
    runs = json.loads(text)["runs"]
    for way, seed in product(ROUTES, range(5)):
        assert f"bound/{way}/{seed}" in runs
    for name, run in runs.items():
        for asked, part in run.items():
            if isinstance(part, dict) and "share" in part:
                hits = np.array([*part["hits"]], int)
                assert abs(hits.mean() - part["share"]) < 1e-4, (name, asked)


def test_no_instrument_stands_under_two_emoji():
    "Every emoji is drawn by the course and named in both languages; no picture twice."
    from mmcourse.emoji import emoji
    from mmcourse.instruments import CONCEPTS

    programs = sum(CONCEPTS.values(), ())
    assert len(set(programs)) == len(programs) and set(programs) <= set(range(128))
    signs = emoji(32)
    rows = [list(signs["emoji"]).index(c) for c in CONCEPTS]
    assert len({signs["picture"][i] for i in rows}) == len(CONCEPTS)
    assert all(signs["name"][m][i] for m in ("en", "zh") for i in rows)


def test_another_sound_font_is_refused(tmp_path, monkeypatch):
    from mmcourse import instruments
    from mmcourse.store import CorruptData

    other = tmp_path / "TimGM6mb.sf2"
    other.write_bytes(b"RIFF")
    monkeypatch.setattr(instruments, "has_library", lambda name: True)
    monkeypatch.setattr(instruments, "inside_package", lambda *names: other)
    with pytest.raises(CorruptData):
        instruments.sound_font()
    monkeypatch.setattr(instruments, "has_library", lambda name: False)
    assert instruments.sound_font() is None


def test_notes_are_a_second_long_and_do_not_ring_into_the_next():
    from mmcourse.instruments import note_features, play_notes, sound_font

    font = sound_font()
    if font is None:
        pytest.skip("tinysoundfont and pretty_midi are not installed")
    notes = [(19, 55, 120), (40, 69, 90), (73, 72, 60)]
    waves = play_notes(notes, font)
    assert waves.shape == (3, 8000) and np.isfinite(waves).all()
    assert (np.abs(waves).max(1) > 0.005).all() and np.abs(waves).max() < 1
    for note, wave in zip(notes, waves):
        assert np.array_equal(play_notes([note], font)[0], wave)
    violin = np.abs(np.fft.rfft(play_notes([(40, 69, 90)], font)[0]))
    assert 430 < violin[300:600].argmax() + 300 < 450  # A4 is 440 Hz
    assert note_features(waves).shape == (3, 20, 51)


WAYS = "bridged", "direct", "label"


@pytest.mark.parametrize("way", [*WAYS, "mixed", *(f"{w} longer" for w in WAYS)])
def test_what_was_kept_of_instruments(way):
    "Each concept was asked about, and other instruments where an emoji has several."
    from mmcourse.instruments import CONCEPTS, HEARD, instrument_shares

    several = [len(programs) > 1 for programs in CONCEPTS.values()]
    for kind, language in product(HEARD, ("en", "zh")):
        x = instrument_shares(way, f"{kind} {language}")
        assert x.shape == (5, len(CONCEPTS))
        asked = several if kind == "other" else [True] * len(CONCEPTS)
        assert (~np.isnan(x) == asked).all()
        assert np.nanmin(x) >= 0 and np.nanmax(x) <= 1


def test_what_was_held_back_was_asked_about():
    "Every fifth concept of each training, and in five trainings each once."
    from mmcourse.instruments import CONCEPTS, instrument_shares, unseen_rows

    for way in ("silent", "nameless"):
        asked = ~np.isnan(instrument_shares(way, "unseen few"))
        assert (asked.sum(0) == 1).all() and asked.shape == (5, len(CONCEPTS))
        seed, concept = np.nonzero(asked)
        assert (concept % 5 == seed).all()
    chances = [float(row["chance"]) for row in unseen_rows()]
    alone = 100 * np.mean([1 / 5, 1 / 5, 1 / 4, 1 / 4, 1 / 4])
    assert np.allclose(chances, [100 / 22, 100 / 22, alone, 100 / 22, alone], atol=0.06)
