"""A small bundle, and a scene whose labels can be told from its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.labelled import CODES, HEIGHT, WIDTH, patchwork, write_mask
from support.scenes import write_scene
from support.shared import make_once


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scene.tif and mask.tif: classes differ in brightness and in texture."""

    def make(folder: Path) -> None:
        codes = patchwork()
        rng = np.random.default_rng(1)
        level = {10: 600, 20: 1500, 40: 1500}
        noise = {10: 100, 20: 30, 40: 500}
        pixels = np.zeros((3, HEIGHT, WIDTH))
        for code in CODES:
            values = level[code] + noise[code] * rng.standard_normal((3, HEIGHT, WIDTH))
            pixels = np.where(codes == code, values, pixels)
        write_scene(folder / "scene.tif", pixels.clip(1, 9999).astype(np.uint16))
        write_mask(folder / "mask.tif", codes)

    return make_once(tmp_path_factory, "labelled", make)


@pytest.fixture(scope="session")
def small(specks: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two tiny specialists with tiles of 64 pixels; not to be changed."""
    from eosfm_edge.exporting.exporter import ExportOptions, export_bundle

    def make(folder: Path) -> None:
        export_bundle(specks, imagery, folder / "small.eosfm", ExportOptions(tile=64))

    return make_once(tmp_path_factory, "bundle-for-heads", make) / "small.eosfm"
