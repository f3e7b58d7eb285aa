"""The algebra: how a factor c on some operands of one op comes out of it, by the op's row in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from hf_gammareg.graph.nodes import Node
from hf_gammareg.graph.rows import Effect, Layout, OpRow
from hf_gammareg.graph.rules import TINY

PER_CHANNEL = ("batch_norm", "instance_norm")
"""Norms with statistics per channel: they cancel a factor on some channels, and a constant shift, exactly."""


class Part(StrEnum):
    """How much of a tensor carries the factor."""

    WHOLE = auto()
    CHANNELS = auto()
    """Some channels do: the rest was put beside them along dimension 1."""
    SOME = auto()
    """Summed or mixed with what does not: the factor is one of several, cancelled only jointly with them."""


class Shift(StrEnum):
    """What was added to a value that does not carry the factor."""

    NONE = auto()
    CHANNEL = auto()
    """A constant per channel (a bias): a norm per channel, straight away, takes it off."""
    ANY = auto()
    """A constant that no norm takes off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The factor c on one value of the graph."""

    degree: float = 1.0
    """The value grows as c to this power; never 0."""
    exact: bool = True
    part: Part = Part.WHOLE
    shift: Shift = Shift.NONE
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
    if row.effect is Effect.SQUASH or not node.floating:
        return Outcome(end=End.SATURATED, exact=False)
    if row.effect is Effect.NORM:
        return _norm(node, row, read, scales)
    result: Scale
    match row.effect:
        case Effect.VIEW:
            result = _view(node, row, combine(found))
        case Effect.POOL | Effect.SCALE | Effect.CURVE:
            result = _bend(combine(found), row.exact)
        case Effect.MIX:
            result = _mix(node, row, read, scales)
        case Effect.PRODUCT:
            result = _product(node, read, scales)
        case Effect.QUOTIENT:
            result = _quotient(node, scales)
        case Effect.SUM | Effect.DIFFERENCE | Effect.CHOICE:
            result = add(node, read, scales)
        case Effect.JOIN:
            result = _join(node, row, read, scales)
    if result.degree == 0:
        return Outcome(end=End.CANCELLED, exact=result.exact and not gated and result.part is Part.WHOLE)
    if gated or row.power != 1:
        result = replace(result, degree=result.degree * row.power, exact=result.exact and not gated)
    return Outcome(scale=result, end=end, exact=False)


def add(node: Node, operands: Iterable[Node], scales: Scales) -> Scale:
    """The scale of a sum or choice: whole where every activation carries the same power, else jointly with the rest."""
    operands = list(operands)
    scale = combine([scale for n in operands if (scale := scales(n))])
    others = [n for n in operands if not scales(n)]
    if any(n.activation for n in others):
        return replace(scale, part=Part.SOME, exact=False)
    numbers = [value for name in ("self", "other") if isinstance(value := node.arguments.get(name), int | float)]
    constants = bool(others) or any(abs(value) > TINY for value in numbers)
    if node.effect(Effect.CHOICE):
        return _bend(scale, not constants)
    return _shift(scale, all(_per_channel(n, node) for n in others)) if constants else scale


def combine(found: list[Scale]) -> Scale:
    """Several values that carry the factor, as one."""
    first = found[0]
    same = all(scale.degree == first.degree and scale.part == first.part for scale in found)
    return Scale(
        degree=first.degree if same else min((scale.degree for scale in found), key=abs),
        exact=same and all(scale.exact for scale in found),
        part=first.part if same else Part.SOME,
        shift=next(shift for shift in (Shift.ANY, Shift.CHANNEL, Shift.NONE) if shift in {s.shift for s in found}),
        weighed=all(scale.weighed for scale in found),
    )


def _bend(scale: Scale, exact: bool) -> Scale:
    """Past an op that is not linear a constant shift can't be taken off any more."""
    return replace(scale, exact=scale.exact and exact and scale.shift is Shift.NONE, shift=Shift.NONE)


def _shift(scale: Scale, per_channel: bool) -> Scale:
    """A constant was added: the same on a whole channel, or one that no norm takes off."""
    return replace(scale, shift=Shift.CHANNEL if per_channel and scale.shift is not Shift.ANY else Shift.ANY)


def _moved(scale: Scale) -> Scale:
    """Past an op that moves values to other channels, or zeroes some, a shift is no longer one per channel."""
    return scale if scale.shift is Shift.NONE else replace(scale, shift=Shift.ANY)


def _per_channel(constant: Node, node: Node) -> bool:
    """Whether a constant is the same on the whole of each channel (dimension 1) of a node."""
    rank, shape = len(node.shape or ()), constant.shape or ()
    return all(size == 1 or rank - len(shape) + place == 1 for place, size in enumerate(shape))


