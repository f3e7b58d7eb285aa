"""Example inputs: what each library's models say of themselves, and that asking leaves no trace."""

import re

import pytest
import timm
import torch
import transformers
from timm.layers import convert_splitbn_model
from torch import nn

from hf_gammareg import find_gammas
from hf_gammareg.errors import GammaRegError
from hf_gammareg.inputs.derive import derive_inputs


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
    (images,), kwargs = derive_inputs(model)
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
    _, kwargs = derive_inputs(model)
    assert kwargs["pixel_values"].shape == (2, 1, 32, 32)
    assert model(**kwargs).logits.shape[0] == 2


def test_type_and_device_are_the_models():
    _, kwargs = derive_inputs(vit().to(torch.bfloat16))
    assert kwargs["pixel_values"].dtype == torch.bfloat16
    with torch.device("meta"):
        model = vit()
    assert derive_inputs(model)[1]["pixel_values"].device.type == "cpu"  # on meta it would have no values
    assert derive_inputs(model, "meta")[1]["pixel_values"].device.type == "meta"


def test_token_ids_are_words():
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=7
    )
    _, kwargs = derive_inputs(transformers.BertForSequenceClassification(config))
    ids = kwargs["input_ids"]
    assert ids.shape == (2, 16)
    assert ids.dtype == torch.int64
    assert ids.max() < 40
    assert (ids != 7).all()
    assert ids.unique().numel() > 3


def test_wrappers_are_looked_through():
    model = vit()
    assert derive_inputs(nn.DataParallel(model))[1].keys() == derive_inputs(model)[1].keys()


def test_nothing_is_left_behind():
    model = timm.create_model("test_resnet")
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    first, second = derive_inputs(model)[0][0], derive_inputs(model)[0][0]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(first, second)


def test_other_models_need_inputs_of_their_own():
    with pytest.raises(GammaRegError, match=r"Sequential.*Pass example_inputs"):
        derive_inputs(nn.Sequential(nn.Linear(2, 2)))


class Task(nn.Module):
    """A model and a loss of its own, as timm's tasks for distillation are."""

    def __init__(self, model):
        super().__init__()
        self.student, self.projection = model, nn.Linear(4, 4)

    def forward(self, x):
        return self.student(x)


class Labelled(Task):
    def forward(self, x, labels):
        return self.student(x)


def test_a_module_around_a_model_takes_what_it_takes():
    model = timm.create_model("test_resnet")
    assert derive_inputs(Task(model))[0][0].shape == derive_inputs(model)[0][0].shape
    with pytest.raises(GammaRegError, match="Labelled"):
        derive_inputs(Labelled(model))
    with pytest.raises(GammaRegError, match="ModuleList"):
        derive_inputs(nn.ModuleList([model, timm.create_model("test_resnet")]))


@pytest.mark.parametrize("splits", [2, 3])
def test_norms_for_a_part_of_the_batch_have_the_role_of_the_norm_beside_them(splits):
    model = convert_splitbn_model(timm.create_model("test_resnet"), splits)
    found = find_gammas(model)
    beside = {gamma.name: found[re.sub(r"\.aux_bn\.\d", "", gamma.name)].role for gamma in found}
    assert {gamma.name: gamma.role for gamma in found} == beside
    assert "unknown" not in found.counts
    assert len(found) == splits * len(find_gammas(timm.create_model("test_resnet")))


@pytest.mark.parametrize("odd", [{"image_size": "large"}, {"num_channels": [3]}])
def test_a_configuration_that_was_changed_into_nonsense_is_a_reason(odd):
    model = vit()
    for name, value in odd.items():
        object.__setattr__(model.config, name, value)
    found = find_gammas(model)
    assert found.counts == {"unknown": 3}
    assert "Pass" in found.source


class AddsTwo(nn.Module):
    """A module of Lightning's, as far as it says what it takes."""

    def __init__(self, given):
        super().__init__()
        self.example_input_array = given
        self.norm, self.side = nn.LayerNorm(3), nn.LayerNorm(3)

    def forward(self, x, y=None):
        return self.norm(x) if y is None else self.norm(x) + self.side(y)


ONE = torch.ones(1, 3)


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        (ONE, (ONE,), {}),
        ((ONE, ONE), (ONE, ONE), {}),
        ({"x": ONE, "y": ONE}, (), {"x": ONE, "y": ONE}),
        ((ONE, {"nested": ONE}), (ONE, {"nested": ONE}), {}),
    ],
)
def test_example_inputs_that_a_module_holds(given, args, kwargs):
    assert derive_inputs(nn.DataParallel(AddsTwo(given))) == (args, kwargs)


def test_example_inputs_that_a_module_holds_are_taken():
    model = AddsTwo((ONE, ONE))
    assert find_gammas(model).counts == {"final": 2}
    assert find_gammas(model, ONE)["side.weight"].role == "unknown"
    assert model.example_input_array == (ONE, ONE)
    assert derive_inputs(model.to("meta"))[0][0].device.type == "cpu"
    model.example_input_array = ONE.to("meta")
    assert find_gammas(model)["norm.weight"].role == "final"
    model.example_input_array = None
    with pytest.raises(GammaRegError, match="Pass example_inputs"):
        find_gammas(model)
