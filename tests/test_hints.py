"What the sentences mean, written a second time; splits, chances and the ceiling."

import hashlib
import math
import re
from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import hints as H
from mmcourse.datasets import SPLITS, balanced_labels
from mmcourse.store import data_path

PAIRS = list(combinations(SPLITS, 2))


def tokens(text):
    return re.findall(r"[\w'’-]+", text.lower())


# --- what the phrases mean, by other means than the grammar's predicates

UNTIL_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty"
)
N = {w: i for i, w in enumerate(re.split(" ", UNTIL_TWENTY))}
N |= {"twenty-four": 24, "thirty": 30, "thirty-six": 36, "fifty": 50}
NUM = r"(\w+(?:-\w+)?)"
PRIMES, SQUARES = {2, 3, 5, 7, 11, 13}, {0, 1, 4, 9, 16, 25, 36, 49, 64, 81}
BARS_LIT = {2: {1}, 3: {7}, 4: {4}, 5: {2, 3, 5}, 6: {0, 6, 9}, 7: {8}}
MORSE = re.split(" ", "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----.")
KEYPAD = ["123", "456", "789", "*0#"]
spelled = list(N)[:10]
RHYMING = re.split(" ", "hero sun shoe tree door hive sticks heaven gate line")


COUNTED = [
    ["legs of a snake"],
    ["horns of a unicorn", "moons of the earth"],
    ["wheels of a bicycle"],
    ["sides of a triangle", "months of a quarter"],
    ["seasons of a year", "wheels of a car", "strings of a violin"],
    ["fingers of a hand", "sides of a pentagon"],
    ["legs of an insect", "sides of a hexagon", "strings of a guitar"],
    ["days of a week", "colours of a rainbow"],
    ["legs of a spider", "planets of the sun"],
    ["players of a baseball team", "lives of a cat"],
]


def has(*digits):
    return lambda d, *_: d in digits


