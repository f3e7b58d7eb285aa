"""What a Trainer says about the gammas: one line at a time, where its own lines go."""

from __future__ import annotations

import logging as _logging
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers.utils import logging

from hf_gammareg.decay.budget import decay_budget, decay_kind
from hf_gammareg.decay.optimizers import class_name, unwrapped_optimizer
from hf_gammareg.decay.policy import decide, policy_name
from hf_gammareg.decay.regroup import Outcome
from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.roles.find import Analysis
from hf_gammareg.roles.gammas import GammaMap, unknown_text
from hf_gammareg.show.page import Plan, write_page
from hf_gammareg.show.report import add_to_report, summary_line, write_report

logger = _logging.getLogger(__name__)

TRIAL = 100
"""Steps of a run below which no usual strength comes to anything: at a rate of 0.001 and a decay of 0.1 it takes 100 to
bring a weight to 0.99 of itself."""


def say(line: str, *, loudly: bool = False) -> None:
    """Log a line, as a warning where something is amiss."""
    if loudly:
        logger.warning(f"hf_gammareg: {line}")
    elif logger.isEnabledFor(_logging.INFO) and logger.hasHandlers():
        logger.info(line)
    elif logging.get_verbosity() <= logging.WARNING:
        # Without set-up a logger shows nothing below a warning; the Trainer prints its metrics, and so this line.
        print(f"hf_gammareg: {line}", file=sys.stderr, flush=True)


def tell_left_alone(name: str, differ: Collection[str], policy: Any) -> None:
    """Warn that a Trainer was given an optimizer of the user's that decays other gammas.

    Args:
        name: of the Trainer's class.
        differ: the gammas that it decays and the policy would not, or the other way.
        policy: the Trainer's.
    """
    logger.warning(
        f"{name} was given an optimizer and leaves its groups as they are, which decay other gammas than the policy "
        f"would: {_advice(differ, policy)}"
    )


def tell_passed_by(name: str, optimizer: Any, differ: Collection[str], policy: Any, report: Path | None) -> None:
    """Warn that a Trainer trains with an optimizer that it has not made.

    Args:
        name: see `tell_left_alone`, as for `differ` and `policy`.
        optimizer: the optimizer.
        report: where there may be a report of one that it made.
    """
    logger.warning(
        f"Expected {name}.create_optimizer to call super().create_optimizer(), which applies the gamma policy, found "
        f"{type(unwrapped_optimizer(optimizer)).__name__}, made without it, whose groups decay other gammas than the "
        f"policy would: {_advice(differ, policy)}"
    )
    if report:
        add_to_report(report, honoured=False)


def _advice(differ: Collection[str], policy: Any) -> str:
    name = policy_name(policy)
    return (
        f"{some(differ)}. To apply the policy, build the optimizer from hf_gammareg.param_groups(model, ..., "
        f"policy={name!r}); if its groups are of another making on purpose, set gamma_policy, gamma_decay and "
        "gamma_no_decay to what made them."
    )


def tell_changed(optimizer: Any, frozen: Collection[str], thawed: Collection[str]) -> None:
    """Warn that layers were frozen or thawed after an optimizer was made.

    Args:
        optimizer: the optimizer.
        frozen: the parameters that it holds and that get no gradient.
        thawed: those that get one and that it does not hold.
    """
    name = type(unwrapped_optimizer(optimizer)).__name__
    say(
        f"Expected the layers that {name} was made for, found "
        + " and ".join(
            [f"frozen since, which it leaves as they are: {some(frozen)}"] * bool(frozen)
            + [f"thawed or added since, which none of its groups holds, so not trained: {some(thawed)}"] * bool(thawed)
        )
        + ". Do so before the optimizer is made, or set trainer.optimizer = None before train() is called again.",
        loudly=True,
    )


