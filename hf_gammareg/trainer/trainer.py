"""`transformers.Trainer`, with weight decay on the gammas where the policy says."""

from __future__ import annotations

import logging as _logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from accelerate.utils.deepspeed import DummyOptim
from torch import nn
from transformers import Trainer

from hf_gammareg.decay.groups import as_groups, check_ranks
from hf_gammareg.decay.optimizers import unwrapped_optimizer
from hf_gammareg.decay.policy import decide
from hf_gammareg.decay.policy_state import PolicyState
from hf_gammareg.decay.regroup import Outcome, apart_from, differing, groups_of, regroup, strength_of
from hf_gammareg.errors import GammaRegError
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.whole import unwrapped
from hf_gammareg.roles.find import Analysis, unknown, untrained
from hf_gammareg.roles.gammas import UNTRAINED, GammaMap
from hf_gammareg.show.page import PAGE_NAME
from hf_gammareg.trainer.card import complete_card
from hf_gammareg.trainer.given import arguments, first
from hf_gammareg.trainer.looking import fed, look
from hf_gammareg.trainer.monitor import attach_monitors, probing
from hf_gammareg.trainer.resume import (
    REPORT_NAME,
    checkpoint_of,
    keep_report,
    load_best_weights,
    load_states,
    load_weights,
    resume_by_name,
)
from hf_gammareg.trainer.telling import (
    leave_page,
    tell_budget,
    tell_changed,
    tell_left_alone,
    tell_passed_by,
    tell_policy,
)

logger = _logging.getLogger(__name__)


