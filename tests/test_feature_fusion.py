"The laws of all fusions over random names, widths, masks and seeds; tensor fusion against the literal form; bad input; what the digits promise."

import json
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from mmcourse.feature_fusion import (
    FUSIONS,
    AttentionFusion,
    BottleneckFusion,
    ConcatFusion,
    FusionClassifier,
    GatedFusion,
    LowRankFusion,
    TensorFusion,
    concat_inputs,
    concat_model,
    digit_views,
    extended,
    extra_memory,
    full_rank,
    modality_dropout,
    train_digits,
    without_each,
)
from mmcourse.training import isolated, read_tensors, write_tensors

torch.set_num_threads(1)
few = settings(max_examples=25, deadline=None)
every = pytest.mark.parametrize("make", FUSIONS.values(), ids=FUSIONS)
token_wise = pytest.mark.parametrize("make", [AttentionFusion, BottleneckFusion])
vector_wise = pytest.mark.parametrize(
    "make", [ConcatFusion, GatedFusion, TensorFusion, LowRankFusion]
)
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
# names that a ModuleDict would refuse are names too
dims_ = st.dictionaries(
    st.sampled_from(["text", "image", "audio", "a.b", "keys", "type", ""]),
    st.integers(1, 6),
    min_size=1,
    max_size=4,
)
seeds = st.integers(0, 2**31 - 1)


def made(make, dims, out=3, B=5, seed=0):
    "A fusion, features, a mask with gaps."
    with isolated(seed):
        return (
            make(dims, out),
            {m: torch.randn(B, d) for m, d in dims.items()},
            {m: torch.rand(B) < 0.6 for m in dims},
        )


# --- laws


@every
@few
@given(dims_, st.integers(1, 5), st.integers(1, 5), seeds)
def test_shape_rows_and_order_of_keys(make, dims, out, B, seed):
    f, x, mask = made(make, dims, out, B, seed)
    with torch.no_grad():
        y = f(x, mask)
        assert y.shape == (B, out) and y.isfinite().all()
        backwards = lambda d: dict(reversed(d.items()))
        assert torch.equal(f(backwards(x), backwards(mask)), y)
        assert f.state_dict().keys() == make(backwards(dims), out).state_dict().keys()
        rows = torch.randperm(B)
        close(
            f(
                {m: t[rows] for m, t in x.items()},
                {m: h[rows] for m, h in mask.items()},
            ),
            y[rows],
        )
        close(
            torch.cat(
                [
                    f(
                        {m: t[i : i + 1] for m, t in x.items()},
                        {m: h[i : i + 1] for m, h in mask.items()},
                    )
                    for i in range(B)
                ]
            ),
            y,
        )


@every
@few
@given(dims_, seeds, st.sampled_from([float("nan"), float("inf"), -1e30, 7.0]))
def test_what_is_masked_cannot_matter(make, dims, seed, junk):
    f, x, mask = made(make, dims, seed=seed)
    ruined = {
        m: torch.where(mask[m][:, None], t, junk).requires_grad_() for m, t in x.items()
    }
    y = f(ruined, mask)
    assert torch.equal(y, f(x, mask))
    y.square().sum().backward()
    for t in (*f.parameters(), *ruined.values()):
        assert t.grad.isfinite().all()
    for m, t in ruined.items():
        assert not t.grad[~mask[m]].any()


@every
@few
@given(dims_.filter(lambda d: len(d) > 1), seeds)
def test_absent_is_masked(make, dims, seed):
    f, x, mask = made(make, dims, seed=seed)
    gone = sorted(dims)[seed % len(dims)]
    rest = {m: t for m, t in x.items() if m != gone}
    y = f(x, mask | {gone: torch.zeros(5, dtype=torch.bool)})
    assert torch.equal(
        f(rest, {m: h for m, h in mask.items() if m != gone}), y
    ) and torch.equal(f(rest, mask), y)


@every
def test_what_is_there_does_matter(make):
    f, x, mask = made(make, {"a": 3, "b": 4, "c": 2})
    none = {m: torch.zeros(5, dtype=torch.bool) for m in x}
    empty = f(x, none)
    close(empty, empty[:1].expand(5, -1))  # nothing is known: one answer for all
    for m in x:
        assert (f(x | {m: -x[m]}) - f(x)).abs().max() > 1e-3
        assert (f(x, {m: none[m]}) - f(x)).abs().max() > 1e-3
        assert (f({m: torch.zeros_like(x[m])}) - empty).abs().max() > 1e-4 or make in (
            TensorFusion,
            LowRankFusion,
        )  # zeros are not the same as nothing


