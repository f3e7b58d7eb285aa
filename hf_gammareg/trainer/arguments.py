"""The options for gammas, as arguments of a Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_gammareg.decay.groups import check_strength
from hf_gammareg.decay.policy import find_rule, policy_name
from hf_gammareg.errors import GammaRegError


@dataclass
class GammaRegArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the options for gammas; made for `HfArgumentParser` too.

    >>> GammaRegArguments("out", gamma_policy="last,absorbed", gamma_no_decay=["*.bn1.weight"]).gamma_no_decay
    ['*.bn1.weight']

    Raises:
        GammaRegError: an unknown policy, a strength that is negative or not finite, patterns that are no strings.
    """

    gamma_policy: str = field(
        default="guidelines",
        metadata={
            "help": "Which normalization gains (gammas) weight decay touches: guidelines (those at the end of a "
            "residual branch and those that a later normalization absorbs), all, none, trainer or timm (what those "
            "two do by themselves), iwd, qwen3_next, or roles separated by commas, such as last,absorbed."
        },
    )
    gamma_weight_decay: float | None = field(
        default=None,
        metadata={"help": "Weight decay of the gammas that decay. Default: the run's --weight_decay."},
    )
    gamma_decay: list[str] | None = field(
        default=None,
        metadata={"help": "Glob patterns of gammas that decay whatever the policy says, such as *.bn1.weight."},
    )
    gamma_no_decay: list[str] | None = field(
        default=None,
        metadata={"help": "Glob patterns of gammas that do not decay whatever the policy says."},
    )
    gamma_page: bool = field(
        default=False,
        metadata={"help": "Leave gamma_page.html beside gamma_report.json: the network by role, every gamma, why."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        find_rule(self.gamma_policy)
        self.gamma_policy = policy_name(self.gamma_policy)
        self.weight_decay = check_strength("weight_decay", self.weight_decay)
        if self.gamma_weight_decay is not None:
            self.gamma_weight_decay = check_strength("gamma_weight_decay", self.gamma_weight_decay)
        for option in ("gamma_decay", "gamma_no_decay"):
            patterns = getattr(self, option)
            patterns = [patterns] if isinstance(patterns, str) else patterns
            if not isinstance(patterns, list | None) or not all(isinstance(entry, str) for entry in patterns or ()):
                raise GammaRegError(
                    f"Expected `{option}` to be a list of patterns such as ['*.bn1.weight'], found {patterns!r}. "
                    "Correct it."
                )
            setattr(self, option, patterns)
