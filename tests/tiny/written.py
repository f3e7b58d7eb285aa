"""Norms written out in simple ops."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv, image, sequence


class RMSNorm(nn.Module):
    """Llama's: in float32, by rsqrt of the mean square, the gain last."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        kind, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(kind)


class ZeroCentredRMSNorm(nn.Module):
    """Gemma's: multiplies by 1 + w, ends in `type_as` of its input, which seems to bypass the norm."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (normed * (1.0 + self.weight.to(normed.dtype))).type_as(x)


class Written(nn.Module):
    """A norm by a function of the input, its gain and its bias."""

    def __init__(self, width, start=1.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.full((width,), start)), nn.Parameter(torch.zeros(width))


class PowerNorm(Written):
    """T5Gemma, Gemma 4: by a power of minus one half."""

    def forward(self, x):
        return x * torch.pow(x.square().mean(-1, keepdim=True) + 1e-6, -0.5) * self.weight


class RootNorm(Written):
    """By a division by the root of the mean square."""

    def forward(self, x):
        return x / torch.sqrt(torch.mean(x**2, dim=-1, keepdim=True) + 1e-6) * self.weight


class LengthNorm(Written):
    """By the length of the vector, as the oldest RMSNorm does."""

    def forward(self, x):
        size = x.norm(2, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        return self.weight * (x / (size + 1e-8))


class UnitNorm(Written):
    """F.normalize with a gain: its clamp only guards."""

    def forward(self, x):
        return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 * self.weight


class ZeroRootNorm(Written):
    """1 + w on the other side, the weight cast."""

    def forward(self, x):
        return (x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()) * (self.weight.to(x.dtype) + 1)


class CentredNorm(Written):
    """DeBERTa's layer norm: minus its mean, by the root of the variance."""

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return self.weight * ((x - mean) / torch.sqrt(variance + 1e-6)) + self.bias


class CohereNorm(Written):
    """Cohere's layer norm: rsqrt of the variance, no bias, the weight cast."""

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return self.weight.to(x.dtype) * ((x - mean) * torch.rsqrt(variance + 1e-6))


class VarianceNorm(Written):
    """By torch.var_mean, whose two answers have different powers."""

    def forward(self, x):
        variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
        return (x - mean) * torch.rsqrt(variance + 1e-6) * self.weight + self.bias


class DeviationNorm(Written):
    """The Annotated Transformer's: by the standard deviation plus epsilon."""

    def forward(self, x):
        return self.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.bias


class PlainThenGain(Written):
    """A norm op without gain, and a gain of its own by addcmul."""

    def forward(self, x):
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


class HeadNorm(Written):
    """xLSTM's: a norm per head, through a reshape, the gain on all heads at once."""

    def forward(self, x):
        heads = x.reshape(*x.shape[:-1], 2, 4)
        heads = (heads - heads.mean(-1, keepdim=True)) * torch.rsqrt(heads.var(-1, keepdim=True, unbiased=False) + 1e-6)
        return heads.flatten(-2) * self.weight


