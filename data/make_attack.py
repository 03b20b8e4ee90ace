"""Chapter 30: attacks by strength and effort, and what the defences cost and keep.

    python data/make_attack.py      # data/results/attack.json, attack.safetensors

Arms are named what/how/seed. Hits are texts, 1 or 0 for each example in the order of
the test data. `curve`: the shipped picture network of chapter 12 of the same seed under
noise, FGSM and PGD, by ε. `train`: networks trained alike on clean pictures, on
pictures under random signs of 0.2, and on PGD's (7 steps, ε 0.2); `effort`: their
robust accuracy by steps and restarts; `grain`: under noise, the control. `transfer`:
from a CNN, an MLP and a ViT to each. `smooth`: trained under Gaussian noise, certified,
then attacked inside and beyond each certificate. `sound`: by decibels. `text`:
sentences that say the same. `fusion`: one modality of a fused model attacked; `worst`:
again, by cross-entropy, the margin and nine targets; an example counts if it stands
all. ε and the decibels were fixed before anything ran.
"""

import math
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from study import Study, bits
from torch import nn

from mmcourse.attack import (
    FromPixels,
    Hearing,
    Smoothed,
    certify,
    clip_range,
    fgsm,
    lengths,
    margin_loss,
    noise_harm,
    noise_of_size,
    pgd,
    pgd_harm,
    resists,
    rewrite_attack,
    rewrites,
    sign_harm,
    snr_radius,
    train_robust,
    vote_counts,
)
from mmcourse.attack_tools import Fused, one_input
from mmcourse.checkpoint import grow, read_tensors, shipped_state, shrink, write_tensors
from mmcourse.classifiers import (
    ImageNet28,
)
from mmcourse.datasets import SPLITS, mnist, spoken_digits
from mmcourse.hints import candidates, hints
from mmcourse.measure import seeded
from mmcourse.missing import joint_model, load_trusted
from mmcourse.noise_levels import load_experts
from mmcourse.pipeline import (
    extract_audio_features,
    extract_features,
    extract_text_features,
    moments,
    preprocess_audio,
    preprocess_data,
)
from mmcourse.shipped import read_classifiers
from mmcourse.store import data_path
from mmcourse.text import preprocess_text
from mmcourse.three_views import three_views
from mmcourse.training import mlp
from mmcourse.vit import ViT, ViTClassifier

EPS = 0.02, 0.05, 0.1, 0.15, 0.2, 0.3  # pixels in [0, 1]
SNR = 50, 40, 30, 20, 10  # decibels
N, FEWER = 300, 200  # test pictures
EPOCHS = 12
RADIUS = 0.2  # that adversarial training is for
SHIPPED = Path(__file__).with_name("attack.safetensors")


@torch.no_grad()
def hit(model, x, y) -> str:
    return bits(model(x).argmax(1) == y)


def keep(tensors):
    "Put tensors into the file that ships, beside what is in it."
    there = read_tensors(SHIPPED)[0] if SHIPPED.exists() else {}
    about = {"made by": "data/make_attack.py", "seed": 0}
    write_tensors(SHIPPED, there | tensors, about)


def frozen(model):
    return model.eval().requires_grad_(False)


