"Sound: equal to NumPy's, SciPy's and librosa's; laws; what recordings may be."

import io
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcourse.audio import (
    CLIP,
    add_decibels,
    augment_audio,
    dct_matrix,
    dft_matrix,
    frames,
    hz_to_mel,
    in_range,
    level,
    load_audio,
    log_mel,
    loudest_second,
    mel_bank,
    mel_power,
    mel_to_hz,
    mfcc,
    other_mouth,
    other_room,
    peak,
    preprocess_audio,
    random_curve,
    resample,
    spec_augment,
    spectrogram,
    standardise_mel,
    stripe,
    trim,
    window,
)


def tone(hz=440.0, sr=8000, seconds=0.5):
    n = int(sr * seconds)
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(n) / sr) * np.hanning(n)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape)


def rms(x):
    return float(np.sqrt(np.mean(np.asarray(x, np.float64) ** 2)))


def strongest(wave, sr):
    return abs(np.fft.rfft(wave, 1 << 17)).argmax() * sr / (1 << 17)  # Hz


def wav(x, sr=8000, **options):
    file = io.BytesIO()
    soundfile.write(file, x, sr, **{"format": "WAV", "subtype": "PCM_16", **options})
    return file.getvalue()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- equal to the references


@pytest.mark.parametrize("n", [1, 2, 5, 31, 64, 257, 1024])
def test_dft_equals_numpy(n):
    x = noise(3, n, seed=n) + 1j * noise(3, n, seed=n + 1)
    ours = torch.tensor(x) @ dft_matrix(n).T
    assert abs(ours - torch.tensor(np.fft.fft(x))).max() < 1e-11


@pytest.mark.parametrize("n", [2, 5, 255, 256, 400])
def test_window_equals_scipy(n):
    assert abs(window(n).numpy() - scipy.signal.get_window("hann", n)).max() < 1e-15


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (1, 7), (13, 40), (40, 40), (20, 128)])
def test_dct_equals_scipy(rows, n):
    x = noise(n, 6, seed=n)
    theirs = scipy.fft.dct(x, axis=0, norm="ortho")[:rows]
    assert abs(dct_matrix(rows, n).numpy() @ x - theirs).max() < 1e-12


def test_mel_scale_equals_librosa():
    f = np.array([0.0, 1, 200, 999.9, 1000, 1000.5, 1001, 6400, 11025])
    assert abs(hz_to_mel(f) - librosa.hz_to_mel(f)).max() < 1e-9
    assert hz_to_mel(6400.0) == pytest.approx(42)
    assert abs(mel_to_hz(hz_to_mel(f)) - f).max() < 1e-9


@pytest.mark.parametrize("sr", [8000, 11025, 44100])
@pytest.mark.parametrize(
    ("n_fft", "n_mels"), [(256, 40), (255, 17), (400, 80), (512, 1), (64, 40)]
)
def test_mel_bank_equals_librosa(sr, n_fft, n_mels):
    bank = mel_bank(sr, n_fft, n_mels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some bands are narrower than a row
        want = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels)
    assert bank.shape == want.shape
    assert bank.dtype == torch.float64
    assert abs(bank.numpy() - want).max() < 1e-5


def test_mel_triangles_have_area_one():
    assert abs(mel_bank(8000, 65536, 20).sum(1) * 8000 / 65536 - 1).max() < 1e-4


