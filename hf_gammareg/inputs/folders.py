"""What a source names on this machine; looked at before torch and the libraries are loaded."""

from __future__ import annotations

import json
from pathlib import Path

from hf_gammareg.errors import GammaRegError, alike, some

LIBRARIES = ("timm", "torchvision", "transformers")
"""What a source begins with that names a model of a library."""

ADAPTER = "adapter_config.json"
"""What PEFT leaves in the folder of an adapter."""

WEIGHTS = {
    ".gguf": "quantised weights (GGUF)",
    ".safetensors": "weights",
    ".bin": "weights",
    ".pt": "weights",
    ".pth": "weights",
    ".ckpt": "a checkpoint of Lightning or of another loop",
}
"""Files that hold a model's weights and not what it is, by their endings."""

INSTEAD = (
    "Name the folder with its config.json, its Hub id, timm/NAME or transformers/MODEL_TYPE; a model of your own (a "
    "LightningModule's, say) is built in Python and passed to find_gammas."
)


def configuration_file(source: str) -> Path | None:
    """The configuration file that a source names on this machine: itself, or its folder's.

    Returns:
        None for a model of a library, or a name that may be on the Hub.

    Raises:
        GammaRegError: if the path holds no configuration, or there is nothing at what can only be a path.
    """
    library, _, name = source.partition("/")
    if library in LIBRARIES and name:
        return None
    path = Path(source).expanduser()
    if source and path.exists():
        return _configuration(path, source)
    if _is_path(source):
        near = alike(path.name, (entry.name for entry in path.parent.glob("*")))
        raise GammaRegError(
            f"Expected a local folder or file, found nothing at {source!r}. {near}Check the path; "
            "a Hub id is OWNER/NAME, a model by its name timm/NAME, transformers/MODEL_TYPE or torchvision/NAME."
        )
    return None


def _is_path(source: str) -> bool:
    """Whether a source can only mean a place on this machine."""
    return source.startswith(("/", ".", "~")) or source.count("/") > 1 or Path(source).suffix in (".json", *WEIGHTS)


def _configuration(path: Path, source: str) -> Path:
    """The configuration file that a local folder holds, or that was named itself."""
    if path.is_file():
        if path.suffix == ".json":
            return path
        raise GammaRegError(
            f"Expected a model's configuration, found {WEIGHTS.get(path.suffix, 'a file')}: {source!r}. {INSTEAD}"
        )
    if (path / "config.json").is_file():
        return path / "config.json"
    there = sorted(entry.name for entry in path.iterdir())
    if ADAPTER in there:
        try:
            base = json.loads((path / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
        except (OSError, ValueError, KeyError, TypeError):
            base = "the model that it was trained on"
        raise GammaRegError(
            f"Expected a folder with a model's config.json, found an adapter of PEFT in {source!r}. Name its base, "
            f"{base}."
        )
    raise GammaRegError(f"Expected a folder with a model's config.json, found {some(there)} in {source!r}. {INSTEAD}")
