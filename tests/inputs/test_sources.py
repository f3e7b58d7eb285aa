"""Models by name: what is built, on which device, and one clear error for each bad name."""

import json
import socket

import pytest
import timm
import torch
from transformers import BertConfig

from hf_gammareg.errors import GammaRegError
from hf_gammareg.inputs.sources import load_source


def on_the_hub() -> bool:
    try:
        socket.create_connection(("huggingface.co", 443), timeout=3).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("source", "class_name", "shape"),
    [
        ("timm/resnet18", "ResNet", (2, 3, 224, 224)),
        ("timm/resnet18.a1_in1k", "ResNet", (2, 3, 224, 224)),
        ("torchvision/resnet18", "ResNet", (2, 3, 224, 224)),
        ("torchvision/inception_v3", "Inception3", (2, 3, 299, 299)),
        ("transformers/resnet", "ResNetForImageClassification", (2, 3, 224, 224)),
        ("transformers/bert", "BertForSequenceClassification", (2, 16)),
        ("transformers/gpt2", "GPT2ForSequenceClassification", (1, 16)),
        ("transformers/trocr", "TrOCRForCausalLM", (2, 16)),
    ],
)
def test_builds_on_meta_in_train_mode(source, class_name, shape):
    loaded = load_source(source)
    assert type(loaded.model).__name__ == class_name
    assert loaded.name == source
    assert loaded.model.training
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"meta"}
    first = [*loaded.args, *loaded.kwargs.values()][0]
    assert first.shape == shape
    assert first.device.type == "cpu"  # with values, whatever the model asks of them


def test_caches_are_off():
    loaded = load_source("transformers/gpt2")
    assert loaded.kwargs["use_cache"] is False
    assert loaded.model.config.use_cache is False


def test_on_the_cpu_the_model_runs():
    loaded = load_source("timm/test_resnet", device="cpu")
    assert loaded.model(*loaded.args, **loaded.kwargs).shape == (2, 1000)


def test_neither_stdout_nor_the_random_state_is_touched(capsys):
    before = torch.get_rng_state()
    load_source("timm/test_vit", device="cpu")
    load_source("transformers/bert")
    assert torch.equal(before, torch.get_rng_state())
    assert capsys.readouterr().out == ""


def test_local_folder_of_transformers(tmp_path):
    BertConfig(num_hidden_layers=1, architectures=["BertForMaskedLM"]).save_pretrained(tmp_path)
    assert type(load_source(str(tmp_path)).model).__name__ == "BertForMaskedLM"


def test_local_folder_of_timm(tmp_path):
    config = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {"input_size": [3, 160, 160]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_source(str(tmp_path))
    assert isinstance(loaded.model, timm.models.ResNet)
    assert loaded.model.num_classes == 7


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "test_resnet", "model_args": {"in_chans": 5}},
        {
            "model_type": "perception_lm",
            "text_config": {"num_hidden_layers": 1},
            "vision_config": {
                "model_type": "timm_wrapper",
                "architecture": "test_vit",
                "model_args": {"embed_dim": 64},
            },
        },
    ],
)
def test_a_configuration_reads_no_weights(tmp_path, config):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no weights at all")
    config.get("vision_config", config)["model_args"] |= {"checkpoint_path": str(weights), "pretrained": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_source(str(tmp_path)).model
    assert config.get("vision_config") or model.conv1[0].in_channels == 5


@pytest.mark.parametrize("key", ["model_args", "auto_map"])
def test_a_configuration_whose_parts_are_none(tmp_path, key):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", key: ["x"]}))
    with pytest.raises(GammaRegError, match=f"its {key} is no JSON object"):
        load_source(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("timm/resnet81", ["timm", "resnet81", "Did you mean", "resnet"]),
        ("transformers/brt", ["transformers", "'brt'", "bert"]),
        ("torchvision/resnet81", ["torchvision", "resnet18"]),
        ("resnet18", ["timm/NAME", "'resnet18'", "Did you mean timm/resnet18"]),
        ("bert", ["transformers/bert"]),
        ("resnet50", ["Did you mean timm/resnet50 or torchvision/resnet50?"]),
        ("a/b/c", ["timm/NAME", "nothing at 'a/b/c'"]),
        ("./bert", ["nothing at './bert'", "Check the path"]),
        ("~/nosuchdir", ["nothing at '~/nosuchdir'"]),
        ("weights.gguf", ["nothing at 'weights.gguf'"]),
        ("timm/", ["timm/NAME"]),
        ("", ["timm/NAME"]),
        ("not a/model id", ["not a/model id"]),
    ],
)
def test_unknown_name(source, words):
    with pytest.raises(GammaRegError) as raised:
        load_source(source)
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"model_type": "martian"}', '{"architecture": "martian"}'])
def test_folder_without_a_usable_configuration(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(GammaRegError, match="Expected"):
        load_source(str(tmp_path))


STOCK = {"model_type": "bert", "num_hidden_layers": 1}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"auto_map": {"AutoModel": "modeling.MyBert"}, "architectures": ["BertModel"]},
            "'modeling.MyBert' in auto_map",
        ),
        ({"architectures": ["MyBertForNothing"]}, "found 'MyBertForNothing'"),
        ({"hidden_size": "many"}, "'hidden_size'.*many"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple of the number of attention heads"),
    ],
)
def test_never_another_model_in_silence(tmp_path, config, words):
    (tmp_path / "config.json").write_text(json.dumps(STOCK | config))
    with pytest.raises(GammaRegError, match=rf"^Expected .*{words}"):
        load_source(str(tmp_path))


def test_code_for_anything_but_the_model_does_not_matter(tmp_path):
    config = STOCK | {"auto_map": {"AutoTokenizer": ["tokens.MyTokenizer", None]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(load_source(str(tmp_path / "config.json")).model).__name__ == "BertForSequenceClassification"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.gguf", "", r"quantised weights \(GGUF\)"),
        ("model.safetensors", "", "found weights"),
        ("last.ckpt", "", "a checkpoint of Lightning"),
        ("notes.txt", "", "found a file"),
        ("folder/last.ckpt", "", "found 'last.ckpt'.*LightningModule"),
        ("folder/adapter_config.json", '{"base_model_name_or_path": "google/vit"}', "adapter of PEFT.*google/vit"),
        ("folder/adapter_config.json", "{", "adapter of PEFT.*the model that it was trained on"),
    ],
)
def test_what_is_no_configuration_is_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(GammaRegError, match=words):
        load_source(str(path if path.parent == tmp_path else path.parent))


def test_hub_out_of_reach(monkeypatch, tmp_path):
    import huggingface_hub

    def refuse():
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_session", refuse)
    with pytest.raises(GammaRegError, match=r"can't be reached.*Check the connection"):
        load_source("nobody/never-cached-model")
    with pytest.raises(GammaRegError, match=r"Did you mean timm/resnet50 or "):
        load_source("tim/resnet50")


@pytest.mark.hub
def test_hub_id():
    if not on_the_hub():
        pytest.skip("the Hugging Face Hub can't be reached from here")
    assert type(load_source("google/vit-base-patch16-224").model).__name__ == "ViTForImageClassification"
    assert isinstance(load_source("timm/resnet18.a1_in1k").model, timm.models.ResNet)
