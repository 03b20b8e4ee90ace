"""Seconds of the course's convolutions, gradients and pooling against torch's.

    python benchmarks/convolution.py

On one core; the functions take turns, and of each the fastest run counts.
"""

from timing import fastest, line  # first: it sets the number of threads

# isort: split
import torch
import torch.nn.functional as F

from mmcourse.convolution import (
    conv_grads,
    conv_im2col,
    conv_loops,
    conv_view,
    max_pool,
    windows,
)

SETTINGS = [
    (1, 16, 3, {}),
    (1, 16, 5, {"padding": 2}),
    (16, 32, 3, {"padding": 1}),
    (16, 32, 3, {"padding": 1, "stride": 2}),
    (16, 32, 3, {"padding": 2, "dilation": 2}),
    (16, 32, 3, {"padding": 1, "groups": 4}),
]


def conv_rows(x, w, groups=1, **knobs):
    "As `conv_im2col`, with one window in each row of the matrix."
    p = windows(x, *w.shape[2:], **knobs).unflatten(1, (groups, -1))
    B, G, c, P, Q, m, n = p.shape
    rows = p.permute(0, 1, 3, 4, 2, 5, 6).reshape(B, G, P * Q, c * m * n)
    filters = w.flatten(1).unflatten(0, (groups, -1))  # (G, O/G, c·m·n)
    y = (rows @ filters.mT).transpose(2, 3)  # (B, G, O/G, P·Q)
    return y.flatten(1, 2).unflatten(2, (P, Q))


def one_map():
    x, w = torch.rand(28, 28), torch.randn(3, 3)
    runs = [lambda: conv_loops(x, w), lambda: conv_view(x, w)]
    loops, view = fastest(*runs, repeats=20)
    line("28×28 pixels, 3×3 kernel: loops : view", loops, view)


def layers():
    for C, O, size, knobs in SETTINGS:
        groups = knobs.get("groups", 1)
        x, w = torch.rand(64, C, 28, 28), torch.randn(O, C // groups, size, size)
        calls = [
            lambda f=f, x=x, w=w, knobs=knobs: f(x, w, **knobs)
            for f in (conv_im2col, conv_rows, F.conv2d)
        ]
        for y in (calls[0](), calls[1]()):
            torch.testing.assert_close(y, calls[2](), atol=1e-3, rtol=1e-3)
        columns, rows, torchs = fastest(*calls, repeats=10)
        what = f"64×{C}×28×28, {O} filters {size}×{size} {knobs or ''}"
        line(f"{what}: a window a column : torch", columns, torchs)
        line(f"{what}: a window a row : a column", rows, columns)


def gradients():
    x = torch.rand(64, 8, 28, 28, requires_grad=True)
    w = torch.randn(16, 8, 3, 3, requires_grad=True)
    g = torch.randn_like(F.conv2d(x, w))
    ours, torchs = fastest(
        lambda: conv_grads(x.detach(), w.detach(), g),
        lambda: torch.autograd.grad(F.conv2d(x, w), (x, w), g),
    )
    line("gradients, 64×8×28×28, 16 filters 3×3: by hand : torch", ours, torchs)


def pooling():
    x = torch.rand(64, 16, 28, 28)
    ours, torchs = fastest(lambda: max_pool(x, 2), lambda: F.max_pool2d(x, 2))
    line("max pooling of 2, 64×16×28×28: ours : torch", ours, torchs)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one core")
    one_map()
    layers()
    gradients()
    pooling()
