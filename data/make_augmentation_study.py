"""Does augmentation help? The tables of chapter 14.

    python data/make_augmentation_study.py    # writes results/augmentation_study.json

Arms are named study/size/seed. One seed is one choice of examples, the same for all
that is compared; `size` is examples a class, in `mixing` epochs, in `sound` batches.

image, hands   nothing, another hand, GAN, both, and other recipes
why            real new digits in the place of the GAN's, whole and spoilt
wide, long     a GAN of twice the width for three times the steps; for four times
rare           five classes are rare, the GAN has seen five others as well
rare alone     the same, but the GAN has seen the few rare digits only
mixing         mixup, cutmix and another hand, for 20, 60 and 180 epochs
sound          on clean test clips, and on late and noisy ones
text           what of a synonym's gain is its new opening, noun and case

What was chosen (shares, strengths, steps) was chosen on validation data; both
accuracies are in the file.
"""

from functools import lru_cache

import torch
from study import Study
from torch import nn

from mmcourse.audio import spec_augment, standardise_mel
from mmcourse.augmentation import (
    add_white_noise,
    augment_digit,
    beta_shares,
    blend,
    chain,
    cutmix,
    fit_pairs,
    from_pool,
    gan_pool,
    mixup,
    on_inputs,
    random_delay,
    reword,
    subset_per_class,
    train_arms,
    word_dropout,
)
from mmcourse.convolution import DigitCNN
from mmcourse.datasets import SPLITS, hints, mnist, spoken_digits
from mmcourse.gan import load_reader
from mmcourse.measure import seeded
from mmcourse.pipeline import extract_audio_features
from mmcourse.text import Vocab, pad, tokenize
from mmcourse.training import accuracy, predict, warmup_cosine

# --- digits


def image_arms(pool: tuple, share: float = 0.5) -> dict:
    gan, classical = from_pool(*pool, share=share), on_inputs(augment_digit)
    both = chain(gan, classical)
    return {"nothing": None, "classical": classical, "GAN": gan, "both": both}


def digits() -> dict:
    found = {s: mnist(s) for s in SPLITS}
    return {
        s: (torch.tensor(d["image"]), torch.tensor(d["label"]))
        for s, d in found.items()
    }


def judged(data: dict) -> dict:
    return {s: data[s] for s in ("valid", "test")}


def believed(net: nn.Module, pool: tuple, least: float) -> tuple:
    "What a network takes for what it is meant to be; of a class without any, the best."
    x, y = pool
    p = predict(net, x).softmax(1)[torch.arange(len(y)), y]
    keep = p >= least
    for c in y.unique():
        keep[torch.where(y == c, p, -1.0).argmax()] = True
    return x[keep], y[keep]


