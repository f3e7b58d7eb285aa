from .decay.budget import DecayBudget, decay_budget
from .decay.groups import apply_lr_scale, param_groups
from .decay.policy_state import PolicyState
from .errors import GammaRegError
from .resume.matching import fit_scheduler, match_by_name
from .roles.find import find_gammas
from .roles.gammas import Gamma, GammaMap, Role
from .roles.measure import Measurement, verify
from .trainer.monitor import GammaMonitorCallback
from .trainer.trainer import GammaRegArguments, GammaRegTrainer, GammaRegTrainerMixin
from .watch.monitor import GammaMonitor

__version__: str
__all__ = [
    "DecayBudget",
    "Gamma",
    "GammaMap",
    "GammaMonitor",
    "GammaMonitorCallback",
    "GammaRegArguments",
    "GammaRegError",
    "GammaRegTrainer",
    "GammaRegTrainerMixin",
    "Measurement",
    "PolicyState",
    "Role",
    "__version__",
    "apply_lr_scale",
    "decay_budget",
    "find_gammas",
    "fit_scheduler",
    "match_by_name",
    "param_groups",
    "verify",
]
