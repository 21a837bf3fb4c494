"""The check at export: what was written, run on real tiles, against the PyTorch ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.known_answer import relative_difference, sqnr_db
from eosfm_edge.bundle.manifest import LevelDifference, Parity, Precision
from eosfm_edge.ensemble.spec import LEVEL_STRIDES
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.export.onnx import level_names

FloatArray = NDArray[np.float32]
Run = Callable[[FloatArray], Sequence[FloatArray]]

# Largest difference from PyTorch, relative to the level's largest value, where nothing is rounded.
TOLERANCE = 1e-4
# Less than these, in decibels, and the rounding is not what is wrong.
LEAST_SQNR = {"bf16": 25.0, "int8": 12.0}


def check_onnx(
    model: Path, tiles: Sequence[FloatArray], expected: Sequence[Sequence[FloatArray]]
) -> Parity:
    """Check ``model.onnx`` with ONNX Runtime.

    Args:
        model: the file.
        tiles: stored values, each (bands, H, W).
        expected: what PyTorch makes of each, levels (1, C, h, w).

    Raises:
        CheckFailedError: a level differs by more than ``TOLERANCE``.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(tile: FloatArray) -> Sequence[FloatArray]:
        levels: list[FloatArray] = session.run(None, {name: tile[np.newaxis]})
        return levels

    levels = _compare(run, tiles, expected)
    _require_close(levels, "the exported ONNX model")
    return Parity(
        backend="onnxruntime",
        version=onnxruntime.__version__,
        tiles=len(tiles),
        tolerance=TOLERANCE,
        levels=levels,
    )


def check_native(
    bundle: Path,
    precision: Precision,
    tiles: Sequence[FloatArray],
    expected: Sequence[Sequence[FloatArray]],
) -> Parity:
    """Check a bundle's native part, whose first tile is the known answer.

    The known answer's tolerance is ``TOLERANCE`` in fp32. In bf16 and int8 it is twice the largest
    difference that was found: what another processor's order of sums may add to the rounding is
    less than that, what a fault makes is more.

    Raises:
        CheckFailedError: a level differs by more than ``TOLERANCE`` in fp32, or has a signal to
            noise ratio below ``LEAST_SQNR``.
    """
    from eosfm_edge.runtime import binding

    with binding.Model(bundle) as model, model.context() as context:
        isa = model.describe().isa.decode()
        levels = _compare(lambda tile: context.run(list(tile)), tiles, expected)
    tolerance = TOLERANCE
    if precision == "fp32":
        _require_close(levels, "the native engine")
    else:
        _require_signal(levels, precision)
        tolerance = max(TOLERANCE, 2 * max(level.relative for level in levels))
    return Parity(
        backend="native",
        version=f"{binding.version()} ({isa})",
        tiles=len(tiles),
        tolerance=tolerance,
        levels=levels,
    )


def _compare(
    run: Run, tiles: Sequence[FloatArray], expected: Sequence[Sequence[FloatArray]]
) -> tuple[LevelDifference, ...]:
    names = level_names(len(LEVEL_STRIDES))
    relative = dict.fromkeys(names, 0.0)
    sqnr = dict.fromkeys(names, float("inf"))
    for tile, levels in zip(tiles, expected, strict=True):
        for name, got, reference in zip(names, run(tile), levels, strict=True):
            mine = got.reshape(reference.shape)
            relative[name] = max(relative[name], relative_difference(mine, reference))
            sqnr[name] = min(sqnr[name], sqnr_db(mine, reference))
    return tuple(
        LevelDifference(
            level=name,
            relative=relative[name],
            sqnr_db=sqnr[name] if sqnr[name] < float("inf") else None,
        )
        for name in names
    )


def _require_close(levels: Sequence[LevelDifference], what: str) -> None:
    wrong = [level for level in levels if not level.relative <= TOLERANCE]
    if wrong:
        raise CheckFailedError(
            f"{what} differs from the PyTorch ensemble: "
            + ", ".join(f"{level.level} by {level.relative:.1e}" for level in wrong),
            expected=f"at most {TOLERANCE:.0e} of the level's largest value",
        )


def _require_signal(levels: Sequence[LevelDifference], precision: Precision) -> None:
    least = LEAST_SQNR[precision]
    wrong = [level for level in levels if level.sqnr_db is not None and not level.sqnr_db >= least]
    if wrong:
        raise CheckFailedError(
            f"the native engine in {precision} differs from the PyTorch ensemble: "
            + ", ".join(f"{level.level} has {level.sqnr_db:.1f} dB" for level in wrong),
            expected=f"a signal to noise ratio of at least {least:.0f} dB at every level",
            remedy="export in a higher --precision",
        )
