"""Write README.md from nbs/index.ipynb, the course's home page.

    python tools/readme.py            # README.md and the pictures it shows
    python tools/readme.py --check    # exit 1 where they are out of step

Hidden cells (`#| hide`, `#| export`) are left out, and so is folded code. The picture
that a cell has stored becomes nbs/images/index-N.svg or .png, its text stands under its
code; relative links are written as seen from the repository's root.
"""

import argparse
import base64
import configparser
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME, IMAGES = ROOT / "nbs/index.ipynb", ROOT / "nbs/images"
NOTE = (
    "Written by tools/readme.py from nbs/index.ipynb: change that, then `make readme`."
)
LINK = re.compile(r"(\]\()(?!https?:|#|/)([^)\s]+\))")
HIDDEN = re.compile(r"^#\|\s*(hide|exporti?|default_exp|code-fold: true)", re.M)


def badges() -> str:
    "Whether the tests pass, the licence, the site: for the repository's page alone."
    config = configparser.ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    c = config["DEFAULT"]
    tests = f"{c['git_url']}/actions/workflows/test.yml"
    site = c["doc_host"] + c["doc_baseurl"]
    return (
        f"[![tests]({tests}/badge.svg)]({tests}) "
        "[![licence](https://img.shields.io/badge/code-Apache_2.0-blue)](LICENSE) "
        f"[![site](https://img.shields.io/badge/site-{c['repo']}-blue)]({site})"
    )


def picture(data: dict) -> tuple[str, bytes] | None:
    "The kind and the content of an output's picture."
    if "image/svg+xml" in data:
        return "svg", "".join(data["image/svg+xml"]).encode()
    if "image/png" in data:
        return "png", base64.b64decode("".join(data["image/png"]))
    return None


def plain(output: dict) -> str:
    "An output's text, as a block; a table as it is."
    data = output.get("data", {})
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```\n{text.rstrip()}\n```" if text.strip() else ""


def readme(
    nb: dict,  # a notebook as JSON
    more: str = "",  # what stands below its title
) -> tuple[str, dict[str, bytes]]:  # text; pictures by their path below nbs/
    "What README.md and its pictures should be."
    parts, pictures = [f"<!-- {NOTE} -->"], {}
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(LINK.sub(r"\1nbs/\2", source))
            continue
        hidden = HIDDEN.search(source)
        if not hidden:
            parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            found = picture(output.get("data", {}))
            if found:
                name = f"images/index-{len(pictures)}.{found[0]}"
                pictures[name] = found[1]
                alt = cell["metadata"].get("fig-alt", "")
                parts.append(f"![{alt}](nbs/{name})")
            elif not hidden:
                parts.append(plain(output))
    parts.insert(2, more)
    return "\n\n".join(p.strip() for p in parts if p.strip()) + "\n", pictures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    told = "change nothing, tell whether README.md is in step"
    parser.add_argument("--check", action="store_true", help=told)
    check = parser.parse_args(argv).check
    text, pictures = readme(json.loads(HOME.read_text(encoding="utf-8")), badges())
    wanted = {ROOT / "nbs" / name: content for name, content in pictures.items()}
    wanted[ROOT / "README.md"] = text.encode()
    there = {p: p.read_bytes() for p in IMAGES.glob("index-*")}
    there |= {p: p.read_bytes() for p in wanted if p.exists()}
    behind = [p for p in {**there, **wanted} if there.get(p) != wanted.get(p)]
    for p in behind:
        name = p.relative_to(ROOT)
        if check:
            print(f"{name} is not what nbs/index.ipynb says: make readme")
        elif p in wanted:
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_bytes(wanted[p])
            print(f"wrote {name}")
        else:
            p.unlink()
            print(f"removed {name}")
    return 1 if check and behind else 0


if __name__ == "__main__":
    sys.exit(main())
