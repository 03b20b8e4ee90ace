"""What chapter 26 ships and repeats: painters of digits and portraits, their measures.

    pip install -e ".[parity]"       # diffusers, for the reference alone
    python data/make_diffusion.py    # data/diffusion.safetensors and its results

Arms are named kind/…/seed. `live`: the chapter's own training of a U-Net, and of a DiT
for as long, at guidance 2 and, as `guided more`, at 2.5. `shipped`: what is in the file
(trained where it is missing: an hour of one thread), drawn with several noises; with
each, for how many pictures the nearest of all training and test digits is a training
one. Portraits: ranks of the right drawing and the row of the nearest one, for the test
names; `valid` for validation names, by guidance. `gan`: chapter 13's, live over seeds
and shipped over draws. `photocopies`: of training digits. `tune`: 500 pictures of the
shipped painter against the 500 validation digits, by guidance and steps, from which
`THROUGH` was chosen, by guidance between two times alone (`middle`), from which
`SHIPPED` was chosen, and the GAN's. `throughout`: as `shipped`, guided at all times.
`rate`: live trainings by learning rate,
in bfloat16, on validation digits. `steps`: validation, guided throughout, by three
walks. Products are in bfloat16 but for `live` at guidance 2. All other rows of digits
are 1,000 pictures against the same 1,000 test digits.
"""

import time
from functools import partial
from pathlib import Path

import torch
from study import Study

from mmcourse.checkpoint import shrink, write_tensors
from mmcourse.datasets import mnist
from mmcourse.diffusion import (
    DiTBlock,
    UNet,
    linear_betas,
    signal_left,
    spaced,
    walk_back,
)
from mmcourse.gan import load_gan, sample_digits, train_gan
from mmcourse.judging import photocopies
from mmcourse.measure import seeded
from mmcourse.portraits import (
    load_painter,
    portrait_ranks,
    portrait_words,
    portraits,
    word_numbers,
)
from mmcourse.studio import (
    DiT,
    as_guesser,
    judged_digits,
    nearest_is_training,
    paint,
    steered,
    train_flow,
)
from mmcourse.training import evaluating

FILE = Path(__file__).with_name("diffusion.safetensors")
ASKED = torch.arange(1000) % 10
WORDS = ASKED[:, None] + 1
LIVE = {"steps": 700}
DIT_STEPS = 600  # for as many seconds
RATES = 1e-3, 2e-3, 4e-3, 8e-3
MORE = 2.5  # guidance
NETS = {
    "digits": {"words": 10, "width": 40},
    "portraits": {"words": 72, "channels": 3, "size": 32, "width": 40},
}
LONG = {"ema": 0.999, "half": True, "seed": 0}
STEPS = {"digits": 9_000, "portraits": 7_500}
THROUGH = {"guidance": 1.3, "steps": 20}  # at all times, chosen by `tune`
MIDDLE = [(2.0, (0.28, 0.72)), (2.0, (0.18, 0.72)), (1.7, (0.28, 0.72))]
MIDDLE += [(1.5, (0.28, 0.78)), (1.5, (0.0, 0.72)), (1.5, (0.28, 1.0))]
SHIPPED = {"guidance": 2.0, "between": (0.28, 0.72), "steps": 20}  # chosen by `tune`
GAN = {"steps": 700, "batch_size": 32, "lr": 3e-3}


