"""Worker processes: one that hangs, dies or wants too much memory costs its own result and no other."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pebble import ProcessPool


@contextmanager
def worker_pool(jobs: int, begin: Callable[[], None], tasks: int = 0) -> Iterator[ProcessPool]:
    """Processes to `schedule` work on. None is left at the end, however it comes: an error, Ctrl-C, a kill.

    Args:
        jobs: how many at a time.
        begin: makes a process ready, before its first piece of work; a function that can be pickled.
        tasks: pieces of work after which a process makes room for a fresh one; 0: never.
    """
    context = multiprocessing.get_context("spawn")  # threads, of torch and of others, do not survive a fork
    pool = ProcessPool(jobs, max_tasks=tasks, initializer=_begin, initargs=(begin,), context=context)
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()


def _begin(begin: Callable[[], None]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin()


def _end_with_parent() -> None:
    # A process in the middle of its work would otherwise only see at the end of it that nobody wants it any more.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
