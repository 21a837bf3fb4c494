"""An ensemble and a scene that are exported in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.palettes import with_palette
from support.scenes import scene_pixels, write_scene
from support.shared import make_once
from support.weights import write_pth

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.formats.ensemble import InputBand


@pytest.fixture(scope="session")
def tiny_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One RGB specialist."""

    def make(folder: Path) -> None:
        bands = tuple(InputBand(name=name, scale=1e-4) for name in ("B04", "B03", "B02"))
        source = write_pth(folder / "tiny.pth", [3])
        import_ensemble([source], folder / "tiny", ImportOptions(input=bands))
        with_palette(folder / "tiny")

    return make_once(tmp_path_factory, "tiny", make) / "tiny"


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with room for several tiles of 32 pixels."""
    path = tmp_path_factory.mktemp("tiny_scene") / "scene.tif"
    return write_scene(path, scene_pixels(3, 96, 96), ("B04", "B03", "B02"))
