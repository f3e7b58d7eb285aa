"""The algebra: how a factor c on some operands of one op comes out of it, by the op's row in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from typing import Any

from hf_gammareg.graph import Node
from hf_gammareg.ops import Effect

PER_CHANNEL = ("batch_norm", "instance_norm")
"""Norms with statistics per channel: they cancel a factor on some channels, and a constant shift, exactly."""
TINY = 1e-3
"""A constant below this guards a division by zero, and neither shifts nor bends."""


class Part(StrEnum):
    """How much of a tensor carries the factor."""

    WHOLE = auto()
    CHANNELS = auto()
    """Some channels do: the rest was put beside them along dimension 1."""
    SOME = auto()
    """Summed or mixed with what does not: the factor is one of several, cancelled only jointly with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The factor c on one value of the graph."""

    degree: float = 1.0
    """The value grows as c to this power; never 0."""
    exact: bool = True
    part: Part = Part.WHOLE
    shifted: bool = False
    """A constant without the factor was added (a bias): only a norm per channel, straight away, takes it off."""
    weighed: bool = False
    """A weight layer has read the value on the way."""


class End(StrEnum):
    """How a walk ends at an op."""

    CANCELLED = auto()
    SATURATED = auto()
    UNRULED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one op makes of the factor: the scale of its output, if it carries one, and what ended at it."""

    scale: Scale | None = None
    end: End | None = None
    exact: bool = True
    """The end holds to rounding."""


Scales = Callable[[Node], Scale | None]


def transfer(node: Node, scales: Scales) -> Outcome:
    """Apply an op's row to the scales of its operands, at least one of which carries the factor."""
    row = node.row
    if not node.tensor:
        return Outcome()
    if row is None:
        return Outcome(end=End.UNRULED) if node.floating else Outcome(end=End.SATURATED)
    if row.effect is Effect.NOTHING:
        return Outcome()
    read = [n for name in node.arguments if name not in (*row.gates, *row.ignores) for n in node.operands(name)]
    gated = any(scales(n) for n in node.operands(*row.gates))
    found = [scale for n in read if (scale := scales(n))]
    end = End.SATURATED if gated else None
    if not found:
        return Outcome(end=end, exact=False)
    if row.effect is Effect.SQUASH or not node.floating or _squashes(node):
        return Outcome(end=End.SATURATED, exact=False)
    if row.effect is Effect.NORM:
        return _norm(node, scales)
    result: Scale | None
    match row.effect:
        case Effect.VIEW:
            result = combine(found)
        case Effect.POOL | Effect.SCALE | Effect.CURVE:
            result = _bend(combine(found), row.exact or _guards(node))
            result = replace(result, degree=result.degree * row.power)
        case Effect.MIX | Effect.PRODUCT:
            result = _product(node, read, scales, row.effect is Effect.MIX, row.exact)
        case Effect.QUOTIENT:
            result = _quotient(node, scales)
        case Effect.POWER:
            result = _power(node, scales)
        case Effect.SUM:
            result = _sum_of_products(node, scales) if node.op in ("addcmul", "addcdiv") else add(read, scales)
            constants = [
                value for name in ("self", "other") if isinstance(value := node.arguments.get(name), int | float)
            ]
            if any(abs(value) > TINY for value in constants):
                result = replace(result, shifted=True)
        case Effect.JOIN:
            result = _join(node, read, scales)
    if result is None or result.degree == 0:
        return Outcome(
            end=End.CANCELLED, exact=result is not None and result.exact and not gated and result.part is Part.WHOLE
        )
    if gated:
        result = replace(result, exact=False)
    return Outcome(scale=result, end=end, exact=False)


def add(operands: Iterable[Node], scales: Scales) -> Scale:
    """The scale of a sum: whole where every activation carries the same power, else jointly with the rest."""
    operands = list(operands)
    found = [scale for n in operands if (scale := scales(n))]
    sides = [n for n in operands if n.activation]
    scale = combine(found)
    if any(scales(n) is None for n in sides):
        return replace(scale, part=Part.SOME, exact=False)
    return replace(scale, shifted=True) if len(found) < len(operands) else scale


def combine(found: list[Scale]) -> Scale:
    """Several values that carry the factor, as one."""
    first = found[0]
    same = all(scale.degree == first.degree and scale.part == first.part for scale in found)
    return Scale(
        degree=first.degree if same else min((scale.degree for scale in found), key=abs),
        exact=same and all(scale.exact for scale in found),
        part=first.part if same else Part.SOME,
        shifted=any(scale.shifted for scale in found),
        weighed=all(scale.weighed for scale in found),
    )


def _bend(scale: Scale, exact: bool) -> Scale:
    """Past an op that is not linear a constant shift can't be taken off any more."""
    return replace(scale, exact=scale.exact and exact and not scale.shifted, shifted=False)


