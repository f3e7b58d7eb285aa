"""The Trainer's own model card, with what it can't know of the gammas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers import Trainer
from transformers.modelcard import TASK_TAG_TO_NAME_MAPPING, TrainingSummary

from hf_gammareg.roles.gammas import GammaMap
from hf_gammareg.show.card import TAGS, check_card, gamma_section, is_repo_id, metric_results
from hf_gammareg.watch.history import PLOT_NAME

_ABOUT = ("license", "model_name", "tasks", "dataset_tags", "dataset", "dataset_args")
"""Arguments of `Trainer.create_model_card` that decide what the summary of a run says."""


def complete_card(
    trainer: Trainer,
    given: Mapping[str, Any],
    gammas: GammaMap,
    decays: Mapping[str, bool],
    *,
    applied: bool,
    **settings: Any,
) -> None:
    """Add to the `README.md` that a Trainer has just written: a section on the gammas, tags, and what was measured.

    Args:
        trainer: the Trainer, after training or before.
        given: what its `create_model_card` was given, by name; what `Trainer.create_model_card` does not know is left.
        gammas: the gammas of its model.
        decays: `{parameter name: decays}`.
        applied: whether the run's optimizer follows the policy.
        settings: `policy`, `weight_decay` and `gamma_weight_decay` of the run.
    """
    path = Path(trainer.args.output_dir or ".") / "README.md"
    card = ModelCard.load(path, ignore_metadata_errors=True)
    entry, best = _measured(trainer)
    # An empty license keeps the summary from asking the Hub again.
    about = {"license": ""} | {name: given[name] for name in _ABOUT if given.get(name)}
    summary = TrainingSummary.from_trainer(trainer, **about)
    # PEFT keeps only its own tags.
    card.data.tags = list(dict.fromkeys([*(card.data.get("tags") or ()), *_listed(given.get("tags")), *TAGS]))
    card.data.eval_results = metric_results(entry, tasks=_listed(summary.tasks), datasets=_datasets(summary))
    for result in card.data.eval_results:
        result.task_name = TASK_TAG_TO_NAME_MAPPING.get(result.task_type)
    card.data.model_name = summary.model_name
    if isinstance(base := card.data.get("base_model"), str) and not is_repo_id(base):
        card.data.base_model = None  # a folder
    picture = {PLOT_NAME: "Mean size of the gammas over the steps, by role"}
    section = gamma_section(
        gammas,
        decays,
        applied=applied,
        pictures=picture if path.with_name(PLOT_NAME).is_file() else None,
        **settings,
    )
    note = f"The weights are those of step {best}, the best one; the metadata give its evaluation.\n\n" if best else ""
    card.text = f"{card.text.rstrip()}\n\n{note}{section}"
    check_card(card).save(path)


def _measured(trainer: Trainer) -> tuple[dict[str, Any], int | None]:
    """The evaluation of the weights that a Trainer holds, and their step where it is not the last one's."""
    log = trainer.state.log_history
    evaluations = [index for index, entry in enumerate(log) if "eval_loss" in entry]
    if not evaluations:
        return {}, None
    last = log[evaluations[-1]]
    trained = max((index for index, entry in enumerate(log) if "train_runtime" in entry), default=-1)
    best = getattr(trainer.state, "best_global_step", None)
    if trainer.args.load_best_model_at_end and best and evaluations[-1] < trained and last["step"] != best:
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
