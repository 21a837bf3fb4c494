"""Calibration imagery: unlabelled tiles of scenes, and others, never trained on, to judge by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm_edge.ensemble.bands import Band
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.ensemble.spec import EnsembleSpec
from eosfm_edge.errors import UserError
from eosfm_edge.pruning.plan import format_channels
from eosfm_edge.scene.bands import SceneName
from eosfm_edge.scene.sampling import grid_tiles
from eosfm_edge.scene.scene import Radiometry, open_scene

_HELD_OUT_SHARE = 8  # one tile in so many judges
_LEAST_TILES = 2


@dataclass(frozen=True)
class Tiles:
    """Tiles that do not overlap, in physical units.

    Attributes:
        calibration: (bands, size, size) each, for choosing and repairing.
        held_out: the same, for judging.
        sha256: of the calibration tiles' stored values.
        source: which of them are from which scene.
    """

    calibration: list[Tensor]
    held_out: list[Tensor]
    sha256: str
    source: str


def load_tiles(
    scenes: Sequence[SceneName],
    spec: EnsembleSpec,
    size: int,
    count: int,
    seed: int,
    *,
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
) -> Tiles:
    """Take tiles from scenes, as many of each as of the others where they have so many.

    Args:
        scenes: rasters or folders of bands.
        spec: of the ensemble, whose input bands are read.
        size: pixels of a tile's side, a multiple of 32.
        count: tiles for calibration, at most. One for every eight of them is held out.
        seed: of the choice.
        names: what the bands of the scenes are, if their files do not say so.
        radiometry: scale, offset and nodata of the scenes, if their files do not say so.

    Raises:
        UserError: there are no scenes, or they hold fewer than two valid tiles.
    """
    if not scenes:
        raise UserError(
            "there is no calibration data",
            expected="unlabelled scenes like those that the specialists will see",
            remedy="give some with --data SCENE",
        )
    if len({str(scene) for scene in scenes}) < len(scenes):
        raise UserError("a scene is given twice", remedy="give each --data once")
    each = -(-(count + -(-count // _HELD_OUT_SHARE)) // len(scenes))
    stored: list[NDArray[np.float32]] = []
    found = []
    for scene in scenes:
        with open_scene(scene, spec.input, names=names, radiometry=radiometry) as opened:
            mine = grid_tiles(opened, size, each, seed)
        found.append(f"{len(mine)} tiles of {scene}")
        stored += [tile.image for tile in mine]
    if len(stored) < _LEAST_TILES:
        raise UserError(
            f"the scenes hold {len(stored)} valid tiles of {size} x {size} pixels",
            expected=f"at least {_LEAST_TILES}: one to calibrate on, another to judge by",
            remedy="give larger scenes, more of them, or a smaller --tile",
        )
    order = np.random.default_rng(seed).permutation(len(stored))
    held = max(1, len(stored) // (_HELD_OUT_SHARE + 1))
    judges, used = order[:held], order[held:][:count]
    digest = hashlib.sha256(b"".join(stored[i].tobytes() for i in used)).hexdigest()
    kinds = (
        f"{', '.join(found)}; held out: {format_channels(sorted(map(int, judges)))} of "
        f"{len(stored)}"
    )
    return Tiles(
        [_physical(spec, stored[i]) for i in used],
        [_physical(spec, stored[i]) for i in judges],
        digest,
        kinds,
    )


def _physical(spec: EnsembleSpec, stored: NDArray[np.float32]) -> Tensor:
    return physical_units(spec, torch.from_numpy(stored[np.newaxis]))[0]


def inputs_of(ensemble: Ensemble, owner: int, tiles: Sequence[Tensor]) -> list[Tensor]:
    """Return what a specialist sees of tiles: the bands of its runs, in turn if it has several."""
    runs = ensemble.sets[owner]
    return [tile[list(runs[i % len(runs)])] for i, tile in enumerate(tiles)]
