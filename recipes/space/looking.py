"""One look at a model, in a process of its own and within limits: from its configuration to a page and a picture."""

import errno
import json
import multiprocessing
import os
import re
import resource
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from pebble import ProcessExpired, ProcessPool

NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
"""Of a model of a library or of the Hub: nothing that could be a path on this machine."""


HELD = (
    *("timm", "torchvision.models", "transformers.modeling_utils", "transformers.models.auto.modeling_auto"),
    *("torch._dynamo", "torch._export.non_strict_utils", "matplotlib.figure", "matplotlib.backends.backend_svg"),
    *("hf_gammareg.inputs.sources", "hf_gammareg.roles.find", "hf_gammareg.show.page", "huggingface_hub.hf_api"),
)
"""What takes seconds to import, and is imported once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one look may cost."""

    seconds: int = 60
    """From the turn on."""
    memory: int = 4 * 2**30
    """Bytes that its process may hold."""
    config: int = 2**18
    """Bytes of a configuration."""
    written: int = 2**26
    """Bytes of a file that its process may write."""
    gammas: int = 5000
    at_once: int = 2
    """Looks at a time; more wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to see."""

    source: str = ""
    """A name, such as `timm/resnet50`; of an uploaded configuration, what the page calls it."""
    config: str | None = None
    """The text of a configuration; None: that of the source."""
    policy: str = "guidelines"
    others: tuple[str, ...] = ("trainer", "timm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of it."""

    told: str
    """A line about the model, or what was wrong with the wish."""
    page: str | None = None
    picture: str | None = None
    """HTML and SVG; None where something was wrong."""


class Looks:
    """Processes that look at models, each at one and then no more; `see` waits for its turn and for the answer."""

    def __init__(self, limits: Limits, pool: ProcessPool) -> None:
        self.limits, self._pool = limits, pool

    def see(self, wish: Wish) -> Seen:
        """Look at a model. Whatever goes wrong is told in the answer."""
        if wrong := self._wrong(wish):
            return Seen(told=wrong)
        try:
            with tempfile.TemporaryDirectory() as folder:
                return self._pool.schedule(look, (wish, folder, self.limits), timeout=self.limits.seconds).result()
        except TookTooLong:
            seconds = self.limits.seconds
            return Seen(told=f"Expected an answer within {seconds} seconds, found none. Take a smaller model.")
        except (ProcessExpired, MemoryError):
            return Seen(told=_too_large(self.limits))

    def _wrong(self, wish: Wish) -> str:
        """What can be told of a wish without a process."""
        if any(len(policy) > 200 for policy in (wish.policy, *wish.others)):
            return "Expected the name of a policy, or roles separated by commas, found more than 200 letters."
        if wish.config is not None:
            size = len(wish.config.encode())
            return _not_small(f"{size:,}") if size > self.limits.config else ""
        if len(wish.source) > 120 or not NAME.fullmatch(wish.source):
            return (
                "Expected timm/NAME, transformers/MODEL_TYPE, torchvision/NAME or the Hub id of a model (OWNER/NAME), "
                f"found {wish.source[:40]!r}. Write one of these, or upload a config.json."
            )
        return ""


@contextmanager
def looks(limits: Limits | None = None) -> Iterator[Looks]:
    """Make ready to look at models; no process is left at the end."""
    limits = limits or Limits()
    context = multiprocessing.get_context("forkserver")  # it holds the libraries, and a process starts at once
    context.set_forkserver_preload([__name__, *HELD])
    pool = ProcessPool(limits.at_once, max_tasks=1, initializer=_begin, context=context)
    try:
        yield Looks(limits, pool)
    finally:
        pool.stop()
        pool.join()


def _begin() -> None:
    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def look(wish: Wish, folder: str, limits: Limits) -> Seen:
    """Look at a model in this process, which is good for nothing else afterwards: it has limits and no network.

    Args:
        wish: what to look at.
        folder: an empty one.
        limits: what it may cost.
    """
    from hf_gammareg.quiet import quiet

    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.config, limits.written))  # of what is fetched
    os.chdir(folder)  # a name is none of a file here
    try:
        with quiet():
            source = _configuration(wish, Path(folder, "config"))
            _no_network()
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.written, limits.written))
            return _seen(wish, source, Path(folder), limits)
    except Exception as error:
        return Seen(told=_told(error, limits).replace(f"{folder}/config", wish.source))


