"""Native programs: building and running them, and the instruction sets that this machine has."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime"
BUILDS = ROOT / "build" / "native"
INSTALLED = BUILDS / "installed"
DEBUG = ("EOSFM_TESTS=ON", "CMAKE_BUILD_TYPE=Debug", "CMAKE_CXX_FLAGS_DEBUG=-O1 -g")

# What each instruction set needs of the processor, in the words of /proc/cpuinfo.
AVX512 = {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
BF16 = AVX512 | {"avx512_vnni", "avx512_bf16"}
X86_ISAS = {
    "amx": BF16 | {"amx_tile", "amx_bf16", "amx_int8"},
    "avx512-bf16": BF16,
    "avx512-vnni": AVX512 | {"avx512_vnni"},
    "avx512": AVX512,
    "avx2": {"avx2", "fma"},
}
ARM_ISAS: dict[str, set[str]] = {"neon-dotprod": {"asimddp"}, "neon": set()}
ALL_ISAS = X86_ISAS if platform.machine() == "x86_64" else ARM_ISAS


def processor_has(isa: str) -> bool:
    """Return whether this processor has what an instruction set needs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return ALL_ISAS[isa] <= set(flags.split())


# Those of this machine, the best first.
ISAS = tuple(isa for isa in ALL_ISAS if processor_has(isa))


def build(
    configuration: str,
    *options: str,
    targets: Sequence[str] = ("all",),
    source: Path = RUNTIME,
) -> Path:
    """Build libeosfm and its tests in the folder that a configuration keeps from run to run.

    CMake and Ninja compile what changed since, so a run without changes compiles nothing. One
    process builds at a time; the others wait and find it done.

    Returns:
        The folder of the test programs; the libraries are in its parent.
    """
    folder = BUILDS / configuration
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    flags = [f"-D{option}" for option in options]
    folder.mkdir(parents=True, exist_ok=True)
    with (BUILDS / f"{configuration}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(["cmake", "-S", str(source), "-B", str(folder), *generator, *flags])
        run(["cmake", "--build", str(folder), "--parallel", "2", "--target", *targets])
    return folder / "tests"


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """Run a program; its complaints are the test's."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout
