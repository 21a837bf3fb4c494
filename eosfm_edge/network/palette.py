"""The palette of an ensemble: fitted on what it makes of tiles of real imagery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm_edge.bundle.palette import FloatArray, Palette, read_palette
from eosfm_edge.bundle.palette_fit import fit_palette
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import PALETTE_NAME
from eosfm_edge.network.tiles import as_seen
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.reading import FloatImage, Radiometry
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import open_scene
from eosfm_edge.scene.sources import find_sources

_TILES = 16
_PIXELS = _TILES * 224**2  # of all tiles: fewer of large ones


def kept_palette(directory: Path, channels: Sequence[int]) -> Palette | None:
    """Return the palette that an ensemble's directory brings, if it fits levels of such channels.

    Raises:
        UserError: its file is damaged.
    """
    palette = read_palette(directory / PALETTE_NAME)
    return palette if palette and palette.channels == tuple(channels) else None


@torch.inference_mode()
def level_channels(ensemble: Ensemble) -> tuple[int, ...]:
    """Return the channels of each level that an ensemble gives."""
    smallest = torch.zeros(1, len(ensemble.spec.input), 32, 32)
    return tuple(level.shape[1] for level in ensemble(smallest))


def palette_of(
    ensemble: Ensemble,
    data: Sequence[SceneName],
    size: int,
    *,
    names: Sequence[Band] | None,
    radiometry: Radiometry | None,
) -> Palette:
    """Fit the palette of an ensemble; the same imagery and tile give the same.

    Args:
        ensemble: whose features are coloured.
        data: imagery, as for :func:`eosfm_edge.scene.sources.find_sources`.
        size: pixels of a tile's side.
        names: what the bands of the data are, if its files do not say so.
        radiometry: scale, offset and nodata of the data, if its files do not say so.

    Raises:
        UserError: no image has a tile that is half valid.
    """
    stored = _draw(ensemble, data, size, names, radiometry)
    return palette_of_tiles(ensemble, [as_seen(ensemble.spec, tile) for tile in stored])


@torch.inference_mode()
def palette_of_tiles(ensemble: Ensemble, tiles: Sequence[Tensor]) -> Palette:
    """Fit the palette of an ensemble to some of the tiles that were drawn of imagery.

    Args:
        ensemble: whose features are coloured.
        tiles: (bands, H, W) each, as specialists see them.
    """
    levels: list[list[FloatArray]] = []
    for tile in tiles[:: -(-len(tiles) // _TILES)]:
        found = ensemble(tile[None])
        levels.append([level[0].flatten(1).T.numpy() for level in found])
    cells = [np.concatenate(parts) for parts in zip(*levels, strict=True)]
    return fit_palette(cells, ensemble.spec.name)


def _draw(
    ensemble: Ensemble,
    data: Sequence[SceneName],
    size: int,
    names: Sequence[Band] | None,
    radiometry: Radiometry | None,
) -> list[FloatImage]:
    """Take tiles from all over the imagery."""
    parts = [part for source in find_sources(data, names, radiometry) for part in source.parts]
    count = max(1, min(_TILES, _PIXELS // size**2))
    some = parts[:: -(-len(parts) // count)]
    each = -(-count // len(some))
    tiles: list[FloatImage] = []
    for number, part in enumerate(some, start=1):
        with open_scene(
            part.path, ensemble.spec.input, names=part.names, radiometry=part.radiometry
        ) as scene:
            try:
                tiles += sample_tiles(scene, size, each)
            except UserError:
                # Others may have one.
                if number == len(some) and not tiles:
                    raise
    return tiles
