"""Build the course's site from nbs/ and _quarto.yml, and serve it.

    python tools/site.py build [--out _site] [--renderer quarto|smalldocs]
    python tools/site.py serve [--out _site] [--port 4200]

Three steps. *Stage*: every chapter passes through nbdev's processors into a folder where no nbdev directive is left; addresses, anchors, the "open in Colab"
line and the folded solutions are added as plain Markdown, and _quarto.yml gets its sidebar. *Render*: Quarto where it is installed, smalldocs where not, both
from that folder. *Finish*: mathematics becomes MathML, and the notebooks and the mathematics font are put beside the pages. Nothing is executed, and no page
asks another host for anything.
"""

import argparse
import ast
import functools
import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path, PurePosixPath
import contextlib

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
STAGE = ROOT / "_proc"
UNLISTED = "exercises"  # nbs/0_tools/exercises/ defines the exercises and holds their solutions: no pages of their own


class SiteError(Exception):
    "Something an author has to put right; the message says where and what."


# ---------------------------------------------------------------- what there is


def settings() -> dict:
    "settings.ini, the one place that knows the repository's address."
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(ini["DEFAULT"])


def chapters() -> list[Path]:
    "The notebooks that are pages, as paths below nbs/, in the order of the course."
    found = (p.relative_to(NBS) for p in NBS.rglob("*.ipynb"))
    pages = (
        p
        for p in found
        if UNLISTED not in p.parts
        and not any(part.startswith((".", "_")) for part in p.parts)
    )
    return sorted(
        pages, key=lambda p: (p.parts[0].startswith("0_"), p)
    )  # the tools come after the course


def staged(src: Path) -> PurePosixPath:
    "Where a notebook stands on the site, which is where nbdev links to it: without the chapter's number, 2_models/convolution.ipynb."
    return PurePosixPath(src.parent.as_posix()) / re.sub(
        r"^\d+[a-zA-Z0-9]*_", "", src.name
    )


@functools.cache
def cells(src: Path) -> list[tuple[str, str]]:
    "The type and the source of each cell of nbs/`src`."
    return [
        (c["cell_type"], "".join(c["source"]))
        for c in json.loads((NBS / src).read_text(encoding="utf-8"))["cells"]
    ]


def title_of(src: Path) -> str:
    "The title of a notebook with its chapter's number: '08 Convolution'."
    for kind, source in cells(src):
        if kind == "markdown" and (m := re.search(r"^#\s+(\S.*?)\s*$", source, re.M)):
            n = re.match(r"(\d+)_", src.name)
            return f"{n[1]} {m[1]}" if n else m[1]
    raise SiteError(
        f"nbs/{src.as_posix()}: no title; the first cell holds `# Title` and a `> quote`, alone"
    )


# ---------------------------------------------------------------- the library and the solutions, read without running anything


def arguments(f: ast.FunctionDef) -> str:
    "A function's parameters as a caller sees them: `model, train, valid=None, *, lr=0.01`."
    for a in ast.walk(f.args):
        if isinstance(a, ast.arg):
            a.annotation = None
    return re.sub(r"^self(, |$)", "", ast.unparse(f.args))


def definitions(source: str) -> list[tuple[str, str, str]]:
    "(name, parameters, docstring) of each public function and class that a cell defines."
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []  # a cell with a magic
    out = []
    for node in body:
        if isinstance(
            node, (ast.FunctionDef, ast.ClassDef)
        ) and not node.name.startswith("_"):
            f = (
                node
                if isinstance(node, ast.FunctionDef)
                else next(
                    (m for m in node.body if getattr(m, "name", "") == "__init__"), None
                )
            )
            out.append(
                (node.name, arguments(f) if f else "", ast.get_docstring(node) or "")
            )
    return out


@functools.cache
def library() -> dict[str, list]:
    "Each module of the library, in the order of the course: [(notebook, name, parameters, docstring, whether its page shows it)]."
    out = {}
    for src in chapters():
        code = [source for kind, source in cells(src) if kind == "code"]
        module = next(
            (
                m[1]
                for source in code
                if (m := re.search(r"^#\|\s*default_exp\s+(\S+)", source, re.M))
            ),
            None,
        )
        for source in code if module else []:
            if m := re.search(r"^#\|\s*(exports?)\s*$", source, re.M):
                out.setdefault(module, []).extend(
                    (src, *d, m[1] == "exports") for d in definitions(source)
                )
    return {module: found for module, found in out.items() if found}


