"""Train the six fusions of chapter 16 on the digits cut into three views, and write how each does with all of them and without one.

    python data/make_feature_fusion.py           # writes data/results/feature_fusion.json; a quarter of an hour on one core
    python data/make_feature_fusion.py --again   # measures again what the file has already

Settings were chosen on validation data: a fifth of the training data, never the test data. Both tables are in the file.
"""

import argparse
import json
import platform
import sys
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
import sklearn
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from mmcourse.feature_fusion import (
    FUSIONS,
    TensorFusion,
    concat_inputs,
    digit_views,
    load_three,
    train_concat_model,
    train_digits,
    train_three,
    view_inputs,
    without_each,
)
from mmcourse.training import accuracy, count_parameters

FILE, P, EPOCHS = ROOT / "data" / "results" / "feature_fusion.json", 0.5, 80


def measure(
    fusion: type, seeds, part: str, p: float = P
) -> dict:  # one list over seeds for each condition
    "Accuracy with all views and without each, seed by seed."
    start, scores = time.process_time(), []
    for seed in seeds:
        train, held = digit_views(seed, part)
        model = train_digits(train, fusion, p=p, epochs=EPOCHS, seed=seed)
        scores.append(without_each(model, held))
        print(
            f"  seed {seed}: "
            + ", ".join(
                f"{'all' if k is None else f'without {k}'} {100 * v:.1f}"
                for k, v in scores[-1].items()
            ),
            flush=True,
        )
    return {
        "accuracy": _lists(scores),
        "parameters": count_parameters(model),
        "seconds": round((time.process_time() - start) / len(scores), 1),
    }


def _lists(scores):
    return {
        "all" if gone is None else gone: [round(s[gone], 6) for s in scores]
        for gone in scores[0]
    }


def vectors(
    seeds,
) -> dict:  # a reference: a support vector machine for each set of views, trained on that set alone
    from sklearn.svm import SVC

    scores = []
    for seed in seeds:
        ((x, mask), y), ((x_test, _), y_test) = digit_views(seed)
        join = lambda v, gone: torch.cat(
            [t for m, t in v.items() if m != gone], 1
        ).numpy()
        scores.append(
            {
                gone: SVC(C=10, gamma=9.6 / join(x, gone).shape[1])
                .fit(join(x, gone), y)
                .score(join(x_test, gone), y_test)
                for gone in (None, *mask)
            }
        )
    return {"accuracy": _lists(scores)}


def three(
    fusion: type, data: dict
) -> dict:  # 'valid', 'test': accuracies of three seeds; 'parameters', 'seconds'
    "A fusion on `three_views`."

    def run(seed):
        model = train_three(*data["train"], fusion, seed=seed)
        return count_parameters(model), [
            accuracy(model, (view_inputs(data[s][0]), data[s][1]))
            for s in ("valid", "test")
        ]

    return _over_three(run)


def three_keras(data: dict) -> dict:
    "The article's Keras model on `three_views`."

    def run(seed):
        model = train_concat_model(*data["train"], seed=seed)
        right = lambda x, y: float(
            (
                model.predict(concat_inputs(x), batch_size=500, verbose=0).argmax(1)
                == y.numpy()
            ).mean()
        )
        return model.count_params(), [right(*data[s]) for s in ("valid", "test")]

    return _over_three(run)


def _over_three(run):
    start = time.process_time()
    found = [run(seed) for seed in range(3)]
    valid, test = zip(*[[round(a, 6) for a in scores] for _, scores in found])
    return {
        "parameters": found[0][0],
        "valid": valid,
        "test": test,
        "seconds": round((time.process_time() - start) / 3, 1),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--again", action="store_true", help="measure again what the file has already"
    )
    torch.set_num_threads(1)
    done = (
        json.loads(FILE.read_text())
        if FILE.exists() and not parser.parse_args().again
        else {}
    )
    done["about"] = {
        "command": "python data/make_feature_fusion.py",
        "p": P,
        "epochs": EPOCHS,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "sklearn": sklearn.__version__,
    }
    views = cache(load_three)
    tasks = {
        ("test", "tensor"): lambda: measure(TensorFusion, range(5), "test"),
        ("test", "concat"): lambda: measure(FUSIONS["concat"], range(5), "test"),
        ("test", "tensor, trained plainly"): lambda: measure(
            TensorFusion, range(5), "test", p=0.0
        ),
        ("test", "a machine for each set"): lambda: vectors(range(5)),
    }
    tasks |= {
        ("valid", name): partial(measure, fusion, range(3), "valid")
        for name, fusion in FUSIONS.items()
    }
    tasks |= {
        ("test", "concat, trained plainly"): lambda: measure(
            FUSIONS["concat"], range(5), "test", p=0.0
        )
    }
    tasks |= {
        ("three_views", name): (lambda fusion=fusion: three(fusion, views()))
        for name, fusion in FUSIONS.items()
    }
    tasks |= {("three_views", "the article’s, in Keras"): lambda: three_keras(views())}
    tasks |= {
        ("test", name): partial(measure, fusion, range(5), "test")
        for name, fusion in FUSIONS.items()
        if name not in ("tensor", "concat")
    }
    for (part, name), task in tasks.items():
        if name in done.setdefault(part, {}):
            continue
        done[part][name] = task()
        print(f"{part} {name}: {done[part][name]}", flush=True)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(
            json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
