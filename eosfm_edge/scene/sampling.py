"""Real tiles out of a scene, for checks and for calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eosfm_edge.errors import UserError
from eosfm_edge.scene.scene import FloatImage, Scene

_GRID = 4  # candidates along each side of the scene


def sample_tiles(scene: Scene, size: int, count: int) -> list[FloatImage]:
    """Return up to ``count`` tiles, spread over the scene, wholly valid ones first.

    Args:
        scene: where from.
        size: pixels of a tile's side.
        count: how many tiles; fewer where the scene is small or has much nodata.

    Returns:
        Stored values, each (bands, size, size); the tile with the most contrast first, so that
        a single one taken is not plain sea.

    Raises:
        UserError: the scene is smaller than a tile, or no candidate is half valid.
    """
    scene.require_room_for(size)
    columns = np.unique(np.linspace(0, scene.width - size, _GRID).astype(int))
    rows = np.unique(np.linspace(0, scene.height - size, _GRID).astype(int))
    candidates = []
    for top in rows:
        for left in columns:
            image, valid = scene.read(int(left), int(top), size, size)
            share = float(valid.mean())
            if share >= 0.5:
                contrast = float(np.median(image.std(axis=(1, 2)) / (np.abs(image).mean() + 1e-9)))
                candidates.append((share == 1.0, contrast, image))
    if not candidates:
        raise UserError(
            f"{scene.path} has no tile of {size} x {size} that is half valid",
            remedy="give a scene with less nodata",
        )
    candidates.sort(key=lambda candidate: candidate[:2], reverse=True)
    return [image for _, _, image in candidates[:count]]


@dataclass(frozen=True)
class GridTile:
    """A tile of a grid over a scene: stored values (bands, size, size), and where it begins."""

    left: int
    top: int
    image: FloatImage


def grid_tiles(scene: Scene, size: int, count: int, seed: int) -> list[GridTile]:
    """Return up to ``count`` tiles that do not overlap, at random, wholly valid ones.

    The grid begins at a random place, so that another seed gives other tiles.

    Args:
        scene: where from.
        size: pixels of a tile's side.
        count: how many tiles; fewer where the scene has not so many.
        seed: of the choice.

    Raises:
        UserError: the scene is smaller than a tile.
    """
    scene.require_room_for(size)
    random = np.random.default_rng(seed)
    first_left = int(random.integers(scene.width % size + 1))
    first_top = int(random.integers(scene.height % size + 1))
    places = [
        (left, top)
        for top in range(first_top, scene.height - size + 1, size)
        for left in range(first_left, scene.width - size + 1, size)
    ]
    tiles: list[GridTile] = []
    for index in random.permutation(len(places)):
        if len(tiles) == count:
            break
        left, top = places[index]
        image, valid = scene.read(left, top, size, size)
        if valid.all():
            tiles.append(GridTile(left, top, image))
    return tiles
