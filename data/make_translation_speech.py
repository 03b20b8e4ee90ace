"""Lab 38: the pairs as they ship, and what a recogniser hears when they are spoken.

    python data/make_translation_speech.py SENTENCES VOICE UNITS

SENTENCES is sentences.json of the package hsk-sentences-audio 1.0.0, VOICE the folder
usr/share/gcin-voice/ogg of Debian's gcin-voice. Writes data/translation_pairs.xz (the
pairs and the dictionary), data/translation_speech.npz (three spoken sentences and what
was heard of the test sentences) and UNITS, what was heard of all sentences, which
make_translation.py reads.

A sentence is spoken by gluing syllables: one recording of each, by one real voice
(5.ogg, CC BY 3.0), at a drawn speed and loudness, in pink noise. The recogniser is
chapter 23's listener with a symbol for each syllable, learnt frame by frame, since we
know where we glued. It learns from the training sentences. Test sentences use the same
recordings of syllables, in an order, speed and noise that it has not met.
"""

import json
import lzma
import re
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
import torch.nn.functional as F

from mmcourse.audio import level, resample
from mmcourse.datasets import SR, mu_law_codes
from mmcourse.speech import DigitListener, best_path, error_rate, hear
from mmcourse.spoken import downhill, in_noise, similar_length, together
from mmcourse.training import warmup_cosine

HERE = Path(__file__).parent
TRAIN, VALID = 3500, 250  # pairs; the others are for the test
LEVELS = [20, 0, -5, -10]  # dB, of the test sentences
INITIALS = dict(zip([*"bpmfdtnlgkhjqxrzcs"], "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄖㄗㄘㄙ"))
INITIALS |= {"zh": "ㄓ", "ch": "ㄔ", "sh": "ㄕ"}
FINALS = {"a": "ㄚ", "o": "ㄛ", "e": "ㄜ", "ai": "ㄞ", "ei": "ㄟ", "ao": "ㄠ"}
FINALS |= {"ou": "ㄡ", "an": "ㄢ", "en": "ㄣ", "ang": "ㄤ", "eng": "ㄥ", "er": "ㄦ"}
FINALS |= {"i": "ㄧ", "ia": "ㄧㄚ", "ie": "ㄧㄝ", "iao": "ㄧㄠ", "iu": "ㄧㄡ"}
FINALS |= {"ian": "ㄧㄢ", "in": "ㄧㄣ", "iang": "ㄧㄤ", "ing": "ㄧㄥ", "iong": "ㄩㄥ"}
FINALS |= {"u": "ㄨ", "ua": "ㄨㄚ", "uo": "ㄨㄛ", "uai": "ㄨㄞ", "ui": "ㄨㄟ"}
FINALS |= {"uan": "ㄨㄢ", "un": "ㄨㄣ", "uang": "ㄨㄤ", "ong": "ㄨㄥ"}
FINALS |= {"v": "ㄩ", "ve": "ㄩㄝ", "van": "ㄩㄢ", "vn": "ㄩㄣ"}
ALONE = {"yi": "i", "wu": "u", "yu": "v", "yue": "ve", "yuan": "van", "yun": "vn"}
ALONE |= {"ye": "ie", "ya": "ia", "yao": "iao", "you": "iu", "yan": "ian", "yin": "in"}
ALONE |= {"yang": "iang", "ying": "ing", "yong": "iong", "wa": "ua", "wo": "uo"}
ALONE |= {"wai": "uai", "wei": "ui", "wan": "uan", "wen": "un", "wang": "uang"}
ALONE |= {"weng": "ueng", "r": "er"}


# eighteen syllables were not recorded; the nearest that was says them
NEAREST = {"xing": "xin", "yun": "yin", "lv": "li", "nv": "ni", "lve": "lie"}
NEAREST |= {"qun": "quan", "nong": "long", "ze": "zhe", "lia": "liang"}


def bopomofo(syllable: str) -> str:  # 'lao' -> 'ㄌㄠ'
    "The signs of a syllable, without its tone."
    if syllable in ALONE:
        return FINALS[ALONE[syllable]]
    start = re.match(r"zh|ch|sh|[bpmfdtnlgkhjqxrzcs]?", syllable)[0]
    rest = syllable[len(start) :]
    if start in ("zh", "ch", "sh", "r", "z", "c", "s") and rest == "i":
        return INITIALS[start]
    if start in ("j", "q", "x") and rest[0] == "u":
        rest = "v" + rest[1:]
    return INITIALS.get(start, "") + FINALS[rest]


