"""Tiny products of Sentinel-2, Landsat and Sentinel-1, laid out as by their agencies; no torch."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from eosfm_edge.formats.bands import S2_L1C, S2_L2A

Array = NDArray[Any]
METRES = dict.fromkeys(S2_L1C, 20) | dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
METRES |= dict.fromkeys(("B01", "B09", "B10"), 60)
SIDE = 960  # metres


def raster(path: Path, pixels: Array, *, metres: float = 10, **profile: Any) -> Path:
    """Write a single-band raster, lossless JPEG 2000 if the name ends in .jp2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jp2":
        profile = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", **profile}
    height, width = pixels.shape
    shape = {"count": 1, "height": height, "width": width, "dtype": pixels.dtype}
    where = {"crs": "EPSG:32618", "transform": from_origin(600_000, 4_000_000, metres, metres)}
    with rasterio.open(path, "w", **{"driver": "GTiff", **shape, **where, **profile}) as dataset:
        dataset.write(pixels, 1)
    return path


def texture(metres: float, seed: int) -> Array:
    """Return numbers of which none is 0."""
    side = int(SIDE / metres)
    return np.random.default_rng(seed).integers(1100, 9000, (side, side)).astype(np.uint16)


def sentinel_2(
    folder: Path,
    level: str,
    baseline: str,
    *,
    offsets: Mapping[int, float] | None = None,
    metadata: str | None = None,
) -> tuple[Path, dict[str, Array]]:
    """Write a product ``.SAFE``; return it and the pixels of its bands, each at its finest.

    Args:
        folder: where.
        level: ``1C`` or ``2A``.
        baseline: of the processing, ``0209`` or ``0511``.
        offsets: by ``band_id``.
        metadata: instead of what a product has.
    """
    date = "20220316T155021"
    product = folder / f"S2A_MSIL{level}_{date}_N{baseline}_R054_T18SUG_20220316T234012.SAFE"
    granule = product / "GRANULE" / f"L{level}_T18SUG_A035157_{date}"
    images = granule / "IMG_DATA"
    pixels = {}
    for seed, name in enumerate(S2_L1C if level == "1C" else S2_L2A):
        pixels[name] = texture(METRES[name], seed)
        if level == "1C":
            raster(images / f"T18SUG_{date}_{name}.jp2", pixels[name], metres=METRES[name])
            continue
        for coarse in (metres for metres in (10, 20, 60) if metres >= METRES[name]):
            step = coarse // METRES[name]
            side = len(pixels[name]) // step
            means = pixels[name].reshape(side, step, side, step).mean((1, 3)).astype(np.uint16)
            path = images / f"R{coarse}m" / f"T18SUG_{date}_{name}_{coarse}m.jp2"
            raster(path, means, metres=coarse)
    # What lies beside the bands: flags of bands, a picture, auxiliary data.
    flags = np.ones((4, 4), np.uint8)
    raster(granule / "QI_DATA" / "MSK_DETFOO_B04.jp2", flags)
    raster(granule / "QI_DATA" / f"T18SUG_{date}_PVI.jp2", flags)
    extra = images if level == "1C" else images / "R10m"
    raster(extra / f"T18SUG_{date}_TCI{'' if level == '1C' else '_10m'}.jp2", texture(10, 99))
    (granule / "MTD_TL.xml").write_text(_tile_metadata(level))
    listed = [path.relative_to(product).with_suffix("") for path in sorted(images.rglob("*.jp2"))]
    (product / f"MTD_MSIL{level}.xml").write_text(
        sentinel_2_metadata(level, baseline, offsets, listed) if metadata is None else metadata
    )
    (product / "manifest.safe").write_text("<xfdu/>")
    return product, pixels


