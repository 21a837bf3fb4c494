"""Packets of a file or of what was received, whatever is between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from eosfm_edge.packets.packet import (
    MAGIC,
    DamagedPacketError,
    Intact,
    Packet,
    claimed,
    decode,
    read_intact,
)

# Checksums of false packets are taken of at most twice so many bytes for each byte of data: many
# false headers may claim the same bytes. Damage alone comes nowhere near it.
CREDIT = 16


@dataclass
class Reader:
    """Finds packets.

    Attributes:
        lost: bytes so far that belong to no intact packet.
    """

    lost: int = 0

    def packets(self, data: bytes | memoryview) -> Iterator[Packet]:
        """Give all intact packets; what is damaged is skipped and counted."""
        for intact in self.intact(data):
            try:
                packet = decode(intact)
            except DamagedPacketError:
                # Its checksum agrees, so it is as it was sent, by whoever did.
                self.lost += intact.size
                continue
            yield packet

    def intact(self, data: bytes | mmap | memoryview) -> Iterator[Intact]:
        """Give all packets that are as they were sent, their features packed.

        Takes time in proportion to the data: where so many false headers claim the same bytes that
        :data:`CREDIT` is spent, packets that are larger than what is left of it are taken for lost.
        """
        whole = bytes(data) if isinstance(data, memoryview) else data
        view, at, spent = memoryview(whole), 0, 0
        while at < len(whole):
            found = whole.find(MAGIC, at)
            if found < 0:
                break
            self.lost += found - at
            size = claimed(whole, found)
            if size and spent + size <= CREDIT * (len(whole) + found):
                try:
                    intact = read_intact(view[found : found + size])
                except DamagedPacketError:
                    spent += size
                else:
                    yield intact
                    at = found + size
                    continue
            # The next may begin within what this one claims to be.
            self.lost += 1
            at = found + 1
        self.lost += len(whole) - at
