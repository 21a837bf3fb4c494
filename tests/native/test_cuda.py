"""The CUDA engine, on the CPU."""

from __future__ import annotations

from pathlib import Path

from support.programs import run


def test_cuda_kernels_match_double_precision_under_every_schedule(programs: Path) -> None:
    assert "all checks hold" in run([programs / "test_cuda_kernels"])
