"Fairness: rates by hand and as fairlearn, gaps by unit, an identity that always holds."

import importlib.util
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import refused
from mmcourse.datasets import spoken_file
from mmcourse.explorables import parity_slider
from mmcourse.fairness import (
    above_median,
    balancing_weights,
    decision_rates,
    gap_interval,
    gap_p,
    implied_fpr,
    least_p,
    odds_difference,
    parity_difference,
    parity_ratio,
    random_gaps,
    rates_by_group,
    slant,
    stroke_width,
    threshold_for,
    weighted_loss,
)
from mmcourse.fairness_tools import (
    balanced_interval,
    fairness_hits,
    over_units,
    unit_means,
    voice_facts,
    voice_pitch,
)

needs_fairlearn = pytest.mark.skipif(
    importlib.util.find_spec("fairlearn") is None, reason="the extra 'trust'"
)
Y = np.array([1, 1, 1, 0, 0, 0, 1, 0])
S = np.array([1, 1, 0, 1, 0, 0, 0, 0])
G = np.array(["a", "a", "a", "a", "b", "b", "b", "b"])


# groups
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("flite/slt", ("flite", "female", "English", "slt")),
        ("festival/cmu_us_slt_arctic_hts", ("festival", "female", "English", "slt")),
        ("festival/kal_diphone", ("festival", "male", "English", "kal")),
        ("espeak-ng/hr+f1", ("espeak-ng", "female", "other", "espeak-ng/hr+f1")),
        ("espeak-ng/fi+m6", ("espeak-ng", "male", "other", "espeak-ng/fi+m6")),
        ("festival/czech_krb", ("festival", "male", "other", "festival/czech_krb")),
    ],
)
def test_a_name_tells_the_groups(name, facts):
    assert voice_facts(name) == facts


def test_speakers_keep_their_split_and_counts():
    z = spoken_file()
    found = [voice_facts(str(v)) for v in z["voices"]]
    count = {}
    for f, split in zip(found, z["split"]):
        count.setdefault(split, set()).add(f.speaker)
    sizes = {k: len(v) for k, v in count.items()}
    assert sizes == {"train": 53, "valid": 8, "test": 12}
    assert not count["train"] & count["test"] and not count["valid"] & count["test"]
    sexes = [f.sex for f, s in zip(found, z["split"]) if s == "test"]
    assert sexes.count("female") == 4 and sexes.count("male") == 9
    assert [f.engine for f in found] == z["engine"].tolist()


@pytest.mark.parametrize("hertz", [80, 125, 200, 320])
def test_pitch_is_that_of_the_sound(hertz):
    t = np.arange(4000) / 8000
    wave = sum(np.sin(2 * np.pi * k * hertz * t) / k for k in (1, 2, 3))
    assert voice_pitch(wave) == pytest.approx(hertz, rel=0.02)
    assert voice_pitch(0.1 * wave + 0.3) == pytest.approx(hertz, rel=0.02)
    assert math.isnan(voice_pitch(np.zeros(4000)))
    noise = np.random.default_rng(0).normal(size=4000)
    assert math.isnan(voice_pitch(noise)) and math.isnan(voice_pitch(wave[:300]))


def test_labels_are_shuffled_over_units():
    unit = np.array(["a", "b", "a", "c", "c", "c"])
    labels = np.array([1, 0, 1, 0, 0, 0])
    seen = set()
    for seed in range(20):
        got = over_units(labels, unit, np.random.default_rng(seed))
        assert got[0] == got[2] and got[3] == got[4] == got[5]
        assert got[0] + got[1] + got[3] == 1  # one unit of three has the label
        seen.add(tuple(got))
    assert len(seen) == 3


def test_means_of_units_are_in_the_order_of_their_names():
    hits = np.array([[1, 0, 0, 1], [0, 0, 1, 1]])
    got = unit_means(hits, np.array(["b", "a", "b", "b"]))
    np.testing.assert_allclose(got, [[0, 2 / 3], [0, 2 / 3]])


