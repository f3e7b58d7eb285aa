"""From a model to its gammas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_gammareg.graph.capture import capture
from hf_gammareg.inputs.derive import arguments
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.whole import whole
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role
from hf_gammareg.roles.walk import Use, analyse, unruled


def find_gammas(model: nn.Module, example_inputs: Any = None) -> GammaMap:
    """Find the gammas of a model and the role that each plays in the residual network.

    >>> from torch import nn, zeros
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    >>> gammas = find_gammas(model, zeros(2, 3, 8, 8))
    >>> [(gamma.name, str(gamma.role), gamma.exact) for gamma in gammas]
    [('1.weight', 'absorbed', True), ('4.weight', 'final', True)]

    The model is traced on fake tensors and left as it was: mode, buffers, hooks, attributes, RNG.

    Args:
        model: any PyTorch model, on any device, not yet wrapped or sharded.
        example_inputs: what the model's forward takes, two examples: a tensor, a tuple of positional arguments, a
            dictionary of keyword arguments, or a pair of both. Default: made from what the model says of itself.

    Returns:
        The gammas in model order. Where the model cannot be traced, each has the role `unknown` and the reason.

    Raises:
        GammaRegError: if `example_inputs` is of another form, or missing for a model that does not say what it takes.

    Source of the roles: this library's reading of Kim et al. (ACM TIST 2024, doi 10.1145/3643860); see `Role`.
    """
    args, kwargs = arguments(model, example_inputs)
    names = norm_parameters(model := whole(model))
    try:
        graph = capture(model, args, kwargs)
    except Exception as error:
        why = f"The model could not be traced: {_first_line(error)}"
        return _assemble(model, {name: [] for name in names}, names, source=f"none: {_first_line(error)}", why=why)
    uses = unruled(graph, names) | analyse(graph)
    read = {node.parameter for node in graph.nodes if node.parameter and node.users}
    missing: dict[str, list[Use]] = {name: [] for name in names if name not in read}
    others: dict[str, str] = {name: NOT_A_GAMMA for name in names if name in read and name not in uses}
    found = _assemble(model, uses | missing, names, source=graph.source, why="Not reached by the example inputs.")
    return GammaMap(gammas=found.gammas, source=found.source, not_gammas=others)


NOT_A_GAMMA = "It multiplies no normalised activation."


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


def _assemble(
    model: nn.Module, uses: Mapping[str, list[Use]], kinds: Mapping[str, str], *, source: str, why: str
) -> GammaMap:
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
    return GammaMap(gammas=tuple(gammas), source=source)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
