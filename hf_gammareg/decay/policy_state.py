"""What a checkpoint keeps of the policy: roles and decisions, compared when a run is resumed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from hf_gammareg.decay.policy import Policy, policy_name
from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.roles.gammas import GammaMap

logger = logging.getLogger(__name__)


class PolicyState:
    """The policy of a run, for `accelerator.register_for_checkpointing`: saved with the rest, compared on resume.

    >>> from torch import nn
    >>> import torch
    >>> from hf_gammareg import find_gammas
    >>> gammas = find_gammas(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), torch.ones(1, 2))
    >>> saved = PolicyState(gammas, {"1.weight": False}, "guidelines").state_dict()
    >>> PolicyState(gammas, {"1.weight": True}, "all", say=print).load_state_dict(saved)
    The checkpoint's policy was guidelines, this run's is all; now decaying: '1.weight'.

    Args:
        gammas: the gammas of the model.
        decays: `{parameter name: decays}`, from `hf_gammareg.decay.policy.decide`.
        policy: the policy that decided.
        say: told what differs.
    """

    def __init__(
        self,
        gammas: GammaMap,
        decays: Mapping[str, bool],
        policy: Policy = "guidelines",
        *,
        say: Callable[[str], None] = logger.warning,
    ) -> None:
        self.policy = policy_name(policy)
        self.gammas = {
            gamma.name: {"role": str(gamma.role), "decays": decays[gamma.name] and gamma.trainable} for gamma in gammas
        }
        self.say = say

    def state_dict(self) -> dict[str, Any]:
        """Policy, roles and decisions, in plain types."""
        return {"policy": self.policy, "gammas": self.gammas}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare with what a checkpoint holds; what differs is said, and this run's policy stays.

        Raises:
            GammaRegError: if the checkpoint is of another model, or holds something else.
        """
        if said := difference(state, self.state_dict()):
            self.say(said)


def difference(saved: Any, now: Mapping[str, Any]) -> str:
    """What differs between two policies' states, as a sentence; empty if nothing does.

    Raises:
        GammaRegError: if they are not of the same gammas.
    """
    gammas = saved.get("gammas") if isinstance(saved, Mapping) else None
    if not isinstance(gammas, Mapping) or not all(isinstance(g, Mapping) and "decays" in g for g in gammas.values()):
        raise GammaRegError(
            "Expected the policy that the run to be resumed had, with its gammas and their decisions, found none that "
            "can be read. Resume from another checkpoint, or start anew from its weights."
        )
    if gammas.keys() != now["gammas"].keys():
        others = some(gammas.keys() ^ now["gammas"].keys())
        raise GammaRegError(
            f"Expected a checkpoint of a model with the same {len(now['gammas'])} gammas, found one with "
            f"{len(gammas)}; only one of the two has {others}. Resume with the model that it was saved from."
        )
    changed = {
        "now decaying": [n for n, g in now["gammas"].items() if g["decays"] and not gammas[n]["decays"]],
        "no longer decaying": [n for n, g in now["gammas"].items() if gammas[n]["decays"] and not g["decays"]],
        "of another role": [n for n, g in now["gammas"].items() if g["role"] != gammas[n].get("role")],
    }
    parts = [f"{what}: {some(names)}" for what, names in changed.items() if names]
    if not parts:
        return ""
    before, after = saved.get("policy"), now["policy"]
    policies = f"The checkpoint's policy was {before}, this run's is {after}" if before != after else f"Policy {after}"
    return f"{policies}; {'; '.join(parts)}."
