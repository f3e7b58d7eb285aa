"""One name for each parameter, by what wraps what: the classes of modules decide, not what they are called."""

import copy
import sys

import pytest
import timm
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from hf_gammareg import GammaRegError, find_gammas, match_by_name, param_groups
from hf_gammareg.model.names import as_known, parameter_names
from hf_gammareg.model.whole import unwrapped
from hf_gammareg.roles.measure import verify


class Trap(nn.Module):
    """A user's model whose attributes are called as wrappers call what they wrap."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.module = nn.LayerNorm(4)
        self.base_model = nn.ModuleDict({"model": nn.Linear(4, 4)})
        self._orig_mod = nn.LayerNorm(4)
        self.norm = nn.LayerNorm(4)
        self.tied = self.norm

    def forward(self, x):
        x = x * self.weight + self.base_model["model"](self.module(x))
        return self.norm(self._orig_mod(x))


NAMES = [name for name, _ in Trap().named_parameters()]
GAMMAS = ["module.weight", "_orig_mod.weight", "norm.weight"]


class FoundByHome(nn.Module):
    """An engine that can't be made here: known by its class's name and home, as all wrappers are."""

    def __init__(self, model):
        super().__init__()
        self.module = model

    def forward(self, x):
        return self.module(x)


ENGINE = type("DeepSpeedEngine", (FoundByHome,), {"__module__": "deepspeed.runtime.engine"})


def shell(kind, attribute):
    """A wrapper that needs a process group to be made, without one."""

    def wrap(model):
        wrapper = kind.__new__(kind)
        nn.Module.__init__(wrapper)
        wrapper._modules[attribute] = model
        wrapper.training_state = None
        return wrapper

    return wrap


class OfTheUser(nn.DataParallel):
    """A subclass of a wrapper wraps too."""


def layer_by_layer(model):
    """As accelerate compiles regions: the children are compiled, the model is kept beside."""
    regions = copy.copy(model)
    regions._modules = {name: torch.compile(child) for name, child in model._modules.items()}
    regions.__dict__["_orig_mod"] = model
    return regions


def checkpointed(model):
    for name in ("module", "_orig_mod"):
        setattr(model, name, checkpoint_wrapper(getattr(model, name)))
    return model


AROUND = {
    "nothing": lambda model: model,
    "DataParallel": nn.DataParallel,
    "a subclass": OfTheUser,
    "DDP": shell(DistributedDataParallel, "module"),
    "compile": torch.compile,
    "compile in DDP": lambda model: shell(DistributedDataParallel, "module")(torch.compile(model)),
    "DDP in compile": lambda model: torch.compile(nn.DataParallel(model)),
    "compiled regions": layer_by_layer,
    "FSDP": shell(FullyShardedDataParallel, "_fsdp_wrapped_module"),
    "DeepSpeed": ENGINE,
    "checkpoint wrapper": checkpoint_wrapper,
    "checkpoint wrappers inside": checkpointed,
    "average": torch.optim.swa_utils.AveragedModel,
    "EMA": timm.utils.ModelEmaV3,
}
every_wrapper = pytest.mark.parametrize("wrap", AROUND.values(), ids=AROUND)


@every_wrapper
def test_names_are_those_of_the_model_inside(wrap):
    model = Trap()
    wrapped = wrap(model)
    names = parameter_names(wrapped)
    assert list(names.parameters) == NAMES
    assert [names.by_id[id(parameter)] for parameter in wrapped.parameters()] == NAMES
    assert isinstance(unwrapped(wrapped), Trap)
    # A checkpoint wrapper leaves its own name out, of all that it holds.
    live = dict(nn.Module.named_parameters(wrapped, remove_duplicate=False))
    assert names.live == {path: names.by_id[id(parameter)] for path, parameter in live.items()}


@every_wrapper
def test_every_moment_is_kept_and_comes_back(wrap):
    generator = torch.Generator().manual_seed(0)
    gammas = find_gammas(Trap(), torch.ones(2, 4))
    assert list(gammas.names) == GAMMAS

    def optimizer(policy, wrap):
        wrapped = wrap(Trap())
        groups = param_groups(wrapped, 0.1, policy, gammas=gammas)
        made = AdamW(groups, lr=0.1)
        match_by_name(made, wrapped, say=lambda text: None)
        return made, parameter_names(wrapped).parameters

    before, saved = optimizer("none", wrap)
    for parameter in saved.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    before.step()
    assert sorted(name for group in before.param_groups for name in group["param_names"]) == sorted(NAMES)
    for policy, around in (("all", wrap), ("guidelines", nn.DataParallel)):
        now, parameters = optimizer(policy, around)
        now.load_state_dict(before.state_dict())
        assert len(now.state) == len(NAMES)
        for name, parameter in parameters.items():
            assert torch.equal(now.state[parameter]["exp_avg"], before.state[saved[name]]["exp_avg"]), name


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, checkpointed])
def test_roles_go_by_canonical_names(wrap):
    plain, found = (find_gammas(model, torch.ones(2, 4)) for model in (Trap(), wrap(Trap())))
    assert [(gamma.name, gamma.role) for gamma in found] == [(gamma.name, gamma.role) for gamma in plain]


def test_what_is_measured_goes_by_canonical_names():
    assert [row.name for row in verify(checkpointed(Trap()), torch.randn(2, 4))] == GAMMAS


@pytest.mark.parametrize("policy", ["trainer", "timm"])
@pytest.mark.parametrize("wrap", [nn.DataParallel, checkpointed])
def test_plain_libraries_are_asked_by_live_names(wrap, policy):
    gammas = find_gammas(Trap(), torch.ones(2, 4))

    def decayed(model):
        groups = param_groups(model, 0.1, policy, gammas=gammas)
        return [name for group in groups if group["weight_decay"] for name in group["param_names"]]

    assert decayed(wrap(Trap())) == decayed(Trap())


def test_a_flat_parameter_has_a_name():
    inner = nn.Module()
    inner.register_parameter("_flat_param", nn.Parameter(torch.ones(3)))
    unit = AROUND["FSDP"](inner)
    assert list(parameter_names(nn.Sequential(unit)).parameters) == ["0._flat_param"]


def test_two_parameters_of_one_name_are_an_error():
    model = nn.DataParallel(nn.Linear(2, 2))
    model.weight = nn.Parameter(torch.ones(2))
    with pytest.raises(GammaRegError, match=r"two called 'weight' .* one of them 'module\.weight'"):
        parameter_names(model)
    model.weight = model.module.weight  # one parameter under two names is no collision
    assert list(parameter_names(model).parameters) == ["weight", "bias"]


def test_names_given_for_a_model_are_read_as_its_own_or_as_canonical():
    model = nn.DataParallel(Trap())
    names = parameter_names(model)
    live = [name for name, _ in model.named_parameters()]
    assert names.canonical(live) == names.canonical(NAMES) == NAMES
    assert names.canonical([f"base_model.model.{name}" for name in NAMES]) == NAMES
    assert names.canonical(["module.weight"]) == ["module.weight"]  # a name of the model, not a wrapper's `weight`


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "base_model.model.", "module.base_model.model."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_names_without_a_model_are_matched_with_those_that_are_known(prefix):
    assert as_known([prefix + name for name in NAMES], NAMES) == NAMES
    assert as_known([prefix + name for name in NAMES], GAMMAS) == NAMES


def test_names_of_prompt_learning_without_a_model():
    saved = ["base_model.model.norm.weight", "prompt_encoder.default.weight"]
    assert as_known(saved, {"model.norm.weight", "prompt_encoder.default.weight"}) == [saved[0][11:], saved[1]]


def test_names_that_fit_nothing_stay():
    assert as_known(["module.a", "a"], {"b"}) == ["module.a", "a"]
    assert as_known(["module.a", "a"], {"a"}) == ["module.a", "a"]  # never two of one name
    assert as_known([], {"a"}) == []


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_state_with_the_names_of_a_wrapped_model_is_read(wrap):
    """torch.optim saves the live names that it is given."""
    model, own = wrap(Trap()), Trap()
    old = AdamW(model.named_parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape)
    old.step()
    assert old.param_groups[0]["param_names"][0] != NAMES[0]
    new = AdamW(param_groups(own, 0.1, example_inputs=torch.ones(2, 4)), lr=0.1)
    match_by_name(new, own, say=lambda text: None)
    new.load_state_dict(old.state_dict())
    for name, parameter in parameter_names(model).parameters.items():
        assert torch.equal(new.state[own.get_parameter(name)]["exp_avg"], old.state[parameter]["exp_avg"])


def test_parameters_beside_the_model_keep_apart():
    """Two that no model names, such as those of a loss, have a name each."""
    model, loss = nn.Linear(2, 2), nn.Linear(3, 3)

    def optimizer():
        made = AdamW([*model.parameters(), *loss.parameters()], lr=0.1)
        match_by_name(made, model)
        return made

    old, new = optimizer(), optimizer()
    for parameter in (*model.parameters(), *loss.parameters()):
        parameter.grad = torch.randn(parameter.shape)
    old.step()
    new.load_state_dict(old.state_dict())
    for parameter in loss.parameters():
        assert torch.equal(new.state[parameter]["exp_avg"], old.state[parameter]["exp_avg"])


def test_no_wrapper_s_package_is_loaded_to_know_it():
    assert isinstance(unwrapped(ENGINE(Trap())), Trap)
    assert "deepspeed" not in sys.modules
