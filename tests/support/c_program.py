"""The C program `eosfm`: building and running it, and scenes and levels as it has them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from eosfm_edge.formats.bundle import read_manifest
from support.programs import DEBUG, INSTALLED, ROOT, build

COAST = ROOT / "examples" / "demo" / "coast.eosfm"  # 13 bands; 0 is no data, but in B10
COAST_BANDS = tuple(band.name or "" for band in read_manifest(COAST).input)

Pixels = NDArray[Any]


def build_program(configuration: str) -> Path:
    """Return the program of a configuration that other tests build too: release or asan."""
    options = {
        "release": ("EOSFM_TESTS=ON", f"CMAKE_INSTALL_PREFIX={INSTALLED}"),
        "asan": (*DEBUG, "EOSFM_SANITIZE=address,undefined"),
    }
    tests = build(configuration, *options[configuration], targets=("eosfm_program",))
    return tests.parent / "eosfm"


def eosfm(
    program: Path | Sequence[object],
    *arguments: object,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    **how: Any,
) -> tuple[int, str, str]:
    """Run the program; returns exit code, standard output and standard error."""
    command = [program] if isinstance(program, Path) else list(program)
    done = subprocess.run(
        [str(part) for part in (*command, *arguments)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(environment or {})},
        timeout=120,
        **how,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def write_envi(
    path: Path,
    pixels: Pixels,
    interleave: str = "bsq",
    names: Sequence[str] | None = COAST_BANDS,
    *,
    nodata: float | None = None,
) -> Path:
    """Write pixels [bands][height][width] by GDAL, with a header beside them."""
    profile: dict[str, Any] = {"driver": "ENVI", "dtype": pixels.dtype, "interleave": interleave}
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, nodata=nodata, crs="EPSG:32633",
        transform=rasterio.Affine(10.0, 0, 500_000, 0, -10.0, 4_000_000), **profile,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        if names:
            dataset.descriptions = tuple(names)
    return path


def npy_levels(folder: Path) -> dict[str, Pixels]:
    """Return the levels that are in a folder, as [channels][height][width]."""
    return {path.stem: np.load(path).transpose(2, 0, 1) for path in sorted(folder.glob("*.npy"))}
