"Compression: by hand, by law, and as torch and ONNX Runtime do it."

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.compress import (
    LAYERS,
    Rounding,
    ThreeInputs,
    affine_grid,
    calibrated,
    choose_sureness,
    distillation_loss,
    drop_channels,
    exit_answers,
    first_sure,
    fold_norm,
    fold_norms,
    from_grid,
    integer_linear,
    keep_zeros,
    low_rank,
    low_rank_pair,
    median_seconds,
    multiply_adds,
    onnx_runner,
    prune_smallest,
    sparse_bytes,
    stored_bytes,
    strongest,
    swapped,
    to_grid,
    to_onnx,
    weight_codes,
    weight_step,
)
from mmcourse.compress_tools import (
    dynamic_of_torch,
    input_moments,
    onnx_int8,
    pace_word,
    slim_channels,
    slim_model,
    spread,
    thinner,
    timed_rounds,
)
from mmcourse.measure import seeded
from mmcourse.missing import joint_model
from mmcourse.training import count_parameters, fit


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fused(seed=0):
    "A joint model whose norms have something to fold."
    with seeded(seed):
        model = joint_model(20)
        for norm in model.modules():
            if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                nn.init.uniform_(norm.weight, 0.5, 2)
                nn.init.normal_(norm.bias)
    return model.eval().requires_grad_(False)


def batch(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 21, (n, 9), generator=g)
    image = torch.randn(n, 1, 28, 28, generator=g)
    audio = 20 * torch.randn(n, 20, 51, generator=g) - 40
    return {"text": ids, "image": image, "audio": audio}


# counting
def test_products_by_hand():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)
    )
    x = draw(1, 1, 6, 6)
    assert multiply_adds(net, x) == 4 * 9 * 9 + 36 * 5
    assert not any(m._forward_hooks for m in net.modules())


def test_bytes_by_hand():
    w = torch.tensor([[0.0, 1, 0, 2, 0, 0, 0, 3]])
    state = {"w": w, "b": torch.zeros(3)}
    assert stored_bytes(state) == 4 * 11
    assert sparse_bytes(state) == 3 * 2 + 1 + 3 * 2


def test_the_clock_leaves_out_what_comes_first():
    calls = []
    runs = {n: lambda n=n: calls.append(n) for n in "ab"}
    found = median_seconds(runs, repeats=5, warm=2)
    assert "".join(calls) == 7 * "ab"  # in turns
    assert set(found) == {"a", "b"} and min(found.values()) >= 0


def test_slower_is_said_only_of_rounds_that_are_apart():
    assert pace_word([3, 4, 9], [1, 2]) == "slower"
    assert pace_word([1, 2], [3, 4, 9]) == "faster"
    assert pace_word([1, 3], [2, 4]) == pace_word([1, 2], [2, 3]) == ""
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    found = timed_rounds({"a": int, "b": int}, rounds=3)
    assert [len(t) for t in found.values()] == [3, 3]


def test_swapping_leaves_the_original_alone():
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 2)))
    names = []
    new = swapped(net, lambda name, layer: names.append(name) or nn.Identity())
    assert names == ["0", "1.0"]
    assert isinstance(net[0], nn.Linear) and isinstance(new[1][0], nn.Identity)


# folding
@given(st.sampled_from([1, 2]), st.booleans(), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_folding_is_torchs(dims, bias, seed):
    kind, norm_kind = [(nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d)][
        dims - 1
    ]
    with seeded(seed):
        conv, norm = kind(3, 5, 3, padding=1, bias=bias).eval(), norm_kind(5).eval()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 3)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    new = fold_norm(conv, norm)
    theirs = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    torch.testing.assert_close(new.weight, theirs.weight)
    torch.testing.assert_close(new.bias, theirs.bias)
    x = draw(2, 3, *[7] * dims, seed=seed)
    torch.testing.assert_close(new(x), norm(conv(x)), atol=1e-5, rtol=1e-4)


