"""Train what the recogniser ships: a network for hints, and three for people's voices.

    python data/make_recogniser.py --words FOLDER  # of make_more_voices.py: trains all
    python data/make_recogniser.py --test          # evaluates the shipped ones
    python data/make_recogniser.py --real FOLDER   # ... on files named 7_jackson_32.wav

The networks for sounds begin with the weights of data/classifiers.safetensors. The file
that is written, data/recogniser.safetensors, also holds the words that the network for
hints knows, and the scale of pictures and sounds. --real writes
data/results/recogniser.json.
"""

import argparse
import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_more_voices import HELD_OUT, is_woman
from make_spoken_digits import (
    background,
    crop,
    picked_up,
    resample,
    reshape_voice,
)
from scipy.signal import resample_poly
from torch.optim.swa_utils import AveragedModel

from mmcourse.audio import augment_audio
from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.classifiers import calibrate, train_text_classifier
from mmcourse.datasets import SR, hints, mnist, spoken_digits
from mmcourse.pipeline import extract_modality, load_features, preprocess_data
from mmcourse.recogniser import (
    Ensemble,
    Recogniser,
    load_recogniser,
    read_text_classifier,
)
from mmcourse.shipped import read_classifiers
from mmcourse.training import fit, warmup_cosine

FILE = Path(__file__).with_name("recogniser.safetensors")
RESULTS = Path(__file__).with_name("results") / "recogniser.json"
SEEDS, VERSIONS, EPOCHS, KEPT = 3, 4, 6, 2  # networks; of a word; epochs, averaged ones


# ---------------------------------------------------------------------------- hints
def many_hints(split: str) -> dict:
    "10,000 hints to learn from."
    return hints(split, 10_000 if split == "train" else None)


def train_text() -> tuple:  # the network and the statistics of all modalities
    views = load_features(many_hints)
    features = {s: v["features"]["text"] for s, v in views.items()}
    x, y = features["train"], views["train"]["label"]
    model = train_text_classifier(x, y, seed=0, epochs=10)
    calibrate(model, features["valid"], views["valid"]["label"])
    stats = {"grams": views["train"]["stats"]["grams"]}
    for m, load in (("image", mnist), ("audio", spoken_digits)):
        stats[m] = load_features(load)["train"]["stats"][m]
    return model, stats


