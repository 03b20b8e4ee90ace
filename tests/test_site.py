"The site: what is staged, what its pages hold, what a browser makes of them."

import gzip
import inspect
import io
import json
import re
import shutil
import threading
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import matplotlib
import numpy as np
import pytest

from conftest import PATIENCE, tool, watched

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


site = tool("site")
parts = site.parts

# ---------------------------------------------------------------- what is read


def test_solutions_and_questions_are_those_that_check_has():
    "The site reads them from the source; mmcourse.check has them by running it all."
    check = pytest.importorskip("mmcourse.check")
    solutions, questions = site.answers()
    assert set(check.all_exercises()) == set(solutions)
    assert set(check.all_questions()) == set(questions)
    for id, (code, hint, why) in solutions.items():
        known = check.all_exercises()[id]
        assert code in inspect.getsource(known.reference), id
        assert (hint, why) == (known.hint, known.why), id
        assert hint, id
    for id, (text, choices, answer) in questions.items():
        known = check.all_questions()[id]
        assert (text, choices, answer) == (known.text, known.choices, known.answer), id


@pytest.fixture
def small_course(tmp_path, monkeypatch):
    "A function that makes a course of one chapter from its cells."

    def make(cells, exercises="", name="1_data/01_first"):
        nbs, defined = tmp_path / "nbs", tmp_path / "mmcourse" / "exercises"
        defined.mkdir(parents=True)
        (defined / "first.py").write_text(exercises, encoding="utf-8")
        for path, more in ((nbs / "index.ipynb", []), (nbs / f"{name}.ipynb", cells)):
            path.parent.mkdir(parents=True, exist_ok=True)
            nb = {"cells": [words("# T\n\n> q"), *more], "metadata": {}}
            nb |= {"nbformat": 4, "nbformat_minor": 4}
            path.write_text(json.dumps(nb), encoding="utf-8")
        for file in ("settings.ini", "_quarto.yml"):
            shutil.copy(ROOT / file, tmp_path)
        monkeypatch.setattr(site, "NBS", nbs)
        monkeypatch.setattr(site, "ROOT", tmp_path)
        for f in site.CACHED:
            f.cache_clear()
        return Path(f"{name}.ipynb")

    yield make
    for f in site.CACHED:
        f.cache_clear()


def code(source, outputs=(), **metadata):
    "A code cell with the data of its outputs, or their printed texts."
    made = []
    for o in outputs:
        if isinstance(o, str):
            made.append({"output_type": "stream", "name": "stdout", "text": o})
        else:
            kind = {"output_type": "display_data", "metadata": {}}
            made.append({**kind, "data": o})
    cell = {"cell_type": "code", "source": source, "metadata": metadata}
    return {**cell, "outputs": made, "execution_count": None}


def words(source):
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def staged(src, tmp_path):
    "The staged cells of a chapter, and what its author is told."
    told = []
    site.stage_notebook(src, tmp_path / "out.ipynb", told.append)
    nb = json.loads((tmp_path / "out.ipynb").read_text(encoding="utf-8"))
    found = [(c["cell_type"], "".join(c["source"]), c) for c in nb["cells"]]
    assert 'data-tick="first.read"' in found.pop()[1]  # the box at a chapter's end
    return found, told


SVG = f'<svg xmlns="{site.SVG}" width="36pt" height="18pt"><g id="figure_1"/></svg>'


def test_figures_have_their_text_number_and_caption(small_course, tmp_path):
    alt = 'It says "no": a < b'
    cap = "Of $x_1$ and `y`: 100 % <b>"
    cells = [
        code("draw()", [{"image/svg+xml": SVG}], **{"fig-alt": alt, "fig-cap": cap}),
        code("draw()", [{"image/png": "QUJD"}, {"image/png": "QUJD"}]),
    ]
    found, told = staged(small_course(cells), tmp_path)
    pages = [text for kind, text, _ in found if "<figure" in text]
    assert len(pages) == 3
    assert 'aria-label="It says &quot;no&quot;: a &lt; b"' in pages[0]
    assert 'width="48" height="24"' in pages[0]
    number = '<span class="number">Figure 1.</span>'
    math = r'<span class="math inline">\(x_1\)</span>'
    caption = f"{number} Of {math} and <code>y</code>: 100 % &lt;b&gt;"
    assert f"<figcaption>{caption}</figcaption>" in pages[0]
    assert [re.search(r'id="figure-(\d)"', p)[1] for p in pages] == ["1", "2", "3"]
    assert 'src="data:image/png;base64,QUJD" alt="Figure 3"' in pages[2]
    assert "<figcaption" not in pages[1] + pages[2]
    assert [t.startswith("nbs/1_data/01_first.ipynb: figure") for t in told] == [1, 1]


def test_outputs_keep_their_order(small_course, tmp_path):
    html = '<audio src="x"></audio><a href="01_first.ipynb">here</a>'
    table = {"text/markdown": "*Two: it is*\n\n| a |\n|---|\n| 1 ± 2 |"}
    outputs = ["one\n", {"text/html": html}, table, {"image/svg+xml": SVG}, "two\n"]
    cells = [code("#| code-fold: true\nf()", outputs, **{"fig-alt": "a"})]
    found, told = staged(small_course(cells), tmp_path)
    assert told == []
    kinds = [(kind, [*c.get("outputs", ())]) for kind, _, c in found[2:]]
    assert [k for k, _ in kinds] == ["code", "markdown", "code", "markdown", "code"]
    assert [len(outs) for _, outs in kinds] == [1, 0, 1, 0, 1]
    assert found[2][1] == "#| code-fold: true\nf()"
    assert found[4][1].startswith("#| echo: false\n")
    text = "".join(kinds[2][1][0]["data"]["text/markdown"])
    assert text == "| a |\n|---|\n| 1\u00a0±\u00a02 |\n\n: Two: it is"
    assert '<a href="first.ipynb">' in found[3][1]
    assert found[3][1].startswith("```{=html}\n")


def test_pictures_of_a_slider_are_drawn_as_figures_are(small_course, tmp_path):
    frames = [f'<div role="img" aria-label="{a} &amp; b">{SVG}</div>' for a in "xy"]
    page = f'<figure class="slider">{"".join(frames)}<input></figure>'
    cells = [
        code("slider()", [{"text/html": page}]),
        code("slider()", [{"text/html": page}]),
    ]
    found, _ = staged(small_course(cells), tmp_path)
    shown = "".join(text for kind, text, _ in found if kind == "markdown")
    assert re.findall(r'id="(s\d-figure_1)"', shown) == [
        f"s{i}-figure_1" for i in (1, 2, 3, 4)
    ]
    assert shown.count('aria-label="x &amp; b"') == 4
    assert shown.count('role="img"') == 4
    assert "<input>" in shown


def test_hidden_output_stays_hidden(small_course, tmp_path):
    cells = [code("#| output: false\nf()", [{"image/svg+xml": SVG}, "one\n"])]
    found, told = staged(small_course(cells), tmp_path)
    assert [c.get("outputs") for _, _, c in found[2:]] == [[]]
    assert told == []


def test_a_cell_for_a_gpu_is_shown_where_it_was_recorded(small_course, tmp_path):
    cells = [code("%%gpu here\nf()", ["one\n"]), code("%%gpu gone\ng()", ["no\n"])]
    src = small_course(cells)
    (tmp_path / "data" / "gpu").mkdir(parents=True)
    (tmp_path / "data" / "gpu" / "here.json").write_text("{}")
    found, _ = staged(src, tmp_path)
    assert [text for _, text, _ in found[2:]] == ["%%gpu here\nf()"]


