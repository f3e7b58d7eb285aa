"""How a model of another library is built, and what it takes: a line of a table for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Inputs = Callable[[nn.Module], Any]
"""From a model to example inputs, in any form that `find_gammas` takes."""


class Recipe(NamedTuple):
    """How to build a model, without weights, and to make what it takes."""

    build: Callable[[], nn.Module]
    inputs: Inputs


Recipes = dict[str, Recipe]
"""The models of a library, by name."""


def made(path: str, inputs: Inputs, **options: Any) -> Recipe:
    """A recipe for a class or function, named `package.module:Name` so that a table needs no imports."""
    return Recipe(partial(_call, path, options), inputs)


def fitting(path: str, inputs: Inputs, usual: dict[str, Any], **options: Any) -> Recipe:
    """A recipe with those of the usual options that the class has, and options of its own."""

    def build() -> nn.Module:
        names = signature(found(path)).parameters
        return _call(path, {name: value for name, value in usual.items() if name in names} | options)

    return Recipe(build, inputs)


def found(path: str) -> Any:
    """What a path names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _call(path: str, options: dict[str, Any]) -> nn.Module:
    return found(path)(**options)


# --- inputs -------------------------------------------------------------------------------------------------------


def floats(*shape: int) -> Inputs:
    """Numbers of this shape, the batch included."""
    return lambda _: normal(*shape)


def images(size: int = 64, channels: int = 3) -> Inputs:
    """A batch of two square images."""
    return floats(2, channels, size, size)


def ids(vocabulary: int = 32, length: int = 16) -> Inputs:
    """Two rows of tokens."""
    return lambda _: tokens(vocabulary, length)


def given(*args: Callable[[], Any], **kwargs: Callable[[], Any]) -> Inputs:
    """Arguments by position and by name, each made by a function."""
    return lambda _: (tuple(make() for make in args), {name: make() for name, make in kwargs.items()})


def normal(*shape: int) -> Tensor:
    """Standard normal numbers, always the same ones."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tokens(vocabulary: int = 32, length: int = 16, batch: int = 2) -> Tensor:
    """Rows of tokens, always the same ones."""
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))
