"""Ops that are several in one, written out as sums and products: whoever reads a graph sees one form of each.

A form takes a function that makes ops by ATen's names, and one call's arguments. The same forms are written into our
graph, into the program that a `Replay` runs, and, in their tests, into numbers: what they make is what the op computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from hf_gammareg.graph.nodes import Node
from hf_gammareg.graph.rows import Arguments, Effect


class Make(Protocol):
    """Makes one op; `shape` is that of its output, where its operands don't say by broadcasting."""

    def __call__(self, op: str, /, shape: tuple[int, ...] | None = None, **arguments: Any) -> Any:
        """Make it, and return its output."""


Form = Callable[[Make, Arguments], Any]
"""Writes an op out, and returns its output; None where a call of it stands as it is."""


def _times(make: Make, value: Any, factor: Any) -> Any:
    if isinstance(factor, int | float) and factor == 1:
        return value
    if isinstance(value, int | float) and isinstance(factor, int | float):
        return value * factor
    if isinstance(factor, int | float) and factor == -1:
        return value.operands("self")[0] if isinstance(value, Node) and _negated(value) else make("neg", self=value)
    return make("mul", self=value, other=factor)


def _add(make: Make, a: Arguments) -> Any:
    this, other, alpha = a["self"], a["other"], a.get("alpha", 1)
    if isinstance(other, Node) and _negated(other) and alpha == 1:
        that = other.operands("self")[0]
        return make("sub", self=this, other=that) if _takes_off(this, that) else None
    if isinstance(this, Node) and _negated(this) and alpha == 1:
        that = this.operands("self")[0]
        return make("sub", self=other, other=that) if _takes_off(other, that) else None
    return None if alpha == 1 else _plus(make, this, _times(make, other, alpha))


def _plus(make: Make, this: Any, other: Any) -> Any:
    """A sum, unless one side only takes something of the other off."""
    arguments = {"self": this, "other": other}
    written = _add(make, arguments)
    return make("add", **arguments) if written is None else written


def _sub(make: Make, a: Arguments) -> Any:
    this, other, alpha = a["self"], a["other"], a.get("alpha", 1)
    if not hasattr(this, "shape") or not hasattr(other, "shape"):
        return None
    taken = not isinstance(alpha, int | float) or (alpha > 0) is not (isinstance(other, Node) and _negated(other))
    if taken and _takes_off(this, other):
        return None
    return make("add", self=this, other=_times(make, other, -alpha))


def _rsub(make: Make, a: Arguments) -> Any:
    return _sub(make, {**a, "self": a["other"], "other": a["self"]})


def _addcmul(make: Make, a: Arguments) -> Any:
    product = make("mul", self=a["tensor1"], other=a["tensor2"])
    return _plus(make, a["self"], _times(make, product, a.get("value", 1)))


def _addcdiv(make: Make, a: Arguments) -> Any:
    quotient = make("div", self=a["tensor1"], other=a["tensor2"])
    return _plus(make, a["self"], _times(make, quotient, a.get("value", 1)))


def _lerp(make: Make, a: Arguments) -> Any:
    return _mixed(make, a["self"], a["end"], a["weight"])


def _mixed(make: Make, start: Any, end: Any, weight: Any) -> Any:
    """(1 - weight) * start + weight * end."""
    rest = 1 - weight if isinstance(weight, int | float) else make("rsub", self=weight, other=1)
    return _plus(make, _times(make, start, rest), _times(make, end, weight))


def _product_added(op: str, *factors: str) -> Form:
    """A form of `self` plus the product of two others that `op` makes."""

    def form(make: Make, a: Arguments) -> Any:
        names = {"mm": ("self", "mat2"), "bmm": ("self", "mat2"), "mv": ("self", "vec"), "outer": ("self", "vec2")}[op]
        first, second = (a[factor] for factor in factors)
        shape = tuple(first.shape[:-1]) if first.shape else ()
        if op != "mv":
            shape = (*(first.shape if op == "outer" else shape), second.shape[-1])
        product = make(op, shape=shape, **dict(zip(names, (first, second), strict=True)))
        return _plus(make, _times(make, a["self"], a.get("beta", 1)), _times(make, product, a.get("alpha", 1)))

    return form


def _addbmm(make: Make, a: Arguments) -> Any:
    first, second = a["batch1"], a["batch2"]
    product = make("bmm", shape=(*first.shape[:-1], second.shape[-1]), self=first, mat2=second)
    product = make("sum", shape=(first.shape[1], second.shape[-1]), self=product, dim=[0])
    return _plus(make, _times(make, a["self"], a.get("beta", 1)), _times(make, product, a.get("alpha", 1)))


