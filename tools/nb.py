"""Work on notebooks: as scripts, executed, exported, formatted, measured.

    python tools/nb.py script NOTEBOOK.ipynb SCRIPT.py  # a notebook as a percent script
    python tools/nb.py build SCRIPT.py NOTEBOOK.ipynb   # and back, without outputs
    python tools/nb.py run [NOTEBOOK.ipynb …]           # execute in place (or all)
    python tools/nb.py export                           # nbs/ -> mmcourse/, formatted
    python tools/nb.py density                          # how dense the chapters are
    python tools/nb.py clean                            # git's filter: stdin to stdout

What a reader need not see stands in a cell's metadata and not in its code. In a script
it stands on lines of its own at the head of a cell, and `build` moves it:

    # %% [fold]                 hidden in JupyterLab, folded on the site
    # NBVAL_IGNORE_OUTPUT       the output may differ from run to run
    #| fig-alt: "…"             what the figure shows, for those who cannot see it
    #| fig-cap: "…"             its caption

Cell ids are the cells' places, so that rebuilding a notebook leaves a readable diff.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}
IGNORE, FOLD = "nbval-ignore-output", "#| code-fold: true"
FIGURE = re.compile(r'#\|\s*(fig-alt|fig-cap):\s*(".*"|.*)\s*$')


def notebooks() -> list[Path]:
    "Every notebook of the course, in its order."
    found = sorted((ROOT / "nbs").rglob("*.ipynb"))
    return [p for p in found if not _hidden(p.relative_to(ROOT))]


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def parse_cells(text: str) -> list[tuple[str, str, bool]]:
    "The cells of a percent script: kind, source, whether it is folded."
    cells, lines, head = [], [], None
    for line in [*text.splitlines(), "# %%"]:
        if not line.startswith("# %%"):
            lines.append(line)
            continue
        if head is not None:
            kind = "markdown" if "[markdown]" in head else "code"
            source = "\n".join(lines).strip("\n")
            cells.append((kind, source, "[fold]" in head))
        head, lines = line, []
    return [c for c in cells if c[1].strip()]


def to_markdown(source: str) -> str:
    "The text of a markdown cell, whose lines stand as comments in a script."
    return "\n".join(re.sub(r"^# ?", "", line) for line in source.split("\n"))


def to_code(source: str, folded: bool) -> tuple[str, dict]:
    "A code cell's source and metadata, from its source in a script."
    metadata, kept, lines = {}, [], source.split("\n")
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        line = lines.pop(0)
        if m := FIGURE.match(line):
            value = m[2]
            metadata[m[1]] = json.loads(value) if value.startswith('"') else value
        elif line.strip() == "# NBVAL_IGNORE_OUTPUT":
            metadata["tags"] = [IGNORE]
        elif line.strip() == FOLD:
            folded = True
        elif line.strip() or kept:
            kept.append(line)
    if folded:
        metadata["jupyter"] = {"source_hidden": True}
        exported = any(re.match(r"#\|\s*exports?\b", line) for line in kept)
        kept = kept if exported else [FOLD, *kept]  # nbdev hides an exported cell
    return "\n".join([*kept, *lines]).strip("\n"), metadata


def build(script: Path, notebook: Path):
    "Write `notebook`, without outputs, from the cells of a percent script."
    import nbformat
    from nbformat import v4

    nb = v4.new_notebook(metadata={"kernelspec": dict(KERNEL)})
    for i, (kind, source, folded) in enumerate(
        parse_cells(script.read_text(encoding="utf-8"))
    ):
        if kind == "markdown":
            cell = v4.new_markdown_cell(to_markdown(source))
        else:
            code, metadata = to_code(source, folded)
            cell = v4.new_code_cell(code, metadata=metadata)
        cell["id"] = f"cell-{i:03d}"
        nb.cells.append(cell)
    notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, notebook)
    _ruff("format", notebook)


def script(notebook: Path, script: Path):
    "Write a notebook as a percent script that `build` turns back into it."
    nb = json.loads(notebook.read_text(encoding="utf-8"))
    out = []
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines = [f"# {line}".rstrip() for line in source.split("\n")]
            out.append("\n".join(["# %% [markdown]", *lines]))
        else:
            out.append("\n".join([*_heads(cell["metadata"]), source]))
    script.write_text("\n\n".join(out) + "\n", encoding="utf-8")


def _heads(metadata: dict) -> list[str]:
    hidden = metadata.get("jupyter", {}).get("source_hidden", False)
    heads = ["# %% [fold]" if hidden else "# %%"]
    if IGNORE in metadata.get("tags", []):
        heads.append("# NBVAL_IGNORE_OUTPUT")
    for key in ("fig-alt", "fig-cap"):
        if key in metadata:
            text = json.dumps(metadata[key], ensure_ascii=False)
            heads.append(f"#| {key}: {text}")
    return heads


def run(notebook: Path, timeout: int = 600) -> float:
    "Execute `notebook` in its own folder and write it back; returns its seconds."
    import nbformat
    from nbclient import NotebookClient
    from nbdev.clean import clean_nb

    nb = nbformat.read(notebook, as_version=4)
    start = time.perf_counter()
    NotebookClient(
        nb,
        timeout=timeout,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(notebook.parent)}},
    ).execute()
    seconds = time.perf_counter() - start
    clean_nb(nb, allowed_cell_metadata_keys=list(KEPT))
    nbformat.write(nb, notebook)
    return seconds


KEPT = "tags", "jupyter", "fig-alt", "fig-cap"


def clean(text: str) -> str:
    """A notebook's text without what an editor adds: versions, counts, what is folded
    just now. What is committed stays as it is."""
    nb = json.loads(text)
    nb["metadata"] = {"kernelspec": dict(KERNEL)}
    for cell in nb["cells"]:
        kept = {k: v for k, v in cell["metadata"].items() if k in KEPT}
        if kept.pop("jupyter", {}).get("source_hidden"):
            kept["jupyter"] = {"source_hidden": True}
        cell["metadata"] = kept
        if cell["cell_type"] == "code":
            cell["execution_count"] = None
        for output in cell.get("outputs", []):
            if "execution_count" in output:
                output["execution_count"] = None
    return json.dumps(nb, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _ruff(*args):
    subprocess.run([sys.executable, "-m", "ruff", "-q", *map(str, args)], check=False)


def export(out: Path = ROOT / "mmcourse"):
    "Write the library from the notebooks, in the field's standard format."
    from nbdev.export import nb_export

    os.chdir(ROOT)
    for notebook in notebooks():
        nb_export(notebook, lib_path=out)
    for module in out.rglob("*.py"):
        module.write_text(_wrapped(module.read_text(encoding="utf-8")), "utf-8")
    config = ROOT / "pyproject.toml"
    _ruff("check", "--config", config, "--select", "I", "--fix", out)
    _ruff("format", "--config", config, out)


def _wrapped(text: str) -> str:
    "A module's text with its docstring, a chapter's promise, at most 88 wide."
    first, newline, rest = text.partition("\n")
    if len(first) > 88 and first.startswith('"""') and first.endswith('"""'):
        first = textwrap.fill(first, 88)
    made = "# AUTOGENERATED! DO NOT EDIT! File to edit: "
    rest = re.sub(rf"^{made}(?=.{{45,}}$)", f"{made.strip()}\n# ", rest, flags=re.M)
    return first + newline + rest


def chapters() -> list[Path]:
    "The numbered chapters, which the measure of density is for."
    found = [p for p in notebooks() if re.match(r"\d\d_", p.name)]
    return [p for p in found if "exercises" not in p.parts]


def count(notebook: Path) -> dict:
    "Lines and words of one chapter; blank lines of code do not count."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    prose = "\n".join("".join(c["source"]) for c in cells if c not in code)
    lines = [[x for x in "".join(c["source"]).splitlines() if x.strip()] for c in code]
    folded = [
        "code-fold: true" in "".join(c["source"])
        or c.get("metadata", {}).get("jupyter", {}).get("source_hidden", False)
        for c in code
    ]
    sizes = [len(x) for x in lines]
    long = [n for n, hidden in zip(sizes, folded, strict=True) if n > 25]
    open_long = [n for n, f in zip(sizes, folded, strict=True) if n > 25 and not f]
    return {
        "chapter": notebook.stem,
        "sizes": sizes,
        "long": len(long),
        "open_long": len(open_long),
        "lines": sum(sizes),
        "wide": sum(len(x) > 88 for cell in lines for x in cell),
        "words": len(re.findall(r"\w+", prose)),
    }


def ninth(sizes: list[int]) -> int:
    "The size that nine cells in ten do not pass."
    return sorted(sizes)[int(0.9 * (len(sizes) - 1))]


def density(paths: list[Path]) -> str:
    "The table of density: one row a chapter, and one for all."
    rows = [count(p) for p in paths]
    head = f"{'chapter':26}{'median':>7}{'9/10':>6}{'>25':>5}{'open':>6}{'lines':>7}"
    out = [head + f"{'>88':>5}{'words/line':>12}"]
    total = {
        "chapter": "all",
        "sizes": [n for r in rows for n in r["sizes"]],
        **{
            k: sum(r[k] for r in rows)
            for k in ("long", "open_long", "lines", "wide", "words")
        },
    }
    for r in [*rows, total]:
        median = statistics.median(r["sizes"])
        out.append(
            f"{r['chapter']:26}{median:7.1f}{ninth(r['sizes']):6}{r['long']:5}"
            f"{r['open_long']:6}{r['lines']:7}{r['wide']:5}"
            f"{r['words'] / r['lines']:12.1f}"
        )
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = parser.add_subparsers(dest="command", required=True)
    for name, one, two in (
        ("build", "script", "notebook"),
        ("script", "notebook", "script"),
    ):
        p = sub.add_parser(name)
        p.add_argument(one, type=Path)
        p.add_argument(two, type=Path)
    sub.add_parser("run").add_argument("notebook", type=Path, nargs="*")
    p = sub.add_parser("export")
    p.add_argument("out", type=Path, nargs="?", default=ROOT / "mmcourse")
    sub.add_parser("density").add_argument("notebook", type=Path, nargs="*")
    sub.add_parser("clean")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the tests have it
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if args.command == "build":
        build(args.script, args.notebook)
    elif args.command == "script":
        script(args.notebook, args.script)
    elif args.command == "export":
        export(args.out.resolve())
    elif args.command == "clean":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        sys.stdout.write(clean(sys.stdin.buffer.read().decode("utf-8")))
    elif args.command == "density":
        print(density(args.notebook or chapters()))
    else:
        for p in args.notebook or notebooks():
            print(f"{p.resolve().relative_to(ROOT)} … ", end="", flush=True)
            print(f"{run(p):.0f} s")


if __name__ == "__main__":
    sys.exit(main())
