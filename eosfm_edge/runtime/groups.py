"""Groups of features as a raster: the group of each cell of a level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from eosfm_edge.bundle.palette import GROUPS, Palette
from eosfm_edge.files import cannot_write
from eosfm_edge.runtime.codes import BLOCK, create_codes, move_to_cog
from eosfm_edge.runtime.features import block_size, windows, write_errors

Counts = NDArray[np.int64]  # (GROUPS + 1,) cells of each group; the first have no data

# The colours of Okabe and Ito, which people who are colour-blind tell apart too, with a grey for
# their black, so that no group looks like missing data.
COLOURS = (
    (0, 114, 178),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (230, 159, 0),
    (213, 94, 0),
    (204, 121, 167),
    (153, 153, 153),
)


def write_groups(path: Path, features: Path, palette: Palette) -> Counts:
    """Write the groups of a level as a cloud-optimised GeoTIFF with a colour table.

    Args:
        path: the raster to write: uint8, groups from 1, 0 where there is no data.
        features: the raster of the level that the palette groups.
        palette: it says what the groups are.

    Returns:
        How many cells are in each group.

    Raises:
        UserError: it does not fit on the disk.
    """
    plain = path.with_suffix(".plain.tif")
    counts = np.zeros(GROUPS + 1, np.int64)
    with rasterio.open(features) as source:
        needed = 3 * source.width * source.height + (1 << 20)
        with write_errors(path, needed):
            with create_codes(
                plain,
                source.width,
                source.height,
                crs=source.crs,
                transform=source.transform,
                colours=dict(enumerate(COLOURS, start=1)),
                nodata=0,
            ) as target:
                target.update_tags(groups_of=palette.of, level=f"level{palette.grouped}")
                for window in windows(source.width, source.height, block_size(source.count)):
                    found = palette.groups(source.read(window=window))
                    counts += np.bincount(found.ravel(), minlength=GROUPS + 1)
                    target.write(found, 1, window=window)
            move_to_cog(plain, path, "NEAREST")
            # GDAL tells nobody when a block does not fit on the disk: see what is there.
            if (count_groups(path) != counts).any():
                raise cannot_write(path, "it does not read back as it was written", needed)
    return counts


def count_groups(path: Path) -> Counts:
    """Return how many cells of a raster of groups are in each; the first of them have no data."""
    counts = np.zeros(GROUPS + 1, np.int64)
    with rasterio.open(path) as raster:
        for window in windows(raster.width, raster.height, BLOCK):
            counts += np.bincount(raster.read(1, window=window).ravel(), minlength=GROUPS + 1)
    return counts


def share_in_the_same_group(first: Path, second: Path) -> float:
    """Return the share of the cells with data in both rasters that are in the same group of both.

    Args:
        first: a raster of groups.
        second: another of the same size, by the same palette.

    Returns:
        From 0 to 1; NaN if no cell has data in both.
    """
    same = both = 0
    with rasterio.open(first) as a, rasterio.open(second) as b:
        for window in windows(a.width, a.height, BLOCK):
            mine, other = a.read(1, window=window), b.read(1, window=window)
            valid = (mine > 0) & (other > 0)
            both += int(valid.sum())
            same += int((valid & (mine == other)).sum())
    return same / both if both else float("nan")
