"""The command line: `gammareg inspect SOURCE`."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback()
def _program() -> None:
    """Weight decay on normalization gains (gammas), by the role each plays in the residual network."""


@app.command()
def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="timm/NAME, transformers/MODEL_TYPE, torchvision/NAME, a Hub id or a local folder."
        ),
    ],
    output: Annotated[
        Literal["table", "json"], typer.Option("--format", help="A table for people or JSON for programs.")
    ] = "table",
    policy: Annotated[
        str,
        typer.Option(metavar="POLICY", help="guidelines, all, none, trainer, timm, or roles such as last,absorbed."),
    ] = "guidelines",
    decay: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Gammas that decay in any case.")] = None,
    no_decay: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Gammas that do not decay.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="One line for each gamma in place of one for each kind.")
    ] = False,
) -> None:
    """Show the role of each gamma of a model, and whether weight decay touches it.

    The model is built from its configuration; no weights are read.
    """
    with _quiet():
        from hf_gammareg.policy import decide, find_rule
        from hf_gammareg.report import gamma_rows, table_text
        from hf_gammareg.roles import find_gammas
        from hf_gammareg.sources import load_source

        find_rule(policy)  # a typo is told before a model is built
        loaded = load_source(source)
        gammas = find_gammas(loaded.model, (loaded.args, loaded.kwargs))
        decays = decide(gammas, loaded.model, policy, decay=decay or (), no_decay=no_decay or ())
    if output == "json":
        rows = gamma_rows(gammas, decays)
        text = json.dumps({"source": source, "policy": policy, "gammas": rows, "counts": gammas.counts}, indent=2)
    else:
        text = f"{source}, policy {policy}\n\n{table_text(gammas, decays, every=every)}"
    print(text)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the console script `gammareg`, and `python -m hf_gammareg`.

    Args:
        arguments: words after the program's name; default: those of the process.

    Returns:
        The exit status: 0, or 2 after an error, which is one line on stderr.
    """
    try:
        return app(arguments, prog_name="gammareg", standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        message = "Stopped."
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; what Python still holds must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = _worded(error)
    print("gammareg: error:", " ".join(message.split()), file=sys.stderr)
    return 2


def _worded(error: Exception) -> str:
    from hf_gammareg.errors import GammaRegError

    # typer comes with click, in some versions a copy of its own: its usage errors are known by this method.
    if usage := getattr(error, "format_message", None):
        return f"{usage()} See 'gammareg inspect --help'."
    return str(error) if isinstance(error, GammaRegError) else f"{type(error).__name__}: {error}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries print, log and warn of out of the command's two streams."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
