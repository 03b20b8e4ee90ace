"""Chapter 25: three encoders bound by pairs with pictures alone.

    python data/make_binding.py

Writes data/results/binding.json and data/binding.safetensors (seed 0 of `bound`).

Arms are named what/way/seed. The way is `bridged` (sentences and sounds, each paired
with pictures of their own) or `direct` (the same sounds, paired with sentences).
`at T`: with this temperature, `at learnt`: one that learns from 0.07 on; judged by
validation voices. `bound`: at the temperature that was best there, for each way its
own. `longer`: 1,200 steps instead of 300. `pairs N`, `batch N`: so many. `heaps one`:
the same pictures meet sentences and sounds. `wrong P`: a share P of the pictures
that meet sounds shows another digit. `white`: these pictures are dark on white.
`hints`, `hints longer`: sentences that only narrow a digit down.

`sums`: what damaged pictures and sounds are worth, alone and together, in the spaces of
`bound`; `sums noise`: with noise alone, on pixels and in sound; `sums unequal`: with
much more of it on pixels. `three kinds`: all pairs of both ways together. `labels N`: N
steps, beside a classifier that was told the digits, of as many steps. `emoji`:
pictures, English and Chinese names; the bridged way has pictures with English names and
other pictures with Chinese ones, the direct way names of the latter in both languages;
asked among the 394 test names of either half.

`instruments`: notes of a sound font (data/binding.md says which packages; without them
these arms are passed over), the emoji of their instrument, its English and Chinese
name.
bridged: pictures with sounds and with names; direct: sounds with names; label: as
bridged, with a one of 22 in the picture's place; mixed: pictures of sounds mixed up;
silent, nameless: about a fifth of the concepts without sounds, or without names;
longer: twice as many steps. Of each concept the number of right clips among 24.

`hits` holds 1 for each test example whose nearest partner has its digit; partners are
all test examples of the other modality.
"""

from functools import cache, partial

import numpy as np
import torch
from study import Study, bits
from torch import Tensor

from mmcourse.binding import Space, bind, digit_nets, nearest_digit, vectors
from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.classifiers import AudioNet, train_audio_classifier
from mmcourse.contrastive import NameTower, part_ids
from mmcourse.digit_pairs import (
    ROUTES,
    TEMPERATURES,
    digit_pairs,
    fuse_vectors,
    pair_rows,
    pair_views,
)
from mmcourse.emoji import emoji
from mmcourse.emoji_pairs import PictureTower, search_halves, sign_parts
from mmcourse.instruments import CLIPS, CONCEPTS, note_features, play_notes, sound_font
from mmcourse.measure import seeded
from mmcourse.missing import trunk
from mmcourse.store import data_path
from mmcourse.training import predict

NOISE = {"image_noise": 0.5, "shrink": 1, "occlusion": 0, "snr_db": 6}
UNEQUAL = NOISE | {"image_noise": 0.8}
ASKED = (("audio", "text"), ("text", "audio"), ("image", "text"), ("audio", "image"))
views = cache(pair_views)


def trained(
    way: str, seed: int, *, text="names", how=None, spoil=None, n=1500, **options
):
    "A space, trained on the pairs of its way."
    pairs = digit_pairs(views(text), n, seed, one_heap=spoil == "one heap")
    pairs = {k: pairs[k] for k in ROUTES.get(way, pairs)}
    if callable(spoil):
        pictures, sounds = pairs["image", "audio"]
        pairs["image", "audio"] = spoil(pictures, seed), sounds
    with seeded(seed):
        space = Space(digit_nets(views(text)["grams"]), **how)
    bind(space, pairs, seed=seed, **options)
    return space


def white(x: Tensor, seed: int) -> Tensor:
    "Dark strokes on white: standardised pixels between the same two ends."
    return x.max() + x.min() - x


def wrong(share: float, x: Tensor, seed: int) -> Tensor:
    "Some of the pictures change places, so that they show any digit."
    g = torch.Generator().manual_seed(1000 + seed)
    rows = torch.randperm(len(x), generator=g)[: round(share * len(x))]
    x = x.clone()
    x[rows] = x[rows[torch.randperm(len(rows), generator=g)]]
    return x


def told(hits: Tensor) -> dict:
    text = bits(hits)
    return {"hits": text, "share": round(hits.float().mean().item(), 4)}