DEFINED = (
    "question(\n'first.q1', 'Which?',\n"
    "{'a': ('the *first*', 'It ' 'is not.'), 'b': ('$x$', 'Yes.')}, answer='b')\n"
    "@exercise('first.1', hint='Look.', why='So.', wrong=[len], right=[max])\n"
    "def best(x):\n    return max(x)\n"
)


def test_answers_are_folded_under_their_cell(small_course, tmp_path):
    check = "check('first.q1', ...)", "check('first.1', best)", "check('first.9', ...)"
    cells = [words("Which?"), *map(code, check), code(check[1])]
    found, told = staged(small_course(cells, DEFINED), tmp_path)
    texts = [text for _, text, _ in found]
    assert 'data-question="first.q1"' in texts[texts.index(check[0]) + 1]
    solution = texts[texts.index(check[1]) + 1]
    assert "<summary>Hint " in solution
    assert "```python\ndef best(x):\n    return max(x)\n```\n\nSo." in solution
    assert texts[-1] == check[1]  # a second call of one exercise shows nothing
    assert told == [
        "nbs/1_data/01_first.ipynb: "
        "exercise first.9 is not defined in mmcourse/exercises/"
    ]


def test_exercises_stand_on_cards(small_course, tmp_path):
    cells = [
        words("Last words.\n\n## Exercises\n\nBegin.\n\n**1.** Write `best(x)`."),
        code("def best(x): ..."),
        code("check('first.1', best)"),
        words("**2. Open.** Think.\n\n## Summary\n\n- One.\n\n## Questions"),
        words("**Q1.** Which $x$?\n\n- **a** the *first*\n- **b** $x_1$"),
        code("check('first.q1', ...)"),
    ]
    found, told = staged(small_course(cells, DEFINED), tmp_path)
    texts = [text for _, text, _ in found]
    assert told == []
    assert not any("check('first.q1'" in text for text in texts)
    page = "\n".join(texts)
    cards = re.findall(r'<div class="card-box.*?id="([\w-]+)"', page)
    assert cards == ["exercise-1", "exercise-2", "question-1"]
    first, second = page.split('id="exercise-1"')[1].split('id="exercise-2"')
    for part in ('data-tick="first.1"', "Write `best(x)`", "def best(x): ..."):
        assert part in first
    assert first.index("<summary>Hint") < first.index("<summary>Solution")
    assert first.count("</div>") == 1  # the card's end
    assert '<span class="kind">open</span>' in second
    assert second.index("</div>") < second.index("## Summary")
    question = second.split('id="question-1"')[1]
    assert r'<p>Which <span class="math inline">\(x\)</span>?</p>' in question
    assert '<details class="choice wrong" data-choice="a">' in question
    assert "the <em>first</em></span></summary><p><strong>✗ Not right." in question
    assert '<details class="choice right" data-choice="b">' in question
    assert "✓ Right.</strong> Yes.</p>" in question


@pytest.mark.parametrize(
    "text, page",
    [
        ("`a_*b*` and $x*y*z$", r"<code>a_*b*</code> and \(x*y*z\)"),
        ("*so* **bold**, 2 * 3 * 4", "<em>so</em> <strong>bold</strong>, 2 * 3 * 4"),
        ("[a `b`](../c.ipynb#d)", '<a href="../c.html#d">a <code>b</code></a>'),
        ("[a](https://x.org/d.ipynb)", '<a href="https://x.org/d.ipynb">a</a>'),
        ('a < b & "c": it\'s', "a &lt; b &amp; “c”: it’s"),
    ],
)
def test_a_line_of_markdown(text, page):
    assert re.sub("</?span[^>]*>", "", parts.inline(text)) == page


@pytest.mark.parametrize(
    "text, names, has",
    [
        (
            "**You need** [01 a](a.ipynb), [02 b](b.ipynb) · **Time** 5 s on two CPU "
            "cores · **Article** 2.1",
            ["You need", "Time", "Article"],
            '<dd><a class="chip" href="a.html">01 a</a> <a class="chip" href="b.html">',
        ),
        (
            "**You will be able to** do it.<br>\n**You need** [01 a](a.ipynb).<br>\n"
            "**On two CPU cores** 5 s · **Article** 2.1",
            ["You need", "Time", "Article"],
            "<dd>5 s on two CPU cores</dd>",
        ),
        (
            "**You need** nothing; see [a](a.ipynb) · **Time** 5 s",
            ["You need", "Time"],
            '<dd>nothing; see <a href="a.html">a</a></dd>',
        ),
    ],
)
def test_what_a_chapter_needs_is_a_list(text, names, has):
    page = parts.facts(text)
    assert re.findall("<dt>(.*?)</dt>", page) == names
    assert has in page


def test_map_is_drawn_from_imports():
    found = {c.module: c for c in site.course()}
    assert [*found] == [site.key_of(s) for s in site.chapters() if s.name[0].isdigit()]
    number = {module: c.number for module, c in found.items()}
    for module, needed in {
        "augmentation": "gan",  # from .gan import
        "three_views": "",
        "attention": "three_views",  # by mmcourse.datasets
        "project": "audio",  # by mmcourse.recogniser, which is no chapter
        "embedding": "text",  # in a cell that is not exported
    }.items():
        used = found[module].uses
        assert number[needed] in used if needed else not used, module
    a, b, c = (parts.Chapter(n, "", "", "", "", "") for n in ("01", "02", "03"))
    b.uses, c.uses = ["01"], ["01", "02", "03"]
    assert parts.direct([a, b, c]) == {"01": [], "02": ["01"], "03": ["02"]}


GLOSSARY = """| English | 中文 | pinyin | meaning | chapter |
|---|---|---|---|---|
| mask | 掩码 | yǎnmǎ | What may be *seen*. | [11 attention](a.ipynb) |
| attention mask | 注意力掩码 | zhùyìlì yǎnmǎ | Where one may look. | 11 |
| `softmax` | 归一化 | guīyīhuà | Adds up to one. | |
| recurrent network (RNN) | 循环网络 | xúnhuán wǎngluò | It reads. | 9 |
"""


def test_glossary_is_read_from_its_table():
    found = parts.terms("# G\n\n" + GLOSSARY + "\n| a | b |\n|---|---|\n| c | d |")
    assert [(t.english, t.chapter) for t in found] == [
        ("mask", "11"),
        ("attention mask", "11"),
        ("softmax", ""),
        ("recurrent network (RNN)", "09"),
    ]


def test_first_use_of_a_word_has_its_entry():
    main = (
        "<h1>Mask</h1><p>An <a>mask</a> or <code>mask</code>: Attention mask, a mask, "
        "no mask-like unmask, a mask.</p><p>softmax, RNNs, "
        "a recurrent network</p>"
    )
    page = parts.with_terms(main, parts.terms(GLOSSARY))
    words = re.findall('<button type="button" aria-describedby="(.*?)">(.*?)<', page)
    said = ["Attention mask", "mask", "softmax", "RNNs"]
    assert words == [(f"term-{i + 1}", word) for i, word in enumerate(said)]
    assert page.count("</button>") == page.count('role="tooltip"') == 4
    assert '<span lang="zh">掩码</span> <i lang="zh-Latn">yǎnmǎ</i>' in page
    assert "What may be <em>seen</em>." in page
    assert "a <span" in page.split("Where one may look")[1]
    assert parts.with_terms(main, []) == main


