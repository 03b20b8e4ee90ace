"LSTM and GRU by hand against torch and Keras, and the laws of sequences."

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.audio import standardise_mel
from mmcourse.lstm import (
    BiLSTMClassifier,
    Listener,
    as_sequences,
    bidirectional,
    gates,
    gru_cell,
    lstm_cell,
    lstm_layer,
    mean_max_pool,
    reverse,
    run_packed,
    set_gate_biases,
    trace,
    train_listener,
    weights_of,
)
from mmcourse.measure import seeded

torch.set_num_threads(1)
small, seeds = st.integers(1, 5), st.integers(0, 2**31)
cases = settings(max_examples=40, deadline=None)


def close(a, b, atol=1e-6):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)


def made(kind, seed, B, T, I, H, **more):
    "A net with weights far from zero, an input, lengths."
    with seeded(seed):
        net = kind(I, H, batch_first=True, **more)
        for p in net.parameters():
            nn.init.normal_(p, 0, 0.7)
        return net, torch.randn(B, T, I), torch.randint(1, T + 1, (B,))


def there(lengths, T):
    return (torch.arange(T) < lengths[:, None])[:, :, None]


# --- cells


@cases
@given(small, small, small, seeds)
def test_cells_equal_torch(B, I, H, seed):
    with seeded(seed):
        lstm, gru = nn.LSTMCell(I, H).double(), nn.GRUCell(I, H).double()
        x, h, c = (torch.randn(B, n).double() for n in (I, H, H))
    for a, b in zip(
        lstm_cell(x, (h, c), tuple(lstm.parameters())), lstm(x, (h, c)), strict=True
    ):
        close(a, b, 1e-12)
    close(gru_cell(x, h, tuple(gru.parameters())), gru(x, h), 1e-12)


def test_gates_come_in_their_order_and_within_bounds():
    bias = torch.tensor([-1e3, 1e3, 0.5, 0.0])  # of i, f, g, o
    w = torch.zeros(4, 3), torch.zeros(4, 1), bias, torch.zeros(4)
    i, f, g, o = gates(torch.randn(2, 3), torch.randn(2, 1), w)
    assert i.tolist() == [[0], [0]]
    assert f.tolist() == [[1], [1]]
    assert g[0].item() == pytest.approx(np.tanh(0.5))
    assert o.tolist() == [[0.5], [0.5]]
    c = torch.randn(2, 1)
    h, kept = lstm_cell(torch.randn(2, 3), (torch.randn(2, 1), c), w)
    assert torch.equal(kept, c)
    close(h, 0.5 * c.tanh())


# --- layers


@cases
@given(small, small, small, small, seeds)
def test_layer_equals_packing_and_knows_no_padding(B, T, I, H, seed):
    net, x, lengths = made(nn.LSTM, seed, B, T, I, H)
    ours, (h, c) = lstm_layer(x, weights_of(net), lengths)
    theirs, (h_ref, c_ref) = run_packed(net, x, lengths)
    for a, b in ((ours, theirs), (h, h_ref[0]), (c, c_ref[0])):
        close(a, b)
    garbage = torch.where(there(lengths, T), x, 1e3)
    longer = torch.cat([garbage, torch.randn(B, 2, I)], 1)
    again, (h_again, _) = lstm_layer(longer, weights_of(net), lengths)
    close(again[:, :T], ours)
    close(h_again, h)
    assert not again[:, T:].any()


@cases
@given(small, small, small, small, seeds)
def test_two_layers_two_directions_equal_torch(B, T, I, H, seed):
    more = {"num_layers": 2, "bidirectional": True}
    net, x, lengths = made(nn.LSTM, seed, B, T, I, H, **more)
    y = x
    for layer in range(2):
        both = [weights_of(net, layer, back) for back in (False, True)]
        y = bidirectional(y, both, lengths)
    close(y, run_packed(net, x, lengths)[0])


def test_reverse_by_hand():
    x = torch.tensor([[1, 2, 3, 7, 8], [1, 2, 3, 4, 5], [1, 6, 7, 8, 9]])
    turned = reverse(x, torch.tensor([3, 5, 1]))
    assert turned.tolist() == [[3, 2, 1, 7, 8], [5, 4, 3, 2, 1], [1, 6, 7, 8, 9]]
    assert torch.equal(reverse(turned, torch.tensor([3, 5, 1])), x)


def test_weights_have_the_names_that_torch_gives_them():
    net = nn.GRU(3, 2, num_layers=2, bidirectional=True)
    w_ih, w_hh, b_ih, b_hh = weights_of(net, 1, back=True)
    assert w_ih is net.weight_ih_l1_reverse
    assert w_hh is net.weight_hh_l1_reverse
    assert b_ih is net.bias_ih_l1_reverse
    assert b_hh is net.bias_hh_l1_reverse
    assert weights_of(net)[0] is net.weight_ih_l0


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_packed_is_each_sequence_alone(kind):
    net, x, _ = made(kind, 0, 4, 6, 3, 5, bidirectional=True)
    lengths = torch.tensor([4, 1, 5, 2])  # none as long as the batch
    y, _ = run_packed(net, x, lengths)
    assert y.shape == (4, 6, 10)
    for row, out, n in zip(x, y, lengths):
        close(out[:n], net(row[None, :n])[0][0])
        assert not out[n:].any()


