"""What order is worth to a network that hears digits, and what augmentation brings.

    python data/make_lstm_digits.py         # results and weights, some 13 minutes
    python data/make_lstm_digits.py --only in-order/augmented/32 --again  # the weights

The BiLSTM of chapter 10, 32 epochs, three seeds: on the steps of each clip in order,
with and without augmentation, and on steps that are shuffled anew each time, in
training and in testing. An arm is steps/augmentation/epochs/seed.
results/lstm_digits.json has the share of right answers on validation voices and, clip
by clip, the hits on test voices; lstm_digits.safetensors the weights of
`in-order/augmented/32`. All settings were chosen on validation voices.
"""

from pathlib import Path

import torch
from study import Study

from mmcourse.audio import augment_audio
from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.datasets import spoken_digits
from mmcourse.lstm import Listener, train_listener
from mmcourse.measure import seeded
from mmcourse.pipeline import load_features
from mmcourse.training import predict

SEEDS = 3
FILE = Path(__file__).with_name("lstm_digits.safetensors")
SHIPPED = "in-order/augmented/32"


class Shuffled(Listener):
    "A `Listener` that gets the steps of each clip in a new random order."

    def sequences(self, mel):
        x, lengths = super().sequences(mel)
        key = torch.rand(x.shape[:2])
        key[torch.arange(x.shape[1]) >= lengths[:, None]] = 2  # padding stays last
        order = key.argsort(dim=1, stable=True)
        return x.gather(1, order[:, :, None].expand_as(x)), lengths


MODELS = {"in-order": Listener, "shuffled": Shuffled}
ARMS = SHIPPED, "in-order/plain/32", "shuffled/plain/32"


def hits(model, data) -> torch.Tensor:  # (N,) bool
    with seeded(0):
        return predict(model, data["features"]["audio"]).argmax(1) == data["label"]


def train(arm: str, seed: int, data: dict):
    name, augment, epochs = arm.split("/")
    with seeded(seed):
        model = MODELS[name]()
    train_listener(
        model,
        (data["train"]["features"]["audio"], data["train"]["label"]),
        epochs=int(epochs),
        augment=augment_audio if augment == "augmented" else None,
        seed=seed,
    )
    return model


def main():
    study = Study("lstm_digits", __doc__, hits="of the test clips, 1 right, 0 wrong")
    data = load_features(spoken_digits)
    kept = {}
    for arm in ARMS:
        for seed in study.seeds(SEEDS):

            def run(arm=arm, seed=seed):
                model = train(arm, seed, data)
                if arm == SHIPPED:
                    kept[seed] = model.state_dict()
                test = hits(model, data["test"])
                return {
                    "train": hits(model, data["train"]).double().mean().item(),
                    "valid": hits(model, data["valid"]).double().mean().item(),
                    "test": "".join(str(int(v)) for v in test),
                }

            study(f"{arm}/{seed}", run, seed=seed)
        if arm == SHIPPED and len(kept) == SEEDS:
            weights = {f"{s}.{k}": v for s, w in kept.items() for k, v in w.items()}
            about = {"seeds": SEEDS, "epochs": 32, "torch": torch.__version__}
            write_tensors(FILE, shrink(weights, bits=8), about)


if __name__ == "__main__":
    main()
