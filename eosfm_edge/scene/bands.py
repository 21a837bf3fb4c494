"""Find the file, and the band in it, that holds each band of a scene."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import S2_L1C, Band, nearest
from eosfm_edge.scene.containers import Container, SceneName, container_of
from eosfm_edge.scene.names import (
    is_unexplained,
    meanings,
    order_of,
    read_description,
    read_file_name,
)
from eosfm_edge.scene.products import NOTHING, Metadata, OfProduct, band_files, rasters

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_OF_VARIABLES = ("netCDF", "HDF5", "Zarr")  # GDAL's drivers of files with a variable a band
_DATE = re.compile(
    r"(?<!\d)(?:19|20)\d\d(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|[0-3]\d\d(?=T))(?!\d)"
)
_MOST_NAMED = 20
_TAGS_OF_A_SENSOR = (
    "LANDSAT_PRODUCT_ID",
    "PLATFORM",
    "PRODUCT_URI",
    "SATELLITEID",
    "SPACECRAFT_NAME",
)
_RADAR = ("VV", "VH", "HH", "HV")


@dataclass(frozen=True)
class SceneBand:
    """One band of a scene: where it is stored and what it is.

    Attributes:
        dataset: the open file.
        index: in the file, from 1, as rasterio counts.
        band: its name, wavelength, both or neither.
        alpha: the file's band, from 1 too, that is 0 where there is no data; None: there is none.
        product: what the metadata of its product say, where the file says nothing.
    """

    dataset: DatasetReader
    index: int
    band: Band
    alpha: int | None = None
    product: OfProduct = NOTHING

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
        """The file's own nodata value, or that of its product."""
        value: float | None = self.dataset.nodatavals[self.index - 1]
        return value if value is not None else self._of_product.nodata

    @property
    def has_mask(self) -> bool:
        """Return whether a mask or an alpha band marks the pixels that have data."""
        flags = self.dataset.mask_flag_enums[self.index - 1]
        # GDAL's own rule for alpha bands knows files of two and four bands only, and takes NAIP's
        # near infrared for one.
        return self.alpha is not None or (
            MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        )

    @property
    def scale_offset(self) -> tuple[float, float] | None:
        """The scale and offset of the file, where they are not 1 and 0, or of its product."""
        pair = (self.dataset.scales[self.index - 1], self.dataset.offsets[self.index - 1])
        return self._of_product.scale_offset if pair == (1.0, 0.0) else pair

    @property
    def _of_product(self) -> OfProduct:
        """The product's metadata, if this is a file of it: products hold whole numbers."""
        whole = np.issubdtype(np.dtype(self.dtype), np.integer)
        return self.product if whole else NOTHING


@dataclass(frozen=True)
class _Offer:
    """A band that a scene has: its file is opened when the band is wanted."""

    place: SceneName
    band: Band
    index: int = 1
    file: PurePath | None = None  # in a folder or archive: it must hold no other band
    alpha: int | None = None
    product: OfProduct = NOTHING  # of a file that is read through its product's metadata

    def __str__(self) -> str:
        return f"{self.place} band {self.index}" if self.file is None else f"{self.place}"


