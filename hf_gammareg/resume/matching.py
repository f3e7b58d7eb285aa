"""Optimizer state by parameter name: a checkpoint's moments stay with their parameters, whatever the groups are now.

`torch.optim` matches a checkpoint's state with parameters by position. A run that is resumed with other groups (another
policy, or a checkpoint that plain `Trainer` or timm wrote) fails, or where the groups have the same sizes takes one
parameter's moments for another's.
"""

from __future__ import annotations

import inspect
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim import Optimizer

from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.model.layouts import LIKE_PARAMETER, Group, Layout, nameless, plain_layouts
from hf_gammareg.model.names import UNNAMED, as_known, member_names, parameter_names

logger = logging.getLogger(__name__)

OWN = ("params", "param_names", "weight_decay")
"""What a group keeps as this run has it; all else (learning rate, betas, counters) comes from the checkpoint."""


def match_by_name(
    optimizer: Optimizer,
    model: nn.Module,
    *,
    given: Iterable[Group] = (),
    say: Callable[[str], None] = logger.warning,
) -> None:
    """Make an optimizer load checkpoints by parameter name; call it once, before the first `load_state_dict`.

    The state of each parameter goes to the group that the parameter is in now, with that group's weight decay. What
    moved is said. A checkpoint whose groups have no names is read as plain `Trainer`, timm or `torch.optim` would have
    grouped this model, where only one of them fits. `GammaRegTrainer` and `hf_gammareg.timm` do this by themselves.

    >>> layers = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    >>> names = [name for name, _ in layers.named_parameters()]
    >>> before = torch.optim.SGD([{"params": list(layers.parameters()), "param_names": names}], momentum=0.9)
    >>> layers(torch.ones(1, 2)).sum().backward()
    >>> before.step()
    >>> now = torch.optim.SGD(
    ...     [
    ...         {"params": [layers[1].weight], "param_names": ["1.weight"], "weight_decay": 0.1},
    ...         {"params": [layers[0].weight, layers[0].bias, layers[1].bias], "weight_decay": 0.0,
    ...          "param_names": ["0.weight", "0.bias", "1.bias"]},
    ...     ], momentum=0.9)
    >>> match_by_name(now, layers, say=print)
    >>> now.load_state_dict(before.state_dict())
    Optimizer state matched by name: weight decay 0 becomes 0.1 for '1.weight'.
    >>> now.state[layers[1].weight]["momentum_buffer"].equal(before.state[layers[1].weight]["momentum_buffer"])
    True

    Args:
        optimizer: one whose groups carry `param_names`, as those of `param_groups` do, or hold parameters of `model`.
        model: the model, wrapped or not.
        given: the groups that the gammas were placed in, as your own factory made them (layer-wise rates, say): a
            checkpoint that was written without names may have those.
        say: told which parameters of the model are in no group, and later which have another weight decay than in
            the checkpoint.

    Raises:
        GammaRegError: if the optimizer holds a parameter that the model has replaced. Later, from `load_state_dict`:
            names that do not match, a checkpoint without names that no known grouping or more than one fits, the state
            of another optimizer, nan. The optimizer is as it was then.
    """
    names = parameter_names(model)
    layouts = plain_layouts(model)
    if given := list(given):
        layouts.append(Layout(label="this run's factory", groups=member_names(given, names), decays=_decays(given)))
    inners = list(inner_optimizers(optimizer)) or [optimizer]
    called = [member_names(inner.param_groups, names) for inner in inners]
    held = {id(parameter) for inner in inners for group in inner.param_groups for parameter in group["params"]}
    if left := [name for name, p in names.parameters.items() if p.requires_grad and id(p) not in held]:
        own = {name for groups in called for group in groups for name in group} - names.parameters.keys()
        others = f", which holds {some(own)} that are not the model's" if own else ""
        say(f"In no group of the {type(optimizer).__name__}{others}, and so not trained by it: {some(left)}.")
    for inner, members in zip(inners, called, strict=True):
        for group, own_names in zip(inner.param_groups, members, strict=True):
            group["param_names"] = own_names
        hook = partial(_load, layouts=layouts, say=say)
        if type(inner).load_state_dict is Optimizer.load_state_dict:
            inner.register_load_state_dict_pre_hook(hook)
        else:
            # Optimizers with a method of their own (8-bit ones) call no hooks.
            inner.__dict__["load_state_dict"] = partial(_load_into, inner, inner.load_state_dict, hook)


def _load(optimizer: Optimizer, saved: dict[str, Any], *, layouts: Sequence[Layout], say: Any) -> dict[str, Any]:
    _check_class(optimizer, _saved_groups(saved))
    matched = matched_state(saved, optimizer.param_groups, layouts)
    if matched.infinite:
        say(f"The optimizer state is taken as it was saved, with infinite values for {some(matched.infinite)}.")
    _ORIGINS[optimizer] = matched.origin
    if matched.moved:
        say(f"Optimizer state matched by name: {matched.moved}.")
    return matched.state


