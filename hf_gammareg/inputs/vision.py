"""Example inputs of timm's and torchvision's models, made from what a model says of itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_gammareg.inputs.batch import BATCH, Inputs, values

# --- timm ---------------------------------------------------------------------------------------------------------


def _timm_config(model: nn.Module) -> dict[str, Any]:
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        if isinstance(config, dict) and config:
            return config
    return {}


def has_input_size(model: nn.Module) -> bool:
    """Whether a model has timm's configuration with the size of its input."""
    return isinstance(_timm_config(model).get("input_size"), tuple | list)


def timm_inputs(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Inputs:
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
    # Norms with a part of the batch each (timm's --split-bn) are all reached where each part has examples.
    parts = max((getattr(module, "num_splits", 1) for module in model.modules()), default=1)
    return (values((BATCH * parts, channels, height, width), device, dtype),), {}


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


def of_torchvision(model: nn.Module) -> bool:
    """Whether a model's class is torchvision's."""
    return type(model).__module__.startswith("torchvision.models.")


_VIDEO = {"MViT": (3, 16, 224, 224), "SwinTransformer3d": (3, 16, 224, 224), "VideoResNet": (3, 16, 112, 112)} | {
    "S3D": (3, 16, 224, 224)
}
_IMAGE = {"Inception3": (3, 299, 299), "QuantizableInception3": (3, 299, 299)}
_DETECTION = ("FasterRCNN", "MaskRCNN", "KeypointRCNN", "RetinaNet", "FCOS", "SSD")


def torchvision_inputs(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Images, videos, pairs of images, or images with targets, by the class of the model."""
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
