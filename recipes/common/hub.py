"""Whether the Hugging Face Hub can be used now, asked once and quickly, and loading from it or from a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants
from huggingface_hub.utils import get_session


@cache
def hub_problem(timeout: float = 5.0) -> str | None:
    """Why the Hub can't be used, or None if it answers.

    One request without the retries of a download, so that a run without network says so within `timeout` seconds.
    """
    if constants.HF_HUB_OFFLINE or datasets.config.HF_HUB_OFFLINE:
        return "offline mode is on (HF_HUB_OFFLINE)"
    try:
        answer = get_session().head(constants.ENDPOINT, timeout=timeout)
    except Exception as error:  # the client's own classes: they differ between versions of huggingface_hub
        return f"{constants.ENDPOINT} can't be reached ({type(error).__name__}: {error})"
    return f"{constants.ENDPOINT} answers with status {answer.status_code}" if answer.status_code >= 500 else None


@contextmanager
def cache_only_if_unreachable() -> Iterator[None]:
    """Let `datasets` look only into its cache while the Hub can't be used, instead of retrying for minutes."""
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if hub_problem() is not None:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def loading_options(name: str, revision: str) -> dict[str, Any]:
    """Options of `from_pretrained`: a folder never asks the Hub, nor does anything while the Hub can't be used."""
    return {"revision": revision, "local_files_only": Path(name).is_dir() or hub_problem() is not None}


def why_not(name: str, error: Exception) -> str:
    """Why something could not be loaded, in one line: the Hub, unless `name` is a folder, else what the error says."""
    problem = None if Path(name).is_dir() else hub_problem()
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"that {problem}, and no copy in the local cache" if problem else said
