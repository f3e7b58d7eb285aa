"""Transformers of vit-pytorch and x-transformers, tiny: a line for each kind."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from families.recipe import Inputs, Recipe, Recipes, fitting, floats, given, ids, images, normal, tokens

VIT: dict[str, Any] = {
    "image_size": 64,
    "image_patch_size": 16,
    "patch_size": 16,
    "frames": 4,
    "frame_patch_size": 2,
    "num_classes": 10,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "dim_head": 16,
    "mlp_dim": 64,
}
"""The words that most of vit-pytorch's classes have for their size."""
VIDEO = floats(2, 3, 4, 64, 64)
STAGES = {"dim": (16, 32, 48, 64), "depth": (1, 1, 1, 1)}

VITS: dict[str, tuple[str, Inputs, dict[str, Any]]] = {
    "vit": ("ViT", images(), {}),
    "simple_vit": ("SimpleViT", images(), {}),
    "ats_vit": ("ViT", images(), {"max_tokens_per_depth": (16, 8)}),
    "attn_residual_with_dca_simple_vit": ("SimpleViT", images(), {}),
    "cait": ("CaiT", images(), {"cls_depth": 2}),
    "cct": (
        "CCT",
        images(),
        {"img_size": 64, "embedding_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_ratio": 2.0, "num_classes": 10},
    ),
    "cross_vit": ("CrossViT", images(96), {"image_size": 96, "sm_dim": 16, "lg_dim": 32}),
    "crossformer": ("CrossFormer", images(224), {"dim": (64, 128, 256, 512), "depth": (1, 1, 1, 1)}),
    "cvt": ("CvT", images(), {"s3_depth": 2}),
    "deepvit": ("DeepViT", images(), {}),
    "jumbo_vit": ("JumboViT", images(), {}),
    "learnable_memory_vit": ("ViT", images(), {}),
    "levit": ("LeViT", images(224), {"image_size": 224, "dim": (32, 48, 64), "depth": 1, "mlp_mult": 2}),
    "look_vit": ("LookViT", images(96), {"image_size": 96}),
    "max_vit": ("MaxViT", images(224), {"dim": 32, "depth": (1, 1), "dim_conv_stem": 16}),
    "max_vit_with_registers": ("MaxViT", images(224), {"dim": 32, "depth": (1, 1), "dim_conv_stem": 16}),
    "mobile_vit": (
        "MobileViT",
        images(256),
        {
            "image_size": (256, 256),
            "patch_size": (2, 2),
            "dims": [96, 120, 144],
            "channels": [16, 32, 48, 48, 64, 64, 80, 80, 96, 96, 384],
            "num_classes": 10,
        },
    ),
    "mp3": ("ViT", images(), {}),
    "na_vit": ("NaViT", lambda _: ([[normal(3, 64, 64), normal(3, 32, 64)], [normal(3, 32, 32)]],), {}),
    "nest": ("NesT", images(224), {"image_size": 224, "patch_size": 4, "num_hierarchies": 3, "block_repeats": 1}),
    "normalized_vit": ("nViT", images(), {}),
    "parallel_vit": ("ViT", images(), {}),
    "pit": ("PiT", images(224), {"image_size": 224, "patch_size": 14, "depth": (1, 1)}),
    "regionvit": ("RegionViT", images(224), STAGES | {"window_size": 7}),
    "rvt": ("RvT", images(), {}),
    "scalable_vit": (
        "ScalableViT",
        images(256),
        {
            "dim": 16,
            "heads": (2, 2, 2, 2),
            "depth": (1, 1, 1, 1),
            "ssa_dim_key": (8, 8, 8, 8),
            "reduction_factor": (8, 4, 2, 1),
            "window_size": (64, 32, None, None),
        },
    ),
    "sep_vit": ("SepViT", images(224), {"dim": 16, "heads": (1, 2, 2, 2), "depth": (1, 1, 1, 1)}),
    "simple_flash_attn_vit": ("SimpleViT", images(), {}),
    "simple_uvit": ("SimpleUViT", images(), {"depth": 4}),
    "simple_vit_1d": ("SimpleViT", floats(2, 3, 64), {"seq_len": 64}),
    "simple_vit_3d": ("SimpleViT", VIDEO, {}),
    "simple_vit_attn_residual": ("SimpleViTAttnResidual", images(), {}),
    "simple_vit_orthog_residual_update": ("SimpleViT", images(), {}),
    "simple_vit_with_fft": ("SimpleViT", images(), {"freq_patch_size": 8}),
    "simple_vit_with_hyper_connections": ("SimpleViT", images(), {"num_residual_streams": 2}),
    "simple_vit_with_patch_dropout": ("SimpleViT", images(), {}),
    "simple_vit_with_qk_norm": ("SimpleViT", images(), {}),
    "simple_vit_with_register_tokens": ("SimpleViT", images(), {}),
    "simple_vit_with_relative_proj_pos_bias": ("SimpleViT", images(), {}),
    "simple_vit_with_specialized_cls": ("SimpleViT", images(), {}),
    "simple_vit_with_value_residual": ("SimpleViT", images(), {}),
    "t2t": ("T2TViT", images(), {}),
    "twins_svt": ("TwinsSVT", images(224), {"s3_depth": 1, "s4_depth": 1}),
    "vit_1d": ("ViT", floats(2, 3, 64), {"seq_len": 64}),
    "vit_3d": ("ViT", VIDEO, {}),
    "vit_5": ("ViT", images(), {}),
    "vit_for_small_dataset": ("ViT", images(), {}),
    "vit_nd": ("ViTND", images(), {"ndim": 2, "input_shape": 64}),
    "vit_nd_pope": ("ViTND", images(), {"ndim": 2, "input_shape": 64}),
    "vit_nd_rotary": ("ViTND", images(), {"ndim": 2, "input_shape": 64}),
    "vit_with_keel_post_ln": ("ViT", images(), {}),
    "vit_with_patch_dropout": ("ViT", images(), {}),
    "vit_with_patch_merger": ("ViT", images(), {}),
    "vivit": ("ViViT", VIDEO, {"spatial_depth": 1, "temporal_depth": 1}),
    "xcit": ("XCiT", images(), {"cls_depth": 1}),
}
"""Modules of vit-pytorch, each with its class, what that takes, and options beside the usual ones."""


