"""Streams: against tiles that are placed, run and blended in numpy, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.chains import image_of, random_ensemble, spec_of, write
from support.speck import SHALLOW

from eosfm_edge.formats.precision import Precision
from eosfm_edge.native.binding import GRN_GATHER, Context, Model
from eosfm_edge.native.header import LEVELS, EosfmError
from eosfm_edge.native.stream import Patch, Stream, StreamBand
from eosfm_edge.network.deployed import Block, DeployedEncoder

Array = NDArray[np.float32]

TILE = 64
STRIDES = (4, 8, 16, 32)
FLOAT = np.dtype(np.float32)
NODATA = -7.0  # of the last band, see chains.py


class Mosaic:
    """The patches of a stream, put together."""

    def __init__(self, context: Context, size: tuple[int, int]) -> None:
        self.levels = [
            np.full((shape[0], *(cells(pixels, level) for pixels in size)), -9, np.float32)
            for level, shape in enumerate(context.shapes)
        ]
        self.valid = [np.full(level.shape[1:], -9, np.float32) for level in self.levels]
        self.times = [np.zeros(level.shape[1:], int) for level in self.levels]
        self.tiles = self.skipped = 0

    def add(self, patch: Patch) -> None:
        self.tiles, self.skipped = patch.tiles, patch.tiles_skipped
        for level, part in enumerate(patch.levels):
            if part is not None:
                height, width = part.valid.shape
                rows = slice(part.row, part.row + height)
                columns = slice(part.column, part.column + width)
                self.levels[level][:, rows, columns] = part.features
                self.valid[level][rows, columns] = part.valid
                self.times[level][rows, columns] += 1


@pytest.fixture(scope="session")
def context(specks: dict[str, Path]) -> Iterator[Context]:
    with Model(specks["fp32"]) as model:
        context = model.context(threads=2, width=TILE, height=TILE)
    with context:
        yield context


def cells(pixels: int, level: int) -> int:
    return -(-pixels // (4 << level))


def feeder(
    stream: Stream, bands: Sequence[NDArray[Any]], pushes: Sequence[int] = (17, 5, 64, 1)
) -> Callable[[], bool]:
    """Return what pushes so many rows of the bands in turn."""
    done, counts = [0] * len(bands), cycle(pushes)

    def feed() -> bool:
        before = sum(done)
        for index, band in enumerate(bands):
            done[index] += stream.push_rows(index, band[done[index] :][: next(counts)])
        return sum(done) > before  # or else a band has ended, and the others have no room

    return feed


def run(
    context: Context,
    bands: Sequence[NDArray[Any]],
    how: Sequence[StreamBand] | None = None,
    *,
    size: tuple[int, int] | None = None,
    pushes: Sequence[int] = (17, 5, 64, 1),
    **options: Any,
) -> Mosaic:
    """Stream bands, each (rows, columns)."""
    size = size or bands[0].shape
    stream = Stream(context, size[1], how or [StreamBand(band.dtype) for band in bands], **options)
    mosaic = Mosaic(context, size)
    for patch in stream.patches(feeder(stream, bands, pushes)):
        mosaic.add(patch)
    stream.close()
    for times, wanted in zip(mosaic.times, options.get("levels", [1] * LEVELS), strict=True):
        assert (times == int(wanted)).all(), "each cell is given once"
    return mosaic


def starts(length: int, overlap: int, tile: int) -> list[int]:
    step = tile - overlap
    count = 1 + max(0, -(-(length - tile) // step))
    return [i * step for i in range(count)]


def placed(start: int, length: int, tile: int) -> int:
    """Return where the tile is computed that starts there: the last ones are moved back."""
    return max(0, min(start, -(-(length - tile) // 32) * 32))


def shares(bad: NDArray[np.bool_], stride: int) -> Array:
    """Return each cell's share of valid pixels among those in the scene."""
    height, width = bad.shape
    padding = ((0, -height % stride), (0, -width % stride))
    shape = (-(-height // stride), stride, -(-width // stride), stride)
    good = np.pad(~bad, padding).reshape(shape).sum(axis=(1, 3))
    inside = np.pad(np.ones_like(bad), padding).reshape(shape).sum(axis=(1, 3))
    return (good / inside).astype(np.float32)


def ramp(cells: int, overlap: float, halo: float, before: bool, after: bool) -> NDArray[np.float64]:
    """Return weights that rise where there is a tile before, and fall where one is after.

    They do so over the overlap but for a halo at either end of it.
    """
    at, ends = np.arange(cells) + 0.5, [halo, max(overlap - halo, halo + 1e-9)]
    rising = np.interp(at, ends, [0, 1]) if before and overlap else np.ones(cells)
    falling = np.interp(cells - at, ends, [0, 1]) if after and overlap else np.ones(cells)
    return np.minimum(rising, falling)


def expected(context: Context, image: Array, overlap: int, halo: int = 0) -> Mosaic:
    """Do the same by hand; ``image`` has NaN where there is no data."""
    _, height, width = image.shape
    tile, least = 4 * context.shapes[0][1], 0.5
    mosaic = Mosaic(context, (height, width))
    bad = ~np.isfinite(image).all(axis=0)
    mosaic.valid = [shares(bad, stride) for stride in STRIDES]
    sums = [np.zeros(level.shape) for level in mosaic.levels]
    weights = [np.zeros(level.shape[1:]) for level in mosaic.levels]
    for top, left in product(starts(height, overlap, tile), starts(width, overlap, tile)):
        mosaic.tiles += 1
        y, x = placed(top, height, tile), placed(left, width, tile)
        if not any(
            (share[y // stride :, x // stride :][: tile // stride, : tile // stride] >= least).any()
            for share, stride in zip(mosaic.valid, STRIDES, strict=True)
        ):
            mosaic.skipped += 1
            continue
        part = np.where(bad, np.nan, image)[:, y : y + tile, x : x + tile]
        beyond = ((0, 0), *((0, tile - n) for n in part.shape[1:]))
        levels = context.run(list(np.pad(part, beyond, mode="symmetric")))
        for features, stride, total, weight in zip(levels, STRIDES, sums, weights, strict=True):
            n = tile // stride
            sides = (overlap / stride, halo / stride)
            down = ramp(n, *sides, top > 0, top < starts(height, overlap, tile)[-1])
            across = ramp(n, *sides, left > 0, left < starts(width, overlap, tile)[-1])
            computed = features[:, (top - y) // stride :, (left - x) // stride :]
            view = total[:, top // stride :, left // stride :]
            view = view[:, : computed.shape[1], : computed.shape[2]]
            rows, columns = view.shape[1:]
            both = np.outer(down[:rows], across[:columns])
            view += both * computed[:, :rows, :columns]
            weight[top // stride :, left // stride :][:rows, :columns] += both
    for level, share, total, weight in zip(mosaic.levels, mosaic.valid, sums, weights, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            level[:] = total / weight
        level[:, share < least] = np.nan
    return mosaic


def assert_same(found: Mosaic, wanted: Mosaic) -> None:
    assert (found.tiles, found.skipped) == (wanted.tiles, wanted.skipped)
    for mine, theirs in zip(found.valid, wanted.valid, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    for mine, theirs in zip(found.levels, wanted.levels, strict=True):
        np.testing.assert_allclose(
            mine, theirs, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(theirs), initial=1)
        )


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 230),
    width=st.integers(1, 230),
    overlap=st.sampled_from([0, 32]),
    seed=st.integers(0, 99),
    pushes=st.lists(st.integers(1, 90), min_size=1, max_size=5),
)
def test_what_tiles_blended_in_numpy_give(
    context: Context, height: int, width: int, overlap: int, seed: int, pushes: list[int]
) -> None:
    image = image_of(2, height, width, seed)
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(0, 4)):
        y, x = rng.integers(0, height), rng.integers(0, width)
        image[rng.integers(0, 2), y : y + rng.integers(1, 99), x : x + rng.integers(1, 99)] = np.nan
    assert_same(
        run(context, list(image), pushes=pushes, overlap=overlap), expected(context, image, overlap)
    )


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 230),
    width=st.integers(1, 230),
    halo=st.sampled_from([0, 32]),
    seed=st.integers(0, 99),
)
def test_what_lies_in_halos_is_not_used(
    specks: dict[str, Path], height: int, width: int, halo: int, seed: int
) -> None:
    image = image_of(2, height, width, seed)
    with Model(specks["fp32"]) as model, model.context(width=96, height=96) as context:
        found = run(context, list(image), overlap=64, halo=halo)
        assert_same(found, expected(context, image, 64, halo))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_tiles_are_a_whole_scene_where_grn_is_static(tmp_path: Path, precision: Precision) -> None:
    """With a halo as wide as the network looks: 12 + 24 + 48 + 96 pixels, and to the grid."""
    spec = spec_of((2, 2), 2, backbone=SHALLOW, fusion="conv1x1")
    ensemble = random_ensemble(spec, fused=(8, 9, 10, 11))
    image = image_of(2, 640, 832, seed=3)
    bundle = write(tmp_path / "b", ensemble, 64, precision, make_static, seen=image)
    with (
        Model(bundle) as model,
        model.context(width=448, height=448, threads=2) as tiled,
        model.context(width=832, height=640, threads=2) as whole,
    ):
        levels = whole.run(list(image))
        with_halo = run(tiled, list(image), overlap=384, halo=192)
        without = run(tiled, list(image), overlap=384)
    assert with_halo.tiles == 4 * 7
    for one, none, other in zip(with_halo.levels, without.levels, levels, strict=True):
        peak = np.abs(other).max()
        assert np.abs(one - other).max() <= 2e-6 * peak
        assert np.abs(none - other).max() > 2e-6 * peak


def make_static(encoder: DeployedEncoder) -> None:
    for step in encoder.steps():
        if isinstance(step.module, Block):
            step.module.grn.static = True


@pytest.mark.parametrize("pushes", [[1], [3, 200, 7], [500]])
def test_the_bits_do_not_depend_on_how_rows_come(context: Context, pushes: list[int]) -> None:
    image = list(image_of(2, 161, 130))
    one, other = run(context, image), run(context, image, pushes=pushes)
    for mine, theirs in zip(one.levels, other.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_tiles_that_overlap_by_more_than_half(specks: dict[str, Path]) -> None:
    with Model(specks["fp32"]) as model, model.context(width=96, height=96) as context:
        image = image_of(2, 200, 260)
        blended = run(context, list(image), overlap=64)
        alone = context.run(list(np.ascontiguousarray(image[:, :96, :96])))
    assert blended.tiles == (1 + -(-104 // 32)) * (1 + -(-164 // 32))
    # The first 32 pixels are of one tile only.
    for mine, theirs in zip(blended.levels, alone, strict=True):
        side = 32 * theirs.shape[1] // 96
        np.testing.assert_allclose(mine[:, :side, :side], theirs[:, :side, :side], rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(st.sampled_from([1, 2, 3, 6]), min_size=2, max_size=2),
    height=st.integers(1, 30),
    width=st.integers(60, 200),
)
def test_coarser_bands_are_resampled_on_the_way(
    context: Context, steps: list[int], height: int, width: int
) -> None:
    height *= 6  # a scene ends where its shortest band does
    coarse = [
        image_of(1, height // step, -(-width // step), step)[0].astype(np.float32) for step in steps
    ]
    fine = [
        np.repeat(np.repeat(band, step, axis=0), step, axis=1)[:, :width]
        for band, step in zip(coarse, steps, strict=True)
    ]
    how = [StreamBand(FLOAT, step) for step in steps]
    found = run(context, coarse, how, size=(height, width))
    wanted = run(context, fine)
    for mine, theirs in zip(found.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_integers_are_read_as_they_are(context: Context, dtype: str) -> None:
    image = np.random.default_rng(0).integers(0, 200, (2, 130, 90)).astype(dtype)
    found = run(context, list(image))
    wanted = run(context, list(image.astype(np.float32)))
    for mine, theirs in zip(found.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_other_scales_are_brought_to_the_bundle_s(
    context: Context, specks: dict[str, Path]
) -> None:
    image = image_of(2, 100, 100)
    with Model(specks["fp32"]) as model:
        own = [(band.scale, band.offset) for band in (model.band(0), model.band(1))]
    how = [StreamBand(FLOAT, scale_offset=(2 * scale, offset)) for scale, offset in own]
    found = run(context, list(image / 2), how)
    wanted = run(context, list(image))
    for mine, theirs in zip(found.levels, wanted.levels, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_the_bundle_s_nodata_is_known(context: Context) -> None:
    image = image_of(2, 100, 100)
    marked, absent = image.copy(), image.copy()
    marked[1, 20:70, 30:80] = NODATA
    absent[:, 20:70, 30:80] = np.nan
    found, wanted = run(context, list(marked)), run(context, list(absent))
    assert np.isnan(found.levels[0]).any()
    for mine, theirs in zip(found.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_missing_rows_are_nodata(context: Context) -> None:
    image = image_of(2, 200, 100)
    absent = image.copy()
    absent[:, 90:130] = np.nan
    wanted = run(context, list(absent))
    stream = Stream(context, 100, [StreamBand(FLOAT)] * 2)
    mosaic = Mosaic(context, (200, 100))
    rows = iter(range(200))

    def feed() -> bool:
        row = next(rows, None)
        if row is None:
            return False
        assert stream.push_rows(0, image[0, row : row + 1]) == 1
        if 90 <= row < 130:
            assert stream.push_missing(1, 1) == 1
        else:
            assert stream.push_rows(1, image[1, row : row + 1]) == 1
        return True

    for patch in stream.patches(feed):
        mosaic.add(patch)
    stream.close()
    for mine, theirs in zip(mosaic.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_tiles_with_too_little_are_skipped(context: Context) -> None:
    image = image_of(2, 64, 64 + 4 * 32)
    image[:, :, 96:] = np.nan
    image[:, :8, 96:] = 1  # one eighth of what follows
    assert run(context, list(image), overlap=32).skipped == 0
    scarce = run(context, list(image), overlap=32, skip_below=0.2)
    assert (scarce.tiles, scarce.skipped) == (5, 2)
    assert not np.isnan(scarce.levels[0][:, 0, :24]).any()
    assert np.isnan(scarce.levels[0][:, 0, 32:]).all(), "no tile has them"


def test_only_the_levels_that_are_wanted_are_given(context: Context) -> None:
    image = list(image_of(2, 130, 130))
    every = run(context, image)
    some = run(context, image, levels=[False, True, False, True])
    np.testing.assert_array_equal(some.levels[1], every.levels[1])
    np.testing.assert_array_equal(some.levels[3], every.levels[3])
    with_all = Stream(context, 130, [StreamBand(FLOAT)] * 2)
    with_some = Stream(context, 130, [StreamBand(FLOAT)] * 2, levels=[False, False, False, True])
    assert with_some.bytes < with_all.bytes
    with_all.close()
    with_some.close()


def test_memory_is_a_matter_of_the_width(context: Context) -> None:
    narrow, wide = (
        Stream(context, width, [StreamBand(np.dtype(np.uint16))] * 2) for width in (100, 1100)
    )
    per_column = (wide.bytes - narrow.bytes) / 1000
    channels = [shape[0] + 1 for shape in context.shapes]
    # Rows of pixels, and of cells of the overlap: 32 pixels of it.
    strip = sum(c * (32 / s) / s * 4 for c, s in zip(channels, (4, 8, 16, 32), strict=True))
    assert per_column == pytest.approx(2 * (TILE + 2) * 2 + strip, rel=0.05)
    narrow.close()
    wide.close()


def test_a_band_takes_no_more_than_there_is_room_for(context: Context) -> None:
    stream = Stream(context, 70, [StreamBand(FLOAT)] * 2)
    rows = np.zeros((500, 70), np.float32)
    assert TILE < stream.push_rows(0, rows) < 2 * TILE
    assert stream.push_rows(0, rows) == 0
    stream.close()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_uneven_ends_and_origins_give_what_the_scene_on_one_grid_gives(
    context: Context, data: st.DataObject
) -> None:
    """However the bands end, begin and are pushed: the scene ends where its shortest band does."""
    height, width = data.draw(st.integers(1, 250)), data.draw(st.integers(1, 150))
    bands, how, fine = [], [], []
    for number in range(2):
        step = data.draw(st.sampled_from([1, 2, 3, 6, 50]))
        origin = (data.draw(st.integers(0, step - 1)), data.draw(st.integers(0, step - 1)))
        shortest = -(-(height + origin[0]) // step)
        rows = shortest + data.draw(st.integers(0, 130) if number else st.just(0))
        columns = -(-(width + origin[1]) // step)
        band = image_of(1, rows, columns, seed=step + number)[0]
        bands.append(band)
        how.append(StreamBand(FLOAT, step, origin=origin))
        spread = np.repeat(np.repeat(band, step, axis=0), step, axis=1)
        fine.append(spread[origin[0] :, origin[1] : origin[1] + width])
    ends = min(len(band) for band in fine)
    if data.draw(st.booleans()):
        bands, how, fine = bands[::-1], how[::-1], fine[::-1]
    pushes = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    overlap = data.draw(st.sampled_from([0, 32]))
    found = run(context, bands, how, size=(ends, width), pushes=pushes, overlap=overlap)
    even = [np.ascontiguousarray(band[:ends]) for band in fine]
    wanted = run(context, even, pushes=[ends], overlap=overlap)
    for mine, theirs in zip(found.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_tile_that_was_cancelled_is_the_next_one_still(specks: dict[str, Path]) -> None:
    with Model(specks["fp32"]) as model, model.context(threads=1, width=64, height=64) as context:
        image = list(image_of(2, 130, 130))
        wanted = run(context, image)
        stream = Stream(context, 130, [StreamBand(FLOAT)] * 2)
        mosaic, tiles, cancelled = Mosaic(context, (130, 130)), 0, 0
        feed = feeder(stream, image)
        while tiles < wanted.tiles:
            stop = tiles == cancelled
            try:
                patch = next(stream.patches(feed, progress=lambda *_, stop=stop: stop))
            except EosfmError as error:
                assert "cancelled" in str(error)
                cancelled += 1
                continue
            mosaic.add(patch)
            tiles += 1
        stream.close()
    assert cancelled == wanted.tiles == 16
    for mine, theirs in zip(mosaic.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("width", "options", "sentence"),
    [
        (0, {}, "the scene is 0 pixels wide"),
        (1 << 21, {}, "expected 1 to 1048576"),
        (100, {"overlap": 16}, "the overlap is 16 pixels"),
        (100, {"overlap": 64}, "from 0 to 32"),
        (100, {"least_valid": float("nan")}, "least_valid is nan"),
        (100, {"skip_below": 1.5}, "skip_below 1.5"),
        (100, {"bands": 3}, "the scene has 3 bands, expected 2"),
        (100, {"step": -1}, "a step of -1 pixels"),
        (100, {"step": 65}, "expected 1 to 64"),
        (100, {"step": 2, "origin": (2, 0)}, "begins 2 rows and 0 columns before the scene"),
        (100, {"origin": (0, -1)}, "expected 0 to 0, less than its step"),
        (100, {"scale_offset": (0.0, 1.0)}, "no scale of 0"),
    ],
)
def test_what_cannot_be_is_refused(
    context: Context, width: int, options: dict[str, Any], sentence: str
) -> None:
    band = {key: options.pop(key) for key in ("step", "scale_offset", "origin") if key in options}
    bands = [StreamBand(FLOAT)] * options.pop("bands", 2)
    bands[1] = StreamBand(FLOAT, **band)
    with pytest.raises(EosfmError, match=sentence):
        Stream(context, width, bands, **options)


def test_values_that_are_not_finite_are_no_nodata(tmp_path: Path) -> None:
    ensemble = random_ensemble(spec_of((2,), 2, backbone="speck", normalisation="none"))
    with torch.no_grad():
        for name, parameter in ensemble.encoders[0].named_parameters():
            if name.startswith("stem_0"):
                parameter.mul_(1e3)  # a layer norm follows
    bundle = write(tmp_path / "bundle", ensemble, 64, "fp32")
    with Model(bundle) as model, model.context() as context:
        with pytest.raises(EosfmError, match=r"the tile at column 0, .* not finite") as refused:
            run(context, [np.full((64, 64), 3e38, np.float32)] * 2)
        assert refused.value.status == 9


def test_an_engine_of_the_host_s_own_computes(context: Context, specks: dict[str, Path]) -> None:
    image = list(image_of(2, 130, 90))
    image[1][40:70, 10:50] = np.nan
    wanted = run(context, image)
    with (
        Model(specks["fp32"]) as model,
        model.context(lambda tile: context.run(list(tile)), width=TILE, height=TILE) as hosted,
    ):
        found = run(hosted, image)
        with pytest.raises(EosfmError, match="runs all specialists"):
            hosted.set_active([True, False])
        with pytest.raises(EosfmError, match="over each image"):
            hosted.set_grn(GRN_GATHER)
    for mine, theirs in zip(found.levels, wanted.levels, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_engine_s_failure_is_raised(specks: dict[str, Path]) -> None:
    def fail(_: Array) -> list[Array]:
        raise ZeroDivisionError("on purpose")

    with (
        Model(specks["fp32"]) as model,
        model.context(fail, width=TILE, height=TILE) as hosted,
        pytest.raises(ZeroDivisionError, match="on purpose"),
    ):
        run(hosted, list(image_of(2, 64, 64)))


def test_a_context_closes_its_streams_first(specks: dict[str, Path]) -> None:
    # Streams that an error's traceback keeps alive are destroyed when it goes, long afterwards.
    with Model(specks["fp32"]) as model:
        context = model.context()
        stream = Stream(context, 96, [StreamBand(FLOAT)] * 2)
        stream.push_rows(0, np.zeros((8, 96), np.float32))
        context.close()
        with pytest.raises(EosfmError):
            stream.push_rows(0, np.zeros((8, 96), np.float32))
        stream.close()