# --- Keras


def keras_says(layer, x, lengths, weights):
    import keras

    mask = there(lengths, x.shape[1])
    with keras.device("cpu"):
        layer.build(x.shape)
        layer.set_weights([v.detach().numpy() for v in weights])
        return layer(x, mask=mask[:, :, 0]).detach() * mask


def test_equals_keras_with_the_same_weights():
    keras = pytest.importorskip("keras")
    net, x, lengths = made(nn.LSTM, 0, 3, 6, 4, 5)
    w_ih, w_hh, b_ih, b_hh = weights_of(net)
    layer = keras.layers.LSTM(5, return_sequences=True)
    theirs = keras_says(layer, x, lengths, (w_ih.T, w_hh.T, b_ih + b_hh))
    close(lstm_layer(x, weights_of(net), lengths)[0], theirs, 1e-5)


def test_the_grus_gates_stand_in_another_order_in_keras():
    keras = pytest.importorskip("keras")
    net, x, lengths = made(nn.GRU, 1, 3, 6, 4, 5)

    def zrh(v):
        r, z, n = v.chunk(3)
        return torch.cat([z, r, n])

    ours = run_packed(net, x, lengths)[0]
    for order, same in ((zrh, True), (lambda v: v, False)):
        w_ih, w_hh, b_ih, b_hh = map(order, weights_of(net))
        layer = keras.layers.GRU(5, return_sequences=True)
        weights = w_ih.T, w_hh.T, torch.stack([b_ih, b_hh])
        off = (keras_says(layer, x, lengths, weights) - ours).abs().max().item()
        assert (off < 1e-5) == same


# --- the start


@pytest.mark.parametrize("both", [False, True])
def test_gate_biases_are_what_was_asked(both):
    with seeded(0):
        net = nn.LSTM(3, 4, 2, bidirectional=both)
    before = {k: v.clone() for k, v in net.named_parameters()}
    assert set_gate_biases(net, 1.5, -2.0) is net
    for layer in range(2):
        for back in (False, True)[: 1 + both]:
            total = sum(weights_of(net, layer, back)[2:])
            assert total[:4].tolist() == [-2.0] * 4
            assert total[4:8].tolist() == [1.5] * 4
    for k, v in net.named_parameters():
        rest = v[8:] if k.startswith("bias") else v
        assert torch.equal(rest, before[k][8:] if k.startswith("bias") else before[k])
    assert sum(weights_of(set_gate_biases(net, 3.0))[2:])[:4].tolist() == [0] * 4


# --- clips


