"""Sites: where a gamma multiplies a normalised activation."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hf_gammareg.graph.nodes import Graph, Node
from hf_gammareg.graph.rows import SUMS, Effect
from hf_gammareg.roles.scale import End, Scale, transfer

SIMPLE = (Effect.VIEW, Effect.SCALE, Effect.CURVE, Effect.PRODUCT, Effect.QUOTIENT, *SUMS)
"""Effects of the ops that lead to a statistic."""
AWAY_FROM_ZERO = ("exp", "exp2", "softplus", "sigmoid", "log_sigmoid", "hardsigmoid", "cos")
"""Functions of a parameter that a gain may be, whose value at 0 is not 0."""
THROUGH_ZERO = ("tanh", "erf", "sin", "atan", "expm1", "log1p", "hardtanh", "clamp", "asinh", "sinh")
"""Such functions whose value at 0 is 0."""
SEARCHED = 48
"""How many ops above a product to look for its statistic: a norm written out takes about ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One use of a gamma."""

    parameter: str
    node: Node
    """The norm op, or the product with a norm written out in simple ops: what comes out of it carries the gain."""
    reader: Node
    """What reads the gain."""
    kind: str
    zero_centered: bool
    """The factor is 1 + parameter, or another function of it that is not 0 where it is 0."""
    scale: Scale = field(default_factory=Scale)
    """What the factor is on the node's output; of a use outside its norm, more than c itself."""


def find_sites(graph: Graph) -> list[Site]:
    """Find every use of a gamma, in topological order."""
    sites = []
    for node in graph.nodes:
        found = _norm_site(node) if node.effect(Effect.NORM) else _written_site(node)
        if found:
            sites.append(found)
    return sorted([*sites, *_used_elsewhere(graph, sites)], key=lambda site: site.node.index)


def _used_elsewhere(graph: Graph, sites: list[Site]) -> Iterator[Site]:
    """Where an activation is multiplied or divided by a gamma outside its norm: a reversible norm, a shared scale."""
    known = {site.parameter: site for site in reversed(sites)}
    own = {site.reader.index for site in sites}
    scales: dict[int, Scale] = {}
    held: dict[int, str] = {}
    for node in graph.nodes:
        if node.parameter in known:
            scales[node.index], held[node.index] = Scale(), node.parameter
            continue
        gains = [read for read in node.inputs if read.index in scales]
        if not gains or node.index in own:
            continue
        outcome = transfer(node, lambda n: scales.get(n.index))
        if outcome.scale is None:
            continue
        if not node.activation:
            scales[node.index], held[node.index] = outcome.scale, held[gains[0].index]
        elif node.effect(Effect.PRODUCT, Effect.QUOTIENT, Effect.MIX):
            yield replace(known[held[gains[0].index]], node=node, reader=node, scale=outcome.scale)


def _norm_site(node: Node) -> Site | None:
    weight = node.operands("weight")
    if not (node.row and weight and node.activation):
        return None  # weight standardisation normalises a weight
    if (found := gain(weight[0])) is None:
        return None
    return Site(parameter=found[0], node=node, reader=node, kind=node.row.kind, zero_centered=found[1])


def _written_site(node: Node) -> Site | None:
    pair = node.operands("self", "other") if node.effect(Effect.PRODUCT) else []
    if len(pair) != 2:
        return None
    for normed, factor in (pair, pair[::-1]):
        if not normed.activation or factor.activation:
            continue
        found = gain(factor) if node.shape == normed.shape else None  # what widens holds several weights for each value
        if found and (kind := _normalised(normed)):
            return Site(parameter=found[0], node=_with_bias(node), reader=node, kind=kind, zero_centered=found[1])
        # gain * (x - mean) / std, or x * (gain / std) - mean * (gain / std): the gain comes before the division
        found = found or gain(factor)
        if found and 0 < len(node.users) < 3 and (kind := _normalised(node.users[0])):
            return Site(
                parameter=found[0], node=_with_bias(_joined(node)), reader=node, kind=kind, zero_centered=found[1]
            )
    return None


def _joined(node: Node) -> Node:
    """The first value on which everything that is made of a node has an effect."""
    heap, seen = [user.index for user in node.users], {user.index: user for user in node.users}
    heapq.heapify(heap)
    while len(heap) > 1:
        for user in seen[heapq.heappop(heap)].users:
            if user.index not in seen:
                seen[user.index] = user
                heapq.heappush(heap, user.index)
    return seen[heap[0]] if heap else node


def _with_bias(node: Node) -> Node:
    """The sum of a gained value and its norm's bias, if that follows: a norm's output is both."""
    after = node.users[0] if len(node.users) == 1 else node
    pair = after.operands("self", "other") if after.effect(Effect.SUM) else []
    return after if any(n is not node and not n.activation and gain(n) for n in pair) else node


def gain(node: Node) -> tuple[str, bool] | None:
    """The parameter that a factor is a function of, and whether decay pulls that to something else than 0: 1 + w, exp.

    Of any shape: a norm over several dimensions, a vector that broadcasts, a part of one tensor that holds all gains.
    None where it is something else.
    """
    zero_centered = False
    while node.parameter is None:
        tensors = [read for read in node.inputs if read.floating]
        if len(tensors) != 1 or node.activation:
            return None
        numbers = [value for name in ("self", "other") if isinstance(value := node.arguments.get(name), int | float)]
        if node.effect(Effect.SUM, Effect.DIFFERENCE):
            zero_centered |= any(numbers)
        elif node.op in AWAY_FROM_ZERO:
            zero_centered = True
        elif node.effect(Effect.SCALE, Effect.CURVE, Effect.PRODUCT, Effect.QUOTIENT) or node.op in THROUGH_ZERO:
            if node.shape != tensors[0].shape:
                return None  # a statistic of the parameter
        elif not node.effect(Effect.VIEW):
            return None
        node = tensors[0]
    return node.parameter, zero_centered


