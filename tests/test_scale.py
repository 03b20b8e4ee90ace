"Many pieces, processes and machines give what one gives; laws and costs by hand."

import json
import math
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DistributedSampler

from conftest import refused
from mmcourse import scale as S
from mmcourse import scale_tools as T
from mmcourse.checkpoint import read_tensors
from mmcourse.datasets import mnist
from mmcourse.measure import seeded
from mmcourse.training import mlp

close = torch.testing.assert_close


def net(norm=nn.LayerNorm, seed=0):
    with seeded(seed):
        return nn.Sequential(nn.Linear(5, 8), norm(8), nn.ReLU(), nn.Linear(8, 3))


def batch(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=g), torch.randint(3, (n,), generator=g)


def gradient(model, x, y):
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return S.flat_gradient(model).clone()


# pieces
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_pieces_of_any_size_give_the_large_batch(n, size, seed):
    model, (x, y) = net(seed=seed), batch(n, seed)
    wanted = gradient(model, x, y)
    loss = S.accumulate(model, x, y, size)
    close(S.flat_gradient(model), wanted, rtol=0, atol=1e-6)
    assert loss == pytest.approx(F.cross_entropy(model(x), y).item(), abs=1e-5)


def test_pieces_forget_an_older_gradient():
    model, (x, y) = net(), batch(9)
    S.accumulate(model, x, y, 4)
    first = S.flat_gradient(model).clone()
    S.accumulate(model, x, y, 4)
    close(S.flat_gradient(model), first)


def test_batch_norm_breaks_it():
    model, (x, y) = net(nn.BatchNorm1d), batch(16)
    wanted = gradient(model, x, y)
    S.accumulate(model, x, y, 4)
    assert (S.flat_gradient(model) - wanted).norm() > 0.05 * wanted.norm()


def test_the_gradient_in_one_row_has_the_models_order():
    model = nn.Linear(2, 1)
    (model(torch.tensor([[3.0, 4.0]]))).sum().backward()
    assert S.flat_gradient(model).tolist() == [3, 4, 1]


# half the bytes
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@settings(max_examples=300, deadline=None)
def test_rounding_is_torchs(v):
    x = torch.tensor([v])
    assert torch.equal(S.to_bf16(x), x.bfloat16().float())


def test_ties_go_to_the_even_number():
    assert S.to_bf16(torch.tensor([257.0, 259.0, 256.0])).tolist() == [256, 260, 256]


def test_precision_computes_as_it_says():
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            seen.append((y.dtype, self.weight.dtype))
            return y

    for kind in ("float32", "autocast", "bf16"):
        out = S.Precision(Spy(4, 2), kind)(torch.ones(1, 4))
        assert out.dtype == torch.float32
    f, b = torch.float32, torch.bfloat16
    assert seen == [(f, f), (b, f), (b, b)]


# forget, and compute again
@pytest.mark.parametrize("way", ["by hand", "torch"])
def test_computing_again_gives_the_same_gradients(way):
    with seeded(0):
        deep, x = S.Deep(3, 6), torch.randn(4, 6, requires_grad=True)
    found = {}
    for deep.way in ("keep", way):
        deep.zero_grad()
        x.grad = None
        deep(x).square().sum().backward()
        found[deep.way] = S.flat_gradient(deep).clone(), x.grad.clone()
    close(found[way], found["keep"])


def test_what_is_kept_is_counted():
    with seeded(0):
        deep, x = S.Deep(4, 8), torch.randn(10, 8)
    kept = {}
    for deep.way in ("keep", "by hand", "torch"):
        kept[deep.way] = kept_by(deep, x)
    assert kept["by hand"] == 4 * (10 * 8 * 4)  # the input of each block
    assert kept["torch"] <= kept["by hand"] + 64
    # input, and twice the four times wider inside
    assert kept["keep"] == 4 * (10 * 8 * 4) * (1 + 2 * 4)


def kept_by(deep, x):
    return S.saved_bytes(lambda: deep(x), deep)


