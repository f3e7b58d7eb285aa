"""Which settings an output folder was trained with, so that a resumed run never mixes two of them."""

import json
from pathlib import Path
from typing import Any

from hf_gammareg import GammaRegError
from hf_gammareg.files import write_whole

FILE_NAME = "run_settings.json"


def check_settings(folder: str | Path, settings: dict[str, Any]) -> None:
    """Compare the settings of a run to be resumed with those its folder was started with.

    Args:
        folder: holds the checkpoints and the file that `write_settings` left; without the file nothing is compared.
        settings: those that must be the same.

    Raises:
        GammaRegError: if one differs.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return
    before = json.loads(path.read_text())
    now = json.loads(json.dumps(settings))
    changed = [name for name in sorted(now) if name in before and before[name] != now[name]]
    if changed:
        raise GammaRegError(
            f"Expected the settings that the run in {str(folder)!r} was started with "
            f"({', '.join(f'{name}={before[name]!r}' for name in changed)}), "
            f"found {', '.join(f'{name}={now[name]!r}' for name in changed)}. "
            "Give the same settings to resume it, or another --output_dir to start anew."
        )


def write_settings(folder: str | Path, settings: dict[str, Any]) -> None:
    """Leave the settings of a run in its output folder. Call on the main process only."""
    write_whole(Path(folder) / FILE_NAME, json.dumps(settings, indent=2) + "\n")
