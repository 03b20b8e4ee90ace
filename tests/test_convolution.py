"What the chapter cannot test about itself: parity with torch for any shape and setting, laws, gradients against autograd and finite differences, and what bad input does."

import math
import random
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.convolution import (
    DigitCNN,
    Field,
    Layer,
    avg_pool,
    avg_pool_grad,
    conv_grads,
    conv_im2col,
    conv_loops,
    conv_output_size,
    conv_view,
    copy_to_keras,
    im2col,
    keras_cnn,
    layers_of,
    match,
    max_pool,
    max_pool_grad,
    overlap_add,
    receptive_field,
    shifted,
    windows,
)

CONVS = conv_loops, conv_view, conv_im2col
REFUSED = ValueError, TypeError
few, many = (
    settings(max_examples=60, deadline=None),
    settings(max_examples=2000, deadline=None),
)


def close(a, b, tol=1e-9):
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a, b, atol=tol, rtol=tol)
    )


def refused(function, *args, name, error=ValueError, **kwargs):
    "The message: one line that begins with the argument's name and says what is wanted and what came."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert (
        type(caught.value) is error
        and message.startswith(name + ":")
        and "\n" not in message
        and "expected" in message
        and "got" in message
    ), message
    return message


@st.composite
def settings_of_conv(draw):
    "Images, filters, a bias and knobs that fit one another: every knob with two values of its own."
    number = lambda low, high: draw(st.integers(low, high))
    groups, (m, n), (d, e), (a, b) = (
        number(1, 3),
        (number(1, 3), number(1, 3)),
        (number(1, 2), number(1, 3)),
        (number(0, 2), number(0, 2)),
    )
    H, W = (
        max(1, d * (m - 1) + 1 - 2 * a) + number(0, 4),
        max(1, e * (n - 1) + 1 - 2 * b) + number(0, 4),
    )
    torch.manual_seed(number(0, 2**20))
    x = torch.randn(number(1, 2), groups * number(1, 2), H, W, dtype=torch.float64)
    w = torch.randn(
        groups * number(1, 2), x.shape[1] // groups, m, n, dtype=torch.float64
    )
    bias = torch.randn(len(w), dtype=torch.float64) if number(0, 1) else None
    return (
        x,
        w,
        bias,
        {
            "stride": (number(1, 3), number(1, 3)),
            "padding": (a, b),
            "dilation": (d, e),
            "groups": groups,
        },
    )


def geometry(knobs):
    return {k: v for k, v in knobs.items() if k != "groups"}


# ------------------------------------------------------------------------------------------------------------------------ parity with torch
@pytest.mark.parametrize("conv", CONVS)
@few
@given(settings_of_conv())
def test_convolution_is_torchs(conv, case):
    x, w, bias, knobs = case
    assert close(conv(x, w, bias, **knobs), F.conv2d(x, w, bias, **knobs))


@few
@given(settings_of_conv())
def test_im2col_is_unfold(case):
    x, w, _, knobs = case
    assert torch.equal(
        im2col(x, tuple(w.shape[2:]), **geometry(knobs)),
        F.unfold(x, w.shape[2:], **geometry(knobs)),
    )


@few
@given(settings_of_conv())
def test_gradients_by_hand_are_autograds(case):
    x, w, bias, knobs = case
    leaves = (
        x.requires_grad_(),
        w.requires_grad_(),
        torch.zeros(len(w), dtype=x.dtype, requires_grad=True),
    )
    y = F.conv2d(*leaves, **knobs)
    g = torch.randn_like(y)
    for ours, theirs in zip(
        conv_grads(x.detach(), w.detach(), g, **knobs),
        torch.autograd.grad(y, leaves, g),
    ):
        assert close(ours, theirs)


