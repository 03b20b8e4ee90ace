"Scenes: what is asked is answered by what is there, and by nothing else."

from collections import Counter, defaultdict

import numpy as np
import pytest

from mmcourse.scenes import (
    COUNTS,
    DIGIT_THINGS,
    EMOJI,
    EMOJI_THINGS,
    KINDS,
    WORDS,
    Thing,
    caption,
    decode,
    draw,
    encode,
    held_out,
    held_out_pair,
    make_scenes,
    told,
)


@pytest.fixture(scope="module", params=[False, True], ids=["seen", "held out"])
def many(request):
    return request.param, make_scenes(1200, "test", held=request.param, seed=7)


def rows(scenes, kind):
    keys = "question", "answer", "things"
    return [
        [scenes[k][i] for k in keys]
        for i in range(len(scenes["kind"]))
        if scenes["kind"][i] == kind
    ]


def named(question):
    "The names after an article."
    words = question.split()
    parts = [i + 1 for i, w in enumerate(words) if w in ("a", "an", "the")]
    return [
        words[i] if words[i] in EMOJI else " ".join(words[i : i + 2]) for i in parts
    ]


# answers
def test_answers_are_true(many):
    _, scenes = many
    for question, answer, things in rows(scenes, "count"):
        assert answer == COUNTS[len(things) - 1] and "how many" in question
    for question, answer, things in rows(scenes, "exists"):
        assert (named(question)[0] in {t.name for t in things}) == (answer == "yes")
    for question, answer, things in rows(scenes, "colour"):
        (found,) = [t for t in things if t.word == question.split()[-2]]
        assert found.colour == answer
    for question, answer, things in rows(scenes, "digit"):
        (found,) = [t for t in things if t.colour == question.split()[-2]]
        assert found.word == answer
    for kind, axis in (("left", "column"), ("above", "row")):
        for question, answer, things in rows(scenes, kind):
            at = {t.name: getattr(t, axis) for t in things}
            a, b = (at[name] for name in named(question))
            assert a != b and (a < b) == (answer == "yes")


def test_things_are_one_to_four_and_each_has_its_cell(many):
    _, scenes = many
    for things in scenes["things"]:
        assert 1 <= len(things) <= 4
        assert len({t.name for t in things}) == len(things)
        assert len({(t.row, t.column) for t in things}) == len(things)
        assert {t.row for t in things} | {t.column for t in things} <= {0, 1, 2}


# what is held out
def test_training_neither_shows_nor_asks_for_what_is_held_out():
    scenes = make_scenes(1200, "train", seed=3)
    away = {t.name for t in DIGIT_THINGS if held_out(t)}
    assert len(away) == 12 and len({n.split()[0] for n in away}) == 6
    for question, things in zip(scenes["question"], scenes["things"]):
        assert not away & {t.name for t in things}
        assert not away & set(named(question))
    for kind in ("left", "above"):
        for question, _, things in rows(scenes, kind):
            of = {t.name: t for t in things}
            assert not held_out_pair(*[of[n] for n in named(question)])


def test_the_held_out_part_asks_for_nothing_else():
    scenes = make_scenes(600, "test", held=True, seed=3)
    away = {t.name for t in DIGIT_THINGS if held_out(t)}
    for question, _, _ in rows(scenes, "exists"):
        assert named(question)[0] in away
    for kind in ("count", "colour", "digit"):
        assert all(
            away & {t.name for t in things} for _, _, things in rows(scenes, kind)
        )
    for kind in ("left", "above"):
        for question, _, things in rows(scenes, kind):
            of = {t.name: t for t in things}
            assert held_out_pair(*[of[n] for n in named(question)])


def test_pairs_are_held_out_in_either_order():
    things = [Thing("3", "red"), Thing("8", "blue"), *EMOJI_THINGS]
    pairs = [(a, b) for a in things for b in things if a.word != b.word]
    assert all(held_out_pair(a, b) == held_out_pair(b, a) for a, b in pairs)
    assert 0.1 < np.mean([held_out_pair(a, b) for a, b in pairs]) < 0.3


