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
    picture_tokens,
    read_configs,
    read_guide,
    token_flops,
    vqa_accuracy,
    word_runs,
)
from mmcourse.guide_tools import (
    cell_scores,
    costs,
    count_ends,
    deepest,
    family_rows,
    half_years,
    library_shelf,
    names_below,
    read_each_token,
)
from mmcourse.store import data_path, kept_runs

PARTS = "international", "chinese"
ROWS = [pytest.param(r, id=r["name"]) for part in PARTS for r in read_guide(part)]
CONFIGS = read_configs()
UNKNOWN = {"not found", "not published"}
BRIDGES = {"two towers", "projector", "queries", "cross-attention"}
BRIDGES |= {"raw patches", "discrete tokens", "diffusion"} | UNKNOWN
LICENCES = {"MIT", "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0"}
LICENCES |= {"CC-BY-NC-SA-4.0"}
LICENCES |= {"Gemma", "Llama", "custom", "proprietary"} | UNKNOWN
COLUMNS = "name maker date takes gives eye bridge lm tokens data size weights licence"
COLUMNS = {*COLUMNS.split(), "arxiv", "from", "chapters", "source", "tiles", "read"}
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
        assert tokens in UNKNOWN | {"varies", "none", "of sound"}
        assert row["tiles"] == tokens
    else:
        assert isinstance(tokens, int) and 1 <= tokens <= 10_000
        assert row["tiles"] in range(1, 41) or row["tiles"] == "not found"
    assert row["read"] in {"first-hand", "both", "second-hand"}
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


# name: arXiv, date, bridge, tokens, tiles, size, weights, licence
FAMOUS = {
    "CLIP": "2103.00020 2021-01 two-towers 1 1 0.43 open MIT",
    "Flamingo": "2204.14198 2022-04 cross-attention 64 1 80 closed not-found",
    "Whisper": "2212.04356 2022-09 cross-attention 1500 1 1.54 open MIT",
    "BLIP-2": "2301.12597 2023-01 queries 32 1 12.2 open MIT",
    "LLaVA": "2304.08485 2023-04 projector not-found not-found not-found open Llama",
    "LLaVA-1.5": "2310.03744 2023-10 projector 576 1 13 open Llama",
    "ImageBind": "2305.05665 2023-05 two-towers 1 1 not-found open CC-BY-NC-SA-4.0",
    "IDEFICS": "2306.16527 2023-08 cross-attention 64 1 80 open custom",
    "GPT-4V": "None 2023-09 not-published varies varies not-published closed "
    "proprietary",
    "Fuyu": "None 2023-10 raw-patches 2304 1 9.41 open CC-BY-NC-4.0",
    "Gemini": "2312.11805 2023-12 not-found varies varies not-found closed not-found",
    "Chameleon": "2405.09818 2024-05 discrete-tokens 1024 1 34 part custom",
    "Idefics2": "2405.02246 2024-04 queries 64 5 8.4 open Apache-2.0",
    "PaliGemma": "2407.07726 2024-05 projector varies varies 2.92 open Gemma",
    "Idefics3": "2408.12637 2024-08 projector 169 17 8.46 open Apache-2.0",
    "Llama 3.2 Vision": "None 2024-09 cross-attention varies varies 88.8 open Llama",
    "SmolVLM": "2504.05299 2024-11 projector 81 17 2.25 open Apache-2.0",
    "Gemma 3": "2503.19786 2025-03 projector 256 1 27.43 open Gemma",
    "Llama 4": "None 2025-04 projector 144 17 400 open Llama",
    "Gemma 4": "2607.02770 2026-03 projector varies varies 31 open Apache-2.0",
    "Janus": "2410.13848 2024-10 projector 576 1 1.3 open custom",
}


@pytest.mark.parametrize("name", FAMOUS)
def test_facts_of_famous_rows_are_frozen(name):
    "Whoever changes one of them has seen a source, and changes it here, too."
    row = next(r for part in PARTS for r in read_guide(part) if r["name"] == name)
    columns = "arxiv", "date", "bridge", "tokens", "tiles", "size", "weights", "licence"
    assert " ".join(str(row[c]).replace(" ", "-") for c in columns) == FAMOUS[name]


def test_what_is_read_may_be_changed_by_the_reader():
    read_guide()[0]["name"] = "another"
    read_guide().append({})
    assert read_guide()[0]["name"] == "CLIP" and {} not in read_guide()


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
    assert [r["name"] for r in closed if r["size"] not in UNKNOWN] == ["Flamingo"]


