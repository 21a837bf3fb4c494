"""Check feature packets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eosfm_edge.api.options import PathLike, as_path
from eosfm_edge.errors import CheckFailedError

if TYPE_CHECKING:
    from eosfm_edge.packets.summary import Summary


class PacketsLostError(CheckFailedError):
    """Bytes of a file belong to no intact packet.

    Attributes:
        summary: of the packets that are intact.
    """

    def __init__(self, file: Path, summary: Summary) -> None:
        super().__init__(
            f"{summary.lost} bytes of {file} belong to no intact packet",
            remedy="send again what is missing; the other packets can be used",
        )
        self.summary = summary


def check_packets(file: PathLike) -> Summary:
    """Check and count the feature packets in a file.

    Args:
        file: what a run wrote, or what arrived of it.

    Raises:
        PacketsLostError: bytes of it belong to no intact packet.
        UserError: it cannot be read.
    """
    from eosfm_edge.packets.summary import summarise

    place = as_path(file)
    summary = summarise(place)
    if summary.lost:
        raise PacketsLostError(place, summary)
    return summary
