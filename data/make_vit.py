"""Chapter 20: how far a vision transformer is behind a CNN on few digits.

    python data/make_vit.py     # writes data/results/vit.json and data/vit.safetensors

Arms are named how/model/images/seed. `plain` and `augmented`: a CNN (chapter 12's) and
a ViT of as many weights learn from 250, 1,000 or 3,500 digits, 1,500 updates of 64.
`distilled`: a ViT that also learns from what such a CNN says about the same augmented
picture. `tune`: learning rates, on validation data. `long`: three times as many
updates. `places`: sinusoidal, 2-D rotary, none (1,000 augmented digits, as in
augmented/vit/1000). `live`: what the chapter trains itself. `hits`: 1 for each test
digit that is read. The weights that ship are of a ViT with patches of 4 pixels, trained
on all 3,500 for 4,000 updates.
"""

from functools import partial

import torch
import torch.nn.functional as F
from study import Study
from torch import nn

from mmcourse.attention import MultiHeadAttention, fused_attention, sinusoidal_positions
from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.classifiers import ImageNet28
from mmcourse.datasets import SPLITS, mnist
from mmcourse.image import augment_image
from mmcourse.store import data_path
from mmcourse.training import accuracy, count_parameters, fit, predict, warmup_cosine
from mmcourse.vit import ViT, ViTClassifier, rotary_2d

SIZES = 250, 1000, 3500
LR = {"cnn": 3e-3, "vit": 2e-3}


def make(model: str) -> nn.Module:
    return ImageNet28() if model == "cnn" else ViTClassifier(ViT(dropout=0.1))


class Distilled(nn.Module):
    "In training, what the student and the teacher say; else the student's answer."

    def __init__(self, student: nn.Module, teacher: nn.Module):
        super().__init__()
        self.student = student
        self.teach = teacher.eval().forward  # no submodule: it stays as it is

    def forward(self, x):
        said = self.student(x)
        if not self.training:
            return said
        with torch.no_grad():
            taught = self.teach(x)
        return torch.stack([said, taught], 1)  # (B, 2, classes)


def both_losses(outputs, y, temperature: float = 2.0):
    "Half from the labels, half from the teacher's softened answer [Hinton 2015]."
    if outputs.ndim == 2:
        return F.cross_entropy(outputs, y)
    student, teacher = outputs.unbind(1)
    soft = (teacher / temperature).softmax(1)
    taught = F.cross_entropy(student / temperature, soft) * temperature**2
    return (F.cross_entropy(student, y) + taught) / 2


class RotaryAttention(MultiHeadAttention):
    "Queries and keys turned by row and column; the class token stands at (0, 0)."

    def forward(self, x, mask=None):
        q, k, v = map(self.split, (self.to_q(x), self.to_k(x), self.to_v(x)))
        side = round((x.shape[1] - 1) ** 0.5)
        n = torch.arange(side * side)
        at = [F.pad(1 + i, (1, 0)) for i in (n // side, n % side)]
        y = fused_attention(rotary_2d(q, *at), rotary_2d(k, *at), v, mask)
        return self.out(y.transpose(1, 2).flatten(2))


def placed(kind: str) -> nn.Module:
    "A ViT whose places are not learnt."
    model = make("vit")
    positions = model.vit.positions
    nn.init.zeros_(positions)
    positions.requires_grad_(False)
    if kind == "sinusoidal":
        positions.copy_(sinusoidal_positions(*positions.shape[1:])[None])
    if kind == "rotary":
        for block in model.vit.blocks:
            block.attend = RotaryAttention(48, 4)
    return model


def main():
    study = Study("vit", __doc__, about="chapter 20")
    digits = {s: mnist(s) for s in SPLITS}
    image = {s: torch.as_tensor(d["image"])[:, None] for s, d in digits.items()}
    label = {s: torch.as_tensor(d["label"]) for s, d in digits.items()}

    def train(model, n, seed, *, updates=1500, lr=None, **options):
        recipe = {"weight_decay": 0.05, "clip": 1.0, "schedule": warmup_cosine}
        lr = lr or LR["cnn" if isinstance(model, ImageNet28) else "vit"]
        epochs = -(-updates // -(-n // 64))  # a batch less than full is one, too
        part = image["train"][:n], label["train"][:n]
        fit(model, part, epochs=epochs, lr=lr, seed=seed, **recipe | options)
        return model

    def score(model) -> dict:
        hits = predict(model, image["test"]).argmax(1) == label["test"]
        return {
            "valid": round(accuracy(model, (image["valid"], label["valid"])), 5),
            "test": round(hits.float().mean().item(), 5),
            "hits": "".join("01"[int(h)] for h in hits),
            "parameters": count_parameters(model),
        }

    def alone(made, n, seed, **options):  # made: () -> network
        return score(train(made(), n, seed, **options))

    def distilled(n, seed, **options):
        teacher = train(make("cnn"), n, seed, **options)
        both = Distilled(make("vit"), teacher)
        train(both, n, seed, loss=both_losses, metric=None, **options)
        return score(both.student)

    def ship(**options):
        model = ViTClassifier(ViT(patch=4, dropout=0.1))
        found = score(train(model, 3500, 0, updates=4000, **options))
        about = {"test": found["test"], "made by": "data/make_vit.py"}
        weights = shrink(model.state_dict())
        write_tensors(data_path("vit.safetensors"), weights, about)
        return found

    ways = {"plain": {}, "augmented": {"augment": augment_image}}
    more = ways["augmented"]
    networks = {name: partial(make, name) for name in LR}
    for seed in study.seeds(3):
        run = partial(alone, networks["vit"], 1000, seed, updates=600, **more)
        study(f"live/{seed}", run, seed)
    for model, rates in (("cnn", (1e-3, 3e-3, 1e-2)), ("vit", (1e-3, 2e-3, 4e-3))):
        for lr in rates:
            run = partial(alone, networks[model], 1000, 9, lr=lr, **more)
            study(f"tune/{model}/{lr:g}", run, 9)
    study("shipped/0", partial(ship, **more), 0)
    for seed in study.seeds(3):
        for n in SIZES:
            for how, options in ways.items():
                for model, made in networks.items():
                    run = partial(alone, made, n, seed, **options)
                    study(f"{how}/{model}/{n}/{seed}", run, seed)
            run = partial(distilled, n, seed, **more)
            study(f"distilled/vit/{n}/{seed}", run, seed)
    for seed in study.seeds(3):
        for kind in ("none", "sinusoidal", "rotary"):  # learnt: augmented/vit/1000
            run = partial(alone, partial(placed, kind), 1000, seed, **more)
            study(f"places/{kind}/{seed}", run, seed)
    for seed in study.seeds(3):
        for model, made in networks.items():
            run = partial(alone, made, 3500, seed, updates=4500, **more)
            study(f"long/{model}/3500/{seed}", run, seed)
        run = partial(distilled, 3500, seed, updates=4500, **more)
        study(f"long/distilled/3500/{seed}", run, seed)


if __name__ == "__main__":
    main()
