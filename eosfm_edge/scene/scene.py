"""A scene on one grid: windows of all wanted bands, with a mask of valid pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.bands import SceneBand, open_bands
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.radiometry import is_reflectance
from eosfm_edge.scene.reading import FloatImage, Floats, Radiometry, Reading

Mask = NDArray[np.bool_]
Pixels = NDArray[Any]
Reader = Callable[[SceneBand, Window, tuple[int, int]], Pixels]

# GDAL keeps decoded blocks; a ceiling keeps memory a matter of the tile and the blocks, not of the
# scene. Where a row of blocks is more than the most, blocks are decoded several times.
CACHE_BYTES = 128 << 20
MOST_CACHE_BYTES = 512 << 20
# Pixels of the longer side of an overview, or of so many windows in a row.
SAMPLE = 192
SAMPLE_WINDOWS = 4
SMALL_SCENE = 2048 * 2048  # pixels: its blocks are kept for those who read it next


class Scene:
    """The wanted bands of a raster file or folder, on the grid of the finest of them.

    Coarser bands are brought to that grid by nearest neighbour: every pixel keeps a value that
    was measured. The scene is the part that all bands cover. Values come as the input's stored
    values, whatever scale and offset the files use.

    Attributes:
        width: pixels.
        height: pixels.
        transform: from pixel (column, row) to map coordinates.
        crs: the coordinate system, or None.
        grids: how each band's pixels lie in the scene's, where their edges are; a band with edges
            elsewhere comes resampled to the scene's.
        radiometry: what the caller says of the values.
        readings: how each band's stored values are read.
    """

    def __init__(
        self,
        path: SceneName,
        wanted: Sequence[InputBand],
        bands: Sequence[SceneBand],
        radiometry: Radiometry,
    ) -> None:
        self.path = path
        self.radiometry = radiometry
        self._wanted = tuple(wanted)
        self._bands = tuple(bands)
        self.readings = tuple(
            Reading(band, one, wanted, radiometry) for band, one in zip(bands, wanted, strict=True)
        )
        _require_grid(bands)
        self._warn_of_scale(radiometry)
        self._warn_of_nodata(radiometry)
        finest = min(bands, key=lambda b: abs(b.dataset.transform.determinant)).dataset
        self._aligned = all(_same_grid(b, bands[0]) for b in bands)
        self.crs: CRS | None = finest.crs
        if self._aligned:
            self.transform: Affine = finest.transform
            self.width, self.height = int(finest.width), int(finest.height)
        else:
            _require_north_up(bands)
            self.transform, self.width, self.height = _common_grid(finest.transform, bands, path)
        self._nested = [_nested(self.transform, band) for band in bands]
        self.grids = [nested or BandGrid() for nested in self._nested]

    def _warn_of_scale(self, radiometry: Radiometry) -> None:
        """Warn of floats that may be physical values where nothing else looks at them."""
        for band, wanted in zip(self._bands, self._wanted, strict=True):
            silent = band.scale_offset is None and radiometry.scale is None
            unknown = wanted.scale != 1 and not is_reflectance(wanted)
            if band.dtype.startswith("float") and unknown and silent and not radiometry.trusted:
                warnings.warn(
                    f"{band.place} holds {band.dtype} without a scale: its values are read as "
                    f"stored ones, of which physical = stored * {wanted.scale:g} + "
                    f"{wanted.offset:g}; if they are physical, pass --scale 1 --offset 0",
                    SceneWarning,
                    stacklevel=4,
                )
                return

    def _warn_of_nodata(self, radiometry: Radiometry) -> None:
        """Warn where --nodata names no value of the file, or leaves out what the file names."""
        given = radiometry.nodata
        if given is None:
            return
        if not any(reading.can_hold_nodata for reading in self.readings):
            band = self._bands[0]
            warnings.warn(
                f"--nodata {given:g} is not a value of {band.dtype}, which {band.place} holds: no "
                "pixel counts as nodata",
                SceneWarning,
                stacklevel=4,
            )
        for reading in self.readings:
            tag = reading.band.nodata
            if given != "none" and tag is not None and tag != given and not math.isnan(tag):
                warnings.warn(
                    f"{reading.band.place} says that its nodata value is {tag:g}: with --nodata "
                    f"{given:g} such pixels are read as data",
                    SceneWarning,
                    stacklevel=4,
                )
                return

    def require_room_for(self, tile: int) -> None:
        """Raise a UserError if a tile of that many pixels a side is larger than the scene."""
        if min(self.width, self.height) < tile:
            raise UserError(
                f"{self.path} is {self.width} x {self.height} pixels, smaller than a tile",
                expected=f"at least {tile} x {tile}",
                remedy="take a larger scene, or a smaller --tile",
            )

    def read(self, left: int, top: int, width: int, height: int) -> tuple[FloatImage, Mask]:
        """Read a window that lies inside the scene.

        Returns:
            Stored values (bands, height, width), float32, and a mask (height, width) that is
            true where every band has a value. Where it is false the values are the bands' fill.

        Raises:
            UserError: the file is damaged there.
        """
        window = (left, top, width, height)
        return self._assemble(
            (height, width), lambda band, read: self._read_band(band, read, *window)
        )

    def scale_offset(self, index: int) -> tuple[float, float]:
        """Return what makes physical values of those that :meth:`rows` gives of a band."""
        return self.readings[index].row_scale

    def row_count(self, index: int) -> int:
        """Return how many rows of a band cover the scene."""
        grid = self.grids[index]
        return -(-(self.height + grid.row_origin) // grid.step)

    def rows(self, index: int, first: int, count: int) -> FloatImage:
        """Read rows of one band, as coarse as :attr:`grids` says.

        Returns:
            float32 (count, width), NaN where the band has no data; :meth:`scale_offset` says what
            they mean.

        Raises:
            UserError: the file is damaged there.
        """
        reading, nested = self.readings[index], self._nested[index]
        grid = self.grids[index]
        width = -(-(self.width + grid.column_origin) // grid.step)
        if nested is None:
            values = self._measured(
                reading, lambda band, read: self._read_band(band, read, 0, first, width, count)
            )
        else:
            window = Window(nested.column, nested.row + first, width, count)
            values = self._measured(reading, lambda band, read: read(band, window, (count, width)))
        return reading.rows(values)

    def overview(self, longest: int) -> tuple[FloatImage, Mask]:
        """Read the whole scene at no more than ``longest`` pixels a side, nearest neighbour."""
        step = max(1.0, max(self.width, self.height) / longest)
        size = (max(1, round(self.height / step)), max(1, round(self.width / step)))
        return self._assemble(size, lambda band, read: read(band, self._whole(band), size))

    def sample(self) -> tuple[FloatImage, Mask]:
        """Read some pixels from all over the scene, without decoding all of it.

        Returns:
            As :meth:`read`, but of an overview, or of windows side by side where an overview would
            decode more than stays in the cache.
        """
        finest = min(self._bands, key=lambda b: abs(b.dataset.transform.determinant))
        small = self.width * self.height <= SMALL_SCENE or min(self.width, self.height) <= SAMPLE
        if small or finest.dataset.overviews(finest.index):
            return self.overview(SAMPLE)
        side = SAMPLE // SAMPLE_WINDOWS
        lefts, tops = (
            np.linspace(0, pixels - side, SAMPLE_WINDOWS).astype(int)
            for pixels in (self.width, self.height)
        )
        parts = [self.read(int(left), int(top), side, side) for top in tops for left in lefts]
        images, masks = zip(*parts, strict=True)
        return np.concatenate(images, axis=2), np.concatenate(masks, axis=1)

    def _assemble(
        self, size: tuple[int, int], read_with: Callable[[SceneBand, Reader], Pixels]
    ) -> tuple[FloatImage, Mask]:
        image = np.empty((len(self._bands), *size), np.float32)
        valid = np.ones(size, np.bool_)
        for i, reading in enumerate(self.readings):
            image[i] = reading.stored(self._measured(reading, read_with))
            valid &= np.isfinite(image[i])
        for i, wanted in enumerate(self._wanted):
            image[i][~valid] = wanted.fill
        return image, valid

    def _measured(
        self, reading: Reading, read_with: Callable[[SceneBand, Reader], Pixels]
    ) -> Floats:
        """Read a band, with NaN for what is no data."""
        values = reading.measured(read_with(reading.band, _read_values))
        if reading.band.has_mask:
            values[read_with(reading.band, _read_mask) == 0] = np.nan
        return values

    def _read_band(
        self, band: SceneBand, read: Reader, left: int, top: int, width: int, height: int
    ) -> Pixels:
        if self._aligned:
            return read(band, Window(left, top, width, height), (height, width))
        columns, rows = self._source_pixels(band, left, top, width, height)
        window = Window.from_slices((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))
        values = read(band, window, (int(window.height), int(window.width)))
        return values[np.ix_(rows - rows[0], columns - columns[0])]

    def _source_pixels(
        self, band: SceneBand, left: int, top: int, width: int, height: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the band's column and row under the centre of each pixel of a window."""
        to_source = ~band.dataset.transform @ self.transform
        columns, _ = to_source * (np.arange(left, left + width) + 0.5, np.full(width, 0.5))
        _, rows = to_source * (np.full(height, 0.5), np.arange(top, top + height) + 0.5)
        # Rounding in the transforms may put a centre on the edge just outside.
        height_there, width_there = band.dataset.shape
        return (
            np.clip(np.floor(columns).astype(np.int64), 0, width_there - 1),
            np.clip(np.floor(rows).astype(np.int64), 0, height_there - 1),
        )

    def _whole(self, band: SceneBand) -> Window:
        """Return the window of a band, in its own pixels, that is the whole scene."""
        to_source = ~band.dataset.transform @ self.transform
        left, top = to_source * (0, 0)
        right, bottom = to_source * (self.width, self.height)
        return Window(left, top, right - left, bottom - top)


