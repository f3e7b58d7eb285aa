"""How the Space bears many users at once, as a table: `python recipes/space/crowd.py 1 5 20 60`, to be run by hand."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import IO, Any

import psutil

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "vocab_size": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one user wants."""

    kind: str
    """good, wrong, or slow: what takes longer than a look may."""
    source: str = ""
    config: dict[str, Any] | None = None


VIT, RESNET = (Wish(kind="good", source=f"timm/{name}") for name in ("test_vit", "test_resnet"))
UPLOAD = Wish(kind="good", config=LLAMA | {"num_hidden_layers": 2})
SLOW = Wish(kind="slow", config=LLAMA | {"num_hidden_layers": 20_000})
TYPO, PATH, NOBODY, NOTHING = (
    Wish(kind="wrong", source=name) for name in ("timm/resnt18", "../x", "nobody/nothing", "")
)
USERS = (
    *(VIT, TYPO, UPLOAD, SLOW, RESNET, VIT, UPLOAD, PATH, RESNET, VIT),
    *(UPLOAD, NOBODY, VIT, SLOW, RESNET, UPLOAD, NOTHING, VIT, SLOW, RESNET),
)
"""Twenty users; where there are more, they want the same again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one user got."""

    wish: Wish
    told: str
    page: str = ""
    files: tuple[str, ...] = ()
    seconds: float


@contextmanager
def served(*options: str) -> Iterator[tuple[str, psutil.Popen]]:
    """The app in a process of its own, and its address; at the end it is asked to stop, and so does all of it."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        words = [sys.executable, str(Path(__file__).with_name("app.py")), *options]
        app = psutil.Popen(words, stdout=log, stderr=log)
        try:
            yield _address(app, log), app
        finally:
            processes = [app, *app.children(recursive=True)] if app.poll() is None else []
            app.send_signal(signal.SIGINT)
            _, alive = psutil.wait_procs(processes, timeout=60)
            for process in alive:
                process.kill()
        if alive:
            raise RuntimeError(f"Expected the app to stop when it is asked to, found {len(alive)} processes left.")


def _address(app: psutil.Popen, log: IO[str]) -> str:
    while app.poll() is None:
        log.seek(0)
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read()):
            return found[0]
        time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"Expected an app that starts, found status {app.poll()}: {log.read()}")


def crowd(address: str, wishes: Sequence[Wish]) -> list[Answer]:
    """Ask for all of it at once, each wish as a user of its own."""
    from gradio_client import Client

    clients = [Client(address, verbose=False) for _ in wishes]
    with ThreadPoolExecutor(len(wishes)) as users:
        return list(users.map(ask, clients, wishes))


def ask(client: Any, wish: Wish, policy: str = "guidelines", others: Sequence[str] = ("trainer", "timm")) -> Answer:
    """Ask for one thing, and wait for the answer, be it that there are too many."""
    from gradio_client import handle_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(wish.config), encoding="utf-8")
        start, file = time.monotonic(), None if wish.config is None else handle_file(str(path))
        try:
            told, page, files = client.predict(wish.source, file, policy, list(others), api_name="/look")
        except Exception as error:
            told, page, files = f"{type(error).__name__}: {error}", "", []
    return Answer(wish=wish, told=told, page=page, files=tuple(files), seconds=time.monotonic() - start)


def left(app: psutil.Popen, at_rest: int) -> int:
    """Processes of the app beyond those that it has at rest, once it had time to end them."""
    deadline = time.monotonic() + 20
    while (more := len(app.children(recursive=True)) - at_rest) > 0 and time.monotonic() < deadline:
        time.sleep(0.5)
    return max(more, 0)


REFUSED = ("wrong", "late", "too many", "no sentence")
HEAD = ("users at once", "a page", *REFUSED, "first page", "last page", "longest wait", "processes left")


def row(users: int, answers: Sequence[Answer], processes: int) -> tuple[object, ...]:
    """A line of the table."""
    refused = [answer.told for answer in answers if not answer.page]
    late = sum("seconds, found none" in told for told in refused)
    many = sum("queue is full" in told.lower() for told in refused)
    wrong = sum(told.startswith("Expected") for told in refused) - late
    pages = [answer.seconds for answer in answers if answer.page] or [float("nan")]
    waits = [f"{wait:.0f} s" for wait in (min(pages), max(pages), max(answer.seconds for answer in answers))]
    return users, users - len(refused), wrong, late, many, len(refused) - wrong - late - many, *waits, processes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("users", type=int, nargs="*", default=[1, 5, 20, 60], help="at once (default: 1 5 20 60)")
    parser.add_argument("--seconds", type=int, default=30, help="that a look may take (default %(default)s)")
    options = parser.parse_args()
    print("|", " | ".join(HEAD), "|\n|" + " --- |" * len(HEAD))
    with served("--seconds", str(options.seconds)) as (address, app):
        crowd(address, [VIT])  # the libraries are loaded
        at_rest = len(app.children(recursive=True))
        for users in options.users:
            answers = crowd(address, list(islice(cycle(USERS), users)))
            print("|", " | ".join(map(str, row(users, answers, left(app, at_rest)))), "|", flush=True)
    print(f"\nA look may take {options.seconds} s; {psutil.cpu_count()} cores.")


if __name__ == "__main__":
    main()
