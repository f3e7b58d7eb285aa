"""Random numbers that decide whether a part of a network runs, held while it is traced: LayerDrop."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WORDS = {1.0: 0x12DD9BB3, 0.0: 0}
"""The word of a Mersenne Twister's state that comes out as the largest number, and as the smallest."""

HELD = 400
"""As many of the state's 624 words are held, two a number: what draws until a number fits is served in the end."""


@dataclass(slots=True)
class Chance:
    """What random numbers come close to, and whether one was asked for."""

    value: float
    asked: bool = False


@contextmanager
def held(value: float) -> Iterator[Chance]:
    """Within this context the next random numbers of Python and of NumPy come close to 1 or to 0.

    The generators are set to a state that says so, which holds for each of their functions, however it was imported.
    Restoring them is the caller's.

    >>> state = random.getstate()
    >>> with held(1.0) as chance:
    ...     random.random() > 0.999
    True
    >>> chance.asked
    True
    >>> random.setstate(state)

    Args:
        value: 1 or 0. A layer is kept by a large number where one is dropped below a rate, and by a small one where it
            survives below a rate.
    """
    chance = Chance(value)
    words = [WORDS[value]] * HELD
    version, state, gauss = random.getstate()
    random.setstate((version, (*words, *state[HELD:-1], 0), gauss))
    numpy = sys.modules.get("numpy")
    legacy: Any = numpy.random.get_state() if numpy else ("none",)
    twister = legacy[0] == "MT19937"
    if numpy and twister:
        numpy.random.set_state((legacy[0], [*words, *legacy[1][HELD:]], 0, *legacy[3:]))
    yield chance
    chance.asked |= random.getstate()[1][-1] != 0 or bool(numpy and twister and numpy.random.get_state()[2] != 0)
