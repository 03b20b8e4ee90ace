"Chapter 22 in miniature: tokens of cells, questions in batches, what ships."

import numpy as np
import pytest
import torch

from mmcourse.bridges import (
    BRIDGES,
    LESSON,
    Answers,
    CellEye,
    after_example,
    answered,
    bridged,
    by_kind,
    cell_labels,
    cells,
    chances_of,
    commonest,
    front_of,
    kept_hits,
    look_quickly,
    measured,
    place_table,
    prompts,
    seen_by,
    shipped_models,
    small_lm,
    train_answers,
    with_example,
    without_binding,
    yes_rates,
)
from mmcourse.measure import seeded
from mmcourse.scenes import KINDS, WORDS, Thing, encode, make_scenes
from mmcourse.store import kept_runs


@pytest.fixture(scope="module")
def shipped():
    return shipped_models()


@pytest.fixture(scope="module")
def exam():
    return make_scenes(240, "valid", seed=3)


@pytest.fixture(scope="module")
def exam_seen(shipped, exam):
    return seen_by(shipped["eye"], exam["image"])


def test_places_are_rows_and_columns():
    table = place_table()
    assert table.shape == (9, 6)
    assert table[5].tolist() == [0, 1, 0, 0, 0, 1]  # row 2, column 3
    assert place_table("numbers")[5].tolist() == [0] * 5 + [1] + [0] * 3
    assert place_table("none").shape == (9, 0)
    with pytest.raises(ValueError, match="kind"):
        place_table("rows")


def test_cells_come_row_by_row_and_paper_is_zero():
    images = torch.ones(2, 3, 48, 48)
    images[1, 0, 16:32, 32:48] = 0.25  # row 2, column 3
    found = cells(images)
    assert found.shape == (18, 3, 16, 16)
    assert found[9 + 5, 0].eq(0.75).all()
    found[9 + 5, 0] = 0
    assert found.eq(0).all()


def test_labels_stand_where_the_things_are():
    things = [[Thing("7", "red", 2, 0), Thing("dog", "", 0, 1)], []]
    word, colour = [x.view(2, 9) for x in cell_labels(things)]
    assert word[0].nonzero().flatten().tolist() == [1, 6]
    assert word[0, 6] == 1 + 7
    assert colour[0].nonzero().flatten().tolist() == [6]
    assert not word[1].any()


def test_the_eye_knows_what_it_sees(shipped, exam, exam_seen):
    word, colour = [x.view(-1, 9) for x in cell_labels(exam["things"])]
    assert (exam_seen[..., :21].argmax(2) == word).float().mean() > 0.97
    assert (exam_seen[..., 21:28].argmax(2) == colour).float().mean() > 0.97
    assert exam_seen[..., 28:].eq(3 * place_table()).all()
    for chances in (exam_seen[..., :21], exam_seen[..., 21:28]):
        torch.testing.assert_close(chances.sum(2), torch.full_like(chances[..., 0], 3))


def test_undrawn_scenes_have_the_tokens_of_drawn_ones(shipped, exam):
    "The emoji are the same pictures everywhere; only the shift is by chance."
    seen = look_quickly(shipped["eye"], exam["things"], copies=3)
    word, colour = [x.view(-1, 9) for x in cell_labels(exam["things"])]
    assert (seen[..., :21].argmax(2) == word).float().mean() > 0.97
    assert (seen[..., 21:28].argmax(2) == colour).float().mean() > 0.97
    again = look_quickly(shipped["eye"], exam["things"], copies=3)
    assert torch.equal(seen, again)
    other = look_quickly(shipped["eye"], exam["things"], copies=3, seed=1)
    assert not torch.equal(seen, other)


def test_prompts_end_at_their_last_word(exam):
    ids, last, answers = prompts(exam, front=2)
    for i, question in enumerate(exam["question"][:6]):
        row = [WORDS.index("<image>")] * 2 + encode(question)
        assert ids[i, : last[i] + 1].tolist() == row
        assert not ids[i, last[i] + 1 :].any()
        assert WORDS[answers[i]] == exam["answer"][i]
    told, last, _ = prompts(exam, told=True)
    row = encode(f"{exam['told'][0]} {exam['question'][0]}")
    assert told[0, : last[0] + 1].tolist() == row


@pytest.mark.parametrize("kind", BRIDGES)
def test_one_question_is_answered_as_in_a_batch(kind, exam):
    with seeded(0):
        model, seen = Answers(bridged(kind, small_lm(), 34)), torch.randn(6, 9, 34)
    ids, last, _ = prompts({k: v[:6] for k, v in exam.items()}, front_of(kind))
    with torch.no_grad():
        if kind == BRIDGES[2]:  # its gates begin shut
            assert torch.equal(*[model((ids, last, s)) for s in (seen, 0 * seen)])
            for block in model.model.bridges:
                block.gate1.fill_(1)
        together = model((ids, last, seen))
        for i in range(6):
            n, s = last[i : i + 1], seen[i : i + 1]
            alone = model((ids[i : i + 1, : n + 1], n, s))
            torch.testing.assert_close(alone, together[i : i + 1])
        changed = model((ids, last, seen.flip(0)))
    assert not torch.allclose(changed, together)


def test_fewer_queries_are_fewer_tokens():
    model = bridged("queries", small_lm(), 34, queries=4)
    assert model.see(torch.randn(2, 9, 34)).shape == (2, 4, 64)
    assert [front_of(k, 4) for k in BRIDGES] == [9, 4, 0]
    with pytest.raises(ValueError, match="kind"):
        bridged("glue", small_lm(), 34)


