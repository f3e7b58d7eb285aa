"""A sample of the zoo: architectures of many kinds, each with its number of gammas of each role.

The numbers come from `recipes/benchmarks/zoo.py`, for architectures whose roles `recipes/benchmarks/verify_zoo.py` has
measured. A change in one of them is a change in what somebody's run decays.
"""

import json
from pathlib import Path

import pytest
from timm.optim import create_optimizer_v2
from tiny.blocks import PlainStack
from torch import nn
from transformers import Trainer, TrainingArguments
from verify_zoo import SOURCES
from zoo import build, measure, missed

from hf_gammareg import find_gammas
from hf_gammareg.decay.policy import decide

pytestmark = pytest.mark.slow

SAMPLE = json.loads((Path(__file__).parent / "zoo_sample.json").read_text())


class OnMeta(Trainer):
    """A Trainer that leaves a model without weights where it is."""

    def _move_model_to_device(self, model, device):
        return model


def decayed_by(optimizer, model):
    """Names of the parameters that an optimizer decays."""
    ids = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize("source", SAMPLE)
def test_roles_are_what_they_were_and_policies_what_the_libraries_do(source, tmp_path):
    model = build(source, "meta")
    gammas = find_gammas(model)
    assert gammas.counts == SAMPLE[source]
    assert not missed(model, {*gammas.names, *gammas.not_gammas})
    arguments = TrainingArguments(str(tmp_path), weight_decay=0.1, use_cpu=True, report_to=[])
    optimizers = {
        "trainer": OnMeta(model, arguments).create_optimizer(),
        "timm": create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.1),
    }
    for policy, optimizer in optimizers.items():
        expected = decayed_by(optimizer, model) & set(gammas.names)
        assert {name for name, decays in decide(gammas, model, policy).items() if decays} == expected


def test_a_record_of_the_benchmark():
    row = measure("timm/test_resnet")
    assert (row["built"], row["error"], row["missed"], row["unknown"]) == (True, None, [], {})
    norms = [module for module in build("timm/test_resnet", "meta").modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(row["roles"].values()) == row["n_gammas"] == len(norms)
    row = measure("transformers/no_such_type")
    assert (row["built"], row["error"]) == (False, "KeyError: 'no_such_type'")


def test_the_sample_is_diverse():
    assert len(SAMPLE) >= 60
    assert set(SAMPLE) <= set(SOURCES)
    assert {role for roles in SAMPLE.values() for role in roles} == {
        "trunk",
        "shortcut",
        "final",
        "last",
        "absorbed",
        "gate",
    }


def test_a_gamma_that_is_missed_is_noticed():
    model = PlainStack()
    found = find_gammas(model, PlainStack.takes)
    names = set(found.names)
    assert not missed(model, names)
    dropped = names.pop()
    assert missed(model, names) == [dropped]
