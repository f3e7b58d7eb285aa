"""Model cards: what became of the gammas, for people, and measured results, for the Hub."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.gammas import GammaMap, closing_lines, table_rows
from hf_gammareg.roles.table import markdown_lines

TAGS = ("hf_gammareg", "weight-decay", "normalization")
"""What the Hub finds these models by."""

READING = (
    "Which role a gamma has, and which roles decay, is this library's own reading of the paper's two analyses, "
    "computed from the model's graph; it is not a statement of the paper's authors."
)

CITATION = """\
```bibtex
@article{kim2024guidelines,
  title   = {Guidelines for the Regularization of Gammas in Batch Normalization for Deep Residual Networks},
  author  = {Kim and Choi and Jang and Kim},
  journal = {ACM Transactions on Intelligent Systems and Technology},
  year    = {2024},
  doi     = {10.1145/3643860},
  note    = {arXiv:2205.07260}
}
```"""

NOT_METRICS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
"""What an evaluation tells of the machine, not of the model."""


def gamma_section(
    gammas: GammaMap,
    decays: Mapping[str, bool],
    *,
    policy: str,
    weight_decay: float,
    gamma_weight_decay: float | None = None,
    applied: bool = True,
    pictures: Mapping[str, str] | None = None,
    version: str | None = None,
) -> str:
    """Write the section of a card that tells which gammas decayed, in Markdown.

    Args:
        gammas: the gammas of the model.
        decays: `{parameter name: decays}` from `hf_gammareg.decay.policy.decide`.
        policy: name of the policy.
        weight_decay: the run's weight decay.
        gamma_weight_decay: that of the gammas, where it is another.
        applied: False if the optimizer had groups of its own, so that the decisions below were not followed.
        pictures: `{file name beside the card: what it shows}`.
        version: of this library, as it was when the model was trained; default: the one that writes the card.

    Returns:
        Text that begins with its heading and ends with the citation.
    """
    from hf_gammareg import __version__

    version = version or __version__
    acting = {gamma.name: decays[gamma.name] and gamma.trainable for gamma in gammas}
    strength = f"{weight_decay:g}"
    if gamma_weight_decay is not None and gamma_weight_decay != weight_decay:
        strength = f"{gamma_weight_decay:g}; the run's weight decay is {weight_decay:g}"
    decision = (
        f"Policy `{policy}` of hf_gammareg {version}: {sum(acting.values())} of {len(gammas)} normalization gains "
        f"(gammas) decay, with weight decay {strength}."
        if applied
        else f"The policy `{policy}` of hf_gammareg {version} was **not** applied when this card was written: the "
        "optimizer was not made by it, or kept groups of its own. The column `decays` says what the policy would do."
    )
    lines = ["## Weight decay on the normalization gains", "", decision, ""]
    lines += markdown_lines(["decays"], table_rows(gammas, [decays]))
    lines += [*closing_lines(gammas, acting), "", f"{READING} The guidelines are those of:", "", CITATION, ""]
    for name, shown in (pictures or {}).items():
        lines += [f"![{shown}]({name})", ""]
    return "\n".join(lines)


def make_card(
    title: str,
    *,
    gammas: GammaMap,
    decays: Mapping[str, bool],
    policy: str,
    weight_decay: float,
    gamma_weight_decay: float | None = None,
    description: str = "",
    settings: Mapping[str, Any] | None = None,
    results: Sequence[EvalResult] = (),
    pictures: Mapping[str, str] | None = None,
    version: str | None = None,
    tags: Iterable[str] = (),
    **metadata: Any,
) -> ModelCard:
    """Make the card of a model that a raw loop trained.

    >>> from torch import nn, zeros
    >>> from hf_gammareg import find_gammas
    >>> model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    >>> gammas = find_gammas(model, zeros(2, 4))
    >>> card = make_card("tiny", gammas=gammas, decays={"1.weight": False}, policy="guidelines", weight_decay=0.1)
    >>> card.data.tags
    ['hf_gammareg', 'weight-decay', 'normalization']
    >>> print(*[line for line in card.text.splitlines() if line.startswith("| ")], sep="\\n")
    | role | decays | gammas | why |
    | --- | --- | --- | --- |
    | final | no | `1.weight` | Reaches the output through `2`, normalised by nothing on the way. |

    Args:
        title: the heading, and the model's name in the results.
        gammas, decays, policy, weight_decay, gamma_weight_decay, pictures, version: see `gamma_section`.
        description: Markdown below the heading: what was trained, on what, how it is loaded.
        settings: options of the run, for a table.
        results: measured on the model that the card describes.
        tags: go before those of this library.
        **metadata: other fields of `huggingface_hub.ModelCardData`: `library_name`, `license`, `datasets`, `metrics`.

    Returns:
        A card that `check_card` passed; `card.save(path)` writes it, `card.push_to_hub(repo_id)` uploads it.

    Raises:
        GammaRegError: if the metadata are not what the Hub takes.
    """
    data = ModelCardData(
        model_name=title,
        tags=list(dict.fromkeys([*tags, *TAGS])),
        eval_results=list(results) or None,
        **metadata,
    )
    options = {"policy": policy, "weight_decay": weight_decay, "gamma_weight_decay": gamma_weight_decay}
    options |= {"version": version}
    parts = [f"# {title}", description.strip()]
    if settings:
        rows = [f"| {name} | {value} |" for name, value in settings.items()]
        parts.append("\n".join(["## Training", "", "| setting | value |", "| --- | --- |", *rows]))
    parts.append(gamma_section(gammas, decays, pictures=pictures, **options))  # type: ignore[arg-type]
    text = "\n\n".join(part for part in parts if part)
    card = ModelCard(f"---\n{{}}\n---\n\n{text}")
    card.data = data
    return check_card(card)


def metric_results(
    metrics: Mapping[str, Any], *, tasks: Iterable[str], datasets: Iterable[Mapping[str, Any]]
) -> list[EvalResult]:
    """Make evaluation results for the metadata of a card, one for each number, task and data set.

    >>> (result,) = metric_results({"eval_accuracy": 0.5, "eval_runtime": 3.0, "epoch": 1.0},
    ...                            tasks=["image-classification"], datasets=[{"type": "beans", "name": "Beans"}])
    >>> result.metric_type, result.metric_name, result.metric_value
    ('accuracy', 'Accuracy', 0.5)

    Args:
        metrics: what `Trainer.evaluate` returns or logs: numbers whose keys begin with `eval_`.
        tasks: the Hub's names of tasks, such as `image-classification`.
        datasets: of each `type` (its id on the Hub) and `name`, and if known `config`, `split`, `revision`, `args`.

    Returns:
        Results in the order of the metrics, losses last; none where no task or no data set is known, as the Hub wants
        both.
    """
    numbers = {
        key.removeprefix("eval_"): value
        for key, value in metrics.items()
        if key.startswith("eval_") and _is_number(value) and key.removeprefix("eval_") not in NOT_METRICS
    }
    return [
        EvalResult(
            task_type=task,
            metric_type=key,
            metric_name=" ".join(word.capitalize() for word in key.split("_")),
            metric_value=value,
            **{f"dataset_{field}": dataset[field] for field in dataset},
        )
        for task in tasks
        for dataset in datasets
        for key, value in sorted(numbers.items(), key=lambda item: item[0].endswith("loss"))
    ]


def check_card(card: ModelCard) -> ModelCard:
    """Check what can be checked of a card's metadata without the Hub, whose own check `push_to_hub` calls.

    Args:
        card: a card.

    Returns:
        The card.

    Raises:
        GammaRegError: if the metadata do not survive writing and reading, a result lacks a field or its value is not
            finite, a tag is no text, or `base_model` is no id of the Hub.
    """
    problems = []
    try:
        if ModelCard(str(card)).data.to_dict() != card.data.to_dict():
            problems.append("metadata that read otherwise than they were written")
    except Exception as error:
        problems.append(f"metadata that can't be read back ({type(error).__name__}: {error})")
    for result in getattr(card.data, "eval_results", None) or ():
        for field in ("task_type", "dataset_type", "dataset_name", "metric_type"):
            if not (isinstance(value := getattr(result, field), str) and value.strip()):
                problems.append(f"a result with {field}={value!r}")
        if not (isinstance(result.metric_value, str) or _is_number(result.metric_value)):
            problems.append(f"a result with metric_value={result.metric_value!r}")
    problems += [
        f"the tag {tag!r}" for tag in card.data.get("tags") or () if not (isinstance(tag, str) and tag.strip())
    ]
    base = card.data.get("base_model")
    problems += [
        f"base_model={name!r}" for name in ([base] if isinstance(base, str) else base or ()) if not is_repo_id(name)
    ]
    if problems:
        raise GammaRegError(
            f"Expected metadata that the Hub takes, found {', '.join(problems[:5])}. Correct them before the card is "
            "written."
        )
    return card


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_repo_id(name: Any) -> bool:
    """Whether a name can be that of a repository on the Hub; a folder's path can't."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
