"""How tiles cover a scene, and how much each counts where they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COARSEST = 32  # stride of the last level: tiles start on its grid, so that all levels' cells meet


@dataclass(frozen=True)
class TileAxis:
    """Tiles along one axis of a scene.

    Tiles start at multiples of 32 pixels. The last one may reach over the scene's end, by less
    than 32 pixels.

    Attributes:
        length: pixels of the scene along the axis.
        size: pixels of a tile, a multiple of 32.
        overlap: pixels that neighbours share at least, a multiple of 32.
        starts: first pixel of each tile.
    """

    length: int
    size: int
    overlap: int
    starts: tuple[int, ...]

    @classmethod
    def cover(cls, length: int, size: int, overlap: int) -> TileAxis:
        """Cover ``length`` pixels by tiles that overlap by ``overlap`` or more."""
        last = -(-(length - size) // COARSEST) * COARSEST
        starts = [*range(0, max(last, 0), size - overlap), max(last, 0)]
        return cls(length, size, overlap, tuple(starts))

    def cells(self, stride: int) -> int:
        """Return how many cells a level has over the scene, a partial one at the end included."""
        return -(-self.length // stride)

    def weights(self, tile: int, stride: int) -> NDArray[np.float32]:
        """Return the weight of each of a tile's cells, the tiles' weights at a cell adding to 1.

        Weights rise linearly over the overlap, from the tile's edge inwards; cells over the
        scene's end are left out.
        """
        start, cells = self.starts[tile] // stride, self.size // stride
        end = min(start + cells, self.cells(stride))
        total = np.zeros(end - start)
        for other_start in self.starts:
            offset = other_start // stride - start
            if abs(offset) < cells:
                ramp = self._ramp(stride)
                first, last = max(offset, 0), min(offset + cells, end - start)
                if first < last:
                    total[first:last] += ramp[first - offset : last - offset]
        own = self._ramp(stride)[: end - start]
        return (own / total).astype(np.float32)

    def _ramp(self, stride: int) -> NDArray[np.float64]:
        """Return a trapezoid with sides as long as the overlap, nowhere zero."""
        cells = self.size // stride
        inwards = np.minimum(np.arange(cells), np.arange(cells)[::-1]) + 0.5
        return np.minimum(inwards / max(self.overlap / stride, 0.5), 1.0)