def test_gradient_by_hand_is_the_slope():
    "By finite differences, so that autograd is not its own judge."
    torch.manual_seed(0)
    x, w, knobs = (
        torch.randn(1, 2, 5, 4, dtype=torch.float64),
        torch.randn(2, 1, 3, 2, dtype=torch.float64),
        {"stride": 2, "padding": 1, "groups": 2},
    )
    g = torch.randn_like(conv_loops(x, w, **knobs))
    loss = lambda x, w: (conv_loops(x, w, **knobs) * g).sum()
    by_x, by_w, _ = conv_grads(x, w, g, **knobs)
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[i] = 1e-4
        step = step.view_as(x)
        assert (
            abs((loss(x + step, w) - loss(x - step, w)) / 2e-4 - by_x.flatten()[i])
            < 1e-6
        )
    for i in range(w.numel()):
        step = torch.zeros(w.numel(), dtype=w.dtype)
        step[i] = 1e-4
        step = step.view_as(w)
        assert (
            abs((loss(x, w + step) - loss(x, w - step)) / 2e-4 - by_w.flatten()[i])
            < 1e-6
        )


@pytest.mark.parametrize("conv", CONVS)
def test_autograd_goes_through_ours(conv):
    torch.manual_seed(0)
    x, w, bias = (
        torch.randn(s, dtype=torch.float64, requires_grad=True)
        for s in ((2, 4, 5, 5), (4, 2, 3, 3), (4,))
    )
    assert torch.autograd.gradcheck(
        lambda *t: conv(*t, stride=2, padding=1, groups=2), (x, w, bias)
    )


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_every_kind_of_float(conv, dtype):
    torch.manual_seed(0)
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    y = conv(x.to(dtype), w.to(dtype), padding=1)
    assert y.dtype == dtype and torch.allclose(
        y.float(),
        F.conv2d(x, w, padding=1),
        atol=0.15 if dtype == torch.bfloat16 else 0.02,
    )


@pytest.mark.parametrize("conv", CONVS)
def test_images_that_are_no_strip_of_memory(conv):
    torch.manual_seed(0)
    x, w = (
        torch.randn(2, 6, 7, 3, dtype=torch.float64).permute(0, 3, 1, 2)[:, :, ::2],
        torch.randn(3, 3, 2, 2, dtype=torch.float64).transpose(0, 1),
    )
    assert close(conv(x, w, padding=1), F.conv2d(x, w, padding=1))


@pytest.mark.parametrize("conv", CONVS)
def test_inputs_are_left_alone(conv):
    torch.manual_seed(0)
    x, w, bias = torch.randn(2, 2, 5, 5), torch.randn(2, 2, 3, 3), torch.randn(2)
    before = [t.clone() for t in (x, w, bias)]
    conv(x, w, bias, padding=1)
    conv_grads(x, w, torch.ones(2, 2, 5, 5), padding=1)
    max_pool(x, 3, padding=1)
    max_pool_grad(x, torch.ones(2, 2, 1, 1), 3)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, w, bias)))


# --------------------------------------------------------------------------------------------------------------------------------- pooling
@st.composite
def settings_of_pool(draw):
    number = lambda low, high: draw(st.integers(low, high))
    m, n = number(1, 4), number(1, 4)
    a, b = number(0, m // 2), number(0, n // 2)
    torch.manual_seed(number(0, 2**20))
    x = torch.randint(
        -1,
        2,
        (
            number(1, 2),
            number(1, 2),
            max(1, m - 2 * a) + number(0, 4),
            max(1, n - 2 * b) + number(0, 4),
        ),
    ).double()  # few values: many draws
    return (
        x,
        (m, n),
        {
            "stride": (number(1, 3), number(1, 3)) if number(0, 1) else None,
            "padding": (a, b),
        },
    )


@pytest.mark.parametrize(
    "ours,by_hand,torchs",
    [(max_pool, max_pool_grad, F.max_pool2d), (avg_pool, avg_pool_grad, F.avg_pool2d)],
)
@few
@given(settings_of_pool())
def test_pooling_is_torchs_with_its_gradient(ours, by_hand, torchs, case):
    x, size, knobs = case
    leaf, mine = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = torchs(leaf, size, **knobs), ours(mine, size, **knobs)
    assert close(z, y)
    g = torch.randn_like(y)
    y.backward(g)
    z.backward(g)
    assert close(mine.grad, leaf.grad) and close(
        by_hand(x, g, size, **knobs), leaf.grad
    )


def test_the_first_of_equals_gets_the_gradient():
    g = max_pool_grad(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 2, 2), 2)[0, 0]
    assert g.nonzero().tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]


