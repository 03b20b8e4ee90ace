"The recurrent layer by hand against torch, Keras and autograd, and its laws."

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.measure import seeded
from mmcourse.recurrent import (
    Grads,
    Params,
    RNNClassifier,
    bptt,
    clip_by_norm,
    last_valid,
    params_of,
    recall_task,
    rnn,
    rnn_cell,
    scaled_to_radius,
    spectral_radius,
    truncated_bptt,
    valid_mask,
)
from mmcourse.training import accuracy, fit

torch.set_num_threads(1)
small, seeds = st.integers(1, 5), st.integers(0, 2**31)
cases = settings(max_examples=40, deadline=None)


def draw(seed, *shapes):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


def layer(seed, I, H):
    return Params(*draw(seed + 1, (H, I), (H, H), (H,)))


def close(a, b, atol=1e-10):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=atol)


# --- the layer


@cases
@given(small, small, small, st.sampled_from(["tanh", "relu"]), seeds)
def test_cell_equals_torch(N, I, H, kind, seed):
    with seeded(seed):
        cell = nn.RNNCell(I, H, nonlinearity=kind).double()
    x, h = draw(seed, (N, I), (N, H))
    p = Params(cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)
    close(rnn_cell(x, h, p, getattr(torch, kind)), cell(x, h))


def test_cell_by_hand():
    p = Params(torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([1.0]))
    x, h = torch.tensor([[0.1]]), torch.tensor([[-0.2]])
    assert rnn_cell(x, h, p).item() == pytest.approx(math.tanh(0.6))
    assert rnn_cell(x, h, p, torch.abs).item() == pytest.approx(0.6)


@cases
@given(small, small, small, small, seeds)
def test_layers_equal_torch(N, T, I, H, seed):
    with seeded(seed):
        theirs = nn.RNN(I, H, 2, batch_first=True).double()
    x, h0 = draw(seed, (N, T, I), (2, N, H))
    first = rnn(x, params_of(theirs), h0[0])
    close(rnn(first, params_of(theirs, 1), h0[1]), theirs(x, h0)[0])
    zeros = rnn(rnn(x, params_of(theirs, 0)), params_of(theirs, 1))
    close(zeros, theirs(x)[0])


def test_another_activation_is_used_at_every_step():
    (x,), p = draw(0, (2, 4, 3)), layer(0, 3, 5)
    h = rnn_cell(x[:, 0], torch.zeros(2, 5).double(), p, torch.sigmoid)
    h = rnn_cell(x[:, 1], h, p, torch.sigmoid)
    close(rnn(x, p, f=torch.sigmoid)[:, 1], h)


def test_equals_keras_by_copied_weights():
    keras = pytest.importorskip("keras")
    with seeded(2), keras.device("cpu"):
        ours, x = nn.RNN(3, 5, batch_first=True), torch.randn(4, 7, 3)
        theirs = keras.layers.SimpleRNN(5, return_sequences=True)
        theirs.build(x.shape)
        W, U, b = (v.detach().numpy() for v in params_of(ours))
        theirs.set_weights([W.T, U.T, b])
        got = theirs(x).detach()
    torch.testing.assert_close(rnn(x, params_of(ours)).detach(), got)


