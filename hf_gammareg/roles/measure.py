"""Measure instead of deriving: scale each gamma on the real model and look where the factor arrives."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.nodes import Node
from hf_gammareg.graph.replay import Replay, call, double
from hf_gammareg.graph.rows import Effect
from hf_gammareg.model.names import parameter_names, place
from hf_gammareg.model.values import state
from hf_gammareg.roles.find import Analysis, analyse
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role
from hf_gammareg.roles.residual import Ancestry, Sum, find_sums
from hf_gammareg.roles.walk import decided_later

FACTORS = (2.0**8, 2.0**14)
"""Two large factors: past them GELU and SiLU are ReLU, sigmoid is a step, and biases do not count."""
CARRIES = 0.3
"""A value whose size grows as c to a power above this carries the factor."""
TINY = 0.01
"""A parameter all below this (a LayerScale that starts at 1e-6) would hide what comes through it, and is drawn anew."""
TOLERANCE = 1e-4
"""How much of its spread the output may move under an `absorbed` and `exact` gamma that is doubled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What scaling one gamma did."""

    name: str
    role: Role
    """What the analysis of the graph says."""
    measured: str
    """Where the factor arrived: `skip`, `output` (or something that saturates on the way there, after all that could
    decide otherwise: a pooler's tanh), `branch`, `cancelled`, `saturated`, or `nowhere`."""
    agrees: bool
    moved: float | None
    """For `absorbed` and `exact` gammas: largest change of an output in units of its spread when doubled."""
    where: str
    """The module in which it was decided."""


MEASURED = {
    Role.TRUNK: ("skip",),
    Role.SHORTCUT: ("skip",),
    Role.FINAL: ("output",),
    Role.LAST: ("branch",),
    Role.ABSORBED: ("cancelled",),
    Role.GATE: ("saturated",),
}
"""What each role should measure as."""


PRECEDENCE = ("skip", "output", "branch", "cancelled", "saturated")
"""Where paths end differently, the first in this list is what was measured."""


def verify(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    analysis: Analysis | None = None,
    gammas: GammaMap | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> tuple[Measurement, ...]:
    """Scale every gamma, and its beta, in the exported program and compare where the factor arrives with its role.

    It runs in double precision and train mode, on the values of `example_inputs`, with dropout and stochastic
    depth off, on copies of the parameters, the affine ones drawn anew (a gamma that starts at 0 shows nothing). Each
    gamma is multiplied by
    two large factors: a value whose size grows with them carries the factor. At a residual sum where only some sides
    grow the walk stops and says which; the analysis of the graph has no part in it but which add is one.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    >>> [(m.name, str(m.role), m.measured, m.agrees) for m in verify(model, torch.randn(2, 3, 8, 8))]
    [('1.weight', 'absorbed', 'cancelled', True), ('4.weight', 'final', 'output', True)]

    Args:
        model: a model with real parameters; it is left bit-identical.
        example_inputs: see `find_gammas`; with values, not zeros.
        analysis: of this model, if it is at hand; default: `analyse(model, example_inputs)`.
        gammas: roles to check; default: those of the analysis.
        names: gammas to check; default: all (`sample` picks one of each kind).
        seed: of the drawn parameters.
        progress: wraps the list of names, for a progress bar.

    Returns:
        One measurement for each gamma whose role is not `unknown`, in model order.

    Raises:
        GammaRegError: if the model's parameters are on the meta device, or it cannot be traced.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise GammaRegError(
            "Expected a model with real parameters to measure, found parameters on the meta device. Build it on the "
            "CPU."
        )
    if gammas is None:
        analysis = analysis or analyse(model, example_inputs)
        gammas = analysis.gammas
    wanted = [g.name for g in gammas if g.role is not Role.UNKNOWN and (names is None or g.name in names)]
    if not wanted:
        return ()
    analysis = analysis or analyse(model, example_inputs)
    if analysis.program is None:
        raise analysis.untraceable("to measure", "Pass inputs that reach its norms, or check its roles by hand.")
    replay = Replay(analysis.program, model, analysis.gammas.source)
    lab = _Lab(replay, _drawn(model, gammas, seed), _betas(model))
    return tuple(lab.measure(gammas[name]) for name in progress(wanted))


def sample(gammas: GammaMap) -> tuple[str, ...]:
    """Names of gammas, the first of each place (its name without layer numbers), role and exactness."""
    first = {(place(gamma.name), gamma.role, gamma.exact): gamma.name for gamma in reversed(gammas.gammas)}
    return tuple(name for name in gammas.names if name in first.values())


class _Lab:
    """Scales gammas in one forward pass and looks where the factor arrives."""

    def __init__(self, replay: Replay, held: Mapping[str, torch.Tensor], betas: Mapping[str, str]) -> None:
        self.replay, self.betas = replay, betas
        self.values = replay.start(held)
        """Every value of the unchanged pass, by its name in the program."""
        for step in replay.steps:
            self.values[step.name] = call(step, self.values)
        self.nodes: dict[str, Node] = {node.name: node for node in replay.graph.nodes if node.name}
        sums, _ = find_sums(replay.graph, Ancestry(replay.graph))
        self.decided_later = decided_later(replay.graph, sums)
        self.sums: dict[str, Sum] = {
            total.node.name: total for total in sums.values() if total.is_residual() and total.node.name
        }

    def measure(self, gamma: Gamma) -> Measurement:
        ends = self._follow(gamma)
        measured = next((end for end in PRECEDENCE if end in ends), "nowhere")
        moved = self._moved(gamma) if gamma.role is Role.ABSORBED and gamma.exact else None
        return Measurement(
            name=gamma.name,
            role=gamma.role,
            measured=measured,
            agrees=measured in MEASURED[gamma.role] and (moved is None or moved <= TOLERANCE),
            moved=moved,
            where=ends.get(measured, ""),
        )

    def _follow(self, gamma: Gamma) -> dict[str, str]:
        """Follow two large factors until each path ends: the ends, each with the module it is in."""
        lanes = tuple(self._scaled(gamma, factor) for factor in FACTORS)
        seeds = set(lanes[0])
        # What a lane has not computed anew is as it was.
        views = [ChainMap(lane, self.values) for lane in lanes]
        powers = dict.fromkeys(seeds, 1.0)
        ends: dict[str, str] = {}
        for step in self.replay.steps:
            touched = [node.name for node in step.all_input_nodes if node.name in powers]
            if not touched:
                continue
            node = self.nodes.get(step.name)
            if total := self.sums.get(step.name):
                sides = [side for side in total.operands if powers.get(side.name, 0.0) > CARRIES]
                if 0 < len(sides) < len(total.operands):
                    ends["skip" if total.skip in sides else "branch"] = total.node.module
                if len(sides) < len(total.operands):
                    continue
            first, second = (call(step, view) for view in views)
            leaves = 1 if node and node.effect(Effect.NORM) else None  # not the statistics beside the output
            power = _power(first, second, leaves)
            if abs(power) >= CARRIES or not seeds.isdisjoint(touched):
                powers[step.name] = power
                lanes[0][step.name], lanes[1][step.name] = first, second
            elif node and node.tensor and not node.effect(Effect.VIEW) and _carried(touched, powers):
                cancels = node.effect(Effect.NORM, Effect.QUOTIENT, Effect.PRODUCT)
                squashed = "saturated" if self.decided_later[node.index] else "output"
                ends.setdefault("cancelled" if cancels else squashed, node.module)
        for output in self.replay.outputs:
            if powers.get(output.name, 0.0) > CARRIES:
                ends["output"] = output.module
        return ends

    def _scaled(self, gamma: Gamma, factor: float) -> dict[str, Any]:
        """The values that hold a gamma and its beta, multiplied."""
        scaled: dict[str, Any] = {}
        for name in (gamma.name, self.betas.get(gamma.name, "")):
            for held in self.replay.parameters.get(name, ()):
                shift = 1.0 if gamma.zero_centered and name == gamma.name else 0.0
                scaled[held] = (self.values[held] + shift) * factor - shift
        return scaled

    def _moved(self, gamma: Gamma) -> float:
        """Largest change of an output, in units of its spread, when the gamma and its beta are doubled."""
        after = self._scaled(gamma, 2.0)
        now = ChainMap(after, self.values)
        for step in self.replay.steps:
            if any(node.name in after for node in step.all_input_nodes):
                after[step.name] = call(step, now)
        changes = [0.0]
        for output in self.replay.outputs:
            before, moved = self.values.get(output.name), after.get(output.name)
            if isinstance(before, torch.Tensor) and isinstance(moved, torch.Tensor) and before.is_floating_point():
                spread = (before - before.mean()).abs().max().item() or 1.0
                changes.append((moved - before).abs().max().item() / spread)
        return max(changes)


def _carried(names: Iterable[str], powers: Mapping[str, float]) -> bool:
    return any(abs(powers[name]) > CARRIES for name in names)


def _power(first: Any, second: Any, leaves: int | None) -> float:
    """The power of c that a value grows with, from one under each factor; of a tuple the first few count."""
    powers = [0.0]
    lanes = (torch.utils._pytree.tree_leaves(value)[:leaves] for value in (first, second))
    for small, large in zip(*lanes, strict=True):
        if isinstance(small, torch.Tensor) and (small.is_floating_point() or small.is_complex()):
            finite = small.isfinite() & large.isfinite()
            sizes = [value[finite].abs().double().pow(2).sum().sqrt().item() for value in (small, large)]
            if min(sizes) > 0:
                powers.append(math.log(sizes[1] / sizes[0]) / math.log(FACTORS[1] / FACTORS[0]))
    return max(powers, key=abs)


def _drawn(model: nn.Module, gammas: GammaMap, seed: int) -> dict[str, torch.Tensor]:
    """The model's state in double precision: gammas around 1, betas around 0, small values where all are next to 0."""
    generator = torch.Generator().manual_seed(seed)
    betas = set(_betas(model).values())
    drawn: dict[int, torch.Tensor] = {}
    for name, parameter in parameter_names(model).parameters.items():
        noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.device)
        if name in gammas:
            noise = noise - 0.5 if gammas[name].zero_centered else noise + 0.5
        elif name in betas:
            noise = 0.2 * (noise - 0.5)
        elif parameter.numel() and parameter.abs().max() < TINY:
            noise = 0.1 * (noise - 0.5)
        else:
            noise = double(parameter.detach())
        drawn[id(parameter)] = noise
    return {name: drawn.get(id(tensor), tensor) for name, tensor in state(model).items()}


def _betas(model: nn.Module) -> dict[str, str]:
    """Names of gammas, each with that of the bias beside it."""
    names = parameter_names(model).parameters
    pairs = ((name, f"{name.rpartition('.')[0]}.bias".lstrip(".")) for name in names if name.endswith("weight"))
    return {gamma: beta for gamma, beta in pairs if beta in names}
