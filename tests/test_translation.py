"Scores that are sacrebleu's, searches that agree, models blind to padding, real pairs."

import lzma
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse import translation_tools as tools
from mmcourse.store import CorruptData, data_path
from mmcourse.translation import (
    GRUTranslator,
    PointerTranslator,
    TransformerTranslator,
    attention_map,
    beamed,
    bleu,
    cheapest,
    chrf,
    chrf_each,
    greedily,
    mean_cost,
    with_gaps,
)
from mmcourse.translation_parts import (
    BEGIN,
    DONE,
    GAP,
    SHIFT,
    Tongues,
    english,
    logits_of,
    rows_of,
    train_translator,
    words_13a,
    words_zh,
)
from mmcourse.translation_tools import (
    links,
    nearest_pairs,
    translation_pairs,
    word_by_word,
    words_in,
)

WORDS = st.sampled_from(
    ["the", "cat", "a", "mat.", "1,000", "it's", "3-4", "&quot;", "x/y", "No!", "(a)"]
)
TEXTS = st.lists(WORDS, max_size=9).map(" ".join)
ZH = st.text(alphabet="他在家。，了ab 1.", max_size=10)


def corpus(texts):
    return st.lists(st.tuples(texts, texts), min_size=1, max_size=6)


def sides(pairs):
    return [a for a, _ in pairs], [b for _, b in pairs]