def sentinel_2_metadata(
    level: str,
    baseline: str,
    offsets: Mapping[int, float] | None,
    files: Sequence[Path] = (),
) -> str:
    """Return the part of a product's metadata that speaks of values, and what GDAL asks for."""
    short = [name if name == "B8A" else f"B{int(name[1:])}" for name in S2_L1C]
    names = "".join(f"<BAND_NAME>{name}</BAND_NAME>" for name in short)
    images = "".join(f"<IMAGE_FILE>{file.as_posix()}</IMAGE_FILE>" for file in files)
    step, offset = ("BOA_QUANTIFICATION_VALUE", "BOA_ADD_OFFSET")
    if level == "1C":
        step, offset = ("QUANTIFICATION_VALUE", "RADIO_ADD_OFFSET")
    listed = "".join(
        f'<{offset} band_id="{band}">{value:g}</{offset}>'
        for band, value in (offsets or {}).items()
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
 <n1:General_Info>
  <Product_Info><PROCESSING_BASELINE>{baseline[:2]}.{baseline[2:]}</PROCESSING_BASELINE>
   <Query_Options><PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT><Band_List>{names}</Band_List>
   </Query_Options>
   <Product_Organisation><Granule_List><Granule imageFormat="JPEG2000"
    granuleIdentifier="S2A_OPER_MSI_L{level}_TL_X_20220316T155021_A035157_T18SUG_N02.09">{images}
   </Granule></Granule_List></Product_Organisation></Product_Info>
  <Product_Image_Characteristics>
   <Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
    <SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
   <Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
    <SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
   <QUANTIFICATION_VALUES_LIST><{step} unit="none">10000</{step}></QUANTIFICATION_VALUES_LIST>
   <Offset_List>{listed}</Offset_List>
  </Product_Image_Characteristics>
 </n1:General_Info>
</n1:Level-{level}_User_Product>
"""


def _tile_metadata(level: str) -> str:
    sizes = "".join(
        f"<Size resolution='{metres}'><NROWS>{SIDE // metres}</NROWS>"
        f"<NCOLS>{SIDE // metres}</NCOLS></Size>"
        f"<Geoposition resolution='{metres}'><ULX>600000</ULX><ULY>4000000</ULY>"
        f"<XDIM>{metres}</XDIM><YDIM>-{metres}</YDIM></Geoposition>"
        for metres in (10, 20, 60)
    )
    return f"""<n1:Level-{level}_Tile_ID
 xmlns:n1='https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-{level}_Tile_Metadata.xsd'>
 <n1:Geometric_Info><Tile_Geocoding><HORIZONTAL_CS_CODE>EPSG:32618</HORIZONTAL_CS_CODE>{sizes}
 </Tile_Geocoding></n1:Geometric_Info></n1:Level-{level}_Tile_ID>
"""


LANDSAT = "LC08_L2SP_016034_20200606_20200825_02_T1"
LANDSAT_1 = LANDSAT.replace("L2SP", "L1TP")
SUN_ELEVATION = 30.0  # its sine is 0.5


def landsat(folder: Path, level: int = 2, *, ending: str = "txt") -> tuple[Path, dict[str, Array]]:
    """Write a scene of Landsat 8, Collection 2; return its folder and the pixels by file's band."""
    name = LANDSAT if level == 2 else LANDSAT_1
    numbers = (1, 2, 3, 4, 5, 6, 7) if level == 2 else (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    kinds = {number: f"SR_B{number}" if level == 2 else f"B{number}" for number in numbers}
    if level == 2:
        kinds[10] = "ST_B10"
    pixels = {}
    for number, kind in kinds.items():
        metres = 15 if kind == "B8" else 30
        pixels[f"B{number}"] = texture(metres, number)
        raster(folder / name / f"{name}_{kind}.TIF", pixels[f"B{number}"], metres=metres)
    raster(folder / name / f"{name}_QA_PIXEL.TIF", texture(30, 50))
    contents = {"PROCESSING_LEVEL": "L2SP" if level == 2 else "L1TP"}
    for number, kind in kinds.items():
        key = kind if kind.startswith("ST") else str(number)
        contents[f"FILE_NAME_BAND_{key}"] = f"{name}_{kind}.TIF"
    level_1, level_2 = {}, {}
    for number in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        level_1 |= {f"REFLECTANCE_MULT_BAND_{number}": "2.0000E-05"}
        level_1 |= {f"REFLECTANCE_ADD_BAND_{number}": "-0.100000"}
    for number in (1, 2, 3, 4, 5, 6, 7):
        level_2 |= {f"REFLECTANCE_MULT_BAND_{number}": "2.75e-05"}
        level_2 |= {f"REFLECTANCE_ADD_BAND_{number}": "-0.2"}
    groups: dict[str, dict[str, str]] = {
        "PRODUCT_CONTENTS": contents,
        "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": "LANDSAT_8", "SUN_ELEVATION": f"{SUN_ELEVATION}"},
        # Level 2 repeats where it came from: other files' names under the same keys.
        "LEVEL1_PROCESSING_RECORD": {"FILE_NAME_BAND_1": f"{LANDSAT_1}_B1.TIF"},
        "LEVEL1_RADIOMETRIC_RESCALING": level_1,
    }
    if level == 2:
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = level_2
    (folder / name / f"{name}_MTL.{ending}").write_text(_MTL[ending](groups))
    return folder / name, pixels


def _as_text(groups: Mapping[str, Mapping[str, str]]) -> str:
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, values in groups.items():
        lines += [f"  GROUP = {group}"]
        lines += [
            f"    {k} = {v if v[0] in '-0123456789' else _quote(v)}" for k, v in values.items()
        ]
        lines += [f"  END_GROUP = {group}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def _quote(text: str) -> str:
    return f'"{text}"'


def _as_xml(groups: Mapping[str, Mapping[str, str]]) -> str:
    inside = "".join(
        f"<{group}>{''.join(f'<{k}>{v}</{k}>' for k, v in values.items())}</{group}>"
        for group, values in groups.items()
    )
    return f'<?xml version="1.0"?>\n<LANDSAT_METADATA_FILE>{inside}</LANDSAT_METADATA_FILE>\n'


def _as_json(groups: Mapping[str, Mapping[str, str]]) -> str:
    return json.dumps({"LANDSAT_METADATA_FILE": groups})


_MTL = {"txt": _as_text, "xml": _as_xml, "json": _as_json}


def sentinel_1(folder: Path, *, points: bool) -> tuple[Path, dict[str, Array]]:
    """Write a GRD product: with control points, as it is delivered, or brought to a grid."""
    product = folder / "S1A_IW_GRDH_1SDV_20200316T225143_20200316T225208_031703_03A79C_8D2E.SAFE"
    corners: Sequence[tuple[int, int]] = ((0, 0), (0, 31), (31, 0), (31, 31))
    profile: dict[str, Any] = {}
    if points:
        gcps = [
            rasterio.control.GroundControlPoint(row=r, col=c, x=10 + 1e-4 * c, y=50 - 1e-4 * r)
            for r, c in corners
        ]
        profile = {"crs": "EPSG:4326", "transform": None, "gcps": gcps}
    pixels = {}
    for number, kind in enumerate(("VV", "VH"), 1):
        pixels[kind] = texture(30, number)
        name = f"s1a-iw-grd-{kind.lower()}-20200316t225143-20200316t225208-031703-03a79c-00{number}"
        raster(product / "measurement" / f"{name}.tiff", pixels[kind], **profile)
    (product / "manifest.safe").write_text("<xfdu/>")
    return product, pixels


def zipped(product: Path) -> Path:
    """Write an archive of a folder beside it."""
    path = product.with_name(product.name + ".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(product.rglob("*")):
            archive.write(file, file.relative_to(product.parent))
    return path


def tarred(product: Path) -> Path:
    """Write an archive of a folder's files, without the folder, as USGS does."""
    path = product.with_name(product.name + ".tar")
    with tarfile.open(path, "w") as archive:
        for file in sorted(product.iterdir()):
            archive.add(file, file.name)
    return path
