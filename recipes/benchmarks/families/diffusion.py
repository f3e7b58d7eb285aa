"""Networks of Diffusers, tiny: a line for each kind."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from families.recipe import Inputs, Recipes, floats, given, made, normal

STEP = partial(torch.tensor, [3, 7])
FLOW = partial(torch.tensor, [0.3, 0.7])


def named(**shapes: tuple[int, ...] | Any) -> Inputs:
    """Arguments by name: numbers of a shape, or what a function makes."""
    return given(**{name: shape if callable(shape) else partial(normal, *shape) for name, shape in shapes.items()})


UNET: dict[str, Any] = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 16}
CROSSED: dict[str, Any] = {
    **UNET,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 8,
}
TEXTED = named(sample=(2, 4, 16, 16), timestep=STEP, encoder_hidden_states=(2, 6, 16))
VAE: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
}
TINY: dict[str, Any] = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
PATCHES = named(hidden_states=(2, 4, 16, 16), timestep=STEP, encoder_hidden_states=(2, 6, 16))
CLIP = named(hidden_states=(2, 4, 2, 16, 16), timestep=STEP, encoder_hidden_states=(2, 6, 16))


def positions(length: int) -> Any:
    """Three coordinates for each of so many tokens."""
    return partial(torch.zeros, length, 3)


POOLED = named(
    hidden_states=(2, 4, 16, 16), timestep=STEP, encoder_hidden_states=(2, 6, 16), pooled_projections=(2, 16)
)
SD3: dict[str, Any] = {
    **TINY,
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "joint_attention_dim": 16,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 16,
}
NETS: dict[str, tuple[str, Inputs, dict[str, Any]]] = {
    "UNet2D": (
        "UNet2DModel",
        named(sample=(2, 3, 16, 16), timestep=STEP),
        UNET
        | {
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 8,
        },
    ),
    "UNet2D-skip": (
        "UNet2DModel",
        named(sample=(2, 3, 16, 16), timestep=STEP),
        UNET
        | {
            "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
            "attention_head_dim": 8,
            "time_embedding_type": "fourier",
            "block_out_channels": (32, 64),
        },
    ),
    "UNet2DCondition": ("UNet2DConditionModel", TEXTED, CROSSED),
    "UNet2DCondition-simple": (
        "UNet2DConditionModel",
        TEXTED,
        CROSSED
        | {
            "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "block_out_channels": (32, 64),
            "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "resnet_time_scale_shift": "scale_shift",
        },
    ),
    "UNet2DCondition-layer_norm": ("UNet2DConditionModel", TEXTED, CROSSED | {"cross_attention_norm": "layer_norm"}),
    "ControlNet": (
        "ControlNetModel",
        named(sample=(2, 4, 16, 16), timestep=STEP, encoder_hidden_states=(2, 6, 16), controlnet_cond=(2, 3, 128, 128)),
        {key: value for key, value in CROSSED.items() if key not in ("up_block_types", "sample_size")},
    ),
    "UNet1D": (
        "UNet1DModel",
        named(sample=(2, 14, 16), timestep=STEP),
        {
            "in_channels": 14,
            "out_channels": 14,
            "time_embedding_type": "positional",
            "use_timestep_embedding": True,
            "flip_sin_to_cos": False,
            "freq_shift": 1.0,
            "out_block_type": "OutConv1DBlock",
            "mid_block_type": "MidResTemporalBlock1D",
            "down_block_types": ("DownResnetBlock1D",) * 2,
            "up_block_types": ("UpResnetBlock1D",),
            "act_fn": "swish",
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
        },
    ),
    "UNet3DCondition": (
        "UNet3DConditionModel",
        named(sample=(2, 4, 2, 16, 16), timestep=STEP, encoder_hidden_states=(2, 6, 16)),
        CROSSED
        | {
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
    ),
    "UVit2D": (
        "UVit2DModel",
        named(
            input_ids=partial(torch.zeros, 2, 8, 8, dtype=torch.long),
            encoder_hidden_states=(2, 6, 16),
            pooled_text_emb=(2, 16),
            micro_conds=(2, 6),
        ),
        {
            "hidden_size": 32,
            "cond_embed_dim": 16,
            "micro_cond_encode_dim": 2,
            "micro_cond_embed_dim": 12,
            "encoder_hidden_size": 16,
            "vocab_size": 32,
            "codebook_size": 32,
            "in_channels": 32,
            "block_out_channels": 32,
            "num_res_blocks": 1,
            "downsample": True,
            "upsample": True,
            "block_num_heads": 2,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
    ),
    "AutoencoderKL": ("AutoencoderKL", named(sample=(2, 3, 32, 32)), VAE),
    "AsymmetricAutoencoderKL": (
        "AsymmetricAutoencoderKL",
        named(sample=(2, 3, 32, 32)),
        {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "down_block_out_channels": (16, 32),
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "up_block_out_channels": (16, 32),
            "norm_num_groups": 8,
        },
    ),
    "AutoencoderTiny": (
        "AutoencoderTiny",
        named(sample=(2, 3, 32, 32)),
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 2),
            "num_decoder_blocks": (2, 1),
        },
    ),
    "AutoencoderDC": (
        "AutoencoderDC",
        named(sample=(2, 3, 32, 32)),
        {
            "in_channels": 3,
            "latent_channels": 4,
            "attention_head_dim": 8,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (8, 16),
            "decoder_block_out_channels": (8, 16),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": [1, 1],
            "downsample_block_type": "conv",
            "upsample_block_type": "interpolate",
            "decoder_norm_types": "rms_norm",
            "decoder_act_fns": "silu",
        },
    ),
    "VQModel": ("VQModel", named(sample=(2, 3, 32, 32)), VAE | {"latent_channels": 3, "num_vq_embeddings": 16}),
    "AutoencoderKLTemporalDecoder": (
        "AutoencoderKLTemporalDecoder",
        given(partial(normal, 2, 3, 32, 32), num_frames=lambda: 2),
        {"block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2, "latent_channels": 4},
    ),
    "AutoencoderKLCogVideoX": (
        "AutoencoderKLCogVideoX",
        floats(1, 3, 5, 16, 16),
        {
            "down_block_types": ("CogVideoXDownBlock3D",) * 4,
            "up_block_types": ("CogVideoXUpBlock3D",) * 4,
            "block_out_channels": (8, 8, 8, 8),
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 2,
        },
    ),
    "AutoencoderKLWan": (
        "AutoencoderKLWan",
        floats(1, 3, 5, 16, 16),
        {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    ),
    "AutoencoderKLMochi": (
        "AutoencoderKLMochi",
        floats(1, 3, 7, 16, 16),
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (32, 32, 32, 32),
            "decoder_block_out_channels": (32, 32, 32, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
        },
    ),
    "AutoencoderKLLTXVideo": (
        "AutoencoderKLLTXVideo",
        floats(1, 3, 9, 16, 16),
        {
            "latent_channels": 8,
            "block_out_channels": (8, 8, 8, 8),
            "decoder_block_out_channels": (8, 8, 8, 8),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1),
            "patch_size": 1,
            "patch_size_t": 1,
        },
    ),
    "AutoencoderOobleck": (
        "AutoencoderOobleck",
        floats(2, 2, 4000),
        {
            "encoder_hidden_size": 12,
            "decoder_channels": 12,
            "decoder_input_channels": 6,
            "channel_multiples": [1, 2],
            "downsampling_ratios": [2, 4],
        },
    ),
    "DiT": (
        "DiTTransformer2DModel",
        named(hidden_states=(2, 4, 16, 16), timestep=STEP, class_labels=STEP),
        TINY | {"in_channels": 4, "out_channels": 4, "sample_size": 16, "num_embeds_ada_norm": 10},
    ),
    "PixArt": (
        "PixArtTransformer2DModel",
        given(
            partial(normal, 2, 4, 16, 16),
            encoder_hidden_states=partial(normal, 2, 6, 16),
            timestep=STEP,
            added_cond_kwargs=lambda: {"resolution": None, "aspect_ratio": None},
        ),
        TINY
        | {"sample_size": 16, "caption_channels": 16, "cross_attention_dim": 32, "use_additional_conditions": False},
    ),
    "SD3": ("SD3Transformer2DModel", POOLED, SD3),
    "SD3.5": ("SD3Transformer2DModel", POOLED, SD3 | {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}),
    "Flux": (
        "FluxTransformer2DModel",
        named(
            hidden_states=(2, 16, 4),
            encoder_hidden_states=(2, 6, 16),
            pooled_projections=(2, 16),
            timestep=FLOW,
            img_ids=positions(16),
            txt_ids=positions(6),
        ),
        TINY
        | {
            "in_channels": 4,
            "num_single_layers": 2,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": [4, 4, 8],
        },
    ),
    "Chroma": (
        "ChromaTransformer2DModel",
        named(
            hidden_states=(2, 16, 4),
            encoder_hidden_states=(2, 6, 16),
            timestep=FLOW,
            img_ids=positions(16),
            txt_ids=positions(6),
        ),
        TINY
        | {
            "in_channels": 4,
            "num_single_layers": 2,
            "joint_attention_dim": 16,
            "axes_dims_rope": [4, 4, 8],
            "approximator_num_channels": 8,
            "approximator_hidden_dim": 16,
            "approximator_layers": 1,
        },
    ),
    "AuraFlow": (
        "AuraFlowTransformer2DModel",
        PATCHES,
        {
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "joint_attention_dim": 16,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 256,
        },
    ),
    "CogVideoX": (
        "CogVideoXTransformer3DModel",
        named(hidden_states=(2, 1, 4, 8, 8), timestep=STEP, encoder_hidden_states=(2, 6, 16)),
        TINY
        | {
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 16,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 1,
            "max_text_seq_length": 6,
        },
    ),
    "CogView4": (
        "CogView4Transformer2DModel",
        named(
            hidden_states=(2, 4, 16, 16),
            encoder_hidden_states=(2, 6, 16),
            timestep=STEP,
            original_size=partial(torch.full, (2, 2), 16.0),
            target_size=partial(torch.full, (2, 2), 16.0),
            crop_coords=partial(torch.zeros, 2, 2),
        ),
        TINY | {"in_channels": 4, "out_channels": 4, "text_embed_dim": 16, "time_embed_dim": 8, "condition_dim": 4},
    ),
    "Latte": (
        "LatteTransformer3DModel",
        CLIP,
        TINY
        | {
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 8,
            "caption_channels": 16,
            "cross_attention_dim": 32,
            "norm_type": "ada_norm_single",
            "video_length": 2,
        },
    ),
    "Lumina2": (
        "Lumina2Transformer2DModel",
        named(
            hidden_states=(2, 4, 16, 16),
            timestep=FLOW,
            encoder_hidden_states=(2, 6, 16),
            encoder_attention_mask=partial(torch.ones, 2, 6, dtype=torch.bool),
        ),
        {
            "sample_size": 16,
            "in_channels": 4,
            "hidden_size": 24,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 3,
            "num_kv_heads": 1,
            "multiple_of": 2,
            "axes_dim_rope": (4, 2, 2),
            "axes_lens": (128, 128, 128),
            "cap_feat_dim": 16,
        },
    ),
    "Mochi": (
        "MochiTransformer3DModel",
        given(
            partial(normal, 2, 4, 2, 16, 16),
            partial(normal, 2, 6, 16),
            STEP,
            partial(torch.ones, 2, 6, dtype=torch.bool),
        ),
        TINY
        | {
            "pooled_projection_dim": 16,
            "in_channels": 4,
            "time_embed_dim": 4,
            "text_embed_dim": 16,
            "max_sequence_length": 6,
        },
    ),
    "LTX": (
        "LTXVideoTransformer3DModel",
        named(
            hidden_states=(2, 32, 4),
            encoder_hidden_states=(2, 6, 16),
            timestep=STEP,
            encoder_attention_mask=partial(torch.ones, 2, 6, dtype=torch.bool),
            num_frames=lambda: 2,
            height=lambda: 4,
            width=lambda: 4,
        ),
        TINY | {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 32, "caption_channels": 16},
    ),
    "Sana": (
        "SanaTransformer2DModel",
        PATCHES,
        TINY
        | {
            "in_channels": 4,
            "out_channels": 4,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 16,
            "sample_size": 16,
        },
    ),
    "StableAudio": (
        "StableAudioDiTModel",
        named(
            hidden_states=(2, 3, 16), timestep=STEP, encoder_hidden_states=(2, 6, 16), global_hidden_states=(2, 1, 8)
        ),
        {
            "sample_size": 16,
            "in_channels": 3,
            "out_channels": 3,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "num_key_value_attention_heads": 2,
            "cross_attention_dim": 16,
            "cross_attention_input_dim": 16,
            "time_proj_dim": 8,
            "global_states_input_dim": 8,
        },
    ),
    "Wan": (
        "WanTransformer3DModel",
        CLIP,
        TINY
        | {"in_channels": 4, "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "cross_attn_norm": True},
    ),
    "HunyuanVideo": (
        "HunyuanVideoTransformer3DModel",
        named(
            hidden_states=(2, 4, 2, 8, 8),
            timestep=STEP,
            encoder_hidden_states=(2, 6, 16),
            encoder_attention_mask=partial(torch.ones, 2, 6, dtype=torch.long),
            pooled_projections=(2, 8),
            guidance=STEP,
        ),
        TINY
        | {
            "in_channels": 4,
            "out_channels": 4,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "patch_size_t": 1,
            "text_embed_dim": 16,
            "pooled_projection_dim": 8,
            "rope_axes_dim": (4, 4, 8),
        },
    ),
    "QwenImage": (
        "QwenImageTransformer2DModel",
        named(
            hidden_states=(2, 16, 16),
            encoder_hidden_states=(2, 6, 16),
            encoder_hidden_states_mask=partial(torch.ones, 2, 6, dtype=torch.long),
            timestep=FLOW,
            img_shapes=lambda: [(1, 4, 4)] * 2,
        ),
        TINY | {"in_channels": 16, "out_channels": 4, "joint_attention_dim": 16, "axes_dims_rope": (8, 4, 4)},
    ),
    "Allegro": (
        "AllegroTransformer3DModel",
        named(
            hidden_states=(2, 4, 2, 16, 16),
            timestep=STEP,
            encoder_hidden_states=(2, 6, 16),
            attention_mask=partial(torch.ones, 2, 2, 16, 16),
            encoder_attention_mask=partial(torch.ones, 2, 6),
        ),
        TINY
        | {
            "in_channels": 4,
            "out_channels": 4,
            "attention_head_dim": 24,
            "cross_attention_dim": 48,
            "caption_channels": 16,
            "sample_width": 16,
            "sample_height": 16,
            "sample_frames": 2,
        },
    ),
    "Prior": (
        "PriorTransformer",
        named(hidden_states=(2, 8), timestep=STEP, proj_embedding=(2, 8), encoder_hidden_states=(2, 7, 8)),
        TINY | {"embedding_dim": 8, "num_embeddings": 7, "additional_embeddings": 4},
    ),
    "T5Film": (
        "T5FilmDecoder",
        given(
            lambda: [(normal(2, 6, 32), torch.ones(2, 6))], partial(normal, 2, 8, 4), partial(torch.tensor, [0.1, 0.2])
        ),
        {
            "input_dims": 4,
            "targets_length": 8,
            "d_model": 32,
            "num_layers": 2,
            "num_heads": 2,
            "d_kv": 16,
            "d_ff": 64,
        },
    ),
    "Transformer2D": (
        "Transformer2DModel",
        named(hidden_states=(2, 16, 8, 8), encoder_hidden_states=(2, 6, 16)),
        TINY | {"in_channels": 16, "norm_num_groups": 8, "cross_attention_dim": 16},
    ),
    "TransformerTemporal": (
        "TransformerTemporalModel",
        given(partial(normal, 4, 16, 8, 8), num_frames=lambda: 2),
        TINY | {"in_channels": 16, "norm_num_groups": 8},
    ),
}
"""Networks by name, each with its class, what it takes, and its options."""


def diffusers() -> Recipes:
    """A tiny one of each kind."""
    import diffusers  # noqa: F401

    return {name: made(f"diffusers:{kind}", inputs, **options) for name, (kind, inputs, options) in NETS.items()}
