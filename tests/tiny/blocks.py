"""What stands in the blocks of convolutional networks: gates, response norms, layer scale, made weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv, image


class PlainStack(Tiny):
    """VGG: no add at all. Biases are taken off by the norm per channel; the last norm goes out."""

    expected = {"net.1.weight": "absorbed exact", "net.5.weight": "absorbed exact", "net.8.weight": "final"}

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.LeakyReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.PReLU(),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.BatchNorm2d(6),
        )
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(F.relu(self.net(x)).mean((2, 3)))


class SqueezeExcite(Tiny):
    """A norm inside squeeze-and-excitation reaches a sigmoid only."""

    expected = {"bn1.weight": "trunk", "bn2.weight": "last", "bn_se.weight": "gate rough layer_norm"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 6), nn.BatchNorm2d(6)
        self.squeeze, self.bn_se, self.excite = nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        gate = torch.sigmoid(self.excite(F.relu(self.bn_se(self.squeeze(y.mean((2, 3)))))))
        x = F.relu(x + y * gate[:, :, None, None])
        return self.fc(x.mean((2, 3)))


class PoolFormer(Tiny):
    """A token mixer without any weights: pooling minus the identity."""

    expected = {"norm1.weight": "last exact output group_norm", "norm2.weight": "last input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(1, 6), nn.GroupNorm(1, 6)
        self.fc1, self.fc2 = nn.Conv2d(6, 12, 1), nn.Conv2d(12, 6, 1)
        self.norm, self.fc = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm1(x)
        x = x + (F.avg_pool2d(y, 3, 1, 1) - y)
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.fc(self.norm(x.mean((2, 3))))


class GlobalResponse(Tiny):
    """ConvNeXt V2: GRN adds its input to a function of it, which is no residual, and holds no norm gamma."""

    takes = (image(6),)
    expected = {"norm.weight": "last layer_norm", "head.weight": "final"}

    def __init__(self):
        super().__init__()
        self.mix, self.norm = conv(6, 6, groups=6), nn.LayerNorm(6)
        self.fc1, self.fc2 = nn.Linear(6, 12), nn.Linear(12, 6)
        self.weight, self.bias = nn.Parameter(torch.ones(12)), nn.Parameter(torch.zeros(12))
        self.head, self.fc = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        y = F.gelu(self.fc1(self.norm(self.mix(x).permute(0, 2, 3, 1))))
        size = y.norm(p=2, dim=(1, 2), keepdim=True)
        y = y + (self.bias + self.weight * (y * (size / (size.mean(-1, keepdim=True) + 1e-6))))
        x = x + self.fc2(y).permute(0, 3, 1, 2)
        return self.fc(self.head(x.mean((2, 3))))


class LayerScale(Tiny):
    """ConvNeXt, CaiT: a learned gain on the branch is no norm gamma."""

    takes = (image(6),)
    expected = {"norm.weight": "last", "head.weight": "final"}

    def __init__(self):
        super().__init__()
        self.mix, self.norm = conv(6, 6, groups=6), nn.LayerNorm(6)
        self.fc1, self.fc2, self.gamma = nn.Linear(6, 12), nn.Linear(12, 6), nn.Parameter(torch.full((6,), 0.5))
        self.head, self.fc = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        y = self.fc2(F.gelu(self.fc1(self.norm(self.mix(x).permute(0, 2, 3, 1))))) * self.gamma
        return self.fc(self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3))))


class WeightStandardisation(Tiny):
    """BiT, NFNets: batch_norm on a weight has no gamma of an activation, whatever its gain is called."""

    expected = {"norm1.weight": "absorbed exact group_norm", "norm2.weight": "final"}

    def __init__(self):
        super().__init__()
        self.weight1, self.gain = nn.Parameter(torch.randn(6, 3, 3, 3)), nn.Parameter(torch.ones(6))
        self.weight2 = nn.Parameter(torch.randn(6, 6, 3, 3))
        self.norm1, self.norm2, self.fc = nn.GroupNorm(2, 6), nn.GroupNorm(2, 6), nn.Linear(6, 5)

    def forward(self, x):
        weight = F.batch_norm(self.weight1.reshape(1, 6, -1), None, None, weight=self.gain, training=True)
        x = F.relu(self.norm1(F.conv2d(x, weight.reshape_as(self.weight1), padding=1)))
        mean = self.weight2.mean((1, 2, 3), keepdim=True)
        std = self.weight2.std((1, 2, 3), keepdim=True)
        x = F.relu(self.norm2(F.conv2d(x, (self.weight2 - mean) / (std + 1e-5), padding=1)))
        return self.fc(x.mean((2, 3)))
