"The laws of all fusions over random names, widths and masks; values by hand."

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.feature_fusion import (
    FUSIONS,
    ROWS,
    AttentionFusion,
    BottleneckFusion,
    ConcatFusion,
    Fusion,
    FusionClassifier,
    GatedFusion,
    LowRankFusion,
    MLPFusion,
    TensorFusion,
    check_laws,
    digit_net,
    digit_views,
    extended,
    modality_dropout,
    scales,
    there,
    train_digits,
    without_each,
)
from mmcourse.measure import seeded

few = settings(max_examples=25, deadline=None)
every = pytest.mark.parametrize("make", FUSIONS.values(), ids=FUSIONS)
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
names = st.sampled_from(["text", "image", "audio", "a.b", "keys", "type", ""])
widths = st.dictionaries(names, st.integers(1, 6), min_size=2, max_size=4)
seeds = st.integers(0, 2**31 - 1)


def made(make, dims, out=3, B=6, seed=0):
    "A fusion, features, and a mask with gaps."
    with seeded(seed):
        x = {m: torch.randn(B, d) for m, d in dims.items()}
        mask = {m: torch.rand(B) < 0.6 for m in dims}
        return make(dims, out), x, mask


# --- laws


@every
@few
@given(widths, st.integers(1, 5), seeds)
def test_every_fusion_obeys_its_laws(make, dims, out, seed):
    fusion, x, _ = made(make, dims, out, seed=seed)
    check_laws(fusion, x)


@every
@few
@given(widths, seeds, st.sampled_from([float("nan"), float("inf"), -1e30, 7.0]))
def test_what_is_masked_cannot_matter(make, dims, seed, junk):
    fusion, x, mask = made(make, dims, seed=seed)
    ruined = {}
    for m, t in x.items():
        t = torch.where(mask[m][:, None], t, junk)
        ruined[m] = t.requires_grad_()
    y = fusion(ruined, mask)
    assert torch.equal(y, fusion(x, mask))
    y.square().sum().backward()
    for m, t in ruined.items():
        assert t.grad.isfinite().all()
        assert not t.grad[~mask[m]].any()


@every
def test_one_by_one_is_the_batch_and_nothing_at_all_is_finite(make):
    fusion, x, mask = made(make, {"a": 3, "b": 2})
    y = fusion(x, mask)
    rows = range(len(y))
    one = [{m: t[i : i + 1] for m, t in x.items()} for i in rows]
    gap = [{m: h[i : i + 1] for m, h in mask.items()} for i in rows]
    close(torch.cat([fusion(a, b) for a, b in zip(one, gap)]), y)
    nothing = {m: torch.zeros(6, dtype=torch.bool) for m in x}
    assert fusion(x, nothing).isfinite().all()


@every
def test_names_are_looked_at(make):
    fusion, x, _ = made(make, {"a": 3, "b": 2})
    for features, mask in (({}, None), (x | {"c": x["a"]}, None), (x, {"c": None})):
        with pytest.raises(ValueError, match="features: expected some of"):
            fusion(features, mask)


LAWS = {
    "order": "the order of keys",
    "rows": "independent rows",
    "absent": "absent is masked",
    "masked": "what is masked",
    "steep": "gradients",
    "idle": "gradients",
    "still": "every weight moves",
    "counts": "every weight is registered",
}


class Breaks(Fusion):
    "A fusion that breaks one law, by little."

    def __init__(self, law):
        super().__init__({"a": 3, "b": 2}, 4)
        self.law, self.a, self.b = law, nn.Linear(3, 4), nn.Linear(2, 4)
        if law in ("idle", "still"):
            self.more = nn.Parameter(torch.ones(1))
        if law == "counts":
            self.register_buffer("count", torch.zeros(1))

    def forward(self, features, mask=None):
        seen = dict(zip("ab", self.look(features, mask)))
        a, b = self.a(seen["a"][0]), self.b(seen["b"][0])
        if self.law == "order" and list(features)[0] == "b":
            a = a + 0.01
        if self.law == "rows":
            a = a - 0.01 * a.mean(0)
        if self.law == "absent" and "a" not in features:
            a = a + 0.01
        if self.law == "masked" and "a" in features:
            a = a + 0.01 * features["a"].isnan().sum(1, keepdim=True)
        if self.law == "steep":  # no slope at zero
            b = b + 0 * (seen["b"][0] @ self.b.weight.T).abs().sqrt()
        if self.law == "still":
            b = b + 0 * self.more
        return a + b


