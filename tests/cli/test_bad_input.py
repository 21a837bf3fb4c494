"""Wrong use: a clear message, exit code 2, and nothing under the output's name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.command import leftovers, run
from support.limits import no_file_larger_than
from support.scenes import scene_pixels, write_scene

from eosfm_edge.formats.bands import S2_L1C


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


def refused(out: Path, *arguments: object, code: int = 2) -> str:
    """Return the message of a command that must fail and leave nothing in ``out``."""
    returned, _, err = run(*arguments)
    assert returned == code, err
    assert leftovers(out) == []
    return err


def write_folder(folder: Path, names: Sequence[str]) -> Path:
    """Write a folder of single-band files of 96 x 96 pixels."""
    folder.mkdir()
    for i, name in enumerate(names):
        write_scene(folder / f"T33_{name}.tif", scene_pixels(1, 96, 96, seed=i))
    return folder


def test_a_scene_with_too_few_bands(bundle: Path, tmp_path: Path, out: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", scene_pixels(4, 96, 96))
    message = refused(out, "run", bundle, scene, "-o", out / "f")
    assert "s.tif has 4 bands without names" in message
    assert "expected: 13: B01, B02" in message
    assert "--bands" in message


def test_names_for_another_number_of_bands(bundle: Path, scene: Path, out: Path) -> None:
    message = refused(out, "run", bundle, scene, "-o", out / "f", "--bands", "RGB")
    assert "has 13 bands" in message
    assert "expected: 3" in message


def test_a_folder_that_lacks_a_band(bundle: Path, tmp_path: Path, out: Path) -> None:
    folder = write_folder(tmp_path / "bands", [n for n in S2_L1C if n not in ("B8A", "B11")])
    message = refused(out, "run", bundle, folder, "-o", out / "f")
    assert "bands lacks B8A, B11" in message


def test_a_folder_without_bands(bundle: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no band files" in refused(out, "run", bundle, tmp_path / "empty", "-o", out / "f")


def test_a_scene_that_is_not_there(bundle: Path, tmp_path: Path, out: Path) -> None:
    assert "nowhere.tif does not exist" in refused(
        out, "run", bundle, tmp_path / "nowhere.tif", "-o", out / "f"
    )


def test_a_file_that_is_no_raster(bundle: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a raster")
    message = refused(out, "run", bundle, tmp_path / "notes.txt", "-o", out / "f")
    assert "cannot open" in message


def test_a_damaged_raster(bundle: Path, tmp_path: Path, out: Path) -> None:
    scene = write_scene(tmp_path / "cut.tif", scene_pixels(13, 200, 200), S2_L1C)
    with scene.open("r+b") as file:
        file.truncate(scene.stat().st_size // 2)
    message = refused(out, "run", bundle, scene, "-o", out / "f")
    assert "cut.tif" in message


@pytest.mark.parametrize("dtype", ["int64", "complex64"])
def test_a_type_of_values_that_is_not_supported(
    bundle: Path, tmp_path: Path, out: Path, dtype: str
) -> None:
    scene = write_scene(tmp_path / "s.tif", scene_pixels(13, 96, 96).astype(dtype), S2_L1C)
    message = refused(out, "run", bundle, scene, "-o", out / "f")
    assert f"is of type {dtype}" in message
    assert "uint8, int8, uint16, int16, uint32, int32, float32, float64" in message


def test_a_scene_that_is_not_a_number_anywhere(bundle: Path, tmp_path: Path, out: Path) -> None:
    pixels = np.full((13, 128, 128), np.nan, np.float32)
    scene = write_scene(tmp_path / "nan.tif", pixels, S2_L1C)
    assert "nan.tif has no valid pixel" in refused(out, "run", bundle, scene, "-o", out / "f")


def test_a_scene_that_is_all_nodata(bundle: Path, tmp_path: Path, out: Path) -> None:
    scene = write_scene(tmp_path / "zero.tif", np.zeros((13, 128, 128), np.uint16), S2_L1C)
    assert "zero.tif has no valid pixel" in refused(out, "run", bundle, scene, "-o", out / "f")


@pytest.mark.parametrize("overlap", ["-32", "20", "96"])
def test_an_overlap_that_does_not_fit(bundle: Path, scene: Path, out: Path, overlap: str) -> None:
    message = refused(out, "run", bundle, scene, "-o", out / "f", "--overlap", overlap)
    assert "a multiple of 32 from 0 to 64" in message


@pytest.mark.parametrize("tile", ["31", "100", "2048"])
def test_a_tile_that_cannot_be(ensemble: Path, scene: Path, out: Path, tile: str) -> None:
    message = refused(
        out, "export", ensemble, "--scene", scene, "-o", out / "b.eosfm", "--tile", tile
    )
    assert "a multiple of 32 from 32 to 1024" in message


@pytest.mark.parametrize("name", ["bundle", "a b.eosfm", ".eosfm"])
def test_a_name_that_is_no_bundle_s(ensemble: Path, scene: Path, out: Path, name: str) -> None:
    message = refused(out, "export", ensemble, "--scene", scene, "-o", out / name)
    assert "is no name for a bundle" in message


def test_a_bundle_that_is_none(scene: Path, tmp_path: Path, out: Path) -> None:
    assert "manifest.json does not exist" in refused(out, "run", tmp_path, scene, "-o", out / "f")
    assert "expected: a bundle, which has manifest.json" in refused(out, "verify", tmp_path)
    assert "neither an ensemble nor a bundle nor a calibration" in refused(out, "inspect", tmp_path)


def test_an_ensemble_where_a_bundle_is_wanted(ensemble: Path, scene: Path, out: Path) -> None:
    for arguments in (("run", ensemble, scene, "-o", out / "f"), ("verify", ensemble)):
        message = refused(out, *arguments)
        assert f"{ensemble} is an ensemble" in message
        assert "expected: a bundle, which has manifest.json" in message
        assert "eosfm-edge export" in message


def test_something_else_where_an_ensemble_is_wanted(bundle: Path, scene: Path, out: Path) -> None:
    message = refused(out, "export", bundle, "--scene", scene, "-o", out / "b.eosfm")
    assert "expected: an ensemble, which has ensemble.json" in message


def test_a_bundle_that_was_altered(bundle: Path, scene: Path, tmp_path: Path, out: Path) -> None:
    altered = shutil.copytree(bundle, tmp_path / "altered.eosfm")
    with (altered / "model.onnx").open("r+b") as file:
        file.seek(100_000)
        file.write(bytes(4096))
    message = refused(out, "run", altered, scene, "-o", out / "f", code=1)
    assert "altered.eosfm is not as it was exported" in message
    assert "model.onnx was altered" in message


def test_a_manifest_of_the_future(bundle: Path, scene: Path, tmp_path: Path, out: Path) -> None:
    later = shutil.copytree(bundle, tmp_path / "later.eosfm")
    manifest = later / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 2', '"schema_version": 3'))
    message = refused(out, "run", later, scene, "-o", out / "f")
    assert "manifest.json is not valid: schema_version" in message


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["frobnicate"], ["run", "b", "s", "-o", "f", "--backend", "abacus"], ["import"]],
)
def test_wrong_use_of_the_command(out: Path, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    if arguments:
        assert re.match(r"error: .*\n  expected: .*\n  fix:      eosfm-edge ", err), err


def test_an_output_that_cannot_be_made(bundle: Path, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "f", Path("/proc/f")):
        code, _, err = run("run", bundle, scene, "-o", place)
        assert code == 2
        assert f"cannot write {place}" in err
        assert "MB are free" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_in_a_folder_that_is_read_only(bundle: Path, scene: Path, out: Path) -> None:
    out.chmod(0o555)
    assert "Permission denied" in refused(out, "run", bundle, scene, "-o", out / "f")


def test_an_output_that_is_there_is_kept_until_the_new_one_is_whole(
    bundle: Path, scene: Path, tmp_path: Path, out: Path
) -> None:
    assert run("run", bundle, scene, "-o", out / "f")[0] == 0
    before = (out / "f" / "level4.tif").read_bytes()
    assert "add --overwrite" in run("run", bundle, scene, "-o", out / "f")[2]
    nan = write_scene(tmp_path / "nan.tif", np.full((13, 96, 96), np.nan, np.float32), S2_L1C)
    assert run("run", bundle, nan, "-o", out / "f", "--overwrite")[0] == 2
    assert (out / "f" / "level4.tif").read_bytes() == before
    assert leftovers(out) == ["f"]


def test_a_folder_with_other_things_is_never_replaced(
    bundle: Path, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = run("run", bundle, scene, "-o", tmp_path, "--overwrite")
    assert code == 2
    assert "holds thesis.tex, which eosfm-edge did not write" in err
    assert (tmp_path / "thesis.tex").exists()


def test_a_scene_in_the_output_is_not_deleted(bundle: Path, out: Path) -> None:
    (out / "f").mkdir()
    for name in ("level1.tif", "scene.tif"):
        scene = write_scene(out / "f" / name, scene_pixels(13, 96, 96), S2_L1C)
        code, _, err = run("run", bundle, scene, "-o", out / "f", "--overwrite")
        assert code == 2
        assert f"the input {scene} is in the output {out / 'f'}" in err
        assert scene.exists()
        scene.unlink()


def test_a_source_in_the_output_is_not_deleted(ensemble: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(ensemble, tmp_path / "e")
    source = copied / "specialists" / "encoder_1.safetensors"
    arguments = ("import", source, "-o", copied, "--bands", "RGB", "--overwrite")
    code, _, err = run(*arguments)
    assert code == 2
    assert f"the input {source} is in the output {copied}" in err
    assert source.exists()


# The first is met when scratch space is taken, the second when the GeoTIFF is written.
@pytest.mark.parametrize(
    ("size", "why"), [(10_000, "File too large"), (460_000, "MB are free there")]
)
def test_files_that_cannot_be_so_large(
    bundle: Path, scene: Path, out: Path, size: int, why: str
) -> None:
    with no_file_larger_than(size):
        message = refused(out, "run", bundle, scene, "-o", out / "f")
    assert "cannot write" in message
    assert why in message


def test_a_disk_that_is_full_at_export(ensemble: Path, scene: Path, out: Path) -> None:
    arguments = ("export", ensemble, "--scene", scene, "-o", out / "b.eosfm", "--tile", "96")
    with no_file_larger_than(100_000):
        message = refused(out, *arguments)
    assert "cannot write" in message


def test_a_disk_that_will_be_too_small_is_found_before_the_work(
    bundle: Path, scene: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(total=10, used=9, free=1)
    )
    message = refused(out, "run", bundle, scene, "-o", out / "f")
    assert "the disk is too full; 0 MB are free there" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_real_disk_that_is_full(bundle: Path, scene: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False)
    if mount.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        assert "cannot write" in refused(disk, "run", bundle, scene, "-o", disk / "f")
    finally:
        subprocess.run(["umount", disk], check=True)
