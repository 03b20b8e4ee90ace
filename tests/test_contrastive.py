"Two towers: their losses, their search, and what transformers says of theirs."

import json
import math
import re
import shutil
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_vit import published

from mmcourse import contrastive as c
from mmcourse import emoji_pairs as e
from mmcourse import pair_weights as w
from mmcourse.checkpoint import CheckpointError
from mmcourse.emoji import emoji
from mmcourse.explorables import temperature_slider
from mmcourse.store import data_path

sizes = st.integers(2, 9)


def logits_of(B, seed=0, by=3.0):
    g = torch.Generator().manual_seed(seed)
    return by * torch.randn(B, B, generator=g, dtype=torch.float64)


# losses
@given(sizes, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_losses_and_gradients_are_torchs(B, seed):
    z = logits_of(B, seed).requires_grad_()
    y = torch.arange(B)
    wanted = (F.cross_entropy(z, y) + F.cross_entropy(z.T, y)) / 2
    torch.testing.assert_close(c.info_nce(z), wanted)
    (grad,) = torch.autograd.grad(wanted, z)
    torch.testing.assert_close(c.info_nce_grad(z.detach()), grad)
    target = torch.eye(B, dtype=z.dtype)
    wanted = F.binary_cross_entropy_with_logits(z, target, reduction="sum") / B
    torch.testing.assert_close(c.sigmoid_loss(z), wanted)
    (grad,) = torch.autograd.grad(wanted, z)
    torch.testing.assert_close(c.sigmoid_loss_grad(z.detach()), grad)


def test_a_loss_by_hand():
    z = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = [torch.tensor(v).exp() for v in (-2.0, -2.0, -1.0, -3.0)]
    wanted = sum(torch.log1p(r) for r in rows) / 4
    torch.testing.assert_close(c.info_nce(z), wanted)


def test_what_is_also_right_is_no_negative():
    z = logits_of(4)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    without = z.masked_fill(same & ~torch.eye(4, dtype=torch.bool), -1e9)
    torch.testing.assert_close(c.info_nce(z, same), c.info_nce(without))
    torch.testing.assert_close(c.sigmoid_loss(z, same), c.sigmoid_loss(without))
    alone = torch.eye(4, dtype=torch.bool)
    assert c.info_nce(z, alone) == c.info_nce(z)
    assert c.sigmoid_loss(z, alone) == c.sigmoid_loss(z)


def test_twins_bound_the_loss_from_below():
    things = torch.eye(4).repeat_interleave(2, 0)
    z = 500 * things @ things.T
    torch.testing.assert_close(c.info_nce(z), torch.tensor(2.0).log())
    assert c.info_nce(z, things @ things.T > 0.5) < 1e-6


def unit_vectors(B, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(2, B, d, generator=g, dtype=torch.float64), dim=-1)


def test_gradients_by_the_vectors_are_autograds():
    u, v = unit_vectors(5, 3).requires_grad_()
    log_scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    z = log_scale.exp() * u @ v.T
    wanted = torch.autograd.grad(c.info_nce(z), (u, v, log_scale))
    with torch.no_grad():
        g = c.info_nce_grad(z)
        got = c.vector_grads(g, u, v, (-log_scale).exp().item())
    for a, b in zip(got, wanted):
        torch.testing.assert_close(a, b)


@given(sizes, st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_in_chunks_is_the_whole(B, size):
    u, v = unit_vectors(B, 4, B).requires_grad_()
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    whole = c.info_nce(scale * u @ v.T)
    chunked = c.chunked_info_nce(u, v, scale, size)
    torch.testing.assert_close(chunked, whole)
    a, b = (torch.autograd.grad(x, (u, v, scale)) for x in (whole, chunked))
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y)


# names
def test_parts_of_a_name():
    wanted = ["a", "red", "car", "a -3", "red -2", "car -1"]
    wanted += ["^ a", "a red", "red car", "car $"]
    assert c.name_parts("a: Red (car)") == wanted


def test_ids_are_the_same_everywhere_and_never_zero():
    ids = c.part_ids(["red car", "a red car"], 50)
    assert ids.shape == (2, 10) and ids[0, 7:].tolist() == [0, 0, 0]
    assert ids[1].min() >= 1 and ids.max() < 50
    assert ids[0, 0] == ids[1, 1] == 1 + zlib.crc32(b"red") % 49
    assert c.part_ids(["红"], 50, parts=list).shape == (1, 1)


def test_a_name_is_the_sum_of_its_parts():
    tower = c.NameTower(30, 4)
    ids = torch.tensor([[3, 7, 7, 0]])
    row = tower.parts.weight
    torch.testing.assert_close(tower(ids)[0], row[3] + 2 * row[7])
    masked = tower(ids, torch.tensor([[True, True, False, False]]))
    torch.testing.assert_close(masked[0], row[3] + row[7])
    assert not row[0].any()


def test_near_names_share_rare_parts():
    names = ["red apple", "green apple", "red heart", "blue sky", "blue sky at night"]
    near = e.near_names(c.part_ids(names, 4000), 1)
    assert near[3].item() == 4 and near[4].item() == 3
    assert near[1].item() == 0
    assert not (near == torch.arange(5)[:, None]).any()


def test_a_hard_batch_holds_friends():
    near = torch.arange(40).view(20, 2).roll(1, 0) % 20
    g = torch.Generator().manual_seed(0)
    rows = c.hard_batch(near, 8, g, friends=3)
    assert 3 <= len(rows) <= 8 and len(set(rows.tolist())) == len(rows)
    related = [
        any(int(r) in near[q] for q in rows) or set(near[r].tolist()) & {*rows.tolist()}
        for r in rows
    ]
    assert all(related)


# towers
def test_a_dual_encoder_scales_cosines():
    torch.manual_seed(0)
    see, read = torch.nn.Linear(6, 4), c.NameTower(9, 4)
    model = c.DualEncoder(see, read, temperature=0.1, bias=-3.0)
    x, ids = torch.randn(3, 6), torch.tensor([[1, 2], [3, 0]])
    cosines = F.cosine_similarity(see(x)[:, None], read(ids)[None], dim=-1)
    torch.testing.assert_close(model(x, ids), 10 * cosines - 3)
    assert c.DualEncoder(see, read).bias is None


def small():
    torch.manual_seed(0)
    return c.DualEncoder(e.PictureTower(4, 8), c.NameTower(40, 8))


def pairs():
    torch.manual_seed(1)
    ids = torch.randint(1, 40, (24, 5))
    return torch.rand(24, 3, 32, 32), ids, torch.arange(24)


@pytest.mark.parametrize("near", [None, torch.arange(24).roll(1)[:, None]])
def test_training_lowers_the_loss_and_repeats(near):
    runs = []
    for _ in range(2):
        model = small()
        runs.append(c.train_pairs(model, pairs(), steps=25, size=16, near=near))
    assert runs[0] == runs[1]
    assert sum(runs[0][-5:]) < 0.8 * sum(runs[0][:5])


def test_equal_numbers_and_the_loss_reach_training():
    seen = []

    def loss(z, same):
        seen.append(same)
        return c.info_nce(z, same) * 0 + 7

    x, ids, _ = pairs()
    number = torch.arange(24) // 2
    data = x, ids, number
    assert c.train_pairs(small(), data, steps=3, size=24, loss=loss) == [7, 7, 7]
    assert len(seen) == 3 and all(m.shape == (24, 24) for m in seen)
    assert all((m.sum(1) == 2).all() and m.diagonal().all() for m in seen)


def test_equal_things_change_what_is_learnt():
    x, ids, number = pairs()
    a = c.train_pairs(small(), (x, ids, number), steps=2, size=24)
    b = c.train_pairs(small(), (x, ids, number // 2), steps=2, size=24)
    assert b[0] < a[0] - 0.01


def test_pictures_are_augmented_and_names_are_not():
    seen = []

    def see(x):
        seen.append(x)
        return x.flatten(1)[:, :8]

    generators = []

    def augment(x, generator):
        generators.append(generator)
        return torch.full_like(x, 0.25)

    model = small()
    model.see.forward = see
    c.train_pairs(model, pairs(), steps=2, size=8, augment=augment)
    assert all((x == 0.25).all() and len(x) == 8 for x in seen)
    assert len(seen) == 2 and generators[0].initial_seed() == 0


def test_hard_batches_are_used_where_near_names_are_given():
    sizes = []

    def loss(z, same):
        sizes.append(len(z))
        return c.info_nce(z, same)

    near = torch.zeros(24, 1, dtype=torch.long)  # all have the same friend
    c.train_pairs(small(), pairs(), steps=3, size=16, near=near, loss=loss)
    c.train_pairs(small(), pairs(), steps=1, size=16, loss=loss)
    assert max(sizes[:3]) <= 16 // 4 + 1 and sizes[3] == 16


def test_another_seed_meets_other_batches():
    runs = [c.train_pairs(small(), pairs(), steps=3, size=8, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1] and runs[0] != runs[2]


def test_gradients_are_clipped_and_the_last_ones_stay():
    def steep(z, same):
        return 1e5 * c.info_nce(z, same)

    model = small()
    c.train_pairs(model, pairs(), steps=2, size=16, loss=steep)
    grads = [p.grad for p in model.parameters()]
    norm = torch.stack([g.norm() for g in grads]).norm()
    torch.testing.assert_close(norm, torch.tensor(1.0), atol=1e-3, rtol=0)


def test_the_rate_warms_up_and_falls_and_matrices_alone_decay(monkeypatch):
    from mmcourse.training import warmup_cosine

    rates, decays = [], set()

    def step(model, optimizer, value):
        rates.append(optimizer.param_groups[0]["lr"])
        for group in optimizer.param_groups:
            for p in group["params"]:
                decays.add((p.ndim > 1, group["weight_decay"]))
        return value.item()

    monkeypatch.setattr(c, "descend_once", step)
    c.train_pairs(small(), pairs(), steps=20, size=8)
    assert rates == pytest.approx([3e-3 * warmup_cosine(k, 20) for k in range(20)])
    assert rates[0] < max(rates) > rates[-1]
    assert decays == {(True, 0.05), (False, 0.0)}


def test_all_vectors_are_those_of_one_batch():
    model, (x, ids, _) = small(), pairs()
    u, v = e.embed_all(model, x, ids, batch_size=7)
    assert model.training
    model.eval()
    torch.testing.assert_close(u, model.image_vectors(x))
    torch.testing.assert_close(v, model.text_vectors(ids))
    torch.testing.assert_close(u.norm(dim=1), torch.ones(24))


@pytest.mark.parametrize("change", [e.moved, e.restyle])
def test_augmented_pictures_stay_on_white(change):
    x = torch.ones(3, 3, 32, 32)
    x[:, :, 12:20, 12:20] = torch.rand(3, 3, 1, 1)
    y = change(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    torch.testing.assert_close(y[:, :, :4, :4], torch.ones(3, 3, 4, 4))
    assert not torch.allclose(x, y, atol=0.05)


# search
def test_ranks_by_hand():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.2, 0.1], [0.3, 0.2, 0.1]])
    right = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 1]]).bool()
    ranks = c.first_ranks(scores, right)
    assert ranks.tolist() == [2, 2, 3]  # a tie counts against
    assert c.recall_at(ranks, 2) == pytest.approx(2 / 3)
    assert c.mean_reciprocal_rank(ranks) == pytest.approx((0.5 + 0.5 + 1 / 3) / 3)


