"One list for words, pictures and sounds; Chameleon as transformers has it."

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from conftest import refused
from mmcourse import layouts
from mmcourse.checkpoint import CheckpointError, read_tensors, write_tensors
from mmcourse.language_model import KVCache
from mmcourse.lessons import LENGTH, hint_words, load_unified, smudge, token_list
from mmcourse.pretrained import read_weights
from mmcourse.store import data_path
from mmcourse.unified import (
    Chameleon,
    Deck,
    HeadNorm,
    Learner,
    TokenList,
    by_modality,
    guided_logits,
    name_next,
    padded,
    sequences,
    start_near,
    train_unified,
    unified_loss,
    wanted,
    was_read,
    write,
)

SLOW = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
PUBLISHED = data_path("published/chameleon")


def small_list():
    return TokenList({"even", "pick"}, {"image": 4, "audio": 6})


# parity
@st.composite
def chameleons(draw):
    heads = draw(st.integers(1, 4))
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if heads % g == 0]))
    d = heads * 2 * draw(st.integers(1, 4))
    return {
        "vocab_size": draw(st.integers(12, 30)),
        "hidden_size": d,
        "intermediate_size": draw(st.integers(3, 20)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "hidden_act": draw(st.sampled_from(["silu", "gelu", "relu", "gelu_new"])),
        "attention_bias": draw(st.booleans()),
        "mlp_bias": draw(st.booleans()),
        "swin_norm": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-3])),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": draw(st.sampled_from([100.0, 10_000.0])),
        },
        "pad_token_id": None,
    }


def theirs_of(sizes, seed=0, shut=(6, 9)):
    t = pytest.importorskip("transformers")
    eye = {"embed_dim": 4, "num_embeddings": 4, "double_latent": False}
    eye |= {"latent_channels": 4, "resolution": 8, "base_channels": 32}
    eye |= {"channel_multiplier": [1], "num_res_blocks": 1}
    names = {"<image>": 4} | {f"IMGIMG{'ABCDE'[i]}Z": n for i, n in enumerate(shut)}
    config = t.ChameleonConfig(**sizes, vocabulary_map=names, vq_config=eye)
    torch.manual_seed(seed)
    theirs = t.ChameleonForConditionalGeneration(config)
    for p in theirs.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    return theirs.eval()


@given(sizes=chameleons(), seed=st.integers(0, 99))
@settings(max_examples=12, **SLOW)
def test_it_is_chameleon(sizes, seed, tmp_path):
    theirs = theirs_of(sizes, seed)
    theirs.save_pretrained(tmp_path)
    ours = Chameleon.from_pretrained(tmp_path)
    ids = torch.randint(sizes["vocab_size"], (2, 7))
    found, expected = ours(ids), theirs(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found[..., [6, 9]] < -1e30).all() and (found > -1e30).any()
    up = torch.randn(found.shape).index_fill(2, torch.tensor([6, 9]), 0)
    (found * up).sum().backward()
    (expected * up).sum().backward()
    grads = {k: p.grad for k, p in theirs.named_parameters() if p.grad is not None}
    lm = layouts.llama_options(sizes | {"vocabulary_map": {}}, "here", "chameleon")
    grads = layouts.chameleon_weights(grads, lm)
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, grads[name], atol=1e-4, rtol=1e-4)


def test_shards_open_as_one_file_does(tmp_path):
    sizes = {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20}
    sizes |= {"vocab_size": 30, "num_hidden_layers": 2, "pad_token_id": None}
    theirs = theirs_of(sizes | {"num_key_value_heads": 3})
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ids = torch.randint(30, (1, 5))
    found = Chameleon.from_pretrained(tmp_path)(ids)
    torch.testing.assert_close(
        found, theirs(input_ids=ids).logits, atol=1e-5, rtol=1e-5
    )


# folders
@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(PUBLISHED, tmp_path / "chameleon")


def set_config(folder, **change):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(config), encoding="utf-8")


