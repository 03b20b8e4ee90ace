"""The project: four steps, the fusions compared, and the command."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcourse import project as p
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.decision_fusion import fuse_product, fuse_weighted
from mmcourse.pipeline import extract_features, load_features, preprocess_data
from mmcourse.training import count_parameters

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def views():
    return load_features(three_views, 600)


@pytest.fixture(scope="module")
def run(views):
    return p.compare_fusions(views, 0, 4)


def score(proba, views):
    return (proba.argmax(1) == views["test"]["label"].numpy()).mean()


# ------------------------------------------------------------------ the four steps
def test_each_classifier_learns_from_the_rows_that_have_its_modality(views):
    "Rows that are masked may hold anything: the networks are the same."
    train, n = views["train"], 120
    given = [x[:n].clone() for x in train["features"].values()]
    y = train["label"][:n]
    mask = {m: np.arange(n) % 3 != j for j, m in enumerate(MODALITIES)}
    ruined = [x.clone() for x in given]
    for x, m in zip(ruined, MODALITIES):
        x[~torch.as_tensor(mask[m])] = 1
    models, again = (p.train_model(*x, y, mask=mask, epochs=1) for x in (given, ruined))
    everything = p.train_model(*given, y, epochs=1)
    for m, a, b, c in zip(MODALITIES, models, again, everything):
        x = views["test"]["features"][m][:50]
        assert np.array_equal(a.predict_proba(x), b.predict_proba(x))
        assert not np.allclose(a.predict_proba(x), c.predict_proba(x))


def test_seeds_and_epochs_reach_the_training(views):
    given = [x[:100] for x in views["train"]["features"].values()]
    y, test = views["train"]["label"][:100], views["test"]["features"]["image"][:20]

    def said(**options):
        return p.train_model(*given, y, **options)[1].predict_proba(test)

    one = said(seed=1, epochs=1)
    assert np.array_equal(one, said(seed=1, epochs=1))
    assert not np.allclose(one, said(seed=2, epochs=1))
    assert not np.allclose(one, said(seed=1, epochs=2))


def test_as_many_labels_as_inputs(views):
    given = [x[:100] for x in views["train"]["features"].values()]
    with pytest.raises(ValueError, match="as many targets as inputs"):
        p.train_model(*given, views["train"]["label"][:99], epochs=1)


def test_fuse_predictions_is_the_articles_sum():
    rng = np.random.default_rng(0)
    a, b, c = rng.dirichlet(np.ones(10), (3, 7))
    fused = p.fuse_predictions(a, b, c)
    assert np.allclose(fused, 0.3 * a + 0.5 * b + 0.2 * c)
    assert np.allclose(p.fuse_predictions(a, None, c), (0.3 * a + 0.2 * c) / 0.5)
    here = {"image": np.arange(7) < 3}
    some = p.fuse_predictions(a, b, c, mask=here)
    assert np.allclose(some[:3], fused[:3])
    assert np.allclose(some[3:], ((0.3 * a + 0.2 * c) / 0.5)[3:])
    assert np.allclose(p.fuse_predictions(a, b, c, (1, 1, 2)), (a + b + 2 * c) / 4)
    with pytest.raises(ValueError, match="labels cannot be averaged"):
        p.fuse_predictions(np.array([3]), np.array([8]), np.array([8]))


def test_fuse_models_is_features_predictions_and_a_fusion(views, run):
    raw = three_views("test", 40)
    data = preprocess_data(raw, views["test"]["stats"])
    features = dict(zip(MODALITIES, extract_features(data)))
    said = {
        m: model.predict_proba(features[m])
        for m, model in zip(MODALITIES, run["models"])
    }
    for fuse in (fuse_product, p.fuse_article):
        fused = p.fuse_models(*run["models"], data, fuse=fuse)
        assert np.allclose(fused, fuse(said))
    article = p.fuse_models(*run["models"], data)
    assert np.allclose(article, fuse_weighted(said, (0.3, 0.5, 0.2)))


def test_fuse_models_leaves_out_what_is_missing_or_unknown(views, run):
    stats, models = views["test"]["stats"], run["models"]
    raw = three_views("test", 30)
    text_only = preprocess_data({"text": raw["text"]}, stats)
    alone = models[0].predict_proba(extract_features(text_only)[0])
    fused = p.fuse_models(*models, text_only, fuse=fuse_product)
    assert np.allclose(fused, alone, atol=1e-5)
    strange = preprocess_data({"text": ["大于五", "🎲"]}, stats)
    assert np.allclose(p.fuse_models(*models, strange), 0.1)
    both = {"text": ["🎲"], "image": raw["image"][:1]}
    fused = p.fuse_models(*models, preprocess_data(both, stats))
    picture = preprocess_data({"image": raw["image"][:1]}, stats)
    assert np.allclose(fused, p.fuse_models(*models, picture))


# ------------------------------------------------------------------- concatenation
def test_the_concatenation_has_three_inputs_and_ten_outputs():
    model = p.concat_model(90, bands=8, frames=30)
    shapes = {i.name: tuple(i.shape) for i in model.inputs}
    assert shapes["text"] == (None, None)
    assert shapes["image"] == (None, 28, 28, 1)
    assert shapes["audio"] == (None, 30, 8)
    assert tuple(model.outputs[0].shape) == (None, 10)


def test_channels_move_last():
    x = {
        "text": torch.tensor([[1, 2, 0]]),
        "image": torch.rand(1, 1, 28, 28),
        "audio": torch.rand(1, 20, 51),
    }
    inputs = p.concat_inputs(x)
    assert inputs["text"].dtype == np.int32
    assert inputs["image"][0, 3, 5, 0] == x["image"][0, 0, 3, 5].item()
    assert inputs["audio"][0, 7, 2] == x["audio"][0, 2, 7].item()


def test_the_concatenation_uses_all_three_and_repeats(views, run):
    x = {m: f[:300] for m, f in views["train"]["features"].items()}
    y = views["train"]["label"][:300]
    made = [p.train_concat_model(x, y, seed=s, epochs=1) for s in (0, 0, 1)]
    inputs = p.concat_inputs({m: f[:8] for m, f in x.items()})
    one, same, other = (m.predict(inputs, verbose=0) for m in made)
    assert np.array_equal(one, same) and not np.allclose(one, other)
    assert np.allclose(one.sum(1), 1, atol=1e-5)
    for m in MODALITIES:
        without = inputs | {m: np.zeros_like(inputs[m])}
        assert not np.allclose(made[0].predict(without, verbose=0), one)
    assert score(run["concat"], views) > 0.3


# ------------------------------------------------------------------ the comparison
def test_each_model_of_the_table(views, run):
    said = {m: run[m] for m in MODALITIES}
    assert np.allclose(run["article"], fuse_weighted(said, (0.3, 0.5, 0.2)))
    assert np.allclose(run["product"], fuse_product(said))
    calibrated = p.answers(run["models"], views["test"])
    assert np.allclose(run["calibrated"], fuse_product(calibrated))
    assert not np.allclose(run["calibrated"], run["product"])
    for m, model in zip(MODALITIES, run["models"]):
        assert count_parameters(model) > 1000
        assert (calibrated[m].argmax(1) == said[m].argmax(1)).all()  # T keeps the order


def test_weights_are_learnt_on_validation_data(views, run):
    "With validation labels that only the text explains, the text has all the weight."
    rigged = dict(views["valid"])
    text = run["models"][0].predict(rigged["features"]["text"])
    rigged["label"] = torch.as_tensor(text)
    found = p.learn_fusions(run["models"], rigged, views["test"])
    assert (found["learnt"].argmax(1) == found["text"].argmax(1)).mean() > 0.9


def test_fusing_beats_every_view(views, run):
    best = max(score(run[m], views) for m in MODALITIES)
    for k in ("article", "learnt", "product", "calibrated"):
        assert score(run[k], views) > best + 0.05


def test_hits_and_rows():
    label = torch.tensor([0, 1, 2])
    right = np.eye(10)[[0, 1, 2]]
    wrong = np.eye(10)[[0, 2, 1]]
    runs = [dict.fromkeys(p.MODELS, right), dict.fromkeys(p.MODELS, wrong)]
    hits = p.hits_of(runs, label)
    assert hits["text"].tolist() == [[True] * 3, [True, False, False]]
    rows = p.result_rows(hits)
    assert [r["model"] for r in rows] == list(p.MODELS.values())
    assert rows[0]["accuracy (%)"] == "66.7 ± 47.1"


# --------------------------------------------------------------------- the command
def test_the_table(capsys):
    assert p.main(["--quick"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in p.MODELS.values())


def test_a_command_from_a_shell():
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mmcourse.project"]

    def done(*more):
        made = subprocess.run(
            [*command, *more], capture_output=True, text=True, env=env, encoding="utf-8"
        )
        return made.returncode, made.stdout, made.stderr

    code, out, err = done("--image", "nowhere.png")
    assert (code, out) == (2, "")
    assert err == (
        "mmcourse.project: --image: expected a file, found none at 'nowhere.png'\n"
    )
    assert done("--text", " ")[2] == (
        "mmcourse.project: --text: expected a word; without any, leave it out\n"
    )
    code, out, _ = done("--help")
    assert code == 0 and "--audio FILE" in out


def test_import_is_light():
    code = (
        "import sys, mmcourse.project; names = 'keras librosa sklearn matplotlib nltk "
        "soundfile PIL scipy'; print(sys.modules.keys() & names.split())"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env
    )
    assert done.stdout.strip() == "set()"
