"""The form of example inputs, and numbers to put into them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_gammareg.errors import GammaRegError, some

BATCH = 2
"""Rows in an example batch: BatchNorm in train mode needs more than one value per channel."""


Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def values(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that look like normalised data: standard normal, always the same ones.

    On the `meta` device there are no numbers. The global random number generator is not touched.
    """
    if device.type == "meta":
        return torch.empty(shape, device=device, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)


def underivable(what: str, found: object, known: list[str] | None = None) -> GammaRegError:
    """The error for a model whose inputs can't be derived: what is missing, and the way out."""
    listed = f" Known are {some(known)}." if known else ""
    return GammaRegError(
        f"Expected to derive {what} from the model's configuration, found {found}.{listed} "
        "Pass example_inputs: a dictionary of keyword arguments that the model's forward takes."
    )
