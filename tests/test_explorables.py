"Explorables: what a figure with knobs says is what its chapter's functions give."

import re

import numpy as np
import pytest
import torch

from conftest import turned
from mmcourse.decision_fusion import fuse_weighted
from mmcourse.explorables import (
    answer_slider,
    noise_slider,
    patch_slider,
    weights_slider,
)


@pytest.fixture(scope="module")
def opinions():
    "Two seeds of a text that knows, a picture that guesses, a sound that errs."
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=80)
    said = rng.dirichlet([1] * 4, (2, 3, 80))
    said[:, 0] = 0.4 * said[:, 0] + 0.6 * np.eye(4)[labels]
    said[:, 2] = 0.4 * said[:, 2] + 0.6 * np.eye(4)[(labels + 1) % 4]
    return said, labels


@pytest.fixture(scope="module")
def page(opinions):
    return weights_slider(*opinions, [[0.5, 0.25, 0.25]])._repr_html_()


def told(page):  # (35, 6): three weights, per cent right, difference, its low, its high
    alts = re.findall('role="img" aria-label="(.*?)"', page)
    return np.array([re.findall(r"[+-]?\d+\.\d+", alt) for alt in alts], float)


def test_weights_walk_the_whole_triangle(page):
    weights = told(page)[:, :3]
    assert len(weights) == 35
    np.testing.assert_allclose(weights.sum(1), 1, atol=0.011)
    for corner in np.eye(3):
        assert (weights == corner).all(1).any()
    assert (weights >= 0).all()


def test_each_point_tells_what_its_average_gets(opinions, page):
    said, labels = opinions

    def right(weights):
        fused = [fuse_weighted(p, weights) for p in said]
        return 100 * np.mean([f.argmax(1) == labels for f in fused])

    alike = right([1 / 3] * 3)
    for k, (*_, share, more, low, high) in enumerate(told(page)):
        text, image = k // 5 / 6, (1 - k // 5 / 6) * (k % 5) / 4
        wanted = right([text, image, max(0, 1 - text - image)])
        assert share == pytest.approx(wanted, abs=0.06)
        assert more == pytest.approx(wanted - alike, abs=0.06)
        assert low <= more <= high


def test_equal_weights_differ_from_themselves_by_nothing(page):
    *weights, _, more, low, high = told(page)[2 * 5 + 2]
    assert weights == [0.33] * 3 and more == low == high == 0


def test_the_figure_says_what_its_text_says_and_is_small(page):
    assert len(page) < 200_000
    frames = page.split('<div role="img"')[1:]
    for frame in frames:
        alt = re.search('aria-label="(.*?)"', frame)[1]
        share = re.search(r"(\d+\.\d) % right", alt)[1]
        assert f": {share} %</text>" in frame
    places = [re.findall('<use [^>]* x="(.*?)" y="(.*?)"', f)[-1] for f in frames]
    assert len(set(places)) == 31  # the text alone is one place for five knobs


def test_the_triangle_is_walked_by_the_keyboard(page, browser, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    first, last, *outputs = turned(browser, tmp_path / "page.html")
    assert "text 0.00, image 0.00, audio 1.00" in first
    assert "text 0.33, image 0.67, audio 0.00" in last
    assert outputs == ["1/3", "1/3", "1"]


# noise levels
@pytest.fixture(scope="module")
def noises():
    "Chapter 18's slider, of made-up accuracies."
    alone = {m: torch.linspace(0.8, 0.1, 5) for m in ("image", "audio")}
    alone["text"] = torch.tensor([0.6])
    everything = "text", "image", "audio"
    rising = {everything: torch.arange(25.0).view(5, 5) - 12}
    return noise_slider(alone, {"a fusion": rising})


def test_the_slider_of_noise_levels_tells_each_point(noises):
    labels = re.findall('aria-label="(.*?)"', noises._repr_html_())
    assert len(set(labels)) == len(labels) == 25
    assert labels[0] == (
        "Pixel noise 0, sound to noise ∞. Right alone, in per cent: text 60, image 80,"
        " audio 80. Points above the best of them: a fusion -12."
    )
    assert labels[9] == (  # second picture, last sound
        "Pixel noise 0.2, sound to noise -15 dB. Right alone, in per cent: text 60,"
        " image 62, audio 10. Points above the best of them: a fusion -3."
    )


def test_the_slider_of_noise_levels_turns_by_the_keyboard(noises, browser, tmp_path):
    (tmp_path / "page.html").write_text(noises._repr_html_(), encoding="utf-8")
    first, last, *knobs = turned(browser, tmp_path / "page.html")
    assert first.startswith("Pixel noise 0, sound to noise ∞.")
    assert last.startswith("Pixel noise 0.4, sound to noise -15 dB.")
    assert knobs == ["0.4", "0.4", "-15 dB"]


# patches
def test_the_slider_of_patches_tells_where_most_weight_goes():
    first, second = torch.full((2, 1 + 36, 1 + 36), 0.01)
    first[0, 1 + 8] = 0.5  # the class token, at row 2, column 3
    second[1 + 6 + 3, 1 + 35] = 0.25  # row 2, column 4 at the last patch
    page = patch_slider(torch.eye(24), [first, second])._repr_html_()
    labels = re.findall('aria-label="(.*?)"', page)
    assert len(labels) == 2 * 10
    assert labels[0] == (
        "Block 1, asked by the class token: most at row 2, column 3, 50% of the weight."
    )
    assert (
        "Block 2, asked by row 2, column 4: most at row 6, column 6, 25% of the weight."
    ) in labels


def test_answers_with_and_without_the_picture():
    few = {"yes": 0.75, "no": 0.2, "dog": 0.05}, {"yes": 0.4, "no": 0.6}
    page = answer_slider(torch.ones(6, 6, 3), {"is there a dog ?": few})._repr_html_()
    assert re.findall('aria-label="(It sees .*?)"', page) == [
        "It sees the picture and is asked: is there a dog ? "
        "It says yes 75%, no 20%, dog 5%.",
        "It sees white paper and is asked: is there a dog ? It says no 60%, yes 40%.",
    ]
