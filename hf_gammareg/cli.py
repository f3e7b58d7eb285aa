"""The command line: `gammareg inspect SOURCE`, `gammareg verify SOURCE`."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from hf_gammareg.quiet import quiet

if TYPE_CHECKING:
    from rich.console import Console

    from hf_gammareg.roles.gammas import GammaMap
    from hf_gammareg.roles.measure import Measurement
    from hf_gammareg.show.report import Comparison

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
        return _checked(str(check), locked, now, changes, output), 1 if changes else 0
    if diff is not None:
        return _difference(source, found, output, every), 0
    return _inspection(source, policy, gammas, decays, output, every), 0


def _command(
    source: str, policy: str, gamma_decay: Sequence[str] | None, gamma_no_decay: Sequence[str] | None, html: Path
) -> str:
    """The command that writes a page again."""
    words = ["gammareg", "inspect", source, "--policy", policy]
    for option, globs in (("--gamma-decay", gamma_decay), ("--gamma-no-decay", gamma_no_decay)):
        words += [word for glob in globs or () for word in (option, glob)]
    return shlex.join([*words, "--html", str(html)])


def _checked(path: str, locked: Mapping[str, Any], now: Mapping[str, Any], changes: Sequence[str], output: str) -> str:
    if output == "json":
        told = {key: now[key] for key in ("source", "policy", "library")}
        data = told | {"lock": path, "locked_library": locked["library"], "changes": list(changes)}
        return json.dumps(data, indent=2)
    same = f"{len(now['gammas'])} gammas as in {path} ({locked['library']}, now {now['library']})."
    return "\n".join(changes) or same


def _inspection(
    source: str, policy: str, gammas: GammaMap, decays: Mapping[str, bool], output: str, every: bool
) -> str:
    from hf_gammareg.roles.gammas import closing_lines, table_rows, table_text
    from hf_gammareg.roles.table import csv_text, markdown_lines
    from hf_gammareg.show.report import ROW_FIELDS, gamma_rows

    if output == "json":
        rows = gamma_rows(gammas, decays)
        return json.dumps({"source": source, "policy": policy, "gammas": rows, "counts": gammas.counts}, indent=2)
    if output == "csv":
        return csv_text(ROW_FIELDS, gamma_rows(gammas, decays))
    if output == "md":
        lines = markdown_lines(["decays"], table_rows(gammas, [decays], every=every))
        return "\n".join([f"{source}, policy {policy}", "", *lines, *closing_lines(gammas, decays)])
    return f"{source}, policy {policy}\n\n{table_text(gammas, decays, every=every, console=_terminal())}"


def _difference(source: str, found: Comparison, output: str, every: bool) -> str:
    from hf_gammareg.roles.gammas import table_rows
    from hf_gammareg.roles.table import csv_text, markdown_lines, plain_table

    if output == "json":
        return json.dumps(found.to_dict(source), indent=2)
    if output == "csv":
        return csv_text(("name", "role", "kind", "decays", "diff_decays", "reason"), found.rows())
    rows = table_rows(found.differing, [found.decays, found.diff_decays], every=every)
    rules = [found.policy, found.diff]
    lines = markdown_lines(rules, rows) if output == "md" else plain_table(rules, rows, _terminal())
    return "\n".join([f"{source}, policy {found.policy} against {found.diff}", "", *lines, found.sentence])


def _terminal() -> Console | None:
    """The terminal that is written to, with what rich knows of it (COLUMNS, NO_COLOR); None for a file or a pipe."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else None


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

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loaded = load_source(source, device="cpu")
        analysis = analyse(loaded.model, (loaded.args, loaded.kwargs))
        gammas = analysis.gammas
        names = measure.sample(gammas) if sample else None
        found = measure.verify(loaded.model, analysis=analysis, names=names, progress=progress)
    disagreeing = [measured for measured in found if not measured.agrees]
    if output == "json":
        rows = [dataclasses.asdict(measured) for measured in found]
        data = {"source": source, "gammas": rows, "measured": _count(found), "disagreements": len(disagreeing)}
        text = json.dumps(data | {"unknown": len(gammas.by_role("unknown"))}, indent=2)
    else:
        text = _measurements(source, gammas, found, disagreeing)
    return text, 1 if disagreeing else 0


def _measurements(
    source: str, gammas: GammaMap, found: Sequence[Measurement], disagreeing: Sequence[Measurement]
) -> str:
    from hf_gammareg.roles.gammas import Role
    from hf_gammareg.roles.table import Row, plain_table

    rows = [
        Row(
            role="none" if measured.role is None else measured.role,
            decisions=(measured.measured,),
            pattern=measured.name,
            count=1,
            reason=_moved(measured) + _reason(measured, gammas),
        )
        for measured in disagreeing
    ]
    unknown = len(gammas.by_role(Role.UNKNOWN))
    told = f"{len(disagreeing) or 'no'} disagreement" + ("" if len(disagreeing) == 1 else "s")
    skipped = f", {unknown} of unknown role not measured" if unknown else ""
    line = f"{source}: {_count(found)} of {len(gammas)} gammas measured, {told}{skipped}."
    return "\n".join([*plain_table(["measured"], rows, _terminal()), line])


def _count(found: Sequence[Measurement]) -> int:
    """How many of the measured parameters are gammas by the method's word."""
    return sum(measured.role is not None for measured in found)


def _reason(measured: Measurement, gammas: GammaMap) -> str:
    """Why the gamma has its role, or the parameter none."""
    if measured.role is not None:
        return gammas[measured.name].reason
    place = f" in `{measured.where}`" if measured.where else ""
    denied = gammas.not_gammas.get(measured.name, "The graph shows no gamma of this name.")
    return f"Multiplies what a normalization made{place}. {denied}"


def _moved(measured: Measurement) -> str:
    return "" if measured.moved is None else f"The output moves by {measured.moved:.1e} of its spread. "


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
