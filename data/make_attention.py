"""The longer comparisons of chapter 11: rankings change with the length of training.

    python data/make_attention.py      # writes data/results/attention.json

Arms are named task/…/seed. `words` and `sound`: a block of attention, an LSTM of about
as many weights and the mean of the embedded tokens read hints and spoken digits, for
6, 20 and 60 epochs; `sound/unordered` is the block without positions. `lookup`: a block
of attention and LSTMs on the look-up task, by updates; shares right of 8 and of 16
pairs. `heads`: two look-ups at once by one head and by two; shares of one digit right
and of both. `cross`: words that listen to a noisy clip, the same model deaf, and the
sound alone, for 8 and 40 epochs. The epoch is chosen on validation data; `test` is
accuracy on test data.
"""

from functools import partial

import torch
from study import Study
from torch import nn

from mmcourse.attention import (
    CrossAttention,
    TransformerBlock,
    TransformerClassifier,
    masked_mean,
    sinusoidal_positions,
    sound_tokens,
)
from mmcourse.datasets import SPLITS, hints, spoken_digits, three_views
from mmcourse.pipeline import extract_audio_features, preprocess_audio
from mmcourse.tasks import (
    LookupReader,
    lookup_task,
    task_hits,
    train_on,
    two_lookups,
)
from mmcourse.text import Vocab, pad, preprocess_text
from mmcourse.training import accuracy, count_parameters, fit, warmup_cosine

D = 32


def word_tokens(texts, vocab):
    return tuple(map(torch.as_tensor, pad([vocab.encode(w) for w in texts], 20)))


def heard(view, rows):
    clips = [view["audio"][i, : view["length"][i]] for i in rows]
    return sound_tokens(extract_audio_features(preprocess_audio(clips)))


class LastState(nn.Module):
    "Reads from left to right; the state after the last real token answers."

    def __init__(self, embed, hidden: int = 42):
        super().__init__()
        self.embed, self.dropout = embed, nn.Dropout(0.1)
        self.lstm = nn.LSTM(D, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, inputs):
        x, mask = inputs
        states, _ = self.lstm(self.dropout(self.embed(x)))
        last = (mask * torch.arange(1, mask.shape[1] + 1)).argmax(1)
        return self.head(states[torch.arange(len(x)), last])


class Unplaced(nn.Module):
    "Takes away beforehand what the classifier adds, so that no token knows its place."

    def __init__(self, embed):
        super().__init__()
        self.embed = embed

    def forward(self, tokens):
        x = self.embed(tokens)
        return x - sinusoidal_positions(*x.shape[1:])


READERS = {
    "attention": lambda embed: TransformerClassifier(embed, D, 2),
    "unordered": lambda embed: TransformerClassifier(Unplaced(embed), D, 2),
    "lstm": LastState,
    "mean": lambda embed: TransformerClassifier(embed, D, 2, depth=0),
}


class CrossReader(nn.Module):
    "Words look into a sound, talk it over among themselves, and answer."

    def __init__(self, words: int):
        super().__init__()
        self.words, self.sound = nn.Embedding(words, D), nn.Linear(60, D)
        self.listen = CrossAttention(D, 2, dropout=0.1)
        self.talk = TransformerBlock(D, 2, dropout=0.1)
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, 10)

    def forward(self, inputs):
        (text, real), (sound, there) = inputs
        both = self.words(text), self.sound(sound)
        x, context = [e + sinusoidal_positions(*e.shape[1:]) for e in both]
        x = self.talk(self.listen(x, context, there[:, None]), real[:, None])
        return self.head(masked_mean(self.norm(x), real))


def score(model, data, seed: int, epochs: int) -> dict:
    fit(
        model,
        data["train"],
        data["valid"],
        epochs=epochs,
        batch_size=96,
        lr=0.01,
        schedule=warmup_cosine,
        clip=1.0,
        keep_best=True,
        seed=seed,
    )
    parts = {s: round(accuracy(model, data[s]), 5) for s in ("valid", "test")}
    return parts | {"parameters": count_parameters(model)}