def test_search_finds_chinese_words(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "glossary", lambda: parts.terms(GLOSSARY))
    path = tmp_path / "search.json"
    at = [{"href": f"2_models/attention.html{a}", "text": "t"} for a in ("", "#b")]
    path.write_text(json.dumps([*at, {"href": "index.html", "text": "t"}]))
    site.find_words(path)
    found = [e["text"] for e in json.loads(path.read_text(encoding="utf-8"))]
    assert found == ["mask 掩码 · attention mask 注意力掩码 t", "t", "t"]


def test_chapters_explain_their_words(pages):
    "With the course's own glossary: a word once a page, with one entry."
    for c in site.course():
        said = re.findall(
            r'role="tooltip" id="term-\d+"><b>(.*?)</b>', pages[c.href].text
        )
        assert len(said) == len(set(said)) > 5, c.href


def test_citation_is_the_repositorys():
    import yaml

    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    text = parts.bibtex(cff, "https://x.org")
    assert text.startswith("@software{mmcourse,\n  author  = {{the mmcourse authors}},")
    for part in (f"{{{{{cff['title']}}}}}", "{2026}", cff["version"], "https://x.org"):
        assert part in text
    assert text.count("{") == text.count("}")
    named = {**cff, "authors": [{"family-names": "B", "given-names": "A"}] * 2}
    assert "{B, A and B, A}" in parts.bibtex(named, "")


def test_script_and_style_are_small():
    for name in ("course.js", "course.css"):
        assert (ROOT / "site" / name).stat().st_size <= 25_000, name


def test_a_definition_has_its_module_and_an_anchor(small_course, tmp_path):
    define = "#| exports\ndef made(x: int = 1):\n    'What it is.'\n    return x"
    hidden = "#| export\ndef inner(): ..."
    method = "#| exports\n@patch\ndef call(self: Made, y):\n    'What it does.'"
    cells = [code("#| default_exp first"), *map(code, (hidden, define, method))]
    found, _ = staged(small_course(cells), tmp_path)
    text = "".join(text for _, text, _ in found)
    assert '<span id="made"></span><code>mmcourse.first</code>' in text
    assert "inner" not in text
    assert "#| export" not in text
    page = site.library_page()
    assert "[`made`](1_data/first.ipynb#made)`(x=1)`\n:   What it is." in page
    assert "[`Made.call`](1_data/first.ipynb#Made.call)`(y)`\n:   What it" in page
    assert "[`inner`](1_data/first.ipynb)\n:   No description." in page


def test_sidebar_refuses_a_folder_without_a_section(small_course, tmp_path):
    small_course([], name="9_nowhere/01_lost")
    with pytest.raises(site.SiteError, match="no section for nbs/9_nowhere/01_lost"):
        site.stage_config(tmp_path / "out.yml")


def test_build_keeps_what_is_no_site(tmp_path):
    "An output folder that holds something else is left alone."
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(site.SiteError, match="no built site"):
        site.build(tmp_path, by="smalldocs", folder=tmp_path / "stage")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "stage").exists()


def test_address_stands_in_settings_alone():
    s = site.settings()
    for path in (ROOT / "_quarto.yml", ROOT / "tools/site.py", *ROOT.glob("site/*")):
        text = path.read_text(encoding="utf-8")
        assert s["doc_host"] not in text, path
        assert f"{s['user']}/{s['repo']}" not in text, path


@pytest.mark.parametrize(
    "source, options, magics, code",
    [
        ("#| echo: false\n\nplot()", ["#| echo: false"], [], ["plot()"]),
        ("%%gpu a\n#| echo: false\nf()", ["#| echo: false"], ["%%gpu a"], ["f()"]),
        ("x = 1\n#| no option", [], [], ["x = 1", "#| no option"]),
        ("", [], [], []),
    ],
)
def test_code_lines(source, options, magics, code):
    assert site.code_lines(source) == (options, magics, code)


def test_links_between_chapters_and_to_the_library():
    src = next(c for c in site.chapters() if c.parent != Path())
    seen = []
    home, page = site.Links(Path("index.ipynb"), seen.append), str(site.staged(src))
    text = f"[a]({src.as_posix()}#b) and [c](https://x.org/d.ipynb)"
    assert home.markdown(text) == f"[a]({page}#b) and [c](https://x.org/d.ipynb)"
    assert home.markdown(f'<a href="{src.as_posix()}">') == f'<a href="{page}">'
    back = site.Links(src, seen.append).markdown("[home](../index.ipynb)")
    assert back == "[home](../index.ipynb)"
    assert seen == []
    assert home.markdown("See [gone](9_nowhere/99_gone.ipynb).") == "See gone."
    assert len(seen) == 1
    assert "9_nowhere/99_gone.ipynb" in seen[0]
    where, name = home.names["explore.show_wave"]
    link = f"[`show_wave`]({site.staged(where)}#{name})"
    assert home.markdown("`show_wave` `explore.show_wave`").startswith(link)
    kept = "# `{0}`", "[`{0}`](x)", "```\n`{0}`\n```", "``{0}``", "`player`"
    for text in (k.format(name) for k in kept):
        assert home.markdown(text) == text


def test_readme_has_code_text_pictures_and_links_from_the_root():
    draw = "#| code-fold: true\ndraw()"
    text, pictures = tool("readme").readme(
        {
            "cells": [
                words("[a](1_data/b.ipynb) [c](https://x.org) [d](#e)"),
                code("#| hide\nf()", ["hidden\n"]),
                code("x", [{"text/plain": "3"}]),
                code(draw, [{"image/svg+xml": SVG}], **{"fig-alt": "What it is"}),
                code("table", [{"text/markdown": "| a |", "text/plain": "no"}]),
            ]
        }
    )
    _, *parts = text.strip().split("\n\n")
    assert parts == [
        "[a](nbs/1_data/b.ipynb) [c](https://x.org) [d](#e)",
        "```python\nx\n```",
        "```\n3\n```",
        "![What it is](nbs/images/index-0.svg)",
        "```python\ntable\n```",
        "| a |",
    ]
    assert pictures == {"images/index-0.svg": SVG.encode()}


# ---------------------------------------------------------------- figures


def drawn_by_matplotlib():
    "Lines, words on white, on a colour and on an image."
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "x"}):
        fig = Figure(facecolor="white")
        a, b = fig.subplots(1, 2)
        a.plot([0, 1, 0.5], color="black", marker="o")
        a.plot([1, 0, 1], color="#808080")
        a.plot([1, 1], color="#0072B2")
        a.text(1, 0.2, "on white", bbox={"facecolor": "white"})
        a.text(1, 0.4, "on pale", bbox={"facecolor": "#ddeeff"})
        a.text(1, 0.6, "light", color="white", bbox={"facecolor": "#0072B2"})
        b.imshow(np.eye(3), interpolation="none")
        b.text(1, 1, "within")
        b.plot([0, 1], color="black")
        b.add_patch(matplotlib.patches.Rectangle((1, 1), 1, 1, fill=False))
        b.set_title("above")
        file = io.StringIO()
        fig.savefig(file, format="svg")
    return file.getvalue()