# words alone say nothing
@pytest.mark.parametrize("held", [False, True])
def test_yes_is_as_frequent_as_no_whatever_is_asked(held):
    kinds = ("exists", "left", "above")
    scenes = make_scenes(3000, "valid", held=held, kinds=kinds, seed=1)
    for kind in kinds:
        yes = [answer == "yes" for _, answer, _ in rows(scenes, kind)]
        assert abs(np.mean(yes) - 0.5) < 0.06
    # a rule on the words, learnt from one half, is worth nothing on the other
    votes = defaultdict(Counter)
    for i in range(0, 3000, 2):
        votes[scenes["question"][i]][scenes["answer"][i]] += 1
    hits = []
    for i in range(1, 3000, 2):
        seen = votes[scenes["question"][i]]
        guess = seen.most_common(1)[0][0] if seen else "yes"
        hits.append(guess == scenes["answer"][i])
    assert abs(np.mean(hits) - 0.5) < 0.06


def test_neither_number_nor_kin_betrays_that_something_is_there():
    "Scenes with the thing and without have as many things, and as many near misses."
    scenes = make_scenes(3000, "valid", kinds=("exists",), seed=2)
    size, kin = defaultdict(list), defaultdict(list)
    for question, answer, things in rows(scenes, "exists"):
        name = named(question)[0].split()
        if len(name) < 2:
            continue
        others = [t for t in things if t.name != " ".join(name)]
        size[answer].append(len(things))
        if len(things) > 1:
            near = [t.word == name[1] or t.colour == name[0] for t in others]
            kin[answer].append(np.mean(near))
    assert abs(np.mean(size["yes"]) - np.mean(size["no"])) < 0.15
    assert abs(np.mean(kin["yes"]) - np.mean(kin["no"])) < 0.06
    assert np.mean(kin["no"]) > 0.4


def test_counts_come_alike():
    scenes = make_scenes(2000, kinds=("count",), seed=4)
    assert all(abs(n / 2000 - 0.25) < 0.04 for n in Counter(scenes["answer"]).values())


# words
def test_everything_said_has_its_words():
    assert len(set(WORDS)) == len(WORDS)
    for held in (False, True):
        scenes = make_scenes(300, held=held, seed=5)
        for k in ("question", "answer", "caption", "told"):
            for text in scenes[k]:
                assert decode(encode(text)) == text
    with pytest.raises(ValueError, match="text: expected one of"):
        encode("is there a zebra ?")


def test_tellings_by_hand():
    things = [
        Thing("3", "orange", 2, 1),
        Thing("dog", "", 0, 1),
        Thing("7", "red", 1, 0),
    ]
    assert caption(things) == "a red 7 and a dog and an orange 3"
    wanted = "red 7 middle leftmost ; dog high central ; orange 3 low central ;"
    assert told(things) == wanted


# pictures
def test_a_thing_is_drawn_in_its_cell_and_colour():
    rng = np.random.default_rng(0)
    x = draw([Thing("8", "red", 2, 0), Thing("sun", "", 0, 1)], "train", rng)
    assert x.shape == (3, 48, 48) and x.dtype == np.float32
    assert x.min() >= 0 and x.max() <= 1
    inked = (x < 0.99).any(0).reshape(3, 16, 3, 16).any((1, 3))
    assert inked.tolist() == [[False, True, False], [False] * 3, [True, False, False]]
    digit = x[:, 32:, :16]
    assert digit[0].mean() > digit[1].mean() == pytest.approx(digit[2].mean(), abs=1e-6)


def test_the_same_seed_makes_the_same_scenes():
    one, same, other = [make_scenes(12, seed=s) for s in (1, 1, 2)]
    assert one["question"] == same["question"] != other["question"]
    assert np.array_equal(one["image"], same["image"])
    assert one["kind"] == KINDS * 2
    assert make_scenes(12, "test", seed=1)["question"] != one["question"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": 0}, "n: expected"),
        ({"split": "all"}, "split: expected"),
        ({"kinds": ("smell",)}, "kinds: expected"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_refusals(change, why):
    with pytest.raises(ValueError, match=why):
        make_scenes(**{"n": 1} | change)
