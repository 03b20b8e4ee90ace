"Measures against numbers worked by hand and against SciPy and scikit-learn."

import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.measure import (
    Interval,
    brier,
    calibration_error,
    compare,
    confusion,
    hit_rate,
    hits,
    holm,
    mean_interval,
    mean_spread,
    nll,
    over_seeds,
    paired_bootstrap,
    progress,
    reliability,
    seeded,
    sign_flip,
    sign_test,
    t_interval,
)

# --- comparing


def test_compare_prints_one_line(capsys):
    compare("conv", torch.ones(2).bfloat16().requires_grad_(), [1.0, 1.0])
    assert capsys.readouterr().out == "conv: equal to the reference (within 1e-05)\n"
    compare("far", [1e6 + 5], [1e6])  # five millionths of the size
    compare("near", [1.005], [1.0], atol=0.01)


@pytest.mark.parametrize(
    "ours,reference,says",
    [
        ([1.0, 2.0], [1.0, 2.1], "conv: differs from the reference by up to 0.1"),
        ([1e-4], [0.0], "by up to 0.0001"),
        ([1.0], [[1.0]], r"conv: shape \(1,\), the reference \(1, 1\)"),
        ([math.nan], [1.0], "by up to nan"),
        ([1.0, 5.0], [1.0, math.nan], "by up to nan"),
    ],
)
def test_compare_fails_where_they_differ(ours, reference, says):
    with pytest.raises(AssertionError, match=says):
        compare("conv", ours, reference)


# --- seeds


def roll():
    np_, py = (
        (np.random.rand(), np.random.randn()),
        (random.random(), random.gauss(0, 1)),
    )
    return torch.rand(1).item(), *np_, *py


def test_seeded_repeats_and_puts_back():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    np.random.randn(), random.gauss(0, 1)  # a spare normal in both
    with seeded(5):
        expected = roll()
    before = [roll() for _ in range(2)]
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    np.random.randn(), random.gauss(0, 1)
    with pytest.raises(ZeroDivisionError), seeded(5):
        assert roll() == expected
        raise ZeroDivisionError
    assert [roll() for _ in range(2)] == before
    with seeded(6):
        other = roll()
    assert not set(other) & set(expected)
    with seeded(2**33 + 5):  # NumPy takes 32 bits
        assert roll()[1] == expected[1]


def test_over_seeds_runs_each_from_its_seed():
    def run(seed):
        return seed, torch.rand(1).item()

    got = over_seeds(run, (3, 1))
    with seeded(1):
        assert got[1] == (1, torch.rand(1).item())
    assert got[0][0] == 3 and got[0] == over_seeds(run, [3])[0]
    assert len(over_seeds(run)) == 5


def test_mean_spread():
    assert mean_spread([0.9, 0.92]) == "91.0 ± 1.4"  # the sample's deviation
    assert mean_spread([torch.tensor(0.5)]) == "50.0 (one run)"
    assert mean_spread((1, 2, 3), scale=1, digits=2) == "2.00 ± 1.00"
    with pytest.raises(ValueError, match="values"):
        mean_spread([])


# --- intervals


def test_interval():
    i = Interval(0.0141, 0.005, 0.024)
    assert i.points() == "+1.4 (+0.5 to +2.4)" and i.points(0) == "+1 (+0 to +2)"
    assert i.plain() == "0.01 (0.01 to 0.02)" and i.plain(100, 1) == "1.4 (0.5 to 2.4)"
    assert i.clear and Interval(-0.2, -0.3, -0.1).clear
    assert not Interval(0.1, -0.1, 0.3).clear and not Interval(0.1, 0.0, 0.3).clear


def test_t_interval_equals_scipy():
    from scipy import stats

    v = [1.0, 2.0, 4.0, 3.5]
    for level in (0.95, 0.5):
        ours, n = t_interval(v, level), len(v)
        low, high = stats.t.interval(level, n - 1, np.mean(v), stats.sem(v))
        assert ours == pytest.approx((np.mean(v), low, high))
    with pytest.raises(ValueError, match="two or more"):
        t_interval([1.0])


