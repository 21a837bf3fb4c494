"""Feature packets: what is sent comes back, in packets as small as asked, whatever is damaged."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.packets.packet import (
    CHECKED_FROM,
    ENCODINGS,
    HEADER,
    DamagedPacketError,
    Packet,
    pack,
    unpack,
)
from eosfm_edge.packets.read import Reader
from eosfm_edge.packets.split import split
from eosfm_edge.packets.words import LEAST_BYTES, Encoding, parse_size

Array = NDArray[np.float32]

BUNDLE = bytes(range(8))


def packet_of(features: Array, **fields: int) -> Packet:
    place = {"level": 2, "row": 70, "column": 9, "first_channel": 0} | fields
    return Packet(BUNDLE, level_channels=features.shape[0], features=features, **place)


@st.composite
def features(draw: st.DrawFn) -> Array:
    shape = tuple(draw(st.integers(1, most)) for most in (40, 20, 20))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    values = rng.normal(scale=draw(st.sampled_from([1e-3, 1.0, 300.0])), size=shape)
    values[:, rng.random(shape[1:]) < draw(st.sampled_from([0, 0.3, 1]))] = np.nan
    return values.astype(np.float32)


def together(packets: Sequence[Packet], like: Array) -> Array:
    """Put packets of one block together again, and see that each value is sent once."""
    whole, times = np.zeros_like(like), np.zeros(like.shape, int)
    for packet in packets:
        c, h, w = packet.features.shape
        row, column, first = packet.row - 70, packet.column - 9, packet.first_channel
        place = np.s_[first : first + c, row : row + h, column : column + w]
        whole[place] = packet.features
        times[place] += 1
    assert (times == 1).all()
    return whole


@settings(max_examples=60, deadline=None)
@given(features(), st.integers(LEAST_BYTES, 20_000))
def test_fp16_loses_nothing_but_what_fp16_does(values: Array, most: int) -> None:
    sent = list(split(packet_of(values), "fp16", most))
    assert all(len(data) <= most for data in sent)
    reader = Reader()
    packets = list(reader.packets(b"".join(sent)))
    assert reader.lost == 0
    expected = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(together(packets, values), expected)


@settings(max_examples=60, deadline=None)
@given(features(), st.integers(LEAST_BYTES, 20_000))
def test_int8_is_off_by_half_a_step_at_most(values: Array, most: int) -> None:
    sent = list(split(packet_of(values), "int8", most))
    assert all(len(data) <= most for data in sent)
    got = together(list(Reader().packets(b"".join(sent))), values)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(values))
    largest = np.nanmax(np.abs(values), initial=0, axis=(1, 2), keepdims=True)
    error = np.nan_to_num(np.abs(got - values))
    assert (error <= largest / 127 * 0.501 + 1e-12).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_fields_come_back(encoding: Encoding) -> None:
    sent = Packet(BUNDLE, 3, 4_000_000_000, 123_456, 17, 40, np.ones((3, 2, 5), np.float32))
    got, size = unpack(pack(sent, encoding))
    assert size == len(pack(sent, encoding))
    assert (got.bundle, got.level, got.row, got.column) == (BUNDLE, 3, 4_000_000_000, 123_456)
    assert (got.first_channel, got.level_channels) == (17, 40)
    np.testing.assert_allclose(got.features, sent.features, rtol=1e-6)


def test_what_fp16_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match="more than fp16 can hold"):
        pack(packet_of(np.full((1, 1, 1), 1e6, np.float32)), "fp16")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_flipped_bit_is_found(encoding: Encoding) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    first, damaged, last = (pack(packet_of(values + i, row=i), encoding) for i in range(3))
    for bit in range(8 * len(damaged)):
        wrong = bytearray(damaged)
        wrong[bit // 8] ^= 1 << bit % 8
        reader = Reader()
        rows = [packet.row for packet in reader.packets(first + bytes(wrong) + last)]
        assert rows == [0, 2], bit
        assert reader.lost == len(damaged)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=90), min_size=4, max_size=4), st.integers(1, 200))
def test_what_is_between_packets_is_skipped(junk: list[bytes], cut: int) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    whole = [pack(packet_of(values, row=i), "int8") for i in range(3)]
    sent = junk[0] + whole[0] + junk[1] + whole[1] + junk[2] + whole[2][:-cut] + junk[3]
    reader = Reader()
    assert [packet.row for packet in reader.packets(sent)] == [0, 1]
    assert reader.lost == len(sent) - len(whole[0]) - len(whole[1])


@pytest.mark.parametrize(
    ("at", "value"),
    [(24, 0), (24, 5), (25, 2), (36, 0), (38, 0), (37, 255), (42, 0), (44, 0), (48, 1), (51, 255)],
)
def test_headers_that_contradict_themselves_are_refused(at: int, value: int) -> None:
    """With a checksum that agrees: such packets were made, not damaged."""
    data = bytearray(pack(packet_of(np.ones((3, 4, 5), np.float32)), "int8"))
    data[at] = value
    data[12:16] = zlib.crc32(data[CHECKED_FROM:]).to_bytes(4, "little")
    with pytest.raises(DamagedPacketError):
        unpack(bytes(data))


def test_a_payload_that_gives_more_than_it_says_is_refused() -> None:
    data = bytearray(pack(packet_of(np.ones((3, 4, 5), np.float32)), "int8"))
    more = bytearray(pack(packet_of(np.ones((3, 400, 500), np.float32)), "int8"))
    made = data[: HEADER.size] + more[HEADER.size :]
    made[8:12] = len(made).to_bytes(4, "little")
    made[12:16] = zlib.crc32(made[CHECKED_FROM:]).to_bytes(4, "little")
    with pytest.raises(DamagedPacketError, match="gives 600012 bytes"):
        unpack(bytes(made))


@pytest.mark.parametrize(
    ("text", "size"), [("1400", 1400), ("256 B", 256), ("200kB", 200_000), ("1.5MB", 1_500_000)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "kB", "-1", "200KiB", "255", "0.1kB", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="the size is"):
        parse_size(text)
