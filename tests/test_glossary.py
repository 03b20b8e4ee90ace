"""The glossary: rows are whole, links lead somewhere, terms are taught there."""

import json
import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "nbs" / "appendix" / "glossary.ipynb"
LINK = re.compile(r"\[(\d\d) ([^]]+)\]\((\.\./[^)]+\.ipynb)\)")


def rows():
    cells = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
    lines = "\n".join("".join(c["source"]) for c in cells).splitlines()
    found = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [row for row in found if LINK.fullmatch(row[-1])]


ROWS = rows()


def text(path):
    "The prose of a chapter, in lower case."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = [c for c in cells if c["cell_type"] == "markdown"]
    found = " ".join("".join(c["source"]) for c in prose).lower()
    return re.sub("(al|im|or)is", r"\1iz", found)


def test_every_term_once_and_whole():
    assert len(ROWS) > 100 and all(len(row) == 5 for row in ROWS)
    names = [row[0].lower() for row in ROWS]
    assert len(set(names)) == len(names)
    for english, chinese, pinyin, meaning, _ in ROWS:
        assert english.isascii() or "–" in english
        assert re.search("[\u4e00-\u9fff]", chinese), chinese
        assert not re.search("[\u4e00-\u9fff]", pinyin), pinyin
        assert meaning.endswith(".") and meaning[0].isupper()


def test_pinyin_has_a_tone_for_nearly_each_character():
    "Neutral tones and Latin words have none; a missing line of tones would show."
    for _, chinese, pinyin, *_ in ROWS:
        tones = sum(
            c in "\u0304\u0301\u030c\u0300"
            for c in unicodedata.normalize("NFD", pinyin)
        )
        han = len(re.findall("[\u4e00-\u9fff]", chinese))
        assert han - 1 <= tones <= han, (chinese, pinyin)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_term_is_used_in_its_chapter(row):
    number, title, target = LINK.fullmatch(row[-1]).groups()
    path = (PAGE.parent / target).resolve()
    assert path.stem == f"{number}_{title.replace(' ', '_')}"
    prose = text(path)
    wanted = row[0].lower()
    short = {"long short-term memory": "lstm", "gated recurrent unit": "gru"}
    words = re.split(r"[ ,]+", short.get(wanted, wanted))
    stems = [re.sub("(ting|ing|ation|s)$", "", w) for w in words]
    assert all(stem in prose for stem in stems)
