"""Feature rasters: what is under the final name is whole, or there was an error."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_AppDefinedError

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import Level
from eosfm_edge.runtime.cells import CellArray
from eosfm_edge.runtime.features import LevelRaster, written_bytes

CHANNELS, HEIGHT, WIDTH = 40, 70, 600  # with an overview; random values do not compress

Array = NDArray[np.float32]
SmallDisk = Callable[[int], AbstractContextManager[Path]]


@pytest.fixture(scope="module")
def values() -> Array:
    values = np.random.default_rng(0).normal(size=(CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    values[:, 20:30, 100:300] = np.nan
    values[:, :, 256:512] = np.nan  # two whole blocks, and a whole one of the overview
    return values


def finish(folder: Path, values: Array) -> Path:
    channels, height, width = values.shape
    level = Level(name="level1", stride=4, channels=channels)
    with LevelRaster(level, folder, (width, height), Affine.scale(10), None) as raster:
        raster.write(values, 0, 0)
        raster.finish()
    return raster.path


def test_values_are_written_and_averaged(values: Array, tmp_path: Path) -> None:
    path = finish(tmp_path, values)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        assert dataset.overviews(1) == [2]
    four = values.reshape(CHANNELS, HEIGHT // 2, 2, WIDTH // 2, 2)
    with rasterio.open(path, overview_level=0) as dataset, np.errstate(invalid="ignore"):
        # The patch without data begins and ends at even cells.
        np.testing.assert_allclose(dataset.read(), four.mean(axis=(2, 4)), atol=1e-6)
    assert path.stat().st_size <= written_bytes(WIDTH, HEIGHT, CHANNELS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [(600, 70), (75, 50), (1, 1), (1300, 3)])
@pytest.mark.parametrize("channels", [1, 40, pytest.param(320, marks=pytest.mark.slow)])
def test_the_file_is_no_larger_than_was_asked_for(
    tmp_path: Path, size: tuple[int, int], channels: int
) -> None:
    values = np.random.default_rng(1).normal(size=(channels, *size[::-1])).astype(np.float32)
    assert finish(tmp_path, values).stat().st_size <= written_bytes(*size, channels)


def test_a_disk_that_is_full_never_leaves_a_damaged_file(
    values: Array, tmp_path: Path, small_disk: SmallDisk
) -> None:
    """At any moment: while the plain file, its overview or the cloud-optimised one is written."""
    values = values[:8]  # it is written two dozen times
    whole = finish(tmp_path, values).read_bytes()
    needed = 2 * written_bytes(WIDTH, HEIGHT, len(values))
    outcomes = []
    for size in np.linspace(values.nbytes, needed, 24, dtype=int):
        with small_disk(int(size)) as disk:
            try:
                assert finish(disk, values).read_bytes() == whole
                outcomes.append("whole")
            except (UserError, OSError) as error:
                assert isinstance(error, UserError) or error.errno == errno.ENOSPC
                outcomes.append("refused")
    assert outcomes == sorted(outcomes)  # the smaller ones
    assert (outcomes[0], outcomes[-1]) == ("refused", "whole")


# A block's middle, an overview's, the file's header.
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("how", ["cut", "hole"])
def test_a_file_that_was_damaged_in_writing_is_found(
    values: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: float, how: str
) -> None:
    copy = rasterio.shutil.copy

    def damaging(source: Path, target: Path, **options: Any) -> None:
        copy(source, target, **options)
        place = int(target.stat().st_size * part)
        with target.open("r+b") as file:
            if how == "cut":
                file.truncate(place)
            else:
                file.seek(place)
                file.write(bytes(4096))

    monkeypatch.setattr(rasterio.shutil, "copy", damaging)
    with pytest.raises(UserError, match=r"cannot write .*level1\.tif"):
        finish(tmp_path, values)


def test_a_plain_file_that_was_damaged_in_writing_is_found(
    values: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = rasterio.shutil.copy

    def damaged(source: Path, target: Path, **options: Any) -> None:
        with source.open("r+b") as file:
            file.seek(source.stat().st_size // 2)
            file.write(bytes(4096))
        copy(source, target, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", damaged)
    with pytest.raises(UserError, match="it does not read back as it was written"):
        finish(tmp_path, values)


@pytest.mark.parametrize(
    "error",
    [
        CPLE_AppDefinedError(3, 1, "_tiffWriteProc: No space left on device"),
        SystemError("Unknown GDAL Error"),
    ],
)
def test_gdal_s_own_errors_are_told(
    values: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(rasterio.shutil, "copy", failing)
    with pytest.raises(UserError, match=r"cannot write .* MB are free there"):
        finish(tmp_path, values)


def test_cells_that_are_written_in_part_are_written_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:10], at))
    with closing(CellArray(tmp_path / "cells", 3, 4, 5)) as cells:
        window = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
        cells.write(window, 0, 0)
        np.testing.assert_array_equal(cells.read(0, 0, 4, 3), window)


def test_cells_can_be_closed_twice(tmp_path: Path) -> None:
    cells = CellArray(tmp_path / "cells", 1, 1, 1)
    cells.close()
    with (tmp_path / "cells").open("w"):  # the number of the file is another's now
        cells.close()
    assert (tmp_path / "cells").exists()
