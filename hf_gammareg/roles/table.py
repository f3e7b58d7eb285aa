"""Rows of a table, as plain text, CSV and Markdown; nothing here knows what a gamma is."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

WIDTH = 100
"""Columns of the table, whatever the terminal has: the same text in a README, a log and a pipe."""


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


def plain_table(rules: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Lines of a table of at most `WIDTH` columns, and an empty one; none without rows.

    Args:
        rules: headers of the columns of decisions.
        rows: from `hf_gammareg.roles.gammas.table_rows`.
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


def pattern(names: list[str]) -> str:
    """One pattern for names that differ in their numbers only.

    >>> pattern(["layer1.0.bn1.weight", "layer1.1.bn1.weight", "layer2.0.bn1.weight"])
    'layer*.*.bn1.weight'
    >>> pattern(["blocks.0.norm.weight"])
    'blocks.0.norm.weight'
    """
    pieces = [re.split(r"(\d+)", name) for name in names]
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True))


def shortened(text: str, limit: int = 90) -> str:
    """Text on one line of at most `limit` characters, cut between words."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3].rsplit(" ", 1)[0] + "..."


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
