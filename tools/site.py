"""Build the course's site from nbs/ and _quarto.yml, and serve it.

    python tools/site.py build [--out _site] [--renderer quarto|smalldocs]
    python tools/site.py serve [--out _site] [--port 4200]

Three steps. *Stage*: every chapter passes through nbdev's processors into a folder
where no nbdev directive is left. What the two renderers would write differently is
written here, once: figures with their captions, players, folded answers, links, the
sidebar. *Render*: Quarto where it is installed, smalldocs where not, both from that
folder. *Finish*: mathematics becomes MathML, wide things get boxes that scroll,
landmarks get names, what would come from another host goes, and the notebooks, the
font for mathematics and the pictures for social networks are put beside the pages.
Nothing is executed. `parts.py` writes what a learner works with: cards of exercises,
questions, the map.
"""

import argparse
import ast
import contextlib
import functools
import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
STAGE = ROOT / "_proc"
# nbs/0_tools/exercises/ holds the exercises' solutions: no pages of their own
UNLISTED = "exercises"


def beside(name: str):
    "A module of this folder, from wherever this one was loaded."
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"course_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


parts = beside("parts")


class SiteError(Exception):
    "Something an author has to put right; the message says where and what."


# ---------------------------------------------------------------- what there is


def settings() -> dict:
    "settings.ini, the one place that knows the repository's address."
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(ini["DEFAULT"])


def listed(path: Path) -> bool:
    "Whether a path below nbs/ belongs to the site."
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return not hidden and UNLISTED not in path.parts


def chapters() -> list[Path]:
    "The notebooks that are pages, below nbs/, in order; tools come last."
    found = (p.relative_to(NBS) for p in NBS.rglob("*.ipynb"))
    pages = [p for p in found if listed(p)]
    return sorted(pages, key=lambda p: (p.parts[0].startswith("0_"), p))


def staged(src: Path) -> PurePosixPath:
    "Where a notebook stands on the site: without its number, as nbdev links to it."
    name = re.sub(r"^\d+[a-zA-Z0-9]*_", "", src.name)
    return PurePosixPath(src.parent.as_posix()) / name


@functools.cache
def cells(src: Path) -> list[tuple[str, str]]:
    "The type and the source of each cell of nbs/`src`."
    nb = json.loads((NBS / src).read_text(encoding="utf-8"))
    return [(c["cell_type"], "".join(c["source"])) for c in nb["cells"]]


def sources(src: Path, kind: str) -> list[str]:
    "The sources of the cells of one type, 'code' or 'markdown'."
    return [source for k, source in cells(src) if k == kind]


def title_of(src: Path) -> str:
    "The title of a notebook with its chapter's number: '08 Convolution'."
    for source in sources(src, "markdown"):
        if m := re.search(r"^#\s+(\S.*?)\s*$", source, re.M):
            n = re.match(r"(\d+)_", src.name)
            return f"{n[1]} {m[1]}" if n else m[1]
    raise SiteError(
        f"nbs/{src.as_posix()}: no title; "
        "the first cell holds `# Title` and a `> quote`, alone"
    )


def promise_of(src: Path) -> str:
    "The sentence below a notebook's title."
    m = re.search(r"^> (.+(?:\n> .+)*)", "\n".join(sources(src, "markdown")), re.M)
    return m[1].replace("\n> ", " ") if m else ""


# ------------------------------- the library and the solutions, read, not executed


def arguments(f: ast.FunctionDef) -> str:
    "Parameters as a caller sees them: `model, train, valid=None, *, lr=0.01`."
    for a in ast.walk(f.args):
        if isinstance(a, ast.arg):
            a.annotation = None
    return re.sub(r"^self(, |$)", "", ast.unparse(f.args))


def definitions(source: str) -> list[tuple[str, str, str]]:
    "(name, parameters, docstring) of each public function and class of a cell."
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []  # a cell with a magic
    out = []
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        name, f = node.name, node
        if isinstance(node, ast.ClassDef):
            own = {getattr(m, "name", ""): m for m in node.body}
            f = own.get("__init__")
        elif "patch" in [
            getattr(getattr(d, "func", d), "id", "") for d in node.decorator_list
        ]:  # @patch, or @patch(cls_method=True)
            name = f"{ast.unparse(node.args.args[0].annotation)}.{name}"  # a method
        params = arguments(f) if f else ""
        out.append((name, params, ast.get_docstring(node) or ""))
    return out


def module_of(src: Path) -> str:
    "The module that a notebook exports, or ''."
    text = "\n".join(sources(src, "code"))
    m = re.search(r"^#\|\s*default_exp\s+(\S+)", text, re.M)
    return m[1] if m else ""


@functools.cache
def library() -> dict[str, list]:
    "Each module: [(notebook, name, parameters, docstring, whether its page shows it)]."
    out = {}
    for src in chapters():
        module, found = module_of(src), []
        for source in sources(src, "code") if module else []:
            if m := re.search(r"^#\|\s*(exports?)\s*$", source, re.M):
                shown = m[1] == "exports"
                found += [(src, *d, shown) for d in definitions(source)]
        if found:
            out[module] = found
    return out


def key_of(src: Path) -> str:
    "The name that a chapter's exercises begin with: its module's."
    return module_of(src) or staged(src).stem


DEFINE = "exercise", "prediction", "challenge"  # mmcourse.check's decorators