LOOKERS = {
    "attention": lambda: LookupReader(TransformerBlock(D, 1), D),
    "lstm 48": lambda: LookupReader(nn.LSTM(D, 48, batch_first=True), D, width=48),
    "lstm 128": lambda: LookupReader(nn.LSTM(D, 128, batch_first=True), D, width=128),
}
LOOKUPS = (
    ("attention", 800),
    ("lstm 48", 800),
    ("lstm 48", 3200),
    ("lstm 48", 8000),
    ("lstm 128", 8000),
)


def look_up(reader: str, steps: int, seed: int) -> dict:
    model = train_on(lookup_task, LOOKERS[reader](), seed, steps)
    right = {p: task_hits(lookup_task, model, p) for p in (8, 16)}
    return {str(p): round(r.float().mean().item(), 5) for p, r in right.items()}


def look_up_two(heads: int, seed: int) -> dict:
    model = LookupReader(TransformerBlock(16, heads), 16, answers=2)
    train_on(two_lookups, model, seed, 800)
    right = task_hits(two_lookups, model, 8).float()  # (n, 2)
    shares = {"one": right.mean(), "both": right.prod(1).mean()}
    return {k: round(share.item(), 5) for k, share in shares.items()}


def main():
    study = Study("attention", __doc__, about="chapter 11")
    said = {s: hints(s, 2500 if s == "train" else None) for s in SPLITS}
    words = {s: preprocess_text(said[s]["text"]) for s in SPLITS}
    vocab = Vocab.build(words["train"])
    data = {"words": {}, "sound": {}}
    g = torch.Generator().manual_seed(0)
    for s in SPLITS:
        label = torch.as_tensor(said[s]["label"])
        data["words"][s] = word_tokens(words[s], vocab), label
        clips = spoken_digits(s)
        rows = torch.randperm(len(clips["label"]), generator=g)[:1200].tolist()
        label = torch.as_tensor(clips["label"][rows])
        data["sound"][s] = heard(clips, rows), label
    embed = {
        "words": lambda: nn.Embedding(len(vocab), D),
        "sound": lambda: nn.Linear(60, D),
    }
    for epochs in (6, 20, 60):
        for kind in data:
            for name, make in READERS.items():
                if (kind, name) == ("words", "unordered"):
                    continue  # a control for sound alone
                for seed in study.seeds(3):

                    def run(kind=kind, make=make, epochs=epochs, seed=seed):
                        return score(make(embed[kind]()), data[kind], seed, epochs)

                    study(f"{kind}/{name}/{epochs}/{seed}", run, seed)
    for reader, steps in LOOKUPS:
        for seed in study.seeds(3):
            run = partial(look_up, reader, steps, seed)
            study(f"lookup/{reader}/{steps}/{seed}", run, seed)
    for heads in (1, 2):
        for seed in study.seeds(3):
            study(f"heads/{heads}/{seed}", partial(look_up_two, heads, seed), seed)

    both = {}
    for s in SPLITS:
        view = three_views(s, 1500 if s == "train" else None, snr_db=10)
        text = word_tokens(preprocess_text(view["text"]), vocab)
        sound = heard(view, range(len(view["label"])))
        both[s] = (text, sound), torch.as_tensor(view["label"])
    deaf = {
        s: ((text, (x, torch.zeros_like(there))), y)
        for s, ((text, (x, there)), y) in both.items()
    }
    alone = {s: (sound, y) for s, ((_, sound), y) in both.items()}
    arms = {
        "words that may listen": (lambda: CrossReader(len(vocab)), both),
        "the same model, deaf": (lambda: CrossReader(len(vocab)), deaf),
        "sound alone, one block": (
            lambda: READERS["attention"](nn.Linear(60, D)),
            alone,
        ),
    }
    for epochs in (8, 40):
        for name, (make, views) in arms.items():
            for seed in study.seeds(3):

                def run(make=make, views=views, seed=seed, epochs=epochs):
                    return score(make(), views, seed, epochs)

                study(f"cross/{name}/{epochs}/{seed}", run, seed)


if __name__ == "__main__":
    main()
