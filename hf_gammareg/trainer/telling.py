"""What a Trainer says about the gammas: one line at a time, where its own lines go."""

from __future__ import annotations

import logging as _logging
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from transformers.utils import logging

from hf_gammareg.decay.budget import decay_budget
from hf_gammareg.decay.optimizers import unwrapped_optimizer
from hf_gammareg.decay.regroup import Outcome
from hf_gammareg.errors import GammaRegError
from hf_gammareg.show.report import add_to_report

logger = _logging.getLogger(__name__)


def say(line: str, *, loudly: bool = False) -> None:
    """Log a line, as a warning where something is amiss."""
    if loudly:
        logger.warning(f"hf_gammareg: {line}")
    elif logger.isEnabledFor(_logging.INFO) and logger.hasHandlers():
        logger.info(line)
    elif logging.get_verbosity() <= logging.WARNING:
        # Without set-up a logger shows nothing below a warning; the Trainer prints its metrics, and so this line.
        print(f"hf_gammareg: {line}", file=sys.stderr, flush=True)


def tell_outcome(outcome: Outcome, optimizer: Any, option: Any) -> None:
    """Warn where an optimizer has groups of its own making.

    Args:
        outcome: what became of the decisions (see `hf_gammareg.decay.regroup`).
        optimizer: the optimizer.
        option: its name in `TrainingArguments.optim`.
    """
    name = f"{type(optimizer).__name__} (optim={getattr(option, 'value', option)})"
    if outcome == "lost":
        say(
            f"{name} does not keep the parameter groups it is given, so the gamma policy can't be honoured and its own "
            "decay applies. Choose another optimizer, or under FSDP1 set use_orig_params.",
            loudly=True,
        )
    elif outcome == "moved":
        say(
            f"{name} makes parameter groups of its own, not the Trainer's. The gammas were put where the policy says; "
            "whether anything else decays is as it decided.",
            loudly=True,
        )


def tell_budget(optimizer: Any, scheduler: Any, steps: int, names: Collection[str], report: Path | None) -> None:
    """Say what decay alone is going to do to a gamma, and add it to the report.

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
    if names:
        say(str(budget))
    if report:
        add_to_report(report, decay_budget=budget.to_dict())
