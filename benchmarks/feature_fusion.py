"""Measures the six fusions: time against `torch.cat` and one linear layer; tensor fusion against the tensor of products and against its bare matrix products; accuracy on digits in three views.

    python benchmarks/feature_fusion.py             # the ratios, and the stored table of accuracies
    python benchmarks/feature_fusion.py --train     # trains the networks of the table's first row again, about a minute

Ratios of one run, runs taking turns, medians, one thread; forward and backward, three views of 64 features, batch 64, out 32. Extra memory: the peak of what torch allocates, less the
gradients that stay.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from mmcourse.feature_fusion import (
    FUSIONS,
    digit_views,
    extended,
    extra_memory,
    train_digits,
    without_each,
)
from mmcourse.measure import seeded
from mmcourse.training import count_parameters


def medians(runs: dict, repeats: int = 15) -> dict:  # seconds of each
    took = {k: [] for k in runs}
    for _ in range(repeats):
        for k, run in runs.items():
            start = perf_counter()
            run()
            took[k].append(perf_counter() - start)
    return {k: np.median(v) for k, v in took.items()}


def ratios(B: int = 64, d: int = 64, n: int = 32):
    with seeded(0):
        fusions, x, g = (
            {k: make(dict.fromkeys("abc", d), n) for k, make in FUSIONS.items()},
            {m: torch.randn(B, d, requires_grad=True) for m in "abc"},
            torch.randn(B, n),
        )
        plain, p, dy = (
            nn.Linear(3 * d, n),
            torch.randn(B, (d + 1) ** 2),
            torch.randn(B, (d + 1) * n),
        )
    f, z = fusions["tensor"], lambda: [extended(t) for t in x.values()]
    W = f.weight.detach().reshape((d + 1) ** 2, -1)
    literal = lambda: (
        torch.einsum("bi,bj,bk->bijk", *z()).flatten(1) @ f.weight.flatten(0, 2)
    )

    def clear():
        for t in (*f.parameters(), *x.values()):
            t.grad = None

    def both(form):
        def run():
            clear()
            form().backward(g)

        return run

    print(
        f"largest difference from the literal form {(f(x) - literal()).abs().max():.0e}"
    )
    runs = {
        "tensor of products": both(literal),
        "TensorFusion": both(lambda: f(x)),
        "its three products alone": lambda: (p @ W, p.T @ dy, dy @ W.T),
    }
    s = medians(runs)
    for k in runs:
        print(
            f"{k:28} {1e3 * s[k]:7.1f} ms, {s['tensor of products'] / s[k]:4.1f} times as fast as the tensor of products"
        )
    print(
        f"TensorFusion takes {s['TensorFusion'] / s['its three products alone']:.2f} times the seconds of its bound"
    )
    memory = {}
    for k in ("tensor of products", "TensorFusion"):
        clear()
        memory[k] = extra_memory(runs[k])
    print(
        "extra memory: "
        + ", ".join(f"{k} {v / 2**20:.1f} MiB" for k, v in memory.items())
        + f", ratio {memory['TensorFusion'] / memory['tensor of products']:.3f}\n"
    )
    s = medians(
        {"cat and linear": lambda: plain(torch.cat([*x.values()], 1)).backward(g)}
        | {k: lambda f=f: f(x).backward(g) for k, f in fusions.items()}
    )
    for k, v in s.items():
        print(
            f"{k:28} {1e3 * v:7.2f} ms, {v / s['cat and linear']:7.1f} times cat and linear, {count_parameters(fusions.get(k, plain)):>9,} weights"
        )


def show(name: str, a: dict):  # condition -> accuracies of five splits
    gaps = np.mean([v for k, v in a.items() if k != "all"], 0)
    everything = a["all"]
    print(
        f"{name:28} all {100 * np.mean(everything):.2f} ± {100 * np.std(everything, ddof=1):.2f}   one missing {100 * np.mean(gaps):.2f} ± {100 * np.std(gaps, ddof=1):.2f}   "
        + "  ".join(f"-{k} {100 * np.mean(v):.1f}" for k, v in a.items() if k != "all")
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--train", action="store_true", help="train the networks of the first row again"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    ratios()
    stored = json.loads((ROOT / "data" / "results" / "feature_fusion.json").read_text())
    for part, title in (
        ("valid", "validation data"),
        ("test", "test data, splits 0 to 4"),
    ):
        print(
            f"\ndigits in three views, {title}: right answers, % (from {stored['about']['command']})"
        )
        for name, r in stored[part].items():
            show(name, r["accuracy"])
    if args.train:
        scores = []
        for seed in range(5):
            train, test = digit_views(seed)
            scores.append(without_each(train_digits(train, seed=seed), test))
        print()
        show(
            "tensor, trained here",
            {k or "all": [s[k] for s in scores] for k in scores[0]},
        )


if __name__ == "__main__":
    main()
