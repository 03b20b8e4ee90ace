"Chapter 28: the table says what it may, counts equal what is built and measured."

import copy
import math
import re
from datetime import date
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.explorables import memory_slider
from mmcourse.field_guide import (
    above_guessing,
    block_weights,
    bytes_needed,
    cache_bytes,
    choose,
    cider,
    count_weights,
    eye_flops,
    late_score,
    matrices,
    overlap,
    read_configs,
    read_guide,
    vqa_accuracy,
    word_flops,
    word_runs,
)
from mmcourse.guide_tools import (
    count_ends,
    family_rows,
    half_years,
    library_shelf,
    names_below,
)
from mmcourse.store import data_path, kept_runs

PARTS = "international", "chinese"
ROWS = [pytest.param(r, id=r["name"]) for part in PARTS for r in read_guide(part)]
CONFIGS = read_configs()
UNKNOWN = {"not found", "not published"}
BRIDGES = {"two towers", "projector", "queries", "cross-attention"}
BRIDGES |= {"raw patches", "discrete tokens", "diffusion"} | UNKNOWN
LICENCES = {"MIT", "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0"}
LICENCES |= {"Gemma", "Llama", "custom", "proprietary"} | UNKNOWN
COLUMNS = "name maker date takes gives eye bridge lm tokens data size weights licence"
COLUMNS = {*COLUMNS.split(), "arxiv", "from", "chapters", "source"}
SENSES = {"text", "image", "audio", "video", "vectors", "boxes", "points", "masks"}
SENSES |= {"depth", "thermal", "motion", "sensors", "actions", "others"}

# --- the table


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_whole(row):
    "Every column, in the words of the card, with at least one address."
    assert set(row) == COLUMNS
    assert set(row["takes"] + row["gives"]) <= SENSES and row["takes"] and row["gives"]
    assert row["bridge"] in BRIDGES and row["licence"] in LICENCES
    assert row["weights"] in {"open", "part", "closed"} | UNKNOWN
    tokens, size = row["tokens"], row["size"]
    if isinstance(tokens, str):
        assert tokens in UNKNOWN | {"varies", "none"}
    else:
        assert isinstance(tokens, int) and 1 <= tokens <= 10_000
    assert size in UNKNOWN if isinstance(size, str) else 0.01 < size < 10_000
    assert all(row[k] for k in ("maker", "eye", "lm", "data", "source"))
    assert all(20 <= chapter <= 27 for chapter in row["chapters"])
    for address in row["source"]:
        assert re.match(r"https?://\S+\.\S+|model_configs\.yml", address)


@pytest.mark.parametrize("row", ROWS)
def test_dates_and_numbers_of_papers_agree(row):
    "A paper comes at most a year before or after its model, and not in the future."
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", row["date"])
    assert "2021-01" <= row["date"] <= "2026-11"
    if row["arxiv"] is None:
        return
    assert re.fullmatch(r"\d{4}\.\d{5}", row["arxiv"])
    year, month = 2000 + int(row["arxiv"][:2]), int(row["arxiv"][2:4])
    paper, model = date(year, month, 1), date.fromisoformat(f"{row['date']}-01")
    assert abs((paper - model).days) <= 370, row["name"]


def test_there_are_enough_models_and_none_stands_twice():
    assert len(read_guide()) >= 40 and len(read_guide("chinese")) >= 8
    rows = read_guide() + read_guide("chinese")
    for column in ("name", "arxiv"):
        kept = [r[column] for r in rows if r[column]]
        assert len(kept) == len(set(kept))
    assert {r["date"][:4] for r in read_guide()} == {str(y) for y in range(2021, 2027)}


@pytest.mark.parametrize("part", PARTS)
def test_rows_stand_in_order_and_parents_come_first(part):
    rows = read_guide(part)
    for a, b in pairwise(rows):
        assert (a["date"], a["name"].lower()) < (b["date"], b["name"].lower())
    when = {r["name"]: r["date"] for r in rows}
    for r in rows:
        assert r["from"] is None or when[r["from"]] <= r["date"]


def test_a_closed_model_has_no_size_unless_somebody_published_it():
    closed = [r for r in read_guide() if r["weights"] == "closed"]
    assert closed and all(r["size"] in UNKNOWN for r in closed)


