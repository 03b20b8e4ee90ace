"""Break one module, line by line, and see whether its tests notice.

    python tools/mutate.py audio                # mmcourse/audio.py, tests/test_audio.py
    python tools/mutate.py audio --max 100      # a random sample of 100 faults
    python tools/mutate.py lstm --tests tests/test_lstm.py tests/test_recurrent.py
    python tools/mutate.py audio --only mfcc    # faults inside of one function
    python tools/mutate.py audio --jobs 2       # two at a time

A fault is one small change: `+` for `-`, `<` for `<=`, a constant one larger, a
condition turned round, None returned, a keyword argument or a `.clamp()` left out.
Texts, error messages, annotations and `__all__` stay as they are. A fault is caught if
a test fails, or takes many times as long as before. Printed are the share of faults
caught and the lines of those that survived. Some of these change nothing that could be
tested: look at each.

What costs time is done once: libraries are loaded before a process is forked for each
fault. A first, traced run tells which tests reach which line, so that those come first;
what survives them meets the others too. A test that starts another Python sees no fault
there. Needs `os.fork` (Linux, macOS).
"""

import argparse
import ast
import importlib
import importlib.machinery
import importlib.util
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# ---------------------------------------------------------------- what can be broken

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
PAIRS = "max min, any all, maximum minimum, amax amin, argmax argmin, sum mean, sin cos"
PAIRS += ", zeros ones, zeros_like ones_like, floor ceil, triu tril, log exp"
SWAPS = {a: b for pair in PAIRS.split(", ") for a, b in [pair.split()]}
SWAPS |= {b: a for a, b in SWAPS.items()}
DROPPED = re.compile(
    "abs|clamp|clip|copy|clone|detach|flip|sort|sqrt|square|round|cumsum|softmax|"
    "log_softmax|sigmoid|tanh|relu|strip|lower|casefold|unsqueeze|squeeze|t|transpose|"
    "contiguous|double|float|long|bool"
)


def options(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    "The ways to break one node: (what is done, the node put in its place)."
    if type(getattr(node, "op", None)) in OPERATORS:
        other = OPERATORS[type(node.op)]
        yield f"{type(node.op).__name__} -> {other.__name__}", _with(node, op=other())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        first, *rest = node.ops
        other = OPERATORS[type(first)]
        name = f"{type(first).__name__} -> {other.__name__}"
        yield name, _with(node, ops=[other(), *rest])
    elif isinstance(node, ast.UnaryOp):
        yield f"without {type(node.op).__name__}", node.operand
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        turned = ast.UnaryOp(ast.Not(), node.test)
        yield "condition turned round", _with(node, test=turned)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "returns None", _with(node, value=ast.Constant(None))
    elif isinstance(node, ast.Constant):
        yield from _of_constant(node)
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Break):
        yield "break -> continue", ast.Continue()
    elif isinstance(node, ast.Continue):
        yield "continue -> break", ast.Break()
    elif isinstance(node, ast.Raise):
        yield "does not raise", ast.Pass()
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement left out", ast.Pass()


def _with(node: ast.AST, **changes) -> ast.AST:
    "A copy of a node with some fields changed."
    fields = {name: getattr(node, name, None) for name in node._fields}
    return type(node)(**{**fields, **changes})


def _of_constant(node: ast.Constant):
    v = node.value
    if isinstance(v, bool):
        yield f"{v} -> {not v}", ast.Constant(not v)
    elif isinstance(v, (int, float)):
        yield f"{v} -> {v + 1}", ast.Constant(v + 1)
    if type(v) is int:
        yield f"{v} -> {v - 1}", ast.Constant(v - 1)


def _of_call(node: ast.Call):
    for k in node.keywords:
        if k.arg is not None:
            rest = [other for other in node.keywords if other is not k]
            yield f"without {k.arg}=", _with(node, keywords=rest)
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name in SWAPS:
        field = "attr" if isinstance(node.func, ast.Attribute) else "id"
        func = _with(node.func, **{field: SWAPS[name]})
        yield f"{name} -> {SWAPS[name]}", _with(node, func=func)
    if isinstance(node.func, ast.Attribute) and DROPPED.fullmatch(name):
        yield f"without .{name}()", node.func.value


