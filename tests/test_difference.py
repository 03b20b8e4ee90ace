"What differs is named, and what does not matter is let pass."

import math
import subprocess
import sys
import warnings
from collections import OrderedDict, namedtuple
from functools import partial

import numpy as np
import pytest
import torch

from mmcourse.difference import as_array, difference, shown

a = np.arange(6.0).reshape(2, 3)
Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "expected,got",
    [
        (1, 1.0),
        (1.0, 1),
        (1.0, torch.tensor(1)),
        (torch.tensor(1.0), 1),
        (np.float32(0.1), 0.1),
        (0.1, torch.tensor(0.1)),
        (True, np.True_),
        (True, torch.tensor(True)),
        (None, None),
        ("a", np.str_("a")),
        (b"a", b"a"),
        ([1, 2], torch.tensor([1, 2])),
        (np.array([1, 2]), [1, 2]),
        ((1, 2), [1, 2]),
        ([1.0, 2.0], (1, 2)),
        (np.array([1.0, 2.0]), (1, 2)),
        ([a, a], np.stack([a, a])),
        (np.stack([a, a]), [torch.tensor(a), a]),
        (a, a.astype(np.float32)),
        (a, torch.tensor(a).bfloat16()),
        (a, torch.tensor(a, requires_grad=True)),
        (a, a.tolist()),
        (a, torch.tensor(a).to_sparse()),
        (a, np.asfortranarray(a)),
        (a, torch.nn.Parameter(torch.tensor(a))),
        (np.array([np.nan, np.inf]), [np.nan, np.inf]),
        (np.array([]), []),
        ([], np.array([])),
        ([], ()),
        ({}, {}),
        (np.zeros((0, 3)), torch.zeros(0, 3)),
        (np.array(["a", "b"]), ["a", "b"]),
        (["a", "b"], np.array(["a", "b"])),
        ({"x": a, "y": [1, "b"]}, OrderedDict(y=(1, "b"), x=torch.tensor(a))),
        ({1, 2}, frozenset([2, 1])),
        ([0, 1, 2], range(3)),
        ([0, 1], iter([0, 1])),
        (Point(1, a), (1, a)),
        (torch.Size([2, 3]), (2, 3)),
        (2**70, 2**70),
        (1j, 1j),
        (a * 1j, torch.tensor(a * 1j).conj().conj()),
        (np.array([3, 4], np.uint8), torch.tensor([3, 4])),
        (1e-9, 0.0),
        (1e6, 1e6 + 1),
        (slice(1), slice(1)),
        (1.0, [1.0]),
        (np.zeros((1, 3)), np.zeros(3)),
        (a, a[:, None]),
        (a[None], torch.tensor(a)),
        (np.array([1, 2]), [1.0, 2.0]),
        (2**60, torch.tensor(2**60)),
        (np.array([1e4, 1e-4]), np.array([1e4, 2e-3], np.float32)),
        (torch.float32, torch.float32),
    ],
)
def test_equal_things_are_equal(expected, got):
    assert difference(expected, got) == ""


