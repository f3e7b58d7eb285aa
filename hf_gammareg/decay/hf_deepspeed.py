"""Optimizers that DeepSpeed makes from its own configuration, of which the Trainer holds a placeholder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.utils.deepspeed import DummyOptim
from torch import nn

from hf_gammareg.decay.groups import Group, place_gammas


def groups_of(optimizer: Any, model: nn.Module, decays: Mapping[str, bool], config: Mapping[str, Any]) -> list[Group]:
    """The groups of an optimizer, or those that DeepSpeed will make its optimizer from.

    With an `optimizer` in its configuration file DeepSpeed decays every parameter alike; the Trainer holds a
    `DummyOptim` with a list of parameters until then. That list becomes groups, in which only the gammas move.

    Args:
        optimizer: what the Trainer holds. A placeholder is changed: `params` and `param_groups` are the groups.
        model: the model of its parameters.
        decays: `{parameter name: decays}`.
        config: DeepSpeed's configuration. One that names no weight decay leaves it to DeepSpeed's optimizer, so no
            groups are made.

    Returns:
        The list itself, none for an optimizer without groups.
    """
    if not isinstance(optimizer, DummyOptim):
        return getattr(optimizer, "param_groups", [])
    strength = config.get("optimizer", {}).get("params", {}).get("weight_decay")
    if strength is None:
        return []
    parameters = list(optimizer.params)
    if not any(isinstance(entry, Mapping) for entry in parameters):
        given = [{"params": parameters, "weight_decay": strength}]
        optimizer.params = place_gammas(given, model, decays, weight_decay=strength)
    optimizer.param_groups = optimizer.params
    return optimizer.params
