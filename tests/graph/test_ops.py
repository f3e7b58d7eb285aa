"""The table of ops as laws: each row's claim, on random numbers in double precision.

Rows without an entry in `op_calls` are called with `x`, or with `x` and `y` where their effect takes two; where a row
is a function of the arguments, with several of those. A row that can't be called here is in `NOT_CALLED` with the
reason, so that no row goes unread.
"""

import math

import pytest
import torch
from op_calls import CALLS, VARIANTS, A, X, Y
from torch.utils import _pytree as pytree

from hf_gammareg.graph.custom import takes
from hf_gammareg.graph.ops import OPS
from hf_gammareg.graph.rows import SUMS, Effect, Layout, OpRow
from hf_gammareg.graph.rules import TINY, item

pytestmark = pytest.mark.filterwarnings("ignore")  # what old spellings of ops say of themselves

NOT_ATEN = {
    "getitem": "an item of a tuple, made in capture",
    "mutate": "a write into a view, made in capture",
    "transformers::grouped_mm_fallback": "registered when transformers is imported",
}
CASES = [(op, n) for op in OPS for n in range(len(VARIANTS[op](X, Y)) if op in VARIANTS else 1)]
"""An op, and which of its variants."""


def overloads(op):
    namespace, _, name = op.rpartition("::")
    home = getattr(torch.ops, namespace or "aten")
    return getattr(home, name, None) or getattr(home, f"{name}_", None)


def row_of(case):
    op, n = case
    if op == "getitem":
        return item({"self": None, "item": 0})
    return OPS[op](VARIANTS[op](X, Y)[n]) if op in VARIANTS else OPS[op]


def name(case):
    return f"{case[0]} {case[1]}" if case[0] in VARIANTS else case[0]


@pytest.mark.parametrize("op", OPS)
def test_rows_name_real_ops(op):
    if op in NOT_ATEN:
        assert overloads(op) is None or "::" in op
    else:
        assert overloads(op) is not None


def test_rows_name_real_arguments():
    """Each argument named in a row is one of an op that shares the row."""
    rows = {}
    for case in CASES:
        row = row_of(case)
        for argument in (*row.gates, *row.ignores):
            rows.setdefault((row, argument), set()).add(case[0])
    for (row, argument), ops in rows.items():
        assert any(argument in takes(op) for op in ops - set(NOT_ATEN)), (row, argument)


def test_functions_of_arguments_are_called_with_several():
    assert {op for op, rule in OPS.items() if not isinstance(rule, OpRow)} == {*VARIANTS, "getitem"}
    for op in VARIANTS:
        assert len({row_of(case) for case in CASES if case[0] == op}) > 1, op


def test_fields_belong_to_their_effects():
    for case in CASES:
        row = row_of(case)
        assert bool(row.reason) == (row.effect is Effect.SQUASH or bool(row.gates)), case
        assert bool(row.kind) == (row.effect is Effect.NORM) >= row.given, case
        assert row.layout is Layout.MOVED or row.effect in (Effect.VIEW, Effect.JOIN), case
        assert not row.statistic or row.effect in (Effect.SCALE, Effect.VIEW), case
        assert row.effect is Effect.MIX or (not row.tokens and row.channels == -1), case


NOT_CALLED = {
    **NOT_ATEN,
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_flash_attention_forward",
            "_efficient_attention_forward",
            "cudnn_batch_norm",
            "miopen_batch_norm",
        ],
        "needs a GPU",
    ),
    "higher_order::flex_attention": "takes functions, and is compiled",
    **dict.fromkeys(
        ("_grouped_mm", "_scaled_mm", "_scaled_grouped_mm", "_weight_int8pack_mm", "_weight_int4pack_mm"),
        "not in double precision",
    ),
    "_scaled_dot_product_fused_attention_overrideable": "for other makers' devices",
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
    **dict.fromkeys(
        ("nll_loss", "nll_loss_nd", "nll_loss2d", "ctc_loss", "nll_loss_forward", "nll_loss2d_forward", "_ctc_loss"),
        "picks from log-probabilities: a loss",
    ),
}


def call(case, x, y=None):
    """The op's floating-point outputs, the same random numbers each time."""
    op, n = case
    torch.manual_seed(0)
    x = x.clone()
    pair = [x] if y is None else [x, y.clone()]
    if op in CALLS:
        made = CALLS[op](*pair)
    elif op in VARIANTS:
        made = overloads(op)(**VARIANTS[op](x, Y if y is None else y)[n])
    else:
        made = overloads(op)([x, y]) if row_of(case).effect is Effect.JOIN else overloads(op)(*pair)
    return [
        t for t in pytree.tree_leaves(made) if isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex())
    ]


def proportional(before, after, factor):
    return all(torch.allclose(b * factor, a, rtol=1e-9, atol=1e-12) for b, a in zip(before, after, strict=True))


def cases(*effects, exact=None):
    return [
        pytest.param(case, id=name(case))
        for case in CASES
        if row_of(case).effect in effects and case[0] not in NOT_CALLED and exact in (None, row_of(case).exact)
    ]


