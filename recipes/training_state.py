"""What a plain Accelerate loop saves beside model and optimizer, and checkpoint folders that are whole or absent."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from hf_gammareg import GammaRegError


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


def find_checkpoint(named: str, output_dir: Path) -> Path:
    """The checkpoint folder that `--resume_from_checkpoint` names; `latest` is the last one in the output folder."""
    if named == "latest":
        saved = [path for pattern in ("step_*", "epoch_*") for path in output_dir.glob(pattern) if path.is_dir()]
        if not saved:
            raise GammaRegError(
                f"Expected a checkpoint in {str(output_dir)!r}, found none. Save some with --checkpointing_steps."
            )
        return max(saved, key=lambda path: path.stat().st_mtime_ns)
    if not Path(named).is_dir():
        raise GammaRegError(
            f"Expected a checkpoint folder for --resume_from_checkpoint, found none at {named!r}. "
            "Name one that --checkpointing_steps left, or 'latest'."
        )
    return Path(named)
