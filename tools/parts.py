"""Parts of the site's pages, as HTML: what a learner works with.

`tools/site.py` reads the notebooks, the library and the exercises, and puts these parts
where they belong. Nothing here reads a file but the fonts of the pictures that social
networks show. All of it is readable without JavaScript; `site/course.js` adds what a
reader has done, which stays in the reader's browser.
"""

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

# ---------------------------------------------------------------- text


def inline(text: str) -> str:
    "A line of Markdown as HTML: `code`, $formulas$, emphasis, links, curly quotes."
    kept = []

    def keep(m: re.Match) -> str:
        if m[1] is not None:
            kept.append(f"<code>{html.escape(m[1], quote=False)}</code>")
        else:
            tex = html.escape(m[2], quote=False)
            kept.append(rf'<span class="math inline">\({tex}\)</span>')
        return f"\0{len(kept) - 1}\0"

    text = re.sub(r"`([^`]+)`|\$([^$]+)\$", keep, text)
    text = html.escape(text, quote=False)
    text = re.sub(r"(?<=\w)'|(?<!\w)'(?=\d)", "’", text)
    text = re.sub(r'"(?=[\w\0$(*])(?<![\w\0]")', "“", text).replace('"', "”")
    text = re.sub(r"\[([^\[\]]+)\]\(([^()\s]+)\)", anchor, text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)(.+?)(?<=\S)\*(?![\w*])", r"<em>\1</em>", text)
    return re.sub("\0(\\d+)\0", lambda m: kept[int(m[1])], text)


def anchor(m: re.Match) -> str:
    "A link; to a page where Markdown links to its notebook."
    href = m[2]
    if not re.match("[a-z]+:", href):
        href = re.sub(r"\.ipynb(?=#|$)", ".html", href)
    return f'<a href="{href}">{m[1]}</a>'


def paragraphs(text: str) -> str:
    "Paragraphs of Markdown, each as `inline` has it."
    found = [p for p in re.split(r"\n\s*\n", text.strip()) if p]
    return "".join(f"<p>{inline(p)}</p>" for p in found)


# ---------------------------------------------------------------- a chapter's opening

FACT = re.compile(
    r"\*\*(You will be able to|You need|Time|On two CPU cores|Article"
    r"|Used by|See also)\*\*"
)
LINK = r"\[[^\[\]]+\]\([^()\s]+\)"


def facts(paragraph: str) -> str:
    "**You need** … · **Time** … · **Article** … as a list; what stands before stays."
    before, *found = FACT.split(paragraph)
    out, rows = [paragraphs(before)], []
    for name, text in zip(found[::2], found[1::2]):
        text = re.sub(r"(<br>|·|\s)+$", "", text.strip())
        if name == "You will be able to":
            out.append(f"<p><strong>{name}</strong> {inline(text)}</p>")
            continue
        if name == "On two CPU cores":
            name, text = "Time", f"{text} on two CPU cores"
        links = re.fullmatch(rf"{LINK}(,\s*{LINK})*\.?", text)
        if links:  # a place for each
            parts = [inline(m) for m in re.findall(LINK, text)]
            text = " ".join(p.replace("<a ", '<a class="chip" ') for p in parts)
        else:
            text = inline(text)
        rows.append(f"<div><dt>{name}</dt><dd>{text}</dd></div>")
    return "".join(out) + f'<dl class="facts">{"".join(rows)}</dl>'


# ---------------------------------------------------------------- exercises, questions

# **1.** text, **3. Break it and repair it.** text, **Q1.** text, **Question 1.** text
LABEL = re.compile(r"\*\*(?:Q|Question )?(\d+)\.(?:\*\*| +([^*\n]+)\*\*)\s*")
CHOICE = re.compile(r"^- \*\*([a-z])\*\* (.*)$", re.M)


def pieces(text: str) -> list[str]:
    "A Markdown cell, cut before each heading of a section and before each label."
    return re.split(r"^(?=## |\*\*(?:Q|Question )?\d+\.)", text, flags=re.M)


def kind(label: str, text: str) -> str:
    "What an exercise asks for, in a word or two."
    for start, name in {
        "Break it": "break and repair",
        "Open": "open",
        "Predict": "prediction",
    }.items():
        if (label or text).startswith(start):
            return name
    return "code"