def _load_into(optimizer: Optimizer, load: Callable[..., Any], hook: Callable[..., Any], state: dict[str, Any]) -> None:
    load(hook(optimizer, state))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which groups of a checkpoint an optimizer's groups come from."""

    number: int
    """How many the checkpoint has."""
    sources: Sequence[Sequence[int]]
    """For each group of today, in which of them its parameters were."""


_ORIGINS: WeakKeyDictionary[Optimizer, Origin | None] = WeakKeyDictionary()


def origin_of(optimizer: Optimizer) -> Origin | None:
    """Where the groups come from that an optimizer has, once it has loaded a checkpoint by name; else None."""
    number, sources = 0, list[list[int]]()
    for inner in list(inner_optimizers(optimizer)) or [optimizer]:  # one that holds several lists their groups in order
        if (origin := _ORIGINS.get(inner)) is None:
            return None
        sources += [[number + source for source in group] for group in origin.sources]
        number += origin.number
    return Origin(number=number, sources=sources) if len(sources) == len(optimizer.param_groups) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A saved optimizer state, arranged by the groups of today."""

    state: dict[str, Any]
    """For `Optimizer.load_state_dict`."""
    moved: str
    """Which parameters have another weight decay now, as text."""
    infinite: Sequence[str]
    """The parameters whose state is not finite, as plain torch would load it too."""
    origin: Origin | None
    """None where the state does not say what the checkpoint's groups were."""


def matched_state(saved: Mapping[str, Any], groups: Sequence[Group], layouts: Sequence[Layout] = ()) -> Matched:
    """Arrange a saved optimizer state by the groups of today.

    Args:
        saved: what `Optimizer.state_dict` returned.
        groups: the groups of the optimizer that is to load it, with `param_names`.
        layouts: how a state without names may have been grouped.

    Raises:
        GammaRegError: see `match_by_name`.
    """
    before = _saved_groups(saved)
    shapes = {n: tuple(p.shape) for g in groups for n, p in zip(g["param_names"], g["params"], strict=True)}
    names = _names(before, shapes)
    if names is None:
        own = Layout(label="this run", groups=[group["param_names"] for group in groups], decays=_decays(groups))
        names = nameless(before, saved["state"], (*layouts, own), shapes)
    home = {name: (i, before[i]["params"][j]) for i, group in enumerate(names) for j, name in enumerate(group)}
    _check_names(shapes.keys(), home)
    if alike := [name for name in shapes if name.startswith(f"{UNNAMED}2 ")]:
        raise GammaRegError(
            f"Expected a name for every parameter that is not the model's, found several without one "
            f"{', '.join(name.removeprefix(f'{UNNAMED}2 ') for name in alike)}: which state is whose can't be told. "
            "Make the groups with pairs of name and parameter, and start from the checkpoint's weights."
        )
    infinite = _checked({name: saved["state"].get(key) for name, (_, key) in home.items()}, shapes)
    # Groups of today's that torch.distributed.checkpoint made: whose settings they hold, only their own list says.
    told = (
        {name: group for group in before for name in group.get("param_names") or ()} if _keyed_by_name(before) else {}
    )
    was = {name: told.get(name, {}) if told else before[i] for name, (i, _) in home.items()}
    arranged = []
    for group in groups:
        sources = list({id(was[name]): was[name] for name in group["param_names"]}.values())
        options = {key: value for key, value in group.items() if key not in OWN}
        for key in [key for key in sources[0] if key not in OWN] if sources else []:
            if all(key in source and _same(source[key], sources[0][key]) for source in sources):
                options[key] = sources[0][key]
        own_options = {key: group[key] for key in OWN if key in group}
        arranged.append(options | own_options | {"params": [home[name][1] for name in group["param_names"]]})
    origin = Origin(
        number=len(before), sources=[sorted({home[name][0] for name in group["param_names"]}) for group in groups]
    )
    return Matched(
        state={**saved, "param_groups": arranged},
        moved=_moved(groups, was),
        infinite=infinite,
        origin=None if told else origin,
    )


def _saved_groups(saved: Any) -> list[Group]:
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    whole = isinstance(groups, list) and all(
        isinstance(g, Mapping) and isinstance(g.get("params"), list) for g in groups
    )
    if not whole or not isinstance(saved.get("state"), Mapping):
        found = f"one that holds {some(saved)}" if isinstance(saved, Mapping) else type(saved).__name__
        raise GammaRegError(
            f"Expected the state of an optimizer, a dictionary of `state` and `param_groups`, found {found}. Resume "
            "from a checkpoint that an optimizer's state_dict() was saved to."
        )
    return [dict(group) for group in groups or ()]