def test_weights_are_not_counted():
    layer = nn.Linear(50, 50)
    assert S.saved_bytes(lambda: layer(torch.ones(2, 50)), layer) == 2 * 50 * 4


def test_dropout_is_put_back_by_torch_alone():
    with seeded(0):
        deep, x = S.Deep(2, 16, dropout=0.5), torch.randn(8, 16)
    found = {}
    for deep.way in ("keep", "by hand", "torch"):
        deep.zero_grad()
        with seeded(1):
            deep(x).square().sum().backward()
        found[deep.way] = S.flat_gradient(deep).clone()
    close(found["torch"], found["keep"])
    assert (found["by hand"] - found["keep"]).norm() > 0.1 * found["keep"].norm()


# the ring
@given(st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_everybody_gets_the_sum(n, seed):
    values = torch.randn(n, n, 3, generator=torch.Generator().manual_seed(seed))
    before = values.clone()
    states = S.ring_all_reduce(values)
    assert torch.equal(values, before) and len(states) == 1 + 2 * (n - 1)
    close(states[-1], values.sum(0).expand(n, n, 3))


def test_a_round_moves_one_chunk_of_each_process():
    states = S.ring_all_reduce(torch.ones(4, 4))
    for a, b in zip(states, states[1:]):
        assert ((a != b).sum(1) == 1).all()
    # after n - 1 rounds each has one finished chunk
    assert ((states[3] == 4).sum(1) == 1).all()


# shares
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 50), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_shares_are_the_samplers(n, world, seed, epoch):
    shares = []
    for rank in range(world):
        theirs = DistributedSampler(range(n), world, rank, seed=seed)
        theirs.set_epoch(epoch)
        ours = S.shard(n, rank, world, seed=seed, epoch=epoch).tolist()
        assert ours == list(theirs)
        shares += ours
    assert set(shares) == set(range(n)) and len(shares) == math.ceil(n / world) * world


# processes
@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "One start of the comparison, one of a run that is killed."
    out = tmp_path_factory.mktemp("runs")
    said = T.torchrun(T.example_script("same_gradients.py"), out / "calm")
    words = ["--steps", 20, "--every", 5, "--kill-at", 14, "--out", out / "killed"]
    again = T.torchrun(T.example_script("train_ddp.py"), *words, restarts=1)
    return out, said, again


@pytest.mark.slow
def test_two_processes_give_what_one_gives(runs):
    found, about = read_tensors(runs[0] / "calm" / "found.safetensors")
    digits = mnist("train")
    x, y = (torch.tensor(digits[k][:192]) for k in ("image", "label"))
    with seeded(0):
        losses, weights = S.three_steps(mlp(hidden=32), x, y)
    assert {"by hand", "DDP", "sharded by hand"} <= set(about["ways"])
    for way in about["ways"]:
        close(found[f"{way} losses"], torch.tensor(losses), rtol=0, atol=1e-6)
        close(found[f"{way} weights"], weights, rtol=0, atol=1e-6)
    for way, n in about["held"].items():
        assert n == math.ceil(len(weights) / 2), way


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(runs):
    out, _, said = runs
    assert "dies before step 14" in said and "goes on from step 10" in said
    ends = [read_tensors(out / k / "last.safetensors") for k in ("calm", "killed")]
    assert ends[0][1]["about"] == ends[1][1]["about"]
    assert len(ends[0][1]["about"]["losses"]) == 20
    for name, w in ends[0][0].items():
        assert torch.equal(w, ends[1][0][name]), name


@pytest.mark.slow
def test_a_log_is_read_as_tensorboard_reads_it(runs):
    pytest.importorskip("tensorboard")
    folder = runs[0] / "killed" / "log"
    log = T.read_scalars(folder)
    steps = [step for step, _ in log]
    assert steps == [*range(14), *range(10, 20)]
    losses = read_tensors(runs[0] / "killed" / "last.safetensors")[1]["about"]["losses"]
    T.beside_tensorboard(folder, log, losses)  # asserts