@contextmanager
def open_scene(
    path: SceneName,
    wanted: Sequence[InputBand],
    *,
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
) -> Iterator[Scene]:
    """Open a scene for reading the bands that an ensemble or bundle takes.

    Args:
        path: a raster, folder, product or archive, by path or by GDAL's name for it (see
            :func:`~eosfm_edge.scene.bands.open_bands`).
        wanted: the input's bands.
        names: what the bands of a file are, or the files of a folder in the order of their
            names, if these do not say so.
        radiometry: scale, offset and nodata instead of what the files say.

    Raises:
        UserError: it cannot be opened, lacks a band, or has a value type that is not supported.
    """
    with (
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
        open_bands(path, wanted, names) as bands,
    ):
        _warn_of_places(wanted, bands, path)
        with rasterio.Env(GDAL_CACHEMAX=cache_bytes(bands)):
            yield Scene(path, wanted, bands, radiometry or Radiometry())


def cache_bytes(bands: Sequence[SceneBand]) -> int:
    """Return what GDAL must keep so that reading rows of all bands decodes each block once.

    That is a row of blocks of each band, and of the largest one more, which rows may reach into.
    Sentinel-2's JPEG 2000 files have blocks of 1024 x 1024 pixels: with less, every block is
    decoded again for every few rows.
    """
    rows: list[int] = []
    for dataset in {band.dataset for band in bands}:  # GDAL decodes all bands of a file together
        for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
            across = -(-dataset.width // width) * width
            rows.append(min(height, dataset.height) * across * np.dtype(dtype).itemsize)
    return min(max(CACHE_BYTES, sum(rows) + max(rows)), MOST_CACHE_BYTES)


def _warn_of_places(wanted: Sequence[Band], matched: Sequence[SceneBand], path: SceneName) -> None:
    if not all(band.band.known for band in matched) and all(band.known for band in wanted):
        warnings.warn(
            f"{path} does not say what its bands are: they are taken in order as "
            f"{', '.join(str(band) for band in wanted)}; if they are others, pass --bands",
            SceneWarning,
            stacklevel=4,
        )


def _read_values(band: SceneBand, window: Window, size: tuple[int, int]) -> Pixels:
    with _read_errors(band):
        values: Pixels = band.dataset.read(
            band.index,
            window=window,
            out_shape=size,
            resampling=Resampling.nearest,
        )
    return values


def _read_mask(band: SceneBand, window: Window, size: tuple[int, int]) -> Pixels:
    """Read a mask or alpha band: 0 where there is no data."""
    with _read_errors(band):
        if band.alpha is not None:
            alpha: Pixels = band.dataset.read(
                band.alpha, window=window, out_shape=size, resampling=Resampling.nearest
            )
            return alpha
        mask: Pixels = band.dataset.read_masks(
            band.index, window=window, out_shape=size, resampling=Resampling.nearest
        )
    return mask


@contextmanager
def _read_errors(band: SceneBand) -> Iterator[None]:
    try:
        yield
    except RasterioIOError as error:
        raise UserError(f"cannot read {band.place}: {error}") from error


@dataclass(frozen=True)
class BandGrid:
    """The place of a band's pixels in the scene's grid.

    Attributes:
        row: of the band, which covers the scene's first row.
        column: the same.
        step: pixels of the scene, in each direction, that one of the band's covers.
        row_origin: pixels of the scene by which that row begins before the scene's first.
        column_origin: the same.
    """

    row: int = 0
    column: int = 0
    step: int = 1
    row_origin: int = 0
    column_origin: int = 0


def _nested(transform: Affine, band: SceneBand) -> BandGrid | None:
    """Return how a band's grid holds the scene's, or None: edges of pixels lie elsewhere."""
    to_source = ~band.dataset.transform @ transform
    step = round(1 / to_source.a) if to_source.a > 0 else 0
    if step < 1:
        return None
    column, column_origin = divmod(round(to_source.c * step), step)
    row, row_origin = divmod(round(to_source.f * step), step)
    if not to_source.almost_equals(
        Affine(1 / step, 0, column + column_origin / step, 0, 1 / step, row + row_origin / step),
        precision=1e-6,
    ):
        return None
    return BandGrid(row, column, step, row_origin, column_origin)


def _require_grid(bands: Sequence[SceneBand]) -> None:
    for band in bands:
        if band.dataset.gcps[0] and band.dataset.transform.is_identity:
            raise UserError(
                f"{band.dataset.name} has ground control points instead of a grid",
                remedy="bring it to a grid with gdalwarp",
            )


def _same_grid(one: SceneBand, other: SceneBand) -> bool:
    a, b = one.dataset, other.dataset
    return a is b or (a.transform, a.shape, a.crs) == (b.transform, b.shape, b.crs)


def _require_north_up(bands: Sequence[SceneBand]) -> None:
    first = bands[0].dataset
    for band in bands:
        t = band.dataset.transform
        if t.b or t.d or t.a <= 0 or t.e >= 0:
            raise UserError(
                f"{band.place} is rotated or upside down, and its grid differs from the others'",
                expected="north-up bands, or bands on one grid",
                remedy="bring them to one grid with gdalwarp",
            )
        if band.dataset.crs != first.crs:
            raise UserError(
                f"{band.place} is in {band.dataset.crs}, {first.name} in {first.crs}",
                expected="one coordinate system",
                remedy="bring them to one with gdalwarp",
            )


def _common_grid(
    finest: Affine, bands: Sequence[SceneBand], path: SceneName
) -> tuple[Affine, int, int]:
    """Return the part of the finest grid whose pixel centres all bands cover."""
    bounds = [band.dataset.bounds for band in bands]
    inverse = ~finest
    left, top = inverse * (max(b.left for b in bounds), min(b.top for b in bounds))
    right, bottom = inverse * (min(b.right for b in bounds), max(b.bottom for b in bounds))
    # Pixel n has its centre at n + 0.5; the tolerance takes up rounding in the transforms.
    first_column, end_column = (math.ceil(edge - 0.5 - 1e-6) for edge in (left, right))
    first_row, end_row = (math.ceil(edge - 0.5 - 1e-6) for edge in (top, bottom))
    width, height = end_column - first_column, end_row - first_row
    if width <= 0 or height <= 0:
        raise UserError(f"the bands of {path} do not overlap")
    return finest @ Affine.translation(first_column, first_row), width, height
