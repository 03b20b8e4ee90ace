"Chapter 03 against Pillow, SciPy and torch, and by its laws."

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps
from scipy import ndimage

from conftest import drawing, refused
from mmcourse.datasets import mnist
from mmcourse.image import (
    AUGMENTATIONS,
    about_middle,
    as_mnist,
    augment_image,
    centre_crop,
    centred,
    channel_stats,
    crop_and_resize,
    cut_out,
    equalise,
    grey_levels,
    light_on_dark,
    otsu_threshold,
    photographed,
    preprocess_image,
    random_affine,
    random_blur,
    random_contrast,
    random_erase,
    random_flip,
    random_noise,
    resize,
    resize_batch,
    resize_weights,
    small_cnn,
    standardise,
    thickened,
    warp,
    without_light,
)

some = settings(max_examples=60, deadline=None, database=None)
rng = np.random.default_rng(0)
side, seeds = st.integers(1, 40), st.integers(0, 2**32 - 1)

# --- resizing


@some
@given(side, side, side, side, seeds)
def test_resize_equals_pillow_and_torch(H, W, h, w, seed):
    x = np.random.default_rng(seed).random((H, W))
    ours, bilinear = resize(x, (h, w)), Image.Resampling.BILINEAR
    theirs = Image.fromarray(x.astype(np.float32)).resize((w, h), bilinear)
    assert np.allclose(ours, np.asarray(theirs), atol=2e-6)
    if min(H, W, h, w) > 1:  # torch takes a single column for channels
        t = torch.tensor(x)[None, None]
        t = F.interpolate(t, (h, w), mode="bilinear", antialias=True)[0, 0]
        assert np.allclose(ours, t, atol=1e-5)


def test_resize_is_pillows_to_one_grey_level_on_bytes():
    x = (rng.random((37, 50, 3)) * 256).astype(np.uint8)
    for h, w in ((12, 60), (80, 7), (1, 1)):
        theirs = Image.fromarray(x).resize((w, h), Image.Resampling.BILINEAR)
        ours = np.rint(resize(x, (h, w)))
        assert ours.shape == (h, w, 3)
        assert abs(ours - np.asarray(theirs).astype(int)).max() <= 1


def test_weights_are_means():
    assert np.allclose(resize_weights(4, 2)[0], [3 / 7, 3 / 7, 1 / 7, 0])
    assert np.allclose(resize_weights(2, 4)[:2], [[1, 0], [0.75, 0.25]])
    for n, m in ((70, 9), (9, 70), (1, 5), (5, 1)):
        R = resize_weights(n, m)
        assert R.shape == (m, n) and R.min() >= 0
        assert np.allclose(R.sum(1), 1) and np.allclose(R[::-1, ::-1], R)


def test_laws_of_resizing():
    x, y = rng.random((2, 17, 23, 3))
    a, b = resize(x, (5, 40)), resize(y, (5, 40))
    assert np.allclose(resize(x, (17, 23)), x)  # nothing to do, nothing done
    assert np.allclose(resize(0.3 * x + 0.7 * y, (5, 40)), 0.3 * a + 0.7 * b)
    assert np.allclose(resize(np.full((9, 9), 0.37), (4, 30)), 0.37)
    turned = resize(x.transpose(1, 0, 2), (40, 5)).transpose(1, 0, 2)
    assert np.allclose(turned, a)  # rows and columns alike
    assert np.allclose(resize_batch(np.stack([x, y]), (5, 40)), [a, b])
    assert np.allclose(resize_batch(x[None, ..., 0], (5, 40)), a[None, ..., 0])


def test_centre_crop():
    x = np.arange(56).reshape(7, 8)
    assert np.array_equal(centre_crop(x, (3, 4)), x[2:5, 2:6])
    assert np.array_equal(centre_crop(x, (2, 3)), x[2:4, 2:5])
    assert np.array_equal(centre_crop(x, (7, 8)), x)


