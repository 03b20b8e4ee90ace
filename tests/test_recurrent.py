"""The recurrent layer by hand against torch, Keras and autograd over random shapes; the laws it obeys; and everything a caller can get wrong."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.measure import seeded
from mmcourse.recurrent import (
    ACTIVATIONS,
    Grads,
    Params,
    RNNClassifier,
    bptt,
    clip_by_norm,
    copy_to_keras,
    last_valid,
    params_of,
    rnn,
    rnn_cell,
    rnn_layers,
    scaled_to_radius,
    spectral_radius,
    truncated_bptt,
    valid_mask,
)
from mmcourse.training import accuracy, fit

torch.set_num_threads(1)
small, seeds = st.integers(1, 5), st.integers(0, 2**31)
cases = settings(max_examples=100, deadline=None)


def draw(seed, *shapes, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=dtype) for s in shapes]


def layer(seed, I, H, dtype=torch.float64):
    return Params(*draw(seed + 1, (H, I), (H, H), (H,), dtype=dtype))


def close(a, b, atol=1e-10):
    assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=atol), (
        (a - b).abs().max()
    )


# --- parity


@cases
@given(
    small,
    small,
    small,
    small,
    st.integers(1, 3),
    st.sampled_from(["tanh", "relu"]),
    st.booleans(),
    seeds,
)
def test_layers_equal_torch(N, T, I, H, L, nonlinearity, bias, seed):
    with seeded(seed):
        theirs = nn.RNN(
            I, H, L, nonlinearity=nonlinearity, bias=bias, batch_first=True
        ).double()
    x, h0 = draw(seed, (N, T, I), (L, N, H))
    layers = [params_of(theirs, l) for l in range(L)]
    close(rnn_layers(x, h0, layers, nonlinearity=nonlinearity), theirs(x, h0)[0])
    close(rnn_layers(x, None, layers, nonlinearity=nonlinearity), theirs(x)[0])


@cases
@given(small, small, small, st.sampled_from(["tanh", "relu"]), seeds)
def test_cell_equals_torch(N, I, H, nonlinearity, seed):
    with seeded(seed):
        theirs = nn.RNNCell(I, H, nonlinearity=nonlinearity).double()
    x, h = draw(seed, (N, I), (N, H))
    close(
        rnn_cell(
            x,
            h,
            Params(theirs.weight_ih, theirs.weight_hh, theirs.bias_ih + theirs.bias_hh),
            nonlinearity=nonlinearity,
        ),
        theirs(x, h),
    )


@pytest.mark.parametrize(
    "N,T,I,H,nonlinearity,bias,built",
    [
        (1, 1, 1, 1, "tanh", True, False),
        (3, 6, 2, 4, "tanh", True, True),
        (2, 5, 4, 3, "relu", True, False),
        (4, 3, 3, 2, "tanh", False, False),
    ],
)
def test_equals_keras_by_copied_weights(N, T, I, H, nonlinearity, bias, built):
    keras = pytest.importorskip("keras")
    with seeded(N), keras.device("cpu"):
        ours, x = (
            nn.RNN(I, H, nonlinearity=nonlinearity, bias=bias, batch_first=True),
            torch.randn(N, T, I),
        )
        theirs = keras.layers.SimpleRNN(
            H, activation=nonlinearity, return_sequences=True
        )
        if built:
            theirs.build((None, None, I))
        assert copy_to_keras(ours, theirs) is theirs
        got = torch.tensor(keras.ops.convert_to_numpy(theirs(x.numpy())))
    close(got, rnn(x, None, params_of(ours), nonlinearity=nonlinearity).detach(), 1e-5)
    close(got, ours(x)[0].detach(), 1e-5)


# --- gradients


def by_autograd(x, h0, p, g, nonlinearity, steps):
    "Gradients by torch, the state detached between pieces of `steps` steps."
    leaves = [t.clone().requires_grad_() for t in (x, h0, *p)]
    h, total, states = leaves[1], 0, []
    for i in range(0, x.shape[1], steps):
        piece = []
        for t in range(i, min(i + steps, x.shape[1])):
            h = rnn_cell(leaves[0][:, t], h, leaves[2:], nonlinearity=nonlinearity)
            h.retain_grad()
            piece.append(h)
            states.append(h)
        total = total + (torch.stack(piece, 1) * g[:, i : i + steps]).sum()
        h = h.detach()
    total.backward()
    return Grads(*[t.grad for t in leaves], torch.stack([s.grad for s in states], 1))


@cases
@given(
    small, st.integers(1, 7), small, small, st.sampled_from(list(ACTIVATIONS)), seeds
)
def test_bptt_equals_autograd(N, T, I, H, nonlinearity, seed):
    x, h0, g = draw(seed, (N, T, I), (N, H), (N, T, H))
    p = layer(seed, I, H)
    p = p._replace(U=p.U / H)  # so that a linear network does not grow beyond comparing
    for a, b in zip(
        bptt(x, h0, p, g, nonlinearity=nonlinearity),
        by_autograd(x, h0, p, g, nonlinearity, T),
        strict=True,
    ):
        close(a, b)


@cases
@given(
    small,
    st.integers(1, 9),
    small,
    small,
    st.integers(1, 10),
    st.sampled_from(list(ACTIVATIONS)),
    seeds,
)
def test_truncated_equals_detach(N, T, I, H, steps, nonlinearity, seed):
    x, h0, g = draw(seed, (N, T, I), (N, H), (N, T, H))
    p = layer(seed, I, H)
    p = p._replace(U=p.U / H)
    for a, b in zip(
        truncated_bptt(x, h0, p, g, steps=steps, nonlinearity=nonlinearity),
        by_autograd(x, h0, p, g, nonlinearity, steps),
        strict=True,
    ):
        close(a, b)


def test_without_a_first_state_it_is_zero():
    x, g = draw(0, (2, 4, 3), (2, 4, 5))
    p = layer(0, 3, 5)
    for a, b in zip(bptt(x, None, p, g), bptt(x, torch.zeros(2, 5).double(), p, g)):
        close(a, b)
    for a, b in zip(
        truncated_bptt(x, None, p, g, steps=3),
        truncated_bptt(x, torch.zeros(2, 5).double(), p, g, steps=3),
    ):
        close(a, b)


def test_gradients_build_no_graph():
    x, g = draw(1, (2, 4, 3), (2, 4, 5))
    p = Params(*(w.requires_grad_() for w in layer(1, 3, 5)))
    assert (
        not any(
            t.requires_grad
            for f in (bptt, lambda *a: truncated_bptt(*a, steps=2))
            for t in f(x, None, p, g)
        )
        and rnn(x, None, p).requires_grad
    )


# --- laws


@cases
@given(small, st.integers(2, 8), small, small, seeds, st.data())
def test_the_future_does_not_touch_the_past(N, T, I, H, seed, data):
    cut = data.draw(st.integers(1, T - 1))
    x, other = draw(seed, (N, T, I), (N, T, I))
    p = layer(seed, I, H)
    changed = torch.cat([x[:, :cut], other[:, cut:]], 1)
    a, b = rnn(x, None, p), rnn(changed, None, p)
    assert torch.equal(a[:, :cut], b[:, :cut]) and not torch.equal(
        a[:, cut:], b[:, cut:]
    )


@cases
@given(st.integers(2, 6), small, small, small, seeds)
def test_sequences_do_not_see_each_other(N, T, I, H, seed):
    x, h0 = draw(seed, (N, T, I), (N, H))
    p = layer(seed, I, H)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    close(rnn(x[order], h0[order], p), rnn(x, h0, p)[order], 1e-12)
    close(rnn(x[:1], h0[:1], p), rnn(x, h0, p)[:1], 1e-12)


@cases
@given(small, st.integers(2, 8), small, small, seeds, st.data())
def test_a_sequence_can_be_read_in_pieces(N, T, I, H, seed, data):
    cut = data.draw(st.integers(1, T - 1))
    x, h0 = draw(seed, (N, T, I), (N, H))
    p = layer(seed, I, H)
    first = rnn(x[:, :cut], h0, p)
    close(torch.cat([first, rnn(x[:, cut:], first[:, -1], p)], 1), rnn(x, h0, p), 1e-12)


@cases
@given(st.integers(1, 8), st.integers(1, 12), st.floats(0.1, 2), seeds)
def test_gradient_lengths_keep_to_the_bound(H, T, radius, seed):
    (Q,) = draw(seed, (H, H))
    U = scaled_to_radius(torch.linalg.qr(Q)[0], radius)
    x, end = draw(seed + 2, (3, T, H), (3, H))
    g = torch.zeros(3, T, H).double()
    g[:, -1] = end
    p, powers = (
        Params(torch.eye(H).double(), U, torch.zeros(H).double()),
        radius ** torch.arange(T - 1, -1, -1).double(),
    )
    lengths = lambda f: bptt(x, None, p, g, nonlinearity=f).h.norm(dim=2)
    assert torch.allclose(
        lengths("linear"), powers * end.norm(dim=1)[:, None], rtol=1e-9
    )
    for f in ("tanh", "relu"):
        assert (lengths(f) <= powers * end.norm(dim=1)[:, None] * (1 + 1e-9)).all()


# --- the spectral radius


@cases
@given(st.integers(1, 7), st.integers(-200, 200), seeds)
def test_radius_is_numpys_at_any_scale(H, power, seed):
    (U,) = draw(seed, (H, H))
    r = np.abs(np.linalg.eigvals(U.numpy())).max()
    assert spectral_radius(U * 10.0**power) == pytest.approx(
        r * 10.0**power, rel=1e-6
    ) and spectral_radius(U.T) == pytest.approx(r, rel=1e-6)


@cases
@given(
    st.integers(1, 7),
    st.floats(0, 10),
    st.sampled_from([torch.float32, torch.float64]),
    seeds,
)
def test_scaled_has_the_radius(H, radius, dtype, seed):
    (U,) = draw(seed, (H, H), dtype=dtype)
    scaled = scaled_to_radius(U, radius)
    assert scaled.dtype == dtype and spectral_radius(scaled) == pytest.approx(
        radius, rel=1e-3, abs=1e-6
    )
    if radius > 1e-3:
        close(
            scaled / scaled.abs().max(),
            U * (scaled.flatten()[0] / U.flatten()[0]).sign() / U.abs().max(),
            1e-5,
        )


def test_radius_by_hand():
    assert spectral_radius(torch.tensor([[0.0, -3.0], [3.0, 0.0]])) == pytest.approx(
        3
    )  # a rotation: two complex eigenvalues
    assert spectral_radius(torch.tensor([[0.5, 100.0], [0.0, 0.2]])) == pytest.approx(
        0.5
    )
    assert (
        spectral_radius(torch.zeros(3, 3)) == 0
        and spectral_radius(torch.eye(2).half() * 2) == 2
    )


# --- clipping


@cases
@given(
    st.lists(st.tuples(small, small), min_size=1, max_size=4),
    st.floats(0.01, 50),
    st.sampled_from([torch.float32, torch.float64]),
    seeds,
)
def test_clip_equals_torch(shapes, max_norm, dtype, seed):
    grads = draw(seed, *shapes, dtype=dtype)
    weights = [nn.Parameter(torch.zeros_like(v)) for v in grads]
    for w, v in zip(weights, grads):
        w.grad = v.clone()
    before = [v.clone() for v in grads]
    theirs = nn.utils.clip_grad_norm_(weights, max_norm)
    ours, norm = clip_by_norm(grads, max_norm)
    assert norm == pytest.approx(theirs.item(), rel=1e-5)
    for o, w in zip(ours, weights, strict=True):
        assert o.dtype == dtype and torch.allclose(o, w.grad, rtol=1e-5, atol=1e-7)
    assert all(
        torch.equal(a, b) for a, b in zip(grads, before)
    )  # the caller's stay as they were
    assert sum(o.double().square().sum() for o in ours).sqrt() <= max_norm * (1 + 1e-6)


def test_clip_without_a_limit_measures():
    ours, norm = clip_by_norm(
        iter([torch.tensor([3.0]), torch.tensor([4.0])]), math.inf
    )
    assert norm == 5 and [o.item() for o in ours] == [3, 4]
    assert clip_by_norm([torch.tensor([3e30, 4e30])], 1.0)[0][
        0
    ].tolist() == pytest.approx([0.6, 0.8])  # torch's norm overflows here


# --- padded batches


def batch(seed, N=5, T=7, V=9):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (N,), generator=g)
    return torch.randint(1, V, (N, T), generator=g) * valid_mask(lengths, T), lengths


def net(seed=0, **kw):
    with seeded(seed):
        return RNNClassifier(9, 4, embed=3, hidden=6, **kw)


@cases
@given(
    small,
    st.integers(1, 8),
    st.integers(0, 5),
    st.sampled_from(["tanh", "relu"]),
    seeds,
)
def test_padding_does_not_change_the_answer(N, T, more, nonlinearity, seed):
    m, (tokens, lengths) = net(seed, nonlinearity=nonlinearity), batch(seed, N, T)
    said = m((tokens, lengths))
    assert torch.allclose(
        m((nn.functional.pad(tokens, (0, more)), lengths)), said, atol=1e-6
    )
    noise = torch.where(
        valid_mask(lengths, T), tokens, 8
    )  # whatever stands behind the end
    assert torch.allclose(m((noise, lengths)), said, atol=1e-6)
    for i, n in enumerate(lengths):
        assert torch.allclose(
            m((tokens[i : i + 1, :n], lengths[i : i + 1])), said[i : i + 1], atol=1e-6
        )
    order = torch.randperm(N)
    assert torch.allclose(m((tokens[order], lengths[order])), said[order], atol=1e-6)


@cases
@given(small, st.integers(1, 8), seeds)
def test_last_valid_equals_packing(N, T, seed):
    m, (tokens, lengths) = net(seed), batch(seed, N, T)
    packed = nn.utils.rnn.pack_padded_sequence(
        m.embed(tokens), lengths, batch_first=True, enforce_sorted=False
    )
    assert torch.allclose(m((tokens, lengths)), m.head(m.rnn(packed)[1][0]), atol=1e-6)
    each = m.every_step((tokens, lengths))
    assert each.shape == (N, T, 4) and torch.allclose(
        each[torch.arange(N), lengths - 1], m((tokens, lengths)), atol=1e-6
    )


def test_mask_by_hand():
    assert valid_mask(torch.tensor([1, 3]), 3).tolist() == [
        [True, False, False],
        [True, True, True],
    ]
    h = torch.arange(12.0).reshape(2, 3, 2)
    assert last_valid(h, torch.tensor([1, 3])).tolist() == [
        [0, 1],
        [10, 11],
    ] and last_valid(h, torch.tensor([2, 2], dtype=torch.int32)).tolist() == [
        [2, 3],
        [8, 9],
    ]


def test_classifier_learns_what_only_order_tells():
    "Which of two words comes first: a bag of words cannot know."
    g = torch.Generator().manual_seed(0)
    first = torch.randint(2, (200,), generator=g)
    tokens = torch.stack([first + 1, 2 - first, torch.full_like(first, 3)], 1)
    with seeded(0):
        m = RNNClassifier(4, 2, embed=8, hidden=8)
    fit(m, ((tokens, torch.full((200,), 3)), first), epochs=10, batch_size=20, lr=0.02)
    assert accuracy(m, ((tokens, torch.full((200,), 3)), first)) == 1


# --- what a caller can get wrong

X, H0, P, G = (
    torch.zeros(2, 4, 3),
    torch.zeros(2, 5),
    Params(torch.zeros(5, 3), torch.zeros(5, 5), torch.zeros(5)),
    torch.zeros(2, 4, 5),
)


@pytest.mark.parametrize(
    "call,says",
    [
        (
            lambda: rnn(X[0], H0, P),
            "x: expected shape (N, T, 3), letters from 1 up, got (4, 3)",
        ),
        (
            lambda: rnn(X[:, :0], H0, P),
            "x: expected shape (N, T, 3), letters from 1 up, got (2, 0, 3)",
        ),
        (lambda: rnn(X[:0], None, P), "got (0, 4, 3)"),
        (
            lambda: rnn(X[..., :2], H0, P),
            "x: expected shape (N, T, 3), letters from 1 up, got (2, 4, 2)",
        ),
        (lambda: rnn(X, H0[:1], P), "h0: expected shape (2, 5)"),
        (lambda: rnn(X, H0[0], P), "h0: expected shape (2, 5)"),
        (lambda: rnn(X.long(), H0, P), "x: expected floats, got torch.int64"),
        (
            lambda: rnn(X.double(), H0, P),
            "x: expected torch.float32 on cpu as in params.W, got torch.float64",
        ),
        (lambda: rnn(X, H0.double(), P), "h0: expected torch.float32"),
        (lambda: rnn(X, H0, P[:2]), "params: expected three tensors (W, U, b)"),
        (lambda: rnn(X, H0, None), "params: expected three tensors"),
        (
            lambda: rnn(X, H0, P._replace(U=torch.zeros(5, 4))),
            "params.U: expected shape (5, 5), letters from 1 up, got (5, 4)",
        ),
        (
            lambda: rnn(X, H0, P._replace(b=torch.zeros(1, 5))),
            "params.b: expected shape (5,)",
        ),
        (
            lambda: rnn(X, H0, P._replace(W=torch.zeros(0, 3))),
            "params.W: expected shape (H, I)",
        ),
        (
            lambda: rnn(X, H0, P, nonlinearity="sigmoid"),
            "nonlinearity: expected one of tanh, relu, linear, got",
        ),
        (lambda: rnn(X, H0, P, nonlinearity=["tanh"]), "nonlinearity: expected one of"),
        (lambda: rnn_cell(X, H0, P), "x: expected shape (N, 3)"),
        (lambda: rnn_cell(X[:, 0], H0[:1], P), "h: expected shape (2, 5)"),
        (lambda: rnn_layers(X, None, []), "layers: expected a list of one or more"),
        (
            lambda: rnn_layers(X, H0[None], [P, P]),
            "h0: expected 2 layers of states, got 1",
        ),
        (lambda: rnn_layers(X, None, [P, P]), "x: expected shape (N, T, 3)"),
        (lambda: rnn_layers(X, None, 3), "layers: expected a list"),
        (
            lambda: bptt(X, H0, P, G[:, :3]),
            "g: expected shape (2, 4, 5), letters from 1 up, got (2, 3, 5)",
        ),
        (lambda: bptt(X, H0, P, G.double()), "g: expected torch.float32"),
        (lambda: bptt(X[:, :0], H0, P, G[:, :0]), "x: expected shape"),
        (
            lambda: truncated_bptt(X, H0, P, G, steps=0),
            "steps: expected a whole number from 1 up, got int 0",
        ),
        (lambda: truncated_bptt(X, H0, P, G, steps=1.5), "steps: expected"),
        (
            lambda: truncated_bptt(X, H0, P, G[:, :3], steps=3),
            "g: expected shape (2, 4, 5)",
        ),
        (
            lambda: spectral_radius(torch.zeros(2, 3)),
            "U: expected shape (H, H), got (2, 3)",
        ),
        (
            lambda: spectral_radius(torch.tensor([[math.nan]])),
            "U: expected finite numbers, got 1 that are not",
        ),
        (lambda: spectral_radius(torch.zeros(0, 0)), "U: expected shape (H, H)"),
        (lambda: spectral_radius(torch.eye(2).long()), "U: expected floats"),
        (
            lambda: scaled_to_radius(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), 1.0),
            "U: expected an eigenvalue other than zero, got none",
        ),
        (
            lambda: scaled_to_radius(torch.eye(2), -1),
            "radius: expected a number from 0 up, got int -1",
        ),
        (lambda: scaled_to_radius(torch.eye(2), math.nan), "radius: expected"),
        (lambda: scaled_to_radius(torch.eye(2), "1"), "radius: expected"),
        (
            lambda: scaled_to_radius(torch.eye(2), 1e300),
            "radius: expected one that keeps U finite in torch.float32, got float 1e+300",
        ),
        (lambda: clip_by_norm([], 1.0), "grads: expected one tensor or more, got none"),
        (
            lambda: clip_by_norm([torch.tensor([math.inf])], 1.0),
            "grads: expected a finite norm, got inf",
        ),
        (
            lambda: clip_by_norm([torch.ones(2)], 0),
            "max_norm: expected a number above zero, got int 0",
        ),
        (lambda: clip_by_norm([torch.ones(2)], math.nan), "max_norm: expected"),
        (
            lambda: clip_by_norm([torch.ones(2).long()], 1.0),
            "grads[0]: expected floats, got torch.int64",
        ),
        (
            lambda: last_valid(G, torch.tensor([0, 4])),
            "lengths: expected 1 to 4, got 0 to 4",
        ),
        (
            lambda: last_valid(G, torch.tensor([1, 5])),
            "lengths: expected 1 to 4, got 1 to 5",
        ),
        (
            lambda: last_valid(G, torch.tensor([1.0])),
            "lengths: expected a tensor of whole numbers",
        ),
        (
            lambda: last_valid(G, [1, 2]),
            "lengths: expected a tensor of whole numbers, got list of 2",
        ),
        (
            lambda: last_valid(G, torch.tensor([1])),
            "lengths: expected shape (2,), got (1,)",
        ),
        (
            lambda: valid_mask(torch.tensor([1]), 0),
            "T: expected a whole number from 1 to a million, got int 0",
        ),
        (
            lambda: valid_mask(torch.tensor(1), 2),
            "lengths: expected shape (1,), got ()",
        ),
        (
            lambda: RNNClassifier(0),
            "n_tokens: expected a whole number from 1 to a million, got int 0",
        ),
        (lambda: RNNClassifier(3, hidden=True), "hidden: expected"),
        (
            lambda: RNNClassifier(3, nonlinearity="linear"),
            "nonlinearity: expected tanh or relu",
        ),
        (
            lambda: net()((torch.tensor([[9]]), torch.tensor([1]))),
            "tokens: expected 0 to 8, got 9 to 9",
        ),
        (
            lambda: net()((torch.tensor([[1.0]]), torch.tensor([1]))),
            "tokens: expected a tensor of whole numbers",
        ),
        (
            lambda: net()((torch.tensor([1]), torch.tensor([1]))),
            "tokens: expected shape (N, T)",
        ),
        (
            lambda: net()(torch.tensor([[1], [2], [3]])),
            "inputs: expected a pair (tokens, lengths), got Tensor",
        ),
        (
            lambda: net().every_step((torch.tensor([[1]]),)),
            "inputs: expected a pair (tokens, lengths), got tuple of 1",
        ),
        (lambda: params_of(nn.RNN(2, 3), 1), "layer: expected 0 to 0, got int 1"),
        (
            lambda: params_of(nn.RNN(2, 3, bidirectional=True)),
            "module: expected one direction",
        ),
    ],
)
def test_refused_by_name(call, says):
    with pytest.raises(ValueError) as e:
        call()
    assert says in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "call,says",
    [
        (lambda: rnn([[1.0]], None, P), "x: expected a tensor, got list of 1"),
        (lambda: rnn(X, H0, [None] * 3), "params.W: expected a tensor, got NoneType"),
        (lambda: bptt(X, H0, P, None), "g: expected a tensor"),
        (lambda: spectral_radius(np.eye(2)), "U: expected a tensor, got ndarray"),
        (lambda: clip_by_norm(torch.ones(2), 1.0), "grads: expected a list of tensors"),
        (
            lambda: clip_by_norm([1.0], 1.0),
            "grads[0]: expected a tensor, got float 1.0",
        ),
        (lambda: clip_by_norm(None, 1.0), "grads: expected a list"),
        (lambda: params_of(nn.LSTM(2, 3)), "module: expected nn.RNN, got LSTM"),
    ],
)
def test_other_types_are_refused_by_name(call, says):
    with pytest.raises(TypeError) as e:
        call()
    assert says in str(e.value)


def test_keras_layers_that_do_not_fit_are_refused():
    keras = pytest.importorskip("keras")
    L, ours = keras.layers, nn.RNN(2, 3, batch_first=True)
    for module, made, says in (
        (
            ours,
            L.SimpleRNN(4),
            "layer: expected {'units': 3, 'activation': 'tanh'}, got {'units': 4",
        ),
        (ours, L.SimpleRNN(3, activation="relu"), "'activation': 'relu'"),
        (nn.RNN(2, 3, 2), L.SimpleRNN(3), "module: expected one layer, got 2"),
        (ours, L.SimpleRNN(3, use_bias=False), "layer: expected use_bias=True"),
    ):
        with pytest.raises(ValueError) as e:
            copy_to_keras(module, made)
        assert says in str(e.value)
    built = L.SimpleRNN(3)
    built.build((None, None, 5))
    with pytest.raises(ValueError, match="layer: expected 2 inputs, got 5"):
        copy_to_keras(ours, built)
    with pytest.raises(
        TypeError, match="layer: expected keras.layers.SimpleRNN, got LSTM"
    ):
        copy_to_keras(ours, L.LSTM(3))
    without = L.SimpleRNN(3, use_bias=False)
    assert copy_to_keras(nn.RNN(2, 3, bias=False), without) is without


# --- fuzz: two thousand calls of each function with arguments that may or may not fit

JUNK = [
    None,
    0,
    1,
    -1,
    2.5,
    math.nan,
    math.inf,
    "",
    "tanh",
    b"x",
    True,
    [],
    [1.0],
    {},
    (),
    object(),
    np.zeros((2, 2)),
    torch.tensor(3.0),
    torch.zeros(0),
    torch.tensor([math.nan]),
    torch.tensor([1, 2]),
    10**400,
]
DTYPES = [torch.float32] * 12 + [
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.bool,
    torch.complex64,
]


def tensor(r, shape):
    if r.random() < 0.03:
        return r.choice(JUNK)
    shape = [r.choice([0, 1, 2, 3]) if r.random() < 0.03 else n for n in shape] + [
        1
    ] * (r.random() < 0.02)
    t = torch.tensor(
        [
            r.choice(
                [0.0, 1.0, -1.0, 0.5, r.gauss(0, 1), 1e30, math.nan]
                if r.random() < 0.02
                else [r.gauss(0, 1)]
            )
            for _ in range(math.prod(shape))
        ],
        dtype=torch.float64,
    ).reshape(shape)
    return t.to(r.choice(DTYPES) if r.random() < 0.1 else torch.float32)


def either(r, good, share=0.05):
    return r.choice(JUNK) if r.random() < share else good


def calls(r):
    N, T, I, H = (r.randint(1, 3) for _ in range(4))
    p = either(r, tuple(tensor(r, s) for s in ((H, I), (H, H), (H,))), 0.03)
    x, h0, g = tensor(r, (N, T, I)), either(r, tensor(r, (N, H))), tensor(r, (N, T, H))
    kw = {"nonlinearity": either(r, r.choice(["tanh", "relu", "linear"]))}
    lengths = either(
        r, torch.tensor([r.randint(1 - (r.random() < 0.1), T) for _ in range(N)])
    )
    tokens = either(
        r,
        torch.tensor(
            [[r.randint(-(r.random() < 0.01), 4) for _ in range(T)] for _ in range(N)]
        ),
    )
    yield (
        "rnn_cell",
        lambda: rnn_cell(tensor(r, (N, I)), tensor(r, (N, H)), p, **kw),
        (N, H),
    )
    yield "rnn", lambda: rnn(x, h0, p, **kw), (N, T, H)
    yield (
        "rnn_layers",
        lambda: rnn_layers(x, tensor(r, (1, N, H)), either(r, [p]), **kw),
        (N, T, H),
    )
    yield "bptt", lambda: bptt(x, h0, p, g, **kw).h, (N, T, H)
    yield (
        "truncated_bptt",
        lambda: truncated_bptt(x, h0, p, g, steps=either(r, r.randint(0, 4)), **kw).x,
        (N, T, I),
    )
    yield (
        "spectral_radius",
        lambda: torch.tensor(spectral_radius(tensor(r, (H, H)))),
        (),
    )
    yield (
        "scaled_to_radius",
        lambda: scaled_to_radius(tensor(r, (H, H)), either(r, r.random())),
        (H, H),
    )
    yield (
        "clip_by_norm",
        lambda: clip_by_norm(
            either(r, [tensor(r, (H, I)), tensor(r, (H,))]), either(r, r.random())
        )[0][0],
        (H, I),
    )
    yield "valid_mask", lambda: valid_mask(lengths, either(r, T)), (N, T)
    yield "last_valid", lambda: last_valid(g, lengths), (N, H)
    yield "RNNClassifier", lambda: NET(either(r, (tokens, lengths))), (N, 2)


NET = RNNClassifier(5, 2, embed=2, hidden=3)


def test_fuzz():
    "Each call gives a result of the right shape, or refuses by the name of an argument."
    done = {}
    for seed in range(2000):
        r = random.Random(seed)
        for name, call, shape in calls(r):
            try:
                result = call()
            except (ValueError, TypeError) as e:
                assert ": expected" in str(e) and "\n" not in str(e), (seed, name, e)
                done[name, "refused"] = done.get((name, "refused"), 0) + 1
            else:
                assert result.ndim == len(shape) or name == "clip_by_norm", (
                    seed,
                    name,
                    result.shape,
                )  # which takes any shape
                done[name, "right"] = done.get((name, "right"), 0) + (
                    tuple(result.shape) == shape
                )
    for name in {n for n, _ in done}:
        assert done[name, "right"] > 600 and done[name, "refused"] > 50, (name, done)
