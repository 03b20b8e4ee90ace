"`%%gpu` runs its cell on a GPU (a pretended one, here) and elsewhere shows what was recorded, or says that nothing was."

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from mmcourse import gpu

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
    monkeypatch.setattr(
        gpu, "_path", lambda name, _=None: tmp_path / f"{gpu._checked(name)}.json"
    )
    monkeypatch.delenv("MMCOURSE_GPU_RECORD", raising=False)
    return tmp_path


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def fake_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Pretended GPU 80GB")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def run(shell, cell, name="demo", ok=True):
    "The cell as a learner runs it."
    result = shell.run_cell(f"%%gpu {name}\n{cell}")
    assert result.success == ok
    return result


# --- on a CPU


def test_nothing_recorded_is_said(shell, folder, no_gpu, capsys):
    run(shell, CELL)
    assert (
        capsys.readouterr().out
        == "No GPU here, and no result is recorded for 'demo'. To record one, run this notebook with MMCOURSE_GPU_RECORD=1 on a machine with a CUDA GPU.\n"
    )
    assert "y" not in shell.user_ns


@pytest.mark.parametrize("text", ["{", "[]", '{"device": 3}', "\x00", ""])
def test_a_broken_recording_does_not_break_the_cell(
    shell, folder, no_gpu, capsys, text
):
    (folder / "demo.json").write_text(text)
    run(shell, CELL)
    assert (
        "the result recorded for 'demo' cannot be read (data/gpu/demo.json: expected"
        in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="data/gpu/demo.json: expected"):
        gpu.recording("demo")


def test_bytes_that_are_no_text(shell, folder, no_gpu, capsys):
    (folder / "demo.json").write_bytes(b"\xff\xfe\x00")
    run(shell, CELL)
    assert "cannot be read" in capsys.readouterr().out


def test_even_a_broken_cell_does_not_run(shell, folder, no_gpu, capsys):
    run(shell, "this is not python\n1/0")
    assert "no result is recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["", "two names", "../escape", "Clip", "a/b", ".hidden", "a.json"]
)
def test_bad_names_are_refused_everywhere(shell, folder, no_gpu, name):
    assert isinstance(run(shell, CELL, name, ok=False).error_in_exec, ValueError)
    with pytest.raises(ValueError, match="%%gpu: expected one name"):
        gpu.describe(name, CELL)


# --- recorded on a GPU, read on a CPU


def test_record_then_read(shell, folder, fake_gpu, monkeypatch, capsys):
    monkeypatch.setenv("MMCOURSE_GPU_RECORD", "1")
    run(shell, CELL)
    assert (
        capsys.readouterr().out.replace("Out[1]: ", "") == "halfway\n42\n"
        and shell.user_ns["y"] == 21
    )
    r = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    assert r == gpu.recording("demo") and set(r) == set(gpu.FIELDS)
    assert (
        r["device"] == "Pretended GPU 80GB"
        and r["output"] == "halfway\n42"
        and r["versions"]
        == {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        }
        and r["seconds"] >= 0
    )
    datetime.strptime(r["date"], "%Y-%m-%d")
    assert [p.name for p in folder.iterdir()] == ["demo.json"]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    del shell.user_ns["y"]
    run(shell, CELL)
    out = capsys.readouterr().out
    assert (
        re.fullmatch(
            rf"No GPU here\. Recorded on Pretended GPU 80GB, {r['date']} \(torch {re.escape(torch.__version__)}\), 0\.\d s:\nhalfway\n42\n",
            out,
        )
        and "y" not in shell.user_ns
    )

    run(
        shell, '#| fig-alt: "an option"\n' + CELL + "  \n"
    )  # an option or a blank is no change
    assert "changed since" not in capsys.readouterr().out
    run(shell, CELL.replace("20", "30"))
    assert (
        "The cell has been changed since: this is what an earlier version of it gave.\nhalfway\n42\n"
        in capsys.readouterr().out
    )


def test_nothing_is_recorded_unless_asked(shell, folder, fake_gpu):
    run(shell, CELL)
    assert not list(folder.iterdir())


def test_what_fails_is_an_error_and_not_recorded(
    shell, folder, fake_gpu, monkeypatch, capsys
):
    monkeypatch.setenv("MMCOURSE_GPU_RECORD", "1")
    result = run(shell, 'print("before")\n1/0', ok=False)
    assert (
        isinstance(result.error_in_exec, ZeroDivisionError)
        and not list(folder.iterdir())
        and "before" in capsys.readouterr().out
    )
    assert isinstance(run(shell, "x = (", ok=False).error_in_exec, SyntaxError)


@pytest.mark.parametrize(
    "cell,text",
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
def test_what_a_cell_shows(shell, folder, fake_gpu, monkeypatch, cell, text):
    monkeypatch.setenv("MMCOURSE_GPU_RECORD", "1")
    run(shell, cell)
    assert gpu.recording("demo")["output"] == text


def test_names_defined_by_a_cell_are_there_for_the_next(shell, folder, fake_gpu):
    run(shell, "n = 3\ndef f(): return n")
    assert shell.run_cell("f()").result == 3


# --- the device, the import, the recordings that we ship


def test_device(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        assert gpu.device() == torch.device("cuda" if there else "cpu")


def test_import_costs_little_and_needs_no_notebook():
    code = 'import sys, mmcourse.gpu; print(sorted({"torch", "IPython", "numpy"} & set(sys.modules)))'
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


def test_import_registers_the_magic():
    code = 'from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance(); s.run_cell("from mmcourse.gpu import device"); print(s.find_cell_magic("gpu") is not None)'
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        .stdout.strip()
        .endswith("True")
    )


def cells():
    "Every `%%gpu` cell of the course."
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith("%%gpu"):
                yield (
                    path.name,
                    source.partition("\n")[0][5:].strip(),
                    source.partition("\n")[2],
                )


def test_names_are_used_once():
    names = [name for _, name, _ in cells()]
    assert len(names) == len(set(names)) and all(map(gpu._checked, names))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data/gpu").glob("*.json")), ids=lambda p: p.stem
)
def test_what_we_ship_was_recorded_from_a_cell_as_it_stands(path):
    r = gpu.recording(path.stem)
    (source,) = [source for _, name, source in cells() if name == path.stem]
    assert r["source_sha256"] == gpu._digest(source), (
        "the cell has been changed since its recording"
    )
    assert "Pretended" not in r["device"] and datetime.strptime(r["date"], "%Y-%m-%d")
