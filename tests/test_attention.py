"Attention equals torch's over random shapes and masks, and keeps its laws."

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from mmcourse.attention import (
    CrossAttention,
    MultiHeadAttention,
    TransformerBlock,
    TransformerClassifier,
    attention,
    attention_weights,
    causal_mask,
    frequencies,
    fused_attention,
    masked_mean,
    padding_mask,
    rotary,
    sinusoidal_positions,
    sound_tokens,
)

some = settings(max_examples=60, deadline=None)
seeds, size = st.integers(0, 2**32 - 1), st.integers(1, 6)
lead = st.lists(st.integers(1, 3), max_size=2).map(tuple)
near = {"rtol": 1e-5, "atol": 1e-5}


def gen(seed):
    return torch.Generator().manual_seed(seed)


def normal(g, *shape, **kind):
    return torch.randn(shape, generator=g, **kind)


def bools(g, *shape, share=0.6):
    return torch.rand(shape, generator=g) < share


def torch_layer(ours, **options):
    "torch's layer with the weights of `ours`, biases included."
    for p in ours.parameters():
        nn.init.normal_(p, 0, 0.5)
    d = ours.out.in_features
    kdim, vdim = ours.to_k.in_features, ours.to_v.in_features
    wide = (kdim, vdim) != (d, d)
    options |= {"kdim": kdim, "vdim": vdim} if wide else {}
    ref = nn.MultiheadAttention(d, ours.heads, batch_first=True, **options)
    state = ours.state_dict()
    parts = [state[f"to_{n}.weight"] for n in "qkv"]
    names = [f"{n}_proj_weight" for n in "qkv"]
    named = dict(zip(names, parts)) if wide else {"in_proj_weight": torch.cat(parts)}
    named["out_proj.weight"] = state["out.weight"]
    if ours.out.bias is not None:
        named["in_proj_bias"] = torch.cat([state[f"to_{n}.bias"] for n in "qkv"])
        named["out_proj.bias"] = state["out.bias"]
    ref.load_state_dict(named)
    return ref


# --- parity with torch


@some
@given(seeds, lead, size, size, size, size)
def test_attention_is_torchs(seed, lead, T, S, d, e):
    g = gen(seed)
    q, k, v = normal(g, *lead, T, d), normal(g, *lead, S, d), normal(g, *lead, S, e)
    ref = F.scaled_dot_product_attention
    assert_close(attention(q, k, v), ref(q, k, v), **near)
    mask = bools(g, T, S) | (torch.arange(S) == 0)  # every row sees something
    for m in (mask, mask.expand(*lead, T, S)):
        assert_close(attention(q, k, v, m), ref(q, k, v, m), **near)
    if T == S:
        ours = attention(q, k, v, causal_mask(T))
        assert_close(ours, ref(q, k, v, is_causal=True), **near)


@some
@given(seeds, lead, size, size, size, size)
def test_fused_is_by_hand_gradients_too(seed, lead, T, S, d, e):
    g = gen(seed)
    shapes = (T, d), (S, d), (S, e)
    one = [normal(g, *lead, *shape).requires_grad_() for shape in shapes]
    two = [x.detach().clone().requires_grad_() for x in one]
    mask = bools(g, *lead, T, S, share=0.4)  # some rows may attend to nothing
    for m in (None, mask):
        assert_close(fused_attention(*one, m), attention(*two, m), **near)
    fused_attention(*one, mask).square().sum().backward()
    attention(*two, mask).square().sum().backward()
    for a, b in zip(one, two):
        assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert not fused_attention(*one, torch.zeros(T, S, dtype=torch.bool)).any()


