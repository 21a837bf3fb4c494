"""The meaning of stored values: types, scales, nodata values, masks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from support.scenes import write_scene

from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.bands import DTYPES
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.scene import open_scene

Array = NDArray[Any]
L1C = (InputBand(name="B04", scale=1e-4, nodata=0), InputBand(name="B10", scale=1e-4))
RED = (InputBand(name="B04", scale=1e-4, nodata=0),)
NIR = tuple(InputBand(name=name, scale=1e-4, nodata=0) for name in ("B04", "B03", "B02", "B08"))


def read(path: Path, wanted: Any, **radiometry: Any) -> tuple[Array, Array]:
    """Return stored values and mask, after checking that rows say the same."""
    with open_scene(path, wanted, radiometry=Radiometry(**radiometry)) as scene:
        image, valid = scene.read(0, 0, scene.width, scene.height)
        rows = [scene.rows(i, 0, scene.height) for i in range(len(wanted))]
        np.testing.assert_array_equal(np.isfinite(rows).all(axis=0), valid)
        for i, (band, stored) in enumerate(zip(wanted, rows, strict=True)):
            scale, offset = scene.scale_offset(i)
            physical = stored[valid].astype(np.float64) * scale + offset
            expected = image[i][valid].astype(np.float64) * band.scale + band.offset
            size = np.abs(physical).max(initial=abs(offset) + abs(band.offset))
            np.testing.assert_allclose(physical, expected, atol=1e-6 * size)
    return image, valid


def tagged(path: Path, **tags: Any) -> Path:
    with rasterio.open(path, "r+") as dataset:
        for name, value in tags.items():
            setattr(dataset, name, (value,) * dataset.count)
    return path


# ---- Types ----


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("int8", -128),
        ("uint8", 255),
        ("int16", -9999),
        ("uint16", 65535),
        ("int32", -2147483648),
        ("uint32", 4294967295),
        ("float32", -3.4028234663852886e38),
        ("float64", -1.7976931348623157e308),
        ("float64", 1e20),
        ("float64", 1e300),
    ],
)
def test_nodata_is_compared_in_the_files_own_type(
    tmp_path: Path, dtype: str, nodata: float
) -> None:
    """The neighbour of a nodata value is data, also where a float32 does not tell them apart."""
    kind = np.dtype(dtype)
    missing = kind.type(nodata)
    if kind.kind == "f":
        near = np.nextafter(missing, kind.type(0))
    else:
        near = kind.type(nodata - 1 if nodata > 0 else nodata + 1)
    pixels = np.full((1, 32, 32), 7, kind)
    pixels[0, 0, :3] = [missing, near, 8]
    path = write_scene(tmp_path / "s.tif", pixels, ["B04"], nodata=nodata)
    image, valid = read(path, (InputBand(name="B04"),))
    # A float64 beyond what a float32 holds is no number to a specialist.
    held = abs(float(near)) <= float(np.finfo(np.float32).max)
    assert list(valid[0, :4]) == [False, held, True, True]
    assert image[0, 0, 2] == 8
    if held:
        assert image[0, 0, 1] == np.float32(near)


def test_wide_types_are_not_rounded_before_they_are_scaled(tmp_path: Path) -> None:
    """Float32 holds 24 bits: the difference from an offset would be lost."""
    pixels = (2_000_000_000 + np.arange(1024).reshape(1, 32, 32)).astype("i4")
    path = tagged(write_scene(tmp_path / "s.tif", pixels, ["B04"]), scales=1e-3, offsets=-2e6)
    image, _ = read(path, (InputBand(name="B04"),))
    np.testing.assert_allclose(image[0], np.arange(1024).reshape(32, 32) * 1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "complex64"])
def test_other_types_are_refused_with_a_conversion(tmp_path: Path, dtype: str) -> None:
    path = write_scene(tmp_path / "s.tif", np.ones((1, 32, 32), dtype), ["B04"])
    with pytest.raises(UserError, match=rf"(?s){dtype}.*gdal_translate -ot"):
        read(path, RED)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([1.0, 1e-4, 2.75e-5, 1 / 255, -0.5, 1e-2]),
    offset=st.sampled_from([0.0, -0.1, -0.2, 300.0]),
    nodata=st.sampled_from([None, 0, 1, 100]),
    wanted=st.builds(
        InputBand,
        name=st.just("B04"),
        scale=st.sampled_from([1.0, 1e-4, 1 / 255]),
        offset=st.sampled_from([0.0, -0.1]),
        fill=st.sampled_from([0.0, 5.0]),
    ),
    said_by_option=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_type_reads_as_float32_of_the_same_physical_values(
    tmp_path: Path,
    dtype: str,
    scale: float,
    offset: float,
    nodata: float | None,
    wanted: InputBand,
    said_by_option: bool,
    seed: int,
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 127, (1, 32, 32)).astype(dtype)
    physical = pixels.astype(np.float64) * scale + offset
    if nodata is not None:
        physical[pixels == nodata] = np.nan
    plain = write_scene(tmp_path / "plain.tif", physical.astype("f4"), ["B04"])
    expected, right = read(plain, (wanted,), scale=1, offset=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SceneWarning)
        if said_by_option:
            given_file = write_scene(tmp_path / "given.tif", pixels, ["B04"])
            found, valid = read(given_file, (wanted,), scale=scale, offset=offset, nodata=nodata)
        else:
            given_file = write_scene(tmp_path / "given.tif", pixels, ["B04"], nodata=nodata)
            tagged(given_file, scales=scale, offsets=offset)
            # Tags of 1 and 0 say nothing: then the input's own hold.
            silent = {"scale": 1, "offset": 0} if (scale, offset) == (1, 0) else {}
            found, valid = read(given_file, (wanted,), **silent)
    np.testing.assert_array_equal(valid, right)
    size = (np.nanmax(np.abs(physical), initial=0) + abs(offset)) / wanted.scale
    np.testing.assert_allclose(found, expected, atol=2e-6 * size)


# ---- Nodata ----


def with_a_lake(path: Path, dtype: str, wanted: Any, **profile: Any) -> Path:
    """Write a scene whose upper rows are 0."""
    pixels = np.full((len(wanted), 32, 32), 100, dtype)
    pixels[:, :8] = 0
    return write_scene(path, pixels, [str(band) for band in wanted], **profile)


@pytest.mark.parametrize(
    ("dtype", "profile", "radiometry", "zero_is_data"),
    [
        ("uint16", {}, {}, False),  # control: what the bundle takes
        ("uint16", {}, {"scale": 1e-4, "offset": -0.1}, False),  # control: the same numbers
        ("uint16", {"nodata": 0}, {"scale": 2.75e-5, "offset": -0.2}, False),  # control: its own
        ("float32", {}, {"scale": 1, "offset": 0}, True),
        ("float32", {"nodata": -9999}, {"scale": 1, "offset": 0}, True),
        ("float64", {"nodata": -9999}, {"scale": 1, "offset": 0}, True),
        ("int16", {"nodata": -9999}, {}, True),  # HLS: the bundle's scale, another nodata value
        ("uint8", {}, {"scale": 1 / 255, "offset": 0}, True),
        ("uint16", {}, {"nodata": "none"}, True),
        ("uint16", {"nodata": 0}, {"nodata": "none"}, True),
        ("uint16", {}, {"nodata": 65535}, True),
        ("uint16", {}, {"nodata": 0}, False),
        ("float32", {"nodata": float("nan")}, {"scale": 1, "offset": 0}, True),
    ],
)
def test_the_bundles_nodata_is_not_applied_where_others_say(
    tmp_path: Path,
    dtype: str,
    profile: dict[str, Any],
    radiometry: dict[str, Any],
    zero_is_data: bool,
) -> None:
    path = with_a_lake(tmp_path / "s.tif", dtype, RED, **profile)
    _, valid = read(path, RED, **radiometry)
    assert valid[8:].all()
    assert valid[:8].all() == zero_is_data
    assert valid[:8].any() == zero_is_data


def test_a_scale_of_the_file_decides_as_an_option_does(tmp_path: Path) -> None:
    """Landsat's numbers are not the bundle's; Sentinel-2's with another offset are."""
    for scale, zero_is_data in ((2.75e-5, True), (1e-4, False)):
        path = with_a_lake(tmp_path / "s.tif", "uint16", RED)
        _, valid = read(tagged(path, scales=scale, offsets=-0.1), RED)
        assert valid[0, 0] == zero_is_data