def test_sizes_of_the_table_are_those_of_the_configurations():
    "Where a family has one configuration, or its largest is among them."
    sizes = {}
    for c in CONFIGS.values():
        sizes[c["family"]] = max(sizes.get(c["family"], 0), count_weights(c) / 1e9)
    for r in read_guide():
        if r["name"] in sizes and isinstance(r["size"], (int, float)):
            assert r["size"] >= 0.99 * sizes[r["name"]], r["name"]
    named = {r["name"] for r in read_guide()}
    assert {c["family"] for c in CONFIGS.values()} <= named


def test_tokens_of_the_table_are_those_of_the_configurations():
    rows = {r["name"]: r for r in read_guide()}
    for c in CONFIGS.values():
        tokens = rows[c["family"]]["tokens"]
        if isinstance(tokens, int) and c["name"] != "SmolVLM-256M":
            assert c["picture"]["tokens"] == tokens, c["name"]


def test_parts_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="part: expected"):
        read_guide("martian")


def test_the_questions_name_what_there_is():
    shelf = library_shelf()
    questions = read_guide("questions")
    assert len(questions) >= 20 and len({q["ask"] for q in questions}) == len(questions)
    for q in questions:
        assert q["answer"] and set(q["answer"]) <= set(shelf)


def test_the_shelf_holds_public_things_alone():
    shelf = library_shelf()
    assert shelf["vit.patchify"].startswith("vit patchify Each picture as a sequence")
    assert not [name for name in shelf if name.split(".")[1].startswith("_")]


# --- the family


def test_relatives_have_places_of_their_own():
    rows = read_guide()
    places = family_rows(rows)
    assert len(set(places.values())) == len(places)
    parents = {r["from"] for r in rows}
    related = {r["name"] for r in rows if r["from"]} | parents - {None}
    assert set(places) == related
    for r in rows:
        if r["from"]:
            assert places[r["from"]][0] <= places[r["name"]][0]


def test_half_years_and_crowded_names():
    assert half_years("2021-01") == 0 and half_years("2023-07") == 5
    places = {"a": (0.0, 0), "b": (1.0, 0), "c": (2.0, 0), "d": (9.0, 0), "e": (1.0, 1)}
    assert names_below(places) == {"b"}


def test_count_ends():
    assert count_ends("x") == 1 and count_ends(("?", "x", ("?", "y", "z"))) == 3


# --- weights

SIZES = st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(*SIZES, st.integers(1, 50), st.booleans(), st.none() | st.integers(1, 30))
def test_matrices_are_those_that_torch_would_make(g, times, k, d, m, gated, looks):
    h = g * times
    s = {"d": d, "heads": h, "groups": g, "width": k, "mlp": m, "gated": gated}
    s |= {"looks": looks} if looks else {}
    source = looks or d
    shapes = [(d, h * k), (source, g * k), (source, g * k), (h * k, d), (d, m), (m, d)]
    shapes += [(d, m)] if gated else []
    assert matrices(s) == sum(a * b for a, b in shapes)
    s["vectors"] = {"d": 2, "mlp": 1, "width": 3, "one": 5}
    assert block_weights(s) == matrices(s) + 2 * d + m + 3 * k + 5


@pytest.mark.parametrize("name", CONFIGS)
def test_a_formula_equals_the_stored_count_and_is_near_the_published(name):
    counts = kept_runs("field_guide", "counted")[0]
    assert set(counts) == set(CONFIGS)
    n = count_weights(CONFIGS[name])
    assert n == counts[name]
    assert abs(n / CONFIGS[name]["published"] - 1) < 0.01
    roles = ("eye", "bridge", "look", "words")
    assert n == sum(count_weights(CONFIGS[name], role) for role in roles)


def test_enough_models_are_counted():
    assert len({c["family"] for c in CONFIGS.values()}) >= 12


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_counts_the_same(name):
    "Built on the meta device, in no memory."
    transformers = pytest.importorskip("transformers", minversion="5")
    transformers.logging.set_verbosity_error()
    kind = getattr(transformers, CONFIGS[name]["model"])
    # a configuration may change the dicts that it is given
    config = kind.config_class(**copy.deepcopy(CONFIGS[name]["arguments"]))
    with torch.device("meta"):
        model = kind(config)
    counted = sum(p.numel() for p in model.parameters())
    assert counted == count_weights(CONFIGS[name])


def test_a_number_that_is_stated_is_gpt2s():
    said = read_guide("stated")[0]
    assert abs(said["says"] / count_weights(CONFIGS[said["model"]]) - 1) > 0.5


# --- memory


def words_alone(**more):
    s = {"role": "words", "depth": 3, "d": 8, "heads": 4, "groups": 2, "width": 5}
    s |= {"mlp": 7, "vectors": {"d": 1}} | more
    picture = {"patches": 0, "seen": 0, "tokens": 6}
    return {"stacks": [s], "tables": [], "picture": picture}


