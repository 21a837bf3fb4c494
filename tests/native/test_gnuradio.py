"""The GNU Radio block of runtime/examples: its rows are the cells that a stream gives."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.programs import run

from eosfm_edge.native.binding import Model
from eosfm_edge.native.stream import Stream, StreamBand

WIDTH = 100
BANDS = 2


@pytest.fixture(scope="module")
def flowgraph(programs: Path) -> Path:
    program = programs / "line_features"
    if not program.exists():
        pytest.skip("there is no gnuradio-dev")
    return program


def lines_of(rows: int) -> NDArray[np.uint16]:
    """Return (rows, bands, width) stored values."""
    rng = np.random.default_rng(rows)
    return rng.integers(0, 200, (rows, BANDS, WIDTH)).astype(np.uint16)


def streamed(bundle: Path, lines: NDArray[np.uint16], level: int) -> NDArray[np.float32]:
    """Return the cells of a level, (rows, channels, cells)."""
    with Model(bundle) as model, model.context() as context:
        channels = context.shapes[level - 1][0]
        stride = 2 << level
        cells = np.zeros((-(-len(lines) // stride), channels, -(-WIDTH // stride)), np.float32)
        stream = Stream(context, WIDTH, [StreamBand(lines.dtype)] * BANDS)
        left = iter(lines)

        def feed() -> bool:
            line = next(left, None)
            for band in range(BANDS if line is not None else 0):
                assert stream.push_rows(band, line[[band]]) == 1
            return line is not None

        for patch in stream.patches(feed):
            part = patch.levels[level - 1]
            assert part is not None
            _, height, width = part.features.shape
            place = cells[part.row : part.row + height, :, part.column : part.column + width]
            place[:] = part.features.transpose(1, 0, 2)
    return cells


def flow(
    flowgraph: Path, bundle: Path, lines: NDArray[np.uint16], level: int | str
) -> subprocess.CompletedProcess[bytes]:
    command = [str(part) for part in (flowgraph, bundle, WIDTH, level)]
    return subprocess.run(command, input=lines.tobytes(), capture_output=True, timeout=120)


@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("rows", [1, 31, 32, 90, 200])
def test_rows_are_a_streams(
    flowgraph: Path, specks: dict[str, Path], rows: int, level: int
) -> None:
    lines = lines_of(rows)
    done = flow(flowgraph, specks["fp32"], lines, level)
    assert done.returncode == 0, done.stderr.decode()
    expected = streamed(specks["fp32"], lines, level)
    mine = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    np.testing.assert_array_equal(mine, expected)


def test_scenes_follow_each_other(flowgraph: Path, specks: dict[str, Path]) -> None:
    program = [flowgraph.parent / "test_gnuradio", specks["fp32"], str(WIDTH), str(BANDS)]
    assert "all checks hold" in run(program)


def test_what_is_wrong_is_said(flowgraph: Path, specks: dict[str, Path], tmp_path: Path) -> None:
    lines = lines_of(4)
    nowhere = flow(flowgraph, tmp_path / "nowhere", lines, 4)
    assert nowhere.returncode == 1
    assert b"line_features: cannot open" in nowhere.stderr
    level = flow(flowgraph, specks["fp32"], lines, 5)
    assert level.returncode == 1
    assert b"levels are 1 to 4" in level.stderr
