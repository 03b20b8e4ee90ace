"""Seconds of chapter 18: one model on the whole grid, by pool and by joint training.

    python benchmarks/missing.py          # on the test split
    python benchmarks/missing.py --valid  # on the validation split

Beside the seconds of this run stand the accuracies of the shipped models.
"""

import argparse
from time import perf_counter

import torch
from timing import fastest, line  # first: it sets the number of threads

from mmcourse.checkpoint import read_tensors
from mmcourse.datasets import MODALITIES
from mmcourse.explore import table
from mmcourse.measure import mean_spread
from mmcourse.missing import (
    joint_hits,
    joint_model,
    load_trusted,
    pool_hits,
    trust_grid,
)
from mmcourse.noise_levels import (
    DEFAULT,
    accuracies,
    grid_log_probs,
    noise_grid,
    shipped_state,
    subsets,
)
from mmcourse.store import data_path


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--valid", action="store_true")
    split = "valid" if parser.parse_args().valid else "test"
    torch.set_num_threads(1)
    tensors, about = read_tensors(data_path("missing.safetensors"))
    start = perf_counter()
    grid = noise_grid(split, 1000, about["stats"])
    print(f"{split} split, 1,000 examples, 25 points: {perf_counter() - start:.1f} s")

    def pooled(model):
        says = grid_log_probs(model.experts, grid)
        return pool_hits(says, grid["label"], trust_grid(model.gate, grid))

    models = [load_trusted(tensors, seed) for seed in about["seeds"]]
    joint = joint_model(len(about["stats"]["grams"]))
    joint.load_state_dict(shipped_state(tensors, "0.joint."))
    both = fastest(
        lambda: pooled(models[0]), lambda: joint_hits(joint, grid), repeats=2
    )
    line("seven subsets at 25 points: pooled experts against a joint model", *both)
    runs = [accuracies(pooled(model)) for model in models]
    rows = [
        {
            "what arrives": " + ".join(s),
            "default (%)": mean_spread([run[s][DEFAULT] for run in runs]),
            "mean of the grid (%)": mean_spread([run[s].mean() for run in runs]),
        }
        for s in subsets()[1:]
    ]
    print(table(rows, f"Shipped models, {', '.join(MODALITIES)}; three seeds"))


if __name__ == "__main__":
    main()
