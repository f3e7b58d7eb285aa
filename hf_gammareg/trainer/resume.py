"""How a Trainer with a gamma policy saves and resumes: nothing goes on silently from something else."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import Trainer

from hf_gammareg.decay.optimizers import unwrapped_optimizer
from hf_gammareg.decay.policy_state import difference
from hf_gammareg.errors import GammaRegError
from hf_gammareg.files import write_whole
from hf_gammareg.model.layouts import Group
from hf_gammareg.resume.checkpoint import ANEW, OTHER, check_checkpoint, keeps_states, last_checkpoint, load_renamed
from hf_gammareg.resume.matching import match_by_name
from hf_gammareg.resume.scheduler import fit_scheduler
from hf_gammareg.trainer.telling import say

REPORT_NAME = "gamma_report.json"
"""The file that a run leaves in its `output_dir`, and in each checkpoint."""


def checkpoint_of(trainer: Trainer, wanted: str | bool | None) -> Path | None:
    """The checkpoint that a run goes on from, looked into; None for a run that starts anew.

    Args:
        trainer: the Trainer, before training.
        wanted: what its `train` was given as `resume_from_checkpoint`.

    Raises:
        GammaRegError: if the checkpoint is not whole, or from another model or number of processes.
    """
    if not wanted:
        return None
    folder = last_checkpoint(trainer.args.output_dir, _warn) if wanted is True else Path(wanted)
    check_checkpoint(
        folder,
        _warn,
        world_size=trainer.args.world_size,
        sharded=trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled,
        same_data=not trainer.args.ignore_data_skip,
    )
    return folder


def resume_by_name(
    trainer: Trainer,
    optimizer: Any,
    model: Any,
    folder: Path | None,
    state: Mapping[str, Any],
    given: Iterable[Group] = (),
) -> None:
    """Make an optimizer load by name, and compare the policy with that of the checkpoint that a run goes on from.

    Args:
        trainer: the Trainer that made the optimizer.
        optimizer: one whose groups the policy has arranged.
        model: the model of its parameters.
        folder: the checkpoint, or None.
        state: the policy's (see `hf_gammareg.PolicyState`).
        given: the optimizer's groups as the Trainer, or its user, made them.

    Raises:
        GammaRegError: if DeepSpeed, which finds its optimizer state by position, is to go on with another policy.
    """
    if isinstance(optimizer, Optimizer) and not trainer.is_deepspeed_enabled:
        match_by_name(optimizer, model, given=given, say=_warn)
    if folder is None or not (saved := _saved_policy(folder / REPORT_NAME)):
        return
    differs = difference(saved, state)
    if differs and trainer.is_deepspeed_enabled:
        raise GammaRegError(
            f"Expected the gammas to decay as in the checkpoint, since DeepSpeed finds its optimizer state by "
            f"position, found another policy. {differs} Resume with the checkpoint's policy, or start anew from "
            "its weights."
        )
    if differs and trainer.is_world_process_zero():
        _warn(differs)


def load_states(trainer: Trainer, load: Callable[[], None], checkpoint: str | None, *, by_name: bool) -> None:
    """Load the states of optimizer and scheduler, and see that the run does not go on from others.

    Args:
        trainer: the Trainer.
        load: its own way to load them.
        checkpoint: what it loads them from; None: it does not.
        by_name: whether the policy has arranged the groups, so that they may be others than in the checkpoint.

    Raises:
        GammaRegError: if they don't fit this run, or none were loaded.
    """
    optimizer = unwrapped_optimizer(trainer.optimizer)
    fits = by_name and checkpoint is not None and not trainer.is_deepspeed_enabled
    if fits and isinstance(optimizer, Optimizer):
        fit_scheduler(trainer.lr_scheduler, optimizer)
    with _fits("optimizer and scheduler states", checkpoint, ANEW):
        load()
    if checkpoint is None or not isinstance(optimizer, Optimizer):
        return
    if trainer.is_fsdp_enabled and not optimizer.state and _keeps_state(optimizer) and keeps_states(checkpoint):
        # accelerate 1.15 reads into what the fresh optimizer holds, and that is nothing.
        raise GammaRegError(
            f"Expected FSDP to load the optimizer state of {checkpoint!r}, found that it loaded none and would go "
            "on from fresh moments. Use FSDP2, or with FSDP1 fsdp_state_dict_type FULL_STATE_DICT for saving too, "
            "or start anew from the checkpoint's weights."
        )
    if fits:
        fit_scheduler(trainer.lr_scheduler, optimizer)


def load_weights(trainer: Trainer, load: Callable[[], None], checkpoint: str | None, model: Any = None) -> None:
    """Load a checkpoint's weights in the Trainer's own way, `load`, or by the names of the Hub where it has those.

    Raises:
        GammaRegError: if they don't fit the model.
    """
    with _fits("weights", checkpoint, OTHER):
        if trainer.is_fsdp_enabled or not load_renamed(trainer.model if model is None else model, checkpoint):
            load()


def load_best_weights(trainer: Trainer, load: Callable[[], None]) -> None:
    """Load the weights of the best checkpoint, as `load_weights` does those of the one to resume from."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if sharded or not load_renamed(trainer.model, trainer.state.best_model_checkpoint):
        load()


def keep_report(trainer: Trainer, folder: str | None) -> None:
    """Put a copy of the run's report into a checkpoint, for `resume_by_name` to compare with."""
    report = Path(trainer.args.output_dir or "") / REPORT_NAME
    if folder and trainer.args.should_save and report.is_file():
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_whole(Path(folder) / REPORT_NAME, report.read_text(encoding="utf-8"))


def _keeps_state(optimizer: Optimizer) -> bool:
    return not (type(optimizer) is torch.optim.SGD and not any(group["momentum"] for group in optimizer.param_groups))


@contextlib.contextmanager
def _fits(what: str, checkpoint: str | None, advice: str) -> Iterator[None]:
    """Turn what loading raises into one clear error."""
    try:
        yield
    except (GammaRegError, torch.OutOfMemoryError):
        raise
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, KeyError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise GammaRegError(
            f"Expected {what} that fit this run in {checkpoint!r}, found {type(error).__name__}: {said}. {advice}"
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
