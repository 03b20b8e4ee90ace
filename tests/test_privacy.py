"Privacy: by hand, by law, and as cryptography and opacus do."

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse.classifiers import AudioNet, ImageNet28
from mmcourse.measure import seeded
from mmcourse.privacy import (
    Ledger,
    Shards,
    area_under,
    attack_rates,
    average_states,
    blur,
    epsilon_spent,
    equal_error,
    federated,
    find_private,
    found_at,
    gradient_of,
    invert_gradient,
    key_stream,
    lira,
    only_granted,
    per_example_gradients,
    picture_in_gradient,
    poly1305,
    private_mean,
    pseudonym,
    renyi_of,
    replace_private,
    resident_id_ok,
    seal,
    shard_of,
    train_private,
    true_margin,
    unseal,
    xor,
)
from mmcourse.privacy_tools import (
    HEAD,
    LockedError,
    beside,
    beside_opacus,
    blind_lira,
    drawn_faces,
    faces_found,
    find_faces,
    hide_faces,
    leaky_net,
    library_cipher,
    lock_file,
    noise_for,
    opacus_epsilon,
    opacus_gradients,
    random_halves,
    spoilt,
    unlock_file,
    without_batch_norm,
)
from mmcourse.private_text import made_id, made_messages, privacy_hits
from mmcourse.store import data_path, kept_runs
from mmcourse.training import mlp

RFC = {
    "key": bytes(range(0x80, 0xA0)),
    "nonce": bytes.fromhex("070000004041424344454647"),
    "about": bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
}
SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip "
    b"for the future, sunscreen would be it."
)


# encryption
def test_the_stream_of_the_standard():  # RFC 8439, 2.3.2
    found = key_stream(
        bytes(range(32)), bytes.fromhex("000000090000004a00000000"), 64, 1
    )
    assert found.hex().startswith("10f1e7e4d13b5915500fdd1fa32071c4")
    assert found.hex().endswith("b5129cd1de164eb9cbd083e8a2503c4e")


def test_the_tag_of_the_standard():  # 2.5.2
    key = "85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b"
    found = poly1305(bytes.fromhex(key), b"Cryptographic Forum Research Group")
    assert found.hex() == "a8061dc1305136c6c22b8baf0c0127a9"


def test_the_sealed_message_of_the_standard():  # 2.8.2
    sealed = seal(RFC["key"], RFC["nonce"], SUNSCREEN, RFC["about"])
    assert sealed[:4].hex() == "d31a8d34"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


