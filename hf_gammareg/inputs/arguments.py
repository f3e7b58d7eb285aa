"""How each argument of a transformers model's `forward` is made, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_gammareg.inputs.facts import Facts

FRAMES = 64
"""Frames of a spectrogram, where the model does not ask for another number."""

SAMPLES = 4000
"""Samples of a wave form: a quarter of a second."""

GRID = 4
"""Patches along each side of an image that is handed over as a list of patches."""


def input_ids(facts: Facts) -> Tensor:
    """A row of words for each example; encoder-decoder models look for the end of the sentence in it."""
    ids = facts.ids(facts.batch, facts.length)
    end = facts.look("eos_token_id")
    if getattr(facts.config, "is_encoder_decoder", False) and isinstance(end, int) and end < facts.vocabulary:
        return torch.cat([ids[:, :-1], torch.full_like(ids[:, -1:], end)], dim=1)
    return ids


def decoder_input_ids(facts: Facts) -> Tensor:
    """A row of words of the decoder's vocabulary for each example."""
    size = facts.look("decoder_vocab_size", "vocab_size", part="decoder")
    return facts.ids(facts.batch, facts.length, vocabulary=size)


def pixel_values(facts: Facts) -> Tensor:
    """Images; videos for a model of videos; a list of patches where a grid says which image they belong to."""
    if "image_grid_thw" in facts.accepts or "grid_thw" in facts.accepts:
        return facts.floats(facts.batch * GRID * GRID, patch_width(facts))
    if frames := getattr(facts.config, "num_frames", None):
        return facts.floats(facts.batch, int(frames), facts.channels, *facts.image_size)
    return facts.floats(facts.batch, facts.channels, *facts.image_size)


def patch_width(facts: Facts) -> int:
    """Numbers in a flattened patch."""
    patch = int(facts.look("patch_size", part="vision", default=14))
    return facts.channels * int(facts.look("temporal_patch_size", part="vision", default=1)) * patch * patch


def image_grid_thw(facts: Facts) -> Tensor:
    """For each image the number of frames, rows and columns of its patches."""
    return facts.integers([[1, GRID, GRID]] * facts.batch)


def image_sizes(facts: Facts) -> Tensor:
    """Height and width of each image."""
    return facts.integers([facts.image_size] * facts.batch)


def input_features(facts: Facts) -> Tensor:
    """Spectrograms: mel channels first where the model's first layer is a convolution over them, else frames first."""
    mels = mel_channels(facts)
    positions = facts.look("max_source_positions", part="audio")
    if any(isinstance(m, nn.Conv1d) and m.in_channels == mels and n.endswith("conv1") for n, m in facts.named_modules):
        return facts.floats(facts.batch, mels, 2 * int(positions) if positions else FRAMES)
    return facts.floats(facts.batch, FRAMES, mels)


def feature_mask(facts: Facts) -> Tensor:
    """A mask over the frames of `input_features`, without padding."""
    features = input_features(facts)
    frames = features.shape[2] if features.shape[1] == mel_channels(facts) else features.shape[1]
    return facts.ones(facts.batch, frames).bool()


def mel_channels(facts: Facts) -> int:
    """Features of a frame of audio."""
    names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel", "input_dim", "feature_size")
    return int(facts.look(*names, part="audio", default=80))


def input_values(facts: Facts) -> Tensor:
    """Wave forms; with a channel axis for codecs."""
    if channels := facts.look("audio_channels"):
        return facts.floats(facts.batch, int(channels), SAMPLES)
    return facts.floats(facts.batch, SAMPLES)


def boxes(facts: Facts) -> Tensor:
    """A box on a page of 1000 x 1000 for each word: left, top, right, bottom."""
    row = [[10 * i, 20, 10 * i + 8, 40] for i in range(facts.length)]
    return facts.integers([row] * facts.batch)


def past_values(facts: Facts) -> Tensor:
    """A history of each series."""
    steps = int(facts.look("context_length", default=32)) + max(facts.look("lags_sequence", default=[0]))
    channels = int(facts.look("num_input_channels", "input_size", default=1))
    shape = (facts.batch, steps) if channels == 1 and "past_time_features" in facts.accepts else None
    return facts.floats(*(shape or (facts.batch, steps, channels)))


