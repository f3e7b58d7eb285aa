"""What happens to the gammas during training: one flat dictionary of numbers at a time, and a file that keeps them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hf_gammareg.decay.optimizers import unwrapped_optimizer
from hf_gammareg.errors import GammaRegError
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.values import is_main_process, whole_values
from hf_gammareg.roles.gammas import GammaMap, Role
from hf_gammareg.watch.history import History, plot_history
from hf_gammareg.watch.probe import ResidualProbe

NEAR_ZERO = 0.01
"""A gain below this size counts as near 0: it passes on less than a hundredth of the normalised value."""


class GammaMonitor:
    """Measures the gammas of a model by role, for any training loop.

    >>> from hf_gammareg import find_gammas
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    >>> monitor = GammaMonitor(model, find_gammas(model, torch.zeros(2, 3, 8, 8)))
    >>> _ = model[1].weight.data.fill_(0.5)
    >>> for key, value in monitor.measure(step=1, lr=0.1).items():
    ...     print(key, round(value, 4))
    gamma/final/mean 1.0
    gamma/final/min 1.0
    gamma/final/max 1.0
    gamma/final/near_zero 0.0
    gamma/absorbed/mean 0.5
    gamma/absorbed/min 0.5
    gamma/absorbed/max 0.5
    gamma/absorbed/near_zero 0.0
    gamma/absorbed/effective_lr 0.4
    gamma/absorbed/effective_lr_adaptive 0.2

    In an Accelerate loop, on every process: `accelerator.log(monitor.measure(step, optimizer), step=step)`.

    The keys, for each role that the model has:

    - `gamma/ROLE/mean`, `/min`, `/max`: of |gamma| over all gains of the role, frozen ones too. Where a layer
      multiplies by 1 + w (`zero_centered`), gamma is that gain, not w.
    - `gamma/ROLE/near_zero`: share of these gains with |gamma| < `near_zero`, from 0 to 1.
    - `gamma/absorbed/effective_lr`: lr / mean(gamma²) of a layer, as the geometric mean over the trainable layers of
      that role. The loss does not change when an absorbed gamma and its beta are multiplied by c > 0, so only their
      direction counts; and its gradient is divided by c. A step of gradient descent with lr on (gamma, beta) is
      therefore, up to a common factor, a step with lr / mean(gamma²) on the same pair divided by rms(gamma). That
      fixes the unit: a layer whose gains are 1 has an effective lr of lr whatever its width; per unit norm it is
      lr / ||gamma||², less by the constant factor of the width. Decay makes gamma smaller and this number larger.
    - `gamma/absorbed/effective_lr_adaptive`: the same for an optimizer whose step does not depend on the size of the
      gradient (Adam, Lion): lr / rms(gamma).
    - `gamma/residual/branch/000`, `/skip/000`, `/ratio/000`, with a probe: variances at each residual sum and branch
      over skip, numbered in the order of computation (see `ResidualProbe` and `residual_modules`).

    The two effective rates are there only where lr is known; a layer whose gains are all 0 has none.

    Args:
        model: the model that is trained, wrapped and sharded or not.
        gammas: from `find_gammas(model)`, before it was wrapped.
        history: a file (`gamma_history.jsonl`) that gets one line for each measurement; None: no file.
        near_zero: a gain below this size is near 0.
        probe: a batch for the variances, in any form of `find_gammas`' `example_inputs`, or the `Analysis` made with it
            (see `ResidualProbe`); each measurement then costs a forward pass.

    Raises:
        GammaRegError: if `near_zero` is no positive number.

    Source of the effective learning rate: van Laarhoven, "L2 Regularization versus Batch and Weight Normalization",
    2017 (arXiv 1706.05350), for a weight before a normalization: lr / ||w||² for gradient descent, lr / ||w|| for Adam.
    That it is applied to gamma, with this unit, is this library's reading of Kim et al. (doi 10.1145/3643860).
    """

    def __init__(
        self,
        model: nn.Module,
        gammas: GammaMap,
        *,
        history: str | Path | None = None,
        near_zero: float = NEAR_ZERO,
        probe: Any = None,
    ) -> None:
        if not (isinstance(near_zero, int | float) and 0 < near_zero < math.inf):
            raise GammaRegError(f"Expected `near_zero` to be a positive number, found {near_zero!r}. Use 0.01, say.")
        self.model, self.gammas, self.near_zero = model, gammas, near_zero
        self.history = None if history is None else History(history)
        self.residual_modules: tuple[str, ...] = ()
        """Paths of the modules with the residual sums, by number; known once a probe has measured."""
        self._probe = None if probe is None else ResidualProbe(model, probe)

    def resume(self, step: int) -> None:
        """Drop what the history holds of later steps, because the run goes on from this one.

        Args:
            step: the last step that is done; 0 for a run from the beginning.
        """
        if self.history and is_main_process():
            self.history.resume(step)

    def measure(self, step: int, lr: float | Mapping[str, float] | Optimizer | None = None) -> dict[str, float]:
        """Look at the gammas as they are now, and add a line to the history.

        With FSDP or ZeRO-3 call it on every process: they gather the gammas together. Rank 0 writes.

        Args:
            step: where the run is, in the steps that it logs by: mostly optimizer steps.
            lr: the learning rate now: one number, one for each parameter name, or the optimizer that has it.

        Returns:
            Numbers by key, the same on every process.

        Raises:
            GammaRegError: if `lr` is of another kind, the model lacks a gamma, or a probe finds a model that is sharded
                or can't be traced.
        """
        rates = learning_rates(lr, self.model, self.gammas.names)
        values = whole_values(self.model, self.gammas.names)
        gains = {
            gamma.name: values[gamma.name].double() + (1.0 if gamma.zero_centered else 0.0) for gamma in self.gammas
        }
        found: dict[str, float] = {}
        for role in Role:
            if members := self.gammas.by_role(role):
                found |= _statistics(f"gamma/{role}", [gains[gamma.name] for gamma in members], self.near_zero)
        trained = [gamma.name for gamma in self.gammas.by_role(Role.ABSORBED) if gamma.trainable]
        found |= _effective([(rates[name], gains[name]) for name in trained if name in rates])
        if self._probe:
            sums = self._probe.measure()
            self.residual_modules = tuple(total.module for total in sums)
            for number, total in enumerate(sums):
                for what in ("branch", "skip", "ratio"):
                    found[f"gamma/residual/{what}/{number:03d}"] = getattr(total, what)
        if self.history and is_main_process():
            self.history.append(step, found)
        return found

    def plot(self, path: str | Path | None = None, *, title: str = "") -> Path:
        """Draw the history so far: see `plot_history`.

        Raises:
            GammaRegError: without a history or matplotlib.
        """
        if self.history is None:
            raise GammaRegError(
                "Expected a monitor with a history to draw, found one without. Give GammaMonitor `history=` a path."
            )
        return plot_history(self.history.path, path, title=title)


def learning_rates(
    lr: float | Mapping[str, float] | Optimizer | None, model: nn.Module, names: Collection[str]
) -> dict[str, float]:
    """The learning rate of each of these parameters, by canonical name; those that have none are left out.

    Args:
        lr: one number for all, numbers by parameter name, or an optimizer, wrapped or not: its groups' `param_names`
            say which is whose, else the parameters themselves.
        model: the model that an optimizer's parameters belong to.
        names: canonical names of parameters.

    Raises:
        GammaRegError: if `lr` is of another kind.
    """
    if lr is None:
        return {}
    if isinstance(lr, int | float | Tensor):
        return dict.fromkeys(names, float(lr))
    known = parameter_names(model)
    if isinstance(lr, Mapping):
        given = dict(zip(known.canonical(list(lr)), map(float, lr.values()), strict=True))
        return {name: given[name] for name in names if name in given}
    if not hasattr(lr, "param_groups"):
        raise GammaRegError(
            f"Expected `lr` to be a number, a dictionary by parameter name or an optimizer, found {type(lr).__name__}. "
            "Pass one of these, or None to leave the effective learning rate out."
        )
    rates: dict[str, float] = {}
    for group in unwrapped_optimizer(lr).param_groups:
        members = group.get("param_names") or [known.by_id.get(id(parameter), "") for parameter in group["params"]]
        if group.get("lr") is not None:
            rates |= dict.fromkeys(members, float(group["lr"]))
    rates = dict(zip(known.canonical(list(rates)), rates.values(), strict=True))
    return {name: rates[name] for name in names if name in rates}


def _statistics(prefix: str, gains: list[Tensor], near_zero: float) -> dict[str, float]:
    sizes = torch.cat(gains).abs()
    if not sizes.numel():
        return {}
    return {
        f"{prefix}/mean": sizes.mean().item(),
        f"{prefix}/min": sizes.min().item(),
        f"{prefix}/max": sizes.max().item(),
        f"{prefix}/near_zero": (sizes < near_zero).double().mean().item(),
    }


def _effective(pairs: list[tuple[float, Tensor]]) -> dict[str, float]:
    """Effective learning rates of scale-invariant layers, from the rate and the gains of each."""
    squares = [(lr, gains.square().mean().item()) for lr, gains in pairs]
    squares = [(lr, square) for lr, square in squares if square > 0 and math.isfinite(square)]
    if not squares:
        return {}
    return {
        "gamma/absorbed/effective_lr": _geometric_mean([lr / square for lr, square in squares]),
        "gamma/absorbed/effective_lr_adaptive": _geometric_mean([lr / math.sqrt(square) for lr, square in squares]),
    }


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if all(values) else 0.0
