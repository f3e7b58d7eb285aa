"""Weight decay on normalization gains (gammas), by the role each plays in the residual network.

    import hf_gammareg
    print(hf_gammareg.find_gammas(model))
    groups = hf_gammareg.param_groups(model, weight_decay=0.05)

The method, in import order: `errors`, `gammas` (records), `ops` (what each op does to a scale, and why), `graph`,
`program` and `capture` (model to graph), `scale` (how a factor passes an op), `residual` (where branch and skip
meet), `sites` (where a gamma multiplies), `roles` (graph to roles), `policy` (roles to decisions), `groups`
(decisions to optimizer groups), then the front doors `trainer` and `timm`.

Beside it: `decay` and `budget` (what decay is going to do), `matching` and `policy_state` (resuming), `ranks` and
`partitioned` (several processes), `measure` (roles measured instead of derived).
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_HOME = {
    "DecayBudget": "decay.budget",
    "decay_budget": "decay.budget",
    "GammaRegError": "errors",
    "Gamma": "roles.gammas",
    "GammaMap": "roles.gammas",
    "Role": "roles.gammas",
    "apply_lr_scale": "decay.groups",
    "find_gammas": "roles.walk",
    "param_groups": "decay.groups",
    "GammaMonitor": "watch.monitor",
    "GammaMonitorCallback": "trainer.monitor",
    "Measurement": "roles.measure",
    "verify": "roles.measure",
    "GammaRegArguments": "trainer.arguments",
    "PolicyState": "decay.policy_state",
    "fit_scheduler": "resume.matching",
    "match_by_name": "resume.matching",
    "GammaRegTrainer": "trainer.trainer",
    "GammaRegTrainerMixin": "trainer.trainer",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    # Looked up on first use, so that `import hf_gammareg` pulls in neither timm nor transformers.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
