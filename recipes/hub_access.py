"""Whether the Hugging Face Hub can be used now, asked once and quickly."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

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
