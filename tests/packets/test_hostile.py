"""Packets that are made to cost memory or time."""

from __future__ import annotations

import json
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command import run

from eosfm_edge.packets.packet import (
    ENCODINGS,
    Packet,
    count_without_data,
    pack,
    read_intact,
    unpack,
)
from eosfm_edge.packets.read import CREDIT, Reader
from eosfm_edge.packets.summary import summarise
from eosfm_edge.packets.words import Encoding

HEADER = "<4sHHII8sBBHIIHHHHHHI"


def header(
    size: int, checksum: int = 0, *, side: int = 4, channels: int = 2, content: int | None = None
) -> bytes:
    """Return a header of an int8 packet whose fields agree with each other."""
    if content is None:
        content = channels * (side * side + 4)
    return struct.pack(
        HEADER, b"EOSP", 1, 52, size, checksum, bytes(8), 1, 1, 0, 0, 0, side, side, 0, channels,
        channels, 0, content,
    )  # fmt: skip


def bomb(side: int = 1024, channels: int = 255) -> bytes:
    content = struct.pack(f"<{channels}f", *[1.0] * channels) + bytes(side * side * channels)
    payload = zstandard.ZstdCompressor(level=1).compress(content)
    size = 52 + len(payload)
    body = header(size, side=side, channels=channels)[16:] + payload
    return header(size, zlib.crc32(body), side=side, channels=channels)[:16] + body


def good(features: np.ndarray | None = None, encoding: Encoding = "int8") -> bytes:
    values = np.ones((2, 3, 4), np.float32) if features is None else features
    return pack(Packet(bytes(8), 1, 0, 0, 0, len(values), values), encoding)


def test_a_bomb_is_counted_in_little_memory(tmp_path: Path) -> None:
    packet = bomb()
    assert len(packet) < 30_000
    (tmp_path / "file").write_bytes(3 * packet)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code, out, err = run("packets", tmp_path / "file", "--json", prelude=limit)
    assert code == 0, err
    assert json.loads(out)["levels"]["1"]["values"] == 3 * 255 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 10


@pytest.mark.parametrize("plausible", [False, True])
def test_false_headers_take_no_time(tmp_path: Path, plausible: bool) -> None:
    size = 1_300_000
    data = bytearray(size)
    step = 52 if plausible else 16
    for at in range(0, size - 52, step):
        first = struct.pack("<4sHHI", b"EOSP", 1, 52, size - at)
        data[at : at + step] = (header(size - at) if plausible else first.ljust(step, b"\0"))[:step]
    reader, started = Reader(), time.process_time()
    assert list(reader.packets(bytes(data))) == []
    assert time.process_time() - started < 1
    assert reader.lost == size
    (tmp_path / "file").write_bytes(data)
    code, _, err = run("packets", tmp_path / "file")
    assert code == 2
    assert "has no intact packet" in err


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(0, 400),
    sizes=st.lists(st.integers(1, 60), min_size=3, max_size=12),
    between=st.integers(0, 4),
)
def test_false_headers_hide_at_most_what_follows_them(
    before: int, sizes: list[int], between: int
) -> None:
    rng = np.random.default_rng(0)
    packets = [good(rng.normal(size=(8, n, n)).astype(np.float32)) for n in sizes]
    junk = header(60)  # claims 8 bytes of what follows: cheap
    data = b"".join(packet + between * junk for packet in packets)
    reader = Reader()
    assert len(list(reader.packets(data))) == len(packets)
    # Each of these claims all that is there.
    total = before * 52 + len(data)
    flood = b"".join(header(total - 52 * i) for i in range(before))
    reader = Reader()
    found = list(reader.packets(flood + data))
    # What is scanned gives credit for what follows, so only packets close behind can be lost.
    at, sure = 0, 0
    for packet in packets:
        sure += at * CREDIT >= len(packet)
        at += len(packet)
    assert len(found) >= sure >= len(packets) - 2
    assert reader.lost >= len(flood)


def test_the_checksum_of_a_false_packet_is_taken_a_bounded_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, crc32 = 0, zlib.crc32

    def counted(data: bytes) -> int:
        nonlocal taken
        taken += len(data)
        return crc32(data)

    monkeypatch.setattr("eosfm_edge.packets.packet.zlib.crc32", counted)
    for size in (52 * 100, 52 * 1000):
        taken = 0
        data = b"".join(header(size - at) for at in range(0, size, 52))
        assert list(Reader().packets(data)) == []
        assert 0 < taken <= 2 * CREDIT * size


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_has_no_data_is_counted_without_the_features(encoding: Encoding) -> None:
    rng = np.random.default_rng(1)
    for shape in ((1, 1, 1), (3, 40, 50), (600, 40, 50)):
        values = rng.normal(size=shape).astype(np.float32)
        values[rng.random(shape) < 0.3] = np.nan
        values.flat[0] = 0
        data = good(values, encoding)
        decoded, _ = unpack(data)
        assert count_without_data(read_intact(data)) == np.isnan(decoded.features).sum()


def test_a_sound_checksum_over_a_payload_that_lies_is_lost(tmp_path: Path) -> None:
    content = bytes(2 * (16 + 4))
    frame = zstandard.ZstdCompressor(write_content_size=True).compress(content)
    frame = frame[:-3] + b"\x00\x00\x00"
    body = header(52 + len(frame))[16:] + frame
    lie = header(52 + len(frame), zlib.crc32(body))[:16] + body
    (tmp_path / "file").write_bytes(lie + good())
    reader = Reader()
    assert len(list(reader.packets(lie + good()))) == 1
    assert reader.lost == len(lie)
    summary = summarise(tmp_path / "file")
    assert (summary.lost, summary.levels[1].packets) == (len(lie), 1)