def test_drawing_has_the_pages_ink_and_letters_and_no_paper():
    svg = drawn_by_matplotlib()
    page = site.drawing(svg, "f7-", "What it shows")
    assert page.count("#ffffff") == 1  # the light word on blue
    assert page.count("fill: var(--paper)") == 1  # the white box
    assert "#0072b2" in page
    assert "color-mix(in srgb, currentColor 50%, var(--paper))" in page
    assert "DejaVu" not in page
    assert "font-family: var(--sans)" in page or "px var(--sans)" in page
    for part in ("metadata", "<style", "<?xml", "<!DOCTYPE"):
        assert part not in page
    assert page.startswith("<svg")
    assert 'role="img"' in page
    assert 'aria-label="What it shows"' in page


def test_drawing_keeps_colours_on_an_image_and_on_a_colour():
    page = site.drawing(drawn_by_matplotlib(), "f7-", "a")
    same = dict.fromkeys(["on white", "above"], 0)
    same |= dict.fromkeys(["on pale", "light", "within"], 1)
    for words, marked in same.items():
        (group,) = re.findall(
            rf'<g id="f7-text_\d+"([^>]*)>(?:(?!<g id="f7-text).)*>{words}<', page
        )
        assert bool(group) == marked, words
    assert len(re.findall(r'<g id="f7-line2d_\d+" fill="#000000">', page)) == 1
    assert len(re.findall(r'<g id="f7-patch_\d+" fill="#000000">', page)) == 1


def test_drawings_share_no_id():
    svg = drawn_by_matplotlib()
    one, two = (site.drawing(svg, mark, "a") for mark in ("f1-", "f2-"))
    ids = [set(re.findall(r'\bid="([^"]+)"', page)) for page in (one, two)]
    assert len(ids[0]) > 20
    assert not ids[0] & ids[1]
    used = {*re.findall(r"url\(#([^)]+)", one), *re.findall(r'href="#([^"]+)', one)}
    assert used
    assert used <= ids[0]


# ---------------------------------------------------------------- finish


@cache
def quarto_page():
    "A page in the form that Quarto writes, finished. The sample is made by hand."
    text = (ROOT / "tests" / "quarto_page.html").read_text(encoding="utf-8")
    return site.finished(text, "1_data/sample.html")


def test_quartos_page_asks_nobody_else():
    page = quarto_page()
    asked = re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="([^"]+)', page)
    assert len(asked) == 6
    assert all(a.startswith("../site") for a in asked)
    assert "define(" not in page
    assert '<script src="../site/course.js" defer></script></head>' in page


def test_quartos_formulas_are_ours():
    page = quarto_page()
    assert page.count("<math") == 3
    assert "&ApplyFunction;" in page
    assert 'lspace="0.1667em"' in page  # cos ω, not cosω
    assert "2mm" not in re.sub("<annotation.*?</annotation>", "", page)
    assert page.count('<span class="formula"><math') == 1
    assert 0x221A in site.drawn(page)


def test_quartos_tables_icons_and_landmarks_have_names():
    page = quarto_page()
    head = '<div class="scroll" tabindex="0" role="region" aria-label='
    assert re.findall(f'{head}"([^"]+)"', page) == ["Table 1: Two &amp; two", "Table 2"]
    navs = re.findall(r'<nav[^>]*aria-label="([^"]+)"', page)
    assert len(navs) == len(set(navs)) == page.count("<nav")
    assert 'role="navigation"' not in page
    assert page.count('role="img"') == 0
    assert page.count('<i class="bi') == page.count('aria-hidden="true"></i>')
    assert '<a href="../notebooks/1_data/04_audio.ipynb" download>' in page


def test_quartos_sidebar_foot_and_head_are_completed():
    page = quarto_page()
    (link,) = re.findall(r'<a [^>]*data-chapter="audio"[^>]*>', page)
    assert 'href="../1_data/audio.html"' in link
    assert page.count("data-chapter") == 1
    assert page.count('<details class="cite">') == 1
    assert page.index("@software{") < page.index("</footer>")
    assert '<meta property="og:title" content="A sample, written by hand' in page
    lost = parts.not_found(page.replace('"../', '"./'), BASE, "")
    assert f'name="quarto:offset" content="{BASE}"' in lost
    asked = re.findall(r'(?:href|src)="([^"]*)', lost)
    assert all(a.startswith((BASE, "https:", "#")) for a in asked), asked
    assert lost.count('<li class="breadcrumb-item">') == 1
    for gone in ("TOC", "page-navigation", "og:title", "A sample", ">Part<"):
        assert gone not in lost, gone


def test_code_with_lines_changes_no_letter():
    code = (
        '<span class="kw">def</span> f():\n'
        '    <span class="st">&quot;&quot;&quot;one\n'
        "      two&quot;&quot;&quot;</span>\n\n"
        '    <span class="cf">return</span> 1'
    )
    block = f'<pre><code class="sourceCode python">{code}</code></pre>'
    out = site.CODE.sub(site.code_with_lines, block)
    assert re.sub("<[^>]+>", "", out) == re.sub("<[^>]+>", "", block)
    assert re.findall("--in:(\\d+)", out) == ["0", "4", "6", "4"]
    for line in out.split("\n"):
        assert line.count("<span") == line.count("</span"), line
    lines = re.findall('id="(cb1-\\d)" style="--in:(\\d+)"', quarto_page())
    assert lines == [("cb1-1", "0"), ("cb1-2", "4")]


@pytest.mark.parametrize(
    "tex, needs",
    [
        (r"\sqrt{x}", "√𝑥"),
        (r"\sqrt[3]{x}", "√"),
        (r"\underbrace{a+b}_{n}", "⏟"),
        (r"\left(\frac{a}{b}\right)", "()"),
        (r"\hat y\ \bar x\ \tilde x", "ˆ"),
        (r"\Omega h\partial\alpha", "𝛺ℎ𝛼"),
        (r"\mathbb{E}\|x\|", "𝔼‖"),
    ],
)
def test_font_is_cut_to_what_is_drawn(tex, needs, tmp_path):
    from fontTools.ttLib import TTFont

    page = site.mathml(tex)
    assert set(map(ord, needs)) <= site.drawn(page)
    site.math_font(tmp_path / "math.woff", site.drawn(page))
    font = TTFont(tmp_path / "math.woff")
    assert site.drawn(page) <= set(font.getBestCmap())
    # what stretches has all its sizes and parts
    whole = TTFont(site.math_source())
    for way in ("Vert", "Horiz"):
        for c in set(map(ord, needs)):
            sizes = [len(stretched(f, way, c)) for f in (font, whole)]
            assert sizes[0] == sizes[1], chr(c)


def stretched(font, way, c):
    "The glyphs that a font has for a stretched character."
    variants = font["MATH"].table.MathVariants
    covered = getattr(variants, f"{way}GlyphCoverage")
    name = font.getBestCmap().get(c)
    if covered is None or name not in covered.glyphs:
        return []
    built = getattr(variants, f"{way}GlyphConstruction")[covered.glyphs.index(name)]
    parts = built.GlyphAssembly.PartRecords if built.GlyphAssembly else []
    return [v.VariantGlyph for v in built.MathGlyphVariantRecord] + list(parts)


def test_a_formula_that_is_none_is_refused():
    with pytest.raises(site.SiteError, match=r"\\nonsense"):
        site.mathml(r"\nonsense")


