"""Models of more libraries than timm, torchvision and transformers, each with a way to build it and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from families import diffusion, features, graphs, lists, restorers, sound, tokens, volumes
from families.recipe import Recipe, Recipes


class Family(NamedTuple):
    """A library and its models."""

    package: str
    """What pip installs."""
    recipes: Callable[[], Recipes]


FAMILIES = {
    "smp": Family("segmentation-models-pytorch", lists.segmentation_models),
    "pytorchcv": Family("pytorchcv", lists.pytorchcv),
    "ultralytics": Family("ultralytics", lists.ultralytics),
    "open_clip": Family("open-clip-torch", lists.open_clip),
    "braindecode": Family("braindecode", lists.braindecode),
    "vit_pytorch": Family("vit-pytorch", tokens.vit_pytorch),
    "x_transformers": Family("x-transformers", tokens.x_transformers),
    "monai": Family("monai", volumes.monai),
    "spandrel": Family("spandrel", restorers.spandrel),
    "torch_geometric": Family("torch-geometric", graphs.torch_geometric),
    "kornia": Family("kornia", features.kornia),
    "speechbrain": Family("speechbrain", sound.speechbrain),
    "torchaudio": Family("torchaudio", sound.torchaudio),
    "diffusers": Family("diffusers", diffusion.diffusers),
}
"""Every library of the extra `zoo`."""


@cache
def recipes(family: str) -> Recipes:
    """The models of a library, by name."""
    package, made = FAMILIES[family]
    try:
        return made()
    except ImportError as error:
        raise SystemExit(
            f"Expected {package} for the family {family}, found that it can't be imported ({error}). "
            "Install the extra [zoo]."
        ) from error


def recipe(source: str) -> Recipe:
    """How to build the model of a source, `FAMILY/NAME`, and to make its inputs."""
    family, _, name = source.partition("/")
    return recipes(family)[name]
