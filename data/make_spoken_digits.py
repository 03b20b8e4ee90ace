#!/usr/bin/env python3
"""Make `spoken_digits.npz`: the digits zero to nine, said by many synthetic voices.

    python make_spoken_digits.py --seed 0 --out spoken_digits.npz

Every clip is SYNTHETIC. Three speech engines say the words and numpy/scipy do the rest:

1. *say*: a voice says one digit, with its own rate, pitch and intonation for every
   clip. Foreign voices say the digits with their own sounds (respelled, or as a string
   of phones), which gives a foreign accent.
2. *speaker*: the vocal tract is made longer or shorter, the spectral envelope is
   bent a little, some breath is mixed in.
3. *trim*: cut as real data sets are cut: mostly tight, at a random threshold, which
   now and then costs a weak first /f/ or a last /t/.
4. *channel*: microphone or telephone filter, a small room, noise, level, clipping;
   then 8 kHz and G.711 mu-law.

Needs Debian (bookworm) packages: espeak-ng flite festival festvox-kallpc16k
festvox-kdlpc16k festvox-us-slt-hts festvox-ca-ona-hts festvox-itapc16k festvox-italp16k
festvox-czech-dita festvox-czech-krb festvox-czech-machac festvox-czech-ph
festvox-suopuhe-lj festvox-suopuhe-mv festvox-ru festvox-hi-nsk festival-hi, and Python
with numpy and scipy. No internet, no recordings.
The same script, seed and engine versions give the same bytes.
"""

import argparse
import hashlib
import re
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import istft, resample_poly, stft

SR = 8000  # Hz, of the finished clips
WORK = 16000  # Hz, while a clip is being shaped
LONGEST = 1.5  # seconds
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


# --------------------------------------------------------------------------- the voices
@dataclass(frozen=True)
class Voice:
    engine: str  # 'espeak-ng', 'flite' or 'festival'
    name: str  # the engine's own name for it
    split: str  # 'train', 'valid' or 'test'
    takes: int  # clips for each digit
    f0: float = 110.0  # Hz, a comfortable pitch (festival's phone strings only)
    words: str = (
        ""  # key into RESPELLED (espeak-ng) or PHONES (festival); "" says plain text
    )

    @property
    def full(self):
        return f"{self.engine}/{self.name}"


