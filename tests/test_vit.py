"A picture as tokens, and a transformer on them that is transformers' own."

import copy
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.checkpoint import CheckpointError
from mmcourse.pretrained import read_weights, renamed
from mmcourse.vit import (
    NAMES,
    UNUSED,
    ViT,
    ViTClassifier,
    block_mask,
    patchify,
    rollout,
    rotary_2d,
    stretched,
)


# patches
def test_patches_come_row_by_row_with_their_pixels_in_order():
    x = torch.arange(24.0).view(1, 1, 4, 6)
    wanted = [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert patchify(x, 2)[0, :3].tolist() == wanted
    assert patchify(x, 2)[0, 3].tolist() == [12, 13, 18, 19]


def test_patches_of_colour_hold_channel_after_channel():
    x = torch.randn(2, 3, 6, 4)
    unfolded = torch.nn.functional.unfold(x, 2, stride=2)
    assert torch.equal(patchify(x, 2), unfolded.mT)


# places
@given(st.tuples(*[st.integers(0, 9)] * 6))
@settings(max_examples=30, deadline=None)
def test_turned_in_two_directions_only_distances_count(places):
    q, k = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)).double()
    *at, dr, dc = map(torch.tensor, places)
    one, two = [x[None] for x in at[:2]], [x[None] for x in at[2:]]
    moved = [[r + dr, c + dc] for r, c in (one, two)]
    here = (rotary_2d(q, *one) * rotary_2d(k, *two)).sum()
    there = (rotary_2d(q, *moved[0]) * rotary_2d(k, *moved[1])).sum()
    assert torch.allclose(here, there, atol=1e-9)


def test_rows_and_columns_turn_different_halves():
    x, zero, one = torch.ones(1, 8), torch.tensor([0]), torch.tensor([1])
    by_row, by_column = rotary_2d(x, one, zero), rotary_2d(x, zero, one)
    assert torch.equal(by_row[:, 4:], x[:, 4:]) and not by_row[:, :4].eq(1).all()
    assert torch.equal(by_column[:, :4], x[:, :4]) and not by_column[:, 4:].eq(1).all()


def test_a_table_of_its_own_size_stays_and_a_level_one_stays_level():
    table = torch.randn(1, 1 + 6, 5)
    assert stretched(table, (2, 3), (2, 3)) is table
    larger = stretched(torch.ones(1, 7, 5), (2, 3), (4, 5))
    assert larger.shape == (1, 21, 5) and torch.allclose(larger, torch.ones(1))
    ramp = torch.arange(4.0).repeat(3, 1).view(1, 12, 1)  # grows with the column
    ramp = torch.cat([torch.full((1, 1, 1), 9.0), ramp], 1)
    wide = stretched(ramp, (3, 4), (3, 8))
    assert wide[0, 0] == 9 and wide[0, 1:9, 0].diff().ge(0).all()


# the model
def published(model):
    "(weights, gradients) of a transformers model by the names of its folder."
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        weights = read_weights(folder)
        graded = copy.deepcopy(model)
        for p, own in zip(graded.parameters(), model.parameters()):
            p.data = torch.zeros_like(own) if own.grad is None else own.grad
        graded.save_pretrained(folder)
        return weights, read_weights(folder)


@given(
    heads=st.integers(1, 3),
    width=st.integers(2, 5),
    depth=st.integers(1, 3),
    hidden=st.integers(3, 20),
    patch=st.integers(1, 4),
    grid=st.integers(1, 3),
    channels=st.integers(1, 3),
    act=st.sampled_from(["gelu", "gelu_new", "relu", "quick_gelu", "silu"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_it_is_transformers(
    heads, width, depth, hidden, patch, grid, channels, act, seed, tmp_path_factory
):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.ViTConfig(
        hidden_size=heads * width * 2,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=hidden,
        hidden_act=act,
        image_size=patch * grid,
        patch_size=patch,
        num_channels=channels,
    )
    theirs = transformers.ViTModel(config).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    folder = tmp_path_factory.mktemp("vit")
    theirs.save_pretrained(folder)
    ours = ViT.from_pretrained(folder)
    x = torch.randn(2, channels, patch * grid, patch * grid)
    a, b = ours(x), theirs(x).last_hidden_state
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    up = torch.randn_like(a)
    (a * up).sum().backward()
    (b * up).sum().backward()
    grads = renamed(published(theirs)[1], NAMES, UNUSED)
    for name, p in ours.named_parameters():
        scale = 1 + grads[name].abs().max()
        torch.testing.assert_close(
            p.grad / scale, grads[name] / scale, atol=1e-4, rtol=0
        )
    x = torch.randn(1, channels, patch * (grid + 2), patch * (grid + 1))
    b = theirs(x, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(ours(x), b, atol=1e-5, rtol=1e-5)


def test_a_classifiers_folder_opens_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "image_size": 8, "patch_size": 4}
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))
    theirs.save_pretrained(tmp_path, max_shard_size="1KB")
    x = torch.randn(2, 3, 8, 8)
    wanted = theirs.eval().vit(x).last_hidden_state
    torch.testing.assert_close(ViT.from_pretrained(tmp_path)(x), wanted)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "deit"}, "expected 'vit', got 'deit'"),
        ({"qkv_bias": False}, "qkv_bias: expected True, got False"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"num_hidden_layers": 3}, "is missing there"),
        ({"num_hidden_layers": 1}, "is unknown here"),
        ({"patch_size": 3}, "'embed.weight' is"),
        ({"num_attention_heads": 5}, "num_attention_heads: expected a divisor"),
        ({"hidden_size": None}, "hidden_size: expected a whole number from 1"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers: expected at most 1000"),
        ({"layer_norm_eps": None}, "layer_norm_eps: expected a number above 0"),
        ({"layer_norm_eps": 0}, "layer_norm_eps: expected a number above 0"),
        ({"layer_norm_eps": True}, "layer_norm_eps: expected a number above 0"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, why):
    import json
    import shutil

    from mmcourse.store import data_path

    folder = tmp_path / "vit"
    shutil.copytree(data_path("published/vit"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | change)
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=why):
        ViT.from_pretrained(folder)


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 12, 13), (2, 3, 10, 12), (2, 1, 12, 12), (3, 12, 12), (1, 3, 0, 12)],
)
def test_pictures_that_do_not_fit_are_refused(shape):
    vit = ViT(12, 4, channels=3, d=8, heads=2, depth=1)
    why = r"pixels: expected (\(B, 3, H, W\).* of 4|at least one value), got"
    with pytest.raises(ValueError, match=why):
        vit(torch.zeros(shape))