# ---------------------------------------------------------------- where


class Fault(NamedTuple):
    place: int  # of the node, in the order of `places`
    option: int  # of `options` of this node
    line: int
    function: str
    what: str


SKIPPED = {  # fields that hold nothing to test
    "annotation",
    "returns",
    "decorator_list",
    "type_params",
}


def places(tree: ast.AST, function: str = "") -> Iterator[tuple]:
    "Every node that may be broken, as (parent, field, index, node, function)."
    for field, value in ast.iter_fields(tree):
        if field in SKIPPED or (isinstance(tree, ast.Raise) and field == "exc"):
            continue
        for i, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or _no_code(node):
                continue
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            inside = f"{function}.{node.name}".lstrip(".") if named else function
            yield tree, field, i if isinstance(value, list) else None, node, inside
            yield from places(node, inside)


def _no_code(node: ast.AST) -> bool:
    "An f-string, an import, the list of exported names, the command line."
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    if isinstance(node, ast.If):
        return ast.unparse(node.test).startswith("__name__ ==")
    return isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom))


def faults(source: str) -> list[Fault]:
    "Every fault that can be made in a module."
    found = []
    for n, (*_, node, function) in enumerate(places(ast.parse(source))):
        for k, (what, _) in enumerate(options(node)):
            found.append(Fault(n, k, node.lineno, function, what))
    return found


def broken(source: str, fault: Fault) -> ast.Module:
    "The module with one fault."
    tree = ast.parse(source)
    parent, field, i, node, _ = list(places(tree))[fault.place]
    new = list(options(node))[fault.option][1]
    for child in ast.walk(new):
        ast.copy_location(child, node)
    if i is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[i] = new
    return ast.fix_missing_locations(tree)


# ---------------------------------------------------------------- one run of the tests


class Broken(importlib.machinery.SourceFileLoader):
    "Loads the module under test from a syntax tree instead of from its file."

    def __init__(self, name: str, path: str, tree: ast.Module):
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname):
        return compile(self.tree, self.path, "exec", dont_inherit=True)

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)


class Chosen:
    "A pytest plugin: these tests alone, in this order; all if none are named."

    def __init__(self, ids: list[str]):
        self.order = {id: n for n, id in enumerate(ids)}

    def pytest_collection_modifyitems(self, items):
        if self.order:
            items[:] = [item for item in items if item.nodeid in self.order]
            items.sort(key=lambda item: self.order[item.nodeid])


class Tracer:
    "A pytest plugin: the seconds of each test, and which lines of a file it reaches."

    def __init__(self, path: Path):
        self.path, self.now = str(path), "set up"
        self.lines: dict[str, set] = {"set up": set()}
        self.seconds: dict[str, float] = {}

    def trace(self, frame, event, arg):
        if frame.f_code.co_filename != self.path:
            return None
        self.lines[self.now].add(frame.f_lineno)
        return self.trace

    def pytest_runtest_call(self, item):
        sys.settrace(self.trace)  # anew: a test of deep recursion ends it
        self.now = item.nodeid
        self.lines[self.now] = set()

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration
            self.now = "set up"


def run_tests(tests: list[str], *plugins) -> int:
    "Run tests in this process; pytest's exit code."
    import pytest

    args = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    return int(pytest.main(args, plugins=list(plugins)))


def in_fork(work, log: Path, limit: float) -> int | None:
    "The exit code of `work()` in a process of its own; None if it ran past `limit`."
    pid = os.fork()
    if pid == 0:
        code = 70
        with suppress(BaseException):
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            code = work()
        os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# ---------------------------------------------------------------- the whole


