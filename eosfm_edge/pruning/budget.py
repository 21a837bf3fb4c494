"""Budgets: the mildest pruning whose milliseconds, megabytes or fidelity are within one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.plan import Plan

_PRECISE = 0.01  # of the ratio
_MOST = 0.95


@dataclass(frozen=True)
class Tried:
    """A ratio that was tried, and what was measured of it."""

    ratio: float
    value: float


def search(
    budget: Budget,
    plan: Callable[[float], Plan],
    measure: Callable[[Plan], float],
    tell: Callable[[Tried], None] = lambda tried: None,
) -> tuple[Plan, Sequence[Tried]]:
    """Find the ratio that meets a budget, by halving.

    Milliseconds and megabytes ask for the smallest ratio that is within the budget, a fidelity for
    the largest that still is.

    Args:
        budget: the limit.
        plan: makes the plan of a ratio; raises UserError where so much cannot be removed.
        measure: milliseconds, megabytes (10^6 bytes) or the least cosine of the levels.
        tell: called with each attempt.

    Returns:
        The plan, and all attempts.

    Raises:
        CheckFailedError: no pruning meets it; says what was measured.
    """
    tried: list[Tried] = []

    def attempt(ratio: float) -> tuple[Plan, bool] | None:
        try:
            one = plan(ratio)
        except UserError:
            return None
        tried.append(Tried(ratio, measure(one)))
        tell(tried[-1])
        return one, budget.met_by(tried[-1].value)

    untouched = attempt(0.0)
    assert untouched is not None
    rising = budget.kind != "fidelity"  # whether more pruning brings it nearer
    if untouched[1] and rising:
        return untouched[0], tried
    best = None if rising else untouched[0] if untouched[1] else None
    low, high = 0.0, _MOST
    while high - low > _PRECISE:
        ratio = (low + high) / 2
        found = attempt(ratio)
        if found is not None and found[1]:
            best = found[0]
        # Too much to be planned is as bad as too little fidelity, and the other way round for size.
        if found is None or found[1] == rising:
            high = ratio
        else:
            low = ratio
    if best is None:
        raise CheckFailedError(
            f"no pruning meets the budget {budget}: "
            + ", ".join(f"{t.value:.4g} at ratio {t.ratio:.2f}" for t in tried),
            expected=str(budget),
            remedy="allow more, or prune the residual width (--scope width) or whole specialists "
            "(--specialists) too",
        )
    return best, tried
