"""Looking leaves no trace: what a forward pass may change, put back."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn

QUIET_OPTIONS = ("use_cache", "output_attentions", "output_hidden_states")
"""Options of transformers configurations that add inner values to the outputs, where no loss reads them."""

FORWARD_HOOKS = ("torch.", "timm.", "transformers.utils.output_capturing")
"""Homes of hooks that a model needs: `torch.nn.utils.weight_norm`, timm's features, transformers' backbones."""

CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
"""What a module may keep things in."""

MANY = 10_000
"""A container of more items holds data, and no containers that a forward pass changes."""


@contextlib.contextmanager
def untouched(model: nn.Module, hooks: str = "own") -> Iterator[None]:
    """Restore every attribute of every module and what it holds, and the RNG states, on the way out.

    Args:
        model: any model.
        hooks: `own`: hooks of users rest meanwhile, those that are part of the forward pass work; `all` work.
    """
    saved = [(module, dict(module.__dict__)) for module in model.modules()]
    containers, objects, generators = _held(value for _, state in saved for value in state.values())
    objects += [*model.parameters(), *model.buffers()]
    attributes = [(value, dict(vars(value))) for value in objects]
    contents = [(value, value.copy()) for value in containers]
    states = [(generator, _state(generator)) for generator in generators]
    options = _loud_options(state["config"] for _, state in saved if state.get("config") is not None)
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    mine = {id(value) for value in (*containers, *objects, *model.modules())}
    try:
        for module, state in saved:
            for kept in (state["_forward_hooks"], state["_forward_pre_hooks"]) if hooks == "own" else ():
                for key in [key for key, hook in kept.items() if not _of_forward(hook, mine)]:
                    del kept[key]
            if state.get("gradient_checkpointing") is True:
                module.__dict__["gradient_checkpointing"] = False
        for config, name, _ in options:
            with contextlib.suppress(Exception):  # frozen
                setattr(config, name, False)
        with same_random_state():
            yield
    finally:
        for config, name, value in options:
            with contextlib.suppress(Exception):
                setattr(config, name, value)
        for parameter, requires_grad in trainable:
            parameter.requires_grad = requires_grad
        for owner, state in (*saved, *attributes):
            owner.__dict__.clear()
            owner.__dict__.update(state)
        for value, before in contents:
            value.clear()
            (value.extend if isinstance(value, list | deque) else value.update)(before)
        for generator, before in states:
            _set_state(generator, before)


def _loud_options(configs: Iterable[Any]) -> list[tuple[Any, str, Any]]:
    """The options among `QUIET_OPTIONS` that are on, whatever a configuration is: it may be a user's own."""
    found = []
    for config in {id(config): config for config in configs}.values():
        for name in QUIET_OPTIONS:
            with contextlib.suppress(Exception):
                if value := getattr(config, name, None):
                    found.append((config, name, value))
    return found


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Restore Python's, NumPy's (where it is loaded) and torch's generators on the way out: looking changes no run."""
    python_state, numpy = random.getstate(), sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        # Asking for the state of a GPU's generator would initialise CUDA.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)):
            yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)


def hooks_rest(model: nn.Module) -> bool:
    """Whether a hook of a user rests while a model is traced.

    >>> model = nn.Linear(2, 2)
    >>> _ = model.register_forward_hook(print)
    >>> hooks_rest(model)
    True
    """
    with untouched(model):
        working = _hooks(model)
    return _hooks(model) > working


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def _held(values: Iterable[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """The containers among what modules hold, and in these; objects that have attributes, and random generators."""
    containers: dict[int, Any] = {}
    objects: dict[int, Any] = {}
    generators: dict[int, Any] = {}
    stack = [(value, True) for value in values]
    while stack:
        value, close = stack.pop()
        key = id(value)
        if type(value) in CONTAINERS and key not in containers:
            containers[key] = value
            items = value.values() if isinstance(value, dict) else value
            stack += [(item, close) for item in items] if len(value) < MANY else []
        elif _state(value) is not None:
            generators[key] = value
        elif close and key not in objects and _is_plain_object(value):
            objects[key] = value
            stack += [(item, False) for item in vars(value).values()]
    return list(containers.values()), list(objects.values()), list(generators.values())


def _is_plain_object(value: Any) -> bool:
    known = isinstance(value, nn.Module | torch.Tensor | type | ModuleType) or callable(value)
    return not known and type(getattr(value, "__dict__", None)) is dict


def _state(generator: Any) -> Any:
    """The state of a generator of Python, NumPy or torch; None for anything else."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    bits = getattr(generator, "bit_generator", None) if type(generator).__module__.startswith("numpy.random") else None
    return bits and bits.state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _of_forward(hook: Any, mine: set[int]) -> bool:
    """Whether a hook is part of the forward pass: it computes a weight, or keeps what the model goes on with.

    Such is a hook of a library that says so, and one that has a hold of a module of the model, or of what one holds
    (a table of features, an object that stores one).
    """
    hook = getattr(hook, "func", hook)  # what a functools.partial calls
    home = getattr(hook, "__module__", None) or type(hook).__module__
    if home.startswith(FORWARD_HOOKS):
        return True
    function = getattr(hook, "__func__", hook)
    code = getattr(function, "__code__", None)
    reached = [hook, getattr(hook, "__self__", None), *(getattr(function, "__defaults__", None) or ())]
    if code is not None:
        reached += [cell.cell_contents for cell in function.__closure__ or () if cell != type(cell)()]
        reached += [function.__globals__.get(name) for name in code.co_names]
    return any(id(value) in mine for value in reached)
