"""Parse the command line's options of packets, without what packets need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eosfm_edge.errors import UserError

Encoding = Literal["fp16", "int8"]

LEAST_BYTES = 256  # a header, and a cell or some


@dataclass(frozen=True)
class PacketOptions:
    """The features that are sent, and their encoding.

    Attributes:
        most: bytes of a packet.
        levels: which, from 1 to 4.
        encoding: of the values.
    """

    most: int
    levels: Sequence[int] = (1, 2, 3, 4)
    encoding: Encoding = "int8"


def parse_size(text: str) -> int:
    """Read a size: ``1400``, ``200kB`` or ``1.5MB``, thousands and millions of bytes.

    Raises:
        UserError: it is none, or too small for a packet.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|kB|MB)?", text)
    if not match:
        raise UserError(f"the size is {text!r}", expected="one like 1400, 200kB or 1.5MB")
    size = int(float(match[1]) * {"kB": 1_000, "MB": 1_000_000}.get(match[2] or "B", 1))
    if size < LEAST_BYTES:
        raise UserError(f"the size is {size} bytes", expected=f"at least {LEAST_BYTES}")
    return size


def parse_levels(text: str) -> tuple[int, ...]:
    """Read which levels are sent: ``3,4``.

    Raises:
        UserError: one is none.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part in {"1", "2", "3", "4"} for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"the levels are {text!r}", expected="some of 1, 2, 3 and 4, as in 3,4")
    return tuple(sorted(map(int, parts)))
