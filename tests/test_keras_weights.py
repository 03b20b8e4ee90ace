"A torch network and its twin in Keras compute the same, once weights are copied."

import numpy as np
import pytest
import torch
from torch import nn

from mmcourse.keras_weights import keras_arrays, keras_on_torch, places_last, to_keras
from mmcourse.measure import seeded

LAST = {"data_format": "channels_last"}


@pytest.fixture(scope="module")
def L():
    return keras_on_torch().layers


def sequential(shape, *layers, dtype="float32"):
    keras = keras_on_torch()
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def equal(theirs, ours, atol=1e-5):
    torch.testing.assert_close(theirs.detach(), ours.detach(), atol=atol, rtol=1e-4)


def test_rows_sorted_by_hand():
    kernel = np.arange(6.0)[:, None]  # 2 channels of 3 places
    assert places_last(kernel, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [True, False], ids=["both ways", "one way"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_recurrent_layers(L, name, depth, both, bias):
    with seeded(0):
        x, kind = torch.randn(3, 6, 4), getattr(nn, name.removeprefix("Simple"))
        options = {"batch_first": True, "bidirectional": both, "bias": bias}
        ours = kind(4, 5, depth, **options)
    layers = []
    for _ in range(depth):
        layer = getattr(L, name)(5, return_sequences=True, use_bias=bias)
        layers.append(L.Bidirectional(layer) if both else layer)
    equal(to_keras(ours, sequential((6, 4), *layers))(x), ours(x)[0])


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_one_layer_that_is_not_built(L, name):
    with seeded(0):
        x, ours = torch.randn(3, 6, 4), getattr(nn, name.removeprefix("Simple"))(4, 5)
    layer = getattr(L, name)(5, return_sequences=True)
    assert to_keras(ours, layer) is layer
    equal(layer(x), ours(x.transpose(0, 1))[0].transpose(0, 1))


@pytest.mark.parametrize("bias", [True, False])
def test_image_network(L, bias):
    "A rectangle, and as many places as channels: no mix-up goes unnoticed."
    with seeded(0):
        x = torch.randn(5, 3, 7, 4)
        ours = nn.Sequential(
            nn.Conv2d(3, 10, (2, 3), bias=bias),
            nn.BatchNorm2d(10, momentum=0.5),
            nn.MaxPool2d((1, 2)),
            nn.ReLU(),
            nn.Conv2d(10, 5, (2, 1)),
            nn.Flatten(),
            nn.Linear(25, 6, bias=bias),
            nn.LayerNorm(6),
            nn.Linear(6, 2),
        )
        nn.init.normal_(ours[1].weight)
        nn.init.normal_(ours[1].bias)
        nn.init.normal_(ours[7].weight)
        ours(3 * x + 1)
    theirs = sequential(
        (7, 4, 3),
        L.Conv2D(10, (2, 3), use_bias=bias, **LAST),
        L.BatchNormalization(epsilon=1e-5),
        L.MaxPooling2D((1, 2), **LAST),
        L.ReLU(),
        L.Conv2D(5, (2, 1), **LAST),
        L.Flatten(**LAST),
        L.Dropout(0.5),
        L.Dense(6, use_bias=bias),
        L.LayerNormalization(epsilon=1e-5),
        L.Dense(2),
    )
    to_keras(ours, theirs)
    equal(theirs(x.permute(0, 2, 3, 1)), ours.eval()(x))


def test_sound_network(L):
    with seeded(0):
        x = torch.randn(5, 3, 8)  # (B, bands, frames)
        ours = nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 2)
        )
        ours(x)
    norm = L.BatchNormalization(epsilon=1e-5)
    flatten, dense = L.Flatten(**LAST), L.Dense(2)
    theirs = sequential((8, 3), L.Conv1D(4, 3, **LAST), norm, flatten, dense)
    to_keras(ours, theirs)
    equal(theirs(x.transpose(1, 2)), ours.eval()(x))


def test_words_are_flattened_alike(L):
    "Only a convolution's maps change their order."
    with seeded(0):
        words = torch.randint(9, (5, 4))
        ours = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 2))
    layers = L.Embedding(9, 3), L.Flatten(**LAST), L.Dense(2)
    equal(to_keras(ours, sequential((4,), *layers, dtype="int32"))(words), ours(words))


def test_nested_models(L):
    "After the flattened layer the next dense one is copied as it is."
    with seeded(0):
        x = torch.randn(5, 2, 4, 3)
        body = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(18, 6))
        ours = nn.Sequential(body, nn.Linear(6, 4))
    flatten, dense = L.Flatten(**LAST), L.Dense(6)
    inner = sequential((4, 3, 2), L.Conv2D(3, 2, **LAST), flatten, dense)
    theirs = sequential((4, 3, 2), inner, L.Dense(4))
    equal(to_keras(ours, theirs)(x.permute(0, 2, 3, 1)), ours(x))


def test_refusals(L):
    dense = sequential((3,), L.Dense(2))
    two = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="^keras_model: expected 2 layers .* got 1"):
        to_keras(two, dense)
    with pytest.raises(TypeError, match="^layer: expected one with a twin in Keras"):
        list(keras_arrays(nn.Bilinear(2, 2, 2)))
    with pytest.raises(ValueError):  # Keras's own words
        to_keras(nn.Linear(4, 2), dense)
