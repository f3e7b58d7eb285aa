"""Transformers: where the norms stand, what attention does to a scale, sequences mixed by other means."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, sequence
from tiny.written import RMSNorm, ZeroCentredRMSNorm

IDS = torch.arange(24).reshape(4, 6) % 20


class Attention(nn.Module):
    """Self-attention or cross-attention of two heads, on 8 features."""

    def __init__(self, norm=None):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.q_norm, self.k_norm = (norm(4), norm(4)) if norm else (nn.Identity(), nn.Identity())

    def forward(self, x, memory=None, **options):
        memory = x if memory is None else memory
        q, k, v = (
            layer(source).unflatten(-1, (2, 4)).transpose(1, 2)
            for layer, source in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, **options)
        return self.out(x.transpose(1, 2).flatten(2))


def mlp(activation=nn.GELU):
    return nn.Sequential(nn.Linear(8, 16), activation(), nn.Linear(16, 8))


class PreNorm(Tiny):
    """ViT, GPT-2, Llama: each norm is the only one of its branch."""

    takes = (sequence(),)
    expected = {
        "norm1.weight": "last rough input layer_norm",
        "norm2.weight": "last rough input",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.attention = nn.Linear(8, 8), nn.LayerNorm(8), Attention()
        self.norm2, self.mlp, self.norm, self.fc = nn.LayerNorm(8), mlp(), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.fc(self.norm(x)[:, 0])


class PostNorm(Tiny):
    """BERT: both sides of the next add carry the factor, and the norm after it cancels it."""

    takes = (IDS,)
    expected = {
        "norm0.weight": "absorbed rough output",
        "norm1.weight": "absorbed rough output",
        "norm2.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.norm0 = nn.Embedding(20, 8), nn.LayerNorm(8)
        self.attention, self.norm1, self.mlp, self.norm2 = Attention(), nn.LayerNorm(8), mlp(), nn.LayerNorm(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, ids):
        x = self.norm0(self.embed(ids))
        x = self.norm1(x + self.attention(x))
        return self.fc(self.norm2(x + self.mlp(x)))


class Pooler(Tiny):
    """BERT's pooler: a linear layer and tanh after the last norm gate nothing, they are the way out."""

    takes = (IDS,)
    expected = {"norm0.weight": "absorbed", "norm1.weight": "final rough"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm0 = nn.Embedding(20, 8), nn.LayerNorm(8)
        self.mlp, self.norm1, self.pooler, self.fc = mlp(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, ids):
        x = self.norm0(self.embed(ids))
        x = self.norm1(x + self.mlp(x))
        return self.fc(torch.tanh(self.pooler(x[:, 0])))


class DoubleNorm(Tiny):
    """Gemma 2: a branch with a norm at both ends; the first is cancelled by the second. They multiply by 1 + w."""

    takes = (sequence(),)
    expected = {
        "pre1.weight": "absorbed rough input zero rms_norm",
        "post1.weight": "last exact output zero",
        "pre2.weight": "absorbed rough zero",
        "post2.weight": "last exact output zero",
        "norm.weight": "final zero",
    }

    def __init__(self):
        super().__init__()
        self.pre1, self.post1, self.pre2, self.post2, self.norm = (ZeroCentredRMSNorm(8) for _ in range(5))
        self.embed, self.attention, self.mlp, self.fc = nn.Linear(8, 8), Attention(), mlp(), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.post1(self.attention(self.pre1(x)))
        x = x + self.post2(self.mlp(self.pre2(x)))
        return self.fc(self.norm(x))


class QueryKeyNorm(Tiny):
    """Qwen3: norms of queries and keys reach a softmax only."""

    takes = (sequence(),)
    expected = {
        "norm1.weight": "last",
        "attention.q_norm.weight": "gate rough rms_norm",
        "attention.k_norm.weight": "gate rough",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.attention = nn.Linear(8, 8), RMSNorm(8), Attention(RMSNorm)
        self.norm, self.fc = RMSNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        return self.fc(self.norm(x))


class EagerAttention(Tiny):
    """Attention written out, with masks: boolean ones, integer ones made additive, causal ones."""

    takes = (sequence(), torch.tensor([[1, 1, 1, 1, 1, 0]] * 4))
    expected = {
        "norm1.weight": "last",
        "norm_q.weight": "gate",
        "norm2.weight": "last",
        "norm3.weight": "last",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.out, self.out2, self.out3 = (nn.Linear(8, n) for n in (8, 24, 8, 8, 8))
        self.norm1, self.norm_q, self.norm2, self.norm3, self.norm = (nn.LayerNorm(8) for _ in range(5))
        self.fc = nn.Linear(8, 5)
        self.register_buffer("causal", torch.ones(6, 6, dtype=torch.bool).tril())

    def attend(self, x, masked):
        q, k, v = self.qkv(x).chunk(3, -1)
        return masked(self.norm_q(q) @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v

    def forward(self, x, mask):
        x = self.embed(x)
        added = (1.0 - mask[:, None, :].to(x.dtype)) * torch.finfo(torch.float32).min
        x = x + self.out(self.attend(self.norm1(x), lambda s: s + added))
        x = x + self.out2(self.attend(self.norm2(x), lambda s: torch.where(self.causal, s, -1e9)))
        x = x + self.out3(self.attend(self.norm3(x), lambda s: s.masked_fill(mask[:, None] == 0, -1e9)))
        return self.fc(self.norm(x))


class MaskedActivations(Tiny):
    """Masks that multiply or fill activations, of integers and booleans, carry nothing and hide no fork."""

    takes = (sequence(), torch.tensor([[1, 1, 1, 1, 1, 0]] * 4))
    expected = {
        "norm0.weight": "trunk",
        "norm1.weight": "last",
        "norm2.weight": "last",
        "norm3.weight": "absorbed",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.norm0, self.norm1, self.norm2 = nn.Linear(8, 8), *(nn.LayerNorm(8) for _ in range(3))
        self.mlp1, self.mlp2, self.norm3, self.norm, self.fc = (
            mlp(),
            mlp(),
            nn.LayerNorm(8),
            nn.LayerNorm(8),
            nn.Linear(8, 5),
        )

    def forward(self, x, mask):
        keep = mask[..., None]
        x = self.norm0(self.embed(x)) * keep
        x = (x + self.mlp1(self.norm1(x))).masked_fill(keep == 0, 0.0)
        x = torch.where(keep.bool(), x + self.mlp2(self.norm2(x)), x.new_zeros(()))
        return self.fc(self.norm(self.norm3(x) * keep.to(x.dtype)))


class TanhGelu(Tiny):
    """GPT-2, ALBERT: GELU by tanh adds x to its cube and 1 to a tanh; neither is a residual."""

    takes = (sequence(),)
    expected = {
        "norm1.weight": "last rough",
        "norm2.weight": "absorbed rough",
        "norm3.weight": "last",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.fc1, self.fc2, self.fc3, self.fc4 = (nn.Linear(8, n) for n in (8, 16, 8, 8, 8))
        self.fc2 = nn.Linear(16, 8)
        self.norm1, self.norm2, self.norm3, self.norm = (nn.LayerNorm(8) for _ in range(4))
        self.fc = nn.Linear(8, 5)

    @staticmethod
    def gelu(x):
        return 0.5 * x * (1.0 + torch.tanh(0.797884 * (x + 0.044715 * torch.pow(x, 3.0))))

    def forward(self, x):
        x = self.embed(x)
        x = x + self.fc2(self.gelu(self.fc1(self.norm1(x))))
        x = x + self.fc4(self.gelu(self.norm3(self.fc3(self.gelu(self.norm2(x))))))
        return self.fc(self.norm(x))


class Parallel(Tiny):
    """GPT-J: attention and MLP of one norm are two branches of a sum of three."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last", "norm2.weight": "last", "norm3.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.attention, self.mlp = nn.Linear(8, 8), Attention(), mlp()
        self.attention2, self.mlp2, self.fc = Attention(), mlp(), nn.Linear(8, 5)
        self.norm1, self.norm2, self.norm3, self.norm = (nn.LayerNorm(8) for _ in range(4))

    def forward(self, x):
        x = self.embed(x)
        y = self.norm1(x)
        x = self.attention(y) + self.mlp(y) + x
        x = x + (self.attention2(self.norm2(x)) + self.mlp2(self.norm3(x)))
        return self.fc(self.norm(x))


class SharedLayer(Tiny):
    """ALBERT: one layer used again and again has one role per use and takes the most protective."""

    takes = (IDS,)
    expected = {"norm0.weight": "absorbed", "norm1.weight": "absorbed rough", "norm2.weight": "final rough"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm0, self.attention, self.mlp = nn.Embedding(20, 8), nn.LayerNorm(8), Attention(), mlp()
        self.norm1, self.norm2, self.fc = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, ids):
        x = self.norm0(self.embed(ids))
        for _ in range(3):
            x = self.norm1(x + self.attention(x))
            x = self.norm2(x + self.mlp(x))
        return self.fc(x)


class SharedParameter(Tiny):
    """Two norms that hold one parameter are one gamma, under its first name."""

    takes = (sequence(),)
    expected = {"norm1.weight": "final rough", "norm2.weight": "last"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Linear(8, 8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.mlp1, self.mlp2, self.norm, self.fc = mlp(), mlp(), nn.LayerNorm(8), nn.Linear(8, 5)
        self.norm.weight = self.norm1.weight

    def forward(self, x):
        x = self.embed(x)
        x = x + self.mlp1(self.norm1(x))
        x = x + self.mlp2(self.norm2(x))
        return self.fc(self.norm(x))
