"""Rows of a table, as plain text, CSV and Markdown; nothing here knows what a gamma is."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
"""Columns of a table in plain text: the same in a README, a log and a pipe."""


_BOX = "    \n    \n -- \n    \n    \n    \n    \n    \n"
"""rich's SIMPLE_HEAD in ASCII."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: what stands in one kind of place."""

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


def plain_table(rules: Sequence[str], rows: Sequence[Row], console: Console | None = None) -> list[str]:
    """Lines of a table, and an empty one; none without rows.

    Args:
        rules: headers of the columns of decisions.
        rows: from `hf_gammareg.roles.gammas.table_rows`.
        console: a terminal, for its width and colours; default: plain text of at most `WIDTH` columns.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=Box(_BOX, ascii=True), show_edge=False, pad_edge=False)
    for header in ["role", *rules, "gammas", "why"]:
        table.add_column(header, overflow="fold", min_width=len(header))
    for row in rows:
        decisions = [
            Text(said, "bold green" if said == "yes" else "dim" if said == "no" else "") for said in row.decisions
        ]
        table.add_row(Text(row.role, "bold"), *decisions, Text(row.names), Text(row.reason))
    shown = console or Console(file=StringIO(), width=WIDTH, color_system=None, force_jupyter=False)
    with shown.capture() as captured:
        shown.print(table)
    return [*(line.rstrip() for line in captured.get().splitlines()), ""] if rows else []


def pattern(names: list[str]) -> str:
    """One pattern for names that differ in their numbers only.

    >>> pattern(["layer1.0.bn1.weight", "layer1.1.bn1.weight", "layer2.0.bn1.weight"])
    'layer*.*.bn1.weight'
    >>> pattern(["blocks.0.norm.weight"])
    'blocks.0.norm.weight'
    """
    pieces = [re.split(r"(\d+)", name) for name in names]
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True))


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV: a header, one line for each, `true` and `false`, nothing for None.

    >>> csv_text(["name", "decays", "placement"], [{"name": "bn1.weight", "decays": True, "placement": None}])
    'name,decays,placement\\nbn1.weight,true,'
    """
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[column]) for column in columns] for row in rows)
    return buffer.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def markdown_lines(rules: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Lines of a GitHub table, and an empty one; none without rows.

    Args:
        rules: headers of the columns of decisions.
        rows: from `hf_gammareg.roles.gammas.table_rows`.
    """
    if not rows:
        return []
    header = ["role", *rules, "gammas", "why"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        count = f" ×{row.count}" if row.count > 1 else ""
        lines.append([row.role, *row.decisions, f"`{row.pattern}`{count}", row.reason])
    return [*(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines), ""]
