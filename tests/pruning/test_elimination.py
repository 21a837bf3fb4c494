"""The cost of channels, against numpy's least squares on the rows themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.tiers import thorough

from eosfm_edge.network.moments import Moments
from eosfm_edge.pruning.elimination import Elimination, by_reconstruction, by_score

Matrix = NDArray[np.float64]
CELLS = 500


def rows(seed: int, channels: int) -> Matrix:
    """Activations that depend on each other somewhat, with means."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(channels) + 0.4 * rng.normal(size=(channels, channels))
    return rng.normal(size=(CELLS, channels)) @ mixing + rng.normal(size=channels)


def weights(seed: int, channels: int) -> Matrix:
    return np.random.default_rng(seed + 1000).normal(size=(5, channels))


def energy(x: Matrix, weight: Matrix) -> float:
    return float((x @ weight.T).var(0).sum())


def residual(x: Matrix, weight: Matrix, gone: Sequence[int]) -> float:
    """Return the error of weight @ x, relative to it, when the other channels are solved again."""
    wanted = x @ weight.T
    rest = np.delete(x, list(gone), axis=1)
    rest = np.column_stack([rest, np.ones(len(x))])  # the bias is free
    fit, *_ = np.linalg.lstsq(rest, wanted, rcond=None)
    return float(((wanted - rest @ fit) ** 2).sum(1).mean()) / energy(x, weight)


def eliminate(x: Matrix, weight: Matrix) -> Elimination:
    moments = Moments.empty(x.shape[1])
    for batch in np.array_split(x, 3):
        moments.add(torch.from_numpy(batch).float())
    return by_reconstruction(moments.covariance, torch.from_numpy(weight), energy(x, weight))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 14))
def test_costs_add_up_to_what_least_squares_leaves(seed: int, channels: int) -> None:
    x, weight = rows(seed, channels), weights(seed, channels)
    found = eliminate(x, weight)
    assert sorted(found.order) == list(range(channels))
    for count in range(1, channels + 1):
        expected = residual(x, weight, found.order[:count])
        assert found.spent(count) == pytest.approx(expected, rel=0.02, abs=1e-4)
    assert min(found.cost) >= 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 14))
def test_the_first_to_go_is_the_one_that_costs_least(seed: int, channels: int) -> None:
    x, weight = rows(seed, channels), weights(seed, channels)
    found = eliminate(x, weight)
    costs = [residual(x, weight, [channel]) for channel in range(channels)]
    assert costs[found.order[0]] == pytest.approx(min(costs), rel=0.01, abs=1e-5)
    assert found.cost[0] == pytest.approx(min(costs), rel=0.01, abs=1e-5)


@pytest.mark.parametrize("seed", [0, *thorough(1, 2, 3, 4)])
def test_a_linear_combination_of_others_costs_nothing(seed: int) -> None:
    x, weight = rows(seed, 8), weights(seed, 8)
    x[:, 6] = 0.5 * x[:, 1] - 2 * x[:, 4] + 3
    found = eliminate(x, weight)
    assert found.order[0] in (1, 4, 6)
    assert found.cost[0] < 1e-4
    assert found.cost[1] > 1e-3  # and then it is over


def test_a_channel_that_never_varies_or_that_nobody_reads_goes_first() -> None:
    x, weight = rows(0, 8), weights(0, 8)
    x[:, 5] = 0.25
    weight[:, 2] = 0
    weight[:, 2] += 1e-9
    x[:, 2] = np.random.default_rng(0).normal(size=CELLS)  # of no use to the others either
    found = eliminate(x, weight)
    assert set(found.order[:2]) == {2, 5}
    assert found.spent(2) < 1e-4


def test_scores_go_in_their_order_and_cost_their_squares() -> None:
    found = by_score(torch.tensor([3.0, 1.0, 2.0, 1.0]), scale=0.5)
    assert found.order == (1, 3, 2, 0)
    assert found.cost == (0.5, 0.5, 2.0, 4.5)
    assert found.first(3) == (1, 2, 3)
    assert found.spent(3) == 3.0
