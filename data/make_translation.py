"""Lab 38: translators from Chinese into English, over seeds, and with speech.

    python data/make_translation.py --units FILE  # of make_translation_speech.py

Writes data/results/translation.json. Arms are named
what/seed. `gru characters`, `gru words`, `gru glosses`: lab 38's GRU, by what it reads;
`pointer`: the GRU that reads glosses and may copy; `transformer`: reads characters;
`both`: the transformer that reads characters with gaps and what a recogniser heard;
`into chinese`: the GRU the other way. Each has BLEU and chrF of the test pairs, `each`:
chrF of each sentence (0 to z in base 36 is 0 to 100 %) and `sure`: its mean probability
of a token, in the same way; `valid`: chrF of the validation pairs after every third
pass. `links`: share of linked English words at which the GRU looks at the right Chinese
word. In `both`, `noise` holds chrF strings of the first test pairs.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
from study import Study

from mmcourse.translation import (
    GRUTranslator,
    PointerTranslator,
    TransformerTranslator,
    attention_map,
    bleu,
    chrf,
    chrf_each,
    greedily,
    with_gaps,
)
from mmcourse.translation_parts import (
    GAP,
    SHIFT,
    Tongues,
    english,
    train_translator,
    words_zh,
)
from mmcourse.translation_tools import SPLITS, gloss_ids, links, translation_pairs

LEVELS = 20, -5, -10  # dB
SHARES = 0.0, 0.2, 0.4, 0.6
FIRST = 250  # test pairs of the noise study
BASE = "0123456789abcdefghijklmnopqrstuvwxyz"
EPOCHS = 30  # passes
SETTINGS = {  # fixed after one run each, watched on validation pairs
    "gru": {"d": 256, "dropout": 0.4},
    "pointer": {"d": 128, "dropout": 0.3},
    "transformer": {"d": 128, "dropout": 0.3},
}
RATES = {"gru": 2e-3, "pointer": 3e-3, "transformer": 2e-3, "both": 2e-3}
PAIRS, GLOSSES = translation_pairs()
TRAIN, VALID, TEST = PAIRS.values()
KEPT = {name: [p["place"] for p in part] for name, part in PAIRS.items()}
TONGUES = Tongues.learn(TRAIN)
REFERENCES = [english(p).strip() for p in TEST]
WANTED = [english(p).strip() for p in VALID]


def as_digits(shares) -> str:  # (N,) in 0 … 1
    return "".join(BASE[round(35 * float(s))] for s in shares)


def characters(pairs) -> list:
    return [TONGUES.characters.encode([*p["chinese"]]) for p in pairs]


def words(pairs) -> list:
    return [TONGUES.words.encode(p["words"]) for p in pairs]


def pieces(pairs) -> list:
    return [[SHIFT + i for i in TONGUES.bpe.encode(english(p))] for p in pairs]


def scored(said: list[str], sure: np.ndarray, truths=REFERENCES, **how) -> dict:
    return {
        "bleu": round(bleu(said, truths, **how), 2),
        "chrf": round(chrf(said, truths), 2),
        "each": as_digits(chrf_each(said, truths) / 100),
        "sure": as_digits(np.exp(sure)),
        "said": said[:8],
    }


def plain(texts: list, answers: list):
    "Draws rows as they are, without sound."

    def draw(rows, rng):
        return [texts[i] for i in rows], [[]] * len(rows), [answers[i] for i in rows]

    return draw


def learnt(model, texts, answers, kind, seed, tried=None) -> list[float]:
    "Trains; chrF of the validation pairs `tried` after every third pass."
    curve = []

    def watch(epoch):
        if tried is not None and epoch % 3 == 0:
            got, _ = greedily(model, tried)
            curve.append(round(chrf([TONGUES.written(a) for a in got], WANTED), 1))

    sizes, draw = [len(a) for a in answers], plain(texts, answers)
    how = {"lr": RATES[kind], "seed": seed, "watch": watch}
    train_translator(model, draw, sizes, EPOCHS, **how)
    return curve


def judged(model, reads, kind, seed) -> dict:
    "Trained, watched on validation, scored on the test."
    curve = learnt(model, reads(TRAIN), pieces(TRAIN), kind, seed, reads(VALID))
    answers, sure = greedily(model, reads(TEST))
    result = scored([TONGUES.written(a) for a in answers], sure)
    return result | {"valid": curve}


def glosses(pairs) -> list:
    return [gloss_ids(p, GLOSSES, TONGUES) for p in pairs]


def gru(seed: int, reads) -> dict:
    pieces_in = len(TONGUES.bpe) + SHIFT
    known = {characters: len(TONGUES.characters), words: len(TONGUES.words)}
    size = known.get(reads, pieces_in)
    kind = "pointer" if reads is glosses else "gru"  # the pointer's control
    model = GRUTranslator(size, pieces_in, **SETTINGS[kind])
    result = judged(model, reads, kind, seed)
    return result if reads is glosses else result | {"links": linked(model, reads)}


def pointer(seed: int) -> dict:
    model = PointerTranslator(len(TONGUES.bpe) + SHIFT, **SETTINGS["pointer"])
    return judged(model, glosses, "pointer", seed)


def transformer(seed: int) -> dict:
    sizes = len(TONGUES.characters), len(TONGUES.bpe) + SHIFT
    model = TransformerTranslator(*sizes, **SETTINGS["transformer"])
    return judged(model, characters, "transformer", seed)


def linked(model, reads) -> list[int]:
    "Linked words at which it looks right, on the diagonal right, and all."
    right, diagonal, total = 0, 0, 0
    for pair, text, answer in zip(TEST, reads(TEST), pieces(TEST)):
        known = links(pair, GLOSSES)
        sizes = [len(w) if reads is characters else 1 for w in pair["words"]]
        starts = [TONGUES.bpe.tokens[i - SHIFT][:1] == b" " for i in answer]
        w = attention_map(model, text, answer, sizes, starts)
        for i, k in known.items():
            right += int(w[i].argmax() == k)
            diagonal += round(i / max(len(w) - 1, 1) * (len(sizes) - 2)) == k
            total += 1
    return [right, int(diagonal), total]


def into_chinese(seed: int) -> dict:
    wanted = [[SHIFT + i for i in row] for row in characters(TRAIN)]
    sizes = len(TONGUES.bpe) + SHIFT, len(TONGUES.characters) + SHIFT
    model = GRUTranslator(*sizes, **SETTINGS["gru"])
    learnt(model, pieces(TRAIN), wanted, "gru", seed)
    answers, sure = greedily(model, pieces(TEST))
    said = [TONGUES.written_zh(a) for a in answers]
    return scored(said, sure, [p["chinese"] for p in TEST], words=words_zh)


def units(z, name: str, part: str) -> list[list[int]]:
    "What was heard of each sentence of a part, from 1: 0 is padding."
    ends = np.cumsum(z[f"{name}_sizes"].astype(int))[:-1]
    rows = np.split(z[f"{name}_units"].astype(int), ends)
    return [(1 + rows[i - SPLITS[part].start]).tolist() for i in KEPT[part]]


def both(seed: int, path: Path) -> dict:
    z = np.load(path)
    texts, answers, gap = characters(TRAIN), pieces(TRAIN), TONGUES.characters.ids[GAP]
    heard = [units(z, f"train{k}", "train") for k in range(4)]

    def draw(rows, rng):
        text, sound = [], []
        for i in rows:
            share = 0.0 if rng.random() < 0.3 else rng.uniform(0, 0.7)
            alone = rng.random()
            text.append([] if alone < 0.15 else with_gaps(texts[i], share, gap, rng))
            sound.append([] if alone > 0.7 else heard[rng.integers(4)][i])
        return text, sound, [answers[i] for i in rows]

    sizes = TONGUES.characters, TONGUES.bpe, z["names"]
    a, b, c = map(len, sizes)
    model = TransformerTranslator(a, b + SHIFT, c + 1, **SETTINGS["transformer"])
    lengths = [len(a) for a in answers]
    how = {"lr": RATES["both"], "seed": seed}
    train_translator(model, draw, lengths, EPOCHS, **how)
    test = characters(TEST)
    got, sure = greedily(model, test)
    result = scored([TONGUES.written(a) for a in got], sure)
    rng = np.random.default_rng(5)
    gaps = {s: [with_gaps(t, s, gap, rng) for t in test[:FIRST]] for s in SHARES}
    sound = {n: units(z, f"test{n}", "test")[:FIRST] for n in LEVELS}
    other = sound[20][1:] + sound[20][:1]
    noise, said = {}, {}

    def ask(name, text, heard):
        got, _ = greedily(model, text, heard)
        texts = [TONGUES.written(a) for a in got]
        noise[name] = as_digits(chrf_each(texts, REFERENCES[:FIRST]) / 100)
        said[name] = texts[:4]

    nothing = [[]] * FIRST
    for share, text in gaps.items():
        ask(f"text {share}", text, nothing)
        ask(f"other {share}", text, other)
        for n, heard_now in sound.items():
            ask(f"both {share} {n}", text, heard_now)
    for n, heard_now in sound.items():
        ask(f"speech {n}", nothing, heard_now)
    return result | {"noise": noise} | ({"examples": said} if seed == 0 else {})


def main(path: Path | None):
    about = {
        "epochs": EPOCHS,
        "settings": SETTINGS,
        "rates": RATES,
        "dB": LEVELS,
        "shares": SHARES,
    }
    study = Study("translation", __doc__, **about)
    for seed in study.seeds(3):
        arms = {"pointer": partial(pointer, seed)}
        arms["gru characters"] = partial(gru, seed, characters)
        arms["gru glosses"] = partial(gru, seed, glosses)
        arms["transformer"] = partial(transformer, seed)
        arms["gru words"] = partial(gru, seed, words)
        arms["into chinese"] = partial(into_chinese, seed)
        if path:
            arms["both"] = partial(both, seed, path)
        for name, run in arms.items():
            study(f"{name}/{seed}", run, seed)


if __name__ == "__main__":
    found = None
    if "--units" in sys.argv:
        i = sys.argv.index("--units")
        found = Path(sys.argv[i + 1])
        del sys.argv[i : i + 2]
    main(found)
