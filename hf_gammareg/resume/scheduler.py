"""Learning rate schedulers that were loaded with other groups than the optimizer has now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, MultiplicativeLR

from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.resume.matching import Origin, origin_of

BY_GROUP = {
    "base_lrs": "initial_lr",
    "base_values": "initial_lr",
    "_last_lr": "lr",
    "_init_lrs": None,
    "restore_lr": None,
    "warmup_steps": None,
    "min_lrs": None,
    "max_lrs": None,
    "base_momentums": None,
    "max_momentums": None,
}
"""What schedulers of torch, transformers and timm keep for each group, and the group's own setting that says it too."""


def fit_scheduler(scheduler: Any, optimizer: Optimizer) -> None:
    """Give a learning rate scheduler that was loaded with other groups the values of the groups of today.

    Call it after loading, and where the checkpoint may have more groups than the run once before too: then it makes
    room in those schedules of transformers that fail to load more (a `LambdaLR` of callable objects).

    Args:
        scheduler: of torch, transformers, timm or Accelerate.
        optimizer: its optimizer. One that loads by name (see `match_by_name`) knows, once it has, which groups of the
            checkpoint today's come from.

    Raises:
        GammaRegError: where a group comes from several whose values differ.
    """
    origin = origin_of(optimizer)
    for inner in _all(scheduler):
        for name, setting in BY_GROUP.items():
            if isinstance(values := getattr(inner, name, None), list):
                fitted = []
                for at, group in enumerate(optimizer.param_groups):
                    choice = _choice(values, origin, at, len(optimizer.param_groups))
                    if setting and (origin is None or not _alike(choice)):
                        choice = [group.get(setting, group["lr"])]
                    if not _alike(choice):
                        raise _undecided(inner, name, choice)
                    fitted.append(choice[0])
                setattr(inner, name, fitted)
        if isinstance(inner, LambdaLR | MultiplicativeLR):
            inner.lr_lambdas = _Roomy(inner.lr_lambdas)
        if type(inner).__name__ == "GreedyLR" and origin is not None:  # its load wrote the rates by position
            for group, rate in zip(optimizer.param_groups, inner._last_lr, strict=True):
                group["lr"] = rate


class _Roomy(list[Any]):
    """One function for each group, and the last of them for any group more."""

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(min(at, len(self) - 1) if isinstance(at, int) else at)


def _all(scheduler: Any) -> Iterator[Any]:
    """A scheduler and those inside it: Accelerate's holds one, torch's several, timm's plateau scheduler torch's."""
    yield scheduler
    named = (getattr(scheduler, name, None) for name in ("scheduler", "lr_scheduler"))
    for inner in (*named, *getattr(scheduler, "_schedulers", ())):
        if inner is not None:
            yield from _all(inner)


def _choice(values: list[Any], origin: Origin | None, at: int, groups: int) -> list[Any]:
    """Those of a scheduler's values that may be this group's."""
    if origin is not None and len(values) == origin.number:
        return [values[source] for source in origin.sources[at]]
    return [values[at]] if len(values) == groups else values


def _alike(choice: list[Any]) -> bool:
    return bool(choice) and all(value == choice[0] for value in choice)


def _undecided(scheduler: Any, name: str, choice: list[Any]) -> GammaRegError:
    return GammaRegError(
        f"Expected a {type(scheduler).__name__} that has one value of `{name}` for each of today's groups, found "
        f"{some(set(choice))} for one of them. Keep parameters apart that the checkpoint has in groups with different "
        "values, or make the scheduler anew."
    )
