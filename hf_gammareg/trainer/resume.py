"""How a Trainer with a gamma policy saves and resumes: nothing goes on silently from something else."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import Trainer

from hf_gammareg.decay.optimizers import unwrapped_optimizer
from hf_gammareg.decay.policy_state import difference
from hf_gammareg.errors import GammaRegError
from hf_gammareg.files import write_whole
from hf_gammareg.resume.checkpoint import ANEW, check_checkpoint, last_checkpoint, load_renamed
from hf_gammareg.resume.matching import fit_scheduler, match_by_name
from hf_gammareg.trainer.telling import say

REPORT_NAME = "gamma_report.json"
"""The file that a run leaves in its `output_dir`, and in each checkpoint."""

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class ResumeMixin(_Base):
    """What makes a Trainer resume by names: weights, optimizer state and decisions."""

    _resumed: Path | None = None
    _by_name: bool = False
    """Whether the optimizer is ours to arrange; one that the caller passed is not."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer.train` does; a checkpoint is looked into first.

        Raises:
            GammaRegError: if the checkpoint is not whole, or from another model or number of processes.
        """
        self._resumed = None
        if resume_from_checkpoint:
            self._resumed = (
                last_checkpoint(self.args.output_dir, _warn)
                if resume_from_checkpoint is True
                else Path(resume_from_checkpoint)
            )
            check_checkpoint(
                self._resumed,
                world_size=self.args.world_size,
                sharded=self.is_fsdp_enabled or self.is_deepspeed_enabled,
                same_data=not self.args.ignore_data_skip,
            )
        return super().train(str(self._resumed) if self._resumed else None, *args, **kwargs)

    def _resume_by_name(self, optimizer: Optimizer, model: Any, state: dict[str, Any]) -> None:
        """Make the optimizer load by name, and compare the policy's state with that of the checkpoint resumed from."""
        self._by_name = isinstance(optimizer, Optimizer) and not self.is_deepspeed_enabled
        if self._by_name:
            match_by_name(optimizer, model, say=_warn)
        if self._resumed is None or not (saved := _saved_policy(self._resumed / REPORT_NAME)):
            return
        differs = difference(saved, state)
        if differs and self.is_deepspeed_enabled:
            raise GammaRegError(
                f"Expected the gammas to decay as in the checkpoint, since DeepSpeed finds its optimizer state by "
                f"position, found another policy. {differs} Resume with the checkpoint's policy, or start anew from "
                "its weights."
            )
        if differs and self.is_world_process_zero():
            _warn(differs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _fits("optimizer and scheduler states", checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        inner = unwrapped_optimizer(self.optimizer)
        if checkpoint is None or not isinstance(inner, Optimizer):
            return
        if self.is_fsdp_enabled and not inner.state and _keeps_state(inner):
            # accelerate 1.15 reads into what the fresh optimizer holds, and that is nothing.
            raise GammaRegError(
                f"Expected FSDP to load the optimizer state of {checkpoint!r}, found that it loaded none and would go "
                "on from fresh moments. Use FSDP2, or with FSDP1 fsdp_state_dict_type FULL_STATE_DICT for saving too, "
                "or start anew from the checkpoint's weights."
            )
        if self._by_name:
            fit_scheduler(self.lr_scheduler, inner)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        report = Path(self.args.output_dir or "") / REPORT_NAME
        if self.args.should_save and report.is_file():
            write_whole(Path(output_dir) / REPORT_NAME, report.read_text(encoding="utf-8"))
        super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _fits("weights", resume_from_checkpoint):
            if self.is_fsdp_enabled or not load_renamed(self.model if model is None else model, resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded or not load_renamed(self.model, self.state.best_model_checkpoint):
            super()._load_best_model()


def _keeps_state(optimizer: Optimizer) -> bool:
    return not (type(optimizer) is torch.optim.SGD and not any(group["momentum"] for group in optimizer.param_groups))


@contextlib.contextmanager
def _fits(what: str, checkpoint: str | None) -> Iterator[None]:
    """Turn what loading raises into one clear error."""
    try:
        yield
    except (GammaRegError, torch.OutOfMemoryError):
        raise
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, KeyError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise GammaRegError(
            f"Expected {what} that fit this run in {checkpoint!r}, found {type(error).__name__}: {said}. {ANEW}"
        ) from error


def _warn(text: str) -> None:
    say(text, loudly=True)


def _saved_policy(path: Path) -> dict[str, Any] | None:
    """The state that a checkpoint's report tells; None for a checkpoint of plain Trainer, which has none."""
    if not path.is_file():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        gammas = {
            gamma["name"]: {"role": gamma["role"], "decays": gamma["decays"] and gamma.get("trainable", True)}
            for gamma in report["gammas"]
        }
        return {"policy": report["policy"], "gammas": gammas}
    except (ValueError, KeyError, TypeError) as error:
        raise GammaRegError(
            f"Expected the report of a run in {str(path)!r}, found none that can be read ({type(error).__name__}: "
            f"{error}). Delete it to resume without comparing policies, or resume from another checkpoint."
        ) from error
