"""The arms: which gammas decay in each, and the runs that follow from a configuration."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ablation.config import Ablation
from hf_gammareg import GammaMap, GammaRegError, Role
from hf_gammareg.decay.policy import find_rule
from hf_gammareg.errors import some

BASELINE = "none"
PROTECTED = (Role.SHORTCUT, Role.TRUNK, Role.FINAL, Role.GATE, Role.UNKNOWN)
"""What `guidelines` leaves alone."""

ARMS: dict[str, str] = {
    BASELINE: "none",
    "last": "last",
    "absorbed": "absorbed",
    "shortcut": "shortcut",
    "trunk": "trunk",
    "final": "final",
    "gate": "gate",
    "guidelines": "guidelines",
    "complement": ",".join(PROTECTED),
    "all": "all",
    "iwd": "iwd",
    "qwen3_next": "qwen3_next",
}
"""By arm the policy that says which gammas decay. `complement`: those that `guidelines` leaves alone, and no others."""

USUAL = (BASELINE, "last", "absorbed", "shortcut", "trunk", "final", "guidelines", "complement", "all")
"""The arms of a configuration that names none."""

WHOLE = ("guidelines", "complement", "all", "iwd", "qwen3_next")
"""The arms that are about more than one role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: everything in which it differs from the others."""

    arm: str
    last_init: float | None
    gamma_weight_decay: float
    """0 in the arm `none`."""
    seed: int

    @property
    def name(self) -> str:
        """What the run is called, in the results and for `rerun`.

        >>> Run(arm="last", last_init=1.0, gamma_weight_decay=0.005, seed=3).name
        'last-init1-decay0.005-seed3'
        """
        init = "" if self.last_init is None else f"-init{self.last_init:g}"
        return f"{self.arm}{init}-decay{self.gamma_weight_decay:g}-seed{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a line of JSON."""
        return asdict(self)


def named(config: Ablation) -> list[str]:
    """The arms of a configuration, in the order of `ARMS`.

    Raises:
        GammaRegError: if one is unknown, `none` or `guidelines` is missing, or a comparison is not of two of them.
    """
    given = config.arms or USUAL
    wrong = [arm for arm in given if arm not in ARMS] + [arm for arm in (BASELINE, "guidelines") if arm not in given]
    for pair in config.comparisons:
        first, minus, other = pair.partition(" - ")
        wrong += [] if minus and first != other and {first, other} <= set(given) else [pair]
    if wrong:
        raise GammaRegError(
            f"Expected arms of {some(ARMS, len(ARMS))}, none and guidelines among them, and comparisons 'one - other' "
            f"of two of them, found a fault in {some(wrong)}. Correct `arms` and `comparisons` in the settings."
        )
    return [arm for arm in ARMS if arm in given]


def members(gammas: GammaMap, arm: str) -> frozenset[str]:
    """Names of the gammas that decay in an arm."""
    return frozenset(find_rule(ARMS[arm])(gammas, None))  # type: ignore[arg-type]  # these rules look at roles only


def representatives(gammas: GammaMap, arms: Iterable[str]) -> dict[str, str]:
    """For each arm the first one in which the same gammas decay: runs of both would be the same, bit for bit.

    >>> from torch import nn, zeros
    >>> from hf_gammareg import find_gammas
    >>> model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    >>> found = representatives(find_gammas(model, zeros(2, 4)), USUAL)
    >>> found["final"], found["last"], found["guidelines"], found["complement"], found["all"]
    ('final', 'none', 'none', 'final', 'final')
    """
    first: dict[frozenset[str], str] = {}
    return {arm: first.setdefault(members(gammas, arm), arm) for arm in arms}


def cells(config: Ablation) -> list[tuple[float | None, float]]:
    """The pairs of initialisation of `last` and strength of decay: all strengths at the first, the main one at each."""
    inits: list[float | None] = [*config.last_inits] or [None]
    every = [(inits[0], strength) for strength in config.gamma_weight_decays]
    return every + [(init, config.main_gamma_weight_decay) for init in inits[1:]]


def runs(config: Ablation, arms: Iterable[str]) -> list[Run]:
    """All runs, those of the main strength and initialisation first and by seed: an early stop leaves whole pairs."""
    arms = list(arms)
    found: dict[str, Run] = {}
    for init, strength in sorted(cells(config), key=lambda cell: cell[1] != config.main_gamma_weight_decay):
        for seed in config.seeds:
            for arm in arms:
                run = Run(arm=arm, last_init=init, gamma_weight_decay=0.0 if arm == BASELINE else strength, seed=seed)
                found.setdefault(run.name, run)
    return list(found.values())
