"""Attention over learned tokens, memories and windows."""

from __future__ import annotations

import torch
from torch import nn

from tiny import Tiny, image, sequence
from tiny.attention import IDS, Attention, mlp


class LearnedQueries(Tiny):
    """DETR: learned queries start activations of their own; positions are added to queries and keys only.

    The first norm's factor reaches the next add by its skip alone: the branch is made of the memory's values.
    """

    takes = (image(8),)
    expected = {
        "enter.weight": "absorbed",
        "norm1.weight": "trunk exact output",
        "norm2.weight": "absorbed rough",
        "norm3.weight": "final",
        "encoder.weight": "last rough input",
    }

    def __init__(self):
        super().__init__()
        self.enter, self.encode, self.encoder = nn.GroupNorm(1, 8), Attention(), nn.LayerNorm(8)
        self.queries = nn.Parameter(torch.randn(5, 8))
        self.itself, self.cross, self.mlp = Attention(), Attention(), mlp(nn.ReLU)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        memory = self.enter(x).flatten(2).transpose(1, 2)
        memory = self.encoder(memory + self.encode(memory))
        positions = self.queries[None].expand(len(x), -1, -1)
        y = torch.zeros_like(positions)
        y = self.norm1(y + self.itself(y + positions))
        y = self.norm2(y + self.cross(y + positions, memory))
        return self.fc(self.norm3(y + self.mlp(y)))


class Latents(Tiny):
    """Perceiver: learned latents are the skip of a cross-attention whose memory is the input."""

    takes = (sequence(),)
    expected = {
        "norm_latents.weight": "gate",
        "norm_memory.weight": "last rough input",
        "norm_mlp.weight": "last",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.latents, self.embed = nn.Parameter(torch.randn(1, 3, 8)), nn.Linear(8, 8)
        self.norm_latents, self.norm_memory, self.norm_mlp, self.norm = (nn.LayerNorm(8) for _ in range(4))
        self.cross, self.mlp, self.fc = Attention(), mlp(), nn.Linear(8, 5)

    def forward(self, x):
        latents = self.latents.expand(len(x), -1, -1)
        latents = latents + self.cross(self.norm_latents(latents), self.norm_memory(self.embed(x)))
        latents = latents + self.mlp(self.norm_mlp(latents))
        return self.fc(self.norm(latents))


class Decoder(Tiny):
    """T5, Whisper: cross-attention's query norm reaches a softmax, the encoder's last norm is a value of branches."""

    takes = (IDS, IDS + 3)
    expected = {
        "norm_encoder.weight": "last rough input",
        "norm1.weight": "last",
        "norm2.weight": "gate",
        "norm3.weight": "last",
        "norm.weight": "final",
        "enter.weight": "last",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.encode, self.decode, self.cross = nn.Embedding(30, 8), Attention(), Attention(), Attention()
        self.enter, self.norm_encoder, self.norm1, self.norm2, self.norm3, self.norm = (
            nn.LayerNorm(8) for _ in range(6)
        )
        self.mlp, self.fc = mlp(), nn.Linear(8, 5)

    def forward(self, ids, targets):
        memory = self.embed(ids)
        memory = self.norm_encoder(memory + self.encode(self.enter(memory)))
        x = self.embed(targets)
        x = x + self.decode(self.norm1(x), is_causal=True)
        x = x + self.cross(self.norm2(x), memory)
        x = x + self.mlp(self.norm3(x))
        return self.fc(self.norm(x))


class ClassToken(Tiny):
    """ViT: a learned token beside the patches, positions added to both: a norm before them carries in its part only."""

    takes = (image(),)
    expected = {"enter.weight": "trunk", "norm1.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.patches, self.enter = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.attention, self.norm, self.fc = nn.LayerNorm(8), Attention(), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.enter(self.patches(x).flatten(2).transpose(1, 2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        x = x + self.attention(self.norm1(x))
        return self.fc(self.norm(x)[:, 0])


class Windows(Tiny):
    """Swin: windows are rolled and partitioned before attention and back after; patch merging norms the trunk."""

    takes = (image(),)
    expected = {
        "enter.weight": "trunk",
        "norm1.weight": "last",
        "merge.weight": "trunk",
        "norm2.weight": "last",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.patches, self.enter = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8)
        self.norm1, self.attention, self.merge, self.reduce = nn.LayerNorm(8), Attention(), nn.LayerNorm(32), None
        self.reduce, self.norm2, self.mlp = nn.Linear(32, 8, bias=False), nn.LayerNorm(8), mlp()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.enter(self.patches(x).permute(0, 2, 3, 1))
        y = torch.roll(self.norm1(x), (-1, -1), (1, 2))
        y = y.reshape(4, 2, 2, 2, 2, 8).transpose(2, 3).reshape(16, 4, 8)
        y = self.attention(y).reshape(4, 2, 2, 2, 2, 8).transpose(2, 3).reshape(4, 4, 4, 8)
        x = x + torch.roll(y, (1, 1), (1, 2))
        x = x.reshape(4, 2, 2, 2, 2, 8).permute(0, 1, 3, 4, 2, 5).flatten(3)
        x = self.reduce(self.merge(x))
        x = x + self.mlp(self.norm2(x))
        return self.fc(self.norm(x).mean((1, 2)))