def find_white(space: Space, text: str, seed: int, split: str) -> dict:
    "Do sounds find the dark pictures on white that they were trained with?"
    data = views(text)
    (x, y), (z, w) = data["audio"][split], data["image"][split]
    return told(nearest_digit(space, ("audio", x), ("image", white(z, seed)), w) == y)


def score(space: Space, way: str, text: str, split: str = "test") -> dict:
    found, data = {}, views(text)
    asked = ASKED if way == "bridged" else ASKED[:2]
    for a, b in asked:
        (x, y), (z, w) = data[a][split], data[b][split]
        found[f"{a} {b}"] = told(nearest_digit(space, (a, x), (b, z), w) == y)
    return found


def by_labels(seed: int, how: dict, steps: int) -> dict:
    "Hits of the space, of a walk by pictures, of a classifier that was told digits."
    data = views("names")
    space = trained("bridged", seed, how=how, steps=steps)
    rows = pair_rows(data, seed=seed)
    x, y = data["audio"]["test"]
    (pictures, _), (heard, said) = rows["image", "text"], rows["image", "audio"]
    seen = data["image"]["train"][0][pictures]
    digits = data["image"]["train"][1]
    sentences, named = data["text"]["test"]
    net = train_audio_classifier(
        data["audio"]["train"][0][said], digits[heard], seed=seed, epochs=steps // 23
    )
    hits = {
        "space": nearest_digit(space, ("audio", x), ("text", sentences), named) == y,
        "walk": nearest_digit(space, ("audio", x), ("image", seen), digits[pictures])
        == y,
        "classifier": predict(net, x).argmax(1) == y,
    }
    return {k: {"hits": bits(v)} for k, v in hits.items()}


def fused(seed: int, how: dict, **harm) -> dict:
    "Hits of each way to fuse a damaged picture and a noisy sound."
    data = views("names")
    space = trained("bridged", seed, how=how)
    pictures, sounds = digit_pairs(data, seed=seed)["image", "audio"]
    bank = {
        m: vectors(space, m, x) for m, x in (("image", pictures), ("audio", sounds))
    }
    scale = space.log_scale.exp().item()
    found = fuse_vectors(partial(vectors, space), data, bank, scale, **harm)
    return {k: {"hits": bits(v)} for k, v in found.items()}


SIZE = 3584  # rows in the table of a name's parts


def emoji_space(way: str, seed: int, steps: int = 450) -> dict:
    "Names in two languages that meet the same pictures, or each other."
    signs = emoji(32)
    rows = np.flatnonzero([bool(z) for z in signs["name"]["zh"]])
    learnt = rows[signs["split"][rows] != "test"]
    asked = torch.as_tensor(rows[signs["split"][rows] == "test"])
    x = {
        "image": torch.as_tensor(signs["image"]).permute(0, 3, 1, 2).contiguous(),
        "en": part_ids(signs["name"]["en"], SIZE),
        "zh": part_ids(signs["name"]["zh"], SIZE, sign_parts),
    }
    order = np.random.default_rng(seed).permutation(learnt)
    a, b = torch.as_tensor(order[::2].copy()), torch.as_tensor(order[1::2].copy())
    pairs = {
        "bridged": {
            ("image", "en"): (x["image"][a], x["en"][a]),
            ("image", "zh"): (x["image"][b], x["zh"][b]),
        },
        "direct": {("zh", "en"): (x["zh"][b], x["en"][b])},
    }[way]
    with seeded(seed):
        towers = {"image": PictureTower(), "en": NameTower(SIZE), "zh": NameTower(SIZE)}
        space = Space(towers, temperature=0.07, learnt=True)
    bind(space, pairs, steps=steps, size=128, seed=seed)
    v, found = {m: vectors(space, m, x[m]) for m in towers}, {}
    same = torch.as_tensor(signs["picture"])
    kinds = ("en", "zh"), ("image", "en"), ("image", "zh")
    for one, other in kinds if way == "bridged" else kinds[:1]:
        ranks = search_halves(v[one], v[other], same, asked)
        for (p, q), r in zip(((one, other), (other, one)), ranks.values()):
            hits = bits(n == 1 for n in r)
            found[f"{p} {q}"] = {"hits": hits, "share": hits.count("1") / len(hits)}
    return found