def test_the_shipped_folder():
    r = load_file(PUBLISHED / "reference.safetensors")
    found = Chameleon.from_pretrained(PUBLISHED)(r["ids"])
    torch.testing.assert_close(found, r["logits"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_opens(folder, kind):
    whole = Chameleon.from_pretrained(folder).state_dict()
    weights = load_file(folder / "model.safetensors")
    half = {k: t.to(kind) for k, t in weights.items()}
    save_file(half, folder / "model.safetensors")
    for name, p in Chameleon.from_pretrained(folder).state_dict().items():
        assert p.dtype == torch.float32
        torch.testing.assert_close(p, whole[name], atol=0.01, rtol=0.01)


def test_weights_that_lack_or_are_unknown_or_of_another_shape(folder):
    path = folder / "model.safetensors"
    whole = load_file(path)
    first = next(k for k in whole if "q_norm.weight" in k)
    cases = {
        "is missing there": {k: t for k, t in whole.items() if k != first},
        "is unknown here": whole | {"surplus.weight": torch.zeros(2)},
        "there, .* here": whole | {first: whole[first].flatten()},
    }
    for why, weights in cases.items():
        save_file(weights, path)
        with pytest.raises(CheckpointError, match=why):
            Chameleon.from_pretrained(folder)


def test_damaged_folders(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="expected config.json, found nothing"):
        Chameleon.from_pretrained(tmp_path / "empty")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Chameleon.from_pretrained(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="expected model.safetensors"):
        Chameleon.from_pretrained(folder)
    names = ["../out.safetensors"]
    index = {"weight_map": dict.fromkeys(read_weights(PUBLISHED), *names)}
    text = json.dumps(index)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        Chameleon.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "llama"}, "got 'llama'"),
        ({"num_key_value_heads": 2}, "do not divide 3"),
        ({"hidden_size": "big"}, "hidden_size: expected one"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"num_hidden_layers": 10**6}, "at most 1000"),
        ({"swin_norm": "yes"}, "swin_norm: expected one"),
        ({"vocabulary_map": [1]}, "vocabulary_map: expected one"),
        ({"vocabulary_map": {"IMGIMGAZ": 24}}, "expected a token, got 24"),
        ({"vocabulary_map": {"IMGIMGAZ": "a"}}, "vocabulary_map"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps: expected"),
        ({"head_dim": 6}, "head_dim: expected hidden_size"),
        ({"vocab_size": 23, "vocabulary_map": {}}, "there, .* here"),
    ],
)
def test_configurations_that_are_refused(folder, change, why):
    set_config(folder, **change)
    with pytest.raises(CheckpointError, match=why):
        Chameleon.from_pretrained(folder)


# the model
def test_a_head_norm_is_a_layer_norm_of_each_head():
    torch.manual_seed(0)
    norm, x = HeadNorm(3, 4), torch.randn(2, 5, 12)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        alone = F.layer_norm(x[..., part], (4,), norm.weight[h], norm.bias[h], 1e-5)
        torch.testing.assert_close(norm(x)[..., part], alone)


def small_model(**options):
    torch.manual_seed(0)
    return Chameleon(len(small_list()), d=8, heads=2, depth=3, **options).eval()


def test_with_a_cache_as_without():
    model, ids, cache = small_model(), torch.randint(20, (2, 8)), KVCache()
    pieces = [
        model(ids[:, :3], cache),
        model(ids[:, 3:4], cache),
        model(ids[:, 4:], cache),
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), atol=1e-5, rtol=1e-5)


def test_what_is_shut_is_never_likely_and_gradients_pass():
    model = small_model(shut=(3, 5))
    logits = model(torch.tensor([[1, 2]]))
    p = logits.softmax(-1)
    assert (p[..., [3, 5]] == 0).all() and p[..., 4].min() > 0
    logits.softmax(-1)[..., 4].sum().backward()
    assert model.embed.weight.grad.isfinite().all()


def test_forms_differ_and_share_names():
    names = [{*small_model(late=late).state_dict()} for late in (False, True)]
    assert names[0] == names[1]
    early, late = small_model(), small_model(late=True)
    late.load_state_dict(early.state_dict())
    ids = torch.tensor([[1, 2, 3]])
    assert not torch.allclose(early(ids), late(ids))
    assert not [k for k in small_model(qk_norm=False).state_dict() if "to_q.1" in k]