@pytest.mark.parametrize(
    "expected,got,says",
    [
        (1, "1", "type differs: expected a number, got a text"),
        (1, None, "type differs: expected a number, got None"),
        (None, 1, "type differs: expected None, got a number"),
        (a, "x", "type differs: expected an array of shape (2, 3), got a text"),
        ("a", 1, "type differs: expected a text, got a number"),
        ([1], {1: 1}, "type differs: expected a list of 1, got a dict of 1"),
        ({"a": 1}, [1], "type differs"),
        (
            a,
            [[1, 2], [3]],
            "type differs: expected an array of shape (2, 3), got a list of 2",
        ),
        (1.0, lambda: 1, "type differs: expected a number, got a function"),
        (1.0, object(), "got an object of type object"),
        (True, "True", "type differs: expected a number, got a text"),
        (
            a,
            a.T,
            "shape differs: expected (2, 3), got (3, 2); transposed, it would be right",
        ),
        (a, a.reshape(3, 2), "shape differs: expected (2, 3), got (3, 2)"),
        (a, 1.0, "shape differs: expected (2, 3), got ()"),
        (a, a[:, :2], "shape differs: expected (2, 3), got (2, 2)"),
        (True, 1, "kind of number differs: expected booleans, got integers"),
        (1.0, True, "kind of number differs: expected floats, got booleans"),
        (a > 2, a, "expected booleans, got floats"),
        (a, a + 0j, "expected floats, got complex numbers"),
        (np.array([1, 2]), [1.0, 3.0], "values differ: 1 of 2"),
        (np.array([1.0, 2.0]), ["a", "b"], "type differs"),
        (
            np.array([1.0, 2.0]),
            np.array(["a", "b"]),
            "type differs: expected an array of shape (2,), got a list of 2",
        ),
        (1.0, 1.5, "value differs: expected 1, got 1.5"),
        (1.0, 1.00011, "value differs: expected 1, got 1.0001"),
        (1.0, math.nan, "value differs: expected 1, got nan"),
        (1.0, math.inf, "expected 1, got inf"),
        (True, False, "value differs: expected True, got False"),
        (
            a,
            a + [0, 0, 0.5],
            "values differ: 2 of 6, "
            "the largest difference is 0.5 at index (0, 2): expected 2, got 2.5",
        ),
        (
            a,
            a + [0, 0, np.nan],
            "values differ: 2 of 6, the first at index (0, 2): expected 2, got nan",
        ),
        (
            np.array([1.0, np.nan]),
            [1.0, 2.0],
            "values differ: 1 of 2, the first at index 1: expected nan, got 2",
        ),
        (a, 2 * a, "every value is 2 times what it should be"),
        (a, -a, "with the sign changed, it would be right"),
        (a, a + 0.1, "every value is off by 0.1"),
        (a[0], a[0][::-1], "the values are right, their order is not"),
        (a[:, :2], a[:, :2].T, "transposed, it would be right"),
        (
            np.array([1, 2], np.uint8),
            np.array([1, 0], np.uint8),
            "the largest difference is 2 at index 1: expected 2, got 0",
        ),
        (
            a > 2,
            a > 3,
            "1 of 6, the first at index (1, 0): expected True, got False",
        ),
        (np.array(["a", "b"]), ["a", "c"], "in item 1, text differs"),
        (
            "a small cat",
            "a small dog",
            "text differs from character 8: expected 'cat', got 'dog'",
        ),
        ("ab", "abc", "text differs from character 2: expected '', got 'c'"),
        ("é", "e\u0301", "character 0: expected '\\xe9', got 'e\\u0301'"),
        (["a", "b"], ["a"], "length differs: expected 2, got 1"),
        ([1, 2, 3], [1, 2], "length differs: expected 3, got 2"),
        (["a", 1], ["a", 2], "in item 1, value differs: expected 1, got 2"),
        ((a, 1), (a, a), "in item 1, shape differs: expected (), got (2, 3)"),
        ({"a": 1}, {"b": 1}, "keys differ: 'a' is missing, 'b' is not expected"),
        ({"a": {"b": a}}, {"a": {"b": a.T}}, "in ['a'], in ['b'], shape differs"),
        ({1, 2}, {2, 3}, "sets differ: 1 is missing, 3 is not expected"),
        (2**70, 2**70 + 1, "value differs: expected 1180591620717411303424"),
        (
            torch.float32,
            torch.float64,
            "value differs: expected torch.float32, got torch.float64",
        ),
        (b"a", "a", "type differs: expected an object of type bytes, got a text"),
        (b"a", b"b", "value differs: expected b'a', got b'b'"),
        (None, len, "value differs: expected None, got the function len"),
        (object(), object(), "value differs: got another one than expected, a object"),
    ],
)
def test_a_difference_is_named(expected, got, says):
    assert says in difference(expected, got)


