"""Numbers against roles: run a model in train mode, double one gamma and its beta, and look how far the output moves."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils import _pytree as pytree

from hf_gammareg import Gamma, GammaMap


class Doubling:
    """A model in double precision with affine parameters drawn anew, and its output.

    A gamma that starts at 0, as timm starts a ResNet's last ones, would show nothing when it is doubled. Running
    statistics have no part in it: train mode normalises by the batch.
    """

    def __init__(self, model: nn.Module, args, gammas: GammaMap) -> None:
        self.model = model.double().train()
        self.args = pytree.tree_map(_double, args)
        self.gammas = gammas
        self.parameters = dict(model.named_parameters())
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if name in gammas:
                    low = 0.0 if gammas[name].zero_centered else 1.0
                    parameter.uniform_(low, low + 1, generator=generator)
                elif parameter.ndim == 1:
                    parameter.uniform_(0.3, 0.9, generator=generator)
                elif parameter.ndim > 1:
                    parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.before = self.run()
        self.spread = [value.max() - value.min() for value in self.before]

    def run(self) -> list[torch.Tensor]:
        """The outputs, whatever was run before."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for name, buffer in self.model.named_buffers():
                buffer.copy_(self.buffers[name])
            torch.manual_seed(0)
            return [value for value in pytree.tree_leaves(self.model(*self.args)) if isinstance(value, torch.Tensor)]

    def moved(self, gamma: Gamma) -> float:
        """The largest change of an output, in units of its spread, when the gamma and its beta are doubled."""
        owner, _, last = gamma.name.rpartition(".")
        beta = self.parameters.get(f"{owner}.bias") if last == "weight" else None
        both = [(self.parameters[gamma.name], float(gamma.zero_centered)), *([(beta, 0.0)] if beta is not None else [])]
        kept = [value.detach().clone() for value, _ in both]
        with torch.no_grad():
            for value, base in both:
                value.add_(base).mul_(2).sub_(base)
            after = self.run()
            for (value, _), old in zip(both, kept, strict=True):
                value.copy_(old)
        changes = zip(self.before, after, self.spread, strict=True)
        return max(((new - old).abs().max() / spread).item() for old, new, spread in changes)


def _double(value):
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
