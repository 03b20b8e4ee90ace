"""The longer comparisons of chapter 12: one thing changed at a time.

    python data/make_classifier_study.py  # writes data/results/classifier_study.json

Arms are named group/…/seed. `article`: features of a hint as the article's 5.2.2 makes
them, and with one thing changed; one matrix reads them. `defaults`: the image net in
torch and in Keras, each of Keras's defaults put back by itself, 700 pictures. `long`:
the same network on the same examples, for a short and a long time, with and without
augmentation. `slt`: the audio net trained with one more voice. Accuracies on test data.
"""

from collections import Counter
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from study import Study

from mmcourse.audio import augment_audio
from mmcourse.classifiers import (
    ImageNet28,
    keras_image_net,
    softmax_regression,
    train_audio_classifier,
    train_image_classifier,
)
from mmcourse.datasets import SPLITS, hints, mnist, spoken_digits
from mmcourse.image import augment_image
from mmcourse.keras_weights import keras_on_torch
from mmcourse.pipeline import load_features
from mmcourse.shipped import WideVoiceNet

LENGTH = 100  # the article's max_len: of a sentence, and of the vocabulary
FESTIVAL, FLITE = "festival/cmu_us_slt_arctic_hts", "flite/slt"
EXTRA = {
    "nobody": None,
    "slt of flite": FLITE,
    "slt of festival": FESTIVAL,
    "pc of festival": "festival/pc_diphone",
    "machac of festival": "festival/czech_machac",
}


def as_keras_draws(inputs: int) -> dict:  # arguments of a layer: none
    return {}


DEFAULTS = {
    "torch's four": {},
    "padding": {"padding": "same"},
    "epsilon": {"epsilon": 1e-3},
    "momentum": {"momentum": 0.99},
    "start": {"start": as_keras_draws},
}
DEFAULTS["Keras's four"] = {k: v for d in DEFAULTS.values() for k, v in d.items()}


# --- the article's features


def sentences() -> tuple[dict, dict]:  # split -> lists of words; split -> labels
    sizes = {"train": 1000, "valid": 400, "test": 400}
    raw = {s: hints(s, sizes[s]) for s in SPLITS}
    words = {s: [t.lower().split() for t in raw[s]["text"]] for s in SPLITS}
    return words, {s: np.asarray(raw[s]["label"]) for s in SPLITS}


def numbered(words, known: dict) -> np.ndarray:  # 0 fills the front, 1 is unknown
    rows = [[known.get(w, 1) for w in text][-LENGTH:] for text in words]
    return np.array([[0] * (LENGTH - len(r)) + r for r in rows], np.int32)


def vocabulary(words, size: int | None) -> dict:  # the most frequent words, from 2
    count = Counter(w for text in words for w in text)
    kept = [w for w, _ in count.most_common(size)]
    return {w: i for i, w in enumerate(kept, 2)}


def lstm_features(ids, words: int, targets=None, epochs: int = 1) -> np.ndarray:
    "What the article's extractor hands out; `targets` None: it is never trained."
    keras = keras_on_torch()
    L = keras.layers
    classes = 1 if targets is None or len(targets) == 2 else 10
    ends = {1: "sigmoid", 10: "softmax"}
    body = [L.Embedding(words + 2, 50), L.LSTM(128)]
    last = L.Dense(classes, activation=ends[classes])
    model = keras.Sequential([keras.Input((LENGTH,), dtype="int32"), *body, last])
    if targets is not None:
        kinds = {1: "binary_crossentropy", 10: "sparse_categorical_crossentropy"}
        model.compile(optimizer="adam", loss=kinds[classes])
        model.fit(ids[: len(targets)], targets, epochs=epochs, verbose=0)
    reader = keras.Model(model.inputs, model.layers[1].output)
    return reader.predict(ids, batch_size=500, verbose=0)


def under_a_matrix(x: np.ndarray, label: dict) -> dict:
    "Accuracy of one matrix on the features; its penalty chosen on validation data."
    parts = dict(zip(SPLITS, np.split(x.astype(float), [1000, 1400])))
    best = {"valid": -1.0}
    for C in (0.01, 0.1, 1.0, 10.0):
        W, b = softmax_regression(parts["train"], label["train"], C=C)
        right = {s: ((parts[s] @ W + b).argmax(1) == label[s]).mean() for s in SPLITS}
        if right["valid"] > best["valid"]:
            best = {"C": C} | {s: round(float(v), 5) for s, v in right.items()}
    return best


