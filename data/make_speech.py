"""Chapter 23: what a CTC recogniser and a small Whisper make of connected digits.

    python data/make_speech.py --words FOLDER  # of make_more_voices.py
    python data/make_speech.py --real FOLDER   # of files named 7_jackson_32.wav

Writes data/results/speech.json and data/speech.safetensors. Arms are named what/seed.
`live`: the recogniser that the chapter trains itself. `shipped`: the same network,
longer, with the voices of make_more_voices.py, too. `live whisper`, `shipped whisper`:
the decoder on the shipped ears, as the chapter trains it and longer. Seed 0 is what
ships. `tiny.en`: the real Whisper, if it is installed, on the first 60 strings, once
as it likes and once with no other words than the ten. `wer` is edits over words,
`edits` has a digit (0 to 9, then a to z) for each string; `real` is measured on strings
of real digits, which nothing has learnt from.
"""

import argparse
import re
import string
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from make_recogniser import HELD_OUT, versions
from study import Study

from mmcourse.audio import load_audio, spec_augment
from mmcourse.checkpoint import grow, read_tensors, shrink, write_tensors
from mmcourse.datasets import spoken_digits
from mmcourse.speech import (
    ENGLISH,
    NO_TIMES,
    START,
    TOKENS,
    TRANSCRIBE,
    TRANSLATE,
    DigitListener,
    edit_distance,
    hear,
    small_whisper,
    task_tokens,
    transcribed,
    written,
)
from mmcourse.spoken import (
    connected_digits,
    ctc_loss,
    learn_by_length,
    real_text,
    real_whisper,
    real_words,
    task_loss,
    thirty_seconds,
    without_words,
)

DIGITS = string.digits + string.ascii_lowercase
FILE = Path(__file__).with_name("speech.safetensors")
LIVE = {"strings": 3000, "epochs": 4, "whisper epochs": 5}
SHIPPED = {"strings": 7000, "more": 4000, "epochs": 5, "whisper epochs": 8}


def strings(clips: dict, n: int, seed: int, waves: int = 0) -> dict:
    "Connected digits with their features, and the first of their waves."
    data = connected_digits(clips, n, seed)
    mel = hear(data["wave"])
    return data | {"wave": data["wave"][:waves], "mel": mel}


def both(a: dict, b: dict) -> dict:
    return {k: a[k] + b[k] for k in a}


def more_clips(folder: Path) -> dict:
    "The words of more voices, each by two other mouths, as `spoken_digits` gives them."
    audio, label, voice = [], [], []
    for path in sorted(folder.glob("*.npz")):
        name = path.stem.split("-", 1)[1]
        if name in HELD_OUT:
            continue
        clips, digits = versions(path, 2)
        audio += clips
        label.append(digits)
        voice += [name] * len(clips)
    length = np.array([len(a) for a in audio])
    label, voice = np.concatenate(label).astype(np.int64), np.array(voice)
    return {"audio": audio, "length": length, "label": label, "voice": voice}


def at_other_speeds(clips: dict) -> dict:
    "The clips, and each of them once more, faster or slower, higher or lower."
    rng, audio = np.random.default_rng(3), []
    for wave, n in zip(clips["audio"], clips["length"]):
        size = round(n * np.exp(np.clip(rng.normal(0, 0.1), -0.2, 0.2)))
        places = np.linspace(0, n - 1, size)
        audio.append(np.interp(places, np.arange(n), wave[:n]).astype(np.float32))
    first = [w[:n] for w, n in zip(clips["audio"], clips["length"])]
    twice = {k: np.concatenate([clips[k], clips[k]]) for k in ("label", "voice")}
    length = np.array([len(a) for a in (*first, *audio)])
    return twice | {"audio": first + audio, "length": length}


def real_clips(folder: Path) -> dict:
    "Recordings of people, named digit_speaker_number.wav."
    paths = sorted(folder.glob("*_*_*.wav"))
    names = [p.stem.split("_") for p in paths]
    audio = [load_audio(p) for p in paths]
    return {
        "audio": audio,
        "length": np.array([len(a) for a in audio]),
        "label": np.array([int(n[0]) for n in names]),
        "voice": np.array([n[1] for n in names]),
    }


