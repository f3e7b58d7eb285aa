"""One way to silence a library."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries print, log and warn of while they build or export a model to themselves.

    >>> with quiet():
    ...     print("a word to the maintainers of a model")
    """
    disabled = logging.root.manager.disable
    # A failed export prints the graph so far to stderr, past every logger.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
