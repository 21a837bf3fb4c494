"""Products: where their bands lie, and what their metadata say of the values.

Sentinel-2 (``MTD_MSIL1C.xml``, ``MTD_MSIL2A.xml``): reflectance = (stored + offset) /
quantification, with an offset for each band from processing baseline 04.00 on (25 January 2022) and
none before; stored 0 is no data (ESA: https://sentiwiki.copernicus.eu/web/s2-products).

Landsat (``*_MTL.txt``, ``.xml`` or ``.json``): reflectance = stored * mult + add, at level 1
divided by the sine of the sun's elevation; stored 0 is no data. Thermal bands have none (USGS:
https://www.usgs.gov/landsat-missions/using-usgs-landsat-level-1-data-product and
https://www.usgs.gov/landsat-missions/landsat-collection-2-level-2-science-products).

Sentinel-1's measurements are found; of their values nothing is known without calibration.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from xml.etree import ElementTree
from xml.parsers import expat

from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.formats.bands import S2_L1C, canonical
from eosfm_edge.scene.containers import Container, upwards
from eosfm_edge.scene.names import read_file_name

_RASTERS = {".tif", ".tiff", ".jp2", ".img", ".vrt", ".nc"}
# Where band files lie, from what is given: bands beside each other, or a Sentinel-2 L2A product's
# by resolution; the granule; GRANULE; the product, or an archive of it; Sentinel-1's product.
# Whatever lies deeper is looked for only where nothing was found before.
_IMAGES = ("*", "R[126]0m/*")
_LAYOUTS = (
    _IMAGES,
    *(
        tuple(f"{above}IMG_DATA/{images}" for images in _IMAGES)
        for above in ("", "*/", "GRANULE/*/", "*.SAFE/GRANULE/*/")
    ),
    ("measurement/*",),
    ("*.SAFE/measurement/*",),
)
_SENTINEL_2_METADATA = ("MTD_MSIL[12][AC].xml", "S2?_OPER_MTD_SAFL[12][AC]_*.xml")
_LANDSAT_METADATA = ("*_MTL.txt", "*_MTL.xml", "*_MTL.json")
_PRODUCT = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N(\d{4})_", re.IGNORECASE)
_BASELINE_WITH_OFFSET = 400  # 04.00
_OWN_PROCESSING = 9900  # N9999 and the like: made by the user, of whatever baseline
_OFFSET, _QUANTIFICATION = -1000.0, 10000.0  # all products of those baselines


@dataclass(frozen=True)
class OfProduct:
    """A product's metadata of one band's values.

    Attributes:
        scale_offset: physical = stored * scale + offset.
        nodata: the stored value of pixels without data.
    """

    scale_offset: tuple[float, float] | None = None
    nodata: float | None = None


NOTHING = OfProduct()


def band_files(container: Container) -> list[PurePath]:
    """Return the rasters whose names say a band, in the order of their paths.

    Raises:
        UserError: they belong to several products or granules.
    """
    for layout in _LAYOUTS:
        found = [file for file in _rasters(container, layout) if _says_band(file)]
        if found:
            _require_one_product(container, found)
            return found
    return []


def metadata_files(container: Container) -> list[PurePath]:
    """Return the metadata directly in a folder or archive: values are read by what they say."""
    patterns = (*_SENTINEL_2_METADATA, *_LANDSAT_METADATA)
    return [file for pattern in patterns for file in container.files(container.root, pattern)]


def rasters(container: Container) -> list[PurePath]:
    """Return all rasters that lie directly in a folder or archive, ``x_2`` before ``x_10``."""
    return sorted(_rasters(container, ("*",)), key=_in_order)


def _rasters(container: Container, layout: Sequence[str]) -> list[PurePath]:
    files = (file for pattern in layout for file in container.files(container.root, pattern))
    return [file for file in files if file.suffix.lower() in _RASTERS]


def _says_band(file: PurePath) -> bool:
    return read_file_name(file.stem).says_band


def _in_order(file: PurePath) -> list[tuple[bool, int, str]]:
    parts = re.findall(r"\d+|\D+", file.name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _require_one_product(container: Container, files: Sequence[PurePath]) -> None:
    folders = sorted({str(_product_folder(file)) for file in files})
    if len(folders) > 1:
        raise UserError(
            f"{container.name} holds {len(folders)} products or granules: {', '.join(folders)}",
            expected="one",
            remedy="give each by itself",
        )


def _product_folder(file: PurePath) -> PurePath:
    places = [place for place in file.parents if not re.fullmatch("R[126]0m|IMG_DATA", place.name)]
    return places[0]


class Metadata:
    """Return the metadata of a container's products, file by file."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._xml: dict[PurePath, ElementTree.Element] = {}
        self._groups: dict[PurePath, Groups] = {}
        self._warned = False

    def of(self, file: PurePath) -> OfProduct:
        """Return what is said of a file: nothing, where it is not a product's.

        Raises:
            UserError: metadata cannot be read, or lack what they must say.
        """
        band = canonical(read_file_name(file.stem).number or "")
        said = self._sentinel_2(band, [*upwards(file)]) if band in S2_L1C else None
        return said or self._landsat(file) or NOTHING

    def of_band(self, band: str) -> OfProduct:
        """Return what the container's own metadata say of one of Sentinel-2's bands.

        Raises:
            UserError: as :meth:`of`.
        """
        return self._sentinel_2(band, [self._container.root]) or NOTHING

    def _sentinel_2(self, band: str, folders: Sequence[PurePath]) -> OfProduct | None:
        names = [str(self._container.name), *map(str, folders)]
        found = next((found for name in names if (found := _PRODUCT.search(name))), None)
        baseline = int(found[1]) if found else None
        for folder in folders:
            for pattern in _SENTINEL_2_METADATA:
                for metadata in self._container.files(folder, pattern):
                    if metadata not in self._xml:
                        self._xml[metadata] = parse_xml(self._container.read(metadata), metadata)
                    said = _sentinel_2_values(self._xml[metadata], metadata, band, baseline)
                    if said:
                        return said
        if not _has_offset(baseline):
            return None
        if not self._warned:
            warnings.warn(
                f"{self._container.name} lacks its metadata (MTD_MSIL1C.xml or MTD_MSIL2A.xml): "
                f"by its name its offset is assumed to be {_OFFSET / _QUANTIFICATION:g}",
                SceneWarning,
                stacklevel=2,
            )
            self._warned = True
        return OfProduct((1 / _QUANTIFICATION, _OFFSET / _QUANTIFICATION), 0.0)

    def _landsat(self, file: PurePath) -> OfProduct | None:
        for pattern in _LANDSAT_METADATA:
            for metadata in self._container.files(file.parent, pattern):
                if metadata not in self._groups:
                    self._groups[metadata] = _groups(self._container.read(metadata), metadata)
                said = _landsat_values(self._groups[metadata], metadata, file)
                if said:
                    return said
        return None


