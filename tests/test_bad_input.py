"A learner's own files and slips: handled as one would expect, or refused by name."

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from conftest import REFUSED, drawing, refused, saved, tone, wav
from mmcourse.audio import preprocess_audio
from mmcourse.datasets import MODALITIES
from mmcourse.decision_fusion import fuse_product, learn_weights
from mmcourse.image import preprocess_image
from mmcourse.pipeline import preprocess_data
from mmcourse.text import preprocess_text

PREPROCESS = {
    "text": preprocess_text,
    "image": preprocess_image,
    "audio": preprocess_audio,
}
PNG, JPEG = saved(drawing()), saved(drawing("RGB", ink=(9, 9, 9)), "JPEG")
FLAC = wav(tone(), format="FLAC")

# --- refused: which modality, what, which error, words of the message

WRONG = [
    ("text", "", ValueError, "None for a missing text"),
    ("text", " \n\u3000\ufeff", ValueError, "None for a missing text"),
    ("text", b"odd", TypeError, "got 3 bytes"),
    ("text", 3, TypeError, "got int 3"),
    ("text", ["odd"], TypeError, "got list of 1"),
    ("image", b"", ValueError, "cannot be read as one"),
    ("image", FLAC, ValueError, "PNG and JPEG always work"),
    ("image", PNG[:60], ValueError, "truncated"),
    ("image", JPEG[: len(JPEG) // 2], ValueError, "truncated"),
    ("image", "nowhere.png", FileNotFoundError, "found none at 'nowhere.png'"),
    ("image", Path("a\0b"), FileNotFoundError, "found none"),
    ("image", "x" * 5000, FileNotFoundError, "found none"),
    ("image", [], ValueError, "at least one value"),
    ("image", np.zeros((5, 0, 3)), ValueError, "at least one value"),
    ("image", np.full((9, 9), np.nan), ValueError, "NaN"),
    ("image", np.zeros((2, 9, 9)), ValueError, "(2, 9, 9)"),
    ("image", np.eye(9) * 300, ValueError, "300"),
    ("image", np.eye(9) * 1j, TypeError, "complex"),
    ("image", [[1, 0], [1]], ValueError, "equal length"),
    ("image", {"a": 1}, TypeError, "got dict"),
    ("image", np.full((50, 50), 0.5), ValueError, "all alike"),
    ("image", Image.new("L", (99, 80), 255), ValueError, "all alike"),
    ("image", saved(Image.new("RGB", (1, 1))), ValueError, "all alike"),
    ("audio", b"", ValueError, "cannot be read as one"),
    ("audio", PNG, ValueError, "cannot be read as one"),
    ("audio", FLAC[:30], ValueError, "cannot be read as one"),
    ("audio", ".", FileNotFoundError, "got the folder '.'"),
    ("audio", np.zeros(0), ValueError, "at least one value"),
    ("audio", np.full(900, np.inf), ValueError, "infinite"),
    ("audio", wav(np.full(900, np.nan), subtype="FLOAT"), ValueError, "NaN"),
    ("audio", np.ones((20, 900)), ValueError, "(20, 900)"),
    ("audio", np.ones(300), ValueError, "0.05 s"),
    ("audio", wav(np.array([0.5])), ValueError, "0.05 s"),
    ("audio", np.zeros(8000), ValueError, "silence"),
    ("audio", np.full(8000, 128, np.uint8), ValueError, "silence"),
    ("audio", np.ones(900) * 1j, TypeError, "complex"),
    ("audio", (tone(), 999), ValueError, "rate"),
    ("audio", (tone(), "8000"), REFUSED, "rate"),
    ("audio", (8000, tone()), REFUSED, "rate"),
]


@pytest.mark.parametrize("modality, x, error, says", WRONG)
def test_refused_with_its_place(modality, x, error, says):
    f, name = PREPROCESS[modality], f"{modality}[1]"
    assert says in refused(f, [None, x], error=error, name=name)


@pytest.mark.parametrize("modality", PREPROCESS)
@pytest.mark.parametrize("x", ["digit", b"x", 5, None, np.float64(1), {"a": 1}, []])
def test_what_is_no_list_of_inputs(modality, x):
    error = ValueError if isinstance(x, list) else TypeError
    refused(PREPROCESS[modality], x, error=error, name=f"{modality}: ")


GOOD = {"text": "odd", "image": drawing(), "audio": tone()}


@pytest.mark.parametrize(
    "x, error",
    [
        (None, TypeError),
        ("text", TypeError),
        ({}, ValueError),
        ({"images": [drawing()]}, ValueError),
        ({"text": ["odd"], "image": [drawing()] * 2}, ValueError),
    ],
)
def test_what_is_no_data(x, error):
    refused(preprocess_data, x, error=error, name="data: ")


P = np.full((4, 10), 0.1)


@pytest.mark.parametrize(
    "x",
    [
        np.array([7, 1, 2, 3]),
        np.full((4, 10), 0.2),
        np.full((4, 10), np.nan),
        np.full((3, 10), 0.1),
        np.eye(10)[:4] - np.eye(10)[1:5] + 0.1,
    ],
)
def test_what_are_no_probabilities(x):
    three = dict(zip(MODALITIES, (x, P, P)))
    with pytest.raises(ValueError, match="expected"):
        fuse_product(three)
    with pytest.raises(ValueError, match="expected"):
        learn_weights(three, [1, 2, 3, 4])


# --- handled

SEVEN = preprocess_image([drawing()])[0]
TONE = preprocess_audio([tone()])[0]


def test_what_is_missing_is_zero_and_has_a_mask():
    gaps = {m: [None, x] for m, x in GOOD.items()}
    data = preprocess_data(gaps)
    assert data["text"] == [[], ["odd"]]
    for m in ("image", "audio"):
        assert not data[m][0].any() and data[m][1].any()
    assert all(data["mask"][m].tolist() == [False, True] for m in MODALITIES)
    alone = preprocess_data({"image": [drawing()]})
    assert [alone["mask"][m].tolist() for m in MODALITIES] == [[False], [True], [False]]


def colour():
    return drawing("RGB", ink=(10, 10, 90), paper=(250, 245, 240))


def on_nothing(ink):
    "A drawing in ink on a transparent ground."
    clear = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
    clear.paste((ink, ink, ink, 255), mask=Image.eval(drawing(), lambda v: 255 - v))
    return clear


PICTURES = {
    "file": PNG,
    "bytearray": bytearray(PNG),
    "colour": colour(),
    "JPEG": saved(colour(), "JPEG"),
    "palette": saved(colour().convert("P"), "GIF"),
    "CMYK": saved(colour().convert("CMYK"), "JPEG"),
    "black and white": drawing().convert("1"),
    "light on dark": Image.eval(drawing(), lambda v: 255 - v),
    "black on nothing": on_nothing(0),
    "white on nothing": on_nothing(255),
    "grey on nothing": on_nothing(0).convert("LA"),
    "16 bits": saved(Image.fromarray(np.asarray(drawing()).astype(np.uint16) * 257)),
    "floats": saved(drawing().convert("F"), "TIFF"),
    "tensor": torch.tensor(np.asarray(drawing()) / 255).half(),
    "bools": np.asarray(drawing()) > 127,
    "nested": (np.asarray(drawing()) / 255).tolist(),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_digit_in_any_form(name):
    seen = preprocess_image([PICTURES[name]])[0]
    assert np.corrcoef(seen.ravel(), SEVEN.ravel())[0, 1] > 0.97


SOUNDS = {
    "44 kHz": wav(tone(44100), 44100),
    "11,127 Hz": wav(tone(11127), 11127),
    "4 kHz": wav(tone(4000), 4000),
    "8 bits": wav(tone(), subtype="PCM_U8"),
    "24 bits": wav(tone(), subtype="PCM_24"),
    "floats": wav(tone(), subtype="FLOAT"),
    "µ-law": wav(tone(), subtype="ULAW"),
    "extensible": wav(tone(), format="WAVEX"),
    "stereo": wav(np.stack([tone(), tone()], 1)),
    "left only": wav(np.stack([tone(), 0 * tone()], 1)),
    "FLAC": FLAC,
    "Ogg": wav(tone(), format="OGG", subtype="VORBIS"),
    "offset": wav(tone() + 0.3, subtype="FLOAT"),
    "silence around": wav(np.concatenate([np.zeros(9000), tone(), np.zeros(5000)])),
    "loud": wav(tone() * 3, subtype="FLOAT"),
    "quiet": tone() * 1e-3,
    "pair": (tone(44100), 44100),
    "NumPy's rate": (tone(16000), np.int64(16000)),
    "stereo first": (np.stack([tone()] * 2), 8000),
    "int16": (tone() * 32767).astype(np.int16),
    "uint8": (tone() * 127 + 128).astype(np.uint8),
    "half": torch.tensor(tone()).half(),
    "nested": tone().tolist(),
}


def tuned(wave):
    "The strength of each frequency, as a vector of length one."
    size = abs(np.fft.rfft(wave))
    return size / np.linalg.norm(size)


@pytest.mark.parametrize("name", SOUNDS)
def test_a_tone_in_any_form(name):
    heard = preprocess_audio([SOUNDS[name]])[0]
    assert tuned(heard) @ tuned(TONE) > 0.94  # give or take a few samples of place


@pytest.mark.parametrize("modality", ["image", "audio"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_path(modality, kind, tmp_path):
    path, content = tmp_path / "a digit, é", {"image": PNG, "audio": FLAC}[modality]
    path.write_bytes(content)
    from_path, from_bytes = PREPROCESS[modality]([kind(path), content])
    assert np.array_equal(from_path, from_bytes)


# --- anything at all: a good result or a refusal, nothing else

some = settings(max_examples=150, deadline=None, database=None)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)
kinds = st.sampled_from([np.float32, np.uint8, np.int16, np.uint16, bool, np.complex64])
arrays = kinds.flatmap(lambda kind: hnp.arrays(kind, shapes))
shares = hnp.arrays(np.float32, shapes, elements=st.floats(0, 1, width=32))
stray = st.text(max_size=20) | st.binary(max_size=200) | st.none() | st.floats()


def tame(modality, x):
    try:
        return PREPROCESS[modality]([x])
    except REFUSED as error:
        assert str(error).startswith(f"{modality}[0]") and "\n" not in str(error)


@some
@given(stray | st.lists(st.text()))
def test_any_text(x):
    out = tame("text", x)
    if out is not None:
        assert all(out[0]) and (out[0] or x is None)


@some
@given(arrays | shares | stray)
def test_any_picture(x):
    out = tame("image", x)
    if out is not None:
        assert out.shape == (1, 28, 28) and np.isfinite(out).all()
        assert 0 <= out.min() <= out.max() <= 1


@some
@given(arrays | shares | stray | st.tuples(shares, st.integers(-5, 50_000)))
def test_any_sound(x):
    out = tame("audio", x)
    if out is not None:
        assert out.shape == (1, 8000) and np.isfinite(out).all()
        assert (out**2).mean() < 0.11**2


@some
@given(st.sampled_from([PNG, JPEG, FLAC, SOUNDS["8 bits"]]), st.data())
def test_damaged_files(file, data):
    file = bytearray(file)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(file) - 1))
        file[place] = data.draw(st.integers(0, 255))
    tame("image", bytes(file))
    tame("audio", bytes(file))
