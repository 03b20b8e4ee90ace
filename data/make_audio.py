"""Train chapter 04's small network on eight kinds of features and under augmentation.

    python data/make_audio.py            # data/results/audio.json; some ten minutes
    python data/make_audio.py --seeds 1  # one seed, to see that it runs

Arms: '<features>/<epochs>/<seed>' without augmentation, and 'nothing', 'spec_augment'
and 'augment_audio' on log-mel below the loudest. Nothing is chosen: every arm that was
run is in the file, with its accuracy on its training clips and on unseen voices, and a
1 for each of the 570 clips of the latter that it had right.
"""

from functools import partial

import torch
from study import Study
from torch import nn

from mmcourse.audio import (
    augment_audio,
    log_mel,
    mel_power,
    mfcc,
    preprocess_audio,
    spec_augment,
    spectrogram,
)
from mmcourse.datasets import spoken_digits
from mmcourse.measure import seeded
from mmcourse.training import accuracy, fit, predict, warmup_cosine

HOP = 200


def convolution(i, o, stride):
    layer = nn.Conv1d(i, o, kernel_size=5, stride=stride, padding=2)
    return [layer, nn.BatchNorm1d(o), nn.ReLU()]


def network(rows, width=32):
    "The chapter's network: (B, rows, T) features -> (B, 10) logits."
    body = convolution(rows, width, 2) + convolution(width, width, 1)
    pool = [nn.AdaptiveMaxPool1d(4), nn.Flatten(), nn.Dropout(0.3)]
    return nn.Sequential(*body, *pool, nn.Linear(4 * width, 10))


def decibel_rows(waves, hop):
    return 10 * spectrogram(waves, hop=hop).clamp_min(1e-8).log10()


def below_loudest(waves, hop):
    mel = log_mel(waves, hop=hop, top_db=200)
    there = (mel > -99).any(1, keepdim=True)
    mel = (mel - mel.amax((1, 2), keepdim=True)).clamp_min(-59)
    return torch.where(there, mel, -60)


def fourth_root(power):
    "Features that compress the power as much as a logarithm does, but are none."

    def made(waves, hop):
        return power(waves, hop=hop) ** 0.25

    return made


KINDS = {
    "power, 129 rows": spectrogram,
    "decibels, 129 rows": decibel_rows,
    "mel power, 40 bands": mel_power,
    "log-mel, 40 bands": log_mel,
    "log-mel below the loudest": below_loudest,
    "MFCC, 13 coefficients": mfcc,
    "fourth root, 129 rows": fourth_root(spectrogram),
    "fourth root, 40 bands": fourth_root(mel_power),
}


def clips(split, step):
    "Every `step`-th clip of a split, and its digits."
    d = spoken_digits(split)
    rows = range(0, len(d["label"]), step)
    waves = preprocess_audio([d["audio"][i, : d["length"][i]] for i in rows])
    return waves, torch.tensor(d["label"][::step])


def scaled(augment, mean, deviation):
    "An augmentation of decibels, for features that are standardised."

    def varied(x, generator):
        return (augment(x * deviation + mean, generator) - mean) / deviation

    return varied


def arm(train, test, epochs, seed, augment=None) -> dict:
    "Accuracy on training clips and unseen voices; which of the latter are right."
    (x, label), (y, test_label) = train, test
    mean, deviation = x.mean((0, 2), keepdim=True), x.std((0, 2), keepdim=True) + 1e-12
    data = (x - mean) / deviation, label
    varied = augment and scaled(augment, mean, deviation)
    how = {"lr": 4e-3, "schedule": warmup_cosine, "augment": varied, "seed": seed}
    with seeded(seed):
        model = network(x.shape[1])
    fit(model, data, epochs=epochs, **how)
    hits = predict(model, (y - mean) / deviation).argmax(1) == test_label
    return {
        "train": accuracy(model, data),
        "test": hits.float().mean().item(),
        "right": "".join(map(str, hits.int().tolist())),
    }


def main():
    study = Study("audio", __doc__, clips=780, hop=HOP, batch_size=64, lr=4e-3)
    (waves, label), (test_waves, test_label) = clips("train", 4), clips("test", 1)

    def features(make):
        x, y = make(waves, hop=HOP).float(), make(test_waves, hop=HOP).float()
        return (x, label), (y, test_label)

    for kind, make in KINDS.items():
        data = features(make)
        for seed in study.seeds(5):
            study(f"{kind}/40/{seed}", partial(arm, *data, 40, seed))
    data = features(below_loudest)
    ways = {"nothing": None, "spec_augment": spec_augment}
    for epochs in (8, 40, 100):
        for name, augment in {**ways, "augment_audio": augment_audio}.items():
            for seed in study.seeds(5):
                run = partial(arm, *data, epochs, seed, augment)
                study(f"{name}/{epochs}/{seed}", run)


if __name__ == "__main__":
    main()
