"""From roles to decisions: which gammas weight decay touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from hf_gammareg.errors import GammaRegError, alike, some
from hf_gammareg.roles.gammas import GammaMap, Role

if TYPE_CHECKING:  # a policy's name is looked at before torch is loaded
    from torch import nn

Rule = Callable[[GammaMap, "nn.Module"], set[str]]
"""A named policy: from a model and its gammas to the names of those that decay."""

Policy = str | Iterable[str] | Rule
"""How a policy is given: its name, or the names of roles, or a rule."""


def guidelines(gammas: GammaMap, model: nn.Module) -> set[str]:
    """Decay `last` and `absorbed` gammas and no others.

    Source: this library's reading of Kim et al., "Guidelines for the Regularization of Gammas in Batch
    Normalization for Deep Residual Networks", ACM TIST 2024 (doi 10.1145/3643860). Decay on `last` shrinks the
    residual branch (variance control); decay on `absorbed` keeps its effective learning rate up.
    """
    return {gamma.name for gamma in gammas.by_role(Role.LAST, Role.ABSORBED)}


def every(gammas: GammaMap, model: nn.Module) -> set[str]:
    """Decay every gamma, those of unknown role too. Source: what `torch.optim` does with `model.parameters()`."""
    return set(gammas.names)


def none(gammas: GammaMap, model: nn.Module) -> set[str]:
    """Decay no gamma. Source: the habit of leaving normalization layers out of weight decay."""
    return set()


def trainer(gammas: GammaMap, model: nn.Module) -> set[str]:
    """Decay what plain `transformers.Trainer` decays, asked of the installed version itself.

    Source: `Trainer.get_decay_parameter_names`: everything but `nn.LayerNorm` and names that look like a norm.
    """
    from hf_gammareg.model.layouts import decayed_by_trainer

    return set(gammas.names) & decayed_by_trainer(model)


def timm(gammas: GammaMap, model: nn.Module) -> set[str]:
    """Decay what plain timm decays with its default `filter_bias_and_bn=True`, asked of the installed version itself.

    Source: `timm.optim.param_groups_weight_decay`: everything of two dimensions or more that the model's
    `no_weight_decay()` does not list.
    """
    from hf_gammareg.model.layouts import decayed_by_timm

    return set(gammas.names) & decayed_by_timm(model)


def iwd(gammas: GammaMap, model: nn.Module) -> set[str]:
    """Decay the gammas of input norms; not those of output norms, nor of q/k norms and others whose role is `gate`.

    An input norm is one that a weight layer reads before the next residual add (`Gamma.placement`), the one before a
    model's head included; an output norm reaches the add directly. Gammas of unknown role do not decay.

    Source: Wang et al., "Negligible in Size, Significant in Effect: On Scale Vectors in Large Language Models", arXiv
    2605.26895. Only its abstract was known when this was written: weight decay on scale vectors helps input norms and
    harms output norms. Which norm is which, and that q/k norms are neither, is this library's reading.
    """
    return {g.name for g in gammas if g.placement == "input" and g.role not in (Role.GATE, Role.UNKNOWN)}


def qwen3_next(gammas: GammaMap, model: nn.Module) -> set[str]:
    """Decay what `guidelines` decays, q/k norms and others whose role is `gate`, and every zero-centred gamma.

    Source: Qwen3-Next, which multiplies by 1 + w in its norms, q/k norms included, and lets weight decay act on w so
    that the gains of q/k norms do not grow without bound. Where a model has no zero-centred norms, that the q/k norms
    decay beside those of `guidelines` is this library's reading.
    """
    zero_centered = {gamma.name for gamma in gammas if gamma.zero_centered}
    return guidelines(gammas, model) | zero_centered | {gamma.name for gamma in gammas.by_role(Role.GATE)}


POLICIES: dict[str, Rule] = {
    "guidelines": guidelines,
    "all": every,
    "none": none,
    "trainer": trainer,
    "timm": timm,
    "iwd": iwd,
    "qwen3_next": qwen3_next,
}
"""The named policies."""


def find_rule(policy: Policy) -> Rule:
    """Turn a policy's name, or the names of roles, into a rule.

    Args:
        policy: a key of `POLICIES`, or role names (`"last,absorbed"` or `["last", "absorbed"]`), or a rule itself.

    Raises:
        GammaRegError: for any other name.
    """
    if isinstance(policy, str) and policy in POLICIES:
        return POLICIES[policy]
    if callable(policy):
        return policy
    given = policy.split(",") if isinstance(policy, str) else policy if isinstance(policy, Iterable) else [policy]
    names = [str(name).strip() for name in given]
    wrong = [name for name in names if name not in list(Role)]
    if wrong or not names:
        near = "".join(alike(name, (*POLICIES, *Role)) for name in wrong)
        raise GammaRegError(
            f"Expected a policy ({', '.join(POLICIES)}) or roles separated by commas ({', '.join(Role)}), "
            f"found {some(wrong) if names else 'nothing'}. {near}Use one of these names; "
            "'none' decays no gamma."
        )
    roles = [Role(name) for name in names]
    return lambda gammas, model: {gamma.name for gamma in gammas.by_role(*roles)}


def policy_name(policy: Policy) -> str:
    """A policy as one string, for reports and checkpoints.

    >>> policy_name(["last", "absorbed"])
    'last,absorbed'
    """
    if callable(policy):
        rule = policy.func if isinstance(policy, partial) else policy
        return getattr(rule, "__name__", type(rule).__name__)
    return policy if isinstance(policy, str) else ",".join(policy)


def decide(
    gammas: GammaMap,
    model: nn.Module,
    policy: Policy = "guidelines",
    *,
    gamma_decay: Sequence[str] = (),
    gamma_no_decay: Sequence[str] = (),
) -> dict[str, bool]:
    """Decide for each gamma whether weight decay touches it.

    Args:
        gammas: the model's gammas, from `find_gammas`.
        model: the model itself; the policies `trainer` and `timm` look at its modules and shapes.
        policy: a named policy, role names or a rule (see `find_rule`).
        gamma_decay: glob patterns on parameter names (`"*.bn1.weight"`) of gammas that decay whatever the policy says.
        gamma_no_decay: the same for gammas that do not decay.

    Returns:
        `{parameter name: decays}` in model order.

    Raises:
        GammaRegError: unknown policy or role; a rule that names what is no gamma; a pattern that matches none; a gamma
            matched by both lists.
    """
    chosen = set(find_rule(policy)(gammas, model))
    if strays := chosen - set(gammas.names):
        raise GammaRegError(
            f"Expected the policy to name gammas of this model, found {some(strays)}. It has {some(gammas.names)}; let "
            "the rule return some of gammas.names."
        )
    forced_in, forced_out = (
        _matches(gammas, gamma_decay, "gamma_decay"),
        _matches(gammas, gamma_no_decay, "gamma_no_decay"),
    )
    if both := forced_in & forced_out:
        raise GammaRegError(
            f"Expected each gamma in one of the pattern lists at most, found {some(both)} in both `gamma_decay` "
            "and `gamma_no_decay`. Make one of the patterns narrower."
        )
    return {name: name not in forced_out and (name in forced_in or name in chosen) for name in gammas.names}


def _matches(gammas: GammaMap, patterns: Sequence[str], option: str) -> set[str]:
    if isinstance(patterns, str):
        patterns = [patterns]
    matched: set[str] = set()
    for pattern in patterns:
        hits = {name for name in gammas.names if fnmatchcase(name, pattern)}
        if not hits:
            raise GammaRegError(
                f"Expected every pattern in `{option}` to match the name of a gamma, found {pattern!r}, which matches "
                f"none of {some(gammas.names)}. Correct it or leave it out."
            )
        matched |= hits
    return matched
