"""Work on many models in child processes: one that hangs, dies or wants too much memory costs its own line alone."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any

from pebble import ProcessExpired

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.workers import worker_pool

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
    with worker_pool(jobs, partial(_begin, memory_gib), each) as pool:
        waiting = {pool.schedule(work, args=(source,), timeout=limit): source for source in todo}
        for future in as_completed(waiting):
            error = future.exception()
            if error is None:
                yield future.result()
                continue
            said = one_line(error)
            if isinstance(error, TimeoutError):
                said = f"not done after {limit:.0f} s"
            elif isinstance(error, ProcessExpired):
                said = f"died ({error.exitcode})"
            yield {"source": waiting[future], "error": said}


def _begin(memory_gib: float) -> None:
    """Make a process ready: offline, silent, its memory limited, and with imports that no model is to be timed for."""
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.stdout = sys.stderr = io.StringIO()
    try:
        import resource

        limit = int(memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except ImportError:
        pass  # not on this system
    for module in ("timm", "torchvision", "transformers", "hf_gammareg.roles.find"):
        importlib.import_module(module)


def one_line(error: BaseException) -> str:
    r"""An exception as one line of at most 300 characters.

    >>> one_line(ValueError("first\nsecond"))
    'ValueError: first'
    """
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
