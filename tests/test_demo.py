"The page on which one draws, speaks and types a digit: its numbers, and itself."

import importlib.util
import re
import socket
import subprocess
import sys
import threading
from itertools import permutations

import numpy as np
import pytest

from conftest import PATIENCE, drawing, missing, saved, tone, watched, wav
from mmcourse import demo
from mmcourse.audio import preprocess_audio
from mmcourse.datasets import MODALITIES
from mmcourse.pictures import load_grey
from mmcourse.recogniser import load_recogniser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recogniser():
    return load_recogniser()


def peaked(digit, p=0.7):
    "Probabilities with one peak."
    out = np.full(10, (1 - p) / 9)
    out[digit] = p
    return out


def opinion(**said):
    "What a recogniser would answer."
    from mmcourse.decision_fusion import fuse_product

    fused = fuse_product({m: p[None] for m, p in said.items()})[0]
    return said | {"fused": fused}


# ---------------------------------------------------------------- what a view is worth


def test_worth_by_hand():
    "0.6 twice: 0.36 against nine times (0.4 / 9)²."
    said = {"text": peaked(4, 0.6), "audio": peaked(4, 0.6)}
    worth = demo.subset_worths(said, 4)
    both = 0.36 / (0.36 + 9 * (0.4 / 9) ** 2)
    wanted = {
        (): 0.1,
        ("text",): 0.6,
        ("image",): 0.1,
        ("audio",): 0.6,
        ("text", "image"): 0.6,
        ("text", "audio"): both,
        ("image", "audio"): 0.6,
        ("text", "image", "audio"): both,
    }
    assert worth == pytest.approx(wanted)
    assert set(map(frozenset, worth)) == set(map(frozenset, wanted))


def test_shares_by_hand():
    "Each of two equal views gets half of what both bring; the third gets nothing."
    said = opinion(text=peaked(4, 0.6), audio=peaked(4, 0.6))
    both = 0.36 / (0.36 + 9 * (0.4 / 9) ** 2)
    half = (both - 0.1) / 2
    wanted = {"text": half, "audio": half, "image": 0}
    assert demo.view_shares(said) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_the_mean_over_all_orders_and_add_up(seed):
    p = np.random.default_rng(seed).dirichlet(np.full(10, 0.4), 3)
    said = opinion(**dict(zip(MODALITIES, p)))
    best = said["fused"].argmax()
    worth = demo.subset_worths(said, best)
    worth = {frozenset(s): w for s, w in worth.items()}
    orders = [*permutations(MODALITIES)]
    wanted = dict.fromkeys(MODALITIES, 0.0)
    for order in orders:
        for k, m in enumerate(order):
            before = frozenset(order[:k])
            wanted[m] += (worth[before | {m}] - worth[before]) / len(orders)
    shares = demo.view_shares(said)
    assert shares == pytest.approx(wanted)
    assert sum(shares.values()) == pytest.approx(said["fused"].max() - 0.1)


def test_a_view_that_says_nothing_is_worth_nothing():
    said = opinion(text=np.full(10, 0.1), image=peaked(3), audio=peaked(5, 0.5))
    shares = demo.view_shares(said)
    assert shares["text"] == pytest.approx(0, abs=1e-12)
    assert shares["image"] > 0 > shares["audio"]


# ---------------------------------------------------------------- noise


def test_a_picture_without_noise_is_what_the_network_gets():
    picture = demo.first_of(5)[0]
    assert (demo.noisy_picture(picture) == picture).all()


def test_noise_on_pixels_is_normal_and_grows_with_the_slider():
    x = np.full((28, 28), 0.5, np.float32)
    x[10:18, 10:18] = 0.7
    little, more = (demo.noisy_picture(x, s, seed=3) - x for s in (0.02, 0.04))
    assert np.allclose(more, 2 * little, atol=1e-6)
    assert little.std() == pytest.approx(0.02, rel=0.1)
    assert abs(little.mean()) < 0.003
    wild = demo.noisy_picture(x, 2.0)
    assert wild.min() == 0 and wild.max() == 1 and wild.dtype == np.float32
    assert not (wild == demo.noisy_picture(x, 2.0, seed=1)).all()


