"""Example inputs: what each library's models say of themselves, and that asking leaves no trace."""

import pytest
import timm
import torch
import transformers
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.inputs.derive import example_inputs


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("test_resnet", {}, (2, 3, 160, 160)),
        ("test_resnet", {"in_chans": 1}, (2, 1, 160, 160)),
        ("vit_tiny_patch16_224", {"img_size": 64}, (2, 3, 64, 64)),
        ("vit_tiny_patch16_224", {"img_size": (32, 64), "in_chans": 4}, (2, 4, 32, 64)),
    ],
)
def test_timm_models_as_they_were_built(name, options, shape):
    model = timm.create_model(name, **options)
    (images,), kwargs = example_inputs(model)
    assert images.shape == shape
    assert kwargs == {}
    assert model(images).shape[0] == 2


def vit(**options):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, **options
    )
    return transformers.ViTForImageClassification(config)


def test_transformers_image_model():
    model = vit(num_channels=1)
    _, kwargs = example_inputs(model)
    assert kwargs["pixel_values"].shape == (2, 1, 32, 32)
    assert model(**kwargs).logits.shape[0] == 2


def test_type_and_device_are_the_models():
    _, kwargs = example_inputs(vit().to(torch.bfloat16))
    assert kwargs["pixel_values"].dtype == torch.bfloat16
    with torch.device("meta"):
        model = vit()
    assert example_inputs(model)[1]["pixel_values"].device.type == "cpu"  # on meta it would have no values
    assert example_inputs(model, "meta")[1]["pixel_values"].device.type == "meta"


def test_token_ids_are_words():
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=7
    )
    _, kwargs = example_inputs(transformers.BertForSequenceClassification(config))
    ids = kwargs["input_ids"]
    assert ids.shape == (2, 16)
    assert ids.dtype == torch.int64
    assert ids.max() < 40
    assert (ids != 7).all()
    assert ids.unique().numel() > 3


def test_wrappers_are_looked_through():
    model = vit()
    assert example_inputs(nn.DataParallel(model))[1].keys() == example_inputs(model)[1].keys()


def test_nothing_is_left_behind():
    model = timm.create_model("test_resnet")
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    first, second = example_inputs(model)[0][0], example_inputs(model)[0][0]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(first, second)


def test_other_models_need_inputs_of_their_own():
    with pytest.raises(GammaRegError, match=r"Sequential.*Pass example_inputs"):
        example_inputs(nn.Sequential(nn.Linear(2, 2)))
