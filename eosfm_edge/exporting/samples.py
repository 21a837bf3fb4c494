"""Real tiles of a scene, and what PyTorch makes of them, that exported files are checked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.formats.bands import Band
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.radiometry import require_plausible_scene
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import open_scene

FloatArray = NDArray[np.float32]

_TILES = 4


@dataclass(frozen=True)
class Samples:
    """Tiles, and what the PyTorch ensemble makes of each.

    Attributes:
        tiles: stored values, (bands, size, size) each; the first is the bundle's known answer.
        exact: the levels of each, (1, C, h, w).
    """

    tiles: list[FloatArray]
    exact: list[list[FloatArray]]

    @property
    def known_answer(self) -> KnownAnswer:
        """The image and levels that a bundle carries to check a device."""
        return KnownAnswer(self.tiles[0][np.newaxis], tuple(self.exact[0]))

    @torch.inference_mode()
    def levels_of(self, chain: nn.Module) -> list[list[FloatArray]]:
        """Return the levels (1, C, h, w) that a chain of stored values makes of each tile."""
        return [
            [level.numpy() for level in chain(torch.from_numpy(tile[np.newaxis]))]
            for tile in self.tiles
        ]


def take_samples(
    scene: SceneName,
    ensemble: Ensemble,
    size: int,
    *,
    names: Sequence[Band] | None,
    radiometry: Radiometry | None,
) -> Samples:
    """Take tiles of a scene, and run the ensemble on them.

    Args:
        scene: where from.
        ensemble: whose input the tiles are.
        size: pixels of a tile's side.
        names: what the scene's bands are, if its files do not say so.
        radiometry: scale, offset and nodata of the scene, if its files do not say so.

    Raises:
        UserError: the scene cannot be used, or its values cannot be right.
    """
    with open_scene(scene, ensemble.spec.input, names=names, radiometry=radiometry) as opened:
        require_plausible_scene(opened)
        return run_on(sample_tiles(opened, size, _TILES), ensemble)


@torch.inference_mode()
def run_on(tiles: Sequence[FloatArray], ensemble: Ensemble) -> Samples:
    """Run an ensemble on the first few tiles, stored values (bands, size, size) each."""
    tiles = list(tiles[:_TILES])
    stored = [torch.from_numpy(tile[np.newaxis]) for tile in tiles]
    exact = [
        [level.numpy() for level in ensemble(physical_units(ensemble.spec, x))] for x in stored
    ]
    return Samples(tiles, exact)
