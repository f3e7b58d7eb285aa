"""What weight decay does in each optimizer: whether it goes through the gradient, and its own rule for one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Settings = Mapping[str, Any]
"""A parameter group's settings, as they stand at one step."""

Step = Callable[[Settings, float], float]
"""One step of an optimizer whose gradient is 0: from a weight to the weight after it."""


class DecayKind(StrEnum):
    """Where an optimizer applies weight decay."""

    COUPLED = "coupled"
    """As L2 on the loss: it joins the gradient, or the update, and is averaged or rescaled with it."""
    DECOUPLED = "decoupled"
    """On the weight itself, beside the update."""
    UNKNOWN = "unknown"
    """An optimizer that is not in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecayRule:
    """What weight decay does to a one-dimensional parameter of one group."""

    kind: DecayKind
    start: Callable[[], Step] | None = None
    """Makes the rule of a run from its first step on, with whatever the optimizer remembers; None: there is none."""
    note: str = ""
    """Why there is no rule, or what is unusual about it."""


Rule = Callable[[Settings], DecayRule]
"""From the settings of a group to what decay does in it."""


def _product(rate: Callable[[Settings], float], note: str = "", divide: bool = False) -> Rule:
    """The weight is multiplied by 1 - rate * weight_decay, or divided by 1 + rate * weight_decay."""

    def step(settings: Settings, weight: float) -> float:
        amount = rate(settings) * float(settings["weight_decay"])
        return weight / (1.0 + amount) if divide else weight * (1.0 - amount)

    return lambda settings: DecayRule(kind=DecayKind.DECOUPLED, start=lambda: step, note=note)


def _without_rule(kind: DecayKind, note: str) -> Rule:
    return lambda settings: DecayRule(kind=kind, note=note)


def _choice(option: str, then: Rule, otherwise: Rule) -> Rule:
    return lambda settings: (then if settings.get(option) else otherwise)(settings)


def _lr(settings: Settings) -> float:
    return float(settings["lr"])


def _corrected_lr(settings: Settings) -> float:
    # timm: lr**2 / max_lr, so that the decay does not outlive the learning rate.
    lr = _lr(settings)
    return lr * lr / float(settings["max_lr_snapshot"]) if settings.get("corrected_weight_decay") else lr


def _momentum_sgd(settings: Settings) -> DecayRule:
    """The decay is part of the gradient, which is averaged but not rescaled, so it still has a factor of its own."""

    def start() -> Step:
        memory: list[float] = []

        def step(settings: Settings, weight: float) -> float:
            gradient, momentum = float(settings["weight_decay"]) * weight, float(settings["momentum"])
            if momentum:
                fresh = (1.0 - float(settings["dampening"])) * gradient
                memory[:] = [momentum * memory[0] + fresh if memory else gradient]
                gradient = gradient + momentum * memory[0] if settings.get("nesterov") else memory[0]
            return weight - _lr(settings) * gradient

        return step

    note = "the decay runs through the momentum" if settings.get("momentum") else ""
    return DecayRule(kind=DecayKind.COUPLED, start=start, note=note)


def _novograd(settings: Settings) -> DecayRule:
    """The decay joins the update after the gradient was normalised, and the update is averaged."""

    def start() -> Step:
        memory = [0.0]

        def step(settings: Settings, weight: float) -> float:
            beta = float(settings["betas"][0])
            update = float(settings["weight_decay"]) * weight * (1.0 - beta if settings["grad_averaging"] else 1.0)
            memory[0] = beta * memory[0] + update
            return weight - _lr(settings) * memory[0]

        return step

    return DecayRule(kind=DecayKind.COUPLED, start=start, note="the decay runs through the momentum")


def _madgrad_decoupled(settings: Settings) -> DecayRule:
    """The weight is averaged with a point that starts from the first weight, which does not decay."""

    def start() -> Step:
        first: list[float] = []

        def step(settings: Settings, weight: float) -> float:
            if not first:
                first.append(weight)
            momentum = float(settings["momentum"])
            decayed = weight * (1.0 - _lr(settings) * float(settings["weight_decay"]))
            return momentum * decayed + (1.0 - momentum) * first[0] if momentum else decayed

        return step

    note = "its momentum pulls back to the first weight" if settings.get("momentum") else ""
    return DecayRule(kind=DecayKind.DECOUPLED, start=start, note=note)


def _adopt_decoupled(settings: Settings) -> DecayRule:
    """The first step only looks at the gradient."""

    def start() -> Step:
        steps = [0]

        def step(settings: Settings, weight: float) -> float:
            steps[0] += 1
            return weight if steps[0] == 1 else weight * (1.0 - _corrected_lr(settings) * settings["weight_decay"])

        return step

    return DecayRule(kind=DecayKind.DECOUPLED, start=start)


def _sgdp_rate(settings: Settings) -> float:
    return _lr(settings) / (1.0 - float(settings["momentum"]))


def _mars_rate(settings: Settings) -> float:
    return _lr(settings) * (1.0 if settings["optimize_1d"] else float(settings["lr_1d_factor"]))


def _muon_rate(settings: Settings) -> float:
    # One-dimensional parameters go to its AdamW, unless the group says otherwise.
    by_muon = settings.get("use_muon") and not settings.get("use_fallback")
    return _lr(settings) * (1.0 if by_muon else float(settings["fallback_lr_scale"]))


def _big_vision_rate(settings: Settings) -> float:
    if not settings["unscaled_wd"]:
        return _corrected_lr(settings)
    return _lr(settings) / float(settings["max_lr_snapshot"]) if settings["corrected_weight_decay"] else 1.0


_PLAIN = _product(_lr)
_CORRECTED = _product(_corrected_lr)
_RESCALED = _without_rule(DecayKind.COUPLED, "the gradient's own size rescales it, so it has no factor of its own")
_TRUST = _without_rule(DecayKind.COUPLED, "its trust ratio rescales it, so it has no factor of its own")
_ASGD = _without_rule(DecayKind.COUPLED, "its step sizes are its own, so the schedule gives no factor")
_RELATIVE = _without_rule(
    DecayKind.DECOUPLED, "its step sizes depend on the weights, so the schedule alone gives no factor"
)
_AVERAGED = "its weights are an average over the run, for which no factor is worked out"
_RANDOM = _without_rule(DecayKind.DECOUPLED, "its decay is random")

_HF_ADAFACTOR = _choice("relative_step", _RELATIVE, _choice("scale_parameter", _RELATIVE, _PLAIN))

RULES: dict[str, Rule] = {
    "torch.optim.Adadelta": _RESCALED,
    "torch.optim.Adafactor": _PLAIN,
    "torch.optim.Adagrad": _RESCALED,
    "torch.optim.Adam": _choice("decoupled_weight_decay", _PLAIN, _RESCALED),
    "torch.optim.Adamax": _RESCALED,
    "torch.optim.AdamW": _PLAIN,
    "torch.optim.ASGD": _ASGD,
    "torch.optim.Muon": _PLAIN,
    "torch.optim.NAdam": _choice("decoupled_weight_decay", _PLAIN, _RESCALED),
    "torch.optim.RAdam": _choice("decoupled_weight_decay", _PLAIN, _RESCALED),
    "torch.optim.RMSprop": _RESCALED,
    "torch.optim.SGD": _momentum_sgd,
    "timm.optim.adabelief.AdaBelief": _choice(
        "decoupled_decay", _choice("fixed_decay", _product(lambda settings: 1.0), _PLAIN), _RESCALED
    ),
    "timm.optim.adafactor.Adafactor": _choice("relative_step", _RELATIVE, _PLAIN),
    "timm.optim.adafactor_bv.AdafactorBigVision": _product(_big_vision_rate),
    "timm.optim.adahessian.Adahessian": _PLAIN,
    "timm.optim.adamp.AdamP": _PLAIN,
    "timm.optim.adamw.AdamWLegacy": _CORRECTED,
    "timm.optim.adan.Adan": _choice("no_prox", _PLAIN, _product(_lr, divide=True)),
    "timm.optim.adopt.Adopt": _choice("decoupled", _adopt_decoupled, _RESCALED),
    # Without decoupled_decay too Kron adds the decay after the preconditioner and the momentum.
    "timm.optim.kron.Kron": _choice("stochastic_weight_decay", _RANDOM, _choice("decoupled_decay", _CORRECTED, _PLAIN)),
    "timm.optim.lamb.Lamb": _choice("decoupled_decay", _CORRECTED, _TRUST),
    "timm.optim.laprop.LaProp": _CORRECTED,
    "timm.optim.lars.Lars": _TRUST,
    "timm.optim.lion.Lion": _CORRECTED,
    "timm.optim.madgrad.MADGRAD": _choice("decoupled_decay", _madgrad_decoupled, _RESCALED),
    "timm.optim.mars.Mars": _product(_mars_rate),
    "timm.optim.muon.Muon": _product(_muon_rate),
    "timm.optim.nadam.NAdamLegacy": _RESCALED,
    "timm.optim.nadamw.NAdamW": _CORRECTED,
    "timm.optim.nvnovograd.NvNovoGrad": _choice("decoupled_decay", _CORRECTED, _novograd),
    "timm.optim.radam.RAdamLegacy": _PLAIN,
    "timm.optim.rmsprop_tf.RMSpropTF": _choice("decoupled_decay", _CORRECTED, _RESCALED),
    "timm.optim.sgdp.SGDP": _product(_sgdp_rate, note="divided by 1 - momentum"),
    "timm.optim.sgdw.SGDW": _CORRECTED,
    "transformers.optimization.Adafactor": _HF_ADAFACTOR,
    "galore_torch.adamw.AdamW": _PLAIN,
    "galore_torch.adafactor.Adafactor": _HF_ADAFACTOR,
    "apollo_torch.apollo.AdamW": _PLAIN,
    "grokadamw.grokadamw.GrokAdamW": _PLAIN,
    "schedulefree.adamw_schedulefree.AdamWScheduleFree": _without_rule(DecayKind.DECOUPLED, _AVERAGED),
    "schedulefree.radam_schedulefree.RAdamScheduleFree": _without_rule(DecayKind.DECOUPLED, _AVERAGED),
    "schedulefree.sgd_schedulefree.SGDScheduleFree": _without_rule(DecayKind.COUPLED, _AVERAGED),
    "optimi.stableadamw.StableAdamW": _RELATIVE,
    "torchao.optim.adam.AdamW4bit": _PLAIN,
    "torchao.optim.adam.AdamW8bit": _PLAIN,
    # Adam too decays as AdamW does here.
    "bitsandbytes.optim.adam.Adam": _PLAIN,
    "bitsandbytes.optim.adam.Adam8bit": _PLAIN,
    "bitsandbytes.optim.adamw.AdamW": _PLAIN,
    "bitsandbytes.optim.adamw.AdamW8bit": _PLAIN,
    "bitsandbytes.optim.ademamix.AdEMAMix": _PLAIN,
    "bitsandbytes.optim.lion.Lion": _PLAIN,
    "bitsandbytes.optim.lion.Lion8bit": _PLAIN,
    "bitsandbytes.optim.rmsprop.RMSprop": _RESCALED,
}
"""What decay does, by the optimizer's class; read off the code of each, and measured by the tests.

