"""Train a reader of digits in several processes, and go on after a failure.

One machine, two processes on its CPU:

    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py --out runs/a

Two machines with eight GPUs each; on both, with the name of the first:

    torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d \\
        --rdzv-endpoint FIRST:29400 --rdzv-id a examples/train_ddp.py --out /shared/a

OUT is a folder that all machines see. OUT/last.safetensors has weights, moments and
losses; a run that finds it goes on from it. OUT/log has events for TensorBoard, where
it is installed. Killing process 1 on purpose (`--kill-at`) is for chapter 35.
"""

import argparse
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mmcourse.checkpoint import load_checkpoint, save_checkpoint
from mmcourse.datasets import mnist
from mmcourse.measure import seeded
from mmcourse.scale import shard
from mmcourse.training import mlp, warmup_cosine


def options(words=None) -> argparse.Namespace:
    usual = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=usual)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument(
        "--batch", type=int, default=64, help="of all processes together"
    )
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--every", type=int, default=50, help="steps between checkpoints"
    )
    parser.add_argument("--backend", choices=["gloo", "nccl"])
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument(
        "--kill-at", type=int, help="step before which process 1 dies, once"
    )
    args = parser.parse_args(words)
    for name in ("steps", "batch", "hidden", "every"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(args, name)}")
    return args


def join(backend: str):
    "Meet the other processes."
    store, rank, world = next(rendezvous("env://"))
    # torchrun may keep one store over restarts: do not read a dead process's address
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)


def place(backend: str | None) -> torch.device:
    "Join the other processes, and take this one's own GPU, or the CPU."
    gpus = torch.cuda.is_available() and backend != "gloo"
    if not dist.is_initialized():
        join(backend or ("nccl" if gpus else "gloo"))
    if dist.get_backend() != "nccl":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def rows_of(step: int, n: int, args) -> torch.Tensor:
    "Which examples this process reads in a step: known from seed and step alone."
    rank, world = dist.get_rank(), dist.get_world_size()
    share = max(1, args.batch // world)
    epoch, batch = divmod(step, max(1, -(-n // world) // share))
    order = shard(n, rank, world, seed=args.seed, epoch=epoch)
    return order[batch * share : (batch + 1) * share]


def mean_loss(loss: torch.Tensor) -> float:
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def log_writer(folder: Path, start: int):
    "TensorBoard's writer in process 0; None elsewhere, and where it is missing."
    if dist.get_rank():
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start or None)


def die_once(step: int, args):
    "Process 1 kills itself, if that was asked for and was not done yet."
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if step != args.kill_at or not first:
        return
    dist.barrier()  # the others have finished and logged the step before
    if dist.get_rank() == 1:
        print(f"process 1 dies before step {step}", flush=True)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def train(args):
    device = place(args.backend)
    digits = mnist("train")
    x, y = (torch.tensor(digits[k], device=device) for k in ("image", "label"))
    with seeded(args.seed):
        model = mlp(hidden=args.hidden).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    last, losses = args.out / "last.safetensors", []
    if last.exists():
        losses = load_checkpoint(last, model, optimizer)["about"]["losses"]
    start = len(losses)
    if start and dist.get_rank() == 0:
        print(f"goes on from step {start}", flush=True)
    writer = log_writer(args.out / "log", start)
    ddp = DistributedDataParallel(model)
    for step in range(start, args.steps):
        die_once(step, args)
        rows = rows_of(step, len(x), args).to(device)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warmup_cosine(step, args.steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss = F.cross_entropy(ddp(x[rows]).float(), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(mean_loss(loss))
        if writer:
            writer.add_scalar("loss", losses[-1], step)
            writer.flush()
        done = step + 1 == args.steps
        if dist.get_rank() == 0 and (done or (step + 1) % args.every == 0):
            save_checkpoint(last, model, optimizer, about={"losses": losses})
    if writer:
        writer.close()
    if dist.get_rank() == 0:
        print(f"{args.steps} steps; the last loss is {losses[-1]:.4f}", flush=True)
    dist.barrier()


if __name__ == "__main__":
    train(options())
    dist.destroy_process_group()
