"""The command line: `gammareg inspect SOURCE`, `gammareg verify SOURCE`, `gammareg history RUN`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from hf_gammareg.quiet import quiet

app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})

Answer = tuple[str, int]
"""What a command prints, and its exit status."""


def _version(asked: bool) -> None:
    if asked:
        from hf_gammareg import __version__

        typer.echo(f"gammareg {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Weight decay on normalization gains (gammas), by the role each plays in the residual network."""


_Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="timm/NAME, transformers/MODEL_TYPE, torchvision/NAME, a Hub id or a local folder."
    ),
]
_POLICIES = "guidelines, all, none, trainer, timm, iwd, qwen3_next, or roles such as last,absorbed."


@app.command()
def inspect(
    source: _Source,
    output: Annotated[
        Literal["table", "json", "csv", "md"],
        typer.Option("--format", help="A table for people, JSON or CSV for programs, a table for GitHub."),
    ] = "table",
    policy: Annotated[str, typer.Option(metavar="POLICY", help=_POLICIES)] = "guidelines",
    gamma_decay: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Gammas that decay in any case.")
    ] = None,
    gamma_no_decay: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Gammas that do not decay.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="One line for each gamma in place of one for each kind.")
    ] = False,
    diff: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Only the gammas that this policy treats otherwise.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the blocks and their gammas: .svg or .png.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the network, all gammas and other rules."),
    ] = None,
    lock: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the roles and decisions down.")] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with a lock; differences are status 1.")
    ] = None,
) -> Answer:
    """Show the role of each gamma of a model, and whether weight decay touches it.

    The model is built from its configuration; no weights are read.
    """
    with quiet():
        from hf_gammareg.decay.policy import decide, find_rule
        from hf_gammareg.errors import GammaRegError
        from hf_gammareg.inputs.folders import configuration_file
        from hf_gammareg.show import lock as locks

        # What can be told before a model is built is told at once, and before torch is loaded.
        find_rule(policy)
        if diff is not None:
            find_rule(diff)
        if check is not None and (lock is not None or diff is not None or output not in ("table", "json")):
            other = "--lock" if lock is not None else "--diff" if diff is not None else f"--format {output}"
            raise GammaRegError(f"Expected --check without {other}, found both. Run one after the other.")
        if lock is not None:
            locks.check_lock(lock)
        locked = locks.read_lock(check) if check is not None else None
        if html is not None:
            from hf_gammareg.show.html import check_page

            check_page(html)
        configuration_file(source)

        from hf_gammareg.inputs.sources import load_source
        from hf_gammareg.roles.find import analyse
        from hf_gammareg.show import answers
        from hf_gammareg.show.picture import check_picture, draw
        from hf_gammareg.show.report import Comparison

        if picture:
            check_picture(picture)
        loaded = load_source(source)
        model = loaded.model
        analysis = analyse(model, (loaded.args, loaded.kwargs))
        gammas = analysis.gammas
        decays = decide(gammas, model, policy, gamma_decay=gamma_decay or (), gamma_no_decay=gamma_no_decay or ())
        if picture:
            draw(picture, analysis, decays=decays, title=f"{source}, policy {policy}")
        if html is not None:
            from hf_gammareg.show.page import write_page

            compared = {"trainer", "timm", diff or policy} - {policy}
            write_page(
                html,
                analysis,
                decays,
                model,
                source=source,
                policy=policy,
                others={name: decide(gammas, model, name) for name in sorted(compared, reverse=True)},
                command=_command(source, policy, gamma_decay, gamma_no_decay, html),
            )
        if (file := check or lock) is not None:
            named = locks.locked_source(source, file)
            now = locks.lock_dict(gammas, decays, model, source=named, policy=policy)
        if lock is not None:
            locks.write_lock(lock, now)
        if diff is not None:
            found = Comparison(
                gammas=gammas,
                model=type(model).__name__,
                policy=policy,
                diff=diff,
                decays=decays,
                diff_decays=decide(gammas, model, diff),
            )
    if locked is not None:
        changes = locks.differences(locked, now)
        return answers.checked(str(check), locked, now, changes, output), 1 if changes else 0
    if diff is not None:
        return answers.difference(source, found, output, every), 0
    return answers.inspection(source, policy, gammas, decays, output, every), 0