Only the class itself counts: a subclass may do anything in its `step`.
"""


def decay_rule(optimizer: Any, settings: Settings) -> DecayRule:
    """Look up what weight decay does in a group of an optimizer.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=0.5)
    >>> rule = decay_rule(optimizer, optimizer.param_groups[0])
    >>> rule.kind.value, rule.start()(optimizer.param_groups[0], 1.0)
    ('coupled', 0.95)

    Args:
        optimizer: the optimizer, also as accelerate or timm's Lookahead wraps it.
        settings: one of its groups.

    Returns:
        The rule; of kind `unknown` for a class that is not in `RULES`.
    """
    name = class_name(optimizer)
    if name == "timm.optim.lookahead.Lookahead":
        return _lookahead(decay_rule(optimizer._base_optimizer, settings), settings)
    if name in RULES:
        return RULES[name](settings)
    return DecayRule(kind=DecayKind.UNKNOWN, note="this library does not know what its weight decay does")


def _lookahead(rule: DecayRule, settings: Settings) -> DecayRule:
    """Every k steps the weight goes back to a slow one, which moves a part of the way to it."""
    inner = rule.start
    if inner is None:
        return rule

    def start() -> Step:
        fast, count = inner(), [int(settings["lookahead_step"])]
        slow: list[float] = []

        def step(settings: Settings, weight: float) -> float:
            weight = fast(settings, weight)
            count[0] += 1
            if count[0] % settings["lookahead_k"]:
                return weight
            # timm makes the slow weight at the first of these steps.
            slow[:] = [slow[0] + settings["lookahead_alpha"] * (weight - slow[0]) if slow else weight]
            return slow[0]

        return step

    return DecayRule(kind=rule.kind, start=start, note=rule.note or "slowed by Lookahead")


def class_name(optimizer: Any) -> str:
    """The full name of an object's class; for torch's optimizers, whatever file they are in, `torch.optim.AdamW`."""
    module, name = type(optimizer).__module__, type(optimizer).__qualname__
    return f"torch.optim.{name}" if module.startswith("torch.optim.") else f"{module}.{name}"


def unwrapped_optimizer(optimizer: Any) -> Any:
    """The optimizer that accelerate and DeepSpeed wrapped, or the one that was given."""
    while class_name(optimizer).startswith(("accelerate.", "deepspeed.runtime.")) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def base_optimizer(optimizer: Any) -> Any:
    """The optimizer that does the steps: without accelerate's wrapper and timm's Lookahead."""
    optimizer = unwrapped_optimizer(optimizer)
    return optimizer._base_optimizer if class_name(optimizer) == "timm.optim.lookahead.Lookahead" else optimizer
