"""The table of ops as laws: each row's claim, on random numbers in double precision.

Rows without an entry in `op_calls` are called with `x`, or with `x` and `y` where their effect takes two. A row that
can't be called here is in `NOT_CALLED` with the reason, so that no row goes unread.
"""

import math

import pytest
import torch
from op_calls import CALLS, A, X, Y
from torch.utils import _pytree as pytree

from hf_gammareg.graph.nodes import MATRIX_PRODUCTS
from hf_gammareg.graph.ops import CHANNELWISE, FILLS, NORM_KINDS, OPS, RESHAPES, Effect
from hf_gammareg.roles.sites import STATISTICS

pytestmark = pytest.mark.filterwarnings("ignore")  # what old spellings of ops say of themselves

NOT_ATEN = {
    "getitem": "an item of a tuple, made in capture",
    "mutate": "a write into a view, made in capture",
    "flex_attention": "a higher-order op of torch",
    "transformers::grouped_mm_fallback": "registered when transformers is imported",
}


def overloads(op):
    namespace, _, name = op.rpartition("::")
    home = getattr(torch.ops, namespace or "aten")
    return getattr(home, name, None) or getattr(home, f"{name}_", None)


@pytest.mark.parametrize("op", OPS)
def test_rows_name_real_ops(op):
    if op in NOT_ATEN:
        assert overloads(op) is None or "::" in op
    else:
        assert overloads(op) is not None


def test_rows_name_real_arguments():
    """Each argument named in a row is one of an op that shares the row."""
    rows = {}
    for op, row in OPS.items():
        for name in (*row.gates, *row.ignores):
            rows.setdefault((row, name), []).append(op)
    for (row, name), ops in rows.items():
        packets = [overloads(op) for op in ops if op not in NOT_ATEN]
        schemas = [getattr(packet, overload)._schema for packet in packets for overload in packet.overloads()]
        assert any(name == argument.name for schema in schemas for argument in schema.arguments), (row, name)


def test_every_named_set_is_in_the_table():
    assert all(OPS[op].effect is Effect.NORM for op in NORM_KINDS)
    assert all(OPS[op].effect is Effect.VIEW for op in (*CHANNELWISE, *RESHAPES, *FILLS))
    assert all(OPS[op].effect in (Effect.SCALE, Effect.VIEW) for op in STATISTICS)
    assert all(OPS[op].effect is Effect.MIX for op in MATRIX_PRODUCTS)
    assert {op for op, row in OPS.items() if row.effect is Effect.NORM} == set(NORM_KINDS)
    assert all(row.reason for row in OPS.values())


NOT_CALLED = {
    **NOT_ATEN,
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "cudnn_batch_norm",
            "miopen_batch_norm",
        ],
        "needs a GPU",
    ),
    "_grouped_mm": "not in double precision",
    "lift_fresh": "a marker of tracing",
    **dict.fromkeys(("new_empty", "new_empty_strided", "empty_like"), "uninitialised values"),
    **dict.fromkeys(
        [
            "_assert_async",
            "_assert_scalar",
            "_assert_tensor_metadata",
            "result_type",
            "zeros",
            "ones",
            "full",
            "empty",
            "eye",
            "arange",
            "linspace",
            "rand",
            "randn",
            "sym_size",
            "sym_numel",
            "sym_stride",
            "size",
            "numel",
            "dim",
            "is_floating_point",
        ],
        "takes or gives no activation",
    ),
    **dict.fromkeys(("nll_loss", "nll_loss_nd", "nll_loss2d", "ctc_loss"), "picks from log-probabilities: a loss"),
}


def call(op, x, y=None, **also):
    """The op's floating-point outputs, the same random numbers each time."""
    torch.manual_seed(0)
    x = x.clone()
    pair = [x] if y is None else [x, y.clone()]
    if op in CALLS:
        made = CALLS[op](*pair)
    else:
        packet = overloads(op)
        effect = OPS[op].effect
        made = packet([x, y]) if effect is Effect.JOIN else packet(*pair)
    return [
        t for t in pytree.tree_leaves(made) if isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex())
    ]


def proportional(before, after, factor):
    return all(torch.allclose(b * factor, a, rtol=1e-9, atol=1e-12) for b, a in zip(before, after, strict=True))


def ops_of(*effects, exact=None):
    return [
        op
        for op, row in OPS.items()
        if row.effect in effects and op not in NOT_CALLED and (exact is None or row.exact == exact)
    ]


C = 3.0


