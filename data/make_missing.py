"""Train every model of chapter 18 over three seeds, and measure them on equal terms.

    python data/make_missing.py  # data/results/missing.json, data/missing.safetensors

Arms are named by what was trained: `one level/seed` (the default of `three_views`),
`all levels/seed` (every noise drawn anew) and `all levels, twice as long/seed`. Each
holds accuracies on test data: `grid`, the mean over all 25 points and the four subsets
of two or more, and `default`. `probe`: level by level, what a new last layer makes of
a branch. `experts on validation` chooses opponents, and `margins` holds the points
above them with intervals over seeds and speakers. `probe, nothing hidden/seed` is the
same for branches of a joint model trained without dropout. Finished seeds are kept in a
folder.
"""

import copy
import math
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from study import Study
from torch import nn

from mmcourse.checkpoint import read_tensors, shrink, write_tensors
from mmcourse.classifiers import (
    Classifier,
    train_audio_classifier,
    train_image_classifier,
    train_text_classifier,
)
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.feature_fusion import GatedFusion
from mmcourse.missing import (
    TrustGate,
    joint_hits,
    noisy_copies,
    one_copy,
    pool_hits,
    quality,
    train_gate,
    train_joint,
    trunk,
    trust_grid,
)
from mmcourse.noise_levels import DEFAULT, above_best, grid_log_probs, noise_grid
from mmcourse.pipeline import extract_features, preprocess_data
from mmcourse.training import accuracy, evaluating, fit, predict

HERE = Path(__file__).parent
FOLDER = Path(tempfile.gettempdir()) / "mmcourse-make-missing"
COPIES = 10
EPOCHS = {"one level": 8, "all levels": 16, "all levels, twice as long": 32}
NOISY = "image", "audio"
TRAIN = {
    "text": train_text_classifier,
    "image": train_image_classifier,
    "audio": train_audio_classifier,
}


def held_voices(voice: np.ndarray, n: int = 9) -> np.ndarray:  # (N,) names -> (N,) bool
    "True for the examples of `n` voices that the experts never hear: for the gates."
    names = np.unique(voice)
    return np.isin(voice, np.random.default_rng(0).permutation(names)[:n])


def confidence(log_probs: dict) -> dict[str, torch.Tensor]:  # {modality: (B, 2)}
    "What an expert thinks of itself: its largest probability, and its entropy in nats."
    both = {m: (s.exp().amax(1), -(s.exp() * s).sum(1)) for m, s in log_probs.items()}
    return {m: torch.stack(pair, 1) for m, pair in both.items()}


def gate_data(experts: dict, features: dict) -> tuple[dict, dict]:
    "The quality of every noisy copy, and what the experts say of it."
    flat = {"text": features["text"].repeat_interleave(COPIES, 0)}
    flat |= {m: features[m].flatten(0, 1) for m in NOISY}
    says = {m: predict(experts[m], x).log_softmax(1) for m, x in flat.items()}
    return quality(flat), says


def rows_of(raw: dict, rows: np.ndarray) -> dict:
    "Some examples of `three_views`."
    text = [t for t, wanted in zip(raw["text"], rows) if wanted]
    return {k: raw[k][rows] for k in ("image", "audio", "length")} | {"text": text}


class Data:
    "What does not depend on a seed: examples for experts and gates, grids, statistics."

    def __init__(self):
        raw = three_views("train", 3500)
        clean = three_views("train", 3500, image_noise=0, snr_db=math.inf)
        held = held_voices(raw["voice"])
        self.stats = preprocess_data(rows_of(raw, ~held))["stats"]
        self.plain, self.noisy, self.label = {}, {}, {}
        for who, rows in (("experts", ~held), ("gate", held)):
            data = preprocess_data(rows_of(raw, rows), self.stats)
            self.plain[who] = dict(zip(MODALITIES, extract_features(data)))
            part, seed = rows_of(clean, rows), int(who == "experts")
            made = noisy_copies(part, self.stats, COPIES, seed=seed)
            self.noisy[who] = self.plain[who] | {m: made[m] for m in NOISY}
            self.label[who] = torch.tensor(raw["label"][rows])
        grids = {s: noise_grid(s, 1000, self.stats) for s in ("valid", "test")}
        self.valid, self.test = grids["valid"], grids["test"]

    @property
    def n_grams(self):
        return len(self.stats["grams"])


