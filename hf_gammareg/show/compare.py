"""Two rules on one model: which gammas the second treats otherwise than the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_gammareg.roles.gammas import GammaMap, Role

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
