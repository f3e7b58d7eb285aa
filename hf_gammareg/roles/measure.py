"""Measure instead of deriving: scale each gamma on the real model and look where the factor arrives."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.replay import Replay, call, double
from hf_gammareg.graph.rows import Effect
from hf_gammareg.model.names import parameter_names, place
from hf_gammareg.model.values import state
from hf_gammareg.roles.find import Analysis, analyse
from hf_gammareg.roles.gains import Gains
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role
from hf_gammareg.roles.meeting import Meetings
from hf_gammareg.roles.rerun import CARRIES, FACTORS, noisy, power, same, scaled

TINY = 0.01
"""A parameter all below this (a LayerScale that starts at 1e-6) would hide what comes through it, and is drawn anew."""
TOLERANCE = 1e-4
"""How much of its spread the output may move under an `absorbed` and `exact` gamma that is doubled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What scaling one gamma did."""

    name: str
    role: Role | None
    """What the analysis of the graph says; None where it knows no gamma of this name."""
    measured: str
    """Where the factor arrived: `skip`, `output` (or something that saturates on the way there, after all that could
    decide otherwise: a pooler's tanh), `branch`, `cancelled`, `saturated`, or `nowhere`. Of a parameter that is said to
    be no gamma: `gain`."""
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
    gamma is multiplied by two large factors: a value whose size grows with them carries the factor. Where it is added
    to an activation that doesn't, the values alone say which side is the stream (`hf_gammareg.roles.meeting`); where
    it ends, what it ended in is run on multiplied values. A parameter that multiplies what has the same size whatever
    the weights before it is a gain: there must be a gamma of its name. The roles' own sums and sites have no part in
    it.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    >>> [(m.name, str(m.role), m.measured, m.agrees) for m in verify(model, torch.randn(2, 3, 8, 8))]
    [('1.weight', 'absorbed', 'cancelled', True), ('4.weight', 'final', 'output', True)]

    Args:
        model: a model with real parameters; it is left bit-identical.
        example_inputs: see `find_gammas`; with values, not zeros.
        analysis: of this model, if it is at hand; default: `analyse(model, example_inputs)`.
        gammas: roles to check; default: those of the analysis.
        names: parameters to check, gammas (`sample` picks one of each kind) and others, which should be none; default:
            all.
        seed: of the drawn parameters.
        progress: wraps the list of names, for a progress bar.

    Returns:
        One measurement for each gamma whose role is not `unknown`, in model order, and one for each parameter that is
        measured to be a gain and is no gamma.

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
    named = [name for name in parameter_names(model).parameters if names is None or name in names]
    wanted = [gamma.name for gamma in gammas if gamma.role is not Role.UNKNOWN and gamma.name in named]
    if not named:
        return ()
    analysis = analysis or analyse(model, example_inputs)
    if not wanted and analysis.program is None:
        return ()
    if analysis.program is None:
        raise analysis.untraceable("to measure", "Pass inputs that reach its norms, or check its roles by hand.")
    replay = Replay(analysis.program, model, analysis.gammas.source)
    lab = _Lab(replay, _drawn(model, gammas, seed), _betas(model), parameter_names(model).parameters)
    found = [lab.measure(gammas[name]) for name in progress(wanted)]
    for name in named:
        if name in replay.parameters and name not in gammas and (where := lab.gains.place(name)) is not None:
            found.append(Measurement(name=name, role=None, measured="gain", agrees=False, moved=None, where=where))
    return tuple(found)


def sample(gammas: GammaMap) -> tuple[str, ...]:
    """Names of gammas, the first of each place (its name without layer numbers), role and exactness."""
    first = {(place(gamma.name), gamma.role, gamma.exact): gamma.name for gamma in reversed(gammas.gammas)}
    return tuple(name for name in gammas.names if name in first.values())


class _Lab:
    """Scales gammas in one forward pass and looks where the factor arrives."""

    def __init__(
        self, replay: Replay, held: Mapping[str, torch.Tensor], betas: Mapping[str, str], names: Collection[str]
    ) -> None:
        self.replay, self.betas = replay, betas
        self.values = replay.start(held)
        """Every value of the unchanged pass, by its name in the program."""
        for step in replay.steps:
            self.values[step.name] = call(step, self.values)
        self.meetings = Meetings(replay, self.values)
        self.gains = Gains(self.meetings, names)

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
            node = self.meetings.nodes.get(step.name)
            module = node.module if node else ""
            if seeds.isdisjoint(touched) and self.meetings.meet(step, powers):
                skip = self.meetings.skip(step)
                if skip:
                    ends["skip" if skip in powers else "branch"] = module
                    continue
            first, second = (call(step, view) for view in views)
            leaves = 1 if node and node.effect(Effect.NORM) else None  # not the statistics beside the output
            grown = power(first, second, leaves, apart=len(touched) == 1 and leaves is None)
            if abs(grown) >= CARRIES or not seeds.isdisjoint(touched):
                powers[step.name] = grown
                lanes[0][step.name], lanes[1][step.name] = first, second
            elif end := self._end(step, powers, lanes[0], leaves):
                ends.setdefault(end, module)
        for output in self.replay.outputs:
            if powers.get(output.name, 0.0) > CARRIES or self._divided(gamma, output.name):
                ends["output"] = output.module
        return ends

    def _divided(self, gamma: Gamma, output: str) -> bool:
        """Whether an output grows as a gamma that is used a second time becomes small: it is divided by it."""
        held = set(self.replay.parameters.get(gamma.name, ()))
        if sum(not held.isdisjoint(node.name for node in step.all_input_nodes) for step in self.replay.steps) < 2:
            return False
        small, large = (self._with(gamma, 1 / factor).get(output) for factor in FACTORS)
        return power(small, large) > CARRIES

    def _end(
        self, step: fx.Node, powers: Mapping[str, float], lane: Mapping[str, Any], leaves: int | None
    ) -> str | None:
        """How a factor ends in an op: `cancelled`, where its operands can be multiplied and nothing happens."""
        touched = [node.name for node in step.all_input_nodes if node.name in powers]
        before = self.values[step.name]
        noise = {name: noisy(self.values[name], lane[name]) for name in touched}
        if same(before, call(step, ChainMap(noise, self.values)), leaves):
            return None  # it reads their shape, or of what they hold another part
        twice = {name: scaled(self.values[name], 2.0 ** (round(4 * powers[name]) / 4)) for name in touched}
        floating = isinstance(before, torch.Tensor) and not before.is_floating_point()
        if not floating and same(before, call(step, ChainMap(twice, self.values)), leaves, TOLERANCE):
            return "cancelled"
        return "saturated" if self.meetings.settled_after(step.name) else "output"

    def _scaled(self, gamma: Gamma, factor: float) -> dict[str, Any]:
        """The values that hold a gamma's factor and its beta, multiplied."""
        held = self.replay.parameters.get(gamma.name, ())
        shift = 1.0 if gamma.zero_centered else 0.0
        scaled: dict[str, Any] = {}
        for name in self.gains.factors(gamma.name):  # the parameter, or a function of it: 1 + w, its exponential
            added = shift if name in held else 0.0
            scaled[name] = (self.values[name] + added) * factor - added
        for name in self.replay.parameters.get(self.betas.get(gamma.name, ""), ()):
            scaled[name] = self.values[name] * factor
        return scaled

    def _with(self, gamma: Gamma, factor: float) -> dict[str, Any]:
        """The values that are others where a gamma and its beta are multiplied."""
        after = self._scaled(gamma, factor)
        now = ChainMap(after, self.values)
        for step in self.replay.steps:
            if step.name not in after and any(node.name in after for node in step.all_input_nodes):
                after[step.name] = call(step, now)
        return after

    def _moved(self, gamma: Gamma) -> float:
        """Largest change of an output, in units of its spread, when the gamma and its beta are doubled."""
        after = self._with(gamma, 2.0)
        changes = [0.0]
        for output in self.replay.outputs:
            before, moved = self.values.get(output.name), after.get(output.name)
            if isinstance(before, torch.Tensor) and isinstance(moved, torch.Tensor) and before.is_floating_point():
                spread = (before - before.mean()).abs().max().item() or 1.0
                changes.append((moved - before).abs().max().item() / spread)
        return max(changes)


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
