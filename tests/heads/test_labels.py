"""Labels of all kinds, laid over a scene's cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds
from support.labelled import write_mask
from support.scenes import write_scene

from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.formats.heads import NO_CLASS
from eosfm_edge.heads.labels import read_labels
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.scene import open_scene

N = NO_CLASS


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif", np.full((1, 24, 34), 500, np.uint16), ["B04"])


def over(
    labels: Path, scene: Path, stride: int = 4, column: str | None = None
) -> NDArray[np.uint8]:
    with open_scene(scene, [InputBand(name="B04")], radiometry=Radiometry(trusted=True)) as opened:
        return read_labels(labels, column).over(opened, 4)


def test_a_cell_has_the_label_of_at_least_half_of_its_pixels(scene: Path, tmp_path: Path) -> None:
    codes = np.full((24, 34), 5, np.uint8)
    codes[0:4, 0:4] = [[1, 1, 1, 1], [1, 1, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]  # 8, 4, 4
    codes[0:4, 4:8] = [[1, 1, 1, 1], [1, 1, 1, 9], [2, 2, 2, 2], [2, 2, 2, 3]]  # 7, 7: neither
    codes[0:4, 8:12] = [[N, N, N, N], [N, N, N, N], [N, 7, 7, 7], [7, 7, 7, 7]]  # 7 of 16
    found = over(write_mask(tmp_path / "m.tif", codes), scene)
    assert found.shape == (6, 9)
    assert found[0, :4].tolist() == [1, N, N, 5]
    assert (found[1:, :8] == 5).all()
    assert (found[1:, 8] == 5).all(), "half of the last cells is in the scene"


def test_the_masks_nodata_value_is_no_label(scene: Path, tmp_path: Path) -> None:
    codes = np.zeros((24, 34), np.uint8)
    codes[:, :16] = 3
    with_nodata = over(write_mask(tmp_path / "m.tif", codes, nodata=0), scene)
    assert (with_nodata[:, :4] == 3).all() and (with_nodata[:, 4:] == N).all()
    without = over(write_mask(tmp_path / "n.tif", codes), scene)
    assert (without[:, 4:] == 0).all()


@pytest.mark.parametrize("nodata", [0, None])
def test_a_mask_of_another_grid_is_laid_over_by_place(
    scene: Path, tmp_path: Path, nodata: int | None
) -> None:
    """In degrees, coarser, and covering the western half alone."""
    with rasterio.open(scene) as opened:
        bounds = transform_bounds(opened.crs, "EPSG:4326", *opened.bounds)
    west, south, east, north = bounds
    middle = (west + east) / 2
    codes = np.array([[1, 2], [3, 4]], np.int16).repeat(20, 0).repeat(20, 1)
    grid = from_origin(west, north, (middle - west) / 40, (north - south) / 40)
    mask = write_mask(tmp_path / "m.tif", codes, crs="EPSG:4326", transform=grid, nodata=nodata)
    found = over(mask, scene)
    assert found[0, 0] == 1 and found[0, 3] == 2 and found[5, 0] == 3 and found[5, 3] == 4
    assert (found[:, 5:] == N).all(), "nothing is known of the eastern half"


def test_a_scene_whose_first_row_is_the_southernmost_gets_its_labels(tmp_path: Path) -> None:
    upward = rasterio.Affine(10, 0, 500_000, 0, 10, 4_000_000 - 240)
    scene = write_mask(tmp_path / "s.tif", np.full((24, 34), 500, np.uint16), transform=upward)
    with rasterio.open(scene, "r+") as opened:
        opened.descriptions = ("B04",)
    codes = np.ones((24, 34), np.uint8)
    codes[:12] = 2  # the north
    found = over(write_mask(tmp_path / "m.tif", codes), scene)
    assert found[:, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_masks_without_a_place_fit_scenes_without_one_by_their_size(tmp_path: Path) -> None:
    scene = write_mask(tmp_path / "s.tif", np.full((24, 34), 500, np.uint16), crs=None)
    with rasterio.open(scene, "r+") as opened:
        opened.descriptions = ("B04",)
    mask = write_mask(tmp_path / "m.tif", np.full((24, 34), 2, np.uint8), crs=None)
    assert (over(mask, scene) == 2).all()
    other = write_mask(tmp_path / "o.tif", np.full((24, 30), 2, np.uint8), crs=None)
    with pytest.raises(UserError, match="no coordinate system"):
        over(other, scene)


def test_a_mask_without_a_place_is_refused_for_a_scene_with_one(
    scene: Path, tmp_path: Path
) -> None:
    mask = write_mask(tmp_path / "m.tif", np.full((24, 34), 2, np.uint8), crs=None)
    with pytest.raises(UserError, match=r"m.tif has no coordinate(.|\n)*gdal_edit.py"):
        over(mask, scene)


@pytest.mark.parametrize(("value", "kind"), [(300, "uint16"), (-1, "int16")])
def test_codes_beyond_a_byte_are_refused(
    scene: Path, tmp_path: Path, value: int, kind: str
) -> None:
    codes = np.ones((24, 34), kind)
    codes[9, 9] = value
    with pytest.raises(UserError, match=f"has the value {value}"):
        over(write_mask(tmp_path / "m.tif", codes), scene)


def test_a_raster_of_fractions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds float32(.|\n)*whole numbers"):
        read_labels(write_mask(tmp_path / "m.tif", np.ones((4, 4), np.float32)))


def test_a_picture_of_three_bands_is_refused(tmp_path: Path) -> None:
    picture = write_scene(tmp_path / "m.tif", np.ones((3, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"holds uint8 in 3 bands(.|\n)*one band"):
        read_labels(picture)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.tif").write_text("no raster")
    for name in ("m.tif", "none.tif"):
        with pytest.raises(UserError, match=name):
            read_labels(tmp_path / name)


class TestPoints:
    def write(self, path: Path, places: list[tuple[int, int, object]], header: str) -> Path:
        """Write points at the middle of pixels (row, column) of the scene."""
        x = [500_000 + 10 * column + 5 for _, column, _ in places]
        y = [4_000_000 - 10 * row - 5 for row, _, _ in places]
        lon, lat = transform("EPSG:32633", "EPSG:4326", x, y)
        lines = [f"{a:.9f},{b:.9f},{one[2]}" for a, b, one in zip(lon, lat, places, strict=True)]
        path.write_text("\n".join([header, *lines, ""]))
        return path

    def test_points_label_their_cells(self, scene: Path, tmp_path: Path) -> None:
        places = [(1, 2, "wood"), (3, 3, "wood"), (0, 0, "lake"), (9, 30, "lake"), (500, 1, "wood")]
        table = self.write(tmp_path / "p.csv", places, "Lon,LAT,label")
        assert read_labels(table).names == {1: "lake", 2: "wood"}
        found = over(table, scene)
        assert found[0, 0] == 2, "two of three points"
        assert found[2, 7] == 1
        assert (found != N).sum() == 2

    def test_whole_numbers_are_codes(self, scene: Path, tmp_path: Path) -> None:
        table = self.write(tmp_path / "p.csv", [(1, 2, 30), (9, 30, 4)], "lon,lat,label")
        assert read_labels(table).names == {}
        assert over(table, scene)[0, 0] == 30

    def test_points_without_a_label_are_none(self, scene: Path, tmp_path: Path) -> None:
        table = self.write(tmp_path / "p.csv", [(1, 2, ""), (9, 30, 4)], "lon,lat,label")
        found = over(table, scene)
        assert found[0, 0] == N and (found != N).sum() == 1

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("x,y,label\n1,2,a\n", "no column lon"),
            ("lon,lat,label\n1,2,a\n500000,4000000,b\n", "line 3 of .*500000"),
            ("lon,lat,label\n1,,a\n", "line 2"),
            ("lon,lat,label\n", "no points"),
            ("", "no column"),
            ("lon,lat,label\n1,2,\n", "no label"),
        ],
    )
    def test_tables_that_are_none_are_refused(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "p.csv").write_text(text)
        with pytest.raises(UserError, match=words):
            read_labels(tmp_path / "p.csv")


class TestPolygons:
    @pytest.fixture(autouse=True)
    def _needs_pyogrio(self) -> None:
        pytest.importorskip("pyogrio")
        pytest.importorskip("shapely")

    def write(self, path: Path, fields: dict[str, list[object]], crs: str | None) -> Path:
        import pyogrio.raw
        import shapely

        x, y = 500_000, 4_000_000
        boxes = [shapely.box(x, y - 120, x + 160, y), shapely.box(x + 160, y - 240, x + 340, y)]
        if crs == "EPSG:4326":
            boxes = [
                shapely.transform(
                    box, lambda at: np.stack(transform("EPSG:32633", crs, at[:, 0], at[:, 1]), 1)
                )
                for box in boxes
            ]
        pyogrio.raw.write(
            path,
            geometry=np.array(shapely.to_wkb(boxes)),
            field_data=[np.array(values, object if isinstance(values[0], str) else None)
                        for values in fields.values()],
            fields=list(fields),
            geometry_type="Polygon",
            crs=crs,
            driver="GPKG",
        )  # fmt: skip
        return path

    @pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
    def test_polygons_label_the_cells_beneath_them(
        self, scene: Path, tmp_path: Path, crs: str
    ) -> None:
        file = self.write(tmp_path / "p.gpkg", {"label": ["wood", "lake"], "id": [1, 2]}, crs)
        assert read_labels(file).names == {1: "lake", 2: "wood"}
        found = over(file, scene)
        assert (found[:3, :4] == 2).all() and (found[:, 4:8] == 1).all()
        assert (found[3:, :4] == N).all()

    def test_polygons_whose_label_is_missing_are_none(self, scene: Path, tmp_path: Path) -> None:
        file = self.write(tmp_path / "p.gpkg", {"label": [float("nan"), 7.0]}, "EPSG:32633")
        found = over(file, scene)
        assert (found[:, 4:8] == 7).all() and (found[:, :4] == N).all()

    def test_the_attribute_must_be_known(self, scene: Path, tmp_path: Path) -> None:
        file = self.write(tmp_path / "p.gpkg", {"a": [1, 2], "b": [3, 4]}, "EPSG:32633")
        with pytest.raises(UserError, match=r"several attributes(.|\n)*a, b(.|\n)*--column"):
            read_labels(file)
        with pytest.raises(UserError, match="no attribute c"):
            read_labels(file, "c")
        assert over(file, scene, column="b")[0, 0] == 3

    @pytest.mark.filterwarnings("ignore:'crs' was not provided")
    def test_polygons_without_a_place_are_refused(self, scene: Path, tmp_path: Path) -> None:
        file = self.write(tmp_path / "p.gpkg", {"label": [1, 2]}, None)
        with pytest.raises(UserError, match=r"p.gpkg has no coordinate system"):
            over(file, scene)
