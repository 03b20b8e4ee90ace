"""The pipeline: what may come in, where statistics come from, and that batches hold what the examples held."""

import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils.data import DataLoader

from mmcourse.datasets import MODALITIES, three_views
from mmcourse.pipeline import (
    CLIP,
    SHAPES,
    Views,
    collate,
    columns,
    fit_stats,
    normalize_data,
    preprocess_data,
    view_loader,
)

REFUSED = ValueError, TypeError, FileNotFoundError
rng = np.random.default_rng(0)


def refused(function, *args, error=REFUSED, name, **kwargs):
    "The message; it must begin with the argument's name, be one line and say what came."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert (
        message.startswith(name)
        and "\n" not in message
        and re.search("expected .*got|found none", message)
    ), message
    return message


@pytest.fixture(scope="module")
def raw():
    return three_views("train", 60, present={"text": 0.7, "image": 0.7, "audio": 0.7})


@pytest.fixture(scope="module")
def train(raw):
    return preprocess_data(raw)


# --- columns


@pytest.mark.parametrize("data", [None, [], "odd", 3, [{"text": "odd"}]])
def test_data_is_a_dict(data):
    refused(columns, data, error=TypeError, name="data")


def test_unknown_keys():
    assert "txt" in refused(columns, {"txt": ["odd"]}, error=ValueError, name="data")


def test_keys_that_are_no_strings():
    refused(columns, {3: ["odd"], "text": ["odd"]}, error=ValueError, name="data")


def test_nothing_at_all():
    for data in ({}, {"text": None}, {"label": [1]}):
        refused(columns, data, error=ValueError, name="data")


def test_unequal_columns():
    refused(columns, {"text": ["odd"], "image": [1, 2]}, error=ValueError, name="data")


def test_an_empty_column():
    refused(columns, {"text": []}, error=ValueError, name="text")


def test_a_string_is_no_column():
    refused(columns, {"text": "odd"}, error=TypeError, name="text")


@pytest.mark.parametrize(
    "length", [[1.5], [-1], [1, 2], "x", [[1]], [None], [float("nan")]]
)
def test_bad_lengths(length):
    refused(columns, {"audio": [np.zeros(9)], "length": length}, name="length")


@pytest.mark.parametrize(
    "present",
    [[[True, True]], [True] * 3, "yes", [[0.5, 1.0, 1.0]], np.ones((2, 3), bool)],
)
def test_bad_presence(present):
    refused(columns, {"text": ["odd"], "present": present}, name="present")


def test_length_cuts_and_present_hides():
    got = columns(
        {
            "text": ["a", "b"],
            "audio": np.ones((2, 9)),
            "length": [3, 9],
            "present": [[True, True, True], [False, True, False]],
        }
    )
    assert (
        got["text"] == ["a", None]
        and len(got["audio"][0]) == 3
        and got["audio"][1] is None
        and got["image"] == [None, None]
    )


# --- statistics


def test_statistics_ignore_what_is_missing(train, raw):
    for j, m in enumerate(MODALITIES):
        assert (train["mask"][m] == raw["present"][:, j]).all()
    image = train["image"][train["mask"]["image"]]
    assert abs(image.mean()) < 1e-4 and abs(image.std() - 1) < 1e-3
    assert (
        not train["image"][~train["mask"]["image"]].any()
        and not train["audio"][~train["mask"]["audio"]].any()
    )
    assert all(
        not w for w, here in zip(train["text"], train["mask"]["text"]) if not here
    )


def test_statistics_are_handed_on_untouched(train):
    before = repr(train["stats"])
    held = preprocess_data(three_views("test", 20, seed=3), train["stats"])
    assert held["stats"] is train["stats"] and repr(train["stats"]) == before
    other = preprocess_data(three_views("test", 20, seed=3))
    assert other["stats"]["image"] != train["stats"]["image"] and not np.allclose(
        held["image"], other["image"]
    )