def article_arms(study: Study):
    words, label = sentences()
    everything = [text for s in SPLITS for text in words[s]]
    few, all_words = vocabulary(everything, LENGTH - 2), vocabulary(everything, None)

    def lstm(known, targets=None, epochs=1):
        x = lstm_features(numbered(everything, known), len(known), targets, epochs)
        return under_a_matrix(x, label)

    def counted(known):
        rows = [[text.count(w) for w in known] for text in everything]
        return under_a_matrix(np.array(rows), label)

    made_up = np.array([1, 0])
    arms = {
        "as printed": partial(lstm, few, made_up),
        "never trained": partial(lstm, few),
        "all words": partial(lstm, all_words, made_up),
        "trained on the digits": partial(lstm, few, label["train"], 20),
    }
    for name, run in arms.items():
        for seed in study.seeds(3):
            study(f"article/{name}/{seed}", run, seed)
    study("article/98 words counted/0", partial(counted, few))
    study("article/all words counted/0", partial(counted, all_words))


# --- defaults, and length


def load(loader) -> dict:  # split -> (features, labels)
    view = load_features(loader)
    (modality,) = view["train"]["features"]
    return {s: (v["features"][modality], v["label"]) for s, v in view.items()}


def right(model, data) -> float:
    guess = model.predict(data[0])
    return round(float((guess == np.asarray(data[1])).mean()), 5)


def scored(train, data, rows=None, **options) -> dict:
    x, y = data["train"]
    rows = slice(None) if rows is None else rows
    model = train(x[rows], y[rows], **options)
    return {s: right(model, data[s]) for s in ("valid", "test")}


def default_arms(study: Study, data):
    nets = {name: partial(keras_image_net, **d) for name, d in DEFAULTS.items()}
    nets["in torch"] = ImageNet28
    for epochs in (4, 20):
        for name, net in nets.items():
            for seed in study.seeds(5):
                options = {"net": net, "epochs": epochs, "seed": seed}
                run = partial(
                    scored, train_image_classifier, data, slice(700), **options
                )
                study(f"defaults/{name}/{epochs}/{seed}", run, seed)


def long_arms(study: Study, pictures, clips):
    smooth = partial(F.cross_entropy, label_smoothing=0.1)
    voice = {"net": WideVoiceNet, "loss": smooth}
    kinds = (
        ("image", train_image_classifier, pictures, (4, 16, 32), augment_image, {}),
        ("audio", train_audio_classifier, clips, (14,), augment_audio, voice),
    )
    for name, train, data, lengths, vary, more in kinds:
        for epochs in lengths:
            for how, augment in (("as they are", None), ("varied", vary)):
                for seed in study.seeds(3):
                    options = more | {"epochs": epochs, "augment": augment}
                    run = partial(scored, train, data, seed=seed, **options)
                    study(f"long/{name}/{how}/{epochs}/{seed}", run, seed)


# --- slt


def slt_arms(study: Study, clips):
    x, y = clips["train"]
    x_test, y_test = clips["test"]
    voice = spoken_digits("test")["voice"]

    def run(extra, seed):
        more = torch.from_numpy(voice == extra)  # `extra` is a test voice, or nobody
        features, labels = torch.cat([x, x_test[more]]), torch.cat([y, y_test[more]])
        model = train_audio_classifier(features, labels, epochs=15, seed=seed)
        good = model.predict(x_test) == np.asarray(y_test)
        return {str(v): round(float(good[voice == v].mean()), 5) for v in set(voice)}

    for name, extra in EXTRA.items():
        for seed in study.seeds(3):
            study(f"slt/{name}/{seed}", partial(run, extra, seed), seed)


def main():
    study = Study("classifier_study", __doc__, about="chapter 12")
    pictures, clips = load(mnist), load(spoken_digits)
    slt_arms(study, clips)
    long_arms(study, pictures, clips)
    article_arms(study)
    default_arms(study, pictures)


if __name__ == "__main__":
    main()
