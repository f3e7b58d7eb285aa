"""A network as a row of blocks: residual sums with what stands on their branches and skips, and gammas between them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from hf_gammareg.roles.residual import Ancestry
from hf_gammareg.roles.sites import Site
from hf_gammareg.roles.sums import Sum

FEW = 20
"""So many blocks are shown each by itself."""
PERIOD = 8
"""The most blocks that are one repeated group."""
REPEATS = 3
"""What is repeated less often is shown in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sum and the gammas on each of its sides, or, with one lane, a gamma between sums."""

    lanes: tuple[tuple[str, ...], ...]
    """Names of gammas, in order of computation: first those of the skip, then those of each branch."""
    module: str
    """Path of the module that sums."""
    residual: bool = False
    """Whether the first lane is a skip."""

    @property
    def names(self) -> tuple[str, ...]:
        """All its gammas."""
        return tuple(name for lane in self.lanes for name in lane)

    @property
    def prefix(self) -> str:
        """The path that the names of all its gammas begin with, without the layer's own; else the summing module's."""
        paths = [name.split(".")[:-2] for name in self.names]
        shared = (parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))
        return ".".join(shared) or self.module

    @property
    def label(self) -> str:
        """What stands below it: of a gamma between sums its whole path."""
        return self.names[0].rpartition(".")[0] if len(self.lanes) == 1 else self.prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Blocks that are repeated, drawn once."""

    blocks: tuple[Block, ...]
    """The first repetition."""
    labels: tuple[str, ...]
    """For each block what its gammas' names have in common, with the range of the number that counts them."""
    count: int


def find_blocks(sums: Iterable[Sum], sites: Iterable[Site], ancestry: Ancestry) -> list[Block]:
    """Put every gamma into the smallest sum that it stands in, and order all by computation.

    Args:
        sums: of a graph, from `find_sums`. Sums without a skip count where two of their sides hold gammas.
        sites: uses of gammas, from `find_sites`.
        ancestry: of the same graph.
    """
    sites = list(sites)
    regions = [_Region(total, ancestry) for total in sums]
    regions = [region for region in regions if region.total.is_residual() or region.parallel(sites)]
    held: dict[int, list[Site]] = {region.total.node.index: [] for region in regions}
    found: list[tuple[int, Block]] = []
    for site in sites:
        around = [region for region in regions if region.has(site)]
        if around:
            held[min(around, key=lambda region: region.size).total.node.index].append(site)
        else:
            found.append((site.node.index, Block(lanes=((site.parameter,),), module=site.node.module)))
    for region in regions:
        lanes = region.lanes(held[region.total.node.index])
        names = tuple(tuple(site.parameter for site in lane) for lane in lanes)
        node = region.total.node
        found.append((node.index, Block(lanes=names, module=node.module, residual=region.total.is_residual())))
    return [block for _, block in sorted(found, key=lambda pair: pair[0])]


class _Region:
    """The nodes between a sum and the point where its sides part."""

    def __init__(self, total: Sum, ancestry: Ancestry) -> None:
        self.total, self.ancestry = total, ancestry
        self.sides = sorted(total.operands, key=lambda side: (side is not total.skip, side.index))
        common = ~0
        for side in self.sides:
            common &= ancestry.of(side)
        self.fork = common.bit_length() - 1
        """The last node that all sides depend on; -1 if there is none."""
        self.size = (ancestry.of(total.node) & ~common).bit_count()

    def has(self, site: Site) -> bool:
        return self.fork >= 0 and any(self._lies_on(site, side) for side in range(len(self.sides)))

    def lanes(self, sites: Sequence[Site]) -> list[list[Site]]:
        """Sites by side; one that lies on several belongs to the first."""
        lanes: list[list[Site]] = [[] for _ in self.sides]
        for site in sites:
            if self.fork >= 0:
                side = next((i for i in range(len(self.sides)) if self._lies_on(site, i)), None)
                if side is not None:
                    lanes[side].append(site)
        return lanes

    def parallel(self, sites: Sequence[Site]) -> bool:
        """Whether several sides hold gammas."""
        return sum(bool(lane) for lane in self.lanes(sites)) > 1

    def _lies_on(self, site: Site, side: int) -> bool:
        index = site.node.index
        after_fork = self.ancestry.above[index] >> self.fork & 1
        return bool(after_fork and self.ancestry.of(self.sides[side]) >> index & 1)


