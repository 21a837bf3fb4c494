"""Arrays of cells on disk, written window by window."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_FLOAT = np.dtype(np.float32)


class CellArray:
    """An array (height, width, channels) in a file, zero at first.

    Only windows of it are ever in memory. Channels lie together, since with hundreds of them a
    raster library spends milliseconds per tile on going from band to band.

    Args:
        path: the file; it must not exist.
        height: rows of cells.
        width: columns of cells.
        channels: values of a cell.
        dtype: of a value.

    Raises:
        OSError: there is no space for it, all of which is taken at once.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        channels: int,
        dtype: np.dtype[Any] = _FLOAT,
    ) -> None:
        self.path, self.dtype = path, dtype
        self.height, self.width, self.channels = height, width, channels
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._file, 0, self.bytes)
        except OSError:
            os.close(self._file)
            raise

    @property
    def bytes(self) -> int:
        """The size of the array."""
        return self.height * self.width * self.channels * self.dtype.itemsize

    def close(self) -> None:
        """Close the file and remove it; once is enough, more do no harm."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self.path.unlink(missing_ok=True)

    def read(self, left: int, top: int, width: int, height: int) -> NDArray[Any]:
        """Return a window, (height, width, channels)."""
        size = width * self.channels * self.dtype.itemsize
        rows = [os.pread(self._file, size, self._place(left, top + row)) for row in range(height)]
        return np.frombuffer(b"".join(rows), self.dtype).reshape(height, width, self.channels)

    def write(self, window: NDArray[Any], left: int, top: int) -> None:
        """Write a window (height, width, channels)."""
        for row, cells in enumerate(window):
            self._write(memoryview(cells.tobytes()), self._place(left, top + row))

    def halved(self, path: Path) -> CellArray:
        """Return a new array of floats of half the size, each cell the mean of up to four.

        Cells that are not a number do not count; where all four are not, the mean is not either.
        """
        half = CellArray(path, -(-self.height // 2), -(-self.width // 2), self.channels)
        for row in range(half.height):
            rows = min(2, self.height - 2 * row)
            padded = np.full((2, 2 * half.width, self.channels), np.nan, np.float32)
            padded[:rows, : self.width] = self.read(0, 2 * row, self.width, rows)
            four = padded.reshape(2, half.width, 2, self.channels)
            count = np.isfinite(four).sum(axis=(0, 2), dtype=np.float32)
            with np.errstate(invalid="ignore"):
                half.write((np.nansum(four, axis=(0, 2)) / count)[np.newaxis], 0, row)
        return half

    def _write(self, data: memoryview, place: int) -> None:
        # A disk that fills up takes part of it first, and fails only when given the rest.
        while data:
            written = os.pwrite(self._file, data, place)
            data, place = data[written:], place + written

    def _place(self, column: int, row: int) -> int:
        return (row * self.width + column) * self.channels * self.dtype.itemsize