@given(st.binary(max_size=300), st.binary(max_size=40), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_sealed_bytes_are_the_librarys(data, about, seed):
    rng = np.random.default_rng(seed)
    key, nonce = rng.bytes(32), rng.bytes(12)
    sealed = seal(key, nonce, data, about)
    assert unseal(key, nonce, sealed, about) == data
    if theirs := library_cipher():
        assert theirs[0](key, nonce, data, about) == sealed


def test_every_bit_of_what_is_sealed_counts():
    args = RFC["key"], RFC["nonce"]
    sealed = seal(*args, b"three", b"about")
    for i in range(8 * len(sealed)):
        bad = bytearray(sealed)
        bad[i // 8] ^= 1 << i % 8
        with pytest.raises(ValueError, match="tag"):
            unseal(*args, bytes(bad), b"about")
    for other in ((*args, sealed, b"abouT"), (bytes(32), args[1], sealed, b"about")):
        with pytest.raises(ValueError, match="tag"):
            unseal(*other)
    with pytest.raises(ValueError, match="tag"):
        unseal(*args, sealed[:-1], b"about")


def test_a_stream_goes_on_where_it_stopped():
    key, nonce = RFC["key"], RFC["nonce"]
    whole = key_stream(key, nonce, 1000)
    assert whole[640:] == key_stream(key, nonce, 360, start=10)
    assert xor(xor(b"abc", whole[:3]), whole[:3]) == b"abc"


def test_a_locked_file_says_what_is_wrong(tmp_path):
    path = tmp_path / "a.locked"
    lock_file(path, b"voices" * 50, "secret")
    assert unlock_file(path, "secret") == b"voices" * 50
    assert b"voices" not in path.read_bytes()
    wanted = {
        "wrong password": "wrong password",
        "one bit flipped": "content was changed",
        "cut short": f"expected {HEAD + 316} bytes, got {HEAD + 311}",
        "another file": "expected a locked file",
    }
    cases = spoilt(path, "secret")
    assert set(cases) == set(wanted)
    for name, (file, password) in cases.items():
        with pytest.raises(LockedError, match=wanted[name]):
            unlock_file(file, password)


@pytest.mark.parametrize("place", [0, 8, 24, 36, 44, HEAD, -1])
def test_no_byte_of_a_locked_file_may_change(tmp_path, place):
    path = tmp_path / "a.locked"
    lock_file(path, b"x" * 20, "secret")
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(LockedError):
        unlock_file(path, "secret")


def test_nothing_half_is_written(tmp_path):
    path = tmp_path / "a.locked"
    lock_file(path, b"old", "secret")

    def breaks(*args):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        lock_file(path, b"new", "secret", breaks)
    assert unlock_file(path, "secret") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.locked"]


def test_two_files_never_share_a_nonce(tmp_path):
    for name in "ab":
        lock_file(tmp_path / name, b"same", "secret")
    a, b = ((tmp_path / n).read_bytes() for n in "ab")
    assert a[8:36] != b[8:36] and a[HEAD:] != b[HEAD:]


def test_ours_and_the_librarys_open_each_others_files(tmp_path):
    theirs = library_cipher()
    if not theirs:
        pytest.skip("needs cryptography")
    path = tmp_path / "a"
    lock_file(path, b"data", "pw", theirs[0])
    assert unlock_file(path, "pw") == b"data"
    lock_file(path, b"data", "pw")
    assert unlock_file(path, "pw", theirs[1]) == b"data"
    file, _ = spoilt(path, "pw")["one bit flipped"]
    with pytest.raises(LockedError, match="changed"):
        unlock_file(file, "pw", theirs[1])


# text
def said(text, **options):
    return [(p.kind, text[p.start : p.end]) for p in find_private(text, **options)]


def test_an_id_checks_itself():
    assert resident_id_ok("11010519491231002X") and resident_id_ok("11010519491231002x")
    assert not resident_id_ok("110105194912310021")
    import random

    rng = random.Random(0)
    for _ in range(50):
        number = made_id(rng)
        assert resident_id_ok(number)
        k = rng.randrange(17)
        wrong = number[:k] + str((int(number[k]) + 1) % 10) + number[k + 1 :]
        assert not resident_id_ok(wrong)  # any one digit


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("my name is Anna Smith.", [("name", "Anna Smith")]),
        ("Please call Dr. Smith", [("name", "Smith")]),
        ("Mr. O'Brien paid 350", [("name", "O'Brien")]),
        (
            "on 138 1234 5678 or +44 20 7123 4567",
            [("phone", "138 1234 5678"), ("phone", "+44 20 7123 4567")],
        ),
        ("ID 11010519491231002X", [("id", "11010519491231002X")]),
        ("batch 202611281234567890", []),
        ("尊敬的王小明，您好", [("name", "王小明")]),
        ("请致电欧阳医生，13812345678", [("name", "欧阳"), ("phone", "13812345678")]),
        ("parcel 20481", []),
    ],
)
def test_rules_on_examples(text, wanted):
    assert said(text) == wanted


def test_eager_and_known_names():
    text = "Yesterday Grace Silva met Olga in May."
    assert said(text) == []
    assert said(text, eager=True)[-1] == ("name", "Olga")
    assert said(text, known=["Olga"]) == [("name", "Olga")]
    assert said("Olgar", known=["Olga"]) == []


def test_pieces_never_overlap_and_replacing_keeps_the_rest():
    for split in ("train", "test"):
        for m in made_messages(60, "en", split) + made_messages(60, "zh", split):
            found = find_private(m["text"], eager=True)
            ends = [0, *[p.end for p in found]]
            assert all(p.start >= e for p, e in zip(found, ends))
            done = replace_private(m["text"], b"key", eager=True)
            rest = re.sub(r"\[(name|phone|id) [0-9a-f]{6}\]", "", done)
            kept = "".join(
                m["text"][a:b]
                for a, b in zip(ends, [*[p.start for p in found], len(m["text"])])
            )
            assert rest == kept


def test_a_pseudonym_is_the_persons_and_the_keys():
    a = pseudonym(b"k", "phone", "138 1234-5678")
    assert a == pseudonym(b"k", "phone", "13812345678")
    assert a != pseudonym(b"l", "phone", "13812345678")
    assert a != pseudonym(b"k", "phone", "13812345679")
    assert "138" not in a