# ---------------------------------------------------------------- one build for all


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "The built site, its staging folder, and the warnings of its build."
    if not site.renderer():
        pytest.skip("neither Quarto nor smalldocs (Python 3.11) is installed")
    tmp = tmp_path_factory.mktemp("site")
    warnings = site.build(tmp / "out", folder=tmp / "stage")
    return tmp / "out", tmp / "stage", warnings


class Page(HTMLParser):
    "What the tests ask of a page."

    VOID = frozenset(
        "area base br col embed hr img input link meta source track wbr".split()  # noqa: SIM905
    )

    def __init__(self, path, root):
        super().__init__()
        self.name = path.relative_to(root).as_posix()
        self.open, self.tags, self.prose = [], [], []
        self.ids, self.main_ids, self.headings = [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.anchors = {"", *self.ids}

    def handle_starttag(self, tag, attrs):
        attrs, inside = dict(attrs), "main" in self.open
        self.tags.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
            self.main_ids += [attrs["id"]] if inside else []
        contents = attrs.get("id") == "toc-title"
        if re.fullmatch("h[1-6]", tag) and inside and not contents:
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        while tag in self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"pre", "code", "script", "style", "annotation"} & set(self.open):
            self.prose.append(data)

    def all(self, *names):
        return [(tag, a) for tag, a in self.tags if tag in names]


@pytest.fixture(scope="session")
def pages(built):
    found = [f for f in sorted(built[0].rglob("*.html")) if "site_libs" not in f.parts]
    return {p.name: p for p in (Page(f, built[0]) for f in found)}


def html_of(src):
    return site.staged(src).with_suffix(".html").as_posix()


def test_build_has_nothing_to_remark(built):
    assert built[2] == [], "\n".join(built[2])


def test_staged_notebooks_hold_no_directive(built):
    "A bare nbdev directive that reaches Quarto ends as `:::`, or ends the build."
    import nbformat

    wrong = []
    for src in site.chapters():
        nb = nbformat.read(built[1] / site.staged(src), as_version=4)
        nbformat.validate(nb)
        for cell in nb.cells:
            if cell["cell_type"] != "code":
                continue
            options, _, rest = site.code_lines(cell["source"])
            marks = [line for line in rest if re.match(r"#\|", line)]
            marks += [o for o in options if not re.match(r"#\| [a-z-]+: \S", o)]
            wrong += [f"{src}: {line}" for line in marks]
            for o in cell["outputs"]:  # Quarto loads scripts for HTML
                wrong += [f"{src}: HTML"] if "text/html" in o.get("data", {}) else []
    assert not wrong, "\n".join(wrong)


def test_sidebar_lists_every_chapter_once(built):
    import yaml

    cfg = yaml.safe_load((built[1] / "_quarto.yml").read_text(encoding="utf-8"))
    hrefs, entries = [], list(cfg["website"]["sidebar"]["contents"])
    for e in entries:  # grows
        hrefs += [e["href"]] if "href" in e else []
        entries += e.get("contents", [])
    wanted = [str(site.staged(src)) for src in site.chapters()]
    assert sorted(hrefs) == sorted([*wanted, "library.qmd"])
    assert not any(site.UNLISTED in h for h in hrefs)  # they hold the solutions


def test_every_chapter_has_a_page(pages):
    wanted = {html_of(src) for src in site.chapters()}
    assert wanted | {"index.html", "library.html"} <= set(pages)


def test_language_titles_headings_ids(pages):
    titles, wrong = [], []
    for page in pages.values():
        levels, ids = page.headings, page.main_ids
        if page.all("html")[0][1].get("lang") != "en":
            wrong.append(f'{page.name}: no lang="en"')
        if not any(a.get("name") == "viewport" for _, a in page.all("meta")):
            wrong.append(f"{page.name}: no viewport")
        if levels[:1] != [1] or levels.count(1) != 1:
            wrong.append(f"{page.name}: not one title at the top, levels {levels}")
        if any(b > a + 1 for a, b in zip(levels, levels[1:])):
            wrong.append(f"{page.name}: a heading jumps, levels {levels}")
        twice = {i for i in ids if ids.count(i) > 1}
        wrong += [f"{page.name}: id {i} stands twice" for i in twice]
        titles.append(re.search(r"<title>(.*?)</title>", page.text)[1])
    assert not wrong, "\n".join(wrong)
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_no_markup_is_left_in_the_text(pages):
    "No fence of a div, no TeX, no directive outside code."
    left = re.compile(r".{0,30}(:::|\\\(|\\\[|\$\$|\\begin\{|#\||\[\d+mm\]).{0,30}")
    wrong = []
    for page in pages.values():
        found = left.finditer("".join(page.prose))
        wrong += [f"{page.name}: {m[0]!r}" for m in found]
    assert not wrong, "\n".join(wrong)


def test_every_picture_and_player_is_described(pages):
    wrong = []
    for page in pages.values():
        for tag, a in page.all("img", "audio", "video", "svg"):
            if not (a.get("alt") or a.get("aria-label") or "").strip():
                wrong.append(f"{page.name}: <{tag}> {str(a)[:80]}")
    assert not wrong, "\n".join(wrong)


def test_stored_outputs_are_on_the_page(pages):
    "Players, pictures and tables, as many as are stored in cells that are shown."
    hide = r"^#\|\s*(hide|export|exporti|default_exp)\b(?!s)"
    hide += r"|^#\|\s*(include|output):\s*false"
    for src in site.chapters():
        nb = json.loads((site.NBS / src).read_text(encoding="utf-8"))
        stored = ""
        for cell in nb["cells"]:
            hidden = re.search(hide, "".join(cell["source"]), re.M)
            for out in [] if hidden else cell.get("outputs", []):
                data = out.get("data", {})
                picture = any(k.startswith("image/") for k in data)
                stored += "<figure class='plot'" * picture
                plain = "<table" * ("|:-" in "".join(data.get("text/markdown", "")))
                stored += "".join(data.get("text/html", plain))
        page = pages[html_of(src)].text.replace('"plot"', "'plot'")
        for tag in ("<audio ", "<table", "<figure class='plot'"):
            assert page.count(tag) >= stored.count(tag), f"{src}: {tag}"


BASE = site.settings()["doc_baseurl"] + "/"


def links(page):
    "(tag, link) of all that a page refers to on its own site."
    for tag, a in page.tags:
        for key in ("href", "src", "poster"):
            link = a.get(key)
            if link is None or tag == "base" or link.startswith("//"):
                continue
            if not urlsplit(link).scheme:
                yield tag, link


def test_links_and_anchors_lead_somewhere(pages, built):
    wrong = []
    for page in pages.values():
        for tag, link in links(page):
            if page.name == "404.html":  # any address may show it
                assert link.startswith((BASE, "#")) or not link, link
                link = link.removeprefix(BASE)
            target, anchor = urldefrag(urljoin(page.name, link))
            target, anchor = unquote(target) or page.name, unquote(anchor)
            if target.endswith("/") or target in (".", ""):
                target = (target.rstrip("./") + "/index.html").lstrip("/")
            outside = link.startswith("/") or target.startswith("../")
            if outside or not (built[0] / target).is_file():
                wrong.append(f"{page.name}: {link} leads nowhere")
            elif tag == "a" and target in pages and anchor not in pages[target].anchors:
                wrong.append(f"{page.name}: {link}: no such anchor")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_nothing_comes_from_another_host(pages, built):
    loads = "script", "img", "iframe", "audio", "video", "source", "embed", "object"
    wrong = []
    for page in pages.values():
        for tag, a in page.all("link", *loads):
            link = a.get("src") or a.get("href") or a.get("data") or ""
            if re.match("(https?:)?//", link) and a.get("rel") != "canonical":
                wrong.append(f"{page.name}: <{tag}> {link}")
    for css in built[0].rglob("*.css"):
        text = css.read_text(encoding="utf-8")
        for m in re.finditer(r'(?:@import\s+|url\(\s*)[\'"]?([^\'")]+)', text):
            here = css.parent / re.split("[?#]", m[1])[0]
            if not m[1].startswith(("data:", "#")) and not here.is_file():
                wrong.append(f"{css.relative_to(built[0])}: {m[1]}")
    assert not wrong, "\n".join(wrong)