def experts_of(data: Data, kind: str, seed: int) -> dict[str, Classifier]:
    "One expert a modality; the text has one level, so its training is always short."
    y, epochs = data.label["experts"], EPOCHS[kind]
    plain, noisy = data.plain["experts"], data.noisy["experts"]
    text = train_text_classifier(plain["text"], y, seed=seed, epochs=8)
    experts = {"text": text}
    for m in NOISY:
        if kind == "one level":
            experts[m] = TRAIN[m](plain[m], y, seed=seed, epochs=epochs)
        else:
            options = {"seed": seed, "epochs": epochs, "augment": one_copy}
            experts[m] = TRAIN[m](noisy[m], y, **options)
    return experts


def joints_of(data: Data, kind: str, seed: int) -> dict:
    "Joint models with the same examples, noise and epochs as the experts."
    noise = kind != "one level"
    x = (data.noisy if noise else data.plain)["experts"]
    arms = {"joint": {}, "joint, dropout": {"dropout": 0.5}}
    if kind == "one level":
        arms["joint, gated fusion"] = {"fusion": GatedFusion}
    if "twice" in kind:
        del arms["joint"]
    options = {"noise": noise, "epochs": EPOCHS[kind], "seed": seed}
    y = data.label["experts"]
    return {k: train_joint(x, y, data.n_grams, **options, **a) for k, a in arms.items()}


def gates_of(data: Data, experts: dict, seed: int) -> dict:
    measured, said = gate_data(experts, data.noisy["gate"])
    label = data.label["gate"].repeat_interleave(COPIES)
    return {
        "gate on quality": train_gate(measured, said, label, seed=seed),
        "gate on confidence": train_gate(confidence(said), said, label, seed=seed),
    }


def trusts_of(gates: dict, grid: dict, says: dict) -> dict:
    "Name of a pooled model -> its exponents on the grid."
    sure, gate = {}, gates["gate on confidence"]
    with evaluating(gate):
        for m, s in says.items():
            sure[m] = torch.stack([gate.trust(confidence({m: x}))[m] for x in s])
    quality = trust_grid(gates["gate on quality"], grid)
    return {"product": None, "gate on quality": quality, "gate on confidence": sure}


def probe(encoder: nn.Module, m: str, data: Data, seed: int) -> list[float]:
    "Accuracy at each level of a new last layer on a frozen branch."
    x, y = data.noisy["experts"][m][:, :3], data.label["experts"]
    f = predict(encoder, x.flatten(0, 1))
    layer = nn.Linear(f.shape[1], 10)
    recipe = {"epochs": 10, "lr": 3e-3, "batch_size": 256, "seed": seed}
    fit(layer, (f, y.repeat_interleave(3)), **recipe)
    levels = [predict(encoder, g) for g in data.test[m]]
    return [round(accuracy(layer, (g, data.test["label"])), 5) for g in levels]


def probes(joint: nn.Module, experts: dict, data: Data, seed: int) -> dict:
    found = {}
    for m in NOISY:
        own = trunk(copy.deepcopy(experts[m].net))
        branches = {"joint": joint.encoders[m], "expert": own}
        found[m] = {k: probe(e, m, data, seed) for k, e in branches.items()}
        test = [(g, data.test["label"]) for g in data.test[m]]
        found[m]["whole"] = [round(accuracy(experts[m], level), 5) for level in test]
    return found


def probes_of_whole(data: Data, seed: int) -> dict:
    "Probes of branches that saw every example in every epoch: nothing was hidden."
    options = {"noise": True, "epochs": EPOCHS["all levels"], "seed": seed}
    x, y = data.noisy["experts"], data.label["experts"]
    joint = train_joint(x, y, data.n_grams, **options)
    return {m: probe(joint.encoders[m], m, data, seed) for m in NOISY}


def mean_of_pairs(hits: dict) -> float:
    parts = [h.double().mean() for s, h in hits.items() if len(s) > 1]
    return round(float(torch.stack(parts).mean()), 5)


