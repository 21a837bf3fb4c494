"""Calibration imagery as a specialist sees it: physical units, and the bands of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.scenes import scene_pixels, write_scene
from support.specimens import ensemble_of
from torch import Tensor

from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.network.tiles import in_physical_units, inputs_of
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.tiles import load_tiles

SIDE = 32
SPEC = ensemble_of().spec.model_copy(update={"input": (InputBand(),) * 3})  # stored as they are


def test_tiles_are_in_physical_units(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", scene_pixels(3, 96, 96))
    bands = tuple(InputBand(scale=0.01 * (i + 1), offset=-i) for i in range(3))
    scaled = SPEC.model_copy(update={"input": bands})
    stored = load_tiles([path], bands, SIDE, 4, 0)
    physical = in_physical_units(stored, scaled)
    for a, b in zip(stored.calibration, physical.calibration, strict=True):
        for i, band in enumerate(bands):
            np.testing.assert_allclose(b[i], a[i] * band.scale + band.offset, rtol=1e-5)


def test_they_are_those_of_the_scenes(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", scene_pixels(3, 96, 96))
    names = tuple(Band(name=name) for name in ("B04", "B03", "B02"))
    options: dict[str, Any] = {"names": names, "radiometry": Radiometry(nodata=0)}
    stored = load_tiles([path], SPEC.input, SIDE, 4, 0, **options)
    physical = in_physical_units(stored, SPEC)
    assert (physical.sha256, physical.source) == (stored.sha256, stored.source)
    ours, theirs = physical.calibration + physical.held_out, stored.calibration + stored.held_out
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("wants", [13, 3])
def test_a_specialist_sees_its_bands_of_each_run_in_turn(wants: int) -> None:
    spec = ensemble_of((3,), fusion="none").spec
    specialist = spec.specialists[0].model_copy(update={"bands": (Band(),) * wants})
    from eosfm_edge.ensemble.model import Ensemble

    many = spec.model_copy(update={"input": spec.input[:1] * 13, "specialists": (specialist,)})
    ensemble = Ensemble(many)
    tiles = [Tensor(np.arange(13.0).reshape(13, 1, 1) + 100 * i) for i in range(3)]
    seen = [[int(v) for v in image.flatten().tolist()] for image in inputs_of(ensemble, 0, tiles)]
    runs = ensemble.sets[0]
    assert len(runs) == (2 if wants == 3 else 1)
    assert seen == [[100 * i + band for band in runs[i % len(runs)]] for i in range(3)]