def recording(syllable: str, voice: Path) -> Path:  # 'lao3'
    "The file of a syllable and tone, or of the nearest tone that was recorded."
    base, tone = syllable[:-1], syllable[-1]
    signs = bopomofo(NEAREST.get(base, base))
    marks = {"1": "", "2": "2", "3": "3", "4": "4", "5": "1"}
    for t in (tone, "1", "4", "2", "3", "5"):
        if (path := voice / f"{signs}{marks[t]}" / "5.ogg").exists():
            return path
    raise FileNotFoundError(f"no recording of {syllable} ({signs})")


def clip(path: Path) -> np.ndarray:
    "A syllable at 8 kHz, without the silence around it."
    wave, sr = sf.read(path)
    wave = resample(wave.astype(np.float32), sr, SR)
    wave = np.asarray(wave, np.float32)
    loud = np.flatnonzero(np.abs(wave) > 0.03 * np.abs(wave).max())
    return wave[max(loud[0] - 80, 0) : loud[-1] + 160]


def spoken(ids, clips, rng) -> tuple[np.ndarray, np.ndarray]:
    "Glued syllables, and for every 40 ms which syllable is in its middle half."
    parts, marks, n, speed = [], [], 800, rng.uniform(0.85, 1.2)
    for i in ids:
        wave = clips[i]
        size = int(len(wave) / speed / rng.uniform(0.92, 1.08))
        wave = np.interp(
            np.linspace(0, len(wave) - 1, size), np.arange(len(wave)), wave
        )
        wave = level(wave.astype(np.float32), 0.1 * 10 ** rng.uniform(-0.15, 0.15))
        parts.append((n, wave))
        marks.append((n, n + size))
        n += int(size * rng.uniform(0.9, 1.0))  # the next begins a little before
    out = np.zeros(n + 1600 + -(n + 1600) % 320, np.float32)
    for start, wave in parts:
        out[start : start + len(wave)] += wave[: len(out) - start]
    steps = np.zeros(len(out) // 320, np.int64)
    centres = 320 * np.arange(len(steps)) + 160
    for i, (a, b) in zip(ids, marks):
        middle = (a + (b - a) * 0.3 <= centres) & (centres < a + (b - a) * 0.7)
        steps[middle] = 1 + i
    return out, steps


def learn(sentences, clips, epochs, seed=0):
    "A recogniser of syllables."
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = DigitListener(len(clips), d=160)
    steps_n = epochs * -(-len(sentences) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(warmup_cosine, steps=steps_n)
    )
    lengths = np.array([len(s) for s in sentences])
    for epoch in range(epochs):
        model.train()
        total, began = [], time.process_time()
        for rows in similar_length(lengths, 32, rng):
            made = [spoken(sentences[i], clips, rng) for i in rows]
            waves = [in_noise(w, rng.uniform(-8, 25), rng) for w, _ in made]
            x, n = together(hear(waves))
            logits = model(x, n)
            y = torch.full(logits.shape[:2], -100)
            for k, (_, s) in enumerate(made):
                y[k, : len(s)] = torch.as_tensor(s)
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-100)
            total.append(downhill(model, loss, optimizer, schedule))
        took = time.process_time() - began
        print(epoch, round(float(np.mean(total)), 3), round(took, 1), "s", flush=True)
    return model.eval()


