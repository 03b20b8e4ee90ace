"""Lab 38's extra: acted speech of a game, and which line of English it says.

    apt-get download fillets-ng-data fillets-ng-data-cs fillets-ng-data-nl
    dpkg -x FILE FOLDER  # for each; nothing of it is shipped (GPL)
    python data/make_translation_fillets.py --game FOLDER/usr/share/games/fillets-ng

Writes data/results/translation_fillets.json. Arms are named language/seed. A line in
Czech or Dutch, text with gaps or its recording or both, is to be matched with one of
ten lines of English (chance: one in ten). Text says how many letters it has, and which
whole words are left; words are linked with English by counting in other levels of the
game. Of the recording only the length is used, without its quiet ends: no recogniser is
needed. The weights of the three are learnt on a second part of the levels, hits are
counted on a third. `levels`: the levels of the third part, as numbers; `lines`: how
many lines each has; `hits`: how many of them were matched, by arm.
"""

import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from study import Study

SHARES = 0.0, 0.6, 1.0  # of the letters lost; what is left at 1 is their number
LINE = re.compile(r'dialogId\("([^"]+)", "[^"]*", "(.*?)"\)\s*dialogStr\("(.*?)"\)')
USED = {"text": [0, 1], "speech": [2], "both": [0, 1, 2]}  # of the features


def seconds(path: Path) -> float:
    "How long a recording is, without its quiet ends (40 dB below its loudest)."
    wave, rate = soundfile.read(path)
    wave = np.abs(wave if wave.ndim == 1 else wave.mean(1))
    loud = np.flatnonzero(wave > 0.01 * wave.max(initial=0))
    return (loud[-1] - loud[0] + 1) / rate if len(loud) else 0.0


def lines_of(game: Path, language: str) -> list[tuple]:
    "(level, text, English text, seconds) of every line with a recording."
    found = []
    for file in sorted(game.glob(f"script/*/dialogs_{language}.lua")):
        level = file.parent.name
        for name, english, own in LINE.findall(file.read_text("utf-8")):
            sound = game / "sound" / level / language / f"{name}.ogg"
            long = seconds(sound) if sound.exists() else 0
            if long and re.search(r"\w", own) and re.search(r"\w", english):
                found.append((level, own.lower(), english.lower(), long))
    return found


def with_holes(text: str, share: float, rng) -> list[str]:
    "The words of which no letter is lost."
    lost = rng.random(len(text)) < share
    holed = "".join("□" if gone else c for c, gone in zip(text, lost))
    return [w for w in re.findall(r"[\w□]+", holed) if "□" not in w]


def lexicon(lines: list[tuple]) -> dict:
    "(word, English word) -> how much oftener together than apart, 0 to 1 [Dice]."
    count, pairs = {}, {}
    for _, own, english, _ in lines:
        a, b = {*re.findall(r"\w+", own)}, {*re.findall(r"\w+", english)}
        for w in [("own", w) for w in a] + [("en", w) for w in b]:
            count[w] = count.get(w, 0) + 1
        for pair in [(x, y) for x in a for y in b]:
            pairs[pair] = pairs.get(pair, 0) + 1
    both = {p: n for p, n in pairs.items() if n > 1}
    return {
        (x, y): 2 * n / (count["own", x] + count["en", y]) for (x, y), n in both.items()
    }


class Matcher:
    "What text and recording say about ten lines of English."

    def __init__(self, lines):
        self.dice = lexicon(lines)
        size = np.log([len(e) for _, _, e, _ in lines])
        letters = np.log([len(o) for _, o, _, _ in lines])
        long = np.log([s for *_, s in lines])
        self.fits = [np.polyfit(size, y, 1) for y in (letters, long)]

    def features(self, words, letters, long, english) -> list[float]:
        "Words that fit; how far the letters, and the seconds, are from what fits."
        theirs, size = {*re.findall(r"\w+", english)}, np.log(len(english))
        best = [
            max((self.dice.get((w, e), 0) for e in theirs), default=0) for w in words
        ]
        off = [
            np.log(y) - np.polyval(f, size) for f, y in zip(self.fits, (letters, long))
        ]
        return [sum(best), *(-(d**2) for d in off)]

    def questions(self, lines, share, rng, other) -> np.ndarray:  # (N, 10, 3)
        "The right line first, then nine others."
        rows = []
        for i, (_, own, english, long) in enumerate(lines):
            if other:  # somebody else's recording
                long = lines[(i + len(lines) // 2) % len(lines)][3]
            wrong = rng.choice(np.delete(np.arange(len(lines)), i), 9, replace=False)
            choices = [english, *(lines[k][2] for k in wrong)]
            words = with_holes(own, share, rng)
            rows.append([self.features(words, len(own), long, e) for e in choices])
        return np.array(rows)


def weights(x: np.ndarray) -> np.ndarray:  # (N, 10, F) -> (F,)
    "Conditional logit: the right one is the first."
    x = torch.as_tensor(x)
    w = torch.ones(x.shape[-1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = -(x @ w).log_softmax(1)[:, 0].mean() + 1e-4 * w.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.detach().numpy()


def matched(lines: list[tuple], seed: int) -> dict:
    rng = np.random.default_rng(seed)
    names = sorted({line[0] for line in lines})
    cuts = [int(0.5 * len(names)), int(0.7 * len(names))]
    parts = np.split(rng.permutation(len(names)), cuts)
    first, second, third = (
        [a for a in lines if names.index(a[0]) in part] for part in parts
    )
    matcher, hits = Matcher(first), {}
    level = np.array([names.index(line[0]) for line in third])

    def ask(arm, share, other):
        learn = matcher.questions(second, share, np.random.default_rng(1), False)
        judge = matcher.questions(third, share, np.random.default_rng(2), other)
        z = judge[..., USED[arm]] @ weights(learn[..., USED[arm]])
        return counted(level[z[:, 0] > z[:, 1:].max(1)], parts[2])

    for share in SHARES:
        hits[f"text {share}"] = ask("text", share, False)
        hits[f"both {share}"] = ask("both", share, False)
        hits[f"other {share}"] = ask("both", share, True)
    hits["speech"], hits["other"] = ask("speech", 0, False), ask("speech", 0, True)
    return {
        "levels": " ".join(map(str, parts[2])),
        "lines": counted(level, parts[2]),
        "hits": hits,
    }


def counted(found: np.ndarray, levels: np.ndarray) -> str:
    return " ".join(str((found == k).sum()) for k in levels)


def main(game: Path):
    study = Study("translation_fillets", __doc__, shares=SHARES, choices=10)
    for language in ("cs", "nl"):
        lines = lines_of(game, language)
        about = [len(lines), round(sum(line[3] for line in lines) / 60, 1)]
        study(f"{language} lines and minutes/0", partial(list, about))
        for seed in study.seeds(5):
            study(f"{language}/{seed}", partial(matched, lines, seed), seed)


if __name__ == "__main__":
    i = sys.argv.index("--game")
    found = Path(sys.argv[i + 1])
    del sys.argv[i : i + 2]
    main(found)