@some
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 9), seeds
)
def test_a_crop_cuts_what_would_be_squeezed_and_nothing_else(h, w, k, margin, seed):
    x = np.random.default_rng(seed).random((k * h, k * w))
    wanted = resize(x, (h, w))
    assert np.allclose(crop_and_resize(x, (h, w)), wanted)
    for sides in (((0, 0), (margin, margin)), ((margin, margin), (0, 0))):
        assert np.allclose(crop_and_resize(np.pad(x, sides), (h, w)), wanted)


# --- scale and light


def test_standardise_undoes_what_was_measured():
    x = rng.random((5, 6, 7, 3)) * [1, 0.5, 0] + [0, 0.2, 0.3]
    mean, std = channel_stats(x)
    assert np.allclose(mean, x.reshape(-1, 3).mean(0))
    assert np.allclose(std[:2], x.reshape(-1, 3).std(0)[:2]) and std[2] == 1
    z = standardise(x, mean, std)
    assert z.dtype == np.float32 and np.allclose(z * std + mean, x, atol=1e-6)
    assert np.allclose(standardise(x, 0.5, 2.0), (x - 0.5) / 2, atol=1e-6)


greys = hnp.arrays(np.uint8, st.tuples(side, side), elements=st.integers(0, 255))
darks = seeds.map(lambda s: np.random.default_rng(s).beta(2, 5, (40, 37)) * 255)


@some
@given(greys | darks.map(np.uint8))
def test_equalise_is_pillows(g):
    assert np.array_equal(grey_levels(g / 255), g)
    theirs = np.asarray(ImageOps.equalize(Image.fromarray(g)))
    assert np.array_equal(equalise(g / 255), theirs / 255)


@pytest.mark.parametrize("n", [254, 255, 509, 510])
def test_equalise_steps_as_pillow_where_the_count_just_fills_a_level(n):
    g = np.append(np.arange(n) % 200, 255).astype(np.uint8)[None]
    theirs = np.asarray(ImageOps.equalize(Image.fromarray(g)))
    assert np.array_equal(equalise(g / 255), theirs / 255)
    assert np.array_equal(theirs, g) == (n == 254)


def test_a_grey_level_is_the_nearest():
    assert grey_levels(np.array([[0, 0.4, 0.6, 254.6]]) / 255).tolist() == [
        [0, 0, 1, 255]
    ]


# --- moving


@some
@given(side, side, hnp.arrays(float, (2, 3), elements=st.floats(-3, 3)), seeds)
def test_warp_is_scipys(H, W, A, seed):
    x, A = np.random.default_rng(seed).random((H, W)), A * [1, 1, 10]
    how = {"order": 1, "mode": "grid-constant"}
    theirs = ndimage.affine_transform(x, A[:, :2], A[:, 2], **how)
    assert np.allclose(warp(x, A), theirs, atol=1e-9)


def test_laws_of_warping():
    x, s = rng.random((12, 17)), rng.random((9, 9))
    assert np.array_equal(warp(x, np.eye(2, 3)), x)
    moved = warp(x, np.array([[1, 0, 2], [0, 1, -3]]))
    assert np.allclose(moved[:-2, 3:], x[2:, :-3])  # comes from below, from the left
    assert np.allclose(warp(x, about_middle(-np.eye(2), x.shape)), x[::-1, ::-1])
    quarter = np.array([[0, 1], [-1, 0]])
    assert np.allclose(warp(s, about_middle(quarter, s.shape)), np.rot90(s))
    assert not warp(x, np.array([[0, 0, 1e6], [0, 0, -1e6]])).any()


# --- other hands


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


