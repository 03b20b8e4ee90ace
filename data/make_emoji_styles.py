"""The same emoji by other hands, for chapter 21.

    pip install resvg-py
    npm pack @iconify-json/noto @iconify-json/fluent-emoji-flat    # unpack both
    python data/make_emoji_styles.py NOTO/package FLUENT/package

Writes data/emoji_styles.npz: of the test emoji of `mmcourse.emoji` that both styles
have, every second one, drawn on white at twice the size and averaged to 32 × 32 pixels.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from mmcourse.emoji import emoji

SIZE = 32
FILE = Path(__file__).resolve().parent / "emoji_styles.npz"


def code_points(character: str) -> str:
    return "-".join(f"{ord(c):x}" for c in character if c != "\ufe0f")


def drawings(folder: Path) -> dict[str, str]:  # code points -> SVG
    icons = json.loads((folder / "icons.json").read_text("utf-8"))
    chars = json.loads((folder / "chars.json").read_text("utf-8"))
    w, h = icons.get("width", 16), icons.get("height", 16)
    found = {}
    for code, name in chars.items():
        if name in icons["icons"]:
            body = icons["icons"][name]["body"]
            head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}"'
            found[code.replace("-fe0f", "")] = f"<svg {head}>{body}</svg>"
    return found


def draw(svg: str) -> np.ndarray:  # (SIZE, SIZE, 3) uint8 on white
    png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIZE, height=2 * SIZE)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB").reduce(2))


def main(noto: str, fluent: str):
    styles = {"noto": drawings(Path(noto)), "fluent": drawings(Path(fluent))}
    signs = emoji(SIZE)
    test = [c for c, s in zip(signs["emoji"], signs["split"]) if s == "test"]
    both = [c for c in test if all(code_points(c) in s for s in styles.values())]
    kept = both[::2]
    print(f"{len(test)} test emoji, {len(both)} in both styles, {len(kept)} kept")
    pictures = {
        name: np.stack([draw(style[code_points(c)]) for c in kept])
        for name, style in styles.items()
    }
    np.savez_compressed(FILE, emoji=np.array(kept), **pictures)
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
