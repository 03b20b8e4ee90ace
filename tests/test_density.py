"""A chapter shows little code at a time, and explains it.
`python tools/nb.py density` prints the table that these lines come from.
"""

import statistics
from pathlib import Path

import pytest

from conftest import tool

ROOT = Path(__file__).resolve().parent.parent
nb = tool("nb")

CHAPTERS = {path.stem: nb.count(path) for path in nb.chapters()}
SIZES = [n for chapter in CHAPTERS.values() for n in chapter["sizes"]]


def total(key):
    return sum(chapter[key] for chapter in CHAPTERS.values())


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter(name):
    "No open cell over 25 lines, at most 750 lines, none wider than a page."
    chapter = CHAPTERS[name]
    assert chapter["open_long"] == 0 and chapter["wide"] == 0
    assert chapter["lines"] <= 750


def test_cells_are_short():
    assert statistics.median(SIZES) <= 7
    assert nb.ninth(SIZES) <= 18


def test_chapters_are_short():
    assert total("lines") / len(CHAPTERS) <= 600


def test_more_is_said_than_shown():
    assert total("words") / total("lines") >= 6


def test_the_table_counts(tmp_path):
    "Two cells of code, of 1 and 26 lines, the second folded; five words of prose."
    cells = [
        {"cell_type": "markdown", "source": ["# Two words\n", "and three more"]},
        {"cell_type": "code", "source": ["x = 1\n", "\n"]},
        {"cell_type": "code", "source": ["#| code-fold: true\n", *["y = 2\n"] * 25]},
    ]
    path = tmp_path / "01_made.ipynb"
    path.write_text(nb.json.dumps({"cells": cells}), encoding="utf-8")
    counted = nb.count(path)
    assert counted["sizes"] == [1, 26] and counted["words"] == 5
    assert (counted["long"], counted["open_long"], counted["wide"]) == (1, 0, 0)
    cells[2]["source"] = ["y = 2" + " " * 90 + "+ 1\n", *["y = 2\n"] * 25]
    path.write_text(nb.json.dumps({"cells": cells}), encoding="utf-8")
    assert (nb.count(path)["open_long"], nb.count(path)["wide"]) == (1, 1)
    assert nb.ninth(list(range(1, 11))) == 9