@pytest.mark.parametrize("law", LAWS)
def test_a_broken_law_is_found(law):
    with seeded(0):
        x = {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}
        check_laws(Breaks("none"), x)
        with pytest.raises(AssertionError, match=LAWS[law]):
            check_laws(Breaks(law), x)


def test_look_and_there():
    x = torch.arange(6.0).view(3, 2)
    here = torch.tensor([True, False, True])
    cleaned, found = there(x, here, 2, x)
    assert cleaned.tolist() == [[0, 1], [0, 0], [4, 5]]
    assert torch.equal(found, here)
    absent, nowhere = there(None, None, 4, x)
    assert absent.shape == (3, 4)
    assert not absent.any() and not nowhere.any()
    tokens = torch.ones(3, 2, 5)
    cleaned, found = there(tokens, here, 5, x)  # a mask of rows, for tokens
    assert found.tolist() == [[True, True], [False, False], [True, True]]
    padding = torch.tensor([[True, False]] * 3)
    assert there(tokens, padding, 5, x)[0].sum((0, 2)).tolist() == [15, 0]
    fusion = ConcatFusion({"b": 1, "a": 2}, 1)
    assert [t.shape[1] for t, _ in fusion.look({"a": x})] == [2, 1]  # sorted


# --- values by hand


SIZES = {  # weights of each fusion of 3 and 2 features to 4, at its usual width
    "concat": (3 + 2 + 2) * 4 + 4,
    "mlp": (7 + 1) * 128 + (128 + 1) * 4,
    "gated": (3 + 1) * 32 + (2 + 1) * 32 + (7 + 1) * 64 + (32 + 1) * 4,
    "tensor": (3 + 1) * (2 + 1) * 4,
    "low-rank": (3 + 1) * 8 * 4 + (2 + 1) * 8 * 4,
}
TOKENS = (3 + 1) * 32 + (2 + 1) * 32 + 2 * 32 + (32 + 1) * 4  # projections, norm, head
BLOCK = 4 * 32 * 32 + 3 * 32 + 2 * 2 * 32 + (32 + 1) * 64 + (64 + 1) * 32
SIZES |= {"attention": TOKENS + BLOCK + 32, "bottleneck": TOKENS + 2 * BLOCK + 4 * 32}


@pytest.mark.parametrize("name", FUSIONS)
def test_number_of_weights(name):
    fusion = FUSIONS[name]({"a": 3, "b": 2}, 4)
    assert sum(p.numel() for p in fusion.parameters()) == SIZES[name]
    assert fusion.out == 4


def test_two_heads_look_at_tokens_of_length_one():
    with seeded(0):
        attention = AttentionFusion({"a": 3, "b": 2}, 4, width=1024)
        bottleneck = BottleneckFusion({"a": 3, "b": 2}, 4, width=1024)
    blocks = [attention.block, *bottleneck.blocks]
    assert [block.attend.heads for block in blocks] == [2] * 3
    assert abs(attention.summary.norm() - 1) < 0.1
    assert abs(bottleneck.bottleneck.norm(dim=1) - 1).max() < 0.1


def test_concat_by_hand():
    fusion, x, mask = made(ConcatFusion, {"b": 2, "a": 3}, 4)
    here = {m: h[:, None].float() for m, h in mask.items()}
    parts = [x["a"] * here["a"], here["a"], x["b"] * here["b"], here["b"]]
    close(fusion(x, mask), fusion.linear(torch.cat(parts, 1)))


