"""The judge judges fairly, and every exercise of the course is sound.

First the engine, on exercises made here; then every exercise in `mmcourse/exercises/`, and that chapters and exercises agree."""

import __future__

import ast
import inspect
import json
import math
import os
import re
import subprocess
import sys
import time
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcourse import check as engine
from mmcourse.check import (
    UnknownExercise,
    all_exercises,
    challenge,
    check,
    difference,
    exercise,
    find,
    hint,
    is_stub,
    prediction,
    prove,
    solution,
    verdict,
)

ROOT = Path(__file__).resolve().parent.parent

# --- what differs

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
        (True, "True", "expected True or False, got a text"),
        (
            a,
            a.T,
            "shape differs: expected (2, 3), got (3, 2); transposed, it would be right",
        ),
        (a, a.reshape(3, 2), "shape differs: expected (2, 3), got (3, 2)"),
        (1.0, [1.0], "shape differs: expected (), got (1,); the values are right"),
        (a, 1.0, "shape differs: expected (2, 3), got ()"),
        (
            np.zeros((1, 3)),
            np.zeros(3),
            "shape differs: expected (1, 3), got (3,); the values are right",
        ),
        (a, a[:, :2], "shape differs: expected (2, 3), got (2, 2)"),
        (True, 1, "kind of number differs: expected booleans, got integers"),
        (1.0, True, "kind of number differs: expected floats, got booleans"),
        (a > 2, a, "expected booleans, got floats"),
        (a, a + 0j, "expected floats, got complex numbers"),
        (
            np.array([1, 2]),
            [1.0, 2.0],
            "kind of number differs: expected integers, got floats (of equal value)",
        ),
        (np.array([1, 2]), [1.0, 3.0], "values differ: 1 of 2"),
        (np.array([1.0, 2.0]), ["a", "b"], "type differs"),
        (
            np.array([1.0, 2.0]),
            np.array(["a", "b"]),
            "kind of number differs: expected floats, got texts",
        ),
        (1.0, 1.5, "value differs: expected 1, got 1.5, a difference of 0.5"),
        (1.0, 1.0001, "value differs: expected 1, got 1.0001, a difference of 0.0001"),
        (1.0, math.nan, "value differs: expected 1, got nan"),
        (1.0, math.inf, "expected 1, got inf"),
        (True, False, "value differs: expected True, got False"),
        (
            a,
            a + [0, 0, 0.5],
            "values differ: 2 of 6, the largest difference is 0.5 at index (0, 2): expected 2, got 2.5",
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
            "values differ: 1 of 6, the first at index (1, 0): expected True, got False",
        ),
        (np.array(["a", "b"]), ["a", "c"], "in item 1, text differs"),
        (
            np.array(["a", "b"]),
            np.array(["a", "c"]),
            "values differ: 1 of 2, the first at index 1: expected 'b', got 'c'",
        ),
        (
            "a small cat",
            "a small dog",
            "text differs from character 8: expected 'cat', got 'dog'",
        ),
        ("ab", "abc", "text differs from character 2: expected '', got 'c'"),
        ("é", "e\u0301", "text differs from character 0"),
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
        (b"a", "a", "value differs"),
    ],
)
def test_a_difference_is_named(expected, got, says):
    assert says in difference(expected, got)


def test_tolerance():
    assert (
        difference(1.0, 1.01, atol=0.02) == ""
        and difference(100.0, 101.0, rtol=0.02) == ""
        and difference(1.0, 1.01)
        and difference(0.0, 1e-5)
    )


def test_digits_enough_to_tell_apart():
    assert "expected 0.123456, got 0.123457" in difference(
        0.123456, 0.123457, rtol=0, atol=1e-9
    )


def test_long_things_are_summarised():
    assert (
        len(engine._show(np.random.rand(50, 50))) < 120
        and len(engine._show(dict.fromkeys(range(99), "x" * 50))) <= 300
        and len(engine._show("x" * 999)) < 200
        and len(engine._show(list(range(999)))) < 120
    )
    assert (
        engine._show(np.array([1, np.nan] * 20))
        == "floats with shape (40,) from 1 to 1, 20 not finite: 1, nan, 1, nan, …"
    )
    assert (
        engine._show(object()) == "a object"
        and engine._show(torch.zeros(0, 2)) == "[] with shape (0, 2)"
        and engine._show(-0.0) == "0"
    )


# --- stubs