def vit_pytorch() -> Recipes:
    """A network of each module."""
    import vit_pytorch  # noqa: F401

    return {
        module: fitting(f"vit_pytorch.{module}:{name}", inputs, VIT, **options)
        for module, (name, inputs, options) in VITS.items()
    }


DECODERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scalenorm": {"use_scalenorm": True},
    "rmsnorm": {"use_rmsnorm": True},
    "simple_rmsnorm": {"use_simple_rmsnorm": True},
    "no_unit_offset": {"norm_add_unit_offset": False},
    "dynamic_tanh": {"use_dynamic_tanh": True},
    "derf": {"use_derf": True},
    "post_norm": {"pre_norm": False},
    "sandwich_norm": {"sandwich_norm": True},
    "pre_and_post_norm": {"pre_and_post_norm": True},
    "macaron": {"macaron": True},
    "gate_residual": {"gate_residual": True},
    "orthog_residual": {"orthog_residual": True},
    "scale_residual": {"scale_residual": True},
    "residual_attn": {"residual_attn": True},
    "shift_tokens": {"shift_tokens": 1},
    "layerscale": {"use_layerscale": True},
    "unet_skips": {"unet_skips": True},
    "integrate_layers": {"integrate_layers": True},
    "hyper_connections": {"num_residual_streams": 4},
    "attn_aggregated_residuals": {
        "attn_aggregated_residuals": True,
        "attn_aggregated_residual_kwargs": {"lora_rank": 8},
    },
    "reinject_input": {"reinject_input": True},
    "value_residual": {"add_value_residual": True},
    "softclamp_output": {"softclamp_output": True},
    "rotary": {"rotary_pos_emb": True},
    "alibi": {"alibi_pos_bias": True},
    "rel_pos": {"rel_pos_bias": True},
    "dynamic_pos": {"dynamic_pos_bias": True, "dynamic_pos_bias_norm": True},
    "qk_norm": {"attn_qk_norm": True},
    "qk_norm_dim_scale": {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True},
    "talking_heads": {"attn_pre_talking_heads": True, "attn_post_talking_heads": True},
    "value_gate": {"attn_gate_values": True, "attn_on_attn": True},
    "flash": {"attn_flash": True},
    "differential": {"attn_one_kv_head": True},
    "ff_glu": {"ff_glu": True, "ff_swish": True},
    "ff_post_act_ln": {"ff_post_act_ln": True},
    "ff_relu_squared": {"ff_relu_squared": True, "ff_no_bias": True},
    "tied": {"weight_tie_layers": True},
    "sandwich_layers": {"sandwich_coef": 1},
}
"""Options of x-transformers' layers, by what they show."""


def x_transformers() -> Recipes:
    """A decoder of two layers for each option, an encoder, a cross attender, a vision transformer, and conditions."""
    import x_transformers  # noqa: F401

    table = {name: Recipe(partial(_decoder, options), ids()) for name, options in DECODERS.items()}
    conditioned = {"dim_condition": 8, "use_adaptive_layernorm": True, "use_adaptive_layerscale": True}
    return table | {
        "encoder": Recipe(_encoder, ids()),
        "vit": Recipe(_vit, images()),
        "seq2seq": Recipe(_seq2seq, given(partial(tokens, 32, 16), partial(tokens, 32, 16), lambda: None)),
        "adaptive_layernorm": Recipe(
            partial(_conditioned, conditioned), given(partial(normal, 2, 8, 32), condition=partial(normal, 2, 8))
        ),
        "adaptive_rmsnorm": Recipe(
            partial(_conditioned, {"dim_condition": 8, "use_adaptive_rmsnorm": True}),
            given(partial(normal, 2, 8, 32), condition=partial(normal, 2, 8)),
        ),
    }


SMALL: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16, "verbose": False}


def _decoder(options: dict[str, Any]) -> nn.Module:
    from x_transformers import Decoder, TransformerWrapper

    return TransformerWrapper(num_tokens=32, max_seq_len=16, attn_layers=Decoder(**SMALL, **options))


def _encoder() -> nn.Module:
    from x_transformers import Encoder, TransformerWrapper

    return TransformerWrapper(num_tokens=32, max_seq_len=16, num_memory_tokens=2, attn_layers=Encoder(**SMALL))


def _vit() -> nn.Module:
    from x_transformers import Encoder, ViTransformerWrapper

    return ViTransformerWrapper(image_size=64, patch_size=16, num_classes=10, attn_layers=Encoder(**SMALL))


def _seq2seq() -> nn.Module:
    from x_transformers import XTransformer

    sides = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in SMALL.items() if name != "dim"}
    sizes = {
        f"{side}_{name}": value for side in ("enc", "dec") for name, value in (("num_tokens", 32), ("max_seq_len", 16))
    }
    return XTransformer(dim=32, **sides, **sizes)


def _conditioned(options: dict[str, Any]) -> nn.Module:
    from x_transformers import Encoder

    return Encoder(**SMALL, **options)
