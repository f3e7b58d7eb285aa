"""One forward pass, op by op: every value of an exported program, and what becomes of them when some change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.capture import trace
from hf_gammareg.graph.custom import asked, called
from hf_gammareg.graph.nodes import Graph
from hf_gammareg.graph.program import read, spelled
from hf_gammareg.graph.rewrite import decompositions
from hf_gammareg.graph.rows import Arguments, OpRow
from hf_gammareg.model.names import parameter_names


class Replay:
    """The values of one forward pass in train mode, without dropout, and the same pass from changed parameters.

    Args:
        model: a model with real parameters; its program shares them, nothing writes to them.
        args, kwargs: inputs with values.

    Raises:
        GammaRegError: if the model can't be traced.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        try:
            program, source = trace(model, args, kwargs)
            # No op in place: values can be shared between runs. Ops written out, as in the graph.
            program = program.run_decompositions(decompositions())
        except Exception as error:
            raise GammaRegError(
                f"Expected a model that torch.export can trace, found one that it can't ({error}). Pass inputs that "
                "reach its norms, or check its roles by hand."
            ) from error
        self.graph: Graph = read(program, model, source)
        self.steps: list[fx.Node] = [node for node in program.graph.nodes if node.op == "call_function"]
        """The ops in the order in which they run."""
        self.outputs = tuple(self.graph.nodes[index] for index in sorted(self.graph.outputs))
        """What the model returns."""
        self.parameters: dict[str, list[str]] = {}
        """Names of parameters and buffers, each with those of the values that hold them."""
        self.values = self._held(program, parameter_names(model).live, args, kwargs)
        """Every value of the unchanged pass, by its name in the program."""
        for step in self.steps:
            self.values[step.name] = call(step, self.values)

    def _held(
        self,
        program: torch.export.ExportedProgram,
        names: Mapping[str, str],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What is there before the first op: inputs, parameters, buffers, constants."""
        found: dict[str, Any] = {}
        # What tracing made of the inputs, where it made anything: integers may have become constants.
        given = iter(torch.utils._pytree.tree_leaves(program.example_inputs or (args, dict(kwargs))))
        held = {**program.state_dict, **program.constants}
        for spec in program.graph_signature.input_specs:
            name = getattr(spec.arg, "name", "")
            if spec.kind.name == "USER_INPUT":
                found[name] = next(given)
            else:
                assert spec.target is not None
                found[name] = held[spec.target]
                self.parameters.setdefault(names.get(spec.target, spec.target), []).append(name)
        for node in program.graph.nodes:
            if node.op == "get_attr":
                found[node.name] = getattr(program.graph_module, str(node.target))
        return {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in found.items()}

    def changed(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Run again what depends on these values, and nothing else.

        Returns:
            The values that were computed anew, by name, and those that were given.
        """
        values, anew = {**self.values, **held}, dict(held)
        for step in self.steps:
            if any(node.name in anew for node in step.all_input_nodes):
                values[step.name] = anew[step.name] = call(step, values)
        return anew


def call(step: fx.Node, values: Mapping[str, Any]) -> Any:
    """Run one op of the pass, for large factors to go through.

    What is random is held still, ReLU6 lacks its upper bound, which a large factor would meet, and norms have almost
    no eps.
    """
    row, run, arguments = _asked(step, values)
    way = row and (row.far or row.still)
    with torch.no_grad():
        return way(run, arguments) if way else run(arguments)


def steady(step: fx.Node, values: Mapping[str, Any]) -> Any:
    """Run one op of the pass as it is, with what is random held still."""
    row, run, arguments = _asked(step, values)
    with torch.no_grad():
        return row.still(run, arguments) if row and row.still else run(arguments)


def _asked(step: fx.Node, values: Mapping[str, Any]) -> tuple[OpRow | None, Callable[[Arguments], Any], dict[str, Any]]:
    """An op's row, what runs it on its arguments by the names that the row gives them, and these."""
    target: Any = step.target
    args, kwargs = fx.node.map_arg((step.args, dict(step.kwargs)), lambda node: values[node.name])
    op, given = spelled(target, args, kwargs)
    row, arguments = asked(op, given)
    if row is None or not (row.far or row.still):
        return row, lambda _: target(*args, **kwargs), arguments

    def run(changed: Arguments) -> Any:
        words = zip(given.items(), called(op, given), strict=True)
        found = [(name, value if word is None else changed[word]) for (name, value), word in words]
        return target(*(value for _, value in found[: len(args)]), **dict(found[len(args) :]))

    return row, run, arguments
