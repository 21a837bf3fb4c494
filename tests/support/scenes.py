"""Scenes that tests write for themselves; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin


def scene_pixels(bands: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return smooth imagery with some texture, digital numbers from 100 to 4000."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    waves = [np.sin(x * rng.uniform(0.5, 3) + y * rng.uniform(0.5, 3) + i) for i in range(bands)]
    noise = rng.normal(0, 0.1, (bands, height, width))
    return (2000 + 1500 * np.clip(np.stack(waves) + noise, -1.2, 1.2)).astype(np.uint16)


def write_scene(
    path: Path,
    pixels: NDArray[np.generic],
    names: Sequence[str] | None = None,
    *,
    resolution: float = 10.0,
    nodata: float | None = None,
) -> Path:
    """Write a GeoTIFF (bands, H, W) in UTM with its corner at (500000, 4000000)."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=pixels.dtype,
        count=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        crs="EPSG:32633",
        transform=from_origin(500_000, 4_000_000, resolution, resolution),
        nodata=nodata,
    ) as dataset:
        dataset.write(pixels)
        if names:
            dataset.descriptions = tuple(names)
    return path
