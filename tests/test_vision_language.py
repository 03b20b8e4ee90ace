"A language model and three bridges from pictures to it, each transformers' own."

import copy
import json
import shutil
import tempfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mmcourse import layouts
from mmcourse.bridges import add_lora, merge_lora
from mmcourse.checkpoint import CheckpointError
from mmcourse.language_model import (
    LM,
    GatedMLP,
    GroupedAttention,
    KVCache,
    RMSNorm,
    generate,
    greedy,
    sample,
    tempered,
    top_k,
    top_p,
)
from mmcourse.pretrained import read_weights, renamed
from mmcourse.store import data_path
from mmcourse.vision_language import (
    Flamingo,
    LLaVA,
    LoRA,
    QFormer,
    QueryBridge,
    Resampler,
    VisionTower,
    answer_loss,
    last_picture,
    projector,
)

SLOW = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
ACTS = st.sampled_from(["gelu", "gelu_new", "relu", "quick_gelu", "silu"])
SEEDS = st.integers(0, 99)


# what the tests of parity share
def shaken(model, seed):
    "Weights large enough for every part to matter, all to be learnt."
    torch.manual_seed(seed)
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    return model.eval().requires_grad_(True)


def gradients(model):
    "The gradients of a transformers model, by the names of its folder."
    graded = copy.deepcopy(model)
    for p, own in zip(graded.parameters(), model.parameters()):
        p.data = torch.zeros_like(own) if own.grad is None else own.grad
    with tempfile.TemporaryDirectory() as folder:
        graded.save_pretrained(folder)
        return read_weights(folder)


def same(a, b, ours, theirs, rename):
    "Outputs to 1e-5; gradients of one random sum of them to 1e-4."
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    up = torch.randn_like(a)
    (a * up).sum().backward()
    (b * up).sum().backward()
    wanted = rename(gradients(theirs))
    learnt = dict(ours.named_parameters())
    assert set(learnt) <= set(wanted)
    for name, p in learnt.items():
        got = torch.zeros_like(p) if p.grad is None else p.grad
        scale = 1 + wanted[name].abs().max()
        torch.testing.assert_close(got / scale, wanted[name] / scale, atol=1e-4, rtol=0)


def llama_sizes(draw):
    "Options of a Llama, and of what holds one."
    groups, share, width = draw(st.integers(1, 2)), draw(st.integers(1, 3)), 2
    heads, width = groups * share, width * draw(st.integers(1, 3))
    free = draw(st.booleans())  # heads of any width
    return {
        "vocab_size": draw(st.integers(5, 20)),
        "hidden_size": heads * (draw(st.integers(1, 5)) if free else width),
        "head_dim": width,
        "intermediate_size": draw(st.integers(3, 20)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "hidden_act": draw(ACTS),
        "attention_bias": draw(st.booleans()),
        "mlp_bias": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": draw(st.sampled_from([100.0, 10_000.0, 500_000.0])),
        },
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        "pad_token_id": None,
    }


@st.composite
def llamas(draw):
    return llama_sizes(draw)