@functools.cache
def answers() -> tuple[dict, dict]:
    "What mmcourse/exercises/ defines by id: solutions, and questions."
    solutions, questions = {}, {}
    for path in sorted((ROOT / "mmcourse" / "exercises").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            for deco in getattr(node, "decorator_list", []):
                if called(deco) in DEFINE:
                    said, code = keywords(deco), ast.get_source_segment(text, node)
                    hint, why = said.get("hint", ""), said.get("why", "")
                    solutions[said["id"]] = code, hint, why
            if isinstance(node, ast.Expr) and called(node.value) == "question":
                said = keywords(node.value)
                about = said["text"], said["choices"], said["answer"]
                questions[said["id"]] = about
    return solutions, questions


def called(node: ast.AST) -> str:
    "The name of the function that an expression calls, or ''."
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def keywords(call: ast.Call) -> dict:
    "The literal arguments of a call; those without a name have `question`'s names."
    names = ("id", "text", "choices", "answer")
    given = dict(zip(names, call.args)) | {k.arg: k.value for k in call.keywords}
    out = {}
    for name, value in given.items():
        with contextlib.suppress(ValueError):
            out[name] = ast.literal_eval(value)
    return out


CHECK = r'^check\(\s*[\'"]([\w.]+)[\'"]'  # a call that asks for an exercise's answer


def defined_here(src: Path) -> list[str]:
    "The exercises that a notebook defines itself: the one that explains `check`."
    names = "|".join((*(f"@{name}" for name in DEFINE), "question"))
    text = "\n".join(sources(src, "code"))
    return re.findall(rf'^(?:{names})\(\s*[\'"]([\w.]+)[\'"]', text, re.M)


# ---------------------------------------------------------------- the chapters' map


def imported(source: str) -> Iterator[tuple[str, list[str]]]:
    "(module, names) of each import from the library; ('', modules) from its root."
    with contextlib.suppress(SyntaxError):  # a cell with a magic
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if node.level == 0 and module.partition(".")[0] != "mmcourse":
                    continue
                names = [a.name for a in node.names]
                yield module.removeprefix("mmcourse").lstrip("."), names


def uses(src: Path, known: set[str]) -> set[str]:
    "The chapters' modules that a chapter imports, itself or by a support module."
    todo, found, seen = sources(src, "code"), set(), set()
    while todo:
        for module, names in imported(todo.pop()):
            # `from mmcourse.datasets import three_views` is what chapter 01 makes
            found |= {n for n in (module, *names) if n in known and module not in known}
            found |= {module} & known
            path = ROOT / "mmcourse" / f"{module}.py"
            if module not in known | seen and path.is_file():
                seen.add(module)
                todo.append(path.read_text(encoding="utf-8"))
    return found - {module_of(src)}


@functools.cache
def tasks(src: Path) -> tuple[list[str], list[str]]:
    "The numbers of a chapter's exercises, and of its questions."
    found = {"Exercises": [], "Questions": []}
    section = ""
    for text in sources(src, "markdown"):
        for piece in parts.pieces(text):
            if piece.startswith("## "):
                section = piece.splitlines()[0][3:].strip()
            elif section in found and (m := parts.LABEL.match(piece)):
                found[section].append(m[1])
    return found["Exercises"], found["Questions"]


@functools.cache
def course() -> list:
    "The numbered chapters, for the map and the sidebar."
    import yaml

    cfg = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    names = {}
    for e in cfg["website"]["sidebar"]["contents"]:
        if isinstance(e.get("contents"), str):
            names[e["contents"].removesuffix("/*")] = e["section"]
    found = [src for src in chapters() if re.match(r"\d+_", src.name)]
    number = {module_of(s): s.name.partition("_")[0] for s in found if module_of(s)}
    out = []
    for src in found:
        folder, (exercises, questions) = src.parent.as_posix(), tasks(src)
        out.append(
            parts.Chapter(
                src.name.partition("_")[0],
                title_of(src).partition(" ")[2],
                promise_of(src),
                key_of(src),
                staged(src).with_suffix(".html").as_posix(),
                names.get(folder, folder),
                len(exercises),
                len(questions),
                sorted(number[m] for m in uses(src, set(number))),
            )
        )
    return out


GLOSSARY = Path("appendix", "glossary.ipynb")


@functools.cache
def glossary() -> list:
    "The rows of the glossary, where there is one."
    if not (NBS / GLOSSARY).is_file():
        return []
    found = parts.terms("\n".join(sources(GLOSSARY, "markdown")))
    for term in found:
        term.meaning = TEX.sub(as_mathml, term.meaning)
    return found


# ---------------------------------------------------------------- stage: links


class Links:
    "Rewrites what a notebook links to into what its page links to."

    def __init__(self, src: Path, warn: Callable):
        self.src, self.warn, self.pages = src, warn, set(chapters())
        self.names = {}
        for module, found in library().items():
            for where, name, *_, shown in found:
                if shown:
                    self.names[f"{module}.{name}"] = where, name
                    twice = name in self.names
                    self.names[name] = (None, name) if twice else (where, name)

    def to(self, target: Path, anchor: str = "") -> str:
        "The address of a chapter's page, relative to this page's folder."
        path = os.path.relpath(staged(target), staged(self.src).parent)
        return PurePosixPath(path).as_posix() + anchor

    def notebook(self, m: re.Match) -> str:
        before, href, anchor, after = m.groups()
        target = Path(os.path.normpath(self.src.parent / href))
        if target in self.pages:
            return before + self.to(target, anchor or "") + after
        self.warn(f"nbs/{self.src.as_posix()}: link to {href}, which is no page")
        return before[1:-2] if after == ")" else before + "#" + after  # the words stay

    def name(self, m: re.Match) -> str:
        "A library's name in backticks becomes a link to its definition elsewhere."
        where, name = self.names.get(
            m[1].removesuffix("()").removeprefix("mmcourse."), (None, "")
        )
        plain = not m[1].endswith("()") and "_" not in m[1] and "." not in m[1]
        if where in (None, self.src) or plain:
            return m[0]
        return f"[{m[0]}]({self.to(where, '#' + name)})"

    def markdown(self, text: str) -> str:
        blocks = re.split(r"^(```.*?^```.*?$)", text, flags=re.M | re.S)
        return "".join(b if i % 2 else self._prose(b) for i, b in enumerate(blocks))

    def _prose(self, text: str) -> str:
        link = r"(\[[^\[\]]*\]\()(?![a-z]+:)([^)\s#]+\.ipynb)(#[^)\s]*)?(\))"
        text = re.sub(link, self.notebook, text)
        lines = text.split("\n")
        for i, line in enumerate(lines):
            if not line.startswith("#"):
                name = r"(?<![`\[])`([\w.]+(?:\(\))?)`(?![`\]])"
                lines[i] = re.sub(name, self.name, line)
        return self.html("\n".join(lines))

    def html(self, text: str) -> str:
        link = r'(href=")(?![a-z]+:)([^"#]+\.ipynb)(#[^"]*)?(")'
        return re.sub(link, self.notebook, text)


# ---------------------------------------------------------------- stage: figures

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ET.register_namespace("", SVG)
ET.register_namespace("xlink", XLINK)
COLOUR = re.compile(r"((?:fill|stroke|stop-color): )#([0-9a-f]{6})")
FAMILY = re.compile(r"((?:font|font-family): [^;'\"]*?)'[^;]*")


def greyness(hexa: str) -> int | None:
    "0 for black to 100 for white; None for a colour."
    rgb = [int(hexa[i : i + 2], 16) for i in (0, 2, 4)]
    return None if max(rgb) - min(rgb) > 12 else round(sum(rgb) / 7.65)


def ink(m: re.Match) -> str:
    "Black becomes the page's ink, white its paper, grey a mix; colours stay."
    grey = greyness(m[2])
    if grey is None:
        return m[0]
    mixed = f"color-mix(in srgb, currentColor {100 - grey}%, var(--paper))"
    return m[1] + {0: "currentColor", 100: "var(--paper)"}.get(grey, mixed)


def typeface(m: re.Match) -> str:
    "The site's letters in place of matplotlib's."
    return m[1] + ("var(--mono)" if "Mono" in m[0] else "var(--sans)")


def kind(e: ET.Element) -> str:
    "What matplotlib drew: 'axes' of `axes_2`."
    return re.sub(r"[_\d]+$", "", e.get("id", "").split(":")[-1])


def corners(patch: ET.Element) -> list[float]:
    "Left, top, right, bottom of a patch."
    numbers = re.findall(r"-?[\d.]+", shape(patch).get("d", "0 0"))
    xs, ys = [[float(n) for n in numbers[i::2]] for i in (0, 1)]
    return [min(xs), min(ys), max(xs), max(ys)]


def shape(patch: ET.Element) -> ET.Element:
    found = patch.find(f".//{{{SVG}}}path")
    return ET.Element("path") if found is None else found


def coloured(patch: ET.Element) -> bool:
    "Whether a patch is filled with a colour that hides what is behind it."
    style = shape(patch).get("style", "")
    fill = re.search("fill: #([0-9a-f]{6})", style)
    return bool(fill) and "opacity" not in style and greyness(fill[1]) is None


def paper(group: ET.Element) -> ET.Element | None:
    "The patch behind a figure or behind its axes: the first child."
    first = next(iter(group), None)
    return first if first is not None and kind(first) == "patch" else None


def lies_in(text: ET.Element, boxes: list) -> bool:
    "Whether a text starts within one of the boxes."
    for t in text.iter():
        place = t.get("transform", "") if not t.get("x") else ""
        at = re.findall(r"-?[\d.]+", place) or [t.get("x"), t.get("y")]
        if at[0] is not None:
            x, y = float(at[0]), float(at[1])
            return any(a < x < c and b < y < d for a, b, c, d in boxes)
    return False


def kept(group: ET.Element) -> Iterator[ET.Element]:
    "What lies on an image or on a coloured patch, and keeps its own colours."
    ground = paper(group)
    picture = kind(group) == "axes" and group.find(f".//{{{SVG}}}image") is not None
    if ground is None:
        return
    box = corners(ground)
    boxes = [box] if picture else []
    for e in [*group][1:]:
        if kind(e) == "text":
            boxes += [corners(patch) for patch in e if coloured(patch)]
            if lies_in(e, boxes):
                yield e
        elif kind(e) == "patch":
            left, top, right, bottom = corners(e)
            if coloured(e):
                boxes.append([left, top, right, bottom])
            frame = left == right or top == bottom  # the line beside an axis
            frame |= abs(left - box[0]) + abs(bottom - box[3]) < 1
            if picture and not frame:
                yield e
        elif picture and kind(e) not in ("matplotlib.axis", "legend"):
            yield e


def drawing(
    svg: str,  # as matplotlib writes it
    mark: str,  # put before each id, which a page may hold once only
    alt: str,  # what the figure shows
) -> str:  # for a page: the site's letters, no paper, ink that follows the mode
    "A figure for a page in two modes."
    root = ET.fromstring(svg)
    for image in root.iter(f"{{{SVG}}}image"):
        image.attrib.pop("id", None)  # equal pictures would share one
    for e in [*root]:
        if e.tag.endswith("metadata") or e.find(f"{{{SVG}}}style") is not None:
            root.remove(e)  # the second holds a style that would bind the whole page
    same = set()
    for group in [e for e in root.iter() if kind(e) in ("figure", "axes")]:
        for e in kept(group):
            e.set("fill", "#000000")
            same |= set(e.iter())
        if (ground := paper(group)) is not None:
            style = shape(ground).get("style", "")
            shape(ground).set("style", style.replace("fill: #ffffff", "fill: none"))
    for e in root.iter():
        for name, value in list(e.attrib.items()):
            if name == "id":
                value = mark + value
            elif name == f"{{{XLINK}}}href":
                value = re.sub("^#", f"#{mark}", value)
            else:
                value = value.replace("url(#", f"url(#{mark}")
            if name == "style":
                value = FAMILY.sub(typeface, value)
                value = value if e in same else COLOUR.sub(ink, value)
            e.set(name, value)
    for side in ("width", "height"):  # points to a page's pixels
        size = float(root.get(side, "100").removesuffix("pt")) * 4 / 3
        root.set(side, f"{size:.0f}")
    root.set("role", "img")
    root.set("aria-label", alt)
    return re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))


