from .decay.budget import DecayBudget, decay_budget
from .decay.groups import apply_lr_scale, check_ranks, param_groups
from .decay.policy import decide
from .decay.policy_state import PolicyState
from .errors import GammaRegError
from .graph.custom import add_op
from .graph.rows import Effect, OpRow
from .resume.matching import match_by_name
from .resume.plain import export_plain
from .resume.scheduler import fit_scheduler
from .roles.find import Analysis, analyse, find_gammas
from .roles.gammas import Gamma, GammaMap, Role
from .roles.measure import Measurement, verify
from .show.card import check_card, make_card, metric_results
from .show.page import Plan, write_page
from .show.report import write_report
from .trainer.arguments import GammaRegArguments
from .trainer.monitor import GammaMonitorCallback
from .trainer.trainer import GammaRegTrainer, GammaRegTrainerMixin
from .watch.history import plot_history, read_history
from .watch.monitor import GammaMonitor
from .watch.page import write_history_page

__version__: str
__all__ = [
    "Analysis",
    "DecayBudget",
    "Effect",
    "Gamma",
    "GammaMap",
    "GammaMonitor",
    "GammaMonitorCallback",
    "GammaRegArguments",
    "GammaRegError",
    "GammaRegTrainer",
    "GammaRegTrainerMixin",
    "Measurement",
    "OpRow",
    "Plan",
    "PolicyState",
    "Role",
    "__version__",
    "add_op",
    "analyse",
    "apply_lr_scale",
    "check_card",
    "check_ranks",
    "decay_budget",
    "decide",
    "export_plain",
    "find_gammas",
    "fit_scheduler",
    "make_card",
    "match_by_name",
    "metric_results",
    "param_groups",
    "plot_history",
    "read_history",
    "verify",
    "write_history_page",
    "write_page",
    "write_report",
]
