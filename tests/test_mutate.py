"What tools/mutate.py breaks, and what it leaves as it is."

import ast
from pathlib import Path

import pytest

from conftest import tool

ROOT = Path(__file__).resolve().parent.parent
mutate = tool("mutate")


def variants(source):
    "Every broken form of a source, by what was done to it."
    found = mutate.faults(source)
    return {f.what: ast.unparse(mutate.broken(source, f)) for f in found}


@pytest.mark.parametrize(
    "source,what,broken",
    [
        ("y = a - b", "Sub -> Add", "y = a + b"),
        ("y /= b", "Div -> Mult", "y *= b"),
        ("y = a < b", "Lt -> LtE", "y = a <= b"),
        ("y = a in b", "In -> NotIn", "y = a not in b"),
        ("y = a and b", "And -> Or", "y = a or b"),
        ("y = not a", "without Not", "y = a"),
        ("y = -a", "without USub", "y = a"),
        ("y = 3", "3 -> 4", "y = 4"),
        ("y = 3", "3 -> 2", "y = 2"),
        ("y = 0.5", "0.5 -> 1.5", "y = 1.5"),
        ("y = True", "True -> False", "y = False"),
        ("y = x[1:]", "1 -> 0", "y = x[0:]"),
        ("y = f(x, dim=a)", "without dim=", "y = f(x)"),
        ("y = x.clamp(a).b", "without .clamp()", "y = x.b"),
        ("y = torch.max(x)", "max -> min", "y = torch.min(x)"),
        ("y = any(x)", "any -> all", "y = all(x)"),
        ("y = a if b else c", "condition turned round", "y = a if not b else c"),
        ("f(x)", "statement left out", "pass"),
        ("raise ValueError('1')", "does not raise", "pass"),
        ("def f(n=1): ...", "1 -> 2", "def f(n=2):\n    ..."),
        ("def f():\n    return x", "returns None", "def f():\n    return None"),
        ("while x:\n    break", "break -> continue", "while x:\n    continue"),
    ],
)
def test_a_fault(source, what, broken):
    assert variants(source)[what] == broken


@pytest.mark.parametrize(
    "source",
    [
        '"A docstring of 2 lines."',
        "__all__ = ['f'][0:1]",
        "import torch",
        "x: Literal[1]",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "@cache(size=1)\ndef f(): ...",
        "y = f'{x + 1}'",
        "if __name__ == '__main__':\n    main(1)",
    ],
)
def test_what_stays(source):
    assert mutate.faults(source) == []


def test_a_message_stays():
    assert [f.what for f in mutate.faults("raise E(f(x, n=1) + 2)")] == [
        "does not raise"
    ]


def test_a_fault_says_where():
    source = "class A:\n    def f(self):\n        return x\n"
    (fault,) = mutate.faults(source)
    assert (fault.line, fault.function) == (3, "A.f")


@pytest.mark.parametrize("module", ["difference", "inputs"])
def test_every_fault_of_a_module_can_be_made(module):
    "It compiles, and differs from the source."
    source = (ROOT / "mmcourse" / f"{module}.py").read_text(encoding="utf-8")
    found = mutate.faults(source)
    whole = ast.unparse(ast.parse(source))
    assert len(found) > 50
    for fault in found[::5]:
        tree = mutate.broken(source, fault)
        compile(tree, module, "exec")
        assert ast.unparse(tree) != whole
