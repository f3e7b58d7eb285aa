"""The comparisons that count: named before the first run, paired by seed, corrected for their number."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ablation.statistics import CONFIDENCE, Estimate, Results, estimate

POWER = 0.8
"""How likely a comparison is to decide a difference of the size that `Comparison.shows` tells."""
ENOUGH = 5
"""Pairs from which on that size is nearly exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm against another by one result, at the main strength and initialisation."""

    name: str
    """As the settings name it: `guidelines - none`."""
    difference: Estimate | None
    """Its interval is as wide as Holm's procedure asks, so it leaves out 0 where `p` is below 0.05, and only there.
    None with fewer than two pairs, or where the same gammas decay in both arms."""
    p: float
    """Of no difference, by Student's t and Holm's correction for the number of comparisons named."""
    deviation: float
    """Of the differences, from seed to seed."""
    named: int
    """How many comparisons the settings name."""

    @property
    def decided(self) -> bool:
        """Whether it is told from 0."""
        return self.p < 1 - CONFIDENCE

    def shows(self, seeds: int) -> float:
        """The smallest true difference that so many seeds decide in four of five cases, from the measured scatter.

        At the level of the first of Holm's steps, which is the strictest.
        """
        level = 1 - (1 - CONFIDENCE) / self.named / 2
        reach = stats.t.ppf(level, seeds - 1) + stats.t.ppf(POWER, seeds - 1)
        return float(reach * self.deviation / math.sqrt(seeds))


def compare(results: Results, key: str) -> list[Comparison]:
    """The comparisons that the settings name, in their order.

    Args:
        results: of one folder.
        key: of a result in the records, such as `eval_loss`. Each is corrected by itself.
    """
    names = results.config.comparisons
    values = {name: _differences(results, name, key) for name in names}
    raw = {name: _p(found) for name, found in values.items()}
    adjusted, confidence = holm(raw)
    return [
        Comparison(
            name=name,
            difference=estimate(values[name], confidence[name]),
            p=adjusted[name],
            deviation=float(np.std(values[name], ddof=1)) if len(values[name]) > 1 else math.nan,
            named=len(names),
        )
        for name in names
    ]


def holm(raw: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Holm's step-down correction.

    >>> adjusted, confidence = holm({"a": 0.04, "b": 0.01, "c": 0.03})
    >>> {name: round(p, 3) for name, p in adjusted.items()}
    {'b': 0.03, 'c': 0.06, 'a': 0.06}

    Args:
        raw: by comparison its p by itself.

    Returns:
        By comparison the corrected p, and the confidence of the interval that agrees with it: of those that are decided
        the one of their step, of the others that of the step at which the procedure stopped.
    """
    adjusted: dict[str, float] = {}
    confidence: dict[str, float] = {}
    greatest, steps = 0.0, len(raw)
    for done, (name, p) in enumerate(sorted(raw.items(), key=lambda item: item[1])):
        if greatest < 1 - CONFIDENCE:
            steps = len(raw) - done
        greatest = min(1.0, max(greatest, (len(raw) - done) * p))
        adjusted[name], confidence[name] = greatest, 1 - (1 - CONFIDENCE) / steps
    return adjusted, confidence


def _differences(results: Results, name: str, key: str) -> list[float]:
    first, _, other = name.partition(" - ")
    one, another = results.network.same_as[first], results.network.same_as[other]
    if one == another:
        return []
    pairs = [(a[key], b[key]) for a, b in results.pairs(one, results.main, another)]
    return [a - b for a, b in pairs if a is not None and b is not None]


def _p(differences: list[float]) -> float:
    if len(differences) < 2:
        return 1.0
    mean, deviation = np.mean(differences), np.std(differences, ddof=1)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / deviation * math.sqrt(len(differences)), len(differences) - 1))