def tell_policy(
    gammas: GammaMap,
    decays: Mapping[str, bool],
    plain: Collection[str],
    outcome: Outcome,
    optimizer: Any,
    option: Any,
    report: Path | None,
    *,
    policy: Any,
    weight_decay: float,
    gamma_weight_decay: float | None,
) -> None:
    """Log the one line, loudly where something is amiss, and write the report.

    Args:
        gammas: the gammas of the model.
        decays: `{parameter name: decays}`.
        plain: the gammas that the Trainer would decay by itself.
        outcome: what became of the decisions (see `hf_gammareg.decay.regroup`).
        optimizer: the optimizer.
        option: its name in `TrainingArguments.optim`.
        report: where the report goes; None: there is none.
        policy: the policy that decided.
        weight_decay: the run's.
        gamma_weight_decay: a strength of its own for the gammas that decay.
    """
    line = summary_line(
        gammas,
        decays,
        {name: name in plain for name in gammas.names},
        policy=policy,
        strength=weight_decay if gamma_weight_decay is None else gamma_weight_decay,
    )
    _tell_outcome(outcome, optimizer, option)
    if outcome in ("kept", "moved"):
        say(line, loudly=bool(unknown_text(gammas)))
    if report:
        write_report(
            report,
            gammas,
            decays,
            policy=policy,
            weight_decay=weight_decay,
            gamma_weight_decay=gamma_weight_decay,
            optimizer=type(optimizer).__name__,
            decay_kind=str(decay_kind(optimizer)),
            honoured=outcome in ("kept", "moved"),
            summary=line,
        )


def leave_page(
    path: Path,
    analysis: Analysis,
    gammas: GammaMap,
    decays: Mapping[str, bool],
    plain: Collection[str],
    model: nn.Module,
    optimizer: Any,
    trainer: Any,
) -> None:
    """Leave a page beside the report (see `hf_gammareg.write_page`), with the schedule that the Trainer plans.

    Args:
        path: where it goes.
        analysis: of the model.
        gammas: the gammas, as they are trained now.
        decays: `{parameter name: decays}`.
        plain: the gammas that the Trainer would decay by itself.
        model: the model, without wrappers.
        optimizer: the optimizer.
        trainer: the Trainer, for its settings.
    """
    args, policy = trainer.args, policy_name(trainer._option("policy"))
    momentum = optimizer.defaults.get("momentum") if isinstance(optimizer, Optimizer) else None
    strengths = (args.gamma_weight_decay, args.weight_decay)
    known = {
        "learning_rate": args.learning_rate,
        "weight_decay": next(strength for strength in strengths if strength is not None),
        "steps": trainer.state.max_steps or None,
        "schedule": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "optimizer": type(optimizer).__name__ + (f" {momentum:g}" if momentum else ""),
    }
    others = {"trainer": {name: name in plain for name in gammas.names}, "timm": decide(gammas, model, "timm")}
    write_page(
        path,
        replace(analysis, gammas=gammas),
        decays,
        model,
        policy=policy,
        others={name: theirs for name, theirs in others.items() if name != policy},
        plan=Plan.near(known),
    )


def _tell_outcome(outcome: Outcome, optimizer: Any, option: Any) -> None:
    """Warn where an optimizer has groups of its own making, or is of other parameters."""
    name = f"{type(optimizer).__name__} (optim={getattr(option, 'value', option)})"
    if outcome == "unmatched":
        say(
            f"Expected the gammas in the model that {name} is made for, found its parameters under other names, so the "
            "gamma policy can't be honoured and its groups decay as they were made. Hand it the model that is trained, "
            "replace layers before the Trainer is made, or under FSDP1 set use_orig_params.",
            loudly=True,
        )
    elif outcome == "lost":
        say(
            f"{name} does not keep the parameter groups it is given, so the gamma policy can't be honoured and its own "
            "decay applies. Choose another optimizer.",
            loudly=True,
        )
    elif outcome == "moved":
        # torch's own have the groups that they were given.
        maker = f"What made this {name}" if class_name(optimizer).startswith("torch.optim.") else name
        say(
            f"{maker} makes parameter groups of its own, not the Trainer's. The gammas were put where the policy says; "
            "whether anything else decays is as it decided.",
            loudly=True,
        )


def tell_budget(optimizer: Any, scheduler: Any, steps: int, names: Collection[str], report: Path | None) -> None:
    """Say what decay alone is going to do to a gamma, and add it to the report.

    Of a trial, where it is next to nothing whatever the settings, only the report tells.

    Args:
        optimizer: the optimizer.
        scheduler: its scheduler.
        steps: optimizer steps of the run.
        names: the gammas that decay.
        report: the report that was written with the groups.
    """
    if not isinstance(unwrapped_optimizer(optimizer), Optimizer):  # one of DeepSpeed's own
        return
    try:
        budget = decay_budget(optimizer, scheduler, steps, names=names)
    except GammaRegError as error:
        say(f"what decay alone will do to a gamma is not known beforehand: {error}")
        return
    if names and not budget.groups:  # layer-wise optimizers, which hold one optimizer for each parameter; strength 0
        return
    if names and not (budget.negligible and steps < TRIAL):
        say(str(budget))
    if report:
        add_to_report(report, decay_budget=budget.to_dict())
