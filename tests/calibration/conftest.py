"""Fixtures of the tests of calibration."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.specimens import write_imagery


@pytest.fixture(scope="session")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-band scene."""
    return write_imagery(tmp_path_factory.mktemp("imagery") / "scene.tif", 200, 300)
