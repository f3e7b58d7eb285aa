"""Measure instead of deriving: scale each gamma on the real model and look where the factor arrives."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_gammareg.capture import trace
from hf_gammareg.errors import GammaRegError
from hf_gammareg.gammas import Gamma, GammaMap, Role
from hf_gammareg.graph import Graph
from hf_gammareg.ops import Effect
from hf_gammareg.program import read
from hf_gammareg.residual import Ancestry, Sum, find_sums
from hf_gammareg.roles import arguments, find_gammas

FACTORS = (2.0**8, 2.0**14)
"""Two large factors: past them GELU and SiLU are ReLU, sigmoid is a step, and biases do not count."""
CARRIES = 0.3
"""A value whose size grows as c to a power above this carries the factor."""
TOLERANCE = 1e-4
"""How much of its spread the output may move under an `absorbed` and `exact` gamma that is doubled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What scaling one gamma did."""

    name: str
    role: Role
    """What the analysis of the graph says."""
    measured: str
    """Where the factor arrived: `skip`, `output`, `branch`, `cancelled`, `saturated`, or `nowhere`."""
    agrees: bool
    moved: float | None
    """For `absorbed` and `exact` gammas: largest change of an output in units of its spread when doubled."""
    where: str
    """The module in which it was decided."""


MEASURED = {
    Role.TRUNK: ("skip",),
    Role.SHORTCUT: ("skip",),
    Role.FINAL: ("output", "saturated"),
    Role.LAST: ("branch",),
    Role.ABSORBED: ("cancelled",),
    Role.GATE: ("saturated",),
}
"""What each role should measure as."""


def verify(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    gammas: GammaMap | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[Sequence[str]], Any] = iter,
) -> tuple[Measurement, ...]:
    """Scale every gamma, and its beta, on a copy of the model and compare where the factor arrives with its role.

    The copy runs in double precision and train mode, on the values of `example_inputs`, with dropout and stochastic
    depth off, its affine parameters drawn anew (a gamma that starts at 0 shows nothing). Each gamma is multiplied by
    two large factors: a value whose size grows with them carries the factor. At a residual sum where only some sides
    grow the walk stops and says which; the analysis of the graph has no part in it but which add is one.

    Args:
        model: a model with real parameters; it is left bit-identical.
        example_inputs: see `find_gammas`.
        gammas: roles to check; default: `find_gammas(model, example_inputs)`.
        names: gammas to check; default: all.
        seed: of the drawn parameters.
        progress: wraps the list of names, for a progress bar.

    Returns:
        One measurement for each gamma whose role is not `unknown`.

    Raises:
        GammaRegError: if the model's parameters are on the meta device, or it cannot be traced.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise GammaRegError(
            "Expected a model with real parameters to measure, found parameters on the meta device. Build it on the "
            "CPU."
        )
    if gammas is None:
        gammas = find_gammas(model, example_inputs)
    args, kwargs = arguments(model, example_inputs)
    lab = _Lab(model, args, kwargs, gammas, seed)
    wanted = [g.name for g in gammas if g.role is not Role.UNKNOWN and (names is None or g.name in names)]
    return tuple(lab.measure(gammas[name]) for name in progress(wanted))