def tick(id: str, name: str) -> str:
    "A box that remembers, in the reader's browser, that something is done."
    box = f'<input type="checkbox" data-tick="{id}">'
    return f'<label class="tick">{box} {name}</label>'


def card_head(what: str, n: str, more: str) -> str:
    id = f"{what.lower()}-{n}"
    name = f'<a class="card-name" id="{id}-name" href="#{id}">{what} {n}</a>'
    return f'<p class="card-head">{name} {more}</p>'


def card(id: str, n: str, of: str) -> str:
    "The opening of an exercise's card; cells follow, and `CARD_END`."
    more = f'<span class="kind">{of}</span> {tick(id, "done")}'
    name = f"exercise-{n}"
    opening = f'<div class="card-box" id="{name}" role="group"'
    return f'{opening} aria-labelledby="{name}-name">{card_head("Exercise", n, more)}'


CARD_END = "</div>"


def quiz(
    id: str,
    n: str,  # its number in the chapter
    text: str,
    choices: dict[str, tuple[str, str]],  # letter -> (choice, why it is or is not)
    answer: str,  # the right letter
) -> str:
    "A question. Opening a choice says whether it is right, and why."
    rows = []
    for letter, (choice, why) in choices.items():
        right = letter == answer
        said = "✓ Right." if right else "✗ Not right."
        mark = "right" if right else "wrong"
        choice = re.sub(r"\[([^\[\]]+)\]\([^()]*\)", r"\1", choice)  # no link
        rows.append(
            f'<details class="choice {mark}" data-choice="{letter}">'
            f"<summary><b>{letter}</b> <span>{inline(choice)}</span></summary>"
            f"<p><strong>{said}</strong> {inline(why)}</p></details>"
        )
    head = f'<span class="exercise-id">{id}</span>'
    return (
        f'<div class="card-box quiz" id="question-{n}" role="group" '
        f'aria-labelledby="question-{n}-name" data-question="{id}">'
        f"{card_head('Question', n, head)}{paragraphs(text)}{''.join(rows)}"
        '<p class="visually-hidden" role="status"></p></div>'
    )


# ---------------------------------------------------------------- the map


@dataclass
class Chapter:
    "What the map and the sidebar know of a chapter."

    number: str
    title: str  # without the number
    promise: str  # the sentence below it
    module: str
    href: str  # from the site's root
    part: str  # the sidebar's name of its part
    exercises: int = 0
    questions: int = 0
    uses: list[str] = field(default_factory=list)  # numbers of chapters

    @property
    def data(self) -> str:
        "As attributes of a link; course.js marks such links."
        tasks = f"{self.exercises} {self.questions}"
        return f'data-chapter="{self.module}" data-tasks="{tasks}"'


def direct(found: list[Chapter]) -> dict[str, list[str]]:
    "Of what each chapter uses, the part that it does not use through another one."
    uses = {c.number: set(c.uses) for c in found}
    behind = {}  # in the order of the course a chapter uses earlier ones
    for n in sorted(uses):
        uses[n] = {u for u in uses[n] if u < n}
        behind[n] = set().union(*(behind.get(u, set()) | {u} for u in uses[n]))
    return {
        n: sorted(u for u in used if not any(u in behind.get(v, ()) for v in used))
        for n, used in uses.items()
    }


def chapter_map(found: list[Chapter]) -> str:
    "Chapters by parts; course.js draws a line from each to those that use it."
    lines, parts = direct(found), {}
    for c in found:
        uses = " · ".join(f"{u}" for u in sorted(c.uses) if u < c.number)
        small = f'<span class="uses">uses {uses}</span>' if uses else ""
        parts.setdefault(c.part, []).append(
            f'<li><a class="node" id="map-{c.number}" href="{c.href}" {c.data} '
            f'data-from="{" ".join(lines[c.number])}">'
            f'<span class="node-name"><b>{c.number}</b> {html.escape(c.title)}</span> '
            f"{small}</a></li>"
        )
    rows = []
    for name, nodes in parts.items():
        inside = f"<p>{html.escape(name)}</p><ol>{''.join(nodes)}</ol>"
        rows.append(f'<div class="map-part">{inside}</div>')
    return f'<nav class="map" aria-label="Map of the chapters">{"".join(rows)}</nav>'


