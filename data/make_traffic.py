"""Lab 41: a signalled junction and a small grid, simulated by SUMO.

    python data/make_traffic.py             # data/results/traffic.json, …
    python data/make_traffic.py --only log  # the recorded hours, data/traffic.npz

It needs `pip install libsumo==1.28.0` (EPL-2.0). Arms are named part/what/seed.
`predict`: networks that say an arm's queue a minute ahead, mean absolute error in
vehicles by simulated hour of the test (6 of each kind of demand), in daylight, at
night, in fog, and with failed sensors (`told`: the failed view hidden; `rules`: hidden
where rules doubt it). `tune`: seconds lost per traveller over 3 validation hours, for
each setting of three controllers. `learn`: the weights of the learnt policy and what it
took. `control`: hours of the test, 10 seeds each; `walkers`: with nobody on foot;
`sensed`: controllers that see through camera and loops. Weights of seed 0 are written
to data/traffic.safetensors with int8 matrices.

The streets were made once, with eclipse-sumo 1.28.0:

    netgenerate --grid --grid.number 1 --grid.attach-length 300 OPTIONS -o junction
    netgenerate --grid --grid.number 2 --grid.length 250 --grid.attach-length 250 …

    OPTIONS: --default.lanenumber 1 --turn-lanes 1 --turn-lanes.length 300
    --default.speed 13.9 --default-junction-type traffic_light --tls.guess true
    --sidewalks.guess true --sidewalks.guess.max-speed 20 --crossings.guess true
    --no-turnarounds true --seed 1
"""

import tempfile
import warnings
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from study import Study

from mmcourse.checkpoint import read_tensors, shrink, write_tensors
from mmcourse.store import data_path, sha256
from mmcourse.traffic import KNOBS, actuated, fixed_time, learnt, max_pressure, webster
from mmcourse.traffic_study import (
    FAULTS,
    SensorWatch,
    control,
    fail,
    in_row,
    read_queue_nets,
    record,
    say_queues,
    sensor_views,
    train_queue_net,
    working,
)
from mmcourse.traffic_tools import (
    DEMAND_RATE,
    HOURS,
    LOG_HOURS,
    TURNS,
    Log,
    pack_log,
)

FILE = data_path("traffic.safetensors")
TRAIN, VALID, TEST = range(6), range(20, 22), range(30, 36)
TUNE, DRIVE = range(100, 103), range(200, 210)


@cache
def hours_of(kind, seeds):
    "Recorded once, and kept in the folder for temporary files."
    if kind == "three kinds":  # as many hours, two of each; lopsided is never met
        third = len(seeds) // 3
        logs = [
            hours_of(k, range(third * i, third * (i + 1)))
            for i, k in enumerate(("usual", "heavy", "rush"))
        ]
        fields = Log.__dataclass_fields__
        return Log(**{f: np.concatenate([getattr(x, f) for x in logs]) for f in fields})
    name = f"mmcourse_traffic_{kind}_{seeds.start}_{seeds.stop}.npz"
    path = Path(tempfile.gettempdir()) / name
    if not path.exists():
        np.savez(path, **pack_log([record(kind, s) for s in seeds]))
    with np.load(path) as made:
        return Log(**made)


@cache
def seen(kind, part, light="day"):
    seeds = {"train": TRAIN, "valid": VALID, "test": TEST}[part]
    return sensor_views(hours_of(kind, seeds), light, seed=len(part))


def write_log():
    made = pack_log([record(kind, s) for _, kind, s in LOG_HOURS])
    np.savez_compressed(data_path("traffic.npz"), **made)
    return {"sha256": sha256(data_path("traffic.npz")), "hours": len(LOG_HOURS)}


# predicting
def by_hour(said, goals):
    error = np.abs(np.asarray(said) - np.asarray(goals)[:, 2]).reshape(len(TEST), -1)
    return in_row(error.mean(1))


def simple():
    "What needs no network: nothing, the clock, what stands there now."
    _, goals, now = seen("usual", "train")
    views = seen("usual", "train")[0]
    place = views["signal"].numpy() @ np.r_[np.arange(12), np.arange(4) * 12]
    clock = {k: np.median(goals[place == k, 2]) for k in np.unique(place)}
    usual = float(np.median(goals[:, 2]))
    found = {}
    for kind in HOURS:
        views, goals, now = seen(kind, "test")
        place = views["signal"].numpy() @ np.r_[np.arange(12), np.arange(4) * 12]
        by_clock = np.array([clock.get(k, usual) for k in place])
        T = len(now) // (4 * len(TEST))
        truth = hours_of(kind, TEST).queues().sum(-1)  # a cycle of 94 s before t + 60
        ago = truth[:, 6 - 3 : 6 - 3 + T].ravel()
        found[f"constant/{kind}"] = by_hour(np.full(len(now), usual), goals)
        found[f"clock/{kind}"] = by_hour(by_clock, goals)
        found[f"now/{kind}"] = by_hour(now, goals)
        found[f"a cycle ago/{kind}"] = by_hour(ago, goals)
        found[f"mean/{kind}"] = in_row(goals[:, 2].reshape(len(TEST), -1).mean(1))
    return found


