"""Optimizer states by name: every moment stays with its parameter, whoever wrote the groups."""

import copy

import pytest
import timm
import torch
from accelerate import Accelerator
from timm.scheduler import CosineLRScheduler
from tiny import build
from tiny.blocks import PlainStack
from torch import nn
from torch.distributed.checkpoint import state_dict as distributed_state
from torch.optim import SGD, AdamW
from transformers import Trainer

from hf_gammareg import GammaRegError, PolicyState, export_plain, find_gammas, match_by_name, param_groups
from hf_gammareg.decay.policy import decide
from hf_gammareg.model.layouts import plain_layouts
from hf_gammareg.resume.matching import matched_state
from hf_gammareg.resume.scheduler import fit_scheduler
from hf_gammareg.timm import create_optimizer_v2

ROLES = ("guidelines", "all", "none")


def model(seed=0):
    torch.manual_seed(seed)
    return timm.create_model("test_resnet")


def stepped(optimizer, network, seed=0):
    """The optimizer after two steps with gradients that are another for each parameter."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return optimizer


def moments(optimizer, network):
    """`{parameter name: its state}`."""
    return {name: dict(optimizer.state[parameter]) for name, parameter in network.named_parameters()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].keys() == other[name].keys()
        for field in one[name]:
            assert torch.equal(torch.as_tensor(one[name][field]), torch.as_tensor(other[name][field])), (name, field)


def test_plain_torch_swaps_moments_silently_and_ours_does_not():
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4))
    first, second = network[1].weight, network[3].weight

    def optimizer(decayed, other):
        named = {id(p): name for name, p in network.named_parameters()}
        rest = [p for p in network.parameters() if p is not first and p is not second]
        groups = [{"params": [decayed, *rest], "weight_decay": 0.1}, {"params": [other], "weight_decay": 0.0}]
        return AdamW([group | {"param_names": [named[id(p)] for p in group["params"]]} for group in groups])

    before = stepped(optimizer(first, second), network)
    plain, ours = optimizer(second, first), optimizer(second, first)
    plain.load_state_dict(before.state_dict())
    assert torch.equal(plain.state[second]["exp_avg"], before.state[first]["exp_avg"])  # silently another's
    said = []
    match_by_name(ours, network, say=said.append)
    ours.load_state_dict(before.state_dict())
    assert_same(moments(ours, network), moments(before, network))
    assert [group["weight_decay"] for group in ours.param_groups] == [0.1, 0.0]
    assert said == [
        "Optimizer state matched by name: weight decay 0 becomes 0.1 for '3.weight', "
        "weight decay 0.1 becomes 0 for '1.weight'."
    ]


@pytest.mark.parametrize("after", ROLES)
@pytest.mark.parametrize("before", ROLES)
def test_from_every_policy_to_every_other(before, after):
    network = model()
    gammas = find_gammas(network)
    old = stepped(AdamW(param_groups(network, 0.1, before, gammas=gammas), lr=0.3), network)
    new = AdamW(param_groups(network, 0.1, after, gammas=gammas), lr=0.1)
    said = []
    match_by_name(new, network, say=said.append)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert_same(moments(new, network), moments(old, network))
    assert {group["lr"] for group in new.param_groups} == {0.3}  # as torch does: settings come with the checkpoint
    decayed = {name for group in new.param_groups if group["weight_decay"] for name in group["param_names"]}
    expected = {name for name, decays in decide(gammas, network, after).items() if decays}
    assert decayed & set(gammas.names) == expected
    assert bool(said) is (before != after)


def plain_trainer(network):
    decayed = set(Trainer.get_decay_parameter_names(None, network))
    pairs = list(network.named_parameters())
    return [
        {"params": [p for n, p in pairs if n in decayed], "weight_decay": 0.1},
        {"params": [p for n, p in pairs if n not in decayed], "weight_decay": 0.0},
    ]


def plain_timm(network):
    return timm.optim.param_groups_weight_decay(network, 0.1)


def plain_torch(network):
    return list(network.parameters())


@pytest.mark.parametrize("kind", [AdamW, SGD])
@pytest.mark.parametrize("groups_of", [plain_trainer, plain_timm, plain_torch])
def test_groups_without_names_are_read_as_their_library_made_them(groups_of, kind):
    network = model()
    options = {"lr": 0.1, "momentum": 0.9} if kind is SGD else {"lr": 0.1}
    old = stepped(kind(groups_of(network), **options), network)
    assert all("param_names" not in group for group in old.param_groups)
    new = kind(param_groups(network, 0.1, example_inputs=torch.zeros(2, 3, 160, 160)), **options)
    match_by_name(new, network)
    new.load_state_dict(old.state_dict())
    assert_same(moments(new, network), moments(old, network))


@pytest.mark.parametrize("opt", ["adamw", "sgd", "lookahead_adamw", "muon", "lamb"])
def test_the_timm_front_door_loads_by_name(opt):
    network = model()
    gammas = find_gammas(network)
    old = stepped(create_optimizer_v2(network, opt, lr=0.1, weight_decay=0.1, policy="none", gammas=gammas), network)
    new = create_optimizer_v2(network, opt, lr=0.1, weight_decay=0.1, policy="all", gammas=gammas)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert_same(moments(new, network), moments(old, network))


@pytest.mark.parametrize("options", [{"layer_decay": 0.7}, {"layer_decay": 0.7, "filter_bias_and_bn": False}])
def test_a_plain_timm_checkpoint_with_layer_decay_loads_in_the_same_call_of_ours(options):
    network = timm.create_model("test_vit")
    old = stepped(timm.optim.create_optimizer_v2(network, "adamw", lr=0.1, weight_decay=0.1, **options), network)
    saved = old.state_dict()
    for group in saved["param_groups"]:
        group.pop("param_names", None)
    new = create_optimizer_v2(network, "adamw", lr=0.1, weight_decay=0.1, **options)
    new.load_state_dict(saved)
    assert_same(moments(new, network), moments(old, network))
    scales = [
        {name: group["lr_scale"] for group in optimizer.param_groups for name in names_of(group, network)}
        for optimizer in (old, new)
    ]
    assert scales[0] == scales[1]


def names_of(group, network):
    called = {id(parameter): name for name, parameter in network.named_parameters()}
    return [called[id(parameter)] for parameter in group["params"]]


def test_groups_of_ones_own_with_rates_by_layer_load_where_the_same_are_given():
    network = build(PlainStack)

    def factory():
        return [{"params": [p], "lr": 0.1 / (at + 1)} for at, p in enumerate(network.parameters())]

    old = stepped(AdamW(factory(), weight_decay=0.1), network)
    new = AdamW(param_groups(network, 0.1, example_inputs=PlainStack.takes, groups=factory()))
    match_by_name(new, network, given=factory())
    new.load_state_dict(old.state_dict())
    assert_same(moments(new, network), moments(old, network))


@pytest.mark.parametrize(
    ("like", "groups_of"), [("trainer", plain_trainer), ("timm", plain_timm), ("torch", plain_torch)]
)
def test_plain_libraries_go_on_from_ours_once_it_is_exported(like, groups_of):
    network = model()
    gammas = find_gammas(network)
    old = stepped(AdamW(param_groups(network, 0.1, gammas=gammas, gamma_weight_decay=0.05), lr=0.3), network)
    plain = AdamW(groups_of(network), lr=0.1, weight_decay=0.1)
    expected = [group["weight_decay"] for group in plain.param_groups]
    with pytest.raises(ValueError, match="parameter group"):
        plain.load_state_dict(old.state_dict())
    plain.load_state_dict(export_plain(old.state_dict(), network, like))
    assert_same(moments(plain, network), moments(old, network))
    assert [group["weight_decay"] for group in plain.param_groups] == expected
    assert {group["lr"] for group in plain.param_groups} == {0.3}


def test_what_can_not_be_exported_is_one_clear_error():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": layer.named_parameters(str(at)), "lr": at + 0.5} for at, layer in enumerate(network)]
    ours = AdamW(param_groups(network, 0.1, "none", example_inputs=torch.ones(1, 2), groups=groups))
    for state, like, found in (
        (ours.state_dict(), "keras", "found 'keras'"),
        (AdamW(network.parameters()).state_dict(), "torch", "without `param_names`"),
        (ours.state_dict(), "torch", "found '0.5', '1.5'"),
    ):
        with pytest.raises(GammaRegError, match=found):
            export_plain(state, network, like)
    with pytest.raises(GammaRegError, match="only one of the two has"):
        export_plain(ours.state_dict(), nn.Linear(2, 2), "torch")


def test_two_groupings_that_both_fit_are_refused():
    network = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    one, two = network[0].weight, network[1].weight
    old = stepped(SGD([two, one], lr=0.1, momentum=0.9), network)
    new = SGD([{"params": [two, one], "param_names": ["1.weight", "0.weight"]}], lr=0.1, momentum=0.9)
    match_by_name(new, network)
    with pytest.raises(GammaRegError, match=r"fit those of this run and of torch\.optim, which differ"):
        new.load_state_dict(old.state_dict())
    assert not new.state


def test_an_optimizer_with_a_method_of_its_own_loads_by_name():
    class Own(SGD):
        def load_state_dict(self, state_dict):
            super().load_state_dict(state_dict)
            self.loaded = True

    network = model()
    gammas = find_gammas(network)
    old, new = (Own(param_groups(network, 0.1, p, gammas=gammas), lr=0.1, momentum=0.9) for p in ("all", "none"))
    stepped(old, network)
    match_by_name(new, network)
    new.load_state_dict(old.state_dict())
    assert new.loaded
    assert_same(moments(new, network), moments(old, network))


def scheduled(optimizer, kind):
    if kind == "lambda":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    if kind == "sequential":
        parts = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2)]
        parts.append(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
        return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])
    if kind == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return CosineLRScheduler(optimizer, t_initial=10, warmup_t=5, warmup_lr_init=0.01)


@pytest.mark.parametrize("kind", ["lambda", "sequential", "cosine", "timm"])
def test_learning_rates_go_on_where_the_number_of_groups_is_another(kind):
    network = model()
    gammas = find_gammas(network)
    old = AdamW(param_groups(network, 0.1, "all", gammas=gammas), lr=0.2)
    new = AdamW(param_groups(network, 0.1, gammas=gammas, gamma_weight_decay=0.3), lr=0.2)
    assert len(old.param_groups) != len(new.param_groups)
    stepped(old, network)
    schedules = [scheduled(optimizer, kind) for optimizer in (old, new)]

    def step(scheduler, at):
        scheduler.step(*[at] if kind == "timm" else [])

    for at in (1, 2, 3):
        old.step()
        step(schedules[0], at)
    match_by_name(new, network)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    schedules[1].load_state_dict(copy.deepcopy(schedules[0].state_dict()))
    fit_scheduler(schedules[1], new)
    for at in (4, 5):
        for optimizer, scheduler in zip((old, new), schedules, strict=True):
            optimizer.step()
            step(scheduler, at)
        assert {group["lr"] for group in new.param_groups} == {group["lr"] for group in old.param_groups}
        assert len({group["lr"] for group in new.param_groups}) == 1


def test_layouts_hold_every_trainable_parameter_once():
    network = model()
    next(network.parameters()).requires_grad_(False)
    names = sorted(name for name, parameter in network.named_parameters() if parameter.requires_grad)
    layouts = plain_layouts(network)
    assert {layout.label for layout in layouts} == {"torch.optim", "plain Trainer", "plain timm"}
    for layout in layouts:
        assert sorted(name for group in layout.groups for name in group) == names


def test_the_state_given_is_not_changed():
    network = model()
    gammas = find_gammas(network)
    old = stepped(AdamW(param_groups(network, 0.1, "all", gammas=gammas)), network)
    new = AdamW(param_groups(network, 0.1, gammas=gammas))
    saved = old.state_dict()
    before = copy.deepcopy(saved["param_groups"])
    matched_state(saved, new.param_groups)
    assert saved["param_groups"] == before


@pytest.mark.parametrize("before", ROLES)
@pytest.mark.parametrize("after", ROLES)
def test_a_state_of_distributed_checkpoint_says_only_what_changed(before, after):
    network = build(PlainStack)
    gammas = find_gammas(network, PlainStack.takes)
    old = stepped(AdamW(param_groups(network, 0.1, before, gammas=gammas), lr=0.3), network)
    saved = distributed_state.get_optimizer_state_dict(network, old)
    again = build(PlainStack)
    new = AdamW(param_groups(again, 0.1, after, gammas=gammas), lr=0.3)
    said = []
    match_by_name(new, again, say=said.append)
    distributed_state.set_optimizer_state_dict(again, new, saved)
    assert_same(moments(new, again), moments(old, network))
    decided = [decide(gammas, network, policy) for policy in (before, after)]
    changed = {name for name in gammas.names if decided[0][name] is not decided[1][name]}
    named = {name for name, _ in network.named_parameters() if f"'{name}'" in "".join(said)}
    assert named <= changed  # torch keeps the settings of one of the groups whose parameters are together now
    if before == "all":
        assert named == changed


def loop(tmp_path, policy, say):
    """A raw Accelerate loop's objects."""
    network = build(PlainStack)
    gammas = find_gammas(network, PlainStack.takes)
    optimizer = AdamW(param_groups(network, 0.1, policy, gammas=gammas), lr=0.1)
    match_by_name(optimizer, network)
    accelerator = Accelerator(cpu=True)
    accelerator.register_for_checkpointing(PolicyState(gammas, decide(gammas, network, policy), policy, say=say))
    network, optimizer = accelerator.prepare(network, optimizer)
    return accelerator, network, optimizer


