"The judge judges fairly. (Every exercise of the course: test_exercises.py.)"

import inspect
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mmcourse import check as engine
from mmcourse.check import (
    Exercise,
    Question,
    UnknownExercise,
    all_exercises,
    all_questions,
    challenge,
    check,
    exercise,
    find,
    hint,
    is_stub,
    prediction,
    prove,
    question,
    solution,
    verdict,
)

SPOILT = engine._SPOILT
WORD = {"hint": "Think of the length.", "why": "It matters."}


def said(answer, id="engine.1"):
    return verdict(id, answer)


# --- stubs


def ellipsis(x, w=1, *, s=2): ...
def passes(x):
    pass


def documented(x):
    "Doubles x."


def documented_too(x):
    "Doubles x."
    ...


def commented(x):
    # your code
    ...


def raises(x):
    raise NotImplementedError


def raises_too(x):
    "Doubles x."
    raise NotImplementedError("your turn")


@torch.no_grad()
def decorated(x): ...


class Empty: ...


class Gate(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        self.n = n

    def forward(self, x): ...


class GateToo(torch.nn.Module):
    def __init__(self, n):
        pass


STUBS = [ellipsis, passes, documented, documented_too, commented, raises, raises_too]
STUBS += [decorated, Empty, Gate, GateToo, ..., (..., ...), [..., [...]]]


@pytest.mark.parametrize("stub", STUBS)
def test_stubs(stub):
    assert is_stub(stub)


def returns_none(x):
    return None  # noqa: RET501


def returns(x):
    return  # noqa: PLR1711


def forgets(x):
    x + 1  # noqa: B018


def another_error(x):
    raise ValueError


def some_times(x):
    if x < 0:
        raise NotImplementedError
    return x


def one_more(x):
    ...
    return x


class Done(Gate):
    def forward(self, x):
        return x


class Made:
    def __init__(self, n):
        self.n = n


ATTEMPTS = [returns_none, returns, forgets, another_error, some_times, one_more, Done]
ATTEMPTS += [Made, None, 0, np.mean, len, Gate(1), "", "...", [], [..., 1], abs]


@pytest.mark.parametrize("answer", ATTEMPTS)
def test_attempts(answer):
    assert not is_stub(answer)


# --- code exercises


def vectors(rng):
    wide = rng.normal(size=5), rng.normal(size=(2, 3))
    return [(np.array([3.0, 4.0]), 1), (wide[0], 2), (wide[1], 1)]


def unscaled(x, k):
    return x


def whole(x, k):
    return k * x / np.sqrt((x**2).sum())


def in_torch(x, k):
    x = torch.as_tensor(x)
    return x * k / torch.linalg.norm(x, dim=-1, keepdim=True)


@exercise("engine.1", inputs=vectors, wrong=[unscaled, whole], right=[in_torch], **WORD)
def unit(x, k):
    return k * x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_right(capsys):
    assert said(unit) == ("right", "engine.1: right. It matters.")
    assert check("engine.1", unit) is None
    assert capsys.readouterr().out == "engine.1: right. It matters.\n"


def of_a_tensor(x, k):
    return k * x / x.norm(dim=-1, keepdim=True)  # an array has no such method


def of_a_tensor_too(x, k):
    return torch.nn.functional.normalize(x, dim=-1) * k


def with_a_loop(x, k):
    rows = [k * row / math.sqrt(sum(v * v for v in row)) for row in np.atleast_2d(x)]
    return rows if x.ndim > 1 else rows[0]


@pytest.mark.parametrize(
    "f",
    [
        in_torch,
        of_a_tensor,
        of_a_tensor_too,
        with_a_loop,
        lambda x, k: unit(x, k).tolist(),
        lambda *args: unit(*args),
        lambda x, k=1: unit(x, k).astype(np.float32),
        lambda x, k: unit(x, k)[None],
        lambda x, k: unit(x, k)[..., None],
        lambda x, k: (row for row in unit(x, k)),
    ],
)
def test_right_in_other_words(f):
    assert said(f)[0] == "right"


def test_tensors_are_given_as_arrays_to_who_wants_arrays():
    def inputs(rng):
        return [(torch.tensor([3.0, -4.0], requires_grad=True), [torch.ones(2)])]

    @exercise("engine.12", inputs=inputs, wrong=[len, len], **WORD)
    def size(x, more):
        return x.abs() + more[0]

    assert said(lambda x, more: np.fabs(x.copy()) + more[0].copy(), "engine.12") == (
        "right",
        "engine.12: right. It matters.",
    )
    message = said(lambda x, more: x.copy() + more[0].copy(), "engine.12")[1]
    assert "AttributeError" in message, "what the inputs as given lead to is told"


def test_not_attempted():
    def mine(x, k): ...
    def half(x, k):
        y = k * x if k > 5 else ...
        return y  # noqa: RET504

    for f in (mine, half, ..., lambda x, k: ...):
        assert said(f) == ("not attempted", "engine.1: not attempted yet")


@pytest.mark.parametrize("f", [print, lambda x, k: None, lambda x, k: print(end="")])
def test_a_function_that_returns_none_hears_so(f):
    status, message = said(f)
    assert status == "not yet" and "it returned None: is a return missing?" in message


def test_none_may_be_right():
    @exercise("engine.13", inputs=lambda rng: [(1,)], wrong=[abs, len], **WORD)
    def nothing(x):
        return None

    assert said(nothing, "engine.13")[0] == "right"
    assert said(abs, "engine.13")[1].splitlines()[-2] == (
        "  type differs: expected None, got a number"
    )


def test_the_first_failing_input_is_shown():
    status, message = said(unscaled)
    assert status == "not yet"
    assert message.splitlines() == [
        "engine.1: not yet. It fails on input 1 of 3:",
        "  x = [3, 4]",
        "  k = 1",
        "  expected [0.6, 0.8]",
        "  got      [3, 4]",
        "  values differ: 2 of 2, the largest difference is 3.2 at index 1: "
        "expected 0.8, got 4",
        "hint('engine.1') has a hint.",
    ]
    assert "It fails on input 3 of 3:" in said(whole)[1]


def test_expected_and_got_never_look_the_same():
    "Two large arrays that differ late look the same in one line: it is not shown."

    @exercise("engine.14", inputs=lambda rng: [(40,)], wrong=[abs, len], **WORD)
    def table(n):
        return np.tri(n, dtype=bool)

    def late(n):
        t = table(n)
        t[-1, -1] = False
        return t

    message = said(late, "engine.14")[1]
    assert "\n  expected" not in message and "\n  got" not in message
    assert "at index (39, 39): expected True, got False" in message


@pytest.mark.parametrize(
    "answer,says",
    [
        (lambda x, k: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda x, k: sys.exit(3), "raised SystemExit: 3"),
        (lambda x, k: nowhere, "raised NameError: name 'nowhere'"),  # noqa: F821
        (lambda x, k: "ab", "got a text"),
        (lambda x, k: x * math.nan, "the first at index 0: expected 0.6, got nan"),
        (lambda x, k: {"x": x}, "got a dict of 1"),
        (lambda x, k: unit(x, k) > 0, "expected floats, got booleans"),
        (lambda x, k: unit, "got a function"),
        (lambda x: x, "raised TypeError: <lambda>() takes 1 positional argument but 2"),
        (3, "Type differs: expected a function, got 3"),
        (None, "Type differs: expected a function, got None"),
        (lambda x, k: (yield from x), "values differ"),
        (lambda x, k: iter(int, 1), "shape differs: expected (2,), got (100000,)"),
        (lambda x, k: [x, [x]], "got a list of 2"),
        (lambda x, k: -unit(x, k), "the largest difference is 1.6"),
        (type("T", (), {"__call__": lambda s, x, k: x})(), "values differ"),
    ],
)
def test_a_wrong_answer_hears_what_differs(answer, says):
    status, message = said(answer)
    assert status == "not yet" and says in message
    assert message.startswith("engine.1: not yet. ")
    assert message.endswith("\nhint('engine.1') has a hint.")


def test_an_error_names_its_line():
    def mine(x, k):
        y = x
        return y.no_such_thing

    message = said(mine)[1]
    assert ", in the line: return y.no_such_thing" in message
    assert "\n  expected [0.6, 0.8]\n" in message and "  got " not in message


def test_what_is_printed_is_shown_with_the_failure_alone(capsys):
    def loud(x, k):
        print("x is", x.shape)
        return x

    assert "\n  printed  x is (2,)\n" in said(loud)[1]
    assert capsys.readouterr().out == ""

    def flood(x, k):
        print("x" * 50_000)
        return unit(x, k)

    check("engine.1", flood)
    assert len(capsys.readouterr().out) < 100


def test_a_changed_input_hurts_nobody():
    def mine(x, k):
        x *= k / np.linalg.norm(x, axis=-1, keepdims=True)
        return x

    for _ in range(2):
        assert said(mine)[0] == "right" and SPOILT in said(mine)[1]
    assert SPOILT not in said(unit)[1]

    def spoils(x, k):
        x[:] = 0
        return x

    assert "x = [3, 4]" in said(spoils)[1] and "expected [0.6, 0.8]" in said(spoils)[1]


def in_list(rows):
    rows.append([0.0])
    return len(rows) - 1


def in_row(rows):
    rows[0][0] = -1.0
    return len(rows)


@pytest.mark.parametrize("mine", [in_list, in_row])
def test_a_list_is_looked_into(mine):
    @exercise(
        "engine.16",
        inputs=lambda rng: [([[1.0], [math.nan]],)],
        wrong=[lambda rows: 0, lambda rows: 1],
        **WORD,
    )
    def count(rows):
        return len(rows)

    fine = "engine.16: right. It matters."
    assert said(count, "engine.16") == ("right", fine)
    assert said(mine, "engine.16") == ("right", f"{fine} {SPOILT}")


@pytest.mark.parametrize("asks", [False, True])
def test_an_exercise_may_ask_for_a_change(asks):
    def step(w, more):
        w = w if asks else w.clone()
        w -= more["g"]
        return w

    def mine(w, more):
        w -= more["g"]
        return w

    inputs = lambda rng: [(torch.ones(2), {"g": torch.ones(2)})]  # noqa: E731
    wrong = [lambda w, more: 0, lambda w, more: w]
    exercise("engine.17", inputs=inputs, wrong=wrong, **WORD)(step)
    assert said(mine, "engine.17")[0] == "right"
    assert (SPOILT in said(mine, "engine.17")[1]) != asks
    assert SPOILT not in said(step, "engine.17")[1]


def test_a_change_counts_in_the_other_kind_and_in_a_dict():
    def mine(x, k):  # takes tensors alone
        x.mul_(k / x.norm(dim=-1, keepdim=True))
        return x

    assert said(mine)[0] == "right" and SPOILT in said(mine)[1]
    assert engine._changed({"a": np.ones(2)}, {"a": np.zeros(2)})
    a, b = [{"a": [np.ones(2), "b", f]} for f in (abs, max)]
    assert not engine._changed(a, b)


def test_every_input_is_tried():
    seen = []

    def mine(x, k):
        seen.append(x.shape)
        return unit(x, k)

    said(mine)
    assert seen == [(2,), (5,), (2, 3)]


def late(x, k):
    return unit(x, k) + (x.ndim == 2)


def test_messages_are_the_same_every_time_and_in_every_process():
    message = said(late)[1]
    assert message == said(late)[1] and "every value is off by 1" in message
    parts = [inspect.getsource(f) for f in (vectors, unscaled, whole, in_torch, unit)]
    code = "import numpy as np, torch\nfrom mmcourse.check import *\n"
    code += f"WORD = {WORD}\n" + "\n".join([*parts, inspect.getsource(late)])
    code += "\nprint(verdict('engine.1', late)[1])"
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONUTF8": "1"}
    args = {"capture_output": True, "encoding": "utf-8", "check": True, "env": env}
    out = subprocess.run([sys.executable, "-c", code], **args).stdout
    assert out.strip() == message


def test_global_dice_are_left_alone():
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.rand(), torch.rand(1)
    np.random.seed(3)
    torch.manual_seed(3)
    said(lambda x, k: x + np.random.rand() + torch.rand(1).item())
    assert (np.random.rand(), torch.rand(1)) == before


def test_answer_and_reference_draw_the_same():
    "An exercise may ask for something random; both start from the same seed."

    @exercise("engine.15", inputs=lambda rng: [(3,)], wrong=[abs, len], **WORD)
    def draw(n):
        return torch.rand(n) + np.random.rand()

    assert said(draw, "engine.15")[0] == "right"
    assert said(lambda n: torch.rand(n + 1)[1:], "engine.15")[0] == "not yet"


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


def test_generators_and_modules_are_made_anew():
    assert prove("engine.2") and said(draw, "engine.2")[0] == "right"


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

    status, message = said(forever, "engine.4")
    assert status == "not yet" and "stopped: it took longer than 0.3 s" in message
    assert said(double, "engine.4")[0] == "right"
    time.sleep(0.4)  # and nothing lingers


def test_deep_recursion_is_an_error_like_others():
    def mine(n):
        return mine(n + 1)

    assert "raised RecursionError" in said(mine, "engine.4")[1]


def test_a_learner_may_interrupt():
    def mine(n):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        said(mine, "engine.4")


# --- predictions


@prediction("engine.5", wrong=[784, "576", list], right=[576.0], **WORD)
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


@prediction("engine.19", wrong=[0.333, 3], **WORD)
def third():
    return 1 / 3


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
        ("engine.19", 0.33333333),
    ],
)
def test_right_predictions(id, answer):
    status, message = said(answer, id)
    assert status == "right" and message.startswith(f"{id}: right. It is ")
    assert message.endswith(". It matters.")