SENSE = [
    (re.compile(p + "$", re.I), f)
    for p, f in {
        "even": has(0, 2, 4, 6, 8),
        "odd": has(1, 3, 5, 7, 9),
        "prime": lambda d: d in PRIMES,
        "composite": has(4, 6, 8, 9),
        "square": lambda d: d in SQUARES,
        "triangular": has(0, 1, 3, 6),
        "perfect": has(6),
        f"(?:below|under|less than|smaller than) {NUM}": lambda d, n: d in range(N[n]),
        f"(?:above|over|more than|bigger than|greater than) {NUM}": lambda d, n: (
            d in range(N[n] + 1, 10)
        ),
        f"(?:at most|no more than) {NUM}": lambda d, n: d in range(N[n] + 1),
        f"(?:at least|no less than) {NUM}": lambda d, n: d in range(N[n], 10),
        f"between {NUM} and {NUM}": lambda d, a, b: d in range(N[a] + 1, N[b]),
        f"outside the range from {NUM} to {NUM}": lambda d, a, b: (
            d not in range(N[a], N[b] + 1)
        ),
        f"next to {NUM}": lambda d, n: d in (N[n] - 1, N[n] + 1),
        f"two away from {NUM}": lambda d, n: d in (N[n] - 2, N[n] + 2),
        f"three steps from {NUM}": lambda d, n: d in (N[n] - 3, N[n] + 3),
        f"other than {NUM}": lambda d, n: spelled[d] != n,
        f"closer to {NUM} than to {NUM}": lambda d, a, b: (
            (d - N[a]) ** 2 < (d - N[b]) ** 2
        ),
        f"divisible by {NUM}": lambda d, n: d in range(0, 10, N[n]),
        f"not divisible by {NUM}": lambda d, n: d not in range(0, 10, N[n]),
        f"that is a multiple of {NUM}": lambda d, n: d in range(0, 10, N[n]),
        f"that divides {NUM}": lambda d, m: any(d * k == N[m] for k in range(1, 40)),
        f"that leaves a remainder of {NUM} when divided by {NUM}": lambda d, r, n: (
            d in range(N[r], 10, N[n])
        ),
        f"with exactly {NUM} divisors": lambda d, k: (
            d in {2: (2, 3, 5, 7), 3: (4, 9), 4: (6, 8)}[N[k]]
        ),
        "that is a cube": has(0, 1, 8),
        "that is a power of two": has(1, 2, 4, 8),
        "that is a power of three": has(1, 3, 9),
        "that is a Fibonacci number": has(0, 1, 2, 3, 5, 8),
        "that is the product of two primes": has(4, 6, 9),
        "that is the sum of two different primes": has(5, 7, 8, 9),
        "that is neither prime nor composite": has(0, 1),
        "that is not prime": has(0, 1, 4, 6, 8, 9),
        "that is not a square": has(2, 3, 5, 6, 7, 8),
        "that is twice a prime": has(4, 6),
        f"that becomes prime when {NUM} is added": lambda d, n: d + N[n] in PRIMES,
        f"that becomes a square when {NUM} is added": lambda d, n: d + N[n] in SQUARES,
        f"whose square is above {NUM}": lambda d, m: d > math.sqrt(N[m]),
        f"whose square is below {NUM}": lambda d, m: d < math.sqrt(N[m]),
        f"whose square ends in {NUM}": lambda d, r: str(d * d).endswith(str(N[r])),
        "whose double has two digits": has(5, 6, 7, 8, 9),
        "whose double has a single digit": has(0, 1, 2, 3, 4),
        f"(?:with|spelt with) {NUM} letters(?: in its English name)?": lambda d, k: (
            d in {3: (1, 2, 6), 4: (0, 4, 5, 9), 5: (3, 7, 8)}[N[k]]
        ),
        r"whose name starts with the letter (\w)": lambda d, c: spelled[d].startswith(
            c.lower()
        ),
        r"whose name ends with the letter (\w)": lambda d, c: spelled[d].endswith(
            c.lower()
        ),
        r"whose name contains the letter (\w)": lambda d, c: (
            spelled[d].count(c.lower()) > 0
        ),
        r"whose name lacks the letter (\w)": lambda d, c: (
            spelled[d].count(c.lower()) == 0
        ),
        "whose name has a single vowel": has(2, 6),
        "whose name has a double letter": has(3),
        "whose name has two syllables": has(0, 7),
        r"whose name comes before (\w+) in the dictionary": lambda d, w: (
            sorted([w, spelled[d]])[0] == spelled[d]
        ),
        r"whose name comes after (\w+) in the dictionary": lambda d, w: (
            sorted([w, spelled[d]])[1] == spelled[d]
        ),
        r"whose name rhymes with (\w+)": lambda d, w: RHYMING[d] == w,
        f"with {NUM} bars lit on a pocket calculator": lambda d, k: d in BARS_LIT[N[k]],
        "with the top bar lit on a calculator": has(0, 2, 3, 5, 6, 7, 8, 9),
        "with the middle bar lit on a calculator": has(2, 3, 4, 5, 6, 8, 9),
        "with the bottom bar lit on a calculator": has(0, 2, 3, 5, 6, 8, 9),
        "with the top bar dark on a calculator": has(1, 4),
        "with the middle bar dark on a calculator": has(0, 1, 7),
        "with the bottom bar dark on a calculator": has(1, 4, 7),
        "with a closed loop on a calculator": has(0, 6, 8, 9),
        "with no closed loop on a calculator": has(1, 2, 3, 4, 5, 7),
        "with two closed loops on a calculator": has(8),
        "drawn with straight strokes only": has(1, 4, 7),
        "drawn with a curve": has(0, 2, 3, 5, 6, 8, 9),
        "that looks the same upside down on a calculator": has(0, 2, 5, 8),
        "that turns into another digit upside down on a calculator": has(6, 9),
        "whose left and right halves mirror each other on a calculator": has(0, 8),
        "whose upper and lower halves mirror each other on a calculator": has(
            0, 1, 3, 8
        ),
        f"with {NUM} bits in binary": lambda d, k: 2 ** (N[k] - 1) <= d < 2 ** N[k],
        "that reads the same backwards in binary": has(0, 1, 3, 5, 7, 9),
        "whose Roman numeral has the letter I": has(1, 2, 3, 4, 6, 7, 8, 9),
        "whose Roman numeral has the letter V": has(4, 5, 6, 7, 8),
        "whose Roman numeral has the letter X": has(9),
        f"whose Roman numeral has {NUM} letters": lambda d, k: (
            d in {2: (2, 4, 6, 9), 3: (3, 7), 4: (8,)}[N[k]]
        ),
        "with more dashes than dots in Morse code": lambda d: (
            MORSE[d].count("-") > MORSE[d].count(".")
        ),
        f"with {NUM} dots in Morse code": lambda d, k: MORSE[d].count(".") == N[k],
        r"that starts with a (dot|dash) in Morse code": lambda d, s: MORSE[
            d
        ].startswith("." if s == "dot" else "-"),
        r"in the (left|middle|right) column of a phone keypad": lambda d, c: (
            str(d) in [row[["left", "middle", "right"].index(c)] for row in KEYPAD]
        ),
        r"in the (top|second|third|bottom) row of a phone keypad": lambda d, r: (
            str(d) in KEYPAD[["top", "second", "third", "bottom"].index(r)]
        ),
        r"that counts the (.+)": lambda d, thing: thing.lower() in COUNTED[d],
        "that is held to be lucky in China": has(6, 8, 9),
        "that is held to be unlucky in Japan": has(4, 9),
        "that is held to be lucky in Europe": has(7),
        "that a die can show": has(1, 2, 3, 4, 5, 6),
        "that no die can show": has(0, 7, 8, 9),
        f"that lies opposite {NUM} on a die": lambda d, n: (
            {1: 6, 2: 5, 3: 4, 4: 3, 5: 2, 6: 1}[N[n]] == d
        ),
        "whose face of a die has a dot in the centre": has(1, 3, 5),
        "on the right half of a clock face": has(1, 2, 3, 4, 5),
        "on the left half of a clock face": has(7, 8, 9),
        "on the upper half of a clock face": has(1, 2),
        "on the lower half of a clock face": has(4, 5, 6, 7, 8),
    }.items()
]