def test_a_raw_accelerate_loop_saves_the_policy_and_compares_it(tmp_path):
    said = []
    accelerator, network, optimizer = loop(tmp_path, "all", said.append)
    stepped(optimizer, network)
    accelerator.save_state(str(tmp_path / "state"))
    for policy in ("all", "guidelines"):
        other, again, new = loop(tmp_path, policy, said.append)
        other.load_state(str(tmp_path / "state"))
        assert_same(moments(new.optimizer, again), moments(optimizer.optimizer, network))
    assert len(said) == 1
    assert said[0].startswith("The checkpoint's policy was all, this run's is guidelines; no longer decaying: ")


# --- surgery, and parameters of others ---------------------------------------------------------------------------


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def with_losses(network, losses, named):
    """AdamW over a model and the parameters of loss functions, in the order given."""
    pairs = [(f"{name}.scale", loss.scale) if named else loss.scale for name, loss in losses.items()]
    groups = [{"params": list(network.parameters())}, *({"params": [pair]} for pair in pairs)]
    return AdamW(param_groups(network, 0.1, example_inputs=PlainStack.takes, groups=groups), lr=0.1)


def test_moments_of_loss_functions_go_by_the_names_that_the_caller_gave():
    network, one, two = build(PlainStack), Loss(), Loss()
    both = nn.ModuleList([network, one, two])
    old = stepped(with_losses(network, {"one": one, "two": two}, named=True), both)
    new = with_losses(network, {"two": two, "one": one}, named=True)
    match_by_name(new, network)
    new.load_state_dict(old.state_dict())
    assert_same(moments(new, both), moments(old, both))


