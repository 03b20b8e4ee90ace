"Text: any string at all through every function, the laws of encoding, bad input, and byte-pair encoding against a recount."

import json
import re
import time
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.text import (
    BPE,
    FORMS,
    Vocab,
    chunks,
    grams,
    learn_merges,
    merge,
    normalize_text,
    pad,
    preprocess_text,
    tokenize,
    unpad,
)

many = settings(max_examples=2000, deadline=None)
REFUSED = ValueError, TypeError

# any code point, halves of characters included, and what is awkward more often than chance would have it
AWKWARD = [
    "\ud83d",
    "\ude00",
    "👍🏽",
    "5️⃣",
    "e\u0301",
    "\u0301",
    "ﬁ",
    "İ",
    "ß",
    "五",
    "大于",
    "\U00020000",
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
    " a",
    "n't",
    '"',
    "''",
    "``",
    "_",
    "...",
    "$",
    "@",
    "<pad>",
    "\U000e0001",
    "\U0010ffff",
    "ﷺ",
    "क्षि",
    "ㄱ",
    "각",
    "a" * 70,
    "五" * 70,
    " " * 70,
    "1" * 70,
    "(" * 9,
]
anything = st.text(st.characters(exclude_categories=()), max_size=20).map(
    lambda s: s.translate(dict(enumerate(AWKWARD, ord("0"))))
)
rows_of_words = st.text("aaabbc五\ud83dxy||", max_size=20).map(
    lambda s: [
        [{"x": "<pad>", "y": "<unk>", "c": "cc"}.get(c, c) for c in row]
        for row in s.split("|")
    ]
)
rows_of_int = st.text("\0\1ab\U0010fffe\U0010ffff||", max_size=20).map(
    lambda s: [[(-1) ** ord(c) * ord(c) ** 3 for c in row] for row in s.split("|")]
)
words_of_bytes = (
    st.binary(max_size=40)
    .map(
        lambda b: dict(
            Counter(bytes(97 + c % 4 for c in w[1:]) for w in b.split(b"\1"))
        )
    )
    .map(lambda words: {w: n * (len(w) % 3 + 1) for w, n in words.items()})
)
BPES = [
    BPE(),
    BPE.train(
        [
            "the thermal thing then the thin theory 大于五的偶数 大于九的奇数 👍🏽👍🏾 aaaa aaaaaaa"
            * 2,
            "e\u0301e\u0301 \ud83d\ud83d",
        ],
        60,
    ),
    BPE([(97, 97), (256, 256), (256, 97), (49, 49), (259, 49)]),
]


def refused(function, *args, error=REFUSED, name, **kwargs):
    "The message; it must begin with the argument's name, be one line, and say what is wanted and what came."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert (
        message.startswith(name)
        and "\n" not in message
        and "expected" in message
        and "got" in message
    ), message
    return message


# --------------------------------------------------------------------------------------------------------------- normal forms and tokens
@many
@given(anything, st.sampled_from(FORMS))
def test_normalize_is_a_normal_form_then_lower_case(s, form):
    assert normalize_text(s, form=form) == unicodedata.normalize(form, s).lower()
    assert normalize_text(unicodedata.normalize("NFD", s)) == normalize_text(
        unicodedata.normalize("NFC", s)
    )  # one spelling for both


@many
@given(anything)
def test_tokenize_any_string(s):
    from nltk.tokenize import word_tokenize

    expected = word_tokenize(
        re.sub(
            "([\u3400-\u9fff\uf900-\ufaff])",
            r" \1 ",
            unicodedata.normalize("NFKC", s).lower(),
        ),
        preserve_line=True,
    )
    try:
        assert tokenize(s) == expected and all(expected)
    except ValueError:
        assert not expected


