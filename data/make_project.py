"""Chapter 19's comparison of fusions, for longer trainings.

    python data/make_project.py      # writes data/results/project.json

Arms are named epochs/seed: three classifiers, their fusions and the concatenation, all
trained for as many epochs on 1,500 of the three views. Results are accuracies on test
data; weights and temperatures come from validation data.
"""

from functools import partial

from study import Study

from mmcourse.datasets import three_views
from mmcourse.pipeline import load_features
from mmcourse.project import MODELS, compare_fusions, hits_of

study = Study("project", __doc__, examples=1500)
views = load_features(three_views, 1500)


def run(epochs, seed):
    hits = hits_of([compare_fusions(views, seed, epochs)], views["test"]["label"])
    return {k: round(float(hits[k].mean()), 4) for k in MODELS}


for epochs in (6, 12, 24, 48):
    for seed in study.seeds(3):
        study(f"{epochs}/{seed}", partial(run, epochs, seed), seed)
