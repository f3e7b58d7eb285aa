"""The one exception that bad input raises (what was expected, what was found, what to do), and one way to warn."""

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Sequence


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


def alike(name: str, known: Iterable[str]) -> str:
    """Ask whether one of the known names was meant, with a space behind; nothing where none is like it.

    >>> alike("guideline", ["all", "guidelines", "none"])
    'Did you mean guidelines? '
    >>> alike("everything", ["all", "none"])
    ''
    """
    return meant(difflib.get_close_matches(name, known))


def meant(names: Sequence[str]) -> str:
    """Ask which of these was meant; nothing for none."""
    return f"Did you mean {' or '.join(names)}? " if names else ""


def said(error: BaseException, limit: int = 300) -> str:
    """What an exception says, on one line, without its final period: as many whole sentences as fit, one at least.

    >>> said(OSError("No such\\n  model. Log in. See the guide."), limit=25)
    'No such model. Log in'
    """
    first, *rest = re.split(r"(?<=[.!?]) ", " ".join(str(error).split()) or type(error).__name__)
    for sentence in rest:
        if len(first) + 1 + len(sentence) > limit:
            break
        first += f" {sentence}"
    return first.rstrip(".")


def warn(text: str) -> None:
    """Warn at the line that called this library, however deep inside it the reason was found."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "hf_gammareg":
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, stacklevel=depth)