def make(body):
    space = {}
    exec(f"def f(x, w=1, *, s=2):\n    {body}", space)
    return space["f"]


@pytest.mark.parametrize(
    "body",
    [
        "...",
        "pass",
        '"Doubles x."',
        '"Doubles x."\n    ...',
        "return",
        "return None",
        "return ...",
        "raise NotImplementedError",
        "raise NotImplementedError()",
        'raise NotImplementedError("your turn")',
        "# your code\n    ...",
        "...\n    ...",
    ],
)
def test_stubs(body):
    assert is_stub(make(body))


@pytest.mark.parametrize(
    "body",
    [
        "return x",
        "return 0",
        "x",
        "print(x)",
        "return [...]",
        "raise ValueError",
        "if x: raise NotImplementedError\n    return x",
        "y = 1",
        "return NotImplementedError",
        "yield",
        "f(x)",
        'return ""',
    ],
)
def test_attempts(body):
    assert not is_stub(make(body))


def test_stubs_of_other_kinds():
    class Empty: ...

    class Gate(torch.nn.Module):
        def __init__(self, n):
            super().__init__()
            self.n = n

        def forward(self, x): ...

    class Done(Gate):
        def forward(self, x):
            return x

    assert all(map(is_stub, (..., Empty, Gate, lambda x: ..., (..., ...)))) and not any(
        map(is_stub, (None, 0, Done, np.mean, len, Gate(1), "", [], [..., 1]))
    )


# --- code exercises


def vectors(rng):
    return [
        (np.array([3.0, 4.0]), 1),
        (rng.normal(size=5), 2),
        (rng.normal(size=(2, 3)), 1),
    ]


WORD = {"hint": "Think of the length.", "why": "It matters."}


@exercise(
    "engine.1",
    inputs=vectors,
    wrong=[lambda x, k: x, lambda x, k: k * x / np.sqrt((x**2).sum())],
    **WORD,
)
def unit(x, k):
    return k * x / np.linalg.norm(x, axis=-1, keepdims=True)


def said(answer, id="engine.1"):
    return verdict(id, answer)


def test_right(capsys):
    assert said(unit) == ("right", "engine.1: right. It matters.")
    assert (
        check("engine.1", unit) is None
        and capsys.readouterr().out == "engine.1: right. It matters.\n"
    )


@pytest.mark.parametrize(
    "f",
    [
        lambda x, k: (
            torch.as_tensor(x)
            * k
            / torch.linalg.norm(torch.as_tensor(x), dim=-1, keepdim=True)
        ),
        lambda x, k: unit(x, k).tolist(),
        lambda *args: unit(*args),
        lambda x, k=1: unit(x, k).astype(np.float32),
    ],
)
def test_right_in_other_words(f):
    assert said(f)[0] == "right"


def test_not_attempted():
    def mine(x, k): ...
    def half(x, k):
        y = ...
        return y

    for f in (mine, half, ...):
        assert said(f) == ("not attempted", "engine.1: not attempted yet")


def test_the_first_failing_input_is_shown():
    assert (
        said(lambda x, k: x / np.linalg.norm(x))[1].splitlines()[0]
        == "engine.1: not yet. It fails on 2 of 3 inputs, first on this one:"
    )
    status, message = said(lambda x, k: x)
    assert status == "not yet" and message.splitlines()[1:] == [
        "  input    x = [3, 4]",
        "           k = 1",
        "  expected [0.6, 0.8]",
        "  got      [3, 4]",
        "  values differ: 2 of 2, the largest difference is 3.2 at index 1: expected 0.8, got 4",
        "hint('engine.1') has a hint.",
    ]


