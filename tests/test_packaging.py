"What no notebook can test about the package: how it installs, what it costs to import, whether it is what the notebooks export."

import json
import os
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "mmcourse").rglob("*.py")
    if p.name not in ("__init__.py", "_modidx.py", "__main__.py")
)
NOTEBOOKS = sorted(
    p
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts)
)
HEAVY = {
    "torch",
    "keras",
    "librosa",
    "sklearn",
    "matplotlib",
    "scipy",
    "pandas",
    "mlxtend",
    "nltk",
}
cfg = ConfigParser(delimiters=["="])
cfg.read(ROOT / "settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]


def python(code, **kwargs):
    "Run `code` in a fresh interpreter at the repository's root; its standard output."
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}
    r = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        **kwargs,
    )
    assert r.returncode == 0, r.stderr
    return r.stdout.strip()


def tracked():
    r = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if r.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / f for f in r.stdout.split("\0") if f and (ROOT / f).is_file()]


def texts():
    for p in tracked():
        try:
            yield p.relative_to(ROOT), p.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    r = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(out),
            str(ROOT),
        ],
        capture_output=True,
        text=True,
    )
    assert r.returncode == 0, r.stderr
    return next(out.glob("*.whl"))


def test_wheel_is_small_and_carries_the_data(wheel):
    assert wheel.stat().st_size < 20e6
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [
        p
        for p in tracked()
        if p.parent == ROOT / "data"
        and p.suffix in (".npz", ".json", ".safetensors", ".md")
    ]
    assert data and all(f"mmcourse/data/{p.name}" in names for p in data)
    assert all(m.replace(".", "/") + ".py" in names for m in MODULES)


def test_installed_wheel_finds_its_data(wheel, tmp_path):
    "Unpacked elsewhere, away from the checkout, the library loads the digits that it ships."
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = 'import mmcourse, mmcourse.datasets as d; print(mmcourse.__file__); print(len(d.spoken_digits("valid")["label"]) > 0)'
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "PYTHONPATH": str(tmp_path)
    }
    r = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
    )
    assert r.returncode == 0, r.stderr
    where, found = r.stdout.split("\n")[:2]
    assert str(tmp_path) in where and found == "True"


def test_import_costs_little():
    code = "import time; t = time.perf_counter(); import mmcourse; print(1000*(time.perf_counter() - t))"
    assert min(float(python(code)) for _ in range(5)) < 50  # milliseconds
    assert not HEAVY & set(python("import mmcourse, sys; print(*sys.modules)").split())


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_alone_and_quietly(module):
    "Each module works without a notebook around it, and loads none of the libraries that only some of its functions need."
    loaded = set(
        python(
            f'import {module}, sys; print(*{{m.partition(".")[0] for m in sys.modules}})'
        ).split()
    )
    assert not {"keras", "librosa", "mlxtend", "pandas", "nltk"} & loaded


def test_library_is_what_the_notebooks_export(tmp_path):
    pytest.importorskip("nbdev")
    tmp_path = (
        tmp_path / "mmcourse"
    )  # nbdev makes imports of the package relative, which it knows by its folder
    code = f"""
from pathlib import Path
from nbdev.export import nb_export
root, out = Path({str(ROOT)!r}), Path({str(tmp_path)!r})
for nb in sorted((root/"nbs").rglob("*.ipynb")):
    if not any(part.startswith((".", "_")) for part in nb.relative_to(root).parts): nb_export(nb, lib_path=out)
"""
    python(code)
    exported = {
        p.relative_to(tmp_path): p.read_text(encoding="utf-8")
        for p in tmp_path.rglob("*.py")
        if not p.name.startswith("_")
    }
    ours = {
        p.relative_to(ROOT / "mmcourse"): p.read_text(encoding="utf-8")
        for p in (ROOT / "mmcourse").rglob("*.py")
        if not p.name.startswith("_")
    }
    assert set(exported) == set(ours)
    code_of = lambda text: re.sub(
        r"^# (%%|AUTOGENERATED).*$", "", text, flags=re.M
    )  # the markers hold paths relative to the target
    for name in ours:
        assert code_of(ours[name]) == code_of(exported[name]), f"{name}: make export"


