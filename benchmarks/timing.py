"""What the benchmarks share: functions timed in turns, and one way to print a ratio.

Imported first, it also limits torch to one thread.
"""

import os
from collections.abc import Callable
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")


def fastest(
    *runs: Callable,  # without arguments
    repeats: int = 7,
) -> list[float]:  # seconds of each, the least of all repeats; the runs take turns
    "Times that can be compared: whatever slows the machine down slows all of them."
    best = [float("inf")] * len(runs)
    for _ in range(repeats):
        for k, run in enumerate(runs):
            start = perf_counter()
            run()
            best[k] = min(best[k], perf_counter() - start)
    return best


def line(what: str, ours: float, ref: float):  # seconds
    "Print their ratio, and both."
    times = f"({1e3 * ours:.2f} ms : {1e3 * ref:.2f} ms)"
    print(f"{what:78} {ours / ref:8.3f} times the seconds {times}")
