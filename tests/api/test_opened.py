"""``ee.open``: what ensembles and bundles say of themselves, and features of arrays of any size."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.scenes import scene_pixels, write_scene

import eosfm_edge as ee
from eosfm_edge.formats.bands import S2_L1C


def test_open_shows_what_a_bundle_is(bundle: Path) -> None:
    opened = ee.open(str(bundle))
    assert isinstance(opened, ee.Bundle)
    assert (opened.name, opened.precision, len(opened.bands)) == ("small", "fp32", 13)
    assert opened.levels[0].startswith("level1: ") and opened.levels[0].endswith("stride 4")
    assert opened.size == sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file())
    assert repr(opened).startswith("<Bundle 'small': ")
    assert "B04" in opened._repr_html_() and "level4" in opened._repr_html_()


def test_open_shows_what_an_ensemble_is(ensemble: Path) -> None:
    opened = ee.open(ensemble)
    assert isinstance(opened, ee.Ensemble)
    assert opened.specialists == ("encoder_1", "encoder_2", "encoder_3")
    assert repr(opened).startswith("<Ensemble 'small': 3 specialists, 13 bands, fp32")


def test_html_shows_markup_in_names_as_text(ensemble: Path, tmp_path: Path) -> None:
    place = tmp_path / "<b>bold"
    shutil.copytree(ensemble, place)
    assert "&lt;b&gt;bold" in ee.open(place)._repr_html_()


def test_open_refuses_other_directories(tmp_path: Path) -> None:
    with pytest.raises(ee.UserError, match="neither an ensemble nor a bundle"):
        ee.open(tmp_path)


@pytest.mark.parametrize("size", [(200, 300), (33, 500), (96, 96), (5, 7)])
def test_an_array_of_any_size_gives_what_run_writes(
    bundle: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    pixels = scene_pixels(13, *size)
    scene = write_scene(tmp_path / "s.tif", pixels, S2_L1C)
    ee.run(bundle, scene, tmp_path / "out")
    opened = ee.open(bundle)
    assert isinstance(opened, ee.Bundle)
    found = opened.run(pixels)
    for index, (mine, again) in enumerate(zip(found, opened.run(scene), strict=True), start=1):
        with rasterio.open(tmp_path / "out" / f"level{index}.tif") as dataset:
            written = dataset.read()
        np.testing.assert_array_equal(again, written)
        assert mine.shape == written.shape
        np.testing.assert_allclose(mine, written, rtol=0, atol=1e-4 * np.nanmax(np.abs(written)))


def test_progress_is_told_of_every_tile(bundle: Path) -> None:
    opened, told = ee.open(bundle), list[tuple[str, int, int]]()
    assert isinstance(opened, ee.Bundle)
    opened.run(scene_pixels(13, 96, 160), ee.RunOptions(), progress=lambda *step: told.append(step))
    assert told == [("tiles", 0, 2), ("tiles", 1, 2), ("tiles", 2, 2)]


def test_arrays_that_do_not_fit_are_refused(bundle: Path) -> None:
    opened = ee.open(bundle)
    assert isinstance(opened, ee.Bundle)
    pixels = scene_pixels(13, 96, 96)
    for image, message in (
        (pixels[:3], r"expected: \(13, height, width\)"),
        (pixels[0], r"expected: \(13, height, width\)"),
        (pixels[:, :0], r"expected: \(13, height, width\)"),
        (pixels.astype(np.int64), "astype"),
        (np.ma.masked_equal(pixels, 0), "filled"),
    ):
        with pytest.raises(ee.UserError, match=message):
            opened.run(image)
    with pytest.raises(ee.UserError, match="scale is given"):
        opened.run(pixels, ee.RunOptions(scale=1e-4))
    with pytest.raises(ee.UserError, match="quicklook is given"):
        opened.run(pixels, ee.RunOptions(quicklook=True))


def test_a_damaged_bundle_does_not_run(bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "small.eosfm"
    shutil.copytree(bundle, damaged)
    weights = next((damaged / "specialists").glob("*.gguf"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    opened = ee.open(damaged)
    assert isinstance(opened, ee.Bundle)
    with pytest.raises(ee.CheckFailedError):
        opened.run(scene_pixels(13, 96, 96))
