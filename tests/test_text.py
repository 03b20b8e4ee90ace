"Text: spelling, tokens, vocabulary, padding, and byte-pair encoding against a recount."

import json
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from conftest import refused
from mmcourse.text import (
    BPE,
    PairCounts,
    Vocab,
    encode_chunk,
    grams,
    learn_merges,
    merge_pair,
    normalize_text,
    pad,
    preprocess_text,
    pretokenize,
    tokenize,
    unpad,
)

many = settings(max_examples=300, deadline=None, database=None)

# what is awkward comes more often than chance would have it
AWKWARD = ["👍🏽", "5️⃣", "e\u0301", "\u0301", "ﬁ", "İ", "ß", "五", "大于", "\U00020000"]
AWKWARD += [
    "½",
    "٣",
    "\x00",
    "\x1c",
    "\x85",
    "\u2028",
    "\u200d",
    "\ufeff",
    "\r\n",
    "  ",
]
AWKWARD += [" a", "n't", '"', "``", "_", "...", "$", "/", "<pad>", "\U0010ffff", "ﷺ"]
AWKWARD += ["क्षि", "각", "a" * 70, "五" * 70, " " * 70, "1" * 70]
anything = st.lists(st.sampled_from(AWKWARD) | st.text(max_size=3), max_size=9)
anything = anything.map("".join)

# --- spelling


@many
@given(anything)
def test_two_ways_to_write_the_same_become_one(s):
    forms = [unicodedata.normalize(form, s) for form in ("NFC", "NFD")]
    assert normalize_text(forms[0]) == normalize_text(forms[1])


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("Nai\u0308ve ﬁVE, ＯＤＤ x²", "naïve five, odd x2"),
        ("\ufeffodd", "odd"),  # a byte order mark
        ("o\u00add\u2060d\u200e", "odd"),  # soft hyphen, word joiner, direction
        ("odd\u200beven", "odd even"),  # a zero-width space parts words
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that belongs to the word
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("J\u030c", "j\u030c"),  # the form first, then the case
    ],
)
def test_normalize_text(text, wanted):
    assert normalize_text(text) == wanted


# --- tokens


@pytest.mark.parametrize(
    "text, words",
    [
        ("Below FIVE, odd.", ["below", "five", ",", "odd", "."]),
        ("It isn't odd", ["it", "is", "n't", "odd"]),
        ("Dr. Lee is odd. I am", ["dr.", "lee", "is", "odd.", "i", "am"]),
        ("大于五的偶数", list("大于五的偶数")),
        ("ab五c", ["ab", "五", "c"]),
        ("〇一𠮷\U0003134a々", ["〇", "一", "𠮷", "\U0003134a", "々"]),
        ("五。六、七", list("五。六、七")),
        ("aあb", ["aあb"]),  # kana are no Chinese characters
        ("¿odd? • and/or", ["¿", "odd", "?", "•", "and", "/", "or"]),
        ("“odd”—odd…", ["“", "odd", "”", "—", "odd", "..."]),
        ("سلام، دنیا", ["سلام", "،", "دنیا"]),
        ("odd 🎲 5️⃣ e-mail a_b", ["odd", "🎲", "5️⃣", "e-mail", "a_b"]),
        ("\ufeffＯＤＤ ﬁve", ["odd", "five"]),
        ("", []),
        (" \n\u3000\ufeff", []),
    ],
)
def test_tokenize(text, words):
    assert tokenize(text) == words


@many
@given(anything)
def test_tokens_are_words_without_spaces(s):
    words = tokenize(s)
    assert all(w and not any(c.isspace() for c in w) for w in words)
    assert tokenize(s.upper().upper()) == tokenize(s.upper())
    alone = [w for w in words if any("\u4e00" <= c <= "\u9fff" for c in w)]
    assert all(len(w) == 1 for w in alone)


def test_preprocess_text_keeps_the_places_of_what_is_missing():
    texts = [None, "It is odd", None, "even"]
    assert preprocess_text(texts) == [[], ["it", "is", "odd"], [], ["even"]]
    assert preprocess_text(np.array(["odd", "even"])) == [["odd"], ["even"]]


def test_what_is_no_text_is_refused():
    said = refused(preprocess_text, ["odd", 3], error=TypeError, name="text[1]: ")
    assert "expected str, got int 3" in said
    said = refused(preprocess_text, [" \ufeff"], error=ValueError, name="text[0]: ")
    assert "at least one word" in said


def test_grams():
    assert grams(["a", "b", "c"]) == ["a", "b", "c", "a b", "b c"]
    assert grams(["odd"]) == ["odd"] and grams([]) == []


# --- vocabulary

ROWS = [["b", "a", "c"], ["c", "b"], ["c", "<pad>", "<unk>"], ["d"]]


