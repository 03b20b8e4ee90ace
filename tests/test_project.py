"""The project: photos of digits, fusion, the cache of trained networks and the command."""

import io
import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from scipy import ndimage

from mmcourse import project as p
from mmcourse.audio import augment_audio, resample, standardise_mel
from mmcourse.datasets import MODALITIES, mnist, spoken_digits, three_views
from mmcourse.image import augment_image
from mmcourse.training import count_parameters

ROOT = Path(__file__).resolve().parent.parent


# --------------------------------------------------------------------------------------------------------------- pictures as learners take them
def photo(digit, rng, pen=None, scale=12):
    "A digit in dark ink somewhere on unevenly lit paper; `pen`: its stroke thinned to so many pixels."
    big = ndimage.zoom(digit, scale, order=1) > 0.5
    if pen:
        depth = ndimage.distance_transform_edt(big)
        big = ndimage.binary_dilation(
            (depth == ndimage.maximum_filter(depth, 3)) & big, iterations=pen
        )
    h, w = rng.integers(28 * scale + 20, 650, 2)
    i, j = rng.integers(0, h - 28 * scale), rng.integers(0, w - 28 * scale)
    sheet = np.zeros((h, w))
    sheet[i : i + 28 * scale, j : j + 28 * scale] = big
    light = (
        0.6
        + 0.35
        * (
            np.linspace(0, 1, w) * rng.random()
            + np.linspace(0, 1, h)[:, None] * rng.random()
        )
        / 2
    )
    seen = light * (1 - 0.7 * ndimage.gaussian_filter(sheet, 1)) + rng.normal(
        0, 0.02, (h, w)
    )
    return Image.fromarray(np.uint8(255 * seen.clip(0, 1)))


@pytest.fixture(scope="module")
def image_model():
    model, stats = p.train_recogniser("image", epochs=6)
    return p.Recogniser({"image": model}, stats)


def answers(recogniser, images):
    data = p.preprocess_data({"image": images}, recogniser.stats)
    return recogniser.models["image"].predict(p.extract_image_features(data["image"]))


@pytest.mark.parametrize("pen", [None, 2, 5])
def test_photos_are_read_as_well_as_mnist(image_model, pen):
    test, rng = mnist("test"), np.random.default_rng(0)
    photos = [photo(x, rng, pen) for x in test["image"][:60]]
    assert (answers(image_model, photos) == test["label"][:60]).mean() > 0.88
    assert (answers(image_model, test["image"]) == test["label"]).mean() > 0.93


def test_light_ink_on_a_dark_board_and_jpeg(image_model):
    test, rng = mnist("test"), np.random.default_rng(1)
    boards = []
    for x in test["image"][:40]:
        Image.eval(photo(x, rng), lambda v: 255 - v).save(
            b := io.BytesIO(), "JPEG", quality=60
        )
        boards.append(b.getvalue())
    assert (answers(image_model, boards) == test["label"][:40]).mean() > 0.85


# ------------------------------------------------------------------------------------------------------------------------------------- sound
def test_the_voice_network_hears_voices_it_never_met():
    model, stats = p.train_recogniser("audio", epochs=5)
    test = spoken_digits("test")
    data = p.preprocess_data(test, {"grams": {}, "image": (0.0, 1.0)} | stats)
    assert (
        model.predict(p.extract_audio_features(data["audio"])) == test["label"]
    ).mean() > 0.75
    loud, rate = data["audio"][:50] * 0.3, 44100
    files = []
    for w in loud:
        soundfile.write(
            f := io.BytesIO(),
            resample(w.astype(float), 8000, rate)[:, None].repeat(2, 1) * 0.2,
            rate,
            format="WAV",
            subtype="PCM_16",
        )
        files.append(f.getvalue())
    again = p.preprocess_data(
        {"audio": files}, {"grams": {}, "image": (0.0, 1.0)} | stats
    )
    same = model.predict(p.extract_audio_features(again["audio"])) == model.predict(
        p.extract_audio_features(data["audio"][:50])
    )
    assert same.mean() > 0.9  # another rate, level and width: the same words