def means(text):
    "The digits that a phrase is true of, by the table above."
    found = [(f, m.groups()) for p, f in SENSE if (m := p.match(text))]
    ((f, groups),) = found  # one opinion, and only one
    return {d for d in range(10) if f(d, *[g.lower() for g in groups])}


def test_phrases_mean_what_they_say():
    for p in H.phrases():
        assert means(p.text) == {*p.truth}, p.text


def test_every_pattern_is_used_and_none_twice():
    texts = [p.text for p in H.phrases()]
    assert len({*texts}) == len(texts) and len({p.text for p in H.PATTERNS}) == 92
    for p in H.PATTERNS:
        made = {p.text.format(*map(H.word, v)) for v in p.over or [()]}
        assert made & {*texts}, p.text


def test_a_phrase_knows_the_digits_it_names():
    named = {p.text: p.names for p in H.phrases()}
    assert named["between two and seven"] == {2, 7} and named["even"] == set()
    assert named["that divides twenty-four"] == {4}
    assert named["closer to three than to eight"] == {3, 8}


@pytest.mark.parametrize(
    "n, said",
    [(0, "zero"), (12, "twelve"), (20, "twenty"), (36, "thirty-six"), ("E", "E")],
)
def test_word(n, said):
    assert H.word(n) == said


