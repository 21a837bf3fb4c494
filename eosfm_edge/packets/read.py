"""Packets of a file or of what was received, whatever is between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eosfm_edge.packets.packet import MAGIC, DamagedPacketError, Packet, unpack


@dataclass
class Reader:
    """Finds packets.

    Attributes:
        lost: bytes so far that belong to no intact packet.
    """

    lost: int = 0

    def packets(self, data: bytes | memoryview) -> Iterator[Packet]:
        """Give all intact packets; what is damaged is skipped and counted."""
        view, at = memoryview(data), 0
        whole = bytes(data)
        while at < len(view):
            found = whole.find(MAGIC, at)
            if found < 0:
                break
            self.lost += found - at
            try:
                packet, size = unpack(view[found:])
            except DamagedPacketError:
                # The next may begin within what this one claims to be.
                self.lost += 1
                at = found + 1
                continue
            yield packet
            at = found + size
        self.lost += len(view) - at
