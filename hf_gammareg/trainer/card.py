"""The Trainer's own model card, with what it can't know of the gammas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard
from transformers import Trainer
from transformers.modelcard import TASK_TAG_TO_NAME_MAPPING, TrainingSummary

from hf_gammareg.show.card import TAGS, check_card, gamma_section, is_repo_id, metric_results
from hf_gammareg.watch.history import PLOT_NAME

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class CardMixin(_Base):
    """What makes a Trainer's card tell the policy, the roles and what was measured."""

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write `README.md` as `Trainer.create_model_card` does, with a section on the gammas and what was measured.

        The arguments are those of `Trainer.create_model_card`. Tags of this library are added; every number of the
        last evaluation becomes a result in the metadata, where task and data set are known. With
        `load_best_model_at_end` it is the evaluation of the weights that were loaded.
        """
        given = [tags] if isinstance(tags, str) else list(tags or [])
        about = {"tasks": tasks, "dataset_tags": dataset_tags, "dataset": dataset, "dataset_args": dataset_args}
        super().create_model_card(
            language=language,
            license=license,
            tags=list(dict.fromkeys([*given, *TAGS])),
            model_name=model_name,
            finetuned_from=finetuned_from,
            **about,
        )
        if not self.is_world_process_zero():
            return
        path = Path(self.args.output_dir or ".") / "README.md"
        card = ModelCard.load(path, ignore_metadata_errors=True)
        entry, best = self._measured()
        # An empty license keeps the summary from asking the Hub again.
        summary = TrainingSummary.from_trainer(self, license=license or "", model_name=model_name, **about)
        card.data.tags = list(dict.fromkeys([*(card.data.get("tags") or ()), *given, *TAGS]))  # PEFT keeps only its own
        card.data.eval_results = metric_results(entry, tasks=_listed(summary.tasks), datasets=_datasets(summary))
        for result in card.data.eval_results:
            result.task_name = TASK_TAG_TO_NAME_MAPPING.get(result.task_type)
        card.data.model_name = summary.model_name
        if isinstance(base := card.data.get("base_model"), str) and not is_repo_id(base):
            card.data.base_model = None  # a folder
        picture = {PLOT_NAME: "Mean size of the gammas over the steps, by role"}
        section = gamma_section(
            self.gammas,  # type: ignore[attr-defined]
            self.gamma_decays,  # type: ignore[attr-defined]
            policy=self._option("policy"),  # type: ignore[attr-defined]
            weight_decay=self.args.weight_decay,
            gamma_weight_decay=self._option("weight_decay"),  # type: ignore[attr-defined]
            applied=self._policy_applied,  # type: ignore[attr-defined]
            pictures=picture if path.with_name(PLOT_NAME).is_file() else None,
        )
        note = (
            f"The weights are those of step {best}, the best one; the metadata give its evaluation.\n\n" if best else ""
        )
        card.text = f"{card.text.rstrip()}\n\n{note}{section}"
        check_card(card).save(path)

    def _measured(self) -> tuple[dict[str, Any], int | None]:
        """The evaluation of the weights that the Trainer holds, and their step where it is not the last one's."""
        log = self.state.log_history
        evaluations = [index for index, entry in enumerate(log) if "eval_loss" in entry]
        if not evaluations:
            return {}, None
        last = log[evaluations[-1]]
        trained = max((index for index, entry in enumerate(log) if "train_runtime" in entry), default=-1)
        best = getattr(self.state, "best_global_step", None)
        if self.args.load_best_model_at_end and best and evaluations[-1] < trained and last["step"] != best:
            return next((log[index] for index in evaluations if log[index]["step"] == best), {}), best
        return last, None


def _datasets(summary: TrainingSummary) -> list[dict[str, Any]]:
    """The data sets of a card, each with what an evaluation result says of it."""
    tags, names = _listed(summary.dataset_tags), _listed(summary.dataset)
    more = [
        {key: value for key, value in (entry or {}).items() if value} for entry in _listed(summary.dataset_metadata)
    ]
    found = []
    for number, tag in enumerate(tags or names):
        about = {"type": tag, "name": names[number] if number < len(names) else tag}
        found.append(about | (more[number] if number < len(more) else {}))
    return found


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
