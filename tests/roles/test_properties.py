"""What must not matter: names, order, wrapping. And any chain of blocks agrees with rule and numbers."""

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scaling import Doubling
from tiny import NETWORKS, Tiny, build, conv, image, roles_of
from tiny.sums import SPELLED, Respelled
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hf_gammareg import find_gammas

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def shuffled_names(model: nn.Module, chance: random.Random) -> None:
    """Swap the names of modules, so that `bn1` is called `down_` and `fc` `norm_`; forwards still find them."""
    for module in list(model.modules()):
        base = type(module)
        if base.__module__.startswith("torch.") or not module._modules:
            continue
        names = list(module._modules)
        mapping = {name: f"{other}_" for name, other in zip(names, chance.sample(names, len(names)), strict=True)}

        def look_up(self, name, mapping=mapping, base=base):
            return self._modules[mapping[name]] if name in mapping else base.__getattr__(self, name)

        module.__class__ = type(base.__name__, (base,), {"__getattr__": look_up})
        module._modules = {mapping[name]: child for name, child in module._modules.items()}


def shuffled_order(model: nn.Module, chance: random.Random) -> None:
    """Register modules and parameters in another order."""
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            continue
        for held in ("_modules", "_parameters"):
            items = list(getattr(module, held).items())
            setattr(module, held, dict(chance.sample(items, len(items))))


class Wrapped(nn.Module):
    """What nn.Sequential is, for several inputs."""

    def __init__(self, model):
        super().__init__()
        self.module = model

    def forward(self, *inputs):
        return self.module(*inputs)


def said(gamma):
    """All that a record says but the name and the reason, which holds names."""
    return {k: v for k, v in dataclasses.asdict(gamma).items() if k not in ("name", "reason")}


@pytest.mark.slow
@SETTINGS
@given(
    network=st.sampled_from(NETWORKS),
    names=st.booleans(),
    order=st.booleans(),
    wraps=st.integers(0, 2),
    chance=st.randoms(use_true_random=False),
)
def test_names_order_and_wrapping_do_not_matter(network, names, order, wraps, chance):
    model = build(network)
    original = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
    expected = {id(dict(model.named_parameters())[gamma.name]): said(gamma) for gamma in roles_of(network)}
    if names:
        shuffled_names(model, chance)
    if order:
        shuffled_order(model, chance)
    for _ in range(wraps):
        model = nn.Sequential(model) if len(network.takes) == 1 else Wrapped(model)
    found = find_gammas(model, network.takes)
    parameters = dict(model.named_parameters())
    assert list(found.names) == [name for name in parameters if name in found]
    assert {original[id(parameters[gamma.name])]: said(gamma) for gamma in found} == {
        original[held]: record for held, record in expected.items()
    }


SUMMING = [network for network in NETWORKS if network.__module__ in ("tiny.residual", "tiny.parallel")][:8]


@pytest.mark.slow
@pytest.mark.parametrize("how", SPELLED)
def test_a_sum_is_a_sum_however_it_is_written(how):
    a, b = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(SPELLED[how](a, b), a + b)
    times = 0
    for network in SUMMING:
        with Respelled(SPELLED[how]) as mode:
            found = find_gammas(build(network), network.takes)
        times += mode.times
        expected = {gamma.name: said(gamma) for gamma in roles_of(network)}
        assert {gamma.name: said(gamma) for gamma in found} == expected, network
    assert times > 5


class Checkpointed(Wrapped):
    """What is computed twice to save memory."""

    def forward(self, *inputs):
        return checkpoint(self.module, *inputs, use_reentrant=False)


@pytest.mark.parametrize("wrap", [torch.compile, Checkpointed])
def test_how_a_model_is_run_does_not_matter(wrap):
    for network in SUMMING[:4]:
        found = find_gammas(wrap(build(network)), network.takes)
        assert [said(gamma) for gamma in found] == [said(gamma) for gamma in roles_of(network)]


class Block(nn.Module):
    """Blocks of 6 channels; `own` holds the roles that do not depend on what follows."""

    own: dict[str, str] = {}  # noqa: RUF012


class Plain(Block):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = conv(6, 6), nn.BatchNorm2d(6)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Identity(Block):
    own = {"bn1": "absorbed", "bn2": "last"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = conv(6, 6), nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6)

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


class Projection(Identity):
    own = {"bn1": "absorbed", "bn2": "last", "bn3": "shortcut"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.down, self.bn3 = conv(6, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x):
        return F.relu(self.bn3(self.down(x)) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class PreActivation(Block):
    own = {"bn1": "absorbed", "bn2": "last"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.bn1, self.conv1, self.bn2, self.conv2 = nn.BatchNorm2d(6), conv(6, 6), nn.BatchNorm2d(6), conv(6, 6)

    def forward(self, x):
        return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class Parallel(Block):
    def __init__(self):
        super().__init__()
        self.dense, self.bn1, self.point, self.bn2 = conv(6, 6), nn.BatchNorm2d(6), conv(6, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x):
        return F.relu(self.bn1(self.dense(x)) + self.bn2(self.point(x)))


class Concatenated(Block):
    def __init__(self):
        super().__init__()
        self.dense, self.bn1, self.point, self.bn2 = conv(6, 3), nn.BatchNorm2d(3), conv(6, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return F.relu(torch.cat([self.bn1(self.dense(x)), self.bn2(self.point(x))], 1))


class Chain(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.stem, self.blocks, self.fc = conv(3, 6), nn.Sequential(*(block() for block in blocks)), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def ruled(blocks):
    """The roles by rule: a norm at the end of a block without skip meets what comes next."""
    roles = {}
    for place, block in enumerate(blocks):
        after = blocks[place + 1] if place + 1 < len(blocks) else None
        meets = "final" if after is None else "trunk" if after in (Identity, PreActivation) else "absorbed"
        for name, module in block().named_modules():
            if isinstance(module, nn.BatchNorm2d):
                roles[f"blocks.{place}.{name}.weight"] = block.own.get(name, meets)
    return roles


@pytest.mark.slow
@settings(SETTINGS, max_examples=25)
@given(st.lists(st.sampled_from([Plain, Identity, Projection, PreActivation, Parallel, Concatenated]), max_size=4))
def test_chains_of_blocks_agree_with_rule_and_numbers(blocks):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Chain(blocks)
    gammas = find_gammas(model, image())
    assert {gamma.name: str(gamma.role) for gamma in gammas} == ruled(blocks)
    doubling = Doubling(model, (image(),), gammas)
    for gamma in gammas:
        moved = doubling.moved(gamma)
        if gamma.role == "absorbed":
            assert moved <= 1e-4 if gamma.exact else moved > 1e-3, (gamma.name, moved)
        else:
            assert moved > 0.01, (gamma.name, moved)


def test_shuffling_names_does_shuffle():
    """The property above would hold for nothing if the names stayed."""
    network = next(network for network in NETWORKS if network.__name__ == "StemBeforeProjection")
    model = build(network)
    before = model(image())
    shuffled_names(model, random.Random(0))
    names, others = ([name for name, _ in m.named_children()] for m in (model, build(network)))
    assert sorted(names) == sorted(f"{name}_" for name in others)
    assert names != [f"{name}_" for name in others]
    assert [type(child) for child in model.children()] == [type(child) for child in build(network).children()]
    assert torch.equal(before, model(image()))
    assert isinstance(model, Tiny)
