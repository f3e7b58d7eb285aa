"""Residual sums: where a branch meets its skip."""

from __future__ import annotations

from dataclasses import dataclass

from hf_gammareg.graph.nodes import Graph, Node
from hf_gammareg.graph.rows import SUMS, Effect
from hf_gammareg.roles.scale import is_weight_layer

PASSED = (Effect.VIEW, Effect.POOL, Effect.PRODUCT, Effect.QUOTIENT, *SUMS)
"""Effects of ops that leave an identity path one, where their other operands are constants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A chain of adds as one sum: of all its operands that are activations, and whether one is the skip."""

    node: Node
    """The last add of the chain."""
    operands: tuple[Node, ...]
    """The activations that are summed."""
    constants: tuple[Node, ...]
    """What else is summed: parameters, buffers."""
    skip: Node | None
    """The operand on the identity path; None for parallel branches."""

    def is_residual(self) -> bool:
        """Whether it has a skip."""
        return self.skip is not None

    @property
    def branches(self) -> tuple[Node, ...]:
        """The operands that are not the skip."""
        return tuple(operand for operand in self.operands if operand is not self.skip)


class Ancestry:
    """Ancestor sets of activations, as integers used as bit sets: bit i for node i."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = graph.nodes
        self.above: list[int] = []
        """By node: its ancestors among the activations."""
        self.mixing = 0
        """The nodes that mix positions or channels."""
        for node in graph.nodes:
            bits = 0
            for read in node.inputs:
                bits |= self.above[read.index]
                if read.activation:
                    bits |= 1 << read.index
            self.above.append(bits)
            if node.activation and node.effect(Effect.MIX, Effect.POOL):
                self.mixing |= 1 << node.index

    def of(self, node: Node) -> int:
        """The node and its ancestors."""
        return self.above[node.index] | 1 << node.index

    def has(self, node: Node, ancestor: Node) -> bool:
        """Whether `ancestor` lies strictly above `node`."""
        return bool(self.above[node.index] >> ancestor.index & 1)


def find_sums(graph: Graph, ancestry: Ancestry) -> tuple[dict[int, Sum], set[int]]:
    """Find every sum of two activations or more.

    Returns:
        The sums by the index of their last add, and the indices of the adds inside chains.
    """
    inner: set[int] = set()
    sums: dict[int, Sum] = {}
    for node in reversed(graph.nodes):
        if node.index in inner or not (node.effect(Effect.SUM) and node.activation):
            continue
        operands: list[Node] = []
        constants: list[Node] = []
        stack = [node]
        while stack:
            chained = stack.pop()
            for operand in reversed(chained.operands("self", "other")):
                if (
                    operand.effect(Effect.SUM)
                    and sum(side.activation for side in operand.operands("self", "other")) > 1
                    and len(operand.users) == 1
                    and operand.shape == node.shape
                ):
                    inner.add(operand.index)
                    stack.append(operand)
                else:
                    (operands if operand.activation else constants).append(operand)
        if len(operands) > 1:
            skip = _find_skip(node, operands, ancestry)
            sums[node.index] = Sum(node=node, operands=tuple(operands), constants=tuple(constants), skip=skip)
    return sums, inner


def _find_skip(node: Node, operands: list[Node], ancestry: Ancestry) -> Node | None:
    sides = [operand for operand in operands if operand.shape == node.shape]
    # An identity skip is itself an ancestor of a branch, views, dropout, pooling and constant factors apart. What a
    # branch adds may be the same at several places (a global context).
    for side in sorted(sides, key=lambda operand: operand.index):
        base = _base(side)
        past = ancestry.of(base)
        if any(
            ancestry.has(other, base) and ancestry.of(other) & ancestry.mixing & ~past
            for other in operands
            if other is not side
        ):
            return side
    if len(sides) < 2:
        return None
    # A projection skip has the fewest weight layers since the common ancestors: on the longest way down, and where
    # that ties (parallel resolutions that were fused before, as in HRNet), on the shortest.
    common = ~0
    for side in sides:
        common &= ancestry.above[side.index]
    if not common:
        return None
    known: dict[int, tuple[int, int]] = {}
    first, second = sorted(sides, key=lambda side: _depth(side, common, known))[:2]
    if known[first.index] == known[second.index]:
        return None
    skip = first
    mixed = any(ancestry.of(other) & ancestry.mixing & ~common for other in sides if other is not skip)
    return skip if mixed else None


def _base(node: Node) -> Node:
    """Walk up past views, dropout, padding, pooling, constant factors and constants added."""
    while True:
        above = [read for read in node.inputs if read.activation]
        if len(above) != 1 or not node.effect(*PASSED):
            return node
        node = above[0]


def _depth(node: Node, common: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Weight layers on the longest and on the shortest way from the common ancestors down to the node."""
    stack = [node]
    while stack:
        top = stack[-1]
        below = [read for read in top.inputs if read.activation and not common >> top.index & 1]
        missing = [read for read in below if read.index not in known]
        if top.index not in known and missing:
            stack.extend(missing)
            continue
        stack.pop()
        own = 0 if common >> top.index & 1 else int(is_weight_layer(top))
        longest = max((known[read.index][0] for read in below), default=0)
        shortest = min((known[read.index][1] for read in below), default=0)
        known[top.index] = (longest + own, shortest + own)
    return known[node.index]
