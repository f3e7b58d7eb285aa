"""Tracing with known integers: questions about ids, grids and lengths are answered, and nothing is left behind."""

import pytest
import torch
from torch import nn

from hf_gammareg.model.known import KnownIntegers, integers_known


class ByIds(nn.Module):
    """Asks whether a row holds padding, as FSMT and Longformer do."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, ids):
        hidden = self.embed(ids)
        return self.norm(hidden) if not (ids == 0).any() else hidden


class ByGrid(nn.Module):
    """Splits packed patches into images of known sizes, as the vision towers of Qwen do, and picks some of them."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, patches, grid, keep):
        parts = []
        for rows, columns in grid.tolist():
            parts.append(patches[: rows * columns])
            patches = patches.roll(rows * columns, 0) if rows > columns else patches
        return [self.norm(part) for part in parts] + [patches[keep]]


class LayerDrop(nn.Module):
    """Skips a layer at random, as BART and DETR do, and guards against overflow."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        if torch.rand([]) < 0.5:
            return x
        x = self.norm(x)
        return x if torch.isfinite(x).all() else x.clamp(-1, 1)


IDS = torch.tensor([[1, 2, 3]])
GRID = torch.tensor([[1, 2], [2, 2]])
KEEP = torch.tensor([True, False, True, False, True, True])


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("make", "inputs", "shapes"),
    [
        (ByIds, (IDS,), [(1, 3, 4)]),
        (ByGrid, (torch.zeros(6, 4), GRID, KEEP), [(2, 4), (4, 4), (4, 4)]),
        (LayerDrop, (torch.zeros(2, 4),), [(2, 4)]),
    ],
)
def test_exports_what_plain_export_does_not(make, inputs, shapes, device):
    model = make().to(device)
    on_device = tuple(value.to(device) for value in inputs)
    with pytest.raises(Exception, match=r"data-dependent|unbacked|meta"):
        torch.export.export(model, on_device, strict=False)
    with integers_known(model, inputs, {}, torch.device(device)) as (args, kwargs):
        program = torch.export.export(model, args, kwargs, strict=False)
    targets = [str(node.target) for node in program.graph.nodes]
    assert any("layer_norm" in target for target in targets)
    output = next(node for node in program.graph.nodes if node.op == "output")
    assert [tuple(node.meta["val"].shape) for node in output.args[0]] == shapes
    assert "forward" not in model.__dict__


def test_keyword_inputs_and_other_values_pass_through():
    class Model(nn.Module):
        def forward(self, x, ids=None, scale=1.0):
            return x * scale if ids.sum() > 3 else x

    with integers_known(Model(), (torch.ones(2),), {"ids": IDS, "scale": 3.0}, torch.device("cpu")) as (args, kwargs):
        assert args == ()
        assert [value.shape for value in kwargs.values()] == [(2,)]


def test_a_failure_leaves_the_model_as_it_was():
    model = ByIds()
    with pytest.raises(RuntimeError, match="stop"), integers_known(model, (IDS,), {}, torch.device("cpu")):
        raise RuntimeError("stop")
    assert model(IDS).shape == (1, 3, 4)
    assert "forward" not in model.__dict__


def test_the_random_state_is_not_touched():
    before = torch.get_rng_state()
    with KnownIntegers(torch.device("cpu")):
        assert torch.rand([]) == 1
    assert torch.equal(before, torch.get_rng_state())
