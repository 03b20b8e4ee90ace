"""Chapter 27: one model of words, pictures and sounds, and what it needs.

    python data/make_unified.py    # data/results/unified.json, unified.safetensors

Arms are named what/seed. `ship`: the long training; its weights ship. `tune/…`: hits on
validation data by guidance, temperature and share of likely tokens. `test`: hits of the
shipped weights on test data by direction, a 1 for each example in which a reader of
chapter 12 finds the digit that it came from; `drawn`: the same for what is drawn after
a sound, at the guidance that was best for it on validation data; `retrieval`: a
training example of the word that the model read; `ceiling`: codes of real examples,
or originals for words.
`hints`: after a test hint. `mixed`: a picture's word and then its sound, in one
sequence.

Small models (64 features, 5 blocks, 500 steps of 16 rows): `asked/…`: with the
question on the way up (`half way`), with it below the last block (`late`), without
it (`not`); `asked at 0.01/…`: the same at this rate instead of 0.003. `six`: a model
for each direction, all six together as large as the one; `six large`: each as large.
`pace/…`: losses of 200 steps at a learning rate, with and without qk-norm and z-loss.
`long/not`: the long training without the question, on test data. `middle/…`: the large
model, rows and rate of the long training for 1,500 steps, with the question half way,
late or not at all.
"""

from functools import cache, partial
from itertools import permutations
from pathlib import Path

import torch
import torch.nn.functional as F
from study import Study, bits

from mmcourse import language_model
from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.hints import hints
from mmcourse.lessons import (
    ARROWS,
    LENGTH,
    Examples,
    Judge,
    chooser,
    directions,
    draw_batch,
    load_unified,
    through,
)
from mmcourse.unified import (
    Chameleon,
    Learner,
    name_next,
    start_near,
    train_unified,
    write,
)

SHIPPED = Path(__file__).with_name("unified.safetensors")
SIZES = {"d": 112, "heads": 4, "depth": 5}
SMALL = {"d": 64, "heads": 4, "depth": 5}
PAIRS = [("image", "audio", "text"), ("audio", "image", "text")]
ORDERS = [*permutations(("image", "audio", "text")), *PAIRS]
SETTINGS = {  # guidance, temperature, share of likely tokens
    "plain": (1.0, 1.0, 1.0),
    "guide 2": (2.0, 0.9, 0.9),
    "guide 3": (3.0, 0.9, 0.9),
    "guide 5": (5.0, 0.9, 0.9),
    "guide 4, wider": (4.0, 1.0, 0.95),
}
HEARD = [a for a in ARROWS if a[0] == "audio" and a[-1] == "image"]
FIVE = {"guide": 5.0, "temperature": 0.9, "p": 0.9}  # chosen for these alone
CHOSEN = {"guide": 3.0, "temperature": 0.9, "p": 0.9}


def exact(q, k, v, mask=None):
    "Attention in float32 inside of what is computed in bfloat16; always causal."
    with torch.autocast("cpu", enabled=False):
        q, k, v = q.float(), k.float(), v.float()
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)


