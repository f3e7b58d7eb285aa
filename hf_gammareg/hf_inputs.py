"""Example inputs of transformers models: a batch made from the configuration and the signature of `forward`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_gammareg.inputs import BATCH, placement, underivable, values

LENGTH = 16
"""Tokens in a row of text, where the model does not ask for another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a transformers model says of its inputs."""

    model: Any
    config: Any
    batch: int
    device: torch.device
    dtype: torch.dtype
    accepts: dict[str, inspect.Parameter]
    """Parameters of `forward`, by name, without `*args` and `**kwargs`."""

    def look(self, *names: str, part: str = "", default: Any = None) -> Any:
        """The first of these configuration fields that is set, in the parts of this kind first.

        Args:
            names: field names, in the order of preference.
            part: fields of nested configurations whose name contains it go first ("vision", "audio").
            default: what to return where no configuration sets any of them.
        """
        views = list(_views(self.config))
        views.sort(key=lambda view: part not in view[0] if part else False)
        for _, config in views:
            for name in names:
                if (found := getattr(config, name, None)) is not None:
                    return found
        return default

    def has(self, *parts: str) -> bool:
        """Whether a nested configuration's name contains one of these words."""
        return any(word in path for path, _ in _views(self.config) for word in parts)

    def floats(self, *shape: int) -> Tensor:
        """Normalised data of this shape."""
        return values(shape, self.device, self.dtype)

    def zeros(self, *shape: int) -> Tensor:
        """Integers, all 0."""
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    def ones(self, *shape: int) -> Tensor:
        """Integers, all 1: masks without padding."""
        return torch.ones(shape, dtype=torch.int64, device=self.device)

    def integers(self, rows: list[Any]) -> Tensor:
        """These integers."""
        return torch.tensor(rows, dtype=torch.int64).to(self.device)

    def ids(self, *shape: int, vocabulary: int | None = None) -> Tensor:
        """Token ids within the vocabulary, none of which the configuration gives a meaning (pad, image, ...)."""
        size = vocabulary or self.vocabulary
        special = _special_ids(self.config)
        usable = [i for i in range(min(size, 512)) if i not in special and i > 2] or list(range(size))
        count = torch.Size(shape).numel()
        return self.integers([usable[(7 * i + 3) % len(usable)] for i in range(count)]).reshape(shape)

    @property
    def vocabulary(self) -> int:
        """Rows of the text embedding, or what the configuration says."""
        text = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        said = getattr(text, "vocab_size", None) or self.look("vocab_size", part="text")
        if not isinstance(said, int) or said < 1:
            raise underivable("token ids", "no vocab_size")
        return said

    @property
    def length(self) -> int:
        """Tokens in a row of text."""
        longest = self.look("max_position_embeddings", "n_positions", part="text")
        return min(LENGTH, longest) if isinstance(longest, int) and longest > 0 else LENGTH

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image."""
        size = self.look("image_size", "img_size", part="vision", default=224)
        if isinstance(size, dict):
            size = (size.get("height", 224), size.get("width", 224))
        if isinstance(size, tuple | list):
            return int(size[0]), int(size[-1])
        return int(size), int(size)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.look("num_channels", "in_channels", "in_chans", part="vision", default=3))


def transformers_inputs(model: nn.Module) -> dict[str, Any]:
    """Keyword arguments for a transformers model's forward: a batch of 2, without labels and caches.

    Args:
        model: a `PreTrainedModel`.

    Returns:
        The arguments that the model needs, and those without which a part of it would not run: pixels for
        a vision tower (with as many image tokens in the text), features for an audio encoder, decoder ids.

    Raises:
        GammaRegError: if an argument the model requires is not one that can be derived.
    """
    facts = _facts(model)
    kwargs: dict[str, Any] = {}
    for name in _wanted(facts):
        if name not in ARGUMENTS:
            raise underivable(f"the argument {name!r} of {type(model).__name__}.forward", "no rule for it")
        made = ARGUMENTS[name](facts)
        if made is not None:
            kwargs[name] = made
    if "use_cache" in facts.accepts:
        kwargs["use_cache"] = False
    return kwargs


def _facts(model: nn.Module) -> Facts:
    config: Any = model.config
    device, dtype = placement(model)
    parameters = inspect.signature(model.forward).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    # Decoders with a classification head look for the last token before the padding, and refuse two rows without it.
    alone = type(model).__name__.endswith("ForSequenceClassification") and getattr(text, "pad_token_id", None) is None
    return Facts(
        model=model,
        config=config,
        batch=1 if alone else BATCH,
        device=device,
        dtype=dtype,
        accepts={parameter.name: parameter for parameter in parameters if parameter.kind not in variadic},
    )


def _views(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The configuration and all nested in it, outermost first, each with the dotted name it is found under."""
    level = [(path, config)]
    while level:
        yield from level
        level = [
            (f"{parent}.{name}", nested)
            for parent, outer in level
            for name, nested in vars(outer).items()
            if hasattr(nested, "model_type") and hasattr(nested, "to_dict")
        ]


def _special_ids(config: Any) -> set[int]:
    """Ids to which the configuration gives a meaning."""
    found: set[int] = set()
    for _, view in _views(config):
        for name, value in vars(view).items():
            if "token" in name and ("_id" in name or "_index" in name):
                found.update(v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, int))
    return found


def _wanted(facts: Facts) -> list[str]:
    """Names of the arguments to make: the required ones, the model's main input, and those that reach more of it."""
    required = [name for name, parameter in facts.accepts.items() if parameter.default is inspect.Parameter.empty]
    main = getattr(facts.model, "main_input_name", "input_ids")
    mains = [main] if isinstance(main, str) else list(main)
    more = [name for name, wanted in OPTIONAL.items() if wanted(facts)]
    names = [name for name in (*required, *mains, *more) if name in facts.accepts]
    return list(dict.fromkeys(names))


# --- one rule for each argument -----------------------------------------------------------------------------------


def _input_ids(facts: Facts) -> Tensor:
    return facts.ids(facts.batch, facts.length)


def _pixel_values(facts: Facts) -> Tensor:
    return facts.floats(facts.batch, facts.channels, *facts.image_size)


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy of the model on the `meta` device, to ask it for shapes without touching it."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        on_meta = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(on_meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else on_meta
    return copy.deepcopy(model, memo)


ARGUMENTS: dict[str, Callable[[Facts], Any]] = {
    "input_ids": _input_ids,
    "decoder_input_ids": _input_ids,
    "pixel_values": _pixel_values,
}
"""How each argument of a forward is made. An argument without a rule, where it is required, is an error."""

OPTIONAL: dict[str, Callable[[Facts], bool]] = {
    "input_ids": lambda facts: False,
    "decoder_input_ids": lambda facts: bool(getattr(facts.config, "is_encoder_decoder", False)),
}
"""Arguments with a default that are made too where this holds."""