def test_augmentation_keeps_shape_range_and_emptiness():
    x = p.extract_audio_features(
        p.preprocess_audio(
            [
                w[:n]
                for w, n in zip(
                    *(spoken_digits("valid")[k][:16] for k in ("audio", "length"))
                )
            ]
        )
    )
    y = augment_audio(x, torch.Generator().manual_seed(0))
    assert (
        y.shape == x.shape
        and torch.isfinite(y).all()
        and y.max() <= 0
        and y.min() == -60
    )
    assert ((y > -60).any(1).sum(1) > 3).all() and torch.equal(
        y, augment_audio(x, torch.Generator().manual_seed(0))
    )
    i = torch.tensor(mnist("valid")["image"][:16])[:, None]
    j = augment_image(i, torch.Generator().manual_seed(0))
    assert (
        j.shape == i.shape
        and j.min() >= -1e-6
        and j.max() <= 1 + 1e-6
        and (j.sum((1, 2, 3)) > 0.5 * i.sum((1, 2, 3))).all()
    )


def test_standardised_clips_do_not_know_level_or_padding():
    x = torch.full((1, 20, 51), -60.0)
    x[..., 10:40] = -torch.rand(20, 30) * 40
    wide = torch.full((1, 20, 71), -60.0)
    wide[..., 20:50] = x[..., 10:40] - 7
    a, b = standardise_mel(x)[..., 10:40], standardise_mel(wide)[..., 20:50]
    assert (
        torch.allclose(a, b, atol=1e-4)
        and torch.isfinite(standardise_mel(torch.full((1, 20, 5), -60.0))).all()
    )


# ------------------------------------------------------------------------------------------------------------------------------------ fusion
def independent(n=4000, seed=0):
    "Labels, and three calibrated posteriors from independent noisy channels."
    rng = np.random.default_rng(seed)
    y, out = rng.integers(0, 10, n), []
    for keep in (0.5, 0.6, 0.4):
        seen = np.where(rng.random(n) < keep, y, rng.integers(0, 10, n))
        q = np.full((n, 10), (1 - keep) / 10)
        q[range(n), seen] += keep
        out.append(q)
    return y, out


def product(*views):
    return p.fuse_product(dict(zip(MODALITIES, views)))


def test_product_is_bayes_rule_and_beats_averages():
    y, (a, b, c) = independent()
    assert np.allclose(
        product(a, b, c), (a * b * c) / (a * b * c).sum(1, keepdims=True)
    )
    score = lambda q: (q.argmax(1) == y).mean()
    nll = lambda q: -np.log(q[range(len(y)), y]).mean()
    averaged = p.fuse_predictions(a, b, c, p.learn_weights([a, b, c], y))
    assert nll(product(a, b, c)) < nll(averaged) and score(product(a, b, c)) >= score(
        averaged
    ) > max(map(score, (a, b, c)))


def test_learnt_weights():
    y, (a, b, _) = independent()
    noise = np.random.default_rng(1).dirichlet(np.ones(10), len(y))
    w = p.learn_weights([a, b, noise], y)
    assert (
        np.isclose(w.sum(), 1) and w.min() >= 0 and w[1] > w[0]
    )  # the better view counts for more
    assert p.learn_weights([None, b, None], y)[1] > 0
    best = lambda w: (p.fuse_predictions(a, b, noise, w).argmax(1) == y).mean()
    assert best(w) >= best((0.3, 0.5, 0.2)) - 0.005


def test_calibration_mends_overconfidence_and_keeps_the_order():
    y, (a, _, _) = independent()
    net = torch.nn.Identity()
    model, logits = p.Classifier(net), torch.tensor(np.log(a) * 3, dtype=torch.float32)
    before = model.predict(logits)
    p.calibrate(model, logits, y)
    assert (
        abs(model.temperature.item() - 3) < 0.3
        and (model.predict(logits) == before).all()
    )
    assert np.allclose(model.predict_proba(logits), a, atol=0.03)


@pytest.fixture(scope="module")
def views():
    return p.load_views(1500)


@pytest.fixture(scope="module")
def run(views):
    return p.compare_fusions(views, 0, 6)


