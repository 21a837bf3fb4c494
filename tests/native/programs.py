"""Native programs: building and running them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

RUNTIME = Path(__file__).parents[2] / "runtime"


def build(folder: Path, *options: str, target: str = "all") -> Path:
    """Configure and build libeosfm with its tests."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    flags = [f"-D{option}" for option in options]
    run(["cmake", "-S", str(RUNTIME), "-B", str(folder), *generator, *flags])
    run(["cmake", "--build", str(folder), "--parallel", "2", "--target", target])
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
