"""Code of a user's run where it can change nothing: in a copy of this process, of which only the answer comes back."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import stat
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from hf_gammareg.errors import GammaRegError

OPEN_FILES = Path("/proc/self/fd")
"""Where Linux lists, and opens anew, what a process has open."""

PATIENCE = 60.0
"""Seconds for a call; a copy of a process may wait for a lock that a thread held when it was copied."""


def apart(call: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Make a call in a fork of this process and return what it returned there, pickled.

    Objects, generators of random numbers, iterators and the positions in open files are the copy's own: here all of
    them stay as they were. Nothing that it prints is seen. It can't use CUDA, pipes or sockets.

    >>> rows = iter("abc")
    >>> apart(lambda: next(rows)), next(rows)
    ('a', 'a')

    Args:
        call: what to call.
        seconds: how long to wait for it.

    Raises:
        GammaRegError: if it raised something, did not end in time, or returned what can't be pickled; on anything but
            Linux.
    """
    if not OPEN_FILES.is_dir():
        raise GammaRegError("Expected Linux, where open files can be opened anew, found another system. Do without.")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which are not in the copy
        child = os.fork()
    if not child:
        _answer(call, writer)
    os.close(writer)
    try:
        worked, answer = pickle.loads(_all_of(reader, seconds))
    except (OSError, EOFError, pickle.UnpicklingError, TypeError, ValueError, AttributeError, ImportError) as error:
        worked, answer = False, f"{type(error).__name__}: {error}"
    finally:
        os.close(reader)
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(OSError):  # somebody else waits for every child
            os.waitpid(child, 0)
    if not worked:
        raise GammaRegError(f"Expected a call that works in a copy of this process, found {answer}. See to it there.")
    return answer


def _all_of(reader: int, seconds: float) -> bytes:
    """All that comes through a pipe, before the time is up."""
    parts: list[bytes] = []
    end = time.monotonic() + seconds
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        if not (part := os.read(reader, 1 << 20)):
            return b"".join(parts)
        parts.append(part)
    raise TimeoutError(f"nothing after {seconds:g} seconds")


def _answer(call: Callable[[], Any], writer: int) -> NoReturn:
    """What the copy does, to its end."""
    try:
        try:
            torch.set_num_threads(1)  # the other threads are not in the copy
            _own_files(writer)
            answer = pickle.dumps((True, call()))
        except BaseException as error:
            answer = pickle.dumps((False, f"{type(error).__name__}: {error}"))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _own_files(keep: int) -> None:
    """Open every file anew where it stands, for a position that is not shared; nothing is had of pipes and sockets."""
    import fcntl  # not on every system

    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [int(path.name) for path in OPEN_FILES.iterdir()]:
        try:
            kind, anew = os.fstat(number).st_mode, nothing
        except OSError:  # the listing's own
            continue
        if stat.S_ISREG(kind):
            with contextlib.suppress(OSError):  # one that may no longer be opened
                access = fcntl.fcntl(number, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_APPEND)
                anew = os.open(OPEN_FILES / str(number), access)
                os.lseek(anew, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
        if number != keep and (number < 3 or stat.S_ISREG(kind) or stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            os.dup2(anew, number)
