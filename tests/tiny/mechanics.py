"""How the forward pass is written: in-place ops, views, checkpoints, autocast, hooks of torch's own."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tiny import Tiny, conv, image, sequence


class InPlace(Tiny):
    """timm: relu_, add_ and mul_ write over what others read by another name."""

    takes = (image(),)
    expected = {"bn1.weight": "trunk exact", "bn2.weight": "absorbed exact", "bn3.weight": "last", "bn4.weight": "last"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3, self.conv4, self.bn4 = conv(6, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(6, 5)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        y.mul_(0.5)
        y.add_(x)
        x = y.relu_()
        x += self.bn4(self.conv4(x))
        return self.fc(x.mean((2, 3)))


class WriteIntoView(Tiny):
    """XCiT, CaiT: the class token alone is updated, in a view; readers of the whole read it too."""

    takes = (sequence(),)
    expected = {
        "norm1.weight": "last",
        "norm2.weight": "last",
        "norm3.weight": "last",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.fc1, self.fc2, self.fc3 = (nn.Linear(8, 8) for _ in range(4))
        self.norm1, self.norm2, self.norm3, self.norm = (nn.LayerNorm(8) for _ in range(4))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        x[:, 0] += self.fc1(self.norm1(x)).mean(1)
        x[:, 1:, :4].add_(self.fc2(self.norm2(x))[:, 1:, :4])
        x = x + self.fc3(self.norm3(x))
        return self.fc(self.norm(x))


class WriteBranchIntoZeros(Tiny):
    """Parts written into fresh zeros are put side by side."""

    takes = (sequence(),)
    expected = {"norm0.weight": "absorbed", "norm1.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm0, self.fc0 = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.norm1, self.norm, self.fc = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        y = self.norm1(self.fc0(self.norm0(x)))
        z = torch.zeros_like(y)
        z[:, :3] = y[:, :3]
        z[:, 3:].copy_(y[:, 3:])
        return self.fc(self.norm(x + z))


class WriteTwice(Tiny):
    """A view written to twice, by its own name and by what the first write returned."""

    takes = (sequence(),)
    expected = {"norm0.weight": "absorbed", "norm1.weight": "last", "norm2.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm0, self.fc0 = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.norm1, self.norm2, self.norm, self.fc = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        y = self.fc0(self.norm0(x))
        z = torch.zeros_like(x)
        first, second = z.chunk(2, 1)
        first.add_(self.norm1(y)[:, :3]).mul_(2).relu_()
        second.copy_(self.norm2(y)[:, 3:])
        second.mul_(3)
        return self.fc(self.norm(x + z))


class Checkpointed(Tiny):
    """Activation checkpointing puts a block into a subgraph."""

    takes = (image(),)
    expected = {"bn1.weight": "trunk", "bn2.weight": "absorbed exact", "bn3.weight": "last", "bn4.weight": "last"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3, self.conv4, self.bn4 = conv(6, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def block(self, x):
        return x + self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x)))))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = checkpoint(self.block, x, use_reentrant=False)
        x = x + checkpoint(lambda y: self.bn4(self.conv4(y)), x, use_reentrant=False)
        return self.fc(x.mean((2, 3)))


class Autocast(Tiny):
    """Regions of autocast, and of autocast and gradients switched off, are read in place."""

    takes = (image(),)
    expected = {"bn1.weight": "trunk", "bn2.weight": "absorbed", "bn3.weight": "last"}
    computes = False

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3, self.fc = conv(6, 6), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x):
        with torch.no_grad():
            x = F.relu(self.bn1(self.conv1(x)))
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            y = self.conv2(x)
            with torch.autocast(x.device.type, enabled=False):
                y = F.relu(self.bn2(y.float()))
            y = self.conv3(y)
        return self.fc((x + self.bn3(y.float())).mean((2, 3)))


class WeightNorm(Tiny):
    """torch's weight norm and spectral norm compute the weight: no gammas, nothing in the way."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed", "bn2.weight": "final"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.utils.parametrizations.weight_norm(conv(3, 6)), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.utils.parametrizations.spectral_norm(conv(6, 6)), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3)))


class FrozenNorm(Tiny):
    """Gammas that do not train, and norms without gains: the first are reported, the second are none."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed exact", "bn3.weight": "final"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6)
        self.bn2, self.conv3, self.bn3 = nn.BatchNorm2d(6, affine=False), conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)
        self.bn1.requires_grad_(False)

    def forward(self, x):
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(F.relu(self.bn3(self.conv3(x))).mean((2, 3)))


class StandingStatistics(Tiny):
    """A norm on running statistics, whatever the mode: an affine map that cancels nothing."""

    takes = (image(),)
    expected = {"bn1.weight": "final", "bn2.weight": "final"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        bn = self.bn2
        x = F.batch_norm(self.conv2(x), bn.running_mean, bn.running_var, bn.weight, bn.bias, training=False)
        return self.fc(F.relu(x).mean((2, 3)))


class OutputsInADict(Tiny):
    """Several outputs, one of them an inner value of the first: it decides nothing."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed exact", "bn2.weight": "absorbed exact", "bn3.weight": "final"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3, self.fc = conv(6, 6), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x):
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return {"logits": self.fc(F.relu(self.bn3(self.conv3(inner))).mean((2, 3))), "aside": {"inner": [inner]}}


class KeptFrozen(Tiny):
    """A model that keeps its norms on running statistics in train mode: maps that cancel nothing."""

    takes = (image(),)
    expected = {"bn1.weight": "final batch_norm", "bn2.weight": "final exact"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def train(self, mode=True):
        super().train(mode)
        self.bn1.eval()
        self.bn2.eval()
        return self

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        return self.fc(self.bn2(self.conv2(x)).mean((2, 3)))


class OneKeptFrozen(KeptFrozen):
    """A norm by the batch after a frozen one cancels it, and the constant that it adds."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed batch_norm", "bn2.weight": "final exact"}

    def train(self, mode=True):
        super().train(mode)
        self.bn2.train(mode)
        return self