def one_seed(data: Data, kind: str, seed: int) -> dict:
    "Train and measure; weights and hits are kept in the folder."
    experts, joints = experts_of(data, kind, seed), joints_of(data, kind, seed)
    gates = gates_of(data, experts, seed)
    says = grid_log_probs(experts, data.test)
    hits = {k: joint_hits(model, data.test) for k, model in joints.items()}
    for name, trust in trusts_of(gates, data.test, says).items():
        hits[name] = pool_hits(says, data.test["label"], trust)
    label = data.test["label"]
    alone = {m: s.argmax(-1) == label for m, s in says.items()}
    chosen = grid_log_probs(experts, data.valid)
    keep = {"hits": hits, "alone": alone}
    FOLDER.mkdir(exist_ok=True)
    torch.save(keep, FOLDER / f"{kind}-{seed}.pt")
    save_weights(kind, seed, experts, joints, gates["gate on quality"])
    at = {k: h[MODALITIES][DEFAULT].double().mean() for k, h in hits.items()}
    right = {m: (s.argmax(-1) == data.valid["label"]) for m, s in chosen.items()}
    result = {
        "grid": {k: mean_of_pairs(h) for k, h in hits.items()},
        "default": {k: round(float(a), 5) for k, a in at.items()},
        "valid": {m: r.double().mean(-1).tolist() for m, r in right.items()},
    }
    if kind != "one level":
        result["probe"] = probes(joints["joint, dropout"], experts, data, seed)
    return result


def save_weights(kind: str, seed: int, experts: dict, joints: dict, gate: TrustGate):
    "What ships of one seed: all that the notebook evaluates."
    if "twice" in kind:
        return
    short = "plain" if kind == "one level" else "noisy"
    parts = {f"{short}.{m}": experts[m] for m in NOISY}
    if short == "noisy":
        parts |= {"text": experts["text"], "gate": gate}
    elif seed == 0:
        parts |= {"joint": joints["joint"], "plain.gate": gate}
    else:
        return
    tensors = {}
    for name, model in parts.items():
        state = {f"{seed}.{name}.{k}": v for k, v in model.state_dict().items()}
        tensors |= shrink(state, bits=16 if "gate" in name else 8)
    write_tensors(FOLDER / f"{kind}-{seed}.safetensors", tensors, {})


def margins(kind: str, seeds: range, chosen: dict, speaker: np.ndarray) -> dict:
    "Points above the best expert of the same training, {model: {subset: (5, 5, 3)}}."
    kept = [torch.load(FOLDER / f"{kind}-{seed}.pt") for seed in seeds]
    alone = {m: torch.stack([k["alone"][m] for k in kept]) for m in MODALITIES}
    found = {}
    for name in kept[0]["hits"]:
        hits = {
            s: torch.stack([k["hits"][name][s] for k in kept])
            for s in kept[0]["hits"][name]
        }
        margin = above_best(hits, alone, chosen, speaker)
        found[f"{kind}/{name}"] = {
            "+".join(s): v.round(4).tolist() for s, v in margin.items()
        }
    return found


def main():
    study, data = Study("missing", __doc__, epochs=EPOCHS, copies=COPIES), Data()
    seeds = study.seeds(3)
    for kind in EPOCHS:
        for seed in seeds:

            def run(kind=kind, seed=seed):
                return one_seed(data, kind, seed)

            study(f"{kind}/{seed}", run, seed)
    for seed in seeds:
        study(f"probe, nothing hidden/{seed}", partial(probes_of_whole, data, seed))

    def best_on_validation():
        found = {}
        for kind in EPOCHS:
            each = [study.runs[f"{kind}/{seed}"]["valid"] for seed in seeds]
            found[kind] = {
                m: np.mean([e[m] for e in each], 0).tolist() for m in MODALITIES
            }
        return found

    study.args.again = True  # both follow from the arms above
    chosen = study("experts on validation", best_on_validation)

    def all_margins():
        speaker, found = data.test["speaker"], {}
        for kind in EPOCHS:
            found |= margins(kind, seeds, chosen[kind], speaker)
        return found

    study("margins", all_margins)
    tensors = {}
    for kind in ("one level", "all levels"):
        for seed in seeds:
            path = FOLDER / f"{kind}-{seed}.safetensors"
            tensors |= read_tensors(path)[0] if path.exists() else {}
    about = {"command": "python data/make_missing.py", "torch": torch.__version__}
    about |= {"seeds": list(seeds), "stats": data.stats}
    write_tensors(HERE / "missing.safetensors", tensors, about)


if __name__ == "__main__":
    main()
