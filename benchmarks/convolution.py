"""Seconds of the course's convolutions, gradients and pooling as multiples of torch's, one core each, taking turns, best of many.

python benchmarks/convolution.py
"""

import math
import os

os.environ["OMP_NUM_THREADS"] = "1"
from time import perf_counter

import torch
import torch.nn.functional as F

from mmcourse.convolution import avg_pool, conv_grads, conv_im2col, conv_view, max_pool


def race(
    functions: dict,  # name -> function without arguments
    rounds: int = 40,
) -> dict:  # name -> seconds
    "The best time of each; they take turns, so that whatever else the machine does meets all of them."
    best = dict.fromkeys(functions, math.inf)
    for _ in range(rounds):
        for name, f in functions.items():
            start = perf_counter()
            f()
            best[name] = min(best[name], perf_counter() - start)
    return best


def line(what, best):
    *ours, torchs = best
    print(
        f"{what:66}"
        + "".join(f"{name} {best[name] / best[torchs]:6.2f} ×   " for name in ours)
        + f"torch {1e3 * best[torchs]:7.2f} ms"
    )


def convolutions():
    for channels, filters, size, knobs in (
        (1, 16, 3, {}),
        (1, 16, 5, {"padding": 2}),
        (16, 32, 3, {"padding": 1}),
        (16, 32, 3, {"padding": 1, "stride": 2}),
        (16, 32, 3, {"padding": 2, "dilation": 2}),
        (16, 32, 3, {"padding": 1, "groups": 4}),
    ):
        x, w = (
            torch.rand(64, channels, 28, 28),
            torch.randn(filters, channels // knobs.get("groups", 1), size, size),
        )
        y = F.conv2d(x, w, **knobs)
        for f in (conv_view, conv_im2col):
            assert torch.allclose(f(x, w, **knobs), y, atol=1e-3)
        line(
            f"64×{channels}×28×28, {filters} filters {size}×{size} {knobs or ''}",
            race(
                {
                    "im2col": lambda: conv_im2col(x, w, **knobs),
                    "view": lambda: conv_view(x, w, **knobs),
                    "torch": lambda: F.conv2d(x, w, **knobs),
                },
                40 if channels == 1 else 8,
            ),
        )


def gradients():
    x, w = (
        torch.rand(64, 8, 28, 28, requires_grad=True),
        torch.randn(16, 8, 3, 3, requires_grad=True),
    )
    y = F.conv2d(x, w)
    g = torch.randn_like(y)
    line(
        "gradients, 64×8×28×28, 16 filters 3×3",
        race(
            {
                "by hand": lambda: conv_grads(x.detach(), w.detach(), g),
                "torch": lambda: torch.autograd.grad(F.conv2d(x, w), (x, w), g),
            },
            10,
        ),
    )


def pools():
    x = torch.rand(64, 16, 28, 28)
    for ours, torchs in ((max_pool, F.max_pool2d), (avg_pool, F.avg_pool2d)):
        line(
            f"{ours.__name__} of 2, 64×16×28×28",
            race({"ours": lambda: ours(x, 2), "torch": lambda: torchs(x, 2)}, 20),
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one core")
    convolutions()
    gradients()
    pools()
