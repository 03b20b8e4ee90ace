"""What a learner's own files and slips do to the project's entry points: handled as one would expect, or refused by name."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from mmcourse.audio import log_mel, preprocess_audio
from mmcourse.datasets import MODALITIES
from mmcourse.decision_fusion import fuse_product, learn_weights
from mmcourse.image import preprocess_image
from mmcourse.pipeline import preprocess_data
from mmcourse.project import fuse_predictions
from mmcourse.text import preprocess_text

rng = np.random.default_rng(0)
REFUSED = ValueError, TypeError, FileNotFoundError


def refused(function, *args, error=REFUSED, name, **kwargs):
    "The message; it must begin with the argument's name and be one line."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message.startswith(name), message
    assert (
        "\n" not in message
        and re.search("expected|found none", message)
        and "got" in message
        or "found none" in message
    ), message
    return message


# ------------------------------------------------------------------------------------------------------------------------------------ text
def test_text_is_lower_case_words():
    assert preprocess_text(["Below FIVE, odd."]) == [["below", "five", ",", "odd", "."]]


def test_text_missing():
    assert preprocess_text([None, "odd"]) == [[], ["odd"]]


def test_text_chinese_is_split():
    assert preprocess_text(["大于五的偶数"]) == [list("大于五的偶数")]


def test_text_full_width():
    assert preprocess_text(["ＯＤＤ"]) == [["odd"]]


def test_text_emoji():
    assert preprocess_text(["odd 🎲 5️⃣"]) == [["odd", "🎲", "5️⃣"]]


def test_text_numpy_strings():
    assert preprocess_text(np.array(["odd", "even"])) == [["odd"], ["even"]]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_text_blank(text):
    assert "None" in refused(preprocess_text, [text], error=ValueError, name="text[0]")


def test_text_bytes():
    assert "decode" in refused(
        preprocess_text, ["odd", b"odd"], error=TypeError, name="text[1]"
    )


@pytest.mark.parametrize("x", [3, 1.5, float("nan"), ["odd"], {"odd"}, object()])
def test_text_of_another_type(x):
    refused(preprocess_text, [x], error=TypeError, name="text[0]")


@pytest.mark.parametrize("x", ["odd", b"odd", 3, None, {"text": "odd"}, np.float64(3)])
def test_text_not_a_list(x):
    refused(preprocess_text, x, error=TypeError, name="text")


def test_text_empty_list():
    refused(preprocess_text, [], error=ValueError, name="text")


# ----------------------------------------------------------------------------------------------------------------------------------- image
def drawing(mode="L", size=(120, 160), ink=0, paper=255):
    "A seven, dark on light."
    picture = Image.new(mode, size, paper)
    ImageDraw.Draw(picture).line([(30, 35), (90, 35), (55, 130)], fill=ink, width=9)
    return picture


SEVEN = preprocess_image([drawing()])[0]


def saved(picture, format="PNG", **options):
    picture.save(buffer := io.BytesIO(), format, **options)
    return buffer.getvalue()


def close(a, b=SEVEN):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97


def test_image_is_as_mnist():
    assert (
        SEVEN.shape == (28, 28)
        and SEVEN.dtype == np.float32
        and SEVEN.min() == 0
        and SEVEN.max() == 1
    )
    assert not SEVEN[:3].any() and not SEVEN[:, :3].any()
    i, j = np.indices((28, 28)).reshape(2, -1) @ SEVEN.ravel() / SEVEN.sum()
    assert abs(i - 13.5) < 1.01 and abs(j - 13.5) < 1.01


def variants():
    grey, rgb = drawing(), drawing("RGB", ink=(10, 10, 90), paper=(250, 245, 240))
    clear = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), mask=Image.eval(grey, lambda v: 255 - v))
    white_on_clear = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
    white_on_clear.paste((255, 255, 255, 255), mask=Image.eval(grey, lambda v: 255 - v))
    sixteen = Image.fromarray((np.asarray(grey) / 255 * 65535).astype(np.uint16))
    return {
        "grey": grey,
        "light_on_dark": Image.eval(grey, lambda v: 255 - v),
        "rgb": rgb,
        "rgba": clear,
        "white_on_clear": white_on_clear,
        "grey_alpha": clear.convert("LA"),
        "palette": rgb.convert("P"),
        "clear_palette": clear.quantize(),
        "cmyk": rgb.convert("CMYK"),
        "bilevel": grey.convert("1"),
        "ycbcr": rgb.convert("YCbCr"),
        "hsv": rgb.convert("HSV"),
        "sixteen": sixteen,
        "thirty_two": grey.convert("I"),
        "floats": grey.convert("F"),
    }


@pytest.mark.parametrize("name", variants())
def test_image_of_any_mode(name):
    assert close(preprocess_image([variants()[name]])[0])


FILES = {
    "png": saved(drawing()),
    "rgba_png": saved(variants()["rgba"]),
    "jpeg": saved(
        drawing("RGB", (10, 10, 10), (255, 255, 255)) if False else variants()["rgb"],
        "JPEG",
    ),
    "cmyk_jpeg": saved(variants()["cmyk"], "JPEG"),
    "sixteen_png": saved(variants()["sixteen"]),
    "gif": saved(variants()["palette"], "GIF"),
    "bmp": saved(variants()["rgb"], "BMP"),
    "tiff": saved(variants()["sixteen"], "TIFF"),
    "float_tiff": saved(variants()["floats"], "TIFF"),
    "webp": saved(variants()["rgb"], "WEBP"),
}


@pytest.mark.parametrize("name", FILES)
def test_image_file(name, tmp_path):
    (path := tmp_path / "digit").write_bytes(FILES[name])
    for source in (FILES[name], bytearray(FILES[name]), path, str(path)):
        assert close(preprocess_image([source])[0]), type(source)


def test_image_turned_by_exif():
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn a quarter clockwise to look at it"
    assert close(
        preprocess_image(
            [saved(drawing().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)]
        )[0]
    )


ARRAYS = {
    "uint8": (255 * (1 - np.asarray(drawing()) / 255)).astype(np.uint8),
    "ints": np.asarray(drawing()).astype(np.int64),
    "floats": np.asarray(drawing()) / 255,
    "bools": np.asarray(drawing()) > 127,
    "uint16": np.asarray(drawing()).astype(np.uint16) * 257,
    "hwc": np.asarray(variants()["rgb"]),
    "chw": np.moveaxis(np.asarray(variants()["rgb"]), 2, 0),
    "rgba": np.asarray(variants()["rgba"]),
    "one_channel": np.asarray(drawing())[None],
    "tensor": torch.tensor(np.asarray(drawing()) / 255),
    "half": torch.tensor(np.asarray(drawing()) / 255).half(),
    "bfloat": torch.tensor(np.asarray(drawing()) / 255).bfloat16(),
    "gradient": torch.tensor(np.asarray(drawing()) / 255, requires_grad=True),
    "nested": (np.asarray(drawing()) / 255).tolist(),
    "big_endian": (np.asarray(drawing()) / 255).astype(">f4"),
    "fortran": np.asfortranarray(np.asarray(drawing())),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_image_array(name):
    assert close(preprocess_image([ARRAYS[name]])[0])


def test_image_of_the_models_own_format_stays():
    x = rng.random((28, 28), np.float32) * 0.4
    x[10:18, 10:18] = 1
    assert np.allclose(preprocess_image([x])[0], x) and np.allclose(
        preprocess_image([1 - x])[0], x, atol=1e-6
    )


def test_image_missing():
    assert not preprocess_image([None, drawing()])[0].any()


@pytest.mark.parametrize("side", [(1, 1), (1, 50), (50, 1), (3, 3), (200, 2)])
def test_image_tiny(side):  # nothing can be drawn on one pixel; on a few, something may
    flat = np.full(side, 0.5)
    assert "alike" in refused(
        preprocess_image, [flat], error=ValueError, name="image[0]"
    )
    if max(side) > 1:
        flat[0, 0] = 1
        assert np.isfinite(preprocess_image([flat])[0]).all()


def test_image_one_pixel_file():
    refused(
        preprocess_image,
        [saved(Image.new("RGB", (1, 1)))],
        error=ValueError,
        name="image[0]",
    )


def test_image_blank_page():
    refused(
        preprocess_image,
        [drawing(), Image.new("L", (99, 80), 255)],
        error=ValueError,
        name="image[1]",
    )


@pytest.mark.parametrize(
    "x",
    [
        b"",
        b"not a picture",
        FILES["png"][:60],
        FILES["jpeg"][: len(FILES["jpeg"]) // 2],
        b"\x89PNG\r\n\x1a\n",
        soundfile.__name__.encode(),
    ],
)
def test_image_that_is_not_one(x):
    refused(preprocess_image, [x], error=ValueError, name="image[0]")


def test_image_damaged():
    bad = bytearray(FILES["png"])
    bad[40:60] = bytes(20)
    refused(preprocess_image, [bad], error=ValueError, name="image[0]")


def test_image_bomb():
    big = saved(Image.new("1", (12000, 12000)))
    assert "Bomb" in refused(preprocess_image, [big], error=ValueError, name="image[0]")


@pytest.mark.parametrize(
    "path", ["nowhere.png", Path("nowhere.png"), "", ".", "a\0b", "x" * 5000]
)
def test_image_no_file(path):
    refused(preprocess_image, [path], error=FileNotFoundError, name="image[0]")


@pytest.mark.parametrize(
    "x, what",
    [
        (np.zeros((0, 5)), "empty"),
        (np.zeros((5, 0, 3)), "empty"),
        ([], "empty"),
        (np.full((9, 9), np.nan), "NaN"),
        (np.full((9, 9), np.inf), "infinite"),
        (np.zeros(9), "(9,)"),
        (np.float64(3), "H, W"),
        (np.zeros((2, 9, 9)), "(2, 9, 9)"),
        (np.zeros((9, 9, 5)), "(9, 9, 5)"),
        (np.zeros((1, 9, 9, 3)), "(1, 9, 9, 3)"),
        (np.eye(9) * 300, "300"),
        (-np.eye(9), "-1"),
        (np.eye(9, dtype=int) * 256, "256"),
    ],
)
def test_image_array_of_wrong_values(x, what):
    assert what in refused(preprocess_image, [x], error=ValueError, name="image[0]")


@pytest.mark.parametrize(
    "x",
    [np.eye(9) * 1j, np.full((9, 9), "a"), np.full((9, 9), None), {"a": 1}, object()],
)
def test_image_array_of_wrong_type(x):
    refused(preprocess_image, [x], error=TypeError, name="image[0]")


def test_image_ragged():
    refused(preprocess_image, [[[1, 0], [1]]], error=ValueError, name="image[0]")


@pytest.mark.parametrize("x", [drawing(), "digit.png", b"x", 5, None, np.float64(1)])
def test_image_not_a_list(x):
    refused(preprocess_image, x, error=TypeError, name="image")


# ------------------------------------------------------------------------------------------------------------------------------------ audio
def tone(sr=8000, seconds=0.5, hz=440.0):
    return (
        0.3
        * np.sin(2 * np.pi * hz * np.arange(int(sr * seconds)) / sr)
        * np.hanning(int(sr * seconds))
    )


TONE = preprocess_audio([tone()])[0]


def wav(x, sr=8000, **options):
    soundfile.write(
        buffer := io.BytesIO(),
        x,
        sr,
        **({"format": "WAV", "subtype": "PCM_16"} | options),
    )
    return buffer.getvalue()


def same(a, b=TONE, atol=0.06):  # the same sound, give or take a few samples of place
    spectrum = lambda x: np.abs(np.fft.rfft(x)) / np.linalg.norm(np.fft.rfft(x))
    return np.dot(spectrum(a), spectrum(b)) > 1 - atol


def test_audio_is_one_level():
    assert TONE.shape == (8000,) and TONE.dtype == np.float32
    assert same(TONE, preprocess_audio([tone() * 1e-3])[0]) and np.allclose(
        TONE, preprocess_audio([tone() * 1e-3])[0], atol=1e-5
    )
    sound = TONE[np.flatnonzero(TONE)[0] : np.flatnonzero(TONE)[-1] + 1]
    assert abs(np.sqrt(np.mean(sound**2)) - 0.1) < 0.002


SOUNDS = {
    "rate_44k": wav(tone(44100), 44100),
    "rate_48k": wav(tone(48000), 48000),
    "rate_11k": wav(tone(11127), 11127),
    "rate_4k": wav(tone(4000), 4000),
    "eight_bit": wav(tone(), subtype="PCM_U8"),
    "bits_24": wav(tone(), subtype="PCM_24"),
    "floats": wav(tone(), subtype="FLOAT"),
    "mu_law": wav(tone(), subtype="ULAW"),
    "stereo": wav(np.stack([tone(), tone()], 1)),
    "six_channels": wav(np.stack([tone()] * 6, 1)),
    "left_only": wav(np.stack([tone(), 0 * tone()], 1)),
    "flac": wav(tone(), format="FLAC"),
    "ogg": wav(tone(), format="OGG", subtype="VORBIS"),
    "offset": wav(tone() + 0.3, subtype="FLOAT"),
    "silence_around": wav(np.concatenate([np.zeros(9000), tone(), np.zeros(5000)])),
    "loud": wav(tone() * 3, subtype="FLOAT"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_audio_file(name, tmp_path):
    (path := tmp_path / "digit").write_bytes(SOUNDS[name])
    for source in (SOUNDS[name], path, str(path)):
        assert same(preprocess_audio([source])[0])


PAIRS = {
    "pair": (tone(44100), 44100),
    "float_rate": (tone(16000), 16000.0),
    "numpy_rate": (tone(16000), np.int64(16000)),
    "stereo_last": (np.stack([tone()] * 2, 1), 8000),
    "stereo_first": (np.stack([tone()] * 2), 8000),
    "wave": tone(),
    "int16": (tone() * 32767).astype(np.int16),
    "uint8": (tone() * 127 + 128).astype(np.uint8),
    "int32": (tone() * 2**31).astype(np.int32),
    "tensor": torch.tensor(tone()),
    "nested": tone().tolist(),
    "half": torch.tensor(tone()).half(),
}


@pytest.mark.parametrize("name", PAIRS)
def test_audio_array(name):
    assert same(preprocess_audio([PAIRS[name]])[0])


def test_audio_long_keeps_the_loudest_second():
    long = np.concatenate(
        [tone(hz=300.0, seconds=4) * 0.1, tone() * 3, tone(hz=300.0, seconds=4) * 0.1]
    )
    assert same(preprocess_audio([long])[0], atol=0.15)


def test_audio_missing():
    assert not preprocess_audio([None, tone()])[0].any()


@pytest.mark.parametrize(
    "x",
    [
        np.array([0.5]),
        np.zeros(1),
        wav(np.array([0.5])),
        np.ones(300),
        (tone(44100)[:1000], 44100),
    ],
)
def test_audio_one_sample_and_other_short_ones(x):
    assert "0.05 s" in refused(preprocess_audio, [x], error=ValueError, name="audio[0]")


@pytest.mark.parametrize(
    "x",
    [np.zeros(8000), np.ones(8000), wav(np.zeros(8000)), np.full(8000, 128, np.uint8)],
)
def test_audio_silent(x):
    assert "silence" in refused(
        preprocess_audio, [x], error=ValueError, name="audio[0]"
    )


@pytest.mark.parametrize(
    "x, what",
    [
        (np.zeros(0), "at least one value"),
        ([], "at least one value"),
        (wav(np.zeros(0)), "at least one value"),
        (np.full(900, np.nan), "NaN"),
        (np.full(900, np.inf), "infinite"),
        (wav(np.full(900, np.nan), subtype="FLOAT"), "NaN"),
        (np.float64(0.5), "channels"),
        (np.zeros((2, 2, 900)), "(2, 2, 900)"),
        (np.ones((20, 900)), "(20, 900)"),
    ],
)
def test_audio_of_wrong_values(x, what):
    assert what in refused(preprocess_audio, [x], error=ValueError, name="audio[0]")


@pytest.mark.parametrize("sr", [0, -8000, 999, 1e9, 8000.5, float("nan"), None, "8000"])
def test_audio_rate(sr):
    assert "rate" in refused(preprocess_audio, [(tone(), sr)], name="audio[0] rate: ")


def test_audio_pair_the_wrong_way_round():
    refused(preprocess_audio, [(8000, tone())], name="audio[0]")


@pytest.mark.parametrize(
    "x",
    [tone() * 1j, np.array(["a"] * 900), np.array([None] * 900), {"a": 1}, object()],
)
def test_audio_of_wrong_type(x):
    refused(preprocess_audio, [x], error=TypeError, name="audio[0]")


@pytest.mark.parametrize(
    "x",
    [b"", b"not a sound", SOUNDS["flac"][:30], FILES["png"], b"RIFF\0\0\0\0WAVEfmt "],
)
def test_audio_that_is_not_one(x):
    refused(preprocess_audio, [x], error=ValueError, name="audio[0]")


@pytest.mark.parametrize("path", ["nowhere.wav", Path("nowhere.wav"), "", ".", "a\0b"])
def test_audio_no_file(path):
    refused(preprocess_audio, [path], error=FileNotFoundError, name="audio[0]")


@pytest.mark.parametrize("x", ["digit.wav", b"x", 5, None])
def test_audio_not_a_list(x):
    refused(preprocess_audio, x, error=TypeError, name="audio")


# ---------------------------------------------------------------------------------------------------------------------------------- log_mel
def test_log_mel_equals_librosa():
    import librosa

    waves = rng.normal(0, 0.1, (3, 5000))
    waves[1, 2000:] = 0
    waves[2] *= 1e-4
    for dtype in (np.float64, np.float32):
        for n_mels, n_fft, hop in ((40, 256, 80), (32, 256, 128), (20, 512, 160)):
            ours = log_mel(waves.astype(dtype), n_mels=n_mels, n_fft=n_fft, hop=hop)
            theirs = [
                librosa.power_to_db(
                    librosa.feature.melspectrogram(
                        y=w.astype(dtype),
                        sr=8000,
                        n_mels=n_mels,
                        n_fft=n_fft,
                        hop_length=hop,
                    )
                )
                for w in waves
            ]
            assert (
                ours.shape == (3, n_mels, 1 + 5000 // hop)
                and abs(ours.numpy() - np.stack(theirs)).max() < 1e-3
            )


def test_log_mel_of_one_sample():
    assert log_mel(np.array([0.5])).shape == (40, 1)


def test_log_mel_of_one_wave():
    assert torch.equal(log_mel(tone()), log_mel(tone()[None])[0])


def test_log_mel_of_silence():
    assert (log_mel(np.zeros((1, 900))) == -100).all()


# ------------------------------------------------------------------------------------------------------------------------- all three at once
def test_data_missing_modality():
    data = preprocess_data({"image": [drawing(), None]})
    assert {m: v.tolist() for m, v in data["mask"].items()} == {
        "text": [False, False],
        "image": [True, False],
        "audio": [False, False],
    }
    assert (
        data["text"] == [[], []]
        and data["audio"].shape == (2, 8000)
        and not data["image"][1].any()
    )


def test_data_from_three_views_with_gaps():
    raw = {
        "text": ["odd", ""],
        "image": np.stack([SEVEN, 0 * SEVEN]),
        "audio": np.stack([tone(), 0 * tone()]),
        "length": [4000, 0],
        "label": [7, 7],
        "voice": ["a", "b"],
        "present": np.array([[1, 1, 1], [0, 0, 0]], bool),
    }
    data = preprocess_data(raw)
    assert all(data["mask"][m].tolist() == [True, False] for m in MODALITIES)


def test_data_normalised_with_training_numbers_alone():
    train = preprocess_data({"image": [drawing(), drawing(ink=90)]})
    other = preprocess_data({"image": [drawing(ink=60)]}, train["stats"])
    assert (
        abs(train["image"].mean()) < 1e-5
        and abs(train["image"].std() - 1) < 1e-5
        and other["stats"] == train["stats"]
    )
    mean, std = train["stats"]["image"]
    assert np.allclose(
        other["image"] * std + mean, preprocess_image([drawing(ink=60)]), atol=1e-5
    )


@pytest.mark.parametrize("x", [None, [], "text", 5])
def test_data_not_a_dict(x):
    refused(preprocess_data, x, error=TypeError, name="data")


@pytest.mark.parametrize(
    "x",
    [
        {},
        {"text": None},
        {"images": [drawing()]},
        {"text": ["odd"], "image": [drawing()] * 2},
    ],
)
def test_data_wrong_keys_or_lengths(x):
    refused(preprocess_data, x, error=ValueError, name="data")


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
def test_fusion_of_what_are_no_probabilities(x):
    three = dict(zip(MODALITIES, (x, P, P)))
    with pytest.raises(ValueError, match="expected"):
        fuse_predictions(x, P, P)
    with pytest.raises(ValueError, match="expected"):
        fuse_product(three)
    with pytest.raises(ValueError, match="expected"):
        learn_weights(three, [1, 2, 3, 4])


@pytest.mark.parametrize(
    "weights", [(0.5, 0.5), (0, 0, 0), (-1, 1, 1), (np.nan, 1, 1), "abc"]
)
def test_fusion_weights(weights):
    refused(
        fuse_predictions,
        P,
        P,
        P,
        weights,
        error=TypeError if isinstance(weights, str) else ValueError,
        name="weights",
    )


def test_fusion_of_nothing():
    refused(fuse_predictions, None, None, None, error=ValueError, name="probs")


def test_fusion_leaves_out_what_is_missing():
    a, b = np.eye(10)[[1, 2]], np.eye(10)[[3, 4]]
    fused = fuse_predictions(a, b, None, mask={"image": np.array([True, False])})
    assert np.allclose(fused[0, [1, 3]], [0.375, 0.625]) and np.allclose(fused[1], a[1])
    gone = {"text": [False] * 2, "image": [False] * 2}
    assert np.allclose(fuse_predictions(a, b, None, mask=gone), 0.1) and np.allclose(
        fuse_product(
            {"text": a, "image": b}, mask={m: np.array(k) for m, k in gone.items()}
        ),
        0.1,
    )


# ---------------------------------------------------------------------------------------------------------------------------------- fuzzing
def tame(function, x, name):
    "Either a good result or a refusal that names the argument; nothing else."
    try:
        return function([x])
    except REFUSED as e:
        assert str(e).startswith(name) and "\n" not in str(e), str(e)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary() | st.none() | st.floats() | st.lists(st.text()))
def test_fuzz_text(x):
    out = tame(preprocess_text, x, "text[0]")
    assert out is None or (
        all(isinstance(w, str) and w for w in out[0]) and (out[0] or x is None)
    )


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)
values = st.one_of(
    [
        hnp.arrays(t, shapes)
        for t in (
            np.float32,
            np.float64,
            np.uint8,
            np.int16,
            np.uint16,
            np.int64,
            bool,
            np.complex64,
        )
    ]
    + [hnp.arrays(np.float32, shapes, elements=st.floats(0, 1, width=32))]
)


@settings(max_examples=300, deadline=None)
@given(values | st.binary(max_size=200) | st.text(max_size=20))
def test_fuzz_image(x):
    out = tame(preprocess_image, x, "image[0]")
    assert out is None or (
        out.shape == (1, 28, 28)
        and np.isfinite(out).all()
        and 0 <= out.min() <= out.max() <= 1
    )


@settings(max_examples=300, deadline=None)
@given(
    values
    | st.tuples(
        hnp.arrays(
            np.float32, st.integers(0, 3000), elements=st.floats(-1, 1, width=32)
        ),
        st.integers(-5, 50_000),
    )
    | st.binary(max_size=200)
)
def test_fuzz_audio(x):
    out = tame(preprocess_audio, x, "audio[0]")
    assert out is None or (
        out.shape == (1, 8000)
        and np.isfinite(out).all()
        and np.sqrt((out**2).sum() / 8000) < 0.11
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_fuzz_damaged_files(data):
    source = bytearray(
        data.draw(
            st.sampled_from(
                [
                    FILES["png"],
                    FILES["jpeg"],
                    FILES["gif"],
                    SOUNDS["eight_bit"],
                    SOUNDS["flac"],
                ]
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 8))):
        source[data.draw(st.integers(0, len(source) - 1))] = data.draw(
            st.integers(0, 255)
        )
    tame(preprocess_image, bytes(source), "image[0]")
    tame(preprocess_audio, bytes(source), "audio[0]")


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float64, (3, 5, 10), elements=st.floats(1e-6, 1)),
    hnp.arrays(bool, (3, 5)),
    hnp.arrays(np.float64, 3, elements=st.floats(0.01, 1)),
)
def test_fuzz_fusion_gives_probabilities(p, here, weights):
    p, mask = p / p.sum(2, keepdims=True), dict(zip(MODALITIES, here))
    for fused in (
        fuse_predictions(*p, weights, mask),
        fuse_product(dict(zip(MODALITIES, p)), mask=mask),
    ):
        assert np.allclose(fused.sum(1), 1) and fused.min() >= 0
        assert np.allclose(fused[~here.any(0)], 0.1)
        alone = here.sum(0) == 1
        assert np.allclose(
            fused[alone], p[here.argmax(0), np.arange(5)][alone], atol=1e-6
        )
