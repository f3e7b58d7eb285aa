"""Where activations meet in a sum, found by numbers: which side is the stream that blocks add to.

The same definition as in `hf_gammareg.roles.residual`, and none of its code: what an op does is seen by running it on
changed values, whatever the op is called. A side *passes* a value on if one changed number of it changes one number of
the side, or several alike; a side is *odd* in a value if it turns its sign with it (no activation function lies
between); what stays bounded however large its input becomes only *steers*.
"""

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


class Meetings:
    """The sums of one forward pass, by numbers.

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
        self.streams: dict[str, int] = {}
        """By name: all that a value comes from other than through what only steers it."""
        for name in self.place:
            bits = 0
            for read in self._unsteered(self.steps[name]) if name in self.steps else ():
                bits |= self.streams[read] | 1 << self.place[read]
            self.streams[name] = bits
        self._skips: dict[str, str | None] = {}

    def meet(self, step: fx.Node, carrying: Collection[str]) -> bool:
        """Whether an op adds what carries a factor to another activation that doesn't, at the same positions."""
        read = self._unsteered(step)
        if len(read) == 1:
            joined = self.steps.get(read[0])
            if not joined or not self._joins(joined) or not self._passes_in(step, joined.name):
                return False
            parts = self.read(joined)
            return 0 < sum(part in carrying for part in parts) < len(parts)
        mine = [name for name in read if name in carrying]
        rest = [name for name in read if name not in carrying]
        if not rest or not mine:
            return False
        both, without, alone, none = (
            self._run(step, {name: scaled(self.values[name], 0.0) for name in left})
            for left in ([], mine, rest, [*mine, *rest])
        )
        if not isinstance(both, Tensor) or not both.is_floating_point():
            return False
        ours, theirs = alone - none, without - none
        size = max(_size(both), _size(ours), _size(theirs))
        added = _size(both - without - ours) <= ALIKE * size and min(_size(ours), _size(theirs)) > 0
        return added and bool(((ours != 0) & (theirs != 0)).any())

    def skip(self, step: fx.Node) -> str | None:
        """The side of a sum that is the stream, None where branches stand side by side."""
        whole = self._whole(step)
        if whole.name not in self._skips:
            self._skips[whole.name] = None  # a stream that ends in itself is none
            self._skips[whole.name] = self._found(whole)
        return self._skips[whole.name]

    def settled_after(self, name: str) -> bool:
        """Whether something after a value normalises, or puts two activations together."""
        return bool(self._settles & self._below[name])

    def read(self, step: fx.Node) -> list[str]:
        """The activations that an op reads."""
        return [node.name for node in step.all_input_nodes if node.name in self.live]

    # --- which side is the skip ----------------------------------------------------------------------------------

    def _found(self, step: fx.Node) -> str | None:
        sides = self._sides(step)
        total = first(self.values[step.name])
        if len(sides) < 2 or total.ndim < 2 or not self._passed_on(step.name):
            return None
        full = [side for side in sides if self._fills(side, total)]
        for side in full:
            for other in sides:
                base = self._base(side, other) if other != side else None
                if base and self._mixes(base, other) and self._passes(base, side) and not self._added(base, other):
                    return side
        return self._projection(sides, full) or self._end(sides, full)

    def _projection(self, sides: tuple[str, ...], full: Sequence[str]) -> str | None:
        """The side with the fewest weight layers below the point that all come from alone, if they project it."""
        base = self._base(*sides)
        if not base:
            return None
        least, next_, *_ = sorted(sides, key=lambda side: self._depth(base, side))
        if self._depth(base, least) == self._depth(base, next_) or least not in full:
            return None
        others = (side for side in sides if side != least)
        return least if self._projected(base, least) and all(self._only_from(base, side) for side in others) else None

    def _depth(self, base: str, side: str) -> int:
        """Weight layers on the longest way from a value to a side."""
        depths = {base: 0}
        for step in self.between(base, side):
            above = [depths[name] for name in self.read(step) if name in depths]
            depths[step.name] = max(above, default=0) + self.effect(step.name, Effect.MIX)
        return depths.get(side, 0)

    def _projected(self, base: str, side: str) -> bool:
        """Whether what bends lies above its weight layers only: it is odd in a value that comes without any."""
        line = list(self._line(side))
        line = line[: line.index(base) + 1] if base in line else [base]
        weightless = next((i for i, name in enumerate(reversed(line[:-1])) if self.effect(name, Effect.MIX)), len(line))
        return any(self._odd(name, side) for name in line[::-1][: weightless + 1] if name != side)

    def _end(self, sides: tuple[str, ...], full: Sequence[str]) -> str | None:
        """The only side that is the end of a stream, where all the others come through weight layers."""
        ends = [side for side in sides if self._ends_stream(side)]
        weighed = all(self._weighed(side) for side in sides if side not in ends)
        return ends[0] if len(ends) == 1 and weighed and ends[0] in full else None

    def _ends_stream(self, side: str) -> bool:
        for name in self._line(side):
            step = self.steps.get(name)
            if step is None or self.effect(name, Effect.MIX):
                return False
            if len(self._passed_by(step)) > 1:
                return self._adds(step) and self.skip(step) is not None
        return False

    def _weighed(self, side: str) -> bool:
        return any(self.effect(name, Effect.MIX) for name in self._line(side))

    def _line(self, name: str) -> Iterable[str]:
        """A value and what alone it comes from, up to where several are put together."""
        yield name
        while step := self.steps.get(name):
            above = self._passed_by(step)
            if len(above) != 1:
                return
            name = above[0]
            yield name

    def _base(self, *sides: str) -> str | None:
        """The last tensor that all sides come from, or are."""
        common = ~0
        for side in sides:
            common &= self.streams[side] | 1 << self.place[side]
        names = (name for name in reversed(self.place) if common >> self.place[name] & 1)
        tensors = (name for name in names if isinstance(self.values[name], Tensor))
        return next((name for name in tensors if name in self.live or name in sides), None)

    # --- what a value does to another ----------------------------------------------------------------------------

    def _passes(self, base: str, side: str) -> bool:
        """Whether a side is a value, moved, averaged, weighted or gated: one changed number of it changes one number,
        or several alike."""
        return side == base or self._seen(base, side)[0]

    def _mixes(self, base: str, other: str) -> bool:
        """Whether it comes from a value by way of something that mixes positions or channels."""
        past = self.streams[other] & ~self.above[base] | 1 << self.place[other]
        below = self._below[base]
        mixing = (
            n for n in self.steps if past & below & 1 << self.place[n] and self.effect(n, Effect.MIX, Effect.POOL)
        )
        return any(mixing)

    def _seen(self, base: str, side: str) -> tuple[bool, bool]:
        """Whether it passes on a value, and whether it depends on it."""
        at = first(self.values[base]) * FACTORS[1]
        before = self._from(base, at, side)
        passed, depends = True, False
        for index in _spread(at.numel()):
            changed = at.clone(memory_format=torch.contiguous_format)
            changed.view(-1)[index] = changed.abs().max() * 2 + 1
            moved = self._from(base, changed, side) - before
            moves = moved[moved.abs() > ALIKE * moved.abs().max()] if _size(moved) else moved[:0].reshape(-1)
            depends |= moves.numel() > 0
            alike = moves.numel() <= 1 or _size(moves - moves.mean()) <= ALIKE * _size(moves)
            passed &= alike
        return passed and depends, depends

    def _odd(self, base: str, side: str) -> bool:
        """Whether it turns its sign with a value, constants apart."""
        at = first(self.values[base]) * FACTORS[1]
        other = at.flip(0) * (1 + torch.arange(at.numel(), dtype=at.dtype).view(at.shape) % 7 / 7)
        sums = [self._from(base, value, side) + self._from(base, -value, side) for value in (at, other)]
        return _size(sums[0] - sums[1]) <= 1e-2 * _size(self._from(base, at, side)) > 0

    def _added(self, base: str, other: str) -> bool:
        """Whether a value comes to a side only as a condition: added, as it is or by weights, to what mixed before."""
        wanted = self.above[other] | 1 << self.place[other]
        plain = {base}
        lanes: list[dict[str, Any]] = [{base: scaled(self.values[base], factor)} for factor in FACTORS]
        for step in self.between(base, other):
            if plain.isdisjoint(node.name for node in step.all_input_nodes):
                continue
            found = [call(step, ChainMap(lane, self.values)) for lane in lanes]
            if abs(power(*found)) < CARRIES:
                if not isinstance(found[0], Tensor) or step.name not in self.live:
                    continue
                return False  # a norm, or what saturates, has it alone
            beside = [name for name in self.read(step) if name not in plain]
            beside = [name for name in beside if self.above[name] & self._mixing]
            if beside and self.meet(step, plain):
                continue
            if wanted >> self.place[step.name] & 1 and step.name == other:
                return False
            plain.add(step.name)
            for lane, value in zip(lanes, found, strict=True):
                lane[step.name] = value
        return True

    def _only_from(self, base: str, side: str) -> bool:
        """Whether all that a side passes on comes through a value, conditions for many positions apart."""
        stack, seen = [side], {base}
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            step = self.steps.get(name)
            above = self._passed_by(step) if step else []
            if self.above[base] >> self.place[name] & 1 or (not above and name in self._of_input):
                return False
            stack += above
        return True

    def _passed_by(self, step: fx.Node) -> list[str]:
        """The activations that an op passes on: none that only steer, beside large ones no small ones."""
        read = self._unsteered(step)
        if len(read) > 1:
            read = [name for name in read if not self._steers(step, name)]
        size = self._numel(step.name)
        return [name for name in read if self._numel(name) >= size] or read

    def _unsteered(self, step: fx.Node) -> list[str]:
        """The activations that an op reads, bounded ones beside others in a product apart."""
        read = self.read(step)
        if len(read) > 1 and self.effect(step.name, Effect.PRODUCT, Effect.MIX):
            return [name for name in read if name not in self.bounded] or read
        return read

    def _passed_on(self, name: str) -> bool:
        """Whether the outputs depend on a value other than through what only steers."""
        stack, seen = [name], {name}
        while stack:
            top = stack.pop()
            if top in self.outputs:
                return True
            for step in self._users[top]:
                if step.name not in seen and not self._steering(step, top):
                    seen.add(step.name)
                    stack.append(step.name)
        return False

    def _steering(self, step: fx.Node, name: str) -> bool:
        """Whether it reads a value beside others, and only to be steered by it."""
        others = [other for other in self.read(step) if other != name]
        if not others or not self.effect(step.name, Effect.PRODUCT, Effect.MIX):
            return False
        return (name in self.bounded and not self.bounded.issuperset(others)) or self._steers(step, name)

    def _steers(self, step: fx.Node, name: str) -> bool:
        """Whether what an op makes stays bounded however large one of its operands becomes."""
        made = [self._run(step, {name: scaled(self.values[name], factor)}) for factor in (2.0, *FACTORS)]
        return not same(self.values[step.name], made[0]) and abs(power(*made[1:])) < CARRIES

    # --- the shape of a sum --------------------------------------------------------------------------------------

    def _whole(self, step: fx.Node) -> fx.Node:
        """The last sum of the chain that a sum belongs to."""
        top = step
        while len(users := self._users[top.name]) == 1 and users[0].name in self.live:
            top = users[0]
            if self._adds(top):
                step = top
            elif not self._goes_through(top):
                break
        return step

    def _sides(self, step: fx.Node) -> tuple[str, ...]:
        """What a chain of sums adds up."""
        sides: list[str] = []
        stack = [step]
        while stack:
            read = self._unsteered(stack.pop())
            for name in read:
                inner = self._inside(name, joined=len(read) == 1)
                if inner is None:
                    sides.append(name)
                else:
                    stack.append(inner)
        return tuple(sorted(dict.fromkeys(sides), key=self.place.__getitem__))

    def _inside(self, name: str, joined: bool) -> fx.Node | None:
        """The sum that a side of another is, passed on to it alone; of a side read alone, what lies side by side."""
        while (step := self.steps.get(name)) and len(self._users[name]) == 1:
            if self._adds(step) or (joined and self._joins(step)):
                return step
            if not self._goes_through(step):
                return None
            name = self._unsteered(step)[0]
        return None

    def _goes_through(self, step: fx.Node) -> bool:
        """Whether it passes on the one activation that it reads, and lays nothing beside it."""
        above = self._unsteered(step)
        return len(above) == 1 and not self._joins(step) and self._passes_in(step, above[0])

    def _adds(self, step: fx.Node) -> bool:
        """Whether it adds up several activations."""
        read = self._unsteered(step)
        return len(read) > 1 and not self._joins(step) and self.meet(step, read[:1])

    def _joins(self, step: fx.Node) -> bool:
        return self.effect(step.name, Effect.JOIN)

    def _passes_in(self, step: fx.Node, name: str) -> bool:
        """Whether an op passes on one of its operands."""
        at, before = self.values[name], first(self.values[step.name])
        if not before.numel() or not isinstance(at, Tensor):
            return bool(before.numel())  # takes one out of several
        depends = False
        for index in _spread(at.numel()):
            shifts = []
            for sign in (1, -1):
                changed = at.clone(memory_format=torch.contiguous_format)
                changed.view(-1)[index] += sign * (_size(at) * 2 + 1)
                shifts.append(first(self._run(step, {name: changed})) - before)
            moves = shifts[0][shifts[0].abs() > ALIKE * shifts[0].abs().max()] if _size(shifts[0]) else None
            if moves is None:
                continue
            depends = True
            bends = _size(shifts[0] + shifts[1]) > ALIKE * _size(shifts[0])
            if bends or (moves.numel() > 1 and _size(moves - moves.mean()) > ALIKE * _size(moves)):
                return False
        return depends

    def _fills(self, side: str, total: Tensor) -> bool:
        """Whether it has a number for each position of the sum, or of one example of it."""
        value = first(self.values[side])
        return value.numel() == total.numel() or value.shape in (total.shape[1:], total[:1].shape)

    def effect(self, name: str, *effects: Effect) -> bool:
        """Whether the table says one of these effects of what made a value."""
        node = self.nodes.get(name)
        return node is not None and node.effect(*effects)

    def _numel(self, name: str) -> int:
        return first(self.values[name]).numel()

    # --- running -------------------------------------------------------------------------------------------------

    def _run(self, step: fx.Node, changed: Mapping[str, Any]) -> Any:
        return call(step, ChainMap(dict(changed), self.values))

    def _from(self, base: str, value: Tensor, side: str) -> Tensor:
        """What a side becomes where a value is another and what steers stays as it is."""
        return first(self.rerun({base: value}, side, still=self.bounded))

    def rerun(self, changed: Mapping[str, Any], name: str, still: Collection[str] = ()) -> Any:
        """What a value becomes where others are changed, and some stand still."""
        lane = dict(changed)
        view = ChainMap(lane, self.values)
        wanted = (self.above[name] | 1 << self.place[name]) & functools.reduce(or_, map(self._below.get, changed), 0)
        for step in self._at(wanted):
            if (
                step.name not in still
                and step.name not in changed
                and any(n.name in lane for n in step.all_input_nodes)
            ):
                lane[step.name] = call(step, view)
        return view[name]

    def between(self, base: str, side: str) -> Iterable[fx.Node]:
        """The ops on the ways from a value to another, the last included."""
        return self._at((self.above[side] | 1 << self.place[side]) & self._below[base])

    def _at(self, places: int) -> Iterable[fx.Node]:
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
            made = [self._run(step, {n: scaled(self.values[n], factor) for n in read}) for factor in (2.0, *FACTORS)]
            if not same(value, made[0]) and abs(power(*made[1:])) < CARRIES:
                found.add(name)
        return frozenset(found)

    @cached_property
    def _placed(self) -> dict[int, fx.Node]:
        return {self.place[name]: step for name, step in self.steps.items()}

    @cached_property
    def _users(self) -> dict[str, list[fx.Node]]:
        users: dict[str, list[fx.Node]] = {name: [] for name in self.place}
        for step in self.steps.values():
            for read in step.all_input_nodes:
                users[read.name].append(step)
        return users

    @cached_property
    def _below(self) -> dict[str, int]:
        """By name: all that comes from a value, as bits at their places."""
        below = dict.fromkeys(self.place, 0)
        for name in reversed(self.place):
            for step in self._users[name]:
                below[name] |= below[step.name] | 1 << self.place[step.name]
        return below

    @cached_property
    def _mixing(self) -> int:
        return sum(1 << self.place[name] for name in self.steps if self.effect(name, Effect.MIX, Effect.POOL))

    @cached_property
    def _settles(self) -> int:
        settling = [
            name
            for name, step in self.steps.items()
            if self.effect(name, Effect.NORM) or (len(self.read(step)) > 1 and not self._joins(step))
        ]
        return sum(1 << self.place[name] for name in settling)

    @cached_property
    def _of_input(self) -> set[str]:
        """Values that depend on what the model is given."""
        given = {name for name in self.place if name not in self.steps and self.nodes[name].op == "input"}
        for name, step in self.steps.items():
            if any(node.name in given for node in step.all_input_nodes):
                given.add(name)
        return given


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


def same(value: Any, other: Any, leaves: int | None = None, alike: float = ALIKE) -> bool:
    """Whether an op made the same numbers twice, in the first few of its outputs."""
    pairs = zip(*(torch.utils._pytree.tree_leaves(each)[:leaves] for each in (value, other)), strict=True)
    return all(
        _size(b - a) <= alike * _size(a) if a.is_floating_point() or a.is_complex() else torch.equal(a, b)
        for a, b in pairs
        if isinstance(a, Tensor)
    )


def first(value: Any) -> Tensor:
    """The first tensor that an op makes, an empty one where that holds no floating point numbers."""
    leaf = next((each for each in torch.utils._pytree.tree_leaves(value) if isinstance(each, Tensor)), None)
    return leaf if leaf is not None and (leaf.is_floating_point() or leaf.is_complex()) else torch.empty(0)


def _size(value: Tensor) -> float:
    """The largest number of a tensor."""
    return value.abs().max().item() if value.numel() else 0.0


def _spread(numel: int) -> Sequence[int]:
    """Positions all over a tensor."""
    return sorted({(2 * i + 1) * numel // (2 * PROBED) for i in range(PROBED)}) if numel else ()
