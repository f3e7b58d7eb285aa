"""Networks of MONAI for images and volumes of the body, tiny: a line for each kind."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from families.recipe import Inputs, Recipes, floats, given, made, normal, tokens

IMAGE, VOLUME = floats(2, 1, 64, 64), floats(2, 1, 32, 32, 32)
FLAT: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
DEEP: dict[str, Any] = {**FLAT, "spatial_dims": 3}
PATHS: dict[str, Any] = {"channels": (8, 16), "strides": (2, 2)}
STEPS: dict[str, Any] = {"channels": (8, 16, 32), "strides": (2, 2)}
DYNAMIC: dict[str, Any] = {
    **FLAT,
    "kernel_size": (3, 3, 3),
    "strides": (1, 2, 2),
    "upsample_kernel_size": (2, 2),
    "filters": (8, 16, 32),
}
DIFFUSION: dict[str, Any] = {
    **FLAT,
    "channels": (16, 32),
    "num_res_blocks": 1,
    "attention_levels": (False, True),
    "norm_num_groups": 8,
}
TIMED = given(partial(normal, 2, 1, 32, 32), partial(torch.tensor, [3, 7]))
SEGMENTED = given(partial(normal, 2, 1, 32, 32), partial(normal, 2, 3, 32, 32))

VIT: dict[str, Any] = {
    "in_channels": 1,
    "img_size": 64,
    "patch_size": 16,
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_layers": 2,
    "num_heads": 2,
    "spatial_dims": 2,
}

NETS: dict[str, tuple[str, Inputs, dict[str, Any]]] = {
    "AHNet": ("AHNet", floats(2, 1, 128, 128, 64), {"layers": (1, 1, 1, 1)}),
    "AttentionUnet": ("AttentionUnet", IMAGE, FLAT | STEPS),
    "AutoEncoder": ("AutoEncoder", IMAGE, FLAT | PATHS | {"num_res_units": 2, "norm": "batch"}),
    "AutoencoderKL": (
        "AutoencoderKL",
        IMAGE,
        DIFFUSION | {"latent_channels": 4},
    ),
    "BasicUNet": ("BasicUNet", IMAGE, FLAT | {"features": (8, 8, 16, 16, 32, 8)}),
    "BasicUNetPlusPlus": ("BasicUNetPlusPlus", IMAGE, FLAT | {"features": (8, 8, 16, 16, 32, 8)}),
    "Classifier": (
        "Classifier",
        IMAGE,
        {"in_shape": (1, 64, 64), "classes": 2, "norm": ("instance", {"affine": True}), **STEPS},
    ),
    "Critic": ("Critic", IMAGE, {"in_shape": (1, 64, 64), "norm": "batch", **STEPS}),
    "DAF3D": ("DAF3D", floats(2, 1, 32, 64, 64), {"in_channels": 1, "out_channels": 2}),
    "DecoderOnlyTransformer": (
        "DecoderOnlyTransformer",
        lambda _: tokens(),
        {
            "num_tokens": 32,
            "max_seq_len": 16,
            "attn_layers_dim": 32,
            "attn_layers_depth": 2,
            "attn_layers_heads": 2,
        },
    ),
    "DenseNet": ("DenseNet", IMAGE, FLAT | {"init_features": 8, "growth_rate": 8, "block_config": (2, 2)}),
    "DiffusionModelUNet": ("DiffusionModelUNet", TIMED, DIFFUSION | {"num_head_channels": 8}),
    "DynUNet": ("DynUNet", IMAGE, DYNAMIC),
    "DynUNet-residual": ("DynUNet", IMAGE, DYNAMIC | {"res_block": True, "deep_supervision": True}),
    "EfficientNetBN": (
        "EfficientNetBN",
        IMAGE,
        {"model_name": "efficientnet-b0", "pretrained": False, "spatial_dims": 2, "in_channels": 1},
    ),
    "FlexibleUNet": ("FlexibleUNet", IMAGE, {"in_channels": 1, "out_channels": 2, "backbone": "efficientnet-b0"}),
    "HighResNet": ("HighResNet", VOLUME, DEEP),
    "HoverNet": ("HoVerNet", floats(2, 3, 256, 256), {"mode": "fast", "out_classes": 2}),
    "MaskedAutoEncoderViT": (
        "MaskedAutoEncoderViT",
        IMAGE,
        VIT | {"decoder_hidden_size": 24, "decoder_mlp_dim": 64, "decoder_num_layers": 2, "decoder_num_heads": 2},
    ),
    "MedNeXt": (
        "MedNeXt",
        IMAGE,
        FLAT
        | {
            "init_filters": 8,
            "blocks_down": (1, 1, 1, 1),
            "blocks_bottleneck": 1,
            "blocks_up": (1, 1, 1, 1),
        },
    ),
    "MedNeXt-grn": ("MedNeXt", IMAGE, FLAT | {"init_filters": 8, "global_resp_norm": True}),
    "MILModel": ("MILModel", floats(2, 3, 3, 64, 64), {"num_classes": 2, "pretrained": False, "mil_mode": "att_trans"}),
    "MultiScalePatchDiscriminator": (
        "MultiScalePatchDiscriminator",
        floats(2, 1, 128, 128),
        {"num_d": 2, "num_layers_d": 2, "spatial_dims": 2, "channels": 8, "in_channels": 1},
    ),
    "PatchDiscriminator": (
        "PatchDiscriminator",
        IMAGE,
        {"spatial_dims": 2, "channels": 8, "in_channels": 1, "num_layers_d": 2},
    ),
    "Quicknat": ("Quicknat", IMAGE, {"num_classes": 2}),
    "RegUNet": ("RegUNet", IMAGE, {**FLAT, "num_channel_initial": 8, "depth": 2}),
    "Regressor": ("Regressor", IMAGE, {"in_shape": (1, 64, 64), "out_shape": (2,), "norm": "batch", **STEPS}),
    "ResNet": (
        "ResNet",
        VOLUME,
        {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 24, 32], "n_input_channels": 1},
    ),
    "ResNetFeatures": (
        "ResNetFeatures",
        VOLUME,
        {"model_name": "resnet10", "pretrained": False, "spatial_dims": 3, "in_channels": 1},
    ),
    "Restormer": (
        "restormer:Restormer",
        IMAGE,
        {**FLAT, "dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 1, 1, 1), "num_refinement_blocks": 1},
    ),
    "SegResNet": ("SegResNet", IMAGE, FLAT),
    "SegResNetDS": ("SegResNetDS", IMAGE, FLAT | {"init_filters": 8}),
    "SegResNetVAE": ("SegResNetVAE", IMAGE, FLAT | {"input_image_size": (64, 64)}),
    "SEResNet50": ("SEResNet50", IMAGE, {"spatial_dims": 2, "in_channels": 1, "num_classes": 2}),
    "SEResNext50": ("SEResNext50", IMAGE, {"spatial_dims": 2, "in_channels": 1, "num_classes": 2}),
    "SENet154": ("SENet154", IMAGE, {"spatial_dims": 2, "in_channels": 1, "num_classes": 2}),
    "SPADEAutoencoderKL": (
        "SPADEAutoencoderKL",
        SEGMENTED,
        DIFFUSION | {"label_nc": 3, "latent_channels": 4, "spade_intermediate_channels": 8},
    ),
    "SPADENet": (
        "SPADENet",
        given(partial(normal, 2, 3, 32, 32), partial(normal, 2, 1, 32, 32)),
        {**FLAT, "label_nc": 3, "input_shape": [32, 32], "channels": [8, 16], "z_dim": 8},
    ),
    "SwinUNETR": ("SwinUNETR", IMAGE, FLAT | {"feature_size": 12, "use_v2": False}),
    "SwinUNETR-v2": ("SwinUNETR", IMAGE, FLAT | {"feature_size": 12, "use_v2": True}),
    "UNet": ("UNet", IMAGE, FLAT | STEPS | {"num_res_units": 2}),
    "UNet-batch": ("UNet", IMAGE, FLAT | STEPS | {"num_res_units": 2, "norm": "batch"}),
    "UNet-layer": ("UNet", IMAGE, FLAT | STEPS | {"num_res_units": 2, "norm": ("group", {"num_groups": 1})}),
    "UNETR": (
        "UNETR",
        VOLUME,
        {"in_channels": 1, "out_channels": 2, "img_size": 32, "hidden_size": 36, "mlp_dim": 64, "num_heads": 3},
    ),
    "VarAutoEncoder": (
        "VarAutoEncoder",
        IMAGE,
        {"spatial_dims": 2, "in_shape": (1, 64, 64), "out_channels": 1, "latent_size": 4, "norm": "batch", **PATHS},
    ),
    "ViT": ("ViT", IMAGE, VIT | {"classification": True}),
    "ViTAutoEnc": ("ViTAutoEnc", IMAGE, VIT),
    "VNet": ("VNet", IMAGE, {"spatial_dims": 2, "dropout_dim": 2}),
    "VoxelMorphUNet": (
        "VoxelMorphUNet",
        floats(2, 2, 64, 64),
        {
            "spatial_dims": 2,
            "in_channels": 2,
            "unet_out_channels": 8,
            "channels": (8, 8, 16, 16),
            "final_conv_channels": (8, 8),
            "norm": "batch",
        },
    ),
    "VQVAE": (
        "VQVAE",
        IMAGE,
        {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 1,
            "channels": (8, 16),
            "num_res_layers": 1,
            "num_res_channels": (8, 16),
            "downsample_parameters": ((2, 4, 1, 1), (2, 4, 1, 1)),
            "upsample_parameters": ((2, 4, 1, 1, 0), (2, 4, 1, 1, 0)),
            "num_embeddings": 16,
            "embedding_dim": 8,
        },
    ),
}
"""Networks by name, each with its class, what that takes, and its options."""


def monai() -> Recipes:
    """A small one of each kind."""
    import monai  # noqa: F401

    return {
        name: made(f"monai.networks.nets{'.' if ':' in kind else ':'}{kind}", inputs, **options)
        for name, (kind, inputs, options) in NETS.items()
    }
