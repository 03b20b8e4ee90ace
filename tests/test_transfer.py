"Few labels: by hand, by law, and as the references have it."

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad

from mmcourse import transfer_tools as tools
from mmcourse.contrastive import info_nce
from mmcourse.measure import seeded
from mmcourse.store import CorruptData
from mmcourse.training import count_parameters
from mmcourse.transfer import (
    LowRankConv,
    MaskedAutoencoder,
    MeanToken,
    PatchEncoder,
    class_means,
    cohen_kappa,
    count_votes,
    dawid_skene,
    doubt,
    fit_fixmatch,
    fit_masked,
    fit_simclr,
    fixmatch_loss,
    fleiss_kappa,
    guess_truth,
    inner_steps,
    judge_annotators,
    k_centre,
    lead,
    likelihood_climb,
    linear_probe,
    maml_loss,
    masked_error,
    nearest_mean,
    next_rows,
    nt_xent,
    sure_labels,
    with_low_rank,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(n, classes, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    y[:classes] = torch.arange(classes)
    return y


# probes and prototypes
@pytest.mark.parametrize("C", [0.1, 1.0])
def test_a_probe_is_sklearns_regression(C):
    from sklearn.linear_model import LogisticRegression

    z, y = draw(40, 5), labels(40, 3)
    z = z + 1.0 * y[:, None]
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(z.numpy(), y.numpy())
    ours = linear_probe(z, y, C=C, classes=3)(z).softmax(1)
    np.testing.assert_allclose(ours, theirs.predict_proba(z.numpy()), atol=2e-3)


def test_prototypes_by_hand():
    z = torch.tensor([[0.0, 0], [2, 0], [0, 5]])
    means = class_means(z, torch.tensor([0, 0, 1]), 2)
    assert means.tolist() == [[1, 0], [0, 5]]
    asked = torch.tensor([[1.0, 1], [0, 4]])
    torch.testing.assert_close(
        nearest_mean(asked, means), -torch.tensor([[1.0, 17], [17, 1]])
    )


@given(st.integers(0, 99), st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_prototypes_are_sklearns_nearest_centroid(seed, classes):
    from sklearn.neighbors import NearestCentroid

    z, y = draw(30, 4, seed=seed), labels(30, classes, seed)
    asked = draw(20, 4, seed=seed + 1)
    theirs = NearestCentroid().fit(z.numpy(), y.numpy()).predict(asked.numpy())
    ours = nearest_mean(asked, class_means(z, y, classes)).argmax(1)
    assert ours.tolist() == theirs.tolist()


# low rank
def test_low_rank_begins_as_the_same_and_learns_little():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1))
    before = copy.deepcopy(net)
    low, x = with_low_rank(net, 2), draw(2, 3, 5, 5)
    torch.testing.assert_close(low(x), net(x))
    assert count_parameters(low) == 2 * (3 + 8) + 2 * (8 + 4)
    low(x).sum().backward()
    assert low[0].B.grad.abs().sum() > 0 and low[0].conv.weight.grad is None
    for a, b in zip(net.parameters(), before.parameters()):
        assert torch.equal(a, b) and a.requires_grad


@given(st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_low_rank_is_a_change_of_the_weights(r, seed):
    with seeded(seed):
        conv = nn.Conv2d(5, 6, 1)
        low = LowRankConv(conv, r, alpha=3.0)
        nn.init.normal_(low.B)
    change = 3.0 / r * low.B[..., 0, 0] @ low.A[..., 0, 0]
    assert torch.linalg.matrix_rank(change) == r
    whole = copy.deepcopy(conv)
    with torch.no_grad():
        whole.weight += change[..., None, None]
    x = draw(2, 5, 3, 3, seed=seed)
    torch.testing.assert_close(low(x), whole(x), atol=1e-4, rtol=1e-4)


# MAML
@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(1, 4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_maml_of_one_weight_by_hand(a, b, steps, second):
    one = nn.Linear(1, 1, bias=False)
    point, lr = torch.ones(1, 1), 0.1
    task = (point, a * point), (point, b * point)
    w = one.weight.item()
    after = a + (1 - 2 * lr) ** steps * (w - a)
    wanted = 2 * (after - b) * ((1 - 2 * lr) ** steps if second else 1)
    options = {"lr": lr, "steps": steps, "second": second, "loss": F.mse_loss}
    loss = maml_loss(one, dict(one.named_parameters()), [task], **options)
    assert loss.item() == pytest.approx((after - b) ** 2, abs=1e-5)
    (g,) = torch.autograd.grad(loss, one.weight)
    assert g.item() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("steps", [1, 2])
def test_maml_is_torch_func(steps):
    with seeded(0):
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    weights = dict(net.named_parameters())
    few = draw(5, 4).double(), labels(5, 3)
    asked = draw(7, 4, seed=1).double(), labels(7, 3, 1)

    def lost(w, task):
        return F.cross_entropy(functional_call(net, w, (task[0],)), task[1])

    def after(w):
        for _ in range(steps):
            step = grad(lost)(w, few)
            w = {k: w[k] - 0.3 * step[k] for k in w}
        return lost(w, asked)

    theirs = grad(after)({k: w.detach() for k, w in weights.items()})
    loss = maml_loss(net, weights, [(few, asked)], lr=0.3, steps=steps)
    for k, ours in zip(weights, torch.autograd.grad(loss, [*weights.values()])):
        torch.testing.assert_close(ours, theirs[k])


def test_first_order_is_the_gradient_where_it_arrived():
    with seeded(0):
        net = nn.Linear(3, 2)
    weights = dict(net.named_parameters())
    few, asked = (draw(4, 3), labels(4, 2)), (draw(6, 3, seed=1), labels(6, 2, 1))
    loss = maml_loss(net, weights, [(few, asked)], lr=0.5, second=False)
    ours = torch.autograd.grad(loss, [*weights.values()])
    there = inner_steps(net, weights, few, lr=0.5)
    there = {k: w.detach().requires_grad_() for k, w in there.items()}
    end = F.cross_entropy(functional_call(net, there, asked[0]), asked[1])
    for a, b in zip(ours, torch.autograd.grad(end, [*there.values()])):
        torch.testing.assert_close(a, b)


def test_several_tasks_count_alike():
    net = nn.Linear(3, 2)
    weights = dict(net.named_parameters())
    tasks = [((draw(2, 3, seed=k), labels(2, 2)),) * 2 for k in range(3)]
    each = [maml_loss(net, weights, [t], lr=0.1) for t in tasks]
    together = maml_loss(net, weights, tasks, lr=0.1)
    torch.testing.assert_close(together, torch.stack(each).mean())


# pseudo-labels and FixMatch
def test_sure_by_hand():
    logits = torch.tensor([[0.0, 0], [0, 3], [9, 0]])
    label, chosen = sure_labels(logits, 0.95)
    assert label[1:].tolist() == [1, 0] and chosen.tolist() == [False, True, True]


def test_fixmatch_by_hand():
    weak = torch.tensor([[0.0, 9], [0, 0.1]], requires_grad=True)
    strong = torch.tensor([[1.0, 0], [5, 0]], requires_grad=True)
    loss = fixmatch_loss(weak, strong)
    assert loss.item() == pytest.approx(np.log(1 + np.e) / 2, abs=1e-5)
    loss.backward()
    assert weak.grad is None and strong.grad[1].abs().sum() == 0


def test_fixmatch_learns_from_what_has_no_label():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (400,), generator=g)
    x = draw(400, 2) * torch.tensor([0.3, 3.0])
    x[:, 0] += 2 * (2 * y - 1)
    known = torch.tensor([[2.0, 3.0], [-2.0, -3.0]]), torch.tensor([1, 0])

    def noise(v, g):
        return v + 0.3 * torch.randn(v.shape, generator=g) * torch.tensor([1.0, 9])

    with seeded(0):
        net = nn.Linear(2, 2)
    fit_fixmatch(net, known, x, lambda v, g: v, noise, steps=200, lr=0.03, sure=0.8)
    assert (net(x).argmax(1) == y).float().mean() > 0.95
    assert not net.training


# contrast
@given(st.integers(1, 6), st.sampled_from([0.1, 0.5, 2.0]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_nt_xent_by_loops(n, t, seed):
    u, v = draw(2, n, 4, seed=seed).double()
    z = torch.cat([u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)])
    total = 0.0
    for i in range(2 * n):
        e = torch.exp(z @ z[i] / t)
        total -= torch.log(e[(i + n) % (2 * n)] / (e.sum() - e[i])) / (2 * n)
    torch.testing.assert_close(nt_xent(u, v, t), total)
    torch.testing.assert_close(nt_xent(3 * u, v, t), nt_xent(u, v, t))
    torch.testing.assert_close(nt_xent(v, u, t), nt_xent(u, v, t))


def test_nt_xent_has_more_negatives_than_info_nce():
    u, v = draw(2, 8, 5)
    pair = F.normalize(u, dim=1) @ F.normalize(v, dim=1).T / 0.5
    assert nt_xent(u, v) > info_nce(pair)


def test_simclr_finds_what_survives():
    x = draw(256, 6)
    x[:, :2] *= 2

    def change(v, g):
        keep = torch.tensor([1.0, 1, 0, 0, 0, 0])
        return v * keep + torch.randn(v.shape, generator=g) * (1 - keep)

    with seeded(0):
        body = nn.Linear(6, 4)
        losses = fit_simclr(body, 4, x, change, epochs=40, lr=0.01)
    size = body.weight.norm(dim=0)
    assert losses[-1] < losses[0] - 0.5
    assert size[:2].min() > 2 * size[2:].max()


# masked autoencoder
def test_hidden_patches_do_not_reach_the_encoder():
    with seeded(0):
        model = MaskedAutoencoder(PatchEncoder((14, 28), 7), hide=0.5).eval()
    order = torch.stack([torch.randperm(8) for _ in range(3)])
    x = draw(3, 1, 14, 28)
    y = x.clone()
    for b in range(3):
        for t in order[b, model.seen :].tolist():
            r, c = divmod(t, 4)
            y[b, :, 7 * r : 7 * r + 7, 7 * c : 7 * c + 7] += 1
    torch.testing.assert_close(model(x, order), model(y, order))
    assert not torch.allclose(model(x, order), model(x, order.flip(1)))


def test_only_hidden_patches_are_judged():
    with seeded(0):
        model = MaskedAutoencoder(PatchEncoder((14, 14), 7), hide=0.5)
    nn.init.zeros_(model.out.weight)
    nn.init.zeros_(model.out.bias)
    x = torch.zeros(4, 1, 14, 14)
    x[:, :, :7, :7] = 2.0  # one patch of four
    found = masked_error(model, x, torch.Generator().manual_seed(1))
    g = torch.Generator().manual_seed(1)
    order = torch.rand(4, 4, generator=g).argsort(1)
    hidden = (order[:, 2:] == 0).float().mean().item()
    assert found.item() == pytest.approx(4 * hidden)


def test_places_are_kept_in_order():
    with seeded(0):
        encoder = PatchEncoder((14, 14), 7).eval()
    x = draw(2, 1, 14, 14)
    every = torch.tensor([[2, 0, 3, 1]]).expand(2, -1)
    torch.testing.assert_close(encoder(x, every), encoder(x)[:, [2, 0, 3, 1]])
    torch.testing.assert_close(MeanToken(encoder)(x), encoder(x).mean(1))


def test_filling_in_learns():
    with seeded(0):
        x = torch.randn(64, 1, 1, 1).expand(-1, 1, 14, 14).contiguous()
        model = MaskedAutoencoder(PatchEncoder((14, 14), 7, d=16, depth=1))
        errors = fit_masked(model, x, epochs=40)
    assert errors[-1] < errors[0] / 4


# asking
def test_doubt_and_lead():
    logits = torch.tensor([[0.0, 0, 0], [50, 0, 0], [2, 2, -50]])
    log = torch.log(torch.tensor([3.0, 1.0, 2.0]))
    torch.testing.assert_close(doubt(logits), log, atol=1e-5, rtol=0)
    torch.testing.assert_close(lead(logits), torch.tensor([0.0, 1, 0]))


@given(st.integers(0, 99), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_k_centre_is_within_twice_the_best(seed, k):
    from itertools import combinations

    z = draw(9, 2, seed=seed)
    d = torch.cdist(z, z)
    rows = torch.cat([torch.tensor([0]), k_centre(z, torch.tensor([0]), k)])
    assert len(set(rows.tolist())) == k + 1
    best = min(d[:, [0, *more]].amin(1).max() for more in combinations(range(1, 9), k))
    assert d[:, rows].amin(1).max() <= 2 * best + 1e-5


@pytest.mark.parametrize("way", tools.ASKING)
def test_nobody_is_asked_twice(way):
    g = torch.Generator().manual_seed(0)
    z, known = draw(20, 3), torch.tensor([3, 7, 11])
    rows = next_rows(way, z, draw(20, 4, seed=1), known, 17, g)
    assert sorted(rows.tolist() + known.tolist()) == [*range(20)]


def test_wishes():
    logits = torch.tensor([[9.0, 0, 0], [1, 1, -9], [0.3, 0.2, 0.1], [5, 0, 0]])
    z, known = draw(4, 2), torch.tensor([3])
    g = torch.Generator()
    assert next_rows("entropy", z, logits, known, 1, g).item() == 2
    assert next_rows("margin", z, logits, known, 1, g).item() == 1


# agreement
@given(st.integers(0, 99), st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_cohen_is_sklearns(seed, classes):
    from sklearn.metrics import cohen_kappa_score

    a, b = labels(40, classes, seed), labels(40, classes, seed + 1)
    wanted = cohen_kappa_score(a, b)
    assert cohen_kappa(a, b) == pytest.approx(wanted)
    assert cohen_kappa(a, a) == pytest.approx(1)


def test_fleiss_by_hand():
    "Three annotators: agreement of pairs 1, 1/3, 1/3, by chance (7² + 2²) / 9²…"
    counts = torch.tensor([[3, 0], [2, 1], [2, 1]])
    pairs, chance = (1 + 1 / 3 + 1 / 3) / 3, (7**2 + 2**2) / 81
    assert fleiss_kappa(counts) == pytest.approx((pairs - chance) / (1 - chance))
    assert fleiss_kappa(torch.tensor([[3, 0], [0, 3]])) == pytest.approx(1)


def test_votes_are_counted_and_missing_ones_are_not():
    votes = torch.tensor([[0, 2], [-1, 1]])
    counts = count_votes(votes, 3)
    assert counts.tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]


# Dawid and Skene
def test_the_paper_of_1979():
    found = dawid_skene(tools.patient_votes())
    assert found["prior"].round(decimals=2).tolist() == [0.40, 0.42, 0.11, 0.07]
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0]]
    first += [[0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    assert found["theta"][0].round(decimals=2).tolist() == first
    sure = found["truth"][:6].argmax(1).tolist()
    assert sure == [0, 3, 1, 1, 1, 1]


@given(st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_the_likelihood_never_falls_and_ends_where_it_is_flat(seed):
    y = labels(60, 3, seed)
    votes = count_votes(tools.drawn_votes(y, [0.8, 0.6, 0.5], seed, classes=3), 3)
    found = dawid_skene(votes, steps=3000, tol=1e-12)
    assert (found["history"].diff() > -1e-9).all()
    prior = found["prior"].clamp_min(1e-9).log().requires_grad_()
    theta = found["theta"].clamp_min(1e-9).log().requires_grad_()
    value = guess_truth(votes, prior.softmax(0), theta.softmax(2))[1]
    for g in torch.autograd.grad(value, [prior, theta]):
        assert g.abs().max() < 0.05


def test_the_two_steps_by_loops():
    votes = count_votes(torch.tensor([[0, 1], [1, 1], [-1, 0]]), 2)
    prior = torch.tensor([0.3, 0.7]).double()
    theta = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.5, 0.5]]]).double()
    T, value = guess_truth(votes, prior, theta)
    raw = [[0.3 * 0.9 * 0.4, 0.7 * 0.2 * 0.5], [0.3 * 0.1 * 0.4, 0.7 * 0.8 * 0.5]]
    raw = torch.tensor([*raw, [0.3 * 0.6, 0.7 * 0.5]]).double()
    torch.testing.assert_close(T, raw / raw.sum(1, keepdim=True))
    torch.testing.assert_close(value, raw.sum(1).log().sum())
    p, t = judge_annotators(votes, T)
    torch.testing.assert_close(p, T.mean(0))
    wanted = T[0, 0] / (T[0, 0] + T[1, 0])  # annotator 0, truth 0, said 0
    torch.testing.assert_close(t[0, 0, 0], wanted)


def test_a_skilled_annotator_is_believed():
    y = labels(500, 4)
    votes = count_votes(tools.drawn_votes(y, [0.95, 0.4, 0.4], classes=4), 4)
    found = dawid_skene(votes)
    right = (found["truth"].argmax(1) == y).double().mean()
    assert right > (votes.sum(1).argmax(1) == y).double().mean() + 0.1
    skill = found["theta"].diagonal(dim1=1, dim2=2).mean(1)
    assert skill.argmax() == 0 and skill[0] > 0.9


def test_a_climb_reaches_no_less_than_a_flat_start():
    votes = tools.patient_votes()
    assert likelihood_climb(votes, 3) > -210


# what is measured with
def test_hits_come_back():
    hits = np.random.default_rng(0).integers(0, 2, (3, 101))
    texts = [tools.pack_hits(h) for h in hits]
    assert len(texts[0]) <= 20
    assert (tools.unpack_hits(texts, 101) == hits).all()


def test_families_are_never_on_two_sides():
    task = tools.emoji_task()
    sides = {}
    for family, side in zip(task["group"], task["split"]):
        sides.setdefault(family, set()).add(side)
    # a name such as 'clock' may be shared by groups, which part it otherwise
    assert sum(len(s) > 1 for s in sides.values()) <= 2
    assert len(task["x"]) == len(task["y"]) == len(task["split"])
    test = (task["split"] == "test").sum()
    assert test == tools.SIZE["emoji"]


def test_what_is_shipped_fits_the_drawings():
    shipped = tools.shipped_features()
    n = len(shipped["y"])
    assert shipped["z"].shape == (n, 64) and len(shipped["emoji"]) == n
    assert len(shipped["split"]) == n
    member = {c: k for k, v in enumerate(tools.emoji_classes().values()) for c in v}
    assert [member[c] for c in shipped["emoji"]] == shipped["y"].tolist()


@pytest.mark.skipif(not tools.has_imagenet(), reason="the packages are not there")
def test_the_network_is_the_one_that_was_shipped():
    assert tools.beside_shipped(tools.shipped_features(), 16) > 0.99
    body = tools.imagenet_body(32)
    body.train()
    assert not any(m.training for m in body.modules())


def test_other_weights_are_refused(monkeypatch):
    if not tools.has_imagenet():
        pytest.skip("the packages are not there")
    monkeypatch.setattr(tools, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(CorruptData):
        tools.imagenet_body()


def test_without_the_packages(monkeypatch):
    monkeypatch.setattr(tools, "has_library", lambda name: False)
    assert not tools.has_imagenet()
    assert tools.beside_shipped(tools.shipped_features()) is None


def test_tasks_of_five_drawings():
    x, g = torch.rand(20, 3, 32, 32), torch.Generator().manual_seed(0)
    (few, y), (asked, truth) = tools.drawn_task(x, g)
    assert few.shape == (5, 3, 32, 32) and asked.shape == (15, 3, 32, 32)
    assert truth.tolist() == 3 * y.tolist()
    styles = {k: x + 10 * i for i, k in enumerate("abc")}
    (few, y), (asked, truth) = tools.style_task(styles, 3)
    for k in range(10):
        same = (asked[k] - few[truth[k]]).round().unique()
        assert len(same) == 1 and same.item() % 10 == 0 and same.item() != 0


# bad input
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: LowRankConv(nn.Conv2d(2, 2, 1), 0), "r: expected"),
        (lambda: linear_probe(draw(3, 2), torch.tensor([0, 1, 12])), "labels"),
        (lambda: tools.transfer_hits("emoji", "magic", 1), "no arm"),
    ],
)
def test_refusals(call, error):
    with pytest.raises((ValueError, KeyError), match=error):
        call()


def test_low_rank_is_pefts():
    peft = pytest.importorskip("peft")
    with seeded(0):
        net = nn.Sequential(nn.Conv2d(5, 6, 1))
        config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["0"])
        theirs = peft.get_peft_model(copy.deepcopy(net), config)
    low = LowRankConv(net[0], 2, alpha=8)
    layer = theirs.base_model.model[0]
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        low.A.copy_(layer.lora_A["default"].weight)
        low.B.copy_(layer.lora_B["default"].weight)
    x = draw(2, 5, 3, 3)
    torch.testing.assert_close(low(x), theirs(x))


def test_few_shot_emoji_have_no_relative_among_those_learnt_from():
    from mmcourse.emoji import emoji

    signs = emoji(32)
    learnt = signs["split"] == "train"
    names = np.array(signs["name"]["en"])
    met = {tools.emoji_family(n) for n in names[learnt]}
    family = {p.tobytes(): tools.emoji_family(n) for p, n in zip(signs["image"], names)}
    shown = tools.styles_of_emoji()
    assert len({len(x) for x in shown.values()}) == 1
    own = shown["openmoji"].permute(0, 2, 3, 1).contiguous().numpy()
    found = {family[p.tobytes()] for p in own}
    assert len(own) > 50 and not found & met
