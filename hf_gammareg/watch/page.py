"""A page about training: the gammas by role over the steps, of one run or of several side by side."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.gammas import Role
from hf_gammareg.show.html import check_page, render, save_page
from hf_gammareg.show.picture import STYLE
from hf_gammareg.watch.history import HISTORY_NAME, Row, read_history

MOST = 400
"""Steps of a run that a page holds: of a longer history so many, evenly picked, the first and the last among them."""

METRICS = {
    "mean": "mean |gamma|",
    "min": "smallest |gamma|",
    "max": "largest |gamma|",
    "near_zero": "share of gains near 0",
}
"""What a history holds of each role, by key and in words."""

RATES = {
    "gamma/absorbed/effective_lr": "lr / mean(gamma²)",
    "gamma/absorbed/effective_lr_adaptive": "lr / rms(gamma)",
}
"""The effective learning rates that a history holds, by key and in words."""

_KEY = re.compile(rf"gamma/(?:({'|'.join(Role)})/\w+|residual/\w+/\d+)")


def write_history_page(path: str | Path, *runs: str | Path, command: str = "") -> Path:
    """Write a page about the gammas of one run or several: one HTML file that needs neither a network nor a server.

    It draws for each role what became of its gains over the steps, a line for each run; the effective learning rate of
    `absorbed` gammas; and, where a probe measured them, the variance of branch to skip by depth, at any step.

    >>> import tempfile
    >>> from hf_gammareg.watch.history import History
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, pull in (("decayed", 0.1), ("plain", 0.0)):
    ...     history = History(folder / name / "gamma_history.jsonl")
    ...     for step in range(3):
    ...         history.append(step, {"gamma/last/mean": 1.0 - pull * step})
    >>> page = write_history_page(folder / "runs.html", folder / "decayed", folder / "plain")
    >>> "decayed" in page.read_text()
    True

    Args:
        path: a file to write, `.html`.
        runs: the `gamma_history.jsonl` that a `GammaMonitor` wrote, or the folder that holds it, of each run.
        command: what wrote the page, for the reader to repeat.

    Returns:
        The path written to.

    Raises:
        GammaRegError: for another suffix, no run, a history that can't be read or has no values of gammas, or a path
            that can't be written.
    """
    check_page(path)
    read = read_runs(runs)
    keys = {key for rows in read.values() for row in rows for key in row}
    text = render(
        "history.html",
        runs=[_data(name, rows) for name, rows in read.items()],
        read=read,
        roles=[role for role in Role if f"gamma/{role}/mean" in keys],
        metrics=METRICS,
        probed=any(key.startswith("gamma/residual/ratio/") for key in keys),
        rates={key: told for key, told in RATES.items() if key in keys},
        thinned=any(len(rows) > MOST for rows in read.values()),
        most=MOST,
        ends=ends,
        command=command,
        style=STYLE,
        versions=_versions(),
    )
    return save_page(path, text)


def read_runs(runs: Sequence[str | Path]) -> dict[str, list[Row]]:
    """The rows of each run, by a name for it: its folder's, or what was given where that names two.

    Raises:
        GammaRegError: if there is no run, or one whose history can't be read or holds no values of gammas.
    """
    if not runs:
        raise GammaRegError(f"Expected the {HISTORY_NAME} of a run, or its folder, found nothing. Name one or several.")
    files = [path / HISTORY_NAME if (path := Path(run).expanduser()).is_dir() else path for run in runs]
    names = [file.resolve().parent.name if file.name == HISTORY_NAME else file.stem for file in files]
    found: dict[str, list[Row]] = {}
    for run, file, name in zip(runs, files, names, strict=True):
        rows = read_history(file)
        if not any(_KEY.fullmatch(key) for row in rows for key in row):
            raise GammaRegError(
                f"Expected a history with values of gammas in {str(file)!r}, found none. Measure at least once."
            )
        found[name if names.count(name) == 1 else str(run)] = rows
    return found


def run_line(name: str, rows: Sequence[Row]) -> str:
    """What became of the gains of a run, in a line.

    >>> run_line("out", [{"step": 10, "gamma/last/mean": 1.0}, {"step": 20, "gamma/last/mean": 0.5}])
    'out: 2 measurements, step 10 to 20; mean |gamma|: last 1 to 0.5.'
    """
    found = {role: ends(rows, f"gamma/{role}/mean") for role in Role}
    told = ", ".join(f"{role} {pair[0]:.4g} to {pair[1]:.4g}" for role, pair in found.items() if pair)
    count = f"{len(rows)} measurement{'' if len(rows) == 1 else 's'}"
    return f"{name}: {count}, step {rows[0]['step']} to {rows[-1]['step']}; mean |gamma|: {told}."


def ends(rows: Sequence[Row], key: str) -> tuple[float, float] | None:
    """The first and the last value of a key; None where it has none.

    >>> ends([{"step": 0}, {"step": 1, "a": 1.0}, {"step": 2, "a": 0.5}, {"step": 3, "a": None}], "a")
    (1.0, 0.5)
    """
    values = [row[key] for row in rows if row.get(key) is not None]
    return (values[0], values[-1]) if values else None


def _data(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A run as the page's script reads it: columns of numbers of six digits."""
    count = min(len(rows), MOST)
    kept = [rows[i * (len(rows) - 1) // max(1, count - 1)] for i in range(count)]
    keys = dict.fromkeys(key for row in kept for key in row if _KEY.fullmatch(key))
    return {"name": name, "steps": [row["step"] for row in kept], "values": {key: _column(kept, key) for key in keys}}


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    return [None if (value := row.get(key)) is None else float(f"{value:.6g}") for row in rows]


def _versions() -> dict[str, str]:
    from hf_gammareg import __version__

    return {"hf_gammareg": __version__, "Python": platform.python_version()}
