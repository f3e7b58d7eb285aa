"""A page about one model: its network by role, every gamma, what other rules do, and what decay will do."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gammareg.roles.find import Analysis
from hf_gammareg.roles.gammas import Gamma, Role, closing_lines, table_rows
from hf_gammareg.show.card import READING
from hf_gammareg.show.html import render, save_page
from hf_gammareg.show.picture import STYLE
from hf_gammareg.show.report import Comparison
from hf_gammareg.show.strip import draw_strip

if TYPE_CHECKING:
    from torch import nn

MEANING: dict[Role, tuple[str, str]] = {
    Role.LAST: ("reaches a residual add on branch sides only", "variance: decay shrinks the branch"),
    Role.ABSORBED: ("is cancelled by a later norm on every path", "decay keeps its effective learning rate up"),
    Role.SHORTCUT: ("reaches the add on its skip side, from inside the block", "decay would shrink the identity path"),
    Role.TRUNK: ("reaches the skip side of a block that starts below it", "decay would shrink the identity path"),
    Role.FINAL: ("reaches the output unnormalised", "neither analysis promises a gain"),
    Role.GATE: ("reaches only what saturates: softmax, sigmoid, tanh", "neither analysis covers it"),
    Role.UNKNOWN: ("meets an op without a rule, or the model can't be traced", "never guessed"),
}
"""By role: what becomes of a factor c on the norm's output, and what the guidelines say because of it."""

PAGE_NAME = "gamma_page.html"
"""The page that a run leaves beside its `gamma_report.json` when it is asked to."""


SCHEDULES = {"constant": "constant", "linear": "linear to 0", "cosine": "cosine to 0"}
"""The schedules that a page knows, without warm-up, as transformers calls them, and in words."""

OPTIMIZERS = {
    "AdamW": "AdamW",
    "SGD": "SGD",
    "SGD 0.9": "SGD, momentum 0.9",
    "Adam": "Adam (L2 on the loss)",
}
"""The optimizers that a page knows, with their momentum, and in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run, as far as decay alone is concerned: what the fields of a page hold at first."""

    learning_rate: float = 1e-3
    """At its highest."""
    weight_decay: float = 0.05
    """Of the gammas that decay."""
    steps: int = 10_000
    schedule: str = "cosine"
    """One of `SCHEDULES`."""
    optimizer: str = "AdamW"
    """One of `OPTIMIZERS`."""

    @classmethod
    def near(cls, known: Mapping[str, Any]) -> Plan:
        """The plan of a run, as far as a page knows it; None, and names of others, give way to what stands here.

        >>> Plan.near({"steps": 500, "schedule": "polynomial", "learning_rate": None})
        Plan(learning_rate=0.001, weight_decay=0.05, steps=500, schedule='cosine', optimizer='AdamW')
        """
        names = {"schedule": SCHEDULES, "optimizer": OPTIMIZERS}
        return cls(
            **{key: value for key, value in known.items() if value is not None and value in names.get(key, [value])}
        )


def write_page(
    path: str | Path,
    analysis: Analysis,
    decays: Mapping[str, bool],
    model: nn.Module,
    *,
    source: str = "",
    policy: str = "guidelines",
    others: Mapping[str, Mapping[str, bool]] | None = None,
    command: str = "",
    plan: Plan | None = None,
) -> Path:
    """Write a page about the gammas of a model: one HTML file that needs neither a network nor a server.

    It holds the blocks of the network with each gamma by role, a table of all gammas, what other rules would do, what
    is unknown and why, and what decay alone will do over a schedule whose length and rates the reader gives.

    >>> import tempfile
    >>> from torch import nn, zeros
    >>> from hf_gammareg import analyse, decide
    >>> net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    >>> analysis = analyse(net, zeros(2, 4))
    >>> decays, plain = (decide(analysis.gammas, net, policy) for policy in ("guidelines", "trainer"))
    >>> page = write_page(tempfile.mkdtemp() + "/net.html", analysis, decays, net, others={"trainer": plain})
    >>> "Reaches the output through <code>2</code>" in page.read_text()
    True

    Args:
        path: a file to write, `.html`.
        analysis: of the model (see `hf_gammareg.analyse`); of one that can't be traced there is no picture.
        decays: `{parameter name: decays}`, from `hf_gammareg.decide`.
        model: the model, for its class and the version of the library that it comes from.
        source: the model's name; default: its class.
        policy: name of the policy that decided.
        others: decisions of other policies, by name, to compare with.
        command: what wrote the page, for the reader to repeat.
        plan: what the fields about the schedule hold at first.

    Returns:
        The path written to.

    Raises:
        GammaRegError: for another suffix, or a path that can't be written.
    """
    text = page_text(
        analysis, decays, model, source=source, policy=policy, others=others, command=command, plan=plan or Plan()
    )
    return save_page(path, text)


def page_text(
    analysis: Analysis,
    decays: Mapping[str, bool],
    model: nn.Module,
    *,
    source: str,
    policy: str,
    others: Mapping[str, Mapping[str, bool]] | None,
    command: str,
    plan: Plan,
) -> str:
    """What `write_page` writes."""
    gammas = analysis.gammas
    named, acting = type(model).__name__, {g.name: decays[g.name] and g.trainable for g in gammas}
    comparisons = [
        Comparison(gammas=gammas, model=named, policy=policy, diff=name, decays=decays, diff_decays=theirs)
        for name, theirs in (others or {}).items()
    ]
    parts = draw_strip(analysis, decays)
    drawn = sum(len(part.drawings) for part in parts)
    return render(
        "network.html",
        title=source or named,
        model=named,
        policy=policy,
        gammas=gammas,
        decays=decays,
        decayed=sum(acting.values()),
        rules={policy: decays} | dict(others or {}),
        summary=closing_lines(gammas, decays),
        roles=[role for role in MEANING if gammas.by_role(role)],
        parts=parts,
        scale=1.6 if drawn <= 8 else 1.25 if drawn <= 20 else 1.0,
        number={name: number for number, name in enumerate(gammas.names)},
        undrawn=_undrawn(analysis),
        compared=[(found, table_rows(found.differing, [found.decays, found.diff_decays])) for found in comparisons],
        unknown=Counter(g.reason for g in gammas.by_role(Role.UNKNOWN)).most_common(),
        command=command,
        plan=plan,
        schedules=SCHEDULES,
        optimizers=OPTIMIZERS,
        versions=_versions(model),
        style=STYLE,
        meaning=MEANING,
        reading=READING,
    )


def _undrawn(analysis: Analysis) -> list[Gamma]:
    """Gammas that stand nowhere in the graph."""
    drawn = {site.parameter for site in analysis.sites}
    return [gamma for gamma in analysis.gammas if gamma.name not in drawn]


def _versions(model: Any) -> dict[str, str]:
    """What the page was made with: this library, torch, the model's own library, Python."""
    from hf_gammareg import __version__

    found = {"hf_gammareg": __version__}
    for library in dict.fromkeys(("torch", type(model).__module__.partition(".")[0])):
        version = getattr(sys.modules.get(library), "__version__", None)
        if isinstance(version, str):
            found[library] = version
    return found | {"Python": platform.python_version()}
