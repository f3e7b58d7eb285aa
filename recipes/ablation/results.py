"""What is told of ablations: what is decided, and the tables of a README."""

import os
from pathlib import Path

from ablation.arms import BASELINE, WHOLE
from ablation.comparisons import compare
from ablation.config import CONFIG_NAME, read_config
from ablation.runs import RUNS_NAME, read_network, read_runs
from ablation.statistics import CONTRADICTED, SUPPORTED, UNDECIDED, Cell, Results
from ablation.tables import (
    COMPARISON_HEADER,
    ROLE_HEADER,
    cell_name,
    comparison_rows,
    role_rows,
    table,
)
from hf_gammareg import GammaRegError
from hf_gammareg.files import write_whole

BEGIN, END = "<!-- table of gamma_ablation.py report -->", "<!-- end of the table -->"
"""What a README's table stands between."""


def read_results(folder: Path) -> Results:
    """The settings, the network and the runs in a folder.

    Raises:
        GammaRegError: if something is missing or does not fit.
    """
    config, _ = read_config(folder / CONFIG_NAME)
    results = Results(config, read_network(folder, config), read_runs(folder / RUNS_NAME))
    if not results.cells:
        raise GammaRegError(
            f"Expected runs of an ablation in {str(folder / RUNS_NAME)!r}, found {len(results.records)}. Start "
            "`gamma_ablation.py run` with this output folder."
        )
    if not any(results.difference(arm, results.main, "eval_loss") for arm in results.network.arms if arm != BASELINE):
        raise GammaRegError(
            f"Expected runs of two seeds or more, with and without decay on gammas, in {str(folder / RUNS_NAME)!r}, "
            f"found {len(results.records)} runs. Let `gamma_ablation.py run` go on."
        )
    return results


def seeds(results: Results) -> str:
    """How many seeds there are; of an unfinished folder, what is missing."""
    if not results.missing:
        return f"{results.seeds} seeds in every arm"
    planned = len(results.records) + results.missing
    return (
        f"**unfinished: {len(results.records)} of {planned} runs, {results.seeds} of {len(results.config.seeds)} seeds "
        "begun**"
    )


MEASURES = {"eval_accuracy": ("accuracy", 1), "eval_loss": ("test loss", -1)}
"""By result its name, and which way it gets better."""


def against(results: Results, *measures: str) -> str:
    """What speaks against the guidelines at any strength and initialisation, and what stays open at the main one.

    Where the settings name the comparisons that count, what those decide and nothing else.

    Args:
        results: of one folder.
        *measures: keys of `MEASURES` by which whole policies are compared; default: all.
    """
    if results.config.comparisons:
        decided = [
            f"{what} of `{one.name}` {'better' if one.difference.mean * better > 0 else 'worse'}"
            for key, (what, better) in MEASURES.items()
            for one in compare(results, key)
            if one.decided and one.difference
        ]
        count = len(results.config.comparisons)
        return f"**Decided, of the {count} comparisons named: {', '.join(decided) or 'nothing'}.**"
    wrong, undecided = [], []
    for role in results.roles:
        for number, what in enumerate(("mechanism", "accuracy")):
            verdicts = {cell: results.verdicts(role, cell)[number] for cell in results.cells}
            wrong += [f"{what} of `{role}` ({one})"] if (one := _places(verdicts, CONTRADICTED)) else []
            undecided += [f"{what} of `{role}`"] if verdicts.get(results.main) == UNDECIDED else []
    said = [f"**Against the guidelines: {', '.join(wrong) or 'nothing that is decided here'}.**"]
    for arm in (arm for arm in WHOLE if arm in results.network.same_as):
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


def headline(folders: list[Path], beside: Path) -> str:
    """The tables of a README: the comparisons that count; every role of every network, with both verdicts; what went
    against the guidelines.

    Args:
        folders: of results.
        beside: the README's folder; the table's links start there.
    """
    compared, rows, said = [], [], []
    for folder in folders:
        results = read_results(folder)
        said.append(f"- {results.config.title} ({cell_name(results.main)}): {against(results, 'eval_accuracy')}")
        place = Path(os.path.relpath(folder, beside)).as_posix()
        link = f"[{results.config.title}]({place}), {seeds(results)}"
        compared += _named(link, comparison_rows(results))
        rows += _named(link, role_rows(results))
    first = [table(["network", *COMPARISON_HEADER], compared), ""] if compared else []
    return "\n".join([*first, table(["network", "role", *ROLE_HEADER], rows), "", *said])


def _named(link: str, rows: list[list[str]]) -> list[list[str]]:
    """Rows with the network before the first of them."""
    return [[link if number == 0 else "", *row] for number, row in enumerate(rows)]


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
