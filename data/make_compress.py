"""Chapter 33: what compressed models keep, by method and by how much is taken away.

    python data/make_compress.py    # data/results/compress.json, compress.safetensors

Arms are named what/how/seed. Each holds hits as texts, a 1 or 0 for each example of
`three_views`: on 500 validation and 1,000 test examples, on the test examples under
noise one level beyond training (`hard`), without their sound, and for 200 of them after
PGD on the picture (white box, ε 0.05, ten steps; through rounding as if it were not
there). `full`: the joint model of chapter 18 with concatenation, trained with
modalities hidden; `longer`: the same with the epochs of fine-tuning, the control of all
that are tuned; `longest`, `tuned long`: sixteen epochs of it. `bits`: weights alone;
`int8`: activations, too. `prune`: single weights; `slim`: channels; `rank`: two thin
layers for one; each as it is cut, tuned, and its control (weights or channels at
random; the same shape from fresh weights).
`student`: one view, taught by labels, by three views, or by one. `exit`: cheap views
first. What is chosen is chosen by `valid`.
Finished full models are kept in a folder.
"""

import tempfile
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from study import Study, bits
from torch import nn

from mmcourse.checkpoint import read_tensors, shrink, write_tensors
from mmcourse.classifiers import AudioNet, ImageNet28, TextNet
from mmcourse.compress import (
    LAYERS,
    Rounding,
    ThreeInputs,
    calibrated,
    choose_sureness,
    distillation_loss,
    exit_answers,
    first_sure,
    fold_norms,
    keep_zeros,
    onnx_runner,
    prune_smallest,
    swapped,
    to_onnx,
)
from mmcourse.compress_tools import (
    HARD,
    input_moments,
    judged,
    onnx_int8,
    slim_channels,
    slim_model,
    thinner,
)
from mmcourse.datasets import MODALITIES
from mmcourse.measure import seeded
from mmcourse.missing import harder, joint_model
from mmcourse.pipeline import extract_features, load_features, preprocess_data
from mmcourse.three_views import three_views
from mmcourse.training import fit, predict, warmup_cosine

EPOCHS, TUNING, STUDENT = 16, 4, 8
LONG = 16  # epochs of tuning, where four are too few
SEEDS = 3
SHARES = 0.8, 0.9, 0.95  # of weights that go
WIDTH = 0.5  # of channels that stay
RANK = 0.25  # of weights that stay
TEMPERATURES = 1.0, 4.0
SURE = 0.5, 0.7, 0.8, 0.9, 0.95, 0.99
FOLDER = Path(tempfile.gettempdir()) / "mmcourse-make-compress"
SHIPPED = Path(__file__).with_name("compress.safetensors")
NETS = {"text": TextNet, "image": ImageNet28, "audio": AudioNet}


