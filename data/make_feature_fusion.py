"""The measurements of chapter 16: seven fusions, with and without gaps in training.

    python data/make_feature_fusion.py     # writes data/results/feature_fusion.json

Arms are named task/fusion/…/seed. `digits`: the 8×8 digits in three views, trained
plainly or with modality dropout, on five splits; `masked` holds accuracy with all views
and without each, `others`, `guess` and `mean` the same with the gap filled by views of
other digits, by a ridge regression on what is left, or by the mean view.
`digits/machines` is a support vector machine for each set of views; `digits/wide` is a
plain concatenation 2,570 wide, with as many weights as the tensor. `three`: the fusions
on 1,000 examples of three_views, for 8 and for 40 epochs; `three/late` trains the same
three networks one by one, and multiplies their probabilities as they are.
Settings were chosen on validation data; all figures here are on test data.
"""

from functools import partial

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.svm import SVC
from study import Study
from torch import nn

from mmcourse.classifiers import AudioNet, ImageNet28, TextNet
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.decision_fusion import fuse_product
from mmcourse.feature_fusion import (
    FUSIONS,
    ROWS,
    FusionClassifier,
    digit_views,
    train_digits,
    without_each,
)
from mmcourse.measure import seeded
from mmcourse.pipeline import load_features
from mmcourse.project import answers, train_model
from mmcourse.training import accuracy, count_parameters, fit, predict, warmup_cosine

OPTIONS = {"mlp": {"hidden": 1900}, "wide": {"width": 2570}}  # as the tensor has
PLAIN = "concat", "mlp", "low-rank", "tensor"


def filled(model, data, how: str) -> dict:
    "Accuracy without each view, the gap filled instead of masked."
    (x, mask), y = data["test"]
    train = data["train"][0][0]
    found = {}
    for gone in ROWS:
        rest = [m for m in ROWS if m != gone]
        if how == "guess":
            known, left = [torch.cat([v[m] for m in rest], 1) for v in (train, x)]
            guess = Ridge(1.0).fit(known.numpy(), train[gone].numpy())
            fillings = [torch.tensor(guess.predict(left.numpy()), dtype=torch.float32)]
        elif how == "mean":
            fillings = [train[gone].mean(0).expand(len(y), -1)]
        else:
            g = torch.Generator().manual_seed(0)
            fillings = [
                train[gone][torch.randint(len(train[gone]), (len(y),), generator=g)]
                for _ in range(50)
            ]
        said = [predict(model, (x | {gone: f}, mask)).softmax(1) for f in fillings]
        right = torch.stack(said).mean(0).argmax(1) == y
        found[gone] = round(right.float().mean().item(), 5)
    return found


def digits(name: str, p: float, seed: int) -> dict:
    data = digit_views(seed)
    options = OPTIONS.get(name, {})
    fusion = FUSIONS["concat" if name == "wide" else name]
    model = train_digits(data, fusion, p=p, seed=seed, **options)
    masked = {k: round(v, 5) for k, v in without_each(model, data["test"]).items()}
    found = {"weights": count_parameters(model), "masked": masked}
    if not p:
        found |= {how: filled(model, data, how) for how in ("others", "guess", "mean")}
    return found


def machines(seed: int) -> dict:
    data = digit_views(seed)
    (x, _), y = data["train"]
    (x_test, _), y_test = data["test"]
    found = {}
    for gone in ("all", *ROWS):
        rest = [m for m in ROWS if m != gone]
        a, b = [torch.cat([v[m] for m in rest], 1).numpy() for v in (x, x_test)]
        machine = SVC(C=10, gamma=9.6 / a.shape[1]).fit(a, y)
        found[gone] = round(machine.score(b, y_test), 5)
    return {"masked": found}


def three_net(n_grams: int, fusion, d: int = 32, width: int = 64) -> FusionClassifier:
    "The networks of chapter 12 to `d` features each, a fusion, ten logits."
    encoders = {"text": TextNet(n_grams), "image": ImageNet28(), "audio": AudioNet()}
    for net in encoders.values():
        last = net.body if isinstance(net, ImageNet28) else net.head
        last[-1] = nn.Linear(last[-1].in_features, d)
    head = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 10))
    return FusionClassifier(encoders, fusion(dict.fromkeys(encoders, d), width), head)


def three(data: dict, name: str, epochs: int, seed: int) -> dict:
    train = data["train"]
    if name not in FUSIONS:
        from mmcourse.project import concat_inputs, train_concat_model

        parts = {
            s: tuple(v["features"][m] for m in MODALITIES) for s, v in data.items()
        }
        keras = train_concat_model(
            parts["train"], train["label"], seed=seed, epochs=epochs
        )
        found = {"weights": keras.count_params()}
        for s in ("valid", "test"):
            x = concat_inputs(parts[s])
            said = keras.predict(x, batch_size=500, verbose=0).argmax(1)
            found[s] = round(float(np.mean(said == data[s]["label"].numpy())), 5)
        return found
    with seeded(seed):
        model = three_net(int(train["features"]["text"].max()), FUSIONS[name])
    pairs = {s: ((v["features"], v["mask"]), v["label"]) for s, v in data.items()}
    options = {"lr": 4e-3, "weight_decay": 0.05, "schedule": warmup_cosine}
    fit(model, pairs["train"], epochs=epochs, seed=seed, **options)
    found = {s: round(accuracy(model, pairs[s]), 5) for s in ("valid", "test")}
    return found | {"weights": count_parameters(model)}


def late(data: dict, epochs: int, seed: int) -> dict:
    "Three classifiers, each trained alone, and the product of their probabilities."
    x, y = data["train"]["features"].values(), data["train"]["label"]
    models = train_model(*x, y, seed=seed, epochs=epochs)
    found = {"weights": sum(map(count_parameters, models))}
    for s in ("valid", "test"):
        said = fuse_product(answers(models, data[s])).argmax(1)
        found[s] = round(float(np.mean(said == data[s]["label"].numpy())), 5)
    return found


def main():
    study = Study("feature_fusion", __doc__, p=0.5, epochs=80)
    for how, p in (("dropout", 0.5), ("plain", 0.0)):
        for name in (*FUSIONS, "wide") if p else PLAIN:
            for seed in study.seeds(5):

                def run(name=name, p=p, seed=seed):
                    return digits(name, p, seed)

                study(f"digits/{name}/{how}/{seed}", run, seed)
    for seed in study.seeds(5):
        study(f"digits/machines/{seed}", lambda seed=seed: machines(seed), seed)
    data = load_features(three_views, 1000)
    for epochs in (8, 40):
        for name in (*FUSIONS, "the article’s, in Keras"):
            for seed in study.seeds(3):

                def run(name=name, epochs=epochs, seed=seed):
                    return three(data, name, epochs, seed)

                study(f"three/{name}/{epochs}/{seed}", run, seed)
        for seed in study.seeds(3):
            study(
                f"three/late/{epochs}/{seed}", partial(late, data, epochs, seed), seed
            )


if __name__ == "__main__":
    main()
