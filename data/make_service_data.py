"""Lab 40: the files that ship: photos, catalogue, sentences of the home's grammar.

    python data/make_service_data.py

Writes service_photos.npz, service_catalogue.csv and service_home.xz beside itself, and
prints their digests, which stand in mmcourse.service_tools. Needs Debian's
dataset-fashion-mnist 0.0~git20200523.55506a9-1 (MIT), and home-assistant-intents
2026.11.25 with hassil 3.13.0 (Apache-2.0, `pip install`).
"""

import csv
import json
import lzma
from pathlib import Path

import numpy as np

from mmcourse.store import inside_package, read_idx, sha256, verified

HERE = Path(__file__).parent
FASHION = Path("/usr/share/datasets/fashion-mnist")
INTENTS = {
    "en": "65a7162518fffb15bd07590ff1c630bc45eedd5065738eeea96ce2f8d0cc02be",
    "zh-CN": "02a971118aca765289f9271ff5e93db6d56fc2617330045266fb4c449c0b7a17",
}
HOME = (
    "HassTurnOn",
    "HassTurnOff",
    "HassStartTimer",
    "HassGetWeather",
    "HassSetVolume",
    "HassGetCurrentTime",
    "HassVacuumStart",
)
NAMES = {
    "name": {"en": ["kitchen light", "lamp", "fan", "television", "heater"]},
    "area": {"en": ["kitchen", "bedroom", "hall", "living room"]},
}
NAMES["floor"] = {"en": ["first floor"], "zh": ["一楼"]}
NAMES["name"]["zh"] = ["厨房灯", "台灯", "风扇", "电视", "暖气"]
NAMES["area"]["zh"] = ["厨房", "卧室", "走廊", "客厅"]
MODELS = ["Alder", "Birch", "Cedar", "Fir", "Hazel", "Maple"]
LETTER, NUMBER = ["S", "M", "L", "XL"], [str(n) for n in range(38, 44)]
COLOURS = ["black", "white", "red", "blue", "green", "grey", "brown", "pink"]


def fashion(part: str) -> tuple[np.ndarray, np.ndarray]:  # 'train' or 't10k'
    "Photos (N, 28, 28) and kinds (N,)."
    names = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
    return tuple(read_idx(FASHION / name) for name in names)


def write_photos():
    "The first 18 of each kind of the test part: 6 for sale, 4 and 8 not."
    photos, kinds = fashion("t10k")
    rows = [np.flatnonzero(kinds == k)[:18] for k in range(10)]
    cuts = {"catalogue": slice(6), "valid": slice(6, 10), "test": slice(10, 18)}
    kept = {k: photos[np.concatenate([r[c] for r in rows])] for k, c in cuts.items()}
    np.savez_compressed(HERE / "service_photos.npz", **kept)


def write_catalogue():
    "Sixty rows, drawn; no two products of a kind have one price."
    from mmcourse.service_tools import COLOUR_NAMES, PRODUCT_KINDS, SHOES

    assert [*COLOUR_NAMES] == COLOURS
    rng, rows = np.random.default_rng(40), []
    for i, kind in enumerate(PRODUCT_KINDS):
        base = (15, 40, 45, 60, 120, 35, 30, 70, 55, 95)[i]
        prices = base * np.linspace(0.7, 1.4, 6) + rng.uniform(-2, 2, 6)
        for model, price in zip(MODELS, rng.permutation(prices)):
            sizes = NUMBER if kind in SHOES else ["one"] if kind == "bag" else LETTER
            made = rng.random(len(sizes)) < 0.85
            made[0] |= not made.any()
            stock = rng.integers(1, 20, len(sizes)) * (rng.random(len(sizes)) < 0.75)
            pairs = [f"{s}:{n}" for s, n, m in zip(sizes, stock, made) if m]
            colours = rng.permutation(COLOURS)[: rng.integers(1, 5)]
            rows.append(
                {
                    "id": f"P{len(rows) + 1:02}",
                    "kind": kind,
                    "name": model,
                    "price": f"{np.floor(price) + 0.9:.2f}",
                    "stock": " ".join(pairs),
                    "colours": " ".join(colours),
                    "delivery": int(rng.integers(1, 8)),
                    "returns": int(rng.choice([14, 30, 60])),
                }
            )
    with open(HERE / "service_catalogue.csv", "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def home(language: str, tag: str, most: int = 90) -> list[tuple[str, str, str]]:
    "Sentences of eight intents, drawn from all that the grammar can say."
    from hassil.intents import Intents, TextSlotList
    from hassil.sample import sample_intents

    path = inside_package("home_assistant_intents", f"data/{tag}.json")
    intents = Intents.from_dict(json.loads(verified(path, INTENTS[tag]).read_text()))
    lists = {k: TextSlotList.from_strings(v[language]) for k, v in NAMES.items()}
    rng, rows = np.random.default_rng(40), []
    for name in HOME:
        said = sample_intents(
            intents,
            lists,
            intent_names={name},
            max_sentences_per_intent=20000,
            language=language,
        )
        texts = sorted({t.strip() for _, t in said if len(t) < 60})
        rows += [(language, name, t) for t in rng.permutation(texts)[:most]]
    return rows


def main():
    write_photos()
    write_catalogue()
    lines = ["\t".join(r) for r in [*home("en", "en"), *home("zh", "zh-CN")]]
    packed = lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    (HERE / "service_home.xz").write_bytes(packed)
    for name in ("service_photos.npz", "service_catalogue.csv", "service_home.xz"):
        print(name, (HERE / name).stat().st_size, sha256(HERE / name))


if __name__ == "__main__":
    main()
