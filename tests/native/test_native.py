"""The native tests of runtime/tests: as they are, under sanitizers, and fuzzed."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest
from support.programs import ALL_PATHS, PATHS, RUNTIME, X86_PATHS, build, processor_has, run

CORPUS = RUNTIME / "tests" / "corpus"
SANITIZED = ("test_api", "test_allocation", "run_tile", "two_contexts")
FUZZ_SECONDS = int(os.environ.get("EOSFM_FUZZ_SECONDS", "20"))

needs_clang = pytest.mark.skipif(shutil.which("clang++") is None, reason="there is no clang++")
on_x86 = pytest.mark.skipif(ALL_PATHS is not X86_PATHS, reason="this machine is no x86-64")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", ["test_api", "test_allocation"])
def test_promises(programs: Path, specks: dict[str, Path], name: str, precision: str) -> None:
    assert "all checks hold" in run([programs / name, specks[precision]])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_process_keeps_nothing(programs: Path, specks: dict[str, Path], precision: str) -> None:
    library = programs.parent / "libeosfm.so"
    assert "all checks hold" in run([programs / "test_process", library, specks[precision]])


@pytest.mark.parametrize("isa", ALL_PATHS)
def test_promises_on_every_path(programs: Path, specks: dict[str, Path], isa: str) -> None:
    if not processor_has(isa):
        pytest.skip(f"this processor has no {isa}")
    for bundle in specks.values():
        run([programs / "test_api", bundle], {"EOSFM_ISA": isa})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_damaged_files(programs: Path, specks: dict[str, Path], precision: str) -> None:
    run([programs / "test_damaged", specks[precision], "23"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_examples(programs: Path, specks: dict[str, Path], precision: str) -> None:
    assert run([programs / "run_tile", specks[precision]]).count("level") == 4
    assert run([programs / "two_contexts", specks[precision]]).count("ok:") == 2


def sanitized_paths() -> list[dict[str, str]]:
    """Return environments: the best path, and AVX2, of which every x86-64 has the code."""
    return [{"EOSFM_ISA": path} for path in PATHS if path in (PATHS[0], "avx2")]


def test_addresses_and_undefined_behaviour(
    tmp_path_factory: pytest.TempPathFactory, specks: dict[str, Path]
) -> None:
    folder = tmp_path_factory.mktemp("asan")
    programs = build(
        folder, "EOSFM_TESTS=ON", "EOSFM_SANITIZE=address,undefined", "CMAKE_BUILD_TYPE=Debug",
        "CMAKE_CXX_FLAGS_DEBUG=-O1 -g", targets=[*SANITIZED, "test_damaged"],
    )  # fmt: skip
    for bundle in specks.values():
        for environment in sanitized_paths():
            run([programs / "test_api", bundle], environment)
        run([programs / "test_damaged", bundle, "211"])
        run([programs / "test_allocation", bundle, "10"])
        run([programs / "run_tile", bundle])
        run([programs / "two_contexts", bundle])


def test_threads(tmp_path_factory: pytest.TempPathFactory, specks: dict[str, Path]) -> None:
    folder = tmp_path_factory.mktemp("tsan")
    programs = build(
        folder, "EOSFM_TESTS=ON", "EOSFM_SANITIZE=thread", "CMAKE_BUILD_TYPE=Debug",
        "CMAKE_CXX_FLAGS_DEBUG=-O1 -g", targets=SANITIZED,
    )  # fmt: skip
    for bundle in specks.values():
        for environment in sanitized_paths():
            run([programs / "test_api", bundle], environment)
        run([programs / "run_tile", bundle])
        run([programs / "two_contexts", bundle])
    # It starts threads by the thousand, slow here, and alike for every bundle.
    run([programs / "test_allocation", specks["fp32"], "10"])


@on_x86
def test_amx_with_tiles_in_software(
    tmp_path_factory: pytest.TempPathFactory, specks: dict[str, Path]
) -> None:
    if not processor_has("avx512-bf16"):
        pytest.skip("this processor has no AVX-512 with BF16")
    folder = tmp_path_factory.mktemp("amx")
    options = ("EOSFM_TESTS=ON", "EOSFM_EMULATE_AMX=ON")
    programs = build(folder, *options, targets=["test_api", "two_contexts"])
    for bundle in specks.values():
        run([programs / "test_api", bundle], {"EOSFM_ISA": "amx"})
        run([programs / "two_contexts", bundle], {"EOSFM_ISA": "amx"})


@needs_clang
def test_fuzzing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    programs = build(
        folder, "EOSFM_FUZZ=ON", "EOSFM_SANITIZE=address,undefined", "CMAKE_BUILD_TYPE=Debug",
        "CMAKE_C_COMPILER=clang", "CMAKE_CXX_COMPILER=clang++",
        "CMAKE_CXX_FLAGS_DEBUG=-O1 -g -fsanitize=fuzzer-no-link", targets=["fuzz_bundle"],
    )  # fmt: skip
    # `make fuzz` keeps what it finds, crashes too, and begins with them the next time.
    kept = os.environ.get("EOSFM_FUZZ_CORPUS")
    found = Path(kept) if kept else tmp_path_factory.mktemp("found")
    found.mkdir(parents=True, exist_ok=True)
    run(
        [
            programs / "fuzz_bundle",
            f"-max_total_time={FUZZ_SECONDS}",
            f"-artifact_prefix={found}/",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
            found,
            CORPUS,
        ]
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_corpus_still_opens(precision: str, programs: Path, tmp_path: Path) -> None:
    """Seeds that the reader refuses would leave most of it unfuzzed."""
    data = (CORPUS / precision).read_bytes()
    (size,) = struct.unpack_from("<I", data)
    (tmp_path / "specialists").mkdir()
    (tmp_path / "chain.gguf").write_bytes(data[4 : 4 + size])
    (tmp_path / "specialists" / "s0.gguf").write_bytes(data[4 + size :])
    run([programs / "run_tile", tmp_path])
