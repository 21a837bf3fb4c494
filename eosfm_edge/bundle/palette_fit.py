"""Fit a palette to cells: principal components for colours, k-means for groups.

Features are taken as they are. Standardised channels show less: those that vary little are mostly
noise, and get as much say as the others. The same cells give the same palette.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.palette import GROUPS, FloatArray, LevelColours, Palette

Doubles = NDArray[np.float64]

GROUPED = 2  # the level of which groups are made, from 1
MOST_CELLS = 4096  # of a level that are looked at

_SHOWN = (2, 98)  # percentiles of a component that are shown as darkest and brightest
_STARTS, _STEPS = 8, 100  # of k-means


def fit_palette(levels: Sequence[FloatArray], of: str) -> Palette:
    """Fit a palette to cells of each level.

    Args:
        levels: (cells, C) of each, finite, at least one cell; evenly spread ones are taken of more
            than :data:`MOST_CELLS`.
        of: whose features they are.
    """
    cells = [level[:: -(-len(level) // MOST_CELLS)].astype(np.float64) for level in levels]
    colours = [_level_colours(level) for level in cells]
    grouped = cells[GROUPED - 1] - cells[GROUPED - 1].mean(axis=0)
    centres = _k_means(grouped, min(GROUPS, len(np.unique(grouped, axis=0))))
    # Groups are numbered along the first component, from the end that has more cells.
    centres = centres[np.argsort(centres @ colours[GROUPED - 1].directions[0], kind="stable")]
    sizes = np.bincount(_squared_distances(grouped, centres).argmin(axis=1), minlength=len(centres))
    if sizes[-1] > sizes[0]:
        centres = centres[::-1]
    return Palette(of, tuple(colours), GROUPED, centres.astype(np.float32))


def _level_colours(cells: Doubles) -> LevelColours:
    mean = cells.mean(axis=0)
    directions = _principal_directions(cells - mean)
    low, high = np.percentile((cells - mean) @ directions.T, _SHOWN, axis=0)
    parts = (mean, directions, low, high)
    return LevelColours(*(part.astype(np.float32) for part in parts))


def _principal_directions(cells: Doubles) -> Doubles:
    """Return the three directions (3, C) in which cells (N, C) of mean 0 vary most."""
    count, channels = cells.shape
    # The smaller of the two products has the same eigenvalues.
    if channels <= count:
        values, vectors = np.linalg.eigh(cells.T @ cells)
        directions = vectors.T
    else:
        values, vectors = np.linalg.eigh(cells @ cells.T)
        directions = vectors.T @ cells
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-300)
    found = np.zeros((3, channels))
    for place, i in enumerate(np.argsort(values)[::-1][:3]):
        if values[i] > 1e-9 * max(values.max(), 1e-300):
            direction = directions[i]
            # An eigenvector's sign is arbitrary: fix it, so that two fits look alike.
            found[place] = direction * np.sign(direction[np.abs(direction).argmax()])
    return found


def _k_means(cells: Doubles, groups: int) -> Doubles:
    """Return the centres (groups, C) of the best of some runs of Lloyd's algorithm."""
    random = np.random.default_rng(0)
    runs = [_lloyd(cells, _spread_centres(cells, groups, random)) for _ in range(_STARTS)]
    return min(runs, key=lambda run: run[1])[0]


def _spread_centres(cells: Doubles, groups: int, random: np.random.Generator) -> Doubles:
    """Choose cells as first centres, those far from the chosen ones more likely (k-means++)."""
    centres = [cells[random.integers(len(cells))]]
    while len(centres) < groups:
        nearest = _squared_distances(cells, np.stack(centres)).min(axis=1)
        if nearest.sum() == 0:
            break  # cells that differ by less than their squares' rounding
        centres.append(cells[random.choice(len(cells), p=nearest / nearest.sum())])
    return np.stack(centres)


def _lloyd(cells: Doubles, centres: Doubles) -> tuple[Doubles, float]:
    """Move centres to the means of their cells until no cell changes; gives the sum of squares."""
    owners = None
    for _ in range(_STEPS):
        distances = _squared_distances(cells, centres)
        nearest = distances.argmin(axis=1)
        if owners is not None and (nearest == owners).all():
            break
        owners = nearest
        for group in range(len(centres)):
            mine = cells[owners == group]
            # A centre that lost all its cells goes to the one that is worst served.
            centres[group] = (
                mine.mean(axis=0) if len(mine) else cells[distances.min(axis=1).argmax()]
            )
    return centres, float(_squared_distances(cells, centres).min(axis=1).sum())


def _squared_distances(cells: Doubles, centres: Doubles) -> Doubles:
    products = cells @ centres.T
    squares = (cells**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    distances: Doubles = np.maximum(squares - 2 * products, 0)
    return distances
