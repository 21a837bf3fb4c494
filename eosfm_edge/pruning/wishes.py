"""Check what pruning was asked for, without torch: before anything heavy is loaded."""

from __future__ import annotations

from eosfm_edge.errors import UserError

WISHES = "--ratio 0.5, --budget 40ms, --specialists 4 or --plan FILE"


def require_one_wish(ratio: object, budget: object, plan: object, whole: object) -> None:
    """Check that there is something to prune, and no two wishes that contradict each other.

    Args:
        ratio: the share that goes; None: not given, as for the others.
        budget: what must be met.
        plan: to be replayed.
        whole: which specialists go as a whole.

    Raises:
        UserError: nothing is wished for, a ratio and a budget, or a plan and anything else.
    """
    if ratio is budget is plan is whole is None:
        raise UserError("nothing to prune was given", expected=WISHES)
    if ratio is not None and budget is not None:
        raise UserError("a ratio and a budget are given", expected="one of them")
    if plan is not None and not (ratio is budget is whole is None):
        raise UserError(
            "a plan is given, and what to prune as well",
            expected="--plan alone: the plan says what goes, and by which recipe",
        )