@pytest.mark.parametrize(
    "answer,says",
    [
        (lambda x, k: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda x, k: sys.exit(3), "raised SystemExit: 3"),
        (
            lambda x, k: said_nothing,
            "raised NameError: name 'said_nothing' is not defined",
        ),
        (
            lambda x, k: print(end=""),
            "type differs: expected an array of shape (2,), got None",
        ),
        (lambda x, k: "ab", "got a text"),
        (
            lambda x, k: x * math.nan,
            "values differ: 2 of 2, the first at index 0: expected 0.6, got nan",
        ),
        (lambda x, k: {"x": x}, "got a dict of 1"),
        (
            lambda x, k: unit(x, k)[None],
            "shape differs: expected (2,), got (1, 2); the values are right",
        ),
        (
            lambda x, k: unit(x, k) > 0,
            "kind of number differs: expected floats, got booleans",
        ),
        (lambda x, k: unit, "got a function"),
        (
            lambda x: x,
            "The arguments differ: it is called with (x, k), yours takes (x)",
        ),
        (3, "Type differs: expected a function, got 3"),
        (None, "Type differs: expected a function, got None"),
        (lambda x, k: (yield from x), "values differ"),
        (
            lambda x, k: (_ for _ in iter(int, 1)),
            "shape differs: expected (2,), got (100000,)",
        ),
        (lambda x, k: [x, [x]], "got a list of 2"),
        (lambda x, k: -unit(x, k), "the largest difference is 1.6"),
        (type("T", (), {"__call__": lambda s, x, k: x})(), "values differ"),
    ],
)
def test_a_wrong_answer_hears_what_differs(answer, says):
    status, message = said(answer)
    assert (
        status == "not yet"
        and says in message
        and message.startswith("engine.1: not yet. ")
        and message.endswith("\nhint('engine.1') has a hint.")
    )


def test_an_error_names_its_line():
    def mine(x, k):
        y = x
        return y.no_such_thing  # here

    assert "in the line: return y.no_such_thing # here" in said(mine)[1]


def test_what_is_printed_is_shown_with_the_failure_alone(capsys):
    def loud(x, k):
        print("x is", x.shape)
        return x

    assert "  printed  x is (2,)" in said(loud)[1] and capsys.readouterr().out == ""

    def flood(x, k):
        for i in range(10_000):
            print("x" * 50)
        return unit(x, k)

    check("engine.1", flood)
    assert len(capsys.readouterr().out) < 100


def test_a_changed_input_hurts_nobody_and_is_noted():
    def mine(x, k):
        x *= k / np.linalg.norm(x, axis=-1, keepdims=True)
        return x

    for _ in range(2):
        assert said(mine) == (
            "right",
            "engine.1: right. It matters. (Note: it changes x in place, which may surprise its caller.)",
        )


def test_every_input_is_tried():
    seen = []
    said(lambda x, k: seen.append(x.shape) or x)
    assert seen == [(2,), (5,), (2, 3)]


def test_messages_are_the_same_every_time_and_in_every_process():
    message = said(lambda x, k: unit(x, k) + (x.ndim == 2))[1]
    assert (
        message == said(lambda x, k: unit(x, k) + (x.ndim == 2))[1]
        and "every value is off by 1" in message
    )
    code = (
        "import numpy as np; from mmcourse.check import *\n"
        + inspect.getsource(vectors)
        + inspect.getsource(unit).replace("**WORD", "hint='h', why='w'")
    )
    code += "print(verdict('engine.1', lambda x, k: unit(x, k) + (x.ndim == 2))[1])"
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert out.strip() == message


def test_global_dice_are_left_alone():
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.rand(), torch.rand(1)
    np.random.seed(3)
    torch.manual_seed(3)
    said(lambda x, k: x + np.random.rand() + torch.rand(1).item())
    assert (np.random.rand(), torch.rand(1)) == before


@exercise(
    "engine.2",
    inputs=lambda rng: [
        (torch.Generator().manual_seed(1), torch.ones(2, requires_grad=True)),
        (torch.Generator().manual_seed(2), torch.nn.Linear(2, 2)),
    ],
    wrong=[lambda g, m: 0, lambda g, m: torch.rand(2)],
    **WORD,
)
def draw(g, m):
    return torch.rand(2, generator=g)


def test_generators_and_modules_are_copied():
    assert prove("engine.2") and said(draw, "engine.2")[0] == "right"


@exercise(
    "engine.3",
    inputs=lambda rng: [(n,) for n in (1, 4, -1)],
    wrong=[lambda n: n**0.5, abs],
    raises=(ValueError,),
    **WORD,
)
def root(n):
    if n < 0:
        raise ValueError(f"n: expected a positive number, got {n}")
    return n**0.5


def test_errors_can_be_what_is_wanted():
    prove("engine.3")
    assert said(math.sqrt, "engine.3")[0] == "right"
    assert (
        "error differs: expected ValueError to be raised, got 0"
        in said(lambda n: n**0.5 if n > 0 else 0, "engine.3")[1]
    )
    assert (
        "error differs: expected ValueError to be raised, raised TypeError: no"
        in said(
            lambda n: n**0.5 if n > 0 else (_ for _ in ()).throw(TypeError("no")),
            "engine.3",
        )[1]
    )


