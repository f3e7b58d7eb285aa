"""The variance of branch and skip at each residual sum, on a batch that stays the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.replay import Replay
from hf_gammareg.graph.untouched import same_random_state
from hf_gammareg.inputs.derive import arguments
from hf_gammareg.model.values import sharded, state
from hf_gammareg.model.whole import placement, unwrapped
from hf_gammareg.roles.find import Analysis, analyse
from hf_gammareg.roles.residual import Ancestry, find_sums
from hf_gammareg.roles.sums import Sum


@dataclass(frozen=True, slots=True, kw_only=True)
class SumVariance:
    """Variances at one residual sum, each over all elements of a tensor: examples, positions and channels."""

    module: str
    """Path of the module that sums."""
    branch: float
    """Of the branch; where there are several, of their sum."""
    skip: float
    """Of the skip."""

    @property
    def ratio(self) -> float:
        """Variance of the branch over that of the skip: 0 where the block is the identity."""
        return self.branch / self.skip if self.skip else float("inf") if self.branch else 0.0


class ResidualProbe:
    """Runs one batch through the exported program of a model and looks at its residual sums.

    The pass is that of training, in train mode where the model exports in it: norms take the statistics of the batch.
    Dropout and stochastic depth are off, and it computes in the parameters' own type, without autocast. It is not the
    model's own forward: no hook runs, and no parameter, buffer, mode or random number generator changes.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.branch = nn.Linear(2, 2, bias=False)
    ...     def forward(self, x):
    ...         return x + self.branch(x)
    >>> block = Block()
    >>> _ = block.branch.weight.data.copy_(torch.eye(2) / 2)
    >>> [round(total.ratio, 6) for total in ResidualProbe(block, torch.randn(8, 2)).measure()]
    [0.25]

    Args:
        model: a model whose parameters are whole on this process; DDP and `torch.compile` may be around it.
        batch: a batch in any form of `find_gammas`' `example_inputs`; the larger, the less its variances scatter. Or an
            `Analysis` of the model, to probe it with the batch that this was made with: then nothing is traced again.

    Raises:
        GammaRegError: if the parameters are sharded, or the model can't be traced. Both show on first measurement.
    """

    def __init__(self, model: nn.Module, batch: Any) -> None:
        self.model = model
        self._analysis = batch if isinstance(batch, Analysis) else None
        self._batch = (batch.args, batch.kwargs) if isinstance(batch, Analysis) else batch
        self._device: torch.device | None = None

    def measure(self) -> list[SumVariance]:
        """Run the batch through the model as it is now.

        Returns:
            One record for each residual sum, in the order of computation: by depth.
        """
        if sharded(self.model):
            raise GammaRegError(
                "Expected a model whose parameters are whole on each process to probe, found sharded ones (FSDP or "
                "ZeRO-3). Leave the probe out, or probe a checkpoint in one process."
            )
        model = unwrapped(self.model)
        device = placement(model)[0]
        with same_random_state(), torch.no_grad(), _plain_forward(model):
            # Constants of the program lie where the model lay when it was traced.
            if self._device != device:
                self._prepare(model, device)
            kept = {name: [operand.name for operand in total.operands] for name, total in self._sums.items()}
            return [
                _variances(self._sums[name], values)
                for name, values in self._replay.steadily(state(model), kept)
                if name in self._sums
            ]

    def _prepare(self, model: nn.Module, device: torch.device) -> None:
        """Find the residual sums; an analysis goes, and what it holds, once its program is read."""
        analysis, self._analysis = self._analysis, None
        if analysis is None or analysis.device != device:
            batch = tree_map_only(Tensor, lambda tensor: tensor.to(device), arguments(model, self._batch))
            analysis = analyse(model, batch)
        if analysis.program is None:
            raise analysis.untraceable("to probe its residual sums", "Leave the probe out.")
        self._replay = Replay(analysis.program, model, analysis.gammas.source)
        sums, _ = find_sums(self._replay.graph, Ancestry(self._replay.graph))
        residual = (sums[index] for index in sorted(sums) if sums[index].is_residual())
        self._sums = {total.node.name: total for total in residual if all(operand.name for operand in total.operands)}
        self._device = device


def _variances(total: Sum, values: Mapping[str, Any]) -> SumVariance:
    assert total.skip is not None
    branch = sum(values[operand.name].double() for operand in total.branches)
    skip = values[total.skip.name].double()
    return SumVariance(
        module=total.node.module,
        branch=torch.as_tensor(branch).var(correction=0).item(),
        skip=skip.var(correction=0).item(),
    )


@contextlib.contextmanager
def _plain_forward(model: nn.Module) -> Iterator[None]:
    """The forward of the model's class, without the autocast that accelerate puts around it."""
    patched = model.__dict__.pop("forward", None) if "_original_forward" in model.__dict__ else None
    try:
        yield
    finally:
        if patched is not None:
            model.__dict__["forward"] = patched