def test_tolerance():
    assert difference(1.0, 1.01, atol=0.02) == ""
    assert difference(100.0, 101.0, rtol=0.02) == ""
    assert difference(1.0, 1.01) and difference(0.0, 1e-5)
    nested = {"x": [1.0, (1.0, 2.0)]}
    assert difference(nested, {"x": [1.009, (1.0, 2.009)]}, atol=0.01) == ""
    assert difference(nested, {"x": [1.009, (1.0, 2.02)]}, atol=0.01)


def test_tolerance_is_handed_down():
    assert difference([100.0], [101.0], rtol=0.02) == ""
    assert difference({"x": 0.0}, {"x": 0.5}, atol=1) == ""


def test_float32_gets_its_rounding_at_the_largest_value():
    "A sum of terms near 1e4 is off by 1e-3 in float32, which no learner can help."
    e = np.array([1e4, 0.0])
    assert difference(e, np.array([1e4, 0.0235], np.float32)) == ""
    assert difference(e.astype(np.float32), np.array([1e4, 0.0235])) == ""
    assert difference(e, np.array([1e4, 0.0242], np.float32))
    assert difference(e, np.array([1e4, 0.02]))
    assert difference(np.array([1e-3, 0.0]), np.array([1e-3, 3e-6], np.float32))
    assert difference(np.array([np.inf, 0.0], np.float32), np.array([np.inf, 0.1]))


b = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    "expected,got,remark",
    [
        (a, a.T, "transposed, it would be right"),
        (1000 * (a + 1), 1000 * (a + 1).T + 0.005, "transposed, it would be right"),
        (a, a.T + 5e-7, "transposed, it would be right"),
        (b, b.T, "transposed, it would be right"),
        (a, a.reshape(3, 2), ""),
        (np.arange(4.0), np.arange(3.0), ""),
        (np.eye(2) + a[:, :2], (np.eye(2) + a[:, :2]).T, "transposed"),
        (np.array([1.0, 2]), np.array([2.0, 4]), ""),
        (np.array([1.0, 2, 1.5]), np.array([2.0, 4, 3]), "2 times what it should be"),
        (np.ones(3), 2 * np.ones(3), ""),
        (np.array([1.0, 2, 3]), np.zeros(3), ""),
        (np.array([1.0, np.nan, 2]), np.array([np.nan, 1.0, 2]), ""),
        (np.array([1.0, np.inf, 2]), np.array([2.0, np.inf, 4]), ""),
        (a, a[:, ::-1], ""),
        (np.array([1, 2, 4]), np.array([4, 2, 1]), "right, their order is not"),
        (np.array([1, 2, 4]), np.array([0, 1, 3]), "off by -1"),
        (np.array([1, 2, 4]), np.array([-1, -2, -4]), "with the sign changed"),
        (a > 1, a < 2, ""),
    ],
)
def test_what_would_make_it_right(expected, got, remark):
    found = difference(expected, got)
    assert remark in found and ("; " in found) == bool(remark)


def test_complex_numbers_are_as_far_apart_as_they_are():
    found = difference(np.array([1j, 1j]), np.array([2j, 4j]))
    assert "the largest difference is 3 at index 1: expected 0+1j, got 0+4j" in found


def test_no_warning_is_printed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e = np.array([np.inf, np.nan, 1.0])
        assert difference(e, np.array([-np.inf, np.nan, 1.0]))
        assert difference(np.array([np.inf, 1, 2]), np.array([np.inf, 2, 4]))


def test_as_many_digits_as_it_takes():
    assert difference(0.6, 0.7) == "value differs: expected 0.6, got 0.7"
    assert difference(0.12345, 0.9) == "value differs: expected 0.1235, got 0.9"
    found = difference(0.12345, 0.12346)
    assert found == "value differs: expected 0.12345, got 0.12346"


def test_long_differences_are_short():
    assert difference("", "a" * 99) == (
        f"text differs from character 0: expected '', got '{'a' * 50}'"
    )
    found = difference("b" * 99, "a")
    assert f"expected '{'b' * 50}', got 'a'" in found
    keys = dict.fromkeys("abcdef")
    assert difference(keys, {}) == "keys differ: " + ", ".join(
        f"{k!r} is missing" for k in "abcde"
    )
    assert difference({}, keys).count("is not expected") == 5
    assert difference({*"abcdef"}, set()).count("is missing") == 5
    assert difference(set(), {1, "a"}) == (
        "sets differ: 'a' is not expected, 1 is not expected"
    )
    assert difference({1, "a"}, {1, "a"}) == ""
    assert difference({1, "a", "b", 2}, {1}) == (
        "sets differ: 'a' is missing, 'b' is missing, 2 is missing"
    )


