"""Sequences mixed by other means than softmax attention, and gains that are no gammas."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny, sequence
from tiny.attention import mlp
from tiny.written import RMSNorm


class LinearAttention(Tiny):
    """Linear attention divides by a sum of its keys: the value carries the scale, query and key cancel."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last rough", "norm_q.weight": "absorbed exact", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.q, self.k, self.v, self.out, self.fc = (nn.Linear(8, n) for n in (8, 8, 8, 8, 8, 5))
        self.norm1, self.norm_q, self.norm = (nn.LayerNorm(8) for _ in range(3))

    def forward(self, x):
        x = self.embed(x)
        y = self.norm1(x)
        q, k, v = F.relu(self.norm_q(self.q(y))), F.relu(self.k(y)), self.v(y)
        y = q @ (k.transpose(1, 2) @ v) / (q @ k.sum(1, keepdim=True).transpose(1, 2) + 1e-6)
        x = x + self.out(y)
        return self.fc(self.norm(x))


class GatedUnit(Tiny):
    """Llama's SwiGLU, Mamba: a product with a gate of the same norm is no add, and the norm after it cancels both."""

    takes = (sequence(),)
    expected = {
        "norm1.weight": "last rough",
        "norm2.weight": "absorbed rough",
        "norm3.weight": "last exact input",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.gate, self.up, self.down = (nn.Linear(8, 8) for _ in range(4))
        self.wide, self.mix, self.out, self.fc = (
            nn.Linear(8, 16),
            nn.Conv1d(8, 8, 3, groups=8),
            nn.Linear(8, 8),
            nn.Linear(8, 5),
        )
        self.norm1, self.norm2, self.norm3, self.norm = RMSNorm(8), RMSNorm(8), RMSNorm(8), RMSNorm(8)

    def forward(self, x):
        x = self.embed(x)
        y = self.norm1(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        y, z = self.wide(self.norm2(x)).chunk(2, -1)
        y = F.silu(self.mix(F.pad(y.transpose(1, 2), (2, 0)))).transpose(1, 2)
        x = x + self.out(self.norm3(y * F.silu(z)))
        return self.fc(self.norm(x))


class Recurrent(Tiny):
    """A matrix memory written out (mLSTM, gated linear attention), and torch's LSTM, whose gates saturate."""

    takes = (sequence(4),)
    expected = {
        "norm1.weight": "last rough",
        "norm2.weight": "gate rough",
        "norm.weight": "final",
    }

    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.decay, self.out = nn.Linear(8, 8), nn.Linear(8, 24), nn.Linear(8, 1), nn.Linear(8, 8)
        self.lstm, self.out2, self.fc = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 8), nn.Linear(8, 5)
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(8) for _ in range(3))

    def forward(self, x):
        x = self.embed(x)
        y = self.norm1(x)
        q, k, v = self.qkv(y).chunk(3, -1)
        decay = F.logsigmoid(self.decay(y)).exp()
        state, steps = x.new_zeros(len(x), 8, 8), []
        for t in range(4):
            state = state * decay[:, t, :, None] + k[:, t, :, None] * v[:, t, None, :]
            steps.append((q[:, t, None, :] @ state).squeeze(1))
        x = x + self.out(torch.stack(steps, 1))
        x = x + self.out2(self.lstm(self.norm2(x))[0])
        return self.fc(self.norm(x))


class Fourier(Tiny):
    """FNet, GFNet: a Fourier transform mixes positions without weights; a learned filter multiplies its spectrum."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last", "norm2.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Linear(8, 8), nn.Linear(8, 5)
        self.filter = nn.Parameter(torch.randn(4, 8, 2))
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(8) for _ in range(3))

    def forward(self, x):
        x = self.embed(x)
        x = x + torch.fft.fft(torch.fft.fft(self.norm1(x), dim=-1), dim=1).real
        spectrum = torch.fft.rfft(self.norm2(x), dim=1) * torch.view_as_complex(self.filter)
        x = x + torch.fft.irfft(spectrum, n=6, dim=1)
        return self.fc(self.norm(x))


class Modulated(Tiny):
    """DiT: a gain computed from a condition is no parameter; the condition's norm ends in the norms it steers."""

    takes = (sequence(), sequence(1, seed=1)[:, 0])
    expected = {"norm_condition.weight": "last rough", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.modulate, self.mlp, self.fc = nn.Linear(8, 8), nn.Linear(8, 24), mlp(), nn.Linear(8, 5)
        self.norm_condition, self.plain, self.norm = (
            nn.LayerNorm(8),
            nn.LayerNorm(8, elementwise_affine=False),
            nn.LayerNorm(8),
        )

    def forward(self, x, condition):
        shift, scale, gate = self.modulate(self.norm_condition(condition))[:, None].chunk(3, -1)
        x = self.embed(x)
        x = x + gate * self.mlp(self.plain(x) * (1 + scale) + shift)
        return self.fc(self.norm(x))


class Temperature(Tiny):
    """A learned temperature or logit scale multiplies, but normalises nothing; unit queries have no gain either."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.out, self.fc = nn.Linear(8, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 5)
        self.temperature, self.norm1, self.norm = nn.Parameter(torch.ones(1, 1, 1)), nn.LayerNorm(8), nn.LayerNorm(8)
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        x = x + self.out((self.temperature * (q @ k.transpose(-1, -2))).softmax(-1) @ v)
        return self.fc(self.norm(x)) * self.logit_scale.exp()


class NoNorm(Tiny):
    """MobileBERT: a gain and a bias without statistics is called norm, and is none."""

    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

        def forward(self, x):
            return x * self.weight + self.bias

    Affine.__name__ = "NoNorm"

    takes = (sequence(),)
    expected = {"norm.weight": "final"}
    not_gammas = {"norm1.weight", "norm2.weight"}

    def __init__(self):
        super().__init__()
        self.embed, self.norm1, self.mlp, self.norm2 = nn.Linear(8, 8), self.Affine(), mlp(), self.Affine()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm1(self.embed(x))
        x = self.norm2(x + self.mlp(x))
        return self.fc(self.norm(x))


class Experts(Tiny):
    """A mixture of experts: the router's softmax steers, the experts carry the scale."""

    takes = (sequence(),)
    expected = {"norm1.weight": "last rough input", "norm.weight": "final"}

    def __init__(self):
        super().__init__()
        self.embed, self.router, self.fc = nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 5)
        self.weight1, self.weight2 = nn.Parameter(torch.randn(3, 8, 16)), nn.Parameter(torch.randn(3, 16, 8))
        self.norm1, self.norm = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        x = self.embed(x)
        y = self.norm1(x)
        share, chosen = self.router(y).softmax(-1).topk(2, dim=-1)
        share = torch.zeros(4, 6, 3, dtype=x.dtype).scatter(-1, chosen, share)
        experts = torch.stack([F.silu(y @ a) @ b for a, b in zip(self.weight1, self.weight2, strict=True)], -1)
        x = x + (experts * share[..., None, :]).sum(-1)
        return self.fc(self.norm(x))
