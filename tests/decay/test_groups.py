"""Groups: any factory's groups plus decisions make groups in which only gammas moved."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_gammareg import find_gammas, param_groups
from hf_gammareg.decay.groups import check_strength, place_gammas
from hf_gammareg.errors import GammaRegError
from hf_gammareg.model.names import parameter_names

NAMES = ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "block.0.weight", "block.0.bias", "fc.weight", "fc.bias"]
GAMMAS = ["bn.weight", "block.0.weight"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.block = nn.Sequential(nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.block(self.bn(self.conv(x)).relu()).mean((2, 3)))


MODEL = Net()
PARAMETERS = dict(MODEL.named_parameters())

decays_of_a_group = st.sampled_from([None, 0.0, 0.05, 0.1])
layouts = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([1.0, 0.5])), min_size=len(NAMES), max_size=len(NAMES)
).flatmap(lambda layout: st.tuples(st.just(layout), st.lists(decays_of_a_group, min_size=5, max_size=5)))


def settings_of(groups, names):
    """{parameter name: the options of its group}, checking that none is in two groups or in an empty one."""
    found = {}
    for group in groups:
        assert group["params"], "an empty group"
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name not in found, "in two groups"
            found[name] = options
    return found


@settings(max_examples=300, deadline=None)
@given(layouts, st.fixed_dictionaries({name: st.booleans() for name in GAMMAS}), st.sampled_from([None, 0.0, 0.3]))
def test_only_gammas_move(layout, decays, strength):
    members, own_decays = layout
    given_groups = []
    for index, own in enumerate(own_decays):
        for scale in (1.0, 0.5):
            params = [PARAMETERS[name] for name, place in zip(NAMES, members, strict=True) if place == (index, scale)]
            decay = {} if own is None else {"weight_decay": own}
            if params:
                given_groups.append({"params": params, "lr_scale": scale, **decay})
    before = [dict(group, params=list(group["params"])) for group in given_groups]
    placed = place_gammas(given_groups, MODEL, decays, weight_decay=0.1, gamma_weight_decay=strength)

    assert [list(group["params"]) for group in given_groups] == [group["params"] for group in before]
    assert [group.keys() for group in given_groups] == [group.keys() for group in before]
    names = {id(parameter): name for name, parameter in PARAMETERS.items()}
    assert all(group["param_names"] == [names[id(p)] for p in group["params"]] for group in placed)
    was, now = settings_of(before, names), settings_of(placed, names)
    assert now.keys() == set(NAMES)
    for name in NAMES:
        own = was[name].get("weight_decay", 0.1)
        wanted = own
        if name in decays:
            wanted = 0.0 if not decays[name] else (own or 0.1) if strength is None else strength
        assert now[name] == {"lr_scale": was[name]["lr_scale"], "weight_decay": wanted}
    # No more groups than settings that the factory did not have.
    new = {tuple(sorted(now[name].items())) for name in GAMMAS} - {
        tuple(sorted(now[n].items())) for n in was if n not in GAMMAS
    }
    assert len(placed) <= len(before) + len(new)


def test_a_gamma_joins_the_group_with_its_settings():
    decay = [PARAMETERS[name] for name in ("conv.weight", "bn.weight", "fc.weight")]
    rest = [parameter for parameter in PARAMETERS.values() if all(parameter is not p for p in decay)]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    placed = place_gammas(groups, MODEL, {"bn.weight": False, "block.0.weight": True}, weight_decay=0.1)
    assert [group["param_names"] for group in placed] == [
        ["conv.weight", "fc.weight", "block.0.weight"],
        ["conv.bias", "bn.bias", "block.0.bias", "fc.bias", "bn.weight"],
    ]


def test_groups_of_different_meshes_stay_apart():
    model = Net()
    for name, mesh in (("conv.weight", "A"), ("bn.weight", "A"), ("fc.weight", "B"), ("block.0.weight", "B")):
        model.get_parameter(name).device_mesh = mesh
    decay = [[model.conv.weight, model.bn.weight], [model.fc.weight, model.block[0].weight]]
    groups = [{"params": params, "weight_decay": 0.1} for params in decay]
    decays = {"bn.weight": True, "block.0.weight": True}
    placed = place_gammas(groups, model, decays, weight_decay=0.1, gamma_weight_decay=0.3)
    assert [group["param_names"] for group in placed] == [
        ["conv.weight"],
        ["fc.weight"],
        ["bn.weight"],
        ["block.0.weight"],
    ]


def test_names_are_canonical_whatever_wraps_the_model():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    plain = Net()
    plain.block[0] = checkpoint_wrapper(plain.block[0])
    wrapped = nn.DataParallel(torch.compile(plain))
    raw = [name for name, _ in wrapped.named_parameters()]
    assert raw[4] == "module._orig_mod.block.0._checkpoint_wrapped_module.weight"
    assert list(parameter_names(wrapped).parameters) == NAMES
    assert parameter_names(wrapped).live == dict(zip(raw, NAMES, strict=True))
    groups = place_gammas(
        [{"params": wrapped.parameters(), "weight_decay": 0.1}], wrapped, dict.fromkeys(GAMMAS, False), weight_decay=0.1
    )
    assert groups[1]["param_names"] == GAMMAS


def test_a_parameter_in_two_groups_raises():
    groups = [{"params": [MODEL.bn.weight]}, {"params": [MODEL.conv.weight, MODEL.bn.weight]}]
    with pytest.raises(GammaRegError, match=r"'bn\.weight' in two"):
        place_gammas(groups, MODEL, {}, weight_decay=0.1)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), "much", None])
def test_strength_has_to_be_a_finite_number_of_at_least_0(value):
    with pytest.raises(GammaRegError, match=rf"`weight_decay`.*found {value!r}"):
        check_strength("weight_decay", value)
    with pytest.raises(GammaRegError, match="weight_decay"):
        param_groups(MODEL, weight_decay=value, example_inputs=(torch.zeros(2, 3, 8, 8),))
    if value is not None:
        with pytest.raises(GammaRegError, match="gamma_weight_decay"):
            place_gammas([], MODEL, {}, weight_decay=0.1, gamma_weight_decay=value)


def test_param_groups_train_as_plain_torch_under_policy_all():
    torch.manual_seed(0)
    ours, plain = Net(), Net()
    plain.load_state_dict(ours.state_dict())
    batch = torch.randn(4, 3, 8, 8)
    groups = param_groups(ours, weight_decay=0.1, policy="all", example_inputs=(batch,))
    optimizers = [torch.optim.AdamW(groups, lr=0.01), torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)]
    for _ in range(3):
        for model, optimizer in zip((ours, plain), optimizers, strict=True):
            model(batch).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


def test_frozen_gammas_are_reported_and_not_grouped():
    model = Net()
    model.bn.weight.requires_grad_(False)
    gammas = find_gammas(model, (torch.zeros(2, 3, 8, 8),))
    assert not gammas["bn.weight"].trainable
    groups = param_groups(model, weight_decay=0.1, gammas=gammas)
    assert sorted(name for group in groups for name in group["param_names"]) == sorted(set(NAMES) - {"bn.weight"})


def test_unknown_roles_are_said():
    class Branching(Net):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    with pytest.warns(UserWarning, match=r"2 gammas of unknown role .*none of them decays"):
        groups = param_groups(Branching(), weight_decay=0.1, example_inputs=(torch.zeros(2, 3, 8, 8),))
    assert groups[1]["param_names"] == GAMMAS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        param_groups(Net(), weight_decay=0.1, example_inputs=(torch.zeros(2, 3, 8, 8),))


def test_the_model_stays_as_it_was():
    model = Net().eval()
    before = copy.deepcopy(model.state_dict())
    param_groups(model, weight_decay=0.1, example_inputs=(torch.zeros(2, 3, 8, 8),))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "made",
    [
        lambda model: model.parameters(),
        lambda model: model.named_parameters(),
        lambda model: [{"params": model.parameters()}],
        lambda model: ({"params": parameter} for parameter in model.parameters()),
    ],
)
def test_whatever_torchs_optimizers_take_is_taken_as_groups(made):
    model = Net()
    gammas = find_gammas(model, torch.zeros(2, 3, 8, 8))
    groups = param_groups(model, 0.1, "none", gammas=gammas, groups=made(model))
    decayed = {name for group in groups if group["weight_decay"] for name in group["param_names"]}
    assert decayed == set(NAMES) - set(GAMMAS)
    assert sorted(name for group in groups for name in group["param_names"]) == sorted(NAMES)


def test_a_lazy_module_is_one_clear_error():
    model = nn.Sequential(nn.LazyLinear(4), nn.LayerNorm(4))
    with pytest.raises(GammaRegError, match=r"have their shapes, found '0\.weight' of a lazy module.* Call the model"):
        param_groups(model, 0.1, example_inputs=torch.ones(2, 4))
    model(torch.ones(2, 4))
    assert param_groups(model, 0.1, example_inputs=torch.ones(2, 4))
