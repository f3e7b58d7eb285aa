"""Rows that depend on the arguments: functions of one call's, asked once when a program is read."""

from __future__ import annotations

from hf_gammareg.graph.rows import Arguments, Effect, Layout, OpRow
from hf_gammareg.graph.runs import almost_no_eps, expected, far_above, seeded

TINY = 1e-3
"""A constant below this guards a division by zero, and neither shifts nor bends."""


def item(arguments: Arguments) -> OpRow:
    """One of several outputs; the mean beside a variance has half its power."""
    mean = getattr(arguments.get("self"), "op", "") == "var_mean" and arguments.get("item") == 1
    return OpRow(effect=Effect.VIEW, layout=Layout.KEPT, power=0.5 if mean else 1.0)


def filled(arguments: Arguments) -> OpRow:
    """Zeros in the place of values or beside them are homogeneous, other constants are not."""
    zeros = arguments.get("value") in (None, 0)
    return OpRow(
        effect=Effect.VIEW, layout=Layout.FILLED, exact=zeros, gates=("mask",), reason="a mask only says what to keep"
    )


def power(arguments: Arguments) -> OpRow:
    """A fixed power of the input is homogeneous; as an exponent it is not."""
    base, exponent = arguments.get("self"), arguments.get("exponent")
    if isinstance(base, int | float):
        return OpRow(effect=Effect.SQUASH, reason="an exponent")
    if not isinstance(exponent, int | float):  # it depends on data, or is learned
        return OpRow(effect=Effect.CURVE, exact=False, gates=("exponent",), reason="an exponent")
    return OpRow(effect=Effect.SCALE, power=exponent) if exponent else OpRow(effect=Effect.NOTHING)


def quotient(arguments: Arguments) -> OpRow:
    """A quotient, unless it is rounded."""
    if arguments.get("rounding_mode"):
        return OpRow(effect=Effect.SQUASH, reason="a quotient that is rounded")
    return OpRow(effect=Effect.QUOTIENT)


def hard_tanh(arguments: Arguments) -> OpRow:
    """It saturates on both sides; from 0 up it is how ReLU6 is spelled."""
    if arguments.get("min_val", -1) < 0:
        return OpRow(effect=Effect.SQUASH, reason="bounded on both sides")
    return OpRow(effect=Effect.CURVE, exact=False, far=far_above)


def clamp(arguments: Arguments) -> OpRow:
    """Bounds bend; one next to 0 is ReLU's own, or only guards a division."""
    low, high = arguments.get("min"), arguments.get("max")
    if isinstance(low, int | float) and abs(low) < TINY and high is None:
        return OpRow(effect=Effect.SCALE)
    far = far_above if isinstance(low, int | float) and low >= 0 and isinstance(high, int | float) else None
    return OpRow(effect=Effect.CURVE, exact=False, gates=("min", "max"), reason="a bound only cuts off", far=far)


def draw(arguments: Arguments) -> OpRow:
    """A sample of the input's chances, or of one chance for all."""
    still = expected if isinstance(arguments.get("p"), float) else seeded
    return OpRow(effect=Effect.SQUASH, reason="a sample", still=still)


def batch_norm(arguments: Arguments) -> OpRow:
    """It normalises by the batch, unless it is frozen: then it is an affine map by running statistics."""
    given = not arguments.get("training", True)
    return OpRow(effect=Effect.NORM, kind="batch_norm", given=given, far=None if given else almost_no_eps)


def instance_norm(arguments: Arguments) -> OpRow:
    """As a batch norm, by the statistics of each example."""
    given = not arguments.get("use_input_stats", True)
    return OpRow(effect=Effect.NORM, kind="instance_norm", given=given, far=None if given else almost_no_eps)
