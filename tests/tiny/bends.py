"""What makes a cancellation rough: ops that bend, constants that shift, factors cancelled only jointly."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv, image


class Between(Tiny):
    # Two norms with something between them.
    takes = (image(),)
    norm = nn.BatchNorm2d
    bias = False

    def __init__(self):
        super().__init__()
        self.conv1, self.first, self.conv2 = conv(3, 6), nn.BatchNorm2d(6), conv(6, 6, bias=self.bias)
        self.second, self.fc = self.norm(6), nn.Linear(6, 5)
        self.token = nn.Parameter(torch.randn(1, 6, 8, 8))
        self.shift = nn.Parameter(torch.randn(6))

    def forward(self, x):
        return self.fc(F.relu(self.second(self.between(self.first(self.conv1(x))))).mean((2, 3)))


def between(name: str, doc: str, exact: bool, change, **attributes) -> type[Tiny]:
    """A network with `change` between its two norms; the first is absorbed, exactly or roughly."""
    expected = {"first.weight": f"absorbed {'exact' if exact else 'rough'}", "second.weight": "final"}
    return type(
        name, (Between,), {"__doc__": doc, "__module__": __name__, "expected": expected, "between": change} | attributes
    )


def group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(2, width)


between(
    "Linear", "ReLU, pooling and convolution are homogeneous.", True, lambda m, x: m.conv2(F.avg_pool2d(F.relu(x), 2))
)
between("Gelu", "GELU bends.", False, lambda m, x: m.conv2(F.gelu(x)))
between("Silu", "SiLU bends.", False, lambda m, x: m.conv2(F.silu(x)))
between("Relu6", "ReLU6 bends, and does not gate.", False, lambda m, x: m.conv2(F.relu6(x)))
between("HardSwish", "Hard swish bends.", False, lambda m, x: m.conv2(F.hardswish(x)))
between(
    "SquaredRelu", "A square has the power two, and is cancelled exactly.", True, lambda m, x: m.conv2(F.relu(x) ** 2)
)
between(
    "ConvBias", "A bias per channel is taken off by the norm per channel.", True, lambda m, x: m.conv2(x), bias=True
)
between(
    "ConvBiasGroup",
    "A group norm does not take a bias off.",
    False,
    lambda m, x: m.conv2(x),
    bias=True,
    norm=staticmethod(group_norm),
)
between(
    "ConvGroup",
    "A group norm cancels a factor on all of its input.",
    True,
    lambda m, x: m.conv2(x),
    norm=staticmethod(group_norm),
)
between("BiasThenRelu", "After ReLU a bias can't be taken off.", False, lambda m, x: F.relu(m.conv2(x)), bias=True)
between("BiasThenDropout", "Nor after dropout, which zeroes it here and there.", False,
        lambda m, x: F.dropout2d(F.dropout(m.conv2(x), 0.3), 0.0), bias=True)  # fmt: skip
between("BiasThenPad", "Nor beside zeros.", False, lambda m, x: F.pad(m.conv2(x), (2, 2)), bias=True)
between("BiasThenShuffle", "Nor where channels become positions.", False,
        lambda m, x: F.pixel_shuffle(m.conv2(x), 1).reshape(4, 3, 16, 8).repeat(1, 2, 1, 1), bias=True)  # fmt: skip
between("BiasThenTranspose", "Nor where channels and positions change places.", False,
        lambda m, x: m.conv2(F.interpolate(x, (6, 6))).transpose(1, 2), bias=True)  # fmt: skip
between(
    "PositionAdded", "A constant per position is not taken off by a norm per channel.", False, lambda m, x: x + m.token
)
between("ShiftAdded", "A constant per channel is.", True, lambda m, x: m.conv2(x) + m.shift[:, None, None])
between("NumberAdded", "A number is.", True, lambda m, x: 1.5 - 2 * x)
between("Affine", "A gain per channel changes nothing, a bias per channel is taken off.", True,
        lambda m, x: torch.addcmul(m.shift[:, None, None], x, m.shift[:, None, None]))  # fmt: skip
between("ClampGuard", "A bound at 0 is ReLU's own; another one bends.", False, lambda m, x: x.clamp(min=-0.5))
between("Gated", "A gate of the same scale bends.", False, lambda m, x: x * torch.sigmoid(m.conv2(x)))
between("Halves", "Halves of channels put back together carry the whole factor.", True,
        lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1))  # fmt: skip
between("MaxOut", "A maximum of two parts that both carry is homogeneous.", True,
        lambda m, x: torch.maximum(m.conv2(x), x))  # fmt: skip
between("Filled", "Zeros by a mask are homogeneous.", True,
        lambda m, x: x.masked_fill(torch.ones(8, 8).tril().bool(), 0.0))  # fmt: skip
between("FilledWithOnes", "Other numbers by a mask are not, and no norm takes them off.", False,
        lambda m, x: x.masked_fill(torch.ones(8, 8).tril().bool(), 1.0))  # fmt: skip
between("PaddedWithOnes", "Nor numbers beside the image.", False, lambda m, x: F.pad(x, (1, 1, 1, 1), value=1.0))


class InstanceNorms(Tiny):
    """Instance norms cancel per channel and per image: a bias and a factor on all channels, exactly."""

    takes = (image(),)
    expected = {"norm1.weight": "absorbed exact instance_norm", "norm2.weight": "final instance_norm"}

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = conv(3, 6), nn.InstanceNorm2d(6, affine=True)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3), nn.InstanceNorm2d(6, affine=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        return self.fc(F.relu(self.norm2(self.conv2(x))).mean((2, 3)))


class ConcatThenGroup(Tiny):
    """A group norm over concatenated parts cancels their factors jointly, a batch norm each alone."""

    takes = (image(),)
    expected = {
        "left.1.weight": "absorbed rough",
        "right.1.weight": "absorbed rough",
        "norm.weight": "final group_norm",
    }

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(conv(3, 4, 1), nn.BatchNorm2d(4))
        self.right = nn.Sequential(conv(3, 2), nn.BatchNorm2d(2))
        self.norm, self.fc = nn.GroupNorm(1, 6), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(F.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1))).mean((2, 3)))


class ConcatOfPositions(Tiny):
    """Parts put side by side as positions, not channels, are cancelled jointly by a norm per channel."""

    takes = (image(),)
    expected = {"left.1.weight": "absorbed rough", "right.1.weight": "absorbed rough", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(conv(3, 6, 1), nn.BatchNorm2d(6))
        self.right = nn.Sequential(conv(3, 6), nn.BatchNorm2d(6))
        self.norm, self.fc = nn.BatchNorm1d(6), nn.Linear(6, 5)

    def forward(self, x):
        left, right = (side(x).flatten(2).transpose(1, 2) for side in (self.left, self.right))
        return self.fc(F.relu(self.norm(torch.cat([left, right], 1).transpose(1, 2))).mean(2))
