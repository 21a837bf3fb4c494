"""Milliseconds of another device, from what `eosfm-edge bench` measured there.

Bundles of the ensemble, pruned by different ratios, are timed on the device; between two of them
milliseconds are a linear function of the multiply-accumulates. Nothing is guessed beyond the
largest and the smallest.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bench import read_bench_report


class MeasuredTable:
    """Milliseconds by multiply-accumulates of a tile."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read what ``eosfm-edge bench BUNDLE --json > FILE`` wrote for at least two bundles.

        Raises:
            UserError: a file is not that, or there are fewer than two bundles of different cost.
        """
        points = dict(_point(path) for path in files)
        if len(points) < 2:
            raise UserError(
                f"there are measurements of {len(points)} costs",
                expected="at least two bundles, pruned by different ratios",
                remedy="time more: eosfm-edge bench BUNDLE --backend native --json > FILE",
            )
        self._macs = np.array(sorted(points))
        self._ms = np.array([points[macs] for macs in self._macs])

    def ms(self, macs: float) -> float:
        """Return milliseconds for a tile of so many multiply-accumulates.

        Raises:
            UserError: that is beyond what was measured.
        """
        if not self._macs[0] <= macs <= self._macs[-1]:
            raise UserError(
                f"{macs / 1e6:.0f} million multiply-accumulates are beyond what was measured",
                expected=f"{self._macs[0] / 1e6:.0f} to {self._macs[-1] / 1e6:.0f} million",
                remedy="time a bundle that is smaller or larger on the device",
            )
        return float(np.interp(macs, self._macs, self._ms))


def _point(path: Path) -> tuple[float, float]:
    report = read_bench_report(path)
    native = next((timing for timing in report.timings if timing.name == "native"), None)
    if native is None or report.macs is None:
        raise UserError(
            f"{path} holds no timing of the native engine with its multiply-accumulates",
            expected="what eosfm-edge bench BUNDLE --backend native --json > FILE writes",
        )
    return float(report.macs), statistics.median(native.round_ms)