@exercise(
    "engine.4",
    inputs=lambda rng: [(1,), (2,)],
    wrong=[lambda n: 0, lambda n: 1],
    limit=0.3,
    **WORD,
)
def double(n):
    return 2 * n


def test_an_endless_answer_is_stopped():
    def forever(n):
        while True:
            n += 1

    start = time.perf_counter()
    status, message = said(forever, "engine.4")
    assert (
        status == "not yet"
        and "stopped: it took longer than 0.3 s" in message
        and time.perf_counter() - start < 5
    )

    def slow_once(n):
        return 2 * n

    assert said(slow_once, "engine.4")[0] == "right"  # and nothing lingers


def test_deep_recursion_is_an_error_like_others():
    def mine(n):
        return mine(n + 1)

    assert "raised RecursionError" in said(mine, "engine.4")[1]


def test_a_learner_may_interrupt():
    def mine(n):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        said(mine, "engine.4")


# --- predictions and challenges


@prediction("engine.5", wrong=[784, "576", None.__class__], **WORD)
def places():
    return 24**2


@prediction("engine.6", wrong=[0.5, 0.95], tol=0.03, **WORD)
def share():
    return 0.8


@prediction("engine.7", wrong=["tanh", 3], **WORD)
def name():
    return "ReLU"


@prediction("engine.8", wrong=[(1, "b"), (2, "a"), (1,)], **WORD)
def both():
    return 1, "a"


@prediction("engine.9", wrong=[False, "no"], **WORD)
def yes():
    return True


@pytest.mark.parametrize(
    "id,answer",
    [
        ("engine.5", 576),
        ("engine.5", 576.0),
        ("engine.5", torch.tensor([576])),
        ("engine.6", 0.82),
        ("engine.6", 0.77),
        ("engine.7", " relu"),
        ("engine.8", [1, "A"]),
        ("engine.9", True),
        ("engine.9", np.True_),
    ],
)
def test_right_predictions(id, answer):
    assert said(answer, id)[0] == "right" and said(answer, id)[1].startswith(
        f"{id}: right. It is "
    )


@pytest.mark.parametrize(
    "id,answer,says",
    [
        ("engine.5", 784, "You said 784, which is too large."),
        (
            "engine.5",
            100,
            "You said 100, which is too small by more than a factor of two.",
        ),
        ("engine.5", 1, "factor of ten"),
        ("engine.5", -576, "too small."),
        ("engine.5", math.nan, "which is not a finite number"),
        ("engine.5", "576", "type differs: expected a number, got a text"),
        ("engine.5", [1, 2], "shape differs: expected (), got (2,)"),
        ("engine.5", places, "expected a value, got the function places; call it"),
        ("engine.5", True, "kind of number differs"),
        ("engine.6", 0.84, "too large"),
        ("engine.7", "tanh", "You said 'tanh', which is not it."),
        ("engine.8", (1, "b"), "Item 1: You said 'b', which is not it."),
        ("engine.8", (3, "a"), "Item 0: You said 3, which is too large"),
        ("engine.8", (1,), "length differs: expected 2, got 1"),
        ("engine.9", False, "You said False, which is not it: value differs."),
        ("engine.9", 0, "kind of number differs"),
    ],
)
def test_wrong_predictions_are_not_told_the_answer(id, answer, says):
    status, message = said(answer, id)
    assert status == "not yet" and says in message and "has a hint" in message
    for secret in ("576", "ReLU", "0.8", "'a'"):
        assert secret not in message.replace(
            "576", "" if str(answer) in message and "576" in str(answer) else "576"
        ).replace(repr(answer), "")


@pytest.mark.parametrize("answer", [..., None])
def test_unattempted_predictions(answer):
    assert said(answer, "engine.5") == ("not attempted", "engine.5: not attempted yet")


def judge(f):
    worst = max(abs(f(x) - math.sin(x)) for x in (-1, -0.5, 0.5, 1))
    return worst < 0.001, f"The largest error is {worst:.1g}; below 0.001 was wanted."


@challenge(
    "engine.10",
    judge=judge,
    wrong=[lambda x: x, lambda x: x - x**3 / 6, lambda x: 1 / 0],
    **WORD,
)
def sine(x):
    return x - x**3 / 6 + x**5 / 120