def test_made_messages_know_their_private_pieces():
    for language in ("en", "zh"):
        seen = {}
        for split in ("train", "valid", "test"):
            made = made_messages(40, language, split)
            for m in made:
                for a, b, kind in m["private"]:
                    assert m["text"][a:b] and kind in ("name", "phone", "id")
            seen[split] = {m["text"] for m in made}
        assert not seen["train"] & seen["test"]
    half = made_messages(1, "en", "train")
    (start, end, _), *_ = half[0]["private"]
    partly = privacy_hits(half, lambda t: [(start, end - 1, "name")])
    assert not partly["name"][0][0]  # one sign left is not hidden


# faces
def test_a_blur_keeps_the_mean_and_spreads_as_it_says():
    x = torch.zeros(41, 41)
    x[20, 20] = 1
    y = blur(x, 3.0)
    assert y.sum().item() == pytest.approx(1, abs=1e-5)
    t = torch.arange(41.0) - 20
    assert ((t**2) * y.sum(0)).sum().item() == pytest.approx(9, rel=0.05)
    flat = torch.full((2, 1, 8, 8), 0.3)
    torch.testing.assert_close(blur(flat, 5.0), flat)
    assert blur(x, 0) is x


def test_equal_error_by_hand():
    t = torch.tensor
    assert equal_error(t([2.0, 3.0]), t([0.0, 1.0])) == 0
    assert equal_error(t([0.0, 1.0]), t([2.0, 3.0])) == 1
    assert equal_error(t([1.0, 3.0, 5.0, 7.0]), t([0.0, 2.0, 0.5, 0.6])) == 0.25
    g = torch.Generator().manual_seed(0)
    same, other = torch.randn(4000, generator=g) + 1, torch.randn(4000, generator=g) - 1
    assert equal_error(same, other) == pytest.approx(0.1587, abs=0.01)  # Φ(-1)


def test_a_face_is_found_where_it_is_and_hidden_there():
    faces, _ = drawn_faces("train")
    picture = torch.ones(96, 120)
    picture[40:72, 60:92] = faces[0]
    template = faces[0] - faces[0].mean()
    template = template / template.norm()
    corners = find_faces(picture, template, 0.95)
    assert corners == [(40, 60)]
    hidden = hide_faces(picture, corners, (32, 32), 6.0)
    outside = torch.ones(96, 120, dtype=torch.bool)
    outside[40:72, 60:92] = False
    assert torch.equal(hidden[outside], picture[outside])
    assert hidden[40:72, 60:92].std() < picture[40:72, 60:92].std() / 2
    assert faces_found([(42, 58), (0, 0)], [(40, 60), (0, 80)]) == (1, 1)
    assert faces_found([(40, 60), (41, 60)], [(40, 60)]) == (1, 1)


# consent
def test_the_last_word_counts_for_its_purpose():
    ledger = Ledger()
    assert not ledger.allows("ann", "train")
    ledger.add("ann", "train", True, "2026-01-01")
    ledger.add("bob", "sell", True, "2026-01-01")
    only_granted(["ann", "ann"], ledger, "train")
    ledger.add("ann", "train", False, "2026-01-02")
    assert not ledger.allows("ann", "train") and not ledger.allows("bob", "train")
    with pytest.raises(PermissionError, match="train: 2 have not agreed: ann, bob"):
        only_granted(["bob", "ann"], ledger, "train")


@pytest.mark.parametrize("k", range(3))
def test_a_changed_past_is_noticed(k):
    ledger = Ledger()
    for n in range(4):
        ledger.add(f"p{n}", "train", True, "2026-01-01")
    again = Ledger(json.loads(json.dumps(ledger.entries)))
    assert again.intact()
    again.entries[k]["granted"] = False
    assert not again.intact()
    del ledger.entries[k]
    assert not ledger.intact()


# membership
def test_a_margin_is_the_log_odds():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 60.0, 0.0]])
    p = logits.double().softmax(1)
    found = true_margin(logits, torch.tensor([0, 1]))
    assert found[0].item() == pytest.approx(math.log(p[0, 0] / (1 - p[0, 0])), abs=1e-5)
    assert found[1].item() == pytest.approx(60 - math.log(2), abs=1e-4)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_rates_are_scikit_learns(n, m, seed):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    a, b = (torch.tensor(rng.integers(0, 9, k)).float() for k in (n, m))
    wrong, right = attack_rates(a, b)
    assert wrong[0] == right[0] == 0 and wrong[-1] == right[-1] == 1
    truth = [1] * n + [0] * m
    wanted = roc_auc_score(truth, torch.cat([a, b]).numpy())
    assert area_under(wrong, right) == pytest.approx(wanted)


