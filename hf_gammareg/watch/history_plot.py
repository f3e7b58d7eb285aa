"""A picture of a history: the mean |gamma| of each role over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.gammas import Role
from hf_gammareg.show.picture import check_picture
from hf_gammareg.show.sheet import STYLE
from hf_gammareg.watch.history import read_history

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