def test_frequent_tokens_come_first_and_equal_ones_by_the_alphabet():
    assert Vocab.build(ROWS).tokens == ["<pad>", "<unk>", "c", "b", "a", "d"]
    assert Vocab.build(ROWS[::-1]).tokens == Vocab.build(ROWS).tokens


def test_a_vocabulary_can_be_kept_small():
    assert Vocab.build(ROWS, min_count=2).tokens == ["<pad>", "<unk>", "c", "b"]
    assert Vocab.build(ROWS, max_size=3).tokens == ["<pad>", "<unk>", "c"]
    assert len(Vocab.build(ROWS, 2, 3)) == 3
    assert Vocab.build([]).tokens == ["<pad>", "<unk>"]


def test_ids_and_back():
    vocab = Vocab.build(ROWS)
    assert vocab.encode(["c", "e", "<pad>", "<unk>", "d"]) == [2, 1, 1, 1, 5]
    assert vocab.decode([2, 1, 0, 5]) == ["c", "<unk>", "<pad>", "d"]
    again = Vocab(json.loads(json.dumps(vocab.tokens)))
    assert again.encode(["a", "d", "x"]) == vocab.encode(["a", "d", "x"])


# --- padding

rows_of_ids = st.lists(st.lists(st.integers(-9, 9), max_size=6), min_size=1, max_size=5)


@many
@given(rows_of_ids)
def test_pad_equals_torch_and_unpad_undoes_it(rows):
    ids, mask = pad(rows)
    as_torch = [torch.tensor(r, dtype=torch.int64) for r in rows]
    ones = [torch.ones(len(r), dtype=torch.bool) for r in rows]
    assert ids.dtype == np.int64 and mask.dtype == bool
    assert np.array_equal(ids, pad_sequence(as_torch, batch_first=True))
    assert np.array_equal(mask, pad_sequence(ones, batch_first=True))
    assert unpad(ids, mask) == rows


@many
@given(rows_of_ids, st.integers(0, 8))
def test_rows_are_cut_behind(rows, length):
    ids, mask = pad(rows, length)
    assert ids.shape == mask.shape == (len(rows), length)
    assert unpad(ids, mask) == [r[:length] for r in rows]
    assert not ids[~mask].any()


def test_pad_takes_tensors_and_arrays():
    ids, mask = pad([torch.tensor([1, 2]), np.array([3]), (4, 5, 6)])
    assert ids.tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert mask.sum(1).tolist() == [2, 1, 3]


# --- byte-pair encoding


def test_merge_pair_goes_from_the_left():
    assert merge_pair(tuple("aaab"), ("a", "a"), "X") == ("X", "a", "b")
    assert merge_pair(tuple("aaaa"), ("a", "a"), "X") == ("X", "X")
    assert merge_pair(tuple("abcab"), ("a", "b"), "X") == ("X", "c", "X")
    assert merge_pair(tuple("ba"), ("a", "b"), "X") == ("b", "a")
    assert merge_pair((), ("a", "b"), "X") == ()


def recount(words, n_merges):
    "Byte-pair encoding with nothing kept from one merge to the next."
    words, merges = [(list(w), n) for w, n in words.items()], []
    while len(merges) < n_merges:
        count = Counter(p for w, n in words for p in zip(w, w[1:]) for _ in range(n))
        best = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:1]
        if not best or best[0][1] < 2:
            break
        pair = best[0][0]
        for w, _ in words:
            i = 0
            while i < len(w) - 1:
                if (w[i], w[i + 1]) == pair:
                    w[i : i + 2] = [256 + len(merges)]
                i += 1
        merges.append(pair)
    return merges


words_of_bytes = st.dictionaries(
    st.text("aabc", max_size=8).map(str.encode), st.integers(1, 4), max_size=8
)


@many
@given(words_of_bytes, st.integers(0, 15))
def test_merges_are_those_of_a_recount(words, n_merges):
    assert learn_merges(words, n_merges) == recount(words, n_merges)


def test_merges_of_real_text_are_those_of_a_recount():
    text = " ".join((pytest.__doc__ + json.__doc__ + str(np.__doc__)).split())
    words = Counter(w.encode() for w in pretokenize(text))
    merges = learn_merges(words, 150)
    assert len(merges) == 150 and merges == recount(words, 150)
    assert learn_merges(words, 10**6)[:150] == merges  # it ends by itself


def test_what_occurs_once_is_not_joined():
    assert learn_merges({b"abc": 1}, 9) == []
    assert learn_merges({b"ab": 2}, 9) == [(97, 98)]