def figure(
    data: dict,  # an output's data, by type
    alt: str,  # what the figure shows
    caption: str = "",
    *,
    n: int = 1,  # its number on the page
) -> str:  # HTML
    "A figure with its numbered caption, as both renderers show it."
    if "image/svg+xml" in data:
        picture = drawing("".join(data["image/svg+xml"]), f"f{n}-", alt)
    else:
        png = "".join(data["image/png"]).strip()
        alt = html.escape(alt)
        picture = f'<img src="data:image/png;base64,{png}" alt="{alt}">'
    words = f'<span class="number">Figure {n}.</span> {parts.inline(caption)}'
    below = f"<figcaption>{words}</figcaption>" if caption else ""
    return f'<figure class="plot" id="figure-{n}">{picture}{below}</figure>'


# ---------------------------------------------------------------- stage: notebooks


def processors():
    "nbdev's processors for documentation, without those that execute cells."
    from nbdev.processors import FilterDefaults

    # execute definitions and arrange what that yields; give links absolute addresses;
    # drop `%%gpu`, which says something to a reader; warn editors of the copy
    left_out = {
        *("add_show_docs", "exec_show_docs", "clean_show_doc", "mv_exports"),
        *("add_fold", "add_links", "clean_magics", "insert_warning"),
    }

    class Shown(FilterDefaults):
        def base_procs(self):
            procs = super().base_procs()
            return [p for p in procs if p.__name__ not in left_out]

    return Shown()