@st.composite
def towers(draw):
    heads, patch = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return {
        # one or two features leave a LayerNorm no numbers, only their rounding
        "hidden_size": heads * draw(st.integers(-(-3 // heads), 5)),
        "intermediate_size": draw(st.integers(3, 20)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_channels": draw(st.integers(1, 3)),
        "image_size": patch * draw(st.integers(1, 3)),
        "patch_size": patch,
        "hidden_act": draw(ACTS),
    }


# the language model
@given(sizes=llamas(), seed=SEEDS)
@settings(max_examples=8, **SLOW)
def test_it_is_llama(sizes, seed, tmp_path):
    t = pytest.importorskip("transformers")
    theirs = shaken(t.LlamaForCausalLM(t.LlamaConfig(**sizes)), seed)
    theirs.save_pretrained(tmp_path)
    ours = LM.from_pretrained(tmp_path)
    ids = torch.randint(sizes["vocab_size"], (2, 9))
    options = layouts.llama_options(sizes, "here")

    def rename(grads):
        return renamed(layouts.to_ours(grads, layouts.LLAMA, options), [("lm.", "")])

    same(ours(ids), theirs(input_ids=ids).logits, ours, theirs, rename)


@given(sizes=llamas(), seed=SEEDS, cuts=st.sets(st.integers(1, 8)))
@settings(max_examples=8, **SLOW)
def test_in_pieces_with_a_cache_is_at_once(sizes, seed, cuts):
    torch.manual_seed(seed)
    lm = LM(**layouts.llama_options(sizes, "here"))
    ids, cache = torch.randint(sizes["vocab_size"], (2, 9)), KVCache()
    places = [0, *sorted(cuts), 9]
    pieces = [lm(ids[:, a:b], cache) for a, b in zip(places, places[1:])]
    assert cache.length == 9
    torch.testing.assert_close(torch.cat(pieces, 1), lm(ids), atol=1e-5, rtol=1e-5)


def test_generate_is_transformers(tmp_path):
    t = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20}
    sizes |= {"vocab_size": 30, "num_hidden_layers": 2, "pad_token_id": 0}
    theirs = shaken(t.LlamaForCausalLM(t.LlamaConfig(**sizes)), 0)
    theirs.save_pretrained(tmp_path)
    ids = torch.randint(3, 30, (3, 5))
    found = generate(LM.from_pretrained(tmp_path), ids, 12)
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    assert torch.equal(found, theirs.generate(ids, **options))
    assert torch.equal(found[:, :5], ids)


def test_what_is_written_depends_on_the_choice():
    torch.manual_seed(0)
    lm, ids = LM(11, d=8, heads=2, depth=1), torch.tensor([[1, 2], [3, 4]])
    told = generate(lm, ids, 4, choose=lambda z: z.argmin(-1))
    for t in range(2, 6):
        assert torch.equal(told[:, t], lm(told[:, :t])[:, -1].argmin(-1))


def test_a_tied_table_is_one():
    lm = LM(9, d=8, heads=2, depth=1, tied=True)
    assert lm.head.weight is lm.embed.weight


def test_parts_by_hand():
    x = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(RMSNorm(2, 0.0)(x), x / 12.5**0.5)
    mlp = GatedMLP(2, 3, torch.nn.ReLU())
    gate, up = x @ mlp.gate.weight.T, x @ mlp.up.weight.T
    torch.testing.assert_close(mlp(x), (gate.relu() * up) @ mlp.down.weight.T)


def test_grouped_attention_repeats_keys_for_neighbouring_heads():
    torch.manual_seed(0)
    few = GroupedAttention(8, 4, groups=2, kdim=3)
    many = GroupedAttention(8, 4, kdim=3)
    for name in ("to_q", "out"):
        getattr(many, name).load_state_dict(getattr(few, name).state_dict())
    for name in ("to_k", "to_v"):
        w = getattr(few, name).weight.unflatten(0, (2, 1, 2)).expand(2, 2, 2, 3)
        getattr(many, name).weight.data = w.flatten(0, 2)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 3)
    torch.testing.assert_close(few(x, context), many(x, context))


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([[]], "ids: expected at least one value"),
        ([1, 2], r"ids: expected shape \(any, any\)"),
        ([[1, 7]], "ids: expected tokens 0 to 6, got 1 to 7"),
        ([[-1, 2]], "ids: expected tokens 0 to 6, got -1 to 2"),
        ([[0.5, 2]], "ids: expected whole numbers"),
        ([[True, False]], "ids: expected whole numbers"),
        ([[1] * 6], "ids: expected at most 5 tokens, got 6"),
    ],
)
def test_prompts_that_cannot_be_read(ids, why):
    with pytest.raises((ValueError, TypeError), match=why):
        LM(7, d=4, heads=2, depth=1, longest=5)(torch.tensor(ids))


def test_a_cache_fills_the_room():
    lm, cache = LM(7, d=4, heads=2, depth=1, longest=5), KVCache()
    lm(torch.tensor([[1, 2, 3]]), cache)
    with pytest.raises(ValueError, match="expected at most 2 tokens, got 3"):
        lm(torch.tensor([[1, 2, 3]]), cache)


# the next word
LOGITS = st.lists(
    st.lists(st.integers(-40, 40), min_size=6, max_size=6), min_size=1, max_size=4
)


@given(
    z=LOGITS,
    k=st.integers(1, 9),
    p=st.floats(0, 1),
    heat=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
)
@settings(max_examples=40, deadline=None)
def test_filters_are_those_of_transformers(z, k, p, heat):
    t = pytest.importorskip("transformers.generation.logits_process")
    z = torch.tensor(z) / 8  # with ties
    assert torch.equal(tempered(z, heat), t.TemperatureLogitsWarper(heat)(None, z))
    assert torch.equal(top_k(z, k), t.TopKLogitsWarper(k)(None, z))
    assert torch.equal(top_p(z, p), t.TopPLogitsWarper(p)(None, z))
    assert torch.equal(greedy(z), z.argmax(-1))


