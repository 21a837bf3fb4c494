"""Maps of heads: class codes with their colours and names, probabilities, and numbers."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from xml.etree import ElementTree as Xml

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from eosfm_edge.bundle.heads import head_names
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.files import cannot_write
from eosfm_edge.formats.bundle import Level, Manifest
from eosfm_edge.formats.heads import NO_CLASS
from eosfm_edge.native.binding import Context
from eosfm_edge.native.head import Head
from eosfm_edge.native.header import EosfmError
from eosfm_edge.native.stream import PatchMap
from eosfm_edge.runtime.cells import CellArray
from eosfm_edge.runtime.codes import BLOCK, create_codes, move_to_cog
from eosfm_edge.runtime.features import (
    LevelRaster,
    add_to_checksum,
    read_checksums,
    windows,
    write_errors,
    written_bytes,
)

# Of GDAL's raster attribute tables: what a column is, and of which type.
_COLUMNS = (
    ("Value", "0", "5"),
    ("Class_Name", "2", "2"),
    ("Red", "0", "6"),
    ("Green", "0", "7"),
    ("Blue", "0", "8"),
)


def open_heads(context: Context, bundle: Path, manifest: Manifest) -> list[Head]:
    """Open the heads that are in a bundle.

    Raises:
        CheckFailedError: one does not fit the bundle.
    """
    heads = []
    for name in head_names(bundle, manifest):
        try:
            heads.append(context.head(name))
        except EosfmError as error:
            raise CheckFailedError(
                str(error), remedy=f"fit it again, or eosfm-edge head remove {bundle} {name}"
            ) from error
    return heads


def map_names(name: str) -> list[str]:
    """Return the names of all files that the maps of a head may be."""
    return [f"{name}.tif", f"{name}.tif.aux.xml", f"{name}.probabilities.tif"]


class MapRasters:
    """The maps of one head over the whole scene, in the making.

    ``NAME.tif`` has codes of classes (uint8, 255 where there is no data), with a colour table, and
    the classes' names in ``NAME.tif.aux.xml``, where GDAL keeps them. Of a regression it has the
    numbers (float32, NaN where there is no data).

    Args:
        head: that answers.
        folder: where the files shall be; scratch files are there too meanwhile.
        size: (width, height) of the scene in pixels.
        transform: of the scene's pixels.
        crs: of the scene.
        probabilities: write ``NAME.probabilities.tif`` too: float32, a band for each class.
        tags: of ``NAME.tif``.

    Raises:
        OSError: there is no space.
    """

    def __init__(
        self,
        head: Head,
        folder: Path,
        size: tuple[int, int],
        transform: Affine,
        crs: CRS | None,
        *,
        probabilities: bool,
        tags: dict[str, str],
    ) -> None:
        self.head, self._folder, self._tags = head, folder, tags
        stride = 4 << head.level
        width, height = (-(-pixels // stride) for pixels in size)
        self._transform, self._crs = transform @ Affine.scale(stride), crs
        self._stack = ExitStack()
        self._codes: CellArray | None = None
        self._outputs: LevelRaster | None = None
        if head.classes:
            self._codes = CellArray(
                folder / f".{head.name}.codes", height, width, 1, np.dtype(np.uint8)
            )
            self._stack.callback(self._codes.close)
        if probabilities or not head.classes:
            name = f"{head.name}.probabilities" if head.classes else head.name
            self._outputs = self._stack.enter_context(
                LevelRaster(
                    Level(name=name, stride=stride, channels=head.outputs),
                    folder,
                    (width, height),
                    transform,
                    crs,
                    [one.name for one in head.classes],
                )
            )

    @staticmethod
    def bytes(head: Head, width: int, height: int, *, probabilities: bool) -> int:
        """Return about how large the maps over a scene of so many pixels are, uncompressed."""
        stride = 4 << head.level
        width, height = -(-width // stride), -(-height // stride)
        size = 2 * width * height + (1 << 20) if head.classes else 0
        if probabilities or not head.classes:
            size += written_bytes(width, height, head.outputs)
        return size

    def __enter__(self) -> MapRasters:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write(self, part: PatchMap) -> None:
        """Write the head's part of a patch."""
        if self._codes is not None:
            assert part.classes is not None, "the head has classes"
            self._codes.write(part.classes[..., np.newaxis], part.column, part.row)
        if self._outputs is not None:
            self._outputs.write(part.outputs, part.column, part.row)

    def finish(self) -> dict[str, int]:
        """Write the cloud-optimised GeoTIFFs; returns the sizes of the files in bytes.

        Raises:
            UserError: one does not fit on the disk.
        """
        written = []
        if self._codes is not None:
            written.append(self._write_codes(self._codes))
            written.append(_write_names(written[0], self.head))
        sizes = {path.name: path.stat().st_size for path in written}
        if self._outputs is not None:
            sizes[self._outputs.path.name] = self._outputs.finish()
        return sizes

    def _write_codes(self, cells: CellArray) -> Path:
        path = self._folder / f"{self.head.name}.tif"
        plain = path.with_suffix(".plain.tif")
        needed = 2 * cells.bytes + (1 << 20)
        checksum = 0
        with write_errors(path, needed):
            with create_codes(
                plain,
                cells.width,
                cells.height,
                crs=self._crs,
                transform=self._transform,
                colours={one.code: one.colour for one in self.head.classes},
                nodata=NO_CLASS,
            ) as dataset:
                dataset.descriptions = (self.head.name,)
                dataset.update_tags(**self._tags)
                for window in windows(cells.width, cells.height, BLOCK):
                    left, top, width, height = window.flatten()
                    codes = cells.read(left, top, width, height).transpose(2, 0, 1)
                    dataset.write(codes, window=window)
                    checksum = add_to_checksum(checksum, codes)
            cells.close()
            move_to_cog(plain, path, "MODE")
            # GDAL tells nobody when a block does not fit on the disk: see what is there.
            if read_checksums(path, 1, BLOCK) != [checksum]:
                raise cannot_write(path, "it does not read back as it was written", needed)
        return path


def _write_names(path: Path, head: Head) -> Path:
    """Write the names and colours of a map's classes where GDAL and QGIS look for them."""
    root = Xml.Element("PAMDataset")
    band = Xml.SubElement(root, "PAMRasterBand", band="1")
    names = {one.code: one.name for one in head.classes}
    categories = Xml.SubElement(band, "CategoryNames")
    for code in range(max(names) + 1):
        Xml.SubElement(categories, "Category").text = names.get(code, "")
    table = Xml.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (column, kind, usage) in enumerate(_COLUMNS):
        field = Xml.SubElement(table, "FieldDefn", index=str(index))
        for key, value in (("Name", column), ("Type", kind), ("Usage", usage)):
            Xml.SubElement(field, key).text = value
    for index, one in enumerate(head.classes):
        row = Xml.SubElement(table, "Row", index=str(index))
        for cell in (one.code, one.name, *one.colour):
            Xml.SubElement(row, "F").text = str(cell)
    Xml.indent(root)
    target = path.with_name(f"{path.name}.aux.xml")
    target.write_bytes(Xml.tostring(root, "utf-8") + b"\n")
    return target


def map_tags(head: Head, manifest: Manifest) -> dict[str, str]:
    """Return what a map says of where it comes from."""
    return {"head": head.name, "bundle": manifest.name, "precision": manifest.precision}
