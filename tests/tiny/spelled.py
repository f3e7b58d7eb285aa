"""Residual sums that other ops than an addition write."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv, image, sequence


class Convolutional(Tiny):
    expected = {"bn0.weight": "trunk", "bn1.weight": "absorbed", "bn2.weight": "last", "bn3.weight": "final"}

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.conv2, self.conv3 = conv(3, 6), conv(6, 6), conv(6, 6), conv(6, 6)
        self.bn0, self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(6) for _ in range(4))
        self.fc = nn.Linear(6, 5)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def join(self, x: torch.Tensor, branch: torch.Tensor) -> Any:
        raise NotImplementedError

    def forward(self, x):
        x = F.relu(self.bn0(self.conv0(x)))
        x = self.join(x, self.branch(x))
        return self.fc(F.relu(self.bn3(self.conv3(x))).mean((2, 3)))


class FusedLayerScale(Convolutional):
    """LayerScale and the residual addition in one op."""

    takes = (image(),)
    expected = Convolutional.expected | {"bn2.weight": "last exact output"}

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 6, 1, 1))

    def join(self, x, branch):
        return torch.addcmul(x, self.scale, branch)


class Interpolated(Convolutional):
    """A highway: a gate says how much of the branch takes the place of x."""

    takes = (image(),)
    expected = Convolutional.expected | {"bn2.weight": "last rough"}

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(6, 6, 1)

    def join(self, x, branch):
        return torch.lerp(x, branch, torch.sigmoid(self.gate(x)))


class GlobalContext(Convolutional):
    """A branch that adds the same at every position of a channel."""

    takes = (image(),)

    def branch(self, x):
        return super().branch(F.adaptive_avg_pool2d(x, 1))

    def join(self, x, branch):
        return x + branch


class Subtracted(Convolutional):
    """DnCNN: a branch of noise that is taken off is a branch."""

    takes = (image(),)
    expected = Convolutional.expected | {"bn2.weight": "last exact output"}

    def join(self, x, branch):
        return x - branch


class PartOfTheBatch(Tiny):
    """DINOv2: stochastic depth adds a branch to some examples."""

    takes = (sequence(),)
    expected = {"norm0.weight": "trunk", "norm1.weight": "last exact input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.mlp, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.norm0, self.norm1, self.norm = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        x = self.norm0(self.embed(x))
        some = torch.randperm(4)[:2]
        branch = self.mlp(self.norm1(x[some]))
        x = torch.index_add(x.flatten(1), 0, some, branch.flatten(1), alpha=2.0).view_as(x)
        return self.fc(self.norm(x))


class AddedToAProduct(Tiny):
    """A matrix product that adds x in the same op, by rows and by batches."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last exact input", "norm2.weight": "last exact input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.one, self.two, self.fc = (nn.Linear(8, 8) for _ in range(4))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        x = self.embed(x)
        x = torch.addmm(x.flatten(0, 1), self.norm1(x).flatten(0, 1), self.one.weight).view_as(x)
        x = torch.baddbmm(x, self.norm2(x), self.two.weight.expand(4, 8, 8))
        return self.fc(self.norm(x))
