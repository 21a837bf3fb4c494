"""Find the wholly valid tiles of a scene, wherever they begin.

Tiles lie on shelves: rows of tiles with one top. What fits on a shelf that begins at a row is known
from the columns that are valid down to its bottom, and the best set of shelves by dynamic
programming over the rows. A grid with one origin loses a tile to every stray pixel without data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.scene.scene import Scene

_ROWS = 64  # read at once

Place = tuple[int, int]  # left, top


def valid_places(scene: Scene, size: int, random: np.random.Generator) -> list[Place]:
    """Return corners of wholly valid tiles that do not overlap, as many as shelves can hold.

    Reads the scene once, a few rows at a time; keeps a bit a pixel.

    Args:
        scene: where from.
        size: pixels of a tile's side.
        random: shifts tiles within what is valid, so that another seed gives other ones.
    """
    height, width = scene.height, scene.width
    shelves = height - size + 1
    if shelves < 1 or width < size:
        return []
    free = np.zeros((shelves, -(-width // 8)), np.uint8)  # bits: valid from this row to its bottom
    held = np.zeros(shelves, np.int64)
    depth = np.zeros(width, np.int64)  # valid rows below, this one included
    for top in range((height - 1) // _ROWS * _ROWS, -1, -_ROWS):
        _, valid = scene.read(0, top, width, min(_ROWS, height - top))
        for row in range(len(valid) - 1, -1, -1):
            depth = np.where(valid[row], depth + 1, 0)
            if top + row < shelves:
                free[top + row] = np.packbits(depth >= size)
                first, last = _runs(depth >= size)
                held[top + row] = ((last - first) // size).sum()
    places: list[Place] = []
    for top in _best_shelves(held, size):
        for first, last in zip(*_runs(np.unpackbits(free[top], count=width) > 0), strict=True):
            spare = (last - first) % size
            start = first + int(random.integers(spare + 1))
            places += [(int(left), top) for left in range(start, last - size + 1, size)]
    return places


def _runs(ok: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where runs of true values begin, and where they end, exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ok, [False]]).astype(np.int8)))
    return edges[::2], edges[1::2]


def _best_shelves(held: NDArray[np.int64], size: int) -> list[int]:
    """Return the tops of shelves that do not overlap and together hold the most tiles."""
    best = np.zeros(len(held) + size, np.int64)  # from this row on
    for top in range(len(held) - 1, -1, -1):
        best[top] = max(best[top + 1], held[top] + best[top + size])
    chosen, top = [], 0
    while top < len(held):
        if held[top] and best[top] == held[top] + best[top + size]:
            chosen.append(top)
            top += size
        else:
            top += 1
    return chosen
