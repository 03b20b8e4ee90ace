"""Networks that answer one, two or three questions about a sound, for chapter 17.

    python data/make_multitask.py           # results/multitask.json, some 13 minutes

An arm is name/epochs/seed. `valid` has the shares of right answers on validation
data, by which the chapter chooses; `test` the hits on test data, clip by clip (1 right,
0 wrong). "alone" is one task, "all" all three. All arms of one length take as many
steps; "few" arms know the digit of a hundred clips. Three of them have four seeds more.
"""

from functools import partial

import numpy as np
import torch
from study import Study
from torch import nn

from mmcourse.classifiers import AudioNet, ImageNet28
from mmcourse.datasets import degrade, mnist, spoken_digits
from mmcourse.measure import seeded
from mmcourse.multitask import (
    TASKS,
    UNKNOWN,
    FusedTrunk,
    MultiTask,
    ReverseGradient,
    Uncertainty,
    conflict,
    keep_labels,
    probe,
    profiled,
    repeat_known,
    right,
    sound_model,
    spoken_tasks,
    surgery,
    task_losses,
    train_tasks,
    weighted,
    within_voices,
)
from mmcourse.pipeline import load_features
from mmcourse.training import evaluating, take

SEEDS, MORE_SEEDS, SHORT, LONG, FEW = 3, 7, 8, 24, 100


# --- arms: (data, epochs, seed) -> (model, what else is to be kept)


def plain(tasks, balance=weighted):
    def train(data, epochs, seed):
        model = sound_model(tasks, seed=seed)
        train_tasks(model, data["train"], balance, epochs=epochs, seed=seed)
        return model, {}

    return train


def with_conflict(data, epochs, seed):
    model, seen = sound_model(seed=seed), []

    def look(*_):
        found = conflict(model, data["train"], seed=seed)
        seen.append({k: np.round(v, 3).tolist() for k, v in found.items()})

    look()
    train_tasks(model, data["train"], epochs=epochs, seed=seed, on_epoch=look)
    return model, {"conflict": seen}


def random_weights(data, epochs, seed):
    "New weights at every step, a softmax of normal numbers [Lin et al. 2022]."
    g = torch.Generator().manual_seed(seed)

    def balance(losses):
        w = 3 * torch.randn(3, generator=g).softmax(0)
        return weighted(losses, dict(zip(losses, w.tolist())))

    return plain(TASKS, balance)(data, epochs, seed)


def operated(data, epochs, seed):
    model = sound_model(seed=seed)
    balance = surgery(model.trunk.parameters(), seed=seed)
    train_tasks(model, data["train"], balance, epochs=epochs, seed=seed)
    return model, {}


def in_units(losses, factor, balance):  # the voice loss in other units
    return balance(losses | {"voice": factor * losses["voice"]})


def own_rate(params, rate):
    "AdamW in which `params` have a learning rate of their own and no decay."
    params = list(params)

    def build(groups, lr):
        rest = []
        for group in groups:
            kept = [p for p in group["params"] if all(p is not q for q in params)]
            rest.append(group | {"params": kept})
        fast = {"params": params, "lr": rate, "weight_decay": 0.0}
        return torch.optim.AdamW([*rest, fast], lr=lr)

    return build


def uncertain(data, epochs, seed, factor=1.0, started=True):
    model, balance = sound_model(seed=seed), Uncertainty(TASKS)
    if started:
        x, y = take(data["train"], slice(256))
        with evaluating(model):
            first = task_losses(model(x), y)
        balance.start(first | {"voice": factor * first["voice"]})
    model.balance = balance
    train_tasks(
        model,
        data["train"],
        partial(in_units, factor=factor, balance=balance),
        epochs=epochs,
        seed=seed,
        optimizer=own_rate(balance.parameters(), 0.1),
    )
    return model, {"weights": balance.weights()}


def against_voice(strength):
    def train(data, epochs, seed):
        reverse = ReverseGradient(strength)
        head = nn.Sequential(reverse, nn.Dropout(0.3), nn.Linear(128, TASKS["voice"]))
        model = sound_model(["digit"], heads={"voice": head}, seed=seed)
        train_tasks(model, data["train"], epochs=epochs, seed=seed)
        return model, {}

    return train


def few(tasks, also=(), times=25):
    "A hundred digits, repeated; `also` is known of the same clips alone."

    def train(data, epochs, seed):
        x, targets = data["train"]
        targets = keep_labels(targets, "digit", FEW, seed=seed)
        for task in also:
            no_digit = targets["digit"] == UNKNOWN
            targets[task] = torch.where(no_digit, UNKNOWN, targets[task])
        more, model = (
            repeat_known((x, targets), "digit", times),
            sound_model(tasks, seed=seed),
        )
        epochs = round(epochs * len(x) / len(more[0]))  # as many steps
        train_tasks(model, more, epochs=epochs, seed=seed)
        return model, {}

    return train