# what they learn from
def digits(split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = map(torch.as_tensor, mnist(split).values())
    return 2 * images[:, None] - 1, labels.long()[:, None] + 1


def faces() -> tuple[torch.Tensor, torch.Tensor]:
    people = portraits()
    train = torch.tensor(people["split"] == "train")
    return 2 * people["pixels"][train] - 1, word_numbers(people["name"])[train]


# what ships
def train_painter(of: str) -> tuple[dict, dict]:  # weights, about
    with seeded(0):
        net = UNet(**NETS[of])
    data = digits() if of == "digits" else faces()
    began = time.process_time()
    net = train_flow(net, *data, steps=STEPS[of], **LONG)
    seconds = round(time.process_time() - began)
    about = {"network": NETS[of], "seconds": seconds, "steps": STEPS[of]} | LONG
    return net.state_dict(), about


def write_file(painters: dict):  # name -> (weights, about)
    tensors, about = {}, {"torch": torch.__version__, "made by": Path(__file__).name}
    for of, (weights, said) in painters.items():
        small = shrink(weights, bits=8)
        tensors |= {f"{of}.{k}": t for k, t in small.items()}
        about[of] = said
    for of, made in (("steps", scheduler_steps()), ("block", dit_block())):
        tensors |= {f"reference.{of}.{k}": t.contiguous() for k, t in made.items()}
    write_tensors(FILE, tensors, about)


def scheduler_steps() -> dict:
    """Ten steps of three schedulers of diffusers, and the noise that they drew. The
    network is the best one for standard normal data."""
    import diffusers
    from diffusers.utils import torch_utils

    rng = torch.Generator().manual_seed(0)
    x, found = torch.randn(3, 4, generator=rng), {}
    usual = {"clip_sample": False, "timestep_spacing": "trailing"}
    for name, eta in (("DDPM", None), ("DDIM", {"eta": 0.0})):
        scheduler = getattr(diffusers, f"{name}Scheduler")(**usual)
        scheduler.set_timesteps(10)
        places, fresh = [x], []
        for t in scheduler.timesteps:
            state = torch.Generator().manual_seed(int(t))
            given = {"generator": state} | (eta or {})
            said = (1 - scheduler.alphas_cumprod[t]).sqrt() * places[-1]
            places.append(scheduler.step(said, t, places[-1], **given).prev_sample)
            state = torch.Generator().manual_seed(int(t))
            fresh.append(torch_utils.randn_tensor(x.shape, generator=state))
        found[f"{name.lower()}.x"] = torch.stack(places)
        found[f"{name.lower()}.z"] = torch.stack(fresh)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[1 - k / 10 for k in range(10)])
    places = [x]
    for t in scheduler.timesteps:
        u = t / 1000
        said = (2 * u - 1) / (u**2 + (1 - u) ** 2) * places[-1]
        places.append(scheduler.step(said, t, places[-1]).prev_sample)
    return found | {"flow.x": torch.stack(places)}


def dit_block() -> dict:
    "A DiT block of diffusers under our names, what it is given and what it says."
    from diffusers.models.attention import BasicTransformerBlock

    how = {"activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero"}
    how |= {"num_embeds_ada_norm": 5, "attention_bias": True}
    with seeded(0):
        block = BasicTransformerBlock(
            12, 3, 4, norm_elementwise_affine=False, norm_eps=1e-6, **how
        ).eval()
        for p in block.parameters():
            torch.nn.init.normal_(p, 0, 0.3)
        x, t = torch.randn(2, 5, 12), torch.tensor([3, 700])
    with torch.no_grad():
        y = block(x, timestep=t, class_labels=torch.tensor([1, 4]))
        c = block.norm1.emb(t, torch.tensor([1, 4]), hidden_dtype=x.dtype)
    ours = DiTBlock(12, 3)
    theirs = block.state_dict()
    names = {
        "told": "norm1.linear",
        "attend.to_q": "attn1.to_q",
        "attend.to_k": "attn1.to_k",
        "attend.to_v": "attn1.to_v",
        "attend.out": "attn1.to_out.0",
        "mlp.0": "ff.net.0.proj",
        "mlp.2": "ff.net.2",
    }
    found = {"x": x, "c": c, "y": y}
    for k in ours.state_dict():
        stem, _, kind = k.rpartition(".")
        found[f"ours.{k}"] = theirs[f"{names[stem]}.{kind}"]
    return found


# how they are measured
def painted(net, seed: int, **how) -> dict:
    return judged_digits(paint(net, WORDS, seed=seed, **how)[:, 0].float())


def with_copies(images) -> dict:
    near = nearest_is_training(images)
    return judged_digits(images) | {"training digit nearest (%)": near}


def shipped_digits(seed: int, how: dict) -> dict:
    pictures = paint(load_painter(), WORDS, seed=seed, **how)
    return with_copies(pictures[:, 0].float())


def shipped_gan(seed: int) -> dict:
    return with_copies(sample_digits(load_gan(), ASKED, seed=seed + 1))


def tuned(seed: int, **how) -> dict:  # 500 pictures against 500 validation digits
    pictures = paint(load_painter(), WORDS[:500], seed=90 + seed, **how)
    return judged_digits(pictures[:, 0].float(), "valid")


def tuned_gan(seed: int) -> dict:
    pictures = sample_digits(load_gan(), ASKED[:500], seed=90 + seed)
    return judged_digits(pictures, "valid")


def live(kind: str, seed: int) -> dict:
    with seeded(seed):
        net = UNet(width=40) if kind == "unet" else DiT()
    began = time.process_time()
    steps = LIVE["steps"] if kind == "unet" else DIT_STEPS
    net = train_flow(net, *digits(), steps=steps, seed=seed)
    seconds = round(time.process_time() - began, 1)
    more = in_half(partial(painted, net, seed + 1, guidance=MORE))
    return painted(net, seed + 1) | {"seconds": seconds, "guided more": more}


