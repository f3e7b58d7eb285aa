"""Reads an exported program into our records: subgraphs in place, writes through views made explicit."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import fx, nn

from hf_gammareg.graph.custom import asked, written_out
from hf_gammareg.graph.nodes import Graph, Node, mark_activations, nodes_in
from hf_gammareg.graph.rewrite import Make
from hf_gammareg.graph.rows import Effect, Layout
from hf_gammareg.model.names import parameter_names

INLINED = {
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "wrap_activation_checkpoint",
    "tag_activation_checkpoint",
}
"""Higher-order ops that call a subgraph once: read as if it stood in place."""

WHOLE = {torch.ops.aten.detach.default, torch.ops.aten.alias.default, torch.ops.aten.slice.Tensor}
"""Views that are all of what they view where they have its shape."""


def read(program: torch.export.ExportedProgram, model: nn.Module, source: str) -> Graph:
    """Read an exported program into our records."""
    return _Builder(program, model, training="eval mode" not in source).graph(source)


def spelled(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the table calls a function of a program, and its arguments by name: in the order in which they are given."""
    op, names = _declared(target)
    more = [f"argument {place}" for place in range(len(names), len(args))]
    return op, {**dict(zip((*names, *more), args, strict=False)), **kwargs}


@functools.cache
def _declared(target: Any) -> tuple[str, tuple[str, ...]]:
    """What the table calls a function, and the names of its arguments as far as it declares them."""
    if isinstance(target, torch._ops.OpOverload):
        op = target._schema.name.removeprefix("aten::")
        op = op.removesuffix("_") if in_place(target) else op
        return op, tuple(argument.name for argument in target._schema.arguments)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order::{target.__name__}", tuple(inspect.signature(target.__call__).parameters)
    return getattr(target, "__name__", str(target)), ("self", "item") if target is operator.getitem else ()


class _Builder:
    """Reads an exported program into Nodes: subgraphs inlined, in-place writes to views made explicit."""

    def __init__(self, program: torch.export.ExportedProgram, model: nn.Module, training: bool) -> None:
        self.program, self.training = program, training
        self.nodes: list[Node] = []
        self.canonical = parameter_names(model).live

    def graph(self, source: str) -> Graph:
        signature = self.program.graph_signature
        kinds: dict[str, tuple[str, str | None]] = {}
        for spec in signature.input_specs:
            name = getattr(spec.arg, "name", "")
            if spec.kind.name == "PARAMETER" and spec.target is not None:
                kinds[name] = ("parameter", self.canonical.get(spec.target, spec.target))
            elif spec.kind.name != "USER_INPUT":
                kinds[name] = ("buffer", None)
        values: dict[fx.Node, Any] = {}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                op, parameter = kinds.get(node.name, ("input", None))
                made = values[node] = self._add(op, {}, node.meta.get("val"), "", parameter)
                made.name = node.name
        returned = self._run(self.program.graph_module, values, "")
        users = {
            spec.arg.name
            for spec in signature.output_specs
            if spec.kind.name in ("USER_OUTPUT", "LOSS_OUTPUT") and hasattr(spec.arg, "name")
        }
        output: Any = next(node for node in self.program.graph.nodes if node.op == "output")
        wanted = [
            value
            for fx_node, value in zip(output.args[0], returned, strict=True)
            if getattr(fx_node, "name", None) in users
        ]
        mark_activations(self.nodes)
        return Graph(nodes=tuple(self.nodes), outputs=frozenset(node.index for node in nodes_in(wanted)), source=source)

    def _run(self, module: fx.GraphModule, values: dict[fx.Node, Any], prefix: str) -> Any:
        """Read one graph whose placeholders are bound in `values`; returns what its output holds."""
        for node in module.graph.nodes:
            if node.op == "get_attr":
                attribute = operator.attrgetter(str(node.target))(module)
                is_graph = isinstance(attribute, fx.GraphModule)
                values[node] = attribute if is_graph else self._add("buffer", {}, attribute, prefix)
            elif node.op == "call_function":
                values[node] = self._call(node, values, prefix)
                made = values[node]
                if isinstance(made, Node) and module is self.program.graph_module:
                    made.name = made.name or node.name
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], lambda n: values[n])
        raise AssertionError("an exported graph has an output")

    def _call(self, node: fx.Node, values: dict[fx.Node, Any], prefix: str) -> Any:
        target: Any = node.target
        args: Any = fx.node.map_aggregate(node.args, lambda a: values[a] if isinstance(a, fx.Node) else a)
        kwargs: Any = fx.node.map_aggregate(node.kwargs, lambda a: values[a] if isinstance(a, fx.Node) else a)
        path = _module_path(node) or prefix
        name = getattr(target, "__name__", str(target))
        if name in INLINED:
            place = next(i for i, value in enumerate(args) if isinstance(value, fx.GraphModule))
            subgraph, operands = args[place], args[place + 1 :]
            holders = [inner for inner in subgraph.graph.nodes if inner.op == "placeholder"]
            return self._run(subgraph, dict(zip(holders, operands, strict=True)), path)
        if target is operator.getitem and isinstance(args[0], tuple | list):
            return args[0][args[1]]
        op, arguments = spelled(target, args, kwargs)
        if not self.training:  # roles are those of training, whatever mode could be traced
            arguments |= {name: True for name in ("training", "use_input_stats") if name in arguments}
        if op == "slice" and (whole := _part_of_join(arguments)) is not None:
            return whole
        made = written_out(op, arguments, self._maker(path))
        if made is None:
            made = self._add(op, arguments, node.meta.get("val"), path)
        if in_place(target):
            self._write_through(node, made, values, path)
        return made

    def _maker(self, path: str) -> Make:
        """What adds ops that a form writes out, in a module."""

        def make(op: str, /, shape: tuple[int, ...] | None = None, **arguments: Any) -> Node:
            made = self._add(op, arguments, None, path)
            made.shape, made.floating, made.tensor = shape or _broadcast(arguments), True, True
            return made

        return make

    def _write_through(self, node: fx.Node, made: Node, values: dict[fx.Node, Any], path: str) -> None:
        """After an in-place op, whoever reads what it wrote over, or what that is a view of, reads what it wrote."""
        base: Any = node.args[0]
        while isinstance(base, fx.Node):
            values[base] = made
            if not (base.op == "call_function" and base.args):
                return
            parent: Any = base.args[0]
            above = values.get(parent) if isinstance(parent, fx.Node) else None
            if is_view(base) and isinstance(above, Node) and above.floating:
                if not (base.target in WHOLE and made.shape == above.shape):
                    arguments = {"self": above, "values": made}
                    made = self._add("mutate", arguments, None, path)
                    made.shape, made.floating, made.tensor = above.shape, True, True
            elif not in_place(base.target):
                return
            base = parent

    def _add(self, op: str, arguments: dict[str, Any], value: Any, path: str, parameter: str | None = None) -> Node:
        tensors = [
            item for item in (value if isinstance(value, tuple | list) else [value]) if isinstance(item, torch.Tensor)
        ]
        row, arguments = asked(op, arguments)
        unread = arguments if row and row.effect is Effect.NOTHING else row.ignores if row else ()
        read = [argument for name, argument in arguments.items() if name not in unread]
        node = Node(
            index=len(self.nodes),
            op=op,
            row=row,
            arguments=arguments,
            inputs=tuple(dict.fromkeys(nodes_in(read))),
            shape=tuple(_size(s) for s in value.shape) if isinstance(value, torch.Tensor) else None,
            floating=any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors),
            tensor=bool(tensors),
            module=path,
            parameter=parameter,
        )
        for operand in node.inputs:
            operand.users.append(node)
        self.nodes.append(node)
        return node


