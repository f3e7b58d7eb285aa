"""The one exception that bad input raises (what was expected, what was found, what to do), and one way to warn."""

import sys
import warnings
from collections.abc import Iterable


class GammaRegError(ValueError):
    """Bad input to this library.

    The message is one paragraph: what was expected, what was found, what to do about it. Whatever the
    caller had (model, optimizer, files) is as it was before the call.
    """


def some(names: Iterable[object], limit: int = 5) -> str:
    """List names for an error message: sorted, quoted, at most `limit` of them.

    >>> some(["b", "a"])
    "'a', 'b'"
    >>> some("gfedcba")
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    ordered = sorted(str(name) for name in names)
    head = ", ".join(repr(name) for name in ordered[:limit])
    rest = len(ordered) - limit
    return f"{head} and {rest} more" if rest > 0 else head or "none"


def warn(text: str) -> None:
    """Warn at the line that called this library, however deep inside it the reason was found."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "hf_gammareg":
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, stacklevel=depth)
