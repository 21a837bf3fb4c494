"""How close two ensembles are on tiles that neither choice nor repair has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosfm_edge.network.steps import as_rows


@dataclass(frozen=True)
class LevelFidelity:
    """One level against the original.

    Attributes:
        cosine: mean over cells of the cosine between the channel vectors.
        sqnr_db: energy of the original over that of the difference, in decibels; infinite where
            there is none.
    """

    cosine: float
    sqnr_db: float


@torch.inference_mode()
def compare(original: nn.Module, other: nn.Module, images: Sequence[Tensor]) -> list[LevelFidelity]:
    """Compare levels, level by level.

    Args:
        original: from (N, bands, H, W) to four levels (N, C, h, w).
        other: the same, with as many channels.
        images: batches (N, bands, H, W), in physical units.
    """
    sums: list[list[float]] = []
    for image in images:
        for level, (a, b) in enumerate(zip(original(image), other(image), strict=True)):
            if level == len(sums):
                sums.append([0.0] * 4)
            mine = sums[level]
            rows, others = as_rows(a, last=False).double(), as_rows(b, last=False).double()
            mine[0] += float(functional.cosine_similarity(rows, others, dim=1).sum())
            mine[1] += rows.shape[0]
            mine[2] += float(rows.square().sum())
            mine[3] += float((rows - others).square().sum())
    return [
        LevelFidelity(
            cosine / cells,
            float("inf") if noise == 0 else 10 * float(torch.tensor(signal / noise).log10()),
        )
        for cosine, cells, signal, noise in sums
    ]
