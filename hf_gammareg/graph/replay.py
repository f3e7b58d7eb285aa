"""One forward pass, op by op: every value of an exported program, and what becomes of them when some change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.capture import trace
from hf_gammareg.graph.nodes import Graph
from hf_gammareg.graph.ops import NORM_KINDS
from hf_gammareg.graph.program import read
from hf_gammareg.model.names import parameter_names

_DROPOUT = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_RANDOM = ("rand", "rand_like", "randn", "randn_like", "uniform", "bernoulli", "normal", "normal_functional")

EPS = 1e-6
"""What remains of the eps of norms. A norm cancels a factor up to its eps, which is no part of a gamma's fate: with the
usual 1e-5 to 1e-3 the output of a deep network moves by up to 3 % of its spread, in proportion to eps."""


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
            program = program.run_decompositions({})  # no op in place: values can be shared between runs
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
    op, args, kwargs = _filled(step, values)
    target: Any = step.target
    if op in ("relu6", "hardtanh") and (len(args) < 2 or args[1] >= 0):
        with torch.no_grad():
            return torch.relu(args[0])
    if op in NORM_KINDS:
        place = [argument.name for argument in target._schema.arguments].index("eps")
        if len(args) > place and args[place] is not None:
            args = (*args[:place], args[place] * EPS, *args[place + 1 :])
        elif kwargs.get("eps") is not None:
            kwargs = {**kwargs, "eps": kwargs["eps"] * EPS}
    return _run(target, op, args, kwargs)


def steady(step: fx.Node, values: Mapping[str, Any]) -> Any:
    """Run one op of the pass as it is, with what is random held still."""
    return _run(step.target, *_filled(step, values))


def _filled(step: fx.Node, values: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """An op's name, if it is one of ATen's, and its arguments."""
    args, kwargs = fx.node.map_arg((step.args, dict(step.kwargs)), lambda node: values[node.name])
    return getattr(getattr(step.target, "_schema", None), "name", "").removeprefix("aten::"), args, kwargs


def _run(target: Any, op: str, args: Any, kwargs: Any) -> Any:
    with torch.no_grad():
        if op in _DROPOUT:
            return args[0]
        if op == "native_dropout":
            return args[0], torch.ones_like(args[0], dtype=torch.bool)
        if op == "bernoulli" and len(args) > 1 and isinstance(args[1], float):
            return torch.full_like(args[0], args[1])  # stochastic depth: divided by the same number next
        if op in _RANDOM:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return target(*args, **kwargs)
        if op == "scaled_dot_product_attention":
            kwargs = {name: value for name, value in kwargs.items() if name != "dropout_p"}
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
        return target(*args, **kwargs)
