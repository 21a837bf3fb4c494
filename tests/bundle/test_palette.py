"""The palette: colours and groups of features that stay what they are from run to run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from eosfm_edge.bundle.palette import NO_GROUP, Palette, palette_bytes, read_palette
from eosfm_edge.bundle.palette_fit import MOST_CELLS, fit_palette
from eosfm_edge.errors import UserError

Array = NDArray[np.float32]
CHANNELS = (3, 5, 4, 6)


def cells(count: int = 200, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(count, c)).astype(np.float32) for c in CHANNELS]


@pytest.fixture
def palette() -> Palette:
    return fit_palette(cells(), "six")


def test_a_palette_reads_back_as_it_was(palette: Palette, tmp_path: Path) -> None:
    path = tmp_path / "palette.safetensors"
    path.write_bytes(palette_bytes(palette))
    found = read_palette(path)
    assert found is not None
    assert palette_bytes(found) == path.read_bytes()
    assert (found.of, found.grouped, found.channels) == ("six", 2, CHANNELS)


def test_no_palette_is_none(tmp_path: Path) -> None:
    assert read_palette(tmp_path / "palette.safetensors") is None


def test_the_same_cells_give_the_same_palette() -> None:
    assert palette_bytes(fit_palette(cells(), "a")) == palette_bytes(fit_palette(cells(), "a"))


def test_colours_follow_the_direction_of_most_variance() -> None:
    """One channel varies ten times as much as the others: red is that channel."""
    level = cells(1000)[1]
    level[:, 3] *= 10
    colours = fit_palette([cells()[0], level, *cells()[2:]], "a").levels[1]
    np.testing.assert_allclose(np.abs(colours.directions[0]), [0, 0, 0, 1, 0], atol=0.02)
    assert colours.directions[0, 3] > 0  # eigenvectors have no sign of their own
    shades = colours.shades(level.T)
    assert np.corrcoef(shades[0], level[:, 3])[0, 1] > 0.99
    low, high = np.percentile(level[:, 3] - level[:, 3].mean(), (2, 98))
    np.testing.assert_allclose([colours.low[0], colours.high[0]], [low, high], rtol=0.05)


def test_more_channels_than_cells_give_the_same_directions() -> None:
    """The covariance of many channels is decomposed by cells: against numpy's SVD."""
    level = np.random.default_rng(1).normal(size=(20, 50)).astype(np.float32)
    level[:, 7] *= 20
    found = fit_palette([level, level, level, level], "a").levels[2].directions
    expected = np.linalg.svd(level - level.mean(axis=0), full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs((found * expected).sum(axis=1)), 1, atol=1e-5)


def test_clouds_of_cells_become_groups() -> None:
    rng = np.random.default_rng(2)
    centres = 50 * rng.normal(size=(8, 5))
    owners = np.repeat(np.arange(8), 40)
    level = (centres[owners] + rng.normal(size=(320, 5))).astype(np.float32)
    palette = fit_palette([cells(320)[0], level, *cells(320)[2:]], "a")
    groups = palette.groups(level.T)
    # Each cloud is one group, and each group one cloud.
    pairs = set(zip(owners.tolist(), groups.tolist(), strict=True))
    assert len(pairs) == 8
    assert {group for _, group in pairs} == set(range(1, 9))
    along = palette.centres @ palette.levels[1].directions[0]
    assert (np.diff(along) > 0).all() or (np.diff(along) < 0).all()


def test_cells_without_data_have_no_group_and_no_colour(palette: Palette) -> None:
    level = np.full((5, 2, 3), np.nan, np.float32)
    level[:, 0, 0] = 0
    groups = palette.groups(level)
    assert groups[0, 0] > NO_GROUP
    assert (groups.ravel()[1:] == NO_GROUP).all()
    assert (palette.levels[1].shades(level)[:, 1] == 0).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_cells_give_few_groups(count: int) -> None:
    palette = fit_palette(cells(count), "a")
    assert len(palette.centres) == count
    assert all(
        np.isfinite(value).all() for level in palette.levels for value in vars(level).values()
    )


def test_equal_cells_give_one_group() -> None:
    level = np.ones((50, 5), np.float32)
    palette = fit_palette([level, level, level, level], "a")
    assert (palette.groups(level.T) == 1).all()
    assert (palette.levels[0].directions == 0).all()


def test_cells_are_taken_from_all_over() -> None:
    """Of more cells than are looked at, the last half is seen too."""
    level = np.zeros((4 * MOST_CELLS, 5), np.float32)
    level[2 * MOST_CELLS :] = 7
    palette = fit_palette([level] * 4, "a")
    assert len(palette.centres) == 2
    np.testing.assert_allclose(palette.levels[1].mean, 3.5, atol=0.01)


def damaged(content: bytes, how: str) -> bytes:
    tensors = load(content)
    header = {"palette": '{"schema_version":1,"of":"six","grouped":2}'}
    if how == "truncated":
        return content[:-10]
    if how == "empty":
        return b""
    if how == "text":
        return b"not a palette at all, but longer than eight bytes"
    if how == "no header":
        return save(tensors)
    if how == "later version":
        header["palette"] = header["palette"].replace("1", "2", 1)
    if how == "group of no level":
        header["palette"] = header["palette"].replace('"grouped":2', '"grouped":5')
    if how == "not finite":
        tensors["level1.mean"][0] = np.nan
    if how == "other type":
        tensors["level1.mean"] = tensors["level1.mean"].astype(np.float64)
    if how == "other channels":
        tensors["level3.directions"] = tensors["level3.directions"][:, :-1].copy()
    if how == "a level less":
        tensors = {name: value for name, value in tensors.items() if "level3" not in name}
    if how == "a tensor less":
        del tensors["level4.low"]
    if how == "a tensor more":
        tensors["level4.scale"] = np.ones(3, np.float32)
    if how == "too many groups":
        tensors["groups.centres"] = np.zeros((9, 5), np.float32)
    return save(tensors, header)


HOWS = (
    "truncated",
    "empty",
    "text",
    "no header",
    "later version",
    "group of no level",
    "not finite",
    "other type",
    "other channels",
    "a level less",
    "a tensor less",
    "a tensor more",
    "too many groups",
)


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_palette_is_refused_by_its_name(
    palette: Palette, how: str, tmp_path: Path
) -> None:
    path = tmp_path / "palette.safetensors"
    path.write_bytes(damaged(palette_bytes(palette), how))
    with pytest.raises(UserError, match=r"palette\.safetensors is no palette"):
        read_palette(path)


def test_damage_to_no_byte_is_a_bug(palette: Palette, tmp_path: Path) -> None:
    """Every byte of the header, and some of the values, turned around: refused or read."""
    content = palette_bytes(palette)
    path = tmp_path / "palette.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    assert json.loads(content[8:header])
    for place in range(header):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x15]) + content[place + 1 :])
        try:
            read_palette(path)
        except UserError as error:
            assert "palette.safetensors" in str(error)


def test_a_fifo_is_no_palette(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "palette.safetensors")
    with pytest.raises(UserError, match="FIFO"):
        read_palette(tmp_path / "palette.safetensors")