def test_one_example_does_not_depend_on_its_company(train):
    some = three_views("test", 12)
    some = {k: some[k] for k in ("text", "image", "audio", "length")}
    together = preprocess_data(some, train["stats"])
    for i in range(12):
        alone = preprocess_data(
            {k: v[i : i + 1] for k, v in some.items()}, train["stats"]
        )
        assert (
            alone["text"][0] == together["text"][i]
            and np.array_equal(alone["image"][0], together["image"][i])
            and np.array_equal(alone["audio"][0], together["audio"][i])
        )


def test_a_word_needs_two_examples(train):
    texts = [["odd"], ["odd", "odd"], ["even", "even"], []]
    data = {
        "text": texts,
        "image": np.zeros((4, 28, 28), np.float32),
        "audio": np.zeros((4, 8), np.float32),
        "mask": {m: np.zeros(4, bool) for m in MODALITIES},
    }
    assert fit_stats(data) == {
        "image": (0.0, 1.0),
        "audio": (0.0, 1.0),
        "grams": {"odd": 1},
    }


def test_normalising_is_undone_by_its_own_statistics(raw):
    clean = preprocess_data(
        raw, {"image": (0.0, 1.0), "audio": (0.0, 1.0), "grams": {}}
    )
    scaled = normalize_data(clean)
    m, d = scaled["stats"]["image"]
    here = clean["mask"]["image"]
    assert np.allclose(scaled["image"][here] * d + m, clean["image"][here], atol=1e-5)


# --- batches


def test_views_and_collate_lose_nothing(train, raw):
    views = Views(train, raw["label"])
    batch = collate([views[i] for i in range(len(views))])
    known = train["stats"]["grams"]
    for m in MODALITIES:
        assert (batch["mask"][m].numpy() == train["mask"][m]).all()
    for m in SHAPES:
        assert np.array_equal(batch[m].numpy(), train[m])
    assert (
        batch["label"].tolist() == raw["label"].tolist()
        and batch["text"].dtype == torch.int64
        and int(batch["text"].max()) <= len(known)
    )
    assert all(
        ((batch["text"][i] > 0).sum() > 0) == train["mask"]["text"][i]
        for i in range(60)
    )


@st.composite
def example(draw):
    e = {}
    if draw(st.booleans()):
        e["text"] = draw(st.lists(st.integers(1, 9), max_size=4))
    if draw(st.booleans()):
        e["image"] = draw(
            hnp.arrays(np.float32, (2, 2), elements=st.floats(-9, 9, width=32))
        )
    if draw(st.booleans()):
        e["audio"] = draw(
            hnp.arrays(np.float32, 3, elements=st.floats(-9, 9, width=32))
        )
    return e


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(example(), min_size=1, max_size=4))
def test_collate_holds_what_came_and_zeros(examples):
    batch = collate(examples)
    for i, e in enumerate(examples):
        for m in MODALITIES:
            assert bool(batch["mask"][m][i]) == (m in e)
        assert (
            batch["text"][i].tolist()[: len(e.get("text", []))] == e.get("text", [])
            and not batch["text"][i, len(e.get("text", [])) :].any()
        )
        for m in SHAPES:
            assert (
                np.array_equal(batch[m][i], e[m]) if m in e else not batch[m][i].any()
            )


def test_collate_does_not_touch_what_came():
    image = np.ones((28, 28), np.float32)
    batch = collate([{"image": image}, {}])
    batch["image"] += 1
    assert (image == 1).all()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=2)), max_size=3),
    hnp.arrays(
        st.sampled_from([np.float32, np.int64, np.uint8, bool, "U2"]),
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=3),
    ),
)


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        JUNK,
        st.lists(
            st.one_of(
                JUNK,
                st.dictionaries(
                    st.sampled_from([*MODALITIES, "label", "x"]), JUNK, max_size=3
                ),
            ),
            max_size=3,
        ),
    )
)
def test_fuzz_collate(examples):
    try:
        batch = collate(examples)
    except (ValueError, TypeError) as e:
        assert "\n" not in str(e) and str(e)
    else:
        assert len(batch["text"]) == len(examples) and batch["text"].ndim == 2


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        JUNK,
        st.dictionaries(
            st.sampled_from([*MODALITIES, "length", "label", "present", "x"]),
            JUNK,
            max_size=4,
        ),
    )
)
def test_fuzz_preprocess_data(data):
    try:
        got = preprocess_data(data)
    except REFUSED as e:
        assert "\n" not in str(e) and str(e)
    else:
        assert (
            len(got["text"]) == len(got["image"]) == len(got["audio"])
            and np.isfinite(got["image"]).all()
            and np.isfinite(got["audio"]).all()
        )


