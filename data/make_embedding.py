"""The comparisons of chapter 07: lengths of training, counting, and package riddles.

    python data/make_embedding.py      # writes data/results/embedding.json

The text is the library of the Python that runs this; another Python's numbers differ
slightly. Arms:

skipgram/epochs/seed   skip-gram, trained for 2, 5, 10 and 20 epochs
counted/how            positive PMI of all pairs, and its 64 strongest directions. Pairs
                       count alike at all distances (flat), less with distance
                       (weighted), or so and thinned ten times, as skip-gram reads
random/seed            random vectors
loss/what              held-out loss of a model that gives every pair the same score
                       (constant), or each context its own (popularity)
questions              which file each question of the riddles is from
package/vectors/n/seed  pieces of sixty words out of unseen files: which package? From n
                       examples of each package a logistic regression learns; `hits` has
                       a 1 for each right answer

`by hand` and `plurals`: share of pairs whose partner is among the ten nearest words.
`analogy`: share of plurals found by arithmetic; `nearest`: by the nearest word alone.
"""

from functools import cache

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd
from study import Study

from mmcourse.corpus import held_out_files, library_words, pieces, related_words
from mmcourse.embedding import (
    bag,
    idf,
    keep_chance,
    noise,
    ppmi,
    skipgram_pairs,
    tf_idf,
    train_skipgram,
    unit,
)
from mmcourse.text import Vocab

DIM = 64
library = library_words()
held = held_out_files(library)
train = [name for name in library if name not in held]
words = Vocab.build([library[name] for name in train], min_count=20).tokens[2:]
V, index = len(words), {word: i for i, word in enumerate(words)}
ids = {
    name: np.array([index[word] for word in text if word in index], int)
    for name, text in library.items()
}
rows = [ids[name] for name in train]
count = np.bincount(np.concatenate(rows), minlength=V)
kept, drawn = keep_chance(count), noise(count)
related = related_words(words)


@cache
def skipgram(epochs: int, seed: int):
    return train_skipgram(rows, V, epochs=epochs, seed=seed)


def found(vectors, pairs, k: int = 10) -> float:
    e = unit(vectors)
    a, b = np.concatenate([pairs, np.flip(pairs, 1)]).T
    score = e[a] @ e.T
    score[np.arange(len(a)), a] = -np.inf
    partner = score[np.arange(len(a)), b][:, None]
    return float(((score > partner).sum(1) < k).mean())


def solved(vectors, n: int = 1000) -> tuple[float, float]:
    "Plurals by arithmetic, and by the nearest word alone."
    rng, e, pairs = (
        np.random.default_rng(0),
        unit(vectors),
        np.array(related["plurals"]),
    )
    one, two = pairs[rng.integers(len(pairs), size=(2, n))]
    other = one[:, 0] != two[:, 0]
    (a, b), (c, d) = one[other].T, two[other].T
    right = []
    for target, out in ((e[b] - e[a] + e[c], (a, b, c)), (e[c], (c,))):
        score = target @ e.T
        for taken in out:
            score[np.arange(len(score)), taken] = -np.inf
        right.append(float((score.argmax(1) == d).mean()))
    return right[0], right[1]


def scores(vectors) -> dict:
    right = {name: found(vectors, pairs) for name, pairs in related.items()}
    right["analogy"], right["nearest"] = solved(vectors)
    return {name: round(value, 4) for name, value in right.items()}


# ------------------------------------------------------------ pairs of unseen files
def read(texts, rng):
    "Pairs as skip-gram reads them: thinned, with what each counts."
    centres, contexts, weights = [], [], []
    for row in texts:
        row = row[rng.random(len(row)) < kept[row]]
        c, o, w = weighted_pairs(row)
        centres, contexts = [*centres, c], [*contexts, o]
        weights.append(w)
    return [np.concatenate(part) for part in (centres, contexts, weights)]


def weighted_pairs(row, window: int = 5):
    c, o = skipgram_pairs(row, window)
    near = [
        np.full(2 * max(0, len(row) - k), 1 - (k - 1) / window) for k in range(1, 6)
    ]
    return c, o, np.concatenate(near)


def held_out_loss(score) -> float:
    "`score`: (ids of centres, ids of contexts) -> scores."
    rng = np.random.default_rng(0)
    c, o, weights = read([ids[name] for name in sorted(held)], rng)
    z = rng.choice(V, (len(c), 5), p=drawn)
    loss = np.logaddexp(0, -score(c, o)) + np.logaddexp(0, score(c[:, None], z)).sum(1)
    return round(float(np.average(loss, weights=weights)), 4)


def constant(c, o):
    return np.full(np.broadcast(c, o).shape, -np.log(5))


def popularity(c, o):
    share = (count * kept + 0.5) / (count * kept + 0.5).sum()
    return np.broadcast_to(np.log(share / (5 * drawn))[o], np.broadcast(c, o).shape)