# the list
def test_the_list_by_hand():
    t = small_list()
    assert t.words[:2] == ["zero", "one"] and t.words[10:] == [".", "even", "pick"]
    assert t.place["<image>"] == 13 and t.place["<hole>"] == 17
    assert [(m, r[0], r[-1]) for m, r in t.range.items()] == [
        ("text", 0, 12),
        ("image", 18, 21),
        ("audio", 22, 27),
    ]
    assert len(t) == 28
    assert t.text("PICK  seven …") == [12, 7] and t.text("Even, two!") == [11, 2]
    codes = torch.tensor([[3, 0], [1, 1]])
    assert t.wrap("image", codes).tolist() == [[13, 21, 18, 14], [13, 19, 19, 14]]
    assert t.wrap("audio", codes)[0].tolist() == [15, 25, 22, 16]


def test_the_list_refuses():
    t = small_list()
    refused(t.text, "pick an elephant", name="text: expected known words")
    refused(t.text, "…", name="text: expected known words")
    refused(t.wrap, "text", torch.zeros(1, 1).long(), name="modality")
    refused(t.wrap, "image", torch.tensor([[4]]), name="codes: expected 0 to 3")
    refused(t.wrap, "image", torch.tensor([[-1]]), name="codes: expected 0 to 3")


def test_every_hint_is_in_the_list():
    from mmcourse.hints import hints

    t = token_list()
    assert len(hint_words()) > 200
    for split in ("train", "valid", "test"):
        for text in hints(split, 2000, 1)["text"]:
            assert all(n < t.place["<image>"] for n in t.text(text))


# sequences
def deck(n, size, seed=0):
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(size, (2, 30, n), generator=g)
    digit = torch.arange(30) % 10
    codes[:, :, 0] = digit % size  # the first code tells the digit
    return Deck(
        codes, digit[torch.randperm(30, generator=g).argsort().argsort()]
    ), codes


def test_a_deck_gives_examples_of_the_digit():
    digit = torch.tensor([3, 1, 3, 0, 9, 9, 9, 1, 2, 4, 5, 6, 7, 8])
    codes = torch.stack([torch.stack([digit, digit * 0 + k], 1) for k in range(3)])
    g = torch.Generator().manual_seed(0)
    ask = torch.arange(10).repeat(50)
    found = Deck(codes, digit).draw(ask, g)
    assert torch.equal(found[:, 0], ask)
    assert found[:, 1].unique().tolist() == [0, 1, 2]
    numbered = Deck(torch.arange(14)[None, :, None], digit)
    for d, rows in ((3, {0, 2}), (9, {4, 5, 6}), (0, {3})):
        drawn = numbered.draw(torch.full((200,), d), g)[:, 0].tolist()
        assert {*drawn} == rows


def lessons(orders):
    t, digit = small_list(), torch.tensor([3, 7])
    decks = {"image": deck(3, 4)[0], "audio": deck(2, 6)[0]}
    g = torch.Generator().manual_seed(0)
    return t, digit, [sequences(t, decks, digit, o, g) for o in orders]


def test_sequences_by_hand():
    t, digit, (a, b) = lessons([("audio", "text", "image"), ("text", "image")])
    assert a.shape == (2, 4 + 1 + 5) and b.shape == (2, 1 + 5)
    assert torch.equal(a[:, 4], digit) and torch.equal(b[:, 0], digit)
    assert (a[:, 0] == 15).all() and (a[:, 3] == 16).all()
    assert (a[:, 5] == 13).all() and (a[:, -1] == 14).all()


