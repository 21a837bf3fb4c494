"""Weights of zeros, as sparse training and pruning by masks leave them: nothing divides by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from support.precise import calibrated
from support.scenes import scene_pixels, write_scene
from support.specimens import MOTE
from support.tiers import thorough
from support.weights import encoder_state

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.runtime.run import run_scene

BANDS = tuple(InputBand(name=name, scale=1e-4) for name in ("B04", "B03", "B02"))


@pytest.fixture(scope="module", params=[0.0, 1e-9], ids=["dead", "nearly dead"])
def given(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return an ensemble with dead channels, and a scene for it."""
    folder = tmp_path_factory.mktemp("dead")
    state = encoder_state(3, backbone=f"convnextv2_{MOTE}")
    for key, value in state.items():
        if ".mlp.fc1." in key:
            value[::3] *= request.param
        elif ".conv_dw." in key:
            value[::7] *= request.param
        elif key.endswith("fc2.weight"):
            value[:, ::3] *= request.param
            value[::5] *= request.param
    torch.save(state, folder / "dead.pth")
    import_ensemble([folder / "dead.pth"], folder / "dead", ImportOptions(input=BANDS))
    names = [band.name or "" for band in BANDS]
    return folder / "dead", write_scene(folder / "scene.tif", scene_pixels(3, 256, 256), names)


@pytest.mark.parametrize("precision", ["int8", *thorough("fp32", "bf16")])
def test_dead_channels_export_and_run_in_any_precision(
    given: tuple[Path, Path], tmp_path: Path, precision: str
) -> None:
    ensemble, scene = given
    scales = calibrated(tmp_path, ensemble, scene) if precision == "int8" else None
    options = ExportOptions(tile=64, precision=precision, calibration=scales)  # type: ignore[arg-type]
    export_bundle(ensemble, scene, tmp_path / "dead.eosfm", options)
    run_scene(tmp_path / "dead.eosfm", scene, tmp_path / "features")
    for level in range(1, 5):
        with rasterio.open(tmp_path / "features" / f"level{level}.tif") as raster:
            assert np.isfinite(raster.read()).all()