def with_truth(data):
    "The true queues in the place of the loops."
    views, goals, now = data
    loops = torch.zeros_like(views["loops"])
    loops[:, :2] = goals[:, :2] / 10
    return views | {"loops": loops}, goals, now


def keep(nets):
    tensors = read_tensors(FILE)[0] if FILE.exists() else {}
    for name, net in nets.items():
        small = shrink(net.state_dict(), 8)
        tensors |= {f"{name}.{k}": t for k, t in small.items()}
    write_tensors(FILE, tensors, {"made": "data/make_traffic.py", "seed": 0})


ALL = "camera", "loops", "signal"


def singles(seed):
    "A network for each sensor, and their weighted mean."
    nets = {
        m: train_queue_net(seen("usual", "train", "mixed"), (m,), seed=seed)
        for m in ALL
    }
    views, goals, _ = seen("usual", "valid", "mixed")
    error = {
        m: np.abs(say_queues(n, views) - goals.numpy()).mean(0)[2]
        for m, n in nets.items()
    }
    weight = {m: error[m] ** -2.0 for m in ALL}
    found = {}

    def late(views, have):
        total = sum(weight[m] for m in have)
        return sum(weight[m] * say_queues(nets[m], views)[:, 2] for m in have) / total

    for kind, light in CONDITIONS:
        views, goals, _ = seen(kind, "test", light)
        where = f"{kind} {light}"
        for m in ALL:
            found[f"{m}/{where}"] = by_hour(say_queues(nets[m], views)[:, 2], goals)
        found[f"late/{where}"] = by_hour(late(views, ALL), goals)
    views, goals, _ = seen("usual", "test")
    for fault in FAULTS:
        broken = fail(views, fault)
        which = "loops" if fault.startswith("loops") else "camera"
        left = [m for m in ALL if m != which]
        found[f"late/{fault}"] = by_hour(late(broken, ALL), goals)
        found[f"late/{fault}/told"] = by_hour(late(broken, left), goals)
    return found


CONDITIONS = [(k, "day") for k in HOURS] + [("usual", "night"), ("usual", "fog")]


def joint(seed, name, hide=0.0, light="mixed", truth=False, hours="usual"):
    "One network for all sensors."
    data = seen(hours, "train", light)
    views_of = ("loops", "signal") if truth else ALL
    change = with_truth if truth else (lambda d: d)
    net = train_queue_net(change(data), views_of, hide=hide, seed=seed)
    if seed == 0 and name in ("plain", "hidden"):
        keep({name: net})
    found = {}
    for kind, light in CONDITIONS:
        views, goals, _ = change(seen(kind, "test", light))
        found[f"{name}/{kind} {light}"] = by_hour(say_queues(net, views)[:, 2], goals)
    if truth or hours != "usual":
        return found
    for kind in HOURS:
        views, goals, now = seen(kind, "test")
        told = say_queues(net, views)[:, :2].sum(1)
        if kind == "usual":
            error = told - now.numpy() + goals[:, 2].numpy()
            found[f"{name}/now"] = by_hour(error, goals)
        told = told.reshape(len(TEST), -1, 4)
        ago = np.concatenate([told[:, :3], told[:, :-3]], 1).ravel()  # 30 s before
        found[f"{name} a cycle ago/{kind}"] = by_hour(ago, goals)
    views, goals, _ = seen("usual", "test")
    for have in (("camera", "loops"), ("camera", "signal"), ("loops", "signal")):
        said = say_queues(net, views, have)[:, 2]
        found[f"{name}/{'+'.join(have)}"] = by_hour(said, goals)
    for fault in FAULTS:
        broken = fail(views, fault)
        left = "camera+signal" if fault.startswith("loops") else "loops+signal"
        found[f"{name}/{fault}/told"] = found[f"{name}/{left}"]
        for how, have in (("", None), ("/rules", working(broken))):
            said = say_queues(net, broken, have)[:, 2]
            found[f"{name}/{fault}{how}"] = by_hour(said, goals)
    return found


def alarms():
    "How often the rules doubt a sensor that works, and one that does not."
    found = {}
    for kind, light in CONDITIONS:
        here = working(seen(kind, "test", light)[0])
        found[f"{kind} {light}"] = {
            m: round(1 - float(v.float().mean()), 4) for m, v in here.items()
        }
    views = seen("usual", "test")[0]
    for fault in FAULTS:
        which = "loops" if fault.startswith("loops") else "camera"
        here = working(fail(views, fault))[which]
        found[fault] = {which: round(1 - float(here.float().mean()), 4)}
    return found


# controlling
def plan_for(cycle=None):
    "Webster's plan for the usual demand; the walkers' green is part of the lost time."
    hourly = [DEMAND_RATE * (TURNS["s"] + TURNS["r"]), DEMAND_RATE * TURNS["l"]] * 2
    cycle, greens = webster(hourly, 38, cycle)
    return [*np.maximum(greens.round(), 6).astype(int).tolist(), 8]


