"""What a row of the table of ops says: the kinds of answer, and the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from hf_gammareg.errors import GammaRegError


class Effect(StrEnum):
    """What becomes of a factor c > 0 on an input of an op: the kinds of answer."""

    VIEW = auto()
    """The output holds the input's values, moved, copied, dropped or cast: c stays c."""
    POOL = auto()
    """Averages or maxima over a window: c stays c."""
    SCALE = auto()
    """Positively homogeneous: f(cx) = c f(x), or c to a fixed power."""
    CURVE = auto()
    """Grows with its input but bends: f(cx) is c f(x) only roughly."""
    MIX = auto()
    """A product that mixes positions or channels: linear, convolution, matmul, attention, Fourier transform."""
    PRODUCT = auto()
    """`self` times `other`: powers of c add up."""
    QUOTIENT = auto()
    """`self` by `other`: powers of c subtract; equal powers cancel, which is what a norm does."""
    SUM = auto()
    """`self` plus `other`, at each position: where a branch meets its skip. c survives where every side carries it."""
    DIFFERENCE = auto()
    """A sum of what takes something off, such as a mean: no residual sum."""
    CHOICE = auto()
    """One operand or another at each position, or a distance: c survives where every side carries it."""
    JOIN = auto()
    """Operands side by side: c survives in its own part."""
    NORM = auto()
    """A normalization of `input`: c is cancelled. `weight` is its gamma."""
    SQUASH = auto()
    """Saturates, or turns a factor into something else (a shift, a phase, a probability): c ends here."""
    NOTHING = auto()
    """Reads a shape, dtype or device, not a value: nothing is carried."""


SUMS = (Effect.SUM, Effect.DIFFERENCE, Effect.CHOICE)
"""What puts operands together at each position."""


class Layout(StrEnum):
    """Where an op of effect VIEW or JOIN leaves the values, channels being dimension 1."""

    MOVED = auto()
    """Anywhere."""
    KEPT = auto()
    """Each in its channel, a constant stays a constant; of a JOIN, the `tensors` lie whole along `dim`."""
    RESHAPED = auto()
    """The same where the first two dimensions come out as they were."""
    FILLED = auto()
    """In place, but for constants that stand instead of some or beside them."""


Arguments = Mapping[str, Any]
"""An op's arguments by name: numbers as they are, and a Node for each tensor (a tensor, where a program is run)."""
Run = Callable[[Callable[[Arguments], Any], Arguments], Any]
"""Another way to run an op: takes what runs it on its arguments, and these."""


KINDS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
"""The kinds of gammas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRow:
    """One op's answer. Every tensor argument is read unless `gates` or `ignores` names it."""

    effect: Effect
    reason: str = ""
    """Why c ends at it, where it can (a SQUASH, `gates`): said in the reason of a `gate`."""
    exact: bool = True
    """The answer holds to rounding."""
    power: float = 1.0
    """The power of c that comes out for c to the first."""
    gates: tuple[str, ...] = ()
    """Arguments that only steer (a softmax, a mask, an offset): c ends there."""
    ignores: tuple[str, ...] = ()
    """Arguments read for shape or dtype, or overwritten: nothing is carried."""
    kind: str = ""
    """Of a NORM, the kind of its gamma, one of `KINDS`."""
    given: bool = False
    """Of a NORM: it divides by statistics that are given, not by the input's, so that c stays c."""
    layout: Layout = Layout.MOVED
    """Of a VIEW or JOIN."""
    channels: int = -1
    """Of a MIX, the dimension of the output along which its `bias` stands."""
    tokens: bool = False
    """Of a MIX: a parameter among its operands stands for tokens (the learned queries of an attention), not weights."""
    statistic: str = ""
    """Of a reduction that a norm written out in simple ops may divide by: `plain`, or `centred` if it takes the mean
    off by itself."""
    still: Run | None = None
    """How it is run with nothing left to chance."""
    far: Run | None = None
    """How it is run where a large factor goes through that would meet a bound, or an eps."""

    def __post_init__(self) -> None:
        if self.effect is Effect.NORM and self.kind not in KINDS:
            raise GammaRegError(f"Expected the kind of a norm, found {self.kind!r}. Name one of {', '.join(KINDS)}.")


Rule = OpRow | Callable[[Arguments], OpRow]
"""A row, or a function that gives the row for the arguments of one call."""
