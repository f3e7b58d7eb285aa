"""What is told of an ablation: a model card beside the JSON lines, and the table of a README."""

import os
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from ablation.arms import BASELINE, WHOLE
from ablation.config import CONFIG_NAME, Ablation, read_config
from ablation.plots import DEPTH, OVERVIEW, SIZES
from ablation.runs import RUNS_NAME, read_network, read_runs
from ablation.statistics import CONTRADICTED, SUPPORTED, UNDECIDED, Cell, Results
from ablation.tables import (
    ROLE_HEADER,
    arm_table,
    cell_name,
    role_rows,
    role_table,
    strength_table,
    table,
    verdict_table,
)
from hf_gammareg import GammaRegError, make_card
from hf_gammareg.decay.policy import guidelines
from hf_gammareg.files import write_whole

BEGIN, END = "<!-- table of gamma_ablation.py report -->", "<!-- end of the table -->"
"""What a README's table stands between."""

DESCRIPTION = """\
{runs} runs of the same network, {seeds} seeds in every arm, that differ only in which normalization gains (gammas)
weight decay touches. This card is about what that changed; the weights are not kept. `{runs_name}` holds a line of JSON
for each run with everything that was measured, and every number below follows from these lines:

```bash
python recipes/gamma_ablation.py report model_cards/{folder}          # tables and plots anew; --check: do they fit?
python recipes/gamma_ablation.py rerun model_cards/{folder} {example}{data}
python recipes/gamma_ablation.py run model_cards/{folder}/{config}{data} --output-dir runs/{folder}
```

The second one does a run again and compares every number with the kept line: on one thread of a CPU, with the same
versions and instructions, they are equal to the bit. The third does all of them, on the data set `{dataset}`{there}.
They were trained on {machine}.

Differences are to the arm `none` (no gamma decays), paired by seed; brackets are 95 % confidence intervals of their
mean by Student's t, each for itself: of twenty intervals one misses on average. Nothing was tuned for an arm. Weights
decay by {weight_decay:g} in all of them; gammas, where they do, by a strength of their own.

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
`guidelines` leaves alone. Where the training loss (of the last epoch) rises with the test loss, decay kept the network
from fitting in so short a run, rather than from generalising.

{arms}

## By strength{and_init}

Accuracy in points, and the size of the arm's gammas. "Decay alone leaves" is what it would make of a gamma without
gradient; where that is near 1, nothing can be concluded.

{strengths}

Verdicts, mechanism / accuracy:

{verdicts}
"""


def read_results(folder: Path) -> Results:
    """The settings, the network and the runs in a folder.

    Raises:
        GammaRegError: if something is missing or does not fit.
    """
    config, _ = read_config(folder / CONFIG_NAME)
    results = Results(config, read_network(folder), read_runs(folder / RUNS_NAME))
    if not results.cells:
        raise GammaRegError(
            f"Expected runs of an ablation in {str(folder / RUNS_NAME)!r}, found {len(results.records)}. Start "
            "`gamma_ablation.py run` with this output folder."
        )
    return results


def card_text(results: Results, name: str) -> str:
    """The model card of an ablation.

    Args:
        results: of one folder.
        name: of that folder, under `model_cards`.
    """
    config, gammas = results.config, results.network.gammas
    strength = results.main[1]
    images = config.task == "images"
    chosen = guidelines(gammas, None)  # type: ignore[arg-type]  # this rule looks at roles only
    reached = results.mean_accuracy(results.network.same_as["guidelines"], results.main)
    result = EvalResult(
        task_type="image-classification" if images else "text-classification",
        dataset_type=config.dataset,
        dataset_name=config.dataset,
        dataset_split="test" if images else "validation",
        metric_type="accuracy",
        metric_name=f"Accuracy, mean of {results.seeds} seeds",
        metric_value=round(reached, 4),
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
        description=_description(results, name),
        settings=_settings(config),
        results=[result],
        pictures=pictures,
        version=next(iter(results.records.values()))["machine"]["hf-gammareg"],
        base_model=None if images else config.model,
        tags=["image-classification" if images else "text-classification"],
        library_name="timm" if images else "transformers",
        datasets=None if config.dataset == "digits" else [config.dataset],
        metrics=["accuracy"],
    )
    return str(card)


