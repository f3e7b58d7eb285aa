"""A picture of a network: its blocks in the order of computation, each with its gammas coloured by role."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.find import Analysis
from hf_gammareg.roles.gammas import GammaMap, Role
from hf_gammareg.show.blocks import Block, Run, collapse, find_blocks

SUFFIXES = (".svg", ".png")


def check_picture(path: str | Path) -> Path:
    """Tell before any work is done whether a picture can be drawn to a path.

    Raises:
        GammaRegError: if the suffix is neither .svg nor .png, or matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise GammaRegError(
            f"Expected the name of a picture to end in .svg or .png, found {path.name!r}. Give it one of these endings."
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise GammaRegError(
            "Expected matplotlib to draw a picture with, found that it is not installed. Install it, or "
            "hf-gammareg[recipes], which brings it."
        ) from error
    return path


def draw(
    path: str | Path,
    analysis: Analysis,
    *,
    decays: Mapping[str, bool] | None = None,
    title: str = "",
) -> Path:
    """Draw a model's blocks with each gamma coloured by its role.

    The main line is the identity path; above it stand the branches of each residual sum. A projection shortcut's norm
    stands on the main line inside its block. Consecutive blocks that look alike and differ in one number of their
    names are drawn once, with their count, where there are many.

    Args:
        path: a file to write, `.svg` or `.png`.
        analysis: of any model (see `hf_gammareg.analyse`).
        decays: `{parameter name: decays}`; gammas that decay get a thick rim.
        title: stands above the picture.

    Returns:
        The path written to.

    Raises:
        GammaRegError: for another suffix, without matplotlib, for a model that can't be traced, or a path that can't be
            written.
    """
    path = check_picture(path)
    if analysis.ancestry is None:
        raise analysis.untraceable("to draw", "There is no picture of it; the table says what is known of its gammas.")
    gammas = analysis.gammas
    looks = {gamma.name: (gamma.role, decays is not None and decays[gamma.name]) for gamma in gammas}
    runs = collapse(find_blocks(analysis.sums.values(), analysis.sites, analysis.ancestry), looks)
    figure = Sheet(gammas, decays, title).figure(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise GammaRegError(
            f"Expected a place to write the picture {str(path)!r} to, found {error.strerror or error}. Name another."
        ) from error
    return path


STYLE: dict[Role, tuple[str, str, str]] = {
    Role.TRUNK: ("T", "#0072B2", "white"),
    Role.SHORTCUT: ("S", "#D55E00", "white"),
    Role.FINAL: ("F", "#CC79A7", "black"),
    Role.LAST: ("L", "#009E73", "white"),
    Role.ABSORBED: ("A", "#8FD0F5", "black"),
    Role.GATE: ("G", "#F0E442", "black"),
    Role.UNKNOWN: ("?", "#DDDDDD", "black"),
}
"""By role: letter, colour, colour of the letter. The colours are those of Okabe and Ito, made for colour-blind eyes."""


_NOTE = "Blocks in the order of computation.  +: residual sum, its skip on the main line.  Σ: sum of parallel branches."


# Lengths in inches.
_WIDTH, _LEAST = 12.0, 5.5


_RADIUS = 0.115


_LANE = 0.52


_HEADER = 0.16  # above the lanes of a repeated group, for its count


_SMALL, _MIDDLE, _LARGE = 6.5, 7.5, 11.0  # sizes of type, in points


_LINE, _FAINT, _BOX = "#333333", "#999999", "#F3F3F3"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A block, laid out."""

    block: Block
    label: str
    """What its gammas' names have in common."""
    names: tuple[tuple[str, ...], ...]
    """For each lane what tells its gammas apart."""
    slots: tuple[tuple[float, ...], ...]
    """For each lane the width of each of its gammas."""
    width: float


class Sheet:
    """Draws runs of blocks in rows, from left to right."""

    def __init__(self, gammas: GammaMap, decays: Mapping[str, bool] | None, title: str) -> None:
        from matplotlib.figure import Figure

        self.gammas, self.decays, self.title = gammas, decays, title
        self.canvas = Figure()

    def figure(self, runs: Sequence[Run]) -> Any:
        """Draw all and return matplotlib's figure."""
        laid = [
            (run, [_cell(block, label) for block, label in zip(run.blocks, run.labels, strict=True)]) for run in runs
        ]
        widths = [sum(cell.width for cell in cells) + 0.3 * (run.count > 1) for run, cells in laid]
        rows: list[list[int]] = [[]]
        for i, width in enumerate(widths):
            if rows[-1] and sum(widths[j] for j in rows[-1]) + width > _WIDTH:
                rows.append([])
            rows[-1].append(i)
        lanes = [max((len(c.block.lanes) for j in row for c in laid[j][1]), default=1) for row in rows]
        heights = [0.95 + _HEADER + _LANE * max(1, n - 1) for n in lanes]
        total_width = max([_LEAST, *(sum(widths[j] for j in row) for row in rows)]) + 1.5
        total = sum(heights) + 1.25
        self.canvas.set_size_inches(total_width, total)
        self.axes = self.canvas.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(-0.75, total_width - 0.75)
        self.axes.set_ylim(0, total)
        self.axes.axis("off")
        self._head(total - 0.3)
        y = total - 0.9
        for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
            base = y - height + 0.45
            x = 0.0
            self._text(-0.4, base + 0.12, "input", _MIDDLE) if not number else None
            self._arrow(-0.6, base, 0)
            for j in row:
                run, cells = laid[j]
                x = self._run(x, base, run, cells, lanes[number])
            if number + 1 < len(rows):
                below, low = base - 0.37, y - height - heights[number + 1] + 0.45
                self._line([(x, base), (x + 0.15, base), (x + 0.15, below), (-0.6, below), (-0.6, low)])
            else:
                self._arrow(x, base, x + 0.4)
                self._text(x + 0.25, base + 0.12, "output", _MIDDLE)
            y -= height
        self._text(
            -0.6,
            0.12,
            _NOTE,
            _MIDDLE,
            "left",
            _FAINT,
        )
        return self.canvas

    def _head(self, y: float) -> None:
        """Title and legend."""
        self._text(-0.6, y, self.title, _LARGE, "left")
        counts = Counter(gamma.role for gamma in self.gammas)
        x = -0.5
        for role in Role:
            if not counts[role]:
                continue
            self._glyph(x, y - 0.32, role, False)
            text = f"{role}: {counts[role]}"
            self._text(x + 0.18, y - 0.32, text, _MIDDLE, "left")
            x += _extent(text, _MIDDLE) + 0.5
        if self.decays is not None:
            self._circle(x, y - 0.32, "white", True)
            text = f"thick rim: decays ({sum(self.decays.values())} of {len(self.gammas)})"
            self._text(x + 0.18, y - 0.32, text, _MIDDLE, "left")

    def _run(self, x: float, y: float, run: Run, cells: list[_Cell], lanes: int) -> float:
        width = sum(cell.width for cell in cells)
        if run.count > 1:
            from matplotlib.patches import FancyBboxPatch

            top = 0.38 + _HEADER + _LANE * (max(len(cell.block.lanes) for cell in cells) - 1)
            box = FancyBboxPatch(
                (x + 0.15, y - 0.27),
                width,
                top + 0.27,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=_BOX,
                edgecolor=_FAINT,
                linewidth=0.8,
                zorder=0,
            )
            self.axes.add_patch(box)
            self._text(x + 0.15 + width - 0.06, y + top - 0.12, f"×{run.count}", _LARGE, "right")
            self._line([(x, y), (x + 0.15, y)])
            x += 0.15
        for cell in cells:
            self._cell(x, y, cell)
            x += cell.width
        if run.count > 1:
            self._line([(x, y), (x + 0.15, y)])
            x += 0.15
        return x

    def _cell(self, x: float, y: float, cell: _Cell) -> None:
        end = x + cell.width
        self._arrow(x, y, end)
        self._text((x + end) / 2, y - 0.2, cell.label, _SMALL)
        summed = len(cell.block.lanes) > 1
        for level, (lane, names, slots) in enumerate(zip(cell.block.lanes, cell.names, cell.slots, strict=True)):
            height = y + level * _LANE
            if level:
                self._line([(x + 0.12, y), (x + 0.12, height), (end - 0.3, height), (end - 0.3, y)])
            place = (x + end - (0.18 if summed else 0)) / 2 - sum(slots) / 2
            for parameter, name, slot in zip(lane, names, slots, strict=True):
                place += slot
                decays = self.decays is not None and self.decays.get(parameter, False)
                self._glyph(place - slot / 2, height, self.gammas[parameter].role, decays)
                self._text(place - slot / 2, height + 0.2, name, _SMALL)
        if summed:
            self._circle(end - 0.3, y, "white", False, 0.085)
            self._text(end - 0.3, y - 0.005, "+" if cell.block.residual else "Σ", _MIDDLE)

    def _glyph(self, x: float, y: float, role: Role, thick: bool) -> None:
        letter, colour, ink = STYLE[role]
        self._circle(x, y, colour, thick)
        self._text(x, y - 0.005, letter, _MIDDLE, colour=ink, weight="bold")

    def _circle(self, x: float, y: float, colour: str, thick: bool, radius: float = _RADIUS) -> None:
        from matplotlib.patches import Circle

        width = 2.2 if thick else 0.6
        self.axes.add_patch(Circle((x, y), radius, facecolor=colour, edgecolor="black", linewidth=width, zorder=3))

    def _line(self, points: Iterable[tuple[float, float]]) -> None:
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=_LINE, linewidth=0.9, zorder=1, solid_joinstyle="round")

    def _arrow(self, x: float, y: float, end: float) -> None:
        style = {"arrowstyle": "-|>,head_width=0.14,head_length=0.28", "color": _LINE, "linewidth": 0.9}
        self.axes.annotate("", (end, y), (x, y), arrowprops={**style, "shrinkA": 0, "shrinkB": 0}, zorder=1)

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        side: str = "center",
        colour: str = "black",
        weight: str = "normal",
    ) -> None:
        self.axes.text(x, y, text, fontsize=size, ha=side, va="center", color=colour, fontweight=weight, zorder=4)


def _cell(block: Block, label: str) -> _Cell:
    names = tuple(tuple(_short(name, block) for name in lane) for lane in block.lanes)
    slots = tuple(tuple(max(0.34, _extent(name, _SMALL) + 0.1) for name in lane) for lane in names)
    summed = len(block.lanes) > 1
    width = max([0.2, *(sum(lane) for lane in slots)]) + (0.62 if summed else 0.2)
    label = _cut(label, 30)
    return _Cell(block=block, label=label, names=names, slots=slots, width=max(width, _extent(label, _SMALL) + 0.14))


def _short(name: str, block: Block) -> str:
    """A gamma's name inside its block; nothing for one whose whole path is the label."""
    path = re.sub(r"\.?weight$", "", name)
    return _cut(path.removeprefix(block.prefix).lstrip("."), 28) if path != block.label else ""


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[-limit + 1 :]


def _extent(text: str, size: float) -> float:
    """Width of a text in inches; hinting makes letters a little wider than they are."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=size).get_extents().width) * 1.06 / 72 if text.strip() else 0.0
