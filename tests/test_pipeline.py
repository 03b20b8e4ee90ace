"The pipeline: what may come in, where statistics come from, features, batches."

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.audio import log_mel
from mmcourse.datasets import MODALITIES, mnist, spoken_digits, three_views
from mmcourse.pipeline import (
    HOP,
    NOTHING,
    WINDOW,
    Views,
    clip_frames,
    collate,
    columns,
    draw_split,
    extract_audio_features,
    extract_features,
    extract_image_features,
    extract_modality,
    extract_text_features,
    fit_stats,
    known_grams,
    load_features,
    moments,
    normalize_data,
    pad_ids,
    preprocess_data,
    view_loader,
)

HOLES = {"text": 0.7, "image": 0.7, "audio": 0.7}


def few_views(split, n=None, seed=0):
    return three_views(split, 16 if n is None else n, seed, present=HOLES)


@pytest.fixture(scope="module")
def raw():
    return three_views("train", 60, present=HOLES)


@pytest.fixture(scope="module")
def train(raw):
    return preprocess_data(raw)


@pytest.fixture(scope="module")
def views():
    return load_features(few_views, 60)


# --- columns


def test_length_cuts_and_present_hides():
    data = {
        "text": ["a", "b"],
        "audio": np.ones((2, 9)),
        "length": [3, 9],
        "present": [[True, True, True], [False, True, False]],
    }
    got = columns(data)
    assert list(got) == [*MODALITIES]
    assert got["text"] == ["a", None]
    assert got["image"] == [None, None]
    assert len(got["audio"][0]) == 3
    assert got["audio"][1] is None


def test_length_may_come_without_sounds_and_with_files():
    assert columns({"text": ["a"], "length": [3]})["text"] == ["a"]
    assert columns({"audio": ["a.wav"], "length": [3]})["audio"] == ["a.wav"]
    assert columns({"audio": [None], "length": [3]})["audio"] == [None]


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (None, TypeError, "data: "),
        ([{"text": "odd"}], TypeError, "data: "),
        ({"txt": ["odd"]}, ValueError, "data: .*'txt'"),
        ({3: ["odd"], "text": ["odd"]}, ValueError, "data: .*got 3"),
        ({}, ValueError, "data: .*none"),
        ({"text": None}, ValueError, "data: .*none"),
        ({"label": [1]}, ValueError, "data: .*none"),
        ({"text": ["odd"], "image": [1, 2]}, ValueError, "data: .*'image': 2"),
        ({"text": []}, ValueError, "text: "),
        ({"text": "odd"}, TypeError, "text: "),
        ({"audio": [np.zeros(9)], "length": [1.5]}, TypeError, "length: "),
        ({"audio": [np.zeros(9)], "length": [-1]}, ValueError, "length: "),
        ({"audio": [np.zeros(9)], "length": [1, 2]}, ValueError, "length: "),
        ({"text": ["odd"], "present": [[True, True]]}, ValueError, "present: "),
        ({"text": ["odd"], "present": [[0.5, 1, 1]]}, ValueError, "present: "),
        ({"text": ["odd"], "present": "yes"}, TypeError, "present: "),
    ],
)
def test_what_is_no_data_is_refused_by_name(data, error, said):
    with pytest.raises(error, match=said):
        columns(data)


# --- statistics


def test_moments():
    assert moments(np.array([1.0, 3.0])) == (2.0, 1.0)
    assert moments(np.array([])) == (0.0, 1.0)
    flat = np.full(1000, 0.1, np.float32)  # float32 adds a spread of some 1e-9
    assert moments(flat) == (pytest.approx(0.1), 1.0)
    assert moments(np.array([0.0, 2e-5]))[1] == pytest.approx(1e-5)


def test_a_gram_needs_two_texts():
    texts = [["odd"], ["odd", "odd", "b"], ["even", "even"], ["a", "odd", "b"], []]
    assert known_grams(texts) == {"b": 1, "odd": 2, "odd b": 3}


