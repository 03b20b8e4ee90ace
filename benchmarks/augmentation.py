"""Measures augmentations of a batch against the same done example by example, and what they add to a training step: ratios of times of one run.

    python benchmarks/augmentation.py

Interleaved, the minimum of several repeats, one thread.
"""

import torch
import torch.nn.functional as F
from timing import fastest, line  # first: it sets the number of threads

from mmcourse.augmentation import (
    as_mel,
    chain,
    cutmix,
    delayed,
    dropped,
    generated,
    hand,
    hissing,
    mixup,
    on_inputs,
    rephrased,
    soft,
    striped,
)
from mmcourse.convolution import DigitCNN
from mmcourse.datasets import hints
from mmcourse.measure import seeded


def main():
    torch.set_num_threads(1)
    g, B = torch.Generator().manual_seed(0), 64
    x, y, waves, ids = (
        torch.rand(B, 28, 28),
        torch.arange(B) % 10,
        torch.randn(B, 8000),
        torch.randint(1, 99, (B, 20)),
    )
    batch, texts, pool = (
        (x, soft(y)),
        hints("train", B)["text"],
        generated(torch.rand(1000, 28, 28), torch.arange(1000) % 10),
    )
    two = lambda i: (
        x[[i, (i + 1) % B]],
        soft(y[[i, (i + 1) % B]]),
    )  # the least that can be mixed
    for name, f in (("mixup", mixup), ("cutmix", cutmix)):
        line(
            f"{name} of {B} pairs at once against pair by pair",
            *fastest(lambda: f(batch, g), lambda: [f(two(i), g) for i in range(B)]),
        )
    for name, f, data in (
        ("another hand", hand, x),
        ("delay", delayed, waves),
        ("noise", hissing, waves),
        ("word dropout", dropped, ids),
    ):
        line(
            f"{name} of {B} at once against one by one",
            *fastest(lambda: f(data, g), lambda: [f(row[None], g) for row in data]),
        )
    mel = as_mel(waves)
    line(
        "stripes against the spectrogram that they are drawn on",
        *fastest(lambda: striped(mel, g), lambda: as_mel(waves)),
    )
    line(
        "a hint said again against drawing a new one",
        *fastest(lambda: rephrased(texts, g), lambda: hints("train", B, 1)),
    )
    with seeded(0):
        net = DigitCNN()

    def step():
        net.zero_grad()
        F.cross_entropy(net(x), batch[1]).backward()

    for name, f in (
        ("another hand", on_inputs(hand)),
        ("mixup", mixup),
        ("cutmix", cutmix),
        ("generated pictures", pool),
        ("generated pictures, another hand", chain(pool, on_inputs(hand))),
    ):
        line(
            f"{name} against one step of the CNN on the same batch",
            *fastest(lambda: f(batch, g), step),
        )


if __name__ == "__main__":
    main()
