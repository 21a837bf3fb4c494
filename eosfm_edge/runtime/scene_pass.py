"""A scene, once through a context: its bands are read and pushed as the stream wants them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from eosfm_edge.errors import CheckFailedError
from eosfm_edge.native.binding import Context
from eosfm_edge.native.head import Head
from eosfm_edge.native.header import LEVELS, NOT_FINITE, EosfmError
from eosfm_edge.native.stream import Patch, Stream, StreamBand, tile_count
from eosfm_edge.scene.reading import FloatImage
from eosfm_edge.scene.scene import Scene

# A cell with fewer of its pixels valid than this becomes nodata.
LEAST_VALID_SHARE = 0.5

# Of the finest bands. They wait in memory, so not many.
ROWS_AT_ONCE = 48


@dataclass(frozen=True)
class Tiling:
    """The tiling of a scene, in pixels.

    Attributes:
        size: of a tile's side.
        overlap: that neighbouring tiles share.
        halo: along a tile's edges, whose features are not used.
    """

    size: int
    overlap: int
    halo: int

    def tiles(self, scene: Scene) -> int:
        """Return how many tiles a scene has."""
        return tile_count(scene.width, scene.height, self.size, self.overlap)


class ScenePass:
    """The scene, once through a context.

    Args:
        context: that computes.
        scene: that is read.
        tiling: how it is cut.
        levels: which are wanted.
        heads: whose answers are wanted too.
        probabilities: the outputs of heads with classes are their probabilities.

    Attributes:
        tiles: that it has.
        skipped: tiles without enough valid pixels.
        seconds: that it took to compute, without reading the scene or using the patches.
    """

    def __init__(
        self,
        context: Context,
        scene: Scene,
        tiling: Tiling,
        *,
        levels: Sequence[bool] = (True,) * LEVELS,
        heads: Sequence[Head] = (),
        probabilities: bool = False,
    ) -> None:
        self._context, self._scene, self._tiling = context, scene, tiling
        self.tiles = tiling.tiles(scene)
        self._levels, self._heads, self._probabilities = levels, heads, probabilities
        self.skipped, self.seconds = 0, 0.0

    def patches(self, progress: Callable[[int], None]) -> Iterator[Patch]:
        """Give what each tile completes; progress is told how many tiles are done."""
        rows = [_Rows(self._scene, index) for index in range(len(self._scene.grids))]
        stream = Stream(
            self._context,
            self._scene.width,
            [band.how for band in rows],
            overlap=self._tiling.overlap,
            halo=self._tiling.halo,
            least_valid=LEAST_VALID_SHARE,
            levels=self._levels,
            heads=self._heads,
            probabilities=self._probabilities,
        )

        def feed() -> bool:
            started = time.monotonic()
            for index, band in enumerate(rows):
                band.give(partial(stream.push_rows, index))
            self.seconds -= time.monotonic() - started
            return any(not band.done for band in rows)

        try:
            patches = stream.patches(feed)
            for done in range(self.tiles):
                progress(done)
                started = time.monotonic()
                with not_finite_is_a_failed_check(self._context):
                    patch = next(patches)
                self.seconds += time.monotonic() - started
                self.skipped = patch.tiles_skipped
                yield patch
            progress(self.tiles)
        finally:
            stream.close()


class _Rows:
    """A band of the scene, some rows at a time."""

    def __init__(self, scene: Scene, index: int) -> None:
        self._scene, self._index = scene, index
        self._at, self._end = 0, scene.row_count(index)
        grid = scene.grids[index]
        self._step = grid.step
        self._waiting: FloatImage | None = None
        self.how = StreamBand(
            np.dtype(np.float32),
            grid.step,
            scale_offset=scene.scale_offset(index),
            origin=(grid.row_origin, grid.column_origin),
        )

    @property
    def done(self) -> bool:
        """True once all rows have been given."""
        return self._waiting is None and self._at == self._end

    def give(self, push: Callable[[FloatImage], int]) -> None:
        """Give what there is room for."""
        if self._waiting is None:
            count = min(max(1, ROWS_AT_ONCE // self._step), self._end - self._at)
            if count == 0:
                return
            self._waiting = self._scene.rows(self._index, self._at, count)
            self._at += count
        taken = push(self._waiting)
        self._waiting = self._waiting[taken:] if taken < len(self._waiting) else None


@contextmanager
def not_finite_is_a_failed_check(context: Context) -> Iterator[None]:
    """Blame the bundle if its known answer does not come out either, and else the scene."""
    try:
        yield
    except EosfmError as error:
        if error.status != NOT_FINITE:
            raise
        is_right, _ = context.verify()
        if is_right:
            raise CheckFailedError(
                str(error), remedy="look at the scene's values there, and at its scale and offset"
            ) from error
        raise CheckFailedError(
            f"the bundle is damaged: it does not give its known answer here, and {error}",
            remedy="transfer or export the bundle again",
        ) from error
