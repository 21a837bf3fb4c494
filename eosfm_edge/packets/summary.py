"""What a file of packets holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eosfm_edge.errors import UserError
from eosfm_edge.packets.read import Reader


@dataclass
class LevelSummary:
    """Of one level: packets, values in them, and how many cells they reach over."""

    packets: int = 0
    values: int = 0
    values_without_data: int = 0
    rows: int = 0
    columns: int = 0


@dataclass
class Summary:
    """Of a file.

    Attributes:
        bundles: the first 8 bytes of the SHA-256 of their manifests, in hexadecimal.
        lost: bytes that belong to no intact packet.
        levels: by their numbers.
    """

    bytes: int
    bundles: list[str] = field(default_factory=list)
    lost: int = 0
    levels: dict[int, LevelSummary] = field(default_factory=dict)


def summarise(path: Path) -> Summary:
    """Read all packets of a file.

    Raises:
        UserError: it cannot be read, or has no packet.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    reader, bundles, summary = Reader(), set(), Summary(len(data))
    for packet in reader.packets(data):
        level = summary.levels.setdefault(packet.level, LevelSummary())
        _, height, width = packet.features.shape
        level.packets += 1
        level.values += packet.features.size
        level.values_without_data += int(np.isnan(packet.features).sum())
        level.rows = max(level.rows, packet.row + height)
        level.columns = max(level.columns, packet.column + width)
        bundles.add(packet.bundle.hex())
    if not summary.levels:
        raise UserError(
            f"{path} has no intact packet", expected="what eosfm-edge run --packets writes"
        )
    summary.bundles, summary.lost = sorted(bundles), reader.lost
    return summary
