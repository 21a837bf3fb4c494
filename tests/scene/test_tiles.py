"""Calibration imagery: what judges is never what was learned on, and no class fills the set."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.scenes import write_scene

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.brightness import brightness_classes
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.tiles import Tiles, load_tiles

SIDE = 32
WANTED = (InputBand(),) * 3  # stored as they are


def coordinates(number: int, height: int, width: int) -> NDArray[np.uint16]:
    """Pixels that say of which scene they are, and in which row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, number + 1), rows, columns]).astype(np.uint16)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    sizes = [(200, 310), (97, 150)]
    return [write_scene(folder / f"{i}.tif", coordinates(i, *size)) for i, size in enumerate(sizes)]


def every(tiles: Tiles) -> list[NDArray[np.float32]]:
    return tiles.calibration + tiles.held_out


def pixels(tile: NDArray[np.float32]) -> set[tuple[int, ...]]:
    return {tuple(map(int, pixel)) for pixel in tile.reshape(len(tile), -1).T.tolist()}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 60), st.booleans())
def test_no_pixel_is_in_two_tiles(scenes: list[Path], seed: int, count: int, balance: bool) -> None:
    tiles = load_tiles(scenes, WANTED, SIDE, count, seed, balance=balance)
    assert 1 <= len(tiles.calibration) <= count
    assert len(tiles.held_out) >= 1
    sets = [pixels(tile) for tile in every(tiles)]
    assert all(len(one) == SIDE**2 for one in sets)
    assert len(set().union(*sets)) == len(sets) * SIDE**2


def test_a_scene_that_is_given_twice_is_refused(scenes: list[Path]) -> None:
    """Its tiles would judge what they calibrated."""
    with pytest.raises(UserError, match="given twice"):
        load_tiles([scenes[1], scenes[1]], WANTED, SIDE, 60, 0)


def equal(one: Tiles, other: Tiles) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(every(one), every(other), strict=True))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31 - 2))
def test_the_seed_says_which_tiles(scenes: list[Path], seed: int) -> None:
    first, again = (load_tiles(scenes, WANTED, SIDE, 20, seed) for _ in range(2))
    assert equal(first, again)
    assert (first.sha256, first.source) == (again.sha256, again.source)
    other = load_tiles(scenes, WANTED, SIDE, 20, seed + 1)
    assert other.sha256 != first.sha256
    assert not equal(first, other)


def test_the_digest_changes_with_the_pixels(scenes: list[Path], tmp_path: Path) -> None:
    before = load_tiles(scenes[1:], WANTED, SIDE, 20, 0)
    changed = coordinates(1, 97, 150)
    _, row, column = sorted(pixels(before.calibration[0]))[0]
    changed[0, row, column] += 1
    path = write_scene(tmp_path / "1.tif", changed)
    after = load_tiles([path], WANTED, SIDE, 20, 0)
    assert after.sha256 != before.sha256


def test_a_ninth_is_held_out_and_every_scene_gives_its_share(scenes: list[Path]) -> None:
    tiles = load_tiles(scenes, WANTED, SIDE, 8, 0)
    assert (len(tiles.calibration), len(tiles.held_out)) == (8, 1)
    tiles = load_tiles([scenes[0]], WANTED, SIDE, 48, 0)
    assert (len(tiles.calibration), len(tiles.held_out)) == (48, 6)
    tiles = load_tiles(scenes, WANTED, SIDE, 12, 0)
    of = [int(tile[0, 0, 0]) for tile in every(tiles)]
    assert abs(of.count(1) - of.count(2)) <= 1
    assert "7 tiles of 0.tif, 7 tiles of 1.tif; held out: " in tiles.source


def test_what_is_held_out_is_said(scenes: list[Path]) -> None:
    tiles = load_tiles([scenes[0]], WANTED, SIDE, 48, 0)
    said = tiles.source.split("held out: ")[1]
    assert said.endswith(" of 54")
    numbers = [part.split("-") for part in said.removesuffix(" of 54").split()]
    assert sum(int(run[-1]) - int(run[0]) + 1 for run in numbers) == 6


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 127), st.integers(0, 127))
def test_tiles_with_gaps_are_not_taken(
    tmp_path_factory: pytest.TempPathFactory, seed: int, row: int, column: int
) -> None:
    stored = coordinates(0, 128, 128) + 1
    stored[:, row, column] = 0
    path = write_scene(tmp_path_factory.mktemp("gap") / "gap.tif", stored, nodata=0)
    for tile in every(load_tiles([path], WANTED, SIDE, 99, seed)):
        assert len(pixels(tile)) == SIDE**2 and float(tile.min()) > 0