def test_what_is_no_number_is_found_last():
    scores = torch.tensor([[math.nan, 1.0, 2.0], [0.0, math.nan, 3.0]])
    right = torch.tensor([[1, 0, 0], [0, 0, 1]]).bool()
    assert c.first_ranks(scores, right).tolist() == [3, 2]


def test_equal_drawings_are_equally_right():
    u = torch.eye(3)[[0, 0, 1, 2]]
    v = torch.eye(3)[[0, 1, 1, 2]]
    drawing = torch.tensor([0, 0, 1, 2])
    rows = torch.arange(4)
    found = e.search_both(u, v, drawing, rows)
    assert found["picture → name"].tolist() == [1, 1, 2, 1]
    assert found["name → picture"].tolist() == [1, 3, 1, 1]
    among = e.search_both(u, v, drawing, rows[3:], rows)
    assert [r.tolist() for r in among.values()] == [[1], [1]]


def test_halves_are_searched_alone_and_put_back():
    g = torch.Generator().manual_seed(3)
    u, v = F.normalize(torch.randn(2, 30, 5, generator=g), dim=-1)
    rows, drawing = torch.arange(4, 24), torch.arange(30)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    found = e.search_halves(u, v, drawing, rows)
    for half in order.chunk(2):
        alone = e.search_both(u, v, drawing, rows[half])
        for way, ranks in alone.items():
            assert torch.equal(found[way][half], ranks)


