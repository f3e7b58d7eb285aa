"""Gains of any shape and by any function, and norms whose statistics are taken otherwise."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, image, sequence
from tiny.written import RMSNorm


class Gain(nn.Module):
    """A norm by a function of the input and a gain of a shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))


class PreNorm(Tiny):
    takes = (sequence(),)
    expected = {"norm1.weight": "last input", "norm.weight": "final"}
    shape: ClassVar[tuple[int, ...]] = (8,)
    kind: ClassVar[type[nn.Module]] = nn.LayerNorm

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.norm1, self.norm = self.kind(*self.shape), self.kind(*self.shape)

    def forward(self, x: Any, *more: Any) -> Any:
        x = self.embed(x)
        return self.fc(self.norm(x + self.mlp(F.relu(self.norm1(x, *more))), *more))


class SoftplusGain(PreNorm):
    """The norm's own gain argument is a function of the parameter, whose 0 is not the gain's."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last input zero layer_norm", "norm.weight": "final zero"}
    computes = False  # doubling the parameter doubles no gain

    class kind(Gain):
        def forward(self, x):
            return F.layer_norm(x, (8,), F.softplus(self.weight), self.bias)


class FunctionGain(nn.Module):
    """A written norm whose gain is a function of the parameter."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.full((8,), 0.3))

    def forward(self, x):
        return F.layer_norm(x, (8,)) * self.function(self.weight)


class FunctionGains(Tiny):
    """Any function of the parameter may be the gain: what cancels cancels its factor, whatever made it."""

    takes = (sequence(),)
    expected = {
        "exponential.weight": "absorbed exact zero",
        "bounded.weight": "absorbed exact",
        "last.weight": "last",
        "sine.weight": "final",
    }
    computes = False  # doubling the parameter doubles no gain

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc1, self.fc2, self.fc3, self.fc = (nn.Linear(8, 8, bias=False) for _ in range(5))
        self.exponential, self.bounded, self.last, self.sine = map(
            FunctionGain, (torch.exp, torch.tanh, torch.nn.Identity(), torch.sin)
        )

    def forward(self, x):
        x = self.embed(x)
        y = self.fc2(self.bounded(self.fc1(self.exponential(x))))
        return self.fc(self.sine(x + self.fc3(self.last(y))))


class OffsetByNothing(PreNorm):
    """x-transformers: w + float(unit_offset), without an offset."""

    takes = (sequence(),)

    class kind(Gain):
        def forward(self, x):
            return F.layer_norm(x, (8,)) * (self.weight + 0.0)


class OverTwoDimensions(PreNorm):
    """nn.LayerNorm over positions and channels holds a gain for each."""

    takes = (sequence(),)

    class kind(nn.LayerNorm):
        def __init__(self, width):
            super().__init__((6, width))


class PerHead(PreNorm):
    """A gain for each head, broadcast over positions."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last input rms_norm", "norm.weight": "final"}
    shape = (2, 1, 4)

    class kind(Gain):
        def forward(self, x):
            heads = x.unflatten(-1, (2, 1, 4)).movedim(1, -2).squeeze(-3)
            heads = F.rms_norm(heads, (4,)) * self.weight + self.bias
            return heads.movedim(-2, 1).flatten(-2)


class OneNumber(PreNorm):
    """ScaleNorm: the length of each vector is learned."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last input rms_norm", "norm.weight": "final"}
    shape = ()

    class kind(Gain):
        def forward(self, x):
            return F.normalize(x, dim=-1) * self.weight


class Folded(PreNorm):
    """The gain by the deviation first: one product and one sum for each value."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last exact input layer_norm", "norm.weight": "final"}

    class kind(Gain):
        def forward(self, x):
            variance, mean = torch.var_mean(x, -1, keepdim=True, unbiased=False)
            factor = self.weight * (variance + 1e-5).rsqrt()
            return x * factor + (self.bias - mean * factor)


class BySegment(PreNorm):
    """PyG's norms: statistics of the rows that belong to one graph, by scattered sums."""

    takes = (sequence()[0], torch.tensor([0, 0, 0, 1, 1, 1]))
    expected = {"norm1.weight": "last input", "norm.weight": "final"}

    class kind(Gain):
        def forward(self, x, segment):
            count = x.new_zeros(2, 1).index_add_(0, segment, torch.ones_like(x[:, :1])).clamp(min=1)
            x = x - (x.new_zeros(2, 8).index_add_(0, segment, x) / count)[segment]
            variance = x.new_zeros(2, 8).scatter_add_(0, segment[:, None].expand(-1, 8), x * x) / count
            return x / (variance + 1e-5).sqrt()[segment] * self.weight + self.bias