def listener(
    data: dict, epochs: int, seed: int, augment: bool = False
) -> DigitListener:
    torch.manual_seed(seed)
    model = DigitListener()
    g = torch.Generator().manual_seed(seed)
    hide = partial(spec_augment, generator=g, bands=6, time=8)

    def loss(rows):
        mels = [data["mel"][i] for i in rows]
        if augment:
            mels = [hide(m[None])[0] for m in mels]
        return ctc_loss(model, mels, [data["words"][i] for i in rows])

    learn_by_length(model, loss, data["mel"], epochs, seed=seed)
    return model


def answers(data: dict, rng) -> list:
    "Half transcribed, half translated; a third of them with times."
    found = []
    for words, marks in zip(data["words"], data["marks"]):
        task = TRANSCRIBE if rng.random() < 0.5 else TRANSLATE
        found.append(task_tokens(words, task, marks if rng.random() < 1 / 3 else None))
    return found


def whisper(ears, data: dict, epochs: int, seed: int):
    torch.manual_seed(seed)
    model, rng = small_whisper(ears, dropout=0.1), np.random.default_rng(seed)

    def loss(rows):
        part = {k: [data[k][i] for i in rows] for k in ("words", "marks", "mel")}
        return task_loss(model, part["mel"], answers(part, rng))

    learn_by_length(model, loss, data["mel"], epochs, lr=2e-3, seed=seed)
    return model


def judged(found: list, data: dict) -> dict:
    "Errors over words, and what they are made of."
    edits = [edit_distance(a, b) for a, b in zip(data["words"], found)]
    words = sum(map(len, data["words"][: len(found)]))
    return {
        "wer": round(sum(edits) / words, 4),
        "edits": "".join(DIGITS[e] for e in edits),
    }


def digits(tokens: list, task: int) -> list:
    first = 5 if task == TRANSCRIBE else 15
    return [t - first for t in tokens]


def tasks(model, data: dict) -> dict:
    found = {}
    for name, task in (("transcribe", TRANSCRIBE), ("translate", TRANSLATE)):
        out = written(model, data["mel"], [START, task, NO_TIMES])
        found[name] = judged([digits(t, task) for t in out], data)
    return found | {"times": timed(model, data)}


def timed(model, data: dict) -> dict:
    "How far times are off where all words are right, in seconds."
    zero, off, right = len(TOKENS) - 151, [], 0
    out = written(model, data["mel"], [START, TRANSCRIBE])
    for tokens, words, marks in zip(out, data["words"], data["marks"]):
        times = [0.04 * (t - zero) for t in tokens if t >= zero]
        heard = [t - 5 for t in tokens if t < zero]
        if heard == words and len(times) == len(marks):
            right += 1
            off += np.abs(np.array(times) - marks).tolist()
    share = right / len(out)
    return {"share": round(share, 4), "median": round(float(np.median(off or [9])), 4)}


def spoken_words(text: str) -> list:
    "Numerals and number words as digits, any other word as it is."
    found = re.findall("[a-z]+|[0-9]", text.lower())
    names = {w: i for i, w in enumerate(ENGLISH)} | {str(i): i for i in range(10)}
    return [names.get(w, w) for w in found]


@torch.no_grad()
def only_the_ten(model, vocabulary, wave, start=(50_257, 50_362), end=50_256) -> str:
    "What the real Whisper writes if it may write nothing but the ten words."
    allowed = {*ENGLISH, *map(str, range(10)), ",", "."}
    good = [i for i, w in enumerate(vocabulary) if w.strip("Ġ").lower() in allowed]
    shut = torch.ones(len(model.embed.weight), dtype=torch.bool)
    shut[[*good, end]] = False
    sound, ids = model.encoder(thirty_seconds(wave)), [*start]
    while ids[-1] != end and len(ids) < 34:
        logits = model.decode(torch.tensor([ids]), sound)[0, -1]
        ids.append(logits.masked_fill(shut, -torch.inf).argmax().item())
    return real_text([i for i in ids[len(start) :] if i != end], vocabulary)


