"""Seconds of attention by hand against torch's, forward and with the gradient.

    python benchmarks/attention.py [repeats]

The calls take turns, on one thread; of each the fastest counts. Every mask is causal.
A ratio above 1 says that ours is slower.
"""

import sys

import torch
import torch.nn.functional as F
from timing import fastest, line  # first: one thread
from torch import nn

from mmcourse.attention import (
    MultiHeadAttention,
    attention,
    causal_mask,
    fused_attention,
)

SIZES = [  # batch, tokens, features, heads
    (64, 20, 32, 2),
    (16, 128, 64, 4),
    (2, 1024, 64, 4),
]


def functions(B, T, d, heads):
    "Ours, and torch's function."
    shape = (B, heads, T, d // heads)
    qkv = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    mask = causal_mask(T)
    forms = {
        "attention": attention,
        "fused_attention": fused_attention,
        "F.scaled_dot_product_attention": F.scaled_dot_product_attention,
    }

    def bound(form):
        return lambda: form(*qkv, mask)

    return {name: bound(form) for name, form in forms.items()}


def by_hand(ref, d, heads):
    "Our layer with the weights of torch's."
    ours, state = MultiHeadAttention(d, heads), ref.state_dict()
    named = {"out.weight": state["out_proj.weight"], "out.bias": state["out_proj.bias"]}
    for kind in ("weight", "bias"):
        for n, part in zip("qkv", state[f"in_proj_{kind}"].chunk(3)):
            named[f"to_{n}.{kind}"] = part
    ours.load_state_dict(named)
    return ours


def layers(B, T, d, heads):
    "Our layer, and torch's with and without its weights."
    ref = nn.MultiheadAttention(d, heads, batch_first=True)
    ours, x = by_hand(ref, d, heads), torch.randn(B, T, d)
    mask = causal_mask(T)

    def torchs(need_weights):
        options = {"attn_mask": ~mask, "need_weights": need_weights}
        return lambda: ref(x, x, x, **options)[0]

    return {
        "MultiHeadAttention": lambda: ours(x, mask=mask),
        "nn.MultiheadAttention": torchs(True),
        "nn.MultiheadAttention, need_weights=False": torchs(False),
    }


def with_gradient(run):
    return lambda: run().sum().backward()


def main(repeats=30):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for size in SIZES:
        for group in (functions(*size), layers(*size)):
            runs = list(group.values())
            ours, *others = [run() for run in runs]
            for y in others:  # correct first
                torch.testing.assert_close(ours, y, rtol=1e-4, atol=1e-5)
            for what in ("forward", "with gradient"):
                if what == "with gradient":
                    runs = [with_gradient(run) for run in runs]
                with torch.set_grad_enabled(what != "forward"):
                    took = fastest(*runs, repeats=repeats)
                first, *names = group
                for name, seconds in zip(names, took[1:]):
                    line(f"{size} {what}: {first} : {name}", took[0], seconds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