@torch.no_grad()
def heard_units(model, waves) -> list[list[int]]:
    "What the recogniser hears: numbers of syllables, from 0."
    found = []
    for start in range(0, len(waves), 50):
        x, n = together(hear(waves[start : start + 50]))
        for scores, size in zip(model(x, n), n // 2):
            found.append([k - 1 for k in best_path(scores[:size])])
    return found


def flat(rows) -> dict[str, np.ndarray]:
    return {
        "units": np.array([u for r in rows for u in r], np.int16),
        "sizes": np.array([len(r) for r in rows], np.uint8),
    }


def cleaned(source: Path) -> list[dict]:
    "Sentences with a translation, each Chinese and each English one once, shuffled."
    rows = json.loads(source.read_text("utf-8"))
    seen, kept = set(), []
    for row in rows:
        en = row["translation"]["en"]
        if en == "placeholder" or row["chinese"] in seen or en in seen:
            continue
        seen |= {row["chinese"], en}
        kept.append(row)
    order = np.random.default_rng(0).permutation(len(kept))
    return [kept[i] for i in order]


def short(gloss: str) -> str:
    "At most three senses of a gloss, without brackets and notes on usage."
    bare = re.sub(r"\([^)]*\)|\[[^]]*\]", "", gloss).replace("|", "")
    senses = []
    for sense in (bare if bare.strip() else gloss).split(";"):
        sense = re.sub(r"\s+", " ", sense).strip()
        if sense and sense not in senses:
            senses.append(sense)
    clean = [s for s in senses if not re.search("used in|variant|[\u4e00-\u9fff]", s)]
    return "; ".join((clean or senses)[:3])


def ship_pairs(rows: list[dict]):
    "The pairs, a line each, then an empty line, then the dictionary."
    lines, glosses = [], {}
    for row in rows:
        sizes = "".join(str(len(t["word"])) for t in row["tokens"])
        text = row["translation"]["en"].replace("\t", " ")
        lines.append(f"{row['hsk_level']}\t{sizes}\t{row['chinese']}\t{text}")
        for t in row["tokens"]:
            glosses.setdefault(t["word"], short(t["gloss_en"]))
    words = [f"{w}\t{g}" for w, g in glosses.items()]
    text = "\n".join([*lines, "", *words])
    how = {"preset": 9 | lzma.PRESET_EXTREME}
    (HERE / "translation_pairs.xz").write_bytes(lzma.compress(text.encode(), **how))


def parts(kept: dict, name: str) -> list[list[int]]:
    ends = np.cumsum(kept[f"{name}_sizes"].astype(int))[:-1]
    return [p.tolist() for p in np.split(kept[f"{name}_units"], ends)]


def ship_speech(kept: dict, clean: list[np.ndarray]):
    "The first three short test sentences, and what was heard of them."
    truth = parts(kept, "truth")[TRAIN + VALID :]
    places = [i for i, t in enumerate(truth) if 5 <= len(t) <= 7][:3]
    names = kept["names"]

    def say(rows):
        return [" ".join(names[u] for u in rows[i]) for i in places]

    heard = {"said": np.array(say(truth))}
    rates = []
    for snr in LEVELS:
        rows = parts(kept, f"test{snr}")
        heard[f"{snr} dB"] = np.array(say(rows))
        rates.append(error_rate(truth, rows))
    codes = [mu_law_codes(clean[i]) for i in places]
    np.savez_compressed(
        HERE / "translation_speech.npz",
        places=np.array(places),
        codes=np.concatenate(codes),
        sizes=np.array([len(c) for c in codes]),
        levels=np.array(LEVELS),
        rates=np.array(rates).round(4),
        **heard,
    )


def main(source: Path, voice: Path, out: Path, epochs: int = 24):
    torch.set_num_threads(1)
    rows = cleaned(source)
    ship_pairs(rows)
    said = [row["pinyin_numbered"].split() for row in rows]
    names = sorted({s for row in said for s in row})
    paths = {s: recording(s, voice) for s in names}
    files = sorted(set(paths.values()))  # what sounds the same is one symbol
    number = {s: files.index(paths[s]) for s in names}
    print(len(rows), "pairs", len(names), "syllables", len(files), "recordings")
    clips = [clip(p) for p in files]
    ids = [[number[s] for s in row] for row in said]
    model = learn(ids[:TRAIN], clips, epochs)
    rng = np.random.default_rng(1)
    names_of = [next(s for s in names if number[s] == k) for k in range(len(files))]
    kept = {"names": np.array(names_of)}
    kept |= {f"truth_{k}": v for k, v in flat(ids).items()}
    for version in range(4):
        waves = [
            in_noise(spoken(r, clips, rng)[0], rng.uniform(-12, 20), rng)
            for r in ids[: TRAIN + VALID]
        ]
        got = heard_units(model, waves)
        kept |= {f"train{version}_{k}": v for k, v in flat(got).items()}
    test = ids[TRAIN + VALID :]
    clean = [spoken(r, clips, rng)[0] for r in test]
    for snr in LEVELS:
        got = heard_units(model, [in_noise(w, snr, rng) for w in clean])
        print(f"{snr} dB: error rate {error_rate(test, got):.3f}", flush=True)
        kept |= {f"test{snr}_{k}": v for k, v in flat(got).items()}
    np.savez_compressed(out, **kept)
    ship_speech(kept, clean)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:]))
