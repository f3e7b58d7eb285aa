"""Two-layer configurations for every model type of transformers.

Depth is cut and nothing else: widths, heads and experts stay as a model type's default configuration has
them, so all that its modelling code derives from them still fits. On the `meta` device a wide model takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

LAYERS = 2

DEPTHS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "depth",
    "layers",
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "encoder_num_hidden_layers",
    "decoder_num_hidden_layers",
    "speech_encoder_layers",
    "t2u_encoder_layers",
    "t2u_decoder_layers",
    "local_num_hidden_layers",
    "decoder_num_layers",
    "encoder_num_layers",
    "resampler_depth",
    "memory_attention_num_layers",
    "num_attention_layers",
)
"""Fields that hold a number of layers."""

STAGES = ("depths", "num_blocks", "stage_repeats", "layers_per_stage", "num_block_repeats")
"""Fields that hold a number of layers for each stage."""

REACHES = {
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "num_kv_shared_layers": 0,
    "moe_layer_start_index": 1,
    "num_nextn_predict_layers": 0,
    "num_mtp_layers": 0,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "speech_encoder_layerdrop": 0.0,
}
"""Fields that name a layer by its number, or switch one off at random, and what they become with two layers."""


UNCUT = {"zamba", "zamba2"}
"""Model types whose layers share weights by their number, so that none can be left out."""


def tiny_config(model_type: str) -> PretrainedConfig:
    """The default configuration of a model type, cut to two layers.

    Where layers are of several kinds (attention and state space, dense and experts), one of each is kept.

    Example:
        >>> tiny_config("bert").num_hidden_layers
        2

    Args:
        model_type: a key of `transformers.CONFIG_MAPPING`.

    Returns:
        A configuration that `hf_gammareg.inputs.sources.model_from_config` takes.
    """
    config = DEFAULTS.get(model_type, CONFIG_MAPPING[model_type])()
    if model_type not in UNCUT:
        for view in nested(config):
            _cut(view)
    _join(config)
    if model_type in SPECIAL:
        SPECIAL[model_type](config)
    return config


HEADS = (
    "IMAGE_CLASSIFICATION",
    "SEQUENCE_CLASSIFICATION",
    "CAUSAL_LM",
    "AUDIO_CLASSIFICATION",
    "CTC",
    "SPEECH_SEQ_2_SEQ",
    "OBJECT_DETECTION",
    "SEMANTIC_SEGMENTATION",
    "INSTANCE_SEGMENTATION",
    "UNIVERSAL_SEGMENTATION",
    "IMAGE_SEGMENTATION",
    "DEPTH_ESTIMATION",
    "VIDEO_CLASSIFICATION",
    "MASKED_LM",
    "SEQ_TO_SEQ_CAUSAL_LM",
)
"""The tasks of transformers' auto classes whose model types count as models with a head."""


