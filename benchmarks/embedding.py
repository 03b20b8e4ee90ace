"""Skip-gram's training step in blocks against a list of pairs, in NumPy and in torch with autograd, and TF-IDF against scikit-learn.

    python benchmarks/embedding.py [repeats]

The text is what every Python ships. Each way handles the same 256 words of text, with the same negatives, and the gradients are compared first. All timings are taken in one run, in turns, on one thread."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfTransformer
from torch.nn.functional import logsigmoid

from mmcourse.embedding import (
    bag,
    idf,
    library_words,
    negative_sampling_grad,
    skipgram_pairs,
    tf_idf,
    window_grad,
)
from mmcourse.text import Vocab

B, T, J, D, WINDOW = 4, 64, 128, 64, 5


def blocks(v, u, z, ids, m):
    return window_grad(v[ids], u[ids], v[z], m, J)


def pairs(v, u, z, ids, m, k=J):
    "The chapter's gradient of pairs, added up by row."
    gv, gu, gz = np.zeros_like(v), np.zeros_like(u), 0
    z = z[:k]
    for row in ids:
        c, o = skipgram_pairs(row, WINDOW)
        a, b, n = negative_sampling_grad(
            v[c], u[o], np.broadcast_to(v[z], (len(c), k, D))
        )
        np.add.at(gv, c, a * len(c))
        np.add.at(gu, o, b * len(c))
        gz = gz + n.sum(0) * len(c)
    return gv, gu, gz


def autograd(v, u, z, ids, m):
    "torch: sparse lookups, a matrix product for the negatives, backward."
    v, u, n = (torch.tensor(x, requires_grad=True) for x in (v, u, v[z]))
    c, o = (
        torch.as_tensor(np.concatenate(x))
        for x in zip(*(skipgram_pairs(row, WINDOW) for row in ids))
    )
    a, b = (
        torch.nn.functional.embedding(i, w, sparse=True) for i, w in ((c, v), (o, u))
    )
    (-(logsigmoid((a * b).sum(1)).sum() + logsigmoid(-a @ n.T).sum())).backward()
    return v.grad, u.grad, n.grad


def summed(g, ids, n):  # of blocks, by row
    out = np.zeros((n, D))
    np.add.at(out, ids, g)
    return out


def best(fs, repeats):
    laps = {k: [] for k in fs}
    for _ in range(repeats):
        for k, f in fs.items():
            start = time.perf_counter()
            f()
            laps[k].append(time.perf_counter() - start)
    return {k: min(v) for k, v in laps.items()}


def main(repeats: int = 7):
    torch.set_num_threads(1)
    library = list(library_words().values())
    vocab = Vocab.build(library, min_count=20)
    rows, rng, n = (
        [vocab.encode(r) for r in library],
        np.random.default_rng(0),
        len(vocab),
    )
    text = np.concatenate(rows)[5000 : 5000 + B * T].reshape(B, T)
    v, u = (rng.standard_normal((n, D)).astype(np.float32) / 8 for _ in range(2))
    z, far = rng.integers(0, n, J), abs(np.arange(T)[:, None] - np.arange(T))
    m = np.broadcast_to(((far > 0) & (far <= WINDOW)).astype(np.float32), (B, T, T))
    fs = {
        f.__name__: lambda f=f: f(v, u, z, text, m) for f in (blocks, pairs, autograd)
    }
    a, b, c = (f() for f in fs.values())
    dense = [(summed(a[i], text, n), b[i], c[i].to_dense().numpy()) for i in (0, 1)] + [
        (a[2], b[2], c[2].numpy())
    ]
    gap = max(abs(x - y).max() / abs(x).max() for x, y, z in dense for y in (y, z))
    assert gap < 1e-4, gap
    t = best(fs | {"pairs, 5 negatives": lambda: pairs(v, u, z, text, m, 5)}, repeats)
    print(
        f"{B * T} words, {len(skipgram_pairs(text[0], WINDOW)[0]) * B:,} pairs, {J} negatives each, {D} numbers a word; gradients equal to {gap:.0e}"
    )
    for k, s in t.items():
        print(f"{k:18} {1e3 * s:7.2f} ms, {s / t['blocks']:5.1f} times blocks")
    counts = bag(rows, n)
    t = best(
        {
            "ours": lambda: tf_idf(counts, idf(counts)),
            "scikit-learn, dense": lambda: TfidfTransformer().fit_transform(counts),
        },
        repeats,
    )
    print(
        f"TF-IDF of {counts.shape}: ours {1e3 * t['ours']:.0f} ms, scikit-learn from the same matrix {1e3 * t['scikit-learn, dense']:.0f} ms: {t['scikit-learn, dense'] / t['ours']:.2f} times"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