# prompts, languages, the gap, hubs
def test_a_class_is_the_mean_direction_of_its_prompts():
    model = small()
    prompts = {"a": ["red car", "car"], "b": ["sky"]}
    found = c.class_vectors(model, prompts)
    with torch.no_grad():
        v = model.text_vectors(c.part_ids(["red car", "car", "sky"], 40))
    torch.testing.assert_close(found[0], F.normalize(v[0] + v[1], dim=0))
    torch.testing.assert_close(found[1], v[2])


def test_parts_of_a_chinese_name():
    assert e.sign_parts("红 心") == ["^", "红", "心", "$", "^红", "红心", "心$"] + [
        "^红心",
        "红心$",
        "^红心$",
    ]


def test_the_gap_by_hand_and_closed():
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    v = torch.tensor([[-1.0, 0.0], [0.0, -1.0]])
    assert c.modality_gap(u, v) == pytest.approx(2**0.5)
    wanted = torch.tensor([[0.5, -0.5], [-0.5, 0.5]]) * 2**0.5
    torch.testing.assert_close(c.gap_closed(u, u), wanted)
    torch.testing.assert_close(c.gap_closed(v, v), -wanted)


def test_how_often_each_is_found():
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    assert c.times_found(scores, 1).tolist() == [2, 0, 0, 0]
    assert c.times_found(scores, 2).tolist() == [2, 1, 1, 0]


