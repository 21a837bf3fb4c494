"""Count the calibration tiles that the unknowns need.

A block's last layer is solved for from its hidden channels: c unknowns for each output, from the n
cells that the tiles have at the block's stride. Least squares on n independent cells leaves about
n / (n - c) times the error that endless cells would leave: 3.0 dB more at n = 2 c, 1.2 dB at 4 c,
0.6 dB at 8 c. Below c it goes through every cell and says nothing. So four cells a channel are
taken.
"""

from __future__ import annotations

import warnings

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import view_of
from eosfm_edge.ensemble.view import StepView
from eosfm_edge.formats.ensemble import LEVEL_STRIDES

CELLS_PER_CHANNEL = 4


class FewTilesWarning(UserWarning):
    """There are fewer calibration tiles than the unknowns need."""


def tiles_needed(ensemble: Ensemble, size: int) -> int:
    """Return how many tiles give every stage of every specialist its cells.

    Args:
        ensemble: of whose specialists those count that are run.
        size: pixels of a tile's side.
    """
    needs = [
        -(-CELLS_PER_CHANNEL * block.hidden // _cells(size, block.stage))
        for block in _blocks(ensemble)
    ]
    return max(needs, default=1)


def warn_if_few(ensemble: Ensemble, tiles: int, size: int, *, asked: int | None) -> None:
    """Warn if a stage of a specialist has fewer cells than its channels need.

    Args:
        ensemble: whose specialists.
        tiles: that there are for calibration.
        size: pixels of a tile's side.
        asked: how many tiles the user asked for, at most; None: as many as are needed.
    """
    needed = tiles_needed(ensemble, size)
    if tiles >= needed:
        return
    worst = max(_blocks(ensemble), key=lambda one: one.hidden / _cells(size, one.stage))
    cells = tiles * _cells(size, worst.stage)
    remedy = f"more --data, enough for --tiles {needed}"
    if asked is not None and asked < needed:
        remedy = f"--tiles {needed}"
    warnings.warn(
        f"{tiles} tiles of {size} pixels give stage {worst.stage + 1} {cells} cells for its "
        f"{worst.hidden} channels, fewer than {CELLS_PER_CHANNEL} for each: give {remedy}",
        FewTilesWarning,
        stacklevel=4,
    )


def _cells(size: int, stage: int) -> int:
    return (size // LEVEL_STRIDES[stage]) ** 2


def _blocks(ensemble: Ensemble) -> list[StepView]:
    """Return the blocks of all specialists that are run."""
    return [
        step
        for encoder, sets in zip(ensemble.encoders, ensemble.sets, strict=True)
        for step in view_of(encoder).steps
        if sets and step.kind == "block"
    ]
