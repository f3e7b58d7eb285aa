"""From a graph to roles: follow a factor on each norm's output until something decides its fate."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.capture import capture
from hf_gammareg.graph.nodes import Graph, Node
from hf_gammareg.graph.ops import Effect
from hf_gammareg.model.whole import whole
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role
from hf_gammareg.roles.residual import Ancestry, Sum, find_sums
from hf_gammareg.roles.scale import End, Part, Scale, add, transfer
from hf_gammareg.roles.sites import Site, find_sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """One way a walk ended."""

    role: Role
    node: Node
    """The add, norm, op or output that decided."""
    exact: bool


def find_gammas(model: nn.Module, example_inputs: Any = None) -> GammaMap:
    """Find the gammas of a model and the role that each plays in the residual network.

    >>> from torch import nn, zeros
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    >>> gammas = find_gammas(model, zeros(2, 3, 8, 8))
    >>> [(gamma.name, str(gamma.role), gamma.exact) for gamma in gammas]
    [('1.weight', 'absorbed', True), ('4.weight', 'final', True)]

    The model is traced on fake tensors and left as it was: mode, buffers, hooks, attributes, RNG.

    Args:
        model: any PyTorch model, on any device, not yet wrapped or sharded.
        example_inputs: what the model's forward takes, two examples: a tensor, a tuple of positional arguments, a
            dictionary of keyword arguments, or a pair of both. Default: made from what the model says of itself.

    Returns:
        The gammas in model order. Where the model cannot be traced, each has the role `unknown` and the reason.

    Raises:
        GammaRegError: if `example_inputs` is of another form, or missing for a model that does not say what it takes.

    Source of the roles: this library's reading of Kim et al. (ACM TIST 2024, doi 10.1145/3643860); see `Role`.
    """
    args, kwargs = arguments(model, example_inputs)
    names = norm_parameters(model := whole(model))
    try:
        graph = capture(model, args, kwargs)
    except Exception as error:
        why = f"The model could not be traced: {_first_line(error)}"
        return _assemble(model, {name: [] for name in names}, names, source=f"none: {_first_line(error)}", why=why)
    uses = analyse(graph)
    read = {node.parameter for node in graph.nodes if node.parameter and node.users}
    missing: dict[str, list[Use]] = {name: [] for name in names if name not in read}
    others: dict[str, str] = {name: NOT_A_GAMMA for name in names if name in read and name not in uses}
    found = _assemble(model, uses | missing, names, source=graph.source, why="Not reached by the example inputs.")
    return GammaMap(gammas=found.gammas, source=found.source, not_gammas=others)


NOT_A_GAMMA = "It multiplies no normalised activation."


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One use of a gamma and its fates."""

    site: Site
    role: Role
    exact: bool
    placement: str | None
    reason: str
    read: bool = True
    """Whether anything that the model returns depends on it."""


def analyse(graph: Graph) -> dict[str, list[Use]]:
    """Find the uses of every gamma in a graph, each with its role."""
    ancestry = Ancestry(graph)
    sums, inner = find_sums(graph, ancestry)
    walker = _Walker(graph, ancestry, sums, inner)
    uses: dict[str, list[Use]] = {}
    for site in find_sites(graph):
        uses.setdefault(site.parameter, []).append(walker.walk(site))
    return uses