def test_found_at_counts_the_sure_ones():
    members, others = torch.arange(100.0) + 50, torch.arange(100.0)
    wrong, right = attack_rates(members, others)
    assert found_at(wrong, right, 0.01) == pytest.approx(0.51)
    assert found_at(wrong, right, 0.0) == pytest.approx(0.50)


def test_a_likelihood_ratio_by_hand():
    margins = torch.tensor([[1.5], [2.0], [4.0], [-1.0], [1.0]])
    inside = torch.tensor([[True], [True], [True], [False], [False]])
    found = lira(margins, inside, 0)
    # with: mean 3, variance 1; without: mean 0, variance 1
    assert found.item() == pytest.approx(-(1.5**2) / 2 + 1.5**2 / 2, abs=1e-6)
    margins[0] = 3
    assert lira(margins, inside, 0).item() == pytest.approx(4.5, abs=1e-6)


def test_the_target_does_not_teach_the_attack():
    g = torch.Generator().manual_seed(0)
    margins, inside = torch.randn(8, 40, generator=g), random_halves(8, 40)
    found = lira(margins, inside, 3)
    flipped = inside.clone()
    flipped[3] = ~flipped[3]
    torch.testing.assert_close(lira(margins, flipped, 3), found)


def test_lira_sees_hard_examples_that_a_threshold_does_not():
    g = torch.Generator().manual_seed(0)
    inside = random_halves(32, 500)
    hard = 6 * torch.randn(500, generator=g)
    margins = hard + 1.5 * inside + 0.7 * torch.randn(32, 500, generator=g)
    mine = inside[0]
    plain = area_under(*attack_rates(margins[0][mine], margins[0][~mine]))
    score = lira(margins, inside, 0)
    assert area_under(*attack_rates(score[mine], score[~mine])) > plain + 0.2


def test_halves_are_halves():
    inside = random_halves(10, 200, seed=1)
    assert (inside.sum(0) == 5).all()
    assert inside.sum(1).min() > 80 and not torch.equal(inside, random_halves(10, 200))


# unlearning
def small_shards(drop=()):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 4, generator=g), torch.arange(80) % 2
    people = np.array([f"p{k % 20}" for k in range(80)])
    keep = ~np.isin(people, list(drop))

    def learn(a, b, seed):
        with seeded(seed):
            model = mlp(4, 3, 2)
        return federated(model, [(a, b)], rounds=2, lr=0.3, seed=seed)

    return Shards(learn, (x[keep], y[keep]), people[keep], 3), x


def test_to_forget_is_never_to_have_known():
    box, x = small_shards()
    before = box.probs(x)
    old = list(box.models)
    shard = box.forget("p5")
    assert shard == shard_of("p5", 3)
    assert [a is b for a, b in zip(old, box.models)] == [k != shard for k in range(3)]
    assert not torch.equal(before, box.probs(x))
    torch.testing.assert_close(
        box.probs(x), small_shards(["p5"])[0].probs(x), rtol=0, atol=0
    )
    other = next(
        p for p in (f"p{k}" for k in range(20)) if p != "p5" and shard_of(p, 3) == shard
    )
    box.forget(other)  # the first stays forgotten
    both = small_shards(["p5", other])[0]
    torch.testing.assert_close(box.probs(x), both.probs(x), rtol=0, atol=0)


def test_shards_are_spread():
    homes = np.bincount([shard_of(f"p{k}", 4) for k in range(1000)])
    assert homes.min() > 200
    assert [shard_of("ann", 9, s) for s in range(8)] != [shard_of("ann", 9)] * 8


# differential privacy
def data(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 28, 28, generator=g), torch.randint(10, (n,), generator=g)


def nets():
    with seeded(0):
        made = {"mlp": mlp(784, 16), "leaky": leaky_net()}
        made["ImageNet28"] = without_batch_norm(ImageNet28()).eval()
    return made


@pytest.mark.parametrize("name", ["mlp", "leaky", "ImageNet28"])
def test_gradients_of_each_example(name):
    model, (x, y) = nets()[name], data()
    found = per_example_gradients(model, x, y)
    for i in range(3):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        alone = torch.autograd.grad(loss, list(model.parameters()))
        for g, (key, _) in zip(alone, model.named_parameters()):
            torch.testing.assert_close(found[key][i], g, rtol=1e-4, atol=1e-6)
    if name != "ImageNet28":
        pytest.importorskip("opacus")
        theirs = opacus_gradients(model, x, y)
        assert set(theirs) == set(found)
        for k, g in found.items():
            torch.testing.assert_close(g, theirs[k], rtol=1e-5, atol=1e-5)