# The digits as English text, and as a speaker of another language says them, in that
# language's spelling. '|' separates pronunciations, [[...]] are espeak-ng phonemes.
RESPELLED = {
    "en": "zero|zero|[[z'i:roU]], one|[[w'Vn]], "
    "two|two|[[tj'u:]], three, four|four|four|[[f'oU@]], five, six, "
    "seven|[[s'Evn]], eight, nine",
    "de": "siro|ziro, wann|[[vVn]], tu, tri|[[sri:]], foor|[[fo:r]], "
    "faif, [[sIks]]|sicks, [[s'Ev@n]]|sewwen, ejt, nain",
    "nl": "ziro, wan, toe, srie|trie, foor, faiv, siks, seven, eet|eejt, nain",
    "fr": "ziro, ouane, tou, sri|tri, fore, faïve, sixe, sévène, eïte, naïne",
    "it": "ziro, uan, tu, tri, for, faiv, sics, seven, eit, nain",
    "es": "siro, uan, tu, tri, for, faif, sics, seven, eit, nain",
    "pt": "zirou, uan, tu, tri, fór, faiv, sics|sicse, séven, eit, nain",
    "pl": "ziro|zirou, łan, tu, tri|sri, for, fajw, syks, sewen, ejt, najn",
    "cs": "zírou, uan|van, tú, trí|srí, fór, fajv, siks, sevn|seven, ejt, najn",
    "sv": "siro, vann|oann, to, tri, får, fajv, sikks, sevven, ejt, najn",
    "el": "ζίρο, ουάν, του, θρι|τρι, φορ, φάιβ, σιξ, σέβεν, έιτ, νάιν",
    "ru": "зиро, уан|ван, ту, сри|три, фор, файв, сикс|сыкс, сэвэн, эйт, найн",
    "hi": "ज़ीरो, वन, टू, थ्री, फ़ोर, फ़ाइव, सिक्स, सेवन, एट, नाइन",
    "tr": "ziro, van, tu, tri, for, fayv, siks, sevın|seven, eyt, nayn",
    "fi": "siiro, uan, tuu, srii|trii, foor, faiv, siks, seven, eit, nain",
    "hu": "zíró, van|uan, tú, szrí|trí, fór, fájv, sziksz, szeven, éjt, nájn",
    "nb": "siro, vann, to, tri, får, faiv, siks, seven, eit, nain",
    "id": "ziro, wan, tu, tri, for, faif, siks, seven, eit, nain",
    "sw": "ziro, wan, tu, thri, for, faiv, siks, seven, eit, nain",
    "hr": "ziro, uan, tu, tri, for, fajv, siks, seven, ejt, najn",
    "af": "ziro, wan, toe, srie, foor, faaiv, siks, sewwen, eit, nain",
    "cy": "ziro, wan, tŵ, thri, ffor, ffaif, sics, sefyn, eit, nain",
    "ca": "ziro, uan, tu, tri, for, faif, sics, seven, eit, nain",
}
# The digits as strings of phones, for festival's diphone voices. '|' separates
# pronunciations.
PHONES = {
    "radio": (
        "z ih r ow|z iy r ow",
        "w ah n",
        "t uw",
        "th r iy",
        "f ao r",
        "f ay v",
        "s ih k s",
        "s eh v ax n|s eh v en",
        "ey t",
        "n ay n",
    ),
    "italian": (
        "dz i1 r o|dz E1 r o",
        "w a1 n",
        "t u1",
        "t r i1",
        "f o1 r|f O1 r",
        "f a1 i v",
        "s i1 k s",
        "s E1 v e n",
        "e1 i t|E1 i t",
        "n a1 i n",
    ),
    "finnish": (
        "s i: r o|z i: r o",
        "u a n|v a n",
        "t u:",
        "t r i:|s r i:",
        "f o: r|f o r",
        "f a i v",
        "s i k s",
        "s e v e n",
        "e i t",
        "n a i n",
    ),
    "czech": (
        "z i: r o u|z i r o",
        "u a n|v a n",
        "t u:",
        "t r i:|s r i:",
        "f o: r|f o r",
        "f a j v",
        "s i k s",
        "s e v n|s e v e n",
        "e j t",
        "n a j n",
    ),
    "indic": (
        "j ih r oo|j iy r oo",
        "v a n",
        "T uw",
        "th r iy",
        "f oo r",
        "f ay v",
        "s ih k s",
        "s eh v a n",
        "ee T",
        "n ay n",
    ),
}
RUSSIAN = (
    "зиро",
    "уан|ван",
    "ту",
    "три|сри",
    "фор",
    "файв",
    "сикс",
    "сэвэн",
    "эйт",
    "найн",
)
CATALAN = ("ziro", "uan", "tu", "tri", "for", "faif", "sics", "sèven", "eit", "nain")


def _espeak(split, takes, names):
    return [Voice("espeak-ng", n, split, takes, words=_lang(n)) for n in names.split()]


def _lang(name):
    return name.split("+")[0].split("-")[0]


