"""Values that cannot be what a bundle takes: GDAL hosts refuse what `eosfm-edge run` refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from support.scenes import scene_pixels, write_scene
from support.shared import make_once

from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.runtime.run import run_scene

Array = NDArray[Any]
SIDE = 192
INPUTS = {
    "light": tuple(InputBand(name=name, scale=1e-4, nodata=0) for name in ("B04", "B10", "B12")),
    "physical": tuple(InputBand(name=name) for name in ("B04", "B10", "B12")),
    "radar": tuple(InputBand(name=name) for name in ("VV", "VH", "HH")),
    "other": tuple(InputBand(name=name) for name in ("elevation", "slope", "aspect")),
}


@pytest.fixture(scope="module")
def host(programs: Path) -> Path:
    if not (programs / "gdal_features").exists():
        pytest.skip("there is no libgdal-dev")
    return programs / "gdal_features"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each kind of input: KIND.eosfm."""
    from support.specimens import ensemble_of, write_ensemble

    import eosfm_edge as ee

    def make(folder: Path) -> None:
        for kind, bands in INPUTS.items():
            ensemble = ensemble_of((3,), backbone="mote")
            ensemble.spec = ensemble.spec.model_copy(update={"input": bands})
            write_ensemble(folder / kind, ensemble)
            scene = folder / f"{kind}.tif"
            write_scene(scene, usual(kind), [str(band) for band in bands])
            ee.export(
                folder / kind, folder / f"{kind}.eosfm", ee.ExportOptions(data=scene, tile=64)
            )

    return make_once(tmp_path_factory, "host-values", make)


def usual(kind: str) -> Array:
    """Return stored values as the ensemble takes them."""
    pixels = scene_pixels(3, SIDE, SIDE)
    if kind == "radar":
        return (pixels / 200 - 22).astype(np.float32)
    if kind == "other":
        return pixels.astype(np.float32)
    pixels[1] //= 100  # the air is clear
    return pixels if kind == "light" else (pixels * 1e-4).astype(np.float32)


def striped(values: Array, nodata: float) -> Array:
    values = values.copy()
    values[:, :, :20] = nodata
    return values


def landsat(values: Array, scale: float, offset: float) -> Array:
    return ((values * 1e-4 - offset) / scale).round().astype(np.uint16)


# The bundle, what is stored for its usual values, the file's scale tag, and whether that is right.
CASES: dict[str, tuple[str, Callable[[Array], Array], tuple[float, float] | None, bool]] = {
    "as it is": ("light", lambda v: v, None, True),
    "a nodata value that is stated": ("light", lambda v: striped(v, 0), None, True),
    "1000 more": ("light", lambda v: v + np.uint16(1000), None, False),
    "1000 more, tagged": ("light", lambda v: v + np.uint16(1000), (1e-4, -0.1), True),
    "an offset that is not there": ("light", lambda v: v, (1e-4, -0.1), False),
    "level 1 of Landsat": ("light", lambda v: landsat(v, 2e-5, -0.1), None, False),
    "level 2 of Landsat": ("light", lambda v: landsat(v, 2.75e-5, -0.2), None, False),
    "level 1 of Landsat, tagged": ("light", lambda v: landsat(v, 2e-5, -0.1), (2e-5, -0.1), True),
    "a scale tag that was kept": (
        "light", lambda v: (v * 1e-4).astype(np.float32), (1e-4, 0), False,
    ),
    "reflectances": ("light", lambda v: (v * 1e-4).astype(np.float32), None, False),
    "a picture": ("light", lambda v: (v[[0, 0, 0]] / 4000 * 254 + 1).astype(np.uint8), None, False),
    "unstated nodata": (
        "light", lambda v: striped(v.astype(np.int16), -9999), None, False,
    ),
    "physical": ("physical", lambda v: v, None, True),
    "physical, 0.1 more": ("physical", lambda v: v + np.float32(0.1), None, False),
    "any numbers": ("physical", lambda v: v * np.float32(1e4), None, True),
    "decibels": ("radar", lambda v: v, None, True),
    "linear power": ("radar", lambda v: (10 ** (v / 10)).astype(np.float32), None, False),
    "hundredths": ("radar", lambda v: (v * 100).astype(np.int16), None, False),
    "hundredths, tagged": ("radar", lambda v: (v * 100).astype(np.int16), (0.01, 0), True),
    "decibels with unstated nodata": ("radar", lambda v: striped(v, -9999), None, False),
    "no unit": ("other", lambda v: v - np.float32(5000), None, True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_host_refuses_values_that_run_refuses(
    host: Path, folder: Path, tmp_path: Path, case: str
) -> None:
    kind, store, tags, is_right = CASES[case]
    scene, bundle = tmp_path / "scene.tif", folder / f"{kind}.eosfm"
    write_scene(scene, store(usual(kind)), [str(band) for band in INPUTS[kind]])
    if tags:
        with rasterio.open(scene, "r+") as dataset:
            dataset.scales, dataset.offsets = (tags[0],) * 3, (tags[1],) * 3
    try:
        run_scene(bundle, scene, tmp_path / "python")
        run_takes_it = True
    except UserError as error:
        assert "read as declared" in str(error)
        run_takes_it = False
    done = subprocess.run(
        [host, bundle, scene, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert ("read as declared" not in done.stderr) == run_takes_it == is_right, done.stderr
    assert (done.returncode == 0) == is_right
    if not is_right:
        assert "expected: " in done.stderr and "fix: " in done.stderr
        assert not list(tmp_path.glob("out/*.tif"))
        command = [host, "--trust-values", bundle, scene, tmp_path / "trusted"]
        subprocess.run(command, capture_output=True, check=True)


def test_large_scenes_are_sampled_by_windows(host: Path, folder: Path, tmp_path: Path) -> None:
    """Without overviews; the offset is only seen if the sample is of all parts."""
    pixels = np.tile(usual("light"), (1, 4, 4))
    pixels[:, : SIDE * 4 - 150] += 1000
    scene = write_scene(tmp_path / "scene.tif", pixels, [str(band) for band in INPUTS["light"]])
    subprocess.run([host, folder / "light.eosfm", scene, tmp_path / "out"], check=True)
    pixels[:, SIDE * 4 - 150 :] += 1000
    write_scene(scene, pixels, [str(band) for band in INPUTS["light"]])
    done = subprocess.run(
        [host, folder / "light.eosfm", scene, tmp_path / "out2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "stores 1000 more" in done.stderr
