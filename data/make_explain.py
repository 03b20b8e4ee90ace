"""Chapter 29: tests of explanations, and shortcuts that they should find.

    python data/make_explain.py    # writes data/results/explain.json

Arms are named what/how/seed. `deletion`: areas under the deletion and the insertion
curve of 300 test digits, ordered by a method, for each of the three shipped classifiers
of pictures. `baseline`: the same for integrated gradients from another baseline, with
black, the mean and noise in the place of what is deleted; their rank correlation with
those from black, over all pixels and over the ink; the share of their size on the ink.
`random`: (layers + 1, 60) rank correlations of the sizes of a map with that of the
trained network, when so many of its last layers are random, over `all` pixels and over
those with `ink`; another draw of weights for each of the three networks. `picture` and
`sound`: networks trained on marked data, five seeds and three; in `shortcut` the mark's
place is the class, in `control` it is drawn, `unmarked` has learnt without marks.
`marked`, `clean`, `wrong mark`: accuracy on test data; `area`: the mark's part of the
input; `maps` (100 pictures, 50 sounds): {method: [share of its size on the mark,
share of the inputs whose largest place is the mark]}; of these, `no mark` is
integrated gradients of the clean input, and `random weights` those of the network
destroyed; `digit`: the map of one digit (seed 0).
`attention`: three vision transformers; rank correlations, digit by
digit, of an order of the 49 patches with what taking a patch out (or painting it black)
does to the answer's logit, over all patches and over those with ink; `rollout, random
weights` holds five networks of each, one after another; `patches` is about the two
interventions. `words`: the three text experts; whether the answer of 200 hints
changes when one, two, three words go, by an order. Nothing was chosen by these figures.
"""

from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from study import Study, bits

from mmcourse.checkpoint import read_tensors
from mmcourse.classifiers import train_audio_classifier, train_image_classifier
from mmcourse.datasets import mnist, spoken_digits, three_views
from mmcourse.explain import (
    class_score,
    deletion_curve,
    grad_cam,
    guided_gradient,
    insertion_curve,
    integrated_gradients,
    occlude,
    randomised,
    rank_correlation,
    score_gradient,
    shapley_values,
    without_patch,
    word_gradients,
    word_logits,
)
from mmcourse.image import augment_image
from mmcourse.noise_levels import load_experts
from mmcourse.pipeline import load_features
from mmcourse.shipped import read_classifiers
from mmcourse.store import data_path
from mmcourse.text import preprocess_text
from mmcourse.training import accuracy, fit, warmup_cosine
from mmcourse.vit import ViT, ViTClassifier, rollout

BASELINES = "black", "mean", "noise"
LOOKS = "patches", "last block", "mean of the blocks", "rollout"
LOOKS = *LOOKS, "rollout of another digit", "nearness to the centre", "ink"
LOOKS = *LOOKS, "integrated gradients", "rollout, random weights"


@cache
def data(load):
    return load_features(load)


def black(x):
    return torch.full_like(x, x.min().item())


def edges(x):
    "How steep the picture is: Sobel's filter. It knows of no model."
    k = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    both = F.conv2d(padded, torch.stack([k, k.T])[:, None])
    return both.square().sum(1, keepdim=True).sqrt()


def explained(method, model, x, label):
    "A map of each picture."
    f = class_score(model, label)
    if method == "random":
        return torch.rand(x.shape)
    if method == "ink":
        return x
    if method == "ink in squares":  # the size of Grad-CAM's places
        return F.interpolate(F.avg_pool2d(x, 4), scale_factor=4)
    if method == "edges":
        return edges(x)
    if method == "guided":
        return guided_gradient(model, x, label)
    if method == "gradient":
        return score_gradient(f, x).abs()
    if method == "signed gradient":
        return score_gradient(f, x)
    if method == "gradient × way":  # from black
        return score_gradient(f, x) * (x - black(x))
    if method == "gradient × input":
        return score_gradient(f, x) * x
    if method == "mean gradient":  # integrated gradients without the factor
        a = integrated_gradients(f, x, black(x), 64)
        return a / (x - black(x)).clamp_min(1e-6)
    if method == "integrated gradients":
        return integrated_gradients(f, x, black(x), 64)
    if method == "occlusion":
        return occlude(f, x, black(x))
    return F.interpolate(grad_cam(f, x, model.net.body[5]), scale_factor=4)