def test_pages_are_light(pages):
    "At most 1.5 MB as served."
    sizes = {p.name: len(gzip.compress(p.text.encode(), 6)) for p in pages.values()}
    heavy = [f"{name}: {n:,} bytes" for name, n in sizes.items() if n > 1_500_000]
    assert not heavy, "\n".join(heavy)


def test_font_has_what_the_formulas_draw(pages, built):
    from fontTools.ttLib import TTFont

    known = set(TTFont(built[0] / "site" / "math.woff").getBestCmap())
    source = set(TTFont(site.math_source()).getBestCmap())
    for page in pages.values():
        lacking = site.drawn(page.text) & source - known
        assert not lacking, f"{page.name}: {''.join(map(chr, lacking))}"


def test_each_chapter_opens_in_colab_and_downloads(pages, built):
    s = site.settings()
    for src in site.chapters():
        copy, notebook = built[0] / "notebooks" / src, site.NBS / src
        assert copy.read_bytes() == notebook.read_bytes(), src
        if src.parent == Path():
            continue  # the home page
        anchors = [a for _, a in pages[html_of(src)].all("a")]
        blob = f"{s['user']}/{s['repo']}/blob/{s['branch']}/nbs/{src.as_posix()}"
        colab = f"https://colab.research.google.com/github/{blob}"
        assert colab in [a.get("href") for a in anchors], src
        down = f"{'../' * len(src.parent.parts)}notebooks/{src.as_posix()}"
        assert down in [a.get("href") for a in anchors if "download" in a], src


def test_exercises_have_a_folded_answer_and_questions_explain(pages):
    fold = re.compile(
        r'<details class="exercise"( open)?[^>]*>\s*<summary>\s*Solution '
        r'<span class="exercise-id">([\w.]+)</span>\s*</summary>(.*?)</details>',
        re.S,
    )
    quiz = re.compile(r'data-question="([\w.]+)".*?role="status"', re.S)
    solutions, questions = site.answers()
    for src in site.chapters():
        text = "\n".join(site.sources(src, "code"))
        asked = dict.fromkeys(re.findall(site.CHECK, text, re.M))
        wanted = [i for i in asked if i not in site.defined_here(src)]
        page = pages[html_of(src)].text
        folds = fold.findall(page)
        assert [id for _, id, _ in folds] == [i for i in wanted if i in solutions], src
        assert all("<code" in body and not opened for opened, _, body in folds), src
        quizzes = {m[1]: m[0] for m in quiz.finditer(page)}
        assert [*quizzes] == [i for i in wanted if i in questions], src
        for id, body in quizzes.items():
            assert body.count("<details") == len(questions[id][1]), id
            assert body.count('<details class="choice right"') == 1, id
        exercises, asks = site.tasks(src) if src.name[0].isdigit() else ([], [])
        ids = pages[html_of(src)].ids
        assert {f"exercise-{n}" for n in exercises} <= set(ids), src
        assert {f"question-{n}" for n in asks} <= set(ids), src
        assert len(quizzes) == len(asks) or not src.name[0].isdigit(), src


def test_pages_say_what_social_networks_show(pages, built):
    home = site.settings()["doc_host"] + BASE
    for page in pages.values():
        said = {a.get("property"): a.get("content") for _, a in page.all("meta")}
        if page.name == "404.html":
            assert "og:title" not in said
            continue
        assert said["og:title"], page.name
        assert said["og:description"], page.name
        picture = said["og:image"].removeprefix(home)
        assert (built[0] / picture).is_file(), picture
    for card in (built[0] / "site" / "cards").iterdir():
        assert card.read_bytes()[16:24] == (1200).to_bytes(4) + (630).to_bytes(4)
        assert card.stat().st_size < 60_000


def test_each_page_says_how_to_cite(pages):
    for page in pages.values():
        foot = page.text.split("<footer")[1]
        assert "@software{mmcourse," in foot, page.name


def test_map_and_sidebar_lead_to_every_chapter(pages):
    for page in pages.values():
        marked = [a for _, a in page.all("a") if "data-chapter" in a]
        side = [a for a in marked if "sidebar-link" in a["class"]]
        nodes = [a for a in marked if a["class"] == "node"]
        wanted = [c.module for c in site.course()]
        assert [a["data-chapter"] for a in side] == wanted, page.name
        if page.name in ("index.html", "404.html"):
            assert [a["data-chapter"] for a in nodes] == wanted
            from_page = BASE if page.name == "404.html" else ""
            hrefs = [from_page + c.href for c in site.course()]
            assert [a["href"] for a in nodes] == hrefs
            numbers = {c.number for c in site.course()}
            assert {n for a in nodes for n in a["data-from"].split()} <= numbers


def test_library_page_names_what_the_modules_export(pages):
    text = re.sub(r"<[^>]+>", "", pages["library.html"].text)
    for module, found in site.library().items():
        assert f"mmcourse.{module}" in text
        for _, name, *_ in found:
            assert name in text, f"{module}.{name}"


def test_search_knows_every_page(pages, built):
    entries = json.loads((built[0] / "search.json").read_text(encoding="utf-8"))
    known = {e["href"].split("#")[0] for e in entries}
    assert set(pages) <= known | {"404.html"}


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="session")
def address(built):
    httpd = site.server(built[0])
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/"
    httpd.shutdown()