def run_skipgram(epochs: int, seed: int) -> dict:
    v, u = skipgram(epochs, seed)

    def score(c, o):
        return np.einsum("...d,...d->...", v[c], u[o])

    return scores(v) | {"loss": held_out_loss(score)}


# ------------------------------------------------------------------------- counting
@cache
def counted(how: str):
    "Positive PMI of all pairs, and its strongest directions."
    rng, met = np.random.default_rng(0), np.zeros(V * V)
    for _ in range(10 if how == "as read" else 1):
        if how == "as read":
            c, o, w = read(rows, rng)
        else:
            c, o, w = [np.concatenate(p) for p in zip(*map(weighted_pairs, rows))]
        w = np.ones_like(w) if how == "flat" else w
        met += np.bincount(c * V + o, w, minlength=V * V)
    information = ppmi(met.reshape(V, V)).astype(np.float32)
    left, strength, _ = randomized_svd(information, DIM, random_state=0)
    return information, left * np.sqrt(strength)


# ------------------------------------------------------------------ package riddles
def labelled(names):
    rows, package, file = [], [], []
    for name in sorted(names):
        for piece in pieces(ids[name]):
            rows.append(piece)
            package.append(name.partition("/")[0])
            file.append(name)
    return bag(rows, V), np.array(package), np.array(file)


def draw(label, n: int, rng):
    picked = []
    for package in sorted(set(held.values())):
        mine = np.flatnonzero(label == package)
        picked.append(rng.choice(mine, min(n, len(mine)), replace=False))
    return np.concatenate(picked)


@cache
def riddles():
    packages = set(held.values())
    known = [name for name in train if name.partition("/")[0] in packages]
    counts, label, _ = labelled(known)
    asked, answer, file = labelled(held)
    pick = draw(answer, 40, np.random.default_rng(0))
    return counts, label, asked[pick], answer[pick], file[pick]


@cache
def of_documents():
    "The strongest directions of TF-IDF of all training pieces: no windows."
    texts = [piece for name in train for piece in pieces(ids[name])]
    x = bag(texts, V)
    _, _, right = randomized_svd(tf_idf(x, idf(x)), DIM, random_state=0)
    return right.T


def features(kind: str, counts, seed: int):
    weight = idf(riddles()[0])[:, None]
    v = skipgram(10, seed)[0]
    random = np.random.default_rng(seed).standard_normal((V, DIM))
    tables = {
        "skip-gram, as trained": v,
        "skip-gram": unit(v),
        "skip-gram, idf": weight * unit(v),
        "PMI, idf": weight * unit(counted("as read")[1]),
        "documents, idf": weight * unit(of_documents()),
        "random, idf": weight * unit(random),
    }
    one_hot = {
        "bag": 1,
        "TF-IDF": weight[:, 0],
        "bag, lengths": np.linalg.norm(v, axis=1),
    }
    if kind in one_hot:
        return unit(counts * one_hot[kind])
    return unit(counts @ tables[kind])


def run_riddles(kind: str, n: int, seed: int) -> dict:
    counts, label, asked, answer, _ = riddles()
    shown = draw(label, n, np.random.default_rng(seed))
    model = LogisticRegression(C=10, max_iter=1000)
    model.fit(features(kind, counts[shown], seed), label[shown])
    hits = model.predict(features(kind, asked, seed)) == answer
    return {"hits": "".join("01"[int(h)] for h in hits), "accuracy": hits.mean().item()}


def main():
    study = Study(
        "embedding", __doc__, about="chapter 07", words=V, text=count.sum().item()
    )
    study("loss/constant", lambda: held_out_loss(constant))
    study("loss/popularity", lambda: held_out_loss(popularity))
    for how in ("flat", "weighted", "as read"):
        rows_, short = counted(how)
        study(f"counted/{how}/all", lambda rows_=rows_: scores(rows_))
        study(f"counted/{how}/{DIM}", lambda short=short: scores(short))
    for seed in study.seeds(5):
        random = np.random.default_rng(seed).standard_normal((V, DIM))
        study(f"random/{seed}", lambda random=random: scores(random))
        for epochs in (2, 5, 10, 20):

            def run(epochs=epochs, seed=seed):
                return run_skipgram(epochs, seed)

            study(f"skipgram/{epochs}/{seed}", run, seed)
    names = sorted(held)
    study("questions", lambda: [names.index(name) for name in riddles()[4]])
    kinds = "bag", "TF-IDF", "bag, lengths", "skip-gram, as trained", "skip-gram"
    for kind in (*kinds, "skip-gram, idf", "PMI, idf", "documents, idf", "random, idf"):
        for n in (1, 4, 16, 64):
            for seed in study.seeds(5):

                def ask(kind=kind, n=n, seed=seed):
                    return run_riddles(kind, n, seed)

                study(f"package/{kind}/{n}/{seed}", ask, seed)


if __name__ == "__main__":
    main()
