"""Train the networks that chapter 12 ships: three seeds for pictures, three for sounds.

    python data/make_classifiers.py              # writes data/classifiers.safetensors
    python data/make_classifiers.py --network audio-1  # trains this one, keeps it
    python data/make_classifiers.py --test       # evaluates the shipped weights

Networks are kept in a folder as they finish (--folder), so that a stopped run goes on.
data/classifiers.md says how the recipe was chosen.
"""

import argparse
import platform
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

from mmcourse.audio import augment_audio
from mmcourse.checkpoint import grow, read_tensors, shrink, write_tensors
from mmcourse.classifiers import (
    Classifier,
    calibrate,
    train_audio_classifier,
    train_image_classifier,
)
from mmcourse.datasets import mnist, spoken_digits
from mmcourse.image import augment_image
from mmcourse.pipeline import load_features
from mmcourse.shipped import WideVoiceNet, read_classifiers
from mmcourse.training import warmup_cosine

FILE, SEEDS = Path(__file__).with_name("classifiers.safetensors"), 3
EPOCHS = {"image": 16, "audio": 70}
WARM, LEVEL, LOW = 0.1, 0.6, 0.25  # warm-up ends, the rate becomes level; its factor


def load(modality: str) -> dict:  # split -> (features, labels)
    data = load_features({"image": mnist, "audio": spoken_digits}[modality])
    return {s: (v["features"][modality], v["label"]) for s, v in data.items()}


def levelling(step: int, steps: int) -> float:  # factor of the learning rate
    "Warm-up, cosine down to `LOW`, then level: an average needs steps that move."
    n = round(LEVEL * steps)
    return warmup_cosine(min(step, n), n, warmup=WARM / LEVEL, floor=LOW)


def train_image(x, y, seed: int) -> Classifier:
    epochs = EPOCHS["image"]
    return train_image_classifier(x, y, seed=seed, epochs=epochs, augment=augment_image)


def train_audio(x, y, seed: int) -> Classifier:
    "The mean of the weights after each of the last epochs [Izmailov et al. 2018]."
    nets, average = [], []

    def net():
        nets.append(WideVoiceNet())
        return nets[-1]

    def keep(history):
        print(f"audio {seed}: epoch {len(history)}", flush=True)
        if len(history) <= LEVEL * EPOCHS["audio"]:
            return
        if not average:
            average.append(AveragedModel(nets[0], use_buffers=True))
        average[0].update_parameters(nets[0])

    loss = partial(F.cross_entropy, label_smoothing=0.1)
    options = {"augment": augment_audio, "loss": loss, "schedule": levelling}
    epochs = EPOCHS["audio"]
    model = train_audio_classifier(
        x, y, net=net, seed=seed, epochs=epochs, on_epoch=keep, **options
    )
    model.net.load_state_dict(average[0].module.state_dict())
    return model


def right(model, data) -> float:
    return float((model.predict(data[0]) == np.asarray(data[1])).mean())


def one(modality: str, seed: int, folder: Path) -> Path:
    "Train one network, unless that is done, and keep it in `folder`."
    path = folder / f"{modality}-{seed}.safetensors"
    if path.exists():
        return path
    data, start = load(modality), time.process_time()
    train = {"image": train_image, "audio": train_audio}[modality]
    model = train(*data["train"], seed)
    calibrate(model, *data["valid"])
    about = {
        "valid": right(model, data["valid"]),
        "temperature": float(model.temperature),
        "seconds": round(time.process_time() - start),
    }
    print(f"{modality} {seed}: {about}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(path, shrink(model.state_dict()), about)
    return path


def train_all(folder: Path):
    "Train `SEEDS` networks a modality and write all of them."
    tensors, about = {}, {"seeds": SEEDS, "epochs": EPOCHS, "valid": {}, "seconds": {}}
    for m in EPOCHS:
        found = [read_tensors(one(m, seed, folder)) for seed in range(SEEDS)]
        for seed, (weights, _) in enumerate(found):
            small = shrink(grow(weights), bits=8)
            tensors |= {f"{m}.{seed}.{k}": v for k, v in small.items()}
        about["valid"][m] = [a["valid"] for _, a in found]
        about["seconds"][m] = sum(a["seconds"] for _, a in found)
    about |= {"command": "python data/make_classifiers.py"}
    about |= {"python": platform.python_version(), "torch": torch.__version__}
    write_tensors(FILE, tensors, about)
    print(about)


def test():
    "Accuracy of the shipped weights on validation and test data."
    for m in EPOCHS:
        models, data = read_classifiers(FILE, m), load(m)
        for split in ("valid", "test"):
            scores = [right(model, data[split]) for model in models]
            print(m, split, np.round(scores, 4), f"mean {np.mean(scores):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--network", metavar="MODALITY-SEED")
    home = Path(tempfile.gettempdir()) / "mmcourse-make-classifiers"
    parser.add_argument("--folder", type=Path, default=home)
    torch.set_num_threads(1)
    args = parser.parse_args()
    if args.test:
        test()
    elif args.network:
        modality, seed = args.network.split("-")
        one(modality, int(seed), args.folder)
    else:
        train_all(args.folder)