def test_balanced_accuracy_counts_groups_alike_and_draws_units():
    unit, answer = np.arange(40), np.arange(40) < 4  # ten times as many of one group
    assert balanced_interval(~answer, answer, unit) == (0.5, 0.5)
    assert balanced_interval(np.ones(40, bool), answer, unit) == (1, 1)
    low, high = balanced_interval(unit % 2 == 0, answer, unit)
    assert low < 0.5 < high
    lumped = balanced_interval(unit % 2 == 0, answer, unit % 4)  # each has both groups
    assert lumped[1] - lumped[0] > high - low


def test_what_the_study_kept_has_a_row_for_each_seed():
    plain = fairness_hits("repair/plain", "test")
    assert plain.shape == (5, 570) and plain.dtype == bool and 0.8 < plain.mean() < 0.9
    assert fairness_hits("fusion", "no sound").shape == (5, 1000)


def bar(width, lean):
    image = np.zeros((1, 28, 28))
    for row in range(3, 25):
        start = 10 + round(lean * (14 - row))
        image[0, row, start : start + width] = 1
    return image


@pytest.mark.parametrize("lean", [-0.5, 0.0, 0.25, 0.5])
def test_slant_is_that_of_the_bar(lean):
    assert slant(bar(3, lean))[0] == pytest.approx(lean, abs=0.03)
    np.testing.assert_allclose(
        slant(0.3 * bar(3, lean)), slant(bar(3, lean)), atol=1e-12
    )


@pytest.mark.parametrize("width", [2, 3, 5])
def test_width_is_that_of_the_bar(width):
    assert stroke_width(bar(width, 0))[0] == pytest.approx(width, rel=0.25)


def test_width_grows_and_a_border_at_the_edge_counts():
    widths = [stroke_width(bar(w, 0))[0] for w in (1, 2, 3, 4)]
    assert widths == sorted(widths)
    moved = np.roll(bar(3, 0), 15, axis=2)  # touches the right edge
    assert moved[0, :, -1].any()
    np.testing.assert_allclose(stroke_width(moved), stroke_width(bar(3, 0)), rtol=0.05)


def test_medians_are_those_of_the_digit_and_of_training():
    known, digits = np.array([1.0, 2, 3, 10, 20, 30]), np.array([0, 0, 0, 1, 1, 1])
    asked = np.array([2.0, 2.1, 19, 21]), np.array([0, 0, 1, 1])
    got = above_median(*asked, known, digits)
    assert got.tolist() == [False, True, False, True]


# gaps
def test_shuffled_speakers_give_every_group_of_speakers():
    unit = np.repeat(np.arange(5), [3, 3, 3, 3, 3])
    rate = np.array([0, 3, 3, 3, 2])
    hits = np.array([[i % 3 < rate[u] for i, u in enumerate(unit)]] * 2)
    group = unit < 2
    got = random_gaps(hits, group, unit, n=3000)
    exact = []
    for c in combinations(range(5), 2):
        g = np.isin(unit, c)
        exact.append(hits[0, g].mean() - hits[0, ~g].mean())
    assert set(got.round(9)) == set(np.round(exact, 9))
    true = hits[:, group].mean() - hits[:, ~group].mean()
    share = np.mean(np.abs(exact) >= abs(true) - 1e-12)
    assert gap_p(true, got) == pytest.approx(share, abs=0.04)


def test_groups_inside_units_are_shuffled_inside_units():
    unit = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    group = np.array([1, 1, 0, 1, 0, 1, 0, 0], bool)
    hits = (unit == 0)[None]  # all the luck is between units
    gaps = random_gaps(hits, group, unit, n=50)
    np.testing.assert_allclose(gaps, 1 / 4 - 3 / 4)  # one of unit 0, three of unit 1


