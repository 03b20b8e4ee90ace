"""Byte-pair encoding on 1 MB of text: the fast trainer against a recount at each merge,
and the speed of encode, decode and tokenize.

    python benchmarks/text.py [merges]

The text is what every Python ships (its manual's topics, some sources) and the Chinese
names of the emoji. One thread; runs take turns, the shortest of three counts.
"""

import argparse
import ast
import difflib
import inspect
import pydoc
import pydoc_data.topics
import sys
import typing
import unittest.mock
from collections import Counter
from itertools import pairwise

from timing import fastest, line

from mmcourse.datasets import emoji
from mmcourse.text import BPE, learn_merges, merge_pair, pretokenize, tokenize

MB = 10**6
SOURCES = argparse, ast, difflib, pydoc, typing, unittest.mock


def sample() -> str:
    "1 MB of UTF-8: four fifths English and Python, one fifth Chinese."
    english = [*pydoc_data.topics.topics.values(), *map(inspect.getsource, SOURCES)]
    english = "".join(english).encode()[: 4 * MB // 5].decode(errors="ignore")
    chinese = "，".join(name for name in emoji(8)["name"]["zh"] if name)
    room = MB - len(english.encode())
    times = 1 + room // len(chinese.encode())
    return english + (chinese * times).encode()[:room].decode(errors="ignore")


def recount(words: dict, n_merges: int) -> list:
    "The peer: all pairs counted again after every merge."
    words, merges = {tuple(w): n for w, n in words.items()}, []
    for k in range(n_merges):
        count = Counter()
        for w, n in words.items():
            for p in pairwise(w):
                count[p] += n
        merges.append(min(count, key=lambda p: (-count[p], p)))
        words = {merge_pair(w, merges[-1], 256 + k): n for w, n in words.items()}
    return merges


def main(n_merges: int = 4000, compared: int = 20):
    text = sample()
    words = Counter(chunk.encode() for chunk in pretokenize(text))
    lines = [x for x in text.splitlines() if x.strip()][:2000]
    bpe = BPE.train([text], n_merges)
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert bpe.merges[:compared] == recount(words, compared)
    print(f"{len(words):,} chunks, {len(text.encode()) / len(ids):.2f} bytes a token")
    fast, slow = fastest(
        lambda: learn_merges(words, compared),
        lambda: recount(words, compared),
        repeats=3,
    )
    line(f"the first {compared} merges, against a recount", fast, slow)
    runs = {
        f"train, {n_merges:,} merges": lambda: BPE.train([text], n_merges),
        "encode, first time": lambda: BPE(bpe.merges).encode(text),
        "encode, again": lambda: bpe.encode(text),
        "decode": lambda: bpe.decode(ids),
        "tokenize, 2,000 lines": lambda: [tokenize(x) for x in lines],
    }
    for name, seconds in zip(runs, fastest(*runs.values(), repeats=3)):
        print(f"{name:24} {seconds:6.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
