"""Calibration imagery in physical units, and what a specialist sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import EnsembleSpec
from eosfm_edge.scene import tiles as stored_tiles
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.reading import FloatImage, Radiometry


@dataclass(frozen=True)
class Tiles:
    """Tiles that do not overlap, in physical units.

    Attributes:
        calibration: (bands, size, size) each, for choosing and repairing.
        held_out: the same, for judging.
        sha256: of the calibration tiles' stored values.
        source: which of them are from what.
    """

    calibration: list[Tensor]
    held_out: list[Tensor]
    sha256: str
    source: str


def load_tiles(
    data: Sequence[SceneName],
    spec: EnsembleSpec,
    size: int,
    count: int,
    seed: int,
    *,
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
) -> Tiles:
    """Take tiles for an ensemble; see :func:`eosfm_edge.scene.tiles.load_tiles`."""
    stored = stored_tiles.load_tiles(
        data, spec.input, size, count, seed, names=names, radiometry=radiometry
    )
    return Tiles(
        [_physical(spec, tile) for tile in stored.calibration],
        [_physical(spec, tile) for tile in stored.held_out],
        stored.sha256,
        stored.source,
    )


def _physical(spec: EnsembleSpec, stored: FloatImage) -> Tensor:
    return physical_units(spec, torch.from_numpy(stored[np.newaxis]))[0]


def inputs_of(ensemble: Ensemble, owner: int, tiles: Sequence[Tensor]) -> list[Tensor]:
    """Return what a specialist sees of tiles: the bands of its runs, in turn if it has several."""
    runs = ensemble.sets[owner]
    return [tile[list(runs[i % len(runs)])] for i, tile in enumerate(tiles)]
