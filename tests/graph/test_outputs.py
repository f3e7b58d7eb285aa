"""What of all that a model returns decides roles."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn, zeros
from transformers import (
    BartConfig,
    BartModel,
    CLIPConfig,
    CLIPModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import ModelOutput

from hf_gammareg import find_gammas, verify

SIZE = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
IDS = torch.ones(2, 5, dtype=torch.long)


@dataclass
class Plain:
    logits: Any
    features: Any


@dataclass
class Output(ModelOutput):
    logits: Any = None
    features: Any = None


Pair = namedtuple("Pair", "logits features")


class Net(nn.Module):
    """`norm` is absorbed on the way to the logits; beside them, its output is returned too."""

    def __init__(self, made=None):
        super().__init__()
        self.made = made
        self.norm, self.linear, self.last, self.head = (
            nn.LayerNorm(8),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 4),
        )

    def forward(self, x, labels=None):
        features = self.norm(x)
        logits = self.head(self.last(self.linear(features)))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return self.made(features, logits, loss)


def role(made, *given, name="norm.weight"):
    """The role of a gamma; measuring agrees."""
    model = Net(made)
    inputs = (torch.randn(2, 8), *given)
    gammas = find_gammas(model, inputs)
    assert all(measured.agrees for measured in verify(model, inputs, gammas=gammas))
    return gammas[name].role


BY_PRODUCTS = {
    "dictionary": lambda f, y, _: {"logits": y, "features": f},
    "nested": lambda f, y, _: {"logits": y, "inner": {"features": f, "more": [f]}},
    "transformers": lambda f, y, _: Output(logits=y, features=f),
    "named tuple": lambda f, y, _: Pair(y, f),
    "object": lambda f, y, _: Plain(y, f),
}


@pytest.mark.parametrize("made", BY_PRODUCTS.values(), ids=BY_PRODUCTS)
def test_what_the_first_of_named_values_comes_from_is_a_by_product(made):
    assert role(made) == "absorbed"
    assert role(made, name="last.weight") == "final"


MAIN = {
    "alone": lambda f, y, _: f,
    "first": lambda f, y, _: {"features": f, "logits": y},
    "without names": lambda f, y, _: (y, f),
    "a head of its own": lambda f, y, _: {"logits": y, "more": -f},
    "a loss of its own beside": lambda f, y, _: (y, f, f.square().mean()),
}


@pytest.mark.parametrize("made", MAIN.values(), ids=MAIN)
def test_what_else_may_be_trained_on_decides(made):
    assert role(made) == "final"


LOSSES = {
    "named": lambda f, y, loss: {"features": f, "loss": loss, "logits": y},
    "named, of many": lambda f, y, loss: {"part": f.mean(), "loss": loss},
    "first": lambda f, y, loss: (loss, y, f),
    "of what is returned": lambda f, y, loss: (f, y, loss),
    "losses alone": lambda f, y, loss: {"one": loss, "other": 2 * loss},
}


@pytest.mark.parametrize("made", LOSSES.values(), ids=LOSSES)
def test_where_there_is_a_loss_it_decides(made):
    labels = torch.tensor([0, 1])
    assert role(made, labels) == "absorbed"
    assert role(made, labels, name="last.weight") == "final"


def of_t5():
    config = T5Config(num_layers=2, d_model=32, d_kv=8, num_heads=4, d_ff=64, vocab_size=100, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config), "encoder.final_layer_norm.weight"


def of_bart():
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = BartConfig(**sizes, encoder_ffn_dim=64, decoder_ffn_dim=64, d_model=32, vocab_size=100)
    return BartModel(config), "encoder.layers.1.final_layer_norm.weight"


def of_clip():
    text = SIZE | {"vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=SIZE | {"image_size": 64})), (
        "vision_model.post_layernorm.weight"
    )


@pytest.mark.parametrize(("build", "expected"), [(of_t5, "last"), (of_bart, "last"), (of_clip, "absorbed")])
def test_an_encoder_of_transformers_is_decided_by_what_follows_it(build, expected):
    model, name = build()
    assert find_gammas(model)[name].role == expected


def test_labels_change_no_role():
    model, _ = of_t5()
    assert find_gammas(model, {"input_ids": IDS, "labels": IDS}).counts == find_gammas(model).counts


class TakesImages(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x, mask=None):
        if mask is not None and not mask.is_floating_point():
            raise TypeError("a mask is added")
        return self.head(self.norm(x))


@pytest.mark.parametrize("form", [tuple, list])
def test_a_batch_of_a_loader(form):
    images, labels = torch.randn(2, 8), torch.tensor([0, 1])
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4))
    for taker in (model, TakesImages()):
        assert find_gammas(taker, form((images, labels))).counts == {"final": 1}
    vit = ViTForImageClassification(ViTConfig(**SIZE, image_size=32, patch_size=16))
    pixels = zeros(2, 3, 32, 32)
    roles = find_gammas(vit, pixels).counts
    batches = [{"pixel_values": pixels, "labels": labels}, {"pixel_values": pixels, "target": labels}]
    for batch in (*batches, form((pixels, labels)), form(({"pixel_values": pixels}, labels))):
        assert find_gammas(vit, batch).counts == roles


def test_a_batch_that_the_model_takes_in_no_way_says_why():
    (gamma,) = find_gammas(nn.Sequential(nn.LayerNorm(8)), (zeros(2, 7), zeros(2, 7), zeros(2, 7)))
    assert "forward takes" in gamma.reason