def test_a_sound_without_noise_loses_only_silence():
    clip = preprocess_audio([tone()])[0]
    wave = demo.noisy_sound(tone(), demo.QUIET)
    here = np.flatnonzero(clip)
    assert (wave == clip[here[0] : here[-1] + 1]).all()
    assert wave[0] != 0 and wave[-1] != 0


@pytest.mark.parametrize("snr", [10, 0, -10])
def test_the_noise_has_the_power_that_is_said(snr):
    clean, noisy = (demo.noisy_sound(tone(), s).astype(float) for s in (40, snr))
    # noisy = gain·(clean + noise): at -snr dB more noise, so the gain is found by two
    gains = np.linspace(0.01, 20, 40_000)
    noise = [(noisy / g - clean) for g in gains[::400]]
    power = np.array([(n**2).sum() for n in noise])
    wanted = (clean**2).sum() * 10 ** (-snr / 10)
    assert (np.abs(power / wanted - 1) < 0.2).any()


def test_words_go_one_after_the_other():
    text = "an even number over five"
    kept = [demo.dropped_words(text, k / 5).split() for k in range(6)]
    assert kept[0] == text.split() and [len(k) for k in kept] == [5, 4, 3, 2, 1, 0]
    for more, less in zip(kept, kept[1:]):
        rest = iter(more)
        assert all(word in rest for word in less)  # a subsequence
    assert demo.dropped_words("  two  spaces ", 0) == "  two  spaces "
    assert len(demo.dropped_words("这是七", 1 / 3).split()) == 2
    texts = {demo.dropped_words(text, 0.4, seed) for seed in range(8)}
    assert len(texts) > 2


# ---------------------------------------------------------------- a look


def test_a_clear_look_is_the_recognisers_answer(recogniser):
    picture, _ = demo.first_of(3)
    given = {"text": "an odd number below six", "image": picture}
    seen, said = demo.look_at(recogniser, given), recogniser(**given)
    assert set(seen.said) == {"text", "image", "fused"} and not seen.refused
    for m, p in said.items():
        assert np.allclose(seen.said[m], p) and seen.said[m].sum() == pytest.approx(1)


def test_nothing_given_is_no_opinion(recogniser):
    blank = np.full((280, 280, 3), 255, np.uint8)
    clear = np.zeros((280, 280, 4), np.uint8)
    for image in (None, blank, clear):
        seen = demo.look_at(recogniser, {"text": " ", "image": image, "audio": None})
        assert not seen.got and not seen.remarks and set(seen.said) == {"fused"}
        assert np.allclose(seen.said["fused"], 0.1)


def test_one_that_cannot_be_read_does_not_silence_the_others(recogniser, tmp_path):
    (tmp_path / "no.wav").write_bytes(b"no sound")
    given = {"text": "seven", "audio": str(tmp_path / "no.wav")}
    seen = demo.look_at(recogniser, given)
    assert set(seen.said) == {"text", "fused"} and seen.said["fused"].argmax() == 7
    assert seen.refused["audio"].startswith("audio: expected a recording")
    assert "expected a recording" in demo.view_html(seen, "audio")


def test_noise_reaches_the_networks_and_what_is_shown(recogniser):
    picture, wave = demo.first_of(3)
    given = {"text": "an odd number below six", "image": picture, "audio": wave}
    noise = {"text": 1.0, "image": 0.4, "audio": -5}
    seen = demo.look_at(recogniser, given, noise)
    assert set(seen.got) == {"image", "audio"}  # the last word is gone
    assert (seen.got["image"] == demo.noisy_picture(picture, 0.4)).all()
    assert (seen.got["audio"] == demo.noisy_sound(wave, -5)).all()
    again = recogniser(**seen.got)
    assert all(np.allclose(seen.said[m], p) for m, p in again.items())


def test_the_weak_example_is_right_where_two_views_are_wrong(recogniser):
    "As the notebook says of it."
    drawn, spoken, text, *noise = demo.EXAMPLES["Three weak views"]
    given = {"text": text, "image": demo.first_of(3)[0], "audio": demo.first_of(3)[1]}
    said = demo.look_at(recogniser, given, dict(zip(demo.VIEWS, noise))).said
    best = {m: int(p.argmax()) for m, p in said.items()}
    assert best == {"text": 1, "image": 8, "audio": 3, "fused": 3}
    assert drawn == spoken == 3


