"Every exercise and question of the course is sound, and its chapter asks it."

import ast
import inspect
import json
import re
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import tool
from mmcourse.check import all_exercises, all_questions, is_stub, prove, verdict

ROOT = Path(__file__).resolve().parent.parent
nb = tool("nb")
EXERCISES, QUESTIONS = all_exercises(), all_questions()
CODE = [id for id, ex in EXERCISES.items() if ex.kind == "code"]

# --- the chapters


def read(path):
    "The cells of a notebook, as (kind, source, printed text)."
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        printed = ["".join(o.get("text", "")) for o in cell.get("outputs", [])]
        yield cell["cell_type"], "".join(cell["source"]), "".join(printed)


def module_of(cells):
    found = re.search(
        r"^#\| *default_exp +(\S+)", "\n".join(s for _, s, _ in cells), re.M
    )
    return found and found[1]


def tree(source):
    "The syntax tree of a cell, without lines for the notebook or the shell."
    return ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))


def calls(source, *names):
    "Calls such as `check('lstm.1', …)`, by the name that is called."
    nodes = [n for n in ast.walk(tree(source)) if isinstance(n, ast.Call) and n.args]
    named = [n for n in nodes if isinstance(n.func, ast.Name) and n.func.id in names]
    return [n for n in named if isinstance(n.args[0], ast.Constant)]


CHAPTERS = {}  # path -> its cells
for path in sorted((ROOT / "nbs").glob("[1-9]*/[0-9]*.ipynb")):
    CHAPTERS[path] = list(read(path))
MODULES = {module_of(cells): path for path, cells in CHAPTERS.items()}


CHECKS = [
    pytest.param(path, i, call, id=f"{path.stem}:{call.args[0].value}")
    for path, cells in CHAPTERS.items()
    for i, (kind, source, _) in enumerate(cells)
    for call in (calls(source, "check") if kind == "code" else [])
]
by_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)

# --- exercises


@pytest.mark.parametrize("id", EXERCISES)
def test_an_exercise_is_sound(id):
    "Right answers pass, the stub is not attempted, every planted mistake is refused."
    ex = EXERCISES[id]
    assert ex.reference.__module__ == f"mmcourse.exercises.{id.split('.')[0]}"
    assert re.fullmatch(r"[a-z][a-z0-9_]*\.[1-9]", id)
    assert len(ex.wrong) >= 2
    assert ex.hint.strip().endswith((".", "?", "!", "…"))
    assert ex.why.strip().endswith((".", "?", "!"))
    for message in prove(id):
        assert not SAME.search(message), message
        if ex.kind == "prediction":
            assert not re.search("too (small|large|low|high)", message)


SAME = re.compile(r"expected (.+?)(?:, got|\n  got     ) \1(\n|$|;)")


def changed(value, change):
    "`change` of every array and tensor in a result."
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(changed(v, change) for v in value)
    return value


def numpy_or_torch(a):
    if isinstance(a, torch.Tensor):
        return a.detach().numpy()
    return torch.from_numpy(a.copy()) if a.dtype.kind in "biufc" else a


def single(a):
    a = torch.as_tensor(a) if not isinstance(a, np.ndarray) else a
    kinds = {torch.float64: torch.float32, np.dtype("float64"): np.float32}
    kind = kinds.get(a.dtype, a.dtype)
    return a.to(kind) if isinstance(a, torch.Tensor) else a.astype(kind)


@pytest.mark.parametrize("id", CODE)
@pytest.mark.parametrize(
    "change",
    [numpy_or_torch, single, lambda a: a.tolist(), lambda a: a[None]],
    ids=["NumPy or torch", "float32", "list", "one axis more"],
)
def test_the_right_answer_may_be_of_another_kind(id, change):
    reference = EXERCISES[id].reference
    status, message = verdict(id, lambda *args: changed(reference(*args), change))
    assert status == "right", message


@by_chapter
def test_a_chapter_has_four_to_six_exercises(path):
    "At least one asks for code and one for a prediction."
    module = module_of(CHAPTERS[path])
    kinds = [ex.kind for id, ex in EXERCISES.items() if id.startswith(f"{module}.")]
    assert 4 <= len(kinds) <= 6 and {"code", "prediction"} <= set(kinds)


def test_no_id_is_given_twice():
    "A second exercise of the same id would replace the first in silence."
    ids = []
    for path in (ROOT / "mmcourse" / "exercises").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        kinds = ("exercise", "prediction", "challenge", "question")
        ids += [call.args[0].value for call in calls(text, *kinds)]
    assert [id for id, n in Counter(ids).items() if n > 1] == []
    assert set(ids) == {*EXERCISES, *QUESTIONS}


# --- hints

# A hint says in words what to do. A name may stand in it, in backticks; an expression
# would be the solution, or a riddle.
BARE = {
    "a call": r"\w\(",
    "a bracket": r"\w\[|\[.*:.*\]",
    "an assignment or comparison": r"[=<>]",
    "an operator": r"\*\*|//|\w ?[*@] ?\w",
    "a dotted name": r"\b[a-z_]\w+\.[a-z_]\w+",
    "an underscore": r"\w_\w",
}
NAME = r"`[A-Za-z_][\w.]*`"


def code_in(hint):
    "What there is of code in a hint, outside of names in backticks."
    rest = re.sub(NAME, "", hint)
    found = [kind for kind, pattern in BARE.items() if re.search(pattern, rest)]
    return found + (["backticks around more than a name"] if "`" in rest else [])