def image(data: dict, k: int, seed: int) -> dict:
    train = subset_per_class(data["train"], k, seed)
    pool = gan_pool(train, seed=seed)
    arms = image_arms(pool)
    if k <= 20:  # fewer pictures, or those that a network of the same digits believes
        with seeded(seed):
            judge = DigitCNN()
        fit_pairs(
            judge,
            train,
            augment=on_inputs(augment_digit),
            epochs=round(400 / -(-len(train[1]) // 32)),
            batch_size=32,
            lr=3e-3,
            schedule=warmup_cosine,
            seed=seed,
        )
        sure = believed(judge, pool, 0.9)
        arms |= {
            "GAN, a fifth": image_arms(pool, 0.2)["GAN"],
            "both, a fifth": image_arms(pool, 0.2)["both"],
            "GAN, believed": image_arms(sure)["GAN"],
            "both, believed, a fifth": image_arms(sure, 0.2)["both"],
        }
    return {"scores": train_arms(train, judged(data), arms, seed=seed)}


def hands(data: dict, k: int, seed: int) -> dict:
    "The generator learns from twenty augmented copies of each digit."
    x, y = train = subset_per_class(data["train"], k, seed)
    g = torch.Generator().manual_seed(seed)
    copies = augment_digit(x.repeat(20, 1, 1), g), y.repeat(20)
    arms = image_arms(gan_pool(copies, seed=seed))
    arms = {f"{a}, of other hands": arms[a] for a in ("GAN", "both")}
    return {"scores": train_arms(train, judged(data), arms, seed=seed)}


# --- why


def spread(pool: tuple) -> float:
    "Squared distance of a picture from its class's mean, averaged over the classes."
    x, y = pool
    return (
        torch.stack([x[y == c].var(0, False).sum() for c in y.unique()]).mean().item()
    )


def shrunk(pool: tuple, to: tuple) -> tuple:
    "Pictures drawn towards their class's mean, until they vary as little as `to` does."
    x, y = pool[0].clone(), pool[1]
    for c in y.unique():
        mine, theirs = x[y == c], to[0][to[1] == c]
        share = (theirs.var(0, False).sum() / mine.var(0, False).sum()).sqrt()
        x[y == c] = mine.mean(0) + share * (mine - mine.mean(0))
    return x, y


def mislabelled(pool: tuple, share: float, seed: int) -> tuple:
    "A share of the pictures exchanged for ones of another class."
    x, y = pool
    g = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(y), generator=g) < share
    means = (y + torch.randint(1, 10, y.shape, generator=g)) % 10
    return x, torch.where(wrong, means, y)


def new_digits(data: dict, k: int, seed: int) -> tuple:
    "A hundred real digits of each class, none of them in the training set."
    x, y = data["train"]
    used = subset_per_class((torch.arange(len(y)), y), k, seed)[0]
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[used] = False
    return subset_per_class((x[rest], y[rest]), 100, seed)


def why(data: dict, k: int, seed: int) -> dict:
    train, reader = subset_per_class(data["train"], k, seed), load_reader()
    gan, real = gan_pool(train, seed=seed), new_digits(data, k, seed)
    misread = 1 - accuracy(reader, gan)
    g = torch.Generator().manual_seed(seed)
    turned = augment_digit(train[0].repeat(10, 1, 1), g), train[1].repeat(10)
    pools = {
        "real new digits": real,
        "real, varying as little": shrunk(real, gan),
        "real, labels as wrong": mislabelled(real, misread, seed),
        "real, both": mislabelled(shrunk(real, gan), misread, seed),
        "the GAN's": gan,
        "the GAN's, readable ones": believed(reader, gan, 0.5),
    }
    arms = {"nothing": None} | {name: from_pool(*p) for name, p in pools.items()}
    pools |= {"the ten in another hand": turned, "the ten": train}
    return {
        "scores": train_arms(train, judged(data), arms, seed=seed),
        "pools": {
            name: {"read": accuracy(reader, p), "spread": spread(p)}
            for name, p in pools.items()
        },
    }


def larger(data: dict, k: int, seed: int, **gan) -> dict:
    "A GAN with more of everything, and what its digits are worth."
    train = subset_per_class(data["train"], k, seed)
    pool = gan_pool(train, seed=seed, **gan)
    arms = {"nothing": None, "GAN": from_pool(*pool)}
    return {
        "scores": train_arms(train, judged(data), arms, seed=seed),
        "pools": {
            "GAN": {"read": accuracy(load_reader(), pool), "spread": spread(pool)}
        },
    }


def wide(data: dict, k: int, seed: int) -> dict:
    return larger(data, k, seed, width=24, steps=1500)


def long(data: dict, k: int, seed: int) -> dict:
    return larger(data, k, seed, steps=2000)


# --- rare classes


def rare_split(data: dict, k: int, seed: int) -> tuple:
    "The five rare classes, their few digits, and the common ones."
    x, y = data["train"]
    rare = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:5]
    here = torch.isin(y, rare)
    return rare, subset_per_class((x[here], y[here]), k, seed), (x[~here], y[~here])


def rare(data: dict, k: int, seed: int, alone: bool = False) -> dict:
    "Accuracy on the rare classes' digits, all ten classes being possible answers."
    classes, few, common = rare_split(data, k, seed)
    times = max(1, round(len(common[1]) / len(few[1])))
    train = (
        torch.cat([few[0].repeat(times, 1, 1), common[0]]),
        torch.cat([few[1].repeat(times), common[1]]),
    )
    tests = {}
    for s, (x, y) in judged(data).items():
        here = torch.isin(y, classes)
        tests[s] = x[here], y[here]
    images, labels = gan_pool(few if alone else train, seed=seed, steps=800, width=16)
    drawn = torch.isin(labels, classes)
    arms = image_arms((images[drawn], labels[drawn]))
    if alone:
        arms = {"GAN of the rare alone": arms["GAN"]}
    return {"scores": train_arms(train, tests, arms, seed=seed)}


def rare_alone(data: dict, k: int, seed: int) -> dict:
    return rare(data, k, seed, alone=True)


# --- mixing


def unlabelled(batch: tuple, generator: torch.Generator) -> tuple:
    "Pictures mixed, labels as they were."
    x, t = batch
    other = torch.randperm(len(x), generator=generator)
    return blend(x, beta_shares(len(x), 1.0, generator), other), t


def mixing(data: dict, epochs: int, seed: int) -> dict:
    train = subset_per_class(data["train"], 20, seed)
    arms = {
        "nothing": None,
        "mixup": mixup,
        "cutmix": cutmix,
        "another hand": on_inputs(augment_digit),
    }
    if epochs == 20:
        arms["mixed, labels as they were"] = unlabelled
    steps = 7 * epochs
    return {"scores": train_arms(train, judged(data), arms, seed=seed, steps=steps)}


# --- sound and text