# ------------------------------------------------------------------------------------ Sentinel-2


def _has_offset(baseline: int | None) -> bool:
    return baseline is not None and _BASELINE_WITH_OFFSET <= baseline < _OWN_PROCESSING


def _sentinel_2_values(
    root: ElementTree.Element, file: PurePath, name_of_band: str, baseline: int | None
) -> OfProduct | None:
    """Return what a product's metadata say of a band, or None where they say nothing of values."""
    band = S2_L1C.index(name_of_band)  # as the metadata number them, from 0
    values: dict[str, str] = {}
    offsets: dict[str, str] = {}
    special: list[str] = []
    for element in root.iter():
        name, text = element.tag.rpartition(":")[2], (element.text or "").strip()
        if name in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"):
            offsets[element.get("band_id", "")] = text
        elif name.startswith("SPECIAL_VALUE_"):
            special.append(text)
        else:
            values.setdefault(name, text)
    step = values.get("BOA_QUANTIFICATION_VALUE") or values.get("QUANTIFICATION_VALUE")
    if not step:
        return None
    found = re.fullmatch(r"(\d\d)\.(\d\d)", values.get("PROCESSING_BASELINE", ""))
    baseline = int(found[1] + found[2]) if found else baseline
    if not offsets and _has_offset(baseline):
        raise UserError(
            f"{file} is of processing baseline 04.00 or later and states no offsets",
            expected="RADIO_ADD_OFFSET or BOA_ADD_OFFSET for each band",
            remedy="get the product's metadata again",
        )
    if offsets and str(band) not in offsets:
        raise UserError(
            f"{file} states no offset for {name_of_band}",
            expected=f"band_id {band} among {', '.join(offsets)}",
            remedy="get the product's metadata again",
        )
    quantification = _number(file, "the quantification value", step)
    if quantification <= 0:
        raise UserError(f"{file} states a quantification value of {step}", expected="more than 0")
    offset = _number(file, f"the offset of {name_of_band}", offsets.get(str(band), "0"))
    texts = dict(zip(special[::2], special[1::2], strict=False))
    nodata = _number(file, "NODATA", texts["NODATA"]) if "NODATA" in texts else None
    return OfProduct((1 / quantification, offset / quantification), nodata)


