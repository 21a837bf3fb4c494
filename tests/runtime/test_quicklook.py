"""The quicklook: what it shows, what is written beside it, and two runs in one picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from support.command import run
from support.scenes import scene_pixels, write_scene

from eosfm_edge.bundle.digests import file_entries
from eosfm_edge.bundle.palette import palette_bytes, read_palette
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.bundle import MANIFEST_NAME, Manifest, read_manifest
from eosfm_edge.runtime import quicklook
from eosfm_edge.runtime.canvas import WIDTH, Panel, Row, draw_page, panel_size
from eosfm_edge.runtime.groups import COLOURS
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.scene.scene import open_scene

WITH_QUICKLOOK = RunOptions(quicklook=True)


@pytest.fixture(scope="module")
def features(bundle: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quicklook") / "features"
    run_scene(bundle, scene, folder, WITH_QUICKLOOK)
    return folder


def edited(bundle: Path, place: Path, *, palette: bool) -> Path:
    """Return a copy of a bundle, with its palette or listed without."""
    shutil.copytree(bundle, place)
    if not palette:
        (place / "palette.safetensors").unlink()
        manifest = read_manifest(place).model_copy(update={"files": file_entries(place)})
        (place / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return place


def test_groups_are_the_nearest_centres(bundle: Path, features: Path) -> None:
    palette = read_palette(bundle / "palette.safetensors")
    assert palette is not None
    with (
        rasterio.open(features / "level2.tif") as level,
        rasterio.open(features / "groups.tif") as groups,
    ):
        cells = level.read().reshape(level.count, -1).T.astype(np.float64)
        found = groups.read(1)
        assert (groups.transform, groups.crs) == (level.transform, level.crs)
        assert (groups.nodata, groups.dtypes) == (0, ("uint8",))
        assert groups.colormap(1)[1][:3] == COLOURS[0]
        assert groups.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    centres = palette.levels[1].mean + palette.centres
    distances = np.linalg.norm(cells[:, None] - centres, axis=2)
    expected = distances.argmin(axis=1) + 1
    sure = np.diff(np.sort(distances, axis=1)[:, :2])[:, 0] > 1e-4
    assert sure.mean() > 0.95
    np.testing.assert_array_equal(found.ravel()[sure], expected[sure])
    assert len(np.unique(found)) > 3


def test_cells_without_data_are_in_no_group(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, 128, 192)
    pixels[:, :, :96] = 0
    scene = write_scene(tmp_path / "s.tif", pixels, S2_L1C, nodata=0)
    run_scene(bundle, scene, tmp_path / "out", WITH_QUICKLOOK)
    with rasterio.open(tmp_path / "out" / "groups.tif") as groups:
        found = groups.read(1)
    assert (found[:, :12] == 0).all()
    assert (found[:, 12:] > 0).all()


def picture_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_page_has_the_scene_the_groups_and_every_level(features: Path) -> None:
    """Six panels of the scene's shape, found by their frames."""
    page = picture_of(features / "quicklook.png")
    assert page.shape[1] == WIDTH
    large, small = panel_size((300, 200), 2), panel_size((300, 200), 4)
    assert page.shape[0] > large[1] + small[1]
    frame = (page == 208).all(axis=2)
    edges = [int(row.sum()) for row in frame]
    assert sum(edge >= 2 * large[0] for edge in edges) >= 2
    assert sum(edge >= 4 * small[0] for edge in edges) >= 4
    top, bottom = page[: page.shape[0] // 2], page[page.shape[0] // 2 :]
    assert top.std() > 20
    assert bottom.std() > 20


def test_the_shares_of_the_legend_are_those_of_the_cells(
    bundle: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = watch(monkeypatch)
    run_scene(bundle, scene, tmp_path / "out", WITH_QUICKLOOK)
    ((_, title, subtitle, rows, footer),) = drawn
    assert (title, subtitle) == ("small · fp32", "scene.tif · 3 km x 2 km")
    assert "fitted on small and came with the bundle" in footer
    true, groups = rows[0].panels
    assert true.title == "Scene in true colour"
    assert (true.bar.words, true.bar.pixels) == ("500 m", 50)
    assert groups.title == "Groups of features, level 2, cells of 80 m"
    with rasterio.open(tmp_path / "out" / "groups.tif") as raster:
        found = raster.read(1)
    shares = [f"{round(100 * (found == group).mean())} %" for group in range(1, 9)]
    assert [words for _, words in groups.legend.entries] == shares
    assert [panel.title for panel in rows[1].panels] == [
        f"Level {level}, cells of {40 * 2**level // 2} m" for level in range(1, 5)
    ]
    # A picture shows each cell in the colour of its group.
    np.testing.assert_array_equal(groups.shades, np.array(((255,) * 3, *COLOURS))[found])


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, str, str, Sequence[Row], str]]:
    """Return a list that gets what pages are drawn of."""
    drawn: list[tuple[object, str, str, Sequence[Row], str]] = []

    def note(*arguments: object) -> Image.Image:
        drawn.append(arguments)  # type: ignore[arg-type]
        return draw_page(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(quicklook, "draw_page", note)
    return drawn


def test_colours_do_not_depend_on_the_rest_of_the_scene(bundle: Path, tmp_path: Path) -> None:
    """The same tile alone, and beside one that is much brighter: its cells look the same."""
    tile = scene_pixels(13, 96, 96, seed=3)
    wide = np.concatenate([tile, np.full_like(tile, 9000)], axis=2)
    shown = []
    for name, pixels in (("alone", tile), ("beside", wide)):
        scene = write_scene(tmp_path / f"{name}.tif", pixels, S2_L1C)
        options = RunOptions(quicklook=True, overlap=0)
        run_scene(bundle, scene, tmp_path / name, options)
        with rasterio.open(tmp_path / name / "groups.tif") as groups:
            shown.append(groups.read(1)[:, :12])
    np.testing.assert_array_equal(*shown)


def test_a_bundle_without_a_palette_says_that_colours_are_of_this_run(
    bundle: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = edited(bundle, tmp_path / "old.eosfm", palette=False)
    drawn = watch(monkeypatch)
    run_scene(old, scene, tmp_path / "out", WITH_QUICKLOOK)
    assert "fitted on this run, since the bundle brings none" in drawn[0][4]
    assert drawn[0][3][1].panels[0].shades.std() > 20


def test_a_palette_that_was_not_sent_is_not_missed(
    bundle: Path, scene: Path, tmp_path: Path
) -> None:
    """No engine reads it: a device that is sent the rest runs, and draws by its own colours."""
    sent = edited(bundle, tmp_path / "sent.eosfm", palette=True)
    (sent / "palette.safetensors").unlink()
    report = run_scene(sent, scene, tmp_path / "out", WITH_QUICKLOOK)
    assert report.bytes["quicklook.png"] > 0


def test_a_run_fits_no_colours_to_cells_without_data(bundle: Path, tmp_path: Path) -> None:
    """One corner has data: a cell of level 1 has features then, and none of level 4."""
    old = edited(bundle, tmp_path / "old.eosfm", palette=False)
    pixels = np.zeros((13, 96, 96), np.uint16)
    pixels[:, :9, :9] = scene_pixels(13, 9, 9)
    scene = write_scene(tmp_path / "s.tif", pixels, S2_L1C, nodata=0)
    run_scene(old, scene, tmp_path / "out", WITH_QUICKLOOK)
    with rasterio.open(tmp_path / "out" / "level4.tif") as level:
        assert np.isnan(level.read()).all()
    assert (tmp_path / "out" / "quicklook.png").exists()


def test_an_altered_palette_is_not_used(bundle: Path, scene: Path, tmp_path: Path) -> None:
    forged = edited(bundle, tmp_path / "forged.eosfm", palette=True)
    path = forged / "palette.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckFailedError, match=r"palette\.safetensors was altered"):
        run_scene(forged, scene, tmp_path / "out", WITH_QUICKLOOK)


def test_a_palette_of_other_channels_is_refused(bundle: Path, scene: Path, tmp_path: Path) -> None:
    other = edited(bundle, tmp_path / "other.eosfm", palette=True)
    manifest: Manifest = read_manifest(other)
    palette = read_palette(other / "palette.safetensors")
    assert palette is not None
    levels = (palette.levels[1], *palette.levels[1:])
    (other / "palette.safetensors").write_bytes(palette_bytes(replace(palette, levels=levels)))
    manifest = manifest.model_copy(update={"files": file_entries(other)})
    (other / MANIFEST_NAME).write_text(manifest.model_dump_json())
    with pytest.raises(UserError, match=r"palette\.safetensors colours levels"):
        run_scene(other, scene, tmp_path / "out", WITH_QUICKLOOK)
    assert not (tmp_path / "out").exists()


def test_a_run_beside_itself_has_all_cells_in_the_same_group(
    bundle: Path, scene: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = watch(monkeypatch)
    options = RunOptions(quicklook=True, beside=features)
    report = run_scene(bundle, scene, tmp_path / "out", options)
    assert report.same_group == 1
    names = [f"level{level}.tif" for level in range(1, 5)]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["groups.tif", *names, "quicklook.png"]
    rows = drawn[0][3]
    assert [panel.title for panel in rows[0].panels[1:]] == [
        "Groups of features: features",
        "Groups of features: small",
    ]
    assert rows[0].panels[2].note.startswith("100.0 % of cells")
    for before, after in zip(rows[1].panels, rows[2].panels, strict=True):
        np.testing.assert_array_equal(before.shades, after.shades)


def test_the_share_in_the_same_group_is_counted_cell_by_cell(
    bundle: Path, scene: Path, features: Path, tmp_path: Path
) -> None:
    """The other run's level has a part of its cells moved, and a part without data."""
    other = tmp_path / "other"
    shutil.copytree(features, other)
    with rasterio.open(features / "level2.tif") as source:
        profile, level = source.profile, source.read()
    level[:, :5] = level[:, 10:15].copy()
    level[:, -3:] = np.nan
    profile.update(driver="GTiff", tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(other / "level2.tif", "w", **profile) as target:
        target.write(level)
    options = RunOptions(quicklook=True, beside=other)
    report = run_scene(bundle, scene, tmp_path / "out", options)
    with rasterio.open(features / "groups.tif") as raster:
        groups = raster.read(1)
    moved = groups.copy()
    moved[:5] = groups[10:15]
    expected = (moved == groups)[:-3].mean()
    assert 0.5 < expected < 1
    assert report.same_group == pytest.approx(expected)


def test_other_features_are_refused_before_the_run(
    bundle: Path, scene: Path, features: Path, tmp_path: Path
) -> None:
    def complaint(folder: Path, **options: object) -> str:
        with pytest.raises(UserError) as caught:
            given = RunOptions(**{"quicklook": True, "beside": folder, **options})
            run_scene(bundle, scene, tmp_path / "out", given)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "has no level1.tif" in complaint(tmp_path)
    small = write_scene(tmp_path / "small.tif", scene_pixels(13, 96, 96), S2_L1C)
    run_scene(bundle, small, tmp_path / "small")
    said = complaint(tmp_path / "small")
    assert "24 x 24 cells" in said
    assert "75 x 50 cells" in said
    moved = tmp_path / "moved"
    shutil.copytree(features, moved)
    with rasterio.open(moved / "level1.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.transform = Affine.translation(100, 0) @ raster.transform
    assert "lie elsewhere" in complaint(moved)
    assert "add --quicklook" in complaint(features, quicklook=False)
    (moved / "level1.tif").write_bytes(b"no raster")
    assert "cannot read" in complaint(moved)


def test_an_output_that_is_compared_with_is_not_replaced(
    bundle: Path, scene: Path, features: Path
) -> None:
    options = RunOptions(quicklook=True, beside=features, overwrite=True)
    with pytest.raises(UserError, match="is in the output"):
        run_scene(bundle, scene, features, options)
    assert (features / "level1.tif").exists()


def test_the_command_says_how_many_cells_agree(
    bundle: Path, scene: Path, features: Path, tmp_path: Path
) -> None:
    arguments = ("run", bundle, scene, "-o", tmp_path / "out", "--quicklook", "--beside", features)
    code, out, err = run(*arguments)
    assert code == 0, err
    assert "100.0 % of cells" in out
    code, out, err = run(*arguments, "--overwrite", "--json")
    assert code == 0, err
    assert json.loads(out)["report"]["same_group"] == 1


@pytest.mark.parametrize(
    ("crs", "size", "words", "pixels"),
    [
        ("EPSG:32633", 10.0, "500 m", 50),
        ("EPSG:2263", 100.0, "1 km", 1000 / (100 * 0.3048006096)),  # US survey feet
        ("EPSG:4326", 1e-4, "500 m", None),  # at 36 degrees north, about 9 m a pixel
        (None, 1.0, "50 pixels", 50),
    ],
)
def test_the_scale_bar_has_a_round_length(
    crs: str | None, size: float, words: str, pixels: float | None, bundle: Path, tmp_path: Path
) -> None:
    path = write_scene(tmp_path / "s.tif", scene_pixels(13, 96, 192), S2_L1C)
    with rasterio.open(path) as raster:
        profile, values, names = raster.profile, raster.read(), raster.descriptions
    top = 36.0 if crs == "EPSG:4326" else 1000.0
    place = {"crs": crs, "transform": Affine(size, 0, 10, 0, -size, top)} if crs else {}
    profile = {key: value for key, value in profile.items() if key not in ("crs", "transform")}
    with rasterio.open(path, "w", **profile, **place) as raster:
        raster.write(values)
        raster.descriptions = names
    with open_scene(path, read_manifest(bundle).input) as scene:
        bar = quicklook._scale_bar(scene)
    assert bar.words == words
    if pixels is not None:
        assert bar.pixels == pytest.approx(pixels, rel=1e-6)
    else:
        assert bar.pixels == pytest.approx(
            500 / (111_320 * 1e-4 * np.cos(np.radians(36))), rel=1e-3
        )


@pytest.mark.parametrize("shape", [(96, 3200), (3200, 96), (33, 35)])
def test_scenes_of_any_shape_fit_on_a_page(
    shape: tuple[int, int], bundle: Path, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "s.tif", scene_pixels(13, *shape), S2_L1C)
    run_scene(bundle, scene, tmp_path / "out", WITH_QUICKLOOK)
    page = picture_of(tmp_path / "out" / "quicklook.png")
    assert page.shape[1] == WIDTH
    assert page.shape[0] < 2 * WIDTH


def test_cells_beyond_the_end_of_the_scene_are_cut_off() -> None:
    """A scene of 40 pixels has two cells of 32: the second shows a quarter of itself."""
    shades = np.zeros((2, 2, 3), np.uint8)
    shades[:, 1] = (255, 0, 0)
    panel = Panel("a", shades, (32, 32))
    page = np.asarray(draw_page((40, 40), "t", "s", [Row([panel])], "f"))
    red = (page == (255, 0, 0)).all(axis=2)
    width, _ = panel_size((40, 40), 1)
    assert red.any(axis=0).sum() == pytest.approx(width / 5, abs=2)


def test_features_are_read_in_strips(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is read at once, the same cells are shown; none is read twice or left out."""
    whole = quicklook._read(features / "level1.tif", 512, lambda strip: strip)
    monkeypatch.setattr(quicklook, "_STRIP_BYTES", 1)
    strips: list[int] = []

    def use(strip: NDArray[np.float32]) -> NDArray[np.float32]:
        strips.append(strip.shape[1])
        return strip

    found = quicklook._read(features / "level1.tif", 512, use)
    np.testing.assert_array_equal(found, whole)
    assert strips == [1] * 50
    with rasterio.open(features / "level1.tif") as raster:
        np.testing.assert_array_equal(found, raster.read())