@every
@few
@given(dims_, seeds, st.sampled_from([torch.optim.SGD, torch.optim.Adam]))
def test_every_weight_moves_in_one_step(make, dims, seed, optimizer):
    f, x, _ = made(make, dims, seed=seed)
    held = dict(f.named_parameters())
    assert held.keys() == f.state_dict().keys() and held
    before = {k: p.detach().clone() for k, p in held.items()}
    (
        f(x) * torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    ).sum().backward()
    optimizer(f.parameters(), lr=1e-1).step()
    for k, p in held.items():
        assert not torch.equal(p, before[k]), k


@every
def test_safetensors_round_trip(make, tmp_path):
    f, x, mask = made(make, {"a": 3, "b": 4})
    g, *_ = made(make, {"b": 4, "a": 3}, seed=1)
    assert not torch.equal(g(x, mask), f(x, mask))
    g.load_state_dict(load(save(f.state_dict())))
    assert torch.equal(g(x, mask), f(x, mask))
    write_tensors(tmp_path / "f.safetensors", f.state_dict(), {})
    h, *_ = made(make, {"a": 3, "b": 4}, seed=2)
    h.load_state_dict(read_tensors(tmp_path / "f.safetensors")[0])
    assert torch.equal(h(x, mask), f(x, mask))


@every
def test_gradients_are_those_of_the_function(make):
    f, x, mask = made(make, {"a": 2, "b": 3}, out=2, B=3)
    f, x = f.double(), {m: t.double().requires_grad_() for m, t in x.items()}
    assert torch.autograd.gradcheck(
        lambda a, b: f({"a": a, "b": b}, mask), (x["a"], x["b"])
    )


@token_wise
@few
@given(st.integers(1, 4), st.integers(1, 4), seeds)
def test_tokens(make, T, S, seed):
    with isolated(seed):
        f = make({"a": 3, "b": 2}, 4)
        x, pad = (
            {"a": torch.randn(5, T, 3), "b": torch.randn(5, S, 2)},
            torch.randn(5, 2, 3),
        )
    y = f(x)
    close(
        f({m: t[:, torch.randperm(t.shape[1])] for m, t in x.items()}), y
    )  # a set of tokens
    here = torch.cat(
        [torch.ones(5, T, dtype=torch.bool), torch.zeros(5, 2, dtype=torch.bool)], 1
    )
    close(
        f(x | {"a": torch.cat([x["a"], pad * torch.nan], 1)}, {"a": here}), y
    )  # padding is not there
    close(
        f({"a": x["a"][:, 0], "b": x["b"]}), f({"a": x["a"][:, :1], "b": x["b"]})
    )  # a vector is one token
    close(f(x, {"a": torch.zeros(5, T, dtype=torch.bool)}), f({"b": x["b"]}))


@every
def test_it_is_on_any_floats(make):
    f, x, mask = made(make, {"a": 3, "b": 4})
    close(
        f.double()({m: t.double() for m, t in x.items()}, mask).float(),
        f.float()(x, mask),
    )


# --- what each is


@few
@given(dims_, st.integers(1, 5), seeds)
def test_tensor_is_the_literal_form(dims, out, seed):
    f, x, mask = made(TensorFusion, dims, out, seed=seed)
    p = torch.ones(5, 1)
    for m in sorted(dims):
        p = torch.einsum(
            "bi,bj->bij", p, extended(torch.where(mask[m][:, None], x[m], 0.0))
        ).flatten(1)
    close(f(x, mask), p @ f.weight.flatten(0, -2))


@few
@given(
    dims_.filter(lambda d: np.prod([n + 1 for n in d.values()]) < 400),
    st.integers(1, 4),
    seeds,
)
def test_low_rank_of_full_rank_is_tensor(dims, out, seed):
    f, x, mask = made(TensorFusion, dims, out, seed=seed)
    torch.testing.assert_close(full_rank(f)(x, mask), f(x, mask), atol=1e-4, rtol=1e-4)


def test_tensor_needs_little_memory_and_the_gradients_of_the_literal_form():
    f, x, _ = made(TensorFusion, dict.fromkeys("abc", 32), 16, 32)
    x = {m: t.requires_grad_() for m, t in x.items()}
    literal = lambda: (
        torch.einsum("bi,bj,bk->bijk", *[extended(t) for t in x.values()]).flatten(1)
        @ f.weight.flatten(0, -2)
    )
    found = []
    for form in (lambda: f(x), literal):
        f.weight.grad = None
        for t in x.values():
            t.grad = None
        memory = extra_memory(lambda: form().square().sum().backward())
        found.append((memory, [f.weight.grad, *[t.grad for t in x.values()]]))
    for a, b in zip(found[0][1], found[1][1]):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)
    assert found[0][0] < found[1][0] / 10
    assert found[1][0] > 32 * 33**3 * 4  # the measure sees the tensor of products


