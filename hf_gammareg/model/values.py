"""Whole values of parameters, wherever an engine keeps them: one process, DDP, FSDP 1 and 2, DeepSpeed ZeRO-3."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.whole import unwrapped


def whole_values(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """Copy parameters to the CPU, whole, in the order of `names`.

    Where they are sharded this is a collective operation: call it on every rank, outside forward and backward passes.
    Every rank gets all values.

    >>> {name: value.tolist() for name, value in whole_values(nn.LayerNorm(2), ["weight"]).items()}
    {'weight': [1.0, 1.0]}

    Args:
        model: a model, wrapped and sharded or not.
        names: canonical names of parameters (see `hf_gammareg.model.names`).

    Returns:
        By name a flat float32 tensor on the CPU that shares no memory with the model.

    Raises:
        GammaRegError: if the model has no parameter of one of the names, or has it on the meta device.
    """
    found: dict[str, Tensor] = {}
    for unit, context in _units(model):
        with context:
            here = {id(parameter) for parameter in unit.parameters()} - _of_inner_units(unit)
            live = {
                name: parameter
                for name, parameter in parameter_names(model).parameters.items()
                if name in names and name not in found and id(parameter) in here
            }
            with _gathered(list(live.values())):
                found |= _on_cpu({name: _full(parameter) for name, parameter in live.items()})
    if missing := set(names) - found.keys():
        present = [name for name in parameter_names(model).parameters if name.endswith("weight")]
        raise GammaRegError(
            f"Expected a model with the parameters that were analysed, found none called {some(missing)} (it has "
            f"{some(present)}). Pass the model whose gammas were found, wrapped or not."
        )
    return {name: found[name] for name in names}


def state(model: nn.Module) -> dict[str, Tensor]:
    """The live parameters of a model by canonical name, and its buffers by every name in it and inside its wrappers.

    >>> sorted(state(nn.BatchNorm1d(2)))
    ['bias', 'num_batches_tracked', 'running_mean', 'running_var', 'weight']
    """
    buffers = {
        name: buffer
        for holder in (model, unwrapped(model))
        for name, buffer in holder.named_buffers(remove_duplicate=False)
    }
    return {**parameter_names(model).parameters, **buffers}


def sharded(model: nn.Module) -> bool:
    """Whether a process holds only parts of the model's parameters."""
    return any(_is_fsdp1(module) for module in model.modules()) or any(
        hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id") for parameter in model.parameters()
    )


def is_main_process() -> bool:
    """Whether this process is the one that writes files: rank 0, or the only one."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def _units(model: nn.Module) -> Iterator[tuple[nn.Module, AbstractContextManager[Any]]]:
    """Parts of a model, the outer ones first, each with what makes its own parameters whole meanwhile."""
    units = [module for module in model.modules() if _is_fsdp1(module)]
    if not units:
        yield model, contextlib.nullcontext()
        return
    from torch.distributed.fsdp import FullyShardedDataParallel

    for unit in units:
        yield unit, FullyShardedDataParallel.summon_full_params(unit, recurse=False, writeback=False)


def _of_inner_units(unit: nn.Module) -> set[int]:
    """The parameters of FSDP1 units inside this one, which are whole only while those are."""
    inner = [module for module in unit.modules() if _is_fsdp1(module) and module is not unit]
    return {id(parameter) for module in inner for parameter in module.parameters()}


def _is_fsdp1(module: nn.Module) -> bool:
    return type(module).__name__ == "FullyShardedDataParallel"


def _gathered(parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(partitioned)


def _full(parameter: Tensor) -> Tensor:
    """A DTensor's value on all ranks; any other tensor itself."""
    value: Any = parameter.detach()
    if not hasattr(value, "full_tensor"):
        return value
    if value.device.type != value.device_mesh.device_type:  # offloaded: its process group may not take CPU tensors
        value = value.to(value.device_mesh.device_type)
    return value.full_tensor()


def _on_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, with one transfer from each device."""
    if any(value.is_meta for value in values.values()):
        raise GammaRegError(
            "Expected parameters with values, found some on the meta device. Load the model's weights first."
        )
    by_device: dict[torch.device, list[str]] = {}
    for name, value in values.items():
        by_device.setdefault(value.device, []).append(name)
    copied: dict[str, Tensor] = {}
    for members in by_device.values():
        joined = torch.cat([values[name].reshape(-1).float() for name in members]).cpu()
        sizes = [values[name].numel() for name in members]
        copied |= dict(zip(members, joined.split(sizes), strict=True))
    return copied
