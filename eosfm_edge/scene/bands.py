"""Which file, and which band in it, holds each band of a scene."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from eosfm_edge.ensemble.bands import S1, S2_L1C, Band, canonical, find
from eosfm_edge.errors import UserError

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_SPECTRUM = tuple(Band(name=name) for name in (*S2_L1C, *S1))
_RASTERS = {".tif", ".tiff", ".jp2", ".img", ".vrt", ".nc"}
_BAND_IN_NAME = re.compile(r"(?:^|[_.-])(B\d{1,2}A?|VV|VH)(?=[_.-]|$)", re.IGNORECASE)


# A path, or a name that GDAL knows and the file system does not: https://..., HDF5:"..."://...
SceneName = Path | str


@dataclass(frozen=True)
class SceneBand:
    """One band of a scene: where it is stored and what it is.

    Attributes:
        dataset: the file.
        index: in the file, from 1, as rasterio counts.
        band: what it is.
        alpha: the file's band, from 1 too, that is 0 where there is no data; None: there is none.
    """

    dataset: DatasetReader
    index: int
    band: Band
    alpha: int | None = None

    @property
    def place(self) -> str:
        """The band as messages name it."""
        return f"{self.dataset.name} band {self.index}"

    @property
    def dtype(self) -> str:
        """The type that its values are stored in."""
        return str(self.dataset.dtypes[self.index - 1])

    @property
    def nodata(self) -> float | None:
        """The file's own nodata value."""
        value: float | None = self.dataset.nodatavals[self.index - 1]
        return value

    @property
    def has_mask(self) -> bool:
        """Whether a mask or an alpha band says which pixels have data."""
        flags = self.dataset.mask_flag_enums[self.index - 1]
        # GDAL's own rule for alpha bands knows files of two and four bands only, and takes NAIP's
        # near infrared for one.
        return self.alpha is not None or (
            MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        )

    @property
    def scale_offset(self) -> tuple[float, float] | None:
        """The file's own scale and offset, where it says that they are not 1 and 0."""
        pair = (self.dataset.scales[self.index - 1], self.dataset.offsets[self.index - 1])
        return None if pair == (1.0, 0.0) else pair


def open_bands(path: SceneName, names: Sequence[Band] | None) -> list[SceneBand]:
    """Open the bands of a raster file, or of a folder of single-band files.

    Bands are known by ``names`` where given, else by the file's band descriptions or, in a
    folder, by the file names (``..._B04.jp2``, ``..._B8A_20m.tif``), those in the folders R10m,
    R20m and R60m of a Sentinel-2 L2A product too; of several files for one band the finest is
    taken.

    Raises:
        UserError: nothing can be opened, ``names`` are not as many as the bands, or two files of
            one resolution are for the same band.
    """
    folder = path if isinstance(path, Path) and path.is_dir() else None
    bands = _open_folder(folder) if folder else _open_file(path)
    if names is not None:
        if folder:
            raise UserError(f"{path} is a folder: its files' names say what the bands are")
        if len(names) != len(bands):
            raise UserError(f"{path} has {len(bands)} bands", expected=f"{len(names)}, as named")
        bands = [SceneBand(b.dataset, b.index, n) for b, n in zip(bands, names, strict=True)]
    return bands


def match_bands(
    wanted: Sequence[Band], scene: Sequence[SceneBand], path: SceneName
) -> list[SceneBand]:
    """Return the scene's bands that the input wants, in the input's order.

    By name or wavelength where both sides know theirs, else by place if the number agrees.

    Raises:
        UserError: a band is missing, the number differs, or values are of an unsupported type.
    """
    if all(b.band.known for b in scene) and all(b.known for b in wanted):
        places = [find(band, [b.band for b in scene]) for band in wanted]
        missing = [str(band) for band, place in zip(wanted, places, strict=True) if place is None]
        if missing:
            raise UserError(
                f"{path} lacks {', '.join(missing)}: it has "
                f"{', '.join(str(b.band) for b in scene)}",
                expected=", ".join(str(band) for band in wanted),
                remedy=f"add the files of {', '.join(missing)} to the folder"
                if isinstance(path, Path) and path.is_dir()
                else "if its bands are called otherwise, name them in order with --bands",
            )
        matched = [scene[place] for place in places if place is not None]
    elif len(scene) == len(wanted):
        matched = list(scene)
    else:
        raise UserError(
            f"{path} has {len(scene)} bands without names",
            expected=f"{len(wanted)}: {', '.join(str(band) for band in wanted)}",
            remedy="name the scene's bands with --bands",
        )
    for band in matched:
        if band.dtype not in DTYPES:
            raise UserError(
                f"{band.place} is of type {band.dtype}",
                expected=", ".join(DTYPES),
                remedy="convert it with gdal_translate -ot Int32, or -ot Float64",
            )
    return matched


def _open(path: SceneName) -> DatasetReader:
    try:
        return rasterio.open(path)
    except RasterioIOError as error:
        if isinstance(path, Path) and not path.exists():
            raise UserError(
                f"{path} does not exist", expected="a raster file or a folder"
            ) from error
        raise UserError(f"cannot open {path} as a raster: {error}") from error


def _open_file(path: SceneName) -> list[SceneBand]:
    dataset = _open(path)
    if dataset.count == 0:
        raise UserError(
            f"{path} has no bands of its own",
            remedy="give one of its subdatasets, or the folder with its bands",
        )
    bands = [Band(name=canonical(text)) if text else Band() for text in dataset.descriptions]
    kinds = list(enumerate(zip(bands, dataset.colorinterp, strict=True), start=1))
    masks = [i for i, (band, colour) in kinds if _is_mask(band, colour)]
    alpha = masks[0] if masks else None
    return [SceneBand(dataset, i, band, alpha) for i, (band, _) in kinds if i not in masks]


def _is_mask(band: Band, colour: ColorInterp) -> bool:
    """Whether a band is alpha, and not one of the spectrum that is flagged so, as NAIP's NIR is."""
    return colour is ColorInterp.alpha and find(band, _SPECTRUM) is None


def _open_folder(folder: Path) -> list[SceneBand]:
    by_name: dict[str, SceneBand] = {}
    for path, name in band_files(folder):
        band = SceneBand(_open(path), 1, Band(name=name))
        if band.dataset.count != 1:
            raise UserError(
                f"{path} has {band.dataset.count} bands", expected="a file for each band"
            )
        known = by_name.get(name)
        if known is not None and band.dataset.res == known.dataset.res:
            raise UserError(
                f"{known.dataset.name} and {path} are both {name}, of one resolution",
                expected="the bands of one acquisition",
                remedy="move those of another to a folder of their own",
            )
        if known is None or band.dataset.res[0] < known.dataset.res[0]:
            by_name[name] = band
    if not by_name:
        raise UserError(
            f"{folder} holds no band files",
            expected="files like ..._B04.jp2 or ..._VV.tif",
        )
    return list(by_name.values())


def band_files(folder: Path) -> list[tuple[Path, str]]:
    """Return the files whose names say a band, with it; a Sentinel-2 L2A product's folders too."""
    places = [folder, *sorted(folder.glob("R[126]0m"))]
    found = []
    for path in (path for place in places for path in sorted(place.iterdir())):
        named = _BAND_IN_NAME.search(path.stem)
        if path.suffix.lower() in _RASTERS and named:
            found.append((path, canonical(named[1])))
    return found