@many
@given(
    st.lists(
        st.one_of(
            anything, st.none(), st.binary(max_size=4), st.integers(), st.floats()
        ),
        max_size=3,
    )
)
def test_preprocess_any_list(texts):
    try:
        rows = preprocess_text(texts)
    except REFUSED as e:
        assert re.match(r"text(\[\d\])?: expected .*got", str(e)) and "\n" not in str(e)
    else:
        assert rows == [[] if t is None else tokenize(t) for t in texts] and texts


def test_tokenize_gives_what_the_course_relies_on():
    assert preprocess_text(["Below FIVE, odd."]) == [["below", "five", ",", "odd", "."]]
    assert preprocess_text([None, "odd"]) == [[], ["odd"]]
    assert tokenize("大于五的偶数") == list("大于五的偶数") and tokenize("ab五c") == [
        "ab",
        "五",
        "c",
    ]
    assert (
        all(
            tokenize(f"a{c}b") == ["a", c, "b"]
            for c in "\u3400\u4dbf\u4e00\u9fff\ufa0e\ufa29"
        )
        and tokenize("aあb") == ["aあb"]
        and tokenize("a\uf900b") == ["a", "豈", "b"]
    )
    assert tokenize("ＯＤＤ ﬁve") == ["odd", "five"]
    assert (
        normalize_text("J\u030c") == "j\u030c"
        and normalize_text("J\u030c", form="NFD") == "j\u030c"
        and normalize_text("x²", form="NFC") == "x²"
    )  # the form first, then the case
    assert tokenize("odd 🎲 5️⃣") == ["odd", "🎲", "5️⃣"]
    assert tokenize("It isn't odd") == ["it", "is", "n't", "odd"]
    assert (
        preprocess_text(np.array(["odd", "even"]))
        == preprocess_text(("odd", "even"))
        == [["odd"], ["even"]]
    )


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u3000", "\x1c"])
def test_blank_text(text):
    assert "None" in refused(preprocess_text, [text], error=ValueError, name="text[0]")
    assert "None" in refused(tokenize, text, error=ValueError, name="text")


def test_bytes():
    assert "decode" in refused(
        preprocess_text, ["odd", b"odd"], error=TypeError, name="text[1]"
    ) and "decode" in refused(tokenize, b"odd", error=TypeError, name="text")


@pytest.mark.parametrize(
    "x", [3, 1.5, float("nan"), ["odd"], {"odd"}, object(), np.zeros(3)]
)
def test_text_of_another_type(x):
    refused(preprocess_text, [x], error=TypeError, name="text[0]")
    refused(tokenize, x, error=TypeError, name="text")
    refused(normalize_text, x, error=TypeError, name="text")
    refused(BPES[0].encode, x, error=TypeError, name="text")
    refused(BPE.train, [x], error=TypeError, name="texts[0]")


@pytest.mark.parametrize("x", ["odd", b"odd", 3, None, {"text": "odd"}, np.float64(3)])
def test_text_not_a_list(x):
    refused(preprocess_text, x, error=TypeError, name="text")


def test_empty_list():
    refused(preprocess_text, [], error=ValueError, name="text")
    refused(BPE.train, [], error=ValueError, name="texts")


@pytest.mark.parametrize("form", ["nfc", "", None, 3, []])
def test_form(form):
    refused(normalize_text, "odd", form=form, error=ValueError, name="form")


def test_long_messages_are_clipped():
    assert len(refused(tokenize, " " * 100_000, name="text")) < 200


@many
@given(anything)
def test_grams(text):
    words = text.split("a")
    assert grams(words) == words + [
        " ".join(p) for p in zip(words, words[1:])
    ] and grams(tuple(words)) == grams(words)


