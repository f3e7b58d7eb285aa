"""Schedulers of torch, transformers and timm go on where the checkpoint has other groups than the run."""

import copy
import inspect
import warnings
from functools import partial

import pytest
import torch
from timm import scheduler as timm_schedulers
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import SGD, lr_scheduler, swa_utils
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType, get_scheduler

from hf_gammareg import GammaRegError, fit_scheduler, match_by_name

TORCH = {
    "LambdaLR": {"lr_lambda": lambda step: 1 / (step + 1)},
    "MultiplicativeLR": {"lr_lambda": lambda step: 0.9},
    "StepLR": {"step_size": 2, "gamma": 0.5},
    "MultiStepLR": {"milestones": [2, 4], "gamma": 0.5},
    "ConstantLR": {"total_iters": 4},
    "LinearLR": {"total_iters": 9},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 9},
    "CosineAnnealingLR": {"T_max": 10},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "ReduceLROnPlateau": {"patience": 1, "min_lr": [0.01, 0.02, 0.01]},
    "CyclicLR": {"base_lr": [0.1, 0.2, 0.1], "max_lr": [0.5, 0.9, 0.5], "step_size_up": 3},
    "OneCycleLR": {"max_lr": [0.5, 0.9, 0.5], "total_steps": 20},
    "SWALR": {"swa_lr": [0.05, 0.07, 0.05], "anneal_epochs": 6},
    "SequentialLR": {},
    "ChainedScheduler": {},
}
TRANSFORMERS = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 3},
    "reduce_lr_on_plateau": {"patience": 1},
    "greedy": {"patience": 0, "min_lr": [0.01, 0.02, 0.01], "max_lr": [0.6, 0.7, 0.6]},
}
TIMM = {
    "CosineLRScheduler": {"t_initial": 10, "warmup_t": 4, "warmup_lr_init": 0.01},
    "TanhLRScheduler": {"t_initial": 10, "warmup_t": 4, "warmup_lr_init": 0.01},
    "PolyLRScheduler": {"t_initial": 10, "warmup_t": 4, "warmup_lr_init": 0.01},
    "StepLRScheduler": {"decay_t": 2, "warmup_t": 4, "warmup_lr_init": 0.01},
    "MultiStepLRScheduler": {"decay_t": [3, 4], "warmup_t": 4, "warmup_lr_init": 0.01},
    "PlateauLRScheduler": {"patience_t": 0, "decay_rate": 0.5, "lr_min": 0.02},
}
if hasattr(timm_schedulers, "WSDLRScheduler"):  # since timm 1.0.31
    TIMM["WSDLRScheduler"] = {"t_initial": 10, "warmup_t": 4, "warmup_lr_init": 0.01, "decay_t": 3}


def of_torch(name, optimizer, by_group):
    if name in ("SequentialLR", "ChainedScheduler"):
        parts = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5), lr_scheduler.ExponentialLR(optimizer, 0.9)]
        return (
            lr_scheduler.ChainedScheduler(parts)
            if name == "ChainedScheduler"
            else lr_scheduler.SequentialLR(optimizer, parts, milestones=[4])
        )
    kind = getattr(swa_utils if name == "SWALR" else lr_scheduler, name)
    return kind(optimizer, **by_group(TORCH[name]))


def of_transformers(name, optimizer, by_group):
    given = by_group(TRANSFORMERS.get(name, {}))
    return get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=12, scheduler_specific_kwargs=given)


def of_timm(name, optimizer, by_group):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that the plateau scheduler will go
        return getattr(timm_schedulers, name)(optimizer, **TIMM[name])


SCHEDULERS = {
    **{f"torch {name}": partial(of_torch, name) for name in TORCH},
    **{f"transformers {kind.value}": partial(of_transformers, kind.value) for kind in TYPE_TO_SCHEDULER_FUNCTION},
    **{f"timm {name}": partial(of_timm, name) for name in TIMM},
}


def test_every_scheduler_there_is_has_a_case():
    classes = vars(lr_scheduler).values()
    torchs = {c.__name__ for c in classes if inspect.isclass(c) and issubclass(c, lr_scheduler.LRScheduler)}
    assert torchs - {"LRScheduler", "_LRScheduler"} <= TORCH.keys()
    timms = {c.__name__ for c in vars(timm_schedulers).values() if inspect.isclass(c) and issubclass(c, Scheduler)}
    assert timms == set(TIMM)
    assert set(TYPE_TO_SCHEDULER_FUNCTION) == set(SchedulerType)


def optimizer_of(network, members):
    """SGD with a group for each list of layers, whose rate and momentum say which layer it is."""
    groups = [
        {
            "params": [network[at].weight for at in group],
            "param_names": [f"{at}.weight" for at in group],
            "lr": (0.1, 0.2, 0.1)[group[0]],
            "weight_decay": decay,
        }
        for group, decay in members
    ]
    return SGD(groups, lr=0.1, momentum=0.9)


def settings(optimizer):
    return {
        f"{key} of {name}": group[key]
        for group in optimizer.param_groups
        for name in group["param_names"]
        for key in ("lr", "momentum")
    }


def step(scheduler, at):
    if isinstance(scheduler, Scheduler):
        scheduler.step(at, 1.0) if "Plateau" in type(scheduler).__name__ else scheduler.step(at)
    elif type(scheduler).__name__ in ("ReduceLROnPlateau", "GreedyLR"):
        scheduler.step(1.0)
    else:
        scheduler.step()


def given(members):
    """A scheduler's settings, each list of three brought to these groups."""
    return lambda options: {
        key: [value[group[0]] for group, _ in members]
        if isinstance(value, list) and len(value) == 3 and key != "milestones"
        else value
        for key, value in options.items()
    }


THREE = [([0], 0.1), ([1], 0.1), ([2], 0.0)]
TWO = [([1], 0.1), ([0, 2], 0.1)]


@pytest.mark.parametrize(("before", "now"), [(THREE, TWO), (TWO, THREE), (THREE, THREE[::-1])])
@pytest.mark.parametrize("case", SCHEDULERS)
def test_every_scheduler_goes_on_with_other_groups(case, before, now):
    network = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(3)])
    old, new = optimizer_of(network, before), optimizer_of(network, now)
    schedulers = [SCHEDULERS[case](o, given(members)) for o, members in ((old, before), (new, now))]
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    for at in range(1, 4):
        old.step()
        step(schedulers[0], at)
    match_by_name(new, network)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    fit_scheduler(schedulers[1], new)
    schedulers[1].load_state_dict(copy.deepcopy(schedulers[0].state_dict()))
    fit_scheduler(schedulers[1], new)
    for at in range(4, 9):
        for optimizer, scheduler in zip((old, new), schedulers, strict=True):
            optimizer.step()
            step(scheduler, at)
        assert settings(new) == pytest.approx(settings(old))


def test_a_group_of_parameters_whose_limits_differed_is_one_clear_error():
    network = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(3)])
    old, new = optimizer_of(network, THREE), optimizer_of(network, [([0, 1, 2], 0.1)])
    schedulers = [lr_scheduler.CyclicLR(o, 0.1, limit) for o, limit in ((old, [0.5, 0.9, 0.5]), (new, 0.5))]
    match_by_name(new, network)
    new.load_state_dict(old.state_dict())
    schedulers[1].load_state_dict(schedulers[0].state_dict())
    with pytest.raises(GammaRegError, match=r"one value of `max_lrs` .*, found '0\.5', '0\.9' for one of them\. Keep"):
        fit_scheduler(schedulers[1], new)
