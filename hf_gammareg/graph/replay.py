"""A forward pass, op by op: an exported program, run on values of one's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.custom import asked, called
from hf_gammareg.graph.functional import functional
from hf_gammareg.graph.nodes import Graph
from hf_gammareg.graph.program import read, spelled
from hf_gammareg.graph.rows import Arguments, OpRow
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.quantised import is_quantised


class Replay:
    """The ops of an exported program in the order in which they run, to be run on values of one's own.

    It holds no parameters and no buffers: a run is given them. So it goes on with a model that is trained, and with
    one that is not the model it was traced from but has the same names.

    Args:
        program: an exported program, for the inputs that it was traced with.
        model: the model that it was traced from, for the names of its parameters.
        source: how the program was had.

    Raises:
        GammaRegError: if its ops in place can't be written as others, or a layer of the model is quantised.
    """

    def __init__(self, program: torch.export.ExportedProgram, model: nn.Module, source: str) -> None:
        if is_quantised(model):
            raise GammaRegError(
                "Expected a model of plain weights to run op by op, found quantised ones, which were traced by their "
                "shapes alone. Run it as it was before it was quantised, or leave the measurement out."
            )
        program = functional(program, model)
        if "eval mode" in source:
            _train(program.graph)
        self.graph: Graph = read(program, model, source)
        self.steps: list[fx.Node] = [node for node in program.graph.nodes if node.op == "call_function"]
        """The ops in the order in which they run."""
        self.outputs = tuple(self.graph.nodes[index] for index in sorted(self.graph.outputs))
        """What the model returns."""
        self.parameters: dict[str, list[str]] = {}
        """Canonical names of parameters and names of buffers, each with those of the values that hold them."""
        self._given: dict[str, Any] = {}
        names = parameter_names(model).live
        # What tracing made of the inputs: integers may have become constants.
        inputs = iter(torch.utils._pytree.tree_leaves(program.example_inputs))
        for spec in program.graph_signature.input_specs:
            name, target = getattr(spec.arg, "name", ""), str(spec.target)
            if spec.kind.name == "USER_INPUT":
                self._given[name] = next(inputs)
            else:
                target = names.get(target, target)
                self.parameters.setdefault(target, []).append(name)
                self._given |= {name: program.constants[target]} if target in program.constants else {}
        for node in program.graph.nodes:
            if node.op == "get_attr":
                self._given[node.name] = getattr(program.graph_module, str(node.target))

    def start(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What is there before the first op, by its name in the program.

        Args:
            state: parameters and buffers, as `hf_gammareg.model.values.state` names them.
        """
        found = dict(self._given)
        for target, names in self.parameters.items():
            if target in state:
                found |= dict.fromkeys(names, state[target])
        return {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in found.items()}

    def steadily(
        self, state: Mapping[str, Any], kept: Mapping[str, Collection[str]]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Run each op as it is, with what is random held still; a value goes when nothing needs it any more.

        Args:
            state: parameters and buffers, as `hf_gammareg.model.values.state` names them.
            kept: by the name of an op those of values that are there until it has run.

        Yields:
            Of each op in turn its name, and the values there are after it.
        """
        last: dict[str, str] = {}
        for step in self.steps:
            needed = (step.name, *(node.name for node in step.all_input_nodes), *kept.get(step.name, ()))
            last |= dict.fromkeys(needed, step.name)
        done: dict[str, list[str]] = {}
        for name, step_name in last.items():
            done.setdefault(step_name, []).append(name)
        values = self.start(state)
        for step in self.steps:
            values[step.name] = steady(step, values)
            yield step.name, values
            for name in done.get(step.name, ()):
                del values[name]


def _train(graph: fx.Graph) -> None:
    """Let batch norms normalise by their batch's statistics, as in training, in a program that was had in eval mode."""
    for node in graph.nodes:
        if node.target is torch.ops.aten._native_batch_norm_legit_no_training.default:
            node.target = torch.ops.aten._native_batch_norm_legit.no_stats
            node.args = (*node.args[:3], True, *node.args[5:])


def call(step: fx.Node, values: Mapping[str, Any]) -> Any:
    """Run one op of the pass, for large factors to go through.

    It computes in double precision, whatever the program was traced in. What is random is held still, ReLU6 lacks its
    upper bound, which a large factor would meet, and norms have almost no eps.
    """
    row, run, arguments = _asked(step, values, wide=True)
    way = row and (row.far or row.still)
    with torch.no_grad():
        return way(run, arguments) if way else run(arguments)


def double(value: Any) -> Any:
    """A floating point or complex tensor, or the name of such a type, in double precision; anything else as it is."""
    kind = value.dtype if isinstance(value, torch.Tensor) else value
    if not isinstance(kind, torch.dtype) or not (kind.is_floating_point or kind.is_complex):
        return value
    wide = torch.complex128 if kind.is_complex else torch.float64
    return value.to(wide) if isinstance(value, torch.Tensor) else wide


def steady(step: fx.Node, values: Mapping[str, Any]) -> Any:
    """Run one op of the pass as it is, with what is random held still."""
    row, run, arguments = _asked(step, values)
    with torch.no_grad():
        return row.still(run, arguments) if row and row.still else run(arguments)


def _asked(
    step: fx.Node, values: Mapping[str, Any], wide: bool = False
) -> tuple[OpRow | None, Callable[[Arguments], Any], dict[str, Any]]:
    """An op's row, what runs it on its arguments by the names that the row gives them, and these."""
    target: Any = step.target
    args, kwargs = fx.node.map_arg((step.args, dict(step.kwargs)), lambda node: values[node.name])
    if wide:
        args, kwargs = torch.utils._pytree.tree_map(double, (args, kwargs))
    op, given = spelled(target, args, kwargs)
    row, arguments = asked(op, given)
    if row is None or not (row.far or row.still):
        return row, lambda _: target(*args, **kwargs), arguments

    def run(changed: Arguments) -> Any:
        words = called(op, given)
        found = [
            (name, value if word is None else changed[word])
            for (name, value), word in zip(given.items(), words, strict=True)
        ]
        left_out = {word: value for word, value in changed.items() if word not in words}
        return target(*(value for _, value in found[: len(args)]), **dict(found[len(args) :]), **left_out)

    return row, run, arguments