# ------------------------------------------------------------------------------------------------------------------------------ vocabulary
@many
@given(rows_of_words, st.integers(1, 3), st.sampled_from([None, 2, 3, 4, 6]), anything)
def test_vocab_laws(rows, min_count, max_size, tokens):
    tokens = tokens.split("a")
    vocab = Vocab.build(rows, min_count, max_size)
    count = Counter(t for row in rows for t in row)
    assert vocab.tokens[:2] == ["<pad>", "<unk>"] and (
        max_size is None or len(vocab) <= max_size
    )
    kept, left = vocab.tokens[2:], {t for t in count if t not in vocab.tokens}
    assert all(count[t] >= min_count for t in kept) and [
        count[t] for t in kept
    ] == sorted((count[t] for t in kept), reverse=True)
    assert all(
        count[t] < min_count
        or (
            len(vocab) == max_size
            and count[t] <= min([count[k] for k in kept], default=10**9)
        )
        for t in left
    )
    for row in [*rows, tokens]:
        ids = vocab.encode(row)
        assert (
            len(ids) == len(row)
            and 0 not in ids
            and vocab.decode(ids) == [t if t in kept else "<unk>" for t in row]
        )
    assert Vocab(json.loads(json.dumps(vocab.tokens))).encode(tokens) == vocab.encode(
        tokens
    )
    assert (
        Vocab.build(rows[::-1], min_count, max_size).tokens == vocab.tokens
    )  # the order of the data does not matter


def test_vocab_takes_arrays():
    vocab = Vocab.build([np.array(["odd", "even"]), ("odd",)])
    assert (
        vocab.tokens == ["<pad>", "<unk>", "odd", "even"]
        and vocab.encode(np.array(["even", "x"])) == [3, 1]
        and vocab.decode(np.array([3, 0])) == ["even", "<pad>"]
    )
    assert Vocab.build([]).tokens == ["<pad>", "<unk>"] and Vocab.build(
        iter([["odd"]])
    ).encode(iter(["odd"])) == [2]


VOCAB = Vocab(["<pad>", "<unk>", "odd"])


@pytest.mark.parametrize(
    "x",
    [
        "odd",
        b"odd",
        3,
        None,
        {"odd": 1},
        [3],
        [None],
        [["odd"]],
        [b"odd"],
        np.array(3),
        np.array([1.0]),
    ],
)
def test_vocab_tokens_that_are_none(x):
    refused(VOCAB.encode, x, error=TypeError, name="tokens")
    refused(Vocab, x, error=TypeError, name="tokens")
    refused(Vocab.build, [x], error=TypeError, name="rows[0]")


@pytest.mark.parametrize("x", ["odd", b"odd", 3, None, {"odd": 1}])
def test_vocab_rows_that_are_none(x):
    refused(Vocab.build, x, error=TypeError, name="rows")


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        ["<pad>"],
        ["a", "b"],
        ["<unk>", "<pad>"],
        ["<pad>", "<unk>", "a", "a"],
        ["<pad>", "<unk>", "<pad>"],
    ],
)
def test_vocab_lists_that_are_none(tokens):
    refused(Vocab, tokens, error=ValueError, name="tokens")


@pytest.mark.parametrize(
    "kw",
    [
        {"min_count": 0},
        {"min_count": 1.5},
        {"min_count": True},
        {"min_count": None},
        {"max_size": 1},
        {"max_size": "9"},
        {"max_size": 2**80},
        {"max_size": float("inf")},
    ],
)
def test_vocab_sizes(kw):
    refused(Vocab.build, [["odd"]], **kw, error=ValueError, name=next(iter(kw)))


IDS = [
    [-1],
    [10**6],
    [2**80],
    [1.0],
    [True],
    [None],
    ["1"],
    [float("nan")],
    [[1]],
    [np.float32(1)],
]


@pytest.mark.parametrize("ids", IDS)
def test_ids_that_are_none(ids):
    refused(VOCAB.decode, ids, error=ValueError, name="ids[0]")
    for bpe in BPES:
        refused(bpe.decode, ids, error=ValueError, name="ids[0]")


@pytest.mark.parametrize("ids", ["12", b"12", 3, None, {1: 2}, np.array(3)])
def test_ids_not_a_list(ids):
    refused(VOCAB.decode, ids, error=TypeError, name="ids")
    for bpe in BPES:
        refused(bpe.decode, ids, error=TypeError, name="ids")