def areas(model, x, label, order, filler):
    args = model, x, label, order, filler
    found = {"deletion": deletion_curve(*args), "insertion": insertion_curve(*args)}
    return {k: rounded(v.mean(1)) for k, v in found.items()}


def rounded(x):
    return [round(v, 3) for v in x.tolist()]


def judge(method, model, x):
    label = model(x).argmax(1)
    return areas(model, x, label, explained(method, model, x, label), black(x))


def nothing(name, x):
    "An input that is taken to say nothing."
    noise = torch.rand(x.shape) * (x.max() - x.min()) + x.min()
    return {"black": black(x), "mean": torch.zeros_like(x), "noise": noise}[name]


def from_baseline(name, model, x):
    label, ink = model(x).argmax(1), x > x.min()
    f = class_score(model, label)
    usual = integrated_gradients(f, x, black(x), 64)
    a = integrated_gradients(f, x, nothing(name, x), 64)
    share = (a.abs() * ink).sum((1, 2, 3)) / a.abs().sum((1, 2, 3))
    found = {k: areas(model, x, label, a, nothing(k, x)) for k in BASELINES}
    found["agreement"] = rounded(rank_correlation(a, usual))
    found["agreement on ink"] = rounded(rank_correlation(a, usual, ink))
    return found | {"ink share": rounded(share)}


def destroyed(method, model, x, seed):
    label = model(x).argmax(1)
    trained = explained(method, model, x, label).abs()
    layers = sum(hasattr(m, "reset_parameters") for m in model.modules())
    found = {"all": [], "ink": []}
    for n in range(layers + 1):
        other = randomised(model, n, seed).requires_grad_(False)
        now = explained(method, other, x, label).abs()
        found["all"].append(rounded(rank_correlation(trained, now)))
        found["ink"].append(rounded(rank_correlation(trained, now, x > x.min())))
    return found


def place(kind, k):
    "Which part of an input the mark of class k takes."
    if kind == "picture":
        return slice(None), slice(25, 27), slice(4 + 2 * k, 6 + 2 * k)
    return slice(k, k + 1), slice(None)


def marked(kind, x, classes):
    "The inputs with the mark of each class, and where it is."
    x, where = x.clone(), torch.zeros_like(x, dtype=bool)
    for i, k in enumerate(classes.tolist()):
        where[i][place(kind, k)] = True
    if kind == "sound":
        where &= (x > -60).any(1, keepdim=True)  # a clip hums while it lasts
    x[where] = x.max() if kind == "picture" else 0.0
    return x, where


def shortcut(kind, how, seed):
    views = data(mnist if kind == "picture" else spoken_digits)
    m, train = ("image", train_image_classifier)
    if kind == "sound":
        m, train = "audio", train_audio_classifier
    x, y = views["train"]["features"][m][:2000], views["train"]["label"][:2000]
    if how != "unmarked":
        x, _ = marked(kind, x, y if how == "shortcut" else torch.randint(10, y.shape))
    model = train(x, y.numpy(), seed=seed).eval().requires_grad_(False)
    x, y = views["test"]["features"][m], views["test"]["label"]
    right, where = marked(kind, x, y)
    found = {
        "marked": accuracy(model, (right, y)),
        "clean": accuracy(model, (x, y)),
        "wrong mark": accuracy(model, (marked(kind, x, (y + 3) % 10)[0], y)),
    }
    n = 100 if kind == "picture" else 50
    maps, area = on_the_mark(kind, model, right[:n], x[:n], where[:n])
    found |= {"maps": maps, "area": area}
    if kind == "picture" and seed == 0:
        one = right[:1]
        f = class_score(model, model(one).argmax(1))
        a = integrated_gradients(f, one, black(one), 64)
        found["digit"] = {"input": rounded(one.flatten()), "map": rounded(a.flatten())}
    return found


