"""The monitor as a callback of `transformers.Trainer`."""

from __future__ import annotations

import importlib.util
import logging as _logging
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_gammareg.errors import GammaRegError
from hf_gammareg.model.values import is_main_process, sharded
from hf_gammareg.model.whole import unwrapped
from hf_gammareg.roles.find import Analysis
from hf_gammareg.roles.gammas import GammaMap
from hf_gammareg.trainer.looking import collated, look
from hf_gammareg.watch.history import HISTORY_NAME
from hf_gammareg.watch.monitor import NEAR_ZERO, GammaMonitor, learning_rates

logger = _logging.getLogger(__name__)


class GammaMonitorCallback(TrainerCallback):
    """Logs what happens to the gammas, whenever the Trainer logs its training loss.

    trainer = GammaRegTrainer(model, args, train_dataset=data, callbacks=[GammaMonitorCallback()])

    The values (see `GammaMonitor` for the keys) go through `Trainer.log` as an entry of their own, so whatever
    `report_to` names gets them; TensorBoard and others show them as `train/gamma/last/mean`. They also go to
    `gamma_history.jsonl` in the output folder, with a first row before the first step, and when training ends
    `gamma_history.png` is drawn from it, if matplotlib is installed.

    A `GammaRegTrainer` lends its `gammas`. Plain `Trainer` has none, so they are found when training begins; and there
    the callback can reach `Trainer.log` only if it is given the Trainer:

    trainer.add_callback(GammaMonitorCallback(trainer))

    Args:
        trainer: the Trainer to log through; not needed for a `GammaRegTrainer`.
        gammas: roles to go by; needed for plain `Trainer` under FSDP or ZeRO-3, or for a model that does not say what
            it takes: `find_gammas(model, example_inputs)`, before the Trainer is made.
        near_zero: a gain below this size is near 0.
        probe: a batch for the variances of branch and skip; each logging step then costs a forward pass more.
        plot: whether to draw the picture.

    Raises:
        GammaRegError: when training begins, if the roles of the gammas can't be found.
    """

    def __init__(
        self,
        trainer: Trainer | None = None,
        *,
        gammas: GammaMap | None = None,
        near_zero: float = NEAR_ZERO,
        probe: Any = None,
        plot: bool = True,
    ) -> None:
        self.trainer, self.gammas, self.plot = trainer, gammas, plot
        self.near_zero, self.probe = near_zero, probe
        self.analysis: Analysis | None = None
        """Of the model that is about to be trained, by the probe's batch; lent by a `GammaRegTrainer`."""
        self.monitor: GammaMonitor | None = None
        """What measures; there from the beginning of training."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the gammas, and go on with the history where the run goes on."""
        model = kwargs["model"]
        gammas = self.gammas or getattr(self.trainer, "gammas", None)
        analysis, self.analysis = self.analysis, None  # what it holds goes with the monitor's first measurement
        if gammas is None:
            analysis, gammas = self._look(model, kwargs.get("train_dataloader"), args)
        folder = Path(args.output_dir or ".")
        folder = folder / state.trial_name if state.is_hyper_param_search and state.trial_name else folder
        probe = analysis or self.probe
        history = folder / HISTORY_NAME
        self.monitor = GammaMonitor(model, gammas, history=history, near_zero=self.near_zero, probe=probe)
        self.monitor.resume(state.global_step)
        if state.global_step == 0:
            self.monitor.measure(0)
        if self.trainer is None and args.report_to and is_main_process():
            logger.warning(
                f"GammaMonitorCallback was not given its Trainer, so {', '.join(args.report_to)} may miss the values; "
                "the history has them. Use GammaRegTrainer, or trainer.add_callback(GammaMonitorCallback(trainer))."
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure where the Trainer logs a training loss, on every process, and log the values."""
        # The Trainer's own entry has both; evaluations, users' entries and ours have not.
        if self.monitor is None or not logs or not {"loss", "learning_rate"} <= logs.keys():
            return
        rates = learning_rates(kwargs.get("optimizer"), self.monitor.model, self.monitor.gammas.names)
        values = self.monitor.measure(state.global_step, rates or logs["learning_rate"])
        if self.trainer is not None:
            self.trainer.log(dict(values))
            return
        logs.update(values)  # callbacks after this one see it
        if state.log_history:
            state.log_history[-1].update(values)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the picture; a picture that can't be drawn spoils no run."""
        if not (self.plot and self.monitor and is_main_process()):
            return
        if importlib.util.find_spec("matplotlib") is None:
            logger.info("No gamma_history.png: matplotlib is not installed.")
            return
        try:
            self.monitor.plot()
        except GammaRegError as error:
            logger.warning(str(error))

    def _look(self, model: nn.Module, loader: Any, args: TrainingArguments) -> tuple[Analysis | None, GammaMap]:
        """The gammas of a model that plain Trainer trains, and the analysis if it was made by the probe's batch."""
        if sharded(model):
            raise GammaRegError(
                "Expected a model that is not sharded to find the gammas of, found one under FSDP or ZeRO-3. Use "
                "GammaRegTrainer, or pass GammaMonitorCallback gammas=find_gammas(model), found before training."
            )
        labels = args.label_names or ("labels",)
        found, probed = look(unwrapped(model), lambda: _examples(loader), probe=self.probe, labels=labels)
        return found if probed else None, found.gammas


def attach_monitors(trainer: Trainer) -> None:
    """Give each monitor among a Trainer's callbacks the Trainer to log through."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, GammaMonitorCallback):
            callback.trainer = trainer


def probing(trainer: Trainer) -> GammaMonitorCallback | None:
    """The first monitor with a probe among a Trainer's callbacks."""
    monitors = (monitor for monitor in trainer.callback_handler.callbacks if isinstance(monitor, GammaMonitorCallback))
    return next((monitor for monitor in monitors if monitor.probe is not None), None)


def _examples(loader: Any) -> Any:
    """Two examples of a loader's data set, collated; None where it gives none."""
    try:
        return collated(loader)
    except GammaRegError:
        return None
