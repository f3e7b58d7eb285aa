"""Real architectures of timm and transformers, their roles by short rules on names that only hold for each of them.

Depths and widths are cut where that keeps the rules; nothing has weights (the `meta` device) but where it must.
"""

from fnmatch import fnmatchcase

import pytest
import timm
import torch
import transformers

from hf_gammareg import find_gammas

pytestmark = pytest.mark.slow

TIMM = {
    "resnet18": (
        {},
        {
            "bn1.weight": "trunk",
            "*.downsample.1.weight": "shortcut",
            "*.bn2.weight": "last",
            "*.bn1.weight": "absorbed",
        },
    ),
    "resnet50": (
        {},
        {
            "*.downsample.1.weight": "shortcut",
            "*.bn3.weight": "last",
            "*bn[12].weight": "absorbed",  # the stem's too: the first block has a projection
        },
    ),
    "resnetv2_50": (
        {"layers": (2, 1, 2, 1)},
        {
            "stages.?.blocks.0.norm1.weight": "trunk",  # before the branch and the projection
            "*.norm3.weight": "last",
            "*.norm[12].weight": "absorbed",
            "norm.weight": "final",
        },
    ),
    "vit_tiny_patch16_224": ({"depth": 2}, {"blocks.*.norm[12].weight": "last", "norm.weight": "final"}),
    "deit3_small_patch16_224": ({"depth": 2}, {"blocks.*.norm[12].weight": "last", "norm.weight": "final"}),
    "convnext_tiny": (
        {"depths": (1, 2, 1, 1)},
        {
            "stem.1.weight": "trunk",
            "stages.?.downsample.0.weight": "trunk",
            "stages.?.blocks.?.norm.weight": "last",
            "head.norm.weight": "final",
        },
    ),
    "swin_tiny_patch4_window7_224": (
        {"depths": (1, 1, 2, 1)},
        {
            "patch_embed.norm.weight": "trunk",
            "layers.?.downsample.norm.weight": "trunk",
            "layers.*.norm[12].weight": "last",
            "norm.weight": "final",
        },
    ),
    "efficientnet_b0": (
        {},
        {
            "blocks.[12345].0.bn3.weight": "trunk",  # no skip of its own, the next block has one
            "blocks.6.0.bn3.weight": "absorbed",  # no block with a skip follows
            "blocks.?.?.bn3.weight": "last",
            "blocks.*.bn[12].weight": "absorbed",
            "bn1.weight": "absorbed",
            "bn2.weight": "final",
        },
    ),
    "densenet121": ({"block_config": (2, 2, 3, 2)}, {"features.norm5.weight": "final", "*": "absorbed"}),
    "mixer_s16_224": ({}, {"blocks.*.norm[12].weight": "last", "norm.weight": "final"}),
    "poolformer_s12": (
        {},
        {"stages.*.norm[12].weight": "last", "head.norm.weight": "final"},
    ),
    "repvgg_a0": (
        {},
        {
            "*.identity.weight": "shortcut",
            "stem.*": "absorbed",
            "stages.[012].0.*": "absorbed",  # no identity of its own; the next block norms its identity, too
            "stages.3.0.*": "final",
            "stages.*.bn.weight": "last",
        },
    ),
}
"""By name: options that cut it down, and rules, of which the first that fits holds."""

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = SMALL | {"vocab_size": 50}
GROUPED = WORDS | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
TRANSFORMERS = {
    "ViTForImageClassification": (
        SMALL | {"image_size": 32},
        {"vit.*.layernorm_*.weight": "last", "vit.layernorm.weight": "final"},
    ),
    "ResNetForImageClassification": (
        {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [2, 2]},
        {"*.shortcut.normalization.weight": "shortcut", "*.layer.2.normalization.weight": "last", "*": "absorbed"},
    ),
    "BertForSequenceClassification": (
        WORDS,
        {"bert.encoder.layer.1.output.LayerNorm.weight": "final", "*": "absorbed"},
    ),
    "GPT2LMHeadModel": (
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50},
        {"transformer.h.?.ln_[12].weight": "last", "transformer.ln_f.weight": "final"},
    ),
    "LlamaForCausalLM": (GROUPED, {"model.layers.?.*_layernorm.weight": "last", "model.norm.weight": "final"}),
    "Gemma2ForCausalLM": (
        GROUPED,
        {
            "*.post_*_layernorm.weight": "last",
            "*.input_layernorm.weight": "absorbed",
            "*.pre_feedforward_layernorm.weight": "absorbed",
            "model.norm.weight": "final",
        },
    ),
    "Qwen3ForCausalLM": (
        GROUPED,
        {"*.self_attn.[qk]_norm.weight": "gate", "*layernorm.weight": "last", "model.norm.weight": "final"},
    ),
}


def by_rule(rules, names):
    return {name: next(role for pattern, role in rules.items() if fnmatchcase(name, pattern)) for name in names}


def norms(model):
    """Names of the gains of all that is called norm."""
    return [name for name, p in model.named_parameters() if p.ndim == 1 and name.endswith("weight")]


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    options, rules = TIMM[name]
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    check(model, find_gammas(model), rules)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name):
    options, rules = TRANSFORMERS[name]
    architecture = getattr(transformers, name)
    with torch.device("meta"):
        model = architecture(architecture.config_class(**options))
    found = find_gammas(model)
    check(model, found, rules)
    assert all(gamma.zero_centered == name.startswith("Gemma") for gamma in found)


def check(model, found, rules):
    assert found.source == "export (train mode)"
    assert {gamma.name: str(gamma.role) for gamma in found} == by_rule(rules, norms(model))
    assert all(any(fnmatchcase(gamma.name, pattern) for gamma in found) for pattern in rules), "a rule fits nothing"
    assert not found.not_gammas


def test_placements_and_exactness():
    """Pre-norms are read by a weight layer, branch-end norms reach the add; ResNets hold nothing that bends."""
    with torch.device("meta"):
        resnet, vit = timm.create_model("resnet18"), timm.create_model("vit_tiny_patch16_224", depth=1)
    assert all(gamma.exact for gamma in find_gammas(resnet))
    assert {gamma.placement for gamma in find_gammas(resnet).by_role("last", "shortcut")} == {"output"}
    found = find_gammas(vit)
    assert {gamma.placement for gamma in found.by_role("last")} == {"input"}
    assert not any(gamma.exact for gamma in found.by_role("last"))


def test_a_decoder_alone_does_not_reach_its_cross_attention():
    config = transformers.BertConfig(**WORDS, is_decoder=True, add_cross_attention=True)
    with torch.device("meta"):
        model = transformers.BertLMHeadModel(config)
    found = find_gammas(model)
    crossing = [gamma for gamma in found if "crossattention" in gamma.name]
    assert len(crossing) == 2
    assert all(gamma.role == "unknown" and gamma.reason == "Not reached by the example inputs." for gamma in crossing)
    assert "unknown" not in {str(gamma.role) for gamma in found if gamma not in crossing}


def test_a_decoder_reaches_it_with_an_encoding():
    config = transformers.BertConfig(**WORDS, is_decoder=True, add_cross_attention=True)
    model = transformers.BertLMHeadModel(config)
    inputs = {"input_ids": torch.ones(2, 4, dtype=torch.long), "encoder_hidden_states": torch.randn(2, 3, 16)}
    found = find_gammas(model, inputs)
    assert "unknown" not in found.counts