def test_a_private_mean_by_hand():
    grads = {
        "w": torch.tensor([[3.0, 0.0], [0.0, 0.2]]),
        "b": torch.tensor([[4.0], [0.1]]),
    }
    g = torch.Generator()
    found = private_mean(grads, 1.0, 0.0, 4, g)
    torch.testing.assert_close(found["w"], torch.tensor([0.6, 0.2]) / 4)
    torch.testing.assert_close(found["b"], torch.tensor([0.8 + 0.1]) / 4)
    many = {"w": torch.zeros(1, 20000)}
    noisy = private_mean(many, 3.0, 2.0, 5, g.manual_seed(0))["w"]
    assert noisy.std().item() == pytest.approx(3 * 2 / 5, rel=0.02)


def test_no_example_moves_a_sum_by_more_than_the_clip():
    model, (x, y) = nets()["mlp"], data(8)
    g = torch.Generator()

    def total(rows):
        grads = per_example_gradients(model, x[rows], y[rows])
        mean = private_mean(grads, 0.3, 0.0, 1, g)
        return torch.cat([m.flatten() for m in mean.values()])

    everyone = total(slice(0, 8))
    for k in range(8):
        rows = [i for i in range(8) if i != k]
        assert (everyone - total(rows)).norm() <= 0.3 + 1e-5


def test_training_draws_batches_by_chance():
    model, (x, y) = nets()["mlp"], data(40)
    start = {k: p.detach().clone() for k, p in model.named_parameters()}
    train_private(model, x, y, rate=1.0, steps=1, clip=1e6, noise=0.0, lr=0.5)
    grads = per_example_gradients(mlp_like(start), x, y)
    for k, p in model.named_parameters():
        torch.testing.assert_close(
            p, start[k] - 0.5 * grads[k].mean(0), atol=1e-5, rtol=1e-4
        )


def mlp_like(state):
    model = mlp(784, 16)
    model.load_state_dict(state)
    return model


def test_an_empty_batch_is_noise_alone():
    model, (x, y) = nets()["mlp"], data(4)
    before = model[1].weight.detach().clone()
    train_private(model, x, y, rate=1e-9, steps=1, noise=1.0, lr=1e-9)
    assert not torch.equal(model[1].weight, before)


@given(
    st.floats(0.001, 0.9),
    st.floats(0.5, 8),
    st.integers(1, 3000),
    st.sampled_from([1e-5, 1e-3]),
)
@settings(max_examples=25, deadline=None)
def test_epsilon_is_opacus_s(rate, noise, steps, delta):
    pytest.importorskip("opacus")
    ours = epsilon_spent(rate, noise, steps, delta)
    theirs = opacus_epsilon(rate, noise, steps, delta, list(range(2, 64)))
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert opacus_epsilon(rate, noise, steps, delta) <= ours * 1.0001 + 1e-9


def test_the_accountant_by_hand():
    assert renyi_of(2, 1.0, 2.0) == 2 / 8
    q, s = 0.1, 1.5  # order 2: log(1 + q²(exp(1/σ²) - 1))
    wanted = math.log1p(q**2 * (math.exp(1 / s**2) - 1))
    assert renyi_of(2, q, s) == pytest.approx(wanted, rel=1e-12)
    assert renyi_of(63, 0.999999, 2.0) == pytest.approx(63 / 8, rel=1e-3)


def test_more_noise_less_spent():
    spent = [epsilon_spent(0.05, s, 100, 1e-5) for s in (0.7, 1, 2, 4)]
    assert spent == sorted(spent, reverse=True)
    assert epsilon_spent(0.05, 1, 200, 1e-5) > epsilon_spent(0.05, 1, 100, 1e-5)
    assert epsilon_spent(0.1, 1, 100, 1e-5) > epsilon_spent(0.05, 1, 100, 1e-5)
    noise = noise_for(3.0, 0.05, 100, 1e-5)
    assert epsilon_spent(0.05, noise, 100, 1e-5) == pytest.approx(3, abs=1e-6)


