"""Sums: what a chain of adds adds up, whichever ops write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hf_gammareg.graph.nodes import Graph, Node
from hf_gammareg.graph.rows import Effect, Layout


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


def chains(graph: Graph) -> tuple[dict[int, Sum], set[int]]:
    """Find every sum of two activations or more that the outputs depend on.

    Returns:
        The sums by the index of their last add, none with a skip, and the indices of the adds inside chains.
    """
    inner: set[int] = set()
    sums: dict[int, Sum] = {}
    live = graph.returned()
    for node in reversed(graph.nodes):
        if node.index in inner or not (node.index in live and node.effect(Effect.SUM) and node.activation):
            continue
        terms, chained = _chain(node, _is_added, live)
        every, passed = _chain(node, _is_added_or_taken, live)
        taken = {(term.of, -term.times) for term in every}
        left = [term for term in every if (term.of, term.times) not in taken]
        if len(left) < len(every):
            terms, chained = left, passed  # z + (q - z).detach() is q, whose gradient goes straight through to z
        elif sum(term.operand.activation for term in terms) < 2:
            continue
        inner |= chained
        operands = tuple(term.operand for term in terms if term.operand.activation)
        constants = tuple(term.operand for term in terms if not term.operand.activation)
        sums[node.index] = Sum(node=node, operands=operands, constants=constants, skip=None)
    return sums, inner


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """An operand of a chain of adds."""

    operand: Node
    of: Node
    """What it is a multiple of, or a view."""
    times: float
    """How many times that is added."""


def _chain(node: Node, is_chained: Callable[[Node], bool], live: set[int]) -> tuple[list[_Term], set[int]]:
    """The terms of a chain of adds, in order, and the indices of the nodes inside it, of views and multiples too."""
    terms: list[_Term] = []
    inner: set[int] = set()
    stack = [(node, 1.0)]
    while stack:
        operand, times = stack.pop()
        way = [operand]
        while way[-1] is not node and (multiple := _multiple(way[-1])):
            times *= multiple[1]
            way.append(multiple[0])
        top = way[-1]
        inside = all(sum(user.index in live for user in each.users) == 1 and each.shape == node.shape for each in way)
        if top is not node and not (inside and is_chained(top)):
            terms.append(_Term(operand=operand, of=top, times=times))
            continue
        inner |= {each.index for each in way} - {node.index}
        signs = {"sub": (1, -1), "rsub": (-1, 1)}.get(top.op, (1, 1))
        stack += [(side, times * each) for side, each in zip(top.inputs, signs, strict=False)][::-1]
    return terms, inner


def _multiple(node: Node) -> tuple[Node, float] | None:
    """What a node is a number of times, or a view of; None where it is neither."""
    if node.op == "neg":
        return node.inputs[0], -1.0
    if node.effect(Effect.VIEW) and node.row and node.row.layout is Layout.KEPT and len(node.inputs) == 1:
        return node.inputs[0], 1.0
    if node.effect(Effect.PRODUCT, Effect.QUOTIENT):
        this, other = node.arguments.get("self"), node.arguments.get("other")
        for value, number in ((this, _number(other)), (other, _number(this) if node.effect(Effect.PRODUCT) else None)):
            if isinstance(value, Node) and number:
                return value, number if node.effect(Effect.PRODUCT) else 1 / number
    return None


def _number(value: object) -> float | None:
    """The number that a value is, or that fills it."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, Node):
        return None
    if value.op in ("ones", "ones_like", "new_ones"):
        return 1.0
    if value.op in ("full", "full_like", "new_full"):
        return _number(value.arguments.get("fill_value"))
    if value.op != "rsub":
        return None
    this, other = (_number(value.arguments.get(name)) for name in ("self", "other"))
    return None if this is None or other is None else other - this


def _is_added(node: Node) -> bool:
    return node.effect(Effect.SUM) and sum(side.activation for side in node.operands("self", "other")) > 1


def _is_added_or_taken(node: Node) -> bool:
    return _is_added(node) or node.op in ("sub", "rsub")