def tiny_en(real: tuple, ours, sets: dict) -> dict:
    "What it writes, freely or bound, and what our own makes of the same."
    found: dict = {}
    for name, data in sets.items():
        first = {k: data[k][:60] for k in data}
        free = [real_words(*real, w) for w in first["wave"]]
        bound = [only_the_ten(*real, w) for w in first["wave"]]
        found[name] = {
            "free": judged([spoken_words(t) for t in free], first),
            "only the ten": judged([spoken_words(t) for t in bound], first),
            "ours": tasks(ours, first)["transcribe"],
            "texts": free,
        }
    sounds = without_words(sets["test"]["wave"], 10)
    found["sounds"] = {
        name: [real_words(*real, w) for w in waves] for name, waves in sounds.items()
    }
    return found


def shipped() -> dict:
    return grow(read_tensors(FILE)[0])


def part(weights: dict, start: str) -> dict:
    return {k[len(start) :]: t for k, t in weights.items() if k.startswith(start)}


def keep(**models):
    "Write the weights of these models, and leave the others as they are."
    weights = read_tensors(FILE)[0] if FILE.exists() else {}
    for name, model in models.items():
        weights = {k: t for k, t in weights.items() if not k.startswith(name)}
        small = shrink(model.state_dict(), 8)
        small = {k: t for k, t in small.items() if "encoder.stem" not in k}
        small = {k: t for k, t in small.items() if "encoder.positions" not in k}
        weights |= {f"{name}.{k}": t for k, t in small.items()}
    write_tensors(FILE, weights, {"made by": "data/make_speech.py"})


def main():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--words", type=Path)
    parser.add_argument("--real", type=Path)
    args, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    study = Study("speech", __doc__, live=LIVE, shipped=SHIPPED)
    clips = {s: spoken_digits(s) for s in ("train", "valid", "test")}
    held = {s: strings(clips[s], 300, 99, 60) for s in ("valid", "test")}
    real = strings(real_clips(args.real), 300, 99, 60) if args.real else None

    def errors(ask) -> dict:
        found = {s: ask(d) for s, d in held.items()}
        return found | ({"real": ask(real)} if real else {})

    def by_ctc(model, data):
        return {"transcribe": judged(transcribed(model, data["mel"]), data)}

    def live(seed):
        data = strings(clips["train"], LIVE["strings"], seed)
        return errors(partial(by_ctc, listener(data, LIVE["epochs"], seed)))

    def much(seed) -> dict:  # for what ships
        own = at_other_speeds(clips["train"])
        more = at_other_speeds(more_clips(args.words))
        data = strings(own, SHIPPED["strings"], 1000 + seed)
        return both(data, strings(more, SHIPPED["more"], 2000 + seed))

    def ship(seed) -> dict:
        model = listener(much(seed), SHIPPED["epochs"], seed, augment=True)
        if seed == 0:
            keep(listener=model)
            model = ears()
        return errors(partial(by_ctc, model))

    def ears() -> DigitListener:
        model = DigitListener()
        model.load_state_dict(part(shipped(), "listener."))
        return model.eval()

    def write(data, epochs, seed, keeping=False) -> dict:
        model = whisper(ears().ears, data(), epochs, seed)
        if keeping:
            keep(whisper=model)
        return errors(partial(tasks, model))

    tested = {"test": held["test"]} | ({"real": real} if real else {})
    for seed in study.seeds(3) if args.words else ():
        study(f"shipped/{seed}", partial(ship, seed), seed)
        data, epochs = partial(much, 1 + seed), SHIPPED["whisper epochs"]
        run = partial(write, data, epochs, seed, keeping=seed == 0)
        study(f"shipped whisper/{seed}", run, seed)
    if tiny := real_whisper():
        ours = small_whisper(ears().ears).eval()
        ours.load_state_dict(ours.state_dict() | part(shipped(), "whisper."))
        study("tiny.en/0", partial(tiny_en, tiny, ours, tested))
    for seed in study.seeds(3):
        study(f"live/{seed}", partial(live, seed), seed)
        data = partial(strings, clips["train"], LIVE["strings"], 3000 + seed)
        run = partial(write, data, LIVE["whisper epochs"], seed)
        study(f"live whisper/{seed}", run, seed)


if __name__ == "__main__":
    main()
