"""Bundles for native programs, and the programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import support.speck  # noqa: F401  (the backbone of these bundles)
from support.c_program import build_program
from support.chains import random_ensemble, spec_of, write
from support.heads import add_random_head
from support.programs import INSTALLED, build
from support.shared import make_once


@pytest.fixture(scope="session")
def specks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of some hundred kilobytes, which between them have all that a bundle can have.

    That in fp32 has a head, ``landuse``.
    """

    def make(folder: Path) -> None:
        plain = random_ensemble(spec_of((2, 2), 2, backbone="speck"))
        mixed = random_ensemble(
            spec_of((2, 2), 2, backbone="speck", normalisation="none", fusion="mlp"),
            fused=(8, 9, 10, 11),
        )
        projected = random_ensemble(
            spec_of(
                (2, 2), 2, backbone="speck", normalisation="layer", fusion="addition",
                projection=True,
            ),
            projected=((12, 12, 20, 8),) * 2,
        )  # fmt: skip
        add_random_head(write(folder / "fp32", plain, 32, "fp32"))
        write(folder / "bf16", mixed, 32, "bf16")
        write(folder / "int8", projected, 32, "int8")

    folder = make_once(tmp_path_factory, "speck-bundles", make)
    return {precision: folder / precision for precision in ("fp32", "bf16", "int8")}


@pytest.fixture(scope="session")
def programs() -> Path:
    """The native tests and examples, compiled as a release is."""
    return build("release", "EOSFM_TESTS=ON", f"CMAKE_INSTALL_PREFIX={INSTALLED}")


@pytest.fixture(
    scope="session", params=["release", pytest.param("asan", marks=pytest.mark.sanitizers)]
)
def program(request: pytest.FixtureRequest) -> Path:
    """The program eosfm; in the deep tier with address and undefined-behaviour sanitizers too."""
    return build_program(request.param)
