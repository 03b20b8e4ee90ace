"""Train everything that chapter 17 compares, over five seeds, and write the table of results.

    python data/make_multitask.py           # writes data/results/multitask.json; about twenty-five minutes on one core
    python data/make_multitask.py --only few started # the runs whose names hold one of these words; the others stay as the file has them

Weights are chosen on validation data by the notebook; test figures are written beside them.
"""

import argparse
import json
import platform
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.multitask import (
    TASKS,
    ReverseGradient,
    Uncertainty,
    conflict,
    keep_labels,
    listener,
    own_rate,
    probe,
    profiled,
    random_weights,
    repeat_known,
    right,
    spoken_tasks,
    surgery,
    task_losses,
    train_tasks,
    weighted,
)
from mmcourse.training import evaluating

FILE, SEEDS, EPOCHS, FEW = (
    Path(__file__).parent / "results" / "multitask.json",
    5,
    8,
    100,
)


def plain(tasks, balance=weighted):  # one shared model, one balance
    return lambda seed, data: (
        model := listener(tasks, seed=seed),
        train_tasks(model, data["train"], balance, epochs=EPOCHS, seed=seed),
    )[0]


def with_conflict(seed, data):
    model, seen = listener(seed=seed), []
    look = lambda *_: seen.append(
        {k: v.tolist() for k, v in conflict(model, data["train"], seed=seed).items()}
    )
    look()
    train_tasks(model, data["train"], epochs=EPOCHS, seed=seed, on_epoch=look)
    model.seen = seen
    return model


def in_units(losses, factor, balance):
    return balance(losses | {"voice": losses["voice"] * factor})


def uncertain(
    seed, data, factor=1.0, rate=0.1, started=False
):  # s starts at 0, or at its best for the first clips
    model, balance = listener(seed=seed), Uncertainty(TASKS)
    model.balance = balance
    if started:
        with evaluating(model):
            first = task_losses(
                model(data["train"][0][:256]),
                {t: y[:256] for t, y in data["train"][1].items()},
            )
        balance.start(first | {"voice": factor * first["voice"]})
    train_tasks(
        model,
        data["train"],
        partial(in_units, factor=factor, balance=balance),
        epochs=EPOCHS,
        seed=seed,
        optimizer=own_rate(balance.parameters(), rate),
    )
    return model


def operated(seed, data):
    model = listener(seed=seed)
    train_tasks(
        model,
        data["train"],
        surgery(model.trunk.parameters(), seed=seed),
        epochs=EPOCHS,
        seed=seed,
    )
    return model


def against(seed, data, strength):
    model = listener(
        ["digit", "voice"],
        heads={
            "voice": nn.Sequential(
                ReverseGradient(strength),
                nn.Dropout(0.3),
                nn.Linear(128, TASKS["voice"]),
            )
        },
        seed=seed,
    )
    train_tasks(model, data["train"], epochs=EPOCHS, seed=seed)
    return model


def few(
    seed, data, tasks, also=()
):  # a hundred clips have a digit; the tasks in `also` are known of these clips alone
    x, targets = data["train"]
    targets = keep_labels(targets, "digit", FEW, seed=seed)
    for t in also:
        targets[t] = torch.where(targets["digit"] < 0, targets["digit"], targets[t])
    return plain(tasks)(seed, {"train": (x, targets)})


def few_repeated(seed, data, tasks, also=()):  # and make half of each batch
    x, targets = data["train"]
    targets = keep_labels(targets, "digit", FEW, seed=seed)
    for t in also:
        targets[t] = torch.where(targets["digit"] < 0, targets["digit"], targets[t])
    more, model = repeat_known((x, targets), "digit", 25), listener(tasks, seed=seed)
    train_tasks(
        model, more, epochs=round(EPOCHS * len(x) / len(more[0])), seed=seed
    )  # as many steps
    return model


