"""Chapter 24: what codebooks need, what bits buy, and the tokenizers that ship.

    python data/make_quantize.py    # data/results/quantize.json, quantize.safetensors

Arms are named what/how/seed. `collapse`: VQ-VAEs of digits (32 channels, 256 codes or
256 combinations, 49 tokens, 3 epochs) that differ in the quantiser alone, and one
without any; `longer`: two of them for 12 epochs. `residual`: pictures and spectrograms
by number of codebooks, all from one training. `tokenizer`: what ships is seed 0; that
of sounds listens, too: a network of chapter 12 should say of what was drawn what it
says of the original; `deaf`: without that. `used` and `perplexity`: of the codes of the
test data; `mse`: per pixel in [0, 1], or dB²; `hits`: 1 for each test example that the
shipped classifier of the same seed reads from what was drawn again, `original` the same
for the originals. These classifiers took no part in any training here.
"""

import math
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from study import Study
from torch import nn

from mmcourse.checkpoint import grow, read_tensors, shrink, write_tensors
from mmcourse.classifiers import train_audio_classifier
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
    picture_nets,
    sound_nets,
    vqvae_loss,
)
from mmcourse.shipped import read_classifiers
from mmcourse.store import data_path
from mmcourse.training import fit, predict, warmup_cosine

STAGES = {"image": (1, 2, 3, 4, 6), "audio": (1, 2, 3, 4, 6)}
SHIPPED = Path(__file__).with_name("quantize.safetensors")
CODES = {"image": 64, "audio": 256}  # in each residual codebook


class Without(nn.Module):
    "The control: vectors pass as they are."

    def forward(self, x):
        return x, x.new_zeros(len(x))


class Heard(nn.Module):
    "What was drawn, the quantiser's loss, and how far a listener would be misled."

    def __init__(self, model, listener):
        super().__init__()
        self.model = model
        self.listen = listener.requires_grad_(False).eval().forward  # it stays as it is

    def forward(self, x):
        drawn, extra = self.model(x)
        with torch.no_grad():
            said = self.listen(x).softmax(1)
        misled = F.cross_entropy(self.listen(drawn), said, reduction="none")
        return drawn, extra + 0.3 * misled


def keep(tensors):
    "Put tensors into the file that ships, beside those of the other modality."
    there = read_tensors(SHIPPED)[0] if SHIPPED.exists() else {}
    about = {"made by": "data/make_quantize.py", "seed": 0}
    write_tensors(SHIPPED, there | tensors, about)


plain = partial(VectorQuantizer, 256, 16, ema=False, from_data=False, restarts=False)
QUANTIZERS = {  # name -> (features of a vector, () -> quantiser)
    "none": (16, Without),
    "plain": (16, plain),
    "from data": (16, partial(plain, from_data=True)),
    "ema": (16, partial(plain, ema=True)),
    "restarts": (16, partial(plain, restarts=True)),
    "all three": (16, partial(VectorQuantizer, 256, 16)),
    "fsq": (4, partial(FSQ, (4, 4, 4, 4))),
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

    def train(model, modality, seed, *, epochs):
        data = features(modality, "train")
        how = {"metric": None, "weight_decay": 0.0, "clip": 1.0, "lr": 3e-3}
        how |= {"schedule": warmup_cosine, "epochs": epochs, "seed": seed}
        how |= {"batch_size": 32}
        fit(model, (data, data), loss=partial(vqvae_loss, variance=data.var()), **how)
        return model.eval()

    @cache
    def listener():
        data = load("audio", "train")
        with seeded(7):
            return train_audio_classifier(*data, seed=7, epochs=5).net

    def reads(modality, pictures, seed):
        reader = read_classifiers(data_path("classifiers.safetensors"), modality)[seed]
        hits = predict(reader, scale(modality, pictures)).argmax(1)
        hits = hits == load(modality, "test")[1]
        return "".join("01"[int(h)] for h in hits)

    def judged(modality, drawn, seed):
        off = F.mse_loss(drawn, features(modality, "test")).item()
        return {"mse": round(off, 6), "hits": reads(modality, drawn, seed)}

    def collapse(name, seed, epochs=3):
        d, make = QUANTIZERS[name]
        there, back = picture_nets(d, 32)
        model = train(VQVAE(there, make(), back), "image", seed, epochs=epochs)
        found = judged("image", predict(model, features("image", "test"))[0], seed)
        if name != "none":
            with torch.no_grad():
                found |= code_usage(model.encode(features("image", "test")), 256)
        return found

    def residual(modality, seed, epochs):
        d, nets = {"image": (16, picture_nets), "audio": (32, sound_nets)}[modality]
        there, back = nets(d, {"image": 32, "audio": 96}[modality])
        K, n = CODES[modality], STAGES[modality][-1]
        model = VQVAE(there, ResidualVQ(K, d, n), back)
        train(model, modality, seed, epochs=epochs)
        found = {}
        with torch.no_grad():
            for n in STAGES[modality]:
                codes = model.encode(features(modality, "test"), stages=n)
                off = F.mse_loss(model.decode(codes), features(modality, "test")).item()
                found[n] = {"mse": round(off, 6)}
                spread = [code_usage(k, K)["perplexity"] for k in codes]
                each = codes[0, 0].numel()  # vectors of an example
                found[n] |= {"bits": each * n * int(math.log2(K))}
                found[n]["entropy"] = round(each * math.log2(math.prod(spread)), 1)
        return found

    def ship(modality, seed, epochs, deaf=False):
        model = Tokenizer(modality)
        plain = deaf or modality == "image"
        learner = model if plain else Heard(model, listener())
        train(learner, modality, seed, epochs=epochs)
        model.eval()
        small = shrink(model.state_dict())
        model.load_state_dict(grow(small))
        with torch.no_grad():
            drawn = {
                s: model.decode(model.encode(features(modality, s))) for s in SPLITS[1:]
            }
            found = judged(modality, drawn["test"], seed)
            found |= code_usage(model.encode(features(modality, "test")), model.size)
        off = F.mse_loss(drawn["valid"], features(modality, "valid")).item()
        found |= {"valid mse": round(off, 6)}
        found["original"] = reads(modality, features(modality, "test"), seed)
        if seed == 0 and not deaf:
            keep({f"{modality}.{k}": t for k, t in small.items()})
        return found

    epochs = {"image": 12, "audio": 45}
    for seed in study.seeds(3):
        for modality, n in epochs.items():
            run = partial(ship, modality, seed, n)
            study(f"tokenizer/{modality}/{seed}", run, seed)
    for seed in study.seeds(3):
        for name in QUANTIZERS:
            study(f"collapse/{name}/{seed}", partial(collapse, name, seed), seed)
        study(f"residual/image/{seed}", partial(residual, "image", seed, 6), seed)
        study(f"residual/audio/{seed}", partial(residual, "audio", seed, 8), seed)
    for seed in study.seeds(3):
        for name in ("plain", "all three"):
            study(f"longer/{name}/{seed}", partial(collapse, name, seed, 12), seed)
    for seed in study.seeds(3):
        run = partial(ship, "audio", seed, epochs["audio"], deaf=True)
        study(f"deaf/audio/{seed}", run, seed)


if __name__ == "__main__":
    main()