def parse_xml(data: bytes, file: PurePath) -> ElementTree.Element:
    """Parse metadata. Entities are refused: a product needs none, and a few can fill a memory."""

    def refuse(*_: object) -> None:
        raise UserError(f"{file} declares a document type", expected="XML without one")

    tree = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise UserError(
            f"{file} is not XML: {error}", remedy="get the product's metadata again"
        ) from error
    return tree.close()


# --------------------------------------------------------------------------------------- Landsat

Groups = dict[str, dict[str, str]]
_CONTENTS = ("PRODUCT_CONTENTS", "PRODUCT_METADATA")  # in Collection 2, and in Collection 1


def _landsat_values(groups: Groups, metadata: PurePath, file: PurePath) -> OfProduct | None:
    """Return what a scene's metadata say of one of its files, or None: they do not list it."""
    contents = next(groups[name] for name in _CONTENTS if name in groups)
    key = next(
        (
            key.removeprefix("FILE_NAME_")
            for key, name in contents.items()
            if key.startswith("FILE_NAME_BAND_") and name.casefold() == file.name.casefold()
        ),
        None,
    )
    if key is None:
        return None
    level_2 = contents.get("PROCESSING_LEVEL", "").startswith("L2")
    rescaling = ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",) if level_2 else (
        "LEVEL1_RADIOMETRIC_RESCALING", "RADIOMETRIC_RESCALING",
    )  # fmt: skip
    values = next((groups[name] for name in rescaling if name in groups), {})
    if f"REFLECTANCE_MULT_{key}" not in values or f"REFLECTANCE_ADD_{key}" not in values:
        return OfProduct(nodata=0.0)
    scale = _number(metadata, "the scale", values[f"REFLECTANCE_MULT_{key}"])
    offset = _number(metadata, "the offset", values[f"REFLECTANCE_ADD_{key}"])
    if level_2:
        return OfProduct((scale, offset), 0.0)
    elevation = groups.get("IMAGE_ATTRIBUTES", {}).get("SUN_ELEVATION")
    sine = math.sin(math.radians(_number(metadata, "SUN_ELEVATION", elevation or "none")))
    if sine <= 0:
        return OfProduct(nodata=0.0)  # taken at night
    return OfProduct((scale / sine, offset / sine), 0.0)


def _groups(data: bytes, file: PurePath) -> Groups:
    """Return the keys of each group of a Landsat scene's metadata."""
    groups: Groups = {}
    if file.suffix.lower() == ".xml":
        for group in parse_xml(data, file):
            groups[group.tag] = {value.tag: (value.text or "").strip() for value in group}
    elif file.suffix.lower() == ".json":
        try:
            (whole,) = json.loads(data).values()
            groups = {name: {k: str(v) for k, v in of.items()} for name, of in whole.items()}
        except (ValueError, AttributeError, RecursionError) as error:
            raise UserError(f"{file} is not Landsat metadata: {error}") from error
    else:
        inside = ""
        for line in data.decode("latin-1").splitlines():
            key, equals, value = (part.strip() for part in line.partition("="))
            if equals and key == "GROUP":
                inside = value
            elif equals and key != "END_GROUP":
                groups.setdefault(inside, {})[key] = value.strip('"')
    if not groups.keys() & set(_CONTENTS):
        raise UserError(
            f"{file} is not Landsat metadata: it lists no files",
            expected=f"a group {' or '.join(_CONTENTS)}",
            remedy="get the scene's metadata again, or move the file elsewhere",
        )
    return groups


def _number(file: PurePath, what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{file} states {text!r} for {what}", expected="a number")
    return value