def test_bootstrap_of_one_training_is_the_classical_one():
    hard = np.random.default_rng(0).random(800)
    a, b = hard < 0.9, hard < 0.85
    got = paired_bootstrap(a, b)
    se = (a * 1.0 - b).std() / math.sqrt(800)
    assert got.value == pytest.approx(a.mean() - b.mean())
    assert got[1:] == pytest.approx(
        got.value + 1.96 * se * np.array([-1, 1]), abs=0.15 * se
    )
    assert paired_bootstrap(a, a) == (0, 0, 0)
    assert paired_bootstrap(b, a).value == -got.value
    assert paired_bootstrap(a, b) == got != paired_bootstrap(a, b, seed=1)
    narrow = paired_bootstrap(a, b, level=0.5)
    assert got.low < narrow.low < narrow.high < got.high


def test_bootstrap_counts_the_luck_of_the_seed():
    rng = np.random.default_rng(0)
    level = rng.normal(0.8, 0.05, (6, 1))  # trainings differ by much
    a = rng.random((6, 2000)) < level
    b = rng.random((6, 2000)) < 0.8
    both = paired_bootstrap(a, b)
    examples = paired_bootstrap(a.mean(0), b.mean(0))
    assert both.value == pytest.approx(examples.value)
    luck = (a.mean(1).var() + b.mean(1).var()) / 6
    luck += ((examples.high - examples.low) / 3.92) ** 2
    assert both.high - both.low == pytest.approx(3.92 * math.sqrt(luck), rel=0.15)


def test_bootstrap_of_clusters_is_wider():
    rng = np.random.default_rng(0)
    voice = np.repeat(np.arange(20), 50)
    easy = rng.random(20)[voice] < 0.5  # a voice is right or wrong as a whole
    none = np.zeros(1000)
    alone = paired_bootstrap(easy, none)
    voices = paired_bootstrap(easy, none, groups=voice)
    named = paired_bootstrap(easy, none, groups=[f"voice {v}" for v in voice])
    assert voices.value == alone.value and named.value == alone.value
    se = math.sqrt(0.25 / 20)
    assert voices.high - voices.low == pytest.approx(3.92 * se, rel=0.25)
    assert alone.high - alone.low < 0.3 * (voices.high - voices.low)


def test_bootstrap_covers_the_truth():
    rng, inside = np.random.default_rng(1), 0
    truth = 0.8 - (0.75 * 0.95 + 0.25 * 0.05)
    for i in range(200):
        u = rng.random(300)
        b = (u < 0.75) ^ (rng.random(300) < 0.05)
        got = paired_bootstrap(u < 0.8, b, n=600, seed=i)
        inside += got.low <= truth <= got.high
    assert 0.89 < inside / 200 < 0.99


def test_bootstrap_refuses_other_examples():
    with pytest.raises(ValueError, match="a, b: expected equally many"):
        paired_bootstrap([1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="a: expected at least one value"):
        paired_bootstrap([], [])


# --- tests


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_sign_test_by_hand(pairs):
    a, b = np.array(pairs).T
    wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    assert sign_test(a, torch.tensor(b)) == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize("d", [[1.0, 2, 3], [1.0, -2, 3, 0.5], [0.0, 0.0], [-1.0]])
def test_sign_flip_tries_all_signs(d):
    sums = [abs(np.dot(s, d)) for s in itertools.product((-1, 1), repeat=len(d))]
    expected = np.mean([s >= abs(sum(d)) - 1e-9 for s in sums])
    assert sign_flip(d) == pytest.approx(expected)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == pytest.approx([1, 1]) and holm([0.2]) == [0.2]


# --- right, wrong, sure


def test_hits():
    z = torch.tensor([[2.0, 1], [0, 3], [1, 0]])
    assert hits(z, torch.tensor([0, 1, 1])).tolist() == [True, True, False]
    soft = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    assert hits(z, soft).tolist() == [True, False, False]
    one, yes = torch.tensor([0.5, -1, 2.0]), torch.tensor([1.0, 0, 0])
    assert hits(one, yes).tolist() == [True, True, False]
    assert hits(one[:, None], yes[:, None]).tolist() == [True, True, False]
    at = torch.zeros(2, 3, 4).index_fill(1, torch.tensor([2]), 1.0)
    assert hits(at, torch.full((2, 4), 2)).shape == (2, 4)
    assert hit_rate(z, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    assert math.isnan(hit_rate({"a": z}, torch.zeros(3)))
    assert math.isnan(hit_rate(z, {"a": 1}))


def test_confusion():
    got = confusion([0, 0, 2], torch.tensor([0, 1, 2]))
    assert got.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert confusion([0], [0], classes=2).tolist() == [[1, 0], [0, 0]]
    assert confusion([0, 0], [1, 0]).shape == (2, 2)


@pytest.mark.parametrize(
    "y,g,c",
    [([0], [0, 1], None), ([], [], None), ([0, -1], [0, 0], None), ([0, 3], [0, 1], 3)],
)
def test_confusion_refuses(y, g, c):
    with pytest.raises(ValueError, match="(targets|guesses): expected"):
        confusion(y, g, c)


P = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]])
LABELS = [0, 2, 2]


