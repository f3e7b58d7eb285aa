"""Looking leaves no trace: a model, its inputs and the process are the same before and after `find_gammas`."""

import copy
import gc
import logging
import random
import subprocess
import sys
import warnings
import weakref

import numpy
import pytest
import timm
import torch
import transformers
from tiny import NETWORKS, build, conv, image
from tiny.honest import DataDependent, LayerDrop, LeavesTorch
from torch import nn
from torch.nn import functional as F

from hf_gammareg import GammaRegError, analyse, find_gammas


class Restless(nn.Module):
    """A forward that changes all it can reach."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.drop, self.fc = conv(3, 6), nn.BatchNorm2d(6), nn.Dropout(), nn.Linear(6, 5)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long), persistent=False)
        self.plain = torch.zeros(3)
        self.calls, self.log, self.table, self.kinds = 0, [], {"first": 1}, {"a"}
        self.bn.running = [1, 2]

    def forward(self, x):
        self.calls += 1
        self.log.append(self.calls)
        self.table["last"] = self.calls
        self.kinds.add("b")
        self.bn.running.clear()
        self.fresh = x
        self.late = nn.Linear(2, 2)
        self.seen = self.seen + 1
        self.count += 1
        random.random()
        numpy.random.rand()
        x = self.drop(F.relu(self.bn(self.conv(x)))) + torch.rand(1, device=x.device)
        return self.fc(x.mean((2, 3)))


def state(model):
    """All that a model is: values, modes, attributes, structure."""
    tensors = {name: (id(t), t.clone(), t._version) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    attributes = {}
    for path, module in model.named_modules():
        for name, value in module.__dict__.items():
            if name.startswith("_"):
                value = list(value) if isinstance(value, dict) else value
            elif isinstance(value, torch.Tensor):
                value = value.tolist() if not value.is_meta else value.shape
            attributes[path, name] = copy.copy(value)
    return tensors, attributes


def same(before, after):
    tensors, others = before[0], after[0]
    assert tensors.keys() == others.keys()
    for name, (identity, value, version) in tensors.items():
        assert others[name][0] == identity
        assert others[name][2] == version
        assert value.is_meta or torch.equal(value, others[name][1])
    assert before[1] == after[1]


def random_states():
    return random.getstate(), str(numpy.random.get_state(legacy=False)), torch.get_rng_state().tolist()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_model_is_untouched(device):
    with torch.device(device):
        model = Restless()
    model.train()
    model.bn.eval()
    model.bn.weight.requires_grad_(False)
    before, chance = state(model), random_states()
    found = find_gammas(model, image().to(device))
    assert found.source == "export (train mode)"
    assert found["bn.weight"].role == "final"
    assert not found["bn.weight"].trainable
    same(before, state(model))
    assert random_states() == chance
    assert model.training
    assert not model.bn.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("network", [DataDependent, LayerDrop, LeavesTorch])
def test_the_model_is_untouched_where_it_does_not_export_at_once(network):
    model = build(network).eval()
    takes = tuple(t.clone() for t in network.takes)
    before, chance = state(model), random_states()
    find_gammas(model, takes)
    same(before, state(model))
    assert random_states() == chance
    assert all(torch.equal(a, b) for a, b in zip(takes, network.takes, strict=True))


class OverItsInput(nn.Module):
    """A forward that writes over its input, on a path that the data choose."""

    def __init__(self, asks):
        super().__init__()
        self.asks, self.bn, self.fc = asks, nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x):
        x.mul_(2)
        if self.asks and x.sum() > 1e9:
            x = x + 1
        return self.fc(self.bn(x))


@pytest.mark.parametrize("asks", [False, True])
def test_inputs_are_untouched(asks):
    inputs = torch.randn(4, 3)
    before = inputs.clone()
    found = find_gammas(OverItsInput(asks), inputs)
    assert found.source == ("recorded run (train mode, one path)" if asks else "export (train mode)")
    assert torch.equal(inputs, before)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_hooks_of_users_rest_and_stay():
    model = build(NETWORKS[0])
    called = []
    target = next(module for module in model.modules() if not list(module.children()))
    handles = [
        target.register_forward_hook(lambda *_: called.append("forward")),
        target.register_forward_pre_hook(lambda *_: called.append("before")),
        target.register_forward_hook(lambda *_, **__: called.append("keywords"), with_kwargs=True),
        target.register_full_backward_hook(lambda *_: called.append("backward")),
        model.register_state_dict_post_hook(lambda *_: None),
    ]
    before = state(model)
    found = find_gammas(model, NETWORKS[0].takes)
    assert not called
    assert "unknown" not in found.counts
    same(before, state(model))
    model(*NETWORKS[0].takes).sum().backward()
    assert sorted(called) == ["backward", "before", "forward", "keywords"]
    for handle in handles:
        handle.remove()
    assert not target._forward_hooks
    assert not target._forward_pre_hooks


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hooks_of_torch_work():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.utils.weight_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6))
    found = find_gammas(model, image())
    assert {gamma.name: str(gamma.role) for gamma in found} == {"0.weight": "absorbed", "2.weight": "final"}


def test_a_hook_that_collects_what_the_model_goes_on_with_works():
    backbone = timm.create_model("test_resnet", features_only=True, feature_cls="hook")
    names = {gamma.name for gamma in find_gammas(backbone, image()) if gamma.role == "unknown"}
    assert not names


def test_gradients_stay():
    model = build(NETWORKS[0])
    model(*NETWORKS[0].takes).sum().backward()
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    find_gammas(model, NETWORKS[0].takes)
    assert all(torch.equal(parameter.grad, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("network", [NETWORKS[0], DataDependent])
def test_an_analysis_holds_the_models_own_parameters(network):
    model = build(network)
    held = analyse(model, network.takes).program.state_dict
    parameters = dict(model.named_parameters())
    assert parameters.keys() <= held.keys()
    assert all(held[name] is parameter for name, parameter in parameters.items())


def test_nothing_holds_the_model():
    model = build(NETWORKS[0])
    held = weakref.ref(next(model.parameters()))
    find_gammas(model, NETWORKS[0].takes)
    del model
    gc.collect()
    assert held() is None


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("inner", ["use_cache", "output_hidden_states"])
def test_configurations_are_as_they_were(inner):
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    setattr(config, inner, True)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model.gradient_checkpointing_enable()
    before = model.config.to_dict()
    found = find_gammas(model)
    assert found.counts == {"last": 2, "final": 1}
    assert model.config.to_dict() == before
    assert getattr(model.config, inner) is True
    assert model.is_gradient_checkpointing


def test_meta_takes_no_memory():
    """Four billion parameters would not fit; nothing of them is allocated, nothing computed."""
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Linear(65536, 32768), nn.LayerNorm(32768), nn.Linear(32768, 65536), nn.LayerNorm(65536)
        )
    found = find_gammas(model, torch.zeros(2, 65536, device="meta"))
    assert [str(gamma.role) for gamma in found] == ["absorbed", "final"]
    assert all(parameter.is_meta for parameter in model.parameters())


def test_large_models_are_not_computed():
    """A forward that would take minutes, on real parameters: only its shapes are run."""
    model = nn.Sequential(nn.BatchNorm2d(3), *(nn.Conv2d(3, 3, 3, padding=1) for _ in range(20)), nn.BatchNorm2d(3))
    images = torch.zeros(1).expand(512, 3, 4096, 4096)  # one number, 96 GiB if it were copied
    assert find_gammas(model, images).counts == {"final": 1, "absorbed": 1}


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.side = nn.LayerNorm(3), nn.LayerNorm(3)

    def forward(self, x, y=None, *, shift=None):
        x = self.norm(x)
        x = x if y is None else x + self.side(y)
        return x if shift is None else x + shift


ONE = torch.randn(2, 3)


@pytest.mark.parametrize(
    ("inputs", "reached"),
    [
        (ONE, False),
        ((ONE,), False),
        ([ONE], False),
        ((ONE, ONE), True),
        ({"x": ONE}, False),
        ({"x": ONE, "y": ONE}, True),
        (((ONE,), {"y": ONE}), True),
        (((ONE, ONE), {"shift": ONE}), True),
        (((), {"x": ONE}), False),
        ((ONE, None), False),
    ],
)
def test_forms_of_example_inputs(inputs, reached):
    found = find_gammas(TwoInputs(), inputs)
    assert found["norm.weight"].role == "final"
    assert found["side.weight"].role == ("final" if reached else "unknown")


def test_inputs_of_transformers_are_mappings():
    batch = transformers.BatchEncoding({"x": ONE})
    assert find_gammas(TwoInputs(), batch)["norm.weight"].role == "final"


@pytest.mark.parametrize("inputs", [3, 1.5, "image", object(), {1, 2}])
def test_other_forms_are_refused(inputs):
    with pytest.raises(GammaRegError, match=f"example_inputs.*found {type(inputs).__name__}"):
        find_gammas(TwoInputs(), inputs)


def test_models_that_say_nothing_need_inputs():
    with pytest.raises(GammaRegError, match="Pass example_inputs"):
        find_gammas(TwoInputs())


def test_inputs_that_do_not_fit_are_reported():
    found = find_gammas(TwoInputs(), torch.zeros(2, 4))
    assert found.counts == {"unknown": 2}
    assert "The model could not be traced" in found["norm.weight"].reason


def test_no_module_of_a_front_door_is_needed():
    code = "import sys, hf_gammareg; print(sorted({'timm', 'transformers', 'datasets'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_loggers_warnings_and_streams_are_as_before(capfd):
    levels = {name: logging.getLogger(name).level for name in ("torch", "torch.export", "transformers", "timm")}
    filters, stderr = list(warnings.filters), sys.stderr
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for network in (NETWORKS[0], DataDependent, LeavesTorch):
            find_gammas(build(network), network.takes)
    # torch's draft export leaves a file open, which warns whenever it is collected.
    assert not [str(warning.message) for warning in said if warning.category is not ResourceWarning]
    assert capfd.readouterr() == ("", "")
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert list(warnings.filters) == filters
    assert sys.stderr is stderr
