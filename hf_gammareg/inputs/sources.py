"""Models by name: `timm/NAME`, `transformers/MODEL_TYPE`, `torchvision/NAME`, a Hub id or a local folder."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.inputs.derive import example_inputs
from hf_gammareg.model.whole import build_on

HUB_TIMEOUT = 5.0
"""Seconds after which the Hub counts as out of reach. There is one try."""

_AUTO_CLASSES = (
    "AutoModelForImageClassification",
    "AutoModelForSequenceClassification",
    "AutoModelForCausalLM",
    "AutoModel",
)


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
            f"Expected the packages that {source} needs, found one missing: {_line(error)}. Install it and try again."
        ) from error
    except Exception as error:
        if torch.device(device).type != "meta":
            raise GammaRegError(
                f"Expected to build {source} from its configuration, found {type(error).__name__}: {_line(error)}. "
                "Build the model yourself and pass it to find_gammas."
            ) from error
        return load_source(source, "cpu")
    args, kwargs = example_inputs(model)
    return Source(name=source, model=model, args=args, kwargs=kwargs)


def _builder(source: str) -> Callable[[], nn.Module]:
    """The function that builds a source's model; raises at once where the name is wrong."""
    prefix, _, name = source.partition("/")
    if prefix in _PREFIXES and name:
        return _PREFIXES[prefix](name)
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return _from_file(folder / "config.json", source)
    if name and "/" not in name and prefix not in ("", ".", "..", "~"):
        return _from_file(_hub_config(source), source)
    raise GammaRegError(
        f"Expected timm/NAME, transformers/MODEL_TYPE, torchvision/NAME, a local folder or a Hub id (OWNER/NAME), "
        f"found {source!r}.{_elsewhere(source)}"
    )


def _elsewhere(name: str) -> str:
    """For a name without its prefix: the sources that it may mean."""
    import timm
    from transformers import CONFIG_MAPPING

    found = [f"timm/{name}"] if timm.is_model(name) else []
    found += [f"transformers/{name}"] if name in CONFIG_MAPPING else []
    return f" Did you mean {' or '.join(found)}?" if found else " Write one of these."


def _close(name: str, known: list[str]) -> str:
    """A sentence that suggests at most three of the known names."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(matches)}?" if matches else "None has a similar name."


# --- timm and torchvision -----------------------------------------------------------------------------------------


def _from_timm(name: str, **config: Any) -> Callable[[], nn.Module]:
    import timm

    if not timm.is_model(name):
        known = timm.list_models()
        raise GammaRegError(
            f"Expected one of timm {timm.__version__}'s {len(known)} model names, found {name!r}. "
            f"{_close(name.partition('.')[0], known)} timm.list_models() lists them."
        )
    return lambda: timm.create_model(name, pretrained=False, **config)


def _from_torchvision(name: str) -> Callable[[], nn.Module]:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise GammaRegError(
            f"Expected one of torchvision's {len(known)} model names, found {name!r}. "
            f"{_close(name, known)} torchvision.models.list_models() lists them."
        )
    # Only detection and segmentation models take weights_backbone; of the others, GoogLeNet and Inception v3
    # draw their initial weights slowly unless told not to.
    options: dict[str, Any] = {}
    if any(part in name for part in ("rcnn", "fcos", "retinanet", "ssd", "deeplab", "fcn_", "lraspp")):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return lambda: models.get_model(name, weights=None, **options)


# --- transformers -------------------------------------------------------------------------------------------------


def _from_transformers(model_type: str) -> Callable[[], nn.Module]:
    from transformers import CONFIG_MAPPING

    known = list(CONFIG_MAPPING.keys())
    if model_type not in known:
        import transformers

        raise GammaRegError(
            f"Expected one of transformers {transformers.__version__}'s {len(known)} model types, found "
            f"{model_type!r}. {_close(model_type, known)} A Hub id is written OWNER/NAME."
        )
    return lambda: model_from_config(CONFIG_MAPPING[model_type]())


def model_from_config(config: Any, architecture: str | None = None) -> nn.Module:
    """Build a transformers model with the head that a source means.

    Args:
        config: a `PreTrainedConfig`.
        architecture: name of a class in transformers, as in a checkpoint's `architectures`; without it
            (or where transformers has no such class), the first that exists of AutoModelForImageClassification,
            ForSequenceClassification, ForCausalLM, AutoModel, then any other auto class that knows the
            configuration.

    Returns:
        The model, on torch's current default device, with caches switched off.

    Raises:
        GammaRegError: if no class of transformers takes this configuration.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    without_cache(config)
    if architecture is not None and isinstance(named := getattr(transformers, architecture, None), type):
        return named(config)
    others = sorted(name for name in modeling_auto.__all__ if name.startswith("AutoModel"))
    failure: Exception | None = None
    for name in dict.fromkeys((*_AUTO_CLASSES, *others)):
        auto = getattr(transformers, name, None)
        mapping = getattr(auto, "_model_mapping", {})
        if auto is None or type(config) not in mapping:
            continue
        found = mapping[type(config)]
        try:
            # Where an auto class knows several models for a configuration (DeiT), it does not choose: the first.
            return found[0](config) if isinstance(found, tuple) else auto.from_config(config)
        except (AttributeError, TypeError) as error:
            # A class that wants another configuration than the auto class says (MusicGen's causal LM): try the next.
            failure = failure or error
    if failure is not None:
        raise failure
    raise GammaRegError(
        f"Expected a model type that some AutoModel class of transformers builds, found {config.model_type!r}, which "
        "none does. Build the model yourself and pass it to find_gammas."
    )


