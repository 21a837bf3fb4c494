"""libeosfm_packets: it reads what Python writes, to the bit, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.programs import run

from eosfm_edge.packets.packet import ENCODINGS, Packet
from eosfm_edge.packets.read import Reader
from eosfm_edge.packets.split import split
from eosfm_edge.packets.words import Encoding


@pytest.fixture(scope="session")
def readers(programs: Path) -> Path:
    if not (programs / "read_packets").exists():
        pytest.skip("there is no libzstd-dev or no zlib1g-dev")
    return programs


def sent(encoding: Encoding, most: int, *, seed: int = 0, side: int = 30) -> bytes:
    rng = np.random.default_rng(seed)
    packets = []
    for level in range(1, 5):
        # fp16 has numbers below what is normal, zeros of both signs and the largest of all.
        values = rng.normal(size=(12, side, side)) * 10.0 ** rng.integers(-8, 4, (12, 1, 1))
        values[:, :3, :3], values[:, 4, 4], values[0, 5, :2] = np.nan, -0.0, (65504, 6e-8)
        packet = Packet(
            bytes(8), level, 1 << 31, 7, 3, 40, values.clip(-65504, 65504).astype(np.float32)
        )
        packets += split(packet, encoding, most)
    return b"".join(packets)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("most", [300, 5_000, 10**6])
def test_c_and_python_read_the_same(
    readers: Path, tmp_path: Path, encoding: Encoding, most: int
) -> None:
    data = b"EOSjunk" + sent(encoding, most) + b"EOSP"
    (tmp_path / "file").write_bytes(data)
    said = run([readers / "read_packets", tmp_path / "file", tmp_path / "floats"])
    packets = list(Reader().packets(data))
    lines = [
        f"level {p.level}: channels {p.first_channel} to "
        f"{p.first_channel + p.features.shape[0] - 1} of {p.level_channels}, "
        f"{p.features.shape[1]} x {p.features.shape[2]} cells at row {p.row}, column {p.column}"
        for p in packets
    ]
    assert said.splitlines() == [*lines, "11 bytes belong to no intact packet"]
    floats = np.fromfile(tmp_path / "floats", np.float32)
    expected = np.concatenate([packet.features.ravel() for packet in packets])
    np.testing.assert_array_equal(floats, expected)
    np.testing.assert_array_equal(np.signbit(floats), np.signbit(expected))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_damage_is_found(readers: Path, tmp_path: Path, encoding: Encoding) -> None:
    (tmp_path / "file").write_bytes(sent(encoding, 10**6, side=6))
    run([readers / "test_packets", tmp_path / "file"])


def test_a_file_that_is_not_there(readers: Path, tmp_path: Path) -> None:
    command = [str(readers / "read_packets"), str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
