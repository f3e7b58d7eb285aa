"""What a forward pass writes to memory that was there before is taken back."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves


@contextmanager
def taken_back(model: nn.Module, inputs: Iterable[Tensor] = ()) -> Iterator[Writes]:
    """On the way out all memory holds what it held, and the model's tensors have the versions that they had.

    >>> norm = nn.BatchNorm1d(2)
    >>> with taken_back(norm):
    ...     norm(torch.randn(4, 2)).shape, int(norm.num_batches_tracked)
    (torch.Size([4, 2]), 1)
    >>> int(norm.num_batches_tracked)
    0

    Args:
        model: any model.
        inputs: copies, which may be written over.
    """
    tensors = unique((*model.parameters(), *model.buffers(), *_attributes(model)))
    versioned = tuple(tensor for tensor in tensors if not tensor.is_inference())
    writes = Writes(inputs)
    with torch.autograd._unsafe_preserve_version_counter(versioned):
        try:
            with writes:
                yield writes
        finally:
            writes.take_back()


class Writes(TorchDispatchMode):
    """Copies memory that was there before, when an op is about to write to it: nothing else is copied."""

    def __init__(self, inputs: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.born = {storage_of(tensor) for tensor in inputs}
        """Memory of this run."""
        self.before: dict[StorageWeakRef, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        """Memory that was there before and was written to, and what it held."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place, name in written(func):
            for tensor in _tensors(args[place] if place < len(args) else kwargs.get(name)):
                key = storage_of(tensor)
                if key is not None and key not in self.born and key not in self.before:
                    storage = tensor.untyped_storage()
                    with _disable_current_modes():
                        self.before[key] = storage, storage.clone()
        old = {key for tensor in _tensors((args, kwargs)) if (key := storage_of(tensor)) not in self.born}
        made = func(*args, **kwargs)
        self.born |= {storage_of(tensor) for tensor in _tensors(made)} - old
        return made

    def take_back(self) -> None:
        """Write what it held to all memory that was written to."""
        for storage, held in self.before.values():
            if storage.nbytes() != held.nbytes():
                storage.resize_(held.nbytes())
            storage.copy_(held)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


@functools.cache
def written(func: Any) -> tuple[tuple[int, str], ...]:
    """Places and names of the arguments that an op writes to. Batch norms do not declare that they do."""
    return tuple(
        (place, argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if (argument.alias_info is not None and argument.alias_info.is_write)
        or argument.name in ("running_mean", "running_var")
    )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in containers and objects, however nested: not those of modules."""
    seen: set[int] = set()
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value
        elif not isinstance(value, str | bytes | int | float | type | nn.Module) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Mapping):
                stack += reversed(list(value.values()))
            elif isinstance(value, list | tuple | set | frozenset):
                stack += reversed(list(value))
            elif not callable(value):
                stack += reversed(list(getattr(value, "__dict__", {}).values()))


def _attributes(model: nn.Module) -> Iterable[Tensor]:
    """Tensors that modules hold which are neither parameters nor buffers."""
    own = ("_parameters", "_buffers", "_modules")
    return unique(
        tensor
        for module in model.modules()
        for tensor in tensors_in([value for name, value in vars(module).items() if name not in own])
    )


def unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each tensor once."""
    return list({id(tensor): tensor for tensor in tensors}.values())


def storage_of(tensor: Tensor) -> StorageWeakRef | None:
    """What tells whether two tensors share memory, for good: no other memory is equal to it, even when this is freed.

    None for a tensor that has no memory of its own.
    """
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout is not torch.strided:
        return None
    return StorageWeakRef(tensor.untyped_storage())
