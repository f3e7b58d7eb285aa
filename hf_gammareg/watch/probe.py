"""The variance of branch and skip at each residual sum, on a batch that stays the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.capture import same_random_state, trace
from hf_gammareg.graph.program import read
from hf_gammareg.graph.replay import steady
from hf_gammareg.inputs.derive import arguments
from hf_gammareg.model.values import sharded
from hf_gammareg.model.whole import placement, unwrapped
from hf_gammareg.roles.residual import Ancestry, Sum, find_sums


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
        batch: a batch in any form of `find_gammas`' `example_inputs`; the larger, the less its variances scatter.

    Raises:
        GammaRegError: if the parameters are sharded, or the model can't be traced. Both show on first measurement.
    """

    def __init__(self, model: nn.Module, batch: Any) -> None:
        self.model, self.batch = model, batch
        self._program: _Program | None = None

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
            if self._program is None or self._program.device != device:
                self._program = _Program(model, self.batch, device)
            return self._program.run(model)


class _Program:
    """A model's program without ops in place, and the residual sums in it."""

    def __init__(self, model: nn.Module, batch: Any, device: torch.device) -> None:
        self.device = device
        self.args, self.kwargs = torch.utils._pytree.tree_map_only(
            Tensor, lambda tensor: tensor.to(device), arguments(model, batch)
        )
        try:
            program, source = trace(model, self.args, self.kwargs)
            self.program = program.run_decompositions({})  # no op in place: buffers stay as they are
        except Exception as error:
            raise GammaRegError(
                f"Expected a model that torch.export can trace to probe its residual sums, found one that it can't "
                f"({type(error).__name__}: {str(error)[:300]}). Leave the probe out."
            ) from error
        graph = read(self.program, model, source)
        sums, _ = find_sums(graph, Ancestry(graph))
        self.sums: list[Sum] = [
            sums[index]
            for index in sorted(sums)
            if sums[index].is_residual() and all(operand.name for operand in sums[index].operands)
        ]
        self.steps: list[fx.Node] = [node for node in self.program.graph.nodes if node.op == "call_function"]
        self.done_after = self._last_uses()

    def run(self, model: nn.Module) -> list[SumVariance]:
        """Compute op by op; each value goes as soon as nothing needs it any more."""
        values = self._held(model)
        pending = {total.node.name: total for total in self.sums}
        found: list[SumVariance] = []
        for step in self.steps:
            if total := pending.get(step.name):
                found.append(_variances(total, values))
            values[step.name] = steady(step, values)
            for name in self.done_after.get(step.name, ()):
                values.pop(name, None)
        return found

    def _held(self, model: nn.Module) -> dict[str, Any]:
        """Inputs, constants, and the live values of parameters and buffers."""
        live: dict[str, Any] = dict(model.named_parameters(remove_duplicate=False))
        live |= dict(model.named_buffers(remove_duplicate=False))
        held = {**self.program.state_dict, **self.program.constants, **live}
        inputs = self.program.example_inputs or (self.args, dict(self.kwargs))
        given = iter(torch.utils._pytree.tree_leaves(inputs))
        values: dict[str, Any] = {}
        for spec in self.program.graph_signature.input_specs:
            name = getattr(spec.arg, "name", "")
            value = next(given) if spec.kind.name == "USER_INPUT" else held[str(spec.target)]
            values[name] = value.detach() if isinstance(value, Tensor) else value
        for node in self.program.graph.nodes:
            if node.op == "get_attr":
                values[node.name] = getattr(self.program.graph_module, str(node.target))
        return values

    def _last_uses(self) -> dict[str, list[str]]:
        """By op the values that nothing reads after it."""
        last: dict[str, str] = {}
        sums = {total.node.name: total for total in self.sums}
        for step in self.steps:
            needed = [step.name, *(node.name for node in step.all_input_nodes)]
            needed += [operand.name for operand in sums[step.name].operands] if step.name in sums else []
            last |= dict.fromkeys(needed, step.name)
        done: dict[str, list[str]] = {}
        for name, step_name in last.items():
            done.setdefault(step_name, []).append(name)
        return done


def _variances(total: Sum, values: dict[str, Any]) -> SumVariance:
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
