"""Allocation of channels to groups: goals, multiples, and who competes with whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosfm_edge.errors import UserError
from eosfm_edge.pruning.allocation import Group, allocate, removals
from eosfm_edge.pruning.elimination import Elimination

RANKINGS = ["uniform", "isomorphic", "global"]
EXACT = 1 + 1e-9


def group(
    name: str, kind: str, channels: int, scale: float, price: float = 1.0, gain: float = 1.0
) -> Group:
    """A group whose channels cost more from one to the next."""
    cost = tuple(scale * (i + 1) ** 2 / channels**2 for i in range(channels))
    elimination = Elimination(tuple(reversed(range(channels))), cost)
    return Group(name, kind, channels, elimination, price, (gain,) * 4)


@st.composite
def many_groups(draw: st.DrawFn, *, equal_prices: bool = False) -> list[Group]:
    """Groups of up to three kinds; those of a kind have one price, as blocks of a stage have."""
    found = []
    for kind in range(draw(st.integers(1, 3))):
        price = 1.0 if equal_prices else draw(st.sampled_from([0.25, 1.0, 3.0, 8.0]))
        channels = 8 * draw(st.integers(1, 12))
        for block in range(draw(st.integers(1, 3))):
            scale, gain = draw(st.floats(1e-6, 10)), draw(st.floats(0.1, 10))
            found.append(group(f"{kind}.{block}", str(kind), channels, scale, price, gain))
    return found


def spent(groups: Sequence[Group], kept: dict[str, int]) -> float:
    return sum(g.price * kept[g.name] for g in groups)


def everything(groups: Sequence[Group]) -> float:
    return sum(g.price * g.channels for g in groups)


def least(groups: Sequence[Group], align: int) -> float:
    return sum(g.price * min(align, g.channels) for g in groups)


def goal_of(groups: Sequence[Group], align: int, share: float) -> float:
    """A goal between the least that is possible and all."""
    lowest = least(groups, align)
    return lowest + share * (everything(groups) - lowest)


def harm(groups: Sequence[Group], kept: dict[str, int]) -> float:
    """The sum over levels of the squared error, which the ranking minimises."""
    levels = [
        sum(g.gain[level] * g.elimination.spent(g.channels - kept[g.name]) for g in groups)
        for level in range(4)
    ]
    return sum(error**2 for error in levels)


shares = st.floats(0, 0.999)
aligns = st.sampled_from([8, 16])


@settings(max_examples=100, deadline=None)
@given(many_groups(), shares, st.sampled_from(RANKINGS), aligns)
def test_goals_are_met_in_multiples(
    groups: list[Group], share: float, ranking: str, align: int
) -> None:
    goal = goal_of(groups, align, share)
    kept = allocate(groups, goal, ranking, align)  # type: ignore[arg-type]
    assert spent(groups, kept) <= goal * EXACT
    for g in groups:
        assert min(align, g.channels) <= kept[g.name] <= g.channels
        assert kept[g.name] % align == 0 or kept[g.name] == g.channels
        assert kept[g.name] % 8 == 0


@settings(max_examples=100, deadline=None)
@given(many_groups(), shares, aligns)
def test_global_takes_no_row_more_than_it_must(
    groups: list[Group], share: float, align: int
) -> None:
    goal = goal_of(groups, align, share)
    kept = allocate(groups, goal, "global", align)
    pruned = [g for g in groups if kept[g.name] < g.channels]
    assert all(g.channels == kept[g.name] for g in groups) or (
        spent(groups, kept) + max(g.price for g in pruned) * align > goal / EXACT
    )


def common_share_exists(parts: Sequence[Sequence[Group]], kept: dict[str, int], align: int) -> bool:
    """Return whether parts keep what one share of each allows, but for the last row."""
    low, high = 0.0, 1.0
    for part in parts:
        whole, used, row = everything(part), spent(part, kept), part[0].price * align
        if used > least(part, align):
            low = max(low, used / whole)
        if used < whole:
            high = min(high, (used + row) / whole)
    return low <= high * EXACT


@settings(max_examples=100, deadline=None)
@given(many_groups(), shares, aligns)
def test_uniform_takes_the_same_share_of_every_group(
    groups: list[Group], share: float, align: int
) -> None:
    kept = allocate(groups, goal_of(groups, align, share), "uniform", align)
    assert common_share_exists([[g] for g in groups], kept, align)


@settings(max_examples=100, deadline=None)
@given(many_groups(), shares, aligns)
def test_isomorphic_takes_the_same_share_of_every_kind(
    groups: list[Group], share: float, align: int
) -> None:
    kept = allocate(groups, goal_of(groups, align, share), "isomorphic", align)
    kinds = {g.kind: [h for h in groups if h.kind == g.kind] for g in groups}
    assert common_share_exists(list(kinds.values()), kept, align)


def test_who_competes_with_whom() -> None:
    cheap, dear = group("cheap", "a", 64, 1e-4), group("dear", "a", 64, 1.0)
    other = group("other", "b", 64, 1e-8)
    groups, goal = [cheap, dear, other], 96.0
    uniform = allocate(groups, goal, "uniform", 8)
    assert uniform == {"cheap": 32, "dear": 32, "other": 32}
    isomorphic = allocate(groups, goal, "isomorphic", 8)
    assert isomorphic == {"cheap": 8, "dear": 56, "other": 32}
    assert allocate(groups, goal, "global", 8) == {"cheap": 24, "dear": 64, "other": 8}


@settings(max_examples=100, deadline=None)
@given(many_groups(equal_prices=True), shares, aligns)
def test_global_is_never_worse_than_uniform(groups: list[Group], share: float, align: int) -> None:
    goal = goal_of(groups, align, share)
    best, uniform = (allocate(groups, goal, r, align) for r in ("global", "uniform"))
    assert harm(groups, best) <= harm(groups, uniform) * (1 + 1e-6)


def test_what_hurts_the_worst_level_is_spared() -> None:
    """Errors of one level add up before they are squared."""
    cost = Elimination(tuple(range(16)), (1.0,) * 16)
    first, same = (Group(n, "a", 16, cost, 1.0, (1.0, 0, 0, 0)) for n in ("first", "same"))
    other = Group("other", "a", 16, cost, 1.0, (0, 0, 0, 1.0))
    assert allocate([first, same, other], 32.0, "global", 8) in (
        {"first": 8, "same": 16, "other": 8},
        {"first": 16, "same": 8, "other": 8},
    )


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize(("align", "possible"), [(8, "12.5%"), (16, "25.0%")])
def test_a_goal_that_cannot_be_met_says_what_can(ranking: str, align: int, possible: str) -> None:
    groups = [group("a", "a", 64, 1.0), group("b", "b", 64, 1.0)]
    goal = 128 * (0.125 if align == 8 else 0.25)
    assert set(allocate(groups, goal, ranking, align).values()) == {align}  # type: ignore[arg-type]
    with pytest.raises(UserError) as error:
        allocate(groups, goal - 1, ranking, align)  # type: ignore[arg-type]
    assert f"at least {possible}, which is {align} channels in every block" in str(error.value)
    assert "--scope width" in str(error.value)


def test_the_first_in_their_order_go() -> None:
    groups = [group("a", "a", 16, 1.0), group("b", "b", 8, 1.0)]
    gone = removals(groups, {"a": 8, "b": 8})
    assert gone == {"a": tuple(range(8, 16)), "b": ()}
