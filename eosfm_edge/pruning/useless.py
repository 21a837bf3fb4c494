"""Specialists that do nothing, or nothing of their own: dead ones and duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eosfm_edge.ensemble.fusion import Mlp
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.formats.ensemble import LEVELS
from eosfm_edge.pruning.features import (
    CONSTANT,
    FeatureMoments,
    columns_of,
    deviation_of,
    require_fitting,
)

NO_RULE = "no rule makes its bands of the input's"
NOT_SELECTED = "it is not selected"
DOES_NOT_VARY = "its features do not vary"
NO_WEIGHT = "the fusion gives it no weight"

_DUPLICATE_R2 = 0.999


@dataclass(frozen=True)
class Duplicate:
    """A specialist whose features are a linear function of another's.

    Attributes:
        index: its place in the ensemble.
        of: the earlier specialist's place.
        r2: the share of its features' variance that the other's give, least over the levels.
    """

    index: int
    of: int
    r2: float


def find_dead(ensemble: Ensemble, moments: Sequence[FeatureMoments]) -> dict[int, str]:
    """Return the specialists that do nothing for the fused features, with the reason."""
    require_fitting(ensemble, moments)
    dead = without_features(ensemble)
    for reason, channels in ((DOES_NOT_VARY, _constant), (NO_WEIGHT, _weightless)):
        idle = [channels(ensemble, level, moments[level]) for level in LEVELS]
        for i in range(len(ensemble.sets)):
            if all(idle[level][columns_of(ensemble, level)[i]].all() for level in LEVELS):
                dead.setdefault(i, reason)
    return dict(sorted(dead.items()))


def without_features(ensemble: Ensemble) -> dict[int, str]:
    """Return the specialists that need not even be run, with the reason."""
    factors = ensemble.encoder_selector().tolist()
    reasons = {i: NOT_SELECTED for i, factor in enumerate(factors) if factor == 0}
    return reasons | {i: NO_RULE for i, sets in enumerate(ensemble.sets) if not sets}


def _constant(ensemble: Ensemble, level: int, moments: FeatureMoments) -> Tensor:
    return deviation_of(moments) == 0


def _weightless(ensemble: Ensemble, level: int, moments: FeatureMoments) -> Tensor:
    fusion = ensemble.feature_fusion[level]
    layer = fusion[0] if isinstance(fusion, Mlp) else fusion
    if not isinstance(layer, torch.nn.Conv2d):
        return torch.zeros(len(moments.mean), dtype=torch.bool)
    return (layer.weight == 0).all(0).flatten()


def find_duplicates(ensemble: Ensemble, moments: Sequence[FeatureMoments]) -> list[Duplicate]:
    """Return the specialists whose features are a linear function of an earlier one's.

    That is, at each level they are either the same, or the earlier one's give them with an adjusted
    R² of 0.999 or more, which takes at least twice as many cells as it has channels. The earlier
    one is never a duplicate itself, so all that are found can be removed together.
    """
    dead = find_dead(ensemble, moments)
    originals: list[int] = []
    found = []
    for i in range(len(ensemble.sets)):
        if i in dead:
            continue
        fits = [Duplicate(i, of, _least_r2(ensemble, moments, i, of)) for of in originals]
        best = max(fits, key=lambda fit: fit.r2, default=None)
        if best is not None and best.r2 >= _DUPLICATE_R2:
            found.append(best)
        else:
            originals.append(i)
    return found


def _least_r2(ensemble: Ensemble, moments: Sequence[FeatureMoments], i: int, of: int) -> float:
    least = 1.0
    for level in LEVELS:
        columns = columns_of(ensemble, level)
        least = min(least, _adjusted_r2(moments[level], columns[i], columns[of]))
        if least < _DUPLICATE_R2:
            break
    return least


def _adjusted_r2(moments: FeatureMoments, wanted: slice, given: slice) -> float:
    """Return R² less what as many channels give by chance; 0 if there are too few cells to say."""
    channels = int(given.stop - given.start)
    variance = float(moments.covariance[wanted, wanted].trace())
    if variance == 0 or _same(moments, wanted, given):
        return 1.0
    if moments.cells < 2 * channels + 2:
        return 0.0
    left = max(0.0, float(residual(moments, wanted, given).trace()) / variance)
    return 1 - left * (moments.cells - 1) / (moments.cells - channels - 1)


def _same(moments: FeatureMoments, one: slice, other: slice) -> bool:
    """Return whether two specialists' features differ by constants only, however few the cells."""
    across = moments.covariance[one, other]
    if across.shape[0] != across.shape[1]:
        return False
    variance = moments.covariance.diagonal()
    difference = variance[one] + variance[other] - 2 * across.diagonal()
    return float(difference.sum()) <= CONSTANT * float(variance[one].sum())


def regression(moments: FeatureMoments, wanted: slice, given: slice) -> Tensor:
    """Return the coefficients (wanted, given) that give features from others', not shrunk."""
    if _same(moments, wanted, given):
        return torch.eye(int(given.stop - given.start), dtype=torch.float64)
    deviation = deviation_of(moments)[given]
    inverse = torch.where(deviation > 0, 1 / deviation, 0)
    correlation = moments.covariance[given, given] * inverse[:, None] * inverse
    factor = torch.linalg.cholesky(correlation.fill_diagonal_(1 + 1e-9))
    across = moments.covariance[given, wanted] * inverse[:, None]
    return torch.cholesky_solve(across, factor).T * inverse


def residual(moments: FeatureMoments, wanted: slice, given: slice) -> Tensor:
    """Return the covariance of what others' features do not give."""
    given_part = regression(moments, wanted, given) @ moments.covariance[given, wanted]
    return moments.covariance[wanted, wanted] - given_part


def live_specialists(ensemble: Ensemble) -> set[int]:
    """Return the places of the specialists that are run."""
    return set(range(len(ensemble.sets))) - set(without_features(ensemble))
