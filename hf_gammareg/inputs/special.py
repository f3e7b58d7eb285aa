"""Model types of transformers whose inputs the configuration and the signature alone don't tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hf_gammareg.inputs.arguments import FRAMES, mel_channels, pixel_values
from hf_gammareg.inputs.facts import Facts


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
    **dict.fromkeys(("vibevoice", "vibevoice_asr"), _one_channel),
    "fun_asr_nano": _frames(64, 560),
    "speecht5": _speecht5,
    "voxtral_realtime": lambda facts: {"input_ids": facts.ids(facts.batch, FRAMES // 8)},
    "xmod": lambda facts: {"lang_ids": facts.zeros(facts.batch)},
    "switch_transformers": lambda facts: {"attention_mask": facts.ones(facts.batch, facts.length)},
    "kyutai_speech_to_text": lambda facts: _codes(facts, int(facts.config.num_codebooks) + 1, "input_ids"),
}
"""By model type: arguments that are made otherwise; None leaves one out."""
