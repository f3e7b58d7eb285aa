"""The pictures: differences by arm, |gamma| by role over training, branch to skip by depth."""

import math
import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablation.arms import ARMS, BASELINE, WHOLE
from ablation.statistics import Record, Results
from hf_gammareg import Role
from hf_gammareg.show.picture import STYLE

COLOURS = {
    BASELINE: "#000000",
    **{str(role): STYLE[role][1] for role in Role},
    "absorbed": "#56B4E9",
    "guidelines": "#0B7A3B",
    "complement": "#B2182B",
    "all": "#777777",
    "iwd": "#8C510A",
    "qwen3_next": "#5E3C99",
}
LINES = {"guidelines": "--", "complement": "--", "all": ":", "iwd": "-.", "qwen3_next": "-."}
MARKERS = {"guidelines": "s", "complement": "s", "all": "D", "iwd": "^", "qwen3_next": "v"}
OVERVIEW, SIZES, DEPTH = "overview.png", "gammas.png", "branch_to_skip.png"


def plot_all(results: Results, folder: Path) -> list[Path]:
    """Draw everything of the main strength and initialisation into a folder."""
    pictures = {OVERVIEW: _overview(results), SIZES: _sizes(results)}
    if results.network.sums:
        pictures[DEPTH] = _depth(results)
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=110)
    return [folder / name for name in pictures]


def _title(results: Results) -> str:
    init, strength = results.main
    start = "" if init is None else f", those of role last start at {init:g}"
    return f"{results.config.title}: gammas decay by {strength:g}{start}, {results.seeds} seeds"


def _overview(results: Results) -> Figure:
    """By arm: branch to skip, effective learning rate, accuracy, test loss; each against no decay on gammas."""
    arms = [arm for arm in results.network.arms if arm != BASELINE]
    cell = results.main
    columns = [
        ("variance of branch / skip, factor", lambda arm: results.branch_to_skip(arm, cell), ""),
        ("effective lr of absorbed gammas, factor", lambda arm: results.effective_lr(arm, cell), ""),
        (
            "test accuracy, difference in points",
            lambda arm: results.difference(arm, cell, "eval_accuracy"),
            "eval_accuracy",
        ),
        ("test loss, difference", lambda arm: results.difference(arm, cell, "eval_loss"), "eval_loss"),
    ]
    columns = [column for column in columns if any(column[1](arm) for arm in arms)]
    figure = Figure(figsize=(0.8 + 3.4 * len(columns), 1.6 + 0.42 * len(arms)), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(columns), sharey=True, squeeze=False)[0])
    for axes, (title, measure, key) in zip(panels, columns, strict=True):
        axes.set_title(title, fontsize=10)
        axes.axvline(0.0 if key else 1.0, color="#999999", linewidth=1)
        axes.grid(axis="x", alpha=0.3)
        times = 100 if key == "eval_accuracy" else 1
        for row, arm in enumerate(arms):
            if found := measure(arm):
                ends = (found.low, found.mean, found.high)
                low, mean, high = (times * value if key else math.exp(value) for value in ends)
                axes.plot([low, high], [row, row], color=COLOURS[arm], linewidth=2.5, solid_capstyle="butt")
                axes.plot([mean], [row], MARKERS.get(arm, "o"), color=COLOURS[arm], markersize=7)
            if key:
                each = [times * (run[key] - none[key]) for run, none in results.pairs(arm, cell)]
                axes.plot(each, [row] * len(each), "|", color="#333333", markersize=8, alpha=0.6)
        if not key:
            axes.set_xscale("log")
            _plain_ticks(axes)
    panels[0].set_yticks(range(len(arms)), [_label(results, arm) for arm in arms])
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.suptitle(f"{_title(results)}\nagainst no decay on gammas; bars: 95 % confidence, ticks: seeds", fontsize=11)
    return figure


def _label(results: Results, arm: str) -> str:
    """The arm, and the policies that are the same here."""
    also = [other for other in WHOLE if results.network.same_as.get(other) == arm and other != arm]
    return " = ".join([f"only {arm}" if arm in list(Role) else arm, *also])


def _plain_ticks(axes: Axes) -> None:
    """Ticks as 0.5, 1, 2, 5 on an axis that is wide enough to hold some of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), max(high, 1.25))
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 10 else (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _sizes(results: Results) -> Figure:
    """A panel a role: the mean |gamma| over training, a line an arm, the mean over seeds."""
    roles = [role for role in Role if results.network.gammas.by_role(role)]
    figure = Figure(figsize=(3.3 * max(2, len(roles)) + 1.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(roles), squeeze=False)[0]
    for axes, role in zip(panels, roles, strict=True):
        key = f"gamma/{role}/mean"
        for arm in results.network.arms:
            _lines(axes, arm, [_column(run, key) for run, _ in results.pairs(arm, results.main)])
        axes.set_title(f"{role} ({len(results.network.gammas.by_role(role))})", fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("mean |gamma|")
    _legend(results, figure, panels[0])
    figure.suptitle(_title(results), fontsize=11)
    return figure


def _depth(results: Results) -> Figure:
    """Branch to skip at each residual sum at the end of training: geometric mean over seeds, and their range."""
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.subplots()
    numbers = range(len(results.network.sums))
    for arm in results.network.arms:
        rows = [
            [(number, record["history"][f"gamma/residual/ratio/{number:03d}"][-1]) for number in numbers]
            for record, _ in results.pairs(arm, results.main)
        ]
        _lines(axes, arm, [[point for point in row if point[1]] for row in rows], logarithm=True)
    axes.set_yscale("log")
    shared = os.path.commonpath([module.replace(".", "/") for module in results.network.sums]).replace("/", ".")
    names = [module.removeprefix(f"{shared}.") for module in results.network.sums]
    axes.set_xticks(list(numbers), names, rotation=35, ha="right", fontsize=8)
    axes.set_ylabel("variance of branch / variance of skip")
    axes.grid(alpha=0.3)
    _legend(results, figure, axes)
    figure.suptitle(_title(results), fontsize=11)
    return figure


def _column(record: Record, key: str) -> list[tuple[float, float]]:
    history = record["history"]
    return [(step, value) for step, value in zip(history["step"], history[key], strict=True) if value is not None]


def _lines(axes: Axes, arm: str, rows: list[list[tuple[float, float]]], logarithm: bool = False) -> None:
    """The mean over seeds, and a band from the least to the greatest."""
    at: dict[float, list[float]] = {}
    for row in rows:
        for x, y in row:
            at.setdefault(x, []).append(y)
    if not at:
        return
    mean = _geometric_mean if logarithm else lambda values: sum(values) / len(values)
    look: dict[str, Any] = {"color": COLOURS[arm], "linestyle": LINES.get(arm, "-")}
    if len(at) > 1:
        least, greatest = ([pick(values) for values in at.values()] for pick in (min, max))
        axes.fill_between(list(at), least, greatest, color=COLOURS[arm], alpha=0.12, linewidth=0)
    look |= {"marker": MARKERS.get(arm, "o"), "markersize": 4}
    axes.plot(list(at), [mean(values) for values in at.values()], label=arm, linewidth=1.6, **look)


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _legend(results: Results, figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: list(ARMS).index(labels[index]))
    figure.legend(
        [handles[index] for index in order],
        [_label(results, labels[index]) for index in order],
        loc="outside right center",
        frameon=False,
        title="what decays",
    )