def test_sizes_of_the_table_are_those_of_the_configurations():
    "The largest counted, or what the table says of a still larger one."
    larger = {"BLIP-2": 12.2, "IDEFICS": 80, "LLaVA-1.5": 13, "Chameleon": 34}
    larger |= {"Llama 3.2 Vision": 88.8, "PaliGemma 2": 27.65}
    sizes = {}
    for c in CONFIGS.values():
        sizes[c["family"]] = max(sizes.get(c["family"], 0), count_weights(c) / 1e9)
    for r in read_guide():
        if r["name"] in sizes and isinstance(r["size"], (int, float)):
            wanted = larger.get(r["name"], sizes[r["name"]])
            assert r["size"] == pytest.approx(wanted, rel=0.01), r["name"]
    named = {r["name"] for r in read_guide()}
    assert {c["family"] for c in CONFIGS.values()} <= named


def test_tokens_of_the_table_are_those_of_the_configurations():
    rows = {r["name"]: r for r in read_guide()}
    for c in CONFIGS.values():
        tokens = rows[c["family"]]["tokens"]
        if isinstance(tokens, int) and c["name"] != "SmolVLM-256M":
            assert c["picture"]["tokens"] == tokens, c["name"]
            assert c["picture"]["tiles"] == rows[c["family"]]["tiles"], c["name"]


@pytest.mark.parametrize(
    "name,side,patch,merged,tiles",
    [
        ("LLaVA-1.5-7B", 336, 14, 1, 1),
        ("PaliGemma-3B", 224, 14, 1, 1),
        ("PaliGemma-2-3B", 224, 14, 1, 1),
        ("Gemma-3-4B", 896, 14, 4, 1),
        ("Idefics3-8B", 364, 14, 2, 1 + 4 * 4),
        ("SmolVLM-2.2B", 384, 14, 3, 1 + 4 * 4),
        ("SmolVLM-256M", 512, 16, 4, 1 + 4 * 4),
    ],
)
def test_tokens_of_a_picture_follow_from_its_side(name, side, patch, merged, tiles):
    picture = CONFIGS[name]["picture"]
    assert picture["tokens"] == (side // patch // merged) ** 2
    assert picture_tokens(CONFIGS[name]) == picture["tokens"] * tiles
    across = side * math.isqrt(max(1, tiles - 1))
    assert picture["pixels"] == f"{across} × {across}"


def test_fuyu_reads_a_screen_in_patches_of_30():
    assert picture_tokens(CONFIGS["Fuyu-8B"]) == 64 * 36 == 1920 // 30 * -(-1080 // 30)
    assert CONFIGS["Fuyu-8B"]["tables"][0]["size"][0] == 3 * 30 * 30


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
    assert deepest("x") == 0 and deepest(("?", "x", ("?", "y", "z"))) == 2


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
    roles = ("eye", "bridge", "cross", "text")
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


@pytest.mark.parametrize("name", CONFIGS)
def test_windows_are_those_of_the_configuration_that_is_built(name):
    "transformers knows which blocks look back through a window, and how far."
    transformers = pytest.importorskip("transformers", minversion="5")
    kind = getattr(transformers, CONFIGS[name]["model"])
    config = kind.config_class(**copy.deepcopy(CONFIGS[name]["arguments"]))
    text = config.get_text_config()
    stacks = [s for s in CONFIGS[name]["stacks"] if s["role"] == "text"]
    near = sum(s["depth"] for s in stacks if "window" in s)
    if kinds := getattr(text, "layer_types", None):
        assert near == kinds.count("sliding_attention")
    else:
        wide = getattr(text, "sliding_window", None)
        assert near == (sum(s["depth"] for s in stacks) if wide else 0)
    # Gemma 3 publishes 1,024; what the class builds without being told is 4,096
    wide = 1024 if "Gemma-3" in name else getattr(text, "sliding_window", None)
    assert {s["window"] for s in stacks if "window" in s} == ({wide} if near else set())


def test_a_role_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="role: expected one of"):
        count_weights(CONFIGS["LLaVA-1.5-7B"], "eyes")


def test_a_number_that_is_stated_is_gpt2s():
    said = read_guide("stated")[0]
    assert abs(said["says"] / count_weights(CONFIGS[said["model"]]) - 1) > 0.5


# --- memory


def words_alone(**more):
    s = {"role": "text", "depth": 3, "d": 8, "heads": 4, "groups": 2, "width": 5}
    s |= {"mlp": 7, "vectors": {"d": 1}} | more
    picture = {"patches": 0, "seen": 0, "tokens": 3, "tiles": 2, "pixels": "1 × 1"}
    last = {"role": "text", "size": [8, 0], "per": "token"}
    return {"name": "made", "stacks": [s], "tables": [last], "picture": picture}


