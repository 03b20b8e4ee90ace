"""Attention by hand against `F.scaled_dot_product_attention` and `nn.MultiheadAttention`: seconds, forward alone and with the gradient, in one run.

    python benchmarks/attention.py [repeats]

The calls take turns, on one thread; of each the fastest lap counts. Every mask is causal. A ratio above 1 says that ours is slower."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.attention import (
    MultiHeadAttention,
    attention,
    causal_mask,
    fused_attention,
)

SIZES = [
    (64, 20, 32, 2),
    (16, 128, 64, 4),
    (2, 1024, 64, 4),
]  # batch, tokens, features, heads


def contestants(B, T, d, heads):
    "name -> function of nothing: what is timed."
    x, mask, ref = (
        torch.randn(B, T, d),
        causal_mask(T),
        nn.MultiheadAttention(d, heads, batch_first=True),
    )
    ours = MultiHeadAttention.from_torch(ref)
    q, k, v = (
        torch.randn(B, heads, T, d // heads, requires_grad=True) for _ in range(3)
    )
    single = {
        "attention": lambda: attention(q, k, v, mask),
        "fused_attention": lambda: fused_attention(q, k, v, mask),
        "F.scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(
            q, k, v, mask
        ),
    }
    layers = {
        "MultiHeadAttention": lambda: ours(x, mask=mask),
        "nn.MultiheadAttention": lambda: ref(x, x, x, attn_mask=~mask)[0],
        "… need_weights=False": lambda: ref(
            x, x, x, attn_mask=~mask, need_weights=False
        )[0],
    }
    for group in (single, layers):  # correct first
        first, *others = [f() for f in group.values()]
        for y in others:
            torch.testing.assert_close(first, y, rtol=1e-4, atol=1e-5)
    return single, layers


def laps(group, repeats, backward):
    "name -> seconds of the fastest lap."
    best = dict.fromkeys(group, float("inf"))
    for i in range(repeats + 2):  # two laps to warm up
        for name, f in group.items():
            start = time.perf_counter()
            with torch.set_grad_enabled(backward):
                y = f()
            if backward:
                y.sum().backward()
            if i > 1:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def main(repeats=30):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread, fastest of {repeats} laps")
    for B, T, d, heads in SIZES:
        for group in contestants(B, T, d, heads):
            for backward in (False, True):
                best = laps(group, repeats, backward)
                ours, *peers = best.items()
                print(
                    f"batch {B:2} × {T:4} tokens × {d} features, {heads} heads, {'with gradient' if backward else 'forward alone'}: {ours[0]} {1e3 * ours[1]:7.2f} ms"
                    + "".join(
                        f"; {1e3 * s:7.2f} ms {name}, ratio {ours[1] / s:.2f}"
                        for name, s in peers
                    )
                )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
