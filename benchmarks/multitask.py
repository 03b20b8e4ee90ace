"""What several tasks cost: one trunk against three networks, surgery against the sum.

    python benchmarks/multitask.py

Ratios of times of one run: in turns, the fastest of several repeats, one thread,
forward and backward pass of 64 clips.
"""

import torch
from timing import fastest, line  # first: it sets the number of threads

from mmcourse.measure import seeded
from mmcourse.multitask import (
    TASKS,
    Uncertainty,
    profiled,
    sound_model,
    surgery,
    task_gradients,
    task_losses,
    weighted,
)


def main():
    torch.set_num_threads(1)
    with seeded(0):
        x = torch.rand(64, 20, 51) * -50
        y = {task: torch.randint(n, (64,)) for task, n in TASKS.items()}
    shared, alone = sound_model(), [sound_model([task]) for task in TASKS]

    def step(model, balance=weighted):
        balance(task_losses(model(x), y)).backward()

    def three():
        for model in alone:
            step(model)

    def apart():
        task_gradients(task_losses(shared(x), y), shared.trunk.parameters())

    def summed():
        step(shared)

    line("one trunk with three heads against three networks", *fastest(summed, three))
    balances = {
        "uncertainty": Uncertainty(TASKS),
        "the product of losses": profiled,
        "surgery": surgery(shared.trunk.parameters()),
    }
    for name, balance in balances.items():
        times = fastest(lambda b=balance: step(shared, b), summed)
        line(f"{name} against the sum", *times)
    line("three gradients apart against their sum", *fastest(apart, summed))


if __name__ == "__main__":
    main()
