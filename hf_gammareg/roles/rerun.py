"""One forward pass that can be run again in parts: what an op does, and what comes of a changed value, by numbers."""

from __future__ import annotations

import functools
import math
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from operator import or_
from typing import Any

import torch
from torch import Tensor, fx

from hf_gammareg.graph.nodes import Node
from hf_gammareg.graph.replay import Replay, call
from hf_gammareg.graph.rows import Effect

FACTORS = (2.0**8, 2.0**14)
"""Two large factors: past them GELU and SiLU are ReLU, sigmoid is a step, and biases do not count."""
CARRIES = 0.3
"""A value whose size grows as c to a power above this carries the factor."""
ALIKE = 1e-6
"""Relative difference of numbers that are the same."""
PROBED = 4
"""Numbers of a value that are changed to see where they go."""


class Rerun:
    """The values of one forward pass, and the same pass on other values.

    Args:
        replay: the ops of the pass.
        values: every value of it, by its name in the program.
    """

    def __init__(self, replay: Replay, values: dict[str, Any]) -> None:
        self.replay, self.values = replay, values
        self.nodes: dict[str, Node] = {node.name: node for node in replay.graph.nodes if node.name}
        self.steps = {step.name: step for step in replay.steps}
        self.outputs = {node.name for node in replay.outputs}
        self.place: dict[str, int] = {}
        self.above: dict[str, int] = {}
        """By name: all that a value comes from, as bits at their places."""
        self.live: set[str] = set()
        """Values that the network passes on, against weights, masks and constants."""
        for place, given in enumerate(next(iter(replay.steps)).graph.nodes if replay.steps else ()):
            if given.op == "output":
                break
            self.place[given.name] = place
            bits = 0
            for read in given.all_input_nodes:
                bits |= self.above[read.name] | 1 << self.place[read.name]
            self.above[given.name] = bits
            node, value = self.nodes.get(given.name), values.get(given.name)
            if first(value).numel():
                above = any(read.name in self.live for read in given.all_input_nodes)
                if node.activation if node else above:
                    self.live.add(given.name)

    def read(self, step: fx.Node) -> list[str]:
        """The activations that an op reads."""
        return [node.name for node in step.all_input_nodes if node.name in self.live]

    def unsteered(self, step: fx.Node) -> list[str]:
        """The activations that an op reads, bounded ones beside others in a product apart."""
        read = self.read(step)
        if len(read) > 1 and self.effect(step.name, Effect.PRODUCT, Effect.MIX):
            return [name for name in read if name not in self.bounded] or read
        return read

    def effect(self, name: str, *effects: Effect) -> bool:
        """Whether the table says one of these effects of what made a value."""
        node = self.nodes.get(name)
        return node is not None and node.effect(*effects)

    def numel(self, name: str) -> int:
        """How many numbers a value holds."""
        return first(self.values[name]).numel()

    def joins(self, step: fx.Node) -> bool:
        """Whether it puts tensors side by side."""
        return self.effect(step.name, Effect.JOIN)

    def steers(self, step: fx.Node, name: str) -> bool:
        """Whether what an op makes stays bounded however large one of its operands becomes."""
        made = [self.run(step, {name: scaled(self.values[name], factor)}) for factor in (2.0, *FACTORS)]
        return not same(self.values[step.name], made[0]) and abs(power(*made[1:])) < CARRIES

    def passes_in(self, step: fx.Node, name: str) -> bool:
        """Whether an op passes on one of its operands."""
        at, before = self.values[name], first(self.values[step.name])
        if not before.numel() or not isinstance(at, Tensor):
            return bool(before.numel())  # takes one out of several
        depends = False
        for index in spread(at.numel()):
            shifts = []
            for sign in (1, -1):
                changed = at.clone(memory_format=torch.contiguous_format)
                changed.view(-1)[index] += sign * (largest(at) * 2 + 1)
                shifts.append(first(self.run(step, {name: changed})) - before)
            alike = changes_alike(shifts[0])
            if alike is None:
                continue
            depends = True
            bends = largest(shifts[0] + shifts[1]) > ALIKE * largest(shifts[0])
            if bends or not alike:
                return False
        return depends

    def goes_through(self, step: fx.Node) -> bool:
        """Whether it passes on the one activation that it reads, and lays nothing beside it."""
        above = self.unsteered(step)
        return len(above) == 1 and not self.joins(step) and self.passes_in(step, above[0])

    def run(self, step: fx.Node, changed: Mapping[str, Any]) -> Any:
        """What an op makes where some of its operands are others."""
        return call(step, ChainMap(dict(changed), self.values))

    def rerun(self, changed: Mapping[str, Any], name: str, still: Collection[str] = ()) -> Any:
        """What a value becomes where others are changed, and some stand still."""
        lane = dict(changed)
        view = ChainMap(lane, self.values)
        wanted = (self.above[name] | 1 << self.place[name]) & functools.reduce(or_, map(self.below.get, changed), 0)
        for step in self.at(wanted):
            if (
                step.name not in still
                and step.name not in changed
                and any(n.name in lane for n in step.all_input_nodes)
            ):
                lane[step.name] = call(step, view)
        return view[name]

    def between(self, base: str, side: str) -> Iterable[fx.Node]:
        """The ops on the ways from a value to another, the last included."""
        return self.at((self.above[side] | 1 << self.place[side]) & self.below[base])

    def at(self, places: int) -> Iterable[fx.Node]:
        """The ops at the places of some bits."""
        while places:
            lowest = places & -places
            places ^= lowest
            yield self._placed[lowest.bit_length() - 1]

    @cached_property
    def bounded(self) -> frozenset[str]:
        """Values that are a softmax, a sigmoid or the like, or made of such by simple ops."""
        found: set[str] = set()
        for name, step in self.steps.items():
            read = self.read(step)
            value = self.values[name]
            if name not in self.live or not read or not isinstance(value, Tensor):
                continue
            if found.issuperset(read) and not self.effect(name, Effect.MIX, Effect.NORM):
                found.add(name)
                continue
            made = [self.run(step, {n: scaled(self.values[n], factor) for n in read}) for factor in (2.0, *FACTORS)]
            if not same(value, made[0]) and abs(power(*made[1:])) < CARRIES:
                found.add(name)
        return frozenset(found)

    @cached_property
    def _placed(self) -> dict[int, fx.Node]:
        return {self.place[name]: step for name, step in self.steps.items()}

    @cached_property
    def users(self) -> dict[str, list[fx.Node]]:
        """By name: the ops that read a value."""
        users: dict[str, list[fx.Node]] = {name: [] for name in self.place}
        for step in self.steps.values():
            for read in step.all_input_nodes:
                users[read.name].append(step)
        return users

    @cached_property
    def below(self) -> dict[str, int]:
        """By name: all that comes from a value, as bits at their places."""
        below = dict.fromkeys(self.place, 0)
        for name in reversed(self.place):
            for step in self.users[name]:
                below[name] |= below[step.name] | 1 << self.place[step.name]
        return below