def test_several_parameters_that_nobody_named_are_refused_and_not_matched_by_place():
    network, one, two = build(PlainStack), Loss(), Loss()
    with pytest.warns(UserWarning, match="2 parameters of the groups are not the model's and have no names"):
        old = stepped(with_losses(network, {"one": one, "two": two}, named=False), nn.ModuleList([network, one, two]))
    with pytest.warns(UserWarning, match="have no names"):
        new = with_losses(network, {"two": two, "one": one}, named=False)
    match_by_name(new, network)
    with pytest.raises(GammaRegError, match=r"found several without one of shape \(3,\): .* pairs"):
        new.load_state_dict(old.state_dict())
    assert not new.state


def test_what_was_replaced_or_thawed_after_the_optimizer_was_made_is_named():
    network = build(PlainStack)
    frozen = next(network.parameters()).requires_grad_(False)
    first = next(iter(dict(network.named_parameters())))
    optimizer = AdamW(param_groups(network, 0.1, example_inputs=PlainStack.takes), lr=0.1)
    frozen.requires_grad_(True)
    said = []
    match_by_name(optimizer, network, say=said.append)
    assert said == [f"In no group of the AdamW, and so not trained by it: '{first}'."]
    network.net[1] = copy.deepcopy(network.net[1])
    with pytest.raises(GammaRegError, match=r"under the names 'net\.1\.bias', 'net\.1\.weight'\. If a layer"):
        match_by_name(optimizer, network)


def test_a_head_of_another_name_is_named_with_what_the_optimizer_holds_in_its_place():
    network = nn.ModuleDict({"body": nn.Linear(2, 2), "fc": nn.Linear(2, 2)})
    names = [name for name, _ in network.named_parameters()]
    optimizer = SGD([{"params": list(network.parameters()), "param_names": names}], lr=0.1)
    network["head"] = nn.Linear(2, 3)
    del network["fc"]
    said = []
    match_by_name(optimizer, network, say=said.append)
    assert said == [
        "In no group of the SGD, which holds 'fc.bias', 'fc.weight' that are not the model's, and so not trained by "
        "it: 'head.bias', 'head.weight'."
    ]
