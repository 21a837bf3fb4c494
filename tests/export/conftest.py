"""An ensemble and a scene that are exported in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from specimens import ensemble_of, write_ensemble, write_imagery
from support import scene_pixels, write_pth, write_scene

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.spec import InputBand


@pytest.fixture(scope="session")
def tiny_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One RGB specialist."""
    folder = tmp_path_factory.mktemp("tiny")
    bands = tuple(InputBand(name=name, scale=1e-4) for name in ("B04", "B03", "B02"))
    source = write_pth(folder / "tiny.pth", [3])
    import_ensemble([source], folder / "tiny", ImportOptions(input=bands))
    return folder / "tiny"


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with room for several tiles of 32 pixels."""
    path = tmp_path_factory.mktemp("tiny_scene") / "scene.tif"
    return write_scene(path, scene_pixels(3, 96, 96), ("B04", "B03", "B02"))


@pytest.fixture(scope="session")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-band scene of 54 tiles of 64 pixels."""
    return write_imagery(tmp_path_factory.mktemp("imagery") / "scene.tif")


@pytest.fixture(scope="session")
def motes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory: two tiny specialists, fused by a 1x1 convolution."""
    folder = tmp_path_factory.mktemp("ensembles") / "motes"
    return write_ensemble(folder, ensemble_of(backbone="mote"))
