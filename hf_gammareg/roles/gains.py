"""Gains found by numbers: parameters that multiply what has no size of its own, whatever the ops are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import fx

from hf_gammareg.graph.rows import Effect
from hf_gammareg.roles.rerun import FACTORS, Rerun, first, noisy, same, scaled

SEARCHED = 16
"""How many ops below a parameter, and above each, to look for a norm that it is the gain of."""
TOLERANCE = 1e-4
"""Relative difference of what a norm makes of a value and of a large multiple of it."""


class Gains:
    """What parameters multiply, in one forward pass.

    Args:
        run: the pass.
        names: of all parameters of the model.
    """

    def __init__(self, run: Rerun, names: Collection[str]) -> None:
        self.run, self.names = run, names

    def place(self, name: str) -> str | None:
        """The module in which a parameter is a gain, None where it is none.

        What it multiplies is the same numbers however large a value above it is, and other numbers for other values.
        """
        held = self.factors(name)
        for step in self._reached(held):
            if self._multiplies(held, step) and any(
                self._is_normalised(held, step, above) for above in self._simply_above(step)
            ):
                node = self.run.nodes.get(step.name)
                return node.module if node else ""
        return None

    def factors(self, name: str) -> list[str]:
        """A parameter, or what is made of it, as activations meet it."""
        made, found = set(self.run.replay.parameters[name]), dict[str, None]()
        for step in self.run.replay.steps:
            read = [node.name for node in step.all_input_nodes if node.name in made]
            if step.name in self.run.live:
                found |= dict.fromkeys(read)
            elif read:
                made.add(step.name)
        return list(found)

    def _reached(self, held: Sequence[str]) -> list[fx.Node]:
        """Where a factor arrives without a weight layer on the way, other than in such a layer's weight."""
        made = set(held)
        found = []
        for step in self.run.replay.steps:
            if made.isdisjoint(node.name for node in step.all_input_nodes) or self._is_layer(step):
                continue
            live = step.name in self.run.live
            if live and self._widens(step):
                continue  # a weight layer written out
            made.add(step.name)
            found += [step] if live else []
            if len(found) == SEARCHED:
                break
        return found

    def _simply_above(self, step: fx.Node) -> list[str]:
        """The values that an op's come from without a weight layer on the way, the nearest first."""
        found, stack = {step.name}, [step]
        while stack and len(found) <= SEARCHED:
            for read in stack.pop(0).all_input_nodes:
                if read.name not in found and first(self.run.values.get(read.name)).numel() > 1:
                    found.add(read.name)
                    above = self.run.steps.get(read.name)
                    stack += [above] if above is not None and not self._is_layer(above) else []
        return sorted(found - {step.name}, key=self.run.place.__getitem__, reverse=True)

    def _widens(self, step: fx.Node) -> bool:
        """Whether it makes several numbers of each that there were."""
        sizes = (first(self.run.values[name]).numel() for name in self._simply_above(step) if name not in self._weights)
        return first(self.run.values[step.name]).numel() > max(sizes, default=0)

    def _all_through(self, step: fx.Node, name: str) -> bool:
        """Whether all activations that an op's come from without a weight layer on the way come through one of them."""
        stack, seen = [step.name], {step.name, name}
        while stack:
            above = self.run.steps.get(stack.pop())
            if above is None or (self._is_layer(above) and above is not step):
                return False
            read = [node.name for node in above.all_input_nodes if node.name in self.run.live]
            stack += [other for other in read if other not in seen]
            seen.update(read)
        return True

    def _is_layer(self, step: fx.Node) -> bool:
        return self.run.effect(step.name, Effect.MIX)

    def _is_normalised(self, held: Sequence[str], at: fx.Node, above: str) -> bool:
        """Whether what a parameter multiplies in an op has no size of its own: that of a value above doesn't matter."""
        value = self.run.values[above]
        if above in held or not self._all_through(at, above):
            return False
        between = self.run.between(above, at.name)
        others = {node.name for step in between for node in step.all_input_nodes} & self._weights - {above, *held}
        others_noisy = {name: noisy(self.run.values[name], scaled(self.run.values[name], 0.0)) for name in others}
        small, large, twice, plain = (
            self._part(held, at, {above: scaled(value, factor), **changed})
            for factor, changed in zip((*FACTORS, 2.0, 1.0), (others_noisy, {}, {}, {}), strict=True)
        )
        other = self._part(held, at, {above: noisy(value, scaled(value, 0.0))})
        steady = same(small, large, alike=TOLERANCE) and same(plain, twice, alike=TOLERANCE**0.5)
        return steady and not same(plain, other, alike=TOLERANCE**0.5)

    @cached_property
    def _weights(self) -> frozenset[str]:
        """Parameters, and what is made of them alone."""
        made = {name for parameter in self.names for name in self.run.replay.parameters.get(parameter, ())}
        for step in self.run.replay.steps:
            read = [node.name for node in step.all_input_nodes]
            if read and made.issuperset(read):
                made.add(step.name)
        return frozenset(made)

    def _multiplies(self, held: Sequence[str], at: fx.Node) -> bool:
        """Whether a parameter is a factor in an op, of numbers that aren't all the same."""
        part, more = self._part(held, at, {}), self._part(held, at, {}, to=2.0)
        return part.numel() > 1 and not same(part, part.mean().expand_as(part)) and same(2 * part, more)

    def _part(self, held: Sequence[str], at: fx.Node, changed: Mapping[str, Any], to: float = 1.0) -> torch.Tensor:
        """What a parameter multiplies in an op: what changes in it as the parameter goes from 0 to 1."""
        ends = []
        for number in (0.0, to):
            lane = {**changed, **{name: torch.full_like(self.run.values[name], number) for name in held}}
            ends.append(first(self.run.rerun(lane, at.name)))
        return ends[1] - ends[0]