DEFINE = "exercise", "prediction", "challenge"  # mmcourse.check's decorators


@functools.cache
def solutions() -> dict[str, tuple[str, str, str]]:
    "(source of the reference, hint, why it matters) of each exercise that mmcourse/exercises/ defines."
    out = {}
    for path in sorted((ROOT / "mmcourse" / "exercises").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            for deco in getattr(node, "decorator_list", []):
                if (
                    isinstance(deco, ast.Call)
                    and getattr(deco.func, "attr", getattr(deco.func, "id", ""))
                    in DEFINE
                    and deco.args
                ):
                    said = {
                        k.arg: k.value.value
                        for k in deco.keywords
                        if isinstance(k.value, ast.Constant)
                    }
                    id = ast.literal_eval(deco.args[0])
                    out[id] = (
                        ast.get_source_segment(text, node),
                        said.get("hint", ""),
                        said.get("why", ""),
                    )
    return out


CHECK = r'^check\(\s*[\'"]([\w.]+)[\'"]'  # a call that asks for an exercise's answer


def defined_here(src: Path) -> list[str]:
    "The exercises that a notebook defines itself, as the one that explains `check` does."
    return re.findall(
        rf'^@(?:{"|".join(DEFINE)})\(\s*[\'"]([\w.]+)[\'"]',
        "\n".join(s for kind, s in cells(src) if kind == "code"),
        re.M,
    )


# ---------------------------------------------------------------- stage


class Links:
    "Rewrites what a notebook links to into what its page links to."

    def __init__(self, src: Path, warn):
        self.src, self.warn, self.pages = src, warn, set(chapters())
        names = [
            (name, module, where)
            for module, found in library().items()
            for where, name, *_, shown in found
            if shown
        ]
        self.names = {
            f"{module}.{name}": (where, name) for name, module, where in names
        }
        self.names |= {
            name: (where, name)
            for name, _, where in names
            if [n for n, *_ in names].count(name) == 1
        }

    def to(self, target: Path, anchor: str = "") -> str:
        "The address of a chapter's page, relative to this page's folder."
        return (
            PurePosixPath(
                os.path.relpath(staged(target), staged(self.src).parent)
            ).as_posix()
            + anchor
        )

    def notebook(self, m):
        before, href, anchor, after = m.groups()
        target = Path(os.path.normpath(self.src.parent / href))
        if target in self.pages:
            return before + self.to(target, anchor or "") + after
        self.warn(f"nbs/{self.src.as_posix()}: link to {href}, which is no page")
        return before[1:-2] if after == ")" else before + "#" + after  # the words stay

    def name(self, m):
        "A name of the library in backticks, defined on another page, becomes a link to its definition."
        where = self.names.get(m[1].removesuffix("()").removeprefix("mmcourse."))
        if (
            not where
            or where[0] == self.src
            or not (m[1].endswith("()") or "_" in m[1] or "." in m[1])
        ):
            return m[0]
        return f"[{m[0]}]({self.to(where[0], '#' + where[1])})"

    def markdown(self, text: str) -> str:
        out = []
        for i, block in enumerate(
            re.split(r"^(```.*?^```.*?$)", text, flags=re.M | re.S)
        ):
            if i % 2 == 0:
                block = re.sub(
                    r"(\[[^\[\]]*\]\()(?![a-z]+:)([^)\s#]+\.ipynb)(#[^)\s]*)?(\))",
                    self.notebook,
                    block,
                )
                block = re.sub(
                    r"^(?!#).*",
                    lambda line: re.sub(
                        r"(?<![`\[])`([\w.]+(?:\(\))?)`(?![`\]])", self.name, line[0]
                    ),
                    block,
                    flags=re.M,
                )
                block = self.html(block)
            out.append(block)
        return "".join(out)

    def html(self, text: str) -> str:
        return re.sub(
            r'(href=")(?![a-z]+:)([^"#]+\.ipynb)(#[^"]*)?(")', self.notebook, text
        )


def processors():
    "nbdev's processors for documentation, without those that execute cells: a chapter shows its code, which carries its documentation beside each parameter."
    from nbdev.processors import FilterDefaults

    runs = [
        "add_show_docs",
        "exec_show_docs",
        "clean_show_doc",
        "mv_exports",
        "add_fold",
    ]  # execute definitions, and arrange what that yields
    ours = [
        "add_links",
        "clean_magics",
        "insert_warning",
    ]  # absolute addresses; `%%gpu` tells the reader something; nobody edits the staged copy

    class Shown(FilterDefaults):
        def base_procs(self):
            return [p for p in super().base_procs() if p.__name__ not in runs + ours]

    return Shown()


def stage_notebook(src: Path, dest: Path, warn=print):
    "Write the notebook nbs/`src` to `dest` as the renderers read it: no nbdev directive, only YAML options, plain Markdown around the cells."
    import yaml
    from execnb.nbio import mk_cell, read_nb, write_nb

    nb = read_nb(NBS / src)
    processors()(nb)
    front = {k: v for k, v in (nb.frontmatter_ or {}).items() if k != "output-file"}
    if "title" not in front:
        title_of(src)  # says what is missing
    links, md = Links(src, warn), lambda text: mk_cell(text, "markdown")
    module = next((m for m, found in library().items() if found[0][0] == src), None)
    headings = [
        h
        for kind, s in cells(src)
        if kind == "markdown"
        for h in re.findall(r"^##+\s+(.+?)\s*$", s, re.M)
    ]  # not the title: as front matter it has no anchor
    headings = {
        re.sub(r"[^\w]+", "-", h.lower()).strip("-") for h in headings
    }  # their anchors
    out = [
        mk_cell(
            "---\n"
            + yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
            + "---\n",
            "raw",
        )
    ]
    if src.parent != Path():
        out.append(md(chapter_line(src)))
    asked = defined_here(src)  # their definition stands on the page
    for cell in nb.cells:
        if cell.cell_type == "raw":
            continue  # the front matter
        if cell.cell_type == "markdown":
            for m in re.finditer(
                r"^#+ .*\$.*$",
                re.sub(r"^```.*?^```", "", cell.source, flags=re.M | re.S),
                re.M,
            ):
                warn(
                    f"nbs/{src.as_posix()}: a formula in a heading, which contents and search show as TeX: {m[0]}"
                )
            for m in re.finditer(r"^```\s*\{?(mermaid|dot)\b", cell.source, re.M):
                warn(
                    f"nbs/{src.as_posix()}: a {m[1]} diagram needs a script to be drawn: draw it in a cell, or as an SVG file"
                )
            cell.source = links.markdown(cell.source)
            out.append(cell)
            continue
        options, magics, code = code_lines(cell.source)
        for key in ("fig-alt", "fig-cap"):
            if key in cell.metadata:
                text = json.dumps(cell.metadata[key], ensure_ascii=False)
                options.append(f"#| {key}: {text}")
        cell.source = "\n".join(options + magics + code).rstrip()
        cell.execution_count = None
        for o in cell.outputs:
            if "data" in o:
                for mime, rewrite in (
                    ("text/markdown", links.markdown),
                    ("text/html", links.html),
                ):
                    if mime in o.data:
                        o.data[mime] = rewrite("".join(o.data[mime]))
        if "exports" in cell.directives_ and module:
            ids = "".join(
                f'<span id="{name}"></span>'
                for name, *_ in definitions("\n".join(code))
                if name not in headings
            )
            out.append(
                md(
                    f'```{{=html}}\n<p class="exported">{ids}<code>mmcourse.{module}</code></p>\n```'
                )
            )
        out.append(cell)
        for i in re.findall(CHECK, cell.source, re.M):
            if i not in asked:
                asked.append(i)
            else:
                continue
            if i in solutions():
                out.append(md(solution(i)))
            else:
                warn(
                    f"nbs/{src.as_posix()}: exercise {i} is not defined in mmcourse/exercises/"
                )
    for i, cell in enumerate(out):
        cell["id"], cell["metadata"] = f"cell-{i}", {}
    nb.cells, nb.metadata = (
        out,
        {
            "kernelspec": {
                "display_name": "python3",
                "language": "python",
                "name": "python3",
            }
        },
    )
    dest.parent.mkdir(parents=True, exist_ok=True)
    write_nb(nb, dest)


def code_lines(source: str) -> tuple[list[str], list[str], list[str]]:
    "A code cell's YAML options, its cell magic, and its code without remarks to nbval: renderers want the options first."
    lines = [l for l in source.splitlines() if not re.match(r"#\s*NBVAL_\w+\s*$", l)]
    top = next(
        (
            i
            for i, l in enumerate(lines)
            if l.strip() and not l.startswith(("#|", "%%"))
        ),
        len(lines),
    )
    return (
        [l for l in lines[:top] if l.startswith("#|")],
        [l for l in lines[:top] if l.startswith("%%")],
        lines[top:],
    )


def chapter_line(src: Path) -> str:
    "The line under a chapter's title: open it in Colab, download it, see its source."
    s = settings()
    path = f"{s['user']}/{s['repo']}/blob/{s['branch']}/nbs/{src.as_posix()}"
    up = "../" * len(src.parent.parts)
    return (
        f'```{{=html}}\n<p class="chapter-links"><a href="https://colab.research.google.com/github/{path}">Open in Colab</a>'
        f' <a href="{up}notebooks/{src.as_posix()}" download>Download notebook</a> <a href="https://github.com/{path}">View on GitHub</a></p>\n```'
    )


def solution(id: str) -> str:
    "A folded hint and a folded reference solution: <details>, which needs no JavaScript."
    code, hint, why = solutions()[id]
    fold = lambda name, text: (
        f'<details class="exercise">\n<summary>{name} <span class="exercise-id">{id}</span></summary>\n\n{text}\n\n</details>\n'
    )
    return (fold("Hint", hint) + "\n" if hint else "") + fold(
        "Solution", f"```python\n{code}\n```" + (f"\n\n{why}" if why else "")
    )


def stage_config(dest: Path):
    "Write _quarto.yml with the sidebar's chapters and the addresses filled in."
    import yaml

    cfg, s, left = (
        yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8")),
        settings(),
        set(chapters()),
    )

    def expand(entry):
        if isinstance(entry, str):  # a glob: the chapters of a folder
            found = [
                src
                for src in chapters()
                if src.parent.as_posix() == entry.removesuffix("/*")
            ]
            left.difference_update(found)
            return [{"text": title_of(src), "href": str(staged(src))} for src in found]
        if "href" in entry:
            left.difference_update(
                src for src in chapters() if str(staged(src)) == entry["href"]
            )
            return [entry]
        inside = entry["contents"]
        inside = [
            e
            for c in (inside if isinstance(inside, list) else [inside])
            for e in expand(c)
        ]
        return (
            [{**entry, "contents": inside}] if inside else []
        )  # a part that has no chapter yet

    bar = cfg["website"]["sidebar"]
    bar["contents"] = [e for c in bar["contents"] for e in expand(c)]
    if left:
        raise SiteError(
            "_quarto.yml: the sidebar has no section for "
            + ", ".join(f"nbs/{src.as_posix()}" for src in sorted(left))
        )
    cfg["website"]["site-url"] = s["doc_host"] + s["doc_baseurl"]
    cfg["website"]["navbar"]["tools"] = [
        {"icon": "github", "href": s["git_url"], "text": "The repository on GitHub"}
    ]
    dest.write_text(
        yaml.safe_dump(cfg, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def library_page() -> str:
    "The index of the library: every function and class that the chapters export, with a link to where it is explained."
    promise = "Every function and class that the chapters export, in the order of the course, with the chapter that explains it."
    out = [f"---\ntitle: The library\ndescription: {promise}\n---\n"]
    for module, found in library().items():
        src = found[0][0]
        out.append(
            f"## mmcourse.{module} {{#{module}}}\n\nFrom [{title_of(src)}]({staged(src)}).\n\n::: {{.library}}\n"
        )
        for where, name, params, doc, shown in found:
            first = next(
                (l for l in doc.splitlines() if l.strip()), "No description."
            ).replace("$", "\\$")
            out.append(
                f"[`{name}`]({staged(where)}{f'#{name}' if shown else ''})"
                + (f"`({params})`" if params else "")
                + f"\n:   {first}\n"
            )
        out.append(":::\n")
    return "\n".join(out)


def stage(dest: Path = STAGE) -> list[str]:
    "Fill the folder `dest` with all that a renderer reads; returns what an author should look at."
    warnings = []
    for f in (cells, library, solutions):
        f.cache_clear()
    if dest.exists():
        if any(dest.iterdir()) and not (dest / "_quarto.yml").is_file():
            raise SiteError(f"{dest}: not empty and no earlier staging folder")
        shutil.rmtree(dest)
    dest.mkdir(parents=True)
    stage_config(dest / "_quarto.yml")
    for src in chapters():
        stage_notebook(src, dest / staged(src), warnings.append)
    for path in NBS.rglob("*"):  # pictures and other files that pages show
        rel = path.relative_to(NBS)
        if (
            path.is_file()
            and path.suffix != ".ipynb"
            and UNLISTED not in rel.parts
            and not any(p.startswith((".", "_")) for p in rel.parts)
        ):
            (dest / rel).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, dest / rel)
    shutil.copytree(ROOT / "site", dest / "site")
    (dest / "library.qmd").write_text(library_page(), encoding="utf-8")
    return warnings


# ---------------------------------------------------------------- render


def renderer() -> str:
    "'quarto' where it is installed, else 'smalldocs', else ''."
    if shutil.which("quarto"):
        return "quarto"
    try:
        import smalldocs  # noqa: F401
    except ImportError:
        return ""
    return "smalldocs"


# Options of _quarto.yml that are Quarto's alone. What they ask for holds under smalldocs anyway: it runs nothing, keeps HTML tables, follows the reader's
# colour scheme, and step 3 makes the MathML.
QUARTO_ONLY = (
    "execute.enabled",
    "format.html.html-math-method",
    "format.html.html-table-processing",
    "format.html.respect-user-color-scheme",
)


def render(folder: Path, by: str) -> list[str]:
    "Render the staging folder into its own _site; returns the renderer's warnings."
    if by == "quarto":
        subprocess.run(
            [shutil.which("quarto"), "render", str(folder), "--no-execute"], check=True
        )
        return []
    from smalldocs.config import load
    from smalldocs.site import Site

    site = Site(load(folder), quiet=True)
    site.build()
    return [
        w
        for w in site.warnings
        if not any(
            w.startswith((f"{key} ", f"unknown key {key}")) for key in QUARTO_ONLY
        )
    ]


# ---------------------------------------------------------------- finish

MATH = re.compile(
    r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S
)
KATEX = re.compile(r"<(link|script)[^>]*/katex@[^>]*>(</script>)?")

CODE = re.compile(r'(<code class="sourceCode[^"]*">)(.*?)(</code>)', re.S)


def code_with_lines(m):
    "A block of code with each line in a span that knows its indent (`--in`): site/course.css breaks long lines and hangs the rest under the indent."
    if '<span id="cb' in m[2]:  # Quarto has the spans
        return (
            m[1]
            + re.sub(
                r'(<span id="cb[\w-]+")(>(?:<a [^>]*></a>)?)( *)',
                lambda l: f'{l[1]} style="--in:{len(l[3])}"{l[2]}{l[3]}',
                m[2],
            )
            + m[3]
        )
    out, over = (
        [],
        [],
    )  # over: the spans that a line leaves open, as those of a long string
    for line in m[2].split("\n"):
        line, indent = "".join(over) + line, len(line) - len(line.lstrip(" "))
        for tag in re.findall(r"<span[^>]*>|</span>", line[len("".join(over)) :]):
            over = over[:-1] if tag == "</span>" else [*over, tag]
        out.append(
            f'<span class="line" style="--in:{indent}">{line}{"</span>" * len(over)}</span>'
            if line
            else ""
        )
    return m[1] + "\n".join(out) + m[3]


def finish(site: Path):
    "What neither renderer does: MathML where there is still TeX, lines of code that can be broken, the notebooks to download, and the font for mathematics."
    from math_core import LatexError, LatexToMathML

    converter, used = LatexToMathML(annotation=True), set()
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")

        def mathml(m):
            tex = html.unescape(m[2]).strip()
            try:
                return converter.convert_with_local_state(
                    tex, displaystyle=m[1] == "display"
                )
            except LatexError as e:
                raise SiteError(f"{page.relative_to(site)}: ${tex}$: {e}") from None

        new = CODE.sub(code_with_lines, KATEX.sub("", MATH.sub(mathml, text)))
        for m in re.findall(r"<math.*?</math>", new, re.S):
            used.update(html.unescape(re.sub(r"<[^>]*>", "", m)))
        if new != text:
            page.write_text(new, encoding="utf-8")
    for src in chapters():
        (site / "notebooks" / src).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(NBS / src, site / "notebooks" / src)
    math_font(site / "site" / "math.woff", used)


def math_font(dest: Path, used: set):
    "STIX Two Math (SIL Open Font Licence), which the package ziamath carries, cut down to the characters the site uses: the same formulas on every machine."
    import ziamath
    from fontTools import subset

    dest.parent.mkdir(parents=True, exist_ok=True)
    options = subset.Options(
        flavor="woff",
        layout_features=["*"],
        hinting=False,
        notdef_outline=True,
        name_IDs=[0, 1, 2, 13, 14],
    )
    font = subset.load_font(
        Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf", options
    )
    cut = subset.Subsetter(options)
    # always letters, Greek, and their italics: browsers write a single letter with its italic, of which h stands apart
    always = [
        *range(0x20, 0x7F),
        *range(0x391, 0x3D7),
        *range(0x1D434, 0x1D468),
        0x210E,
        *range(0x1D6E2, 0x1D71C),
    ]
    cut.populate(unicodes=always + [ord(c) for c in used])
    cut.subset(font)
    subset.save_font(font, str(dest), options)


# ---------------------------------------------------------------- the commands


def build(out: Path, by: str = "", folder: Path = STAGE) -> list[str]:
    "Build the whole site into `out`, which is replaced at the end and in one go; returns warnings."
    out, by = Path(out).resolve(), by or renderer()
    if not by:
        raise SiteError(
            'no renderer: install Quarto, or smalldocs (Python 3.11 or newer) with pip install "smalldocs>=0.5.4"'
        )
    if out.exists() and (
        not out.is_dir() or any(out.iterdir()) and not (out / "site_libs").is_dir()
    ):
        raise SiteError(f"{out}: there is something there that is no built site")
    warnings = stage(folder) + render(folder, by)
    finish(folder / "_site")
    if out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / "_site", out)
    return warnings


def server(site: Path, port: int = 0):
    "A server of the folder `site` on this machine alone; port 0 takes a free one."
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    return ThreadingHTTPServer(
        ("127.0.0.1", port), functools.partial(Quiet, directory=str(site))
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = parser.add_subparsers(dest="command", required=True)
    b = sub.add_parser("build", help="build the site")
    b.add_argument(
        "--renderer",
        choices=["quarto", "smalldocs"],
        default="",
        help="Quarto where it is installed, smalldocs where not",
    )
    v = sub.add_parser(
        "serve",
        help="serve the built site on 127.0.0.1; builds it first where it is missing",
    )
    v.add_argument("--port", type=int, default=4200)
    for p in (b, v):
        p.add_argument(
            "--out",
            type=Path,
            default=ROOT / "_site",
            help="the folder of the built site",
        )
    args = parser.parse_args()
    try:
        if args.command == "build" or not (args.out / "index.html").is_file():
            start, by = time.perf_counter(), getattr(args, "renderer", "") or renderer()
            for w in build(args.out, by):
                print("warning:", w, file=sys.stderr)
            print(
                f"{len(chapters()) + 1} pages by {by} in {time.perf_counter() - start:.0f} s: {args.out}"
            )
        if args.command == "serve":
            with server(args.out, args.port) as httpd:
                print(
                    f"http://127.0.0.1:{httpd.server_address[1]}/ (Ctrl-C ends it)",
                    flush=True,
                )
                with contextlib.suppress(KeyboardInterrupt):
                    httpd.serve_forever()
    except (SiteError, OSError) as e:
        return print(f"tools/site.py: {e}", file=sys.stderr) or 1
    except subprocess.CalledProcessError as e:
        return e.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
