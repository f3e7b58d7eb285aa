"""What is a stream and what is not: conditions, estimators, losses, streams that cross or are fused."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, sequence


class DecoderLayer(nn.Module):
    """Post-norm self-attention, cross-attention and MLP; positions are added to queries and keys only."""

    def __init__(self):
        super().__init__()
        self.own, self.cross = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(8) for _ in range(3))
        self.fc = nn.Linear(8, 8)

    def forward(self, x, positions, memory):
        query = x + positions
        x = self.norm1(x + self.own(query, query, x, need_weights=False)[0])
        x = self.norm2(x + self.cross(x + positions, memory, memory, need_weights=False)[0])
        return self.norm3(x + self.fc(x).relu())


class PositionsOnQueries(Tiny):
    """DETR: from the second layer on the stream depends on the positions; still they are no skip of a query."""

    takes = (sequence(width=3),)
    expected = {
        "layers.0.norm1.weight": "trunk",
        "layers.0.norm2.weight": "absorbed",
        "layers.0.norm3.weight": "absorbed",
        "layers.1.norm1.weight": "trunk",
        "layers.1.norm2.weight": "absorbed",
        "layers.1.norm3.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.positions, self.enter, self.fc = nn.Embedding(5, 8), nn.Linear(3, 8), nn.Linear(8, 2)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(2))

    def forward(self, x):
        memory, positions = self.enter(x), self.positions.weight.expand(4, -1, -1)
        x = torch.zeros_like(positions)
        for layer in self.layers:
            x = layer(x, positions, memory)
        return self.fc(x)


class StraightThrough(Tiny):
    """VQ-VAE: z + (q - z).detach() is the code word q, chosen by a comparison; nothing is added to z."""

    takes = (sequence(width=3),)
    expected = {"norm1.weight": "gate", "norm2.weight": "final"}

    def __init__(self):
        super().__init__()
        self.enter, self.leave, self.fc = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm1, self.norm2, self.codes = nn.LayerNorm(8), nn.LayerNorm(8), nn.Embedding(16, 8)

    def forward(self, x):
        z = self.norm1(self.enter(x))
        q = self.codes(torch.cdist(z, self.codes.weight).argmin(-1))
        return self.fc(self.norm2(self.leave(z + (q - z).detach())).relu())


class LossesSummed(Tiny):
    """A loss of several terms is a sum of numbers, not of activations."""

    takes = (sequence(), sequence(seed=1))
    expected = {"norm1.weight": "final", "norm2.weight": "final"}

    def __init__(self):
        super().__init__()
        self.enter, self.fc, self.leave = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x, target):
        x = self.enter(x)
        y = self.fc(self.norm1(x))
        return (self.leave(self.norm2(x + y)) - target).abs().mean() + 0.1 * y.abs().mean()


class CrossedStreams(Tiny):
    """LaMa's FFC: two streams exchange, each through a weight layer; neither passes unchanged."""

    takes = (sequence(),)
    expected = {
        "norm1.weight": "absorbed rough",
        "norm2.weight": "absorbed rough",
        "norm3.weight": "final",
        "norm4.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4, self.fc5, self.fc6, self.fc7 = (nn.Linear(8, 8) for _ in range(7))
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(8) for _ in range(4))

    def forward(self, x):
        a = self.norm1(self.fc1(x)).relu()
        b = self.norm2(self.fc3(self.fc2(x).relu())).relu()
        a, b = self.norm3(self.fc4(a) + self.fc5(b)), self.norm4(self.fc6(a) + self.fc7(b))
        return a.relu() + b.relu()


class FusedStreams(Tiny):
    """HRNet: where two streams are fused, the one that comes without a weight layer is the skip."""

    takes = (sequence(), sequence(seed=1))
    expected = {
        "norm1.weight": "last",
        "norm2.weight": "last",
        "norm3.weight": "last exact output",
        "norm4.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = (nn.Linear(8, 8) for _ in range(4))
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(8) for _ in range(4))

    def forward(self, x, y):
        x, y = x + self.norm1(self.fc1(x)), y + self.norm2(self.fc2(y))
        return self.fc4(self.norm4(x.relu() + self.norm3(self.fc3(y.relu()))))


class OneBlock(Tiny):
    takes = (sequence(),)
    expected = {"norm1.weight": "trunk", "norm2.weight": "last", "norm3.weight": "final"}

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Linear(8, 8) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(8) for _ in range(3))


class BroadcastBranch(OneBlock):
    """GCNet, a virtual node: a branch of one number per channel is added everywhere."""

    def forward(self, x):
        x = self.norm1(self.fc1(x))
        x = x + self.norm2(self.fc2(F.adaptive_avg_pool1d(x.mT, 1).mT))
        return self.fc3(self.norm3(x))


class PutTogether(OneBlock):
    """TimeSformer: the skip is put together again from a token and the rest, and is still the skip."""

    def forward(self, x):
        x = self.norm1(self.fc1(x))
        x = torch.cat([x[:, :1], x[:, 1:]], 1) + self.fc2(self.norm2(x))
        return self.fc3(self.norm3(x))


class PutTogetherOften(OneBlock):
    """Gated delta nets: a loop writes row by row, and each time the whole is put together from parts of itself."""

    takes = (sequence(length=40),)

    def forward(self, x):
        x = self.norm1(self.fc1(x))
        y = x
        for i in range(1, y.shape[1]):
            y = torch.cat([y[:, :i], y[:, i:]], 1)
        return self.fc3(self.norm3(y + self.fc2(self.norm2(x))))


class AddedToItselfOften(OneBlock):
    """Dense residual blocks: each sum is read by the product in the next, twice a block, and so on upwards."""

    takes = (sequence(),)

    def forward(self, x):
        x = self.norm1(self.fc1(x))
        y = self.fc2(self.norm2(x))
        for _ in range(64):
            y = F.relu(y) * 0.01 + y
        return self.fc3(self.norm3(x + y))


class SkipOutputs(Tiny):
    """WaveNet: each layer adds to the stream and to a sum of outputs; what the last adds to the stream nobody reads."""

    takes = (sequence(),)
    expected = {
        "norms.0.weight": "last",
        "norms.1.weight": "last",
        "norms.2.weight": "absorbed",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.norm = nn.Linear(8, 8), nn.Linear(8, 2), nn.LayerNorm(8)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.enter, self.stream, self.out = (nn.ModuleList(nn.Linear(8, 8) for _ in range(3)) for _ in range(3))

    def forward(self, x):
        x, total = self.stem(x), 0
        for norm, enter, stream, out in zip(self.norms, self.enter, self.stream, self.out, strict=True):
            h = norm(enter(x).relu())
            x, total = x + stream(h), total + out(h)
        return self.head(self.norm(total))