class Places(Tiny):
    norm: type[nn.Module] = RMSNorm
    start: float = 1.0
    takes = (sequence(),)

    def __init__(self):
        super().__init__()
        make = self.norm
        self.embed, self.fc1, self.fc2 = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.norm1, self.norm2, self.norm3, self.fc = make(8), make(8), make(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.fc2(self.norm2(self.fc1(F.relu(self.norm1(x)))))
        return self.fc(self.norm3(x))


def _places(norm: type[nn.Module], kind: str, *, zero: bool = False, exact: bool = True) -> type[Tiny]:
    """A network with the norm in three places: cancelled, last of a branch, at the end."""
    word = f"{kind} zero" if zero else kind
    attributes = {
        "__doc__": norm.__doc__,
        "__module__": __name__,
        "norm": norm,
        "expected": {
            "norm1.weight": f"absorbed {'exact' if exact else 'rough'} {word}",
            "norm2.weight": f"last exact input {word}",
            "norm3.weight": f"final exact {word}",
        },
    }
    return type(f"{norm.__name__}Places", (Places,), attributes)


for _norm, _kind, _options in (
    (nn.LayerNorm, "layer_norm", {}),
    (nn.RMSNorm, "rms_norm", {}),
    (RMSNorm, "rms_norm", {}),
    (ZeroCentredRMSNorm, "rms_norm", {"zero": True}),
    (PowerNorm, "rms_norm", {}),
    (RootNorm, "rms_norm", {}),
    (LengthNorm, "rms_norm", {}),
    (UnitNorm, "rms_norm", {}),
    (ZeroRootNorm, "rms_norm", {"zero": True}),
    (CentredNorm, "layer_norm", {}),
    (CohereNorm, "layer_norm", {}),
    (VarianceNorm, "layer_norm", {}),
    (DeviationNorm, "layer_norm", {}),
    (PlainThenGain, "layer_norm", {}),
    (HeadNorm, "layer_norm", {}),
):
    _places(_norm, _kind, **_options)


class WrittenBatchNorm(Tiny):
    """Batch norm written out over batch and space, its gain reshaped to the channels."""

    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

        def forward(self, x):
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True)
            x = (x - mean) / torch.sqrt(variance + 1e-5)
            return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    takes = (image(),)
    expected = {
        "norm1.weight": "trunk exact batch_norm",
        "norm2.weight": "absorbed exact",
        "norm3.weight": "last exact output",
        "norm4.weight": "last exact",
    }

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.conv2, self.norm2 = conv(3, 6), self.Norm(6), conv(6, 6), self.Norm(6)
        self.conv3, self.norm3, self.conv4, self.norm4 = conv(6, 6), self.Norm(6), conv(6, 6), self.Norm(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(x + self.norm3(self.conv3(F.relu(self.norm2(self.conv2(x))))))
        return self.fc((x + self.norm4(self.conv4(x))).mean((2, 3)))


class ChannelsFirstNorm(Tiny):
    """ConvNeXt's layer norm over channels of images, written out."""

    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

        def forward(self, x):
            mean = x.mean(1, keepdim=True)
            variance = (x - mean).pow(2).mean(1, keepdim=True)
            x = (x - mean) / torch.sqrt(variance + 1e-6)
            return self.weight[:, None, None] * x + self.bias[:, None, None]

    takes = (image(),)
    expected = {"norm1.weight": "trunk exact layer_norm", "norm2.weight": "last exact", "norm3.weight": "final"}

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.conv2, self.norm2 = conv(3, 6), self.Norm(6), conv(6, 6), self.Norm(6)
        self.norm3, self.fc = self.Norm(6), nn.Linear(6, 5)

    def forward(self, x):
        x = self.norm1(self.conv1(x))
        x = x + self.conv2(F.relu(self.norm2(x)))
        return self.fc(self.norm3(x).mean((2, 3)))


class EvoNorm(Tiny):
    """EvoNorm-S0: x times a sigmoid of x, by the group's deviation; a written norm with its own nonlinearity."""

    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
            self.v = nn.Parameter(torch.ones(width))

        def forward(self, x):
            shape = x.shape
            grouped = x.reshape(shape[0], 2, -1)
            deviation = torch.sqrt(grouped.var(-1, keepdim=True, unbiased=False) + 1e-5)
            deviation = deviation.expand(-1, -1, grouped.shape[-1]).reshape(shape)
            x = x * torch.sigmoid(x * self.v.view(1, -1, 1, 1)) / deviation
            return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    takes = (image(),)
    expected = {"norm1.weight": "trunk", "norm2.weight": "absorbed rough", "norm3.weight": "last"}
    not_gammas = {"norm1.v", "norm2.v", "norm3.v"}

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.conv2, self.norm2 = conv(3, 6), self.Norm(6), conv(6, 6), self.Norm(6)
        self.conv3, self.norm3, self.fc = conv(6, 6), self.Norm(6), nn.Linear(6, 5)

    def forward(self, x):
        x = self.norm1(self.conv1(x))
        x = x + self.norm3(self.conv3(self.norm2(self.conv2(x))))
        return self.fc(x.mean((2, 3)))
