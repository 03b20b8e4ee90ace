"""Train the image and audio classifiers of chapter 12, three seeds each, and write their weights.

    python data/make_classifiers.py                   # writes data/classifiers.safetensors; some twenty minutes on one core; networks that are finished are kept
    python data/make_classifiers.py --network audio-1 # trains one network and keeps it for the next run, so that two cores can share the work
    python data/make_classifiers.py --test            # what the shipped weights say of the test data

Everything was chosen on validation data (data/classifiers.md). The notebook evaluates the file and trains a shorter run itself.
"""

import argparse
import platform
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.audio import augment_audio
from mmcourse.checkpoint import read_tensors, write_tensors
from mmcourse.classifiers import (
    Classifier,
    WideVoiceNet,
    calibrate,
    clean_features,
    read_classifiers,
    train_audio_classifier,
    train_image_classifier,
)
from mmcourse.image import augment_image
from mmcourse.training import warmup_cosine

FILE, SEEDS = Path(__file__).with_name("classifiers.safetensors"), 3
EPOCHS = {"image": 16, "audio": 70}
WARM, LEVEL, LOW = (
    0.1,
    0.6,
    0.25,
)  # of the run: where warm-up ends, where the learning rate becomes level; and its factor there


def levelling(step: int, steps: int) -> float:  # factor of the learning rate
    "Warm-up, cosine down to `LOW`, then level: an average needs steps that still move."
    n = round(LEVEL * steps)
    return warmup_cosine(min(step, n), n, warmup=WARM / LEVEL, floor=LOW)


def train_image(x, y, seed, on_epoch) -> Classifier:
    return train_image_classifier(
        x,
        y,
        seed=seed,
        epochs=EPOCHS["image"],
        augment=augment_image,
        on_epoch=on_epoch,
    )


def train_audio(x, y, seed, on_epoch) -> Classifier:
    "The mean of the weights after each of the last epochs [Izmailov et al. 2018]."
    nets, average = [], []

    def net():
        nets.append(WideVoiceNet())
        return nets[-1]

    def keep(history):
        on_epoch(history)
        if len(history) <= LEVEL * EPOCHS["audio"]:
            return
        if not average:
            average.append(AveragedModel(nets[0], use_buffers=True))
        average[0].update_parameters(nets[0])

    model = train_audio_classifier(
        x,
        y,
        net=net,
        seed=seed,
        epochs=EPOCHS["audio"],
        augment=augment_audio,
        loss=partial(F.cross_entropy, label_smoothing=0.1),
        schedule=levelling,
        on_epoch=keep,
    )
    model.net.load_state_dict(average[0].module.state_dict())
    return model


def right(model, data):
    return float((model.predict(data[0]) == data[1]).mean())


def one(modality: str, seed: int, folder: Path) -> Path:
    "Train one network, unless that is done, and keep it in `folder`."
    path = folder / f"{modality}-{seed}.safetensors"
    if path.exists():
        return path
    data, start = clean_features(modality), time.process_time()
    say = lambda h: print(
        f"{modality} {seed}: epoch {len(h)}, loss {h.train_loss[-1]:.3f}, {time.process_time() - start:.0f} s",
        flush=True,
    )
    model = {"image": train_image, "audio": train_audio}[modality](
        *data["train"], seed, say
    )
    calibrate(model, *data["valid"])
    about = {
        "valid": right(model, data["valid"]),
        "temperature": float(model.temperature),
        "seconds": round(time.process_time() - start),
    }
    print(f"{modality} {seed}: {about}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(
        path,
        {
            k: v.half() if v.is_floating_point() and v.ndim else v
            for k, v in model.state_dict().items()
        },
        about,
    )  # half the bytes; the accuracies stay
    return path


def train(folder: Path):
    "Train `SEEDS` networks a modality, say how each does on validation data, write all of them."
    tensors, about = {}, {"seeds": SEEDS, "epochs": EPOCHS, "valid": {}, "seconds": {}}
    for m in EPOCHS:
        found = [read_tensors(one(m, seed, folder)) for seed in range(SEEDS)]
        tensors |= {
            f"{m}.{seed}.{k}": v
            for seed, (weights, _) in enumerate(found)
            for k, v in weights.items()
        }
        about["valid"][m], about["seconds"][m] = (
            [a["valid"] for _, a in found],
            sum(a["seconds"] for _, a in found),
        )
    about |= {
        "command": "python data/make_classifiers.py",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    write_tensors(FILE, tensors, about)
    print(about)


def test():
    "Accuracy of the shipped weights on validation and test data."
    for m in EPOCHS:
        models, data = read_classifiers(FILE, m), clean_features(m)
        for split in ("valid", "test"):
            scores = [right(model, data[split]) for model in models]
            print(m, split, np.round(scores, 4), f"mean {np.mean(scores):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="evaluate the shipped weights instead of training",
    )
    parser.add_argument("--network", help="train this one alone, such as audio-1")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "mmcourse-make-classifiers",
        help="where finished networks are kept",
    )
    torch.set_num_threads(1)
    args = parser.parse_args()
    if args.test:
        test()
    elif args.network:
        one(args.network.split("-")[0], int(args.network.split("-")[1]), args.folder)
    else:
        train(args.folder)
