"Sound: equal to NumPy's, SciPy's and librosa's over random shapes; laws; what a learner's own recordings and slips do; fuzzing."

import io
import re
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.fft
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmcourse.audio import (
    CLIP,
    augment_audio,
    dct_matrix,
    dft_matrix,
    frames,
    level,
    load_audio,
    log_mel,
    mel_bank,
    mfcc,
    peak,
    preprocess_audio,
    resample,
    spec_augment,
    spectrogram,
    standardise_mel,
    trim,
    window,
)

REFUSED = ValueError, TypeError, FileNotFoundError


def refused(function, *args, error=REFUSED, name, **kwargs):
    "The message; one line that begins with the argument's name and says what was wanted and what came."
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert (
        message.startswith(name)
        and "\n" not in message
        and re.search("expected .*, got |expected a file, found none at ", message)
    ), message
    return message


def tone(hz=440.0, sr=8000, seconds=0.5):
    return (
        0.3
        * np.sin(2 * np.pi * hz * np.arange(int(sr * seconds)) / sr)
        * np.hanning(int(sr * seconds))
    )


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape)


def rms(x):
    return float(np.sqrt(np.mean(np.asarray(x, np.float64) ** 2)))


def strongest(wave, sr):
    return np.abs(np.fft.rfft(wave, 1 << 17)).argmax() * sr / (1 << 17)  # Hz


def wav(x, sr=8000, **options):
    soundfile.write(
        buffer := io.BytesIO(),
        x,
        sr,
        **({"format": "WAV", "subtype": "PCM_16"} | options),
    )
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------------------------- equal to the references
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 31, 64, 100, 257, 1024])
def test_dft_equals_numpy(n):
    x = noise(3, n, seed=n) + 1j * noise(3, n, seed=n + 1)
    assert (
        abs(torch.tensor(x) @ dft_matrix(n).T - torch.tensor(np.fft.fft(x))).max()
        < 1e-11
    )
    assert abs(dft_matrix(n) @ dft_matrix(n).conj().T / n - torch.eye(n)).max() < 1e-11


@pytest.mark.parametrize("sr", [8000, 11025, 16000, 22050, 44100])
@pytest.mark.parametrize(
    "n_fft, n_mels",
    [(256, 40), (255, 17), (400, 80), (512, 1), (1023, 64), (2048, 128), (64, 40)],
)
def test_mel_bank_equals_librosa(sr, n_fft, n_mels):
    bank = mel_bank(sr, n_fft, n_mels)
    assert bank.shape == (n_mels, 1 + n_fft // 2) and bank.dtype == torch.float64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some bands are narrower than a row
        want = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels)
    assert abs(bank.numpy() - want).max() < 1e-5


def test_mel_triangles_have_area_one():
    assert abs(mel_bank(8000, 65536, 20).sum(1) * 8000 / 65536 - 1).max() < 1e-4


@pytest.mark.parametrize("n", [1, 2, 5, 255, 256, 400])
def test_window_equals_scipy(n):
    assert (
        abs(
            window(n).numpy() - __import__("scipy.signal").signal.get_window("hann", n)
        ).max()
        < 1e-15
    )


@pytest.mark.parametrize("rows, n", [(1, 1), (1, 7), (13, 40), (40, 40), (20, 128)])
def test_dct_equals_scipy(rows, n):
    x = noise(n, 6, seed=n)
    assert (
        abs(
            dct_matrix(rows, n).numpy() @ x
            - scipy.fft.dct(x, axis=0, norm="ortho")[:rows]
        ).max()
        < 1e-12
    )


def case(seed):
    "A batch, and options of a spectrogram, of random sizes: even and odd windows, hops longer and shorter than they are, waves shorter than a window."
    rng = np.random.default_rng(seed)
    batch, length, n_fft = (
        int(rng.integers(1, 4)),
        int(rng.integers(1, 3000)),
        int(rng.integers(16, 600)),
    )
    waves = rng.normal(0, 10 ** rng.uniform(-3, 0), (batch, length)) + 0.5 * np.sin(
        2 * np.pi * rng.uniform(50, 3900) * np.arange(length) / 8000
    )
    waves[0, length // 2 :] *= rng.choice(
        [1, 0, 1e-3]
    )  # quiet, or silent, from the middle on
    return (
        waves,
        int(rng.choice([8000, 16000, 22050])),
        {
            "n_fft": n_fft,
            "hop": int(rng.integers(1, 700)),
            "n_mels": int(rng.integers(1, 60)),
        },
    )