class Ear(nn.Module):
    "A small CNN for spectrograms: (B, 20, T) dB -> (B, 10) logits."

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Linear(2 * 24 * 5, 10)

    def forward(self, x):
        h = self.body(standardise_mel(x)[:, None]).flatten(1, 2)  # (B, 24·5, T/4)
        return self.head(torch.cat([h.mean(2), h.amax(2)], 1))


class Bag(nn.Module):
    "The sum of a text's word vectors, and a linear layer."

    def __init__(self, words: int, d: int = 64):
        super().__init__()
        self.embed = nn.EmbeddingBag(words, d, mode="sum", padding_idx=0)
        nn.init.normal_(self.embed.weight, 0, 0.05)
        self.head = nn.Linear(d, 10)

    def forward(self, ids):
        return self.head(self.embed(ids).relu())


def as_mel(waves, generator=None):
    return extract_audio_features(waves)


def hide_stripes(mel, generator):
    "Narrow stripes, inside the clips only."
    there = (mel > -60).any(1, keepdim=True)
    return torch.where(there, spec_augment(mel, generator, bands=4, time=8), -60.0)


def clips() -> dict:
    "The first second of each clip; test clips clean, and late in noise."
    data = {}
    for s in SPLITS:
        d = spoken_digits(s)
        data[s] = torch.tensor(d["audio"][:, :8000]), torch.tensor(d["label"])
    g = torch.Generator().manual_seed(0)
    x, y = data["test"]
    data["noisy"] = add_white_noise(random_delay(x, g), g), y
    return {s: (x if s == "train" else as_mel(x), y) for s, (x, y) in data.items()}


def sound(data: dict, steps: int, seed: int) -> dict:
    wave = chain(random_delay, add_white_noise)
    arms = {
        "nothing": on_inputs(as_mel),
        "delay and noise": on_inputs(chain(wave, as_mel)),
        "stripes": on_inputs(chain(as_mel, hide_stripes)),
        "all": on_inputs(chain(wave, as_mel, hide_stripes)),
    }
    tests = {s: data[s] for s in ("valid", "test", "noisy")}
    train = subset_per_class(data["train"], 20, seed)
    more = {"seed": seed, "make": Ear, "steps": steps}
    return {"scores": train_arms(train, tests, arms, **more)}


def rows_of(texts):
    "The first step of a chain whose batches are row numbers."

    def look_up(rows, generator=None):
        return [texts[i] for i in rows.tolist()]

    return look_up


@lru_cache(maxsize=2**16)
def words_in(text: str) -> tuple:
    return tuple(tokenize(text))


def as_ids(vocab):
    "The step of a chain that turns texts into word numbers."

    def encode(texts, generator=None):
        rows = [vocab.encode(words_in(text)) for text in texts]
        return torch.as_tensor(pad(rows)[0])

    return encode


def around(texts, generator):
    return reword(texts, generator, phrases_too=False)


def text(data: dict, k: int, seed: int) -> dict:
    said, label = data["train"]["text"], torch.tensor(data["train"]["label"])
    vocab = Vocab.build([words_in(t) for t in said])  # what words there are
    ids, look = as_ids(vocab), rows_of(said)
    arms = {
        "nothing": on_inputs(chain(look, ids)),
        "word dropout": on_inputs(chain(look, ids, word_dropout)),
        "said again, same phrases": on_inputs(chain(look, around, ids)),
        "synonyms": on_inputs(chain(look, reword, ids)),
        "both": on_inputs(chain(look, reword, ids, word_dropout)),
    }
    tests = {
        s: (ids(data[s]["text"]), torch.tensor(data[s]["label"]))
        for s in ("valid", "test")
    }
    train = subset_per_class((torch.arange(len(said)), label), k, seed)
    more = {"seed": seed, "make": lambda: Bag(len(vocab)), "lr": 1e-2}
    return {"scores": train_arms(train, tests, arms, **more)}


# name: (function, what loads its data, sizes, seeds)
STUDIES = {
    "mixing": (mixing, digits, {20: 8, 60: 8, 180: 3}),
    "why": (why, digits, {10: 6}),
    "text": (text, lambda: {s: hints(s) for s in SPLITS}, {20: 6, 100: 6}),
    "rare alone": (rare_alone, digits, {10: 6}),
    "long": (long, digits, {100: 3}),
    "wide": (wide, digits, {10: 3}),
    "sound": (sound, clips, {400: 3}),
    "image": (image, digits, dict.fromkeys((10, 20, 50, 100), 8)),
    "hands": (hands, digits, {10: 8}),
    "rare": (rare, digits, {10: 10, 20: 10}),
}


def main():
    study = Study("augmentation_study", __doc__, about="chapter 14")
    for name, (run, load, sizes) in STUDIES.items():
        data = load()
        for k, seeds in sizes.items():
            for seed in study.seeds(seeds):

                def arm(run=run, data=data, k=k, seed=seed):
                    return run(data, k, seed)

                study(f"{name}/{k}/{seed}", arm, seed)


if __name__ == "__main__":
    main()
