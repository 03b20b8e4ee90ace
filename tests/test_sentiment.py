"Sentiment: a lexicon as VADER's, readers against others, units, composed posts, costs."

import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmcourse import sentiment_tools
from mmcourse.explorables import person_slider
from mmcourse.sentiment import (
    MISTAKE_COSTS,
    GramReader,
    answer_or_ask,
    changed_value,
    choose_limit,
    draw_emoji,
    feeling_of,
    lexicon_score,
    lone_readers,
    paid,
    person_cost,
    score_columns,
    word_values,
)
from mmcourse.sentiment_tools import (
    DOMAINS,
    SentenceNet,
    after_but,
    as_levels,
    bare_word,
    character_runs,
    chinese_reviews,
    correlation_interval,
    deal_units,
    emoji_feelings,
    emoji_shares,
    few_readers,
    from_levels,
    kept_costs,
    known_words,
    rated_sentences,
    read_lexicon,
    read_probes,
    read_rules,
    sentiment_hits,
    sentiment_scores,
    shift_hits,
    split_words,
    train_emoji_net,
    train_sentence_net,
    word_pairs,
)
from mmcourse.store import CorruptData, data_path, from_bits, kept_runs

needs_vader = pytest.mark.skipif(
    importlib.util.find_spec("vaderSentiment") is None, reason="vaderSentiment"
)
LEX = {"good": 2.0, "bad": -2.0, "no": -1.0, "kind": 2.5}
RULES = {"very": 0.3, "hardly": -0.3}, frozenset({"not", "never"})


# the data
def test_sentences_are_the_ones_on_the_card():
    said = rated_sentences()
    assert len(said["text"]) == 5599
    assert [sum(said["domain"] == d) for d in DOMAINS] == [1400, 1400, 1399, 1400]
    assert len(set(said["text"])) == 5599
    there = ~np.isnan(said["ratings"])
    assert there.sum(1).min() >= 14
    assert np.nanmax(abs(said["ratings"])) == 4
    np.testing.assert_allclose(said["mean"], np.nanmean(said["ratings"], 1))


def test_each_unit_lies_in_one_split_and_shares_are_kept():
    said = rated_sentences()
    for u in np.unique(said["unit"]):
        assert len(set(said["split"][said["unit"] == u])) == 1
    for d in DOMAINS:
        here = said["split"][said["domain"] == d]
        assert 0.58 < (here == "train").mean() < 0.63
        assert 0.23 < (here == "test").mean() < 0.27


def test_users_links_and_long_numbers_are_gone():
    texts = [*rated_sentences()["text"], *chinese_reviews()["text"]]
    assert not any("http:/" in t or "https:/" in t for t in texts)
    named = [t for t in texts if re.search(r"(?<!\w)@(?!user\b)\w{3,}", t)]
    assert named == []
    assert not any(re.search(r"\d{5}", t) for t in chinese_reviews()["text"])
    zh = chinese_reviews()
    assert np.bincount(zh["label"]).tolist() == [1000, 1000]
    assert len(set(zh["text"])) == 2000
    assert max(map(len, zh["text"])) <= 60


def test_emoji_counts_belong_to_their_emoji():
    faces = emoji_feelings()
    place = {c: i for i, c in enumerate(faces["emoji"])}
    assert faces["counts"][place["😂"]].tolist() == [3614, 4163, 6845]
    assert faces["name"][place["😍"]] == "smiling face with heart-eyes"
    assert faces["image"].shape == (399, 3, 32, 32)
    assert np.bincount(faces["fold"]).min() > 70
    assert faces["counts"].sum(1).min() >= 20


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    bad = bytearray(data_path("sentiment.npz").read_bytes())
    bad[1000] ^= 1
    (tmp_path / "sentiment.npz").write_bytes(bad)
    monkeypatch.setattr(sentiment_tools, "data_path", lambda name: tmp_path / name)
    with pytest.raises(CorruptData):
        sentiment_tools._file.__wrapped__()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_units_are_dealt_out_whole(units, seed):
    split = deal_units(units, {"a": 0.5, "b": 0.5}, seed)
    assert set(split) <= {"a", "b"}
    for u in set(units):
        assert len({s for s, v in zip(split, units) if v == u}) == 1


def test_probes_are_pairs():
    probes = read_probes()
    assert sum(map(len, probes.values())) >= 40
    assert all(len(p) == 2 and p[0] != p[1] for k in probes.values() for p in k)


