"""Constraints that pin every requirement of settings.ini to its lower bound.

    python tools/oldest.py > oldest.txt
    pip install -c oldest.txt -e ".[dev]"

`numpy>=1.26` becomes `numpy==1.26.*`: the newest repair of the oldest version that is
admitted. What fails under these raises its bound in settings.ini.
"""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lower_bounds(text: str) -> list[str]:  # of settings.ini
    "A constraint for each requirement of the library and its extras that has a bound."
    config = configparser.ConfigParser()
    config.read_string(text)
    lines = [v for k, v in config["DEFAULT"].items() if k.endswith("requirements")]
    found = {}
    for requirement in " ".join(lines).split():
        m = re.match(r"([\w.-]+)[^;]*?>=([\d.]+)", requirement)
        if m:
            found[m[1]] = f"{m[1]}=={m[2]}.*"
    return sorted(found.values())


if __name__ == "__main__":
    print("\n".join(lower_bounds((ROOT / "settings.ini").read_text(encoding="utf-8"))))
