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

_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean energy of the regressors
_SAME = 1.02  # times the least error is as good
_ACCURACY = 1e-5  # of the moments, relative to the mean square of y
_JUDGES = 4  # one row in so many, those of whole images, says which ridge


class Regression:
    """Ridge regression y = weight @ x + bias over rows that come in batches, solved in float64."""

    def __init__(self, channels: int, outputs: int) -> None:
        self._moments = Moments.empty(channels)
        self._cross = torch.zeros(channels, outputs, dtype=torch.float64)
        self._total = torch.zeros(outputs, dtype=torch.float64)
        self._squares = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x (cells, channels) and y (cells, outputs), float32."""
        self._moments.add(x)
        self._cross += (x.T @ y).double()
        self._total += y.sum(0).double()
        self._squares += float(y.square().sum())

    def __add__(self, other: Regression) -> Regression:
        """Return the regression over the rows of both."""
        both = Regression(*self._cross.shape)
        both._moments = self._moments + other._moments
        both._cross = self._cross + other._cross
        both._total = self._total + other._total
        both._squares = self._squares + other._squares
        return both

    @property
    def rows(self) -> int:
        """The number of rows that were added."""
        return self._moments.count

    def solve(self, prior: Tensor, ridge: float = _RIDGES[0]) -> tuple[Tensor, Tensor]:
        """Return weight (outputs, channels) and bias (outputs,), float64.

        Args:
            prior: (outputs, channels), towards which the weight is pulled.
            ridge: how much, in mean energies of the regressors.
        """
        moments, mean = self._moments, self._total / self._moments.count
        ridge = ridge * float(moments.energy.mean()) or 1.0
        system = moments.covariance + ridge * torch.eye(len(moments.mean), dtype=torch.float64)
        cross = self._cross / moments.count - torch.outer(moments.mean, mean)
        weight = torch.linalg.solve(system, cross + ridge * prior.T.double()).T
        return weight, mean - weight @ moments.mean

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Return the mean square that a fit leaves of y, relative to that of y."""
        moments, count = self._moments, self._moments.count
        reached = weight @ moments.outer / count + 2 * torch.outer(bias, moments.mean)
        wanted = weight * (self._cross.T / count)
        left = (
            (reached * weight).sum()
            + bias.square().sum()
            - 2 * wanted.sum()
            - 2 * bias @ (self._total / count)
        )
        whole = self._squares / count
        return (float(left) + whole) / (whole or 1.0)


def ridge_regression(
    pairs: Iterable[tuple[Tensor, Tensor]], prior: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit y = weight @ x + bias to rows x (cells, channels) and y (cells, outputs).

    The ridge is the one that leaves the least of rows that the fit has not seen: a small one where
    there are many times as many rows as channels, and where there are fewer one that keeps the fit
    from going through all of them.

    Args:
        pairs: x and y, batch by batch, rows of one image beside each other.
        prior: (outputs, channels), towards which the weight is pulled.

    Returns:
        The weight (outputs, channels) and the bias (outputs,), float32.
    """
    fitted = Regression(prior.shape[1], prior.shape[0])
    judges = Regression(prior.shape[1], prior.shape[0])
    for x, y in pairs:
        last = len(x) - len(x) // _JUDGES
        fitted.add(x[:last], y[:last])
        if last < len(x):
            judges.add(x[last:], y[last:])
    both = fitted + judges
    if not judges.rows:
        return _single(*both.solve(prior))
    errors = {ridge: judges.error(*fitted.solve(prior, ridge)) for ridge in _RIDGES}
    # Differences below the moments' own accuracy say nothing: the smallest ridge is unbiased.
    most = _SAME * min(errors.values()) + _ACCURACY
    ridge = next((one for one, error in errors.items() if error <= most), _RIDGES[0])
    return _single(*both.solve(prior, ridge))


def _single(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return weight.float(), bias.float()


def set_linear(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """Set a linear layer or 1x1 convolution to a weight (outputs, inputs) and a bias."""
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    layer.bias.copy_(bias)
