"""Byte-pair encoding on 1 MB: the fast trainer against a recount of everything after each merge, and the speed of encode, decode and tokenize.

    python benchmarks/text.py [merges]

The text is what every Python ships (its manual's topics, its modules' sources), and the Chinese names of the emoji. All timings are taken in one run, in turns, on one thread."""

import inspect
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.text import BPE, chunks, learn_merges, merge, tokenize

MB = 10**6


def sample() -> str:  # 1 MB of UTF-8
    "Four fifths English and Python, one fifth Chinese."
    import argparse
    import ast
    import asyncio.base_events
    import datetime
    import difflib
    import email.message
    import pydoc
    import pydoc_data.topics
    import typing
    import unittest.mock
    import zipfile

    from mmcourse.datasets import emoji

    english = "".join(pydoc_data.topics.topics.values()) + "".join(
        map(
            inspect.getsource,
            (
                argparse,
                ast,
                asyncio.base_events,
                datetime,
                difflib,
                email.message,
                pydoc,
                typing,
                unittest.mock,
                zipfile,
            ),
        )
    )
    chinese = "，".join(emoji(8)["name"]["zh"])
    english = english.encode()[: 4 * MB // 5].decode(errors="ignore")
    chinese = (
        (chinese * (1 + MB // len(chinese.encode())))
        .encode()[: MB - len(english.encode())]
        .decode(errors="ignore")
    )
    return english + chinese


def recount(words: dict, n_merges: int) -> list:
    "The peer: all pairs counted again after every merge."
    words, merges = {tuple(w): n for w, n in words.items()}, []
    for k in range(n_merges):
        count = Counter()
        for w, n in words.items():
            for p in zip(w, w[1:]):
                count[p] += n
        merges.append(min(count, key=lambda p: (-count[p], p)))
        words = {merge(w, merges[-1], 256 + k): n for w, n in words.items()}
    return merges


def timed(f, *args):
    start = time.perf_counter()
    out = f(*args)
    return time.perf_counter() - start, out


def main(n_merges: int = 4000, compared: int = 20, repeats: int = 3):
    text = sample()
    size = len(text.encode()) / MB
    words = {
        w.encode("utf-8", "surrogatepass"): n for w, n in Counter(chunks(text)).items()
    }
    print(f"{size:.2f} MB, {len(words):,} different chunks")
    laps = {
        "train": [],
        "fast": [],
        "slow": [],
        "encode": [],
        "again": [],
        "decode": [],
        "tokenize": [],
    }
    lines = [line for line in text.splitlines() if line.strip()][:2000]
    for _ in range(repeats):
        s, bpe = timed(BPE.train, text, n_merges)
        laps["train"].append(s)
        s, fast = timed(learn_merges, words, compared)
        laps["fast"].append(s)
        s, slow = timed(recount, words, compared)
        laps["slow"].append(s)
        assert fast == slow == bpe.merges[:compared]
        s, ids = timed(bpe.encode, text)
        laps["encode"].append(s)
        s, _ = timed(bpe.encode, text)
        laps["again"].append(s)
        s, back = timed(bpe.decode, ids)
        laps["decode"].append(s)
        assert back == text
        laps["tokenize"].append(timed(lambda: [tokenize(line) for line in lines])[0])
    best = {k: min(v) for k, v in laps.items()}
    print(
        f"train, {len(bpe.merges):,} merges      {best['train']:6.2f} s (median {statistics.median(laps['train']):.2f})"
    )
    print(
        f"first {compared} merges           {best['fast']:6.2f} s, recounting {best['slow']:.2f} s: {best['slow'] / best['fast']:.1f} times"
    )
    print(
        f"encode, first time        {best['encode']:6.2f} s, {size / best['encode']:.1f} MB/s; again {size / best['again']:.1f} MB/s; {len(text.encode()) / len(ids):.2f} bytes a token"
    )
    print(
        f"decode                    {best['decode']:6.2f} s, {size / best['decode']:.1f} MB/s"
    )
    print(
        f"tokenize, {len(lines):,} lines     {best['tokenize']:6.2f} s, {sum(map(len, lines)) / MB / best['tokenize']:.2f} MB/s"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
