"""The picture inside a page: each block a small drawing of its own, so that a row of them wraps where the page ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hf_gammareg.roles.find import Analysis
from hf_gammareg.show.blocks import Block, collapse, find_blocks

# Lengths in pixels.
RADIUS, _SUM = 9, 6
_SLOT, _LANE = 23, 27
_FORK, _JOIN, _BELOW, _BEND = 9, 22, 12, 6
_LETTER = 5.7
_LONGEST = 19
"""Letters of a label that are shown; the page has the whole one beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A gamma, where it stands in the drawing of its block."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A block, drawn: its skip is the line at the bottom, its branches stand above."""

    label: str
    short: str
    """The label, cut to what fits."""
    width: float
    height: float
    base: float
    """Where the line of the skip lies."""
    paths: tuple[str, ...]
    """Lines, as SVG writes them."""
    dots: tuple[Dot, ...]
    sides: tuple[tuple[str, ...], ...]
    """Names of gammas by side, as in `Block.lanes`."""
    residual: bool
    join: float | None
    """Where the sum lies on the line; None for a gamma between sums."""
    members: tuple[str, ...]
    """All gammas that it stands for, those of its repetitions too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Blocks that are drawn together, and how often they are repeated."""

    drawings: tuple[Drawing, ...]
    count: int


def draw_strip(analysis: Analysis, decays: Mapping[str, bool]) -> list[Part]:
    """Draw the blocks of a model, in the order of computation; repetitions once.

    Args:
        analysis: of any model; of one that can't be traced there is nothing to draw.
        decays: `{parameter name: decays}`; blocks that are treated otherwise are no repetitions.
    """
    if analysis.ancestry is None:
        return []
    looks = {gamma.name: (gamma.role, decays[gamma.name]) for gamma in analysis.gammas}
    blocks = find_blocks(analysis.sums.values(), analysis.sites, analysis.ancestry)
    parts, start = [], 0
    for run in collapse(blocks, looks):
        period = len(run.blocks)
        repeated = blocks[start : start + period * run.count]
        drawn = [_draw(repeated[k::period], label) for k, label in enumerate(run.labels)]
        parts.append(Part(drawings=tuple(drawn), count=run.count))
        start += len(repeated)
    return parts


def _draw(repeated: Sequence[Block], label: str) -> Drawing:
    block = repeated[0]
    lanes, summed = block.lanes, len(block.lanes) > 1
    short = label if len(label) <= _LONGEST else "…" + label[1 - _LONGEST :]
    inner = max(1, *(len(lane) for lane in lanes)) * _SLOT
    width = max(inner + (_FORK + _JOIN + 8 if summed else 12), len(short) * _LETTER + 10)
    height = _BELOW + RADIUS + 3 + _LANE * (len(lanes) - 1)
    base = height - _BELOW
    join = width - _JOIN if summed else None
    middle = (_FORK + width - _JOIN) / 2 if summed else (width - 5) / 2
    paths = [f"M0 {base}H{width - 4:g}"]
    dots: list[Dot] = []
    for level, lane in enumerate(lanes):
        y = base - _LANE * level
        if level and join is not None:
            paths.append(
                f"M{_FORK} {base}V{y + _BEND}q0-{_BEND} {_BEND}-{_BEND}"
                f"H{join - _BEND:g}q{_BEND} 0 {_BEND} {_BEND}V{base - _SUM}"
            )
        first = middle - _SLOT * (len(lane) - 1) / 2
        dots += [Dot(name=name, x=round(first + _SLOT * k, 1), y=y) for k, name in enumerate(lane)]
    return Drawing(
        label=label,
        short=short,
        width=round(width, 1),
        height=height,
        base=base,
        paths=tuple(paths),
        dots=tuple(dots),
        sides=lanes,
        residual=block.residual,
        join=join,
        members=tuple(name for one in repeated for name in one.names),
    )