def markdown(text: str):
    "A Markdown cell."
    from execnb.nbio import mk_cell

    return mk_cell(text, "markdown")


def raw(page: str) -> str:
    "HTML that both renderers pass through."
    return f"```{{=html}}\n{page}\n```"


def code_lines(source: str) -> tuple[list[str], list[str], list[str]]:
    "A code cell's YAML options, its cell magic, and its code."
    lines = source.splitlines()
    top = 0
    while top < len(lines) and re.match(r"#\||%%|\s*$", lines[top]):
        top += 1
    options = [line for line in lines[:top] if line.startswith("#|")]
    magics = [line for line in lines[:top] if line.startswith("%%")]
    return options, magics, lines[top:]


HOME = Path("index.ipynb")
EXERCISES = "^## Exercises"
MAP = (
    "A line leads from a chapter to those that import what it builds. Hover over a "
    "chapter, or step to it by the Tab key, to see what it uses and what uses it."
)


class Staged:
    "What becomes of the cells of one notebook."

    def __init__(self, src: Path, warn: Callable):
        self.src, self.links = src, Links(src, warn)
        self.figures = self.drawings = 0
        self.warn = lambda text: warn(f"nbs/{src.as_posix()}: {text}")
        self.asked = defined_here(src)  # their definition stands on the page
        self.module, self.key = module_of(src), key_of(src)
        self.numbered = bool(re.match(r"\d+_", src.name))
        self.section, self.in_card, self.headings = "", False, 0
        # the title is front matter and has no anchor; others have
        prose = "\n".join(sources(src, "markdown"))
        heads = re.findall(r"^##+\s+(.+?)\s*$", prose, re.M)
        self.anchors = {re.sub(r"[^\w]+", "-", h.lower()).strip("-") for h in heads}

    def prose(self, cell) -> list:
        bare = re.sub(r"^```.*?^```", "", cell.source, flags=re.M | re.S)
        for m in re.finditer(r"^#+ .*\$.*$", bare, re.M):
            self.warn(f"a formula in a heading, which contents show as TeX: {m[0]}")
        for m in re.finditer(r"^```\s*\{?(mermaid|dot)\b", cell.source, re.M):
            self.warn(f"a {m[1]} diagram needs a script: draw it in a cell, or as SVG")
        text = self.links.markdown(cell.source)
        if self.src == HOME:
            return self.home(text)
        if "**You need**" in text:
            return self.opening(text)
        if self.numbered and (self.section or re.search(EXERCISES, text, re.M)):
            return [c for piece in parts.pieces(text) for c in self.piece(piece)]
        cell.source = text
        return [cell]

    def opening(self, text: str) -> list:
        "Goals as they are; what one needs, the time and the article as a list."
        blocks = re.split(r"\n\s*\n", text)
        need = next(b for b in blocks if "**You need**" in b)
        at = blocks.index(need)
        before, after = ("\n\n".join(b) for b in (blocks[:at], blocks[at + 1 :]))
        facts = raw(parts.facts(need))
        return [markdown(t) for t in (before, facts, after) if t]

    def home(self, text: str) -> list:
        "After the first words a button that begins; before the second part the map."
        out = []
        for piece in parts.pieces(text):
            heading, found = piece.startswith("## "), course()
            if heading and not self.headings and found:
                shown = raw(parts.chapter_map(found) + parts.PROGRESS)
                out.append(markdown(f"## The map\n\n{MAP}\n\n{shown}"))
            self.headings += heading
            out.append(markdown(piece))
            if self.section == "" and not heading and found:
                out.append(markdown(raw(parts.begin(found[0]))))
            self.section = "home"
        return out

    def piece(self, text: str) -> list:
        "A section's heading, an exercise's text on its card, or a question."
        label = parts.LABEL.match(text)
        if text.startswith("## "):
            self.section = text.splitlines()[0][3:].strip()
            return [*self.end_card(), markdown(text)]
        if label and self.section == "Exercises":
            return [*self.end_card(), *self.card(label, text[label.end() :])]
        if label and self.section == "Questions":
            id = f"{self.key}.q{label[1]}"
            if id in answers()[1]:
                self.asked.append(id)
                rest = parts.CHOICE.split(text)[-1].strip()
                asked = [markdown(raw(self.quiz(id, label[1], text)))]
                return asked + ([markdown(rest)] if rest else [])
        return [markdown(text)] if text.strip() else []

    def card(self, label: re.Match, text: str) -> list:
        n, name = label[1], label[2] or ""
        self.in_card = True
        head = parts.card(f"{self.key}.{n}", n, parts.kind(name, text))
        return [markdown(raw(head)), markdown(f"**{name}** {text}" if name else text)]

    def end_card(self) -> list:
        ended, self.in_card = self.in_card, False
        return [markdown(raw(parts.CARD_END))] if ended else []

    def end(self) -> list:
        "What stands below a chapter's last cell."
        out = self.end_card()
        if self.numbered:
            box = parts.tick(f"{self.key}.read", "I have read this chapter")
            out.append(markdown(raw(f'<p class="read">{box}</p>')))
        return out

    def quiz(self, id: str, n: str, shown: str = "") -> str:
        "A question in the words of the chapter, explained in those of the exercises."
        text, choices, answer = answers()[1][id]
        text, here = self.links.markdown(text), dict(parts.CHOICE.findall(shown))
        if [*here] == [*choices]:  # formulas and emphasis
            label = parts.LABEL.match(shown)
            text = parts.CHOICE.split(shown[label.end() :])[0]
            choices = {k: (here[k], why) for k, (_, why) in choices.items()}
        linked = {k: (c, self.links.markdown(why)) for k, (c, why) in choices.items()}
        return parts.quiz(id, n, text, linked, answer)

    def code(self, cell) -> list:
        "The cell itself, with what is drawn here after it, and answers folded."
        options, magics, code = code_lines(cell.source)
        if any(unrecorded(line) for line in magics):
            return []
        out = []
        if "exports" in cell.directives_ and self.module:
            out.append(markdown(self.exported("\n".join(code))))
        text = "\n".join(code)
        ids = re.findall(CHECK, text, re.M)
        if len(code) == 1 and ids and ids[0] in self.asked and ids[0] in answers()[1]:
            return []  # the question stands above
        cell.source = "\n".join(options + magics + code).rstrip()
        cell.execution_count = None
        out += self.outputs(cell)
        if self.src == HOME and "#| code-fold: true" in options:
            out.append(out.pop(0))  # the picture before its code
        for id in ids:
            if id not in self.asked:
                self.asked.append(id)
                out.append(markdown(self.answer(id)))
        return out

    def exported(self, code: str) -> str:
        "The name of the module above a definition, with an anchor for each name."
        names = [name for name, *_ in definitions(code) if name not in self.anchors]
        spans = "".join(f'<span id="{name}"></span>' for name in names)
        return raw(
            f'<p class="exported">{spans}<code>mmcourse.{self.module}</code></p>'
        )

    def outputs(self, cell) -> list:
        "The cell and its outputs in their order; those drawn here stand between cells."
        from execnb.nbio import mk_cell

        hidden = re.search(r"^#\|\s*(include|output):\s*false", cell.source, re.M)
        given, cell.outputs = list(cell.outputs), []
        out, last = [cell], cell
        pictures = [o for o in given if {"image/svg+xml", "image/png"} & {*data_of(o)}]
        for o in [] if hidden else given:
            data = data_of(o)
            if o in pictures:
                page = self.figure(cell, data, o is pictures[-1])
            elif "text/html" in data:
                page = self.frames(self.links.html("".join(data["text/html"])))
                page = f'<div class="cell-html">{page}</div>'
            else:
                if "text/markdown" in data:
                    text = captioned("".join(data["text/markdown"]))
                    data["text/markdown"] = self.links.markdown(text)
                if last is None:  # something was drawn here in between
                    last = mk_cell("#| echo: false\npass", "code")
                    last.outputs = []
                    out.append(last)
                last.outputs.append(o)
                continue
            out.append(markdown(raw(page)))
            last = None
        return out

    def frames(self, page: str) -> str:
        "HTML in which the pictures of a slider are as figures are."

        def frame(m: re.Match) -> str:
            self.drawings += 1
            svg = drawing(m[3], f"s{self.drawings}-", html.unescape(m[2]))
            return m[1] + svg.replace(' role="img"', "", 1)  # the box around it has it

        box = r'(<div role="img" aria-label="([^"]*)"[^>]*>)(<svg.*?</svg>)'
        return re.sub(box, frame, page, flags=re.S)

    def figure(self, cell, data: dict, last: bool) -> str:
        self.figures += 1
        alt, caption = (cell.metadata.get(k, "") for k in ("fig-alt", "fig-cap"))
        if not alt:
            self.warn(f"figure {self.figures} has no fig-alt: {cell.source[:60]!r}")
            alt = caption or f"Figure {self.figures}"
        return figure(data, alt, caption if last else "", n=self.figures)

    def answer(self, id: str) -> str:
        solutions, questions = answers()
        if id in solutions:
            return solution(id, *solutions[id])
        if id in questions:
            return raw(self.quiz(id, id.rpartition("q")[2]))
        self.warn(f"exercise {id} is not defined in mmcourse/exercises/")
        return ""


