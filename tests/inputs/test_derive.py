"""Example inputs of transformers model types: each runs, on the meta device, and reaches every part of the model."""

import pytest
import torch
import transformers
from packaging.version import Version
from tiny_configs import model_types, tiny_config

from hf_gammareg.inputs.derive import derive_inputs
from hf_gammareg.inputs.libraries import model_from_config
from hf_gammareg.model.known import KnownIntegers
from hf_gammareg.model.whole import build_on


def built(model_type):
    return build_on(lambda: model_from_config(tiny_config(model_type)), "meta")


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("clip", {"pixel_values"}),
        ("deit", {"pixel_values"}),
        ("timesformer", {"pixel_values"}),
        ("siglip2", {"pixel_values", "pixel_attention_mask", "spatial_shapes"}),
        ("t5", {"input_ids", "decoder_input_ids", "use_cache"}),
        ("layoutlm", {"input_ids", "bbox"}),
        ("speech_to_text", {"input_features", "decoder_input_ids", "use_cache"}),
        ("wav2vec2", {"input_values"}),
        ("audio-spectrogram-transformer", {"input_values"}),
        ("speecht5", {"input_values", "decoder_input_values", "use_cache"}),
        ("perceiver", {"inputs"}),
        ("qwen2_vl", {"input_ids", "pixel_values", "image_grid_thw", "mm_token_type_ids", "use_cache"}),
        ("vision-encoder-decoder", {"pixel_values", "decoder_input_ids", "use_cache"}),
    ],
)
def test_arguments_and_a_forward_pass(model_type, names):
    model = built(model_type)
    if model_type == "qwen2_vl" and "mrope_section" not in model.config.text_config.rope_parameters:
        pytest.skip(f"the default qwen2_vl of transformers {transformers.__version__} does not run")
    _, kwargs = derive_inputs(model)
    assert set(kwargs) == names
    floats = {
        n: v.to("meta") if isinstance(v, torch.Tensor) and v.is_floating_point() else v for n, v in kwargs.items()
    }
    with torch.no_grad(), KnownIntegers(torch.device("meta")):
        model(**floats)


def test_as_many_image_tokens_as_image_features():
    model = built("qwen2_vl")
    _, kwargs = derive_inputs(model)
    # Two images of 4 x 4 patches, of which the model merges 2 x 2 into one token.
    assert (kwargs["input_ids"] == model.config.image_token_id).sum().item() == 2 * 4
    assert (kwargs["mm_token_type_ids"].bool() == (kwargs["input_ids"] == model.config.image_token_id)).all()


def test_an_image_whose_features_do_not_fit_is_left_out():
    config = tiny_config("qwen2_vl")
    config.vision_config.hidden_size = config.text_config.hidden_size + 128
    _, kwargs = derive_inputs(build_on(lambda: model_from_config(config), "meta"))
    assert set(kwargs) == {"input_ids", "mm_token_type_ids", "use_cache"}


def test_one_row_where_the_model_refuses_more():
    assert derive_inputs(built("gpt2"))[1]["input_ids"].shape[0] == 1
    config = tiny_config("gpt2")
    config.pad_token_id = 0
    assert derive_inputs(build_on(lambda: model_from_config(config), "meta"))[1]["input_ids"].shape[0] == 2


def test_two_layers_of_each_kind_and_more_than_three_hundred_model_types():
    assert len(model_types()) >= (326 if Version(transformers.__version__) >= Version("5.23") else 319)
    assert tiny_config("bert").num_hidden_layers == 2
    assert tiny_config("swin").depths == (2, 2, 2, 2)
    assert set(tiny_config("qwen3_next").layer_types) == {"linear_attention", "full_attention"}
