"""Example inputs of a model, made from what the model itself says."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_gammareg.errors import GammaRegError, some

BATCH = 2
"""Rows in an example batch: BatchNorm in train mode needs more than one value per channel."""

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def example_inputs(model: nn.Module, device: torch.device | str | None = None) -> Inputs:
    """Make a small batch that `model` accepts, from its own configuration.

    Models of timm (their `pretrained_cfg`), transformers (their configuration and the signature of
    `forward`) and torchvision are known. Nothing is computed, neither timm nor transformers is imported
    for a model that does not come from them, and no random number generator moves.

    Example:
        >>> import timm
        >>> args, kwargs = example_inputs(timm.create_model("resnet18"))
        >>> args[0].shape
        torch.Size([2, 3, 224, 224])

    Args:
        model: a module; the batch has the floating point type of its parameters.
        device: where the batch lies; default: where the parameters do, or on the CPU where these are on
            `meta`: there a batch would have no values, and a model may ask for those of its integers.

    Returns:
        `(args, kwargs)` for `model(*args, **kwargs)`: 2 examples.

    Raises:
        GammaRegError: if the model does not say what it takes.
    """
    inner = unwrapped(model)
    if device is None and placement(inner)[0].type == "meta":
        device = "cpu"
    if _descends_from(inner, "transformers", "PreTrainedModel"):
        from hf_gammareg.inputs.derive import transformers_inputs

        return (), transformers_inputs(inner, device)
    if isinstance(_timm_config(inner).get("input_size"), tuple | list):
        return _timm_inputs(inner, *_at(inner, device))
    if type(inner).__module__.startswith("torchvision.models."):
        return _torchvision_inputs(inner, *_at(inner, device))
    raise GammaRegError(
        f"Expected a model of timm, transformers or torchvision, whose inputs can be derived, found "
        f"{type(inner).__module__}.{type(inner).__qualname__}. Pass example_inputs: a tensor, a tuple of "
        "arguments, or a dictionary of keyword arguments that the model's forward takes."
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the wrappers that data parallelism, `torch.compile` and PEFT put around it.

    >>> unwrapped(nn.DataParallel(nn.Linear(2, 2)))
    Linear(in_features=2, out_features=2, bias=True)
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        elif hasattr(model, "get_base_model"):
            inner = cast(Any, model).get_base_model()
        if not isinstance(inner, nn.Module) or inner is model:
            return model
        model = inner


def placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device of the model's first parameter, and the type of its first floating point parameter."""
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    floating = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return device, next(floating, torch.get_default_dtype())


def _at(model: nn.Module, device: torch.device | str | None) -> tuple[torch.device, torch.dtype]:
    own, dtype = placement(model)
    return (own if device is None else torch.device(device)), dtype


def values(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that look like normalised data: standard normal, always the same ones.

    On the `meta` device there are no numbers. The global random number generator is not touched.
    """
    if device.type == "meta":
        return torch.empty(shape, device=device, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)


def _descends_from(model: nn.Module, package: str, name: str) -> bool:
    """Whether a class of this name and package is among the model's bases, without importing the package."""
    return any(base.__name__ == name and base.__module__.startswith(f"{package}.") for base in type(model).__mro__)


# --- timm ---------------------------------------------------------------------------------------------------------


def _timm_config(model: nn.Module) -> dict[str, Any]:
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        if isinstance(config, dict) and config:
            return config
    return {}


def _timm_inputs(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Images of the size the checkpoint was made for, unless the live model was built for another."""
    config = _timm_config(model)
    channels, height, width = config["input_size"]
    patch_embed = getattr(model, "patch_embed", None)
    for holder, attribute in ((patch_embed, "img_size"), (model, "img_size"), (model, "image_size")):
        size = getattr(holder, attribute, None)
        if isinstance(size, int):
            size = (size, size)
        if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(side, int) for side in size):
            height, width = size
            break
    channels = _timm_channels(model, config) or channels
    return (values((BATCH, channels, height, width), device, dtype),), {}


def _timm_channels(model: nn.Module, config: dict[str, Any]) -> int | None:
    """Input channels of the convolution that timm names as the first one."""
    first = config.get("first_conv")
    name = first[0] if isinstance(first, tuple | list) and first else first
    if not isinstance(name, str):
        return None
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        return None
    folded = any(type(module).__name__ == "SpaceToDepth" for module in model.modules())  # TResNet's pixels in channels
    return layer.in_channels if isinstance(layer, nn.Conv2d) and not folded else None


# --- torchvision --------------------------------------------------------------------------------------------------

_VIDEO = {"MViT": (3, 16, 224, 224), "SwinTransformer3d": (3, 16, 224, 224), "VideoResNet": (3, 16, 112, 112)} | {
    "S3D": (3, 16, 224, 224)
}
_IMAGE = {"Inception3": (3, 299, 299), "QuantizableInception3": (3, 299, 299)}
_DETECTION = ("FasterRCNN", "MaskRCNN", "KeypointRCNN", "RetinaNet", "FCOS", "SSD")


def _torchvision_inputs(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Inputs:
    name = type(model).__name__
    if name in _DETECTION:
        images = [values((3, 224, 224), device, dtype) for _ in range(BATCH)]
        return (images, [_detection_target(name, model, device, dtype) for _ in range(BATCH)]), {}
    if name == "RAFT":
        return tuple(values((BATCH, 3, 128, 128), device, dtype) for _ in range(2)), {}
    side = getattr(model, "image_size", 224)
    shape = _VIDEO.get(name) or _IMAGE.get(name) or (3, side, side)
    return (values((BATCH, *shape), device, dtype),), {}


def _detection_target(name: str, model: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """One object in the middle of the image, with the mask or the key points that this kind of model learns from."""
    target = {
        "boxes": torch.tensor([[56.0, 56.0, 168.0, 168.0]], dtype=dtype).to(device),
        "labels": torch.ones(1, dtype=torch.int64, device=device),
    }
    if name == "MaskRCNN":
        target["masks"] = torch.ones(1, 224, 224, dtype=torch.uint8, device=device)
    if name == "KeypointRCNN":
        points = model.get_submodule("roi_heads.keypoint_predictor.kps_score_lowres").out_channels
        target["keypoints"] = torch.tensor([[[112.0, 112.0, 1.0]] * points], dtype=dtype).to(device)  # type: ignore[operator]
    return target


def underivable(what: str, found: object, known: list[str] | None = None) -> GammaRegError:
    """The error for a model whose inputs can't be derived: what is missing, and the way out."""
    listed = f" Known are {some(known)}." if known else ""
    return GammaRegError(
        f"Expected to derive {what} from the model's configuration, found {found}.{listed} "
        "Pass example_inputs: a dictionary of keyword arguments that the model's forward takes."
    )