def ones_like_text(facts: Facts) -> Tensor:
    """A mask without padding."""
    return facts.ones(facts.batch, facts.length)


ARGUMENTS: dict[str, Callable[[Facts], Any]] = {
    "input_ids": input_ids,
    "decoder_input_ids": decoder_input_ids,
    "attention_mask": ones_like_text,
    "pixel_values": pixel_values,
    "pixel_values_videos": lambda facts: facts.floats(
        facts.batch, int(facts.look("num_frames", "frames_per_clip", default=8)), facts.channels, *facts.image_size
    ),
    "image_grid_thw": image_grid_thw,
    "image_sizes": image_sizes,
    "input_features": input_features,
    "audio_features": input_features,
    "input_features_mask": feature_mask,
    "feature_attention_mask": feature_mask,
    "inputs": lambda facts: input_values(facts) if facts.asks("audio") else pixel_values(facts),
    "input_values": input_values,
    "bbox": boxes,
    "past_values": past_values,
    "past_observed_mask": lambda facts: torch.ones_like(past_values(facts)),
}
"""How each argument is made. An argument without a rule is an error where the model requires it."""

OPTIONAL: dict[str, Callable[[Facts], bool]] = {
    "input_ids": lambda facts: facts.asks("text") or "bbox" in facts.accepts,
    "decoder_input_ids": lambda facts: bool(getattr(facts.config, "is_encoder_decoder", False)),
    "pixel_values": lambda facts: facts.asks("image"),
    "image_grid_thw": lambda facts: facts.asks("image"),
    "input_features": lambda facts: facts.asks("audio"),
    "input_values": lambda facts: facts.asks("audio"),
    "input_features_mask": lambda facts: facts.asks("audio"),
    "feature_attention_mask": lambda facts: facts.asks("audio"),
    "bbox": lambda facts: True,
}
"""Arguments that the model does not require, and when they are made all the same: without them a part would not run."""


# --- arguments of single model types --------------------------------------------------------------------------------


def _siglip2(facts: Facts) -> dict[str, Any]:
    """Images as lists of patches, each image with the number of rows and columns of its patches."""
    side = int(facts.look("num_patches", part="vision", default=256) ** 0.5)
    patch = int(facts.look("patch_size", part="vision", default=16))
    return {
        "pixel_values": facts.floats(facts.batch, side * side, facts.channels * patch * patch),
        "pixel_attention_mask": facts.ones(facts.batch, side * side),
        "spatial_shapes": facts.integers([[side, side]] * facts.batch),
    }


def _clap(facts: Facts) -> dict[str, Any]:
    """Spectrograms as images of one channel."""
    mels, side = int(facts.look("num_mel_bins", part="audio")), int(facts.look("spec_size", part="audio", default=256))
    frames = side * side // mels
    return {
        "input_features": facts.floats(facts.batch, 1, frames, mels),
        "is_longer": facts.ones(facts.batch, 1).bool(),
    }


def _spectrogram(facts: Facts) -> dict[str, Any]:
    """AST: a spectrogram of a fixed length under the name of a wave form."""
    return {"input_values": facts.floats(facts.batch, int(facts.config.max_length), int(facts.config.num_mel_bins))}


def _codes(facts: Facts, books: int, name: str) -> dict[str, Any]:
    """Audio codes: a token of each code book for each step."""
    return {name: facts.ids(facts.batch, 8, books, vocabulary=int(facts.look("codebook_size", "vocab_size")))}


def _patch_images(facts: Facts) -> dict[str, Any]:
    """Depth Pro: an image large enough for each of its scales to be cut into patches."""
    patch = facts.look("patch_size")
    side = int((patch if isinstance(patch, int) else patch[0]) / min(facts.config.scaled_images_ratios))
    return {"pixel_values": facts.floats(facts.batch, facts.channels, side, side)}


def _codebooks(facts: Facts) -> dict[str, Any]:
    """MusicGen: a row for each code book of each example."""
    books = int(facts.look("num_codebooks", part="decoder"))
    return {"decoder_input_ids": facts.ids(facts.batch * books, 8, vocabulary=2048), "input_features": None}