def test_the_cache_by_hand():
    "Two vectors for each of 2 groups in 3 blocks, 5 wide, of 2 bytes: 120 a word."
    c = words_alone()
    assert cache_bytes(c, 1) == 3 * 2 * 2 * 5 * 2 == 120
    assert cache_bytes(c, 10, 2) == 120 * (10 + 2 * 6)
    assert cache_bytes(words_alone(window=4), 10, 2) == 120 * 4
    assert cache_bytes(words_alone(window=40), 10) == 120 * 10


def test_blocks_that_look_keep_the_picture_and_the_others_do_not():
    c = words_alone()
    c["stacks"].append(c["stacks"][0] | {"role": "cross", "looks": 9, "depth": 1})
    assert cache_bytes(c, 10) == 120 * 10
    assert cache_bytes(c, 10, 1) == 120 * 10 + 40 * 6


def test_a_window_keeps_the_cache_of_idefics2_small():
    c = CONFIGS["Idefics2-8B"]
    assert cache_bytes(c, 32_000) == cache_bytes(c, 4096) == 32 * 2 * 8 * 128 * 2 * 4096
    assert cache_bytes(c, 4095) < cache_bytes(c, 4096)
    half = cache_bytes(CONFIGS["PaliGemma-2-3B"], 8192)
    assert half == 13 * 2 * 4 * 256 * 2 * (4096 + 8192)
    a_third = cache_bytes(CONFIGS["Gemma-3-4B"], 2048)
    assert a_third == 2 * 4 * 256 * 2 * (29 * 1024 + 5 * 2048)


@pytest.mark.parametrize("tokens,pictures", [(-5, 0), (5, -1), (1.5, 0), (True, 0)])
def test_a_cache_of_less_than_nothing_is_refused(tokens, pictures):
    with pytest.raises((TypeError, ValueError), match="tokens|pictures"):
        cache_bytes(CONFIGS["LLaVA-1.5-7B"], tokens, pictures)


@pytest.mark.parametrize("name", ["CLIP ViT-B/32", "SigLIP B/16"])
def test_towers_have_no_cache(name):
    with pytest.raises(ValueError, match=f"a model that writes, got {name}"):
        cache_bytes(CONFIGS[name], 10)
    assert bytes_needed(CONFIGS[name]) == 2 * count_weights(CONFIGS[name])


def test_memory_is_weights_and_cache():
    c = CONFIGS["LLaVA-1.5-7B"]
    n = count_weights(c)
    assert bytes_needed(c) == 2 * n and bytes_needed(c, 4) == n / 2
    assert bytes_needed(c, 8, 100, 1) == n + cache_bytes(c, 100, 1)
    for bits in (0, 5, 400):
        with pytest.raises(ValueError, match="bits"):
            bytes_needed(c, bits)