# --------------------------------------------------------------------------- voices
def recorded(word: np.ndarray, rng, others: list) -> np.ndarray:  # at 8 kHz
    """As a person's recording might be: cut, mostly tighter than in the shipped clips,
    by some microphone, in a room, in noise, now and then too loud."""
    x = resample_poly(word, 1, 2)
    x /= np.abs(x).max()
    tight = rng.random() < 0.85
    silence = rng.uniform(-40, -14) if tight else -45
    x = crop(x, SR, silence, rng.uniform(0, 0.03) if tight else 0)
    if not tight:
        x = np.pad(x, [int(rng.uniform(0.02, 0.2) * SR) for _ in "ab"])
    x = picked_up(x, rng)
    if rng.random() < 0.6:
        noise = background(len(x), rng, others)
        x = x + noise * np.square(x).mean() ** 0.5 * 10 ** (-rng.uniform(10, 40) / 20)
    x = x[: 3 * SR // 2] / np.abs(x).max()
    if rng.random() < 0.08:
        x = np.clip(x * rng.uniform(1.2, 2.5), -1, 1)
    return np.pad(x, 240 if len(x) < 480 else 0).astype(np.float32)


def versions(path: Path, n: int) -> tuple[list, np.ndarray]:
    "`n` recordings of each word of a voice, each from another mouth; their digits."
    voice, found, clips = path.stem.split("-", 1)[1], np.load(path), []
    cuts = found["ends"][1:-1]
    words = [w / 32767 for w in np.split(found["samples"].astype(float), cuts)]
    rng = np.random.default_rng(zlib.crc32(voice.encode()))
    others = [resample_poly(w, 1, 2) for w in words[::7]]
    for _ in range(n):
        for word in words:
            longer = 0.08 if is_woman(voice) and rng.random() < 0.6 else 0.0
            size = np.clip(np.exp(rng.normal(longer, 0.085)), 0.8, 1.28)
            spoken = reshape_voice(resample(word, size), rng)
            clips.append(recorded(spoken, rng, others))
    return clips, np.tile(found["digits"], n)


def heard(clips: list, stats: dict) -> torch.Tensor:
    return extract_modality("audio", preprocess_data({"audio": clips}, stats))


def more_voices(folder: Path, stats: dict) -> tuple[dict, dict]:
    "Features and digits of the voices to learn from, and of those held out."
    learnt, held = {"x": [], "y": []}, {"x": [], "y": []}
    for path in sorted(folder.glob("*.npz")):
        out = path.stem.split("-", 1)[1] in HELD_OUT
        clips, digits = versions(path, 1 if out else VERSIONS)
        (held if out else learnt)["x"].append(heard(clips, stats))
        (held if out else learnt)["y"].append(torch.from_numpy(digits))
        print(path.stem, len(digits), flush=True)
    return tuple({k: torch.cat(v) for k, v in part.items()} for part in (learnt, held))


def levelling(step: int, steps: int) -> float:  # factor of the learning rate
    "Warm-up, cosine down to a fifth, then level: an average needs steps that move."
    n = round(0.6 * steps)
    return warmup_cosine(min(step, n), n, warmup=0.1, floor=0.2)


def go_on(model, x, y, seed: int):
    "Train a network of chapter 12 further; its last epochs' weights are averaged."
    averages = []

    def keep(history):
        if len(history) > EPOCHS - KEPT:
            if not averages:
                averages.append(AveragedModel(model.net, use_buffers=True))
            averages[0].update_parameters(model.net)

    model.temperature.fill_(1.0)
    options = {"augment": augment_audio, "schedule": levelling, "on_epoch": keep}
    options |= {"loss": partial(F.cross_entropy, label_smoothing=0.1)}
    options |= {"lr": 1.5e-3, "weight_decay": 0.05, "epochs": EPOCHS}
    fit(model, (x, y), seed=seed, **options)
    model.net.load_state_dict(averages[0].module.state_dict())


def train_audio(folder: Path, stats: dict) -> list:
    learnt, held = more_voices(folder, stats)
    views = load_features(spoken_digits)
    old = {s: (v["features"]["audio"], v["label"]) for s, v in views.items()}
    x, y = torch.cat([old["train"][0], learnt["x"]]), [old["train"][1], learnt["y"]]
    valid = torch.cat([old["valid"][0], held["x"]]), [old["valid"][1], held["y"]]
    models = read_classifiers(FILE.with_name("classifiers.safetensors"), "audio")
    for seed, model in enumerate(models):
        go_on(model, x, torch.cat(y), seed)
        calibrate(model, valid[0], torch.cat(valid[1]))
        print(f"network {seed}: temperature {float(model.temperature):.2f}", flush=True)
    return models


def write(text, audio: list, stats: dict):
    named = {"text.": text} | {f"audio.{i}.": m for i, m in enumerate(audio)}
    tensors = {}
    for start, model in named.items():
        small = shrink(model.state_dict(), 8)
        tensors |= {start + k: v for k, v in small.items()}
    write_tensors(FILE, tensors, stats | {"seeds": len(audio)})


# --------------------------------------------------------------- what it is worth
def test():
    model, stats = read_text_classifier(FILE)
    for split in ("valid", "test"):
        raw = hints(split)
        x = extract_modality("text", preprocess_data(raw, stats))
        right = (model.predict(x) == raw["label"]).mean()
        print(f"{split}: {right:.1%} of {len(x)} hints")
        raw = spoken_digits(split)
        clips = [x[:n] for x, n in zip(raw["audio"], raw["length"])]
        print(f"{split} voices: {judged(load_recogniser(), clips, raw['label'])}")
    print(f"{FILE.stat().st_size / 1e3:.0f} kB")


def judged(recogniser: Recogniser, clips: list, digits) -> dict:
    "Share that is right, mean confidence, and the share of each digit."
    x = heard(clips, recogniser.stats)
    p, digits = recogniser.models["audio"].predict_proba(x), np.asarray(digits)
    right = p.argmax(1) == digits
    each = {str(d): round(float(right[digits == d].mean()), 3) for d in range(10)}
    sure = round(float(p.max(1).mean()), 4)
    return {"right": round(float(right.mean()), 4), "sure": sure, "digits": each}


def used_to(recogniser: Recogniser, clips: list, digits, draws: int = 5) -> dict:
    "The same after 20 clips without labels, judged on the others; means of some draws."
    right, sure = [], []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(clips))
        new = recogniser.adapt([clips[i] for i in order[:20]])
        rest = [clips[i] for i in order[20:]]
        said = judged(new, rest, np.asarray(digits)[order[20:]])
        right.append(said["right"])
        sure.append(said["sure"])
    return {"right": round(np.mean(right), 4), "sure": round(np.mean(sure), 4)}


def real(folder: Path):
    "Recordings of people, named digit_speaker_number.wav: figures for each speaker."
    shipped = FILE.with_name("classifiers.safetensors")
    new = load_recogniser()
    before = Recogniser(
        {"audio": Ensemble(read_classifiers(shipped, "audio"))}, new.stats
    )
    found = {}
    for path in sorted(folder.glob("*_*_*.wav")):
        digit, speaker, _ = path.stem.split("_")
        clips, digits = found.setdefault(speaker, ([], []))
        clips.append(str(path))
        digits.append(int(digit))
    results = {}
    for speaker, data in found.items():
        results[speaker] = {
            "clips": len(data[0]),
            "chapter 12": judged(before, *data),
            "shipped": judged(new, *data),
            "shipped, used to the voice": used_to(new, *data),
        }
    about = {"made by": "python data/make_recogniser.py --real FOLDER"}
    text = json.dumps({"about": about, "speakers": results}, indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--test", action="store_true")
    torch.set_num_threads(1)
    args = parser.parse_args()
    if args.words:
        text, stats = train_text()
        write(text, train_audio(args.words, stats), stats)
    if args.real:
        real(args.real)
    if args.test or args.words:
        test()
    if not (args.words or args.real or args.test):
        parser.error("expected --words, --real or --test")
