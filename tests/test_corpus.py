"The text that every Python has, and what is kept of it from training."

import os
import re

import pytest

from mmcourse.corpus import (
    held_out_files,
    library_words,
    package_of,
    pieces,
    related_words,
)


@pytest.fixture(scope="module")
def library():
    return library_words()


def test_library(library):
    assert len(library) > 300 and sum(map(len, library.values())) > 700_000
    assert {"textwrap.py", "email/message.py", "topics/if"} <= set(library)
    assert library["textwrap.py"][:4] == ["text", "wrapping", "and", "filling"]
    assert all(re.fullmatch("[a-z]{2,}", word) for word in library["topics/if"])
    left_out = {"test", "tests", "site-packages", "idlelib", "encodings"}
    assert not any(left_out & set(name.split("/")) for name in library)


def test_library_without_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "__file__", str(tmp_path / "os.py"))
    with pytest.raises(FileNotFoundError, match="^library: expected Python's sources"):
        library_words()


def test_packages():
    assert package_of("email/mime/text.py") == "email"
    assert package_of("textwrap.py") is None
    assert package_of("topics/if") is None


def test_every_third_file_is_kept():
    names = [f"big/{i}.py" for i in range(7)] + [f"small/{i}.py" for i in range(5)]
    library = dict.fromkeys([*names, "big.py", *[f"topics/{i}" for i in range(9)]], [])
    assert held_out_files(library) == {"big/2.py": "big", "big/5.py": "big"}
    assert len(held_out_files(library, least=5)) == 3


def test_related_words():
    found = related_words(["end", "start", "file", "files", "a", "as", "min"])
    assert found == {"by hand": [(1, 0)], "plurals": [(2, 3)]}


def test_pieces():
    assert pieces([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4]]
    assert pieces([1], 2) == [] and pieces([1, 2], 2) == [[1, 2]]
    assert len(pieces(list(range(121)))) == 2
