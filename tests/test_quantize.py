"Vectors to numbers and back: by hand, by law, and as transformers' EnCodec does it."

import json
import math
import shutil

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from conftest import refused
from mmcourse.checkpoint import CheckpointError
from mmcourse.codebooks import NoQuantizer, faster_codes
from mmcourse.explorables import stage_slider
from mmcourse.quantize import (
    FSQ,
    VQVAE,
    ResidualVQ,
    Tokenizer,
    VectorQuantizer,
    code_usage,
    hush,
    jpeg,
    nearest_code,
    picture_nets,
    sound_nets,
    straight_through,
    vqvae_loss,
)
from mmcourse.shipped import read_tokenizers
from mmcourse.store import data_path

E = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])


# codes
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_nearest_code_has_the_least_distance(n, K, d, seed):
    g = torch.Generator().manual_seed(seed)
    x, codebook = torch.randn(n, 2, d, generator=g), torch.randn(K, d, generator=g)
    distance = (x[:, :, None] - codebook).square().sum(-1)  # (n, 2, K)
    found = nearest_code(x, codebook)
    assert found.shape == (n, 2) and found.dtype == torch.int64
    chosen = distance.gather(2, found[..., None])[..., 0]
    torch.testing.assert_close(chosen, distance.amin(2))


def test_the_gradient_passes_unchanged_and_the_value_does_not():
    x = torch.randn(3, 4, requires_grad=True)
    q, up = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    y = straight_through(x, q)
    (y * up).sum().backward()
    torch.testing.assert_close(y, q)
    assert torch.equal(x.grad, up) and q.grad is None


@pytest.mark.parametrize(
    ("codes", "used", "perplexity"),
    [
        ([0, 1, 2, 3], 1, 4),
        ([2, 2, 2], 0.25, 1),
        ([0, 0, 3, 3], 0.5, 2),
        ([0, 0, 0, 1], 0.5, 4 / 27**0.25),
    ],
)
def test_usage_by_hand(codes, used, perplexity):
    found = code_usage(torch.tensor([codes]), 4)
    assert found["used"] == used
    assert found["perplexity"] == pytest.approx(perplexity)


def test_usage_of_numbers_that_are_not_in_the_list_is_refused():
    refused(code_usage, torch.tensor([0, 4]), 4, name="codes: expected 0 to 3")


# one codebook
def quantizer(**options):
    options = {"ema": True, "restarts": False, "from_data": False} | options
    vq = VectorQuantizer(3, 2, **options)
    vq.codebook.data.copy_(E)
    vq.total.copy_(E)
    return vq


def test_axis_one_holds_the_features():
    x = torch.randn(2, 2, 3, 5)
    vq = quantizer()
    codes = vq.encode(x)
    assert codes.shape == (2, 3, 5)
    assert codes[1, 2, 4] == nearest_code(x[1, :, 2, 4], E)
    assert torch.equal(vq.decode(codes)[1, :, 2, 4], E[codes[1, 2, 4]])
    assert torch.equal(vq.encode(vq.decode(codes)), codes)


@pytest.mark.parametrize("ema", [True, False])
def test_the_two_pulls(ema):
    "β (x - q)² pulls vectors to codes; (q - x)² pulls codes, unless they are means."
    vq = quantizer(ema=ema, beta=0.25).eval()
    x = torch.tensor([[[1.0], [1.0]], [[6.0], [1.0]]], requires_grad=True)  # (2, 2, 1)
    q, loss = vq(x)
    factor = 0.25 if ema else 1.25
    torch.testing.assert_close(loss, factor * torch.tensor([1.0, 2.5]))
    loss.sum().backward()
    off = torch.tensor([[[1.0], [1.0]], [[2.0], [1.0]]])
    torch.testing.assert_close(x.grad, 0.25 * off)  # mean over two features, times two
    if ema:
        assert vq.codebook.grad is None
    else:
        wanted = torch.tensor([[-1.0, -1.0], [-2.0, -1.0], [0.0, 0.0]])
        torch.testing.assert_close(vq.codebook.grad, wanted)


