"""Random residual networks whose roles are known because of how they are put together."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hf_gammareg import Role, find_gammas

WIDTH = 4
NETWORKS, EXAMPLES = 14, 36
"""Networks that are traced together, side by side, and how often: 504 networks."""


def linear(count: int = 1) -> nn.Module:
    """Linear layers with ReLU between."""
    layers = [layer for _ in range(count) for layer in (nn.ReLU(), nn.Linear(WIDTH, WIDTH))]
    return nn.Sequential(*layers[1:])


class Block(nn.Module):
    """A part of a network. It takes the stream and a condition."""

    own: ClassVar[dict[str, str]] = {}
    """Roles of its norms that what follows can't change, or makes more protective only."""
    below: ClassVar[str | None] = "trunk"
    """What becomes of a factor on its input: a role, or None where its output carries it."""
    leaves: ClassVar[tuple[str, ...]] = ()
    """Its norms whose factor its output carries."""

    def __init__(self, depth: int):
        super().__init__()
        self.f, self.g, self.p = linear(depth), linear(depth + 1), linear()
        for name in {*self.own, *self.leaves}:
            setattr(self, name, nn.LayerNorm(WIDTH))


class PreNorm(Block):
    own: ClassVar = {"n": "last"}

    def forward(self, x, t):
        return x + F.dropout(self.f(self.n(x)), 0.1)


class BranchEnd(Block):
    own: ClassVar = {"n1": "absorbed", "n2": "last"}

    def forward(self, x, t):
        return self.n2(self.f(self.n1(x))) + x


class BranchEndAlone(Block):
    own: ClassVar = {"n": "last"}

    def forward(self, x, t):
        return F.relu(x) + self.n(self.f(F.relu(x)))


class PostNorm(Block):
    below, leaves = "absorbed", ("n",)

    def forward(self, x, t):
        return self.n(x + self.f(x))


class PostNormAndBranchEnd(Block):
    own: ClassVar = {"n2": "last"}
    leaves = ("n",)

    def forward(self, x, t):
        return self.n(x + self.n2(self.f(x)))


class Projection(Block):
    own: ClassVar = {"n1": "shortcut", "n2": "last"}
    below = "absorbed"

    def forward(self, x, t):
        return self.n1(self.p(x)) + self.n2(self.g(x))


class BareProjection(Block):
    own: ClassVar = {"n": "last"}

    def forward(self, x, t):
        return self.p(x) + self.g(self.n(x))


class BareProjectionBareBranch(Block):
    below = None

    def forward(self, x, t):
        return self.p(x) + self.g(x)


class ConditionedProjection(Block):
    """A condition for many positions, added inside the branch, leaves the projection one."""

    own: ClassVar = {"n1": "shortcut", "n2": "absorbed", "n3": "last"}
    below = "absorbed"

    def forward(self, x, t):
        return self.n1(self.p(x)) + self.n3(self.g(self.n2(self.f(x)) + t.mean(0, keepdim=True)))


class GatedSkip(Block):
    own: ClassVar = {"n": "last"}

    def forward(self, x, t):
        return torch.sigmoid(self.g(x)) * x + self.f(self.n(x))


class Highway(Block):
    own: ClassVar = {"n": "last"}

    def forward(self, x, t):
        gate = torch.sigmoid(self.g(x))
        return (1 - gate) * x + gate * self.n(self.f(x))


class ParallelBranches(Block):
    own: ClassVar = {"n1": "last", "n2": "last"}

    def forward(self, x, t):
        return x + F.dropout(self.p(self.n1(x)) + self.g(self.n2(x)), 0.1)


class SideBySide(Block):
    below, leaves = "absorbed", ("n1", "n2")

    def forward(self, x, t):
        return F.relu(self.n1(self.p(x))) + F.relu(self.n2(self.g(x)))


class Concatenated(Block):
    below, leaves = "absorbed", ("n1", "n2")

    def forward(self, x, t):
        return torch.cat([F.relu(self.n1(self.p(x)))[:, :2], F.relu(self.n2(self.f(x)))[:, 2:]], 1)


