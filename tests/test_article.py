"""Each of the article's code blocks, section by section: as it stands it fails (or means something else); in its corrected form it runs on real data."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmcourse import project as p
from mmcourse.audio import level
from mmcourse.datasets import three_views


def accuracy(proba, label):
    return (proba.argmax(1) == label).mean()


@pytest.fixture(scope="module")
def run():
    "One small run of the article's four steps, on real views."
    raw, held = three_views("train", 1200), three_views("test", 400)
    train = p.preprocess_data(raw)
    test = p.preprocess_data(held, train["stats"])
    features = p.extract_features(train)
    models = p.train_model(*features, raw["label"], epochs=6)
    return SimpleNamespace(
        raw=raw,
        held=held,
        train=train,
        test=test,
        features=features,
        models=models,
        label=held["label"],
    )


# ------------------------------------------------------------------------------------------------------- chapter 3: the pseudo-code
def test_3_1_preprocess(run):
    assert (
        set(run.train) == {"text", "image", "audio", "mask", "stats"}
        and len(run.train["text"]) == 1200
    )
    assert run.train["image"].shape == (1200, 28, 28) and run.train["audio"].shape == (
        1200,
        8000,
    )
    assert (
        abs(run.train["image"].mean()) < 1e-4
        and abs(run.train["image"].std() - 1) < 1e-3
    )
    assert run.test["stats"] is run.train["stats"]  # nothing is fitted on test data


def test_3_1_as_written_a_list_of_ragged_things_has_no_scale(run):
    with pytest.raises(ValueError, match="inhomogeneous"):
        np.array(
            [run.train["text"][:2], run.train["image"][:2], run.train["audio"][:2]]
        )


def test_3_2_extract_features(run):
    text, image, audio = run.features
    assert (
        len(text) == len(image) == len(audio) == 1200
        and image.shape[1:] == (1, 28, 28)
        and audio.shape[1:] == (20, 51)
    )
    assert all(torch.isfinite(x.float()).all() for x in run.features)
    assert torch.equal(
        p.extract_features(run.train)[0], text
    )  # the same again: nothing learns on the way


def test_3_3_train_model(run):
    for model, x in zip(run.models, p.extract_features(run.test)):
        assert accuracy(model.predict_proba(x), run.label) > 0.2


def test_3_4_fuse_models(run):
    fused = p.fuse_models(*run.models, run.test)
    assert fused.shape == (400, 10) and np.allclose(fused.sum(1), 1)
    alone = [
        accuracy(m.predict_proba(x), run.label)
        for m, x in zip(run.models, p.extract_features(run.test))
    ]
    assert accuracy(fused, run.label) > max(alone)
    assert (
        accuracy(p.fuse_models(*run.models, run.test, fuse=p.fuse_product), run.label)
        > max(alone) + 0.05
    )


def test_3_4_as_written_models_meet_data_without_features(run):
    with pytest.raises(Exception):
        run.models[0].predict(run.test["text"])  # words, not numbers


# ---------------------------------------------------------------------------------------------------- section 4.3: the worked example
def test_4_3_1_preprocess():
    words = p.preprocess_text(["This is a sample text."])[0]
    image = p.preprocess_image([np.pad(np.ones((30, 6)), 20)])[0]
    audio = p.preprocess_audio([three_views("test", 10)["audio"][0]])[0]
    assert (
        words == ["this", "is", "a", "sample", "text", "."]
        and image.shape == (28, 28)
        and np.isclose(
            np.linalg.norm(audio[audio != 0]) / np.sqrt((audio != 0).sum()),
            0.1,
            atol=0.01,
        )
    )


def test_4_3_1_as_written_three_names_are_missing():
    for line in (
        "words = tokenize(text)",
        "image = resize(image, (224, 224))",
        "audio = normalize(audio)",
    ):
        with pytest.raises(NameError):
            exec(line, {"text": "a", "image": 0, "audio": 0})


def test_4_3_2_features(run):
    text = p.extract_text_features(run.test["text"], run.train["stats"]["grams"])
    image, audio = (
        p.extract_image_features(run.test["image"]),
        p.extract_audio_features(run.test["audio"]),
    )
    embedded = run.models[0].net.embed(
        text
    )  # word_embedding(words): a row for each word
    assert embedded.shape == (*text.shape, 64) and len(image) == len(audio) == 400


def test_4_3_3_train(run):
    text, image, audio = run.features
    y = run.raw["label"]
    for train, x in (
        (p.train_text_classifier, text),
        (p.train_image_classifier, image),
        (p.train_audio_classifier, audio),
    ):
        model = train(x[:300], y[:300], epochs=1)
        assert model.predict(x[:5]).shape == (5,) and np.allclose(
            model.predict_proba(x[:5]).sum(1), 1
        )


def test_4_3_4_fuse(run):
    text, image, audio = (
        m.predict_proba(x) for m, x in zip(run.models, p.extract_features(run.test))
    )
    assert np.allclose(
        p.fuse_predictions(text, image, audio), 0.3 * text + 0.5 * image + 0.2 * audio
    )


def test_4_3_4_as_written_is_no_python_and_averages_labels(run):
    with pytest.raises(SyntaxError):
        compile(r"fused = 0.3 \* 1", "article", "exec")
    labels = [m.predict(x) for m, x in zip(run.models, p.extract_features(run.test))]
    averaged = np.rint(0.3 * labels[0] + 0.5 * labels[1] + 0.2 * labels[2])
    fused = p.fuse_models(*run.models, run.test).argmax(1)
    assert (averaged == run.label).mean() < (fused == run.label).mean() - 0.1
    disagree = (labels[0] != run.label) & (labels[1] != labels[2])
    assert (
        not set(averaged[disagree].astype(int)) <= {*labels[0], *labels[1], *labels[2]}
        or (averaged != labels[1])[disagree].any()
    )
    with pytest.raises(ValueError, match="labels cannot be averaged"):
        p.fuse_predictions(*labels)


# ------------------------------------------------------------------------------------------------------- section 5.2: the project's code
def test_5_2_1_preprocess(run):
    assert p.preprocess_text(["This is a sample text.", "Another sample text."]) == [
        ["this", "is", "a", "sample", "text", "."],
        ["another", "sample", "text", "."],
    ]
    assert p.preprocess_image(run.held["image"][:2]).shape == (2, 28, 28)
    assert p.preprocess_audio(run.held["audio"][:2]).shape == (2, 8000)


def test_5_2_1_as_written_cv_and_la_are_never_imported():
    def preprocess_image(images):
        return [cv.resize(image, (224, 224)) for image in images]

    def preprocess_audio(audios):
        return [la.norm(audio) for audio in audios]

    with pytest.raises(NameError, match="cv"):
        preprocess_image([np.zeros((224, 224, 3))])
    with pytest.raises(NameError, match="la"):
        preprocess_audio([np.zeros(22050)])


def test_5_2_1_a_norm_is_a_number_not_a_sound():
    assert np.ndim(np.linalg.norm(np.random.default_rng(0).random(22050))) == 0
    quiet = np.sin(np.arange(4000)) * 1e-3
    assert level(quiet).shape == quiet.shape and np.isclose(
        np.sqrt(np.mean(level(quiet) ** 2)), 0.1
    )


def test_5_2_2_features(run):
    features = p.extract_text_features(run.test["text"], run.train["stats"]["grams"])
    assert (
        features.max() <= len(run.train["stats"]["grams"])
        and (features > 0).any(1).float().mean() > 0.99
    )


def test_5_2_2_as_written_imports_and_layer_names():
    import keras

    with pytest.raises(ImportError):
        exec("from keras.preprocessing.text import Tokenizer")
    keras.utils.clear_session()  # layers are numbered from the first one made: 'lstm', then 'lstm_1'
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Embedding(9, 3),
            keras.layers.LSTM(5),
            keras.layers.Dense(1),
        ]
    )
    with pytest.raises(ValueError, match="No such layer: lstm_1"):
        model.get_layer("lstm_1")
    with pytest.raises(FileNotFoundError):
        keras.models.load_model("audio_classification_model.h5")


def test_5_2_2_as_written_word_tokenize_of_a_list():
    from nltk.tokenize import word_tokenize

    with pytest.raises(TypeError):
        word_tokenize(["already", "words"], preserve_line=True)


def test_5_2_3_concatenation(run):
    model = p.train_concat_model(run.features, run.raw["label"], epochs=6)
    proba = model.predict(p.concat_inputs(p.extract_features(run.test)), verbose=0)
    assert proba.shape == (400, 10) and np.allclose(proba.sum(1), 1, atol=1e-4)
    assert (
        accuracy(proba, run.label)
        > max(
            accuracy(m.predict_proba(x), run.label)
            for m, x in zip(run.models, p.extract_features(run.test))
        )
        - 0.1
    )
    assert {tuple(i.shape) for i in model.inputs} == {
        (None, None),
        (None, 28, 28, 1),
        (None, 51, 20),
    }


def test_5_2_3_as_written_symbols_cannot_be_predicted_added_or_concatenated():
    import keras

    text, image, audio = (
        keras.Input((100,)),
        keras.Input((5, 5, 8)),
        keras.Input((22050,)),
    )
    with pytest.raises(ValueError, match="matching shapes"):
        keras.layers.Concatenate()([text, image, audio])
    with pytest.raises(ValueError, match="keras.Layer"):
        keras.Sequential().add(keras.layers.Concatenate()([text, audio]))
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1)])
    with pytest.raises((TypeError, ValueError)):
        model.predict(text, verbose=0)


def test_5_2_3_as_written_one_sigmoid_cannot_tell_ten_digits():
    import keras

    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile(loss="binary_crossentropy")
    with pytest.raises(ValueError):
        model.fit(np.zeros((2, 4)), np.array([1, 0]), verbose=0)


# -------------------------------------------------------------------------------------- section 5.3 repeats 5.2 to explain it, block by block
def test_5_3_1_preprocess(run):
    test_5_2_1_preprocess(run)


def test_5_3_2_features(run):
    test_5_2_2_features(run)


def test_5_3_3_concatenation_takes_a_missing_modality(run):
    model = p.train_concat_model(run.features, run.raw["label"], epochs=2)
    held = {
        k: (v if k == "image" else v[:3])
        for k, v in run.held.items()
        if k in p.MODALITIES
    }
    data = p.preprocess_data(
        {"text": held["text"], "image": [None] * 3, "audio": held["audio"]},
        run.train["stats"],
    )
    assert model.predict(
        p.concat_inputs(p.extract_features(data)), verbose=0
    ).shape == (3, 10)