LOOK = (ROOT / "tests" / "look.js").read_text(encoding="utf-8")
# LOOK looks at contrast; words in colours, formulas and drawings have nothing to find
AXE = """async () => {
  for (const e of document.querySelectorAll("code.sourceCode, math, svg"))
    e.replaceChildren(e.textContent);
  const rules = {"color-contrast": {enabled: false}};
  const found = await axe.run(document, {resultTypes: ["violations"], rules});
  const said = v => `${v.id}, ${v.nodes.length} times: ${v.nodes[0].html}`;
  return found.violations.map(said);
}"""
SIZES = {
    "desktop": {"width": 1280, "height": 800},
    "tablet": {"width": 820, "height": 1180},
    "phone": {"width": 390, "height": 844},
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_walk(browser, address, pages, axe, scheme):
    "Every page, wide and narrow: quiet, drawn, in the window, readable, accessible."
    context = browser.new_context(viewport=SIZES["desktop"], color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    tab, problems, folders = context.new_page(), [], set()
    watched(tab, address, problems)

    def accessible(size):
        if scheme == "light":  # what axe looks at is the same in both
            tab.evaluate(axe)
            found = tab.evaluate(AXE)
            problems.extend(f"{name}, {size}: axe: {v}" for v in found)

    for name, page in pages.items():
        tab.set_viewport_size(SIZES["desktop"])
        tab.goto(address + name, wait_until="load")
        for size in ("desktop", "phone"):
            tab.set_viewport_size(SIZES[size])
            tab.wait_for_timeout(60)  # the mode is set, as scripts end
            seen = tab.evaluate(LOOK)
            problems += [f"{name}, {size}: {w}" for w in seen["wrong"]]
            if seen["dark"] != (scheme == "dark"):
                problems.append(f"{name}: not {scheme}, as the reader’s system asks")
            if ("<math" in page.text) != bool(seen["maths"]):
                problems.append(f"{name}: formulas are missing")
        accessible("phone")
        folder, _, _ = name.rpartition("/")
        if not folder or folder not in folders:  # a page of each kind, wide as well
            tab.set_viewport_size(SIZES["desktop"])
            accessible("desktop")
        folders.add(folder)
    context.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def tab(browser, request):
    "A tab of the size that a test's parameter names, desktop without one."
    size = getattr(request, "param", "desktop")
    rights = ["clipboard-read", "clipboard-write"]
    context = browser.new_context(viewport=SIZES[size], permissions=rights)
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


FIRST = next(html_of(src) for src in site.chapters() if src.parent != Path())


@pytest.mark.parametrize(
    "tab, most", [("phone", 110), ("tablet", 110)], indirect=["tab"]
)
def test_header_leaves_room_and_text_takes_it(tab, address, most):
    tab.goto(address + FIRST)
    seen = tab.evaluate(LOOK)
    assert seen["head"] <= most
    assert seen["text"] >= 0.85 * tab.viewport_size["width"]


def test_code_column_holds_88_characters(tab, address):
    tab.goto(address + FIRST)
    rows = tab.evaluate(
        """() => {
          const line = document.querySelector("main code.sourceCode > span");
          const heights = [8, 88].map(n => {
            line.textContent = "m".repeat(n);
            line.style.setProperty("--in", 0);
            return line.getBoundingClientRect().height;
          });
          return heights[1] / heights[0];
        }"""
    )
    assert rows == 1


def test_figures_follow_the_mode_and_are_sharp(tab, address):
    "Ink on no paper, in the page's letters: matplotlib's drawings turn with the mode."
    tab.goto(address + "0_tools/explore.html")
    look = """() => [...document.querySelectorAll("figure.plot > svg")].map(svg => {
      const text = getComputedStyle(svg.querySelector("text"));
      const box = svg.getBoundingClientRect();
      const below = svg.nextSibling.getBoundingClientRect();
      return {fill: text.fill, font: text.fontFamily, gap: below.top - box.bottom};
    })"""
    light = tab.evaluate(look)
    tab.locator(".quarto-color-scheme-toggle:visible").first.click()
    tab.wait_for_timeout(300)
    dark = tab.evaluate(look)
    body = tab.evaluate("getComputedStyle(document.body).fontFamily")
    assert len(light) == 3
    assert light[0]["fill"] != dark[0]["fill"]
    for figure in light:
        assert figure["font"] == body
        assert figure["gap"] < 20


@pytest.mark.parametrize("tab", ["phone"], indirect=True)
def test_wide_things_scroll_by_keyboard(tab, address):
    tab.goto(address + FIRST)
    tab.wait_for_timeout(200)
    box = tab.locator('main div.sourceCode[role="group"]').first
    assert box.get_attribute("aria-label") == "Code, wider than the page"
    box.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_timeout(300)
    assert box.evaluate("e => e.scrollLeft") > 0
    tab.set_viewport_size({"width": 1280, "height": 800})
    tab.wait_for_timeout(300)
    assert tab.locator('main div.sourceCode[role="group"]').count() == 0


def test_sidebar_folds_by_keyboard(tab, address):
    tab.goto(address)
    opener = tab.locator("#quarto-sidebar a[role=button]").first
    opener.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_timeout(600)
    assert opener.get_attribute("aria-expanded") == "false"


def test_reader_changes_the_mode_and_it_stays(tab, address):
    toggle = tab.locator(".quarto-color-scheme-toggle:visible").first
    tab.goto(address)
    toggle.click()
    tab.wait_for_timeout(300)
    assert tab.evaluate(LOOK)["dark"], "the toggle turns the page dark"
    tab.goto(address + "library.html")
    tab.wait_for_timeout(300)
    assert tab.evaluate(LOOK)["dark"], "and the next page too"
    toggle.click()
    tab.wait_for_timeout(300)
    assert not tab.evaluate(LOOK)["dark"], "and back"


def test_reader_searches(tab, address):
    tab.goto(address)
    title = site.title_of(site.chapters()[-1])
    box = tab.locator("#quarto-search input").first
    box.click()
    box.press_sequentially(re.sub(r"^\d+ ", "", title)[:20], delay=20)
    hit = tab.locator(".smalldocs-search-results a, .aa-Panel a").first
    hit.wait_for(state="visible")
    hit.click()
    tab.wait_for_url(re.compile(r"\.html"))


def test_reader_searches_in_chinese(tab, address):
    terms = {t.english: t for t in site.glossary()}
    hrefs = {c.number: c.href for c in site.course()}
    for name in ("attention", "convolution"):
        tab.goto(address)
        tab.locator("#quarto-search input").first.fill(terms[name].chinese)
        hits = tab.locator(".smalldocs-search-results a, .aa-Panel a")
        hits.first.wait_for(state="visible")
        found = [a.get_attribute("href") for a in hits.all()]
        assert any(h.endswith(hrefs[terms[name].chapter]) for h in found), name


def test_reader_copies_code(tab, address):
    tab.goto(address + FIRST)
    blocks = tab.locator("main pre code.sourceCode").count()
    buttons = tab.locator("main .code-copy-button").count()
    assert blocks
    assert buttons == blocks
    outer = "main .code-copy-outer-scaffold:visible, main div.sourceCode:visible"
    block = tab.locator(outer).first
    block.hover()
    block.locator(".code-copy-button").click()
    tab.wait_for_timeout(200)
    copied = tab.evaluate("navigator.clipboard.readText()").strip()
    assert copied == block.locator("code").inner_text().strip()


@pytest.mark.parametrize("tab", ["phone"], indirect=True)
def test_reader_on_a_phone_opens_the_sidebar(tab, address):
    tab.goto(address)
    last = site.chapters()[-1]
    link = tab.locator("#quarto-sidebar a", has_text=site.title_of(last)).first
    closed = not link.is_visible() or link.bounding_box()["x"] < 0
    assert closed
    tab.locator(".quarto-btn-toggle").first.click()
    tab.wait_for_timeout(500)
    box = link.bounding_box()
    assert 0 <= box["x"] < SIZES["phone"]["width"]
    link.click()
    tab.wait_for_url(re.compile(re.escape(html_of(last))))


# ---------------------------------------------------------------- a learner


def state(tab):
    return json.loads(tab.evaluate("localStorage.getItem('mmcourse-progress')"))


ATTENTION = "2_models/attention.html"


def test_question_answers_at_once_and_explains(tab, address):
    problems = []
    watched(tab, address, problems)
    tab.goto(address + ATTENTION)
    quiz = tab.locator("#question-1")
    right = quiz.locator(".choice.right")
    wrong = quiz.locator(".choice.wrong")
    assert quiz.locator("p:visible", has_text="ight.").count() == 0
    first = wrong.first.locator("summary")
    first.focus()
    tab.keyboard.press("Enter")
    assert wrong.first.locator("p").is_visible()
    assert "Not right." in quiz.locator("[role=status]").inner_text()
    assert not right.locator("p").is_visible()
    right.locator("summary").focus()
    tab.keyboard.press("Space")
    assert "Right." in quiz.locator("[role=status]").inner_text()
    for choice in quiz.locator(".choice").all():  # each is explained now
        assert choice.locator("p").is_visible()
        assert len(choice.locator("p").inner_text()) > 25
    letters = [c.get_attribute("data-choice") for c in (wrong.first, right)]
    assert state(tab)["said"] == {"attention.q1": "".join(letters)}
    tab.reload()
    assert right.locator("p").is_visible()
    assert "is-done" in quiz.get_attribute("class")
    # a choice of a finished question only opens and closes
    right.locator("summary").click()
    assert not right.locator("p").is_visible()
    assert not problems, "\n".join(problems)


def test_ticks_stay_and_show_on_map_and_sidebar(tab, address):
    problems = []
    watched(tab, address, problems)
    tab.goto(address + ATTENTION)
    tab.locator("#exercise-2 .tick input").check()
    tab.locator("#exercise-6 .tick input").check()
    tab.locator("#question-1 .choice.right summary").click()
    side = tab.locator("#quarto-sidebar a[data-chapter=attention] .how-far")
    assert side.inner_text().startswith("3/11")
    tab.reload()
    assert tab.locator("#exercise-2 .tick input").is_checked()
    assert not tab.locator("#exercise-1 .tick input").is_checked()
    tab.locator("#exercise-6 .tick input").uncheck()
    assert side.inner_text().startswith("2/11")
    tab.goto(address)
    node = tab.locator(".node[data-chapter=attention]")
    assert node.locator(".how-far").inner_text().startswith("2/11")
    assert "is-begun" in node.get_attribute("class")
    begin = tab.locator(".begin-link")
    assert begin.inner_text() == "Go on with 01 Three views"
    begin.click()
    tab.wait_for_url(address + FIRST)
    tab.locator(".read input").check()
    tab.goto(address)
    read = tab.locator(".node[data-chapter=three_views]")
    assert "is-read" in read.get_attribute("class")
    assert read.locator(".how-far").inner_text().startswith("✓")
    assert begin.inner_text().startswith("Go on with 02")
    said = tab.locator(".progress-said").inner_text()
    n = len(site.course())
    assert said.startswith(f"1 of {n} chapters read · 1 of ")
    assert " · 1 of " in said.partition("exercises ticked")[2]
    assert not problems, "\n".join(problems)


def test_progress_is_exported_imported_and_forgotten(tab, address, tmp_path):
    tab.goto(address + ATTENTION)
    tab.locator("#exercise-2 .tick input").check()
    tab.goto(address)
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Export").click()
    path = tmp_path / "progress.json"
    saved.value.save_as(path)
    assert list(json.loads(path.read_text())["done"]) == ["attention.2"]
    tab.once("dialog", lambda d: d.dismiss())
    tab.get_by_role("button", name="Reset").click()
    assert state(tab)["done"]
    tab.once("dialog", lambda d: d.accept())
    tab.get_by_role("button", name="Reset").click()
    assert state(tab) == {"done": {}, "said": {}}
    assert tab.locator(".how-far", has_text="/").count() == 0
    status = tab.locator("#your-progress [role=status]")
    with tab.expect_file_chooser() as chosen:
        tab.get_by_role("button", name="Import").click()
    chosen.value.set_files(path)
    tab.wait_for_function("document.querySelector('.is-begun')")
    assert status.inner_text() == "Added."
    assert list(state(tab)["done"]) == ["attention.2"]
    for i, text in enumerate(("no JSON", "[]", "null", '{"done": {"<b>": "x"}}')):
        other = tmp_path / f"{i}.json"
        other.write_text(text)
        status.evaluate("e => { e.textContent = '' }")
        tab.locator("#your-progress input").set_input_files(other)
        tab.wait_for_function(
            "document.querySelector('#your-progress [role=status]').textContent"
        )
        assert status.inner_text().startswith("This is no file")
    assert list(state(tab)["done"]) == ["attention.2"]


def test_page_works_where_nothing_is_kept(tab, address):
    tab.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " {get() { throw new Error('forbidden'); }})"
    )
    faults = []
    tab.on("pageerror", lambda e: faults.append(str(e)))
    tab.goto(address + ATTENTION)
    tab.locator("#question-1 .choice.right summary").click()
    assert tab.locator("#question-1 .choice.right p").is_visible()
    mine = [f for f in faults if "forbidden" not in f]
    assert not mine


@pytest.mark.parametrize("tab", ["desktop", "phone"], indirect=True)
def test_map_shows_its_lines_and_leads_on(tab, address):
    tab.goto(address)
    drawn = tab.locator(".map path").count()
    wanted = sum(map(len, parts.direct(site.course()).values()))
    assert drawn == wanted > len(site.course()) / 2
    node = tab.locator("#map-14")
    node.focus()
    near = tab.locator(".node.is-near b").all_inner_texts()
    assert {"13", "14"} <= set(near) < {c.number for c in site.course()}
    seen = tab.evaluate(
        """() => [...document.querySelectorAll(".node")].map(e => {
          const {left, right, width, height} = e.getBoundingClientRect();
          return [left, innerWidth - right, width, height];
        })"""
    )
    for left, right, width, height in seen:
        assert min(left, right) >= 0
        assert width > 100
        assert height >= 24
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("augmentation.html"))


