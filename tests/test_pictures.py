"Any picture comes out in one form, whatever file, array or PIL image it came as."

import io

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import drawing, refused, saved
from mmcourse.pictures import LUMA, load_grey, load_image

rng = np.random.default_rng(0)
COLOURS = (rng.random((9, 13, 3)) * 255).astype(np.uint8)  # no two pixels alike
RGB, GREY = Image.fromarray(COLOURS), Image.fromarray(COLOURS[..., 0])
WIDE = COLOURS[..., 0].astype(np.uint16) * 257  # 16 bits
CLEAR = np.dstack([COLOURS, np.full((9, 13), 255, np.uint8)])

# --- forms

COLOUR_FORMS = {
    "picture": RGB,
    "png": saved(RGB),
    "bytearray": bytearray(saved(RGB)),
    "bmp": saved(RGB, "BMP"),
    "tiff": saved(RGB, "TIFF"),
    "webp": saved(RGB, "WEBP", lossless=True),
    "rgba": Image.fromarray(CLEAR),
    "rgba file": saved(Image.fromarray(CLEAR)),
    "cmyk": RGB.convert("CMYK"),
    "cmyk file": saved(RGB.convert("CMYK"), "TIFF"),
    "channels last": COLOURS,
    "channels first": np.moveaxis(COLOURS, 2, 0),
    "four channels": CLEAR,
    "ints": COLOURS.astype(np.int64),
    "uint16": COLOURS.astype(np.uint16) * 257,
    "floats": COLOURS / 255,
    "other byte order": (COLOURS / 255).astype(">f4"),
    "tensor": torch.tensor(COLOURS),
    "gradient": torch.tensor(COLOURS / 255, requires_grad=True),
    "nested": (COLOURS / 255).tolist(),
}


@pytest.mark.parametrize("form", COLOUR_FORMS)
def test_colour_in_any_form(form, tmp_path):
    x = COLOUR_FORMS[form]
    y = load_image(x)
    assert y.dtype == np.float32 and np.allclose(y, COLOURS / 255, atol=1e-6)
    assert np.allclose(load_grey(x), COLOURS / 255 @ LUMA, atol=1e-6)
    if isinstance(x, bytes):
        path = tmp_path / "picture"
        path.write_bytes(x)
        for p in (path, str(path)):
            assert np.array_equal(load_image(p), y)