class BatchRenormalised(PreNorm):
    """Normalised, then brought near running statistics by bounded factors."""

    takes = (sequence()[:, 0],)
    expected = {"norm1.weight": "last input batch_norm", "norm.weight": "final"}

    class kind(Gain):
        def __init__(self, width):
            super().__init__(width)
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("deviation", torch.ones(width))

        def forward(self, x):
            mean, deviation = x.mean(0), x.std(0, unbiased=False) + 1e-5
            factor = (deviation.detach() / self.deviation).clamp(1 / 3, 3)
            shift = ((mean.detach() - self.mean) / self.deviation).clamp(-5, 5)
            return ((x - mean) / deviation * factor + shift) * self.weight + self.bias


class OfIntegers(Tiny):
    """A norm of numbers that are given as integers."""

    takes = (torch.randint(0, 5, (4, 3), generator=torch.Generator().manual_seed(0)),)
    expected = {"bn.weight": "absorbed", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.bn, self.fc1, self.norm, self.fc2 = nn.BatchNorm1d(3), nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc2(
            F.relu(self.norm(self.fc1(self.bn(x.double() if self.fc1.weight.dtype.itemsize > 4 else x.float()))))
        )


class OfALearnedQuery(Tiny):
    """Attention pooling: a norm of the query that is learned, which only a softmax reads."""

    takes = (sequence(),)
    expected = {"norm1.weight": "gate", "norm2.weight": "absorbed", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.query, self.pool = nn.Parameter(torch.randn(3, 8)), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm1, self.norm2, self.norm, self.fc = *(nn.LayerNorm(8) for _ in range(3)), nn.Linear(8, 5)

    def forward(self, x):
        query, x = self.norm1(self.query).expand(len(x), -1, -1), self.norm2(x)
        return self.fc(self.norm(self.pool(query, x, x, need_weights=False)[0]))


class OfWhatIsLearnedToo(Tiny):
    """Gemma 3n: a norm in simple ops, of the input and of a learned token that stands for padding."""

    takes = (sequence(),)
    expected = {"norm1.weight": "absorbed rms_norm", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.padding, self.embed, self.mlp, self.fc = (
            nn.Parameter(torch.randn(1, 1, 8)),
            *(nn.Linear(8, 8) for _ in "123"),
        )
        self.norm1, self.norm = RMSNorm(8), RMSNorm(8)

    def forward(self, x):
        padding = self.mlp(self.norm1(self.padding)).expand(len(x), 2, -1)
        return self.fc(self.norm(torch.cat([self.mlp(self.norm1(self.embed(x))), padding], 1)))


class ChannelsOfImages(Tiny):
    """A gain stored in the shape that it multiplies."""

    takes = (image(),)
    expected = {"norm1.weight": "last input rms_norm", "norm.weight": "final"}

    class Norm(Gain):
        def forward(self, x):
            return F.normalize(x, dim=1) * self.weight * x.shape[1] ** 0.5 + self.bias

    def __init__(self):
        super().__init__()
        self.embed, self.mlp, self.fc = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)
        self.norm1, self.norm = self.Norm(1, 6, 1, 1), self.Norm(1, 6, 1, 1)

    def forward(self, x):
        x = self.embed(x)
        return self.fc(self.norm(x + self.mlp(self.norm1(x))))


class Prototypes(Tiny):
    """What widens a normalised value holds weights: a product with several vectors."""

    takes = (sequence(),)
    expected = {"norm.weight": "absorbed exact"}

    def __init__(self):
        super().__init__()
        self.norm, self.prototypes = nn.LayerNorm(8), nn.Parameter(torch.randn(5, 8))
        self.fc = nn.Linear(5, 5)

    def forward(self, x):
        near = (F.normalize(self.norm(x), dim=-1)[..., None, :] * self.prototypes).sum(-1)
        return self.fc(near)


class Branched(PreNorm):
    """Both ways of a condition read the gain: nobody has ruled on it."""

    takes = (sequence(),)
    expected = {"norm1.weight": "unknown rough", "norm.weight": "unknown"}
    computes = False

    class kind(nn.LayerNorm):
        def forward(self, x):
            def plain(x):
                return F.layer_norm(x, (8,), self.weight, self.bias)

            return torch.cond(x.sum() > 0, plain, lambda x: 2 * plain(x), (x,))


class Reversed(Tiny):
    """RevIN: the gain that enters by a norm is divided out at the end: both of its uses decide."""

    takes = (sequence(6, 3),)
    expected = {"weight": "final rough layer_norm", "norm.weight": "final"}
    computes = False

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))
        self.fc1, self.norm, self.fc2 = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        mean = x.mean(1, keepdim=True).detach()
        deviation = (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt().detach()
        x = (x - mean) / deviation * self.weight + self.bias
        x = self.fc2(self.norm(self.fc1(x.transpose(1, 2)))).transpose(1, 2)
        return (x - self.bias) / (self.weight + 1e-10) * deviation + mean
