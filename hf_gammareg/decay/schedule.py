"""The learning rates that a run is going to have, without touching its optimizer or its scheduler."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from hf_gammareg.decay.optimizers import class_name, unwrapped_optimizer
from hf_gammareg.errors import GammaRegError


class _StandIn:
    """Takes an optimizer's place in a copy of its scheduler: the settings of its groups, and no parameters."""

    def __init__(self, optimizer: Any) -> None:
        self.param_groups = [
            {key: copy.deepcopy(value) for key, value in group.items() if key not in ("params", "param_names")}
            for group in optimizer.param_groups
        ]
        self.defaults = dict(optimizer.defaults)
        for group in self.param_groups:  # timm before 1.0.31 read it from the defaults
            group.setdefault("max_lr_snapshot", self.defaults.get("lr"))
        self._opt_called = True

    def step(self) -> None:
        """Do nothing, as an optimizer that torch's schedulers need not warn about."""

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


def follows_metric(scheduler: Any) -> bool:
    """Whether a scheduler waits for a metric, so that nobody can know its rates beforehand."""
    inner = getattr(scheduler, "lr_scheduler", None)  # timm's plateau scheduler holds torch's
    if inner is not None:
        return follows_metric(inner)
    parameters = inspect.signature(scheduler.step).parameters
    return "metrics" in parameters and parameters["metrics"].default is inspect.Parameter.empty


def is_timm_scheduler(scheduler: Any) -> bool:
    """Whether a scheduler is one of timm's, which multiply each group's rate by its `lr_scale`."""
    return hasattr(scheduler, "step_update") and hasattr(scheduler, "update_groups")


def planned_settings(
    optimizer: Any, scheduler: Any, steps: int, updates_per_epoch: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Go through a schedule on copies: the settings of all groups (rate, momentum) at each step.

    Args:
        optimizer: the optimizer, also as accelerate prepared it.
        scheduler: the scheduler of this optimizer, torch's or timm's, also as accelerate prepared it; None: the rates
            stay as they are. It goes on from where it stands; timm's ones count from the start of the run.
        steps: how many optimizer steps.
        updates_per_epoch: optimizer steps in an epoch, for a timm scheduler that counts epochs.

    Yields:
        The same list of dictionaries each time, brought up to date.

    Raises:
        GammaRegError: a scheduler of another optimizer, one that can't be copied or follows a metric, or one by epochs
            without `updates_per_epoch`.
    """
    optimizer = unwrapped_optimizer(optimizer)
    stand_in = _StandIn(optimizer)
    if scheduler is None:
        for _ in range(steps):
            yield stand_in.param_groups
        return
    repeats, scheduler = _unwrapped(scheduler)
    copied = _copied(scheduler, optimizer, stand_in)
    by_epoch = is_timm_scheduler(scheduler) and scheduler.t_in_epochs
    if by_epoch and not updates_per_epoch:
        raise GammaRegError(
            f"Expected `updates_per_epoch` with {type(scheduler).__name__}, which counts epochs, found "
            f"{updates_per_epoch!r}. Give the number of optimizer steps in an epoch."
        )
    for step in range(steps):
        if step and by_epoch:
            if step % (updates_per_epoch or 1) == 0:
                copied.step(step // (updates_per_epoch or 1))
        elif step and is_timm_scheduler(scheduler):
            copied.step_update(step)
        elif step:
            for _ in range(repeats):
                # OneCycleLR raises past its end, where accelerate lets it rest.
                if not hasattr(copied, "total_steps") or copied._step_count <= copied.total_steps:
                    copied.step()
        yield stand_in.param_groups


def given_settings(optimizer: Any, rates: Sequence[float]) -> Iterator[list[dict[str, Any]]]:
    """The settings of all groups at each step, with given rates: times the group's `lr_scale`, if it has one.

    Yields:
        The same list of dictionaries each time, brought up to date.
    """
    groups = _StandIn(unwrapped_optimizer(optimizer)).param_groups
    for rate in rates:
        for group in groups:
            group["lr"] = float(rate) * group.get("lr_scale", 1.0)
        yield groups


def _unwrapped(scheduler: Any) -> tuple[int, Any]:
    """How often it steps for each step of the optimizer, and the scheduler that accelerate prepared."""
    if class_name(scheduler) != "accelerate.scheduler.AcceleratedScheduler":
        return 1, scheduler
    if not scheduler.step_with_optimizer or scheduler.split_batches:
        return 1, scheduler.scheduler
    from accelerate.state import AcceleratorState

    return AcceleratorState().num_processes, scheduler.scheduler


def _copied(scheduler: Any, optimizer: Any, stand_in: _StandIn) -> Any:
    if follows_metric(scheduler):
        raise GammaRegError(
            f"Expected a scheduler whose rates are known beforehand, found {type(scheduler).__name__}, which follows a "
            "metric. Give the rates that you expect as `learning_rates`."
        )
    held = scheduler.optimizer
    if unwrapped_optimizer(held).param_groups is not optimizer.param_groups:
        raise GammaRegError(
            f"Expected the scheduler of this optimizer, found one of another {type(held).__name__}, with "
            f"{len(held.param_groups)} groups to {len(optimizer.param_groups)}. Pass the two that belong together."
        )
    try:
        # The memo puts the stand-in wherever the copy, or a scheduler inside it, would hold the optimizer.
        return copy.deepcopy(scheduler, {id(held): stand_in, id(optimizer): stand_in})
    except Exception as error:  # whatever a user's scheduler holds that does not copy
        raise GammaRegError(
            f"Expected a scheduler that can be copied, found {type(scheduler).__name__} "
            f"({type(error).__name__}: {error}). Give its rates as `learning_rates`."
        ) from error