def test_mlp_by_hand():
    fusion, x, mask = made(partial(MLPFusion, hidden=7), {"a": 3, "b": 2}, 4)
    hidden = fusion.linear(fusion.joined(x, mask)).relu()
    assert hidden.shape == (6, 7)
    close(fusion(x, mask), fusion.head(hidden))


def test_gates_by_hand():
    fusion, x, mask = made(partial(GatedFusion, width=5), {"a": 3, "b": 2}, 4)
    z = fusion.gates(x, mask)
    assert z.shape == (6, 2, 5)
    opened = fusion.gate(x, mask).view(6, 2, 5).sigmoid()
    here = torch.stack([mask["a"], mask["b"]], 1)[..., None]
    close(z, opened * here)
    clean = {m: torch.where(mask[m][:, None], t, 0) for m, t in x.items()}
    said = [say(clean[m]).tanh() for say, m in zip(fusion.say, "ab")]
    close(fusion(x, mask), fusion.head(z[:, 0] * said[0] + z[:, 1] * said[1]))


@few
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 40), seeds)
def test_tensor_fusion_is_the_literal_sum(sizes, out, seed):
    dims = {f"m{i}": d for i, d in enumerate(sizes)}
    fusion, x, mask = made(TensorFusion, dims, out, seed=seed)
    p = torch.ones(6, 1)
    for m in sorted(dims):
        z = extended(torch.where(mask[m][:, None], x[m], 0))
        p = torch.einsum("bi,bj->bij", p, z).flatten(1)
    literal = p @ fusion.weight.flatten(0, -2)
    torch.testing.assert_close(fusion(x, mask), literal, rtol=1e-4, atol=1e-4)


def test_the_split_has_the_smallest_intermediates():
    fusion = TensorFusion({"a": 64, "b": 64, "c": 64}, 32)
    assert fusion.first == 2  # 65·65 + 65·32 beats 65 + 65·65·32 and 65³ + 32
    assert TensorFusion({"a": 1, "b": 1, "c": 50}, 1).first == 2


def test_tensor_start_weighs_all_terms_alike():
    with seeded(0):
        w = TensorFusion({"a": 30, "b": 20}, 200).weight
    shares = [w[0, 0], w[1:, 0], w[0, 1:], w[1:, 1:]]
    for part in shares:  # summed over features of deviation 1: variance 1/4
        assert abs(part.square().sum() / 200 - 0.25) < 0.06
    close(scales(4).square().sum(), torch.tensor(1.0))


def test_low_rank_is_the_tensor_that_it_stands_for():
    dims = {"a": 5, "b": 3, "c": 4}
    low, x, mask = made(partial(LowRankFusion, rank=3), dims, 7)
    full = TensorFusion(dims, 7)
    full.weight.data = torch.einsum("irn,jrn,krn->ijkn", *low.factors).detach()
    torch.testing.assert_close(low(x, mask), full(x, mask), rtol=1e-4, atol=1e-4)
    with seeded(0):
        size = LowRankFusion(dims, 500, rank=4)(x).square().mean()
    assert 0.3 < size < 3  # whatever the rank, of the order of one
    with seeded(0):
        more = LowRankFusion(dims, 500, rank=64)(x).square().mean()
    assert 0.3 < more / size < 3


@pytest.mark.parametrize("make", [AttentionFusion, BottleneckFusion])
def test_padding_of_tokens_cannot_matter(make):
    with seeded(0):
        fusion = make({"text": 8, "image": 6}, 4)
        words, patches = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    real = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    padded = fusion({"text": words, "image": patches}, {"text": real})
    alone = fusion({"text": words[1:, :2], "image": patches[1:]})
    close(padded[1:], alone)
    one = fusion({"text": words[:, 0], "image": patches[:, 0]})
    close(one, fusion({"text": words[:, :1], "image": patches[:, :1]}))