def test_a_script_that_fails_says_why(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("raise SystemExit('out of luck')")
    with pytest.raises(RuntimeError, match="out of luck"):
        T.finished([sys.executable, str(script)], 300)


@pytest.mark.skipif(not shutil.which("ps"), reason="groups of processes, and ps")
def test_a_script_that_hangs_is_ended_with_all_it_started(tmp_path):
    script, note = tmp_path / "hangs.py", tmp_path / "pid"
    script.write_text(
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'w').write(str(p.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(RuntimeError, match="no end after"):
        T.finished([sys.executable, str(script)], 15)
    for _ in range(100):
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", note.read_text()],
            capture_output=True,
            text=True,
        ).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.1)
    raise AssertionError("the child still runs")


# reading ahead
def test_prefetch_gives_the_same_items():
    assert list(S.prefetch(range(50), 3)) == list(range(50))
    assert list(S.prefetch([])) == []
    tensors = [torch.ones(2), torch.zeros(3)]
    assert [len(t) for t in S.prefetch(tensors)] == [2, 3]


def test_an_error_in_the_thread_is_raised_here():
    def broken():
        yield 1
        raise OSError("the disk is gone")

    items = S.prefetch(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="disk is gone"):
        next(items)


def test_prefetch_does_not_run_far_ahead():
    taken = []

    def source():
        for i in range(100):
            taken.append(i)
            yield i

    items = S.prefetch(source(), ahead=2)
    next(items)
    time.sleep(0.3)
    assert len(taken) <= 1 + 2 + 1  # given, waiting, and one in hand


# more sound than memory
@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clips.pcm"
    rng = np.random.default_rng(0)
    waves = 0.3 * rng.standard_normal((7, T.CLIP)).clip(-3, 3)
    T.write_clips(path, waves, copies=3)
    return path


def test_clips_come_back(clips):
    rng = np.random.default_rng(0)
    waves = 0.3 * rng.standard_normal((7, T.CLIP)).clip(-3, 3)
    back = T.read_clips(clips, 5, 4)  # the last two, and the first two again
    assert back.shape == (4, T.CLIP) and back.dtype == np.float32
    wanted = waves[[5, 6, 0, 1]]
    np.testing.assert_allclose(back, wanted, atol=1 / 32767)
    assert len(T.read_clips(clips, 20, 4)) == 1


@pytest.mark.parametrize("way", ["at once", "pieces", "dask", "dask, gathered"])
@pytest.mark.parametrize("size", [4, 7, 100])
def test_every_way_gives_chapter_4s_features(clips, tmp_path, way, size):
    if "dask" in way:
        pytest.importorskip("dask")
    from mmcourse.audio import log_mel, preprocess_audio

    made = tmp_path / "made"
    S.all_features(str(clips), str(made), 21, way=way, size=size)
    found = np.fromfile(made, "<f4").reshape(21, S.BANDS, S.FRAMES)
    each = preprocess_audio(list(T.read_clips(clips, 0, 21)))
    np.testing.assert_allclose(found, log_mel(each), atol=1e-4)


@pytest.mark.slow
def test_pieces_bound_memory(clips, tmp_path):
    large = tmp_path / "large.pcm"
    large.write_bytes(clips.read_bytes() * 30)  # 630 clips
    job = "mmcourse.scale:all_features"
    jobs = [
        (job, [str(large), str(tmp_path / "made"), 630], {"way": way, "size": 21})
        for way in ("at once", "pieces")
    ]
    warm = (job, [str(clips), str(tmp_path / "warm"), 2], {})
    whole, pieces = T.peak_memory(jobs, warm)
    assert pieces < whole / 2


# laws and costs
def test_an_exact_law_is_found_and_its_interval_is_a_point():
    sizes = np.array([1e3, 1e4, 1e5, 1e6])
    a, alpha = S.power_law(sizes, 7 * sizes**-0.12)
    assert (a, alpha) == pytest.approx((7, 0.12))
    said = S.predict_power_law(sizes, 7 * sizes**-0.12, 1e8)
    assert said == pytest.approx([7 * 1e8**-0.12] * 3)


def test_a_prediction_interval_is_the_textbooks():
    from scipy.stats import linregress, t

    rng = np.random.default_rng(0)
    sizes = np.array([1e3, 3e3, 1e4, 5e4])
    losses = 5 * sizes**-0.1 * np.exp(0.02 * rng.standard_normal(4))
    x, y = np.log(sizes), np.log(losses)
    line = linregress(x, y)
    at = np.log(2e5)
    s = np.sqrt(((y - line.intercept - line.slope * x) ** 2).sum() / 2)
    far = (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    half = t.ppf(0.975, 2) * s * np.sqrt(1 + 1 / 4 + far)
    wanted = np.exp(line.intercept + line.slope * at + np.array([0, -half, half]))
    assert S.predict_power_law(sizes, losses, 2e5) == pytest.approx(wanted)


@pytest.mark.slow
def test_the_interval_holds_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    sizes = np.array([1e3, 3e3, 1e4, 5e4])
    for _ in range(400):
        noise = np.exp(0.03 * rng.standard_normal(5))
        said = S.predict_power_law(sizes, 5 * sizes**-0.1 * noise[:4], 2e5)
        hits += said.low <= 5 * 2e5**-0.1 * noise[4] <= said.high
    assert 0.92 < hits / 400 < 0.98


def test_costs_by_hand():
    assert S.training_flops(1e9, 20e9) == 1.2e20
    hours, kwh = S.training_cost(
        1e9, 1e9, peak=1e15, utilisation=0.5, watts=1000, overhead=2
    )
    assert hours == pytest.approx(12 / 3600 * 1e3) and kwh == pytest.approx(2 * hours)
    assert S.bytes_per_process(1e9, 4, sharded=True) == 4e9
    assert S.bytes_per_process(1e9, 4, sharded=False) == 16e9


BAD = [
    ("sizes", lambda: S.predict_power_law([1, 2], [3, 2], 4)),
    ("losses", lambda: S.predict_power_law([1, 2, 3], [3, np.nan, 1], 4)),
    ("new", lambda: S.predict_power_law([1, 2, 3], [3, 2, 1.5], 0)),
    ("utilisation", lambda: S.training_cost(1e9, 1e9, utilisation=40)),
    ("copies", lambda: T.write_clips("x", np.zeros((1, 8000)), 0)),
    ("processes", lambda: T.torchrun("x.py", processes=0)),
    ("restarts", lambda: T.torchrun("x.py", restarts=-1)),
    ("name", lambda: T.example_script("nothing.py")),
]


@pytest.mark.parametrize(("name", "call"), BAD, ids=[n for n, _ in BAD])
def test_bad_input_is_refused(name, call):
    refused(call, name=name)


# letters
def test_blocks_share_one_letter_with_the_next():
    text = "abcdefghij klmnop"
    rows = T.letter_blocks(text, 5)
    back = ["".join(T.LETTERS[i] for i in row) for row in rows.tolist()]
    assert back == ["abcdef", "fghij ", " klmno"]
    assert len(T.letter_blocks("abc", 5)) == 0


def test_no_file_is_in_two_splits():
    texts = T.letter_texts()
    names = [set(t) for t in texts.values()]
    assert not names[0] & names[1] and not names[1] & names[2]
    assert not names[0] & names[2]
    assert set("".join(texts["test"].values())) <= set(T.LETTERS)


def test_the_study_is_whole():
    law = T.law_data()
    assert len(law.sizes) == 5 and law.sizes == sorted(law.sizes)
    assert all(0 < v < math.log(27) for v in law.losses)  # better than chance


def test_rates_were_chosen_on_validation_and_inside_what_was_tried():
    from mmcourse.store import data_path

    runs = json.loads(data_path("results/scale.json").read_text("utf-8"))["runs"]
    for row in T.law_data().rows:
        tried = {}
        for name, run in runs.items():
            width, rate, seed = name.split("/")
            if width == str(row["width"]) and seed == "0":
                tried[float(rate)] = run["valid"]
        best = min(tried, key=tried.get)
        assert f"{best:g}" == row["chosen rate"]
        assert min(tried) < best < max(tried)