def test_quarrels_and_unknown_words_are_said(recogniser):
    given = {
        "text": "glorb",
        "image": demo.first_of(3)[0],
        "audio": demo.first_of(7)[1],
    }
    seen = demo.look_at(recogniser, given)
    assert seen.remarks == [
        "not known: glorb; the text is left out",
        "image says 3 and audio says 7: they cannot both be right",
    ]
    page = demo.answer_html(seen)
    assert all(remark in page for remark in seen.remarks)
    only = demo.look_at(recogniser, {"text": "#"})
    assert only.remarks == ["no digit is hinted at; the text is left out"]


# ---------------------------------------------------------------- words and bars


def test_percent_never_says_certain_of_what_is_not():
    said = [demo.percent(p) for p in (0.001, 0.005, 0.5, 0.994, 0.9951, 1.0)]
    assert said == ["<1 %", "0 %", "50 %", "99 %", ">99 %", "100 %"]


def test_ten_bars_and_their_text():
    page = demo.bars_html("image", peaked(3, 0.64))
    heights = [float(h) for h in re.findall(r"height:([\d.]+)%", page)]
    assert len(heights) == 10 and sum(heights) == pytest.approx(100, abs=0.5)
    assert heights[3] == 64 and page.count("class=best") == 1
    assert 'aria-label="picture: 3 at 64 %, ' in page
    assert "says nothing" in demo.bars_html("image", None)


def test_a_picture_goes_to_the_page_and_back():
    picture = demo.first_of(5)[0]
    back = load_grey(demo.from_url(demo.to_url(picture)))
    assert np.allclose(back, picture, atol=1e-6)
    assert demo.from_url("") is None and demo.from_url(None) is None


def test_every_example_is_read(recogniser):
    for name in demo.EXAMPLES:
        drawn, sound, text, *noise = demo.example(name)
        assert len(noise) == 3
        sound = sound and (sound[1], sound[0])  # (rate, samples) in Gradio
        answer, *_ = demo.panels(recogniser, drawn, sound, text, *noise)
        assert "It is" in answer


def test_what_was_typed_stays_text():
    "A tag in a hint is no tag of the page."
    assert "<b>" not in demo.got_html("text", "<b>six</b>")
    seen = demo.Look({}, {"text": "<i>"}, {"fused": np.full(10, 0.1)}, ["<i>"])
    assert "&lt;i&gt;" in demo.view_html(seen, "text")
    assert "⚠ &lt;i&gt;" in demo.answer_html(seen)


def test_shares_are_shown_with_their_sign():
    said = opinion(image=peaked(3, 0.9), audio=peaked(7, 0.8))
    page, shares = demo.shares_html(said), demo.view_shares(said)
    assert f"<td>+{100 * shares['image']:.0f}" in page
    assert f"<td>−{-100 * shares['audio']:.0f}" in page
    assert "Shapley value" in page and "<th>hint<td><i>" in page


def test_a_picture_of_any_shape_is_laid_on_the_canvas():
    "In the middle, its border carried on, not stretched."
    wide = np.full((50, 100, 3), 200, np.uint8)
    wide[20:30, 45:55] = 0
    canvas = demo.on_canvas(wide)
    assert canvas.shape == (280, 280, 3) and np.allclose(canvas[:60], 200 / 255)
    dark = np.argwhere(canvas[..., 0] < 0.1)
    assert np.allclose(dark.mean(0), 139.5, atol=1)
    assert np.allclose(np.ptp(dark, axis=0), 27, atol=3)


# ---------------------------------------------------------------- the page itself


def test_the_module_needs_no_gradio():
    code = (
        "import sys; sys.modules['gradio'] = None;"
        "from mmcourse.demo import serve_page;"
        "sys.exit(serve_page(['--no-browser']))"
    )
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert r.returncode == 2 and r.stderr.count("\n") == 1
    assert "pip install 'mmcourse[demo]'" in r.stderr


def test_a_taken_port_is_no_obstacle():
    first = demo.open_socket(0)
    port = first.getsockname()[1]
    second = demo.open_socket(port)
    assert second.getsockname()[1] != port
    assert second.getsockname()[0] == "127.0.0.1"
    first.close()
    second.close()