def power(first: Any, second: Any, leaves: int | None = None, apart: bool = False) -> float:
    """The power of c that a value grows with, from one under each factor.

    Args:
        first: what an op made under the smaller factor.
        second: what it made under the larger one.
        leaves: how many values of a tuple count; default: all.
        apart: numbers that follow one power count though larger ones stand still: masked scores, the eps of a row that
            holds only zeros.
    """
    powers = [0.0]
    ratio = math.log(FACTORS[1] / FACTORS[0])
    lanes = (torch.utils._pytree.tree_leaves(value)[:leaves] for value in (first, second))
    for small, large in zip(*lanes, strict=True):
        if isinstance(small, Tensor) and (small.is_floating_point() or small.is_complex()):
            finite = small.isfinite() & large.isfinite()
            sizes = [value[finite].abs().double().pow(2).sum().sqrt().item() for value in (small, large)]
            if min(sizes) > 0:
                powers.append(math.log(sizes[1] / sizes[0]) / ratio)
            if apart and abs(powers[-1]) < CARRIES:
                each = ((large.abs() / small.abs()).log() / ratio)[finite & (small != 0) & (large != 0)]
                moved = each[each.abs() >= CARRIES]
                if moved.numel() > each.numel() / 4:
                    low, middle, high = moved.quantile(moved.new_tensor([0.25, 0.5, 0.75])).tolist()
                    powers += [middle] if high - low < CARRIES / 3 else []
    return max(powers, key=abs)


def scaled(value: Any, factor: float) -> Any:
    """A tensor, or several, times a factor."""
    return torch.utils._pytree.tree_map(lambda each: each * factor if isinstance(each, Tensor) else each, value)


def noisy(value: Any, scaled: Any) -> Any:
    """A value with other numbers where another differs from it."""

    def changed(a: Any, b: Any) -> Any:
        if not isinstance(a, torch.Tensor) or not a.is_floating_point():
            return a
        noise = torch.rand(a.shape, generator=torch.Generator().manual_seed(0), dtype=a.dtype).to(a.device) - 0.5
        return torch.where(a == b, a, -a + noise * a.abs().mean())

    return torch.utils._pytree.tree_map(changed, value, scaled)


def same(value: Any, other: Any, leaves: int | None = None, alike: float = ALIKE) -> bool:
    """Whether an op made the same numbers twice, in the first few of its outputs."""
    pairs = zip(*(torch.utils._pytree.tree_leaves(each)[:leaves] for each in (value, other)), strict=True)
    return all(
        largest(b - a) <= alike * largest(a) if a.is_floating_point() or a.is_complex() else torch.equal(a, b)
        for a, b in pairs
        if isinstance(a, Tensor)
    )


def first(value: Any) -> Tensor:
    """The first tensor that an op makes, an empty one where that holds no floating point numbers."""
    leaf = next((each for each in torch.utils._pytree.tree_leaves(value) if isinstance(each, Tensor)), None)
    return leaf if leaf is not None and (leaf.is_floating_point() or leaf.is_complex()) else torch.empty(0)


def changes_alike(change: Tensor) -> bool | None:
    """Whether one number changed, or several alike; None where none did."""
    if not largest(change):
        return None
    moved = change[change.abs() > ALIKE * largest(change)]
    return moved.numel() <= 1 or largest(moved - moved.mean()) <= ALIKE * largest(moved)


def largest(value: Tensor) -> float:
    """The largest number of a tensor."""
    return value.abs().max().item() if value.numel() else 0.0


def spread(numel: int) -> Sequence[int]:
    """Positions all over a tensor."""
    return sorted({(2 * i + 1) * numel // (2 * PROBED) for i in range(PROBED)}) if numel else ()