def test_csls_by_hand():
    u, v = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    others = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    near = torch.tensor([0.5, 0.7])  # the means of the two largest
    none = torch.zeros(2, 3, dtype=torch.bool)
    torch.testing.assert_close(c.csls(u, v, others, none, k=2), 2 * u @ v.T - near)
    own = torch.tensor([[True, False, False], [False, True, False]])
    near = torch.tensor([-0.5, 0.0])  # (0 − 1) / 2 and (0.6 − 0.6) / 2
    torch.testing.assert_close(c.csls(u, v, others, own, k=2), 2 * u @ v.T - near)


def test_a_hub_loses_by_csls():
    "A name that is near to all pictures is right for one of them alone."
    u = F.normalize(torch.tensor([[1.0, 0.3], [1.0, 0.0], [1.0, -0.3]]), dim=1)
    v = F.normalize(torch.tensor([[1.0, 0.9], [1.0, 0.0], [1.0, -0.9]]), dim=1)
    none = torch.zeros(3, 3, dtype=torch.bool)
    assert (u @ v.T).argmax(1).tolist() == [1, 1, 1]
    assert c.csls(u, v, u, none, k=2).argmax(1).tolist() == [0, 1, 2]


def test_the_other_styles_are_test_emoji():
    characters, pixels = e.other_styles()
    assert set(pixels) == {"noto", "fluent"} and len(set(characters)) == 314
    signs = emoji(32)
    assert {*characters} <= {*signs["emoji"][signs["split"] == "test"]}
    for x in pixels.values():
        assert x.shape == (314, 3, 32, 32) and x.min() >= 0 and x.max() == 1
        assert (x[:, :, 0, 0] > 0.9).all(1).float().mean() > 0.9  # on white


def test_what_autograd_keeps_is_counted():
    x = torch.ones(100, requires_grad=True)
    value, size = e.kept_for_later(lambda: (x.exp() * 2).sum())
    assert size == 400 and value.item() == pytest.approx(200 * 2.718281828, rel=1e-5)


def test_a_batch_has_room_for_one_and_its_friends():
    near = torch.arange(9).roll(1)[:, None]
    g = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="size: expected a whole number from 4, got 3"):
        c.hard_batch(near, 3, g)
    assert len(c.hard_batch(near, 4, g)) == 2
    with pytest.raises(ValueError, match="from 8, got 4"):
        c.hard_batch(near, 4, g, friends=7)


@pytest.mark.parametrize(
    ("run", "error", "why"),
    [
        (lambda: c.part_ids("red car", 50), TypeError, "names: expected a list"),
        (lambda: c.part_ids(["red car"], 1), ValueError, "size: expected a whole"),
        (
            lambda: c.class_vectors(small(), {"a": "red car"}),
            TypeError,
            "names: expected a list",
        ),
        (
            lambda: c.first_ranks(torch.ones(2, 2), torch.eye(2)[[0, 0]].bool().T),
            ValueError,
            "right: expected at least one right answer in each row",
        ),
        (
            lambda: small().see(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)),
            ValueError,
            "pixels: expected floats of shape .* got Tensor torch.uint8",
        ),
        (
            lambda: small().see(torch.zeros(2, 3, 64, 64)),
            ValueError,
            r"pixels: expected floats of shape \(B, 3, 32, 32\)",
        ),
    ],
)
def test_what_comes_in_is_looked_at(run, error, why):
    with pytest.raises(error, match=why):
        run()