# --------------------------------------------------------------------------------------------------------------------------------- padding
@many
@given(rows_of_int)
def test_unpad_undoes_pad(rows):
    ids, mask = pad(rows)
    assert (
        ids.dtype == np.int64
        and mask.dtype == bool
        and ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    )
    assert (
        unpad(ids, mask) == rows
        and not ids[~mask].any()
        and (mask[:, 1:] <= mask[:, :-1]).all()
    )


@many
@given(rows_of_int, st.integers(0, 8))
def test_pad_to_a_length(rows, length):
    ids, mask = pad(rows, length)
    assert ids.shape == (len(rows), length) and unpad(ids, mask) == [
        r[:length] for r in rows
    ]


ITEMS = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=2),
    st.binary(max_size=2),
    st.lists(st.integers(0, 3), max_size=2),
    st.just(np.zeros((2, 2), int)),
    st.just(np.uint64(2**63)),
)


@many
@given(
    st.one_of(
        ITEMS, st.lists(st.one_of(ITEMS, st.lists(ITEMS, max_size=3)), max_size=3)
    ),
    st.one_of(st.none(), ITEMS),
)
def test_pad_anything(rows, length):
    try:
        ids, mask = pad(rows, length)
    except REFUSED as e:
        assert re.match(
            r"(rows|length)(\[\d+\])?: expected", str(e)
        ) and "\n" not in str(e), e
    else:
        assert (
            ids.shape == mask.shape and len(ids) == len(rows) and ids.dtype == np.int64
        )


@many
@given(
    st.one_of(ITEMS, st.lists(ITEMS, max_size=2)),
    st.one_of(ITEMS, st.lists(ITEMS, max_size=2), st.just(np.ones((2, 2), bool))),
)
def test_unpad_anything(ids, mask):
    try:
        unpad(ids, mask)
    except REFUSED as e:
        assert re.match("(ids|mask): expected", str(e)) and "\n" not in str(e), e


def test_pad_takes_tensors_and_arrays():
    import torch

    assert unpad(*pad([[-(2**63), 2**63 - 1], [0]])) == [[-(2**63), 2**63 - 1], [0]]
    rows = [torch.tensor([1, 2]), np.array([3], np.int32), (4, 5, 6), []]
    ids, mask = pad(rows)
    assert ids.tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6], [0, 0, 0]] and mask.sum(
        1
    ).tolist() == [2, 1, 3, 0]
    assert unpad(torch.tensor(ids), torch.tensor(mask)) == [[1, 2], [3], [4, 5, 6], []]
    assert pad(np.array([[1, 2], [3, 4]]))[1].all()


def test_pad_equals_torch():
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rng = np.random.default_rng(0)
    for _ in range(100):
        rows = [
            rng.integers(0, 99, rng.integers(0, 9)).tolist()
            for _ in range(rng.integers(1, 6))
        ]
        ids, mask = pad(rows)
        assert np.array_equal(
            ids,
            pad_sequence(
                [torch.tensor(r, dtype=torch.int64) for r in rows], batch_first=True
            ),
        )
        assert np.array_equal(
            mask,
            pad_sequence(
                [torch.ones(len(r), dtype=bool) for r in rows], batch_first=True
            ),
        )


@pytest.mark.parametrize(
    "rows, error",
    [
        ([], ValueError),
        ("ab", TypeError),
        (["ab"], TypeError),
        ([[1.5]], TypeError),
        ([None], TypeError),
        ([[1], None], TypeError),
        (3, TypeError),
        ([3], TypeError),
        ([[2**63]], REFUSED),
        ([[1, 2**80]], REFUSED),
        ([[True]], TypeError),
        ([[[1]]], ValueError),
        ([[[1], [2, 3]]], ValueError),
        (None, TypeError),
        ([[None]], TypeError),
    ],
)
def test_pad_refuses(rows, error):
    refused(pad, rows, error=error, name="rows")


