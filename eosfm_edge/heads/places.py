"""Blocks of a scene, by which a fit is judged in places that it has not seen.

Neighbouring cells are alike, in their features and in their labels: cells that are held out at
random are judged by what was learned from their neighbours, and everything looks right. So whole
blocks are held out, and only their inner cells judge, which lie at some distance from every cell
that was learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 32  # pixels between a cell that judges and the nearest that was learned from
_SIDES = (512, 256, 128)  # pixels of a block
_LEAST_BLOCKS = 4  # along the scene's longer side


@dataclass(frozen=True)
class Places:
    """The blocks of one scene.

    Attributes:
        block: (h, w), the number of each cell's block.
        judges: (h, w), whether a cell is an inner one of its block.
        count: of blocks.
    """

    block: NDArray[np.int32]
    judges: NDArray[np.bool_]
    count: int


def places_of(height: int, width: int, stride: int) -> Places:
    """Cut a scene of ``height`` x ``width`` pixels into blocks, by its cells of ``stride``.

    Blocks are as large as leaves some of them along the scene's longer side. The scene's own edges
    need no margin.
    """
    longer = max(height, width)
    side = next((s for s in _SIDES if longer >= _LEAST_BLOCKS * s), _SIDES[-1])
    rows, row_inner = _axis(height, stride, side)
    columns, column_inner = _axis(width, stride, side)
    across = int(columns[-1]) + 1
    return Places(
        block=(rows[:, None] * across + columns).astype(np.int32),
        judges=row_inner[:, None] & column_inner,
        count=(int(rows[-1]) + 1) * across,
    )


def _axis(pixels: int, stride: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each cell's block along an axis, and whether it is away from other blocks."""
    cells = -(-pixels // stride)
    blocks = max(1, round(pixels / side))  # the last takes what is left
    at = np.arange(cells) * stride
    block = np.minimum(at // side, blocks - 1)
    into = at - block * side
    inner = (into >= MARGIN) | (block == 0)
    inner &= (into + stride <= side - MARGIN) | (block == blocks - 1)
    return block, inner