def test_training_lowers_the_loss_and_repeats(shipped):
    lesson = make_scenes(96, kinds=("count",), drawn=False)
    ids, last, answers = prompts(lesson)
    data = (
        (ids, last, look_quickly(shipped["eye"], lesson["things"], copies=1)),
        answers,
    )

    def trained():
        with seeded(0):
            model = bridged(BRIDGES[2], small_lm(depth=1), 34)
        return train_answers(model, data, updates=40, seed=1)

    one, two = trained(), trained()
    weights = zip(one.parameters(), two.parameters())
    assert all(torch.equal(a, b) for a, b in weights)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(Answers(one)(data[0]), answers)
    assert loss < np.log(4)  # guessing among four


def test_rates_by_hand():
    scenes = {"kind": [*KINDS, "exists", "exists", "count"], "answer": ["no"] * 9}
    scenes["answer"][1] = scenes["answer"][6] = "yes"
    hits = torch.tensor([1, 1, 0, 0, 1, 1, 0, 0, 0], dtype=torch.bool)
    found = by_kind(hits, scenes)
    assert found["count"] == 50
    assert found["exists"] == pytest.approx(100 / 3)
    assert found["left"] == 100
    assert yes_rates(hits, scenes) == (50, 100)  # the one absent thing: yes, wrongly


def test_baselines_by_hand():
    red3, blue3, red5 = Thing("3", "red"), Thing("3", "blue"), Thing("5", "red")
    scenes = {
        "kind": ["exists"] * 4,
        "question": ["is there a red 3 ?"] * 3 + ["is there a dog ?"],
        "answer": ["yes", "no", "no", "no"],
        "things": [[red3], [blue3, red5], [red5], [red5]],
    }
    assert without_binding(scenes).tolist() == [True, False, True, True]
    lesson = {"kind": [*KINDS, "exists", "exists"], "answer": ["yes"] * 6 + ["no"] * 2}
    assert commonest(scenes, lesson).tolist() == [False, True, True, True]


def test_what_was_measured_is_the_mean_of_the_seeds():
    arm = f"full/{BRIDGES[2]}"
    hits, runs = kept_hits(arm, "held-out"), kept_runs("vision_language", arm)
    assert hits.shape == (len(runs), 1200)
    first, second = measured({"a": arm, "b": arm}, "held-out", costs=False)
    assert first["count"] == pytest.approx(
        100 * np.mean([r["held-out"]["count"] for r in runs])
    )
    assert "beside the first" not in first
    assert second["beside the first"].startswith("+0.0")


def test_what_ships_answers(shipped, exam, exam_seen):
    hits = answered(shipped["gated"], BRIDGES[2], exam, exam_seen)
    right = by_kind(hits, exam)
    assert min(right.values()) > 85, right
    there, absent = yes_rates(hits, exam)
    assert there > 80
    assert absent < 15
    held = make_scenes(240, "valid", held=True, seed=4)
    seen = seen_by(shipped["eye"], held["image"])
    right = by_kind(answered(shipped["gated"], BRIDGES[2], held, seen), held)
    assert min(right.values()) > 75, right


def test_without_a_picture_nothing_is_there(shipped, exam):
    paper = seen_by(shipped["eye"], np.ones((1, 3, 48, 48), np.float32))
    for question in ("is there a red 5 ?", "is there a dog ?"):
        assert next(iter(chances_of(shipped["gated"], question, paper))) == "no"
    everything = chances_of(shipped["gated"], "is there a dog ?", paper)
    assert 0.9 < sum(everything.values()) <= 1.00001


def test_an_example_is_another_picture(shipped, exam, exam_seen):
    some, seen = {k: v[:12] for k, v in exam.items()}, exam_seen[:12]
    (ids, last, pictures, looks), answers = with_example(some, seen)
    assert torch.equal(pictures[:, 1], seen)
    assert torch.equal(pictures[7, 0], seen[1])  # six places before, of its kind
    assert some["kind"][7] == some["kind"][1]
    text = f"{some['question'][1]} {some['answer'][1]} {some['question'][7]}"
    assert ids[7, : last[7] + 1].tolist() == encode(text)
    n = len(encode(f"{some['question'][1]} {some['answer'][1]}"))
    assert looks[7, :n].tolist() == [[True, False]] * n
    assert looks[7, n:, 1].all()
    assert not looks[7, n:, 0].any()
    assert WORDS[answers[7]] == some["answer"][7]
    own = with_example(some, seen, own=True)[0][2]
    assert torch.equal(own[:, 0], own[:, 1])
    hits = after_example(shipped["gated"], some, seen)
    with torch.no_grad():
        alone = shipped["gated"](
            ids[7:8, : last[7] + 1], pictures[7:8], looks[7:8, : last[7] + 1]
        )[0, -1].argmax()
    assert bool(hits[7]) == (WORDS[alone] == some["answer"][7])


def test_questions_that_point():
    scenes = make_scenes(60, kinds=("row", "column"), drawn=False, seed=5)
    assert "image" not in scenes
    rows = {"high": 0, "middle": 1, "low": 2}
    columns = {"leftmost": 0, "central": 1, "rightmost": 2}
    asked = zip(scenes["question"], scenes["answer"], scenes["things"])
    for i, (question, answer, things) in enumerate(asked):
        name = question.split(" is the ")[1].removesuffix(" ?")
        (thing,) = [t for t in things if t.name == name]
        at = columns[answer] == thing.column if i % 2 else rows[answer] == thing.row
        assert at
    assert len(set(scenes["answer"])) == 6
    assert set(KINDS) < set(LESSON)


def test_the_eye_wants_scenes():
    with pytest.raises(ValueError, match="pixels"):
        CellEye().states(torch.zeros(1, 3, 32, 32))
