"""Calibration imagery: what judges is never what was learned on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specimens import ensemble_of
from support import scene_pixels, write_scene
from torch import Tensor

from eosfm_edge.ensemble.bands import Band
from eosfm_edge.ensemble.spec import InputBand
from eosfm_edge.errors import UserError
from eosfm_edge.pruning.tiles import Tiles, inputs_of, load_tiles
from eosfm_edge.scene.scene import Radiometry

SIDE = 32
SPEC = ensemble_of().spec.model_copy(update={"input": (InputBand(),) * 3})  # stored as they are


def coordinates(number: int, height: int, width: int) -> np.ndarray:
    """Pixels that say of which scene they are, and in which row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, number + 1), rows, columns]).astype(np.uint16)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    sizes = [(200, 310), (97, 150)]
    return [write_scene(folder / f"{i}.tif", coordinates(i, *size)) for i, size in enumerate(sizes)]


def pixels(tile: Tensor) -> set[tuple[int, ...]]:
    return {tuple(map(int, pixel)) for pixel in tile.flatten(1).T.tolist()}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 60))
def test_no_pixel_is_in_two_tiles(scenes: list[Path], seed: int, count: int) -> None:
    tiles = load_tiles(scenes, SPEC, SIDE, count, seed)
    assert 1 <= len(tiles.calibration) <= count
    assert len(tiles.held_out) >= 1
    sets = [pixels(tile) for tile in (*tiles.calibration, *tiles.held_out)]
    assert all(len(one) == SIDE**2 for one in sets)
    assert len(set().union(*sets)) == len(sets) * SIDE**2


def test_a_scene_that_is_given_twice_is_refused(scenes: list[Path]) -> None:
    """Its tiles would judge what they calibrated."""
    with pytest.raises(UserError, match="given twice"):
        load_tiles([scenes[1], scenes[1]], SPEC, SIDE, 60, 0)


def equal(one: Tiles, other: Tiles) -> bool:
    pairs = zip(one.calibration + one.held_out, other.calibration + other.held_out, strict=True)
    return all(a.equal(b) for a, b in pairs)


def test_the_seed_says_which_tiles(scenes: list[Path]) -> None:
    first, again = (load_tiles(scenes, SPEC, SIDE, 20, 7) for _ in range(2))
    assert equal(first, again)
    assert (first.sha256, first.source) == (again.sha256, again.source)
    other = load_tiles(scenes, SPEC, SIDE, 20, 8)
    assert other.sha256 != first.sha256
    assert not equal(first, other)


def test_the_digest_changes_with_the_pixels(scenes: list[Path], tmp_path: Path) -> None:
    before = load_tiles(scenes[1:], SPEC, SIDE, 20, 0)
    changed = coordinates(1, 97, 150)
    _, row, column = sorted(pixels(before.calibration[0]))[0]
    changed[0, row, column] += 1
    path = write_scene(tmp_path / "1.tif", changed)
    after = load_tiles([path], SPEC, SIDE, 20, 0)
    assert after.sha256 != before.sha256


def test_a_ninth_is_held_out_and_every_scene_gives_its_share(scenes: list[Path]) -> None:
    tiles = load_tiles(scenes, SPEC, SIDE, 8, 0)
    assert (len(tiles.calibration), len(tiles.held_out)) == (8, 1)
    tiles = load_tiles([scenes[0]], SPEC, SIDE, 48, 0)
    assert (len(tiles.calibration), len(tiles.held_out)) == (48, 6)
    tiles = load_tiles(scenes, SPEC, SIDE, 12, 0)
    of = [int(tile[0, 0, 0]) for tile in (*tiles.calibration, *tiles.held_out)]
    assert abs(of.count(1) - of.count(2)) <= 1
    assert f"7 tiles of {scenes[0]}, 7 tiles of {scenes[1]}; held out: " in tiles.source


def test_tiles_with_gaps_are_not_taken(tmp_path: Path) -> None:
    stored = coordinates(0, 128, 128) + 1
    stored[:, 40, 50] = 0
    path = write_scene(tmp_path / "gap.tif", stored, nodata=0)
    for seed in range(5):
        tiles = load_tiles([path], SPEC, SIDE, 99, seed)
        for tile in (*tiles.calibration, *tiles.held_out):
            assert len(pixels(tile)) == SIDE**2 and float(tile.min()) > 0


def test_tiles_are_in_physical_units(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", scene_pixels(3, 96, 96))
    bands = tuple(InputBand(scale=0.01 * (i + 1), offset=-i) for i in range(3))
    scaled = SPEC.model_copy(update={"input": bands})
    stored = load_tiles([path], SPEC, SIDE, 4, 0)
    physical = load_tiles([path], scaled, SIDE, 4, 0)
    for a, b in zip(stored.calibration, physical.calibration, strict=True):
        for i, band in enumerate(bands):
            np.testing.assert_allclose(b[i], a[i] * band.scale + band.offset, rtol=1e-5)


def test_bands_can_be_named_and_nodata_said(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", coordinates(0, 96, 96))
    wanted = tuple(InputBand(name=name) for name in ("B02", "B03", "B04"))
    spec = SPEC.model_copy(update={"input": wanted})
    names = tuple(Band(name=name) for name in ("B04", "B03", "B02"))
    tiles = load_tiles([path], spec, SIDE, 4, 0, names=names)
    assert all(float(tile[2].max()) == 1 for tile in tiles.calibration)  # the first is B04
    with pytest.raises(UserError, match="the scenes hold 0 valid tiles"):
        load_tiles([path], SPEC, SIDE, 4, 0, radiometry=Radiometry(None, None, 1))


def test_no_scenes_and_too_small_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no calibration data") as error:
        load_tiles([], SPEC, SIDE, 4, 0)
    assert "--data SCENE" in str(error.value)
    one = write_scene(tmp_path / "one.tif", coordinates(0, 63, 63))
    with pytest.raises(UserError, match="the scenes hold 1 valid tiles of 32 x 32") as error:
        load_tiles([one], SPEC, SIDE, 4, 0)
    assert "one to calibrate on, another to judge by" in str(error.value)
    with pytest.raises(UserError, match="smaller than a tile"):
        load_tiles([one], SPEC, 64, 4, 0)


@pytest.mark.parametrize("wants", [13, 3])
def test_a_specialist_sees_its_bands_of_each_run_in_turn(wants: int) -> None:
    spec = ensemble_of((3,), fusion="none").spec
    specialist = spec.specialists[0].model_copy(update={"bands": (Band(),) * wants})
    from eosfm_edge.ensemble.model import Ensemble

    many = spec.model_copy(update={"input": spec.input[:1] * 13, "specialists": (specialist,)})
    ensemble = Ensemble(many)
    tiles = [Tensor(np.arange(13.0).reshape(13, 1, 1) + 100 * i) for i in range(3)]
    seen = [[int(v) for v in image.flatten().tolist()] for image in inputs_of(ensemble, 0, tiles)]
    runs = ensemble.sets[0]
    assert len(runs) == (2 if wants == 3 else 1)
    assert seen == [[100 * i + band for band in runs[i % len(runs)]] for i in range(3)]
