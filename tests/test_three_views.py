"One digit, three ways: what is shared, what is not, and what each knob does."

import hashlib
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.datasets import SPLITS, balanced_labels, mnist, spoken_digits
from mmcourse.hints import candidates, hints
from mmcourse.three_views import three_views

CLEAN = {"image_noise": 0, "shrink": 1, "occlusion": 0, "snr_db": math.inf}


@pytest.fixture(scope="module")
def views():
    return {s: three_views(s) for s in SPLITS}


@pytest.fixture(scope="module")
def clean():
    return {s: three_views(s, **CLEAN) for s in SPLITS}


def test_shapes_and_types(views):
    for s, n in zip(SPLITS, (3500, 500, 1000)):
        v = views[s]
        keys = ["text", "image", "audio", "length", "label", "voice", "present"]
        assert [*v] == keys and all(len(v[k]) == n for k in keys)
        assert v["image"].shape == (n, 28, 28) and v["present"].all()
        assert v["image"].dtype == v["audio"].dtype == np.float32
        assert v["label"].dtype == v["length"].dtype == np.int64
        assert v["image"].min() >= 0 and v["image"].max() <= 1
        assert np.isclose(np.abs(v["audio"]).max(1), 0.9, atol=1e-3).all()
        past = np.arange(v["audio"].shape[1]) >= v["length"][:, None]
        assert not v["audio"][past].any()
        assert np.bincount(v["label"]).tolist() == [n // 10] * 10


def test_the_views_agree_on_the_digit(views, clean):
    for s in SPLITS:
        v, m, said = clean[s], mnist(s), spoken_digits(s)
        for text, label in zip(v["text"], v["label"]):
            assert label in candidates(text), text
        known = {x.tobytes(): d for x, d in zip(m["image"], m["label"])}
        assert [known[x.tobytes()] for x in v["image"]] == v["label"].tolist()
        keys = zip(said["voice"], said["label"], said["length"])
        assert {*zip(v["voice"], v["label"], v["length"])} <= {*keys}
        assert np.array_equal(v["label"], views[s]["label"])


def test_nothing_is_shared_between_splits(views, clean):
    for s, t in combinations(SPLITS, 2):
        assert not {*views[s]["voice"]} & {*views[t]["voice"]}
        lower = [{x.lower() for x in views[k]["text"]} for k in (s, t)]
        assert not lower[0] & lower[1]
        pictures = [{x.tobytes() for x in clean[k]["image"]} for k in (s, t)]
        assert not pictures[0] & pictures[1]


def test_every_picture_comes_once(clean):
    for s in SPLITS:
        ours = sorted(x.tobytes() for x in clean[s]["image"])
        assert ours == sorted(x.tobytes() for x in mnist(s)["image"])


def test_no_clip_comes_twice_before_all_came_once():
    v = three_views("valid", 300, **CLEAN)  # 30 clips of each digit
    assert len({x.tobytes() for x in v["audio"]}) == 300
    v = three_views("valid", 1200, image_noise=0)
    assert len(v["text"]) == 1200 and len({x.tobytes() for x in v["audio"]}) == 1200


def test_the_clip_is_the_voice_saying_the_digit(clean):
    v, said = clean["test"], spoken_digits("test")
    unit = said["audio"] / np.abs(said["audio"]).max(1, keepdims=True)
    for i in range(0, 1000, 20):
        could = (said["voice"] == v["voice"][i]) & (said["label"] == v["label"][i])
        off = np.abs(unit[could] - v["audio"][i] / 0.9).max(1)
        assert off.min() < 1e-4


def test_the_text_is_a_hint_of_the_split():
    "The labels and the sentences come from the same dice as in `hints`."
    v = three_views("test", 50, seed=3)
    assert np.array_equal(v["label"], balanced_labels("test", 50, 3)[0])
    assert np.array_equal(v["label"], hints("test", 50, 3)["label"])


@given(st.sampled_from(SPLITS), st.integers(1, 25), st.integers(0, 10**9))
@settings(deadline=None, max_examples=8)
def test_the_same_seed_gives_the_same_examples(split, n, seed):
    a, b = three_views(split, n, seed), three_views(split, n, seed)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    other = three_views(split, n, seed + 1)
    assert (a["image"] != other["image"]).any()


def test_the_examples_do_not_move(views):
    "Shipped weights were trained on these; pictures and sounds may differ by rounding."
    v = views["test"]
    parts = [*v["text"], *v["voice"], str(v["label"].tolist())]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    assert digest[:16] == "78ffe8b0b06b36df"
    assert np.isclose(v["image"].mean(), 0.315011, atol=1e-6)
    assert np.isclose(np.abs(v["audio"]).mean(), 0.037416, atol=1e-6)


# --- the knobs


@pytest.mark.parametrize("snr", [-10, 3, 20])
def test_snr(clean, snr):
    noisy = three_views("valid", snr_db=snr)
    for i in range(0, 500, 10):
        n = noisy["length"][i]
        x, y = (d["audio"][i, :n].astype(float) for d in (clean["valid"], noisy))
        # y = g (x + noise); over a short clip noise and x are not quite orthogonal
        g = (x @ y) / (x @ x)
        off = y - g * x
        assert abs(10 * np.log10(g * g * (x @ x) / (off @ off)) - snr) < 3


def test_each_knob_alone(clean):
    x = clean["valid"]["image"]
    y = three_views("valid", **{**CLEAN, "image_noise": 0.1})["image"]
    inner = (x > 0.3) & (x < 0.7)  # where clipping does not bite
    assert abs((y - x)[inner].std() - 0.1) < 0.005
    y = three_views("valid", **{**CLEAN, "shrink": 4})["image"]
    blocks = x.reshape(-1, 7, 4, 7, 4).mean((2, 4))
    assert np.allclose(y[:, ::4, ::4], blocks, atol=1e-6)
    y = three_views("valid", **{**CLEAN, "occlusion": 0.5})["image"]
    bars = np.maximum((y == 0.5).all(1).sum(1), (y == 0.5).all(2).sum(1))
    assert (bars == 14).all()


def test_every_size_of_block():
    for k in (1, 2, 4, 7, 14, 28):
        y = three_views("valid", 3, **{**CLEAN, "shrink": k})["image"]
        assert np.array_equal(y, y[:, ::k, ::k].repeat(k, 1).repeat(k, 2))


def test_present():
    full = three_views("valid", 400)
    v = three_views("valid", 400, present={"audio": 0.5, "text": 0.7})
    here = v["present"]
    assert here[:, 1].all() and np.array_equal(v["image"], full["image"])
    assert abs(here[:, 2].mean() - 0.5) < 0.1 and abs(here[:, 0].mean() - 0.7) < 0.1
    assert np.array_equal(v["audio"].any(1), here[:, 2])
    assert np.array_equal(v["audio"][here[:, 2]], full["audio"][here[:, 2]])
    assert np.array_equal(v["length"], full["length"] * here[:, 2])
    assert v["text"] == [t if k else "" for t, k in zip(full["text"], here[:, 0])]
    blind = three_views("valid", 50, present={"image": 0})
    assert not blind["image"].any() and not blind["present"][:, 1].any()


def test_one_view_is_always_there():
    chances = {"text": 0.01, "image": 0, "audio": 0.01}
    here = three_views("valid", 300, present=chances)["present"]
    assert (here.sum(1) >= 1).all() and not here[:, 1].any()
    assert abs(here[:, 0].mean() - 0.5) < 0.1


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"split": "dev"}, r"split: expected one of .*got 'dev'"),
        ({"n": 0}, "n: expected a whole number from 1, got 0"),
        ({"seed": -1}, "seed: expected a whole number from 0, got -1"),
        ({"shrink": 3}, r"shrink: expected one of .*got 3"),
        ({"image_noise": -1}, "image_noise: expected a number from 0 to 100"),
        ({"image_noise": math.nan}, "image_noise: expected a finite number"),
        ({"occlusion": 1.1}, "occlusion: expected a number from 0 to 1"),
        ({"snr_db": -math.inf}, "snr_db: expected a finite number"),
        ({"present": {"video": 1}}, "present: expected one of .*got 'video'"),
        ({"present": {"text": 2}}, r"present\['text'\]: expected a number from 0 to 1"),
        ({"present": dict.fromkeys(("text", "image", "audio"), 0)}, "above zero"),
    ],
)
def test_refusals(arguments, says):
    with pytest.raises(ValueError, match=says):
        three_views(**arguments)