def test_padding_is_never_the_largest_and_counts_in_the_mean():
    x = torch.full((1, 1, 2, 2), -5.0)
    assert (max_pool(x, 2, stride=1, padding=1) == -5).all()
    assert avg_pool(x, 2, stride=1, padding=1)[0, 0, 0, 0] == -1.25


# ------------------------------------------------------------------------------------------------------------------------------------ laws
@few
@given(settings_of_conv(), st.floats(-3, 3), st.floats(-3, 3))
def test_convolution_is_linear_in_images_and_in_filters(case, p, q):
    x, w, _, knobs = case
    z, v = torch.randn_like(x), torch.randn_like(w)
    assert close(
        conv_im2col(p * x + q * z, w, **knobs),
        p * conv_im2col(x, w, **knobs) + q * conv_im2col(z, w, **knobs),
    )
    assert close(
        conv_im2col(x, p * w + q * v, **knobs),
        p * conv_im2col(x, w, **knobs) + q * conv_im2col(x, v, **knobs),
    )


@few
@given(settings_of_conv())
def test_overlap_add_is_the_transpose_of_windows(case):
    "⟨windows(x), p⟩ = ⟨x, overlap_add(p)⟩ for all x and p."
    x, w, _, knobs = case
    p = torch.randn_like(cut := windows(x, tuple(w.shape[2:]), **geometry(knobs)))
    assert torch.isclose(
        (cut * p).sum(),
        (x * overlap_add(p, tuple(x.shape[2:]), **geometry(knobs))).sum(),
    )


@few
@given(settings_of_conv())
def test_the_gradients_agree_about_the_output(case):
    "y is linear in x and in w, so ⟨∂y/∂x·x⟩ = ⟨∂y/∂w·w⟩ = ⟨y, g⟩."
    x, w, _, knobs = case
    y = conv_im2col(x, w, **knobs)
    by_x, by_w, by_bias = conv_grads(x, w, y, **knobs)
    assert (
        torch.isclose((by_x * x).sum(), (y * y).sum())
        and torch.isclose((by_w * w).sum(), (y * y).sum())
        and close(by_bias, y.sum((0, 2, 3)))
    )


@few
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 3), st.integers(0, 2**20))
def test_shift_in_shift_out(stride, dilation, k, seed):
    "On images with an empty margin, a move by k strides moves the map by k pixels."
    torch.manual_seed(seed)
    x, w = (
        F.pad(torch.randn(1, 2, 3, 4, dtype=torch.float64), (12, 12, 12, 12)),
        torch.randn(3, 2, 3, 2, dtype=torch.float64),
    )
    y, z = (
        conv_im2col(i, w, stride=stride, dilation=dilation, padding=1)
        for i in (x, shifted(x, k * stride, -k * stride))
    )
    assert close(shifted(y, k, -k), z)
    if stride > 1:
        assert not any(
            torch.allclose(
                shifted(y, r, 0),
                conv_im2col(
                    shifted(x, 1), w, stride=stride, dilation=dilation, padding=1
                ),
            )
            for r in (0, 1)
        )


@few
@given(settings_of_conv())
def test_groups_are_convolutions_side_by_side(case):
    x, w, _, knobs = case
    parts = [
        conv_view(i, f, **geometry(knobs))
        for i, f in zip(x.chunk(knobs["groups"], 1), w.chunk(knobs["groups"], 0))
    ]
    assert close(conv_im2col(x, w, **knobs), torch.cat(parts, 1))


