"""Checkpoint folders of a Trainer: which one to resume from, and whether it is whole."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import (
    ADAPTER_SAFE_WEIGHTS_NAME,
    ADAPTER_WEIGHTS_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from hf_gammareg.errors import GammaRegError, some

ANEW = "Resume from another checkpoint, or start anew from its weights."
"""What to do where the weights are there."""

OTHER = "Resume from another checkpoint, or with the model that it was saved with."
"""What to do where they are those of another model."""

ELSEWHERE = "Resume from another checkpoint."
"""What to do where they can't be had."""


def last_checkpoint(output_dir: str | Path | None, say: Callable[[str], None]) -> Path:
    """The newest checkpoint of a run that is whole; a run that was killed while it saved leaves one that is not.

    Args:
        output_dir: the run's folder.
        say: told which ones were passed over.

    Raises:
        GammaRegError: if there is none.
    """
    folder = Path(output_dir or "")
    numbered = [
        (int(match[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_dir() and (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    for _, path in sorted(numbered, reverse=True):
        if (path / TRAINER_STATE_NAME).is_file():  # what a Trainer writes last
            return path
        say(f"{path.name} holds no {TRAINER_STATE_NAME}: the run ended while it was saved. The one before it is taken.")
    raise GammaRegError(
        f"Expected a whole checkpoint in {str(output_dir)!r}, found none. Train with a save_strategy first, or name "
        "the checkpoint's folder."
    )


def check_checkpoint(
    folder: str | Path, say: Callable[[str], None], *, world_size: int, sharded: bool, same_data: bool = True
) -> None:
    """Check that a folder holds all that a run goes on from; its files are looked into, not read.

    Args:
        folder: a checkpoint that a Trainer saved.
        say: told what starts afresh, from a checkpoint that was saved with `save_only_model`.
        world_size: the number of processes of this run.
        sharded: whether weights and optimizer state are FSDP's or DeepSpeed's own files, which are theirs to check.
        same_data: whether the run is to see the same data as without a break; then every process needs its own
            random state.

    Raises:
        GammaRegError: if something is missing, cut short, or from a run with another number of processes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GammaRegError(
            f"Expected a checkpoint folder to resume from, found {'a file' if folder.exists() else 'nothing'} at "
            f"{str(folder)!r}. Name one that a run saved (checkpoint-N), or pass True for the last one."
        )
    _check_state(folder)
    if not sharded:
        _check_weights(folder)
    if not keeps_states(folder):
        say(
            f"{folder.name} holds weights and the number of steps only (save_only_model): the optimizer's moments, the "
            "learning rate schedule, which starts from its beginning, and the random state are fresh."
        )
    elif not sharded:
        for name in (OPTIMIZER_NAME, SCHEDULER_NAME):
            _check_archive(folder, name)
    saved_by = len(list(folder.glob("rng_state*.pth")))
    if same_data and saved_by and saved_by != world_size:
        raise GammaRegError(
            f"Expected a checkpoint of a run with {world_size} processes, as this one has, found one with {saved_by} "
            f"in {str(folder)!r}: the data would come in another order. Start as many processes, or set "
            "ignore_data_skip to go on with other data."
        )


def keeps_states(folder: str | Path) -> bool:
    """Whether a checkpoint holds anything of a run's optimizer, scheduler or random state, whoever wrote it."""
    patterns = ("optimizer*", "scheduler*", "rng_state*", "random_states*", "scaler*", "global_step*")
    return any(path for pattern in patterns for path in Path(folder).glob(pattern))


def _check_state(folder: Path) -> None:
    path = folder / TRAINER_STATE_NAME
    try:
        state: Any = json.loads(path.read_text(encoding="utf-8"))
        step = state["global_step"]
    except FileNotFoundError as error:
        raise _lacks(folder, TRAINER_STATE_NAME) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(path, error) from error
    if not isinstance(step, int) or step < 0:
        raise GammaRegError(f"Expected a number of steps in {str(path)!r}, found global_step {step!r}. {ANEW}")


def _check_weights(folder: Path) -> None:
    for index in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
        if (folder / index).is_file():
            try:
                shards = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise _broken(folder / index, error, ELSEWHERE) from error
            for shard in sorted(shards):
                _check_weight_file(folder, shard)
            return
    names = (SAFE_WEIGHTS_NAME, WEIGHTS_NAME, ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME)
    present = [name for name in names if (folder / name).is_file()]
    # An adapter's checkpoint may keep each adapter in a folder of its own.
    if not present and not list(folder.glob(f"*/{ADAPTER_SAFE_WEIGHTS_NAME}")):
        raise _lacks(folder, SAFE_WEIGHTS_NAME, ELSEWHERE)
    for name in present:
        _check_weight_file(folder, name)


def _check_weight_file(folder: Path, name: str) -> None:
    if not name.endswith(".safetensors"):
        return _check_archive(folder, name, ELSEWHERE)
    if not (folder / name).is_file():
        raise _lacks(folder, name, ELSEWHERE)
    try:
        with safe_open(folder / name, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise _broken(folder / name, error, ELSEWHERE) from error
    return None


def _check_archive(folder: Path, name: str, advice: str = ANEW) -> None:
    if not (folder / name).is_file():
        raise _lacks(folder, name, advice)
    # The table of contents is at the end: a file that was cut short has none.
    if not zipfile.is_zipfile(folder / name):
        raise _broken(folder / name, "it was cut short or is of another kind", advice)


def _lacks(folder: Path, name: str, advice: str = ANEW) -> GammaRegError:
    there = [path.name for path in folder.iterdir()]
    return GammaRegError(
        f"Expected {name} in the checkpoint {str(folder)!r}, found {some(there)}. Without it a run can't go on as it "
        f"was. {advice}"
    )


def _broken(path: Path, error: BaseException | str, advice: str = ANEW) -> GammaRegError:
    why = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
    return GammaRegError(f"Expected a file that can be read, found that {str(path)!r} can't ({why}). {advice}")


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