def test_batches_by_chance_or_with_friends():
    rows = c.batch_rows(9, None, 4, torch.Generator().manual_seed(0))
    assert len(set(rows.tolist())) == 4 and rows.max() < 9
    near = torch.arange(9).roll(1)[:, None]
    rows = c.batch_rows(9, near, 8, torch.Generator().manual_seed(0))
    wanted = c.hard_batch(near, 8, torch.Generator().manual_seed(0))
    assert torch.equal(rows, wanted)


# CLIP and SigLIP
def both_configs(heads, width, depth, hidden, patch, grid, act, legacy):
    import transformers

    part = {
        "hidden_size": heads * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        "hidden_act": act,
    }
    text = part | {"vocab_size": 30, "max_position_embeddings": 7}
    text |= {"bos_token_id": 5, "eos_token_id": 2 if legacy else 11}
    vision = part | {"image_size": patch * grid, "patch_size": patch}
    clip = transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=6
    )
    siglip = transformers.SiglipConfig(text_config=text, vision_config=vision)
    return (
        (c.CLIP, transformers.CLIPModel(clip)),
        (c.SigLIP, transformers.SiglipModel(siglip)),
    )


def texts(seed):
    "Two texts; the end (11) is not their largest id; the second is padded."
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(12, 30, (2, 6), generator=g)
    ids[0, 5], ids[1, 3], ids[1, 4:] = 11, 11, 1
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    return ids, mask


@given(
    heads=st.integers(1, 3),
    width=st.integers(2, 4),
    depth=st.integers(1, 2),
    hidden=st.integers(3, 12),
    patch=st.integers(2, 4),
    grid=st.integers(1, 3),
    act=st.sampled_from(["quick_gelu", "gelu", "gelu_pytorch_tanh"]),
    legacy=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=10, deadline=None)
def test_they_are_transformers(
    heads,
    width,
    depth,
    hidden,
    patch,
    grid,
    act,
    legacy,
    masked,
    seed,
    tmp_path_factory,
):
    pytest.importorskip("transformers")
    torch.manual_seed(seed)
    ids, mask = texts(seed)
    mask = mask if masked else None
    x = torch.randn(3, 3, patch * grid, patch * grid)
    large = torch.randn(1, 3, patch * (grid + 1), patch * (grid + 2))
    configs = both_configs(heads, width, depth, hidden, patch, grid, act, legacy)
    for kind, theirs in configs:
        theirs.eval()
        for p in theirs.parameters():
            torch.nn.init.normal_(p, 0, 0.3)
        folder = tmp_path_factory.mktemp("pair")
        theirs.save_pretrained(folder)
        ours = kind.from_pretrained(folder)
        asked = {"input_ids": ids, "attention_mask": mask}
        a = ours(x, ids, None if mask is None else mask.bool())
        b = theirs(pixel_values=x, **asked).logits_per_image
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        up = torch.randn_like(a)
        (a * up).sum().backward()
        (b * up).sum().backward()
        check_gradients(ours, theirs)
        asked = {"pixel_values": large, **asked}
        b = theirs(**asked, interpolate_pos_encoding=True).logits_per_image
        a = ours(large, ids, None if mask is None else mask.bool())
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def check_gradients(ours, theirs):
    grads = w.pair_weights_of(published(theirs)[1])
    for name, p in ours.named_parameters():
        wanted = grads[name].reshape(p.shape)
        scale = 1 + wanted.abs().max()
        torch.testing.assert_close(p.grad / scale, wanted / scale, atol=1e-4, rtol=0)


