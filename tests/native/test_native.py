"""The native tests of runtime/tests, as the library is installed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.programs import ALL_ISAS, RUNTIME, processor_has, run
from support.tiers import thorough

CORPUS = RUNTIME / "tests" / "corpus"


@pytest.mark.parametrize("precision", ["fp32", *thorough("bf16", "int8")])
@pytest.mark.parametrize("name", ["test_api", "test_allocation", "test_heapless", "test_hosting"])
def test_promises(programs: Path, specks: dict[str, Path], name: str, precision: str) -> None:
    assert "all checks hold" in run([programs / name, specks[precision]])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_process_keeps_nothing(programs: Path, specks: dict[str, Path], precision: str) -> None:
    library = programs.parent / "libeosfm.so"
    assert "all checks hold" in run([programs / "test_process", library, specks[precision]])


@pytest.mark.parametrize("precision", ["fp32", *thorough("int8")])
def test_misuse_harms_nobody(programs: Path, specks: dict[str, Path], precision: str) -> None:
    assert "all checks hold" in run([programs / "test_misuse", specks[precision]])


@pytest.mark.parametrize("isa", ALL_ISAS)
def test_promises_on_every_isa(programs: Path, specks: dict[str, Path], isa: str) -> None:
    if not processor_has(isa):
        pytest.skip(f"this processor has no {isa}")
    for bundle in specks.values():
        run([programs / "test_api", bundle], {"EOSFM_ISA": isa})


# A byte in so many is damaged; more in the deep tier.
@pytest.mark.parametrize("step", ["499", pytest.param("23", marks=pytest.mark.sanitizers)])
@pytest.mark.parametrize("precision", ["int8", *thorough("fp32", "bf16")])
def test_damaged_files(programs: Path, specks: dict[str, Path], precision: str, step: str) -> None:
    run([programs / "test_damaged", specks[precision], step])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_examples(programs: Path, specks: dict[str, Path], precision: str) -> None:
    assert run([programs / "run_tile", specks[precision]]).count("level") == 4
    assert run([programs / "two_contexts", specks[precision]]).count("ok:") == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_corpus_still_opens(precision: str, programs: Path, tmp_path: Path) -> None:
    """Seeds that the reader refuses would leave most of it unfuzzed."""
    data = (CORPUS / precision).read_bytes()
    (size,) = struct.unpack_from("<I", data)
    (tmp_path / "specialists").mkdir()
    (tmp_path / "chain.gguf").write_bytes(data[4 : 4 + size])
    (tmp_path / "specialists" / "s0.gguf").write_bytes(data[4 + size :])
    run([programs / "run_tile", tmp_path])