def test_running_means_by_hand():
    vq = quantizer(decay=0.5).train()
    vq(torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 1.0]]))
    torch.testing.assert_close(vq.count, torch.tensor([1.5, 1.0, 0.5]))
    wanted = torch.tensor([[0.5 / 1.5, 0.5 / 1.5], [4.5, 0.5], [0.0, 4.0]])
    torch.testing.assert_close(vq.codebook.data, wanted)


def test_an_idle_code_stays_where_it_is():
    vq = quantizer(decay=0.5).train()
    vq.codebook[2], vq.total[2] = torch.tensor([5.0, 7.0]), torch.tensor([5.0, 7.0])
    for _ in range(200):  # its count fades to nothing
        vq(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    torch.testing.assert_close(vq.codebook[2].data, torch.tensor([5.0, 7.0]))


def test_numbers_may_come_in_small_types():
    every = torch.arange(201, dtype=torch.uint8)[None]
    vq, fsq = VectorQuantizer(201, 2), FSQ((3, 67))
    assert torch.equal(vq.decode(every), vq.decode(every.long()))
    assert torch.equal(fsq.decode(every), fsq.decode(every.long()))
    assert code_usage(every, 201) == code_usage(every.long(), 201)


def test_codes_start_apart_as_long_as_there_are_vectors():
    vq = VectorQuantizer(6, 1)
    vq.start(torch.arange(8.0)[:, None])
    assert len(vq.codebook.unique()) == 6
    vq.start(torch.arange(4.0)[:, None])
    found, n = vq.codebook.unique(return_counts=True)
    assert len(found) == 4 and n.max() == 2


def test_adam_moves_faster_codes_further_and_the_codebook_starts_the_same():
    vq = quantizer(ema=False)
    start = vq.codebook.detach().clone()
    assert torch.equal(faster_codes(vq, 8.0).codebook, start)
    optimizer = torch.optim.Adam(vq.parameters(), lr=0.5)
    vq.codebook.sum().backward()
    optimizer.step()
    torch.testing.assert_close(vq.codebook, start - 4.0)


def test_without_a_quantiser_vectors_pass():
    x = torch.randn(3, 2, 4)
    q, loss = NoQuantizer()(x)
    assert torch.equal(q, x) and torch.equal(loss, torch.zeros(3))


def test_nothing_is_learnt_in_evaluation():
    vq = VectorQuantizer(4, 2).eval()
    before = {k: v.clone() for k, v in vq.state_dict().items()}
    vq(torch.randn(5, 2))
    assert all(torch.equal(v, before[k]) for k, v in vq.state_dict().items())


def test_codes_start_at_vectors_of_the_first_batch_and_only_there():
    torch.manual_seed(0)
    vq = VectorQuantizer(4, 2, decay=1.0, restarts=False).train()
    x = torch.randn(9, 2)
    vq(x)
    near = torch.cdist(vq.codebook, x).amin(1)
    assert near.max() < 1e-6 and vq.ready
    kept = vq.codebook.clone()
    vq(torch.randn(9, 2) + 5)
    torch.testing.assert_close(vq.codebook, kept)


@pytest.mark.parametrize("ema", [True, False])
def test_a_dead_code_starts_anew_and_a_living_one_does_not(ema):
    torch.manual_seed(0)
    vq = quantizer(ema=ema, restarts=True, decay=0.5, dead=0.3).train()
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0]]).repeat(8, 1)
    for _ in range(6):
        vq(x)
    torch.testing.assert_close(vq.codebook[:2].data, E[:2])
    assert torch.cdist(vq.codebook[2:], x).min() < 1e-6


