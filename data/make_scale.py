"""Chapter 35: what a larger language model gains, for a law that is tested on the next.

    python data/make_scale.py       # data/results/scale.json

A model of the letters in Python's own library (a to z, and a blank), in the form of
chapter 22's, two blocks. Arms are named WIDTH/RATE/SEED: widths 16, 24, 32 and 40 for
the law, 64 for its test. Each reads the same number of letters once. A rate is sought
for each width on validation data with seed 0: a start, its double and its half, and on
as long as an end is the best. With the chosen rate three other seeds are trained, and
these alone are reported. Fixed before: the form of the law.
Widths and letters were cut after a first try at width 16, with more letters and not
kept, was seen; the rate to start from is from it, too.
`test`: the loss of each test file (nats a letter).
"""

import numpy as np
import torch
from study import Study

from mmcourse.scale_tools import (
    LETTERS,
    letter_blocks,
    letter_loss,
    letter_texts,
    train_letters,
)
from mmcourse.training import count_parameters

WIDTHS = 16, 24, 32, 40, 64
STEPS, BATCH, LONG = 400, 32, 64
START = 0.03


def main():
    study = Study("scale", __doc__, about="chapter 35", letters=STEPS * BATCH * LONG)
    texts = letter_texts()
    train = letter_blocks("".join(texts["train"].values()), LONG)
    some = {s: [letter_blocks(t, LONG)[:20] for t in texts[s].values()] for s in texts}
    some = {s: [b for b in rows if len(b)] for s, rows in some.items()}
    valid = torch.cat(some["valid"])

    def run(width, rate, seed):
        g = torch.Generator().manual_seed(seed)
        rows = train[torch.randperm(len(train), generator=g)[: STEPS * BATCH]]
        model = train_letters(rows, width, rate, seed=seed, batch_size=BATCH)
        blocks = sum(p.numel() for p in model.blocks.parameters())
        return {
            "parameters": count_parameters(model),
            "in blocks": blocks,
            "valid": round(letter_loss(model, valid), 5),
            "test": [round(letter_loss(model, b), 4) for b in some["test"]],
        }

    def arm(width, rate, seed):
        name = f"{width}/{rate:g}/{seed}"
        found = study(name, lambda: run(width, rate, seed), seed)
        return found["valid"] if found else np.inf

    def chosen(width):
        "The rate that is best on validation data and is no end of those tried."
        tried = {r: arm(width, r, 0) for r in (START / 2, START, 2 * START)}
        while (best := min(tried, key=tried.get)) in (min(tried), max(tried)):
            if np.isinf(tried[best]) or len(tried) > 6:
                break
            r = best / 2 if best == min(tried) else best * 2
            tried[r] = arm(width, r, 0)
        return best

    assert len(LETTERS) == 27
    for width in WIDTHS:
        rate = chosen(width)
        for seed in range(1, 1 + (study.args.seeds or 3)):
            arm(width, rate, seed)


if __name__ == "__main__":
    main()
