"""A small ensemble, a scene and a bundle, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scenes import scene_pixels, write_scene
from support.specimens import ensemble_of, write_ensemble, write_imagery
from support.weights import S2_INPUT, write_pth

from eosfm_edge.ensemble.bands import S2_L1C
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.export.exporter import ExportOptions, export_bundle


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 13-band scene of 300 x 200 pixels: neither side a multiple of a tile or of 32."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return write_scene(path, scene_pixels(13, 200, 300), S2_L1C)


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory: RGB, 13-band and radar specialists over a 13-band input."""
    folder = tmp_path_factory.mktemp("ensemble")
    source = write_pth(folder / "ensemble.pth", (3, 13, 2))
    options = ImportOptions(input=S2_INPUT)
    with pytest.warns(UserWarning, match="encoder_3 is skipped"):
        import_ensemble([source], folder / "small", options)
    return folder / "small"


@pytest.fixture(scope="session")
def bundle(ensemble: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ensemble as a bundle with tiles of 96 pixels."""
    path = tmp_path_factory.mktemp("bundle") / "small.eosfm"
    with pytest.warns(UserWarning, match="encoder_3 is skipped"):
        export_bundle(ensemble, scene, path, ExportOptions(tile=96))
    return path


@pytest.fixture(scope="session")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-band scene of 54 tiles of 64 pixels."""
    return write_imagery(tmp_path_factory.mktemp("imagery") / "scene.tif")


@pytest.fixture(scope="session")
def motes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory: two tiny specialists, fused by a 1x1 convolution."""
    folder = tmp_path_factory.mktemp("ensembles") / "motes"
    return write_ensemble(folder, ensemble_of(backbone="mote"))
