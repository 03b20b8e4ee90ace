"""How many times as long the hand-written recurrent layer takes as torch's: forward against `nn.RNN`, gradients against autograd, clipping against `clip_grad_norm_`.

    python benchmarks/recurrent.py

Both are run in turns, on one thread; a ratio is that of the medians. Below 1: ours is faster."""

import math
from statistics import median
from time import perf_counter

import torch
from torch import nn

from mmcourse.recurrent import bptt, clip_by_norm, params_of, rnn

torch.set_num_threads(1)


def ratio(ours, theirs, repeats=30):
    "Median seconds of `ours` by median seconds of `theirs`, interleaved, after one call each to warm up."
    seconds = {ours: [], theirs: []}
    for i in range(repeats + 1):
        for f, taken in seconds.items():
            start = perf_counter()
            f()
            if i:
                taken.append(perf_counter() - start)
    return median(seconds[ours]) / median(seconds[theirs]), 1000 * median(
        seconds[theirs]
    )


def main():
    print(f"{'':32}{'ours / torch':>14}{'torch, ms':>12}")
    for N, T, H in ((1, 50, 32), (64, 30, 64), (64, 100, 128), (256, 30, 256)):
        torch.manual_seed(0)
        theirs, x, g = (
            nn.RNN(32, H, batch_first=True),
            torch.randn(N, T, 32),
            torch.randn(N, T, H),
        )
        p = params_of(theirs)
        with torch.no_grad():
            assert torch.allclose(rnn(x, None, p), theirs(x)[0], atol=1e-5)

        def forward():
            with torch.no_grad():
                rnn(x, None, p)

        def torch_forward():
            with torch.no_grad():
                theirs(x)

        def backward():
            bptt(x, None, p, g)

        leaf = x.clone().requires_grad_()

        def torch_backward():
            torch.autograd.grad(
                (theirs(leaf)[0] * g).sum(), [leaf, *theirs.parameters()]
            )

        for name, ours, ref in (
            ("forward", forward, torch_forward),
            ("forward and gradients", backward, torch_backward),
        ):
            r, ms = ratio(ours, ref)
            print(f"{name:24}N={N:<4}T={T:<4}H={H:<4}{r:6.2f}{ms:12.2f}")
    module = nn.RNN(128, 256, 2)
    for w in module.parameters():
        w.grad = torch.randn_like(w)
    r, ms = ratio(
        lambda: clip_by_norm([w.grad for w in module.parameters()], math.inf),
        lambda: nn.utils.clip_grad_norm_(module.parameters(), math.inf),
    )
    print(f"{'clipping, 230,000 numbers':40}{r:6.2f}{ms:12.2f}")


if __name__ == "__main__":
    main()