if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class GammaRegTrainerMixin(_Base):
    """What makes a Trainer put the gammas where the policy says; for `Seq2SeqTrainer` and others.

    The options are those of `GammaRegArguments`; with plain `TrainingArguments` they have their defaults. An
    optimizer that the caller passed is never touched.

    >>> from transformers import Seq2SeqTrainer
    >>> class GammaRegSeq2SeqTrainer(GammaRegTrainerMixin, Seq2SeqTrainer):
    ...     pass
    """

    _analysis: tuple[nn.Module, GammaMap] | None = None
    _to_show: Analysis | None = None
    """What a page is to be made of, until it is made."""
    _judged: Callable[[], Any] | None = None
    """The optimizer of which all is said; it is not kept alive."""
    _outcome: Outcome | None = None
    """What became of the decisions in it; None where it was made elsewhere and has others."""
    _apart: tuple[list[str], list[str]] = [], []
    """The parameters that it holds in vain, and those that it lacks, of which all is said."""
    _resumed: Path | None = None
    """The checkpoint that training goes on from."""

    @property
    def gammas(self) -> GammaMap:
        """The gammas of the model, found on first use: on the plain model, with two collated training examples."""
        return self._analysed()[1]

    @property
    def gamma_decays(self) -> dict[str, bool]:
        """`{parameter name: decays}`: what the policy decides for each gamma."""
        model, gammas = self._analysed()
        return decide(
            gammas,
            model,
            self._plain_rule if self._option("policy") == "trainer" else self._option("policy"),
            gamma_decay=self._option("decay") or (),
            gamma_no_decay=self._option("no_decay") or (),
        )

    def gamma_example_inputs(self) -> Any:
        """The inputs that the graph is taken with: what the Trainer would feed the model, of two training examples.

        They are read, collated and handed to the loss in a copy of the process (so only on Linux): data set and
        collator stay as they are. Override it for a model that these do not reach as a whole.

        Returns:
            What `find_gammas` takes; None (inputs from the model's configuration) for a data set without random
            access, which gives up no example, or where collating fails.
        """
        dataset: Any = self.train_dataset
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and len(dataset)):
            return None
        try:
            return fed(self)
        except GammaRegError as error:  # whatever a user's data set may raise, here it costs only a better batch
            logger.info(f"No example batch from the training set: {error}")
            return None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer.train` does; a checkpoint is looked into, and roles are found before the model is wrapped.

        Raises:
            GammaRegError: if the checkpoint is not whole, or from another model or number of processes.
        """
        if self.model_init is None:
            self._analysed()
        attach_monitors(self)
        self._resumed = checkpoint_of(self, resume_from_checkpoint)
        return super().train(str(self._resumed) if self._resumed else resume_from_checkpoint, *args, **kwargs)

    def call_model_init(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Make the model as `Trainer.call_model_init` does, and find its roles if training is to follow at once."""
        model = super().call_model_init(*args, **kwargs)
        if getattr(self, "is_in_train", False):
            self._analysis = self._analyse(model)
        return model

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The names that the Trainer itself decays, with the gammas that the policy decays in place of its own.

        An unbound call, as on `Trainer` with no Trainer at hand, knows no policy and answers as `Trainer` does.
        """
        if not isinstance(self, GammaRegTrainerMixin):
            return Trainer.get_decay_parameter_names(self, model)
        decays = self.gamma_decays
        live = parameter_names(model).called_in(parameter_names(self._analysed()[0]))
        others = [path for path in super().get_decay_parameter_names(model) if live.get(path, path) not in decays]
        return others + [path for path, name in live.items() if decays.get(name)]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Make the optimizer as the Trainer does, with each gamma where the policy says; log it, write the report."""
        given, make = self.optimizer, partial(super().create_optimizer, *args, **kwargs)
        optimizer = make()
        if given is None or isinstance(given, DummyOptim):
            model = arguments(make).get("model")
            self._apply_policy(optimizer, self.model if model is None else model)
        elif (differ := self._judge(given)) and self.is_world_process_zero():
            tell_left_alone(type(self).__name__, differ, self._option("policy"))
        return optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """Make the scheduler as the Trainer does; say and report what decay alone is going to do to a gamma."""
        given, make = self.lr_scheduler, partial(super().create_scheduler, *args, **kwargs)
        scheduler = make()
        if self._policy_applied and given is None and self.is_world_process_zero():
            decays = self.gamma_decays
            names = [gamma.name for gamma in self.gammas if gamma.trainable and decays[gamma.name]]
            asked = {"optimizer": None} | arguments(make)
            optimizer = self.optimizer if asked["optimizer"] is None else asked["optimizer"]
            tell_budget(optimizer, scheduler, asked["num_training_steps"], names, self._report_path)
        return scheduler

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write `README.md` as `Trainer.create_model_card` does, with a section on the gammas and what was measured.

        The arguments are those of the Trainer. Tags of this library are added; every number of the last evaluation
        becomes a result in the metadata, where task and data set are known. With `load_best_model_at_end` it is the
        evaluation of the weights that were loaded.
        """
        write = partial(super().create_model_card, *args, **kwargs)
        write()
        if self.is_world_process_zero():
            applied, settings, decays = self._policy_applied, self._settings, self.gamma_decays
            if self._outcome == "held" and self.optimizer is not None:
                strength = strength_of(unwrapped_optimizer(self.optimizer), self._analysed()[0], decays)
                applied, settings = True, settings | {"weight_decay": strength, "gamma_weight_decay": None}
            complete_card(self, arguments(write), self.gammas, decays, applied=applied, **settings)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        self._tell_changed()
        if (differ := self._judge(self.optimizer)) and self.is_world_process_zero():
            tell_passed_by(type(self).__name__, self.optimizer, differ, self._option("policy"), self._report_path)
        return prepared

    def _load_optimizer_and_scheduler(self, *args: Any, **kwargs: Any) -> None:
        load = partial(super()._load_optimizer_and_scheduler, *args, **kwargs)
        load_states(self, load, first(load), by_name=self._policy_applied)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save the model as `Trainer.save_model` does; a checkpoint, with the optimizer or without, gets the report."""
        save = partial(super().save_model, *args, **kwargs)
        save()
        if self._outcome not in (None, "held") and arguments(save).get("_internal_call"):
            keep_report(self, first(save))

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log as `Trainer.log` does, and name layers that were frozen or thawed since the optimizer was made."""
        self._tell_changed()
        super().log(*args, **kwargs)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        load = partial(super()._load_from_checkpoint, *args, **kwargs)
        load_weights(self, load, first(load), arguments(load).get("model"))

    def _load_best_model(self, *args: Any, **kwargs: Any) -> None:
        load_best_weights(self, partial(super()._load_best_model, *args, **kwargs))

    def _option(self, name: str) -> Any:
        return getattr(self.args, f"gamma_{name}", "guidelines" if name == "policy" else None)

    @property
    def _settings(self) -> dict[str, Any]:
        strengths = {"weight_decay": self.args.weight_decay, "gamma_weight_decay": self._option("weight_decay")}
        return {"policy": self._option("policy"), **strengths}

    @property
    def _policy_applied(self) -> bool:
        return self._outcome in ("kept", "moved") and self._is_judged(self.optimizer)

    @property
    def _report_path(self) -> Path | None:
        return Path(self.args.output_dir) / REPORT_NAME if self.args.output_dir else None

    def _plain_rule(self, gammas: GammaMap, model: nn.Module) -> set[str]:
        # What the Trainer that this is mixed into would do: a policy to compare with.
        live = parameter_names(model).live
        return set(gammas.names) & {live.get(path, path) for path in super().get_decay_parameter_names(model)}

    def _analysed(self) -> tuple[nn.Module, GammaMap]:
        # After training under FSDP the model is a wrapper, with the model that was analysed among its modules.
        model: Any = self.model
        if self._analysis is None or all(module is not self._analysis[0] for module in model.modules()):
            self._analysis = self._analyse(model)
        elif self._analysis[1].source == UNTRAINED and untrained(self._analysis[0]) is None:
            self._analysis = self._analyse(self._analysis[0])  # some may be by now
        return self._analysis

    def _analyse(self, model: nn.Module) -> tuple[nn.Module, GammaMap]:
        model, monitor = unwrapped(model), probing(self)
        probe = monitor.probe if monitor else None
        try:
            analysis, probed = look(model, self.gamma_example_inputs, probe=probe, labels=self.label_names)
        except GammaRegError as error:  # no error stops a run
            analysis, probed = unknown(model, str(error)), False
        if monitor:
            monitor.analysis = analysis if probed else None
        self._to_show = analysis if self._option("page") else None
        return model, analysis.gammas

    def _is_judged(self, optimizer: Any) -> bool:
        if self._judged is None:
            return False
        # DeepSpeed makes its own optimizer of the one that it is given; None: nothing has taken its place.
        return self.is_deepspeed_enabled or optimizer is None or unwrapped_optimizer(optimizer) is self._judged()

    def _judge(self, optimizer: Any) -> list[str]:
        """The gammas that an optimizer, made elsewhere and new here, decays otherwise than the policy."""
        if self._is_judged(optimizer):
            return []
        optimizer = unwrapped_optimizer(optimizer)
        differ = differing(optimizer, self._analysed()[0], self.gamma_decays)
        self._judged, self._outcome = ref(optimizer), None if differ else "held"
        return differ

    def _tell_changed(self) -> None:
        # Sharded parameters are others than those that the optimizer was made of.
        if self._policy_applied and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            model: Any = self.model
            before, self._apart = self._apart, apart_from(unwrapped_optimizer(self.optimizer), model)
            frozen, thawed = ([n for n in now if n not in was] for now, was in zip(self._apart, before, strict=True))
            if (frozen or thawed) and self.is_world_process_zero():
                tell_changed(self.optimizer, frozen, thawed)

    def _apply_policy(self, optimizer: Any, model: Any) -> None:
        """Put the gammas of a fresh optimizer where the policy says, say and report it, and make it resume by name."""
        decays, settings = self.gamma_decays, self._settings
        strengths = {name: settings[name] for name in ("weight_decay", "gamma_weight_decay")}
        config = self.accelerator.state.deepspeed_plugin.deepspeed_config if self.is_deepspeed_enabled else {}
        groups = groups_of(optimizer, model, decays, config)
        given = as_groups(getattr(optimizer, "param_groups", ()))
        self._outcome = outcome = regroup(optimizer, groups, model, decays, **strengths)
        self._judged, applied = ref(unwrapped_optimizer(optimizer)), outcome in ("kept", "moved")
        self._apart = apart_from(optimizer, model)
        if applied:
            # Layers may have been frozen since the analysis.
            parameters = parameter_names(model).parameters
            now = tuple(replace(gamma, trainable=parameters[gamma.name].requires_grad) for gamma in self.gammas)
            self._analysis = self._analysed()[0], replace(self.gammas, gammas=now)
        check_ranks(getattr(optimizer, "param_groups", ()))
        analysed, gammas = self._analysed()
        if self.is_world_process_zero():
            plain, where = self._plain_rule(gammas, analysed), self._report_path
            tell_policy(gammas, decays, plain, outcome, optimizer, self.args.optim, where, **settings)
            if self._to_show and where:
                leave_page(where.with_name(PAGE_NAME), self._to_show, gammas, decays, plain, analysed, optimizer, self)
        self._to_show = None
        if applied:
            state = PolicyState(gammas, decays, settings["policy"]).state_dict()
            resume_by_name(self, optimizer, model, self._resumed, state, given)


# help() and editors show what the Trainer takes.
update_wrapper(GammaRegTrainerMixin.create_model_card, Trainer.create_model_card, assigned=(), updated=())


class GammaRegTrainer(GammaRegTrainerMixin, Trainer):
    """`transformers.Trainer` with weight decay on the gammas where the policy says; it takes the same arguments.

    trainer = GammaRegTrainer(model=model, args=TrainingArguments("out", weight_decay=0.05), train_dataset=data)
    trainer.train()
    print(trainer.gammas)

    When it makes the optimizer it logs one line (how many gammas of which role decay, and what plain Trainer would have
    done) and writes `gamma_report.json` into `output_dir`. See `GammaRegTrainerMixin` and `GammaRegArguments`.
    """