PITCHES = {
    "train": range(48, 73, 2),
    "between": range(49, 72, 2),
    "beyond": [*range(40, 47), *range(74, 81)],
}
LOUD = {"train": (60, 90, 120), "between": (75, 105), "beyond": (75, 105)}


@cache
def clips(kind: str) -> dict:
    "Of each program every note of a kind, (notes, 20, T)."
    notes = [(p, v) for p in PITCHES[kind] for v in LOUD[kind]]
    programs = sum(CONCEPTS.values(), ())
    played = [(program, *note) for program in programs for note in notes]
    x = note_features(play_notes(played, sound_font()))
    return dict(zip(programs, x.split(len(notes))))


def drawn(kind: str, programs: dict, n: int, seed: int) -> tuple[Tensor, Tensor]:
    "n clips of each concept, its programs taking turns; and whose they are."
    g, x, y = torch.Generator().manual_seed(seed), [], []
    for c, members in programs.items():
        orders = {p: torch.randperm(len(clips(kind)[p]), generator=g) for p in members}
        for k in range(n):
            p, turn = members[k % len(members)], k // len(members)
            x.append(clips(kind)[p][orders[p][turn % len(orders[p])]])
            y.append(c)
    return torch.stack(x), torch.tensor(y)


def instruments(way: str, seed: int, steps: int = 300) -> dict:
    "Sounds of instruments, their emoji and names; which sounds find their name?"
    signs, n = emoji(32), len(CONCEPTS)
    row = {c: i for i, c in enumerate(signs["emoji"])}
    rows = [row[c] for c in CONCEPTS]
    members = dict(enumerate(CONCEPTS.values()))
    gone = {c: (m[seed % len(m)],) for c, m in members.items() if len(m) > 1}
    learnt = {c: [p for p in m if p not in gone.get(c, ())] for c, m in members.items()}
    names = {
        "en": part_ids([signs["name"]["en"][i] for i in rows], SIZE),
        "zh": part_ids([signs["name"]["zh"][i] for i in rows], SIZE, sign_parts),
    }
    held = torch.tensor([c % 5 == seed % 5 for c in range(n)])
    pictures = torch.as_tensor(signs["image"][rows]).permute(0, 3, 1, 2).contiguous()
    if way.startswith("label"):
        pictures = torch.eye(n)
    x, y = drawn("train", learnt, 60, seed)
    if way == "silent":
        x, y = x[~held[y]], y[~held[y]]
    g = torch.Generator().manual_seed(1000 + seed)
    shown = y[torch.randperm(len(y), generator=g)] if way == "mixed" else y
    named = torch.arange(n)[~held] if way == "nameless" else torch.arange(n)
    pairs = {("image", "audio"): (pictures[shown], x)}
    pairs |= {("image", m): (pictures[named], names[m][named]) for m in names}
    if way.startswith("direct"):
        pairs = {("audio", m): (x, names[m][y]) for m in names}
    with seeded(seed):
        see = torch.nn.Linear(n, 128) if way.startswith("label") else PictureTower()
        hear = torch.nn.Sequential(trunk(AudioNet()), torch.nn.Linear(128, 128))
        towers = {"image": see, "audio": hear}
        towers |= {m: NameTower(SIZE) for m in names}
        space = Space(towers, temperature=0.2)
    losses = bind(space, pairs, steps=steps, seed=seed)
    v = {m: vectors(space, m, names[m]) for m in names}
    found = {"loss": round(float(np.mean(losses[-20:])), 4), "rank": {}, "chance": {}}
    asked = [("between", learnt), ("beyond", learnt), ("other", gone)]
    for kind, programs in asked:
        notes = "between" if kind == "other" else kind
        a, c = drawn(notes, programs, CLIPS, 50 + seed)
        u = vectors(space, "audio", a)
        for m in names:
            found_for(found, f"{kind} {m}", u @ v[m].T, c)
        if kind == "between" and way in ("silent", "nameless"):
            u, c = u[held[c]], c[held[c]]
            found_for(found, "unseen en", u @ v["en"].T, c)
            few = (u @ v["en"].T).masked_fill(~held, -9)
            found_for(found, "unseen few", few, c, int(held.sum()))
    return found