@pytest.mark.parametrize("length", [-1, 1.5, True, "3", 10**12, 2**80])
def test_pad_refuses_lengths(length):
    refused(pad, [[1]], length, error=ValueError, name="length")


def test_unpad_refuses():
    ids, mask = pad([[1, 2], [3]])
    assert "bool" in refused(unpad, ids, mask.astype(int), error=TypeError, name="mask")
    for bad in (mask[:1], mask[0], mask[:, :1]):
        refused(unpad, ids, bad, error=ValueError, name="mask")
    refused(unpad, ids.astype(float), mask, error=TypeError, name="ids")


# ------------------------------------------------------------------------------------------------------------------------------------- BPE
@many
@given(anything)
def test_bpe_gives_back_any_string(s):
    for bpe in BPES:
        ids = bpe.encode(s)
        assert (
            bpe.decode(ids) == s
            and bpe.decode(np.array(ids, int)) == s
            and b"".join(bpe.tokens[i] for i in ids)
            == s.encode("utf-8", "surrogatepass")
        )
        assert len(ids) <= len(s.encode("utf-8", "surrogatepass"))


@many
@given(anything)
def test_chunks_lose_nothing(s):
    pieces = chunks(s)
    assert "".join(pieces) == s and all(0 < len(p) <= 65 for p in pieces)


@many
@given(st.binary(max_size=24))
def test_bpe_decodes_any_ids(b):
    ids = [(x * 256 + y) % len(BPES[1]) for x, y in zip(b[::2], b[1::2])]
    s = BPES[1].decode(ids)
    assert isinstance(s, str) and BPES[1].decode(BPES[1].encode(s)) == s


@many
@given(anything, st.sampled_from(BPES))
def test_encoding_replays_the_merges_in_order(s, bpe):
    "As Sennrich et al. describe it: each merge once over each word, the first learnt first."
    ids = []
    for word in chunks(s):
        symbols = tuple(word.encode("utf-8", "surrogatepass"))
        for k, pair in enumerate(bpe.merges):
            symbols = merge(symbols, pair, 256 + k)
        ids += symbols
    assert bpe.encode(s) == ids


def recount(words, n_merges):
    "Byte-pair encoding with nothing kept from one merge to the next."
    words, merges = [(list(w), n) for w, n in words.items()], []
    while len(merges) < n_merges:
        count = Counter(p for w, n in words for p in zip(w, w[1:]) for _ in range(n))
        best = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:1]
        if not best or best[0][1] < 2:
            break
        pair, new = best[0][0], 256 + len(merges)
        merges.append(pair)
        for w, _ in words:
            i = 0
            while i < len(w) - 1:
                if (w[i], w[i + 1]) == pair:
                    w[i : i + 2] = [new]
                i += 1
    return merges


@many
@given(words_of_bytes, st.integers(0, 15))
def test_merges_are_those_of_a_recount(words, n_merges):
    assert learn_merges(words, n_merges) == recount(words, n_merges)


def test_merges_of_real_text_are_those_of_a_recount():
    words = Counter(
        w.encode()
        for w in chunks(
            " ".join(
                (tokenize.__doc__ + BPE.__doc__ + json.__doc__ + re.__doc__).split()
            )
        )
    )
    assert (
        learn_merges(words, 120) == recount(words, 120)
        and len(learn_merges(words, 10**9)) < 2000
    )


@many
@given(st.binary(max_size=12))
def test_bpe_of_any_merges(b):
    "A file of pairs that nobody trained: as they are, or refused by name; the law holds for the others."
    merges = [
        (97 + x % 3 if x < 128 else 130 + x, 97 + y % 3 if y < 128 else 130 + y)
        for x, y in zip(b[::2], b[1::2])
    ]
    try:
        bpe = BPE(merges)
    except ValueError as e:
        assert re.match(r"merges\[\d+\]: expected", str(e)) and (
            len(set(merges)) < len(merges)
            or any(i >= 256 + k for k, p in enumerate(merges) for i in p)
        ), e
    else:
        assert bpe.decode(bpe.encode("abaaba cab五")) == "abaaba cab五" and len(
            bpe
        ) == 256 + len(merges)