@some
@given(seeds, size, size, st.integers(1, 4), st.booleans(), st.booleans())
def test_multi_head_is_torchs(seed, T, S, heads, bias, wide):
    g, d = gen(seed), 2 * heads
    kdim, vdim = (5, 3) if wide else (d, d)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ours = MultiHeadAttention(d, heads, kdim=kdim, vdim=vdim, bias=bias)
        ref = torch_layer(ours, bias=bias)
    q, k, v = normal(g, 2, T, d), normal(g, 2, S, kdim), normal(g, 2, S, vdim)
    assert_close(ours(q, k, v), ref(q, k, v)[0], **near)
    real = bools(g, 2, S)
    real[:, 0] = True
    for may in (bools(g, T, S), bools(g, 2, T, S), bools(g, 2, heads, T, S)):
        may[..., 0] = True
        each = may[:, None] if may.ndim == 3 else may
        each = each.expand(2, heads, T, S) & real[:, None, None]
        out, w = ref(q, k, v, attn_mask=~each.flatten(0, 1), average_attn_weights=False)
        mask = may & (real[:, None, None] if may.ndim == 4 else real[:, None])
        assert_close(ours(q, k, v, mask), out, **near)
        assert_close(ours.weights(q, k, mask), w, **near)


def test_keys_and_values_default_to_what_came_before():
    ours, x, y = (
        MultiHeadAttention(8, 2),
        normal(gen(0), 1, 3, 8),
        normal(gen(1), 1, 5, 8),
    )
    ref = torch_layer(ours)
    assert_close(ours(x), ref(x, x, x)[0], **near)
    assert_close(ours(x, y), ref(x, y, y)[0], **near)
    assert_close(ours.weights(x), ours.weights(x, x))


def test_gradients_are_right():
    q, k, v = (normal(gen(i), 2, 3, 4, dtype=torch.float64) for i in range(3))
    for x in (q, k, v):
        x.requires_grad_()
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    by_mask = lambda q, k, v: attention(q, k, v, mask)  # noqa: E731
    assert torch.autograd.gradcheck(by_mask, (q, k, v))
    assert torch.autograd.gradcheck(rotary, (q,))


@settings(max_examples=30, deadline=None)
@given(seeds, size, st.sampled_from([1, 2, 4]))
def test_block_is_torchs(seed, T, heads):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        block = TransformerBlock(8, heads, hidden=12)
        ref = nn.TransformerEncoderLayer(
            8, heads, 12, 0.0, "gelu", batch_first=True, norm_first=True
        )
        ref.self_attn = torch_layer(block.attend)
    ref.linear1, ref.linear2 = block.mlp[0], block.mlp[2]
    ref.norm1, ref.norm2 = block.norm1, block.norm2
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = normal(gen(seed), 2, T, 8)
    assert_close(block(x), ref(x), rtol=1e-4, atol=1e-4)
    forbidden = ~causal_mask(T)
    ours = block(x, causal_mask(T))
    assert_close(ours, ref(x, src_mask=forbidden), rtol=1e-4, atol=1e-4)
    assert TransformerBlock(8, heads).mlp[0].out_features == 32


def test_a_block_takes_its_activation_and_the_norms_epsilon():
    g = torch.Generator().manual_seed(0)
    block, x = TransformerBlock(8, 2, activation=nn.ReLU(), eps=0.5), normal(g, 2, 3, 8)

    def norm(t):  # its own weights are 1 and 0
        t = t - t.mean(-1, keepdim=True)
        return t / (t.square().mean(-1, keepdim=True) + 0.5).sqrt()

    y = x + block.attend(norm(x))
    wanted = y + block.mlp[2](block.mlp[0](norm(y)).clamp_min(0))
    torch.testing.assert_close(block(x), wanted)


# --- laws


@some
@given(
    seeds,
    lead,
    size,
    size,
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from([1, 30, 1e4]),
)
def test_rows_sum_to_one_or_zero(seed, lead, T, S, dtype, loud):
    g = gen(seed)
    q = (loud * normal(g, *lead, T, 4)).to(dtype)
    k, mask = normal(g, *lead, S, 4).to(dtype), bools(g, *lead, T, S, share=0.4)
    a = attention_weights(q, k, mask)
    assert (a >= 0).all()
    assert not a[~mask].any()
    sums = a.float().sum(-1)
    atol = 0.03 if dtype == torch.bfloat16 else 1e-5
    assert_close(sums, mask.any(-1).float(), rtol=0, atol=atol)


