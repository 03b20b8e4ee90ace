"""Measures what several tasks cost: one shared trunk against three networks, surgery against the plain sum, the probe of conflict against a step: ratios of one run.

    python benchmarks/multitask.py

Interleaved, the minimum of several repeats, one thread, forward and backward pass of 64 clips.
"""
import os, sys
os.environ.setdefault('OMP_NUM_THREADS', '1')
from pathlib import Path
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.multitask import TASKS, Uncertainty, listener, profiled, surgery, task_gradients, task_losses, weighted
from mmcourse.training import isolated

def fastest(*runs, repeats: int = 15) -> list: # seconds of each, the runs taking turns
    best = [float('inf')]*len(runs)
    for _ in range(repeats):
        for k, run in enumerate(runs):
            start = perf_counter(); run()
            best[k] = min(best[k], perf_counter()-start)
    return best

def line(what: str, ours: float, ref: float): print(f'{what:58} {ours/ref:6.2f} times the seconds ({1e3*ours:.1f} ms : {1e3*ref:.1f} ms)')

def main():
    torch.set_num_threads(1)
    with isolated(0): x, y = torch.rand(64, 20, 51)*-50, {t: torch.randint(n, (64,)) for t, n in TASKS.items()}
    shared, alone = listener(), [listener([t]) for t in TASKS]
    step = lambda model, balance: balance(task_losses(model(x), y)).backward()
    line('one trunk with three heads against three networks', *fastest(lambda: step(shared, weighted), lambda: [step(m, weighted) for m in alone]))
    for name, balance in (('uncertainty', Uncertainty(TASKS)), ('the product of losses', profiled), ('surgery', surgery(shared.trunk.parameters()))):
        line(f'{name} against the sum', *fastest(lambda: step(shared, balance), lambda: step(shared, weighted)))
    line('all three gradients by themselves against their sum', *fastest(lambda: task_gradients(task_losses(shared(x), y), shared.trunk.parameters()), lambda: step(shared, weighted)))

if __name__ == '__main__': main()
