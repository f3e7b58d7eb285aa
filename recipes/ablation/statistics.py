"""Differences to the arm without decay, paired by seed, and what they say of a role."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ablation.arms import BASELINE, Run, cells, runs
from ablation.config import Ablation
from ablation.runs import Network
from hf_gammareg import Role

CONFIDENCE = 0.95
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided"
APPLY = (Role.LAST, Role.ABSORBED)
"""The roles that `guidelines` decays: decay on them should help. On the others it should harm."""
MECHANISM: dict[Role, tuple[str, int]] = {
    Role.LAST: ("branch / skip", -1),
    Role.SHORTCUT: ("branch / skip", 1),
    Role.TRUNK: ("branch / skip", 1),
    Role.ABSORBED: ("effective lr", 1),
}
"""By role the quantity that the analysis speaks of, and which way decay should move it. The other roles have none."""

Record = Mapping[str, Any]
Cell = tuple[float | None, float]
"""What the gains of role `last` start at, and the strength of decay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds, and its confidence interval by Student's t: 95 % unless told."""

    mean: float
    low: float
    high: float
    n: int

    def verdict(self, sign: int) -> str:
        """What it says of the claim that the quantity has this sign: decided where the interval leaves out 0."""
        if self.low * sign > 0 and self.high * sign > 0:
            return SUPPORTED
        return CONTRADICTED if self.low * sign < 0 and self.high * sign < 0 else UNDECIDED


def estimate(values: Sequence[float | None], confidence: float = CONFIDENCE) -> Estimate | None:
    """The mean and its interval; None where fewer than two values are known.

    >>> found = estimate([1.0, 2.0, 3.0])
    >>> round(found.low, 3), found.mean, round(found.high, 3), found.n
    (-0.484, 2.0, 4.484, 3)
    """
    known = np.array([value for value in values if value is not None and math.isfinite(value)])
    if len(known) < 2:
        return None
    mean, error = known.mean(), known.std(ddof=1) / math.sqrt(len(known))
    half = stats.t.ppf((1 + confidence) / 2, len(known) - 1) * error
    return Estimate(mean=float(mean), low=float(mean - half), high=float(mean + half), n=len(known))