def test_filters_by_hand():
    z = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = [(~top_p(z, p).isinf()).sum().item() for p in (0, 0.4, 0.6, 0.9, 1)]
    assert kept == [1, 1, 2, 3, 4]
    assert [(~top_k(z, k).isinf()).sum().item() for k in (1, 3, 7)] == [1, 3, 4]


def test_a_sample_is_as_likely_as_its_logits_say():
    g = torch.Generator().manual_seed(0)
    z = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    share = sample(z, g).bincount() / 20_000
    torch.testing.assert_close(share, z[0].exp(), atol=0.015, rtol=0)


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda z: tempered(z, 0), "temperature"),
        (lambda z: top_k(z, 0), "k: expected"),
        (lambda z: top_p(z, 1.5), "p: expected"),
    ],
)
def test_filters_refuse(ask, why):
    with pytest.raises(ValueError, match=why):
        ask(torch.zeros(1, 3))


# LLaVA
@given(
    text=llamas(),
    vision=towers(),
    act=ACTS,
    bias=st.booleans(),
    full=st.booleans(),
    layers=st.one_of(st.sampled_from([-1, -2, 1]), st.just([-2, -1]), st.just([1])),
    n=st.integers(1, 3),
    seed=SEEDS,
)
@settings(max_examples=8, **SLOW)
def test_it_is_llava(text, vision, act, bias, full, layers, n, seed, tmp_path):
    t = pytest.importorskip("transformers")
    image = text["vocab_size"] - 1
    config = t.LlavaConfig(
        vision_config=vision | {"model_type": "clip_vision_model"},
        text_config=text | {"model_type": "llama"},
        image_token_index=image,
        projector_hidden_act=act,
        multimodal_projector_bias=bias,
        vision_feature_select_strategy="full" if full else "default",
        vision_feature_layer=layers,
    )
    theirs = shaken(t.LlavaForConditionalGeneration(config), seed)
    theirs.save_pretrained(tmp_path)
    ours = LLaVA.from_pretrained(tmp_path)
    side = vision["image_size"]
    patches = (side // vision["patch_size"]) ** 2 + full
    pixels = torch.randn(2 * n, vision["num_channels"], side, side)
    ids = torch.randint(image, (2, 3 + n * patches))
    for k in range(n):  # pictures side by side, and a word after each
        ids[:, 1 + k * patches : 1 + (k + 1) * patches] = image
    lm = layouts.llama_options(text, "here")

    def rename(grads):
        return layouts.to_ours(grads, layouts.LLAVA, lm)

    found = theirs(input_ids=ids, pixel_values=pixels).logits
    same(ours(ids, pixels), found, ours, theirs, rename)


def small_llava(**options):
    torch.manual_seed(0)
    eye = VisionTower(8, 4, d=8, heads=2, depth=2)
    return LLaVA(eye, LM(12, d=8, heads=2, depth=2), 11, **options).eval()


def test_llava_writes_with_a_cache_what_it_writes_without():
    llava, pixels = small_llava(), torch.randn(2, 3, 8, 8)
    ids = torch.tensor([[1, 11, 11, 11, 11, 2], [11, 11, 11, 11, 3, 4]])

    def a_word(z):  # and no picture
        return z[:, :11].argmax(-1)

    written = generate(llava, ids, 5, pixels, choose=a_word)
    again = ids
    for _ in range(5):
        again = torch.cat([again, a_word(llava(again, pixels)[:, -1])[:, None]], 1)
    assert torch.equal(written, again)


def test_pictures_come_in_the_order_of_the_text():
    llava, pixels = small_llava(), torch.randn(2, 3, 8, 8)
    ids = torch.tensor([[1, *[11] * 4, 2, *[11] * 4, 3]])
    both = llava(ids, pixels)
    x = llava.lm.words(ids)
    x[0, 1:5], x[0, 6:10] = llava.see(pixels)
    torch.testing.assert_close(both, llava.lm.read(x))
    assert not torch.allclose(both, llava(ids, pixels.flip(0)))


def test_without_a_picture_it_is_the_language_model():
    llava, ids = small_llava(), torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(llava(ids), llava.lm(ids))


def test_queries_are_a_bridge_too():
    torch.manual_seed(0)
    bridge = QueryBridge(QFormer(6, 2, 2, width=8), 3, 8)
    llava = small_llava(bridge=bridge)
    pixels = torch.randn(2, 3, 8, 8)
    assert llava.see(pixels).shape == (2, 3, 8)
    assert llava(torch.tensor([[11, 11, 11, 1]] * 2), pixels).shape == (2, 4, 12)
    wanted = bridge.to_lm(
        bridge.qformer(bridge.queries, llava.eye.states(pixels)[-2][:, 1:])
    )
    torch.testing.assert_close(llava.see(pixels), wanted)


@pytest.mark.parametrize(
    ("ids", "pixels", "why"),
    [
        ([[1, 11, 2]], (1, 3, 8, 8), "expected 4 image tokens for 1 .*, got .1."),
        ([[1, 2, 3]], (1, 3, 8, 8), "expected 4 image tokens for 1 .*, got .0."),
        (
            [[11] * 5 + [1], [11] * 3 + [1] * 3],  # as many as there should be
            (2, 3, 8, 8),
            r"expected 8 image tokens for 2 pictures, 4 together, got \[5, 3\]",
        ),
        ([[11] * 4], (1, 1, 8, 8), r"pixels: expected shape \(any, 3, 8, 8\)"),
        ([[11] * 4], (1, 3, 8, 12), r"pixels: expected shape \(any, 3, 8, 8\)"),
        ([[11] * 4], (3, 8, 8), r"pixels: expected shape \(any, 3, 8, 8\)"),
        ([[11] * 4], (0, 3, 8, 8), "pixels: expected at least one value"),
        ([[12] * 4], (1, 3, 8, 8), "ids: expected tokens 0 to 11"),
    ],
)
def test_llava_refuses(ids, pixels, why):
    with pytest.raises(ValueError, match=why):
        small_llava()(torch.tensor(ids), torch.zeros(pixels))


def test_image_tokens_want_pictures():
    llava, ids = small_llava(), torch.tensor([[1, 11, 11, 11, 11, 2]])
    with pytest.raises(ValueError, match="pixels: expected the pictures"):
        llava(ids)


# the Q-Former
@given(
    heads=st.integers(1, 3),
    width=st.integers(1, 5),
    depth=st.integers(1, 4),
    hidden=st.integers(3, 20),
    seen=st.integers(1, 9),
    every=st.integers(1, 3),
    act=ACTS,
    some=st.booleans(),
    seed=SEEDS,
)
@settings(max_examples=8, **SLOW)
def test_it_is_the_q_former(
    heads, width, depth, hidden, seen, every, act, some, seed, tmp_path
):
    t = pytest.importorskip("transformers")
    config = t.Blip2QFormerConfig(
        hidden_size=heads * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=hidden,
        encoder_hidden_size=seen,
        cross_attention_frequency=every,
        hidden_act=act,
        layer_norm_eps=1e-3,  # 1e-12 makes a token of one or two features 0/0
    )
    theirs = shaken(t.Blip2QFormerModel(config), seed)
    theirs.save_pretrained(tmp_path)
    ours = QFormer.from_pretrained(tmp_path)
    queries, states = torch.randn(2, 3, heads * width), torch.randn(2, 5, seen)
    looks = torch.tensor([[True] * 3 + [False] * 2, [True] * 5]) if some else None
    found = theirs(
        query_embeds=queries, encoder_hidden_states=states, encoder_attention_mask=looks
    )

    def rename(grads):
        return renamed(grads, layouts.QFORMER)

    same(ours(queries, states, looks), found.last_hidden_state, ours, theirs, rename)


def test_the_q_former_of_a_whole_blip_2_opens(tmp_path):
    t = pytest.importorskip("transformers")
    text = {"model_type": "opt", "vocab_size": 20, "hidden_size": 8, "ffn_dim": 8}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "word_embed_proj_dim": 8}
    vision = {"hidden_size": 6, "intermediate_size": 12, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    own = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    own |= {"intermediate_size": 12}
    config = t.Blip2Config(vision_config=vision, qformer_config=own, text_config=text)
    theirs = shaken(t.Blip2ForConditionalGeneration(config), 0)
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    queries, states = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    model = (theirs.model if hasattr(theirs, "model") else theirs).qformer
    wanted = model(query_embeds=queries, encoder_hidden_states=states)
    found = QFormer.from_pretrained(tmp_path)(queries, states)
    torch.testing.assert_close(found, wanted.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_queries_for_one_are_queries_for_all():
    torch.manual_seed(0)
    qformer = QFormer(8, 2, 3, width=5).eval()
    queries, states = torch.randn(1, 3, 8), torch.randn(4, 6, 5)
    together = qformer(queries, states)
    for i in range(4):
        torch.testing.assert_close(together[i], qformer(queries, states[i : i + 1])[0])
    shuffled = qformer(queries, states[:, torch.randperm(6)])
    torch.testing.assert_close(together, shuffled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("queries", "states", "why"),
    [
        ((1, 3, 7), (2, 6, 5), r"queries: expected shape \(any, any, 8\)"),
        ((1, 3, 8), (2, 6, 8), r"image_states: expected shape \(any, any, 5\)"),
        ((1, 3, 8), (2, 0, 5), "image_states: expected at least one value"),
    ],
)
def test_the_q_former_refuses(queries, states, why):
    with pytest.raises(ValueError, match=why):
        QFormer(8, 2, 2, width=5)(torch.zeros(queries), torch.zeros(states))


# Flamingo
@given(
    text=llamas(),
    vision=towers(),
    every=st.integers(1, 3),
    more=st.integers(0, 2),
    vector=st.booleans(),
    norms=st.tuples(st.booleans(), st.booleans()),
    latents=st.integers(0, 3),  # 0: no resampler
    n=st.integers(1, 3),
    looks=st.sampled_from(["all", "some", "named"]),
    seed=SEEDS,
)
@settings(max_examples=8, **SLOW)
def test_it_is_idefics(
    text, vision, every, more, vector, norms, latents, n, looks, seed, tmp_path
):
    t = pytest.importorskip("transformers")
    heads, width = text["num_attention_heads"], text["head_dim"]
    own = ("num_key_value_heads", "head_dim", "attention_bias", "mlp_bias")
    text = {k: v for k, v in text.items() if k not in own}
    text |= {"hidden_size": heads * width, "num_hidden_layers": 2 * every}
    text |= {"pad_token_id": 0, "additional_vocab_size": more}
    vision = {("embed_dim" if k == "hidden_size" else k): v for k, v in vision.items()}
    config = t.IdeficsConfig(
        **text,
        vision_config=vision,
        cross_layer_interval=every,
        alpha_type="vector" if vector else "float",
        qk_layer_norms=norms[0],
        use_resampler=latents > 0,
        perceiver_config={
            "resampler_n_latents": max(latents, 1),
            "resampler_depth": 2,
            "resampler_n_heads": 2,
            "resampler_head_dim": 3,
            "qk_layer_norms_perceiver": norms[1],
        },
    )
    theirs = shaken(t.IdeficsForVisionText2Text(config), seed)
    theirs.save_pretrained(tmp_path)
    ours = Flamingo.from_pretrained(tmp_path)
    side, size = vision["image_size"], text["vocab_size"] + more
    ids = torch.randint(size - 1, (2, 7))
    pixels = torch.randn(2, n, vision["num_channels"], side, side)
    mask = {"all": torch.ones(2, 7, n) > 0, "some": torch.rand(2, 7, n) < 0.5}
    ids[:, 2 : 2 + n] = size - 1
    mask["named"] = last_picture(ids, size - 1)
    mask = mask[looks]
    lm = layouts.llama_options(text | {"head_dim": width}, "here", "idefics")

    def rename(grads):
        return layouts.to_ours(grads, layouts.IDEFICS, lm)

    found = theirs(input_ids=ids, pixel_values=pixels, image_attention_mask=mask)
    given = None if looks == "all" else mask
    same(ours(ids, pixels, given), found.logits, ours, theirs, rename)


def small_flamingo(open_gates=True, **options):
    torch.manual_seed(0)
    eye, lm = VisionTower(8, 4, d=8, heads=2, depth=1), LM(12, d=8, heads=2, depth=2)
    options = {"resampler": Resampler(8, 2, 1, 2), "heads": 2} | options
    model = Flamingo(eye, lm, **options).eval()
    for b in model.bridges:
        torch.nn.init.constant_(b.gate1, float(open_gates))
        torch.nn.init.constant_(b.gate2, float(open_gates))
    return model


def test_shut_gates_leave_the_language_model_alone():
    ids, pixels = torch.randint(12, (2, 5)), torch.randn(2, 3, 8, 8)
    shut, ajar = small_flamingo(False), small_flamingo()
    torch.testing.assert_close(shut(ids, pixels), shut.lm(ids))
    assert not torch.allclose(ajar(ids, pixels), ajar.lm(ids))
    assert all(
        b.gate1 == 0 and b.gate2 == 0 for b in Flamingo(shut.eye, shut.lm).bridges
    )


def test_flamingo_writes_with_a_cache_what_it_writes_without():
    model, ids = small_flamingo(), torch.randint(12, (2, 5))
    pixels, looks = torch.randn(2, 2, 3, 8, 8), torch.rand(2, 5, 2) < 0.5
    written = generate(model, ids, 4, pixels, looks)
    again = ids
    for _ in range(4):
        again = torch.cat(
            [again, greedy(model(again, pixels, looks)[:, -1])[:, None]], 1
        )
        looks = torch.cat([looks, looks[:, -1:]], 1)
    assert torch.equal(written, again)


def test_a_word_sees_only_what_it_looks_at():
    model, ids = small_flamingo(), torch.tensor([[9, 1, 2, 9, 3]])
    looks = last_picture(ids, 9)
    assert looks[0].tolist() == [[True, False]] * 3 + [[False, True]] * 2
    pixels = torch.randn(1, 2, 3, 8, 8)
    other = pixels.clone()
    other[:, 1] = 0
    a, b = model(ids, pixels, looks), model(ids, other, looks)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3:], b[:, 3:])


