"""From decisions to parameter groups: any factory's groups, with each gamma where the policy says."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import distributed, nn

from hf_gammareg.decay.policy import Policy, decide
from hf_gammareg.errors import GammaRegError, some, warn
from hf_gammareg.model.layouts import Group
from hf_gammareg.model.names import UNNAMED, member_names, parameter_names
from hf_gammareg.roles.find import find_gammas
from hf_gammareg.roles.gammas import GammaMap, unknown_text


def param_groups(
    model: nn.Module,
    weight_decay: float,
    policy: Policy = "guidelines",
    *,
    gamma_weight_decay: float | None = None,
    gamma_decay: Sequence[str] = (),
    gamma_no_decay: Sequence[str] = (),
    example_inputs: Any = None,
    gammas: GammaMap | None = None,
    groups: Iterable[Any] | None = None,
) -> list[Group]:
    """Make the parameter groups of a model, with decay on the gammas that the policy names.

    Only gammas move. Everything else stays where `groups` has it; without `groups`, where plain `torch.optim` has it:
    one group, all decayed.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    >>> groups = param_groups(model, weight_decay=0.1, example_inputs=(torch.zeros(2, 4),))
    >>> [(group["weight_decay"], group["param_names"]) for group in groups]  # the final norm's gain does not decay
    [(0.1, ['0.weight', '0.bias', '1.bias', '2.weight', '2.bias']), (0.0, ['1.weight'])]
    >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)

    Args:
        model: any PyTorch model, not yet wrapped or sharded.
        weight_decay: the run's weight decay, at least 0.
        policy: `"guidelines"`, `"all"`, `"none"`, `"trainer"`, `"timm"`, or role names (see `find_rule`).
        gamma_weight_decay: a strength of its own for the gammas that decay; default: the run's.
        gamma_decay: glob patterns of gammas that decay whatever the policy says.
        gamma_no_decay: glob patterns of gammas that do not.
        example_inputs: see `find_gammas`.
        gammas: the result of `find_gammas(model)`, if it is at hand.
        groups: groups that another factory made of this model's parameters; whatever torch's optimizers take.
            Those of others (a loss function's) come as pairs of name and parameter, or with the group's `param_names`.

    Returns:
        Groups for any torch optimizer, none of them empty, each with its own `weight_decay` and `param_names`.

    Raises:
        GammaRegError: a strength that is negative or not finite, an unknown policy, a pattern that matches nothing.
    """
    weight_decay = check_strength("weight_decay", weight_decay)
    if gammas is None:
        gammas = find_gammas(model, example_inputs)
    decays = decide(gammas, model, policy, gamma_decay=gamma_decay, gamma_no_decay=gamma_no_decay)
    if doubt := unknown_text(gammas, decays):
        warn(doubt)
    if groups is None:
        groups = [p for p in model.parameters() if p.requires_grad]
    return place_gammas(groups, model, decays, weight_decay=weight_decay, gamma_weight_decay=gamma_weight_decay)


def as_groups(made: Iterable[Any]) -> list[Group]:
    """What torch's optimizers take, parameters or named ones or groups of them, as groups that can be read twice.

    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> as_groups(layer.parameters()) == as_groups([{"params": layer.weight}]) == [{"params": [layer.weight]}]
    True
    >>> as_groups(layer.named_parameters()) == [{"params": [layer.weight], "param_names": ["weight"]}]
    True
    """
    entries = list(made)
    groups = entries if all(isinstance(entry, Mapping) for entry in entries) else [{"params": entries}]
    return [_read(group) for group in groups]


def _read(group: Mapping[str, Any]) -> Group:
    params = group["params"]
    entries = [params] if isinstance(params, torch.Tensor) else list(params)
    named = [entry for entry in entries if isinstance(entry, tuple)]
    names = {"param_names": [name for name, _ in named]} if named and len(named) == len(entries) else {}
    return {**group, "params": [entry[1] if isinstance(entry, tuple) else entry for entry in entries], **names}


def place_gammas(
    groups: Iterable[Any],
    model: nn.Module,
    decays: Mapping[str, bool],
    *,
    weight_decay: float,
    gamma_weight_decay: float | None = None,
) -> list[Group]:
    """Put each gamma into the group where its decision belongs; nothing else moves.

    A gamma keeps every other setting of the group that it comes from (learning rate, `lr_scale`, `use_fallback`),
    and joins an existing group where one has the same settings, so no more groups come out than the settings need.
    Groups of parameters on different device meshes (DTensor) stay apart. Names are canonical: those of the model
    before DDP, FSDP, `torch.compile`, activation checkpointing or PEFT wrapped it.

    Args:
        groups: groups of this model's parameters, from any factory, and of others that the caller named (those of a
            loss function). They are not changed.
        model: the model that the parameters belong to.
        decays: `{parameter name: decays}` from `hf_gammareg.decay.policy.decide`.
        weight_decay: the decay of groups that carry none of their own, and of gammas that come from a group without.
        gamma_weight_decay: a strength of its own for the gammas that decay.

    Raises:
        GammaRegError: a strength that is negative or not finite, or a parameter in two groups.
    """
    weight_decay = check_strength("weight_decay", weight_decay)
    if gamma_weight_decay is not None:
        gamma_weight_decay = check_strength("gamma_weight_decay", gamma_weight_decay)
    groups = as_groups(groups)
    members = member_names(groups, parameter_names(model))
    if unnamed := [name for group in members for name in group if name.startswith(UNNAMED)]:
        warn(
            f"{len(unnamed)} parameters of the groups are not the model's and have no names: those of one shape can't "
            "be told apart in a checkpoint. Give them as pairs of name and parameter."
        )
    placed: list[Group] = []
    seen: dict[int, str] = {}
    arrivals: list[tuple[Group, str, nn.Parameter]] = []
    for given, called in zip(groups, members, strict=True):
        options = {key: value for key, value in given.items() if key not in ("params", "param_names")}
        own = options.setdefault("weight_decay", weight_decay)
        group: Group = {"params": [], **options, "param_names": []}
        placed.append(group)
        for parameter, name in zip(given["params"], called, strict=True):
            if id(parameter) in seen:
                raise GammaRegError(
                    f"Expected each parameter in one group, found {name!r} in two. Leave it in one of them."
                )
            seen[id(parameter)] = name
            wanted = own
            if name in decays:
                wanted = (own or weight_decay) if decays[name] else 0.0
                if decays[name] and gamma_weight_decay is not None:
                    wanted = gamma_weight_decay
            if wanted == own:
                group["params"].append(parameter)
                group["param_names"].append(name)
            else:
                arrivals.append((options | {"weight_decay": wanted}, name, parameter))
    for options, name, parameter in arrivals:
        target = next((group for group in placed if _options(group) == options and _same_mesh(group, parameter)), None)
        if target is None:
            target = {"params": [], **options, "param_names": []}
            placed.append(target)
        target["params"].append(parameter)
        target["param_names"].append(name)
    return [group for group in placed if group["params"]]


def apply_lr_scale(optimizer: torch.optim.Optimizer) -> None:
    """Write the `lr_scale` of each group into its learning rate, for a scheduler that is not timm's.

    Layer-wise decay gives each group an `lr_scale`, and only timm's schedulers read it: under any other scheduler, or
    without one, all layers would have the same rate. The setting itself is taken away, so that it can't act twice.

    >>> groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr_scale": 0.5}]
    >>> optimizer = torch.optim.AdamW(groups, lr=0.1)
    >>> apply_lr_scale(optimizer)
    >>> optimizer.param_groups[0]["lr"], "lr_scale" in optimizer.param_groups[0]
    (0.05, False)

    Args:
        optimizer: an optimizer that has no scheduler yet.

    Raises:
        GammaRegError: if it has a scheduler, or a group without a learning rate; nothing is changed then.
    """
    scaled = [group for group in optimizer.param_groups if "lr_scale" in group]
    started = any("initial_lr" in group for group in scaled)
    if started or any(group["lr"] is None for group in scaled):
        raise GammaRegError(
            "Expected an optimizer with a learning rate and without a scheduler, found one whose "
            f"{'scheduler has the rates already' if started else 'lr is None'}. Call apply_lr_scale right after making "
            "the optimizer, with an lr."
        )
    for group in scaled:
        group["lr"] = group["lr"] * group.pop("lr_scale")


def check_strength(option: str, value: float) -> float:
    """Return a decay strength as a float.

    Raises:
        GammaRegError: if it is negative, not finite or not a number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise GammaRegError(f"Expected `{option}` to be a finite number of at least 0, found {value!r}. Correct it.")
    return number


def _options(group: Group) -> Group:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _same_mesh(group: Group, parameter: nn.Parameter) -> bool:
    # Kernels that take a whole group at once can't cross device meshes; Trainer splits its groups for that.
    meshes = [getattr(member, "device_mesh", None) for member in group["params"]]
    return not meshes or getattr(parameter, "device_mesh", None) in meshes


# --- the same groups on every rank ----------------------------------------------------------------------------------


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
