"""Imagery of --data: scenes, folders of bands or chips, manifests whose files are checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from support.scenes import scene_pixels, write_scene

from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.sources import find_sources, read_manifest
from eosfm_edge.scene.tiles import load_tiles

README = Path(__file__).parents[2] / "calibration" / "README.md"
NAMES = ("B02", "B03", "B04")
OF_FILE = ("path", "sha256", "bands", "scale", "offset", "nodata")
WANTED = tuple(InputBand(name=name) for name in NAMES)


def write_bands(folder: Path, pixels: Any) -> Path:
    folder.mkdir(parents=True)
    for name, band in zip(NAMES, pixels, strict=True):
        write_scene(folder / f"x_{name}.tif", band[None])
    return folder


def write_chip(path: Path, pixels: Any) -> Path:
    """Write a chip by the format of its suffix: PNG and JPEG have no band names and no grid."""
    driver = {".png": "PNG", ".jpg": "JPEG", ".tif": "GTiff", ".jp2": "JP2OpenJPEG"}[path.suffix]
    path.parent.mkdir(exist_ok=True)
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver=driver, **shape) as dataset:
        dataset.write(pixels)
    return path


def write_manifest(path: Path, *files: dict[str, Any], **fields: Any) -> Path:
    content = {
        "format": "eosfm-calibration-data",
        "name": "Fields",
        "licence": "CC0-1.0",
        "files": list(files),
        **fields,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def entry(path: Path, **fields: Any) -> dict[str, Any]:
    return {"path": path.name, "sha256": sha256_file(path), **fields}


def refusal(*data: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        find_sources(data, **options)
    return str(error.value)


def test_rasters_and_names_of_gdal_are_read_as_they_are() -> None:
    names = (Path("scene.tif"), "https://example.org/scene.tif")
    sources = find_sources(names, names=(Band(name="B04"),), radiometry=Radiometry(scale=2))
    for source, name in zip(sources, names, strict=True):
        (part,) = source.parts
        assert (source.title, part.path, source.chips) == (str(name), name, False)
        assert source.record == "scene.tif"
        assert part.names == (Band(name="B04"),) and part.radiometry == Radiometry(scale=2)


def test_a_folder_with_band_files_is_one_scene(tmp_path: Path) -> None:
    folder = write_bands(tmp_path / "bands", scene_pixels(3, 96, 96))
    write_chip(folder / "preview.png", np.ones((3, 8, 8), np.uint8))
    (source,) = find_sources([folder])
    assert [part.path for part in source.parts] == [folder]
    assert not source.chips
    tiles = load_tiles([folder], WANTED, 32, 4, 0)
    assert len(tiles.calibration) == 4


def test_a_folder_without_is_one_of_chips(tmp_path: Path) -> None:
    chips = scene_pixels(3, 32, 32 * 4).astype(np.uint8)
    for i, suffix in enumerate((".png", ".jpg", ".tif", ".jp2")):
        write_chip(tmp_path / f"{i}{suffix}", chips[:, :, 32 * i : 32 * (i + 1)])
    (tmp_path / "LICENCE").write_text("free")
    (tmp_path / ".hidden.png").write_text("no image")
    (source,) = find_sources([tmp_path])
    assert [Path(part.path).name for part in source.parts] == ["0.png", "1.jpg", "2.tif", "3.jp2"]
    assert source.chips and source.title == f"{tmp_path} (4 chips)"


def test_chips_without_names_are_warned_of_once(tmp_path: Path) -> None:
    pixels = scene_pixels(3, 40, 32 * 9).astype(np.uint8)
    for i in range(9):
        write_chip(tmp_path / f"{i}.png", pixels[:, :, 32 * i : 32 * (i + 1)])
    with pytest.warns(SceneWarning, match="taken in order as B02, B03, B04") as warned:
        tiles = load_tiles([tmp_path], WANTED, 32, 8, 0)
    assert sum(issubclass(one.category, SceneWarning) for one in warned) == 1
    assert (len(tiles.calibration), len(tiles.held_out)) == (8, 1)
    # One for each chip, its centre.
    expected = {pixels[:, 4:36, 32 * i : 32 * (i + 1)].astype("f4").tobytes() for i in range(9)}
    assert {tile.tobytes() for tile in tiles.calibration + tiles.held_out} == expected


def test_a_chip_that_is_larger_gives_more(tmp_path: Path) -> None:
    write_scene(tmp_path / "large.tif", scene_pixels(3, 70, 100), NAMES)
    write_scene(tmp_path / "small.tif", scene_pixels(3, 40, 35, seed=1), NAMES)
    tiles = load_tiles([tmp_path], WANTED, 32, 60, 0)
    assert f"7 tiles of {tmp_path.name} (2 chips)" in tiles.source


def test_a_chip_that_is_smaller_than_a_tile_is_named(tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", scene_pixels(3, 64, 64), NAMES)
    small = write_scene(tmp_path / "b.tif", scene_pixels(3, 64, 63), NAMES)
    with pytest.raises(UserError) as error:
        load_tiles([tmp_path], WANTED, 64, 1, 0)
    assert f"the chip {small} is 63 x 64 pixels" in str(error.value)
    assert "at least 64 x 64" in str(error.value)


def test_a_folder_of_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    message = refusal(tmp_path)
    assert f"{tmp_path} holds neither band files nor chips" in message
    assert "_B04.jp2" in message and ".png" in message


def test_a_manifest_says_how_its_files_are_read(tmp_path: Path) -> None:
    pixels = scene_pixels(3, 96, 96)
    scene = write_scene(tmp_path / "scene.tif", pixels)
    said = {"bands": ["b4", "B03", "blue"], "scale": 2.0, "offset": 1.0, "nodata": 7.0}
    manifest = write_manifest(tmp_path / "m.yaml", entry(scene, **said), source="a field")
    (source,) = find_sources([manifest])
    (part,) = source.parts
    assert source.title == f"Fields ({manifest}, CC0-1.0)"
    assert part.names == tuple(Band(name=name) for name in reversed(NAMES))
    assert part.radiometry == Radiometry(2.0, 1.0, 7.0)
    (source,) = find_sources([manifest], (Band(name="VV"),), Radiometry(offset=3.0))
    (part,) = source.parts
    assert part.names == tuple(Band(name=name) for name in reversed(NAMES))
    assert part.radiometry == Radiometry(2.0, 3.0, 7.0)
    tiles = load_tiles([manifest], WANTED, 32, 4, 0)
    assert "5 tiles of Fields (m.yaml, CC0-1.0); held out: " in tiles.source
    inside = {v * 2 + 1 for v in pixels[0].ravel().tolist()}
    assert {v for tile in tiles.calibration for v in tile[2].ravel().tolist()} <= inside


def test_a_manifests_folder_of_bands_lists_its_files(tmp_path: Path) -> None:
    folder = write_bands(tmp_path / "bands", scene_pixels(3, 96, 96))
    digests = {path.name: sha256_file(path) for path in folder.iterdir()}
    manifest = write_manifest(tmp_path / "m.yml", {"path": "bands", "sha256": digests})
    (source,) = find_sources([manifest], names=(Band(name="VV"),))
    assert [(part.path, part.names) for part in source.parts] == [(folder, None)]
    assert len(load_tiles([manifest], WANTED, 32, 4, 0).calibration) == 4
    (folder / "x_B08.tif").write_bytes((folder / "x_B04.tif").read_bytes())
    message = refusal(manifest)
    assert f"{folder / 'x_B08.tif'} is in a folder that {manifest} lists" in message


def test_files_of_a_manifest_share_alike(tmp_path: Path) -> None:
    files = []
    for i, size in enumerate((300, 200, 200)):
        pixels = np.full((3, size, size), i + 1, np.uint16)
        files.append(entry(write_scene(tmp_path / f"{i}.tif", pixels, NAMES)))
    manifest = write_manifest(tmp_path / "m.yaml", *files)
    tiles = load_tiles([manifest], WANTED, 32, 16, 0)
    of = [int(tile[0, 0, 0]) for tile in tiles.calibration + tiles.held_out]
    assert [of.count(number) for number in (1, 2, 3)] == [6, 6, 6]


def test_an_altered_file_is_not_read(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(3, 96, 96), NAMES)
    folder = write_bands(tmp_path / "bands", scene_pixels(3, 96, 96))
    digests = {path.name: sha256_file(path) for path in folder.iterdir()}
    files = (entry(scene), {"path": "bands", "sha256": digests})
    manifest = write_manifest(tmp_path / "m.yaml", *files)
    find_sources([manifest])
    for place in (folder / "x_B03.tif", scene):
        before = sha256_file(place)
        place.write_bytes(place.read_bytes() + b"!")
        message = refusal(manifest)
        assert f"{place} is not the file that {manifest} lists" in message
        assert before in message and sha256_file(place) in message


@pytest.mark.parametrize(
    ("path", "sha256", "what"),
    [
        ("none.tif", "0" * 64, "does not exist"),
        ("bands", "0" * 64, "is no file"),
        ("scene.tif", {"a_B02.tif": "0" * 64}, "is no folder"),
        ("bands", {"a_B02.tif": "0" * 64}, "does not exist"),
    ],
)
def test_what_a_manifest_lists_must_be_there(
    tmp_path: Path, path: str, sha256: Any, what: str
) -> None:
    (tmp_path / "bands").mkdir()
    (tmp_path / "scene.tif").write_text("")
    manifest = write_manifest(tmp_path / "m.yaml", {"path": path, "sha256": sha256})
    message = refusal(manifest)
    assert what in message and str(manifest) in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "eosfm"}, "format"),
        ({"licence": None}, "licence"),
        ({"files": []}, "files"),
        ({"extra": 1}, "extra"),
        ({"path": "/etc/passwd"}, "files.0.path: Value error, must be a relative path"),
        ({"path": "../scene.tif"}, "files.0.path"),
        ({"sha256": "abc"}, "files.0.sha256"),
        ({"sha256": {}}, "files.0.sha256"),
        ({"scale": 0}, "the scale must not be 0"),
        ({"offset": float("nan")}, "files.0.offset"),
        ({"bands": []}, "files.0.bands"),
        ({"bands": ["B04", "b4"]}, "name a band twice"),
    ],
)
def test_a_manifest_that_is_not_valid_is_refused_by_field(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    file = {"path": "scene.tif", "sha256": "0" * 64}
    of_file = {k: fields.pop(k) for k in list(fields) if k in OF_FILE}
    manifest = write_manifest(tmp_path / "m.yaml", {**file, **of_file}, **fields)
    found = refusal(manifest)
    assert f"{manifest} is not a manifest of calibration data: " in found and message in found


def test_what_is_no_manifest_at_all(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    assert f"{path} does not exist" in refusal(path)
    path.write_text("a: [")
    assert "is not YAML" in refusal(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not YAML" in refusal(path)
    path.write_text("just words")
    assert "is not a manifest" in refusal(path)


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(3, 96, 96), NAMES)
    manifest = write_manifest(tmp_path / "m.yaml", entry(scene))
    (tmp_path / "link.tif").symlink_to(scene)
    for data in ([scene, scene], [manifest, scene], [scene, tmp_path / "link.tif"], [manifest] * 2):
        assert "given twice" in refusal(*data)
    twice = write_manifest(tmp_path / "twice.yaml", entry(scene), entry(scene))
    assert "given twice" in refusal(twice)


def test_the_example_in_the_readme_is_one(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    assert example is not None
    path = tmp_path / "m.yaml"
    path.write_text(example[1])
    manifest = read_manifest(path)
    assert [file.path for file in manifest.files] == ["virginia/scene.tif", "harbour"]
    assert manifest.files[0].bands == ("B04", "B03", "B02")
