"""A model whose parameters DeepSpeed ZeRO-3 has partitioned, whole again on the meta device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError


def whole(model: nn.Module) -> nn.Module:
    """The model itself, or where ZeRO-3 has partitioned its parameters, one to trace in its place.

    Under `deepspeed.zero.Init` (which `from_pretrained` enters by itself) each live parameter is an empty tensor that
    remembers its shape. The stand-in is the same model, adapters and all, with parameters and buffers of the full
    shapes on the meta device; where a model can't be copied, it is built anew from its configuration, on meta too.

    >>> model = nn.Linear(2, 3)
    >>> whole(model) is model
    True

    Args:
        model: any model. It stays as it is; nothing is gathered, so no rank waits for another.

    Returns:
        A model with the names and the frozen parameters of the given one.

    Raises:
        GammaRegError: if a partitioned model can neither be copied nor built from its configuration.
    """
    parts = {id(parameter): parameter for parameter in model.parameters() if _partitioned(parameter)}
    if not parts:
        return model
    try:
        # What the memo holds is what the copy gets.
        memo: dict[int, Any] = {id(parameter): _on_meta(parameter) for parameter in model.parameters()}
        memo |= {id(buffer): buffer.detach().to("meta") for buffer in model.buffers()}
        return copy.deepcopy(model, memo)
    except Exception as error:
        return _from_configuration(model, error)


def _partitioned(parameter: nn.Parameter) -> bool:
    return hasattr(parameter, "ds_shape") and tuple(parameter.shape) != tuple(parameter.ds_shape)


def _on_meta(parameter: nn.Parameter) -> nn.Parameter:
    shape = getattr(parameter, "ds_shape", parameter.shape)
    return nn.Parameter(torch.empty(shape, dtype=parameter.dtype, device="meta"), parameter.requires_grad)


def _from_configuration(model: nn.Module, error: Exception) -> nn.Module:
    config: Any = getattr(model, "config", None)
    frozen = {name: not parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        # set_zero3_state keeps transformers from partitioning the parts that it builds from configurations of theirs.
        from transformers.modeling_utils import set_zero3_state

        from hf_gammareg.sources import build_on

        with set_zero3_state():
            built = build_on(lambda: type(model)(copy.deepcopy(config)), "meta")
        if dict(built.named_parameters()).keys() != frozen.keys():
            raise ValueError("its configuration builds a model with other parameters")
    except Exception as cause:
        raise GammaRegError(
            f"Expected a model partitioned by DeepSpeed ZeRO-3 that can be copied ({type(error).__name__}: {error}) or "
            f"built from its configuration, found neither ({type(cause).__name__}: {cause}). Find the gammas of the "
            "model before it is partitioned, and pass them on as `gammas`."
        ) from error
    for name, parameter in built.named_parameters():
        parameter.requires_grad_(not frozen[name])
    return built
