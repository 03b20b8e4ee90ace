"""Chapter 21: small towers for pictures and names of emoji, trained in many ways.

    python data/make_contrastive.py
    # writes data/results/contrastive.json and data/contrastive.safetensors

Arms are named how/seed. `tune`: learnt from the training part and judged on validation,
to choose. All others learn from the training and the validation part, and are judged on
the 788 test pairs: `halves` among 394 candidates, `all` among all emoji; a string has a
1 for each question whose first answer was right. `shipped` is 1,200 steps, `live` 450,
`restyled` 450 with `restyle`. The rest compares recipes on towers of half the width
that see 19,200 pairs, 150 batches of 128.
"""

from functools import partial

import numpy as np
import torch
from study import Study

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
        **options,
    ):
        model = DualEncoder(
            PictureTower(width, dropout=dropout), NameTower(SIZE), bias=bias
        )
        if temperature:
            model.scale.data.fill_(-np.log(temperature))
            model.scale.requires_grad_(False)
        near = near_names(ids[rows]) if hard else None
        if copies:  # each pair twice in a batch
            n = len(rows)
            rows = torch.cat([rows, rows])
            near = torch.arange(2 * n).roll(n)[:, None]
        data = pixels[rows], ids[rows], drawing[rows]
        steps = round(steps * 128 / size)
        size = 2 * size if copies else size  # half of it are friends of one friend
        train_pairs(model, data, steps=steps, size=size, near=near, **options)
        return model

    def right(found) -> dict:
        return {
            way: "".join("01"[int(r == 1)] for r in ranks)
            for way, ranks in found.items()
        }

    def score(model, rows=at["test"]) -> dict:
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


if __name__ == "__main__":
    main()
