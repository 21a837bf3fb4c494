"""Summarise a file of packets."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path

from eosfm_edge.errors import UserError
from eosfm_edge.files import open_regular
from eosfm_edge.packets.packet import DamagedPacketError, count_without_data
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
    reader, bundles = Reader(), set()
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            # What is empty cannot be mapped.
            data = mmap(file.fileno(), 0, access=ACCESS_READ) if size else b""
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    summary = Summary(len(data))
    for intact in reader.intact(data):
        try:
            without_data = count_without_data(intact)
        except DamagedPacketError:
            reader.lost += intact.size
            continue
        level = summary.levels.setdefault(intact.level, LevelSummary())
        _, height, width = intact.shape
        level.packets += 1
        level.values += prod(intact.shape)
        level.values_without_data += without_data
        level.rows = max(level.rows, intact.row + height)
        level.columns = max(level.columns, intact.column + width)
        bundles.add(intact.bundle.hex())
    if not summary.levels:
        raise UserError(
            f"{path} has no intact packet: all of its {summary.bytes} bytes are lost",
            expected="what eosfm-edge run --packets writes",
        )
    summary.bundles, summary.lost = sorted(bundles), reader.lost
    return summary
