"""Feature rasters: blocks are collected on disk, and the result is a cloud-optimised GeoTIFF."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # no public name; rasterio.shutil raises it
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from eosfm_edge.files import cannot_write
from eosfm_edge.formats.bundle import Level
from eosfm_edge.machine import processors
from eosfm_edge.runtime.cells import CellArray, FloatArray

_BLOCK_BYTES = 4 << 20  # a block holds all channels: more of them, smaller blocks
_OVERVIEWS_ABOVE = 512  # cells a side


def written_bytes(width: int, height: int, channels: int) -> int:
    """Return about how large a level's GeoTIFF is that does not compress, with its overviews."""
    block = block_size(channels)
    blocks = -(-width // block) * -(-height // block)  # those at the edges are whole ones
    size = blocks * block * block * channels * 4
    size += size // 100 + (64 << 10)  # DEFLATE in vain, and headers
    if max(width, height) > _OVERVIEWS_ABOVE:
        size += written_bytes(-(-width // 2), -(-height // 2), channels)
    return size


class LevelRaster:
    """One level over the whole scene, in the making.

    Args:
        level: stride and channels.
        folder: where ``NAME.tif`` shall be; scratch files are there too meanwhile.
        size: (width, height) in cells.
        transform: of the scene's pixels.
        crs: of the scene.
        descriptions: of the channels; none: they have none.

    Raises:
        OSError: there is no space for the level.
    """

    def __init__(
        self,
        level: Level,
        folder: Path,
        size: tuple[int, int],
        transform: Affine,
        crs: CRS | None,
        descriptions: Sequence[str] = (),
    ) -> None:
        self.level, self._descriptions = level, tuple(descriptions)
        self.path = folder / f"{level.name}.tif"
        # The cell grid of stride s: same origin, cells s times as large.
        self._transform = transform @ Affine.scale(level.stride)
        self._crs = crs
        width, height = size
        self._cells = CellArray(folder / f".{level.name}.cells", height, width, level.channels)

    def __enter__(self) -> LevelRaster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cells.close()

    def write(self, features: FloatArray, left: int, top: int) -> None:
        """Write cells (C, h, w), NaN where there is no data, at a column and row."""
        self._cells.write(features.transpose(1, 2, 0), left, top)

    def finish(self) -> int:
        """Write the cloud-optimised GeoTIFF; returns its size in bytes.

        Raises:
            UserError: it does not fit on the disk.
        """
        cells, block = self._cells, block_size(self.level.channels)
        needed = written_bytes(cells.width, cells.height, cells.channels)
        with write_errors(self.path, needed):
            plain = self._write_with_overviews(block)
            self._cells.close()  # the next file takes its space
            rasterio.shutil.copy(
                next(iter(plain)),
                self.path,
                driver="COG",
                blocksize=block,
                compress="DEFLATE",
                level=1,  # features hardly compress: more effort costs time and saves 2 %
                predictor="FLOATING_POINT",
                overviews="FORCE_USE_EXISTING",
                num_threads=processors(),
                bigtiff="IF_SAFER",
            )
            for path in plain:
                path.unlink()
            # GDAL tells nobody when a block does not fit on the disk: see what is there.
            if read_checksums(self.path, len(plain), block) != list(plain.values()):
                raise cannot_write(self.path, "it does not read back as it was written", needed)
        return self.path.stat().st_size

    def _write_with_overviews(self, block: int) -> dict[Path, int]:
        """Write plain GeoTIFFs: the level, its overview ``.ovr``, that one's ``.ovr.ovr``, ...

        That is how GDAL finds external overviews. It could make them itself, but holds rows of
        blocks of all channels for that, as much as the scene is wide.

        Returns:
            Each file with the checksum of what it was given.
        """
        cells, path = self._cells, self.path.with_suffix(".plain.tif")
        checksums = {path: self._write_plain(cells, path, block)}
        while max(cells.height, cells.width) > _OVERVIEWS_ABOVE:
            path = path.with_name(f"{path.name}.ovr")
            half = cells.halved(path.with_suffix(".cells"))
            cells.close()
            self._cells = cells = half
            checksums[path] = self._write_plain(cells, path, block)
        return checksums

    def _write_plain(self, cells: CellArray, path: Path, block: int) -> int:
        checksum = 0
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            dtype="float32",
            count=cells.channels,
            width=cells.width,
            height=cells.height,
            transform=self._transform,
            crs=self._crs,
            nodata=np.nan,
            tiled=True,
            blockxsize=block,
            blockysize=block,
            interleave="pixel",
            bigtiff="IF_SAFER",
        ) as dataset:
            if self._descriptions:
                dataset.descriptions = self._descriptions
            for window in windows(cells.width, cells.height, block):
                left, top, width, height = window.flatten()
                pixels = cells.read(left, top, width, height).transpose(2, 0, 1)
                dataset.write(pixels, window=window)
                checksum = add_to_checksum(checksum, pixels)
        return checksum


def windows(width: int, height: int, block: int) -> Iterator[Window]:
    """Give the windows of a raster's blocks."""
    for top in range(0, height, block):
        for left in range(0, width, block):
            yield Window(left, top, min(block, width - left), min(block, height - top))


def add_to_checksum(checksum: int, pixels: NDArray[Any]) -> int:
    """Return the checksum of values, and of those before with it."""
    # NaN has many bit patterns, of which GDAL may give back another.
    if pixels.dtype.kind == "f":
        pixels = np.where(np.isnan(pixels), np.float32(np.nan), pixels)
    return zlib.crc32(np.ascontiguousarray(pixels).data, checksum)


def read_checksums(path: Path, sizes: int, block: int) -> list[int]:
    """Read a GeoTIFF at so many sizes, all of it, and return the checksum of each."""
    checksums = []
    for size in range(sizes):
        options = {"overview_level": size - 1} if size else {}
        checksum = 0
        with rasterio.open(path, **options) as dataset:
            for window in windows(dataset.width, dataset.height, block):
                checksum = add_to_checksum(checksum, dataset.read(window=window))
        checksums.append(checksum)
    return checksums


def block_size(channels: int) -> int:
    """Return the cells of a block's side, which holds all channels."""
    side = 512
    while side > 16 and side * side * channels * 4 > _BLOCK_BYTES:
        side //= 2
    return side


@contextmanager
def write_errors(path: Path, needed: int) -> Iterator[None]:
    """Turn what GDAL and rasterio raise, where a raster does not fit, into a UserError.

    Args:
        path: the raster.
        needed: bytes that it takes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except (RasterioError, CPLE_BaseError, SystemError) as error:
        # SystemError is what rasterio makes of a failure of GDAL that GDAL says nothing about.
        raise cannot_write(path, error, needed) from error
