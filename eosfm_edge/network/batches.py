"""Tiles as batches of about the same number of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PIXELS_PER_BATCH = 64 * 64 * 64


def in_batches(tiles: Sequence[Tensor]) -> list[Tensor]:
    """Stack tiles (bands, H, W), neighbours of one size, to batches (N, bands, H, W)."""
    batches: list[list[Tensor]] = []
    for tile in tiles:
        full = not batches or (len(batches[-1]) + 1) * tile[0].numel() > PIXELS_PER_BATCH
        if full or batches[-1][0].shape != tile.shape:
            batches.append([])
        batches[-1].append(tile)
    return [torch.stack(batch) for batch in batches]
