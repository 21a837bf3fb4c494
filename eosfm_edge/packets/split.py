"""Features of a rectangle of cells as packets of at most so many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from eosfm_edge.packets.packet import HEADER, Packet, pack
from eosfm_edge.packets.words import Encoding


def split(packet: Packet, encoding: Encoding, most: int) -> Iterator[bytes]:
    """Give a packet as one or several, each of at most so many bytes.

    By channels first, since those who want some cells want all of their channels less often than
    those who want some channels want all of their cells; then by rows and columns.

    Args:
        packet: all that is to be sent.
        encoding: of the values.
        most: bytes of a packet, at least :data:`LEAST_BYTES`.
    """
    data = pack(packet, encoding)
    if len(data) <= most:
        yield data
        return
    channels, height, width = packet.features.shape
    # About as many parts as are needed, in place of halves of halves.
    wanted = -(-(len(data) - HEADER.size) // (most - HEADER.size)) + 1
    axis = 0 if channels > 1 else 1 if height > 1 else 2
    length = (channels, height, width)[axis]
    step = max(1, length // wanted)
    for start in range(0, length, step):
        part = [slice(None)] * 3
        part[axis] = slice(start, start + step)
        yield from split(
            replace(
                packet,
                first_channel=packet.first_channel + (start if axis == 0 else 0),
                row=packet.row + (start if axis == 1 else 0),
                column=packet.column + (start if axis == 2 else 0),
                features=packet.features[tuple(part)],
            ),
            encoding,
            most,
        )
