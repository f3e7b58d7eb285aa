"""Residual sums: where a branch meets its skip.

A residual network holds a stream that blocks add to. A sum is residual where one operand, the skip, is the stream:

- it passes unchanged from a point that another operand is computed from by something that mixes. Views, dropout,
  padding, pooling, constants, and a gate (a factor that is bounded, or one number for many), change nothing;
- else it passes through one projection (linear layers and norms, nothing between them that bends) from a point that
  all the other operands are computed from alone, each through more weight layers;
- else it alone is the end of a stream, where all the others come through weight layers: streams that are fused.

None of these is a residual: what only steers (a softmax, a factor that is bounded) reads it; a condition is added to
a network without skips; branches stand side by side in the branch of a sum; numbers, such as losses, are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from hf_gammareg.graph.nodes import Graph, Node
from hf_gammareg.graph.rewrite import fresh
from hf_gammareg.graph.rows import SUMS, Effect
from hf_gammareg.roles.scale import is_weight_layer
from hf_gammareg.roles.sums import Sum, chains

PASSED = (Effect.VIEW, Effect.POOL, Effect.PRODUCT, Effect.QUOTIENT, *SUMS)
"""Effects of ops that leave a stream what it is, where their other operands are constants or gates."""
BENDS = (Effect.SCALE, Effect.CURVE)
"""Effects of activation functions."""


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
    """Find every sum of two activations or more, and which side of it is the skip.

    Returns:
        The sums by the index of their last add, and the indices of the adds inside chains.
    """
    sums, inner = chains(graph)
    return _Streams(graph, ancestry).with_skips(sums), inner


class _Streams:
    """What passes a stream on, in one graph."""

    def __init__(self, graph: Graph, ancestry: Ancestry) -> None:
        self.graph, self.ancestry = graph, ancestry
        self.bounded = _bounded(graph)
        self.passed_on = self._passed_on()
        self.of_input: list[bool] = []
        """By node: whether it depends on what the model is given, not on learned tokens alone."""
        self.above: list[int] = []
        """By node: its ancestors, other than through gates."""
        for node in graph.nodes:
            read = self._unsteered(node) if node.effect(Effect.PRODUCT) else node.inputs
            bits = 0
            for each in read:
                bits |= self.above[each.index] | int(each.activation) << each.index
            self.above.append(bits)
            self.of_input.append(node.op == "input" or any(self.of_input[n.index] for n in node.inputs))

    def with_skips(self, sums: dict[int, Sum]) -> dict[int, Sum]:
        """The same sums, each with its skip if it has one."""
        total = [sums[index] for index in sorted(sums)]
        streams = [each for each in total if self._may_be_residual(each)]
        found = dict(sums)
        around: dict[int, list[Node]] = {}  # by sum that is a branch of another: that one's stream, as it comes there
        for each in streams:
            if skip := self._identity(each, found):
                found[each.node.index] = replace(each, skip=skip)
                for branch in each.operands:
                    if branch is not skip:
                        around |= {node.index: self._unchanged(skip) for node in self._unweighed(branch)}
        for each in streams:
            index = each.node.index
            if not found[index].skip:
                skip = self._projection(each, around.get(index, [])) or self._end(each, found)
                found[index] = replace(each, skip=skip)
        return found

    def _may_be_residual(self, total: Sum) -> bool:
        """Whether it adds activations, not numbers such as losses, and more than what steers reads it."""
        node = total.node
        return self.passed_on[node.index] and len(node.shape or ()) > 1 and len(total.operands) > 1

    def _identity(self, total: Sum, sums: Mapping[int, Sum]) -> Node | None:
        """The operand that another one is computed from."""
        # A stream that passes on holds what was added to it: that comes again as a branch.
        added: set[Node] = set()
        held = list(total.operands)
        while held:
            inside = [sums[base.index] for base in self._bases(held.pop()) if base.index in sums]
            for before in inside:
                if before.skip and not added.issuperset(before.branches):
                    added.update(before.branches)
                    held.append(before.skip)
        sides = [side for side in total.operands if side.shape == total.node.shape and side not in added]
        for side in sorted(sides, key=lambda operand: operand.index):
            bases = self._bases(side)
            others = (other for other in total.operands if other is not side)
            for other in others:
                if all(self._mixes(other, base) and not self._only_added(base, other, sums) for base in bases):
                    return side
        return None

    def _projection(self, total: Sum, around: list[Node]) -> Node | None:
        """The operand with the fewest weight layers, if they are one projection."""
        common = ~0
        for side in total.operands:
            common &= self.ancestry.above[side.index]
        if not common:
            return None
        known: dict[int, int] = {}
        first, second = sorted(total.operands, key=lambda side: _depth(side, common, known))[:2]
        point = self._projected(first, common)
        if not point or known[first.index] == known[second.index] or first.shape != total.node.shape:
            return None
        if not set(around).isdisjoint(self._unweighed(point)):
            return None
        others = [side for side in total.operands if side is not first]
        if not any(self.ancestry.of(other) & self.ancestry.mixing & ~common for other in others):
            return None
        return first if all(self._only_from(other, point) for other in others) else None

    def _end(self, total: Sum, sums: Mapping[int, Sum]) -> Node | None:
        """The only operand that is the end of a stream, past activation functions."""
        ends = [
            side
            for side in total.operands
            if any(node.index in sums and sums[node.index].is_residual() for node in self._unweighed(side))
        ]
        weighed = all(any(map(is_weight_layer, self._line(side))) for side in total.operands if side not in ends)
        return ends[0] if len(ends) == 1 and weighed and ends[0].shape == total.node.shape else None

    def _mixes(self, node: Node, base: Node) -> bool:
        """Whether a node is computed from another one by something that mixes positions or channels."""
        past = self.ancestry.of(base)
        above = self.above[node.index]
        return bool(above >> base.index & 1 and (above | 1 << node.index) & self.ancestry.mixing & ~past)

    def _only_added(self, base: Node, node: Node, sums: Mapping[int, Sum]) -> bool:
        """Whether one node comes to another only as a condition: added, as it is or by a projection, to others."""
        straight = {base.index: True}  # by node that it comes to: whether nothing on the way bends
        for each in self.graph.nodes[base.index + 1 : node.index + 1]:
            read = [n for n in each.inputs if n.activation]
            came = [straight[n.index] for n in read if n.index in straight]
            if not came:
                continue
            plain = each.effect(Effect.SUM) and self.passed_on[each.index] and all(came)
            plain &= each.index not in sums or not sums[each.index].is_residual()
            beside = [n for n in read if n.index not in straight and _size(n) >= _size(each)]
            if not (plain and any(self.above[n.index] & self.ancestry.mixing for n in beside)):
                bends = each.effect(*BENDS) and not (each.row and each.row.statistic)
                straight[each.index] = all(came) and not bends
        return node.index not in straight

    def _bases(self, side: Node) -> list[Node]:
        """Where an operand comes from unchanged; several points where it is put together."""
        return [node for node in self._unchanged(side) if not self._before(node)]

    def _unchanged(self, side: Node) -> list[Node]:
        """An operand and all that it comes from unchanged."""
        found = {side.index: side}
        stack = [side]
        while stack:
            before = [node for node in self._before(stack.pop()) if node.index not in found]
            found |= {node.index: node for node in before}
            stack += reversed(before)
        return list(found.values())

    def _before(self, node: Node) -> list[Node]:
        """What a node passes on, or puts together, unchanged; none where it makes something else."""
        if node.effect(Effect.JOIN):
            return self._unsteered(node)
        return list(islice(self._upwards(node, *PASSED), 1))

    def _unweighed(self, node: Node) -> list[Node]:
        """A node and what it comes from without a weight layer."""
        return [node, *self._upwards(node, *PASSED, *BENDS, Effect.NORM)]

    def _line(self, node: Node) -> list[Node]:
        """A node and what alone it comes from."""
        return [node, *self._upwards(node, *PASSED, *BENDS, Effect.NORM, Effect.MIX, Effect.JOIN)]

    def _upwards(self, node: Node, *effects: Effect) -> Iterator[Node]:
        while node.effect(*effects):
            above = self._streams_in(node)
            if len(above) != 1:
                return
            node = above[0]
            yield node

    def _projected(self, side: Node, common: int) -> Node | None:
        """The point among common ancestors that an operand is a projection of: no weight layer above what bends."""
        bent = False
        for node in self._line(side):
            if common >> node.index & 1:
                return node
            if bent and is_weight_layer(node):
                return None
            bent |= node.effect(*BENDS)
        return None

    def _only_from(self, node: Node, point: Node) -> bool:
        """Whether all that a node passes on comes through a point, conditions for many positions apart."""
        beside = self.ancestry.above[point.index]
        stack, seen = [node], {point.index}
        while stack:
            top = stack.pop()
            if top.index in seen:
                continue
            seen.add(top.index)
            above = self._streams_in(top)
            if beside >> top.index & 1 or (not above and self.of_input[top.index]):
                return False
            stack += above
        return True

    def _streams_in(self, node: Node) -> list[Node]:
        """The activations that a node passes on: beside large ones no small ones, beside others no learned tokens."""
        read = self._unsteered(node)
        if len(read) > 1 and node.effect(Effect.JOIN):
            read = [n for n in read if self.of_input[n.index]] or read
        if len(read) > 1 and node.effect(Effect.PRODUCT, *SUMS):
            read = [n for n in read if _size(n) >= _size(node)] or read
        return read

    def _unsteered(self, node: Node) -> list[Node]:
        """The activations that a node reads, those that only steer apart: bounded ones beside others."""
        gates = node.operands(*node.row.gates) if node.row else []
        read = [n for n in node.inputs if n.activation and n not in gates]
        if node.effect(Effect.PRODUCT) and any(map(_is_zero, node.inputs)):
            return []
        if node.effect(Effect.PRODUCT, Effect.MIX):
            read = [n for n in read if not self.bounded[n.index]] or read
        return read

    def _passed_on(self) -> list[bool]:
        """By node: whether the outputs depend on it other than through what steers."""
        passed = [node.index in self.graph.outputs for node in self.graph.nodes]
        for node in reversed(self.graph.nodes):
            if passed[node.index]:
                for read in self._unsteered(node):
                    passed[read.index] = True
        return passed


def _is_zero(node: Node) -> bool:
    """Whether it holds fresh zeros: the first state of a recurrence."""
    while node.effect(Effect.VIEW) and len(node.inputs) == 1:
        node = node.inputs[0]
    return fresh(node)


def _size(node: Node) -> int:
    return math.prod(node.shape or ())


def _bounded(graph: Graph) -> list[bool]:
    """By node: whether it is a softmax, a sigmoid or the like, or made of such by simple ops."""
    bounded = [False] * len(graph.nodes)
    for node in graph.nodes:
        if not node.activation:
            continue
        above = [bounded[n.index] for n in node.inputs if n.activation]
        simple = node.effect(*PASSED, Effect.SCALE, Effect.JOIN)
        bounded[node.index] = node.effect(Effect.SQUASH) or (simple and bool(above) and all(above))
    return bounded


def _depth(node: Node, common: int, known: dict[int, int]) -> int:
    """Weight layers on the longest way from the common ancestors down to the node."""
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
        known[top.index] = max((known[read.index] for read in below), default=0) + own
    return known[node.index]
