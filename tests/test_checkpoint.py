"Files that come back bit by bit, and files that are refused."

import json
import math
import random
import struct
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcourse import checkpoint
from mmcourse.checkpoint import (
    CheckpointError,
    fingerprint,
    grow,
    load_checkpoint,
    read_tensors,
    refuse,
    resume_run,
    rng_state,
    save_checkpoint,
    save_run,
    set_rng_state,
    shipped_state,
    shrink,
    write_tensors,
)
from mmcourse.measure import seeded

torch.set_num_threads(1)
X = torch.arange(12.0).reshape(4, 3) / 12


def net(seed=1):
    with seeded(seed):
        return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def step(m, opt, times=1):
    for _ in range(times):
        opt.zero_grad()
        m(X).square().sum().backward()
        opt.step()


def saved(path, **kw):
    m = net()
    opt = torch.optim.AdamW(m.parameters(), betas=(0.8, 0.9))
    step(m, opt)
    save_checkpoint(path, m, opt, about={"x": 1}, **kw)
    return m, opt


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- tensors


@pytest.mark.parametrize(
    "t",
    [
        torch.tensor(3),
        torch.zeros(0, 2),
        torch.tensor([True]),
        torch.arange(6).reshape(2, 3).T,
        torch.rand(3).bfloat16(),
        torch.rand(3, requires_grad=True),
        torch.tensor([math.nan, -0.0]),
    ],
    ids=["number", "empty", "bool", "transposed", "bfloat16", "grad", "nan"],
)
def test_any_tensor_goes_round(t, tmp_path):
    path = tmp_path / "new" / "t.safetensors"
    write_tensors(path, {"t": t, "tied": t}, {"n": [1, math.inf]})
    got, about = read_tensors(path)
    assert got["t"].dtype == t.dtype and got["t"].shape == t.shape
    assert torch.equal(got["t"].nan_to_num(), t.nan_to_num())
    assert about["n"] == [1, math.inf]
    assert [p.name for p in path.parent.iterdir()] == ["t.safetensors"]


