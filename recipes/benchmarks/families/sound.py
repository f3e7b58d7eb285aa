"""Networks for speech and sound, of SpeechBrain and torchaudio, small: a line for each kind."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from families.recipe import Inputs, Recipes, floats, given, made, normal, tokens

FRAMES = floats(2, 64, 40)
WAVE = floats(2, 1, 4000)
LAYERS: dict[str, Any] = {"num_layers": 2, "d_model": 32, "nhead": 2}


def lengths(number: int) -> Tensor:
    """The lengths of two rows without padding."""
    return torch.full((2,), number)


SPEECHBRAIN: dict[str, tuple[str, Inputs, dict[str, Any]]] = {
    "ECAPA": (
        "ECAPA_TDNN:ECAPA_TDNN",
        FRAMES,
        {
            "input_size": 40,
            "channels": [16, 16, 16, 16, 48],
            "attention_channels": 8,
            "se_channels": 8,
            "lin_neurons": 16,
        },
    ),
    "Xvector": ("Xvector:Xvector", FRAMES, {"in_channels": 40, "tdnn_channels": [16] * 5, "lin_neurons": 16}),
    "ResNet": ("ResNet:ResNet", FRAMES, {"input_size": 40, "channels": [8, 8, 16, 16], "block_sizes": [1, 1, 1, 1]}),
    "CRDNN": (
        "CRDNN:CRDNN",
        FRAMES,
        {"input_shape": [2, 64, 40], "cnn_channels": [8, 8], "rnn_layers": 1, "rnn_neurons": 16, "dnn_neurons": 16},
    ),
    "ContextNet": (
        "ContextNet:ContextNet",
        FRAMES,
        {"input_shape": [2, 64, 40], "out_channels": 16, "conv_channels": [16] * 21, "num_layers": 2, "inner_dim": 4},
    ),
    "Cnn14": ("Cnn14:Cnn14", floats(2, 64, 64), {"mel_bins": 64, "emb_dim": 32}),
    "Cnn14-instance": ("Cnn14:Cnn14", floats(2, 64, 64), {"mel_bins": 64, "emb_dim": 32, "norm_type": "in"}),
    "ConvTasNet-gLN": (
        "conv_tasnet:MaskNet",
        floats(2, 16, 50),
        {"N": 16, "B": 8, "H": 16, "P": 3, "X": 2, "R": 2, "C": 2, "norm_type": "gLN"},
    ),
    "ConvTasNet-cLN": (
        "conv_tasnet:MaskNet",
        floats(2, 16, 50),
        {"N": 16, "B": 8, "H": 16, "P": 3, "X": 2, "R": 2, "C": 2, "norm_type": "cLN", "causal": True},
    ),
    "Sepformer": (
        "dual_path:SepformerWrapper",
        floats(2, 2000),
        {
            "encoder_out_nchannels": 32,
            "masknet_chunksize": 20,
            "masknet_numlayers": 1,
            "intra_numlayers": 1,
            "inter_numlayers": 1,
            "intra_nhead": 2,
            "inter_nhead": 2,
            "intra_dffn": 64,
            "inter_dffn": 64,
        },
    ),
    "DiffWave": (
        "DiffWave:DiffWave",
        given(partial(normal, 2, 1, 2048), partial(torch.tensor, [3, 7]), partial(normal, 2, 80, 8)),
        {
            "input_channels": 80,
            "residual_layers": 2,
            "residual_channels": 8,
            "dilation_cycle_length": 2,
            "total_steps": 10,
        },
    ),
    "Postnet": ("Tacotron2:Postnet", floats(2, 80, 40), {"postnet_embedding_dim": 16}),
    "Tacotron2-encoder": (
        "Tacotron2:Encoder",
        given(partial(normal, 2, 32, 20), partial(lengths, 20)),
        {"encoder_embedding_dim": 32},
    ),
    "W2VLatentExtractor": ("wav2vec:W2VLatentExtractor", floats(2, 4000), {"out_channels": [16] * 7}),
    "ESPnetVGG": (
        "ESPnetVGG:ESPnetVGG",
        FRAMES,
        {
            "input_shape": [2, 64, 40],
            "cnn_channels": [8, 8],
            "rnn_layers": 1,
            "rnn_neurons": 16,
            "projection_neurons": 16,
        },
    ),
    "ConvolutionFrontEnd": (
        "convolution:ConvolutionFrontEnd",
        FRAMES,
        {"input_shape": [2, 64, 40], "out_channels": [8, 8, 8]},
    ),
    "MetricDiscriminator": ("MetricGAN:MetricDiscriminator", floats(2, 2, 64, 64), {}),
    "Transformer": (
        "transformer.Transformer:TransformerEncoder",
        floats(2, 20, 32),
        LAYERS | {"d_ffn": 64, "normalize_before": True},
    ),
    "Transformer-post": ("transformer.Transformer:TransformerEncoder", floats(2, 20, 32), LAYERS | {"d_ffn": 64}),
    "Decoder": (
        "transformer.Transformer:TransformerDecoder",
        given(partial(normal, 2, 10, 32), partial(normal, 2, 20, 32)),
        LAYERS | {"d_ffn": 64},
    ),
    "Conformer": (
        "transformer.Conformer:ConformerEncoder",
        floats(2, 20, 32),
        LAYERS | {"d_ffn": 64, "attention_type": "regularMHA"},
    ),
    "Branchformer": (
        "transformer.Branchformer:BranchformerEncoder",
        floats(2, 20, 32),
        LAYERS | {"attention_type": "regularMHA", "csgu_linear_units": 64},
    ),
    "TransformerASR": (
        "transformer.TransformerASR:TransformerASR",
        given(partial(normal, 2, 20, 40), partial(tokens, 32, 10)),
        {
            "tgt_vocab": 32,
            "input_size": 40,
            "d_model": 32,
            "nhead": 2,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "d_ffn": 64,
            "normalize_before": True,
        },
    ),
}
"""SpeechBrain's networks by name, each with where it lies, what it takes, and its options."""