def without_cache(config: Any) -> None:
    """Switch `use_cache` off in a configuration and in all that are nested in it."""
    if getattr(config, "use_cache", False) is True:
        config.use_cache = False
    for nested in list(vars(config).values()):
        if hasattr(nested, "model_type") and nested is not config:
            without_cache(nested)


# --- a configuration file: a local folder's, or the Hub's ---------------------------------------------------------


def _from_file(path: Path, source: str) -> Callable[[], nn.Module]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise GammaRegError(
            f"Expected a model's config.json in {source}, found none that can be read ({_line(error)}). "
            "Name a folder that save_pretrained made."
        ) from error
    if isinstance(config.get("architecture"), str):
        kwargs = dict(config.get("model_args") or {})
        if isinstance(config.get("num_classes"), int):
            kwargs.setdefault("num_classes", config["num_classes"])
        return _from_timm(config["architecture"], **kwargs)
    model_type = config.get("model_type")
    from transformers import CONFIG_MAPPING, AutoConfig

    if model_type not in CONFIG_MAPPING:
        found = f"model type {model_type!r}" if model_type else "neither a model_type nor a timm architecture"
        raise GammaRegError(
            f"Expected {source} to hold a configuration of transformers or timm, found {found}. "
            "Code from the Hub is not run: build such a model yourself and pass it to find_gammas."
        )

    def build() -> nn.Module:
        parsed = AutoConfig.for_model(**config)
        return model_from_config(parsed, next(iter(config.get("architectures") or []), None))

    return build


def _hub_config(repo_id: str) -> Path:
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
            f"({_line(error)}). Check the name, or log in for a gated model."
        ) from error
    except Exception as error:
        raise GammaRegError(
            f"Expected to read {repo_id}/config.json from the Hub, found that it can't be reached "
            f"({type(error).__name__}). {repo_id!r} is no local folder either. Check the connection, or name a local "
            "folder, timm/NAME, transformers/MODEL_TYPE or torchvision/NAME."
        ) from error


def _line(error: BaseException) -> str:
    """The first line of an exception's message, without its final period."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")[:200]


_PREFIXES: dict[str, Callable[[str], Callable[[], nn.Module]]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "transformers": _from_transformers,
}
