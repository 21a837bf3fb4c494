"""Estimate the best speed of a bundle on a device, by the figures of its data sheet.

The roofline of Williams, Waterman and Patterson, CACM 52 (2009), doi:10.1145/1498765.1498785: no
faster than its units compute, and no faster than its memory brings the weights. It is a bound, and
small networks stay far from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from eosfm_edge.formats.precision import DevicePrecision
from eosfm_edge.formats.target import Profile


@dataclass(frozen=True)
class Expectation:
    """The least time of a tile, in milliseconds: to compute it, and to read the weights for it."""

    precision: DevicePrecision
    compute_ms: float
    memory_ms: float | None

    @property
    def milliseconds(self) -> float:
        """The longer of both, which overlap at best."""
        return max(self.compute_ms, self.memory_ms or 0.0)

    @property
    def summary(self) -> str:
        """One-line summary."""
        longer = (
            "memory" if (self.memory_ms or 0.0) > self.compute_ms else f"{self.precision} units"
        )
        return (
            f"at least {self.milliseconds:.2g} ms a tile, by the data sheet's {longer}: "
            "a bound, not a measurement"
        )


def expected_time(
    profile: Profile, precision: DevicePrecision, macs: int, weights: int
) -> Expectation | None:
    """Return the bound for a tile; None if the profile does not say what its units can.

    Args:
        profile: the device's.
        precision: that the products are computed in.
        macs: multiply-accumulates of a tile.
        weights: bytes that are read for it.
    """
    peak = profile.peak_tops.get(precision)
    if peak is None:
        return None
    memory_ms = None
    if profile.bandwidth_gbs:
        memory_ms = weights / (profile.bandwidth_gbs * 1e9) * 1e3
    return Expectation(precision, 2 * macs / (peak * 1e12) * 1e3, memory_ms)