# Who is in which split. The rule: nobody is on two sides. An espeak-ng voice is an
# accent and a speaker variant; neither the accents nor the variants of test occur in
# train or valid. Of the recorded people behind flite and festival, each is on one side
# only: slt is in both engines and is in test twice; kal is in both and is in train
# twice.
VOICES = [
    *_espeak(
        "train",
        4,
        "en-us en-us+m1 en-us+m2 en-us+m3 en-us+m4 en-us+m6 "
        "en-us+klatt en-us+klatt2 en-us+klatt5 en-us+Andy en-us+f1 "
        "en-us+steph en-us-nyc+m4 en-us-nyc+john en-gb en-gb+m2 "
        "en-gb+klatt3 en-gb+rob en-gb+f2 en-gb-x-rp+m3 "
        "en-gb-x-rp+max en-gb-scotland+m1 "
        "en-gb-scotland+edward en-gb-scotland+f4 en-gb-x-gbcwmd+m6",
    ),
    *_espeak(
        "train",
        3,
        "de+m1 de+Gene nl+m3 fr+m2 fr+klatt2 fr-be+m6 el+m4 es+m6 "
        "pt-br+m2 cs+m1 sv+m3 ru+m4 tr+m1 fi+m6 hu+Andy id+m3 "
        "hr+f1",
    ),
    Voice("flite", "awb", "train", 22),
    Voice("flite", "kal", "train", 14),
    Voice("flite", "rms", "train", 28),
    Voice("festival", "kal_diphone", "train", 12, 105, "radio"),
    Voice("festival", "ked_diphone", "train", 22, 105, "radio"),
    Voice("festival", "lp_diphone", "train", 9, 180, "italian"),
    Voice("festival", "hy_fi_mv_diphone", "train", 10, 100, "finnish"),
    Voice("festival", "czech_ph", "train", 10, 110, "czech"),
    Voice("festival", "czech_dita", "train", 9, 180, "czech"),
    Voice("festival", "hindi_NSK_diphone", "train", 9, 120, "indic"),
    Voice("festival", "msu_ru_nsh_clunits", "train", 8),
    Voice("festival", "upc_ca_ona_hts", "train", 8),
    *_espeak("valid", 3, "en-gb+m7 en-us+klatt6 en-us+f5 nb+m7 sw+david af+f5"),
    Voice("festival", "czech_krb", "valid", 6, 220, "czech"),
    Voice("festival", "suo_fi_lj_diphone", "valid", 6, 180, "finnish"),
    *_espeak(
        "test",
        3,
        "en-029+m8 en-029+m5 en-gb-x-gbclan+quincy "
        "en-gb-x-gbclan+f3 en-029+klatt4 en-gb-x-gbclan+michael it+m5 "
        "pl+quincy hi+f3",
    ),
    Voice("flite", "slt", "test", 9),
    Voice("festival", "cmu_us_slt_arctic_hts", "test", 5),
    Voice("festival", "pc_diphone", "test", 8, 110, "italian"),
    Voice("festival", "czech_machac", "test", 8, 110, "czech"),
]


def rng_for(seed, stage, voice, digit=0, take=0):
    """A generator that belongs to one clip at one stage, whatever else is made
    before it."""
    return np.random.default_rng(
        [seed, zlib.crc32(f"{stage} {voice.full}".encode()), digit, take]
    )


# ---------------------------------------------------------------------------- 1. saying
def read_wav(source):
    "(sample rate, mono samples in [-1, 1]) of a 16-bit wav file or its bytes."
    sr, x = wavfile.read(BytesIO(source) if isinstance(source, bytes) else source)
    return sr, x.astype(np.float64) / 32768


def pick(options, rng):
    return options[rng.integers(len(options))]


def say_espeak(voice, seed):
    "Yield ((digit, take), sample rate, samples) of every clip of an espeak-ng voice."
    words = [w.strip() for w in RESPELLED[voice.words].split(",")]
    for digit in range(10):
        for take in range(voice.takes):
            rng = rng_for(seed, "say", voice, digit, take)
            word, stop = (
                pick(words[digit].split("|"), rng),
                pick([".", ".", "?", "!", ","], rng),
            )
            rate, pitch, swing = (
                rng.integers(130, 280),
                rng.integers(10, 70),
                pick(["40%", "80%", "100%", "150%"], rng),
            )
            call = [
                "espeak-ng",
                "-v",
                voice.name,
                "-s",
                str(rate),
                "-p",
                str(pitch),
                "--stdout",
            ]
            call += (
                [word + stop]
                if "[[" in word
                else ["-m", f'<prosody range="{swing}">{word}{stop}</prosody>']
            )
            yield (
                (digit, take),
                *read_wav(
                    _fix_header(
                        subprocess.run(call, check=True, capture_output=True).stdout
                    )
                ),
            )


