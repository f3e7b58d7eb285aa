"""Ops written out: what a form makes is what the op computes, and a graph holds what it made."""

import pytest
import torch
from op_calls import INDEX, A, M, N, V, X, Y, cell_once
from torch import nn
from torch.utils import _pytree as pytree

from hf_gammareg import analyse
from hf_gammareg.graph.ops import OPS
from hf_gammareg.graph.rewrite import FORMS, decompositions

PLANE, OTHER = X[0, 0], Y[0, 0]
CELL = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), cell_once(3), strict=True))
LSTM = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), cell_once(4), strict=True))
STATE = (Y[0, 0].new_ones(6, 7) * 0.3, Y[0, 0].new_ones(6, 7) * -0.2)

WRITTEN = {
    "add": [{"self": X, "other": Y, "alpha": 0.5}, {"self": X, "other": Y, "alpha": -1}],
    "sub": [{"self": X, "other": Y}, {"self": X, "other": Y, "alpha": 2}],
    "subtract": [{"self": X, "other": Y}],
    "rsub": [{"self": X, "other": Y}, {"self": X, "other": Y, "alpha": 2}],
    "addcmul": [{"self": X, "tensor1": Y, "tensor2": X, **value} for value in ({}, {"value": 0.5})],
    "addcdiv": [{"self": X, "tensor1": Y, "tensor2": X, **value} for value in ({}, {"value": -1})],
    "lerp": [{"self": X, "end": Y, "weight": weight} for weight in (0.3, Y.sigmoid())],
    "addmm": [{"self": PLANE, "mat1": PLANE, "mat2": OTHER, **by} for by in ({}, {"beta": 0.5, "alpha": -2})],
    "_sparse_addmm": [{"self": PLANE, "mat1": PLANE.to_sparse(), "mat2": OTHER, "beta": 0.5}],
    "addmv": [{"self": PLANE[0], "mat": PLANE, "vec": OTHER[0]}],
    "addr": [{"self": PLANE, "vec1": PLANE[0], "vec2": OTHER[0]}],
    "baddbmm": [{"self": X[0], "batch1": X[0], "batch2": Y[0], "beta": 0.5, "alpha": 2}],
    "addbmm": [{"self": PLANE, "batch1": X[0], "batch2": Y[0]}],
    "_addmm_activation": [{"self": PLANE, "mat1": PLANE, "mat2": OTHER}],
    "index_add": [{"self": X, "dim": 1, "index": INDEX, "source": Y[:, :3], **by} for by in ({}, {"alpha": 2})],
    "scatter_add": [{"self": PLANE, "dim": 1, "index": INDEX[None], "src": OTHER}],
    "scatter_reduce": [{"self": PLANE, "dim": 1, "index": INDEX[None], "src": OTHER, "reduce": "sum"}],
    "scatter": [{"self": PLANE, "dim": 1, "index": INDEX[None], "src": OTHER, "reduce": "add"}],
    "index_put": [{"self": X, "indices": [INDEX[:1]], "values": Y[:1], "accumulate": True}],
    "_unsafe_index_put": [{"self": X, "indices": [INDEX[:1]], "values": Y[:1], "accumulate": True}],
    "einsum": [
        {"equation": "bchw,c->bchw", "tensors": [X, V[:4]]},
        {"equation": "bchw, wb -> bchw", "tensors": [X, PLANE[:, :2]]},
        {"equation": "ab,b,a->ba", "tensors": [M, V, V[:4]]},
    ],
    "gru_cell": [{"input": PLANE[:, :4], "hx": STATE[0], **CELL}],
    "lstm_cell": [{"input": PLANE[:, :4], "hx": list(STATE), **LSTM}],
}
"""Calls that are written out."""
STANDS = {
    "add": {"self": X, "other": Y},
    "sub": {"self": X, "other": 2.0},
    "scatter_reduce": {"self": PLANE, "dim": 1, "index": INDEX[None], "src": OTHER, "reduce": "amax"},
    "scatter": {"self": PLANE, "dim": 1, "index": INDEX[None], "src": OTHER},
    "index_put": {"self": X, "indices": [INDEX[:1]], "values": Y[:1]},
    "einsum": {"equation": "ab,bc->ac", "tensors": [M, N]},
}
"""Calls that stand as they are."""
OF_A_STACK = ("sum", "mean")


def computed(op, /, shape=None, **arguments):
    """What an op makes of numbers; of the shape that the form says, or that of its operands together."""
    made = getattr(A, op)(**arguments)
    tensors = [value.shape for value in pytree.tree_leaves(arguments) if isinstance(value, torch.Tensor)]
    assert tuple(made.shape) == (shape or torch.broadcast_shapes(*tensors)), op
    return made


@pytest.mark.parametrize(("op", "n"), [(op, n) for op, calls in WRITTEN.items() for n in range(len(calls))])
def test_a_form_makes_what_its_op_computes(op, n):
    arguments = WRITTEN[op][n]
    torch.testing.assert_close(FORMS[op](computed, arguments), getattr(A, op)(**arguments))


@pytest.mark.parametrize("op", STANDS)
def test_a_call_that_says_what_it_does_stands(op):
    assert FORMS[op](computed, STANDS[op]) is None
    assert op in OPS


def test_every_form_is_tried():
    assert {*WRITTEN, *OF_A_STACK} == FORMS.keys()
    assert {target._schema.name.removeprefix("aten::") for target in decompositions()} == FORMS.keys()


class OfAStack(nn.Module):
    def __init__(self, op, dim, keepdim, joined):
        super().__init__()
        self.op, self.dim, self.keepdim, self.joined = op, dim, keepdim, joined

    def forward(self, x):
        parts = [x, x.relu()]
        stack = torch.cat([part[:, :, None] for part in parts], 2) if self.joined else torch.stack(parts, 2)
        return getattr(stack, self.op)(dim=self.dim, keepdim=self.keepdim)


@pytest.mark.parametrize("op", OF_A_STACK)
@pytest.mark.parametrize("dim", [2, -1, 1])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_a_stack_is_summed_over_where_it_was_stacked(op, dim, keepdim, joined):
    model, x = OfAStack(op, dim, keepdim, joined), torch.zeros(2, 3)
    graph = analyse(model, (x,)).graph
    made = {node.op for node in graph.nodes}
    (output,) = graph.outputs
    assert graph.nodes[output].shape == tuple(model(x).shape)
    assert ("add" in made, op in made) == (dim != 1, dim == 1)
