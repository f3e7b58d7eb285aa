"""From any model to its inputs: what the caller passes, or else what the model says of itself."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_iter, tree_map_only

from hf_gammareg.errors import GammaRegError
from hf_gammareg.inputs.arguments import ARGUMENTS, OPTIONAL, SPECIAL
from hf_gammareg.inputs.batch import Inputs, underivable
from hf_gammareg.inputs.facts import Facts, read_facts
from hf_gammareg.inputs.vision import has_input_size, of_torchvision, timm_inputs, torchvision_inputs
from hf_gammareg.model.known import KnownIntegers
from hf_gammareg.model.whole import placement, unwrapped


def arguments(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a forward pass, from any form of `example_inputs`."""
    if example_inputs is None:
        return derive_inputs(model)
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        pair = (
            len(example_inputs) == 2 and isinstance(example_inputs[0], tuple) and isinstance(example_inputs[1], Mapping)
        )
        return (example_inputs[0], dict(example_inputs[1])) if pair else (tuple(example_inputs), {})
    raise GammaRegError(
        "Expected `example_inputs` to be a tensor, a tuple of positional arguments, a dictionary of keyword arguments "
        f"or a pair of both, found {type(example_inputs).__name__}. Pass what you would pass to the model."
    )


def derive_inputs(model: nn.Module, device: torch.device | str | None = None) -> Inputs:
    """Make a small batch that `model` accepts, from its own configuration.

    Models of timm (their `pretrained_cfg`), transformers (their configuration and the signature of `forward`) and
    torchvision are known, and a module around one of them that takes what it takes, such as a task for distillation.
    A module with Lightning's `example_input_array` has said it already. Nothing is computed, neither timm nor
    transformers is imported for a model that does not come from them, and no random number generator moves.

    Example:
        >>> import timm
        >>> args, kwargs = derive_inputs(timm.create_model("resnet18"))
        >>> args[0].shape
        torch.Size([2, 3, 224, 224])

    Args:
        model: a module; the batch has the floating point type of its parameters.
        device: where the batch lies; default: where the parameters do, or on the CPU where these are on
            `meta`: there a batch would have no values, and a model may ask for those of its integers.

    Returns:
        `(args, kwargs)` for `model(*args, **kwargs)`: 2 examples, or those of `example_input_array`.

    Raises:
        GammaRegError: if the model does not say what it takes.
    """
    inner = unwrapped(model)
    if device is None and placement(inner)[0].type == "meta":
        device = "cpu"
    if (given := getattr(inner, "example_input_array", None)) is not None:
        return _given_inputs(given, placement(inner)[0] if device is None else device)
    if says_inputs(inner):
        return _own_inputs(inner, device)
    parts = [part for part in inner.children() if says_inputs(part)]
    if len(parts) == 1:
        args, kwargs = _own_inputs(parts[0], device)
        with contextlib.suppress(TypeError):  # its forward takes something else
            inspect.signature(inner.forward).bind(*args, **kwargs)
            return args, kwargs
    raise GammaRegError(
        f"Expected a model of timm, transformers or torchvision, whose inputs can be derived, found "
        f"{type(inner).__module__}.{type(inner).__qualname__}. Pass example_inputs: a tensor, a tuple of "
        "arguments, or a dictionary of keyword arguments that the model's forward takes."
    )


def says_inputs(model: nn.Module) -> bool:
    """Whether a module itself says what it takes."""
    return _of_transformers(model) or has_input_size(model) or of_torchvision(model)


def _given_inputs(given: Any, device: torch.device | str) -> Inputs:
    """What Lightning makes of a module's `example_input_array`: a tensor, a tuple of arguments, or a dictionary."""
    given = tree_map_only(torch.Tensor, lambda tensor: tensor if tensor.is_meta else tensor.to(device), given)
    if isinstance(given, Mapping):
        return (), dict(given)
    return (tuple(given) if isinstance(given, tuple | list) else (given,)), {}


def _own_inputs(model: nn.Module, device: torch.device | str | None) -> Inputs:
    if _of_transformers(model):
        return (), transformers_inputs(model, device)
    own, dtype = placement(model)
    device = own if device is None else torch.device(device)
    return (timm_inputs if has_input_size(model) else torchvision_inputs)(model, device, dtype)


def _of_transformers(model: nn.Module) -> bool:
    # Without importing transformers for a model that does not come from it.
    bases = type(model).__mro__
    return any(base.__name__ == "PreTrainedModel" and base.__module__.startswith("transformers.") for base in bases)


# --- transformers ---------------------------------------------------------------------------------------------------


def transformers_inputs(model: nn.Module, device: torch.device | str | None = None) -> dict[str, Any]:
    """Keyword arguments for a transformers model's forward: a batch of 2, without labels and caches.

    Args:
        model: a `PreTrainedModel`.
        device: where the tensors lie; default: where the model's parameters do.

    Returns:
        The arguments that the model needs, and those without which a part of it would not run: pixels for
        a vision tower (with as many image tokens in the text), features for an audio encoder, decoder ids.

    Raises:
        GammaRegError: if an argument the model requires is not one that can be derived.
    """
    facts = read_facts(model)
    if device is not None:
        facts = replace(facts, device=torch.device(device))
    kwargs = _made(facts)
    if "input_ids" in kwargs and kwargs["input_ids"].ndim == 2:
        _put_placeholders(facts, kwargs)
    if "use_cache" in facts.accepts:
        kwargs["use_cache"] = False
    return kwargs


