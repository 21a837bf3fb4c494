"""Pixels as hosts hold them: every dtype, byte order, step, origin and mask, against numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_int32, c_void_p, pointer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eosfm_edge.native import header
from eosfm_edge.native.binding import Context, Model
from eosfm_edge.native.header import LEVELS, OK

BAD_ARGUMENT, MASK = 1, -1
SIDE, BANDS = 32, 2
SCALES, OFFSETS, FILLS, BUNDLE_NODATA = (0.5, 0.6), (0.0, 0.01), (0.0, 3.0), (None, -7.0)

dtypes = st.sampled_from(sorted(header.DTYPES, key=str))
Array = NDArray[np.float32]


class Seen:
    """A context whose engine keeps what it is given to compute: stored values, filled."""

    def __init__(self, model: Model) -> None:
        self.images: list[Array] = []
        self.context: Context = model.context(compute=self.compute, threads=2)

    def compute(self, image: Array) -> list[Array]:
        self.images.append(image.copy())
        return [np.zeros(shape, np.float32) for shape in self.context.shapes]

    def sentence(self) -> str:
        text: bytes = header.library().eosfm_context_get_error(self.context.handle)
        return text.decode()


@pytest.fixture(scope="module")
def seen(specks: dict[str, Path]) -> Iterator[Seen]:
    with Model(specks["fp32"]) as model:
        watching = Seen(model)
    with watching.context:
        yield watching


class HostBand:
    """Some random pixels of a dtype, and how a host would describe them."""

    def __init__(self, draw: st.DrawFn, index: int, dtype: np.dtype[Any]) -> None:
        self.index = index
        self.step = draw(st.integers(1, 3))
        self.origin = [draw(st.integers(0, self.step - 1)) for _ in range(2)]
        rows, columns = (-(-(SIDE + origin) // self.step) for origin in self.origin)
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        native = dtype.newbyteorder("=")
        if native.kind == "f":
            values = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-3, 6)
            special: list[Any] = [np.nan, np.inf, -9999.9, 0.1]
        else:
            bounds = np.iinfo(native)
            values = rng.integers(bounds.min, bounds.max, (rows, columns), endpoint=True)
            special = [bounds.min, bounds.max, bounds.max - 1, 1]
        pixels = values.astype(native)
        for value in special:
            pixels[rng.random(pixels.shape) < 0.02] = value
        self.pixels = pixels.astype(dtype)
        self.calibrated = draw(st.booleans())
        self.scale, self.offset = (0.25, -3.0) if self.calibrated else (1.0, 0.0)
        self.nodata: float | None = None
        if self.calibrated and draw(st.booleans()):
            self.nodata = float(draw(st.sampled_from([v for v in special if v == v])))
        # Views as hosts have them: from the bottom up, or with room between pixels and rows.
        self.spread = draw(st.sampled_from([1, 2]))
        self.upside_down = draw(st.booleans())

    def view(self) -> NDArray[Any]:
        rows, columns = self.pixels.shape
        room = np.zeros((rows, columns * self.spread + 3), self.pixels.dtype)
        into = room[:, : columns * self.spread : self.spread]
        into[:] = self.pixels[::-1] if self.upside_down else self.pixels
        return into[::-1] if self.upside_down else into

    def fields(self, view: NDArray[Any]) -> dict[str, Any]:
        return {
            "dtype": header.DTYPES[self.pixels.dtype],
            "row_stride": view.strides[0],
            "column_stride": view.strides[1],
            "calibrated": self.calibrated,
            "scale": self.scale,
            "offset": self.offset,
            "has_nodata": self.nodata is not None,
            "nodata": self.nodata or 0.0,
            "step": self.step,
            "row_origin": self.origin[0],
            "column_origin": self.origin[1],
        }

    def expected(self) -> tuple[Array, NDArray[np.bool_]]:
        """Return values as the bundle's sensor stores them, and which are no data."""
        rows, columns = ((np.arange(SIDE) + origin) // self.step for origin in self.origin)
        stored = self.pixels[rows][:, columns].astype(self.pixels.dtype.newbyteorder("="))
        values = stored.astype(np.float64)
        if self.calibrated:
            values = (values * self.scale + self.offset - OFFSETS[self.index]) / SCALES[self.index]
        with np.errstate(over="ignore", invalid="ignore"):
            given = values.astype(np.float32)
        bad = ~np.isfinite(given)
        if self.nodata is not None:
            bad |= stored == stored.dtype.type(self.nodata)
        bundle = BUNDLE_NODATA[self.index]
        if not self.calibrated and bundle is not None:
            bad |= stored.astype(np.float32) == np.float32(bundle)
        return given, bad


def expected_of(bands: list[HostBand], mask: NDArray[np.uint8] | None) -> Array:
    values, bad = zip(*(band.expected() for band in bands), strict=True)
    anywhere = np.logical_or.reduce(bad)
    if mask is not None:
        anywhere |= mask == 0
    return np.stack([np.where(anywhere, f, v) for f, v in zip(FILLS, values, strict=True)])


def assert_close(found: Array, expected: Array) -> None:
    """To float32's rounding: a scale of 0.25 / 0.6 is none that both have to the bit."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def random_mask(draw: st.DrawFn, height: int, width: int) -> NDArray[np.uint8] | None:
    if not draw(st.booleans()):
        return None
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return np.asarray(rng.integers(0, 3, (height, width)) * 100, np.uint8)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), types=st.tuples(dtypes, dtypes))
def test_images_are_read_as_numpy_reads_them(
    seen: Seen, data: st.DataObject, types: tuple[np.dtype[Any], ...]
) -> None:
    bands = [band_of(data, i, t) for i, t in enumerate(types)]
    mask = random_mask(data.draw, SIDE, SIDE)
    spaced = np.zeros((SIDE, 2 * SIDE), np.uint8)[:, ::2]
    views = [band.view() for band in bands]
    structs = (header.Band * BANDS)(
        *(
            header.Band(data=view.ctypes.data, **band.fields(view))
            for band, view in zip(bands, views, strict=True)
        )
    )
    image = header.Image(bands=structs, band_count=BANDS)
    if mask is not None:
        spaced[:] = mask
        image.mask, image.mask_column_stride = spaced.ctypes.data, 2
    run(seen, image)
    assert_close(seen.images[-1], expected_of(bands, mask))


def band_of(data: st.DataObject, index: int, dtype: np.dtype[Any]) -> HostBand:
    return HostBand(data.draw, index, dtype)


def run(seen: Seen, image: header.Image) -> None:
    levels = (header.Level * LEVELS)(*(header.Level() for _ in range(LEVELS)))
    status = header.library().eosfm_context_run(seen.context.handle, byref(image), levels, None)
    assert status == OK, seen.sentence()


def stream_of(
    seen: Seen, bands: list[Any], mask: header.StreamBand | None = None, width: int = SIDE
) -> c_void_p:
    options = header.StreamOptions(
        width=width, overlap=0, bands=(header.StreamBand * len(bands))(*bands),
        band_count=len(bands), levels=(c_int32 * LEVELS)(1, 1, 1, 1),
    )  # fmt: skip
    if mask is not None:
        options.mask = pointer(mask)
    handle = c_void_p()
    status = header.library().eosfm_stream_create(
        seen.context.handle, byref(options), byref(handle)
    )
    assert status == OK, seen.sentence()
    return handle


@settings(max_examples=60, deadline=None)
@given(data=st.data(), types=st.tuples(dtypes, dtypes))
def test_streams_are_read_as_numpy_reads_them(
    seen: Seen, data: st.DataObject, types: tuple[np.dtype[Any], ...]
) -> None:
    bands = [band_of(data, i, t) for i, t in enumerate(types)]
    step = data.draw(st.integers(1, 2))
    coarse = random_mask(data.draw, SIDE // step, SIDE // step)
    views = [band.view() for band in bands]
    how = [header.StreamBand(**band.fields(view)) for band, view in zip(bands, views, strict=True)]
    mask_how = None if coarse is None else header.StreamBand(dtype=0, step=step)
    handle = stream_of(seen, how, mask_how)
    pushed = [(index, view) for index, view in enumerate(views)]
    if coarse is not None:
        pushed.append((MASK, coarse))
    for index, view in pushed:
        for at in range(0, len(view), 7):
            rows, taken = view[at : at + 7], c_int32()
            status = header.library().eosfm_stream_push_rows(
                handle, index, rows.ctypes.data, len(rows), rows.shape[1], byref(taken)
            )
            assert (status, taken.value) == (OK, len(rows)), seen.sentence()
    mask = None if coarse is None else coarse.repeat(step, 0).repeat(step, 1)
    expected = expected_of(bands, mask)
    patch = header.Patch()
    header.library().eosfm_stream_end(handle)
    before = len(seen.images)
    status = header.library().eosfm_stream_pull_patch(handle, None, byref(patch))
    header.library().eosfm_stream_destroy(handle)
    assert status == OK, seen.sentence()
    if not patch.skipped:
        assert_close(seen.images[-1], expected)
    else:
        assert len(seen.images) == before


def test_nodata_is_compared_as_the_dtype_holds_it(seen: Seen) -> None:
    """A float32 of -9999.9 is not the double of that name; the largest uint32 is no float32."""
    for values, nodata, bad in (
        (np.float32([-9999.9, -9999.8]), -9999.9, [True, False]),
        (np.float64([-9999.9, np.float32(-9999.9)]), -9999.9, [True, False]),
        (np.uint32([2**32 - 1, 2**32 - 2]), 2**32 - 1, [True, False]),
        (np.int32([-(2**31), 1 - 2**31]), -(2**31), [True, False]),
        (np.int8([-128, 127]), -128, [True, False]),
        (np.uint16([0, 65535]), 65535.2, [False, False]),
    ):
        plane = np.resize(values, (SIDE, SIDE))
        zeros = np.zeros_like(plane)
        structs = [
            header.Band(
                data=array.ctypes.data, dtype=header.DTYPES[array.dtype], calibrated=1, scale=0.6,
                offset=0.01, has_nodata=1, nodata=nodata, row_stride=array.strides[0],
                column_stride=array.strides[1],
            )
            for array in (zeros, plane)
        ]  # fmt: skip
        image = header.Image(bands=(header.Band * 2)(*structs), band_count=2)
        run(seen, image)
        np.testing.assert_array_equal(seen.images[-1][1, 0, :2] == 3.0, bad)


@pytest.mark.parametrize("width", [322, 324, 0, -1])
def test_rows_of_another_length_are_refused(seen: Seen, width: int) -> None:
    """A scene of 323 pixels whose rows hold 322 would shear, and look plausible."""
    fine, coarse = header.StreamBand(dtype=1, step=1), header.StreamBand(dtype=1, step=2)
    handle = stream_of(seen, [fine, coarse], width=323)
    rows, taken = np.zeros((4, 330), np.uint16), c_int32(7)
    push = header.library().eosfm_stream_push_rows
    assert push(handle, 0, rows.ctypes.data, 4, width, byref(taken)) == BAD_ARGUMENT
    expected = f"gets rows of {width} pixels, expected 323, which cover the scene's 323"
    assert expected in seen.sentence()
    assert push(handle, 1, rows.ctypes.data, 4, 161, byref(taken)) == BAD_ARGUMENT
    assert "gets rows of 161 pixels, expected 162" in seen.sentence()
    assert taken.value == 7
    assert push(handle, 0, rows.ctypes.data, 4, 323, byref(taken)) == OK
    assert push(handle, 1, rows.ctypes.data, 2, 162, byref(taken)) == OK
    header.library().eosfm_stream_destroy(handle)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"dtype": 8}, "a dtype that is not known"),
        ({"dtype": 256 + 8}, "a dtype that is not known"),
        ({"dtype": 512}, "a dtype that is not known"),
        ({"step": 0}, "a step of 0 pixels"),
        ({"step": 2, "row_origin": 2}, "begins 2 rows"),
        ({"column_origin": -1}, "-1 columns"),
        ({"dtype": 7, "row_stride": 4 * SIDE}, "is not aligned to its 8-byte pixels"),
    ],
)
def test_bands_that_cannot_be_are_refused(seen: Seen, wrong: dict[str, int], sentence: str) -> None:
    plane = np.zeros((SIDE, 2 * SIDE), np.float32)
    fields = {"dtype": 3, "row_stride": 4 * SIDE, "column_stride": 4}
    if wrong.get("dtype") == 7:
        fields["column_stride"] = 12
    bands = (header.Band * 2)(
        *(header.Band(data=plane.ctypes.data, **{**fields, **wrong}) for _ in range(2))
    )
    image = header.Image(bands=bands, band_count=2)
    levels = (header.Level * LEVELS)(*(header.Level() for _ in range(LEVELS)))
    status = header.library().eosfm_context_run(seen.context.handle, byref(image), levels, None)
    assert status == BAD_ARGUMENT
    assert sentence in seen.sentence()


def test_a_mask_that_cannot_be_is_refused(seen: Seen) -> None:
    bands = (header.StreamBand * 2)(*(header.StreamBand(dtype=1, step=1) for _ in range(2)))
    options = header.StreamOptions(width=SIDE, overlap=0, bands=bands, band_count=2)
    for mask, sentence in (
        (header.StreamBand(dtype=3, step=1), "the mask has the dtype 3, expected EOSFM_U8 (0)"),
        (header.StreamBand(dtype=0, step=99), "(mask) has a step of 99 pixels"),
    ):
        options.mask = ctypes.pointer(mask)
        handle = c_void_p()
        status = header.library().eosfm_stream_create(
            seen.context.handle, byref(options), byref(handle)
        )
        assert status == BAD_ARGUMENT
        assert sentence in seen.sentence()
    handle = stream_of(seen, list(bands))
    taken, row = c_int32(), np.zeros((1, SIDE), np.uint8)
    status = header.library().eosfm_stream_push_rows(
        handle, MASK, row.ctypes.data, 1, SIDE, byref(taken)
    )
    header.library().eosfm_stream_destroy(handle)
    assert status == BAD_ARGUMENT
    assert "was begun without a mask" in seen.sentence()
