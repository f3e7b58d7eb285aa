"""How libraries group a model's parameters when they do not name them, to read the optimizer states that they wrote."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.model.names import parameter_names

LIKE_PARAMETER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum")
"""State tensors of torch's optimizers that have their parameter's shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to group a model's trainable parameters."""

    label: str
    """Whose way it is."""
    groups: Sequence[Sequence[str]]
    """Canonical parameter names, group by group."""
    decays: Sequence[bool | None]
    """Whether a group decays, in a run whose weight decay is not 0; None where that is not known."""


def plain_layouts(model: nn.Module) -> list[Layout]:
    """The groups that plain `Trainer`, timm and `torch.optim` make of a model's parameters.

    >>> [layout.label for layout in plain_layouts(nn.Linear(2, 2)) if layout.label == "torch.optim"]
    ['torch.optim']

    The first two are asked themselves, if they are loaded: a checkpoint of theirs is resumed where they are.
    """
    names = parameter_names(model)
    trained = [name for name, parameter in names.parameters.items() if parameter.requires_grad]
    layouts = [Layout(label="torch.optim", groups=[trained], decays=[None])]
    if "transformers.trainer" in sys.modules:
        decayed = decayed_by_trainer(model)
        both = [[name for name in trained if (name in decayed) is decays] for decays in (True, False)]
        layouts.append(Layout(label="plain Trainer", groups=both, decays=[True, False]))
    if "timm.optim" in sys.modules:
        groups = _groups_of_timm(model)
        members = [[names.by_id[id(parameter)] for parameter in group["params"]] for group in groups]
        layouts.append(Layout(label="plain timm", groups=members, decays=[bool(g["weight_decay"]) for g in groups]))
    return layouts


def decayed_by_trainer(model: nn.Module) -> set[str]:
    """The parameters that plain `transformers.Trainer` decays, asked of the installed version itself.

    Source: `Trainer.get_decay_parameter_names`: everything but `nn.LayerNorm` and names that look like a norm.
    """
    from transformers import Trainer

    # The method reads nothing of the Trainer it belongs to. The name may have been patched: what is asked is the base.
    kinds: list[Any] = [kind for kind in Trainer.__mro__ if "get_decay_parameter_names" in vars(kind)]
    decayed = set(kinds[-1].get_decay_parameter_names(None, model))
    names = parameter_names(model).by_id
    return {names[id(parameter)] for live, parameter in model.named_parameters() if live in decayed}


def decayed_by_timm(model: nn.Module) -> set[str]:
    """The parameters that plain timm decays with its default `filter_bias_and_bn=True`, asked of it itself.

    Source: `timm.optim.param_groups_weight_decay`: everything of two dimensions or more that the model's
    `no_weight_decay()` does not list.
    """
    names = parameter_names(model).by_id
    return {names[id(p)] for group in _groups_of_timm(model) if group["weight_decay"] for p in group["params"]}


def _groups_of_timm(model: nn.Module) -> list[Group]:
    from timm.optim import param_groups_weight_decay

    excluded: Collection[str] = getattr(model, "no_weight_decay", set)()
    return param_groups_weight_decay(model, weight_decay=1.0, no_weight_decay_list=excluded)


def nameless(
    saved: Sequence[Mapping[str, Any]],
    state: Mapping[Any, Any],
    layouts: Iterable[Layout],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[list[str]]:
    """The names of a saved state's parameters, from the one grouping that fits it.

    A grouping fits if its groups have as many members, if they decay where the saved ones do, and if every state
    tensor has the shape of its parameter.

    Args:
        saved: the state's groups.
        state: its `state`.
        layouts: groupings to try.
        shapes: of the parameters, by canonical name.

    Raises:
        GammaRegError: if none fits, or several that differ.
    """
    fitting: dict[tuple[tuple[str, ...], ...], str] = {}
    for layout in layouts:
        if (members := _fitted(saved, state, layout, shapes)) is not None:
            fitting.setdefault(members, layout.label)
    if len(fitting) == 1:
        return [list(group) for group in next(iter(fitting))]
    sizes = ", ".join(str(len(group["params"])) for group in saved)
    if fitting:
        raise GammaRegError(
            f"Expected an optimizer state whose groups name their parameters, or fit one known grouping, found groups "
            f"of {sizes} parameters that fit those of {' and of '.join(sorted(fitting.values()))}, which differ. "
            "Resume with the library that wrote it, or start from the checkpoint's weights."
        )
    raise GammaRegError(
        f"Expected an optimizer state whose groups name their parameters, or are those of plain Trainer, timm, "
        f"torch.optim or this run, found groups of {sizes} parameters where this model has {len(shapes)}. Resume with "
        "the model and the library that wrote it, or start from the checkpoint's weights."
    )


def _fitted(
    saved: Sequence[Mapping[str, Any]],
    state: Mapping[Any, Any],
    layout: Layout,
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[tuple[str, ...], ...] | None:
    """The layout's names by saved group; libraries differ in whether they keep an empty one."""
    wanted = iter([(group, decays) for group, decays in zip(layout.groups, layout.decays, strict=True) if group])
    some_decay = any(group.get("weight_decay") for group in saved)
    members: list[tuple[str, ...]] = []
    for group in saved:
        if not group["params"]:
            members.append(())
            continue
        names, decays = next(wanted, ((), None))
        if len(names) != len(group["params"]):
            return None
        if some_decay and decays is not None and decays != bool(group.get("weight_decay")):
            return None
        for key, name in zip(group["params"], names, strict=True):
            entry = state.get(key) or {}
            for field in LIKE_PARAMETER:
                value = entry.get(field)
                if isinstance(value, torch.Tensor) and tuple(value.shape) != shapes.get(name):
                    return None
        members.append(tuple(names))
    return tuple(members) if next(wanted, None) is None else None


Group = dict[str, Any]
"""What `torch.optim` takes: `params` and options; here with `param_names` too."""