def test_before_the_first_picture_a_word_looks_at_nothing():
    looks = last_picture(torch.tensor([[1, 9, 2], [9, 1, 9]]), 9)
    assert looks[0].tolist() == [[False, False], [True, False], [True, False]]
    assert looks[1].tolist() == [[True, False], [True, False], [False, True]]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pixels": None}, "pixels: expected pictures, or a cache"),
        (
            {"pixels": torch.zeros(1, 1, 8, 8)},
            r"pixels: expected shape \(1, any, 3, 8, 8\)",
        ),
        (
            {"pixels": torch.zeros(2, 3, 8, 8)},
            r"pixels: expected shape \(1, any, 3, 8, 8\)",
        ),
        ({"looks": torch.ones(1, 3, 2)}, r"looks: expected shape \(1, 3, 1\)"),
        ({"ids": torch.tensor([[1, 12, 3]])}, "ids: expected tokens 0 to 11"),
    ],
)
def test_flamingo_refuses(change, why):
    inputs = {"ids": torch.tensor([[1, 2, 3]]), "pixels": torch.zeros(1, 3, 8, 8)}
    with pytest.raises(ValueError, match=why):
        small_flamingo()(**inputs | change)


# folders
OPENS = {"llava": LLaVA, "qformer": QFormer, "flamingo": Flamingo}


