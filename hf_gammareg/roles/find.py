"""From a model to what is known of it, its gammas above all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.capture import trace
from hf_gammareg.graph.nodes import Graph
from hf_gammareg.graph.program import read
from hf_gammareg.graph.uncollected import uncollected
from hf_gammareg.inputs.batch import without_labels
from hf_gammareg.inputs.derive import arguments
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.whole import placement, whole
from hf_gammareg.roles.gammas import UNTRAINED, Gamma, GammaMap, Role
from hf_gammareg.roles.residual import Ancestry, find_sums
from hf_gammareg.roles.sites import Site, find_sites
from hf_gammareg.roles.sums import Sum
from hf_gammareg.roles.walk import Use, find_uses, unruled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """What is known of a model from one export of it: made once by `analyse`, and taken by all that looks further.

    Of a model that can't be traced there are no program, graph, sums and sites; its gammas say why.
    """

    gammas: GammaMap
    """The gammas and their roles."""
    args: tuple[Any, ...]
    """The positional arguments that the model was traced with."""
    kwargs: dict[str, Any]
    """The keyword arguments."""
    device: torch.device
    """Where the model lay; a program has constants there."""
    program: torch.export.ExportedProgram | None = None
    """The exported program, for inputs of these shapes. It holds the model's own parameters, no copies."""
    graph: Graph | None = None
    """The forward pass, as read from the program."""
    ancestry: Ancestry | None = None
    """Which of its values come from which."""
    sums: Mapping[int, Sum] = field(default_factory=dict)
    """Its sums of activations, by the index of the node that sums."""
    sites: tuple[Site, ...] = ()
    """Where gammas multiply in it."""

    def untraceable(self, purpose: str, advice: str) -> GammaRegError:
        """The error for what needs a program, where there is none."""
        why = self.gammas.source.removeprefix("none: ")
        return GammaRegError(
            f"Expected a model that torch.export can trace {purpose}, found one that it can't ({why}). {advice}"
        )


def analyse(model: nn.Module, example_inputs: Any = None) -> Analysis:
    """Trace a model once and find all there is to know of its gammas.

    >>> from torch import zeros
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    >>> analysis = analyse(model, zeros(2, 3, 8, 8))
    >>> analysis.gammas.counts, [site.parameter for site in analysis.sites]
    ({'final': 1, 'absorbed': 1}, ['1.weight', '4.weight'])

    The arguments, and what is raised, are those of `find_gammas`.
    """
    found = _looked(model, example_inputs)
    if found.program is None and (inputs := without_labels(example_inputs)) is not None:
        again = _looked(model, inputs)
        return found if again.program is None else again
    return found


def _looked(model: nn.Module, example_inputs: Any) -> Analysis:
    try:
        args, kwargs = arguments(model, example_inputs)
    except GammaRegError:
        raise
    except Exception as error:
        return unknown(model, f"its own configuration gives no example inputs ({_first_line(error)}). Pass some.")
    traced = whole(model)
    try:
        return _found(traced, args, kwargs)
    except Exception as error:
        return unknown(traced, _first_line(error), args, kwargs)


