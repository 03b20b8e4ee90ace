"""Chapter 24: what codebooks need, what bits buy, and the tokenizers that ship.

    python data/make_quantize.py    # data/results/quantize.json, quantize.safetensors

Arms are named what/how/seed. `short` and `long`: VQ-VAEs of digits (32 channels, 256
codes or 256 combinations, 49 tokens, 3 and 12 epochs) that differ in the quantiser
alone, and one without any. All else is trained for 24 epochs. `residual`: pictures and
spectrograms by number of codebooks, all from one training, and `exact`: from vectors
that nothing rounded; `every stage`: without the random number of stages. Seed 0 of
`tokenizer` ships; that of sounds listens, too: hidden features that an `AudioNet` makes
of what was drawn should be those of the original. `deaf`: without that; `unrounded`:
with that and without a quantiser.

`used` and `perplexity`: of the codes of the test data; `mse`: per pixel in [0, 1], or
dB²; `hits`: 1 for each test example that the shipped classifier of the same seed reads
from what was drawn again, `original` the same for the originals, `raw` for sounds
whose pauses were not cut by `hush`. These classifiers took no part in any training
here, and those of sounds are networks of another kind than the listener.
"""

import math
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from study import Study
from torch import nn

from mmcourse.audio import augment_audio, standardise_mel
from mmcourse.checkpoint import grow, read_tensors, shrink, write_tensors
from mmcourse.classifiers import train_audio_classifier
from mmcourse.codebooks import NoQuantizer, faster_codes
from mmcourse.datasets import SPLITS, mnist, spoken_digits
from mmcourse.measure import seeded
from mmcourse.pipeline import load_features, moments
from mmcourse.quantize import (
    FSQ,
    VQVAE,
    ResidualVQ,
    Tokenizer,
    VectorQuantizer,
    code_usage,
    hush,
    picture_nets,
    sound_nets,
    straight_through,
    vqvae_loss,
)
from mmcourse.shipped import read_classifiers
from mmcourse.store import data_path
from mmcourse.training import fit, predict, warmup_cosine

STAGES = 1, 2, 3, 4, 6
CODES = {"image": 64, "audio": 256}  # in each residual codebook
NETS = {"image": partial(picture_nets, 16), "audio": partial(sound_nets, 32)}
SHIPPED = Path(__file__).with_name("quantize.safetensors")
LONG, WEIGHT = 24, 0.3  # epochs; of each layer that the listener has


class Heard(nn.Module):
    "What was drawn, the quantiser's loss, and how differently a listener hears it."

    def __init__(self, model, listener):
        super().__init__()
        self.model = model
        listener.requires_grad_(False).eval()  # it stays as it is
        self.layers = [layer.forward for layer in listener.body]
        self.after = [isinstance(layer, nn.ReLU) for layer in listener.body]

    def hears(self, x):
        x, found = standardise_mel(x), []
        for layer, wanted in zip(self.layers, self.after):
            x = layer(x)
            found += [x] * wanted
        return found

    def forward(self, x):
        drawn, extra = self.model(x)
        gone = (x <= -60).all(1, keepdim=True)  # its own pauses, not those drawn
        clip = drawn.clamp(min=-59.9).masked_fill(gone, -60)
        with torch.no_grad():
            wanted = self.hears(x)
        for a, b in zip(self.hears(clip), wanted):
            extra = extra + WEIGHT * (a - b).square().mean((1, 2)) / b.var()
        return drawn, extra


class EveryStage(ResidualVQ):
    "The control: all stages in every update."

    def forward(self, x):
        rest, losses = x, 0
        for layer in self.layers:
            q, loss = layer(rest)
            rest = rest - q.detach()
            losses = losses + loss
        return straight_through(x, x - rest), losses


def keep(tensors):
    "Put tensors into the file that ships, beside those of the other modality."
    there = read_tensors(SHIPPED)[0] if SHIPPED.exists() else {}
    about = {"made by": "data/make_quantize.py", "seed": 0}
    write_tensors(SHIPPED, there | tensors, about)


plain = partial(VectorQuantizer, 256, 16, ema=False, from_data=False, restarts=False)
QUANTIZERS = {  # name -> (features of a vector, () -> quantiser)
    "all three": (16, partial(VectorQuantizer, 256, 16)),
    "fsq": (4, partial(FSQ, (4, 4, 4, 4))),
    "plain": (16, plain),
    "ema": (16, partial(plain, ema=True)),
    "fast codes": (16, lambda: faster_codes(plain())),
    "none": (16, NoQuantizer),
    "from data": (16, partial(plain, from_data=True)),
    "restarts": (16, partial(plain, restarts=True)),
}