@some
@given(seeds, st.integers(1, 7), st.integers(1, 3))
def test_permutation(seed, T, heads):
    g, d = gen(seed), 6 * heads
    layer, block = MultiHeadAttention(d, heads), TransformerBlock(d, heads)
    x, order = normal(g, 2, T, d), torch.randperm(T, generator=g)
    mask = bools(g, 2, 1, T)
    near = {"rtol": 1e-4, "atol": 1e-5}
    for f in (layer, block):
        assert_close(f(x[:, order]), f(x)[:, order], **near)
        masked = f(x[:, order], mask=mask[..., order])
        assert_close(masked, f(x, mask=mask)[:, order], **near)
    source, shuffled = normal(g, 2, 4, d), torch.randperm(4, generator=g)
    assert_close(layer(x, source[:, shuffled]), layer(x, source), **near)


@some
@given(seeds, st.integers(2, 7), st.data())
def test_the_future_does_not_reach_the_past(seed, T, data):
    t, g = data.draw(st.integers(1, T - 1)), gen(seed)
    block, x = TransformerBlock(8, 2), normal(g, 2, T, 8)
    y = x.clone()
    y[:, t:] = 1e3 * normal(g, 2, T - t, 8)
    before, after = block(x, causal_mask(T)), block(y, causal_mask(T))
    assert torch.equal(before[:, :t], after[:, :t])
    assert not torch.equal(before[:, t:], after[:, t:])
    assert not torch.equal(block(x)[:, :t], block(y)[:, :t])  # no mask: it does


@some
@given(seeds, st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 2))
def test_padding_cannot_change_the_answer(seed, lengths, depth):
    g, T = gen(seed), max(lengths) + 2
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        embed = nn.Embedding(20, 8)
        model = TransformerClassifier(embed, 8, 2, classes=3, depth=depth).eval()
    ids, other = torch.randint(20, (2, len(lengths), T), generator=g)
    mask = padding_mask(lengths, T)[:, 0]
    out = model((ids, mask))
    assert out.shape == (len(lengths), 3)
    assert torch.equal(out, model((torch.where(mask, ids, other), mask)))
    for i, n in enumerate(lengths):  # each sentence alone, without any padding
        alone = model((ids[i : i + 1, :n], mask[i : i + 1, :n]))
        assert_close(alone, out[i : i + 1], rtol=1e-4, atol=1e-5)


def test_a_classifier_knows_the_order():
    model = TransformerClassifier(nn.Embedding(20, 8), 8, 2).eval()
    ids, mask = torch.arange(6)[None], torch.ones(1, 6, dtype=torch.bool)
    assert not torch.allclose(model((ids, mask)), model((ids.flip(1), mask)))
    assert len(TransformerClassifier(nn.Identity(), 8, 2, depth=3).blocks) == 3


def test_sizes_unless_told_otherwise():
    model = TransformerClassifier(nn.Embedding(20, 8), 8)
    drops = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert drops == [0.1] * 2  # of the tokens, and of one block
    assert model.blocks[0].attend.heads == 4
    assert model.head.out_features == 10
    assert CrossAttention(8, 2).attend.to_k.in_features == 8
    bare = MultiHeadAttention(8, 2, bias=False)
    assert [p.ndim for p in bare.parameters()] == [2] * 4  # none has a bias


def test_dropout_acts_in_training_alone():
    x = normal(gen(0), 2, 5, 8)
    for block in (
        TransformerBlock(8, 2, dropout=0.5),
        CrossAttention(8, 2, dropout=0.5),
    ):
        args = (x,) if isinstance(block, TransformerBlock) else (x, x)
        assert not torch.equal(block(*args), block(*args))
        assert torch.equal(block.eval()(*args), block(*args))


def test_rows_that_may_attend_to_nothing():
    g = gen(0)
    q, k, v = (normal(g, 2, 3, 4).requires_grad_() for _ in range(3))
    mask = bools(g, 2, 3, 3)
    mask[0, 0] = False
    y = attention(q, k, v, mask)
    y.sum().backward()
    assert not y[0, 0].any()
    assert not q.grad[0, 0].any()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    layer = MultiHeadAttention(4, 2)
    deaf = torch.zeros(1, 3, dtype=torch.bool)
    assert_close(layer(q, mask=deaf), layer.out.bias.expand(2, 3, 4))