def _windows(facts: Facts) -> dict[str, Any]:
    """Images that fall into whole windows of whole patches."""
    unit = int(facts.look("patch_size", part="backbone")) * int(facts.look("num_windows", part="backbone"))
    return {"pixel_values": facts.floats(facts.batch, facts.channels, 8 * unit, 8 * unit)}


def _frames(count: int, mels: int | None = None) -> Callable[[Facts], dict[str, Any]]:
    """Spectrograms of a number of frames that the encoder's chunks divide, frames first where `mels` is given."""

    def make(facts: Facts) -> dict[str, Any]:
        width = mels or mel_channels(facts)
        shape = (facts.batch, count, width) if mels else (facts.batch, width, count)
        return {"input_features": facts.floats(*shape), "input_features_mask": facts.ones(facts.batch, count).bool()}

    return make


def _image_list(facts: Facts) -> dict[str, Any]:
    """A list of images, of one here, for each row of text."""
    return {"pixel_values": facts.floats(facts.batch, 1, facts.channels, *facts.image_size)}


def _one_channel(facts: Facts) -> dict[str, Any]:
    """Wave forms with a dimension for their one channel."""
    return {"input_values": facts.floats(facts.batch, 1, 16000)}


def _speecht5(facts: Facts) -> dict[str, Any]:
    mels = int(facts.config.num_mel_bins)
    made: dict[str, Any] = {"decoder_input_ids": None, "input_ids": None}
    if "decoder_input_values" in facts.accepts:
        # The bare model has no prenet: it takes hidden states on both sides.
        width = int(facts.config.hidden_size) if type(facts.model).__name__ == "SpeechT5Model" else mels
        made["decoder_input_values"] = facts.floats(facts.batch, 8, width)
        made["input_values"] = facts.floats(facts.batch, 16, width)
    return made


SPECIAL: dict[str, Callable[[Facts], dict[str, Any]]] = {
    "audio-spectrogram-transformer": _spectrogram,
    "canine": lambda facts: {"input_ids": facts.ids(facts.batch, 64, vocabulary=1000)},
    "clap": _clap,
    "depth_pro": _patch_images,
    "dia": lambda facts: {
        "decoder_input_ids": facts.ids(facts.batch, 8, int(facts.look("num_channels", part="decoder")), vocabulary=1024)
    },
    "musicgen": _codebooks,
    "musicgen_melody": _codebooks,
    "oneformer": lambda facts: {
        "task_inputs": facts.ids(facts.batch, int(facts.config.task_seq_len), vocabulary=49408)
    },
    "rf_detr": _windows,
    "gemma3n": lambda facts: _frames(64, 128)(facts) | {"pixel_values": pixel_values(facts)},
    "granite_speech5_ctc": lambda facts: {
        "input_features": facts.floats(facts.batch, 64, 4 * int(facts.look("num_mel_bins")))
    },
    "longt5": lambda facts: {"attention_mask": facts.ones(facts.batch, facts.length)},
    "modernvbert": _image_list,
    "perceiver": lambda facts: {
        "inputs": facts.floats(facts.batch, facts.channels, *facts.image_size),
        "pixel_values": None,
    },
    "qwen3_asr": _frames(200),
    "siglip2": _siglip2,
    **dict.fromkeys(("omniasr", "omniasr_ctc", "vibevoice_asr"), _one_channel),
    # All of it padding: no token of the text has to stand for it.
    "vibevoice": lambda facts: _one_channel(facts) | {"padding_mask": facts.zeros(facts.batch, 16000)},
    "fun_asr_nano": _frames(64, 560),
    "speecht5": _speecht5,
    "voxtral_realtime": lambda facts: {"input_ids": facts.ids(facts.batch, FRAMES // 8)},
    "xmod": lambda facts: {"lang_ids": facts.zeros(facts.batch)},
    "switch_transformers": lambda facts: {"attention_mask": facts.ones(facts.batch, facts.length)},
    "kyutai_speech_to_text": lambda facts: _codes(facts, int(facts.config.num_codebooks) + 1, "input_ids"),
}
"""By model type: arguments that are made otherwise; None leaves one out."""