def start_of(kind, x):
    "Black, or a clip that is just as long with nothing to hear in it."
    quiet = torch.where((x > -60).any(1, keepdim=True), -59.0, x)
    return black(x) if kind == "picture" else quiet


def on_the_mark(kind, model, x, clean, where):
    steps = 64 if kind == "picture" else 256
    label, start = model(x).argmax(1), start_of(kind, x)
    other = randomised(model).requires_grad_(False)

    def walked(net, v, v0):
        return integrated_gradients(class_score(net, label), v, v0, steps)

    def bare(a):  # without the factor
        way = x - start
        return torch.where(way.abs() > 1e-6, a / way, 0.0)

    a, r = walked(model, x, start), walked(other, x, start)
    maps = {"integrated gradients": a, "without the factor": bare(a)}
    maps["no mark"] = walked(model, clean, start_of(kind, clean))
    maps |= {"random weights": r, "random, without the factor": bare(r)}
    if kind == "picture":
        for m in ("gradient", "gradient × way", "occlusion", "Grad-CAM"):
            maps[m] = explained(m, model, x, label)
        maps["ink"] = x - black(x)
    else:
        maps["gradient"] = score_gradient(class_score(model, label), x)
        maps["loudness"] = x - start
    there = torch.ones_like(x) if kind == "picture" else (x > -60).float()
    found = {k: (shares(m, where), tops(kind, m, where)) for k, m in maps.items()}
    area = (where.sum() / there.sum()).item()
    return {k: [round(v, 4) for v in pair] for k, pair in found.items()}, area


def shares(a, where):
    size = a.abs().flatten(1)
    return (
        ((size * where.flatten(1)).sum(1) / size.sum(1).clamp_min(1e-9)).mean().item()
    )


def tops(kind, a, where):
    "In how many inputs the largest square of 2 by 2, or the largest band, is marked."
    size, where = a.abs(), where.float()
    if kind == "picture":
        size, where = F.avg_pool2d(size, 2, 1), F.max_pool2d(where, 2, 1)
    else:
        size, where = size.sum(2), where.amax(2)
    size, where = size.flatten(1), where.flatten(1)
    best = size.amax(1, keepdim=True)
    return ((size == best) & (best > 0) & (where > 0)).any(1).float().mean().item()


# attention
def transformer(seed):
    d = mnist("train")
    pixels, label = torch.as_tensor(d["image"])[:, None], torch.as_tensor(d["label"])
    recipe = {"weight_decay": 0.05, "clip": 1.0, "schedule": warmup_cosine}
    model = ViTClassifier(ViT(patch=4, dropout=0.1))
    more = {"augment": augment_image, "epochs": 28, "lr": 2e-3, "seed": seed}
    fit(model, (pixels, label), **recipe | more)
    return model.requires_grad_(False)


def patches(a):  # (N, 1, 28, 28) -> (N, 49)
    return F.avg_pool2d(a, 4).flatten(1)


@cache
def intervened(seed):
    "A transformer, 100 digits, what two interventions do, and orders of the patches."
    d = mnist("test")
    pixels, label = torch.as_tensor(d["image"])[:, None], torch.as_tensor(d["label"])
    model = transformer(seed)
    test, pixels = accuracy(model, (pixels, label)), pixels[:100]
    said = model(pixels).argmax(1)
    k, f, none = said[:, None], class_score(model, said), torch.zeros_like(pixels)
    before = model(pixels).gather(1, k)
    out = [before - without_patch(model, pixels, j).gather(1, k) for j in range(49)]
    black_patch = patches(occlude(f, pixels, none))
    weights = model.vit.weights(pixels)
    row, column = np.divmod(np.arange(49), 7)
    middle = torch.tensor(-np.hypot(row - 3, column - 3)).expand(100, -1)
    orders = {"last block": weights[-1].mean(1)[:, 0, 1:]}
    orders["mean of the blocks"] = sum(w.mean(1)[:, 0, 1:] for w in weights)
    orders["rollout"] = rollout(weights)[:, 0, 1:]
    orders["rollout of another digit"] = orders["rollout"].roll(1, 0)
    orders["nearness to the centre"] = middle
    orders["ink"] = patches(pixels)
    a = integrated_gradients(f, pixels, none, 32)
    orders["integrated gradients"] = 16 * patches(a).abs()
    return model, pixels, test, torch.cat(out, 1), black_patch, orders