def test_the_file_is_plain_safetensors(tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "c.safetensors"
    m, _ = saved(path)
    raw = path.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + n])
    assert header["__metadata__"]["format"] == "mmcourse.training/1"
    assert torch.equal(load_file(path)["model.2.bias"], m[2].bias)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b'{"a": 1}', b"\x00" * 100, b"PK\x03\x04" * 20]
    + [struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"{}"],
)
def test_files_of_another_kind(data, tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(data)
    says = "c.safetensors: (not a whole safetensors file|expected the format)"
    with pytest.raises(CheckpointError, match=says):
        read_tensors(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such checkpoint"):
        read_tensors(tmp_path / "nowhere")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    saved(path)
    whole = path.read_bytes()
    for n in [*range(40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:n])
        with pytest.raises(CheckpointError, match="c.safetensors"):
            read_tensors(path)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_one_changed_bit_is_noticed(tmp_path_factory, where, bit):
    path = tmp_path_factory.getbasetemp() / "bits.safetensors"
    write_tensors(path, {"w": X, "n": torch.tensor([1, 2])}, {"x": 1})
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        tensors, about = read_tensors(path)
    except CheckpointError as e:
        assert "bits.safetensors" in str(e)
    else:  # a bit that means nothing, such as padding
        assert about == {"x": 1} and torch.equal(tensors["w"], X)
        assert tensors["n"].tolist() == [1, 2]


def test_another_name_type_or_shape_changes_the_digest(tmp_path):
    from safetensors.torch import save

    path = tmp_path / "c.safetensors"
    write_tensors(path, {"w": torch.zeros(4)}, {})
    raw = path.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    meta = json.loads(raw[8 : 8 + n])["__metadata__"]
    for other in ({"v": torch.zeros(4)}, {"w": torch.zeros(2, 2)}):
        path.write_bytes(save(other, meta))
        with pytest.raises(CheckpointError, match="damaged"):
            read_tensors(path)
    path.write_bytes(save({"w": torch.zeros(4, dtype=torch.int32)}, meta))
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    saved(path)
    before = path.read_bytes()

    def full(*a):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, net(seed=5))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


# --- generators


def test_generators_come_back():
    def roll():
        np_ = np.random.rand(2).tolist(), np.random.randn()
        return torch.rand(2).tolist(), np_, random.random(), random.gauss(0, 1)

    for spare in (False, True):
        if spare:  # both keep the second of two normals
            np.random.randn(), random.gauss(0, 1)
        state = rng_state()
        first = roll()
        roll()
        set_rng_state(state)
        assert roll() == first
        assert all(isinstance(t, torch.Tensor) for t in state.values())


# --- model and optimiser


def test_save_and_load(tmp_path):
    path, g = tmp_path / "c.safetensors", torch.Generator().manual_seed(3)
    best = net(seed=4).state_dict()
    m, opt = saved(path, rng={"g": g.get_state()}, best=best)
    twin = net(seed=8)
    opt2 = torch.optim.AdamW(twin.parameters(), betas=(0.8, 0.9))
    got = load_checkpoint(path, twin, opt2)
    assert same(m, twin) and got["about"] == {"x": 1}
    assert all(torch.equal(got["best"][k], best[k]) for k in best)
    assert torch.equal(got["rng"]["g"], g.get_state())
    assert opt2.param_groups[0]["betas"] == (0.8, 0.9)
    step(m, opt, 3)
    step(twin, opt2, 3)
    assert same(m, twin)  # the moments came along
    assert load_checkpoint(path, net())["about"] == {"x": 1}


def test_nothing_more_than_weights(tmp_path):
    path, m = tmp_path / "c.safetensors", net()
    save_checkpoint(path, m)
    assert load_checkpoint(path, net(2)) == {"rng": {}, "best": None, "about": {}}


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.RMSprop])
def test_other_optimisers_go_on(make, tmp_path):
    path, m, twin = tmp_path / "c.safetensors", net(), net(2)
    opt = make(m.parameters(), lr=0.1, momentum=0.9)
    step(m, opt, 2)
    save_checkpoint(path, m, opt)
    opt2 = make(twin.parameters(), lr=0.3, momentum=0.9)
    load_checkpoint(path, twin, opt2)
    step(m, opt, 2)
    step(twin, opt2, 2)
    assert same(m, twin)


@pytest.mark.parametrize(
    "other,says",
    [
        (nn.Linear(3, 5), "'weight' is missing there"),
        (nn.Sequential(nn.Linear(3, 5)), "is unknown here; .*and [0-9]+ more"),
        (net().double(), r"is \(.*\) torch.float32 there, \(.*\) torch.float64 here"),
        (
            nn.Sequential(nn.Linear(4, 5), *net()[1:]),
            r"'0.weight' is \(5, 3\) torch.float32 there, \(5, 4\) torch.float32 here",
        ),
    ],
    ids=["names", "more", "type", "shape"],
)
def test_another_model_is_refused(other, says, tmp_path):
    path = tmp_path / "c.safetensors"
    saved(path)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"does not fit the model: .*{says}"):
        load_checkpoint(path, other)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_another_optimizer_is_refused(tmp_path):
    path, m = tmp_path / "c.safetensors", net(seed=7)
    saved(path)
    twin = net(seed=7)
    groups = [{"params": m[0].parameters()}, {"params": m[2].parameters()}]
    cases = {
        "optimizer is AdamW there, SGD here": torch.optim.SGD(m.parameters(), lr=0.1),
        r"hold \[6\] there, \[2, 2\] here": torch.optim.AdamW(groups),
    }
    for says, opt in cases.items():
        with pytest.raises(CheckpointError, match=says):
            load_checkpoint(path, m, opt)
    save_checkpoint(path, m)
    with pytest.raises(CheckpointError, match="no optimizer is saved there"):
        load_checkpoint(path, m, torch.optim.AdamW(m.parameters()))
    assert same(m, twin)


def test_refuse_lists_three():
    refuse("f", "why", [])
    with pytest.raises(CheckpointError, match="^f: why: a; b; c$"):
        refuse("f", "why", ["a", "b", "c"])
    with pytest.raises(CheckpointError, match="^f: why: a; b; c; and 2 more$"):
        refuse("f", "why", list("abcde"))


