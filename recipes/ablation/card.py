"""The model card of an ablation: what every number in it means, and the command that repeats it."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult

from ablation.arms import BASELINE
from ablation.config import CONFIG_NAME, Ablation
from ablation.plots import DEPTH, OVERVIEW, SIZES
from ablation.results import against, seeds
from ablation.runs import RUNS_NAME
from ablation.statistics import Results
from ablation.tables import arm_table, comparison_table, role_table, strength_table, verdict_table
from hf_gammareg import make_card
from hf_gammareg.decay.policy import guidelines

ROOT = Path(__file__).parents[2]
TASKS = {
    "images": ("image-classification", "test", "timm"),
    "sentences": ("text-classification", "validation", "transformers"),
    "bytes": ("text-generation", "test", "transformers"),
}
"""By task what the Hub calls it, the split that is tested on, and the library of the network."""
SHIPPED = {"digits": "ships with scikit-learn", "python": "is the source of Python's standard library"}
"""Data sets that are on every machine."""

DESCRIPTION = """\
{runs} runs of the same network, {seeds}, that differ only in which normalization gains (gammas)
weight decay touches. This card is about what that changed; the weights are not kept. `{runs_name}` holds a line of JSON
for each run with everything that was measured, and every number below follows from these lines:

```bash
python recipes/gamma_ablation.py report {place}          # tables and plots anew; --check: do they fit?
python recipes/gamma_ablation.py rerun {place} {example}{data}
python recipes/gamma_ablation.py run {place}/{config}{data} --output-dir runs/{folder}
```

The second one does a run again and compares every number with the kept line: on one thread of a CPU, with the same
versions and instructions, they are equal to the bit. The third does all of them, on `{dataset}`{there}.
They were trained on {machine}.

Differences are to the arm `none` (no gamma decays), paired by seed; brackets are 95 % confidence intervals of their
mean by Student's t, each for itself: of twenty intervals one misses on average. Nothing was tuned for an arm. Weights
decay by {weight_decay:g} in all of them; gammas, where they do, by a strength of their own.
{comparisons}
## What decay on each role does

Gammas decay by {strength:g}{start}. A verdict is *supported* or *contradicted* where the interval leaves out no change,
else *not decided* at this scale. *Predicted* is what this library's reading of the paper's analyses says of the
mechanism: the variance of branch over skip, at the residual sums that the role acts on, or the effective learning rate
of absorbed gammas. The latter is a function of their size by definition: that it moved says that decay prevailed over
the gradient, not that training became more stable. Of `final` neither analysis says anything. The accuracy should rise
on roles to decay, and fall on the others. *Exact* are gammas whose fate holds to rounding; the others meet a GELU or a
softmax on the way, so that an absorbed one is cancelled only nearly.

{roles}

{against}

## By arm

Branch / skip is the geometric mean over all residual sums on {probe} test examples. `complement` decays what
`guidelines` leaves alone. Where the training loss (of the last epoch) rises with the test loss, decay kept the
network from fitting rather than from generalising.

{arms}

## By strength and initialisation

Accuracy in points, and the size of the arm's gammas. "Decay alone leaves" is what it would make of a gamma without
gradient; where that is near 1, nothing can be concluded.

{strengths}

Verdicts, mechanism / accuracy:

{verdicts}
"""

COMPARISONS = """
## The comparisons that count

They were named before the first run. Differences are paired by seed, at decay {strength:g}{start}.
Intervals and p are corrected by Holm for the {number} comparisons named, accuracy and test loss each by itself: an
interval leaves out 0 where p is below 0.05, and only there. *Would show* is the smallest true difference that so many
pairs decide in four of five cases, by the scatter that was measured: what is smaller may be there unseen.

{table}
"""


def card_text(results: Results, folder: Path) -> str:
    """The model card of an ablation.

    Args:
        results: of one folder.
        folder: that folder.
    """
    config, gammas = results.config, results.network.gammas
    strength = results.main[1]
    chosen = guidelines(gammas, None)  # type: ignore[arg-type]  # this rule looks at roles only
    reached = [run["eval_accuracy"] for run, _ in results.pairs(results.network.same_as["guidelines"], results.main)]
    task, split, library = TASKS[config.task]
    result = EvalResult(
        task_type=task,
        dataset_type=config.dataset,
        dataset_name=config.dataset,
        dataset_split=split,
        metric_type="accuracy",
        metric_name=f"Accuracy, mean of {len(reached)} seeds",
        metric_value=round(float(np.mean(reached)), 4),
    )
    pictures = {
        OVERVIEW: "Branch to skip, effective learning rate and accuracy by arm, with 95 % confidence intervals",
        SIZES: "Mean size of the gammas of each role over training, by arm",
        DEPTH: "Variance of branch over skip at each residual sum, by arm",
    }
    card = make_card(
        config.title,
        gammas=gammas,
        decays={gamma.name: gamma.name in chosen for gamma in gammas},
        policy="guidelines",
        weight_decay=config.weight_decay,
        gamma_weight_decay=strength,
        description=_description(results, folder),
        settings=_settings(config),
        results=[result],
        pictures=pictures,
        version=next(iter(results.records.values()))["machine"]["hf-gammareg"],
        base_model=config.model if config.task == "sentences" else None,
        tags=[task],
        library_name=library,
        datasets=None if config.dataset in SHIPPED else [config.dataset],
        metrics=["accuracy"],
    )
    return str(card)


def _description(results: Results, folder: Path) -> str:
    config, records = results.config, list(results.records.values())
    init, strength = results.main
    start = "" if init is None else f"; those of role `last` start at {init:g}"
    example = next(record["run"] for record in records if record["arm"] != BASELINE)
    local = config.dataset not in SHIPPED
    machines = list(dict.fromkeys(_machine(record["machine"]) for record in records))
    return DESCRIPTION.format(
        runs=len(records),
        seeds=seeds(results),
        runs_name=RUNS_NAME,
        folder=folder.name,
        place=_place(folder),
        example=example,
        data=" --data-dir DATA" * local,
        config=CONFIG_NAME,
        dataset=config.dataset,
        there=", which comes from the Hub or lies in DATA" if local else f", which {SHIPPED[config.dataset]}",
        machine="; and on ".join(machines),
        weight_decay=config.weight_decay,
        strength=strength,
        start=start,
        comparisons=COMPARISONS.format(
            strength=strength, start=start, number=len(config.comparisons), table=comparison_table(results)
        )
        if config.comparisons
        else "",
        roles=role_table(results),
        against=against(results),
        probe=config.probe_examples,
        arms=arm_table(results, results.main),
        strengths=strength_table(results),
        verdicts=verdict_table(results),
    )


def _place(folder: Path) -> str:
    """A folder as a command in this repository names it; a copy from elsewhere as if it were kept."""
    folder = folder.resolve()
    return (folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else Path("model_cards", folder.name)).as_posix()


def _machine(found: dict[str, str]) -> str:
    rest = ", ".join(f"{name} {version}" for name, version in found.items() if name != "device")
    return f"{found['device']} with {rest}"


def _settings(config: Ablation) -> dict[str, Any]:
    """The settings that are not at their default, for the card's table."""
    found = {}
    for option in fields(config):
        value = getattr(config, option.name)
        default = option.default_factory() if option.default_factory is not MISSING else option.default
        if option.name != "title" and value != default:
            found[option.name] = value
    return found
