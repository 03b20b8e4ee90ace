"""The longer comparisons of chapter 15: training, data for stacking, predictions.

    python data/make_decision_fusion.py     # writes data/results/decision_fusion.json

Experts of the three views of 1,500 digits, as in the chapter. Arms:

epochs/E/seed      experts trained for 6, 20 and 60 epochs, fusions learnt from the 500
                   digits of validation; for each fusion a 1 for each right answer on
                   the 1,000 digits of test
stacking/n/seed    experts of 6 epochs; pool and stacking fitted on n digits drawn from
                   the pictures, voices and sentences of validation; test as above
foretold/n         nine experts (three seeds of each view): the accuracy of each average
                   of two or three of them, foretold from n digits of validation; root
                   mean square error in shares, over all averages and, for n = 100, over
                   ten draws of the n digits
"""

from functools import cache
from itertools import combinations

import numpy as np
from study import Study

from mmcourse.classifiers import (
    train_audio_classifier,
    train_image_classifier,
    train_text_classifier,
)
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.decision_fusion import (
    ARTICLE,
    effective_number,
    fuse_product,
    fuse_weighted,
    learn_pool,
    learn_powers,
    learn_weights,
    stack,
    temper,
    truth_correlation,
)
from mmcourse.opinions import shuffle_within
from mmcourse.pipeline import extract_features, load_features, preprocess_data

views = load_features(three_views, 1500)
labels = {split: view["label"].numpy() for split, view in views.items()}
TRAIN = dict(
    zip(
        MODALITIES,
        (train_text_classifier, train_image_classifier, train_audio_classifier),
    )
)


@cache
def more_digits(n: int = 2000):  # features and labels
    raw = three_views("valid", n)
    data = preprocess_data(raw, views["train"]["stats"])
    return dict(zip(MODALITIES, extract_features(data))), np.asarray(raw["label"])


@cache
def experts(seed: int, epochs: int = 6):
    x = views["train"]["features"]
    return {
        m: train(x[m], labels["train"], seed=seed, epochs=epochs)
        for m, train in TRAIN.items()
    }


def ask(models, features):
    return {m: model.predict_proba(features[m]) for m, model in models.items()}


def bits(p) -> str:
    return "".join("01"[int(h)] for h in p.argmax(1) == labels["test"])


def by_epochs(seed: int, epochs: int) -> dict:
    models, y = experts(seed, epochs), labels["valid"]
    v = ask(models, views["valid"]["features"])
    t = ask(models, views["test"]["features"])
    powers = learn_powers(v, y)
    fused = {f"{m} alone": t[m] for m in MODALITIES} | {
        "average, 0.3/0.5/0.2": fuse_weighted(t, ARTICLE),
        "average, all alike": fuse_weighted(t),
        "average, learnt weights": fuse_weighted(t, learn_weights(v, y)),
        "average of calibrated": fuse_weighted(temper(t, powers)),
        "product": fuse_product(t),
        "product of calibrated": fuse_product(t, powers),
        "learnt pool": fuse_product(t, learn_pool(v, y)),
        "stacking": stack(v, y)(t),
    }
    return {name: bits(p) for name, p in fused.items()}


def by_digits(seed: int, n: int) -> dict:
    models, (x, y) = experts(seed), more_digits()
    v = ask(models, {m: f[:n] for m, f in x.items()})
    t = ask(models, views["test"]["features"])
    return {
        "stacking": bits(stack(v, y[:n])(t)),
        "learnt pool": bits(fuse_product(t, learn_pool(v, y[:n]))),
    }


def predict_accuracy(p, y, rng, repeats: int = 10) -> tuple[float, float]:
    "Of an average, as if its members were unrelated and from their correlation."
    M = len(p)
    curve = np.zeros(M)
    for _ in range(repeats):
        mixed = shuffle_within(p[rng.permutation(M)], y, rng).cumsum(0)
        curve += (mixed.argmax(2) == y).mean(1) / repeats
    curve[0] = (p.argmax(2) == y).mean()
    n = effective_number(truth_correlation(p, y))
    return curve[-1], float(np.interp(n, range(1, M + 1), curve))


def foretold(n: int) -> dict:
    nine = {}
    for split in ("valid", "test"):
        said = [ask(experts(s), views[split]["features"]) for s in range(3)]
        nine[split] = np.stack([s[m] for m in MODALITIES for s in said])
    sets = [list(s) for M in (2, 3) for s in combinations(range(9), M)]
    rng, off = np.random.default_rng(0), []
    for _ in range(10 if n < 500 else 1):
        rows = rng.permutation(500)[:n]
        p, y = nine["valid"][:, rows], labels["valid"][rows]
        for s in sets:
            measured = (nine["test"][s].mean(0).argmax(1) == labels["test"]).mean()
            guesses = (
                *predict_accuracy(p[s], y, rng),
                (p[s].mean(0).argmax(1) == y).mean(),
            )
            off.append([g - measured for g in guesses])
    names = "as if unrelated", "from the correlation", "its validation accuracy"
    rms = np.sqrt(np.mean(np.square(off), 0))
    return dict(zip(names, rms.round(5).tolist()))


def main():
    study = Study("decision_fusion", __doc__, about="chapter 15")
    for seed in study.seeds(3):
        for epochs in (6, 20, 60):
            study(f"epochs/{epochs}/{seed}", lambda s=seed, e=epochs: by_epochs(s, e))
    for seed in study.seeds(5):
        for n in (125, 250, 500, 1000, 2000):
            study(f"stacking/{n}/{seed}", lambda s=seed, n=n: by_digits(s, n))
    for n in (100, 500):
        study(f"foretold/{n}", lambda n=n: foretold(n))


if __name__ == "__main__":
    main()
