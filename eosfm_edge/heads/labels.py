"""Labels of places on the ground, as codes of a scene's cells."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from eosfm_edge.errors import UserError
from eosfm_edge.formats.heads import NO_CLASS
from eosfm_edge.scene.scene import Scene

Codes = NDArray[np.uint8]  # NO_CLASS where there is no label

_LEAST_SHARE = 0.5  # of a cell's pixels have its label
_ROWS_AT_ONCE = 64  # of cells
_WGS84 = CRS.from_epsg(4326)
_POINTS = ("lon", "lat", "label")
_TABLES = (".csv", ".txt")
_VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet", ".kml")
# The name of the attribute with the labels, where there are several.
_USUAL_COLUMNS = ("label", "class")


@dataclass(frozen=True)
class Labels:
    """The classes of a file of labels, wherever it lies.

    Attributes:
        path: the file.
        names: of classes, by code, where the file has texts.
        colours: by code, where the file has a table of them.
        column: the attribute with the labels, of vectors.
    """

    path: Path
    names: Mapping[int, str]
    colours: Mapping[int, tuple[int, int, int]]
    column: str | None = None

    def over(self, scene: Scene, stride: int) -> Codes:
        """Return the code of each cell of ``stride`` pixels: that of at least half of its pixels.

        Points give their cell the label that most of them have there.

        Raises:
            UserError: the labels are of another place, or it is not known of which.
        """
        if self.path.suffix.lower() in _TABLES:
            return self._of_points(scene, stride)
        if self.path.suffix.lower() in _VECTORS:
            return self._of_polygons(scene, stride)
        return self._of_raster(scene, stride)

    def _of_raster(self, scene: Scene, stride: int) -> Codes:
        with rasterio.open(self.path) as source:
            same = source.shape == (scene.height, scene.width)
            if source.crs is None or scene.crs is None:
                if source.crs != scene.crs or not same:
                    raise self._without_crs(source.crs is None, scene)
                aligned = True
            else:
                aligned = (
                    same
                    and source.crs == scene.crs
                    and source.transform.almost_equals(scene.transform, 1e-6)
                )
            try:
                if aligned:
                    return _majority(_strips(source, scene, stride), scene, stride)
                with WarpedVRT(
                    source,
                    crs=scene.crs,
                    transform=scene.transform,
                    width=scene.width,
                    height=scene.height,
                    resampling=Resampling.nearest,
                    add_alpha=source.nodata is None,
                ) as warped:
                    return _majority(_strips(warped, scene, stride), scene, stride)
            except RasterioError as error:
                raise UserError(f"cannot read {self.path}: {error}") from error

    def _without_crs(self, mine: bool, scene: Scene) -> UserError:
        lacking, other = (self.path, scene.path) if mine else (scene.path, self.path)
        return UserError(
            f"{lacking} has no coordinate system, so it cannot be laid over {other}",
            expected="both with one, or both without and of the same size",
            remedy=f"name it: gdal_edit.py -a_srs EPSG:CODE {lacking}",
        )

    def _of_polygons(self, scene: Scene, stride: int) -> Codes:
        from rasterio.features import rasterize
        from rasterio.warp import transform_geom

        if scene.crs is None:
            raise self._without_crs(False, scene)
        geometries, values, crs = _read_vectors(self.path, self.column)
        if crs is None:
            raise self._without_crs(True, scene)
        coded = self._coded(values)
        shapes = [
            (transform_geom(crs, scene.crs, geometry), code)
            for geometry, code in zip(geometries, coded, strict=True)
            if geometry is not None and code != NO_CLASS
        ]
        if not shapes:
            return np.full(_cells(scene, stride), NO_CLASS, np.uint8)
        pixels = rasterize(
            shapes,
            out_shape=(scene.height, scene.width),
            transform=scene.transform,
            fill=NO_CLASS,
            dtype="uint8",
        )
        rows = _ROWS_AT_ONCE * stride
        strips = (pixels[top : top + rows] for top in range(0, scene.height, rows))
        return _majority(strips, scene, stride)

    def _of_points(self, scene: Scene, stride: int) -> Codes:
        if scene.crs is None:
            raise self._without_crs(False, scene)
        lon, lat, values = _read_points(self.path)
        x, y = transform_points(_WGS84, scene.crs, lon, lat)
        columns, rows = ~scene.transform * (np.array(x), np.array(y))
        codes = np.full(_cells(scene, stride), NO_CLASS, np.uint8)
        counted: dict[tuple[int, int], Counter[int]] = {}
        for row, column, code in zip(rows, columns, self._coded(values), strict=True):
            if 0 <= row < scene.height and 0 <= column < scene.width and code != NO_CLASS:
                cell = int(row) // stride, int(column) // stride
                counted.setdefault(cell, Counter())[code] += 1
        for cell, counts in counted.items():
            codes[cell] = min(counts, key=lambda code: (-counts[code], code))
        return codes

    def _coded(self, values: Iterable[Any]) -> list[int]:
        by_name = {name: code for code, name in self.names.items()}
        texts = map(_text, values)
        return [
            by_name.get(text, NO_CLASS) if by_name else _as_code(text, self.path) for text in texts
        ]


def read_labels(path: Path, column: str | None = None) -> Labels:
    """Read what classes a file of labels has: a raster, polygons or a table of points.

    Args:
        path: a raster of whole numbers, vectors of any kind that GDAL reads, or a CSV with the
            columns lon, lat (WGS 84) and label.
        column: the attribute of vectors that holds the labels.

    Raises:
        UserError: it cannot be read, or is none of these.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(
            f"{path} does not exist", expected="a raster, polygons, or a CSV of lon,lat,label"
        )
    if column is not None and suffix not in _VECTORS:
        raise UserError(f"{path} has no attributes, and the column {column} is given of them")
    if suffix in _TABLES:
        return Labels(path, _names_of(_read_points(path)[2], path), {})
    if suffix in _VECTORS:
        found = _column_of(path, column)
        return Labels(path, _names_of(_read_vectors(path, found)[1], path), {}, found)
    try:
        with rasterio.open(path) as source:
            if source.count != 1 or not np.issubdtype(np.dtype(source.dtypes[0]), np.integer):
                bands = f" in {source.count} bands" if source.count != 1 else ""
                raise UserError(
                    f"{path} holds {source.dtypes[0]}{bands}",
                    expected="one band of whole numbers from 0 to 254: codes of classes",
                )
            colours = {}
            if source.colorinterp[0] == ColorInterp.palette:
                colours = {code: rgba[:3] for code, rgba in source.colormap(1).items()}
            return Labels(path, {}, colours)
    except RasterioError as error:
        raise UserError(
            f"cannot read {path}: {error}",
            expected="a raster, polygons, or a CSV of lon,lat,label",
        ) from error


