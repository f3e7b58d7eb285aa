"""The same parameter groups on every rank: an optimizer whose state is sharded trusts their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import distributed

from hf_gammareg.errors import GammaRegError, some


def check_ranks(groups: Iterable[Mapping[str, Any]]) -> None:
    """Check that every process of a distributed run has the same groups in the same order.

    Call it on every rank once the optimizer is made, before the first step; `GammaRegTrainer` does. The members' names
    and the groups' options are compared, never the values of parameters. In a run that is not distributed it does
    nothing.

    >>> check_ranks([{"params": [], "param_names": ["bn1.weight"], "weight_decay": 0.1}])

    Args:
        groups: the groups of an optimizer, its `param_groups`.

    Raises:
        GammaRegError: on every rank alike, if the groups of two ranks differ.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    own = describe(groups)
    digests = _gather(hashlib.sha256(repr(own).encode()).hexdigest())
    if len(set(digests)) == 1:
        return
    # Every rank has seen the same digests, so every rank comes here.
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    everyone = _gather(own)
    raise GammaRegError(
        f"Expected the same parameter groups on all {len(digests)} ranks, found that rank {others[0]} has "
        f"{_difference(everyone[0], everyone[others[0]])} (ranks that differ from rank 0: {some(others)}). Build the "
        "model, its frozen layers, its example inputs and the policy alike on every rank."
    )


def describe(groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is compared of the groups: each one's options as text and its members' names.

    >>> describe([{"params": [torch.zeros(3)], "lr": 0.1}])
    [{'options': {'lr': '0.1'}, 'members': ['unnamed']}]
    """
    return [
        {
            "options": {key: _text(group[key]) for key in sorted(group) if key not in ("params", "param_names")},
            "members": list(group.get("param_names") or ["unnamed"] * len(group["params"])),
        }
        for group in groups
    ]


def _text(value: Any) -> str:
    """A value that reads the same on every rank: of an object, whose text may hold an address, only the type."""
    value = value.tolist() if isinstance(value, torch.Tensor) else value
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_text, value))})"
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__


def _gather(value: Any) -> list[Any]:
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def _difference(first: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """The first thing in which two ranks' groups differ, as the end of a sentence about the other rank."""
    for index, (expected, found) in enumerate(zip(first, other, strict=False)):
        if expected == found:
            continue
        for key in sorted(expected["options"].keys() | found["options"].keys()):
            options = [group["options"].get(key, "no value") for group in (found, expected)]
            if options[0] != options[1]:
                return f"{key} {options[0]} in group {index} where rank 0 has {options[1]}"
        more, fewer = (set(one["members"]) - set(two["members"]) for one, two in ((found, expected), (expected, found)))
        if more:
            return f"{some(more)} in group {index}, where rank 0 does not"
        if fewer:
            return f"no {some(fewer)} in group {index}, where rank 0 does"
        return f"the members of group {index} in another order than rank 0"
    return f"{len(other)} groups where rank 0 has {len(first)}"
