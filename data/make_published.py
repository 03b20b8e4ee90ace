"""Tiny models as transformers writes them, and what it computes with them.

    pip install -e ".[parity]"
    python data/make_published.py      # writes data/published/*/

Chapters of part 5 read these folders with classes of their own and compare. Weights are
random, so nothing here knows anything. Each folder holds config.json,
model.safetensors and reference.safetensors: inputs and outputs by name.
"""

import os
from pathlib import Path

import torch
from safetensors.torch import save_file

os.environ["HF_HUB_OFFLINE"] = "1"
FOLDER = Path(__file__).resolve().parent / "published"


def publish(name: str, model, reference: dict):
    "Write the folder of one model, and its reference."
    model.save_pretrained(FOLDER / name)
    whole = {k: t.detach().contiguous() for k, t in reference.items()}
    save_file(whole, FOLDER / name / "reference.safetensors")


def shaken(model):
    "The model with weights large enough for every part to matter, ready to be asked."
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    return model.eval()


def vit():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        image_size=12,
        patch_size=4,
    )
    model = shaken(ViTModel(config))
    pixels, larger = torch.randn(2, 3, 12, 12), torch.randn(2, 3, 20, 16)
    found = model(larger, interpolate_pos_encoding=True)
    return model, {
        "pixels": pixels,
        "hidden": model(pixels).last_hidden_state,
        "larger": larger,
        "hidden_larger": found.last_hidden_state,
    }


def tower_sizes(**more) -> dict:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    return sizes | {"intermediate_size": 12} | more


def asked(model) -> dict:
    "Three pictures, two texts with padding, and what a model of pairs says of them."
    ids = torch.tensor([[6, 3, 9, 4, 19], [6, 8, 19, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    pixels = torch.randn(3, 3, 8, 8)
    found = model(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    logits = found.logits_per_image
    return {"pixels": pixels, "ids": ids, "mask": mask, "logits": logits}


def clip():
    from transformers import CLIPConfig, CLIPModel

    text = tower_sizes(vocab_size=20, max_position_embeddings=6)
    text |= {"bos_token_id": 6, "eos_token_id": 19}
    vision = tower_sizes(image_size=8, patch_size=4)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    model = shaken(CLIPModel(config))
    return model, asked(model)


def siglip():
    from transformers import SiglipConfig, SiglipModel

    text = tower_sizes(vocab_size=20, max_position_embeddings=5)
    text |= {"bos_token_id": 6, "eos_token_id": 19}
    vision = tower_sizes(image_size=8, patch_size=4)
    model = shaken(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)))
    return model, asked(model)


if __name__ == "__main__":
    for make in (vit, clip, siglip):
        torch.manual_seed(0)
        publish(make.__name__, *make())
