"""Fidelity where there is nothing to divide by."""

from __future__ import annotations

import math

import pytest
import torch

from eosfm_edge.network.fidelity import Closeness


def closeness(original: float, other: float) -> Closeness:
    found = Closeness()
    for _ in range(2):
        found.add(torch.full((3, 4), original), torch.full((3, 4), other))
    return found


def test_a_tenth_of_a_difference_is_20_decibels() -> None:
    found = closeness(10.0, 9.0)
    assert found.sqnr_db == pytest.approx(20)
    assert found.cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("original", "other", "expected"),
    [(1.0, 1.0, math.inf), (0.0, 0.0, math.inf), (0.0, 1.0, -math.inf), (1.0, math.nan, -math.inf)],
)
def test_no_difference_no_signal_and_no_number(
    original: float, other: float, expected: float
) -> None:
    assert closeness(original, other).sqnr_db == expected