def unrecorded(magic: str) -> bool:
    "Whether a cell needs a GPU and nobody has recorded what it gave."
    name = re.match(r"%%gpu\s+(\S+)", magic)
    return bool(name) and not (ROOT / "data" / "gpu" / f"{name[1]}.json").is_file()


def data_of(output: dict) -> dict:
    return output.get("data", {})


def captioned(text: str) -> str:
    "A table for a page: what a notebook shows in italics above it is its caption."
    text = text.replace(" ± ", "\u00a0±\u00a0")  # a narrow column does not part them
    return re.sub(r"\A\*(.+)\*\n\n(\|.*)", r"\2\n\n: \1", text, flags=re.S)


def stage_notebook(src: Path, dest: Path, warn: Callable = print):
    "Write nbs/`src` to `dest` as the renderers read it: YAML options, no directive."
    import yaml
    from execnb.nbio import mk_cell, read_nb, write_nb

    nb = read_nb(NBS / src)
    processors()(nb)
    front = {k: v for k, v in (nb.frontmatter_ or {}).items() if k != "output-file"}
    if "title" not in front:
        title_of(src)  # says what is missing
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    out, page = [mk_cell(f"---\n{head}---\n", "raw")], Staged(src, warn)
    if src.parent != Path():
        out.append(markdown(chapter_line(src)))
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            out += page.prose(cell)
        elif cell.cell_type == "code":
            out += page.code(cell)
    out += page.end()
    for i, cell in enumerate(out):
        cell["id"], cell["metadata"] = f"cell-{i}", {}
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    nb.cells, nb.metadata = out, {"kernelspec": kernel}
    dest.parent.mkdir(parents=True, exist_ok=True)
    write_nb(nb, dest)


def chapter_line(src: Path) -> str:
    "The line under a chapter's title: open it in Colab, download it, edit it."
    s = settings()
    repo, path = f"{s['user']}/{s['repo']}", f"{s['branch']}/nbs/{src.as_posix()}"
    colab = "https://colab.research.google.com/github"
    links = {
        f"{colab}/{repo}/blob/{path}": "Open in Colab",
        f"notebook:{src.as_posix()}": "Download notebook",  # `finish` knows where
        f"https://github.com/{repo}/edit/{path}": "Edit on GitHub",
    }
    page = " ".join(f'<a href="{to}">{name}</a>' for to, name in links.items())
    return raw(f'<p class="chapter-links">{page}</p>')


def fold(name: str, id: str, text: str) -> str:
    "Markdown under a line that opens it, without JavaScript."
    head = f'<summary>{name} <span class="exercise-id">{id}</span></summary>'
    return f'<details class="exercise">\n{head}\n\n{text}\n\n</details>\n'


def solution(id: str, code: str, hint: str, why: str) -> str:
    "A folded hint and a folded reference solution."
    text = f"```python\n{code}\n```" + (f"\n\n{why}" if why else "")
    return (fold("Hint", id, hint) if hint else "") + "\n" + fold("Solution", id, text)


# ---------------------------------------------------------------- stage: the site


