"""What the command line prints of a model: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hf_gammareg.roles.gammas import GammaMap, Role, closing_lines, table_rows, table_text
from hf_gammareg.roles.table import Row, csv_text, markdown_lines, plain_table
from hf_gammareg.show.report import ROW_FIELDS, Comparison, gamma_rows

if TYPE_CHECKING:
    from rich.console import Console

    from hf_gammareg.roles.measure import Measurement


def inspection(source: str, policy: str, gammas: GammaMap, decays: Mapping[str, bool], output: str, every: bool) -> str:
    """The roles and decisions of a model."""
    if output == "json":
        rows = gamma_rows(gammas, decays)
        return json.dumps({"source": source, "policy": policy, "gammas": rows, "counts": gammas.counts}, indent=2)
    if output == "csv":
        return csv_text(ROW_FIELDS, gamma_rows(gammas, decays))
    if output == "md":
        lines = markdown_lines(["decays"], table_rows(gammas, [decays], every=every))
        return "\n".join([f"{source}, policy {policy}", "", *lines, *closing_lines(gammas, decays)])
    return f"{source}, policy {policy}\n\n{table_text(gammas, decays, every=every, console=_terminal())}"


def difference(source: str, found: Comparison, output: str, every: bool) -> str:
    """The gammas that two policies treat otherwise."""
    if output == "json":
        return json.dumps(found.to_dict(source), indent=2)
    if output == "csv":
        return csv_text(("name", "role", "kind", "decays", "diff_decays", "reason"), found.rows())
    rows = table_rows(found.differing, [found.decays, found.diff_decays], every=every)
    rules = [found.policy, found.diff]
    lines = markdown_lines(rules, rows) if output == "md" else plain_table(rules, rows, _terminal())
    return "\n".join([f"{source}, policy {found.policy} against {found.diff}", "", *lines, found.sentence])


def checked(path: str, locked: Mapping[str, Any], now: Mapping[str, Any], changes: Sequence[str], output: str) -> str:
    """What has changed since a lock was written."""
    if output == "json":
        told = {key: now[key] for key in ("source", "policy", "library")}
        data = told | {"lock": path, "locked_library": locked["library"], "changes": list(changes)}
        return json.dumps(data, indent=2)
    same = f"{len(now['gammas'])} gammas as in {path} ({locked['library']}, now {now['library']})."
    return "\n".join(changes) or same


def measurements(source: str, gammas: GammaMap, found: Sequence[Measurement], output: str) -> str:
    """What was measured: where it disagrees with the roles, and how much there was."""
    disagreeing = [measured for measured in found if not measured.agrees]
    count = sum(measured.role is not None for measured in found)
    unknown = len(gammas.by_role(Role.UNKNOWN))
    if output == "json":
        counts = {"measured": count, "disagreements": len(disagreeing), "unknown": unknown}
        return json.dumps({"source": source, "gammas": [asdict(one) for one in found]} | counts, indent=2)
    rows = [
        Row(
            role="none" if measured.role is None else measured.role,
            decisions=(measured.measured,),
            pattern=measured.name,
            count=1,
            reason=_moved(measured) + _reason(measured, gammas),
        )
        for measured in disagreeing
    ]
    told = f"{len(disagreeing) or 'no'} disagreement" + ("" if len(disagreeing) == 1 else "s")
    skipped = f", {unknown} of unknown role not measured" if unknown else ""
    line = f"{source}: {count} of {len(gammas)} gammas measured, {told}{skipped}."
    return "\n".join([*plain_table(["measured"], rows, _terminal()), line])


def _reason(measured: Measurement, gammas: GammaMap) -> str:
    """Why the gamma has its role, or the parameter none."""
    if measured.role is not None:
        return gammas[measured.name].reason
    place = f" in `{measured.where}`" if measured.where else ""
    denied = gammas.not_gammas.get(measured.name, "The graph shows no gamma of this name.")
    return f"Multiplies what a normalization made{place}. {denied}"


def _moved(measured: Measurement) -> str:
    return "" if measured.moved is None else f"The output moves by {measured.moved:.1e} of its spread. "


def _terminal() -> Console | None:
    """The terminal that is written to, with what rich knows of it (COLUMNS, NO_COLOR); None for a file or a pipe."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else None
