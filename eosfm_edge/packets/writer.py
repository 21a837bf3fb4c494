"""The packets of a run, one after the other in a file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from eosfm_edge.files import cannot_write
from eosfm_edge.packets.packet import FloatArray, Packet
from eosfm_edge.packets.split import split
from eosfm_edge.packets.words import PacketOptions


class PacketWriter:
    """A file of packets in the making.

    Args:
        path: the file; it must not exist.
        bundle: the SHA-256 of the bundle's manifest.
        options: which features, and how.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, bundle: bytes, options: PacketOptions) -> None:
        self._path, self._bundle, self._options = path, bundle[:8], options
        self._size = 0
        try:
            self._file = path.open("xb")
        except OSError as error:
            raise cannot_write(path, error) from error

    def __enter__(self) -> PacketWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, level: int, features: FloatArray, column: int, row: int) -> None:
        """Write the packets of a block, (C, h, w), if its level, 1 to 4, is one that is sent.

        What has no data anywhere is not sent: cells of no packet have none.

        Raises:
            UserError: a value is larger than fp16 can hold, or the disk is full.
        """
        if level not in self._options.levels or np.isnan(features).all():
            return
        block = Packet(
            self._bundle, level, row, column, 0, len(features), np.ascontiguousarray(features)
        )
        try:
            for data in split(block, self._options.encoding, self._options.most):
                self._file.write(data)
                self._size += len(data)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def finish(self) -> int:
        """Close the file; returns its bytes.

        Raises:
            UserError: the disk is full.
        """
        try:
            self._file.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return self._size
