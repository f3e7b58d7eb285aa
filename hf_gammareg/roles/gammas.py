"""The records everything else speaks in: a role, a gamma, and the map of a model's gammas."""

from __future__ import annotations

from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from hf_gammareg.errors import GammaRegError, alike, some
from hf_gammareg.roles.table import Row, pattern, plain_table

if TYPE_CHECKING:
    from rich.console import Console


class Role(StrEnum):
    """What becomes of a factor c on a norm's output, followed forward through the network.

    The order is the order of protection: where paths end differently, the first in this list names the role.
    """

    UNKNOWN = "unknown"
    """The graph could not be had, or holds an op nobody has ruled on. Never guessed."""
    TRUNK = "trunk"
    """c reaches the skip side of a block that starts below the norm: stem, stage transition."""
    SHORTCUT = "shortcut"
    """c reaches the add through the skip side from inside the block: the norm of a projection shortcut."""
    FINAL = "final"
    """c reaches the output unnormalised, after the last add."""
    LAST = "last"
    """c reaches a residual add through branch sides only."""
    ABSORBED = "absorbed"
    """c is cancelled by a later normalization on every path."""
    GATE = "gate"
    """c reaches only something that saturates: softmax, sigmoid, tanh."""

    @property
    def protection(self) -> int:
        """Rank in the order of protection, 0 the most protective."""
        return list(Role).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma:
    """One gain of a normalization layer, and what the graph says of it."""

    name: str
    """Parameter name, as in `named_parameters()` of the model before anything wrapped it or parts of it."""
    role: Role
    kind: str
    """`batch_norm`, `layer_norm`, `group_norm`, `instance_norm` or `rms_norm`."""
    numel: int
    """Number of gains: usually the number of channels."""
    exact: bool
    """The fate holds to rounding for this gamma alone: only linear, conv, ReLU, pooling, views on the way."""
    placement: str | None
    """`input`: a weight layer reads it before the add; `output`: it reaches the add directly; None: neither."""
    zero_centered: bool
    """The layer multiplies by 1 + w: decay pulls the gain to 1, not to 0."""
    trainable: bool
    """`requires_grad` at the time of the analysis."""
    reason: str
    """One sentence a person can check, naming the add or the norm that decided."""


UNTRAINED = "none: no gamma is trained"
"""The source of a map for which nothing was traced, since nothing is to be decided."""


class _NoSuchGamma(GammaRegError, KeyError):
    """A name that a map does not have: `except KeyError` catches it too, as with any mapping."""

    __str__ = Exception.__str__