# words
def test_words_smileys_and_characters():
    assert split_words("It DIDN’T work... :-(") == [
        "it",
        "didn't",
        "work",
        "...",
        ":-(",
    ]
    assert word_pairs("so bad") == ["so", "bad", "so bad"]
    assert bare_word('"good!"') == "good"
    assert bare_word(":)") == ":)"
    assert character_runs("不 好用", 2) == ["不", "好", "用", "不好", "好用"]


# the lexicon
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("good", [2]),
        ("very good", [0, 2.3]),
        ("very bad", [0, -2.3]),
        ("hardly good", [0, 1.7]),
        ("not good", [0, 2 * -0.74]),
        ("never a good day", [0, 0, 2 * -0.74, 0]),
        ("not one of the good", [0, 0, 0, 0, 2]),
        ("very a good", [0, 0, 2 + 0.3 * 0.95]),
        ("isn't good", [0, 2 * -0.74]),
        ("no good", [0, 2 * -0.74]),  # the 'no' turns, and is nothing itself
        ("no table", [-1, 0]),
        ("very very very very good", [0, 0, 0, 0, 2 + 0.3 * (1 + 0.95 + 0.9)]),
        ("bad good", [-2, 2]),
        ("what GOOD food", [0, 2.733, 0]),
        ("GOOD FOOD", [2, 0]),
        ("good but bad", [1, 0, -3]),
        ("kind of", [0, 0]),
        ("Good, bad.", [2, -2]),
    ],
)
def test_word_values_by_hand(text, values):
    np.testing.assert_allclose(word_values(text, LEX, *RULES), values)


def test_score_by_hand():
    assert lexicon_score("good", LEX) == pytest.approx(2 / np.sqrt(4 + 15))
    s = 2 + 2 * 0.292
    assert lexicon_score("good!!", LEX) == pytest.approx(s / np.sqrt(s * s + 15))
    assert lexicon_score("good!!!!!!", LEX) == lexicon_score("good!!!!", LEX)
    assert lexicon_score("the table", LEX) == 0
    assert after_but(np.ones(3), ["a", "b", "c"]).tolist() == [1, 1, 1]


def test_a_value_is_changed_by_three_words_the_nearest_first():
    assert changed_value(2, [], LEX, *RULES) == 2
    near_first = (2 + 0.3) * -0.74
    assert changed_value(2, ["not", "very"], LEX, *RULES) == pytest.approx(near_first)
    turned_first = 2 * -0.74 - 0.95 * 0.3
    assert changed_value(2, ["very", "not"], LEX, *RULES) == pytest.approx(turned_first)
    assert changed_value(2, ["not", "a", "b", "c"], LEX, *RULES) == 2
    assert known_words(["no", "good", "no"], LEX, {}) == [1, 2]
    assert known_words(["good", "kind", "of", "kind"], LEX, {"good": 1}) == [3]


@needs_vader
def test_lexicon_is_near_the_package():
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    package = SentimentIntensityAnalyzer()
    assert read_lexicon().items() <= package.lexicon.items()
    texts = rated_sentences()["text"]
    theirs = np.array([package.polarity_scores(t)["compound"] for t in texts])
    ours = np.array([lexicon_score(t) for t in texts])
    kept = kept_runs("sentiment", "vader/parity")[0]
    assert (abs(ours - theirs) < 1e-3).mean() == pytest.approx(kept["equal"], abs=1e-3)
    assert np.corrcoef(ours, theirs)[0, 1] == pytest.approx(kept["r"], abs=1e-3)
    assert kept["equal"] > 0.96


def test_rules_hold_boosters_and_negations():
    boosters, negations = read_rules()
    assert boosters["very"] == 0.293
    assert boosters["hardly"] == -0.293
    assert {"not", "never"} <= negations


# readers
def test_three_classes():
    assert feeling_of([-4, -0.51, -0.5, 0, 0.5, 0.51, 4]).tolist() == [
        0,
        0,
        1,
        1,
        1,
        2,
        2,
    ]


def test_lone_readers_by_hand():
    mine, others = lone_readers(np.array([[1.0, 3, np.nan], [0, 0, 6]]))
    np.testing.assert_allclose(others[0, :2], [3, 1])
    assert np.isnan(others[0, 2])
    assert np.isnan(mine[0, 2])
    np.testing.assert_allclose(others[1], [3, 3, 0])


