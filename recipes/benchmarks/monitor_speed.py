"""What the monitor adds to a training step: two copies of a model train by turns, one of them with a monitor.

    python recipes/benchmarks/monitor_speed.py
    python recipes/benchmarks/monitor_speed.py timm/resnet50 transformers/bert --batch 8 --logging-steps 50
    python recipes/benchmarks/monitor_speed.py timm/resnet50 --device cuda --batch 64

Every figure is the median over the steps of one run in one process. The callback measures where the Trainer logs, which
is every 500 steps unless `logging_steps` says otherwise; the last two columns spread a measurement over so many steps.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from transformers import TrainingArguments

from hf_gammareg import GammaMonitor, find_gammas
from hf_gammareg.inputs.sources import load_source
from hf_gammareg.watch.history import HISTORY_NAME

DEFAULTS = ("timm/resnet18", "timm/vit_tiny_patch16_224")
LOGGING_STEPS = next(
    field.default for name, field in TrainingArguments.__dataclass_fields__.items() if name == "logging_steps"
)
"""The Trainer's own default."""


def repeated(value: Any, batch: int, device: str) -> Any:
    """A batch of this size from the examples that the source comes with."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.cat([value] * -(-batch // len(value)))[:batch].to(device)


def training_step(model: nn.Module, args: Any, kwargs: Any) -> Callable[[], float]:
    """A forward and backward pass and an optimizer step, as a call that tells its own time in seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    waits = torch.accelerator.synchronize if next(model.parameters()).device.type != "cpu" else lambda: None

    def step() -> float:
        started = time.perf_counter()
        found = model(*args, **kwargs)
        output = found if isinstance(found, torch.Tensor) else next(iter(found.values()))
        output.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        waits()
        return time.perf_counter() - started

    step.optimizer = optimizer  # type: ignore[attr-defined]
    return step


def measure(name: str, batch: int, steps: int, logging_steps: int, device: str, folder: Path) -> list[str]:
    """One row of the table."""
    source = load_source(name, device="cpu")
    gammas = find_gammas(source.model, (source.args, source.kwargs))
    args, kwargs = torch.utils._pytree.tree_map(
        lambda value: repeated(value, batch, device), (source.args, source.kwargs)
    )
    plain, watched = source.model.to(device).train(), copy.deepcopy(source.model).to(device).train()
    monitor = GammaMonitor(watched, gammas, history=folder / HISTORY_NAME)
    plain_step, watched_step = (training_step(model, args, kwargs) for model in (plain, watched))
    without, beside, extra = [], [], []
    for number in range(-2, steps):  # two to warm up
        times = plain_step(), watched_step()
        started = time.perf_counter()
        monitor.measure(number, watched_step.optimizer)  # type: ignore[attr-defined]
        taken = time.perf_counter() - started
        if number >= 0:
            without.append(times[0])
            beside.append(times[1] + taken)
            extra.append(taken)
    step, both, added = (1000 * statistics.median(values) for values in (without, beside, extra))
    return [
        name,
        str(len(gammas)),
        f"{step:,.1f}",
        f"{both:,.1f}",
        f"{added:,.2f}",
        f"{100 * added / step:.2f} %",
        f"{100 * added / step / logging_steps:.4f} %",
    ]


def main(
    sources: Annotated[list[str] | None, typer.Argument(help="Models, as for `gammareg inspect`.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Examples in a step.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each copy.")] = 10,
    logging_steps: Annotated[int, typer.Option(min=1, help="Steps between two logs.")] = int(LOGGING_STEPS),
    device: Annotated[str, typer.Option(help="Where to train.")] = "cpu",
) -> None:
    """Print the table."""
    columns = (
        "model",
        "gammas",
        "step",
        "step + monitor",
        "monitor",
        "added, each step",
        f"each {logging_steps} steps",
    )
    table = Table(*columns, title=f"milliseconds on {device}, batch {batch}, median of {steps}")
    for name in track(sources or DEFAULTS, description="models", transient=True, console=Console(stderr=True)):
        with TemporaryDirectory() as folder:
            table.add_row(*measure(name, batch, steps, logging_steps, device, Path(folder)))
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
