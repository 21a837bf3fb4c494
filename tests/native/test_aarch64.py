"""The native tests on an emulated 64-bit ARM processor, and its results beside x86-64's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from support.chains import Array, image_of, random_ensemble, spec_of, write
from support.programs import ALL_ISAS, RUNTIME, X86_ISAS, build, run
from support.speck import SPECK

from eosfm_edge.formats.precision import Precision

pytestmark = pytest.mark.cross

CPUS = {"neon": "cortex-a53", "neon-dotprod": "cortex-a76"}  # that have each path, and no better


@pytest.fixture(scope="session")
def arm_programs() -> Path:
    """The native tests and examples, built for aarch64."""
    if not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")):
        pytest.skip("there is no aarch64-linux-gnu-g++ or no qemu-aarch64")
    toolchain = RUNTIME / "cmake" / "aarch64-linux-gnu.cmake"
    return build("aarch64", "EOSFM_TESTS=ON", f"CMAKE_TOOLCHAIN_FILE={toolchain}")


def emulated(isa: str) -> list[str]:
    """Return a command's beginning: the path that is asked for is the best of the processor."""
    return ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", CPUS[isa]]


@pytest.mark.parametrize("isa", CPUS)
def test_promises_on_aarch64(arm_programs: Path, specks: dict[str, Path], isa: str) -> None:
    for bundle in specks.values():
        # The path that is asked for must be there, and the known answer come out.
        run([*emulated(isa), arm_programs / "two_contexts", bundle], {"EOSFM_ISA": isa})
        run([*emulated(isa), arm_programs / "test_api", bundle])


# test_process is of no use here: qemu-user keeps code that it has translated of libraries that are
# gone, and cannot make threads in a child of a process that had some.
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_memory_and_damage_on_aarch64(
    arm_programs: Path, specks: dict[str, Path], precision: str
) -> None:
    bundle = specks[precision]
    run([*emulated("neon-dotprod"), arm_programs / "test_allocation", bundle, "40"])
    run([*emulated("neon-dotprod"), arm_programs / "test_damaged", bundle, "997"])


# Products of bytes are the same integers everywhere. Norms are not: their sums are taken in as many
# parts as a path has lanes, and what they change by a bit, int8 may round to another step.
@pytest.mark.skipif(ALL_ISAS is not X86_ISAS, reason="this machine is no x86-64")
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-6), ("bf16", 1e-3), ("int8", 1e-3)])
def test_aarch64_computes_what_x86_does(
    programs: Path, arm_programs: Path, tmp_path: Path, precision: Precision, most: float
) -> None:
    spec = spec_of((2, 2), 2, backbone=SPECK, fusion="conv1x1")
    bundle = write(tmp_path / "b", random_ensemble(spec, fused=(8, 9, 10, 11)), 64, precision)
    image = image_of(2, 64, 64, seed=5)
    avx2 = levels_of([programs / "print_levels", bundle], image, {"EOSFM_ISA": "avx2"})
    neon, dotprod = (
        levels_of([*emulated(isa), arm_programs / "print_levels", bundle], image) for isa in CPUS
    )
    np.testing.assert_array_equal(neon, dotprod)
    assert np.abs(neon - avx2).max() <= most * np.abs(avx2).max()


def levels_of(
    command: Sequence[str | Path], image: Array, environment: Mapping[str, str] | None = None
) -> Array:
    done = subprocess.run(
        [str(part) for part in command],
        input=image.tobytes(),
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        check=True,
    )
    return np.frombuffer(done.stdout, np.float32)