class FastLearner(Learner):
    "Products in bfloat16."

    def forward(self, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(inputs)


def main():
    study = Study("unified", __doc__, about="chapter 27")
    language_model.fused_attention = exact
    examples = cache(lambda: Examples(versions=24))
    judge = cache(lambda: Judge(examples()))

    def fresh(**sizes):
        e = examples()
        books = {m: t.quantizer.codebook for m, t in e.tokenizers.items()}
        return start_near(Chameleon(len(e.tokens), tied=True, **sizes), e.tokens, books)

    def train(seed, orders, rows, steps, *, sizes, told=0, heights=(2, 3), **options):
        def draw(g):
            return draw_batch(examples(), orders, rows, g, told=told)

        learner = FastLearner(fresh(**sizes), heights)
        how = {"steps": steps, "seed": seed} | options
        curve = train_unified(learner, draw, examples().tokens, **how)
        return learner.model.eval(), curve

    def hits(model, split="test", **options):
        found = directions(model, examples(), judge(), split, **options)
        return {arrow: bits(h) for arrow, h in found.items()}

    def long(seed, **options):
        how = {"sizes": SIZES, "told": 4, "lr": 0.01}
        return train(seed, ORDERS, 4, 5000, **how, **options)

    def ship(seed):
        model, curve = long(seed)
        keep(model)
        names = curve[0]
        mean = [
            {k: sum(c[k] for c in curve[i : i + 100]) / 100 for k in names}
            for i in range(0, len(curve) - 99, 100)
        ]
        return {"steps": len(curve), "curve": mean}

    def keep(model):
        state = {k: t for k, t in model.state_dict().items() if k != "head.weight"}
        small = {f"model.{k}": t for k, t in shrink(state, 8).items()}
        about = {"made by": "data/make_unified.py", "seed": 0, "sizes": SIZES}
        write_tensors(SHIPPED, small, about)

    shipped = cache(load_unified)

    def tune(name):
        guide, temperature, p = SETTINGS[name]
        options = {"guide": guide, "temperature": temperature, "p": p}
        return hits(shipped(), "valid", n=200, **options)

    def retrieval():
        e, g, found = examples(), torch.Generator().manual_seed(0), {}
        for arrow in [a for a in ARROWS if a[-1] != "text" and len(a) == 2]:
            first, last = arrow
            if first == "text":
                digit = torch.arange(500) % 10
                word = digit
            else:
                digit = e.digit[first, "test"]
                word = through(shipped(), e, (first, "text"), e.codes[first, "test"])
            taken = e.decks[last].draw(word, g)
            read = judge().read_codes(last, taken)
            found[">".join(arrow)] = bits(read == digit)
        return found

    def ceiling():
        e, found = examples(), {}
        for m in LENGTH:
            digit = e.digit[m, "test"]
            real = judge().read(m, e.x[m, "test"]) == digit
            coded = judge().read_codes(m, e.codes[m, "test"]) == digit
            found[f"{m}>text"] = bits(real)
            for a in ARROWS:
                if a[-1] == m:
                    found[">".join(a)] = bits(coded)
        return found

    def after_hints(n=500):
        e, told = examples(), hints("test", n, 0)
        rows = [[*e.tokens.text(t), e.tokens.place["."]] for t in told["text"]]
        length, digit = torch.tensor([*map(len, rows)]), torch.as_tensor(told["label"])
        hit = {m: torch.zeros(n).int() for m in ("text", *LENGTH)}
        choose = chooser(torch.Generator().manual_seed(0), *list(CHOSEN.values())[1:])
        for k in length.unique().tolist():  # those of one length together
            which = (length == k).nonzero()[:, 0]
            ids = torch.tensor([rows[i] for i in which])
            found = {"text": name_next(shipped(), ids).argmax(1)}
            for m, size in LENGTH.items():
                how = {"guide": CHOSEN["guide"], "choose": choose}
                made = write(shipped(), e.tokens, ids, m, size, **how)
                found[m] = judge().read_codes(m, made)
            for m, read in found.items():
                hit[m][which] = (read == digit[which]).int()
        return {m: bits(h) for m, h in hit.items()}

    def mixed(n=500):
        e = examples()
        rows = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:n]
        codes, digit = (t["image", "test"][rows] for t in (e.codes, e.digit))
        ids = e.tokens.wrap("image", codes)
        word = name_next(shipped(), ids).argmax(1)
        choose = chooser(torch.Generator().manual_seed(0), *list(CHOSEN.values())[1:])
        ids = torch.cat([ids, word[:, None]], 1)
        said = write(shipped(), e.tokens, ids, "audio", 24, guide=3.0, choose=choose)
        heard = judge().read_codes("audio", said)
        pairs = {"word": word == digit, "sound": heard == digit, "agree": heard == word}
        return {k: bits(v) for k, v in pairs.items()}

    ASKED = {"half way": {}, "late": {"heights": (4, 4)}, "not": {"ask": 0.0}}

    def small(seed, **options):
        model, curve = train(seed, ORDERS, 2, 500, sizes=SMALL, **options)
        return hits(model, n=200, arrows=ARROWS[:6]) | {"last": curve[-1]}

    def never_asked(seed):
        model, curve = long(seed, ask=0.0)
        last = {k: sum(c[k] for c in curve[-200:]) / 200 for k in curve[0]}
        return hits(model, n=500, **CHOSEN) | {"last": last}

    def middle(seed, **options):
        how = {"sizes": SIZES, "told": 4, "lr": 0.01} | options
        model, curve = train(seed, ORDERS, 4, 1500, **how)
        last = {k: sum(c[k] for c in curve[-200:]) / 200 for k in curve[0]}
        return hits(model, n=300, **CHOSEN) | {"last": last}

    def six(seed, sizes, heights):
        found = {}
        for arrow in ARROWS[:6]:
            alone = [] if arrow[-1] == "text" else [(arrow[-1],)]  # for guidance
            orders = [arrow] * (4 - len(alone)) + alone
            model, _ = train(seed, orders, 4, 500, sizes=sizes, heights=heights)
            found |= hits(model, n=200, arrows=[arrow])
        return found

    def pace(seed, lr, z, qk_norm):
        sizes = SMALL | {"qk_norm": qk_norm}
        _, curve = train(seed, ORDERS, 2, 200, sizes=sizes, lr=lr, z=z)
        return {"curve": [round(c["image"] + c["audio"], 3) for c in curve[::5]]}

    study("ship/0", partial(ship, 0))
    study("test/0", lambda: hits(shipped(), n=500, **CHOSEN))
    study("drawn/0", lambda: hits(shipped(), n=500, arrows=HEARD, **FIVE))
    study("retrieval/0", retrieval)
    study("ceiling/0", ceiling)
    study("mixed/0", mixed)
    study("hints/0", after_hints)
    for seed in study.seeds(3):
        for name, how in ASKED.items():
            study(f"asked/{name}/{seed}", partial(small, seed, **how), seed)
    for lr in (0.003, 0.03, 0.1, 0.3, 1.0):
        for qk in (True, False):
            for z in (0.0, 1e-4):
                name = f"pace/{lr}, {'' if qk else 'no '}qk-norm, z {z}/0"
                study(name, partial(pace, 0, lr, z, qk))
    tiny = {"d": 24, "heads": 2, "depth": 2}
    study("six/0", partial(six, 0, tiny, (1, 1)))
    for name in SETTINGS:
        study(f"tune/{name}/0", partial(tune, name))
    for seed in study.seeds(3):
        for name, how in ASKED.items():
            run = partial(small, seed, lr=0.01, **how)
            study(f"asked at 0.01/{name}/{seed}", run, seed)
    study("long/not/0", partial(never_asked, 0))
    study("six large/0", partial(six, 0, SMALL, (2, 3)))
    for name, how in ASKED.items():  # first weights from the seed too
        study(f"middle/{name}/1", partial(middle, 1, **how), 1)


if __name__ == "__main__":
    main()
