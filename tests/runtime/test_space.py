"""Runs on disks of every size: whole features or a message, never something between."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from support.scenes import scene_pixels, write_scene
from support.weights import WIDTHS

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.runtime import run
from eosfm_edge.runtime.features import written_bytes
from eosfm_edge.runtime.run import RunOptions, run_scene

SmallDisk = Callable[[int], AbstractContextManager[Path]]

CHANNELS = tuple(3 * width for width in WIDTHS)  # the bundle has three sets


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene whose first level has an overview; most of it is empty, to be quick."""
    pixels = np.zeros((13, 96, 2112), np.uint16)
    pixels[:, :, :400] = scene_pixels(13, 96, 400)
    return write_scene(tmp_path_factory.mktemp("wide") / "wide.tif", pixels, S2_L1C)


def needed() -> int:
    """Return the bytes that a run over the wide scene is said to take."""
    sizes = [written_bytes(2112 >> i, 96 >> i, c) for i, c in enumerate(CHANNELS, start=2)]
    return sum(sizes) + max(sizes)


def outcome(bundle: Path, scene: Path, disk: Path, whole: dict[str, bytes]) -> str:
    """Run on a disk; returns "whole" or why not, and checks that nothing is between."""
    try:
        run_scene(bundle, scene, disk / "out", RunOptions(overlap=0, quicklook=True, threads=1))
    except UserError as error:
        assert list(disk.iterdir()) == []
        return str(error)
    assert {path.name: path.read_bytes() for path in (disk / "out").iterdir()} == whole
    return "whole"


@pytest.fixture(scope="module")
def whole(bundle: Path, wide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    run_scene(bundle, wide, out, RunOptions(overlap=0, quicklook=True, threads=1))
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_what_is_said_to_be_needed_is_enough(
    bundle: Path, wide: Path, whole: dict[str, bytes], small_disk: SmallDisk
) -> None:
    with small_disk(needed() + (64 << 10)) as disk:  # a page for each file and folder
        assert outcome(bundle, wide, disk, whole) == "whole"
    with small_disk(needed() - (64 << 10)) as disk:
        assert "the disk is too full" in outcome(bundle, wide, disk, whole)


@pytest.mark.thorough
def test_a_disk_that_others_fill_meanwhile(
    bundle: Path,
    wide: Path,
    whole: dict[str, bytes],
    small_disk: SmallDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "_require_space", lambda *_: None)
    outcomes = []
    for size in np.linspace(1 << 20, needed(), 12, dtype=int):
        with small_disk(int(size)) as disk:
            outcomes.append(outcome(bundle, wide, disk, whole))
    assert all("cannot write" in text for text in outcomes if text != "whole")
    assert "cannot write" in outcomes[0]
    assert outcomes[-1] == "whole"


def test_a_disk_with_too_little_space_is_refused_with_what_it_takes(
    bundle: Path, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed() - 1))
    with pytest.raises(UserError, match="the disk is too full") as error:
        run_scene(bundle, wide, tmp_path / "out")
    assert f"expected: about {needed() / 1e6:,.0f} MB" in str(error.value)
    assert list(tmp_path.iterdir()) == []
