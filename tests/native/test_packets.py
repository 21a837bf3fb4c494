"""libeosfm_packets: it reads what Python writes, to the bit, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.programs import RUNTIME, run

from eosfm_edge.packets.packet import ENCODINGS, Packet, pack, unpack
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


def values_of(seed: int, channels: int, height: int, width: int) -> NDArray[np.float32]:
    """Return features of all kinds: missing, subnormal, zero, ties and limits."""
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-9, 4, (channels, 1, 1))
    values = rng.normal(size=(channels, height, width)) * scales
    for special in (np.nan, -0.0, 65504, 65519, 6e-8, 2.0**-25, 1 + 2.0**-11, -np.float32(1e-42)):
        values[rng.random(values.shape) < 0.02] = special
    return values.astype(np.float32)


def write_in_c(
    readers: Path, folder: Path, values: NDArray[np.float32], encoding: Encoding, most: int
) -> bytes:
    values.tofile(folder / "floats")
    run(
        [readers / "write_packets", folder / "floats", "2", *map(str, values.shape), encoding,
         str(most), folder / "packets"]
    )  # fmt: skip
    return (folder / "packets").read_bytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("most", [256, 1_400, 10**6])
@pytest.mark.parametrize(("shape", "seed"), [((7, 9, 13), 1), ((1, 30, 40), 2), ((40, 1, 3), 3)])
def test_c_writes_what_python_writes(
    readers: Path,
    tmp_path: Path,
    encoding: Encoding,
    most: int,
    shape: tuple[int, int, int],
    seed: int,
) -> None:
    values = values_of(seed, *shape)
    data = write_in_c(readers, tmp_path, values, encoding, most)
    whole = Packet(bytes(8), 2, 0, 0, 0, shape[0], values)
    reader, times = Reader(), np.zeros(shape, int)
    for packet in reader.packets(data):
        channels, rows, columns = (
            slice(start, start + count)
            for start, count in zip(
                (packet.first_channel, packet.row, packet.column),
                packet.features.shape,
                strict=True,
            )
        )
        times[channels, rows, columns] += 1
        part = replace(packet, features=np.ascontiguousarray(values[channels, rows, columns]))
        # Of the same features, whatever the version of libzstd made of them: the same values.
        theirs, _ = unpack(pack(part, encoding))
        np.testing.assert_array_equal(packet.features, theirs.features)
        np.testing.assert_array_equal(np.signbit(packet.features), np.signbit(theirs.features))
    assert reader.lost == 0
    assert (times == 1).all(), "each value is in one packet"
    assert max(packet.size for packet in reader.intact(data)) <= most
    # Python's libzstd and the system's may differ; these inputs are small enough that they do not.
    assert data == b"".join(split(whole, encoding, most))


def test_c_refuses_what_fp16_cannot_hold(readers: Path, tmp_path: Path) -> None:
    values = values_of(1, 3, 4, 5)
    values[2, 3, 4] = 65520
    with pytest.raises(AssertionError, match="larger than fp16 can hold: use int8"):
        write_in_c(readers, tmp_path, values, "fp16", 256)
    assert (tmp_path / "packets").read_bytes() == b""
    assert write_in_c(readers, tmp_path, values, "int8", 256)


def test_c_sends_no_block_without_data(readers: Path, tmp_path: Path) -> None:
    values = np.full((3, 4, 5), np.nan, np.float32)
    assert write_in_c(readers, tmp_path, values, "int8", 256) == b""


CONSUMER = """
cmake_minimum_required(VERSION 3.20)
project(ground C)
find_package(eosfm 0.1 REQUIRED COMPONENTS packets)
foreach(kind shared static)
  add_executable(read_${{kind}} {examples}/read_packets.c)
  target_link_libraries(read_${{kind}} eosfm::packets_${{kind}})
endforeach()
"""


def test_consumers_build_against_what_is_installed(readers: Path, tmp_path: Path) -> None:
    """By CMake and by pkg-config, shared and static, outside of the tree."""
    prefix, examples = tmp_path / "installed", RUNTIME / "examples"
    run(["cmake", "--install", readers.parent, "--prefix", prefix])
    (tmp_path / "data").write_bytes(sent("int8", 1_000, side=6))
    expected = run([readers / "read_packets", tmp_path / "data"])
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER.format(examples=examples))
    run(["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"])
    run(["cmake", "--build", tmp_path / "build"])
    for kind in ("shared", "static"):
        assert run([tmp_path / "build" / f"read_{kind}", tmp_path / "data"]) == expected
    if shutil.which("pkg-config") is None:
        pytest.skip("there is no pkg-config")
    folder = next(prefix.glob("lib*/**/libeosfm_packets.pc")).parent
    for static in ((), ("--static",)):
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", *static, f"--define-variable=prefix={prefix}",
             "libeosfm_packets"],
            env={**os.environ, "PKG_CONFIG_PATH": str(folder)},
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        program = tmp_path / ("static" if static else "shared")
        run(["gcc", "-std=c99", examples / "read_packets.c", *flags, "-o", program])
        library = {"LD_LIBRARY_PATH": str(folder.parent)}
        assert run([program, tmp_path / "data"], library) == expected


def test_the_packets_library_exports_the_header_s_functions_alone(readers: Path) -> None:
    lines = run(["nm", "-D", "--defined-only", readers.parent / "libeosfm_packets.so"]).splitlines()
    header = (RUNTIME / "include" / "eosfm_packets.h").read_text()
    declared = re.findall(r"EOSFM_API [^;(]*?(eosfm_\w+)\(", header)
    assert sorted(line.split()[-1] for line in lines) == sorted(declared)
    strict = [
        "-Wall",
        "-Wextra",
        "-pedantic",
        "-Werror",
        "-fsyntax-only",
        f"-I{RUNTIME / 'include'}",
    ]
    for name in ("read_packets", "write_packets"):
        run(["gcc", "-std=c99", *strict, RUNTIME / "examples" / f"{name}.c"])
    run(["g++", "-std=c++11", *strict, "-x", "c++", RUNTIME / "include" / "eosfm_packets.h"])
