"""Which recurrent networks recall a symbol after 60 and after 200 steps.

    python data/make_lstm_memory.py         # results/lstm_memory.json, some 20 minutes

The recall task of chapter 09 for networks of 32 units, by Adam with gradients clipped
at 1, three seeds; an arm is network/T/updates/rate/seed. `valid` chooses the rate,
`test` reports it (1,000 and 2,000 new sequences). All networks have 300 batches over
60 steps, at four rates; those that fail get five times as many, and three of those that
do not get 200 steps. (Chapter 10 runs the fourth of these itself.)
"""

import math

import torch
import torch.nn.functional as F
from study import Study
from torch import nn

from mmcourse.lstm import set_gate_biases
from mmcourse.measure import seeded
from mmcourse.recurrent import recall_task
from mmcourse.training import accuracy

UNITS = 32
RATES = 0.001, 0.003, 0.01, 0.02


class Recall(nn.Module):
    "A recurrent network and a linear layer on its last state."

    def __init__(self, net):
        super().__init__()
        self.net, self.head = net, nn.Linear(net.hidden_size, 4)

    def forward(self, x):
        return self.head(self.net(x)[0][:, -1])


def orthogonal(net):  # nn.RNN with a spectral radius of 1
    nn.init.orthogonal_(net.weight_hh_l0)
    return net


def patient(net, bias):  # nn.GRU whose update gate keeps
    H = net.hidden_size
    with torch.no_grad():
        net.bias_ih_l0[H : 2 * H], net.bias_hh_l0[H : 2 * H] = bias, 0
    return net


def made(name, T):
    kind = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}[name.split()[0]]
    net, b = kind(8, UNITS, batch_first=True), math.log(T - 1)
    starts = {
        "RNN orthogonal": lambda: orthogonal(net),
        "GRU keep": lambda: patient(net, b),
        "LSTM keep 1": lambda: set_gate_biases(net, 1.0),
        "LSTM keep": lambda: set_gate_biases(net, b),
        "LSTM keep and write": lambda: set_gate_biases(net, b, -b),
    }
    return starts.get(name, lambda: net)()


ASLEEP = "RNN", "GRU", "LSTM", "LSTM keep 1"
AWAKE = "RNN orthogonal", "GRU keep", "LSTM keep", "LSTM keep and write"
RUNS = (  # T, updates, networks
    (60, 300, ASLEEP + AWAKE),
    (60, 1500, ASLEEP),
    (200, 300, AWAKE[:-1]),
)


def remember(name, T, updates, lr, seed):
    with seeded(seed):
        model = Recall(made(name, T))
    g = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(updates):
        x, y = recall_task(32, T, g)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    sizes = {"valid": 1000, "test": 2000}
    return {k: accuracy(model, recall_task(n, T, g)) for k, n in sizes.items()}


def main():
    study = Study("lstm_memory", __doc__, units=UNITS)
    for T, updates, names in RUNS:
        for name in names:
            for lr in RATES:
                for seed in study.seeds(3):
                    arm = f"{name}/{T}/{updates}/{lr}/{seed}"
                    args = name, T, updates, lr, seed
                    study(arm, lambda a=args: remember(*a), seed=seed)


if __name__ == "__main__":
    main()