def named_groups(saved: Mapping[str, Any], known: Collection[str]) -> tuple[list[Group], list[list[str]]]:
    """The groups of a saved optimizer state, and the names of their members.

    Raises:
        GammaRegError: if they carry none.
    """
    groups = _saved_groups(saved)
    if (names := _names(groups, known)) is None:
        raise GammaRegError(
            "Expected an optimizer state whose groups name their parameters, as hf_gammareg's do, found one without "
            "`param_names`. It is a plain one: load it as it is."
        )
    return groups, names


def _names(groups: Sequence[Group], known: Collection[str]) -> list[list[str]] | None:
    """The names that a state carries, as this run has them, or None."""
    if groups and _keyed_by_name(groups):
        groups = [{"params": group["params"], "param_names": group["params"]} for group in groups]
    if not all(isinstance(g.get("param_names"), list) and len(g["param_names"]) == len(g["params"]) for g in groups):
        return None
    names = iter(as_known([name for group in groups for name in group["param_names"]], known))
    return [list(itertools.islice(names, len(group["params"]))) for group in groups]


def _keyed_by_name(groups: Sequence[Group]) -> bool:
    """Whether a state names its parameters as torch.distributed.checkpoint does: in place of their numbers."""
    return all(isinstance(key, str) for group in groups for key in group["params"])


def _decays(groups: Sequence[Group]) -> list[bool | None]:
    known = any(group.get("weight_decay") for group in groups)
    return [bool(group["weight_decay"]) if known and "weight_decay" in group else None for group in groups]


def _check_names(wanted: Set[str], found: Mapping[str, Any]) -> None:
    missing, left = wanted - found.keys(), found.keys() - wanted
    if missing or left:
        lacks = f"none for {some(missing)}" if missing else ""
        extra = f"state of {some(left)}, which this optimizer does not have" if left else ""
        raise GammaRegError(
            f"Expected optimizer state of the {len(wanted)} parameters of this run, found "
            f"{' and '.join(filter(None, (lacks, extra)))}. Resume with the model and the frozen layers that the "
            "checkpoint was saved with."
        )


def _checked(state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The names whose state holds infinite values; shapes that don't fit and nan are errors."""
    infinite = []
    for name, entry in state.items():
        for field, value in entry.items() if isinstance(entry, Mapping) else ():
            if not isinstance(value, torch.Tensor):
                continue
            if field in LIKE_PARAMETER and tuple(value.shape) != shapes[name]:
                raise GammaRegError(
                    f"Expected state of shape {shapes[name]} for {name!r}, found {field!r} of shape "
                    f"{tuple(value.shape)}. Resume with the model that the checkpoint was saved with."
                )
            if not value.is_floating_point() or torch.isfinite(value).all():
                continue
            if torch.isnan(value).any():
                raise GammaRegError(
                    f"Expected an optimizer state of numbers, found nan in {field!r} of {name!r}. The run had diverged "
                    "when it was saved: resume from an earlier checkpoint."
                )
            infinite.append(name)
    return infinite


def _check_class(optimizer: Optimizer, saved: Sequence[Group]) -> None:
    """Check that the settings in a state are of this optimizer's class: a state does not name the class itself."""
    own = {*optimizer.defaults, *(key for group in optimizer.param_groups for key in group)}
    others = {key for group in saved for key in group} - own
    if foreign := others & _settings_of_optimizers():
        raise GammaRegError(
            f"Expected the state of a {type(optimizer).__name__}, found one of another optimizer, with the settings "
            f"{some(foreign)}. Resume with the optimizer that the checkpoint was saved with, or start anew from its "
            "weights."
        )


def _settings_of_optimizers() -> set[str]:
    """What the constructors of all optimizers take that are loaded; a group may hold settings of the user's beside."""
    kinds, settings = [Optimizer], set[str]()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        settings |= inspect.signature(kind.__init__).parameters.keys()
    return settings


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):  # tensors of several elements
        return bool(torch.equal(torch.as_tensor(one), torch.as_tensor(other)))


def _moved(groups: Sequence[Group], was: Mapping[str, Group]) -> str:
    moves: dict[tuple[float, float], list[str]] = {}
    for group in groups:
        now: float = group.get("weight_decay", 0.0)
        for name in group["param_names"]:
            before: float = was[name].get("weight_decay", now)
            if before != now:
                moves.setdefault((before, now), []).append(name)
    return ", ".join(
        f"weight decay {old:g} becomes {new:g} for {some(names)}" for (old, new), names in sorted(moves.items())
    )


def inner_optimizers(optimizer: Any) -> Iterator[Optimizer]:
    """The optimizers that an optimizer holds, each once; timm's Lookahead shares the groups of the one it holds."""
    seen: set[int] = set()
    for value in list(getattr(optimizer, "__dict__", {}).values()):
        entries = (
            value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        )
        for entry in entries:
            if isinstance(entry, Optimizer) and entry is not optimizer and id(entry) not in seen:
                seen.add(id(entry))
                yield from inner_optimizers(entry) if any(inner_optimizers(entry)) else [entry]