def found_for(found: dict, asked: str, scores: Tensor, c: Tensor, among: int = 0):
    "Keeps right first answers of each concept, and the mean rank."
    right = scores.argmax(1) == c
    of = range(scores.shape[1])
    told = [int(right[c == i].sum()) if (c == i).any() else "nan" for i in of]
    found[asked] = " ".join(map(str, told))
    rank = 1 + (scores > scores.gather(1, c[:, None])).sum(1)
    found["rank"][asked] = round(rank.double().mean().item(), 2)
    found["chance"][asked] = round(1 / (among or scores.shape[1]), 4)


def main():
    study = Study("binding", __doc__, chapter=25, temperatures=TEMPERATURES)
    settings = {str(t): {"temperature": t} for t in TEMPERATURES}
    settings["learnt"] = {"temperature": 0.07, "learnt": True}
    five, three = study.seeds(5), study.seeds(3)

    def arm(way, seed, text="names", split="test", **options):
        space = trained(way, seed, text=text, **options)
        found = score(space, way, text, split)
        if options.get("spoil") is white:
            found["audio white"] = find_white(space, text, seed, split)
        found["temperature"] = round(torch.exp(-space.log_scale).item(), 4)
        return found

    def run(name, seeds, ways=tuple(ROUTES), **options):
        for way in ways:
            how = {"how": best[way]} | options
            for seed in seeds:
                label = f"{name}/{way}/{seed}"
                study(label, partial(arm, way, seed, **how), seed)

    best = dict.fromkeys(ROUTES)
    for name, how in settings.items():
        run(f"at {name}", three, split="valid", how=how)
    for way in ROUTES:
        best[way] = settings[best_of(study, way, [str(t) for t in TEMPERATURES])]

    def ship(seed):
        space = trained("bridged", seed, how=best["bridged"])
        if seed == 0:
            weights = shrink(dict(space.state_dict()), 8)
            made = {"made by": "data/make_binding.py", "grams": views("names")["grams"]}
            write_tensors(data_path("binding.safetensors"), weights, made)
        return score(space, "bridged", "names") | {
            "temperature": best["bridged"]["temperature"]
        }

    for seed in five:
        study(f"bound/bridged/{seed}", partial(ship, seed), seed)
    run("bound", five)
    run("learnt", five, how=settings["learnt"])
    run("hints", five, text="hints")
    for seed in five:
        study(f"sums/bridged/{seed}", partial(fused, seed, best["bridged"]), seed)
        noisy = partial(fused, seed, best["bridged"], **NOISE)
        study(f"sums noise/bridged/{seed}", noisy, seed)
        unequal = partial(fused, seed, best["bridged"], **UNEQUAL)
        study(f"sums unequal/bridged/{seed}", unequal, seed)
        three_kinds = partial(arm, "all", seed, how=best["bridged"])
        study(f"three kinds/all/{seed}", three_kinds, seed)
    for steps in (300, 1200):
        for seed in three:
            labels = partial(by_labels, seed, best["bridged"], steps)
            study(f"labels {steps}/bridged/{seed}", labels, seed)
    run("longer", five, steps=1200)
    run("hints longer", five, text="hints", steps=1200)
    for n in (100, 250, 500, 1000):
        run(f"pairs {n}", three, n=n)
    for size in (16, 256):
        run(f"batch {size}", three, size=size)
    run("white", three, ("bridged",), spoil=white)
    run("heaps one", three, ("bridged",), spoil="one heap")
    for share in (0.25, 0.5, 1.0):
        run(f"wrong {share}", three, ("bridged",), spoil=partial(wrong, share))
    for way in ROUTES:
        for seed in three:
            study(f"emoji/{way}/{seed}", partial(emoji_space, way, seed), seed)
    if sound_font() is None:
        return
    ways = "bridged", "direct", "label", "mixed", "silent", "nameless"
    for seed in five:
        for way in ways:
            arm_of = partial(instruments, way, seed)
            study(f"instruments/{way}/{seed}", arm_of, seed)
    for seed in five:
        for way in ("bridged", "direct", "label"):
            longer = partial(instruments, way, seed, steps=600)
            study(f"instruments/{way} longer/{seed}", longer, seed)


def best_of(study: Study, way: str, names: list[str]) -> str:
    "The temperature with most hits from validation voices to sentences."

    def mean(name):
        runs = [v for k, v in study.runs.items() if k.startswith(f"at {name}/{way}/")]
        return np.mean([r["audio text"]["share"] for r in runs]) if runs else 0

    return max(names, key=mean)


if __name__ == "__main__":
    main()
