"""A program without ops in place: values can be shared between runs of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.program import in_place, is_view
from hf_gammareg.graph.record import as_program
from hf_gammareg.graph.rewrite import decompositions
from hf_gammareg.graph.untouched import same_random_state
from hf_gammareg.graph.writes import taken_back, written
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.values import state


def functional(program: ExportedProgram, model: nn.Module) -> ExportedProgram:
    """Write ops in place as others, and those that are several ops in one as in the graph.

    What fake tensors can't hold (sparse matrices, packed sequences) is run once on the values of the inputs.

    Args:
        program: an exported or recorded program.
        model: the model that it was traced from, which is left as it was.

    Raises:
        GammaRegError: if neither is possible.
    """
    try:
        return program.run_decompositions(decompositions())
    except Exception:
        try:
            return _on_values(program, model)
        except Exception as error:
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise GammaRegError(
                f"Expected a model whose values can be measured op by op, found one where they can't ({said}). Look at "
                "the roles of its gammas without running it."
            ) from error


def _on_values(program: ExportedProgram, model: nn.Module) -> ExportedProgram:
    values, names = state(model), parameter_names(model).live
    held: dict[int, tuple[str, Tensor]] = {}
    inputs: dict[int, Tensor] = {}
    given: list[Any] = []
    leaves = iter(tree_leaves(program.example_inputs))
    for place, spec in enumerate(program.graph_signature.input_specs):
        target = names.get(str(spec.target), str(spec.target))
        if spec.kind.name == "USER_INPUT":
            given.append(next(leaves))
            if isinstance(given[-1], Tensor):
                inputs[place] = given[-1]
        elif target in values:
            given.append(values[target])
            held[place] = target, values[target]
        else:
            given.append(program.constants[target])
    interpreter = fx.Interpreter(_without_writes(program.graph_module))

    def run(*tensors: Tensor) -> Any:
        known = dict(zip((*held, *inputs), tensors, strict=True))
        arguments = [known.get(place, value) for place, value in enumerate(given)]
        return list(interpreter.run(*arguments, enable_io_processing=False))

    forms: Any = decompositions()
    trace = make_fx(run, forms, pre_dispatch=True, _error_on_data_dependent_ops=False)
    with (
        torch.no_grad(),
        same_random_state(),
        fx.traceback.preserve_node_meta(),
        tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))),
        taken_back(model),
    ):
        module = trace(*(tensor for _, tensor in held.values()), *inputs.values())
    buffers = {place for place, (target, _) in held.items() if target not in names.values()}
    assert program.call_spec.out_spec is not None
    return as_program(module, held, buffers, [*inputs.values()], program.call_spec.out_spec)


def _without_writes(module: fx.GraphModule) -> fx.GraphModule:
    """The same ops, where those in place are others and norms leave the running statistics alone."""
    graph = copy.deepcopy(module.graph)
    places = {node: place for place, node in enumerate(graph.nodes)}
    for node in places:
        target: Any = node.target
        writes = dict(written(target)) if isinstance(target, torch._ops.OpOverload) else {}
        if not writes:
            continue
        if {"running_mean", "running_var"}.issuperset(writes.values()):
            given = dict(zip((argument.name for argument in target._schema.arguments), node.args, strict=False))
            if given.get("training", given.get("use_input_stats")):
                node.args = tuple(None if place in writes else value for place, value in enumerate(node.args))
        elif in_place(target) and not _shared(node.args[0], places[node], places):
            plain = target._schema.name.removeprefix("aten::").removesuffix("_")
            node.target = getattr(getattr(torch.ops.aten, plain), target._overloadname)
            node.args[0].replace_all_uses_with(node, lambda user, at=places[node]: places[user] > at)
        else:
            raise ValueError(f"{target} writes to a part of a value")
    return fx.GraphModule(module, graph)


def _shared(base: fx.Node, after: int, places: Mapping[fx.Node, int]) -> bool:
    """Whether a value is a part of another one, or one is a part of it that is read afterwards."""
    parts = [user for user in base.users if is_view(user) and places[user] < after]
    return is_view(base) or any(places[reader] > after for part in parts for reader in part.users)
