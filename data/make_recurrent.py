"""The longer runs of chapter 09: memory by training, beliefs, bags against networks.

    python data/make_recurrent.py           # results/recurrent.json, some 13 minutes

reading/model/epochs/rate/seed: four models learn from the same 7,000 sentences: a
linear layer on which words occur, a linear layer on which words and which pairs of
neighbours occur, and the recurrent network, asked at the end or at every word. Each for
4, 30 and 60 epochs, at two learning rates (the network's 60 epochs at the lower one,
which was better before), five seeds. `valid` chooses the rate, `test` reports it.

recall/step/optimiser/rate/T/seed: the share of 2,000 new sequences whose first symbol
is recalled after T steps, by networks of 32 units after 450 updates, five seeds.

belief/training/seed: the network after 10 epochs, asked at the end or at every word;
its distance from the exact belief, in nats, over all `words` of the bare test hints and
after the `last`, and its accuracy on test sentences, five seeds.
"""

from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from study import Study
from torch import nn

from mmcourse.hints import NOUNS, chance, grammar, hints, spell
from mmcourse.measure import seeded
from mmcourse.recurrent import RNNClassifier, params_of, recall_task, rnn, valid_mask
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


def trained(model, epochs, lr, seed):
    "A model, and the sentences as it reads them."
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
    return net, parts


def read(model, epochs, lr, seed):
    net, parts = trained(model, epochs, lr, seed)
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


# --- memory


class Recall(nn.Module):
    "A recurrent layer and a linear layer on its last state."

    def __init__(self, orthogonal: bool, doubled: bool):
        super().__init__()
        self.doubled = doubled
        self.rnn, self.head = nn.RNN(8, 32, batch_first=True), nn.Linear(32, 4)
        if orthogonal:  # radius 1
            nn.init.orthogonal_(self.rnn.weight_hh_l0)

    def forward(self, x):
        if not self.doubled:
            return self.head(self.rnn(x)[0][:, -1])
        h = rnn(x, params_of(self.rnn), f=lambda a: torch.tanh(torch.sigmoid(a)))
        return self.head(h[:, -1])


STEPS = {
    "tanh, radius 0.58": (False, False),
    "tanh, radius 1": (True, False),
    "tanh(sigmoid), radius 1": (True, True),
}


def recall(step, kind, lr, T, seed):
    with seeded(seed):
        net = Recall(*STEPS[step])
    g = torch.Generator().manual_seed(seed)
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=lr)
    for _ in range(450):
        x, y = recall_task(32, T, g)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    new = recall_task(2000, T, torch.Generator().manual_seed(99))
    return round(accuracy(net, new), 4)


def recalls(study):
    for step in STEPS:
        doubled = step.startswith("tanh(")
        for kind, rates in (("SGD", (0.3, 3.0)), ("Adam", (0.003, 0.03))):
            for lr in rates if doubled else rates[:1]:
                for T in (1, 5, 20):
                    for seed in study.seeds(5):
                        arm = f"recall/{step}/{kind}/{lr}/{T}/{seed}"
                        study(arm, partial(recall, step, kind, lr, T, seed))


# --- beliefs


@lru_cache
def exact() -> dict:
    "(T, 10) chances of the digits after each word, of every bare hint of test."
    begun = {}  # first words -> (10,) chance of each digit
    whole = set()
    for h in grammar("test"):
        p = np.array([float(chance(h, digit)) for digit in range(10)])
        for noun in NOUNS:
            w = (*spell(h, noun).split(), "<end>")
            whole.add(w)
            for t in range(1, len(w) + 1):
                begun[w[:t]] = begun.get(w[:t], 0) + p
    found = {}
    for w in whole:
        p = np.stack([begun[w[: t + 1]] for t in range(len(w))])
        found[w] = p / p.sum(1, keepdims=True)
    return found


def belief(model, seed):
    net, data = trained(model, 10, 0.01, seed)
    rows = sentences()[3]
    vocab = Vocab.build(rows["train"])
    far = []
    for w in rows["test"]:
        if tuple(w) not in exact():
            continue
        p = exact()[tuple(w)]
        with torch.no_grad():
            q = net.every_step(torch.tensor([vocab.encode(w)])).softmax(2)[0].numpy()
        far.append((p * np.log(np.maximum(p, 1e-300) / q.astype(float))).sum(1))
    return {
        "words": round(float(np.concatenate(far).mean()), 4),
        "last": round(float(np.mean([kl[-1] for kl in far])), 4),
        "test": accuracy(net, data["test"]),
    }


def beliefs(study):
    for model, asked in (("end", "at the end"), ("every", "at every word")):
        for seed in study.seeds(5):
            study(f"belief/asked {asked}/{seed}", partial(belief, model, seed))


if __name__ == "__main__":
    study = Study("recurrent", __doc__)
    readings(study)
    recalls(study)
    beliefs(study)
