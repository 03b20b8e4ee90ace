"""What a scale is worth: chapter 05's small network on decibels, scaled four ways.

    python data/make_pipeline.py            # data/results/pipeline.json; two minutes

Arms: 'scale/<input>/<rate>/<seed>', four inputs, four learning rates, five seeds. Every
fourth clip of the training split is learnt for 40 epochs. A result holds the accuracy
on validation and test voices, and the share of hidden units that give zero for every
validation clip. `valid` chooses the rate of an input, `test` reports it. (The chapter
trains the four inputs itself, at one rate and with seed 0, and compares.)
"""

from functools import lru_cache, partial

import torch
from study import Study
from torch import nn

from mmcourse.audio import log_mel, preprocess_audio
from mmcourse.datasets import SPLITS, spoken_digits
from mmcourse.measure import seeded
from mmcourse.pipeline import columns
from mmcourse.training import accuracy, fit

RATES = 5e-5, 2e-4, 1e-3, 5e-3


@lru_cache
def spectrograms() -> dict:
    "split -> (N, 20, 51) dB and (N,) digits."
    found = {}
    for split in SPLITS:
        d = spoken_digits(split)
        clips = preprocess_audio(columns(d)["audio"])
        mel = log_mel(clips, n_mels=20, hop=160)
        found[split] = mel, torch.tensor(d["label"])
    return found


def arm(shift, scale, rate, seed) -> dict:
    x = {split: (m - shift) / scale for split, (m, _) in spectrograms().items()}
    digit = {split: label for split, (_, label) in spectrograms().items()}
    with seeded(seed):
        hidden = nn.Linear(20 * 51, 64)
        net = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(64, 10))
    data = x["train"][::4], digit["train"][::4]
    fit(net, data, epochs=40, lr=rate, seed=seed)
    zero = (net[:3](x["valid"]) == 0).all(0)
    result = {split: accuracy(net, (x[split], digit[split])) for split in SPLITS[1:]}
    return result | {"silent": zero.float().mean().item()}


def main():
    study = Study("pipeline", __doc__, clips=780, epochs=40)
    decibels = spectrograms()["train"][0]
    mu, sigma = decibels.mean(), decibels.std()
    inputs = {
        "decibels as they are": (0, 1),
        "over their deviation": (0, sigma),
        "minus their mean": (mu, 1),
        "both": (mu, sigma),
    }
    for name, scale in inputs.items():
        for rate in RATES:
            for seed in study.seeds(5):
                run = partial(arm, *scale, rate, seed)
                study(f"scale/{name}/{rate:g}/{seed}", run)


if __name__ == "__main__":
    main()
