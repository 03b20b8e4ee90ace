"""A learner's own input: photos, recordings, the cache of networks, the command."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from scipy import ndimage

from mmcourse import recogniser as r
from mmcourse.audio import resample
from mmcourse.checkpoint import CheckpointError
from mmcourse.classifiers import ImageNet28
from mmcourse.datasets import MODALITIES, hints, mnist, spoken_digits
from mmcourse.decision_fusion import fuse_product
from mmcourse.pipeline import extract_modality, preprocess_data
from mmcourse.project import main
from mmcourse.store import data_path

pytestmark = pytest.mark.slow


# --------------------------------------------------------------- learners' pictures
def photo(digit, rng, pen=None, scale=12):
    "A digit in dark ink on unevenly lit paper; `pen`: its stroke so many pixels wide."
    big = ndimage.zoom(digit, scale, order=1) > 0.5
    if pen:
        depth = ndimage.distance_transform_edt(big)
        ridge = (depth == ndimage.maximum_filter(depth, 3)) & big
        big = ndimage.binary_dilation(ridge, iterations=pen)
    h, w = rng.integers(28 * scale + 20, 650, 2)
    i, j = rng.integers(0, h - 28 * scale), rng.integers(0, w - 28 * scale)
    sheet = np.zeros((h, w))
    sheet[i : i + 28 * scale, j : j + 28 * scale] = big
    slope = np.linspace(0, 1, w) * rng.random()
    slope = slope + np.linspace(0, 1, h)[:, None] * rng.random()
    ink = 1 - 0.7 * ndimage.gaussian_filter(sheet, 1)
    seen = (0.6 + 0.175 * slope) * ink + rng.normal(0, 0.02, (h, w))
    return Image.fromarray(np.uint8(255 * seen.clip(0, 1)))


@pytest.fixture(scope="module")
def shipped():
    return r.load_recogniser()


def answer(recogniser, modality, inputs):
    "(N,) digits."
    data = preprocess_data({modality: inputs}, recogniser.stats)
    x = extract_modality(modality, data)
    return recogniser.models[modality].predict_proba(x).argmax(1)


@pytest.mark.parametrize("pen", [None, 2, 5])
def test_photos_are_read_nearly_as_well_as_mnist(shipped, pen):
    test, rng = mnist("test"), np.random.default_rng(0)
    photos = [photo(x, rng, pen) for x in test["image"][:60]]
    assert (answer(shipped, "image", photos) == test["label"][:60]).mean() > 0.88
    assert (answer(shipped, "image", test["image"]) == test["label"]).mean() > 0.93


def test_light_ink_on_a_dark_board_and_jpeg(shipped):
    test, rng, boards = mnist("test"), np.random.default_rng(1), []
    for x in test["image"][:40]:
        board = Image.eval(photo(x, rng), lambda v: 255 - v)
        board.save(file := io.BytesIO(), "JPEG", quality=60)
        boards.append(file.getvalue())
    assert (answer(shipped, "image", boards) == test["label"][:40]).mean() > 0.85


# ------------------------------------------------------------------------ recordings
def as_file(wave):
    "The clip as a faint stereo file at 44.1 kHz."
    far = resample(wave.astype(float), 8000, 44100) * 0.06
    file = io.BytesIO()
    soundfile.write(file, np.stack([far, far], 1), 44100, "PCM_16", format="WAV")
    return file.getvalue()


def test_voices_that_training_never_met_are_heard(shipped):
    test = spoken_digits("test")
    clips = [w[:n] for w, n in zip(test["audio"], test["length"])]
    heard = answer(shipped, "audio", clips)
    assert (heard == test["label"]).mean() > 0.9
    files = [as_file(clip) for clip in clips[:50]]
    assert (answer(shipped, "audio", files) == heard[:50]).mean() > 0.9


def test_hints_are_read_nearly_as_well_as_can_be(shipped):
    test = hints("test")  # the exact posterior has 69.2 %
    assert (answer(shipped, "text", test["text"]) == test["label"]).mean() > 0.6


# ------------------------------------------------------------- shifts and getting used
def test_clips_are_moved():
    x = torch.arange(12.0).reshape(1, 2, 6)
    assert torch.equal(r.later(x, 0), x)
    later, earlier = r.later(x, 2), r.later(x, -1)
    assert later[0].tolist() == [[-60, -60, 0, 1, 2, 3], [-60, -60, 6, 7, 8, 9]]
    assert earlier[0].tolist() == [[1, 2, 3, 4, 5, -60], [7, 8, 9, 10, 11, -60]]


def test_sounds_are_heard_at_several_moments(shipped):
    voices, x = shipped.models["audio"], torch.rand(3, 20, 51) * -59
    each = [m.predict_proba(r.later(x, n)) for m in voices.models for n in r.SHIFTS]
    assert len(each) == 9 and sum(r.SHIFTS) == 0
    assert np.allclose(voices.predict_proba(x), sum(each) / 9)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_norms_take_the_statistics_of_what_they_are_given(share):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)).eval()
    net[0].running_mean[:] = torch.tensor([1.0, 2.0, 3.0])
    x = torch.randn(50, 3) * 4 - 7
    r.renew_norms(net, x, share)
    mean = share * x.mean(0) + (1 - share) * torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(net[0].running_mean, mean, atol=1e-5)
    variance = share * x.var(0) + 1 - share
    assert torch.allclose(net[0].running_var, variance, atol=1e-4)
    # the second hears what the first lets through: mean 0, variance 1
    assert torch.allclose(net[1].running_mean, torch.zeros(3), atol=1e-5)
    assert not any(m.training for m in net.modules())


def test_it_gets_used_to_a_voice_and_stays_as_it_was(shipped):
    test = spoken_digits("test")
    slt = [i for i, v in enumerate(test["voice"]) if "slt" in str(v)]
    clips = [test["audio"][i][: test["length"][i]] for i in slt]
    before = answer(shipped, "audio", clips)
    new = shipped.adapt(clips[::7])
    assert (answer(shipped, "audio", clips) == before).all()
    weights, renewed = shipped.state_dict(), new.state_dict()
    changed = {k for k in weights if not torch.equal(weights[k], renewed[k])}
    assert changed and all(k.startswith("models.audio.") for k in changed)
    assert {k.rsplit(".", 1)[1] for k in changed} <= {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    # 140 clips of slt, the hardest speaker, one in seven of them heard before
    assert (answer(new, "audio", clips) == test["label"][slt]).mean() > 0.85
    half = shipped.adapt(clips[::7], share=0.5).state_dict()
    name = next(k for k in changed if k.endswith("0.net.body.1.running_mean"))
    assert torch.allclose(half[name], (weights[name] + renewed[name]) / 2, atol=1e-4)


# ---------------------------------------------------------------- what it answers
def test_an_ensemble_is_the_mean_of_its_networks(shipped):
    both, x = shipped.models["image"], torch.rand(3, 1, 28, 28)
    each = [model.predict_proba(x) for model in both.models]
    assert len(each) == 3
    assert np.allclose(both.predict_proba(x), sum(each) / 3)


def test_it_fuses_what_says_something(shipped):
    recogniser = shipped
    picture = mnist("test")["image"][0]
    both = recogniser(text="an odd number", image=picture)
    assert both.keys() == {"text", "image", "fused"}
    parts = {m: both[m][None] for m in ("text", "image")}
    assert np.allclose(both["fused"], fuse_product(parts)[0])
    strange = recogniser(text="偶数", image=picture)
    assert strange.keys() == {"image", "fused"}
    assert np.allclose(strange["fused"], both["image"])
    assert np.allclose(recogniser(text="偶数")["fused"], 0.1)


def test_its_statistics_are_used():
    torch.manual_seed(0)
    model = r.Classifier(ImageNet28()).eval()
    picture = mnist("test")["image"][0]
    one, other = (
        r.Recogniser({"image": model}, {"image": s})(image=picture)["image"]
        for s in ((0.0, 1.0), (0.3, 0.2))
    )
    assert not np.allclose(one, other)


HARMS = {
    "half": lambda b: b[: len(b) // 2],
    "empty": lambda b: b"",
    "zeros at the end": lambda b: b[:-9] + bytes(9),
    "zeros": lambda b: bytes(100),
    "a broken header": lambda b: b[:40] + b"\xff" * 8 + b[48:],
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_refused(tmp_path, harm):
    good = data_path("recogniser.safetensors").read_bytes()
    path = tmp_path / "recogniser.safetensors"
    path.write_bytes(HARMS[harm](good))
    with pytest.raises(CheckpointError, match=r"recogniser\.safetensors"):
        r.read_text_classifier(path)


# ---------------------------------------------------------------------- the command
def test_own_input(tmp_path, capsys):
    ink = mnist("test")["image"][3].repeat(8, 0).repeat(8, 1)
    Image.fromarray(np.uint8(255 * (1 - ink))).save(tmp_path / "digit.png")
    clip = spoken_digits("test")
    soundfile.write(tmp_path / "digit.wav", clip["audio"][0, : clip["length"][0]], 8000)
    files = ["--image", str(tmp_path / "digit.png")]
    files += ["--audio", str(tmp_path / "digit.wav")]
    assert main([*files, "--text", "an even number"]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if "%" in line]
    assert [line.split()[0] for line in lines] == [*MODALITIES, "fused"]
    assert all(line.count("%") == 3 for line in lines)
    assert main(files[2:]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["audio", "fused"]


def test_own_text_without_a_known_word(capsys):
    assert main(["--text", "偶数"]) == 2
    out, err = capsys.readouterr()
    assert "the name of a digit" in err and not out.startswith("text  ")


def test_a_text_that_is_partly_known_says_so(capsys, tmp_path):
    assert main(["--text", "an odd cat, sevn"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "not known: cat, sevn"
    ink = mnist("test")["image"][3].repeat(8, 0).repeat(8, 1)
    Image.fromarray(np.uint8(255 * (1 - ink))).save(tmp_path / "digit.png")
    assert main(["--text", "cat", "--image", str(tmp_path / "digit.png")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "not known: cat; the text is left out"


NAMED = {
    "seven": 7,
    "Seven!": 7,
    "７": 7,
    "it's a 0": 0,
    "〇": 0,
    "零": 0,
    "这是个七。": 7,
    "the digit two": 2,
    "two, two": 2,
    "below seven": None,
    "seven or eight": None,
    "七 or 8": None,
    "an even number": None,
    "sevn": None,
    "!": None,
}


@pytest.mark.parametrize("text", NAMED)
def test_a_digit_by_its_name(text):
    assert r.named_digit(r.preprocess_text([text])[0]) == NAMED[text]


def test_a_name_outweighs_the_network(shipped):
    said = shipped(text="three")
    assert said["text"].argmax() == said["fused"].argmax() == 3
    assert said["text"][3] == r.SURE and np.isclose(said["text"].sum(), 1)


def test_sure_views_that_disagree_are_named():
    three, seven, unsure = r.named(3)[0], r.named(7)[0], np.full(10, 0.1)
    said = {"text": unsure, "image": three, "audio": seven, "fused": seven}
    assert r.quarrels(said) == [
        "image says 3 and audio says 7: they cannot both be right"
    ]
    assert r.quarrels(said | {"image": seven, "fused": three}) == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp874"])
def test_a_poor_terminal_loses_no_output(encoding):
    code = (
        "from mmcourse.recogniser import arguments; arguments([]);"
        "print('mean ± spread, the article’s weights √ 七')"
    )
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env)
    assert done.returncode == 0 and done.stdout.startswith(b"mean ")


REFUSED = [
    (["--image", "nowhere.png"], "--image: expected a file"),
    (["--audio", "nowhere.wav"], "--audio: expected a file"),
    (["--text", " "], "--text: expected a word"),
    (["--image", __file__], "--image: expected a picture"),
    (["--audio", __file__], "--audio: expected a recording"),
    (["--image", "."], "--image: expected a file"),
    (["--seeds", "0"], "expected --seeds"),
    (["--seeds", "x"], "--seeds"),
    (["--examples", "5"], "--examples"),
    (["--colour"], "unrecognized"),
    (["--image"], "expected one argument"),
]


@pytest.mark.parametrize("argv, says", REFUSED)
def test_bad_input_is_one_line_and_code_2(capsys, argv, says):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert says in err and not out
    assert err.startswith("mmcourse.project: ") and err.count("\n") == 1


def test_renewed_norms_go_on_with_their_own_momentum():
    x = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0)) + 2
    net = torch.nn.BatchNorm1d(3, momentum=0.2).eval()
    r.renew_norms(net, x)
    torch.testing.assert_close(net.running_mean, x.mean((0, 2)))
    assert net.momentum == 0.2 and not net.training