@few
@given(st.integers(-4, 4), st.integers(-4, 4), st.integers(1, 4), st.integers(1, 4))
def test_shifted_moves_and_fills_with_zeros(dy, dx, H, W):
    x = torch.rand(2, H, W) + 1
    y = shifted(x, dy, dx)
    assert y.shape == x.shape
    for i, j in product(range(H), range(W)):
        inside = 0 <= i - dy < H and 0 <= j - dx < W
        assert torch.equal(
            y[:, i, j], x[:, i - dy, j - dx] if inside else torch.zeros(2)
        )


@few
@given(settings_of_conv())
def test_output_size_is_torchs(case):
    x, w, _, knobs = case
    sizes = [
        conv_output_size(H, m, stride=s, padding=p, dilation=d)
        for H, m, s, p, d in zip(
            x.shape[2:],
            w.shape[2:],
            knobs["stride"],
            knobs["padding"],
            knobs["dilation"],
        )
    ]
    assert tuple(sizes) == F.conv2d(x, w, **knobs).shape[2:]


# ------------------------------------------------------------------------------------------------------------------------ receptive fields
LAYERS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.just(0), st.integers(1, 3)).map(
        lambda t: Layer(*t)
    ),
    max_size=4,
)


@few
@given(LAYERS)
def test_receptive_field_is_where_the_gradient_is(layers):
    "In one dimension, where it is cheap: torch's own convolution with weights of one, and no padding, which would cut paths off at the border."
    f = receptive_field(layers)
    x = torch.zeros(1, 1, f.size + 2 * f.step, requires_grad=True)
    y = x
    for l in layers:
        y = F.conv1d(y, torch.ones(1, 1, l.size), stride=l.stride, dilation=l.dilation)
    assert (
        y.shape[-1] == 3
    )  # as many as fit, when the image is two steps longer than the field
    for i in range(3):
        touched = torch.autograd.grad(y[0, 0, i], x, retain_graph=True)[0][
            0, 0
        ].nonzero()
        assert (int(touched.min()), int(touched.max()) + 1) == (
            f.start + i * f.step,
            f.start + i * f.step + f.size,
        )


@few
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3)
        ),
        max_size=3,
    )
)
def test_padding_moves_the_field(layers):
    f = receptive_field(layers)
    middle = 40 // f.step  # an output whose field is far from every border
    assume(40 + f.start + f.size < 100)
    x = torch.zeros(1, 1, 400, requires_grad=True)
    y = x
    for m, s, p, d in layers:
        y = F.conv1d(y, torch.ones(1, 1, m), stride=s, padding=p, dilation=d)
    i = middle + 40 // f.step
    touched = torch.autograd.grad(y[0, 0, i], x)[0][0, 0].nonzero()
    assert (int(touched.min()), int(touched.max()) + 1) == (
        f.start + i * f.step,
        f.start + i * f.step + f.size,
    )


def test_field_of_no_layers_is_the_pixel():
    assert receptive_field([]) == Field(1, 1, 0)


def test_field_of_two_stacks_is_the_stack_of_fields():
    a, b = [Layer(5, 2, 1), Layer(3, 1, 1, 2)], [Layer(2, 2), Layer(3)]
    f, g, both = receptive_field(a), receptive_field(b), receptive_field(a + b)
    assert both == Field(
        f.size + (g.size - 1) * f.step, f.step * g.step, f.start + g.start * f.step
    )


def test_layers_of_a_network():
    net = nn.Sequential(
        nn.Conv2d(1, 2, (5, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.ReLU(),
        nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)),
        nn.Flatten(),
    )
    assert layers_of(net) == [Layer(5, 2, 1, 1), Layer(3, 2, 1, 1), Layer(2, 2, 0, 1)]
    assert layers_of(net, axis=1) == [
        Layer(3, 1, 0, 2),
        Layer(3, 2, 1, 1),
        Layer(2, 2, 0, 1),
    ]
    assert receptive_field(layers_of(DigitCNN())) == Field(12, 4, 0)
    refused(
        layers_of, nn.Conv2d(1, 1, 3, padding="same"), name="padding", error=TypeError
    )