def _addmm_activation(make: Make, a: Arguments) -> Any:
    return make("gelu" if a.get("use_gelu") else "relu", self=_product_added("mm", "mat1", "mat2")(make, a))


def _added_at(op: str, source: str, when: str = "", says: Any = None) -> Form:
    """A form of what adds a source to a tensor in some places: the tensor plus the source put among zeros.

    Some ops add only when one argument says so.
    """

    def form(make: Make, a: Arguments) -> Any:
        this, shape = a["self"], tuple(a["self"].shape or ())
        if (when and a.get(when) != says) or a.get("include_self") is False or fresh(this):
            return None
        kept = {name: value for name, value in a.items() if name != "alpha"}
        zeros = make("zeros_like", shape=shape, self=this)
        put = make(op, shape=shape, **{**kept, "self": zeros, source: a[source]})
        return _plus(make, this, _times(make, put, a.get("alpha", 1)))

    return form


def fresh(value: Any) -> bool:
    """Whether a tensor holds zeros, made to be written into."""
    return isinstance(value, Node) and value.op in ("zeros", "zeros_like", "new_zeros", "zero")


def _stacked(make: Make, stack: Any, dims: Any) -> list[Any]:
    """What was stacked on the one dimension that is reduced; nothing where that is another."""
    dims = [dims] if isinstance(dims, int) else dims
    if not (isinstance(stack, Node) and stack.op in ("stack", "cat") and stack.shape and dims and len(dims) == 1):
        return []
    parts, dim, rank = stack.operands("tensors"), stack.arguments.get("dim", 0), len(stack.shape)
    if (dims[0] - dim) % rank:
        return []
    if stack.op == "stack":
        return parts
    shapes = [part.shape or () for part in parts]
    if any(len(shape) != rank or shape[dim] != 1 for shape in shapes):
        return []
    narrow = shapes[0][: dim % rank] + shapes[0][dim % rank + 1 :]
    return [make("squeeze", shape=narrow, self=part, dim=dim) for part in parts]


def _stack_summed(make: Make, a: Arguments) -> Any:
    """The sum of a stack over the dimension on which it was stacked."""
    parts = _stacked(make, a["self"], a.get("dim"))
    if len(parts) < 2:
        return None
    total, *rest = parts
    for part in rest:
        total = _plus(make, total, part)
    return make("unsqueeze", shape=_kept(a), self=total, dim=a["dim"]) if a.get("keepdim") else total


def _kept(a: Arguments) -> tuple[int, ...]:
    dim, shape = a["dim"][0] if isinstance(a["dim"], tuple | list) else a["dim"], list(a["self"].shape)
    shape[dim] = 1
    return tuple(shape)


def _stack_averaged(make: Make, a: Arguments) -> Any:
    total = _stack_summed(make, a)
    return None if total is None else _times(make, total, 1 / len(a["self"].operands("tensors")))


def _einsum(make: Make, a: Arguments) -> Any:
    """A product that sums over nothing is one at each position."""
    left, arrow, result = a["equation"].replace(" ", "").partition("->")
    terms, operands = left.split(","), list(a["tensors"])
    if not arrow or "." in left or len(terms) < 2 or len(set(result)) < len(result):
        return None
    if any(len(set(term)) < len(term) or not set(term) <= set(result) for term in terms):
        return None
    product = None
    for term, operand in zip(terms, operands, strict=True):
        sizes = dict(zip(term, operand.shape, strict=True))
        order = [term.index(letter) for letter in result if letter in term]
        if order != sorted(order):
            operand = make("permute", shape=tuple(operand.shape[i] for i in order), self=operand, dims=order)
        shape = tuple(sizes.get(letter, 1) for letter in result)
        first = next((i for i, letter in enumerate(result) if letter in term), 0)
        if len(term) < len(result) - first:  # a gap that broadcasting does not fill
            operand = make("view", shape=shape, self=operand, size=list(shape))
        product = operand if product is None else make("mul", self=product, other=operand)
    return product