def _norm(node: Node, scales: Scales) -> Outcome:
    source = scales(node.operands("input", "self")[0]) if node.operands("input", "self") else None
    steering = [scale for name in ("weight", "bias") for n in node.operands(name) if (scale := scales(n))]
    if steering:  # a conditional norm: its gain is computed from an activation and carries the factor
        return Outcome(
            scale=replace(combine(steering), exact=False), end=End.CANCELLED if source else None, exact=False
        )
    assert source is not None
    joint = source.part is not Part.WHOLE or source.shifted
    lifted = node.op.removeprefix("native_") in PER_CHANNEL and source.part is not Part.SOME
    return Outcome(end=End.CANCELLED, exact=source.exact and (lifted or not joint))


def _product(node: Node, read: list[Node], scales: Scales, mixes: bool, exact: bool) -> Scale:
    found = [scale for n in read if (scale := scales(n))]
    scale = combine(found)
    scale = replace(scale, degree=sum(s.degree for s in found), exact=all(s.exact for s in found) and exact)
    if mixes:
        bias = [n for n in node.operands("bias") if not n.activation]
        if node.op in ("addmm", "baddbmm", "addbmm", "addmv"):
            bias = [n for n in node.operands("self") if not n.activation]
        scale = replace(_bend(scale, True), shifted=bool(bias))
        weighed = scale.weighed or is_weight_layer(node)
        part = Part.SOME if scale.part is not Part.WHOLE else Part.WHOLE
        return replace(scale, weighed=weighed, part=part, exact=scale.exact and part is Part.WHOLE)
    if any(n.activation and not scales(n) for n in read):  # a gate: another activation multiplies
        return _bend(scale, False)
    return scale


def _quotient(node: Node, scales: Scales) -> Scale | None:
    above, below = (node.operands(name) for name in ("self", "other"))
    top = scales(above[0]) if above else None
    bottom = scales(below[0]) if below else None
    if bottom is None:
        assert top is not None
        gated = any(n.activation for n in below)
        return _bend(top, not gated) if gated else top
    if top is None:
        return replace(_bend(bottom, False), degree=-bottom.degree)
    joint = Part.SOME if Part.SOME in (top.part, bottom.part) else top.part
    scale = replace(_bend(combine([top, bottom]), True), degree=top.degree - bottom.degree, part=joint)
    return replace(scale, exact=top.exact and bottom.exact and not (top.shifted or bottom.shifted))


def _power(node: Node, scales: Scales) -> Scale | None:
    exponent = node.arguments.get("exponent")
    base = node.operands("self")
    scale = scales(base[0]) if base else None
    if scale is None or not isinstance(exponent, int | float):
        # an exponent that carries the factor, or depends on data: no power of c comes out
        return replace(_bend(combine([s for n in node.inputs if (s := scales(n))]), False), part=Part.SOME)
    return replace(_bend(scale, True), degree=scale.degree * exponent) if exponent else None


def _sum_of_products(node: Node, scales: Scales) -> Scale:
    term, factors = node.operands("self"), node.operands("tensor1", "tensor2")
    product = _product(node, factors, scales, False, True) if any(scales(n) for n in factors) else None
    alone = scales(term[0]) if term else None
    if product is None or alone is None:
        scale = product or alone
        assert scale is not None
        other = term if product else factors
        if any(n.activation for n in other):
            return replace(scale, part=Part.SOME, exact=False)
        return replace(scale, shifted=True)
    return combine([product, alone])


def _join(node: Node, read: list[Node], scales: Scales) -> Scale:
    scale = combine([scale for n in read if (scale := scales(n))])
    rest = [n for n in read if n.floating and not scales(n)]
    if all(n.effect(Effect.NOTHING) for n in rest):
        return scale  # the rest is fresh zeros to write into
    rank, dim = len(node.shape or ()), node.arguments.get("dim", 0)
    channels = node.op in ("cat", "concat") and rank > 1 and dim % rank == 1 and scale.part is not Part.SOME
    return replace(scale, part=Part.CHANNELS if channels else Part.SOME, exact=scale.exact and channels)


def is_weight_layer(node: Node) -> bool:
    """A linear layer, convolution or matmul with a weight of the model's."""
    if not node.effect(Effect.MIX):
        return False
    return any(not n.activation and n.floating for n in node.inputs if n not in node.operands("bias")) and any(
        n.activation for n in node.inputs
    )


def _squashes(node: Node) -> bool:
    """Whether it saturates: `hardtanh` bounded below 0 (from 0 on it is ReLU6), a scalar to the power of the input."""
    if node.op == "hardtanh":
        low: Any = node.arguments.get("min_val", -1)
        return bool(low < 0)
    return node.op == "pow" and not isinstance(node.arguments.get("self"), Node)


def _guards(node: Node) -> bool:
    """Whether a clamp only guards a division by zero."""
    low, high = node.arguments.get("min"), node.arguments.get("max")
    return node.op in ("clamp", "clamp_min") and isinstance(low, int | float) and abs(low) < TINY and high is None
