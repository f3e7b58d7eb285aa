"""What the analysis and the policy came to: a table for people, a file for programs, one line for the log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gammareg.files import write_whole
from hf_gammareg.roles.gammas import UNTRAINED, GammaMap, Role, _counts, _plural, unknown_text

ROW_FIELDS = ("name", "role", "kind", "decays", "exact", "placement", "zero_centered", "reason")
"""What `gammareg inspect` tells of each gamma, to programs."""


def summary_line(
    gammas: GammaMap,
    decays: Mapping[str, bool],
    plain_decays: Mapping[str, bool] | None = None,
    *,
    policy: str = "guidelines",
    strength: float | None = None,
    plain: str = "plain Trainer",
) -> str:
    """Say in one line how many gammas of which role decay, and what another library would have done.

    Args:
        gammas: the gammas of the model.
        decays: the decisions of this run.
        plain_decays: the decisions that `plain` would have come to.
        policy: name of the policy that decided.
        strength: weight decay of the gammas that decay, if it is to be looked at.
        plain: name of the other library.
    """
    trainable = [gamma for gamma in gammas if gamma.trainable]
    chosen = [gamma for gamma in trainable if decays[gamma.name]]
    others = [gamma for gamma in trainable if not decays[gamma.name]]
    counts = f": {_counts(chosen)}" if chosen else ""
    spared = f" (not {_counts(others)})" if others else ""
    parts = [f"policy {policy!r} decays {len(chosen)} of {_plural(len(trainable))}{counts}{spared}"]
    if strength == 0 and chosen:
        parts.append("their weight decay is 0, so nothing shrinks")
    if plain_decays is not None:
        would = [gamma for gamma in trainable if plain_decays[gamma.name]]
        parts.append(f"{plain} would decay {len(would)}" + (f" ({_counts(would)})" if would else ""))
    if frozen := len(gammas) - len(trainable):
        parts.append(f"{frozen} more are frozen")
    if gammas.source == UNTRAINED:
        parts.append("none is trained, so nothing was traced")
    elif not gammas.source.startswith(("export", "none")):
        parts.append(f"roles from {gammas.source}")
    return "; ".join(parts) + "." + (f" WARNING: {doubt}" if (doubt := unknown_text(gammas, decays)) else "")


def gamma_rows(gammas: GammaMap, decays: Mapping[str, bool]) -> list[dict[str, Any]]:
    """One plain dictionary for each gamma, in model order: what `gammareg inspect --format json` lists."""
    return [
        {field: getattr(gamma, field, None) for field in ROW_FIELDS}
        | {"role": str(gamma.role), "decays": decays[gamma.name]}
        for gamma in gammas
    ]


def report_dict(gammas: GammaMap, decays: Mapping[str, bool], *, policy: str, **settings: Any) -> dict[str, Any]:
    """What `gamma_report.json` holds: the policy, the run's settings, and `GammaMap.to_dict()` with the decisions.

    Args:
        gammas: the gammas of the model.
        decays: the decisions of this run.
        policy: name of the policy that decided.
        settings: what else belongs on record, in plain types (`weight_decay=0.05`).
    """
    from hf_gammareg import __version__

    data = gammas.to_dict()
    data["gammas"] = [row | {"decays": decays[row["name"]]} for row in data["gammas"]]
    return {"hf_gammareg": __version__, "policy": policy, **settings, **data}


def write_report(
    path: str | Path, gammas: GammaMap, decays: Mapping[str, bool], *, policy: str, **settings: Any
) -> Path:
    """Write `report_dict(...)` as JSON, whole or not at all: a killed run leaves no half of a file.

    Returns:
        The path written to.
    """
    text = json.dumps(report_dict(gammas, decays, policy=policy, **settings), indent=2) + "\n"
    return write_whole(path, text)


def add_to_report(path: str | Path, **settings: Any) -> None:
    """Put more settings into a report that was written before; without one nothing is done."""
    path = Path(path)
    if path.is_file():
        write_whole(path, json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings, indent=2) + "\n")


_WHO = {"trainer": "Trainer", "timm": "timm", "all": "Plain torch.optim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The decisions of two rules on the gammas of one model."""

    gammas: GammaMap
    model: str
    """Name of the model's class."""
    policy: str
    """Name of the rule in use."""
    diff: str
    """Name of the rule that it is compared with."""
    decays: Mapping[str, bool]
    """What the rule in use decides."""
    diff_decays: Mapping[str, bool]
    """What the other decides."""

    @property
    def differing(self) -> GammaMap:
        """The gammas that the two treat otherwise."""
        found = tuple(g for g in self.gammas if self.decays[g.name] != self.diff_decays[g.name])
        return GammaMap(gammas=found, source=self.gammas.source)

    @property
    def sentence(self) -> str:
        """How many gammas each decays, which of them the other spares, and on how many they differ.

        For a ResNet-50: Trainer would decay 53 gammas of this ResNet, 4 of them shortcuts; policy 'guidelines' decays
        49. They differ on 4 of 53.
        """
        who = _WHO.get(self.diff, f"Policy {self.diff!r}")
        theirs, ours = sum(self.diff_decays.values()), sum(self.decays.values())
        differing = len(self.differing)
        verdict = f"They differ on {differing} of {len(self.gammas)}." if differing else "They agree on every gamma."
        would = f"{_counted(theirs, len(self.gammas))} of this {self.model}"
        return (
            f"{who} would decay {would}{self._spared(self.diff_decays, self.decays)}; "
            f"policy {self.policy!r} decays {ours or 'none'}{self._spared(self.decays, self.diff_decays)}. {verdict}"
        )

    def _spared(self, by_one: Mapping[str, bool], by_other: Mapping[str, bool]) -> str:
        """The roles of what one rule decays and the other does not: `, 4 of them shortcuts and 1 trunk`."""
        roles = Counter(g.role for g in self.gammas if by_one[g.name] and not by_other[g.name])
        parts: list[str] = []
        for role in Role:
            if count := roles[role]:
                word = ("a shortcut" if count == 1 else "shortcuts") if role is Role.SHORTCUT else str(role)
                parts.append(f"{count} {'of them ' if not parts else ''}{word}")
        if sum(roles.values()) == sum(by_one.values()) > 1 and len(parts) == 1:
            parts = [parts[0].replace(f"{sum(roles.values())} of them", "all of them")]
        if not parts:
            return ""
        return ", " + (", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0])

    def rows(self) -> list[dict[str, Any]]:
        """One plain dictionary for each gamma that is treated otherwise, in model order, with both decisions."""
        return [
            {"name": g.name, "role": str(g.role), "kind": g.kind}
            | {"decays": self.decays[g.name], "diff_decays": self.diff_decays[g.name], "reason": g.reason}
            for g in self.differing
        ]

    def to_dict(self, source: str) -> dict[str, Any]:
        """What `gammareg inspect --diff --format json` prints."""
        return {
            "source": source,
            "policy": self.policy,
            "diff": self.diff,
            "gammas": self.rows(),
            "counts": self.differing.counts,
            "decays": {self.policy: sum(self.decays.values()), self.diff: sum(self.diff_decays.values())},
            "summary": self.sentence,
        }


def _counted(count: int, total: int) -> str:
    """`53 gammas`, `1 gamma`, `none of the 25 gammas`."""
    named = count or total
    return f"{count or f'none of the {total}'} gamma" + ("" if named == 1 else "s")
