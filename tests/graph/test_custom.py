"""Ops of a user's own: unknown before they are added, their roles right after."""

import pytest
import torch
from torch import nn
from torch.library import custom_op
from torch.nn import functional as F

import hf_gammareg
from hf_gammareg import Effect, GammaRegError, OpRow, add_op, find_gammas, verify
from hf_gammareg.graph import custom
from hf_gammareg.graph.ops import OPS


@pytest.fixture(autouse=True)
def none_added():
    before = dict(custom.ADDED)
    custom.ADDED.clear()
    yield
    custom.ADDED.clear()
    custom.ADDED.update(before)


@custom_op("gammareg_tests::attend", mutates_args=())
def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """An attention that calls its arguments in its own way."""
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


@custom_op("gammareg_tests::rms", mutates_args=())
def rms(x: torch.Tensor, gain: torch.Tensor, epsilon: float) -> torch.Tensor:
    """A fused norm that is given its gain."""
    return F.rms_norm(x, [x.shape[-1]], gain, epsilon)


@custom_op("gammareg_tests::add_up", mutates_args=())
def add_up(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """A fused residual add."""
    return x + residual


@custom_op("gammareg_tests::clip_to", mutates_args=())
def clip_to(self: torch.Tensor, min: float, max: float | None) -> torch.Tensor:
    """A clamp."""
    return torch.clamp(self, min, max)


@custom_op("gammareg_tests::squared_relu", mutates_args=())
def squared_relu(x: torch.Tensor) -> torch.Tensor:
    """Homogeneous of degree two, like nothing in torch."""
    return F.relu(x) ** 2


attend.register_fake(lambda q, k, v, scale: torch.empty_like(q))
rms.register_fake(lambda x, gain, epsilon: torch.empty_like(x))
add_up.register_fake(lambda x, residual: torch.empty_like(x))
clip_to.register_fake(lambda self, min, max: torch.empty_like(self))
squared_relu.register_fake(lambda x: torch.empty_like(x))


class Norm(nn.Module):
    """The fused norm as a module."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return rms(x, self.weight, 1e-6)


class Block(nn.Module):
    """A pre-norm block of kernels: norm, attention with norms on query and key, add."""

    def __init__(self):
        super().__init__()
        self.norm, self.q_norm, self.k_norm = Norm(), Norm(), nn.RMSNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.v_norm, self.last_norm, self.fc = nn.RMSNorm(8), nn.RMSNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        seen = attend(self.q_norm(q)[:, None], self.k_norm(k)[:, None], self.v_norm(v)[:, None], 0.3)
        return self.fc(self.last_norm(add_up(self.out(seen[:, 0]), x)))


class Embedded(nn.Module):
    """The block behind a linear layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.block = nn.Linear(8, 8), Block()

    def forward(self, x):
        return self.block(self.embed(x))


TOKENS = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))


def roles(model):
    return {gamma.name.removeprefix("block."): str(gamma.role) for gamma in find_gammas(model, TOKENS)}


def test_unknown_before_right_after():
    model = Embedded()
    before = find_gammas(model, TOKENS)
    assert before.counts == {"unknown": 4, "final": 1}
    advice = "which has no rule (hf_gammareg.add_op gives it one)."
    assert before["block.k_norm.weight"].reason == f"Reaches gammareg_tests::attend in `block`, {advice}"
    assert before["block.norm.weight"].reason == f"Read by gammareg_tests::rms in `block.norm`, {advice}"
    add_op("gammareg_tests::attend", "scaled_dot_product_attention", arguments={"q": "query", "k": "key", "v": "value"})
    add_op("gammareg_tests::rms", like="rms_norm", arguments={"x": "input", "gain": "weight", "epsilon": "eps"})
    assert roles(model)["v_norm.weight"] == "unknown"  # the add is still without a rule
    add_op("gammareg_tests::add_up", like="aten::add", arguments={"x": "self", "residual": "other"})
    assert roles(model) == {
        "norm.weight": "absorbed",
        "q_norm.weight": "gate",
        "k_norm.weight": "gate",
        "v_norm.weight": "last",
        "last_norm.weight": "final",
    }
    found = find_gammas(model, TOKENS)
    assert found["block.q_norm.weight"].reason == (
        "Reaches only what saturates: gammareg_tests::attend in `block` (its softmax stops the scale of query and key)."
    )
    assert found["block.norm.weight"].kind == "rms_norm"
    assert [m.name for m in verify(model, TOKENS, gammas=found) if not m.agrees] == []
    assert set(custom.ADDED) == {"gammareg_tests::attend", "gammareg_tests::rms", "gammareg_tests::add_up"}


