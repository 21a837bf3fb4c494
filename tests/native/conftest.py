"""Bundles for native programs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
import support.speck  # noqa: F401  (the backbone of these bundles)
from support.chains import random_ensemble, spec_of, write
from support.programs import build


@pytest.fixture(scope="session")
def specks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of some hundred kilobytes, which between them have all that a bundle can have."""
    folder = tmp_path_factory.mktemp("specks")
    plain = random_ensemble(spec_of((2, 2), 2, backbone="speck"))
    mixed = random_ensemble(
        spec_of((2, 2), 2, backbone="speck", normalisation="none", fusion="mlp"),
        fused=(8, 9, 10, 11),
    )
    projected = random_ensemble(
        spec_of(
            (2, 2), 2, backbone="speck", normalisation="layer", fusion="addition", projection=True
        ),
        projected=((12, 12, 20, 8),) * 2,
    )
    return {
        "fp32": write(folder / "fp32", plain, 32, "fp32"),
        "bf16": write(folder / "bf16", mixed, 32, "bf16"),
        "int8": write(folder / "int8", projected, 32, "int8"),
    }


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native tests and examples, built once for all of pytest-xdist's processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "native.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(folder / "native", "EOSFM_TESTS=ON")
