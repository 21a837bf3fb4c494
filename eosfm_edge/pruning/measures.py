"""Measure a pruned ensemble beside its original: fidelity, and what libeosfm takes for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.formats.precision import Precision
from eosfm_edge.network.fidelity import Closeness, compare
from eosfm_edge.network.latency import Footprint, footprints
from eosfm_edge.network.tiles import Tiles


def fidelity_of(ensemble: Ensemble, pruned: Ensemble, tiles: Tiles) -> Sequence[Closeness] | None:
    """Return the fidelity of each level on the held-out tiles; None where channels differ."""
    images = [tile[None] for tile in tiles.held_out]
    before, after = ensemble(images[0][:, :, :32, :32]), pruned(images[0][:, :, :32, :32])
    if any(a.shape != b.shape for a, b in zip(before, after, strict=True)):
        return None
    return compare(ensemble, pruned, images)


def footprints_of(
    ensembles: Sequence[Ensemble], tiles: Tiles, precision: Precision
) -> list[Footprint]:
    """Time ensembles of one input in turn, on a held-out tile, and measure their files."""
    # The engine takes stored values.
    seen = [band.seen for band in ensembles[0].spec.input]
    planes = [(tiles.held_out[0][i] - offset) / scale for i, (scale, offset) in enumerate(seen)]
    return footprints(ensembles, torch.stack(planes), precision)
