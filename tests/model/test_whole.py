"""Roles of a model that ZeRO-3 has partitioned, here by hand; with DeepSpeed itself in test_engines.py."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from hf_gammareg import GammaRegError, find_gammas, param_groups
from hf_gammareg.model.whole import whole

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONFIG = ViTConfig(**SIZES, image_size=8, patch_size=4, num_labels=3)


def partitioned(model):
    """What `deepspeed.zero.Init` leaves: empty parameters that remember their shapes."""
    for parameter in model.parameters():
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    return model


def records(gammas):
    return [(gamma.name, gamma.role, gamma.numel, gamma.trainable) for gamma in gammas]


def test_the_roles_are_those_of_the_whole_model():
    plain, live = ViTForImageClassification(CONFIG), partitioned(ViTForImageClassification(CONFIG))
    for model in (plain, live):
        model.vit.layernorm.requires_grad_(False)
    pixels = torch.zeros(2, 3, 8, 8)
    found = find_gammas(live, pixels)
    assert records(found) == records(find_gammas(plain, pixels))
    assert {gamma.numel for gamma in found} == {16}
    assert all(parameter.shape == (0,) for parameter in live.parameters())
    groups = param_groups(live, 0.1, gammas=found)
    assert sum(group["params"][0] is live.vit.embeddings.cls_token for group in groups) == 1


IN_DDP = """
import sys, timm, torch, hf_gammareg
from torch.nn.parallel import DistributedDataParallel
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
model = timm.create_model("test_resnet")
plain = hf_gammareg.find_gammas(model)
for wrap in (DistributedDataParallel, lambda model: torch.compile(DistributedDataParallel(torch.compile(model)))):
    wrapped = wrap(model)
    assert hf_gammareg.find_gammas(wrapped) == plain, hf_gammareg.find_gammas(wrapped).source
    (measured,) = hf_gammareg.verify(wrapped, names=plain.names[:1])
    assert measured.agrees and measured.role == plain[measured.name].role
torch.distributed.destroy_process_group()
print(len(plain), plain.source)
"""


def test_a_model_in_ddp_has_the_roles_of_the_model_inside(tmp_path):
    run = [sys.executable, "-c", IN_DDP, str(tmp_path / "store")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("export (train mode)\n"), done.stderr


class Uncopied(ViTForImageClassification):
    def __deepcopy__(self, memo):
        raise TypeError("can't be copied")


def test_where_the_model_can_not_be_copied_its_configuration_tells():
    live = partitioned(Uncopied(CONFIG))
    live.vit.layernorm.requires_grad_(False)
    assert records(find_gammas(live)) == records(find_gammas(whole(live)))
    assert [gamma.name for gamma in find_gammas(live) if not gamma.trainable] == ["vit.layernorm.weight"]
    assert find_gammas(live).counts == {"final": 1, "last": 4}


def test_an_adapted_model_that_can_not_be_copied_is_an_error():
    live = Uncopied(CONFIG)
    live.adapter = nn.Linear(2, 2)
    with pytest.raises(GammaRegError, match="builds a model with other parameters"):
        find_gammas(partitioned(live))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(x)

    def __deepcopy__(self, memo):
        raise TypeError("can't be copied")


def test_without_copy_and_configuration_it_is_an_error():
    with pytest.raises(GammaRegError, match="Find the gammas of the model before it is partitioned"):
        find_gammas(partitioned(Bare()), torch.zeros(2, 4))


def test_a_model_of_dtensors_that_can_be_neither_is_traced_as_it_is():
    model = Bare()
    for parameter in model.parameters():
        parameter.device_mesh = "a mesh"
    assert whole(model) is model
