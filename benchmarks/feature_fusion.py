"""Seconds and memory of the fusions of chapter 16.

    python benchmarks/feature_fusion.py [repeats]

Three views of 64 features, batch 64, 32 out, forward and backward, one thread; the
runs take turns and the median of each counts. `TensorFusion` stands against the tensor
of all products, and against its own three matrix products, which no form can spare.
"""

import sys
from time import perf_counter

import numpy as np
import timing  # noqa: F401 (first: one thread)
import torch
from torch import nn

from mmcourse.feature_fusion import FUSIONS, extended
from mmcourse.measure import seeded
from mmcourse.training import count_parameters

B, D, N = 64, 64, 32


def medians(runs: dict, repeats: int) -> dict[str, float]:  # seconds of each
    took = {k: [] for k in runs}
    for _ in range(repeats):
        for k, run in runs.items():
            start = perf_counter()
            run()
            took[k].append(perf_counter() - start)
    return {k: float(np.median(v)) for k, v in took.items()}


def peak(run) -> float:  # MiB that torch holds at most, beyond what it held before
    "Peak memory of one run, by the profiler's record of each allocation."
    with torch.profiler.profile(profile_memory=True) as record:
        run()
    held = most = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


def main(repeats=15):
    torch.set_num_threads(1)
    with seeded(0):
        fusions = {k: make(dict.fromkeys("abc", D), N) for k, make in FUSIONS.items()}
        x = {m: torch.randn(B, D, requires_grad=True) for m in "abc"}
        plain, g = nn.Linear(3 * D, N), torch.randn(B, N)
        p, dy = torch.randn(B, (D + 1) ** 2), torch.randn(B, (D + 1) * N)
    tensor = fusions["tensor"]
    W = tensor.weight.detach().reshape((D + 1) ** 2, -1)

    def literal():
        z = [extended(t) for t in x.values()]
        products = torch.einsum("bi,bj,bk->bijk", *z).flatten(1)
        return products @ tensor.weight.flatten(0, 2)

    def both(form):
        def run():
            for t in (*tensor.parameters(), *x.values()):
                t.grad = None
            form().backward(g)

        return run

    off = (tensor(x) - literal()).abs().max()
    print(f"largest difference from the tensor of products {off:.0e}")
    runs = {
        "tensor of products": both(literal),
        "TensorFusion": both(lambda: tensor(x)),
        "its three matrix products": lambda: (p @ W, p.T @ dy, dy @ W.T),
    }
    s = medians(runs, repeats)
    for k, v in s.items():
        print(f"{k:28} {1e3 * v:7.1f} ms, {v / s['TensorFusion']:5.2f} of TensorFusion")
    for k in ("tensor of products", "TensorFusion"):
        print(f"{k:28} {peak(runs[k]):7.1f} MiB at most")
    runs = {"cat and linear": both(lambda: plain(torch.cat([*x.values()], 1)))}
    runs |= {k: both(lambda f=f: f(x)) for k, f in fusions.items()}
    for k, v in medians(runs, repeats).items():
        weights = count_parameters(fusions.get(k, plain))
        print(f"{k:28} {1e3 * v:7.2f} ms, {weights:>9,} weights")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