def test_the_cache_by_hand():
    "Two vectors for each of 2 groups in 3 blocks, 5 wide, of 2 bytes: 120 a word."
    c = words_alone()
    assert cache_bytes(c, 1) == 3 * 2 * 2 * 5 * 2 == 120
    assert cache_bytes(c, 10, 2) == 120 * (10 + 2 * 6)
    assert cache_bytes(words_alone(window=4), 10, 2) == 120 * 4
    assert cache_bytes(words_alone(window=40), 10) == 120 * 10


def test_blocks_that_look_keep_the_picture_and_the_others_do_not():
    c = words_alone()
    c["stacks"].append(c["stacks"][0] | {"role": "look", "looks": 9, "depth": 1})
    assert cache_bytes(c, 10) == 120 * 10
    assert cache_bytes(c, 10, 1) == 120 * 10 + 40 * 6


def test_memory_is_weights_and_cache():
    c = CONFIGS["LLaVA-1.5-7B"]
    n = count_weights(c)
    assert bytes_needed(c) == 2 * n and bytes_needed(c, 4) == n / 2
    assert bytes_needed(c, 8, 100, 1) == n + cache_bytes(c, 100, 1)
    with pytest.raises(ValueError, match="bits"):
        bytes_needed(c, 0)


def test_the_slider_of_memory_tells_what_fits_and_is_small():
    grid = [(b, w) for b in (16, 8, 4) for w in (1000, 8000, 32000)]
    needs = {
        n: {k: bytes_needed(c, *k) / 1e9 for k in grid} for n, c in CONFIGS.items()
    }
    page = memory_slider(needs, limit=8)._repr_html_()
    assert len(page) < 200_000
    told = re.findall('aria-label="(.*?)"', page)
    assert len(set(told)) == len(told) == 9
    for (bits, words), text in zip(grid, told):
        fit = [n for n in needs if needs[n][bits, words] <= 8]
        assert text == (
            f"{bits} bits a weight, {words} words: {len(fit)} of {len(needs)} models"
            f" fit into 8 GB: {', '.join(fit)}."
        )


def test_the_cache_of_our_own_model_is_as_large_as_the_formula_says():
    from mmcourse.language_model import LM, KVCache

    cache, lm = KVCache(), LM(30, d=16, heads=4, depth=2, groups=2)
    with torch.no_grad():
        lm(torch.zeros(1, 7, dtype=torch.long), cache)
    held = [t for v in vars(cache).values() for t in tensors_in(v)]
    c = words_alone(depth=2, d=16, width=4)
    assert sum(t.numel() for t in held) * 2 == cache_bytes(c, 7)


def tensors_in(x):
    if isinstance(x, torch.Tensor):
        return [x]
    inner = x.values() if isinstance(x, dict) else x
    if isinstance(inner, (list, tuple)) or isinstance(x, dict):
        return [t for y in inner for t in tensors_in(y)]
    return []


# --- FLOPs


def counted(run, *inputs):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "heads,groups,depth,T", [(4, 2, 3, 9), (2, 2, 1, 1), (6, 3, 2, 5)]
)
def test_flops_of_words_are_those_that_torch_counts(heads, groups, depth, T):
    from mmcourse.language_model import LM

    with torch.device("meta"):
        lm = LM(50, d=12 * heads, heads=heads, depth=depth, groups=groups, hidden=40)
        x = torch.zeros(1, T, 12 * heads)
    c = words_alone(depth=depth, d=12 * heads, heads=heads, groups=groups, width=12)
    c["stacks"][0] |= {"mlp": 40, "gated": True}
    c["tables"] = [{"role": "words", "size": [12 * heads, 50], "per": "word"}]
    assert T * word_flops(c, T) == counted(lm.read, x)


def test_flops_with_a_window_and_with_blocks_that_look():
    near, far = words_alone(window=4), words_alone()
    assert word_flops(near, 9) == word_flops(far, 4) < word_flops(far, 9)
    s = far["stacks"][0]
    look = s | {"role": "look", "looks": 9, "depth": 1}
    both = far | {"stacks": [s, look]}
    extra = 2 * (2 * 8 * 20 + 2 * 8 * 7) + 4 * 6 * 20  # no keys, no values, 6 tokens
    assert word_flops(both, 9) == word_flops(far, 9) + extra


