"""Native programs: building and running them, and the paths on which they can run here."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

RUNTIME = Path(__file__).parents[2] / "runtime"

# What each path needs of the processor, in the words of /proc/cpuinfo.
AVX512 = {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
BF16 = AVX512 | {"avx512_vnni", "avx512_bf16"}
X86_PATHS = {
    "amx": BF16 | {"amx_tile", "amx_bf16", "amx_int8"},
    "avx512-bf16": BF16,
    "avx512-vnni": AVX512 | {"avx512_vnni"},
    "avx512": AVX512,
    "avx2": {"avx2", "fma"},
}
ARM_PATHS: dict[str, set[str]] = {"neon-dotprod": {"asimddp"}, "neon": set()}
ALL_PATHS = X86_PATHS if platform.machine() == "x86_64" else ARM_PATHS


def processor_has(path: str) -> bool:
    """Return whether this processor has what a path needs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return ALL_PATHS[path] <= set(flags.split())


# Those of this machine, the best first.
PATHS = tuple(path for path in ALL_PATHS if processor_has(path))


def build(folder: Path, *options: str, targets: Sequence[str] = ("all",)) -> Path:
    """Configure and build libeosfm with its tests; returns the folder of these."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    flags = [f"-D{option}" for option in options]
    run(["cmake", "-S", str(RUNTIME), "-B", str(folder), *generator, *flags])
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
