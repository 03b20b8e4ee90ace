"""Two processes compute what one does: by hand, by DDP, sharded by hand, by FSDP.

    torchrun --standalone --nproc-per-node 2 examples/same_gradients.py OUT

Three steps on 192 digits in batches of 64, each process on its share. Process 0 writes
losses and weights to OUT/found.safetensors. Then it runs `train_ddp.py` undisturbed.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from mmcourse.checkpoint import write_tensors
from mmcourse.datasets import mnist
from mmcourse.measure import seeded
from mmcourse.scale import average_gradients, sharded_step
from mmcourse.training import mlp

LR = 0.5


def batches():
    "This process's share of each of the three batches."
    digits = mnist("train")
    x, y = (torch.tensor(digits[k][:192]) for k in ("image", "label"))
    rank, world = dist.get_rank(), dist.get_world_size()
    for a, b in zip(x.split(64), y.split(64)):
        yield a[rank::world], b[rank::world]


def network(batch_norm: bool = False) -> nn.Module:
    with seeded(0):
        if not batch_norm:
            return mlp(hidden=32)
        layers = nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU()
        return nn.Sequential(*layers, nn.Linear(32, 10))


def mean(value) -> float:
    "The mean over all processes."
    t = torch.tensor(float(value))
    dist.all_reduce(t)
    return t.item() / dist.get_world_size()


def descend(model: nn.Module, by_hand: bool = False) -> list[float]:
    "Three steps of SGD; the mean losses."
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=LR), []
    for a, b in batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(a), b)
        loss.backward()
        if by_hand:
            average_gradients(model)
        optimizer.step()
        losses.append(mean(loss.item()))
    return losses


def by_hand():
    model = network()
    return descend(model, by_hand=True), model.parameters(), None


def ddp(batch_norm: bool = False):
    model = DistributedDataParallel(network(batch_norm))
    return descend(model), model.parameters(), None


def sharded_by_hand():
    model, world = network(), dist.get_world_size()
    flat = parameters_to_vector(model.parameters()).detach()
    own = F.pad(flat, (0, -len(flat) % world)).chunk(world)[dist.get_rank()].clone()
    losses = []
    for a, b in batches():

        def loss(m, a=a, b=b):
            return F.cross_entropy(m(a), b)

        losses.append(mean(sharded_step(model, own, loss, LR)))
    parts = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather(parts, own)
    return losses, [torch.cat(parts)[: len(flat)]], len(own)


def fsdp():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model[1], model[4]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    losses = descend(model)
    held = sum(p.to_local().numel() for p in model.parameters())
    return losses, [p.full_tensor() for p in model.parameters()], held


def main(out: Path):
    dist.init_process_group("gloo")
    ways = {"by hand": by_hand, "DDP": ddp, "sharded by hand": sharded_by_hand}
    import torch.distributed.fsdp as library

    if hasattr(library, "fully_shard"):  # from torch 2.6 on
        ways["FSDP"] = fsdp
    found, held = {}, {}
    for name, way in ways.items():
        losses, weights, kept = way()
        found[f"{name} losses"] = torch.tensor(losses)
        found[f"{name} weights"] = torch.cat([w.detach().flatten() for w in weights])
        if kept:
            held[name] = kept
    _, weights, _ = ddp(batch_norm=True)
    found["batch norm weights"] = torch.cat([w.detach().flatten() for w in weights])
    if dist.get_rank() == 0:
        about = {"ways": list(ways), "held": held}
        write_tensors(out / "found.safetensors", found, about)
        print(f"{dist.get_world_size()} processes, {len(ways)} ways, three steps each")
    from train_ddp import options, train

    train(options(["--steps", "20", "--every", "5", "--out", str(out)]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