def test_a_joined_pair_touches_only_words_that_hold_it():
    "The point of keeping counts: otherwise each merge would cost a recount."
    counts = PairCounts({b"ab": 5, b"cd": 3, b"abab": 1})
    assert counts.where[97, 98] == {0, 2}
    size = len(counts.heap)
    counts.join((97, 98), 256)
    assert counts.symbols == [(256,), (99, 100), (256, 256)]
    assert counts.count[97, 98] == 0 and counts.count[256, 256] == 1
    assert counts.most_frequent() == (99, 100)
    assert len(counts.heap) < size + 4


TRAINED = BPE.train(
    ["the thermal thing then the thin theory 大于五的偶数 👍🏽👍🏾 "] * 2, 60
)
BPES = [BPE(), TRAINED, BPE([(97, 97), (256, 256), (256, 97), (49, 49), (259, 49)])]


@many
@given(anything)
def test_bpe_gives_back_any_text(s):
    for bpe in BPES:
        ids = bpe.encode(s)
        assert bpe.decode(ids) == s
        assert b"".join(bpe.tokens[i] for i in ids) == s.encode()
        assert len(ids) <= len(s.encode())


@many
@given(anything, st.sampled_from(BPES))
def test_encoding_replays_the_merges_in_order(s, bpe):
    "As Sennrich et al. describe it: each merge once over each word, in order."
    ids = []
    for chunk in pretokenize(s):
        symbols = tuple(chunk.encode())
        for k, pair in enumerate(bpe.merges):
            symbols = merge_pair(symbols, pair, 256 + k)
        ids += symbols
    assert bpe.encode(s) == ids


def test_encode_chunk():
    rank = {(97, 98): 0, (256, 99): 1, (98, 99): 2}
    assert encode_chunk("abc", rank) == (257,)
    assert encode_chunk("bcab", rank) == (258, 256)
    assert encode_chunk("五", {}) == (0xE4, 0xBA, 0x94)
    assert encode_chunk("", rank) == () and encode_chunk("a", rank) == (97,)


def test_the_toy_of_the_paper():
    "Sennrich et al. 2016, Algorithm 1, with another rule for equal pairs."
    words = {b"low.": 5, b"lower.": 2, b"newest.": 6, b"widest.": 3}
    tokens = BPE(learn_merges(words, 5)).tokens[256:]
    assert tokens == [b"es", b"t.", b"est.", b"lo", b"low"]


def test_a_bpe_is_its_merges():
    again = BPE(json.loads(json.dumps(TRAINED.merges)))
    assert again.merges == TRAINED.merges and again.tokens == TRAINED.tokens
    assert again.encode("the theory 大于") == TRAINED.encode("the theory 大于")
    assert len(again) == 256 + len(TRAINED.merges) == len(again.tokens)


def test_a_shorter_training_is_the_beginning_of_a_longer_one():
    texts = ["the thin theory of the thing"]
    long = BPE.train(texts, 99).merges
    assert [BPE.train(texts, k).merges for k in (0, 1, 5)] == [
        long[:0],
        long[:1],
        long[:5],
    ]


def test_a_thousand_merges_unless_told_otherwise():
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(w) for w in np.random.default_rng(0).choice(letters, (9000, 4))]
    assert len(BPE.train(words).merges) == 1000 < len(BPE.train(words, 1100).merges)


def test_a_list_of_texts_is_not_one_long_text():
    "No space stands before the second text."
    assert BPE.train(["aa", "aa"]).merges == [(97, 97)]
    assert BPE.train(["aa aa aa"]).merges == [(97, 97), (32, 256)]


def test_halves_of_characters_do_not_stop_it():
    assert BPE().encode("a\ud83d") == [97, 0xED, 0xA0, 0xBD]
    assert BPE().decode([97, 0xED, 0xA0, 0xBD]) == "a���"
    assert len(BPE.train(["\ud83d\ud83d"], 3)) == 258
    assert BPE().decode([0xE4, 33]) == "�!"


# --- chunks


@many
@given(anything)
def test_chunks_lose_nothing(s):
    pieces = pretokenize(s)
    assert "".join(pieces) == s and all(0 < len(p) <= 65 for p in pieces)


@pytest.mark.parametrize(
    "text, chunks",
    [
        ("I  can't", ["I", " ", " can", "'", "t"]),
        ("e\u0301a 3.50\n", ["e\u0301a", " 3", ".", "50", "\n"]),
        ("क्षि٣", ["क्षि", "٣"]),
        ("odd   ", ["odd", "   "]),
        ("a_b $$", ["a", "_", "b", " $$"]),
        ("a" * 70, ["a" * 64, "a" * 6]),
        ("1" * 65, ["1" * 64, "1"]),
        ("." * 65, ["." * 64, "."]),
        (" " * 65 + "a", [" " * 64, " a"]),
    ],
)
def test_pretokenize(text, chunks):
    assert pretokenize(text) == chunks