def folder_of(name, tmp_path, change):
    folder = tmp_path / name
    shutil.copytree(data_path(f"published/{name}"), folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for part, more in change.items():
        new = config[part] | more if isinstance(more, dict) else more
        config[part] = new
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("clip", {"model_type": "siglip"}, "expected 'clip', got 'siglip'"),
        ("clip", {"text_config": {"hidden_act": "mish"}}, "hidden_act"),
        ("clip", {"text_config": {"num_hidden_layers": 3}}, "is missing there"),
        ("clip", {"vision_config": {"num_hidden_layers": 1}}, "is unknown here"),
        ("clip", {"projection_dim": 5}, "'see.project.weight' is"),
        ("clip", {"vision_config": {"model_type": "x"}}, "model_type"),
        ("siglip", {"vision_config": {"vision_use_head": False}}, "vision_use_head"),
        ("siglip", {"text_config": {"projection_size": 5}}, "'read.project.weight' is"),
        ("siglip", {"vision_config": {"image_size": 12}}, "'see.positions' is"),
        ("clip", {"text_config": {"num_attention_heads": 0}}, "num_attention_heads"),
        ("clip", {"text_config": {"num_attention_heads": 3}}, "a divisor of hidden"),
        ("clip", {"text_config": {"hidden_size": "x"}}, "hidden_size: expected a"),
        ("clip", {"vision_config": {"patch_size": 0}}, "patch_size: expected a"),
        ("clip", {"vision_config": {"layer_norm_eps": None}}, "layer_norm_eps"),
        ("siglip", {"text_config": {"layer_norm_eps": 0}}, "layer_norm_eps"),
        ("siglip", {"text_config": {"vocab_size": None}}, "vocab_size: expected a"),
        ("siglip", {"text_config": {"projection_size": 2.5}}, "projection_size"),
        ("clip", {"text_config": {"eos_token_id": None}}, "eos_token_id: expected"),
        ("clip", {"text_config": {"eos_token_id": 20}}, "a token from 0 to 19, got 20"),
        ("clip", {"projection_dim": None}, "projection_dim: expected a whole"),
        ("clip", {"text_config": [1]}, "text_config: expected an object"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, name, change, why):
    kind = {"clip": c.CLIP, "siglip": c.SigLIP}[name]
    with pytest.raises(CheckpointError, match=why):
        kind.from_pretrained(folder_of(name, tmp_path, change))


def test_a_second_word_on_the_towers_counts(tmp_path):
    whole = json.loads(data_path("published/clip/config.json").read_text("utf-8"))
    change = {
        "text_config": {"hidden_size": 999},
        "vision_config": {"patch_size": 7},
    }
    folder = folder_of("clip", tmp_path, change)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    for part in ("text", "vision"):
        config[f"{part}_config_dict"] = whole[f"{part}_config"]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert c.CLIP.from_pretrained(folder).read.words.weight.shape == (20, 8)


def test_what_a_configuration_leaves_out_is_usual():
    for kind, d, act in (
        ("clip", 512, "quick_gelu"),
        ("siglip", 768, "gelu_pytorch_tanh"),
    ):
        t = w.tower_config({"model_type": kind}, "text", "here")
        assert (t["hidden_size"], t["hidden_act"]) == (d, act)
    assert w.tower_config({"model_type": "clip"}, "vision", "here")["patch_size"] == 32


@pytest.mark.parametrize(
    ("pixels", "ids", "mask", "why"),
    [
        ((1, 3, 8, 8), [[6, 20]], None, "ids: expected tokens 0 to 19, got 6 to 20"),
        ((1, 3, 8, 8), [[-1, 19]], None, "ids: expected tokens 0 to 19, got -1"),
        ((1, 3, 8, 8), [[]], None, "ids: expected at least one value"),
        ((1, 3, 8, 8), [[6] * 6 + [19]], None, "ids: expected at most 6 tokens, got 7"),
        ((1, 3, 8, 8), [[6, 3]], None, "ids: expected the end token 19"),
        ((1, 3, 8, 8), [[6, 19]], [[1, 1, 0]], "mask: expected shape"),
        ((1, 1, 8, 8), [[6, 19]], None, "pixels: expected"),
        ((1, 3, 9, 8), [[6, 19]], None, "pixels: expected"),
    ],
)
def test_what_cannot_be_read_is_named(pixels, ids, mask, why):
    clip = c.CLIP.from_pretrained(data_path("published/clip"))
    ids = torch.tensor(ids, dtype=torch.long)
    mask = None if mask is None else torch.tensor(mask)
    with pytest.raises(ValueError, match=why):
        clip(torch.zeros(pixels), ids, mask)


def test_siglips_pictures_in_whole_patches():
    siglip = c.SigLIP.from_pretrained(data_path("published/siglip"))
    with pytest.raises(ValueError, match="pixels: expected"):
        siglip(torch.zeros(1, 3, 8, 10), torch.tensor([[3]]))


def test_the_end_of_a_text():
    ids = torch.tensor([[7, 9, 3, 9], [9, 7, 7, 7]])
    assert c.end_of_text(ids, 9).tolist() == [1, 0]
    assert c.end_of_text(torch.tensor([[7, 8, 2, 2]]), 2).tolist() == [1]


# what the pages give the chapter
@pytest.mark.parametrize(
    ("name", "kind", "tone"),
    [
        ("woman: dark skin tone", "one tone", "dark skin tone"),
        ("people wrestling: dark skin tone, light skin tone", "two tones", ""),
        ("woman: medium skin tone, curly hair", "one tone", ""),
        ("woman genie", "person", ""),
        ("manual wheelchair", "thing", ""),
    ],
)
def test_what_a_name_is_made_of(name, kind, tone):
    assert e.kind_of_name(name) == kind
    assert e.tone_of(name) == tone
    assert not tone or tone in e.TONES


def test_a_table_of_searches():
    ranks = torch.tensor([1, 2, 9, 1])
    (row,) = e.search_rows({"4 pairs": {"picture → name": ranks}})
    assert (row["R@1 (%)"], row["R@5 (%)"]) == (50, 75)
    assert row["MRR"] == pytest.approx((1 + 0.5 + 1 / 9 + 1) / 4)


def test_the_sizes_of_a_published_pair():
    see, read = w.pair_options(data_path("published/clip"), "clip")
    assert see["dim"] == read["dim"] == 6 and read["eos"] == 19
    see, read = w.pair_options(data_path("published/siglip"), "siglip")
    assert read["dim"] == see["d"] and "eos" not in read


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("woman dancing medium-dark skin tone", "woman dancing"),
        ("woman: medium-light skin tone, curly hair", "woman, curly hair"),
        ("kiss man man light skin tone dark skin tone", "kiss man man"),
        ("dark chocolate", "dark chocolate"),
    ],
)
def test_a_name_without_its_tones(name, rest):
    assert e.without_tones(name) == rest