@pytest.mark.parametrize("op", ops_of(Effect.VIEW, Effect.POOL, Effect.SCALE, exact=True))
def test_homogeneous(op):
    y = Y if op == "complex" else None
    before, after = call(op, X, y), call(op, C * X, None if y is None else C * y)
    assert before
    assert proportional(before, after, C ** OPS[op].power)
    assert any(b.abs().sum() > 0 for b in before)


@pytest.mark.parametrize("op", ops_of(Effect.CURVE))
def test_bent(op):
    before, after, far = call(op, X), call(op, C * X), call(op, 1e6 * X)
    assert not any(proportional(before, after, C**power) for power in (-1, 0, 0.5, 1, 2))
    assert sum(f.abs().sum() for f in far) >= sum(b.abs().sum() for b in before)


@pytest.mark.parametrize("op", ops_of(Effect.MIX))
def test_linear_in_each_factor(op):
    """For a given other factor; queries and keys of attention, and offsets, only steer."""
    before, after = call(op, X), call(op, C * X)
    assert before
    assert proportional(before, after, C)
    assert any(b.abs().sum() > 0 for b in before)


@pytest.mark.parametrize("op", ops_of(Effect.PRODUCT))
def test_powers_add_up(op):
    assert proportional(call(op, X, Y), call(op, C * X, C * Y), C * C)
    assert proportional(call(op, X, Y), call(op, C * X, Y), C)


@pytest.mark.parametrize("op", ops_of(Effect.QUOTIENT))
def test_powers_subtract(op):
    assert proportional(call(op, X, Y), call(op, C * X, C * Y), 1)
    assert proportional(call(op, X, Y), call(op, C * X, Y), C)
    assert proportional(call(op, X, Y), call(op, X, C * Y), 1 / C)


@pytest.mark.parametrize("op", ops_of(Effect.POWER))
def test_exponent_is_the_power(op):
    packet = overloads(op)
    for exponent in (-0.5, 0.5, 2, 3):
        assert torch.allclose(packet(C * X.abs(), exponent), C**exponent * packet(X.abs(), exponent))


@pytest.mark.parametrize("op", ops_of(Effect.SUM, Effect.JOIN))
def test_homogeneous_where_every_side_is(op):
    before = call(op, X, Y)
    assert proportional(before, call(op, C * X, C * Y), C)
    if op != "index_fill":
        assert not proportional(before, call(op, C * X, Y), C)


@pytest.mark.parametrize("op", ops_of(Effect.NORM))
def test_norms_cancel(op):
    before, after = call(op, X), call(op, C * X)
    assert torch.allclose(before[0], after[0], rtol=1e-9, atol=1e-9)
    assert math.isclose(before[0].std().item(), 1, rel_tol=0.2)


@pytest.mark.parametrize("op", ops_of(Effect.SQUASH))
def test_scale_ends(op):
    before, after = call(op, X), call(op, C * X)
    assert not before or any(not proportional([b], [a], C) for b, a in zip(before, after, strict=True) if b.numel())


@pytest.mark.parametrize("op", ops_of(Effect.NOTHING))
def test_nothing_is_carried(op):
    if op in CALLS:
        before, after = call(op, X), call(op, C * X)
    else:
        overload = overloads(op)
        torch.manual_seed(0)
        before = [overload(X.clone())]
        torch.manual_seed(0)
        after = [overload(C * X)]
    assert proportional(before, after, 1)


@pytest.mark.parametrize("gate", ["query", "key"])
def test_attention_stops_queries_and_keys(gate):
    inputs = {"query": X, "key": Y, "value": X.flip(-1)}
    before = A.scaled_dot_product_attention(*inputs.values())
    inputs[gate] = C * inputs[gate]
    assert not proportional([before], [A.scaled_dot_product_attention(*inputs.values())], C)
    assert gate in OPS["scaled_dot_product_attention"].gates


@pytest.mark.parametrize(
    ("op", "other"), [("type_as", Y), ("reshape_as", Y), ("view_as", Y), ("expand_as", Y), ("copy", None)]
)
def test_ignored_arguments_are_ignored(op, other):
    packet = overloads(op)
    arguments = (lambda like: (like, X)) if op == "copy" else (lambda like: (X, like))
    other = Y if other is None else other
    assert torch.equal(packet(*arguments(other)), packet(*arguments(C * other + 1)))
    assert OPS[op].ignores == (("self",) if op == "copy" else ("other",))


def test_no_row_goes_unread():
    called = {op for effect in Effect for op in ops_of(effect)}
    assert called | set(NOT_CALLED) >= set(OPS)
    assert set(NOT_CALLED) <= set(OPS), set(NOT_CALLED) - set(OPS)
    assert set(CALLS) <= called, set(CALLS) - called
    assert len(called) > 0.9 * len(OPS)
