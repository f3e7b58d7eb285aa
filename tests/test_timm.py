"""timm's factories: everything that timm does stays, and only gammas move."""

import warnings
from argparse import Namespace

import pytest
import timm.optim
import torch
from torch import nn

from hf_gammareg import find_gammas, param_groups
from hf_gammareg import timm as ours
from hf_gammareg.decay.policy import decide
from hf_gammareg.errors import GammaRegError

NAMES = ("test_resnet", "test_vit")


def build(name):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **({"img_size": 32} if name == "test_vit" else {}))


@pytest.fixture(scope="module")
def gammas():
    return {name: find_gammas(build(name)) for name in NAMES}


def backbone_and_head(model):
    head = list(model.get_classifier().parameters())
    rest = [parameter for parameter in model.parameters() if all(parameter is not other for other in head)]
    return [{"params": iter(rest), "lr": 1e-4}, {"params": head, "weight_decay": 0.2}]


def named(optimizer, model):
    """The groups of an optimizer as {name: settings}; each parameter once, no group empty, every group named."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = {}
    for group in optimizer.param_groups:
        assert group["params"]
        members = [names[id(parameter)] for parameter in group["params"]]
        assert group.get("param_names", members) == members
        assert not settings.keys() & set(members)
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        settings |= dict.fromkeys(members, options)
    return settings


CALLS = {
    "plain": {"opt": "sgd"},
    "adamw": {"opt": "adamw", "lr": 1e-3, "betas": (0.8, 0.9)},
    "no decay": {"opt": "adamw", "weight_decay": 0.0},
    "all decay": {"opt": "adamw", "filter_bias_and_bn": False},
    "layer decay": {"opt": "adamw", "layer_decay": 0.7, "layer_decay_min_scale": 0.2},
    "frozen below": {"opt": "adamw", "layer_decay": 0.7, "layer_decay_no_opt_scale": 0.3},
    "lookahead": {"opt": "lookahead_adamw", "lr": 1e-3},
    "muon": {"opt": "muon", "lr": 1e-3, "fallback_list": ["*head*", "fc*"], "fallback_no_weight_decay": True},
    "muon, layer decay": {"opt": "muon", "lr": 1e-3, "fallback_list": ["*norm1*"], "layer_decay": 0.7},
    "own groups": {"opt": "adamw", "lr": 1e-3, "param_group_fn": backbone_and_head},
    "own parameters": {"opt": "adamw", "param_group_fn": lambda model: model.parameters()},
    "own named parameters": {"opt": "adamw", "param_group_fn": lambda model: [{"params": model.named_parameters()}]},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", NAMES)
def test_policy_timm_is_timm_bit_for_bit(name, call, gammas):
    options = {"weight_decay": 0.05} | CALLS[call]
    model, plain_model = build(name), build(name)
    optimizer = ours.create_optimizer_v2(model, **options, policy="timm", gammas=gammas[name])
    plain = timm.optim.create_optimizer_v2(plain_model, **options)
    assert type(optimizer) is type(plain)
    assert optimizer.defaults == plain.defaults
    assert list(named(optimizer, model).items()) == list(named(plain, plain_model).items())
    assert len(optimizer.param_groups) == len(plain.param_groups)
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        for net, opt in ((model, optimizer), (plain_model, plain)):
            net(batch).square().sum().backward()
            opt.step()
            opt.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain_model.parameters(), strict=True))


@pytest.mark.parametrize("strength", [None, 0.3])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", NAMES)
def test_only_gammas_move(name, call, strength, gammas):
    options = {"weight_decay": 0.05} | CALLS[call]
    model, plain_model = build(name), build(name)
    optimizer = ours.create_optimizer_v2(model, **options, gammas=gammas[name], gamma_weight_decay=strength)
    plain = timm.optim.create_optimizer_v2(plain_model, **options)
    now, was, decays = named(optimizer, model), named(plain, plain_model), decide(gammas[name], model)
    assert now.keys() == was.keys()
    for parameter, group in now.items():
        own = was[parameter]["weight_decay"]
        decay = own
        if parameter in decays:
            decay = 0.0 if not decays[parameter] else (own or options["weight_decay"]) if strength is None else strength
        assert group == was[parameter] | {"weight_decay": decay}
    moved = {tuple(now[name].items()) for name in now if now[name] != was[name]}
    assert len(optimizer.param_groups) <= len(plain.param_groups) + len(moved)
    if strength is None and call in ("plain", "adamw", "no decay", "lookahead", "layer decay", "muon"):
        # The groups with these settings are there already, but for a layer that decayed nothing.
        assert len(optimizer.param_groups) == len(plain.param_groups)


def test_the_resnet_decays_what_the_guidelines_say(gammas):
    model = build("test_resnet")
    optimizer = ours.create_optimizer_v2(model, "sgd", 0.1, 0.05, gammas=gammas["test_resnet"])
    found = named(optimizer, model)
    by_role = {str(g.role): found[g.name]["weight_decay"] for g in gammas["test_resnet"]}
    assert by_role == {"absorbed": 0.05, "trunk": 0.0, "last": 0.05, "shortcut": 0.0}


@pytest.mark.parametrize("call", ["plain", "all decay", "layer decay", "frozen below", "muon"])
def test_param_group_fn_makes_the_same_groups_for_timms_own_hook(call, gammas):
    options = {"weight_decay": 0.05} | CALLS[call]
    opt, lr = options.pop("opt"), options.pop("lr", 0.1)
    model, other = build("test_vit"), build("test_vit")
    group_fn = ours.param_group_fn(**options, policy="last", gammas=gammas["test_vit"])
    hooked = timm.optim.create_optimizer_v2(model, opt, lr=lr, weight_decay=0.7, param_group_fn=group_fn)
    direct = ours.create_optimizer_v2(other, opt, lr=lr, **options, policy="last", gammas=gammas["test_vit"])
    assert list(named(hooked, model).items()) == list(named(direct, other).items())


def test_param_group_fn_takes_a_list_in_place_of_no_weight_decay(gammas):
    model = build("test_vit")
    group_fn = ours.param_group_fn(weight_decay=0.05, no_weight_decay=["*qkv.weight"], gammas=gammas["test_vit"])
    found = named(timm.optim.create_optimizer_v2(model, "sgd", param_group_fn=group_fn), model)
    assert found["blocks.0.attn.qkv.weight"]["weight_decay"] == 0.0
    assert found["pos_embed"]["weight_decay"] == 0.05


def test_create_optimizer_reads_timms_arguments(gammas):
    args = Namespace(opt="adamw", lr=1e-3, weight_decay=0.05, momentum=0.9, opt_eps=1e-6, layer_decay=0.7)
    model, other = build("test_vit"), build("test_vit")
    optimizer = ours.create_optimizer(args, model, policy="timm", gammas=gammas["test_vit"])
    assert named(optimizer, model) == named(timm.optim.create_optimizer(args, other), other)
    biases_too = named(ours.create_optimizer(args, model, False, policy="none", gammas=gammas["test_vit"]), model)
    assert biases_too["head.bias"]["weight_decay"] == 0.05
    assert {biases_too[gamma.name]["weight_decay"] for gamma in gammas["test_vit"]} == {0.0}


def test_roles_are_found_where_none_are_given():
    model = build("test_vit")
    found = named(ours.create_optimizer_v2(model, "sgd", weight_decay=0.05, gamma_no_decay=["*.norm2.weight"]), model)
    assert found["blocks.0.norm1.weight"]["weight_decay"] == 0.05
    assert found["blocks.0.norm2.weight"]["weight_decay"] == found["norm.weight"]["weight_decay"] == 0.0


def test_parameters_pass_through_with_a_warning():
    model, other = build("test_resnet"), build("test_resnet")
    with pytest.warns(UserWarning, match=r"found parameters or groups.*timm decides") as warned:
        optimizer = ours.create_optimizer_v2(model.parameters(), "adamw", weight_decay=0.05)
    assert [warning.filename for warning in warned] == [__file__]
    assert named(optimizer, model) == named(
        timm.optim.create_optimizer_v2(other.parameters(), "adamw", weight_decay=0.05), other
    )
    assert "param_names" not in optimizer.param_groups[0]


def test_groups_that_param_groups_made_are_taken_without_a_word():
    model = build("test_resnet")
    groups = param_groups(model, 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = ours.create_optimizer_v2(groups, "adamw", lr=1e-3)
    assert [group["param_names"] for group in optimizer.param_groups] == [group["param_names"] for group in groups]


def test_a_module_that_says_nothing_of_its_inputs_gets_the_groups_of_timm():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    with pytest.warns(UserWarning, match=r"Pass example_inputs.*timm decides which gammas decay") as warned:
        found = named(ours.create_optimizer_v2(model, "adamw", weight_decay=0.05), model)
    assert [warning.filename for warning in warned] == [__file__]
    plain = named(timm.optim.create_optimizer_v2(model, "adamw", weight_decay=0.05), model)
    assert {name: group["weight_decay"] for name, group in found.items()} == {
        name: group["weight_decay"] for name, group in plain.items()
    }
    with pytest.raises(GammaRegError, match=r"Pass example_inputs.*no way to honour policy"):
        ours.create_optimizer_v2(model, "adamw", weight_decay=0.05, policy="all")


@pytest.mark.parametrize("wish", [{"policy": "all"}, {"gamma_weight_decay": 0.1}, {"gamma_decay": ["*"]}])
def test_parameters_with_a_policy_raise(wish):
    with pytest.raises(GammaRegError, match="Expected a model"):
        ours.create_optimizer_v2(nn.Linear(2, 2).parameters(), "adamw", **wish)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"policy": "guideline"}, "Expected a policy"),
        ({"gamma_decay": ["nothing"]}, "matches none of"),
        ({"gamma_weight_decay": -1.0}, "gamma_weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
    ],
)
def test_bad_options_raise_one_clear_error(wish, message, gammas):
    with pytest.raises(GammaRegError, match=message):
        ours.create_optimizer_v2(build("test_vit"), "adamw", **wish, gammas=gammas["test_vit"])


def test_nothing_is_said_where_all_is_known(gammas):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.create_optimizer_v2(build("test_vit"), "adamw", gammas=gammas["test_vit"])