# steps of a ruler
@given(st.lists(st.integers(2, 6), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_every_number_comes_back_from_its_steps(levels):
    fsq = FSQ(tuple(levels))
    every = torch.arange(fsq.size)[None]
    z = fsq.decode(every)
    assert fsq.size == math.prod(levels) and z.unique(dim=2).shape == z.shape
    assert z.amin() == -1 and z.amax() == 1
    share = ((z + 1) / 2).clamp(0.01, 0.99)
    assert torch.equal(fsq.encode(share.logit() / 2), every)


def test_what_it_gives_is_what_its_numbers_give():
    torch.manual_seed(0)
    fsq, x = FSQ((5, 3)), torch.randn(4, 2, 6, requires_grad=True)
    q, loss = fsq(x)
    torch.testing.assert_close(q, fsq.decode(fsq.encode(x)))
    assert loss.eq(0).all() and loss.shape == (4,)
    q.sum().backward()
    s = torch.sigmoid(2 * x.detach())
    torch.testing.assert_close(x.grad, 4 * s * (1 - s))  # as if nothing were rounded


# one after the other
def residual(stages=3, **options):
    torch.manual_seed(1)
    rvq = ResidualVQ(5, 4, stages, from_data=False, **options)
    for layer in rvq.layers:
        torch.nn.init.normal_(layer.codebook)
    return rvq.eval()


def test_each_stage_names_what_is_left():
    rvq, x = residual(), torch.randn(2, 4, 6)
    codes = rvq.encode(x)
    rest = x
    for layer, k in zip(rvq.layers, codes):
        assert torch.equal(layer.encode(rest), k)
        rest = rest - layer.decode(k)
    torch.testing.assert_close(rvq.decode(codes), x - rest)
    assert torch.equal(rvq.encode(x, 2), codes[:2])
    with torch.no_grad():
        torch.testing.assert_close(rvq(x)[0], rvq.decode(codes))


def test_the_gradient_passes_the_sum_once():
    rvq, x = residual(), torch.randn(2, 4, 6, requires_grad=True)
    up = torch.randn(2, 4, 6)
    (rvq(x)[0] * up).sum().backward()
    torch.testing.assert_close(x.grad, up)


def test_its_loss_is_the_sum_of_its_stages():
    rvq, x = residual(beta=0.5), torch.randn(2, 4, 6)
    rest, wanted = x, 0
    for layer in rvq.layers:
        q = layer.decode(layer.encode(rest))
        wanted = wanted + 0.5 * (rest - q).square().mean((1, 2))
        rest = rest - q
    torch.testing.assert_close(rvq(x)[1], wanted)


def test_in_training_it_stops_after_any_stage():
    rvq = residual().train()
    x = torch.randn(2, 4, 6)
    rvq.layers[1].forward = rvq.layers[2].forward = None  # they would fail
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        try:
            rvq(x)
            seen.add("one")
        except TypeError:
            seen.add("more")
    assert seen == {"one", "more"}


@given(
    size=st.sampled_from([4, 8, 16, 64]),
    d=st.integers(1, 9),
    bandwidth=st.sampled_from([0.8, 1.5, 3.0]),
    T=st.integers(1, 7),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None, phases=[Phase.generate])
def test_it_is_encodec(size, d, bandwidth, T, seed, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.EncodecConfig(
        sampling_rate=400,
        upsampling_ratios=[2, 2],
        target_bandwidths=[0.7, bandwidth],
        hidden_size=d,
        codebook_size=size,
        num_filters=1,
        num_lstm_layers=1,
        kernel_size=3,
        last_kernel_size=3,
        compress=1,
    )
    theirs = transformers.EncodecModel(config).eval()
    for layer in theirs.quantizer.layers:
        layer.codebook.embed.normal_().requires_grad_()
        layer.codebook.cluster_size.uniform_(1, 9)
    folder = tmp_path_factory.mktemp("encodec")
    theirs.save_pretrained(folder)
    ours, theirs = ResidualVQ.from_pretrained(folder), theirs.quantizer
    x = torch.randn(2, d, T)
    codes = ours.encode(x)
    assert torch.equal(codes, theirs.encode(x))
    for rate in (0.5, 0.7, 1.5, 24.0):
        n = ours.stages_for(rate)
        assert torch.equal(ours.encode(x, n), theirs.encode(x, rate))
    for layer in ours.layers:
        layer.codebook.requires_grad_()
    a, b = ours.decode(codes), theirs.decode(codes)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    up = torch.randn_like(a)
    (a * up).sum().backward()
    (b * up).sum().backward()
    for mine, other in zip(ours.layers, theirs.layers):
        found, wanted = mine.codebook.grad, other.codebook.embed.grad
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
        assert torch.equal(mine.count, other.codebook.cluster_size)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "dac"}, "expected 'encodec', got 'dac'"),
        ({"target_bandwidths": [4.8]}, "is missing there"),
        ({"target_bandwidths": [1.6]}, "is unknown here"),
        ({"codebook_dim": 9}, "codebook' is"),
        ({"codebook_dim": "8"}, "codebook_dim: expected a whole number from 1"),
        ({"codebook_size": None}, "codebook_size: expected a whole number from 1"),
        ({"sampling_rate": 0}, "sampling_rate: expected a whole number from 1"),
        (
            {"target_bandwidths": []},
            r"target_bandwidths: expected positive .* got \[\]",
        ),
        ({"target_bandwidths": [math.inf]}, "target_bandwidths: expected positive"),
        ({"target_bandwidths": None}, "target_bandwidths: expected positive"),
        ({"target_bandwidths": [0.1]}, "less than one codebook"),
        ({"upsampling_ratios": 4}, "upsampling_ratios: expected positive"),
        ({"upsampling_ratios": [2, 0]}, "upsampling_ratios: expected positive"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, why):
    folder = tmp_path / "encodec"
    shutil.copytree(data_path("published/encodec"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | change)
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=why):
        ResidualVQ.from_pretrained(folder)


@pytest.mark.parametrize(
    "key", ["sampling_rate", "upsampling_ratios", "codebook_size", "target_bandwidths"]
)
def test_a_configuration_that_lacks_a_size_says_which(tmp_path, key):
    folder = tmp_path / "encodec"
    shutil.copytree(data_path("published/encodec"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config[key]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=key):
        ResidualVQ.from_pretrained(folder)


def test_a_tokenizer_that_ships_may_go_on_learning():
    "Its running sums, which are not in the file, are those of its codes."
    for model in read_tokenizers().values():
        vq = model.quantizer
        torch.testing.assert_close(vq.total / vq.count[:, None], vq.codebook.data)


def test_another_file_is_no_tokenizer():
    with pytest.raises(CheckpointError, match="does not fit the model"):
        read_tokenizers(data_path("classifiers.safetensors"))


# what is refused
@pytest.mark.parametrize(
    ("codes", "name"),
    [
        (torch.tensor([[0, 3]]), "codes: expected 0 to 2, got 0 to 3"),
        (torch.tensor([[-1, 1]]), "codes: expected 0 to 2, got -1 to 1"),
        (torch.tensor([[0.0]]), "codes: expected whole numbers"),
        (torch.tensor([[True]]), "codes: expected whole numbers"),
    ],
)
def test_numbers_outside_the_list_are_refused(codes, name):
    refused(quantizer().decode, codes, name=name)
    if "0 to" not in name:
        refused(FSQ((3,)).decode, codes, name=name)


def test_other_features_and_other_stages_are_refused():
    for make in (quantizer(), FSQ((3, 3))):
        refused(make.encode, torch.zeros(1, 3, 4), name="x: expected (B, 2, ...)")
    rvq = residual()
    refused(rvq.encode, torch.zeros(1, 4, 2), 4, name="stages")
    refused(rvq.decode, torch.zeros(4, 1, 2).long(), name="codes: stages")
    refused(Tokenizer, "text", name="modality")
    refused(FSQ, (4, 1), name="levels: expected a whole number from 2")
    image, audio = Tokenizer("image").eval(), Tokenizer("audio").eval()
    refused(image.encode, torch.zeros(2, 1, 32, 32), name="x")
    refused(image.encode, torch.zeros(2, 3, 28, 28), name="x")
    refused(audio.encode, torch.zeros(2, 20, 60), name="x")
    for model, n in ((image, 49), (audio, 24)):
        tokens = torch.zeros(2, n + 1).long()
        refused(model.decode, tokens, name=f"tokens: expected (B, {n})")
        refused(model.decode, tokens[0], name=f"tokens: expected (B, {n})")


# pictures and sounds
@pytest.mark.parametrize(
    ("nets", "shape", "middle"),
    [
        (picture_nets, (2, 1, 28, 28), (2, 8, 7, 7)),
        (sound_nets, (2, 20, 51), (2, 8, 24)),
    ],
)
def test_there_and_back(nets, shape, middle):
    there, back = nets(8, 16)
    z = there(torch.zeros(shape))
    assert z.shape == middle and back(z).shape == shape


def test_the_model_draws_from_its_codes_what_it_draws_at_once():
    torch.manual_seed(0)
    there, back = picture_nets(4, 8)
    model = VQVAE(there, VectorQuantizer(9, 4), back).eval()
    x = torch.rand(3, 1, 28, 28)
    drawn, extra = model(x)
    torch.testing.assert_close(model.decode(model.encode(x)), drawn)
    error = ((drawn - x) ** 2).mean()
    torch.testing.assert_close(
        vqvae_loss((drawn, extra), x, 0.5), 2 * error + extra.mean()
    )


def test_a_picture_is_49_tokens_and_a_spoken_digit_24():
    found = read_tokenizers()
    shapes = {"image": (2, 1, 28, 28), "audio": (2, 20, 51)}
    for modality, n in (("image", 49), ("audio", 24)):
        model, g = found[modality], torch.Generator().manual_seed(0)
        tokens = torch.randint(model.size, (2, n), generator=g)
        with torch.no_grad():
            drawn = model.decode(tokens)
            assert drawn.shape == shapes[modality]
            assert model.encode(drawn).shape == (2, n)
            alone = model.decode(tokens[1:])
        torch.testing.assert_close(alone[0], drawn[1], atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match="codes: expected 0 to"):
            model.decode(tokens + model.size)


def test_pauses_are_cut_where_no_band_speaks():
    x = torch.tensor([[[-70.0, -58.5, -59.5], [3.0, -59.0, -57.9]]])  # (1, 2, 3)
    wanted = torch.tensor([[[-59.0, -60.0, -59.0], [0.0, -60.0, -57.9]]])
    assert torch.equal(hush(x), wanted)
    assert torch.equal(hush(wanted), wanted)


def test_a_spoken_digit_comes_back_with_its_pauses():
    model = read_tokenizers()["audio"]
    with torch.no_grad():
        drawn = model.decode(torch.randint(model.size, (9, 24)))
    assert torch.equal(hush(drawn), drawn)


def test_tokens_stand_row_by_row():
    model = read_tokenizers()["image"]
    tokens = torch.zeros(2, 49, dtype=torch.int64)
    tokens[1, 7] = model.size // 2  # second row, first column
    with torch.no_grad():
        change = (model.decode(tokens)[1] - model.decode(tokens)[0])[0].abs()
    assert change[4:8, :4].sum() > 0
    assert change[20:].max() < 1e-6 and change[:, 20:].max() < 1e-6


# JPEG
def test_pictures_come_back_from_the_sheet_in_their_places():
    g = torch.Generator().manual_seed(0)
    level = torch.rand(7, 1, 1, generator=g)
    flat = level.expand(7, 8, 16)
    for cell in ((8, 16), (16, 24)):
        back, bits = jpeg(flat, 95, cell, columns=3)
        assert back.shape == (7, 8, 16) and bits > 0
        torch.testing.assert_close(back, flat, atol=0.02, rtol=0)


def test_a_worse_quality_costs_less_and_a_larger_sheet_hides_its_header():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(80, 8, 8, generator=g)
    good, bad = jpeg(x, 90, (8, 8)), jpeg(x, 5, (8, 8))
    assert bad[1] < good[1]
    assert (bad[0] - x).square().mean() > (good[0] - x).square().mean()
    assert jpeg(x[:1], 5, (8, 8), columns=1)[1] > 5 * bad[1]


def test_what_lies_outside_of_black_and_white_is_cut():
    x = torch.stack([torch.full((8, 8), 1.25), torch.full((8, 8), -0.5)])
    back, _ = jpeg(x, 95, (8, 8))
    torch.testing.assert_close(back, x.clamp(0, 1), atol=0.02, rtol=0)


# the knob
def test_the_slider_of_stages_tells_bits_and_errors():
    x = torch.zeros(3, 4, 4)
    page = stage_slider(x, [x + 0.5, x + 0.25], bits=10)._repr_html_()
    assert "1 stage, 10 bits: mean square error 0.2500" in page
    assert "2 stages, 20 bits: mean square error 0.0625" in page
