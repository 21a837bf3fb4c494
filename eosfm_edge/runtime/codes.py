"""Rasters of codes, a byte each with a colour: groups of features, classes of heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetWriter

BLOCK = 512  # cells of a side of a raster's blocks


def create_codes(
    path: Path,
    width: int,
    height: int,
    *,
    crs: CRS | None,
    transform: Affine,
    colours: Mapping[int, tuple[int, int, int]],
    nodata: int,
) -> DatasetWriter:
    """Create a GeoTIFF of codes (uint8) with a colour table; what has no data is transparent."""
    raster = rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=1,
        width=width,
        height=height,
        transform=transform,
        crs=crs,
        nodata=nodata,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
    )
    table = {code: (*colour, 255) for code, colour in colours.items()}
    raster.write_colormap(1, {**table, nodata: (0, 0, 0, 0)})
    return raster


def move_to_cog(plain: Path, path: Path, resampling: str) -> None:
    """Make a cloud-optimised GeoTIFF of a plain one, with overviews, and remove the plain one."""
    rasterio.shutil.copy(
        plain,
        path,
        driver="COG",
        blocksize=BLOCK,
        compress="DEFLATE",
        overview_resampling=resampling,
    )
    plain.unlink()