C = 3.0


@pytest.mark.parametrize("case", cases(Effect.VIEW, Effect.POOL, Effect.SCALE, exact=True))
def test_homogeneous(case):
    y = Y if case[0] == "complex" else None
    before, after = call(case, X, y), call(case, C * X, None if y is None else C * y)
    assert before
    assert proportional(before, after, C ** row_of(case).power)
    assert any(b.abs().sum() > 0 for b in before)


@pytest.mark.parametrize("case", cases(Effect.VIEW, exact=False))
def test_filled_with_what_does_not_scale(case):
    assert not proportional(call(case, X), call(case, C * X), C)


@pytest.mark.parametrize("case", cases(Effect.CURVE))
def test_bent(case):
    before, after, far = call(case, X), call(case, C * X), call(case, 1e6 * X)
    assert not any(proportional(before, after, C**power) for power in (-1, 0, 0.5, 1, 2))
    assert sum(f.abs().sum() for f in far) >= sum(b.abs().sum() for b in before)


@pytest.mark.parametrize("case", cases(Effect.MIX))
def test_linear_in_each_factor(case):
    """For a given other factor; queries and keys of attention, and offsets, only steer."""
    before, after = call(case, X), call(case, C * X)
    assert before
    assert proportional(before, after, C)
    assert any(b.abs().sum() > 0 for b in before)


@pytest.mark.parametrize("case", cases(Effect.PRODUCT))
def test_powers_add_up(case):
    assert proportional(call(case, X, Y), call(case, C * X, C * Y), C * C)
    assert proportional(call(case, X, Y), call(case, C * X, Y), C)


@pytest.mark.parametrize("case", cases(Effect.QUOTIENT))
def test_powers_subtract(case):
    assert proportional(call(case, X, Y), call(case, C * X, C * Y), 1)
    assert proportional(call(case, X, Y), call(case, C * X, Y), C)
    assert proportional(call(case, X, Y), call(case, X, C * Y), 1 / C)


@pytest.mark.parametrize("case", cases(*SUMS, Effect.JOIN))
def test_homogeneous_where_every_side_is(case):
    before = call(case, X, Y)
    assert proportional(before, call(case, C * X, C * Y), C)
    if case[0] != "index_fill":
        assert not proportional(before, call(case, C * X, Y), C)


@pytest.mark.parametrize("case", cases(Effect.NORM))
def test_norms_cancel(case):
    """Unless their statistics are given: those are affine."""
    before, after = call(case, X), call(case, C * X)
    if row_of(case).given:
        (shift, *_), moved = call(case, 0 * X), [value[0] for value in (before, after)]
        assert proportional([moved[0] - shift], [moved[1] - shift], C)
        return
    assert torch.allclose(before[0], after[0], rtol=1e-9, atol=1e-9)
    assert math.isclose(before[0].std().item(), 1, rel_tol=0.2)


@pytest.mark.parametrize("case", cases(Effect.SQUASH))
def test_scale_ends(case):
    before, after = call(case, X), call(case, C * X)
    assert not before or any(not proportional([b], [a], C) for b, a in zip(before, after, strict=True) if b.numel())


@pytest.mark.parametrize("case", cases(Effect.NOTHING))
def test_nothing_is_carried(case):
    assert proportional(call(case, X), call(case, C * X), 1)


@pytest.mark.parametrize("case", [p for p in cases(Effect.VIEW) if row_of(p.values[0]).layout is not Layout.MOVED])
def test_what_becomes_of_a_constant(case):
    """One that is added comes out as it went in, on its channel, unless others stand in its place."""
    row, shift = row_of(case), torch.arange(4, dtype=torch.double)[:, None, None]
    moved = [after - before for before, after in zip(call(case, X), call(case, X + 1), strict=True)]
    if row.layout is Layout.FILLED:
        kept = case[0] == "pad" and case[1] == 3  # reflected
        assert all(torch.allclose(m, torch.ones_like(m)) for m in moved) == kept
        return
    assert all(torch.allclose(m, torch.ones_like(m)) for m in moved)
    shifted = [after - before for before, after in zip(call(case, X), call(case, X + shift), strict=True)]
    for value in shifted:
        if row.layout is Layout.KEPT and value.ndim == 4:
            assert torch.allclose(value, value[:1, :, :1, :1].expand_as(value))


@pytest.mark.parametrize("case", [p for p in cases(Effect.JOIN) if row_of(p.values[0]).layout is Layout.KEPT])
def test_what_is_joined_lies_whole_along_its_dimension(case):
    for dim in (0, 1, -1):
        joined = overloads(case[0])(tensors=[X, Y], dim=dim)
        assert all(torch.equal(part, whole) for part, whole in zip(joined.chunk(2, dim), (X, Y), strict=True))