@dataclass(frozen=True, slots=True, kw_only=True)
class GammaMap:
    """The gammas of one model, in the order of `model.named_parameters()`; immutable.

    A mapping from parameter name to `Gamma`, save that iterating gives the records themselves; `str(map)` is a table
    for people.

    >>> from torch import nn, zeros
    >>> from hf_gammareg import find_gammas
    >>> gammas = find_gammas(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), zeros(2, 4))
    >>> [gamma.name for gamma in gammas], str(gammas["1.weight"].role), gammas.get("0.weight"), "1.weight" in gammas
    (['1.weight'], 'final', None, True)
    >>> {name: str(gamma.role) for name, gamma in gammas.items()}
    {'1.weight': 'final'}
    """

    gammas: tuple[Gamma, ...]
    source: str
    """How the graph was had: `export (train mode)`, `export (eval mode)`, or `none: ...` with the reason."""
    not_gammas: dict[str, str] = field(default_factory=dict, hash=False)
    """1-d parameters of modules called norm that are no norm gamma, each with the reason."""
    _by_name: dict[str, Gamma] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {gamma.name: gamma for gamma in self.gammas})

    def __iter__(self) -> Iterator[Gamma]:
        return iter(self.gammas)

    def __len__(self) -> int:
        return len(self.gammas)

    def __contains__(self, gamma: object) -> bool:
        """Whether a name, or a record, is one of the map's."""
        return gamma in self._by_name if isinstance(gamma, str) else gamma in self.gammas

    def __getitem__(self, name: str) -> Gamma:
        if name in self._by_name:
            return self._by_name[name]
        near = alike(str(name), self.names).rstrip() or f"It has {some(self.names)}."
        raise _NoSuchGamma(f"Expected the name of a gamma of this model, found {name!r}. {near}")

    def get(self, name: str, default: Any = None) -> Any:
        """The gamma of this name, or the default."""
        return self._by_name.get(name, default)

    def keys(self) -> KeysView[str]:
        """Parameter names, in model order."""
        return self._by_name.keys()

    def values(self) -> ValuesView[Gamma]:
        """The gammas, in model order."""
        return self._by_name.values()

    def items(self) -> ItemsView[str, Gamma]:
        """Pairs of parameter name and gamma, in model order."""
        return self._by_name.items()

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names of the gammas, in model order."""
        return tuple(gamma.name for gamma in self.gammas)

    @property
    def counts(self) -> dict[str, int]:
        """How many gammas have each role; roles that do not occur are left out."""
        return {str(role): n for role in Role if (n := len(self.by_role(role)))}

    def by_role(self, *roles: str | Role) -> tuple[Gamma, ...]:
        """Gammas of these roles, in model order."""
        return tuple(gamma for gamma in self.gammas if gamma.role in roles)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON: `{"source", "gammas", "counts", "not_gammas"}`."""
        return {
            "source": self.source,
            "gammas": [asdict(gamma) | {"role": str(gamma.role)} for gamma in self.gammas],
            "counts": self.counts,
            "not_gammas": dict(self.not_gammas),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GammaMap:
        """The inverse of `to_dict`; what a `gamma_report.json` holds beside the gammas is passed over.

        Args:
            data: what `to_dict` made, or the JSON of a report that a run or `write_report` left.

        Raises:
            GammaRegError: if a field is missing or a role is unknown.
        """
        try:
            rows = [{option.name: row[option.name] for option in fields(Gamma)} for row in data["gammas"]]
            gammas = tuple(Gamma(**row | {"role": Role(row["role"])}) for row in rows)
            return cls(gammas=gammas, source=data["source"], not_gammas=dict(data.get("not_gammas", {})))
        except (KeyError, TypeError, ValueError) as error:
            raise GammaRegError(
                "Expected the dictionary that GammaMap.to_dict() makes, or the JSON of a gamma_report.json, found one "
                f"that does not fit ({type(error).__name__}: {error}). Write it again with this version of hf_gammareg."
            ) from error

    def __str__(self) -> str:
        return table_text(self)


def table_rows(gammas: GammaMap, rules: Iterable[Mapping[str, bool]] = (), *, every: bool = False) -> list[Row]:
    """Group gammas by role and kind of place.

    Args:
        gammas: the gammas of a model, or some of them.
        rules: `{parameter name: decays}` of one rule or several, for a decision each.
        every: one row for each gamma, in model order.
    """
    return [
        Row(
            role=str(members[0].role),
            decisions=tuple(_decision(members, decays) for decays in rules),
            pattern=pattern([gamma.name for gamma in members]),
            count=len(members),
            reason=members[0].reason,
        )
        for members in (([gamma] for gamma in gammas) if every else _groups(gammas))
    ]


def table_text(
    gammas: GammaMap,
    decays: Mapping[str, bool] | None = None,
    *,
    every: bool = False,
    console: Console | None = None,
) -> str:
    """Write the gammas of a model as a table, one row per role and kind of place.

    Args:
        gammas: the gammas of the model.
        decays: `{parameter name: decays}` from `hf_gammareg.decay.policy.decide`, for a column of decisions.
        every: one row for each gamma, in model order.
        console: a terminal, for its width and colours; default: plain text, at most `WIDTH` columns.

    Returns:
        Lines, of which the last ones count the roles and name the doubts.
    """
    rules = [] if decays is None else [decays]
    lines = plain_table(["decays"] * len(rules), table_rows(gammas, rules, every=every), console)
    return "\n".join([*lines, *closing_lines(gammas, decays)])


def _groups(gammas: GammaMap) -> Iterable[list[Gamma]]:
    from hf_gammareg.model.names import place  # which loads torch; roles and policies are known without

    for role in Role:
        places: dict[tuple[str, str], list[Gamma]] = {}
        for gamma in gammas.by_role(role):
            # Gammas of unknown role are grouped by what is not known of them too.
            key = (place(gamma.name), gamma.reason if role is Role.UNKNOWN else "")
            places.setdefault(key, []).append(gamma)
        yield from places.values()


def _decision(members: list[Gamma], decays: Mapping[str, bool]) -> str:
    if not any(gamma.trainable for gamma in members):
        return "frozen"
    found = [decays[gamma.name] for gamma in members]
    return "yes" if all(found) else f"{sum(found)} of {len(found)}" if any(found) else "no"


def closing_lines(gammas: GammaMap, decays: Mapping[str, bool] | None = None) -> list[str]:
    """What stands below a table: how many gammas of which role, how many decay, and what is to be doubted."""
    if not len(gammas):
        return [f"No gammas: this model has no normalization layer with a gain. Graph: {gammas.source}."]
    deciding = ""
    if decays is not None:
        deciding = f"; {sum(decays[gamma.name] for gamma in gammas if gamma.trainable)} of them decay"
    lines = [f"{_plural(len(gammas))}: {_counts(gammas.gammas)}{deciding}. Graph: {gammas.source}."]
    if centred := [gamma for gamma in gammas if gamma.zero_centered]:
        words = ("multiplies", "its gain") if len(centred) == 1 else ("multiply", "their gains")
        lines.append(f"{_plural(len(centred))} {words[0]} by 1 + w: decay pulls {words[1]} to 1, not to 0.")
    if doubt := unknown_text(gammas, decays):
        lines.append(f"WARNING: {doubt}")
    return lines


def unknown_text(gammas: GammaMap, decays: Mapping[str, bool] | None = None) -> str:
    """Say how many gammas are of unknown role, why, and what becomes of them; empty where there are none.

    Frozen ones don't count, such as the originals that PEFT keeps of layers in `modules_to_save`.
    """
    unknown = [gamma for gamma in gammas.by_role(Role.UNKNOWN) if gamma.trainable]
    if not unknown:
        return ""
    (reason, _), *others = Counter(gamma.reason for gamma in unknown).most_common()
    decayed = sum(decays[gamma.name] for gamma in unknown) if decays is not None else 0
    fate = f"{decayed} of them decay" if decayed else "none of them decays"
    more = f" and {len(others)} other reasons" if len(others) > 1 else " and another reason" if others else ""
    return f"{_plural(len(unknown))} of unknown role ({reason.rstrip('.')}{more}): {fate}."


def _counts(gammas: Iterable[Gamma]) -> str:
    counts = Counter(gamma.role for gamma in gammas)
    return ", ".join(f"{counts[role]} {role}" for role in Role if counts[role])


def _plural(count: int) -> str:
    return f"{count} gamma" + ("" if count == 1 else "s")