@pytest.fixture(scope="module")
def served(recogniser):
    "The page's address, and the hosts that its server asks."
    if importlib.util.find_spec("gradio") is None:
        missing('gradio is not installed: pip install -e ".[demo]"')
    asked, connect = [], socket.socket.connect

    def watch(self, place):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            asked.append(place[0])
        return connect(self, place)

    socket.socket.connect = watch
    place = demo.open_socket(0)
    server = demo.server(recogniser, place)
    run = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    run.start()
    demo.panels(recogniser, None, None, "seven")  # the first look takes longest
    yield f"http://127.0.0.1:{place.getsockname()[1]}/", asked
    server.should_exit = True
    run.join(20)
    socket.socket.connect = connect


def wait(tab, selector, text):
    "Until a part of the page holds a text."
    tab.locator(selector).filter(has_text=text).wait_for()


CHATTER = re.compile("AudioContext|Method not implemented")  # of Gradio's own scripts


def draw_a_stroke(tab):
    "From top to bottom, in the middle of the canvas."
    canvas = tab.locator("#image canvas")
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y - 60)
    tab.mouse.down()
    tab.mouse.move(x, y + 60, steps=12)
    tab.mouse.up()


def nothing_is_wrong(tab, axe: str, problems: list, hosts):
    "A page that all can use, without complaints, that asked nobody else. Closes it."
    tab.evaluate(axe)
    found = tab.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']}))"
        ".violations.map(v => `${v.id}: ${v.nodes[0].html}`)"
    )
    tab.close()
    assert found == []
    assert [p for p in problems if not CHATTER.search(p)] == []
    assert set(hosts) <= {"127.0.0.1", "::1"}


@pytest.mark.slow
def test_the_page(browser, served, axe, tmp_path):
    "Real files in, the answer out, and nobody else is asked."
    (tmp_path / "seven.png").write_bytes(saved(drawing()))
    (tmp_path / "seven.wav").write_bytes(wav(demo.first_of(7)[1]))
    address, hosts = served
    problems = []
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(PATIENCE)
    watched(tab, address, problems)
    tab.goto(address)
    wait(tab, "#answer", "Draw a digit")
    digit = tab.locator("#answer .digit")

    draw_a_stroke(tab)
    wait(tab, "#answer", "From picture.")
    assert digit.inner_text() == "1"

    hint = tab.get_by_label("A hint, or a name")
    hint.fill("an odd number that no die can show")
    wait(tab, "#answer", "From picture and hint.")

    tab.locator("#audio").get_by_label("Upload file").click()
    tab.locator("#audio input[type=file]").set_input_files(tmp_path / "seven.wav")
    wait(tab, "#answer", "From picture, sound and hint.")
    wait(tab, "#answer", "image says 1 and audio says 7: they cannot both be right")

    upload = tab.get_by_test_id("Upload a picture-upload-button")
    upload.set_input_files(tmp_path / "seven.png")
    wait(tab, "#image-shown .says", "7")
    wait(tab, "#answer", "It is seven.")
    assert digit.inner_text() == "7"
    assert tab.locator("#fused-shown .bars span").count() == 10
    assert tab.locator("#image-shown img.pixels").count() == 1
    assert tab.locator("#audio-shown audio").count() == 1

    tab.get_by_label("range slider for Share of words lost").press("End")
    wait(tab, "#answer", "From picture and sound.")

    tab.set_viewport_size({"width": 390, "height": 844})
    tab.get_by_role("button", name="Words not known").press("Enter")
    wait(tab, "#answer", "not known: glorbish, blick; the text is left out")
    wait(tab, "#answer", "From picture.")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390

    nothing_is_wrong(tab, axe, problems, hosts)


@pytest.mark.slow
def test_the_page_of_the_shop(browser, served, axe):
    "An example, a question typed over it, and nobody else is asked."
    address, hosts = served
    problems = []
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(PATIENCE)
    watched(tab, address, problems)
    tab.goto(address + "service/")
    wait(tab, "#answer-service", "Ask something")
    tab.get_by_role("button", name="A price").click()
    wait(tab, "#answer-service", "Source: P55")
    assert tab.locator("#photo-shown img.pixels").count() == 1
    tab.get_by_label("Your question").fill("<b>i want to complain</b>")
    wait(tab, "#answer-service", "Only a person can answer this: complaint")
    assert tab.locator("#answer-service td b").count() == 0
    nothing_is_wrong(tab, axe, problems, hosts)