@pytest.mark.parametrize(
    "hint,found",
    [
        ("Square, mean, root: `torch.sqrt` does the last.", []),
        ("The average of M models has (1 + (M-1)r)/M of the variance of one.", []),
        (
            "Keep the axis (it is the last one) that you sum over, e.g. by `keepdim`.",
            [],
        ),
        ("Half of it, 1/2, is well-known; 3-4 steps at 2.5 dB.", []),
        ("Use np.eye(C)[y].", ["a call", "a dotted name"]),
        ("k@q holds all S scores.", ["an operator"]),
        ("Take share * p first.", ["an operator"]),
        ("p**2 is wanted.", ["an operator"]),
        ("x[i] comes first.", ["a bracket"]),
        (
            "Set `w = w - 1`.",
            ["an assignment or comparison", "backticks around more than"],
        ),
        ("Begin with log_softmax.", ["an underscore"]),
    ],
)
def test_the_rule_for_hints(hint, found):
    got = code_in(hint)
    assert len(got) == len(found) and all(map(str.startswith, got, found))


@pytest.mark.parametrize("id", EXERCISES)
def test_a_hint_carries_no_code(id):
    assert code_in(EXERCISES[id].hint) == [], EXERCISES[id].hint


# --- questions


@pytest.mark.parametrize("id", QUESTIONS)
def test_a_question_is_sound(id):
    "Every choice is explained, in words of its own."
    q = QUESTIONS[id]
    assert re.fullmatch(r"[a-z][a-z0-9_]*\.q[1-9]", id) and len(prove(id)) >= 2
    letters = "abcdef"[: len(q.choices)]
    assert "".join(q.choices) == letters and q.answer in letters
    texts = [text for text, _ in q.choices.values()]
    reasons = [why for _, why in q.choices.values()]
    assert len(set(texts)) == len(set(reasons)) == len(texts)
    assert all(why.endswith((".", "!")) and len(why.split()) >= 4 for why in reasons)


@by_chapter
def test_a_chapter_has_five_questions(path):
    "And the right letter is not always the same."
    module = module_of(CHAPTERS[path])
    mine = [q for id, q in QUESTIONS.items() if id.startswith(f"{module}.")]
    assert len(mine) == 5 and len({q.answer for q in mine}) >= 3


def shown(text, prose):
    "Whether prose says a text, in maths or code where that is plain: 3 words in 4."
    words = re.findall(r"\w+", text)
    there = set(re.findall(r"\w+", prose))
    return sum(w in there for w in words) >= 0.75 * len(words)


@pytest.mark.parametrize("id", QUESTIONS)
def test_a_chapter_shows_its_question(id):
    "A markdown cell has the text, and its choices as lines `- **a** …`."
    q, cells = QUESTIONS[id], CHAPTERS[MODULES[id.split(".")[0]]]
    lines = [rf"^- \*\*{letter}\*\* (.*)$" for letter in q.choices]
    found = []
    for kind, source, _ in cells:
        choices = [re.search(line, source, re.M) for line in lines]
        if kind == "markdown" and all(choices) and shown(q.text, source):
            texts = [text for text, _ in q.choices.values()]
            found.append(all(shown(t, m[1]) for t, m in zip(texts, choices)))
    assert any(found), q.text


# --- chapters ask what there is


def test_everything_is_asked_in_a_chapter():
    asked = [param.values[2].args[0].value for param in CHECKS]
    assert {*EXERCISES, *QUESTIONS} == set(asked)


@by_chapter
def test_a_chapter_imports_all_that_a_learner_calls(path):
    names = set()
    for kind, source, _ in CHAPTERS[path]:
        for node in ast.walk(tree(source)) if kind == "code" else []:
            if isinstance(node, ast.ImportFrom) and node.module == "mmcourse.check":
                names |= {alias.name for alias in node.names}
    assert {"check", "hint", "solution"} <= names


def answer_in(path, i, call):
    "What a chapter's cell i hands to `check`: a syntax tree."
    if not isinstance(call.args[1], ast.Name):
        return call.args[1]
    found, name = None, call.args[1].id
    for kind, source, _ in CHAPTERS[path][: i + 1]:
        for node in tree(source).body if kind == "code" else []:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
                found = node
            if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
                found = node.value
    return found


def made(node, folder):
    "The function, class or value of a syntax tree, with a source that can be found."
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return ast.literal_eval(node)
    node.decorator_list = []
    if isinstance(node, ast.ClassDef):
        node.bases, node.keywords = [], []
    file = folder / "stub.py"
    source = ast.unparse(ast.fix_missing_locations(node))
    file.write_text(f"from __future__ import annotations\n{source}\n", "utf-8")
    return runpy.run_path(str(file))[node.name]


@pytest.mark.parametrize("path,i,call", CHECKS)
def test_a_chapter_leaves_a_stub(path, i, call, tmp_path):
    """With the reference's parameters; the stored output says that it is one. Code that
    is broken, and the learner's to repair, is judged wrong."""
    id, answer = call.args[0].value, answer_in(path, i, call)
    assert id.split(".")[0] == module_of(CHAPTERS[path])
    assert answer is not None, f"{path.name}: {id}: nothing defines the answer"
    stub, printed = made(answer, tmp_path), CHAPTERS[path][i][2]
    if is_stub(stub):
        assert verdict(id, stub) == ("not attempted", f"{id}: not attempted yet")
        assert f"{id}: not attempted yet" in printed.splitlines()
    else:
        assert id in CODE and f"{id}: not yet. It fails on input" in printed
    if id in CODE:
        wanted = inspect.signature(EXERCISES[id].reference).parameters
        assert list(inspect.signature(stub).parameters) == list(wanted)


@by_chapter
def test_hints_and_solutions_asked_for_exist(path):
    for kind, source, _ in CHAPTERS[path]:
        for call in calls(source, "hint", "solution") if kind == "code" else []:
            assert call.args[0].value in {*EXERCISES, *QUESTIONS}