def sidebar(entries: list, left: set) -> list:
    "The sidebar's entries with globs filled in; takes what is listed out of `left`."
    out = []
    for entry in entries:
        if isinstance(entry, str):  # a glob: the chapters of a folder
            folder = entry.removesuffix("/*")
            found = [src for src in chapters() if src.parent.as_posix() == folder]
            left.difference_update(found)
            out += [{"text": title_of(s), "href": str(staged(s))} for s in found]
        elif "href" in entry:
            left -= {src for src in chapters() if str(staged(src)) == entry["href"]}
            out.append(entry)
        else:
            inside = entry["contents"]
            inside = sidebar([inside] if isinstance(inside, str) else inside, left)
            out += [{**entry, "contents": inside}] if inside else []
    return out


def stage_config(dest: Path):
    "Write _quarto.yml with the sidebar's chapters and the addresses filled in."
    import yaml

    cfg = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    web, s, left = cfg["website"], settings(), set(chapters())
    web["sidebar"]["contents"] = sidebar(web["sidebar"]["contents"], left)
    if left:
        names = ", ".join(f"nbs/{src.as_posix()}" for src in sorted(left))
        raise SiteError(f"_quarto.yml: the sidebar has no section for {names}")
    web["site-url"] = s["doc_host"] + s["doc_baseurl"]
    code = {"icon": "github", "href": s["git_url"], "text": "The repository on GitHub"}
    web["navbar"]["tools"] = [code]
    text = yaml.safe_dump(cfg, sort_keys=False, allow_unicode=True)
    dest.write_text(text, encoding="utf-8")


def library_page() -> str:
    "The index of the library: every function and class, with a link to its chapter."
    promise = (
        "Every function and class that the chapters export, in the order of the "
        "course, with the chapter that explains it."
    )
    out = [f"---\ntitle: The library\ndescription: {promise}\n---\n"]
    for module, found in library().items():
        src = found[0][0]
        out.append(f"## mmcourse.{module} {{#{module}}}\n")
        out.append(f"From [{title_of(src)}]({staged(src)}).\n\n::: {{.library}}\n")
        for where, name, params, doc, shown in found:
            first = doc.strip().partition("\n")[0] or "No description."
            link = f"[`{name}`]({staged(where)}{f'#{name}' if shown else ''})"
            link += f"`({params})`" if params else ""
            out.append(f"{link}\n:   {first.replace('$', chr(92) + '$')}\n")
        out.append(":::\n")
    return "\n".join(out)


CACHED = cells, library, answers, tasks, course, glossary


def stage(dest: Path = STAGE) -> list[str]:
    "Fill `dest` with all that a renderer reads; returns what to look at."
    warnings = []
    for f in CACHED:
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
        if path.is_file() and path.suffix != ".ipynb" and listed(rel):
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


# Options of _quarto.yml that are Quarto's alone. What they ask for holds under
# smalldocs anyway: it runs nothing, keeps HTML tables, follows the reader's colour
# scheme, course.css sets its widths, and `finish` makes the MathML.
QUARTO_ONLY = (
    "execute.enabled",
    "format.html.grid",
    "format.html.html-math-method",
    "format.html.html-table-processing",
    "format.html.respect-user-color-scheme",
)


def render(folder: Path, by: str) -> list[str]:
    "Render the staging folder into its own _site; returns the renderer's warnings."
    if by == "quarto":
        quarto = [shutil.which("quarto"), "render", str(folder), "--no-execute"]
        subprocess.run(quarto, check=True)
        return []
    from smalldocs.config import load
    from smalldocs.site import Site

    site = Site(load(folder), quiet=True)
    site.build()
    known = tuple(f"{p}{key}" for key in QUARTO_ONLY for p in ("", "unknown key "))
    return [w for w in site.warnings if not w.startswith(known)]


# ---------------------------------------------------------------- finish: mathematics

TEX = re.compile(
    r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>'  # smalldocs
    r"|<math([^>]*)>(?:(?!</math>).)*?"  # Quarto: Pandoc's MathML keeps the TeX
    r'<annotation encoding="application/x-tex">(.*?)</annotation>\s*'
    r"</semantics>\s*</math>",
    re.S,
)


def mathml(tex: str, display: bool = False) -> str:
    "TeX as MathML, the same under both renderers. Raises `SiteError`."
    from math_core import LatexError

    tex = re.sub(r"\\\\\s*\[-?[\d.]+\s*[a-z]+\]", r"\\\\", tex.strip())  # row gaps
    try:
        return converter().convert_with_local_state(tex, displaystyle=display)
    except LatexError as e:
        raise SiteError(f"${tex}$: {e}") from None


@functools.cache
def converter():
    from math_core import LatexToMathML

    return LatexToMathML(annotation=True)


def as_mathml(m: re.Match) -> str:
    "A formula; a displayed one in a box that scrolls."
    tex = m[4] if m[2] is None else m[2]
    display = m[1] == "display" or 'display="block"' in (m[3] or "")
    page = mathml(html.unescape(tex), display)
    return f'<span class="formula">{page}</span>' if display else page


INVISIBLE = {0x2061, 0x2062, 0x2063, 0x2064, 0xFE00, 0x200B, 0xFEFF}


def drawn(page: str) -> set[int]:
    "The characters that the formulas of a page need: their text and what MathML draws."
    found = set()
    for formula in re.findall(r"<math.*?</math>", page, re.S):
        if re.search("<(msqrt|mroot)", formula):
            found.add(0x221A)  # √ stands in no text
        formula = re.sub(r"<annotation.*?</annotation>", "", formula, flags=re.S)
        for tag, text in re.findall(r"<(m[a-z]+)[^>]*>([^<>]*)", formula):
            text = html.unescape(text).strip()
            found |= set(map(ord, text))
            if tag == "mi" and len(text) == 1:
                found.add(italic(ord(text)))
    return {c for c in found if c > 0x20 and c not in INVISIBLE}


def italic(c: int) -> int:
    "The italic that a browser draws for a single letter of `<mi>`."
    if c == ord("h"):
        return 0x210E
    for first, last, to in (
        ("A", "Z", 0x1D434),
        ("a", "z", 0x1D44E),
        ("Α", "Ω", 0x1D6E2),
        ("α", "ω", 0x1D6FC),
    ):
        if ord(first) <= c <= ord(last):
            return to + c - ord(first)
    others = {"∇": 0x1D6FB, "∂": 0x1D715, "ϵ": 0x1D716, "ϑ": 0x1D717, "ϕ": 0x1D719}
    return others.get(chr(c), c)


