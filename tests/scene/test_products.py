"""Products as they are delivered: where their bands are, and what their metadata say of values."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from support.products import (
    LANDSAT,
    METRES,
    landsat,
    raster,
    sentinel_1,
    sentinel_2,
    sentinel_2_metadata,
    tarred,
    zipped,
)

from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.formats.bands import S2_L1C, S2_L2A
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.scene import Radiometry, open_scene

Array = NDArray[Any]
OFFSETS = dict.fromkeys(range(13), -1000.0)


def inputs(names: Sequence[str], **values: Any) -> tuple[InputBand, ...]:
    return tuple(InputBand(name=name, **values) for name in names)


def read(path: Path | str, wanted: Sequence[InputBand], **options: Any) -> tuple[Array, Array]:
    with open_scene(path, wanted, **options) as scene:
        return scene.read(0, 0, scene.width, scene.height)


def refusal(path: Path | str, wanted: Sequence[InputBand]) -> str:
    with pytest.raises(UserError) as error:
        read(path, wanted)
    return str(error.value)


def on_the_finest(pixels: Mapping[str, Array], names: Sequence[str]) -> Array:
    """Repeat the pixels of coarse bands: 10 m is the finest."""
    return np.stack(
        [pixels[n].repeat(METRES[n] // 10, 0).repeat(METRES[n] // 10, 1) for n in names]
    )


# ---- Sentinel-2 ----


def test_a_sentinel_2_product_is_one_scene_from_wherever_it_is_given(tmp_path: Path) -> None:
    product, pixels = sentinel_2(tmp_path / "x", "2A", "0214")
    (granule,) = (product / "GRANULE").iterdir()
    archive = zipped(product).rename(tmp_path / "product.zip")
    inside = f"/vsizip/{archive}"
    places = [
        product,
        product.parent / ".",
        product / "MTD_MSIL2A.xml",
        product / "manifest.safe",
        product / "GRANULE",
        granule,
        granule / "MTD_TL.xml",
        granule / "IMG_DATA",
        archive,
        inside,
        f"{inside}/{product.name}",
        f"{inside}/{product.name}/MTD_MSIL2A.xml",
        f"{inside}/{product.name}/GRANULE/{granule.name}/IMG_DATA",
        f"/vsizip/{{{archive}}}/{product.name}",
    ]
    expected = on_the_finest(pixels, S2_L2A)
    for place in places:
        image, valid = read(place, inputs(S2_L2A, scale=1e-4))
        np.testing.assert_array_equal(image, expected, err_msg=str(place))
        assert valid.all()


@pytest.mark.parametrize(("level", "names"), [("1C", S2_L1C), ("2A", S2_L2A)])
@pytest.mark.parametrize("packed", [False, True])
def test_offsets_of_a_sentinel_2_product_are_taken_band_by_band(
    tmp_path: Path, level: str, names: Sequence[str], packed: bool
) -> None:
    """``band_id`` counts B01 to B08, B8A, B09 to B12, of which level 2A lacks 10."""
    offsets = {band: -1000.0 - band for band in range(13)}
    product, pixels = sentinel_2(tmp_path, level, "0511", offsets=offsets)
    image, _ = read(zipped(product) if packed else product, inputs(names, scale=1e-4))
    for i, name in enumerate(names):
        shifted = on_the_finest(pixels, [name])[0] + offsets[S2_L1C.index(name)]
        np.testing.assert_allclose(image[i], shifted, rtol=1e-5, atol=0.01)


def test_the_folder_of_the_images_knows_its_products_offsets(tmp_path: Path) -> None:
    product, pixels = sentinel_2(tmp_path, "1C", "0511", offsets=OFFSETS)
    (images,) = product.glob("GRANULE/*/IMG_DATA")
    expected = on_the_finest(pixels, ["B04"]) - 1000.0
    wanted = inputs(["B04"], scale=1e-4)
    np.testing.assert_allclose(read(images, wanted)[0], expected, rtol=1e-5)
    before = Path.cwd()
    try:  # a relative path's parents are not in its text
        os.chdir(images)
        np.testing.assert_allclose(read(Path(), wanted)[0], expected, rtol=1e-5)
    finally:
        os.chdir(before)


def test_what_the_user_says_counts_more_than_metadata(tmp_path: Path) -> None:
    product, pixels = sentinel_2(tmp_path, "1C", "0511", offsets=OFFSETS)
    said = Radiometry(scale=1e-4, offset=0.0)
    image, _ = read(product, inputs(["B04"], scale=1e-4), radiometry=said)
    np.testing.assert_array_equal(image, on_the_finest(pixels, ["B04"]))


def test_a_sentinel_2_products_nodata_is_0(tmp_path: Path) -> None:
    product, pixels = sentinel_2(tmp_path, "1C", "0511", offsets=OFFSETS)
    (path,) = product.rglob("T18*_B04.jp2")
    pixels["B04"][:5] = 0
    raster(path, pixels["B04"])
    _, valid = read(product, inputs(["B04"], scale=1e-4))
    np.testing.assert_array_equal(valid, pixels["B04"] != 0)


def test_offsets_without_metadata_come_from_the_baseline_with_a_warning(tmp_path: Path) -> None:
    wanted = inputs(["B04", "B03"], scale=1e-4)
    for baseline, offset in (("0400", -1000.0), ("0301", 0.0), ("9999", 0.0)):
        product, pixels = sentinel_2(tmp_path / baseline, "1C", baseline)
        (product / "MTD_MSIL1C.xml").unlink()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image, _ = read(product, wanted)
        expected = on_the_finest(pixels, ["B04", "B03"]) + offset
        np.testing.assert_allclose(image, expected, rtol=1e-5)
        said = [one for one in caught if one.category is SceneWarning]
        assert [("-0.1" in str(one.message)) for one in said] == [True] * (offset != 0)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (sentinel_2_metadata("1C", "0511", None), "states no offsets"),
        (sentinel_2_metadata("1C", "0511", {0: -1000}), "no offset for B04"),
        (sentinel_2_metadata("1C", "0511", OFFSETS)[:-40], "is not XML"),
        (sentinel_2_metadata("1C", "0511", OFFSETS).replace("10000", "ten"), "'ten'"),
        (sentinel_2_metadata("1C", "0511", OFFSETS).replace("10000", "0"), "value of 0"),
        (sentinel_2_metadata("1C", "0511", OFFSETS).replace("-1000<", "nan<"), "'nan'"),
        ("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>", "declares a document type"),
        ("", "is not XML"),
    ],
)
def test_metadata_that_cannot_be_right_are_refused(
    tmp_path: Path, metadata: str, message: str
) -> None:
    product, _ = sentinel_2(tmp_path, "1C", "0511", metadata=metadata)
    found = refusal(product, inputs(["B04"], scale=1e-4))
    assert message in found and "MTD_MSIL1C.xml" in found


def test_metadata_of_an_absurd_size_are_not_read(tmp_path: Path) -> None:
    product, _ = sentinel_2(tmp_path, "1C", "0511")
    with (product / "MTD_MSIL1C.xml").open("wb") as stream:
        stream.truncate(1 << 30)
    assert "bytes long" in refusal(product, inputs(["B04"]))


def test_two_products_or_granules_are_named(tmp_path: Path) -> None:
    one, _ = sentinel_2(tmp_path, "1C", "0209")
    other, _ = sentinel_2(tmp_path, "1C", "0511", offsets=OFFSETS)
    message = refusal(tmp_path, inputs(["B04"]))
    assert one.name in message and other.name in message and "give each by itself" in message
    (granule,) = (one / "GRANULE").iterdir()
    granule.rename(granule.with_name("second"))
    (granule,) = (other / "GRANULE").iterdir()
    granule.rename(one / "GRANULE" / "first")
    message = refusal(one, inputs(["B04"]))
    assert "2 products or granules" in message and "first" in message and "second" in message


def test_an_archive_that_is_damaged_or_holds_no_bands_is_refused(tmp_path: Path) -> None:
    product, _ = sentinel_2(tmp_path, "1C", "0209")
    archive = zipped(product)
    archive.write_bytes(archive.read_bytes()[:-100])
    assert "as an archive" in refusal(archive, inputs(["B04"]))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as empty:
        empty.writestr("__MACOSX/._x_B04.tif", b"\0")
        empty.writestr("../x_B03.tif", b"\0")
    assert "holds no band files" in refusal(tmp_path / "x.zip", inputs(["B04"]))


def test_gdals_own_name_for_a_product_has_the_products_offsets(tmp_path: Path) -> None:
    """Its driver gives neither offset nor nodata."""
    product, pixels = sentinel_2(tmp_path, "1C", "0511", offsets=OFFSETS)
    name = f"SENTINEL2_L1C:{product / 'MTD_MSIL1C.xml'}:10m:EPSG_32618"
    try:
        with rasterio.open(name) as dataset:
            assert dataset.offsets == (0.0,) * 4
    except rasterio.errors.RasterioIOError as error:  # pragma: no cover
        pytest.skip(f"this GDAL has no driver for products: {error}")
    wanted = inputs(["B04", "B08"], scale=1e-4)
    image, _ = read(name, wanted)
    expected = on_the_finest(pixels, ["B04", "B08"]) - 1000.0
    np.testing.assert_allclose(image, expected, rtol=1e-5)


# ---- Landsat ----


@pytest.mark.parametrize("ending", ["txt", "xml", "json"])
@pytest.mark.parametrize("level", [1, 2])
def test_landsat_reflectance_is_as_its_metadata_say(
    tmp_path: Path, level: int, ending: str
) -> None:
    """By hand: level 2 is 2.75e-5 and -0.2; level 1 2e-5 and -0.1 over the sine of 30 degrees."""
    product, pixels = landsat(tmp_path, level, ending=ending)
    scale, offset = (2.75e-5, -0.2) if level == 2 else (4e-5, -0.2)
    for place in (product, tarred(product), product / f"{product.name}_MTL.{ending}"):
        image, valid = read(place, inputs(["B04", "B08", "B11"]))
        for i, band in enumerate(("B4", "B5", "B6")):
            np.testing.assert_allclose(
                image[i], pixels[band] * scale + offset, rtol=1e-5, atol=1e-7
            )
        assert image.shape[1:] == pixels["B4"].shape and valid.all()


def test_a_landsat_thermal_band_has_no_reflectance(tmp_path: Path) -> None:
    product, pixels = landsat(tmp_path, 2)
    image, _ = read(product, inputs(["LWIR11"]))
    np.testing.assert_array_equal(image[0], pixels["B10"])
    assert "lacks B05" in refusal(product, inputs(["B12", "B05"]))


def test_values_that_are_not_the_products_own_are_left_alone(tmp_path: Path) -> None:
    """Floats under the name of a product's file were converted by somebody."""
    product, _ = landsat(tmp_path, 2)
    reflectance = np.full((32, 32), 0.25, np.float32)
    raster(product / f"{LANDSAT}_SR_B4.TIF", reflectance, metres=30)
    image, _ = read(product, inputs(["B04"]))
    np.testing.assert_array_equal(image[0], reflectance)


