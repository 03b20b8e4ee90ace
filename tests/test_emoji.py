"The compositional split, the pictures, and the cache that keeps them."

import io
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import emoji as E


def compositional(names, picture, split):
    train = {w for n, s in zip(names, split) if s == "train" for w in E.name_words(n)}
    held = [n for n, s in zip(names, split) if s != "train"]
    one_side = all(len({*split[picture == p]}) == 1 for p in {*picture})
    return one_side and all({*E.name_words(n)} <= train for n in held)


def test_name_words():
    words = ["flag", "côte", "d’ivoire", "a"]
    assert E.name_words("Flag: Côte d’Ivoire (A)!") == words


words = st.sampled_from(["red", "green", "apple", "heart", "Big", "flag", "(A)"])
names = st.lists(words, min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.tuples(names, st.integers(0, 12)), min_size=1, max_size=60))
@settings(deadline=None)
def test_hold_out_is_compositional(items):
    names, picture = [n for n, _ in items], np.array([p for _, p in items])
    split = E.hold_out(names, picture)
    assert compositional(names, picture, split)
    assert (split == "test").sum() <= len(names) // 5
    assert (split == "valid").sum() <= len(names) // 10
    assert np.array_equal(split, E.hold_out(names, picture))


def test_hold_out_fills_its_room():
    "Where every word comes often, a fifth and a tenth are held out; single words stay."
    names = [f"{a} {b}" for a in "abcdefgh" for b in "ABCDEFGHIJ"] + ["a", "b"]
    split = E.hold_out(names, np.arange(82))
    assert Counter(split) == {"train": 58, "test": 16, "valid": 8}
    assert (split[-2:] == "train").all()


@pytest.mark.parametrize("size, limit", [(8, 3), (32, 12), (64, 24)])
def test_twins_are_pictures_that_differ_by_a_hair(size, limit):
    shape = 6, size, size, 3
    image = np.random.default_rng(0).integers(30, 220, shape, np.uint8)
    image[3:] = image[[1, 0, 1]]
    image[3, 2, 2] += 1
    image[3, 0, 0, 0] -= limit
    image[4, 0, 0, 0] += limit + 1
    twins = E._twins(image)
    assert twins[3] == twins[1] == twins[5] and len({*twins}) == 4


def test_chains_of_twins_are_one_drawing():
    image = np.full((3, 32, 32, 3), 100, np.uint8)
    image[1, 0, 0], image[2, 0, 0] = 110, 120
    assert len({*E._twins(image)}) == 1


# --- pictures and their cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    E._emoji_pictures.cache_clear()
    yield tmp_path / "cache"
    E._emoji_pictures.cache_clear()


@pytest.fixture(scope="module")
def drawn():
    "Draw once for all tests."
    return E._draw_emoji(16, list(E._emoji_names(("en",))))


@pytest.fixture
def counted(cache, drawn, monkeypatch):
    "The sizes for which pictures were drawn."
    sizes = []

    def draw(size, characters):
        sizes.append(size)
        return drawn

    monkeypatch.setattr(E, "_draw_emoji", draw)
    return sizes


def same_pictures(a, b):
    keys = ("image", "emoji", "split", "picture")
    return all(np.array_equal(a[k], b[k]) for k in keys)


def test_emoji(counted):
    e = E.emoji(16)
    n = len(e["image"])
    assert 3500 < n < 4500 and e["image"].shape == (n, 16, 16, 3)
    assert e["image"].dtype == np.float32 and e["image"].max() == 1
    assert (e["image"][:, 0, 0] == 1).mean() > 0.95  # on white
    assert [*e["name"]] == ["en", "zh"] and len({*e["emoji"]}) == n
    assert all(len(v) == n and all(v) for v in e["name"].values())
    counts = Counter(e["split"])
    assert counts["test"] > 0.15 * n and counts["valid"] > 0.07 * n
    assert compositional(e["name"]["en"], e["picture"], e["split"])


def test_no_held_out_picture_was_learnt(counted):
    "The law that the split is for, asked of the pictures themselves."
    e = E.emoji(16)
    image = torch.as_tensor(255 * e["image"]).flatten(1)
    test = torch.as_tensor(e["split"] == "test")
    far = torch.cdist(image[test], image[~test], p=torch.inf)
    assert far.min() > 6.5
    twins = (e["picture"][:, None] == e["picture"]).sum(1) > 1
    assert 300 < twins.sum() < 500


def test_a_pilot_and_a_man_pilot_are_one_drawing(counted):
    e = E.emoji(16)
    number = dict(zip(e["name"]["en"], e["picture"].tolist()))
    assert number["pilot"] == number["man pilot"] != number["woman pilot"]


def test_each_name_has_its_picture(counted):
    e = E.emoji(16)
    at = {c: i for i, c in enumerate(e["emoji"])}
    assert e["name"]["en"][at["🍎"]] == "red apple"
    assert "苹果" in e["name"]["zh"][at["🍎"]]
    red, green = (e["image"][at[c]].mean((0, 1)) for c in "🍎🍏")
    assert red[0] - red[1] > 0.1 and green[1] - green[0] > 0.02


def test_emoji_is_drawn_once(counted, cache):
    a = E.emoji(16, ["en"])
    E._emoji_pictures.cache_clear()
    b = E.emoji(16, ["ja"])
    assert counted == [16] and same_pictures(a, b)
    assert len(list(cache.glob("emoji-16-*.npz"))) == 1
    assert sum(map(bool, b["name"]["ja"])) > 0.9 * len(b["emoji"])


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "no zip", "lacking"])
def test_a_damaged_cache_is_drawn_again(counted, cache, how):
    good = E.emoji(16, ["en"])
    (path,) = cache.glob("emoji-16-*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    lacking = io.BytesIO()
    np.savez(lacking, image=good["image"])
    bad = {"flipped": content, "truncated": content[:5000], "empty": b""}
    bad |= {"no zip": b"hello", "lacking": lacking.getvalue()}
    path.write_bytes(bad[how])
    for _ in range(2):  # drawn, then whole again
        E._emoji_pictures.cache_clear()
        assert same_pictures(good, E.emoji(16, ["en"]))
    assert counted == [16, 16]


def test_pictures_of_another_font_are_noticed(counted, cache):
    "A cached file whose pictures do not fit its digest counts as damaged."
    good = E.emoji(16, ["en"])
    (path,) = cache.glob("emoji-16-*.npz")
    arrays = dict(np.load(path))
    arrays["image"] = arrays["image"][::-1]
    np.savez(path, **arrays)
    E._emoji_pictures.cache_clear()
    assert same_pictures(good, E.emoji(16, ["en"])) and counted == [16, 16]


def test_without_a_cache(counted, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "file" / "cache"))
    assert len(E.emoji(16, ["en"])["image"]) > 3500


def test_without_raqm(cache, monkeypatch):
    from PIL import features

    monkeypatch.setattr(features, "check", lambda name: name != "raqm")
    with pytest.raises(RuntimeError, match="raqm"):
        E.emoji(16)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"size": 4}, "size: expected a whole number from 8 to 256, got 4"),
        ({"size": 1000}, "size: expected a whole number from 8 to 256"),
        ({"languages": ["en", "tlh"]}, "languages: expected one of .*got 'tlh'"),
        ({"languages": "zh"}, "languages: expected one of .*got 'z'"),
    ],
)
def test_refusals(counted, arguments, says):
    with pytest.raises(ValueError, match=says):
        E.emoji(**arguments)
