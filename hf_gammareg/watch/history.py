"""The history of a run's gammas: one JSON line for each step that was looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from hf_gammareg.errors import GammaRegError
from hf_gammareg.files import write_whole
from hf_gammareg.roles.gammas import Role
from hf_gammareg.show.picture import STYLE, check_picture

HISTORY_NAME = "gamma_history.jsonl"
"""The file that a monitored run leaves in its `output_dir`."""

Row = dict[str, Any]
"""One line: `step` and the values by key, None for one that was not finite."""


class History:
    """Appends rows to a file, in the order of steps and each step once.

    A row for a step takes the place of what an interrupted run left for that step and later ones. A line that a killed
    process did not finish is dropped.

    >>> import tempfile
    >>> history = History(Path(tempfile.mkdtemp()) / "gamma_history.jsonl")
    >>> for step in (0, 10, 20, 10):  # at step 20 it was killed, and went on from step 0
    ...     history.append(step, {"gamma/last/mean": 1.0 - step / 100})
    >>> [(row["step"], row["gamma/last/mean"]) for row in read_history(history.path)]
    [(0, 1.0), (10, 0.9)]

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._last: int | None = None

    def resume(self, step: int) -> None:
        """Drop what was written of later steps: the run goes on from here."""
        if not self.path.is_file():
            self._last = None
            return
        text = self.path.read_text(encoding="utf-8")
        kept = [row for row in read_history(self.path) if row["step"] <= step]
        lines = "".join(json.dumps(row) + "\n" for row in kept)
        if lines != text:
            write_whole(self.path, lines)
        self._last = kept[-1]["step"] if kept else None

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write a row; rows of this step and later ones go first."""
        if self._last is None or step <= self._last:
            self.resume(step - 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **values}))
        self._last = step


def read_history(path: str | Path) -> list[Row]:
    """Read the rows of a history, in the order of steps; a last line without an end is passed over.

    Raises:
        GammaRegError: if there is no such file, or it holds anything but rows with rising steps.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        steps = [row["step"] for row in rows]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("its steps do not rise")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GammaRegError(
            f"Expected the history of a run's gammas in {str(path)!r}, found {type(error).__name__}: {error}. Name the "
            f"{HISTORY_NAME} that a GammaMonitor wrote, or move the file away to begin a new one."
        ) from error
    return rows


def _line(row: Mapping[str, Any]) -> str:
    # JSON has no NaN: what is not finite is null.
    valid = {key: value if math.isfinite(value) else None for key, value in row.items()}
    return json.dumps(valid) + "\n"


PLOT_NAME = "gamma_history.png"
"""The picture that a monitored run leaves beside its history."""


def plot_history(history: str | Path, path: str | Path | None = None, *, title: str = "") -> Path:
    """Draw the mean |gamma| of each role over the steps of a run.

    Args:
        history: the `gamma_history.jsonl` that a `GammaMonitor` wrote.
        path: a file to write, `.png` or `.svg`; default: `gamma_history.png` beside the history.
        title: stands above the picture.

    Returns:
        The path written to.

    Raises:
        GammaRegError: without matplotlib, for another suffix, for a history that can't be read or has no rows, or a
            path that can't be written.
    """
    path = check_picture(Path(history).with_name(PLOT_NAME) if path is None else path)
    from matplotlib.figure import Figure

    rows = read_history(history)
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    drawn = 0
    for role in Role:
        key = f"gamma/{role}/mean"
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            # Lines that lie on each other all show: the first ones are the thickest.
            look: dict[str, Any] = {
                "color": STYLE[role][1],
                "linewidth": max(1.2, 5.0 - drawn),
                "solid_capstyle": "round",
            }
            look["marker"] = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), label=str(role), **look)
            drawn += 1
    if not drawn:
        raise GammaRegError(
            f"Expected a history with values of gammas in {str(history)!r}, found none. Measure at least once."
        )
    axes.set_xlabel("step")
    axes.set_ylabel("mean |gamma|")
    axes.set_title(title or "Gains of the normalization layers, by role")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise GammaRegError(
            f"Expected a place to write the picture {str(path)!r} to, found {error.strerror or error}. Name another."
        ) from error
    return path