def main():
    study = Study("quantize", __doc__, about="chapter 24")
    digits, clips = {s: mnist(s) for s in SPLITS}, cache(load_features)
    mean, deviation = moments(digits["train"]["image"])

    def scale(modality, pictures):  # what the reader expects
        return (pictures - mean) / deviation if modality == "image" else pictures

    @cache
    def load(modality, split):
        if modality == "audio":
            view = clips(spoken_digits)[split]
            return view["features"]["audio"].float(), view["label"]
        d = digits[split]
        return torch.as_tensor(d["image"])[:, None], torch.as_tensor(d["label"])

    def features(modality, split):
        return load(modality, split)[0]

    def train(model, modality, seed, *, epochs=LONG):
        data = features(modality, "train")
        how = {"metric": None, "weight_decay": 0.0, "clip": 1.0, "lr": 3e-3}
        how |= {"schedule": warmup_cosine, "epochs": epochs, "seed": seed}
        how |= {"batch_size": 32}
        fit(model, (data, data), loss=partial(vqvae_loss, variance=data.var()), **how)
        return model.eval()

    @cache
    def listener():
        data, how = load("audio", "train"), {"epochs": 12, "augment": augment_audio}
        with seeded(7):
            return train_audio_classifier(*data, seed=7, **how).net

    def reads(modality, pictures, seed):
        reader = read_classifiers(data_path("classifiers.safetensors"), modality)[seed]
        hits = predict(reader, scale(modality, pictures)).argmax(1)
        hits = hits == load(modality, "test")[1]
        return "".join("01"[int(h)] for h in hits)

    def off(modality, drawn, split="test"):
        return round(F.mse_loss(drawn, features(modality, split)).item(), 6)

    def judged(modality, drawn, seed):
        found = {"mse": off(modality, drawn)}
        if modality == "audio":
            found["raw"] = reads(modality, drawn, seed)
            drawn = hush(drawn)
        return found | {"hits": reads(modality, drawn, seed)}

    def collapse(name, seed, epochs):
        d, make = QUANTIZERS[name]
        there, back = picture_nets(d)
        model = train(VQVAE(there, make(), back), "image", seed, epochs=epochs)
        test = features("image", "test")
        found = judged("image", predict(model, test)[0], seed)
        if name != "none":
            with torch.no_grad():
                found |= code_usage(model.encode(test), 256)
        return found

    def residual(modality, seed, kind=ResidualVQ):
        there, back = NETS[modality]()
        K, d = CODES[modality], {"image": 16, "audio": 32}[modality]
        model = train(VQVAE(there, kind(K, d, STAGES[-1]), back), modality, seed)
        found, test = {}, features(modality, "test")
        with torch.no_grad():
            found["exact"] = off(modality, model.decoder(model.encoder(test)))
            for n in STAGES:
                codes = model.encode(test, stages=n)
                stage = {"mse": off(modality, model.decode(codes))}
                spread = [code_usage(k, K)["perplexity"] for k in codes]
                each = codes[0, 0].numel()  # vectors of an example
                stage["bits"] = each * n * int(math.log2(K))
                stage["entropy"] = round(each * math.log2(math.prod(spread)), 1)
                found[n] = stage
        return found

    def ship(modality, seed, listens=False, keeps=False):
        model = Tokenizer(modality)
        learner = Heard(model, listener()) if listens else model
        train(learner, modality, seed)
        model.eval()
        small = shrink(model.state_dict())
        model.load_state_dict(grow(small))
        found = {}
        with torch.no_grad():
            drawn = predict(model, features(modality, "test"))[0]
            found |= judged(modality, drawn, seed)
            found |= code_usage(model.encode(features(modality, "test")), model.size)
            valid = predict(model, features(modality, "valid"))[0]
        found["valid mse"] = off(modality, valid, "valid")
        found["original"] = reads(modality, features(modality, "test"), seed)
        if keeps and seed == 0:
            sums = "quantizer.total", "quantizer.count"  # for training alone
            own = {k: t for k, t in small.items() if k not in sums}
            keep({f"{modality}.{k}": t for k, t in own.items()})
        return found

    def unrounded(seed):
        there, back = NETS["audio"]()
        learner = Heard(VQVAE(there, NoQuantizer(), back), listener())
        train(learner, "audio", seed)
        return judged("audio", predict(learner, features("audio", "test"))[0], seed)

    for seed in study.seeds(3):
        for modality, listens in (("image", False), ("audio", True)):
            run = partial(ship, modality, seed, listens, keeps=True)
            study(f"tokenizer/{modality}/{seed}", run, seed)
        for name in QUANTIZERS:
            study(f"short/{name}/{seed}", partial(collapse, name, seed, 3), seed)
        study(f"residual/image/{seed}", partial(residual, "image", seed), seed)
    for seed in study.seeds(3):
        study(f"unrounded/audio/{seed}", partial(unrounded, seed), seed)
        study(f"residual/audio/{seed}", partial(residual, "audio", seed), seed)
        study(f"deaf/audio/{seed}", partial(ship, "audio", seed), seed)
        run = partial(residual, "image", seed, EveryStage)
        study(f"every stage/image/{seed}", run, seed)
    for name in QUANTIZERS:  # one seed
        study(f"long/{name}/0", partial(collapse, name, 0, 12), 0)


if __name__ == "__main__":
    main()