def test_the_slider_of_memory_tells_what_fits_and_is_small():
    grid = [(b, w) for b in (16, 8, 4) for w in (1000, 8000, 32000)]
    writers = {n: c for n, c in CONFIGS.items() if "CLIP" not in n and "SigL" not in n}
    needs = {
        n: {k: bytes_needed(c, *k) / 1e9 for k in grid} for n, c in writers.items()
    }
    page = memory_slider(needs, limit=8)._repr_html_()
    assert len(page) < 200_000
    told = re.findall('aria-label="(.*?)"', page)
    assert len(set(told)) == len(told) == 9
    for (bits, words), text in zip(grid, told):
        fit = [n for n in needs if needs[n][bits, words] <= 8]
        assert text == (
            f"{bits} bits a weight, {words} tokens: {len(fit)} of {len(needs)} models"
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
    c["tables"] = [{"role": "text", "size": [12 * heads, 50], "per": "token"}]
    assert T * token_flops(c, T) == counted(lm.read, x)
    last = 2 * 12 * heads * 50
    assert token_flops(c, T, answers=False) == token_flops(c, T) - last


def test_flops_with_a_window_and_with_blocks_that_look():
    near, far = words_alone(window=4), words_alone()
    assert token_flops(near, 9) == token_flops(far, 4) < token_flops(far, 9)
    s = far["stacks"][0]
    look = s | {"role": "cross", "looks": 9, "depth": 1}
    both = far | {"stacks": [s, look]}  # two tiles of three tokens
    extra = 2 * (2 * 8 * 20 + 2 * 8 * 7) + 4 * 6 * 20  # no keys, no values, 6 tokens
    assert token_flops(both, 9) == token_flops(far, 9) + extra


def test_what_is_read_for_each_token_leaves_out_the_table_of_words():
    c = CONFIGS["LLaVA-1.5-7B"]
    n = sum(math.prod(t["size"]) for t in c["tables"] if t["name"] == "words")
    text = count_weights(c, "text")
    assert text - read_each_token(c) == n + 4096  # and the norm before the last layer
    tied = CONFIGS["PaliGemma-3B"]  # here the last layer is the table of words
    assert count_weights(tied, "text") - read_each_token(tied) == 2048


def test_costs_count_all_tiles_and_no_last_layer_while_reading():
    c = CONFIGS["Idefics3-8B"]
    row = costs("x", c)
    assert row["look (GFLOPs)"] == pytest.approx(17 * eye_flops(c) / 1e9)
    n = picture_tokens(c)
    each = [token_flops(c, t, answers=False) for t in range(1, n + 1)]
    assert row["read it"] == pytest.approx(sum(each) / 1e9)
    # 4 tiles of 1,601 tokens; 8 blocks look: keys and values, 8 groups of 128
    looks = 4 * 1601 * 8 * 2 * 2 * 4096 * 8 * 128
    assert costs("x", CONFIGS["Llama-3.2-11B-Vision"])["read it"] == looks / 1e9


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
    assert vqa_accuracy("a!", ["A"] * 3 + ["b."] * 7) == vqa_accuracy("a", humans)


@pytest.mark.parametrize("humans", [[], ["a"] * 3, "aaaa", ["a"] * 4 + [3]])
def test_vqa_wants_enough_people(humans):
    with pytest.raises((TypeError, ValueError), match="humans"):
        vqa_accuracy("a", humans)


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


@pytest.mark.parametrize(
    "captions,references",
    [(["a"], [["a"]]), (["a"], [["a"], ["b"]]), (["a", "b"], ["a", "b"])]
    + [(["a", "b"], [["a"], []])],
)
def test_cider_refuses_what_it_cannot_score(captions, references):
    with pytest.raises(ValueError, match="pictures|references"):
        cider(captions, references)


def test_guessing_taken_out():
    assert above_guessing(0.25, 4) == 0 and above_guessing(1, 7) == 1
    assert above_guessing(0.7, 10) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="choices"):
        above_guessing(0.5, 1)
    with pytest.raises(ValueError, match="score"):
        above_guessing(50.7, 4)


def test_overlap_needs_a_run_of_the_right_length():
    seen = set(word_runs("the red fox runs far", 3))
    assert overlap("a red fox runs", seen, 3)
    assert not overlap("red fox walks far", seen, 3) and not overlap("red fox", seen, 3)
    longer = seen | set(word_runs("a red fox", 2))
    assert not overlap("a red cat sat", longer, 3)  # two words do not make a run of 3


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
    assert choose(rows) == ["d", "b", "a"]  # the newest first, also without a size
    assert choose(rows, takes={"image"}, largest=100) == ["b"]
    assert choose(rows, takes={"image"}, largest=9) == ["b"]
    assert choose(rows, takes={"image"}, largest=8.9) == []
    assert choose(rows, takes={"image"}, opened=False, largest=5) == ["c"]
    newest = choose([rows[1], rows[0]])
    assert newest == ["a", "b"]


def test_choose_refuses_typos_and_bare_words():
    with pytest.raises(ValueError, match="takes: expected one of"):
        choose(read_guide(), takes={"picture"})
    with pytest.raises(TypeError, match="gives: expected a set"):
        choose(read_guide(), gives="image")


def test_there_are_open_models_that_draw():
    assert "Stable Diffusion" in choose(read_guide(), takes={"text"}, gives={"image"})


def test_late_score_by_hand():
    q, D = torch.eye(3)[:2], torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    assert late_score(q, D).item() == pytest.approx(1.4)
    assert late_score(q, D[[1, 0, 0]]) == late_score(q, D)
    assert late_score(q, -D[:1]).item() == pytest.approx(-1.4)  # no part fits


def test_scores_of_cells_by_loops():
    generator = torch.Generator().manual_seed(0)
    words = [torch.randn(n, 5, generator=generator) for n in (1, 3)]
    cells = torch.randn(4, 6, 5, generator=generator)
    for best in (True, False):
        found = cell_scores(words, cells, best)
        for i, parts in enumerate(words):
            for j, picture in enumerate(cells):
                products = parts @ picture.T
                each = products.max(1).values if best else products.sum(1)
                torch.testing.assert_close(found[i, j], each.sum())


def test_the_files_are_plain_yaml():
    for name in ("field_guide.yml", "model_configs.yml"):
        yaml.safe_load(data_path(name).read_text("utf-8"))
    assert all(math.prod(t["size"]) > 0 for c in CONFIGS.values() for t in c["tables"])