def model_types() -> list[str]:
    """Model types with a vision, video, text, audio, detection, segmentation or depth head, sorted."""
    from transformers.models.auto import modeling_auto

    names: set[str] = set()
    for head in HEADS:
        names.update(getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES"))
    return sorted(names & set(CONFIG_MAPPING.keys()))


def nested(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """A configuration and all that it holds."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PretrainedConfig):
            yield from nested(value)


def _cut(config: PretrainedConfig) -> None:
    fields = vars(config)
    taps = fields.get("_out_indices") or fields.get("out_indices") or []
    if isinstance(taps, list | tuple) and taps and max(taps) > LAYERS and not any(name in fields for name in STAGES):
        return  # a backbone, tapped at layers that a cut would remove
    staged = {len(fields[name]) for name in STAGES if isinstance(fields.get(name), list | tuple)}
    for name in DEPTHS:
        count = fields.get(name)
        if count in staged and name == "num_layers":  # the number of stages
            continue
        if not isinstance(count, int) or isinstance(count, bool) or count <= LAYERS:
            continue
        kept = _kept(fields, count)
        for other, value in list(fields.items()):
            if isinstance(value, list | tuple) and len(value) == count and other not in STAGES:
                setattr(config, other, type(value)(value[i] for i in kept))
        setattr(config, name, len(kept))
    for name in STAGES:
        value = fields.get(name)
        if isinstance(value, list | tuple) and all(isinstance(item, int) for item in value):
            setattr(config, name, type(value)(min(item, LAYERS) for item in value))
    for name, value in REACHES.items():
        if isinstance(before := fields.get(name), int | float) and before > value:
            setattr(config, name, value)


def _join(config: PretrainedConfig) -> None:
    """Make a vision tower's outputs as wide as the text model's tokens, where the defaults of the two differ."""
    vision, text = getattr(config, "vision_config", None), getattr(config, "text_config", None)
    width = getattr(text, "hidden_size", None)
    if width and getattr(vision, "out_hidden_size", None):
        vision.out_hidden_size = width


def _kept(fields: dict[str, Any], count: int) -> list[int]:
    """Indices of the layers to keep: two, and one of each kind."""
    kinds = fields.get("layer_types") or fields.get("layers_block_type") or [None] * count
    seen = {kind: i for i, kind in reversed(list(enumerate(kinds[:count])))}
    kept = set(seen.values())
    for i in range(count):
        if len(kept) >= LAYERS:
            break
        kept.add(i)
    return sorted(kept)


def _with(**fields: Any) -> Callable[[Any], None]:
    """A change to a configuration: these fields, in the nested one that a dotted name's first part names."""

    def change(config: Any) -> None:
        for name, value in fields.items():
            *path, field = name.split("__")
            holder = config
            for part in path:
                holder = getattr(holder, part)
            setattr(holder, field, value)

    return change


def _head_dim(config: Any) -> None:
    config.head_dim = config.hidden_size // config.num_attention_heads


def _of(model_type: str, **fields: Any) -> Callable[[], PretrainedConfig]:
    return lambda: CONFIG_MAPPING[model_type](**fields)


def _pair(name: str, encoder: str, decoder: str) -> Callable[[], PretrainedConfig]:
    """A configuration of two: an encoder and a decoder that attends to it."""

    def make() -> PretrainedConfig:
        first = CONFIG_MAPPING[encoder]()
        second = CONFIG_MAPPING[decoder](is_decoder=True, add_cross_attention=True)
        config = CONFIG_MAPPING[name].from_encoder_decoder_configs(first, second)
        config.decoder_start_token_id, config.pad_token_id = 0, 0
        return config

    return make


DEFAULTS: dict[str, Callable[[], PretrainedConfig]] = {
    "encoder-decoder": _pair("encoder-decoder", "bert", "bert"),
    "speech-encoder-decoder": _pair("speech-encoder-decoder", "wav2vec2", "bert"),
    "vision-encoder-decoder": _pair("vision-encoder-decoder", "vit", "bert"),
    "vision-text-dual-encoder": lambda: CONFIG_MAPPING["vision-text-dual-encoder"].from_vision_text_configs(
        CONFIG_MAPPING["vit"](), CONFIG_MAPPING["bert"]()
    ),
    "dots1": _of("dots1", n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2),
    "esm": _of("esm", vocab_size=33, pad_token_id=1, mask_token_id=32, position_embedding_type="rotary"),
    "gemma4_assistant": lambda: CONFIG_MAPPING["gemma4_assistant"](
        text_config=CONFIG_MAPPING["gemma4_text"](hidden_size_per_layer_input=0, vocab_size_per_layer_input=0)
    ),
    "lw_detr": _of("lw_detr", projector_scale_factors=[1.0]),
    "lfm2_moe": _of("lfm2_moe", num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"]),
}
"""Model types whose configuration has no usable default."""

SPECIAL: dict[str, Callable[[Any], None]] = {
    "cohere_compass_text": _with(
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    ),
    "blip-2": _with(image_token_index=50000),
    # Patches and experts chosen by the data are traced on the CPU, with real weights: few and narrow ones.
    "blt": _with(encoder_hash_byte_group_vocab=1000),
    "dbrx": _with(
        attn_config__rope_theta=10000.0,
        attn_config__clip_qkv=8.0,
        d_model=256,
        ffn_config__hidden_size=256,
        ffn_config__ffn_hidden_size=256,
    ),
    # As many tokens for an image as the default vision tower's 14 x 14 patches can be pooled to.
    **dict.fromkeys(("gemma3", "shieldgemma2"), _with(mm_tokens_per_image=49)),
    "longcat_flash": _with(hidden_size=512, ffn_hidden_size=256, expert_ffn_hidden_size=64, n_routed_experts=8),
    "eomt": _with(num_blocks=1),
    "eomt_dinov3": _with(num_blocks=1),
    "deepseek_v2": _with(num_experts_per_tok=2),
    "hunyuan_v1_dense": _head_dim,
    "hunyuan_v1_moe": _head_dim,
    "ministral": _head_dim,
    "voxtral": _with(audio_token_id=24),
    "nemotron": _with(num_key_value_heads=8),
    "qwen2_vl": lambda config: setattr(config.vision_config, "hidden_size", config.text_config.hidden_size),
    "pp_doclayout_v2": _with(class_thresholds=[0.5] * 25, class_order=list(range(25))),
}
"""What else a model type needs: values for fields whose default does not build, or does not run."""