def math_source() -> Path:
    "STIX Two Math (SIL Open Font Licence), which the package ziamath carries."
    import ziamath

    return Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"


def math_font(dest: Path, used: set[int]):
    "The font for mathematics, cut down to what the site draws."
    from fontTools import subset

    dest.parent.mkdir(parents=True, exist_ok=True)
    options = subset.Options(
        flavor="woff",
        layout_features=["*"],
        hinting=False,
        notdef_outline=True,
        name_IDs=[0, 1, 2, 13, 14],
    )
    font = subset.load_font(math_source(), options)
    cut = subset.Subsetter(options)
    # always what keyboards have, Greek, italics, and what stretches
    letters = [*range(0x20, 0x7F), *range(0x391, 0x3D7), *range(0x1D434, 0x1D468)]
    italics = [0x210E, *range(0x1D6E2, 0x1D71C)]
    stretch = map(ord, "√∑∏∫‖∣⟨⟩⌈⌉⌊⌋⏞⏟⏜⏝→←↔⇒ˆˇ˜¯‾˙¨^~̂̃̄⃗−×·′")
    cut.populate(unicodes={*letters, *italics, *stretch, *used})
    cut.subset(font)
    subset.save_font(font, str(dest), options)


# ---------------------------------------------------------------- finish: pages

CODE = re.compile(r'(<code class="sourceCode[^"]*">)(.*?)(</code>)', re.S)


def code_with_lines(m: re.Match) -> str:
    "Code with each line in a span that knows its indent, under which it may go on."
    if '<span id="cb' in m[2]:  # Quarto has the spans
        line = re.compile(r'(<span id="cb[\w-]+")(>(?:<a [^>]*></a>)?)( *)')
        return m[1] + line.sub(quarto_line, m[2]) + m[3]
    out, over = [], []  # over: the spans that a line leaves open, as a long string's
    for line in m[2].split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        opened = "".join(over)
        for tag in re.findall(r"<span[^>]*>|</span>", line):
            over = over[:-1] if tag == "</span>" else [*over, tag]
        head = f'<span class="line" style="--in:{indent}">'
        closed = "</span>" * len(over)
        out.append(f"{head}{opened}{line}{closed}</span>" if opened + line else "")
    return m[1] + "\n".join(out) + m[3]


def quarto_line(m: re.Match) -> str:
    return f'{m[1]} style="--in:{len(m[3])}"{m[2]}{m[3]}'


# What Quarto adds for output that might hold a widget; and KaTeX, which MathML replaces
FOREIGN = re.compile(
    r'<script\b[^>]*\bsrc="(?:https?:)?//[^>]*>\s*</script>\s*'
    r"|<script\b[^>]*>\s*define\('jquery'.*?</script>\s*"
    r'|<link\b(?=[^>]*\brel="(?:stylesheet|preload|preconnect)")'
    r'[^>]*\bhref="(?:https?:)?//[^>]*>\s*',
    re.S,
)
TABLE = re.compile(r"<table\b.*?</table>", re.S)


def scrolling(page: str) -> str:
    "Each table in a box of its own that scrolls, by keyboard too, and has a name."
    n = 0

    def boxed(m: re.Match) -> str:
        nonlocal n
        n += 1
        said = re.search(r"<caption[^>]*>(.*?)</caption>", m[0], re.S)
        words = re.sub(
            r"<annotation.*?</annotation>|<[^>]*>", "", said[1] if said else ""
        )
        words = " ".join(html.unescape(words).split())
        name = html.escape(f"Table {n}: {words}" if words else f"Table {n}")
        box = f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        return f"{box}{m[0]}</div>"

    return TABLE.sub(boxed, page)


# Landmarks of both renderers' pages that need names to be told apart
LANDMARKS = {
    'class="navbar ': "Site",
    'class="quarto-secondary-nav': "Where you are",
    'id="quarto-sidebar"': "Chapters",
    'id="TOC"': "On this page",
    'class="page-navigation': "Previous and next",
    "quarto-title-breadcrumbs": "Path",
}


def named(m: re.Match) -> str:
    "The opening tag of a landmark, with a name."
    for mark, name in LANDMARKS.items():
        if mark in m[0]:
            tag = re.sub(r'\s+aria-label="[^"]*"', "", m[0])
            return f'{tag[:-1]} aria-label="{name}">'
    return m[0]


def marked(page: str, name: str) -> str:
    "The sidebar's links to chapters say which chapter it is; course.js marks them."
    data = {c.href: c.data for c in course()}

    def mark(m: re.Match) -> str:
        href = re.search(r'href="([^"#]+)"', m[0])
        if not href or re.match("[a-z]+:|/", href[1]):
            return m[0]
        to = os.path.normpath(PurePosixPath(name).parent / href[1])
        more = data.get(PurePosixPath(to).as_posix())
        return f"{m[0][:-1]} {more}>" if more else m[0]

    return re.sub(r'<a\b[^>]*class="[^"]*\bsidebar-link\b[^>]*>', mark, page)


def about(page: str, name: str) -> str:
    "What a social network shows of a page."
    s = settings()
    title = html.unescape(re.search(r"<title>(.*?)</title>", page, re.S)[1])
    said = re.search(r'<meta name="description" content="([^"]*)"', page)
    home = s["doc_host"] + s["doc_baseurl"]
    to = "" if name == "index.html" else name
    said = html.unescape(said[1]) if said else s["description"]
    return parts.social(title, said, f"{home}/{to}", f"{home}/{card_of(name)}")


def card_of(name: str) -> str:
    "Where a page's picture for social networks is, from the site's root."
    chapter = name in [c.href for c in course()]
    return f"site/cards/{PurePosixPath(name).stem if chapter else 'index'}.png"


@functools.cache
def footnote() -> str:
    "How to cite the course."
    import yaml

    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    s = settings()
    return parts.citation(cff, s["doc_host"] + s["doc_baseurl"])


