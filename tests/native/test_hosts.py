"""Hosts of runtime/examples: what they write is what `eosfm-edge run` writes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from support.programs import run
from support.scenes import scene_pixels, write_scene

from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.native.binding import Model
from eosfm_edge.native.stream import tile_count
from eosfm_edge.runtime.run import run_scene

ROOT = Path(__file__).parents[2]

STEPS = {"B01": 6, "B09": 6, "B10": 6} | dict.fromkeys(("B05", "B06", "B07", "B8A", "B11"), 2)


@pytest.fixture(scope="session")
def hosts(programs: Path) -> Path:
    if not (programs / "gdal_features").exists():
        pytest.skip("there is no libgdal-dev")
    return programs


@pytest.mark.parametrize("rows", [1, 90, 200])
def test_the_program_of_the_docs(
    programs: Path, specks: dict[str, Path], tmp_path: Path, rows: int
) -> None:
    text = (ROOT / "docs" / "embedding.md").read_text()
    (tmp_path / "lines.c").write_text(text.split("```c\n")[1].split("```")[0])
    library = programs.parent
    run(
        ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", tmp_path / "lines.c",
         "-o", tmp_path / "lines", f"-I{ROOT / 'runtime' / 'include'}",
         library / "libeosfm.a", "-lpthread", "-lm"]
    )  # fmt: skip
    lines = np.arange(rows * 2 * 100, dtype=np.uint16).reshape(rows, 2, 100) % 200
    done = subprocess.run(
        [tmp_path / "lines", specks["fp32"], "100"],
        input=lines.tobytes(), capture_output=True, check=True,
    )  # fmt: skip
    with Model(specks["fp32"]) as model:
        tile = model.describe().tile
    assert f"{tile_count(100, rows, tile, 0)} tiles, of which 0 skipped" in done.stdout.decode()


def write_bands(folder: Path, seed: int, driver: str = "GTiff") -> Path:
    """Write a scene as a folder of bands of 10, 20 and 60 m."""
    folder.mkdir(parents=True)
    pixels = scene_pixels(13, 180, 240, seed=seed)
    pixels[:, 60:120, 120:] = 0
    for index, name in enumerate(S2_L1C):
        step = STEPS.get(name, 1)
        path = folder / f"T33_{name}.tif"
        write_scene(path, pixels[index : index + 1, ::step, ::step], resolution=10.0 * step)
        if driver != "GTiff":
            lossless = {"QUALITY": 100, "REVERSIBLE": "YES"}
            rasterio.shutil.copy(path, path.with_suffix(".jp2"), driver=driver, **lossless)
            path.unlink()
    return folder


def assert_same(mine: Path, theirs: Path, bundle: Path) -> None:
    for level in read_manifest(bundle).levels:
        with (
            rasterio.open(mine / f"{level.name}.tif") as one,
            rasterio.open(theirs / f"{level.name}.tif") as other,
        ):
            assert (one.transform, one.crs, one.shape) == (other.transform, other.crs, other.shape)
            assert np.isnan(one.nodata)
            np.testing.assert_array_equal(one.read(), other.read())


@pytest.mark.parametrize("driver", ["GTiff", "JP2OpenJPEG"])
def test_gdal_features(hosts: Path, bundle: Path, tmp_path: Path, driver: str) -> None:
    bands = write_bands(tmp_path / "bands", seed=3, driver=driver)
    said = run([hosts / "gdal_features", bundle, bands, tmp_path / "c"])
    report = run_scene(bundle, bands, tmp_path / "python")
    assert f"{report.tiles} tiles, of which {report.skipped_tiles} without data" in said
    assert_same(tmp_path / "c", tmp_path / "python", bundle)


def test_gdal_features_of_a_file(hosts: Path, bundle: Path, scene: Path, tmp_path: Path) -> None:
    run([hosts / "gdal_features", bundle, scene, tmp_path / "c"])
    run_scene(bundle, scene, tmp_path / "python")
    assert_same(tmp_path / "c", tmp_path / "python", bundle)


def test_gdal_features_says_what_is_wrong(hosts: Path, bundle: Path, tmp_path: Path) -> None:
    bands = write_bands(tmp_path / "bands", seed=3)
    (bands / "T33_B05.tif").unlink()
    for arguments, sentence in (
        ((bundle, bands), "has no file for B05"),
        ((bundle, tmp_path / "nothing"), "GDAL cannot open it"),
        ((tmp_path, bands), "chain.gguf"),
    ):
        command = [str(part) for part in (hosts / "gdal_features", *arguments, tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert not list(tmp_path.glob("out/*.tif"))


def test_a_folder_is_watched(hosts: Path, bundle: Path, tmp_path: Path) -> None:
    inbox, outbox = tmp_path / "inbox", tmp_path / "outbox"
    inbox.mkdir()
    outbox.mkdir()
    write_bands(inbox / "first", seed=1)
    write_bands(tmp_path / "second", seed=2)
    command = [str(part) for part in (hosts / "watch_folder", bundle, inbox, outbox)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            wait_for(outbox / "first", watching)
            (tmp_path / "second").rename(inbox / "second")
            wait_for(outbox / "second", watching)
            watching.send_signal(signal.SIGTERM)
            assert watching.wait(timeout=60) == 0
        finally:
            watching.kill()
    assert sorted(path.name for path in outbox.iterdir()) == ["first", "second"]
    for name in ("first", "second"):
        run_scene(bundle, inbox / name, tmp_path / "python" / name)
        assert_same(outbox / name, tmp_path / "python" / name, bundle)


def test_the_unit_is_one_that_systemd_reads(hosts: Path) -> None:
    unit = ROOT / "runtime" / "examples" / "gdal" / "eosfm-watch.service"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    text = unit.read_text().replace("/opt/eosfm/bin/watch_folder", str(hosts / "watch_folder"))
    copy = hosts / "eosfm-watch.service"
    copy.write_text(text)
    run(["systemd-analyze", "verify", copy])


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)
