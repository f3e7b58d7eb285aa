"""Resuming a run: from which checkpoint, with which settings, and checkpoint folders that are whole or absent."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from common.launch import announce
from hf_gammareg import GammaRegError

FILE_NAME = "run_settings.json"

# --- the settings of a run ----------------------------------------------------------------------------------------


def check_settings(folder: str | Path, settings: dict[str, Any]) -> None:
    """Compare the settings of a run to be resumed with those its folder was started with, so that none are mixed.

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
    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(settings, indent=2) + "\n")
    unfinished.replace(path)


# --- a run of the Trainer -----------------------------------------------------------------------------------------


def trainer_checkpoint(args: TrainingArguments, settings: dict[str, Any]) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` names, else the last one in the output folder, if there is one.

    Args:
        args: the Trainer's. `resume_from_checkpoint` is a folder, or `true` for the last one, which must then be there.
        settings: those of this run. They must be those of the last checkpoint; of a folder that is named only the
            `dataset` must be the same.

    Raises:
        GammaRegError: if there is no such checkpoint, or it is of a run with other settings.
    """
    named = args.resume_from_checkpoint
    if named and str(named).lower() != "true":
        if not Path(named).is_dir():
            raise GammaRegError(f"Expected a checkpoint folder to resume from, found none at {named!r}.")
        check_settings(Path(named).parent, {"dataset": settings["dataset"]})
        return str(named)
    # One that was written to its end: the Trainer writes trainer_state.json last.
    whole = [path.parent for path in Path(args.output_dir).glob(f"checkpoint-*/{TRAINER_STATE_NAME}")]
    last = max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
    if last is None and named:
        raise GammaRegError(f"Expected a checkpoint in {args.output_dir!r} to resume from, found none.")
    if last is None:
        return None
    check_settings(args.output_dir, settings)
    announce(f"Resuming from {last}. To start anew, give another --output_dir.")
    return str(last)


# --- a run of a plain Accelerate loop -----------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a run is: given to `Accelerator.register_for_checkpointing`, saved and loaded with the rest."""

    batches: int = 0
    """Batches seen by each process, over all epochs."""
    loss_sum: float = 0.0
    """Sum of their losses in the current epoch."""

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "loss_sum": self.loss_sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches, self.loss_sum = state["batches"], state["loss_sum"]


def save_checkpoint(accelerator: Accelerator, progress: Progress, folder: Path) -> None:
    """Save the state of the run; a run that is killed meanwhile leaves no folder that looks whole."""
    total = torch.tensor(progress.loss_sum, dtype=torch.float64 if accelerator.device.type == "cpu" else torch.float32)
    progress.loss_sum = accelerator.reduce(total.to(accelerator.device), reduction="mean").item()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    accelerator.wait_for_everyone()


def loop_checkpoint(named: str | None, output_dir: str | Path, settings: dict[str, Any]) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` names; `latest` is the last one in the output folder.

    Args:
        named: a folder that `save_checkpoint` left, `latest`, or None to start anew.
        output_dir: of this run.
        settings: must be those of the run that left it.

    Raises:
        GammaRegError: if there is no such checkpoint, or it is of a run with other settings.
    """
    if named is None:
        return None
    folder = Path(named)
    if named == "latest":
        saved = [path for kind in ("step_*", "epoch_*") for path in Path(output_dir).glob(kind) if path.is_dir()]
        if not saved:
            raise GammaRegError(
                f"Expected a checkpoint in {str(output_dir)!r}, found none. Save some with --checkpointing_steps."
            )
        folder = max(saved, key=lambda path: path.stat().st_mtime_ns)
    elif not folder.is_dir():
        raise GammaRegError(
            f"Expected a checkpoint folder for --resume_from_checkpoint, found none at {named!r}. "
            "Name one that --checkpointing_steps left, or 'latest'."
        )
    check_settings(folder.parent, settings)
    return folder