def main():
    study = Study("attack", __doc__, about="chapter 30")
    digits = {s: mnist(s) for s in SPLITS}
    images = {s: torch.tensor(d["image"])[:, None] for s, d in digits.items()}
    labels = {s: torch.tensor(d["label"]) for s, d in digits.items()}
    scale = moments(digits["train"]["image"])
    x, y = images["test"][:N], labels["test"][:N]

    @cache
    def shipped(modality):
        nets = read_classifiers(data_path("classifiers.safetensors"), modality)
        wrap = Hearing if modality == "audio" else partial(FromPixels, **_scale)
        return [frozen(wrap(net)) for net in nets]

    _scale = dict(zip(("mean", "deviation"), scale))

    def curve(seed):
        model, g = shipped("image")[seed], torch.Generator().manual_seed(seed)
        found = {"clean": hit(model, x, y)}
        for eps in EPS:
            noise = noise_of_size(x, eps, generator=g)
            found[f"noise {eps}"] = hit(model, (x + noise).clamp(0, 1), y)
            found[f"FGSM {eps}"] = hit(model, fgsm(model, x, y, eps), y)
            found[f"PGD {eps}"] = bits(resists(model, x, y, eps, steps=40))
        return found

    HARMS = {
        "clean": lambda model, x, y, g: x,
        "noise": sign_harm(RADIUS),
        "PGD": pgd_harm(RADIUS),
    }

    @cache
    def trained(how, seed):
        with seeded(seed):
            model = FromPixels(ImageNet28(), *scale)
        data = images["train"], labels["train"]
        return frozen(train_robust(model, *data, HARMS[how], seed=seed, epochs=EPOCHS))

    def train(how, seed):
        model = trained(how, seed)
        if seed == 0:
            small = shrink(model.net.state_dict(), 8)
            keep({f"{how}.{k}": v for k, v in small.items()})
        return {"clean": hit(model, x, y)}

    def effort(how, seed):
        model, found = trained(how, seed), {}
        x, y = images["test"][:FEWER], labels["test"][:FEWER]
        for steps in (1, 2, 5, 10, 20, 40, 100):
            found[f"steps {steps}"] = bits(resists(model, x, y, RADIUS, steps=steps))
        more = resists(model, x, y, RADIUS, steps=40, restarts=3, seed=seed)
        found["3 restarts"] = bits(more)
        for eps in (0.05, 0.1, 0.15, 0.3):
            left = resists(model, x, y, eps, steps=20)
            found[f"PGD {eps}"] = bits(left)
        return found

    def grain(how, seed):
        model, g = trained(how, seed), torch.Generator().manual_seed(seed)
        found = {"clean": hit(model, x, y)}  # as in `train`
        for eps in (0.1, 0.2, 0.3):
            noise = noise_of_size(x[:FEWER], eps, generator=g)
            z = (x[:FEWER] + noise).clamp(0, 1)
            found[f"noise {eps}"] = hit(model, z, y[:FEWER])
        return found

    for seed in study.seeds(3):
        study(f"curve/shipped/{seed}", partial(curve, seed), seed)
    for how in HARMS:
        for seed in study.seeds(3):
            study(f"train/{how}/{seed}", partial(train, how, seed), seed)
            study(f"effort/{how}/{seed}", partial(effort, how, seed), seed)
    for seed in study.seeds(3):
        for how in HARMS:
            study(f"grain/{how}/{seed}", partial(grain, how, seed), seed)

    # smoothing
    def smooth(sigma, seed):
        with seeded(seed):
            model = FromPixels(ImageNet28(), *scale)
        data = images["train"], labels["train"]
        frozen(train_robust(model, *data, noise_harm(sigma), seed=seed, epochs=EPOCHS))
        if seed == 0 and sigma == 0.5:
            small = shrink(model.net.state_dict(), 8)
            keep({f"smooth.{k}": v for k, v in small.items()})
        n, part, goal = 200, x[:200], y[:200]
        alpha = 0.05 / n  # all certificates together are wrong in one of twenty runs
        made = [certify(model, p[None], sigma, n=2000, alpha=alpha) for p in part]
        top = torch.tensor([c for c, _ in made])
        radius = torch.tensor([r for _, r in made])
        found = {"hits": bits(top == goal), "radius": [round(r, 4) for _, r in made]}
        climb = Smoothed(model, sigma, 16, seed)
        options = {"norm": "l2", "steps": 20, "bounds": (-math.inf, math.inf)}
        for name, share in (("inside", 0.99), ("three times", 3.0)):
            sure = radius > 0
            eps = (share * radius)[sure].view(-1, 1, 1, 1)
            z = pgd(climb, part[sure], top[sure], eps, **options)
            g = torch.Generator().manual_seed(1000 + seed)
            votes = [vote_counts(model, p[None], sigma, 2000, g) for p in z]
            kept = [int(v[c]) for v, c in zip(votes, top[sure])]
            best = [int(v.scatter(0, c, -1).max()) for v, c in zip(votes, top[sure])]
            found |= {f"{name}: own": kept, f"{name}: other": best}
        return found

    # transfer
    @cache
    def others(seed):
        with seeded(seed):
            flat = FromPixels(mlp(784, 128), *scale)
        data = images["train"], labels["train"]
        frozen(train_robust(flat, *data, HARMS["clean"], seed=seed, epochs=EPOCHS))
        vit = ViTClassifier(ViT(patch=4))
        vit.load_state_dict(grow(read_tensors(data_path("vit.safetensors"))[0]))
        if seed == 0:
            small = shrink(flat.net.state_dict(), 8)
            keep({f"mlp.{k}": v for k, v in small.items()})
        return {"MLP": flat, "ViT": frozen(vit)}

    def transfer(seed):
        cnns, two = shipped("image"), others(seed)
        sources = {"CNN": cnns[seed]} | two
        goals = {"CNN": cnns[(seed + 1) % 3], "MLP": others((seed + 1) % 3)["MLP"]}
        goals |= {"ViT": two["ViT"]}
        found = {}
        for name, source in sources.items():
            z = pgd(source, x, y, 0.1, steps=40)
            found[f"{name} to itself"] = hit(source, z, y)
            for goal, model in goals.items():
                if model is not source:
                    found[f"{name} to {goal}"] = hit(model, z, y)
        g = torch.Generator().manual_seed(seed)
        noisy = (x + noise_of_size(x, 0.1, generator=g)).clamp(0, 1)
        for goal, model in goals.items():
            found[f"noise to {goal}"] = hit(model, noisy, y)
        return found

    for seed in study.seeds(3):
        study(f"transfer/all/{seed}", partial(transfer, seed), seed)

    # sound
    @cache
    def clips():
        said = spoken_digits("test")
        few = slice(0, None, 3)  # every third clip: all voices are there
        cut = [a[:n] for a, n in zip(said["audio"][few], said["length"][few])]
        voice = ["slt" if "slt" in v else str(v) for v in said["voice"][few]]
        waves = torch.tensor(preprocess_audio(cut))
        return waves, torch.tensor(said["label"][few]), voice

    def sound(seed):
        waves, said, voice = clips()
        model, where = shipped("audio")[seed], clip_range(waves)
        found = {"voice": voice, "clean": hit(model, waves, said)}
        g = torch.Generator().manual_seed(seed)
        for db in SNR:
            eps = snr_radius(waves, db)
            noise = torch.randn(waves.shape, generator=g) * where
            noise = eps * noise / lengths(noise)
            found[f"noise {db}"] = hit(model, waves + noise, said)
            options = {"norm": "l2", "steps": 20, "bounds": (-1, 1), "where": where}
            z = pgd(model, waves, said, eps, **options)
            found[f"PGD {db}"] = hit(model, z, said)
        return found

    for seed in study.seeds(3):
        study(f"sound/PGD/{seed}", partial(sound, seed), seed)

    # text
    def reader(expert, known):
        def says(texts):
            ids = extract_text_features(preprocess_text(texts), known)
            return expert(ids)

        return says

    def text(seed):
        tensors, about = read_tensors(data_path("missing.safetensors"))
        expert = frozen(load_experts(tensors, seed, "noisy")["text"])
        says, data = reader(expert, about["stats"]["grams"]), hints("test", 1000)
        rows = [i for i in range(1000) if len(candidates(data["text"][i])) == 1][:200]
        rng, found = np.random.default_rng(seed), {"clean": [], "random": []}
        budgets = 5, 20, None
        found |= {f"worst of {b or 'all'}": [] for b in budgets}
        for i in rows:
            t, d = data["text"][i], int(data["label"][i])
            other = rewrites(t, d)
            tried = {"clean": t, "random": other[rng.integers(len(other))]}
            for b in budgets:
                best = rewrite_attack(says, t, d, budget=b, rng=rng)
                tried[f"worst of {b or 'all'}"] = best
            for name, said in tried.items():
                assert candidates(said) == {d}
                found[name].append(int(says([said]).argmax() == d))
        return {name: bits(hits) for name, hits in found.items()}

    for seed in study.seeds(3):
        study(f"text/rewrite/{seed}", partial(text, seed), seed)

    # fusion
    @cache
    def views():
        tensors, about = read_tensors(data_path("missing.safetensors"))
        return tensors, about["stats"], three_views("test", 100)

    def touchable():
        "What an attacker can touch: ids, pixels and waves; and the right answers."
        _, stats, raw = views()
        data = preprocess_data(raw, stats)
        ids, pictures, _ = extract_features(data)
        mean, deviation = stats["image"]
        pixels = (pictures * deviation + mean).clamp(0, 1)
        waves = torch.as_tensor(data["audio"])
        inputs = {"text": ids, "image": pixels, "audio": waves}
        where, eps = clip_range(waves), snr_radius(waves, 20)
        # these waves are scaled, and quieter than full scale: no bounds
        free = {"norm": "l2", "bounds": (-math.inf, math.inf), "where": where}
        ways = {"image": (0.1, {}), "audio": (eps, free)}
        return inputs, torch.tensor(raw["label"]), ways

    def attacked(model, seed):
        _, stats, raw = views()
        inputs, label, ways = touchable()
        pixels, waves = inputs["image"], inputs["audio"]
        eps, options = ways["audio"]
        where = options["where"]
        g = torch.Generator().manual_seed(seed)
        found = {"clean": hit(model, inputs, label)}
        say = one_input(model, inputs, "image")
        noise = noise_of_size(pixels, 0.1, generator=g)
        found["image: noise"] = hit(say, (pixels + noise).clamp(0, 1), label)
        found["image"] = hit(say, pgd(say, pixels, label, 0.1), label)
        only = model.alone("image")
        if only is not None:
            z = pgd(only, pixels, label, 0.1)
            found["image: expert alone"] = hit(only, z, label)
            found["image, aimed at the expert"] = hit(say, z, label)
        say = one_input(model, inputs, "audio")
        noise = torch.randn(waves.shape, generator=g) * where
        noise = eps * noise / lengths(noise)
        found["audio: noise"] = hit(say, waves + noise, label)
        found["audio"] = hit(say, pgd(say, waves, label, eps, **options), label)
        rng = np.random.default_rng(seed)
        found |= {"text": [], "text: random": []}
        heard = inputs | {"audio": extract_audio_features(waves)}
        for i, (t, d) in enumerate(zip(raw["text"], raw["label"].tolist())):
            rest = {m: v[i : i + 1] for m, v in heard.items()}

            def says(texts, rest=rest):
                new = extract_text_features(preprocess_text(texts), stats["grams"])
                many = {m: v.expand(len(new), *v.shape[1:]) for m, v in rest.items()}
                return model(many | {"text": new})

            other = rewrites(t, d)
            other = other[rng.integers(len(other))]
            worst = rewrite_attack(says, t, d, budget=20, rng=rng)
            found["text"].append(int(says([worst]).argmax() == d))
            found["text: random"].append(int(says([other]).argmax() == d))
        return found | {k: bits(found[k]) for k in ("text", "text: random")}

    def worst(model, m):
        "Each example against eleven attacks on one modality: 1 where it stands them."
        inputs, label, ways = touchable()
        eps, options = ways[m]
        left, found = torch.arange(len(label)), {}

        def stand(y=label, **more):
            "Which of those that are left stand one attack more."
            say = one_input(model, {k: v[left] for k, v in inputs.items()}, m)
            how = options | {k: v[left] for k, v in options.items() if k == "where"}
            size = eps[left] if torch.is_tensor(eps) else eps
            z = pgd(say, inputs[m][left], y[left], size, **how, **more)
            with torch.no_grad():
                return left[say(z).argmax(1) == label[left]]

        def hits():
            return bits(torch.isin(torch.arange(len(label)), left))

        with torch.no_grad():
            left = left[model(inputs).argmax(1) == label]
        left = stand()
        found["PGD"] = hits()
        left = stand(loss=margin_loss)
        found["and margin"] = hits()
        for k in range(1, 10):
            left = stand((label + k) % 10, targeted=True)
        return found | {"and nine targets": hits()}

    def fused(kind, seed):
        tensors, stats, _ = views()
        if kind == "concat":
            net = joint_model(len(stats["grams"]))
            net.load_state_dict(shipped_state(tensors, f"{seed}.joint."))
        elif kind == "trusted":
            net = load_trusted(tensors, seed)
        else:
            net = nn.ModuleDict(load_experts(tensors, seed, "noisy"))
        how = "joint" if kind in ("concat", "trusted") else kind
        return Fused(frozen(net), kind=how, scale=stats["image"])

    for kind in ("concat", "product", "mean", "majority", "trusted"):
        for seed in study.seeds(1 if kind == "concat" else 3):

            def run(kind=kind, seed=seed):
                return attacked(fused(kind, seed), seed)

            study(f"fusion/{kind}/{seed}", run, seed)

    for m in ("image", "audio"):
        for seed in study.seeds(3):
            for kind in ("product", "mean", "majority", "trusted"):

                def run_all(kind=kind, seed=seed, m=m):
                    return worst(fused(kind, seed), m)

                study(f"worst {m}/{kind}/{seed}", run_all, seed)

    for sigma in (0.5, 0.25):
        for seed in study.seeds(3):
            study(f"smooth/{sigma}/{seed}", partial(smooth, sigma, seed), seed)


if __name__ == "__main__":
    main()
