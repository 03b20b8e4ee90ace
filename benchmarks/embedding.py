"""Skip-gram's gradient in blocks against a list of pairs and torch; TF-IDF.

    python benchmarks/embedding.py

Each way handles the same 256 words of text with the same negatives, on one thread; the
gradients are compared first.
"""

from timing import fastest, line  # first: it sets the number of threads

# isort: split
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfTransformer
from torch.nn.functional import embedding, logsigmoid

from mmcourse.corpus import library_words
from mmcourse.embedding import (
    bag,
    idf,
    negative_sampling_grad,
    skipgram_pairs,
    tf_idf,
    window_grad,
)
from mmcourse.text import Vocab

B, T, J, D = 4, 64, 128, 64


def blocks(v, u, z, ids, m):
    return window_grad(v[ids], u[ids], u[z], m, J)


def pairs(v, u, z, ids, m, k=J):
    "The chapter's gradient of pairs, added up by row."
    gv, gu, gz = np.zeros_like(v), np.zeros_like(u), 0
    for row in ids:
        c, o = skipgram_pairs(row)
        negatives = np.broadcast_to(u[z[:k]], (len(c), k, D))
        a, b, n = negative_sampling_grad(v[c], u[o], negatives)
        np.add.at(gv, c, a * len(c))
        np.add.at(gu, o, b * len(c))
        gz = gz + n.sum(0) * len(c)
    return gv, gu, gz


def autograd(v, u, z, ids, m):
    "torch: sparse lookups, a matrix product for the negatives, backward."
    v, u, n = (torch.tensor(x, requires_grad=True) for x in (v, u, u[z]))
    both = [skipgram_pairs(row) for row in ids]
    c, o = (torch.as_tensor(np.concatenate(x)) for x in zip(*both))
    a, b = embedding(c, v, sparse=True), embedding(o, u, sparse=True)
    (-(logsigmoid((a * b).sum(1)).sum() + logsigmoid(-a @ n.T).sum())).backward()
    return v.grad, u.grad, n.grad


def by_row(g, ids, n):  # the blocks' gradients, added up
    out = np.zeros((n, D))
    np.add.at(out, ids, g)
    return out


def main():
    torch.set_num_threads(1)
    library = list(library_words().values())
    vocab = Vocab.build(library, min_count=20)
    rows = [vocab.encode(row) for row in library]
    n, rng = len(vocab), np.random.default_rng(0)
    v, u = (rng.standard_normal((n, D)).astype(np.float32) / 8 for _ in range(2))
    text = np.concatenate(rows)[5000 : 5000 + B * T].reshape(B, T)
    z, far = rng.integers(0, n, J), abs(np.arange(T)[:, None] - np.arange(T))
    m = np.broadcast_to(((far > 0) & (far <= 5)).astype(np.float32), (B, T, T))
    args = v, u, z, text, m
    a, b, c = blocks(*args), pairs(*args), autograd(*args)
    a = by_row(a[0], text, n), by_row(a[1], text, n), a[2]
    for x, y, g in zip(a, b, c):
        for other in (y, g.to_dense().numpy()):
            np.testing.assert_allclose(x, other, atol=1e-4 * abs(x).max(), rtol=1e-3)
    fast, slow, five, theirs = fastest(
        lambda: blocks(*args),
        lambda: pairs(*args),
        lambda: pairs(*args, k=5),
        lambda: autograd(*args),
    )
    line("skip-gram, 256 words, 128 negatives: blocks : pairs", fast, slow)
    line("skip-gram, 256 words: blocks of 128 : pairs with 5 negatives", fast, five)
    line("skip-gram, 256 words, 128 negatives: blocks : torch", fast, theirs)
    counts = bag(rows, n)
    ours, theirs = fastest(
        lambda: tf_idf(counts, idf(counts)),
        lambda: TfidfTransformer().fit_transform(counts),
    )
    line(f"TF-IDF of {counts.shape}: ours : scikit-learn", ours, theirs)


if __name__ == "__main__":
    main()
