"""Parameter names: the same whatever wraps the model, and the same for every layer of a kind."""

import re
from collections.abc import Mapping
from typing import TypeVar

_Value = TypeVar("_Value")

_ANYWHERE = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")
"""Names that FSDP, `torch.compile` and activation checkpointing put on the way to any submodule."""

_AT_ROOT = ("module.", "base_model.model.")
"""Prefixes of DDP and PEFT, which wrap the whole model. Inside a model these are ordinary names."""


def canonical_name(name: str) -> str:
    """Strip what DDP, FSDP, `torch.compile`, activation checkpointing and PEFT put into a parameter's name.

    >>> canonical_name("module._orig_mod.layer1._checkpoint_wrapped_module.bn1.weight")
    'layer1.bn1.weight'
    >>> canonical_name("submodule.module.weight")
    'submodule.module.weight'
    """
    name = ".".join(part for part in name.split(".") if part not in _ANYWHERE)
    while name.startswith(_AT_ROOT):
        name = next(name.removeprefix(prefix) for prefix in _AT_ROOT if name.startswith(prefix))
    return name


def by_canonical_name(values: Mapping[str, _Value]) -> dict[str, _Value]:
    """The same mapping with canonical names as keys."""
    return {canonical_name(name): value for name, value in values.items()}


def place(name: str) -> str:
    """A parameter's name with its layers' numbers left out, save a number in a layer's own name.

    >>> place("layer1.0.bn1.weight")
    'layer*.*.bn1.weight'
    """
    *path, layer, parameter = ["", *name.split(".")]
    return ".".join([re.sub(r"\d+", "*", ".".join(path)), "*" if layer.isdigit() else layer, parameter]).lstrip(".")
