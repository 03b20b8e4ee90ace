"Attention: equal to torch over random shapes, masks and widths; the laws; bad input; any small input at all."

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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
)

some, many = (
    settings(max_examples=80, deadline=None),
    settings(max_examples=2000, deadline=None),
)
REFUSED = ValueError, TypeError
seeds, size, lead = (
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.lists(st.integers(1, 3), max_size=2).map(tuple),
)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def normal(g, *shape):
    return torch.randn(shape, generator=g)


def bools(g, *shape, share=0.6):
    return torch.rand(shape, generator=g) < share


def refused(function, *args, error=ValueError, name, **kwargs):
    "The error must begin with the argument's name, be one line, and say what is wanted and what came."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert (
        message.startswith(f"{name}: expected")
        and ", got " in message
        and "\n" not in message
    ), message


# --------------------------------------------------------------------------------------------------------------- parity with torch
@some
@given(seeds, lead, size, size, size, size)
def test_attention_is_torchs(seed, lead, T, S, d, e):
    g = gen(seed)
    q, k, v = normal(g, *lead, T, d), normal(g, *lead, S, d), normal(g, *lead, S, e)
    torch.testing.assert_close(
        attention(q, k, v),
        F.scaled_dot_product_attention(q, k, v),
        rtol=1e-5,
        atol=1e-5,
    )
    mask = bools(g, T, S) | (
        torch.arange(S) == 0
    )  # torch before 2.5 has no answer for a row of nothing
    for m in (mask, mask.expand(*lead, T, S)):
        torch.testing.assert_close(
            attention(q, k, v, m),
            F.scaled_dot_product_attention(q, k, v, m),
            rtol=1e-5,
            atol=1e-5,
        )
    if T == S:
        torch.testing.assert_close(
            attention(q, k, v, causal_mask(T)),
            F.scaled_dot_product_attention(q, k, v, is_causal=True),
            rtol=1e-5,
            atol=1e-5,
        )


@some
@given(seeds, lead, size, st.integers(0, 5), size, size)
def test_fused_is_by_hand(seed, lead, T, S, d, e):
    g = gen(seed)
    one = [normal(g, *lead, n, w).requires_grad_() for n, w in ((T, d), (S, d), (S, e))]
    two = [x.detach().clone().requires_grad_() for x in one]
    mask = bools(g, *lead, T, S, share=0.4)  # some rows may attend to nothing
    for m in (None, mask):
        torch.testing.assert_close(
            fused_attention(*one, m), attention(*two, m), rtol=1e-5, atol=1e-5
        )
    fused_attention(*one, mask).square().sum().backward()
    attention(*two, mask).square().sum().backward()
    for a, b in zip(one, two):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert not fused_attention(*one, torch.zeros(T, S, dtype=torch.bool)).any()