class _Files:
    """Opens each file once, and closes all of them in the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._open: dict[SceneName, DatasetReader] = {}

    def open(self, place: SceneName) -> DatasetReader:
        if place not in self._open:
            try:
                self._open[place] = self._stack.enter_context(rasterio.open(place))
            except RasterioIOError as error:
                if isinstance(place, Path) and not place.exists():
                    raise UserError(
                        f"{place} does not exist", expected="a raster file or a folder"
                    ) from error
                raise UserError(
                    f"cannot open {place} as a raster: {error}",
                    expected="what GDAL reads, such as a GeoTIFF, or a folder of bands",
                ) from error
        return self._open[place]


@contextmanager
def open_bands(
    path: SceneName, wanted: Sequence[Band], names: Sequence[Band] | None = None
) -> Iterator[list[SceneBand]]:
    """Open the bands that are wanted of a raster file, folder, product or archive.

    What a band is, its name says: the file's description of it or, in a folder, the file's name
    (:mod:`~eosfm_edge.scene.names`). ``names`` say it instead where given, in the order of the
    file's bands or variables, or of a folder's files by name (``x_2`` before ``x_10``). Of several
    files for one band the finest is taken. Files of bands that are not wanted are not opened.

    Args:
        path: a raster, a folder of single-band files, a product (its folder, a folder within it,
            its metadata file, a ``.zip`` or ``.tar`` of it), or GDAL's name for any of them.
        wanted: the input's bands.
        names: what the scene's bands are.

    Yields:
        The scene's bands that are wanted, in that order. Bands are matched by name or wavelength;
        by place only where no band of the scene has a name, and their number is that of those
        wanted.

    Raises:
        UserError: nothing can be opened, ``names`` are not as many as the bands or contradict
            the files' names, a band is missing or there twice, or values are of a type that is not
            supported.
    """
    with ExitStack() as stack:
        files = _Files(stack)
        container = container_of(path)
        offers = (
            _offers_of_folder(container, names, files)
            if container
            else _offers_of_file(path, names, files)
        )
        chosen = [_finest(group, files) for group in _match(wanted, offers, path)]
        _require_one_acquisition(chosen)
        metadata = Metadata(container) if container else None
        bands = []
        for offer in chosen:
            dataset = files.open(offer.place)
            alpha = offer.alpha
            if offer.file:
                # Beside its band a file may hold the mask of a warped one (gdalwarp -dstalpha).
                alpha = 2 if tuple(dataset.colorinterp[1:]) == (ColorInterp.alpha,) else None
                if dataset.count != (1 if alpha is None else 2):
                    raise UserError(
                        f"{offer.place} has {dataset.count} bands", expected="a file for each band"
                    )
            said = metadata.of(offer.file) if metadata and offer.file else offer.product
            bands.append(SceneBand(dataset, offer.index, offer.band, alpha, said))
        _require_types(bands)
        yield bands


def is_scene(path: SceneName, names: Sequence[Band] | None) -> bool:
    """Return whether a folder is one scene: its files are bands by name or, in order, by ``names``.

    Anything else that GDAL or an archive holds is a scene too.
    """
    container = container_of(path)
    if container is None or band_files(container):
        return True
    files = rasters(container)
    if names is None or len(names) < 2 or len(files) != len(names):
        return False
    with ExitStack() as stack:
        opener = _Files(stack)
        return all(opener.open(container.place(file)).count == 1 for file in files)


# ------------------------------------------------------------------------------- what there is


def _offers_of_folder(
    container: Container, names: Sequence[Band] | None, files: _Files
) -> list[_Offer]:
    found, beside = band_files(container), rasters(container)
    if not found and len(beside) == 1 and not isinstance(container.root, Path):
        return _offers_of_file(container.place(beside[0]), names, files)
    if names is not None:
        return _named_in_order(container, names, beside)
    if not found:
        holds = f", but {_listed(beside)}" if beside else ""
        raise UserError(
            f"{container.name} holds no band files{holds}",
            expected="files like ..._B04.jp2, ..._VV.tif or red.tif",
            remedy="give one of these files, or name the bands that they are, in the order of "
            "their names, with --bands"
            if beside
            else None,
        )
    return [
        _Offer(container.place(file), band, file=file)
        for file, band in zip(found, _meanings(container, found, beside), strict=True)
    ]


def _named_in_order(
    container: Container, names: Sequence[Band], files: Sequence[PurePath]
) -> list[_Offer]:
    """Give a folder's files the names that the user gives, where the files' own do not differ."""
    if len(files) != len(names):
        raise UserError(
            f"{container.name} holds {len(files)} rasters"
            + (f": {_listed(files)}" if files else ""),
            expected=f"{len(names)}, as named with --bands",
        )
    for file, name, own in zip(files, names, _meanings(container, files, ()), strict=True):
        if (
            read_file_name(file.stem).says_band
            and not is_unexplained(own)
            and not nearest(name, [own])
        ):
            raise UserError(
                f"{container.place(file)} is {own} by its name, and {name} by --bands",
                expected="bands in the order of the files' names",
                remedy="leave --bands out, or correct it or the file's name",
            )
    return [
        _Offer(container.place(file), band, file=file)
        for file, band in zip(files, names, strict=True)
    ]


def _meanings(
    container: Container, files: Sequence[PurePath], beside: Sequence[PurePath]
) -> list[Band]:
    """Return what files are; rasters beside them help to tell the sensor."""
    others = [file for file in beside if file not in files]
    labels = [read_file_name(file.stem) for file in (*files, *others)]
    root = container.root
    folder = Path(root).absolute().name if isinstance(root, Path) else root.name
    return meanings(labels, folder, Path(str(container.name)).name)[: len(files)]


def _offers_of_file(path: SceneName, names: Sequence[Band] | None, files: _Files) -> list[_Offer]:
    dataset = files.open(path)
    if dataset.count == 0:
        return _offers_of_variables(path, names, dataset.subdatasets, dataset.driver)
    labels = [read_description(text or "") for text in dataset.descriptions]
    places = _places(path, dataset)
    ordered = order_of(labels, *places)
    flagged = [i for i, colour in enumerate(dataset.colorinterp) if colour is ColorInterp.alpha]
    bands = ordered or meanings(labels, *places)
    all_named = len(names) == len(labels) if names is not None else ordered is not None
    # NAIP's infrared is flagged as alpha, and described as what it is.
    masks = [] if all_named else [i for i in flagged if not labels[i].says_band]
    kept = [i for i in range(len(labels)) if i not in masks]
    if names is not None:
        if len(names) != len(kept):
            raise UserError(
                f"{path} has {len(kept)} bands", expected=f"{len(names)}, as named with --bands"
            )
        bands = [names[kept.index(i)] if i in kept else band for i, band in enumerate(bands)]
    alpha = masks[0] + 1 if masks else None
    product = _product_of_gdals_name(dataset)
    return [
        _Offer(path, bands[i], i + 1, alpha=alpha, product=product.get(bands[i].name, NOTHING))
        for i in kept
    ]


def _product_of_gdals_name(dataset: DatasetReader) -> dict[str | None, OfProduct]:
    """Return what metadata say of bands that GDAL's SENTINEL2 driver gives: it leaves that out."""
    path = re.fullmatch(r"SENTINEL2_L(?:1C|2A):(.+):[^:]+:EPSG_\d+", dataset.name)
    name = path[1] if path else ""
    container = container_of(name if name.startswith("/vsi") else Path(name)) if path else None
    if container is None:
        return {}
    metadata = Metadata(container)
    return {band: metadata.of_band(band) for band in S2_L1C}