def test_statistics_leave_out_what_is_missing():
    data = {
        "text": [["odd"], ["odd"], []],
        "image": np.array([[1.0, 3.0], [5.0, 7.0], [99.0, 99.0]]),
        "audio": np.array([[3.0, -3.0], [50.0, 50.0], [3.0, 3.0]]),
        "mask": {
            "text": np.array([True, True, False]),
            "image": np.array([True, True, False]),
            "audio": np.array([True, False, True]),
        },
    }
    stats = fit_stats(data)
    assert stats["image"] == (4.0, pytest.approx(5**0.5))
    mean, deviation = stats["audio"]
    assert mean == 0  # silence stays zero, though these samples have a mean
    assert deviation == pytest.approx(np.std([3, -3, 3, 3]))
    assert stats["grams"] == {"odd": 1}
    scaled = normalize_data(data)
    assert scaled["stats"] == stats
    assert scaled["image"].dtype == np.float32
    assert np.allclose(scaled["image"][0], [-3 / 5**0.5, -1 / 5**0.5])
    assert np.allclose(scaled["audio"][2], 3 / deviation)
    assert not scaled["image"][2].any()
    assert not scaled["audio"][1].any()
    assert scaled["text"] is data["text"]


def test_given_statistics_are_used_and_not_touched(train):
    before = repr(train["stats"])
    test = preprocess_data(three_views("test", 20, seed=3), train["stats"])
    assert test["stats"] is train["stats"]
    assert repr(train["stats"]) == before
    m, d = train["stats"]["image"]
    plain = {"image": (0.0, 1.0), "audio": (0.0, 1.0), "grams": {}}
    clean = preprocess_data(three_views("test", 20, seed=3), plain)
    assert np.allclose(test["image"] * d + m, clean["image"], atol=1e-5)


def test_masks_say_what_is_there(train, raw):
    for j, m in enumerate(MODALITIES):
        assert (train["mask"][m] == raw["present"][:, j]).all()
    assert not any(t for t, k in zip(train["text"], train["mask"]["text"]) if not k)


def test_one_example_does_not_depend_on_its_company(train):
    some = three_views("test", 6)
    some = {k: some[k] for k in ("text", "image", "audio", "length")}
    together = extract_features(preprocess_data(some, train["stats"]))
    for i in range(6):
        one = {k: v[i : i + 1] for k, v in some.items()}
        text, image, audio = extract_features(preprocess_data(one, train["stats"]))
        assert torch.equal(text[0], together[0][i, : text.shape[1]])
        assert torch.equal(image[0], together[1][i])
        torch.testing.assert_close(audio[0], together[2][i])


# --- features


def test_text_features_are_numbers_of_known_grams():
    known = {"odd": 3, "odd one": 1, "even": 2}
    ids = extract_text_features([["an", "odd", "one"], ["even"], ["new"], []], known)
    assert ids.tolist() == [[3, 1], [2, 0], [0, 0], [0, 0]]
    assert ids.dtype == torch.int64


def test_ids_have_at_least_one_column():
    assert pad_ids([[], []]).tolist() == [[0], [0]]
    assert pad_ids([[4, 5], [6]]).tolist() == [[4, 5], [6, 0]]


def test_image_features_get_a_channel():
    x = np.random.default_rng(0).normal(size=(3, 28, 28)).astype(np.float32)
    y = extract_image_features(x)
    assert y.shape == (3, 1, 28, 28)
    assert np.array_equal(y[:, 0], x)


def padded_noise(start, length, size=8000, seed=0):
    wave = np.zeros((1, size), np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.1, length)
    wave[0, start : start + length] = noise
    return wave