def _fix_header(data):
    "espeak-ng writes to a pipe before it knows the length: put the true lengths in."
    at = data.index(b"data") + 4
    size = len(data) - at - 4
    return (
        data[:4]
        + (len(data) - 8).to_bytes(4, "little")
        + data[8:at]
        + size.to_bytes(4, "little")
        + data[at + 4 :]
    )


def say_flite(voice, seed):
    """As `say_espeak`: a digit alone, or cut out of a spoken list (flite tells where
    each phone ends)."""
    f0 = {"slt": 180, "kal": 105, "awb": 125, "rms": 100}[voice.name]
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/x.wav"
        for digit in range(10):
            for take in range(voice.takes):
                rng = rng_for(seed, "say", voice, digit, take)
                before, after = WORDS[rng.integers(10)], WORDS[rng.integers(10)]
                alone, stop = rng.random() < 0.6, pick([".", "?", ","], rng)
                text = (
                    f"{WORDS[digit]} {stop}"
                    if alone
                    else f"{before}, {WORDS[digit]}, {after}{stop}"
                )
                stretch, pitch = (
                    np.exp(rng.uniform(-0.5, 0.25)),
                    f0 * np.exp(rng.uniform(-0.2, 0.25)),
                )
                call = [
                    "flite",
                    "-voice",
                    voice.name,
                    "-psdur",
                    "--setf",
                    f"duration_stretch={stretch:.3f}",
                    "--setf",
                    f"int_f0_target_mean={pitch:.1f}",
                    "--setf",
                    f"int_f0_target_stddev={rng.uniform(5, 30):.1f}",
                    "-t",
                    text,
                    "-o",
                    out,
                ]
                said = subprocess.run(
                    call, check=True, capture_output=True, text=True
                ).stdout
                sr, x = read_wav(out)
                if not alone:
                    ends = [
                        (p, float(t)) for p, t in re.findall(r"(\S+?):([\d.]+)", said)
                    ]
                    pauses = [i for i, (p, _) in enumerate(ends) if p == "pau"]
                    if len(pauses) == 4:
                        a, b = ends[pauses[1]][1], ends[pauses[2] - 1][1]
                        x = x[int((a - 0.02) * sr) : int((b + 0.03) * sr)]
                    else:
                        x = x[:0]
                yield (digit, take), sr, x


# Mean lengths in seconds of the phones of an isolated digit, by kind. A festival phone
# string gets these, times a random tempo.
LENGTH = {
    "stop": 0.075,
    "hiss": 0.115,
    "nasal": 0.1,
    "glide": 0.07,
    "short": 0.1,
    "long": 0.2,
    "schwa": 0.06,
}
KIND = {
    **dict.fromkeys(["t", "T", "k", "d", "j"], "stop"),
    **dict.fromkeys(["s", "z", "f", "th", "dz", "v"], "hiss"),
    "n": "nasal",
    **dict.fromkeys(["w", "r"], "glide"),
    "ax": "schwa",
    "en": "nasal",
    **dict.fromkeys(
        [
            "uw",
            "iy",
            "ay",
            "ey",
            "ow",
            "ao",
            "ah",
            "i:",
            "u:",
            "o:",
            "a1",
            "e1",
            "E1",
            "i1",
            "u1",
            "o1",
            "O1",
            "ee",
            "oo",
        ],
        "long",
    ),
}


def phone_string(phones, rng, f0):
    """Festival segments ((name seconds (position Hz) ...) ...) of one word: random
    tempo, lengths and pitch contour."""
    tempo = np.exp(rng.normal(-0.15, 0.25))
    seconds = [
        LENGTH[KIND.get(p, "short")] * tempo * np.exp(rng.normal(0, 0.18))
        for p in phones
    ]
    base, swing = f0 * np.exp(rng.normal(0, 0.17)), rng.uniform(0.03, 0.35)
    shape = pick(
        [
            (0, 0.5, -1),
            (0, 0.5, -1),
            (0.3, 0, -0.7),
            (0, 0, 0),
            (-0.3, 0, 1),
            (0, 1, 0),
            (0.5, -0.5, 0.5),
        ],
        rng,
    )
    at = np.cumsum(seconds) - np.array(seconds) / 2
    hz = base * np.exp(swing * np.interp(at / sum(seconds), (0, 0.5, 1), shape))
    return [(p, s, s / 2, f) for p, s, f in zip(phones, seconds, hz)]


