"""A few real tiles out of a scene, to check what was exported."""

from __future__ import annotations

import numpy as np

from eosfm_edge.errors import UserError
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
