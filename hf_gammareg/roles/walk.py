"""From a graph to roles: follow a factor on each norm's output until something decides its fate."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hf_gammareg.graph.nodes import Graph, Node
from hf_gammareg.graph.rows import Effect
from hf_gammareg.roles.gammas import Role
from hf_gammareg.roles.residual import Ancestry
from hf_gammareg.roles.scale import End, Part, Scale, add, transfer
from hf_gammareg.roles.sites import Site, gain
from hf_gammareg.roles.sums import Sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """One way a walk ended."""

    role: Role
    node: Node
    """The add, norm, op or output that decided."""
    exact: bool


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


def find_uses(
    graph: Graph, sites: Iterable[Site], sums: Mapping[int, Sum], inner: set[int], ancestry: Ancestry
) -> dict[str, list[Use]]:
    """Find the uses of every gamma in a graph, each with its role, from its sites and sums."""
    walker = _Walker(graph, ancestry, sums, inner)
    uses: dict[str, list[Use]] = {}
    for site in sites:
        uses.setdefault(site.parameter, []).append(walker.walk(site))
    return uses


def unruled(graph: Graph, kinds: Mapping[str, str]) -> dict[str, list[Use]]:
    """Find the parameters of norms, given with their kinds, that an op without a rule reads: it may be their norm."""
    uses: dict[str, list[Use]] = {}
    for node in graph.nodes:
        if node.row is None and node.floating and any(n.activation for n in node.inputs):
            for read in node.inputs:
                found = gain(read)
                if found and found[0] in kinds:
                    site = Site(
                        parameter=found[0], node=node, reader=node, kind=kinds[found[0]], zero_centered=found[1]
                    )
                    reason = f"Read by {_without_rule(node)}."
                    use = Use(site=site, role=Role.UNKNOWN, exact=False, placement=None, reason=reason)
                    uses.setdefault(found[0], []).append(use)
    return uses


class _Walker:
    """Walks from sites, over one graph."""

    def __init__(self, graph: Graph, ancestry: Ancestry, sums: Mapping[int, Sum], inner: set[int]) -> None:
        self.graph, self.ancestry, self.sums = graph, ancestry, sums
        # The readers of a sum's operand are the sum as a whole, not the adds inside its chain.
        self.readers: dict[int, list[Node]] = {}
        returned = graph.returned()
        for node in graph.nodes:
            if node.index in inner or node.index not in returned:
                continue
            total = sums.get(node.index)
            for read in total.operands if total else node.inputs:
                self.readers.setdefault(read.index, []).append(node)
        self.decided_later = decided_later(graph, sums)

    def walk(self, site: Site) -> Use:
        scales: dict[int, Scale] = {site.node.index: site.scale}
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
            row = fate.node.row
            why = row.reason if row and fate.node.floating else "no floating-point numbers come out"
            why = f" ({why})" if why else ""
            return f"Reaches only what saturates: {fate.node.op} in {place}{why}{more}."
    return f"Reaches {_without_rule(fate.node)}{more}."


def _without_rule(node: Node) -> str:
    op = node.op if "::" in node.op else f"aten::{node.op}"
    return f"{op} in {_place(node)}, which has no rule (hf_gammareg.add_op gives it one)"


def _place(node: Node) -> str:
    return f"`{node.module}`" if node.module else "the model's own forward"