def test_a_whole_model_folds_to_the_same_function():
    model, x = fused(), (batch(), {})
    new = fold_norms(model)
    torch.testing.assert_close(new(x), model(x), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in new.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


# grids
def test_a_grid_by_hand():
    s, z = affine_grid(torch.tensor(-1.0), torch.tensor(1.55))
    assert s.item() == pytest.approx(0.01) and z.item() == 100
    x = torch.tensor([-2.0, -1.0, 0.0, 0.0151, 1.55, 9.0])
    q = to_grid(x, s, z, 0, 255)
    assert q.tolist() == [0, 0, 100, 102, 255, 255]
    assert from_grid(q, s, z)[2] == 0


@given(st.floats(-5, 5), st.floats(0, 9), st.sampled_from([15, 127, 255]))
@settings(max_examples=50, deadline=None)
def test_zero_is_a_point_and_nothing_inside_is_far(low, width, levels):
    ends = torch.tensor([low, low + width])
    s, z = affine_grid(*ends, levels)
    assert 0 <= z <= levels and z == z.round()
    x = torch.linspace(*ends.tolist(), 50)
    back = from_grid(to_grid(x, s, z, 0, levels), s, z)
    assert (back - x).abs().max() <= s * 1.01 + 1e-6
    assert from_grid(to_grid(torch.zeros(1), s, z, 0, levels), s, z) == 0


@given(st.integers(2, 8), st.booleans(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_weights_keep_their_largest(bits, rows, seed):
    w = draw(4, 3, 5, seed=seed) * torch.tensor([1.0, 0.1, 10, 0.01]).view(4, 1, 1)
    s = weight_step(w, bits, rows)
    codes = weight_codes(w, s, bits)
    top = codes.abs().flatten(1).amax(1)
    most = 2 ** (bits - 1) - 1
    assert codes.abs().max() == most
    assert (top == most).all() or not rows
    assert (from_grid(codes, s, 0) - w).abs().max() <= s.max() / 2 * 1.001


@given(st.booleans(), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_codes_are_torchs(rows, seed):
    w = draw(6, 40, seed=seed)
    s = weight_step(w, rows=rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if rows:
            zeros = torch.zeros(6, dtype=torch.long)
            q = torch.quantize_per_channel(w, s.flatten(), zeros, 0, torch.qint8)
        else:
            q = torch.quantize_per_tensor(w, s.item(), 0, torch.qint8)
    assert torch.equal(q.int_repr().float(), weight_codes(w, s))


@given(st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_whole_numbers_are_torchs_dynamic_int8(seed):
    with seeded(seed):
        layer = nn.Linear(30, 7).requires_grad_(False)
    x = draw(9, 30, seed=seed)
    theirs = dynamic_of_torch(nn.Sequential(layer))
    packed = theirs[0].weight()
    t = torch.tensor(packed.q_scale())
    assert t.item() == pytest.approx(layer.weight.abs().max().item() / 127.5)
    ours = integer_linear(x, packed.int_repr(), t, layer.bias, levels=127)
    torch.testing.assert_close(ours, theirs(x), atol=1e-5, rtol=1e-5)


def test_simulated_rounding_says_what_whole_numbers_say():
    with seeded(0):
        layer = nn.Linear(30, 7).requires_grad_(False)
    x = draw(9, 30)
    s = weight_step(layer.weight)
    exact = integer_linear(x, weight_codes(layer.weight, s), s, layer.bias)
    torch.testing.assert_close(Rounding(layer)(x), exact, atol=1e-5, rtol=1e-5)


def test_a_static_range_does_not_move():
    with seeded(0):
        net = nn.Sequential(nn.Linear(4, 3)).requires_grad_(False)
    new = swapped(net, lambda _, layer: Rounding(layer, static=True))
    inside = torch.tensor([[-1.0, 0, 0, 2]])
    calibrated(new, inside)
    assert (new[0].low, new[0].high) == (-1, 2)
    torch.testing.assert_close(new(5 * inside), new(inside))  # cut off
    other = torch.cat([inside, 100 * inside])
    torch.testing.assert_close(new(other)[:1], new(inside))
    assert not new[0].watching


def test_a_dynamic_range_does_and_gradients_pass():
    with seeded(0):
        layer = nn.Linear(4, 3).requires_grad_(False)
    new, x = Rounding(layer), draw(2, 4).requires_grad_()
    torch.testing.assert_close(new(5 * x) - layer.bias, 5 * (new(x) - layer.bias))
    g = torch.autograd.grad(new(x).sum(), x)[0]
    torch.testing.assert_close(g, new.layer.weight.sum(0).expand(2, 4))


def test_words_are_not_rounded():
    with seeded(0):
        new = Rounding(nn.Embedding(5, 3))
    ids = torch.tensor([[1, 4]])
    assert torch.equal(new(ids), new.layer(ids))


# pruning
@given(st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_pruning_is_torchs(share, seed):
    import torch.nn.utils.prune as torch_prune

    with seeded(seed):
        net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    theirs = copy.deepcopy(net)
    layers = [(theirs[0], "weight"), (theirs[2], "weight")]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=share)
    new = prune_smallest(net, share)
    for i in (0, 2):
        assert torch.equal(new[i].weight, theirs[i].weight)


def test_the_control_takes_as_many():
    with seeded(0):
        net = nn.Linear(20, 30)
        new = prune_smallest(nn.Sequential(net), 0.7, at_random=True)[0]
    assert (new.weight == 0).sum() == 420
    gone = net.weight[new.weight == 0].abs().mean()
    assert gone > 0.8 * net.weight.abs().mean()  # not the small ones


def test_zeros_stay_in_training_and_the_rest_moves():
    with seeded(0):
        net = prune_smallest(nn.Sequential(nn.Linear(6, 3)), 0.5)
    zero = net[0].weight.detach() == 0
    before = net[0].weight.detach().clone()
    y = torch.arange(40) % 3
    how = {"epochs": 2, "lr": 1e-2, "weight_decay": 0.1}
    fit(net, (draw(40, 6), y), optimizer=keep_zeros(net), **how)
    assert (net[0].weight[zero] == 0).all()
    assert (net[0].weight[~zero] != before[~zero]).all()


# channels
def test_the_strongest_are_the_longest():
    w = torch.tensor([[1.0, 1], [0, 1.5], [-3, 0]])
    layer = nn.Linear(2, 3)
    layer.weight.data = w
    assert strongest(layer, 2).tolist() == [False, True, True]
    words = nn.Embedding(2, 3)
    words.weight.data = w.T.clone()
    assert strongest(words, 1).tolist() == [False, False, True]


def test_what_stays_computes_what_it_did():
    with seeded(0):
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 5)
        ).requires_grad_(False)
    keep, x = strongest(net[0], 4), draw(3, 1, 4, 4)
    zeroed = copy.deepcopy(net)
    zeroed[0].weight[~keep] = 0
    zeroed[0].bias[~keep] = 0
    drop_channels(net[0], net[3], keep, torch.arange(24).view(6, 4))
    torch.testing.assert_close(net(x), zeroed(x))
    assert (net[0].out_channels, net[3].in_features) == (4, 16)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_a_slim_model_answers_with_views_missing(share):
    model, x = fused(), batch()
    slim = slim_channels(model, share)
    here = {"audio": torch.tensor([True, False] * 3)}
    y = slim((x, here))
    assert y.shape == (6, 10) and y.isfinite().all()
    if share == 1:
        torch.testing.assert_close(y, model((x, here)), atol=1e-4, rtol=1e-4)
    fresh = slim_model(20, share)
    norms = [
        m for m in fresh.modules() if isinstance(m, nn.modules.batchnorm._NormBase)
    ]
    extra = sum(count_parameters(m) for m in norms)
    # folded convolutions have a bias for each norm; two of the five had one before
    biases = sum(
        m.bias.numel()
        for m in slim.modules()
        if isinstance(m, nn.Conv1d) and m.bias is not None
    )
    have = count_parameters(slim, trainable=False)
    assert have - biases == count_parameters(fresh) - extra


# thin layers
@given(st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_best_rank(rank, seed):
    w = draw(5, 8, seed=seed)
    A, B = low_rank(w, rank)
    assert A.shape == (5, rank) and B.shape == (rank, 8)
    left = torch.linalg.svdvals(w)[rank:].square().sum()
    assert (w - A @ B).square().sum().item() == pytest.approx(left.item(), abs=1e-4)


@given(st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_knowing_the_inputs_helps_on_them(rank, seed):
    w = draw(5, 8, seed=seed).double()
    x = (draw(60, 8, seed=seed + 1) * torch.linspace(0.1, 3, 8)).double()
    moment = x.T @ x / 60
    errors = [
        (x @ (w - A @ B).T).square().sum()
        for A, B in (low_rank(w, rank), low_rank(w, rank, moment))
    ]
    assert errors[1] <= errors[0] * (1 + 1e-6)
    L = torch.linalg.cholesky(moment)
    left = 60 * torch.linalg.svdvals(w @ L)[rank:].square().sum()
    assert errors[1].item() == pytest.approx(left.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(6, 4), draw(3, 6)),
        (nn.Linear(6, 4, bias=False), draw(3, 6)),
        (nn.Conv1d(3, 4, 5, 2, 2), draw(2, 3, 11)),
        (nn.Conv2d(2, 5, 3, 2, 1, bias=False), draw(2, 2, 9, 9)),
        (nn.Embedding(7, 4, padding_idx=0), torch.tensor([[0, 3, 6]])),
    ],
    ids=lambda v: type(v).__name__,
)
def test_two_layers_of_full_rank_are_the_layer(layer, x, monkeypatch):
    import mmcourse.compress as module

    w = layer.weight.T if isinstance(layer, nn.Embedding) else layer.weight.flatten(1)
    m, n = w.shape
    monkeypatch.setattr(
        module, "number", lambda *a: 1.0001 * (m + n) * min(m, n) / (m * n)
    )
    pair = low_rank_pair(layer, 1.0)
    torch.testing.assert_close(pair(x), layer(x), atol=1e-5, rtol=1e-4)


def test_thin_layers_are_smaller():
    layer = nn.Linear(1568, 64)
    pair = low_rank_pair(layer, 0.25)
    assert pair[0].weight.shape == (15, 1568)
    assert count_parameters(pair) - 64 <= 0.25 * 64 * 1568
    model, x = fused(), (batch(), {})
    moments = input_moments(model, x)
    assert moments["encoders.image.body.8"].shape == (1568, 1568)
    thin = thinner(model, 0.5, moments)
    assert thin(x).shape == (6, 10)
    assert count_parameters(thin, False) < 0.6 * count_parameters(model, False)


def test_moments_are_of_what_the_matrix_meets():
    with seeded(0):
        net = nn.Sequential(nn.Conv1d(16, 64, 5, padding=2)).requires_grad_(False)
    x = draw(2, 16, 9)
    c = F.pad(x, (2, 2)).unfold(2, 5, 1)  # (B, 16, 9, 5)
    c = c.permute(0, 2, 1, 3).reshape(-1, 80)
    moment = input_moments(net, x)["0"]
    want = (c.T @ c / len(c)).double()
    torch.testing.assert_close(moment, want, atol=1e-5, rtol=1e-4)


# a teacher
def test_distillation_by_hand():
    z, t = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]])
    p = 1 / (1 + torch.e**-1)  # of the teacher's first, at T = 2
    soft = -(p * torch.tensor(1 - p).log() + (1 - p) * torch.tensor(p).log())
    hard = torch.tensor(1 + torch.e**2).log()
    loss = distillation_loss(z, (t, torch.tensor([0])), T=2, alpha=0.25)
    assert loss.item() == pytest.approx(
        (0.25 * hard + 0.75 * 4 * soft).item(), rel=1e-5
    )


def test_a_student_that_agrees_has_no_gradient():
    z = draw(5, 4).requires_grad_()
    y = torch.full((5,), -1)
    loss = distillation_loss(z, (z.detach() + 3, y), T=3, alpha=0)
    assert torch.autograd.grad(loss, z)[0].abs().max() < 1e-6


def test_labels_that_are_not_there_do_not_count():
    z, t, y = draw(4, 3), draw(4, 3, seed=1), torch.tensor([0, 2, -1, -1])
    loss = distillation_loss(z, (t, y), T=1, alpha=1)
    torch.testing.assert_close(loss, F.cross_entropy(z[:2], y[:2]))
    none = distillation_loss(z, (t, torch.full((4,), -1)), T=1, alpha=0.5)
    soft = F.cross_entropy(z, t.softmax(1))
    torch.testing.assert_close(none, 0.5 * soft)


@pytest.mark.parametrize("T", [1.0, 50.0])
def test_at_high_temperature_logits_are_matched(T):
    z, t = draw(1, 6).requires_grad_(), draw(1, 6, seed=1)
    loss = distillation_loss(z, (t, torch.tensor([0])), T=T, alpha=0)
    g = torch.autograd.grad(loss, z)[0]
    centred = (z - z.mean() - t + t.mean()).detach() / 6
    assert torch.allclose(g, centred, atol=0.02) == (T == 50)


# leaving early
def test_who_leaves_when_by_hand():
    p = torch.tensor([[[0.9, 0.1], [0.6, 0.4]], [[0.2, 0.8], [0.3, 0.7]]])
    assert first_sure(p, 0.9).tolist() == [0, 1]
    assert first_sure(p, 0.95).tolist() == [1, 1]
    assert exit_answers(p, torch.tensor([0, 1])).tolist() == [0, 1]


def test_sureness_is_as_low_as_allowed():
    g = torch.Generator().manual_seed(0)
    p = (3 * torch.randn(3, 200, 4, generator=g)).softmax(2)
    y = p[-1].argmax(1)

    def keeps(sure):
        return (exit_answers(p, first_sure(p, sure)) == y).float().mean()

    chosen = choose_sureness(p, y, loss=0.05)
    assert keeps(chosen) >= 0.95 > keeps(chosen - 0.02)
    assert choose_sureness(p, y, loss=1.0) == pytest.approx(0.3)


# ONNX
def test_the_graph_says_what_the_model_says():
    pytest.importorskip("onnxruntime")
    model, x = fused(), batch(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = to_onnx(ThreeInputs(model), {m: v[:1] for m, v in x.items()})
    ask = onnx_runner(graph)
    for n, length in ((1, 9), (5, 9), (3, 4)):
        some = {m: v[:n] for m, v in x.items()}
        some["text"] = some["text"][:, :length]
        torch.testing.assert_close(ask(some), model((some, {})), atol=1e-4, rtol=0)


def test_onnx_int8_is_small_and_near():
    pytest.importorskip("onnxruntime")
    model, x = fold_norms(fused()), batch(64)
    graph = to_onnx(ThreeInputs(model), {m: v[:1] for m, v in x.items()})
    small = onnx_int8(graph, x)
    assert len(small) < 0.5 * len(graph)
    says, exact = onnx_runner(small)(x), model((x, {}))
    assert (says - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: weight_step(draw(2, 2), 1), "bits"),
        (lambda: weight_step(draw(2, 2), 9), "bits"),
        (lambda: prune_smallest(nn.Linear(2, 2), 1.5), "share"),
        (lambda: low_rank_pair(nn.Linear(2, 2), -1), "share"),
        (lambda: strongest(nn.Linear(2, 3), 4), "n:"),
        (lambda: strongest(nn.Linear(2, 3), 0), "n:"),
        (lambda: median_seconds({}, repeats=0), "repeats"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_all_kinds_of_layers_are_known():
    assert {type(m) for m in fused().modules()} & set(LAYERS) == set(LAYERS)
