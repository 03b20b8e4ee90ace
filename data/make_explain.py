"""Chapter 29: tests of explanations, and shortcuts that they should find.

    python data/make_explain.py    # writes data/results/explain.json

Arms are named what/how/seed. `deletion`: areas under the deletion and the insertion
curve of 300 test digits, ordered by a method, for each of the three shipped classifiers
of pictures. `baseline`: the same for integrated gradients from another baseline, their
rank correlation with those from black, and the share of their size on the ink.
`random`: (layers + 1, 60) rank correlations of the sizes of a map with that of the
trained network, when so many of its last layers are random, over `all` pixels and over
those with `ink`; another draw of weights for each of the three networks. `picture` and
`sound`: networks trained on marked data, five seeds and three; in `shortcut` the mark's
place is the class, in `control` it is drawn, `unmarked` has learnt without marks.
`marked`, `clean`, `wrong mark`: accuracy on test data;
`share`: of the size of the integrated gradients (64 and 256 steps) on the mark, `area`:
the mark's share of the input. Nothing was chosen by these figures.
"""

from functools import cache, partial

import torch
import torch.nn.functional as F
from study import Study

from mmcourse.classifiers import train_audio_classifier, train_image_classifier
from mmcourse.datasets import mnist, spoken_digits
from mmcourse.explain import (
    class_score,
    deletion_curve,
    edges,
    grad_cam,
    guided_gradient,
    insertion_curve,
    integrated_gradients,
    occlude,
    randomised,
    rank_correlation,
    score_gradient,
)
from mmcourse.pipeline import load_features
from mmcourse.shipped import read_classifiers
from mmcourse.store import data_path
from mmcourse.training import accuracy


@cache
def data(load):
    return load_features(load)


def black(x):
    return torch.full_like(x, x.min().item())


def explained(method, model, x, label):
    "A map of each picture."
    f = class_score(model, label)
    if method == "random":
        return torch.rand(x.shape)
    if method == "ink":
        return x
    if method == "edges":
        return edges(x)
    if method == "guided":
        return guided_gradient(model, x, label)
    if method == "gradient":
        return score_gradient(f, x).abs()
    if method == "gradient × input":
        return score_gradient(f, x) * x
    if method == "integrated gradients":
        return integrated_gradients(f, x, black(x), 64)
    if method == "occlusion":
        return occlude(f, x, black(x))
    return F.interpolate(grad_cam(f, x, model.net.body[5]), scale_factor=4)


def areas(model, x, label, order):
    args = model, x, label, order, black(x)
    found = {"deletion": deletion_curve(*args), "insertion": insertion_curve(*args)}
    return {k: rounded(v.mean(1)) for k, v in found.items()}


def rounded(x):
    return [round(v, 3) for v in x.tolist()]


def judge(method, model, x):
    label = model(x).argmax(1)
    return areas(model, x, label, explained(method, model, x, label))


def from_baseline(name, model, x):
    f = class_score(model, model(x).argmax(1))
    usual = integrated_gradients(f, x, black(x), 64)
    other = {"black": black(x), "mean": torch.zeros_like(x)}
    other["noise"] = torch.rand(x.shape) * (x.max() - x.min()) + x.min()
    a = integrated_gradients(f, x, other[name], 64)
    share = (a.abs() * (x > x.min())).sum((1, 2, 3)) / a.abs().sum((1, 2, 3))
    found = areas(model, x, model(x).argmax(1), a)
    agreement = rank_correlation(a, usual)
    return found | {"agreement": rounded(agreement), "ink share": rounded(share)}


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
    x, where, y = right[:100], where[:100], y[:100]
    quiet = torch.where((x > -60).any(1, keepdim=True), -59.0, x)
    start = black(x) if kind == "picture" else quiet
    f = class_score(model, model(x).argmax(1))
    a = integrated_gradients(f, x, start, 64 if kind == "picture" else 256).abs()
    there = torch.ones_like(x) if kind == "picture" else (x > -60).float()
    share = (a * where).flatten(1).sum(1) / a.flatten(1).sum(1)
    area = (where.sum() / there.sum()).item()
    return found | {"share": share.mean().item(), "area": area}


if __name__ == "__main__":
    study = Study("explain", __doc__, command="python data/make_explain.py")
    nets = read_classifiers(data_path("classifiers.safetensors"), "image")
    nets = [net.requires_grad_(False) for net in nets]
    x = data(mnist)["test"]["features"]["image"][:300]
    methods = "gradient", "gradient × input", "integrated gradients", "occlusion"
    methods = *methods, "Grad-CAM"
    for s, net in enumerate(nets):
        for k in ("random", "ink", *methods):
            study(f"deletion/{k}/{s}", partial(judge, k, net, x), s)
        for k in ("black", "mean", "noise"):
            study(f"baseline/{k}/{s}", partial(from_baseline, k, net, x), s)
        for k in ("edges", "guided", *methods):
            study(f"random/{k}/{s}", partial(destroyed, k, net, x[:60], s), s)
    for kind, seeds in (("picture", 5), ("sound", 3)):
        for s in study.seeds(seeds):
            for how in ("shortcut", "control", "unmarked"):
                study(f"{kind}/{how}/{s}", partial(shortcut, kind, how, s), s)
