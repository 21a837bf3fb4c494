"""One packet: some channels of a rectangle of one level's cells, in bytes that stand alone.

``docs/packets.md`` is the format. Packets are entropy-coded with Zstandard (RFC 8878).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from mmap import mmap
from typing import Any, get_args

import numpy as np
import zstandard
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.packets.words import Encoding

FloatArray = NDArray[np.float32]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

MAGIC = b"EOSP"
VERSION = 1
# Magic, version, header's size, packet's size, CRC-32 of all that follows it; the bundle; level,
# encoding; row, column, height, width; first channel, channels, those of the level; content's size.
HEADER = struct.Struct("<4sHHII 8s BBH IIHH HHHH I")
CHECKED_FROM = 16
NODATA = -128  # in int8
MOST_SIDE = 1024  # cells
MOST_CONTENT = 1 << 28  # bytes

_BLOCK = 1 << 20  # bytes of content that are decompressed at once

# More effort takes several times as long and saves a few per cent.
_COMPRESSION = 3


class DamagedPacketError(UserError):
    """Bytes that are no packet, or not the packet that was sent."""


@dataclass(frozen=True)
class Packet:
    """Features of a rectangle of cells.

    Attributes:
        bundle: the first 8 bytes of the SHA-256 of the bundle's manifest.
        level: 1 to 4.
        row: of the rectangle in the level of the scene, in cells; below 2**32.
        column: the same.
        first_channel: of the level's channels.
        level_channels: how many the level has.
        features: (C, h, w), NaN where there is no data. As fp16 they are rounded to that, and no
            further; as int8 to a step of each channel's, which is its largest value / 127.
    """

    bundle: bytes
    level: int
    row: int
    column: int
    first_channel: int
    level_channels: int
    features: FloatArray


def pack(packet: Packet, encoding: Encoding) -> bytes:
    """Return a packet's bytes.

    Raises:
        UserError: a value is larger than fp16 can hold.
    """
    content = _half(packet.features) if encoding == "fp16" else _integers(packet.features)
    channels, height, width = packet.features.shape
    payload = zstandard.ZstdCompressor(level=_COMPRESSION).compress(content)
    size = HEADER.size + len(payload)
    fields = (
        packet.bundle, packet.level, ENCODINGS.index(encoding), 0,
        packet.row, packet.column, height, width,
        packet.first_channel, channels, packet.level_channels, 0, len(content),
    )  # fmt: skip
    unchecked = HEADER.pack(MAGIC, VERSION, HEADER.size, size, 0, *fields) + payload
    checksum = zlib.crc32(unchecked[CHECKED_FROM:])
    return HEADER.pack(MAGIC, VERSION, HEADER.size, size, checksum, *fields) + payload


@dataclass(frozen=True)
class Intact:
    """A packet as it was sent, its features still packed; fields as in :class:`Packet`.

    Attributes:
        shape: of the features, (C, h, w).
        encoding: of the values.
        payload: the compressed content.
        content: bytes of the content, which may be 32,000 times the payload's.
        size: of the whole packet.
    """

    bundle: bytes
    level: int
    row: int
    column: int
    first_channel: int
    level_channels: int
    shape: tuple[int, int, int]
    encoding: Encoding
    payload: memoryview
    content: int
    size: int


def claimed(data: bytes | mmap | memoryview, at: int) -> int:
    """Return how many bytes the packet that may begin somewhere says it has; 0 if it cannot be one.

    That is what can be known without a look at more than the header.
    """
    if len(data) - at < HEADER.size:
        return 0
    magic, version, header, size, _, *fields = HEADER.unpack_from(data, at)
    if magic != MAGIC or version != VERSION or header != HEADER.size:
        return 0
    return int(size) if HEADER.size <= size <= len(data) - at and _sound(fields) else 0


def _sound(fields: Sequence[Any]) -> bool:
    """Return whether the fields behind the checksum agree with each other."""
    (_, level, encoding, _, _, _, height, width,
     first, channels, level_channels, _, content) = fields  # fmt: skip
    per_channel = height * width * 2 if encoding == 0 else height * width + 4
    return bool(
        1 <= level <= 4
        and encoding < len(ENCODINGS)
        and 1 <= height <= MOST_SIDE
        and 1 <= width <= MOST_SIDE
        and channels >= 1
        and first + channels <= level_channels
        and content == channels * per_channel <= MOST_CONTENT
    )


def read_intact(data: bytes | memoryview) -> Intact:
    """Read the packet at the beginning of some bytes, all but its features.

    Raises:
        DamagedPacketError: they do not begin with a whole and intact packet.
    """
    if len(data) < HEADER.size:
        raise DamagedPacketError(f"{len(data)} bytes are less than a packet's header")
    magic, version, header, size, checksum, *fields = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DamagedPacketError("there is no packet", expected=f"{MAGIC!r}")
    if version != VERSION or header != HEADER.size:
        raise DamagedPacketError(f"the packet is of version {version}", expected=str(VERSION))
    if not HEADER.size <= size <= len(data):
        raise DamagedPacketError(f"the packet says that it has {size} bytes of {len(data)}")
    # Before the checksum, which takes time: false headers cost nothing then.
    if not _sound(fields):
        raise DamagedPacketError("the packet's header contradicts itself")
    if zlib.crc32(data[CHECKED_FROM:size]) != checksum:
        raise DamagedPacketError("the packet is not as it was sent: its CRC-32 is another")
    (bundle, level, encoding, _, row, column, height, width,
     first, channels, level_channels, _, content) = fields  # fmt: skip
    payload = memoryview(data)[header:size]
    try:
        # The frame says how much it gives: that is looked at before memory is taken.
        given = zstandard.frame_content_size(payload)
    except zstandard.ZstdError as error:
        raise DamagedPacketError(f"the packet cannot be decompressed: {error}") from error
    if given != content:
        raise DamagedPacketError(f"the packet gives {given} bytes", expected=str(content))
    return Intact(
        bundle, level, row, column, first, level_channels, (channels, height, width),
        ENCODINGS[encoding], payload, content, size,
    )  # fmt: skip


def unpack(data: bytes | memoryview) -> tuple[Packet, int]:
    """Read the packet at the beginning of some bytes; returns how many are its own.

    Takes up to nine times the content's bytes, which are 2**28 at most.

    Raises:
        DamagedPacketError: they do not begin with a whole and intact packet.
    """
    intact = read_intact(data)
    return decode(intact), intact.size


def decode(intact: Intact) -> Packet:
    """Return a packet with its features.

    Raises:
        DamagedPacketError: the payload is not what the header says.
    """
    raw = b"".join(_content(intact))
    features = (_from_half if intact.encoding == "fp16" else _from_integers)(raw, intact.shape)
    return Packet(
        intact.bundle, intact.level, intact.row, intact.column, intact.first_channel,
        intact.level_channels, features,
    )  # fmt: skip


def count_without_data(intact: Intact) -> int:
    """Return how many of a packet's values have no data, in a few megabytes of memory.

    Raises:
        DamagedPacketError: the payload is not what the header says.
    """
    values = prod(intact.shape)
    if intact.encoding == "int8":
        # Scales come first, in which a byte of 128 means nothing.
        scales, found = 4 * intact.shape[0], 0
        for block in _content(intact):
            skipped = min(scales, len(block))
            scales -= skipped
            found += int(np.count_nonzero(np.frombuffer(block, np.int8)[skipped:] == NODATA))
        return found
    # A binary16 is NaN if its exponent's bits are all ones and its fraction, which lies in both of
    # its bytes, is not 0. The low bytes come first: of them one bit each is kept.
    low, at, found = np.zeros(values, np.bool_), 0, 0
    for block in _content(intact):
        plane = np.frombuffer(block, np.uint8)
        first = plane[: max(0, values - at)]
        low[at : at + len(first)] = first != 0
        high = plane[len(first) :]
        start = at + len(first) - values
        fraction = low[start : start + len(high)] | ((high & 3) != 0)
        found += int(np.count_nonzero(((high & 0x7C) == 0x7C) & fraction))
        at += len(plane)
    return found


def _content(intact: Intact) -> Iterator[bytes]:
    """Give a packet's content in blocks.

    Raises:
        DamagedPacketError: it is more or less than the header says.
    """
    left = intact.content
    try:
        # One frame: what follows it is not looked at.
        with zstandard.ZstdDecompressor().stream_reader(intact.payload) as stream:
            while block := stream.read(_BLOCK):
                left -= len(block)
                if left < 0:
                    break
                yield block
    except zstandard.ZstdError as error:
        raise DamagedPacketError(f"the packet cannot be decompressed: {error}") from error
    if left:
        raise DamagedPacketError(
            f"the packet gives {intact.content - left} bytes", expected=str(intact.content)
        )


def _half(features: FloatArray) -> bytes:
    """Return binary16, all low bytes before all high ones, which are more alike."""
    with np.errstate(over="ignore"):
        half = features.astype("<f2")
    if np.isinf(half).any():
        raise UserError(
            f"a feature is {np.nanmax(np.abs(features)):.3g}, more than fp16 can hold",
            expected="at most 65504",
            remedy="send int8 packets",
        )
    # NaN has many patterns; one of them for all compresses better.
    half[np.isnan(half)] = np.float16(np.nan)
    planes: NDArray[np.uint8] = half.reshape(-1, 1).view(np.uint8).T
    return planes.tobytes()


def _from_half(raw: bytes, shape: tuple[int, int, int]) -> FloatArray:
    planes = np.frombuffer(raw, np.uint8).reshape(2, -1)
    half = np.ascontiguousarray(planes.T).view("<f2")
    features: FloatArray = half.reshape(shape).astype(np.float32)
    return features


def _integers(features: FloatArray) -> bytes:
    """Return a scale for each channel, and integers from -127 to 127; -128 for no data."""
    known = np.isfinite(features)
    largest = np.where(known, np.abs(features), 0).max(axis=(1, 2))
    scales = (largest / np.float32(127)).astype("<f4")
    steps = np.where(scales > 0, scales, 1)[:, np.newaxis, np.newaxis]
    rounded = np.clip(np.rint(np.where(known, features, 0) / steps), -127, 127)
    integers: NDArray[np.int8] = np.where(known, rounded, NODATA).astype(np.int8)
    return bytes(scales.tobytes() + integers.tobytes())


def _from_integers(raw: bytes, shape: tuple[int, int, int]) -> FloatArray:
    scales = np.frombuffer(raw, "<f4", shape[0])[:, np.newaxis, np.newaxis]
    integers = np.frombuffer(raw, np.int8, offset=4 * shape[0]).reshape(shape)
    features: FloatArray = integers.astype(np.float32) * scales
    features[integers == NODATA] = np.nan
    return features