def test_pictures_are_finite_floats():
    vit = ViT(8, 4, channels=3, d=8, heads=2, depth=1)
    with pytest.raises(TypeError, match="pixels: expected floats, scaled, got Tensor"):
        vit(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="pixels: expected finite values, got 1 of"):
        vit(torch.tensor([torch.inf] + [0.0] * 191).view(1, 3, 8, 8))


# many sizes
def test_a_block_mask_has_one_square_for_each_picture():
    mask = block_mask(torch.tensor([0, 0, 1, 2, 2]))
    wanted = torch.block_diag(torch.ones(2, 2), torch.ones(1, 1), torch.ones(2, 2))
    assert torch.equal(mask, wanted.bool())


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5)
)
@settings(max_examples=20, deadline=None)
def test_packed_is_one_by_one(shapes):
    torch.manual_seed(0)
    vit = ViT(9, 3, channels=2, d=8, heads=2, depth=2).eval()
    pictures = [torch.randn(2, 3 * r, 3 * c) for r, c in shapes]
    for (r, c), picture, together in zip(shapes, pictures, vit.packed(pictures)):
        assert together.shape == (1 + r * c, 8)
        torch.testing.assert_close(
            together, vit(picture[None])[0], atol=1e-5, rtol=1e-5
        )


# answers
def test_the_class_token_or_the_mean_of_the_patches_answers():
    torch.manual_seed(0)
    vit = ViT(8, 4, d=8, heads=2, depth=1).eval()
    x = torch.randn(3, 1, 8, 8)
    y = vit(x)
    for mean, seen in (
        (False, y[:, 0]),
        (True, (y[:, 1] + y[:, 2] + y[:, 3] + y[:, 4]) / 4),
    ):
        model = ViTClassifier(vit, 3, mean=mean)
        torch.testing.assert_close(
            model(x), seen @ model.head.weight.T + model.head.bias
        )


# what heads look at
def test_where_heads_look_is_what_each_block_does():
    "With these weights the values give each block's own attention again."
    torch.manual_seed(0)
    vit = ViT(8, 4, d=8, heads=2, depth=2).eval()
    pixels = torch.randn(3, 1, 8, 8)
    x = vit.tokens(pixels)
    for block, looks in zip(vit.blocks, vit.weights(pixels), strict=True):
        assert looks.shape == (3, 2, 5, 5)
        attend, z = block.attend, block.norm1(x)
        mixed = looks @ attend.split(attend.to_v(z))  # (B, heads, T, d / heads)
        out = attend.out(mixed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(out, attend(z))
        x = block(x)


def test_rollout_by_hand():
    "Two blocks, two tokens, one head: the product of (A + I) / 2."
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    got = rollout([a[None, None], b[None, None]])
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    second = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    torch.testing.assert_close(got[0], second @ first)


def test_rollout_rows_add_up_and_heads_count_alike():
    weights = torch.rand(3, 2, 4, 5, 5).softmax(-1)  # blocks, B, heads, T, T
    got = rollout([*weights])
    torch.testing.assert_close(got.sum(-1), torch.ones(2, 5))
    torch.testing.assert_close(got, rollout([*weights.flip(2)]))
    assert not torch.allclose(got, rollout([*weights.flip(0)]))