def test_scores_by_hand():
    assert nll(np.log(P), LABELS) == pytest.approx(-np.log([0.7, 0.4, 0.4]).mean())
    squares = [0.3**2 + 0.2**2 + 0.1**2, 0.1**2 + 0.5**2 + 0.6**2]
    squares += [0.3**2 + 0.3**2 + 0.6**2]
    assert brier(P, LABELS) == pytest.approx(np.mean(squares))
    assert brier([[0.0, 1.0]], [0]) == 2 and brier([[0.0, 1.0]], [1]) == 0


def test_reliability_by_hand():
    p = [[0.95, 0.05], [0.85, 0.15], [0.2, 0.8], [1.0, 0.0]]
    r = reliability(p, [0, 1, 1, 0], bins=5)
    assert r["edges"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert r["count"].tolist() == [0, 0, 0, 0, 4]  # 0.8 belongs to the bin above it
    assert r["accuracy"][4] == 0.75 and r["confidence"][4] == pytest.approx(0.9)
    assert np.isnan(r["accuracy"][:4]).all() and np.isnan(r["confidence"][:4]).all()
    assert calibration_error(p, [0, 1, 1, 0], bins=5) == pytest.approx(0.15)


def test_calibration_error_weighs_bins_by_their_count():
    p = [[0.95, 0.05]] * 3 + [[0.55, 0.45]]
    assert calibration_error(p, [0, 0, 1, 1]) == pytest.approx(
        0.75 * (0.95 - 2 / 3) + 0.25 * 0.55
    )
    assert calibration_error([[1.0, 0.0]], [0]) == 0


def test_measures_refuse_what_are_no_probabilities():
    for f in (brier, reliability, calibration_error):
        with pytest.raises(ValueError, match="probs: expected rows from 0"):
            f([[2.0, 1.0]], [0])
        with pytest.raises(ValueError, match="labels: expected classes from 0 to 1"):
            f([[0.5, 0.5]], [2])


def test_a_bar_is_shown_only_to_whom_jupyter_serves(monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert [*progress(range(3), "run")] == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("JPY_SESSION_NAME", "01.ipynb")
    bar = progress([3, 4], "epoch")
    bar.refresh()  # as it would be after two seconds
    assert "/2" in capsys.readouterr().err
    assert [*bar] == [3, 4] and not bar.leave


def test_an_interval_of_one_mean_counts_seeds_examples_and_groups():
    hits = np.random.default_rng(0).random((3, 200)) < 0.7
    found = mean_interval(hits)
    assert found == paired_bootstrap(hits, np.zeros((3, 200)))
    assert found.value == hits.mean() and found.low < found.value < found.high
    voice = np.repeat(np.arange(10), 20)
    steady = (np.arange(10) < 7)[voice]  # all that differs, differs by voice
    wide, narrow = mean_interval(steady, voice), mean_interval(steady)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_luck_of_a_training_is_drawn_once():
    "Two uses of each of four models: one gains ten points everywhere."
    rng = np.random.default_rng(1)
    a = rng.random((4, 500)) < np.array([[0.2], [0.4], [0.6], [0.8]])
    b = a.astype(float) - 0.1
    together, apart = mean_interval(a - b), paired_bootstrap(a, b)
    assert together.value == pytest.approx(0.1)
    assert together.high - together.low < 1e-9
    assert apart.high - apart.low > 0.1