def test_what_is_wanted_by_hand():
    t = small_list()
    #      pick even . <image> code code </image> <audio> code </audio> seven
    ids = torch.tensor([[12, 11, 10, 13, 18, 21, 14, 15, 27, 16, 7]])
    found = wanted(t, ids, torch.tensor([7]))
    n = -100
    assert found.tolist() == [[n, n, 7, 18, 21, n, 7, 27, n, 7, n]]
    assert was_read(t, ids).int().tolist() == [[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]
    picture = torch.tensor([[13, 18, 21, 14, 15, 27]])
    assert was_read(t, picture).int().tolist() == [[0, 0, 0, 0, 1, 1]]
    around = torch.tensor([[18, 13, 20]])  # the first code is not wanted at the end
    assert wanted(t, around, torch.tensor([1])).tolist() == [[n, 20, n]]


def test_rows_are_filled_at_their_ends():
    assert padded([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]


def test_filling_changes_nothing_before_it():
    model = small_model()
    ids = torch.tensor([[1, 13, 18]])
    longer = torch.tensor([[1, 13, 18, 17, 17]])
    torch.testing.assert_close(model(longer)[:, :3], model(ids))


def test_smudges_are_of_the_same_modality_and_as_many_as_asked():
    t, g = token_list(), torch.Generator().manual_seed(0)
    ids = torch.cat(
        [t.wrap(m, torch.zeros(400, n).long()) for m, n in LENGTH.items()], 1
    )
    found = smudge(t, ids, 0.2, g)
    for m in LENGTH:
        place = t.range[m]
        here = (ids >= place[0]) & (ids <= place[-1])
        assert ((found[here] >= place[0]) & (found[here] <= place[-1])).all()
        assert abs((found != ids)[here].float().mean() - 0.2) < 0.02
    coded = ids >= t.range["image"][0]
    assert torch.equal(found[~coded], ids[~coded])
    assert torch.equal(smudge(t, ids, 0.0, g), ids)


# losses
def test_losses_by_hand():
    t = small_list()
    torch.manual_seed(0)
    logits, asked = torch.randn(2, 4, len(t)), torch.randn(2, 4, 10)
    target = torch.tensor([[18, -100, 3, 18], [22, 19, -100, -100]])
    digit = torch.tensor([3, 5])
    found = unified_loss((logits, asked), (target, digit), t, ask=0.5, z=0.1)
    minus = -logits.log_softmax(-1)
    torch.testing.assert_close(found["text"], minus[0, 2, 3])
    pictures = (minus[0, 0, 18] + minus[0, 3, 18] + minus[1, 1, 19]) / 3
    torch.testing.assert_close(found["image"], pictures)
    torch.testing.assert_close(found["audio"], minus[1, 0, 22])
    counted = [(0, 0), (0, 2), (0, 3), (1, 0), (1, 1)]
    names = [-asked.log_softmax(-1)[b, i, digit[b]] for b, i in counted]
    torch.testing.assert_close(found["asked"], 0.5 * sum(names) / 5)
    squares = [logits[b, i].logsumexp(-1) ** 2 for b, i in counted]
    torch.testing.assert_close(found["z"], 0.1 * sum(squares) / 5)
    assert {*unified_loss((logits, asked), (target, digit), t, ask=0.0)} == {*t.range}


def test_a_modality_that_is_not_there_costs_nothing():
    t = small_list()
    found = by_modality(torch.randn(3, len(t)), torch.tensor([-100, 18, 19]), t)
    assert found["text"] == 0 and found["audio"] == 0 and found["image"] > 0


def test_the_learner_asks_at_two_heights():
    model, t = small_model(tied=True), small_list()
    ids = torch.tensor([[13, 18, 14, 15, 22]])
    seen = {}

    def before(i, x):
        seen[i] = x
        return x

    expected = model.read(model.words(ids), before=before)
    known = was_read(t, ids)
    logits, asked = Learner(model, (1, 2))((ids, known))
    torch.testing.assert_close(logits, expected)
    for i in range(5):
        x = model.norm(seen[2 if known[0, i] else 1][0, i])
        torch.testing.assert_close(asked[0, i], x @ model.head.weight[:10].T)


def test_like_codes_begin_alike():
    t, model = token_list(), Chameleon(len(token_list()), d=32, depth=1, tied=True)
    book = torch.randn(1024, 16)
    book[7] = book[3] + 0.01
    torch.manual_seed(0)
    start_near(model, t, {"audio": book})
    table = model.embed.weight[t.range["audio"][0] :]
    near, far = (table[3] - table[7]).norm(), (table[3] - table[8]).norm()
    assert near < 0.8 * far
    logits = model(torch.randint(len(t), (2, 9)))
    assert 0.02 < logits.std() < 1


def test_a_small_model_learns_a_rule():
    "After the word, its code: what is told is used, and nothing else could tell it."
    t = small_list()
    digit = torch.arange(10)
    codes = torch.stack([digit % 4, digit // 4], 1)
    decks = {"image": Deck(codes[None], digit)}

    def draw(g):
        digit = torch.randint(10, (16,), generator=g)
        order = [("text", "image"), ("image", "text")][
            int(torch.rand((), generator=g) < 0.5)
        ]
        ids = sequences(t, decks, digit, order, g)
        return ids, wanted(t, ids, digit), digit

    torch.manual_seed(0)
    model = Chameleon(len(t), d=16, heads=2, depth=2, tied=True)
    start_near(model, t, {})
    curve = train_unified(Learner(model, (1, 1)), draw, t, steps=300, lr=1e-2)
    assert len(curve) == 300 and curve[-1]["text"] < 0.5 < curve[0]["text"]
    found = write(model, t, digit[:, None], "image", 2, choose=lambda z: z.argmax(-1))
    assert (found == codes).float().mean() > 0.9
    named = name_next(model, t.wrap("image", codes))
    assert (named.argmax(1) == digit).float().mean() > 0.8


# writing
def test_guidance_by_hand():
    told, free = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    a, b = told.log_softmax(-1), free.log_softmax(-1)
    torch.testing.assert_close(guided_logits(told, free, 1.0), a)
    torch.testing.assert_close(guided_logits(told, free, 0.0), b)
    torch.testing.assert_close(guided_logits(told, free, 3.0), 3 * a - 2 * b)
    torch.testing.assert_close(guided_logits(told + 5, free - 2, 3.0), 3 * a - 2 * b)


@pytest.mark.parametrize("guide", [1.0, 2.5])
def test_writing_is_what_the_model_says_step_by_step(guide):
    model, t = small_model(), small_list()
    prompt, begin = torch.tensor([[1], [2]]), torch.full((2, 1), 15)

    def choose(logits):
        return logits.argmax(-1)

    found = write(model, t, prompt, "audio", 4, guide=guide, choose=choose)
    told, free = torch.cat([prompt, begin], 1), begin
    for i in range(4):
        a = model(told)[:, -1, 22:28].log_softmax(-1)
        b = model(free)[:, -1, 22:28].log_softmax(-1)
        code = (b + guide * (a - b)).argmax(-1)
        assert torch.equal(code, found[:, i])
        told = torch.cat([told, code[:, None] + 22], 1)
        free = torch.cat([free, code[:, None] + 22], 1)
    assert found.shape == (2, 4) and found.max() < 6


def test_writing_refuses():
    model, t, prompt = small_model(), small_list(), torch.tensor([[1]])
    refused(write, model, t, prompt, "text", 3, name="modality")
    refused(write, model, t, prompt, "image", 0, name="n")
    refused(write, model, t, torch.tensor([[99]]), "image", 3, name="ids")


def test_names_alone_are_read():
    model = small_model()
    ids = torch.tensor([[13, 18, 14], [13, 19, 14]])
    torch.testing.assert_close(name_next(model, ids), model(ids)[:, -1, :10])


# what ships
def test_the_file_that_ships(tmp_path):
    path = data_path("unified.safetensors")
    assert path.stat().st_size < 1e6
    model = load_unified()
    assert not model.training and model.head.weight is model.embed.weight
    tensors, about = read_tensors(path)
    parts = "embed.weight", "norm.weight"
    for part in parts:
        less = {k: t for k, t in tensors.items() if part not in k}
        assert less.keys() != tensors.keys()
        write_tensors(tmp_path / "less.safetensors", less, about)
        with pytest.raises(CheckpointError, match=part.partition(".")[0]):
            load_unified(tmp_path / "less.safetensors")