@pytest.mark.parametrize(
    "id,answer,says",
    [
        ("engine.5", 784, "You said 784, which is not it."),
        ("engine.5", 100, "You said 100, which is not it."),
        ("engine.5", 575.99, "You said 576, which is not it."),
        ("engine.5", math.nan, "You said nan, which is not it."),
        ("engine.5", None, "not it: type differs: expected a number, got None."),
        ("engine.5", "576", "not it: type differs: expected a number, got a text."),
        ("engine.5", [1, 2], "not it: shape differs: expected (), got (2,)."),
        ("engine.5", places, "type differs: expected a number, got a function."),
        ("engine.5", True, "kind of number differs: expected integers, got booleans."),
        ("engine.6", 0.84, "You said 0.84, which is not it."),
        ("engine.7", "tanh", "You said 'tanh', which is not it."),
        ("engine.8", (1, "b"), "You said (1, 'b'), which is not it."),
        ("engine.8", (1,), "not it: length differs: expected 2, got 1."),
        ("engine.9", False, "You said False, which is not it."),
    ],
)
def test_wrong_predictions_are_not_told_the_answer(id, answer, says):
    "Neither the value nor on which side of it one is."
    status, message = said(answer, id)
    assert status == "not yet" and says in message and "has a hint" in message
    rest = message.replace(str(answer), "").replace(says, "")
    for secret in ("576", "ReLU", "0.8", "large", "small", "factor", "off by"):
        assert secret not in rest


