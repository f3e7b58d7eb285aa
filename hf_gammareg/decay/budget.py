"""What weight decay alone will have done to a gamma at the end of a run, by the optimizer's own rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hf_gammareg.decay.optimizers import DecayKind, DecayRule, base_optimizer, decay_rule, unwrapped_optimizer
from hf_gammareg.decay.schedule import given_settings, is_timm_scheduler, planned_settings
from hf_gammareg.errors import GammaRegError, warn
from hf_gammareg.model.names import as_known

NEGLIGIBLE = 0.99
"""Above this factor the choice which gammas decay can hardly matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBudget:
    """What decay alone does to the gammas of one parameter group."""

    names: tuple[str, ...]
    """Parameters of the group: those that were asked for; empty where the groups have no names."""
    weight_decay: float
    kind: DecayKind
    factor: float | None
    """What their weights will have been multiplied by; None where no such factor exists or is known."""
    note: str
    """Why there is no factor, or what is unusual about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecayBudget:
    """What decay alone does to gammas over a run, group by group."""

    optimizer: str
    """Class of the optimizer."""
    kind: DecayKind
    steps: int
    groups: tuple[GroupBudget, ...]
    """Those with weight decay, in the optimizer's order."""

    @property
    def factor(self) -> float | None:
        """The strongest of the factors; 1 where nothing decays, None where one of them is not known."""
        factors = [group.factor for group in self.groups]
        known = [factor for factor in factors if factor is not None]
        return min(known, default=1.0) if len(known) == len(factors) else None

    @property
    def negligible(self) -> bool:
        """Whether all factors are known and above `NEGLIGIBLE`."""
        return self.factor is not None and self.factor > NEGLIGIBLE

    def __str__(self) -> str:
        """One line for a log."""
        name = f"{self.optimizer}, {self.kind}"
        if not self.groups:
            return f"no gamma decays ({name})"
        factors = sorted(group.factor for group in self.groups if group.factor is not None)
        notes = "; ".join(dict.fromkeys(group.note for group in self.groups if group.note))
        if self.factor is None:
            return f"what decay alone will do to a gamma can't be given as a factor ({name}): {notes}"
        shown = list(dict.fromkeys(_number(factor) for factor in factors))
        text = f"decay alone will multiply a decayed gamma by {' to '.join([*shown[:1], *shown[1:][-1:]])}"
        text += f" over {self.steps:,} steps ({name}{'; ' * bool(notes)}{notes})"
        if self.negligible:
            text += f"; that is above {NEGLIGIBLE}: the choice can hardly matter in this run"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        rows = [
            {
                "names": list(group.names),
                "weight_decay": group.weight_decay,
                "kind": str(group.kind),
                "factor": group.factor,
                "note": group.note,
            }
            for group in self.groups
        ]
        return {
            "optimizer": self.optimizer,
            "kind": str(self.kind),
            "steps": self.steps,
            "factor": self.factor,
            "negligible": self.negligible,
            "groups": rows,
            "text": str(self),
        }


def decay_kind(optimizer: Any) -> DecayKind:
    """Say whether an optimizer's weight decay is coupled (L2 on the loss) or decoupled (on the weight itself).

    >>> import torch
    >>> decay_kind(torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])).value
    'decoupled'

    Returns:
        Its kind; `unknown` for a class that this library does not know, or where groups differ.
    """
    optimizer = unwrapped_optimizer(optimizer)
    kinds = {decay_rule(optimizer, group).kind for group in getattr(optimizer, "param_groups", [])}
    return kinds.pop() if len(kinds) == 1 else DecayKind.UNKNOWN


