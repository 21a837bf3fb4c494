"""The search among candidates: the next to try, the one to take, the front of those tried.

What a candidate costs is known before it is made; what it leaves of the features only after. So few
are made: within budgets of cost the mildest pruning of each precision is the most faithful, and for
budgets of fidelity alone the strongest pruning that keeps them is found by halving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from eosfm_edge.deploying.device import PRECISIONS
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.deploy import DeployCandidate

Candidates = Sequence[DeployCandidate]


@dataclass(frozen=True)
class Limits:
    """The limits that a deployment must meet.

    Attributes:
        budgets: of cost and of fidelity, one of each kind at most.
        max_drop: the percentage of a level's cells that a probe may label otherwise.
    """

    budgets: tuple[Budget, ...]
    max_drop: float | None = None

    @property
    def costs(self) -> tuple[Budget, ...]:
        """The budgets of milliseconds, megabytes and millijoules."""
        return tuple(one for one in self.budgets if one.kind != "fidelity")

    @property
    def of_fidelity(self) -> bool:
        """True if fidelity is limited."""
        return self.max_drop is not None or len(self.costs) < len(self.budgets)

    def affordable(self, candidate: DeployCandidate) -> bool:
        """Return whether a candidate is within the budgets of cost, and no check of it failed."""
        return candidate.failed is None and all(map(candidate.meets, self.costs))

    def met_by(self, candidate: DeployCandidate) -> bool:
        """Return whether a candidate was tried and meets everything."""
        if candidate.cosine is None or not self.affordable(candidate):
            return False
        if not all(map(candidate.meets, self.budgets)):
            return False
        return self.max_drop is None or (
            candidate.drop is not None and candidate.drop <= self.max_drop
        )


def to_try(candidates: Candidates, limits: Limits) -> list[DeployCandidate]:
    """Return the candidates that are to be tried, in order; none if the best one was.

    Those after the first are what is known now: what comes of the first may spare them, or ask for
    others.

    Args:
        candidates: every ratio in every precision.
        limits: to be met.
    """
    return list((_mildest if limits.costs else _strongest)(candidates, limits))


def _mildest(candidates: Candidates, limits: Limits) -> Iterator[DeployCandidate]:
    """Give the mildest pruning of each precision that is within the costs, if it was not tried.

    One that is pruned no less than one of a wider precision is less faithful in both.
    """
    mildest = 1.0
    for mine in _by_precision(candidates):
        one = next((one for one in mine if limits.affordable(one)), None)
        if one is None or one.ratio >= mildest:
            continue
        mildest = one.ratio
        if one.cosine is None:
            yield one


def _strongest(candidates: Candidates, limits: Limits) -> Iterator[DeployCandidate]:
    """Give for each precision what halves the ratios between the faithful and the unfaithful.

    A ratio at which a wider precision is not faithful is too much for a narrower one.
    """
    too_much, wider = 1.0, False
    for mine in _by_precision(candidates):
        mine = [one for one in mine if one.ratio < too_much]
        tried = [place for place, one in enumerate(mine) if one.cosine is not None or one.failed]
        faithful = [place for place in tried if limits.met_by(mine[place])]
        low = max(faithful, default=-1)
        high = min((place for place in tried if place > low), default=len(mine))
        if high < len(mine):
            too_much = mine[high].ratio
        if high - low > 1:
            # Most often a narrower precision is faithful wherever the wider one is.
            yield mine[high - 1 if wider and not tried else (low + high) // 2]
        wider = True


def _by_precision(candidates: Candidates) -> Iterator[list[DeployCandidate]]:
    """Give the candidates of each precision, mildest first, from the widest precision on."""
    for precision in PRECISIONS:
        mine = [one for one in candidates if one.precision == precision]
        if mine:
            yield sorted(mine, key=lambda one: one.ratio)


def best(candidates: Candidates, limits: Limits) -> DeployCandidate | None:
    """Return the candidate to take: the most faithful one, or with fidelity alone the fastest.

    Where speed is not known the smallest is taken for the fastest.
    """
    good = [one for one in candidates if limits.met_by(one)]
    if not good:
        return None
    if limits.costs:
        return max(good, key=lambda one: (one.cosine or 0.0, -one.size))
    return min(good, key=_speed_and_size)


def front(candidates: Candidates) -> list[DeployCandidate]:
    """Return those that were tried and no other beats in ms, MB and fidelity, fastest first."""
    tried = [one for one in candidates if one.cosine is not None and one.failed is None]
    good = [one for one in tried if not any(_beats(other, one) for other in tried)]
    return sorted(good, key=_speed_and_size)


def _beats(one: DeployCandidate, other: DeployCandidate) -> bool:
    """Return whether one is as good in everything, and better in something."""
    mine, others = _merits(one), _merits(other)
    return mine != others and all(a <= b for a, b in zip(mine, others, strict=True))


def _merits(one: DeployCandidate) -> tuple[float, float, float]:
    return *_speed_and_size(one), -(one.cosine or 0.0)


def _speed_and_size(one: DeployCandidate) -> tuple[float, float]:
    """Return milliseconds and bytes; a speed that is not known is none to prefer."""
    return one.milliseconds or inf, float(one.size)


def nearest(candidates: Candidates, limits: Limits) -> list[str]:
    """Return for each limit the candidate that comes nearest to it, and how near, in words."""
    usable = [one for one in candidates if one.failed is None]
    found = []
    for budget in limits.budgets:
        known = [(value, one) for one in usable if (value := one.value(budget.kind)) is not None]
        if known:
            pick = max if budget.kind == "fidelity" else min
            value, one = pick(known, key=lambda pair: pair[0])
            found.append(f"{budget}: {value:.4g} by {one.name}")
    drops = [(one.drop, one) for one in usable if one.drop is not None]
    if limits.max_drop is not None and drops:
        drop, one = min(drops, key=lambda pair: pair[0])
        found.append(f"a drop of {limits.max_drop:g} %: {drop:.3g} by {one.name}")
    return found
