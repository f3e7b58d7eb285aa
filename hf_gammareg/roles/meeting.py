"""Where activations meet in a sum, found by numbers: which side is the stream that blocks add to.

The same definition as in `hf_gammareg.roles.residual`, and none of its code: what an op does is seen by running it on
changed values, whatever the op is called. A side *passes* a value on if one changed number of it changes one number of
the side, or several alike; a side is *odd* in a value if it turns its sign with it (no activation function lies
between); what stays bounded however large its input becomes only *steers*.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from hf_gammareg.graph.replay import Replay, call
from hf_gammareg.graph.rows import Effect
from hf_gammareg.roles.rerun import ALIKE, CARRIES, FACTORS, Rerun, changes_alike, first, largest, power, scaled, spread


class Meetings(Rerun):
    """The sums of one forward pass, by numbers."""

    def __init__(self, replay: Replay, values: dict[str, Any]) -> None:
        super().__init__(replay, values)
        self.streams: dict[str, int] = {}
        """By name: all that a value comes from other than through what only steers it."""
        for name in self.place:
            bits = 0
            for read in self.unsteered(self.steps[name]) if name in self.steps else ():
                bits |= self.streams[read] | 1 << self.place[read]
            self.streams[name] = bits
        self._skips: dict[str, str | None] = {}

    def meet(self, step: fx.Node, carrying: Collection[str]) -> bool:
        """Whether an op adds what carries a factor to another activation that doesn't, at the same positions."""
        read = self.unsteered(step)
        if len(read) == 1:
            joined = self.steps.get(read[0])
            if not joined or not self.joins(joined) or not self.passes_in(step, joined.name):
                return False
            parts = self.read(joined)
            return 0 < sum(part in carrying for part in parts) < len(parts)
        mine = [name for name in read if name in carrying]
        rest = [name for name in read if name not in carrying]
        if not rest or not mine:
            return False
        both, without, alone, none = (
            self.run(step, {name: scaled(self.values[name], 0.0) for name in left})
            for left in ([], mine, rest, [*mine, *rest])
        )
        if not isinstance(both, Tensor) or not both.is_floating_point():
            return False
        ours, theirs = alone - none, without - none
        size = max(largest(both), largest(ours), largest(theirs))
        added = largest(both - without - ours) <= ALIKE * size and min(largest(ours), largest(theirs)) > 0
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
        return bool(self._settles & self.below[name])

    # --- which side is the skip ----------------------------------------------------------------------------------

    def _found(self, step: fx.Node) -> str | None:
        sides = self._sides(step)
        total = first(self.values[step.name])
        if len(sides) < 2 or total.ndim < 2 or not self._passed_on(step.name):
            return None
        full = [side for side in sides if self._fills(side, total)]
        streams = [side for side in full if any(self._is_stream(side, other) for other in sides if other != side)]
        for side in streams:
            # A stream may hold what is added to it once more.
            if not any(side != held and self._comes(side, held) and self._passes(side, held) for held in streams):
                return side
        return self._projection(sides, full) or self._end(sides, full)

    def _is_stream(self, side: str, other: str) -> bool:
        """Whether a side is what the other branches off from, passed on."""
        base = self._base(side, other)
        passed = base and self._mixes(base, other) and self._passes(base, side)
        return bool(base and passed and not self._added(base, other))

    def _comes(self, base: str, name: str) -> bool:
        return bool(self.streams[name] >> self.place[base] & 1)

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
        if side == base:
            return True
        at = first(self.values[base]) * FACTORS[1]
        before = self._from(base, at, side)
        depends = False
        for index in spread(at.numel()):
            changed = at.clone(memory_format=torch.contiguous_format)
            changed.view(-1)[index] = changed.abs().max() * 2 + 1
            alike = changes_alike(self._from(base, changed, side) - before)
            if alike is False:
                return False
            depends |= alike is not None
        return depends

    def _mixes(self, base: str, other: str) -> bool:
        """Whether it comes from a value by way of something that mixes positions or channels."""
        past = self.streams[other] & ~self.above[base] | 1 << self.place[other]
        below = self.below[base]
        mixing = (
            n for n in self.steps if past & below & 1 << self.place[n] and self.effect(n, Effect.MIX, Effect.POOL)
        )
        return any(mixing)

    def _odd(self, base: str, side: str) -> bool:
        """Whether it turns its sign with a value, constants apart."""
        at = first(self.values[base]) * FACTORS[1]
        other = at.flip(0) * (1 + torch.arange(at.numel(), dtype=at.dtype).view(at.shape) % 7 / 7)
        sums = [self._from(base, value, side) + self._from(base, -value, side) for value in (at, other)]
        return largest(sums[0] - sums[1]) <= 1e-2 * largest(self._from(base, at, side)) > 0

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
        read = self.unsteered(step)
        if len(read) > 1:
            read = [name for name in read if not self.steers(step, name)]
        size = self.numel(step.name)
        return [name for name in read if self.numel(name) >= size] or read

    def _passed_on(self, name: str) -> bool:
        """Whether the outputs depend on a value other than through what only steers."""
        stack, seen = [name], {name}
        while stack:
            top = stack.pop()
            if top in self.outputs:
                return True
            for step in self.users[top]:
                if step.name not in seen and not self._steering(step, top):
                    seen.add(step.name)
                    stack.append(step.name)
        return False

    def _steering(self, step: fx.Node, name: str) -> bool:
        """Whether it reads a value beside others, and only to be steered by it."""
        others = [other for other in self.read(step) if other != name]
        if not others or not self.effect(step.name, Effect.PRODUCT, Effect.MIX):
            return False
        return (name in self.bounded and not self.bounded.issuperset(others)) or self.steers(step, name)

    # --- the shape of a sum --------------------------------------------------------------------------------------

    def _whole(self, step: fx.Node) -> fx.Node:
        """The last sum of the chain that a sum belongs to."""
        top = step
        while len(users := self.users[top.name]) == 1 and users[0].name in self.live:
            top = users[0]
            if self._adds(top):
                step = top
            elif not self.goes_through(top):
                break
        return step

    def _sides(self, step: fx.Node) -> tuple[str, ...]:
        """What a chain of sums adds up."""
        sides: list[str] = []
        stack = [step]
        while stack:
            read = self.unsteered(stack.pop())
            for name in read:
                inner = self._inside(name, joined=len(read) == 1)
                if inner is None:
                    sides.append(name)
                else:
                    stack.append(inner)
        return tuple(sorted(dict.fromkeys(sides), key=self.place.__getitem__))

    def _inside(self, name: str, joined: bool) -> fx.Node | None:
        """The sum that a side of another is, passed on to it alone; of a side read alone, what lies side by side."""
        while (step := self.steps.get(name)) and len(self.users[name]) == 1:
            if self._adds(step) or (joined and self.joins(step)):
                return step
            if not self.goes_through(step):
                return None
            name = self.unsteered(step)[0]
        return None

    def _adds(self, step: fx.Node) -> bool:
        """Whether it adds up several activations."""
        read = self.unsteered(step)
        return len(read) > 1 and not self.joins(step) and self.meet(step, read[:1])

    def _fills(self, side: str, total: Tensor) -> bool:
        """Whether it has a number for each position of the sum, or of one example of it."""
        value = first(self.values[side])
        return value.numel() == total.numel() or value.shape in (total.shape[1:], total[:1].shape)

    # --- running -------------------------------------------------------------------------------------------------

    def _from(self, base: str, value: Tensor, side: str) -> Tensor:
        """What a side becomes where a value is another and what steers stays as it is."""
        return first(self.rerun({base: value}, side, still=self.bounded))

    @cached_property
    def _mixing(self) -> int:
        return sum(1 << self.place[name] for name in self.steps if self.effect(name, Effect.MIX, Effect.POOL))

    @cached_property
    def _settles(self) -> int:
        settling = [
            name
            for name, step in self.steps.items()
            if self.effect(name, Effect.NORM) or (len(self.read(step)) > 1 and not self.joins(step))
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