@pytest.fixture(params=OPENS)
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, tmp_path):
    return shutil.copytree(data_path(f"published/{kind}"), tmp_path / kind)


def set_config(folder, **change):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(config), encoding="utf-8")


def test_the_shipped_folders(kind):
    folder = data_path(f"published/{kind}")
    r = load_file(folder / "reference.safetensors")
    names = {
        "llava": ("ids", "pixels", "logits"),
        "qformer": ("queries", "states", "hidden"),
        "flamingo": ("ids", "pixels", "looks", "logits"),
    }
    *inputs, wanted = [r[k] for k in names[kind]]
    found = OPENS[kind].from_pretrained(folder)(*inputs)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_half_precision_opens(kind, folder):
    model = OPENS[kind].from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    half = {k: t.bfloat16() for k, t in weights.items()}
    save_file(half, folder / "model.safetensors")
    for name, p in OPENS[kind].from_pretrained(folder).state_dict().items():
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, model.state_dict()[name], atol=0.01, rtol=0.01)


def test_an_empty_folder(kind, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected config.json, found nothing"):
        OPENS[kind].from_pretrained(tmp_path)


def test_a_folder_without_weights(kind, folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="expected model.safetensors"):
        OPENS[kind].from_pretrained(folder)


def test_truncated_weights(kind, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        OPENS[kind].from_pretrained(folder)


def test_another_model(kind, folder):
    set_config(folder, model_type="gpt2")
    with pytest.raises(CheckpointError, match="got 'gpt2'"):
        OPENS[kind].from_pretrained(folder)


def test_weights_that_lack_or_are_unknown_or_of_another_shape(kind, folder):
    path = folder / "model.safetensors"
    whole = load_file(path)
    first = next(k for k in whole if "q_proj" in k or "query" in k)
    cases = {
        "is missing there": {k: t for k, t in whole.items() if k != first},
        "is unknown here": whole | {"surplus.weight": torch.zeros(2)},
        "there, .* here": whole | {first: torch.zeros(*whole[first].shape, 2)},
    }
    for why, weights in cases.items():
        save_file(weights, path)
        with pytest.raises(CheckpointError, match=why):
            OPENS[kind].from_pretrained(folder)


def test_an_index_that_leads_out_of_the_folder(kind, folder):
    (folder / "model.safetensors").rename(folder.parent / "out.safetensors")
    names = load_file(folder.parent / "out.safetensors")
    index = {"weight_map": dict.fromkeys(names, "../out.safetensors")}
    text = json.dumps(index)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        OPENS[kind].from_pretrained(folder)


def changed(kind, part=None, **change):
    "The name of a folder, and what to change in its configuration."
    config = json.loads(
        (data_path(f"published/{kind}") / "config.json").read_text("utf-8")
    )
    return kind, {part: config[part] | change} if part else change


@pytest.mark.parametrize(
    ("where", "why"),
    [
        (
            changed("llava", vision_feature_select_strategy="mean"),
            "select_strategy: expected",
        ),
        (
            changed("llava", vision_feature_layer=9),
            "vision_feature_layer: expected -3 to 2",
        ),
        (
            changed("llava", vision_feature_layer="last"),
            "vision_feature_layer: expected one",
        ),
        (changed("llava", projector_hidden_act="mish"), "projector_hidden_act"),
        (changed("llava", "text_config", model_type="qwen2"), "got 'qwen2'"),
        (changed("llava", "vision_config", model_type="siglip"), "got 'siglip'"),
        (
            changed("llava", "text_config", rope_parameters={"rope_type": "yarn"}),
            "'yarn'",
        ),
        (
            changed("llava", "text_config", hidden_size="big"),
            "hidden_size: expected one",
        ),
        (changed("llava", "text_config", num_key_value_heads=2), "do not divide 3"),
        (
            changed("llava", "text_config", head_dim=3),
            "head_dim: expected an even number",
        ),
        (changed("llava", "vision_config", num_attention_heads=3), "divisor of hidden"),
        (
            changed("llava", text_config={"model_type": "llama"}),  # seven billion
            "is missing there",
        ),
        (changed("llava", text_config=[]), "expected"),
        (changed("qformer", use_qformer_text_input=True), "use_qformer_text_input"),
        (changed("qformer", hidden_act="mish"), "hidden_act"),
        (changed("qformer", num_hidden_layers=-1), "num_hidden_layers: expected one"),
        (changed("flamingo", alpha_type="matrix"), "alpha_type: expected"),
        (changed("flamingo", cross_layer_interval=3), "does not divide 2 layers"),
        (changed("flamingo", use_resampler=False), "is unknown here"),
        (
            changed("flamingo", rope_scaling={"type": "linear"}, rope_parameters=None),
            "linear",
        ),
    ],
)
def test_options_that_we_do_not_have_are_named(where, why, tmp_path):
    kind, change = where
    folder = shutil.copytree(data_path(f"published/{kind}"), tmp_path / kind)
    set_config(folder, **change)
    with pytest.raises(CheckpointError, match=why):
        OPENS[kind].from_pretrained(folder)


def test_options_of_older_folders(tmp_path):
    "Rotation at the top, what is usual left out, the tower and the LM by other names."
    folder = shutil.copytree(data_path("published/llava"), tmp_path / "llava")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    rope = config["text_config"].pop("rope_parameters")
    config["text_config"]["rope_theta"] = rope["rope_theta"]
    config["text_config"]["rope_scaling"] = None
    del config["vision_feature_layer"], config["projector_hidden_act"]
    path.write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    newer = [
        ("language_model.lm_head", "lm_head"),
        ("language_model.model.", "model.language_model."),
    ]
    for names in ([("vision_tower.", "vision_tower.vision_model.")], newer):
        save_file(renamed(weights, names), folder / "model.safetensors")
        r = load_file(folder / "reference.safetensors")
        found = LLaVA.from_pretrained(folder)(r["ids"], r["pixels"])
        torch.testing.assert_close(found, r["logits"], atol=1e-5, rtol=1e-5)


# learning
def test_the_loss_of_answers_is_transformers():
    loss_function = pytest.importorskip("transformers.loss.loss_utils").ForCausalLMLoss
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    answer = torch.tensor([[False, False, True, True, False], [False] * 4 + [True]])
    labels = ids.masked_fill(~answer, -100)
    torch.testing.assert_close(
        answer_loss(logits, ids, answer), loss_function(logits, labels, 7)
    )
    other = logits.clone()
    other[:, 4] = other[0, 0] = 99.0  # places that speak about no answer
    torch.testing.assert_close(
        answer_loss(other, ids, answer), answer_loss(logits, ids, answer)
    )


@given(
    r=st.integers(1, 6),
    alpha=st.integers(1, 32),
    layers=st.sampled_from([("to_q", "to_v"), ("to_k",), ("gate", "down", "out")]),
    bias=st.booleans(),
    seed=SEEDS,
)
@settings(max_examples=10, deadline=None)
def test_it_is_peft(r, alpha, layers, bias, seed):
    peft = pytest.importorskip("peft")
    torch.manual_seed(seed)
    ours = LM(11, d=8, heads=2, depth=2, bias=bias)
    config = peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=list(layers))
    theirs = peft.get_peft_model(copy.deepcopy(ours), config).eval()
    found = add_lora(ours, layers, r=r, alpha=alpha)
    thin = {}
    for name in found:
        a = theirs.get_submodule(f"base_model.model.{name}")
        b = ours.get_submodule(name)
        torch.nn.init.normal_(b.A), torch.nn.init.normal_(b.B)
        a.lora_A["default"].weight.data = b.A.data.clone()
        a.lora_B["default"].weight.data = b.B.data.clone()
        thin[name] = a.lora_A["default"].weight, a.lora_B["default"].weight
    ids = torch.randint(11, (2, 6))
    x, y = ours(ids), theirs(ids)
    torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    up = torch.randn_like(x)
    (x * up).sum().backward()
    (y * up).sum().backward()
    for name, (A, B) in thin.items():
        layer = ours.get_submodule(name)
        for p, q in ((layer.A, A), (layer.B, B)):
            scale = 1 + q.grad.abs().max()
            torch.testing.assert_close(
                p.grad / scale, q.grad / scale, atol=1e-4, rtol=0
            )
    learns = {k for k, p in ours.named_parameters() if p.requires_grad}
    assert learns == {f"{name}.{m}" for name in found for m in "AB"}
    merge_lora(ours)
    torch.testing.assert_close(ours(ids), x, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, LoRA) for m in ours.modules())