def _found(traced: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Analysis:
    program, source = trace(traced, args, kwargs)
    graph = read(program, traced, source)
    ancestry = Ancestry(graph)
    sums, inner = find_sums(graph, ancestry)
    sites = tuple(find_sites(graph))
    kinds = norm_parameters(traced)
    uses = unruled(graph, kinds) | find_uses(graph, sites, sums, inner, ancestry)
    read_names = {node.parameter for node in graph.nodes if node.parameter and node.users}
    missing: dict[str, list[Use]] = {name: [] for name in kinds if name not in read_names}
    return Analysis(
        gammas=GammaMap(
            gammas=_gammas(traced, uses | missing, kinds, why="Not reached by the example inputs."),
            source=source,
            not_gammas={name: NOT_A_GAMMA for name in kinds if name in read_names and name not in uses},
        ),
        args=args,
        kwargs=kwargs,
        device=placement(traced)[0],
        program=program,
        graph=graph,
        ancestry=ancestry,
        sums=sums,
        sites=sites,
    )


def unknown(
    model: nn.Module, why: str, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> Analysis:
    """What is known of a model that was not traced: its layers called norm, and why there is no more."""
    return _untraced(model, f"The model could not be traced: {why}", f"none: {why}", args, kwargs)


def untrained(model: nn.Module) -> Analysis | None:
    """What is known without tracing of a model that trains nothing that can be a gamma; None where it may train one.

    The weights of layers that mix can't be, and biases (adapters, a head on a frozen body); whatever else may.

    >>> head = nn.Sequential(nn.LayerNorm(4).requires_grad_(False), nn.Linear(4, 2))
    >>> untrained(head).gammas["0.weight"].reason
    'It is not trained, nor is any gamma, so nothing was traced.'
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and not isinstance(module, MIXING) and "bias" not in name:
                return None
    return _untraced(model, "It is not trained, nor is any gamma, so nothing was traced.", UNTRAINED)


def _untraced(
    model: nn.Module, why: str, source: str, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> Analysis:
    model = whole(model)
    kinds = norm_parameters(model)
    return Analysis(
        gammas=GammaMap(gammas=_gammas(model, {name: [] for name in kinds}, kinds, why=why), source=source),
        args=args,
        kwargs=dict(kwargs or {}),
        device=placement(model)[0],
    )


@uncollected()
def find_gammas(model: nn.Module, example_inputs: Any = None) -> GammaMap:
    """Find the gammas of a model and the role that each plays in the residual network.

    >>> from torch import zeros
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    >>> gammas = find_gammas(model, zeros(2, 3, 8, 8))
    >>> [(gamma.name, str(gamma.role), gamma.exact) for gamma in gammas]
    [('1.weight', 'absorbed', True), ('4.weight', 'final', True)]

    The model is traced on fake tensors and left as it was: mode, buffers, hooks, attributes, RNG.

    Args:
        model: any PyTorch model, on any device, not yet sharded.
        example_inputs: what the model's forward takes, two examples: a tensor, a tuple of positional arguments, a
            dictionary of keyword arguments, or a pair of both; or a loader's batch, with labels that the model may not
            take. Default: made from what the model says of itself.

    Returns:
        The gammas in model order: those of `analyse(model, example_inputs)`. Where the model cannot be traced, each has
        the role `unknown` and the reason.

    Raises:
        GammaRegError: if `example_inputs` is of another form, or missing for a model that does not say what it takes.

    Source of the roles: this library's reading of Kim et al. (ACM TIST 2024, doi 10.1145/3643860); see `Role`.
    """
    return analyse(model, example_inputs).gammas


NOT_A_GAMMA = "It multiplies no normalised activation."


MIXING = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvNd, nn.RNNBase)
"""Layers whose weights are no gains."""

OF_TORCH = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def norm_parameters(model: nn.Module) -> dict[str, str]:
    """Names of vectors, biases apart, that belong to a module called norm, each with the kind its class says.

    What torch's own norms hold is a gain of any shape; a matrix of another class may be a weight.
    """
    kinds: dict[str, str] = {}
    owners = {
        id(parameter): (type(module).__name__.lower(), local, isinstance(module, OF_TORCH))
        for module in model.modules()
        for local, parameter in module.named_parameters(recurse=False)
    }
    for name, parameter in parameter_names(model).parameters.items():
        owner, local, of_torch = owners[id(parameter)]
        called = of_torch or "norm" in owner or "bn" in owner
        if (
            called
            and "bias" not in local
            and "beta" not in local
            and (of_torch or parameter.numel() == max(parameter.shape, default=0))
        ):
            words = {"rms": "rms_norm", "group": "group_norm", "instance": "instance_norm", "layer": "layer_norm"}
            default = "batch_norm" if "batch" in owner or "bn" in owner else "layer_norm"
            kinds[name] = next((kind for word, kind in words.items() if word in owner), default)
    return kinds


def _gammas(
    model: nn.Module, uses: Mapping[str, list[Use]], kinds: Mapping[str, str], *, why: str
) -> tuple[Gamma, ...]:
    gammas = []
    for name, parameter in parameter_names(model).parameters.items():
        if name not in uses:
            continue
        found = uses[name]
        read = [use for use in found if use.read] or found
        worst = min(read, key=lambda use: use.role.protection, default=None)
        gammas.append(
            Gamma(
                name=name,
                role=worst.role if worst else Role.UNKNOWN,
                kind=worst.site.kind if worst else kinds[name],
                numel=parameter.numel(),
                exact=bool(found) and all(use.exact for use in found) and len(found) == 1,
                placement=worst.placement if worst else None,
                zero_centered=any(use.site.zero_centered for use in found),
                trainable=parameter.requires_grad,
                reason=worst.reason if worst else why,
            )
        )
    return tuple(gammas)


def _first_line(error: BaseException) -> str:
    if isinstance(error, GammaRegError):
        return str(error)
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # of a class of the user's, which can't be printed
        lines = []
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
