"""A patchwork of classes, and masks that tests write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

HEIGHT, WIDTH = 320, 512
PATCH = 64  # pixels of one class
CODES = (10, 20, 40)


def patchwork() -> NDArray[np.uint8]:
    """Return the class code of each pixel: squares of three classes in a fixed disorder."""
    rng = np.random.default_rng(7)
    squares = rng.choice(CODES, (HEIGHT // PATCH, WIDTH // PATCH))
    return np.kron(squares, np.ones((PATCH, PATCH), int)).astype(np.uint8)


def write_mask(path: Path, codes: NDArray[np.generic], **how: object) -> Path:
    """Write a raster of codes on the grid of `write_scene`."""
    profile = {
        "driver": "GTiff", "dtype": codes.dtype, "count": 1, "height": codes.shape[0],
        "width": codes.shape[1], "crs": "EPSG:32633",
        "transform": from_origin(500_000, 4_000_000, 10, 10), **how,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(codes, 1)
    return path
