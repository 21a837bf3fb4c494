"""The known answer: differences worked by hand, and what is written is what is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from eosfm_edge.bundle.known_answer import (
    KnownAnswer,
    read_known_answer,
    relative_difference,
    sqnr_db,
)
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.model import physical_units
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import CHAIN_NAME, read_manifest
from eosfm_edge.network.native_files import write_chain

Array = NDArray[np.float32]

INF, NAN = float("inf"), float("nan")

skipped_is_expected = pytest.mark.filterwarnings("ignore:specialist .* is skipped")


def values(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


@pytest.mark.parametrize(
    ("got", "expected", "difference"),
    [
        (values(1, -4), values(1, -4), 0),
        (values(1.5, -4), values(1, -4), 0.125),
        (values(1, 4), values(1, -4), 2),
        (values(0, 0), values(0, 0), 0),
        (values(0, 1e-9), values(0, 0), INF),
        (values(1, NAN), values(1, 4), INF),
        (values(1, 4), values(1, NAN), INF),
        (values(1, NAN), values(1, NAN), INF),
        (values(1, INF), values(1, INF), INF),
        (values(1, 4), values(1, -INF), INF),
    ],
)
def test_the_difference_is_relative_to_the_peak(
    got: Array, expected: Array, difference: float
) -> None:
    assert relative_difference(got, expected) == difference


def test_levels_of_different_shapes_have_no_difference() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        relative_difference(values(1, 1), values(1))


@pytest.mark.parametrize(
    ("got", "expected", "decibels"),
    [
        (values(3, 4), values(3, 4), INF),
        (values(3, 4.5), values(3, 4), 20),  # 25 over 0.25
        (values(3, 9), values(3, 4), 0),
        (values(3, 54), values(3, 4), -20),
        (values(0, 1), values(0, 0), -INF),
        (values(3, NAN), values(3, 4), -INF),
        (values(3, 4), values(3, NAN), -INF),
        (values(3, INF), values(3, 4), -INF),
        (values(3, INF), values(3, INF), -INF),
    ],
)
def test_signal_to_noise(got: Array, expected: Array, decibels: float) -> None:
    assert sqnr_db(got, expected) == pytest.approx(decibels)


@skipped_is_expected
def test_it_is_a_real_tile_and_what_pytorch_makes_of_it(
    bundle: Path, ensemble: Path, scene: Path
) -> None:
    answer = read_known_answer(bundle, read_manifest(bundle))
    with rasterio.open(scene) as source:
        pixels = source.read().astype(np.float32)
    corners = np.argwhere(pixels[0, :-95, :-95] == answer.image[0, 0, 0, 0])
    windows = [pixels[:, y : y + 96, x : x + 96] for y, x in corners]
    assert any(np.array_equal(window, answer.image[0]) for window in windows)

    model = load_ensemble(ensemble)
    with torch.inference_mode():
        levels = model(physical_units(model.spec, torch.from_numpy(answer.image)))
    for stored, expected in zip(answer.levels, levels, strict=True):
        assert stored.std() > 0.1
        torch.testing.assert_close(torch.from_numpy(stored), expected, rtol=1e-5, atol=1e-5)


@skipped_is_expected
@pytest.mark.parametrize(
    "lay",
    [
        np.ascontiguousarray,
        lambda array: np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        np.asfortranarray,
    ],
    ids=["contiguous", "channels-last", "backwards", "strided", "fortran"],
)
def test_arrays_are_written_as_they_read_however_they_lie(
    bundle: Path, ensemble: Path, tmp_path: Path, lay: Callable[[Array], Array]
) -> None:
    manifest = read_manifest(bundle)
    rng = np.random.default_rng(0)
    shapes = [(1, 13, 96, 96)]
    shapes += [
        (1, level.channels, 96 // level.stride, 96 // level.stride) for level in manifest.levels
    ]
    image, *levels = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    answer = KnownAnswer(lay(image), tuple(lay(level) for level in levels))
    write_chain(tmp_path, Chain(load_ensemble(ensemble)), "test", 96, "fp32", answer, 1e-4)
    read = read_known_answer(tmp_path, manifest)
    for got, expected in zip((read.image, *read.levels), (image, *levels), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_an_answer_for_another_bundle_is_refused(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    other = manifest.tile.model_copy(update={"size": 64})
    with pytest.raises(UserError, match=r"known\.image in .*chain\.gguf .*\n.*\(13, 64, 64\)"):
        read_known_answer(bundle, manifest.model_copy(update={"tile": other}))
    level = manifest.levels[3].model_copy(update={"channels": 7})
    with pytest.raises(UserError, match=r"known\.level4 in .*chain\.gguf .*\n.*\(7, 3, 3\)"):
        read_known_answer(
            bundle, manifest.model_copy(update={"levels": (*manifest.levels[:3], level)})
        )


@pytest.mark.parametrize("keep", [0, 3, 10, 100, 1000, 100_000, 500_000])
def test_a_file_that_ends_early_is_refused(bundle: Path, tmp_path: Path, keep: int) -> None:
    shutil.copy(bundle / CHAIN_NAME, tmp_path)
    with (tmp_path / CHAIN_NAME).open("r+b") as file:
        file.truncate(keep)
    with pytest.raises(UserError, match=r"chain\.gguf"):
        read_known_answer(tmp_path, read_manifest(bundle))


def test_a_file_that_is_gone_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*chain\.gguf"):
        read_known_answer(tmp_path, read_manifest(bundle))
