"""Measure the fusion's input: its mean and covariance over calibration tiles, level by level.

A covariance of few cells would promise that anything can be made of anything, so it is shrunk
towards a diagonal first, by as much as the number of cells says (OAS: Chen, Wiesel, Eldar and Hero,
IEEE Trans. Signal Processing 2010, https://arxiv.org/abs/0907.4698), on the scale of correlations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import LEVEL_STRIDES, LEVELS

CONSTANT = 1e-12  # variance of rounded fp32 numbers, relative to their square

_LEAST_SHRINKAGE = 1e-6  # keeps the inverse of a covariance with duplicates in it accurate


@dataclass(frozen=True)
class FeatureMoments:
    """Mean (C,) and covariance (C, C), float64, of one level's features over ``cells`` cells."""

    mean: Tensor
    covariance: Tensor
    cells: int


@torch.no_grad()
def feature_moments(ensemble: Ensemble, images: Iterable[Tensor]) -> list[FeatureMoments]:
    """Return for each level the moments of what the fusion is given, over all cells of the images.

    Args:
        ensemble: is not changed.
        images: batches (N, bands, H, W) in physical units, H and W multiples of 32; read once.

    Raises:
        UserError: there are no images, or their features are not finite.
    """
    sums: list[_Sums] = []
    for image in images:
        inputs = fusion_inputs(ensemble, image)
        rows = [features.movedim(1, -1).flatten(0, 2) for features in inputs]
        sums = sums or [_Sums(first) for first in rows]
        for level, cells in zip(sums, rows, strict=True):
            level.add(cells)
    if not sums:
        raise UserError("there are no images to look at specialists with", expected="one or more")
    return [level.moments() for level in sums]


class _Sums:
    """Running sums of rows (cells, C), about the first batch's mean so that little cancels."""

    def __init__(self, rows: Tensor) -> None:
        self.shift = rows.double().mean(0)
        self.cells = 0
        self.first = torch.zeros_like(self.shift)
        self.second = self.shift.new_zeros(len(self.shift), len(self.shift))

    def add(self, rows: Tensor) -> None:
        centred = rows.double() - self.shift
        self.cells += len(centred)
        self.first += centred.sum(0)
        self.second.addmm_(centred.T, centred)

    def moments(self) -> FeatureMoments:
        if not torch.isfinite(self.second).all():
            raise UserError(
                "features have values that are not finite",
                remedy="look for pixels without data, and for a specialist that is damaged",
            )
        offset = self.first / self.cells
        covariance = (self.second / self.cells).addr_(offset, offset, alpha=-1)
        return FeatureMoments(self.shift + offset, covariance, self.cells)


def fusion_inputs(ensemble: Ensemble, image: Tensor) -> list[Tensor]:
    """Return each level's sets (N, C, H/s, W/s), scaled by selection and one after the other."""
    factors = ensemble.encoder_selector().tolist()
    per_level: list[list[Tensor]] = [[] for _ in LEVELS]
    for owner, runs in enumerate(ensemble.sets):
        for bands in runs:
            for level, features in enumerate(_scaled_set(ensemble, image, owner, bands, factors)):
                per_level[level].append(features)
    return [torch.cat(sets, dim=1) for sets in per_level]


def _scaled_set(
    ensemble: Ensemble, image: Tensor, owner: int, bands: tuple[int, ...], factors: list[float]
) -> list[Tensor]:
    factor = factors[owner]
    if factor != 0:
        return [features * factor for features in ensemble.set_features(image, owner, bands)]
    # What counts 0 need not be run.
    place = ensemble.set_owners().index(owner)
    count, _, height, width = image.shape
    return [
        image.new_zeros(count, ensemble.set_widths(level)[place], height // stride, width // stride)
        for level, stride in enumerate(LEVEL_STRIDES)
    ]


def columns_of(ensemble: Ensemble, level: int) -> list[slice]:
    """Return where each specialist's channels are among those that the fusion is given."""
    counts = [0] * len(ensemble.sets)
    for owner, width in zip(ensemble.set_owners(), ensemble.set_widths(level), strict=True):
        counts[owner] += width
    return [slice(start, end) for start, end in pairwise(accumulate(counts, initial=0))]


def require_fitting(ensemble: Ensemble, moments: Sequence[FeatureMoments]) -> None:
    """Raise ValueError if moments are of another ensemble."""
    found = [len(level.mean) for level in moments]
    expected = [sum(ensemble.set_widths(level)) for level in LEVELS]
    if found != expected:
        raise ValueError(f"moments are of {found} channels, the ensemble has {expected}")


def shrunk_correlation(moments: FeatureMoments) -> tuple[Tensor, Tensor]:
    """Return the shrunk correlation (C, C), with ones on its diagonal, and the deviations (C,).

    A channel that does not vary has deviation 0 and is not correlated with anything.
    """
    deviation = deviation_of(moments)
    inverse = torch.where(deviation > 0, 1 / deviation, 0)
    correlation = moments.covariance * inverse[:, None] * inverse
    correlation *= 1 - _shrinkage(correlation, moments.cells)
    return correlation.fill_diagonal_(1), deviation


def deviation_of(moments: FeatureMoments) -> Tensor:
    """Return the standard deviations (C,), 0 where all that varies is rounding."""
    variance = moments.covariance.diagonal()
    floor = CONSTANT * (moments.mean.square() + variance.mean())
    return torch.where(variance > floor, variance, 0).sqrt()


def _shrinkage(correlation: Tensor, cells: int) -> float:
    """Return how much of a covariance is to be replaced by a diagonal one, by OAS (eq. 23)."""
    channels = float(correlation.trace())
    if channels < 2:
        return _LEAST_SHRINKAGE
    square = float(correlation.square().sum())
    numerator = (1 - 2 / channels) * square + channels**2
    denominator = (cells + 1 - 2 / channels) * (square - channels)
    # Channels that are not correlated at all make the denominator 0: then all may be replaced.
    return max(_LEAST_SHRINKAGE, 1.0 if denominator <= numerator else numerator / denominator)
