"""Parameter names: the same whatever wraps the model, and the same for every layer of a kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.model.whole import wraps


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The parameters of a model by canonical name: the one that each has in the model inside its wrappers."""

    parameters: Mapping[str, nn.Parameter]
    """In model order, each once: a shared one goes by the first of its names."""
    by_id: Mapping[int, str]
    """The canonical name of the parameter with this `id`."""
    live: Mapping[str, str]
    """The canonical name for each path from the model to a parameter, through wrappers and by every way to a shared
    one: mostly what `named_parameters(remove_duplicate=False)` calls it."""

    def canonical(self, names: Sequence[str]) -> list[str]:
        """These names as canonical ones: they are, or the live model's, or those of this model in other wrappers."""
        if all(name in self.parameters for name in names):
            return list(names)
        return as_known([self.live.get(name, name) for name in names], self.parameters)

    def called_in(self, other: Names) -> dict[str, str]:
        """For each path here what another model calls the parameter; "" for one that it does not have.

        A loss may hold the model that it is of. Of models that share nothing (a shard of the other) the names decide.

        >>> model = nn.Linear(1, 1, bias=False)
        >>> loss = nn.ModuleDict({"model": model, "own": nn.Linear(1, 1, bias=False)})
        >>> parameter_names(loss).called_in(parameter_names(model))
        {'model.weight': 'weight', 'own.weight': ''}
        """
        if not self.by_id.keys() & other.by_id.keys():
            return dict(self.live)
        return {path: other.by_id.get(id(self.parameters[name]), "") for path, name in self.live.items()}


def parameter_names(model: nn.Module) -> Names:
    """Name the parameters of a model as they are called where nothing wraps it or parts of it.

    What counts is the class of a module, not what it is called: see `hf_gammareg.model.whole.WRAPPERS`. What a wrapper
    has beside the model that it wraps (PEFT's `prompt_encoder`) goes by its name in the wrapper.

    >>> model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    >>> list(parameter_names(nn.DataParallel(model)).parameters)
    ['module.weight', 'module.bias']

    Args:
        model: any model, wrapped and sharded or not. An FSDP unit without `use_orig_params` has one `_flat_param`.

    Raises:
        GammaRegError: if two parameters would get one name, or one has no shape yet.
    """
    parameters: dict[str, nn.Parameter] = {}
    by_id: dict[int, str] = {}
    live: dict[str, str] = {}
    for path, name, parameter in _walk(model, "", ""):
        if is_lazy(parameter):
            raise GammaRegError(
                f"Expected parameters that have their shapes, found {path!r} of a lazy module, which gets its shape "
                "from the first batch. Call the model once on an example, before the optimizer is made."
            )
        if id(parameter) not in by_id:
            if name in parameters:
                raise GammaRegError(
                    f"Expected a name of its own for each parameter, found two called {name!r} once the wrappers' "
                    f"names are left out, one of them {path!r}. Rename what one of them is an attribute of."
                )
            parameters[name], by_id[id(parameter)] = parameter, name
        live[path] = by_id[id(parameter)]
    return Names(parameters=parameters, by_id=by_id, live=live)


def _walk(module: nn.Module, path: str, name: str) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Every parameter, in the order of `named_parameters`, with its path and that without wrappers."""
    for own, parameter in module._parameters.items():
        if parameter is not None:
            yield path + own, name + own, parameter
    inner = wraps(module)
    for own, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{path}{own}.", name if own == inner else f"{name}{own}.")


UNNAMED = "unnamed parameter "
"""What begins the name of a parameter that is not the model's and that nobody named; its shape ends it."""


def member_names(groups: Iterable[Mapping[str, Any]], names: Names) -> list[list[str]]:
    """The names of the parameters in an optimizer's groups: the model's, or what the caller called his own.

    >>> loss, model = nn.Linear(1, 1, bias=False), nn.Linear(2, 2, bias=False)
    >>> groups = [{"params": [model.weight]}, {"params": [loss.weight], "param_names": ["loss.weight"]}]
    >>> member_names(groups, parameter_names(model))
    [['weight'], ['loss.weight']]

    Args:
        groups: of an optimizer, or to make one from; a group's `param_names` name what is not the model's.
        names: of the model.

    Raises:
        GammaRegError: if a parameter that is not the model's has the name of one that is.
    """
    found: list[list[str]] = []
    alike: Counter[tuple[int, ...]] = Counter()
    stale: list[str] = []
    for group in groups:
        own: list[str] = []
        given = group.get("param_names") or [None] * len(group["params"])
        for parameter, called in zip(group["params"], given, strict=True):
            name = names.by_id.get(id(parameter)) or called
            if name is None:
                alike[shape := tuple(parameter.shape)] += 1
                name = f"{UNNAMED}{alike[shape]} of shape {shape}"
            if id(parameter) not in names.by_id and name in names.parameters:
                stale.append(name)
            own.append(name)
        found.append(own)
    if stale:
        raise GammaRegError(
            f"Expected the optimizer to hold the model's parameters, found others under the names {some(stale)}. If a "
            "layer was replaced, make the optimizer anew; if they are of a loss function, give them names of their own."
        )
    return found


def as_known(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Names from where no model can be asked, as `known` has them.

    A checkpoint that another library saved, or an optimizer's groups, may call parameters by what wrapped the model
    then. Of the spellings without names of wrappers this is the first that holds most of the known names; names that
    are all known stay as they are.

    >>> as_known(["module.bn.weight", "module.module.weight"], {"bn.weight", "module.weight"})
    ['bn.weight', 'module.weight']
    """
    inside = [".".join(part for part in name.split(".") if part not in _ANYWHERE) for name in names]
    spellings = [*_spellings(list(names)), *_spellings(inside)]
    apart = [spelling for spelling in spellings if len(set(spelling)) == len(set(names))]
    return max(apart, key=lambda spelling: len(set(known).intersection(spelling)))


def _spellings(names: list[str]) -> Iterator[list[str]]:
    yield names
    for prefix in _AT_ROOT:
        shorter = [name.removeprefix(prefix) for name in names]
        if shorter != names:
            yield from _spellings(shorter)


_ANYWHERE = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")
"""Names that FSDP, `torch.compile` and activation checkpointing put on the way to any submodule."""

_AT_ROOT = ("module.", "base_model.model.", "base_model.", *(f"{part}." for part in _ANYWHERE))
"""Prefixes of what wraps the whole model: DDP, PEFT, PEFT's prompt learning and those."""


def place(name: str) -> str:
    """A parameter's name with its layers' numbers left out, save a number in a layer's own name.

    >>> place("layer1.0.bn1.weight")
    'layer*.*.bn1.weight'
    """
    *path, layer, parameter = ["", *name.split(".")]
    return ".".join([re.sub(r"\d+", "*", ".".join(path)), "*" if layer.isdigit() else layer, parameter]).lstrip(".")
