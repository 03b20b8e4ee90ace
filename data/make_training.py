"""The longer trainings of chapter 06, and its leak.

    python data/make_training.py      # writes data/results/training.json

All train the chapter's network on its training digits. Arms end in a seed:

rate/epochs/lr                  at a constant learning rate
schedule/kind/epochs/lr         at a constant rate, or with a climb and half a cosine
stop/kind                       for ten epochs, stopped early, or with a falling rate
shift/kind/epochs               on the digits as they are, or shifted anew each time

`rate` and `schedule` keep the accuracy on validation digits after the last epoch; the
others what they make of the test digits: `hits`, 1 for each that is right, `nll`, the
mean surprise, and `epochs`, how many were run.

clean, again and leaky are the leak: the hidden layer of a network that was trained on
labels extracts the features, and a linear layer on top of it is the classifier. The
test digits are cut into halves A and B; results are accuracies on A and on B. Fitted

clean   on training digits
again   on training digits, and anew on test digits for these
leaky   on training digits and on half A
"""

from functools import partial

import torch
from study import Study
from torch import nn

from mmcourse.datasets import mnist
from mmcourse.measure import hits, nll, seeded
from mmcourse.training import (
    accuracy,
    fit,
    jitter,
    mlp,
    predict,
    take,
    warmup_cosine,
)

USUAL = {"lr": 0.01, "batch_size": 100, "schedule": warmup_cosine}
RATES = 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1
KINDS = {"constant": None, "climb and cosine": warmup_cosine}
STOPS = {
    "constant rate": {},
    "stopped early": {"patience": 2, "keep_best": True},
    "falling rate": {"schedule": warmup_cosine},
}
SHIFTS = {"plain": None, "shifted": jitter}


def load(split):
    d = mnist(split)
    return torch.tensor(d["image"]), torch.tensor(d["label"])


def trained(seed, **choices):
    model = mlp()
    options = {"batch_size": 100, "seed": seed} | choices
    return model, fit(model, load("train"), load("valid"), **options)


def validated(seed, **choices):
    return round(trained(seed, **choices)[1].valid_accuracy[-1], 5)


def tested(seed, **choices):
    model, history = trained(seed, **choices)
    images, labels = load("test")
    logits = predict(model, images)
    right = "".join("01"[int(h)] for h in hits(logits, labels))
    surprise = round(nll(logits, labels), 5)
    return {"nll": surprise, "epochs": len(history), "hits": right}


def trainings():
    "Name of an arm -> (seed -> result), and how many seeds it has."
    for epochs in (2, 10):
        for lr in RATES:
            run = partial(validated, lr=lr, epochs=epochs)
            yield f"rate/{epochs}/{lr}", run, 3
    for epochs in (5, 15):
        for lr in (0.01, 0.05):
            for kind, f in KINDS.items():
                run = partial(validated, lr=lr, epochs=epochs, schedule=f)
                yield f"schedule/{kind}/{epochs}/{lr}", run, 5
    for kind, more in STOPS.items():
        yield f"stop/{kind}", partial(tested, lr=0.03, epochs=10, **more), 5
    for epochs in (10, 30):
        for kind, augment in SHIFTS.items():
            run = partial(tested, **USUAL, epochs=epochs, augment=augment)
            yield f"shift/{kind}/{epochs}", run, 3


def extractor(data, seed):
    with seeded(seed):
        net = mlp()
    fit(net, data, epochs=10, seed=seed, **USUAL)
    return lambda x: predict(net[:3], x)  # (N, 64) hidden layer


def judged(data, halves, seed, features, features_of_test):
    images, labels = data
    with seeded(seed):
        top = nn.Linear(64, 10)
    fit(top, (features(images), labels), epochs=5, seed=seed, **USUAL)
    return [round(accuracy(top, (features_of_test(x), y)), 4) for x, y in halves]


def run(kind, seed):
    train, test = load("train"), load("test")
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    halves = [take(test, rows) for rows in order.split(500)]
    data = train
    if kind == "leaky":
        data = tuple(map(torch.cat, zip(train, halves[0])))
    fitted = extractor(data, seed)
    of_test = extractor(test, seed + 100) if kind == "again" else fitted
    return judged(train, halves, seed, fitted, of_test)


if __name__ == "__main__":
    study = Study("training", __doc__)
    for kind in ("clean", "again", "leaky"):
        for seed in study.seeds(5):
            study(f"{kind}/{seed}", partial(run, kind, seed), seed)
    for arm, train_and_test, n in trainings():
        for seed in study.seeds(n):
            study(f"{arm}/{seed}", partial(train_and_test, seed), seed)