@challenge(
    "engine.11",
    judge=lambda w: (
        abs(sum(w) - 1) < 1e-6,
        f"The weights sum to {sum(w):g}, 1 was wanted.",
    ),
    wrong=[[1, 1], [0, 0]],
    **WORD,
)
def weights():
    return [0.5, 0.5]


def test_challenges():
    assert said(math.sin, "engine.10") == (
        "right",
        "engine.10: right. The largest error is 0; below 0.001 was wanted. It matters.",
    )
    assert (
        said(lambda x: x, "engine.10")[1]
        == "engine.10: not yet. The largest error is 0.2; below 0.001 was wanted.\nhint('engine.10') has a hint."
    )
    assert "It raised ZeroDivisionError" in said(lambda x: 1 / 0, "engine.10")[1]
    assert (
        said([0.2, 0.8], "engine.11")[0] == "right"
        and said(..., "engine.11")[0]
        == said([..., ...], "engine.11")[0]
        == said(lambda x: ..., "engine.10")[0]
        == "not attempted"
    )


# --- hints, solutions, the register


def test_hint_and_solution(capsys):
    assert (
        hint("engine.1") is None
        and capsys.readouterr().out == "engine.1: Think of the length.\n"
    )
    s = solution("engine.1")
    assert (
        repr(s)
        == "def unit(x, k): return k*x/np.linalg.norm(x, axis=-1, keepdims=True)"
        and "<details>" in s._repr_html_()
        and "Solution of engine.1" in s._repr_html_()
    )
    assert repr(
        solution("engine.5")
    ) == "def places(): return 24**2\n# places() is 576" and "places" not in repr(
        solution("engine.10")
    )
    assert "n &lt; 0" in solution("engine.3")._repr_html_() and repr(
        solution("engine.3")
    ).startswith("def root(n):\n    if n < 0")


def test_unknown_exercises_name_the_nearest():
    for f in (hint, solution, find, prove, lambda id: check(id, 1)):
        with pytest.raises(
            UnknownExercise, match="no exercise 'engin.1'; the nearest is 'engine.1'"
        ):
            f("engin.1")
    with pytest.raises(UnknownExercise, match="the nearest is"):
        find("")
    with pytest.raises(
        TypeError,
        match="expected a text such as 'training.1' as the first argument, got the function unit",
    ):
        check(unit, "engine.1")


@pytest.mark.parametrize(
    "change,says",
    [
        ({"wrong": [abs]}, "wrong: expected two or more"),
        ({"hint": " "}, "hint: expected a sentence"),
        ({"why": None}, "why: expected a sentence"),
        ({"id": "engine"}, "id: expected '<module>.<number>'"),
        ({"id": "engine.0"}, "id: expected"),
        ({"id": "engine.1"}, "engine.1: already taken by unit"),
    ],
)
def test_incomplete_exercises_are_refused(change, says):
    kw = {
        "id": "engine.99",
        "inputs": vectors,
        "wrong": [abs, abs],
        "hint": "h",
        "why": "w",
    } | change
    with pytest.raises(ValueError, match=re.escape(says)):
        exercise(kw.pop("id"), **kw)(lambda x: x)
    assert "engine.99" not in engine._registry


def test_unsound_exercises_are_found():
    words = {"hint": "h", "why": "w"}
    exercise(
        "engine.20",
        inputs=lambda rng: [(1,)],
        wrong=[lambda x: 2, lambda x: x],
        **words,
    )(abs_ := lambda x: abs(x))
    with pytest.raises(
        AssertionError, match=r"engine.20: wrong\[1\] is judged 'right'"
    ):
        prove("engine.20")
    exercise("engine.21", inputs=lambda rng: [(1,)], wrong=[abs, abs], **words)(
        lambda x: 1 / 0
    )
    with pytest.raises(
        RuntimeError, match="engine.21: the reference solution failed for x = 1"
    ):
        prove("engine.21")
    exercise("engine.22", inputs=lambda rng: [1], wrong=[abs, abs], **words)(
        lambda x: x
    )
    with pytest.raises(
        TypeError, match="engine.22: inputs: expected a list of argument tuples"
    ):
        prove("engine.22")


@pytest.mark.parametrize("id", [f"engine.{i}" for i in (*range(1, 4), *range(6, 12))])
def test_exercises_made_here_are_sound(id):
    assert len(prove(id)) >= 2