class Results:
    """The records of an ablation, and differences between its arms.

    Args:
        config: what was fixed.
        network: what the runs share.
        records: by the name of the run.
    """

    def __init__(self, config: Ablation, network: Network, records: Mapping[str, Record]) -> None:
        self.config, self.network, self.records = config, network, records

    @property
    def main(self) -> Cell:
        """The cell that the verdicts are about."""
        return next(iter(self.config.last_inits), None), self.config.main_gamma_weight_decay

    @property
    def cells(self) -> list[Cell]:
        """Those of which there are runs."""
        return [cell for cell in cells(self.config) if any(self.pairs(arm, cell) for arm in self.network.arms[1:])]

    @property
    def roles(self) -> list[Role]:
        """Those that the network has and that have an arm of their own."""
        return [role for role in Role if str(role) in self.network.same_as and self.network.gammas.by_role(role)]

    @property
    def seeds(self) -> int:
        """How many seeds there are runs of."""
        return len({record["seed"] for record in self.records.values()})

    @property
    def missing(self) -> int:
        """How many of the runs that the settings plan are not there."""
        return sum(run.name not in self.records for run in runs(self.config, self.network.arms))

    def pairs(self, arm: str, cell: Cell, other: str = BASELINE) -> list[tuple[Record, Record]]:
        """The runs of two arms, of the same seed; only where both are there.

        Args:
            arm: one that is run.
            cell: of both.
            other: the arm to compare with; default: no decay on gammas.
        """
        both = (self._of(arm, cell), self._of(other, cell))
        return [(both[0][seed], both[1][seed]) for seed in self.config.seeds if all(seed in found for found in both)]

    def _of(self, arm: str, cell: Cell) -> dict[int, Record]:
        """By seed the runs of an arm that are there."""
        init, strength = cell
        made = {
            seed: Run(arm=arm, last_init=init, gamma_weight_decay=strength if arm != BASELINE else 0.0, seed=seed)
            for seed in self.config.seeds
        }
        return {seed: self.records[run.name] for seed, run in made.items() if run.name in self.records}

    def baseline(self, cell: Cell, key: str) -> Estimate | None:
        """The mean of a result over the runs without decay on gammas."""
        return estimate([none[key] for _, none in self.pairs(BASELINE, cell)])

    def difference(self, arm: str, cell: Cell, key: str) -> Estimate | None:
        """Mean difference of a result to the run without decay on gammas."""
        return estimate([_minus(run[key], none[key]) for run, none in self.pairs(arm, cell)])

    def gamma_size(self, arm: str, cell: Cell) -> Estimate | None:
        """ln of the mean |gamma| of the arm's gammas at the end, over that without decay."""
        names = self.network.decaying(arm)
        return self._logarithm(arm, cell, lambda record: _mean_size(self.network, names, record))

    def branch_to_skip(self, arm: str, cell: Cell, sums: Sequence[int] | None = None) -> Estimate | None:
        """ln of branch / skip at the end, over that without decay, as the mean over residual sums.

        Args:
            arm, cell: which runs.
            sums: numbers of the sums; default: all.
        """
        chosen = range(len(self.network.sums)) if sums is None else sums
        return self._logarithm(arm, cell, lambda record: _geometric(record, chosen))

    def effective_lr(self, arm: str, cell: Cell) -> Estimate | None:
        """ln of the effective learning rate of `absorbed` gammas at the end, over that without decay.

        For gradient descent lr / mean(gamma²), for optimizers that rescale the gradient lr / rms(gamma).
        """
        key = "gamma/absorbed/effective_lr" + ("" if "sgd" in self.config.optimizer else "_adaptive")
        return self._logarithm(arm, cell, lambda record: _last(record, key))

    def mechanism(self, role: Role, cell: Cell) -> Estimate | None:
        """How far the quantity that the analysis speaks of moved in the role's own arm; None where there is none."""
        if role not in MECHANISM:
            return None
        if MECHANISM[role][0] == "effective lr":
            return self.effective_lr(str(role), cell)
        sums = self.network.acts_on.get(str(role))
        return self.branch_to_skip(str(role), cell, sums) if sums else None

    def verdicts(self, role: Role, cell: Cell) -> tuple[str, str]:
        """What this cell says of a role: of the mechanism, and of the accuracy."""
        moved, gained = self.mechanism(role, cell), self.difference(str(role), cell, "eval_accuracy")
        return (
            moved.verdict(MECHANISM[role][1]) if moved else UNDECIDED,
            gained.verdict(1 if role in APPLY else -1) if gained else UNDECIDED,
        )

    def _logarithm(self, arm: str, cell: Cell, quantity: Any) -> Estimate | None:
        values = []
        for run, none in self.pairs(arm, cell):
            one, other = quantity(run), quantity(none)
            values.append(math.log(one / other) if one and other else None)
        return estimate(values)


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _last(record: Record, key: str) -> float | None:
    return record["history"].get(key, [None])[-1]


def _geometric(record: Record, sums: Sequence[int]) -> float | None:
    ratios = [_last(record, f"gamma/residual/ratio/{number:03d}") for number in sums]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios and all(ratios) else None  # type: ignore[arg-type]


def _mean_size(network: Network, names: frozenset[str], record: Record) -> float | None:
    sizes, total = 0.0, 0
    for role in Role:
        count = sum(gamma.numel for gamma in network.gammas.by_role(role) if gamma.name in names)
        mean = _last(record, f"gamma/{role}/mean")
        if count and mean is not None:
            sizes, total = sizes + count * mean, total + count
    return sizes / total if total else None
