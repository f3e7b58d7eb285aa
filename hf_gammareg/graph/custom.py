"""A user's own ops: rules for kernels that the table can't know."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.graph.ops import OPS
from hf_gammareg.graph.rewrite import FORMS, Form, Make
from hf_gammareg.graph.rows import Effect, OpRow, Rule

NEEDED = {
    Effect.NORM: {"input"},
    Effect.QUOTIENT: {"self", "other"},
    Effect.SUM: {"self", "other"},
}
"""Arguments by which an effect tells apart what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A rule, and what it calls the arguments of an op that calls them otherwise; None for those that carry nothing."""

    rule: Rule | None
    names: Mapping[str, str | None] = field(default_factory=dict)
    form: Form | None = None
    """Of an op like one that is written out."""

    def called(self, arguments: Iterable[str]) -> list[str | None]:
        """What the rule calls them."""
        return [self.names.get(name, name) for name in arguments]

    def renamed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """These arguments by what the rule calls them."""
        words = zip(self.called(arguments), arguments.values(), strict=True)
        return {word: value for word, value in words if word is not None}


ADDED: dict[str, Own] = {}
"""Rules that users gave, by op as in `OPS`."""


def add_op(
    name: str, like: str | None = None, row: Rule | None = None, *, arguments: Mapping[str, str | None] | None = None
) -> None:
    """Say what an op of your own does to the scale of an activation: without a rule, what reaches it is `unknown`.

    An attention that calls its arguments otherwise than torch does, and an op that is like none:

    >>> torch.library.define("mine::attention", "(Tensor q, Tensor k, Tensor v, float scale) -> Tensor")
    >>> _ = torch.library.register_fake("mine::attention", lambda q, k, v, scale: torch.empty_like(q))
    >>> names = {"q": "query", "k": "key", "v": "value"}
    >>> add_op("mine::attention", like="scaled_dot_product_attention", arguments=names)
    >>> torch.library.define("mine::squared_relu", "(Tensor x) -> Tensor")
    >>> add_op("mine::squared_relu", row=OpRow(effect=Effect.SCALE, power=2))

    A rule holds in this process, for models looked at from then on. Adding it again changes nothing.

    Args:
        name: `namespace::op`, of an op that is registered (`torch.library.custom_op`).
        like: an op that does the same: ATen's name, such as `rms_norm`, or an op that was added before. Which argument
            is the query or the gain is told by its name.
        row: instead of `like`, a row of the op's own, or a function of its arguments by name that gives one.
        arguments: names of the op's arguments, each with what `like` calls it, or with what the row's `Effect` does (a
            NORM has an `input` and a `weight`); None for a tensor that is read for its shape alone.

    Raises:
        GammaRegError: if torch knows no such op, or the table none to be like; if an argument has no counterpart there;
            or if the op has a rule that says otherwise.
    """
    if not re.fullmatch(r"\w+::\w+", name):
        raise GammaRegError(f"Expected an op's name as 'namespace::op', found {name!r}. Give it as torch.library does.")
    if (like is None) is (row is None):
        raise GammaRegError(
            f"Expected `like` or `row` for {name}, found {'neither' if row is None else 'both'}. Name an op that does "
            "the same, or give it a row of its own."
        )
    op, given = _key(name), dict(arguments or {})
    own_names = takes(op)
    if not own_names:
        raise GammaRegError(f"Expected an op that torch knows, found {name!r}. Import what registers it first.")
    if strangers := given.keys() - own_names.keys():
        raise GammaRegError(f"Expected arguments of {name} ({some(own_names)}), found {some(strangers)}. Name its own.")
    own = Own(rule=row, names=given) if row is not None else _alike(op, like or "", given)
    words = [word for word in own.called(own_names) if word is not None]
    if twice := {word for word in words if words.count(word) > 1}:
        raise GammaRegError(f"Expected one argument of {name} for each meaning, found several for {some(twice)}.")
    if isinstance(own.rule, OpRow):
        needed = {*NEEDED.get(own.rule.effect, ()), *(own.rule.gates + own.rule.ignores if row is not None else ())}
        _check(op, needed, words)
    held = _own(op) or own
    if held != own:
        raise GammaRegError(
            f"Expected an op without a rule, found {name}, whose rule says otherwise. Models may have been read by it: "
            "add the right one in a new process, once."
        )
    if op not in OPS and op not in FORMS:
        ADDED[op] = own


def asked(op: str, arguments: dict[str, Any]) -> tuple[OpRow | None, dict[str, Any]]:
    """An op's row for these arguments, None where nobody gave it one, and the arguments by the names of its rule."""
    own = ADDED.get(op)
    if own is None:
        rule = OPS.get(op)
        return rule if rule is None or isinstance(rule, OpRow) else rule(arguments), arguments
    if own.rule is None:
        return None, arguments
    arguments = own.renamed(arguments)
    if isinstance(own.rule, OpRow):
        return own.rule, arguments
    row = own.rule(arguments)
    _check(op, NEEDED.get(row.effect, ()), arguments)
    return row, arguments


