"""What a recipe needs to be started alone or by `accelerate launch`: load once first, fail with one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from hf_gammareg import GammaRegError

T = TypeVar("T")


def main_process_first(load: Callable[[], T]) -> T:
    """Run `load` on the main process, then on the others, who find its files in the caches.

    Unlike `PartialState.main_process_first`, a GammaRegError of the main process is raised by every process, so that
    none is left waiting for it.
    """
    loaded: list[T] = []
    by_main_process(lambda: loaded.append(load()))
    return loaded[0] if loaded else load()


def by_main_process(find: Callable[[], T]) -> T:
    """What `find` returns on the main process, on every process: for what the main process may change meanwhile.

    A GammaRegError is raised by every process.
    """
    found, problem = None, None
    if PartialState().is_main_process:
        try:
            found = find()
        except GammaRegError as error:
            problem = str(error)
    told = broadcast_object_list([found, problem])
    if told[1] is not None:
        raise GammaRegError(told[1])
    return told[0]


def announce(message: str) -> None:
    """Say something that must not be overlooked: framed, on stderr, by the main process only."""
    if PartialState().is_main_process:
        Console(stderr=True).print(Panel(Text(message), border_style="bold yellow"))


def run(main: Callable[[], None]) -> int:
    """Run a recipe's `main`; an error of its input is one line on stderr of the main process and exit status 2."""
    try:
        main()
    except GammaRegError as error:
        if PartialState().is_main_process:
            print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2
    finally:
        PartialState().destroy_process_group()
    return 0
