"""The LSTM by hand against `nn.LSTM`, packing against a loop, Keras against torch.

    python benchmarks/lstm.py

Ratios of times of one run: in turns, the fastest of several repeats, one thread,
forward and backward pass.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import torch
from timing import fastest, line  # first: it sets the number of threads
from torch import nn

from mmcourse.lstm import lstm_layer, run_packed, weights_of
from mmcourse.measure import seeded


def by_hand(net, x, lengths):
    def ours():
        lstm_layer(x, weights_of(net), lengths)[0].sum().backward()

    def theirs():
        run_packed(net, x, lengths)[0].sum().backward()

    return fastest(ours, theirs)


def packed(net, x, lengths):
    def alone():
        rows = [net(row[None, :n])[0].sum() for row, n in zip(x, lengths)]
        sum(rows).backward()

    def together():
        run_packed(net, x, lengths)[0].sum().backward()

    def padded():
        net(x)[0].sum().backward()

    return fastest(alone, together, padded)


def in_keras(net, x):
    import keras

    w_ih, w_hh, b_ih, b_hh = weights_of(net)
    with keras.device("cpu"):
        layer = keras.layers.LSTM(net.hidden_size, return_sequences=True)
        layer.build(x.shape)
        weights = w_ih.T, w_hh.T, b_ih + b_hh
        layer.set_weights([v.detach().numpy() for v in weights])
        return fastest(
            lambda: layer(x).sum().backward(), lambda: net(x)[0].sum().backward()
        )


def main():
    torch.set_num_threads(1)
    B, T, I, H = 64, 26, 40, 72
    with seeded(0):
        x, lengths = torch.randn(B, T, I), torch.randint(6, T + 1, (B,))
        net = nn.LSTM(I, H, batch_first=True)
    line("LSTM by hand against torch, packed", *by_hand(net, x, lengths))
    alone, together, padded = packed(net, x, lengths)
    line("each sequence alone against one packed batch", alone, together)
    line("packed against padded and read to the end", together, padded)
    line("LSTM of Keras on torch against torch", *in_keras(net, x))


if __name__ == "__main__":
    main()