@some
@given(
    seeds,
    st.integers(1, 3),
    size,
    size,
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_multi_head_is_torchs(seed, B, T, S, heads, d, bias, wide, per_head):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kdim, vdim = (5, 3) if wide else (None, None)
        ref = nn.MultiheadAttention(
            heads * d, heads, bias=bias, kdim=kdim, vdim=vdim, batch_first=True
        )
        for p in ref.parameters():
            nn.init.normal_(
                p, 0, 0.5
            )  # torch's own biases are zero, which would hide one that is not copied
    ours, g = MultiHeadAttention.from_torch(ref), gen(seed)
    q, k, v = (
        normal(g, B, T, heads * d),
        normal(g, B, S, kdim or heads * d),
        normal(g, B, S, vdim or heads * d),
    )
    may, real = bools(g, *((B, heads, T, S) if per_head else (T, S))), bools(g, B, S)
    may[..., 0] = True
    real[:, 0] = True
    out, w = ref(
        q,
        k,
        v,
        attn_mask=~may.flatten(0, 1) if per_head else ~may,
        key_padding_mask=~real,
        average_attn_weights=False,
    )
    mask = may & (real[:, None, None] if per_head else real[:, None])
    torch.testing.assert_close(ours(q, k, v, mask), out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.weights(q, k, mask), w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(q, k, v), ref(q, k, v)[0], rtol=1e-5, atol=1e-5)
    if not wide:
        torch.testing.assert_close(ours(q), ref(q, q, q)[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(q, v), ref(q, v, v)[0], rtol=1e-5, atol=1e-5)


def test_gradients_are_torchs():
    torch.manual_seed(0)
    ref = nn.MultiheadAttention(8, 2, batch_first=True)
    ours = MultiHeadAttention.from_torch(ref)
    x, y = (torch.randn(2, 5, 8, generator=gen(1)).requires_grad_() for _ in range(2))
    mask = padding_mask([5, 2]) & causal_mask(5)
    ours(x, mask=mask).square().sum().backward()
    ref(
        y, y, y, key_padding_mask=~padding_mask([5, 2])[:, 0], attn_mask=~causal_mask(5)
    )[0].square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        torch.cat([m.weight.grad for m in (ours.to_q, ours.to_k, ours.to_v)]),
        ref.in_proj_weight.grad,
        rtol=1e-4,
        atol=1e-5,
    )


def test_gradients_are_right():
    q, k, v = (
        torch.randn(2, 3, 4, dtype=torch.float64, generator=gen(i)).requires_grad_()
        for i in range(3)
    )
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    assert torch.autograd.gradcheck(
        lambda q, k, v: attention(q, k, v, mask), (q, k, v)
    ) and torch.autograd.gradcheck(rotary, (q,))


def test_from_torch_copies_and_refuses():
    ref = nn.MultiheadAttention(4, 2)
    ours = MultiHeadAttention.from_torch(ref)
    with torch.no_grad():
        ref.in_proj_weight.zero_()
    assert ours.to_q.weight.any()  # a copy, not a view
    assert (
        MultiHeadAttention.from_torch(ref.double()).to_q.weight.dtype == torch.float64
    )
    for kwargs in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(ValueError, match="layer: expected one without"):
            MultiHeadAttention.from_torch(nn.MultiheadAttention(4, 2, **kwargs))
    refused(
        MultiHeadAttention.from_torch, nn.Linear(2, 2), error=TypeError, name="layer"
    )


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 3), size, st.sampled_from([1, 2, 4]))
def test_block_is_torchs(seed, B, T, heads):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ref = nn.TransformerEncoderLayer(
            8,
            heads,
            12,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            dropout=0.0,
        )
        for p in ref.parameters():
            nn.init.normal_(p, 0, 0.5)
    block = TransformerBlock(8, heads, hidden=12)
    block.attend = MultiHeadAttention.from_torch(ref.self_attn)
    for mine, theirs in (
        (block.norm1, ref.norm1),
        (block.norm2, ref.norm2),
        (block.mlp[0], ref.linear1),
        (block.mlp[2], ref.linear2),
    ):
        mine.load_state_dict(theirs.state_dict())
    x = normal(gen(seed), B, T, 8)
    torch.testing.assert_close(
        block(x, causal_mask(T)), ref(x, src_mask=~causal_mask(T)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(block(x), ref(x), rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------------------------------------------------- laws
@some
@given(
    seeds,
    lead,
    size,
    st.integers(0, 6),
    size,
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from([1, 30, 1e4]),
)
def test_rows_sum_to_one_or_zero(seed, lead, T, S, d, dtype, loud):
    g = gen(seed)
    q, k, mask = (
        (loud * normal(g, *lead, T, d)).to(dtype),
        normal(g, *lead, S, d).to(dtype),
        bools(g, *lead, T, S, share=0.4),
    )
    a = attention_weights(q, k, mask)
    assert (a >= 0).all() and not a[~mask].any()
    torch.testing.assert_close(
        a.float().sum(-1),
        mask.any(-1).float(),
        rtol=0,
        atol=0.03 if dtype == torch.bfloat16 else 1e-5,
    )
    if S:
        torch.testing.assert_close(
            attention_weights(q, k).float().sum(-1),
            torch.ones(*lead, T),
            rtol=0,
            atol=0.03 if dtype == torch.bfloat16 else 1e-5,
        )


@some
@given(seeds, st.integers(1, 7), st.integers(1, 3))
def test_permutation(seed, T, heads):
    g = gen(seed)
    layer, block, x, order = (
        MultiHeadAttention(6 * heads, heads),
        TransformerBlock(6 * heads, heads),
        normal(g, 2, T, 6 * heads),
        torch.randperm(T, generator=g),
    )
    mask = bools(g, 2, 1, T)
    for f in (layer, block):
        torch.testing.assert_close(f(x[:, order]), f(x)[:, order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            f(x[:, order], mask=mask[..., order]),
            f(x, mask=mask)[:, order],
            rtol=1e-4,
            atol=1e-5,
        )
    source = normal(g, 2, 4, 6 * heads)
    shuffled = torch.randperm(4, generator=g)
    torch.testing.assert_close(
        layer(x, source[:, shuffled]), layer(x, source), rtol=1e-4, atol=1e-5
    )  # in the sources it is invariant


@some
@given(seeds, st.integers(2, 7), st.data())
def test_the_future_does_not_reach_the_past(seed, T, data):
    t, g = data.draw(st.integers(1, T - 1)), gen(seed)
    block, x = TransformerBlock(8, 2), normal(g, 2, T, 8)
    y = x.clone()
    y[:, t:] = 1e3 * normal(g, 2, T - t, 8)
    before, after = block(x, causal_mask(T)), block(y, causal_mask(T))
    assert torch.equal(before[:, :t], after[:, :t]) and not torch.equal(
        before[:, t:], after[:, t:]
    )
    assert not torch.equal(block(x)[:, :t], block(y)[:, :t])  # without the mask it does


@some
@given(
    seeds,
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(0, 4),
    st.integers(0, 2),
)
def test_padding_cannot_change_the_answer(seed, lengths, more, depth):
    g = gen(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TransformerClassifier(
            nn.Embedding(20, 8), 8, 2, classes=3, depth=depth
        ).eval()
    T = max(lengths) + more
    ids, other, mask = (
        torch.randint(20, (len(lengths), T), generator=g),
        torch.randint(20, (len(lengths), T), generator=g),
        padding_mask(lengths, T)[:, 0],
    )
    out = model((ids, mask))
    assert (
        out.shape == (len(lengths), 3)
        and out.isfinite().all()
        and torch.equal(out, model((torch.where(mask, ids, other), mask)))
    )
    for i, n in enumerate(lengths):  # each sentence alone, without any padding
        torch.testing.assert_close(
            model((ids[i : i + 1, :n], mask[i : i + 1, :n])),
            out[i : i + 1],
            rtol=1e-4,
            atol=1e-5,
        )
    if 0 in lengths:
        assert torch.equal(out[lengths.index(0)], model.head.bias)


@some
@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_rows_that_may_attend_to_nothing(seed, T, S):
    g = gen(seed)
    q, k, v = (
        normal(g, 2, T, 4).requires_grad_(),
        normal(g, 2, S, 4).requires_grad_(),
        normal(g, 2, S, 3).requires_grad_(),
    )
    mask = bools(g, 2, T, S)
    mask[0, 0] = False
    y = attention(q, k, v, mask)
    y.sum().backward()
    assert (
        not y[0, 0].any()
        and not q.grad[0, 0].any()
        and all(x.grad.isfinite().all() for x in (q, k, v))
    )
    layer = MultiHeadAttention(4, 2)
    assert torch.equal(
        layer(q, mask=torch.zeros(1, T, dtype=torch.bool)),
        layer.out.bias.expand(2, T, 4),
    )
    cross = CrossAttention(4, 2, width=3)
    deaf = torch.zeros(T, S, dtype=torch.bool)
    nn.init.zeros_(cross.attend.out.bias)
    assert torch.equal(cross(q, v, deaf), q)  # what hears nothing keeps what it was


@some
@given(
    seeds,
    st.sampled_from([2, 4, 10]),
    st.integers(-1000, 1000),
    st.integers(-1000, 1000),
    st.integers(-(10**4), 10**4),
)
def test_rotary_scores_depend_on_the_distance_alone(seed, d, t, s, shift):
    q, k = torch.randn(2, 1, d, dtype=torch.float64, generator=gen(seed))
    score = lambda t, s: (
        rotary(q, torch.tensor([t])) * rotary(k, torch.tensor([s]))
    ).sum()
    torch.testing.assert_close(
        score(t + shift, s + shift), score(t, s), rtol=1e-7, atol=1e-7
    )
    torch.testing.assert_close(
        score(t, s), (q * rotary(k, torch.tensor([s - t]))).sum(), rtol=1e-7, atol=1e-7
    )
    torch.testing.assert_close(
        rotary(rotary(q, torch.tensor([t])), torch.tensor([s])),
        rotary(q, torch.tensor([t + s])),
        rtol=1e-7,
        atol=1e-7,
    )  # turns add up
    torch.testing.assert_close(
        rotary(q, torch.tensor([t])).norm(), q.norm(), rtol=1e-9, atol=1e-9
    )


def test_rotary_by_complex_numbers():
    x = torch.randn(3, 5, 8, generator=gen(0))
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(
        torch.ones(5, 4),
        (torch.arange(5)[:, None] * 10_000 ** (-torch.arange(0, 8, 2) / 8)),
    )
    torch.testing.assert_close(
        rotary(x), torch.view_as_real(z).flatten(-2), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(rotary(x, torch.arange(5).expand(3, 5)), rotary(x))
    assert rotary(x.bfloat16()).dtype == torch.bfloat16
    late = rotary(
        torch.tensor([[1.0, 0.0]]), torch.tensor([10**7])
    )  # float32 angles would be off here
    torch.testing.assert_close(
        late, torch.tensor([[math.cos(10**7), math.sin(10**7)]]), rtol=0, atol=1e-6
    )


def test_sinusoids_are_the_papers():
    p = sinusoidal_positions(50, 6)
    for t in (0, 1, 49):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert (
                abs(p[t, 2 * i] - math.sin(angle)) < 1e-6
                and abs(p[t, 2 * i + 1] - math.cos(angle)) < 1e-6
            )
    gram = p.double() @ p.double().T  # by distance alone: every diagonal is constant
    for k in range(50):
        assert gram.diagonal(k).max() - gram.diagonal(k).min() < 1e-5
    assert sinusoidal_positions(0, 2).shape == (0, 2) and torch.equal(
        sinusoidal_positions(3, 6), p[:3]
    )


@some
@given(
    st.integers(0, 9),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(0, 3),
)
def test_masks(n, lengths, more):
    assert causal_mask(n).tolist() == [[s <= t for s in range(n)] for t in range(n)]
    for given in (lengths, tuple(lengths), np.array(lengths), torch.tensor(lengths)):
        assert padding_mask(given, max(lengths) + more).tolist() == [
            [[s < m for s in range(max(lengths) + more)]] for m in lengths
        ]
    assert padding_mask(lengths).shape == (len(lengths), 1, max(lengths))


def test_masked_mean():
    x = torch.arange(12.0).view(2, 3, 2)
    assert masked_mean(
        x, torch.tensor([[True, False, True], [False] * 3])
    ).tolist() == [[2, 3], [0, 0]]


def test_a_state_dict_comes_back():
    model, again = (
        TransformerClassifier(nn.Linear(3, 8), 8, 2, depth=2).eval() for _ in range(2)
    )
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 4, 3, generator=gen(0)), torch.ones(2, 4, dtype=torch.bool)
    assert torch.equal(model(x), again(x))


def test_dropout_works_in_training_alone():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8)
    for layer, args in (
        (TransformerBlock(8, 2, dropout=0.5), (x,)),
        (CrossAttention(8, 2, dropout=0.5), (x, x)),
    ):
        assert not torch.equal(layer(*args), layer(*args)) and torch.equal(
            layer.eval()(*args), layer(*args)
        )


def test_a_classifier_learns_what_needs_order():
    "Whether token 1 comes before token 2: a bag cannot tell; the counts are the same."
    g = gen(0)
    ids = torch.stack([torch.randperm(6, generator=g) for _ in range(300)])
    label = ((ids == 1).int().argmax(1) < (ids == 2).int().argmax(1)).long()
    mask = torch.ones_like(ids, dtype=torch.bool)
    torch.manual_seed(0)
    model = TransformerClassifier(nn.Embedding(6, 16), 16, 2, classes=2, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        loss = F.cross_entropy(model((ids[:200], mask[:200])), label[:200])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (
        model((ids[200:], mask[200:])).argmax(1) == label[200:]
    ).float().mean() > 0.9


# --------------------------------------------------------------------------------------------------------------- bad input
q = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    "args,error,name",
    [
        (([[1.0]], q, q), TypeError, "q"),
        ((q.long(), q, q), TypeError, "q"),
        ((q.cfloat(), q, q), TypeError, "q"),
        ((q[0, 0], q, q), ValueError, "q"),
        ((q[..., :0], q[..., :0], q), ValueError, "q"),
        ((None, q, q), TypeError, "q"),
        ((q, q.numpy(), q), TypeError, "k"),
        ((q, q[..., :3], q), ValueError, "k"),
        ((q, q.double(), q), ValueError, "k"),
        ((q, torch.zeros(3, 3, 4), q), ValueError, "k"),
        ((q, q, q[:, :2]), ValueError, "v"),
        ((q, q, q.half()), ValueError, "v"),
        ((q, q, torch.zeros(5, 3, 4)), ValueError, "v"),
        ((q, q, "v"), TypeError, "v"),
        ((q, q[0], torch.zeros(5, 3, 4)), ValueError, "v"),
        ((q, q, q[0, 0]), ValueError, "v"),
        ((q, q, q, torch.ones(3, 3)), TypeError, "mask"),
        ((q, q, q, [[True]]), TypeError, "mask"),
        ((q, q, q, torch.ones(2, 4, dtype=torch.bool)), ValueError, "mask"),
        ((q, q, q, torch.ones(5, 2, 3, 3, dtype=torch.bool)), ValueError, "mask"),
    ],
)
def test_attention_refuses(args, error, name):
    for f in (attention, fused_attention):
        refused(f, *args, error=error, name=name)
    if name != "v":
        refused(attention_weights, *args[:2], *args[3:], error=error, name=name)


@pytest.mark.parametrize(
    "call,name",
    [
        (lambda: causal_mask(-1), "n"),
        (lambda: causal_mask(2.0), "n"),
        (lambda: causal_mask(10**9), "n"),
        (lambda: causal_mask(True), "n"),
        (lambda: causal_mask("3"), "n"),
        (lambda: causal_mask(10**400), "n"),
        (lambda: padding_mask([]), "lengths"),
        (lambda: padding_mask(3), "lengths"),
        (lambda: padding_mask("ab"), "lengths"),
        (lambda: padding_mask([1, -1]), "lengths[1]"),
        (lambda: padding_mask([1.5]), "lengths[0]"),
        (lambda: padding_mask([[1]]), "lengths[0]"),
        (lambda: padding_mask([3], 2), "size"),
        (lambda: padding_mask([3], 3.5), "size"),
        (lambda: padding_mask([True]), "lengths[0]"),
        (lambda: frequencies(3), "d"),
        (lambda: sinusoidal_positions(2, 0), "d"),
        (lambda: sinusoidal_positions(-2, 2), "n"),
        (lambda: rotary(torch.zeros(2, 3)), "d"),
        (lambda: rotary(q, torch.arange(2)), "position"),
        (lambda: rotary(q, torch.zeros(5, 2, 3)), "position"),
        (lambda: MultiHeadAttention(6, 4), "heads"),
        (lambda: MultiHeadAttention(0, 1), "d"),
        (lambda: MultiHeadAttention(4, 0), "heads"),
        (lambda: MultiHeadAttention(4, 2, kdim=0), "kdim"),
        (lambda: MultiHeadAttention(4, 2, vdim="x"), "vdim"),
        (lambda: TransformerBlock(4, 2, dropout=1.0), "dropout"),
        (lambda: TransformerBlock(4, 2, dropout="x"), "dropout"),
        (lambda: TransformerBlock(4, 2, dropout=math.nan), "dropout"),
        (lambda: TransformerBlock(4, 2, hidden=0), "hidden"),
        (lambda: CrossAttention(4, 2, width=-1), "kdim"),
        (lambda: TransformerClassifier(nn.Identity(), 4, depth=-1), "depth"),
        (lambda: TransformerClassifier(nn.Identity(), 4, classes=0), "classes"),
    ],
)
def test_numbers_that_cannot_be(call, name):
    refused(call, name=name)


def test_layers_refuse():
    layer, block, cross = (
        MultiHeadAttention(4, 2, kdim=3),
        TransformerBlock(4, 2),
        CrossAttention(4, 2, width=3),
    )
    c = torch.zeros(2, 5, 3)
    assert layer(q, c).shape == (2, 3, 4) == cross(q, c).shape
    for f in (layer, layer.weights):
        refused(f, q[0], c, name="q")
        refused(f, q, q, name="k")
        refused(f, q, c[:1], name="k")
        refused(f, c, c, name="q")
        refused(f, q.double(), c, name="q")
        refused(f, 3, c, error=TypeError, name="q")
        refused(f, q, name="k")
    refused(layer, q, c, c[:, :2], name="v")
    refused(layer, q, c, torch.zeros(2, 5, 4), name="v")
    refused(layer, q, c, mask=torch.ones(5, dtype=torch.bool), name="mask")
    refused(layer, q, c, mask=torch.ones(2, 5, dtype=torch.bool), name="mask")
    refused(layer, q, c, mask=torch.ones(3, 5), error=TypeError, name="mask")
    for f in (block, lambda x: cross(x, c)):
        refused(f, q[..., :3], name="x")
        refused(f, q[0], name="x")
        refused(f, q.double(), name="x")
        refused(f, "x", error=TypeError, name="x")
    refused(cross, q, q, name="context")
    model, mask = (
        TransformerClassifier(nn.Linear(4, 8), 8, 2),
        torch.ones(2, 3, dtype=torch.bool),
    )
    refused(model, q, error=TypeError, name="inputs")
    refused(model, (q, mask.int()), error=TypeError, name="inputs")
    refused(model, (q, mask[:1]), name="inputs")
    refused(model, (q[0, 0], mask), name="inputs")
    refused(model, (q, None), error=TypeError, name="inputs")
    refused(TransformerClassifier(nn.Linear(4, 6), 8, 2), (q, mask), name="embed")


# --------------------------------------------------------------------------------------------------------------- anything at all
SHAPES = [
    (),
    (0,),
    (1,),
    (3,),
    (2, 3),
    (3, 2),
    (0, 2),
    (2, 0),
    (1, 2),
    (2, 2, 3),
    (2, 3, 2),
    (1, 3, 2),
    (3, 2, 2),
    (2, 0, 2),
    (2, 1, 1, 2),
    (2, 2, 3, 2),
    (1, 2, 2, 2),
]
DTYPES = [torch.float32] * 8 + [
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.bool,
    torch.complex64,
]
ODD = [
    None,
    3,
    "q",
    [[1.0]],
    np.zeros((2, 2), np.float32),
    1.5,
    True,
    math.nan,
    {},
    object(),
]
tensors = st.one_of(
    st.tuples(
        st.sampled_from(SHAPES),
        st.sampled_from(DTYPES),
        st.sampled_from([0, 1, 1e4, math.inf, math.nan]),
    ).map(
        lambda a: (
            (torch.arange(math.prod(a[0])).reshape(a[0]) % 3 * a[2])
            .nan_to_num(2)
            .to(a[1])
            if a[1] in (torch.int64, torch.bool)
            else (torch.arange(math.prod(a[0])).reshape(a[0]) % 3 * a[2]).to(a[1])
        )
    ),
    st.sampled_from(ODD),
)
masks = st.one_of(
    st.none(),
    st.sampled_from(SHAPES).map(
        lambda s: torch.arange(math.prod(s)).reshape(s) % 2 == 0
    ),
    tensors,
)
whole = st.one_of(
    st.integers(-2, 9),
    st.sampled_from(
        [*ODD, 10**20, -1, np.int64(4), torch.tensor(3), torch.tensor([3]), 2**15 + 1]
    ),
)


def result(f, *args, **kwargs):
    "What `f` gives, or None if it refuses in one line."
    try:
        return f(*args, **kwargs)
    except REFUSED as e:
        assert ": expected" in str(e) and ", got " in str(e) and "\n" not in str(e), e


@many
@given(tensors, tensors, tensors, masks)
def test_attention_of_anything(q, k, v, mask):
    y, a = result(attention, q, k, v, mask), result(attention_weights, q, k, mask)
    if y is not None:
        assert (
            y.shape[-2:] == (q.shape[-2], v.shape[-1])
            and y.dtype == q.dtype
            and a is not None
        )
    fused = result(fused_attention, q, k, v, mask)
    assert (fused is None) == (y is None)
    if y is not None:
        assert fused.shape == y.shape and fused.dtype == y.dtype
    if a is not None:
        assert a.shape[-2:] == (q.shape[-2], k.shape[-2])


LAYER, BLOCK, CROSS, MODEL = (
    MultiHeadAttention(2, 1, kdim=3, vdim=2),
    TransformerBlock(2, 2),
    CrossAttention(2, 1, width=3),
    TransformerClassifier(nn.Identity(), 2, 2, classes=2),
)


@many
@given(tensors, tensors, tensors, masks)
def test_layers_on_anything(q, k, v, mask):
    y = result(LAYER, q, k, v, mask)
    if y is not None:
        assert y.shape == q.shape
    for f, args in ((BLOCK, (q, mask)), (CROSS, (q, k, mask))):
        y = result(f, *args)
        if y is not None:
            assert y.shape == q.shape
    y = result(MODEL, (q, mask))
    if y is not None:
        assert y.shape == (len(q), 2)


@many
@given(
    whole,
    st.one_of(st.lists(whole, max_size=3), whole, tensors),
    whole,
    tensors,
    tensors,
)
def test_masks_and_positions_of_anything(n, lengths, d, x, position):
    m = result(causal_mask, n)
    if m is not None:
        assert m.shape == (n, n)
    m = result(padding_mask, lengths, n)
    if m is not None:
        assert m.dtype == torch.bool and m.shape[1] == 1
    p = result(sinusoidal_positions, n, d)
    if p is not None:
        assert p.shape == (n, d) and p.abs().max() <= 1 if p.numel() else True
    y = result(rotary, x, position)
    if y is not None:
        assert y.shape == x.shape and y.dtype == x.dtype


@many
@given(whole, whole, whole, whole, st.one_of(st.floats(), whole))
def test_constructors_of_anything(d, heads, kdim, depth, dropout):
    small = lambda v: (
        not hasattr(v, "__index__")
        or isinstance(v, bool)
        or getattr(v, "ndim", 0)
        or abs(v.__index__()) < 100
        or v.__index__() > 2**15
    )
    if not all(map(small, (d, heads, kdim, depth))):
        return
    result(MultiHeadAttention, d, heads, kdim=kdim)
    result(TransformerBlock, d, heads, hidden=kdim, dropout=dropout)
    result(CrossAttention, d, heads, width=kdim, dropout=dropout)
    result(
        TransformerClassifier,
        nn.Identity(),
        d,
        heads,
        depth=depth,
        classes=kdim,
        dropout=dropout,
    )