def _cells(scene: Scene, stride: int) -> tuple[int, int]:
    return -(-scene.height // stride), -(-scene.width // stride)


def _strips(source: Any, scene: Scene, stride: int) -> Iterable[Codes]:
    """Give the codes of rows of pixels of a raster on the scene's grid, some at a time."""
    rows = _ROWS_AT_ONCE * stride
    for top in range(0, scene.height, rows):
        window = Window(0, top, scene.width, min(rows, scene.height - top))
        values = source.read(1, window=window)
        valid = source.read_masks(1, window=window) > 0
        if isinstance(source, WarpedVRT) and source.nodata is None:
            valid &= source.read(source.count, window=window) > 0  # the alpha band
        outside = valid & ((values < 0) | (values >= NO_CLASS))
        if (outside & (values != NO_CLASS)).any():
            odd = values[outside & (values != NO_CLASS)][0]
            raise UserError(
                f"{source.name} has the value {odd}",
                expected="codes of classes from 0 to 254",
                remedy="recode it, or give it as the nodata value",
            )
        yield np.where(valid & ~outside, values, NO_CLASS).astype(np.uint8)


def _majority(strips: Iterable[Codes], scene: Scene, stride: int) -> Codes:
    """Return the code that at least half of a cell's pixels have."""
    height, width = _cells(scene, stride)
    result = np.full((height, width), NO_CLASS, np.uint8)
    top = 0
    for pixels in strips:
        rows = -(-len(pixels) // stride)
        whole = np.full((rows * stride, width * stride), NO_CLASS, np.uint8)
        whole[: len(pixels), : pixels.shape[1]] = pixels
        cells = whole.reshape(rows, stride, width, stride)
        best = np.full((rows, width), math.ceil(_LEAST_SHARE * stride * stride) - 1, np.int32)
        part = result[top : top + rows]
        for code in np.unique(pixels[pixels != NO_CLASS]):
            counts = (cells == code).sum(axis=(1, 3))
            part[counts > best] = code
            best = np.maximum(best, counts)
        top += rows
    return result


def _read_points(path: Path) -> tuple[list[float], list[float], list[str]]:
    """Read a table's longitudes, latitudes and labels."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            if lacking := [name for name in _POINTS if name not in header]:
                raise UserError(
                    f"{path} has no column {lacking[0]}; it has {', '.join(header) or 'none'}",
                    expected=f"the columns {', '.join(_POINTS)}, in degrees of WGS 84",
                )
            lon, lat, labels = [], [], []
            for line, row in enumerate(reader, 2):
                try:
                    x, y = (float(row[header[name]]) for name in ("lon", "lat"))
                except (TypeError, ValueError):
                    x = y = math.nan
                if not (-180 <= x <= 180 and -90 <= y <= 90):
                    raise UserError(
                        f"line {line} of {path} has the place "
                        f"{row[header['lon']]}, {row[header['lat']]}",
                        expected="longitude and latitude in degrees of WGS 84",
                    )
                lon.append(x)
                lat.append(y)
                labels.append((row[header["label"]] or "").strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV: {error}", expected="UTF-8 text") from error
    if not lon:
        raise UserError(f"{path} has no points", expected="a line for each, under the header")
    return lon, lat, labels


def _column_of(path: Path, column: str | None) -> str:
    """Return the attribute with the labels: the one that is given, the usual, or the only one."""
    import pyogrio

    fields = [str(name) for name in _vector_errors(path, lambda: pyogrio.read_info(path))["fields"]]
    if column is not None and column in fields:
        return column
    usual = [name for name in fields if name.lower() in _USUAL_COLUMNS]
    if column is None and len(usual or fields) == 1:
        return (usual or fields)[0]
    raise UserError(
        f"{path} has no attribute {column}" if column else f"{path} has several attributes",
        expected=f"the one with the labels: {', '.join(fields) or 'it has none'}",
        remedy="name it: --column NAME",
    )


def _read_vectors(path: Path, column: str | None) -> tuple[list[Any], list[Any], Any]:
    """Read the geometries of a layer as GeoJSON, their labels and the coordinate system."""
    import pyogrio.raw
    import shapely
    from shapely.geometry import mapping

    meta, _, wkb, fields = _vector_errors(
        path, lambda: pyogrio.raw.read(path, columns=[column] if column else [])
    )
    shapes = shapely.from_wkb(wkb)
    geometries = [None if one is None or one.is_empty else mapping(one) for one in shapes]
    return geometries, list(fields[0]), meta["crs"]


def _vector_errors(path: Path, read: Any) -> Any:
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        return read()
    except (DataSourceError, DataLayerError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: {error}", expected="polygons, in a layer of their own"
        ) from error


def _names_of(values: list[Any], path: Path) -> dict[int, str]:
    """Return the names by code where labels are texts: codes count from 1, in alphabetical order.

    Labels that are all whole numbers are codes themselves.
    """
    texts = sorted({_text(value) for value in values} - {""})
    if not texts:
        raise UserError(f"{path} has no label", expected="names or codes of classes")
    if all(_is_whole(text) for text in texts):
        return {}
    if len(texts) >= NO_CLASS:
        raise UserError(
            f"{path} has {len(texts)} labels that differ", expected=f"fewer than {NO_CLASS} classes"
        )
    return dict(enumerate(texts, 1))


def _text(value: Any) -> str:
    """Return a label as text; "" of what is missing, which is None or not a number in vectors."""
    return "" if value is None or value != value else str(value).strip()


def _is_whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False


def _as_code(text: str, path: Path) -> int:
    if not text:
        return NO_CLASS
    code = int(float(text))
    if not 0 <= code < NO_CLASS:
        raise UserError(f"{path} has the label {code}", expected="codes of classes from 0 to 254")
    return code
