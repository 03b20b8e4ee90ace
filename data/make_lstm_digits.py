"""Train the three BiLSTMs of chapter 10 on `spoken_digits` and write their weights.

    python data/make_lstm_digits.py        # writes data/lstm_digits.safetensors; some minutes on one core
    python data/make_lstm_digits.py --test # what the shipped weights say of the test voices

Everything was chosen on validation voices. The notebook evaluates the file and trains a shorter run itself.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.audio import augment_audio, log_mel, standardise_mel
from mmcourse.checkpoint import read_tensors, write_tensors
from mmcourse.datasets import spoken_digits
from mmcourse.lstm import Listener, centred_mels, train_listener
from mmcourse.training import accuracy

FILE, SEEDS, EPOCHS = Path(__file__).with_name("lstm_digits.safetensors"), 3, 32


def load(split: str) -> tuple:  # (mels, labels)
    d = spoken_digits(split)
    return centred_mels(d["audio"], d["length"], log_mel), torch.tensor(d["label"])


def train():
    "Train `SEEDS` networks, say how each does on validation voices, write all of them."
    train, valid, tensors, scores, start = (
        load("train"),
        load("valid"),
        {},
        [],
        time.process_time(),
    )
    for seed in range(SEEDS):
        model = train_listener(
            *train,
            standardise=standardise_mel,
            augment=augment_audio,
            epochs=EPOCHS,
            seed=seed,
        )
        scores.append(accuracy(model, valid))
        tensors |= {
            f"{seed}.{k}": v.half() for k, v in model.state_dict().items()
        }  # half the bytes; the accuracies stay
        print(
            f"seed {seed}: valid {scores[-1]:.3f}, {time.process_time() - start:.0f} s of processor time so far",
            flush=True,
        )
    about = {
        "seeds": SEEDS,
        "epochs": EPOCHS,
        "valid": scores,
        "seconds": round(time.process_time() - start),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    write_tensors(FILE, tensors, about)
    print(about)


def test():
    "Accuracy of the shipped weights on test voices."
    tensors, about = read_tensors(FILE)
    data, scores = load("test"), []
    for seed in range(about["seeds"]):
        model = Listener(standardise_mel)
        model.load_state_dict(
            {
                k.split(".", 1)[1]: v
                for k, v in tensors.items()
                if k.startswith(f"{seed}.")
            }
        )
        scores.append(accuracy(model, data))
    print("test", np.round(scores, 3), f"mean {np.mean(scores):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="evaluate the shipped weights instead of training",
    )
    torch.set_num_threads(1)
    (test if parser.parse_args().test else train)()