def _part_of_join(arguments: dict[str, Any]) -> Node | None:
    """The operand of a concatenation that a slice of it takes back out, whole; None if it takes anything else."""
    joined, dim = arguments["self"], arguments.get("dim", 0)
    row = joined.row if isinstance(joined, Node) else None
    if not (row and row.effect is Effect.JOIN and row.layout is Layout.KEPT and joined.shape):
        return None
    rank = len(joined.shape)
    if (joined.arguments.get("dim", 0) - dim) % rank or arguments.get("step", 1) != 1:
        return None
    size = joined.shape[dim]
    start, end = arguments.get("start") or 0, arguments.get("end")
    end = size if end is None else end
    if not (isinstance(start, int) and isinstance(end, int) and size >= 0):
        return None
    start, end = start + size * (start < 0), min(end + size * (end < 0), size)
    offset = 0
    for operand in joined.operands("tensors"):
        length = operand.shape[dim] if operand.shape else -1
        if (offset, offset + length) == (start, end):
            return operand
        offset += length
    return None


def _broadcast(arguments: dict[str, Any]) -> tuple[int, ...] | None:
    """The shape of what an op makes at each position of its operands; of sizes that the data decide, the larger."""
    shapes = [node.shape or () for node in nodes_in(arguments)]
    sizes = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return tuple(next((size for size in size_ if size != 1), 1) for size_ in sizes)[::-1]


def _size(size: Any) -> int:
    """A dimension; -1 where the data decide it."""
    return size if isinstance(size, int) else -1


def _module_path(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return stack[-1][0] if stack else ""


@functools.cache
def in_place(target: Any) -> bool:
    """Whether an op writes over its first argument, and returns it."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    op = target._schema.name.split("::")[1]
    return op.endswith("_") and not op.endswith("__")


def is_view(node: fx.Node) -> bool:
    """Whether an op returns (a part of) its first argument itself, so that writing to the one writes to the other."""
    if node.target is operator.getitem:
        return True
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or in_place(target):
        return False
    returns = target._schema.returns
    copies = target._schema.name in ("aten::contiguous", "aten::to")  # mostly, or for nothing
    return bool(returns) and returns[0].alias_info is not None and not copies
