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
    (FOLDER / name / "generation_config.json").unlink(missing_ok=True)
    whole = {k: t.detach().contiguous() for k, t in reference.items()}
    save_file(whole, FOLDER / name / "reference.safetensors")


def shaken(model):
    "The model with weights large enough for every part to matter, ready to be asked."
    for p in model.parameters():
        if p.requires_grad:  # Whisper's sines and cosines are not learnt
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


TEXT = {
    "vocab_size": 24,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "pad_token_id": None,
}
VISION = {
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 12,
    "patch_size": 4,
}


def llava():
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = VISION | {"model_type": "clip_vision_model", "hidden_size": 8}
    text = TEXT | {"model_type": "llama", "hidden_size": 12, "num_key_value_heads": 1}
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=23)
    model = shaken(LlavaForConditionalGeneration(config))
    ids = torch.randint(23, (2, 15))
    ids[0, 1:10] = ids[1, 4:13] = 23
    pixels = torch.randn(2, 3, 12, 12)
    found = model(input_ids=ids, pixel_values=pixels)
    return model, {"ids": ids, "pixels": pixels, "logits": found.logits}


def qformer():
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    config = Blip2QFormerConfig(
        hidden_size=12,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=20,
        encoder_hidden_size=8,
    )
    model = shaken(Blip2QFormerModel(config))
    queries, states = torch.randn(1, 4, 12), torch.randn(2, 9, 8)
    found = model(query_embeds=queries.expand(2, -1, -1), encoder_hidden_states=states)
    hidden = found.last_hidden_state
    return model, {"queries": queries, "states": states, "hidden": hidden}


def flamingo():
    from transformers import IdeficsConfig, IdeficsForVisionText2Text

    perceiver = {
        "resampler_n_latents": 3,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 4,
        "qk_layer_norms_perceiver": True,
    }
    config = IdeficsConfig(
        **TEXT | {"pad_token_id": 0},
        additional_vocab_size=2,
        cross_layer_interval=2,
        qk_layer_norms=True,
        use_resampler=True,
        vision_config=VISION | {"embed_dim": 8},
        perceiver_config=perceiver,
    )
    model = shaken(IdeficsForVisionText2Text(config))
    ids, pixels = torch.randint(26, (2, 7)), torch.randn(2, 2, 3, 12, 12)
    looks = torch.rand(2, 7, 2) < 0.5
    looks[0, 0] = False  # a word that looks at nothing
    found = model(input_ids=ids, pixel_values=pixels, image_attention_mask=looks)
    inputs = {"ids": ids, "pixels": pixels, "looks": looks}
    return model, inputs | {"logits": found.logits}


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


def whisper():
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    config = WhisperConfig(
        vocab_size=19,
        num_mel_bins=10,
        d_model=12,
        encoder_layers=2,
        encoder_attention_heads=3,
        encoder_ffn_dim=20,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        max_source_positions=8,
        max_target_positions=9,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    model = shaken(WhisperForConditionalGeneration(config))
    features, ids = torch.randn(2, 10, 16), torch.randint(19, (2, 5))
    found = model(features, decoder_input_ids=ids)
    t = torch.arange(16_000) / 16_000  # a rising tone that fades away
    wave = 0.3 * torch.exp(-9 * t) * torch.sin(2 * torch.pi * (200 * t + 1500 * t**2))
    ears = WhisperFeatureExtractor(chunk_length=1)
    heard = ears(wave.numpy(), sampling_rate=16_000, return_tensors="pt")
    return model, {
        "mel": heard.input_features[0, :, :30],
        "features": features,
        "ids": ids,
        "sound": found.encoder_last_hidden_state,
        "logits": found.logits,
    }


def encodec():
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        sampling_rate=800,
        target_bandwidths=[1.6, 3.2],
        num_filters=2,
        hidden_size=8,
        upsampling_ratios=[2, 2],
        kernel_size=3,
        last_kernel_size=3,
        num_lstm_layers=1,
        codebook_size=16,
    )
    model = EncodecModel(config).eval()
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()
        layer.codebook.embed_avg.normal_()
        layer.codebook.cluster_size.uniform_(1, 9)
    x = torch.randn(2, 8, 12)
    codes = model.quantizer.encode(x)
    return model, {
        "x": x,
        "codes": codes,
        "decoded": model.quantizer.decode(codes),
        "decoded_half": model.quantizer.decode(codes[:2]),
    }


def chameleon():
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    eye = {"embed_dim": 4, "num_embeddings": 4, "double_latent": False}
    eye |= {"latent_channels": 4, "resolution": 8, "base_channels": 32}
    eye |= {"channel_multiplier": [1], "num_res_blocks": 1}
    names = {"<image>": 4, "a": 5} | {
        f"IMGIMG{c}Z": 6 + i for i, c in enumerate("ABCD")
    }
    config = ChameleonConfig(
        **TEXT,
        num_key_value_heads=1,
        vocabulary_map=names,
        vq_config=eye,
    )
    model = shaken(ChameleonForConditionalGeneration(config))
    ids = torch.randint(24, (2, 9))
    logits = model(input_ids=ids).logits
    model.model.vqmodel = torch.nn.Identity()  # the chapter reads the language part
    return model, {"ids": ids, "logits": logits}


MAKERS = vit, clip, siglip, llava, qformer, flamingo, whisper, encodec, chameleon

if __name__ == "__main__":
    for make in MAKERS:
        torch.manual_seed(0)
        publish(make.__name__, *make())