class _Lab:
    """A copy of a model, its graph without in-place ops, and the values of one forward pass."""

    def __init__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], gammas: GammaMap, seed: int
    ) -> None:
        replica = copy.deepcopy(model).double()
        _draw(replica, gammas, seed)
        args, kwargs = torch.utils._pytree.tree_map(_double, (args, dict(kwargs)))
        try:
            program, source = trace(replica, args, kwargs)
            self.program = program.run_decompositions({})  # no op in place: values can be shared between runs
        except Exception as error:
            raise GammaRegError(
                f"Expected a model that torch.export can trace, found one that it can't ({error}). Pass inputs that "
                "reach its norms, or check its roles by hand."
            ) from error
        self.graph: Graph = read(self.program, replica, source)
        self.by_name = {node.name: node for node in self.graph.nodes if node.name}
        self.sums: dict[str, Sum] = {
            total.node.name: total
            for total in find_sums(self.graph, Ancestry(self.graph))[0].values()
            if total.is_residual() and total.node.name
        }
        self.betas = _betas(replica)
        self.fx_nodes = list(self.program.graph.nodes)
        self.parameters: dict[str, list[str]] = {}
        self.base = self._first_values(args, kwargs)
        for node in self.fx_nodes:
            if node.op == "call_function":
                self.base[node.name] = _call(node, self.base)

    def _first_values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        given = iter(torch.utils._pytree.tree_leaves((args, kwargs)))
        held = {**self.program.state_dict, **self.program.constants}
        for spec in self.program.graph_signature.input_specs:
            name = getattr(spec.arg, "name", "")
            if spec.kind.name == "USER_INPUT":
                values[name] = next(given)
            else:
                values[name] = held[spec.target]
                self.parameters.setdefault(str(spec.target), []).append(name)
        for node in self.fx_nodes:
            if node.op == "get_attr":
                values[node.name] = getattr(self.program.graph_module, str(node.target))
        return {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in values.items()}

    def measure(self, gamma: Gamma) -> Measurement:
        """Follow two large factors until each path ends."""
        scaled = [self._scaled(gamma, factor) for factor in FACTORS]
        grown: dict[str, list[Any]] = {name: [first, scaled[1][name]] for name, first in scaled[0].items()}
        seeds = set(grown)
        ends: dict[str, str] = {}
        for fx_node in self.fx_nodes:
            touched = [n.name for n in fx_node.all_input_nodes if n.name in grown]
            if fx_node.op != "call_function" or not touched:
                continue
            node = self.by_name.get(fx_node.name)
            total = self.sums.get(fx_node.name)
            if total:
                sides = [n for n in total.operands if self._power(n.name, grown) > CARRIES]
                if 0 < len(sides) < len(total.operands):
                    ends["skip" if total.skip in sides else "branch"] = total.node.module
                if len(sides) < len(total.operands):
                    continue
            lanes = [{**self.base, **{name: values[lane] for name, values in grown.items()}} for lane in (0, 1)]
            grown[fx_node.name] = [_call(fx_node, lane) for lane in lanes]
            carried = seeds.intersection(touched) or any(abs(self._power(n, grown)) > CARRIES for n in touched)
            if node and node.effect(Effect.NORM):  # the statistics beside the output are not passed on
                power = self._power(fx_node.name, grown, leaves=1)
            else:
                power = self._power(fx_node.name, grown)
            if abs(power) < CARRIES and not seeds.intersection(touched):
                del grown[fx_node.name]
                if carried and node and node.tensor and not node.effect(Effect.VIEW):
                    cancels = node.effect(Effect.NORM, Effect.QUOTIENT, Effect.PRODUCT)
                    ends.setdefault("cancelled" if cancels else "saturated", node.module)
        for index in self.graph.outputs:
            name = self.graph.nodes[index].name
            if self._power(name, grown) > CARRIES:
                ends["output"] = self.graph.nodes[index].module
        measured = next(
            (end for end in ("skip", "output", "branch", "cancelled", "saturated") if end in ends), "nowhere"
        )
        moved = self._moved(gamma) if gamma.role is Role.ABSORBED and gamma.exact else None
        agrees = measured in MEASURED[gamma.role] and (moved is None or moved <= TOLERANCE)
        return Measurement(
            name=gamma.name,
            role=gamma.role,
            measured=measured,
            agrees=agrees,
            moved=moved,
            where=ends.get(measured, ""),
        )

    def _scaled(self, gamma: Gamma, factor: float) -> dict[str, torch.Tensor]:
        scaled: dict[str, torch.Tensor] = {}
        for name in (gamma.name, self.betas.get(gamma.name)):
            for placeholder in self.parameters.get(name or "", ()):
                value: torch.Tensor = self.base[placeholder]
                shift = 1.0 if gamma.zero_centered and name == gamma.name else 0.0
                scaled[placeholder] = (value + shift) * factor - shift
        return scaled

    def _power(self, name: str, grown: Mapping[str, list[Any]], leaves: int | None = None) -> float:
        """The power of c that a value, or the first few of a tuple, grows with; 0 where it is not touched."""
        if name not in grown:
            return 0.0
        powers = [0.0]
        lanes = (torch.utils._pytree.tree_leaves(lane)[:leaves] for lane in grown[name])
        for first, second in zip(*lanes, strict=True):
            if isinstance(first, torch.Tensor) and (first.is_floating_point() or first.is_complex()):
                finite = first.isfinite() & second.isfinite()
                small, large = (value[finite].abs().double().pow(2).sum().sqrt().item() for value in (first, second))
                if small > 0 and large > 0:
                    powers.append(math.log(large / small) / math.log(FACTORS[1] / FACTORS[0]))
        return max(powers, key=abs)

    def _moved(self, gamma: Gamma) -> float:
        """Largest change of an output, in units of its spread, when the gamma and its beta are doubled."""
        values = {**self.base, **(moved := self._scaled(gamma, 2.0))}
        touched = set(moved)
        for fx_node in self.fx_nodes:
            if fx_node.op == "call_function" and any(n.name in touched for n in fx_node.all_input_nodes):
                values[fx_node.name] = _call(fx_node, values)
                touched.add(fx_node.name)
        changes = [0.0]
        for index in self.graph.outputs:
            name = self.graph.nodes[index].name
            before, after = self.base.get(name), values.get(name)
            if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) and before.is_floating_point():
                spread = (before - before.mean()).abs().max().item() or 1.0
                changes.append((after - before).abs().max().item() / spread)
        return max(changes)


