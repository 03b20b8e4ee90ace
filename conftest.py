"""What pytest and nbval need to know here, and makers that several test files share.

A test file imports a maker by name: `from conftest import refused, wav`.
"""

import importlib.util
import io
import os
import re
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
# Networks this small gain nothing from threads, and lose much when tests share cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `%%gpu` cells show what was recorded, on a machine with a GPU too.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

ROOT = Path(__file__).resolve().parent
PATIENCE = 300_000  # milliseconds that a browser may take on a loaded machine
REFUSED = ValueError, TypeError, FileNotFoundError


def pytest_collection_modifyitems(items):
    """Cells have no execution count here, since each would be a line of diff. To nbval
    such a cell never ran. It compares no PNG; nor SVG here."""
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and cell.get("execution_count", 1) is None:
            cell.execution_count = 1
        if hasattr(item.parent, "skip_compare"):
            item.parent.skip_compare = (*item.parent.skip_compare, "image/svg+xml")


def tool(name):
    "A script of tools/ as a module."
    path = ROOT / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"course_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cache(tmp_path, monkeypatch):
    "A folder of this test's own for all that is downloaded or trained once."
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(function, *args, name, error=REFUSED, **kwargs):
    "The message: one line that begins with the argument, says what is wanted and came."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message.startswith(name) and "\n" not in message, message
    assert re.search("expected .+ got |expected .+ found none", message), message
    return message


def tone(sr=8000, seconds=0.5, hz=440.0):
    "A tone that swells and fades."
    import numpy as np

    t = np.arange(int(sr * seconds)) / sr
    return 0.3 * np.sin(2 * np.pi * hz * t) * np.hanning(len(t))


def wav(samples, sr=8000, format="WAV", subtype="PCM_16", **options):
    "The bytes of a sound file."
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sr, format=format, subtype=subtype, **options)
    return buffer.getvalue()


def drawing(mode="L", size=(120, 160), ink=0, paper=255):
    "A picture of a seven, dark on light."
    from PIL import Image, ImageDraw

    picture = Image.new(mode, size, paper)
    ImageDraw.Draw(picture).line([(30, 35), (90, 35), (55, 130)], fill=ink, width=9)
    return picture


def saved(picture, format="PNG", **options):
    "The bytes of a picture's file."
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


# ---------------------------------------------------------------- a browser


CI = os.environ.get("CI", "").lower() in ("1", "true")


def missing(reason):
    "Skip where something is not installed; on CI that is a failure."
    pytest.fail(reason) if CI else pytest.skip(reason)


FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
)
APPS = {
    "/Applications": (
        "Google Chrome.app/Contents/MacOS/Google Chrome",
        "Chromium.app/Contents/MacOS/Chromium",
        "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    **dict.fromkeys(
        [
            os.environ.get(v, "")
            for v in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
        ],
        (
            "Google/Chrome/Application/chrome.exe",
            "Microsoft/Edge/Application/msedge.exe",
        ),
    ),
}


def browser_path():
    "Chromium, Chrome or Edge on Linux, macOS or Windows; $CHROMIUM names another."
    names = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
    named = map(shutil.which, (*names, "chrome", "microsoft-edge", "msedge"))
    apps = [str(Path(place, app)) for place, found in APPS.items() for app in found]
    there = filter(os.path.isfile, apps)
    return next(filter(None, [os.environ.get("CHROMIUM"), *named, *there]), None)


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing('playwright is not installed: pip install -e ".[dev]"')
    path = browser_path() or missing("no Chromium, Chrome or Edge: set CHROMIUM")
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield b
        b.close()


def turned(browser, page_file):
    "What a slider shows before and after its two knobs are turned by keys."
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(page_file.as_uri())
    shown = page.locator("[role=img]:not([hidden])")
    first, second = page.locator("input").all()
    seen = [shown.get_attribute("aria-label")]
    for knob, key in ((first, "ArrowRight"), (first, "ArrowRight"), (second, "End")):
        knob.press(key)
    seen.append(shown.get_attribute("aria-label"))
    seen.append(first.get_attribute("aria-valuetext"))
    seen += page.locator("output").all_inner_texts()
    page.close()
    return seen


@pytest.fixture(scope="session")
def axe():
    "The accessibility checker axe-core, as a script."
    from importlib.resources import files

    try:
        return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
    except ModuleNotFoundError:
        missing('axe-playwright-python is not installed: pip install -e ".[dev]"')


def watched(tab, address, problems):
    "Write down what the pages of a tab complain about, and whom they ask."

    def say(text):
        problems.append(f"{tab.url.removeprefix(address)}: {text}")

    def console(m):
        if m.type in ("error", "warning"):
            say(f"console: {m.text}")

    def request(r):
        if not r.url.startswith((address, "data:", "blob:")):
            say(f"asks {r.url[:100]}")

    def failed(r):
        if "ERR_ABORTED" not in (r.failure or ""):  # aborted: the walk went on
            say(f"no answer for {r.url[:100]}")

    def response(r):
        if r.status >= 400:
            say(f"{r.status} for {r.url}")

    tab.on("console", console)
    tab.on("pageerror", lambda e: say(str(e)))
    tab.on("request", request)
    tab.on("requestfailed", failed)
    tab.on("response", response)
