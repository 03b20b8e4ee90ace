"""The recurrent layer by hand against torch's: forward, gradients, clipping.

    python benchmarks/recurrent.py

Ratios of times of one run: in turns, the fastest of several repeats, one thread.
"""

import math

import torch
from timing import fastest, line  # first: it sets the number of threads
from torch import nn

from mmcourse.measure import seeded
from mmcourse.recurrent import bptt, clip_by_norm, params_of, rnn


def layers(N, T, H):
    with seeded(0):
        net = nn.RNN(32, H, batch_first=True)
        x, g = torch.randn(N, T, 32), torch.randn(N, T, H)
    p, leaf = params_of(net), x.clone().requires_grad_()
    weights = [leaf, *net.parameters()]

    def backward():
        torch.autograd.grad((net(leaf)[0] * g).sum(), weights)

    with torch.no_grad():
        forward = fastest(lambda: rnn(x, p), lambda: net(x))
    gradients = fastest(lambda: bptt(x, p, g), backward)
    return forward, gradients


def main():
    torch.set_num_threads(1)
    for N, T, H in ((1, 50, 32), (64, 30, 64), (64, 100, 128), (256, 30, 256)):
        forward, gradients = layers(N, T, H)
        line(f"forward by hand against torch, N={N} T={T} H={H}", *forward)
        line(f"bptt against autograd, N={N} T={T} H={H}", *gradients)
    net = nn.RNN(128, 256, 2)
    for w in net.parameters():
        w.grad = torch.randn_like(w)
    grads = [w.grad for w in net.parameters()]
    times = fastest(
        lambda: clip_by_norm(grads, math.inf),
        lambda: nn.utils.clip_grad_norm_(net.parameters(), math.inf),
    )
    line("clipping 230,000 numbers by hand against torch", *times)


if __name__ == "__main__":
    main()
