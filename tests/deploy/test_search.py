"""The search among candidates, and the Pareto front, on figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eosfm_edge.deploying.search import Limits, best, front, nearest, to_try
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.deploy import DeployCandidate
from eosfm_edge.formats.precision import Precision

RATIOS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
WIDE_TO_NARROW: tuple[Precision, ...] = ("fp32", "bf16", "int8")


@st.composite
def worlds(draw: st.DrawFn) -> list[DeployCandidate]:
    """Draw what every candidate would be found to be, if it was tried.

    More pruning is faster, smaller and less faithful, and a narrower precision is less faithful.
    How a precision's speed and size compare with another's is anything.
    """
    shares = st.floats(0.5, 0.95)
    lost = 0.0
    found = []
    for precision in WIDE_TO_NARROW:
        lost += draw(st.floats(0.001, 0.05))
        ms, size = draw(st.floats(1, 100)), draw(st.integers(10**5, 10**8))
        steps = [draw(shares) for _ in RATIOS]
        for place, ratio in enumerate(RATIOS):
            found.append(
                DeployCandidate(
                    ratio=ratio,
                    precision=precision,
                    milliseconds=ms,
                    size=size,
                    cosine=1 - lost - 0.1 * ratio,
                    drop=100 * (lost + ratio / 2),
                )
            )
            ms, size = ms * steps[place], int(size * steps[place])
    return found


def searched(
    world: Sequence[DeployCandidate], limits: Limits
) -> tuple[DeployCandidate | None, list[DeployCandidate]]:
    """Search a world of which only the costs are known at first; returns what was tried too."""
    unknown = {"cosine": None, "drop": None}
    known = [one.model_copy(update=unknown) for one in world]
    tried: list[DeployCandidate] = []
    while left := to_try(known, limits):
        place = known.index(left[0])
        assert known[place] not in tried
        known[place] = world[place]
        tried.append(world[place])
    return best(known, limits), tried


kinds = st.sampled_from(["ms", "MB"])


@settings(deadline=None)
@given(worlds(), st.data())
def test_within_costs_the_most_faithful_of_all_is_found(
    world: list[DeployCandidate], data: st.DataObject
) -> None:
    budgets = []
    for kind in data.draw(st.sets(kinds, min_size=1)):
        values = [value for one in world if (value := one.value(kind)) is not None]
        budgets.append(Budget(kind, data.draw(st.floats(min(values), max(values)))))
    if data.draw(st.booleans()):
        budgets.append(Budget("fidelity", data.draw(st.floats(0.7, 1))))
    limits = Limits(tuple(budgets), data.draw(st.none() | st.floats(0, 60)))
    found, tried = searched(world, limits)
    good = [one for one in world if limits.met_by(one)]
    assert (found is None) == (not good)
    if found:
        assert found.cosine == max(one.cosine or 0 for one in good)
    assert len(tried) <= len(WIDE_TO_NARROW)
    # Each is pruned less than those of wider precisions: else it could not be more faithful.
    assert all(one.ratio > other.ratio for one, other in pairwise(tried))


@settings(deadline=None)
@given(worlds(), st.floats(0.7, 1), st.none() | st.floats(0, 60))
def test_for_fidelity_the_fastest_of_all_is_found(
    world: list[DeployCandidate], limit: float, max_drop: float | None
) -> None:
    limits = Limits((Budget("fidelity", limit),), max_drop)
    found, tried = searched(world, limits)
    good = [one for one in world if limits.met_by(one)]
    assert (found is None) == (not good)
    if found:
        assert found.milliseconds == min(one.milliseconds or 0 for one in good)
    # Halving seven takes three, after the first guess of a narrower precision.
    assert len(tried) <= 4 * len(WIDE_TO_NARROW) - 1


@given(worlds(), st.data())
def test_the_front_holds_what_nothing_beats(
    world: list[DeployCandidate], data: st.DataObject
) -> None:
    some = data.draw(st.lists(st.sampled_from(world), min_size=1, unique_by=id))

    def merits(one: DeployCandidate) -> tuple[float, float, float]:
        return one.milliseconds or 0.0, one.size, -(one.cosine or 0.0)

    def as_good(one: DeployCandidate, other: DeployCandidate) -> bool:
        return all(a <= b for a, b in zip(merits(one), merits(other), strict=True))

    found = front(some)
    for one in found:
        assert not any(as_good(o, one) and merits(o) != merits(one) for o in some)
    for one in some:
        assert any(as_good(o, one) for o in found)
    assert [one.milliseconds for one in found] == sorted(one.milliseconds or 0 for one in found)


@given(worlds())
def test_what_was_not_tried_or_failed_is_not_on_the_front(world: list[DeployCandidate]) -> None:
    assert not front([one.model_copy(update={"cosine": None}) for one in world])
    assert not front([one.model_copy(update={"failed": "a check"}) for one in world])


@settings(deadline=None)
@given(worlds(), st.data())
def test_another_is_taken_where_the_checks_of_one_fail(
    world: list[DeployCandidate], data: st.DataObject
) -> None:
    limits = Limits((Budget("MB", max(one.size for one in world) / 1e6),))
    first, _ = searched(world, limits)
    assume(first is not None)
    assert first is not None
    failed = first.model_copy(update={"failed": "a check"})
    second, _ = searched([failed if one is first else one for one in world], limits)
    assert second is None or (second.cosine or 0) < (first.cosine or 0)


def test_a_speed_that_is_not_known_meets_no_budget_and_is_no_advantage() -> None:
    known = DeployCandidate(
        ratio=0.0, precision="fp32", milliseconds=9.0, size=10, cosine=1.0, drop=0.0
    )
    unknown = known.model_copy(update={"precision": "bf16", "milliseconds": None})
    assert not Limits((Budget("ms", 10.0),)).met_by(unknown)
    assert best([unknown, known], Limits((Budget("fidelity", 0.9),))) is known
    assert front([unknown, known]) == [known]


def test_the_nearest_to_each_budget_are_named() -> None:
    small = DeployCandidate(ratio=0.75, precision="int8", milliseconds=9.0, size=3_000_000)
    fast = DeployCandidate(
        ratio=0.5, precision="fp32", milliseconds=5.0, size=9_000_000, cosine=0.9, drop=7.0
    )
    limits = Limits((Budget("ms", 1.0), Budget("MB", 1.0), Budget("fidelity", 1.0)), 2.0)
    assert nearest([small, fast], limits) == [
        "1ms: 5 by fp32 pruned by 0.5",
        "1MB: 3 by int8 pruned by 0.75",
        "fidelity=1: 0.9 by fp32 pruned by 0.5",
        "a drop of 2 %: 7 by fp32 pruned by 0.5",
    ]