def test_landsat_metadata_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    product, _ = landsat(tmp_path, 2, ending="json")
    (metadata,) = product.glob("*_MTL.json")
    said = json.loads(metadata.read_text())
    group = said["LANDSAT_METADATA_FILE"]["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"]
    group["REFLECTANCE_MULT_BAND_4"] = "many"
    metadata.write_text(json.dumps(said))
    assert "'many'" in refusal(product, inputs(["B04"]))
    for text in ("{", "[]", '{"a": {}}', "{}", '{"a": 1}', '{"a": {"PRODUCT_CONTENTS": 1}}'):
        metadata.write_text(text)
        assert "_MTL.json is not Landsat metadata" in refusal(product, inputs(["B04"]))


# ---- Sentinel-1 ----


@pytest.mark.parametrize("packed", [False, True])
def test_sentinel_1_measurements_are_found(tmp_path: Path, packed: bool) -> None:
    product, pixels = sentinel_1(tmp_path, points=False)
    for place in (zipped(product),) if packed else (product, product / "measurement", tmp_path):
        image, _ = read(place, inputs(["VV", "VH"]))
        np.testing.assert_array_equal(image, [pixels["VV"], pixels["VH"]])


def test_sentinel_1_on_control_points_is_refused_with_gdalwarp(tmp_path: Path) -> None:
    product, _ = sentinel_1(tmp_path, points=True)
    for place in (product, zipped(product)):
        message = refusal(place, inputs(["VV", "VH"]))
        assert "ground control points" in message and "gdalwarp" in message