def rated(kind: str, lr: float) -> dict:  # 500 pictures, validation digits
    with seeded(0):
        net = UNet(width=40) if kind == "unet" else DiT()
    steps = LIVE["steps"] if kind == "unet" else DIT_STEPS
    net = train_flow(net, *digits(), steps=steps, lr=lr, half=True)
    pictures = in_half(partial(paint, net, WORDS[:500], seed=90))
    return judged_digits(pictures[:, 0].float(), "valid")


def live_gan(seed: int) -> dict:
    images, labels = map(torch.tensor, mnist("train").values())
    g = train_gan(images, labels, **GAN, seed=seed).generator
    return judged_digits(sample_digits(g, ASKED, seed=1))


def in_half(run):
    with torch.autocast("cpu", torch.bfloat16):
        return run()


def walked(way: str, steps: int, seed: int) -> dict:
    "The shipped painter of digits, guided, by one of three walks."
    net, rng = load_painter(), torch.Generator().manual_seed(seed)
    if way == "flow":
        return tuned(seed, steps=steps, guidance=THROUGH["guidance"])
    levels, parts = signal_left(linear_betas())[spaced(steps)], []
    how = {"guidance": THROUGH["guidance"]}
    with evaluating(net):
        for words in WORDS[:500].split(125):
            guess = as_guesser(partial(steered, net, told=words, **how))
            x = torch.randn(len(words), *net.shape, generator=rng)
            eta = float(way == "DDPM")
            parts.append(walk_back(guess, x, levels, eta=eta, generator=rng))
    pictures = ((torch.cat(parts) + 1) / 2).clamp(0, 1).float()
    return judged_digits(pictures[:, 0], "valid")


def portrayed(split: str, seed: int, **how) -> dict:
    people, net = portraits(), load_painter("portraits")
    rows = [i for i, s in enumerate(people["split"]) if s == split]
    told = word_numbers([people["name"][i] for i in rows])
    pictures = paint(net, told, seed=seed, **how).float()
    near = torch.cdist(pictures.flatten(1), people["pixels"].flatten(1)).argmin(1)
    return {"ranks": portrait_ranks(pictures, rows).tolist(), "nearest": near.tolist()}


def main():
    study = Study("diffusion", __doc__, about="chapter 26", live=LIVE, long=LONG)
    if not FILE.exists():
        write_file({of: train_painter(of) for of in NETS})
    assert len(portrait_words()) == NETS["portraits"]["words"]
    for seed in study.seeds(3):
        for kind in ("unet", "dit"):
            study(f"live/{kind}/{seed}", partial(live, kind, seed), seed)
        study(f"gan/live/{seed}", partial(live_gan, seed), seed)
    for kind in ("dit", "unet"):
        for lr in RATES:
            study(f"rate/{kind}/{lr:g}/0", partial(rated, kind, lr))
    for seed in range(5):
        for name, how in {"shipped": SHIPPED, "throughout": THROUGH}.items():
            run = partial(shipped_digits, seed, how)
            study(f"{name}/digits/{seed}", partial(in_half, run))
        study(f"gan/shipped/{seed}", partial(shipped_gan, seed))
        copies = partial(photocopies, ASKED, seed=seed)
        study(f"photocopies/{seed}", lambda copies=copies: with_copies(copies()))
    for seed in range(3):
        for guidance in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 2.0):
            run = partial(tuned, seed, guidance=guidance)
            study(f"tune/digits/{guidance:g}/{seed}", partial(in_half, run))
        run = partial(tuned, seed, **THROUGH)
        study(f"tune/throughout/{seed}", partial(in_half, run))
        for guidance, between in MIDDLE:
            how = {"guidance": guidance, "between": between, "steps": 20}
            name = "tune/middle/{:g}, {:g} to {:g}/{}".format(guidance, *between, seed)
            study(name, partial(in_half, partial(tuned, seed, **how)))
        study(f"tune/gan/{seed}", partial(tuned_gan, seed))
    for guidance in (1.0, 2.0, 3.0):
        run = partial(portrayed, "valid", 0, guidance=guidance)
        study(f"valid/portraits/{guidance:g}/0", run)
    for seed in range(3):
        study(f"shipped/portraits/{seed}", partial(portrayed, "test", seed))
    for seed in range(2):
        for way in ("flow", "DDIM", "DDPM"):
            for steps in (2, 4, 8, 16):
                run = partial(walked, way, steps, seed)
                study(f"steps/{way}/{steps}/{seed}", partial(in_half, run))


if __name__ == "__main__":
    main()