PROGRESS = (
    '<div class="progress-box" id="your-progress" role="group" hidden '
    'aria-label="Your progress">'
    '<p class="progress-said"></p>'
    '<p class="progress-keep">'
    '<button type="button" data-do="export">Export</button> '
    '<button type="button" data-do="import">Import</button> '
    '<button type="button" data-do="reset">Reset</button> '
    '<input type="file" accept="application/json,.json" aria-label="A saved progress" '
    "hidden></p>"
    '<p class="progress-note">Kept in this browser alone: nothing is sent anywhere. '
    'Export saves it as a file, import adds such a file. <span role="status"></span>'
    "</p></div>"
)


def begin(first: Chapter) -> str:
    "The button that opens the first chapter; course.js lets it go on where one is."
    return (
        f'<p class="begin"><a class="begin-link" href="{first.href}">'
        f"Begin with {first.number} {html.escape(first.title)}</a></p>"
    )


# ---------------------------------------------------------------- words


@dataclass
class Term:
    "A row of the glossary."

    english: str
    chinese: str
    pinyin: str
    meaning: str  # HTML
    chapter: str  # the number of the chapter that teaches it, or ''

    @property
    def names(self) -> list[str]:
        "How a text may call it: both of `recurrent network (RNN)`."
        found = re.split(r"\s*[()]\s*", self.english.lower())
        return [name for name in found if name]