@pytest.fixture(scope="module")
def longest():
    found = [(" ".join(tokens(p.text)), means(p.text)) for p in H.phrases()]
    return sorted(found, key=lambda p: -len(p[0]))


def independent(sentence, longest):
    "The digits a sentence is true of, by searching for all phrases, longest first."
    left, truth, hits = " " + " ".join(tokens(sentence)) + " ", {*range(10)}, 0
    for text, true in longest:
        if f" {text} " in left:
            left, truth = left.replace(f" {text} ", " | ", 1), truth & true
            hits += 1
    assert 1 <= hits <= 2, sentence
    return truth


@pytest.mark.parametrize("split", SPLITS)
def test_sentences_are_true_fair_and_understood(split, longest):
    h = H.hints(split, 1000, seed=7)
    assert np.bincount(h["label"]).tolist() == [100] * 10
    for text, label in zip(h["text"], h["label"]):
        truth = independent(text, longest)
        assert label in truth and 1 <= len(truth) <= 4, text
        assert truth == H.candidates(text), text
        names = {H.NAMES[d] for d in truth}
        assert not names & {*text.lower().replace("-", " ").split()}, text


# --- splits


def test_grammar():
    G = {s: H.grammar(s) for s in SPLITS}
    assert [len(G[s]) for s in SPLITS] == [13554, 1937, 3893]
    said = {s: {H.spell(h) for h in G[s]} for s in SPLITS}
    for s in SPLITS:
        assert len(said[s]) == len(G[s])  # no two hints are worded alike
        assert all(H.parse(H.spell(h)) == h.parts for h in G[s])
        there = {(d, len(h.truth)) for h in G[s] for d in h.truth}
        assert there == {(d, k) for d in range(10) for k in H.SIZES}
    for s, t in PAIRS:
        assert not said[s] & said[t]
    known = {i for h in G["train"] if len(h.parts) == 2 for i in h.parts}
    for s in ("valid", "test"):
        assert all(len(h.parts) == 2 and {*h.parts} <= known for h in G[s])


def test_two_phrases_say_more_than_either():
    P = H.phrases()
    for h in H.grammar("valid"):
        i, j = h.parts
        assert h.truth < P[i].truth and h.truth < P[j].truth
        assert h.weight == P[i].weight * P[j].weight


def test_hints_share_words_but_no_sentence():
    h = {s: H.hints(s)["text"] for s in SPLITS}
    assert [len(h[s]) for s in SPLITS] == [3500, 500, 1000]
    for s, t in PAIRS:
        assert not {x.lower() for x in h[s]} & {x.lower() for x in h[t]}
    words = {w for t in h["train"] for w in tokens(t)}
    assert {w for t in h["test"] for w in tokens(t)} <= words
    assert {"over", "above", "bigger", "below", "less", "even", "odd"} <= words


def test_all_dresses_are_worn():
    h = H.hints("test")["text"]
    assert sum(t.isupper() for t in h) > 250 and sum(t.islower() for t in h) > 250
    assert len({t.split()[0].lower() for t in h}) > 10
    assert any("number" in t for t in h) and any("digit" in t for t in h)


@given(st.sampled_from(SPLITS), st.integers(1, 40), st.integers(0, 2**70))
@settings(deadline=None, max_examples=20)
def test_hints_are_deterministic(split, n, seed):
    a, b = H.hints(split, n, seed), H.hints(split, n, seed)
    assert a["text"] == b["text"] and len(a["text"]) == n
    assert np.array_equal(a["label"], balanced_labels(split, n, seed)[0])


def test_the_sentences_do_not_move():
    for s in SPLITS:
        lines = "\n".join(H.hints(s)["text"]).encode()
        assert hashlib.sha256(lines).hexdigest() in card()


def card():
    return data_path("hints.md").read_text(encoding="utf-8")


