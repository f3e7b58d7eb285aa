"""Quantised layers, which compute what plain layers of their shape do, up to rounding: they are traced as these."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from hf_gammareg.model.whole import placement

PLAIN = (Tensor, nn.Parameter, nn.Buffer, FakeTensor)
"""Classes of tensors that are what they hold."""

SIZES: dict[Any, tuple[str, str]] = {
    nn.Linear: ("out_features", "in_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
}
"""What layers say of the shape of their weight, by the layer of torch's that they stand for."""


@contextlib.contextmanager
def plain_layers(model: nn.Module) -> Iterator[None]:
    """Within this context the quantised layers of a model are plain ones, whose weights have a shape but no memory.

    No weight is copied, unpacked or read: in the place of a packed one stands a single zero, seen as often as there
    are weights, and the layer's forward is that of torch's own layer. Everything else is the model's own.

    >>> layer = nn.Linear(4, 2, bias=False)
    >>> layer.weight = nn.Parameter(torch.ones(4, dtype=torch.uint8), requires_grad=False)  # of 4 bits each
    >>> with plain_layers(layer):
    ...     print(layer.weight.shape, layer(torch.ones(1, 4)))
    torch.Size([2, 4]) tensor([[0., 0.]])

    Args:
        model: any model; it is as it was when the context is left.
    """
    dtype = placement(model)[1]
    found = [(layer, packing) for layer in model.modules() if (packing := _packing(layer))]
    before = [(layer, dict(vars(layer))) for layer, _ in found]
    try:
        for layer, packing in found:
            _unpack(layer, packing, dtype)
        yield
    finally:
        for layer, state in before:
            vars(layer).clear()
            vars(layer).update(state)


def is_quantised(model: nn.Module) -> bool:
    """Whether a layer of a model holds its weights packed: in a class of tensors of its own, or in narrow numbers.

    >>> is_quantised(nn.Linear(4, 2))
    False
    """
    return any(map(_packing, model.modules()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packing:
    """How a layer holds its weights."""

    packed: dict[str, Tensor]
    """The tensors that hold them."""
    shapes: dict[str, torch.Size]
    """The shapes of the weights that they hold."""
    forward: Callable[..., Any] | None
    """The forward of torch's own layer; None where the layer's own takes plain weights."""


def _packing(layer: nn.Module) -> _Packing | None:
    """How a layer holds packed weights; None for one that holds none."""
    held = {
        name: value
        for name, value in {**vars(layer), **layer._parameters, **layer._buffers}.items()
        if isinstance(value, Tensor) and not is_lazy(value) and not hasattr(value, "device_mesh")  # see `whole`
    }
    special = {name: value for name, value in held.items() if name in layer._parameters and type(value) not in PLAIN}
    homes: list[Any] = [base for base in type(layer).__mro__ if _is_of_torch(base)]
    forward = homes[0].forward if homes else None
    for kind, names in SIZES.items():
        sizes = [getattr(layer, name, None) for name in names]
        if not all(isinstance(size, int) for size in sizes):
            continue
        shape = torch.Size(sizes)  # type: ignore[arg-type]
        plain = [value for name, value in held.items() if name not in special and _is_wide(value)]
        if any(value.numel() == shape.numel() for value in plain):
            break
        narrow = {name: value for name, value in held.items() if value.dim() and _is_narrow(value)}
        # At the least a bit for each weight: what holds less is a step, a table, an index.
        bits = sum(8 * value.numel() * value.element_size() for value in narrow.values())
        if special or bits >= shape.numel() > 0:
            return _Packing(packed=special | narrow, shapes={"weight": shape}, forward=forward or kind.forward)
    shapes = {name: value.shape for name, value in special.items() if _is_wide(value)}
    packed = {name: special[name] for name in shapes}
    return _Packing(packed=packed, shapes=shapes, forward=forward) if shapes else None


def _is_of_torch(kind: type) -> bool:
    """Whether a class is a layer of torch's that has a weight."""
    return issubclass(kind, (*SIZES, _ConvNd)) and kind.__module__.startswith("torch.nn.modules.")


def _is_wide(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor are such as activations are."""
    return tensor.is_complex() or (tensor.is_floating_point() and tensor.element_size() > 1)


def _is_narrow(tensor: Tensor) -> bool:
    """Whether they are such as weights are packed in: masks and positions are others."""
    return not _is_wide(tensor) and tensor.dtype not in (torch.bool, torch.int64)


def _unpack(layer: nn.Module, packing: _Packing, dtype: torch.dtype) -> None:
    """Make a layer a plain one.

    Args:
        layer: a quantised layer.
        packing: how it holds its weights.
        dtype: of weights of which nothing tells it.
    """
    bias = getattr(layer, "bias", None)
    state = vars(layer)
    for kept in ("_parameters", "_buffers"):
        state[kept] = {name: value for name, value in state[kept].items() if name not in packing.packed}
    for name in packing.packed.keys() & state.keys():
        del state[name]
    first = next(iter(packing.packed.values()))
    for name, shape in packing.shapes.items():
        told = (tensor.dtype for tensor in (bias, packing.packed.get(name)) if tensor is not None and _is_wide(tensor))
        zero = torch.zeros((), dtype=next(told, dtype), device=first.device)
        layer._parameters[name] = nn.Parameter(zero.expand(shape), packing.packed.get(name, first).requires_grad)
    if packing.forward is None:
        return
    forward = packing.forward

    def of_torch(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Quantised layers take what they get, wherever it lies.
        weight: Any = layer.weight
        if not x.is_floating_point():
            return forward(layer, x.to(weight.device), *args, **kwargs)
        return forward(layer, x.to(weight.device, weight.dtype), *args, **kwargs).to(x.dtype)

    state["forward"] = of_torch