def test_bands_can_be_named_and_nodata_said(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", coordinates(0, 96, 96))
    wanted = tuple(InputBand(name=name) for name in ("B02", "B03", "B04"))
    names = tuple(Band(name=name) for name in ("B04", "B03", "B02"))
    tiles = load_tiles([path], wanted, SIDE, 4, 0, names=names)
    assert all(float(tile[2].max()) == 1 for tile in tiles.calibration)  # the first is B04
    with pytest.raises(UserError, match="the scenes hold 0 valid tiles"):
        load_tiles([path], WANTED, SIDE, 4, 0, radiometry=Radiometry(None, None, 1))


def test_no_scenes_and_too_small_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no calibration data") as error:
        load_tiles([], WANTED, SIDE, 4, 0)
    assert "--data SCENE" in str(error.value)
    one = write_scene(tmp_path / "one.tif", coordinates(0, 63, 63))
    with pytest.raises(UserError, match="the scenes hold 1 valid tiles of 32 x 32") as error:
        load_tiles([one], WANTED, SIDE, 4, 0)
    assert "one to calibrate on, another to judge by" in str(error.value)
    with pytest.raises(UserError, match="smaller than a tile"):
        load_tiles([one], WANTED, 64, 4, 0)


# ---- Balance ----


def grounds(path: Path, kinds: Sequence[int], columns: int = 10) -> Path:
    """Write a scene of tiles in rows, each of one brightness with a little noise."""
    rows = np.array(kinds).reshape(-1, columns)
    plain = np.kron(rows, np.ones((SIDE, SIDE)))
    noise = np.random.default_rng(0).integers(0, 20, (3, *plain.shape))
    return write_scene(path, (plain + noise).astype(np.uint16))


def shares(tiles: Tiles, kinds: Sequence[int]) -> dict[int, int]:
    """Return how many tiles are of each brightness."""
    known = np.array(kinds)
    of = [int(known[np.abs(known - float(tile.mean())).argmin()]) for tile in every(tiles)]
    return {kind: of.count(kind) for kind in kinds}


SEA, LAND, CLOUD = 300, 1500, 8000


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_a_sea_does_not_fill_the_set(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Of 100 tiles 6 are land and 4 cloud; all are looked at."""
    path = tmp_path_factory.getbasetemp() / "coast.tif"
    if not path.exists():
        grounds(path, [LAND] * 6 + [CLOUD] * 4 + [SEA] * 90)
    tiles = load_tiles([path], WANTED, SIDE, 24, seed)
    found = shares(tiles, (SEA, LAND, CLOUD))
    assert found[LAND] == 6 and found[CLOUD] == 4
    assert found[SEA] == 17  # the rest of 27


def test_half_sea_and_half_land_give_half_each(tmp_path: Path) -> None:
    path = grounds(tmp_path / "s.tif", [SEA] * 50 + [LAND] * 50)
    found = shares(load_tiles([path], WANTED, SIDE, 16, 3), (SEA, LAND))
    assert found == {SEA: 9, LAND: 9}


def test_without_balance_tiles_are_as_they_come(tmp_path: Path) -> None:
    path = grounds(tmp_path / "s.tif", [LAND] * 5 + [SEA] * 95)
    found = [
        shares(load_tiles([path], WANTED, SIDE, 8, seed, balance=False), (SEA, LAND))[LAND]
        for seed in range(20)
    ]
    assert np.mean(found) < 1.5  # 0.45 of 9


def test_brightness_is_in_physical_units(tmp_path: Path) -> None:
    """A band of large stored and small physical values does not say what is bright."""
    path = grounds(tmp_path / "s.tif", [LAND] * 5 + [SEA] * 95)
    noise = np.random.default_rng(1).integers(0, 60_000, (10 * SIDE, 10 * SIDE))
    with rasterio.open(path) as dataset:
        stored = dataset.read()
    stored[2] = np.kron(noise[::SIDE, ::SIDE], np.ones((SIDE, SIDE)))
    write_scene(path, stored)
    wanted = (InputBand(), InputBand(), InputBand(scale=1e-6))
    tiles = load_tiles([path], wanted, SIDE, 24, 0)
    assert sum(float(tile[0].mean()) > 1000 for tile in every(tiles)) == 5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_classes_are_of_neighbours(values: list[float]) -> None:
    of = brightness_classes(np.array(values))
    assert set(of.tolist()) <= set(range(4))
    ordered = of[np.argsort(values)]
    assert (np.diff(ordered) >= 0).all()


def test_memory_depends_on_the_tiles_and_not_on_the_scene(tmp_path: Path) -> None:
    side, count = 128, 4
    path = write_scene(tmp_path / "s.tif", coordinates(0, 1536, 1536))
    load_tiles([path], WANTED, side, count, 0)  # what is made once
    tracemalloc.start()
    load_tiles([path], WANTED, side, count, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tile = 3 * side**2 * 4
    assert peak < 12 * tile  # five tiles and what works on one; twenty candidates were looked at