def test_rows_of_searches():
    n = len(e.families())
    ones = torch.ones(n, dtype=torch.long)
    half = torch.arange(n) % 2 + 1
    found = {"a": {"x → y": ones}, "b": {"x → y": half}}
    first, second = e.found_rows(found, "a")
    assert first == {"R@1 (%)": "a", "x → y": "100.0", "x → y: − a": ""}
    assert second["x → y"] == "50.0"
    assert second["x → y: − a"].startswith("-50.0 (")


def test_rows_of_the_study():
    rows = e.arm_rows({"live": "short", "shipped": "long"}, "live")
    assert [r["R@1 (%)"] for r in rows] == ["short", "long"]
    assert rows[0]["− short"] == "" and rows[1]["− short"].startswith("+")
    way = e.WAYS[0]
    hits = e.first_hits("live", ways=[way])
    assert rows[0][way].startswith(f"{100 * hits.mean():.1f} ±")
    some = np.arange(788) < 100
    wanted = f"{100 * hits[:, some].mean():.1f} ±"
    assert e.shares("live", rows=some)[way].startswith(wanted)
    assert len(e.families()) == 788 and len(e.families("noto")) == 314


def test_the_study_is_whole():
    for arm in ("live", "shipped", *e.RECIPES):
        assert e.first_hits(arm).shape == (3, 2 * 788)
    for arm in e.LEARNT_FROM:
        assert e.first_hits(arm, "noto").shape == (3, 2 * 314)
        assert e.first_hits(arm, "all", ["name → picture"]).shape == (3, 788)
    assert len(e.tune_rows()) == 5


def test_the_slider_of_temperatures_tells_who_is_pushed():
    page = temperature_slider({"a": 1.0, "b": 0.0, "c": -1.0})._repr_html_()
    labels = re.findall('aria-label="(.*?)"', page)
    assert len(labels) == 8
    believed = 1 / (1 + math.exp(-1) + math.exp(-2))
    assert labels[0] == (
        f"Temperature 1: a is believed with {believed:.3f}; of all that is pushed "
        "away, b gets 73 %."
    )
    assert labels[-1].endswith("b gets 100 %.")
