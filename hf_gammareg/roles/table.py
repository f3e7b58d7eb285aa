"""The gammas of a model for other programs and pages: CSV, and a table in Markdown."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from hf_gammareg.show.report import Row


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
        rows: from `hf_gammareg.show.report.table_rows`.
    """
    if not rows:
        return []
    header = ["role", *rules, "gammas", "why"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        count = f" ×{row.count}" if row.count > 1 else ""
        lines.append([row.role, *row.decisions, f"`{row.pattern}`{count}", row.reason])
    return [*(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines), ""]