# --- runs


def test_fingerprints():
    assert fingerprint(0.1) == "0.1" and fingerprint(None) == "None"
    assert fingerprint(step) == "step" and fingerprint(torch.optim.SGD) == "SGD"
    assert fingerprint(net()) == "Sequential"  # what can be called, without a name
    assert fingerprint(partial(step, 3, opt=net)) == "step(3, opt=net)"
    x = {"a": X, "b": (torch.tensor([1]), "c")}
    assert fingerprint(x) == fingerprint({"a": X.clone(), "b": x["b"]})
    others = [X + 1e-6, X.T, X.view(torch.int32), X.double(), X.flatten()]
    assert len({fingerprint(t) for t in [X, *others]}) == 6
    assert fingerprint({"a": 1}) != fingerprint({"b": 1})


@dataclass
class History:
    loss: list = field(default_factory=list)


class Run:
    def __init__(self, seed):
        self.model = net(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.generators = {"shuffle": torch.Generator().manual_seed(seed)}
        self.history, self.best = History(), None

    def draw(self):
        return torch.rand(1), torch.rand(1, generator=self.generators["shuffle"])


def test_a_run_goes_on(tmp_path):
    path, a, b = tmp_path / "c.safetensors", Run(1), Run(2)
    a.draw()
    step(a.model, a.optimizer)
    a.history.loss.append(0.5)
    a.best = net(3).state_dict()
    settings = {"lr": 0.1, "data": X}
    save_run(path, a, settings)
    expected = a.draw()
    resume_run(path, b, settings)
    assert same(a.model, b.model) and b.history == History([0.5])
    assert torch.equal(b.best["0.bias"], a.best["0.bias"]) and b.draw() == expected
    c = Run(2)
    with pytest.raises(CheckpointError, match="another run: lr is 0.1 there, 0.2 here"):
        resume_run(path, c, settings | {"lr": 0.2})
    assert same(c.model, net(2)) and c.history == History()


# --- small files


def test_half_precision_goes_round():
    m = net()
    small = shrink(m.state_dict())
    assert small["0.weight"].dtype == torch.float16
    assert small["1.num_batches_tracked"].dtype == torch.int64
    back = grow(small)
    assert back.keys() == m.state_dict().keys()
    for k, w in m.state_dict().items():
        assert back[k].dtype == w.dtype
        assert torch.allclose(back[k].float(), w.float(), rtol=2**-11, atol=1e-7)


def test_eight_bits_are_off_by_half_a_scale_at_most():
    w = torch.randn(4, 3, 5) * torch.tensor([1e-3, 1, 100, 0.0])[:, None, None]
    small = shrink({"conv": w, "bias": torch.ones(2)}, bits=8)
    assert set(small) == {"conv#int8", "conv#scale", "bias"}
    assert small["conv#int8"].dtype == torch.int8 and small["bias"].dtype == torch.half
    back = grow(small)["conv"]
    scale = w.flatten(1).abs().amax(1) / 127
    assert back.shape == w.shape and torch.equal(back[3], torch.zeros(3, 5))
    assert ((back - w).abs().flatten(1).amax(1) <= 0.51 * scale + 1e-9).all()
    assert torch.allclose(back.flatten(1).abs().amax(1), 127 * scale, rtol=1e-5)


@pytest.mark.parametrize("bits", [8, 16])
def test_one_network_of_several_in_a_file(bits):
    torch.manual_seed(0)
    a, b = torch.nn.Linear(40, 30), torch.nn.Linear(40, 30)
    both = {f"a.{k}": w for k, w in a.state_dict().items()}
    both |= {f"a.b.{k}": w for k, w in b.state_dict().items()}
    found = shipped_state(shrink(both, bits), "a.b.")
    assert found.keys() == b.state_dict().keys()
    for k, w in b.state_dict().items():
        torch.testing.assert_close(found[k], w, atol=0.002, rtol=0)
    assert shipped_state(both, "c.") == {}