def _made(facts: Facts) -> dict[str, Any]:
    """The arguments, before room is made in the text for images and sounds."""
    special = SPECIAL.get(facts.config.model_type)
    given = special(facts) if special is not None else {}
    kwargs: dict[str, Any] = {}
    for name in [*_wanted(facts), *given]:
        if name in kwargs:
            continue
        if name in given:
            made = given[name]
        elif name in ARGUMENTS:
            made = ARGUMENTS[name](facts)
        else:
            raise underivable(f"the argument {name!r} of {type(facts.model).__name__}.forward", "no rule for it")
        if made is not None:
            kwargs[name] = made
    return kwargs


def _wanted(facts: Facts) -> list[str]:
    """Names of the arguments to make: the required ones, the model's main input, and those that reach more of it."""
    required = [name for name, parameter in facts.accepts.items() if parameter.default is inspect.Parameter.empty]
    main = getattr(facts.model, "main_input_name", "input_ids")
    mains = [main] if isinstance(main, str) else list(main)
    more = [name for name, wanted in OPTIONAL.items() if wanted(facts)]
    names = [name for name in (*required, *mains, *more) if name in facts.accepts]
    return list(dict.fromkeys(names))


# --- tokens in the text that stand for an image or a sound --------------------------------------------------------

PLACEHOLDERS = (
    ("get_image_features", ("image_token_id", "image_token_index", "img_context_token_id"), "pixel_values"),
    ("get_audio_features", ("audio_token_id", "audio_token_index"), "input_features"),
)
"""The method that computes the features, the configuration's fields for the token, and what they are made of."""


def _put_placeholders(facts: Facts, kwargs: dict[str, Any]) -> None:
    """Lengthen `input_ids` by as many image and audio tokens as there will be features to take their places.

    Where the model does not say how many, the image or the sound is left out: the text alone is an input too,
    and what it does not reach is reported as not reached.
    """
    rows = kwargs["input_ids"]
    tokens: list[int] = []
    for method, fields, source in PLACEHOLDERS:
        token = facts.look(*fields)
        if source not in kwargs or not isinstance(token, int):
            continue
        count = _feature_count(facts, method, source, kwargs)
        if count and source == "input_features":
            # Gemma 3n pads what it hears to a length of its own.
            count = facts.batch * facts.look("audio_soft_tokens_per_image", default=count // facts.batch)
        tokens += [token] * (count // facts.batch)
    placed = facts.integers([tokens] * facts.batch).reshape(facts.batch, len(tokens))
    kwargs["input_ids"] = torch.cat([rows[:, :2], placed, rows[:, 2:]], dim=1)
    if "attention_mask" in kwargs:
        kwargs["attention_mask"] = facts.ones(*kwargs["input_ids"].shape)
    marks = [0, 0] + [1] * len(tokens) + [0] * (rows.shape[1] - 2)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in facts.accepts and facts.look(*(field for _, fields, _ in PLACEHOLDERS for field in fields)):
            kwargs[name] = facts.integers([marks] * facts.batch)


def _feature_count(facts: Facts, method: str, source: str, kwargs: dict[str, Any]) -> int:
    """How many features the model makes of the batch, asked of a copy on the `meta` device; 0 if it can't say."""
    accepts: set[str] = {source}
    try:
        shadow = _meta_copy(facts.model)
        ask = getattr(shadow, method, None) or getattr(shadow.model, method)
        accepts |= set(inspect.signature(ask).parameters)
        made = {name: value for name, value in kwargs.items() if name in accepts}
        with torch.no_grad(), torch.random.fork_rng(devices=[]), KnownIntegers(torch.device("meta")):
            found = ask(**{n: v.to("meta") if v.is_floating_point() else v for n, v in made.items()})
        found = getattr(found, "pooler_output", found)
        first = next(leaf for leaf in tree_iter(found) if isinstance(leaf, torch.Tensor))
        if first.shape[-1] != shadow.get_input_embeddings().embedding_dim:
            raise underivable("features as wide as the embedding of a token", f"{first.shape[-1]} numbers")
        return _rows(found)
    except Exception:
        for name in accepts - {"input_ids"}:
            kwargs.pop(name, None)
        return 0


def _rows(found: Any) -> int:
    if isinstance(found, tuple | list):
        return sum(_rows(item) for item in found)
    return found.shape[:-1].numel() if isinstance(found, torch.Tensor) else 0


def _meta_copy(model: nn.Module) -> Any:
    """A copy of the model on the `meta` device, to ask it for shapes without touching it."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        on_meta = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(on_meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else on_meta
    return copy.deepcopy(model, memo)
