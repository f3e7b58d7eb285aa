"""Numbers against roles: run a model in train mode, double a gamma and its beta, and look how far the output moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils import _pytree as pytree

from hf_gammareg import Gamma, GammaMap


class Doubling:
    """A model in double precision with affine parameters drawn anew, and its output.

    A gamma that starts at 0, as timm starts a ResNet's last ones, would show nothing when it is doubled. Running
    statistics have no part in it: train mode normalises by the batch.
    """

    def __init__(self, model: nn.Module, args, gammas: GammaMap, stages: Sequence[nn.Module] = ()) -> None:
        """`stages`: modules that make up the model one after another, to save what comes before a gamma."""
        self.model = model.double().train()
        self.stages = list(stages) or [model]
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
        self.inputs: list = [pytree.tree_map(_double, args)]
        for stage in self.stages:
            self.inputs.append(self._run([stage], self.inputs[-1]))
        self.before = _tensors(self.inputs[-1])
        self.spread = [value.max() - value.min() for value in self.before]

    def _run(self, stages, args):
        """What the stages return, whatever was run before."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for name, buffer in self.model.named_buffers():
                buffer.copy_(self.buffers[name])
            torch.manual_seed(0)
            for stage in stages:
                args = stage(*args)
                args = (args,) if isinstance(args, torch.Tensor) else args
            return args

    def moved(self, gamma: Gamma) -> float:
        """The largest change of an output, in units of its spread, when the gamma and its beta are doubled."""
        owner, _, last = gamma.name.rpartition(".")
        beta = self.parameters.get(f"{owner}.bias") if last == "weight" else None
        both = [(self.parameters[gamma.name], float(gamma.zero_centered)), *([(beta, 0.0)] if beta is not None else [])]
        kept = [value.detach().clone() for value, _ in both]
        held = self.parameters[gamma.name]
        first = next(i for i, stage in enumerate(self.stages) if any(held is p for p in stage.parameters()))
        with torch.no_grad():
            for value, base in both:
                value.add_(base).mul_(2).sub_(base)
            after = _tensors(self._run(self.stages[first:], self.inputs[first]))
            for (value, _), old in zip(both, kept, strict=True):
                value.copy_(old)
        changes = zip(self.before, after, self.spread, strict=True)
        return max(((new - old).abs().max() / spread).item() for old, new, spread in changes)


def _tensors(outputs):
    if isinstance(outputs, dict):
        outputs = next(iter(outputs.values()))  # beside the first one stand by-products
    return [value for value in pytree.tree_leaves(outputs) if isinstance(value, torch.Tensor)]


def _double(value):
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