def test_lora_begins_where_the_model_is():
    torch.manual_seed(0)
    lm, ids = LM(11, d=8, heads=2, depth=1), torch.tensor([[1, 2, 3]])
    before = lm(ids)
    assert add_lora(lm) == ["blocks.0.attend.to_q", "blocks.0.attend.to_v"]
    torch.testing.assert_close(lm(ids), before)
    for layers in (("to_x",), ("to_q", "to_v")):  # the second: they have one
        with pytest.raises(ValueError, match="layers: none of"):
            add_lora(lm, layers)


def test_a_lora_can_learn():
    torch.manual_seed(0)
    lora = LoRA(torch.nn.Linear(3, 2), r=1)
    lora(torch.randn(4, 3)).sum().backward()
    assert lora.B.grad.abs().sum() > 0  # A is not zero, too
    assert lora.layer.weight.grad is None


def test_merging_leaves_the_lora_as_it_was():
    torch.manual_seed(0)
    lora, x = LoRA(torch.nn.Linear(3, 2), r=1), torch.randn(4, 3)
    torch.nn.init.normal_(lora.B)
    before = lora(x)
    torch.testing.assert_close(lora.merged()(x), before)
    torch.testing.assert_close(lora.merged()(x), before)
    torch.testing.assert_close(lora(x), before)


def test_the_tower_hands_out_its_states():
    torch.manual_seed(0)
    eye, x = VisionTower(8, 4, d=8, heads=2, depth=3), torch.randn(2, 3, 8, 8)
    states = eye.states(x)
    assert len(states) == 4 and states[0].shape == (2, 5, 8)
    torch.testing.assert_close(states[0], eye.norm0(eye.tokens(x)))
    torch.testing.assert_close(states[2], eye.blocks[1](states[1]))
    assert projector(8, 4)(states[3]).shape == (2, 5, 4)
