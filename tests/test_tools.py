"A notebook that was opened is no change; one that was changed survives an update."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import tool

ROOT = Path(__file__).resolve().parent.parent
NB = [sys.executable, ROOT / "tools/nb.py", "clean"]
CHAPTER = ROOT / "nbs/1_data/01_three_views.ipynb"


def cleaned(text):
    done = subprocess.run(NB, input=text.encode(), capture_output=True, check=True)
    return done.stdout.decode()


def as_jupyterlab_saves(text):
    "The notebook after it was opened, run and folded here and there."
    nb = json.loads(text)
    nb["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    nb["metadata"]["language_info"] = {"name": "python", "version": "3.12.1"}
    for n, cell in enumerate(nb["cells"]):
        cell["metadata"]["collapsed"] = True
        cell["metadata"].setdefault("jupyter", {})["outputs_hidden"] = True
        if cell["cell_type"] == "code":
            cell["execution_count"] = n
    return json.dumps(nb, indent=1)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    "A clone of a repository with one chapter, in which a learner works."
    monkeypatch.chdir(tmp_path)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@b.c")
    for name in [k for k in os.environ if k in ("GIT_DIR", "GIT_WORK_TREE")]:
        monkeypatch.delenv(name)
    git("init", "-q", "origin")
    origin = tmp_path / "origin"
    (origin / "nbs").mkdir()
    (origin / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    (origin / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    (origin / "nbs/01.ipynb").write_bytes(CHAPTER.read_bytes())
    commit(origin)
    git("clone", "-q", "origin", "learner")
    monkeypatch.chdir("learner")
    git("config", "filter.notebook.clean", f'"{sys.executable}" "{NB[1]}" clean')
    return tmp_path / "learner"


def git(*args, at="."):
    run = ["git", "-C", at, *args]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout


def commit(folder):
    git("add", "-A", at=folder)
    git("commit", "-qm", "more", at=folder)


def test_every_notebook_is_committed_clean():
    nb = tool("nb")
    for path in nb.notebooks():
        text = path.read_text(encoding="utf-8")
        assert nb.clean(text) == text, path.name


def test_a_script_turns_back_into_its_notebook(tmp_path):
    nb = tool("nb")
    for path in (CHAPTER, ROOT / "nbs/4_fusion/16_feature_fusion.ipynb"):
        nb.script(path, tmp_path / "script.py")
        nb.build(tmp_path / "script.py", tmp_path / "again.ipynb")
        again = json.loads((tmp_path / "again.ipynb").read_text(encoding="utf-8"))
        there = json.loads(path.read_text(encoding="utf-8"))
        for a, b in zip(again["cells"], there["cells"], strict=True):
            b.pop("outputs", None), a.pop("outputs", None)
            assert "".join(a.pop("source")) == "".join(b.pop("source"))
            assert a == b


def test_an_opened_notebook_is_no_change(clone):
    text = CHAPTER.read_text(encoding="utf-8")
    assert cleaned(as_jupyterlab_saves(text)) == text
    (clone / "nbs/01.ipynb").write_text(as_jupyterlab_saves(text), encoding="utf-8")
    assert git("diff", "--stat") == ""
    nb = json.loads(text)
    nb["cells"][-1]["source"] = ["mine"]
    (clone / "nbs/01.ipynb").write_text(json.dumps(nb), encoding="utf-8")
    assert "nbs/01.ipynb" in git("diff", "--stat")


def test_an_update_keeps_what_was_changed(clone):
    mine, place = '{"cells": [], "metadata": {}, "mine": 1}', clone / "nbs/01.ipynb"
    for n, kept in enumerate(("01.ipynb", "01_2.ipynb")):
        place.write_text(mine, encoding="utf-8")
        theirs = CHAPTER.read_text(encoding="utf-8").replace("# ", f"# {n} ", 1)
        origin = clone.parent / "origin"
        (origin / "nbs/01.ipynb").write_text(theirs, encoding="utf-8")
        commit(origin)
        run = [sys.executable, ROOT / "tools/update.py"]
        said = subprocess.run(run, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        assert f"nbs/01.ipynb: your copy is mine/{kept}" in said.stdout
        assert place.read_text(encoding="utf-8") == theirs
        assert (clone / "mine" / kept).read_text(encoding="utf-8") == mine
        assert git("status", "--porcelain") == ""
