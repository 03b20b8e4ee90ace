"""The constraints that pin the lower bounds."""

from pathlib import Path

from packaging.requirements import Requirement

from conftest import tool

ROOT = Path(__file__).resolve().parent.parent
oldest = tool("oldest")


def test_lower_bounds():
    text = (
        "[DEFAULT]\nrequirements = numpy>=1.26 torch>=2.2,<3 plain\n"
        'dev_requirements = tool>=1.2.3;python_version>="3.11" other<2\n'
    )
    wanted = ["numpy==1.26.*", "tool==1.2.3.*", "torch==2.2.*"]
    assert oldest.lower_bounds(text) == wanted


def test_each_is_a_constraint_that_pip_takes():
    found = oldest.lower_bounds((ROOT / "settings.ini").read_text(encoding="utf-8"))
    names = [Requirement(line).name for line in found]
    assert {"numpy", "torch", "keras", "pillow"} <= set(names)
    assert len(set(names)) == len(names)
