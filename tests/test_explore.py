"What chapters show: pictures, players, tables, and what they say of bad input."

import base64
import io
import math
import re
import subprocess
import sys
import wave
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from mmcourse.explore import (
    MODALITY,
    PALETTE,
    mean_spread,
    player,
    players,
    show_images,
    show_wave,
    table,
    use_style,
    wav_bytes,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def closed():
    with matplotlib.rc_context():
        yield
    plt.close("all")


class Tags(HTMLParser):
    "The tags of a text with their attributes; the text must close all that it opens."

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [a for t, a in self.found if t == tag]


def luminance(colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def protan(
    colour,
):  # the cone responses that remain when the red ones are missing (Viénot, Brettel, Mollon 1999)
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    lms = (
        np.array(
            [
                [17.8824, 43.5161, 4.11935],
                [3.45565, 27.1554, 3.86714],
                [0.0299566, 0.184309, 1.46709],
            ]
        )
        @ rgb**2.2
    )
    return lms[1:] / [34.5, 1.7]


# --- style


def test_palette_is_eight_colours_that_can_be_told_apart_without_red_cones():
    assert (
        len(set(PALETTE)) == 8
        and set(MODALITY) == {"text", "image", "audio"}
        and set(MODALITY.values()) <= set(PALETTE)
    )
    for i, a in enumerate(PALETTE):
        for b in PALETTE[:i]:
            assert np.abs(protan(a) - protan(b)).max() > 0.05, (a, b)


def test_modality_colours_stand_out_on_white():
    for c in MODALITY.values():
        assert 1.05 / (luminance(c) + 0.05) > 3, c  # WCAG's contrast for graphics


def test_style_is_white_and_large():
    use_style()
    rc = plt.rcParams
    assert (
        rc["figure.facecolor"]
        == rc["savefig.facecolor"]
        == rc["axes.facecolor"]
        == "white"
        and rc["font.size"] >= 12
        and rc["xtick.labelsize"] >= 11
    )
    assert rc["axes.prop_cycle"].by_key()["color"] == PALETTE
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    png = io.BytesIO()
    fig.savefig(png, format="png")
    assert len(png.getvalue()) < 60_000
    assert plt.imread(io.BytesIO(png.getvalue()))[0, 0].tolist() == [
        1,
        1,
        1,
        1,
    ]  # not transparent, so legible in dark mode


# --- images


@pytest.mark.parametrize(
    "images,shapes",
    [
        (np.zeros((2, 9, 8)), [(9, 8)] * 2),
        (torch.zeros(2, 1, 9, 8), [(9, 8)] * 2),
        (torch.zeros(2, 3, 9, 8, requires_grad=True), [(9, 8, 3)] * 2),
        (np.zeros((2, 9, 8, 4)), [(9, 8, 4)] * 2),
        ([np.zeros((9, 8)), np.zeros((5, 5, 3))], [(9, 8), (5, 5, 3)]),
        (np.zeros((9, 8)), [(9, 8)]),
        (np.zeros((1, 1, 1)), [(1, 1)]),
    ],
)
def test_images_of_all_layouts(images, shapes):
    fig = show_images(images)
    assert [ax.images[0].get_array().shape for ax in fig.axes if ax.images] == shapes


def test_images_are_drawn_from_black_to_white_and_bytes_are_scaled():
    fig = show_images(
        [np.full((4, 4), 0.5), np.full((4, 4), 255, np.uint8), np.full((4, 4), True)],
        titles=["a", 2, ""],
        suptitle="all",
    )
    assert [ax.images[0].get_array().max() for ax in fig.axes] == [0.5, 1, 1]
    assert all(ax.images[0].get_clim() == (0, 1) for ax in fig.axes) and [
        ax.get_title() for ax in fig.axes
    ] == ["a", "2", ""]


def test_grid():
    assert (
        len(show_images(np.zeros((23, 4, 4))).axes) == 30
        and len(show_images(np.zeros((3, 4, 4)), ncols=2).axes) == 4
    )


@pytest.mark.parametrize(
    "images,kw,message",
    [
        (np.zeros((2, 28, 28, 2)), {}, r"images\[0\]: expected .* got \(28, 28, 2\)"),
        ([], {}, "images: expected at least one"),
        (np.zeros((2, 4, 4)), {"titles": ["a"]}, "titles: expected 2"),
        ([np.zeros((0, 3))], {}, r"images\[0\]: expected .* got \(0, 3\)"),
        ([np.array([["a"]])], {}, r"images\[0\]: expected numbers"),
        ([np.zeros(5)], {}, r"got \(5,\)"),
        (np.zeros((2, 4, 4)), {"ncols": -1}, "ncols: expected"),
    ],
)
def test_what_is_no_image_is_refused(images, kw, message):
    with pytest.raises((ValueError, TypeError), match=message):
        show_images(images, **kw)


# --- sounds


def decoded(page):
    source = Tags(page).all("audio")[0]["src"]
    assert source.startswith("data:audio/wav;base64,")
    with wave.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as f:
        return f.getparams()[:4], np.frombuffer(f.readframes(f.getnframes()), "<i2")


def test_player_holds_the_sound_and_says_what_it_is():
    x = np.sin(np.arange(800) / 10).astype(np.float32)
    page = player(x, 16000, label='one <of> "two"')
    (channels, width, rate, n), samples = decoded(page._repr_html_())
    assert (channels, width, rate, n) == (1, 2, 16000, 800) and abs(
        samples / 32767 - x
    ).max() < 1 / 32767
    (audio,) = Tags(page.html).all("audio")
    assert (
        "controls" in audio
        and audio["aria-label"] == 'one <of> "two", 0.1 seconds'
        and "autoplay" not in audio
    )
    assert repr(page) == '[player: one <of> "two", 0.05 s at 16000 Hz]'
    assert not re.search(r"https?://|<script", page.html)


def test_the_same_sound_gives_the_same_page():
    x = np.random.default_rng(0).uniform(-1, 1, 500)
    assert (
        player(x).html
        == player(torch.tensor(x)).html
        == player(x.tolist()).html
        == player(x).html
    )


def test_loud_samples_are_clipped_and_integers_scaled():
    assert wav_bytes([2.0, -3.0]) == wav_bytes([1.0, -1.0])
    assert decoded(player(np.array([-32768, 0, 16384], np.int16)).html)[1].tolist() == [
        -32767,
        0,
        16384,
    ]
    assert decoded(player(np.array([0, 128, 192], np.uint8)).html)[1].tolist() == [
        -32767,
        0,
        16384,
    ]


@pytest.mark.parametrize(
    "bad,message",
    [
        ([], "wave: expected at least one sample"),
        (np.zeros((2, 8)), r"wave: expected one channel of shape \(T,\), got \(2, 8\)"),
        (0.0, r"got \(\)"),
        ([0, math.nan], "got 1 that are NaN"),
        ([math.inf, -math.inf], "got 2"),
        (np.array([1, 2]), "got dtype int64"),
        (["a"], "got dtype"),
        (np.array([1j]), "got dtype complex128"),
        ([None], "got dtype object"),
        ([[1.0], [1.0, 2.0]], "wave: expected"),
    ],
)
def test_what_is_no_wave_is_refused(bad, message):
    with pytest.raises((ValueError, TypeError), match=message):
        player(bad)
    with pytest.raises((ValueError, TypeError), match=message):
        show_wave(bad)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("sr", [0, -8000, 44.1, None, "8000", True])
def test_bad_rates_are_refused(sr):
    with pytest.raises(ValueError, match="sr: expected"):
        player([0.0], sr)


def test_players_stand_in_a_row():
    page = players([[0.0], [0.5]], ["a", "b"])
    assert [a["aria-label"] for a in Tags(page.html).all("audio")] == [
        "a, 0.0 seconds",
        "b, 0.0 seconds",
    ] and len(repr(page).splitlines()) == 2
    with pytest.raises(
        ValueError, match="labels: expected 2, one for each wave, got 1"
    ):
        players([[0.0], [0.5]], ["a"])


def test_show_wave_draws_seconds():
    fig, ax = plt.subplots()
    show_wave(np.zeros(4000), 8000, ax, title="silence")
    assert (
        ax.get_xlim() == (0, 0.5)
        and ax.get_xlabel() == "time (s)"
        and ax.get_title() == "silence"
    )


# --- numbers


def test_mean_spread_is_the_sample_standard_deviation():
    assert (
        mean_spread([0.91, 0.93, 0.92]) == "92.0 ± 1.0"
        and mean_spread(torch.tensor([1.0, 2.0]), scale=1, digits=2) == "1.50 ± 0.71"
    )
    assert (
        mean_spread([0.5]) == "50.0 (one run)"
        and mean_spread(x / 4 for x in range(2)) == "12.5 ± 17.7"
    )
    with pytest.raises(ValueError, match="values: expected at least one"):
        mean_spread([])


ROWS = [
    {
        "fusion": 'none | "best"',
        "accuracy": "61.0 ± 0.5",
        "loss": 0.5,
        "n": 1234567,
        "ok": True,
    },
    {
        "fusion": "<b>早</b>",
        "accuracy": "91.2 ± 0.4",
        "loss": np.float32(12.25),
        "n": np.int64(2),
        "extra": None,
    },
]


def test_table_as_text():
    t = table(ROWS, "Fusions")
    assert str(t).splitlines() == [
        "Fusions",
        "fusion           accuracy  loss          n  ok   extra",
        "-------------  ----------  ----  ---------  ---  -----",
        'none | "best"  61.0 ± 0.5   0.5  1,234,567  yes      –',
        "<b>早</b>      91.2 ± 0.4  12.2          2  –        –",
    ]
    assert t.rows == ROWS


def test_table_on_a_page():
    tags = Tags(table(ROWS, "Fusions & more")._repr_html_())
    assert (
        [a["scope"] for a in tags.all("th")] == ["col"] * 6
        and len(tags.all("td")) == 12
        and not tags.all("b")
        and "Fusions & more" in tags.words
    )
    assert not any(
        "color" in a.get("style", "") for _, a in tags.found
    )  # the page's own colours, light or dark


def test_table_in_markdown():
    assert (
        table(ROWS)._repr_markdown_().splitlines()[0]
        == "| fusion | accuracy | loss | n | ok | extra |"
        and r'none \| "best"' in table(ROWS)._repr_markdown_()
    )


def test_small_numbers_do_not_vanish():
    assert [
        l.split()[1]
        for l in str(
            table(
                [{"a": "x", "b": 123.4}, {"a": "y", "b": 0.002}, {"a": "z", "b": 0.0}]
            )
        ).splitlines()[2:]
    ] == ["123", "0.002", "0"]
    assert "nan" in str(table([{"a": 1, "b": math.nan}])) and "inf" in str(
        table([{"a": 1, "b": math.inf}])
    )


@pytest.mark.parametrize("rows", [[], [3], ["ab"], None])
def test_what_is_no_table_is_refused(rows):
    with pytest.raises((ValueError, TypeError), match="rows: expected"):
        table(rows)


# --- in a notebook


def executed(*cells):
    import nbformat
    from nbclient import NotebookClient

    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=120, kernel_name="python3").execute()
    return [c.outputs for c in nb.cells]


def test_a_figure_is_shown_once_however_it_is_made(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    outs = executed(
        "import numpy as np; from mmcourse.explore import *; use_style(); x = np.zeros((2, 8, 8))",
        "show_images(x)",
        "fig = show_images(x)",
        "show_images(x)\n1",
        "show_wave(np.zeros(9))",
        "fig",
    )
    pictures = [sum("image/png" in o.get("data", {}) for o in out) for out in outs]
    assert pictures == [0, 1, 1, 1, 1, 1]
    assert not any(
        o.output_type == "error" or o.get("name") == "stderr"
        for out in outs
        for o in out
    )


def test_import_needs_no_plotting_library():
    code = 'import sys, mmcourse.explore; print(sorted({"matplotlib", "torch", "IPython"} & set(sys.modules)))'
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


def test_notebook_is_small():
    assert (ROOT / "nbs/0_tools/explore.ipynb").stat().st_size < 400_000
