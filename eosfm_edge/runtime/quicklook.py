"""A picture to see at a glance what came in and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling

from eosfm_edge.formats.bands import RGB, Band, find
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.reading import FloatImage
from eosfm_edge.scene.scene import Mask, Scene

LONGEST = 1024  # pixels of a panel's longer side
LONGEST_FEATURES = 512  # cells read for it: all channels of them are in memory
PCA_SAMPLES = 20_000
GAP = 8  # white pixels between the panels


def write_quicklook(path: Path, scene: Scene, bands: Sequence[InputBand], features: Path) -> None:
    """Write the true-colour image beside the first three principal components of the features.

    Args:
        path: the PNG.
        scene: what was run.
        bands: the scene's bands as read; without red, green and blue the first one is shown.
        features: a feature raster (C, H, W), NaN where there is no data.
    """
    image, valid = scene.overview(LONGEST)
    places = [find(Band(name=name), bands) for name in RGB]
    colours = [0 if None in places else place for place in places]
    left = _stretched(image[[place or 0 for place in colours]], valid)
    pixels, valid = _read_features(features)
    right = _stretched(_principal_components(pixels, valid), valid)
    size = (left.shape[1], left.shape[0])
    panels = Image.new("RGB", (2 * size[0] + GAP, size[1]), "white")
    panels.paste(Image.fromarray(left), (0, 0))
    panels.paste(Image.fromarray(right).resize(size, Image.Resampling.NEAREST), (size[0] + GAP, 0))
    panels.save(path)


def _read_features(path: Path) -> tuple[FloatImage, Mask]:
    """Read a feature raster, from its overviews where it is large."""
    with rasterio.open(path) as dataset:
        step = max(1.0, max(dataset.shape) / LONGEST_FEATURES)
        size = tuple(max(1, round(side / step)) for side in dataset.shape)
        pixels: FloatImage = dataset.read(
            out_shape=(dataset.count, *size), resampling=Resampling.nearest
        )
    return pixels, np.logical_and.reduce(np.isfinite(pixels))


def _principal_components(pixels: FloatImage, valid: Mask) -> FloatImage:
    """Project features (C, H, W) on the three directions in which they vary most."""
    components = np.zeros((3, *valid.shape), np.float32)
    if not valid.any():
        return components
    samples = pixels[:, valid]
    some = samples[:, :: max(1, samples.shape[1] // PCA_SAMPLES)].astype(np.float64)
    _, vectors = np.linalg.eigh(np.cov(some))
    directions = vectors[:, : -min(3, len(pixels)) - 1 : -1]
    # An eigenvector's sign is arbitrary: fix it, so that two runs look alike.
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), range(directions.shape[1])])
    components[: directions.shape[1], valid] = directions.T.astype(np.float32) @ samples
    return components


def _stretched(channels: FloatImage, valid: Mask) -> NDArray[np.uint8]:
    """Map the middle 96 % of each channel's values (3, H, W) to 0..255; black where not valid."""
    picture = np.zeros((*valid.shape, 3), np.uint8)
    if not valid.any():
        return picture
    for i, channel in enumerate(channels):
        low, high = np.percentile(channel[valid], (2, 98))
        shade = np.clip((channel - low) / max(high - low, 1e-12), 0, 1) * 255
        picture[..., i] = np.where(valid, shade, 0)
    return picture