@pytest.mark.parametrize(
    "merges",
    [
        3,
        "ab",
        b"ab",
        None,
        {1: 2},
        [3],
        ["ab"],
        [None],
        [(97, None)],
        [(97, "b")],
        [(97, 1.5)],
        [(97, [97])],
        [(97, True)],
        [[[97, 97]]],
        [(97, 2**80)],
    ],
)
def test_bpe_of_no_merges(merges):
    refused(BPE, merges, name="merges")


@many
@given(anything, st.integers(0, 9))
def test_bpe_trains_on_any_text(s, n_merges):
    bpe = BPE.train((s, s.split("a"), (s * 3, None))[n_merges % 3], n_merges)
    assert len(bpe.merges) <= n_merges and bpe.decode(bpe.encode(s)) == s


def test_bpe_is_its_merges():
    bpe = BPES[1]
    again = BPE(json.loads(json.dumps(bpe.merges)))
    assert (
        again.merges == bpe.merges
        and again.tokens == bpe.tokens
        and again.encode("the theory 大于") == bpe.encode("the theory 大于")
    )
    for k in (0, 1, 20):
        assert (
            BPE.train("the thin theory of the thing", k).merges
            == BPE.train("the thin theory of the thing", 99).merges[:k]
        )  # a shorter training is the beginning of a longer one
    assert (
        BPE.train(["odd", "odd"]).merges == BPE.train("odd odd odd").merges[:2]
    )  # a list is not one long text: no space before the second


def test_bpe_remembers_chunks_up_to_a_limit():
    bpe = BPE([(49, 49)])
    for k in range(40):
        assert (
            bpe.decode(
                bpe.encode(text := " ".join(map(str, range(1000 * k, 1000 * k + 1000))))
            )
            == text
        )
    assert 0 < len(bpe._known) <= 2**15 and bpe.encode("0 11") == [48, 32, 256]


def test_bpe_is_deterministic_and_counts_down():
    words = Counter(w.encode() for w in chunks("banana bandana cabana ananas " * 3))
    assert learn_merges(words, 50) == learn_merges(dict(reversed(words.items())), 50)


def test_bpe_refuses():
    assert "260 bytes" in refused(
        BPE,
        [(97, 97), *[(256 + k, 256 + k) for k in range(60)]],
        error=ValueError,
        name="merges[8]",
    )  # a file of 60 pairs that would ask for all memory
    assert "again" in refused(
        BPE, [(97, 97), (97, 98), (97, 97)], error=ValueError, name="merges[2]"
    )
    for merges in ([(97, 256)], [(97, -1)], [(97,)], [(97, 97, 97)]):
        refused(BPE, merges, error=ValueError, name="merges[0]")
    for n in (-1, 1.5, None, "9", True):
        refused(BPE.train, "odd", n, error=ValueError, name="n_merges")
    for x in (3, None, b"odd", {"odd": 1}):
        refused(BPE.train, x, error=TypeError, name="texts")


def test_words_without_end_do_not_hold_up_the_encoder():
    "Time grows with the length, not with its square, for a run of one letter, of random letters, of blanks."
    bpe, rng = (
        BPE.train([" ".join(map(str, range(3000)))], 500),
        np.random.default_rng(0),
    )
    runs = [
        lambda n: "a" * n,
        lambda n: " " * n,
        lambda n: "".join(map(str, rng.integers(0, 10, n))),
    ]
    for run in runs:

        def seconds(n):
            s, start = run(n), time.perf_counter()
            assert bpe.decode(bpe.encode(s)) == s
            return time.perf_counter() - start

        short, long = (min(seconds(n) for _ in range(2)) for n in (2000, 32000))
        assert long < 80 * short + 0.05  # 16 times as long; its square would be 256
