"""Feature rasters: tiles are blended in a scratch file, which becomes a cloud-optimised GeoTIFF.

The scratch file is what keeps memory a matter of the tile: only the window of a tile is ever
held, whatever the size of the scene. It is a plain (rows, columns, channels) array, since with
hundreds of channels a raster library spends milliseconds per tile on going from band to band.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from eosfm_edge.bundle.manifest import Level
from eosfm_edge.files import cannot_write

FloatArray = NDArray[np.float32]

_BLOCK_BYTES = 8 << 20  # a block holds all channels: more of them, smaller blocks


class LevelRaster:
    """One level over the whole scene, in the making.

    Args:
        level: stride and channels.
        folder: where ``NAME.tif`` shall be; the scratch file is there too meanwhile.
        size: (width, height) in cells.
        transform: of the scene's pixels.
        crs: of the scene.

    Raises:
        OSError: there is no space for the scratch file, all of which is taken at once.
    """

    def __init__(
        self,
        level: Level,
        folder: Path,
        size: tuple[int, int],
        transform: Affine,
        crs: CRS | None,
    ) -> None:
        self.level = level
        self.path = folder / f"{level.name}.tif"
        self._width, self._height = size
        # The cell grid of stride s: same origin, cells s times as large.
        self._transform = transform * Affine.scale(level.stride)
        self._crs = crs
        self._bytes = self._width * self._height * level.channels * 4
        self._scratch = folder / f".{level.name}.scratch"
        self._file = os.open(self._scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._file, 0, self._bytes)
        except OSError:
            os.close(self._file)
            raise

    def __enter__(self) -> LevelRaster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def add(
        self,
        features: FloatArray,
        weights: FloatArray,
        valid: NDArray[np.bool_],
        left: int,
        top: int,
    ) -> None:
        """Add a tile's weighted features at a cell; cells that are not valid become NaN.

        Args:
            features: (C, h, w).
            weights: (h, w).
            valid: (h, w); must say the same of a cell in every tile that has it.
            left: first column.
            top: first row.
        """
        weighted = np.where(valid, weights, np.float32(np.nan)) * features
        for row, added in enumerate(weighted.transpose(1, 2, 0)):
            place = ((top + row) * self._width + left) * self.level.channels * 4
            sums = np.frombuffer(os.pread(self._file, added.size * 4, place), np.float32)
            os.pwrite(self._file, (sums + added.ravel()).tobytes(), place)

    def finish(self) -> int:
        """Write the cloud-optimised GeoTIFF; returns its size in bytes.

        Raises:
            UserError: it does not fit on the disk.
        """
        plain = self.path.with_suffix(".plain.tif")
        block = _block_size(self.level.channels)
        with _write_errors(self.path, self._bytes):
            self._write_plain(plain, block)
            # GDAL tells nobody when the last blocks do not fit on the disk; the size does.
            if plain.stat().st_size < self._bytes:
                raise cannot_write(self.path, "its last blocks are missing", self._bytes)
            os.truncate(self._file, 0)
            rasterio.shutil.copy(
                plain,
                self.path,
                driver="COG",
                blocksize=block,
                compress="DEFLATE",
                level=1,  # features hardly compress: more effort costs time and saves 2 %
                predictor="FLOATING_POINT",
                overview_resampling="AVERAGE",
                num_threads="ALL_CPUS",
                bigtiff="IF_SAFER",
            )
        plain.unlink()
        self._scratch.unlink()
        return self.path.stat().st_size

    def _write_plain(self, path: Path, block: int) -> None:
        """Write the scratch array as a tiled GeoTIFF, a row of blocks at a time."""
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            dtype="float32",
            count=self.level.channels,
            width=self._width,
            height=self._height,
            transform=self._transform,
            crs=self._crs,
            nodata=np.nan,
            tiled=True,
            blockxsize=block,
            blockysize=block,
            interleave="pixel",
            bigtiff="IF_SAFER",
        ) as dataset:
            for top in range(0, self._height, block):
                for left in range(0, self._width, block):
                    size = (min(block, self._height - top), min(block, self._width - left))
                    window = Window(left, top, size[1], size[0])
                    dataset.write(self._read(left, top, *size), window=window)

    def _read(self, left: int, top: int, height: int, width: int) -> FloatArray:
        """Return a window of the scratch array as (C, height, width)."""
        channels = self.level.channels
        rows = [
            os.pread(
                self._file,
                width * channels * 4,
                ((top + row) * self._width + left) * channels * 4,
            )
            for row in range(height)
        ]
        cells = np.frombuffer(b"".join(rows), np.float32)
        window: FloatArray = cells.reshape(height, width, channels).transpose(2, 0, 1)
        return window


def _block_size(channels: int) -> int:
    side = 512
    while side > 16 and side * side * channels * 4 > _BLOCK_BYTES:
        side //= 2
    return side


@contextmanager
def _write_errors(path: Path, needed: int) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except RasterioError as error:
        raise cannot_write(path, error, needed) from error