# ------------------------------------------------------------------------------------------------------------------------------- bad input
X, W_ = torch.zeros(2, 4, 6, 5), torch.zeros(6, 2, 3, 3)
OK = {"groups": 2}


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize(
    "x,w,bias,knobs,name,error",
    [
        (X[0], W_, None, OK, "x", ValueError),
        (X[:0], W_, None, OK, "x", ValueError),
        (X.numpy(), W_, None, OK, "x", TypeError),
        (X.long(), W_, None, OK, "x", TypeError),
        (None, W_, None, OK, "x", TypeError),
        (X, W_[0], None, OK, "w", ValueError),
        (X, W_.double(), None, OK, "w", TypeError),
        (X, [[1.0]], None, OK, "w", TypeError),
        (X, W_, None, {}, "w", ValueError),
        (X, torch.zeros(6, 2, 7, 3), None, OK, "w", ValueError),
        (X, W_, None, OK | {"dilation": 3}, "w", ValueError),
        (X, W_, torch.zeros(5), OK, "bias", ValueError),
        (X, W_, torch.zeros(6, 1), OK, "bias", ValueError),
        (X, W_, torch.zeros(6).double(), OK, "bias", TypeError),
        (X, W_, 0.0, OK, "bias", TypeError),
        (X, W_, None, {"groups": 3}, "groups", ValueError),
        (X, W_, None, {"groups": 4}, "groups", ValueError),
        (X, W_, None, {"groups": 0}, "groups", ValueError),
        (X, W_, None, {"groups": (2, 2)}, "groups", TypeError),
        (X, W_, None, OK | {"stride": 0}, "stride", ValueError),
        (X, W_, None, OK | {"stride": -1}, "stride", ValueError),
        (X, W_, None, OK | {"stride": 1.5}, "stride", TypeError),
        (X, W_, None, OK | {"stride": (1, 1, 1)}, "stride", ValueError),
        (X, W_, None, OK | {"stride": True}, "stride", TypeError),
        (X, W_, None, OK | {"stride": 10**30}, "stride", ValueError),
        (X, W_, None, OK | {"padding": -1}, "padding", ValueError),
        (X, W_, None, OK | {"padding": "same"}, "padding", TypeError),
        (X, W_, None, OK | {"dilation": 0}, "dilation", ValueError),
        (X, W_, None, OK | {"padding": 10**6}, "w", ValueError),
    ],
)
def test_convolution_refuses_by_name(conv, x, w, bias, knobs, name, error):
    refused(conv, x, w, bias, name=name, error=error, **knobs)


