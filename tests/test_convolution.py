"Convolution, pooling, receptive fields and gradients: torch, laws, by hand."

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import correlate2d
from torch import nn

from mmcourse.convolution import (
    DigitCNN,
    Field,
    Layer,
    avg_pool,
    conv_grad_w,
    conv_grad_x,
    conv_grads,
    conv_im2col,
    conv_loops,
    conv_output_size,
    conv_view,
    im2col,
    keras_cnn,
    layers_of,
    match,
    max_pool,
    max_pool_grad,
    overlap_add,
    patches,
    receptive_field,
    shifted,
    windows,
)
from mmcourse.keras_weights import to_keras


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def equal(ours, reference):
    assert ours.dtype == reference.dtype
    torch.testing.assert_close(ours, reference, atol=1e-9, rtol=1e-9)


# one number, one map
def test_match_by_hand():
    x = torch.tensor([[1.0, 2], [3, 4]])
    w = torch.tensor([[1.0, 0], [-1, 2]])
    assert match(x, w).item() == 1 - 3 + 8


@pytest.mark.parametrize("conv", [conv_loops, conv_view])
@pytest.mark.parametrize("size", [(5, 7, 3, 2), (4, 3, 1, 3), (3, 3, 3, 3)])
def test_one_map(conv, size):
    H, W, m, n = size
    x, w = normal(H, W), normal(m, n, seed=1)
    y = conv(x, w)
    equal(y, F.conv2d(x[None, None], w[None, None])[0, 0])
    equal(y, torch.from_numpy(correlate2d(x, w, "valid")))


def test_patches_are_a_view():
    x = normal(2, 5, 6)
    p = patches(x, 3, 2)
    assert p.shape == (2, 3, 5, 3, 2)
    equal(p[1, 2, 3], x[1, 2:5, 3:5])
    assert p.data_ptr() == x.data_ptr()


def test_gradients_of_one_map():
    x, w, g = normal(6, 5).requires_grad_(), normal(3, 2, seed=1), normal(4, 4, seed=2)
    w.requires_grad_()
    F.conv2d(x[None, None], w[None, None])[0, 0].backward(g)
    equal(conv_grad_w(x.detach(), g), w.grad)
    equal(conv_grad_x(w.detach(), g), x.grad)


# channels and knobs
CASES = [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 1},
    {"padding": 2, "dilation": 2},
    {"stride": 2, "padding": 1, "dilation": 2, "groups": 2},
    {"groups": 2},
]


