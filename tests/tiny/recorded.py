"""Forwards that do more than compute, some of them recorded: the graph is the usual one, and so are the roles."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy
import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, sequence


class Stream(Tiny):
    takes = (sequence(),)
    expected = {"norm1.weight": "last", "norm2.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.mlp1, self.mlp2, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)

    def block(self, x, norm, mlp):
        return x + mlp(norm(x))

    def forward(self, x):
        x = self.block(self.embed(x), self.norm1, self.mlp1)
        return self.fc(self.norm(self.block(x, self.norm2, self.mlp2)))


@dataclass
class Answer:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class ReturnsADataclass(Stream):
    """The answer is an object that torch knows nothing of."""

    computes = False

    def forward(self, x):
        return Answer(super().forward(x))


class ReadsWhatItsHookKept(Stream):
    """U-Nets around a backbone: a hook of the model's own keeps a feature that its forward goes on with."""

    def __init__(self):
        super().__init__()
        self.kept = {}
        self.mlp1.register_forward_hook(lambda module, args, made: self.kept.update(made=made))

    def forward(self, x):
        x = self.block(self.embed(x), self.norm1, self.mlp1)
        return self.fc(self.norm(self.block(x, self.norm2, self.mlp2) + self.kept["made"]))


class DropsByNumpy(Stream):
    """Layers that survive above a rate, by NumPy's generator."""

    computes = False

    def block(self, x, norm, mlp):
        return super().block(x, norm, mlp) if not self.training or numpy.random.rand() > 0.9 else x


class DropsByRandom(Stream):
    """Layers that survive below a rate, by Python's generator."""

    computes = False

    def block(self, x, norm, mlp):
        return super().block(x, norm, mlp) if not self.training or random.random() < 0.1 else x


class TriesAnotherCall(Stream):
    """Each module is called with lengths, and without where it takes none."""

    def block(self, x, norm, mlp):
        try:
            return x + mlp(norm(x, lengths=None))
        except TypeError:
            return super().block(x, norm, mlp)


class PacksItsRows(Tiny):
    """A tagger: rows of several lengths, packed for an LSTM, whose gates end the factor."""

    takes = (sequence(), torch.tensor([6, 5, 5, 2]))
    expected = {"enter.weight": "gate", "norm.weight": "final"}
    computes = False

    def __init__(self):
        super().__init__()
        self.enter, self.lstm = nn.LayerNorm(8), nn.LSTM(8, 8, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.enter(x), lengths.cpu(), batch_first=True)
        x, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.fc(self.norm(x))


class MultipliesBySparse(Tiny):
    """A graph network: the neighbours' sum is a product with a sparse matrix."""

    takes = (sequence()[0], torch.eye(6).roll(1, 0).to_sparse())
    expected = {"bn1.weight": "absorbed", "bn2.weight": "final"}
    computes = False

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = (
            nn.Linear(8, 8),
            nn.BatchNorm1d(8),
            nn.Linear(8, 8),
            nn.BatchNorm1d(8),
        )
        self.fc = nn.Linear(8, 5)

    def forward(self, x, adjacency):
        x = F.relu(self.bn1(torch.sparse.mm(adjacency, self.conv1(x))))
        return self.fc(self.bn2(torch.sparse.mm(adjacency, self.conv2(x))))


class FakeQuantised(Stream):
    """Training for eight bits: what is rounded and clamped still grows with its input."""

    expected = {"norm1.weight": "last rough", "norm2.weight": "last rough", "norm.weight": "final"}
    computes = False

    def block(self, x, norm, mlp):
        return x + torch.fake_quantize_per_tensor_affine(mlp(norm(x)), 0.1, 0, -128, 127)


class MapsOverHeads(Stream):
    """An ensemble: one linear head for each row of a stack of weights, by vmap."""

    computes = False

    def __init__(self):
        super().__init__()
        self.fc, self.heads = nn.Identity(), nn.Parameter(torch.randn(3, 5, 8))

    def forward(self, x):
        x = super().forward(x)
        return torch.vmap(lambda head: F.linear(x, head))(self.heads)
