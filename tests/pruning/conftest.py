"""What the tests of pruning share: see specimens.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.specimens import ensemble_of, write_ensemble, write_imagery


@pytest.fixture(scope="session")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-band scene of 54 tiles of 64 pixels."""
    return write_imagery(tmp_path_factory.mktemp("imagery") / "scene.tif")


@pytest.fixture(scope="session")
def specks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory: two tiny specialists, fused by a 1x1 convolution."""
    return write_ensemble(tmp_path_factory.mktemp("ensembles") / "specks", ensemble_of())


@pytest.fixture(scope="session")
def motes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of specialists twice as wide, of whose cost most is in hidden channels."""
    ensemble = ensemble_of(backbone="mote")
    return write_ensemble(tmp_path_factory.mktemp("ensembles") / "motes", ensemble)
