"""Budgets as they are written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm_edge.errors import UserError
from eosfm_edge.formats.budget import EVERY_KIND, Budget, Kind, parse_budget, parse_budgets

costs = st.builds(
    Budget,
    st.sampled_from([kind for kind in EVERY_KIND if kind != "fidelity"]),
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)
fidelities = st.builds(
    Budget, st.just("fidelity"), st.floats(min_value=0, max_value=1, exclude_min=True)
)
budgets = costs | fidelities


@given(budgets)
def test_every_budget_is_read_as_it_is_written(budget: Budget) -> None:
    assert parse_budget(str(budget)) == budget


@given(st.lists(budgets, unique_by=lambda b: b.kind), st.integers(0, 4))
def test_several_are_read_from_one_text_or_many(found: list[Budget], cut: int) -> None:
    texts = [",".join(map(str, part)) for part in (found[:cut], found[cut:]) if part]
    assert parse_budgets(texts) == tuple(found)
    assert parse_budgets([", ".join(map(str, found))] if found else []) == tuple(found)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        budget = parse_budget(text)
    except UserError as error:
        assert "40ms, 5MB, 300mJ or fidelity=0.98" in str(error)
        return
    assert math.isfinite(budget.limit) and budget.limit > 0
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("text", ["40ms,", ",", "", "40ms;5MB", "40ms,fast", "1" * 400 + "ms"])
def test_a_list_with_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="the budget is"):
        parse_budgets([text])


def test_two_of_a_kind_are_refused() -> None:
    with pytest.raises(UserError, match="two budgets are of one kind: 40ms and 50ms"):
        parse_budgets(["40ms,5MB", "50ms"])


@pytest.mark.parametrize(
    ("kind", "limit", "within", "beyond"),
    [("ms", 40.0, 40.0, 40.1), ("MB", 5.0, 4.9, 5.1), ("mJ", 3.0, 0.1, 4.0),
     ("fidelity", 0.98, 0.98, 0.979)],
)  # fmt: skip
def test_what_is_not_a_number_meets_nothing(
    kind: Kind, limit: float, within: float, beyond: float
) -> None:
    budget = Budget(kind, limit)
    assert budget.met_by(within) and not budget.met_by(beyond)
    assert not budget.met_by(math.nan)
