"""Parallel branches: sums without a skip, fusions, concatenations."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv


class ParallelWithoutIdentity(Tiny):
    """RepVGG's strided blocks: no skip, so the norm after the sum cancels both factors, jointly."""

    expected = {
        "dense.1.weight": "absorbed rough",
        "point.1.weight": "absorbed rough",
        "last.1.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.dense = nn.Sequential(conv(3, 6, stride=2), nn.BatchNorm2d(6))
        self.point = nn.Sequential(conv(3, 6, 1, stride=2), nn.BatchNorm2d(6))
        self.last = nn.Sequential(conv(6, 6), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.last(F.relu(self.dense(x) + self.point(x)))
        return self.fc(x.mean((2, 3)))


class Fusion(Tiny):
    """HRNet: sums of three resolutions, resampled: the side without weights is the skip of the others."""

    expected = {
        "high.1.weight": "trunk",
        "low.1.weight": "absorbed",
        "lowest.1.weight": "absorbed",
        "up1.1.weight": "last",
        "up2.1.weight": "last",
        "head.1.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.high = nn.Sequential(conv(3, 6), nn.BatchNorm2d(6), nn.ReLU())
        self.low = nn.Sequential(conv(6, 8, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.lowest = nn.Sequential(conv(8, 8, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.up1 = nn.Sequential(conv(8, 6, 1), nn.BatchNorm2d(6), nn.Upsample(scale_factor=2))
        self.up2 = nn.Sequential(conv(8, 6, 1), nn.BatchNorm2d(6), nn.Upsample(scale_factor=4))
        self.head = nn.Sequential(conv(6, 6), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        high = self.high(x)
        low = self.low(high)
        lowest = self.lowest(low)
        return self.fc(self.head(F.relu(high + self.up1(low) + self.up2(lowest))).mean((2, 3)))


class Inception(Tiny):
    """Concatenated branches: a norm per channel cancels each factor alone, a convolution mixes them first."""

    expected = {
        "one.1.weight": "absorbed exact",
        "three.1.weight": "absorbed exact",
        "norm.weight": "absorbed exact",
        "left.1.weight": "absorbed rough",
        "right.1.weight": "absorbed rough",
        "last.1.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(conv(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.three = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU())
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Sequential(conv(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.right = nn.Sequential(conv(8, 4), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Sequential(conv(8, 6), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.norm(torch.cat([self.one(x), self.three(x)], 1)))
        x = self.last(torch.cat([self.left(x), self.right(x)], 1))
        return self.fc(x.mean((2, 3)))


class Dense(Tiny):
    """DenseNet: features are concatenated, and every reader normalises per channel before it mixes them."""

    expected = {
        "norm0.weight": "absorbed exact",
        "norm1.weight": "absorbed exact",
        "norm2.weight": "absorbed exact",
        "norm3.weight": "absorbed exact",
        "norm4.weight": "final exact",
    }

    def __init__(self):
        super().__init__()
        self.conv0, self.norm0 = conv(3, 6), nn.BatchNorm2d(6)
        self.norm1, self.conv1 = nn.BatchNorm2d(6), conv(6, 4, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4), conv(4, 4)
        self.norm3, self.conv3 = nn.BatchNorm2d(10), conv(10, 4)
        self.norm4, self.fc = nn.BatchNorm2d(14), nn.Linear(14, 5, bias=False)

    def forward(self, x):
        features = [F.max_pool2d(F.relu(self.norm0(self.conv0(x))), 2)]
        x = F.relu(self.norm1(features[0]))
        features.append(self.conv2(F.relu(self.norm2(self.conv1(x)))))
        features.append(self.conv3(F.relu(self.norm3(torch.cat(features, 1)))))
        return self.fc(F.relu(self.norm4(torch.cat(features, 1))).mean((2, 3)))


class UNet(Tiny):
    """A skip by concatenation is no residual add: what both sides carry is cancelled, jointly, by the next norm."""

    expected = {
        "enter.1.weight": "absorbed rough",
        "down.1.weight": "absorbed exact",
        "deep.1.weight": "absorbed rough",
        "up.1.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.enter = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU())
        self.down = nn.Sequential(conv(4, 6, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.deep = nn.Sequential(conv(6, 6), nn.BatchNorm2d(6), nn.ReLU())
        self.wide = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.up = nn.Sequential(conv(8, 6), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.enter(x)
        deep = self.wide(self.deep(self.down(x)))
        return self.head(self.up(torch.cat([x, deep], 1)))
