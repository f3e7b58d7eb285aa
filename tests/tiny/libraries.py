"""Kinds of networks that other libraries hold: segmentation, detection, sound, graphs, diffusion, pairs of towers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, conv, image, sequence


class AttentionGate(Tiny):
    """Attention U-Net: two norms are summed and normed again; that norm is read by a sigmoid only."""

    takes = (image(),)
    expected = {"bn1.weight": "absorbed rough", "bn2.weight": "absorbed rough", "bn3.weight": "gate"}

    def __init__(self):
        super().__init__()
        self.low, self.high, self.conv1, self.conv2 = conv(3, 6), conv(3, 6), conv(6, 4), conv(6, 4)
        self.bn1, self.bn2, self.conv3, self.bn3 = nn.BatchNorm2d(4), nn.BatchNorm2d(4), conv(4, 1), nn.BatchNorm2d(1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        low, high = self.low(x), self.high(x)
        gate = self.bn3(self.conv3(F.relu(self.bn1(self.conv1(low)) + self.bn2(self.conv2(high)))))
        return self.fc((high * torch.sigmoid(gate)).mean((2, 3)))


class TwoTowers(Tiny):
    """CLIP: what leaves each tower has length 1, so that the last norm's size is nothing."""

    takes = (sequence(), sequence(seed=1))
    expected = {"norm1.weight": "absorbed", "norm2.weight": "absorbed"}

    def __init__(self):
        super().__init__()
        self.left, self.norm1, self.project1 = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 6, bias=False)
        self.right, self.norm2, self.project2 = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 6, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, left, right):
        left = F.normalize(self.project1(self.norm1(self.left(left))[:, 0]), dim=-1)
        right = F.normalize(self.project2(self.norm2(self.right(right))[:, 0]), dim=-1)
        return self.scale.exp() * (left @ right.T)


class SideOutputs(Tiny):
    """DiffWave: each layer adds one half of what it makes to the stream, the other to a sum beside it."""

    takes = (sequence(),)
    expected = {"norms.0.weight": "gate", "norms.1.weight": "gate", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.fc = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 5)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.into = nn.ModuleList(nn.Linear(8, 16) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(8, 16) for _ in range(2))

    def forward(self, x):
        x, beside = self.embed(x), 0
        for norm, into, out in zip(self.norms, self.into, self.out, strict=True):
            value, gate = into(norm(x)).chunk(2, -1)
            stream, side = out(value.tanh() * gate.sigmoid()).chunk(2, -1)
            x, beside = x + stream, beside + side
        return self.fc(self.norm(beside))


class CrossStage(Tiny):
    """YOLO's C2f: one half goes through the block, and both halves with each step between are put side by side."""

    takes = (image(),)
    expected = {
        "bn1.weight": "trunk",
        "bn2.weight": "absorbed exact",
        "bn3.weight": "last output",
        "bn4.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(3, 8), nn.BatchNorm2d(8), conv(4, 4), nn.BatchNorm2d(4)
        self.conv3, self.bn3, self.conv4, self.bn4 = conv(4, 4), nn.BatchNorm2d(4), conv(12, 8, 1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        parts = list(F.silu(self.bn1(self.conv1(x))).chunk(2, 1))
        inner = F.relu(self.bn2(self.conv2(parts[-1])))
        parts.append(parts[-1] + F.silu(self.bn3(self.conv3(inner))))
        return self.fc(F.silu(self.bn4(self.conv4(torch.cat(parts, 1)))).mean((2, 3)))


class HalfSteps(Tiny):
    """Conformer: half a step of the feed-forward, then a convolution with a batch norm of its own between a gate and
    an activation."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last", "norm2.weight": "absorbed rough", "bn.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.up, self.down = (
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
        )
        self.norm2, self.widen, self.depthwise = (
            nn.LayerNorm(8),
            nn.Linear(8, 16),
            nn.Conv1d(8, 8, 3, padding=1, groups=8),
        )
        self.bn, self.project = nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        x = x + 0.5 * self.down(F.silu(self.up(self.norm1(x))))
        inner = F.glu(self.widen(self.norm2(x)), -1).transpose(1, 2)
        x = x + self.project(F.silu(self.bn(self.depthwise(inner))).transpose(1, 2))
        return self.fc(self.norm(x))


class LongSkip(Tiny):
    """Super-resolution: the head's features are added again after all blocks, and pixels come out of channels."""

    takes = (image(),)
    expected = {"bn1.weight": "last input", "bn2.weight": "last output"}

    def __init__(self):
        super().__init__()
        self.head, self.conv1, self.bn1, self.conv2 = conv(3, 8), conv(8, 8), nn.BatchNorm2d(8), conv(8, 8)
        self.conv3, self.bn2, self.tail = conv(8, 8), nn.BatchNorm2d(8), conv(8, 12)

    def forward(self, x):
        head = self.head(x)
        body = head + 0.1 * self.conv2(F.relu(self.bn1(self.conv1(head))))
        return F.pixel_shuffle(self.tail(head + self.bn2(self.conv3(body))), 2)


class MessagePassing(Tiny):
    """A graph: messages along edges, summed where they arrive, are what mixes."""

    takes = (
        torch.randn(6, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]]),
    )
    expected = {"norm1.weight": "last input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.message = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x, edges):
        x = self.embed(x)
        sent = self.message(F.relu(self.norm1(x)))[edges[0]]
        x = x + torch.zeros_like(x).scatter_add(0, edges[1].unsqueeze(1).expand_as(sent), sent)
        return self.fc(self.norm(x))


class HyperConnected(Tiny):
    """Hyper-connections: two streams that are mixed with each other before the branch is added to both."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.mlp = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.into = nn.Parameter(torch.tensor([0.7, 0.3]))
        self.between = nn.Parameter(torch.tensor([[0.9, 0.2], [0.1, 0.8]]))
        self.out = nn.Parameter(torch.tensor([1.0, 0.5]))
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        streams = torch.stack([self.embed(x)] * 2, 2)
        inner = torch.einsum("s,btsd->btd", self.into, streams)
        branch = self.mlp(F.gelu(self.norm1(inner)))
        streams = torch.einsum("rs,btsd->btrd", self.between, streams) + torch.einsum("s,btd->btsd", self.out, branch)
        return self.fc(self.norm(streams.sum(2)))


class SizesOfTheData(Tiny):
    """ATS: as many tokens go on as were drawn, and Python adds one to their number."""

    takes = (sequence(), torch.tensor([[1, 3, 3, 2], [0, 2, 5, 5], [1, 1, 1, 4], [2, 3, 4, 5]]))
    expected = {"norm1.weight": "last input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.mlp = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x, drawn):
        x = self.embed(x)
        kept = torch.unique(drawn)
        x = F.pad(x[:, kept], (0, 0, 0, 1))
        x = x + torch.arange(1 + kept.shape[0], device=x.device).unsqueeze(1)
        x = x + self.mlp(F.gelu(self.norm1(x)))
        return self.fc(self.norm(x).mean(1))