def test_p_counts_the_true_groups_and_both_sides():
    gaps = np.array([0.1, -0.3, 0.2, 0.0])
    assert gap_p(-0.3, gaps) == gap_p(0.3, gaps) == 2 / 5
    assert gap_p(0.9, gaps) == 1 / 5
    assert gap_p(0.0, gaps) == 1


def test_least_p_is_one_of_all_groups():
    assert least_p(1, 12) == 1 / 12 and least_p(3, 12) == 1 / 220


def test_an_interval_counts_units_and_seeds():
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(20), 30)
    group = unit < 10
    right = rng.random(20)[unit] > rng.random(600)
    hits = right[None]
    by_unit, by_clip = (gap_interval(hits, group, u) for u in (unit, np.arange(600)))
    gap = hits[0, group].mean() - hits[0, ~group].mean()
    assert by_unit.value == pytest.approx(gap)
    assert by_unit.low < by_unit.value < by_unit.high
    assert by_unit.high - by_unit.low > 1.5 * (by_clip.high - by_clip.low)
    flat = np.stack([np.ones(600), np.where(group, 0, 1)])  # seeds differ, clips do not
    low, high = gap_interval(flat, group, unit)[1:]
    assert (low, high) == (-1, 0)


def test_a_unit_in_both_groups_is_drawn_once_for_both():
    unit, group = np.repeat(np.arange(6), 4), np.tile([True, True, False, False], 6)
    right = np.array([[1, 1, 1, 1], [0, 0, 0, 0]] * 3).ravel()  # a unit is all or none
    assert gap_interval(right[None], group, unit) == (0, 0, 0)
    low, high = gap_interval(np.where(group, right, 0)[None], group, unit)[1:]
    assert 0 <= low <= 1 / 6 and 5 / 6 <= high <= 1  # three of six units are right


def test_a_resample_without_one_of_the_groups_is_left_out():
    unit, group = np.array([0, 0, 1, 2]), np.array([True, False, False, False])
    assert gap_interval(np.array([[1, 0, 0, 0]]), group, unit) == (1, 1, 1)


def test_a_group_is_resampled_by_itself():
    unit, group = np.arange(4), np.array([True, True, False, False])
    hits = np.array([[1, 1, 0, 0]])
    assert gap_interval(hits, group, unit) == (1, 1, 1)


# decisions
def test_rates_are_those_counted_by_hand():
    rates = rates_by_group(Y, S, G)
    assert rates["a"] == pytest.approx(
        {"base rate": 3 / 4, "selection": 3 / 4, "TPR": 2 / 3, "FPR": 1, "PPV": 2 / 3}
        | {"accuracy": 1 / 2}
    )
    assert rates["b"]["selection"] == 0 and math.isnan(rates["b"]["PPV"])
    assert parity_difference(rates) == 3 / 4 and parity_ratio(rates) == 0
    assert odds_difference(rates) == 1


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_what_is_not_known_of_a_group_is_not_known_of_all(names):
    g = np.array([names[0]] * 4 + [names[1]] * 4)
    rates = rates_by_group([1, 0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0], g)
    assert math.isnan(rates[names[1]]["TPR"])
    assert math.isnan(odds_difference(rates))
    assert parity_difference(rates) == 0 and parity_ratio(rates) == 1


decisions = st.integers(0, 10_000)


