"""Products on the command line: what is run is what a plain file of the same pixels gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.command import exit_code, inside, leftovers
from support.products import METRES, sentinel_2, zipped
from support.scenes import write_scene

from eosfm_edge.formats.bands import S2_L1C


def test_a_zipped_product_runs_as_a_plain_file_of_its_values(bundle: Path, tmp_path: Path) -> None:
    offsets = dict.fromkeys(range(13), -1000.0)
    product, pixels = sentinel_2(tmp_path, "1C", "0511", offsets=offsets)
    planes = [pixels[n].repeat(METRES[n] // 10, 0).repeat(METRES[n] // 10, 1) for n in S2_L1C]
    plain = write_scene(tmp_path / "right.tif", np.stack(planes), S2_L1C)
    said = ["--scale", "0.0001", "--offset", "-0.1", "--trust-values"]
    inside("run", bundle, plain, "-o", tmp_path / "right", *said)
    inside("run", bundle, zipped(product), "-o", tmp_path / "given", "--trust-values")
    for level in (1, 2, 3, 4):
        with (
            rasterio.open(tmp_path / "right" / f"level{level}.tif") as right,
            rasterio.open(tmp_path / "given" / f"level{level}.tif") as given,
        ):
            expected, found = right.read(), given.read()
            assert right.shape == given.shape
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.nanmax(abs(expected)))


def test_numbers_of_an_unknown_sensor_write_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.ones((13, 96, 96), np.uint16)
    numbered = write_scene(tmp_path / "s.tif", pixels, [f"B{i}" for i in range(1, 14)])
    out = tmp_path / "out"
    out.mkdir()
    assert exit_code("run", bundle, numbered, "-o", out / "features") == 2
    message = capsys.readouterr().err
    assert "s.tif" in message and "--bands" in message and "Traceback" not in message
    assert leftovers(out) == []