def say_festival(voice, seed):
    """As `say_espeak`: phone strings for diphone voices, text for the rest; one
    festival process says everything."""
    script, keys = [f"(voice_{voice.name})"], []
    with tempfile.TemporaryDirectory() as folder:
        for digit in range(10):
            for take in range(voice.takes):
                rng = rng_for(seed, "say", voice, digit, take)
                out = f"{folder}/{digit}_{take}.wav"
                if voice.words:
                    silence = "pau" if voice.words in ("radio", "indic") else "#"
                    segments = phone_string(
                        pick(PHONES[voice.words][digit].split("|"), rng).split(),
                        rng,
                        voice.f0,
                    )
                    body = " ".join(
                        f'("{p}" {s:.4f} ({at:.4f} {f:.1f}))'
                        for p, s, at, f in segments
                    )
                    utterance = (
                        f'Segments (("{silence}" 0.15) {body} ("{silence}" 0.15))'
                    )
                else:
                    words = (
                        RUSSIAN
                        if "_ru_" in voice.name
                        else CATALAN
                        if "_ca_" in voice.name
                        else WORDS
                    )
                    word = pick(words[digit].split("|"), rng)
                    utterance = f'Text "{word}{pick([".", "?", ","], rng)}"'
                script.append(
                    f"(utt.save.wave (utt.synth (Utterance {utterance})) "
                    f'"{out}" (quote riff))'
                )
                keys.append(((digit, take), out))
        path = Path(folder, "say.scm")
        path.write_text("\n".join(script))
        subprocess.run(
            ["festival", "--batch", str(path)], check=True, capture_output=True
        )
        for key, out in keys:
            yield key, *read_wav(out)


SAY = {"espeak-ng": say_espeak, "flite": say_flite, "festival": say_festival}


# ----------------------------------------------------------------------- 2. the speaker
def resample(x, ratio):
    """`x` at `ratio` times as many samples; the ratio is rounded to a fraction of
    small numbers."""
    f = Fraction(ratio).limit_denominator(160)
    return resample_poly(x, f.numerator, f.denominator) if f != 1 else x


