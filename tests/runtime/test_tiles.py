"""Tiles cover a scene, and their weights add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm_edge.runtime.tiles import TileAxis


@st.composite
def axes(draw: st.DrawFn) -> TileAxis:
    """A scene's axis, not shorter than a tile, with any overlap that is allowed."""
    size = 32 * draw(st.integers(1, 10))
    overlap = 32 * draw(st.integers(0, size // 32 - 1))
    return TileAxis.cover(draw(st.integers(size, 2000)), size, overlap)


@given(axes())
def test_every_pixel_is_in_a_tile_and_tiles_meet_on_the_coarsest_grid(axis: TileAxis) -> None:
    assert axis.starts[0] == 0
    assert all(start % 32 == 0 for start in axis.starts)
    steps = np.diff(axis.starts)
    assert np.all((steps > 0) & (steps <= axis.size - axis.overlap))
    assert axis.length <= axis.starts[-1] + axis.size < axis.length + 32


@given(axes(), st.sampled_from([4, 8, 16, 32]))
def test_weights_add_up_to_one_in_every_cell(axis: TileAxis, stride: int) -> None:
    total = np.zeros(axis.cells(stride))
    for tile, start in enumerate(axis.starts):
        weights = axis.weights(tile, stride)
        assert np.all(weights > 0)
        total[start // stride : start // stride + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_two_tiles_worked_by_hand() -> None:
    axis = TileAxis.cover(160, 96, 32)
    assert axis.starts == (0, 64)
    # Cells of 16 pixels: tile 0 has cells 0..5, tile 1 has 4..9, and 4 and 5 are shared. Each
    # tile's own ramp is 1/4, 3/4, 1, 1, 3/4, 1/4 before the two are brought to a sum of 1.
    np.testing.assert_allclose(axis.weights(0, 16), [1, 1, 1, 1, 0.75, 0.25])
    np.testing.assert_allclose(axis.weights(1, 16), [0.25, 0.75, 1, 1, 1, 1])


def test_without_overlap_every_cell_has_one_tile() -> None:
    axis = TileAxis.cover(192, 96, 0)
    assert axis.starts == (0, 96)
    assert axis.weights(0, 32).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("length", "starts"), [(96, (0,)), (97, (0, 32)), (128, (0, 32))])
def test_the_last_tile_ends_at_the_scene_or_just_over_it(
    length: int, starts: tuple[int, ...]
) -> None:
    assert TileAxis.cover(length, 96, 32).starts == starts
