"""Running a bundle: values, georeferencing and blending."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from eosfm_edge.runtime.run import run_scene


def test_levels_lie_on_the_grid_of_their_stride(bundle: Path, scene: Path, tmp_path: Path) -> None:
    report = run_scene(bundle, scene, tmp_path / "out")
    assert report.tiles == 5 * 3
    with rasterio.open(scene) as source:
        for level, stride in enumerate((4, 8, 16, 32), start=1):
            with rasterio.open(tmp_path / "out" / f"level{level}.tif") as features:
                assert features.crs == source.crs
                assert features.shape == (-(-200 // stride), -(-300 // stride))
                assert features.transform == source.transform * source.transform.scale(stride)
                assert features.is_tiled
                assert np.isfinite(features.read()).all()