@pytest.mark.parametrize("digits", [5, 8, 12, 14])
def test_digits_enough_to_tell_apart(digits):
    "What is printed as expected and as got is never the same."
    found = difference(0.1234567, 0.1234567 + 10.0**-digits, rtol=0, atol=0)
    expected, got = found.removeprefix("value differs: expected ").split(", got ")
    assert expected != got
    assert float(expected) == pytest.approx(float(got), abs=2 * 10.0**-digits)


def test_a_value_in_one_line():
    assert shown(0.1 + 0.2) == "0.3" and shown(-0.0) == "0" and shown(True) == "True"
    assert shown(1234567) == "1234567" and shown(1 + 2.00001j) == "1+2j"
    assert shown(np.eye(2)) == "[[1, 0], [0, 1]] with shape (2, 2)"
    assert shown(torch.zeros(0, 2)) == "[] with shape (0, 2)"
    assert shown([1.0, "a", None]) == "[1, 'a', None]"
    assert shown((1, [2.5])) == "(1, [2.5])"
    assert shown({"x": (1,)}) == "{'x': (1)}"
    assert shown(np.arange(12)) == f"[{', '.join(map(str, range(12)))}]"
    assert (
        shown(np.arange(13)) == "integers with shape (13,) from 0 to 12: 0, 1, 2, 3, …"
    )
    assert shown(np.zeros(13) > 0).startswith("booleans with shape (13,): False, False")
    found = shown(np.array([1, np.nan] * 20))
    assert (
        found == "floats with shape (40,) from 1 to 1, 20 not finite: 1, nan, 1, nan, …"
    )
    assert shown(np.full(20, np.inf)).startswith(
        "floats with shape (20,), 20 not finite"
    )
    assert shown(object()) == "a object" and shown(np.mean) == "the function mean"
    assert shown(int) == "the class int"
    assert shown(math) == repr(math)
    assert shown(partial(abs)) == "functools.partial(<built-in function abs>)"
    assert shown(0.123456) == "0.1235" and shown(np.array(0.123456)) == "0.1235"


def test_long_things_are_summarised():
    assert len(shown(dict.fromkeys(range(99), "x" * 50))) == 300
    assert "…" not in shown("x" * 158) and shown("x" * 159).endswith("…")
    assert len(shown(["x" * 96] * 3)) == 300 and "…" not in shown(["x" * 96] * 3)
    assert shown(["x" * 96, "x" * 96, "x" * 97]).endswith("xx…")
    assert shown("x" * 999) == "'" + "x" * 158 + "…"
    assert shown(list(range(13))).endswith("11, … (13 in all)]")
    assert "…" not in shown(list(range(12)))


@pytest.mark.parametrize(
    "v",
    [
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.float16, requires_grad=True),
        torch.ones(2).to_sparse(),
        torch.ones(2, dtype=torch.complex64).conj(),
        np.ones(2),
    ],
)
def test_numbers_become_arrays(v):
    a = as_array(v)
    assert isinstance(a, np.ndarray) and a.tolist() == [1, 1]


def test_what_holds_no_numbers_stays():
    assert as_array("a") == "a" and as_array(np.str_("a")) == "a"
    assert as_array(np.array(["a", "b"])) == ["a", "b"]
    assert as_array(torch.Tensor) is torch.Tensor and as_array(None) is None
    assert as_array(2**70) == 2**70 and as_array([1, 2]) == [1, 2]


def test_it_needs_no_torch():
    code = 'import sys, mmcourse.difference; print("torch" in sys.modules)'
    args = [sys.executable, "-c", code]
    assert subprocess.run(args, capture_output=True, text=True).stdout == "False\n"
