"The site: what is staged, what the pages hold, and what a reader's browser makes of them, at desktop and phone width, light and dark."

import importlib.util
import json
import os
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("course_site", ROOT / "tools" / "site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)

CI = os.environ.get("CI", "").lower() in ("1", "true")
# what Quarto and smalldocs both read
OPTIONS = [
    "label",
    "fig-alt",
    "fig-cap",
    "fig-align",
    "tbl-cap",
    "code-fold",
    "code-summary",
    "code-overflow",
    "echo",
    "output",
    "include",
    "layout-ncol",
    "warning",
]


def missing(reason):
    "Skip where something is not installed; on CI that is a failure."
    pytest.fail(reason) if CI else pytest.skip(reason)


# ---------------------------------------------------------------- one build for all tests


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "The built site, its staging folder, and the warnings of its build."
    if not site.renderer():
        pytest.skip(
            "neither Quarto nor smalldocs (which needs Python 3.11) is installed"
        )
    tmp = tmp_path_factory.mktemp("site")
    warnings = site.build(tmp / "out", folder=tmp / "stage")
    return tmp / "out", tmp / "stage", warnings


class Page(HTMLParser):
    "What the tests ask of a page."

    VOID = set(
        [
            "area",
            "base",
            "br",
            "col",
            "embed",
            "hr",
            "img",
            "input",
            "link",
            "meta",
            "source",
            "track",
            "wbr",
        ]
    )

    def __init__(self, path, root):
        super().__init__()
        self.name = path.relative_to(root).as_posix()
        self.open, self.tags, self.prose, self.ids, self.main_ids, self.headings = (
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if "id" in attrs and "main" in self.open:
            self.main_ids.append(attrs["id"])
        if (
            re.fullmatch("h[1-6]", tag)
            and attrs.get("id") != "toc-title"
            and "main" in self.open
        ):
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
    out = built[0]
    return {
        p.name: p
        for p in (
            Page(f, out)
            for f in sorted(out.rglob("*.html"))
            if "site_libs" not in f.parts
        )
    }


def html_of(src):
    return site.staged(src).with_suffix(".html").as_posix()


# ---------------------------------------------------------------- staging


def test_build_has_nothing_to_remark(built):
    assert built[2] == [], "\n".join(built[2])


def test_staged_notebooks_hold_no_directive(built):
    "A bare nbdev directive that reaches Quarto ends as `:::` on the page, or ends the build."
    import nbformat

    wrong = []
    for src in site.chapters():
        nb = nbformat.read(built[1] / site.staged(src), as_version=4)
        nbformat.validate(nb)
        for cell in nb.cells:
            lines = "".join(cell["source"]).splitlines()
            if cell["cell_type"] != "code":
                continue
            for i, line in enumerate(lines):
                if not re.match(r"\s*#\s*\|", line):
                    continue
                m = re.match(r"#\| ([\w-]+): \S", line)
                if (
                    not m
                    or m[1] not in OPTIONS
                    or any(not l.startswith("#|") for l in lines[:i])
                ):
                    wrong.append(f"{src}: {line}")
            if any(re.match(r"#\s*NBVAL_", line) for line in lines):
                wrong.append(f"{src}: a remark to nbval")
    assert not wrong, "\n".join(wrong)


def test_sidebar_lists_every_chapter_once(built):
    import yaml

    cfg = yaml.safe_load((built[1] / "_quarto.yml").read_text(encoding="utf-8"))
    hrefs = []

    def walk(entries):
        for e in entries:
            hrefs.append(e["href"]) if "href" in e else walk(e["contents"])

    walk(cfg["website"]["sidebar"]["contents"])
    assert sorted(hrefs) == sorted(
        [*(str(site.staged(src)) for src in site.chapters()), "library.qmd"]
    )
    assert not any(site.UNLISTED in h for h in hrefs), (
        "the exercises’ definitions hold the solutions"
    )


def test_sidebar_refuses_a_folder_without_a_section(tmp_path, monkeypatch):
    nbs = tmp_path / "nbs"
    for name in ("index", "9_nowhere/01_lost"):
        (nbs / name).parent.mkdir(parents=True, exist_ok=True)
        nb = {
            "cells": [{"cell_type": "markdown", "source": ["# Lost"], "metadata": {}}],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (nbs / f"{name}.ipynb").write_text(json.dumps(nb))
    monkeypatch.setattr(site, "NBS", nbs)
    site.cells.cache_clear()
    with pytest.raises(
        site.SiteError, match="no section for nbs/9_nowhere/01_lost.ipynb"
    ):
        site.stage_config(tmp_path / "_quarto.yml")
    site.cells.cache_clear()


def test_build_keeps_what_is_no_site(tmp_path):
    "An output folder that holds something else is left alone."
    if not site.renderer():
        pytest.skip("no renderer")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(site.SiteError, match="no built site"):
        site.build(tmp_path, folder=tmp_path / "stage")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_address_stands_in_settings_alone():
    s = site.settings()
    for name in (
        "_quarto.yml",
        "tools/site.py",
        *(str(p.relative_to(ROOT)) for p in (ROOT / "site").iterdir()),
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert s["doc_host"] not in text and f"{s['user']}/{s['repo']}" not in text, (
            name
        )


@pytest.mark.parametrize(
    "source, options, magics, code",
    [
        (
            '#| fig-alt: "x"\n# NBVAL_IGNORE_OUTPUT\nplot()',
            ['#| fig-alt: "x"'],
            [],
            ["plot()"],
        ),
        (
            "%%gpu train\n#| echo: false\nf()",
            ["#| echo: false"],
            ["%%gpu train"],
            ["f()"],
        ),
        (
            "x = 1\n# NBVAL_SKIP is a word here\n#| not an option",
            [],
            [],
            ["x = 1", "# NBVAL_SKIP is a word here", "#| not an option"],
        ),
    ],
)
def test_code_lines(source, options, magics, code):
    assert site.code_lines(source) == (options, magics, code)


def test_solutions_are_those_that_check_shows():
    "The site reads the references without running anything; mmcourse.check has them by running it all."
    check = pytest.importorskip("mmcourse.check")
    assert set(check.all_exercises()) == set(site.solutions())
    for id, (code, hint, why) in site.solutions().items():
        assert code in check.solution(id).source and hint and why, id


def test_code_with_lines_changes_no_letter():
    code = (
        '<span class="kw">def</span> f():\n    <span class="st">&quot;&quot;&quot;one\n      two&quot;&quot;&quot;</span>\n\n'
        '    <span class="cf">return</span> 1'
    )
    block = f'<pre><code class="sourceCode python">{code}</code></pre>'
    out = site.CODE.sub(site.code_with_lines, block)
    assert re.sub("<[^>]+>", "", out) == re.sub("<[^>]+>", "", block)
    assert re.findall("--in:(\\d+)", out) == ["0", "4", "6", "4"]
    for line in out.split("\n"):
        assert line.count("<span") == line.count("</span"), line
    quarto = (
        '<code class="sourceCode python"><span id="cb1-1"><a href="#cb1-1" tabindex="-1"></a>    x</span>\n'
        '<span id="cb1-2"><a href="#cb1-2" tabindex="-1"></a></span></code>'
    )
    assert re.findall(
        'id="(cb1-\\d)" style="--in:(\\d+)"',
        site.CODE.sub(site.code_with_lines, quarto),
    ) == [("cb1-1", "4"), ("cb1-2", "0")]


def test_links_between_chapters_and_to_the_library():
    src = next((c for c in site.chapters() if c.parent != Path()), None)
    if src is None:
        pytest.skip("no chapter yet")
    seen = []
    home = site.Links(Path("index.ipynb"), seen.append)
    page = str(site.staged(src))
    assert (
        home.markdown(f"[a]({src.as_posix()}#b) and [c](https://x.org/d.ipynb)")
        == f"[a]({page}#b) and [c](https://x.org/d.ipynb)"
    )
    assert home.markdown(f'<a href="{src.as_posix()}">') == f'<a href="{page}">'
    assert (
        site.Links(src, seen.append).markdown("[home](../index.ipynb)")
        == "[home](../index.ipynb)"
        and not seen
    )
    assert home.markdown("See [gone](9_nowhere/99_gone.ipynb).") == "See gone."
    assert len(seen) == 1 and "9_nowhere/99_gone.ipynb" in seen[0]
    where, name = next(
        (found[0][0], n)
        for found in site.library().values()
        for _, n, _, _, shown in found
        if shown and "_" in n
    )
    assert f"[`{name}`]({site.staged(where)}#{name})" == home.markdown(f"`{name}`")
    for kept in (f"# `{name}`", f"[`{name}`](x)", f"```\n`{name}`\n```", f"``{name}``"):
        assert home.markdown(kept) == kept


# ---------------------------------------------------------------- the pages as they are written


def test_every_chapter_has_a_page(pages):
    assert {html_of(src) for src in site.chapters()} | {
        "index.html",
        "library.html",
    } <= set(pages)


def test_language_titles_headings_ids(pages):
    titles, wrong = [], []
    for page in pages.values():
        if page.all("html")[0][1].get("lang") != "en":
            wrong.append(f'{page.name}: no lang="en"')
        if not any(a.get("name") == "viewport" for _, a in page.all("meta")):
            wrong.append(f"{page.name}: no viewport")
        if page.headings[:1] != [1] or page.headings.count(1) != 1:
            wrong.append(
                f"{page.name}: not one title at the top, levels {page.headings}"
            )
        wrong += [
            f"{page.name}: a heading jumps from level {a} to {b}"
            for a, b in zip(page.headings, page.headings[1:])
            if b > a + 1
        ]
        wrong += [
            f"{page.name}: id {i} stands twice"
            for i in {i for i in page.main_ids if page.main_ids.count(i) > 1}
        ]
        titles.append(re.search(r"<title>(.*?)</title>", page.text)[1])
    assert not wrong, "\n".join(wrong)
    assert all(titles) and len(set(titles)) == len(titles), titles


def test_no_markup_is_left_in_the_text(pages):
    "No fence of a div, no TeX, no directive outside code."
    wrong = [
        f"{page.name}: {m[0]!r}"
        for page in pages.values()
        for m in re.finditer(
            r".{0,30}(:::|\\\(|\\\[|\$\$|\\begin\{|#\|).{0,30}", "".join(page.prose)
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_every_picture_is_described(pages):
    wrong = [
        f"{page.name}: {a.get('src', '')[:60]}"
        for page in pages.values()
        for _, a in page.all("img")
        if not (a.get("alt") or "").strip()
    ]
    wrong += [
        f"{page.name}: a player without a name"
        for page in pages.values()
        for _, a in page.all("audio", "video")
        if not a.get("aria-label")
    ]
    assert not wrong, "\n".join(wrong)


def test_stored_outputs_are_on_the_page(pages):
    "Players, pictures and tables of results, as many as the notebook stores in cells that are shown."
    for src in site.chapters():
        html = ""
        for cell in json.loads((ROOT / "nbs" / src).read_text(encoding="utf-8"))[
            "cells"
        ]:
            hidden = re.search(
                r"^#\|\s*(hide|export|exporti|default_exp)\b(?!s)|^#\|\s*(include|output):\s*false",
                "".join(cell["source"]),
                re.M,
            )
            for out in [] if hidden or cell["cell_type"] != "code" else cell["outputs"]:
                data = out.get("data", {})
                html += "".join(data.get("text/html", "")) or "<img " * any(
                    k.startswith("image/") for k in data
                )
        page = pages[html_of(src)].text
        for tag in ("<audio ", "<table", "<img "):
            assert page.count(tag) >= html.count(tag), f"{src}: {tag}"


def test_links_and_anchors_lead_somewhere(pages, built):
    wrong = []
    for page in pages.values():
        for tag, a in page.tags:
            for key in ("href", "src", "poster"):
                link = a.get(key)
                if (
                    link is None
                    or urlsplit(link).scheme
                    or link.startswith("//")
                    or tag == "base"
                ):
                    continue
                target, anchor = urldefrag(urljoin(page.name, link))
                target = unquote(target) or page.name
                if target.endswith("/") or target in (".", ""):
                    target = (target.rstrip("./") + "/index.html").lstrip("/")
                if (
                    link.startswith("/")
                    or target.startswith("../")
                    or not (built[0] / target).is_file()
                ):
                    wrong.append(f"{page.name}: {link} leads nowhere")
                elif (
                    anchor
                    and tag == "a"
                    and target in pages
                    and unquote(anchor) not in pages[target].ids
                ):
                    wrong.append(f"{page.name}: {link}: no such anchor")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_nothing_comes_from_another_host(pages, built):
    wrong = [
        f"{page.name}: <{tag}> {a.get('src') or a.get('href') or a.get('data')}"
        for page in pages.values()
        for tag, a in page.tags
        if tag
        in (
            "script",
            "img",
            "iframe",
            "audio",
            "video",
            "source",
            "embed",
            "object",
            "link",
        )
        and tag + str(a.get("rel")) != "linkcanonical"
        and re.match(
            r"(https?:)?//", a.get("src") or a.get("href") or a.get("data") or ""
        )
    ]
    for css in built[0].rglob("*.css"):
        for m in re.finditer(
            r'(?:@import\s+|url\(\s*)[\'"]?([^\'")]+)', css.read_text(encoding="utf-8")
        ):
            if re.match(r"(https?:)?//", m[1]):
                wrong.append(f"{css.relative_to(built[0])}: {m[1]}")
            elif (
                not m[1].startswith(("data:", "#"))
                and not (css.parent / re.split("[?#]", m[1])[0]).is_file()
            ):
                wrong.append(f"{css.relative_to(built[0])}: {m[1]} is not there")
    assert not wrong, "\n".join(wrong)


def test_each_chapter_opens_in_colab_and_downloads(pages, built):
    s = site.settings()
    for src in site.chapters():
        assert (built[0] / "notebooks" / src).read_bytes() == (
            ROOT / "nbs" / src
        ).read_bytes(), src
        if src.parent == Path():
            continue  # the home page
        links = [a for _, a in pages[html_of(src)].all("a")]
        blob = f"{s['user']}/{s['repo']}/blob/{s['branch']}/nbs/{src.as_posix()}"
        assert f"https://colab.research.google.com/github/{blob}" in [
            a.get("href") for a in links
        ], src
        assert f"{'../' * len(src.parent.parts)}notebooks/{src.as_posix()}" in [
            a.get("href") for a in links if "download" in a
        ], src


def test_exercises_have_a_folded_solution(pages):
    for src in site.chapters():
        asked = re.findall(
            site.CHECK,
            "\n".join(s for kind, s in site.cells(src) if kind == "code"),
            re.M,
        )
        wanted = [i for i in dict.fromkeys(asked) if i not in site.defined_here(src)]
        text = pages[html_of(src)].text
        fold = r'<details class="exercise"( open)?[^>]*>\s*<summary>\s*Solution <span class="exercise-id">([\w.]+)</span>\s*</summary>(.*?)</details>'
        folds = re.findall(fold, text, re.S)
        assert [id for _, id, _ in folds] == wanted, src
        for opened, id, body in folds:
            assert not opened and "<code" in body, f"{id}: folded, with code"


def test_library_page_names_what_the_modules_export(pages):
    text = re.sub(r"<[^>]+>", "", pages["library.html"].text)
    for module, found in site.library().items():
        assert f"mmcourse.{module}" in text
        for _, name, *_ in found:
            assert name in text, f"{module}.{name}"


def test_search_knows_every_page(pages, built):
    known = {
        e["href"].split("#")[0]
        for e in json.loads((built[0] / "search.json").read_text(encoding="utf-8"))
    }
    assert set(pages) <= known | {"404.html"}


# ---------------------------------------------------------------- the pages in a browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser_path():
    "Chromium, Chrome or Edge on Linux, macOS or Windows; $CHROMIUM names another."
    names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
        "microsoft-edge",
        "msedge",
    ]
    apps = [
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ]
    windows = [
        os.path.join(os.environ.get(v, ""), *p)
        for v in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
        for p in (
            ("Google", "Chrome", "Application", "chrome.exe"),
            ("Microsoft", "Edge", "Application", "msedge.exe"),
        )
    ]
    found = [
        os.environ.get("CHROMIUM"),
        *map(shutil.which, names),
        *(p for p in apps + windows if os.path.isfile(p)),
    ]
    return next(filter(None, found), None)


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing('playwright is not installed: pip install -e ".[dev]"')
    path = browser_path() or missing(
        "no Chromium, Chrome or Edge found: install one, or set CHROMIUM to its path"
    )
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield b
        b.close()


@pytest.fixture(scope="session")
def address(built):
    httpd = site.server(built[0])
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/"
    httpd.shutdown()


# Runs in the page; returns what is wrong there. A colour's contrast is WCAG 2's: 4.5 for text, 3 for large text.
LOOK = r"""async () => {
  const wrong = [], wide = innerWidth, main = document.querySelector('main');
  document.querySelectorAll('details').forEach(d => d.open = true);
  for (const img of document.images) {
    img.loading = 'eager';
    try { await img.decode() } catch (e) {}
    if (!img.naturalWidth) wrong.push('a picture did not load: ' + img.src.slice(0, 80));
  }
  await document.fonts.ready;
  const maths = [...document.querySelectorAll('math')];
  for (const m of maths) {
    const r = m.getBoundingClientRect();
    if (m.checkVisibility() && (r.width < 2 || r.height < 4)) wrong.push('a formula is not drawn: ' + m.textContent.slice(0, 60));
  }
  const font = [...document.fonts].find(f => f.family.includes('Course Math'));
  if (maths.length && font?.status !== 'loaded') wrong.push('the mathematics font is not loaded');
  if (document.documentElement.scrollWidth > wide) wrong.push(`the page is ${document.documentElement.scrollWidth} wide in a window of ${wide}`);
  const scrolls = e => { for (; e && e !== main; e = e.parentElement) if (/auto|scroll/.test(getComputedStyle(e).overflowX)) return true; return false };
  for (const e of main.querySelectorAll('*')) {
    const r = e.getBoundingClientRect();
    if (!r.width || !r.height || r.right <= wide + 1 || scrolls(e) || e.closest('math')) continue;
    wrong.push(`<${e.localName} class="${e.className}"> reaches ${Math.round(r.right)} of ${wide}`);
    break;
  }
  const rgb = c => { const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number), f = c.startsWith('color(srgb') ? 255 : 1; return [r*f, g*f, b*f, a] };
  const over = (a, b) => [0, 1, 2].map(i => a[i]*a[3] + b[i]*(1 - a[3]));
  const ground = e => {
    if (!e) return [255, 255, 255];
    const c = rgb(getComputedStyle(e).backgroundColor);
    return c[3] === 1 ? c.slice(0, 3) : over(c, ground(e.parentElement));
  };
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v/12.92 : ((v + .055)/1.055)**2.4); return .2126*r + .7152*g + .0722*b };
  const said = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e || /^(script|style|annotation|noscript|template)$/i.test(e.localName)) continue;
    if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const r = e.getBoundingClientRect(), s = getComputedStyle(e), px = parseFloat(s.fontSize);
    if (!r.width || !r.height) continue;
    let alpha = 1; for (let p = e; p; p = p.parentElement) alpha *= getComputedStyle(p).opacity;
    const back = ground(e), col = rgb(s.color), front = over([...col.slice(0, 3), col[3]*alpha], back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + .05)/(b + .05);
    const enough = px >= 24 || (px >= 18.66 && s.fontWeight >= 700) ? 3 : 4.5;
    const key = s.color + back;
    if (ratio >= enough || said.has(key)) continue;
    said.add(key);
    const what = `<${e.localName} class="${e.className}"> ${texts.currentNode.data.trim().slice(0, 40)}`;
    wrong.push(`contrast ${ratio.toFixed(2)} of ${s.color} on rgb(${back.map(Math.round)}): ${what}`);
  }
  const paper = light(ground(document.body));
  return {wrong, dark: paper < .2, maths: maths.length};
}"""

SIZES = {
    "desktop": {"width": 1280, "height": 800},
    "phone": {"width": 390, "height": 844},
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_walk(browser, address, pages, size, scheme):
    "Every page: no console message, no request to elsewhere, pictures and formulas drawn, nothing wider than the window, readable in both modes."
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    problems, here = [], ""
    tab = context.new_page()
    tab.on(
        "console",
        lambda m: (
            m.type in ("error", "warning")
            and problems.append(f"{here}: console: {m.text}")
        ),
    )
    tab.on("pageerror", lambda e: problems.append(f"{here}: {e}"))
    tab.on(
        "request",
        lambda r: (
            r.url.startswith((address, "data:", "blob:"))
            or problems.append(f"{here}: asks {r.url[:100]}")
        ),
    )
    tab.on(
        "requestfailed",
        lambda r: (
            "ERR_ABORTED" in (r.failure or "")
            or problems.append(f"{here}: no answer for {r.url[:100]}")
        ),
    )  # aborted: the walk went on
    tab.on(
        "response",
        lambda r: (
            r.status >= 400 and problems.append(f"{here}: {r.status} for {r.url}")
        ),
    )
    for here in pages:
        tab.goto(address + here, wait_until="load")
        tab.wait_for_timeout(120)  # the mode is set, as scripts end
        seen = tab.evaluate(LOOK)
        problems += [f"{here}: {w}" for w in seen["wrong"]]
        if seen["dark"] != (scheme == "dark"):
            problems.append(
                f"{here}: not in {scheme} mode, which the reader’s system asks for"
            )
        if ("<math" in pages[here].text) != bool(seen["maths"]):
            problems.append(f"{here}: formulas are missing")
    context.close()
    assert not problems, "\n".join(problems)


def test_reader_changes_the_mode_and_it_stays(browser, address):
    context = browser.new_context(viewport=SIZES["desktop"], color_scheme="light")
    tab = context.new_page()
    tab.goto(address)
    tab.locator(".quarto-color-scheme-toggle:visible").first.click()
    tab.wait_for_timeout(300)
    assert tab.evaluate(LOOK)["dark"], "the toggle turns the page dark"
    tab.goto(address + "library.html")
    tab.wait_for_timeout(300)
    assert tab.evaluate(LOOK)["dark"], "and the next page too"
    tab.locator(".quarto-color-scheme-toggle:visible").first.click()
    tab.wait_for_timeout(300)
    assert not tab.evaluate(LOOK)["dark"], "and back"
    context.close()


def test_reader_searches(browser, address):
    context = browser.new_context(viewport=SIZES["desktop"])
    tab = context.new_page()
    tab.goto(address)
    title = site.title_of(site.chapters()[-1])
    box = tab.locator("#quarto-search input").first
    box.click()
    box.press_sequentially(re.sub(r"^\d+ ", "", title)[:20], delay=20)
    hit = tab.locator(".smalldocs-search-results a, .aa-Panel a").first
    hit.wait_for(state="visible", timeout=5000)
    hit.click()
    tab.wait_for_url(re.compile(r"\.html"))
    context.close()


def test_reader_copies_code(browser, address, pages):
    name = next((html_of(src) for src in site.chapters() if src.parent != Path()), None)
    if not name:
        pytest.skip("no chapter yet")
    context = browser.new_context(
        viewport=SIZES["desktop"], permissions=["clipboard-read", "clipboard-write"]
    )
    tab = context.new_page()
    tab.goto(address + name)
    blocks, buttons = (
        tab.locator("main pre code.sourceCode").count(),
        tab.locator("main .code-copy-button").count(),
    )
    assert blocks and buttons == blocks, (
        f"{name}: {buttons} copy buttons on {blocks} blocks of code"
    )
    block = tab.locator(
        "main .code-copy-outer-scaffold:visible, main div.sourceCode:visible"
    ).first
    block.hover()
    block.locator(".code-copy-button").click()
    tab.wait_for_timeout(200)
    assert (
        tab.evaluate("navigator.clipboard.readText()").strip()
        == block.locator("code").inner_text().strip()
    )
    context.close()


def test_reader_on_a_phone_opens_the_sidebar(browser, address):
    context = browser.new_context(viewport=SIZES["phone"])
    tab = context.new_page()
    tab.goto(address)
    link = tab.locator(
        "#quarto-sidebar a", has_text=site.title_of(site.chapters()[-1])
    ).first
    assert not link.is_visible() or link.bounding_box()["x"] < 0, (
        "the sidebar is closed at first"
    )
    tab.locator(".quarto-btn-toggle").first.click()
    tab.wait_for_timeout(500)
    box = link.bounding_box()
    assert box and 0 <= box["x"] < SIZES["phone"]["width"], "and opens"
    link.click()
    tab.wait_for_url(re.compile(re.escape(html_of(site.chapters()[-1]))))
    context.close()
