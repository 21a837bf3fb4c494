"""Compare a fake-quantised encoder's levels with the exact ones, on tiles that no scale has seen.

Levels are compared after the ensemble's normalisation, which takes their mean away: what is left is
what decoders see, and its cosines are not flattered by a mean that all cells share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.formats.calibration import LevelFidelity
from eosfm_edge.formats.ensemble import LEVELS
from eosfm_edge.network.fidelity import Closeness
from eosfm_edge.network.steps import as_rows

CENTROIDS = 16
_CELLS = 4096  # that centroids are found on, at most
_ROUNDS = 10  # of k-means

Levels = Sequence[Tensor]  # (N, C, h, w) each


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
        levels = [Closeness() for _ in self._rows]
        moved, cells = [0] * len(levels), [0] * len(levels)
        for batch, mine in enumerate(found):
            for index, level in enumerate(self._normalise(mine)):
                exact, centroids = self._rows[index][batch], self._centroids[index]
                rows = as_rows(level, last=False)
                levels[index].add(exact, rows)
                moved[index] += int((_labels(exact, centroids) != _labels(rows, centroids)).sum())
                cells[index] += len(rows)
        return tuple(
            LevelFidelity(
                cosine=level.cosine,
                sqnr_db=None if level.sqnr_db == math.inf else level.sqnr_db,
                drop=100 * labels / count,
            )
            for level, labels, count in zip(levels, moved, cells, strict=True)
        )


def normaliser_of(ensemble: Ensemble, owner: int) -> Callable[[Levels], Levels]:
    """Return what an ensemble does to the levels of one of its specialists."""
    layers = ensemble.feature_normalizers[owner]
    return lambda levels: [layers[level](levels[level]) for level in LEVELS]  # type: ignore[index]


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
