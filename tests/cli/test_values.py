"""Values that cannot be what the bundle means: every verb that reads imagery notices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from support.command import exit_code, inside, leftovers
from support.scenes import scene_pixels, write_scene
from support.shared import make_once

from eosfm_edge.errors import SceneWarning
from eosfm_edge.formats.ensemble import InputBand

Array = NDArray[Any]
SIDE = 192
# The bands of each ensemble; cirrus and shortwave infrared let an offset be seen.
INPUTS = {
    "light": tuple(InputBand(name=name, scale=1e-4, nodata=0) for name in ("B04", "B10", "B12")),
    "radar": tuple(InputBand(name=name) for name in ("VV", "VH", "HH")),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ensembles and bundles of each kind of input: KIND and KIND.eosfm."""
    from support.specimens import ensemble_of, write_ensemble

    from eosfm_edge.exporting.exporter import ExportOptions, export_bundle

    def make(folder: Path) -> None:
        for kind, bands in INPUTS.items():
            ensemble = ensemble_of((3,), backbone="mote")
            ensemble.spec = ensemble.spec.model_copy(update={"input": bands})
            write_ensemble(folder / kind, ensemble)
            scene = write(folder / f"{kind}.tif", right(kind), kind)
            export_bundle(folder / kind, scene, folder / f"{kind}.eosfm", ExportOptions(tile=64))

    return make_once(tmp_path_factory, "values", make)


def right(kind: str) -> Array:
    """Return stored values as the ensemble takes them."""
    pixels = scene_pixels(3, SIDE, SIDE)
    if kind == "radar":
        return (pixels / 200 - 22).astype(np.float32)
    pixels[1] //= 100  # the air is clear
    return pixels


def write(path: Path, pixels: Array, kind: str, scale: float | None = None) -> Path:
    write_scene(path, pixels, [str(band) for band in INPUTS[kind]])
    if scale is not None:
        with rasterio.open(path, "r+") as dataset:
            dataset.scales = (scale,) * dataset.count
    return path


def offset_1000(path: Path) -> Path:
    return write(path, right("light") + np.uint16(1000), "light")


def landsat_numbers(path: Path) -> Path:
    numbers = ((right("light") * 1e-4 + 0.1) / 2e-5).round().astype(np.uint16)
    return write(path, numbers, "light")


def scale_tag_kept(path: Path) -> Path:
    return write(path, (right("light") * 1e-4).astype(np.float32), "light", scale=1e-4)


def picture(path: Path) -> Path:
    return write(path, (right("light") / 4000 * 254 + 1).astype(np.uint8), "light")


def linear_power(path: Path) -> Path:
    return write(path, (10 ** (right("radar") / 10)).astype(np.float32), "radar")


# What the user has, the ensemble, what the message names, and the options that mend it.
CASES = [
    (offset_1000, "light", "--offset -0.1", ("--offset", "-0.1")),
    (landsat_numbers, "light", "--scale", ("--scale", "2e-5", "--offset", "-0.1")),
    (scale_tag_kept, "light", "tag", ("--scale", "1", "--offset", "0")),
    (picture, "light", "--scale 0.00392157", ("--scale", "0.00392157", "--offset", "0")),
    (linear_power, "radar", "dB", ()),
]
QUICK = ("--tile", 64, "--tiles", 4)


def verb(name: str, folder: Path, kind: str, scene: Path, out: Path) -> tuple[object, ...]:
    """Return a command that reads a scene."""
    return {
        "run": ("run", folder / f"{kind}.eosfm", scene, "-o", out),
        "export": ("export", folder / kind, "--scene", scene, "--tile", 64, "-o", out),
        "prune": ("prune", folder / kind, "--data", scene, "--ratio", 0.5, *QUICK, "-o", out),
        "calibrate": ("calibrate", folder / kind, "--data", scene, *QUICK, "-o", out),
    }[name]


@pytest.mark.parametrize("name", ["run", "export", "prune", "calibrate"])
@pytest.mark.parametrize(("write_given", "kind", "named", "mended"), CASES)
def test_values_of_another_unit_are_refused_with_what_mends_them(
    write_given: Callable[[Path], Path],
    kind: str,
    named: str,
    mended: tuple[str, ...],
    name: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    scene = write_given(tmp_path / "given.tif")
    assert exit_code(*verb(name, folder, kind, scene, tmp_path / "out.eosfm")) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert named in told and str(scene) in told and "--trust-values" in told
    assert leftovers(tmp_path) == ["given.tif"]


@contextmanager
def silence() -> Iterator[None]:
    """Fail if anything is told of a scene."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SceneWarning)
        yield


def levels(folder: Path) -> list[Array]:
    found = []
    for path in sorted(folder.glob("level*.tif")):
        with rasterio.open(path) as dataset:
            found.append(dataset.read())
    assert len(found) == 4
    return found


@pytest.mark.parametrize(("write_given", "kind", "named", "mended"), CASES[:3])
def test_what_the_message_names_gives_the_right_features(
    write_given: Callable[[Path], Path],
    kind: str,
    named: str,
    mended: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
) -> None:
    """Control: neither the right file, nor the mended one, is told anything."""
    plain = write(tmp_path / "right.tif", right(kind), kind)
    given = write_given(tmp_path / "given.tif")
    with silence():
        inside(*verb("run", folder, kind, plain, tmp_path / "right"))
        inside(*verb("run", folder, kind, given, tmp_path / "given"), *mended)
    for one, other in zip(levels(tmp_path / "right"), levels(tmp_path / "given"), strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        largest = np.nanmax(np.abs(one))
        # Landsat's numbers are rounded to steps of their own.
        bound = 1e-3 if write_given is landsat_numbers else 1e-5
        assert np.nanmax(np.abs(one - other)) <= bound * largest


@pytest.mark.parametrize("kind", list(INPUTS))
@pytest.mark.parametrize("name", ["run", "export", "calibrate"])
def test_right_values_are_told_nothing(name: str, kind: str, folder: Path, tmp_path: Path) -> None:
    scene = write(tmp_path / "right.tif", right(kind), kind)
    options = ("--min-cosine", 0) if name == "calibrate" else ()
    with silence():
        inside(*verb(name, folder, kind, scene, tmp_path / "out.eosfm"), *options)


@pytest.mark.parametrize("name", ["run", "export", "calibrate"])
def test_values_that_are_trusted_are_taken(name: str, folder: Path, tmp_path: Path) -> None:
    scene = linear_power(tmp_path / "given.tif")
    options = ("--min-cosine", 0) if name == "calibrate" else ()
    command = verb(name, folder, "radar", scene, tmp_path / "out.eosfm")
    with silence():
        inside(*command, *options, "--trust-values")
    assert leftovers(tmp_path) == ["given.tif", "out.eosfm"]


def test_nodata_may_be_switched_off(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = right("light")
    pixels[:, :96] = 0
    scene = write(tmp_path / "lake.tif", pixels, "light")
    command = verb("run", folder, "light", scene, tmp_path / "out")
    for options, missing in (((), 0.5), (("--nodata", "none"), 0.0)):
        inside(*command, *options, "--overwrite")
        assert np.isnan(levels(tmp_path / "out")[0]).mean() == missing
    assert exit_code(*command, "--overwrite", "--nodata", "nothing") == 2
    assert "nothing" in capsys.readouterr().err
