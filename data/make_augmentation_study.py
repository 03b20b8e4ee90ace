"""Does augmentation help? The full table of chapter 14, written to data/results/augmentation_study.json.

    python data/make_augmentation_study.py                       # everything; the file says how long
    python data/make_augmentation_study.py image rare --seeds 12 # some studies; runs that are in the file already are kept

Five studies: `image` (10 to 100 digits a class; nothing, classical, GAN, both, and variants at 10 and 20), `hands` (the same digits, but the generator learns from
augmented copies of them), `rare` (five classes rare, five common; the generator learns from all of both), `sound` (20 a class) and `text` (20 and 100). One seed is one choice of examples, the same for all arms of a study.
What was chosen (shares, strengths, steps) was chosen on validation data; both accuracies are in the file. Runs are written as they finish.
"""

import argparse
import json
import os
import platform
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.augmentation import (
    Bag,
    Ear,
    Words,
    as_mel,
    compare,
    confident,
    few,
    fit_pairs,
    gan_pool,
    hand,
    image_arms,
    on_inputs,
    rare_classes,
    sound_arms,
    text_arms,
)
from mmcourse.convolution import DigitCNN
from mmcourse.datasets import hints, mnist, spoken_digits
from mmcourse.measure import seeded
from mmcourse.training import warmup_cosine

FILE = Path(__file__).with_name("results") / "augmentation_study.json"
SIZES = {
    "image": (10, 20, 50, 100),
    "hands": (10,),
    "rare": (10, 20),
    "sound": (20,),
    "text": (20, 100),
}
SEEDS = {"image": 8, "hands": 8, "rare": 10, "sound": 6, "text": 6}


def load(study: str) -> dict:  # split -> (inputs, labels)
    if study in ("image", "hands", "rare"):
        return {
            s: (torch.tensor(d["image"]), torch.tensor(d["label"]))
            for s in ("train", "valid", "test")
            for d in [mnist(s)]
        }
    if study == "sound":  # the first second
        data = {
            s: (torch.tensor(d["audio"][:, :8000]), torch.tensor(d["label"]))
            for s in ("train", "valid", "test")
            for d in [spoken_digits(s)]
        }
        return {
            s: (
                x
                if s == "train"
                else torch.cat([as_mel(part) for part in x.split(100)]),
                y,
            )
            for s, (x, y) in data.items()
        }
    return {
        s: (d["text"], torch.tensor(d["label"]))
        for s in ("train", "valid", "test")
        for d in [hints(s)]
    }


def image(data, k: int, seed: int) -> dict:  # arm -> {'valid', 'test'}
    train = few(data["train"], k, seed)
    pool = gan_pool(train, seed=seed)
    arms = image_arms(pool)
    if (
        k <= 20
    ):  # the hunt: fewer generated pictures, only those that a network trained on the same few pictures believes
        with seeded(seed):
            judge = DigitCNN()
        fit_pairs(
            judge,
            train,
            augment=on_inputs(hand),
            epochs=round(400 / -(-len(train[1]) // 32)),
            batch_size=32,
            lr=3e-3,
            schedule=warmup_cosine,
            seed=seed,
        )
        believed = confident(judge, pool, least=0.9)
        arms |= {
            "GAN, a fifth": image_arms(pool, 0.2)["GAN"],
            "both, a fifth": image_arms(pool, 0.2)["both"],
            "GAN, believed": image_arms(believed)["GAN"],
            "both, believed, a fifth": image_arms(believed, 0.2)["both"],
        }
    return compare(train, {s: data[s] for s in ("valid", "test")}, arms, seed=seed)


def hands(data, k: int, seed: int) -> dict:
    "Beside the arms of `image`, of the same seed: a generator taught by twenty augmented copies of each digit."
    train = few(data["train"], k, seed)
    copies = (
        hand(train[0].repeat(20, 1, 1), torch.Generator().manual_seed(seed)),
        train[1].repeat(20),
    )
    arms = {
        f"{arm}, of other hands": augment
        for arm, augment in image_arms(gan_pool(copies, seed=seed)).items()
        if arm in ("GAN", "both")
    }
    return compare(train, {s: data[s] for s in ("valid", "test")}, arms, seed=seed)


def rare(data, k: int, seed: int) -> dict:
    "Accuracy on the five rare classes' digits, all ten classes being possible answers."
    train, tests, pool = rare_classes(data, k, seed)
    return compare(train, tests, image_arms(pool), seed=seed)


def sound(data, k: int, seed: int) -> dict:
    return compare(
        few(data["train"], k, seed),
        {s: data[s] for s in ("valid", "test")},
        sound_arms(),
        seed=seed,
        make=Ear,
    )


def text(data, k: int, seed: int) -> dict:
    words = Words(data["train"][0])  # what words there are, not what they mean
    train = few((torch.arange(len(data["train"][0])), data["train"][1]), k, seed)
    tests = {s: (words(data[s][0]), data[s][1]) for s in ("valid", "test")}
    return compare(
        train,
        tests,
        text_arms(data["train"][0], words),
        seed=seed,
        make=lambda: Bag(len(words.known)),
        lr=1e-2,
    )


def kept() -> list:
    return json.loads(FILE.read_text())["runs"] if FILE.exists() else []


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "studies",
        nargs="*",
        default=list(SIZES),
        metavar="study",
        help=", ".join(SIZES),
    )
    parser.add_argument("--seeds", type=int, help=f"by default {SEEDS}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = {
        "command": "python data/make_augmentation_study.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    for study in args.studies:
        data, run = load(study), globals()[study]
        for seed, k in product(range(args.seeds or SEEDS[study]), SIZES[study]):
            if any(
                (r["study"], r["per_class"], r["seed"]) == (study, k, seed)
                for r in kept()
            ):
                continue
            start = time.process_time()
            scores = run(data, k, seed)
            runs = kept() + [
                {
                    "study": study,
                    "per_class": k,
                    "seed": seed,
                    "seconds": round(time.process_time() - start, 1),
                    "scores": scores,
                }
            ]
            runs.sort(
                key=lambda r: (list(SIZES).index(r["study"]), r["per_class"], r["seed"])
            )
            part = FILE.with_name(f"{FILE.name}.{os.getpid()}.part")
            part.write_text(
                json.dumps(
                    about
                    | {"seconds": round(sum(r["seconds"] for r in runs)), "runs": runs},
                    indent=1,
                )
            )
            os.replace(part, FILE)
            print(
                study,
                k,
                seed,
                {a: round(v["valid"], 3) for a, v in scores.items()},
                flush=True,
            )


if __name__ == "__main__":
    main()
