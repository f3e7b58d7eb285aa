"""The roles of every gamma in every architecture of timm, torchvision and transformers.

    python recipes/benchmarks/zoo.py run --out zoo.jsonl --jobs 4
    python recipes/benchmarks/zoo.py summary zoo.jsonl

One JSON line for each model, written as it is done; a second `run` with the same file goes on where the first stopped.
`--family` takes models of more libraries, too (the extra `[zoo]`). Each model is analysed in a child process: one that
hangs or dies costs its own line and no other. Models are built on the `meta` device, those of transformers with two
layers, so neither weights nor the Hub are needed.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from children import in_children, one_line
from families import FAMILIES, recipe, recipes
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from hf_gammareg import GammaMap

OWN = ("timm", "torchvision", "transformers")
"""Libraries that hf_gammareg itself builds models of."""
ALL = (*OWN, *FAMILIES)
ROLES = ("trunk", "shortcut", "final", "last", "absorbed", "gate", "unknown")
LOST = ("missed", "denied", "n-d")
"""Gains that are not in the map: see `missed` and `_gains`."""
MEASURED = 100_000_000
"""Parameters of the largest model on which it is measured whether what the map doesn't hold is a gain."""

app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)


def sources(family: str) -> list[str]:
    """Names of all models of a library, as `gammareg inspect` takes them."""
    if family == "timm":
        import timm

        return [f"timm/{name}" for name in timm.list_models()]
    if family == "torchvision":
        from torchvision import models

        # Quantised models have no gammas left: their norms are folded into the convolutions.
        return [f"torchvision/{name}" for name in models.list_models() if not name.startswith("quantized")]
    if family in FAMILIES:
        return [f"{family}/{name}" for name in recipes(family)]
    from tiny_configs import model_types

    return [f"transformers/{name}" for name in model_types()]


def measure(source: str) -> dict[str, Any]:
    """Build a model and find its gammas: one record of the output."""
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    row: dict[str, Any] = {"source": source, "error": None, "built": False}
    try:
        model = build(source, "meta")
        row |= {"built": True, **_analysed(source, model)}
    except Exception as error:
        row["error"] = one_line(error)
    return row | {"seconds": round(time.perf_counter() - started, 2)}


def _analysed(source: str, model: Any) -> dict[str, Any]:
    from hf_gammareg import find_gammas

    found = find_gammas(model, inputs(source, model))
    if found.source.startswith("none") and sum(p.numel() for p in model.parameters()) < 1e9:
        # One path through a model whose data decide can be traced with real parameters only.
        with contextlib.suppress(RuntimeError):  # out of memory
            model = build(source, "cpu")
            found = find_gammas(model, inputs(source, model))
    unknown = Counter(gamma.reason for gamma in found if gamma.role == "unknown")
    return {
        "class": type(model).__name__,
        "graph": found.source,
        "n_gammas": len(found),
        "roles": found.counts,
        "unknown": dict(unknown.most_common(5)),
        "missed": missed(model, {*found.names, *found.not_gammas}),
        **_gains(source, model, found),
    }


def _gains(source: str, model: Any, found: GammaMap) -> dict[str, list[str]]:
    """What `verify` measures to be a gain, of what layers called norm hold and the map does not.

    `denied` are those that the map says are no gammas; `n-d` those of more dimensions than one that it doesn't mention.
    One of each place is measured; of a large model none, and they are `unmeasured`.
    """
    from hf_gammareg import verify
    from hf_gammareg.model.names import place

    names = list({place(name): name for name in gains_of_norms(model) if name not in found}.values())
    if names and sum(p.numel() for p in model.parameters()) > MEASURED:
        return {"unmeasured": names}
    if names and not found.source.startswith("none"):
        real = build(source, "cpu")
        measured = verify(real, inputs(source, real), names=names)
        names = [gain.name for gain in measured if gain.measured == "gain"]
    denied = [name for name in names if name in found.not_gammas]
    wide = [name for name in names if name not in denied and model.get_parameter(name).ndim > 1]
    return {"denied": denied, "n-d": wide}


def build(source: str, device: str) -> Any:
    """A model of the zoo, those of transformers with two layers, in train mode."""
    from hf_gammareg.inputs.libraries import model_from_config
    from hf_gammareg.inputs.sources import load_source
    from hf_gammareg.model.whole import build_on

    family, _, name = source.partition("/")
    if family in OWN[:2]:
        return load_source(source, device).model
    if family in FAMILIES:
        made = recipe(source).build
        try:
            return build_on(made, device)
        except Exception:  # of a class that asks for values while it is built
            return build_on(made, "cpu")
    from tiny_configs import tiny_config

    config = tiny_config(name)
    return build_on(lambda: model_from_config(config), device)


def inputs(source: str, model: Any) -> Any:
    """What a model of the zoo takes, where it doesn't say so itself."""
    return recipe(source).inputs(model) if source.partition("/")[0] in FAMILIES else None


