"""GRN's norms over a scene: what tiles share and what has no data, in the sums that are gathered.

The network here looks at no neighbours, and in its first level all but GRN is a matter of each cell
alone. So the sums over a scene are those over its cells in any order, packed without gaps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.chains import Array, image_of, random_ensemble, spec_of, write
from support.speck import SPECK

from eosfm_edge.native.binding import GRN_GATHER, GRN_SCENE, Context, Model
from eosfm_edge.native.stream import Stream, StreamBand

TILE, CELL = 64, 4
FLOAT = np.dtype(np.float32)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    ensemble = random_ensemble(spec_of((2,), 2, backbone=SPECK, normalisation="none"))
    with torch.no_grad():
        for name, weight in ensemble.named_parameters():
            if name.endswith("conv_dw.weight"):
                middle = weight[:, :, 3, 3].clone()
                weight.zero_()
                weight[:, :, 3, 3] = middle
            elif name.endswith("grn.weight"):
                weight.mul_(50)
    bundle = write(tmp_path_factory.mktemp("grn") / "b", ensemble, TILE)
    with Model(bundle) as model:
        context = model.context(threads=2)
    with context:
        yield context


def streamed(context: Context, image: Array, overlap: int) -> None:
    stream = Stream(context, image.shape[2], [StreamBand(FLOAT)] * 2, overlap=overlap)
    done = [0, 0]

    def feed() -> bool:
        for index, band in enumerate(image):
            done[index] += stream.push_rows(index, band[done[index] :])
        return min(done) < image.shape[1]

    for _ in stream.patches(feed):
        pass
    stream.close()


def packed(image: Array) -> Iterator[Array]:
    """Give the valid cells, of 4 x 4 pixels, as tiles; the last has no data where they end."""
    bands, height, width = image.shape
    cells = image.reshape(bands, height // CELL, CELL, width // CELL, CELL)
    cells = cells.transpose(1, 3, 0, 2, 4).reshape(-1, bands, CELL, CELL)
    cells = cells[np.isfinite(cells).all(axis=(1, 2, 3))]
    side = TILE // CELL
    for start in range(0, len(cells), side * side):
        some = cells[start : start + side * side]
        tile = np.full((side * side, bands, CELL, CELL), np.nan, np.float32)
        tile[: len(some)] = some
        tile = tile.reshape(side, side, bands, CELL, CELL).transpose(2, 0, 3, 1, 4)
        yield np.ascontiguousarray(tile.reshape(bands, TILE, TILE))


def first_level_with(context: Context, image: Array) -> Array:
    """Return the first level of an image, with the norms that were gathered."""
    context.set_grn(GRN_SCENE)
    return context.run(list(image))[0]


def scene(rng: np.random.Generator, height: int, width: int) -> Array:
    """Return imagery that is brighter on one side, so that it matters what counts how often."""
    image = image_of(2, height, width, int(rng.integers(99)))
    return (image * np.linspace(0.2, 4, width)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    overlap=st.sampled_from([0, 32]),
    holes=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_every_valid_pixel_counts_once(
    context: Context, height: int, width: int, overlap: int, holes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = scene(rng, CELL * height, CELL * width)
    for _ in range(holes):
        y, x = CELL * rng.integers(0, height), CELL * rng.integers(0, width)
        image[:, y : y + CELL * rng.integers(1, 30), x : x + CELL * rng.integers(1, 30)] = np.nan
    if not np.isfinite(image).any():
        return
    probe = image_of(2, TILE, TILE)
    context.set_grn(GRN_GATHER)
    streamed(context, image, overlap)
    found = first_level_with(context, probe)
    context.set_grn(GRN_GATHER)
    for tile in packed(image):
        context.run(list(tile))
    wanted = first_level_with(context, probe)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_a_tile_half_without_data_gives_its_valid_pixels(context: Context) -> None:
    """Of eosfm_context_run too, and of deeper levels: its own norms are of what is valid."""
    image = scene(np.random.default_rng(0), TILE, TILE)
    half = image.copy()
    half[:, :, TILE // 2 :] = np.nan
    twice = np.concatenate([image[:, :, : TILE // 2]] * 2, axis=2)
    probe = image_of(2, TILE, TILE)
    levels = []
    for one in (half, twice, image):
        context.set_grn(GRN_GATHER)
        context.run(list(np.ascontiguousarray(one)))
        context.set_grn(GRN_SCENE)
        levels.append(context.run(list(probe)))
    for mine, same, other in zip(*levels, strict=True):
        peak = np.abs(same).max()
        assert np.abs(mine - same).max() <= 1e-4 * peak
        assert np.abs(mine - other).max() > 1e-3 * peak


def test_an_image_without_a_valid_pixel_gathers_nothing(context: Context) -> None:
    context.set_grn(GRN_GATHER)
    context.run([np.full((TILE, TILE), np.nan, np.float32)] * 2)
    with pytest.raises(Exception, match="no norms of s0 were gathered"):
        context.set_grn(GRN_SCENE)