def theirs(function, wave, sr, o, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short waves, empty bands
        return function(
            y=wave,
            sr=sr,
            n_fft=o["n_fft"],
            hop_length=o["hop"],
            n_mels=o["n_mels"],
            **more,
        )


@pytest.mark.parametrize("seed", range(40))
def test_log_mel_and_mfcc_equal_librosa(seed):
    waves, sr, o = case(seed)
    want = np.stack(
        [
            librosa.power_to_db(theirs(librosa.feature.melspectrogram, w, sr, o))
            for w in waves
        ]
    )
    got = log_mel(waves, sr, **o)
    assert (
        got.shape == want.shape
        and got.dtype == torch.float64
        and abs(got.numpy() - want).max() < 1e-3
    )
    n_mfcc = 1 + seed % o["n_mels"]
    want = np.stack(
        [theirs(librosa.feature.mfcc, w, sr, o, n_mfcc=n_mfcc) for w in waves]
    )
    assert abs(mfcc(waves, sr, n_mfcc=n_mfcc, **o).numpy() - want).max() < 1e-3


def test_float32_as_librosa_takes_it():
    waves = noise(3, 5000).astype(np.float32)
    waves[1, 2000:] = 0
    waves[2] *= 1e-4
    want = np.stack(
        [
            librosa.power_to_db(
                librosa.feature.melspectrogram(
                    y=w, sr=8000, n_fft=256, hop_length=80, n_mels=40
                )
            )
            for w in waves
        ]
    )
    got = log_mel(waves)
    assert got.dtype == torch.float32 and abs(got.numpy() - want).max() < 1e-3
    assert log_mel(torch.tensor(waves).half()).dtype == torch.float32


@pytest.mark.parametrize("top_db", [20.0, 80.0, float("inf")])
def test_top_db(top_db):
    x = tone()
    x[2000:] *= 1e-6
    want = librosa.power_to_db(
        librosa.feature.melspectrogram(
            y=x, sr=8000, n_fft=256, hop_length=80, n_mels=40
        ),
        top_db=None if top_db == float("inf") else top_db,
    )
    assert abs(log_mel(x, top_db=top_db).numpy() - want).max() < 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (5, 37), (3, 4001), (70, 900), (150, 300)])
@pytest.mark.parametrize(
    "function", [log_mel, mfcc, spectrogram, lambda x: frames(x, 1, 3)]
)
def test_a_batch_is_its_clips(function, shape):
    x = noise(*shape, seed=shape[1])
    whole = function(x)
    for i in (0, shape[0] // 2, shape[0] - 1):
        assert torch.allclose(whole[i], function(x[i]), rtol=0, atol=1e-9)
    assert torch.equal(whole, function(torch.tensor(x))) and torch.equal(
        whole, function(np.asfortranarray(x))
    )


def test_spectrogram_equals_librosa():
    x = noise(3001)
    assert (
        abs(
            spectrogram(x, n_fft=255, hop=33).numpy()
            - np.abs(librosa.stft(x, n_fft=255, hop_length=33, pad_mode="constant"))
            ** 2
        ).max()
        < 1e-9
    )


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 25))
@settings(max_examples=200, deadline=None)
def test_frames_law(length, size, hop):
    x = np.arange(float(length))
    if length < size:
        refused(frames, x, size, hop, error=ValueError, name="wave")
        return
    got = frames(x, size, hop)
    assert got.shape == (1 + (length - size) // hop, size) and torch.equal(
        got,
        torch.stack(
            [torch.tensor(x[i : i + size]) for i in range(0, length - size + 1, hop)]
        ),
    )


def test_frames_are_a_view():
    x = np.zeros((2, 100))
    view = frames(x, 10, 5)
    x[1, 7] = 3.0
    assert view[1, 0, 7] == view[1, 1, 2] == 3


# ---------------------------------------------------------------------------------------------------------------------- silence and short clips
def test_silence():
    assert (log_mel(np.zeros((2, 900))) == -100).all() and not spectrogram(
        np.zeros(900)
    ).any()
    c = mfcc(np.zeros(900))
    assert abs(c[0] + 100 * 40**0.5).max() < 1e-9 and abs(c[1:]).max() < 1e-9
    for f in (level, peak, trim):
        assert "silence" in refused(f, np.zeros(900), error=ValueError, name="wave")
    assert (
        not resample(np.zeros(90), 8000, 16000).any()
        and not load_audio(np.zeros(90)).any()
    )


