"""Train every model of chapter 18 over five seeds (of three joint models: three seeds); write the tables and the weights that the notebook shows.

    python data/make_missing.py            # data/results/missing.json and data/missing.safetensors; eleven minutes of processor time on one core
    python data/make_missing.py --seeds 1  # one seed, to see that it runs

All choices were made on the validation split; the test split is evaluated by the same run, for the record.
"""

import argparse
import json
import math
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mmcourse.checkpoint import write_tensors
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.feature_fusion import GatedFusion
from mmcourse.missing import (
    DEFAULT,
    IMAGE_NOISE,
    SNR_DB,
    _features,
    _small,
    confidence,
    gate_data,
    held_voices,
    joint_grid,
    load_results,
    noise_grid,
    noisy_copies,
    one_copy,
    opinions,
    over_best,
    pool_grid,
    train_expert,
    train_gate,
    train_joint,
    trust_grid,
)
from mmcourse.pipeline import preprocess_data
from mmcourse.training import evaluating

HERE = Path(__file__).parent
COPIES, PLAIN_EPOCHS, NOISY_EPOCHS, REPAIRED_SEEDS = 10, 8, 16, 3


def load() -> tuple:  # training data of the experts and of the gate, grids, statistics
    "Everything that does not depend on a seed."
    raw, clean = (
        three_views("train", 3500),
        three_views("train", 3500, image_noise=0, snr_db=math.inf),
    )
    held, parts = held_voices(raw["voice"]), {}
    pick = lambda d, rows: {
        k: [t for t, r in zip(d[k], rows) if r] if k == "text" else d[k][rows]
        for k in ("text", "image", "audio", "length")
    }
    stats = preprocess_data(pick(raw, ~held))[
        "stats"
    ]  # the gate's examples have no part in it
    for name, rows in (("experts", ~held), ("gate", held)):
        features = _features(pick(raw, rows), stats)
        copies = noisy_copies(pick(clean, rows), stats, COPIES, seed=int(rows is held))
        parts[name] = {
            "plain": features,
            "noisy": {
                "text": features["text"],
                "image": copies["image"],
                "audio": copies["audio"],
            },
            "label": torch.tensor(raw["label"][rows]),
        }
    return (
        parts,
        {split: noise_grid(split, 1000, stats) for split in ("valid", "test")},
        stats,
    )


def confident_grid(gate, says) -> dict:  # {modality: (levels, N)}
    "Trust from the experts' own confidence."
    with evaluating(gate):
        return {
            m: torch.stack([gate.trust(confidence({m: s}))[m] for s in says[m]])
            for m in says
        }


def one_seed(
    seed: int, parts: dict, grids: dict, n_grams: int, say
) -> tuple:  # {split: {model: {subset: accuracies}}}, tensors, seconds
    "Train and measure everything of one seed."
    d, y, tensors, seconds, models = (
        parts["experts"],
        parts["experts"]["label"],
        {},
        {},
        {},
    )

    def timed(name, make):
        start = time.process_time()
        made = make()
        seconds[name] = round(time.process_time() - start, 1)
        say(f"seed {seed}: {name} {seconds[name]} s")
        return made

    text = timed(
        "text",
        lambda: train_expert(
            "text", d["plain"]["text"], y, seed=seed, epochs=PLAIN_EPOCHS
        ),
    )
    experts = {"plain": {"text": text}, "noisy": {"text": text}}
    for m in ("image", "audio"):
        experts["plain"][m] = timed(
            f"plain {m}",
            lambda: train_expert(m, d["plain"][m], y, seed=seed, epochs=PLAIN_EPOCHS),
        )
        experts["noisy"][m] = timed(
            f"noisy {m}",
            lambda: train_expert(
                m, d["noisy"][m], y, seed=seed, epochs=NOISY_EPOCHS, augment=one_copy
            ),
        )
    K, gates = d["noisy"]["image"].shape[1], {}
    for kind in experts:
        measured, said = gate_data(experts[kind], parts["gate"]["noisy"])
        label = parts["gate"]["label"].repeat_interleave(K)
        gates[kind] = timed(
            f"gate of {kind}", lambda: train_gate(measured, said, label, seed=seed)
        )
        gates[f"{kind}, confidence"] = train_gate(
            confidence(said), said, label, seed=seed
        )
    joints = {
        "concatenation": {},
        "gated fusion": {"fusion": GatedFusion},
        "concatenation, dropout": {"dropout": 0.5},
        "concatenation, dropout and noise": {
            "dropout": 0.5,
            "noise": True,
            "epochs": NOISY_EPOCHS,
        },
    }
    for name, how in joints.items():
        if seed >= REPAIRED_SEEDS and how:
            continue  # the other joint models are there for comparison
        models[name] = timed(
            name,
            lambda: train_joint(
                d["noisy" if how.get("noise") else "plain"],
                y,
                n_grams,
                seed=seed,
                **{"epochs": PLAIN_EPOCHS} | how,
            ),
        )
    results = {}
    for split, grid in grids.items():
        table = {name: joint_grid(model, grid) for name, model in models.items()}
        for kind, e in experts.items():
            says = opinions(e, grid)
            table |= {
                f"{kind} product": pool_grid(says, grid["label"]),
                f"{kind} gate": pool_grid(
                    says, grid["label"], trust_grid(gates[kind], grid, says)
                ),
                f"{kind} gate on confidence": pool_grid(
                    says,
                    grid["label"],
                    confident_grid(gates[f"{kind}, confidence"], says),
                ),
            }
        results[split] = table
    keep = (
        {"text": text}
        | {f"noisy.{m}": experts["noisy"][m] for m in ("image", "audio")}
        | {"gate": gates["noisy"]}
    )
    if seed == 0:
        keep |= {f"plain.{m}": experts["plain"][m] for m in ("image", "audio")} | {
            "joint": models["concatenation"]
        }
    for name, model in keep.items():
        state = {f"{seed}.{name}.{k}": v for k, v in model.state_dict().items()}
        tensors |= state if name == "gate" else _small(state)
    return results, tensors, seconds


