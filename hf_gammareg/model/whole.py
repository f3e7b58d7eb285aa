"""A model whose parameters are spread over ranks, by ZeRO-3 or as DTensors, whole again on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.quiet import quiet


def whole(model: nn.Module) -> nn.Module:
    """The model inside its wrappers, or where its parameters are spread over ranks, one to trace in its place.

    Under `deepspeed.zero.Init` (which `from_pretrained` enters by itself) each live parameter is an empty tensor that
    remembers its shape. The stand-in is the same model, adapters and all, with parameters and buffers of the full
    shapes on the meta device; where a model can't be copied, it is built anew from its configuration, on meta too.
    A model of DTensors (FSDP2, tensor parallel) has hooks that a copy would keep: there the configuration comes first.
    Wrappers that compute more than what they wrap stay: PEFT's, and FSDP1's, which gathers.

    >>> model = nn.Linear(2, 3)
    >>> whole(model) is model, whole(nn.DataParallel(model)) is model
    (True, True)

    Args:
        model: any model. It stays as it is; nothing is gathered, so no rank waits for another.

    Returns:
        A model with the names and the frozen parameters of the given one; a model of DTensors itself, where it can
        neither be copied nor built.

    Raises:
        GammaRegError: if a model that ZeRO-3 partitioned can neither be copied nor built from its configuration.
    """
    while (attribute := wraps(model)) in ("module", "_orig_mod"):
        model = getattr(model, attribute)
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

    from hf_gammareg.model.whole import build_on

    config: Any = copy.deepcopy(model.config)
    with set_zero3_state():
        built = build_on(lambda: type(model)(config), "meta")
    frozen = {name: not parameter.requires_grad for name, parameter in model.named_parameters()}
    if dict(built.named_parameters()).keys() != frozen.keys():
        raise ValueError("its configuration builds a model with other parameters")
    for name, parameter in built.named_parameters():
        parameter.requires_grad_(not frozen[name])
    return built


WRAPPERS = {
    ("torch", "DataParallel"): "module",
    ("torch", "DistributedDataParallel"): "module",
    ("torch", "FullyShardedDataParallel"): "_fsdp_wrapped_module",
    ("torch", "OptimizedModule"): "_orig_mod",
    ("torch", "ActivationWrapper"): "_checkpoint_wrapped_module",
    ("torch", "AveragedModel"): "module",
    ("timm", "ModelEmaV2"): "module",
    ("timm", "ModelEmaV3"): "module",
    ("deepspeed", "DeepSpeedEngine"): "module",
    ("peft", "PeftModel"): "base_model",
    ("peft", "PeftMixedModel"): "base_model",
    ("peft", "BaseTuner"): "model",
    ("peft", "AdaptionPromptModel"): "model",
}
"""Classes that wrap a model or a part of it, by home package and name, each with the attribute that holds it."""


def wraps(module: nn.Module) -> str | None:
    """The attribute by which a module holds what it wraps; None for one that is no wrapper, whatever it is called.

    >>> wraps(nn.DataParallel(nn.Linear(2, 2)))
    'module'
    """
    found = (WRAPPERS.get((base.__module__.partition(".")[0], base.__name__)) for base in type(module).__mro__)
    return next(filter(None, found), None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the wrappers that data parallelism, `torch.compile` and PEFT put around it.

    >>> unwrapped(nn.DataParallel(nn.Linear(2, 2)))
    Linear(in_features=2, out_features=2, bias=True)
    """
    while True:
        attribute = wraps(model)
        # Where accelerate compiles layer by layer it keeps the model that was, though not as a module.
        inner = getattr(model, attribute) if attribute else model.__dict__.get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device of the model's first parameter, and the type of its first floating point parameter."""
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    floating = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return device, next(floating, torch.get_default_dtype())


def build_on(build: Callable[[], nn.Module], device: str) -> nn.Module:
    """Call `build` with a default device, quietly and without moving the random state; the model in train mode."""
    with quiet(), torch.random.fork_rng(devices=[]), torch.device(device):
        model = build().train()
        # Some modules make a parameter on the CPU whatever the default device is (wav2vec2's mask embedding).
        return model.to(device) if device == "meta" else model