def main():
    study = Study("compress", __doc__, about="chapter 33")
    views = load_features(three_views)
    stats = views["train"]["stats"]
    x, y = views["train"]["features"], views["train"]["label"]
    n_grams = len(stats["grams"])
    everything = {m: torch.ones(len(y), dtype=torch.bool) for m in MODALITIES}
    raw = three_views("test", **HARD)
    hard = dict(zip(MODALITIES, extract_features(preprocess_data(raw, stats))))
    data = {s: views[s] for s in ("valid", "test")} | {"scale": stats["image"]}
    data["hard"] = {"features": hard, "label": torch.as_tensor(raw["label"])}
    judge = partial(judged, data=data)

    def train(model, epochs, lr, seed, **more):
        usual = {"weight_decay": 0.05, "schedule": warmup_cosine, "seed": seed}
        augment = partial(harder, noise=False, dropout=0.3)
        inputs = ((x, everything), y)
        fit(model, inputs, epochs=epochs, lr=lr, augment=augment, **usual | more)
        return model

    def tuned(model, seed, epochs=TUNING, **more):
        return train(model, epochs, 1e-3, seed, **more)

    @cache
    def full(seed):
        with seeded(seed):
            model = joint_model(n_grams)
        file = FOLDER / f"{seed}.safetensors"
        if file.exists():
            model.load_state_dict(read_tensors(file)[0])
            return model.eval()
        model = train(model, EPOCHS, 4e-3, seed).eval()
        write_tensors(file, model.state_dict(), {})
        if seed == 0:
            about = {"made by": "data/make_compress.py", "seed": 0, "stats": stats}
            write_tensors(SHIPPED, shrink(model.state_dict()), about)
        return model

    names = ["slt" if "slt" in v else str(v) for v in views["test"]["voice"]]
    study("voices/test/0", lambda: names)
    copy = partial(swapped, make=lambda name, layer: None)
    some = {m: t[:256] for m, t in x.items()}, {}

    def run(name, make, **options):
        for seed in study.seeds(SEEDS):

            def once(seed=seed):
                return judge(make(seed), **options)

            study(f"{name}/{seed}", once, seed)

    def rounding(seed, kinds=LAYERS, calibrate=False, **how):
        make = lambda name, layer: Rounding(layer, **how)  # noqa: E731
        model = swapped(fold_norms(full(seed)), make, kinds)
        return calibrated(model, some) if calibrate else model

    run("full/all", full)
    run("full/longer", lambda s: tuned(copy(full(s)), s))
    run("full/longest", lambda s: tuned(copy(full(s)), s, LONG))
    run("int8/static", partial(rounding, calibrate=True, static=True))
    run(
        "int8/static, one step for all",
        partial(rounding, calibrate=True, static=True, rows=False),
    )
    run("int8/dynamic", partial(rounding, kinds=(nn.Linear,), levels=127, rows=False))

    def cut(seed, share, at_random=False):
        return prune_smallest(full(seed), share, at_random=at_random)

    def cut_tuned(seed, share, at_random=False, epochs=TUNING):
        model = cut(seed, share, at_random)
        return tuned(model, seed, epochs, optimizer=keep_zeros(model))

    def slim_rounded(seed):
        make = lambda name, layer: Rounding(layer, static=True)  # noqa: E731
        return calibrated(swapped(thin_tuned(seed, share=WIDTH), make), some)

    @cache
    def thin_tuned(seed, share, at_random=False):
        return tuned(slim_channels(full(seed), share, at_random), seed)

    def fresh(seed, share):
        with seeded(seed):
            model = slim_model(n_grams, share)
        return tuned(train(model, EPOCHS, 4e-3, seed), seed)

    def thin_layers(seed, share, aware):
        model = full(seed)
        return thinner(model, share, input_moments(model, some) if aware else None)

    def exits(seed):
        model, order = full(seed), ("text", "image", "audio")

        def stages(split):
            found, n = [], len(views[split]["label"])
            for k in range(1, 4):
                here = {m: torch.full((n,), m in order[:k]) for m in order}
                found.append(
                    predict(model, (views[split]["features"], here)).softmax(1)
                )
            return torch.stack(found)

        valid, test = stages("valid"), stages("test")
        label = views["test"]["label"]
        chosen = choose_sureness(valid, views["valid"]["label"])
        g, found = torch.Generator().manual_seed(seed), {"chosen": chosen}
        found["last"] = bits(test[-1].argmax(1) == label)
        for sure in (*SURE, "chosen"):
            stage = first_sure(test, chosen if sure == "chosen" else sure)
            mixed = stage[torch.randperm(len(stage), generator=g)]
            found[f"{sure}: stage"] = "".join(map(str, stage.tolist()))
            found[f"{sure}: hits"] = bits(exit_answers(test, stage) == label)
            found[f"{sure}: mixed"] = bits(exit_answers(test, mixed) == label)
        return found

    def runtime(seed):
        model, one = full(seed), {m: t[:1] for m, t in x.items()}
        graph = to_onnx(ThreeInputs(model), one)
        small = onnx_int8(to_onnx(ThreeInputs(fold_norms(model)), one), some[0])
        found = {"bytes": len(graph), "int8: bytes": len(small)}
        for name, g in (("", graph), ("int8: ", small)):
            ask = onnx_runner(g)
            for split in ("test", "hard"):
                d = data[split]
                says = ask(d["features"])
                found[f"{name}{split}"] = bits(says.argmax(1) == d["label"])
        ours = predict(model, (data["test"]["features"], {}))
        gap = onnx_runner(graph)(data["test"]["features"]) - ours
        return found | {"largest difference": gap.abs().max().item()}

    for seed in study.seeds(SEEDS):
        study(f"exit/text image audio/{seed}", partial(exits, seed), seed)
        study(f"onnx/runtime/{seed}", partial(runtime, seed), seed)
    for n in (8, 4, 3, 2):
        for rows in (True, False):
            name = f"bits/{n}, {'rows' if rows else 'one step'}"
            run(name, partial(rounding, bits=n, rows=rows, levels=None), attack=False)

    # one view, taught
    fresh_raw = three_views("train", seed=1)
    new = dict(zip(MODALITIES, extract_features(preprocess_data(fresh_raw, stats))))
    new_label = torch.as_tensor(fresh_raw["label"])

    def one_view(m, seed):
        with seeded(seed):
            return NETS[m](n_grams) if m == "text" else NETS[m]()

    def taught(m, seed, inputs, targets, **options):
        usual = {"epochs": STUDENT, "lr": 3e-3, "weight_decay": 0.05}
        model = one_view(m, seed)
        fit(
            model,
            (inputs, targets),
            schedule=warmup_cosine,
            seed=seed,
            **usual | options,
        )
        return model

    @cache
    def by_labels(m, seed):
        return taught(m, seed, x[m], y)

    def student(m, how, seed, T=4.0):
        says = partial(predict, full(seed))
        if how == "labels":
            model = by_labels(m, seed)
        elif how == "smoothing":
            loss = partial(F.cross_entropy, label_smoothing=0.1)
            model = taught(m, seed, x[m], y, loss=loss)
        elif how == "350 labels":
            model = taught(m, seed, x[m][:350], y[:350], epochs=10 * STUDENT)
        elif how == "350 labels, teacher for all":
            few = y.clone()
            few[350:] = -1
            targets = says((x, {})), few
            loss = partial(distillation_loss, T=T)
            model = taught(m, seed, x[m], targets, loss=loss)
        elif how == "labels, new draws":
            model = taught(m, seed, new[m], new_label)
        else:
            inputs = new if "new draws" in how else x
            one = by_labels(m, (seed + 1) % SEEDS)
            logits = (
                predict(one, inputs[m]) if "one view" in how else says((inputs, {}))
            )
            loss = partial(distillation_loss, T=T, alpha=0.5 if "labels" in how else 0)
            model = taught(m, seed, inputs[m], (logits, y), loss=loss)
        found = {}
        for split in ("valid", "test", "hard"):
            label = data[split]["label"]
            logits = predict(model, data[split]["features"][m])
            found[split] = bits(logits.argmax(1) == label)
            found[f"{split}: nll"] = F.cross_entropy(logits, label).item()
        return found

    def students(m):
        for T in TEMPERATURES:
            for seed in study.seeds(SEEDS):
                name = f"student {m}/teacher, T {T:g}/{seed}"
                study(name, partial(student, m, "teacher", seed, T), seed)

        def right(T):  # over all seeds
            arms = [f"student {m}/teacher, T {T:g}/{k}" for k in study.seeds(SEEDS)]
            return sum(study.runs[arm]["valid"].count("1") for arm in arms)

        T = max(TEMPERATURES, key=right)
        for how in (
            "labels",
            "smoothing",
            "teacher and labels",
            "one view as teacher",
            "350 labels",
            "350 labels, teacher for all",
            "labels, new draws",
            "teacher, new draws",
        ):
            for seed in study.seeds(SEEDS):
                study(
                    f"student {m}/{how}/{seed}", partial(student, m, how, seed, T), seed
                )

    for p in SHARES:
        run(f"prune/{p:g}", partial(cut, share=p), attack=p == 0.9)
    run("prune/0.9, tuned", partial(cut_tuned, share=0.9))
    run("prune/0.9, tuned long", partial(cut_tuned, share=0.9, epochs=LONG))
    control = partial(cut_tuned, share=0.9, at_random=True)
    run("prune/0.9, random, tuned", control, attack=False)
    make = partial(thin_tuned, share=WIDTH)
    run(f"slim/{WIDTH:g}", lambda s: slim_channels(full(s), WIDTH), attack=False)
    run(f"slim/{WIDTH:g}, tuned", make)
    run(f"slim/{WIDTH:g}, random, tuned", partial(make, at_random=True), attack=False)
    run(f"slim/{WIDTH:g}, tuned, int8", slim_rounded)
    run(f"slim/{WIDTH:g}, fresh", partial(fresh, share=WIDTH))
    for aware in (False, True):
        name = f"rank/{RANK:g}{', aware' if aware else ''}"
        make = partial(thin_layers, share=RANK, aware=aware)
        run(name, make, attack=False)
        run(f"{name}, tuned", lambda s, make=make: tuned(make(s), s))
    students("image")


if __name__ == "__main__":
    main()
