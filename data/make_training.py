"""Chapter 06's leak: a feature extractor that is fitted on labels.

    python data/make_training.py      # writes data/results/training.json

The hidden layer of a network that was trained on labels extracts the features, and a
linear layer on top of it is the classifier. The test digits are cut into halves A and
B. Arms are named extractor/seed, results are accuracies on A and on B. Extractors:

clean   fitted on training digits
again   fitted on training digits, and anew on test digits for these
leaky   fitted on training digits and on half A
"""

from functools import partial

import torch
from study import Study
from torch import nn

from mmcourse.datasets import mnist
from mmcourse.measure import seeded
from mmcourse.training import accuracy, fit, mlp, predict, take, warmup_cosine

USUAL = {"lr": 0.01, "batch_size": 100, "schedule": warmup_cosine}


def load(split):
    d = mnist(split)
    return torch.tensor(d["image"]), torch.tensor(d["label"])


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