def test_a_prediction_is_computed_once():
    calls = []

    @prediction("engine.16", wrong=[1, 2], **WORD)
    def slow():
        calls.append(torch.rand(1).item())
        return 3

    torch.manual_seed(1)
    assert [said(3, "engine.16")[0] for _ in range(3)] == ["right"] * 3
    torch.manual_seed(0)
    assert calls == [torch.rand(1).item()], "once, and from seed 0"


# --- challenges


def judge(f):
    worst = max(abs(f(x) - math.sin(x)) for x in (-1, -0.5, 0.5, 1))
    return worst < 0.001, f"The largest error is {worst:.1g}; below 0.001 was wanted."


@challenge(
    "engine.10",
    judge=judge,
    wrong=[lambda x: x, lambda x: x - x**3 / 6, lambda x: 1 / 0],
    right=[math.sin],
    **WORD,
)
def sine(x):
    return x - x**3 / 6 + x**5 / 120


def sums_to_one(w):
    return abs(sum(w) - 1) < 1e-6, f"The weights sum to {sum(w):g}, 1 was wanted."


@challenge("engine.11", judge=sums_to_one, wrong=[[1, 1], [0, 0]], **WORD)
def weights():
    return [0.5, 0.5]


def test_challenges():
    assert said(math.sin, "engine.10")[1] == (
        "engine.10: right. The largest error is 0; below 0.001 was wanted. It matters."
    )
    assert said(lambda x: x, "engine.10")[1] == (
        "engine.10: not yet. The largest error is 0.2; below 0.001 was wanted.\n"
        "hint('engine.10') has a hint."
    )
    message = said(lambda x: 1 / 0, "engine.10")[1]
    assert "It raised ZeroDivisionError: division by zero, in the line: " in message
    assert said([0.2, 0.8], "engine.11")[0] == "right"
    assert said(..., "engine.11")[0] == "not attempted"
    assert said([..., ...], "engine.11")[0] == "not attempted"


