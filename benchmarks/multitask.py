"""Measures what several tasks cost: one shared trunk against three networks, surgery against the plain sum, the probe of conflict against a step: ratios of one run.

    python benchmarks/multitask.py

Interleaved, the minimum of several repeats, one thread, forward and backward pass of 64 clips.
"""

import torch
from timing import fastest, line  # first: it sets the number of threads

from mmcourse.measure import seeded
from mmcourse.multitask import (
    TASKS,
    Uncertainty,
    listener,
    profiled,
    surgery,
    task_gradients,
    task_losses,
    weighted,
)


def main():
    torch.set_num_threads(1)
    with seeded(0):
        x, y = (
            torch.rand(64, 20, 51) * -50,
            {t: torch.randint(n, (64,)) for t, n in TASKS.items()},
        )
    shared, alone = listener(), [listener([t]) for t in TASKS]
    step = lambda model, balance: balance(task_losses(model(x), y)).backward()
    line(
        "one trunk with three heads against three networks",
        *fastest(
            lambda: step(shared, weighted), lambda: [step(m, weighted) for m in alone]
        ),
    )
    for name, balance in (
        ("uncertainty", Uncertainty(TASKS)),
        ("the product of losses", profiled),
        ("surgery", surgery(shared.trunk.parameters())),
    ):
        line(
            f"{name} against the sum",
            *fastest(lambda: step(shared, balance), lambda: step(shared, weighted)),
        )
    line(
        "all three gradients by themselves against their sum",
        *fastest(
            lambda: task_gradients(
                task_losses(shared(x), y), shared.trunk.parameters()
            ),
            lambda: step(shared, weighted),
        ),
    )


if __name__ == "__main__":
    main()