@pytest.mark.parametrize("n", [1, 2, 39, 127, 128, 129, 255, 256])
def test_very_short_clips(n):
    x = noise(n, seed=n)
    assert (
        log_mel(x).shape == (40, 1 + n // 80)
        and mfcc(x).shape == (13, 1 + n // 80)
        and spectrogram(x).shape == (129, 1 + n // 80)
    )
    assert (
        abs(peak(x)).max() == 1
        and abs(rms(level(x)) - 0.1) < 1e-12
        and np.array_equal(trim(x), x)
        and len(load_audio((x, 16000))) == -(-n // 2)
    )


# -------------------------------------------------------------------------------------------------------------------------------------- resample
@pytest.mark.parametrize(
    "old, new",
    [
        (8000, 16000),
        (44100, 8000),
        (48000, 8000),
        (11025, 16000),
        (8000, 11127),
        (22050, 44100),
        (1000, 384000),
    ],
)
def test_resampling_keeps_a_tone(old, new):
    x = tone(220, old)
    y = resample(x, old, new)
    assert (
        len(y) == -(-len(x) * new // old)
        and abs(strongest(y, new) - 220) < 2
        and abs(rms(y) / rms(x) - 1) < 0.02
    )


@pytest.mark.parametrize("old, new", [(16000, 8000), (44100, 8000)])
def test_resampling_does_not_fold(old, new):
    high = tone(5500, old)
    assert rms(resample(high, old, new)) < 0.01 * rms(high) < rms(high[:: old // new])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_types_stay(dtype):
    x = tone().astype(dtype)
    for y in (
        resample(x, 8000, 8000),
        resample(x, 8000, 16000),
        level(x),
        peak(x),
        trim(x),
    ):
        assert y.dtype == dtype
    before = x.copy()
    level(x), peak(x), trim(x), resample(x, 8000, 4000)
    assert np.array_equal(x, before)


# ------------------------------------------------------------------------------------------------------------------------- loudness and trimming
waves = hnp.arrays(
    np.float64,
    st.integers(1, 50),
    elements=st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-6),
)


@settings(max_examples=150, deadline=None)
@given(waves.filter(np.any), st.floats(1e-3, 1), st.floats(1e-3, 1e3))
def test_loudness_laws(x, to, gain):
    assert (
        abs(rms(level(x, to)) / to - 1) < 1e-9
        and abs(abs(peak(x, to)).max() / to - 1) < 1e-12
    )
    for f in (level, peak):  # whatever it was before; and once is enough
        assert np.allclose(f(x * gain), f(x), rtol=1e-9) and np.allclose(
            f(f(x)), f(x), rtol=1e-9
        )
        assert abs(
            np.dot(f(x), x) - np.linalg.norm(f(x)) * np.linalg.norm(x)
        ) < 1e-9 * np.linalg.norm(x) * max(
            1, np.linalg.norm(f(x))
        )  # only the size differs


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.integers(0, 500),
    st.floats(1e-3, 1e3),
)
def test_trim_keeps_the_sound_and_its_margin(before, after, margin, gain):
    sound = tone(seconds=0.1)
    x = np.concatenate([np.zeros(before), sound, np.zeros(after)])
    cut = trim(x * gain, margin=margin)
    assert abs(
        rms(cut) * len(cut) ** 0.5 / gain - rms(sound) * len(sound) ** 0.5
    ) < 1e-3 and len(cut) <= len(sound) + 2 * (margin + 160)
    assert np.array_equal(cut, trim(x * gain, margin=margin)) and any(
        np.array_equal(x[i : i + len(cut)] * gain, cut)
        for i in range(max(0, before - margin - 160), before + 160)
    )


def test_trim_limit():
    x = np.concatenate([1e-2 * np.ones(1600), np.ones(160), 1e-3 * np.ones(1600)])
    assert (
        len(trim(x, 30.0, margin=0)) == 160
        and len(trim(x, 50.0, margin=0)) == 1760
        and len(trim(x, 70.0, margin=0)) == 3360
    )


# ------------------------------------------------------------------------------------------------------------------------------------ recordings
FILES = {
    "rate_44k": wav(tone(sr=44100), 44100),
    "rate_48k": wav(tone(sr=48000), 48000),
    "rate_11k": wav(tone(sr=11127), 11127),
    "rate_4k": wav(tone(sr=4000), 4000),
    "eight_bit": wav(tone(), subtype="PCM_U8"),
    "bits_24": wav(tone(), subtype="PCM_24"),
    "bits_32": wav(tone(), subtype="PCM_32"),
    "floats": wav(tone(), subtype="FLOAT"),
    "doubles": wav(tone(), subtype="DOUBLE"),
    "mu_law": wav(tone(), subtype="ULAW"),
    "stereo": wav(np.stack([tone(), tone()], 1)),
    "six_channels": wav(np.stack([tone()] * 6, 1)),
    "flac": wav(tone(), format="FLAC"),
    "ogg": wav(tone(), format="OGG", subtype="VORBIS"),
    "aiff": wav(tone(), format="AIFF"),
}
ARRAYS = {
    "pair": (tone(sr=44100), 44100),
    "float_rate": (tone(sr=16000), 16000.0),
    "numpy_rate": (tone(sr=16000), np.int64(16000)),
    "stereo_last": (np.stack([tone()] * 2, 1), 8000),
    "stereo_first": (np.stack([tone()] * 2), 8000),
    "wave": tone(),
    "int16": (tone() * 32767).astype(np.int16),
    "uint8": np.rint(tone() * 127 + 128).astype(np.uint8),
    "int32": (tone() * 2**31).astype(np.int32),
    "uint16": (tone() * 32767 + 32768).astype(np.uint16),
    "tensor": torch.tensor(tone()),
    "nested": tone().tolist(),
    "half": torch.tensor(tone()).half(),
    "bfloat": torch.tensor(tone()).bfloat16(),
    "gradient": torch.tensor(tone(), requires_grad=True),
    "big_endian": tone().astype(">f4"),
    "backwards": tone()[::-1][::-1],
}
LOSSY = {
    "eight_bit": 0.01,
    "uint8": 0.01,
    "mu_law": 0.02,
    "ogg": 0.02,
    "bfloat": 0.002,
    "half": 0.001,
}


@pytest.mark.parametrize("name", FILES)
def test_load_audio_file(name, tmp_path):
    (path := tmp_path / "digit").write_bytes(FILES[name])
    for source in (FILES[name], bytearray(FILES[name]), path, str(path)):
        x = load_audio(source)
        assert (
            x.dtype == np.float32
            and x.shape == (4000,)
            and abs(x - tone()).max() < LOSSY.get(name, 0.001)
        )
    assert (
        load_audio(path, 16000).shape == (8000,)
        and abs(strongest(load_audio(path, 16000), 16000) - 440) < 2
    )


@pytest.mark.parametrize("name", ARRAYS)
def test_load_audio_array(name):
    x = load_audio(ARRAYS[name])
    assert (
        x.dtype == np.float32
        and x.shape == (4000,)
        and abs(x - tone()).max() < LOSSY.get(name, 0.001)
    )


@pytest.mark.parametrize(
    "kind, zero, full",
    [
        (np.uint8, 128, 128),
        (np.int8, 0, 128),
        (np.int16, 0, 2**15),
        (np.int32, 0, 2**31),
        (np.int64, 0, 2**63),
    ],
)
def test_integers_by_their_range(kind, zero, full):
    x = np.array([zero, np.iinfo(kind).min, np.iinfo(kind).max, zero + full // 4], kind)
    assert np.array_equal(
        load_audio(x), np.array([0, -1, (full - 1) / full, 0.25], np.float32)
    )


def test_channels_are_averaged():
    assert np.allclose(
        load_audio(np.stack([tone(), 0 * tone(), -tone(), tone()], 1)),
        tone() / 4,
        atol=1e-6,
    )


def test_a_wave_alone_is_at_the_rate_asked_for():
    assert load_audio(tone(sr=16000), 16000).shape == (8000,)


def test_loaded_wave_is_the_callers_own():
    x = tone().astype(np.float32)
    y = load_audio(x)
    y[:] = 0
    assert x.any()


def test_preprocess_audio():
    out = preprocess_audio(
        [
            *FILES.values(),
            *ARRAYS.values(),
            None,
            tone() * 1e-3,
            tone() * 100 + 7,
            np.concatenate([np.zeros(9000), tone(), np.zeros(50)]),
        ]
    )
    assert (
        out.shape == (len(FILES) + len(ARRAYS) + 4, CLIP)
        and out.dtype == np.float32
        and not out[-4].any()
    )
    size = np.abs(np.fft.rfft(out))
    size /= np.linalg.norm(size, axis=1, keepdims=True) + 1e-9
    similar = size @ size[-3]
    assert np.delete(similar, -4).min() > 0.97
    for x in np.delete(out, -4, 0):
        sound = x[np.flatnonzero(x)[0] : np.flatnonzero(x)[-1] + 1]
        assert (
            abs(rms(sound) - 0.1) < 0.003
            and abs((np.flatnonzero(x)[0] + np.flatnonzero(x)[-1]) / 2 - CLIP / 2) < 30
        )


def test_preprocess_audio_keeps_the_loudest_second():
    long = np.concatenate(
        [
            tone(300.0, seconds=4) * 0.1,
            tone(seconds=0.5) * 3,
            tone(300.0, seconds=4) * 0.1,
        ]
    )
    assert abs(strongest(preprocess_audio([long])[0], 8000) - 440) < 5


def test_preprocess_audio_hears_nothing_that_8_khz_cannot_carry():
    assert "silence" in refused(
        preprocess_audio,
        [(0.001 * tone(20000, 48000, 2.0), 48000)],
        error=ValueError,
        name="audio[0]",
    )


# ------------------------------------------------------------------------------------------------------------------------------------- bad input
EMPTY = [np.zeros(0), [], np.zeros((0, 2)), torch.zeros(0)]
BROKEN = [np.full(900, np.nan), np.array([0.0, np.inf] * 50), np.full((2, 9), -np.inf)]
HUGE = [np.full(900, 1e300), np.array([0, -1e31] * 40)]
NO_NUMBERS = [
    np.ones(900) * 1j,
    np.array(["a"] * 900),
    np.array([None] * 900),
    {"a": 1},
    object(),
    None,
]


@pytest.mark.parametrize(
    "x, what",
    [(x, "empty") for x in EMPTY]
    + [(x, "NaN or infinite") for x in BROKEN]
    + [(x, "1e+3") for x in HUGE]
    + [
        (np.zeros((2, 2, 9)), "(2, 2, 9)"),
        (np.ones((20, 900)), "(20, 900)"),
        (np.float64(0.5), "channels"),
        ([[0.1], [0.1, 0.2]], "ragged"),
        (wav(np.zeros(0)), "empty"),
        (wav(np.full(90, np.nan), subtype="FLOAT"), "NaN"),
    ],
)
def test_load_audio_of_wrong_values(x, what):
    assert what in refused(load_audio, x, error=ValueError, name="audio")


@pytest.mark.parametrize("x", NO_NUMBERS)
def test_load_audio_of_wrong_type(x):
    refused(load_audio, x, error=TypeError, name="audio")


@pytest.mark.parametrize(
    "x",
    [
        b"",
        b"not a sound",
        FILES["flac"][:30],
        FILES["rate_44k"][:20],
        FILES["ogg"][:100],
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        Path(__file__).read_bytes(),
    ],
    ids=[
        "nothing",
        "words",
        "half a FLAC",
        "half a WAV",
        "half an Ogg",
        "an empty WAV",
        "a picture",
        "a program",
    ],
)  # a number in an Ogg file is drawn at random: no name for a test
def test_load_audio_of_what_is_no_recording(x):
    assert "cannot be read as one" in refused(
        load_audio, x, error=ValueError, name="audio"
    )


def test_truncated_file_keeps_what_is_there():  # a recorder that ran out of battery; libsndfile reads on to the end
    x = load_audio(FILES["bits_24"][:-6000])
    assert len(x) == 2000 and abs(x - tone()[:2000]).max() < 0.001


@pytest.mark.parametrize(
    "path", ["nowhere.wav", Path("nowhere.wav"), "", ".", "a\0b", "x" * 5000]
)
def test_no_file(path):
    refused(load_audio, path, error=FileNotFoundError, name="audio")
    refused(preprocess_audio, [path], error=FileNotFoundError, name="audio[0]")


@pytest.mark.parametrize(
    "sr",
    [
        0,
        -8000,
        999,
        1e9,
        8000.5,
        float("nan"),
        float("inf"),
        None,
        "8000",
        True,
        1j,
        np.array([8000]),
    ],
)
def test_absurd_rates(sr):
    assert "for a rate" in refused(
        load_audio, (tone(), sr), error=ValueError, name="audio"
    )
    refused(load_audio, tone(), sr, error=ValueError, name="sr")
    refused(resample, tone(), sr, 8000, error=ValueError, name="old")
    refused(resample, tone(), 8000, sr, error=ValueError, name="new")


def test_pair_the_wrong_way_round():
    refused(load_audio, (8000, tone()), error=ValueError, name="audio")


def test_a_name_of_ones_own():
    refused(
        lambda x: load_audio(x, name="--audio"), b"", error=ValueError, name="--audio: "
    )


@pytest.mark.parametrize(
    "x",
    [
        np.array([0.5]),
        wav(np.array([0.5])),
        np.ones(300),
        (tone(sr=44100)[:1000], 44100),
    ],
)
def test_preprocess_too_short(x):
    assert "0.05 s" in refused(
        preprocess_audio, [tone(), x], error=ValueError, name="audio[1]"
    )


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(8000),
        np.ones(8000),
        wav(np.zeros(8000)),
        np.full(8000, 128, np.uint8),
        1e-6 * tone(),
    ],
)
def test_preprocess_silence(x):
    assert "silence" in refused(
        preprocess_audio, [x], error=ValueError, name="audio[0]"
    )


@pytest.mark.parametrize("x", ["digit.wav", b"x", 5, None, {"a": 1}])
def test_preprocess_not_a_list(x):
    refused(preprocess_audio, x, error=TypeError, name="audio")


def test_preprocess_nothing():
    refused(preprocess_audio, [], error=ValueError, name="audio")


ON_WAVES = {
    "resample": lambda x: resample(x, 8000, 4000),
    "level": level,
    "peak": peak,
    "trim": trim,
    "frames": lambda x: frames(x, 1, 1),
    "spectrogram": spectrogram,
    "log_mel": log_mel,
    "mfcc": mfcc,
}


@pytest.mark.parametrize("function", ON_WAVES.values(), ids=ON_WAVES)
def test_bad_waves(function):
    for x in [
        *EMPTY,
        *BROKEN,
        *HUGE,
        np.zeros((2, 2, 9)),
        np.float64(1.0),
        [[0.1], [0.1, 0.2]],
    ]:
        refused(function, x, error=ValueError, name="wave")
    for x in [*NO_NUMBERS, np.ones(9, np.int16), np.ones(9, bool), "a.wav", b"abc"]:
        refused(function, x, error=TypeError, name="wave")


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, None, True, "3", 2**70, float("nan"), np.array([1])]
)
def test_bad_options(value):
    x, g = tone(), torch.Generator()
    for name in ("sr", "n_mels", "n_fft", "hop"):
        for f in (log_mel, mfcc):
            refused(f, x, error=ValueError, name=name, **{name: value})
    for name in ("n_fft", "hop"):
        refused(spectrogram, x, error=ValueError, name=name, **{name: value})
    for name in ("size", "hop"):
        refused(frames, x, error=ValueError, name=name, **{name: value})
    for name in ("sr", "n_fft", "n_mels"):
        refused(mel_bank, error=ValueError, name=name, **{name: value})
    for f in (window, dft_matrix):
        refused(f, value, error=ValueError, name="n")
    refused(dct_matrix, value, 40, error=ValueError, name="rows")
    refused(dct_matrix, 1, value, error=ValueError, name="n")
    refused(mfcc, x, error=ValueError, name="n_mfcc", n_mfcc=value)
    for name in ("bands", "time", "stripes"):
        if value != 0 or value is True or name == "stripes":
            refused(
                spec_augment,
                torch.zeros(1, 5, 5),
                g,
                error=ValueError,
                name=name,
                **{name: value},
            )
    if value != 0:
        refused(trim, x, error=ValueError, name="margin", margin=value)


def test_bad_options_of_loudness():
    for v in (0, -1, 1.5, float("nan"), float("inf"), None, "1", True):
        refused(level, tone(), v, error=ValueError, name="rms")
        refused(peak, tone(), v, error=ValueError, name="top")
        refused(trim, tone(), -1.0 if v == 1.5 else v, error=ValueError, name="top_db")
    for v in (-1, float("nan"), None, "80"):
        refused(log_mel, tone(), error=ValueError, name="top_db", top_db=v)
    refused(mfcc, tone(), error=ValueError, name="n_mfcc", n_mfcc=41)


# --------------------------------------------------------------------------------------------------------------------------------- augmentation
def spectra(b=4, bands=20, t=51, seed=0):
    x = -59 * torch.rand(b, bands, t, generator=torch.Generator().manual_seed(seed))
    x[..., :5] = x[..., -9:] = -60
    return x


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 2**31),
)
def test_spec_augment_hides_whole_stripes(b, f, t, bands, time, seed):
    x = torch.arange(float(b * f * t)).reshape(b, f, t) ** 2 + 1
    y = spec_augment(x, torch.Generator().manual_seed(seed), bands=bands, time=time)
    assert torch.equal(
        y, spec_augment(x, torch.Generator().manual_seed(seed), bands=bands, time=time)
    )  # the generator decides
    for before, after in zip(x, y):
        gone = after != before
        assert (after[gone] == before.mean()).all()
        rows, columns = (
            gone.sum(1).eq(t).nonzero()[:, 0],
            gone.sum(0).eq(f).nonzero()[:, 0],
        )
        expected = torch.zeros_like(gone)
        expected[rows] = True
        expected[:, columns] = True
        full = f > 1 and t > 1 and not (before == before.mean()).any()
        if full and not gone.all():
            assert (
                torch.equal(gone, expected)
                and len(rows) <= bands
                and len(columns) <= time
            )
            for places in (rows, columns):
                assert len(places) < 2 or places[-1] - places[0] == len(places) - 1


def test_spec_augment_draws_every_width_and_place_evenly():
    x = torch.arange(10.0)[:, None].expand(20_000, 10, 4) + 100 * torch.arange(4.0)
    gone = (
        spec_augment(x, torch.Generator().manual_seed(0), bands=3, time=0) != x
    ).all(2)  # (B, 10)
    widths = torch.bincount(gone.sum(1), minlength=4) / 20_000
    assert abs(widths - 0.25).max() < 0.015
    for w in (1, 2, 3):
        starts = torch.bincount(
            gone[gone.sum(1) == w].int().argmax(1), minlength=10 - w + 1
        )
        assert (
            len(starts) == 10 - w + 1
            and abs(starts / starts.sum() * len(starts) - 1).max() < 0.15
        )


def test_spec_augment_leaves_its_input():
    x = spectra()
    y = x.clone()
    spec_augment(x, torch.Generator())
    augment_audio(x, torch.Generator())
    standardise_mel(x)
    assert torch.equal(x, y)


@pytest.mark.parametrize("seed", range(5))
def test_augment_audio(seed):
    x = spectra(8, seed=seed)
    assert (
        augment_audio(x.double(), torch.Generator().manual_seed(seed)).dtype
        == torch.float64
    )
    y, again = (augment_audio(x, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert (
        torch.equal(y, again)
        and y.shape == x.shape
        and torch.isfinite(y).all()
        and y.min() >= -60
        and y.max() <= 0
    )
    empty = (y == -60).all(1)
    assert (
        torch.equal(empty, (y == -60).any(1)) and empty.any() and not empty.all(1).any()
    )  # a frame holds something in every band, or nothing in any


def test_standardise_mel():
    x = spectra()
    there = (x > -60).any(1, keepdim=True)
    for own in (0.0, 0.5, 1.0):
        y = standardise_mel(x, own)
        kept = [v[:, t[0]] for v, t in zip(y, there)]
        for v in kept:
            assert abs(v.mean()) < 1e-4 and abs((v**2).mean() ** 0.5 - 1) < 1e-4
        for v, t in zip(y, there):
            assert (v[:, ~t[0]] == v.min()).all()
    assert torch.allclose(
        standardise_mel(torch.where(there, x / 3 - 7, -60)),
        standardise_mel(x),
        atol=1e-4,
    )  # fainter, and a smaller range
    colour = torch.where(there, x / 2 + torch.linspace(-9, 0, 20)[:, None], -60)
    assert torch.allclose(
        standardise_mel(colour, 1.0), standardise_mel(x, 1.0), atol=1e-4
    )
    assert torch.isfinite(standardise_mel(torch.full((2, 4, 5), -60.0))).all()


@pytest.mark.parametrize(
    "function",
    [spec_augment, augment_audio, lambda x, g: standardise_mel(x)],
    ids=["spec_augment", "augment_audio", "standardise_mel"],
)
def test_bad_spectrograms(function):
    g = torch.Generator()
    for x in (
        np.zeros((1, 2, 3)),
        None,
        "x",
        torch.zeros(1, 2, 3, dtype=torch.long),
        [[[1.0]]],
    ):
        refused(function, x, g, error=TypeError, name="x")
    for x in (
        torch.zeros(2, 3),
        torch.zeros(0, 2, 3),
        torch.zeros(1, 2, 0),
        torch.full((1, 2, 3), float("nan")),
        torch.full((1, 2, 3), -float("inf")),
    ):
        refused(function, x, g, error=ValueError, name="x")


@pytest.mark.parametrize("function", [spec_augment, augment_audio])
@pytest.mark.parametrize("g", [None, 0, np.random.default_rng(0)])
def test_bad_generators(function, g):
    refused(function, spectra(), g, error=TypeError, name="generator")


# ----------------------------------------------------------------------------------------------------------------------------------------- fuzzing
FUZZ = settings(max_examples=2000, deadline=None)
seeds = st.integers(0, 2**32).map(
    np.random.default_rng
)  # arrays drawn by NumPy: hypothesis would take ten times as long over them
TYPES = (
    np.float64,
    np.float64,
    np.float32,
    np.float32,
    np.float16,
    np.int16,
    np.uint8,
    np.int64,
    bool,
    np.complex64,
    object,
    "U1",
    ">f4",
)
ODD = [
    0,
    -1,
    1.5,
    None,
    True,
    10**6,
    2**63,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "8",
    [],
    np.array([1, 2]),
]
RATES = [
    8000,
    8000.0,
    16000,
    4000,
    1000,
    44100,
    np.int32(12000),
    999,
    384_001,
    0,
    -1,
    None,
    "x",
    True,
    float("nan"),
    1e300,
    2**70,
]
OTHERS = [
    None,
    "",
    "a.wav",
    b"",
    b"RIFF",
    [],
    [1.0, 2.0],
    [[1.0], [1.0, 2.0]],
    [None],
    ["a"],
    3,
    0.5,
    float("nan"),
    1j,
    {},
    object(),
    (1.0, 2.0),
    ([0.5] * 9, 8000),
]


def pick(rng, options):
    return options[rng.integers(len(options))]


def number(rng):
    return pick(rng, ODD) if rng.random() < 0.25 else int(rng.integers(1, 70))


def anything(rng):
    "Mostly arrays of floats of sensible size and shape; then other types, shapes, sizes, and what is no array at all."
    if rng.random() < 0.15:
        return pick(rng, OTHERS)
    shape = (
        (int(rng.integers(1, 99)),)
        if rng.random() < 0.4
        else tuple(pick(rng, [0, 1, 2, 3, 8, 40]) for _ in range(rng.integers(0, 4)))
    )
    scale = pick(rng, [1, 1, 1, 0, 1e-3, 1e-40, 1e-300, 1e25, 1e35, 1e300, 200.0])
    x = np.asarray(rng.uniform(-1, 1, shape) * scale)
    if x.size and rng.random() < 0.15:
        x.flat[rng.integers(x.size)] = pick(
            rng, [np.nan, np.inf, -np.inf, 1.0, -1e30, 1e38]
        )
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = x.astype(pick(rng, TYPES))
    if x.dtype in (np.float32, np.float64, np.int16) and rng.random() < 0.3:
        x = torch.tensor(x)
    return x


def tame(function, *args, names, **kwargs):
    "A finite result, or a refusal of one line that begins with the name of an argument."
    try:
        out = function(*args, **kwargs)
    except REFUSED as e:
        assert str(e).split(":")[0] in names and "\n" not in str(e), str(e)
        return None
    assert np.isfinite(np.asarray(out)).all()
    return out


@FUZZ
@given(seeds)
def test_fuzz_load_audio(rng):
    x, sr = anything(rng), pick(rng, RATES)
    out = tame(
        load_audio,
        (x, pick(rng, RATES)) if rng.random() < 0.5 else x,
        sr,
        names=("audio", "sr"),
    )
    assert out is None or (out.ndim == 1 and len(out) and out.dtype == np.float32)


@FUZZ
@given(seeds)
def test_fuzz_preprocess_audio(rng):
    x = (
        (
            rng.normal(0, pick(rng, [0, 0.1, 1e-7, 1e20]), rng.integers(0, 900)).astype(
                np.float32
            ),
            pick(rng, RATES),
        )
        if rng.random() < 0.3
        else anything(rng)
    )
    out = tame(lambda x: preprocess_audio([x]), x, names=("audio[0]",))
    assert out is None or (
        out.shape == (1, CLIP) and rms(out) < 0.11 and (out.any() or x is None)
    )


@FUZZ
@given(seeds)
def test_fuzz_resample(rng):
    x, old, new = anything(rng), pick(rng, RATES), pick(rng, RATES)
    out = tame(resample, x, old, new, names=("wave", "old", "new"))
    assert out is None or len(out) == -(-len(x) * int(new) // int(old))


@FUZZ
@given(seeds)
def test_fuzz_loudness(rng):
    x, to, margin = (
        anything(rng),
        rng.random() if rng.random() < 0.7 else number(rng),
        number(rng),
    )
    for f, name in ((level, "rms"), (peak, "top")):
        tame(f, x, to, names=("wave", name))
    out = tame(trim, x, number(rng), margin=margin, names=("wave", "top_db", "margin"))
    assert out is None or 0 < len(out) <= len(x)


@FUZZ
@given(seeds)
def test_fuzz_frames_and_spectrogram(rng):
    x, n, hop = anything(rng), number(rng), number(rng)
    tame(frames, x, n, hop, names=("wave", "size", "hop"))
    tame(spectrogram, x, n_fft=n, hop=hop, names=("wave", "n_fft", "hop"))


@FUZZ
@given(seeds)
def test_fuzz_log_mel_and_mfcc(rng):
    x, o = anything(rng), {k: number(rng) for k in ("sr", "n_mels", "n_fft", "hop")}
    if rng.random() < 0.3:
        o["top_db"] = pick(rng, [0, 1e-9, 80, 1e300, -1, None, float("nan"), "80"])
    out = tame(log_mel, x, names=("wave", *o), **o)
    assert out is None or out.shape[-2] == o["n_mels"]
    tame(mfcc, x, n_mfcc=number(rng), names=("wave", "n_mfcc", *o), **o)


@FUZZ
@given(seeds)
def test_fuzz_matrices(rng):
    a, b, c = (number(rng) for _ in range(3))
    tame(mel_bank, a, b, c, names=("sr", "n_fft", "n_mels"))
    tame(dft_matrix, a, names=("n",))
    tame(window, b, names=("n",))
    tame(dct_matrix, a, b, names=("rows", "n"))


@FUZZ
@given(seeds)
def test_fuzz_augmentation(rng):
    shape = rng.integers(1, 9, 3)
    x = (
        torch.tensor(rng.choice([-60, -59, -30, 0, 12.5], shape))
        if rng.random() < 0.7
        else anything(rng)
    )
    g = torch.Generator() if rng.random() < 0.9 else pick(rng, OTHERS)
    o = {
        "bands": number(rng),
        "time": number(rng),
        "stripes": pick(rng, [1, 2, 3]) if rng.random() < 0.8 else pick(rng, ODD),
    }
    for f, options in ((spec_augment, o), (augment_audio, {})):
        out = tame(f, x, g, names=("x", "generator", *options), **options)
        assert out is None or out.shape == x.shape
    tame(standardise_mel, x, names=("x", "own"))


SHORT = [
    wav(tone(seconds=0.05), subtype="PCM_U8"),
    wav(tone(seconds=0.05), format="FLAC"),
    wav(tone(seconds=0.05), format="OGG", subtype="VORBIS"),
    wav(tone(seconds=0.05), subtype="FLOAT"),
    wav(np.stack([tone(seconds=0.05)] * 2, 1)),
]


@FUZZ
@given(seeds)
def test_fuzz_damaged_files(rng):
    source = bytearray(pick(rng, SHORT))
    for _ in range(rng.integers(0, 8)):
        source[rng.integers(len(source))] = rng.integers(256)
    tame(
        load_audio,
        source[: rng.integers(1, len(source) + 1)] if rng.random() < 0.4 else source,
        names=("audio",),
    )