def _view(node: Node, row: OpRow, scale: Scale) -> Scale:
    source = next((n for n in node.inputs if n.activation), None)
    reshaped = source and node.shape and (source.shape or ())[:2] == node.shape[:2]
    if row.layout is Layout.KEPT or (row.layout is Layout.RESHAPED and reshaped):
        return scale
    scale = _moved(scale)
    if row.layout is Layout.FILLED:
        return scale if row.exact else _bend(scale, False)
    return scale if scale.part is Part.WHOLE else replace(scale, part=Part.SOME, exact=False)


def _norm(node: Node, row: OpRow, read: list[Node], scales: Scales) -> Outcome:
    gains = node.operands("weight", "bias")
    steering = [scale for n in gains if (scale := scales(n))]
    source = next((scale for n in read if n not in gains and (scale := scales(n))), None)
    if steering:  # a conditional norm: its gain is computed from an activation and carries the factor
        return Outcome(
            scale=replace(combine(steering), exact=False), end=End.CANCELLED if source else None, exact=False
        )
    assert source is not None
    if row.given:
        return Outcome(scale=_shift(source, True))
    joint = source.part is not Part.WHOLE or source.shift is not Shift.NONE
    lifted = source.part is not Part.SOME and source.shift is not Shift.ANY and row.kind in PER_CHANNEL
    return Outcome(end=End.CANCELLED, exact=source.exact and (lifted or not joint))


def _multiplied(found: list[Scale]) -> Scale:
    """Several values that carry the factor, as the product of them."""
    parts = {scale.part for scale in found}
    return replace(
        combine(found),
        degree=sum(scale.degree for scale in found),
        exact=all(scale.exact for scale in found),
        part=parts.pop() if len(parts) == 1 else Part.SOME,
    )


def _mix(node: Node, row: OpRow, read: list[Node], scales: Scales) -> Scale:
    scale = _bend(_multiplied([scale for n in read if (scale := scales(n))]), row.exact)
    if any(not n.activation for n in node.operands("bias")):
        scale = _shift(scale, row.channels % (len(node.shape or ()) or 1) == 1)
    whole = scale.part is Part.WHOLE
    return replace(
        scale,
        weighed=scale.weighed or is_weight_layer(node),
        part=Part.WHOLE if whole else Part.SOME,
        exact=scale.exact and whole,
    )


def _product(node: Node, read: list[Node], scales: Scales) -> Scale:
    scale = _multiplied([scale for n in read if (scale := scales(n))])
    if any(n.activation and not scales(n) for n in read):  # a gate: another activation multiplies
        return _bend(scale, False)
    return scale if all(_per_channel(n, node) for n in read if not scales(n)) else _moved(scale)


def _quotient(node: Node, scales: Scales) -> Scale:
    above, below = (node.operands(name) for name in ("self", "other"))
    top = scales(above[0]) if above else None
    bottom = scales(below[0]) if below else None
    if bottom is None:
        assert top is not None
        gated = any(n.activation for n in below)
        if gated:
            return _bend(top, False)
        return top if all(_per_channel(n, node) for n in below) else _moved(top)
    if top is None:
        return replace(_bend(bottom, not any(n.activation for n in above)), degree=-bottom.degree)
    joint = Part.SOME if Part.SOME in (top.part, bottom.part) else top.part
    scale = replace(_bend(combine([top, bottom]), True), degree=top.degree - bottom.degree, part=joint)
    return replace(scale, exact=top.exact and bottom.exact and top.shift is bottom.shift is Shift.NONE)


def _join(node: Node, row: OpRow, read: list[Node], scales: Scales) -> Scale:
    scale = combine([scale for n in read if (scale := scales(n))])
    rank, dim = len(node.shape or ()), node.arguments.get("dim", 0)
    channels = row.layout is Layout.KEPT and rank > 1 and dim % rank == 1
    scale = scale if channels else _moved(scale)
    rest = [n for n in read if n.floating and not scales(n)]
    if all(n.effect(Effect.NOTHING) for n in rest):
        return scale  # the rest is fresh zeros to write into
    channels &= scale.part is not Part.SOME
    return replace(scale, part=Part.CHANNELS if channels else Part.SOME, exact=scale.exact and channels)


def is_weight_layer(node: Node) -> bool:
    """A linear layer, convolution or matmul with a weight of the model's."""
    if not (node.row and node.row.effect is Effect.MIX):
        return False
    beside = node.operands("bias", *node.row.gates)
    return any(n.floating and not n.activation and n not in beside for n in node.inputs) and any(
        n.activation for n in node.inputs
    )
