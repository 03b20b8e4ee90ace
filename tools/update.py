"""Fetch the course's newest state, and keep what a learner has changed.

    python tools/update.py      # or: make update

Notebooks change when they are run, and `git pull` refuses to write over them. So each
changed notebook is first copied to `mine/`, then put back as it was committed, then the
new state is pulled. Nothing in `mine/` is ever written over; git does not look at it.
"""

import shutil
import subprocess
import sys
from pathlib import Path


def git(*args: str) -> str:
    "What git prints. Raises `CalledProcessError`; git has said why by then."
    done = subprocess.run(
        ["git", *args], check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return done.stdout


def free(path: Path) -> Path:
    "`path`, or the first of its names with a number that nothing has yet."
    names = (path.with_stem(f"{path.stem}_{n}") for n in range(2, 10_000))
    return next(p for p in (path, *names) if not p.exists())


def keep(root: Path) -> list[Path]:
    "Copy every changed notebook to mine/ and put it back; returns the copies."
    changed = git("diff", "--name-only", "-z", "HEAD", "--", "*.ipynb").split("\0")
    copies = []
    for name in filter(None, changed):
        if (root / name).is_file():
            copy = free(root / "mine" / Path(name).name)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy2(root / name, copy)
            copies.append(copy)
            print(f"{name}: your copy is {copy.relative_to(root).as_posix()}")
        git("checkout", "--quiet", "HEAD", "--", name)
    return copies


def main() -> int:
    try:
        root = Path(git("rev-parse", "--show-toplevel").strip())
        keep(root)
        print(git("pull", "--ff-only"), end="")
    except subprocess.CalledProcessError as e:
        return e.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
