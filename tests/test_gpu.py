"`%%gpu` runs its cell on a GPU (a pretended one, here) or shows what was recorded."

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from mmcourse import gpu

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
CELL = 'y = 20 + 1\nprint("halfway")\n2*y\n'


@pytest.fixture
def shell():
    shell = InteractiveShell.instance()
    gpu.load_ipython_extension(shell)
    yield shell
    shell.reset()
    InteractiveShell.clear_instance()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "An empty folder in place of data/gpu; a machine without a GPU."
    found = gpu._path
    monkeypatch.setattr(gpu, "_path", lambda name, _=None: found(name, tmp_path))
    monkeypatch.delenv("MMCOURSE_GPU_RECORD", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


@pytest.fixture
def fake_gpu(folder, monkeypatch):
    "A pretended GPU whose cells are recorded."
    monkeypatch.setenv("MMCOURSE_GPU_RECORD", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Pretended GPU 80GB")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def run(shell, cell, name="demo", ok=True):
    "The cell as a learner runs it."
    result = shell.run_cell(f"%%gpu {name}\n{cell}")
    assert result.success == ok
    return result


# --- on a CPU


def test_nothing_recorded_is_said_and_nothing_runs(shell, folder, capsys):
    run(shell, "y = 1\nthis is not python")
    said = capsys.readouterr().out
    assert said.startswith("No GPU here, and no result is recorded for 'demo'.")
    assert "y" not in shell.user_ns


@pytest.mark.parametrize("name", ["", "two names", "../up", "Clip", "a/b", "a.json"])
def test_a_name_is_a_files_name(shell, folder, name):
    error = run(shell, CELL, name, ok=False).error_in_exec
    assert isinstance(error, ValueError)
    assert "%%gpu: expected one name" in str(error)


# --- recorded on a GPU, read on a CPU


def test_record_then_read(shell, folder, fake_gpu, monkeypatch, capsys):
    run(shell, CELL)
    assert "halfway\n" in capsys.readouterr().out
    assert shell.user_ns["y"] == 21
    (path,) = folder.iterdir()
    r = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "demo.json"
    assert r == gpu.recording("demo")
    assert r["device"] == "Pretended GPU 80GB"
    assert r["output"] == "halfway\n42"
    assert r["versions"]["torch"] == torch.__version__
    assert r["versions"]["python"] == sys.version.split()[0]
    datetime.strptime(r["date"], "%Y-%m-%d")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    del shell.user_ns["y"]
    run(shell, CELL)
    first, *rest = capsys.readouterr().out.splitlines()
    where = f"Pretended GPU 80GB, {r['date']} (torch {torch.__version__})"
    assert first.startswith(f"No GPU here. Recorded on {where}, ")
    assert rest == ["halfway", "42"]
    assert "y" not in shell.user_ns


def test_a_changed_cell_is_said(shell, folder, fake_gpu):
    run(shell, CELL)
    changed = "changed since: an earlier version gave this.\nhalfway\n42"
    same = '#| fig-alt: "an option"\n' + CELL + "  \n"
    assert changed not in gpu.describe("demo", same)
    assert changed in gpu.describe("demo", CELL.replace("20", "30"))


def test_nothing_is_recorded_unless_asked(shell, folder, fake_gpu, monkeypatch):
    monkeypatch.setenv("MMCOURSE_GPU_RECORD", "0")
    run(shell, CELL)
    assert not list(folder.iterdir())
    assert shell.user_ns["y"] == 21


@pytest.mark.parametrize(
    "cell, error",
    [('print("before")\n1/0', ZeroDivisionError), ("x = (", SyntaxError)],
)
def test_what_fails_is_an_error_and_not_recorded(
    shell, folder, fake_gpu, capsys, cell, error
):
    assert isinstance(run(shell, cell, ok=False).error_in_exec, error)
    assert not list(folder.iterdir())
    assert ("before" in cell) == ("before\n" in capsys.readouterr().out)


@pytest.mark.parametrize(
    "cell, text",
    [
        ("42;", ""),
        ("x = 1", ""),
        ("# a comment", ""),
        ("None", ""),
        ('print("é 中")', "é 中"),
        ('"a"', "'a'"),
        ("def f():\n    return 3\nf()", "3"),
        ("here = %pwd\nlen(here) > 0", "True"),
        ("import torch\ntorch.ones(2)", "tensor([1., 1.])"),
    ],
)
def test_what_a_cell_shows(shell, folder, fake_gpu, cell, text):
    run(shell, cell)
    assert gpu.recording("demo")["output"] == text


def test_names_defined_by_a_cell_are_there_for_the_next(shell, folder, fake_gpu):
    run(shell, "n = 3\ndef f(): return n")
    assert shell.run_cell("f()").result == 3


# --- the device, the import, the recordings that we ship


@pytest.mark.parametrize("there, name", [(True, "cuda"), (False, "cpu")])
def test_device(monkeypatch, there, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert gpu.device() == torch.device(name)


@pytest.mark.parametrize(
    "code, said",
    [
        (
            "import sys, mmcourse.gpu\n"
            "print({'torch', 'IPython', 'numpy'} & set(sys.modules) or None)",
            "None",
        ),
        (
            "from IPython.core.interactiveshell import InteractiveShell as S\n"
            "s = S.instance()\n"
            "s.run_cell('from mmcourse.gpu import device')\n"
            "print(s.find_cell_magic('gpu') is not None)",
            "True",
        ),
    ],
)
def test_import_costs_little_and_registers_the_magic(code, said):
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == said


def cells() -> list[tuple[str, str]]:
    "The name and the source of every `%%gpu` cell of the course."
    found = []
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            first, _, source = "".join(cell["source"]).partition("\n")
            if cell["cell_type"] == "code" and first.startswith("%%gpu"):
                found.append((first[5:].strip(), source))
    return found


def test_names_are_used_once():
    names = [name for name, _ in cells()]
    assert len(names) == len(set(names))


def test_what_we_ship_was_recorded_from_cells_as_they_stand():
    sources = dict(cells())
    for path in (ROOT / "data/gpu").glob("*.json"):
        r = json.loads(path.read_text(encoding="utf-8"))
        assert r["source_sha256"] == gpu._digest(sources[path.stem]), path
        assert "Pretended" not in r["device"], path