DIGITS = torch.tensor(mnist("valid")["image"][:6])[:, None]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_is_drawn_from_its_generator_alone(name):
    f, x = AUGMENTATIONS[name], DIGITS.clone()
    before = torch.get_rng_state()
    a, b, c = f(x, gen(1)), f(x, gen(1)), f(x, gen(2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(x, DIGITS)
    assert torch.equal(torch.get_rng_state(), before)
    assert a.shape == x.shape and a.dtype == x.dtype
    assert f(x.double(), gen()).dtype == torch.float64
    if name != "flip":
        same = f(x[:1].expand(6, -1, -1, -1), gen(1))
        assert not torch.equal(same[0], same[1])  # each picture its own way


@pytest.mark.parametrize("name", ["turn", "scale", "shear", "shift", "flip", "erase"])
def test_the_ground_is_kept_outside(name):
    "Standardised pictures are negative where there is nothing."
    x = 3 * DIGITS - 0.4
    y = AUGMENTATIONS[name](x, gen())
    assert torch.allclose(y.amin((1, 2, 3)), torch.tensor(-0.4), atol=1e-5)
    assert y[:, :, 0, 0].max() < -0.39


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_brighter_picture_stays_brighter_by_as_much(name):
    "Each picture has a ground of its own."
    f, more = AUGMENTATIONS[name], torch.arange(6.0)[:, None, None, None]
    brighter = f(DIGITS + more, gen())
    assert torch.allclose(brighter, f(DIGITS, gen()) + more, atol=1e-5)


def test_limits_that_are_not_named():
    limits = {"turn": 0.25, "scale": 0.15, "shear": 0.2, "shift": 0.1}
    for name, limit in limits.items():
        wanted = random_affine(DIGITS, gen(), **{name: limit})
        assert torch.equal(AUGMENTATIONS[name](DIGITS, gen()), wanted)
    for f, limit in (
        (random_flip, 0.5),
        (random_noise, 0.2),
        (random_contrast, 0.5),
        (random_blur, 1.0),
        (random_erase, 0.35),
    ):
        assert torch.equal(f(DIGITS, gen()), f(DIGITS, gen(), limit))


def test_no_limits_change_nothing():
    assert torch.allclose(random_affine(DIGITS, gen()), DIGITS, atol=1e-5)
    assert torch.equal(random_flip(DIGITS, gen(), 0.0), DIGITS)
    assert torch.equal(random_noise(DIGITS, gen(), 0.0), DIGITS)
    assert torch.allclose(random_contrast(DIGITS, gen(), 0.0), DIGITS)
    assert torch.allclose(random_blur(DIGITS, gen(), 0.0), DIGITS, atol=1e-6)
    assert torch.equal(random_erase(DIGITS, gen(), 0.0), DIGITS)


def test_the_course_s_own_augmentation():
    limits = {"turn": 0.25, "scale": 0.15, "shear": 0.2, "shift": 0.1}
    wanted = random_affine(DIGITS, gen(), **limits)
    assert torch.equal(augment_image(DIGITS, gen()), wanted)


def test_affine_maps_equal_warp():
    "One picture, with the map written out for rows and columns."
    x = torch.rand(1, 1, 21, 21, generator=gen(), dtype=torch.float64)
    x[:, :, 0] = 0  # the ground
    y = random_affine(x, gen(3), turn=0.5, scale=0.3, shear=0.4, shift=0.2)
    u = 2 * torch.rand(5, 1, generator=gen(3), dtype=torch.float64)[:, 0].numpy() - 1
    angle, scale, shear, right, down = u * [0.5, 0.3, 0.4, 0.2, 0.2]
    size, sin = np.cos(angle) * (1 + scale), np.sin(angle)
    A = about_middle(np.array([[size, sin], [shear - sin, size]]), (21, 21))
    A[:, 2] += np.array([down, right]) * 21 / 2
    assert np.allclose(y[0, 0], warp(x[0, 0].numpy(), A), atol=1e-6)


def test_limits_are_reached_and_kept():
    ramp = torch.linspace(0, 1, 21).expand(200, 1, 21, 21)
    moved = random_affine(ramp, gen(), shift=0.2)[:, 0, 10, 5:15] - ramp[:, 0, 10, 5:15]
    pixels = 20 * moved.mean(1)
    assert 1.9 < pixels.abs().max() <= 2.1 + 1e-4 and pixels.min() < -1.9
    assert abs(pixels.mean()) < 0.3
    x = F.pad(torch.ones(200, 1, 11, 11), (15, 15, 15, 15))
    area = random_affine(x, gen(), scale=0.15).sum((1, 2, 3)) / 121
    assert (
        1 / 1.15**2 - 0.02 < area.min() < 0.8 and 1.3 < area.max() < 1 / 0.85**2 + 0.02
    )
    for limit in ({"turn": 3.0}, {"shear": 0.3}):  # these keep the area
        y = random_affine(x, gen(), **limit)
        assert torch.allclose(y.sum((1, 2, 3)), torch.tensor(121.0), rtol=0.03)


def test_flip():
    assert torch.equal(random_flip(DIGITS, gen(), 1.0), DIGITS.flip(3))
    x = torch.rand(400, 1, 4, 4, generator=gen())
    share = (random_flip(x, gen()) != x).flatten(1).any(1).float().mean()
    assert 0.42 < share < 0.58


def test_noise_and_contrast():
    noise = random_noise(DIGITS.repeat(20, 1, 1, 1), gen(), 0.3) - DIGITS.repeat(
        20, 1, 1, 1
    )
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01
    x = 2 * DIGITS[:1].repeat(300, 1, 1, 1) - 1
    y = random_contrast(x, gen(), 0.5)
    ratio = (y + 1).amax((1, 2, 3)) / 2 / DIGITS[0].max()
    assert 0.5 <= ratio.min() < 0.52 and 1.48 < ratio.max() <= 1.5
    assert torch.equal(y.amin((1, 2, 3)), torch.full((300,), -1.0))


def test_blur_is_scipys():
    x = torch.zeros(1, 2, 31, 33)
    x[0, :, 15, 15] = torch.tensor([1.0, 2.0])
    sigma = 2 * torch.rand(1, generator=gen(5)).item()
    theirs = ndimage.gaussian_filter(x[0].numpy(), (0, sigma, sigma), truncate=8)
    y = random_blur(x, gen(5), 2.0)
    assert sigma > 0.5 and np.allclose(y[0], theirs, atol=2e-3)
    assert torch.allclose(random_blur(x * 0 + 0.3, gen()), torch.tensor(0.3))


def test_erased_squares():
    x = 1 - F.pad(torch.ones(400, 1, 1, 1), (0, 29, 0, 19))  # its ground is one pixel
    gone = (random_erase(x, gen(), 0.5) == 0).flatten(1).sum(1) - 1
    assert gone.max() == 100 and gone.min() >= 24  # ten by ten; cut at the edges
    middle = (random_erase(x, gen(), 0.5) == 0)[:, 0, 8:12, 12:18].float().mean()
    assert abs(middle - 10 * 10 / (20 * 30)) < 0.05  # as likely in every place


def test_small_cnn():
    model = small_cnn()
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert sum(p.numel() for p in model.parameters()) == 14770


# --- MNIST's form

SEVEN = preprocess_image([drawing()])[0]


def alike(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_a_drawing_as_mnist():
    assert SEVEN.dtype == np.float32 and SEVEN.min() == 0 and SEVEN.max() == 1
    rows, columns = np.flatnonzero(SEVEN.any(1)), np.flatnonzero(SEVEN.any(0))
    assert np.ptp(rows) + 1 == 20 and np.ptp(columns) + 1 < 20
    assert abs(np.array(ndimage.center_of_mass(SEVEN)) - 13.5).max() < 0.6


def test_size_place_colour_and_light_do_not_matter():
    seven = np.asarray(drawing()) / 255
    placed = np.ones((220, 260))
    placed[50:210, 130:250] = seven
    dirty = placed.copy()
    dirty[5:8, 5:8] = 0
    variants = {
        "large": resize(seven, (480, 360)),
        "very large": np.kron(seven, np.ones((9, 9))),
        "placed": placed,
        "shadow": placed * (0.5 + 0.5 * np.linspace(0, 1, 260)),
        "light on dark": 1 - placed,
        "faint": 0.3 + 0.2 * placed,
        "dirt": dirty,
        "coloured": drawing("RGB", ink=(10, 10, 90), paper=(250, 245, 240)),
    }
    found = {k: alike(preprocess_image([x])[0], SEVEN) for k, x in variants.items()}
    assert min(found.values()) > 0.95, found


def test_a_thin_line_is_thickened():
    picture = Image.new("L", (300, 300), 255)
    thin = np.asarray(picture).copy()
    thin[60:240, 150:152] = 0
    strokes = preprocess_image([thin])[0]
    assert 1.5 < (strokes[14] > 0.5).sum() < 4 and strokes[8:20].max(1).min() > 0.8


def test_a_stroke_grows_by_what_it_lacks():
    ink = np.ones((20, 4))
    assert thickened(ink, ink > 0) is ink  # thick enough
    ink = np.ones((63, 3))  # 189 pixels, 128 of them at the edge: a stroke of 1.95
    wide = thickened(ink, ink > 0)  # 2.2 · 63 / 20 = 6.93 are wanted: 5 more
    assert np.flatnonzero(wide[36]).tolist() == list(range(2, 10))
    assert np.array_equal(wide[:-1, :-1], wide[-2::-1, -2::-1])
    assert wide[2, 5] and not wide[2, 2]  # a round pen
    ink = np.ones((18, 1))  # 1.98 are wanted, one more
    assert thickened(ink, ink > 0).any(0).sum() == 2


def test_mnists_own_form_stays():
    x = rng.random((28, 28), np.float32) * 0.4
    x[10:18, 10:18] = 1
    assert np.array_equal(as_mnist(x), x) and as_mnist(x).dtype == np.float32
    assert np.allclose(as_mnist(1 - x), x, atol=1e-6)


def test_light_on_dark():
    x = np.pad(np.full((4, 4), 0.9), 2)
    assert np.array_equal(light_on_dark(x), x)
    assert np.array_equal(light_on_dark(1 - x), x)
    x[0] = 0.9  # a bright edge at one of four sides
    assert np.array_equal(light_on_dark(x), x)


def test_without_light():
    x = np.full((60, 60), 0.4) + np.linspace(0, 0.3, 60)
    x[25:35, 28:32] += 0.3
    ink = without_light(x)
    assert ink[25:35, 28:32].min() > 0.25 and np.median(ink) < 0.1 and ink.min() >= 0
    assert without_light(np.eye(1200)).shape == (300, 300)
    assert without_light(np.eye(599)).shape == (599, 599)


def test_otsus_threshold_leaves_the_least_spread_within():
    values = np.concatenate([rng.normal(0.2, 0.05, 900), rng.normal(0.8, 0.08, 100)])
    edges = np.histogram_bin_edges(values, 128)[1:-1]
    within = [
        sum(
            part.size * part.var() for part in (values[values < t], values[values >= t])
        )
        for t in edges
    ]
    assert abs(otsu_threshold(values) - edges[np.argmin(within)]) < 0.02
    assert 0.3 < otsu_threshold(values) < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_otsus_threshold_of_128_levels_is_brute_forces(seed):
    level = np.random.default_rng(seed).integers(0, 128, 200) ** 2 // 127
    level[:2] = 0, 127
    within = []
    for k in range(127):
        low, high = level[level <= k], level[level > k]
        within.append(low.size * low.var() + high.size * high.var())
    wanted = (np.argmin(within) + 1) * 127 / 128
    assert otsu_threshold(level) == pytest.approx(wanted)


def test_one_bright_pixel_is_a_class():
    assert otsu_threshold(np.repeat([0.0, 0.1, 1.0], [50, 50, 1])) > 0.1


def test_cut_out_keeps_large_parts():
    ink = np.zeros((40, 30))
    ink[5:25, 8:12] = 0.5
    ink[25, 12] = 0.5  # touches a corner: the same part
    ink[30:35, 20:22] = 0.5  # more than a twentieth
    ink[1, 1] = 0.5  # a speck
    cut, mask = cut_out(ink)
    assert cut.shape == mask.shape == (30, 14)
    assert mask.sum() == 80 + 1 + 10 and np.array_equal(cut, mask)


def test_a_part_counts_from_a_twentieth_of_the_largest():
    ink = np.zeros((40, 30))
    ink[:21, :20] = 1  # 420 pixels
    ink[25:32, :3] = 1  # 21 of them
    ink[25:30, 20:24] = 1  # 20
    _, mask = cut_out(ink)
    assert mask.shape == (32, 20) and mask.sum() == 420 + 21


def test_centred():
    ink = np.zeros((10, 40))
    ink[:, 30:] = 1
    out = centred(ink)
    assert out.dtype == np.float32 and out.max() == 1
    assert (out.any(1).sum(), out.any(0).sum()) == (5, 6)
    i, j = ndimage.center_of_mass(out)
    assert abs(i - 13.5) < 0.6 and not out[:, 20:].any()  # no further to the left
    mirrored = centred(ink[:, ::-1])
    assert np.array_equal(mirrored[:, 8:14], out[:, 14:20][:, ::-1])  # nor the right
    assert centred(np.ones((1, 90))).any(1).sum() == 1


@pytest.mark.parametrize(
    "shape", [(1, 2), (1, 50), (3, 3), (200, 2), (700, 1), (2, 3000)]
)
def test_narrow_pictures(shape):
    x = np.full(shape, 0.5)
    refused(as_mnist, x, "photo", error=ValueError, name="photo: expected ink")
    x[0, 0] = 1
    y = as_mnist(x)
    assert y.shape == (28, 28) and np.isfinite(y).all() and y.max() == 1


def test_photos_of_digits_can_be_read_back():
    digits = mnist("valid")["image"][:40]
    photos = [photographed(d, np.random.default_rng(k)) for k, d in enumerate(digits)]
    back = preprocess_image(photos)
    assert np.median([alike(a, b) for a, b in zip(back, digits)]) > 0.75


def test_photographed():
    a, b = (photographed(DIGITS[0, 0].numpy(), np.random.default_rng(1)) for _ in "ab")
    assert np.array_equal(a, b) and a.min() >= 0 and a.max() <= 1
    assert all(110 <= n < 200 for n in a.shape[:2]) and a.shape[2] == 3
    paper = photographed(np.zeros((28, 28)), np.random.default_rng(1))
    taken = (paper - a).max((0, 1))  # blue ink takes red away first
    assert taken[0] > taken[1] > taken[2] > 0.1
    assert paper[..., 0].min() > 0.4 and np.ptp(paper) > 0.3
    assert np.allclose(paper[..., 0], paper[..., 2])


def test_light_slants_over_the_sheet():
    "From 0.55 on the left to 0.95 on the right, and as far again up or down."
    paper = np.zeros((28, 28))
    made = [photographed(paper, np.random.default_rng(k))[..., 0] for k in range(40)]
    smooth = [ndimage.uniform_filter(x, 9) for x in made]

    def at(down, across):
        found = [x[[0, len(x) // 2, -1][down]] for x in smooth]
        return np.array([row[[0, len(row) // 2, -1][across]] for row in found])

    near = {"atol": 0.03}
    assert np.allclose(at(0, 0), 0.55, **near) and np.allclose(at(0, 2), 0.95, **near)
    assert np.allclose(at(0, 1), 0.75, **near)
    left, right = at(2, 0), at(2, 2)
    assert 0.9 < left.max() < 0.98 and 0.52 < right.min() < 0.6 and right.max() < 0.98
    assert np.allclose(at(1, 0) - 0.55, (left - 0.55) / 2, **near)
    assert np.allclose(0.95 - at(1, 2), (0.95 - right) / 2, **near)
    grain = [(x - y).std() for x, y in zip(made, smooth)]
    assert abs(np.median(grain) - 0.02) < 0.002


def test_missing_pictures_keep_their_places():
    out = preprocess_image([None, drawing()])
    assert out.dtype == np.float32 and not out[0].any()
    assert np.array_equal(out[1], SEVEN)
