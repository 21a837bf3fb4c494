"""The same bundle for each purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.shared import make_once

from eosfm_edge.formats.bundle import Purpose


@pytest.fixture(scope="session")
def bundles(specks: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same bundle for each purpose: native.eosfm, onnx.eosfm, all.eosfm."""
    from eosfm_edge.exporting.exporter import ExportOptions, export_bundle

    def make(folder: Path) -> None:
        purposes: tuple[Purpose, ...] = ("native", "onnx", "all")
        for purpose in purposes:
            options = ExportOptions(tile=64, purpose=purpose)
            export_bundle(specks, imagery, folder / f"{purpose}.eosfm", options)

    return make_once(tmp_path_factory, "bundles by purpose", make)
