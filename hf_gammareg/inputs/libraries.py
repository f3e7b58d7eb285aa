"""Models by the names that timm, torchvision and transformers know them by, without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hf_gammareg.errors import GammaRegError, alike

YOUR_OWN = (
    "Code that comes with a model is not run, and no other model is shown in its place: build it yourself and pass it "
    "to find_gammas."
)
NONE = "None has a similar name. "


def known_sources() -> dict[str, list[str]]:
    """By the name of a model: the sources that mean it, of all three libraries."""
    import timm
    from torchvision import models
    from transformers import CONFIG_MAPPING

    found: dict[str, list[str]] = {}
    names = {"timm": timm.list_models(), "transformers": CONFIG_MAPPING.keys(), "torchvision": models.list_models()}
    for library, known in names.items():
        for name in known:
            found.setdefault(name, []).append(f"{library}/{name}")
    return found


def from_timm(name: str, **config: Any) -> Callable[[], nn.Module]:
    """What builds a timm model; raises at once where timm has none of this name."""
    import timm

    if not timm.is_model(name):
        known = timm.list_models()
        raise GammaRegError(
            f"Expected one of timm {timm.__version__}'s {len(known)} model names, found {name!r}. "
            f"{alike(name.partition('.')[0], known) or NONE}timm.list_models() lists them."
        )
    return lambda: timm.create_model(name, pretrained=False, **config)


def from_torchvision(name: str) -> Callable[[], nn.Module]:
    """What builds a torchvision model; raises at once where torchvision has none of this name."""
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise GammaRegError(
            f"Expected one of torchvision's {len(known)} model names, found {name!r}. "
            f"{alike(name, known) or NONE}torchvision.models.list_models() lists them."
        )
    # Only detection and segmentation models take weights_backbone; of the others, GoogLeNet and Inception v3
    # draw their initial weights slowly unless told not to.
    options: dict[str, Any] = {}
    if any(part in name for part in ("rcnn", "fcos", "retinanet", "ssd", "deeplab", "fcn_", "lraspp")):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return lambda: models.get_model(name, weights=None, **options)


def from_transformers(model_type: str) -> Callable[[], nn.Module]:
    """What builds a model of a type from its default configuration; raises at once where there is no such type."""
    from transformers import CONFIG_MAPPING

    known = list(CONFIG_MAPPING.keys())
    if model_type not in known:
        import transformers

        raise GammaRegError(
            f"Expected one of transformers {transformers.__version__}'s {len(known)} model types, found "
            f"{model_type!r}. {alike(model_type, known) or NONE}A Hub id is written OWNER/NAME."
        )
    return lambda: model_from_config(CONFIG_MAPPING[model_type]())


_AUTO_CLASSES = (
    "AutoModelForImageClassification",
    "AutoModelForSequenceClassification",
    "AutoModelForCausalLM",
    "AutoModel",
)


def model_from_config(config: Any, architecture: str | None = None) -> nn.Module:
    """Build a transformers model with the head that a source means.

    Args:
        config: a `PreTrainedConfig`.
        architecture: name of a class in transformers, as in a checkpoint's `architectures`; without it, the first that
            exists of AutoModelForImageClassification, ForSequenceClassification, ForCausalLM, AutoModel, then any other
            auto class that knows the configuration.

    Returns:
        The model, on torch's current default device, with caches switched off.

    Raises:
        GammaRegError: if transformers has no such class, or none that takes this configuration.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    without_cache(config)
    if architecture is not None:
        named: Any = getattr(transformers, architecture, None)
        if _builds_a_model(named):
            return named(config)
        raise GammaRegError(
            f"Expected an architecture that transformers {transformers.__version__} has, found {architecture!r}. "
            f"{YOUR_OWN}"
        )
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


def _builds_a_model(named: Any) -> bool:
    """Whether it is a model's class, or stands for one whose packages are missing, and says so when it is called."""
    from transformers import PreTrainedModel

    return isinstance(named, type) and (issubclass(named, PreTrainedModel) or hasattr(named, "_backends"))


def without_cache(config: Any) -> None:
    """Switch `use_cache` off in a configuration and in all that are nested in it."""
    if getattr(config, "use_cache", False) is True:
        config.use_cache = False
    for nested in list(vars(config).values()):
        if hasattr(nested, "model_type") and nested is not config:
            without_cache(nested)
