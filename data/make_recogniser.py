"""Train the network for hints that the recogniser ships.

    python data/make_recogniser.py         # writes data/recogniser.safetensors
    python data/make_recogniser.py --test  # evaluates the shipped one

The file also holds the words that the network knows, and the scale of pictures and
sounds that the networks of data/classifiers.safetensors were trained on.
"""

import argparse
from pathlib import Path

from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.classifiers import calibrate, train_text_classifier
from mmcourse.datasets import hints, mnist, spoken_digits
from mmcourse.pipeline import extract_modality, load_features, preprocess_data
from mmcourse.recogniser import read_text_classifier

FILE = Path(__file__).with_name("recogniser.safetensors")


def many_hints(split: str) -> dict:
    "10,000 hints to learn from."
    return hints(split, 10_000 if split == "train" else None)


def train():
    views = load_features(many_hints)
    features = {s: v["features"]["text"] for s, v in views.items()}
    x, y = features["train"], views["train"]["label"]
    model = train_text_classifier(x, y, seed=0, epochs=10)
    calibrate(model, features["valid"], views["valid"]["label"])
    stats = {"grams": views["train"]["stats"]["grams"]}
    for m, load in (("image", mnist), ("audio", spoken_digits)):
        stats[m] = load_features(load)["train"]["stats"][m]
    write_tensors(FILE, shrink(model.state_dict(), 8), stats)


def test():
    model, stats = read_text_classifier(FILE)
    for split in ("valid", "test"):
        raw = hints(split)
        x = extract_modality("text", preprocess_data(raw, stats))
        right = (model.predict(x) == raw["label"]).mean()
        print(f"{split}: {right:.1%} of {len(x)} hints")
    print(f"{FILE.stat().st_size / 1e3:.0f} kB")


parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--test", action="store_true")
if not parser.parse_args().test:
    train()
test()
