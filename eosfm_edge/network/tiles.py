"""Calibration imagery: enough tiles for an ensemble, and what a specialist sees of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import EnsembleSpec
from eosfm_edge.network.cells import tiles_needed, warn_if_few
from eosfm_edge.scene import tiles as scene_tiles
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

    @property
    def held_out_sha256(self) -> str:
        """The digest of the held-out tiles' physical values."""
        digest = hashlib.sha256()
        for tile in self.held_out:
            digest.update(tile.numpy().tobytes())
        return digest.hexdigest()


def load_tiles(
    ensemble: Ensemble,
    data: Sequence[SceneName] | Tiles,
    size: int,
    *,
    asked: int | None,
    least: int,
    seed: int,
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
) -> Tiles:
    """Return tiles for an ensemble in physical units: those that were drawn before, or new ones.

    The arguments are those of :func:`draw_tiles`.
    """
    if isinstance(data, Tiles):
        return data
    stored = draw_tiles(
        ensemble,
        data,
        size,
        asked=asked,
        least=least,
        seed=seed,
        names=names,
        radiometry=radiometry,
    )
    return in_physical_units(stored, ensemble.spec)


def draw_tiles(
    ensemble: Ensemble,
    data: Sequence[SceneName],
    size: int,
    *,
    asked: int | None,
    least: int,
    seed: int,
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
) -> scene_tiles.Tiles:
    """Draw tiles for an ensemble, and warn if its specialists need more than there are.

    Args:
        ensemble: whose input the tiles are.
        data: imagery, as for :func:`eosfm_edge.scene.tiles.load_tiles`.
        size: pixels of a tile's side, a multiple of 32 from 32 to 1024.
        asked: tiles for calibration, at most; None: as many as the channels need
            (:mod:`eosfm_edge.network.cells`), and at least ``least``.
        least: see ``asked``.
        seed: of the choice.
        names: what the bands of the data are, if its files do not say so.
        radiometry: scale, offset and nodata of the data, if its files do not say so.

    Raises:
        UserError: the size is not possible, or the data cannot be used.
    """
    if size % 32 or not 32 <= size <= 1024:
        raise UserError(
            f"tiles of {size} pixels a side", expected="a multiple of 32 from 32 to 1024"
        )
    count = asked or max(least, tiles_needed(ensemble, size))
    stored = scene_tiles.load_tiles(
        data, ensemble.spec.input, size, count, seed, names=names, radiometry=radiometry
    )
    warn_if_few(ensemble, len(stored.calibration), size, asked=asked)
    return stored


def in_physical_units(stored: scene_tiles.Tiles, spec: EnsembleSpec) -> Tiles:
    """Return tiles of stored values as an ensemble's specialists see them."""
    return Tiles(
        [as_seen(spec, tile) for tile in stored.calibration],
        [as_seen(spec, tile) for tile in stored.held_out],
        stored.sha256,
        stored.source,
    )


def as_seen(spec: EnsembleSpec, tile: FloatImage) -> Tensor:
    """Return a tile of stored values (bands, H, W) as specialists see it."""
    return physical_units(spec, torch.from_numpy(tile[np.newaxis]))[0]


def inputs_of(ensemble: Ensemble, owner: int, tiles: Sequence[Tensor]) -> list[Tensor]:
    """Return what a specialist sees of tiles: the bands of its runs, in turn if it has several."""
    runs = ensemble.sets[owner]
    return [tile[list(runs[i % len(runs)])] for i, tile in enumerate(tiles)]