# --- questions

question(
    "engine.q1",
    "What does a mask of zeros hide?",
    {
        "a": ("everything", "Nothing is allowed where the mask is zero."),
        "b": ("nothing", "That would be a mask of ones."),
    },
    answer="a",
)


@pytest.mark.parametrize("answer", ["a", "A", " a)", "(a)", "a."])
def test_a_right_choice_is_explained(answer):
    assert said(answer, "engine.q1") == (
        "right",
        "engine.q1: right. a) everything: Nothing is allowed where the mask is zero.",
    )


def test_a_wrong_choice_is_explained_and_the_right_one_is_not_named():
    assert said("b", "engine.q1") == (
        "not yet",
        "engine.q1: not yet. b) nothing: That would be a mask of ones.",
    )


@pytest.mark.parametrize("answer", ["c", "everything", 1, None, "", "ab"])
def test_what_is_no_choice_hears_what_there_is(answer):
    status, message = said(answer, "engine.q1")
    assert status == "not yet"
    assert message == f"engine.q1: not yet. The choices are a, b; you said {answer}."


def test_a_question_that_is_open(capsys):
    check("engine.q1", ...)
    assert capsys.readouterr().out == "engine.q1: not attempted yet\n"
    hint("engine.q1")
    solution("engine.q1")
    assert capsys.readouterr().out.splitlines() == [
        "engine.q1: a question has no hint; check() explains each choice.",
        "engine.q1: a) everything: Nothing is allowed where the mask is zero.",
    ]


