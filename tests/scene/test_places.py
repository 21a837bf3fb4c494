"""Tiles are found wherever they fit, not only where a grid puts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.scenes import scene_pixels, write_scene
from support.tiers import thorough

from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.places import valid_places
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import open_scene
from eosfm_edge.scene.tiles import load_tiles

NAMES = ("B04", "B03", "B02")
BANDS = tuple(InputBand(name=name, nodata=0) for name in NAMES)


class Masked:
    """A scene of which only validity is known."""

    def __init__(self, valid: NDArray[np.bool_]) -> None:
        self.valid = valid
        self.height, self.width = valid.shape

    def read(
        self, left: int, top: int, width: int, height: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        window = self.valid[top : top + height, left : left + width]
        assert window.shape == (height, width)
        return np.zeros((1, height, width), np.float32), window


def shelf_packing(valid: NDArray[np.bool_], size: int) -> int:
    """Return the most tiles on shelves, by trying every shelf below every other."""
    height, width = valid.shape
    most = [0] * (height + size + 1)
    for top in range(height - size, -1, -1):
        ok, count, left = valid[top : top + size].all(axis=0), 0, 0
        while left + size <= width:
            if ok[left : left + size].all():
                count, left = count + 1, left + size
            else:
                left += 1
        most[top] = max(most[top + 1], count + most[top + size])
    return most[0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 150),
    width=st.integers(1, 60),
    size=st.integers(1, 20),
    holes=st.integers(0, 12),
)
def test_as_many_tiles_are_found_as_shelves_hold(
    seed: int, height: int, width: int, size: int, holes: int
) -> None:
    rng = np.random.default_rng(seed)
    valid = np.ones((height, width), bool)
    valid[rng.integers(height, size=holes), rng.integers(width, size=holes)] = False
    places = valid_places(Masked(valid), size, rng)  # type: ignore[arg-type]
    taken = np.zeros_like(valid)
    for left, top in places:
        window = taken[top : top + size, left : left + size]
        assert window.shape == (size, size) and not window.any()
        window[:] = True
    assert valid[taken].all()
    assert len(places) == shelf_packing(valid, size)


@pytest.fixture
def pocked(tmp_path: Path) -> Path:
    """A scene of 512 pixels in which four tiles of 224 fit around two pixels without data."""
    pixels = scene_pixels(3, 512, 512)
    pixels[:, 250, 250] = pixels[:, 262, 262] = 0
    return write_scene(tmp_path / "scene.tif", pixels, NAMES, nodata=0)


@pytest.mark.parametrize("seed", [0, *thorough(1, 2, 3)])
def test_four_tiles_that_fit_are_four_tiles_that_are_taken(pocked: Path, seed: int) -> None:
    tiles = load_tiles([pocked], BANDS, 224, 96, seed)
    assert len(tiles.calibration) + len(tiles.held_out) == 4
    assert all((tile > 0).all() for tile in (*tiles.calibration, *tiles.held_out))


def test_a_swath_across_the_scene_gives_whole_tiles_to_check_on(tmp_path: Path) -> None:
    """The corners of a 4 x 4 grid all miss it."""
    pixels = scene_pixels(3, 600, 600)
    rows, columns = np.mgrid[0:600, 0:600]
    pixels[:, np.abs(columns - rows - 90) > 66] = 0
    path = write_scene(tmp_path / "scene.tif", pixels, NAMES, nodata=0)
    with open_scene(path, BANDS) as scene:
        tiles = sample_tiles(scene, 64, 4)
    assert len(tiles) == 4
    assert all((tile > 0).all() for tile in tiles)