def test_cross_attention_reads_the_other_and_keeps_what_it_was():
    cross, g = CrossAttention(4, 2, width=3), gen(0)
    x, context = normal(g, 2, 5, 4), normal(g, 2, 6, 3)
    mask = padding_mask([6, 2], 6)
    a = cross.weights(x, context, mask)
    assert a.shape == (2, 2, 5, 6)
    assert_close(a.sum(-1), torch.ones(2, 2, 5))
    assert not a[1, :, :, 2:].any()
    expected = x + cross.attend(cross.norm(x), cross.norm_context(context), mask=mask)
    assert_close(cross(x, context, mask), expected)
    nn.init.zeros_(cross.attend.out.bias)
    assert torch.equal(cross(x, context, torch.zeros(5, 6, dtype=torch.bool)), x)


# --- positions, masks, means


@some
@given(seeds, st.sampled_from([2, 4, 10]), *[st.integers(-1000, 1000)] * 3)
def test_rotary_scores_depend_on_the_distance_alone(seed, d, t, s, shift):
    q, k = torch.randn(2, 1, d, dtype=torch.float64, generator=gen(seed))
    turn = lambda x, n: rotary(x, torch.tensor([n]))  # noqa: E731
    tight = {"rtol": 1e-7, "atol": 1e-7}
    score = (turn(q, t) * turn(k, s)).sum()
    assert_close((turn(q, t + shift) * turn(k, s + shift)).sum(), score, **tight)
    assert_close((q * turn(k, s - t)).sum(), score, **tight)
    assert_close(turn(turn(q, t), s), turn(q, t + s), **tight)  # turns add up


def test_rotary_by_complex_numbers():
    x = normal(gen(0), 3, 5, 8)
    speed = 10_000 ** (-torch.arange(0, 8, 2) / 8)
    turn = torch.polar(torch.ones(5, 4), torch.arange(5)[:, None] * speed)
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn
    assert_close(rotary(x), torch.view_as_real(z).flatten(-2), **near)
    assert_close(rotary(x, torch.arange(5).expand(3, 5)), rotary(x))
    assert rotary(x.bfloat16()).dtype == torch.bfloat16


def test_rotary_is_exact_at_late_places():
    late = rotary(torch.tensor([[1.0, 0.0]]), torch.tensor([10**7]))
    wanted = torch.tensor([[math.cos(10**7), math.sin(10**7)]])
    assert_close(late, wanted, rtol=0, atol=1e-6)  # float32 angles would be off


def test_sinusoids_are_the_papers():
    p = sinusoidal_positions(50, 6)
    assert p.dtype == torch.float32
    for t in (0, 1, 49):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert abs(p[t, 2 * i] - math.sin(angle)) < 1e-6
            assert abs(p[t, 2 * i + 1] - math.cos(angle)) < 1e-6
    assert_close(frequencies(4), torch.tensor([1, 0.01]).double())


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_masks(kind):
    assert causal_mask(3).tolist() == [[s <= t for s in range(3)] for t in range(3)]
    lengths = [2, 0, 4]
    for size in (4, 6):
        wanted = [[[s < m for s in range(size)]] for m in lengths]
        assert padding_mask(kind(lengths), size).tolist() == wanted
    assert padding_mask(kind(lengths)).shape == (3, 1, 4)


def test_masked_mean():
    x = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[True, False, True], [False] * 3])
    assert masked_mean(x, mask).tolist() == [[2, 3], [0, 0]]
    mask[1, 2] = True  # one token is its own mean
    assert masked_mean(x, mask).tolist() == [[2, 3], [10, 11]]


def test_sound_tokens_stack_frames_and_find_the_clip():
    mel = torch.full((2, 4, 8), -60.0)
    mel[0, :, 2:5] = torch.arange(12.0).view(4, 3) - 30
    x, mask = sound_tokens(mel)
    assert x.shape == (2, 2, 12)  # the last two frames make no token
    assert mask.tolist() == [[True, True], [False, False]]
    frames = x[0].unflatten(1, (3, 4)).flatten(0, 1)  # (6 frames, 4 bands)
    assert_close(15 * frames[2:5].T - 30, mel[0, :, 2:5])
    assert_close(15 * x[1] - 30, torch.full((2, 12), -60.0))