def _places(path: SceneName, dataset: DatasetReader) -> tuple[str, ...]:
    """Return what may say a file's sensor, the nearest first.

    Not the folder's name: a file beside others need not be of the same sensor.
    """
    name = Path(re.split(r'[:"]', str(path))[-1] if isinstance(path, str) else path)
    tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
    said = (str(value) for key, value in tags.items() if key.upper() in _TAGS_OF_A_SENSOR)
    return (name.stem, *said)


def _offers_of_variables(
    path: SceneName, names: Sequence[Band] | None, variables: Sequence[str], driver: str
) -> list[_Offer]:
    """Return the variables of a netCDF, HDF5 or Zarr file whose names say a band."""
    if driver not in _OF_VARIABLES or not variables:
        raise UserError(
            f"{path} has no bands of its own",
            remedy="give one of its subdatasets"
            + (f" ({_listed(variables)})" if variables else "")
            + ", or the folder with its bands",
        )
    labels = [read_description(re.split(r"[:/]", name.replace('"', ""))[-1]) for name in variables]
    if names is not None:
        if len(names) != len(variables):
            raise UserError(
                f"{path} has {len(variables)} variables: {_listed(variables)}",
                expected=f"{len(names)}, as named with --bands",
            )
        bands = list(names)
    else:
        bands = meanings(labels, Path(str(path)).stem)
        if not any(
            label.says_band and not is_unexplained(band)
            for label, band in zip(labels, bands, strict=True)
        ):
            raise UserError(
                f"{path} holds variables whose names say no band: {_listed(variables)}",
                remedy="name them in that order with --bands, or give one of them as the scene",
            )
    return [
        _Offer(name, band, file=PurePath(name))
        for name, label, band in zip(variables, labels, bands, strict=True)
        if names is not None or label.says_band
    ]


