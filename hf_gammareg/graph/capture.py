"""From a model to its program: by `torch.export` on fake tensors, or else by one real run."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_only

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.chance import Chance, held
from hf_gammareg.graph.record import copied, record
from hf_gammareg.graph.untouched import hooks_rest, untouched
from hf_gammareg.graph.writes import taken_back
from hf_gammareg.model.known import integers_known
from hf_gammareg.model.quantised import plain_layers
from hf_gammareg.model.whole import placement
from hf_gammareg.quiet import quiet

Way = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Chance], ExportedProgram]
"""A way to trace a model in the mode that it is in."""


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[ExportedProgram, str]:
    """Export a model: in train mode, else in eval mode, else with its integers known; else record one real run.

    Tensors have no values while a model is exported. One that asks for the values of its integers is exported with
    these as constants (see `hf_gammareg.model.known`). What remains is run, once, on its own parameters, and what it
    calls written down: that holds for the one path that these inputs take. A model that refuses its inputs in both
    modes is not traced again. Where random numbers decide which layers run, all of them do. Quantised layers are traced
    as plain ones (see `hf_gammareg.model.quantised`).

    The model is as before when this returns: modes, parameters, buffers, hooks, attributes and RNG state.

    Args:
        model: any model, on any device, `meta` included.
        args, kwargs: example inputs on the model's device, or with values on the CPU for a model on `meta`.

    Returns:
        The program, which shares the model's parameters, and how it was had, for the report.

    Raises:
        GammaRegError: if these are not the arguments of the model's forward; nothing is traced then. If the model is a
            ScriptModule, or its values leave torch.
        Exception: whatever the model raised in train mode, where nothing else worked either.
    """
    _check_arguments(model, args, kwargs)
    failures: list[Exception] = []
    eager = torch.compiler.set_stance("force_eager")
    with quiet(), torch.no_grad(), eager, _usual_device(model), plain_layers(model):
        for known, mode in product((False, True), ("train", "eval")):
            try:
                program, mode = _all_seen(_export_known if known else _export, model, args, kwargs, mode)
                return program, f"export ({mode} mode{', integers known' if known else ''})"
            except Exception as error:
                failures.append(error)
            if _refused(failures):
                raise failures[0]
        runs: list[Exception] = []
        for hooks, mode in product(("own", "all") if hooks_rest(model) else ("own",), ("train", "eval")):
            try:
                program, mode = _all_seen(_record, model, args, kwargs, mode, hooks)
                return program, f"recorded run ({mode} mode, one path)"
            except Exception as error:
                runs.append(error)
    raise runs[0]


def _all_seen(
    way: Way, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], mode: str, hooks: str = "own"
) -> tuple[ExportedProgram, str]:
    """Trace a model in a mode; where random numbers leave parts of it out, so or in eval mode, as most is read."""

    def traced(mode: str, value: float) -> tuple[ExportedProgram, bool]:
        with untouched(model, hooks), held(value) as chance:
            model.train(mode == "train")  # asked, not set: a model may keep its norms frozen
            program = way(model, args, kwargs, chance)
        return program, chance.asked

    program, asked = traced(mode, 1.0)
    found = [(_unread(program), mode, program)]
    for other, value in ((mode, 0.0), ("eval", 1.0)) if asked and mode == "train" else ():
        if found[0][0]:
            with contextlib.suppress(Exception):
                program, _ = traced(other, value)
                found.append((_unread(program), other, program))
    _, mode, program = min(found, key=lambda one: one[0])
    return program, mode


def _unread(program: ExportedProgram) -> int:
    """How many parameters nothing in a program reads."""
    names = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "PARAMETER"}
    return sum(node.name in names and not node.users for node in program.graph.find_nodes(op="placeholder"))


@contextlib.contextmanager
def _usual_device(model: nn.Module) -> Iterator[None]:
    """Keep a default device in force that is not the model's from what its forward makes."""
    default = torch.get_default_device()
    foreign = default.type == "meta" or default.type not in ("cpu", placement(model)[0].type)
    with torch.device("cpu") if foreign else contextlib.nullcontext():
        yield


def _check_arguments(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse what the model's forward can't be called with: no other way to trace would help."""
    if isinstance(model, torch.jit.ScriptModule):
        raise GammaRegError(
            f"Expected a model whose forward is Python, found a ScriptModule ({getattr(model, 'original_name', '')}). "
            "Pass the module that it was made from."
        )
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise GammaRegError(
            f"Expected example inputs that {type(model).__name__}.forward takes, found others ({error}). Pass what you "
            "would pass to the model."
        ) from error
    except ValueError:  # a forward written in C does not tell its signature
        return


def _refused(failures: list[Exception]) -> bool:
    """Whether the model itself said no to its inputs, in either mode: what tracing cannot do is no ValueError."""
    return [type(error) for error in failures] == [ValueError] * 2 and len({str(error) for error in failures}) == 1


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], _: Chance) -> ExportedProgram:
    if placement(model)[0].type == "meta":
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), (args, dict(kwargs)))
    with taken_back(model):
        return torch.export.export(model, args, dict(kwargs), strict=False)


def _export_known(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], _: Chance) -> ExportedProgram:
    def with_values(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.is_floating_point() or tensor.is_meta else copied(tensor.cpu())

    args, kwargs = tree_map_only(torch.Tensor, with_values, (args, dict(kwargs)))
    with taken_back(model), integers_known(model, args, kwargs, placement(model)[0]) as (args, kwargs):
        return torch.export.export(model, args, dict(kwargs), strict=False)


def _record(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], chance: Chance) -> ExportedProgram:
    if placement(model)[0].type == "meta":
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), (args, dict(kwargs)))
        try:
            return record(model, args, kwargs, chance)
        except Exception as error:
            if "meta" not in str(error).lower():
                raise
            raise GammaRegError(
                f"Expected a model on the meta device that asks for no values, found one that does ({error}). Build it "
                "on the CPU."
            ) from error
    return record(model, args, kwargs, chance)
