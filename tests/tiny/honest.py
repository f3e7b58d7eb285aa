"""Where nothing can be said: no graph, no rule, no norm; those gammas are `unknown`, or there are none."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv, image, sequence


class LeavesTorch(Tiny):
    """A forward that leaves torch can't be traced: every gamma is unknown."""

    takes = (image(),)
    expected = {"bn1.weight": "unknown rough batch_norm", "norm.weight": "unknown layer_norm"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.norm, self.fc = conv(3, 6), nn.BatchNorm2d(6), nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x + float(x.detach().numpy().sum() > 0)
        return self.fc(self.norm(x.mean((2, 3))))


class DataDependent(Tiny):
    """A branch on the data does not export: the path that the inputs take is read, and the question itself is none."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed rough", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.norm, self.fc = conv(3, 6), nn.BatchNorm2d(6), nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if x.sum() > 0:
            x = F.gelu(x)
        return self.fc(self.norm(x.mean((2, 3))))


class AsksItsIntegers(Tiny):
    """FSMT: whether any token is padding decides the way; the values of integers are known while tracing."""

    takes = (torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]]),)
    expected = {"norm1.weight": "last input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.mlp = nn.Embedding(10, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, ids):
        padding = ids == 0
        x = self.embed(ids)
        if padding.any():
            x = x.masked_fill(padding.unsqueeze(-1), 0)
        return self.fc(self.norm(x + self.mlp(F.gelu(self.norm1(x)))))


class ReadForAMaskFirst(Tiny):
    """EoMT: the last norm's first use only decides a mask; what the model returns depends on its second."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last", "norm.weight": "final rough"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.mlp = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        mask = self.fc(self.norm(x)) > 0
        x = x + self.mlp(F.gelu(self.norm1(x)))
        return self.fc(self.norm(x)).masked_fill(mask, -1.0)


class LayerDrop(Tiny):
    """BART: a layer dropped by chance in train mode has a graph in eval mode."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last", "norm.weight": "final"}
    computes = False

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.mlp = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        if not (self.training and torch.rand([]) < 0.5):
            x = x + self.mlp(F.gelu(self.norm1(x)))
        return self.fc(self.norm(x))


@torch.library.custom_op("gammareg_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    """An op that nobody has ruled on."""
    return x.clone()


@mystery.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class UnruledOp(Tiny):
    """An op without a row makes what depends on it unknown, and only that."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed exact", "bn2.weight": "unknown rough", "bn3.weight": "final"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3, self.fc = conv(6, 6), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(F.relu(self.bn3(self.conv3(mystery(x)))).mean((2, 3)))


class NotReached(Tiny):
    """A part that the example inputs do not reach, and a norm whose output nobody reads."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last", "aside.weight": "unknown", "cross.weight": "unknown", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.mlp = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.aside, self.cross, self.norm, self.fc = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x, memory=None):
        x = self.embed(x)
        x = x + self.mlp(F.gelu(self.norm1(x)))
        self.aside(x)
        if memory is not None:
            x = x + self.cross(memory)
        return self.fc(self.norm(x))


class AsideOnly(Tiny):
    """What nothing returned depends on (an assertion, a statistic thrown away) decides nothing."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed exact", "bn2.weight": "final exact"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        torch.sigmoid(x.mean())
        x + self.conv2(x)
        return self.fc(self.bn2(self.conv2(x)).mean((2, 3)))


class NoNorms(Tiny):
    """A model without any norm has no gammas."""

    takes = (image(),)
    expected = {}

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = conv(3, 6), conv(6, 6), nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        return self.fc((x + self.conv2(x)).mean((2, 3)))


class NormOfTheInput(Tiny):
    """A norm of the data before any weight, and a bare norm as the whole tail."""

    takes = (sequence(),)
    expected = {"enter.weight": "trunk", "norm1.weight": "last", "leave.weight": "final exact"}

    def __init__(self):
        super().__init__()
        self.enter, self.norm1, self.mlp, self.leave = (
            nn.LayerNorm(8),
            nn.LayerNorm(8),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
        )

    def forward(self, x):
        x = self.enter(x)
        return self.leave(x + self.mlp(F.relu(self.norm1(x))))
