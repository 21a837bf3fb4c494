"""The native tests under sanitizers, and the readers under a fuzzer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.programs import DEBUG, ISAS, RUNTIME, build, run

from eosfm_edge.packets.packet import ENCODINGS, Packet, pack

pytestmark = pytest.mark.sanitizers

CORPUS = RUNTIME / "tests" / "corpus"
FUZZ_SECONDS = int(os.environ.get("EOSFM_FUZZ_SECONDS", "20"))
SANITIZED = ("test_api", "test_allocation", "run_tile", "two_contexts")
# The best instruction set, and AVX2, of which every x86-64 has the code.
BEST_AND_AVX2 = [isa for isa in ISAS if isa in (ISAS[0], "avx2")]

precisions = pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
needs_clang = pytest.mark.skipif(shutil.which("clang++") is None, reason="there is no clang++")


@pytest.fixture(scope="session")
def asan() -> Path:
    """The native tests with address and undefined-behaviour sanitizers."""
    cuda = ["test_cuda_kernels", "test_cuda_engine", "test_cuda_stream", "test_cuda_codes"]
    targets = [*SANITIZED, "test_damaged", "test_misuse", *cuda]
    return build("asan", *DEBUG, "EOSFM_SANITIZE=address,undefined", targets=targets)


@pytest.fixture(scope="session")
def tsan() -> Path:
    """The native tests with the thread sanitizer."""
    return build("tsan", *DEBUG, "EOSFM_SANITIZE=thread", targets=SANITIZED)


@precisions
@pytest.mark.parametrize("isa", BEST_AND_AVX2)
def test_api_is_clean_under_asan(
    asan: Path, specks: dict[str, Path], precision: str, isa: str
) -> None:
    run([asan / "test_api", specks[precision]], {"EOSFM_ISA": isa})


@precisions
def test_damaged_files_are_clean_under_asan(
    asan: Path, specks: dict[str, Path], precision: str
) -> None:
    run([asan / "test_damaged", specks[precision], "211"])


def test_misuse_is_clean_under_asan(asan: Path, specks: dict[str, Path]) -> None:
    # What a callback leaves behind by a jump is lost to the host: the header says so.
    run([asan / "test_misuse", specks["fp32"]], {"ASAN_OPTIONS": "detect_leaks=0"})


def test_cuda_kernels_are_clean_under_asan(asan: Path) -> None:
    run([asan / "test_cuda_kernels", "2"])


@precisions
def test_cuda_engine_is_clean_under_asan(
    asan: Path, specks: dict[str, Path], precision: str
) -> None:
    standin = asan / "libcuda_standin.so"
    run([asan / "test_cuda_engine", standin, specks[precision], "55", "55", "23"])
    run([asan / "test_cuda_stream", standin, specks[precision]])


def test_cuda_codes_are_clean_under_asan(asan: Path, specks: dict[str, Path]) -> None:
    run([asan / "test_cuda_codes", specks["int8"]])


@precisions
def test_programs_are_clean_under_asan(asan: Path, specks: dict[str, Path], precision: str) -> None:
    run([asan / "test_allocation", specks[precision], "10"])
    run([asan / "run_tile", specks[precision]])
    run([asan / "two_contexts", specks[precision]])


@precisions
@pytest.mark.parametrize("isa", BEST_AND_AVX2)
def test_api_is_clean_under_tsan(
    tsan: Path, specks: dict[str, Path], precision: str, isa: str
) -> None:
    run([tsan / "test_api", specks[precision]], {"EOSFM_ISA": isa})


@precisions
def test_programs_are_clean_under_tsan(tsan: Path, specks: dict[str, Path], precision: str) -> None:
    run([tsan / "run_tile", specks[precision]])
    run([tsan / "two_contexts", specks[precision]])


def test_allocation_is_clean_under_tsan(tsan: Path, specks: dict[str, Path]) -> None:
    """It starts threads by the thousand, slow here, and alike for every bundle."""
    run([tsan / "test_allocation", specks["fp32"], "10"])


@pytest.fixture(scope="session")
def fuzzers() -> Path:
    """The fuzzers, with address and undefined-behaviour sanitizers."""
    return build(
        "fuzz", "EOSFM_FUZZ=ON", "EOSFM_SANITIZE=address,undefined", "CMAKE_BUILD_TYPE=Debug",
        "CMAKE_C_COMPILER=clang", "CMAKE_CXX_COMPILER=clang++",
        "CMAKE_C_FLAGS_DEBUG=-O1 -g -fsanitize=fuzzer-no-link",
        "CMAKE_CXX_FLAGS_DEBUG=-O1 -g -fsanitize=fuzzer-no-link", targets=["fuzzers"],
    )  # fmt: skip


def fuzz(program: Path, scratch: Path, *seeds: Path, bundle: Path | None = None) -> None:
    # `make fuzz` keeps what it finds, crashes too, and begins with them the next time.
    found = Path(os.environ.get("EOSFM_FUZZ_CORPUS", scratch / "found")) / program.name
    found.mkdir(parents=True, exist_ok=True)
    run(
        [
            program,
            f"-max_total_time={FUZZ_SECONDS}",
            f"-artifact_prefix={found}/",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
            found,
            *seeds,
        ],
        {"EOSFM_FUZZ_BUNDLE": str(bundle)} if bundle else None,
    )


@needs_clang
def test_fuzzing_the_reader_finds_nothing(fuzzers: Path, tmp_path: Path) -> None:
    fuzz(fuzzers / "fuzz_bundle", tmp_path, CORPUS)


@needs_clang
def test_fuzzing_packets_finds_nothing(fuzzers: Path, tmp_path: Path) -> None:
    if not (fuzzers / "fuzz_packets").exists():
        pytest.skip("there is no libzstd-dev or no zlib1g-dev")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    values[0, 0, 0] = np.nan
    packet = Packet(bytes(8), 1, 0, 0, 0, 3, values)
    for encoding in ENCODINGS:
        (seeds / encoding).write_bytes(2 * pack(packet, encoding))
    fuzz(fuzzers / "fuzz_packets", tmp_path, seeds)


@needs_clang
def test_fuzzing_sequences_of_calls_finds_nothing(
    fuzzers: Path, specks: dict[str, Path], tmp_path: Path
) -> None:
    fuzz(fuzzers / "fuzz_stream", tmp_path, bundle=specks["fp32"])
