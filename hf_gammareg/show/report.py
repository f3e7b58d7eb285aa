"""What the analysis and the policy came to: a table for people, a file for programs, one line for the log."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hf_gammareg.model.names import place
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role

WIDTH = 100
"""Columns of the table, whatever the terminal has: the same text in a README, a log and a pipe."""

_BOX = "    \n    \n -- \n    \n    \n    \n    \n    \n"
"""rich's SIMPLE_HEAD in ASCII."""


ROW_FIELDS = ("name", "role", "kind", "decays", "exact", "placement", "zero_centered", "reason")
"""What `gammareg inspect` tells of each gamma, to programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: gammas of one role in one kind of place."""

    role: str
    decisions: tuple[str, ...]
    """One for each rule: `yes`, `no`, `3 of 4`, `frozen`."""
    pattern: str
    count: int
    reason: str

    @property
    def names(self) -> str:
        """The pattern, and how many gammas it stands for."""
        return self.pattern + (f" x{self.count}" if self.count > 1 else "")


def table_rows(gammas: GammaMap, rules: Iterable[Mapping[str, bool]] = (), *, every: bool = False) -> list[Row]:
    """Group gammas by role and kind of place.

    Args:
        gammas: the gammas of a model, or some of them.
        rules: `{parameter name: decays}` of one rule or several, for a decision each.
        every: one row for each gamma, in model order.
    """
    return [
        Row(
            role=str(members[0].role),
            decisions=tuple(_decision(members, decays) for decays in rules),
            pattern=pattern([gamma.name for gamma in members]),
            count=len(members),
            reason=_short(members[0].reason),
        )
        for members in (([gamma] for gamma in gammas) if every else _groups(gammas))
    ]


def table_text(gammas: GammaMap, decays: Mapping[str, bool] | None = None, *, every: bool = False) -> str:
    """Write the gammas of a model as a table of plain text, one row per role and kind of place.

    Args:
        gammas: the gammas of the model.
        decays: `{parameter name: decays}` from `hf_gammareg.decay.policy.decide`, for a column of decisions.
        every: one row for each gamma, in model order.

    Returns:
        Lines of at most `WIDTH` columns without colour codes; the last ones count the roles and name the doubts.
    """
    rules = [] if decays is None else [decays]
    lines = plain_table(["decays"] * len(rules), table_rows(gammas, rules, every=every))
    return "\n".join([*lines, *closing_lines(gammas, decays)])


def plain_table(rules: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Lines of a table of at most `WIDTH` columns, and an empty one; none without rows.

    Args:
        rules: headers of the columns of decisions.
        rows: from `table_rows`.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=Box(_BOX, ascii=True), show_edge=False, pad_edge=False)
    for header in ["role", *rules, "gammas", "why"]:
        table.add_column(header, overflow="fold", min_width=len(header))
    for row in rows:
        table.add_row(row.role, *row.decisions, row.names, row.reason)
    buffer = StringIO()
    console = Console(
        file=buffer,
        width=WIDTH,
        color_system=None,
        force_jupyter=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
    )
    console.print(table)
    return [*(line.rstrip() for line in buffer.getvalue().splitlines()), ""] if rows else []


def _groups(gammas: GammaMap) -> Iterable[list[Gamma]]:
    for role in Role:
        places: dict[tuple[str, str], list[Gamma]] = {}
        for gamma in gammas.by_role(role):
            # Gammas of unknown role are grouped by what is not known of them too.
            key = (place(gamma.name), gamma.reason if role is Role.UNKNOWN else "")
            places.setdefault(key, []).append(gamma)
        yield from places.values()


def _decision(members: list[Gamma], decays: Mapping[str, bool]) -> str:
    if not any(gamma.trainable for gamma in members):
        return "frozen"
    found = [decays[gamma.name] for gamma in members]
    return "yes" if all(found) else f"{sum(found)} of {len(found)}" if any(found) else "no"


def closing_lines(gammas: GammaMap, decays: Mapping[str, bool] | None = None) -> list[str]:
    """What stands below a table: how many gammas of which role, how many decay, and what is to be doubted."""
    if not len(gammas):
        return [f"No gammas: this model has no normalization layer with a gain. Graph: {gammas.source}."]
    deciding = ""
    if decays is not None:
        deciding = f"; {sum(decays[gamma.name] for gamma in gammas if gamma.trainable)} of them decay"
    lines = [f"{_plural(len(gammas))}: {_counts(gammas.gammas)}{deciding}. Graph: {gammas.source}."]
    if centred := [gamma for gamma in gammas if gamma.zero_centered]:
        words = ("multiplies", "its gain") if len(centred) == 1 else ("multiply", "their gains")
        lines.append(f"{_plural(len(centred))} {words[0]} by 1 + w: decay pulls {words[1]} to 1, not to 0.")
    if doubt := unknown_text(gammas, decays):
        lines.append(doubt)
    return lines


def unknown_text(gammas: GammaMap, decays: Mapping[str, bool] | None = None) -> str:
    """Say how many gammas are of unknown role, why, and what becomes of them; empty where there are none.

    Frozen ones don't count, such as the originals that PEFT keeps of layers in `modules_to_save`.
    """
    unknown = [gamma for gamma in gammas.by_role(Role.UNKNOWN) if gamma.trainable]
    if not unknown:
        return ""
    (reason, _), *others = Counter(gamma.reason for gamma in unknown).most_common()
    decayed = sum(decays[gamma.name] for gamma in unknown) if decays is not None else 0
    fate = f"{decayed} of them decay" if decayed else "none of them decays"
    more = f" and {len(others)} other reasons" if len(others) > 1 else " and another reason" if others else ""
    return f"WARNING: {_plural(len(unknown))} of unknown role ({_short(reason, 200).rstrip('.')}{more}): {fate}."


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
    if not gammas.source.startswith(("export", "none")):
        parts.append(f"roles from {gammas.source}")
    return "; ".join(parts) + "." + (f" {doubt}" if (doubt := unknown_text(gammas, decays)) else "")


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


def write_whole(path: str | Path, text: str) -> Path:
    """Write a text file, whole or not at all, in a folder that is made where it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def pattern(names: list[str]) -> str:
    """One pattern for names that differ in their numbers only.

    >>> pattern(["layer1.0.bn1.weight", "layer1.1.bn1.weight", "layer2.0.bn1.weight"])
    'layer*.*.bn1.weight'
    >>> pattern(["blocks.0.norm.weight"])
    'blocks.0.norm.weight'
    """
    pieces = [re.split(r"(\d+)", name) for name in names]
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True))


def _counts(gammas: Iterable[Gamma]) -> str:
    counts = Counter(gamma.role for gamma in gammas)
    return ", ".join(f"{counts[role]} {role}" for role in Role if counts[role])


def _plural(count: int) -> str:
    return f"{count} gamma" + ("" if count == 1 else "s")


def _short(text: str, limit: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3].rsplit(" ", 1)[0] + "..."
