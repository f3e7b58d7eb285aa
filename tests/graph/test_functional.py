"""Programs that fake tensors can't hold: run on values, without ops in place, as the model computes them."""

import pytest
import torch
from tiny import build
from tiny.recorded import MultipliesBySparse, PacksItsRows
from torch.nn import functional as F

from hf_gammareg import GammaRegError, analyse, verify
from hf_gammareg.graph.replay import Replay
from hf_gammareg.model.values import state


class WritesInPlace(MultipliesBySparse):
    def forward(self, x, adjacency):
        x = F.relu(self.bn1(torch.sparse.mm(adjacency, self.conv1(x))), inplace=True).mul_(2)
        seen = x[:1].sum()
        x = x.add_(1) + seen
        return self.fc(self.bn2(torch.sparse.mm(adjacency, self.conv2(x))))


class WritesToAPart(MultipliesBySparse):
    def forward(self, x, adjacency):
        x = torch.sparse.mm(adjacency, self.conv1(x))
        x[0] = 1
        return self.fc(self.bn2(x))


@pytest.mark.parametrize("network", [MultipliesBySparse, PacksItsRows, WritesInPlace], ids=lambda n: n.__name__)
def test_values_are_those_of_the_model(network):
    model = build(network)
    before = {name: (value.clone(), value._version) for name, value in state(model).items()}
    analysis = analyse(model, network.takes)
    replay = Replay(analysis.program, model, analysis.gammas.source)
    for name, values in replay.steadily(state(model), {}):
        made = values[name]
    assert all(torch.equal(state(model)[name], value) for name, (value, _) in before.items())
    assert all(state(model)[name]._version == version for name, (_, version) in before.items())
    assert torch.allclose(made, model(*network.takes), atol=1e-6)


@pytest.mark.parametrize("network", [MultipliesBySparse, PacksItsRows], ids=lambda n: n.__name__)
def test_roles_can_be_measured(network):
    measured = verify(build(network), network.takes)
    assert [m.name for m in measured if m.agrees] == list(network.expected)


def test_what_can_not_be_measured_is_said_in_one_line():
    model = build(WritesToAPart)
    assert analyse(model, model.takes).gammas["bn2.weight"].role == "final"
    with pytest.raises(GammaRegError, match=r"they can't \(aten.\w+_.\w+ writes to a part of a value\)") as error:
        verify(model, model.takes)
    assert "\n" not in str(error.value)
