"""Train the reader and the generator that chapter 13 ships, and three short runs for its table.

    python data/make_gan.py        # writes data/gan.safetensors; some ten minutes of one core, more on a busy one
    python data/make_gan.py --test # measures the shipped file again

Trained on mnist's training pictures alone. The steps and epochs were fixed before the run.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.checkpoint import write_tensors
from mmcourse.datasets import mnist
from mmcourse.gan import (
    Generator,
    fidelity,
    load_gan,
    load_reader,
    sample_digits,
    train_gan,
    train_reader,
)
from mmcourse.image import augment_image

FILE, SEED, WIDTH, STEPS, EMA, LIVE, LIVE_SEEDS = (
    Path(__file__).with_name("gan.safetensors"),
    0,
    32,
    4000,
    0.998,
    {"steps": 700, "batch_size": 32, "lr": 3e-3},
    3,
)
ASKED = torch.arange(2000) % 10


def load(split: str) -> tuple:  # (images, labels)
    d = mnist(split)
    return torch.tensor(d["image"]), torch.tensor(d["label"])


def vary(x, generator):
    return augment_image(x[:, None], generator)[:, 0]


def train():
    "Train all, print how each does, write both networks and the figures."
    real, valid, start = load("train"), load("valid"), time.process_time()
    lap = lambda: round(time.process_time() - start)
    reader = train_reader(*real, seed=SEED, augment=vary)
    print(
        f"reader: {fidelity(*valid, reader):.3f} of validation digits, {lap()} s",
        flush=True,
    )

    def report(step, g):
        if step % 500 == 0:
            print(
                f"step {step}: fidelity {fidelity(sample_digits(g, ASKED, seed=1), ASKED, reader):.4f}, {lap()} s",
                flush=True,
            )

    seconds = lap()
    g = train_gan(
        *real, steps=STEPS, seed=SEED, generator=fresh(), ema=EMA, on_step=report
    ).generator.half()  # half the bytes; the fidelity stays
    seconds = lap() - seconds
    about = {
        "generator": {"width": WIDTH},
        "seed": SEED,
        "steps": STEPS,
        "ema": EMA,
        "seconds": seconds,
        "valid_of_reader": fidelity(*valid, reader),
        "live": dict(**LIVE, fidelity=[], seconds=[]),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    tensors = {f"generator.{k}": v for k, v in g.state_dict().items()} | {
        f"reader.{k}": v for k, v in reader.half().state_dict().items()
    }
    write_tensors(FILE, tensors, about)
    reader = load_reader(FILE)  # as it will be used
    for seed in range(LIVE_SEEDS):
        t = time.process_time()
        short = train_gan(*real, **LIVE, seed=seed).generator
        about["live"]["seconds"].append(round(time.process_time() - t, 1))
        about["live"]["fidelity"].append(
            fidelity(sample_digits(short, ASKED, seed=1), ASKED, reader)
        )
        print(about["live"], flush=True)
    about["fidelity"] = fidelity(
        sample_digits(load_gan(FILE), ASKED, seed=1), ASKED, reader
    )
    write_tensors(FILE, tensors, about)
    print(about)


def fresh() -> Generator:
    "An untrained generator."
    from mmcourse.measure import seeded

    with seeded(SEED):
        return Generator(width=WIDTH)


def test():
    "Accuracy of the reader and fidelity of the generator in the file."
    reader = load_reader(FILE)
    print(
        f"reader: {fidelity(*load('test'), reader):.3f} of test digits; fidelity",
        [
            round(
                fidelity(sample_digits(load_gan(FILE), ASKED, seed=s), ASKED, reader), 4
            )
            for s in range(1, 4)
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--test", action="store_true", help="measure the file instead of training"
    )
    torch.set_num_threads(1)
    (test if parser.parse_args().test else train)()