class _Walker:
    """Walks from sites, over one graph."""

    def __init__(self, graph: Graph, ancestry: Ancestry, sums: dict[int, Sum], inner: set[int]) -> None:
        self.graph, self.ancestry, self.sums = graph, ancestry, sums
        # The readers of a sum's operand are the sum as a whole, not the adds inside its chain.
        self.readers: dict[int, list[Node]] = {}
        returned = _returned(graph)
        for node in graph.nodes:
            if node.index in inner or not returned[node.index]:
                continue
            total = sums.get(node.index)
            for read in total.operands if total else node.inputs:
                self.readers.setdefault(read.index, []).append(node)
        self.decided_later = decided_later(graph, sums)

    def walk(self, site: Site) -> Use:
        scales: dict[int, Scale] = {site.node.index: Scale()}
        fates: list[Fate] = []
        direct: list[bool] = []  # for each add that the factor reaches: no weight layer on the way
        weighed = False
        heap: list[int] = []
        queued: set[int] = set()

        def spread(node: Node) -> None:
            for reader in self.readers.get(node.index, ()):
                if reader.index not in queued:
                    queued.add(reader.index)
                    heapq.heappush(heap, reader.index)
            if node.index in self.graph.outputs:
                fates.append(Fate(role=Role.FINAL, node=node, exact=scales[node.index].exact))

        spread(site.node)
        while heap:
            node = self.graph.nodes[heapq.heappop(heap)]
            total = self.sums.get(node.index)
            if total:
                carrying = [operand for operand in total.operands if operand.index in scales]
                if total.is_residual():
                    direct += [not scales[operand.index].weighed for operand in carrying]
                    if len(carrying) < len(total.operands):
                        fates.append(self._at_residual(site, total, carrying, scales))
                        continue
                scales[node.index] = add(node, (*total.operands, *total.constants), lambda n: scales.get(n.index))
            else:
                outcome = transfer(node, lambda n: scales.get(n.index))
                if outcome.end:
                    fates.append(self._at_end(node, outcome.end, outcome.exact))
                if not outcome.scale:
                    continue
                scales[node.index] = outcome.scale
            weighed |= scales[node.index].weighed
            spread(node)
        placement = "output" if any(direct) else "input" if weighed else None
        return _decide(site, fates, placement)

    def _at_residual(self, site: Site, total: Sum, carrying: list[Node], scales: Mapping[int, Scale]) -> Fate:
        exact = all(scales[operand.index].exact and scales[operand.index].part is Part.WHOLE for operand in carrying)
        role = Role.LAST
        if total.skip in carrying:
            inside = not any(self.ancestry.has(branch, site.node) for branch in total.branches)
            role = Role.SHORTCUT if inside else Role.TRUNK
        return Fate(role=role, node=total.node, exact=exact)

    def _at_end(self, node: Node, end: End, exact: bool) -> Fate:
        if end is End.CANCELLED:
            return Fate(role=Role.ABSORBED, node=node, exact=exact)
        if end is End.UNRULED:
            return Fate(role=Role.UNKNOWN, node=node, exact=False)
        # A pooler's tanh after the last block gates nothing: what it squashes goes out.
        role = Role.GATE if self.decided_later[node.index] else Role.FINAL
        return Fate(role=role, node=node, exact=False)


def _returned(graph: Graph) -> list[bool]:
    """By node: whether the outputs depend on it; what only an assertion or a branch reads decides nothing."""
    returned = [node.index in graph.outputs for node in graph.nodes]
    for node in reversed(graph.nodes):
        if returned[node.index]:
            for read in node.inputs:
                returned[read.index] = True
    return returned


def decided_later(graph: Graph, sums: Mapping[int, Sum]) -> list[bool]:
    """By node: whether it, or something after it, multiplies activations, normalises or is a residual sum."""
    later = [False] * len(graph.nodes)
    for node in reversed(graph.nodes):
        total = sums.get(node.index)
        product = node.effect(Effect.MIX, Effect.PRODUCT) and sum(n.activation for n in node.inputs) > 1
        settles = node.effect(Effect.NORM) or product or (total is not None and total.is_residual())
        later[node.index] |= settles
        if later[node.index]:
            for read in node.inputs:
                later[read.index] = True
    return later


