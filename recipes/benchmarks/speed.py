"""What finding the gammas costs, beside the grouping of timm and of the Trainer and beside a training step.

    python recipes/benchmarks/speed.py
    python recipes/benchmarks/speed.py timm/resnet50 transformers/bert --repeats 5

Everything is measured in one run, in this process, on the CPU, by turns; each figure is the median of the repeats. The
last column is one AdamW step with our groups over one with the library's own, which have as many groups.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

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


def seconds(*calls: Callable[[], Any], repeats: int) -> list[float]:
    """Median time of each call; the calls take turns, forwards and backwards, so that all else meets them alike."""
    times: list[list[float]] = [[] for _ in calls]
    turns = list(zip(calls, times, strict=True))
    for repeat in range(repeats):
        for call, taken in turns if repeat % 2 else turns[::-1]:
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


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


def main(
    sources: Annotated[list[str] | None, typer.Argument(help="Models, as for `gammareg inspect`.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 3,
) -> None:
    """Print the table."""
    columns = ("model", "export", "analysis", "our groups", "their groups", "fwd + bwd", "groups", "AdamW step, ratio")
    table = Table(*columns, title="milliseconds on the CPU, median")
    for name in track(sources or DEFAULTS, description="models", transient=True, console=Console(stderr=True)):
        table.add_row(*measure(name, repeats))
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
