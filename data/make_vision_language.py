"""Chapter 22: three bridges from pictures into one language model.

    python data/make_vision_language.py

Writes data/results/vision_language.json and data/vision_language.safetensors: an eye,
and a model with gated cross-attention.

Arms are named what/bridge/seed. `eye`: a CNN that names word and colour of each cell.
`shipped`: gated cross-attention, 6,000 updates, int8; seed 0 ships. `is there`: 2,000
more such questions to it. `full`: each bridge, 2,000 updates. `long`:
6,000, at a third of the learning rate. `nowhere`: without rows and columns in the
tokens. `tokens N by HOW`: the nine tokens put together to N. `unpointed`: without
questions that ask in which row or column a thing is. `everything`: the loss counts the
questions, too. `rate R`: 150 updates at this learning rate, judged by validation
digits. `told`: the language model alone, on scenes told in words; `told fast`: at three
times its rate; `frozen`, `lora`,
`warmed`: a bridge into it, which stays, learns by thin matrices, or learns; `fresh`: as
`full`, at the rate of these three. `shots`: the model that ships learns prompts with an
example, 150 updates; `whole`: all weights learn, `lora`: thin matrices do.

`hits` holds 1 for each test question that was answered rightly. Test digits are those
of `mnist`'s test part; nothing was chosen by them.
"""

import time
from copy import deepcopy
from functools import cache, lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from study import Study, bits
from torch import Tensor, nn

from mmcourse.bridges import (
    BRIDGES,
    FEWER,
    LESSON,
    Answers,
    CellEye,
    add_lora,
    after_example,
    answered,
    bridged,
    cell_labels,
    cells,
    fewer_tokens,
    front_of,
    learn_shots,
    look_quickly,
    prompts,
    seen_by,
    small_lm,
    train_answers,
)
from mmcourse.checkpoint import (
    read_tensors,
    shipped_state,
    shrink,
    write_tensors,
)
from mmcourse.measure import seeded
from mmcourse.scenes import (
    COLUMNS,
    COUNTS,
    DIGIT_THINGS,
    DIGITS,
    EMOJI_THINGS,
    KINDS,
    POINTING,
    ROWS,
    Thing,
    caption,
    encode,
    held_out,
    held_out_pair,
    make_scenes,
    told,
)
from mmcourse.store import data_path
from mmcourse.training import count_parameters, fit, predict, warmup_cosine
from mmcourse.vision_language import answer_loss

FILE = data_path("vision_language.safetensors")
UNPOINTED = tuple(k for k in LESSON if k not in POINTING)
UPDATES, BATCH, N = 2000, 48, 48_000
RATES = (1.5e-3, 3e-3, 6e-3)
TOLD_RATE = 1e-3  # of the reader and of the bridges into it


# ---------------------------------------------------------------------------- the eye
def in_any_ink(x: Tensor) -> Tensor:  # (N, 3, 16, 16)
    "The same strokes in an ink of any colour."
    return x.amax(1, keepdim=True) * (0.3 + 0.7 * torch.rand(len(x), 3, 1, 1))


def both(outputs, targets):
    "Cross-entropy of word and colour; -100: not asked."
    pairs = zip(outputs, targets)
    return sum(F.cross_entropy(z, y, label_smoothing=0.05) for z, y in pairs)


def train_eye() -> CellEye:
    eye, scenes = CellEye(), make_scenes(16_000, seed=11)
    x = cells(torch.as_tensor(scenes["image"]))
    word, colour = cell_labels(scenes["things"])
    kept = (word > 0) | (torch.rand(len(x)) < 0.1)  # few of the empty cells
    x, word, colour = x[kept], word[kept], colour[kept]
    some = (colour > 0) & (torch.rand(len(x)) < 0.5)  # digits, without their colour
    x[some], colour = in_any_ink(x[some]), colour.masked_fill(some, -100)
    recipe = {"weight_decay": 0.05, "schedule": warmup_cosine, "batch_size": 128}
    fit(eye, (x, (word, colour)), epochs=4, lr=3e-3, loss=both, metric=None, **recipe)
    return eye