def collapse(blocks: Sequence[Block], looks: Mapping[str, Hashable] | None = None, *, few: int = FEW) -> list[Run]:
    """Find consecutive blocks, or groups of them, that look alike and differ in one number of their names.

    >>> blocks = [Block(lanes=((), (f"blocks.{i}.norm.weight",)), module=f"blocks.{i}") for i in range(3)]
    >>> [(run.labels, run.count) for run in collapse(blocks, few=0)]
    [(('blocks.0-2',), 3)]

    Args:
        blocks: in order of computation.
        looks: by gamma what is drawn of it; blocks whose gammas differ in it are not repeated.
        few: up to so many blocks each stands by itself.
    """
    runs: list[Run] = []
    start = 0
    while start < len(blocks):
        period, count, place = 1, 1, None
        if len(blocks) > few:
            for length in range(1, PERIOD + 1):
                repeats, counted = _repeats(blocks[start:], length, looks or {})
                if repeats >= REPEATS and repeats * length > count * period:
                    period, count, place = length, repeats, counted
        first = tuple(blocks[start : start + period])
        last = blocks[start + period * (count - 1) :][:period]
        labels = tuple(_label(a.label, b.label, place) for a, b in zip(first, last, strict=True))
        runs.append(Run(blocks=first, labels=labels, count=count))
        start += period * count
    return runs


def _repeats(blocks: Sequence[Block], period: int, looks: Mapping[str, Hashable]) -> tuple[int, int | None]:
    """How often the first blocks are repeated, and which number of their names counts them."""
    count, place = 1, None
    while period * (count + 1) <= len(blocks):
        before, after = (blocks[period * (count + k - 1) :][:period] for k in (0, 1))
        steps = [_step(a, b, looks) for a, b in zip(before, after, strict=True)]
        places = {step for step in steps if step is not None and step >= 0}
        if None in steps or len(places) > 1 or (place is not None and places - {place}):
            break
        place = places.pop() if places else place
        count += 1
    return count, place


def _step(a: Block, b: Block, looks: Mapping[str, Hashable]) -> int | None:
    """Which number of their paths two blocks differ in; -1 if in none, None if in more or in anything else."""
    alike = [[looks.get(name) for name in block.names] for block in (a, b)]
    if [len(lane) for lane in a.lanes] != [len(lane) for lane in b.lanes] or alike[0] != alike[1]:
        return None
    differing: set[int] = set()
    for first, second in zip((*a.names, a.module), (*b.names, b.module), strict=True):
        left, right = _pieces(first), _pieces(second)
        if len(left) != len(right) or left[::2] != right[::2]:
            return None
        differing |= {i for i, (one, other) in enumerate(zip(left[1::2], right[1::2], strict=True)) if one != other}
    return None if len(differing) > 1 else differing.pop() if differing else -1


def _pieces(path: str) -> list[str]:
    """A path at its numbers: text and numbers in turn. A layer's own number, as in bn1 and bn2, counts nothing."""
    *above, layer, parameter = ["", "", *path.split(".")]
    if layer.isdigit() or parameter not in ("weight", "scale", "gamma"):
        return re.split(r"(\d+)", path)
    *pieces, last = re.split(r"(\d+)", ".".join(above[2:]))
    return [*pieces, f"{last}.{layer}.{parameter}"]


def _label(first: str, last: str, place: int | None) -> str:
    pieces, ends = re.split(r"(\d+)", first), re.split(r"(\d+)", last)
    if place is not None and 2 * place + 1 < len(pieces) and len(pieces) == len(ends):
        k = 2 * place + 1
        pieces[k] = f"{pieces[k]}-{ends[k]}" if pieces[k] != ends[k] else pieces[k]
    return "".join(pieces)
