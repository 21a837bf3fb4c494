"""Ridge regression over activations that come in batches.

Hoerl and Kennard, Technometrics 1970: here towards the weights that are there instead of towards
zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from eosfm_edge.network.moments import Moments

_RIDGE = 1e-5  # of the mean energy of the regressors


class Regression:
    """Ridge regression y = weight @ x + bias over rows that come in batches, solved in float64."""

    def __init__(self, channels: int, outputs: int) -> None:
        self._moments = Moments.empty(channels)
        self._cross = torch.zeros(channels, outputs, dtype=torch.float64)
        self._total = torch.zeros(outputs, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x (cells, channels) and y (cells, outputs), float32."""
        self._moments.add(x)
        self._cross += (x.T @ y).double()
        self._total += y.sum(0).double()

    def solve(self, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight (outputs, channels) and bias (outputs,), float32.

        Args:
            prior: (outputs, channels), towards which the weight is pulled a little.
        """
        moments, mean = self._moments, self._total / self._moments.count
        ridge = _RIDGE * float(moments.energy.mean()) or 1.0
        system = moments.covariance + ridge * torch.eye(len(moments.mean), dtype=torch.float64)
        cross = self._cross / moments.count - torch.outer(moments.mean, mean)
        weight = torch.linalg.solve(system, cross + ridge * prior.T.double()).T
        return weight.float(), (mean - weight @ moments.mean).float()


def ridge_regression(
    pairs: Iterable[tuple[Tensor, Tensor]], prior: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit y = weight @ x + bias to rows x (cells, channels) and y (cells, outputs).

    Args:
        pairs: x and y, batch by batch.
        prior: (outputs, channels), towards which the weight is pulled a little.
    """
    regression = Regression(prior.shape[1], prior.shape[0])
    for x, y in pairs:
        regression.add(x, y)
    return regression.solve(prior)


def set_linear(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """Set a linear layer or 1x1 convolution to a weight (outputs, inputs) and a bias."""
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    layer.bias.copy_(bias)