def _decide(site: Site, fates: list[Fate], placement: str | None) -> Use:
    if not fates:
        reason = f"Nothing reads the output of {_place(site.node)}."
        return Use(site=site, role=Role.UNKNOWN, exact=False, placement=placement, reason=reason, read=False)
    worst = min(fates, key=lambda fate: fate.role.protection)
    decisive = [fate for fate in fates if fate.role is worst.role]
    on_the_way = fates if worst.role is Role.ABSORBED else decisive
    return Use(
        site=site,
        role=worst.role,
        exact=all(fate.exact for fate in on_the_way),
        placement=placement,
        reason=_reason(worst, len({fate.node.index for fate in decisive}) - 1),
    )


def _reason(fate: Fate, others: int) -> str:
    place = _place(fate.node)
    more = f", and {others} more" if others else ""
    match fate.role:
        case Role.LAST:
            return f"Reaches the residual add in {place} on the branch side{more}."
        case Role.SHORTCUT:
            return f"Reaches the residual add in {place} on the skip side, from inside the block{more}."
        case Role.TRUNK:
            return f"Reaches the residual add in {place} on the skip side, from below the block{more}."
        case Role.ABSORBED:
            return f"Cancelled by the normalization in {place}{more}."
        case Role.FINAL:
            return f"Reaches the output through {place}, normalised by nothing on the way."
        case Role.GATE:
            return f"Reaches only what saturates: {fate.node.op} in {place}{more}."
    return f"Reaches {fate.node.op} in {place}, an op that no rule covers{more}."


def _place(node: Node) -> str:
    return f"`{node.module}`" if node.module else "the model's own forward"


def norm_parameters(model: nn.Module) -> dict[str, str]:
    """Names of 1-d parameters, biases apart, that belong to a module called norm, each with the kind its class says."""
    kinds: dict[str, str] = {}
    owners = {
        id(parameter): (type(module).__name__.lower(), local)
        for module in model.modules()
        for local, parameter in module.named_parameters(recurse=False)
    }
    for name, parameter in model.named_parameters():
        owner, local = owners[id(parameter)]
        if parameter.ndim == 1 and ("norm" in owner or "bn" in owner) and "bias" not in local and "beta" not in local:
            words = {"rms": "rms_norm", "group": "group_norm", "instance": "instance_norm", "layer": "layer_norm"}
            default = "batch_norm" if "batch" in owner or "bn" in owner else "layer_norm"
            kinds[name] = next((kind for word, kind in words.items() if word in owner), default)
    return kinds


def _assemble(
    model: nn.Module, uses: Mapping[str, list[Use]], kinds: Mapping[str, str], *, source: str, why: str
) -> GammaMap:
    gammas = []
    for name, parameter in model.named_parameters():
        if name not in uses:
            continue
        found = uses[name]
        read = [use for use in found if use.read] or found
        worst = min(read, key=lambda use: use.role.protection, default=None)
        gammas.append(
            Gamma(
                name=name,
                role=worst.role if worst else Role.UNKNOWN,
                kind=worst.site.kind if worst else kinds[name],
                numel=parameter.numel(),
                exact=bool(found) and all(use.exact for use in found) and len(found) == 1,
                placement=worst.placement if worst else None,
                zero_centered=any(use.site.zero_centered for use in found),
                trainable=parameter.requires_grad,
                reason=worst.reason if worst else why,
            )
        )
    return GammaMap(gammas=tuple(gammas), source=source)


def arguments(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a forward pass, from any form of `example_inputs`."""
    if example_inputs is None:
        from hf_gammareg.inputs.vision import example_inputs as make

        return make(model)
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        pair = (
            len(example_inputs) == 2 and isinstance(example_inputs[0], tuple) and isinstance(example_inputs[1], Mapping)
        )
        return (example_inputs[0], dict(example_inputs[1])) if pair else (tuple(example_inputs), {})
    raise GammaRegError(
        "Expected `example_inputs` to be a tensor, a tuple of positional arguments, a dictionary of keyword arguments "
        f"or a pair of both, found {type(example_inputs).__name__}. Pass what you would pass to the model."
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