class Run:
    "A module, its tests, and what a first run of them has shown."

    def __init__(self, module: str, tests: list[str], folder: Path):
        self.name = f"mmcourse.{module}"
        self.path = ROOT / "mmcourse" / f"{module.replace('.', '/')}.py"
        self.source = self.path.read_text(encoding="utf-8")
        self.tests, self.folder = tests, folder

    def learn(self):
        "Run the tests unbroken and traced; load here what they have loaded."
        found = self.folder / "found.json"

        def work():
            tracer = Tracer(self.path)
            sys.settrace(tracer.trace)
            code = run_tests(self.tests, tracer)
            sys.settrace(None)
            lines = {id: sorted(reached) for id, reached in tracer.lines.items()}
            loaded = [m for m in list(sys.modules) if not m.startswith(("_", "test"))]
            found.write_text(json.dumps([lines, tracer.seconds, loaded]))
            return code

        start = time.monotonic()
        log = self.folder / "unbroken.txt"
        if in_fork(work, log, 3600) != 0:
            sys.exit(log.read_text(errors="replace") + "\nthe unbroken tests fail")
        self.wall = time.monotonic() - start
        self.lines, self.seconds, loaded = json.loads(found.read_text())
        for name in loaded:
            if not name.startswith(("mmcourse", "conftest", "tests")):
                with suppress(BaseException):
                    importlib.import_module(name)

    def reached_by(self, fault: Fault) -> list[str]:
        "The tests that reach a line, the quickest first; all if it runs on import."
        ids = sorted(self.seconds, key=self.seconds.get)
        if fault.line in self.lines["set up"]:
            return ids
        return [id for id in ids if fault.line in self.lines[id]]

    def caught(self, fault: Fault, ids: list[str]) -> bool:
        "Whether a test fails, or takes too long, with this fault."
        tree = broken(self.source, fault)

        def work():
            os.environ["MMCOURSE_CACHE"] = str(self.folder / "cache")
            sys.meta_path.insert(0, Broken(self.name, str(self.path), tree))
            return run_tests(self.tests, Chosen(ids))

        return (
            in_fork(work, self.folder / f"{os.getpid()}.txt", 10 + 4 * self.wall) != 0
        )

    def survives(self, fault: Fault, say: bool) -> bool:
        "Whether no test notices a fault: first those that reach it, then all."
        first = self.reached_by(fault)
        if first and self.caught(fault, first):
            return False
        if len(first) < len(self.seconds) and self.caught(fault, []):
            return False
        if say:
            line = self.source.splitlines()[fault.line - 1].strip()
            reached = "" if first else " (no test gets there)"
            where = f"{self.path.name}:{fault.line}"
            print(f"{where} {fault.what}{reached}: {line}", flush=True)
        return True


def survivors(run: Run, found: list[Fault], jobs: int) -> list[Fault]:
    "Which faults survive; each is printed when it is known."

    def work(k: int):
        mine = found[k::jobs]
        alive = [fault for fault in mine if run.survives(fault, say=True)]
        (run.folder / f"{k}.json").write_text(json.dumps(alive))

    pids = []
    for k in range(jobs):
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                work(k)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    alive = [json.loads((run.folder / f"{k}.json").read_text()) for k in range(jobs)]
    return sorted(Fault(*fault) for part in alive for fault in part)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", help="its name in mmcourse, such as audio")
    parser.add_argument("--tests", nargs="+", help="default: tests/test_MODULE.py")
    parser.add_argument("--max", type=int, help="a random sample of so many faults")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="a pattern for names of functions")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["PYTHONPATH"] = sys.path[0] = str(ROOT)
    tests = args.tests or [f"tests/test_{args.module}.py"]
    with tempfile.TemporaryDirectory() as folder:
        run = Run(args.module, tests, Path(folder))
        found = [f for f in faults(run.source) if re.search(args.only, f.function)]
        total = len(found)
        if args.max and args.max < total:
            found = sorted(random.Random(args.seed).sample(found, args.max))
        run.learn()
        first = f"{len(run.seconds)} tests in {run.wall:.0f} s"
        print(f"{first}, {total} faults possible", flush=True)
        start = time.monotonic()
        alive = survivors(run, found, args.jobs)
        seconds = time.monotonic() - start
    share = 100 * (1 - len(alive) / max(len(found), 1))
    counts = f"{len(found) - len(alive)} of {len(found)} faults caught"
    print(f"{args.module}: {counts}, {share:.0f} %, in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