def _listed(names: Sequence[object]) -> str:
    shown = [name.name if isinstance(name, PurePath) else str(name) for name in names[:_MOST_NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


# ------------------------------------------------------------------------------ what is wanted


def _match(wanted: Sequence[Band], offers: Sequence[_Offer], path: SceneName) -> list[list[_Offer]]:
    """Return for each wanted band the files that hold it, which may differ in resolution."""
    groups: dict[object, list[_Offer]] = {}
    for offer in offers:
        groups.setdefault(offer.band if offer.band.known else offer, []).append(offer)
    there = [group[0].band for group in groups.values()]
    by_name = any(band.known for band in there) and all(band.known for band in wanted)
    if not by_name:
        if len(groups) == len(wanted):
            return list(groups.values())
        unnamed = "" if any(band.known for band in there) else " without names"
        raise UserError(
            f"{path} has {len(groups)} bands{unnamed}",
            expected=f"{len(wanted)}: {', '.join(str(band) for band in wanted)}",
            remedy="name the scene's bands with --bands",
        )
    places = [nearest(band, there) for band in wanted]
    missing = [str(band) for band, found in zip(wanted, places, strict=True) if not found]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}: it has {', '.join(str(band) for band in there)}",
            expected=", ".join(str(band) for band in wanted),
            remedy=_remedy_for(missing, there, path),
        )
    for i, found in enumerate(places):
        if found in places[:i]:
            raise UserError(
                f"{path} has one band, {there[found[0]]}, for both "
                f"{wanted[places.index(found)]} and {wanted[i]}",
                expected=", ".join(str(band) for band in wanted),
                remedy="give a scene that has both",
            )
    return [[offer for place in found for offer in groups[list(groups)[place]]] for found in places]


def _remedy_for(missing: Sequence[str], there: Sequence[Band], path: SceneName) -> str:
    if any(is_unexplained(band) for band in there):
        return (
            "the numbers mean different bands on different sensors: name the bands with --bands, "
            "in order, or put the product's name into the file's or the folder's"
        )
    if isinstance(path, Path) and path.is_dir():
        return f"add the files of {', '.join(missing)} to the folder"
    return "if its bands are called otherwise, name them in order with --bands"


def _finest(group: Sequence[_Offer], files: _Files) -> _Offer:
    """Return the file of the finest resolution for a band."""
    if len(group) == 1:
        return group[0]
    sizes = [files.open(offer.place).res[0] for offer in group]
    finest = [offer for offer, size in zip(group, sizes, strict=True) if size == min(sizes)]
    if len(finest) > 1:
        raise UserError(
            f"{' and '.join(map(str, finest))} are all {finest[0].band}, of one resolution",
            expected="the bands of one acquisition, each once",
            remedy="move those of another to a folder of their own"
            if finest[0].file
            else "name the bands with --bands, in order",
        )
    return finest[0]


def _require_one_acquisition(chosen: Sequence[_Offer]) -> None:
    """Refuse bands whose file names have different dates. Radar and optical may differ."""
    first: dict[tuple[bool, str], _Offer] = {}
    for offer in chosen:
        date = _DATE.search(offer.file.stem) if offer.file else None
        if date is None:
            continue
        kind = offer.band.name in _RADAR
        for (kind_there, date_there), there in first.items():
            if kind_there == kind and date_there != date[0]:
                raise UserError(
                    f"{there.place} is of {date_there}, {offer.place} of {date[0]}",
                    expected="the bands of one acquisition",
                    remedy="move those of another to a folder of their own",
                )
        first.setdefault((kind, date[0]), offer)


def _require_types(bands: Sequence[SceneBand]) -> None:
    for band in bands:
        if band.dtype not in DTYPES:
            raise UserError(
                f"{band.place} is of type {band.dtype}",
                expected=", ".join(DTYPES),
                remedy="convert it with gdal_translate -ot Int32, or -ot Float64",
            )
