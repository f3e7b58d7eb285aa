"""Weights of a checkpoint under the names that the Hub knows them by."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def load_renamed(model: nn.Module | None, folder: str | Path | None) -> bool:
    """Load a checkpoint whose weights have other names than the model's parameters.

    transformers 5 writes weights under the names of the Hub, and its Trainer reads them back as they are: a ViT that
    resumes would go on from fresh weights, with no more than a warning (transformers issue 48805). Read through
    `from_pretrained` they get their names back.

    Args:
        model: the model to load the weights into.
        folder: the checkpoint.

    Returns:
        Whether it was such a checkpoint; otherwise nothing is done.
    """
    if folder is None or not isinstance(model, PreTrainedModel) or getattr(model, "peft_config", None):
        return False
    if set(_saved_names(Path(folder))) <= set(model.state_dict()):
        return False
    loaded: Any = type(model).from_pretrained(folder, output_loading_info=True)
    saved, report = loaded
    if report["missing_keys"] or report["unexpected_keys"]:
        return False
    model.load_state_dict(saved.state_dict())
    return True


def _saved_names(folder: Path) -> Iterable[str]:
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        with safe_open(folder / SAFE_WEIGHTS_NAME, framework="pt") as file:
            return list(file.keys())
    if (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        return json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text())["weight_map"]
    return []
