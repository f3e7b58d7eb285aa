"""What a transformers model says of its inputs: its configuration, its vocabulary, its image size, its `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_gammareg.inputs.batch import BATCH, underivable, values
from hf_gammareg.model.whole import placement

LENGTH = 16
"""Tokens in a row of text, where the model does not ask for another number."""


PARTS = {"image": ("vision", "image", "vq", "vit", "backbone"), "audio": ("audio", "speech"), "text": ("text",)}
"""Words in the names of nested configurations that tell of a modality."""


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

    def asks(self, word: str) -> bool:
        """Whether the model takes this modality ("image", "text", "audio"), by its own word or its configuration's."""
        said = getattr(self.model, "input_modalities", None) or ()
        said = (said,) if isinstance(said, str) else tuple(said)
        return word in said or self.has(*PARTS.get(word, (word,)))

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
    def named_modules(self) -> list[tuple[str, Any]]:
        """The model's modules."""
        return list(self.model.named_modules())

    @property
    def vocabulary(self) -> int:
        """Rows of the text embedding, or what the configuration says."""
        text = _text(self.config)
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
        """Height and width of an image; 224 where the configuration is for any."""
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


def read_facts(model: Any) -> Facts:
    """Read a `PreTrainedModel`'s configuration, device and signature."""
    config = model.config
    device, dtype = placement(model)
    parameters = inspect.signature(model.forward).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    text = _text(config)
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


def _text(config: Any) -> Any:
    """The configuration of the part that reads text; of the decoder, where encoder and decoder both do."""
    try:
        return config.get_text_config()
    except ValueError:
        return config.get_text_config(decoder=True)


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