def test_tokens_look_into_the_other_modalities_only():
    with seeded(0):
        fusion = AttentionFusion({"a": 4, "b": 4}, 3)
        x = {"a": torch.randn(1, 3, 4), "b": torch.randn(1, 2, 4)}
    seen = []
    attend = fusion.block.attend
    run = attend.forward
    attend.forward = lambda q, mask: seen.append(mask) or run(q, mask=mask)
    fusion(x)
    may = seen[0][0].tolist()
    of = [0, 1, 1, 1, 2, 2]
    wanted = [[s == 0 or t == 0 or s != t for s in of] for t in of]
    assert may == wanted


def test_a_bottleneck_passes_nothing_of_a_modality_that_is_gone():
    fusion, x, _ = made(BottleneckFusion, {"a": 3, "b": 2})
    gone = {m: torch.zeros(6, dtype=torch.bool) for m in x}
    y = fusion(x, gone)
    close(y, fusion.head(fusion.norm(fusion.bottleneck.mean(0))).expand(6, -1))
    with_a = fusion({"a": x["a"]})
    block, project = fusion.blocks[0], fusion.project[0]
    tokens = torch.cat(
        [fusion.bottleneck.expand(6, -1, -1), project(x["a"])[:, None]], 1
    )
    close(with_a, fusion.head(fusion.norm(block(tokens)[:, :4].mean(1))))


# --- digits in three views


def test_digit_views_are_cut_and_split_in_proportion():
    data = digit_views(0)
    sizes = {name: len(y) for name, (_, y) in data.items()}
    assert sizes == {"train": 1149, "valid": 288, "test": 360}
    (views, mask), y = data["test"]
    assert {m: v.shape[1] for m, v in views.items()} == {
        "top": 24,
        "middle": 16,
        "bottom": 24,
    }
    assert all(h.all() for h in mask.values())
    assert y.bincount().min() >= 30 and y.bincount().max() <= 40
    from sklearn.datasets import load_digits

    everything = {tuple(row) for row in load_digits().data / 16}
    whole = torch.cat([views[m] for m in ROWS], 1)
    assert {tuple(row) for row in whole.double().tolist()} <= everything
    train = torch.cat([data["train"][0][0][m] for m in ROWS], 1)
    shared = {tuple(r) for r in whole.tolist()} & {tuple(r) for r in train.tolist()}
    assert len(shared) <= 1
    assert not torch.equal(digit_views(1)["test"][1], y)
    assert torch.equal(digit_views()["test"][1], y)


def test_modality_dropout_keeps_one_and_draws_each_by_itself():
    n = 20_000
    mask = {m: torch.ones(n, dtype=torch.bool) for m in "abc"}
    mask["a"] = torch.arange(n) % 2 == 0
    g = torch.Generator().manual_seed(0)
    kept = modality_dropout(mask, 0.4, g)
    assert not (kept["a"] & ~mask["a"]).any()
    here = torch.stack([*kept.values()], 1)
    assert here.any(1).all()
    full = here[mask["a"]]
    alone = 0.4**3 / 3  # all three drawn away: one comes back
    for share in full.float().mean(0).tolist():
        assert abs(share - (0.6 + alone)) < 0.015
    assert torch.equal(
        torch.stack([*modality_dropout(mask, 0).values()]),
        torch.stack([*mask.values()]),
    )
    only = modality_dropout({"a": torch.ones(5, dtype=torch.bool)}, 1.0)
    assert only["a"].all()
    none = modality_dropout({"a": torch.zeros(5, dtype=torch.bool)}, 0.5)
    assert not none["a"].any()


def test_classifier_blanks_before_the_encoder():
    with seeded(0):
        encoders = {m: nn.Linear(2, 3) for m in "ab"}
        model = FusionClassifier(encoders, ConcatFusion({"a": 3, "b": 3}, 4))
        x = {m: torch.randn(5, 2) for m in "ab"}
    here = torch.tensor([True, False, True, True, False])
    broken = {"a": torch.where(here[:, None], x["a"], torch.nan), "b": x["b"]}
    y = model((broken, {"a": here}))
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    features = {m: encoders[m](x[m]) for m in "ab"}
    close(y, model.fusion(features, {"a": here}))
    close(model((x, {})), model.fusion(features))
    headed = FusionClassifier(encoders, model.fusion, nn.Linear(4, 2))
    close(headed((x, {})), headed.head(model.fusion(features)))