@needs_fairlearn
@given(decisions, st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_measures_are_those_of_fairlearn(seed, k):
    import fairlearn.metrics as fair

    rng = np.random.default_rng(seed)
    y, s = rng.random((2, 80)) < rng.random((2, 1)) * 0.6 + 0.2
    g = np.array(list("abcd"))[rng.integers(k, size=80)]
    for name in np.unique(g):  # each group has both truths
        y[np.flatnonzero(g == name)[0]] = True
        y[np.flatnonzero(g == name)[-1]] = False
    rates = rates_by_group(y, s, g)
    pairs = {
        parity_difference: fair.demographic_parity_difference,
        parity_ratio: fair.demographic_parity_ratio,
        odds_difference: fair.equalized_odds_difference,
    }
    for ours, theirs in pairs.items():
        expected = theirs(y, s, sensitive_features=g)
        assert ours(rates) == pytest.approx(expected, nan_ok=True)
    metrics = {"selection": fair.selection_rate, "TPR": fair.true_positive_rate}
    metrics["FPR"] = fair.false_positive_rate
    frame = fair.MetricFrame(
        metrics=metrics, y_true=y, y_pred=s, sensitive_features=g
    ).by_group
    for name, row in frame.iterrows():
        for metric, v in row.items():
            assert rates[name][metric] == pytest.approx(v)


@given(decisions)
@settings(max_examples=50, deadline=None)
def test_the_identity_holds_for_any_decision(seed):
    rng = np.random.default_rng(seed)
    y, s = rng.random((2, 30)) < 0.5
    y[:2], s[:2] = [True, False], [True, True]
    r = decision_rates(y, s)
    assert implied_fpr(r["base rate"], r["PPV"], r["TPR"]) == pytest.approx(r["FPR"])


def test_equal_worth_and_different_base_rates_mean_different_errors():
    assert implied_fpr(0.5, 0.8, 0.8) == pytest.approx(4 * implied_fpr(0.2, 0.8, 0.8))
    assert implied_fpr(0.3, 1.0, 0.8) == 0


# repairs
@given(decisions, st.sampled_from([0.05, 0.5, 0.55, 0.8, 0.95, 1.0]))
@settings(max_examples=40, deadline=None)
def test_a_threshold_finds_what_was_asked_and_no_higher_one_does(seed, tpr):
    rng = np.random.default_rng(seed)
    y, p = np.arange(40) % 2 == 0, rng.random(40)
    t = threshold_for(y, p, tpr)
    assert (p[y] >= t).mean() >= tpr - 1e-9 and t in p[y]
    assert (p[y] > t).mean() < tpr - 1e-9
    assert threshold_for(y, p, 0) == p[y].max()


def test_weights_make_groups_alike():
    groups = np.array(["a"] * 2 + ["b"] * 8)
    w = balancing_weights(groups)
    assert w.mean() == pytest.approx(1)
    assert w[:2].sum() == pytest.approx(w[2:].sum())
    np.testing.assert_allclose(balancing_weights(groups, 0), 1)
    half = balancing_weights(groups, 0.5)
    assert half[0] / half[-1] == pytest.approx(2)


def test_a_weighted_loss_is_the_mean_of_what_is_weighted():
    z, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    w = torch.tensor([2.0, 0, 1, 1, 1])
    each = -z.log_softmax(1)[range(5), y]
    torch.testing.assert_close(weighted_loss(z, (y, w)), (each * w).sum() / 5)


# bad input
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: rates_by_group([1, 2], [0, 1], ["a", "b"]), "truth"),
        (lambda: rates_by_group([1, 0], [0, 0.5], ["a", "b"]), "said"),
        (lambda: rates_by_group([1, 0], [0, 1, 1], ["a", "b"]), "said"),
        (lambda: rates_by_group([1, 0], [0, 1], ["a"]), "groups"),
        (lambda: rates_by_group([1, np.nan], [0, 1], ["a", "b"]), "truth"),
        (lambda: rates_by_group([], [], []), "truth"),
        (lambda: balancing_weights(["a", "b"], -1), "strength"),
        (lambda: threshold_for(Y == 1, S, 1.5), "tpr"),
        (lambda: threshold_for(Y == 2, S), "truth"),
    ],
)
def test_what_cannot_be_is_refused(call, name):
    refused(call, name=name)


def test_the_slider_says_what_follows():
    page = parity_slider().html
    assert "Base rates 0.5 and 0.2, PPV 0.7: false positive rates 0.34 and 0.09" in page
    assert "PPV 1.0: false positive rates 0.00 and 0.00" in page