def missed(model: Any, known: set[str]) -> list[str]:
    """Gains of layers called norm that the map neither holds nor explains."""
    return [name for name in gains_of_norms(model) if model.get_parameter(name).ndim == 1 and name not in known]


def gains_of_norms(model: Any) -> list[str]:
    """Parameters of layers called norm, but for biases."""
    found = []
    for name, _ in model.named_parameters():
        path, _, attribute = name.rpartition(".")
        kind = type(model.get_submodule(path)).__name__.lower()
        is_bias = attribute == "b" or any(word in attribute for word in ("bias", "beta"))
        if ("norm" in kind or "bn" in kind) and not is_bias:
            found.append(name)
    return found


# --- commands -----------------------------------------------------------------------------------------------------


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="JSON lines, one a model; lines that are there are kept.")] = Path(
        "zoo.jsonl"
    ),
    family: Annotated[list[str] | None, typer.Option(help=f"{', '.join(ALL)}; default: the first three.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Sources to measure instead of whole families.")] = None,
    sample: Annotated[int, typer.Option(help="Measure this many of them, drawn with a fixed seed; 0: all.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Models at a time.")] = 1,
    limit: Annotated[float, typer.Option(help="Seconds a model may take.")] = 300.0,
    memory_gib: Annotated[float, typer.Option(help="Memory a process may take, in GiB.")] = 16.0,
    retry: Annotated[
        bool, typer.Option(help="Measure models again that crashed, were not traced or have gammas of unknown role.")
    ] = False,
) -> None:
    """Measure models and write a line for each."""
    unknown = set(family or ()) - set(ALL)
    if unknown:
        raise typer.BadParameter(f"expected {', '.join(ALL)}, found {', '.join(sorted(unknown))}")
    names = only or [name for one in family or OWN for name in sources(one)]
    if sample:
        names = random.Random(0).sample(names, min(sample, len(names)))
    rows = read(out)
    if retry:
        rows = {source: row for source, row in rows.items() if not row["error"] and not row["unknown"]}
        out.write_text("".join(json.dumps(row) + "\n" for row in rows.values()), encoding="utf-8")
    todo = [name for name in names if name not in rows]
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, out.open("a", encoding="utf-8") as file:
        task = progress.add_task("gammas", total=len(names), completed=len(names) - len(todo))
        for row in in_children(measure, todo, jobs=jobs, limit=limit, memory_gib=memory_gib):
            file.write(json.dumps(row) + "\n")
            file.flush()
            progress.update(task, advance=1, description=row["source"][-40:])
            lost = [f"{kind} {row[kind][:3]}" for kind in LOST if row.get(kind)]
            if row["error"] or lost:
                progress.console.print(f"{row['source']}: {row['error'] or ', '.join(lost)}", markup=False)
    summary(out)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a file, by source; of several lines for a model the last."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["source"]: row for row in rows}


@app.command()
def summary(
    out: Annotated[Path, typer.Argument(help="What `run` wrote.")] = Path("zoo.jsonl"),
    markdown: Annotated[bool, typer.Option(help="A table for a README.")] = False,
    reasons: Annotated[bool, typer.Option(help="List errors, missed gammas and reasons of unknown ones, too.")] = False,
) -> None:
    """Print models, gammas and roles by family, and how many were missed, crashed, or can't be built here."""
    rows = list(read(out).values())
    head = ["family", "models", "traced", "gammas", *ROLES, *LOST, "crashed", "not built"]
    lines = [_counted(family, [row for row in rows if row["source"].startswith(f"{family}/")]) for family in ALL]
    lines = [line for line in lines if line[1] != "0"]
    if markdown:
        print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    else:
        table = Table(*head)
        for line in lines:
            table.add_row(*line)
        Console(width=160).print(table)
    if reasons:
        _print_reasons(rows)


def _counted(family: str, rows: list[dict[str, Any]]) -> list[str]:
    good = [row for row in rows if not row["error"]]
    roles = Counter[str]()
    for row in good:
        roles.update(row["roles"])
    traced = sum(not row["graph"].startswith("none") for row in good)
    built = sum(row.get("built", True) for row in rows)
    numbers = [built, traced, sum(row["n_gammas"] for row in good), *(roles[role] for role in ROLES)]
    numbers += [sum(len(row.get(kind, ())) for row in good) for kind in LOST]
    numbers += [built - len(good), len(rows) - built]
    return [family, *(f"{number:,}" for number in numbers)]


def _print_reasons(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["error"]:
            print(f"{'crashed   ' if row.get('built', True) else 'unbuilt   '} {row['source']}: {row['error']}")
            continue
        if row["graph"].startswith("none"):
            print(f"untraced   {row['source']}: {row['graph']}")
        else:
            for reason, count in row["unknown"].items():
                print(f"unknown    {row['source']} ({count}): {reason}")
        for kind in (*LOST, "unmeasured"):
            if row.get(kind):
                print(f"{kind:10} {row['source']}: {', '.join(row[kind][:5])}")


if __name__ == "__main__":
    app()