@pytest.mark.parametrize("tab", ["desktop", "phone"], indirect=True)
def test_word_shows_its_entry(tab, address, built, axe):
    "On hover, focus and tap; the page is what it becomes with a glossary."
    text = (built[0] / ATTENTION).read_text(encoding="utf-8")
    table = GLOSSARY.replace("softmax", "recording")
    known = r'<span class="term"><button[^>]*>(.*?)</button>.*?</span></span>'
    text = re.sub(known, r"\1", text, flags=re.S)
    head, main, rest = re.split("(<main.*</main>)", text, maxsplit=1, flags=re.S)
    page = head + parts.with_terms(main, parts.terms(table)) + rest
    tab.route(
        address + ATTENTION, lambda r: r.fulfill(body=page, content_type="text/html")
    )
    tab.goto(address + ATTENTION)
    button = tab.locator(".term button", has_text="recording").first
    said = tab.locator(f"#{button.get_attribute('aria-describedby')}")
    assert not said.is_visible()
    button.hover()
    assert said.is_visible()
    tab.mouse.move(0, 0)
    assert not said.is_visible()
    button.focus()
    assert said.is_visible()
    box = said.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= tab.viewport_size["width"]
    assert "归一化" in said.inner_text()
    tab.evaluate(axe)
    assert tab.evaluate("axe.run('.term').then(r => r.violations.length)") == 0
    tab.keyboard.press("Escape")
    assert not said.is_visible()
    button.blur()
    button.click()
    assert said.is_visible()


def test_missing_page_helps(tab, address):
    for where in ("nowhere.html", BASE[1:] + "2_models/deep/er/nowhere.html"):
        answer = tab.goto(address + where)
        assert answer.status == 404
        assert tab.locator("h1").inner_text() == "No such page"
        font = tab.evaluate("getComputedStyle(document.querySelector('h1')).fontFamily")
        assert "Palatino" in font  # the style came
    tab.locator("#map-11").click()
    tab.wait_for_url(address + BASE[1:] + ATTENTION)
    assert tab.locator("h1").inner_text() == "Attention"