GRID = {
    "fixed": {
        str(c): partial(fixed_time, plan_for(c)) for c in (None, 78, 86, 94, 102)
    },
    "actuated": {
        f"{g:g} {m}": partial(actuated, g, m)
        for g in (1, 1.5, 2, 3)
        for m in (20, 30, 45)
    },
    "pressure": {
        f"{e} {w:g}": partial(max_pressure, e, w)
        for e in (8, 12, 16, 20)
        for w in (0.25, 0.5, 1, 2)
    },
}


def tune(name):
    found = {}
    for setting, wish in GRID[name].items():
        runs = [control("junction", "usual", s, wish) for s in TUNE]
        found[setting] = round(float(np.mean([r["each"] for r in runs])), 3)
    return found


def best(study, name):
    tried = study.runs[f"tune/{name}/0"]
    return GRID[name][min(tried, key=tried.get)]


def learn(seed, people=10, elite=3, rounds=7, seconds=900):
    "The cross-entropy method: draw weights, keep the best, draw around them."
    rng = np.random.default_rng([seed, 5])
    mean, width, curve = np.zeros(len(KNOBS)), np.ones(len(KNOBS)), []
    for k in range(rounds):
        drawn = mean + width * rng.standard_normal((people, len(KNOBS)))
        hours = [1000 * (seed + 1) + 2 * k, 1000 * (seed + 1) + 2 * k + 1]
        cost = [
            np.mean(
                [
                    control("junction", "usual", h, partial(learnt, w), seconds)["each"]
                    for h in hours
                ]
            )
            for w in drawn
        ]
        chosen = drawn[np.argsort(cost)[:elite]]
        mean, width = chosen.mean(0), chosen.std(0) + 0.3 * 0.7**k
        curve.append(round(float(np.mean(np.sort(cost)[:elite])), 2))
        print(k, curve[-1], mean.round(2), flush=True)
    hours = people * rounds * 2 * seconds / 3600
    return {"weights": mean.round(4).tolist(), "curve": curve, "hours": hours}


METRICS = "delay", "worst", "stops", "inside", "walk", "longest", "each"
METRICS += "overruled", "checked", "vehicles", "people"


def drive(where, kind, wish, seconds=1800, runs=10, **options):
    runs = [control(where, kind, s, wish, seconds, **options) for s in DRIVE[:runs]]
    return {m: in_row([r[m] for r in runs]) for m in METRICS}


def predictors(study, seeds):
    for seed in seeds:
        study(f"predict/hidden/{seed}", partial(joint, seed, "hidden", 0.3), seed)
        study(f"predict/plain/{seed}", partial(joint, seed, "plain"), seed)
        study(f"predict/single/{seed}", partial(singles, seed), seed)
        day = partial(joint, seed, "day", 0.3, "day")
        study(f"predict/day/{seed}", day, seed)
        truth = partial(joint, seed, "truth", truth=True)
        study(f"predict/truth/{seed}", truth, seed)
        for name, true in (("kinds", False), ("kinds truth", True)):
            arm = partial(joint, seed, name, truth=true, hours="three kinds")
            study(f"predict/{name}/{seed}", arm, seed)


def main():
    warnings.simplefilter("ignore")
    study = Study(
        "traffic",
        __doc__.split("\n")[0],
        about="lab 41",
        libsumo="1.28.0",
        metrics=METRICS,
    )
    study("log/written/0", write_log)
    study("predict/simple/0", simple)
    study("predict/alarms/0", alarms)
    predictors(study, [0])
    for name in GRID:
        study(f"tune/{name}/0", partial(tune, name))
    for seed in study.seeds(5):
        study(f"learn/policy/{seed}", partial(learn, seed))
    if "learn/policy/4" not in study.runs:
        return
    policies = {"fixed": best(study, "fixed"), "actuated": best(study, "actuated")}
    policies["pressure"] = best(study, "pressure")
    for seed in range(5):
        w = np.array(study.runs[f"learn/policy/{seed}"]["weights"])
        policies[f"learnt {seed}"] = partial(learnt, w)
    for kind in HOURS:
        for name, wish in policies.items():
            study(f"control/{kind}/{name}", partial(drive, "junction", kind, wish))
    for name, wish in policies.items():
        arm = partial(drive, "junction", "usual", wish, on_foot=False)
        study(f"walkers/none/{name}", arm)
    nets = read_queue_nets()
    ways = ("pressure", "plain"), ("pressure", "plain rules")
    ways += ("pressure", "hidden rules"), ("actuated", "hidden rules")
    for fault in ("all work", *FAULTS, "night"):
        state = {"light": "night"} if fault == "night" else {"fault": fault}
        if fault == "all work":
            state = {}
        for name, way in ways:
            net, _, rules = way.partition(" ")
            options = {"net": nets[net], "rules": bool(rules)} | state
            sees = {"watch": partial(SensorWatch, **options), "runs": 6}
            arm = partial(drive, "junction", "usual", policies[name], **sees)
            study(f"sensed/{fault}/{name} {way}", arm)
    for name, wish in policies.items():
        study(f"grid/usual/{name}", partial(drive, "grid", "usual", wish, seconds=600))
    predictors(study, range(1, 5))


if __name__ == "__main__":
    main()