def score_eye(eye: CellEye) -> dict:
    found = {}
    for held in (False, True):
        scenes = make_scenes(2000, "test", held=held, kinds=("digit",), seed=1)
        x = cells(torch.as_tensor(scenes["image"]))
        word, colour = cell_labels(scenes["things"])
        said = [z.argmax(1) for z in predict(eye, x)]
        digit = (word > 0) & (word <= len(DIGITS))
        found["held-out" if held else "seen"] = {
            "digit": share(said[0] == word, digit),
            "colour": share(said[1] == colour, digit),
            "empty": share(said[0] == word, word == 0),
        }
    return found


def share(hits, where) -> float:
    return round(hits[where].float().mean().item(), 4)


# ------------------------------------------------------------- scenes told in words
SEEN = [t for t in DIGIT_THINGS if not held_out(t)]
TELLINGS, QUESTIONS = 24_000, 8


def crowded_scene(rng) -> list[Thing]:
    "Mostly four things, mostly digits that share digit or colour with another."
    pool = SEEN if rng.random() < 0.7 else SEEN + 4 * EMOJI_THINGS
    n = 4 if rng.random() < 0.7 else rng.integers(1, 5)
    things = [pool[rng.integers(len(pool))]]
    while len(things) < n:
        kin = [t for t in pool if shares(t, things[0])]
        allowed = kin if kin and rng.random() < 0.5 else pool
        t = allowed[rng.integers(len(allowed))]
        things += [t] * (t not in things)
    at = rng.permutation(9)
    return [t._replace(row=i // 3, column=i % 3) for t, i in zip(things, at.tolist())]


def shares(a: Thing, b: Thing) -> bool:
    return bool(a.colour) and (a.word == b.word) != (a.colour == b.colour)


def questions_about(things: list[Thing], rng) -> dict[str, list[tuple[str, str]]]:
    "Questions of each kind, with their answers; none about what is held out."
    names = {t.name for t in things}
    found = {"count": [("how many things are there ?", COUNTS[len(things) - 1])]}
    found |= {k: [] for k in ("exists", "colour", "digit", "place", "pair")}
    for t in things:
        absent = [u for u in SEEN + EMOJI_THINGS if u.name not in names]
        kin = [u for u in absent if shares(u, t)]
        near = kin or [u for u in absent if not u.colour]
        other = near[rng.integers(len(near))]
        found["exists"] += [(f"is there {caption([t])} ?", "yes")]
        found["exists"] += [(f"is there {caption([other])} ?", "no")]
        found["place"] += [(f"which row is the {t.name} ?", ROWS[t.row])]
        found["place"] += [(f"which column is the {t.name} ?", COLUMNS[t.column])]
        if t.colour and sum(u.word == t.word for u in things) == 1:
            found["colour"] += [(f"what colour is the {t.word} ?", t.colour)]
        if t.colour and sum(u.colour == t.colour for u in things) == 1:
            found["digit"] += [(f"which digit is {t.colour} ?", t.word)]
        for u in things:
            if u.word != t.word and not held_out_pair(t, u):
                found["pair"] += list(compared(t, u))
    return {k: v for k, v in found.items() if v}


def compared(a: Thing, b: Thing):
    for axis, words in (("column", "left of"), ("row", "above")):
        first, second = getattr(a, axis), getattr(b, axis)
        if first != second:
            answer = "yes" if first < second else "no"
            yield f"is the {a.name} {words} the {b.name} ?", answer


def some_of(asked: dict[str, list], rng) -> list[tuple[str, str]]:
    "Up to eight of them, each once, those about two things more often."
    often = {"count": 1, "exists": 3, "pair": 5}
    weight = np.concatenate(
        [np.full(len(v), often.get(k, 3) / len(v)) for k, v in asked.items()]
    )
    rows = [row for v in asked.values() for row in v]
    n = min(QUESTIONS, len(rows))
    return [rows[i] for i in rng.choice(len(rows), n, False, weight / weight.sum())]


def tellings(n: int, seed: int) -> tuple[Tensor, Tensor]:  # ids, which are answers
    "Scenes told in words, half of them twice, then questions with their answers."
    rng, texts = np.random.default_rng(seed), []
    for _ in range(n):
        things = crowded_scene(rng)
        scene = encode(told(things))
        again = scene if rng.random() < 0.5 else []
        ids, counts = scene + again, [0] * len(scene) + [1] * len(again)
        for question, answer in some_of(questions_about(things, rng), rng):
            ids = ids + encode(question) + encode(answer)
            counts += [0] * (len(ids) - len(counts) - 1) + [1]
        texts.append((torch.tensor(ids), torch.tensor(counts)))
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    return tuple(map(pad, zip(*texts)))


@cache
def train_reader(seed: int = 0, epochs: int = 6, lr: float = TOLD_RATE) -> nn.Module:
    "A language model that reads scenes told in words."
    with seeded(seed):
        lm = small_lm()
    data = tellings(TELLINGS, seed)
    recipe = {"batch_size": 16, "weight_decay": 0.05, "clip": 1.0, "metric": None}
    recipe |= {"schedule": warmup_cosine, "loss": whole_loss, "seed": seed}
    valid = make_scenes(1200, "valid", seed=5, drawn=False)
    ids, last, answers = prompts(valid, told=True)

    def show(history):
        hits = predict(Answers(lm), (ids, last)).argmax(1) == answers
        right = {k: v for k, v in marks(valid, hits).items() if k != "hits"}
        print(len(history), history.train_loss[-1], right, flush=True)

    fit(lm, (data[0], data), epochs=epochs, lr=lr, on_epoch=show, **recipe)
    return lm


# -------------------------------------------------------------------------- questions
class Lesson:
    "Scenes to learn from and to be asked about, seen by one eye."

    def __init__(
        self,
        eye: CellEye,
        places: str = "rows and columns",
        fewer=None,  # how nine tokens become fewer
    ):
        self.eye, self.fewer = CellEye(places), fewer or (lambda seen: seen)
        self.eye.load_state_dict(eye.state_dict())
        self.eye.requires_grad_(False)
        self.train, self.exam = lru_cache(3)(self.train), cache(self.exam)

    def train(self, front: int, seed: int, kinds=LESSON, n: int = N):
        scenes = make_scenes(n, seed=100 + seed, kinds=kinds, drawn=False)
        ids, last, answers = prompts(scenes, front)
        seen = look_quickly(self.eye, scenes["things"], seed=seed)
        return (ids, last, self.fewer(seen)), answers

    def exam(self, held: bool):
        scenes = exam_scenes(held)
        return scenes, self.fewer(seen_by(self.eye, scenes["image"]))

    def score(self, model, front: int, told=False) -> dict:
        found = {}
        for name, held in (("seen", False), ("held-out", True)):
            scenes, seen = self.exam(held)
            ids, last, answers = prompts(scenes, front, told)
            inputs = (ids, last) if told else (ids, last, seen)
            said = predict(Answers(model), inputs).argmax(1)
            found[name] = marks(scenes, said == answers)
            if not told:
                blank = self.fewer(seen_by(self.eye, 0 * scenes["image"][:1] + 1))
                inputs = ids, last, blank.expand(len(ids), -1, -1)
                said = predict(Answers(model), inputs).argmax(1)
                found[f"{name}, blank"] = marks(scenes, said == answers)
        return found


@cache
def exam_scenes(held: bool) -> dict:
    "1,200 questions about test digits."
    return make_scenes(1200, "test", held=held, seed=7)


def asked_for(model: nn.Module, eye: CellEye) -> dict:
    "Recall and false yes of a gated model, from 2,000 questions of this kind."
    found = {}
    for name, held in (("seen", False), ("held-out", True)):
        scenes = make_scenes(2000, "test", held=held, kinds=("exists",), seed=9)
        hits = answered(model, BRIDGES[2], scenes, seen_by(eye, scenes["image"]))
        there = torch.tensor([a == "yes" for a in scenes["answer"]])
        found[name] = {"recall": share(hits, there), "false yes": share(~hits, ~there)}
        found[name]["yes"] = bits(there)
        found[name]["hits"] = bits(hits)
    return found


class Everything(nn.Module):
    "All logits of a model, and not those of the answers alone."

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: tuple) -> Tensor:
        ids, seen = inputs
        return self.model(ids, seen[:, None])


def every_word(data: tuple) -> tuple:
    "Questions with their answers written behind them, and which words there are."
    (ids, last, seen), answers = data
    ids = F.pad(ids, (0, 1)).scatter(1, 1 + last[:, None], answers[:, None])
    return (ids, seen), (ids, ids > 0)


def whole_loss(logits, targets):
    ids, counts = targets
    return answer_loss(logits, ids, counts.bool())


def marks(scenes, hits) -> dict:
    "The share of right answers of each kind, and each answer."
    kind = scenes["kind"]
    found = {}
    for k in KINDS:
        found[k] = share(hits, torch.tensor([x == k for x in kind]))
    exists = torch.tensor([x == "exists" for x in kind])
    there = torch.tensor([a == "yes" for a in scenes["answer"]])
    found["recall"] = share(hits, exists & there)
    found["false yes"] = round(1 - share(hits, exists & ~there), 4)
    found["all"] = share(hits, exists | True)
    return found | {"hits": bits(hits)}


def trained(model: nn.Module, data: tuple, **how) -> nn.Module:
    "The model, and how many seconds of one processor its training took."
    start = time.process_time()
    train_answers(model, data, batch_size=BATCH, **how)
    model.seconds = round(time.process_time() - start, 1)
    return model


def main():
    study = Study("vision_language", __doc__, chapter=22, updates=UPDATES)

    def ship_eye():
        eye = train_eye()
        weights = shrink({f"eye.{k}": w for k, w in eye.state_dict().items()}, 8)
        add_to_file(weights)
        eye.load_state_dict(part("eye"))
        return score_eye(eye)

    study("eye/0", ship_eye)
    eye = CellEye()
    eye.load_state_dict(part("eye"))
    lesson = Lesson(eye)

    def learn(
        kind, seed, *, where=lesson, updates=UPDATES, lm=None, kinds=LESSON, **how
    ):
        front = front_of(kind)
        data = where.train(front, seed, kinds, min(N, updates * BATCH))
        model = bridged(kind, lm or small_lm(), data[0][2].shape[-1])
        return trained(model, data, updates=updates, seed=seed, **how)

    def scored(model, kind, where=lesson):
        learnt = [p.numel() for p in model.parameters() if p.requires_grad]
        found = {"learnt": sum(learnt), "weights": count_parameters(model)}
        found |= {"seconds": getattr(model, "seconds", None)}
        return found | where.score(model, front_of(kind))

    def ship(kind, seed, updates=6000):
        model = learn(kind, seed, updates=updates)
        weights = shrink({f"gated.{k}": w for k, w in model.state_dict().items()}, 8)
        if seed == 0:
            add_to_file(weights)
        model.load_state_dict(shipped_state(weights, "gated."))
        return scored(model, kind)

    nowhere, gated, three = Lesson(eye, "none"), BRIDGES[2], study.seeds(3)
    fewer = {
        f"{n} by {how}": Lesson(eye, fewer=partial(fewer_tokens, n=n, how=how))
        for n in (3, 1)
        for how in FEWER
    }

    def arm(kind, seed, where=lesson, **how):
        return scored(learn(kind, seed, where=where, **how), kind, where)

    def read(kind, seed, **how):
        return lesson.score(train_reader(seed, **how), 0, told=True)

    def joined(how, kind, seed):
        "A bridge into the language model that reads: which of them learns?"
        lm = small_lm() if how == "fresh" else deepcopy(train_reader())
        lm.requires_grad_(how in ("fresh", "warmed"))
        if how == "lora":
            add_lora(lm, r=8)
        return arm(kind, seed, lm=lm, lr=TOLD_RATE)

    def shots(how, kind, seed):
        model = bridged(kind, small_lm(), eye.d)
        model.load_state_dict(part("gated"))
        if how == "lora":
            add_lora(model, r=8)
        learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
        scenes = make_scenes(7_200, seed=200 + seed, drawn=False)
        seen = look_quickly(eye, scenes["things"], seed=seed)
        start = time.process_time()
        learn_shots(model, scenes, seen, seed=seed)
        found = {"learnt": learnt, "seconds": round(time.process_time() - start, 1)}
        for name, held in (("seen", False), ("held-out", True)):
            scenes, seen = lesson.exam(held)
            found[name] = marks(scenes, after_example(model, scenes, seen))
            alone = marks(scenes, answered(model, kind, scenes, seen))
            found[f"{name}, alone"] = alone
        return found

    def everything(kind, seed):
        model = bridged(kind, small_lm(), eye.d)
        data = every_word(lesson.train(0, seed))
        options = {"epochs": UPDATES * BATCH // N, "batch_size": BATCH, "metric": None}
        options |= {"weight_decay": 0.05, "clip": 1.0, "schedule": warmup_cosine}
        fit(Everything(model), data, lr=3e-3, loss=whole_loss, seed=seed, **options)
        return scored(model, kind)

    def at_rate(lr, kind, seed, updates=150):  # chosen on validation digits
        model = learn(kind, seed, updates=updates, lr=lr)
        scenes = make_scenes(900, "valid", seed=7)
        hits = answered(model, kind, scenes, seen_by(eye, scenes["image"]))
        return {"valid": marks(scenes, hits)}

    for kind in BRIDGES:
        for lr in RATES:
            study(f"rate {lr}/{kind}/0", partial(at_rate, lr, kind, 0))
    study("told/none/0", partial(read, "none", 0))
    study("told fast/none/0", partial(read, "none", 0, lr=3e-3))
    arms = {
        "full": arm,
        "nowhere": partial(arm, where=nowhere),
        **{f"shots {how}": partial(shots, how) for how in ("lora", "whole")},
        "everything": everything,
        "unpointed": partial(arm, kinds=UNPOINTED),
        **{f"tokens {k}": partial(arm, where=v) for k, v in fewer.items()},
        "shipped": ship,
    }

    def ask_more(kind, seed):
        model = bridged(kind, small_lm(), eye.d)
        model.load_state_dict(part("gated"))
        return asked_for(model, eye)

    study(f"is there/{gated}/0", partial(ask_more, gated, 0))
    long = partial(arm, BRIDGES[0], 0, updates=6000, lr=1e-3)
    study(f"long/{BRIDGES[0]}/0", long)
    for seed in three:
        for how in ("frozen", "warmed", "lora", "fresh"):
            for kind in (BRIDGES[0], gated):
                study(f"{how}/{kind}/{seed}", partial(joined, how, kind, seed), seed)
    for what, run in arms.items():
        for kind in BRIDGES if what == "full" else [gated]:
            for seed in three:
                study(f"{what}/{kind}/{seed}", partial(run, kind, seed), seed)


def add_to_file(weights: dict):
    "Put weights into the shipped file, beside the others."
    kept = read_tensors(FILE)[0] if FILE.exists() else {}
    first = next(iter(weights)).partition(".")[0] + "."
    kept = {k: w for k, w in kept.items() if not k.startswith(first)}
    write_tensors(FILE, kept | weights, {"made by": "data/make_vision_language.py"})


def part(name: str) -> dict:
    "The weights of one of the shipped models."
    return shipped_state(read_tensors(FILE)[0], f"{name}.")


if __name__ == "__main__":
    main()