def test_fusion_beats_the_best_view_by_fifteen_points(views, run):
    y = views["test"]["label"]
    score = {k: (run[k]["proba"].argmax(1) == y).mean() for k in p.MODELS}
    assert max(score.values()) - max(score[m] for m in MODALITIES) > 0.15
    assert all(0.35 < score[m] < 0.8 for m in MODALITIES) and score[
        "Keras concatenation"
    ] > max(score[m] for m in MODALITIES)
    assert all(
        np.allclose(run[k]["proba"].sum(1), 1, atol=1e-4) for k in p.MODELS
    ) and np.isclose(sum(run["weights"].values()), 1)
    assert [r["model"] for r in p.result_rows([run], y)] == list(p.MODELS.values())


def test_same_seed_same_answer(views, run):
    again = p.train_text_classifier(
        views["train"]["features"][0], views["train"]["label"], seed=0, epochs=6
    )
    assert np.allclose(
        again.predict_proba(views["test"]["features"][0]),
        run["text"]["proba"],
        atol=1e-5,
    )


def test_fuse_models_leaves_out_what_is_missing_or_unknown(views, run):
    stats, models = views["train"]["data"]["stats"], run["models"]
    raw = three_views("test", 30)
    text_only = p.preprocess_data({"text": raw["text"]}, stats)
    fused = p.fuse_models(*models, text_only, fuse=p.fuse_product)
    assert np.allclose(
        fused, models[0].predict_proba(p.extract_features(text_only)[0]), atol=1e-5
    )
    strange = p.preprocess_data({"text": ["大于五", "🎲"]}, stats)
    assert np.allclose(p.fuse_models(*models, strange), 0.1)
    gaps = p.preprocess_data(
        three_views("test", 50, present={"text": 0.5, "image": 0.5, "audio": 0.5}),
        stats,
    )
    assert np.allclose(p.fuse_models(*models, gaps).sum(1), 1) and not all(
        gaps["mask"][m].all() for m in MODALITIES
    )


def test_train_model_learns_from_what_is_there(views):
    train = views["train"]
    there = np.arange(len(train["label"])) % 3 > 0
    models = p.train_model(
        *train["features"],
        train["label"],
        mask=dict.fromkeys(MODALITIES, there),
        epochs=1,
    )
    assert [count_parameters(m) > 1000 for m in models] == [True] * 3
    with pytest.raises(ValueError, match="as many targets as inputs"):
        p.train_model(*train["features"], train["label"][:-1], epochs=1)


# -------------------------------------------------------------------------------------------------------- the cache of trained networks
def small(modality, say=lambda text: None):
    "In place of a real training."
    torch.manual_seed(0)
    net = {"text": lambda: p.TextNet(3), "image": p.ImageNet28, "audio": p.VoiceNet}[
        modality
    ]()
    stats = {
        "text": {"grams": {"an": 1, "even": 2, "odd": 3}},
        "image": {"image": (0.1, 0.3)},
        "audio": {"audio": (0.0, 0.06)},
    }[modality]
    say(f"{modality} trained")
    return p.Classifier(net).eval(), stats


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(p, "train_recogniser", small)
    return tmp_path


def test_kept_and_read_again(cache):
    said = []
    first = p.load_recogniser(say=said.append)
    again = p.load_recogniser(say=lambda text: pytest.fail(text))
    image = mnist("test")["image"][0]
    assert [t for t in said if "trained" in t] == [f"{m} trained" for m in MODALITIES]
    a, b = first(text="odd", image=image), again(text="odd", image=image)
    assert a.keys() == b.keys() == {"text", "image", "fused"} and all(
        np.allclose(a[k], b[k], atol=1e-6) for k in a
    )
    assert {f.suffix for f in cache.iterdir()} == {".safetensors"} and not any(
        b"pickle" in f.read_bytes()[:4000] for f in cache.iterdir()
    )


def test_only_what_is_asked_for_is_trained(cache):
    p.load_recogniser(("image",))
    assert [f.name.split("-")[1] for f in cache.iterdir()] == ["image"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b[:-9] + bytes(9),
        lambda b: bytes(100),
        lambda b: b[:40] + b"\xff" * 8 + b[48:],
    ],
)
def test_a_damaged_file_is_trained_anew(cache, harm):
    good = p.load_recogniser(("image",)).state_dict()
    (file,) = cache.iterdir()
    file.write_bytes(harm(file.read_bytes()))
    said = []
    p.load_recogniser(("image",), said.append)
    assert "training anew" in said[0]
    kept = p.load_recogniser(("image",), lambda text: pytest.fail(text)).state_dict()
    assert all(torch.equal(good[k], kept[k]) for k in good)


