"""Chapter 19's comparison of fusions, for longer trainings.

    python data/make_project.py      # writes data/results/project.json

Arms are named epochs/seed: three classifiers, their fusions and the concatenation, all
trained for as many epochs on 1,500 of the three views. Results are accuracies on test
data; weights and temperatures come from validation data. The arms apart/seed are a
control: the concatenation's own branches, each trained alone under its own head for
12 epochs, and the product of the three as they are, without temperatures.
"""

from functools import partial

import numpy as np
from study import Study

from mmcourse.datasets import MODALITIES, three_views
from mmcourse.decision_fusion import fuse_product
from mmcourse.keras_weights import keras_on_torch
from mmcourse.measure import seeded
from mmcourse.pipeline import load_features
from mmcourse.project import (
    MODELS,
    compare_fusions,
    concat_branches,
    concat_inputs,
    hits_of,
)

study = Study("project", __doc__, examples=1500)
views = load_features(three_views, 1500)


def run(epochs, seed):
    hits = hits_of([compare_fusions(views, seed, epochs)], views["test"]["label"])
    return {k: round(float(hits[k].mean()), 4) for k in MODELS}


for epochs in (6, 12, 24, 48):
    for seed in study.seeds(3):
        study(f"{epochs}/{seed}", partial(run, epochs, seed), seed)


def branch_alone(m, seed):
    "What the branch of modality `m` says of the test data, trained by itself."
    keras = keras_on_torch()
    x, y = views["train"]["features"], np.asarray(views["train"]["label"])
    with seeded(seed):
        keras.utils.set_random_seed(seed)
        inputs, vectors = concat_branches(int(x["text"].max()), 20, 51)
        hidden = vectors[MODALITIES.index(m)]
        hidden = keras.layers.Dense(128, activation="relu")(hidden)
        hidden = keras.layers.Dropout(0.4)(hidden)
        digits = keras.layers.Dense(10, activation="softmax")(hidden)
        model = keras.Model(inputs[m], digits)
        model.compile(keras.optimizers.AdamW(4e-3), "sparse_categorical_crossentropy")
        model.fit(concat_inputs(x)[m], y, epochs=12, batch_size=100, verbose=0)
    x = concat_inputs(views["test"]["features"])[m]
    return model.predict(x, batch_size=500, verbose=0)


def apart(seed):
    said = {m: branch_alone(m, seed) for m in MODALITIES}
    said |= {"product": fuse_product(said)}
    label = np.asarray(views["test"]["label"])
    return {k: round(float((p.argmax(1) == label).mean()), 4) for k, p in said.items()}


for seed in study.seeds(3):
    study(f"apart/{seed}", partial(apart, seed), seed)
