"""Ridge regression in batches, against numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosfm_edge.network import regression as module
from eosfm_edge.network.regression import ridge_regression


def batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(x.split(70), y.split(70), strict=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 4))
def test_a_tiny_ridge_gives_numpys_least_squares(seed: int, channels: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, channels)) + rng.normal(size=channels)
    y = x @ rng.normal(size=(channels, outputs)) + 2 + 0.5 * rng.normal(size=(200, outputs))
    fit, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(200)]), y, rcond=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_RIDGES", (1e-10,))
        weight, bias = ridge_regression(
            batches(torch.from_numpy(x).float(), torch.from_numpy(y).float()),
            torch.zeros(outputs, channels),
        )
    np.testing.assert_allclose(weight.numpy(), fit[:-1].T, atol=1e-3)
    np.testing.assert_allclose(bias.numpy(), fit[-1], atol=2e-3)


def test_what_the_cells_do_not_say_stays_as_it_was() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0.5  # never varies: nothing is known of its weight
    prior = torch.tensor([[1.0, 2.0, 7.0]])
    weight, bias = ridge_regression(iter([(x, x[:, :1] * 3 + 1)]), prior)
    assert torch.allclose(weight, torch.tensor([[3.0, 0.0, 7.0]]), atol=1e-2)
    assert float(bias) == pytest.approx(1 - 7 * 0.5, abs=1e-2)