@cases
@given(
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 999),
)
def test_as_sequences_keeps_every_number_and_its_order(B, T, bands, stack, seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, T + 1, B)
    start = rng.integers(0, T - n + 1)
    x = torch.tensor(rng.standard_normal((B, bands, T)))
    t = np.arange(T)
    on = (t >= start[:, None]) & (t < (start + n)[:, None])
    y, lengths = as_sequences(x, torch.tensor(on), stack=stack)
    assert lengths.tolist() == (-(-n // stack)).tolist()
    assert y.shape == (B, lengths.max(), bands * stack)
    for row, seq, a, k in zip(x, y, start, n):
        flat = seq.reshape(-1, bands)
        assert torch.equal(flat[:k], row[:, a : a + k].T)
        assert not flat[k:].any()


def test_two_frames_make_a_step_unless_told_otherwise():
    x, on = torch.arange(12.0).reshape(1, 3, 4), torch.ones(1, 4).bool()
    y, lengths = as_sequences(x, on)
    assert y.tolist() == [[[0, 4, 8, 1, 5, 9], [2, 6, 10, 3, 7, 11]]]
    assert lengths.tolist() == [2]


def test_pool_leaves_the_padding_out():
    h = torch.tensor(
        [
            [[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]],
            [[-5.0, 2.0], [7.0, 7.0], [7.0, 7.0]],
        ]
    )
    pooled = mean_max_pool(h, torch.tensor([2, 1]))
    assert pooled.tolist() == [[2, -3, 3, -2], [-5, 2, -5, 2]]


# --- the classifier


@pytest.mark.parametrize("layers", [2, 3])
def test_classifier_hears_the_sequence_alone(layers):
    with seeded(0):
        net = BiLSTMClassifier(3, 5, 4, layers=layers).eval()
        x, n = torch.randn(6, 8, 3), torch.tensor([8, 1, 5, 3, 8, 2])
    assert net.lstm.num_layers == layers
    y = net(x, n)
    assert y.shape == (6, 4)
    close(net(torch.where(there(n, 8), x, 1e3), n), y)
    close(torch.cat([net(row[None, :k], k[None]) for row, k in zip(x, n)]), y)
    close(net(x.flip(0), n.flip(0)), y.flip(0))
    assert (net(reverse(x, n), n) - y).abs()[n > 1].max() > 1e-3  # order matters


def test_classifier_starts_with_a_memory_and_with_dropout():
    usual = BiLSTMClassifier(3)
    assert (usual.lstm.hidden_size, usual.lstm.num_layers) == (64, 2)
    assert (usual.drop.p, usual.lstm.dropout) == (0.3, 0.3)
    assert usual.quiet.p == pytest.approx(0.06)
    net = BiLSTMClassifier(3, 5, dropout=0.5)
    assert sum(weights_of(net.lstm, 1, back=True)[2:])[5:10].tolist() == [1] * 5
    assert (net.drop.p, net.quiet.p, net.lstm.dropout) == (0.5, 0.1, 0.5)
    assert net.head.out_features == 10
    x, n = torch.randn(4, 6, 3), torch.full((4,), 6)
    assert not torch.equal(net(x, n), net(x, n))
    assert torch.equal(net.eval()(x, n), net(x, n))
    net.train()
    net.drop.p = net.lstm.dropout = 0.0  # what is left hides some of the inputs
    assert not torch.equal(net(x, n), net(x, n))


def clips(B=5, T=12, seed=0):
    "Spectrograms in decibels, each clip somewhere within its row."
    with seeded(seed):
        mel = -60 * torch.rand(B, 20, T) * 0.9
        for row in mel:
            start = int(torch.randint(0, 4, ()))
            row[:, :start] = row[:, start + 4 + int(torch.randint(0, 4, ())) :] = -60
            row[3, start] = -60  # of a clip all the same
            row[:, start + 1] = -59  # silence is not padding
        return mel


def test_listener_stacks_standardised_frames():
    mel, listener = clips(), Listener(hidden=4).eval()
    x, lengths = listener.sequences(mel)
    on = (mel > -60).any(1)
    wanted, n = as_sequences(standardise_mel(mel), on, stack=2)
    assert torch.equal(x, wanted)
    assert torch.equal(lengths, n)
    close(listener(mel), listener.net(x, lengths))
    close(torch.cat([listener(m[None]) for m in mel]), listener(mel))
    assert Listener(stack=3, bands=10).net.lstm.input_size == 30
    assert Listener().net.lstm.hidden_size == 72


def test_training_finds_what_only_order_tells():
    "Rising or falling: the same frames in another order."
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (256,), generator=g)
    up = torch.linspace(-30, -1, 24).expand(256, 20, 24)
    mel = torch.where(y[:, None, None] == 1, up, up.flip(2)).contiguous()
    with seeded(0):
        model = Listener(hidden=8)
    assert train_listener(model, (mel, y), epochs=6) is model
    assert (model(mel).argmax(1) == y).double().mean() > 0.95


def test_training_repeats_with_its_seed_and_uses_its_augmentation():
    mel, y, seen = clips(40), torch.arange(40) % 10, []

    def trained(seed, augment=None):
        with seeded(0):
            model = Listener(hidden=3)
        return train_listener(model, (mel, y), epochs=1, seed=seed, augment=augment)(
            mel
        )

    def louder(x, generator):
        seen.append((len(x), generator))
        return x

    first = trained(0)
    assert torch.equal(trained(0), first)
    assert not torch.equal(trained(1), first)
    trained(0, louder)
    assert sum(n for n, _ in seen) == 40
    assert isinstance(seen[0][1], torch.Generator)


def test_the_recipe_is_the_shipped_networks_own(monkeypatch):
    seen = {}
    monkeypatch.setattr("mmcourse.lstm.fit", lambda *args, **more: seen.update(more))
    train_listener(None, None, epochs=3, seed=4)
    assert seen["seed"] == 4
    train_listener(None, None, epochs=3)
    loss, schedule = seen.pop("loss"), seen.pop("schedule")
    recipe = {"lr": 4e-3, "weight_decay": 0.05, "clip": 1.0, "augment": None}
    assert seen == recipe | {"epochs": 3, "seed": 0}
    assert schedule(0, 100) == 0.1 and schedule(9, 100) == 1  # warm-up
    logits, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    p = logits.log_softmax(1)[0]
    assert loss(logits, y).item() == pytest.approx(-(0.95 * p[0] + 0.05 * p[1]).item())


def test_trace_is_the_layer_with_its_gates():
    net, x, _ = made(nn.LSTM, 3, 1, 9, 3, 4)
    seen = trace(x[0], weights_of(net))
    close(seen["h"], lstm_layer(x, weights_of(net), torch.tensor([9]))[0][0])
    assert set(seen) == set("ifgoch")
    assert all(v.shape == (9, 4) for v in seen.values())
    before = torch.cat([torch.zeros(1, 4), seen["c"][:-1]])
    close(seen["c"], seen["f"] * before + seen["i"] * seen["g"])
    close(seen["h"], seen["o"] * seen["c"].tanh())
    h = torch.cat([torch.zeros(1, 4), seen["h"][:-1]])
    close(
        torch.stack(gates(x[0], h, weights_of(net))),
        torch.stack([seen[k] for k in "ifgo"]),
    )