def _normalised(node: Node) -> str | None:
    """The kind of norm whose output this is, views and casts apart; None if it is none."""
    while node.effect(Effect.VIEW):
        above = [read for read in node.inputs if read.activation]
        if len(above) != 1:
            return None
        node = above[0]
    if node.row and node.row.effect is Effect.NORM:
        return None if node.operands("weight") else node.row.kind
    if node.effect(Effect.SUM):
        pair = [side for side in node.operands("self", "other") if side.activation]
        return next(
            (_normalised(side) for side in pair if len(pair) == 2 and _of_statistics(pair[side is pair[0]])), None
        )
    if node.effect(Effect.PRODUCT):
        pair = node.operands("self", "other")
        if len(pair) == 1 and pair[0].activation:  # by a number
            return _normalised(pair[0])
        orders = [pair, pair[::-1]] if len(pair) == 2 else []
    elif node.effect(Effect.QUOTIENT):
        orders = [node.operands("self", "other")]
    else:
        return None
    for order in orders:
        if len(order) == 2 and all(operand.activation for operand in order):
            kind = _kind_by_statistic(node, order[0], order[1])
            if kind:
                return kind
            if node.effect(Effect.PRODUCT) and _of_statistics(order[1]) and (kind := _normalised(order[0])):
                return kind
    return None


def _of_statistics(node: Node) -> bool:
    """Whether a value is made of statistics alone: what batch renormalisation multiplies with, and adds."""
    stack, seen = [node], {node.index}
    while stack:
        top = stack.pop()
        if top.row and top.row.statistic:
            continue
        above = [read for read in top.inputs if read.activation]
        if not above or not top.effect(*SIMPLE) or len(seen) > SEARCHED:
            return False
        stack += [read for read in above if read.index not in seen]
        seen |= {read.index for read in above}
    return True


def _kind_by_statistic(node: Node, value: Node, divisor: Node) -> str | None:
    """The kind of norm if `divisor` is made of a statistic of what `value` is made of, and c cancels between them."""
    statistics: list[Node] = []
    above_divisor = list(_simple_ancestors(divisor, statistics))
    if not statistics:
        return None
    above_value = {found.index for found in _simple_ancestors(value, [])}
    for anchor in above_divisor:
        after = [statistic for statistic in statistics if statistic.index > anchor.index]
        if anchor.index in above_value and after and _cancels(anchor, node):
            return _kind(after, value, anchor)
    return None


def _kind(statistics: list[Node], value: Node, anchor: Node) -> str:
    reduced = {dim for s in statistics for dim in _dims(s)}
    rank = max((len(s.operands("self")[0].shape or ()) for s in statistics if s.operands("self")), default=0)
    if 0 in reduced and rank > 1 and len(reduced) < rank:
        return "batch_norm"
    if rank >= 4 and reduced and 1 not in reduced and rank - 1 in reduced and len(reduced) > 1:
        return "instance_norm" if rank == 4 else "group_norm"
    centred = any(s.row and s.row.statistic == "centred" for s in statistics)
    centred |= value.effect(Effect.DIFFERENCE) or anchor.effect(Effect.DIFFERENCE)
    return "layer_norm" if centred else "rms_norm"


def _dims(node: Node) -> list[int]:
    dim = node.arguments.get("dim")
    rank = len(node.operands("self")[0].shape or ()) if node.operands("self") else 0
    dims = dim if isinstance(dim, tuple | list) else [dim]
    return [d % rank for d in dims if isinstance(d, int) and rank]


def _simple_ancestors(node: Node, statistics: list[Node]) -> Iterator[Node]:
    """The activations from which simple ops lead to the node, nearest first; notes the statistics among them."""
    heap, seen = [-node.index], {node.index: node}
    while heap and len(seen) <= SEARCHED:
        top = seen[-heapq.heappop(heap)]
        yield top
        if top.row and top.row.statistic:
            statistics.append(top)
        if not (top.effect(*SIMPLE) or top.op == "sigmoid"):
            continue
        for read in top.inputs:
            if read.activation and read.index not in seen:
                seen[read.index] = read
                heapq.heappush(heap, -read.index)


def _cancels(anchor: Node, node: Node) -> bool:
    """Whether a factor on `anchor` is gone at `node`."""
    scales: dict[int, Scale] = {anchor.index: Scale()}
    heap = [user.index for user in anchor.users]
    waiting = {user.index: user for user in anchor.users}
    heapq.heapify(heap)
    while heap:
        index = heapq.heappop(heap)
        if index > node.index:
            break
        outcome = transfer(waiting[index], lambda n: scales.get(n.index))
        if index == node.index:
            return outcome.end is End.CANCELLED and outcome.scale is None
        if outcome.scale:
            scales[index] = outcome.scale
            for user in waiting[index].users:
                if user.index not in waiting:
                    waiting[user.index] = user
                    heapq.heappush(heap, user.index)
    return False
