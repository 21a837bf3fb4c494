"""How far a rounded encoder's levels are from the exact ones, on tiles that no scale was made from.

Levels are compared after the ensemble's normalisation, which takes their mean away: what is left is
what decoders see, and its cosines are not flattered by a mean that all cells share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from eosfm_edge.network.scales import LevelFidelity
from eosfm_edge.network.steps import as_rows

CENTROIDS = 16
_CELLS = 4096  # that centroids are found on, at most
_ROUNDS = 10  # of k-means

Levels = Sequence[Tensor]  # (N, C, h, w) each


@dataclass
class _Level:
    """Sums over batches."""

    cosines: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    moved: int = 0
    cells: int = 0


class Judge:
    """Compares levels with the exact ones of the same images.

    Args:
        exact: the exact levels, batch by batch; they are kept.
        normalise: what the ensemble does to levels before it fuses them.
    """

    def __init__(
        self,
        exact: Sequence[Levels],
        normalise: Callable[[Levels], Levels] = lambda levels: levels,
    ) -> None:
        self._normalise = normalise
        per_batch = [[as_rows(x, last=False) for x in normalise(levels)] for levels in exact]
        self._rows = list(zip(*per_batch, strict=True))  # by level, then by batch
        self._centroids = [_centroids(torch.cat(batches)) for batches in self._rows]

    @torch.inference_mode()
    def compare(self, found: Sequence[Levels]) -> tuple[LevelFidelity, ...]:
        """Return the fidelity of levels of the same images, batch by batch."""
        sums = [_Level() for _ in self._rows]
        for batch, levels in enumerate(found):
            for one, exact, centroids, level in zip(
                sums, self._rows, self._centroids, self._normalise(levels), strict=True
            ):
                a, b = exact[batch], as_rows(level, last=False)
                one.cosines += float(functional.cosine_similarity(a, b, dim=1).sum())
                one.signal += float(a.double().square().sum())
                one.noise += float((a - b).double().square().sum())
                one.moved += int((_labels(a, centroids) != _labels(b, centroids)).sum())
                one.cells += len(a)
        return tuple(
            LevelFidelity(
                cosine=one.cosines / one.cells,
                sqnr_db=decibels(one.signal, one.noise),
                drop=100 * one.moved / one.cells,
            )
            for one in sums
        )


def decibels(signal: float, noise: float) -> float | None:
    """Return signal over noise; None where there is no noise, or no signal."""
    if noise == 0 or signal == 0:
        return None
    return 10 * math.log10(signal / noise) if math.isfinite(noise) else -math.inf


def _centroids(rows: Tensor) -> Tensor:
    """Return centroids (up to CENTROIDS, C) of rows (cells, C), by Lloyd's k-means."""
    generator = torch.Generator().manual_seed(0)
    some = rows[torch.randperm(len(rows), generator=generator)[:_CELLS]]
    centroids = some[:CENTROIDS].clone()
    for _ in range(_ROUNDS):
        labels = _labels(some, centroids)
        for index in range(len(centroids)):
            mine = some[labels == index]
            if len(mine):
                centroids[index] = mine.mean(0)
    return centroids


def _labels(rows: Tensor, centroids: Tensor) -> Tensor:
    """Return the nearest centroid of each row."""
    distance = centroids.square().sum(1) - 2 * rows @ centroids.T
    return distance.argmin(1)
