"""What an override of a Trainer's method was given, whatever its base calls its arguments.

An override hands on exactly what it was given. Bases differ in their signatures: TRL's `create_model_card` has three
arguments, sentence-transformers' `_load_from_checkpoint` one of another name.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from transformers import Trainer


def arguments(call: partial[Any]) -> dict[str, Any]:
    """The arguments of a bound method that is about to be called, by the names that it has for them.

    >>> class Base:
    ...     def train(self, checkpoint, trial=None):
    ...         pass
    >>> arguments(partial(Base().train, "folder"))
    {'checkpoint': 'folder'}
    """
    signature = inspect.signature(call.func)
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values()):
        # Another mixin, which hands on what Trainer itself takes.
        signature = inspect.signature(partial(getattr(Trainer, call.func.__name__), None))
    return signature.bind(*call.args, **call.keywords).arguments | call.keywords


def first(call: partial[Any]) -> Any:
    """The first of its arguments; None where it has none."""
    return next(iter(arguments(call).values()), None)
