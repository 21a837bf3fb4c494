"""The scenes of GDAL hosts: read as `eosfm-edge run` reads them, and refused as it refuses them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin
from support.programs import run
from support.scenes import scene_pixels, write_scene

from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.runtime.run import run_scene

SIDE = 120


@pytest.fixture(scope="module")
def host(programs: Path) -> Path:
    if not (programs / "gdal_features").exists():
        pytest.skip("there is no libgdal-dev")
    return programs / "gdal_features"


def pixels(seed: int = 1) -> NDArray[np.int16]:
    return scene_pixels(13, SIDE, SIDE, seed=seed).astype(np.int16)


def int16_nodata(folder: Path) -> Path:
    """Zeros are measured there: the file's own word counts."""
    values = pixels()
    values[:, :, SIDE // 2 :] = -9999
    values[:, 10:30, 10:30] = 0
    return write_scene(folder / "scene.tif", values, S2_L1C, nodata=-9999)


def scale_and_offset(folder: Path) -> Path:
    path = write_scene(folder / "scene.tif", pixels() + np.int16(1000), S2_L1C)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4,) * 13, (-0.1,) * 13
    return path


def mask(folder: Path) -> Path:
    path = write_scene(folder / "scene.tif", pixels(), S2_L1C)
    valid = np.full((SIDE, SIDE), 255, np.uint8)
    valid[20:90, :50] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    return path


def shifted_grids(folder: Path) -> Path:
    """Bands of 20 m that begin a pixel of 10 m before the others, one of 60 m four and three."""
    shifts = {"B05": (2, 1, 1), "B11": (2, 1, 0), "B01": (6, 4, 3)}
    for index, name in enumerate(S2_L1C):
        step, right, down = shifts.get(name, (1, 0, 0))
        size = SIDE // step + (1 if step > 1 else 0)
        path = write_scene(
            folder / f"T33_{name}.tif", pixels()[index : index + 1, :size, :size].astype(np.uint16),
            resolution=10.0 * step,
        )  # fmt: skip
        with rasterio.open(path, "r+") as dataset:
            corner = (500_000 - 10 * right, 4_000_000 + 10 * down)
            dataset.transform = from_origin(*corner, 10 * step, 10 * step)
    (folder / "T33_B02.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    return folder


@pytest.mark.parametrize("make", [int16_nodata, scale_and_offset, mask, shifted_grids])
def test_scenes_are_read_as_run_reads_them(
    host: Path, bundle: Path, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    (tmp_path / "scene").mkdir()
    scene = make(tmp_path / "scene")
    twin = tmp_path / "scene" / "._T33_B02.tif"
    twin.write_bytes(b"\0\5\x16\7 what macOS leaves beside files")
    run([host, bundle, scene, tmp_path / "c"])
    twin.unlink()
    run_scene(bundle, scene, tmp_path / "python")
    for level in read_manifest(bundle).levels:
        with (
            rasterio.open(tmp_path / "c" / f"{level.name}.tif") as one,
            rasterio.open(tmp_path / "python" / f"{level.name}.tif") as other,
        ):
            assert (one.transform, one.crs, one.shape) == (other.transform, other.crs, other.shape)
            mine, theirs = one.read(), other.read()
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        peak = np.nanmax(np.abs(theirs))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * peak)


def two_dates(folder: Path) -> Path:
    for date, seed in (("20200101", 1), ("20210101", 2)):
        for index, name in enumerate(S2_L1C):
            write_scene(folder / f"T33_{date}_{name}.tif", pixels(seed)[index : index + 1])
    return folder


def two_systems(folder: Path) -> Path:
    for index, name in enumerate(S2_L1C):
        path = write_scene(folder / f"T33_{name}.tif", pixels()[index : index + 1])
        if name == "B08":
            with rasterio.open(path, "r+") as dataset:
                dataset.crs = CRS.from_epsg(32634)
    return folder


def control_points(folder: Path) -> Path:
    path = folder / "scene.tif"
    points = [
        GroundControlPoint(row=y, col=x, x=10 + x * 1e-4 + y * 1e-5, y=50 - y * 1e-4)
        for y in (0, SIDE)
        for x in (0, SIDE)
    ]
    size = {"width": SIDE, "height": SIDE, "count": 13, "dtype": "int16"}
    with rasterio.open(path, "w", driver="GTiff", **size) as dataset:
        dataset.write(pixels())
        dataset.descriptions = S2_L1C
        dataset.gcps = (points, CRS.from_epsg(4326))
    return path


def half_a_pixel(folder: Path) -> Path:
    for index, name in enumerate(S2_L1C):
        path = write_scene(folder / f"T33_{name}.tif", pixels()[index : index + 1])
        if name == "B08":
            with rasterio.open(path, "r+") as dataset:
                dataset.transform = from_origin(499_995, 4_000_000, 10, 10)
    return folder


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (two_dates, "are both B01, of one resolution"),
        (two_systems, "in another coordinate system"),
        (control_points, "ground control points instead of a grid: bring it to one with gdalwarp"),
        (half_a_pixel, "does not nest in the finest"),
    ],
)
def test_scenes_that_are_none_are_refused(
    host: Path, bundle: Path, tmp_path: Path, make: Callable[[Path], Path], sentence: str
) -> None:
    (tmp_path / "scene").mkdir()
    scene = make(tmp_path / "scene")
    done = subprocess.run(
        [host, bundle, scene, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not list(tmp_path.glob("out/*.tif"))
