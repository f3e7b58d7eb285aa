"""Models by name: `timm/NAME`, `transformers/MODEL_TYPE`, `torchvision/NAME`, a Hub id or a local folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError, meant, said
from hf_gammareg.inputs.derive import derive_inputs
from hf_gammareg.inputs.folders import configuration_file
from hf_gammareg.inputs.libraries import (
    YOUR_OWN,
    from_timm,
    from_torchvision,
    from_transformers,
    known_sources,
    model_from_config,
)
from hf_gammareg.model.whole import build_on

HUB_TIMEOUT = 5.0
"""Seconds after which the Hub counts as out of reach. There is one try."""


OF_WEIGHTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""What the arguments of a timm model may say of weights, which are never read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model built from its name, with inputs that it accepts."""

    name: str
    """As the user wrote it."""
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def load_source(source: str, device: str = "meta") -> Source:
    """Build the model a source names, without its weights, and a batch for it.

    Example:
        >>> load_source("timm/resnet18").args[0].shape
        torch.Size([2, 3, 224, 224])

    Args:
        source: `timm/NAME`, `transformers/MODEL_TYPE` (its default configuration; the first that exists
            of AutoModelForImageClassification, ForSequenceClassification, ForCausalLM, AutoModel),
            `torchvision/NAME`, a local folder with a `config.json`, or a Hub id.
        device: where to build it. `meta` takes no memory; a model that can't be built there is built
            on the CPU.

    Returns:
        The model in train mode, and `args` and `kwargs` for its forward.

    Raises:
        GammaRegError: if the name is unknown, the Hub is out of reach, or the folder has no configuration.
    """
    build = _builder(source)
    try:
        model = build_on(build, device)
    except GammaRegError:
        raise
    except ImportError as error:
        raise GammaRegError(
            f"Expected the packages that {source} needs, found one missing: {said(error)}. Install it and try again."
        ) from error
    except Exception as error:
        if torch.device(device).type != "meta":
            raise GammaRegError(
                f"Expected to build {source} from its configuration, found {type(error).__name__}: {said(error)}. "
                "Build the model yourself and pass it to find_gammas."
            ) from error
        return load_source(source, "cpu")
    args, kwargs = derive_inputs(model)
    return Source(name=source, model=model, args=args, kwargs=kwargs)


def _builder(source: str) -> Callable[[], nn.Module]:
    """The function that builds a source's model; raises at once where the name is wrong."""
    prefix, _, name = source.partition("/")
    if prefix in _PREFIXES and name:
        return _PREFIXES[prefix](name)
    if (file := configuration_file(source)) is not None:
        return _from_file(file, source)
    if name:
        return _from_file(hub_config(source), source)
    raise GammaRegError(
        f"Expected timm/NAME, transformers/MODEL_TYPE, torchvision/NAME, a local folder or a Hub id (OWNER/NAME), "
        f"found {source!r}. {_elsewhere(source)}Write one of these."
    )


def _elsewhere(source: str) -> str:
    """For a name without its library, or with one misspelt: a question that names the sources it may mean."""
    known = known_sources()
    if "/" in source:
        found = get_close_matches(source, [full for sources in known.values() for full in sources], cutoff=0.8)
    else:
        name = source.partition(".")[0]
        close = [name] if name in known else get_close_matches(name, known)
        found = [full for one in close for full in known[one]]
    return meant(found)


# --- a configuration file: a local folder's, or the Hub's ---------------------------------------------------------


def _from_file(path: Path, source: str) -> Callable[[], nn.Module]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_hook=_without_weights)
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise GammaRegError(
            f"Expected a model's config.json in {source}, found none that can be read ({said(error)}). "
            "Name a folder that save_pretrained made."
        ) from error
    if isinstance(config.get("architecture"), str):
        kwargs = dict(config.get("model_args") or {})
        if isinstance(config.get("num_classes"), int):
            kwargs.setdefault("num_classes", config["num_classes"])
        return from_timm(config["architecture"], **kwargs)
    model_type = config.get("model_type")
    own = {name: code for name, code in dict(config.get("auto_map") or {}).items() if name.startswith("AutoModel")}
    if own:
        raise GammaRegError(
            f"Expected {source} to be a model of transformers itself, found one with code of its own "
            f"({next(iter(own.values()))!r} in auto_map). {YOUR_OWN}"
        )
    from transformers import CONFIG_MAPPING, AutoConfig

    if model_type not in CONFIG_MAPPING:
        found = f"model type {model_type!r}" if model_type else "neither a model_type nor a timm architecture"
        raise GammaRegError(
            f"Expected {source} to hold a configuration of transformers or timm, found {found}. {YOUR_OWN}"
        )

    def build() -> nn.Module:
        parsed = AutoConfig.for_model(**config)
        return model_from_config(parsed, next(iter(config.get("architectures") or []), None))

    return build


def _without_weights(part: dict[str, Any]) -> dict[str, Any]:
    """An object in a configuration, at any depth: a model of timm may be a part of one of transformers."""
    for key in ("model_args", "auto_map"):
        if not isinstance(part.get(key) or {}, dict):
            raise ValueError(f"its {key} is no JSON object")
    if part.get("model_args"):
        part["model_args"] = {key: value for key, value in part["model_args"].items() if key not in OF_WEIGHTS}
    return part


def hub_config(repo_id: str) -> Path:
    """The Hub's config.json of a model, from the local cache where it is there."""
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(repo_id, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        # One short request first: hf_hub_download alone would try for half a minute.
        get_session().head(hf_hub_url(repo_id, "config.json"), timeout=HUB_TIMEOUT)
        return Path(hf_hub_download(repo_id, "config.json", etag_timeout=HUB_TIMEOUT))
    except HFValidationError as error:
        raise GammaRegError(f"Expected a source such as timm/resnet18 or a Hub id, found {repo_id!r}.") from error
    except HfHubHTTPError as error:
        raise GammaRegError(
            f"Expected {repo_id} to be a model on the Hub with a config.json that you may read, found none "
            f"({said(error)}). {_elsewhere(repo_id)}Check the name, or log in for a gated model."
        ) from error
    except Exception as error:
        raise GammaRegError(
            f"Expected to read {repo_id}/config.json from the Hub, found that it can't be reached "
            f"({type(error).__name__}). {repo_id!r} is no local folder either. {_elsewhere(repo_id)}Check the "
            "connection, or name a local folder, timm/NAME, transformers/MODEL_TYPE or torchvision/NAME."
        ) from error


_PREFIXES: dict[str, Callable[[str], Callable[[], nn.Module]]] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "transformers": from_transformers,
}
