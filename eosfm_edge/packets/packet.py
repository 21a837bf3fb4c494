"""One packet: some channels of a rectangle of one level's cells, in bytes that stand alone.

``docs/packets.md`` is the format. Packets are entropy-coded with Zstandard (RFC 8878).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import zstandard
from numpy.typing import NDArray

from eosfm_edge.errors import UserError

FloatArray = NDArray[np.float32]
Encoding = Literal["fp16", "int8"]
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


def unpack(data: bytes | memoryview) -> tuple[Packet, int]:
    """Read the packet at the beginning of some bytes; returns how many are its own.

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
    if zlib.crc32(data[CHECKED_FROM:size]) != checksum:
        raise DamagedPacketError("the packet is not as it was sent: its CRC-32 is another")
    (bundle, level, encoding, _, row, column, height, width,
     first, channels, level_channels, _, content) = fields  # fmt: skip
    per_channel = height * width * 2 if encoding == 0 else height * width + 4
    if not (
        1 <= level <= 4
        and encoding < len(ENCODINGS)
        and 1 <= height <= MOST_SIDE
        and 1 <= width <= MOST_SIDE
        and channels >= 1
        and first + channels <= level_channels
        and content == channels * per_channel <= MOST_CONTENT
    ):
        raise DamagedPacketError("the packet's header contradicts itself")
    shape = (channels, height, width)
    raw = _decompressed(bytes(data[header:size]), content)
    features = _from_half(raw, shape) if encoding == 0 else _from_integers(raw, shape)
    return Packet(bundle, level, row, column, first, level_channels, features), size


def _decompressed(payload: bytes, size: int) -> bytes:
    try:
        # The frame says how much it gives: that is looked at before memory is taken.
        said = zstandard.frame_content_size(payload)
        if said != size:
            raise DamagedPacketError(f"the packet gives {said} bytes", expected=str(size))
        content: bytes = zstandard.ZstdDecompressor().decompress(payload)
        return content
    except zstandard.ZstdError as error:
        raise DamagedPacketError(f"the packet cannot be decompressed: {error}") from error


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
