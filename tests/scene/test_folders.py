"""Files and folders as users have them: names, twins, bands that nobody wants, other formats."""

from __future__ import annotations

import itertools
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from support.products import LANDSAT_1, landsat, raster
from support.scenes import scene_pixels, write_scene

from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.bands import S2_L2A, parse_bands
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.scene import Radiometry, open_scene
from eosfm_edge.scene.sources import find_sources
from eosfm_edge.scene.tiles import load_tiles

Array = NDArray[Any]
RGB, RGBN = ("B04", "B03", "B02"), ("B04", "B03", "B02", "B08")
PIXELS = scene_pixels(12, 8, 9)


def inputs(names: Sequence[str], **values: Any) -> tuple[InputBand, ...]:
    return tuple(InputBand(name=name, **values) for name in names)


def read(path: Path | str, wanted: Sequence[str], **options: Any) -> Array:
    """Read a scene; no warning is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SceneWarning)
        with open_scene(path, inputs(wanted), **options) as scene:
            return scene.read(0, 0, scene.width, scene.height)[0]


def refusal(path: Path | str, wanted: Sequence[str], **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read(path, wanted, **options)
    return str(error.value)


def write_folder(folder: Path, *stems: str) -> Path:
    for stem, plane in zip(stems, PIXELS, strict=False):
        raster(folder / f"{stem}.tif", plane)
    return folder


# ---- Numbers of other sensors ----


def test_a_landsat_8_folder_is_read_as_landsats(tmp_path: Path) -> None:
    """B5 is the near infrared; B8 is panchromatic, of 15 m, and B11 thermal."""
    for number in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11):
        stem = f"{LANDSAT_1}_B{number}.TIF"
        raster(tmp_path / stem, PIXELS[number - 1], metres=30)
    raster(tmp_path / f"{LANDSAT_1}_B8.TIF", scene_pixels(1, 16, 18)[0], metres=15)
    np.testing.assert_array_equal(read(tmp_path, RGBN), PIXELS[[3, 2, 1, 4]])
    np.testing.assert_array_equal(read(tmp_path, ["B11"]), PIXELS[[5]])
    assert "lacks B05" in refusal(tmp_path, ["B04", "B05"])
    assert "one band, B5 of Landsat 8-9, for both B08 and B8A" in refusal(tmp_path, ["B08", "B8A"])
    with open_scene(tmp_path, (InputBand(wavelength_nm=1609),)) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 9, 8)[0], PIXELS[[5]])


def test_an_hls_folder_of_landsat_is_read_as_landsats(tmp_path: Path) -> None:
    name = "HLS.L30.T18SUJ.2020158T154000.v2.0"
    write_folder(tmp_path, *(f"{name}.B{n:02d}" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)))
    np.testing.assert_array_equal(read(tmp_path, RGBN), PIXELS[[3, 2, 1, 4]])


@pytest.mark.parametrize(
    "names", [("B1", "B2", "B3", "B4", "B5", "B7"), ("b1", "b2", "b3", "b4"), ("B4", "B3", "B2")]
)
def test_numbers_alone_are_asked_about(tmp_path: Path, names: Sequence[str]) -> None:
    path = write_scene(tmp_path / "given.tif", PIXELS[: len(names)], names)
    folder = write_folder(tmp_path / "given", *(f"x_{name}" for name in names))
    for place in (path, folder):
        message = refusal(place, RGB)
        assert "different bands on different sensors" in message and "--bands" in message
    said = parse_bands("B04,B03,B02,B08,B11,B12")[: len(names)]
    np.testing.assert_array_equal(read(path, RGB, names=said), PIXELS[:3])


def test_a_files_name_or_tags_say_its_sensor(tmp_path: Path) -> None:
    names = [f"B{number}" for number in (2, 3, 4, 5)]
    path = write_scene(tmp_path / f"{LANDSAT_1}.tif", PIXELS[:4], names)
    np.testing.assert_array_equal(read(path, RGBN), PIXELS[[2, 1, 0, 3]])
    path = path.rename(tmp_path / "scene.tif")
    assert "--bands" in refusal(path, RGBN)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(SPACECRAFT_NAME="Landsat-8")
    np.testing.assert_array_equal(read(path, RGBN), PIXELS[[2, 1, 0, 3]])


def test_the_folder_of_a_file_does_not_say_its_sensor(tmp_path: Path) -> None:
    folder = tmp_path / "landsat_8"
    folder.mkdir()
    path = write_scene(folder / "scene.tif", PIXELS[:4], RGBN)
    np.testing.assert_array_equal(read(path, RGBN), PIXELS[:4])


# ---- Names ----


def test_stac_names_are_read_in_a_file_and_in_a_folder(tmp_path: Path) -> None:
    names = (
        *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3"),
        *("nir", "nir08", "nir09", "swir16", "swir22"),
    )
    path = write_scene(tmp_path / "given.tif", PIXELS, names)
    folder = write_folder(tmp_path / "given", *names)
    for place in (path, folder):
        np.testing.assert_array_equal(read(place, S2_L2A), PIXELS)


def test_descriptions_of_gdals_sentinel_2_driver_are_read(tmp_path: Path) -> None:
    centres = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1610, 2190)
    short = [name if name == "B8A" else f"B{int(name[1:])}" for name in S2_L2A]
    names = [f"{name}, central wavelength {nm} nm" for name, nm in zip(short, centres, strict=True)]
    path = write_scene(tmp_path / "given.tif", PIXELS, names)
    np.testing.assert_array_equal(read(path, S2_L2A), PIXELS)


@pytest.mark.parametrize("names", [("VV_dB", "VH_dB"), ("Sigma0_VV_db", "Sigma0_VH_db")])
def test_names_of_decibels_are_read(tmp_path: Path, names: Sequence[str]) -> None:
    path = write_scene(tmp_path / "given.tif", PIXELS[:2], names)
    np.testing.assert_array_equal(read(path, ("VH", "VV")), PIXELS[[1, 0]])


def test_a_file_that_names_some_bands_is_not_read_by_place(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "given.tif", PIXELS[:3], ("", "B04", "B03"))
    message = refusal(path, RGB)
    assert "lacks B02: it has ?, B04, B03" in message and "--bands" in message
    np.testing.assert_array_equal(read(path, ("B03", "B04")), PIXELS[[2, 1]])
    said = parse_bands("B02,B04,B03")
    np.testing.assert_array_equal(read(path, RGB, names=said), PIXELS[[1, 2, 0]])


def test_names_that_mean_the_same_are_refused_where_they_are_wanted(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "given.tif", PIXELS[:5], ("Red", "Green", "Blue", "red", "R"))
    message = refusal(path, RGB)
    assert "band 1" in message and "band 4" in message and "band 5" in message
    assert "all B04" in message and "--bands" in message
    np.testing.assert_array_equal(read(path, ("B03", "B02")), PIXELS[[1, 2]])


SAYS = {"B04": "red", "red": "red", "R": "red", "665nm": "red", "B4, 665 nm": "red",
        "B03": "green", "Green": "green", "560 nm": "green", "B02": "blue", "blue": "blue",
        "B4": None, "red edge": None, "": None, "B08": None, "nir08": None, "B04 mask": None,
        "b1": None, "VV": None, "height": None}  # fmt: skip


@given(names=st.lists(st.sampled_from([*SAYS]), min_size=1, max_size=6))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_band_is_the_only_one_that_is_called_so(tmp_path: Path, names: list[str]) -> None:
    """Or the file is refused. Bands are taken by place only if none has a name."""
    path = write_scene(tmp_path / "given.tif", PIXELS[: len(names)], names)
    # Beside B02 a B4 is Sentinel-2's; alone it may be anybody's.
    says = {**SAYS, "B4": "red" if {"B02", "B03", "B04", "B08"} & set(names) else None}
    places = []
    for colour in ("red", "blue"):
        called = [i for i, name in enumerate(names) if says[name] == colour]
        by_name = [i for i in called if names[i] not in ("665nm", "560 nm")]
        places.append(by_name or called)  # a name is nearer than any wavelength
    by_place = len(names) == 2 and not any(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SceneWarning)
        try:
            with open_scene(path, inputs(("B04", "B02"))) as scene:
                image = scene.read(0, 0, scene.width, scene.height)[0]
        except UserError:
            assert not by_place and any(len(place) != 1 for place in places)
            return
    assert by_place or all(len(place) == 1 for place in places)
    expected = [0, 1] if by_place else [place[0] for place in places]
    np.testing.assert_array_equal(image, PIXELS[expected])


# ---- Alpha ----


def write_alpha(path: Path, pixels: Array, names: Sequence[str] | None) -> Path:
    write_scene(path, pixels, names)
    with rasterio.open(path, "r+") as dataset:
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        dataset.colorinterp = [*colours, *[ColorInterp.alpha] * (len(pixels) - 3)]
    return path


def test_an_infrared_that_is_flagged_as_alpha_is_a_band_and_no_mask(tmp_path: Path) -> None:
    pixels = (PIXELS[:4] % 250 + 1).astype(np.uint8)
    pixels[3, :3] = 0
    described = write_alpha(tmp_path / "d.tif", pixels, ("Red", "Green", "Blue", "NIR"))
    naip = write_alpha(tmp_path / "m_4709963_se_14_1_20090818.tif", pixels, None)
    silent = write_alpha(tmp_path / "s.tif", pixels, None)
    for path, names in ((described, None), (naip, None), (silent, parse_bands("RGBN"))):
        np.testing.assert_array_equal(read(path, RGBN, names=names), pixels)
        with open_scene(path, inputs(RGB), names=names) as scene:
            image, valid = scene.read(0, 0, scene.width, scene.height)
        assert valid.all()
        np.testing.assert_array_equal(image, pixels[:3])


def test_an_alpha_band_is_a_mask_where_nothing_says_otherwise(tmp_path: Path) -> None:
    pixels = (PIXELS[:4] % 250 + 1).astype(np.uint8)
    pixels[3, :3] = 0
    for names in (("Red", "Green", "Blue", ""), ("Red", "Green", "Blue", "alpha")):
        path = write_alpha(tmp_path / "a.tif", pixels, names)
        for said in (None, parse_bands("RGB")):
            with open_scene(path, inputs(RGB), names=said) as scene:
                _, valid = scene.read(0, 0, scene.width, scene.height)
            np.testing.assert_array_equal(valid, pixels[3] != 0)


# ---- Folders ----


def test_twins_of_macos_are_no_bands(tmp_path: Path) -> None:
    write_folder(tmp_path, *(f"T18_{band}" for band in RGB))
    for band in RGB:
        (tmp_path / f"._T18_{band}.tif").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(400))
        (tmp_path / f"T18_{band}.tif.aux.xml").write_text("<PAMDataset/>")
    (tmp_path / ".DS_Store").write_bytes(bytes(100))
    np.testing.assert_array_equal(read(tmp_path, RGB), PIXELS[:3])


def test_a_file_of_a_band_that_nobody_wants_is_not_opened(tmp_path: Path) -> None:
    write_folder(tmp_path, *(f"T18_{band}" for band in RGB))
    (tmp_path / "T18_B11.tif").touch()
    np.testing.assert_array_equal(read(tmp_path, RGB), PIXELS[:3])
    assert "T18_B11.tif" in refusal(tmp_path, (*RGB, "B11"))


def test_bands_of_two_dates_are_refused_radar_and_optical_may_differ(tmp_path: Path) -> None:
    write_folder(tmp_path, "T18_20200101T100000_B04", "T18_20210101T100000_B03")
    message = refusal(tmp_path, ("B04", "B03"))
    assert "20200101" in message and "20210101" in message
    write_folder(tmp_path / "both", "S1_20200103_VV", "T18_20200101T100000_B04")
    assert len(read(tmp_path / "both", ("B04", "VV"))) == 2


def test_bands_option_names_a_folders_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "layer_2", "layer_10", "layer_1")
    (folder / "notes.txt").write_text("nothing")
    message = refusal(folder, RGB)
    assert "layer_1.tif" in message and "--bands" in message
    image = read(folder, RGB, names=parse_bands("B04,B03,B02"))
    np.testing.assert_array_equal(image, PIXELS[[2, 0, 1]])
    message = refusal(folder, RGB, names=parse_bands("RGBN"))
    assert "holds 3 rasters: layer_1.tif, layer_2.tif, layer_10.tif" in message


def test_bands_option_that_contradicts_file_names_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "x_B02", "x_B03")
    np.testing.assert_array_equal(
        read(tmp_path, ("B03", "B02"), names=parse_bands("B02,B03")), PIXELS[[1, 0]]
    )
    message = refusal(tmp_path, ("B03", "B02"), names=parse_bands("B03,B02"))
    assert "x_B02.tif is B02 by its name, and B03 by --bands" in message


def test_bands_option_with_a_product_folder_without_rasters_says_what_is_there(
    tmp_path: Path,
) -> None:
    assert "holds 0 rasters" in refusal(tmp_path, RGB, names=parse_bands("RGB"))


def test_an_archive_of_one_raster_is_that_raster(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", PIXELS[:3], RGB)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(path, "inside/scene.tif")
    np.testing.assert_array_equal(read(tmp_path / "x.zip", RGB), PIXELS[:3])
    one = f"/vsizip/{tmp_path}/x.zip/inside/scene.tif"
    np.testing.assert_array_equal(read(one, RGB), PIXELS[:3])


# ---- netCDF and Zarr ----


def test_variables_of_a_netcdf_file_are_bands_if_called_so(tmp_path: Path) -> None:
    path = _netcdf(tmp_path / "named.nc", ("B04", "B03", "B02"))
    np.testing.assert_array_equal(read(path, RGB), PIXELS[:3])
    np.testing.assert_array_equal(read(path, ("B02", "B04")), PIXELS[[2, 0]])


def _netcdf(path: Path, names: Sequence[str]) -> Path:
    """Write a variable a band. GDAL names them, so names of as many letters are put in place."""
    source = write_scene(path.with_suffix(".tif"), PIXELS[: len(names)])
    try:
        rasterio.shutil.copy(source, path, driver="netCDF", FORMAT="NC")
    except rasterio.errors.RasterioError as error:  # pragma: no cover
        pytest.skip(f"this GDAL writes no netCDF: {error}")
    data = path.read_bytes()
    for number, name in enumerate(names, 1):
        old = b"\0\0\0\5Band%d\0\0\0" % number
        assert data.count(old) == 1
        data = data.replace(old, b"\0\0\0\5" + name.ljust(5, "_").encode() + b"\0\0\0")
    path.write_bytes(data)
    return path


def test_variables_without_names_are_listed_and_named_by_the_option(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "s.tif", PIXELS[:3])
    path = tmp_path / "given.nc"
    try:
        rasterio.shutil.copy(source, path, driver="netCDF")
    except rasterio.errors.RasterioError as error:  # pragma: no cover
        pytest.skip(f"this GDAL writes no netCDF: {error}")
    message = refusal(path, RGB)
    assert f"netcdf:{path}:Band1" in message.replace('"', "").replace("NETCDF", "netcdf")
    assert "--bands" in message
    np.testing.assert_array_equal(read(path, RGB, names=parse_bands("RGB")), PIXELS[:3])
    assert "has 3 variables" in refusal(path, RGB, names=parse_bands("RGBN"))
    one = f'NETCDF:"{path}":Band2'
    np.testing.assert_array_equal(read(one, ("B03",), names=parse_bands("B03")), PIXELS[[1]])


def test_a_zarr_store_is_a_raster_and_no_folder(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "s.tif", PIXELS[:3])
    path = tmp_path / "given.zarr"
    try:
        rasterio.shutil.copy(source, path, driver="Zarr")
    except rasterio.errors.RasterioError as error:  # pragma: no cover
        pytest.skip(f"this GDAL writes no Zarr: {error}")
    np.testing.assert_array_equal(read(path, RGB, names=parse_bands("RGB")), PIXELS[:3])
    (origin,) = find_sources([path])
    assert [part.path for part in origin.parts] == [path] and not origin.chips


# ---- Calibration data ----


def test_class_folders_hold_chips(tmp_path: Path) -> None:
    for index, name in enumerate(itertools.islice(itertools.cycle(("Forest", "River")), 6)):
        chip = (scene_pixels(3, 32, 32, index) % 255).astype(np.uint8)
        path = tmp_path / "deep" / name / f"{name}_{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path, "w", driver="PNG", count=3, width=32, height=32, dtype="uint8"
        ) as png:
            png.write(chip)
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_text("no image")
    (source,) = find_sources([tmp_path])
    assert source.chips and len(source.parts) == 6
    tiles = load_tiles([tmp_path], inputs(RGB), 32, 5, 0, names=parse_bands("RGB"))
    assert (len(tiles.calibration), len(tiles.held_out)) == (5, 1)


def test_a_folder_of_scenes_is_not_one_of_chips(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", "x_B04", "x_B03")
    with pytest.raises(UserError, match="give each scene by itself"):
        find_sources([tmp_path])


def test_a_folder_whose_files_the_option_names_is_one_scene(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "layer_1", "layer_2", "layer_3")
    (source,) = find_sources([folder], names=parse_bands("RGB"))
    assert not source.chips and [part.path for part in source.parts] == [folder]
    (source,) = find_sources([folder], names=parse_bands("RGBN"))
    assert source.chips


def test_a_manifest_names_a_folders_files_and_lists_their_metadata(tmp_path: Path) -> None:
    write_folder(tmp_path / "drone", "layer_1", "layer_2")
    product, _ = landsat(tmp_path, 2)
    files: list[dict[str, Any]] = []
    for folder, bands in (("drone", ["B04", "B03"]), (product.name, None)):
        rasters = (tmp_path / folder).glob("*")
        digests = {path.name: sha256_file(path) for path in rasters}
        files.append({"path": folder, "sha256": digests, **({"bands": bands} if bands else {})})
    manifest = tmp_path / "m.yaml"
    head = {"format": "eosfm-calibration-data", "name": "x", "licence": "CC0-1.0"}
    manifest.write_text(yaml.safe_dump({**head, "files": files}))
    (source,) = find_sources([manifest], names=parse_bands("RGB"))
    assert [part.names for part in source.parts] == [tuple(parse_bands("B04,B03")), None]
    metadata = f"{product.name}_MTL.txt"
    del files[1]["sha256"][metadata]
    manifest.write_text(yaml.safe_dump({**head, "files": files}))
    with pytest.raises(UserError, match=f"{metadata} is in a folder that .* is not listed there"):
        find_sources([manifest])


# ---- Grids ----


def test_a_band_whose_grid_does_not_nest_is_read_by_the_nearest_pixel(tmp_path: Path) -> None:
    write_folder(tmp_path, *(f"T18_{band}" for band in RGB))
    coarse = scene_pixels(1, 5, 6, seed=9)[0]
    corner = rasterio.transform.from_origin(599_990, 4_000_010, 20, 20)
    raster(tmp_path / "T18_B08.tif", coarse, transform=corner)
    image = read(tmp_path, RGBN)
    np.testing.assert_array_equal(image[3], coarse.repeat(2, 0).repeat(2, 1)[1:9, 1:10])


def test_a_file_whose_first_row_is_southernmost_is_read_as_it_lies(tmp_path: Path) -> None:
    upwards = rasterio.Affine(10, 0, 5e5, 0, 10, 4e6)
    raster(tmp_path / "x_B04.tif", PIXELS[0], transform=upwards)
    with open_scene(tmp_path, inputs(["B04"]), radiometry=Radiometry()) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 9, 8)[0], PIXELS[:1])
        assert scene.transform == upwards
