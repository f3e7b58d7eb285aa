"""Convolutional residual networks: stems, shortcuts, parallel branches, concatenations."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv


class StemBeforeIdentity(Tiny):
    """ResNet-18: the first block's skip is the stem itself."""

    expected = {
        "bn1.weight": "trunk exact output batch_norm",
        "bn2.weight": "absorbed exact",
        "bn3.weight": "last exact output",
        "bn4.weight": "absorbed",
        "bn5.weight": "last",
    }

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = conv(6, 6), nn.BatchNorm2d(6)
        self.conv4, self.bn4 = conv(6, 6), nn.BatchNorm2d(6)
        self.conv5, self.bn5 = conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(x + self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x))))))
        x = F.relu(x + self.bn5(self.conv5(F.relu(self.bn4(self.conv4(x))))))
        return self.fc(x.mean((2, 3)))


class StemBeforeProjection(Tiny):
    """ResNet-50: both readers of the stem normalise it; the projection shortcut keeps the scale of its norm."""

    expected = {
        "bn1.weight": "absorbed exact",
        "bn2.weight": "absorbed exact",
        "bn3.weight": "last exact output",
        "down.1.weight": "shortcut exact output",
    }

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 4), nn.BatchNorm2d(4)
        self.conv3, self.bn3 = conv(4, 8, stride=2), nn.BatchNorm2d(8)
        self.down = nn.Sequential(conv(6, 8, 1, stride=2), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn3(self.conv3(F.relu(self.bn2(self.conv2(x))))) + self.down(x))
        return self.fc(x.mean((2, 3)))


class PreActivation(Tiny):
    """ResNet-v2: a norm read by the branch and by the projection is on the trunk, the next ones are not."""

    expected = {
        "norm1.weight": "trunk",
        "norm2.weight": "last exact input",
        "norm3.weight": "last exact input",
        "norm4.weight": "absorbed exact",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 6)
        self.norm1, self.conv1, self.down = nn.BatchNorm2d(6), conv(6, 8), conv(6, 8, 1)
        self.norm4, self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8), conv(8, 8)
        self.norm3, self.conv3 = nn.BatchNorm2d(8), conv(8, 8)
        self.conv4, self.norm, self.fc = conv(8, 8), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(self.norm1(x))
        x = self.down(y) + self.conv2(F.relu(self.norm2(self.conv1(y))))
        x = x + self.conv4(F.relu(self.norm3(self.conv3(F.relu(self.norm4(x))))))
        return self.fc(F.relu(self.norm(x)).mean((2, 3)))


class PooledSkip(Tiny):
    """ResNet-D: the skip is pooled before its projection; a pooled identity is a skip as well."""

    expected = {
        "bn1.weight": "absorbed exact",
        "bn0.weight": "absorbed exact",
        "bn2.weight": "last",
        "down.2.weight": "shortcut",
        "bn3.weight": "last",
        "down2.2.weight": "shortcut",
        "bn4.weight": "absorbed",
        "bn5.weight": "last",
    }

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv0, self.bn0 = conv(6, 6), nn.BatchNorm2d(6)
        self.conv4, self.bn4, self.conv5, self.bn5 = (
            conv(8, 8),
            nn.BatchNorm2d(8),
            conv(8, 4, stride=2),
            nn.BatchNorm2d(4),
        )
        self.down2 = nn.Sequential(nn.AvgPool2d(2), conv(8, 4, 1), nn.BatchNorm2d(4))
        self.conv2, self.bn2 = conv(6, 8, stride=2), nn.BatchNorm2d(8)
        self.down = nn.Sequential(nn.AvgPool2d(2), conv(6, 8, 1), nn.BatchNorm2d(8))
        self.conv3, self.bn3 = conv(8, 8, stride=2), nn.BatchNorm2d(8)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn0(self.conv0(x))))) + self.down(x))
        x = F.relu(self.bn3(self.conv3(x)) + F.avg_pool2d(x, 2))
        x = F.relu(self.bn5(self.conv5(F.relu(self.bn4(self.conv4(x))))) + self.down2(x))
        return self.fc(x.mean((2, 3)))


class PaddedSkip(Tiny):
    """CIFAR ResNets of type A: the skip is subsampled and padded with zero channels."""

    expected = {"bn1.weight": "trunk", "bn2.weight": "last"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 8, stride=2), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return self.fc(x.mean((2, 3)))


class ConstantOnTheSkip(Tiny):
    """Inception-ResNet, NFNets: a constant factor on the branch, or on the skip, changes no side."""

    expected = {"bn1.weight": "trunk", "bn2.weight": "last", "bn3.weight": "last"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = 0.7 * x + self.bn2(self.conv2(x))
        x = x / 1.3 + 0.2 * self.bn3(self.conv3(x))
        return self.fc(x.mean((2, 3)))


class DropoutOnTheSkip(Tiny):
    """A skip that passes through dropout is still the skip."""

    expected = {"bn1.weight": "trunk", "bn2.weight": "last", "bn3.weight": "last"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = conv(6, 6), nn.BatchNorm2d(6)
        self.drop, self.fc = nn.Dropout(0.1), nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.drop(x) + self.bn2(self.conv2(x))
        x = self.drop(x) + self.drop(self.bn3(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


class StochasticDepth(Tiny):
    """A branch kept or dropped per sample, by a mask made of its shape."""

    expected = {"bn1.weight": "trunk", "bn2.weight": "last exact", "bn3.weight": "last"}

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 6), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = conv(6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    @staticmethod
    def drop_path(x):
        kept = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.9)
        return x * kept.div_(0.9)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x + self.drop_path(self.bn2(self.conv2(x)))
        x = x + self.drop_path(self.bn3(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


class ThreeSidesWithIdentity(Tiny):
    """RepVGG, MobileOne: convolution, pointwise and identity, each with its norm, in one sum.

    The identity's norm is on the skip side, inside the block. The first block's stem is normalised by all three.
    """

    expected = {
        "stem.1.weight": "absorbed exact",
        "dense.1.weight": "last",
        "point.1.weight": "last",
        "identity.weight": "shortcut",
    }

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 6), nn.BatchNorm2d(6), nn.ReLU())
        self.dense = nn.Sequential(conv(6, 6), nn.BatchNorm2d(6))
        self.point = nn.Sequential(conv(6, 6, 1), nn.BatchNorm2d(6))
        self.identity, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.dense(x) + self.point(x) + self.identity(x))
        return self.fc(x.mean((2, 3)))
