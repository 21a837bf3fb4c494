"""Fixtures of the tests of calibration."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.specimens import ensemble_of, write_ensemble, write_imagery


@pytest.fixture(scope="session")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-band scene."""
    return write_imagery(tmp_path_factory.mktemp("imagery") / "scene.tif", 200, 300)


@pytest.fixture(scope="session")
def specks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory: two tiny specialists, fused by a 1x1 convolution."""
    return write_ensemble(tmp_path_factory.mktemp("ensembles") / "specks", ensemble_of())
