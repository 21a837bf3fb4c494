"""A few real tiles out of a scene, to check what was exported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eosfm_edge.errors import UserError
from eosfm_edge.scene.places import valid_places
from eosfm_edge.scene.reading import FloatImage
from eosfm_edge.scene.scene import Scene

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
        UserError: the scene is smaller than a tile, or no tile is half valid.
    """
    scene.require_room_for(size)
    columns = np.unique(np.linspace(0, scene.width - size, _GRID).astype(int))
    rows = np.unique(np.linspace(0, scene.height - size, _GRID).astype(int))
    grid = [(int(left), int(top)) for top in rows for left in columns]
    candidates = _look(scene, size, grid)
    if sum(whole for whole, _, _ in candidates) < min(count, len(grid)):
        random = np.random.default_rng(0)
        places = valid_places(scene, size, random)
        some = random.permutation(len(places))[: _GRID**2]
        candidates += _look(scene, size, [places[i] for i in some if places[i] not in grid])
    if not candidates:
        raise UserError(
            f"{scene.path} has no tile of {size} x {size} that is half valid",
            remedy="give a scene with less nodata",
        )
    candidates.sort(key=lambda candidate: candidate[:2], reverse=True)
    return [image for _, _, image in candidates[:count]]


def _look(
    scene: Scene, size: int, places: Sequence[tuple[int, int]]
) -> list[tuple[bool, float, FloatImage]]:
    """Return the tiles that are half valid: whether wholly so, contrast, and stored values."""
    found = []
    for left, top in places:
        image, valid = scene.read(left, top, size, size)
        share = float(valid.mean())
        if share >= 0.5:
            contrast = float(np.median(image.std(axis=(1, 2)) / (np.abs(image).mean() + 1e-9)))
            found.append((share == 1.0, contrast, image))
    return found