@cases
@given(small, st.integers(2, 6), small, small, seeds)
def test_a_state_sees_the_past_only_and_its_own_sequence(N, T, I, H, seed):
    (x, h0), p = draw(seed, (N, T, I), (N, H)), layer(seed, I, H)
    later, whole = x.clone(), rnn(x, p, h0)
    later[:, T // 2 :] += 1
    assert torch.equal(rnn(later, p, h0)[:, : T // 2], whole[:, : T // 2])
    order = torch.randperm(N)
    close(rnn(x[order], p, h0[order]), whole[order])


@cases
@given(small, st.integers(2, 6), small, small, seeds)
def test_reading_goes_on_where_it_stopped(N, T, I, H, seed):
    (x, h0), p = draw(seed, (N, T, I), (N, H)), layer(seed, I, H)
    first = rnn(x[:, :1], p, h0)
    close(torch.cat([first, rnn(x[:, 1:], p, first[:, -1])], 1), rnn(x, p, h0))


# --- gradients


def by_autograd(x, h0, p, g, steps):
    "Gradients by torch, the state detached between pieces of `steps` steps."
    leaves = [t.clone().requires_grad_() for t in (x, h0, *p)]
    h, loss, states = leaves[1], 0, []
    for t in range(x.shape[1]):
        if t and t % steps == 0:
            h = h.detach()
        h = rnn_cell(leaves[0][:, t], h, leaves[2:])
        h.retain_grad()
        states.append(h)
        loss = loss + (h * g[:, t]).sum()
    loss.backward()
    return Grads(*[t.grad for t in leaves], torch.stack([s.grad for s in states], 1))


@cases
@given(small, st.integers(1, 7), small, small, seeds)
def test_bptt_equals_autograd(N, T, I, H, seed):
    (x, h0, g), p = draw(seed, (N, T, I), (N, H), (N, T, H)), layer(seed, I, H)
    for a, b in zip(bptt(x, p, g, h0), by_autograd(x, h0, p, g, T), strict=True):
        close(a, b)
    for a, b in zip(bptt(x, p, g), by_autograd(x, 0 * h0, p, g, T), strict=True):
        close(a, b)


@cases
@given(small, st.integers(1, 9), small, small, st.integers(1, 10), seeds)
def test_truncated_equals_detach(N, T, I, H, steps, seed):
    (x, g), p = draw(seed, (N, T, I), (N, T, H)), layer(seed, I, H)
    wanted = by_autograd(x, x.new_zeros(N, H), p, g, steps)
    got = truncated_bptt(x, p, g, steps=steps)
    for name in Params._fields:
        close(getattr(got, name), getattr(wanted, name))


@cases
@given(st.integers(1, 8), st.integers(1, 12), st.floats(0.1, 2), seeds)
def test_gradient_lengths_keep_to_the_bound(H, T, radius, seed):
    Q, x, end = draw(seed, (H, H), (3, T, H), (3, H))
    U = scaled_to_radius(torch.linalg.qr(Q)[0], radius)
    g = torch.zeros(3, T, H).double()
    g[:, -1] = end
    p = Params(torch.eye(H).double(), U, torch.zeros(H).double())
    powers = radius ** torch.arange(T - 1, -1, -1).double()
    lengths = bptt(x, p, g).h.norm(dim=2)
    assert (lengths <= powers * end.norm(dim=1)[:, None] * (1 + 1e-9)).all()


# --- the spectral radius


def test_radius_by_hand():
    turn = torch.tensor([[0.0, -3.0], [3.0, 0.0]])  # two complex eigenvalues
    assert spectral_radius(turn) == pytest.approx(3)
    shear = torch.tensor([[0.5, 100.0], [0.0, -0.7]])
    assert spectral_radius(shear) == pytest.approx(0.7)
    assert spectral_radius(torch.zeros(3, 3)) == 0


@cases
@given(st.integers(1, 7), st.floats(0.01, 10), seeds)
def test_scaled_has_the_radius_and_the_direction(H, radius, seed):
    (U,) = draw(seed, (H, H))
    scaled = scaled_to_radius(U, radius)
    assert spectral_radius(scaled) == pytest.approx(radius)
    close(scaled / scaled.norm(), U / U.norm())


# --- clipping


@cases
@given(
    st.lists(st.tuples(small, small), min_size=1, max_size=4),
    st.floats(0.01, 50),
    seeds,
)
def test_clip_equals_torch(shapes, max_norm, seed):
    grads = draw(seed, *shapes)
    weights = [nn.Parameter(torch.zeros_like(v)) for v in grads]
    for w, v in zip(weights, grads):
        w.grad = v.clone()
    before = [v.clone() for v in grads]
    theirs = nn.utils.clip_grad_norm_(weights, max_norm)
    ours, norm = clip_by_norm(grads, max_norm)
    assert norm == pytest.approx(theirs.item())
    for o, w in zip(ours, weights, strict=True):
        close(o, w.grad)
    assert all(torch.equal(a, b) for a, b in zip(grads, before))


def test_clip_by_hand():
    grads = [torch.tensor([3.0]), torch.tensor([[4.0]])]
    short, norm = clip_by_norm(grads, 1.0)
    assert norm == 5
    assert [v.item() for v in short] == pytest.approx([0.6, 0.8], rel=1e-5)
    assert [v.item() for v in clip_by_norm(grads, math.inf)[0]] == [3, 4]


# --- the task


def test_recall_task_is_what_it_says():
    x, y = recall_task(500, 7, torch.Generator().manual_seed(0))
    assert x.shape == (500, 8, 8)
    assert x.dtype == torch.float32
    assert torch.equal(x.sum(2), torch.ones(500, 8))
    assert torch.equal(x[:, 0].argmax(1), y)
    assert not x[:, 1:, :4].any()
    assert x[:, 1:, 4:].any((0, 1)).all()
    assert set(y.tolist()) == {0, 1, 2, 3}
    again = recall_task(500, 7, torch.Generator().manual_seed(0))
    other = recall_task(500, 7, torch.Generator().manual_seed(1))
    assert torch.equal(again[0], x)
    assert not torch.equal(other[1], y)


# --- padded batches


def batch(seed, N=5, T=7):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (N,), generator=g)
    tokens = torch.randint(1, 9, (N, T), generator=g)
    return tokens * valid_mask(lengths, T), lengths


def net(seed=0):
    with seeded(seed):
        return RNNClassifier(9, 4, embed=3, hidden=6)


def test_mask_and_last_state_by_hand():
    lengths = torch.tensor([1, 3])
    assert valid_mask(lengths, 3).tolist() == [[True, False, False], [True] * 3]
    h = torch.arange(12.0).reshape(2, 3, 2)
    assert last_valid(h, lengths).tolist() == [[0, 1], [10, 11]]


@cases
@given(small, st.integers(1, 8), st.integers(0, 5), seeds)
def test_padding_does_not_change_the_answer(N, T, more, seed):
    m, (tokens, lengths) = net(seed), batch(seed, N, T)
    said = m((tokens, lengths))
    close(m((F.pad(tokens, (0, more)), lengths)), said, 1e-6)
    noise = torch.where(valid_mask(lengths, T), tokens, 8)
    close(m((noise, lengths)), said, 1e-6)
    for i, n in enumerate(lengths):
        close(m((tokens[i : i + 1, :n], lengths[i : i + 1])), said[i : i + 1], 1e-6)
    order = torch.randperm(N)
    close(m((tokens[order], lengths[order])), said[order], 1e-6)


@cases
@given(small, st.integers(1, 8), seeds)
def test_last_valid_equals_packing(N, T, seed):
    m, (tokens, lengths) = net(seed), batch(seed, N, T)
    packed = nn.utils.rnn.pack_padded_sequence(
        m.embed(tokens), lengths, batch_first=True, enforce_sorted=False
    )
    close(m((tokens, lengths)), m.head(m.rnn(packed)[1][0]), 1e-6)
    every = m.every_step(tokens)
    assert every.shape == (N, T, 4)
    close(every[torch.arange(N), lengths - 1], m((tokens, lengths)), 1e-6)


def test_sizes_are_those_asked_for():
    m = RNNClassifier(9)
    assert (m.embed.num_embeddings, m.embed.embedding_dim) == (9, 32)
    assert (m.rnn.hidden_size, m.head.out_features) == (64, 10)
    assert not m.embed(torch.tensor([0])).any()


def test_classifier_learns_what_only_order_tells():
    "Which of two words comes first: a bag of words cannot know."
    g = torch.Generator().manual_seed(0)
    first = torch.randint(2, (200,), generator=g)
    tokens = torch.stack([first + 1, 2 - first, torch.full_like(first, 3)], 1)
    data = (tokens, torch.full((200,), 3)), first
    with seeded(0):
        m = RNNClassifier(4, 2, embed=8, hidden=8)
    fit(m, data, epochs=10, batch_size=20, lr=0.02)
    assert accuracy(m, data) == 1
