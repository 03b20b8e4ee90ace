"""What chapter 13 ships and repeats: a reader, a generator, and longer comparisons.

    python data/make_gan.py      # writes data/results/gan.json, some six minutes

Arms are named kind/…/seed. `shipped`: the generator in data/gan.safetensors and its
reader, trained (ten minutes) where the file is missing, measured where it is there.
`live`: the chapter's short run. `ring`: small GANs on eight heaps, as [heaps found,
share of points on a heap, earth mover's distance]. `reader`: what readers that know
the training digits, or 500 other digits, read right. Only `mnist`'s training pictures
were used for generators; steps and epochs were fixed before the runs.
"""

import time
from functools import partial
from pathlib import Path

import torch
from study import Study

from mmcourse.checkpoint import read_tensors, write_tensors
from mmcourse.datasets import mnist
from mmcourse.duel import earth_mover, ring, ring_report
from mmcourse.gan import (
    Generator,
    fidelity,
    frechet_distance,
    load_gan,
    play_ring,
    sample_digits,
    train_gan,
)
from mmcourse.judging import load_reader, reader_features, train_reader
from mmcourse.measure import seeded

FILE = Path(__file__).with_name("gan.safetensors")
LONG = {"steps": 4000, "ema": 0.998, "seed": 0}
LIVE = {"steps": 700, "batch_size": 32, "lr": 3e-3}
RING = {  # name in the chapter -> settings of `play_ring`
    "generator moves five times": {"moves": (1, 5)},
    "turn and turn about": {},
    "five times as long": {"rounds": 2000},
    "… and the generator moves five times": {"rounds": 2000, "moves": (1, 5)},
}
EYES = {"knows the training digits": ("train", 20), "knows 500 others": ("valid", 40)}
ASKED = torch.arange(1000) % 10


def load(split: str) -> tuple[torch.Tensor, torch.Tensor]:  # images, labels
    return tuple(map(torch.tensor, mnist(split).values()))


def measured(generator) -> dict:
    reader, images = load_reader(), sample_digits(generator, ASKED, seed=1)
    real, fake = [reader_features(reader, x) for x in (load("test")[0], images)]
    right = fidelity(images, ASKED, reader)
    return {"fidelity": right, "frechet": round(frechet_distance(real, fake), 3)}


def make_file():
    "Train the reader and the generator, and write both in half precision."
    reader = train_reader(*load("train"))
    with seeded(LONG["seed"]):
        start = Generator()
    began = time.process_time()
    g = train_gan(*load("train"), generator=start, **LONG).generator
    seconds = round(time.process_time() - began)
    nets = {"generator": g.half(), "reader": reader.half()}
    tensors = {}
    for name, net in nets.items():
        tensors |= {f"{name}.{k}": v for k, v in net.state_dict().items()}
    about = {"generator": {"width": g.width}, "seconds": seconds} | LONG
    write_tensors(FILE, tensors, about | {"torch": torch.__version__})


def shipped() -> dict:
    if not FILE.exists():
        make_file()
    about = read_tensors(FILE)[1]
    return measured(load_gan(FILE)) | {"seconds": about["seconds"]}


def short(seed: int) -> dict:
    began = time.process_time()
    g = train_gan(*load("train"), **LIVE, seed=seed).generator
    return measured(g) | {"seconds": round(time.process_time() - began, 1)}


def on_ring(seed: int, **how) -> list:
    points = play_ring(seed, **how)
    truth = ring(1000, torch.Generator().manual_seed(99))
    heaps, good = ring_report(points)
    return [heaps, round(good, 4), round(earth_mover(points, truth), 4)]


def read_by(eye: str, seed: int) -> dict:
    split, epochs = EYES[eye]
    reader = train_reader(*load(split), epochs=epochs, seed=seed)
    asked = torch.arange(2000) % 10
    forged = sample_digits(load_gan(FILE), asked, seed=1)
    return {
        "test digits": fidelity(*load("test"), reader),
        "training digits": fidelity(*load("train"), reader),
        "GAN as shipped": fidelity(forged, asked, reader),
    }


def main():
    study = Study("gan", __doc__, about="chapter 13", live=LIVE, long=LONG)
    study("shipped", shipped)
    for seed in study.seeds(5):
        for name, how in RING.items():
            study(f"ring/{name}/{seed}", partial(on_ring, seed, **how))
    for seed in study.seeds(3):
        for eye in EYES:
            study(f"reader/{eye}/{seed}", partial(read_by, eye, seed))
        study(f"live/{seed}", partial(short, seed))


if __name__ == "__main__":
    main()
