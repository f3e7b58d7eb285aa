"""Measuring agrees with deriving, catches a wrong role, and leaves the model alone."""

from dataclasses import replace

import pytest
import timm
import torch
from tiny import NETWORKS
from tiny import build as build_tiny
from tiny.residual import StemBeforeIdentity
from tiny.sums import SPELLED, Respelled
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import hf_gammareg
from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles import find
from hf_gammareg.roles.gammas import GammaMap, Role
from hf_gammareg.roles.measure import sample
from hf_gammareg.roles.sites import find_sites

NARROW = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

MODELS = {
    "test_resnet": lambda: (timm.create_model("test_resnet"), IMAGES),
    "test_convnext": lambda: (timm.create_model("test_convnext"), IMAGES),
    "test_efficientnet": lambda: (timm.create_model("test_efficientnet"), IMAGES),
    "test_vit": lambda: (timm.create_model("test_vit", img_size=64), IMAGES),
    "bert": lambda: (BertModel(BertConfig(**NARROW), add_pooling_layer=False), None),
    "llama": lambda: (LlamaForCausalLM(LlamaConfig(**NARROW, num_key_value_heads=1, use_cache=False)), None),
}


def build(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_no_disagreement(name):
    model, inputs = build(name)
    gammas = hf_gammareg.find_gammas(model, inputs)
    names = sample(gammas)
    assert {(gammas[name].role, gammas[name].exact) for name in names} == {(g.role, g.exact) for g in gammas}
    found = hf_gammareg.verify(model, inputs, gammas=gammas, names=names)
    assert [m.name for m in found] == list(names)
    assert [m for m in found if not m.agrees] == []


def norm_of(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """A norm of each role but `gate`: a stem, an identity block, a block with a projection shortcut, a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = norm_of(3, 4), norm_of(4, 4), norm_of(4, 4)
        self.three, self.four, self.down, self.head = norm_of(4, 4), norm_of(4, 4), norm_of(4, 4), norm_of(4, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (x + self.two(self.one(x).relu())).relu()
        x = (self.down(x) + self.four(self.three(x).relu())).relu()
        return self.head(x)


SMALL = IMAGES[:, :, :12, :12]
ROLES = {"stem": "trunk", "one": "absorbed", "two": "last", "down": "shortcut", "head": "final"}


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    model = Residual()
    gammas = hf_gammareg.find_gammas(model, SMALL)
    assert {name: gammas[f"{name}.1.weight"].role for name in ROLES} == ROLES
    return model, SMALL, gammas


def with_role(gammas, name, role, exact=False):
    changed = (replace(g, role=Role(role), exact=exact) if g.name == name else g for g in gammas)
    return GammaMap(gammas=tuple(changed), source=gammas.source)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [role for role in Role if role is not Role.UNKNOWN])
def test_every_wrong_role_is_caught(residual, wrong):
    model, inputs, gammas = residual
    for name in ROLES:
        gammas = with_role(gammas, f"{name}.1.weight", wrong)
    found = hf_gammareg.verify(model, inputs, gammas=gammas, names=[f"{name}.1.weight" for name in ROLES])
    # Trunk and shortcut are both a skip: what tells them apart is where the block begins, which is no measurement.
    alike = {"trunk", "shortcut"} if wrong in ("trunk", "shortcut") else {wrong}
    agreeing = {name for name, role in ROLES.items() if role in alike}
    assert {m.name.partition(".")[0] for m in found if m.agrees} == agreeing


def test_an_inexact_gamma_that_is_called_exact_is_caught():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)]
    model = nn.Sequential(*layers)
    gammas = hf_gammareg.find_gammas(model, IMAGES)
    assert (gammas["1.weight"].role, gammas["1.weight"].exact) == (Role.ABSORBED, False)
    assert hf_gammareg.verify(model, IMAGES, gammas=gammas, names=["1.weight"])[0].agrees
    claimed = with_role(gammas, "1.weight", Role.ABSORBED, exact=True)
    (found,) = hf_gammareg.verify(model, IMAGES, gammas=claimed, names=["1.weight"])
    assert found.measured == "cancelled"
    assert found.moved > 1e-3
    assert not found.agrees


def test_exact_gammas_move_nothing_whatever_the_eps():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, eps=0.1)
    )
    (found,) = hf_gammareg.verify(model, IMAGES, names=["1.weight"])
    assert found.agrees
    assert found.moved < 1e-5


def test_the_model_is_left_bit_identical(residual):
    model, inputs, _ = residual
    model.eval()
    model.two.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    attributes = [set(vars(module)) for module in model.modules()]
    grads = [parameter.requires_grad for parameter in model.parameters()]
    before, inputs_before = torch.get_rng_state(), inputs.clone()
    hf_gammareg.verify(model, inputs, names=["stem.1.weight"])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inputs, inputs_before)
    assert [module.training for module in model.modules()] == modes
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_unknown_roles_are_not_measured(residual):
    model, inputs, gammas = residual
    unknown = with_role(gammas, "stem.1.weight", Role.UNKNOWN)
    assert hf_gammareg.verify(model, inputs, gammas=unknown, names=["stem.1.weight"]) == ()


def test_a_model_without_values_can_not_be_measured():
    with torch.device("meta"):
        model = timm.create_model("test_resnet")
    with pytest.raises(GammaRegError, match=r"real parameters.*meta device"):
        hf_gammareg.verify(model)


def test_progress_sees_every_name(residual):
    model, inputs, _ = residual
    seen = []
    hf_gammareg.verify(model, inputs, names=["stem.1.weight"], progress=lambda names: seen.extend(names) or names)
    assert seen == ["stem.1.weight"]


SATURATING = ("EvoNorm", "BatchRenormalised")
"""Norms with a sigmoid, or with bounds: nothing that keeps its numbers whatever the size of what comes in."""
OF_WEIGHTS = ("OfALearnedQuery norm1.weight",)
"""Gains of what is made of weights alone, as weight normalisation's is."""
GAINED = [
    network
    for network in NETWORKS
    if network.__module__ in ("tiny.gains", "tiny.written") and network.__name__ not in SATURATING
]


def disagreements(network, analysis):
    return [(m.name, m.role, m.measured) for m in hf_gammareg.verify(network, analysis=analysis) if not m.agrees]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_every_tiny_network_measures_as_it_is_derived(network):
    model = build_tiny(network)
    assert disagreements(model, hf_gammareg.analyse(model, network.takes)) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", SPELLED)
def test_a_method_that_misses_a_spelled_sum_is_caught(how, monkeypatch):
    model = build_tiny(StemBeforeIdentity)
    with Respelled(SPELLED[how]) as mode:
        right = hf_gammareg.analyse(model, StemBeforeIdentity.takes)
        monkeypatch.setattr(find, "find_sums", lambda graph, ancestry: ({}, set()))
        wrong = hf_gammareg.analyse(model, StemBeforeIdentity.takes)
    assert mode.times
    assert disagreements(model, right) == []
    changed = {gamma.name for gamma in right.gammas if gamma.role is not wrong.gammas[gamma.name].role}
    assert {name for name, *_ in disagreements(model, wrong)} == changed != set()


@pytest.mark.slow
@pytest.mark.parametrize("network", GAINED, ids=lambda network: network.__name__)
def test_a_method_that_misses_a_spelled_gain_is_caught(network, monkeypatch):
    model = build_tiny(network)
    for name in hf_gammareg.analyse(model, network.takes).gammas.names:
        if f"{network.__name__} {name}" in OF_WEIGHTS:
            continue

        def blind(graph, name=name):
            return [site for site in find_sites(graph) if site.parameter != name]

        with monkeypatch.context() as patch:
            patch.setattr(find, "find_sites", blind)
            analysis = hf_gammareg.analyse(model, network.takes)
        if name in analysis.gammas:
            assert analysis.gammas[name].role is Role.UNKNOWN  # an op without a row reads it: never denied
        else:
            assert disagreements(model, analysis) == [(name, None, "gain")]