def case(groups=1, **knobs):
    x, w = normal(2, 4, 9, 8), normal(6, 4 // groups, 3, 2, seed=1)
    return x, w, normal(6, seed=2), knobs | ({"groups": groups} if groups > 1 else {})


@pytest.mark.parametrize("knobs", CASES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_convolution(knobs, with_bias):
    x, w, bias, knobs = case(**knobs)
    bias = bias if with_bias else None
    equal(conv_im2col(x, w, bias, **knobs), F.conv2d(x, w, bias, **knobs))


@pytest.mark.parametrize("knobs", CASES)
def test_columns_and_windows(knobs):
    x, _, _, knobs = case(**knobs)
    knobs.pop("groups", None)
    columns = F.unfold(x, (3, 2), **knobs)
    equal(im2col(x, 3, 2, **knobs), columns)
    p = windows(x, 3, 2, **knobs)
    assert p.shape[2:4] == F.conv2d(x, x[:1, :, :3, :2], **knobs).shape[2:]
    equal(overlap_add(p, 9, 8, **knobs), F.fold(columns, (9, 8), (3, 2), **knobs))


@pytest.mark.parametrize("knobs", CASES)
def test_all_gradients(knobs):
    knobs = {k: v for k, v in knobs.items() if k != "groups"}
    x, w, bias, knobs = case(**knobs)
    leaves = [t.requires_grad_() for t in (x, w, bias)]
    y = F.conv2d(*leaves, **knobs)
    g = normal(*y.shape, seed=3)
    y.backward(g)
    ours = conv_grads(x.detach(), w.detach(), g, **knobs)
    for grad, leaf in zip(ours, leaves):
        equal(grad, leaf.grad)


def test_padding_holds_what_it_is_told():
    p = windows(torch.ones(1, 1, 2, 2), 2, 2, padding=1, fill=-7.0)
    assert p[0, 0, 0, 0].tolist() == [[-7, -7], [-7, 1]]


@pytest.mark.parametrize("m, s, p, d", product((1, 2, 5), (1, 2, 3), (0, 2), (1, 2)))
def test_output_size(m, s, p, d):
    knobs = {"stride": s, "padding": p, "dilation": d}
    for H in (9, 12):
        y = F.conv1d(torch.zeros(1, 1, H), torch.zeros(1, 1, m), **knobs)
        assert conv_output_size(H, m, **knobs) == y.shape[-1]


# pooling
POOLS = [{}, {"stride": 1}, {"stride": 3, "padding": 1}]


@pytest.mark.parametrize("knobs", POOLS)
@pytest.mark.parametrize("size", [2, 3])
def test_pooling(size, knobs):
    "With few values, so that many windows are drawn."
    x = normal(2, 3, 7, 8).round().requires_grad_()
    equal(avg_pool(x, size, **knobs), F.avg_pool2d(x, size, **knobs))
    y = F.max_pool2d(x, size, **knobs)
    equal(max_pool(x, size, **knobs), y)
    g = normal(*y.shape, seed=1)
    y.backward(g)
    equal(max_pool_grad(x.detach(), g, size, **knobs), x.grad)


def test_padding_is_never_the_largest_and_counts_in_the_mean():
    x = torch.full((1, 1, 2, 2), -4.0)
    assert (max_pool(x, 2, padding=1) == -4).all()
    assert (avg_pool(x, 2, padding=1) == -1).all()


# what a pixel sees
STACKS = [
    [Layer(3)],
    [Layer(3, 2), Layer(4)],
    [Layer(5, 2, 2), Layer(2, 2), Layer(3, 1, 1, 2)],
    [Layer(1), Layer(3, 3, 1), Layer(3, 1, 2, 2)],
]


def seen(layers, i):
    "The first and last pixel that output `i` depends on."
    x = torch.zeros(1, 1, 90, requires_grad=True)
    y = x
    for size, *knobs in layers:
        y = F.conv1d(y, torch.ones(1, 1, size), None, *knobs)
    y[0, 0, i].backward()
    touched = x.grad[0, 0].nonzero()
    return int(touched.min()), int(touched.max())


@pytest.mark.parametrize("layers", STACKS)
def test_receptive_field_is_where_the_gradient_is(layers):
    f = receptive_field(layers)
    for i in (6, 7):
        first = f.start + i * f.step
        assert seen(layers, i) == (first, first + f.size - 1)


def test_receptive_fields_by_hand():
    assert receptive_field([]) == Field(1, 1, 0)
    assert receptive_field([Layer(5, 2, 2), Layer(3)]) == Field(9, 2, -2)
    assert receptive_field(layers_of(DigitCNN())) == Field(12, 4, 0)


def test_layers_of_a_network():
    net = nn.Sequential(
        nn.Conv2d(1, 2, (5, 3), (2, 1), (1, 0), (3, 1)),
        nn.ReLU(),
        nn.Sequential(nn.MaxPool2d(3, 2, 1, 2), nn.AvgPool2d((2, 4))),
    )
    wanted = [Layer(5, 2, 1, 3), Layer(3, 2, 1, 2), Layer(2, 2, 0, 1)]
    assert layers_of(net) == wanted


# moves
def test_shifted_by_hand():
    x = torch.tensor([[1, 2], [3, 4]])
    assert shifted(x, 1).tolist() == [[0, 0], [1, 2]]
    assert shifted(x, -1).tolist() == [[3, 4], [0, 0]]
    assert shifted(x, 0, 1).tolist() == [[0, 1], [0, 3]]
    assert shifted(x, 0, -1).tolist() == [[2, 0], [4, 0]]


def test_the_map_moves_with_the_image():
    x, w = F.pad(normal(1, 2, 6, 6), [4] * 4), normal(3, 2, 3, 3, seed=1)
    y = conv_im2col(x, w, stride=2)
    equal(conv_im2col(shifted(x, 2, -4), w, stride=2), shifted(y, 1, -2))


# the network
def test_network_is_what_its_drawing_says():
    with torch.no_grad():
        model, x = DigitCNN((3, 5), 7), torch.rand(4, 28, 28)
        h = F.max_pool2d(model.body[0](x[:, None]).relu(), 2)
        h = F.max_pool2d(model.body[3](h).relu(), 2)
        torch.testing.assert_close(model(x), model.top(h.flatten(1)))
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    assert shapes == {  # shipped weights have these names
        "body.0.weight": (3, 1, 5, 5),
        "body.0.bias": (3,),
        "body.3.weight": (5, 3, 3, 3),
        "body.3.bias": (5,),
        "top.weight": (7, 125),
        "top.bias": (7,),
    }
    assert sum(p.numel() for p in DigitCNN().parameters()) == 5386


def test_the_same_in_keras():
    assert keras_cnn().count_params() == 5386
    model, x = DigitCNN((3, 5), 7), torch.rand(4, 28, 28)
    theirs = to_keras(model, keras_cnn((3, 5), 7))
    np.testing.assert_allclose(
        theirs(x.numpy()).detach(), model(x).detach(), atol=1e-5, rtol=1e-4
    )
