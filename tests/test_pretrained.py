"Folders of published models: read as transformers writes them, and nothing half."

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmcourse.checkpoint import CheckpointError
from mmcourse.pretrained import (
    ACTIVATIONS,
    activation,
    find_pretrained,
    load_weights,
    only,
    read_config,
    read_weights,
    renamed,
)

TINY = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 8,
    "patch_size": 4,
}


@pytest.fixture(scope="module")
def theirs():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.ViTModel(transformers.ViTConfig(**TINY))


def folder_of(tmp_path, weights, kind="tiny"):
    config = json.dumps({"model_type": kind})
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


def sharded(tmp_path, parts, place):
    for name, part in parts.items():
        save_file(part, tmp_path / name)
    body = json.dumps({"metadata": {}, "weight_map": place})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(body, encoding="utf-8")
    return tmp_path


# what transformers writes
def sums(weights):
    return sorted((tuple(t.shape), t.double().sum().item()) for t in weights.values())


def test_one_file_holds_every_weight(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    assert read_config(tmp_path, ("vit", "deit"))["hidden_size"] == 8
    weights = read_weights(tmp_path)
    assert "embeddings.cls_token" in weights
    assert sums(weights) == sums(theirs.state_dict())


def test_shards_are_the_same_as_one_file(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "one")
    theirs.save_pretrained(tmp_path / "many", max_shard_size="2KB")
    assert len([*(tmp_path / "many").glob("*.safetensors")]) > 2
    one, many = read_weights(tmp_path / "one"), read_weights(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[k], many[k]) for k in one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(tmp_path, dtype):
    held = {"w": torch.tensor([1.5, -0.25], dtype=dtype), "steps": torch.tensor([3])}
    got = read_weights(folder_of(tmp_path, held))
    assert got["w"].dtype == torch.float32 and got["w"].tolist() == [1.5, -0.25]
    assert got["steps"].dtype == torch.int64


# what is refused
def test_a_folder_without_its_files_says_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        read_config(tmp_path / "nowhere", "vit")
    with pytest.raises(FileNotFoundError, match=r"config\.json, found nothing"):
        read_config(tmp_path, "vit")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    wanted = r"model\.safetensors, found pytorch_model\.bin"
    with pytest.raises(FileNotFoundError, match=wanted):
        read_weights(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "clip"}', "{}"])
def test_a_config_of_something_else(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path, "vit")


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, share):
    folder = folder_of(tmp_path, {"w": torch.zeros(1000)})
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_weights(folder)


@pytest.mark.parametrize(
    "shard",
    [
        "../out.safetensors",
        "/out.safetensors",
        "a/../../out.safetensors",
        "..\\out.safetensors",
        "C:out.safetensors",
        "out.bin",
    ],
)
def test_an_index_cannot_lead_out_of_the_folder(tmp_path, shard):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_file({"w": torch.zeros(1)}, tmp_path / "out.safetensors")
    sharded(inside, {}, {"w": shard})
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        read_weights(inside)


def test_an_index_and_its_shards_agree(tmp_path):
    w, v, name = torch.zeros(1), torch.ones(1), "one.safetensors"
    sharded(tmp_path, {name: {"a": w}}, {"a": name, "b": name})
    with pytest.raises(CheckpointError, match="'b' is missing in one"):
        read_weights(tmp_path)
    sharded(tmp_path, {name: {"a": w, "c": v}}, {"a": name})
    with pytest.raises(CheckpointError, match=r"'c' of one\.safetensors is not in it"):
        read_weights(tmp_path)
    sharded(tmp_path, {}, {"a": "two.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"expected two\.safetensors"):
        read_weights(tmp_path)


@pytest.mark.parametrize("body", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(tmp_path, body):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(body, encoding="utf-8")
    with pytest.raises(CheckpointError, match="weight_map"):
        read_weights(tmp_path)


# names
def test_names_are_replaced_in_order_and_unused_ones_left_out():
    w = torch.zeros(1)
    held = {"encoder.layer.0.q": w, "pooler.q": w}
    names = [("encoder.layer.", "blocks."), (".q", ".to_q")]
    assert [*renamed(held, names, unused=["pooler."])] == ["blocks.0.to_q"]
    with pytest.raises(CheckpointError, match="b: two weights of one name: 'a'"):
        renamed({"a": w, "b": w}, [("b", "a")])


def test_all_is_loaded_or_nothing():
    model = nn.Linear(2, 3)
    before = model.weight.detach().clone()
    new = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
    assert load_weights(model.train(), new, "x") is model and not model.training
    assert model.weight.eq(1).all() and model.bias.eq(1).all()
    model.load_state_dict({"weight": before, "bias": torch.zeros(3)})
    for bad, why in [
        ({"weight": new["weight"]}, "'bias' is missing there"),
        (new | {"scale": before}, "'scale' is unknown here"),
        (new | {"bias": torch.ones(4)}, r"'bias' is \(4,\) there, \(3,\) here"),
    ]:
        with pytest.raises(CheckpointError, match=f"folder: .*{why}"):
            load_weights(model, bad, "folder")
        assert torch.equal(model.weight, before)


# options
def test_an_option_that_we_do_not_have_is_named():
    config = {"qkv_bias": False, "act": "gelu"}
    only(config, "x", qkv_bias={True, False}, act="gelu", absent=1)
    with pytest.raises(CheckpointError, match="qkv_bias: expected True, got False"):
        only(config, "x", qkv_bias=True)
    with pytest.raises(CheckpointError, match="hidden_act: expected .*got 'mish'"):
        activation({"hidden_act": "mish"}, "x")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name):
    act2fn = pytest.importorskip("transformers.activations").ACT2FN
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(
        activation({"hidden_act": name}, "x")(x), act2fn[name](x)
    )


# places
def test_a_published_model_is_found_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub_home"))
    monkeypatch.delenv("MMCOURSE_MODELS", raising=False)
    assert find_pretrained("a/b") is None
    cached = tmp_path / "hub_home/hub/models--a--b/snapshots/0123"
    own = tmp_path / "own/a/b"
    for folder in (cached, own):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="utf-8")
    assert find_pretrained("a/b") == cached
    monkeypatch.setenv("MMCOURSE_MODELS", str(tmp_path / "own"))
    assert find_pretrained("a/b") == own and find_pretrained("a/c") is None