@pytest.mark.parametrize("profile", [{}, {"nodata": 0}])
@pytest.mark.parametrize("radiometry", [{}, {"nodata": 0}])
def test_a_band_without_nodata_keeps_its_zeros(
    tmp_path: Path, profile: dict[str, Any], radiometry: dict[str, Any]
) -> None:
    """A GeoTIFF has one nodata value, which is not cirrus's; neither is --nodata 0."""
    pixels = np.full((2, 32, 32), 100, np.uint16)
    pixels[0, :4] = 0
    pixels[1, :, :8] = 0
    path = write_scene(tmp_path / "s.tif", pixels, ["B04", "B10"], **profile)
    _, valid = read(path, L1C, **radiometry)
    np.testing.assert_array_equal(valid, pixels[0] != 0)


def test_another_nodata_value_holds_in_every_band(tmp_path: Path) -> None:
    """Nobody measures -9999 in B10."""
    pixels = np.full((2, 32, 32), 100, np.int16)
    pixels[1, :, :8] = -9999
    path = write_scene(tmp_path / "s.tif", pixels, ["B04", "B10"], nodata=-9999)
    _, valid = read(path, L1C)
    np.testing.assert_array_equal(valid, pixels[1] != -9999)


def test_a_nodata_value_that_is_replaced_is_named(tmp_path: Path) -> None:
    path = with_a_lake(tmp_path / "s.tif", "int16", RED, nodata=-9999)
    with pytest.warns(SceneWarning, match=r"says that its nodata value is -9999.*--nodata 0"):
        read(path, RED, nodata=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path, RED, nodata=-9999)
        read(path, RED, nodata="none")


