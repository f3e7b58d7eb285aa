"""Gammas in an optimizer that a Trainer has just made, whoever made its groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from accelerate.utils.deepspeed import DummyOptim
from torch import nn

from hf_gammareg.decay.groups import place_gammas
from hf_gammareg.decay.optimizers import RULES, base_optimizer, class_name
from hf_gammareg.model.layouts import Group
from hf_gammareg.model.names import parameter_names
from hf_gammareg.resume.matching import inner_optimizers

Outcome = Literal["kept", "moved", "held", "lost", "unmatched"]
"""What became of the decisions: the Trainer's groups held them; they do now; those of a user's optimizer do; it is none
that can have them; it was made for a model that has no parameters of the gammas' names."""


def regroup(
    optimizer: Any,
    groups: list[Group],
    model: nn.Module,
    decays: Mapping[str, bool],
    *,
    weight_decay: float,
    gamma_weight_decay: float | None = None,
) -> Outcome:
    """Give the groups their members' names, and each gamma the decay that was decided, in place.

    Some optimizers make groups of their own (GaLore, APOLLO), some hold several optimizers (factories, layer-wise
    ones). Where it is known that they read `weight_decay` from their groups, the gammas move there too; LOMO, which
    does not, and classes nobody knows are left as they are.

    Args:
        optimizer: a fresh optimizer.
        groups: its groups, which are changed.
        model: the model of its parameters, also as DDP, FSDP or `torch.compile` wrapped it.
        decays: `{parameter name: decays}`.
        weight_decay: the run's weight decay.
        gamma_weight_decay: a strength of its own for the gammas that decay.

    Returns:
        `kept` or `moved`, also where it holds only some of the gammas; for any other nothing was changed.
    """
    parameters = parameter_names(model).parameters
    wanted = {
        id(parameters[name]): weight_decay if decay else 0.0
        for name, decay in decays.items()
        if name in parameters and parameters[name].requires_grad
    }
    # One whose own groups hold none of the parameters is a dummy: layer-wise optimizers step in hooks.
    held = list(inner_optimizers(optimizer))
    owners: list[tuple[Any, list[Group]]] = [(inner, inner.param_groups) for inner in held] or [(optimizer, groups)]
    found = {id(p): group.get("weight_decay") for _, own in owners for group in own for p in group["params"]}
    if not decays.keys() <= parameters.keys():
        return "unmatched"
    if not found.keys() & {id(parameter) for parameter in parameters.values()}:
        return "lost"
    kept = all(found.get(key, decay) == decay for key, decay in wanted.items())
    if not kept and not all(_reads_groups(owner, own, wanted) for owner, own in owners):
        return "lost"
    mirrored = held and {id(group) for group in groups} <= {id(group) for _, own in owners for group in own}
    for _, own in owners:
        own[:] = place_gammas(own, model, decays, weight_decay=weight_decay, gamma_weight_decay=gamma_weight_decay)
    if mirrored:
        groups[:] = [group for _, own in owners for group in own]
    return "kept" if kept else "moved"


def differing(optimizer: Any, model: nn.Module, decays: Mapping[str, bool]) -> list[str]:
    """The gammas that an optimizer of the user's decays and the policy would not, or the other way.

    Strengths may differ. None differ in an optimizer that decays nothing at all, and none that it does not hold.

    Args:
        optimizer: one that was made elsewhere.
        model: the model of its parameters.
        decays: `{parameter name: decays}`.
    """
    parameters = parameter_names(model).parameters
    found = {id(p): bool(group.get("weight_decay")) for group in _all_groups(optimizer) for p in group["params"]}
    if found and not any(found.values()):
        return []
    trained = {name: id(parameters[name]) for name in decays if name in parameters and parameters[name].requires_grad}
    return [name for name, key in trained.items() if not found or found.get(key, decays[name]) != decays[name]]


def strength_of(optimizer: Any, model: nn.Module, decays: Mapping[str, bool]) -> float:
    """The strongest weight decay of the gammas that decay in an optimizer that holds the decisions."""
    parameters = parameter_names(model).parameters
    gammas = {id(parameters[name]) for name, decay in decays.items() if decay and name in parameters}
    groups = [group for group in _all_groups(optimizer) if any(id(p) in gammas for p in group["params"])]
    return max((float(group.get("weight_decay") or 0.0) for group in groups), default=0.0)


def apart_from(optimizer: Any, model: nn.Module) -> tuple[list[str], list[str]]:
    """The parameters that an optimizer holds though they are frozen, and those that it lacks though they are not."""
    held = {id(parameter) for group in _all_groups(optimizer) for parameter in group["params"]}
    if all((id(parameter) in held) is parameter.requires_grad for parameter in model.parameters()):
        return [], []
    parameters = parameter_names(model).parameters
    frozen = [name for name, p in parameters.items() if id(p) in held and not p.requires_grad]
    return frozen, [name for name, p in parameters.items() if id(p) not in held and p.requires_grad]


def _all_groups(optimizer: Any) -> list[Group]:
    owners = list(inner_optimizers(optimizer)) or [optimizer]
    return [group for owner in owners for group in getattr(owner, "param_groups", ())]


def _reads_groups(owner: Any, groups: list[Group], gammas: Mapping[int, float]) -> bool:
    concerned = any(id(parameter) in gammas for group in groups for parameter in group["params"])
    return not concerned or class_name(base_optimizer(owner)) in RULES


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
