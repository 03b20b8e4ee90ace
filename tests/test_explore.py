"What chapters show: pictures, players, tables."

import base64
import io
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import soundfile
import torch

from conftest import turned

matplotlib.use("agg")
import matplotlib.pyplot as plt

from mmcourse import explore
from mmcourse.explore import (
    MODALITY,
    PALETTE,
    player,
    players,
    show_history,
    show_images,
    show_wave,
    table,
    use_style,
    wav_bytes,
)
from mmcourse.training import History

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def closed():
    with matplotlib.rc_context():
        yield
    plt.close("all")


class Players(HTMLParser):
    "The attributes of each `<audio>` of a page."

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "audio":
            self.found.append(dict(attrs))


def linear(colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def protan(colour):
    "Cone responses without the red ones (Viénot, Brettel and Mollon, 1999)."
    lms = np.array([[3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    return lms @ linear(colour) / [34.5, 1.7]


# --- style


def test_palette_can_be_told_apart_without_red_cones():
    assert len(set(PALETTE)) == 8
    assert set(MODALITY.values()) <= set(PALETTE)
    for i, a in enumerate(PALETTE):
        for b in PALETTE[:i]:
            assert np.abs(protan(a) - protan(b)).max() > 0.04, (a, b)


def test_modality_colours_stand_out_on_white_and_on_dark():
    for c in MODALITY.values():
        light = linear(c) @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (light + 0.05) > 3, c  # WCAG's contrast for graphics
        assert (light + 0.05) / 0.06 > 3, c


def test_figures_are_white_paper_with_letters_and_always_the_same():
    use_style()
    files = []
    for _ in range(2):
        fig, ax = plt.subplots()
        ax.plot([0, 1], label="line")
        ax.legend()
        file = io.BytesIO()
        fig.savefig(file, format="svg", metadata={"Date": None})
        files.append(file.getvalue().decode())
    assert files[0] == files[1]
    assert ">line</text>" in files[0]
    assert "fill: #ffffff" in files[0]
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == PALETTE


# --- images


@pytest.mark.parametrize(
    "images, shapes",
    [
        (np.zeros((2, 9, 8)), [(9, 8)] * 2),
        (torch.zeros(2, 1, 9, 8), [(9, 8)] * 2),
        (torch.zeros(2, 3, 9, 8, requires_grad=True), [(9, 8, 3)] * 2),
        (np.zeros((2, 9, 8, 4)), [(9, 8, 4)] * 2),
        (np.zeros((2, 4, 9, 8)), [(9, 8, 4)] * 2),
        (np.zeros((1, 3, 3, 8)), [(3, 8, 3)]),
        ([np.zeros((9, 8)), np.zeros((5, 5, 3))], [(9, 8), (5, 5, 3)]),
        (np.zeros((9, 8)), [(9, 8)]),
    ],
)
def test_images_of_all_layouts(images, shapes):
    show_images(images)
    shown = [ax.images[0].get_array().squeeze().shape for ax in plt.gcf().axes]
    assert shown == shapes


def test_channels_come_last_in_their_order():
    image = np.stack([np.full((5, 6), v) for v in (0.2, 0.4, 0.6)])
    show_images([image])
    assert plt.gcf().axes[0].images[0].get_array()[2, 3].tolist() == [0.2, 0.4, 0.6]


def test_images_run_from_black_to_white_and_bytes_are_scaled():
    byte = np.full((4, 4), 51, np.uint8)
    values = 0.5, True, 7.0, -7.0
    images = [byte, *(np.full((4, 4), v) for v in values)]
    show_images(images, ["a", 2, "", "d", "e"], suptitle="all")
    fig = plt.gcf()
    shown = [ax.images[0].get_array().max() for ax in fig.axes]
    assert shown == pytest.approx([0.2, 0.5, 1, 1, 0])
    for ax in fig.axes:
        assert ax.images[0].get_clim() == (0, 1)
        assert ax.images[0].get_cmap().name == "gray"
    assert [ax.get_title() for ax in fig.axes] == ["a", "2", "", "d", "e"]
    assert fig.get_suptitle() == "all"


@pytest.mark.parametrize(
    "more, size",
    [
        ({}, (2.4, 2.4)),
        ({"scale": 2}, (4, 4)),
        ({"scale": 2, "titles": ["a", "", ""]}, (4, 5)),
        ({"scale": 2, "suptitle": "all"}, (4, 4.35)),
    ],
)
def test_a_grid_has_room_for_its_titles(more, size):
    show_images(np.zeros((3, 4, 4)), ncols=2, **more)
    assert plt.gcf().get_size_inches() == pytest.approx(size)


def test_grid():
    show_images(np.zeros((23, 4, 4)))
    assert len(plt.gcf().axes) == 30
    show_images(np.zeros((3, 4, 4)), ncols=2)
    assert len(plt.gcf().axes) == 4
    assert not any(ax.axison for ax in plt.gcf().axes)
    with pytest.raises(ValueError, match="zip"):
        show_images(np.zeros((3, 4, 4)), titles=["a"])


# --- sounds


def decoded(page):
    source = Players(page).found[0]["src"]
    kind, data = source.split(",")
    assert kind == "data:audio/wav;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="int16")


def test_player_holds_the_sound_and_says_what_it_is():
    x = np.sin(np.arange(800) / 10).astype(np.float32)
    page = player(x, 16000, label='one <of> "two"')
    samples, rate = decoded(page._repr_html_())
    assert rate == 16000
    assert samples.shape == (800,)
    assert abs(samples / 32768 - x).max() < 2 / 32768
    (audio,) = Players(page.html).found
    assert "controls" in audio
    assert "autoplay" not in audio
    assert audio["aria-label"] == 'one <of> "two", 0.1 seconds'
    assert "<of>" not in page.html
    assert repr(page) == '[player: one <of> "two", 0.05 s at 16000 Hz]'


def test_the_same_sound_gives_the_same_page():
    x = np.random.default_rng(0).uniform(-1, 1, 500)
    pages = {player(v).html for v in (x, torch.tensor(x), x.tolist())}
    assert len(pages) == 1


def test_loud_samples_are_clipped_and_whole_ones_kept():
    assert wav_bytes([2.0, -3.0]) == wav_bytes([1.0, -1.0])
    exact = [-32768, -1, 0, 16384]
    assert decoded(player(np.array(exact, np.int16)).html)[0].tolist() == exact
    half = torch.tensor([0.5, -0.25], dtype=torch.float16)
    assert wav_bytes(half) == wav_bytes([0.5, -0.25])


def test_players_stand_in_a_row():
    page = players([[0.0], [0.5]], ["a", "b"], 8000)
    names = [a["aria-label"] for a in Players(page.html).found]
    assert names == ["a, 0.0 seconds", "b, 0.0 seconds"]
    assert len(repr(page).splitlines()) == 2
    with pytest.raises(ValueError, match="zip"):
        players([[0.0], [0.5]], ["a"])


@pytest.mark.parametrize("n", [1, 7, 1500, 8000])
def test_show_wave_draws_the_outline(n):
    wave = np.random.default_rng(n).uniform(-1, 1, n)
    _, ax = plt.subplots()
    show_wave(wave, 8000, ax, title="noise")
    x, y = ax.lines[0].get_data()
    assert len(x) <= 2000
    assert (np.diff(x) >= 0).all()
    assert np.allclose(y, wave[np.rint(x * 8000).astype(int)])
    assert {wave.min(), wave.max()} <= set(y)
    assert ax.get_xlim() == (0, n / 8000)
    assert ax.get_title() == "noise"


# --- what is handed in and is none


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: show_images([]), "images: expected at least one"),
        (lambda: show_images([np.zeros((0, 3))]), r"images\[0\]: expected at least"),
        (lambda: show_images([np.array([["a"]])]), r"images\[0\]: expected numbers"),
        (lambda: player([]), "wave: expected at least one"),
        (lambda: player(np.zeros((2, 8))), r"wave: expected shape \(any\)"),
        (lambda: player([0, math.nan]), "wave: expected finite"),
        (lambda: show_wave([[1.0], [1.0, 2.0]]), "wave: expected"),
        (lambda: player([0.0], 0), "sr: expected"),
        (lambda: player([0.0], 44.1), "sr: expected"),
    ],
)
def test_refusals(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


# --- tables

ROWS = [
    {"fusion": "none | best", "accuracy": "61.0 ± 0.5", "loss": 0.5, "n": 1234567},
    {"fusion": "<b>早</b>", "accuracy": "91.2", "loss": np.float32(12.25), "ok": True},
]


def test_table_as_text():
    t = table(ROWS, "Fusions")
    assert str(t).splitlines() == [
        "Fusions",
        "fusion         accuracy    loss          n  ok",
        "-----------  ----------  ------  ---------  ----",
        "none | best  61.0 ± 0.5     0.5  1,234,567  –",
        "<b>早</b>          91.2    12.2          –  yes",
    ]
    assert t.rows == ROWS


def test_table_in_markdown():
    lines = table(ROWS, "What *it* is")._repr_markdown_().splitlines()
    assert lines[0] == r"*What \*it\* is*"
    assert lines[2].split("|")[1].strip() == "fusion"
    assert [c.count(":") for c in lines[3].split("|")[1:-1]] == [1] * 5
    assert [c.strip().endswith(":") for c in lines[3].split("|")[1:-1]] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert lines[4].startswith(r"| none \| best")
    assert lines[5].startswith(r"| \<b\>早\</b\>")
    code = table([{"a": "`b_c` d_e"}])._repr_markdown_()
    assert r"`b_c` d\_e" in code


@pytest.mark.parametrize(
    "column, texts",
    [
        ([123.4, 0.002, 0.0], ["123", "0.002", "0"]),
        ([1.234, -0.5], ["1.23", "-0.50"]),
        ([12345.6], ["12,346"]),
        ([0.0123], ["0.0123"]),
        ([math.nan, 1.0], ["nan", "1.00"]),
        ([0.0], ["0.0"]),
        ([math.inf], ["inf"]),
        ([None, 3, "a b"], ["–", "3", "a b"]),
    ],
)
def test_decimals_follow_the_largest_number(column, texts):
    lines = str(table([{"a": "x", "b": v} for v in column])).splitlines()[2:]
    assert [line[3:].strip() for line in lines] == texts


# --- in a notebook


def executed(*cells):
    import nbformat
    from nbclient import NotebookClient

    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=600, kernel_name="python3").execute()
    return [c.outputs for c in nb.cells]


def test_a_figure_is_shown_once_and_sharp(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    outs = executed(
        "import numpy as np; from mmcourse.explore import *; use_style()",
        "show_images(np.zeros((2, 8, 8)))",
        "show_images(np.zeros((2, 8, 8)))\n1",
        "show_wave(np.zeros(9))",
        "table([{'a': 1}])",
    )
    kinds = [[kind for o in out for kind in o.get("data", {})] for out in outs]
    figure = ["image/svg+xml", "text/plain"]
    assert [sorted(k) for k in kinds[1:4]] == [
        figure,
        ["image/svg+xml", "text/plain", "text/plain"],
        figure,
    ]
    assert kinds[0] == []
    assert sorted(kinds[4]) == ["text/markdown", "text/plain"]
    assert "<dc:" not in outs[1][0]["data"]["image/svg+xml"]


def test_import_needs_no_heavy_library():
    heavy = {"matplotlib", "torch", "IPython", "soundfile", "tabulate"}
    code = f"import sys, mmcourse.explore; print({heavy} & set(sys.modules) or None)"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


# -------------------------------------------------------------------------- sliders
def bars(a, b=1):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.bar([0, 1], [a, b])
    return fig


def say_bars(a, b=1):
    return f"Bars of {a} & {b}."


def test_a_slider_has_a_frame_for_each_combination():
    out = explore.slider(bars, say_bars, a=[1, 2, 3], b=[4, 5])
    page = out._repr_html_()
    assert repr(out) == "[slider: a (3 values), b (2 values)]"
    assert page.count("<svg") == 6 and page.count(" hidden>") == 5
    wanted = [f"Bars of {a} &amp; {b}." for a in (1, 2, 3) for b in (4, 5)]
    assert re.findall('aria-label="(.*?)"', page) == wanted
    assert not re.search("https?://(?!www.w3.org)", page)
    assert page == explore.slider(bars, say_bars, a=[1, 2, 3], b=[4, 5])._repr_html_()
    assert not plt.get_fignums()


def test_the_ids_of_frames_differ():
    page = explore.slider(bars, say_bars, a=[1, 2])._repr_html_()
    clips = re.findall('<clipPath id="(.*?)"', page)
    assert len(set(clips)) == len(clips) == 2


def test_a_slider_that_is_too_large_is_refused():
    def cloud(a):
        fig, ax = plt.subplots()
        ax.plot(np.random.default_rng(a).normal(size=9000))
        return fig

    with pytest.raises(ValueError, match="slider: expected at most 200 kB, got"):
        explore.slider(cloud, lambda a: "Noise.", a=[1, 2, 3])


def test_a_slider_turns_by_the_keyboard(browser, tmp_path):
    out = explore.slider(bars, say_bars, a=[1, 2, 3], b=[4, 5])
    (tmp_path / "page.html").write_text(out._repr_html_(), encoding="utf-8")
    wanted = ["Bars of 1 & 4.", "Bars of 3 & 5.", "3", "3", "5"]
    assert turned(browser, tmp_path / "page.html") == wanted


def test_show_history_draws_both_losses_and_marks_the_best():
    h = History([3, 2, 1], [3, 1.5, 2], best=1)
    _, ax = plt.subplots()
    show_history(h, ax, "title")
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines["training"] == [[1, 3], [2, 2], [3, 1]]
    assert lines["validation"] == [[1, 3], [2, 1.5], [3, 2]]
    assert lines["best epoch"] == [[2, 1.5]] and ax.get_title() == "title"
    plt.close()