def test_a_nodata_value_that_no_pixel_can_have_is_named(tmp_path: Path) -> None:
    path = with_a_lake(tmp_path / "s.tif", "uint16", RED)
    with pytest.warns(SceneWarning, match="-9999 is not a value of uint16"):
        read(path, RED, nodata=-9999)
    with pytest.warns(SceneWarning, match=r"0\.5 is not a value of uint16"):
        read(path, RED, nodata=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path, RED, nodata=65535)


def test_tags_that_no_value_can_have_are_refused(tmp_path: Path) -> None:
    for tags in ({"scales": 0.0}, {"offsets": float("inf")}):
        path = tagged(with_a_lake(tmp_path / "s.tif", "uint16", RED), **tags)
        with pytest.raises(UserError, match="--scale and --offset"):
            read(path, RED)
        read(path, RED, scale=1e-4, offset=0)


# ---- Masks ----


def coloured(path: Path, pixels: Array, names: Any, colours: Any, **profile: Any) -> Path:
    write_scene(path, pixels, names, **profile)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = colours
    return path


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("nodata", [None, 9])
def test_an_alpha_band_is_a_mask_in_any_place(
    tmp_path: Path, bands: int, nodata: int | None
) -> None:
    """GDAL itself uses it in files of two and four bands without a nodata value, no others."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(10, 250, (bands + 1, 32, 32)).astype(np.uint16)
    pixels[-1, :, 16:] = 0
    pixels[0, 0, :4] = 9
    grey = (ColorInterp.gray,) + (ColorInterp.undefined,) * (bands - 1)
    names = [str(band) for band in NIR[:bands]]
    path = coloured(
        tmp_path / "s.tif", pixels, [*names, "mask"], [*grey, ColorInterp.alpha], nodata=nodata
    )
    image, valid = read(path, NIR[:bands])
    expected = pixels[-1] != 0
    if nodata is not None:
        expected[0, :4] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(image[:, valid], pixels[:-1, valid])


def test_files_of_a_folder_may_have_an_alpha_band_each(tmp_path: Path) -> None:
    """As gdalwarp -dstalpha leaves them; two bands without one are still refused."""
    pixels = np.full((2, 32, 32), 900, np.uint16)
    for column, name in enumerate(("B04", "B03")):
        pixels[1] = 65535
        pixels[1, :, column] = 0
        colours = (ColorInterp.gray, ColorInterp.alpha)
        coloured(tmp_path / f"T_{name}.tif", pixels, [name, ""], colours)
    _, valid = read(tmp_path, NIR[:2])
    assert not valid[:, :2].any() and valid[:, 2:].all()
    colours = (ColorInterp.gray, ColorInterp.undefined)
    coloured(tmp_path / "T_B04.tif", pixels, ["B04", ""], colours)
    with pytest.raises(UserError, match="a file for each band"):
        read(tmp_path, NIR[:2])


def test_near_infrared_that_is_flagged_alpha_is_a_band(tmp_path: Path) -> None:
    """NAIP: 0 in the near infrared is water, and says nothing of red, green and blue."""
    pixels = np.random.default_rng(0).integers(1, 250, (4, 32, 32)).astype(np.uint8)
    pixels[3, :8] = 0
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = coloured(tmp_path / "s.tif", pixels, ["Red", "Green", "Blue", "NIR"], colours)
    for wanted in (NIR, NIR[:3]):
        plain = tuple(band.model_copy(update={"scale": 1.0}) for band in wanted)
        image, valid = read(path, plain, scale=1, offset=0, nodata="none")
        assert valid.all()
        np.testing.assert_array_equal(image, pixels[: len(wanted)])
    # Control: the same file, whose fourth band is called nothing, has a mask.
    path = coloured(tmp_path / "rgba.tif", pixels, ["Red", "Green", "Blue", ""], colours)
    _, valid = read(path, NIR[:3], scale=1 / 255, offset=0)
    np.testing.assert_array_equal(valid, pixels[3] != 0)


def test_a_mask_says_that_zeros_are_data(tmp_path: Path) -> None:
    path = with_a_lake(tmp_path / "s.tif", "uint16", RED)
    assert not read(path, RED)[1][:8].any()
    inside = np.full((32, 32), 255, np.uint8)
    inside[:, :4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(inside)
    np.testing.assert_array_equal(read(path, RED)[1], inside != 0)