def few_alone(data, epochs, seed):
    "The same hundred clips in batches of their own, as many steps."
    x, targets = data["train"]
    kept = keep_labels(targets, "digit", FEW, seed=seed)["digit"] != UNKNOWN
    own = take((x, {"digit": targets["digit"]}), kept)
    model, steps = sound_model(["digit"], seed=seed), epochs * -(-len(x) // 64)
    train_tasks(model, own, epochs=steps // -(-FEW // 64), seed=seed)
    return model, {}


def with_pictures(data):
    "The same clips, each with a spoilt picture of its digit, drawn at random."
    digits = all_digits(data)
    both = {}
    for split, (x, y) in data.items():
        rng, d = np.random.default_rng(0), mnist(split)
        rows = [rng.choice(np.flatnonzero(d["label"] == k)) for k in digits[split]]
        how = {"noise": 0.2, "shrink": 2, "occlusion": 0.45}
        images = np.stack([degrade(d["image"][r], rng, **how) for r in rows])
        both[split] = {"audio": x, "image": torch.tensor(images)[:, None]}, y
    return both


def all_digits(data):
    "The digits of all clips, of those too that are asked for the voice alone."
    clips = load_features(spoken_digits)["train"]
    rows = within_voices(clips["label"].numpy(), clips["voice"])
    digits = {"train": data["train"][1]["digit"].tolist()}
    for split in ("valid", "test"):
        y = data[split][1]["digit"].clone()
        y[y == UNKNOWN] = clips["label"][rows[split]]
        digits[split] = y.tolist()
    return digits


def two_inputs(data, epochs, seed):
    with seeded(seed):
        image, audio = ImageNet28(), AudioNet()
        image.body, audio.head = image.body[:-2], nn.Identity()  # 64, 128 features
        encoders = {"image": image, "audio": audio}
        trunk = FusedTrunk(encoders, {"image": 64, "audio": 128})
        heads = {}
        for task, n in TASKS.items():
            heads[task] = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, n))
        model = MultiTask(trunk, heads)
    train_tasks(model, data["train"], epochs=epochs, seed=seed)
    return model, {}


hundredths = partial(in_units, factor=100.0)
ARMS = {
    **{f"{t} alone": plain([t]) for t in TASKS},
    "digit, parity": plain(["digit", "parity"]),
    "digit, voice": plain(["digit", "voice"]),
    "all": with_conflict,
    "all: voice × 0.3": plain(TASKS, partial(weighted, weights={"voice": 0.3})),
    "all: voice × 3": plain(TASKS, partial(weighted, weights={"voice": 3.0})),
    "all: uncertainty": uncertain,
    "all: uncertainty from zero": partial(uncertain, started=False),
    "all: product": plain(TASKS, profiled),
    "all: random weights": random_weights,
    "all: surgery": operated,
    "hundredths: sum": plain(TASKS, partial(hundredths, balance=weighted)),
    "hundredths: product": plain(TASKS, partial(hundredths, balance=profiled)),
    "hundredths: uncertainty": partial(uncertain, factor=100.0),
    "hundredths: uncertainty from zero": partial(
        uncertain, factor=100.0, started=False
    ),
    "digit against voice × 0.1": against_voice(0.1),
    "digit against voice × 0.3": against_voice(0.3),
    "digit against voice × 1": against_voice(1.0),
    "few: digit, own batches": few_alone,
    "few: digit": few(["digit"]),
    "few: digit, scattered": few(["digit"], times=0),
    "few: and their parity": few(["digit", "parity"], also=["parity"]),
    "few: and all parity": few(["digit", "parity"]),
    "few: and all parity, scattered": few(["digit", "parity"], times=0),
    "few: and all voices": few(["digit", "voice"]),
    "two inputs": two_inputs,
}
LONGER = {"digit alone": 3, "all": 3, "all: voice × 0.3": 2, "all: uncertainty": 2}
SURER = "few: digit", "few: and their parity", "few: and all parity"
PROBED = (
    "digit alone",
    "voice alone",
    "digit, voice",
    *(f"digit against voice × {strength}" for strength in (0.1, 0.3, 1)),
)


def measured(arm, name, data, epochs, seed):
    model, more = arm(data, epochs, seed)
    row = {"valid": {}, "test": {}}
    for task, hits in right(model, data["valid"]).items():
        row["valid"][task] = hits.double().mean().item()
    for task, hits in right(model, data["test"]).items():
        row["test"][task] = "".join(str(int(h)) for h in hits)
    if name in PROBED:
        x, y = data["test"]
        known = y["voice"] != UNKNOWN
        train = data["train"][0], data["train"][1]["voice"]
        more["probe"] = probe(model.trunk, train, (x[known], y["voice"][known]))
    return row | more


def main():
    study = Study("multitask", __doc__, few=FEW)
    data = spoken_tasks()
    both = with_pictures(data)
    runs = [(n, SHORT, MORE_SEEDS if n in SURER else SEEDS) for n in ARMS]
    runs += [(name, LONG, seeds) for name, seeds in LONGER.items()]
    for name, epochs, seeds in runs:
        inputs = both if name == "two inputs" else data
        for seed in study.seeds(seeds):
            args = ARMS[name], name, inputs, epochs, seed
            study(f"{name}/{epochs}/{seed}", lambda a=args: measured(*a), seed=seed)


if __name__ == "__main__":
    main()