def speechbrain() -> Recipes:
    """A small one of each kind."""
    import speechbrain  # noqa: F401

    return {
        name: made(f"speechbrain.lobes.models.{path}", inputs, **options)
        for name, (path, inputs, options) in SPEECHBRAIN.items()
    }


CONFORMER: dict[str, Any] = {
    "input_dim": 32,
    "num_heads": 2,
    "ffn_dim": 64,
    "num_layers": 2,
    "depthwise_conv_kernel_size": 7,
}
TOWER: dict[str, Any] = {
    "extractor_conv_layer_config": [(16, 10, 5), (16, 3, 2)],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 64,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_drop": 0.1,
    "aux_num_out": 10,
}
WAV2VEC = {"extractor_mode": "group_norm", "encoder_layer_norm_first": False}
LARGE = {"extractor_mode": "layer_norm", "encoder_layer_norm_first": True}
WAVLM = {"encoder_max_distance": 8, "encoder_num_buckets": 8}

TORCHAUDIO: dict[str, tuple[str, Inputs, dict[str, Any]]] = {
    "Conformer": ("Conformer", given(partial(normal, 2, 20, 32), partial(lengths, 20)), CONFORMER),
    "Conformer-group": (
        "Conformer",
        given(partial(normal, 2, 20, 32), partial(lengths, 20)),
        CONFORMER | {"use_group_norm": True, "convolution_first": True},
    ),
    "ConvTasNet": ("ConvTasNet", WAVE, {"enc_num_feats": 16, "msk_num_feats": 8, "msk_num_hidden_feats": 16}),
    "Emformer": (
        "Emformer",
        given(partial(normal, 2, 20, 32), partial(lengths, 16)),
        {
            "input_dim": 32,
            "num_heads": 2,
            "ffn_dim": 64,
            "num_layers": 2,
            "segment_length": 4,
            "right_context_length": 4,
            "left_context_length": 4,
        },
    ),
    "HDemucs": ("HDemucs", floats(2, 2, 16384), {"sources": ["a", "b"], "channels": 8, "depth": 4, "nfft": 1024}),
    "Tacotron2": (
        "Tacotron2",
        given(partial(tokens, 32, 12), partial(lengths, 12), partial(normal, 2, 80, 8), partial(lengths, 8)),
        {"n_symbol": 32},
    ),
    "WaveRNN": (
        "WaveRNN",
        given(partial(normal, 2, 1, 200), partial(normal, 2, 1, 80, 8)),
        {"upsample_scales": [5, 5, 2], "n_classes": 16, "hop_length": 50, "n_freq": 80, "kernel_size": 5},
    ),
    "DeepSpeech": ("DeepSpeech", floats(2, 1, 20, 40), {"n_feature": 40, "n_hidden": 16, "n_class": 10}),
    "wav2vec2": ("wav2vec2_model", floats(2, 4000), TOWER | WAV2VEC),
    "wav2vec2-large": ("wav2vec2_model", floats(2, 4000), TOWER | LARGE),
    "wavlm": ("wavlm_model", floats(2, 4000), TOWER | WAV2VEC | WAVLM),
    "squim": ("squim_objective_base", floats(2, 8000), {}),
    "wav2letter": ("Wav2Letter", WAVE, {"input_type": "waveform", "num_features": 1}),
}
"""torchaudio's networks by name, each with its class, what it takes, and its options."""


def torchaudio() -> Recipes:
    """A small one of each kind."""
    import torchaudio  # noqa: F401

    return {
        name: made(f"torchaudio.models:{kind}", inputs, **options)
        for name, (kind, inputs, options) in TORCHAUDIO.items()
    }
