"""LSTM and GRU by hand against torch and Keras over random shapes and seeds, the laws of sequences, and everything a caller can get wrong."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.lstm import (
    BiLSTMClassifier,
    as_sequences,
    bidirectional,
    centred_mels,
    gates,
    gru,
    gru_cell,
    gru_to_keras,
    lstm,
    lstm_cell,
    lstm_to_keras,
    pool,
    recall_task,
    reverse,
    run_packed,
    set_gate_biases,
    trace,
    train_listener,
    unroll,
)
from mmcourse.measure import seeded

torch.set_num_threads(1)
TOL = 1e-5
KINDS = {"lstm": (nn.LSTM, lstm), "gru": (nn.GRU, gru)}

shapes = st.fixed_dictionaries(
    {
        "B": st.integers(1, 4),
        "T": st.integers(1, 6),
        "I": st.integers(1, 4),
        "H": st.integers(1, 5),
        "layers": st.integers(1, 3),
        "both": st.booleans(),
        "bias": st.booleans(),
        "seed": st.integers(0, 2**31 - 1),
        "kind": st.sampled_from(sorted(KINDS)),
    }
)


def made(B, T, I, H, layers, both, bias, seed, kind):
    "A net with weights far from zero, its function by hand, an input, lengths."
    with seeded(seed):
        net = KINDS[kind][0](
            I, H, layers, batch_first=True, bidirectional=both, bias=bias
        )
        for p in net.parameters():
            nn.init.normal_(p, 0, 0.7)
        return net, KINDS[kind][1], torch.randn(B, T, I), torch.randint(1, T + 1, (B,))


def close(a, b):
    torch.testing.assert_close(a, b, atol=TOL, rtol=TOL)


def same_state(a, b):
    [close(x, y) for x, y in (zip(a, b) if isinstance(a, tuple) else [(a, b)])]


# --- by hand = torch


@given(shapes)
@settings(max_examples=80, deadline=None)
def test_equals_torch_whatever_the_shape(s):
    net, ours, x, lengths = made(**s)
    with torch.no_grad():
        for n, (ref, state) in ((None, net(x)), (lengths, run_packed(net, x, lengths))):
            y, last = ours(x, net.state_dict(), lengths=n)
            close(y, ref)
            same_state(last, state)


@given(shapes)
@settings(max_examples=30, deadline=None)
def test_a_given_state_is_where_it_starts(s):
    net, ours, x, _ = made(**s)
    n = s["layers"] * (1 + s["both"])
    start = [torch.randn(n, s["B"], s["H"]) for _ in range(2)]
    start = tuple(start) if s["kind"] == "lstm" else start[0]
    with torch.no_grad():
        y, last = ours(x, net.state_dict(), state=start)
        ref, state = net(x, start)
    close(y, ref)
    same_state(last, state)


@pytest.mark.parametrize("seed", range(5))
def test_cells_equal_torchs_in_double_precision(seed):
    with seeded(seed):
        x, h, c = (
            torch.randn(3, 4, dtype=torch.float64),
            *torch.randn(2, 3, 6, dtype=torch.float64),
        )
        a, b = nn.LSTMCell(4, 6).double(), nn.GRUCell(4, 6).double()
    for ours, ref in zip(lstm_cell(x, (h, c), tuple(a.parameters())), a(x, (h, c))):
        torch.testing.assert_close(ours, ref, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        gru_cell(x, h, tuple(b.parameters())), b(x, h), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_torchs(kind):
    net, ours, x, lengths = made(3, 5, 4, 6, 2, True, True, 7, kind)
    grads = []
    for y in (
        ours(x, dict(net.named_parameters()), lengths=lengths)[0],
        run_packed(net, x, lengths)[0],
    ):
        net.zero_grad()
        (y**2).sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# --- by hand = Keras


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_keras_with_the_same_weights(kind, bias, both, seed):
    import keras

    B, T, I, H = np.random.default_rng(seed).integers(1, 6, 4).tolist()
    net, ours, x, lengths = made(B, T, I, H, 2, both, bias, seed, kind)
    convert, Layer = (
        (lstm_to_keras, keras.layers.LSTM)
        if kind == "lstm"
        else (gru_to_keras, keras.layers.GRU)
    )
    y = x
    with torch.no_grad(), keras.device("cpu"):
        mask = torch.arange(T) < lengths[:, None]
        for k in range(2):  # both layers
            layer = Layer(H, return_sequences=True, use_bias=bias)
            if both:
                layer = keras.layers.Bidirectional(layer)
            layer.build(y.shape)
            layer.set_weights(convert(net.state_dict(), k))
            y = layer(y, mask=mask) * mask[:, :, None]
        close(ours(x, net.state_dict(), lengths=lengths)[0], y)


def test_weights_in_torchs_order_would_not_do():
    "The GRU's gates really are in another order: copied as they stand, they give something else."
    import keras

    net, ours, x, _ = made(2, 5, 3, 4, 1, False, True, 0, "gru")
    layer = keras.layers.GRU(4, return_sequences=True)
    p = net.state_dict()
    with torch.no_grad(), keras.device("cpu"):
        layer.build(x.shape)
        layer.set_weights(
            [
                p["weight_ih_l0"].T.numpy(),
                p["weight_hh_l0"].T.numpy(),
                np.stack([p["bias_ih_l0"], p["bias_hh_l0"]]),
            ]
        )
        assert (layer(x) - ours(x, p)[0]).abs().max() > 0.01


# --- laws


@given(shapes)
@settings(max_examples=50, deadline=None)
def test_padding_cannot_change_the_answer(s):
    net, ours, x, lengths = made(**s)
    on = (torch.arange(s["T"]) < lengths[:, None])[:, :, None]
    garbage = torch.where(on, x, 100 * torch.randn_like(x))
    longer = torch.cat([garbage, torch.randn(s["B"], 2, s["I"])], 1)
    with torch.no_grad():
        y, last = ours(x, net.state_dict(), lengths=lengths)
        z, there = ours(longer, net.state_dict(), lengths=lengths)
    torch.testing.assert_close(z[:, : s["T"]], y)
    same_state(there, last)
    assert not z[:, s["T"] :].any() and not (y * ~on).any()


@given(shapes)
@settings(max_examples=30, deadline=None)
def test_one_direction_cannot_see_ahead_and_two_can(s):
    net, ours, x, _ = made(**{**s, "both": False})
    t = s["T"] // 2
    changed = x.clone()
    changed[:, t:] += 1
    with torch.no_grad():
        torch.testing.assert_close(
            ours(x, net.state_dict())[0][:, :t],
            ours(changed, net.state_dict())[0][:, :t],
        )


def test_two_directions_see_ahead():
    net, ours, x, _ = made(2, 6, 3, 4, 1, True, True, 1, "lstm")
    changed = x.clone()
    changed[:, 5] += 1
    y, z = (ours(v, net.state_dict())[0][:, 0] for v in (x, changed))
    assert torch.equal(y[:, :4], z[:, :4]) and (y[:, 4:] - z[:, 4:]).abs().max() > 1e-4


@given(shapes)
@settings(max_examples=30, deadline=None)
def test_sequences_do_not_see_each_other(s):
    net, ours, x, lengths = made(**s)
    order = torch.randperm(s["B"])
    with torch.no_grad():
        y, z = (
            ours(x, net.state_dict(), lengths=lengths)[0],
            ours(x[order], net.state_dict(), lengths=lengths[order])[0],
        )
    close(y[order], z)


@given(shapes)
@settings(max_examples=30, deadline=None)
def test_the_backward_direction_is_the_forward_one_of_reversed_input(s):
    net, ours, x, lengths = made(**{**s, "both": True, "layers": 1})
    p, H = net.state_dict(), s["H"]
    back = {
        k.removesuffix("_reverse"): v for k, v in p.items() if k.endswith("_reverse")
    }
    with torch.no_grad():
        y, alone = (
            ours(x, p, lengths=lengths)[0],
            ours(reverse(x, lengths), back, lengths=lengths)[0],
        )
    close(y[:, :, H:], reverse(alone, lengths))


@given(st.integers(1, 4), st.integers(1, 7), st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_reverse_twice_is_nothing_and_reverse_is_within_the_length(B, T, seed):
    g = torch.Generator().manual_seed(seed)
    x, n = torch.randn(B, T, 2, generator=g), torch.randint(1, T + 1, (B,), generator=g)
    assert torch.equal(reverse(reverse(x, n), n), x) and torch.equal(
        reverse(x), x.flip(1)
    )
    for row, back, k in zip(x, reverse(x, n), n):
        assert torch.equal(back[:k], row[:k].flip(0)) and torch.equal(back[k:], row[k:])


def test_bidirectional_runs_both_readers():
    there = lambda x, n: (x.cumsum(1), "there")
    y, states = bidirectional(
        torch.ones(1, 3, 1), there, lambda x, n: (x.cumsum(1), "back")
    )
    assert y.tolist() == [[[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]] and states == (
        "there",
        "back",
    )


def test_gates_lie_between_their_bounds_and_a_kept_cell_stays():
    w = (
        torch.zeros(8, 3),
        torch.zeros(8, 2),
        torch.tensor([-1e3, -1e3, 1e3, 1e3, 0, 0, 1e3, 1e3]),
        torch.zeros(8),
    )
    i, f, g, o = gates(torch.randn(4, 3), torch.randn(4, 2), w)
    assert i.max() == 0 and f.min() == 1 and o.min() == 1 and g.abs().max() == 0
    c = torch.randn(4, 2)
    assert torch.equal(lstm_cell(torch.randn(4, 3), (torch.randn(4, 2), c), w)[1], c)


def test_unroll_stops_where_a_sequence_ends():
    count = lambda x, state, weights: state + 1
    y, last = unroll(
        count, torch.zeros(3, 4, 1), None, torch.zeros(3, 1), torch.tensor([1, 4, 2])
    )
    assert last.flatten().tolist() == [1, 4, 2] and y[:, :, 0].tolist() == [
        [1, 0, 0, 0],
        [1, 2, 3, 4],
        [1, 2, 0, 0],
    ]


# --- the pieces around it


@given(shapes, st.floats(-5, 5), st.floats(-5, 5))
@settings(max_examples=50, deadline=None)
def test_gate_biases_are_what_was_asked(s, forget, write):
    net = set_gate_biases(
        nn.LSTM(s["I"], s["H"], s["layers"], bidirectional=s["both"]), forget, write
    )
    H = s["H"]
    for name, b in net.named_parameters():
        if name.startswith("bias_ih"):
            total = b + dict(net.named_parameters())[name.replace("_ih", "_hh")]
            assert total[:H].tolist() == pytest.approx([write] * H) and total[
                H : 2 * H
            ].tolist() == pytest.approx([forget] * H)


def test_recall_task_is_what_it_says():
    x, y = recall_task(500, 7, symbols=3, generator=torch.Generator().manual_seed(0))
    assert x.shape == (500, 7, 6) and torch.equal(x.sum(2), torch.ones(500, 7))
    assert (
        torch.equal(x[:, 0].argmax(1), y)
        and x[:, 1:, :3].sum() == 0
        and set(y.tolist()) == {0, 1, 2}
    )
    assert not torch.equal(
        y, recall_task(500, 7, symbols=3, generator=torch.Generator().manual_seed(1))[1]
    )


@given(
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 999),
)
@settings(max_examples=100, deadline=None)
def test_as_sequences_keeps_every_number_and_its_order(B, T, F, stack, seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, T + 1, B)
    start = rng.integers(0, T - n + 1)
    x = torch.tensor(rng.standard_normal((B, F, T)), dtype=torch.float32)
    there = torch.tensor(
        (np.arange(T) >= start[:, None]) & (np.arange(T) < (start + n)[:, None])
    )
    y, lengths = as_sequences(x, there, stack=stack)
    assert lengths.tolist() == (-(-n // stack)).tolist() and y.shape == (
        B,
        lengths.max(),
        F * stack,
    )
    for row, seq, a, k in zip(x, y, start, n):
        flat = seq.reshape(-1, F)
        assert torch.equal(flat[:k], row[:, a : a + k].T) and not flat[k:].any()


def test_pool_leaves_the_padding_out():
    h = torch.tensor(
        [
            [[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]],
            [[-5.0, 2.0], [7.0, 7.0], [7.0, 7.0]],
        ]
    )
    assert pool(h, torch.tensor([2, 1])).tolist() == [[2, -3, 3, -2], [-5, 2, -5, 2]]


@pytest.mark.parametrize("layers", [1, 2])
def test_classifier_hears_the_sequence_alone(layers):
    with seeded(0):
        net = BiLSTMClassifier(3, 5, 4, layers=layers).eval()
    x, n = torch.randn(6, 8, 3), torch.tensor([8, 1, 5, 3, 8, 2])
    y = net(x, n)
    assert y.shape == (6, 4)
    close(net(torch.where((torch.arange(8) < n[:, None])[:, :, None], x, 1e3), n), y)
    close(torch.cat([net(row[None, :k]) for row, k in zip(x, n)]), y)
    close(net(x.flip(0), n.flip(0)), y.flip(0))
    assert (net(reverse(x, n), n) - y).abs()[n > 1].max() > 1e-3  # order matters


def test_classifier_learns_an_order_task():
    "Rising or falling: the same frames, and only the order tells."
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (256,), generator=g)
    ramp = (
        torch.linspace(-1, 1, 51).expand(256, 20, 51)
        * torch.where(y == 1, 1.0, -1.0)[:, None, None]
    )
    model = train_listener(ramp.clone() - 20, y, standardise=lambda m: m + 20, epochs=3)
    assert (model(ramp - 20).argmax(1) == y).float().mean() > 0.95


def test_listener_training_repeats_with_its_seed():
    x, y = torch.randn(80, 20, 9), torch.arange(80) % 10
    a, b, c = (
        train_listener(x, y, standardise=lambda m: m, epochs=1, seed=s)
        for s in (0, 0, 1)
    )
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x))


def test_trace_is_the_first_layer_forwards():
    net, _, x, _ = made(1, 9, 3, 4, 2, True, True, 3, "lstm")
    first = {k: v for k, v in net.state_dict().items() if k.endswith("_l0")}
    seen = trace(x[0], net.state_dict())
    close(seen["h"], lstm(x, first)[0][0])
    assert all(v.shape == (9, 4) for v in seen.values()) and torch.equal(
        seen["h"], seen["o"] * seen["c"].tanh()
    )


def fake_mel(wave, *, n_mels, hop):  # each frame's level in every band
    x = torch.as_tensor(wave).abs().unfold(1, 1, hop)[:, :, 0]
    return torch.cat([x, x[:, -1:]], 1)[:, None].expand(
        -1, n_mels, -1
    )  # 1 + T//hop frames


def test_centred_mels_puts_each_clip_in_the_middle():
    audio = np.zeros((3, 1600), np.float32)
    audio[0, :160] = 1
    audio[1, :800] = 5
    audio[2] = 3
    x = centred_mels(audio, [160, 800, 1600], fake_mel, frames=7, n_mels=2)
    there = (x > -60).any(1)
    assert (
        there.sum(1).tolist() == [2, 6, 7]
        and there.int().argmax(1).tolist() == [2, 0, 0]
        and x.shape == (3, 2, 7)
    )
    assert x.amax((1, 2)).tolist() == [0, 0, 0]


# --- what cannot be used

W = (torch.zeros(8, 3), torch.zeros(8, 2), torch.zeros(8), torch.zeros(8))
P = nn.LSTM(3, 2).state_dict()
X, HC = torch.zeros(1, 3), (torch.zeros(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize(
    "call,kind,says",
    [
        (
            lambda: lstm_cell(torch.zeros(1, 4), HC, W),
            ValueError,
            r"x: expected shape \(any, 3\), got \(1, 4\)",
        ),
        (
            lambda: lstm_cell([[0.0]], HC, W),
            TypeError,
            "x: expected a tensor of floats, got list of 1",
        ),
        (
            lambda: lstm_cell(X, HC[0], W),
            ValueError,
            r"state: expected a pair \(h, c\), got Tensor",
        ),
        (
            lambda: lstm_cell(X, (HC[0], torch.zeros(2, 2)), W),
            ValueError,
            r"c: expected shape \(1, 2\), got \(2, 2\)",
        ),
        (lambda: lstm_cell(X, HC, W[:2]), ValueError, "weights: expected"),
        (
            lambda: lstm_cell(X, HC, (W[0], W[1], W[2][:3], W[3])),
            ValueError,
            r"b_ih: expected shape \(8,\) or None",
        ),
        (
            lambda: lstm_cell(X.double(), HC, W),
            ValueError,
            "x: expected torch.float32 on cpu, as w_hh is, got torch.float64",
        ),
        (
            lambda: gru_cell(X, HC[0], W),
            ValueError,
            r"w_hh: expected shape \(6, 2\), got \(8, 2\)",
        ),
        (lambda: lstm(torch.zeros(1, 3), P), ValueError, r"x: expected \(B, T, I\)"),
        (
            lambda: lstm(torch.zeros(1, 0, 3), P),
            ValueError,
            r"x: expected \(B, T, I\) with at least one sequence and one step",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), P, lengths=[3]),
            ValueError,
            "lengths: expected whole numbers from 1 to 2, got 3 to 3",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), P, lengths=[0]),
            ValueError,
            "lengths: expected whole numbers from 1 to 2",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), P, lengths=[1.5]),
            ValueError,
            "lengths: expected whole numbers",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), P, lengths=[1, 2]),
            ValueError,
            "lengths: expected one for each of 1 sequences",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), list(P)),
            TypeError,
            "params: expected a dict",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), {}),
            ValueError,
            "params: expected names such as weight_ih_l0",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), nn.LSTM(3, 2, proj_size=1).state_dict()),
            ValueError,
            "weight_hr_l0",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), nn.GRU(3, 2).state_dict()),
            ValueError,
            r"w_hh: expected shape \(8, 2\), got \(6, 2\)",
        ),
        (
            lambda: lstm(torch.zeros(1, 2, 3), P, state=HC),
            ValueError,
            r"state: expected shape \(1, 1, 2\)",
        ),
        (
            lambda: lstm_to_keras(P, 1),
            ValueError,
            "layer: expected a whole number from 0 to 0, got 1",
        ),
        (
            lambda: gru_to_keras(P),
            ValueError,
            r"w_hh: expected shape \(6, 2\), got \(8, 2\)",
        ),
        (
            lambda: set_gate_biases(nn.LSTM(3, 2, bias=False), 1.0),
            ValueError,
            "net: expected an nn.LSTM with biases",
        ),
        (
            lambda: recall_task(1, 1),
            ValueError,
            "length: expected a whole number from 2, got 1",
        ),
        (
            lambda: run_packed(
                nn.LSTM(3, 2, batch_first=True), torch.zeros(1, 2, 3), None
            ),
            ValueError,
            "lengths: expected whole numbers, got None",
        ),
        (
            lambda: BiLSTMClassifier(3)(torch.zeros(1, 2, 4)),
            ValueError,
            "x: expected 3 features",
        ),
        (
            lambda: run_packed(nn.LSTM(3, 2), torch.zeros(1, 2, 3), [2]),
            ValueError,
            "net: expected batch_first=True",
        ),
        (
            lambda: as_sequences(
                torch.zeros(1, 2, 3), torch.ones(1, 3).bool(), stack=0
            ),
            ValueError,
            "stack: expected",
        ),
        (
            lambda: as_sequences(torch.zeros(1, 2, 3), torch.zeros(1, 3).bool()),
            ValueError,
            "there: expected at least one step",
        ),
        (
            lambda: as_sequences(torch.zeros(1, 2, 3), torch.zeros(3).bool()),
            ValueError,
            r"there: expected bools \(B, T\)",
        ),
        (
            lambda: trace(torch.zeros(0, 3), P),
            ValueError,
            "x: expected at least one step",
        ),
        (
            lambda: centred_mels(np.zeros(5), [5], fake_mel),
            ValueError,
            r"audio: expected \(N, T\), got \(5,\)",
        ),
        (
            lambda: centred_mels(np.zeros((1, 5)), [6], fake_mel),
            ValueError,
            "length: expected whole numbers from 1 to 5",
        ),
    ],
)
def test_errors_name_the_argument(call, kind, says):
    with pytest.raises(kind, match=says):
        call()


SIZES = st.integers(0, 3)
tensors = st.one_of(
    st.builds(
        lambda s, d: torch.zeros(s, dtype=d),
        st.lists(SIZES, max_size=4),
        st.sampled_from([torch.float32, torch.float64, torch.int64]),
    ),
    st.none(),
    st.text(max_size=2),
    st.integers(-2, 3),
    st.lists(st.integers(-1, 3), max_size=3),
)
weights = st.one_of(tensors, st.tuples(tensors, tensors, tensors, tensors), st.just(W))
names = st.one_of(
    st.sampled_from(
        [
            "weight_ih_l0",
            "weight_hh_l0",
            "bias_ih_l0",
            "bias_hh_l0",
            "weight_ih_l1",
            "weight_ih_l0_reverse",
            "x",
        ]
    ),
    st.integers(0, 1),
)
params = st.one_of(
    tensors,
    st.dictionaries(names, tensors, max_size=5),
    st.just(P),
    st.builds(lambda d: P | d, st.dictionaries(names, tensors, max_size=2)),
    st.sampled_from(
        [
            nn.GRU(3, 2, bidirectional=True).state_dict(),
            nn.LSTM(3, 2, 2, bias=False).state_dict(),
        ]
    ),
)
mostly = st.one_of(tensors, st.just(torch.zeros(2, 3, 3)), st.just(torch.zeros(1, 3)))
lengths = st.one_of(
    st.none(),
    tensors,
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.just([3, 1]),
)


def documented(f, *args, **kwargs):
    try:
        return f(*args, **kwargs)
    except (ValueError, TypeError):
        return None


@given(
    mostly, params, lengths, st.one_of(st.none(), tensors, st.tuples(tensors, tensors))
)
@settings(max_examples=2000, deadline=None)
def test_fuzz_sequences(x, p, n, state):
    for f in (lstm, gru):
        if (out := documented(f, x, p, lengths=n, state=state)) is not None:
            assert out[0].shape[:2] == x.shape[:2]


@given(mostly, st.one_of(tensors, st.tuples(tensors, tensors), st.just(HC)), weights)
@settings(max_examples=2000, deadline=None)
def test_fuzz_cells(x, state, w):
    if (out := documented(lstm_cell, x, state, w)) is not None:
        assert out[0].shape == state[0].shape
    if (out := documented(gru_cell, x, state, w)) is not None:
        assert out.shape == state.shape


@given(params, st.one_of(st.integers(-2, 3), st.none(), st.text(max_size=1)))
@settings(max_examples=2000, deadline=None)
def test_fuzz_converters(p, layer):
    for f in (lstm_to_keras, gru_to_keras):
        if (out := documented(f, p, layer)) is not None:
            assert all(isinstance(a, np.ndarray) for a in out)


NET = BiLSTMClassifier(3, 2, 2).eval()


@given(mostly, lengths)
@settings(max_examples=500, deadline=None)
def test_fuzz_classifier(x, n):
    if (out := documented(NET, x, n)) is not None:
        assert out.shape == (len(x), 2) and out.isfinite().all()


@given(
    mostly,
    st.one_of(
        tensors, st.just(torch.ones(2, 3).bool()), st.just(torch.eye(3)[:2].bool())
    ),
    st.one_of(st.integers(-1, 4), st.none()),
)
@settings(max_examples=500, deadline=None)
def test_fuzz_as_sequences(x, there, stack):
    documented(as_sequences, x, there, stack=stack)


@given(st.one_of(tensors, st.just(np.ones((2, 400), np.float32))), lengths)
@settings(max_examples=500, deadline=None)
def test_fuzz_centred_mels(audio, n):
    if (
        out := documented(centred_mels, audio, n, fake_mel, frames=3, n_mels=1)
    ) is not None:
        assert out.shape[1:] == (1, 3)