def decay_budget(
    optimizer: Any,
    scheduler: Any = None,
    steps: int | None = None,
    *,
    learning_rates: Sequence[float] | None = None,
    updates_per_epoch: int | None = None,
    names: Collection[str] | None = None,
) -> DecayBudget:
    """Work out by which factor decay alone will have multiplied a decayed gamma at the end of the planned schedule.

    It is what the real optimizer does to a one-dimensional parameter whose gradient stays 0: for AdamW the product of
    1 - lr * weight_decay over all steps. The optimizer and the scheduler are only looked at, copies take the steps.

    Groups with an `lr_scale` under a scheduler that does not apply it bring a warning.

    Decoupled decay acts beside the gradient, so the factor tells what decay takes off whatever training does. In SGD
    decay is part of the gradient; the update is linear in it, so there is a factor too, with momentum m near that of
    1 - lr * weight_decay / (1 - m). Where Adam and others rescale the sum of both, no factor exists, and none is given.

    >>> import torch
    >>> gamma = torch.nn.Parameter(torch.ones(8))
    >>> optimizer = torch.optim.AdamW([gamma], lr=2e-5, weight_decay=0.01)
    >>> scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=2000)
    >>> print(decay_budget(optimizer, scheduler, steps=2000))  # doctest: +NORMALIZE_WHITESPACE
    decay alone will multiply a decayed gamma by 0.9998 over 2,000 steps (AdamW, decoupled);
    that is above 0.99: the choice can hardly matter in this run

    Args:
        optimizer: any optimizer, also as accelerate or timm's Lookahead wraps it.
        scheduler: its scheduler, torch's or timm's; default: the learning rates stay as they are.
        steps: optimizer steps of the run.
        learning_rates: the rate of each step, in place of `scheduler` and `steps`; a group with an `lr_scale` gets
            that share of it, as under timm's schedulers.
        updates_per_epoch: optimizer steps in an epoch, for a timm scheduler that counts epochs.
        names: the gammas that it is about; default: all parameters with weight decay.

    Returns:
        A factor for each group that holds one of the gammas and has weight decay.

    Raises:
        GammaRegError: no number of steps; a scheduler of another optimizer, one that follows a metric, that can't be
            copied, or that counts epochs without `updates_per_epoch`.
    """
    if (learning_rates is None) == (steps is None) or (learning_rates is not None and scheduler is not None):
        raise GammaRegError(
            f"Expected either `steps`, with a scheduler or without, or `learning_rates`, found steps={steps!r} and "
            f"{'no' if learning_rates is None else len(learning_rates)} learning rates"
            f"{' and a scheduler' if scheduler is not None else ''}. Give one of them."
        )
    if steps is not None and steps < 0:
        raise GammaRegError(f"Expected `steps` to be at least 0, found {steps!r}. Give the steps of the run.")
    optimizer = unwrapped_optimizer(optimizer)
    if scheduler is not None and not is_timm_scheduler(scheduler):
        _warn_of_lr_scale(optimizer, scheduler)
    members = _members(optimizer.param_groups, names)
    rules = {index: decay_rule(optimizer, optimizer.param_groups[index]) for index in members}
    if learning_rates is not None:
        steps, planned = len(learning_rates), given_settings(optimizer, learning_rates)
    else:
        planned = planned_settings(optimizer, scheduler, steps or 0, updates_per_epoch)
    factors = _factors(rules, planned)
    return DecayBudget(
        optimizer=type(base_optimizer(optimizer)).__name__,
        kind=decay_kind(optimizer),
        steps=steps or 0,
        groups=tuple(
            GroupBudget(
                names=found,
                weight_decay=float(optimizer.param_groups[index]["weight_decay"]),
                kind=rules[index].kind,
                factor=factors.get(index),
                note=rules[index].note,
            )
            for index, found in members.items()
        ),
    )


def _warn_of_lr_scale(optimizer: Any, scheduler: Any) -> None:
    if any(group.get("lr_scale", 1.0) != 1.0 for group in optimizer.param_groups):
        warn(
            f"The optimizer's groups carry `lr_scale` (layer-wise decay), which only timm's schedulers apply: under "
            f"{type(scheduler).__name__} it has no effect. Call hf_gammareg.apply_lr_scale(optimizer) before making "
            "the scheduler."
        )


def _members(groups: Sequence[dict[str, Any]], names: Collection[str] | None) -> dict[int, tuple[str, ...]]:
    """The groups with weight decay that hold parameters of these names, and which."""
    written = [name for group in groups for name in group.get("param_names") or ()]
    # Neither side has a model to ask: what wrapped it may stand in the names of both.
    wanted = None if names is None else set(as_known(list(names), written))
    called = dict(zip(written, as_known(written, wanted or ()), strict=True))
    found: dict[int, tuple[str, ...]] = {}
    for index, group in enumerate(groups):
        own = group.get("param_names")
        kept = tuple(called[name] for name in own or () if wanted is None or called[name] in wanted)
        if group.get("weight_decay") and (kept or own is None):
            found[index] = kept
    return found


def _factors(rules: dict[int, DecayRule], planned: Iterable[list[dict[str, Any]]]) -> dict[int, float]:
    started: dict[int, Callable[[Any, float], float]] = {
        index: rule.start() for index, rule in rules.items() if rule.start is not None
    }
    factors = dict.fromkeys(started, 1.0)
    for groups in planned:
        for index, step in started.items():
            factors[index] = step(groups[index], factors[index])
    return factors


def _number(factor: float) -> str:
    """Four decimals, or as many as show how far from 1 it is."""
    if not 0.0 < factor < 1.0:
        return f"{factor:.4g}"
    if factor < 0.1:
        return f"{factor:.2g}"
    return f"{factor:.{max(4, math.ceil(-math.log10(1.0 - factor)) + 1 if factor < 1.0 else 4)}f}".rstrip("0")