def write(
    out: Path,
    runs: list,
    tensors: dict,
    seconds: list,
    about: dict,
    stats: dict,
    took: float,
):
    "Both files, for the seeds that are done."
    about = about | {"seeds": list(range(len(runs))), "seconds": round(took)}
    write_tensors(out / "missing.safetensors", tensors, about | {"stats": stats})
    pack = lambda acc: {
        "+".join(s): [[round(float(v), 4) for v in row] for row in a]
        for s, a in acc.items()
    }
    body = about | {
        "image_noise": list(IMAGE_NOISE),
        "snr_db": [str(s) if s == math.inf else s for s in SNR_DB],
        "model seconds": {
            k: round(float(np.mean([t[k] for t in seconds if k in t])), 1)
            for k in seconds[0]
        },
        "accuracy": {
            split: {
                name: [pack(r[split][name]) for r in runs if name in r[split]]
                for name in runs[0][split]
            }
            for split in runs[0]
        },
    }
    (out / "results").mkdir(exist_ok=True)
    (out / "results" / "missing.json").write_text(
        json.dumps(body, separators=(",", ":")) + "\n"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, say = (
        time.process_time(),
        lambda t: print(f"{time.process_time() - start:6.0f} s  {t}", flush=True),
    )
    parts, grids, stats = load()
    say(
        f"{len(parts['experts']['label'])} examples for the experts, {len(parts['gate']['label'])} for the gate, {len(stats['grams'])} grams"
    )
    runs, tensors, seconds = [], {}, []
    about = {
        "command": "python data/make_missing.py",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "examples": {k: len(v["label"]) for k, v in parts.items()},
        "copies": COPIES,
        "epochs": {"plain": PLAIN_EPOCHS, "noisy": NOISY_EPOCHS},
    }
    for seed in range(args.seeds):
        results, more, took = one_seed(seed, parts, grids, len(stats["grams"]), say)
        runs.append(results)
        tensors |= more
        seconds.append(took)
        write(
            args.out, runs, tensors, seconds, about, stats, time.process_time() - start
        )
    for split in grids:
        table = load_results(split, args.out / "results" / "missing.json")
        for name, fused in table.items():
            margin = over_best(fused, table["plain product"], table["noisy product"])
            say(
                f"{split}: {name}: lowest margin {min(m.min() for m in margin.values()):.1f}, at the default {margin[MODALITIES][DEFAULT]:+.1f}, "
                f"mean accuracy {100 * np.mean([torch.stack([a for s, a in f.items() if len(s) > 1]).mean() for f in fused]):.1f}"
            )


if __name__ == "__main__":
    main()
