"""What is looked at during a run, and which residual sums the gammas of a role act on."""

import copy
import math
from typing import Any

import torch
from torch import nn

from hf_gammareg import Analysis, GammaMonitor, Role
from hf_gammareg.watch.probe import ResidualProbe

MOVES = 0.1
"""A role acts on a residual sum if halving its gammas moves ln(branch / skip) there by more than this."""


class Looker:
    """Measures the gammas at evenly spaced steps; the start and the end are among them.

    Args:
        model: the model that is trained.
        analysis: of the model, made with the examples for the variances.
        steps: optimizer steps of the run.
        times: how often to look, apart from the start.
    """

    def __init__(self, model: nn.Module, analysis: Analysis, steps: int, times: int) -> None:
        self.monitor = GammaMonitor(model, analysis.gammas, probe=analysis)
        self.steps = sorted({round(steps * number / times) for number in range(times + 1)})
        self.found: list[dict[str, float]] = []

    def look(self, step: int) -> None:
        """Measure if this step is one of those; learning rates count as 1, so effective ones are per unit of lr."""
        if step in self.steps[len(self.found) :]:
            self.found.append(self.monitor.measure(step, 1.0))

    def columns(self) -> dict[str, list[Any]]:
        """By key the values at `step`, with six significant digits; None where one was not finite."""
        keys = {key: None for row in self.found for key in row}
        return {"step": self.steps[: len(self.found)]} | {
            key: [_short(row.get(key, math.nan)) for row in self.found] for key in keys
        }


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def acts_on(model: nn.Module, analysis: Analysis) -> tuple[list[str], dict[str, list[int]]]:
    """Where in the network, as it is before training, the gammas of each role decide the ratio of branch to skip.

    Args:
        model: the network; a copy of it is changed.
        analysis: of the network, made with the examples for the variances.

    Returns:
        The module of each residual sum, and by role the numbers of the sums at which ln(branch / skip) moves by more
        than `MOVES` when all gammas and betas of that role are halved.
    """
    model, gammas = copy.deepcopy(model), analysis.gammas
    with torch.no_grad():
        for gamma in gammas.by_role(Role.LAST):  # a branch that starts at 0 has no logarithm
            gain = model.get_parameter(gamma.name)
            gain.copy_(torch.where(gain == 0, 1.0, gain))
    probe = ResidualProbe(model, analysis)
    before = probe.measure()
    found: dict[str, list[int]] = {}
    for role in Role:
        scaled = [name for gamma in gammas.by_role(role) for name in (gamma.name, _beta(model, gamma.name)) if name]
        if not scaled:
            continue
        kept = {name: model.get_parameter(name).detach().clone() for name in scaled}
        with torch.no_grad():
            for name in scaled:
                model.get_parameter(name).mul_(0.5)
            after = probe.measure()
            for name, value in kept.items():
                model.get_parameter(name).copy_(value)
        found[str(role)] = [
            number
            for number, (old, new) in enumerate(zip(before, after, strict=True))
            if old.ratio > 0 and (new.ratio <= 0 or abs(math.log(new.ratio / old.ratio)) > MOVES)
        ]
    return [total.module for total in before], found


def _beta(model: nn.Module, name: str) -> str | None:
    module = model.get_submodule(name.rpartition(".")[0])
    return f"{name.rpartition('.')[0]}.bias" if getattr(module, "bias", None) is not None else None