def written_out(op: str, arguments: dict[str, Any], make: Make) -> Any:
    """What a call is, written out as sums and products; None where it stands as it is."""
    own = ADDED.get(op)
    form = own.form if own else FORMS.get(op)
    return form and form(make, own.renamed(arguments) if own else arguments)


def called(op: str, arguments: Iterable[str]) -> list[str | None]:
    """What the rule of an op calls its arguments; None for those that carry nothing."""
    return ADDED[op].called(arguments) if op in ADDED else list(arguments)


def takes(op: str) -> dict[str, bool]:
    """Names of an op's arguments, each with whether it may hold a tensor; empty where torch knows no such op."""
    namespace, _, name = op.rpartition("::")
    home = getattr(torch.ops, namespace or "aten")
    found = getattr(home, name, None) or getattr(home, f"{name}_", None)
    if isinstance(found, torch._ops.HigherOrderOperator):
        return dict.fromkeys(inspect.signature(found.__call__).parameters, True)
    schemas = [getattr(found, overload)._schema for overload in found.overloads()] if found else []
    return {argument.name: "Tensor" in str(argument.type) for schema in schemas for argument in schema.arguments}


def _key(name: str) -> str:
    """What the table calls an op."""
    return name.removeprefix("aten::").removesuffix("_")


def _own(op: str) -> Own | None:
    """What is said of an op, by a user or by the tables."""
    known = Own(rule=OPS.get(op), form=FORMS.get(op)) if op in OPS or op in FORMS else None
    return ADDED.get(op) or known


def _alike(op: str, like: str, names: Mapping[str, str | None]) -> Own:
    """The rule of another op, and what it calls the arguments of this one."""
    other = _key(like)
    there = _own(other)
    if there is None or not takes(other):
        close = difflib.get_close_matches(other, [*OPS, *FORMS, *ADDED], cutoff=0.5)
        advice = f"Close to it are {some(close)}." if close else "Give it a row of its own."
        raise GammaRegError(f"Expected an op that has a rule for {op} to be like, found {like!r}. {advice}")
    known = takes(other)
    words = {name: names.get(name, name) for name in takes(op)}
    free = [word for word, tensor in known.items() if tensor and word not in words.values()]
    meant = [name for name, tensor in takes(op).items() if tensor or name in names]
    lost = [name for name in meant if words[name] not in {*known, None}]
    if lost:
        raise GammaRegError(
            f"Expected {op} to call its tensors as {like} does, found {some(lost)}. Say which is which, such as "
            f"arguments={dict(zip(lost, free, strict=False))}; None for one that carries nothing."
        )
    called = {name: word if word is None else there.names.get(word, word) for name, word in words.items()}
    names = {name: word for name, word in called.items() if word != name}
    return Own(rule=there.rule, names=names, form=there.form)


def _check(op: str, needed: Iterable[str], names: Iterable[str | None]) -> None:
    """Raise if an op has no argument that its row speaks of."""
    names = {name for name in names if name is not None}
    if missing := set(needed) - names:
        raise GammaRegError(
            f"Expected {op} to have the arguments that its row speaks of, found none called {some(missing)} among "
            f"{some(names)}. Say which is which: arguments={{name: {min(missing)!r}}}."
        )