def test_import_needs_neither_torch_nor_exercises():
    code = 'import sys, mmcourse.check; print(sorted(m for m in sys.modules if m == "torch" or m.startswith("mmcourse.exercises")))'
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        == "[]"
    )


# --- every exercise of the course

COURSE = all_exercises()


@pytest.mark.parametrize("id", COURSE)
def test_exercise_is_sound(id):
    "The reference passes, the stub is not attempted, every wrong answer is refused with what differs."
    ex = COURSE[id]
    assert (
        ex.reference.__module__ == f"mmcourse.exercises.{id.split('.')[0]}"
        and len(ex.wrong) >= 2
        and ex.hint.strip()
        and ex.why.strip().endswith(".")
    )
    assert len(prove(id)) == len(ex.wrong)
    assert repr(solution(id)).startswith(("def ", "class "))


def chapters():
    "Every notebook outside the tools, as (path, module, [(cell, syntax tree)])."
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        parts = path.relative_to(ROOT / "nbs").parts
        if any(p.startswith((".", "_")) for p in parts) or parts[0] == "0_tools":
            continue
        cells = [
            c
            for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if c["cell_type"] == "code"
        ]
        for c in cells:
            c["source"] = "".join(c["source"])
        module = next(
            iter(
                re.findall(
                    r"^#\| *default_exp +(\S+)",
                    "\n".join(c["source"] for c in cells),
                    re.M,
                )
            ),
            None,
        )
        yield (
            path,
            module,
            [
                (c, ast.parse(re.sub(r"^\s*[%!].*$", "", c["source"], flags=re.M)))
                for c in cells
            ],
        )


def calls(tree, name):
    return [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Name)
        and n.func.id == name
        and n.args
        and isinstance(n.args[0], ast.Constant)
    ]


CHECKS = [
    (path, module, cells, i, call)
    for path, module, cells in chapters()
    for i, (_, tree) in enumerate(cells)
    for call in calls(tree, "check")
]


def test_every_exercise_is_asked_in_a_chapter():
    assert set(COURSE) == {call.args[0].value for *_, call in CHECKS}


def test_hints_and_solutions_in_chapters_exist():
    for path, _, cells in chapters():
        for name in ("hint", "solution"):
            for _, tree in cells:
                for call in calls(tree, name):
                    assert call.args[0].value in COURSE, (
                        f"{path.name}: {name}({call.args[0].value!r})"
                    )


def stub_named(cells, i, name):
    "The last definition of `name` before or in cell i: a function, or what is assigned."
    for _, tree in reversed(cells[: i + 1]):
        for node in reversed(tree.body):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
                return node
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == name for t in node.targets
            ):
                return node.value


@pytest.mark.parametrize(
    "path,module,cells,i,call",
    [pytest.param(*c, id=f"{c[0].stem}:{c[-1].args[0].value}") for c in CHECKS],
)
def test_chapter_leaves_a_stub(path, module, cells, i, call):
    "What a chapter hands to `check` is a stub with the reference's parameters, and its stored output says so."
    id, answer = call.args[0].value, call.args[1]
    assert id in COURSE and id.split(".")[0] == module
    if isinstance(answer, ast.Name):
        answer = stub_named(cells, i, answer.id)
    assert answer is not None, f"{path.name}: {id}: nothing defines the answer"
    if isinstance(answer, (ast.FunctionDef, ast.ClassDef)):
        answer.decorator_list = []
        if isinstance(answer, ast.FunctionDef):
            answer.args.defaults = [ast.Constant(None)] * len(answer.args.defaults)
            answer.args.kw_defaults = [
                d and ast.Constant(None) for d in answer.args.kw_defaults
            ]
        else:
            answer.bases, answer.keywords = [], []
        space = {}
        exec(
            compile(
                ast.fix_missing_locations(ast.Module([answer], [])),
                path.name,
                "exec",
                flags=__future__.annotations.compiler_flag,
            ),
            space,
        )
        stub = space[answer.name]
        if COURSE[id].kind == "code":
            assert [a.arg for a in answer.args.args] == list(
                inspect.signature(COURSE[id].reference).parameters
            ), f"{id}: the stub takes other parameters than the reference"
    else:
        stub = ast.literal_eval(answer)
    assert verdict(id, stub) == ("not attempted", f"{id}: not attempted yet")
    printed = "".join("".join(o.get("text", "")) for o in cells[i][0]["outputs"])
    assert f"{id}: not attempted yet" in printed.splitlines()