def test_other_functions_refuse_by_name():
    refused(conv_grads, X, W_, torch.zeros(2, 6, 4, 4), groups=2, name="g")
    refused(
        conv_grads,
        X,
        W_,
        torch.zeros(2, 6, 4, 3).double(),
        groups=2,
        name="g",
        error=TypeError,
    )
    refused(windows, X, 7, name="size")
    refused(im2col, X, 0, name="size")
    refused(windows, X, 2, padding=20_000, name="size")
    refused(max_pool, X, 2, padding=2, name="padding")
    refused(avg_pool, X, (1, 3), padding=1, name="padding")
    refused(max_pool, X, 7, name="size")
    refused(max_pool_grad, X, torch.zeros(2, 4, 3, 3), 2, name="g")
    refused(avg_pool_grad, X, torch.zeros(1, 4, 3, 2), 2, name="g")
    refused(avg_pool_grad, X, None, 2, name="g", error=TypeError)
    refused(overlap_add, torch.zeros(1, 1, 2, 2, 3, 3), (5, 4), name="p")
    refused(overlap_add, torch.zeros(2, 2, 3, 3), (4, 4), name="p")
    refused(overlap_add, torch.zeros(1, 1, 2, 2, 3, 3), (4, 4), stride=0, name="stride")
    refused(conv_output_size, 5, 6, name="kernel")
    refused(conv_output_size, 0, 1, name="size")
    refused(conv_output_size, 5, 3, dilation=0, name="dilation")
    refused(conv_output_size, 5, "3", name="kernel", error=TypeError)
    refused(receptive_field, [3], name="layers[0]")
    refused(receptive_field, [(3,), (3, 0)], name="layers[1].stride")
    refused(receptive_field, [(3, 1, -1)], name="layers[0].padding")
    refused(receptive_field, [()], name="layers[0]")
    refused(shifted, [[1.0]], 1, name="images", error=TypeError)
    refused(shifted, X, 1.5, name="dy", error=TypeError)
    refused(shifted, X, 0, 10**30, name="dx")
    refused(DigitCNN(), torch.zeros(2, 27, 28), name="x")
    refused(DigitCNN(), torch.zeros(2, 1, 28, 28), name="x")


ODD = [
    0,
    -1,
    2**40,
    10**30,
    -(10**30),
    1.5,
    math.nan,
    None,
    True,
    "1",
    (),
    (1,),
    (1, 2, 3),
    (1, None),
    [2, 1],
    np.int64(2),
    torch.tensor(1),
    torch.tensor([1, 2]),
    np.float32(1),
    {},
]
STRANGE = [
    None,
    3,
    torch.tensor(1.0),
    torch.ones(2, 2, 4, 4, dtype=torch.int64),
    torch.ones(1, 2, 3, 3).double(),
    torch.full((1, 2, 3, 3), math.nan),
    [[1.0]],
    np.ones((1, 1, 3, 3)),
]


class Dice(random.Random):
    "Arguments, most of them sensible, from one number that hypothesis draws: two thousand examples take seconds, not minutes."

    def whole(self, low, high):
        return self.choice(ODD) if self.random() < 0.06 else self.randint(low, high)

    def knob(self, low, high):
        return (
            (self.randint(low - (self.random() < 0.05), high), self.randint(low, high))
            if self.random() < 0.4
            else self.whole(low, high)
        )

    def tensor(self, *shape):
        if self.random() < 0.05:
            return self.choice(STRANGE)
        if self.random() < 0.05:
            shape = [self.randint(0, 3) for _ in range(self.randint(3, 5))]
        return torch.randn(
            *shape, generator=torch.Generator().manual_seed(self.randrange(2**32))
        )

    def images(self):
        return self.tensor(
            self.randint(1, 2),
            self.randint(1, 4),
            self.randint(1, 5),
            self.randint(1, 5),
        )

    def conv(self):
        groups, c = self.randint(1, 2), self.randint(1, 2)
        x = self.tensor(
            self.randint(1, 2),
            groups * c + (self.random() < 0.1),
            self.randint(1, 5),
            self.randint(1, 5),
        )
        w = self.tensor(
            groups * self.randint(1, 2) + (self.random() < 0.1),
            c,
            self.randint(1, 3),
            self.randint(1, 3),
        )
        knobs = {
            "stride": self.knob(1, 3),
            "padding": self.knob(0, 2),
            "dilation": self.knob(1, 2),
            "groups": groups if self.random() < 0.9 else self.whole(0, 3),
        }
        return x, w, knobs


dice = st.integers(0, 2**63).map(Dice)


def answer(f, *args, **kwargs):
    "What `f` returns, or the error, which must be one of the documented."
    try:
        return f(*args, **kwargs)
    except REFUSED as e:
        assert str(e) and "\n" not in str(e) and "expected" in str(e), e
        return e


def failed(y):
    return isinstance(y, Exception)


