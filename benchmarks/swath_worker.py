"""A scene that streams, tile by tile, for benchmarks/swath.py: `swath_worker.py BUNDLE SCENE SIDE`.

SCENE is an .npz of bands at their own resolutions, with their steps; it is mirrored until it is
SIDE x SIDE pixels. A run is one tile: its rows are read and resampled, it is computed and blended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.native.binding import Model
from eosfm_edge.native.stream import Stream, StreamBand
from eosfm_edge.runtime.bench_worker import serve

ROWS_AT_ONCE = 48


def mirrored(length: int, wanted: int) -> NDArray[np.intp]:
    """Return the places in what is ``length`` long of what is mirrored until it is ``wanted``."""
    at = np.arange(wanted) % (2 * length)
    return np.where(at < length, at, 2 * length - 1 - at)


class Band:
    """A band of the mirrored scene, some rows at a time."""

    def __init__(self, pixels: NDArray[Any], step: int, side: int) -> None:
        self._pixels, self.step = pixels, step
        self._rows = mirrored(pixels.shape[0], -(-side // step))
        self._columns = mirrored(pixels.shape[1], -(-side // step))
        # Made once, so that what memory grows by is not this program's.
        count = max(1, ROWS_AT_ONCE // step)
        self._read = np.empty((count, pixels.shape[1]), pixels.dtype)
        self._wide = np.empty((count, len(self._columns)), pixels.dtype)
        self.at = 0

    def give(self, push: Callable[[NDArray[Any]], int]) -> bool:
        """Give what there is room for; returns whether there is more."""
        rows = self._rows[self.at : self.at + len(self._wide)]
        read, wide = self._read[: len(rows)], self._wide[: len(rows)]
        np.take(self._pixels, rows, axis=0, out=read, mode="clip")
        np.take(read, self._columns, axis=1, out=wide, mode="clip")
        self.at += push(wide)
        return self.at < len(self._rows)


def main() -> None:
    """Serve runs until the scene is at its end."""
    bundle, scene, side = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    with np.load(scene) as stored:
        steps = stored["steps"]
        bands = [Band(stored[f"band{i}"], int(step), side) for i, step in enumerate(steps)]

    def load() -> Callable[[], object]:
        with Model(bundle) as model:
            context = model.context(threads=2)
        how = [StreamBand(np.dtype(np.uint16), band.step) for band in bands]
        stream = Stream(context, side, how)

        def feed() -> bool:
            more = False
            for index, band in enumerate(bands):
                more |= band.give(partial(stream.push_rows, index))
            return more

        patches = stream.patches(feed)
        return lambda: next(patches)

    serve(load)


if __name__ == "__main__":
    main()