@st.composite
def cleaned(draw):  # mostly what `normalize_data` takes, with a fault now and then
    n = draw(st.integers(0, 3))
    good = {
        "text": [["odd"]] * n,
        "image": np.ones((n, 2, 2), np.float32),
        "audio": np.ones((n, 3), np.float32),
        "mask": {m: draw(hnp.arrays(bool, n)) for m in MODALITIES},
    }
    return good | draw(
        st.dictionaries(
            st.sampled_from(["text", "image", "audio", "mask"]), JUNK, max_size=1
        )
    )


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(JUNK, cleaned()),
    st.one_of(
        st.none(),
        JUNK,
        st.fixed_dictionaries(
            {"image": JUNK, "audio": st.just((0.0, 1.0)), "grams": st.just({})}
        ),
    ),
)
def test_fuzz_normalize_data(data, stats):
    try:
        got = normalize_data(data, stats)
    except REFUSED as e:
        assert "\n" not in str(e) and str(e)
    else:
        for m in SHAPES:
            assert np.isfinite(got[m]).all() and not got[m][~got["mask"][m]].any()


def test_data_without_any_spread_is_not_divided_by_zero():
    flat = {
        "text": [[], []],
        "image": np.full((2, 2, 2), 0.5, np.float32),
        "audio": np.zeros((2, 3), np.float32),
        "mask": {m: np.ones(2, bool) for m in MODALITIES},
    }
    assert not normalize_data(flat)["image"].any() and fit_stats(flat)["audio"] == (
        0.0,
        1.0,
    )


def test_collate_refuses_by_name():
    refused(collate, [], error=ValueError, name="examples")
    refused(collate, {"text": [1]}, error=TypeError, name="examples")
    refused(collate, [{"text": [1]}, None], error=TypeError, name="examples[1]")
    refused(collate, [{"txt": [1]}], error=ValueError, name="examples[0]")
    refused(
        collate,
        [{"image": np.ones((2, 2))}, {"image": np.ones((2, 3))}],
        error=ValueError,
        name="image",
    )
    refused(
        collate, [{"image": [np.nan]}], error=ValueError, name="examples[0]['image']"
    )
    refused(
        collate,
        [{"text": [1], "label": 3}, {"text": [1]}],
        error=ValueError,
        name="label",
    )
    for label in ("three", None, 2.5, True, 2**70):
        refused(
            collate,
            [{"text": [1], "label": label}],
            error=TypeError,
            name="examples[0]['label']",
        )
    for text in ("odd", 3, None):
        refused(
            collate, [{}, {"text": text}], error=TypeError, name="examples[1]['text']"
        )


def test_loader_same_seed_same_batches(train, raw):
    views = Views(train, raw["label"])

    def order(**kw):
        return torch.cat([b["label"] for b in view_loader(views, 7, **kw)]).tolist()

    assert order() == raw["label"].tolist() and isinstance(
        view_loader(views), DataLoader
    )
    assert (
        order(shuffle=True, seed=1)
        == order(shuffle=True, seed=1)
        != order(shuffle=True, seed=2)
    )
    torch.manual_seed(5)
    a = order(shuffle=True, seed=1)
    torch.manual_seed(6)
    assert a == order(shuffle=True, seed=1) and sorted(a) == sorted(
        raw["label"].tolist()
    )


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, "8"])
def test_loader_batch_size(train, size):
    refused(view_loader, Views(train), size, error=ValueError, name="batch_size")


def test_views_of_unequal_length(train):
    refused(Views, train, [1, 2], error=ValueError, name="data")


def test_no_labels(train):
    assert "label" not in Views(train)[0] and "label" not in next(
        iter(view_loader(Views(train)))
    )


def test_a_batch_of_nothing():
    assert collate([{}, {}])["audio"].shape == (2, CLIP) and not any(
        v.any() for v in collate([{}])["mask"].values()
    )
