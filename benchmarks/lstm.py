"""Measures the LSTM by hand against `nn.LSTM`, packing against a loop over sequences, and Keras against torch: ratios of times of one run.

    python benchmarks/lstm.py

Interleaved, the minimum of several repeats, one thread; forward and backward pass unless it says otherwise.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import torch
from timing import fastest, line  # first: it sets the number of threads
from torch import nn

from mmcourse.lstm import gru, gru_to_keras, lstm, lstm_to_keras, run_packed
from mmcourse.measure import seeded


def main():
    import keras

    torch.set_num_threads(1)
    B, T, I, H = 64, 26, 40, 72
    with seeded(0):
        x, lengths = torch.randn(B, T, I), torch.randint(6, T + 1, (B,))
    for name, Net, ours, convert, Layer in (
        ("LSTM", nn.LSTM, lstm, lstm_to_keras, keras.layers.LSTM),
        ("GRU", nn.GRU, gru, gru_to_keras, keras.layers.GRU),
    ):
        with seeded(0):
            net = Net(I, H, batch_first=True)
        params = dict(net.named_parameters())
        line(
            f"{name} by hand against torch",
            *fastest(
                lambda: ours(x, params)[0].sum().backward(),
                lambda: net(x)[0].sum().backward(),
            ),
        )
        with keras.device("cpu"):
            layer = Layer(H, return_sequences=True)
            layer.build(x.shape)
            layer.set_weights(convert(net.state_dict()))
            line(
                f"{name} of Keras on torch against torch",
                *fastest(
                    lambda: layer(x).sum().backward(),
                    lambda: net(x)[0].sum().backward(),
                ),
            )
        line(
            f"{name}: each sequence alone against one packed batch",
            *fastest(
                lambda: sum(
                    net(row[None, :n])[0].sum() for row, n in zip(x, lengths)
                ).backward(),
                lambda: run_packed(net, x, lengths)[0].sum().backward(),
            ),
        )
        line(
            f"{name}: packed against padded and read to the end",
            *fastest(
                lambda: run_packed(net, x, lengths)[0].sum().backward(),
                lambda: net(x)[0].sum().backward(),
            ),
        )


if __name__ == "__main__":
    main()
