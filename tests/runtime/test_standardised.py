"""Specialists that were trained on standardised values: a mean and a deviation of each band."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from support.command import exit_code, inside
from support.scenes import scene_pixels, write_scene
from support.shared import make_once
from support.specimens import ensemble_of, write_ensemble

from eosfm_edge.bundle.agreement import disagreements
from eosfm_edge.ensemble.model import physical_units
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.native.binding import Model
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.scene.reading import Radiometry

Array = NDArray[Any]
NAMES = ("B04", "B03", "B02")
MEANS, STDS = (1900.0, 2100.0, 1500.0), (900.0, 700.0, 1100.0)
INPUT = tuple(
    InputBand(name=name, scale=1e-4, nodata=0, mean=mean, std=std)
    for name, mean, std in zip(NAMES, MEANS, STDS, strict=True)
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        ensemble = ensemble_of((3,), backbone="mote")
        ensemble.spec = ensemble.spec.model_copy(update={"input": INPUT})
        write_ensemble(folder / "z", ensemble)
        scene = write_scene(folder / "scene.tif", scene_pixels(3, 128, 128), NAMES)
        export_bundle(folder / "z", scene, folder / "z.eosfm", ExportOptions(tile=64))

    return make_once(tmp_path_factory, "standardised", make) / "z.eosfm"


def standardised(pixels: Array) -> Array:
    mean, std = (np.array(values)[:, np.newaxis, np.newaxis] for values in (MEANS, STDS))
    return (pixels - mean) / std


def test_specialists_see_standardised_values() -> None:
    spec = ensemble_of((3,), backbone="mote").spec.model_copy(update={"input": INPUT})
    pixels = scene_pixels(3, 32, 32).astype("f4")
    seen = physical_units(spec, torch.from_numpy(pixels[np.newaxis]))[0].numpy()
    np.testing.assert_allclose(seen, standardised(pixels), atol=1e-5)


def test_libeosfm_is_told_of_both(bundle: Path) -> None:
    """A host's own scale is of physical values, whatever specialists see."""
    with Model(bundle) as model:
        bands = [model.band(i) for i in range(3)]
    assert [(band.scale, band.offset) for band in bands] == [(pytest.approx(1e-4), 0)] * 3
    assert disagreements(bundle, read_manifest(bundle)) == []


def test_a_hosts_own_scale_is_of_physical_values(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = scene_pixels(3, 64, 64)
    with Model(bundle) as model, model.context(threads=1) as context:
        right = [level.copy() for level in context.run(list(pixels))[0]]
        plain = context._band_structs

        def calibrated(bands: Any) -> Any:
            structs = plain(bands)
            for band in structs:
                band.calibrated, band.scale, band.offset = 1, 1e-4, -0.1
            return structs

        monkeypatch.setattr(context, "_band_structs", calibrated)
        given = context.run(list(pixels + np.uint16(1000)))[0]
    for one, other in zip(right, given, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max())


def test_a_mean_that_was_edited_is_found(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    edited = [band.model_copy(update={"mean": 0.0}) for band in manifest.input]
    told = disagreements(bundle, manifest.model_copy(update={"input": tuple(edited)}))
    assert len(told) == 3 and "input.0.seen" in told[0]


def levels(bundle: Path, scene: Path, out: Path, **radiometry: Any) -> list[Array]:
    run_scene(bundle, scene, out, RunOptions(radiometry=Radiometry(**radiometry)))
    found = []
    for path in sorted(out.glob("level*.tif")):
        with rasterio.open(path) as dataset:
            found.append(dataset.read())
    return found


@pytest.mark.parametrize("how", ["float reflectance", "offset tag", "int32", "offset option"])
def test_files_of_other_units_give_the_same_features(
    bundle: Path, tmp_path: Path, how: str
) -> None:
    """Scale and offset are of physical values: the bundle standardises them."""
    pixels = scene_pixels(3, 128, 128)
    pixels[:, :, :32] = 0
    right = levels(bundle, write_scene(tmp_path / "right.tif", pixels, NAMES), tmp_path / "right")
    missing = pixels == 0
    path, options = tmp_path / "given.tif", {}
    if how == "float reflectance":
        light = np.where(missing, np.nan, pixels * 1e-4).astype("f4")
        write_scene(path, light, NAMES)
        options = {"scale": 1.0, "offset": 0.0}
    elif how == "int32":
        write_scene(path, pixels.astype("i4"), NAMES)
    else:
        write_scene(path, np.where(missing, 0, pixels + 1000).astype("u2"), NAMES)
        if how == "offset tag":
            with rasterio.open(path, "r+") as dataset:
                dataset.scales, dataset.offsets = (1e-4,) * 3, (-0.1,) * 3
        else:
            options = {"offset": -0.1}
    given = levels(bundle, path, tmp_path / "given", **options)
    assert np.isnan(right[0]).mean() == 0.25
    for one, other in zip(right, given, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.nanmax(np.abs(one)))


def test_values_of_another_unit_are_refused(bundle: Path, tmp_path: Path) -> None:
    """In the ensemble's own numbers nothing is refused, and a remedy leads there."""
    pixels = scene_pixels(3, 128, 128)
    light = write_scene(tmp_path / "light.tif", (pixels * 1e-4).astype("f4"), NAMES)
    with pytest.raises(UserError, match="--scale 1 --offset 0"):
        levels(bundle, light, tmp_path / "out")
    assert len(levels(bundle, light, tmp_path / "out", scale=1, offset=0)) == 4


# ---- Import ----


def imported(path: Path) -> list[dict[str, Any]]:
    return list(json.loads((path / "ensemble.json").read_text())["input"])


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.weights import write_pth

    return write_pth(tmp_path_factory.mktemp("weights") / "e.pth", (3,))


def test_import_takes_values_of_each_band(weights: Path, tmp_path: Path) -> None:
    command = ("import", weights, "--bands", ",".join(NAMES), "-o")
    inside(*command, tmp_path / "a", "--scale", "1e-4", "--scale", "B03=2e-4", "--offset", "B02=-1")
    bands = imported(tmp_path / "a")
    assert [band["scale"] for band in bands] == [1e-4, 2e-4, 1e-4]
    assert [band["offset"] for band in bands] == [0, 0, -1]
    assert all(band["mean"] is None for band in bands)
    means = ("--mean", "1900,2100,1500", "--std", 900, "--std", "B03=700", "--std", "B02=1100")
    inside(*command, tmp_path / "b", "--scale", "1e-4", "--nodata", 0, *means)
    assert [InputBand(**band) for band in imported(tmp_path / "b")] == list(INPUT)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--mean", "1,2"), "2 values"),
        (("--mean", 1), "a mean and a std"),
        (("--mean", 1, "--std", 0), "greater than 0"),
        (("--scale", "none"), "--scale"),
        (("--scale", "B08=1"), "no band B08"),
        (("--scale", 0), "must not be 0"),
    ],
)
def test_import_refuses_values_that_cannot_be(
    weights: Path,
    tmp_path: Path,
    options: tuple[object, ...],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bands = ("--bands", ",".join(NAMES))
    assert exit_code("import", weights, *bands, "-o", tmp_path / "out", *options) == 2
    assert named in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_import_says_that_no_scale_was_given(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside("import", weights, "--bands", "RGB", "-o", tmp_path / "a")
    assert "--scale 0.0001" in capsys.readouterr().err
    inside("import", weights, "--bands", "RGB", "--scale", "1e-4", "-o", tmp_path / "b")
    inside("import", weights, "--bands", "RGB", "--mean", 9, "--std", 9, "-o", tmp_path / "c")
    assert "--scale" not in capsys.readouterr().err