# --- hints, solutions, the register


def test_hint_and_solution(capsys):
    hint("engine.1")
    assert capsys.readouterr().out == "engine.1: Think of the length.\n"
    solution("engine.1")
    assert capsys.readouterr().out == (
        "def unit(x, k):\n"
        "    return k * x / np.linalg.norm(x, axis=-1, keepdims=True)\n"
    )
    solution("engine.5")
    assert capsys.readouterr().out.endswith("return 24**2\n# places() is 576\n")
    solution("engine.10")
    assert "sine() is" not in capsys.readouterr().out


def test_long_sentences_are_wrapped_and_values_are_not(capsys):
    check("engine.1", lambda x, k: 1 / 0)
    long = {"hint": "word " * 40, "why": "It matters."}
    prediction("engine.17", wrong=[1, 2], **long)(lambda: 3)
    hint("engine.17")
    lines = capsys.readouterr().out.splitlines()
    assert max(len(x) for x in lines if not x.startswith(" ")) <= 80
    assert any(x.startswith("  raised ZeroDivisionError") for x in lines)


def test_unknown_exercises_name_the_nearest():
    says = "no exercise 'engin.1'; the nearest is 'engine.1'"
    for f in (hint, solution, find, prove, lambda id: check(id, 1)):
        with pytest.raises(UnknownExercise, match=says):
            f("engin.1")
    with pytest.raises(UnknownExercise, match="the nearest is"):
        find("")
    with pytest.raises(TypeError, match=r"'training.1' as the first argument, got the"):
        check(unit, "engine.1")


def test_exercises_of_this_file_are_not_the_courses():
    assert "engine.1" not in all_exercises() and "engine.q1" not in all_questions()
    ids = list(all_exercises())
    assert ids == sorted(ids)
    assert all(isinstance(find(id), Exercise) for id in ids)
    assert isinstance(find("engine.q1"), Question)


def test_exercises_are_imported_when_asked_for(monkeypatch):
    "Those of one module for one id, all for all."
    monkeypatch.setattr(engine, "_registry", {})
    for name in [m for m in sys.modules if m.startswith("mmcourse.exercises.")]:
        monkeypatch.delitem(sys.modules, name)
    assert find("training.1").kind == "code"
    assert {id.split(".")[0] for id in engine._registry} == {"training"}
    assert {"lstm", "text", "training"} <= {id.split(".")[0] for id in all_exercises()}


def test_running_a_cell_again_replaces_the_entry():
    for value in (1, 2):
        prediction("engine.18", wrong=[0, 3], **WORD)(lambda value=value: value)
    assert find("engine.18").reference() == 2


def test_unsound_exercises_are_found():
    about = {"inputs": lambda rng: [(-1,)], **WORD}
    exercise("engine.20", wrong=[len, lambda x: 1], **about)(abs)
    with pytest.raises(
        AssertionError, match=r"engine.20: wrong\[1\] is judged 'right'"
    ):
        prove("engine.20")
    exercise("engine.21", wrong=[abs, abs], **about)(lambda x: 1 / 0)
    with pytest.raises(RuntimeError, match="engine.21: the reference fails on input 0"):
        prove("engine.21")
    exercise("engine.22", wrong=[len, len], right=[lambda x: 1, int], **about)(abs)
    with pytest.raises(AssertionError, match="right answer 2 is not: engine.22: not"):
        prove("engine.22")


@pytest.mark.parametrize("id", [f"engine.{i}" for i in (1, 2, 4, *range(5, 12), "q1")])
def test_exercises_made_here_are_sound(id):
    ex = find(id)
    assert len(prove(id)) == len(ex.wrong) >= 1


def test_import_needs_neither_torch_nor_exercises():
    code = 'import sys, mmcourse.check; print([m for m in sys.modules if m == "torch"'
    code += ' or m.startswith("mmcourse.exercises")])'
    args = [sys.executable, "-c", code]
    assert subprocess.run(args, capture_output=True, text=True).stdout == "[]\n"