def _gates(make: Make, a: Arguments, hidden: Any, count: int) -> list[tuple[Any, Any]]:
    """For each gate of a recurrent cell what it has of the input and what of the hidden state."""
    sides = []
    for value, number in ((a["input"], "ih"), (hidden, "hh")):
        weight, bias = a[f"w_{number}"], a.get(f"b_{number}")
        wide = (*value.shape[:-1], weight.shape[0])
        made, size = make("linear", shape=wide, input=value, weight=weight, bias=bias), weight.shape[0] // count
        narrow = (*value.shape[:-1], size)
        sides.append(
            [make("slice", shape=narrow, self=made, dim=-1, start=i * size, end=(i + 1) * size) for i in range(count)]
        )
    return list(zip(*sides, strict=True))


def _gru_cell(make: Make, a: Arguments) -> Any:
    """Its hidden state passes on the sum of two gated products."""
    reset, update, new = _gates(make, a, a["hx"], 3)
    opened = make("sigmoid", self=make("add", self=reset[0], other=reset[1]))
    kept = make("sigmoid", self=make("add", self=update[0], other=update[1]))
    inner = make("add", self=new[0], other=make("mul", self=opened, other=new[1]))
    return _mixed(make, make("tanh", self=inner), a["hx"], kept)


def _lstm_cell(make: Make, a: Arguments) -> Any:
    hidden, cell = a["hx"]
    taken, kept, new, out = (make("add", self=one, other=two) for one, two in _gates(make, a, hidden, 4))
    added = make("mul", self=make("sigmoid", self=taken), other=make("tanh", self=new))
    cell = make("add", self=make("mul", self=make("sigmoid", self=kept), other=cell), other=added)
    return make("mul", self=make("sigmoid", self=out), other=make("tanh", self=cell)), cell


FORMS: dict[str, Form] = {
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "rsub": _rsub,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
    "addmm": _product_added("mm", "mat1", "mat2"),
    "_sparse_addmm": _product_added("mm", "mat1", "mat2"),
    "addmv": _product_added("mv", "mat", "vec"),
    "addr": _product_added("outer", "vec1", "vec2"),
    "baddbmm": _product_added("bmm", "batch1", "batch2"),
    "addbmm": _addbmm,
    "_addmm_activation": _addmm_activation,
    "index_add": _added_at("index_add", "source"),
    "scatter_add": _added_at("scatter_add", "src"),
    "scatter_reduce": _added_at("scatter_reduce", "src", "reduce", "sum"),
    "scatter": _added_at("scatter", "src", "reduce", "add"),
    "index_put": _added_at("index_put", "values", "accumulate", True),
    "_unsafe_index_put": _added_at("_unsafe_index_put", "values", "accumulate", True),
    "sum": _stack_summed,
    "mean": _stack_averaged,
    "einsum": _einsum,
    "gru_cell": _gru_cell,
    "lstm_cell": _lstm_cell,
}
"""Forms by op, as in `OPS`, where those have a row that do not write out every call."""


def _negated(node: Node) -> bool:
    factor = node.arguments.get("other")
    return node.op == "neg" or (node.op == "mul" and isinstance(factor, int | float) and factor == -1)


def _takes_off(one: Any, other: Any) -> bool:
    """Whether one of two values is made of the other by nothing that mixes with weights: `x - mean(x)`, `pool(x) - x`.

    Their difference centres, and adds no branch to `x`.
    """
    if not (isinstance(one, Node) and isinstance(other, Node)):
        return False
    early, late = sorted((one, other), key=lambda node: node.index)
    stack, seen, reached = [late], {late.index}, False
    while stack:
        node = stack.pop()
        if node is early:
            reached = True
            continue
        if node.effect(Effect.MIX):
            return False
        for read in node.inputs:
            if read.index >= early.index and read.index not in seen:
                seen.add(read.index)
                stack.append(read)
    return reached


def decompositions() -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """The forms for `ExportedProgram.run_decompositions`."""
    writing = False  # what a form makes stands

    def make(op: str, /, shape: Any = None, **arguments: Any) -> Any:
        return getattr(torch.ops.aten, op)(**arguments)

    def decomposed(form: Form, names: list[str]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal writing
            if writing:
                return NotImplemented
            writing = True
            try:
                written = form(make, dict(zip(names, args, strict=False)) | kwargs)
            finally:
                writing = False
            return NotImplemented if written is None else written

        return run

    table: dict[torch._ops.OperatorBase, Callable[..., Any]] = {}
    for op, form in FORMS.items():
        packet = getattr(torch.ops.aten, op)
        for overload in packet.overloads():
            target = getattr(packet, overload)
            if not overload.endswith("out") and "Tensor" in str(target._schema.arguments[0].type):
                table[target] = decomposed(form, [argument.name for argument in target._schema.arguments])
    return table