def terms(tables: str) -> list[Term]:
    "The rows of Markdown tables `| English | 中文 | pinyin | meaning | chapter |`."
    out, inside = [], False
    for line in tables.splitlines():
        row = [c.strip() for c in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if len(row) != 5:
            inside = False
        elif row[0].lower() == "english":
            inside = True
        elif inside and not re.fullmatch(r"[:\s-]*", row[0]):
            number = re.search(r"\d\d?", row[4])
            english = re.sub(r"[*`]", "", row[0])
            taught = number[0].zfill(2) if number else ""
            out.append(Term(english, *row[1:3], inline(row[3]), taught))
    return out


def entry(t: Term, n: int, word: str) -> str:
    "A word of the text with its entry, which shows while the word has the focus."
    said = f'<span lang="zh">{html.escape(t.chinese)}</span>'
    said += f' <i lang="zh-Latn">{html.escape(t.pinyin)}</i>'
    return (
        f'<span class="term"><button type="button" aria-describedby="term-{n}">{word}'
        f'</button><span class="entry" role="tooltip" id="term-{n}">'
        f"<b>{html.escape(t.english)}</b> {said} – {t.meaning}</span></span>"
    )


# No word is marked in what is a link, a name, code, a formula or a button already
PLAIN = re.compile(
    r"<(/?)(a|button|code|pre|math|svg|h[1-6]|summary|label|figcaption|table|header"
    r"|script|style|dl|nav|audio)\b[^>]*?(/?)>"
)


def with_terms(main: str, glossary: list[Term]) -> str:
    "The first use of each term in a page's text, with its entry."
    left = {name: t for t in glossary for name in t.names}
    if not left:
        return main
    longest = sorted(map(re.escape, left), key=len, reverse=True)
    word = rf"(?<![\w-])({'|'.join(longest)})(?:e?s)?(?![\w-])"
    out, deep, n = [], 0, 0

    def mark(m: re.Match) -> str:
        nonlocal n
        t = left.get(m[1].lower())
        if t is None:
            return m[0]
        n += 1
        for name in t.names:
            left.pop(name, None)
        return entry(t, n, m[0])

    for part in re.split(r"(<[^>]*>)", main):
        if not part.startswith("<"):
            out.append(part if deep else re.sub(word, mark, part, flags=re.I))
            continue
        out.append(part)
        if m := PLAIN.match(part):
            deep += 0 if m[3] else -1 if m[1] else 1
    return "".join(out)


# ---------------------------------------------------------------- head and foot


def social(title: str, description: str, url: str, picture: str) -> str:
    "What a social network shows of a page."
    said = {
        "og:type": "article",
        "og:title": title,
        "og:description": description,
        "og:url": url,
        "og:image": picture,
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": title,
    }
    tags = [
        f'<meta property="{name}" content="{html.escape(text)}">'
        for name, text in said.items()
    ]
    return "".join(tags) + '<meta name="twitter:card" content="summary_large_image">'


def latin(text: str) -> str:
    "Without what the pictures' font does not hold."
    text = re.sub(r"[^\u0020-\u024f\u0370-\u03ff–—‘’“”…√×±→·]+", "", text)
    return re.sub(r"^[\s:.,;]+", "", text.replace("$", "")).strip()


def picture(title: str, promise: str, foot: str, dest: Path):
    "A picture for social networks, 1200 by 630, in the course's colours."
    import textwrap

    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    image = Image.new("RGB", (1200, 630), "#15191d")
    draw = ImageDraw.Draw(image)

    def text(y: int, words: str, size: int, width: int, name: str, fill: str) -> int:
        font = ImageFont.truetype(str(fonts / f"{name}.ttf"), size)
        for line in textwrap.wrap(latin(words), width)[:4]:
            draw.text((80, y), line, fill, font)
            y += round(size * 1.35)
        return y

    for i, colour in enumerate(("#009e73", "#0072b2", "#d55e00")):
        draw.rectangle((80 + 110 * i, 90, 190 + 110 * i, 100), colour)
    size = 76 if len(title) < 22 else 56
    y = text(140, title, size, 1560 // size, "DejaVuSerif-Bold", "#ffffff")
    text(y + 24, promise, 34, 52, "DejaVuSans", "#c4cbd1")
    text(540, foot, 26, 70, "DejaVuSans", "#8cc4e4")
    dest.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(32).save(dest, optimize=True)


def bibtex(cff: dict, url: str) -> str:
    "CITATION.cff as BibTeX."
    names = []
    for a in cff["authors"]:
        if "family-names" in a:
            names.append(f"{a['family-names']}, {a['given-names']}")
        else:
            names.append(f"{{{a['name']}}}")
    fields = {
        "author": " and ".join(names),
        "title": f"{{{cff['title']}}}",
        "year": str(cff["date-released"])[:4],
        "version": cff["version"],
        "url": url,
        "note": f"License: {cff['license']}",
    }
    rows = [f"  {k:<7} = {{{v}}}" for k, v in fields.items()]
    return "@software{mmcourse,\n" + ",\n".join(rows) + "\n}"


def citation(cff: dict, url: str) -> str:
    "How to cite the course, for the foot of a page."
    text = html.escape(bibtex(cff, url), quote=False)
    return (
        '<details class="cite"><summary>Cite this course (BibTeX)</summary>'
        f'<pre tabindex="0" role="group" aria-label="BibTeX">{text}</pre></details>'
    )


NOT_FOUND = (
    '<header id="title-block-header" class="quarto-title-block default">'
    '<div class="quarto-title"><h1 class="title">No such page</h1></div></header>'
    "<p>What you asked for is not here. It may have moved: chapters keep their names, "
    "and the search above knows every page.</p>"
    '<p class="begin"><a class="begin-link" href="index.html">To the start</a></p>'
    "<h2>All chapters</h2>"
)


def not_found(page: str, base: str, chapters: str) -> str:
    "A finished page at the site's root as the 404 page, which any address may show."
    main = f'<main class="content" id="quarto-document-content">{NOT_FOUND}'
    page = re.sub(
        r"<main\b.*?</main>", lambda m: f"{main}{chapters}</main>", page, flags=re.S
    )
    for gone in (
        r'<div id="quarto-margin-sidebar".*?</nav>\s*</div>',
        r'<nav class="page-navigation.*?</nav>',
        r'<meta (?:property="og:|name="(?:description|twitter:))[^>]*>',
        r'<link[^>]*rel="canonical"[^>]*>',
        r"(?<=\w) active(?=\")",
        r' aria-current="page"',
    ):
        page = re.sub(gone, "", page, flags=re.S)
    where = '<ol class="breadcrumb"><li class="breadcrumb-item">No such page</li></ol>'
    page = re.sub(r'<ol class="breadcrumb.*?</ol>', where, page, flags=re.S)
    title = r"<title>.*?( – [^<]*)?</title>"
    page = re.sub(title, r"<title>No such page\1</title>", page)
    # from an unknown depth only addresses from the host's root lead somewhere
    local = r'((?:href|src)=")(?![a-z]+:|/|#|")(?:\./)*'
    page = re.sub(local, rf"\g<1>{base}", page)
    offset = r'(name="(?:quarto|smalldocs):offset" content=")[^"]*'
    return re.sub(offset, rf"\g<1>{base}", page)