def test_gram_reader_learns_and_ignores_the_unknown():
    texts = ["good food", "good day", "bad food", "bad day"] * 5
    reader = GramReader(word_pairs, least=1).fit(texts, [1, 1, 0, 0] * 5, C=10)
    p = reader(["good thing", "bad thing", "never seen"])
    assert p.argmax(1)[:2].tolist() == [1, 0]
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p[2], reader(["other words"])[0])
    assert abs(p[2, 0] - 0.5) < 0.05


def test_gram_reader_is_softmax_regression_on_tf_idf_of_scikit_learn():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = list(rated_sentences()["text"][:200])
    reader = GramReader(word_pairs, least=3).fit(texts, [0, 1] * 100)
    known = reader.vocab.tokens[2:]
    theirs = TfidfVectorizer(analyzer=word_pairs, vocabulary=known).fit(texts)
    x = theirs.transform(texts).toarray()
    np.testing.assert_allclose(reader.features(texts)[:, 2:], x, atol=1e-12)


def test_more_columns_come_last():
    texts = ["good", "bad", "good", "bad"]
    reader = GramReader(split_words, score_columns, least=1).fit(texts, [1, 0, 1, 0])
    x = reader.features(["good"])
    np.testing.assert_allclose(x[0, -2:], [lexicon_score("good")] * 2)


def test_networks_train_alike_from_one_seed():
    texts, labels = ["good day", "bad day"] * 20, [2, 0] * 20
    nets = [train_sentence_net((texts, labels), (texts, labels), 1, 3) for _ in "ab"]
    for a, b in zip(*(n.state_dict().values() for n in nets)):
        assert torch.equal(a, b)
    net = SentenceNet(texts)
    ids, mask = net.ids(["good", "good day"])
    assert mask.sum(1).tolist() == [1, 2]
    one = net.eval()(net.ids(["good"]))
    torch.testing.assert_close(net((ids, mask))[:1], one, atol=1e-5, rtol=1e-4)
    ids, mask = net.ids([""])  # nothing is one unknown word
    assert ids[0, 0] == 1
    assert mask.sum() == 1


def test_emoji_net_learns_what_it_sees():
    x = torch.zeros(400, 3, 32, 32)
    x[::2] = 1
    shares = np.tile([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], (200, 1))
    net = train_emoji_net(x, shares, epochs=8)
    with torch.no_grad():
        assert net(x)[:2].argmax(1).tolist() == [2, 0]
    np.testing.assert_allclose(
        emoji_shares(np.array([[0, 1, 3]])), [[1 / 7, 2 / 7, 4 / 7]]
    )


# posts
def test_emoji_are_drawn_as_often_as_promised():
    rng = np.random.default_rng(0)
    counts = np.eye(3)  # emoji k stands only with feeling k
    labels = rng.integers(0, 3, 6000)
    for a in (0.0, 0.4, 1.0):
        same = (draw_emoji(labels, counts, a, rng) == labels).mean()
        assert same == pytest.approx(a + (1 - a) / 3, abs=0.025)


def test_emoji_are_drawn_by_their_counts():
    rng = np.random.default_rng(0)
    drawn = draw_emoji(np.zeros(4000, int), np.array([[3, 0, 90], [1, 9, 0]]), 1.0, rng)
    assert (drawn == 0).mean() == pytest.approx(0.75, abs=0.03)


