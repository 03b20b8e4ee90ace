"""How a hint is cut into tokens, and what that is worth: chapter 02's table.

    python data/make_text.py            # writes data/results/text.json

Each way of cutting is judged by one classifier: multinomial logistic regression on the
counts of the tokens. The vocabulary is that of training, the penalty is chosen on
valid, the accuracy is that on test. A seed draws new hints for all three splits.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from nltk.stem import SnowballStemmer
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.linear_model import LogisticRegression
from study import Study

from mmcourse.datasets import hints
from mmcourse.text import BPE, grams, normalize_text, tokenize

SPLITS = "train", "valid", "test"
PENALTIES = 0.3, 3, 30  # C: the larger, the weaker
# stop words of the list that say something about numbers or order
MEANT = tokenize("""
not no nor none nothing never without except below above over under up down top bottom
less more most least few many much fewer than between beyond before after behind first
last next even only same other another every each both all any neither either part whole
zero one two three four five six eight nine ten eleven twelve fifteen twenty fifty third
""")
MEANT = ENGLISH_STOP_WORDS & set(MEANT)
OTHERS = ENGLISH_STOP_WORDS - MEANT

words = lru_cache(None)(tokenize)
stem = lru_cache(None)(SnowballStemmer("english").stem)


def lower_case(text):
    return text.lower().split()


def straight(text):
    return words(text.replace("’", "'"))


def stems(text):
    return [stem(w) for w in words(text)]


def no_stop_words(text):
    return [w for w in words(text) if w not in ENGLISH_STOP_WORDS]


def no_stop_words_on_numbers(text):
    return [w for w in words(text) if w not in MEANT]


def no_other_stop_words(text):
    return [w for w in words(text) if w not in OTHERS]


def neighbours(text):
    return grams(words(text))


def triples(text):
    row = words(text)
    return neighbours(text) + list(map(" ".join, zip(row, row[1:], row[2:])))


WAYS = {
    "split at spaces": str.split,
    "split at spaces, lower case": lower_case,
    "tokenize": words,
    "tokenize, straight apostrophes": straight,
    "tokenize, Snowball stems": stems,
    "tokenize, no stop words": no_stop_words,
    "tokenize, no stop words on numbers": no_stop_words_on_numbers,
    "tokenize, no other stop words": no_other_stop_words,
    "tokenize, and pairs": neighbours,
    "tokenize, pairs and triples": triples,
}


def subwords(train, pairs):  # a BPE of these texts, as a function of a text
    bpe = BPE.train([normalize_text(t) for t in train], 300)

    def cut(text):
        ids = [str(i) for i in bpe.encode(normalize_text(text))]
        return [*ids, *map(" ".join, pairwise(ids))] if pairs else ids

    return cut


def drawn(seed, times=1):  # {split: (texts, labels)}
    data = {s: hints(s, seed=seed) for s in SPLITS}
    more = [hints("train", seed=1000 + 100 * seed + k) for k in range(times - 1)]
    data = {s: (d["text"], d["label"]) for s, d in data.items()}
    texts = [t for d in more for t in d["text"]]
    labels = [d["label"] for d in more]
    text, label = data["train"]
    data["train"] = [*text, *texts], np.concatenate([label, *labels])
    return data


def judged(cut, data):
    "Accuracy on test, and what the way of cutting makes of the hints."
    rows = {s: [cut(t) for t in texts] for s, (texts, _) in data.items()}
    y = {s: labels for s, (_, labels) in data.items()}
    count = CountVectorizer(analyzer=list).fit(rows["train"])
    x = {s: count.transform(r) for s, r in rows.items()}
    models = []
    for C in PENALTIES:
        model = LogisticRegression(C=C, max_iter=2000, tol=1e-3)
        models.append(model.fit(x["train"], y["train"]))
    best = max(models, key=lambda m: m.score(x["valid"], y["valid"]))
    tokens = [t for row in rows["test"] for t in row]
    return {
        "right": best.score(x["test"], y["test"]),
        "C": best.C,
        "vocabulary": len(count.vocabulary_),
        "length": len(tokens) / len(rows["test"]),
        "unknown": float(np.mean([t not in count.vocabulary_ for t in tokens])),
    }


if __name__ == "__main__":
    study = Study("text", __doc__, penalties=PENALTIES, meant=sorted(MEANT))
    for seed in study.seeds(5):
        data, fourfold = drawn(seed), drawn(seed, 4)
        ways = {k: (cut, data) for k, cut in WAYS.items()}
        for name, pairs in (("BPE", False), ("BPE, and pairs", True)):
            ways[name] = subwords(data["train"][0], pairs), data
        ways["tokenize, four times the hints"] = words, fourfold
        ways["tokenize, and pairs, four times the hints"] = neighbours, fourfold
        ways["tokenize, pairs and triples, four times the hints"] = triples, fourfold
        for name, (cut, d) in ways.items():
            study(f"{name}/{seed}", lambda cut=cut, d=d: judged(cut, d))