GREY_FORMS = {
    "picture": GREY,
    "file": saved(GREY),
    "array": COLOURS[..., 0],
    "one channel last": COLOURS[..., :1],
    "one channel first": COLOURS[None, ..., 0],
    "with alpha": GREY.convert("LA"),
    "16 bits": Image.fromarray(WIDE),
    "16 bits, file": saved(Image.fromarray(WIDE)),
    "16 bits, dark": Image.fromarray(WIDE // 255 * 255),
    "32 bits": GREY.convert("I"),
    "floats to 255": GREY.convert("F"),
    "floats to 1": Image.fromarray((COLOURS[..., 0] / 255).astype(np.float32)),
    "float file": saved(GREY.convert("F"), "TIFF"),
    "bfloat": torch.tensor(COLOURS[..., 0] / 255).bfloat16(),
}


@pytest.mark.parametrize("form", GREY_FORMS)
def test_grey_in_any_form(form):
    close = 0.004 if form in ("bfloat", "16 bits, dark") else 1e-6
    y = load_grey(GREY_FORMS[form])
    assert y.shape == (9, 13) and abs(y - COLOURS[..., 0] / 255).max() < close
    assert np.allclose(load_image(GREY_FORMS[form]), y[..., None], atol=1e-6)


@pytest.mark.parametrize(
    "mode, values, wanted",
    [
        ("I;16", [0, 1, 255], np.array([0, 1, 255]) / 65535),
        ("I", [0, 256, 65535], np.array([0, 256, 65535]) / 65535),
        ("I", [0, 2, 255], np.array([0, 2, 255]) / 255),
        ("F", [0, 0.5, 1], [0, 0.5, 1]),
        ("F", [-0.5, 0.5, 1], [0, 0.5, 1]),
        ("F", [0, 2, 255], np.array([0, 2, 255]) / 255),
        ("F", [0, 300, 7e4], [0, 300 / 65535, 1]),
    ],
)
def test_how_far_deep_pictures_reach(mode, values, wanted):
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    picture = Image.fromarray(np.array([values], kind))
    assert picture.mode == mode and np.allclose(load_grey(picture), [wanted])


def test_palette_and_black_and_white():
    palette = Image.fromarray(COLOURS // 128 * 255).quantize(8)
    wanted = np.asarray(palette.convert("RGB")) / 255
    for form in (palette, saved(palette, "GIF"), saved(palette)):
        assert np.allclose(load_image(form), wanted, atol=1e-6)
    bits = GREY.convert("1")
    for form in (bits, saved(bits), np.asarray(bits)):
        assert np.array_equal(load_grey(form), np.asarray(bits))


def test_luma():
    assert abs(LUMA.sum() - 1) < 1e-12
    assert load_grey(np.eye(3)[None]).round(3).tolist() == [[0.299, 0.587, 0.114]]


def test_what_was_given_stays_as_it_was():
    x, before = COLOURS / 255, COLOURS / 255
    load_image(x)[:] = 0
    load_grey(x)[:] = 0
    load_grey(x[..., 0])[:] = 0
    assert np.array_equal(x, before)
    opened = Image.open(io.BytesIO(saved(RGB)))
    load_image(opened)
    assert opened.getpixel((0, 0)) == tuple(COLOURS[0, 0])  # still open


# --- transparency


def test_transparent_is_white_paper():
    x = CLEAR.copy()
    x[:4, :, 3] = 0
    for form in (x, Image.fromarray(x), saved(Image.fromarray(x))):
        assert np.allclose(load_image(form)[:4], 1)
        assert np.allclose(load_grey(form)[:4], 1)
        assert np.allclose(load_image(form)[4:], COLOURS[4:] / 255, atol=1e-6)
    half = np.zeros((2, 2, 4))
    half[..., 3] = [[0, 0.5], [1, 1]]
    assert np.allclose(load_grey(half), [[1, 0.5], [0, 0]])


def test_white_ink_on_nothing_keeps_its_shape():
    white = np.full((9, 13, 4), 255, np.uint8)
    white[..., 3] = COLOURS[..., 0]
    assert np.allclose(load_grey(white), 1 - COLOURS[..., 0] / 255)
    assert np.allclose(load_image(white), 1 - COLOURS[..., :1] / 255)


def test_a_clear_colour_counts_at_any_depth():
    "A PNG names one value that stands for transparent: in 8 bits and in 16."
    small = np.array([[0, 50], [100, 200]], np.uint8)
    wide = small.astype(np.uint16) * 257
    for a, clear in ((small, 50), (wide, 50 * 257)):
        file = saved(Image.fromarray(a), transparency=clear)
        assert np.allclose(load_grey(file), [[0, 1], [100 / 255, 200 / 255]])
        assert load_image(file).shape == (2, 2, 3)


# --- a camera's notes

TURN = Image.Transpose
STORED = [None, TURN.FLIP_LEFT_RIGHT, TURN.ROTATE_180, TURN.FLIP_TOP_BOTTOM]
STORED += [TURN.TRANSPOSE, TURN.ROTATE_90, TURN.TRANSVERSE, TURN.ROTATE_270]


@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_orientation(tag):
    "Four turns, and each of them mirrored, in 8 bits and in 16."
    exif, how = Image.Exif(), STORED[tag - 1]
    exif[0x0112] = tag
    for picture in (RGB, Image.fromarray(WIDE)):
        turned = picture if how is None else picture.transpose(how)
        assert np.array_equal(load_image(saved(turned, exif=exif)), load_image(picture))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
@pytest.mark.parametrize("notes", [b"no notes", b"MM\0*\0\0\0\x08\xff\xff garbage"])
def test_damaged_notes_do_not_cost_the_picture(format, notes):
    file = saved(RGB, format, exif=b"Exif\0\0" + notes, lossless=True)
    assert np.allclose(load_image(file), COLOURS / 255, atol=1e-6)


# --- refusals

PNG, JPEG = saved(drawing()), saved(drawing("RGB", ink=(9, 9, 9)), "JPEG")
DAMAGED = bytearray(PNG)
DAMAGED[40:60] = bytes(20)


@pytest.mark.parametrize("load", [load_image, load_grey])
@pytest.mark.parametrize(
    "x, says",
    [
        (b"not a picture", "no format that Pillow knows"),
        (PNG[:60], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (DAMAGED, "cannot be read as one ("),
        (Image.open(io.BytesIO(JPEG[:-99])), "truncated"),
        (np.full((9, 9), np.nan), "NaN"),
        (Image.fromarray(np.full((5, 5), np.nan, np.float32)), "NaN"),
        (np.zeros((2, 9, 9)), "first or last, got (2, 9, 9)"),
        (np.zeros(9), "got (9,)"),
        (np.zeros((1, 9, 9, 3)), "got (1, 9, 9, 3)"),
        (np.eye(9) * 300, "float64 from 0 to 1, got 0 to 300"),
        (np.eye(9) * -0.1, "got -0.1 to"),
        (np.eye(9, dtype=int) * 256, "int64 from 0 to 255, got 0 to 256"),
    ],
)
def test_what_is_no_picture_is_refused(load, x, says):
    assert says in refused(load, x, "photo", error=ValueError, name="photo: ")


def test_the_ends_of_each_range_are_in_it():
    for top, kind in ((1, float), (255, np.uint8), (65535, np.uint16), (255, int)):
        assert load_grey(np.array([[0, top]], kind)).tolist() == [[0, 1]]
    assert load_grey(np.array([[-1e-7, 1 + 1e-7]])).tolist() == [[0, 1]]


def test_no_file():
    refused(load_image, "no.png", "photo", error=FileNotFoundError, name="photo: ")


def test_a_decompression_bomb(monkeypatch):
    "The drawing has 19,200 pixels. Over the limit once, Pillow alone would only warn."
    for limit in (5000, 12000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        message = refused(load_image, PNG, error=ValueError, name="image: ")
        assert "19200 pixels" in message and "exceeds limit" in message
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20000)
    assert load_image(PNG).shape == (160, 120, 3)