def _description(results: Results, name: str) -> str:
    config, records = results.config, list(results.records.values())
    init, strength = results.main
    example = next(record["run"] for record in records if record["arm"] != BASELINE)
    local = config.dataset != "digits"
    machines = list(dict.fromkeys(_machine(record["machine"]) for record in records))
    return DESCRIPTION.format(
        runs=len(records),
        seeds=results.seeds,
        runs_name=RUNS_NAME,
        folder=name,
        example=example,
        data=" --data-dir DATA" * local,
        config=CONFIG_NAME,
        dataset=config.dataset,
        there=", which comes from the Hub or lies in DATA" if local else ", which ships with scikit-learn",
        machine="; and on ".join(machines),
        weight_decay=config.weight_decay,
        strength=strength,
        start="" if init is None else f"; those of role `last` start at {init:g}",
        roles=role_table(results),
        against=against(results),
        probe=config.probe_examples,
        arms=arm_table(results, results.main),
        and_init=" and initialisation" if len(config.last_inits) > 1 else "",
        strengths=strength_table(results),
        verdicts=verdict_table(results),
    )


def _machine(found: dict[str, str]) -> str:
    rest = ", ".join(f"{name} {version}" for name, version in found.items() if name != "device")
    return f"{found['device']} with {rest}"


MEASURES = {"eval_accuracy": ("accuracy", 1), "eval_loss": ("test loss", -1)}
"""By result its name, and which way it gets better."""


def against(results: Results, *measures: str) -> str:
    """What speaks against the guidelines at any strength and initialisation, and what stays open at the main one.

    Args:
        results: of one folder.
        *measures: keys of `MEASURES` by which whole policies are compared; default: all.
    """
    wrong, undecided = [], []
    for role in results.roles:
        for number, what in enumerate(("mechanism", "accuracy")):
            verdicts = {cell: results.verdicts(role, cell)[number] for cell in results.cells}
            wrong += [f"{what} of `{role}` ({one})"] if (one := _places(verdicts, CONTRADICTED)) else []
            undecided += [f"{what} of `{role}`"] if verdicts.get(results.main) == UNDECIDED else []
    said = [f"**Against the guidelines: {', '.join(wrong) or 'nothing that is decided here'}.**"]
    for arm in WHOLE:
        for key in measures or MEASURES:
            what, better = MEASURES[key]
            changes = {cell: results.difference(results.network.same_as[arm], cell, key) for cell in results.cells}
            verdicts = {cell: change.verdict(better) for cell, change in changes.items() if change}
            for word, verdict in (("better", SUPPORTED), ("worse", CONTRADICTED)):
                said += [f"{what} of `{arm}` {word} ({one})"] if (one := _places(verdicts, verdict)) else []
    said[1:] = [f"Against no decay on gammas: {', '.join(said[1:])}."] if said[1:] else []
    said += [f"Not decided at the main strength: {', '.join(undecided)}."] if undecided else []
    return " ".join(said)


def _places(verdicts: dict[Cell, str], verdict: str) -> str:
    return "; ".join(cell_name(cell) for cell, found in verdicts.items() if found == verdict)


def _settings(config: Ablation) -> dict[str, Any]:
    """The settings that are not at their default, for the card's table."""
    found = {}
    for option in fields(config):
        value = getattr(config, option.name)
        default = option.default_factory() if option.default_factory is not MISSING else option.default
        if option.name != "title" and value != default:
            found[option.name] = value
    return found


def headline(folders: list[Path], beside: Path) -> str:
    """The table of a README: every role of every network, with both verdicts, and what went against the guidelines.

    Args:
        folders: of results.
        beside: the README's folder; the table's links start there.
    """
    rows, said = [], []
    for folder in folders:
        results = read_results(folder)
        said.append(f"- {results.config.title} ({cell_name(results.main)}): {against(results, 'eval_accuracy')}")
        place = Path(os.path.relpath(folder, beside)).as_posix()
        link = f"[{results.config.title}]({place}), {results.seeds} seeds"
        rows += [[link if number == 0 else "", *row] for number, row in enumerate(role_rows(results))]
    return "\n".join([table(["network", "role", *ROLE_HEADER], rows), "", *said])


def with_headline(text: str, found: str) -> str:
    """A README's text with its table replaced.

    Raises:
        GammaRegError: if it has no place for one.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise GammaRegError(f"Expected the lines {BEGIN!r} and {END!r} in the README, found neither. Put them in.")
    return f"{before}{BEGIN}\n{found}\n{END}{after}"


def write_or_compare(path: Path, text: str, check: bool) -> bool:
    """Write a file, or with `check` say whether it holds this text already."""
    if check:
        return path.is_file() and path.read_text(encoding="utf-8") == text
    write_whole(path, text)
    return True