def _call(node: Any, values: Mapping[str, Any]) -> Any:
    """Run one op, with what is random held still and ReLU6 without its upper bound, which a large factor would meet."""
    args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: values[n.name])
    op = getattr(getattr(node.target, "_schema", None), "name", "").removeprefix("aten::")
    with torch.no_grad():
        if op in ("dropout", "feature_dropout", "alpha_dropout"):
            return args[0]
        if op == "native_dropout":
            return args[0], torch.ones_like(args[0], dtype=torch.bool)
        if op == "bernoulli" and len(args) > 1 and isinstance(args[1], float):
            return torch.full_like(args[0], args[1])
        if op in ("rand", "rand_like", "randn", "randn_like", "uniform", "bernoulli", "normal", "normal_functional"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return node.target(*args, **kwargs)
        if op in ("relu6", "hardtanh") and (len(args) < 2 or args[1] >= 0):
            return torch.relu(args[0])
        if op == "scaled_dot_product_attention":
            kwargs = {name: value for name, value in kwargs.items() if name != "dropout_p"}
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
        return node.target(*args, **kwargs)


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _draw(model: nn.Module, gammas: GammaMap, seed: int) -> None:
    """Draw gammas around 1 and betas around 0, and put small values where a layer starts at 0."""
    generator = torch.Generator().manual_seed(seed)
    betas = set(_betas(model).values())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.device)
            if name in gammas:
                parameter.copy_(noise - 0.5 if gammas[name].zero_centered else noise + 0.5)
            elif name in betas:
                parameter.copy_(0.2 * (noise - 0.5))
            elif not parameter.any():
                parameter.copy_(0.1 * (noise - 0.5))


def _betas(model: nn.Module) -> dict[str, str]:
    """Names of gammas, each with that of the bias beside it."""
    names = {name for name, _ in model.named_parameters()}
    pairs = ((name, f"{name.rpartition('.')[0]}.bias".lstrip(".")) for name in names if name.endswith("weight"))
    return {gamma: beta for gamma, beta in pairs if beta in names}
