"""Running a bundle: values, georeferencing, blending and nodata."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from support.scenes import scene_pixels, write_scene
from support.weights import S2_INPUT, write_pth

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.backends import CPU_BACKENDS
from eosfm_edge.formats.bands import S2_L1C, parse_bands
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.native.binding import GRN_GATHER, GRN_SCENE, Model
from eosfm_edge.runtime.backends import open_context
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.runtime.scene_pass import ScenePass, Tiling
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.scene import open_scene

TILE = 96  # of the bundle
STRIDES = (4, 8, 16, 32)

Array = NDArray[np.float32]


def read_levels(folder: Path) -> list[Array]:
    levels = []
    for level in range(1, 5):
        with rasterio.open(folder / f"level{level}.tif") as dataset:
            levels.append(dataset.read())
    return levels


def run_tile(bundle: Path, image: NDArray[np.generic]) -> list[Array]:
    """Return the levels that the backend gives for one tile (bands, 96, 96)."""
    with open_context(bundle, read_manifest(bundle), [RunOptions().backend]) as context:
        return context.run(list(image.astype(np.float32)))


def test_levels_lie_on_the_grid_of_their_stride(bundle: Path, scene: Path, tmp_path: Path) -> None:
    report = run_scene(bundle, scene, tmp_path / "out")
    assert (report.tiles, report.skipped_tiles) == (5 * 3, 0)
    with rasterio.open(scene) as source:
        for level, stride in enumerate(STRIDES, start=1):
            with rasterio.open(tmp_path / "out" / f"level{level}.tif") as features:
                assert features.crs == source.crs
                assert features.shape == (-(-200 // stride), -(-300 // stride))
                assert features.transform == source.transform * source.transform.scale(stride)
                assert features.dtypes[0] == "float32"
                assert np.isnan(features.nodata)
                assert np.isfinite(features.read()).all()


def test_outputs_are_cloud_optimised(bundle: Path, scene: Path, tmp_path: Path) -> None:
    run_scene(bundle, scene, tmp_path / "out")
    for path in (tmp_path / "out").glob("*.tif"):
        with rasterio.open(path) as dataset:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_only_what_is_documented_is_left(bundle: Path, scene: Path, tmp_path: Path) -> None:
    report = run_scene(bundle, scene, tmp_path / "out", RunOptions(quicklook=True))
    levels = ["level1.tif", "level2.tif", "level3.tif", "level4.tif"]
    names = ["groups.tif", *levels, "quicklook.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert report.bytes == {n: (tmp_path / "out" / n).stat().st_size for n in names}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_scene_of_one_tile_gives_what_the_backend_gives(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, TILE, seed=3)
    run_scene(bundle, write_scene(tmp_path / "s.tif", pixels, S2_L1C), tmp_path / "out")
    for got, expected in zip(read_levels(tmp_path / "out"), run_tile(bundle, pixels), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_backends_give_the_same(bundle: Path, scene: Path, tmp_path: Path) -> None:
    levels = []
    for backend in CPU_BACKENDS:
        report = run_scene(bundle, scene, tmp_path / backend, RunOptions(backend=backend))
        assert report.backend == backend
        levels.append(read_levels(tmp_path / backend))
    for native, onnx in zip(*levels, strict=True):
        np.testing.assert_allclose(native, onnx, rtol=0, atol=1e-4 * np.abs(onnx).max())


def test_tiles_are_blended_linearly(bundle: Path, tmp_path: Path) -> None:
    """Against a blend of two tiles with weights that are written out here."""
    pixels = scene_pixels(13, TILE, 160, seed=4)
    run_scene(
        bundle,
        write_scene(tmp_path / "s.tif", pixels, S2_L1C),
        tmp_path / "out",
        RunOptions(overlap=32),
    )
    left, right = run_tile(bundle, pixels[:, :, :96]), run_tile(bundle, pixels[:, :, 64:])
    for level, stride in enumerate(STRIDES):
        shared = 32 // stride
        rising = ((np.arange(shared) + 0.5) / shared).astype(np.float32)
        expected = np.concatenate(
            [
                left[level][..., :-shared],
                left[level][..., -shared:] * rising[::-1] + right[level][..., :shared] * rising,
                right[level][..., shared:],
            ],
            axis=-1,
        )
        got = read_levels(tmp_path / "out")[level]
        np.testing.assert_allclose(got, expected, atol=2e-6 * np.abs(expected).max())


def test_what_reaches_over_the_end_is_mirrored(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, 110, seed=5)
    run_scene(
        bundle,
        write_scene(tmp_path / "s.tif", pixels, S2_L1C),
        tmp_path / "out",
        RunOptions(overlap=0),
    )
    # Tiles start at 0 and 96; the second is computed from 32 on, with 18 pixels beyond the scene.
    mirrored = np.concatenate([pixels[:, :, 32:], pixels[:, :, :-19:-1]], axis=2)
    last = run_tile(bundle, mirrored)[3][:, :, -1]
    np.testing.assert_allclose(read_levels(tmp_path / "out")[3][:, :, 3], last, rtol=1e-5)


def test_a_scene_smaller_than_a_tile_is_mirrored(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, 40, 30, seed=5)
    run_scene(bundle, write_scene(tmp_path / "s.tif", pixels, S2_L1C), tmp_path / "out")
    beyond = ((0, 0), (0, TILE - 40), (0, TILE - 30))
    expected = run_tile(bundle, np.pad(pixels, beyond, mode="symmetric"))
    for got, level, stride in zip(read_levels(tmp_path / "out"), expected, STRIDES, strict=True):
        assert got.shape[1:] == (-(-40 // stride), -(-30 // stride))
        np.testing.assert_array_equal(got, level[:, : got.shape[1], : got.shape[2]])


def test_bands_of_other_resolutions_are_resampled_on_the_way(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, 120, 240, seed=5)
    (tmp_path / "bands").mkdir()
    for index, name in enumerate(S2_L1C):
        step = (6, 1, 2)[index % 3]
        coarse = pixels[index, ::step, ::step]
        write_scene(tmp_path / "bands" / f"x_{name}.tif", coarse[np.newaxis], resolution=10 * step)
        pixels[index] = np.kron(coarse, np.ones((step, step)))
    run_scene(bundle, tmp_path / "bands", tmp_path / "a")
    run_scene(bundle, write_scene(tmp_path / "s.tif", pixels, S2_L1C), tmp_path / "b")
    for a, b in zip(read_levels(tmp_path / "a"), read_levels(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_cells_without_data_are_nan_and_others_are_not(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, 200, 300, seed=6)
    pixels[4, :50, :50] = 0  # nodata in one band is enough
    pixels[:, 120:, 200:] = 0
    run_scene(bundle, write_scene(tmp_path / "s.tif", pixels, S2_L1C), tmp_path / "out")
    missing = (pixels == 0).any(axis=0)
    for level, stride in zip(read_levels(tmp_path / "out"), STRIDES, strict=True):
        padded = np.full((-(-200 // stride) * stride, -(-300 // stride) * stride), np.nan)
        padded[:200, :300] = missing
        cells = padded.reshape(padded.shape[0] // stride, stride, -1, stride)
        expected = np.nanmean(cells, axis=(1, 3)) > 0.5
        np.testing.assert_array_equal(np.isnan(level), np.broadcast_to(expected, level.shape))


def test_nodata_far_away_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, 400, seed=7)
    whole = write_scene(tmp_path / "whole.tif", pixels, S2_L1C)
    pixels[:, :, 300:] = 0
    part = write_scene(tmp_path / "part.tif", pixels, S2_L1C)
    for path in (whole, part):
        run_scene(bundle, path, tmp_path / path.stem)
    for a, b, stride in zip(
        read_levels(tmp_path / "whole"), read_levels(tmp_path / "part"), STRIDES, strict=True
    ):
        near = 192 // stride  # tiles that start at 192 and later see the change
        np.testing.assert_array_equal(a[..., :near], b[..., :near])


def test_nodata_pixels_are_seen_as_the_bands_fill(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, TILE, seed=8)
    pixels[:, 40:60, 40:60] = 0
    run_scene(bundle, write_scene(tmp_path / "s.tif", pixels, S2_L1C), tmp_path / "out")
    got = read_levels(tmp_path / "out")[0]
    expected = run_tile(bundle, pixels)[0]  # the input's fill is 0 too
    valid = np.isfinite(got)
    np.testing.assert_array_equal(got[valid], expected[valid])


def test_empty_tiles_are_skipped_and_counted(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, 480, seed=9)
    pixels[:, :, 150:] = 0
    scene = write_scene(tmp_path / "s.tif", pixels, S2_L1C)
    report = run_scene(bundle, scene, tmp_path / "out", RunOptions(overlap=0))
    assert (report.tiles, report.skipped_tiles) == (5, 3)


def test_bands_can_be_named_and_stand_in_any_order(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, TILE)
    run_scene(bundle, write_scene(tmp_path / "a.tif", pixels, S2_L1C), tmp_path / "a")
    backwards = write_scene(tmp_path / "b.tif", pixels[::-1])
    names = parse_bands(",".join(reversed(S2_L1C)))
    run_scene(bundle, backwards, tmp_path / "b", RunOptions(names=names))
    for a, b in zip(read_levels(tmp_path / "a"), read_levels(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_offset_of_newer_products_can_be_said(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, TILE)
    run_scene(bundle, write_scene(tmp_path / "a.tif", pixels, S2_L1C), tmp_path / "a")
    newer = write_scene(tmp_path / "b.tif", pixels + np.uint16(1000), S2_L1C)
    said = RunOptions(radiometry=Radiometry(scale=1e-4, offset=-0.1))
    run_scene(bundle, newer, tmp_path / "b", said)
    for a, b in zip(read_levels(tmp_path / "a"), read_levels(tmp_path / "b"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


def test_two_runs_give_the_same_bytes(bundle: Path, scene: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_scene(bundle, scene, tmp_path / name, RunOptions(quicklook=True, threads=1))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


PEAK = """
import sys
from pathlib import Path
from eosfm_edge.runtime.run import RunOptions, run_scene
run_scene(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), RunOptions(overlap=0))
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:specialist .* is skipped")
def test_memory_does_not_grow_with_the_scene(scene: Path, tmp_path: Path) -> None:
    """Sixteen times the pixels, most of them skipped to be quick, but all read and written."""
    # As wide as real levels are: those of small networks would go unnoticed.
    source = write_pth(tmp_path / "e.pth", (3, 13), "convnextv2_atto")
    import_ensemble([source], tmp_path / "atto", ImportOptions(input=S2_INPUT))
    bundle = tmp_path / "atto.eosfm"
    export_bundle(tmp_path / "atto", scene, bundle, ExportOptions(tile=TILE))
    peaks = []
    for side in (750, 3000):
        pixels = np.zeros((13, side, side), np.uint16)
        pixels[:, :TILE] = 500
        scene = write_scene(tmp_path / f"{side}.tif", pixels, S2_L1C)
        arguments = [str(bundle), str(scene), str(tmp_path / f"out{side}")]
        out = subprocess.run(
            [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True
        )
        peaks.append(int(out.stdout))
    # The larger scene is 234 MB, its levels are 390 MB; GDAL's cache, which fills up, is 128 MB.
    assert peaks[1] - peaks[0] < 300


def test_grn_over_the_scene_makes_tiles_agree(bundle: Path, tmp_path: Path) -> None:
    """They share 64 pixels, and cells of level 1 see 24 beyond their own: some see the same."""
    pixels = scene_pixels(13, TILE, TILE + 32, seed=10)
    pixels[:, :, 112:] *= 4
    path = write_scene(tmp_path / "s.tif", pixels, S2_L1C)
    with Model(bundle) as model, model.context(threads=1) as context:
        tiles = [list(pixels[:, :, start : start + TILE]) for start in (0, 32)]
        alone = [context.run(tile)[0] for tile in tiles]
        context.set_grn(GRN_GATHER)
        with open_scene(path, S2_INPUT) as opened:
            gather = ScenePass(context, opened, Tiling(TILE, 64, 0), levels=(False,) * 4)
            assert sum(1 for _ in gather.patches(lambda done: None)) == 2
        context.set_grn(GRN_SCENE)
        together = [context.run(tile)[0] for tile in tiles]
    stages = []
    report = run_scene(
        bundle,
        path,
        tmp_path / "out",
        RunOptions(grn="scene", overlap=64),
        progress=lambda stage, done, total: stages.append((stage, done, total)),
    )
    assert report.grn == "scene"
    assert [s for s in stages if s[0] != "writing"] == [
        (stage, done, 2) for stage in ("gathering", "tiles") for done in range(3)
    ]
    got = read_levels(tmp_path / "out")[0][..., 15:17]
    peak = np.abs(got).max()
    for shift, tile, other in zip((0, 8), together, alone, strict=True):
        middle = slice(15 - shift, 17 - shift)
        np.testing.assert_allclose(got, tile[..., middle], rtol=0, atol=1e-5 * peak)
        assert np.abs(got - other[..., middle]).max() > 1e-4 * peak


def test_tiles_without_data_are_not_gathered(bundle: Path, tmp_path: Path) -> None:
    pixels = scene_pixels(13, TILE, 2 * TILE, seed=11)
    pixels[:, :, TILE:] = 0
    options = RunOptions(grn="scene", overlap=0)
    wide = write_scene(tmp_path / "wide.tif", pixels, S2_L1C)
    report = run_scene(bundle, wide, tmp_path / "wide", options)
    assert (report.tiles, report.skipped_tiles) == (2, 1)
    narrow = write_scene(tmp_path / "narrow.tif", pixels[:, :, :TILE], S2_L1C)
    run_scene(bundle, narrow, tmp_path / "narrow", options)
    for a, b in zip(read_levels(tmp_path / "wide"), read_levels(tmp_path / "narrow"), strict=True):
        np.testing.assert_array_equal(a[..., : b.shape[-1]], b)
    empty = write_scene(tmp_path / "empty.tif", 0 * pixels, S2_L1C)
    with pytest.raises(UserError, match="no valid pixel"):
        run_scene(bundle, empty, tmp_path / "empty", options)


def test_other_backends_refuse_grn_over_the_scene(tmp_path: Path) -> None:
    options = RunOptions(grn="scene", backend="onnxruntime")
    nothing = tmp_path / "nothing"
    with pytest.raises(UserError, match="the onnxruntime backend normalises every tile by itself"):
        run_scene(nothing, nothing, tmp_path / "out", options)
    assert not list(tmp_path.iterdir())
