"""``--precision auto``: the fastest precision that keeps the fidelity budget, by measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.exporting.deployment import Deployment, Scales, deployment
from eosfm_edge.formats.bundle import Candidate
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import Profile
from eosfm_edge.network.deployed import NATIVE
from eosfm_edge.network.fidelity import compare, least_cosine
from eosfm_edge.network.latency import time_precisions

FloatArray = NDArray[np.float32]
# What is asked of every level where no calibration says it.
MIN_COSINE = 0.995
# A narrower precision must take less than this share of the time: a tie, which is decided one way
# today and the other way tomorrow, is no reason to lose precision.
_WORTH_IT = 0.9


def choose_precision(
    ensemble: Ensemble,
    profile: Profile,
    scales: Scales | None,
    tiles: Sequence[FloatArray],
) -> tuple[Candidate, ...]:
    """Measure the precisions of this machine; returns them with the chosen one first.

    Args:
        ensemble: it is not changed.
        profile: the target's, which is this machine: no other can be timed.
        scales: with which int8 is tried too.
        tiles: stored values, each (bands, H, W), on which fidelity is measured.
    """
    precisions: list[Precision] = ["fp32", "bf16"]
    if scales:
        precisions.append("int8")
    deployed = {p: deployment(ensemble, profile.engine, p, scales) for p in precisions}
    times = time_precisions(ensemble, {p: one.native for p, one in deployed.items()}, tiles[0])
    asked = scales.calibration.min_cosine if scales else MIN_COSINE
    found = [
        Candidate(
            precision=p,
            milliseconds=times[p],
            min_cosine=_least_cosine(deployed[p], tiles),
            asked=asked,
        )
        for p in precisions
    ]
    return in_order(found)


def in_order(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return candidates with the one to take first.

    Args:
        found: from the widest precision on. The first, fp32, keeps any budget.
    """
    best = found[0]
    for one in found[1:]:
        if one.keeps_budget and one.milliseconds < _WORTH_IT * best.milliseconds:
            best = one
    rest = sorted(
        (one for one in found if one is not best),
        key=lambda one: (not one.keeps_budget, one.milliseconds),
    )
    return (best, *rest)


def _least_cosine(deployed: Deployment, tiles: Sequence[FloatArray]) -> float:
    """Return the smallest of the levels' mean cosines with fp32, -1 if one is not a number."""
    images = [torch.from_numpy(tile[np.newaxis]) for tile in tiles]
    return least_cosine(compare(deployed.chain, deployed.simulated(NATIVE), images))