def test_training_with_gaps_learns_and_repeats():
    data = digit_views(0)
    few_rows = {}
    for name, ((views, mask), y) in data.items():
        rows = slice(0, 300)
        cut = (
            {m: v[rows] for m, v in views.items()},
            {m: h[rows] for m, h in mask.items()},
        )
        few_rows[name] = cut, y[rows]
    nets = [train_digits(few_rows, epochs=8, seed=s) for s in (0, 0, 1)]
    weights = [net.fusion.weight for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    found = without_each(nets[0], few_rows["test"])
    assert list(found) == ["all", *ROWS]
    assert found["all"] > 0.6
    plain = train_digits(few_rows, epochs=8, p=0.0)
    assert not torch.equal(plain.fusion.weight, weights[0])


def test_what_training_does_unless_told_otherwise(monkeypatch):
    seen = {}
    keep = lambda model, data, **more: seen.update(more)  # noqa: E731
    monkeypatch.setattr("mmcourse.feature_fusion.fit", keep)
    net = train_digits({"train": None})
    assert isinstance(net.fusion, TensorFusion)
    loss, gaps, schedule = (seen.pop(k) for k in ("loss", "augment", "schedule"))
    assert seen == {"lr": 3e-3, "weight_decay": 0.05, "epochs": 80, "seed": 0}
    assert schedule(0, 100) == 0.1 and schedule(9, 100) == 1  # warm-up
    logits, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    p = logits.log_softmax(1)[0]
    close(loss(logits, y), -(0.975 * p[0] + 0.025 * p[1]))
    views, mask = {"a": torch.ones(9)}, {m: torch.ones(900).bool() for m in "abc"}
    same, kept = gaps((views, mask), torch.Generator().manual_seed(0))
    wanted = modality_dropout(mask, 0.5, torch.Generator().manual_seed(0))
    default = modality_dropout(mask, generator=torch.Generator().manual_seed(0))
    assert same is views
    assert all(torch.equal(kept[m], wanted[m]) for m in mask)
    assert all(torch.equal(kept[m], default[m]) for m in mask)


def test_without_each_masks_one_view_at_a_time():
    class Counts(nn.Module):
        def forward(self, inputs):
            views, mask = inputs
            here = torch.stack([mask[m] for m in ROWS], 1).float()
            return here * torch.tensor([3.0, 2.0, 1.0])  # says the first that is there

    model = Counts()
    views = {m: torch.zeros(4, 1) for m in ROWS}
    mask = {m: torch.ones(4, dtype=torch.bool) for m in ROWS}
    found = without_each(model, ((views, mask), torch.zeros(4, dtype=torch.long)))
    assert found == {"all": 1, "top": 0, "middle": 1, "bottom": 1}


def test_digit_net_hands_options_to_its_fusion():
    net = digit_net(MLPFusion, d=5, width=6, hidden=9)
    assert net.fusion.linear.out_features == 9
    assert net.fusion.dims == dict.fromkeys(sorted(ROWS), 5)
    assert net.head[-1].in_features == 6
    sizes = {m: (n + 1) * 64 + (64 + 1) * 16 for m, n in zip(ROWS, (24, 16, 24))}
    net = digit_net()
    for m, encoder in net.encoders.items():
        assert sum(p.numel() for p in encoder.parameters()) == sizes[m]
        assert encoder(torch.ones(2, 8 * len(range(8)[ROWS[m]]))).shape == (2, 16)
    assert net.fusion.weight.shape == (17, 17, 17, 32)
    assert net.head[-1].out_features == 10
    drops = [layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)]
    assert drops == [0.1] * 4