def test_flops_of_an_eye_are_those_that_torch_counts():
    from mmcourse.vision_language import VisionTower

    with torch.device("meta"):
        tower = VisionTower(24, 8, d=20, heads=5, depth=2)
        pixels = torch.zeros(1, 3, 24, 24)

    def look(x):
        x = tower.norm0(tower.tokens(x))
        for block in tower.blocks:
            x = block(x)

    s = {"role": "eye", "depth": 2, "d": 20, "heads": 5, "groups": 5, "width": 4}
    c = {"stacks": [s | {"mlp": 80, "vectors": {}}]}
    c["tables"] = [{"role": "eye", "size": [192, 20], "per": "patch"}]
    c["picture"] = {"seen": 10, "patches": 9, "tokens": 9}
    assert eye_flops(c) == counted(look, pixels)


@pytest.mark.parametrize("name", [n for n in CONFIGS if "gflops" in CONFIGS[n]])
def test_flops_of_published_eyes(name):
    assert abs(eye_flops(CONFIGS[name]) / 1e9 / CONFIGS[name]["gflops"] - 1) < 1e-3


# --- scores


def test_vqa_by_hand():
    "Three of ten agree: each of them sees two others, the seven see three."
    humans = ["a"] * 3 + ["b"] * 7
    assert vqa_accuracy("a", humans) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("b", humans) == 1 and vqa_accuracy("c", humans) == 0


def test_runs_of_words():
    runs = word_runs("a b a", 2)
    assert runs == {("a",): 2, ("b",): 1, ("a", "b"): 1, ("b", "a"): 1}


def test_cider_equals_the_stored_scores_of_pycocoevalcap():
    kept = kept_runs("field_guide", "cider")[0]
    found = cider(kept["captions"], kept["references"])
    np.testing.assert_allclose(found, kept["scores"], atol=1e-9)
    assert min(kept["scores"]) < 1 < 5 < max(kept["scores"])


def test_cider_equals_pycocoevalcap():
    scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer")
    rng = np.random.default_rng(0)
    words = np.array(list("abcdefgh"))

    def text():
        return " ".join(rng.choice(words, rng.integers(1, 9)))

    captions = [text() for _ in range(12)]
    references = [[text() for _ in range(rng.integers(1, 4))] for _ in captions]
    theirs = scorer.CiderScorer(n=4, sigma=6.0)
    for caption, people in zip(captions, references):
        theirs += (caption, people)
    ours = cider(captions, references)
    np.testing.assert_allclose(ours, theirs.compute_score()[1], atol=1e-9)


def test_cider_is_ten_for_the_same_words_and_nought_for_others():
    people = [["one two three four five"], ["six seven eight nine ten"]]
    assert cider([p[0] for p in people], people) == pytest.approx([10, 10])
    assert cider(["x y z", "u v w"], people) == pytest.approx([0, 0])


def test_guessing_taken_out():
    assert above_guessing(0.25, 4) == 0 and above_guessing(1, 7) == 1
    assert above_guessing(0.7, 10) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="choices"):
        above_guessing(0.5, 1)


def test_overlap_needs_a_run_of_the_right_length():
    seen = set(word_runs("the red fox runs far", 3))
    assert overlap("a red fox runs", seen, 3)
    assert not overlap("red fox walks far", seen, 3) and not overlap("red fox", seen, 3)


# --- choosing and finding


def test_choose():
    rows = [
        {
            "name": "a",
            "takes": ["text"],
            "gives": ["text"],
            "size": 1,
            "weights": "open",
        },
        {"name": "b", "takes": ["text", "image"], "gives": ["text"], "size": 9}
        | {"weights": "open"},
        {"name": "c", "takes": ["text", "image"], "gives": ["text"], "size": 2}
        | {"weights": "closed"},
        {"name": "d", "takes": ["image"], "gives": ["text"], "size": "not found"}
        | {"weights": "open"},
    ]
    assert choose(rows) == ["b", "a"]
    assert choose(rows, takes={"image"}) == ["b"]
    assert choose(rows, takes={"image"}, opened=False, largest=5) == ["c"]
    assert choose(rows, gives={"image"}) == []


def test_late_score_by_hand():
    q, D = torch.eye(3)[:2], torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    assert late_score(q, D).item() == pytest.approx(1.4)
    assert late_score(q, D[[1, 0, 0]]) == late_score(q, D)


def test_the_files_are_plain_yaml():
    for name in ("field_guide.yml", "model_configs.yml"):
        yaml.safe_load(data_path(name).read_text("utf-8"))
    assert all(math.prod(t["size"]) > 0 for c in CONFIGS.values() for t in c["tables"])