def test_other_code_or_data_other_file(cache, monkeypatch):
    from mmcourse import datasets

    key = p._key()
    monkeypatch.setattr(datasets, "SPOKEN_SHA256", "0" * 64)
    assert p._key() != key


def test_a_cache_that_cannot_be_written_is_no_error(cache, monkeypatch):
    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(p, "write_tensors", full)
    said = []
    assert (
        p.load_recogniser(("image",), said.append)(image=mnist("test")["image"][0])[
            "fused"
        ].shape
        == (10,)
        and "no space" in said[-1]
    )


# -------------------------------------------------------------------------------------------------------------------------------- the command
def test_own_input(cache, tmp_path, capsys):
    Image.fromarray(
        np.uint8(255 * (1 - mnist("test")["image"][3].repeat(8, 0).repeat(8, 1)))
    ).save(tmp_path / "digit.png")
    clip = spoken_digits("test")
    soundfile.write(tmp_path / "digit.wav", clip["audio"][0, : clip["length"][0]], 8000)
    assert (
        p.main(
            [
                "--image",
                str(tmp_path / "digit.png"),
                "--audio",
                str(tmp_path / "digit.wav"),
                "--text",
                "an even number",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [l.split()[0] for l in lines[-4:]] == [*MODALITIES, "fused"] and all(
        "%" in l for l in lines[-4:]
    )
    assert p.main(["--audio", str(tmp_path / "digit.wav")]) == 0
    assert [l.split()[0] for l in capsys.readouterr().out.splitlines()] == [
        "audio",
        "fused",
    ]


def test_own_text_without_a_known_word(cache, capsys):
    assert p.main(["--text", "偶数"]) == 0
    assert "left out" in (out := capsys.readouterr().out) and "nothing to go by" in out


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--image", "nowhere.png"], "--image: expected a file"),
        (["--audio", "nowhere.wav"], "--audio: expected a file"),
        (["--text", " "], "--text: expected at least one word"),
        (["--image", __file__], "--image: expected a picture"),
        (["--audio", __file__], "--audio: expected a recording"),
        (["--image", "."], "--image: expected a file"),
        (["--seeds", "0"], "expected --seeds"),
        (["--seeds", "x"], "--seeds"),
        (["--examples", "5"], "--examples"),
        (["--colour"], "unrecognized"),
        (["--image"], "expected one argument"),
    ],
)
def test_bad_input_is_one_line_and_code_2(cache, capsys, argv, says):
    assert p.main(argv) == 2
    out, err = capsys.readouterr()
    assert (
        says in err
        and err.startswith("mmcourse.project: ")
        and err.count("\n") == 1
        and not out
    )
    assert not list(cache.iterdir())  # nothing was trained first


def test_command_from_a_shell():
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mmcourse.project", "--image", "nowhere.png"],
        capture_output=True,
        text=True,
        env=env,
    )
    assert (
        done.returncode == 2
        and done.stdout == ""
        and done.stderr
        == "mmcourse.project: --image: expected a file, found none at 'nowhere.png'\n"
    )
    helped = subprocess.run(
        [sys.executable, "-m", "mmcourse.project", "--help"],
        capture_output=True,
        text=True,
        env=env,
    )
    assert helped.returncode == 0 and "--audio FILE" in helped.stdout


def test_the_table(capsys):
    assert p.main(["--quick"]) == 0
    out = capsys.readouterr().out
    assert (
        all(name in out for name in p.MODELS.values())
        and "learnt weights: text" in out
        and out.rstrip().endswith("s in all")
    )


def test_import_is_light():
    code = 'import sys, mmcourse.project; print([m for m in ("keras", "librosa", "sklearn", "matplotlib", "nltk", "soundfile", "PIL", "scipy") if m in sys.modules])'
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout
    assert out.strip() == "[]"
