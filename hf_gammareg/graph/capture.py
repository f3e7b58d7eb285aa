"""From a model to its exported program, by `torch.export` on fake tensors: nothing is computed."""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from hf_gammareg.errors import GammaRegError
from hf_gammareg.model.known import integers_known
from hf_gammareg.model.values import state
from hf_gammareg.model.whole import placement
from hf_gammareg.quiet import quiet

QUIET_OPTIONS = ("use_cache", "output_attentions", "output_hidden_states")
"""Options of transformers configurations that add inner values to the outputs, where no loss reads them."""

FORWARD_HOOKS = ("torch.", "timm.", "transformers.utils.output_capturing")
"""Homes of hooks that a model needs: `torch.nn.utils.weight_norm`, timm's features, transformers' backbones."""


def trace(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[torch.export.ExportedProgram, str]:
    """Export a model: in train mode, else in eval mode, else with its integers known, else along one path.

    Tensors have no values while a model is exported. One that asks for the values of its integers is exported with
    these as constants (see `hf_gammareg.model.known`). What remains is `torch.export.draft_export`: it computes on a
    copy with the values of the inputs, so it needs a model with real parameters, and what it finds holds for the one
    path that these inputs take. A model that refuses its inputs in both modes is not traced again.

    The model is as before when this returns: modes, buffers, hooks, attributes and RNG state are restored.

    Args:
        model: any model, on any device, `meta` included.
        args, kwargs: example inputs on the model's device, or with values on the CPU for a model on `meta`.

    Returns:
        The program, which shares the model's parameters, and how it was had, for the report.

    Raises:
        GammaRegError: if these are not the arguments of the model's forward; nothing is traced then.
        Exception: whatever `torch.export` raised in train mode, where nothing else worked either.
    """
    _check_arguments(model, args, kwargs)
    failures: list[Exception] = []
    with untouched(model), quiet(), torch.no_grad():
        for known, mode in product((False, True), ("train", "eval")):
            try:
                model.train(mode == "train")  # asked, not set: a model may keep its norms frozen
                program = _export_known(model, args, kwargs) if known else _export(model, args, kwargs)
                return program, f"export ({mode} mode{', integers known' if known else ''})"
            except Exception as error:
                failures.append(error)
            if _refused(failures):
                raise failures[0]
        for mode in ("train", "eval") if placement(model)[0].type != "meta" else ():
            try:
                replica = copy.deepcopy(model).train(mode == "train")
                program = torch.export.draft_export(replica, args, dict(kwargs), strict=False)
                live = state(model)
                program.state_dict.update({name: live[name] for name in program.state_dict if name in live})
                return program, f"draft export ({mode} mode, one path)"
            except Exception as error:
                failures.append(error)
    raise failures[0]


def _check_arguments(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse what the model's forward can't be called with: no other way to export would help."""
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise GammaRegError(
            f"Expected example inputs that {type(model).__name__}.forward takes, found others ({error}). Pass what you "
            "would pass to the model."
        ) from error
    except ValueError:  # a model that torch.jit traced does not tell its signature
        return


def _refused(failures: list[Exception]) -> bool:
    """Whether the model itself said no to its inputs, in either mode: what tracing cannot do is no ValueError."""
    return len(failures) == 2 and {(type(error), str(error)) for error in failures} == {(ValueError, str(failures[0]))}


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.export.ExportedProgram:
    if placement(model)[0].type == "meta":
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), (args, dict(kwargs)))
    return torch.export.export(model, args, dict(kwargs), strict=False)


def _export_known(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.export.ExportedProgram:
    def with_values(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.is_floating_point() or tensor.is_meta else tensor.cpu()

    args, kwargs = tree_map_only(torch.Tensor, with_values, (args, dict(kwargs)))
    with integers_known(model, args, kwargs, placement(model)[0]) as (args, kwargs):
        return torch.export.export(model, args, dict(kwargs), strict=False)


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore every attribute of every module, and the RNG states, on the way out; hooks of users rest meanwhile."""
    saved = [(module, dict(module.__dict__)) for module in model.modules()]
    containers = [
        (value, value.copy())
        for _, state in saved
        for value in state.values()
        if type(value) in (dict, OrderedDict, list, set)
    ]
    configs = {id(config): config for module, _ in saved if (config := getattr(module, "config", None)) is not None}
    options = [
        (config, name, value)
        for config in configs.values()
        for name in QUIET_OPTIONS
        if (value := getattr(config, name, None))
    ]
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for module, state in saved:
            for hooks in (state["_forward_hooks"], state["_forward_pre_hooks"]):
                for key in [key for key, hook in hooks.items() if not _of_forward(hook)]:
                    del hooks[key]
            if state.get("gradient_checkpointing") is True:
                module.__dict__["gradient_checkpointing"] = False
        for config, name, _ in options:
            setattr(config, name, False)
        with same_random_state():
            yield
    finally:
        for config, name, value in options:
            setattr(config, name, value)
        for parameter, requires_grad in trainable:
            parameter.requires_grad = requires_grad
        for module, state in saved:
            module.__dict__.clear()
            module.__dict__.update(state)
        for value, before in containers:
            if isinstance(value, list):
                value[:] = before
            else:
                value.clear()
                value.update(before)


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Restore Python's, NumPy's (where it is loaded) and torch's generators on the way out: looking changes no run."""
    python_state, numpy = random.getstate(), sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)


def _of_forward(hook: Any) -> bool:
    """Whether a hook is part of the forward pass: it computes a weight, or collects what the model goes on with."""
    hook = getattr(hook, "func", hook)  # what a functools.partial calls
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return home.startswith(FORWARD_HOOKS)
