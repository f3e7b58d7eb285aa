"""Integers that are known while a model is traced: what it decides by ids, grids and lengths is decided, not guarded.

Tracing uses tensors that have a shape but no values. A model that asks for a value (how many patches an image has,
whether a row holds padding, whether LayerDrop skips a layer) can't be traced so. Most of these questions are about
integers that the caller chose. Here they are computed for real, on the CPU, beside the trace; where they meet the
network's activations they enter it as constants.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map, tree_map_only

FACTORIES = frozenset({torch.arange, torch.zeros, torch.ones, torch.full, torch.tensor, torch.as_tensor, torch.empty})
"""Functions that make tensors of sizes and numbers; what they make of integers and booleans is known."""


FINITE = {torch.isfinite: True, torch.isinf: False, torch.isnan: False, Tensor.isinf: False, Tensor.isnan: False}
"""Questions that models ask to guard against overflow, and their answers."""

LIKE = {Tensor.expand_as: Tensor.expand, Tensor.view_as: Tensor.view, Tensor.reshape_as: Tensor.reshape}
"""Methods that read another tensor's shape only, and what they amount to."""


@contextlib.contextmanager
def integers_known(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], device: torch.device
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Within this context `model` exports with its integer inputs known, as constants of its forward.

    Args:
        model: traced within the context; its `forward` is replaced meanwhile.
        args, kwargs: inputs; integer and boolean tensors must lie on the CPU, since their values are used.
        device: the device of the model's parameters.

    Yields:
        `(args, kwargs)` to export the model with: the floating point tensors alone.
    """
    leaves, spec = torch.utils._pytree.tree_flatten((tuple(args), dict(kwargs)))
    floats = {
        f"input_{i}": leaf.to(device)
        for i, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    }
    forward = model.forward

    def known_forward(**inputs: Tensor) -> Any:
        filled = [inputs.get(f"input_{i}", leaf) for i, leaf in enumerate(leaves)]
        positional, keywords = torch.utils._pytree.tree_unflatten(filled, spec)
        with KnownIntegers(device):
            return forward(*positional, **keywords)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    known_forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in floats])  # type: ignore[attr-defined]
    had = model.__dict__.get("forward")
    model.__dict__["forward"] = known_forward
    try:
        yield (), floats
    finally:
        del model.__dict__["forward"]
        if had is not None:
            model.__dict__["forward"] = had


class KnownIntegers(TorchFunctionMode):
    """While active, calls on known tensors alone run for real; known tensors that meet others become constants.

    Known are plain CPU tensors that the caller's closure holds, integers, booleans and masks of ones that the forward
    pass makes of sizes and numbers, and what is computed from known tensors. Two answers are given for good:
    LayerDrop's random number is 1, so no layer is skipped, and activations are finite.

    Example:
        >>> rows = torch.empty(5, 2, device="meta")
        >>> with KnownIntegers(torch.device("meta")):
        ...     lengths = torch.tensor([2, 3])
        ...     print([part.shape[0] for part in rows.split(lengths.tolist())])
        [2, 3]

    Args:
        device: the device of the model's parameters.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
        if tensors and all(map(_is_known, tensors)):
            return _computed(func, args, kwargs)
        if func in FACTORIES and not tensors:
            made = _computed(func, args, kwargs) if _is_small(args) else None
            if made is not None and (func is torch.ones or not made.is_floating_point()):
                return made
        if func is torch.empty and args == (1,):
            return _computed(torch.zeros, (1,), {})  # drawn from in place, to choose an image size
        if func is torch.rand and args and args[0] in ([], ()):
            return _computed(torch.ones, ((),), {})
        if func in FINITE:
            return _computed(torch.full, (tensors[0].shape, FINITE[func]), {})
        if func in LIKE and _is_known(tensors[0]):
            return _computed(LIKE[func], (tensors[0], tensors[1].shape), {})
        args, kwargs = self._entering(func, args, kwargs)
        return func(*args, **kwargs)

    def _entering(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Arguments for a call that the trace records: known tensors as constants, on the model's device."""
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], _positions(args[1]), *args[2:])

        def enter(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and _is_known(leaf):
                return torch.tensor(_computed(Tensor.tolist, (leaf,), {}), dtype=leaf.dtype, device=self.device)
            if (
                leaf == torch.device("cpu")
                if isinstance(leaf, torch.device)
                else leaf == "cpu" and isinstance(leaf, str)
            ):
                return self.device
            return leaf

        return tree_map(enter, (args, kwargs))


def _is_known(tensor: Tensor) -> bool:
    plain = type(tensor) is Tensor and tensor.device.type == "cpu"
    return plain and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _is_small(args: Any) -> bool:
    sizes = [leaf for leaf in tree_iter(args) if isinstance(leaf, int)]
    return all(size < 1 << 20 for size in sizes)


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    on_cpu = {**kwargs, "device": "cpu"} if kwargs.get("device") is not None else kwargs
    args = tree_map_only(torch.device, lambda device: torch.device("cpu"), args)
    with _real():
        return func(*args, **on_cpu)


@contextlib.contextmanager
def _real() -> Iterator[None]:
    """Within this context ops run on real values; what keeps an eye on them still does."""
    with _disable_current_modes() as modes, contextlib.ExitStack() as stack:
        for mode in reversed(modes):
            if not mode.is_infra_mode():
                stack.enter_context(mode)
        yield


def _positions(index: Any) -> Any:
    """An index whose boolean masks are replaced by the positions that they select: those have a known number."""
    if isinstance(index, Tensor):
        index = (index,)
    if not isinstance(index, tuple):
        return index
    parts: list[Any] = []
    for part in index:
        if isinstance(part, Tensor) and _is_known(part) and part.dtype is torch.bool:
            with _real():
                parts += part.nonzero(as_tuple=True)
        else:
            parts.append(part)
    return tuple(parts)
