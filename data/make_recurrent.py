"""What bags of words and a recurrent network make of the hints of chapter 09.

    python data/make_recurrent.py           # results/recurrent.json, some 10 minutes

Four models learn from the same 7,000 sentences: a linear layer on which words occur, a
linear layer on which words and which pairs of neighbours occur, and the recurrent
network, asked at the end or at every word. Each for 4, 30 and 60 epochs, at two
learning rates (the network's 60 epochs at the lower one, which was better before),
five seeds; an arm is reading/model/epochs/rate/seed. `valid` chooses the rate, `test`
reports it.
"""

from functools import lru_cache

import torch
from study import Study
from torch import nn

from mmcourse.hints import hints
from mmcourse.measure import seeded
from mmcourse.recurrent import RNNClassifier, valid_mask
from mmcourse.text import Vocab, grams, pad, preprocess_text
from mmcourse.training import accuracy, fit, warmup_cosine


def words(texts):  # lists of words, with a mark at the end
    return [[*w, "<end>"] for w in preprocess_text(texts)]


@lru_cache
def sentences():
    "split -> (tokens, lengths), labels; bags of words; bags with pairs."
    raw = {
        s: hints(s, n) for s, n in zip(("train", "valid", "test"), (7000, 2000, 2000))
    }
    rows = {s: words(d["text"]) for s, d in raw.items()}
    vocab = Vocab.build(rows["train"])
    known = Vocab.build([grams(w) for w in rows["train"]])
    longest = max(len(w) for r in rows.values() for w in r)
    data, bags, pairs = {}, {}, {}
    for s, r in rows.items():
        y = torch.tensor(raw[s]["label"])
        ids, mask = pad([vocab.encode(w) for w in r], longest)
        data[s] = (torch.tensor(ids), torch.tensor(mask.sum(1))), y
        bags[s] = bag([vocab.encode(w) for w in r], len(vocab)), y
        pairs[s] = bag([known.encode(grams(w)) for w in r], len(known)), y
    return data, bags, pairs, rows, len(vocab)


def bag(rows, n):  # (N, n) which tokens occur
    seen = torch.zeros(len(rows), n)
    for x, row in zip(seen, rows):
        x[row] = 1
    seen[:, :2] = 0
    return seen


class EveryWord(nn.Module):
    "For `fit`: logits after each word, (N, classes, T) as cross_entropy wants them."

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net.every_step(inputs[0]).transpose(1, 2)


def at_every_word(inputs, label):
    there = valid_mask(inputs[1], inputs[0].shape[1])
    return inputs, torch.where(there, label[:, None], -100)


def read(model, epochs, lr, seed):
    data, bags, pairs, _, n_tokens = sentences()
    parts = {"bag": bags, "pairs": pairs}.get(model, data)
    options = {"epochs": epochs, "lr": lr, "batch_size": 70, "seed": seed}
    options |= {"schedule": warmup_cosine, "clip": 1.0}
    with seeded(seed):
        if model in ("bag", "pairs"):
            net = nn.Linear(parts["train"][0].shape[1], 10)
        else:
            net = RNNClassifier(n_tokens)
    if model == "every":
        fit(EveryWord(net), at_every_word(*parts["train"]), **options)
    else:
        fit(net, parts["train"], **options)
    return {s: accuracy(net, parts[s]) for s in ("train", "valid", "test")}


RATES = {
    "bag": (0.01, 0.03),
    "pairs": (0.01, 0.03),
    "end": (0.003, 0.01),
    "every": (0.003, 0.01),
}


def readings(study):
    for epochs in (4, 30, 60):
        for model, rates in RATES.items():
            late = epochs == 60 and model in ("end", "every")
            for lr in rates[:1] if late else rates:
                for seed in study.seeds(5):
                    arm = f"reading/{model}/{epochs}/{lr}/{seed}"
                    args = model, epochs, lr, seed
                    study(arm, lambda a=args: read(*a), seed=seed)


if __name__ == "__main__":
    readings(Study("recurrent", __doc__))
