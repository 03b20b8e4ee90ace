"What comes in, and what is said of what may not."

from pathlib import Path

import numpy as np
import pytest
import torch

from mmcourse.inputs import (
    as_data,
    as_pair,
    choice,
    each,
    floats,
    image_floats,
    labels,
    leaves,
    mask,
    modules,
    number,
    numbers,
    opened,
    probabilities,
    token_ids,
    what,
    whole,
)


@pytest.mark.parametrize(
    "x,says",
    [
        (b"abc", "3 bytes"),
        (bytearray(2), "2 bytes"),
        ("seven.png", "'seven.png'"),
        (Path("a"), "'a'"),
        ("x" * 60, "'" + "x" * 57 + "…'"),
        ("x" * 59, "'" + "x" * 59 + "'"),
        (np.zeros((3, 4), np.float32), "ndarray float32 (3, 4)"),
        (torch.zeros(2), "Tensor torch.float32 (2,)"),
        (True, "bool True"),
        (1.5, "float 1.5"),
        ([1, 2], "list of 2"),
        ({"a": 1}, "dict of 1"),
        (None, "NoneType"),
    ],
)
def test_what(x, says):
    assert what(x) == says


@pytest.mark.parametrize("v", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_takes_every_whole_number(v):
    got = whole(v, "n", 3, 3)
    assert got == 3 and type(got) is int


@pytest.mark.parametrize(
    "v,low,high,error,says",
    [
        (True, None, None, TypeError, "n: expected a whole number, got bool True"),
        (np.bool_(True), None, None, TypeError, "n: expected a whole number"),
        (1.0, None, None, TypeError, "n: expected a whole number, got float 1.0"),
        ("1", None, None, TypeError, "n: expected a whole number, got '1'"),
        (None, None, None, TypeError, "n: expected a whole number, got NoneType"),
        (2, 3, None, ValueError, "n: expected a whole number from 3, got 2"),
        (8, None, 7, ValueError, "n: expected a whole number to 7, got 8"),
        (8, 3, 7, ValueError, "n: expected a whole number from 3 to 7, got 8"),
    ],
)
def test_whole_refuses(v, low, high, error, says):
    with pytest.raises(error, match=f"^{says}"):
        whole(v, "n", low, high)


@pytest.mark.parametrize("v", [2, 2.0, np.float32(2), torch.tensor(2.0), np.int8(2)])
def test_number_takes_every_number(v):
    got = number(v, "lr", 2, 2)
    assert got == 2 and type(got) is float


@pytest.mark.parametrize(
    "v,error,says",
    [
        (True, TypeError, "lr: expected a number, got bool True"),
        ("2", TypeError, "lr: expected a number, got '2'"),
        (None, TypeError, "lr: expected a number, got NoneType"),
        ([1, 2], TypeError, "lr: expected a number, got list of 2"),
        (float("nan"), ValueError, "lr: expected a finite number, got nan"),
        (float("inf"), ValueError, "lr: expected a finite number, got inf"),
        (-0.5, ValueError, "lr: expected a number from 0 to 1, got -0.5"),
        (1.5, ValueError, "lr: expected a number from 0 to 1, got 1.5"),
    ],
)
def test_number_refuses(v, error, says):
    with pytest.raises(error, match=f"^{says}"):
        number(v, "lr", 0, 1)


def test_choice():
    assert choice("b", "letter", "ab") == "b"
    with pytest.raises(
        ValueError, match=r"letter: expected one of \['a', 'b'\], got 3"
    ):
        choice(3, "letter", iter("ab"))


def test_each_names_the_input_and_keeps_what_is_missing():
    def one(x, name):
        return f"{name} {x}"

    assert each("w", ["a", None], one) == ["w[0] a", None]
    assert each("w", (3,), one) == ["w[0] 3"]
    assert each("w", np.arange(2), one) == ["w[0] 0", "w[1] 1"]


@pytest.mark.parametrize("x", ["odd", b"odd", Path("odd"), {"a": 1}, 3, np.array(3)])
def test_each_wants_a_list(x):
    with pytest.raises(TypeError, match="w: expected a list, one input an example"):
        each("w", x, lambda x, name: x)


def test_each_wants_something():
    with pytest.raises(
        ValueError, match="w: expected at least one input, got list of 0"
    ):
        each("w", [], lambda x, name: x)


def test_numbers_keeps_type_and_values():
    for x in ([[1, 2]], np.float16([[1, 2]]), torch.tensor([[1, 2]]), [[True, False]]):
        got = numbers(x, "x", (1, None))
        assert isinstance(got, np.ndarray) and got.tolist() == np.asarray(x).tolist()
    assert numbers(np.float16([1]), "x").dtype == np.float16
    assert numbers(torch.ones(2).bfloat16().requires_grad_(), "x").tolist() == [1, 1]
    assert numbers(3, "x").shape == ()


@pytest.mark.parametrize(
    "x,shape,error,says",
    [
        ("one", None, TypeError, "x: expected numbers, got 'one'"),
        (b"one", None, TypeError, "x: expected numbers, got 3 bytes"),
        (["a"], None, TypeError, "x: expected numbers, got list of 1 holding <U1"),
        (
            [1j],
            None,
            TypeError,
            "x: expected numbers, got list of 1 holding complex128",
        ),
        ([None], None, TypeError, "x: expected numbers, got list of 1 holding object"),
        ([[1, 2], [3]], None, ValueError, "x: expected rows of equal length"),
        ([], None, ValueError, r"x: expected at least one value, got shape \(0,\)"),
        ([1, np.nan, np.inf], None, ValueError, "x: expected finite .* got 2 of 3 NaN"),
        ([1, 2], (3,), ValueError, r"x: expected shape \(3\), got \(2,\)"),
        ([1, 2], (None, 2), ValueError, r"x: expected shape \(any, 2\), got \(2,\)"),
    ],
)
def test_numbers_refuses(x, shape, error, says):
    with pytest.raises(error, match=f"^{says}"):
        numbers(x, "x", shape)


def test_floats():
    t = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert floats(t, "x") is t
    for x in ([1, 2], np.arange(2.0), torch.tensor([1, 2]), [True, False]):
        assert floats(x, "x").dtype == torch.float32
    a = np.zeros(2, np.float32)
    floats(a, "x")[0] = 1
    assert a[0] == 0  # a copy: nobody writes into the caller's array
    with pytest.raises(ValueError, match=r"x: expected shape \(2\)"):
        floats([1, 2, 3], "x", (2,))


def test_image_floats():
    t = torch.zeros(1, 2)
    assert image_floats(t) is t
    shapes_alone = torch.zeros(1, 2, device="meta")
    assert image_floats(shapes_alone) is shapes_alone
    assert image_floats(np.zeros((1, 2))).dtype == torch.float32
    for whole_numbers in (np.zeros((1, 2), np.uint8), t.long(), [[0, 255]], t.bool()):
        with pytest.raises(TypeError, match="pixels: expected floats, scaled, got"):
            image_floats(whole_numbers)
    with pytest.raises(ValueError, match="pixels: expected finite"):
        image_floats(t / 0)
    with pytest.raises(ValueError, match=r"pixels: expected shape \(any, 3\)"):
        image_floats(t, (None, 3))


def test_mask():
    for x in ([1, 0], np.array([True, False]), torch.tensor([1.0, 0.0])):
        got = mask(x, "m", (2,))
        assert got.dtype == torch.bool and got.tolist() == [True, False]
    with pytest.raises(ValueError, match="m: expected true and false alone"):
        mask([1, 2], "m")


def test_probabilities():
    got = probabilities([[0.5, 0.505], [0, 1]])
    assert got.dtype == np.float64
    assert got.sum(1).tolist() == [1, 1] and got[0, 0] == pytest.approx(0.5 / 1.005)
    half = torch.randn(4, 10).softmax(1).bfloat16()
    assert probabilities(half).sum(1) == pytest.approx(np.ones(4), abs=1e-12)


@pytest.mark.parametrize(
    "p,says",
    [
        (
            [[0.5, 0.6]],
            "p: expected rows from 0 that add up to 1, .* sums from 1.1 to 1.1",
        ),
        ([[0.5, 0.47]], "add up to 1"),
        ([[-0.1, 1.1]], "values from -0.1"),
        ([0.5, 0.5], r"p: expected shape \(any, any\)"),
    ],
)
def test_probabilities_refuses(p, says):
    with pytest.raises(ValueError, match=says):
        probabilities(p, "p")


def test_token_ids():
    for ids in ([[0, 19], [3, 4]], np.array([[0, 19], [3, 4]], np.int16)):
        got = token_ids(ids, 20, 2)
        assert got.dtype == torch.int64 and got.tolist() == [[0, 19], [3, 4]]
    there = torch.tensor([[5]])
    assert token_ids(there, 20, 2) is there


@pytest.mark.parametrize(
    ("ids", "error", "why"),
    [
        ([[20]], ValueError, "ids: expected tokens 0 to 19, got 20 to 20"),
        ([[0, -1]], ValueError, "ids: expected tokens 0 to 19, got -1 to 0"),
        ([[1, 2, 3]], ValueError, "ids: expected at most 2 tokens, got 3"),
        ([[]], ValueError, "ids: expected at least one value"),
        ([1], ValueError, r"ids: expected shape \(any, any\), got \(1,\)"),
        ([[1, 2], [3]], ValueError, "ids: expected rows of equal length"),
        ([[0.5]], TypeError, "ids: expected whole numbers"),
        (["a"], TypeError, "ids: expected numbers"),
    ],
)
def test_token_ids_refuse(ids, error, why):
    with pytest.raises(error, match=why):
        token_ids(ids, 20, 2)


def test_labels():
    for y in ([2, 0], np.array([2.0, 0.0]), torch.tensor([2, 0], dtype=torch.uint8)):
        got = labels(y, n=2, classes=3)
        assert got.dtype == np.int64 and got.tolist() == [2, 0]


@pytest.mark.parametrize(
    "y,error,says",
    [
        ([0.5, 1], TypeError, "labels: expected whole numbers"),
        ([True, False], TypeError, "labels: expected whole numbers"),
        ([-1, 0], ValueError, "labels: expected classes from 0 to 2, got -1 to 0"),
        ([3, 0], ValueError, "labels: expected classes from 0 to 2, got 0 to 3"),
        ([0], ValueError, r"labels: expected shape \(2\), got \(1,\)"),
    ],
)
def test_labels_refuses(y, error, says):
    with pytest.raises(error, match=says):
        labels(y, n=2, classes=3)


def test_leaves():
    data = {"image": 1, "rest": (2, {"x": 3})}
    names = [("d['image']", 1), ("d['rest'][0]", 2), ("d['rest'][1]['x']", 3)]
    assert leaves(data, "d") == names
    assert leaves([1, 2], "d") == [("d", [1, 2])] and leaves((), "d") == []


def test_as_data_keeps_structure_types_and_values():
    t = torch.zeros(2, 3, dtype=torch.float64)
    got = as_data({"a": np.arange(2, dtype=np.int16), "b": (t, [1.5, 2])}, "x")
    assert got["a"].dtype == torch.int16 and got["a"].tolist() == [0, 1]
    assert got["b"][0] is t and got["b"][1].dtype == torch.float32


def test_as_pair_makes_class_numbers_int64():
    x, y = as_pair((np.zeros((2, 3)), {"digit": np.uint8([1, 2]), "size": [0.5, 1]}))
    assert x.shape == (2, 3) and x.dtype == torch.float64
    assert y["digit"].dtype == torch.int64 and y["digit"].tolist() == [1, 2]
    assert y["size"].dtype == torch.float32
    assert as_pair([np.uint8([5]), [True]])[0].dtype == torch.uint8


@pytest.mark.parametrize(
    "data,says",
    [
        (np.zeros(3), r"d: expected a pair \(inputs, targets\), got ndarray"),
        ((np.zeros(3),), "got tuple of 1"),
        ({"image": 1, "label": 2}, "got dict of 2"),
        (None, "got NoneType"),
        ((np.zeros(3), [1, 2]), "d: expected as many targets as inputs, got 2 and 3"),
        (({}, [1]), "d inputs: expected at least one array, got dict of 0"),
        (([], [1]), "d inputs: expected at least one value"),
        (([1], [np.nan]), "d targets: expected finite"),
        (({"t": ["a"]}, [1]), r"d inputs\['t'\]: expected numbers"),
        (
            ([1], 3),
            "d targets: expected as many rows in every part, got no in d targets",
        ),
        (({"a": [1, 2], "b": [1]}, [1]), r"2 in d inputs\['a'\], 1 in d inputs\['b'\]"),
    ],
)
def test_as_pair_refuses(data, says):
    with pytest.raises((ValueError, TypeError), match=says):
        as_pair(data, "d")


def test_opened(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"abc")
    assert opened(b"abc", "f").read() == opened(bytearray(b"abc"), "f").read() == b"abc"
    assert opened(file, "f") == opened(str(file), "f") == str(file)
    with pytest.raises(FileNotFoundError, match="f: expected a file, got the folder"):
        opened(tmp_path, "f")
    for bad in (tmp_path / "none", "a\0b", "x" * 5000):
        with pytest.raises(FileNotFoundError, match="f: expected a file, found none"):
            opened(bad, "f")


@pytest.mark.parametrize("bad", ["type", "a.b", "", "keys"])
def test_a_name_that_torch_cannot_register(bad):
    import torch

    one = torch.nn.Identity()
    assert [*modules({"text": one}, "encoders")] == ["text"]
    with pytest.raises(ValueError, match="encoders: expected other names.* got") as e:
        modules({"text": one, bad: one}, "encoders")
    assert repr(bad) in str(e.value)
