"""Write README.md from nbs/index.ipynb, the course's home page.

    python tools/readme.py            # README.md and the pictures it shows
    python tools/readme.py --check    # exit 1 where they are out of step

Hidden cells (`#| hide`, `#| export`) and code stay on the site; a cell's stored picture becomes nbs/images/index-N.png; relative links are written as seen from
the repository's root.
"""

import argparse
import base64
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by tools/readme.py from nbs/index.ipynb: change that, then `make readme`. -->\n"
LINK = re.compile(r"(\]\()(?!https?:|#|/)([^)\s]+\))")


def readme(
    nb: dict,  # a notebook as JSON
) -> tuple[
    str, dict[str, bytes]
]:  # the README's text; its pictures by their path below nbs/
    "What README.md and its pictures should be."
    parts, pictures = [], {}
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(LINK.sub(r"\1nbs/\2", source))
        for out in cell.get("outputs", []):
            png = out.get("data", {}).get("image/png")
            if png:
                name = f"images/index-{len(pictures)}.png"
                pictures[name] = base64.b64decode("".join(png))
                alt = cell["metadata"].get("fig-alt", "")
                parts.append(f"![{alt}](nbs/{name})")
            elif out.get("data", {}).get("text/markdown"):
                parts.append("".join(out["data"]["text/markdown"]))
    return NOTE + "\n" + "\n\n".join(p.strip() for p in parts) + "\n", pictures


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing, tell whether README.md is in step",
    )
    check = parser.parse_args().check
    text, pictures = readme(
        json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))
    )
    wanted = {
        ROOT / "README.md": text.encode(),
        **{ROOT / "nbs" / name: png for name, png in pictures.items()},
    }
    behind = [
        p
        for p, content in wanted.items()
        if not p.exists() or p.read_bytes() != content
    ]
    if check:
        for p in behind:
            print(
                f"{p.relative_to(ROOT)} is not what nbs/index.ipynb says: make readme"
            )
        return 1 if behind else 0
    for p in behind:
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(wanted[p])
        print(f"wrote {p.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
