"""Scenes of any length through libeosfm: rows go in, patches of blended features come out.

``eosfm_stream`` of ``runtime/include/eosfm.h``, which says how tiles are placed and blended.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref, c_float, c_int32, c_size_t, c_uint8, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.native import header
from eosfm_edge.native.binding import Context, Progress, run_options
from eosfm_edge.native.head import Head
from eosfm_edge.native.header import LEVELS

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class StreamBand:
    """The layout of a band's rows as they are pushed.

    Attributes:
        dtype: integers of 8, 16 or 32 bits, float32 or float64, in either byte order.
        step: pixels of the scene, in each direction, that one of this band covers.
        scale_offset: physical = stored * scale + offset; None: the bundle's, and its nodata. With
            them, what is nodata comes as NaN.
        origin: pixels of the scene by which the band's first row and column begin before the
            scene's, 0 to step - 1.
    """

    dtype: np.dtype[Any]
    step: int = 1
    scale_offset: tuple[float, float] | None = None
    origin: tuple[int, int] = (0, 0)

    def struct(self) -> header.StreamBand:
        """Return ``eosfm_stream_band``."""
        scale, offset = self.scale_offset or (1.0, 0.0)
        return header.StreamBand(
            dtype=header.DTYPES[self.dtype],
            step=self.step,
            calibrated=self.scale_offset is not None,
            scale=scale,
            offset=offset,
            row_origin=self.origin[0],
            column_origin=self.origin[1],
        )


@dataclass(frozen=True)
class PatchLevel:
    """A level's part of a patch; arrays are views that hold until the next patch.

    Attributes:
        features: (C, h, w), NaN where there is no data.
        valid: (h, w), the share of each cell's pixels that are valid.
        row: where it begins in the level of the scene.
        column: the same.
    """

    features: FloatArray
    valid: FloatArray
    row: int
    column: int


@dataclass(frozen=True)
class PatchMap:
    """A head's part of a patch; arrays are views that hold until the next patch.

    Attributes:
        outputs: (outputs, h, w), NaN where there is no data.
        classes: (h, w), codes, 255 where there is no data; None of a regression.
        row: where it begins in the answer for the scene.
        column: the same.
    """

    outputs: FloatArray
    classes: NDArray[np.uint8] | None
    row: int
    column: int


@dataclass(frozen=True)
class Patch:
    """The cells that one tile completes.

    Attributes:
        skipped: whether the tile was skipped, for want of valid pixels.
        tiles: of the stream so far.
        tiles_skipped: of them.
        present: whether each specialist is in the tile.
        levels: None for those that are not wanted.
        maps: of the stream's heads.
    """

    skipped: bool
    tiles: int
    tiles_skipped: int
    present: NDArray[np.bool_]
    levels: tuple[PatchLevel | None, ...]
    maps: tuple[PatchMap, ...]


class Stream:
    """A scene that is being run.

    Args:
        context: whose tiles' size it takes; not to be used for other things meanwhile.
        width: pixels of the scene's rows.
        bands: the model's, in order.
        overlap: pixels that neighbouring tiles share, a multiple of 32; -1: a quarter of a tile.
        halo: pixels along a tile's edges whose features are not used, a multiple of 32 up to half
            of the overlap.
        least_valid: share of a cell's pixels: with fewer that are valid it is nodata.
        skip_below: share of a tile's pixels: with fewer that are valid it is skipped.
        levels: which are wanted.
        heads: whose answers are wanted too.
        probabilities: the outputs of heads with classes are their probabilities.

    Raises:
        EosfmError: an option is not what it may be, or there is no memory.
    """

    def __init__(
        self,
        context: Context,
        width: int,
        bands: Sequence[StreamBand],
        *,
        overlap: int = -1,
        halo: int = 0,
        least_valid: float = 0.5,
        skip_below: float = 0.0,
        levels: Sequence[bool] = (True,) * header.LEVELS,
        heads: Sequence[Head] = (),
        probabilities: bool = False,
    ) -> None:
        self._context, self._bands, self._heads = context, tuple(bands), tuple(heads)
        self._widths = [-(-(width + band.origin[1]) // band.step) for band in bands]
        structs = (header.StreamBand * len(bands))(*(band.struct() for band in bands))
        options = header.StreamOptions(
            width=width,
            overlap=overlap,
            halo=halo,
            bands=structs,
            band_count=len(bands),
            least_valid=least_valid,
            skip_below=skip_below,
            levels=(c_int32 * header.LEVELS)(*map(int, levels)),
            heads=(header.StreamHead * len(heads))(
                *(
                    header.StreamHead(
                        head=head.handle, probabilities=probabilities and bool(head.classes)
                    )
                    for head in heads
                )
            ),
            head_count=len(heads),
        )
        self._library = header.library()
        size, self._handle = c_size_t(), c_void_p()
        context.checked(
            self._library.eosfm_context_get_stream_bytes(
                context.handle, byref(options), byref(size)
            )
        )
        context.checked(
            self._library.eosfm_stream_create(context.handle, byref(options), byref(self._handle))
        )
        self.bytes = size.value
        # The context must outlive its streams: the finalizer holds it, and it closes them first.
        self._closed = weakref.finalize(self, _destroy, self._handle, context)
        context.streams.add(self)

    def close(self) -> None:
        """Destroy the stream; patches that it gave are gone."""
        self._closed()
        self._handle = c_void_p()

    def push_rows(self, band: int, rows: NDArray[Any]) -> int:
        """Give the next rows of a band, (n, width); returns how many had room.

        Raises:
            UserError: they are not as wide, or of another dtype, than was said.
        """
        width, dtype = self._widths[band], self._bands[band].dtype
        if rows.ndim != 2 or rows.shape[1] != width or rows.dtype != dtype:
            raise UserError(
                f"the rows of band {band} are {rows.dtype} {rows.shape}",
                expected=f"{dtype} (n, {width})",
            )
        rows = np.ascontiguousarray(rows)
        return self._push(band, rows.ctypes.data, len(rows), rows.shape[1])

    def push_missing(self, band: int, count: int) -> int:
        """Say that the next rows of a band are missing; returns how many had room."""
        return self._push(band, None, count, 0)

    def patches(
        self,
        feed: Callable[[], bool],
        *,
        deadline_ms: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Patch]:
        """Run the tiles, from left to right and from top to bottom.

        Args:
            feed: called when there are too few rows: pushes some, or returns False if there are
                none.
            deadline_ms: of each tile: it is made of the specialists that are done by then.
            progress: of a tile, as for :meth:`Context.run`.

        Yields:
            What each tile completes.
        """
        present = np.zeros(self._context.specialists, np.uint8)
        while True:
            patch = header.Patch(len(self._heads))
            with run_options(deadline_ms, progress, present) as options:
                status = self._library.eosfm_stream_pull_patch(
                    self._handle, byref(options), byref(patch)
                )
            if status == header.END:
                return
            if status == header.AGAIN:
                if not feed():
                    self._context.checked(self._library.eosfm_stream_end(self._handle))
                continue
            self._context.checked(status)
            yield Patch(
                skipped=bool(patch.skipped),
                tiles=patch.tiles,
                tiles_skipped=patch.tiles_skipped,
                present=present.astype(np.bool_),
                levels=tuple(
                    _view(level, shape[0])
                    for level, shape in zip(
                        patch.levels[:LEVELS], self._context.shapes, strict=True
                    )
                ),
                maps=tuple(
                    _map_view(part, head)
                    for part, head in zip(patch.maps[: len(self._heads)], self._heads, strict=True)
                ),
            )

    def _push(self, band: int, address: int | None, count: int, width: int) -> int:
        taken = c_int32()
        self._context.checked(
            self._library.eosfm_stream_push_rows(
                self._handle, band, address, count, width, byref(taken)
            )
        )
        return taken.value


def tile_count(width: int, height: int, tile: int, overlap: int) -> int:
    """Return how many tiles cover a scene, in pixels."""
    across, down = (
        1 + max(0, -(-(length - tile) // (tile - overlap))) for length in (width, height)
    )
    return across * down


def _destroy(handle: c_void_p, context: Context) -> None:
    header.library().eosfm_stream_destroy(handle)


def _view(level: header.PatchLevel, channels: int) -> PatchLevel | None:
    if not level.data:
        return None
    plane = (level.height, level.width)
    return PatchLevel(
        features=_array(
            level.data, (channels, *plane), (level.channel_stride, level.row_stride, 1)
        ),
        valid=_array(level.valid, plane, (level.valid_stride, 1)),
        row=level.row,
        column=level.column,
    )


def _map_view(part: header.PatchMap, head: Head) -> PatchMap:
    plane = (part.height, part.width)
    classes = None
    if part.classes:
        size = (part.height - 1) * part.class_stride + part.width
        memory = (c_uint8 * size).from_address(part.classes)
        classes = np.lib.stride_tricks.as_strided(
            np.frombuffer(memoryview(memory), np.uint8),
            plane,
            (part.class_stride, 1),
            writeable=False,
        )
    return PatchMap(
        outputs=_array(
            part.outputs, (head.outputs, *plane), (part.channel_stride, part.row_stride, 1)
        ),
        classes=classes,
        row=part.row,
        column=part.column,
    )


def _array(address: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> FloatArray:
    floats = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    memory = (c_float * floats).from_address(address)
    byte_strides = [4 * stride for stride in strides]
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(memoryview(memory), np.float32), shape, byte_strides, writeable=False
    )
