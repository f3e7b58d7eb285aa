"""Other ways to run an op: with nothing left to chance, or with room for a large factor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from hf_gammareg.graph.rows import Arguments, Run

EPS = 1e-9
"""What remains of the eps of norms. A norm cancels a factor up to its eps, which is no part of a gamma's fate: with the
usual 1e-5 to 1e-3 the output of a deep network moves by up to 3 % of its spread, in proportion to eps; where almost
nothing varies (the last blocks of an untrained Inception), a millionth of it is still seen."""
USUAL_EPS = 1e-5
"""That of torch's norms where it is not given."""


def replacing(**values: Any) -> Run:
    """With these in the place of the arguments that are given."""

    def run(op: Callable[[Arguments], Any], arguments: Arguments) -> Any:
        return op({**arguments, **{name: value for name, value in values.items() if name in arguments}})

    return run


def seeded(op: Callable[[Arguments], Any], arguments: Arguments) -> Any:
    """The same numbers each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return op(arguments)


def expected(op: Callable[[Arguments], Any], arguments: Arguments) -> Any:
    """The mean in the place of a draw: stochastic depth divides by the same number next."""
    return torch.full_like(arguments["self"], arguments["p"])


def almost_no_eps(op: Callable[[Arguments], Any], arguments: Arguments) -> Any:
    """A norm that cancels nearly all of a factor."""
    return op({**arguments, "eps": (arguments.get("eps") or USUAL_EPS) * EPS})


def far_above(op: Callable[[Arguments], Any], arguments: Arguments) -> Any:
    """Without an upper bound: ReLU6 as ReLU."""
    bounds = [name for name in ("max", "max_val") if name in arguments]
    return op({**arguments, **dict.fromkeys(bounds, math.inf)}) if bounds else torch.relu(arguments["self"])


def unrounded(op: Callable[[Arguments], Any], arguments: Arguments) -> Any:
    """Without a grid and its ends: fake quantisation as what it stands for, with the mask that it may return."""
    made = op(arguments)
    return (arguments["self"], *made[1:]) if isinstance(made, tuple) else arguments["self"]