def touched(waves):
    "Frames in which some sample of a clip has a weight, looked up one by one."
    clip = torch.zeros_like(waves)
    for row, wave in zip(clip, waves):
        first, last = wave.nonzero()[[0, -1], 0]
        row[first : last + 1] = 1
    heard = torch.nn.functional.pad(clip, (WINDOW // 2, WINDOW // 2))
    weighed = heard.unfold(1, WINDOW, HOP) * torch.hann_window(WINDOW)
    return (weighed != 0).any(2)


def test_frames_of_a_clip_are_those_whose_windows_touch_it():
    places = [*range(140), *range(1460, 1480), *range(1720, 1740), *range(7860, 8000)]
    waves = torch.zeros(len(places), 8000)
    waves[torch.arange(len(places)), places] = 0.1  # clips of one sample
    assert torch.equal(clip_frames(waves), touched(waves))
    longer = torch.zeros(300, 8000)
    for wave, (a, b) in zip(
        longer, np.random.default_rng(0).integers(0, 8000, (300, 2))
    ):
        wave[[min(a, b), max(a, b)]] = 0.1
    assert torch.equal(clip_frames(longer), touched(longer))


def test_silence_inside_a_clip_is_part_of_it():
    wave = padded_noise(1600, 3200)
    wave[0, 2400:4000] = 0
    assert torch.equal(
        clip_frames(torch.from_numpy(wave)),
        clip_frames(torch.from_numpy(padded_noise(1600, 3200))),
    )
    assert (extract_audio_features(wave)[0, :, 20] == -59).all()
    assert not clip_frames(torch.zeros(2, 8000)).any()


def test_audio_features_are_decibels_below_the_loudest():
    waves = np.concatenate([padded_noise(3000, 2000), padded_noise(100, 7000, seed=1)])
    x = extract_audio_features(waves)
    there = clip_frames(torch.from_numpy(waves))
    assert x.shape == (2, 20, 51)
    assert x.dtype == torch.float32
    mel = log_mel(waves, n_mels=20, n_fft=256, hop=160)
    for i in range(2):
        assert x[i].max() == 0
        assert (x[i][:, ~there[i]] == -60).all()
        assert x[i][:, there[i]].min() >= -59
        below = (mel[i] - mel[i].max()).clamp_min(-59)
        torch.testing.assert_close(x[i][:, there[i]], below[:, there[i]])
    louder = extract_audio_features(waves * 10)[..., 22:30]
    torch.testing.assert_close(louder, x[..., 22:30], atol=1e-3, rtol=0)
    assert (extract_audio_features(np.zeros((1, 8000), np.float32)) == -60).all()


def test_padding_moves_features_and_changes_none():
    early = extract_audio_features(padded_noise(1600, 2800))
    late = extract_audio_features(padded_noise(1600 + 10 * HOP, 2800))
    torch.testing.assert_close(early[..., :41], late[..., 10:])


def test_a_short_clip_does_not_fill_its_second():
    "With the range of 80 dB that log_mel keeps, zeros look like sound."
    data = preprocess_data({"audio": [padded_noise(0, 2000)[0, :2000]]})
    there = (extract_audio_features(data["audio"]) > -60).any(1).sum()
    assert 12 <= there <= 16


def test_features_come_in_the_order_of_the_article(train):
    features = extract_features(train)
    for m, x in zip(MODALITIES, features):
        assert torch.equal(x, extract_modality(m, train))
    assert [x.shape[1:] for x in features[1:]] == [(1, 28, 28), (20, 51)]
    assert int(features[0].max()) == len(train["stats"]["grams"])


# --- load_features


def by_rows(split):
    d = three_views(split, 20)
    return {"image": d["image"], "voice": d["voice"], "label": d["label"]}


def test_drawing_where_the_loader_can_draw():
    new = draw_split(few_views, "train", 5, seed=2)
    assert new["text"] == few_views("train", 5, 2)["text"]


def test_rows_where_it_cannot():
    everything = by_rows("train")
    assert len(draw_split(by_rows, "train")["label"]) == 20
    some = draw_split(by_rows, "train", 7, seed=1)
    again = draw_split(by_rows, "train", 7, seed=1)
    other = draw_split(by_rows, "train", 7, seed=2)
    default = [draw_split(by_rows, "train", 7, **kw) for kw in ({}, {"seed": 0})]
    assert np.array_equal(default[0]["image"], default[1]["image"])
    assert np.array_equal(some["image"], again["image"])
    assert not np.array_equal(some["image"], other["image"])
    for image, voice in zip(some["image"], some["voice"]):
        place = (everything["image"] == image).all((1, 2)).argmax()
        assert everything["voice"][place] == voice
    assert len(draw_split(by_rows, "train", 1)["label"]) == 1
    for n in (0, 21):
        with pytest.raises(ValueError, match="n: "):
            draw_split(by_rows, "train", n)


def test_everything_is_fitted_on_the_training_split(views):
    data = preprocess_data(few_views("train", 60))
    for split in ("valid", "test"):
        assert views[split]["stats"] == data["stats"]
        clean = preprocess_data(few_views(split), data["stats"])
        for m, x in zip(MODALITIES, extract_features(clean)):
            assert torch.equal(views[split]["features"][m], x)
            assert (views[split]["mask"][m].numpy() == clean["mask"][m]).all()
            assert views[split]["mask"][m].dtype == torch.bool


def test_raw_columns_stay(views):
    assert len(views["train"]["label"]) == 60
    assert len(views["test"]["label"]) == 16
    raw = few_views("test")
    assert views["test"]["voice"].tolist() == raw["voice"].tolist()
    assert views["test"]["label"].tolist() == raw["label"].tolist()
    assert views["test"]["label"].dtype == torch.int64


def test_seeds_draw_anew():
    one, two = (load_features(by_rows, 9, seed)["train"] for seed in (0, 1))
    assert not torch.equal(one["features"]["image"], two["features"]["image"])
    default = load_features(by_rows, 9)["train"]
    assert torch.equal(one["features"]["image"], default["features"]["image"])


@pytest.mark.parametrize(("load", "has"), [(mnist, "image"), (spoken_digits, "audio")])
def test_a_loader_of_one_modality(load, has):
    views = load_features(load, 50)
    assert {s: [*v["features"]] for s, v in views.items()} == dict.fromkeys(
        views, [has]
    )
    assert [*views["train"]["mask"]] == [has]
    assert views["train"]["mask"][has].all()
    assert len(views["train"]["features"][has]) == 50


# --- batches


def test_views_and_collate_lose_nothing(views):
    view = views["train"]
    batch = collate([Views(view)[i] for i in range(60)])
    for m in MODALITIES:
        assert torch.equal(batch["mask"][m], view["mask"][m])
        assert torch.equal(batch[m], view["features"][m][..., : batch[m].shape[-1]])
    assert torch.equal(batch["label"], view["label"])
    assert len(Views(view)) == 60
    assert not view["features"]["text"][:, batch["text"].shape[1] :].any()


def test_an_example_holds_what_is_there(views):
    view = views["train"]
    for i in range(20):
        here = {m for m in MODALITIES if view["mask"][m][i]}
        example = Views(view)[i]
        assert set(example) == {*here, "label"}
        if "text" in here:
            words = view["features"]["text"][i]
            assert example["text"].tolist() == words[: len(example["text"])].tolist()
            assert (example["text"] > 0).all()


example = st.fixed_dictionaries(
    {"label": st.integers(0, 9)},
    optional={
        "text": st.lists(st.integers(1, 9), max_size=4).map(torch.tensor),
        "image": st.floats(-9, 9, width=32).map(lambda v: torch.full((1, 28, 28), v)),
        "audio": st.floats(-59, 0, width=32).map(lambda v: torch.full((20, 51), v)),
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(example, min_size=1, max_size=4))
def test_collate_holds_what_came_and_nothing_else(examples):
    batch = collate(examples)
    for i, e in enumerate(examples):
        words = e.get("text", torch.tensor([]))
        assert batch["text"][i, : len(words)].tolist() == words.tolist()
        assert not batch["text"][i, len(words) :].any()
        for m, nothing in NOTHING.items():
            assert torch.equal(batch[m][i], e.get(m, nothing))
        assert [bool(batch["mask"][m][i]) for m in MODALITIES] == [
            m in e for m in MODALITIES
        ]
        assert batch["label"][i] == e["label"]


def test_nothing_is_what_the_features_of_nothing_are():
    nothing = preprocess_data({"text": ["odd"]})
    _, image, audio = extract_features(nothing)
    assert torch.equal(image[0], NOTHING["image"])
    assert torch.equal(audio[0], NOTHING["audio"])


def test_collate_does_not_touch_what_came():
    image = torch.ones(1, 28, 28)
    batch = collate([{"image": image, "label": 1}, {"label": 2}])
    batch["image"] += 1
    assert (image == 1).all()
    assert not NOTHING["image"].any()


def order(view, **options):
    batches = list(view_loader(Views(view), 7, **options))
    assert [len(b["label"]) for b in batches] == [7] * 8 + [4]
    return torch.cat([b["image"].sum((1, 2, 3)) for b in batches])


def test_loader_same_seed_same_batches(views):
    view = views["train"]
    in_order = view["features"]["image"].sum((1, 2, 3))
    assert torch.equal(order(view), in_order)
    torch.manual_seed(5)
    one = order(view, shuffle=True, seed=1)
    torch.manual_seed(6)
    assert torch.equal(one, order(view, shuffle=True, seed=1))
    assert not torch.equal(one, order(view, shuffle=True, seed=2))
    assert not torch.equal(one, in_order)
    torch.testing.assert_close(one.sort().values, in_order.sort().values)


def test_loader_defaults(views):
    view = {
        k: {m: x.repeat_interleave(3, 0) for m, x in views["train"][k].items()}
        for k in ("features", "mask")
    }
    view["label"] = torch.arange(180)
    default = [b["label"] for b in view_loader(Views(view), shuffle=True)]
    assert [len(y) for y in default] == [64, 64, 52]
    same = view_loader(Views(view), 64, shuffle=True, seed=0)
    assert torch.equal(torch.cat(default), torch.cat([b["label"] for b in same]))