def test_one_chapter_one_module():
    "Chapter `<number>_<chapter>.ipynb` is the only notebook that exports its module."
    owners = {}
    for p in NOTEBOOKS:
        for cell in json.loads(p.read_text(encoding="utf-8"))["cells"]:
            m = re.search(r"^#\|\s*default_exp\s+(\S+)", "".join(cell["source"]), re.M)
            if m:
                owners.setdefault(m[1], []).append(p.name)
    assert owners and all(len(v) == 1 for v in owners.values()), owners
    assert set(MODULES) == {f"mmcourse.{m}" for m in owners}


@pytest.mark.parametrize(
    "nb", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix()
)
def test_notebook_is_as_committed_ones_are(nb):
    "Executed in order without an error, clean metadata, figures with alt text, no directive beside a YAML option."
    book = json.loads(nb.read_text(encoding="utf-8"))
    code = [c for c in book["cells"] if c["cell_type"] == "code"]
    assert nb.stat().st_size < 2e6
    assert not any(o["output_type"] == "error" for c in code for o in c["outputs"])
    assert not any(o.get("name") == "stderr" for c in code for o in c["outputs"])
    assert "exercises" in nb.parts or any(c["outputs"] for c in code), (
        "no stored output: the site shows stored outputs"
    )
    for c in code:
        src = "".join(c["source"])
        assert c["execution_count"] is None and not c["metadata"], (
            f"make notebooks: {src[:60]}"
        )
        assert len(src.splitlines()) <= 40, src[
            :60
        ]  # the longest is `training.fit`, half of it the list of its arguments
        options = re.findall(r"^#\|\s*([\w-]+)(:?)", src, re.M)
        assert len({bool(colon) for _, colon in options}) < 2, (
            f"a directive and a YAML option share a cell: {src[:60]}"
        )
        if any("image/png" in o.get("data", {}) for o in c["outputs"]):
            assert re.search(r"^#\|\s*fig-alt:\s*\S", src, re.M), (
                f"figure without fig-alt: {src[:80]}"
            )


def test_readme_is_written_from_the_home_page():
    r = subprocess.run(
        [sys.executable, str(ROOT / "tools/readme.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert r.returncode == 0, r.stdout + r.stderr


def test_the_home_page_lists_every_chapter():
    page = (ROOT / "nbs/index.ipynb").read_text(encoding="utf-8")
    assert [
        p.name
        for p in NOTEBOOKS
        if re.match(r"\d\d_", p.name)
        and "exercises" not in p.parts
        and f"({p.relative_to(ROOT / 'nbs').as_posix()})" not in page
    ] == []


def test_the_address_stands_in_settings_alone():
    address = [f"github.com/{cfg['user']}/{cfg['repo']}", f"{cfg['user']}.github.io"]
    assert [
        str(p)
        for p, text in texts()
        if str(p) != "settings.ini" and any(a in text for a in address)
    ] == []


def test_nothing_of_one_machine_is_committed():
    "No absolute path into somebody's home or work folder, no registry's host name."
    trouble = re.compile(
        "|".join(
            [
                r"/home/\w+/",
                r"/Users/\w+/",
                r"[A-Z]:\\\\Users",
                r"(?<![\w.])/work/",
                r"/root/",
                "files" + r"\.pythonhosted\.org",
                "pypi" + r"\.org/simple",
                "registry" + r"\.npmjs\.org",
                "download" + r"\.pytorch\.org",
            ]
        )
    )
    found = {
        str(p): m[0]
        for p, text in texts()
        if (m := trouble.search(text))
        and p != Path(__file__).resolve().relative_to(ROOT)
    }
    assert not found


def test_lock_and_ranges_agree():
    "Every library that settings.ini asks for has one exact version in constraints.txt, within its range; the ranges themselves pin nothing."
    from packaging.requirements import Requirement

    lock = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    lock = {k.lower().replace("_", "-"): v for k, v in lock.items()}
    for field in (
        "requirements",
        "site_requirements",
        "lab_requirements",
        "dev_requirements",
    ):
        for r in map(Requirement, cfg[field].split()):
            assert "==" not in str(r.specifier), r
            assert r.specifier.contains(lock[r.name.lower().replace("_", "-")]), (
                f"{r}: constraints.txt has {lock[r.name]}"
            )
