"""Work on many models in child processes: one that hangs, dies or wants too much memory costs its own line alone."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

START = 60.0
"""Seconds a fresh child process may take longer with its first model: it imports three libraries."""

Work = Callable[[str], dict[str, Any]]
"""From a model's name to a record with the keys `source` and `error`; a function at the top of a module."""


def in_children(
    work: Work, todo: Sequence[str], *, jobs: int, limit: float, memory_gib: float, each: int = 100
) -> Iterator[dict[str, Any]]:
    """Do the work for all these models; yields records in the order they are done.

    Args:
        work: what to do.
        todo: names of models.
        jobs: models at a time.
        limit: seconds a model may take.
        memory_gib: memory a process may take, in GiB.
        each: models after which a process makes room for a fresh one.
    """
    waiting = list(todo)[::-1]
    busy: list[_Child] = []
    idle: list[_Child] = []
    while waiting or busy:
        while waiting and len(busy) < jobs:
            child = idle.pop() if idle else _Child(work, memory_gib)
            child.start(waiting.pop(), limit)
            busy.append(child)
        ready = wait([child.pipe for child in busy], timeout=1)
        for child in list(busy):
            late = time.monotonic() > child.deadline
            if child.pipe not in ready and not late:
                continue
            busy.remove(child)
            try:
                if child.pipe not in ready:
                    raise TimeoutError(f"not done after {limit:.0f} s")
                yield child.pipe.recv()
                if child.done < each:
                    idle.append(child)
                else:
                    child.stop()
            except (EOFError, OSError, TimeoutError) as error:
                child.stop()
                died = f"died ({child.process.exitcode})"
                yield {"source": child.source, "error": str(error) if isinstance(error, TimeoutError) else died}
    for child in idle:
        child.stop()


class _Child:
    """A process that works on one model at a time."""

    def __init__(self, work: Work, memory_gib: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far, work, memory_gib), daemon=True)
        self.process.start()
        far.close()
        self.source = ""
        self.done = 0
        self.deadline = 0.0

    def start(self, source: str, limit: float) -> None:
        self.source, self.deadline = source, time.monotonic() + limit + (0.0 if self.done else START)
        self.done += 1
        self.pipe.send(source)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, work: Work, memory_gib: float) -> None:
    """Work on what comes down the pipe until the other side is gone."""
    import io
    import os
    import warnings

    sys.path.insert(0, str(Path(__file__).parent))
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import resource

        limit = int(memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except ImportError:
        pass  # not on this system
    sys.stdout = sys.stderr = io.StringIO()
    while True:
        pipe.send(work(pipe.recv()))


def one_line(error: BaseException) -> str:
    r"""An exception as one line of at most 300 characters.

    >>> one_line(ValueError("first\nsecond"))
    'ValueError: first'
    """
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
