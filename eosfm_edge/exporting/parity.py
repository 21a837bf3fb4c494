"""The check at export: what was written, run on real tiles, against the PyTorch ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.graphs import onnxruntime_session, run_graphs
from eosfm_edge.bundle.known_answer import relative_difference, sqnr_db
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.formats.backends import CpuBackend
from eosfm_edge.formats.bundle import LevelDifference, Parity
from eosfm_edge.formats.ensemble import LEVEL_NAMES
from eosfm_edge.formats.precision import Precision
from eosfm_edge.native import header
from eosfm_edge.native.binding import Model

FloatArray = NDArray[np.float32]
Run = Callable[[FloatArray], Sequence[FloatArray]]
_NAMES: dict[CpuBackend, str] = {
    "native": "the native engine",
    "onnxruntime": "the exported ONNX model",
}

# Largest difference from PyTorch, relative to the level's largest value, where nothing is rounded.
TOLERANCE = 1e-4
# Less than these, in decibels, and the rounding is not what is wrong.
LEAST_SQNR: dict[Precision, float] = {"fp16": 30.0, "bf16": 25.0, "int8": 12.0}
# A backend rounds what PyTorch simulates of it, but for values on the border of two integers or
# floats, where the order of sums decides. It may be so much further from fp32 than the simulation,
# and as much nearer as it can;
MOST_LOSS = 3.0  # decibels
# and no further from the simulation than two that have nothing in common but what they approximate:
# their errors add up, to 3 dB more than the larger one where they are equal.
LEAST_AGREEMENT = -5.0  # decibels more than the smaller of their ratios against fp32


@dataclass(frozen=True)
class Expected:
    """The levels expected of a backend on some tiles.

    Attributes:
        tiles: stored values, each (bands, H, W).
        exact: what the PyTorch ensemble makes of each, levels (1, C, h, w).
        simulated: what PyTorch simulates of the backend's rounding; None where nothing is rounded.
        precision: what was asked for.
    """

    tiles: Sequence[FloatArray]
    exact: Sequence[Sequence[FloatArray]]
    simulated: Sequence[Sequence[FloatArray]] | None
    precision: Precision


def check_onnx(graphs: Sequence[Path], expected: Expected) -> Parity:
    """Check a bundle's graphs with ONNX Runtime; what is in bf16, which it does not have, widened.

    Raises:
        CheckFailedError: a level differs by more than ``TOLERANCE`` where nothing is rounded, or
            has a signal to noise ratio below ``LEAST_SQNR``, or is not what was simulated.
    """
    import onnxruntime

    from eosfm_edge.exporting.widened import widened

    sessions = [onnxruntime_session(widened(graph)) for graph in graphs]
    return _check(
        lambda tile: run_graphs(sessions, tile[np.newaxis], LEVEL_NAMES),
        expected,
        "onnxruntime",
        onnxruntime.__version__,
    )


def check_native(bundle: Path, expected: Expected) -> Parity:
    """Check a bundle's native part, whose first tile is the known answer.

    Raises:
        CheckFailedError: as for :func:`check_onnx`.
    """
    with Model(bundle) as model, model.context() as context:
        isa = model.describe().isa.decode()
        return _check(
            lambda tile: context.run(list(tile)), expected, "native", f"{header.version()} ({isa})"
        )


def _check(run: Run, expected: Expected, backend: CpuBackend, version: str) -> Parity:
    """Run all tiles and compare.

    The known answer's tolerance is ``TOLERANCE`` where nothing is rounded. Elsewhere it is twice
    the largest difference that was found: what another processor's order of sums may add to the
    rounding is less than that, what a fault makes is more.
    """
    found = [run(tile) for tile in expected.tiles]
    levels = _compare(found, expected.exact)
    tolerance = TOLERANCE
    agreement = None
    if expected.simulated is None:
        _require_close(levels, backend)
    else:
        _require_signal(levels, backend, expected.precision)
        tolerance = max(TOLERANCE, 2 * max(level.relative for level in levels))
        simulated = _compare(expected.simulated, expected.exact)
        found_and_simulated = _compare(found, expected.simulated)
        _require_agreement(backend, levels, found_and_simulated, simulated)
        # fp16 can overflow in a simulation where the backend does not: nothing agrees with that.
        if all(np.isfinite(level.relative) for level in found_and_simulated):
            agreement = found_and_simulated
    return Parity(
        backend=backend,
        version=version,
        tiles=len(expected.tiles),
        tolerance=tolerance,
        levels=levels,
        agreement=agreement,
    )


def _compare(
    found: Sequence[Sequence[FloatArray]], expected: Sequence[Sequence[FloatArray]]
) -> tuple[LevelDifference, ...]:
    relative = dict.fromkeys(LEVEL_NAMES, 0.0)
    sqnr = dict.fromkeys(LEVEL_NAMES, float("inf"))
    for mine, levels in zip(found, expected, strict=True):
        for name, got, reference in zip(LEVEL_NAMES, mine, levels, strict=True):
            shaped = got.reshape(reference.shape)
            relative[name] = max(relative[name], relative_difference(shaped, reference))
            sqnr[name] = min(sqnr[name], sqnr_db(shaped, reference))
    return tuple(
        LevelDifference(
            level=name,
            relative=relative[name],
            sqnr_db=sqnr[name] if sqnr[name] < float("inf") else None,
        )
        for name in LEVEL_NAMES
    )


def _require_close(levels: Sequence[LevelDifference], backend: CpuBackend) -> None:
    wrong = [level for level in levels if not level.relative <= TOLERANCE]
    if wrong:
        raise CheckFailedError(
            f"{_NAMES[backend]} differs from the PyTorch ensemble: "
            + ", ".join(f"{level.level} by {level.relative:.1e}" for level in wrong),
            expected=f"at most {TOLERANCE:.0e} of the level's largest value",
        )


def _require_signal(
    levels: Sequence[LevelDifference], backend: CpuBackend, precision: Precision
) -> None:
    least = LEAST_SQNR[precision]
    wrong = [level for level in levels if level.sqnr_db is not None and not level.sqnr_db >= least]
    if wrong:
        raise CheckFailedError(
            f"{_NAMES[backend]} in {precision} differs from the PyTorch ensemble: "
            + ", ".join(f"{level.level} has {level.sqnr_db:.1f} dB" for level in wrong),
            expected=f"a signal to noise ratio of at least {least:.0f} dB at every level",
            remedy="export in a higher --precision",
        )


def _require_agreement(
    backend: CpuBackend,
    levels: Sequence[LevelDifference],
    agreement: Sequence[LevelDifference],
    simulated: Sequence[LevelDifference],
) -> None:
    """Compare a backend's levels with fp32, with the simulation, and the simulation with fp32."""
    for exact, mine, theirs in zip(levels, agreement, simulated, strict=True):
        if exact.sqnr_db is None or mine.sqnr_db is None or theirs.sqnr_db is None:
            continue
        # A NaN fails both comparisons; the simulation's own -inf, an overflow, fails neither.
        least = min(exact.sqnr_db, theirs.sqnr_db) + LEAST_AGREEMENT
        if not (exact.sqnr_db >= theirs.sqnr_db - MOST_LOSS and mine.sqnr_db >= least):
            raise CheckFailedError(
                f"{_NAMES[backend]} does not compute what was calibrated: {mine.level} has "
                f"{exact.sqnr_db:.1f} dB against fp32, and {mine.sqnr_db:.1f} dB against PyTorch's "
                "simulation of it",
                expected=f"at least {theirs.sqnr_db - MOST_LOSS:.1f} dB against fp32, which the "
                f"simulation has {theirs.sqnr_db:.1f} dB against, and {least:.1f} dB against it",
                remedy="export in a higher --precision",
            )