def _told(error: Exception, limits: Limits) -> str:
    """What was wrong, in a sentence or two."""
    from hf_gammareg import GammaRegError
    from hf_gammareg.errors import said

    first = error.__cause__ or error
    if isinstance(first, MemoryError) or "can't allocate memory" in str(first):
        return _too_large(limits)
    if isinstance(first, OSError) and first.errno == errno.EFBIG:
        return _not_small(f"more than {limits.config:,}")
    if isinstance(error, GammaRegError):
        return shorten(str(error), 700, placeholder=" …")
    return f"Expected a model that can be looked at, found {type(error).__name__}: {said(error)}."


def _not_small(found: str) -> str:
    return f"Expected a small config.json, found {found} bytes."


def _too_large(limits: Limits) -> str:
    return (
        f"Expected a model that is built in {limits.memory / 2**30:g} GB, found one that is not. Look at it on a "
        "machine of your own (gammareg inspect)."
    )


def _configuration(wish: Wish, folder: Path) -> str:
    """What to load: the name of a library's model, or a folder that holds the configuration and nothing else."""
    from hf_gammareg.inputs.folders import LIBRARIES
    from hf_gammareg.inputs.sources import hub_config

    library, _, name = wish.source.partition("/")
    if wish.config is None and (library in LIBRARIES or not name):
        return wish.source
    text = wish.config if wish.config is not None else hub_config(wish.source).read_text(encoding="utf-8")
    folder.mkdir()
    (folder / "config.json").write_text(text, encoding="utf-8")
    return str(folder)


def _no_network() -> None:
    """From here on nothing is fetched, whatever a configuration says: neither weights nor code."""
    import huggingface_hub.constants

    def refuse(*_: Any) -> None:
        raise OSError("nothing but a configuration is read from the network here")

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[method-assign,assignment]


def _seen(wish: Wish, source: str, folder: Path, limits: Limits) -> Seen:
    from hf_gammareg import GammaRegError, analyse, decide, write_page
    from hf_gammareg.decay.policy import find_rule
    from hf_gammareg.inputs.sources import load_source
    from hf_gammareg.roles.gammas import closing_lines
    from hf_gammareg.show.picture import draw

    for policy in (wish.policy, *wish.others):
        find_rule(policy)
    loaded = load_source(source)
    analysis = analyse(loaded.model, (loaded.args, loaded.kwargs))
    gammas = analysis.gammas
    if len(gammas) > limits.gammas:
        raise GammaRegError(f"Expected at most {limits.gammas:,} gammas, found {len(gammas):,}. Look locally.")
    decays = decide(gammas, loaded.model, wish.policy)
    others = {policy: decide(gammas, loaded.model, policy) for policy in wish.others if policy != wish.policy}
    told = {"source": wish.source, "policy": wish.policy}
    command = f"gammareg inspect {wish.source} --policy {wish.policy} --html page.html" if wish.config is None else ""
    page = write_page(folder / "page.html", analysis, decays, loaded.model, others=others, command=command, **told)
    picture = None
    if analysis.ancestry is not None and len(gammas):
        draw(folder / "picture.svg", analysis, decays=decays, title=f"{wish.source}, policy {wish.policy}")
        picture = (folder / "picture.svg").read_text(encoding="utf-8")
    return Seen(told=" ".join(closing_lines(gammas, decays)), page=page.read_text(encoding="utf-8"), picture=picture)


def named(text: str) -> str:
    """What to call an uploaded configuration: what it calls itself."""
    try:
        config = json.loads(text)
        found = (config.get(key) for key in ("_name_or_path", "architecture", "model_type"))
        return shorten(str(next(filter(None, found))), 120, placeholder="…")
    except (ValueError, AttributeError, StopIteration, RecursionError):
        return "config.json"
