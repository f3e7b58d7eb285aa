"""The form of example inputs, and numbers to put into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hf_gammareg.errors import GammaRegError, some

BATCH = 2
"""Rows in an example batch: BatchNorm in train mode needs more than one value per channel."""


Inputs = tuple[tuple[Any, ...], dict[str, Any]]

LABELS = frozenset({"label", "labels", "label_ids", "target", "targets"})
"""What data sets call what a network is to say."""


def without_labels(batch: Any) -> Any:
    """A loader's batch without its labels, for a model that does not take them; None for one that has none.

    >>> without_labels(["images", "labels"]), without_labels({"pixels": 1, "label": 2}), without_labels("images")
    ('images', {'pixels': 1}, None)
    """
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key not in LABELS} if LABELS & batch.keys() else None
    return batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else None


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
