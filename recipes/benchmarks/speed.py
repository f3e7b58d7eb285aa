"""What finding the gammas costs, beside the grouping of timm and of the Trainer and beside a training step.

    python recipes/benchmarks/speed.py
    python recipes/benchmarks/speed.py timm/resnet50 transformers/bert --repeats 5
    python recipes/benchmarks/speed.py --first-step bert --first-step llama_1b

Everything is measured in one run, on the CPU, by turns; each figure is the median of the repeats. The last column is
one AdamW step with our groups over one with the library's own, which have as many groups. The second table is what
`first_step.py` counts, in a fresh process for each figure.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import first_step
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timm.optim import param_groups_weight_decay
from torch import nn
from transformers import Trainer

from hf_gammareg import analyse, param_groups
from hf_gammareg.graph.capture import trace
from hf_gammareg.graph.nodes import Graph
from hf_gammareg.graph.program import read
from hf_gammareg.inputs.sources import Source, load_source
from hf_gammareg.roles.residual import Ancestry, find_sums
from hf_gammareg.roles.sites import find_sites
from hf_gammareg.roles.walk import find_uses

DEFAULTS = ("timm/resnet18", "timm/resnet50", "timm/vit_tiny_patch16_224", "timm/convnext_tiny", "transformers/bert")


def medians(*figures: Callable[[], float], repeats: int) -> list[float]:
    """Median of each figure; they are taken by turns, forwards and backwards, so that all else meets them alike."""
    found: list[list[float]] = [[] for _ in figures]
    turns = list(zip(figures, found, strict=True))
    for repeat in range(repeats):
        for figure, taken in turns if repeat % 2 else turns[::-1]:
            taken.append(figure())
    return [statistics.median(taken) for taken in found]


def seconds(*calls: Callable[[], Any], repeats: int) -> list[float]:
    """Median time of each call."""

    def timed(call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return medians(*(partial(timed, call) for call in calls), repeats=repeats)


def timm_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Groups as timm makes them."""
    return param_groups_weight_decay(model, 0.05, no_weight_decay_list=getattr(model, "no_weight_decay", set)())


def trainer_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Groups as `Trainer.create_optimizer` makes them."""
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    return [
        {"params": [p for n, p in model.named_parameters() if (n in decayed) is decays], "weight_decay": decay}
        for decays, decay in ((True, 0.05), (False, 0.0))
    ]


def training_step(source: Source) -> None:
    """One forward and backward pass."""
    found = source.model(*source.args, **source.kwargs)
    output = found if isinstance(found, torch.Tensor) else next(iter(found.values()))
    output.float().square().mean().backward()


def export(source: Source) -> Graph:
    """Trace a model and read its graph."""
    program, how = trace(source.model, source.args, source.kwargs)
    return read(program, source.model, how)


def find_roles(graph: Graph) -> None:
    """Follow every gamma through a graph."""
    ancestry = Ancestry(graph)
    sums, inner = find_sums(graph, ancestry)
    find_uses(graph, find_sites(graph), sums, inner, ancestry)


def measure(name: str, repeats: int) -> list[str]:
    """One row of the table."""
    source = load_source(name, device="cpu")
    model, plain_groups = source.model, timm_groups if name.startswith("timm/") else trainer_groups
    analysis = analyse(model, (source.args, source.kwargs))
    gammas, graph = analysis.gammas, analysis.graph
    plain = plain_groups(model)
    ours = param_groups(model, 0.05, gammas=gammas, groups=plain)
    training_step(source)
    exporting, analysing, grouping, theirs, step = seconds(
        lambda: export(source),
        lambda: find_roles(graph),
        lambda: param_groups(model, 0.05, gammas=gammas, groups=plain),
        lambda: plain_groups(model),
        lambda: training_step(source),
        repeats=repeats,
    )
    optimizers = [torch.optim.AdamW(groups, lr=1e-4, foreach=True) for groups in (ours, plain)]
    steps = [optimizer.step for optimizer in optimizers]
    seconds(*steps, repeats=2)  # the first one makes the state
    our_step, their_step = seconds(*steps, repeats=20 * repeats)
    groups = f"{len(optimizers[0].param_groups)} / {len(optimizers[1].param_groups)}"
    times = (exporting, analysing, grouping, theirs, step)
    return [name, *(f"{1000 * t:,.1f}" for t in times), groups, f"{our_step / their_step:.2f}"]


def to_first_step(name: str, trainer: str) -> float:
    """CPU seconds to the first step under a Trainer, in a fresh process that finds the library compiled to bytecode."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, first_step.__file__, name, trainer]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return float(said.split()[-1])


def measure_start(name: str, repeats: int) -> list[str]:
    """One row of the second table."""
    to_first_step(name, "GammaRegTrainer")  # compiles
    plain, ours = medians(*(partial(to_first_step, name, trainer) for trainer in first_step.TRAINERS), repeats=repeats)
    return [name, f"{plain:.2f}", f"{ours:.2f}", f"{ours - plain:.2f}"]


def main(
    sources: Annotated[list[str] | None, typer.Argument(help="Models, as for `gammareg inspect`.")] = None,
    starts: Annotated[
        list[str] | None,
        typer.Option("--first-step", help=f"Rows of the second table: {', '.join(first_step.MODELS)}."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 3,
) -> None:
    """Print the tables, or the one of which rows are asked for."""
    if not sources and not starts:
        sources, starts = list(DEFAULTS), list(first_step.MODELS)
    columns = ("model", "export", "analysis", "our groups", "their groups", "fwd + bwd", "groups", "AdamW step, ratio")
    running = Table(*columns, title="milliseconds on the CPU, median")
    starting = Table("model", *first_step.TRAINERS, "more", title="CPU seconds to the first step, median")
    for table, row, names in ((running, measure, sources or ()), (starting, measure_start, starts or ())):
        for name in track(names, description="models", transient=True, console=Console(stderr=True)):
            table.add_row(*row(name, repeats))
        if names:
            Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
