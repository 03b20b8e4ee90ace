"""What chapter 03 cannot test about itself: parity with Pillow, SciPy, torch and NumPy over random shapes, laws, bad input, fuzzing."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage

from mmcourse.image import (
    LUMA,
    about_middle,
    as_mnist,
    augment_image,
    blurred,
    centre_crop,
    channel_stats,
    cover,
    dimmed,
    equalise,
    erased,
    flipped,
    histogram,
    levels,
    load_grey,
    load_image,
    moved,
    noisy,
    preprocess_image,
    resize,
    resize_batch,
    sheared,
    sized,
    standardise,
    turned,
    warp,
    weights,
)

REFUSED = ValueError, TypeError, FileNotFoundError
AUGMENT = (
    turned,
    sized,
    sheared,
    moved,
    augment_image,
    flipped,
    noisy,
    dimmed,
    blurred,
    erased,
)
many = settings(
    max_examples=2000,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
some = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
rng = np.random.default_rng(0)


def refused(function, *args, error=REFUSED, name, **kwargs):
    "The message; it must begin with the argument's name, say what was expected and what came, and be one line."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message.startswith(name) and "\n" not in message, message
    assert re.search(r"expected .+, (got|found none)", message), message
    return message


def tame(function, *args, name, **kwargs):
    "A result, or a refusal that names the argument; nothing else."
    try:
        return function(*args, **kwargs)
    except REFUSED as e:
        assert (
            str(e).startswith(name) and "\n" not in str(e) and "expected" in str(e)
        ), f"{type(e).__name__}: {e}"


def saved(picture, format="PNG", **options):
    picture.save(buffer := io.BytesIO(), format, **options)
    return buffer.getvalue()


def drawing(mode="L", size=(120, 160), ink=0, paper=255):
    "A seven, dark on light."
    picture = Image.new(mode, size, paper)
    ImageDraw.Draw(picture).line([(30, 35), (90, 35), (55, 130)], fill=ink, width=9)
    return picture


COLOURS = (rng.random((9, 13, 3)) * 255).astype(
    np.uint8
)  # not square, no two pixels alike
RGB, SEVEN = Image.fromarray(COLOURS), preprocess_image([drawing()])[0]
GREY = Image.fromarray(COLOURS[..., 0])

# --------------------------------------------------------------------------------------------------------------------------- one form
CLEAR = np.dstack([COLOURS, np.full((9, 13), 255, np.uint8)])


def palette():
    return Image.fromarray(COLOURS // 128 * 255).quantize(8)


COLOUR_FORMS = {
    "picture": RGB,
    "png": saved(RGB),
    "bytearray": bytearray(saved(RGB)),
    "bmp": saved(RGB, "BMP"),
    "tiff": saved(RGB, "TIFF"),
    "webp": saved(RGB, "WEBP", lossless=True),
    "rgba": Image.fromarray(CLEAR),
    "rgba_png": saved(Image.fromarray(CLEAR)),
    "hwc": COLOURS,
    "chw": np.moveaxis(COLOURS, 2, 0),
    "rgba_array": CLEAR,
    "ints": COLOURS.astype(np.int64),
    "uint16": COLOURS.astype(np.uint16) * 257,
    "floats": COLOURS / 255,
    "float32": (COLOURS / 255).astype(np.float32),
    "big_endian": (COLOURS / 255).astype(">f4"),
    "fortran": np.asfortranarray(COLOURS),
    "tensor": torch.tensor(COLOURS),
    "gradient": torch.tensor(COLOURS / 255, requires_grad=True),
    "nested": (COLOURS / 255).tolist(),
    "cmyk": RGB.convert("CMYK"),
    "cmyk_file": saved(RGB.convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("form", COLOUR_FORMS)
def test_colour_in_any_form(form, tmp_path):
    x = COLOUR_FORMS[form]
    y = load_image(x)
    assert (
        y.dtype == np.float32
        and y.flags.c_contiguous
        and np.abs(y - COLOURS / 255).max() < 1e-6
    )
    assert np.abs(load_grey(x) - COLOURS / 255 @ LUMA).max() < 0.51 / 255
    if isinstance(x, bytes):
        (path := tmp_path / "picture").write_bytes(x)
        for p in (path, str(path)):
            assert np.array_equal(load_image(p), y) and np.array_equal(
                load_grey(p), load_grey(x)
            )


GREY_FORMS = {
    "picture": GREY,
    "png": saved(GREY),
    "array": COLOURS[..., 0],
    "one_channel_last": COLOURS[..., :1],
    "one_channel_first": COLOURS[None, ..., 0],
    "la": GREY.convert("LA"),
    "sixteen": Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257),
    "sixteen_png": saved(Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)),
    "sixteen_tiff": saved(
        Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257), "TIFF"
    ),
    "thirty_two": GREY.convert("I"),
    "float_255": GREY.convert("F"),
    "float_1": Image.fromarray((COLOURS[..., 0] / 255).astype(np.float32)),
    "float_tiff": saved(GREY.convert("F"), "TIFF"),
    "half": torch.tensor(COLOURS[..., 0] / 255).half(),
    "bfloat": torch.tensor(COLOURS[..., 0] / 255).bfloat16(),
}


@pytest.mark.parametrize("form", GREY_FORMS)
def test_grey_in_any_form(form):
    close = 0.003 if form in ("half", "bfloat") else 1e-6
    y = load_grey(GREY_FORMS[form])
    assert y.shape == (9, 13) and np.abs(y - COLOURS[..., 0] / 255).max() < close
    assert np.abs(load_image(GREY_FORMS[form]) - y[..., None]).max() < 1e-6


def test_palette_bilevel_and_other_modes():
    p = palette()
    assert np.array_equal(
        load_image(p), load_image(p.convert("RGB"))
    ) and np.array_equal(load_image(saved(p, "GIF")), load_image(p))
    assert set(np.unique(load_image(GREY.convert("1")))) <= {0, 1} and np.array_equal(
        load_image(COLOURS[..., 0] > 99)[..., 1], COLOURS[..., 0] > 99
    )
    for mode in ("YCbCr", "HSV"):
        assert np.abs(load_image(RGB.convert(mode)) - COLOURS / 255).mean() < 0.02


def test_transparent_is_white_paper_and_white_ink_keeps_its_shape():
    x = CLEAR.copy()
    x[:4, :, 3] = 0
    for form in (x, Image.fromarray(x), saved(Image.fromarray(x))):
        assert (
            (load_image(form)[:4] == 1).all()
            and np.abs(load_image(form)[4:] - COLOURS[4:] / 255).max() < 1e-6
            and (load_grey(form)[:4] == 1).all()
        )
    white = np.full((9, 13, 4), 255, np.uint8)
    white[..., 3] = COLOURS[..., 0]
    assert np.allclose(load_grey(white), 1 - COLOURS[..., 0] / 255) and np.allclose(
        load_image(white), 1 - COLOURS[..., :1] / 255
    )
    half = np.zeros((2, 2, 4))
    half[..., 3] = [[0, 0.5], [1, 1]]
    assert np.allclose(load_grey(half), [[1, 0.5], [0, 0]])


TURN = Image.Transpose


@pytest.mark.parametrize(
    "k, stored",
    {
        1: None,
        2: TURN.FLIP_LEFT_RIGHT,
        3: TURN.ROTATE_180,
        4: TURN.FLIP_TOP_BOTTOM,
        5: TURN.TRANSPOSE,
        6: TURN.ROTATE_90,
        7: TURN.TRANSVERSE,
        8: TURN.ROTATE_270,
    }.items(),
)
def test_exif_orientation(k, stored):
    exif = Image.Exif()
    exif[0x0112] = k
    file = saved(RGB if stored is None else RGB.transpose(stored), exif=exif)
    assert np.array_equal(load_image(file), load_image(RGB)) and np.array_equal(
        load_grey(file), load_grey(RGB)
    )
    with Image.open(io.BytesIO(file)) as opened:
        assert (
            np.array_equal(load_image(opened), load_image(RGB))
            and opened.getpixel((0, 0)) is not None
        )  # still open: it is the caller's


def test_loading_changes_nothing_that_was_given():
    x, before = COLOURS.copy(), COLOURS.copy()
    load_image(x)[:] = 0
    load_grey(x)[:] = 0
    y = (COLOURS / 255).astype(np.float32)
    load_image(y)[:] = 0
    assert np.array_equal(x, before) and y.max() > 0


LOADERS = load_image, load_grey, lambda x, name="image": preprocess_image([x])
both = pytest.mark.parametrize(
    "load", LOADERS, ids=["load_image", "load_grey", "preprocess_image"]
)

JPEG, PNG = (
    saved(drawing("RGB", ink=(9, 9, 9), paper=(255, 255, 255)), "JPEG"),
    saved(drawing()),
)


@both
@pytest.mark.parametrize(
    "x",
    [
        b"",
        b"not a picture",
        PNG[:60],
        JPEG[: len(JPEG) // 2],
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        bytearray(30),
    ],
)
def test_a_file_that_is_no_picture_or_cut_short(load, x):
    assert "cannot be read as one" in refused(load, x, error=ValueError, name="image")


@both
def test_a_picture_cut_short_that_pillow_has_opened(load):
    refused(load, Image.open(io.BytesIO(JPEG[:-99])), error=ValueError, name="image")


@both
def test_a_damaged_file(load):
    bad = bytearray(PNG)
    bad[40:60] = bytes(20)
    refused(load, bad, error=ValueError, name="image")


@both
def test_a_decompression_bomb(load, monkeypatch):
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 5000
    )  # the drawing has 19,200: over it, and over twice of it
    assert "Bomb" in refused(load, PNG, error=ValueError, name="image")
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 12000
    )  # over it once: Pillow alone would only warn
    assert "Bomb" in refused(load, PNG, error=ValueError, name="image")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20000)
    assert load(PNG) is not None


@both
@pytest.mark.parametrize(
    "path", ["nowhere.png", Path("nowhere.png"), "", ".", "a\0b", "x" * 5000]
)
def test_no_file(load, path):
    refused(load, path, error=FileNotFoundError, name="image")


@both
@pytest.mark.parametrize(
    "x, says",
    [
        (np.zeros((0, 5)), "empty"),
        (np.zeros((5, 0, 3)), "empty"),
        ([], "empty"),
        (np.full((9, 9), np.nan), "NaN"),
        (np.full((9, 9), -np.inf), "infinite"),
        (np.zeros(9), "(9,)"),
        (np.float64(0.5), "H, W"),
        (np.zeros((2, 9, 9)), "(2, 9, 9)"),
        (np.zeros((9, 9, 5)), "(9, 9, 5)"),
        (np.zeros((1, 9, 9, 3)), "(1, 9, 9, 3)"),
        (np.eye(9) * 300, "300"),
        (-np.eye(9), "-1"),
        (np.eye(9, dtype=int) * 256, "256"),
        (np.eye(9, dtype=np.int8) * -1, "-1"),
        ([[1, 0], [1]], "ragged"),
        (Image.new("L", (0, 5)), "empty"),
        (Image.fromarray(np.full((5, 5), np.nan, np.float32)), "NaN"),
    ],
)
def test_arrays_of_wrong_values(load, x, says):
    assert says in refused(load, x, error=ValueError, name="image")


@both
@pytest.mark.parametrize(
    "x",
    [
        np.eye(9) * 1j,
        np.full((9, 9), "a"),
        np.full((9, 9), None),
        {"a": 1},
        object(),
        [b"x"],
    ],
)
def test_arrays_of_wrong_type(load, x):
    refused(load, x, error=TypeError, name="image")


def test_the_name_of_the_argument_is_yours():
    refused(load_image, b"x", "photo", name="photo: ")
    refused(load_grey, "no.png", "photo", error=FileNotFoundError, name="photo: ")


def test_one_pixel():
    one = saved(Image.new("RGB", (1, 1), (255, 0, 51)))
    assert np.allclose(load_image(one), [[[1, 0, 0.2]]]) and load_grey(one).shape == (
        1,
        1,
    )
    assert (
        resize(load_image(one), (3, 2)).shape == (3, 2, 3)
        and centre_crop(load_image(one), (1, 1)).shape == (1, 1, 3)
        and warp(load_grey(one), np.eye(2, 3)).shape == (1, 1)
    )
    assert "alike" in refused(
        preprocess_image, [one], error=ValueError, name="image[0]"
    )


# --------------------------------------------------------------------------------------------------------------------------- resizing
side = st.integers(1, 40)


@some
@given(side, side, side, side, st.integers(0, 2**32 - 1), st.booleans())
def test_resize_is_pillows_to_one_grey_level(H, W, h, w, seed, colour):
    x = (
        np.random.default_rng(seed).random((H, W, 3) if colour else (H, W)) * 256
    ).astype(np.uint8)
    theirs = np.asarray(
        Image.fromarray(x).resize((w, h), Image.Resampling.BILINEAR)
    ).astype(int)
    ours = resize(x / 255, (h, w))
    assert (
        ours.shape == theirs.shape and np.abs(np.rint(255 * ours) - theirs).max() <= 1
    )


@some
@given(side, side, side, side, st.integers(0, 2**32 - 1))
def test_resize_in_floats_is_pillows_and_torchs(H, W, h, w, seed):
    x = np.random.default_rng(seed).random((H, W), np.float32)
    ours = resize(x, (h, w))
    assert ours.dtype == np.float32
    assert (
        np.abs(
            ours
            - np.asarray(Image.fromarray(x).resize((w, h), Image.Resampling.BILINEAR))
        ).max()
        < 2e-6
    )
    if min(H, W, h, w) > 1:  # torch 2.13 takes a single column for channels
        assert (
            np.abs(
                ours
                - F.interpolate(
                    torch.tensor(x)[None, None], (h, w), mode="bilinear", antialias=True
                )[0, 0].numpy()
            ).max()
            < 1e-5
        )  # its weights are float32


@many
@given(st.integers(1, 70), st.integers(1, 70))
def test_weights_are_means(n, w):
    W = weights(n, w)
    assert W.shape == (w, n) and W.min() >= 0 and np.abs(W.sum(1) - 1).max() < 1e-12
    assert np.abs(W[::-1, ::-1] - W).max() < 1e-9  # left and right are alike
    position = W @ (np.arange(n) + 0.5)  # a ramp stays a ramp, away from the ends
    inside = slice(*(lambda e: (e, w - e))(int(np.ceil(w / n)) + 1))
    assert np.abs(position - (np.arange(w) + 0.5) * n / w)[inside].max(initial=0) < 0.51


def test_laws_of_resizing():
    x, y = rng.random((2, 17, 23, 3))
    assert np.array_equal(resize(x, (17, 23)), x)  # nothing to do, nothing done
    assert (
        np.abs(
            resize(0.3 * x + 0.7 * y, (5, 40))
            - 0.3 * resize(x, (5, 40))
            - 0.7 * resize(y, (5, 40))
        ).max()
        < 1e-12
    )  # linear
    assert (
        np.abs(resize(np.full((9, 9), 0.37), (4, 30)) - 0.37).max() < 1e-12
    )  # a grey wall stays grey
    assert (
        np.abs(
            resize(x.transpose(1, 0, 2), (7, 11))
            - resize(x, (11, 7)).transpose(1, 0, 2)
        ).max()
        < 1e-12
    )  # rows and columns alike
    batch = np.stack([x, y])
    assert (
        np.abs(
            resize_batch(batch, (8, 9))
            - np.stack([resize(x, (8, 9)), resize(y, (8, 9))])
        ).max()
        < 1e-12
    )
    assert (
        resize_batch(batch[..., 0], [8, 9]).shape == (2, 8, 9)
        and resize_batch(batch.astype(np.float32), (8, 9)).dtype == np.float32
    )


def test_the_order_of_the_size_is_rows_then_columns():
    assert (
        resize(np.zeros((4, 5, 3)), (6, 7)).shape
        == cover(np.zeros((4, 5, 3)), (6, 7)).shape
        == (6, 7, 3)
    )


@pytest.mark.parametrize(
    "size", [(100_000, 100_000), (10**9, 1), (1, 10**9), (2**70, 2), (9000, 9000)]
)
def test_huge_sizes_are_refused_before_memory_is_asked_for(size):
    x = np.zeros((8, 8, 3), np.float32)
    for f in (resize, cover):
        assert "at most" in refused(f, x, size, error=ValueError, name="size")
    refused(resize_batch, x[None], size, error=ValueError, name="size")
    refused(centre_crop, x, size, error=ValueError, name="size")


def test_huge_weights_are_refused():
    refused(weights, 2**14, 2**14, error=ValueError, name="n, m")
    refused(weights, 2**70, 1, error=ValueError, name="n, m")


@pytest.mark.parametrize(
    "size",
    [
        (0, 5),
        (5, 0),
        (-1, 5),
        (2.5, 3),
        (True, 3),
        5,
        None,
        "ab",
        (5,),
        (5, 5, 3),
        (None, 5),
        {5: 5},
        (np.nan, 2),
    ],
)
def test_sizes_that_are_none(size):
    for f in (resize, cover, centre_crop):
        refused(f, np.zeros((8, 8)), size, error=ValueError, name="size")


@pytest.mark.parametrize("n", [0, -1, 1.5, True, None, "3"])
def test_lengths_that_are_none(n):
    refused(weights, n, 3, error=ValueError, name="n:")
    refused(weights, 3, n, error=ValueError, name="m:")


def test_centre_crop():
    x = np.arange(7 * 8).reshape(7, 8) / 100
    assert (
        np.array_equal(centre_crop(x, (3, 4)), x[2:5, 2:6])
        and np.array_equal(centre_crop(x, (2, 3)), x[2:4, 2:5])
        and np.array_equal(centre_crop(x, (7, 8)), x)
    )
    assert "7×8" in refused(centre_crop, x, (8, 8), error=ValueError, name="size")
    y = centre_crop(x, (3, 4))
    y[:] = 0
    assert x.sum() > 0  # a copy


@some
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
)
def test_cover_cuts_what_would_be_squeezed_and_nothing_else(h, w, k, margin, seed):
    x = np.random.default_rng(seed).random((k * h, k * w))
    assert np.array_equal(cover(x, (h, w)), resize(x, (h, w)))
    for sides in (((0, 0), (margin, margin)), ((margin, margin), (0, 0))):
        assert np.array_equal(cover(np.pad(x, sides), (h, w)), resize(x, (h, w)))


# ------------------------------------------------------------------------------------------------------------- scale, light, moving
@some
@given(
    hnp.arrays(
        np.float32,
        st.tuples(
            st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)
        ),
        elements=st.floats(0, 1, width=32),
    )
)
def test_standardise_undoes_what_was_measured(x):
    mean, std = channel_stats(x)
    assert (
        mean.shape == std.shape == (x.shape[3],)
        and np.abs(mean - x.astype(float).mean((0, 1, 2))).max() < 1e-9
    )
    z = standardise(x, mean, std).astype(float)
    assert (
        np.abs(z.mean((0, 1, 2))).max() < 1e-2
        and np.abs(z * std + mean - x).max() < 1e-5
    )
    flat = x.astype(float).std((0, 1, 2)) < 1e-6
    assert (std[flat] == 1).all() and np.abs(z.std((0, 1, 2))[std != 1] - 1).max(
        initial=0
    ) < 1e-2
    assert (
        np.allclose(channel_stats(x[..., 0])[0], mean[0], atol=1e-7)
        and standardise(x[..., 0], *channel_stats(x[..., 0])).shape == x.shape[:3]
    )


@pytest.mark.parametrize(
    "mean, std, name",
    [
        (0.5, 0.0, "std"),
        (0.5, -1.0, "std"),
        (0.5, [0.1, 0.2], "std"),
        ([0.5] * 2, 0.1, "mean"),
        (np.nan, 0.1, "mean"),
        (0.5, np.inf, "std"),
        ("a", 0.1, "mean"),
        (2.0, 0.1, "mean"),
        ([], 0.1, "mean"),
        (0.5, None, "std"),
    ],
)
def test_scales_that_are_none(mean, std, name):
    refused(standardise, np.zeros((2, 4, 4, 3)), mean, std, name=name)


greys = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.integers(0, 255),
)


@some
@given(
    greys
    | st.integers(0, 2**32 - 1).map(
        lambda s: (np.random.default_rng(s).beta(2, 5, (40, 37)) * 255).astype(np.uint8)
    )
)
def test_histogram_and_equalise(g):
    x = (g / 255).astype(np.float32)
    assert np.array_equal(levels(x), g) and np.array_equal(
        histogram(x), np.histogram(g, 256, (-0.5, 255.5))[0]
    )
    assert np.array_equal(
        levels(equalise(x)), np.asarray(ImageOps.equalize(Image.fromarray(g)))
    )


affine = hnp.arrays(np.float64, (2, 3), elements=st.floats(-3, 3))


@some
@given(side, side, affine, st.integers(0, 2**32 - 1))
def test_warp_is_scipys(H, W, A, seed):
    x = np.random.default_rng(seed).random((H, W))
    A = A * [1, 1, 10]
    assert (
        np.abs(
            warp(x, A)
            - ndimage.affine_transform(
                x, A[:, :2], A[:, 2], order=1, mode="grid-constant"
            )
        ).max()
        < 1e-9
    )


@some
@given(
    st.integers(2, 30), st.integers(2, 30), st.floats(-3, 3), st.integers(0, 2**32 - 1)
)
def test_warp_is_torchs(H, W, angle, seed):
    x = np.random.default_rng(seed).random((H, W))
    c, s = np.cos(angle), np.sin(angle)
    theta = torch.tensor(
        [[[c, s * H / W, 0], [-s * W / H, c, 0]]]
    )  # torch measures in halves of the picture, x before y
    theirs = F.grid_sample(
        torch.tensor(x)[None, None],
        F.affine_grid(theta, (1, 1, H, W), align_corners=False),
        align_corners=False,
    )[0, 0].numpy()
    assert (
        np.abs(warp(x, about_middle([[c, -s], [s, c]], (H, W))) - theirs).max() < 1e-9
    )


def test_laws_of_warping():
    x = rng.random((12, 17))
    assert (
        np.array_equal(warp(x, np.eye(2, 3)), x)
        and np.abs(warp(x, about_middle(np.eye(2), x.shape)) - x).max() < 1e-12
    )
    assert np.array_equal(
        warp(x, [[1, 0, 2], [0, 1, -3]])[:-2, 3:], x[2:, :-3]
    )  # a new pixel comes from two rows below, three columns to the left
    s = rng.random((9, 9))
    assert (
        np.abs(warp(s, about_middle([[0, 1], [-1, 0]], s.shape)) - np.rot90(s)).max()
        < 1e-9
    )  # a quarter turn, counter-clockwise
    assert (
        np.abs(warp(x, about_middle(-np.eye(2), x.shape)) - x[::-1, ::-1]).max() < 1e-9
    )
    assert not warp(x, [[0, 0, 1e6], [0, 0, -1e6]]).any()


@pytest.mark.parametrize(
    "A",
    [
        np.eye(2),
        np.eye(3),
        np.zeros((1, 2, 3)),
        np.eye(2, 3) * np.nan,
        np.eye(2, 3) * 1e7,
        np.full((2, 3), 1e308),
        "turn",
        None,
        [],
        [[1, 0, 0], [0]],
        np.eye(2, 3) * 1j,
    ],
)
def test_maps_that_are_none(A):
    refused(warp, np.zeros((5, 5)), A, name="A")


# functions that take pictures in the course's form: (function, may it have colours, is it a batch)
TAKERS = {
    "resize": (lambda x: resize(x, (3, 3)), 1, 0),
    "cover": (lambda x: cover(x, (3, 3)), 1, 0),
    "centre_crop": (lambda x: centre_crop(x, (1, 1)), 1, 0),
    "resize_batch": (lambda x: resize_batch(x, (3, 3)), 1, 1),
    "channel_stats": (channel_stats, 1, 1),
    "levels": (levels, 0, 0),
    "histogram": (histogram, 0, 0),
    "equalise": (equalise, 0, 0),
    "warp": (lambda x: warp(x, np.eye(2, 3)), 0, 0),
    "as_mnist": (as_mnist, 0, 0),
    "standardise": (lambda x: standardise(x, 0.5, 0.5), 1, 1),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_pictures_in_another_form_are_refused(taker):
    f, colour, batch = TAKERS[taker]
    name = {
        "resize_batch": "images",
        "channel_stats": "images",
        "standardise": "images",
        "levels": "grey",
        "histogram": "grey",
        "equalise": "grey",
    }.get(taker, "image")
    for x in (
        np.full((4, 4, 4), np.nan),
        np.full((4, 4, 4), np.inf),
        np.zeros((0, 4)),
        np.zeros(4),
        np.float64(0),
        np.zeros((1, 1, 4, 4, 3)),
        np.full((4, 4), 1.1),
        np.full((4, 4), -0.1),
        [[0.0, 1.0], [0.0]],
        [],
    ):
        refused(f, x, error=ValueError, name=name)
    for x in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4), bool),
        np.zeros((4, 4)) * 1j,
        "seven.png",
        b"abc",
        None,
        {},
        object(),
        GREY,
    ):
        refused(f, x, error=TypeError, name=name)
    if not colour:
        refused(f, np.zeros((4, 4, 3)), error=ValueError, name=name)


# ------------------------------------------------------------------------------------------------------------------------- other hands
def gen(seed=0):
    return torch.Generator().manual_seed(seed)


DIGITS = torch.tensor(np.stack([SEVEN] * 6))[:, None]
each_of = pytest.mark.parametrize("f", AUGMENT, ids=lambda f: f.__name__)


@each_of
def test_an_augmentation_is_drawn_from_its_generator_alone(f):
    torch.manual_seed(0)
    before, x = torch.get_rng_state(), DIGITS.clone()
    a, b, c = f(x, gen(1)), f(x, gen(1)), f(x, gen(2))
    assert (
        torch.equal(a, b)
        and not torch.equal(a, c)
        and torch.equal(x, DIGITS)
        and torch.equal(torch.get_rng_state(), before)
    )
    assert (
        a.shape == x.shape
        and a.dtype == x.dtype
        and f(x.double(), gen()).dtype == torch.float64
    )
    if f is not flipped:
        assert not torch.equal(a[0], a[1])  # each picture its own way


@each_of
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 1, 4, 4), np.float32),
        torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(2, 1, 4, 4).half(),
        torch.zeros(2, 1, 4, 4) * 1j,
        None,
        "x",
        [[1.0]],
    ],
)
def test_augmenting_what_is_no_tensor_of_floats(f, x):
    refused(f, x, gen(), error=TypeError, name="x")


@each_of
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(4, 4),
        torch.zeros(2, 4, 4),
        torch.zeros(0, 1, 4, 4),
        torch.zeros(2, 0, 4, 4),
        torch.zeros(2, 1, 0, 4),
        torch.zeros(1, 2, 1, 4, 4),
        torch.full((2, 1, 4, 4), torch.nan),
        torch.full((2, 1, 4, 4), torch.inf),
    ],
)
def test_augmenting_what_is_no_batch(f, x):
    refused(f, x, gen(), error=ValueError, name="x")


@each_of
@pytest.mark.parametrize("g", [None, 0, np.random.default_rng(0)])
def test_generators_that_are_none(f, g):
    refused(f, DIGITS, g, error=TypeError, name="generator")


@pytest.mark.parametrize("by", [-0.1, float("nan"), float("inf"), True, None, "a", 101])
def test_strengths_that_are_none(by):
    for f in AUGMENT:
        if f is not augment_image:
            refused(f, DIGITS, gen(), by, error=ValueError, name="by")


def test_what_augmentations_do():
    assert torch.equal(flipped(DIGITS, gen(), 1.0), DIGITS.flip(3)) and torch.equal(
        flipped(DIGITS, gen(), 0.0), DIGITS
    )
    x = torch.rand(400, 1, 8, 8, generator=gen())
    turned_about = (flipped(x, gen()) != x).flatten(1).any(1).float().mean().item()
    assert 0.4 < turned_about < 0.6
    noise = noisy(x, gen(), 0.3) - x
    assert abs(noise.std().item() - 0.3) < 0.01 and abs(noise.mean().item()) < 0.01
    e = erased(
        torch.ones(300, 1, 20, 20)
        - torch.nn.functional.pad(torch.ones(300, 1, 1, 1), (0, 19, 0, 19)),
        gen(),
        0.5,
    )
    gone = (e == 0).flatten(1).sum(1) - 1
    assert (
        gone.max() <= 100 and gone.float().mean() > 50
    )  # ten by ten, less where the edge cuts
    d = dimmed(DIGITS, gen(), 0.5)
    ratio = d.flatten(1).amax(1) / DIGITS.flatten(1).amax(1)
    assert (
        (ratio >= 0.5).all()
        and (ratio <= 1.5).all()
        and ratio.std() > 0.05
        and torch.equal(d == 0, DIGITS == 0)
    )
    K = blurred(torch.eye(21).reshape(21, 1, 21, 1).repeat(1, 1, 1, 21), gen(), 0.5)
    assert (
        torch.allclose(K.sum((1, 2, 3)), torch.full((21,), 21.0), rtol=0.2)
        and (K.amax((1, 2, 3)) <= 1).all()
        and K.amax((1, 2, 3)).std() > 0
    )


def test_blur_is_scipys():
    x = torch.zeros(1, 1, 31, 31)
    x[0, 0, 15, 15] = 1
    y = blurred(x, gen(5), 2.0)
    spread = abs(
        2 * (2 * torch.rand(1, generator=gen(5)).item() - 1)
    )  # what it draws: evenly from -2 to 2 pixels
    assert (
        0.1 < spread <= 2
        and np.abs(
            y[0, 0].numpy()
            - ndimage.gaussian_filter(x[0, 0].numpy(), spread, truncate=8)
        ).max()
        < 2e-3
    )


def test_moves_go_where_their_names_say():
    ramp = torch.linspace(0, 1, 21).reshape(1, 1, 1, 21).expand(50, 1, 21, 21)
    shift = (moved(ramp, gen(), 0.2)[:, 0, 10, 5:15] - ramp[:, 0, 10, 5:15]).mean(
        1
    ) * 20  # pixels, from right to left
    assert shift.abs().max() <= 0.2 * 21 / 2 + 1e-4 and shift.abs().max() > 1
    x = torch.zeros(50, 1, 41, 41)
    x[:, :, 15:26, 15:26] = 1
    area = sized(x, gen(), 0.15).sum((1, 2, 3)) / 121
    assert 0.7 < area.min() < 0.9 and 1.1 < area.max() < 1.45
    assert torch.allclose(
        turned(x, gen(), 3.0).sum((1, 2, 3)), torch.tensor(121.0), rtol=0.03
    )  # a turn keeps the area
    assert torch.allclose(
        sheared(x, gen(), 0.3).sum((1, 2, 3)), torch.tensor(121.0), rtol=0.03
    )  # so does a shear
    rows = (sheared(x, gen(), 0.3)[:, 0] * torch.arange(41.0)).sum(2)[
        :, 16:25
    ] / 11  # its middle column, row by row
    assert (rows[:, 0] - rows[:, -1]).abs().max() > 1 and torch.allclose(
        rows.mean(1), torch.tensor(20.0), atol=0.1
    )


def test_ground_is_kept_outside():  # standardised pictures are negative where there is nothing
    x = DIGITS * 3 - 0.4
    for f in (turned, sized, sheared, moved, augment_image, erased, flipped):
        assert (
            abs(f(x, gen()).min().item() + 0.4) < 1e-5
            and f(x, gen())[:, :, 0, 0].max() < -0.39
        )


# ---------------------------------------------------------------------------------------------------------------------- MNIST's form
def test_a_drawing_as_mnist():
    assert (
        SEVEN.shape == (28, 28)
        and SEVEN.dtype == np.float32
        and SEVEN.min() == 0
        and SEVEN.max() == 1
    )
    assert not SEVEN[:3].any() and not SEVEN[:, :3].any()
    i, j = np.indices((28, 28)).reshape(2, -1) @ SEVEN.ravel() / SEVEN.sum()
    assert abs(i - 13.5) < 1.01 and abs(j - 13.5) < 1.01


def test_size_place_colour_and_light_do_not_matter():
    seven = np.asarray(drawing()) / 255
    placed = np.ones((220, 260))
    placed[50:210, 130:250] = seven
    variants = {
        "big": resize(seven, (480, 360)),
        "placed": placed,
        "light": placed * (0.5 + 0.5 * np.linspace(0, 1, 260)),
        "on_dark": 1 - placed,
        "faint": 0.3 + 0.2 * placed,
        "coloured": drawing("RGB", ink=(10, 10, 90), paper=(250, 245, 240)),
    }
    alike = {
        k: np.corrcoef(preprocess_image([x])[0].ravel(), SEVEN.ravel())[0, 1]
        for k, x in variants.items()
    }
    assert min(alike.values()) > 0.95, alike


def test_mnists_own_form_stays():
    x = rng.random((28, 28), np.float32) * 0.4
    x[10:18, 10:18] = 1
    assert (
        np.array_equal(as_mnist(x), x)
        and np.allclose(as_mnist(1 - x), x, atol=1e-6)
        and as_mnist(x).dtype == np.float32
    )


def test_real_digits_stay_readable_when_drawn_large():
    from mmcourse.datasets import mnist

    d = mnist("valid")["image"][:60]
    again = preprocess_image([255 - np.uint8(255 * resize(x, (90, 90))) for x in d])
    assert (
        np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(again, d)])
        > 0.7
    )


@pytest.mark.parametrize(
    "shape", [(1, 2), (1, 50), (50, 1), (3, 3), (200, 2), (1, 700), (700, 1), (2, 3000)]
)
def test_narrow_pictures(shape):
    x = np.full(shape, 0.5)
    assert "alike" in refused(as_mnist, x, error=ValueError, name="image")
    x[0, 0] = 1
    y = as_mnist(x)
    assert y.shape == (28, 28) and np.isfinite(y).all() and y.max() == 1


def test_missing_and_lists():
    out = preprocess_image([None, drawing()])
    assert not out[0].any() and np.array_equal(out[1], SEVEN)
    refused(preprocess_image, [], error=ValueError, name="image")
    refused(preprocess_image, [drawing(), b"x"], error=ValueError, name="image[1]")
    for x in (drawing(), "digit.png", b"x", 5, None, np.float64(1), {"a": drawing()}):
        refused(preprocess_image, x, error=TypeError, name="image")


# ---------------------------------------------------------------------------------------------------------------------------- the module
def test_import_is_light():
    code = 'import sys, mmcourse.image; print(*sorted({"torch", "PIL", "scipy", "keras", "matplotlib"} & set(sys.modules)))'
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ},
    )
    assert run.returncode == 0 and run.stdout.strip() == "", run.stdout + run.stderr


def test_luma_is_a_mean():
    assert abs(LUMA.sum() - 1) < 1e-12 and LUMA.argmax() == 1


# -------------------------------------------------------------------------------------------------------------------------------- fuzzing
KINDS = (
    np.float16,
    np.float32,
    np.float64,
    np.uint8,
    np.int8,
    np.uint16,
    np.int64,
    bool,
    np.complex64,
)
SHAPES = [
    (),
    (0,),
    (3,),
    (1, 1),
    (0, 4),
    (5, 0),
    (1, 9),
    (7, 3),
    (9, 9),
    (1, 1, 1),
    (3, 4, 5),
    (4, 5, 3),
    (5, 6, 4),
    (2, 0, 3),
    (1, 7, 6),
    (9, 2, 1),
    (2, 3, 4, 3),
    (1, 1, 1, 1),
    (3, 2, 0, 1),
    (2, 5, 4, 4),
    (1, 2, 3, 4, 5),
]


def array(
    seed, shape, kind, odd
):  # cheap to draw: hypothesis chooses the case, NumPy fills it
    r = np.random.default_rng(seed)
    x = r.random(shape)
    if odd is not None and x.size:
        x = np.where(r.random(shape) < 0.3, odd, x)
    with np.errstate(all="ignore"):
        return (x if kind in KINDS[:3] else x * 255).astype(kind)


seeds, shapes = st.integers(0, 2**32 - 1), st.sampled_from(SHAPES)
pictures = st.builds(
    array,
    seeds,
    st.sampled_from([s for s in SHAPES if 0 not in s and len(s) > 1]),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([None, 0.0, 1.0]),
)
anything = pictures | st.builds(
    array,
    seeds,
    shapes,
    st.sampled_from(KINDS),
    st.sampled_from([None, 0.0, 1.0, -1.0, 2.0, 1e30, -1e-7, np.nan, np.inf]),
)
FILES = [
    bytes(f)
    for f in (
        saved(GREY),
        saved(RGB),
        saved(RGB, "JPEG"),
        saved(palette(), "GIF"),
        saved(GREY, "TIFF"),
        saved(RGB, "BMP"),
        saved(RGB, "WEBP"),
    )
]


@st.composite
def damaged(draw):
    source = bytearray(draw(st.sampled_from(FILES)))
    r = np.random.default_rng(draw(seeds))
    for i in r.integers(0, len(source), draw(st.integers(0, 4))):
        source[i] = r.integers(256)
    return bytes(source[: draw(st.sampled_from([None, int(r.integers(len(source)))]))])


inputs = (
    anything
    | damaged()
    | st.binary(max_size=20)
    | st.text(max_size=5)
    | st.sampled_from([None, 3, 0.5, [], [[0.5]], [[0.5], []], {}, ()])
)
small = st.integers(-1, 12) | st.sampled_from([10**6, 2**40, None, 1.5])


@many
@given(inputs)
def test_fuzz_load_image_and_load_grey(x):
    y, g = tame(load_image, x, name="image"), tame(load_grey, x, name="image")
    assert (y is None) == (g is None)
    if y is not None:
        assert y.ndim == 3 and y.shape == (*g.shape, 3) and y.dtype == np.float32
        for a in (y, g):
            assert 0 <= a.min() <= a.max() <= 1


@many
@given(anything, small, small)
def test_fuzz_sizes(x, h, w):
    if isinstance(h, int) and isinstance(w, int) and h * w > 10**4:
        h = h * 10**6  # high beyond all measure, or small: nothing slow in between
    for f, name in (
        (resize, "image"),
        (cover, "image"),
        (centre_crop, "image"),
        (resize_batch, "images"),
    ):
        y = tame(f, x, (h, w), name=(f"{name}:", "size"))
        if y is not None:
            assert (
                y.shape
                == (
                    (h, w, *x.shape[2:])
                    if f is not resize_batch
                    else (len(x), h, w, *x.shape[3:])
                )
                and 0 <= y.min() <= y.max() <= 1
            )


@many
@given(
    anything,
    anything,
    st.floats() | st.sampled_from([0.1, [0.1], [0.2] * 3, [1e-6] * 4, [], 1e-300]),
    st.builds(
        lambda seed, size: np.random.default_rng(seed).normal(0, size, (2, 3)),
        seeds,
        st.sampled_from([0.0, 0.5, 3.0, 1e5, 1e300, np.nan]),
    ),
)
def test_fuzz_scale_light_and_warp(x, mean, std, A):
    z, stats = (
        tame(standardise, x, mean, std, name=("images:", "mean:", "std:")),
        tame(channel_stats, x, name="images:"),
    )
    assert z is None or (z.shape == np.shape(x) and np.isfinite(z).all())
    assert stats is None or np.isfinite(standardise(x, *stats)).all()
    y = tame(equalise, x, name="grey:")
    assert y is None or (
        y.shape == x.shape
        and 0 <= y.min() <= y.max() <= 1
        and histogram(x).sum() == x.size
    )
    for B in (A, mean):
        y = tame(warp, x, B, name=("image:", "A:"))
        assert y is None or (
            y.shape == x.shape and -1e-6 <= y.min() <= y.max() <= 1 + 1e-6
        )


@many
@given(
    st.builds(
        lambda seed, h, w, share: np.where(
            np.random.default_rng(seed).random((h, w)) < share,
            1.0,
            np.random.default_rng(seed).random((h, w)) / 2,
        ),
        seeds,
        st.integers(1, 30),
        st.integers(1, 30),
        st.sampled_from([0, 0.02, 0.2, 0.5, 0.9]),
    )
    | inputs
)
def test_fuzz_preprocess_image(x):
    y = tame(lambda x: preprocess_image([x]), x, name="image[0]")
    assert y is None or (
        y.shape == (1, 28, 28)
        and y.dtype == np.float32
        and np.isfinite(y).all()
        and 0 <= y.min() <= y.max() <= 1
    )


@many
@given(
    st.sampled_from(AUGMENT[:4] + AUGMENT[5:]),
    st.sampled_from(
        [
            (2, 1, 4, 5),
            (1, 3, 2, 2),
            (5, 1, 1, 1),
            (3, 2, 1, 6),
            (0, 1, 4, 4),
            (2, 0, 3, 3),
            (1, 1, 0, 2),
        ]
    ),
    st.floats(0, 1) | st.floats(),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.float16]),
    st.sampled_from([1.0, -3.0, 1e30, float("nan")]),
)
def test_fuzz_augmentations(f, shape, by, seed, dtype, scale):
    x = (
        (torch.rand(shape) * scale).to(dtype)
        if not (dtype == torch.int64 and scale != scale)
        else torch.zeros(shape, dtype=dtype)
    )
    y = tame(f, x, gen(seed), by, name=("x", "by"))
    assert y is None or (
        y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    )