def reshape_voice(x, rng):
    """Bend the spectral envelope of `x` (at 16 kHz) along the frequency axis, tilt it,
    and replace some of the voice by breath.

    The envelope is the cepstrally smoothed spectrum; pitch and timing stay as they are.
    """
    n = 512
    f, _, X = stft(x, WORK, nperseg=n, noverlap=n * 3 // 4)
    cepstrum = np.fft.irfft(np.log(np.abs(X) + 1e-5), axis=0)
    cepstrum[36:-35] = 0
    envelope = np.fft.rfft(cepstrum, axis=0).real
    knots = np.array([0, 500, 1500, 2500, 3500, 8000])
    bent = f * np.interp(f, knots, 1 + rng.normal(0, 0.05, len(knots)))
    at = np.clip(bent / f[1], 0, len(f) - 1.001)
    low, part = at.astype(int), (at % 1)[:, None]
    new = (1 - part) * envelope[low] + part * envelope[low + 1]
    new += (rng.normal(0, 1.5) * np.log2(np.maximum(f, 200) / 1000) * np.log(10) / 20)[
        :, None
    ]  # a tilt in dB an octave
    breath = (
        max(0.0, rng.uniform(-0.5, 0.6))
        * np.interp(f, (0, 1000, 4000), (0.3, 0.6, 1))[:, None]
    )
    noise = (
        (rng.normal(size=X.shape) + 1j * rng.normal(size=X.shape)) * np.exp(new) * 0.8
    )
    _, y = istft(
        (1 - breath) * X * np.exp(new - envelope) + breath * noise,
        WORK,
        nperseg=n,
        noverlap=n * 3 // 4,
    )
    return y[: len(x)]


def loudness(x, sr, window=0.01):
    "Energy in windows of 10 ms, in dB below the loudest."
    w = int(window * sr)
    e = np.square(x[: len(x) // w * w]).reshape(-1, w).mean(1) + 1e-12
    return 10 * np.log10(e / e.max()), w


def crop(x, sr, threshold, margin):
    """`x` from the first to the last window louder than `threshold` dB, and `margin`
    seconds either side."""
    db, w = loudness(x, sr)
    loud = np.flatnonzero(db > threshold)
    return x[
        max(0, loud[0] * w - int(margin * sr)) : (loud[-1] + 1) * w + int(margin * sr)
    ]


def speak(job):
    """All clips of one voice as [(digit, take, samples at 16 kHz)], before trimming
    and channel. Runs in a worker."""
    voice, seed = job
    clips = []
    for (digit, take), sr, x in SAY[voice.engine](voice, seed):
        if len(x) < 0.08 * sr or np.abs(x).max() < 0.01:
            raise ValueError(f"{voice.full} said nothing for {WORDS[digit]}")
        rng = rng_for(seed, "speaker", voice, digit, take)
        size = np.clip(
            np.exp(rng.normal(0, 0.085)), 0.8, 1.25
        )  # vocal tract: > 1 is a longer one, deeper and slower
        x = crop(resample(x, WORK / sr * size), WORK, -55, 0.02)
        clips.append((digit, take, reshape_voice(x, rng)))
    return clips


# ------------------------------------------------------------------ 3. trim, 4. channel
def coloured_noise(n, rng, slope):
    """`n` samples whose power falls by `slope` * 3 dB an octave: 0 white, 1 pink, 2
    brown. Variance 1."""
    spectrum = np.fft.rfft(rng.normal(size=n + 256))
    spectrum *= np.maximum(np.arange(len(spectrum)), 2.0) ** (-slope / 2)
    x = np.fft.irfft(spectrum)[:n]
    return x / (x.std() + 1e-9)


def background(n, rng, crowd):
    """`n` samples of noise at 8 kHz with variance 1: white to brown, mains hum, or a
    crowd of other clips of the split."""
    kind = rng.random()
    if kind < 0.65:
        x = coloured_noise(n, rng, rng.uniform(0, 2))
    elif kind < 0.8:
        t, hz = np.arange(n) / SR, pick([50, 60], rng)
        x = sum(
            rng.uniform(0, 1) / k * np.sin(2 * np.pi * (hz * k * t + rng.random()))
            for k in range(1, 9)
        )
        x = x / x.std() + rng.uniform(0.2, 1) * coloured_noise(n, rng, 1)
    else:
        x = np.zeros(n)
        for _ in range(rng.integers(3, 7)):
            x += np.resize(
                np.roll(crowd[rng.integers(len(crowd))], rng.integers(4000)), n
            )
    return x / (x.std() + 1e-9)


def microphone(x, rng):
    """A gentle random filter: a smooth curve of +-6 dB, a high-pass and sometimes a
    low-pass; or a telephone (300 to 3400 Hz)."""
    f = np.fft.rfftfreq(2 * len(x), 1 / SR)
    gain = np.interp(
        np.log(np.maximum(f, 60)),
        np.log([60, 150, 400, 1000, 2000, 3000, 4000]),
        rng.normal(0, 3.0, 7),
    )
    low, high = (
        rng.uniform(30, 250),
        (rng.uniform(2500, 3900) if rng.random() < 0.3 else 4500),
    )
    if rng.random() < 0.15:
        low, high = 300, 3400
    response = (
        10 ** (gain / 20)
        / np.sqrt(1 + (low / np.maximum(f, 1)) ** 6)
        / np.sqrt(1 + (f / high) ** 16)
    )
    return np.fft.irfft(np.fft.rfft(x, 2 * len(x)) * response)[: len(x)]


def room(x, rng):
    "A small room: a few early echoes and an exponential tail, RT60 0.1 to 0.5 s."
    rt60, n = rng.uniform(0.1, 0.5), int(0.3 * SR)
    t = np.arange(n) / SR
    tail = rng.normal(size=n) * 10 ** (-3 * t / rt60)
    tail[: int(0.002 * SR)] = 0
    h = tail / np.sqrt(np.square(tail).sum()) * 10 ** (-rng.uniform(0, 12) / 20)
    h[0] = 1
    return np.convolve(x, h)


def picked_up(x, rng):
    "By some microphone, now and then in a room."
    if rng.random() < 0.75:
        x = microphone(x, rng)
    if rng.random() < 0.35:
        wet = room(x, rng)
        x = wet[: len(x) + int(rng.uniform(0, 0.1) * SR)]
    return x


def finish(job):
    "One finished clip, mu-law coded. Runs in a worker."
    voice, seed, digit, take, x = job
    rng = rng_for(seed, "channel", voice, digit, take)
    x = resample_poly(x, 1, 2)
    x /= np.abs(x).max()
    tight = rng.random() < 0.8
    x = crop(
        x,
        SR,
        rng.uniform(-42, -22) if tight else -45,
        rng.uniform(0, 0.03) if tight else 0,
    )
    if not tight:
        x = np.pad(x, [int(rng.uniform(0.02, 0.2) * SR) for _ in "ab"])
    x = picked_up(x, rng)
    if rng.random() < 0.6:
        snr = rng.uniform(10, 40)
        x = x + background(len(x), rng, CROWD[voice.split]) * np.sqrt(
            np.square(x).mean()
        ) * 10 ** (-snr / 20)
    x = x[: int(LONGEST * SR)] / np.abs(x).max()
    if rng.random() < 0.08:
        x = np.clip(x * rng.uniform(1.2, 2.5), -1, 1)
    return mu_law(x * 10 ** (-max(0.0, rng.uniform(-4, 24)) / 20))


def mu_law(x):
    "G.711 mu-law codes (uint8) of samples in [-1, 1]."
    s = np.clip(np.round(x * 32767), -32635, 32635).astype(np.int32)
    sign, m = np.where(s < 0, 0x80, 0), np.abs(s) + 132
    exponent = np.floor(np.log2(m)).astype(np.int32) - 7
    return (~(sign | exponent << 4 | (m >> exponent + 3) & 15) & 0xFF).astype(np.uint8)


def _share(crowd):
    global CROWD
    CROWD = crowd


def make(seed, jobs):
    "The arrays of the data set."
    with Pool(jobs) as pool:
        spoken = pool.map(speak, [(v, seed) for v in VOICES], chunksize=1)
    crowd = {
        s: [
            resample_poly(x, 1, 2)
            for v, clips in zip(VOICES, spoken)
            if v.split == s
            for *_, x in clips[::7]
        ]
        for s in ("train", "valid", "test")
    }
    work = [
        (v, seed, digit, take, x)
        for v, clips in zip(VOICES, spoken)
        for digit, take, x in clips
    ]
    with Pool(jobs, _share, (crowd,)) as pool:
        codes = pool.map(finish, work, chunksize=50)
    return {
        "samples": np.concatenate(codes),
        "offsets": np.cumsum([0] + [len(c) for c in codes]).astype(np.int64),
        "label": np.array([digit for _, _, digit, _, _ in work], np.uint8),
        "voice": np.repeat(np.arange(len(VOICES)), [len(c) for c in spoken]).astype(
            np.uint8
        ),
        "voices": np.array([v.full for v in VOICES]),
        "engine": np.array([v.engine for v in VOICES]),
        "split": np.array([v.split for v in VOICES]),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="spoken_digits.npz")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    data = make(args.seed, args.jobs)
    np.savez_compressed(args.out, **data)
    blob = Path(args.out).read_bytes()
    print(
        f"{args.out}: {len(data['label'])} clips, {len(data['voices'])} voices, "
        f"{len(blob) / 1e6:.2f} MB, "
        f"sha256 {hashlib.sha256(blob).hexdigest()}"
    )
