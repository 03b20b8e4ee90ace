"""The article's code blocks: as written they fail; corrected, they run on real data."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmcourse import project
from mmcourse.audio import level, preprocess_audio
from mmcourse.classifiers import (
    train_audio_classifier,
    train_image_classifier,
    train_text_classifier,
)
from mmcourse.datasets import MODALITIES, three_views
from mmcourse.decision_fusion import fuse_product
from mmcourse.image import preprocess_image
from mmcourse.keras_weights import keras_on_torch
from mmcourse.pipeline import (
    extract_audio_features,
    extract_features,
    extract_image_features,
    extract_text_features,
    preprocess_data,
)
from mmcourse.text import preprocess_text

pytestmark = pytest.mark.slow


def accuracy(proba, label):
    return (proba.argmax(1) == label).mean()


@pytest.fixture(scope="module")
def run():
    "One small run of the article's four steps, on real views."
    raw, held = three_views("train", 1200), three_views("test", 400)
    train = preprocess_data(raw)
    features = extract_features(train)
    return SimpleNamespace(
        raw=raw,
        held=held,
        train=train,
        test=preprocess_data(held, train["stats"]),
        features=features,
        models=project.train_model(*features, raw["label"], epochs=6),
        label=held["label"],
    )


@pytest.fixture(scope="module")
def said(run):
    "What the three models say of the test data, (400, 10) each."
    return [m.predict_proba(x) for m, x in zip(run.models, extract_features(run.test))]


def by_name(features):
    return dict(zip(MODALITIES, features))


# ------------------------------------------------------------ chapter 3, pseudo-code
def test_3_1_preprocess(run):
    assert set(run.train) == {"text", "image", "audio", "mask", "stats"}
    assert len(run.train["text"]) == 1200
    assert run.train["image"].shape == (1200, 28, 28)
    assert run.train["audio"].shape == (1200, 8000)
    assert abs(run.train["image"].mean()) < 1e-4
    assert abs(run.train["image"].std() - 1) < 1e-3
    assert run.test["stats"] is run.train["stats"]  # nothing is fitted on test data


def test_3_1_as_written_ragged_things_have_no_common_scale(run):
    ragged = [run.train[m][:2] for m in MODALITIES]
    with pytest.raises(ValueError, match="inhomogeneous"):
        np.array(ragged)


def test_3_2_extract_features(run):
    text, image, audio = run.features
    assert len(text) == 1200
    assert image.shape == (1200, 1, 28, 28) and audio.shape == (1200, 20, 51)
    for x, again in zip(run.features, extract_features(run.train)):
        assert x.equal(again)  # nothing learns on the way


def test_3_3_train_model(run, said):
    for proba in said:
        assert accuracy(proba, run.label) > 0.3  # chance is .1


def test_3_4_fuse_models(run, said):
    fused = project.fuse_models(*run.models, run.test)
    best = max(accuracy(p, run.label) for p in said)
    assert fused.shape == (400, 10) and np.allclose(fused.sum(1), 1)
    assert accuracy(fused, run.label) > best
    product = project.fuse_models(*run.models, run.test, fuse=fuse_product)
    assert accuracy(product, run.label) > best + 0.05


def test_3_4_as_written_models_meet_data_without_features(run):
    with pytest.raises((TypeError, ValueError)):
        run.models[0].predict(run.test["text"])  # words, not numbers


# --------------------------------------------------- section 4.3, the worked example
def test_4_3_1_preprocess():
    words = preprocess_text(["This is a sample text."])[0]
    assert words == ["this", "is", "a", "sample", "text", "."]
    assert preprocess_image([np.pad(np.ones((30, 6)), 20)]).shape == (1, 28, 28)
    audio = preprocess_audio([three_views("test", 10)["audio"][0]])[0]
    loud = np.sqrt(np.mean(audio[audio != 0] ** 2))
    assert np.isclose(loud, 0.1, atol=0.01)


def test_4_3_1_as_written_three_names_are_missing():
    lines = "tokenize(text)", "resize(image, (224, 224))", "normalize(audio)"
    for line in lines:
        with pytest.raises(NameError):
            eval(line, {"text": "a", "image": 0, "audio": 0})


def test_4_3_2_features(run):
    text = extract_text_features(run.test["text"], run.train["stats"]["grams"])
    assert len(extract_image_features(run.test["image"])) == 400
    assert len(extract_audio_features(run.test["audio"])) == 400
    embedded = run.models[0].net.embed(text)  # word_embedding(words)
    assert embedded.shape[:2] == text.shape  # a row for each word


def test_4_3_3_train(run):
    makers = train_text_classifier, train_image_classifier, train_audio_classifier
    for train, x in zip(makers, run.features):
        model = train(x[:300], run.raw["label"][:300], epochs=1)
        proba = model.predict_proba(x[:5])
        assert np.array_equal(model.predict(x[:5]), proba.argmax(1))
        assert np.allclose(proba.sum(1), 1)


def test_4_3_4_fuse(said):
    text, image, audio = said
    fused = project.fuse_predictions(text, image, audio)
    assert np.allclose(fused, 0.3 * text + 0.5 * image + 0.2 * audio)


def test_4_3_4_as_written_is_no_python():
    with pytest.raises(SyntaxError):
        compile(r"fused = 0.3 \* 1", "article", "exec")


def test_4_3_4_as_written_averages_labels(run, said):
    labels = [p.argmax(1) for p in said]
    averaged = np.rint(0.3 * labels[0] + 0.5 * labels[1] + 0.2 * labels[2])
    fused = project.fuse_models(*run.models, run.test).argmax(1)
    assert (averaged == run.label).mean() < (fused == run.label).mean() - 0.1
    nobody = ~np.any([averaged == y for y in labels], 0)
    assert nobody.mean() > 0.1  # digits that none of the three has named
    with pytest.raises(ValueError, match="labels cannot be averaged"):
        project.fuse_predictions(*labels)


# -------------------------------------------------- sections 5.2 and 5.3, the project
def test_5_2_1_preprocess(run):
    texts = ["This is a sample text.", "Another sample text."]
    assert preprocess_text(texts) == [
        ["this", "is", "a", "sample", "text", "."],
        ["another", "sample", "text", "."],
    ]
    assert preprocess_image(run.held["image"][:2]).shape == (2, 28, 28)
    assert preprocess_audio(run.held["audio"][:2]).shape == (2, 8000)


@pytest.mark.parametrize("line", ["cv.resize(x, (224, 224))", "la.norm(x)"])
def test_5_2_1_as_written_cv_and_la_are_never_imported(line):
    with pytest.raises(NameError, match=line[:2]):
        eval(line, {"x": np.zeros((224, 224, 3))})


def test_5_2_1_a_norm_is_a_number_not_a_sound():
    assert np.ndim(np.linalg.norm(np.sin(np.arange(22050)))) == 0
    quiet = level(np.sin(np.arange(4000)) * 1e-3)
    assert quiet.shape == (4000,)
    assert np.isclose(np.sqrt(np.mean(quiet**2)), 0.1)


def test_5_2_2_features(run):
    grams = run.train["stats"]["grams"]
    features = extract_text_features(run.test["text"], grams)
    assert features.max() <= len(grams)
    assert (features > 0).any(1).float().mean() > 0.99


def test_5_2_2_as_written_imports_and_layer_names():
    keras = keras_on_torch()
    with pytest.raises(ImportError):
        exec("from keras.preprocessing.text import Tokenizer")
    keras.utils.clear_session()  # layers are numbered from here: lstm, then lstm_1
    L = keras.layers
    layers = [keras.Input((4,)), L.Embedding(9, 3), L.LSTM(5), L.Dense(1)]
    with pytest.raises(ValueError, match="No such layer: lstm_1"):
        keras.Sequential(layers).get_layer("lstm_1")
    with pytest.raises(FileNotFoundError):
        keras.models.load_model("audio_classification_model.h5")


def test_5_2_2_as_written_word_tokenize_of_a_list():
    from nltk.tokenize import word_tokenize

    with pytest.raises(TypeError):
        word_tokenize(["already", "words"], preserve_line=True)


def test_5_2_3_concatenation(run, said):
    x, held = by_name(run.features), by_name(extract_features(run.test))
    model = project.train_concat_model(x, run.raw["label"], epochs=6)
    proba = model.predict(project.concat_inputs(held), verbose=0)
    assert proba.shape == (400, 10) and np.allclose(proba.sum(1), 1, atol=1e-4)
    assert accuracy(proba, run.label) > max(accuracy(p, run.label) for p in said)


def test_5_2_3_as_written_symbols_cannot_be_predicted_added_or_concatenated():
    keras = keras_on_torch()
    text, sound = keras.Input((100,)), keras.Input((22050,))
    joined = keras.layers.Concatenate()([text, sound])
    with pytest.raises(ValueError, match="matching shapes"):
        keras.layers.Concatenate()([text, keras.Input((5, 5, 8)), sound])
    with pytest.raises(ValueError, match=r"keras\.Layer"):
        keras.Sequential().add(joined)
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1)])
    with pytest.raises((TypeError, ValueError)):
        model.predict(text, verbose=0)


def test_5_2_3_as_written_one_sigmoid_cannot_tell_ten_digits():
    keras = keras_on_torch()
    dense = keras.layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.Input((4,)), dense])
    model.compile(loss="binary_crossentropy")
    with pytest.raises(ValueError):
        model.fit(np.zeros((2, 4)), np.array([1, 0]), verbose=0)


def test_5_3_3_concatenation_takes_a_missing_modality(run):
    x = by_name(run.features)
    model = project.train_concat_model(x, run.raw["label"], epochs=1)
    held = {"text": run.held["text"][:3], "image": [None] * 3}
    data = preprocess_data(held, run.train["stats"])
    inputs = project.concat_inputs(by_name(extract_features(data)))
    assert model.predict(inputs, verbose=0).shape == (3, 10)
