"""The CUDA engine's machine code, made without a GPU, and the command line on the engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.programs import ROOT, RUNTIME

BENCHMARKS = ROOT / "benchmarks"
CUDA = RUNTIME / "backends" / "cuda"

# Of what each kernel may take: with 128 registers two thread blocks of 256 threads share a
# multiprocessor; a few words are spilled where operands are bytes.
MOST_REGISTERS = 128
MOST_SPILLED = 1024
MOST_BYTES = 6 << 20  # all code together


def nvrtc(major: int) -> Path:
    """Return NVRTC of a CUDA, as PyPI's packages lay it beside others of NVIDIA's."""
    for folder in map(Path, sys.path):
        for found in sorted(folder.glob(f"nvidia/*/lib/libnvrtc.so.{major}")):
            return found
    name = "nvidia-cuda-nvrtc-cu12==12.6.*" if major == 12 else "nvidia-cuda-nvrtc"
    pytest.skip(f"there is no NVRTC of CUDA {major}: pip install '{name}'")


@pytest.mark.slow
@pytest.mark.parametrize("major", [12, 13])
def test_cuda_kernels_compile_for_every_gpu_within_limits(tmp_path: Path, major: int) -> None:
    command = [sys.executable, CUDA / "make_code.py", tmp_path, nvrtc(major)]
    subprocess.run(command, check=True, timeout=900)
    made = json.loads((tmp_path / "resources.json").read_text())
    assert len(made) == {12: 5, 13: 3}[major]
    assert sum(code["bytes"] for code in made.values()) <= MOST_BYTES
    for name, code in made.items():
        if name.startswith("compute"):
            continue
        assert len(code["kernels"]) == 7
        for kernel, takes in code["kernels"].items():
            assert takes["registers"] <= MOST_REGISTERS, (name, kernel)
            assert takes["spilled"] <= MOST_SPILLED, (name, kernel)
    table = (tmp_path / "code_table.cc").read_text()
    assert table.count(".incbin") == len(made)


@pytest.fixture
def with_stand_in(programs: Path, tmp_path: Path) -> dict[str, str]:
    """An environment in which libeosfm finds the CUDA engine, and a stand-in for the driver."""
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "libcuda.so.1").symlink_to(programs / "libcuda_standin.so")
    return {**os.environ, "LD_LIBRARY_PATH": f"{programs}:{tmp_path / 'driver'}"}


def verify(bundle: Path, environment: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "eosfm-edge"
    command = [program, "verify", bundle, "--backend", "cuda"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_verify_runs_on_cuda(bundle: Path, with_stand_in: dict[str, str]) -> None:
    done = verify(bundle, with_stand_in)
    assert done.returncode == 0, done.stderr
    assert "cuda" in done.stdout


def test_verify_says_why_cuda_cannot_be_had(
    bundle: Path, programs: Path, with_stand_in: dict[str, str]
) -> None:
    done = verify(bundle, {**with_stand_in, "LD_LIBRARY_PATH": str(programs)})
    assert done.returncode == 2
    assert "there is no NVIDIA driver" in done.stderr
    assert "Traceback" not in done.stderr


def test_gpu_script_prepares_a_folder_and_measures_from_it(
    specks: dict[str, Path], programs: Path, tmp_path: Path, with_stand_in: dict[str, str]
) -> None:
    built, folder = tmp_path / "built", tmp_path / "gpu"
    built.mkdir()
    shutil.copy(programs.parent / "libeosfm.so", built)
    script = BENCHMARKS / "gpu" / "cuda_engine.py"
    command = [sys.executable, script, "prepare", folder, specks["int8"]]
    environment = {**os.environ, "EOSFM_LIBRARY": str(built / "libeosfm.so")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "libeosfm_cuda.so is not there" in done.stderr

    shutil.copy(programs / "libeosfm_cuda.so", built)
    subprocess.run(command, env=environment, check=True)
    # Nothing of the package that is installed: the folder alone, and numpy.
    environment = {
        "PYTHONPATH": f"{folder}:{Path(np.__file__).parents[1]}",
        "LD_LIBRARY_PATH": with_stand_in["LD_LIBRARY_PATH"].split(":")[1],
    }
    options = ["--rounds", "2", "--tiles", "3", "--json", tmp_path / "gpu.json"]
    command = [
        sys.executable,
        "-S",
        folder / "cuda_engine.py",
        "measure",
        folder / "bundle",
        *options,
    ]
    subprocess.run(command, env=environment, check=True, timeout=300)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert len(found["checks"]) == 6
    assert all(one["known_answer"] and min(one["db"]) > 45 for one in found["checks"].values())
    assert set(found["ms_image"]) == {"native", "cuda"}
    assert set(found["ms_tile_streamed"]) == {f"cuda batch {n}" for n in (1, 4, 16)}
    assert set(found["launches_ms"]) == {"30 empty kernels", "523 empty kernels"}
    assert found["roofline"]["precision"] == "int8" and found["torch"].startswith("none: ")
    assert found["compute_sanitizer"] == "not there"
