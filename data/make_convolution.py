"""The comparison of chapter 08: what sharing, locality and learning are worth.

    python data/make_convolution.py      # writes data/results/convolution.json

Arms are named network/pixels/epochs/seed. All networks learn from the same 3,500 digits
with the same schedule; the epoch is chosen on validation data. The networks:

softmax   one linear layer
mlp7      one hidden layer, about as many parameters as the CNN
mlp64     one hidden layer, ten times as many
cnn       `DigitCNN`
frozen    `DigitCNN` whose convolutions stay as they were drawn; its last layer learns
local     the same, but each place has filters of its own: local, and nothing is shared

Each learns at the rate 0.01; cnn and mlp64 also at 0.003 (slow) and 0.03 (fast).
`scrambled` pixels change places, in all images alike. `hits`: 1 for each test digit
that is read rightly. `moved` holds the accuracy on test digits moved by 0 to 4 pixels,
a quarter of them each way (which means nothing where pixels are scrambled).
"""

from itertools import product

import torch
import torch.nn.functional as F
from study import Study
from torch import Tensor, nn

from mmcourse.convolution import DigitCNN, shifted
from mmcourse.datasets import SPLITS, mnist
from mmcourse.training import count_parameters, fit, mlp, predict, warmup_cosine

PACES = {"slow": 0.003, "fast": 0.03}


class LocalConv(nn.Module):
    "A convolution with other filters at each place."

    def __init__(self, channels: int, filters: int, size: int, places: int):
        super().__init__()
        self.size, self.places = size, places
        fan_in = channels * size**2
        w = torch.empty(places**2, filters, fan_in)
        self.weight = nn.Parameter(w.uniform_(-(fan_in**-0.5), fan_in**-0.5))
        self.bias = nn.Parameter(torch.zeros(filters, places**2))

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, self.size)  # (B, fan_in, places²)
        y = torch.einsum("bfp,pof->bop", columns, self.weight) + self.bias
        return y.unflatten(2, (self.places, self.places))


def frozen() -> nn.Module:
    model = DigitCNN()
    model.body.requires_grad_(False)
    return model


def local() -> nn.Module:
    model = DigitCNN()
    model.body[0] = LocalConv(1, 8, 5, 24)
    model.body[3] = LocalConv(8, 16, 3, 10)
    return model


NETWORKS = {
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
    "mlp7": lambda: mlp(hidden=7),
    "mlp64": lambda: mlp(hidden=64),
    "cnn": DigitCNN,
    "frozen": frozen,
    "local": local,
}


def moved(images: Tensor, k: int) -> Tensor:
    "A quarter of the images moved by k pixels each way."
    ways = (k, 0), (-k, 0), (0, k), (0, -k)
    return torch.cat([shifted(part, *way) for part, way in zip(images.chunk(4), ways)])


def scrambled(images: Tensor) -> Tensor:
    order = torch.randperm(784, generator=torch.Generator().manual_seed(0))
    return images.flatten(1)[:, order].view_as(images)


def run(make, data, seed: int, epochs: int, lr: float = 0.01) -> dict:
    model, (x, y) = make(), data["test"]
    options = {"epochs": epochs, "batch_size": 50, "lr": lr, "seed": seed}
    options |= {"schedule": warmup_cosine, "keep_best": True}
    history = fit(model, data["train"], data["valid"], **options)
    guesses = [predict(model, moved(x, k)).argmax(1) for k in range(5)]
    shares = [(g == y).float().mean().item() for g in guesses]
    return {
        "hits": "".join("01"[int(h)] for h in guesses[0] == y),
        "accuracy": round(shares[0], 4),
        "moved": [round(share, 4) for share in shares],
        "valid": history.valid_accuracy[history.best],
        "parameters": count_parameters(model),
    }


def main():
    study = Study("convolution", __doc__, about="chapter 08")
    digits = {s: mnist(s) for s in SPLITS}
    plain, mixed = {}, {}
    for s, d in digits.items():
        image, label = torch.tensor(d["image"]), torch.tensor(d["label"])
        plain[s], mixed[s] = (image, label), (scrambled(image), label)
    data = {"plain": plain, "scrambled": mixed}
    for epochs in (3, 10, 30):
        for name, make in NETWORKS.items():
            for pixels in data if name in ("cnn", "mlp64") else ["plain"]:
                for seed in study.seeds(5):

                    def arm(make=make, pixels=pixels, epochs=epochs, seed=seed):
                        return run(make, data[pixels], seed, epochs)

                    study(f"{name}/{pixels}/{epochs}/{seed}", arm, seed)
    for name, (pace, lr) in product(("cnn", "mlp64"), PACES.items()):
        for seed in study.seeds(5):

            def at_pace(make=NETWORKS[name], lr=lr, seed=seed):
                return run(make, data["plain"], seed, 30, lr)

            study(f"{name}/{pace}/30/{seed}", at_pace, seed)


if __name__ == "__main__":
    main()
