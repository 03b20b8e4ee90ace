"""Chapter 28: how many weights transformers counts, and what pycocoevalcap says.

    pip install -e ".[parity]"
    pip install --no-deps pycocoevalcap      # for `cider` alone
    python data/make_field_guide.py          # writes data/results/field_guide.json

`counted`: each model of data/model_configs.yml is built on torch's meta device, where a
tensor has a shape and no numbers, and its weights are counted. `cider`: captions of
scenes, right and changed in several ways, with the scores of the usual package.
"""

import os

import torch
import yaml
from study import Study

from mmcourse.scenes import make_scenes
from mmcourse.store import data_path

os.environ["HF_HUB_OFFLINE"] = "1"


def counted() -> dict[str, int]:
    import transformers

    transformers.logging.set_verbosity_error()
    text = data_path("model_configs.yml").read_text("utf-8")
    found = {}
    for m in yaml.safe_load(text):
        kind = getattr(transformers, m["model"])
        with torch.device("meta"):
            model = kind(kind.config_class(**m["arguments"]))
        found[m["name"]] = sum(p.numel() for p in model.parameters())
    return found


def changed(caption: str, way: int) -> str:
    words = caption.split()
    if way == 0:
        return caption
    if way == 1:
        return " ".join(reversed(words))
    return " ".join(words[: max(1, len(words) - way)])


def cider() -> dict:
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    texts = make_scenes(60, "test", seed=2, drawn=False)["caption"]
    references = [[a, b] for a, b in zip(texts[:30], texts[30:])]
    captions = [changed(t, i % 4) for i, t in enumerate(texts[:30])]
    scorer = CiderScorer(n=4, sigma=6.0)
    for caption, people in zip(captions, references):
        scorer += (caption, people)
    scores = [float(s) for s in scorer.compute_score()[1]]
    return {"captions": captions, "references": references, "scores": scores}


if __name__ == "__main__":
    study = Study("field_guide", __doc__)
    study("counted/0", counted)
    study("cider/0", cider)
