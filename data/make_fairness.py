"""Chapter 32: repairs for the voices that are understood worst, and what fusion does.

    python data/make_fairness.py    # data/results/fairness.json

Arms are named what/how/seed. `repair`: an `AudioNet` on the training voices of
`spoken_digits` (12 epochs without augmentation; where the name says `longer` 24 epochs,
`longest` 48 and three seeds). `plain`; `weight 1` and `weight 1.5`: the loss of female
voices counts more (`balancing_weights`, strength); `random`: the weights go to random
male voices, about as many clips; `sampling`: female clips are drawn again until both
sexes are alike, as many updates as `plain`; `fewer female`: every second female voice
is left out; `fewer male`: about as many clips of random male voices are left out;
`augmented`: every clip, of whatever voice, is changed anew by `augment_audio` each
time. `fusion`: networks of three_views, and their product under exponents learnt on the
validation split, of all three views and of all but the sound.

`valid` and `test` hold 1 for each example that was read rightly, `read` the same for
each view of three_views and for the fused answer.
"""

from functools import cache, partial

import numpy as np
import torch
from study import Study, bits

from mmcourse.audio import augment_audio
from mmcourse.classifiers import (
    AudioNet,
    train_audio_classifier,
    train_image_classifier,
    train_text_classifier,
)
from mmcourse.datasets import spoken_digits
from mmcourse.decision_fusion import fuse_product, learn_pool
from mmcourse.fairness import balancing_weights, weighted_loss
from mmcourse.fairness_tools import voice_facts
from mmcourse.measure import seeded
from mmcourse.pipeline import load_features
from mmcourse.three_views import three_views
from mmcourse.training import fit, predict, warmup_cosine

EPOCHS = 12
USUAL = {"lr": 4e-3, "weight_decay": 0.05, "schedule": warmup_cosine}


def some_male(voice, sex, seed, of_clips):
    "Male voices, drawn until they have as many clips."
    rng, found, got = np.random.default_rng(seed), [], 0
    for name in rng.permutation(np.unique(voice[sex == "male"])):
        n = (voice == name).sum()
        if got + n <= of_clips + 5:
            found.append(name)
            got += n
    return found


def main():
    study = Study("fairness", __doc__, about="chapter 32")
    clips = cache(partial(load_features, spoken_digits))
    views = cache(partial(load_features, three_views))

    def train(how, seed):
        view = clips()["train"]
        x, y = view["features"]["audio"].float(), view["label"]
        voice = np.array(view["voice"])
        sex = np.array([voice_facts(v).sex for v in voice])
        female, rng = sex == "female", np.random.default_rng(seed)
        weight, rows = np.ones(len(y)), np.arange(len(y))
        if how.startswith("weight"):
            weight = balancing_weights(sex, float(how.split()[1]))
        if how == "random":
            chosen = some_male(voice, sex, seed, female.sum())
            weight = balancing_weights(np.isin(voice, chosen))
        if how == "sampling":
            half = len(y) // 2
            again = rng.choice(np.flatnonzero(female), half)
            rows = np.concatenate([again, rng.choice(np.flatnonzero(~female), half)])
        if how.startswith("fewer"):
            gone = rng.permutation(np.unique(voice[female]))[::2]
            if how == "fewer male":
                gone = some_male(voice, sex, seed, np.isin(voice, gone).sum())
            rows = np.flatnonzero(~np.isin(voice, gone))
        with seeded(seed):
            net = AudioNet()
        goal = (y[rows], torch.as_tensor(weight[rows]).float())
        epochs = EPOCHS * {"longer": 2, "longest": 4}.get(how.split()[-1], 1)
        recipe = USUAL | {"loss": weighted_loss, "metric": None, "epochs": epochs}
        if how.startswith("augmented"):
            recipe |= {"augment": augment_audio}
        fit(net, (x[rows], goal), seed=seed, **recipe)
        found = {"clips": len(rows), "female": int(female[rows].sum())}
        for split in ("valid", "test"):
            data = clips()[split]
            hits = predict(net, data["features"]["audio"].float()).argmax(1)
            found[split] = bits(hits == data["label"])
        return found

    def fusion(seed):
        data, probs = views(), {"valid": {}, "test": {}}
        makers = {
            "text": train_text_classifier,
            "image": train_image_classifier,
            "audio": train_audio_classifier,
        }
        for modality, make in makers.items():
            x = {s: data[s]["features"][modality] for s in data}
            if modality != "text":
                x = {s: v.float() for s, v in x.items()}
            model = make(x["train"], data["train"]["label"], seed=seed)
            for split in probs:
                probs[split][modality] = model.predict_proba(x[split])
        said = dict(probs["test"])
        for name, kept in (("fused", [*makers]), ("no sound", ["text", "image"])):
            part = {s: {m: p[m] for m in kept} for s, p in probs.items()}
            powers = learn_pool(part["valid"], data["valid"]["label"])
            said[name] = fuse_product(part["test"], powers)
        truth = data["test"]["label"].numpy()
        return {"read": {k: bits(p.argmax(1) == truth) for k, p in said.items()}}

    arms = ["plain", "weight 1", "random", "sampling", "longer", "weight 1.5"]
    arms += ["fewer female", "fewer male", "weight 1 longer"]
    arms += ["augmented", "augmented longer", "longest", "augmented longest"]
    for seed in study.seeds(5):
        for how in arms:
            if how.endswith("longest") and seed > 2:
                continue
            study(f"repair/{how}/{seed}", partial(train, how, seed), seed)
        study(f"fusion/{seed}", partial(fusion, seed), seed)


if __name__ == "__main__":
    main()