def attention(name, seed):
    model, pixels, test, out, painted, orders = intervened(seed)
    ink = orders["ink"] > 0
    if name == "patches":
        agree = rank_correlation(out.abs(), painted.abs(), ink)
        rises = (out < 0).float().mean().item()
        return {"test": test, "black, out": rounded(agree), "rises": rises}
    if name == "rollout, random weights":
        blind = [randomised(model, seed=10 * seed + draw) for draw in range(5)]
        order = [rollout(m.vit.weights(pixels))[:, 0, 1:] for m in blind]
    else:
        order = [orders[name]]

    def ranked(effect, where=None):
        found = [rank_correlation(v, effect, where) for v in order]
        return rounded(np.concatenate(found))

    return {
        "size": ranked(out.abs()),
        "size on ink": ranked(out.abs(), ink),
        "black on ink": ranked(painted.abs(), ink),
        "fall": ranked(out),
    }


# words
def words(seed):
    tensors, about = read_tensors(data_path("missing.safetensors"))
    known = about["stats"]["grams"]
    reader = load_experts(tensors, seed, "noisy")["text"].requires_grad_(False)
    hints = preprocess_text(three_views("test", 700)["text"])
    hints = [h for h in hints if 4 <= len(h) <= 12][:200]
    found = {}
    for h in hints:
        n, says = len(h), word_logits(reader, h, known)
        everything = np.ones((1, n), bool)
        k = says(everything)[0].argmax()
        alone, apart = says(np.eye(n, dtype=bool))[:, k], says(~np.eye(n, dtype=bool))
        orders = {
            "Shapley": shapley_values(lambda t, k=k, says=says: says(t)[:, k], n),
            "integrated gradients": word_gradients(reader, h, known, k)[0],
            "left out": -apart[:, k],
            "alone": alone,
            "longest": np.array([len(w) for w in h]),
            "random": np.random.rand(n),
        }
        for name, order in orders.items():
            gone = np.argsort(-order, kind="stable")
            for m in (1, 2, 3):
                there = everything.copy()
                there[0, gone[:m]] = False
                changed = says(there)[0].argmax() != k
                found.setdefault(name, {}).setdefault(str(m), []).append(changed)
    return {k: {m: bits(v) for m, v in each.items()} for k, each in found.items()}


if __name__ == "__main__":
    study = Study("explain", __doc__, command="python data/make_explain.py")
    nets = read_classifiers(data_path("classifiers.safetensors"), "image")
    nets = [net.requires_grad_(False) for net in nets]
    x = data(mnist)["test"]["features"]["image"][:300]
    methods = "gradient", "gradient × input", "integrated gradients", "occlusion"
    methods = *methods, "Grad-CAM"
    for s, net in enumerate(nets):
        for k in (
            "random",
            "ink",
            "ink in squares",
            "signed gradient",
            "gradient × way",
        ):
            study(f"deletion/{k}/{s}", partial(judge, k, net, x), s)
        for k in methods:
            study(f"deletion/{k}/{s}", partial(judge, k, net, x), s)
        for k in BASELINES:
            study(f"baseline/{k}/{s}", partial(from_baseline, k, net, x), s)
        for k in ("edges", "guided", "mean gradient", *methods):
            study(f"random/{k}/{s}", partial(destroyed, k, net, x[:60], s), s)
    for s in study.seeds(3):
        study(f"words/{s}", partial(words, s), s)
    for kind, seeds in (("picture", 5), ("sound", 3)):
        for s in study.seeds(seeds):
            for how in ("shortcut", "control", "unmarked"):
                study(f"{kind}/{how}/{s}", partial(shortcut, kind, how, s), s)
    for s in study.seeds(3):
        for k in LOOKS:
            study(f"attention/{k}/{s}", partial(attention, k, s), s)
