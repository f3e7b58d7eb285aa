"""One real run in place of an export: where it is taken, and what it leaves as it was."""

import random

import numpy
import pytest
import torch
from tiny import build, sequence
from tiny.recorded import (
    DropsByNumpy,
    DropsByRandom,
    FakeQuantised,
    PacksItsRows,
    ReturnsADataclass,
    Stream,
    TriesAnotherCall,
)
from torch import nn

from hf_gammareg import GammaRegError, find_gammas

RECORDED = "recorded run (train mode, one path)"


@pytest.mark.parametrize("network", [ReturnsADataclass, TriesAnotherCall, PacksItsRows], ids=lambda n: n.__name__)
def test_what_does_not_export_is_recorded(network):
    assert find_gammas(build(network), network.takes).source == RECORDED


class Asks(nn.Module):
    """A question to the data keeps a network from being exported."""

    def forward(self, x):
        return super().forward(x if x.sum() > 1e9 else x + 1)


def asking(network):
    """A network of this kind that is recorded."""
    return type(network.__name__, (Asks, network), {})


@pytest.mark.parametrize("network", [DropsByNumpy, DropsByRandom])
@pytest.mark.parametrize("recorded", [False, True])
def test_layers_dropped_by_chance_are_all_seen(network, recorded):
    model = build(asking(network) if recorded else network)
    for seed in range(5):
        random.seed(seed)
        numpy.random.seed(seed)
        before = random.getstate(), str(numpy.random.get_state(legacy=False))
        found = find_gammas(model, network.takes)
        assert found.source.startswith("recorded run" if recorded else "export")
        assert {gamma.name: str(gamma.role) for gamma in found} == network.expected
        assert (random.getstate(), str(numpy.random.get_state(legacy=False))) == before


@pytest.mark.parametrize("network", [Stream, FakeQuantised])
def test_a_recorded_run_finds_what_an_export_finds(network):
    exported, recorded = (find_gammas(build(kind), Stream.takes) for kind in (network, asking(network)))
    assert (exported.source, recorded.source) == ("export (train mode)", RECORDED)
    assert [(g.name, g.role, g.exact, g.reason) for g in recorded] == [
        (g.name, g.role, g.exact, g.reason) for g in exported
    ]


class WritesData(Stream):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(3))
        self.plain, self.grown = torch.ones(3), nn.Parameter(torch.ones(2))

    def forward(self, x):
        self.norm.weight.data.clamp_(max=0.5)
        self.embed.weight.data = self.embed.weight.data * 2
        self.grown.data = torch.ones(4)
        self.count.data += 1
        self.plain.mul_(3)
        self.plain[1:] = 7
        return super().forward(x + self.plain.sum())


@pytest.mark.parametrize("network", [WritesData, asking(WritesData)], ids=["exported", "recorded"])
def test_writes_past_autograd_leave_memory_as_it_was(network):
    model = build(network)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers()), "plain": model.plain}
    before = {name: (tensor.clone(), tensor.data_ptr(), tensor._version) for name, tensor in held.items()}
    found = find_gammas(model, network.takes)
    assert found.source == ("export (train mode)" if network is WritesData else RECORDED)
    assert {gamma.name: str(gamma.role) for gamma in found} == Stream.expected
    now = {**dict(model.named_parameters()), **dict(model.named_buffers()), "plain": model.plain}
    for name, (value, place, version) in before.items():
        assert now[name] is held[name]
        assert torch.equal(held[name], value)
        assert (held[name].data_ptr(), held[name]._version) == (place, version)


class WritesNumbers(Stream):
    def forward(self, x):
        for column in range(8):
            x = x + x.mean()
            x[..., column] = float(column)
        return super().forward(x)


def test_numbers_that_take_the_place_of_freed_memory_are_no_hole():
    assert find_gammas(build(asking(WritesNumbers)), Stream.takes).source == RECORDED


class WritesIntegers(nn.Module):
    """Replaces its padding tokens in place, on a path that the data choose."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.fc = nn.Embedding(10, 8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, ids, x):
        ids[ids == 0] = 7
        ids += 1
        return self.fc(self.norm(self.embed(ids) + (x if x.sum() > 1e9 else x + 1)))


def test_integer_inputs_are_not_written_over():
    ids = torch.tensor([[0, 3, 0], [1, 0, 2]])
    before, version = ids.clone(), ids._version
    assert find_gammas(WritesIntegers(), (ids, sequence(3)[:2])).source == RECORDED
    assert torch.equal(ids, before)
    assert ids._version == version


class MakesTensors(Stream):
    def forward(self, x):
        return super().forward(x + torch.arange(8.0))


@pytest.mark.parametrize("network", [MakesTensors, asking(MakesTensors)], ids=["exported", "recorded"])
def test_a_default_device_in_force_is_not_the_models(network):
    model = build(network)
    expected = find_gammas(model, Stream.takes)
    with torch.device("meta"):
        found = find_gammas(model, Stream.takes)
        assert torch.get_default_device().type == "meta"
    assert (found.source, list(found)) == (expected.source, list(expected))
    assert "unknown" not in found.counts


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_script_module_is_said_to_be_one():
    script = torch.jit.trace(build(Stream), Stream.takes)
    found = find_gammas(script, Stream.takes)
    assert "found a ScriptModule (Stream)" in found.source
    assert found.source.endswith("Pass the module that it was made from.")


class LeavesByValue(Asks, Stream):
    def forward(self, x):
        return super().forward(x + torch.tensor(self.embed(x)[0, 0].tolist()))


def test_values_that_come_back_from_elsewhere_are_refused():
    found = find_gammas(build(LeavesByValue), Stream.takes)
    assert found.counts == {"unknown": 3}
    assert "Tensor.tolist" in found["norm.weight"].reason


def test_errors_of_a_recorded_run_leave_no_mode_behind():
    with pytest.raises(GammaRegError, match="Pass example_inputs"):
        find_gammas(build(asking(Stream)))
    find_gammas(build(asking(Stream)), torch.zeros(2, 3))
    assert not torch.overrides._get_current_function_mode_stack()
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