class Plain(Block):
    below, leaves = "absorbed", ("n",)

    def forward(self, x, t):
        return F.relu(self.n(self.f(x)))


class Conditioned(Plain):
    def forward(self, x, t):
        return F.relu(self.n(self.f(x)) + t)


class ConditionedByProjection(Plain):
    def forward(self, x, t):
        return F.relu(self.n(self.f(x)) + self.p(t))


class SqueezeExcite(Block):
    own: ClassVar = {"n1": "last", "n2": "gate"}

    def forward(self, x, t):
        y = self.n1(x)
        return x + self.f(y) * torch.sigmoid(self.p(self.n2(self.g(y))))


class GateOfASum(Block):
    """Attention U-Net: a sum that only a gate reads."""

    own: ClassVar = {"n1": "gate", "n2": "gate"}
    below, leaves = "absorbed", ("n",)

    def forward(self, x, t):
        y = self.f(x).relu()
        gate = torch.sigmoid((self.n1(self.p(x)) + self.n2(self.g(y))).relu())
        return self.n(self.g(y * gate))


class SkipOutputs(Block):
    """WaveNet: what a stream's layers hand to a sum beside it."""

    own: ClassVar = {"n1": "last"}
    leaves = ("n1", "n2")

    def forward(self, x, t):
        first = self.n1(self.p(x))
        second = self.n2(self.g(x + self.f(first)))
        return self.f(first) + self.f(second)


KINDS = Block.__subclasses__() + Plain.__subclasses__()


class Network(nn.Module):
    """A stem, blocks, and a head; `expected` holds the roles."""

    def __init__(self, kinds: list[tuple[type[Block], int]], stem: bool, final: bool):
        super().__init__()
        self.enter, self.head, self.time = linear(), linear(), linear()
        self.stem = nn.LayerNorm(WIDTH) if stem else nn.Identity()
        self.blocks = nn.ModuleList(kind(depth) for kind, depth in kinds)
        self.final = nn.LayerNorm(WIDTH) if final else nn.Identity()
        carried = {"stem"} if stem else set()
        self.expected: dict[str, str] = {}
        for i, block in enumerate(self.blocks):
            if block.below:
                self.settle(carried, block.below)
                carried = set()
            for name, role in block.own.items():
                self.settle({f"blocks.{i}.{name}"}, role)
            carried |= {f"blocks.{i}.{name}" for name in block.leaves}
        self.settle(carried, "absorbed" if final else "final")
        self.settle({"final"} if final else set(), "final")

    def settle(self, names: set[str], role: str) -> None:
        for name in names:
            roles = {role, self.expected.get(name, role)}
            self.expected[name] = min(roles, key=lambda each: Role(each).protection)

    def forward(self, x, t):
        x, t = self.stem(self.enter(x)), F.silu(self.time(t))
        for block in self.blocks:
            x = block(x, t)
        return self.head(self.final(x))


class SideBySideNetworks(nn.Module):
    """Networks traced at once."""

    def __init__(self, networks):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x, t):
        return [network(x, t) for network in self.networks]


BLOCKS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 2)), min_size=1, max_size=3)
RECIPES = st.tuples(BLOCKS, st.booleans(), st.booleans())


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(recipes=st.lists(RECIPES, min_size=NETWORKS, max_size=NETWORKS))
def test_roles_are_those_of_the_construction(recipes):
    networks = [Network(*recipe) for recipe in recipes]
    found = find_gammas(SideBySideNetworks(networks), (torch.zeros(3, WIDTH), torch.zeros(3, WIDTH)))
    for i, (recipe, network) in enumerate(zip(recipes, networks, strict=True)):
        here = {f"networks.{i}.{name}.weight": role for name, role in network.expected.items()}
        roles = {name: str(found[name].role) for name in here}
        assert roles == here, recipe


def test_the_construction_knows_every_role_but_unknown():
    said = {role for kind in KINDS for role in (*kind.own.values(), kind.below)} - {None}
    assert said == {str(role) for role in Role} - {"final", "unknown"}