def test_the_split_is_the_smallest():
    f = TensorFusion({"a": 64, "b": 64, "c": 64}, 32)
    assert f.first == 2
    assert (
        TensorFusion(dict.fromkeys("abcd", 7), 1).first in (2, 3)
        and TensorFusion({"a": 5}, 2).first == 1
    )


def test_gates_are_shut_where_nothing_is():
    f, x, mask = made(GatedFusion, {"a": 3, "b": 4, "c": 2})
    z = f.gates(x, mask)
    here = torch.stack([mask[m] for m in sorted(mask)], 1)
    assert (z[here] > 0).all() and (z[here] < 1).all() and not z[~here].any()


def test_concat_is_a_linear_layer_on_everything():
    f, x, mask = made(ConcatFusion, {"a": 3, "b": 4})
    w, parts = f.linear.weight, []
    for m in "ab":
        parts += [torch.where(mask[m][:, None], x[m], 0), mask[m][:, None].float()]
    close(f(x, mask), torch.cat(parts, 1) @ w.T + f.linear.bias)


# --- what callers get wrong


@every
@pytest.mark.parametrize(
    "dims,out,says",
    [
        ({}, 2, "dims: expected"),
        ([3, 4], 2, "dims: expected"),
        ({"a": 0}, 2, "dims\\['a'\\]: expected"),
        ({"a": 2.5}, 2, "dims\\['a'\\]"),
        ({1: 2}, 2, "dims: expected"),
        ({"a": 2}, 0, "out: expected"),
        ({"a": 2}, True, "out: expected"),
    ],
)
def test_bad_sizes(make, dims, out, says):
    with pytest.raises(ValueError, match=says):
        make(dims, out)


X = {"a": torch.ones(4, 3), "b": torch.ones(4, 2)}
BAD = [
    ({}, None, ValueError, "features: expected at least one"),
    (None, None, TypeError, "features: expected a dict"),
    (X | {"voice": X["a"]}, None, ValueError, "features: .*'voice'"),
    (
        X | {"a": X["a"].numpy()},
        None,
        TypeError,
        r"features\['a'\]: expected a tensor of floats",
    ),
    (
        X | {"a": X["a"].long()},
        None,
        TypeError,
        r"features\['a'\]: expected a tensor of floats",
    ),
    (
        X | {"a": torch.ones(4, 5)},
        None,
        ValueError,
        r"features\['a'\]: expected \(4, 3\).*got \(4, 5\)",
    ),
    (
        X | {"a": torch.ones(5, 3)},
        None,
        ValueError,
        "features: expected as many rows in each, got {'a': 5, 'b': 4}",
    ),
    (X | {"a": torch.ones(())}, None, ValueError, r"features\['a'\]: expected"),
    (
        X | {"a": X["a"].double()},
        None,
        ValueError,
        r"features\['a'\]: expected torch.float32",
    ),
    (X, {"voice": torch.ones(4, dtype=torch.bool)}, ValueError, "mask: .*'voice'"),
    (X, [True] * 4, TypeError, "mask: expected a dict"),
    (X, {"a": torch.ones(4)}, TypeError, r"mask\['a'\]: expected a tensor of bool"),
    (
        X,
        {"a": torch.ones(3, dtype=torch.bool)},
        ValueError,
        r"mask\['a'\]: expected \(4,\)",
    ),
    (
        X,
        {"a": torch.ones(4, 1, 1, dtype=torch.bool)},
        ValueError,
        r"mask\['a'\]: expected",
    ),
]


@every
@pytest.mark.parametrize("features,mask,error,says", BAD)
def test_bad_calls(make, features, mask, error, says):
    with pytest.raises(error, match=says):
        make({"a": 3, "b": 2}, 2)(features, mask)


@vector_wise
def test_tokens_where_none_are_wanted(make):
    with pytest.raises(
        ValueError, match=r"features\['a'\]: expected \(4, 3\), got \(4, 2, 3\)"
    ):
        make({"a": 3, "b": 2}, 2)(X | {"a": torch.ones(4, 2, 3)})


@every
def test_an_empty_batch_is_one(make):
    assert make({"a": 3, "b": 2}, 2)({m: t[:0] for m, t in X.items()}).shape == (0, 2)


# --- dropping modalities