def _command(
    source: str, policy: str, gamma_decay: Sequence[str] | None, gamma_no_decay: Sequence[str] | None, html: Path
) -> str:
    """The command that writes a page again."""
    words = ["gammareg", "inspect", source, "--policy", policy]
    for option, globs in (("--gamma-decay", gamma_decay), ("--gamma-no-decay", gamma_no_decay)):
        words += [word for glob in globs or () for word in (option, glob)]
    return shlex.join([*words, "--html", str(html)])


@app.command()
def verify(
    source: _Source,
    output: Annotated[
        Literal["table", "json"], typer.Option("--format", help="A table for people or JSON for programs.")
    ] = "table",
    sample: Annotated[bool, typer.Option("--sample", help="One gamma of each place and role, not all.")] = False,
) -> Answer:
    """Measure where each gamma's scale goes on the randomly initialised model, and compare it with its role.

    Exit status 1 if any gamma disagrees.
    """
    from hf_gammareg.inputs.folders import configuration_file

    configuration_file(source)
    terminal = sys.stderr
    with quiet(), _progress(terminal) as progress:
        import torch

        from hf_gammareg.inputs.sources import load_source
        from hf_gammareg.roles import measure
        from hf_gammareg.roles.find import analyse
        from hf_gammareg.show import answers

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loaded = load_source(source, device="cpu")
        analysis = analyse(loaded.model, (loaded.args, loaded.kwargs))
        gammas = analysis.gammas
        names = measure.sample(gammas) if sample else None
        found = measure.verify(loaded.model, analysis=analysis, names=names, progress=progress)
    return answers.measurements(source, gammas, found, output), 0 if all(one.agrees for one in found) else 1


@app.command()
def history(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="A monitored run's folder, or its history file.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with what became of the gammas, for a browser.")
    ] = None,
) -> Answer:
    """Tell what became of the gammas by role in one training run, or in several side by side."""
    if html is not None:
        from hf_gammareg.show.html import check_page

        check_page(html)
    from hf_gammareg.watch.page import read_runs, run_line, write_history_page

    lines = [run_line(name, rows) for name, rows in read_runs(runs).items()]
    if html is not None:
        write_history_page(html, *runs, command=shlex.join(["gammareg", "history", *runs, "--html", str(html)]))
    return "\n".join(lines), 0


@contextmanager
def _progress(terminal: TextIO) -> Iterator[Callable[[Sequence[str]], Iterable[str]]]:
    """A progress bar over names, on a terminal; nothing anywhere else."""
    if not terminal.isatty():
        yield iter
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=terminal), transient=True) as progress:
        yield lambda names: progress.track(names, description="measuring")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the console script `gammareg`, and `python -m hf_gammareg`.

    Args:
        arguments: words after the program's name; default: those of the process.

    Returns:
        The exit status: 0; 1 where `--check` or `verify` found differences; 2 after an error, which is one line on
        stderr.
    """
    try:
        answer = app(arguments, prog_name="gammareg", standalone_mode=False)
        return _tell(*answer) if isinstance(answer, tuple) else _tell("", answer or 0)
    except (typer.Abort, KeyboardInterrupt):
        message = "Stopped."
    except SystemExit:  # what typer makes of a pipe that was closed while it wrote its help
        return _let_go(0)
    except Exception as error:
        message = _worded(error)
    print("gammareg: error:", " ".join(message.split()), file=sys.stderr)
    return 2


def _tell(text: str, status: int) -> int:
    """Print an answer and return its status, also where the reader (`| head`) had what it wanted before the end."""
    try:
        print(text, end="\n" if text else "", flush=True)
    except BrokenPipeError:
        return _let_go(status)
    return status


def _let_go(status: int) -> int:
    """Send what Python still holds for the closed pipe to nowhere: it must not fail at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _worded(error: Exception) -> str:
    from hf_gammareg.errors import GammaRegError

    # typer comes with click, in some versions a copy of its own: its usage errors are known by this method.
    if usage := getattr(error, "format_message", None):
        context = getattr(error, "ctx", None)
        return f"{usage()} See '{context.command_path if context else 'gammareg'} --help'."
    return str(error) if isinstance(error, GammaRegError) else f"{type(error).__name__}: {error}"