def plain(v):
    return (
        v
        if v is None
        else tuple(map(int, v))
        if isinstance(v, (tuple, list))
        else int(v)
    )


@many
@given(dice)
def test_fuzz_convolutions(d):
    "All three agree: the same error, or what torch computes."
    x, w, knobs = d.conv()
    bias = (
        None
        if d.random() < 0.5
        else d.tensor(len(w))
        if isinstance(w, torch.Tensor) and w.ndim and d.random() < 0.9
        else d.tensor(2)
    )
    loops, *others = [answer(f, x, w, bias, **knobs) for f in CONVS]
    for y in others:
        assert (
            str(y) == str(loops)
            if failed(loops)
            else torch.allclose(y, loops, atol=1e-5, equal_nan=True)
        )
    if not failed(loops):
        assert torch.allclose(
            loops,
            F.conv2d(x, w, bias, **{k: plain(v) for k, v in knobs.items()}),
            atol=1e-5,
            equal_nan=True,
        )


@many
@given(dice)
def test_fuzz_conv_grads(d):
    x, w, knobs = d.conv()
    g = (
        torch.randn_like(y)
        if not failed(y := answer(conv_im2col, x, w, **knobs)) and d.random() < 0.9
        else d.images()
    )
    found = answer(conv_grads, x, w, g, **knobs)
    if failed(y):
        assert failed(found)
    if not failed(found):
        assert torch.allclose(
            (found[1] * w).sum(), (y * g).sum(), atol=1e-3, equal_nan=True
        ) and torch.allclose(
            (found[0] * x).sum(), (y * g).sum(), atol=1e-3, equal_nan=True
        )


@many
@given(dice)
def test_fuzz_pooling(d):
    x, size, knobs = (
        d.images(),
        d.knob(1, 4),
        {
            "stride": None if d.random() < 0.4 else d.knob(1, 3),
            "padding": d.knob(0, 1) if d.random() < 0.5 else 0,
        },
    )
    pool, back, torchs = d.choice(
        [
            (max_pool, max_pool_grad, F.max_pool2d),
            (avg_pool, avg_pool_grad, F.avg_pool2d),
        ]
    )
    y = answer(pool, x, size, **knobs)
    if not failed(y):
        assert torch.allclose(
            y,
            torchs(x, plain(size), **{k: plain(v) for k, v in knobs.items()}),
            atol=1e-6,
            equal_nan=True,
        )
    g = torch.randn_like(y) if not failed(y) and d.random() < 0.9 else d.images()
    by_x = answer(back, x, g, size, **knobs)
    assert failed(by_x) or not failed(y) and by_x.shape == x.shape


@many
@given(dice)
def test_fuzz_windows(d):
    x, size, knobs = (
        d.images(),
        d.knob(1, 3),
        {"stride": d.knob(1, 3), "padding": d.knob(0, 2), "dilation": d.knob(1, 2)},
    )
    p, columns = answer(windows, x, size, **knobs), answer(im2col, x, size, **knobs)
    if failed(p):
        assert str(p) == str(columns)
    else:
        unfolded = F.unfold(x, plain(size), **{k: plain(v) for k, v in knobs.items()})
        assert torch.allclose(columns, unfolded, equal_nan=True)
        assert torch.allclose(
            overlap_add(p, tuple(x.shape[2:]), **knobs),
            F.fold(
                unfolded,
                x.shape[2:],
                plain(size),
                **{k: plain(v) for k, v in knobs.items()},
            ),
            atol=1e-5,
            equal_nan=True,
        )
    answer(
        overlap_add,
        p if isinstance(p, torch.Tensor) and d.random() < 0.9 else x,
        d.knob(1, 5),
        **knobs,
    )