def few_alone(
    seed, data
):  # the same hundred clips in batches of their own, as many steps
    x, targets = data["train"]
    kept = keep_labels(targets, "digit", FEW, seed=seed)["digit"] >= 0
    model, steps = listener(["digit"], seed=seed), EPOCHS * -(-len(x) // 64)
    train_tasks(
        model,
        (x[kept], {"digit": targets["digit"][kept]}),
        epochs=steps // -(-FEW // 64),
        seed=seed,
    )
    return model


RUNS = (
    {f"{t} alone": plain([t]) for t in TASKS}
    | {
        "digit, parity": plain(["digit", "parity"]),
        "digit, voice": plain(["digit", "voice"]),
        "all, equal": with_conflict,
    }
    | {
        f"all, voice × {w}": plain(TASKS, partial(weighted, weights={"voice": w}))
        for w in (0.1, 0.3, 3.0)
    }
    | {
        "all, uncertainty": uncertain,
        "all, uncertainty, slow s": partial(uncertain, rate=4e-3),
        "all, product": plain(TASKS, profiled),
        "all, random": lambda seed, data: plain(TASKS, random_weights(seed))(
            seed, data
        ),
        "all, surgery": operated,
        "hundredths: sum": plain(TASKS, partial(weighted, weights={"voice": 100.0})),
        "hundredths: uncertainty": partial(uncertain, factor=100.0),
        "hundredths: uncertainty, slow s": partial(uncertain, factor=100.0, rate=4e-3),
        "hundredths: product": plain(
            TASKS, partial(in_units, factor=100.0, balance=profiled)
        ),
    }
    | {
        f"digit against voice × {s}": partial(against, strength=s)
        for s in (0.03, 0.1, 0.3)
    }
    | {
        "few: digit alone": few_alone,
        "few: digit alone, same batches": partial(few, tasks=["digit"]),
        "few: and their parity": partial(
            few, tasks=["digit", "parity"], also=["parity"]
        ),
        "few: and all parity": partial(few, tasks=["digit", "parity"]),
        "few: and all voices": partial(few, tasks=["digit", "voice"]),
    }
    | {
        "few, repeated: digit alone": partial(few_repeated, tasks=["digit"]),
        "few, repeated: and their parity": partial(
            few_repeated, tasks=["digit", "parity"], also=["parity"]
        ),
        "few, repeated: and all parity": partial(
            few_repeated, tasks=["digit", "parity"]
        ),
        "few, repeated: and all voices": partial(
            few_repeated, tasks=["digit", "voice"]
        ),
        "all, uncertainty, started": partial(uncertain, started=True),
        "hundredths: uncertainty, started": partial(
            uncertain, factor=100.0, started=True
        ),
    }
)

PROBED = {
    "digit alone",
    "voice alone",
    "digit, voice",
    *(k for k in RUNS if k.startswith("digit against")),
}


def measure(
    name: str, model, data: dict, seconds: float
) -> tuple:  # figures, hits on test data
    hits = {split: right(model, data[split]) for split in ("valid", "test")}
    row = {
        split: {t: h.double().mean().item() for t, h in found.items()}
        for split, found in hits.items()
    } | {"seconds": round(seconds, 1)}
    if name in PROBED:
        known = lambda split: (
            data[split]["known"][0],
            data[split]["known"][1]["voice"],
        )
        row["probe"] = {
            split: probe(
                model, (data["train"][0], data["train"][1]["voice"]), known(split)
            )
            for split in ("valid", "test")
        }
    if hasattr(model, "seen"):
        row["conflict"] = model.seen
    if isinstance(getattr(model, "balance", None), Uncertainty):
        row["weights"] = model.balance.weights()
    return row, hits["test"]


def write(about: dict, runs: dict, right_of: dict):
    "One line a run."
    lines = lambda d: (
        "{\n"
        + ",\n".join(
            f"{json.dumps(k, ensure_ascii=False)}: {json.dumps(d[k])}"
            for k in RUNS
            if k in d
        )
        + "\n}"
    )
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(
        f'{{"about": {json.dumps(about)},\n"runs": {lines(runs)},\n"right": {lines(right_of)}}}\n',
        encoding="utf-8",
    )


def main(only: list):
    torch.set_num_threads(1)
    old = (
        json.loads(FILE.read_text(encoding="utf-8"))
        if only
        else {"about": {"seconds": 0}, "runs": {}, "right": {}}
    )
    data, start = spoken_tasks(), time.process_time()
    wanted = {
        name: run
        for name, run in RUNS.items()
        if not only or any(w in name for w in only)
    }
    runs, counts = {name: [] for name in wanted}, {}
    for seed in range(SEEDS):
        for name, run in wanted.items():
            began = time.process_time()
            model = run(seed, data)
            row, hits = measure(name, model, data, time.process_time() - began)
            runs[name].append(row)
            for t, h in hits.items():
                counts.setdefault(name, {}).setdefault(t, np.zeros(len(h), int))
                counts[name][t] += h.numpy()
            print(
                seed,
                f"{name:32}",
                {
                    k: {t: f"{100 * a:.1f}" for t, a in row[k].items()}
                    for k in ("valid", "test")
                },
                f"{row['seconds']} s",
                flush=True,
            )
    about = {
        "command": "python data/make_multitask.py",
        "seeds": SEEDS,
        "epochs": EPOCHS,
        "few": FEW,
        "seconds": round(old["about"]["seconds"] + time.process_time() - start),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "tasks": list(TASKS),
    }
    right_of = {
        name: {t: "".join(map(str, c)) for t, c in of.items()}
        for name, of in counts.items()
    }  # of each test clip: how many seeds were right
    write(about, old["runs"] | runs, old["right"] | right_of)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[], help="words in the names of the runs to train"
    )
    main(parser.parse_args().only)