# correlation
@given(
    hnp.arrays(float, 12, elements=st.floats(-1, 1, width=16), unique=True),
    st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_correlation_is_numpys(scores, seed):
    truth = np.random.default_rng(seed).normal(size=12)
    found = correlation_interval(scores, truth, n=50)
    assert found.value == pytest.approx(np.corrcoef(scores, truth)[0, 1], abs=1e-6)


def test_interval_of_units_is_wider_than_of_copies():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    scores = truth + rng.normal(size=40)
    many = [np.repeat(v, 10) for v in (scores, truth, np.arange(40))]
    apart = correlation_interval(many[0], many[1])
    joined = correlation_interval(*many)
    alone = correlation_interval(scores, truth)
    assert joined.high - joined.low > 2 * (apart.high - apart.low)
    assert joined.high - joined.low == pytest.approx(alone.high - alone.low, rel=0.2)


def test_levels_keep_scores():
    x = np.linspace(-1, 1, 201)
    assert abs(from_levels(as_levels(x)) - x).max() <= 1 / 39 + 1e-9
    assert json.loads(json.dumps(as_levels(x))) == as_levels(x)


# the decision
def test_costs_and_answers_by_hand():
    p = np.array([[0.4, 0.2, 0.4], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    assert answer_or_ask(p, 9).tolist() == [1, 0, 2]
    assert answer_or_ask(p, 0.81).tolist() == [1, 0, 2]  # 0.4 + 0.4 is expected
    assert answer_or_ask(p, 0.79).tolist() == [-1, 0, 2]
    assert answer_or_ask(p, 0.0).tolist() == [-1, -1, 2]
    bill = paid(np.array([0, -1, 1]), np.array([2, 0, 1]), np.array([0.2, 0.3, 0.4]))
    assert bill.tolist() == [3, 0.3, 0]
    assert (MISTAKE_COSTS == MISTAKE_COSTS.T).all()


def test_limit_is_the_best_of_all_tried():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1] * 3, 300)
    labels = np.array([rng.choice(3, p=q) for q in p])
    limit = choose_limit(p, labels, np.full(300, 0.4))
    best = paid(answer_or_ask(p, limit), labels, 0.4).mean()
    for t in (0.0, 0.2, 0.6, 1.0, 1.5):
        assert best <= paid(answer_or_ask(p, t), labels, 0.4).mean()
    assert 0.2 < limit < 0.6  # true probabilities: near the price of asking


def test_person_cost_by_hand():
    ratings = np.array([[2.0, 2, -2], [0, 0, np.nan]])
    # others of the first: 0, 0, 2 -> neutral, neutral, positive; own: +, +, -
    np.testing.assert_allclose(person_cost(ratings, 0.5), [0.5 + (1 + 1 + 3) / 3, 0.5])


def test_slider_says_what_it_shows():
    made = {"machine": 0.5, "person": 0.4, "cost": 0.35, "asked": 0.3}
    page = person_slider([{"0.1": made}, {"0.1": made | {"asked": 0.5}}])
    assert "Fee 0.1: a person reads 40%" in page._repr_html_()


# what the lab reports
def test_kept_results_fit_the_data():
    n = int((rated_sentences()["split"] == "test").sum())
    for name in ("lexicon", "grams", "both", "network", "minilm"):
        runs = kept_runs("sentiment", f"text/{name}")
        assert len(runs) == 5
        assert from_bits([r["hits"] for r in runs]).shape == (5, n)
        assert len(from_levels(runs[0]["scores"])) == n
    for name in ("picture", "text", "fused", "shuffled", "known", "table"):
        assert from_bits(kept_runs("sentiment", f"posts/{name}")).shape == (5, n)


def test_results_are_read_as_the_study_wrote_them():
    said = rated_sentences()
    test = said["split"] == "test"
    own, others = shift_hits("lexicon")
    assert set(np.unique(own)) == {0, 1}
    assert set(np.unique(others * 3)) <= {0, 1, 2, 3}
    assert own.shape == others.shape == (5, test.sum())
    assert own.mean() > others.mean()
    scores = np.mean(sentiment_scores("text/lexicon"), axis=0)
    mine = [lexicon_score(t) for t in said["text"][test]]
    assert np.corrcoef(scores, mine)[0, 1] > 0.95
    costs = kept_costs("fused", 0.0)
    assert costs["person"].shape == (5,)
    assert (costs["person"] < kept_costs("fused")["person"]).all()
    first = kept_runs("sentiment", "text/lexicon")[0]["probes"]["irony"]
    assert from_bits([first]).shape == (1, len(read_probes()["irony"]))
    assert sentiment_hits("中文/one", "probes").shape == (5, 12)


def test_more_readers_agree_better_with_the_rest():
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=(400, 1)) + rng.normal(size=(400, 20))
    one, five = (few_readers(ratings, k, rng) for k in (1, 5))
    assert one == pytest.approx(1 / np.sqrt(2 * (1 + 1 / 14)), abs=0.07)
    assert five == pytest.approx(1 / np.sqrt((1 + 1 / 5) * (1 + 1 / 10)), abs=0.05)


def test_the_text_of_composed_posts_is_the_text_alone():
    text = from_bits([r["hits"] for r in kept_runs("sentiment", "text/both")])
    again = from_bits(kept_runs("sentiment", "posts/text"))
    assert abs(text.mean() - again.mean()) < 0.02
