"""What changes of training pictures bring, and how photos are read: chapter 03.

    python data/make_image.py           # writes data/results/image.json

Twenty digits of each class, a small convolutional network, 1,000 test digits. A seed
draws the digits and the network's first weights. Nothing is chosen by the results.
"""

import numpy as np
import torch
from study import Study

from mmcourse.datasets import mnist
from mmcourse.image import (
    AUGMENTATIONS,
    as_mnist,
    augment_image,
    photographed,
    preprocess_image,
    resize,
    small_cnn,
)
from mmcourse.measure import seeded
from mmcourse.pictures import load_grey
from mmcourse.training import cosine, fit, predict

EPOCHS = 40, 200
TRAIN, TEST = mnist("train"), mnist("test")


def few(seed, n=20):  # rows of the training split, n of each class
    rng = np.random.default_rng(seed)
    of = [np.flatnonzero(TRAIN["label"] == d) for d in range(10)]
    return np.concatenate([rng.choice(found, n, replace=False) for found in of])


def trained(images, labels, augment, seed, epochs):
    x, y = torch.tensor(np.stack(images)).float()[:, None], torch.tensor(labels)
    with seeded(seed):
        model = small_cnn()
    how = {"batch_size": 50, "lr": 3e-3, "schedule": cosine, "augment": augment}
    fit(model, (x, y), epochs=epochs, seed=seed, **how)
    return model


def right(model, images):  # (N,) bool
    x = torch.tensor(np.stack(images)).float()[:, None]
    return predict(model, x).argmax(1).numpy() == TEST["label"]


def one_change(augment, seed, epochs):
    rows = few(seed)
    images, labels = TRAIN["image"][rows], TRAIN["label"][rows]
    hits = right(trained(images, labels, augment, seed, epochs), TEST["image"])
    digits = [float(hits[TEST["label"] == d].mean()) for d in range(10)]
    return {"right": float(hits.mean()), "digits": digits}


def shrunk(photo):  # resized, and light on dark
    return as_mnist(resize(load_grey(photo), (28, 28)))


def photos(digits, seed):
    rng = np.random.default_rng(seed)
    return [photographed(d, rng) for d in digits]


def lessons(what, seed):  # images, labels, epochs; photos resized, light on dark
    rows = few(seed) if "200" in what else np.arange(len(TRAIN["label"]))
    digits, labels = TRAIN["image"][rows], TRAIN["label"][rows]
    if "photos" not in what:
        return digits, labels, 200 if "200" in what else 30
    times = 20 if "200" in what else 1
    taken = photos(np.repeat(digits, times, 0), 1000 + seed)
    epochs = 100 if "100 epochs" in what else 30
    return list(map(shrunk, taken)), np.repeat(labels, times), epochs


def reading(what, seed, forms):
    "The share of test digits that is read rightly in each form."
    images, labels, epochs = lessons(what, seed)
    model = trained(images, labels, augment_image, seed, epochs)
    shares = {form: right(model, pictures).mean() for form, pictures in forms.items()}
    return {form: float(share) for form, share in shares.items()}


LESSONS = (
    "200 digits",
    "photos of 200 digits",
    "3,500 digits",
    "photos of 3,500 digits",
    "photos of 3,500 digits, 100 epochs",
)


def main():
    study = Study("image", __doc__, epochs=EPOCHS, lessons=LESSONS)
    for seed in study.seeds(5):
        for epochs in EPOCHS:
            for name, change in {"none": None, **AUGMENTATIONS}.items():
                study(
                    f"{name}/{epochs}/{seed}",
                    lambda f=change, s=seed, e=epochs: one_change(f, s, e),
                )
    taken = photos(TEST["image"], 0)
    forms = {
        "photo, resized": [resize(load_grey(p), (28, 28)) for p in taken],
        "photo, resized, light on dark": list(map(shrunk, taken)),
        "photo, preprocessed": preprocess_image(taken),
        "the digit itself": TEST["image"],
    }
    for seed in study.seeds(5):
        for what in LESSONS:
            study(
                f"{what}/{seed}", lambda w=what, s=seed: reading(w, s, forms), seed=seed
            )


if __name__ == "__main__":
    main()
