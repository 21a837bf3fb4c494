"""Measure how close the levels of two networks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosfm_edge.formats.calibration import LevelFidelity
from eosfm_edge.network.steps import as_rows


@dataclass
class Closeness:
    """One level against the original's, added up over batches."""

    _cosines: float = 0.0
    _cells: int = 0
    _signal: float = 0.0
    _noise: float = 0.0

    def add(self, original: Tensor, other: Tensor) -> None:
        """Compare rows of cells (cells, C) with others of the same cells."""
        a, b = original.double(), other.double()
        self._cosines += float(functional.cosine_similarity(a, b, dim=1).sum())
        self._cells += len(a)
        self._signal += float(a.square().sum())
        self._noise += float((a - b).square().sum())

    @property
    def cosine(self) -> float:
        """The mean over cells of the cosine between the channel vectors."""
        return self._cosines / self._cells

    @property
    def sqnr_db(self) -> float:
        """Energy of the original over that of the difference, in decibels.

        Infinity where there is no difference, minus infinity where a value is not finite.
        """
        if not (math.isfinite(self._signal) and math.isfinite(self._noise)):
            return -math.inf
        if self._noise == 0:
            return math.inf
        if self._signal == 0:
            return -math.inf
        return 10 * math.log10(self._signal / self._noise)


def least_cosine(levels: Sequence[Closeness | LevelFidelity]) -> float:
    """Return the smallest cosine of some levels, -1 if any is not a number.

    Python's ``min`` drops a NaN that does not come first.
    """
    cosines = [level.cosine for level in levels]
    return min(cosines) if all(map(math.isfinite, cosines)) else -1.0


@torch.inference_mode()
def compare(original: nn.Module, other: nn.Module, images: Sequence[Tensor]) -> list[Closeness]:
    """Compare levels, level by level.

    Args:
        original: from (N, bands, H, W) to levels (N, C, h, w).
        other: the same, with as many channels.
        images: batches (N, bands, H, W).
    """
    found: list[Closeness] = []
    for image in images:
        pairs = list(zip(original(image), other(image), strict=True))
        found = found or [Closeness() for _ in pairs]
        for level, (a, b) in zip(found, pairs, strict=True):
            level.add(as_rows(a, last=False), as_rows(b, last=False))
    return found
