"""Compute the memory that a bundle needs at the least."""

from __future__ import annotations

from eosfm_edge.ensemble.cost import ensemble_cost
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import view_of
from eosfm_edge.formats.bundle import Tile
from eosfm_edge.formats.ensemble import LEVEL_STRIDES, LEVELS
from eosfm_edge.targets.feasibility import Need

_FLOAT, _HALF, _INT8 = 4, 2, 1  # bytes


def least_need(ensemble: Ensemble, tile: Tile) -> Need:
    """Return what no way of computing an ensemble can do without.

    That is the weights as int8, the image and the features that are fused in fp32, which are there
    at one time, and the widest hidden tensor in half precision.
    """
    pixels = tile.size**2
    features = sum(
        sum(ensemble.set_widths(level)) * pixels // LEVEL_STRIDES[level] ** 2 for level in LEVELS
    )
    widest = max(
        step.hidden * pixels // LEVEL_STRIDES[step.stage] ** 2
        for encoder in ensemble.encoders
        for step in view_of(encoder).steps
    )
    floats = len(ensemble.spec.input) * pixels + features
    return Need(
        weights=_INT8 * ensemble_cost(ensemble).params,
        tile=_FLOAT * floats + _HALF * widest,
        batch=tile.batch,
    )
