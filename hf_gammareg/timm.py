"""timm's optimizer factories, with weight decay on the gammas where the policy says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from timm.optim import create_optimizer_v2 as _timm_create_optimizer_v2
from timm.optim import optimizer_kwargs, param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer

from hf_gammareg.decay.groups import apply_lr_scale, as_groups, param_groups
from hf_gammareg.decay.policy import Policy
from hf_gammareg.errors import GammaRegError, warn
from hf_gammareg.model.layouts import Group
from hf_gammareg.model.names import parameter_names
from hf_gammareg.resume.matching import match_by_name
from hf_gammareg.roles.find import find_gammas
from hf_gammareg.roles.gammas import GammaMap

__all__ = ["create_optimizer", "create_optimizer_v2", "param_group_fn"]


def create_optimizer(
    args: Any, model: nn.Module | Iterable[Any], filter_bias_and_bn: bool = True, **gamma_options: Any
) -> Optimizer:
    """Make an optimizer from command-line arguments, as `timm.optim.create_optimizer` does.

    Args:
        args: what timm's training script parses: `opt`, `lr`, `weight_decay`, `momentum` and the rest.
        model: see `create_optimizer_v2`.
        filter_bias_and_bn: leave biases and other one-dimensional parameters out of weight decay, as timm does.
        gamma_options: the keyword-only options of `create_optimizer_v2`: `policy` and those after it.

    Raises:
        GammaRegError: see `create_optimizer_v2`.
    """
    settings = optimizer_kwargs(cfg=args)
    return create_optimizer_v2(model, **settings, filter_bias_and_bn=filter_bias_and_bn, **gamma_options)


def create_optimizer_v2(
    model_or_params: nn.Module | Iterable[Any],
    opt: str = "sgd",
    lr: float | None = None,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    foreach: bool | None = None,
    filter_bias_and_bn: bool = True,
    fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
    layer_decay: float | None = None,
    layer_decay_min_scale: float = 0.0,
    layer_decay_no_opt_scale: float | None = None,
    param_group_fn: Callable[[nn.Module], Iterable[Any]] | None = None,
    *,
    policy: Policy = "guidelines",
    gamma_weight_decay: float | None = None,
    gamma_decay: Sequence[str] = (),
    gamma_no_decay: Sequence[str] = (),
    example_inputs: Any = None,
    gammas: GammaMap | None = None,
    lr_scale: str = "scheduler",
    **kwargs: Any,
) -> Optimizer:
    """Make an optimizer as `timm.optim.create_optimizer_v2` does, and put the gammas where the policy says.

    timm makes the groups, by its own functions or the caller's `param_group_fn`; only gammas move.

    >>> import timm
    >>> model = timm.create_model("test_resnet")
    >>> optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05)
    >>> [group["weight_decay"] for group in optimizer.param_groups]
    [0.0, 0.05]
    >>> "layer1.0.bn2.weight" in optimizer.param_groups[1]["param_names"]
    True

    Args:
        model_or_params: a model, not yet wrapped or sharded. Parameters or groups in place of a model have no
            graph, so they go to timm as they are, with a warning (without one if `param_groups` made them); so do the
            groups that timm makes of a model that does not say what it takes.
        opt: timm's name of the optimizer, such as `adamw`, `muon`, `lookahead_sgd`.
        policy: which gammas decay (see `hf_gammareg.param_groups`); `"timm"` leaves the groups as they are.
        gamma_weight_decay: a strength of its own for the gammas that decay; default: `weight_decay`.
        gamma_decay: glob patterns of gammas that decay whatever the policy says.
        gamma_no_decay: glob patterns of gammas that do not.
        example_inputs: see `hf_gammareg.find_gammas`; default: made from the model's `pretrained_cfg`.
        gammas: the result of `find_gammas(model)`, if it is at hand.
        lr_scale: who applies the `lr_scale` that layer decay gives each group. `"scheduler"`: timm's schedulers do, and
            nothing else, as timm has it. `"lr"`: it is written into each group's `lr`, for any other scheduler.

    All other arguments are timm's.

    Returns:
        timm's optimizer; each group has its own `weight_decay` and its `param_names`. It loads checkpoints by name
        (see `hf_gammareg.match_by_name`).

    Raises:
        GammaRegError: an unknown policy, a strength that is negative or not finite, a pattern that matches nothing,
            another `lr_scale`, or any of these options where there are no roles: for parameters in place of a model, or
            a model that does not say what it takes.
    """
    if lr_scale not in ("scheduler", "lr"):
        raise GammaRegError(
            f"Expected `lr_scale` to be 'scheduler' (timm's apply it) or 'lr' (for any other), found {lr_scale!r}. "
            "Give one of them."
        )
    gamma_options: dict[str, Any] = {
        "policy": policy,
        "gamma_weight_decay": gamma_weight_decay,
        "gamma_decay": gamma_decay,
        "gamma_no_decay": gamma_no_decay,
    }
    settings = {"lr": lr, "momentum": momentum, "foreach": foreach, **kwargs}
    if not isinstance(model_or_params, nn.Module):
        model_or_params = list(model_or_params)
        if not all(isinstance(entry, dict) and "param_names" in entry for entry in model_or_params):  # ours have names
            _check_no_wish(
                gamma_options,
                "Expected a model, whose graph tells the gammas' roles, found parameters or groups of them. Pass the "
                "model, or make the groups with hf_gammareg.param_groups(model, ..., groups=your_groups).",
            )
        optimizer = _timm_create_optimizer_v2(model_or_params, opt, weight_decay=weight_decay, **settings)
        return _scaled(optimizer, lr_scale)
    gamma_options |= {"example_inputs": example_inputs, "gammas": gammas}
    if param_group_fn is not None:
        given = as_groups(param_group_fn(model_or_params))
        groups = _place(given, model_or_params, weight_decay, **gamma_options)
        optimizer = _timm_create_optimizer_v2(groups, opt, weight_decay=weight_decay, **settings)
        match_by_name(optimizer, model_or_params, given=given)
        return _scaled(optimizer, lr_scale)
    make_groups = partial(
        _param_group_fn,
        weight_decay=weight_decay,
        filter_bias_and_bn=filter_bias_and_bn,
        fallback_list=fallback_list,
        fallback_no_weight_decay=fallback_no_weight_decay,
        layer_decay=layer_decay,
        layer_decay_min_scale=layer_decay_min_scale,
        layer_decay_no_opt_scale=layer_decay_no_opt_scale,
    )
    plain = make_groups(policy="timm", gammas=GammaMap(gammas=(), source="none: as timm alone groups"))
    # Each group has its own decay by now; like timm, leave the optimizer's default at 0.
    groups = make_groups(**gamma_options)(model_or_params)
    optimizer = _timm_create_optimizer_v2(groups, opt, weight_decay=0.0, **settings)
    match_by_name(optimizer, model_or_params, given=plain(model_or_params))
    return _scaled(optimizer, lr_scale)


def param_group_fn(
    *,
    weight_decay: float,
    policy: Policy = "guidelines",
    filter_bias_and_bn: bool = True,
    no_weight_decay: Collection[str] | None = None,
    fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
    layer_decay: float | None = None,
    layer_decay_min_scale: float = 0.0,
    layer_decay_no_opt_scale: float | None = None,
    gamma_weight_decay: float | None = None,
    gamma_decay: Sequence[str] = (),
    gamma_no_decay: Sequence[str] = (),
    example_inputs: Any = None,
    gammas: GammaMap | None = None,
) -> Callable[[nn.Module], list[Group]]:
    """Make a function for the `param_group_fn` argument of timm's own `create_optimizer_v2`.

    With that argument timm leaves layer decay, `no_weight_decay()` and the fallback list alone, and does not know
    the groups' decay; so all of them are given here, and done here as timm would. For a scheduler that is not timm's
    call `hf_gammareg.decay.groups.apply_lr_scale(optimizer)` afterwards.

    >>> import timm
    >>> model = timm.create_model("test_vit")
    >>> group_fn = param_group_fn(weight_decay=0.05, layer_decay=0.75)
    >>> optimizer = timm.optim.create_optimizer_v2(model, "adamw", lr=1e-3, param_group_fn=group_fn)
    >>> sum("norm1.weight" in name for group in optimizer.param_groups if group["weight_decay"]
    ...     for name in group["param_names"]) == len(model.blocks)
    True

    Args:
        weight_decay: the run's weight decay, at least 0.
        no_weight_decay: names that do not decay; default: the model's own `no_weight_decay()`.

    All other arguments are those of `create_optimizer_v2`.
    """

    def make_groups(model: nn.Module) -> list[Group]:
        # The two calls that timm.optim's OptimizerRegistry.create_optimizer makes.
        excluded = getattr(model, "no_weight_decay", set)() if no_weight_decay is None else no_weight_decay
        common: dict[str, Any] = {
            "weight_decay": weight_decay,
            "weight_decay_exclude_1d": filter_bias_and_bn,
            "no_weight_decay_list": excluded,
            "fallback_list": fallback_list,
            "fallback_no_weight_decay": fallback_no_weight_decay,
        }
        if layer_decay is None:
            groups = param_groups_weight_decay(model, **common)
        else:
            common |= {"min_scale": layer_decay_min_scale, "no_opt_scale": layer_decay_no_opt_scale}
            groups = param_groups_layer_decay(model, layer_decay=layer_decay, **common)
        return _place(
            groups,
            model,
            weight_decay,
            policy=policy,
            gamma_weight_decay=gamma_weight_decay,
            gamma_decay=gamma_decay,
            gamma_no_decay=gamma_no_decay,
            example_inputs=example_inputs,
            gammas=gammas,
        )

    return make_groups


_param_group_fn = param_group_fn
"""Under a name that the argument of `create_optimizer_v2` does not hide."""


def _place(
    groups: list[Group],
    model: nn.Module,
    weight_decay: float,
    *,
    policy: Policy,
    gammas: GammaMap | None,
    example_inputs: Any,
    **options: Any,
) -> list[Group]:
    if gammas is None:
        try:
            gammas = find_gammas(model, example_inputs)
        except GammaRegError as error:  # a module that says nothing of its inputs
            _check_no_wish({"policy": policy, "example_inputs": example_inputs, **options}, str(error))
            gammas = GammaMap(gammas=(), source=f"none: {error}")
    options["gammas"] = gammas
    if policy == "timm":
        # What timm made of this very call (`filter_bias_and_bn=False`, the caller's own groups), not of its defaults.
        decayed = {id(p) for group in groups if group.get("weight_decay", weight_decay) for p in group["params"]}
        names = {name for name, parameter in parameter_names(model).parameters.items() if id(parameter) in decayed}
        return param_groups(
            model, weight_decay, lambda gammas, model: names & set(gammas.names), groups=groups, **options
        )
    return param_groups(model, weight_decay, policy, groups=groups, **options)


def _scaled(optimizer: Optimizer, lr_scale: str) -> Optimizer:
    if lr_scale == "lr":
        apply_lr_scale(optimizer)
    return optimizer


def _check_no_wish(options: dict[str, Any], problem: str) -> None:
    """Raise where there are no roles and the caller asked for more than the default; else warn that timm decides."""
    wished = sorted(name for name, value in options.items() if value not in (None, (), [], "guidelines", "timm"))
    if wished:
        raise GammaRegError(f"{problem} Without it there is no way to honour {', '.join(wished)}.")
    warn(f"{problem} Until then no policy applies, and timm decides which gammas decay.")
