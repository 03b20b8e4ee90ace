"""Augmentations of a batch against the same done example by example, and what they add
to a training step: ratios of times of one run.

    python benchmarks/augmentation.py

Interleaved, the minimum of several repeats, one thread.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timing import fastest, line  # first: it sets the number of threads

from mmcourse.augmentation import (
    add_white_noise,
    augment_digit,
    chain,
    cutmix,
    from_pool,
    mixup,
    on_inputs,
    one_hot,
    random_delay,
    reword,
    word_dropout,
)
from mmcourse.convolution import DigitCNN
from mmcourse.datasets import hints
from mmcourse.measure import seeded
from mmcourse.pipeline import extract_audio_features

B = 64


def one_by_one(augment, rows, generator):
    return [augment(row[None], generator) for row in rows]


def pair_by_pair(mix, batch, generator):
    "The least that can be mixed is two examples."
    x, t = batch
    twos = [[i, (i + 1) % B] for i in range(B)]
    return [mix((x[i], t[i]), generator) for i in twos]


def step(net, batch):
    net.zero_grad()
    F.cross_entropy(net(batch[0]), batch[1]).backward()


def main():
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    x, waves = torch.rand(B, 28, 28), torch.randn(B, 8000)
    ids, texts = torch.randint(1, 99, (B, 20)), hints("train", B)["text"]
    batch = x, one_hot(torch.arange(B) % 10)
    pool = from_pool(torch.rand(1000, 28, 28), torch.arange(1000) % 10)
    for name, mix in (("mixup", mixup), ("cutmix", cutmix)):
        at_once, apart = partial(mix, batch, g), partial(pair_by_pair, mix, batch, g)
        line(f"{name} of {B} pairs at once, pair by pair", *fastest(at_once, apart))
    for name, augment, rows in (
        ("another hand", augment_digit, x),
        ("delay", random_delay, waves),
        ("noise", add_white_noise, waves),
        ("word dropout", word_dropout, ids),
    ):
        apart = partial(one_by_one, augment, rows, g)
        found = fastest(partial(augment, rows, g), apart)
        line(f"{name} of {B} at once, one by one", *found)
    spectrograms = partial(extract_audio_features, waves)
    found = fastest(partial(add_white_noise, waves, g), spectrograms)
    line("noise, the spectrograms of the same clips", *found)
    found = fastest(partial(reword, texts, g), partial(hints, "train", B, 1))
    line("hints said again, new ones drawn", *found)
    with seeded(0):
        net = DigitCNN()
    for name, augment in (
        ("another hand", on_inputs(augment_digit)),
        ("mixup", mixup),
        ("cutmix", cutmix),
        ("generated pictures", pool),
        ("generated pictures, another hand", chain(pool, on_inputs(augment_digit))),
    ):
        found = fastest(partial(augment, batch, g), partial(step, net, batch))
        line(f"{name}, one step of the CNN on the same batch", *found)


if __name__ == "__main__":
    main()
