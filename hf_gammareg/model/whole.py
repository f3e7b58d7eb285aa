"""A model whose parameters are spread over ranks, by ZeRO-3 or as DTensors, whole again on the meta device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError


def whole(model: nn.Module) -> nn.Module:
    """The model itself, or where its parameters are spread over ranks, one to trace in its place.

    Under `deepspeed.zero.Init` (which `from_pretrained` enters by itself) each live parameter is an empty tensor that
    remembers its shape. The stand-in is the same model, adapters and all, with parameters and buffers of the full
    shapes on the meta device; where a model can't be copied, it is built anew from its configuration, on meta too.
    A model of DTensors (FSDP2, tensor parallel) has hooks that a copy would keep: there the configuration comes first.

    >>> model = nn.Linear(2, 3)
    >>> whole(model) is model
    True

    Args:
        model: any model. It stays as it is; nothing is gathered, so no rank waits for another.

    Returns:
        A model with the names and the frozen parameters of the given one; a model of DTensors itself, where it can
        neither be copied nor built.

    Raises:
        GammaRegError: if a model that ZeRO-3 partitioned can neither be copied nor built from its configuration.
    """
    partitioned = any(_partitioned(parameter) for parameter in model.parameters())
    if not partitioned and not any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        return model
    failures = []
    for make in (_copied, _from_configuration) if partitioned else (_from_configuration, _copied):
        try:
            return make(model)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}".rstrip("."))
    if not partitioned:
        return model
    raise GammaRegError(
        f"Expected a model partitioned by DeepSpeed ZeRO-3 that can be copied ({failures[0]}) or built from its "
        f"configuration ({failures[1]}), found neither possible. Find the gammas of the model before it is "
        "partitioned, and pass them on as `gammas`."
    )


def _partitioned(parameter: nn.Parameter) -> bool:
    return hasattr(parameter, "ds_shape") and tuple(parameter.shape) != tuple(parameter.ds_shape)


def _on_meta(parameter: nn.Parameter) -> nn.Parameter:
    shape = getattr(parameter, "ds_shape", parameter.shape)
    return nn.Parameter(torch.empty(shape, dtype=parameter.dtype, device="meta"), parameter.requires_grad)


def _copied(model: nn.Module) -> nn.Module:
    # What the memo holds is what the copy gets.
    memo: dict[int, Any] = {id(parameter): _on_meta(parameter) for parameter in model.parameters()}
    memo |= {id(buffer): buffer.detach().to("meta") for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _from_configuration(model: nn.Module) -> nn.Module:
    # set_zero3_state keeps transformers from partitioning the parts that it builds from configurations of theirs.
    from transformers.modeling_utils import set_zero3_state

    from hf_gammareg.inputs.sources import build_on

    config: Any = copy.deepcopy(model.config)
    with set_zero3_state():
        built = build_on(lambda: type(model)(config), "meta")
    frozen = {name: not parameter.requires_grad for name, parameter in model.named_parameters()}
    if dict(built.named_parameters()).keys() != frozen.keys():
        raise ValueError("its configuration builds a model with other parameters")
    for name, parameter in built.named_parameters():
        parameter.requires_grad_(not frozen[name])
    return built