def finished(page: str, name: str) -> str:
    "A page as it is published; `name` is its path from the site's root."
    up = "../" * name.count("/")
    page = FOREIGN.sub("", page)
    page = TEX.sub(as_mathml, page)
    page = CODE.sub(code_with_lines, page)
    page = re.sub(r"<nav\b[^>]*>", named, page)
    page = re.sub(r"<i\b[^>]*>", icon, page)
    page = re.sub(r'<a class="sidebar-item-t[^>]*role="navigation"[^>]*>', opener, page)
    page = re.sub(
        r'href="notebook:([^"]+)"', rf'href="{up}notebooks/\1" download', page
    )
    head, main, rest = re.split(r"(<main\b.*</main>)", page, maxsplit=1, flags=re.S)
    if name in [c.href for c in course()]:
        main = parts.with_terms(main, glossary())
    rest = marked(rest, name).replace("</footer>", footnote() + "</footer>", 1)
    script = f'<script src="{up}site/course.js" defer></script>'
    head = re.sub(r'<meta (?:property="og:|name="twitter:)[^>]*>\s*', "", head)
    head = marked(head, name).replace("</head>", f"{about(head, name)}{script}</head>")
    return head + scrolling(main) + rest


def icon(m: re.Match) -> str:
    "An icon that has no name of its own says nothing beside what it stands in."
    if re.search('aria-label="[^"]|aria-hidden', m[0]):
        return m[0]
    tag = re.sub(r' (role|aria-label)="[^"]*"', "", m[0])
    return f'{tag[:-1]} aria-hidden="true">'


def opener(m: re.Match) -> str:
    "What folds a part of the sidebar: a button, its arrow a picture of the same."
    if "sidebar-item-toggle" in m[0]:
        tag = re.sub(r' (role|aria-label|aria-expanded)="[^"]*"', "", m[0])
        return f'{tag[:-1]} aria-hidden="true">'
    return m[0].replace('role="navigation"', 'role="button" tabindex="0"')


def finish(site: Path):
    "What neither renderer does."
    used = set()
    for path in site.rglob("*.html"):
        if "site_libs" in path.parts:
            continue
        name = path.relative_to(site).as_posix()
        try:
            page = finished(path.read_text("utf-8"), name)
        except SiteError as e:
            raise SiteError(f"{name}: {e}") from None
        used |= drawn(page)
        path.write_text(page, encoding="utf-8")
    for src in chapters():
        (site / "notebooks" / src).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(NBS / src, site / "notebooks" / src)
    (site / "site").mkdir(exist_ok=True)
    shutil.copy2(ROOT / "site" / "course.js", site / "site")
    math_font(site / "site" / "math.woff", used)
    cards(site)
    find_words(site / "search.json")
    page = (site / "library.html").read_text(encoding="utf-8")
    base, links = settings()["doc_baseurl"] + "/", parts.chapter_map(course())
    page = parts.not_found(page, base, links)
    (site / "404.html").write_text(page, encoding="utf-8")


def cards(site: Path):
    "The pictures that social networks show: one of the course, one a chapter."
    s = settings()
    foot = f"{s['title']} · {s['doc_host'].partition('//')[2]}{s['doc_baseurl']}"
    parts.picture(s["title"], s["description"], foot, site / card_of("index.html"))
    for c in course():
        title = f"{c.number} {c.title}"
        parts.picture(title, c.promise, foot, site / card_of(c.href))


def find_words(path: Path):
    "The search finds a chapter by the Chinese and the English of what it teaches."
    pages = {c.number: c.href for c in course()}
    words = {}
    for t in glossary():
        if t.chapter in pages:
            words.setdefault(pages[t.chapter], []).append(f"{t.english} {t.chinese}")
    if not words or not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for e in found:
        more = words.pop(e["href"].partition("#")[0], [])
        e["text"] = f"{' · '.join(more)} {e['text']}".strip()
    path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


# ---------------------------------------------------------------- the commands


def build(out: Path, by: str = "", folder: Path = STAGE) -> list[str]:
    "Build the whole site into `out`, replaced in one go; returns warnings."
    out, by = Path(out).resolve(), by or renderer()
    if not by:
        raise SiteError(
            "no renderer: install Quarto, or smalldocs (Python 3.11 or newer) "
            'with pip install "smalldocs>=0.5.4"'
        )
    ours = out.is_dir() and ((out / "site_libs").is_dir() or not any(out.iterdir()))
    if out.exists() and not ours:
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

    base = settings()["doc_baseurl"] + "/"

    class Quiet(SimpleHTTPRequestHandler):
        "As the site's host: below the site's path as well, with the site's 404 page."

        def log_message(self, *args):
            pass

        def translate_path(self, path):
            if path.startswith(base):
                path = path[len(base) - 1 :]
            return super().translate_path(path)

        def send_error(self, code, message=None, explain=None):
            page = Path(site) / "404.html"
            if code != 404 or not page.is_file():
                super().send_error(code, message, explain)
                return
            body = page.read_bytes()
            self.send_response(404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    handler = functools.partial(Quiet, directory=str(site))
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = parser.add_subparsers(dest="command", required=True)
    b = sub.add_parser("build", help="build the site")
    by = "Quarto where it is installed, smalldocs where not"
    b.add_argument("--renderer", choices=["quarto", "smalldocs"], default="", help=by)
    v = sub.add_parser(
        "serve", help="serve the site on 127.0.0.1; builds it where it is missing"
    )
    v.add_argument("--port", type=int, default=4200)
    for p in (b, v):
        where = "the folder of the built site"
        p.add_argument("--out", type=Path, default=ROOT / "_site", help=where)
    return parser.parse_args(argv)


def run(args: argparse.Namespace):
    if args.command == "build" or not (args.out / "index.html").is_file():
        start, by = time.perf_counter(), getattr(args, "renderer", "") or renderer()
        for w in build(args.out, by):
            print("warning:", w, file=sys.stderr)
        seconds = time.perf_counter() - start
        print(f"{len(chapters()) + 1} pages by {by} in {seconds:.0f} s: {args.out}")
    if args.command == "serve":
        with server(args.out, args.port) as httpd:
            address = f"http://127.0.0.1:{httpd.server_address[1]}/"
            print(f"{address} (Ctrl-C ends it)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                httpd.serve_forever()


def main(argv: list[str] | None = None) -> int:
    try:
        run(arguments_of(argv))
    except (SiteError, OSError) as e:
        print(f"tools/site.py: {e}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as e:
        return e.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
