"""Prints the accuracy tables of chapter 18: what five seeds of every model do on each subset of the modalities, over the grid of noise.

    python benchmarks/missing.py          # the shipped models, evaluated here, beside what was recorded for the others
    python benchmarks/missing.py --valid  # on the validation split

Seconds are those of this run. Margins are points above the best single modality of the subset, each seed against its own best expert, plain or trained under noise.
"""

import argparse
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
from pathlib import Path
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.checkpoint import read_tensors
from mmcourse.datasets import MODALITIES
from mmcourse.explore import table
from mmcourse.measure import mean_spread
from mmcourse.missing import (
    DEFAULT,
    IMAGE_NOISE,
    SNR_DB,
    load_results,
    load_trusted,
    noise_grid,
    opinions,
    over_best,
    pool_grid,
    subsets,
    trust_grid,
)
from mmcourse.store import data_path


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--valid",
        action="store_true",
        help="the validation split instead of the test split",
    )
    split = "valid" if parser.parse_args().valid else "test"
    torch.set_num_threads(1)
    (tensors, about), recorded, start = (
        read_tensors(data_path("missing.safetensors")),
        load_results(split),
        perf_counter(),
    )
    grid, runs = noise_grid(split, 1000, about["stats"]), []
    print(
        f"{split} split, 1,000 examples at {len(IMAGE_NOISE) * len(SNR_DB)} points: {perf_counter() - start:.1f} s"
    )
    start = perf_counter()
    for seed in about["seeds"]:
        model = load_trusted(tensors, seed)
        says = opinions(model.experts, grid)
        runs.append(pool_grid(says, grid["label"], trust_grid(model.gate, grid, says)))
    print(
        f"five shipped models on every subset and point: {perf_counter() - start:.1f} s\n"
    )
    everyone = {"shipped models, here": runs} | recorded
    margin = {
        k: over_best(r, recorded["plain product"], recorded["noisy product"])
        for k, r in everyone.items()
    }
    print(
        table(
            [
                {"model": k}
                | {
                    " + ".join(s): mean_spread([r[s][DEFAULT] for r in rs])
                    for s in subsets()[1:]
                }
                for k, rs in everyone.items()
            ],
            "Accuracy (%) at the default noise, five seeds",
        ),
        "\n",
    )
    print(
        table(
            [
                {"model": k} | {" + ".join(s): f"{v.min():+.1f}" for s, v in m.items()}
                for k, m in margin.items()
            ],
            "Lowest margin (points) over the grid, mean over five seeds",
        ),
        "\n",
    )
    levels = [f"{s:g} dB" for s in SNR_DB]
    for s in (MODALITIES, ("image", "audio")):
        for k in ("concatenation", "shipped models, here"):
            acc = torch.stack([r[s] for r in everyone[k]]).mean(0)
            print(
                table(
                    [
                        {"pixel noise": f"{n:g}"}
                        | {
                            l: f"{100 * v:.1f} ({d:+.1f})"
                            for l, v, d in zip(levels, row, drow)
                        }
                        for n, row, drow in zip(IMAGE_NOISE, acc, margin[k][s])
                    ],
                    f"{' + '.join(s)}, {k}: accuracy in % (points above the best single modality)",
                ),
                "\n",
            )


if __name__ == "__main__":
    main()
