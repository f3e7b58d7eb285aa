"""DeepSpeed's own optimizer gets groups; that DeepSpeed trains by them is in test_engines.py."""

import pytest
import torch
from accelerate.utils.deepspeed import DummyOptim
from torch import nn

from hf_gammareg.decay.regroup import groups_of


def model():
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4))


DECAYS = {"1.weight": True, "3.weight": False}
CONFIG = {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.3}}}


def test_only_the_gammas_move():
    net = model()
    placeholder = DummyOptim(params=list(net.parameters()))
    groups = groups_of(placeholder, net, DECAYS, CONFIG)
    assert [(group["weight_decay"], group["param_names"]) for group in groups] == [
        (0.3, ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias", "3.bias"]),
        (0.0, ["3.weight"]),
    ]
    assert placeholder.params is groups
    assert groups_of(placeholder, net, DECAYS, CONFIG) is groups


def test_groups_that_a_caller_made_stay():
    net = model()
    mine = [{"params": list(net.parameters()), "weight_decay": 0.7}]
    assert groups_of(DummyOptim(params=mine), net, DECAYS, CONFIG) == mine


@pytest.mark.parametrize("config", [{}, {"optimizer": {}}, {"optimizer": {"params": {"lr": 1e-3}}}])
def test_a_configuration_without_weight_decay_makes_no_groups(config):
    net = model()
    placeholder = DummyOptim(params=list(net.parameters()))
    before = list(placeholder.params)
    assert groups_of(placeholder, net, DECAYS, config) == []
    assert all(one is other for one, other in zip(placeholder.params, before, strict=True))


def test_another_optimizer_is_left_alone():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    assert groups_of(optimizer, net, DECAYS, CONFIG) is optimizer.param_groups