@settings(deadline=None, max_examples=80)
@given(corpus(TEXTS))
def test_scores_are_sacrebleus(pairs):
    sacrebleu = pytest.importorskip("sacrebleu")
    said, truths = sides(pairs)
    theirs = sacrebleu.corpus_bleu(said, [truths]).score
    assert bleu(said, truths) == pytest.approx(theirs, abs=1e-6)
    theirs = sacrebleu.corpus_chrf(said, [truths]).score
    assert chrf(said, truths) == pytest.approx(theirs, abs=1e-6)
    each = [sacrebleu.sentence_chrf(a, [b]).score for a, b in pairs]
    assert chrf_each(said, truths) == pytest.approx(np.array(each), abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(corpus(ZH))
def test_chinese_scores_are_sacrebleus(pairs):
    sacrebleu = pytest.importorskip("sacrebleu")
    said, truths = sides(pairs)
    theirs = sacrebleu.corpus_bleu(said, [truths], tokenize="zh").score
    assert bleu(said, truths, words_zh) == pytest.approx(theirs, abs=1e-6)
    theirs = sacrebleu.corpus_chrf(said, [truths]).score
    assert chrf(said, truths) == pytest.approx(theirs, abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(st.text("abZ 019.,-/()'\"!?:;$%&他在，。（Ａ", max_size=20))
def test_words_are_sacrebleus(text):
    pytest.importorskip("sacrebleu")
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    text = text.replace("<skipped>", "").replace("-\n", "")
    assert " ".join(words_13a(text)) == Tokenizer13a()(text)
    assert " ".join(words_zh(text)) == TokenizerZh()(text)


def test_scores_by_hand():
    truth = ["a b c d e f g h"]
    assert bleu(truth, truth) == pytest.approx(100)
    assert bleu(["a b c d e f"], truth) == pytest.approx(100 * math.exp(1 - 8 / 6))
    assert bleu(["z"], truth) == 0 and bleu([""], truth) == 0
    assert chrf(["ab"], ["ab"]) == pytest.approx(100)
    # p = mean(1/2, 0), r the same
    assert chrf(["ab"], ["ac"]) == pytest.approx(25)


@pytest.mark.parametrize("score", [bleu, chrf])
def test_scores_refuse(score):
    with pytest.raises(ValueError):
        score(["a"], ["a", "b"])
    with pytest.raises(TypeError, match="said"):
        score([3], ["a"])


@pytest.fixture(scope="module")
def pairs():
    return translation_pairs()


def test_pairs_are_whole(pairs):
    parts, glosses = pairs
    assert {k: len(p) for k, p in parts.items()} == {
        "train": 3487,
        "valid": 249,
        "test": 494,
    }
    rows = sum(parts.values(), [])
    assert all("".join(p["words"]) == p["chinese"] for p in rows)
    assert {p["level"] for p in rows} == {1, 2, 3, 4, 5, 6}
    for key in ("chinese", "english", "place"):
        assert len({p[key] for p in rows}) == len(rows)
    words = {w for p in rows for w in p["words"] if w[0].isalnum()}
    assert words <= set(glosses)


def test_placeholders_are_left_out_and_nobody_changes_part(pairs):
    text = lzma.decompress(data_path("translation_pairs.xz").read_bytes()).decode()
    lines = text.split("\n\n")[0].split("\n")
    junk = {i for i, line in enumerate(lines) if "placeholder" in line}
    assert len(lines) == 4245 and len(junk) == 15
    for name, part in pairs[0].items():
        places = [p["place"] for p in part]
        there = range(len(lines))[tools.SPLITS[name]]
        assert places == [i for i in there if i not in junk]
        for p in part[::50]:
            assert lines[p["place"]].endswith(p["chinese"] + "\t" + p["english"])


def test_a_changed_file_is_refused(monkeypatch):
    monkeypatch.setattr(tools, "PAIRS_DIGEST", "0" * 64)
    with pytest.raises(CorruptData):
        translation_pairs()


def test_words_and_links():
    assert words_in("我，喜欢猫。", "121") == ["我", "，", "喜欢", "猫", "。"]
    glosses = {"我": "I; me", "喜欢": "to like; to be fond of", "猫": "cat"}
    pair = {"chinese": "我喜欢猫。", "words": ["我", "喜欢", "猫", "。"]}
    pair["english"] = "I liked the cats."
    assert word_by_word(pair, glosses) == "i like cat ."
    assert links(pair, glosses) == {0: 0, 1: 1, 3: 2}
    twice = pair | {"words": ["猫", "猫"]}
    assert links(twice, glosses) == {}
    near, match = nearest_pairs([pair], [pair | {"chinese": "他走了。"}, pair])
    assert near == [pair] and match.tolist() == [1.0]


def small(kind, seed=0, d=16, **options):
    torch.manual_seed(seed)
    if kind == "gru":
        return GRUTranslator(9, 12, d, **options).eval()
    if kind == "pointer":
        return PointerTranslator(12, d, **options).eval()
    return TransformerTranslator(9, 12, 7, d, **options).eval()


TEXT, SOUND, ANSWER = [3, 4, 5, 6], [1, 2, 3], [4, 7, 5]


@pytest.mark.parametrize("kind", ["gru", "pointer", "transformer"])
def test_padding_is_not_read(kind):
    model = small(kind)
    alone, _ = logits_of(model, [TEXT], [SOUND], [ANSWER])
    longer = [2] * 8
    batch, ids = logits_of(model, [TEXT, longer], [SOUND, longer[:6]], [ANSWER, longer])
    assert torch.allclose(alone[0], batch[0, :4], atol=1e-5)
    assert ids[0].tolist() == [4, 7, 5, DONE, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["gru", "pointer", "transformer"])
def test_the_future_is_not_read(kind):
    model = small(kind)
    a, _ = logits_of(model, [TEXT], [SOUND], [ANSWER])
    b, _ = logits_of(model, [TEXT], [SOUND], [[4, 7, 9]])
    assert torch.allclose(a[0, :3], b[0, :3], atol=1e-6)
    assert not torch.allclose(a[0, 3], b[0, 3], atol=1e-4)


def test_both_inputs_are_read_and_either_may_be_missing():
    model = small("transformer")
    a, _ = logits_of(model, [TEXT], [SOUND], [ANSWER])
    for text, sound in (
        ([3, 4, 5, 7], SOUND),
        (TEXT, [1, 2, 4]),
        ([], SOUND),
        (TEXT, []),
    ):
        b, _ = logits_of(model, [text], [sound], [ANSWER])
        assert b.isfinite().all() and not torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("kind", ["gru", "pointer", "transformer"])
def test_a_beam_of_one_is_greedy(kind):
    for seed in range(4):
        model = small(kind, seed)
        answers, sure = greedily(model, [TEXT, TEXT[:2]], [SOUND, []])
        for text, sound, ids, mean in zip((TEXT, TEXT[:2]), (SOUND, []), answers, sure):
            score, found = beamed(model, text, 1, sound)
            assert found == ids and all(i >= SHIFT for i in ids)
            assert score < 0 and mean < 0
            if len(ids) < 31:
                assert score == pytest.approx(float(mean), abs=1e-4)


def test_confidence_is_the_mean_log_probability():
    model = small("gru")
    (ids,), (sure,) = greedily(model, [TEXT])
    z, wanted = logits_of(model, [TEXT], [[]], [ids])
    log_p = z.log_softmax(2).gather(2, wanted[..., None]).mean()
    if len(ids) < 31:
        assert sure == pytest.approx(float(log_p.detach()), abs=1e-4)


@pytest.mark.parametrize("kind", ["gru", "pointer", "transformer"])
def test_a_small_language_is_learnt(kind):
    rng = np.random.default_rng(0)
    texts = [rng.integers(3, 9, rng.integers(2, 5)).tolist() for _ in range(64)]
    other = kind != "pointer"  # a pointer's language is told by copying
    answers = [[t + other for t in row] for row in texts]  # word for word
    model = small(kind, d=32, dropout=0.0)

    def draw(rows, rng):
        return [texts[i] for i in rows], [[]] * len(rows), [answers[i] for i in rows]

    history = train_translator(model, draw, [len(a) for a in answers], 40, size=8)
    assert history[-1] < history[0]
    said, _ = greedily(model, texts)
    right = [a == b for a, b in zip(said, answers)]
    assert np.mean(right) > 0.8 and not model.training


def test_a_pointer_copies_or_writes():
    model = small("pointer")
    z, _ = logits_of(model, [TEXT], [[]], [ANSWER])
    assert torch.allclose(z.exp().sum(-1), torch.ones(1, 4), atol=1e-4)
    with torch.no_grad():
        model.gate.weight.zero_()
        model.gate.bias.fill_(-30.0)  # copies only
        p = logits_of(model, [TEXT], [[]], [ANSWER])[0].exp()
        assert p[..., TEXT].sum(-1).min() > 0.999
        _, w = model.look(
            torch.tensor([[0, *ANSWER]]), *model.encode(rows_of([TEXT]))[:3]
        )
        assert torch.allclose(p[0][:, TEXT], w[0], atol=1e-4)
        twice = logits_of(model, [[3, 3, 3]], [[]], [ANSWER])[0].exp()
        assert twice[..., 3].min() > 0.999  # shares of equal pieces are added
        model.gate.bias.fill_(30.0)  # writes only
        p = logits_of(model, [TEXT], [[]], [ANSWER])[0].exp()
        assert p[..., [0, 1, 2, *range(7, 12)]].sum(-1).min() > 0.05


def test_the_map_adds_up_characters_and_tokens():
    model = small("gru")
    w = attention_map(model, TEXT, ANSWER, [1, 3], [True, False, True])
    assert w.shape == (2, 2) and np.allclose(w.sum(1), 1, atol=1e-5)
    fine = attention_map(model, TEXT, ANSWER, [1] * 4, [True] * 3)
    assert np.allclose(w[0, 1], fine[:2, 1:].sum() / 2, atol=1e-5)
    assert np.allclose(w[1, 0], fine[2, 0], atol=1e-5)


def test_tongues_write_what_they_read(pairs):
    some = pairs[0]["train"][:200]
    tongues = Tongues.learn(some, 100)
    for p in some[:20]:
        ids = [SHIFT + i for i in tongues.bpe.encode(english(p))]
        assert tongues.written([BEGIN, *ids, DONE]) == p["english"].lower()
    assert GAP in tongues.characters.ids
    known = [c for c in some[0]["chinese"] if c in tongues.characters.ids]
    ids = [SHIFT + i for i in tongues.characters.encode(known)]
    assert tongues.written_zh(ids) == "".join(known)


def test_gaps():
    rng = np.random.default_rng(0)
    ids = list(range(10, 2010))
    assert with_gaps(ids, 0, 1, rng) == ids and with_gaps(ids, 1, 1, rng) == [1] * 2000
    lost = with_gaps(ids, 0.3, 1, rng)
    assert 0.25 < np.mean([i == 1 for i in lost]) < 0.35
    assert all(a in (1, b) for a, b in zip(lost, ids))


def test_costs():
    sure, bad = np.array([0.9, 0.5, 0.5, 0.1]), np.array([False, True, False, True])
    assert mean_cost(sure, bad, 0.5, 3) == (0 + 3 + 0 + 1) / 4
    assert mean_cost(sure, bad, math.inf, 3) == 1
    assert cheapest(sure, bad, 3) == 0.9
    assert cheapest(sure, ~bad | bad, 3) == math.inf
    with pytest.raises((TypeError, ValueError), match="price"):
        mean_cost(sure, bad, 0.5, "high")


def test_a_memory_reads_what_it_is_told_to():
    pairs = [{"chinese": "好", "english": "a b"}, {"chinese": "坏", "english": "b c d"}]
    asked = [{"chinese": "坏", "english": "a b c"}]
    near, match = nearest_pairs(asked, pairs, lambda p: p["english"].split())
    assert near == pairs[:1] and match.tolist() == [3 / 5]
    near, _ = nearest_pairs(asked, pairs)
    assert near == pairs[1:]


def test_a_dictionary_turned_round():
    glosses = {"大": "big; large", "巨": "large", "看": "to see; big", "看见": "to see"}
    train = [{"words": ["看见", "看", "看见"]}, {"words": ["大"]}]
    senses = tools.turned_round(glosses, train)
    assert senses == {"big": "大", "large": "巨", "see": "看见"}
    pair = {"english": "See no big red cat."}
    assert tools.phrase_by_phrase(pair, senses) == "看见大"
    senses |= {"red cat": "红猫", "big red": "大红"}
    assert tools.phrase_by_phrase(pair, senses) == "看见大红"


def test_costs_by_price():
    match, each = np.array([0.9, 0.8, 0.2, 0.1]), np.array([90.0, 60, 10, 20])
    rows = tools.person_cost_rows((match, each), (match, each[::-1]))
    assert [r["kept (%)"] for r in rows] == ["100.0"] + ["50.0"] * 4
    assert [r["machine alone"] for r in rows] == [
        "0.50",
        "0.60",
        "0.75",
        "1.00",
        "2.00",
    ]
    saved = [float(r["saved against a person"].split()[0]) for r in rows]
    assert saved == pytest.approx([0.5, -0.1, -0.25, -0.5, -1.5])
    assert [r["with the threshold"] for r in rows][1:] == [
        "1.10",
        "1.25",
        "1.50",
        "2.50",
    ]


def test_every_network_has_three_seeds(pairs):
    wanted = len(pairs[0]["test"])
    for arm in [*tools.ARMS, "both", "into chinese"]:
        assert tools.each_of(arm).shape == (3, wanted)
    for share in tools.SHARES:
        arms = [f"text {share}", f"other {share}"]
        for arm in [*arms, *(f"both {share} {n}" for n in tools.NOISES)]:
            assert tools.noise_arm(arm).shape == (3, 250)


def test_what_speech_adds():
    row = tools.repair_rows()[3]
    both, text = tools.noise_arm("both 0.6 20"), tools.noise_arm("text 0.6")
    assert float(row["20 dB"].split()[0]) == pytest.approx(
        (both - text).mean(), abs=0.051
    )
    low = float(row["20 dB"].split()[1].strip("(+"))
    high = float(row["somebody else's, 20 dB"].split()[-1].strip("()"))
    assert low > 0 > high  # what the lab says: speech helps, a wrong one does harm


def test_acted_lines_are_counted_by_level(monkeypatch):
    run = {"levels": "3 7", "lines": "2 4", "hits": {"speech": "1 1"}}
    monkeypatch.setattr(tools, "kept_runs", lambda *_: [run, run])
    share, level = tools.fillets_hits("cs", "speech")
    assert share.tolist() == [50, 50, 25, 25, 25, 25] * 2
    assert level.tolist() == [3, 3, 7, 7, 7, 7] * 2


def test_kept_digits():
    assert tools.from_digits("0z").tolist() == [0, 100]
    assert tools.from_digits(["0z", "zz"]).shape == (2, 2)


def test_spoken_sentences(pairs):
    places, waves, heard = tools.spoken_sentences()
    assert len(places) == len(waves) == len(heard["said"]) == 3
    test = pairs[0]["test"]
    for i, wave, said in zip(places, waves, heard["said"]):
        signs = [c for c in test[i]["chinese"] if c.isalnum()]
        assert len(said.split()) == len(signs)
        assert 0.15 < len(wave) / 8000 / len(signs) < 0.6
    assert heard["rates"] == sorted(heard["rates"])  # noise rises
