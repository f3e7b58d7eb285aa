"""Libraries that list their own models: what is written down here is how one is asked for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from families.recipe import Recipe, Recipes, floats, images, made, normal, tokens


def segmentation_models() -> Recipes:
    """Every decoder on a ResNet, and a U-Net on an encoder of each kind."""
    import segmentation_models_pytorch as smp

    encoders = [
        "resnext50_32x4d",
        "timm-skresnet18",
        "dpn68",
        "vgg11_bn",
        "se_resnet50",
        "densenet121",
        "inceptionresnetv2",
        "inceptionv4",
        "efficientnet-b0",
        "timm-efficientnet-b0",
        "timm-tf_efficientnet_lite0",
        "mobilenet_v2",
        "xception",
        "mit_b0",
        "mobileone_s0",
        "tu-convnext_atto",
        "tu-resnetv2_50",
        "tu-res2net50_26w_4s",
        "tu-regnety_002",
        "tu-mobilenetv3_small_100",
        "tu-hrnet_w18_small",
    ]
    pairs = [(name, "resnet18") for name in smp.MODEL_ARCHITECTURES_MAPPING if name != "dpt"]
    pairs += [("unet", encoder) for encoder in encoders] + [("dpt", "tu-vit_tiny_patch16_224")]
    return {
        f"{decoder}-{encoder}": made(
            "segmentation_models_pytorch:create_model",
            images({"dpt": 224, "pan": 128}.get(decoder, 64)),
            arch=decoder,
            encoder_name=encoder,
            encoder_weights=None,
        )
        for decoder, encoder in pairs
    }


def pytorchcv() -> Recipes:
    """The first model of each of its files."""
    from pytorchcv.model_provider import _models

    first: dict[str, str] = {}
    for name, build in _models.items():
        first.setdefault(build.__module__.rpartition(".")[2], name)
    return {name: made("pytorchcv.model_provider:get_model", _image_of, name=name) for name in first.values()}


def _image_of(model: Any) -> Any:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return normal(2, 1 if first.in_channels == 1 else 3, *model.in_size)


def ultralytics() -> Recipes:
    """Every network that it holds a configuration of, in its smallest size."""
    import ultralytics

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    paths = [path for path in sorted(folder.glob("*/*.yaml")) if "cls-resnet" not in path.stem]  # those fetch weights
    return {path.stem: Recipe(partial(_yolo, str(path)), images(128)) for path in paths}


def _yolo(path: str) -> nn.Module:
    from ultralytics.nn import tasks

    name = Path(path).stem
    kinds = {"-cls": "Classification", "-seg": "Segmentation", "-pose": "Pose", "-obb": "OBB", "-world": "World"}
    kind = next((kind for part, kind in kinds.items() if part in name), "Detection")
    if "yoloe" in name:
        kind = "YOLOESeg" if "-seg" in name else "YOLOE"
    elif "rtdetr" in name:
        kind = "RTDETRDetection"
    return getattr(tasks, f"{kind}Model")(path, verbose=False)


def open_clip() -> Recipes:
    """A pair of towers of each kind whose text tower is its own."""
    names = [
        "RN50",
        "ViT-S-32",
        "ViT-S-32-alt",
        "ViT-B-32-quickgelu",
        "coca_ViT-B-32",
        "convnext_tiny",
        "EVA02-B-16",
        "MobileCLIP-S1",
        "MobileCLIP-B",
        "MobileCLIP2-S0",
        "MobileCLIP2-S3",
        "PE-Core-T-16-384",
        "swin_base_patch4_window7_224",
        "vit_medium_patch16_gap_256",
        "vit_relpos_medium_patch16_cls_224",
        "ViTamin-S",
        "ViTamin-S-LTT",
    ]
    return {name: made("open_clip.factory:create_model", _pair_of, model_name=name) for name in names}


def _pair_of(model: Any) -> Any:
    size = model.visual.image_size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    text = getattr(model, "text", model)
    return normal(2, 3, height, width), tokens(text.vocab_size, text.context_length)


def braindecode() -> Recipes:
    """Every network for recordings of the brain and of muscles, but for three that want electrodes of their own."""
    from braindecode.models.util import models_dict

    recipes = {}
    for name in sorted(models_dict):
        electrodes, steps, hertz = RECORDINGS.get(name, (22, 1000, 250))
        if name not in ("REVE", "BENDR", "Labram"):
            build = partial(_braindecode, name, electrodes, steps, hertz)
            recipes[name] = Recipe(build, floats(2, electrodes, steps))
    return recipes


RECORDINGS = {
    "AttnSleep": (1, 3000, 100),
    "EEGDINO": (19, 1000, 250),
    "EMG2QwertyNet": (32, 8000, 2000),
    "MetaNeuromotorHand": (16, 32000, 2000),
    "SensingDynamics": (16, 480, 2000),
    "USleep": (2, 3000, 100),
    "VEMG2Pose": (16, 11790, 2000),
    "ZUNA": (22, 1024, 256),
}
"""Electrodes, steps and hertz of networks that don't take 22 electrodes, 4 seconds at 250 hertz."""


def _braindecode(name: str, electrodes: int, steps: int, hertz: int) -> nn.Module:
    import mne
    from braindecode.models.util import models_dict

    montage = mne.channels.make_standard_montage("standard_1020")
    info = mne.create_info(montage.ch_names[:electrodes], hertz, "eeg")
    info.set_montage(montage)
    return models_dict[name](
        n_chans=electrodes, n_outputs=20 if name == "VEMG2Pose" else 4, n_times=steps, sfreq=hertz, chs_info=info["chs"]
    )