def test_group_norm_where_batch_norm_was():
    for net in (ImageNet28(), AudioNet()):
        kinds = [type(m).__name__ for m in without_batch_norm(net).modules()]
        assert not any("BatchNorm" in k for k in kinds) and "GroupNorm" in kinds


def test_group_norm_is_opacus_s():
    validators = pytest.importorskip("opacus.validators")
    theirs = validators.ModuleValidator.fix(ImageNet28())
    ours = without_batch_norm(ImageNet28())
    shapes = [
        [
            (m.num_groups, m.num_channels)
            for m in net.modules()
            if isinstance(m, nn.GroupNorm)
        ]
        for net in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


# federated
def test_a_mean_of_models_is_weighted():
    a, b = {"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([4.0, 1.0])}
    assert average_states([a, b], [3, 1])["w"].tolist() == [1, 1]


@pytest.mark.parametrize("cuts", [(6,), (2, 4), (1, 1, 4)])
def test_one_full_step_each_is_one_step_together(cuts):
    x, y = data(6)
    parts = list(zip(x.split(cuts), y.split(cuts)))
    ends = []
    for clients in (parts, [(x, y)]):
        model = nets()["leaky"]
        federated(model, clients, rounds=4, lr=0.3, batch_size=100)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_every_client_starts_each_round_from_the_common_model():
    x, y = data(8)
    client = x[:4], y[:4]
    ends = []
    for clients in ([client], [client, client, client]):
        model, rounds = nets()["mlp"], []
        how = {"rounds": 2, "lr": 0.2, "batch_size": 100}
        federated(
            model, clients, on_round=lambda m, r, seen=rounds: seen.append(r), **how
        )
        assert rounds == [0, 1]
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


# gradients
def test_a_dense_layer_gives_its_input_away():
    model, (x, y) = nets()["mlp"], data(1)
    sent = gradient_of(model, x, y)
    torch.testing.assert_close(
        picture_in_gradient(*sent[:2]).view_as(x[0]), x[0], rtol=1e-3, atol=1e-4
    )


def test_a_picture_is_found_by_search_and_not_under_noise():
    from mmcourse.datasets import mnist

    x = torch.tensor(mnist("test")["image"])[:1, None]
    y = torch.tensor(mnist("test")["label"])[:1]
    net = nets()["leaky"]
    sent = gradient_of(net, x, y)

    def like(found):
        return torch.corrcoef(torch.stack([found.flatten(), x.flatten()]))[0, 1]

    assert like(invert_gradient(net, sent, y, x.shape, steps=80)) > 0.9
    g = torch.Generator().manual_seed(0)
    size = torch.cat([s.flatten() for s in sent]).pow(2).mean().sqrt()
    noisy = [s + 30 * size * torch.randn(s.shape, generator=g) for s in sent]
    assert like(invert_gradient(net, noisy, y, x.shape, steps=80)) < 0.5


# what was measured
def test_the_results_hold_what_the_chapter_reads():
    kept = json.loads(data_path("results/privacy.json").read_text("utf-8"))
    about = kept["about"]
    assert about["about"] == "chapter 31"
    faces = kept_runs("privacy", "faces/blur 16/knows")
    assert len(faces) == 5 and all(0 <= f["eer"] <= 1 for f in faces)
    for modality in ("image", "text", "audio"):
        for pool in kept_runs("privacy", f"member/{modality}"):
            assert {len(v) for row in pool.values() for v in row.values()} <= {8, 16}


def test_lira_finds_nothing_in_noise():
    assert blind_lira(64, 300, 1) == pytest.approx(0.5, abs=0.02)
    assert blind_lira(4, 300, 4) < blind_lira(64, 300, 1)  # fewer shadows that saw it


@pytest.mark.parametrize("there", [True, False])
def test_epsilon_is_shown_without_opacus_too(monkeypatch, capsys, there):
    if there:
        pytest.importorskip("opacus")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    beside_opacus(mlp(784, 4), *data(3), 0.1, 50)
    said = capsys.readouterr().out
    assert f"σ = 1.0: ε = {epsilon_spent(0.1, 1.0, 50, 1e-5):.3f}" in said
    assert ("opacus with its own orders" in said) is there
    assert ("not installed" in said) is not there


def test_a_difference_is_taken_on_the_same_examples():
    a, b = np.array([[1.0, 1, 0, 1]] * 3), np.array([[1.0, 0, 0, 1]] * 3)
    (text,) = beside("b", a, b).values()
    assert text.startswith("25.0 (0.0 to")
    assert beside("a", a, a) == {"beside a (points)": "–"}
