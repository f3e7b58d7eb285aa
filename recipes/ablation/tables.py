"""The tables, in Markdown: every number in them follows from the JSON lines."""

import math
from collections.abc import Callable, Sequence

from ablation.arms import BASELINE
from ablation.comparisons import ENOUGH, Comparison, compare
from ablation.statistics import APPLY, MECHANISM, Cell, Estimate, Results

NONE = "–"
ROLE_HEADER = ["gammas", "exact", "guideline", "predicted", "measured", "mechanism", "accuracy, points", "verdict"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def points(found: Estimate | None, digits: int = 1) -> str:
    """A difference of shares, in percentage points with its interval.

    >>> points(Estimate(mean=0.0123, low=-0.001, high=0.02, n=5))
    '+1.2 [−0.1, +2.0]'
    """
    return _interval(found, lambda value: _signed(100 * value, digits))


def plain(found: Estimate | None, digits: int = 3) -> str:
    """A difference as it is, with its interval."""
    return _interval(found, lambda value: _signed(value, digits))


def factor(found: Estimate | None) -> str:
    """A difference of logarithms, as a factor with its interval.

    >>> factor(Estimate(mean=0.0, low=-0.1, high=0.1, n=5))
    '×1.00 [0.90, 1.11]'
    """
    return NONE if found is None else f"×{_interval(found, _size)}"


def _interval(found: Estimate | None, shown: Callable[[float], str]) -> str:
    return NONE if found is None else f"{shown(found.mean)} [{shown(found.low)}, {shown(found.high)}]"


def _size(logarithm: float) -> str:
    value = math.exp(logarithm) if logarithm < 700 else math.inf
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{value:.2g}"


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def cell_name(cell: Cell) -> str:
    """A strength of decay, and what the gains of role `last` start at.

    >>> cell_name((0.0, 5e-3))
    'decay 0.005, `last` starts at 0'
    """
    init, strength = cell
    return f"decay {strength:g}" + (f", `last` starts at {init:g}" if init is not None else "")


COMPARISON_HEADER = [
    "comparison",
    "pairs",
    "accuracy, points",
    "p",
    "would show",
    "test loss",
    "p",
    "would show",
    "decided",
]


def comparison_table(results: Results) -> str:
    """The comparisons that the settings name: accuracy and test loss, with the smallest differences they would show."""
    return table(COMPARISON_HEADER, comparison_rows(results))


def comparison_rows(results: Results) -> list[list[str]]:
    """The rows of `comparison_table`."""
    rows = []
    for hits, loss in zip(compare(results, "eval_accuracy"), compare(results, "eval_loss"), strict=True):
        pairs = hits.difference.n if hits.difference else 0
        said = [word for one, word in ((hits, "accuracy"), (loss, "test loss")) if one.decided]
        rows.append(
            [
                f"`{hits.name}`",
                str(pairs),
                *(points(hits.difference, 2), _p(hits), _shows(hits, pairs, 100, 2)),
                *(plain(loss.difference, 4), _p(loss), _shows(loss, pairs, 1, 4)),
                f"**{' and '.join(said)}**" if said else "not decided",
            ]
        )
    return rows


def _p(found: Comparison) -> str:
    return NONE if found.difference is None else f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001"


def _shows(found: Comparison, pairs: int, factor: float, digits: int) -> str:
    return NONE if pairs < ENOUGH else f"{factor * found.shows(pairs):.{digits}f}"


def role_table(results: Results) -> str:
    """By role what decay on it alone moved at the main strength, and the two verdicts."""
    return table(["role", *ROLE_HEADER], role_rows(results))


def role_rows(results: Results) -> list[list[str]]:
    """The rows of `role_table`."""
    cell, rows = results.main, []
    for role in results.roles:
        members = results.network.gammas.by_role(role)
        says = "decay" if role in APPLY else "no decay"
        quantity = f"{MECHANISM[role][0]} {'up' if MECHANISM[role][1] > 0 else 'down'}" if role in MECHANISM else NONE
        mechanism, accuracy = results.verdicts(role, cell)
        moved, gained = results.mechanism(role, cell), results.difference(str(role), cell, "eval_accuracy")
        exact = sum(gamma.exact for gamma in members)
        row = [f"`{role}`", str(len(members)), str(exact), says, quantity, factor(moved), f"**{mechanism}**"]
        rows.append([*row, points(gained), f"**{accuracy}**"])
    return rows


def arm_table(results: Results, cell: Cell) -> str:
    """By arm what moved: mean paired differences to `none`, with intervals."""
    rows = []
    for arm, same in results.network.same_as.items():
        count = len(results.network.decaying(arm))
        if same == BASELINE:
            shown = [NONE, NONE, NONE, "no such gamma: as `none`", NONE, NONE]
            if arm == BASELINE:
                base, *losses = (results.baseline(cell, key) for key in ("eval_accuracy", "eval_loss", "train_loss"))
                shown[3] = f"{base.mean:.1%} [{base.low:.1%}, {base.high:.1%}] correct" if base else NONE
                shown[4:] = [f"{loss.mean:.3f}" if loss else NONE for loss in losses]
            rows.append([f"`{arm}`", str(count), *shown])
            continue
        if same != arm:
            rows.append([f"`{arm}`", str(count), NONE, NONE, NONE, f"the same gammas as `{same}`", NONE, NONE])
            continue
        rows.append(
            [
                f"`{arm}`",
                str(count),
                factor(results.gamma_size(arm, cell)),
                factor(results.branch_to_skip(arm, cell)),
                factor(results.effective_lr(arm, cell)),
                points(results.difference(arm, cell, "eval_accuracy")),
                plain(results.difference(arm, cell, "eval_loss")),
                plain(results.difference(arm, cell, "train_loss")),
            ]
        )
    header = [
        "arm",
        "gammas that decay",
        "their size",
        "branch / skip",
        "effective lr",
        "accuracy, points",
        "test loss",
        "training loss",
    ]
    return table(header, rows)


def strength_table(results: Results) -> str:
    """Accuracy of every arm at each strength and initialisation, and what decay alone does to a gamma."""
    found = results.cells
    header, alone = ["arm"], ["decay alone leaves"]
    for cell in found:
        header.append(cell_name(cell))
        records = [run for arm in results.network.arms for run, _ in results.pairs(arm, cell)]
        left = next((run["decay_alone"] for run in records if run["arm"] != BASELINE), None)
        alone.append(NONE if left is None else f"×{left:.2g}" if left < 0.1 else f"×{left:.2f}")
    rows = [alone]
    for arm in results.network.arms:
        if arm != BASELINE:
            rows.append([f"`{arm}`", *(points(results.difference(arm, cell, "eval_accuracy")) for cell in found)])
            rows.append(["— size of its gammas", *(factor(results.gamma_size(arm, cell)) for cell in found)])
    return table(header, rows)


def verdict_table(results: Results) -> str:
    """The two verdicts on each role, at each strength and initialisation: mechanism / accuracy."""
    found = results.cells
    header = ["role", *map(cell_name, found)]
    rows = [[f"`{role}`", *(" / ".join(results.verdicts(role, cell)) for cell in found)] for role in results.roles]
    return table(header, rows)