WRONG = {
    "no namespace": (("attend", "softmax"), {}, "Expected an op's name as 'namespace::op', found 'attend'"),
    "no such op": (
        ("gammareg_tests::nobody", "softmax"),
        {},
        "Expected an op that torch knows, found 'gammareg",
    ),
    "neither": (("gammareg_tests::rms",), {}, "found neither"),
    "both": (("gammareg_tests::rms", "rms_norm", OpRow(effect=Effect.VIEW)), {}, "found both"),
    "nothing like it": (("gammareg_tests::rms", "rmsnorm"), {}, "Close to it are .*'rms_norm'"),
    "nothing near it": (("gammareg_tests::rms", "qqqqqq"), {}, "Give it a row of its own"),
    "arguments of other names": (
        ("gammareg_tests::attend", "scaled_dot_product_attention"),
        {},
        r"found 'k', 'q', 'v'.* arguments=\{'q': 'query', 'k': 'key', 'v': 'value'\}",
    ),
    "a misspelled meaning": (
        ("gammareg_tests::attend", "scaled_dot_product_attention"),
        {"arguments": {"q": "querry", "k": "key", "v": "value"}},
        r"found 'q'.* arguments=\{'q': 'query'\}",
    ),
    "a misspelled argument": (
        ("gammareg_tests::rms", "rms_norm"),
        {"arguments": {"X": "input"}},
        r"Expected arguments of gammareg_tests::rms \('epsilon', 'gain', 'x'\), found 'X'",
    ),
    "one meaning twice": (
        ("gammareg_tests::rms", "rms_norm"),
        {"arguments": {"x": "input", "gain": "input"}},
        "found several for 'input'",
    ),
    "a row that speaks of others": (
        ("gammareg_tests::attend", None, OpRow(effect=Effect.MIX, gates=("query", "k"), reason="a softmax")),
        {},
        "found none called 'query' among 'k', 'q', 'scale', 'v'",
    ),
    "an effect that speaks of others": (
        ("gammareg_tests::rms", None, OpRow(effect=Effect.NORM, kind="rms_norm")),
        {},
        "found none called 'input'",
    ),
    "an op of the table": (("aten::relu", "sigmoid"), {}, "whose rule says otherwise"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case):
    positional, named, message = WRONG[case]
    with pytest.raises(GammaRegError, match=message):
        add_op(*positional, **named)
    assert not custom.ADDED


def test_to_say_it_again_changes_nothing_and_to_say_otherwise_is_an_error():
    names = {"x": "input", "gain": "weight"}
    add_op("gammareg_tests::rms", "rms_norm", arguments=names)
    held = dict(custom.ADDED)
    add_op("gammareg_tests::rms", like="aten::rms_norm", arguments=dict(names))
    add_op("gammareg_tests::squared_relu", row=OpRow(effect=Effect.SCALE, power=2))
    add_op("gammareg_tests::squared_relu", row=OpRow(effect=Effect.SCALE, power=2.0))
    add_op("aten::relu", "relu")
    assert custom.ADDED.keys() - held.keys() == {"gammareg_tests::squared_relu"}
    with pytest.raises(GammaRegError, match="whose rule says otherwise"):
        add_op("gammareg_tests::rms", "layer_norm", arguments=names)
    with pytest.raises(GammaRegError, match="whose rule says otherwise"):
        add_op("gammareg_tests::squared_relu", row=OpRow(effect=Effect.SCALE))
    assert custom.ADDED["gammareg_tests::rms"] == held["gammareg_tests::rms"]
    assert not custom.ADDED.keys() & OPS.keys()


class Between(nn.Module):
    """Two norms with an op between them."""

    def __init__(self, op):
        super().__init__()
        self.op, self.conv, self.first = op, nn.Conv1d(6, 4, 1), nn.BatchNorm1d(4)
        self.conv2, self.second, self.fc = nn.Conv1d(4, 4, 1, bias=False), nn.BatchNorm1d(4), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(F.relu(self.second(self.conv2(self.op(self.first(self.conv(x)))))))


def between(op):
    gamma = find_gammas(Between(op), TOKENS)["first.weight"]
    return f"{gamma.role} {'exact' if gamma.exact else 'rough'}"


def test_rows_of_their_own_and_functions_of_arguments():
    assert between(squared_relu) == "unknown rough"
    add_op("gammareg_tests::squared_relu", row=OpRow(effect=Effect.SCALE, power=2))
    assert between(squared_relu) == "absorbed exact"
    # The rule of `clamp` is asked for the arguments of each call.
    add_op("gammareg_tests::clip_to", like="clamp")
    assert between(lambda x: clip_to(x, 0.0, None)) == "absorbed exact"
    assert between(lambda x: clip_to(x, 0.5, None)) == "absorbed rough"
    custom.ADDED.clear()

    def either(arguments):
        return OpRow(effect=Effect.VIEW) if arguments["max"] is None else OpRow(effect=Effect.SQUASH, reason="mine")

    add_op("gammareg_tests::clip_to", row=either)
    assert between(lambda x: clip_to(x, 0.5, None)) == "absorbed exact"
    assert between(lambda x: clip_to(x, -1.0, 1.0)) == "gate rough"
    assert "(mine)" in find_gammas(Between(lambda x: clip_to(x, -1.0, 1.0)), TOKENS)["first.weight"].reason


def test_like_an_op_that_was_added():
    add_op("gammareg_tests::squared_relu", row=OpRow(effect=Effect.VIEW, ignores=("like",)), arguments={"x": "like"})
    add_op("gammareg_tests::add_up", "gammareg_tests::squared_relu", arguments={"residual": None})
    row, arguments = custom.asked("gammareg_tests::add_up", {"x": 1, "residual": 2})
    assert row.ignores == ("like",)
    assert arguments == {"like": 1}
    assert custom.called("gammareg_tests::add_up", ["x", "residual"]) == ["like", None]


def test_a_norm_says_its_kind():
    with pytest.raises(GammaRegError, match="Expected the kind of a norm, found ''"):
        OpRow(effect=Effect.NORM)


def test_public_names():
    assert {"add_op", "OpRow", "Effect"} <= set(hf_gammareg.__all__)