@pytest.mark.parametrize("op", ["clamp", "clip", "clamp_min"])
def test_a_bound_next_to_zero_guards(op):
    for low in (0, TINY / 2, -TINY / 2):
        assert OPS[op]({"self": X, "min": low}) == OpRow(effect=Effect.SCALE)
        assert torch.equal(overloads(op)(X.abs() + TINY, min=low), X.abs() + TINY)
    assert OPS[op]({"self": X, "min": TINY}).effect is Effect.CURVE


def test_the_mean_beside_a_variance():
    class Pair:
        op = "var_mean"

    before, after = A.var_mean(X, [1]), A.var_mean(C * X, [1])
    for place in (0, 1):
        power = OPS["var_mean"].power * item({"self": Pair(), "item": place}).power
        assert torch.allclose(before[place] * C**power, after[place])


CHANCE = {
    "dropout": {"input": X, "p": 0.5, "train": True},
    "native_dropout": {"input": X, "p": 0.5, "train": True},
    "feature_dropout": {"input": X, "p": 0.5, "train": True},
    "alpha_dropout": {"input": X, "p": 0.5, "train": True},
    "feature_alpha_dropout": {"input": X, "p": 0.5, "train": True},
    "scaled_dot_product_attention": {"query": X, "key": X, "value": Y, "attn_mask": None, "dropout_p": 0.5},
    "rrelu": {"self": X, "lower": 0.1, "upper": 0.3, "training": True},
    "normal": {"mean": X, "std": Y.abs()},
    "bernoulli": {"self": X.sigmoid()},
    "multinomial": {"self": X[0, 0].abs(), "num_samples": 3},
    "poisson": {"self": X.abs()},
    "rand": {"size": [3]},
    "randn": {"size": [3]},
    "normal_functional": {"self": X},
    **{op: {"self": X} for op in ("rand_like", "randn_like", "uniform", "exponential", "log_normal", "cauchy")},
}


@pytest.mark.parametrize("op", CHANCE)
def test_nothing_is_left_to_chance(op):
    rule, arguments = OPS[op], CHANCE[op]
    row = rule if isinstance(rule, OpRow) else rule(arguments)
    torch.manual_seed(1)
    before, plain = torch.get_rng_state(), pytree.tree_leaves(overloads(op)(**arguments))
    torch.set_rng_state(before)
    first = pytree.tree_leaves(row.still(lambda given: overloads(op)(**given), arguments))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = pytree.tree_leaves(row.still(lambda given: overloads(op)(**given), arguments))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, plain, strict=True))
    if "dropout" in op:
        assert torch.equal(first[0], X)


def test_stochastic_depth_keeps_its_mean():
    row = OPS["bernoulli"]({"self": X, "p": 0.25})
    assert row.still(None, {"self": X, "p": 0.25}).unique().tolist() == [0.25]


BOUNDED = {
    "relu6": {"self": X},
    "hardtanh": {"self": X, "min_val": 0.0, "max_val": 6.0},
    "clamp": {"self": X, "min": 0.0, "max": 6.0},
    "layer_norm": {"input": X, "normalized_shape": [6], "eps": 1e-2},
    "rms_norm": {"input": X, "normalized_shape": [6], "eps": 1e-2},
    "native_batch_norm": {
        "input": X,
        "weight": None,
        "bias": None,
        "running_mean": None,
        "running_var": None,
        "training": True,
        "momentum": 0.1,
        "eps": 1e-2,
    },
}


@pytest.mark.parametrize("op", BOUNDED)
def test_far_away_an_op_does_what_its_row_says(op):
    rule, first = OPS[op], next(iter(BOUNDED[op]))
    arguments = [{**BOUNDED[op], first: factor * X} for factor in (1, 100)]
    row = rule if isinstance(rule, OpRow) else rule(arguments[0])
    power = 0 if row.effect is Effect.NORM else 1
    outputs = [pytree.tree_leaves(row.far(lambda given: overloads(op)(**given), given))[0] for given in arguments]
    assert torch.allclose(outputs[1], outputs[0] * 100**power, rtol=1e-6)
    plain = [pytree.tree_leaves(overloads(op)(**given))[0] for given in arguments]
    assert not torch.allclose(plain[1], plain[0] * 100**power, rtol=1e-6)


@pytest.mark.parametrize("gate", ["query", "key"])
def test_attention_stops_queries_and_keys(gate):
    inputs = {"query": X, "key": Y, "value": X.flip(-1)}
    before = A.scaled_dot_product_attention(*inputs.values())
    inputs[gate] = C * inputs[gate]
    assert not proportional([before], [A.scaled_dot_product_attention(*inputs.values())], C)
    assert gate in OPS["scaled_dot_product_attention"].gates
    assert gate in OPS["higher_order::flex_attention"].gates


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
    called = {p.values[0][0] for effect in Effect for p in cases(effect)}
    assert called | set(NOT_CALLED) >= set(OPS)
    assert set(NOT_CALLED) <= set(OPS), set(NOT_CALLED) - set(OPS)
    assert set(CALLS) | set(VARIANTS) <= called | set(NOT_CALLED), (set(CALLS) | set(VARIANTS)) - called
    assert len(called) > 0.9 * len(OPS)