@many
@given(dice)
def test_fuzz_output_size(d):
    size, kernel, stride, padding, dilation = (
        d.whole(1, 9),
        d.whole(1, 6),
        d.whole(1, 3),
        d.whole(0, 3),
        d.whole(1, 3),
    )
    n = answer(
        conv_output_size,
        size,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    assert (
        failed(n)
        or n
        == len(
            range(
                0,
                int(size) + 2 * int(padding) - int(dilation) * (int(kernel) - 1),
                int(stride),
            )
        )
        > 0
    )


@many
@given(dice)
def test_fuzz_receptive_field(d):
    layers = [
        tuple(d.whole(low, 4) for low in (1, 1, 0, 1)[: d.randint(1, 4)])
        if d.random() < 0.95
        else d.choice(ODD)
        for _ in range(d.randint(0, 4))
    ]
    f = answer(receptive_field, layers)
    assert failed(f) or f.size >= 1 and f.step >= 1 and f.start <= 0


@many
@given(dice)
def test_fuzz_shifted(d):
    x = d.images()
    y = answer(shifted, x, d.whole(-6, 6), d.whole(-6, 6))
    assert failed(y) or y.shape == x.shape and y.dtype == x.dtype


# ----------------------------------------------------------------------------------------------------------------------- the same in Keras
@pytest.fixture(scope="module")
def keras_model():
    return keras_cnn((3, 5), 7)


def out(model, x):
    return np.asarray(model(x.numpy()).detach().cpu())


@pytest.mark.parametrize("seed", range(3))
def test_copied_weights_give_equal_outputs(keras_model, seed):
    torch.manual_seed(seed)
    model, x = DigitCNN((3, 5), 7).eval(), torch.rand(8, 28, 28)
    with torch.no_grad():
        y = model(x).numpy()
    assert np.abs(out(keras_model, x) - y).max() > 1e-3  # not before
    assert copy_to_keras(model, keras_model) is keras_model
    assert np.abs(out(keras_model, x) - y).max() < 1e-5


def test_a_copy_that_does_not_fit_changes_nothing(keras_model):
    before = [w.copy() for w in keras_model.get_weights()]
    assert "layer" in refused(
        copy_to_keras, DigitCNN((3, 6), 7), keras_model, name="keras_model"
    )
    refused(
        copy_to_keras,
        nn.Sequential(nn.Conv2d(1, 3, 5), nn.Flatten(), nn.Linear(3 * 24 * 24, 7)),
        keras_model,
        name="keras_model",
    )
    assert "1.weight" in refused(
        copy_to_keras,
        nn.Sequential(nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3)),
        keras_model,
        name="model",
    )
    refused(
        copy_to_keras,
        nn.Sequential(
            nn.Conv2d(1, 3, 5, bias=False),
            nn.Conv2d(3, 5, 3),
            nn.Flatten(),
            nn.Linear(125, 7),
        ),
        keras_model,
        name="keras_model",
    )
    assert all((a == b).all() for a, b in zip(before, keras_model.get_weights()))


def test_copy_of_other_networks():
    "Groups, no bias, two linear layers in a row, maps that are not square: the flattening is told apart from what comes after it."
    import keras
    from keras import layers as L

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, (3, 2), groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(6 * 4 * 6, 12),
        nn.ReLU(),
        nn.Linear(12, 6),
    )
    theirs = keras.Sequential(
        [
            keras.Input((6, 7, 2)),
            L.Conv2D(6, (3, 2), groups=2, use_bias=False),
            L.Flatten(),
            L.Dense(12, activation="relu"),
            L.Dense(6),
        ]
    )
    x = torch.rand(4, 2, 6, 7)
    copy_to_keras(model, theirs)
    with torch.no_grad():
        assert (
            np.abs(out(theirs, x.permute(0, 2, 3, 1)) - model(x).numpy()).max() < 1e-5
        )


def test_match_is_the_articles_sum():
    x, w = np.random.default_rng(0).normal(size=(2, 3, 4))
    assert math.isclose(
        match(torch.tensor(x), torch.tensor(w)).item(),
        sum(x[u, v] * w[u, v] for u in range(3) for v in range(4)),
    )
