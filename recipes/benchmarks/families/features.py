"""Networks of Kornia for points, patches and pictures: a line for each kind."""

from __future__ import annotations

from typing import Any

from families.recipe import Inputs, Recipes, floats, images, made

PATCHES = floats(4, 1, 32, 32)

NETS: dict[str, tuple[str, Inputs, dict[str, Any]]] = {
    "HardNet": ("feature:HardNet", PATCHES, {"pretrained": False}),
    "HardNet8": ("feature:HardNet8", PATCHES, {"pretrained": False}),
    "SOSNet": ("feature:SOSNet", PATCHES, {"pretrained": False}),
    "HyNet": ("feature:HyNet", PATCHES, {"pretrained": False}),
    "TFeat": ("feature:TFeat", PATCHES, {"pretrained": False}),
    "KeyNet": ("feature:KeyNet", images(64, 1), {"pretrained": False}),
    "DISK": ("feature.disk._unets:Unet", images(64), {"in_features": 3, "down": [8, 16, 16], "up": [16, 8]}),
    "XFeat": ("feature.xfeat:XFeatModel", images(64), {}),
    "LoFTR": (
        "feature.loftr.backbone.resnet_fpn:ResNetFPN_8_2",
        images(64, 1),
        {"config": {"initial_dim": 16, "block_dims": [16, 24, 32]}},
    ),
    "DeFMO": ("feature.defmo:DeFMO", floats(2, 6, 64, 64), {"pretrained": False}),
    "SOLD2": ("feature.sold2.backbones:HourglassBackbone", images(128, 1), {}),
    "VisionTransformer": (
        "models.vit:VisionTransformer",
        images(64),
        {"image_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "MobileViT": ("models.vit_mobile:MobileViT", images(256), {}),
    "TinyViT": (
        "models.tiny_vit:TinyViT",
        images(224),
        {"depths": (1, 1, 2, 1), "embed_dims": (24, 48, 96, 96), "num_heads": (1, 2, 4, 4)},
    ),
    "DexiNed": ("models.dexined:DexiNed", images(64), {"pretrained": False}),
    "EfficientViT": ("models.efficient_vit.backbone:efficientvit_backbone_b0", images(64), {}),
    "EfficientViT-large": ("models.efficient_vit.backbone:efficientvit_backbone_l0", images(64), {}),
    "RTDETR-resnet18d": ("families.features:_detector", images(128), {"backbone": "resnet18d"}),
    "RTDETR-hgnetv2_l": ("families.features:_detector", images(128), {"backbone": "hgnetv2_l"}),
    "SAM": ("families.features:_sam", images(64), {}),
}
"""Networks by name, each with where it lies in Kornia, what it takes, and its options."""


def kornia() -> Recipes:
    """One of each kind."""
    import kornia  # noqa: F401

    return {
        name: made(path if path.startswith("families") else f"kornia.{path}", inputs, **options)
        for name, (path, inputs, options) in NETS.items()
    }


def _detector(backbone: str) -> Any:
    from kornia.models.rt_detr import RTDETR, RTDETRConfig

    return RTDETR.from_config(RTDETRConfig(backbone, 10, head_num_queries=20))


def _sam() -> Any:
    from kornia.models.sam.architecture.image_encoder import ImageEncoderViT

    return ImageEncoderViT(
        img_size=64, embed_dim=32, depth=2, num_heads=2, out_chans=16, window_size=2, use_rel_pos=True, qkv_bias=True
    )