@few
@given(st.floats(0, 1), seeds)
def test_dropout_never_adds_and_never_takes_the_last(p, seed):
    g = torch.Generator().manual_seed(seed)
    mask = {m: torch.rand(200, generator=g) < 0.6 for m in "abc"}
    kept = modality_dropout(mask, p, g)
    before, after = (torch.stack([d[m] for m in "abc"], 1) for d in (mask, kept))
    assert not (after & ~before).any() and torch.equal(after.any(1), before.any(1))
    if p == 0:
        assert torch.equal(after, before)
    if p == 1:
        assert torch.equal(after.sum(1), before.any(1).long())


def test_dropout_takes_each_with_its_chance():
    kept = modality_dropout(
        {m: torch.ones(40_000, dtype=torch.bool) for m in "ab"},
        0.3,
        torch.Generator().manual_seed(0),
    )
    a, b = kept["a"], kept["b"]
    assert (
        abs((a & b).float().mean() - 0.49) < 0.01
        and abs(a.float().mean() - b.float().mean()) < 0.01
    )
    again = modality_dropout(
        {m: torch.ones(40_000, dtype=torch.bool) for m in "ba"},
        0.3,
        torch.Generator().manual_seed(0),
    )
    assert torch.equal(again["a"], a)


@pytest.mark.parametrize(
    "mask,p,error",
    [
        ({}, 0.5, TypeError),
        ({"a": torch.ones(3)}, 0.5, TypeError),
        ([1], 0.5, TypeError),
        ({"a": torch.ones(3, dtype=torch.bool)}, 1.5, ValueError),
        ({"a": torch.ones(3, dtype=torch.bool)}, None, ValueError),
    ],
)
def test_bad_dropout(mask, p, error):
    with pytest.raises(error, match="^(mask|p): expected"):
        modality_dropout(mask, p)


# --- networks


@every
def test_nan_stays_out_of_encoders_too(make):
    with isolated(0):
        net = FusionClassifier(
            {"a": nn.Linear(3, 4), "b": nn.Linear(2, 5)},
            make({"a": 4, "b": 5}, 6),
            nn.Linear(6, 10),
        )
    mask = {
        "a": torch.tensor([True, False, True, False]),
        "b": torch.tensor([True, True, False, False]),
    }
    x = {m: torch.where(mask[m][:, None], t, torch.nan) for m, t in X.items()}
    y = net((x, mask))
    close(y, net((X, mask)))
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_encoders_must_match():
    with pytest.raises(ValueError, match="encoders: expected one for each of"):
        FusionClassifier({"a": nn.Identity()}, ConcatFusion({"a": 4, "b": 5}, 6))


def test_views_are_the_digit_and_splits_are_apart():
    from sklearn.datasets import load_digits

    (((x, mask), y), ((x_test, _), y_test)), (((v, _), y_v), ((v_test, _), _)) = (
        digit_views(3),
        digit_views(3, "valid"),
    )
    assert (len(y), len(y_test), len(v_test["top"])) == (1437, 360, 288) and all(
        h.all() for h in mask.values()
    )
    whole = lambda d: torch.cat([d[m] for m in ("top", "middle", "bottom")], 1)
    rows = lambda d: {tuple(r) for r in whole(d).mul(16).round().int().tolist()}
    assert rows(x) | rows(x_test) == {
        tuple(r) for r in load_digits().data.astype(int).tolist()
    }
    assert (
        not rows(x) & rows(x_test)
        and not rows(v) & rows(v_test)
        and not rows(x_test) & (rows(v) | rows(v_test))
    )
    assert abs(y.bincount() / len(y) - y_test.bincount() / len(y_test)).max() < 0.005
    with pytest.raises(ValueError, match="part: expected"):
        digit_views(0, "train")


def test_one_network_answers_for_every_set():
    train, test = digit_views(0)
    net = train_digits(train, epochs=15)
    found = without_each(net, test)
    assert (
        found[None] > 0.94
        and min(found.values()) > 0.85
        and list(found) == [None, "top", "middle", "bottom"]
    )


def test_what_was_measured():
    "The stored table holds what the chapter claims of it."
    stored = json.loads(
        (
            Path(__file__).parent.parent / "data" / "results" / "feature_fusion.json"
        ).read_text()
    )
    a = stored["test"]["tensor"]["accuracy"]
    assert (
        len(a["all"]) == 5
        and np.mean(a["all"]) >= 0.982
        and np.mean([v for k, v in a.items() if k != "all"]) >= 0.95
    )


def test_the_articles_network():
    rng = np.random.default_rng(0)
    features = (
        torch.tensor(rng.integers(0, 20, (6, 4))),
        torch.rand(6, 1, 28, 28),
        -60 * torch.rand(6, 20, 51),
    )
    model = concat_model(20)
    proba = model.predict(concat_inputs(features), verbose=0)
    assert proba.shape == (6, 10) and np.allclose(proba.sum(1), 1, atol=1e-5)