def case(seed):
    "Waves and options of random sizes: even and odd frames, hops short and long."
    rng = np.random.default_rng(seed)
    waves = rng.normal(0, 10 ** rng.uniform(-3, 0), (2, int(rng.integers(1, 3000))))
    waves[0, waves.shape[1] // 2 :] *= rng.choice([1, 0, 1e-3])
    n_fft, hop, n_mels = (
        int(rng.integers(a, b)) for a, b in ((16, 600), (1, 700), (1, 60))
    )
    sr = int(rng.choice([8000, 16000, 22050]))
    return waves, sr, {"n_fft": n_fft, "hop": hop, "n_mels": n_mels}


def theirs(function, waves, sr, options, **more):
    o = {k: v for k, v in options.items() if k != "hop"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short waves, empty bands
        made = [
            function(y=w, sr=sr, hop_length=options["hop"], **o, **more) for w in waves
        ]
    return np.stack(made)


@pytest.mark.parametrize("seed", range(20))
def test_log_mel_and_mfcc_equal_librosa(seed):
    waves, sr, o = case(seed)
    powers = theirs(librosa.feature.melspectrogram, waves, sr, o)
    got = mel_power(waves, sr, **o).numpy()
    assert abs(got - powers).max() <= 1e-4 * powers.max()
    want = np.stack([librosa.power_to_db(p) for p in powers])
    got = log_mel(waves, sr, **o)
    assert got.shape == want.shape
    assert got.dtype == torch.float64
    assert abs(got.numpy() - want).max() < 1e-3
    n_mfcc = 1 + seed % o["n_mels"]
    want = theirs(librosa.feature.mfcc, waves, sr, o, n_mfcc=n_mfcc)
    assert abs(mfcc(waves, sr, n_mfcc=n_mfcc, **o).numpy() - want).max() < 1e-3


def test_defaults_and_float32_as_librosa_has_them():
    waves = noise(3, 5000).astype(np.float32)
    waves[1, 2000:] = 0
    waves[2] *= 1e-4
    o = {"n_fft": 256, "hop": 80, "n_mels": 40}
    powers = theirs(librosa.feature.melspectrogram, waves, 8000, o)
    got = log_mel(waves)
    assert got.dtype == torch.float32
    assert (
        abs(got.numpy() - np.stack([librosa.power_to_db(p) for p in powers])).max()
        < 1e-3
    )
    want = theirs(librosa.feature.mfcc, waves, 8000, o, n_mfcc=13)
    assert abs(mfcc(waves).numpy() - want).max() < 1e-3


@pytest.mark.parametrize("top_db", [20.0, 80.0, float("inf")])
def test_top_db(top_db):
    x = tone()
    x[2000:] *= 1e-6
    mel = librosa.feature.melspectrogram(
        y=x, sr=8000, n_fft=256, hop_length=80, n_mels=40
    )
    want = librosa.power_to_db(mel, top_db=None if np.isinf(top_db) else top_db)
    assert abs(log_mel(x, top_db=top_db).numpy() - want).max() < 1e-3


def test_spectrogram_equals_librosa():
    x = noise(3001)
    want = librosa.stft(x, n_fft=255, hop_length=33, pad_mode="constant")
    assert abs(spectrogram(x, n_fft=255, hop=33).numpy() - abs(want) ** 2).max() < 1e-9


@pytest.mark.parametrize("shape", [(1, 1), (5, 37), (70, 900), (150, 300)])
@pytest.mark.parametrize("function", [log_mel, mfcc, spectrogram, mel_power])
def test_a_batch_is_its_clips(function, shape):
    x = noise(*shape, seed=shape[1]) * np.logspace(-3, 0, shape[0])[:, None]
    whole = function(x)
    assert len(whole) == shape[0]
    for i in (0, shape[0] // 2, shape[0] - 1):
        assert torch.allclose(whole[i], function(x[i]), rtol=0, atol=1e-9)
    assert torch.equal(whole, function(torch.tensor(x)))
    nested = function(x[None])[0]
    assert torch.allclose(whole, nested, rtol=0, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 60), st.integers(1, 20), st.integers(1, 25))
def test_frames_law(length, size, hop):
    x = np.arange(float(length))
    want = [x[i : i + size] for i in range(0, length - size + 1, hop)]
    assert torch.equal(frames(x, size, hop), torch.tensor(np.stack(want)))


def test_frames_are_a_view():
    x = np.zeros((2, 1000))
    view = frames(x)
    x[1, 90] = 3.0
    assert view.shape == (2, 10, 256)
    assert view[1, 0, 90] == view[1, 1, 10] == 3


def test_what_is_not_said_is_the_courses_own_convention():
    x = noise(900)
    frame = {"n_fft": 256, "hop": 80}
    assert torch.equal(window(), window(256))
    assert torch.equal(mel_bank(), mel_bank(8000, 256, 40))
    assert torch.equal(spectrogram(x), spectrogram(x, **frame))
    assert torch.equal(mel_power(x), mel_power(x, 8000, n_mels=40, **frame))


def test_silence():
    assert (log_mel(np.zeros((2, 900))) == -100).all()
    assert not spectrogram(np.zeros(900)).any()
    c = mfcc(np.zeros(900))
    assert abs(c[0] + 100 * 40**0.5).max() < 1e-9
    assert abs(c[1:]).max() < 1e-9


@pytest.mark.parametrize("n", [1, 2, 39, 127, 128, 129, 255])
def test_very_short_clips(n):
    x = noise(n, seed=n)
    assert log_mel(x).shape == (40, 1 + n // 80)
    assert np.array_equal(trim(x), x)
    assert len(load_audio((x, 16000))) == -(-n // 2)


# --- another rate


@pytest.mark.parametrize(
    ("old", "new"),
    [(8000, 16000), (44100, 8000), (11025, 16000), (8000, 11127), (1000, 384000)],
)
def test_resampling_keeps_a_tone(old, new):
    x = tone(220, old)
    y = resample(x, old, new)
    assert len(y) == -(-len(x) * new // old)
    assert abs(strongest(y, new) - 220) < 2
    assert abs(rms(y) / rms(x) - 1) < 0.02


@pytest.mark.parametrize("old", [16000, 44100])
def test_resampling_does_not_fold(old):
    high = tone(5500, old)
    assert rms(resample(high, old)) < 0.01 * rms(high) < rms(high[:: old // 8000])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_types_and_inputs_stay(dtype):
    x = tone().astype(dtype)
    before = x.copy()
    for y in (resample(x, 8000, 16000), level(x), peak(x), trim(x), resample(x, 8000)):
        assert y.dtype == dtype
    assert np.array_equal(x, before)


# --- level and trimming


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1), st.floats(1e-3, 1e3))
def test_loudness_laws(seed, to, gain):
    x = noise(50, seed=seed)
    assert rms(level(x, to)) == pytest.approx(to)
    assert abs(peak(x, to)).max() == pytest.approx(to)
    for f in (level, peak):  # whatever it was before; only the size differs
        assert np.allclose(f(x * gain), f(x), rtol=1e-9)
        assert np.allclose(f(x) / x, (f(x) / x)[0])


def test_loudness_defaults():
    assert rms(level(tone())) == pytest.approx(0.1)
    assert abs(peak(tone())).max() == pytest.approx(1)
    assert level(np.array([3.0, -4.0]), 5 / 2**0.5) == pytest.approx([3, -4])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 500))
def test_trim_keeps_the_sound_and_its_margin(before, after, margin):
    sound = np.ones(800)
    x = np.concatenate([np.zeros(before), sound, np.zeros(after)])
    cut = trim(x, margin=margin)
    assert cut.sum() == 800
    assert len(cut) <= 800 + 2 * (margin + 160)
    lead = int(np.flatnonzero(cut)[0])
    assert min(before, margin) <= lead <= min(before, margin + 160)
    assert np.array_equal(cut, trim(x * 1e-3, margin=margin) * 1e3)


def test_trim_limit_and_margin():
    x = np.concatenate([1e-2 * np.ones(1600), np.ones(160), 1e-3 * np.ones(1600)])
    lengths = {db: len(trim(x, db, margin=0)) for db in (30.0, 50.0, 70.0)}
    assert lengths == {30.0: 160, 50.0: 1760, 70.0: 3360}
    x = np.concatenate([np.zeros(1600), np.ones(160), 1e-3 * np.ones(1600)])
    assert len(trim(x)) == 400 + 160 + 400
    assert not trim(x)[:400].any()
    assert np.array_equal(trim(np.zeros(700)), np.zeros(700))


# --- recordings

FILES = {
    "rate_44k": wav(tone(sr=44100), 44100),
    "rate_11k": wav(tone(sr=11127), 11127),
    "rate_4k": wav(tone(sr=4000), 4000),
    "eight_bit": wav(tone(), subtype="PCM_U8"),
    "bits_24": wav(tone(), subtype="PCM_24"),
    "floats": wav(tone(), subtype="FLOAT"),
    "extensible": wav(tone(), format="WAVEX"),
    "mu_law": wav(tone(), subtype="ULAW"),
    "stereo": wav(np.stack([tone(), tone()], 1)),
    "six_channels": wav(np.stack([tone()] * 6, 1)),
    "flac": wav(tone(), format="FLAC"),
    "ogg": wav(tone(), format="OGG", subtype="VORBIS"),
    "aiff": wav(tone(), format="AIFF"),
}
SIXTEEN = np.rint(tone() * 32767).astype(int)
ARRAYS = {
    "pair": (tone(sr=44100), 44100),
    "float_rate": (tone(sr=16000), 16000.0),
    "numpy_rate": (tone(sr=16000), np.int64(16000)),
    "stereo_last": (np.stack([tone()] * 2, 1), 8000),
    "stereo_first": (np.stack([tone()] * 2), 8000),
    "wave": tone(),
    "nested": tone().tolist(),
    "int16": SIXTEEN.astype(np.int16),
    "uint8": np.rint(tone() * 127 + 128).astype(np.uint8),
    "int32": (tone() * 2**31).astype(np.int32),
    "uint16": (SIXTEEN + 32768).astype(np.uint16),
    "list of 16 bits": SIXTEEN.tolist(),
    "16 bits in int64": SIXTEEN,
    "16 bits in int32": SIXTEEN.astype(np.int32),
    "list of 24 bits": (tone() * 2**23).astype(int).tolist(),
    "tensor": torch.tensor(tone()),
    "half": torch.tensor(tone()).half(),
    "bfloat": torch.tensor(tone()).bfloat16(),
    "gradient": torch.tensor(tone(), requires_grad=True),
    "big_endian": tone().astype(">f4"),
    "backwards": tone()[::-1][::-1],
}
LOSSY = {"eight_bit": 0.01, "uint8": 0.01, "mu_law": 0.02, "ogg": 0.02, "bfloat": 0.002}


@pytest.mark.parametrize("name", FILES)
def test_load_audio_file(name, tmp_path):
    path = tmp_path / "digit"
    path.write_bytes(FILES[name])
    for source in (FILES[name], bytearray(FILES[name]), path, str(path)):
        x = load_audio(source)
        assert x.dtype == np.float32
        assert x.shape == (4000,)
        assert abs(x - tone()).max() < LOSSY.get(name, 0.001)
    assert load_audio(path, 16000).shape == (8000,)


@pytest.mark.parametrize("name", ARRAYS)
def test_load_audio_array(name):
    x = load_audio(ARRAYS[name])
    assert x.dtype == np.float32
    assert x.shape == (4000,)
    assert abs(x - tone()).max() < LOSSY.get(name, 0.001)


@pytest.mark.parametrize(
    ("kind", "zero", "full"),
    [(np.uint8, 128, 2**7), (np.int8, 0, 2**7), (np.int16, 0, 2**15)]
    + [(np.int32, 0, 2**31), (np.int64, 0, 2**63), (np.uint16, 2**15, 2**15)],
)
def test_integers_by_their_range(kind, zero, full):
    ends = np.iinfo(kind)
    x = np.array([zero, ends.min, ends.max, zero + full // 4], kind)
    assert in_range(x) == pytest.approx([0, -1, (full - 1) / full, 0.25])


def test_wide_integers_by_their_loudest_sample():
    for bits in (16, 24, 32):
        full = 2 ** (bits - 1)
        assert in_range(np.array([0, -full, full // 2])).tolist() == [0, -1, 0.5]
    assert in_range(np.array([2**15 + 1]))[0] == (2**15 + 1) / 2**23
    assert in_range(np.array([0.25, 3.0])).tolist() == [0.25, 3.0]


def test_channels_are_averaged():
    x = np.stack([tone(), 0 * tone(), -tone(), tone()], 1)
    assert np.allclose(load_audio(x), tone() / 4, atol=1e-6)
    assert len(load_audio(np.ones((8, 900)))) == 900


def test_a_wave_alone_is_at_the_rate_asked_for():
    assert load_audio(tone(sr=16000), 16000).shape == (8000,)


def test_loaded_wave_is_the_callers_own():
    x = tone().astype(np.float32)
    load_audio(x)[:] = 0
    assert x.any()


def test_truncated_file_keeps_what_is_there():
    x = load_audio(FILES["bits_24"][:-6000])
    assert len(x) == 2000
    assert abs(x - tone()[:2000]).max() < 0.001


NAN = np.full(900, np.nan)


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (np.zeros(0), ValueError, r"audio: .*\(0,\)"),
        (NAN, ValueError, "audio: .*NaN"),
        (np.full(900, 1e300), ValueError, "audio size: .*1e\\+300"),
        (np.zeros((2, 2, 9)), ValueError, r"audio: .*\(2, 2, 9\)"),
        (np.ones((20, 900)), ValueError, r"audio: .*\(20, 900\)"),
        (np.float64(0.5), ValueError, "audio: .*channels"),
        ([[0.1], [0.1, 0.2]], ValueError, "audio: "),
        (wav(np.zeros(0)), ValueError, "audio: "),
        (wav(NAN, subtype="FLOAT"), ValueError, "audio: .*NaN"),
        (b"", ValueError, "audio: .*cannot be read"),
        (b"not a sound", ValueError, "audio: expected a recording .WAV, FLAC"),
        (FILES["ogg"][:100], ValueError, "audio: .*cannot be read"),
        (np.ones(900) * 1j, TypeError, "audio: "),
        (np.array(["a"] * 900), TypeError, "audio: "),
        ({"a": 1}, TypeError, "audio: "),
        (None, TypeError, "audio: "),
        ("nowhere.wav", FileNotFoundError, "audio: "),
        (Path("."), FileNotFoundError, "audio: "),
        ((tone(), 999), ValueError, "audio rate: .*1000"),
        ((tone(), 384_001), ValueError, "audio rate: .*384000"),
        ((tone(), 8000.5), TypeError, "audio rate: "),
        ((tone(), None), TypeError, "audio rate: "),
        ((tone(), True), TypeError, "audio rate: "),
        ((8000, tone()), TypeError, "audio rate: "),
    ],
    ids=lambda x: type(x).__name__,  # an Ogg file's bytes differ from run to run
)
def test_what_is_no_recording_is_refused_by_name(x, error, said):
    with pytest.raises(error, match=said) as caught:
        load_audio(x)
    assert "\n" not in str(caught.value)


def test_a_name_of_ones_own():
    with pytest.raises(ValueError, match="^--audio: "):
        load_audio(b"", name="--audio")
    with pytest.raises(TypeError, match="--audio rate: "):
        load_audio(tone(), "8000", name="--audio")


# --- clips of a second


def test_preprocess_audio():
    others = [None, tone() * 1e-3, tone() * 100 + 7]
    silence = [np.concatenate([np.zeros(9000), tone(), np.zeros(50)])]
    out = preprocess_audio([*FILES.values(), *ARRAYS.values(), *others, *silence])
    assert out.shape == (len(FILES) + len(ARRAYS) + 4, CLIP)
    assert out.dtype == np.float32
    missing = len(FILES) + len(ARRAYS)
    assert not out[missing].any()
    out = np.delete(out, missing, 0)
    size = abs(np.fft.rfft(out))
    size /= np.linalg.norm(size, axis=1, keepdims=True)
    assert (size @ size[-1]).min() > 0.97
    for x in out:
        ends = np.flatnonzero(x)[[0, -1]]
        assert abs(rms(x[ends[0] : ends[1] + 1]) - 0.1) < 0.003
        assert abs(ends.mean() - CLIP / 2) < 30


def test_preprocess_takes_the_offset_away():
    with_offset, without = preprocess_audio([tone() + 0.2, tone()])
    assert abs(with_offset - without).max() < 1e-3
    assert abs(with_offset[with_offset != 0].mean()) < 1e-3


def test_the_loudest_second():
    x = np.concatenate([0.1 * np.ones(5000), np.ones(8000), 0.1 * np.ones(7000)])
    assert (loudest_second(x) == 1).all()
    assert len(loudest_second(x)) == CLIP
    assert len(loudest_second(x[:8000])) == 8000
    assert np.array_equal(loudest_second(x[:100]), x[:100])
    low = tone(300.0, seconds=4) * 0.1
    long = np.concatenate([low, tone() * 3, low])
    assert abs(strongest(preprocess_audio([long])[0], 8000) - 440) < 5


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.array([0.5]), "at least 0.05 s"),
        (wav(np.array([0.5])), "at least 0.05 s"),
        ((tone(sr=44100)[:2204], 44100), "at least 0.05 s, got 0.050 s"),
        (np.zeros(8000), "1.000 s of silence"),
        (np.ones(4000), "0.500 s of silence"),
        (np.full(8000, 128, np.uint8), "silence"),
        (1e-6 * tone(), "silence"),
        ((0.001 * tone(20000, 48000, 2.0), 48000), "2.000 s of silence"),
    ],
)
def test_what_is_no_clip_is_refused(x, said):
    with pytest.raises(ValueError, match=rf"audio\[1\]: expected .*{said}"):
        preprocess_audio([tone(), x])


def test_the_shortest_and_faintest_clip():
    assert preprocess_audio([tone()[:400], 2e-5 * np.sign(tone())]).any(1).all()


@pytest.mark.parametrize("x", ["digit.wav", b"x", 5, None, {"a": 1}])
def test_preprocess_wants_a_list(x):
    with pytest.raises(TypeError, match="^audio: "):
        preprocess_audio(x)
    with pytest.raises(ValueError, match="^audio: "):
        preprocess_audio([])


# --- hiding


def test_stripes_have_every_width_and_place_equally_often():
    x = torch.zeros(20_000, 10, 4)
    gone = stripe(x, 1, 3, generator())
    assert gone.shape == (20_000, 10, 1)
    gone = gone[..., 0]
    widths = torch.bincount(gone.sum(1), minlength=4) / 20_000
    assert abs(widths - 0.25).max() < 0.015
    for w in (1, 2, 3):
        first = gone[gone.sum(1) == w].int().argmax(1)
        starts = torch.bincount(first, minlength=11 - w) / len(first)
        assert len(starts) == 11 - w
        assert abs(starts * len(starts) - 1).max() < 0.15
    steps = (gone[:, 1:] != gone[:, :-1]).sum(1)
    assert steps.max() <= 2  # in one piece
    assert stripe(x, 2, 9, generator()).shape == (20_000, 1, 4)
    assert stripe(x, 2, 9, generator()).sum(2).max() == 4  # no wider than there is


def test_spec_augment_hides_whole_stripes():
    x = (torch.arange(40.0)[:, None] + 100 * torch.arange(50.0)).expand(500, -1, -1)
    y = spec_augment(x, generator())
    gone = y != x
    assert (y[gone] == x[0].mean()).all()
    rows, columns = gone.all(2), gone.all(1)
    assert torch.equal(gone, rows[:, :, None] | columns[:, None])
    assert rows.sum(1).max() == 8
    assert columns.sum(1).max() == 12
    assert torch.equal(y, spec_augment(x, generator()))
    assert not torch.equal(y, spec_augment(x, generator(1)))
    narrow = spec_augment(x, generator(), bands=2, time=0) != x
    assert not narrow.all(1).any()
    assert narrow.all(2).sum(1).max() == 2
    many = spec_augment(x, generator(), stripes=3) != x
    assert many.all(2).sum(1).max() > 8
    assert many.all(2).float().mean() > 2 * rows.float().mean()


# --- other mouths and rooms


def spectra(b=4, bands=20, t=51, seed=0):
    x = -59 * torch.rand(b, bands, t, generator=generator(seed))
    x[..., :5] = x[..., -9:] = -60
    return x


def test_random_curves():
    x = random_curve((2000, 21), 5, 3.0, generator())
    assert x.shape == (2000, 21)
    knots = x[:, ::5]
    assert abs(knots.std(0) - 3).max() < 0.2
    assert abs(np.corrcoef(knots.T) - np.eye(5)).max() < 0.1
    middle = x[:, 2]
    assert torch.allclose(middle, 0.6 * x[:, 0] + 0.4 * x[:, 5], atol=1e-5)


def test_powers_add():
    a, b = torch.tensor([-10.0, 0, -20]), torch.tensor([-10.0, -20, -90])
    want = 10 * torch.log10(10 ** (a / 10) + 10 ** (b / 10))
    torch.testing.assert_close(add_decibels(a, b), want)
    assert add_decibels(a, b)[0] == pytest.approx(-10 + 10 * np.log10(2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("function", [other_mouth, other_room, augment_audio])
def test_augmented_clips_keep_the_convention(function, seed):
    x = spectra(8, seed=seed)
    before = x.clone()
    y = function(x, generator(seed))
    assert torch.equal(x, before)
    assert torch.equal(y, function(x, generator(seed)))
    assert not torch.equal(y, function(x, generator(seed + 1)))
    assert y.shape == x.shape
    assert y.min() >= -60
    assert y.max() <= 0
    empty = (y == -60).all(1)
    assert torch.equal(empty, (y < -59).any(1))  # a whole frame, or nothing of it
    assert empty.any()
    assert not empty.all(1).any()


def test_another_mouth_moves_sounds_in_time_and_pitch():
    x = torch.full((200, 20, 51), -59.0)
    x[..., :10] = x[..., 40:] = -60
    x[:, 9:11, 24:27] = 0.0
    y = other_mouth(x, generator())
    loud = y.amax((1, 2)) > -20
    assert loud.float().mean() > 0.9
    place = y[loud].flatten(1).argmax(1)
    frame, band = place % 51, place // 51
    assert 2 < frame.float().std() < 8
    assert 0.3 < band.float().std() < 3
    length = (y > -60).any(1).sum(1).float()
    assert length.min() < 24  # faster
    assert length.max() > 36  # slower
    assert y[(y > -60)].min() == -59  # silence within a clip stays silence


def ramp(axis, size=20.0, centre=-30.0):
    "2,000 clips whose values tell the place in [-1, 1] that they come from."
    place = torch.linspace(-1, 1, (20, 51)[axis - 1])
    value = centre + size * (place[:, None] if axis == 1 else place)
    return value.expand(2000, 20, 51)


def bends(y):
    "Where the slope of (B, n) curves changes."
    return (y[:, 2:] - 2 * y[:, 1:-1] + y[:, :-2]).std(0)


def test_another_mouth_is_as_much_faster_and_later_as_said():
    y = other_mouth(ramp(2), generator())
    when = (y[:, 10] + 30) / 20
    there = when[:, [15, 25, 35]].abs().amax(1) < 1
    early, middle, late = when[there][:, [15, 25, 35]].T
    assert abs(middle.mean()) < 0.01
    assert abs(middle.std() - (0.1**2 + 0.06**2) ** 0.5) < 0.01
    pace = (late - early) / 0.8
    assert abs(pace.mean() - np.exp(0.25**2 / 2)) < 0.03
    spread = np.exp(0.25**2) * (np.exp(0.25**2) - 1) + 2 * 0.06**2
    assert abs(pace.std() - spread**0.5) < 0.03
    sharp = bends(when[there][:, 17:34]) > 1e-4  # knots at 12.5, 25, 37.5
    assert (17 + 1 + sharp.nonzero()[:, 0]).tolist() == [25]


def test_another_throat_is_as_much_longer_and_higher_as_said():
    y = other_mouth(ramp(1), generator())
    y = y[(y[:, :, 25] > -60).all(1)]
    band = (y[:, :, 25] + 30) / 20
    middle = band[:, 9:11].mean(1)  # half way up, and between the second knot and third
    assert abs(middle.mean()) < 0.02
    assert abs(middle.std() - (0.1**2 + 0.03**2 + 0.08**2 / 2) ** 0.5) < 0.01
    low = band[:, 4]
    assert low.std() < middle.std()  # a longer throat moves the low bands less
    sharp = bends(band[:, 3:15]) > 1e-3  # knots at 6.33, 12.67
    assert (3 + 1 + sharp.nonzero()[:, 0]).tolist() == [6, 7, 12, 13]


def test_a_clip_that_would_be_lost_stays_as_it_is():
    x = torch.full((400, 20, 51), -60.0)
    x[..., 50] = -10.0  # one frame at the very end
    y = other_mouth(x, generator())
    assert ((y > -60).any(1).sum(1) > 0).all()
    x[..., 24:28] = -10.0  # four more in the middle
    y = other_mouth(x, generator())
    length = (y > -60).any(1).sum(1)[(y != x).flatten(1).any(1)]
    assert length.min() == 4


def test_another_room_colours_and_hisses():
    x = torch.full((400, 20, 51), -30.0)
    x[..., :10] = -60
    y = other_room(x, generator())
    assert torch.equal((y > -60).any(1), (x > -60).any(1))
    assert (y.amax((1, 2)) == 0).all()
    moving = y[..., 10:].std(2).mean(1)  # noise changes from frame to frame
    noisy = moving > 0.1
    assert 0.3 < noisy.float().mean() < 0.7


def test_a_microphone_has_the_colour_that_was_said():
    x = torch.full((4000, 20, 51), -30.0)
    y = other_room(x, generator())
    colour = y[y.std(2).amax(1) < 0.01][..., 0]  # of the rooms without noise
    assert len(colour) > 1500
    tilt = colour[:, -1] - colour[:, 0]  # two knots, and twice the slope
    assert abs(tilt.std() / (3.5 * 6**0.5) - 1) < 0.05
    sharp = bends(colour) > 0.01  # knots at 3.8, 7.6, 11.4, 15.2
    assert (1 + sharp.nonzero()[:, 0]).tolist() == [3, 4, 7, 8, 11, 12, 15, 16]
    slope = colour[:, 1:] - colour[:, :-1]
    bend = slope[:, 4] - slope[:, 0]  # at the second of six knots
    assert abs(bend.std() / (3.5 * 6**0.5 / 3.8) - 1) < 0.05


def test_noise_is_as_loud_and_coloured_as_said():
    x = torch.full((4000, 20, 51), -59.0)
    y = other_room(x, generator())
    hiss = y[y[:, 9:11].std(2).amin(1) > 5]  # the rooms in which noise drowns all
    assert abs(hiss.std(2).mean() - 5.57) < 0.2  # decibels of an exponential
    band = hiss.median(2).values
    tilt = band[:, -1] - band[:, 0]  # two knots, and twice the slope
    assert abs(tilt.std() / (2 * 5**2 + 4 * 4**2) ** 0.5 - 1) < 0.08
    x[..., 25] = 0.0
    y = other_room(x, generator())
    rest = y[..., [*range(25), *range(26, 51)]]
    noisy = rest.std(2).mean(1) > 0.1
    below = rest.flatten(1).median(1).values - y[..., 25].mean(1)
    level = -13 - 30 / 2 + 10 * np.log10(np.log(2))
    assert abs(below[noisy].mean() - level) < 1


def test_augment_audio_hides_a_little():
    x = spectra(300)
    y = augment_audio(x, generator())
    plain = other_room(other_mouth(x, g := generator()), g)
    changed = y != plain
    assert 0.01 < changed.float().mean() < 0.15
    assert not changed[plain == -60].any()
    mean = plain.mean((1, 2), keepdim=True).expand_as(y)
    assert torch.equal(y[changed], mean[changed])
    gone = changed | (plain == -60)
    rows = (gone.all(2) & changed.any(2))[:, :, None]
    columns = (gone.all(1) & changed.any(1))[:, None]
    assert torch.equal(changed, (rows | columns) & (plain > -60))  # whole stripes
    assert (plain[changed] == -59).any()  # of silence too
    assert rows.sum(1).max() == 2
    assert columns.sum(2).max() == 5
    assert augment_audio(x.double(), generator()).dtype == torch.float64


# --- each clip on its own scale


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_standardised_clips(own):
    x = spectra()
    before = x.clone()
    y = standardise_mel(x, own)
    assert torch.equal(x, before)
    there = (x > -60).any(1)
    for v, t in zip(y, there):
        assert abs(v[:, t].mean()) < 1e-4
        assert abs(v[:, t].square().mean() - 1) < 1e-4
        assert (v[:, ~t] == v.min()).all()
    louder = torch.where(there[:, None], x / 3 - 7, -60)
    assert torch.allclose(standardise_mel(louder, own), y, atol=1e-4)
    assert torch.allclose(standardise_mel(x[1:2], own)[0], y[1], atol=1e-6)


def test_a_microphones_colour_is_removed_in_part():
    x = spectra()
    there = (x > -60).any(1, keepdim=True)
    colour = torch.linspace(-9, 0, 20)[:, None]
    flat, shrill = (torch.where(there, x / 2 + c, -60) for c in (0.0, colour))
    apart = [
        float((standardise_mel(flat, own) - standardise_mel(shrill, own)).abs().mean())
        for own in (0.0, 0.5, 1.0)
    ]
    assert apart[2] < 1e-5
    assert 0.3 * apart[0] < apart[1] < 0.7 * apart[0]
    half = standardise_mel(x)
    assert torch.equal(half, standardise_mel(x, 0.5))


def test_standardising_nothing_and_flat_clips():
    assert not standardise_mel(torch.full((2, 4, 5), -60.0)).any()
    assert not standardise_mel(torch.full((2, 4, 5), -7.0)).any()
    faint = -7 + 0.01 * torch.randn(1, 4, 5, generator=generator())
    assert standardise_mel(faint).abs().max() < 0.1  # noise is not blown up
    x = torch.tensor([-7.0, -8.0]).repeat(1, 4, 5)  # deviation 1/2, and half of it
    assert abs(standardise_mel(x).std(correction=0) - 1) < 1e-5
    assert abs(standardise_mel(x / 2).std(correction=0) - 0.5) < 1e-5
    assert standardise_mel(spectra().half()).dtype == torch.float16
