"""Scenes: bands of several resolutions on one grid, valid pixels, and values as the input's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.env import getenv
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT

from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.formats.bands import parse_bands
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.scene import CACHE_BYTES, Scene, open_scene

Array = NDArray[Any]
LEFT, TOP = 600_000.0, 4_000_000.0


def inputs(names: str, **values: Any) -> tuple[InputBand, ...]:
    return tuple(InputBand(name=name, **values) for name in names.split())


def texture(height: int, width: int, seed: int = 0, dtype: str = "uint16") -> Array:
    return np.random.default_rng(seed).integers(1, 250, (height, width)).astype(dtype)


def write(
    path: Path,
    bands: Array | Sequence[Array],
    *,
    resolution: float = 10,
    corner: tuple[float, float] = (LEFT, TOP),
    names: Sequence[str] = (),
    crs: str | None = "EPSG:32633",
    **profile: Any,
) -> Path:
    pixels = np.asarray(bands)
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    profile = {"transform": from_origin(*corner, resolution, resolution), **profile}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(pixels),
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype,
        crs=crs,
        **profile,
    ) as dataset:
        dataset.write(pixels)
        if names:
            dataset.descriptions = tuple(names)
    return path


def read_all(scene: Scene) -> tuple[Array, Array]:
    return scene.read(0, 0, scene.width, scene.height)


def read_file(path: Path | str, wanted: Sequence[InputBand], **options: Any) -> tuple[Array, Array]:
    with open_scene(path, wanted, **options) as scene:
        return read_all(scene)


def refusal(path: Path | str, wanted: Sequence[InputBand], **options: Any) -> str:
    with pytest.raises(UserError) as error, open_scene(path, wanted, **options) as scene:
        read_all(scene)
    return str(error.value)


# ---- Folders of bands ----


def test_coarse_bands_are_repeated_on_the_finest_grid(tmp_path: Path) -> None:
    fine, coarse = texture(12, 18), texture(4, 6, seed=1)
    write(tmp_path / "x_B02.tif", fine, resolution=10)
    write(tmp_path / "x_B01.tif", coarse, resolution=30)
    image, valid = read_file(tmp_path, inputs("B01 B02"))
    np.testing.assert_array_equal(image[0], np.kron(coarse, np.ones((3, 3))))
    np.testing.assert_array_equal(image[1], fine)
    assert valid.all()


def test_the_scene_is_what_all_bands_cover(tmp_path: Path) -> None:
    fine, coarse = texture(40, 50), texture(12, 16, seed=1)
    write(tmp_path / "x_B02.tif", fine, resolution=10)
    # Begins 60 m further right and 30 m further down, and ends before the fine band does.
    corner = (LEFT + 60, TOP - 30)
    path = write(tmp_path / "x_B01.tif", coarse, resolution=20, corner=corner)
    with open_scene(tmp_path, inputs("B02 B01")) as scene:
        image, _ = read_all(scene)
        assert (scene.width, scene.height) == (32, 24)
        assert scene.transform == from_origin(*corner, 10, 10)
        np.testing.assert_array_equal(image[0], fine[3:27, 6:38])
        with (
            rasterio.open(path) as source,
            WarpedVRT(
                source,
                transform=scene.transform,
                width=scene.width,
                height=scene.height,
                resampling=Resampling.nearest,
            ) as warped,
        ):
            np.testing.assert_array_equal(image[1], warped.read(1))


@pytest.mark.parametrize("shift", [-5.0, -2.5, 2.5, 5.0])
def test_grids_may_be_shifted_by_parts_of_a_pixel(tmp_path: Path, shift: float) -> None:
    write(tmp_path / "x_B02.tif", texture(40, 40), resolution=10)
    path = write(
        tmp_path / "x_B01.tif", texture(20, 20, seed=1), resolution=20, corner=(LEFT + shift, TOP)
    )
    with open_scene(tmp_path, inputs("B02 B01")) as scene, rasterio.open(path) as source:
        image, _ = read_all(scene)
        for row in range(0, scene.height, 7):
            for column in range(0, scene.width, 7):
                x, y = scene.transform * (column + 0.5 + 1e-7, row + 0.5)
                expected = next(source.sample([(x, y)]))[0]
                assert image[1, row, column] == expected


@pytest.mark.parametrize(
    ("shift", "steps"),
    [
        (0, [1, 2, 6]),
        (120, [1, 2, 6]),
        (20, [1, 2, 6]),  # the scene begins within a pixel of the coarsest band
        (10, [1, 2, 6]),
        (-10, [1, 2, 6]),  # within a pixel of the 20 m band
        (-5, [1, 1, 6]),
    ],
)
def test_rows_of_bands_are_what_windows_repeat(
    tmp_path: Path, shift: float, steps: list[int]
) -> None:
    fine, coarse, coarsest = texture(70, 80), texture(40, 44, seed=1), texture(12, 14, seed=2)
    coarse[5:9, 7] = 0
    write(tmp_path / "x_B02.tif", fine, resolution=10)
    write(tmp_path / "x_B05.tif", coarse, resolution=20, corner=(LEFT + shift, TOP), nodata=0)
    write(tmp_path / "x_B01.tif", coarsest, resolution=60)
    with open_scene(tmp_path, inputs("B02 B05 B01")) as scene:
        assert [grid.step for grid in scene.grids] == steps
        image, valid = read_all(scene)
        for index, grid in enumerate(scene.grids):
            count = scene.row_count(index)
            rows = np.concatenate([scene.rows(index, at, 1) for at in range(count)])
            whole = np.kron(rows, np.ones((grid.step, grid.step)))[grid.row_origin :]
            whole = whole[: scene.height, grid.column_origin :][:, : scene.width]
            np.testing.assert_array_equal(whole[valid], image[index][valid])
            assert not (np.isnan(whole) & valid).any()


def test_a_row_of_blocks_of_all_bands_is_kept(tmp_path: Path) -> None:
    """GDAL decodes whole blocks: when it forgets some of a row of them, it does so for each row."""
    for name, resolution in (("B02", 10), ("B05", 20)):
        side = 120_000 // resolution
        path = tmp_path / f"x_{name}.tif"
        layout = {"tiled": True, "blockxsize": 1024, "blockysize": 1024, "sparse_ok": True}
        with rasterio.open(
            path, "w", driver="GTiff", count=1, width=side, height=side, dtype="float32",
            crs="EPSG:32633", transform=from_origin(LEFT, TOP, resolution, resolution), **layout,
        ):  # fmt: skip
            pass
    fine, coarse = 12 * 1024 * 1024 * 4, 6 * 1024 * 1024 * 4
    assert 2 * fine + coarse < CACHE_BYTES
    with open_scene(tmp_path, inputs("B02 B05")):
        assert getenv()["GDAL_CACHEMAX"] == CACHE_BYTES
    (tmp_path / "x_B03.tif").write_bytes((tmp_path / "x_B02.tif").read_bytes())
    with open_scene(tmp_path, inputs("B02 B03 B05")):
        assert getenv()["GDAL_CACHEMAX"] == 3 * fine + coarse


def test_the_finest_file_of_a_band_is_taken_and_others_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "x_B02_60m.tif", texture(2, 2, seed=1), resolution=60)
    fine = texture(12, 12)
    write(tmp_path / "x_B02_10m.tif", fine, resolution=10)
    write(tmp_path / "x_TCI.tif", texture(12, 12, seed=2))
    (tmp_path / "x_B03.txt").write_text("no raster")
    image, _ = read_file(tmp_path, inputs("B02"))
    np.testing.assert_array_equal(image[0], fine)


def test_an_l2a_products_folders_are_looked_into(tmp_path: Path) -> None:
    fine, coarse = texture(12, 12), texture(6, 6, seed=1)
    write(tmp_path / "R10m" / "T33_B02_10m.tif", fine)
    write(tmp_path / "R20m" / "T33_B02_20m.tif", texture(6, 6, seed=3), resolution=20)
    write(tmp_path / "R20m" / "T33_B05_20m.tif", coarse, resolution=20)
    image, _ = read_file(tmp_path, inputs("B02 B05"))
    np.testing.assert_array_equal(image[0], fine)
    np.testing.assert_array_equal(image[1], np.kron(coarse, np.ones((2, 2))))


def test_two_acquisitions_in_a_folder_are_refused(tmp_path: Path) -> None:
    for day in ("20200101", "20200601"):
        write(tmp_path / f"{day}_B02.tif", texture(8, 8))
    message = refusal(tmp_path, inputs("B02"))
    assert "20200101_B02.tif" in message and "20200601_B02.tif" in message


def test_a_missing_band_is_named_with_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "x_B02.tif", texture(8, 8))
    message = refusal(tmp_path, inputs("B02 B8A"))
    assert "lacks B8A: it has B02" in message
    assert "add the files of B8A" in message


def test_another_coordinate_system_is_refused_even_on_equal_numbers(tmp_path: Path) -> None:
    write(tmp_path / "x_B02.tif", texture(8, 8))
    write(tmp_path / "x_B03.tif", texture(8, 8), crs="EPSG:32618")
    assert "EPSG:32618" in refusal(tmp_path, inputs("B02 B03"))


def test_rotated_bands_of_different_grids_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x_B02.tif", texture(8, 8))
    turned = Affine.translation(LEFT, TOP) * Affine.rotation(10) * Affine.scale(20, -20)
    write(tmp_path / "x_B03.tif", texture(8, 8), transform=turned)
    assert "rotated" in refusal(tmp_path, inputs("B02 B03"))


def test_bands_that_do_not_overlap_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x_B02.tif", texture(8, 8))
    write(tmp_path / "x_B03.tif", texture(8, 8), corner=(LEFT + 1000, TOP))
    assert "do not overlap" in refusal(tmp_path, inputs("B02 B03"))


# ---- Files of several bands ----


def test_bands_are_matched_by_what_the_file_says(tmp_path: Path) -> None:
    red, green = texture(8, 8), texture(8, 8, seed=1)
    path = write(tmp_path / "s.tif", [green, red], names=["b03", "Red"])
    image, _ = read_file(path, inputs("B04 B03"))
    np.testing.assert_array_equal(image, [red, green])


def test_bands_are_matched_by_names_and_wavelengths_that_are_given(tmp_path: Path) -> None:
    red, green = texture(8, 8), texture(8, 8, seed=1)
    path = write(tmp_path / "s.tif", [green, red], names=["VV", "VH"])
    for names in ("B03,B04", "560nm,665nm"):
        image, _ = read_file(path, inputs("B04 B03"), names=parse_bands(names))
        np.testing.assert_array_equal(image, [red, green])


def test_bands_without_names_are_taken_in_order_with_a_warning(tmp_path: Path) -> None:
    bands = [texture(8, 8, seed=i) for i in range(2)]
    path = write(tmp_path / "s.tif", bands)
    with pytest.warns(SceneWarning, match="taken in order as B04, B03"):
        image, _ = read_file(path, inputs("B04 B03"))
    np.testing.assert_array_equal(image, bands)
    assert "2 bands without names" in refusal(path, inputs("B04 B03 B02"))
    assert "expected: 3, as named" in refusal(path, inputs("B04"), names=parse_bands("RGB"))


def test_ground_control_points_are_no_grid(tmp_path: Path) -> None:
    points = [
        rasterio.control.GroundControlPoint(row=r, col=c, x=LEFT + 10 * c, y=TOP - 10 * r)
        for r, c in ((0, 0), (0, 8), (8, 0), (8, 8))
    ]
    path = write(tmp_path / "s.tif", texture(8, 8), names=["VV"], transform=None, gcps=points)
    assert "ground control points" in refusal(path, inputs("VV"))


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", texture(64, 64), names=["VV"], compress="DEFLATE")
    path.write_bytes(path.read_bytes()[:-2000])
    assert str(path) in refusal(path, inputs("VV"))


def test_names_that_only_gdal_knows(tmp_path: Path) -> None:
    pixels = texture(8, 8)
    path = write(tmp_path / "s.tif", pixels, names=["VV"])
    image, _ = read_file(f"GTIFF_DIR:1:{path}", inputs("VV"))
    np.testing.assert_array_equal(image[0], pixels)
    assert "https://127.0.0.1:9/none.tif" in refusal(
        "/vsicurl/https://127.0.0.1:9/none.tif", inputs("VV")
    )


# ---- Windows ----


def test_a_window_is_that_part_of_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "x_B02.tif", texture(70, 90), resolution=10)
    write(tmp_path / "x_B01.tif", texture(30, 30, seed=1), resolution=30, nodata=7)
    rng = np.random.default_rng(0)
    with open_scene(tmp_path, inputs("B01 B02")) as scene:
        image, valid = read_all(scene)
        for _ in range(30):
            left, right = np.sort(rng.choice(scene.width + 1, 2, replace=False))
            top, bottom = np.sort(rng.choice(scene.height + 1, 2, replace=False))
            part, mask = scene.read(left, top, right - left, bottom - top)
            np.testing.assert_array_equal(part, image[:, top:bottom, left:right])
            np.testing.assert_array_equal(mask, valid[top:bottom, left:right])


def test_an_overview_takes_pixels_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", texture(60, 80), names=["VV"])
    with open_scene(path, inputs("VV")) as scene:
        image, valid = scene.overview(20)
        whole, _ = read_all(scene)
    assert image.shape == (1, 15, 20)
    assert valid.all()
    for row, column in ((0, 0), (7, 11), (14, 19)):
        block = whole[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert image[0, row, column] in block


# ---- Valid pixels ----


def test_pixels_without_data_are_filled_in_every_band(tmp_path: Path) -> None:
    """For being nodata in one of them, or for not being a number."""
    bands = [texture(1, 6, dtype="float32"), texture(1, 6, seed=1, dtype="float32")]
    bands[0][0, :] = [1, 9, 1, 1, 1, np.nan]
    bands[1][0, :] = [1, 1, np.inf, 9, 1, 1]
    path = write(tmp_path / "s.tif", bands, names=["VV", "VH"], nodata=9)
    wanted = (InputBand(name="VV", fill=40), InputBand(name="VH", fill=50))
    image, valid = read_file(path, wanted)
    np.testing.assert_array_equal(valid[0], [True, False, False, False, True, False])
    np.testing.assert_array_equal(image[0, 0], [1, 40, 40, 40, 1, 40])
    np.testing.assert_array_equal(image[1, 0], [1, 50, 50, 50, 1, 50])


def test_masks_and_alpha_bands_say_what_is_valid(tmp_path: Path) -> None:
    half = np.zeros((8, 8), np.uint8)
    half[:, :4] = 255
    inside = write(tmp_path / "mask.tif", texture(8, 8), names=["VV"])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(inside, "r+") as dataset:
        dataset.write_mask(half)
    alpha = write(tmp_path / "alpha.tif", [texture(8, 8, dtype="uint8"), half], names=["VV", ""])
    with rasterio.open(alpha, "r+") as dataset:
        dataset.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    for path in (inside, alpha):
        _, valid = read_file(path, inputs("VV"))
        np.testing.assert_array_equal(valid, half != 0)


def test_a_sidecar_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jp2"
    pixels = texture(64, 64)
    with rasterio.open(write(tmp_path / "s.tif", pixels)) as source:
        rasterio.shutil.copy(source, path, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    value = int(pixels[5, 5])
    path.with_suffix(".jp2.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>VV</Description>'
        f"<NoDataValue>{value}</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    _, valid = read_file(path, inputs("VV"))
    np.testing.assert_array_equal(valid, pixels != value)


# ---- Values ----


def test_values_are_converted_to_the_inputs_scale(tmp_path: Path) -> None:
    """The file stores v * 0.0002 - 0.1; the input wants values of which s * 0.0001 is physical."""
    pixels = texture(8, 8)
    path = write(tmp_path / "s.tif", pixels, names=["B04"])
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.0002,), (-0.1,)
    image, _ = read_file(path, inputs("B04", scale=0.0001))
    np.testing.assert_allclose(image[0], pixels * 2.0 - 1000, rtol=1e-6)
    asked = Radiometry(scale=0.0003, offset=0.0)
    image, _ = read_file(path, inputs("B04", scale=0.0001), radiometry=asked)
    np.testing.assert_allclose(image[0], pixels * 3.0, rtol=1e-6)


def test_values_of_the_inputs_own_scale_are_not_touched(tmp_path: Path) -> None:
    pixels = texture(8, 8)
    path = write(tmp_path / "s.tif", pixels, names=["B04"])
    image, _ = read_file(path, inputs("B04", scale=0.0001, offset=-0.1))
    np.testing.assert_array_equal(image[0], pixels)


def test_floats_without_a_scale_are_doubted(tmp_path: Path) -> None:
    """Nothing looks at the values themselves here."""
    path = write(tmp_path / "s.tif", texture(8, 8, dtype="float32"), names=["height"])
    with pytest.warns(SceneWarning, match="pass --scale 1"):
        read_file(path, inputs("HEIGHT", scale=0.0001))
    known = write(tmp_path / "r.tif", texture(8, 8, dtype="float32"), names=["B04"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_file(path, inputs("HEIGHT", scale=0.0001), radiometry=Radiometry(scale=1, offset=0))
        read_file(path, inputs("HEIGHT", scale=0.0001), radiometry=Radiometry(trusted=True))
        read_file(path, inputs("HEIGHT"))
        read_file(known, inputs("B04", scale=0.0001))


@pytest.mark.parametrize("values", [(0.0, None), (math.nan, None), (None, math.inf)])
def test_a_radiometry_that_cannot_be_is_refused(values: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="expected"):
        Radiometry(*values)
