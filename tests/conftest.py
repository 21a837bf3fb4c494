"""A small ensemble, a scene and a bundle, made once for all tests.

Nothing here imports torch before a fixture needs it: tests of files and texts start at once.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.scenes import scene_pixels, write_scene
from support.shared import make_once

# Models this small gain nothing from threads, and beside other workers they starve. It is read when
# torch is imported, here and in the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SKIPPED = "encoder_3 is skipped"


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 13-band scene of 300 x 200 pixels: neither side a multiple of a tile or of 32."""
    from eosfm_edge.formats.bands import S2_L1C

    def make(folder: Path) -> None:
        write_scene(folder / "scene.tif", scene_pixels(13, 200, 300), S2_L1C)

    return make_once(tmp_path_factory, "scene", make) / "scene.tif"


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory: RGB, 13-band and radar specialists over a 13-band input."""
    from support.palettes import with_palette
    from support.weights import S2_INPUT, write_pth

    from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble

    def make(folder: Path) -> None:
        source = write_pth(folder / "ensemble.pth", (3, 13, 2))
        with pytest.warns(UserWarning, match=SKIPPED):
            import_ensemble([source], folder / "small", ImportOptions(input=S2_INPUT))
        with_palette(folder / "small")

    return make_once(tmp_path_factory, "ensemble", make) / "small"


@pytest.fixture(scope="session")
def bundle(ensemble: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ensemble as a bundle with tiles of 96 pixels."""
    from eosfm_edge.exporting.exporter import ExportOptions, export_bundle

    def make(folder: Path) -> None:
        with pytest.warns(UserWarning, match=SKIPPED):
            export_bundle(ensemble, scene, folder / "small.eosfm", ExportOptions(tile=96))

    return make_once(tmp_path_factory, "bundle", make) / "small.eosfm"


@pytest.fixture(scope="session")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-band scene of 54 tiles of 64 pixels."""

    def make(folder: Path) -> None:
        write_scene(folder / "scene.tif", scene_pixels(3, 400, 600))

    return make_once(tmp_path_factory, "imagery", make) / "scene.tif"


@pytest.fixture(scope="session")
def specks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory: two tiny specialists, fused by a 1x1 convolution."""
    from support.palettes import with_palette
    from support.specimens import ensemble_of, write_ensemble

    def make(folder: Path) -> None:
        with_palette(write_ensemble(folder / "specks", ensemble_of()))

    return make_once(tmp_path_factory, "specks", make) / "specks"


@pytest.fixture(scope="session")
def motes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of specialists twice as wide, of whose cost most is in hidden channels."""
    from support.palettes import with_palette
    from support.specimens import ensemble_of, write_ensemble

    def make(folder: Path) -> None:
        with_palette(write_ensemble(folder / "motes", ensemble_of(backbone="mote")))

    return make_once(tmp_path_factory, "motes", make) / "motes"