def test_the_card_is_right():
    assert f"{len(H.PATTERNS)} patterns" in card()
    assert f"{len(H.phrases())} phrases" in card()
    assert f"{float(100 * H.hint_ceiling('test')):.1f} %" in card()
    for s in SPLITS:
        assert f"{len(H.grammar(s)):,}" in card()


# --- chances


def test_ceiling_by_enumerating_every_sentence():
    "Every validation hint and its exact chance, from the definition."
    said, chance = H.grammar("valid"), {d: {} for d in range(10)}
    for d in range(10):
        for k, percent in H.SIZES.items():
            of_size = [h for h in said if d in h.truth and len(h.truth) == k]
            total = sum(h.weight for h in of_size)
            for h in of_size:
                chance[d][h] = Fraction(percent * h.weight, 100 * total)
        assert sum(chance[d].values()) == 1
    best = [max(chance[d].get(h, 0) for d in range(10)) for h in said]
    assert sum(best) / 10 == H.hint_ceiling("valid")
    h = said[17]
    for d in range(10):
        assert H.chance(h, d, "valid") == chance[d].get(h, 0)
    p = np.array([float(chance[d].get(h, 0)) for d in range(10)])
    posterior = H.hint_posterior("Hint: " + H.spell(h), "valid")
    assert np.allclose(posterior, p / p.sum())


def test_ceilings():
    assert H.SIZES == {1: 43, 2: 31, 3: 18, 4: 8}
    assert all(isinstance(H.hint_ceiling(s), Fraction) for s in SPLITS)
    assert round(float(H.hint_ceiling("test")), 3) == 0.692
    h = H.hints("test", 2000, seed=3)
    p = np.stack([H.hint_posterior(t) for t in h["text"]])
    hits = p.argmax(1) == h["label"]
    assert abs(hits.mean() - 0.692) < 4 * (0.692 * 0.308 / 2000) ** 0.5
    assert abs(p.max(1).mean() - hits.mean()) < 0.05  # it knows how sure to be


def test_sentences_are_drawn_as_the_chances_say():
    h = H.hints("test", 8000, seed=5)
    sizes = Counter(len(H.candidates(t)) for t in h["text"])
    for k, percent in H.SIZES.items():
        p = percent / 100
        assert abs(sizes[k] / 8000 - p) < 4 * (p * (1 - p) / 8000) ** 0.5
    likely = max(H.grammar("test"), key=lambda g: H.chance(g, 6))
    of_six = [t for t, d in zip(h["text"], h["label"]) if d == 6]
    seen = sum(H.parse(t) == likely.parts for t in of_six)
    expected = len(of_six) * float(H.chance(likely, 6))
    assert abs(seen - expected) < 4 * expected**0.5 + 1


# --- reading


@pytest.mark.parametrize(
    "text, digits",
    [
        ("an even number over five", {6, 8}),
        ("  AN ODD DIGIT   below FIVE!! ", {1, 3}),
        ("I’m thinking of a prime number", {2, 3, 5, 7}),
        ("a perfect number below two", set()),
        ("number more than seven", {8, 9}),
        ("a number no less than seven", {7, 8, 9}),
        ("bigger than three and smaller than six", {4, 5}),
    ],
)
def test_candidates(text, digits):
    assert H.candidates(text) == digits


@pytest.mark.parametrize(
    "text",
    ["", "   ", "a number", "seven", "an even number over fivee", "偶数", "below"],
)
def test_candidates_refuses(text):
    with pytest.raises(ValueError, match="text: expected a hint, got .*no phrase"):
        H.candidates(text)


def test_posterior_knows_its_split():
    alone = next(h for h in H.grammar("train") if len(h.parts) == 1)
    assert np.isclose(H.hint_posterior(H.spell(alone), "train").sum(), 1)
    with pytest.raises(ValueError, match="a hint of the test split"):
        H.hint_posterior(H.spell(alone), "test")
    with pytest.raises(ValueError, match="split: expected one of"):
        H.grammar("all")
